"""A limit is inside itself: what is exactly as large as allowed passes, one more does not."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, NS, PLAIN, acked, changed, fill, label, refused, settings
from core_playbook import Play, amend, place

from mmd.core.gate import Exposure, Refused, Room, review
from mmd.core.rules import rules_for
from mmd.core.watch import ExchangeWatch
from mmd.core.window import PriceRange, Window
from mmd.domain import events as ev
from mmd.domain.actions import AckBounds, Approved, Order, PlaceOrder, ReduceOrder
from mmd.domain.reasons import Rule, Side, State, Switch, Why
from mmd.domain.settings import KillSwitches

BID1, ASK2 = label(BID, 1), label(ASK, 2)

# --- the gate -----------------------------------------------------------------------------------------

LIMITS = {
    "max_order_size": Decimal(50),
    "max_order_value_usd": Decimal(10_000),
    "max_drift_bps": 1500.0,
    "max_drift_ticks": 50,
}
RULES = changed(rules_for(PLAIN, settings(limits=LIMITS)), min_lots=2)
ROOM = Room(budget=True, rate=True, orders=9, max_orders=10)
EXPOSURE = Exposure(
    state=State.ACTIVE,
    rules=RULES,
    position_lots=0,
    position_known=True,
    min_lots=-100,
    max_lots=100,
    other_lots=0,
    others_on_side=0,
    own_lots=0,
    reference_ticks=1000.0,
    drift_low=1000.0,
    drift_high=1000.0,
    lot_usd=100.0,
    vol_low=0.0,
    vol_high=0.0,
)


def place_at(price: int = 1000, lots: int = 10, side: Side = BID) -> PlaceOrder:
    return PlaceOrder("L", side, price, lots)


def vol_collar(points: float = 10.0) -> dict[str, Any]:
    return {"rules": changed(RULES, collar_vol_points=points), "vol_low": 940.0, "vol_high": 1060.0}


@pytest.mark.parametrize(
    ("at", "beyond", "fields", "rule"),
    [
        pytest.param(place_at(800), place_at(799), {}, Rule.COLLAR, id="collar below"),
        pytest.param(place_at(1200), place_at(1201), {}, Rule.COLLAR, id="collar above"),
        pytest.param(place_at(940), place_at(939), vol_collar(), Rule.VOL_COLLAR, id="volatility below"),
        pytest.param(place_at(1060), place_at(1061), vol_collar(), Rule.VOL_COLLAR, id="volatility above"),
        pytest.param(place_at(lots=50), place_at(lots=51), {}, Rule.ORDER_SIZE, id="largest size"),
        pytest.param(place_at(lots=2), place_at(lots=1), {}, Rule.ORDER_SIZE, id="smallest size"),
        pytest.param(place_at(lots=10), place_at(lots=11), {"lot_usd": 1000.0}, Rule.ORDER_VALUE, id="value"),
        pytest.param(place_at(), place_at(lots=11), {"position_lots": 90}, Rule.POSITION, id="highest position"),
        pytest.param(
            place_at(side=ASK), place_at(lots=11, side=ASK), {"position_lots": -90}, Rule.POSITION, id="lowest position"
        ),
        pytest.param(
            place_at(1),
            place_at(0),
            {"reference_ticks": 1.0, "rules": changed(RULES, collar_bps=10_000.0)},
            Rule.GRID,
            id="the lowest price is one tick",
        ),
    ],
)
def test_the_gate_lets_pass_what_is_exactly_allowed(
    at: Order, beyond: Order, fields: dict[str, Any], rule: Rule
) -> None:
    reference = fields.get("reference_ticks", 1000.0)
    exposure = changed(EXPOSURE, **{"drift_low": reference, "drift_high": reference, **fields})
    assert review(at, exposure, ROOM) == Approved(at)
    verdict = review(beyond, exposure, ROOM)
    assert isinstance(verdict, Refused) and verdict.rule is rule


@pytest.mark.parametrize(
    ("reference", "low", "high", "passes"),
    [
        pytest.param(1000.0, 850.0, 1000.0, True, id="up by exactly the drift allowed"),
        pytest.param(1000.0, 849.0, 1000.0, False, id="up by more"),
        pytest.param(1000.0, 1000.0, 1150.0, True, id="down by exactly that"),
        pytest.param(1000.0, 1000.0, 1151.0, False, id="down by more"),
        pytest.param(100.0, 50.0, 100.0, True, id="exactly the ticks that are always allowed"),
        pytest.param(100.0, 49.0, 100.0, False, id="one tick more"),
    ],
)
def test_drift_is_allowed_up_to_its_limit(reference: float, low: float, high: float, passes: bool) -> None:
    exposure = changed(EXPOSURE, reference_ticks=reference, drift_low=low, drift_high=high, lot_usd=1.0)
    verdict = review(place_at(int(reference)), exposure, ROOM)
    assert isinstance(verdict, Approved) is passes
    assert passes or (isinstance(verdict, Refused) and verdict.rule is Rule.DRIFT)


@pytest.mark.parametrize(
    ("room", "rule"), [({"budget": False}, Rule.BUDGET), ({"rate": False}, Rule.MESSAGE_RATE)], ids=["budget", "rate"]
)
def test_a_closing_order_is_a_message_too(room: dict[str, Any], rule: Rule) -> None:
    exposure = changed(EXPOSURE, state=State.HALTED, position_lots=30)
    order = ReduceOrder("L", ASK, 990, 30)
    assert review(order, exposure, ROOM) == Approved(order)
    verdict = review(order, exposure, changed(ROOM, **room))
    assert isinstance(verdict, Refused) and verdict.rule is rule


# --- the machine --------------------------------------------------------------------------------------


def sensitive(**limits: Any) -> Play:
    return Play(settings(limits=limits, data={"stale_seconds": 1e6})).quoting()


def four_fills(play: Play, n: int) -> Play:
    return play.sees(fill(BID1, f"t{n}", BID, 1))


def three_lots(play: Play, n: int) -> Play:
    return play.sees(fill(BID1, f"t{n}", BID, 3 if n < 4 else 1))


@pytest.mark.parametrize(
    ("limits", "step"),
    [({"max_fills": 3}, four_fills), ({"max_filled": Decimal(9)}, three_lots)],
    ids=["fills", "lots filled"],
)
def test_so_many_fills_are_allowed_and_no_more(limits: dict[str, Any], step: Callable[[Play, int], Play]) -> None:
    play = sensitive(**limits)
    for n in (1, 2, 3):
        step(play, n).is_in(State.ACTIVE, Why.RESUMED)
    step(play, 4).is_in(State.HALTED, Why.REPEATED_FILLS).tripped(Switch.REPEATED_FILLS)


def test_fills_of_long_ago_do_not_count() -> None:
    play = sensitive(max_fills=2, fill_window_seconds=60.0)
    for n in range(6):
        play.sees(fill("", f"t{n}", BID if n % 2 else ASK, 1)).after(30.1).is_in(State.ACTIVE, Why.RESUMED)


def test_the_worst_case_may_fill_the_bounds_exactly() -> None:
    Play().quoting().sees(ev.BoundsSet(2, -10, 10, 0)).does(AckBounds(2, -10, 10))
    play = Play().quoting().sees(ev.BoundsSet(2, -10, 9, 0)).does(amend(BID, 1, 995, 9))
    play.sees(acked(BID1, 995, 9)).does(AckBounds(2, -10, 9))
    play = Play().quoting().sees(ev.BoundsSet(2, -9, 10, 0)).does(amend(ASK, 2, 1005, 9))
    play.sees(acked(ASK2, 1005, 9)).does(AckBounds(2, -9, 10))


def test_so_many_answers_may_be_late() -> None:
    """Two are allowed; the third is one too many. Refusals and others are counted apart."""
    given = settings(data={"stale_seconds": 1e6})
    play = Play(changed(given, switches=KillSwitches(max_ack_timeouts=2))).active()
    play.does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10)).after(2.0)
    play.sees(acked(BID1, 995, 10)).is_in(State.ACTIVE, Why.RESUMED)
    for late, (bid, ask) in enumerate(((980, 1000), (960, 980)), start=2):
        play.sees_book(bid, ask).after(2.0)
        slot: Any = play.slot(BID)
        if late == 2:
            play.is_in(State.ACTIVE, Why.RESUMED)
            play.sees(acked(BID1, slot.to_price_ticks, 10), acked(ASK2, 995, 10))
            assert play.machine.timeouts.count(play.now_ns) == 2
    play.is_in(State.HALTED, Why.ACK_TIMEOUT)


def test_refused_cancels_are_no_refusals_of_orders() -> None:
    play = Play(settings(limits={"max_rejects": 1})).quoting().asks(ev.PauseRequested)
    for _ in range(4):
        play.sees(refused(BID1), refused(ASK2)).after(1.1)
    play.is_in(State.PAUSED, Why.OPERATOR)


# --- windows and watches ------------------------------------------------------------------------------


def test_a_window_that_was_cleared_is_empty() -> None:
    window = Window(10)
    window.add(0, 5)
    window.clear()
    assert (window.count(0), window.amount) == (0, 0)
    window.add(1, 2)
    assert (window.count(1), window.amount) == (1, 2)


def test_a_window_holds_what_is_exactly_its_length_old() -> None:
    window = Window(10)
    window.add(0)
    assert window.count(10) == 1 and window.count(11) == 0


def test_a_range_knows_the_lowest_of_the_part_it_is_in() -> None:
    seen = PriceRange(80)
    for price in (100.0, 90.0, 120.0, 95.0):
        seen.add(price, 5)
    assert (seen.low, seen.high) == (90.0, 120.0)
    seen.add(100.0, 25)  # a later part: what was lowest before is lowest still
    assert (seen.low, seen.high) == (90.0, 120.0)
    seen.clear()
    assert (seen.low, seen.high) == (0.0, 0.0)
    seen.add(105.0, 26)
    assert (seen.low, seen.high) == (105.0, 105.0)


SKEW, LAG, STORM = Switch.CLOCK_SKEW, Switch.EVENT_LAG, Switch.DISCONNECT_STORM


def switches(watch: ExchangeWatch, at_ns: int, skew_ms: float = 0.0, lag: float | None = None) -> list[Any]:
    return [(found.switch, found.over) for found in watch.look(at_ns, skew_ms, lag)]


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["ahead", "behind"])
def test_a_clock_may_be_off_by_exactly_the_limit(sign: float) -> None:
    watch = ExchangeWatch(KillSwitches(max_skew_ms=100.0))
    assert switches(watch, 0, sign * 100.0) == []
    assert switches(watch, 1, sign * 100.1) == [(SKEW, False)]
    assert switches(watch, 2, sign * 1000.0) == []  # it has been told
    assert switches(watch, 3, sign * 50.1) == []
    assert switches(watch, 4, sign * 50.0) == [(SKEW, True)]


def test_a_bus_that_is_not_behind_at_all_has_caught_up() -> None:
    watch = ExchangeWatch(KillSwitches(max_event_lag_seconds=5.0))
    assert switches(watch, 0, lag=5.0) == []
    assert switches(watch, 1, lag=5.1) == [(LAG, False)]
    assert switches(watch, 2) == []  # cannot be asked now: not over
    assert switches(watch, 3, lag=0.0) == [(LAG, True)]


def storm(watch: ExchangeWatch, *at_seconds: float) -> list[Any]:
    found = []
    for second in at_seconds:
        found += [finding.switch for finding in watch.disconnected(int(second * NS))]
    return found


def test_so_many_links_may_break_and_no_more() -> None:
    watch = ExchangeWatch(KillSwitches(max_disconnects=2, disconnect_window_seconds=100.0))
    assert storm(watch, 10, 20) == [] and storm(watch, 30) == [STORM]


def test_links_that_break_together_broke_once() -> None:
    watch = ExchangeWatch(KillSwitches(max_disconnects=2, disconnect_window_seconds=100.0))
    assert storm(watch, 10, 10.5, 10.9, 11, 11.5) == []
    assert storm(watch, 12.1) == [STORM]


def test_a_reset_counts_broken_links_from_here_again() -> None:
    watch = ExchangeWatch(KillSwitches(max_disconnects=1, disconnect_window_seconds=100.0))
    assert storm(watch, 10, 20) == [STORM]
    watch.reset()
    assert switches(watch, 21 * NS) == [] and watch.active == {}
    assert storm(watch, 30) == [] and storm(watch, 40) == [STORM]


def test_new_thresholds_judge_what_was_seen() -> None:
    watch = ExchangeWatch(KillSwitches(max_skew_ms=100.0, max_disconnects=1, disconnect_window_seconds=1000.0))
    storm(watch, 10)
    watch.change(KillSwitches(max_skew_ms=10.0, max_disconnects=1, disconnect_window_seconds=5.0))
    assert switches(watch, 11 * NS, 11.0) == [(SKEW, False)]
    assert storm(watch, 20) == []  # the window is shorter now: the first is forgotten
