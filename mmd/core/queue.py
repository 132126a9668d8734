"""The place of an imagined order in the queue at its price, as two bounds on what it would have filled.

An order that rests nowhere has no true place in a queue. What can be said is a least and a most:
by price-time priority, from the book as it was shown and the trades as they were printed.

PESSIMISTIC, what would surely have filled:
- All that was shown at our price when we came, or joined while the order was under way
  (`latency_ns`), stands in front. In that time nothing fills. Where the other side crosses us in
  that time, the order would have been refused: it sets out anew.
- Those in front leave by trading only: others cancel behind us. One thing caps it: no more can stand
  in front than a book shows at the price (once prints that belong to it had time to arrive).
- Prints at our price fill what they have beyond those in front. A print through our price (worse for
  its taker) fills its size: whoever was in front is gone. A book whose other side is strictly
  through our price fills what it offers there, each lot once. An other side at our very price does
  not fill: it may be a maker who would have stepped back.
- A price outside the levels shown: how many stand there is unknown, and only prints through it fill.

OPTIMISTIC, what may have filled:
- In the queue at once, behind what was shown; what vanishes without a print was in front of us.
- Prints at our price fill what they have beyond those in front. Anything that shows the other side
  at or through our price fills all: a print through it, a print of our own side's takers at it, a book.
- A price outside the levels shown: nobody stands in front.

For both: what the exchange dates no later than the book at placing cannot have met the order. Alone at
a price, nobody is in front. A smaller size keeps the place; another price or a larger size loses it.
A print fills no more than its size, an order no more than its own. Pessimistic <= optimistic, for
every order after every event. Books that cross themselves are no evidence and are left out.

Not in the model: real prints met real orders, and with ours among them would have gone otherwise;
cancels and amends take effect at once; hidden orders and trades between two books are not seen.
Sizes in lots, prices in base ticks, times in ns of our clock. Source: docs/shadow.md.
"""

from collections.abc import Sequence

import msgspec

from mmd.domain.events import BookTop, Bound, Level, TradePrinted
from mmd.domain.reasons import Side

