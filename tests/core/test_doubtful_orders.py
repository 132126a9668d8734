"""Orders that are larger than ours, over without their fills, or two with one label; and what may be taken over."""

from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, NS, START_NS, acked, changed, closed, fill, label, refused, resting, settings
from core_playbook import Play, amend, cancel, place

from mmd.core.machine import SymbolMachine
from mmd.core.orders import Empty, Live, Unknown
from mmd.core.own import OwnOrders, twin_key
from mmd.domain import events as ev
from mmd.domain.actions import CaseClosed, QueryOrder, QueryState
from mmd.domain.reasons import CaseKind, Phase, Side, State, Switch, Why
from mmd.replay.memory import load, salvage, save

D = Decimal
BID1, ASK2, BID9 = label(BID, 1), label(ASK, 2), label(BID, 9)
ASK_RESTS = resting(ASK2, ASK, 1005, 10)


def lively(**more: Any) -> Play:
    """No silence of the market matters."""
    return Play(settings(data={"stale_seconds": 1e6}, **more))


def listed(*orders: ev.OpenOrder) -> ev.OrdersReported:
    return ev.OrdersReported(orders, 1)


def position(
    lots: int, average: str = "0", mark: float = 0.0, profit: str | None = None, at_ns: int = 1
) -> ev.PositionReported:
    return ev.PositionReported(lots, D(average), at_ns, mark, None if profit is None else D(profit), at_ns)


def accept(play: Play, kind: CaseKind, subject: str = "") -> Play:
    return play.asks(ev.CaseAccepted, case=kind, subject=subject)


# --- larger than ours ----------------------------------------------------------------------------

BID_OF_60 = resting(BID1, BID, 995, 60)
BID_50_OF_60 = resting(BID1, BID, 995, 50, total=60)


def test_a_larger_order_than_ours_is_charged_at_the_first_look() -> None:
    play = lively().quoting().sees(listed(BID_OF_60, ASK_RESTS))
    play.slots(Phase.UNKNOWN, Phase.LIVE).does(QueryState(), QueryOrder(BID1, f"id-{BID1}"))
    assert play.machine.own.worst(BID) == 60
    play.sees(ev.BoundsSet(2, -100, 59, 0)).does_nothing()  # not acknowledged: sixty may fill
    play.sees(acked(BID1, 995, 60)).does(amend(BID, 1, 995))


def test_a_larger_order_than_ours_whose_change_has_no_answer_is_charged_at_the_first_look() -> None:
    """After a power cut the journal may not know of the last change, by another number or price than the list's."""
    play = lively().quoting().sees_book(980, 1000)
    assert amend(BID, 1, 985) in play.todo
    play.sees(ev.RequestLost(BID1, "lost", play.now_ns), listed(BID_50_OF_60, ASK_RESTS))
    assert play.slot(BID).phase is Phase.UNKNOWN and play.machine.own.worst(BID) == 60


def test_its_fills_leave_the_rest_charged() -> None:
    play = lively().quoting().sees(listed(BID_OF_60, ASK_RESTS), fill(BID1, "t1", BID, 10, "99.5"))
    assert play.machine.own.worst(BID) == 50 and not play.machine.own.finished(BID1)


def test_a_smaller_order_than_ours_is_only_a_doubt() -> None:
    play = lively().quoting().sees(listed(resting(BID1, BID, 995, 4), ASK_RESTS))
    play.slots(Phase.LIVE, Phase.LIVE).does(QueryState())
    assert play.machine.own.worst(BID) == 10


def filled_by_our_count() -> Play:
    """All ten lots of the bid have filled; nobody has told its end."""
    play = lively().quoting().sees(fill(BID1, "t1", BID, 10, "99.5")).does(place(BID, 3, 995))
    return play.sees(acked(label(BID, 3), 995, 10)).does_nothing()


