"""Playbooks of the symbol machine: what it sees, what it does, in which state it is afterwards."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from core_kit import (
    ASK,
    BID,
    OPTION,
    acked,
    changed,
    closed,
    fill,
    label,
    refused,
    resting,
    settings,
)
from core_playbook import Play, amend, cancel, place

from mmd.core.machine import HANDLERS
from mmd.core.orders import Amending, Cancelling, Unknown, worst_lots
from mmd.core.quoting import Wanted, Withheld
from mmd.core.states import MOVES
from mmd.domain import events as ev
from mmd.domain.actions import AckBounds, QueryOrder, QueryState
from mmd.domain.reasons import CaseKind, CashKind, Fault, Missing, Mode, Phase, Response, Rule, State, Switch, Why
from mmd.domain.settings import Fair, Style

E, P, L, A, C, U = Phase.EMPTY, Phase.PLACING, Phase.LIVE, Phase.AMENDING, Phase.CANCELLING, Phase.UNKNOWN
BID1, ASK2 = label(BID, 1), label(ASK, 2)


def ask_for(side_label: str) -> QueryOrder:
    return QueryOrder(side_label, f"id-{side_label}")


# --- start and resume ---------------------------------------------------------------------------------


def test_start_reconcile_resume_quotes() -> None:
    play = Play().is_in(State.PAUSED, Why.STARTUP)
    play.connected().sees_book(990, 1010).does_nothing().slots(E, E)
    play.asks(ev.ResumeRequested).replied(True, "ACTIVE").is_in(State.ACTIVE, Why.RESUMED)
    play.does(place(BID, 1, 995), place(ASK, 2, 1005)).slots(P, P)
    play.sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10)).does_nothing().slots(L, L)


def test_resume_is_refused_with_every_failing_check() -> None:
    play = Play().asks(ev.ResumeRequested).replied(False, "not ready").is_in(State.PAUSED, Why.STARTUP)
    failing = {check.name for check in play.replies[-1].checks if not check.ok}
    assert failing == {
        "data_link",
        "trade_link",
        "cancel_on_disconnect",
        "market_data",
        "orders_known",
        "position_known",
        "bounds",
    }
    assert all(check.found and check.wanted for check in play.replies[-1].checks)
    play.does_nothing()


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        pytest.param(lambda p: p.sees(ev.DataLinkDown("gone", p.now_ns)), "data_link", id="data link"),
        pytest.param(lambda p: p.sees(ev.TradeLinkDown("gone", p.now_ns)), "trade_link", id="trade link"),
        pytest.param(
            lambda p: p.sees(ev.TradeLinkDown("", 0), ev.TradeLinkUp(False, 0), ev.OrdersReported((), 0)),
            "cancel_on_disconnect",
            id="not armed",
        ),
        pytest.param(lambda p: p.after(10.1), "market_data", id="stale"),
        pytest.param(
            lambda p: p.sees(ev.InstrumentStateChanged("locked", False, False, p.now_ns)), "instrument", id="locked"
        ),
        pytest.param(
            lambda p: p.sees(ev.TradeLinkDown("", 0), ev.TradeLinkUp(True, 0)), "orders_known", id="not reconciled"
        ),
        pytest.param(
            lambda p: p.sees(ev.OrdersReported((resting(label(BID, 7), BID, 980, 3),), p.now_ns)),
            "no_stray_orders",
            id="stray",
        ),
        pytest.param(
            lambda p: p.sees(ev.PositionReported(5, Decimal(100), p.now_ns)), "no_drift", id="position differs"
        ),
        pytest.param(lambda p: p.sees(fill("", "t", BID, 101)), "bounds", id="position outside its bounds"),
    ],
)
def test_one_failing_check_is_named(spoil: Callable[[Play], Play], check: str) -> None:
    play = Play().connected().sees_book(990, 1010)
    spoil(play)
    play.asks(ev.ResumeRequested).replied(False, check).is_in(State.PAUSED, Why.STARTUP)


def test_resume_of_an_active_symbol_changes_nothing() -> None:
    Play().quoting().asks(ev.ResumeRequested).replied(True, "already").does_nothing().slots(L, L)


# --- market data --------------------------------------------------------------------------------------


TROUBLES = [
    pytest.param(lambda p: p.sees(ev.BookBroken(Why.BOOK_GAP, "7 after 5", p.now_ns)), Why.BOOK_GAP, id="gap"),
    pytest.param(lambda p: p.sees(ev.BookBroken(Why.BOOK_MALFORMED, "", p.now_ns)), Why.BOOK_MALFORMED, id="malformed"),
    pytest.param(lambda p: p.sees_book(1010, 1000), Why.CROSSED_BOOK, id="crossed"),
    pytest.param(lambda p: p.sees_book(1000, 1000), Why.LOCKED_BOOK, id="locked"),
    pytest.param(lambda p: p.sees_book(1190, 1210), Why.PRICE_JUMP, id="jump"),
    pytest.param(lambda p: p.sees(ev.DataLinkDown("", 0)), Why.EXCHANGE_DISCONNECTED, id="data link"),
    pytest.param(
        lambda p: p.sees(ev.InstrumentStateChanged("locked", False, False, 0)), Why.MARKET_HALTED, id="market halt"
    ),
]


@pytest.mark.parametrize(("trouble", "why"), TROUBLES)
def test_bad_market_data_pauses_with_its_own_reason(trouble: Callable[[Play], Play], why: Why) -> None:
    play = Play().quoting()
    trouble(play)
    play.is_in(State.PAUSED, why).does(cancel(BID, 1), cancel(ASK, 2)).slots(C, C)
    play.sees(closed(BID1), closed(ASK2)).does_nothing().slots(E, E).withholds(Missing.NOT_ACTIVE)


def test_silence_pauses_as_stale() -> None:
    play = Play().quoting().after(10.0).is_in(State.ACTIVE, Why.RESUMED)
    play.after(0.1).is_in(State.PAUSED, Why.STALE_BOOK).does(cancel(BID, 1), cancel(ASK, 2))
    assert "10.0 s" in play.machine.detail


def test_any_market_data_keeps_it_alive() -> None:
    play = Play().quoting()
    for _ in range(5):
        play.after(8.0).sees_ticker(100.0).is_in(State.ACTIVE, Why.RESUMED)
    play.after(8.0).sees(ev.TradePrinted(1000, 1, BID, 0, play.now_ns)).after(8.0).is_in(State.ACTIVE, Why.RESUMED)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        pytest.param([ev.TradeLinkDown("", 0), ev.TradeLinkUp(True, 0)], Why.EXCHANGE_DISCONNECTED, id="trade link"),
        pytest.param([ev.DataLinkDown("", 0), ev.DataLinkUp(0)], Why.EXCHANGE_DISCONNECTED, id="data link"),
    ],
)
def test_a_trouble_that_ends_within_the_batch_pauses_all_the_same(events: list[ev.Mail], why: Why) -> None:
    Play().quoting().sees(*events).is_in(State.PAUSED, why)


def test_a_gap_that_is_healed_within_the_batch_pauses_all_the_same() -> None:
    play = Play().quoting()
    book_after = ev.BookTop(((990, 5),), ((1010, 5),), 9, 0, play.now_ns)
    play.sees(ev.BookBroken(Why.BOOK_GAP, "", play.now_ns), book_after).is_in(State.PAUSED, Why.BOOK_GAP)
    play.does(cancel(BID, 1), cancel(ASK, 2))


@pytest.mark.parametrize(
    ("bid", "ask", "why"),
    [
        pytest.param(0, 1010, Missing.NO_BID, id="no bid"),
        pytest.param(990, 0, Missing.NO_ASK, id="no ask"),
        pytest.param(0, 0, Missing.NO_BOOK, id="empty"),
    ],
)
@pytest.mark.parametrize("style", list(Style))
def test_a_one_sided_book_withholds_and_stays_active(style: Style, bid: int, ask: int, why: Missing) -> None:
    play = Play(settings(style=style)).active()
    first = play.todo
    play.does(*first).sees(acked(BID1, first[0].price_ticks, 10), acked(ASK2, first[1].price_ticks, 10))
    play.sees_book(bid, ask).is_in(State.ACTIVE, Why.RESUMED).withholds(why).does(cancel(BID, 1), cancel(ASK, 2))
    play.sees(closed(BID1), closed(ASK2)).does_nothing()
    play.sees_book(990, 1010).is_in(State.ACTIVE, Why.RESUMED)
    assert [type(action).__name__ for action in play.todo] == ["PlaceOrder", "PlaceOrder"]


def test_a_jump_stays_until_somebody_looked() -> None:
    play = Play().quoting().sees_book(1190, 1210).is_in(State.PAUSED, Why.PRICE_JUMP)
    play.does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(BID1), closed(ASK2))
    play.sees_book(1191, 1211).is_in(State.PAUSED, Why.PRICE_JUMP)
    play.asks(ev.ResumeRequested).replied(True).is_in(State.ACTIVE, Why.RESUMED)


def test_a_small_tick_is_no_jump() -> None:
    """20 % of a price of five ticks is one tick: within max_jump_ticks."""
    play = Play(settings(style=Style.JOIN)).active(bid=4, ask=8)
    play.sees_book(5, 10).is_in(State.ACTIVE, Why.RESUMED)


def test_no_return_from_a_market_data_pause_by_itself() -> None:
    play = Play().quoting().sees_book(1010, 1000).does(cancel(BID, 1), cancel(ASK, 2))
    play.sees(closed(BID1), closed(ASK2)).sees_book(990, 1010)
    for _ in range(20):
        play.after(1.0).sees_book(990, 1010)
    play.is_in(State.PAUSED, Why.CROSSED_BOOK).does_nothing()


def test_auto_resume_waits_for_an_unbroken_time() -> None:
    play = Play(settings(data={"auto_resume": True, "auto_resume_seconds": 5.0})).quoting()
    play.sees_book(1010, 1000).does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(BID1), closed(ASK2))
    play.sees_book(990, 1010).after(3.0).sees_book(1010, 1000).sees_book(990, 1010)  # a relapse starts it again
    play.after(4.0).sees_book(990, 1010).is_in(State.PAUSED, Why.CROSSED_BOOK)
    play.after(1.5).is_in(State.ACTIVE, Why.AUTO_RESUMED).does(place(BID, 3, 995), place(ASK, 4, 1005))


def test_auto_resume_never_undoes_an_operator() -> None:
    play = (
        Play(settings(data={"auto_resume": True})).quoting().asks(ev.PauseRequested).is_in(State.PAUSED, Why.OPERATOR)
    )
    play.does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(BID1), closed(ASK2))
    for _ in range(10):
        play.after(1.0).sees_book(990, 1010)
    play.is_in(State.PAUSED, Why.OPERATOR).does_nothing()


# --- outcomes -----------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_for_and_twice_absent_is_absent() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.after(2.0).does(QueryOrder(BID1, "")).slots(U, L)
    play.sees(ev.OrderAbsent(BID1, play.now_ns)).does_nothing().slots(U, L)
    play.sees_book(990, 1010).after(2.0).does(QueryOrder(BID1, ""))
    play.sees(ev.OrderAbsent(BID1, play.now_ns)).does(place(BID, 3, 995)).slots(P, L)


def test_an_unknown_order_is_charged_in_full() -> None:
    play = Play(settings(limits={"max_position": 10})).active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.after(2.0).slots(U, U)
    own = play.machine.own
    assert (own.worst(BID), own.worst(ASK), own.unknown, own.resting) == (10, 10, 2, 2)


def test_both_words_of_absence_within_the_latency_are_one() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.after(2.0).sees(ev.OrderAbsent(BID1, 0), ev.OrderAbsent(BID1, 0)).slots(U, L)


def test_unknown_past_its_deadline_pauses() -> None:
    play = Play(settings(data={"stale_seconds": 60.0})).quoting()
    play.sees(ev.RequestLost(BID1, "test", play.now_ns)).slots(U, L).after(9.9).is_in(State.ACTIVE, Why.RESUMED)
    play.after(0.2).is_in(State.PAUSED, Why.OUTCOME_UNKNOWN)
    assert play.todo[-1] == cancel(ASK, 2)


def test_unknown_turns_out_to_rest() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.after(2.0).does(QueryOrder(BID1, "")).sees(acked(BID1, 995, 10)).does_nothing().slots(L, L)


def test_unknown_turns_out_to_be_filled() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.after(2.0).does(QueryOrder(BID1, "")).sees(fill(BID1, "t1", BID, 10), closed(BID1, 10, "filled"))
    assert play.machine.position.lots == 10
    play.does(place(BID, 3, 995)).slots(P, L)


def test_a_late_answer_after_giving_up_is_a_stray_and_cancelled() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10)).after(2.0)
    play.sees(ev.OrderAbsent(BID1, 0)).after(2.0).sees(ev.OrderAbsent(BID1, 0))
    play.does(QueryOrder(BID1, ""), QueryOrder(BID1, ""), place(BID, 3, 995)).notes_("order.unknown")
    play.sees(acked(label(BID, 3), 995, 10)).does_nothing()
    play.sees(acked(BID1, 995, 10)).notes_("order.stray").withholds(Missing.STRAY_ORDER)
    play.does(cancel(BID, 3), cancel(ASK, 2), cancel(BID, 1))
    assert play.machine.own.worst(BID) == 20
    play.sees(closed(BID1), closed(label(BID, 3)), closed(ASK2)).does(place(BID, 4, 995), place(ASK, 5, 1005))


def test_an_order_of_others_is_never_touched() -> None:
    play = Play().quoting().sees(acked("their-order", 995, 3)).does_nothing()
    assert not play.machine.own.strays


def test_a_late_answer_to_a_finished_order_is_no_stray() -> None:
    play = Play().quoting().sees(fill(BID1, "t1", BID, 10), acked(BID1, 995, 10)).does(place(BID, 3, 995))
    assert not play.machine.own.strays


# --- fills --------------------------------------------------------------------------------------------


def test_a_fill_beats_the_cancel() -> None:
    play = Play().quoting().asks(ev.PauseRequested).does(cancel(BID, 1), cancel(ASK, 2))
    play.sees(fill(BID1, "t1", BID, 10)).slots(E, C)
    play.sees(refused(BID1, gone=True), closed(BID1, 10, "filled"), closed(ASK2)).does_nothing().slots(E, E)
    assert play.machine.position.lots == 10


def test_a_fill_before_the_answer() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.sees(fill(BID1, "t1", BID, 4)).slots(P, P).does_nothing()
    play.sees(acked(BID1, 995, 6, total=10)).slots(L, P)
    assert play.machine.own.worst(BID) == 6
    assert play.machine.position.lots == 4


def test_a_partial_fill_keeps_its_place_until_half_is_gone() -> None:
    play = Play().quoting().after(1.5).sees(fill(BID1, "t1", BID, 4)).does_nothing()
    play.sees(fill(BID1, "t2", BID, 2)).does(amend(BID, 1, 995, 10, total=16))
    play.sees(acked(BID1, 995, 10, total=16)).does_nothing()
    assert play.machine.own.worst(BID) == 10


def test_a_fill_told_twice_counts_once() -> None:
    play = Play().quoting().sees(fill(BID1, "t1", BID, 4), fill(BID1, "t1", BID, 4)).sees(fill(BID1, "t1", BID, 4))
    assert play.machine.position.lots == 4
    assert play.machine.own.worst(BID) == 6


def test_the_end_told_before_its_fills_keeps_the_room() -> None:
    """Closed with 10 filled of which none was seen: the room is not free yet."""
    play = Play(settings(limits={"max_position": 10})).quoting(low=-10, high=10)
    play.sees(closed(BID1, 10, "filled")).slots(U, L).does(ask_for(BID1))
    assert play.machine.own.worst(BID) == 10
    play.sees(fill(BID1, "t1", BID, 10)).slots(E, L)
    assert play.machine.position.lots == 10
    assert play.machine.own.bid.wanted == Withheld(Missing.NO_ROOM)


def test_the_end_told_again_without_its_fills_leaves_them_charged() -> None:
    """A late answer tells the end once more, and the fills may still be under way."""
    play = Play().quoting().sees(closed(BID1, 4)).slots(U, L).sees(closed(BID1, 4)).slots(U, L)
    play.after(2.0).sees(closed(BID1, 4)).slots(U, L)
    assert worst_lots(play.slot(BID)) == 4
    play.sees(fill(BID1, "t1", BID, 4))
    assert play.slot(BID).phase is not U


def test_the_end_without_its_fills_is_over_once_the_exchange_knows_of_none() -> None:
    play = Play().quoting().sees(closed(BID1, 4)).slots(U, L).after(2.0).sees(ev.OrderAbsent(BID1, 0))
    assert play.slot(BID).phase is not U


def test_a_fill_of_no_order_of_ours_counts_in_the_position() -> None:
    play = Play().quoting().sees(fill("", "t9", ASK, 3)).notes_("order.filled_elsewhere")
    assert play.machine.position.lots == -3


# --- changing quotes ----------------------------------------------------------------------------------


def test_widening_acts_at_once_and_tightening_waits() -> None:
    play = Play().quoting().sees_book(980, 1000).does(amend(BID, 1, 985)).slots(A, L)
    play.sees(acked(BID1, 985, 10)).does_nothing()
    play.after(0.5).does_nothing().after(0.6).does(amend(ASK, 2, 995))


def test_rising_moves_the_ask_first() -> None:
    Play().quoting().after(1.5).sees_book(1000, 1020).does(amend(ASK, 2, 1016), amend(BID, 1, 1004))


def test_our_own_sides_never_meet() -> None:
    """The bid may not go where our ask still rests, until that has moved."""
    play = Play(settings(spread_bps=20.0)).active().does(place(BID, 1, 999), place(ASK, 2, 1001))
    play.sees(acked(BID1, 999, 10), acked(ASK2, 1001, 10)).after(1.5)
    play.sees_book(1000, 1020).does(amend(ASK, 2, 1012))
    assert play.machine.own.bid.wanted == Withheld(Missing.SELF_CROSS)
    play.sees(acked(ASK2, 1012, 10)).does(amend(BID, 1, 1008))


def test_a_second_word_about_the_placing_is_not_the_answer_to_the_amend() -> None:
    play = Play().quoting().sees_book(980, 1000).does(amend(BID, 1, 985))
    play.sees(acked(BID1, 995, 10)).slots(A, L).sees(acked(BID1, 985, 10)).slots(L, L).does_nothing()


def test_an_amend_that_is_refused_leaves_the_old_order() -> None:
    play = Play().quoting().after(1.5).sees_book(1000, 1010).does(amend(ASK, 2, 1011), amend(BID, 1, 999))
    play.sees(refused(BID1)).notes_("order.refused").does_nothing().slots(L, A)
    play.sees(acked(ASK2, 1011, 10)).does_nothing().after(1.1).does(amend(BID, 1, 999))


def test_a_refused_amend_to_a_wider_price_pulls_the_order() -> None:
    """Too close to the market and it may not move: better no order than this one."""
    play = Play().quoting().sees_book(980, 1000).does(amend(BID, 1, 985))
    play.sees(refused(BID1)).does(cancel(BID, 1)).slots(C, L)


def test_an_amend_of_an_order_that_is_gone_asks_what_became_of_it() -> None:
    play = Play().quoting().sees_book(980, 1000).does(amend(BID, 1, 985))
    play.sees(refused(BID1, gone=True)).does(ask_for(BID1)).slots(U, L)


def test_a_post_only_refusal_waits_longer_each_time() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    for n, seconds in ((1, 0.25), (3, 0.5), (4, 1.0)):
        play.sees(refused(label(BID, n))).does_nothing()
        assert play.machine.own.bid.wanted == Withheld(Missing.REFUSED)
        play.after(seconds - 0.01).does_nothing()
        play.after(0.02).does(place(BID, 3 if n == 1 else n + 1, 995))
    play.sees(acked(label(BID, 5), 995, 10)).sees(closed(label(BID, 5), 0, "post_only"))
    play.after(0.26).does(place(BID, 6, 995))  # an acknowledgement made the waits short again


def test_a_rejection_storm_halts() -> None:
    play = Play(settings(limits={"max_rejects": 3}, data={"stale_seconds": 60.0})).active()
    play.does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    for n in (1, 3, 4):
        play.sees(refused(label(BID, n))).is_in(State.ACTIVE, Why.RESUMED).after(2.1)
    play.sees(refused(label(BID, 5))).is_in(State.HALTED, Why.REJECTION_STORM)
    assert play.todo[-1] == cancel(ASK, 2)


def test_with_the_default_limits_a_steady_refusal_of_both_sides_is_a_storm() -> None:
    play = Play().active()
    for _ in range(60):
        for action in play.todo:
            play.sees(refused(action.label))
            play.todo = [other for other in play.todo if other != action]
        play.after(1.0).sees_book(990, 1010)
    play.is_in(State.HALTED, Why.REJECTION_STORM)


def test_a_refusal_for_good_pauses() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.sees(refused(BID1, Fault.AUTH, code="forbidden")).is_in(State.PAUSED, Why.ORDERS_REFUSED).does(cancel(ASK, 2))


def test_the_gate_refused_is_tried_again_later() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.sees(ev.GateRefused(BID1, BID, Rule.COLLAR, "1", "2", "collar_bps", play.now_ns)).does_nothing().slots(E, P)
    play.after(0.9).does_nothing().after(0.2).does(place(BID, 3, 995))


def test_an_exchange_that_pulls_the_order_is_not_pestered() -> None:
    play = Play().quoting().sees(closed(BID1, 0, "maintenance")).notes_("order.closed").does_nothing()
    play.after(0.3).does(place(BID, 3, 995))


def test_replace_cancels_first_and_places_when_it_is_gone() -> None:
    play = Play(settings(requote="replace")).quoting().sees_book(980, 1000).does(cancel(BID, 1))
    play.sees(closed(BID1)).does(place(BID, 3, 985))


def test_no_timer_while_an_order_is_within_tolerance() -> None:
    """A difference that the plan accepts must not keep the machine awake."""
    play = Play(settings(tolerance_bps=50.0, data={"stale_seconds": 60.0})).quoting().after(1.5)
    play.sees_book(992, 1012).does_nothing()
    before = play.wakeups
    play.after(20.0).does_nothing()
    assert play.wakeups - before <= 2


def test_no_timer_while_there_is_nobody_to_ask() -> None:
    play = Play().quoting().sees(ev.TradeLinkDown("", 0)).slots(U, U)
    before = play.wakeups
    play.after(60.0)
    assert play.wakeups - before <= 2


# --- orders that would end by themselves --------------------------------------------------------------


def test_an_order_is_renewed_before_its_life_ends_and_counts_from_its_last_sending() -> None:
    play = Play(settings(order_life_seconds=10.0, data={"stale_seconds": 1000.0})).active()
    play.does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10))
    play.after(6.9).does_nothing().after(0.2).does(amend(BID, 1, 995), amend(ASK, 2, 1005)).slots(A, A)
    play.after(0.5).sees(acked(BID1, 995, 10), refused(ASK2, Fault.RATE_LIMIT)).slots(L, L).after(1.0).does_nothing()
    play.after(2.0).does(amend(ASK, 2, 1005)).sees(acked(ASK2, 1005, 10))
    play.after(3.0).does_nothing().after(1.0).does(amend(BID, 1, 995))


def test_orders_that_rest_until_cancelled_are_left_alone() -> None:
    Play(settings(data={"stale_seconds": 1e6})).quoting().after(86_400.0).does_nothing()


MS = 1_000_000


def touch_book(exchange_ns: int, *bids: tuple[int, int]) -> ev.BookTop:
    """A book of that time with our ask in it."""
    return ev.BookTop(bids, ((1009, 10), (1010, 100)), 0, exchange_ns, exchange_ns)


# --- own orders in the book ---------------------------------------------------------------------------


def test_improving_does_not_climb_its_own_price() -> None:
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 991), place(ASK, 2, 1009)).sees(acked(BID1, 991, 10), acked(ASK2, 1009, 10))
    for _ in range(5):
        play.after(1.5).sees(ev.BookTop(((991, 10), (990, 100)), ((1009, 10), (1010, 100)), 0, 0, play.now_ns))
        play.does_nothing()


def test_others_at_our_price_are_improved_on() -> None:
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 991), place(ASK, 2, 1009)).sees(acked(BID1, 991, 10), acked(ASK2, 1009, 10)).after(1.5)
    play.sees(ev.BookTop(((991, 15), (990, 100)), ((1009, 10), (1010, 100)), 0, 0, play.now_ns)).does(
        amend(BID, 1, 992)
    )


def test_a_book_that_is_older_than_our_cancel_is_not_climbed() -> None:
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 991), place(ASK, 2, 1009)).sees(acked(BID1, 991, 10), acked(ASK2, 1009, 10))
    play.sees(closed(BID1, 0, "maintenance")).after(0.1)
    play.sees(ev.BookTop(((991, 10), (990, 100)), ((1009, 10), (1010, 100)), 0, 0, play.now_ns)).after(0.3)
    play.does(place(BID, 3, 991))


def test_a_partial_fill_does_not_hide_the_others_at_our_price() -> None:
    """Our order shows once at its price, with its old size or its new one; never both."""
    play = Play(settings(style=Style.JOIN, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 990), place(ASK, 2, 1010)).sees(acked(BID1, 990, 10), acked(ASK2, 1010, 10))
    play.sees(fill(BID1, "t1", BID, 4))
    play.sees(ev.BookTop(((990, 16), (980, 100)), ((1010, 110),), 0, 0, play.now_ns)).does_nothing()


def test_a_book_is_read_as_of_its_own_time_however_late_it_comes() -> None:
    """Half a second behind the answers: what it shows of ours is what rested then, not what rests now."""
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    at = play.now_ns
    play.does(place(BID, 1, 991), place(ASK, 2, 1009))
    play.sees(acked(BID1, 991, 10, since=at + 100 * MS), acked(ASK2, 1009, 10, since=at + 100 * MS)).after(0.3)
    play.sees(closed(BID1, 0, "maintenance", since=at + 300 * MS)).after(0.4).does(place(BID, 3, 991))
    play.sees(touch_book(at + 200 * MS, (991, 10), (990, 100))).does_nothing()
    play.sees(touch_book(at + 299 * MS, (991, 10), (990, 100))).does_nothing()
    assert play.machine.touch.bid_ticks == 990, "ours, which is gone by now"
    play.sees(acked(label(BID, 3), 991, 10, since=at + 400 * MS)).after(1.5)
    play.sees(touch_book(at + 350 * MS, (991, 10), (990, 100)))
    assert play.machine.touch.bid_ticks == 991, "none of ours rested then: that is somebody else"


def test_our_order_is_seen_although_the_exchanges_clock_was_set_back() -> None:
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    at = play.now_ns
    play.does(place(BID, 1, 991), place(ASK, 2, 1009))
    play.sees(acked(BID1, 991, 10, since=at), acked(ASK2, 1009, 10, since=at)).after(1.0)
    play.sees(closed(BID1, 0, "maintenance", since=at + 900 * MS)).after(0.4).does(place(BID, 3, 991))
    play.sees(acked(label(BID, 3), 991, 10, since=at + 500 * MS)).after(1.5)
    play.sees(touch_book(at + 1000 * MS, (991, 10), (990, 100))).does_nothing()
    assert play.machine.touch.bid_ticks == 990


def test_a_refused_place_forgets_nothing_of_what_rested_before() -> None:
    play = Play(settings(style=Style.IMPROVE, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    at = play.now_ns
    play.does(place(BID, 1, 991), place(ASK, 2, 1009))
    play.sees(acked(BID1, 991, 10, since=at), acked(ASK2, 1009, 10, since=at)).after(0.5)
    play.sees(closed(BID1, 0, "maintenance", since=at + 500 * MS)).after(0.4).does(place(BID, 3, 991))
    play.sees(refused(label(BID, 3))).after(0.05)
    play.sees(touch_book(at + 400 * MS, (991, 10), (990, 100)))
    assert play.machine.touch.bid_ticks == 990, "what it shows is ours, from before the closing"


def test_an_order_in_flight_does_not_move_the_market_that_we_see() -> None:
    """Outsiders at our price and large enough to be us, while our order may or may not be in the book."""
    play = Play(settings(style=Style.JOIN, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 990), place(ASK, 2, 1010)).slots(P, P)
    touch = play.machine.touch
    assert (touch.bid_ticks, touch.bid_lots) == (990, 100)
    play.sees_book(990, 1010).does_nothing()
    assert play.machine.touch == touch, "it is not there yet"
    play.sees_book(990, 1010, lots=110).does_nothing()
    assert play.machine.touch == touch, "it is there"
    play.sees_book(990, 1010, lots=130).does_nothing()
    assert play.machine.touch.bid_lots == 120, "others have come"


@pytest.mark.parametrize("is_cancel", [True, False])
def test_a_book_that_is_ahead_of_the_answer_does_not_move_the_market_either(is_cancel: bool) -> None:
    """Our order has left its place, an outsider of our size is there, and the answer is still on its way."""
    play = Play(settings(style=Style.JOIN, spread_bps=0.0, tolerance_bps=0.0)).active(bid=990, ask=1010)
    at = play.now_ns
    play.does(place(BID, 1, 990), place(ASK, 2, 1010))
    play.sees(acked(BID1, 990, 10, since=at), acked(ASK2, 1010, 10, since=at)).after(1.5)
    play.sees(touch_book(at + 1000 * MS, (990, 20), (989, 100)))
    touch = play.machine.touch
    assert (touch.bid_ticks, touch.bid_lots) == (990, 10)
    if is_cancel:
        play.asks(ev.PauseRequested)
    else:
        play.sees(ev.SettingsChanged(settings(style=Style.JOIN, spread_bps=300.0, tolerance_bps=0.0), play.now_ns))
    assert type(play.machine.own.bid.slot) is (Cancelling if is_cancel else Amending)
    play.sees(touch_book(at + 2000 * MS, (990, 10), (989, 100)))
    assert (play.machine.touch.bid_ticks, play.machine.touch.bid_lots) == (990, 10)


def test_shadow_orders_are_not_taken_out_of_the_book() -> None:
    play = Play(settings(mode=Mode.SHADOW, style=Style.JOIN, spread_bps=0.0)).active(bid=990, ask=1010)
    play.does(place(BID, 1, 990), place(ASK, 2, 1010)).sees(acked(BID1, 990, 10), acked(ASK2, 1010, 10))
    play.sees(ev.BookTop(((990, 10), (980, 100)), ((1010, 10),), 0, 0, play.now_ns)).does_nothing()


# --- pause, halt, reset, removal ----------------------------------------------------------------------


def test_pause_pulls_and_counts_until_the_exchange_confirms() -> None:
    play = Play().quoting().asks(ev.PauseRequested).replied(True).is_in(State.PAUSED, Why.OPERATOR)
    play.does(cancel(BID, 1), cancel(ASK, 2))
    assert play.machine.own.resting == 2
    play.sees(closed(BID1))
    assert play.machine.own.resting == 1
    play.sees(closed(ASK2)).does_nothing()
    assert play.machine.own.resting == 0


def test_pause_with_a_place_in_flight_cancels_it_when_it_lands() -> None:
    play = Play().active().does(place(BID, 1, 995), place(ASK, 2, 1005)).asks(ev.PauseRequested).does_nothing()
    assert play.machine.own.resting == 2
    play.sees(acked(BID1, 995, 10)).does(cancel(BID, 1)).sees(refused(ASK2)).slots(C, E)


def test_a_refused_cancel_is_tried_again() -> None:
    play = Play().quoting().asks(ev.PauseRequested).does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(ASK2))
    play.sees(refused(BID1, Fault.RATE_LIMIT)).does_nothing().slots(L, E)
    play.after(1.1).does(cancel(BID, 1))


def test_halted_never_becomes_active() -> None:
    play = Play().quoting().asks(ev.HaltRequested, why=Why.OPERATOR).is_in(State.HALTED, Why.OPERATOR)
    play.does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(BID1), closed(ASK2))
    play.asks(ev.ResumeRequested).replied(False, "HALTED", "reset")
    play.asks(ev.PauseRequested).replied(False, "HALTED")
    play.sees_book(990, 1010).after(5.0).sees_book(990, 1010).is_in(State.HALTED, Why.OPERATOR).does_nothing()
    play.asks(ev.ResetRequested).replied(True).is_in(State.PAUSED, Why.RESET).does_nothing()
    play.asks(ev.ResumeRequested).replied(True).is_in(State.ACTIVE, Why.RESUMED)


@pytest.mark.parametrize("prepare", [Play.connected, Play.quoting], ids=["paused", "active"])
def test_reset_needs_a_halt(prepare: Callable[[Play], Play]) -> None:
    play = prepare(Play())
    state = play.machine.state
    play.asks(ev.ResetRequested).replied(False, "only HALTED").does_nothing()
    assert play.machine.state is state


def test_fills_are_counted_while_halted() -> None:
    play = Play().quoting().asks(ev.HaltRequested, why=Why.DRAWDOWN).sees(fill(BID1, "t1", BID, 10))
    assert play.machine.position.lots == 10
    play.is_in(State.HALTED, Why.DRAWDOWN)


def test_the_first_reason_of_a_halt_stays() -> None:
    play = Play().quoting().asks(ev.HaltRequested, why=Why.DRAWDOWN).asks(ev.HaltRequested, why=Why.OPERATOR)
    play.replied(True).is_in(State.HALTED, Why.DRAWDOWN)


def test_removal_drains_and_is_gone() -> None:
    play = Play().quoting().sees(ev.RemovalRequested(Why.SHUTDOWN, 0)).is_in(State.DRAINING, Why.SHUTDOWN)
    play.does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(BID1)).is_in(State.DRAINING, Why.SHUTDOWN)
    play.sees(closed(ASK2)).is_in(State.GONE, Why.SHUTDOWN).does_nothing()
    play.sees_book(990, 1010).asks(ev.ResumeRequested).replied(False).does_nothing()


def test_removal_before_the_first_reconciliation_waits_for_it() -> None:
    """An earlier run's orders may rest there: gone means that nothing of ours does."""
    play = Play().sees(ev.RemovalRequested(Why.SHUTDOWN, 0)).is_in(State.DRAINING, Why.SHUTDOWN)
    play.sees(ev.TradeLinkUp(True, 0)).is_in(State.DRAINING, Why.SHUTDOWN)
    play.sees(ev.OrdersReported((), 0)).is_in(State.GONE, Why.SHUTDOWN)


