"""Orders that stay in the house: answered as an exchange would, filled by the queue model, counted by number."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell_kit import START_NS, instrument

from mmd.core.orders import EMPTY, Amending, Cancelling, IllegalTransition, Live, Placing, Slot, advance, worst_lots
from mmd.core.shadow import NO_FILLS, REMEMBERED, ShadowBook
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.events import Bound, OrderAbsent, OrderAcked, OrderClosed, OrderRefused, ShadowFilled
from mmd.domain.reasons import Fault, Side, Why

LABEL = "mmd-kit-BTC-PERPETUAL-b-ep-1"
ORDER_ID = f"shadow-{LABEL.removeprefix('mmd-')}"
PLACE = PlaceOrder(LABEL, Side.BID, 100, 7)
MS = 1_000_000


def amend(price: int, total: int, label: str = LABEL) -> AmendOrder:
    return AmendOrder(label, ORDER_ID, Side.BID, price, total, total)


def cancel(label: str = LABEL) -> CancelOrder:
    return CancelOrder(label, ORDER_ID, Side.BID)


def top(bid: int, ask: int, lots: int = 5) -> ev.BookTop:
    return ev.BookTop(((bid, lots),), ((ask, lots),), 0, 0, 0)


def sold(price: int, lots: int) -> ev.TradePrinted:
    return ev.TradePrinted(price, lots, Side.ASK, 0, 0)


def shadow(latency_ns: int = 0) -> ShadowBook:
    return ShadowBook(instrument(), latency_ns)


def filled(bound: Bound, lots: int, number: int, now_ns: int, price: str = "50.0") -> ShadowFilled:
    return ShadowFilled(LABEL, bound, Side.BID, Decimal(price), lots, number, now_ns)


# --- answers -------------------------------------------------------------------------------------


def test_an_orders_life() -> None:
    book = shadow()
    assert book.look_up(LABEL, 1) == OrderAbsent(LABEL, 1)
    assert book.send(PLACE, 2) == OrderAcked(LABEL, ORDER_ID, 100, 7, 7, 2)
    assert (len(book), book.look_up(LABEL, 3)) == (1, OrderAcked(LABEL, ORDER_ID, 100, 7, 7, 3))
    amended = book.send(amend(101, 9), 4)
    assert amended == OrderAcked(LABEL, ORDER_ID, 101, 9, 9, 4)
    assert book.look_up(LABEL, 4) == amended
    assert book.send(cancel(), 6) == OrderClosed(LABEL, ORDER_ID, "cancelled", 0, 6)
    assert (len(book), book.look_up(LABEL, 7)) == (0, OrderAbsent(LABEL, 7))


def test_what_is_not_there_can_be_cancelled_but_not_amended() -> None:
    book = shadow()
    assert book.send(amend(101, 9), 1) == OrderAbsent(LABEL, 1)
    assert book.send(cancel(), 2) == OrderClosed(LABEL, ORDER_ID, "cancelled", 0, 2)
    assert len(book) == 0


def test_a_lost_link_takes_them_all() -> None:
    book = shadow()
    other = "mmd-kit-BTC-PERPETUAL-b-ep-2"
    book.send(PLACE, 1)
    book.on_market(sold(99, 3), 2)
    book.send(PlaceOrder(other, Side.BID, 100, 7), 3)
    book.drop()
    assert len(book) == 0
    assert book.look_up(other, 4) == OrderAbsent(other, 4)
    assert book.look_up(LABEL, 4) == OrderClosed(LABEL, ORDER_ID, "filled", 3, 4)  # what filled stays filled


def test_after_a_drop_no_old_book_is_leant_on() -> None:
    book = shadow()
    book.on_market(top(99, 101), 1)
    book.drop()
    assert isinstance(book.send(PlaceOrder(LABEL, Side.BID, 105, 7), 2), OrderAcked)


def test_what_would_take_is_refused_as_post_only() -> None:
    book = shadow()
    book.on_market(top(99, 101), 1)
    refused = book.send(PlaceOrder(LABEL, Side.BID, 101, 7), 2)
    assert isinstance(refused, OrderRefused)
    assert (refused.fault, refused.code, refused.gone, len(book)) == (Fault.ORDER, "post_only_reject", False, 0)
    assert isinstance(book.send(PLACE, 3), OrderAcked)
    assert book.send(amend(102, 7), 4) == OrderClosed(LABEL, ORDER_ID, "edit_post_only_reject", 0, 4)
    assert len(book) == 0
    ask = PlaceOrder("mmd-kit-BTC-PERPETUAL-a-ep-2", Side.ASK, 99, 7)
    assert isinstance(book.send(ask, 5), OrderRefused)


def test_nothing_is_taken_in_shadow() -> None:
    book = shadow()
    reduce = ReduceOrder(LABEL, Side.ASK, 90, 5)
    assert book.send(reduce, 1) == OrderClosed(LABEL, ORDER_ID, "shadow", 0, 1)
    assert len(book) == 0


# --- fills ---------------------------------------------------------------------------------------


def test_fills_are_told_with_price_bound_and_number() -> None:
    book = shadow()
    book.on_market(top(100, 103), 1)
    book.send(PLACE, 2)
    assert book.on_market(sold(100, 8), 3) == (
        filled(Bound.OPTIMISTIC, 3, 1, 3),
        filled(Bound.PESSIMISTIC, 3, 2, 3),
    )
    assert book.on_market(sold(99, 1), 4) == (
        filled(Bound.OPTIMISTIC, 4, 3, 4),
        filled(Bound.PESSIMISTIC, 1, 4, 4),
    )
    assert (book.number, len(book)) == (4, 1)
    assert book.look_up(LABEL, 5) == OrderAcked(LABEL, ORDER_ID, 100, 3, 7, 5)


def test_an_answer_after_a_part_was_filled_says_what_remains() -> None:
    book = shadow()
    book.send(PLACE, 1)
    book.on_market(sold(99, 4), 2)
    assert book.send(amend(98, 10), 3) == OrderAcked(LABEL, ORDER_ID, 98, 6, 10, 3)
    assert book.send(amend(98, 4), 4) == OrderClosed(LABEL, ORDER_ID, "filled", 4, 4)
    assert len(book) == 0


def test_a_full_order_is_gone_and_late_requests_hear_of_its_fills() -> None:
    book = shadow()
    book.send(PLACE, 1)
    fills = book.on_market(sold(99, 70), 2)
    assert [fill.size_lots for fill in fills] == [7, 7]
    assert len(book) == 0
    assert book.send(amend(98, 10), 3) == OrderClosed(LABEL, ORDER_ID, "filled", 7, 3)
    assert book.look_up(LABEL, 4) == OrderClosed(LABEL, ORDER_ID, "filled", 7, 4)
    assert book.send(cancel(), 5) == OrderClosed(LABEL, ORDER_ID, "cancelled", 7, 5)
    assert book.on_market(sold(99, 70), 6) is NO_FILLS


def test_a_cancelled_order_says_what_had_filled() -> None:
    book = shadow()
    book.send(PLACE, 1)
    book.on_market(sold(99, 2), 2)
    assert book.send(cancel(), 3) == OrderClosed(LABEL, ORDER_ID, "cancelled", 2, 3)
    assert book.send(cancel(), 4) == OrderClosed(LABEL, ORDER_ID, "cancelled", 2, 4)


def test_only_so_many_are_remembered() -> None:
    book = shadow()
    labels = [f"mmd-kit-{number}" for number in range(REMEMBERED + 1)]
    for label in labels:
        book.send(PlaceOrder(label, Side.BID, 100, 1), 1)
        book.on_market(sold(99, 1), 2)
    assert book.look_up(labels[0], 3) == OrderAbsent(labels[0], 3)
    assert [isinstance(book.look_up(label, 3), OrderClosed) for label in (labels[1], labels[-1])] == [True, True]


def test_the_default_latency_keeps_the_sure_fills_back() -> None:
    book = ShadowBook(instrument())
    book.send(PLACE, START_NS)
    early = book.on_market(sold(99, 2), START_NS + 99 * MS)
    late = book.on_market(sold(99, 2), START_NS + 100 * MS)
    assert [fill.bound for fill in (*early, *late)] == [Bound.OPTIMISTIC, Bound.PESSIMISTIC]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(top(99, 101), id="book"),
        pytest.param(sold(100, 5), id="print"),
        pytest.param(ev.BookBroken(Why.BOOK_GAP, "", 0), id="broken"),
        pytest.param(ev.DataLinkDown("", 0), id="link"),
        pytest.param(ev.TimerFired(0), id="anything"),
    ],
)
def test_where_nothing_rests_nothing_is_made(event: ev.Mail) -> None:
    assert shadow().on_market(event, 1) is NO_FILLS


@pytest.mark.parametrize("event", [ev.BookBroken(Why.BOOK_GAP, "", 0), ev.DataLinkDown("", 0)])
def test_a_book_that_is_gone_is_not_leant_on(event: ev.Mail) -> None:
    book = shadow()
    book.on_market(top(100, 103, lots=50), 1)
    book.on_market(event, 2)
    assert isinstance(book.send(PlaceOrder(LABEL, Side.BID, 104, 7), 3), OrderAcked)  # nothing to cross
    assert [fill.bound for fill in book.on_market(sold(104, 60), 4)] == [Bound.OPTIMISTIC]  # the queue is unknown
    assert book.on_market(event, 5) is NO_FILLS


# --- against the slot table ----------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("amend"), st.integers(95, 101), st.integers(1, 9)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("query")),
    st.tuples(st.just("market"), st.builds(top, st.integers(94, 99), st.integers(100, 104), st.integers(1, 9))),
    st.tuples(st.just("market"), st.builds(sold, st.integers(94, 101), st.integers(1, 9))),
)


@given(st.lists(STEPS, max_size=25))
def test_the_slot_table_understands_every_answer(steps: list[tuple[Any, ...]]) -> None:
    """Answers and sure fills move a real slot legally, and both always agree on what rests."""
    book, now_ns = shadow(), START_NS
    slot: Slot = Placing(LABEL, 100, 7, 0, now_ns)

    def hear(event: ev.Mail) -> None:
        nonlocal slot
        if slot is EMPTY:
            return
        after = advance(slot, event, now_ns, 0)
        assert not isinstance(after, IllegalTransition), (slot, event)
        slot = after

    hear(book.send(PLACE, now_ns))
    for name, *arguments in steps:
        now_ns += MS
        order: Order | None = None
        if name == "market":
            for fill in book.on_market(arguments[0], now_ns):
                if fill.bound is Bound.PESSIMISTIC:
                    hear(as_fill(fill))
        elif name == "query":
            if isinstance(slot, Live):
                hear(book.look_up(LABEL, now_ns))
        elif isinstance(slot, Live) and name == "amend":
            price, more = arguments
            order = AmendOrder(LABEL, ORDER_ID, Side.BID, price, slot.filled_lots + more, more)
        elif isinstance(slot, Live):
            order = cancel()
        if order is not None:
            slot = in_flight(slot, order, now_ns)
            hear(book.send(order, now_ns))
        assert len(book) == (0 if slot is EMPTY else 1)
        if isinstance(slot, Live):
            told = book.look_up(LABEL, now_ns)
            assert isinstance(told, OrderAcked)
            assert (told.price_ticks, told.remaining_lots) == (slot.price_ticks, worst_lots(slot))


def as_fill(fill: ShadowFilled) -> ev.OrderFilled:
    """What moves the slot."""
    nothing = Decimal(0)
    return ev.OrderFilled(
        fill.label, ORDER_ID, f"{fill.number}", fill.side, fill.price, fill.size_lots, nothing, "", True, 0.0, 0, 0
    )


def in_flight(slot: Slot, order: Order, now_ns: int) -> Slot:
    """The slot once the request is sent."""
    assert isinstance(slot, Live)
    common = (slot.label, slot.order_id, slot.price_ticks, slot.total_lots, slot.filled_lots)
    if isinstance(order, AmendOrder):
        return Amending(*common, order.price_ticks, order.total_lots, now_ns)
    return Cancelling(*common, now_ns)
