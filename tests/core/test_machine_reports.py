"""What reports, late answers and lost links do to a machine: strays, differences, and the ledger's identity."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, acked, changed, closed, fill, label, profile, refused, resting, settings
from core_playbook import Play, amend, cancel, place

from mmd.domain import events as ev
from mmd.domain.actions import QueryOrder, QueryState
from mmd.domain.reasons import CashKind, Missing, Phase, State, Switch, Why
from mmd.domain.settings import Fair, Style, SymbolSettings

E, P, L, A, C, U = Phase.EMPTY, Phase.PLACING, Phase.LIVE, Phase.AMENDING, Phase.CANCELLING, Phase.UNKNOWN
BID1, ASK2 = label(BID, 1), label(ASK, 2)


def lively(**more: Any) -> SymbolSettings:
    """Settings under which no silence of the market matters."""
    return settings(data={"stale_seconds": 1e6, **more.pop("data", {})}, **more)


def ask_for(side_label: str) -> QueryOrder:
    return QueryOrder(side_label, f"id-{side_label}")


# --- strays -------------------------------------------------------------------------------------------

STRAY = label(BID, 9)


def with_stray(event: Any = None) -> Play:
    """ACTIVE, both sides being pulled because of an order of ours that no slot knows."""
    found = event or ev.OrdersReported(
        (resting(BID1, BID, 995, 10), resting(ASK2, ASK, 1005, 10), resting(STRAY, BID, 900, 3, total=5)), 0
    )
    play = Play(lively()).quoting().sees(found).notes_("order.stray")
    return play.does(cancel(BID, 1), cancel(ASK, 2), cancel(BID, 9)).sees(closed(BID1), closed(ASK2)).does_nothing()


def test_a_stray_is_charged_with_what_can_still_fill() -> None:
    own = with_stray().machine.own
    assert (own.worst(BID), own.worst(ASK), own.stray_lots(BID), own.stray_lots(ASK)) == (3, 0, 3, 0)
    assert (own.resting, own.others_on_side(BID, "x"), own.others_on_side(ASK, "x")) == (1, 1, 0)
    assert (own.worst(BID, besides=STRAY), own.others_on_side(BID, STRAY)) == (0, 0)


def test_a_stray_that_an_answer_tells_of_is_charged_in_full() -> None:
    """The answer may be ahead of its trades: the two lots that filled may not be here yet."""
    own = with_stray(acked(STRAY, 900, 3, total=5)).machine.own
    assert own.worst(BID) == 5


def test_the_gate_sees_every_other_order_on_the_side() -> None:
    play = with_stray()
    exposure = play.machine.exposure(place(BID, 11, 995))
    assert (exposure.others_on_side, exposure.other_lots) == (1, 3)
    beside = Play().quoting().machine.exposure(place(BID, 11, 995))
    assert (beside.others_on_side, beside.other_lots, beside.own_lots) == (1, 10, 0)
    itself = Play().quoting().machine.exposure(amend(BID, 1, 995))
    assert (itself.others_on_side, itself.other_lots, itself.own_lots) == (0, 0, 10)


def test_nobody_is_gone_while_a_stray_rests() -> None:
    play = with_stray().sees(ev.RemovalRequested(Why.SHUTDOWN, 0)).is_in(State.DRAINING, Why.SHUTDOWN)
    play.after(1.5).is_in(State.DRAINING, Why.SHUTDOWN).sees(closed(STRAY)).is_in(State.GONE, Why.SHUTDOWN)


def test_a_stray_on_a_lost_link_is_unknown_and_asked_for() -> None:
    play = with_stray().sees(ev.TradeLinkDown("", 0))
    assert (play.machine.own.unknown, play.machine.own.worst(BID)) == (1, 3)
    play.sees(ev.TradeLinkUp(True, 0)).does(ask_for(STRAY)).sees(closed(STRAY))
    assert (play.machine.own.unknown, play.machine.own.resting) == (0, 0)


def test_a_stray_that_is_not_reported_any_more_is_asked_for_and_then_gone() -> None:
    play = with_stray().sees(refused(STRAY)).sees(ev.OrdersReported((), 0)).does(ask_for(STRAY))
    assert play.machine.own.unknown == 1
    play.after(2.0).sees(ev.OrderAbsent(STRAY, 0))
    assert play.machine.own.find(STRAY) is None


def test_an_order_that_is_not_reported_is_unknown_not_gone() -> None:
    play = Play(lively()).quoting().sees(ev.OrdersReported((), 0)).slots(U, U).does(ask_for(BID1), ask_for(ASK2))
    assert (play.machine.own.worst(BID), play.machine.own.worst(ASK)) == (10, 10)


def test_a_report_does_not_judge_what_is_under_way() -> None:
    play = Play(lively()).active().sees(ev.OrdersReported((), 0)).slots(P, P)
    play.sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10)).asks(ev.PauseRequested)
    play.sees(ev.OrdersReported((), 0)).slots(C, C)


def test_a_report_older_than_the_end_of_an_order_makes_no_stray() -> None:
    play = Play(lively()).quoting().sees(fill(BID1, "t1", BID, 10)).does(place(BID, 3, 995))
    play.sees(ev.OrdersReported((resting(BID1, BID, 995, 10), resting(ASK2, ASK, 1005, 10)), 0))
    assert not play.machine.own.strays


def test_an_answer_about_an_order_with_nothing_left_makes_no_stray() -> None:
    play = Play().quoting().sees(acked(label(BID, 9), 900, 0, total=5)).does_nothing()
    assert not play.machine.own.strays


# --- links and reports --------------------------------------------------------------------------------


def test_nothing_is_cancelled_on_a_link_that_is_down() -> None:
    """A late answer may make the order LIVE again; the cancel waits for the link."""
    play = Play(lively()).quoting().sees(ev.TradeLinkDown("", 0)).sees(acked(BID1, 995, 10)).slots(L, U).does_nothing()
    play.sees(ev.TradeLinkUp(True, 0)).slots(C, U).does(ask_for(ASK2), cancel(BID, 1))


def test_a_position_that_is_never_told_is_asked_for() -> None:
    play = Play().sees(ev.TradeLinkUp(True, 0), ev.OrdersReported((), 0)).after(9.9).does_nothing()
    play.after(0.2).does(QueryState())


def test_a_position_that_differed_is_asked_for_until_it_is_told() -> None:
    play = Play(lively()).connected().sees(ev.PositionReported(5, Decimal(100), 0)).does(QueryState())
    play.after(9.9).does_nothing().after(0.2).does(QueryState())


def test_two_different_differences_confirm_nothing() -> None:
    """5 off, then 3 off: something is still under way."""
    play = Play(lively()).connected().sees(ev.PositionReported(5, Decimal(100), 0)).does(QueryState())
    play.sees(ev.PositionReported(3, Decimal(100), 0)).is_in(State.PAUSED, Why.STARTUP).does(QueryState())
    assert play.machine.drift == 3
    play.sees(ev.PositionReported(3, Decimal(100), 0)).is_in(State.HALTED, Why.POSITION_DRIFT)


def test_a_drift_found_while_halted_becomes_the_reason() -> None:
    """So that the reset adopts the exchange's number, and everybody is told of it once."""
    play = Play(lively()).connected().asks(ev.HaltRequested, why=Why.OPERATOR)
    for _ in range(2):
        play.sees(ev.PositionReported(5, Decimal(100), 0))
    play.is_in(State.HALTED, Why.POSITION_DRIFT).tripped(Switch.POSITION_DRIFT)
    for _ in range(3):
        play.sees(ev.PositionReported(5, Decimal(100), 0)).tripped()
    play.sees_book(990, 1010).asks(ev.ResetRequested).replied(True, "position 5 is adopted")
    assert (play.machine.position.lots, play.machine.drift) == (5, None)
    play.todo.clear()
    play.asks(ev.ResumeRequested).replied(True)


