"""One instrument's book, from snapshots only. Pure.

Every message is the whole book down to the depth that was asked for; there is no change to join, and
nothing to ask anew: the next message mends whatever the last one broke. So a message proves nothing by
coming: how old the book is its time says. The order of the levels is not documented, so it is not relied
on. A crossed book is handed out as it is: judging prices is not this room's business.
"""

from collections.abc import Callable
from decimal import Decimal

import msgspec

from mmd.domain.errors import OffGrid
from mmd.domain.events import BookBroken, BookTop, Level
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Why
from mmd.exchanges.derive.codec import decode_book
from mmd.exchanges.derive.messages import BookData, BookLevel
from mmd.exchanges.levels import Numbers

TOP_LEVELS = 5
MS = 1_000_000
REPEAT_NS = 1_000_000_000
LATE_NS = 5_000_000_000  # a snapshot that is older when it comes is not the market's any more,
SURE_NS = 1_000_000_000  # if that goes on so long: where it is a clock that was set, its next answer tells
TEXT_MAX = 64  # no number is longer


def positive(text: str) -> Decimal:
    """A price or an amount. Raises OffGrid or ArithmeticError for what is none."""
    if len(text) > TEXT_MAX:
        raise OffGrid(f"a number of {len(text)} characters")
    value = Decimal(text)
    if value <= 0:
        raise OffGrid(f"{text} is not positive")
    return value


class SnapshotBook:
    """The book of one instrument. `live`: its last message could be read. Times in ns."""

    __slots__ = (
        "_amounts",
        "_gave_up",
        "_late_ns",
        "_now_ms",
        "_prices",
        "_symbol",
        "_told_ns",
        "_top_levels",
        "asks",
        "bids",
        "exchange_ns",
        "live",
        "publish_id",
    )

    def __init__(self, instrument: Instrument, now_ms: Callable[[], int], top_levels: int = TOP_LEVELS) -> None:
        """`now_ms`: the exchange's clock."""
        self._symbol = instrument.symbol
        self._now_ms = now_ms
        self._prices = Numbers(instrument.grid.tick, positive)
        self._amounts = Numbers(instrument.lot, positive)
        self._top_levels = top_levels
        self.bids: tuple[Level, ...] = ()
        self.asks: tuple[Level, ...] = ()
        self.publish_id = 0
        self.exchange_ns = 0  # when the exchange took the last snapshot
        self.live = False
        self._told_ns = 0  # when it was handed out last
        self._late_ns = 0  # since when snapshots come late; 0 = they do not
        self._gave_up = False  # for that, on this subscription

    def clear(self) -> None:
        """A new subscription: whatever comes first is taken."""
        self.bids = self.asks = ()
        self.publish_id = self.exchange_ns = 0
        self.live = self._gave_up = False

    def apply(self, data: BookData, received_ns: int) -> BookTop | BookBroken | None:
        """Take one message. None for one that is older than the last, and where the top did not change.

        One that did not change is handed out once a second all the same: that it still stands is news.
        """
        exchange_ns = data.timestamp * MS
        # Both: ids that begin anew, with times that go on, are a feed that was started again.
        if data.publish_id <= self.publish_id and exchange_ns <= self.exchange_ns:
            return None
        self.publish_id, self.exchange_ns = data.publish_id, exchange_ns
        if data.instrument_name != self._symbol:
            return self.broken(Why.BOOK_MALFORMED, f"a book of {data.instrument_name[:50]}", received_ns)
        if late := self._lateness(received_ns):
            gave_up, self._gave_up = self._gave_up, True
            return None if gave_up else self.broken(Why.STALE_BOOK, late, received_ns)
        try:
            bids, asks = self._levels(data.bids), self._levels(data.asks)
        except (OffGrid, ArithmeticError) as error:
            return self.broken(Why.BOOK_MALFORMED, f"snapshot {data.publish_id}: {error!s:.200}", received_ns)
        bids.reverse()
        top = tuple(bids[: self._top_levels]), tuple(asks[: self._top_levels])
        if self.live and top == (self.bids, self.asks) and received_ns - self._told_ns < REPEAT_NS:
            return None
        self.bids, self.asks = top
        self.live, self._told_ns = True, received_ns
        return BookTop(self.bids, self.asks, data.publish_id, exchange_ns, received_ns)

    def take(self, data: msgspec.Raw, received_ns: int) -> BookTop | BookBroken | None:
        """The same from the channel's bytes."""
        return self.apply(decode_book(data), received_ns)

    def _levels(self, raw: list[BookLevel]) -> list[Level]:
        """Levels by rising price. Raises OffGrid, ArithmeticError."""
        prices, amounts = self._prices, self._amounts
        levels = [
            (prices.known.get(price) or prices.read(price), amounts.known.get(amount) or amounts.read(amount))
            for price, amount in raw
        ]
        levels.sort()
        for number in range(1, len(levels)):
            if levels[number][0] == levels[number - 1][0]:
                raise OffGrid(f"two levels at {levels[number][0]} ticks")
        return levels

    def _lateness(self, received_ns: int) -> str:
        """That the snapshots come too late, for people; empty where they do not."""
        age_ns = self._now_ms() * MS - self.exchange_ns
        if age_ns <= LATE_NS:
            self._late_ns, self._gave_up = 0, False
            return ""
        self._late_ns = self._late_ns or received_ns
        if received_ns - self._late_ns < SURE_NS:
            return ""
        return f"its snapshots come {age_ns / 1e9:.1f} s late, allowed {LATE_NS / 1e9:g} s"

    def broken(self, why: Why, detail: str, received_ns: int) -> BookBroken:
        """Give the book up until the next snapshot, which must be newer than the last."""
        self.bids = self.asks = ()
        self.live = False
        return BookBroken(why, detail, received_ns)
