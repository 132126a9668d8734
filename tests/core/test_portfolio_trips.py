"""Positions beyond a total and positions that cannot be valued: what trips, whom, when, and until when."""

from decimal import Decimal
from typing import Any

import pytest
from core_kit import changed
from portfolio_kit import BTC, MARKET, Book, Symbol, key, limits, scope, valued

from mmd.core.totals import DRIFT
from mmd.domain.reasons import Scope, Switch
from mmd.domain.settings import KillSwitches, PortfolioLimits
from mmd.domain.totals import ClearSwitch, LeftCounted, SymbolJoined, SymbolLeft, TripSwitch

ROOT = "limits.portfolio"


def room(given: PortfolioLimits, switches: KillSwitches | None = None, **found: int) -> Book:
    """Symbols with these positions, found there."""
    book = Book(given, switches)
    for name in found:
        book.symbols[name] = Symbol()
        book.tell(SymbolJoined(MARKET[name][0], 100_000))
    move(book, **found)
    return book


def move(book: Book, **lots: int) -> None:
    for name, position in lots.items():
        book.symbols[name].lots = position
    book.tell(*(book.now(name) for name in lots))


# --- exposure -----------------------------------------------------------------------------------------

BREACHES: dict[str, tuple[dict[str, Any], dict[str, int], dict[str, int], Scope, str, str]] = {
    "coins": (
        {"btc": "2"},
        {"C": 15, "D": -5},
        {"C": 15, "D": -6},
        Scope.PORTFOLIO,
        "",
        f"2.1 coins of BTC held, allowed 2 ({ROOT}.max_exposure.BTC)",
    ),
    "dollars": (
        {"usd": "10000"},
        {"P": -1000},
        {"P": -1001},
        Scope.PORTFOLIO,
        "",
        f"10010 USD held, allowed 10000 ({ROOT}.max_notional_usd)",
    ),
    "contracts": (
        {"max_contracts": Decimal(12)},
        {"C": 20, "E": -10},  # a tenth of a contract a lot, and one
        {"C": 20, "E": -11},
        Scope.PORTFOLIO,
        "",
        f"13 contracts held, allowed 12 ({ROOT}.max_contracts)",
    ),
    "contracts of an underlying": (
        {"per_underlying": {"ETH": scope(contracts="10")}},
        {"E": 10, "P": 50},
        {"E": 11, "P": 50},
        Scope.PORTFOLIO,
        "",
        f"11 contracts of ETH held, allowed 10 ({ROOT}.per_underlying.ETH.max_contracts)",
    ),
    "dollars on an exchange": (
        {"per_exchange": {"other": scope(usd="10000"), "deribit": scope(usd="90000")}},
        {"D": 2, "P": 5000},
        {"D": 3, "P": 5000},
        Scope.EXCHANGE,
        "other",
        f"15000 USD on other held, allowed 10000 ({ROOT}.per_exchange.other.max_notional_usd)",
    ),
}


@pytest.mark.parametrize("case", sorted(BREACHES))
def test_exactly_the_limit_is_allowed_and_a_lot_more_trips(case: str) -> None:
    given, full, over, whom, target, detail = BREACHES[case]
    book = room(limits(**given), **full)
    assert not book.trips
    move(book, **over)
    assert book.trips == [TripSwitch(Switch.EXPOSURE, whom, target, detail)]
    move(book, **full)
    move(book, **over)
    assert len(book.trips) == 1, "it trips once, until it is reset"


def test_every_total_that_is_passed_is_named() -> None:
    book = room(limits(btc="1", usd="1000", max_contracts=Decimal(1)), C=20)
    (trip,) = book.trips
    for part in ("100000 USD held, allowed 1000", "2 contracts held, allowed 1", "2 coins of BTC held, allowed 1"):
        assert part in trip.detail