@pytest.mark.parametrize(
    "word", [listed(BID_50_OF_60, ASK_RESTS), acked(BID1, 995, 50, total=60)], ids=["report", "answer"]
)
def test_an_order_that_had_filled_by_our_count_and_still_rests_is_a_stray(word: Any) -> None:
    play = filled_by_our_count().sees(word)
    assert cancel(BID, 1) in play.todo and play.machine.own.find(BID1) is not None
    assert play.machine.own.stray_lots(BID) == 50


def test_what_we_counted_of_it_counts_where_a_report_is_behind() -> None:
    play = filled_by_our_count().sees(listed(BID_OF_60, ASK_RESTS))
    assert play.machine.own.stray_lots(BID) == 50
    play.sees(closed(BID1, 10))
    assert not play.machine.own.strays


@pytest.mark.parametrize(
    "word", [listed(resting(BID1, BID, 995, 10), ASK_RESTS), acked(BID1, 995, 10)], ids=["report", "answer"]
)
def test_word_that_is_older_than_the_last_fill_makes_no_stray(word: Any) -> None:
    assert not filled_by_our_count().sees(word).machine.own.strays


@pytest.mark.parametrize("first", ["fill", "end"])
def test_what_the_exchange_says_is_over_is_over(first: str) -> None:
    told = [fill(BID1, "t1", BID, 10, "99.5"), closed(BID1, 10, "filled")]
    play = lively().quoting().sees(*(told if first == "fill" else reversed(told)))
    play.sees(listed(BID_50_OF_60, ASK_RESTS), acked(BID1, 995, 50, total=60))
    assert not play.machine.own.strays


# --- over, and fills are missing -----------------------------------------------------------------


def owing() -> Play:
    """The bid has ended with ten lots filled; we know of three."""
    play = lively().quoting().sees(fill(BID1, "t1", BID, 3, "99.5"), closed(BID1, 10, "filled"))
    play.todo.clear()
    return play


def test_a_list_without_it_does_not_end_an_order_that_owes_fills() -> None:
    play = owing().after(2.1)
    for _ in range(3):
        play.sees(listed(ASK_RESTS))
    slot = play.slot(BID)
    assert isinstance(slot, Unknown) and slot.ended and play.machine.own.worst(BID) == 7
    play.sees(fill(BID1, "t2", BID, 7, "99.5"))
    assert play.machine.own.finished(BID1) and play.machine.position.lots == 10


def test_an_answer_that_it_has_no_other_fills_ends_it() -> None:
    play = owing().after(2.1).sees(ev.OrderAbsent(BID1, 0))
    assert play.machine.own.find(BID1) is None


def test_its_case_is_not_closed_while_it_owes_fills() -> None:
    differs = listed(resting(BID1, BID, 995, 6, total=10), ASK_RESTS)
    play = lively().quoting().sees(differs).sees(differs).sees(closed(BID1, 4), closed(ASK2))
    play.after(2.1).sees(listed()).sees(listed())
    assert (CaseKind.QUANTITIES, BID1) in play.machine.cases
    play.sees(fill(BID1, "t1", BID, 4, "99.5"), listed())
    assert isinstance(play.cases[-1], CaseClosed)


def test_fills_that_nobody_tells_become_a_case_that_can_be_accepted() -> None:
    play = owing().after(9.9).sees(listed(ASK_RESTS)).sees(listed(ASK_RESTS))
    assert not play.cases
    play.after(0.2).sees(listed(ASK_RESTS)).sees(listed(ASK_RESTS))
    assert [(case.case, case.subject) for case in play.cases] == [(CaseKind.QUANTITIES, BID1)]
    accept(play, CaseKind.QUANTITIES, BID1).replied(True, "stands")
    assert isinstance(play.slot(BID), Empty)


# --- average and profit --------------------------------------------------------------------------


