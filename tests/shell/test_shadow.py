"""Orders that stay in the house: acknowledged at once, resting until cancelled, never filled."""

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder
from mmd.domain.events import OrderAbsent, OrderAcked, OrderClosed
from mmd.domain.reasons import Side
from mmd.shell.shadow import ShadowBook

LABEL = "mmd-kit-BTC-PERPETUAL-b-ep-1"
PLACE = PlaceOrder(LABEL, Side.BID, 100, 7)


def test_an_orders_life() -> None:
    book = ShadowBook()
    assert book.look_up(LABEL, 1) == OrderAbsent(LABEL, 1)
    acked = book.send(PLACE, 2)
    assert acked == OrderAcked(LABEL, f"shadow-{LABEL.removeprefix('mmd-')}", 100, 7, 7, 2)
    assert (len(book), book.look_up(LABEL, 3)) == (1, acked)
    amended = book.send(AmendOrder(LABEL, acked.order_id, Side.BID, 101, 9, 9), 4)
    assert amended == OrderAcked(LABEL, acked.order_id, 101, 9, 9, 4)
    assert book.look_up(LABEL, 5) == amended
    assert book.send(CancelOrder(LABEL, acked.order_id, Side.BID), 6) == OrderClosed(
        LABEL, acked.order_id, "cancelled", 0, 6
    )
    assert (len(book), book.look_up(LABEL, 7)) == (0, OrderAbsent(LABEL, 7))


def test_what_is_not_there_can_be_cancelled_but_not_amended() -> None:
    book = ShadowBook()
    assert book.send(AmendOrder(LABEL, "x", Side.BID, 101, 9, 9), 1) == OrderAbsent(LABEL, 1)
    assert isinstance(book.send(CancelOrder(LABEL, "x", Side.BID), 2), OrderClosed)
    assert len(book) == 0


def test_a_lost_link_takes_them_all() -> None:
    book = ShadowBook()
    book.send(PLACE, 1)
    book.drop()
    assert book.look_up(LABEL, 2) == OrderAbsent(LABEL, 2)
