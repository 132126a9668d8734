"""Drawdown and daily loss, of one symbol and of everything: when they trip, what a day is, what a reset does."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from core_kit import NS, START_NS, changed
from portfolio_kit import BTC, MARKET, Book, Symbol, key, limits, valued

from mmd.core.losses import DAY_NS, HOUR_NS, Losses, day_start_ns
from mmd.core.portfolio import PortfolioMachine
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Scope, Switch
from mmd.domain.settings import KillSwitches
from mmd.domain.totals import (
    Carried,
    CarriedLosses,
    ClearSwitch,
    LimitChanged,
    LossLimits,
    SymbolJoined,
    SymbolLeft,
    TotalsChanged,
    TripSwitch,
    Valued,
)

OWN = LossLimits(max_drawdown_usd=Decimal(100), max_daily_loss_usd=Decimal(80), drawdown_key="mine (mmd.yaml:7)")
DRAWDOWN = LossLimits(max_drawdown_usd=Decimal(100))
DAILY = LossLimits(max_daily_loss_usd=Decimal(80))
SWITCHES = KillSwitches()


def room(names: str = "C", losses: LossLimits | None = None, **given: Any) -> Book:
    """These symbols, priced, with bounds and no profit yet."""
    book = Book(limits(**given))
    for name in names:
        book.join(name, 10, losses=losses)
    book.settle()
    return book


def told(book: Book) -> list[tuple[Switch, str]]:
    return [(trip.switch, trip.target) for trip in book.trips]


# --- drawdown of everything ---------------------------------------------------------------------------


def test_drawdown_trips_once_and_again_after_a_reset() -> None:
    book = room(drawdown="500")
    for pnl in (100.0, 400.0, 0.0, -99.99):
        book.tell(valued("C", 1, pnl=pnl))
        assert not book.trips
    book.tell(valued("C", 1, pnl=-100.0))  # exactly the limit
    detail = "500.00 USD below the high-water mark, allowed 500.00 USD (limits.portfolio.max_drawdown_usd)"
    assert book.trips == [TripSwitch(Switch.DRAWDOWN, Scope.PORTFOLIO, "", detail)]
    book.tell(valued("C", 1, pnl=-900.0))
    assert len(book.trips) == 1
    totals = book.machine.totals()
    assert (totals.pnl_usd, totals.high_water_usd, totals.drawdown_usd) == (-900.0, 400.0, 1300.0)
    assert book.reset("C") == [ClearSwitch(Switch.DRAWDOWN, Scope.PORTFOLIO, "")]
    book.tell(valued("C", 1, pnl=-1399.0))
    assert len(book.trips) == 1
    book.tell(valued("C", 1, pnl=-1400.0))
    assert len(book.trips) == 2


def test_drawdown_is_a_total_over_symbols_and_those_that_left() -> None:
    book = room("CDE", drawdown="500")
    book.tell(valued("C", 1, pnl=300.0), valued("D", 1, pnl=100.0), valued("E", 1, pnl=0.0))
    book.leave("D")  # profit 0 is what it says last
    book.tell(valued("C", 1, pnl=-99.0), valued("E", 1, pnl=0.0))
    assert not book.trips
    book.tell(valued("E", 1, pnl=-1.0))
    assert told(book) == [(Switch.DRAWDOWN, "")]


def test_what_was_lost_before_it_was_first_seen_is_no_drawdown() -> None:
    book = room("C", drawdown="500")
    book.symbols["D"] = Symbol(5)
    book.tell(SymbolJoined(MARKET["D"][0], 10))
    book.tell(valued("D", 5, pnl=-10_000.0))
    assert not book.trips
    assert book.machine.totals().pnl_usd == -10_000.0
    book.tell(valued("D", 5, pnl=-10_500.0))
    assert told(book) == [(Switch.DRAWDOWN, "")]


def test_a_profit_that_cannot_be_said_is_none_and_a_flat_symbols_last_one_stays() -> None:
    book = room("CD", drawdown="500")
    book.tell(valued("C", 0, pnl=400.0), valued("D", 1, pnl=0.0))
    book.tell(valued("C", 0, pnl=None))  # no index to turn its coins into dollars for a moment
    assert not book.trips and book.machine.totals().drawdown_usd == 0.0
    book.tell(valued("D", 1, pnl=None))
    totals = book.machine.totals()
    assert (totals.pnl_usd, totals.drawdown_usd, totals.day_pnl_usd) == (None, None, None)
    book.tell(valued("D", 1, pnl=-500.0))
    assert told(book) == [(Switch.DRAWDOWN, "")]


# --- of one symbol ------------------------------------------------------------------------------------


def test_a_symbols_drawdown_is_its_own() -> None:
    book = room("CD", OWN)
    book.tell(valued("C", 1, pnl=50.0), valued("D", 1, pnl=300.0))
    book.tell(valued("C", 1, pnl=-49.99))
    assert not book.trips
    book.tell(valued("C", 1, pnl=-50.0))
    detail = "100.00 USD below the high-water mark, allowed 100.00 USD (mine (mmd.yaml:7))"
    assert book.trips == [TripSwitch(Switch.DRAWDOWN, Scope.SYMBOL, key("C"), detail)]
    losses = book.machine.losses_of(key("C"))
    assert losses is not None and (losses.day_usd, losses.drawdown_usd) == (-50.0, 100.0)


def test_a_changed_limit_holds_at_once() -> None:
    book = room("C", DRAWDOWN)
    book.tell(valued("C", 1, pnl=-60.0))
    book.tell(LimitChanged(key("C"), 10, LossLimits(max_drawdown_usd=Decimal(60))))
    assert told(book) == [(Switch.DRAWDOWN, key("C"))]


def test_a_reset_is_for_the_symbols_that_were_reset() -> None:
    book = room("CD", DRAWDOWN)
    book.tell(valued("C", 1, pnl=-100.0), valued("D", 1, pnl=-100.0))
    assert told(book) == [(Switch.DRAWDOWN, key("C")), (Switch.DRAWDOWN, key("D"))]
    book.reset("C")
    book.tell(valued("C", 1, pnl=-199.0), valued("D", 1, pnl=-500.0))
    assert len(book.trips) == 2
    book.tell(valued("C", 1, pnl=-200.0))
    assert told(book)[2:] == [(Switch.DRAWDOWN, key("C"))]


def test_a_reset_for_another_reason_forgives_no_drawdown() -> None:
    book = room("C", DRAWDOWN)
    book.tell(valued("C", 1, pnl=-99.0))
    assert book.reset("C") == []
    book.tell(valued("C", 1, pnl=-100.0))
    assert told(book) == [(Switch.DRAWDOWN, key("C"))]


def test_a_symbol_that_leaves_and_returns_begins_nothing_anew() -> None:
    book = room("C", DAILY)
    book.tell(valued("C", 1, pnl=-70.0))
    book.leave("C", pnl=-75.0)
    book.join("C", 10, losses=DAILY)
    book.tell(valued("C", 1, pnl=-3000.0))  # it counts otherwise now: that is where it goes on from
    assert not book.trips
    book.tell(valued("C", 1, pnl=-3005.0))
    assert told(book) == [(Switch.DAILY_LOSS, key("C"))]


def test_what_holds_everybody_holds_a_newcomer() -> None:
    book = room("C", drawdown="500")
    book.tell(valued("C", 1, pnl=-500.0))
    book.join("D", 10)
    whole, own = book.trips
    assert (own.switch, own.scope, own.target, own.detail) == (Switch.DRAWDOWN, Scope.SYMBOL, key("D"), whole.detail)
    book.reset("C", "D")
    book.join("E", 10)
    assert len(book.trips) == 2


# --- the day ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hour", "at_hour", "start_hour"),
    [
        pytest.param(0, 0, 0, id="midnight is the first moment of its day"),
        pytest.param(0, 23.99, 0, id="and lasts until the next"),
        pytest.param(8, 7.99, -16, id="before its hour it is still yesterday"),
        pytest.param(8, 8, 8, id="at its hour a new day begins"),
    ],
)
def test_when_a_day_begins(hour: int, at_hour: float, start_hour: int) -> None:
    midnight = 20_000 * DAY_NS
    assert day_start_ns(midnight + int(at_hour * HOUR_NS), hour) == midnight + start_hour * HOUR_NS


def until(book: Book, hour: int) -> float:
    """Seconds until this UTC hour begins next."""
    return (day_start_ns(book.now_ns, hour) + DAY_NS - book.now_ns) / NS


@pytest.mark.parametrize("hour", [0, 8, 23])
def test_the_days_loss_starts_from_nothing_at_its_hour(hour: int) -> None:
    book = room("C", DAILY, day_starts_hour=hour, max_daily_loss_usd=Decimal(80))
    book.tell(valued("C", 1, pnl=-79.0), seconds=until(book, hour) - 1)
    assert book.machine.totals().day_pnl_usd == -79.0
    # What was lost between the last look at the old day and the first at the new is the new day's.
    book.tell(valued("C", 1, pnl=-100.0), seconds=1)
    assert book.machine.totals().day_pnl_usd == -21.0
    book.tell(valued("C", 1, pnl=-158.99))
    assert not book.trips
    book.tell(valued("C", 1, pnl=-159.0))
    end = f"lost since {hour:02d}:00 UTC, allowed 80.00 USD"
    assert [(trip.scope, trip.target, trip.detail) for trip in book.trips] == [
        (Scope.SYMBOL, key("C"), f"80.00 USD {end} (limits.per_symbol.max_daily_loss_usd)"),
        (Scope.PORTFOLIO, "", f"80.00 USD {end} (limits.portfolio.max_daily_loss_usd)"),
    ]


def test_a_reset_forgives_no_loss_of_the_day_but_the_next_day_does() -> None:
    book = room("C", max_daily_loss_usd=Decimal(80))
    book.tell(valued("C", 1, pnl=-90.0))
    actions = book.reset("C")
    assert [type(action) for action in actions] == [ClearSwitch, TripSwitch]
    assert told(book) == [(Switch.DAILY_LOSS, "")] * 2
    book.tell(seconds=DAY_NS / NS)
    book.tell(valued("C", 1, pnl=-100.0))
    assert (Switch.DAILY_LOSS, "") in book.machine.held, "a new day is no reset"
    assert [type(action) for action in book.reset("C")] == [ClearSwitch]


def test_a_raised_limit_lets_a_reset_go_on() -> None:
    book = room("C", max_daily_loss_usd=Decimal(80))
    book.tell(valued("C", 1, pnl=-90.0))
    book.tell(TotalsChanged(limits(max_daily_loss_usd=Decimal(200)), SWITCHES))
    book.reset("C")
    book.tell(valued("C", 1, pnl=-199.0))
    assert len(book.trips) == 1


def test_another_hour_does_not_make_a_day_of_yesterday() -> None:
    """From midnight to 8 o'clock at 5 in the morning: the day that began goes on until 8."""
    day_ns = 20_000 * DAY_NS
    losses = Losses(day_start_ns(day_ns + 5 * HOUR_NS, 0))
    losses.see(-50.0)
    losses.roll(day_start_ns(day_ns + 5 * HOUR_NS, 8))
    assert losses.day_usd == -50.0
    losses.roll(day_start_ns(day_ns + 8 * HOUR_NS, 8))
    assert losses.day_usd == 0.0


