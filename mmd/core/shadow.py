"""Shadow mode: orders that stay in the house. Answered as an exchange would, filled by the queue model.

What fills is decided by `mmd.core.queue` from the market data of the real exchange, within two
bounds; see docs/shadow.md. `on_market` must see every book and every print, before the mailbox conflates.
"""

from mmd.core.imagined import shadow_order_id
from mmd.core.queue import LATENCY_NS, Fill, Queued, QueueModel
from mmd.domain.actions import AmendOrder, CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.events import (
    BookBroken,
    BookTop,
    Bound,
    DataLinkDown,
    Mail,
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderRefused,
    ShadowFilled,
    TradePrinted,
)
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault

NO_FILLS: tuple[ShadowFilled, ...] = ()
# After these the book is not what was last seen of it.
BLINDING = frozenset({BookBroken, DataLinkDown})
# Orders that filled and are over, remembered so that a late question is answered with their fills.
REMEMBERED = 256


class ShadowBook:
    """One symbol's imagined orders, by label. `number` counts imagined fills, both bounds."""

    def __init__(self, instrument: Instrument, latency_ns: int = LATENCY_NS) -> None:
        self.number = 0
        self._grid = instrument.grid
        self._queue = QueueModel(latency_ns)
        self._orders = self._queue.orders
        self._over: dict[str, int] = {}  # label -> lots filled

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, label: str) -> bool:
        """Whether this order is imagined here and not over."""
        return label in self._orders

    # --- what an exchange answers ----------------------------------------------------------------

    def send(self, order: Order, now_ns: int) -> Mail:
        """What the exchange would answer if nothing went wrong."""
        match order:
            case AmendOrder():
                return self._amend(order, now_ns)
            case PlaceOrder(label=label, side=side, price_ticks=price, size_lots=size):
                if self._queue.crosses(side, price):
                    detail = "would take from the book"
                    return OrderRefused(label, Fault.ORDER, "post_only_reject", detail, False, now_ns)
                return self._acked(self._queue.place(label, side, price, size, now_ns), now_ns)
            case CancelOrder(label=label):
                return self._close(label, "cancelled", now_ns)
            case ReduceOrder(label=label):
                # It would take, and nothing here can say what: nothing was closed.
                return OrderClosed(label, shadow_order_id(label), "shadow", 0, now_ns)

    def look_up(self, label: str, now_ns: int) -> Mail:
        """The answer to QueryOrder."""
        found = self._orders.get(label)
        if found is not None:
            return self._acked(found, now_ns)
        if label in self._over:
            return OrderClosed(label, shadow_order_id(label), "filled", self._over[label], now_ns)
        return OrderAbsent(label, now_ns)

    def drop(self) -> None:
        """The link is gone: as with cancel-on-disconnect, nothing rests any more.

        Also for leaving shadow mode: the book is forgotten, as nobody tells us of the next ones.
        """
        self._queue.book = None
        for label, order in list(self._orders.items()):
            self._forget(label, order.filled_lots)

    def _amend(self, order: AmendOrder, now_ns: int) -> Mail:
        label = order.label
        found = self._orders.get(label)
        if found is None:
            return self.look_up(label, now_ns)
        if order.total_lots <= found.filled_lots:
            return self._close(label, "filled", now_ns)
        if order.price_ticks != found.price_ticks and self._queue.crosses(found.side, order.price_ticks):
            return self._close(label, "edit_post_only_reject", now_ns)
        self._queue.amend(found, order.price_ticks, order.total_lots, now_ns)
        return self._acked(found, now_ns)

    def _acked(self, order: Queued, now_ns: int) -> OrderAcked:
        order_id = shadow_order_id(order.label)
        return OrderAcked(order.label, order_id, order.price_ticks, order.remaining_lots, order.total_lots, now_ns)

    def _close(self, label: str, cause: str, now_ns: int) -> OrderClosed:
        found = self._orders.get(label)
        if found is not None:
            self._forget(label, found.filled_lots)
        return OrderClosed(label, shadow_order_id(label), cause, self._over.get(label, 0), now_ns)

    def _forget(self, label: str, filled_lots: int) -> None:
        """It is over; only what filled leaves a trace, as nothing is left of an order that never did."""
        self._queue.remove(label)
        if filled_lots:
            self._over[label] = filled_lots
            if len(self._over) > REMEMBERED:
                del self._over[next(iter(self._over))]

    # --- what the market does to them ------------------------------------------------------------

    def on_market(self, event: Mail, now_ns: int) -> tuple[ShadowFilled, ...]:
        """What this event fills; any event may be passed in. The same empty tuple where nothing rests.

        `now_ns` by the clock that `send` is given.
        """
        if isinstance(event, BookTop):
            fills = self._queue.on_book(event, now_ns)
        elif isinstance(event, TradePrinted):
            fills = self._queue.on_trade(event, now_ns)
        else:
            if type(event) in BLINDING:
                self._queue.blind(now_ns)
            return NO_FILLS
        return tuple([self._told(fill, now_ns) for fill in fills]) if fills else NO_FILLS

    def _told(self, fill: Fill, now_ns: int) -> ShadowFilled:
        """The event of one fill; an order that has nothing left is over."""
        self.number += 1
        if fill.bound is Bound.PESSIMISTIC:
            order = self._orders[fill.label]
            if order.remaining_lots == 0:
                self._forget(fill.label, order.filled_lots)
        price = self._grid.price(fill.price_ticks)
        return ShadowFilled(fill.label, fill.bound, fill.side, price, fill.size_lots, self.number, now_ns)
