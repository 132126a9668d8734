"""What the machine holds and what it forgets: states that stay, switches that last, counts, holds."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, NS, acked, changed, closed, fill, label, refused, resting, settings
from core_playbook import Play, amend, cancel, place

from mmd.core.machine import LASTING
from mmd.core.quoting import Withheld
from mmd.domain import events as ev
from mmd.domain.actions import QueryOrder
from mmd.domain.reasons import Fault, Missing, Mode, Phase, Response, Rule, Scope, Side, State, Switch, Why
from mmd.domain.settings import KillSwitches, SymbolSettings
from mmd.domain.switches import DEFAULT_RESPONSES, SWITCHES

E, P, L, A, C, U = Phase.EMPTY, Phase.PLACING, Phase.LIVE, Phase.AMENDING, Phase.CANCELLING, Phase.UNKNOWN
BID1, ASK2 = label(BID, 1), label(ASK, 2)
FROM_OUTSIDE = [switch for switch, row in SWITCHES.items() if row.scope is not Scope.SYMBOL]


def lively(**more: Any) -> SymbolSettings:
    """Settings under which no silence of the market matters."""
    return settings(data={"stale_seconds": 1e6, **more.pop("data", {})}, **more)


def responding(switch: Switch, response: Response, given: SymbolSettings | None = None) -> SymbolSettings:
    return changed(given or lively(), switches=KillSwitches(responses={**DEFAULT_RESPONSES, switch: response}))


def told(play: Play, switch: Switch, response: Response) -> Play:
    return play.sees(ev.SwitchTripped(switch, response, "found 3, allowed 2", play.now_ns))


def gone(play: Play) -> Play:
    """The exchange confirms every cancel that was asked for."""
    orders, play.todo = play.todo, []
    return play.sees(*(closed(order.label) for order in orders))


# --- states that stay ---------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", FROM_OUTSIDE)
def test_a_pause_is_no_way_out_of_a_halt(switch: Switch) -> None:
    play = Play().quoting().asks(ev.HaltRequested, why=Why.DRAWDOWN)
    told(play, switch, Response.PAUSE).is_in(State.HALTED, Why.DRAWDOWN)
    told(play, switch, Response.HALT).is_in(State.HALTED, Why.DRAWDOWN)


@pytest.mark.parametrize("switch", FROM_OUTSIDE)
def test_a_switch_that_pauses_leaves_an_operators_pause_as_it_is(switch: Switch) -> None:
    play = Play().quoting().asks(ev.PauseRequested)
    told(play, switch, Response.PAUSE).is_in(State.PAUSED, Why.OPERATOR)


@pytest.mark.parametrize("switch", FROM_OUTSIDE)
def test_a_switch_ends_a_pause_that_would_have_ended_by_itself(switch: Switch) -> None:
    """Paused for the market's sake with auto_resume: what trips meanwhile must not be slept through."""
    play = Play(lively(data={"auto_resume": True})).quoting().sees_book(1010, 1000)
    gone(play.is_in(State.PAUSED, Why.CROSSED_BOOK)).sees_book(990, 1010)
    told(play, switch, Response.PAUSE).is_in(State.PAUSED, SWITCHES[switch].why)
    play.sees(ev.SwitchCleared(switch, play.now_ns))
    for _ in range(20):
        play.after(1.0).sees_ticker()
    play.is_in(State.PAUSED, SWITCHES[switch].why).does_nothing()
    play.asks(ev.ResumeRequested).replied(True)


def test_maker_protection_that_trips_in_a_market_pause_is_told_and_stays() -> None:
    given = changed(lively(data={"auto_resume": True}), protected=True)
    play = Play(given).connected().sees(ev.ProtectionReported(True, "", 0)).sees_book(990, 1010)
    play.asks(ev.ResumeRequested).sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10)).todo.clear()
    gone(play.sees_book(1010, 1000)).sees_book(990, 1010).tripped(Switch.MARKET_DATA)
    play.sees(ev.ProtectionTripped("quantity", 0, play.now_ns)).tripped(Switch.MAKER_PROTECTION)
    for _ in range(20):
        play.after(1.0).sees_ticker()
    play.is_in(State.PAUSED, Why.MAKER_PROTECTION)


def test_a_second_trouble_of_the_market_is_no_second_trip() -> None:
    play = Play().quoting().sees_book(1010, 1000).tripped(Switch.MARKET_DATA)
    play.sees(ev.BookBroken(Why.BOOK_GAP, "", 0)).is_in(State.PAUSED, Why.CROSSED_BOOK).tripped()