# --- across a restart ---------------------------------------------------------------------------------


def test_a_restart_forgets_no_loss() -> None:
    book = room("C", OWN, max_daily_loss_usd=Decimal(90))
    book.tell(valued("C", 1, pnl=30.0))
    book.tell(valued("C", 1, pnl=-60.0))
    carried = book.machine.carried()
    assert carried.everything == Carried(day_started_ns=day_start_ns(START_NS, 0), day_usd=-60.0, drawdown_usd=90.0)
    assert carried.symbols == {key("C"): changed(carried.everything, expiry_ns=MARKET["C"][0].expiry_ns)}
    again = PortfolioMachine(book.given, SWITCHES, book.now_ns, carried)
    again.handle([SymbolJoined(MARKET["C"][0], 10, OWN)], book.now_ns)
    assert again.handle([valued("C", 1, pnl=0.0)], book.now_ns)[1:] == []
    trips = again.handle([valued("C", 1, pnl=-10.0)], book.now_ns)
    assert [trip.target for trip in trips if isinstance(trip, TripSwitch)] == [key("C")]
    assert again.totals().day_pnl_usd == -70.0
    trips = again.handle([valued("C", 1, pnl=-20.0)], book.now_ns)
    assert [(trip.switch, trip.target) for trip in trips] == [(Switch.DAILY_LOSS, key("C"))]


