"""The exchange's clock: the true one, shifted by as much as a test wants it to be wrong.

The market lives on the true time, so that a wrong clock stops nothing; what it does reaches the engine
with the exchange's time on it.
"""

from collections.abc import Callable
from decimal import Decimal

from mmd.sandbox.model import Direction, InstrumentState, Reference, SandboxInstrument, Trade, Venue


class Clock:
    """`wall_clock_ns` gives Unix nanoseconds; `shifted` is called after every change of the offset."""

    def __init__(self, wall_clock_ns: Callable[[], int]) -> None:
        self.offset_ms = 0
        self.shifted: Callable[[], None] = lambda: None
        self._wall_clock_ns = wall_clock_ns

    @property
    def true_ms(self) -> int:
        return self._wall_clock_ns() // 1_000_000

    @property
    def ms(self) -> int:
        return self._wall_clock_ns() // 1_000_000 + self.offset_ms

    @property
    def us(self) -> int:
        return self._wall_clock_ns() // 1000 + self.offset_ms * 1000

    def shift(self, offset_ms: int) -> None:
        """Be so far ahead of the true time from now on (negative: behind)."""
        self.offset_ms = offset_ms
        self.shifted()


class ShiftedVenue:
    """A `Venue` for a market on true time; hands everything on with the exchange's."""

    def __init__(self, venue: Venue, clock: Clock) -> None:
        self._venue = venue
        self._clock = clock
        self.instrument: Callable[[str], SandboxInstrument] = venue.instrument
        self.anonymous_levels = venue.anonymous_levels
        self.touch = venue.touch

    def set_levels(
        self, name: str, bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal], now_ms: int, *, snapshot: bool
    ) -> list[Trade]:
        return self._venue.set_levels(name, bids, asks, now_ms + self._clock.offset_ms, snapshot=snapshot)

    def take(self, name: str, direction: Direction, amount: Decimal, limit: Decimal, now_ms: int) -> list[Trade]:
        return self._venue.take(name, direction, amount, limit, now_ms + self._clock.offset_ms)

    def set_reference(self, name: str, reference: Reference, now_ms: int) -> None:
        self._venue.set_reference(name, reference, now_ms + self._clock.offset_ms)

    def set_index(self, index_name: str, price: Decimal, now_ms: int) -> None:
        self._venue.set_index(index_name, price, now_ms + self._clock.offset_ms)

    def set_state(self, name: str, state: InstrumentState, now_ms: int) -> None:
        self._venue.set_state(name, state, now_ms + self._clock.offset_ms)

    def deliver(self, name: str, delivery_price: Decimal, now_ms: int) -> None:
        self._venue.deliver(name, delivery_price, now_ms + self._clock.offset_ms)
