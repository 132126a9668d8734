"""The bounds, case by case: how room is divided, how it moves, and what takes it away from everybody."""

import math
from decimal import Decimal
from typing import Any

import pytest
from core_kit import INVERSE, NS, START_NS, changed
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from portfolio_kit import (
    BTC,
    FOREVER_NS,
    MARKET,
    MAX_LOTS,
    Book,
    Symbol,
    every_total,
    key,
    limits,
    scope,
    valued,
    worth,
)

from mmd.core.portfolio import PortfolioMachine
from mmd.core.totals import DRIFT, NOISE
from mmd.domain.settings import KillSwitches, PortfolioLimits, ScopeLimits
from mmd.domain.totals import BoundsAcked, GrantBounds, SymbolJoined, Valued

TIGHT = [
    pytest.param(limits(btc="10", eth="30", usd="1000000"), id="all totals tight"),
    pytest.param(limits(btc="3", eth="1000", usd="10000000"), id="coins tight"),
    pytest.param(limits(btc="1000", eth="1000", usd="200000"), id="dollars tight"),
    pytest.param(limits(btc="1000", eth="1000", usd="100000000"), id="room for all"),
    pytest.param(limits(btc="1000", eth="1000", max_contracts=Decimal(900)), id="contracts tight"),
    pytest.param(
        limits(
            btc="1000",
            eth="1000",
            per_exchange={"other": scope(contracts="7"), "deribit": scope(usd="250000")},
            per_underlying={"ETH": scope(usd="4000")},
        ),
        id="scopes tight",
    ),
]


def machine(given: PortfolioLimits) -> PortfolioMachine:
    return PortfolioMachine(given, KillSwitches(), START_NS)


def shares(given: PortfolioLimits, names: list[str]) -> dict[str, int]:
    """What everybody has once all is quiet and flat: the same part of its own limit, by the tightest total over it."""
    parts = dict.fromkeys(names, 1.0)
    for total in every_total(given):
        covered = [name for name in names if name in total.names]
        wanted = sum(MAX_LOTS[name] * worth(name)[total.at] for name in covered)
        allowance = 1.0 if total.name.startswith("contracts") else 1.0 + DRIFT
        for name in covered:
            parts[name] = min(parts[name], total.limit / allowance / wanted)
    return {name: math.floor(MAX_LOTS[name] * part + NOISE) for name, part in parts.items()}


@pytest.mark.parametrize("given_limits", TIGHT)
@hypothesis_settings(max_examples=60, deadline=None)
@given(order=st.permutations(sorted(MARKET)), gone=st.sampled_from(sorted(MARKET)))
def test_when_all_have_acknowledged_everybody_has_its_share(
    given_limits: PortfolioLimits, order: list[str], gone: str
) -> None:
    """No deadlock, and the order of joining does not matter."""
    book = Book(given_limits)
    for name in order:
        book.join(name, MAX_LOTS[name])
        book.settle()
    assert {name: symbol.held for name, symbol in book.symbols.items()} == shares(given_limits, order)
    book.leave(gone)
    book.settle()
    rest = [name for name in order if name != gone]
    assert {name: symbol.held for name, symbol in book.symbols.items()} == shares(given_limits, rest)


def test_room_moves_only_after_the_acknowledgement() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.settle()
    assert book.symbols["C"].held == 98  # 10 coins less the drift allowance, 0.1 coin a lot
    book.join("D", 100)
    book.deliver(9)
    assert [grant.max_lots for grant in book.symbols["C"].inbox] == [49]
    assert [grant.max_lots for grant in book.symbols["D"].inbox] == [0]
    book.hear("C")
    book.deliver(9)
    assert book.machine.shares[key("D")].granted == 0, "heard is not acknowledged"
    book.acknowledge("C")
    book.deliver(9)
    assert [grant.max_lots for grant in book.symbols["D"].inbox][-1] == 49


def test_an_old_acknowledgement_frees_nothing() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.settle()
    book.join("D", 100)
    book.deliver(9)
    old = book.symbols["C"].version
    assert book.tell(BoundsAcked(key("C"), old)) == []


