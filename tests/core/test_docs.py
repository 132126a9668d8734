"""The documents of the core say what the code does."""

import re
from decimal import Decimal

import pytest
from core_kit import PLAIN, changed, settings
from core_tables import BLOCKS, BREACHES, CLOSING_ONLY, DOCS, INDEX, MARKETS, judged, with_block

from mmd.core.book import Touch
from mmd.core.own import GHOST_NS
from mmd.core.quoting import Trace, View, quote
from mmd.core.rules import FILLED_POSITIONS, rules_for
from mmd.core.totals import DRIFT
from mmd.core.tracker import BUDGET_HOLD_NS, GATE_HOLD_NS, HOLD_SECONDS, MAX_HOLD_SECONDS
from mmd.core.watch import CALM
from mmd.domain.reasons import Rule, Switch
from mmd.domain.settings import KillSwitches, Style, SymbolLimits
from mmd.domain.units import Grid


@pytest.mark.parametrize("name", list(BLOCKS))
def test_generated_blocks_are_in_step(name: str) -> None:
    document, render = BLOCKS[name]
    text = (DOCS / document).read_text()
    assert with_block(text, name, render()) == text, "run python tests/core/core_tables.py"


def test_every_step_of_the_pipeline_is_explained() -> None:
    trace: Trace = []
    view = View(Touch(990, 1, 1010, 1), 1000.0, 1000.0, None, 0.0, 10, 10, 0.0, 0.0)
    quote(view, rules_for(PLAIN, settings(style=Style.IMPROVE)), trace)
    text = (DOCS / "quoting.md").read_text()
    for step in trace:
        assert f"`{step.name}`" in text


def test_the_worked_example_is_what_the_code_quotes() -> None:
    """Each row of the table: minimum spread in bps, bid, ask."""
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|", (DOCS / "quoting.md").read_text(), re.MULTILINE)
    assert len(rows) >= 3
    instrument = changed(PLAIN, grid=Grid(Decimal("0.005")))
    for bps, bid, ask in rows:
        profile = {"style": Style.IMPROVE, "improve_by": Decimal("0.10"), "min_spread_bps": float(bps)}
        view = View(Touch(20_000, 1, 21_000, 1), 20_500.0, 20_500.0, None, 0.0, 10, 10, 0.0, 0.0)
        found = quote(view, rules_for(instrument, settings(**{**profile, "band_bps": 5000.0})))
        assert found.bid == changed(found.bid, price_ticks=instrument.grid.ticks(Decimal(bid)))
        assert found.ask == changed(found.ask, price_ticks=instrument.grid.ticks(Decimal(ask)))


def test_every_rule_of_the_gate_is_in_its_table() -> None:
    assert {breach.rule for breach in (*BREACHES, CLOSING_ONLY)} == set(Rule)


@pytest.mark.parametrize("at", range(len(BREACHES)), ids=lambda at: BREACHES[at].rule)
def test_the_gate_asks_in_the_order_of_its_table(at: int) -> None:
    """An order that breaks this rule and all below it is refused by this one."""
    assert judged(BREACHES[at:]).rule is BREACHES[at].rule


def test_no_row_of_the_worked_bounds_may_pass_the_total_but_the_one_that_says_so() -> None:
    number = r" ([\d.,]+) \|"
    rows = re.findall(rf"^\| ([^|]+) \|{number * 5}", limits_page(), re.MULTILINE)
    assert len(rows) == 5
    for step, perpetual, call, put, held, worst in rows:
        coins = Decimal(perpetual.replace(",", "")) / Decimal(INDEX) + Decimal(call) + Decimal(put)
        assert coins <= 10, step  # the bounds alone
        assert (Decimal(worst) > 10) is step.startswith("6 calls are found"), step
        assert Decimal(held) <= Decimal(worst)
    assert set(MARKETS) == {"perpetual", "call", "put"}


def limits_page() -> str:
    return (DOCS / "limits.md").read_text()


def test_constants_that_the_documents_name() -> None:
    orders, units, gate = ((DOCS / name).read_text() for name in ("orders.md", "units.md", "gate.md"))
    assert f"{GHOST_NS // 1_000_000} ms" in orders
    assert f"at most {MAX_HOLD_SECONDS:g} s" in orders
    for fault, seconds in HOLD_SECONDS.items():
        assert f"`{fault}` {seconds:g} s" in orders
    assert f"{DRIFT:.0%}" in units and f"{DRIFT:.0%}" in limits_page()
    assert f"{GATE_HOLD_NS / 1e9:g} s" in gate and f"{BUDGET_HOLD_NS / 1e9:g} s" in gate


def test_defaults_that_the_documents_name() -> None:
    limits = SymbolLimits(max_position=Decimal(1), max_order_size=Decimal(1), collar_bps=1.0)
    page, switches = limits_page(), KillSwitches()
    assert f"{limits.max_places_per_second:g} places and {limits.max_amends_per_second:g} amends a second" in page
    assert f"{limits.max_fills} fills" in page and "five times `max_position`" in page and FILLED_POSITIONS == 5
    operations = (DOCS / "operations.md").read_text()
    assert f"{len(Switch)} kill switches" in (DOCS.parent / "README.md").read_text()
    assert f"more than {switches.max_skew_ms:g} ms" in operations
    assert f"more than {switches.max_disconnects} times in {switches.disconnect_window_seconds:g} s" in operations
    assert CALM == 0.5 and "under half of" in operations