def test_a_profit_that_differs_is_a_case_whatever_the_mark_is_now() -> None:
    play = lively().connected(position=10)
    play.sees(position(10, "100", 100.0, "50")).does(QueryState())
    play.sees(position(10, "100", 100.1, "51")).does_nothing()
    assert [case.case for case in play.cases] == [CaseKind.AVERAGE]


def test_an_average_and_then_a_profit_is_asked_for_once() -> None:
    play = lively().connected(position=10)
    for _ in range(5):
        play.sees(position(10, "90"), position(10, "100", 100.0, "50"))
    assert play.todo == [QueryState()] and not play.cases
    play.sees(position(10, "100", 101.0, "60"))
    assert [case.case for case in play.cases] == [CaseKind.AVERAGE]


# --- what is taken over --------------------------------------------------------------------------

LATER = "asked for now, try again in a moment"


def asked_again(play: Play, kind: CaseKind) -> Play:
    """It is not accepted, and the exchange is asked."""
    before, average = play.machine.position.lots, play.machine.position.average
    play.todo.clear()
    accept(play, kind).replied(False, LATER)
    assert (play.machine.position.lots, play.machine.position.average) == (before, average)
    return play.does(QueryState())


def test_a_position_that_is_older_than_a_fill_is_not_accepted() -> None:
    play = lively().connected().sees(position(10, "100")).sees(position(10, "100"))
    play.sees(fill("", "late", BID, 10, "100"))
    asked_again(play, CaseKind.POSITION).sees(position(10, "100"))
    assert isinstance(play.cases[-1], CaseClosed) and play.machine.position.lots == 10


def heir_of(old: Play) -> Play:
    new = lively()
    new.machine.epoch = "ep2"
    new.machine.inherit(old.machine, new.now_ns)
    return new.sees(ev.TradeLinkUp(True, 1), listed())


def test_an_inherited_difference_that_was_seen_once_is_not_accepted() -> None:
    new = heir_of(lively().connected().sees(position(10, "100")).sees(position(10, "100")))
    asked_again(new, CaseKind.POSITION).sees(position(7, "100"))
    asked_again(new, CaseKind.POSITION).sees(position(7, "100"))
    accept(new, CaseKind.POSITION).replied(True, "position 7 is adopted")


def test_an_average_that_is_older_than_a_fill_is_not_accepted() -> None:
    play = lively().connected(position=10).sees(position(10, "90")).sees(position(10, "90"))
    play.sees(fill("", "t1", ASK, 20, "200"))
    asked_again(play, CaseKind.AVERAGE).sees(position(-10, "210"))
    accept(play, CaseKind.AVERAGE).replied(True, "average 210")
    assert play.machine.position.average == 210


def test_an_average_that_was_not_told_yet_is_not_accepted() -> None:
    new = heir_of(lively().connected(position=10).sees(position(10, "90")).sees(position(10, "90")))
    asked_again(new, CaseKind.AVERAGE)
    assert (CaseKind.AVERAGE, "") in new.machine.cases


def test_an_average_of_another_position_is_not_accepted() -> None:
    play = lively().connected(position=10).sees(position(10, "90")).sees(position(10, "90")).sees(position(12, "91"))
    asked_again(play, CaseKind.AVERAGE)


# --- traded before the position was taken over ---------------------------------------------------

ADOPTED_NS = START_NS + 6 * NS + 500_000


def adopted() -> Play:
    play = lively().connected()
    play.sees(position(10, "100", at_ns=ADOPTED_NS - NS)).sees(position(10, "100", at_ns=ADOPTED_NS))
    return play.asks(ev.ResetRequested).replied(True, "position 10 is adopted")


def late(name: str, at_ns: int) -> Any:
    return changed(fill("", name, BID, 10, "100", fee="1"), exchange_ns=at_ns)


def test_a_trade_from_before_the_adoption_is_noted_and_not_counted() -> None:
    play = adopted()
    play.notes.clear()
    play.sees(late("t1", START_NS)).notes_("order.filled_elsewhere").sees(late("t1", START_NS)).notes_()
    assert (play.machine.position.lots, play.machine.position.fees) == (10, D(0)) and play.machine.position.balanced