def test_an_exchange_and_the_portfolio_trip_apart() -> None:
    book = room(limits(usd="20000", per_exchange={"deribit": scope(usd="10000")}), P=1500)
    assert [(trip.scope, trip.target) for trip in book.trips] == [(Scope.EXCHANGE, "deribit")]
    move(book, P=2500)
    assert [(trip.scope, trip.target) for trip in book.trips[1:]] == [(Scope.PORTFOLIO, "")]


def test_what_was_left_behind_counts() -> None:
    book = room(limits(usd="10000"), P=600, F=300)
    book.leave("P")
    move(book, F=400)
    assert not book.trips
    move(book, F=401)
    assert len(book.trips) == 1


def test_what_was_left_behind_is_what_the_exchange_has_of_it() -> None:
    """Orders of a dead process may have filled since, and people close what was left."""
    book = room(limits(usd="10000"), P=600, F=300)
    book.leave("P")
    book.tell(LeftCounted(key("P"), 700))
    move(book, F=300)
    assert not book.trips
    move(book, F=301)
    assert len(book.trips) == 1
    book.tell(LeftCounted(key("P"), 0))
    assert not book.machine.left_behind
    book.tell(LeftCounted(key("P"), 5), LeftCounted("nobody", 5))
    assert not book.machine.left_behind, "it is closed, and nobody left anything else"


def test_a_full_grant_may_drift_to_the_limit_and_no_further() -> None:
    """What was granted is no breach while a mark moves within the allowance; beyond the limit it is one."""
    book = Book(limits(btc="10", usd="100000000"))
    book.join("P", 10_000_000)
    book.settle()
    book.fill("P", 10_000_000)
    book.settle()
    held = book.symbols["P"].lots
    assert held == 49_019  # 10 coins less 2 %, at 50,000 USD
    book.tell(valued("P", held, move=1 / (1.0 + DRIFT) + 1e-4))
    assert not book.trips
    book.tell(valued("P", held, move=1 / (1.0 + DRIFT) - 1e-4))
    assert [trip.switch for trip in book.trips] == [Switch.EXPOSURE]


def test_a_lower_limit_below_what_is_held_is_a_breach() -> None:
    book = room(limits(usd="10000"), P=900)
    book.change(limits(usd="8999"))
    assert [trip.switch for trip in book.trips] == [Switch.EXPOSURE]


def test_rounding_is_no_breach() -> None:
    """A tenth of a coin is no binary fraction: 7 x 0.1 is a little more than 0.7 in floats."""
    for lots in range(1, 200):
        coins = str(Decimal(lots) / 10)
        book = room(limits(btc=coins, usd="100000000", max_contracts=Decimal(coins)), C=lots)
        assert not book.trips


def test_a_breach_trips_again_after_a_reset_while_it_lasts() -> None:
    book = room(limits(usd="10000", per_exchange={"deribit": scope(usd="10000")}), P=1001)
    both = list(book.trips)
    assert [(trip.scope, trip.target) for trip in both] == [(Scope.PORTFOLIO, ""), (Scope.EXCHANGE, "deribit")]
    actions = book.reset("P")
    assert [type(action) for action in actions] == [ClearSwitch, ClearSwitch, TripSwitch, TripSwitch]
    assert book.trips == [*both, *both]
    move(book, P=1000)
    assert [type(action) for action in book.reset("P")] == [ClearSwitch, ClearSwitch]
    move(book, P=1001)
    assert len(book.trips) == 6


def test_a_reset_elsewhere_leaves_an_exchange_as_it_is() -> None:
    book = room(limits(per_exchange={"deribit": scope(usd="10000")}), P=1001, D=1)
    assert book.reset("D") == []
    assert (Switch.EXPOSURE, "deribit") in book.machine.held


def test_a_newcomer_on_a_tripped_exchange_is_held_too() -> None:
    book = room(limits(per_exchange={"deribit": scope(usd="10000")}), P=1001)
    book.join("D", 10)
    assert len(book.trips) == 1
    book.join("C", 10)
    assert [(trip.scope, trip.target) for trip in book.trips[1:]] == [(Scope.SYMBOL, key("C"))]


# --- valuation ----------------------------------------------------------------------------------------