def test_a_reset_does_not_adopt_what_was_reported_once() -> None:
    play = Play(lively()).connected().asks(ev.HaltRequested, why=Why.OPERATOR)
    play.sees(ev.PositionReported(5, Decimal(100), 0)).does(QueryState()).asks(ev.ResetRequested).does(QueryState())
    assert (play.machine.position.lots, play.machine.drift) == (0, 5)
    play.sees_book(990, 1010).asks(ev.ResumeRequested).replied(False, "no_drift")
    play.sees(ev.PositionReported(0, Decimal(0), 0)).asks(ev.ResumeRequested).replied(True)


def test_nothing_is_quoted_on_a_position_that_is_not_known() -> None:
    play = Play(lively()).quoting()
    play.machine.position.known = False
    play.sees_ticker().withholds(Missing.POSITION_UNKNOWN).does(cancel(BID, 1), cancel(ASK, 2))


@pytest.mark.parametrize("side", [0, 1], ids=["bid", "ask"])
def test_either_side_unknown_past_its_deadline_pauses(side: int) -> None:
    play = Play(lively()).quoting().sees(ev.RequestLost((BID1, ASK2)[side], "test", 0)).after(10.1)
    play.is_in(State.PAUSED, Why.OUTCOME_UNKNOWN).tripped(Switch.OUTCOME_UNKNOWN)