# From deciding to the first event that the order could have met: a round trip, and the slower book's interval.
LATENCY_NS = 100_000_000
# How long after a book the prints that it shows the effect of may still arrive: other channel, other time.
SETTLE_NS = 250_000_000
# More than any queue: nobody knows how many stand in front.
UNSEEN = 1 << 62


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One imagined execution within one bound."""

    label: str
    bound: Bound
    side: Side
    price_ticks: int
    size_lots: int


Taken = tuple[int, int]
"""Lots that an event fills: (optimistic, pessimistic)."""
NOTHING: Taken = (0, 0)
NO_FILLS: tuple[Fill, ...] = ()


def shown_at(levels: tuple[Level, ...], price_ticks: int, side: Side, depth: int) -> int | None:
    """Lots shown at a price of this side; None where it lies below what is shown.

    `levels` best first; `depth`: how many levels are shown at most: fewer are the whole side.
    """
    sign = 1 if side is Side.BID else -1
    for level_ticks, lots in levels:
        if level_ticks == price_ticks:
            return lots
        if (price_ticks - level_ticks) * sign > 0:
            return 0
    return 0 if len(levels) < depth else None


class Queued:
    """One imagined order. `filled_lots` is pessimistic: what the order itself knows of."""

    __slots__ = (
        "_ahead",
        "_ahead_optimistic",
        "_cap",
        "_cap_ns",
        "_offered",
        "_printed",
        "_shown",
        "_shown_ns",
        "_sign",
        "_since_ns",
        "filled_lots",
        "label",
        "latency_ns",
        "optimistic_lots",
        "price_ticks",
        "rests_ns",
        "side",
        "total_lots",
    )

    def __init__(self, label: str, side: Side, price_ticks: int, total_lots: int, latency_ns: int) -> None:
        self.label = label
        self.side = side
        self.price_ticks = price_ticks
        self.total_lots = total_lots
        self.latency_ns = latency_ns
        self.filled_lots = 0
        self.optimistic_lots = 0
        self.rests_ns = 0  # pessimistic: not at the exchange before
        self._sign = 1 if side is Side.BID else -1
        self._since_ns = 0  # exchange time of the book that was known when it set out
        self._ahead = UNSEEN
        self._ahead_optimistic = 0
        self._shown: int | None = None  # at our price, in the last book
        self._shown_ns = 0  # since when, once we were there
        self._printed = 0  # at our price, since that book
        self._cap = 0  # what an earlier book showed, and when (0 = none waits)
        self._cap_ns = 0
        self._offered = 0  # the most that the other side offered through our price

    @property
    def remaining_lots(self) -> int:
        return self.total_lots - self.filled_lots

    @property
    def _left_optimistic(self) -> int:
        """A smaller size may have come too late for what is filled already."""
        return max(0, self.total_lots - self.optimistic_lots)

    @property
    def ahead(self) -> tuple[int, int | None]:
        """Lots in front: optimistic, pessimistic (None = unknown)."""
        return (self._ahead_optimistic, None if self._ahead == UNSEEN else self._ahead)

    def set_out(self, shown: int | None, since_ns: int, now_ns: int) -> None:
        """To the end of the queue; `shown` lots are at the price in the book that the exchange dates `since_ns`."""
        self.rests_ns = now_ns + self.latency_ns
        self._since_ns = since_ns
        self._ahead = UNSEEN if shown is None else shown
        self._ahead_optimistic = shown or 0
        self._shown, self._shown_ns = shown, self.rests_ns
        self._printed = self._cap = self._cap_ns = self._offered = 0

    # --- what the market shows -------------------------------------------------------------------

    def see_book(self, book: BookTop, depth: int, now_ns: int) -> Taken:
        """What a book that does not cross itself fills; `depth` as in `shown_at`."""
        bids = self._sign > 0
        taken = NOTHING
        other = book.asks if bids else book.bids
        crossed = bool(other) and (self.price_ticks - other[0][0]) * self._sign >= 0
        if crossed:
            taken = (self._left_optimistic, self._meet(other, now_ns))
        on_the_way = now_ns < self.rests_ns
        shown = shown_at(book.bids if bids else book.asks, self.price_ticks, self.side, depth)
        if shown is None:
            self.lose_sight(now_ns)
            return self._take(taken)
        if self._shown is not None:
            self._ahead_optimistic -= max(0, self._shown - shown - self._printed)
        self._ahead_optimistic = max(0, min(self._ahead_optimistic, shown))
        if on_the_way:
            self._ahead = max(self._ahead, shown)
        else:
            self._settle(now_ns)
            if not self._cap_ns and shown < self._ahead:
                self._cap, self._cap_ns = shown, now_ns
        if shown != self._shown:
            self._shown_ns = max(now_ns, self.rests_ns)
        self._shown, self._printed = shown, 0
        return self._take(taken)

    def _meet(self, other: tuple[Level, ...], now_ns: int) -> int:
        """Pessimistic: what an other side at or through our price surely sells us; each lot offered counts once."""
        offered = sum([lots for price_ticks, lots in other if (self.price_ticks - price_ticks) * self._sign > 0])
        new = offered - self._offered
        self._offered = max(self._offered, offered)
        if now_ns < self.rests_ns:
            self.rests_ns = now_ns + self.latency_ns
            return 0
        return max(0, min(new, self.remaining_lots))

    def see_trade(self, trade: TradePrinted, now_ns: int) -> Taken:
        """What a print fills."""
        through = (self.price_ticks - trade.price_ticks) * self._sign
        if through < 0 or (trade.exchange_ns and trade.exchange_ns <= self._since_ns):
            return NOTHING
        left = self._left_optimistic
        if trade.taker is self.side:  # somebody was offered our price, or a better one: we would have been first
            return self._take((left, 0))
        size = trade.size_lots
        resting = now_ns >= self.rests_ns
        if through > 0:
            if not resting:
                return self._take((left, 0))
            self._ahead = 0
            return self._take((left, min(size, self.remaining_lots)))
        self._printed += size
        optimistic = min(left, max(0, size - self._ahead_optimistic))
        self._ahead_optimistic = max(0, self._ahead_optimistic - size)
        if not resting:
            return self._take((optimistic, 0))
        self._settle(now_ns)
        if self._ahead == UNSEEN:
            return self._take((optimistic, 0))
        pessimistic = min(self.remaining_lots, max(0, size - self._ahead))
        self._ahead = max(0, self._ahead - size)
        return self._take((optimistic, pessimistic))

    def lose_sight(self, now_ns: int) -> None:
        """The queue at our price is not shown any more: anything may happen in it, joins before us included."""
        if now_ns < self.rests_ns:
            self._ahead = UNSEEN
        self._ahead_optimistic = 0
        self._shown = None
        self._printed = 0

    def _settle(self, now_ns: int) -> None:
        """Cap what stands in front by what a book showed, once its prints must have arrived.

        Prints since that book have been taken off already, which only makes the cap too weak.
        """
        shown = self._shown
        if shown is not None and now_ns - self._shown_ns >= SETTLE_NS:
            self._ahead = min(self._ahead, shown)
            self._cap_ns = 0
        elif self._cap_ns and now_ns - self._cap_ns >= SETTLE_NS:
            self._ahead = min(self._ahead, self._cap)
            self._cap_ns = 0
            if shown is not None:
                self._cap, self._cap_ns = shown, self._shown_ns

    def _take(self, taken: Taken) -> Taken:
        self.optimistic_lots += taken[0]
        self.filled_lots += taken[1]
        return taken


class QueueModel:
    """The imagined orders of one symbol, and the book that they imagine themselves in.

    A full order fills nothing more; whoever keeps the model removes it.
    """

    __slots__ = ("_depth", "book", "latency_ns", "orders")

    def __init__(self, latency_ns: int = LATENCY_NS) -> None:
        if latency_ns < 0:
            raise ValueError(f"latency_ns is {latency_ns}, allowed: 0 or more")
        self.latency_ns = latency_ns
        self.orders: dict[str, Queued] = {}
        self.book: BookTop | None = None
        self._depth = 1

    # --- our orders ------------------------------------------------------------------------------

    def crosses(self, side: Side, price_ticks: int) -> bool:
        """An order at this price would take from the book as it is known."""
        if self.book is None:
            return False
        if side is Side.BID:
            return bool(self.book.asks) and price_ticks >= self.book.asks[0][0]
        return bool(self.book.bids) and price_ticks <= self.book.bids[0][0]

    def place(self, label: str, side: Side, price_ticks: int, size_lots: int, now_ns: int) -> Queued:
        """A new order, at the end of its queue."""
        order = Queued(label, side, price_ticks, size_lots, self.latency_ns)
        self._send(order, now_ns)
        self.orders[label] = order
        return order

    def amend(self, order: Queued, price_ticks: int, total_lots: int, now_ns: int) -> None:
        """Another price or a larger size goes to the end of the queue; a smaller size keeps its place.

        `total_lots` includes what has filled and must be more than that.
        """
        assert total_lots > order.filled_lots, f"{order.label}: {total_lots} lots of which {order.filled_lots} filled"
        moves = price_ticks != order.price_ticks or total_lots > order.total_lots
        order.price_ticks, order.total_lots = price_ticks, total_lots
        if moves:
            self._send(order, now_ns)

    def _send(self, order: Queued, now_ns: int) -> None:
        book = self.book
        if book is None:
            order.set_out(None, 0, now_ns)
            return
        self._depth = max(self._depth, len(book.bids), len(book.asks))
        levels = book.bids if order.side is Side.BID else book.asks
        order.set_out(shown_at(levels, order.price_ticks, order.side, self._depth), book.exchange_ns, now_ns)

    def remove(self, label: str) -> None:
        """It is over, if it was there."""
        self.orders.pop(label, None)

    # --- the market ------------------------------------------------------------------------------

    def on_book(self, book: BookTop, now_ns: int) -> Sequence[Fill]:
        """What a book fills. One that crosses itself is left out."""
        bids, asks = book.bids, book.asks
        if bids and asks and bids[0][0] >= asks[0][0]:
            return NO_FILLS
        self.book = book
        if not self.orders:
            return NO_FILLS
        self._depth = depth = max(self._depth, len(bids), len(asks))
        fills: list[Fill] = []
        for order in self.orders.values():
            optimistic, pessimistic = order.see_book(book, depth, now_ns)
            if optimistic or pessimistic:
                fills += _fills(order, optimistic, pessimistic)
        return fills

    def on_trade(self, trade: TradePrinted, now_ns: int) -> Sequence[Fill]:
        """What a print fills."""
        if not self.orders:
            return NO_FILLS
        fills: list[Fill] = []
        for order in self.orders.values():
            optimistic, pessimistic = order.see_trade(trade, now_ns)
            if optimistic or pessimistic:
                fills += _fills(order, optimistic, pessimistic)
        return fills

    def blind(self, now_ns: int) -> None:
        """The book is broken or its link is down: what happens until the next one is not seen."""
        self.book = None
        for order in self.orders.values():
            order.lose_sight(now_ns)


def _fills(order: Queued, optimistic: int, pessimistic: int) -> list[Fill]:
    """The optimistic one first: at no moment is it behind."""
    bounds = ((Bound.OPTIMISTIC, optimistic), (Bound.PESSIMISTIC, pessimistic))
    return [Fill(order.label, bound, order.side, order.price_ticks, lots) for bound, lots in bounds if lots]