def test_expiry_drains() -> None:
    given = settings(
        fair=Fair.MARK, size=1, limits={"collar_bps": 5000.0}, data={"stale_seconds": 1e6}, spread_bps=500.0
    )
    play = Play(given, OPTION).connected().sees_book(200, 210).sees_ticker(0.0205)
    play.asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED)
    bid, ask = play.todo
    play.todo = []
    play.sees(*(acked(order.label, order.price_ticks, 10) for order in (bid, ask)))
    play.does_nothing().after(86_399.0).is_in(State.ACTIVE, Why.RESUMED)
    play.after(1.1).is_in(State.DRAINING, Why.EXPIRED)
    play.todo = []
    play.sees(closed(bid.label), closed(ask.label)).is_in(State.GONE, Why.EXPIRED)


def test_a_delivered_instrument_drains() -> None:
    play = Play().connected().sees(ev.InstrumentStateChanged("delivered", False, True, 0))
    play.is_in(State.GONE, Why.EXPIRED)


# --- links, reconciliation, position ------------------------------------------------------------------


def test_disconnect_makes_everything_unknown_and_the_report_resolves_it() -> None:
    play = Play().quoting().sees(ev.TradeLinkDown("reset by peer", 0)).slots(U, U).does_nothing()
    play.is_in(State.PAUSED, Why.EXCHANGE_DISCONNECTED)
    play.after(3.0).sees(ev.TradeLinkUp(True, play.now_ns)).does(ask_for(BID1), ask_for(ASK2))
    play.sees(
        fill(ASK2, "t1", ASK, 10),
        ev.OrdersReported((resting(BID1, BID, 995, 10),), play.now_ns),
        ev.PositionReported(-10, Decimal(100), play.now_ns),
    )
    play.slots(C, E).does(cancel(BID, 1)).sees(closed(BID1)).slots(E, E)
    assert play.machine.position.lots == -10
    assert play.machine.drift is None