def test_a_state_says_since_when() -> None:
    play = Play(lively()).quoting().after(7.0).asks(ev.PauseRequested)
    assert play.machine.since_ns == play.now_ns
    play.after(5.0).asks(ev.HaltRequested, why=Why.OPERATOR)
    assert play.machine.since_ns == play.now_ns


@pytest.mark.parametrize("auto", [False, True], ids=["off", "on, but for the market's troubles only"])
@pytest.mark.parametrize("market", [False, True], ids=["operator", "market"])
def test_only_auto_resume_resumes_by_itself(auto: bool, market: bool) -> None:
    """With news at every second: silence would hide what this is about."""
    play = Play(lively(data={"auto_resume": auto})).quoting()
    gone(play.sees_book(1010, 1000) if market else play.asks(ev.PauseRequested)).sees_book(990, 1010)
    for _ in range(7):
        play.after(1.0).sees_ticker()
    assert play.machine.state is (State.ACTIVE if auto and market else State.PAUSED)


def test_the_time_before_an_automatic_return_starts_with_every_pause() -> None:
    """Also where the trouble is over within the batch that brought it, and nothing is found wrong afterwards."""
    play = Play(lively(data={"auto_resume": True, "auto_resume_seconds": 5.0})).quoting()
    gone(play.sees_book(1010, 1000)).sees_book(990, 1010).after(4.5).sees_ticker()
    play.asks(ev.ResumeRequested).does(place(BID, 3, 995), place(ASK, 4, 1005)).after(1.0)
    gap, whole = ev.BookBroken(Why.BOOK_GAP, "", 0), ev.BookTop(((990, 5),), ((1010, 5),), 9, 0, play.now_ns)
    play.sees(gap, whole).is_in(State.PAUSED, Why.BOOK_GAP).sees(refused(label(BID, 3)), refused(label(ASK, 4)))
    play.after(4.5).sees_ticker().is_in(State.PAUSED, Why.BOOK_GAP)
    play.after(1.0).sees_ticker().is_in(State.ACTIVE, Why.AUTO_RESUMED)


# --- what holds a resume back -------------------------------------------------------------------------


@pytest.mark.parametrize("switch", FROM_OUTSIDE)
def test_what_lasts_holds_until_it_is_over(switch: Switch) -> None:
    play = gone(told(Play().quoting(), switch, Response.PAUSE))
    play.asks(ev.ResumeRequested).replied(switch not in LASTING)
    if switch in LASTING:
        assert {check.name for check in play.replies[-1].checks if not check.ok} == {"kill_switches"}
        play.sees(ev.SwitchCleared(switch, 0)).asks(ev.ResumeRequested).replied(True)


def test_what_lasts() -> None:
    assert {Switch.CLOCK_SKEW, Switch.EVENT_LAG, Switch.JOURNAL_FAILURE, Switch.VALUATION} == LASTING


def test_the_end_of_one_cause_is_not_the_end_of_another() -> None:
    play = gone(told(Play().quoting(), Switch.CLOCK_SKEW, Response.PAUSE))
    told(play, Switch.EVENT_LAG, Response.PAUSE).sees(ev.SwitchCleared(Switch.CLOCK_SKEW, 0))
    play.asks(ev.ResumeRequested).replied(False, "kill_switches")
    play.sees(ev.SwitchCleared(Switch.VALUATION, 0)).asks(ev.ResumeRequested).replied(False)
    play.sees(ev.SwitchCleared(Switch.EVENT_LAG, 0)).asks(ev.ResumeRequested).replied(True)


def protected(response: Response = Response.PAUSE) -> Play:
    given = changed(responding(Switch.MAKER_PROTECTION, response), protected=True)
    return Play(given).connected().sees_book(990, 1010)


def test_protection_is_judged_while_it_quotes_only() -> None:
    play = protected(Response.HALT).sees(ev.ProtectionReported(False, "not read yet", 0))
    play.is_in(State.PAUSED, Why.STARTUP).tripped().asks(ev.ResumeRequested).replied(False, "maker_protection")
    play.sees(ev.ProtectionReported(True, "", 0)).sees(ev.ProtectionReported(False, "someone changed it", 0))
    play.asks(ev.ResumeRequested).replied(False, "maker_protection")