def test_no_price_no_room() -> None:
    lone, name = machine(limits()), INVERSE.key
    assert lone.handle([SymbolJoined(INVERSE, 100)], START_NS) == [GrantBounds(name, 1, 0, 0)]
    assert lone.handle([Valued(name, 0, 0.0, 0.0, None)], START_NS) == []
    assert lone.handle([Valued(name, 0, BTC, BTC, None)], START_NS) == [GrantBounds(name, 2, -100, 100)]


def test_an_underlying_without_a_limit_gets_no_room() -> None:
    lone = machine(changed(limits(), max_exposure={"ETH": Decimal(100)}))
    lone.handle([SymbolJoined(INVERSE, 100)], START_NS)
    lone.handle([Valued(INVERSE.key, 0, BTC, BTC, None)], START_NS)
    assert lone.shares[INVERSE.key].granted == 0
    row = next(row for row in lone.uses({}) if row.target == "BTC")
    assert (row.limit, row.oversubscribed, row.key) == (0.0, None, "limits.portfolio.max_exposure.BTC")


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param({"mark": 0.0, "index": 0.0, "pnl_usd": None}, id="no prices"),
        pytest.param({"pnl_usd": None}, id="no profit: the drawdown cannot be computed"),
    ],
)
def test_a_position_that_cannot_be_valued_stops_everybody(unknown: dict[str, Any]) -> None:
    book = Book(limits())
    book.join("C", 50)
    book.settle()
    assert book.symbols["C"].held == 50
    book.symbols["D"] = Symbol()
    book.tell(SymbolJoined(MARKET["D"][0], 10))
    book.tell(changed(valued("D", 3), **unknown))
    book.settle()
    assert book.symbols["C"].held == 0
    book.tell(valued("D", 3))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (50, 10)


def test_a_position_beyond_its_share_takes_from_the_others() -> None:
    """Found at start with 8 of 10 coins: no bound can lower it, so the others get what is left."""
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.join("D", 100)
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 49)
    book.symbols["C"].lots = 80
    book.tell(valued("C", 80))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 18)
    book.check()
    book.symbols["C"].lots = 40
    book.tell(valued("C", 40))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 49)


def test_a_lone_position_beyond_its_share_gives_no_more_room() -> None:
    book = Book(limits(btc="5", usd="100000000"))
    book.join("C", 100, lots=80)
    book.settle()
    assert book.symbols["C"].held == 49


def test_what_a_removed_symbol_leaves_behind_still_counts() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 60)
    book.settle()
    book.fill("C", 40)
    book.settle()
    book.leave("C")
    book.join("D", 100)
    book.settle()
    assert book.symbols["D"].held == 58  # 10/1.02 - 4 coins, a tenth each
    assert book.machine.totals().exposure["BTC"] == pytest.approx(4.0)


def test_an_expired_position_is_left_nowhere() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 60)
    book.settle()
    book.fill("C", 40)
    book.settle()
    book.leave("C")
    book.join("P", 100_000)
    book.settle()
    held = book.symbols["P"].held
    book.tell(seconds=(FOREVER_NS - book.now_ns) / NS)
    book.settle()
    assert (held, book.symbols["P"].held) == (29_019, 49_019)  # 4 coins are 20,000 lots of 10 USD
    assert book.machine.totals().exposure["BTC"] == 0.0


def test_a_symbol_that_returns_still_has_its_position() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 60)
    book.settle()
    book.fill("C", 40)
    book.settle()
    book.leave("C")
    book.symbols["C"] = Symbol()
    book.tell(SymbolJoined(MARKET["C"][0], 60))
    assert book.machine.totals().exposure["BTC"] == pytest.approx(4.0)


def test_lower_totals_reach_everybody() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    for name in ("C", "D"):
        book.join(name, 100)
    book.settle()
    book.change(limits(btc="5", usd="100000000"))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (24, 24)
    book.check()


# --- marks that move ----------------------------------------------------------------------------------


def dollars(book: Book, move: float = 1.0) -> float:
    return book.worst_of(next(total for total in every_total(book.given) if total.name == "USD"), move=move)


def test_a_small_move_of_the_marks_changes_no_bounds_and_passes_no_total() -> None:
    """Grants leave DRIFT of every total unused: that is what a lot may gain before a new division."""
    book = Book(limits(btc="1000", usd="1000000"))
    for name in ("C", "E"):
        book.join(name, MAX_LOTS[name])
    book.settle()
    move = 1.0 + DRIFT * 0.99
    assert book.tell(valued("C", move=move), valued("E", move=move)) == []
    assert dollars(book, move) <= 1_000_000.0


