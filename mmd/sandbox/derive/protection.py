"""Derive's market maker protection of a subaccount in one currency: limits over a rolling window, in ms.

Amounts are gross, deltas net. Source: docs.derive.xyz, Market maker protection. Assumed: a limit trips
when it is passed, not when it is reached; a new configuration counts from nothing and lifts no freeze.
"""

from collections import deque
from decimal import Decimal

import msgspec

from mmd.sandbox.protection import Freeze


class MmpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`interval_ms` 0: off; `frozen_ms` 0: until reset; a limit of 0: none."""

    currency: str
    interval_ms: int
    frozen_ms: int
    amount: Decimal
    delta: Decimal


class RollingProtection(Freeze):
    """The fills of the last interval."""

    def __init__(self, limits: MmpLimits) -> None:
        super().__init__()
        self.limits = limits
        self._fills: deque[tuple[int, float, float]] = deque()

    @property
    def frozen_ms(self) -> int:
        return self.limits.frozen_ms

    def configure(self, limits: MmpLimits) -> None:
        """Take other limits; what is frozen stays frozen."""
        self.limits = limits
        self.forget()

    def forget(self) -> None:
        self._fills.clear()

    def add(self, quantity: float, delta: float, vega: float, now_ms: int) -> bool:
        frozen = self.is_frozen(now_ms)
        limits, fills = self.limits, self._fills
        if not limits.interval_ms:
            return False
        fills.append((now_ms, quantity, delta))
        while fills[0][0] <= now_ms - limits.interval_ms:
            fills.popleft()
        passed = _passed(sum(fill[1] for fill in fills), limits.amount)
        if (passed or _passed(sum(fill[2] for fill in fills), limits.delta)) and not frozen:
            self.trip(now_ms)
            return True
        return False


def _passed(value: float, limit: Decimal) -> bool:
    return bool(limit) and abs(value) > float(limit) + 1e-12