def test_protection_must_be_read_again_after_the_link_was_lost() -> None:
    play = protected().sees(ev.ProtectionReported(True, "", 0)).sees(ev.TradeLinkDown("", 0))
    play.sees(ev.TradeLinkUp(True, 0), ev.OrdersReported((), 0), ev.PositionReported(0, Decimal(0), 0))
    play.asks(ev.ResumeRequested).replied(False, "maker_protection")
    play.sees(ev.ProtectionReported(True, "", 0)).asks(ev.ResumeRequested).replied(True)


def test_protection_that_nobody_configured_is_nobodys_business() -> None:
    Play().quoting().sees(ev.ProtectionReported(False, "none", 0)).is_in(State.ACTIVE, Why.RESUMED).does_nothing()


def test_after_protection_tripped_the_next_orders_wait_a_moment() -> None:
    play = protected().sees(ev.ProtectionReported(True, "", 0), ev.ProtectionTripped("quantity", 0, 0))
    play.asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED).does_nothing().withholds(Missing.REFUSED)
    play.after(1.01).does(place(BID, 1, 995), place(ASK, 2, 1005))


def test_a_cancel_on_disconnect_ends_with_its_link() -> None:
    play = Play().quoting().sees(ev.TradeLinkDown("", 0))
    assert not play.machine.market.cod_armed
    check = next(check for check in play.machine.checks(play.now_ns) if check.name == "cancel_on_disconnect")
    assert (check.ok, check.found) == (False, "not armed")


# --- counts, and what a reset and new settings do to them ---------------------------------------------


def test_a_reset_counts_refusals_from_here_again() -> None:
    play = Play(lively(limits={"max_rejects": 2})).active().sees(refused(BID1), refused(ASK2)).slots(E, E)
    play.todo.clear()
    play.after(1.0).does(place(BID, 3, 995), place(ASK, 4, 1005)).is_in(State.ACTIVE, Why.RESUMED)
    play.sees(refused(label(BID, 3)), refused(label(ASK, 4))).is_in(State.HALTED, Why.REJECTION_STORM)
    play.asks(ev.ResetRequested).after(6.0).asks(ev.ResumeRequested).replied(True)
    play.sees(refused(label(BID, 5)), refused(label(ASK, 6))).slots(E, E).is_in(State.ACTIVE, Why.RESUMED)


def test_a_reset_counts_late_answers_from_here_again() -> None:
    given = changed(lively(), switches=KillSwitches(max_ack_timeouts=1))
    play = Play(given).active().after(2.0).is_in(State.HALTED, Why.ACK_TIMEOUT)
    play.sees(refused(BID1), refused(ASK2)).slots(E, E).asks(ev.ResetRequested).after(6.0)
    play.todo.clear()
    play.asks(ev.ResumeRequested).replied(True)
    (bid, ask), play.todo = play.todo, []
    play.sees(acked(ask.label, ask.price_ticks, 10)).after(2.0).does(QueryOrder(bid.label, ""))
    play.is_in(State.ACTIVE, Why.RESUMED)


def test_a_reset_measures_the_markets_drift_from_here() -> None:
    play = Play(lively()).connected().sees_book(990, 1010).sees_book(1040, 1060)
    assert (play.machine.drifts.low, play.machine.drifts.high) == (1000.0, 1050.0)
    play.asks(ev.HaltRequested, why=Why.OPERATOR).asks(ev.ResetRequested)
    assert (play.machine.drifts.low, play.machine.drifts.high) == (1050.0, 1050.0)


def test_a_reset_forgets_the_jump() -> None:
    play = gone(Play().quoting().sees_book(1190, 1210)).asks(ev.HaltRequested, why=Why.OPERATOR)
    assert play.machine.market.jump is not None
    play.asks(ev.ResetRequested)
    assert all(check.ok for check in play.machine.checks(play.now_ns))


def test_new_windows_hold_for_what_was_counted_before() -> None:
    limits = {"fill_window_seconds": 5.0, "reject_window_seconds": 6.0, "drift_window_seconds": 8.0}
    given = lively(limits={**limits, "ack_timeout_seconds": 3.0})
    given = changed(given, switches=KillSwitches(ack_timeout_window_seconds=7.0))
    play = Play(lively()).connected().sees_book(990, 1010)
    machine = play.machine
    machine.fills.add(play.now_ns)
    kept = machine.drifts
    play.sees(ev.SettingsChanged(play.machine.settings, 0))
    assert machine.drifts is kept  # the same window: what was seen stays
    play.sees(ev.SettingsChanged(given, 0))
    lengths = [machine.fills.length_ns, machine.rejects.length_ns, machine.timeouts.length_ns, machine.drifts.length_ns]
    assert lengths == [5 * NS, 6 * NS, 7 * NS, 8 * NS]
    assert machine.own.latency_ns == 3 * NS
    assert (machine.fills.count(play.now_ns), machine.fills.count(play.now_ns + 6 * NS)) == (1, 0)