def expiring(days: int) -> Instrument:
    """C, which expires in so many days."""
    return changed(MARKET["C"][0], symbol=f"C{days}", expiry_ns=START_NS + days * DAY_NS)  # type: ignore[no-any-return]  # a copy


def test_accounts_of_what_expired_are_closed_and_their_gain_stays() -> None:
    """One that left flat long before, one that left a position, and one that has none yet to expire."""
    machine = PortfolioMachine(limits(drawdown="100"), SWITCHES, START_NS)
    for days, lots in ((3, 0), (4, 5), (900, 0)):
        one = expiring(days)
        machine.handle([SymbolJoined(one, 10), Valued(one.key, lots, 0.05, BTC, 0.0)], START_NS)
        machine.handle([Valued(one.key, lots, 0.05, BTC, -30.0), SymbolLeft(one.key, lots)], START_NS + NS)
    assert len(machine.accounts) == 3
    machine.handle([], START_NS + 5 * DAY_NS)
    assert list(machine.accounts) == list(machine.carried().symbols) == [expiring(900).key]
    assert machine.carried().everything.drawdown_usd == 90.0
    one = expiring(800)
    machine.handle([SymbolJoined(one, 10), Valued(one.key, 1, 0.05, BTC, 0.0)], START_NS + 5 * DAY_NS)
    trips = machine.handle([Valued(one.key, 1, 0.05, BTC, -10.0)], START_NS + 5 * DAY_NS)
    assert [trip.switch for trip in trips if isinstance(trip, TripSwitch)] == [Switch.DRAWDOWN]