def test_leftovers_of_an_earlier_run_are_cancelled_and_block_resume() -> None:
    old = "mmd-test-PLAIN-a-before-3"
    play = Play().sees(ev.DataLinkUp(0), ev.TradeLinkUp(True, 0), ev.BoundsSet(1, -100, 100, 0)).does_nothing()
    play.sees(ev.OrdersReported((resting(old, ASK, 1003, 5),), 0), ev.PositionReported(0, Decimal(0), 0))
    assert [action.label for action in play.todo if not isinstance(action, AckBounds)] == [old]
    assert AckBounds(1, -100, 100) in play.todo
    play.notes_("order.stray").sees_book(990, 1010).asks(ev.ResumeRequested).replied(False, "no_stray_orders")
    play.sees(closed(old)).asks(ev.ResumeRequested).replied(True)


def test_an_unanswered_reconciliation_is_asked_for_again() -> None:
    Play().sees(ev.TradeLinkUp(True, 0)).after(9.0).does_nothing().after(1.1).does(QueryState())


def test_a_position_that_differs_twice_halts_and_reset_adopts_it() -> None:
    play = Play().quoting().sees(ev.PositionReported(7, Decimal(99), 0)).withholds(Missing.POSITION_UNKNOWN)
    play.does(QueryState(), cancel(BID, 1), cancel(ASK, 2)).is_in(State.ACTIVE, Why.RESUMED)
    play.sees(ev.PositionReported(7, Decimal(99), 0)).is_in(State.HALTED, Why.POSITION_DRIFT)
    play.sees(closed(BID1), fill(ASK2, "t1", ASK, 2), closed(ASK2, 2)).is_in(State.HALTED, Why.POSITION_DRIFT)
    play.sees(ev.PositionReported(5, Decimal(99), 0)).asks(ev.ResetRequested).is_in(State.PAUSED, Why.RESET)
    assert play.machine.position.lots == 5, "the fill counts too"
    assert play.machine.position.average == 99
    assert play.machine.position.profit(99.0) is not None


