"""Closing a position by hand: when it is refused, what each order may be, and what ends it."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, acked, changed, closed, fill, label, resting, settings
from core_playbook import Play

from mmd.domain import events as ev
from mmd.domain.actions import QueryOrder, ReduceOrder
from mmd.domain.reasons import Mode, Rule, Side, State, Switch, Why

LIVELY = {"stale_seconds": 1e6}


def halted(position: int = 25, data: dict[str, Any] | None = None, **limits: Any) -> Play:
    given = settings(limits={"max_order_size": Decimal(10), **limits}, data=data or LIVELY)
    play = Play(given).connected(position=position).sees_book(990, 1010).sees_ticker()
    return play.asks(ev.HaltRequested, why=Why.OPERATOR)


def flatten(play: Play, lots: int, limit: int = 985) -> Play:
    play.requests += 1
    return play.sees(ev.FlattenRequested(play.requests, "root", "test", lots, limit, play.now_ns))


def sent(play: Play) -> Any:
    """The one thing that it did: the next closing order."""
    (order,) = play.todo
    assert isinstance(order, ReduceOrder)
    play.todo = []
    return order


def filled(play: Play, order: ReduceOrder, trade: str, lots: int | None = None) -> Play:
    """The exchange's whole answer: what traded, and that the rest of it is gone."""
    lots = order.size_lots if lots is None else lots
    trades = [fill(order.label, trade, order.side, lots)] if lots else []
    return play.sees(*trades, closed(order.label, lots, "filled" if lots == order.size_lots else "cancelled"))


def is_over(play: Play, left: int) -> None:
    assert (play.machine.position.lots, play.machine.closing) == (left, None)
    play.does_nothing()


# --- what is refused ----------------------------------------------------------------------------------


def draining() -> Play:
    play = Play().connected(position=5).sees(ev.InstrumentStateChanged("settlement", False, True, 0))
    return play.is_in(State.DRAINING, Why.EXPIRED)


def not_reconciled() -> Play:
    return halted().sees(ev.TradeLinkDown("", 0), ev.TradeLinkUp(True, 0))


def a_fill_before_the_first_report() -> Play:
    play = Play().sees(ev.DataLinkUp(0), ev.TradeLinkUp(True, 0), ev.OrdersReported((), 0))
    return play.sees_book(990, 1010).sees(fill("", "t1", BID, 5))


def cancels_on_their_way() -> Play:
    return Play().quoting(position=5).asks(ev.HaltRequested, why=Why.OPERATOR)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        pytest.param(draining, "is DRAINING", id="it leaves"),
        pytest.param(not_reconciled, "orders are not known yet", id="orders not known since the link came back"),
        pytest.param(a_fill_before_the_first_report, "not known for sure", id="the exchange never told the position"),
        pytest.param(cancels_on_their_way, "2 orders of ours may still rest", id="quotes still rest"),
        pytest.param(lambda: halted(0), "there is no position", id="flat"),
    ],
)
def test_it_is_refused(scene: Callable[[], Play], words: str) -> None:
    play = scene()
    play.todo.clear()
    assert words in play.machine.cannot_close()
    flatten(play, 5).replied(False, words).does_nothing()
    assert play.machine.closing is None


# --- what is sent -------------------------------------------------------------------------------------


def test_no_order_is_worth_more_than_allowed() -> None:
    """A lot is worth 100 USD here: five of them are 500."""
    play = flatten(halted(8, max_order_value_usd=Decimal(500)), 8)
    assert sent(play).size_lots == 5


def test_a_lot_that_is_worth_more_than_allowed_ends_it() -> None:
    play = flatten(halted(8, max_order_value_usd=Decimal(50)), 8).replied(True)
    is_over(play, 8)
    assert play.notes[-1] == "flatten.done"


def test_what_was_asked_for_is_closed_and_no_more() -> None:
    play = flatten(halted(25), 20)
    for n in (1, 2):
        filled(play, sent(play), f"t{n}")
    is_over(play, 5)


def test_less_than_an_order_is_closed_with_one() -> None:
    play = flatten(halted(25), 7)
    order = sent(play)
    assert order.size_lots == 7
    is_over(filled(play, order, "t1"), 18)


@pytest.mark.parametrize(("position", "side", "limit"), [(25, ASK, 985), (-25, BID, 1015)], ids=["long", "short"])
def test_a_position_that_shrinks_meanwhile_is_never_flipped(position: int, side: Side, limit: int) -> None:
    """Somebody else on the account closes 12 of 25 while our first order of 10 is out."""
    play = flatten(halted(position), 25, limit)
    order = sent(play)
    play.sees(fill("", "theirs", side, 12))
    filled(play, order, "t1")
    order = sent(play)
    assert (order.side, order.size_lots, order.price_ticks) == (side, 3, limit)
    filled(play, order, "t2")
    is_over(play, 0)