def test_one_that_waits_for_its_delivery_keeps_its_account_until_it_leaves() -> None:
    machine = PortfolioMachine(limits(), SWITCHES, START_NS)
    one = expiring(3)
    machine.handle([SymbolJoined(one, 10), Valued(one.key, 5, 0.05, BTC, 0.0)], START_NS)
    machine.handle([], START_NS + 3 * DAY_NS)
    machine.handle([Valued(one.key, 5, 0.05, BTC, -40.0)], START_NS + 4 * DAY_NS)
    assert machine.totals().drawdown_usd == 40.0
    machine.handle([SymbolLeft(one.key, 0)], START_NS + 4 * DAY_NS)
    assert not machine.accounts and machine.totals().drawdown_usd == 40.0


def test_a_restart_carries_no_account_of_what_has_expired() -> None:
    machine = PortfolioMachine(limits(), SWITCHES, START_NS)
    for days in (3, 900):
        machine.handle([SymbolJoined(expiring(days), 10)], START_NS)
    carried = msgspec.json.decode(msgspec.json.encode(machine.carried()), type=CarriedLosses)
    again = PortfolioMachine(limits(), SWITCHES, START_NS + 4 * DAY_NS, carried)
    assert list(again.carried().symbols) == [expiring(900).key]
    unknown = changed(carried, symbols={"x": Carried(day_started_ns=0, day_usd=0.0, drawdown_usd=1.0)})
    assert list(PortfolioMachine(limits(), SWITCHES, START_NS, unknown).accounts) == ["x"]  # an earlier version's


def test_a_restart_on_another_day_carries_the_drawdown_only() -> None:
    losses = Losses(9 * DAY_NS, Carried(day_started_ns=8 * DAY_NS, day_usd=-60.0, drawdown_usd=90.0))
    assert (losses.day_usd, losses.drawdown_usd) == (0.0, 90.0)