def test_a_reset_adopts_nothing_that_a_late_fill_may_explain() -> None:
    """The report may have counted the fill that came after it: adopting the difference would count it twice."""
    play = Play().quoting().sees(ev.PositionReported(4, Decimal(100), 0), ev.PositionReported(4, Decimal(100), 0))
    play.is_in(State.HALTED, Why.POSITION_DRIFT).sees(fill(BID1, "t1", BID, 4)).todo.clear()
    play.asks(ev.ResetRequested).is_in(State.PAUSED, Why.RESET).does(QueryState())
    assert (play.machine.position.lots, play.machine.drift) == (4, 4)
    play.sees(ev.PositionReported(4, Decimal(100), 0))
    assert (play.machine.position.lots, play.machine.drift) == (4, None)


def test_a_position_that_differs_once_is_a_race() -> None:
    play = (
        Play()
        .quoting()
        .sees(ev.PositionReported(4, Decimal(100), 0))
        .does(QueryState(), cancel(BID, 1), cancel(ASK, 2))
    )
    play.sees(fill(BID1, "t1", BID, 4), ev.PositionReported(4, Decimal(100), 0)).is_in(State.ACTIVE, Why.RESUMED)
    assert play.machine.drift is None


def test_a_position_that_differs_while_draining_is_no_fault() -> None:
    play = Play().quoting().sees(ev.RemovalRequested(Why.REMOVED, 0))
    play.sees(ev.PositionReported(7, Decimal(99), 0)).sees(ev.PositionReported(7, Decimal(99), 0))
    play.is_in(State.DRAINING, Why.REMOVED)