@pytest.mark.parametrize("timeout", [2.0, 3.0, 7.0])
def test_the_deadline_of_an_unknown_order_is_kept_to_the_moment(timeout: float) -> None:
    """Whatever the rhythm is in which it is asked for."""
    play = Play(lively(limits={"ack_timeout_seconds": timeout})).quoting()
    play.sees(ev.RequestLost(BID1, "test", 0)).after(9.9).is_in(State.ACTIVE, Why.RESUMED)
    play.after(0.2).is_in(State.PAUSED, Why.OUTCOME_UNKNOWN)


# --- one decision at the end of a batch ---------------------------------------------------------------


def test_an_expected_answer_does_not_hide_what_came_before_it() -> None:
    play = Play(lively()).active().does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(BID1, 995, 10))
    moved = ev.BookTop(((980, 100),), ((1000, 100),), 1, 1, play.now_ns)
    play.sees(moved, acked(ASK2, 1005, 10)).does(amend(BID, 1, 985))


def test_an_answer_with_another_size_than_is_wanted_now_is_acted_on() -> None:
    play = Play(lively()).active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    smaller = changed(play.machine.settings, profile=profile(size=Decimal(4)))
    play.sees(ev.SettingsChanged(smaller, 0)).does_nothing()
    play.sees(acked(BID1, 995, 10)).does(amend(BID, 1, 995, 4))


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        pytest.param(
            [ev.InstrumentStateChanged("locked", False, False, 0), ev.InstrumentStateChanged("open", True, False, 0)],
            Why.MARKET_HALTED,
            id="halted and open again",
        ),
    ],
)
def test_a_halt_of_the_market_that_ends_within_the_batch_pauses_all_the_same(trouble: list[Any], why: Why) -> None:
    Play().quoting().sees(*trouble).is_in(State.PAUSED, why).does(cancel(BID, 1), cancel(ASK, 2))


def test_a_mark_that_moves_moves_the_quotes_that_are_built_on_it() -> None:
    play = Play(lively(fair=Fair.MARK)).connected().sees_book(990, 1010).sees_ticker(100.0)
    play.asks(ev.ResumeRequested).does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10)).sees_ticker(99.0).does(amend(BID, 1, 985))


@pytest.mark.parametrize(
    "blind", [ev.BookBroken(Why.BOOK_GAP, "", 0), ev.DataLinkDown("", 0)], ids=["broken", "link down"]
)
def test_a_book_that_is_lost_is_worth_nothing(blind: ev.Mail) -> None:
    """Nothing is priced on it: neither a quote nor the position."""
    play = Play(lively(style=Style.JOIN)).connected(position=5).sees_book(990, 1010)
    assert play.machine.mark_price == 100.0
    play.sees(blind)
    assert (play.machine.fair, play.machine.mark_price) == (Missing.NO_BOOK, 0.0)
    assert play.machine.market.book is None
    play.sees(ev.DataLinkUp(0)).asks(ev.ResumeRequested).replied(False, "market_data")


# --- the ledger's identity ----------------------------------------------------------------------------


def crooked() -> Play:
    play = Play(lively()).quoting(position=5).sees_ticker(100.0)
    play.machine.position.ledger.holdings.cash += 1
    return play.is_in(State.ACTIVE, Why.RESUMED)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(lambda p: p.sees(fill(BID1, "t1", BID, 1)), id="fill"),
        pytest.param(lambda p: p.after(1.0).sees_ticker(100.0), id="mark"),
        pytest.param(lambda p: p.sees(ev.CashMoved("f1", CashKind.FUNDING, Decimal(1), "USDC", 0, 1, 1)), id="funding"),
    ],
)
def test_a_ledger_that_does_not_add_up_halts_with_the_next_event(event: Callable[[Play], Play]) -> None:
    event(crooked()).is_in(State.HALTED, Why.LEDGER).tripped(Switch.LEDGER)


def test_funding_that_is_told_twice_is_noted_once() -> None:
    paid = ev.CashMoved("f1", CashKind.FUNDING, Decimal("-0.5"), "USDC", 0, 1, 1)
    Play().quoting().sees(paid, paid).sees(paid).notes_("cash.funding")
