"""The documents of the core say what the code does."""

import re
from decimal import Decimal

import pytest
from core_kit import PLAIN, changed, settings
from core_tables import BLOCKS, DOCS, with_block

from mmd.core.book import Touch
from mmd.core.own import GHOST_NS
from mmd.core.portfolio import DRIFT
from mmd.core.quoting import Trace, View, quote
from mmd.core.rules import rules_for
from mmd.core.tracker import HOLD_SECONDS, MAX_HOLD_SECONDS
from mmd.domain.settings import Style
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


def test_constants_that_the_documents_name() -> None:
    orders, units = (DOCS / "orders.md").read_text(), (DOCS / "units.md").read_text()
    assert f"{GHOST_NS // 1_000_000} ms" in orders
    assert f"at most {MAX_HOLD_SECONDS:g} s" in orders
    for fault, seconds in HOLD_SECONDS.items():
        assert f"`{fault}` {seconds:g} s" in orders
    assert f"{DRIFT:.0%}" in units