# --- bounds and settings ------------------------------------------------------------------------------


def test_lower_bounds_reduce_first_and_are_acknowledged_after() -> None:
    play = Play().quoting().sees(ev.BoundsSet(2, -4, 4, 0)).does(amend(BID, 1, 995, 4), amend(ASK, 2, 1005, 4))
    play.sees(acked(BID1, 995, 4)).does_nothing().sees(acked(ASK2, 1005, 4)).does(AckBounds(2, -4, 4))


def test_a_position_outside_new_bounds_only_reduces() -> None:
    play = Play().quoting().sees(fill(BID1, "t1", BID, 10), ev.BoundsSet(2, -5, 5, 0))
    play.does(AckBounds(2, -5, 5))
    assert play.machine.own.bid.wanted == Withheld(Missing.NO_ROOM)
    assert play.machine.own.ask.wanted == Wanted(1005, 10)


def test_bounds_before_the_first_reconciliation_are_not_acknowledged() -> None:
    """An earlier run's order may still rest there, and fill."""
    play = Play().sees(ev.BoundsSet(1, -5, 5, 0)).does_nothing()
    play.sees(ev.TradeLinkUp(True, 0), ev.OrdersReported((), 0)).does(AckBounds(1, -5, 5))


def test_new_settings_requote_in_place() -> None:
    play = Play().quoting()
    wider = changed(play.machine.settings, profile=changed(play.machine.settings.profile, spread_bps=200.0))
    play.sees(ev.SettingsChanged(wider, 0)).does(amend(BID, 1, 990), amend(ASK, 2, 1010))