def test_an_acknowledgement_makes_the_next_wait_short_again() -> None:
    play = Play(lively()).active().sees(acked(ASK2, 1005, 10)).does(place(BID, 1, 995), place(ASK, 2, 1005))
    for n in (1, 3, 4):
        play.sees(refused(label(BID, n))).after(2.0).does(place(BID, 3 if n == 1 else n + 1, 995))
    play.sees(acked(label(BID, 5), 995, 10), fill(label(BID, 5), "t1", BID, 10)).does(place(BID, 6, 995))
    play.sees(refused(label(BID, 6))).after(0.26).does(place(BID, 7, 995))


def test_a_refusal_for_the_configurations_sake_pauses_too() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.sees(refused(BID1, Fault.CONFIG, code="10028")).is_in(State.PAUSED, Why.ORDERS_REFUSED).does(cancel(ASK, 2))


def test_a_withheld_order_is_noted_once_until_one_has_passed() -> None:
    def no(play: Play, n: int) -> Play:
        return play.sees(ev.GateRefused(label(BID, n), BID, Rule.COLLAR, "1", "2", "collar_bps", play.now_ns))

    play = no(Play(lively()).active().sees(acked(ASK2, 1005, 10)), 1).notes_("order.withheld")
    no(play.after(1.1), 3).notes_()
    play.after(1.1).sees(acked(label(BID, 4), 995, 10), fill(label(BID, 4), "t1", BID, 10)).notes_("order.filled")
    no(play, 5).notes_("order.withheld")


def vanishing(play: Play, n: int) -> Play:
    """Somebody else cancels our bid; the next one is placed a second later."""
    play.sees(closed(label(BID, n))).does_nothing().after(0.99).does_nothing()
    play.after(0.02).does(place(BID, n + 1 if n > 1 else 3, 995))
    return play.sees(acked(label(BID, n + 1 if n > 1 else 3), 995, 10))


def test_a_reset_counts_vanished_orders_from_here_again() -> None:
    play = vanishing(Play(lively()).quoting(), 1)
    for n in (3, 4, 5):
        vanishing(play, n)
    play.is_in(State.ACTIVE, Why.RESUMED).sees(closed(label(BID, 6))).is_in(State.HALTED, Why.FOREIGN_ORDERS)
    gone(play).asks(ev.ResetRequested).after(2.0).asks(ev.ResumeRequested).replied(True)
    (bid, ask), play.todo = play.todo, []
    play.sees(acked(bid.label, 995, 10), acked(ask.label, 1005, 10)).sees(closed(bid.label))
    play.is_in(State.ACTIVE, Why.RESUMED)


def test_shadow_fills_are_counted_like_real_ones() -> None:
    """A price that everybody takes is as wrong in shadow mode."""
    play = Play(lively(mode=Mode.SHADOW, limits={"max_fills": 2})).quoting()
    for n in range(3):
        play.is_in(State.ACTIVE, Why.RESUMED)
        play.sees(ev.ShadowFilled(BID1, ev.Bound.PESSIMISTIC, BID, Decimal("99.5"), 1, n, play.now_ns))
    play.is_in(State.HALTED, Why.REPEATED_FILLS)


# --- holds --------------------------------------------------------------------------------------------


def test_a_short_hold_does_not_shorten_a_long_one() -> None:
    play = Play(lively()).active().sees(acked(ASK2, 1005, 10)).does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.sees(refused(BID1, Fault.MARKET)).machine.own.bid.hold(play.now_ns + 1, "shorter")
    play.after(4.9).does_nothing().after(0.2).does(place(BID, 3, 995))


def test_a_new_order_has_all_its_cancels() -> None:
    """Five refused cancels of one order do not slow down the cancels of the next."""
    play = Play(lively()).quoting().asks(ev.PauseRequested)
    for _ in range(5):
        play.sees(refused(BID1)).after(1.1)
    play.todo.clear()
    play.sees(fill(BID1, "t1", BID, 10), closed(ASK2)).asks(ev.ResumeRequested)
    (bid, ask), play.todo = play.todo, []
    play.sees(acked(bid.label, 995, 10), acked(ask.label, 1005, 10)).asks(ev.PauseRequested)
    play.does(cancel(BID, 3), cancel(ASK, 4)).sees(closed(ask.label))
    for _ in range(4):
        play.sees(refused(bid.label)).after(1.1).does(cancel(BID, 3))


