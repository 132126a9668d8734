"""One listed instrument as it stands: book, reference prices, state, tape; and the index prices below them."""

from decimal import Decimal

from mmd.sandbox.book import Book
from mmd.sandbox.model import InstrumentState, Reference, SandboxInstrument
from mmd.sandbox.orders import ZERO
from mmd.sandbox.tape import DAY_MS, Tape

EXPIRY_MS_OF_DAY = 8 * 3_600_000
AVERAGING_MS = 30 * 60_000


def next_settlement(now_ms: int) -> int:
    """The next 08:00 UTC strictly after now."""
    return now_ms - (now_ms - EXPIRY_MS_OF_DAY) % DAY_MS + DAY_MS


class Listing:
    def __init__(self, instrument: SandboxInstrument, change_id: int) -> None:
        self.instrument = instrument
        self.book = Book(instrument.instrument_name, change_id)
        self.state = InstrumentState.OPEN
        self.reference: Reference | None = None
        self.reference_ms = instrument.creation_timestamp
        self.tape = Tape()
        self.trade_seq = 0
        self.anonymous_position = ZERO
        self.settlement_price: Decimal | None = None
        self.delivery_price: Decimal | None = None
        self.open_interest = ZERO
        self.accrued_ms: int | None = None
        """Until when funding is booked; perpetuals only."""
        self.top: tuple[Decimal | None, Decimal, Decimal | None, Decimal] = (None, ZERO, None, ZERO)

    @property
    def mark_price(self) -> Decimal:
        """The mark, or the last trade, or zero."""
        if self.reference is not None:
            return self.reference.mark_price
        return self.tape.last_price or ZERO

    def best(self) -> tuple[Decimal | None, Decimal, Decimal | None, Decimal]:
        """Best bid, its size, best ask, its size; a price is None where a side is empty."""
        bids, asks = self.book.bids, self.book.asks
        bid, ask = bids.best(), asks.best()
        bid_size = bids.levels[bid].total if bid is not None else ZERO
        ask_size = asks.levels[ask].total if ask is not None else ZERO
        return bid, bid_size, ask, ask_size


class IndexPrice:
    """An index, its average over the last half hour before 08:00 UTC (the delivery price), its range of the day."""

    def __init__(self, price: Decimal, now_ms: int) -> None:
        self.price = self.opened = self.high = self.low = price
        self.changed_ms = now_ms
        self._since_ms = now_ms
        self._area = ZERO
        self._at_ms = now_ms

    def set(self, price: Decimal, now_ms: int) -> None:
        self._accumulate(now_ms)
        if now_ms // DAY_MS != self.changed_ms // DAY_MS:
            self.opened = self.high = self.low = price
        self.price = price
        self.high, self.low = max(self.high, price), min(self.low, price)
        self.changed_ms = now_ms

    def average(self, now_ms: int) -> Decimal:
        """Time-weighted over the averaging window up to now; outside it simply the price."""
        if not self._in_window(now_ms):
            return self.price
        self._accumulate(now_ms)
        span = now_ms - self._since_ms
        return (self._area / span).quantize(Decimal("0.0001")) if span > 0 else self.price

    @staticmethod
    def _in_window(now_ms: int) -> bool:
        left = (EXPIRY_MS_OF_DAY - now_ms) % DAY_MS
        return left <= AVERAGING_MS

    def _accumulate(self, now_ms: int) -> None:
        settlement = next_settlement(now_ms - 1)
        start = settlement - AVERAGING_MS
        if self._since_ms < start:  # a new window: what was before it does not count
            self._since_ms, self._area, self._at_ms = start, ZERO, max(self._at_ms, start)
        if now_ms > self._at_ms:
            self._area += self.price * (now_ms - self._at_ms)
            self._at_ms = now_ms