def test_a_large_move_divides_anew_and_may_pass_the_total_until_the_symbols_have_let_go() -> None:
    """A mark that jumps makes positions worth more at once: no bound can be faster than that."""
    book = Book(limits(btc="1000", usd="300000"))
    for name in ("C", "D"):
        book.join(name, MAX_LOTS[name])
    book.settle()
    assert dollars(book) <= 300_000.0
    book.tell(valued("C", move=1.1), valued("D", move=1.1))
    assert dollars(book, 1.1) > 300_000.0
    book.settle()
    assert dollars(book, 1.1) <= 300_000.0


# --- what is shown ------------------------------------------------------------------------------------


def test_totals_for_status() -> None:
    book = Book(limits())
    book.join("C", 20)
    book.join("P", 1000)
    book.settle()
    book.fill("C", -10)
    book.fill("P", 500)
    book.settle()
    totals = book.machine.totals()
    assert totals.exposure["BTC"] == pytest.approx(1.0 + 500 * 10 / BTC)
    assert totals.worst_exposure["BTC"] == pytest.approx(2.0 + 1000 * 10 / BTC)
    assert totals.notional_usd == pytest.approx(10 * 0.1 * BTC + 5000)


def test_every_total_has_its_line() -> None:
    given = limits(
        max_contracts=Decimal(2000),
        max_daily_loss_usd=Decimal(700),
        max_open_orders=40,
        per_exchange={"deribit": ScopeLimits(max_notional_usd=Decimal(50_000), max_open_orders=3)},
        per_underlying={"ETH": scope(contracts="100")},
    )
    book = Book(given)
    book.join("P", 1000)
    book.join("D", 50)
    book.settle()
    book.fill("P", -500)
    book.settle()
    book.tell(valued("P", -500, pnl=-120.0))
    rows = {(row.scope, row.target, row.unit): row for row in book.machine.uses({key("P"): 2, key("D"): 1})}
    root = "limits.portfolio"
    expected = {
        ("portfolio", "", "USD"): (5000.0, 260_000.0, 1_000_000.0, 0.26, f"{root}.max_notional_usd"),
        ("portfolio", "", "contracts"): (500.0, 1005.0, 2000.0, 0.5025, f"{root}.max_contracts"),
        ("underlying", "BTC", "coins"): (0.1, 5.2, 10.0, 0.52, f"{root}.max_exposure.BTC"),
        ("underlying", "ETH", "coins"): (0.0, 0.0, 100.0, 0.0, f"{root}.max_exposure.ETH"),
        ("exchange", "deribit", "USD"): (
            *(5000.0, 10_000.0, 50_000.0, 0.2),
            f"{root}.per_exchange.deribit.max_notional_usd",
        ),
        ("underlying", "ETH", "contracts"): (0.0, 0.0, 100.0, 0.0, f"{root}.per_underlying.ETH.max_contracts"),
        ("portfolio", "", "orders"): (3.0, 4.0, 40.0, 0.1, f"{root}.max_open_orders"),
        ("exchange", "deribit", "orders"): (2.0, 2.0, 3.0, 2 / 3, f"{root}.per_exchange.deribit.max_open_orders"),
        ("portfolio", "", "USD lost"): (120.0, None, 5000.0, None, f"{root}.max_drawdown_usd"),
        ("portfolio", "", "USD lost today"): (120.0, None, 700.0, None, f"{root}.max_daily_loss_usd"),
    }
    found = {name: (row.used, row.worst, row.limit, row.oversubscribed, row.key) for name, row in rows.items()}
    assert found == {name: pytest.approx(row) for name, row in expected.items()}


def test_a_line_says_what_it_cannot_say() -> None:
    book = Book(limits())
    book.join("P", 1000, lots=10)
    book.deliver(1)
    book.join("E", 10)
    book.tell(valued("P", 10, pnl=None))
    rows = {(row.target, row.unit): row for row in book.machine.uses({})}
    assert rows[("BTC", "coins")].used == pytest.approx(10 * 10 / BTC)
    assert rows[("ETH", "coins")].oversubscribed is rows[("", "USD")].oversubscribed is None  # E was never priced
    assert rows[("", "USD lost")].used is None
    assert book.machine.losses_of(key("P")) is None