def blind(book: Book, name: str, seconds: float = 0.0, **unknown: Any) -> None:
    book.tell(changed(book.now(name, pnl_usd=None), **unknown), seconds=seconds)


@pytest.mark.parametrize(
    ("name", "unknown", "missing"),
    [
        pytest.param("P", {"mark": 0.0}, "mark", id="no mark"),
        pytest.param("E", {"index": 0.0}, "index", id="no index"),
        pytest.param("C", {"mark": 0.0, "index": 0.0}, "mark and index", id="neither"),
        pytest.param("C", {}, "profit", id="no profit although the prices are there"),
    ],
)
def test_a_position_that_cannot_be_valued_for_too_long_trips(
    name: str, unknown: dict[str, float], missing: str
) -> None:
    book = room(limits(), **{name: 2})
    for seconds in (0.0, 5.0, 4.9):
        blind(book, name, seconds, **unknown)
    assert not book.trips
    blind(book, name, 0.1, **unknown)
    detail = f"{key(name)}: {missing} missing for 10.0 s, allowed 10 s (kill_switches.valuation.max_seconds)"
    assert book.trips == [TripSwitch(Switch.VALUATION, Scope.PORTFOLIO, "", detail)]
    blind(book, name, 60.0, **unknown)
    assert len(book.trips) == 1


def test_it_ends_when_everything_can_be_valued_again_and_may_trip_again() -> None:
    book = room(limits(), P=5, E=5)
    for _ in range(2):
        book.tell(book.now("P", pnl_usd=None), book.now("E", pnl_usd=None, index=0.0), seconds=20.0)
    assert len(book.trips) == 1
    assert f"{key('E')}: index missing for 20.0 s; {key('P')}: profit missing" in book.trips[0].detail
    move(book, P=5)
    assert not book.cleared
    move(book, E=5)
    assert book.cleared == [ClearSwitch(Switch.VALUATION, Scope.PORTFOLIO, "")]
    blind(book, "P")
    blind(book, "P", 9.9)
    move(book, P=5)
    blind(book, "P", 1.0)
    assert len(book.trips) == 1, "the time counts from when it could last be valued"
    blind(book, "P", 10.0)
    assert len(book.trips) == 2


def test_what_is_flat_needs_no_value() -> None:
    book = room(limits(), P=5)
    blind(book, "P", lots=0)
    blind(book, "P", 60.0, lots=0)
    assert not book.trips


def test_a_position_left_behind_that_never_had_a_price_leaves_no_room() -> None:
    book = Book(limits())
    book.symbols["P"] = Symbol(5)
    book.tell(SymbolJoined(MARKET["P"][0], 100))
    blind(book, "P", mark=0.0, index=0.0)
    book.tell(SymbolLeft(key("P"), 5))
    book.join("E", 10)
    book.settle()
    assert book.symbols["E"].held == 0
    book.tell(seconds=10.0)
    assert [trip.detail.partition(" for")[0] for trip in book.trips] == [f"{key('P')}: mark and index missing"]


def test_after_a_reset_it_trips_again_while_it_lasts() -> None:
    book = room(limits(), P=5)
    blind(book, "P")
    blind(book, "P", 10.0)
    assert [type(action) for action in book.reset("P")] == [ClearSwitch, TripSwitch]


def test_the_time_allowed_is_configured() -> None:
    book = room(limits(), KillSwitches(max_unvalued_seconds=0.0), P=5)
    blind(book, "P")
    assert [trip.switch for trip in book.trips] == [Switch.VALUATION]


def test_the_last_price_known_still_counts_against_the_totals() -> None:
    book = room(limits(btc="1"), P=4_000)
    blind(book, "P", mark=0.0, index=0.0)
    assert book.machine.totals().exposure["BTC"] == pytest.approx(4_000 * 10 / BTC)
    blind(book, "P", lots=5_001, mark=0.0, index=0.0)
    assert [trip.switch for trip in book.trips] == [Switch.EXPOSURE]