def test_nothing_is_left_to_close_when_others_closed_it() -> None:
    play = flatten(halted(25), 25)
    order = sent(play)
    play.sees(fill("", "theirs", ASK, 15))
    is_over(filled(play, order, "t1"), 0)


def test_an_answer_that_is_lost_is_asked_for_before_anything_else() -> None:
    play = flatten(halted(25), 25)
    order = sent(play)
    play.after(2.0).does(QueryOrder(order.label, "")).asks(ev.ResetRequested).does_nothing()
    play.sees(fill(order.label, "t1", ASK, 4), ev.OrderAbsent(order.label, play.now_ns)).after(2.0)
    play.todo.clear()
    play.sees(ev.OrderAbsent(order.label, play.now_ns))
    is_over(play, 21)


# --- what ends it -------------------------------------------------------------------------------------


def pause(play: Play) -> Play:
    return play.asks(ev.PauseRequested)


def halt(play: Play) -> Play:
    return play.asks(ev.HaltRequested, why=Why.OPERATOR)


def remove(play: Play) -> Play:
    return play.sees(ev.RemovalRequested(Why.REMOVED, 0))


@pytest.mark.parametrize("stop", [pause, halt, remove])
def test_an_operator_ends_it_after_the_order_that_is_out(stop: Callable[[Play], Play]) -> None:
    play = flatten(halted(25).asks(ev.ResetRequested), 25)
    order = sent(play)
    stop(play)
    assert play.machine.closing is None and play.notes[-1] == "flatten.done"
    is_over(filled(play, order, "t1"), 15)


def test_fills_of_closing_do_not_trip_the_repeated_fills() -> None:
    """An operator takes and knows it; what fills after that is counted again."""
    play = flatten(halted(25, max_fills=2, max_filled=Decimal(12)).asks(ev.ResetRequested), 25)
    for n in range(3):
        filled(play, sent(play), f"t{n}")
    is_over(play, 0)
    play.is_in(State.PAUSED, Why.RESET).sees(fill("", "t9", BID, 12)).is_in(State.PAUSED, Why.RESET)
    play.sees(fill("", "t10", ASK, 1)).is_in(State.HALTED, Why.REPEATED_FILLS)


def test_no_automatic_return_while_a_position_is_closed() -> None:
    """Else it would quote beside its own closing, and no fill would be counted any more."""
    play = Play(
        settings(limits={"max_order_size": Decimal(10)}, data={"auto_resume": True, "auto_resume_seconds": 5.0})
    )
    play.connected(position=25).sees_book(1010, 1000).sees_book(990, 1010).asks(ev.ResumeRequested)
    orders, play.todo = play.todo, []
    play.sees_book(1010, 1000).sees(*(closed(order.label) for order in orders)).sees_book(990, 1010)
    play.after(4.5).sees_ticker().is_in(State.PAUSED, Why.CROSSED_BOOK)
    order = sent(flatten(play, 25).replied(True))
    play.after(1.0).sees_ticker().is_in(State.PAUSED, Why.CROSSED_BOOK)
    is_over(filled(play, order, "t1", 4), 21)
    play.after(4.5).sees_ticker().is_in(State.PAUSED, Why.CROSSED_BOOK)  # the time counts from the closing's end
    play.after(1.0).sees_ticker().is_in(State.ACTIVE, Why.AUTO_RESUMED)


def test_a_gates_no_is_told_to_who_asked() -> None:
    play = flatten(halted(25), 25)
    order = sent(play)
    refusal = ev.GateRefused(order.label, ASK, Rule.COLLAR, "1", "2", "collar_bps", play.now_ns)
    play.sees(refusal)
    assert play.machine.refusal is refusal
    is_over(play, 25)


def test_a_shadow_symbol_and_one_with_a_stray_are_not_closed() -> None:
    shadow = Play(settings(mode=Mode.SHADOW)).connected(position=5).sees_book(990, 1010)
    flatten(shadow, 5).replied(False, "shadow")
    stray = halted().sees(ev.OrdersReported((resting("mmd-test-PLAIN-b-old-1", BID, 900, 3),), 0))
    flatten(stray, 5).replied(False, "1 orders of ours may still rest")
    assert Switch.FOREIGN_ORDERS not in {trip.switch for trip in shadow.trips}


def test_a_late_answer_does_not_make_it_rest() -> None:
    """An immediate order that is acknowledged is pulled like any other: it must not rest."""
    play = flatten(halted(25), 25)
    order = sent(play)
    play.sees(acked(order.label, 985, 10))
    assert [type(action).__name__ for action in play.todo] == ["CancelOrder"]
    assert changed(play.machine.closing, label="").left_lots == 25
    assert order.label == label(ASK, 1)
