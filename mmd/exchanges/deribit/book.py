"""One instrument's L2 book: snapshot and changes joined by change id. Pure.

A change is applied only when its prev_change_id is the id applied last; ids are not consecutive,
only equality counts. Anything else breaks the book until the next snapshot. A crossed book is
handed out as it is: judging prices is not this room's business.
"""

from bisect import bisect_left, insort
from decimal import Decimal

import msgspec

from mmd.domain.errors import OffGrid
from mmd.domain.events import BookBroken, BookTop, Level
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Why
from mmd.exchanges.deribit.codec import decode_book
from mmd.exchanges.deribit.messages import BookChange, BookData
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.levels import Numbers

TOP_LEVELS = 5
MS = 1_000_000
_decode_number: Decoder[Decimal] = Decoder(Decimal)


class BookSide:
    """Levels of one side: sizes by price, and the prices sorted upwards."""

    __slots__ = ("_bids", "_edge", "_prices", "_sizes", "_top_levels", "top", "unknown_deletes")

    def __init__(self, *, bids: bool, top_levels: int) -> None:
        self._bids = bids
        self._top_levels = top_levels
        self._prices: list[int] = []
        self._sizes: dict[int, int] = {}
        self._edge: int | None = None  # the last price of a full top: what is behind it does not show
        self.top: tuple[Level, ...] = ()
        self.unknown_deletes = 0

    def __len__(self) -> int:
        return len(self._prices)

    def levels(self) -> list[Level]:
        """All levels, best first."""
        prices = reversed(self._prices) if self._bids else iter(self._prices)
        return [(price, self._sizes[price]) for price in prices]

    def clear(self) -> None:
        self._prices.clear()
        self._sizes.clear()
        self._edge = None
        self.top = ()

    def apply(self, changes: list[BookChange], prices: Numbers[bytes], amounts: Numbers[bytes]) -> bool:
        """Take the new totals over; True if the top is another one now. Raises OffGrid, ExchangeMalformed."""
        bids, sizes, ladder, edge = self._bids, self._sizes, self._prices, self._edge
        shows = False
        for action, raw_price, raw_amount in changes:
            text = bytes(raw_price)
            price = prices.known.get(text) or prices.read(text)
            if action == "delete":
                size = 0
            else:
                text = bytes(raw_amount)
                size = amounts.known.get(text) or amounts.read(text)
            if price <= 0 or size < 0:
                raise OffGrid(f"level {bytes(raw_price).decode()} x {bytes(raw_amount).decode()} is not positive")
            if size:
                if price not in sizes:
                    insort(ladder, price)
                sizes[price] = size
            elif price in sizes:
                del sizes[price]
                del ladder[bisect_left(ladder, price)]
            else:
                self.unknown_deletes += 1
            if edge is None or (price >= edge if bids else price <= edge):
                shows = True
        return shows and self._renew_top()

    def _renew_top(self) -> bool:
        """Take the top anew; True if it is another one."""
        sizes = self._sizes
        prices = self._prices[: -self._top_levels - 1 : -1] if self._bids else self._prices[: self._top_levels]
        top = tuple([(price, sizes[price]) for price in prices])
        if top == self.top:
            return False
        self.top = top
        self._edge = prices[-1] if len(prices) == self._top_levels else None
        return True


class L2Book:
    """The book of one instrument. `live` between a snapshot and whatever breaks it."""

    __slots__ = ("_amounts", "_prices", "asks", "bids", "change_id", "live")

    def __init__(self, instrument: Instrument, top_levels: int = TOP_LEVELS) -> None:
        self._prices = Numbers(instrument.grid.tick, _decode_number)
        self._amounts = Numbers(instrument.lot, _decode_number)
        self.bids = BookSide(bids=True, top_levels=top_levels)
        self.asks = BookSide(bids=False, top_levels=top_levels)
        self.change_id = 0
        self.live = False

    @property
    def unknown_deletes(self) -> int:
        """Deletes of levels that were not there: ignored, counted."""
        return self.bids.unknown_deletes + self.asks.unknown_deletes

    def clear(self) -> None:
        """Wait for a snapshot; changes are dropped until then."""
        self.bids.clear()
        self.asks.clear()
        self.live = False

    def apply(self, data: BookData, received_ns: int) -> BookTop | BookBroken | None:
        """Apply one message. None when the top levels did not change or no snapshot came yet.

        Raises ExchangeMalformed for a level without numbers; the book is then not whole: call `broken`.
        """
        snapshot = data.type == "snapshot" or (data.type is None and data.prev_change_id is None)
        if snapshot:
            self.clear()
        elif not self.live:
            return None
        elif data.prev_change_id != self.change_id:
            detail = f"change {data.change_id} follows {data.prev_change_id}, the book is at {self.change_id}"
            return self.broken(Why.BOOK_GAP, detail, received_ns)
        try:
            prices, amounts = self._prices, self._amounts
            changed = self.bids.apply(data.bids, prices, amounts) | self.asks.apply(data.asks, prices, amounts)
        except (OffGrid, ArithmeticError) as error:
            return self.broken(Why.BOOK_MALFORMED, f"change {data.change_id}: {error}", received_ns)
        self.change_id = data.change_id
        self.live = True
        if not (changed or snapshot):
            return None
        return BookTop(self.bids.top, self.asks.top, data.change_id, data.timestamp * MS, received_ns)

    def take(self, data: msgspec.Raw, received_ns: int) -> BookTop | BookBroken | None:
        """The same from the channel's bytes."""
        return self.apply(decode_book(data), received_ns)

    def broken(self, why: Why, detail: str, received_ns: int) -> BookBroken:
        """Give the book up until the next snapshot."""
        self.clear()
        return BookBroken(why, detail, received_ns)