def test_unchanged_settings_keep_the_orders() -> None:
    play = Play().quoting()
    play.sees(ev.SettingsChanged(play.machine.settings, 0)).does_nothing().slots(L, L)


def test_a_change_of_mode_pulls_before_it_switches() -> None:
    play = Play().quoting()
    play.sees(ev.SettingsChanged(changed(play.machine.settings, mode=Mode.SHADOW), 0)).withholds(Missing.MODE_CHANGE)
    play.does(cancel(BID, 1), cancel(ASK, 2))
    assert play.machine.mode is Mode.LIVE
    play.sees(closed(BID1)).does_nothing().sees(closed(ASK2)).does(place(BID, 3, 995), place(ASK, 4, 1005))
    assert play.machine.mode is Mode.SHADOW


# --- the table ----------------------------------------------------------------------------------------


def test_every_mail_has_a_handler() -> None:
    assert set(HANDLERS) == set(ev.Mail.__args__)


def test_no_way_from_halted_to_active() -> None:
    assert State.ACTIVE not in MOVES[State.HALTED]
    assert set(MOVES) == set(State)


SCENES: dict[State, Callable[[], Play]] = {
    State.PAUSED: lambda: Play().connected().sees_book(990, 1010),
    State.ACTIVE: lambda: Play().quoting(),
    State.HALTED: lambda: Play().quoting().asks(ev.HaltRequested, why=Why.OPERATOR),
    State.DRAINING: lambda: Play().quoting().sees(ev.RemovalRequested(Why.REMOVED, 0)),
    State.GONE: lambda: Play().connected().sees(ev.RemovalRequested(Why.REMOVED, 0)),
}
SAMPLES: dict[type, Callable[[], ev.Mail]] = {
    ev.BookTop: lambda: ev.BookTop(((991, 5),), ((1011, 5),), 0, 0, 1),
    ev.BookBroken: lambda: ev.BookBroken(Why.BOOK_GAP, "", 1),
    ev.Ticker: lambda: ev.Ticker(100.0, 100.0, 100.0, 0.0, 0.0, 0.0, 0.0, 1, 1),
    ev.TradePrinted: lambda: ev.TradePrinted(1000, 1, BID, 1, 1),
    ev.InstrumentStateChanged: lambda: ev.InstrumentStateChanged("locked", False, False, 1),
    ev.DataLinkUp: lambda: ev.DataLinkUp(1),
    ev.DataLinkDown: lambda: ev.DataLinkDown("", 1),
    ev.TradeLinkUp: lambda: ev.TradeLinkUp(True, 1),
    ev.TradeLinkDown: lambda: ev.TradeLinkDown("", 1),
    ev.OrderAcked: lambda: acked(BID1, 995, 10),
    ev.OrderRefused: lambda: refused(BID1, Fault.AUTH),
    ev.OrderClosed: lambda: closed(BID1),
    ev.OrderAbsent: lambda: ev.OrderAbsent(BID1, 1),
    ev.RequestLost: lambda: ev.RequestLost(BID1, "", 1),
    ev.OrderFilled: lambda: fill(BID1, "t1", BID, 2),
    ev.OrdersReported: lambda: ev.OrdersReported((), 1),
    ev.PositionReported: lambda: ev.PositionReported(50, Decimal(1), 1),
    ev.CashMoved: lambda: ev.CashMoved("f1", CashKind.FUNDING, Decimal(1), "USDC", 0, 1, 1),
    ev.ProtectionReported: lambda: ev.ProtectionReported(False, "interval 5, wanted 1", 1),
    ev.ProtectionTripped: lambda: ev.ProtectionTripped("too much", 0, 1),
    ev.ShadowFilled: lambda: ev.ShadowFilled(BID1, ev.Bound.PESSIMISTIC, BID, Decimal("99.5"), 2, 1, 1),
    ev.SwitchTripped: lambda: ev.SwitchTripped(Switch.CLOCK_SKEW, Response.PAUSE, "900 ms", 1),
    ev.SwitchCleared: lambda: ev.SwitchCleared(Switch.CLOCK_SKEW, 1),
    ev.FlattenRequested: lambda: ev.FlattenRequested(1, "root", "", 5, 990, 1),
    ev.GateRefused: lambda: ev.GateRefused(BID1, BID, Rule.STATE, "", "", "", 1),
    ev.TimerFired: lambda: ev.TimerFired(1),
    ev.BoundsSet: lambda: ev.BoundsSet(9, -1, 1, 1),
    ev.SettingsChanged: lambda: ev.SettingsChanged(settings(spread_bps=300.0), 1),
    ev.ResumeRequested: lambda: ev.ResumeRequested(1, "root", "", 1),
    ev.PauseRequested: lambda: ev.PauseRequested(1, "root", "", 1),
    ev.HaltRequested: lambda: ev.HaltRequested(1, Why.OPERATOR, "root", "", 1),
    ev.ResetRequested: lambda: ev.ResetRequested(1, "root", "", 1),
    ev.JournalDoubted: lambda: ev.JournalDoubted("a record is missing", 1),
    ev.CaseAccepted: lambda: ev.CaseAccepted(1, CaseKind.JOURNAL, "", "root", "looked", 1),
    ev.RemovalRequested: lambda: ev.RemovalRequested(Why.REMOVED, 1),
}


