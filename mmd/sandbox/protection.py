"""Market maker protection of one account on one index: limits over a window that starts at its first trade.

Deltas are transaction deltas (option delta minus option mark price in coins), vegas in USD; both net, compared
by absolute value. Quantities are gross, in coins.
"""

from abc import ABC, abstractmethod

import msgspec


class ProtectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`interval` and `frozen_time` in seconds (frozen_time 0: until reset); a limit of None is off."""

    index_name: str
    interval: int
    frozen_time: int
    quantity_limit: float | None = None
    delta_limit: float | None = None
    vega_limit: float | None = None
    max_quote_quantity: float | None = None


class Freeze(ABC):
    """What stops an account's protected orders. `frozen_until` in ms: None = not frozen, 0 = until reset."""

    max_quote_quantity: float | None = None

    def __init__(self) -> None:
        self.frozen_until: int | None = None

    @property
    @abstractmethod
    def frozen_ms(self) -> int:
        """How long a freeze lasts; 0: until reset."""

    @abstractmethod
    def forget(self) -> None:
        """Count from nothing again."""

    @abstractmethod
    def add(self, quantity: float, delta: float, vega: float, now_ms: int) -> bool:
        """Count a fill of a protected order; True when it trips a limit, which starts the freeze."""

    def reset(self) -> None:
        self.frozen_until = None
        self.forget()

    def is_frozen(self, now_ms: int) -> bool:
        if self.frozen_until is None:
            return False
        if self.frozen_until and now_ms >= self.frozen_until:
            self.reset()
            return False
        return True

    def trip(self, now_ms: int) -> None:
        """Start the freeze."""
        self.frozen_until = now_ms + self.frozen_ms if self.frozen_ms else 0


class Protection(Freeze):
    """Deribit's: a window that starts at its first trade."""

    def __init__(self, config: ProtectionConfig) -> None:
        super().__init__()
        self.config = config
        self.max_quote_quantity = config.max_quote_quantity
        self._window_start: int | None = None
        self._quantity = self._delta = self._vega = 0.0

    @property
    def frozen_ms(self) -> int:
        return self.config.frozen_time * 1000

    def forget(self) -> None:
        self._window_start = None

    def add(self, quantity: float, delta: float, vega: float, now_ms: int) -> bool:
        frozen = self.is_frozen(now_ms)
        if self._window_start is None or now_ms >= self._window_start + self.config.interval * 1000:
            self._window_start = now_ms
            self._quantity = self._delta = self._vega = 0.0
        self._quantity += quantity
        self._delta += delta
        self._vega += vega
        config = self.config
        tripped = (
            _reached(self._quantity, config.quantity_limit)
            or _reached(self._delta, config.delta_limit)
            or _reached(self._vega, config.vega_limit)
        )
        if tripped and not frozen:
            self.trip(now_ms)
            return True
        return False


def _reached(value: float, limit: float | None) -> bool:
    return limit is not None and abs(value) >= limit - 1e-12