@pytest.mark.parametrize(
    "at_ns", [0, ADOPTED_NS // 1_000_000 * 1_000_000, ADOPTED_NS + NS], ids=["unknown", "same millisecond", "later"]
)
def test_any_other_trade_is_counted(at_ns: int) -> None:
    assert adopted().sees(late("t1", at_ns)).machine.position.lots == 20


def test_its_order_is_told_of_it() -> None:
    """Once: told again it would take from what the order may still fill."""
    play = lively().quoting().sees(position(4, "99", at_ns=ADOPTED_NS)).sees(position(4, "99", at_ns=ADOPTED_NS))
    play.asks(ev.ResetRequested)
    old = changed(fill(BID1, "t1", BID, 4, "99"), exchange_ns=START_NS)
    play.sees(old).sees(old)
    assert (play.machine.position.lots, play.machine.own.worst(BID)) == (4, 6)


# --- two orders with one label -------------------------------------------------------------------

A, B = ev.OpenOrder(BID9, "A", BID, 900, 5, 5), ev.OpenOrder(BID9, "B", BID, 901, 50, 50)


def doubled() -> Play:
    """Two orders of one label rest, and both are being cancelled."""
    play = lively().connected().sees(listed(A, B))
    play.is_in(State.HALTED, Why.FOREIGN_ORDERS).tripped(Switch.FOREIGN_ORDERS)
    assert [(order.label, order.order_id) for order in play.todo] == [(BID9, "A"), (BID9, "B")]
    assert play.machine.own.worst(BID) == 55
    play.todo.clear()
    return play


@pytest.mark.parametrize(("order", "left"), [(A, 50), (B, 5)], ids=["first", "second"])
def test_the_end_of_one_is_not_the_end_of_the_other(order: ev.OpenOrder, left: int) -> None:
    play = doubled().sees(ev.OrderClosed(BID9, order.order_id, "user_request", 0, 1))
    assert (play.machine.own.worst(BID), play.machine.own.resting) == (left, 1)
    other = B if order is A else A
    assert list(play.machine.own.strays) == [BID9]  # whoever cancels by label reaches the one that is left
    play.sees(ev.OrderClosed(BID9, order.order_id, "user_request", 0, 1), listed(order, other))
    assert play.machine.own.worst(BID) == left  # the list was older
    play.sees(ev.OrderClosed(BID9, other.order_id, "user_request", 0, 1), listed())
    assert not play.machine.own.strays


def test_a_fill_is_of_the_order_whose_id_it_has() -> None:
    play = doubled().sees(changed(fill(BID9, "t1", BID, 5, "90"), order_id="B"))
    assert play.machine.own.worst(BID) == 50
    twin = play.machine.own.strays[twin_key(BID9, "B")].slot
    assert not isinstance(twin, Empty) and (twin.total_lots, twin.filled_lots) == (50, 5)


def test_a_refusal_may_be_of_either() -> None:
    play = doubled().sees(refused(BID9, gone=True))
    assert play.machine.own.unknown == 2 and play.machine.own.worst(BID) == 55


@pytest.mark.parametrize("ours", [0, 1], ids=["first", "second"])
def test_a_second_order_with_the_label_of_a_quote(ours: int) -> None:
    rows = [resting(BID1, BID, 995, 10), ev.OpenOrder(BID1, "other", BID, 996, 50, 50)]
    play = lively().quoting().sees(listed(*(rows if ours == 0 else reversed(rows)), ASK_RESTS))
    play.is_in(State.HALTED, Why.FOREIGN_ORDERS)
    pulled = {(order.label, order.order_id) for order in play.todo if isinstance(order, type(cancel(BID, 1)))}
    assert pulled == {(BID1, f"id-{BID1}"), (BID1, "other"), (ASK2, f"id-{ASK2}")}
    assert play.machine.own.worst(BID) == 60


def test_an_answer_of_another_order_is_not_of_ours() -> None:
    play = lively().quoting().sees(acked(BID1, 996, 50, order_id="other")).is_in(State.HALTED, Why.FOREIGN_ORDERS)
    assert play.machine.own.worst(BID) == 60
    play.sees(ev.OrderClosed(BID1, "other", "user_request", 0, 1))
    assert play.machine.own.worst(BID) == 10


def test_a_row_that_is_listed_twice_is_one_order() -> None:
    play = lively().quoting().sees(listed(resting(BID1, BID, 995, 10), resting(BID1, BID, 995, 10), ASK_RESTS))
    play.does_nothing().is_in(State.ACTIVE, Why.RESUMED)


@pytest.mark.parametrize("how", ["load", "salvage"])
def test_both_outlive_the_process(how: str) -> None:
    state = save(doubled().sees(fill("", "t1", BID, 1)).machine)
    found = load(state) if how == "load" else salvage(state)[0]
    assert isinstance(found, SymbolMachine)
    assert set(found.own.strays) == {BID9, twin_key(BID9, "B")} and found.own.worst(BID) == 55
    new = lively()
    new.machine.epoch = "ep2"
    new.machine.inherit(found, new.now_ns)
    new.sees(ev.TradeLinkUp(True, 1), listed(A, B))
    assert {(order.label, order.order_id) for order in new.todo if isinstance(order, type(cancel(BID, 1)))} == {
        (BID9, "A"),
        (BID9, "B"),
    }


def test_what_was_counted_of_a_finished_order_outlives_the_process() -> None:
    old = filled_by_our_count().machine
    for found in (load(save(old)), salvage(save(old))[0]):
        assert isinstance(found, SymbolMachine) and found.own._finished == {BID1: 10}


def test_a_live_order_stays_live_where_the_list_agrees() -> None:
    play = lively().quoting().sees(listed(resting(BID1, BID, 995, 10), ASK_RESTS)).does_nothing()
    assert isinstance(play.slot(BID), Live)


# --- answers that were long under way -----------------------------------------------------------------


def unknown_bid() -> OwnOrders:
    """Ten of thirty lots have filled, told at 5000 by the exchange's clock; then a request on it is lost."""
    own = OwnOrders(latency_ns=2 * NS)
    own.put(own.bid, Live(BID1, "7", 990, 30, 10, START_NS), START_NS)
    own.bid.trail = ((5000, 990, 20),)
    assert own.take(ev.RequestLost(BID1, "lost", START_NS), BID1, START_NS) is None
    return own


def told_at(exchange_ns: int, price_ticks: int, total_lots: int) -> ev.OrderAcked:
    return ev.OrderAcked(BID1, "7", price_ticks, 20, total_lots, START_NS, exchange_ns)


def test_an_answer_older_than_what_is_known_is_no_word_of_an_unknown_order() -> None:
    """The answer to its place, five seconds late: it was smaller then."""
    own = unknown_bid()
    assert own.take(told_at(4000, 985, 20), BID1, START_NS + NS // 10) is None
    assert isinstance(own.bid.slot, Unknown) and own.worst(Side.BID) == 20
    assert own.take(told_at(5000, 990, 30), BID1, START_NS + NS // 5) is None
    assert isinstance(own.bid.slot, Live) and own.worst(Side.BID) == 20


def test_an_exchange_whose_clock_was_set_back_is_believed_when_it_says_it_again() -> None:
    own = unknown_bid()
    for after_ns in (NS // 10, NS):
        own.take(told_at(4000, 985, 30), BID1, START_NS + after_ns)
        assert isinstance(own.bid.slot, Unknown)
    own.take(told_at(4000, 985, 30), BID1, START_NS + 2 * NS)
    assert isinstance(own.bid.slot, Live) and own.bid.slot.price_ticks == 985