def exhausted() -> Play:
    """PAUSED with a bid and a stray whose cancels were refused five times: the next try is ten seconds away."""
    play = Play(lively()).quoting().asks(ev.PauseRequested).sees(closed(ASK2))
    play.sees(ev.OrdersReported((resting(BID1, BID, 995, 10), resting(label(BID, 9), BID, 900, 3)), play.now_ns))
    for _ in range(5):
        play.sees(refused(BID1), refused(label(BID, 9))).after(1.1)
    play.todo.clear()
    play.does_nothing().after(2.0).does_nothing()
    return play


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda p: p.asks(ev.HaltRequested, why=Why.OPERATOR), id="halt"),
        pytest.param(lambda p: p.sees(ev.InstrumentStateChanged("open", True, False, 0)), id="market open again"),
        pytest.param(lambda p: p.sees(ev.TradeLinkUp(True, 0)), id="a link"),
    ],
)
def test_what_may_have_helped_makes_every_cancel_try_at_once(again: Callable[[Play], Play]) -> None:
    again(exhausted()).does(cancel(BID, 1), cancel(BID, 9))


def test_an_order_too_large_for_new_bounds_is_pulled_where_it_may_not_be_amended() -> None:
    play = Play(lively()).quoting().sees_book(980, 1000).does(amend(BID, 1, 985))
    play.sees(acked(BID1, 985, 10), ev.OrderRefused(BID1, Fault.MARKET, "no", "", False, 0)).does_nothing()
    play.sees(ev.BoundsSet(2, -100, 4, 0)).does(cancel(BID, 1))


def test_a_refused_amend_of_the_ask_to_a_wider_price_pulls_it() -> None:
    play = Play(lively()).quoting().sees_book(1000, 1020).does(amend(ASK, 2, 1016))
    play.sees(refused(ASK2)).does(cancel(ASK, 2)).slots(L, C)


# --- our own two sides --------------------------------------------------------------------------------


def narrow() -> Play:
    play = Play(settings(spread_bps=20.0, data={"stale_seconds": 1e6})).active()
    play.does(place(BID, 1, 999), place(ASK, 2, 1001)).sees(acked(BID1, 999, 10), acked(ASK2, 1001, 10))
    return play.after(1.5).does_nothing()


@pytest.mark.parametrize(
    ("book", "taken", "kept"),
    [
        pytest.param((988, 1008), ASK, BID, id="an ask at 999 would meet the bid at 999"),
        pytest.param((993, 1013), BID, ASK, id="a bid at 1001 would meet the ask at 1001"),
    ],
)
def test_no_order_goes_exactly_where_the_other_side_rests(book: tuple[int, int], taken: Side, kept: Side) -> None:
    """The other one is within tolerance of where it should be, and stays."""
    play = Play(lively(spread_bps=20.0, tolerance_bps=50.0)).active().does(place(BID, 1, 999), place(ASK, 2, 1001))
    play.sees(acked(BID1, 999, 10), acked(ASK2, 1001, 10)).sees_book(*book).does_nothing()
    play.sees(fill(BID1 if taken is BID else ASK2, "t1", taken, 10)).does_nothing()
    own = play.machine.own
    assert (own.bid if taken is BID else own.ask).wanted == Withheld(Missing.SELF_CROSS)
    assert play.slot(kept).phase is L


@pytest.mark.parametrize(
    ("book", "moves", "then"),
    [
        pytest.param((980, 1000), amend(BID, 1, 989), amend(ASK, 2, 991), id="falling: the bid may still be above"),
        pytest.param((1000, 1020), amend(ASK, 2, 1012), amend(BID, 1, 1008), id="rising: the ask may still be below"),
    ],
)
def test_an_order_on_its_way_is_in_both_its_places(book: tuple[int, int], moves: Any, then: Any) -> None:
    play = narrow().sees_book(*book).does(moves)
    play.sees(acked(moves.label, moves.price_ticks, 10)).does(then)


def test_a_crossing_side_that_is_too_large_as_well_is_pulled() -> None:
    """It may neither move nor shrink in place before the other side has moved."""
    play = narrow()
    risen = ev.BookTop(((1000, 100),), ((1020, 100),), 1, 1, play.now_ns)
    play.sees(ev.BoundsSet(2, -100, 4, 0), risen).does(amend(ASK, 2, 1012), cancel(BID, 1))