@pytest.mark.parametrize("kind", list(SAMPLES), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", list(SCENES))
def test_every_event_in_every_state(state: State, kind: type) -> None:
    """Total: none raises, twice in a row neither; every move is in the table."""
    play = SCENES[state]()
    assert play.machine.state is state
    play.moves.clear()
    play.sees(SAMPLES[kind]()).sees(SAMPLES[kind](), SAMPLES[kind]())
    for move in play.moves:
        assert move.new in MOVES[move.old]
    if state is State.HALTED:
        assert play.machine.state is not State.ACTIVE


def test_the_samples_are_complete() -> None:
    assert set(SAMPLES) == set(HANDLERS)


def test_two_machines_that_saw_the_same_are_equal() -> None:
    first, second = Play().quoting(), Play().quoting()
    assert first.machine.snapshot() == second.machine.snapshot()
    second.sees(fill(BID1, "t1", BID, 2))
    assert first.machine.snapshot() != second.machine.snapshot()


def test_the_unknown_remembers_where_an_amend_may_have_taken_it() -> None:
    play = Play().quoting().sees_book(980, 1000).does(amend(BID, 1, 985)).sees(ev.RequestLost(BID1, "", 0))
    slot = play.slot(BID)
    assert isinstance(slot, Unknown)
    assert (slot.price_ticks, slot.to_price_ticks) == (995, 985)


def test_a_silent_book_under_a_lively_ticker_is_stale() -> None:
    """The subscription is dead if the ticker moves on and the book does not."""
    play = Play().quoting()
    seen = play.machine.market.book
    assert seen is not None
    bid, ask = (float(play.machine.instrument.grid.price(side[0][0])) for side in (seen.bids, seen.asks))

    def ticker(best_bid: float, best_ask: float) -> ev.Ticker:
        now_ns = play.now_ns
        return ev.Ticker(100.0, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0, now_ns, now_ns, best_bid, best_ask)

    for _ in range(5):
        play.after(8.0).sees(ticker(bid, ask)).is_in(State.ACTIVE, Why.RESUMED)
    play.after(5.0).sees(ticker(bid + 1, ask + 1)).is_in(State.ACTIVE, Why.RESUMED)
    play.after(9.0).sees(ticker(bid + 1, ask + 1)).is_in(State.ACTIVE, Why.RESUMED)
    play.after(2.0).sees(ticker(bid + 1, ask + 1)).is_in(State.PAUSED, Why.STALE_BOOK)
