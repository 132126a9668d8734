"""Rolling volatility of a price from irregular observations.

Two exponentially weighted estimators of variance per second, fast and slow; the larger counts,
so width grows at once and shrinks slowly. Per observation, v <- a v + (1 - a) r^2 / dt with
a = exp(-dt / T) and T = half-life / ln 2. Source: RiskMetrics 1996, for irregular ticks as in
docs/quoting.md; feed it a microprice, because bid-ask bounce biases it upwards.
"""

import math

from mmd.core.exact import exp, log

LN2 = 0.6931471805599453
# Observations closer together than this are one: r^2/dt of a burst means nothing.
MIN_STEP_NS = 50_000_000


class Volatility:
    """Feed prices with their times; read `sigma_bps(horizon)`."""

    __slots__ = ("_fast", "_fast_s", "_first_ns", "_last", "_last_ns", "_slow", "_slow_s", "observations")

    def __init__(self, fast_seconds: float, slow_seconds: float) -> None:
        if not 0 < fast_seconds <= slow_seconds:
            raise ValueError(f"half-lives must be 0 < fast <= slow, got {fast_seconds} and {slow_seconds}")
        self._fast_s = fast_seconds / LN2
        self._slow_s = slow_seconds / LN2
        self._fast = 0.0
        self._slow = 0.0
        self._last = 0.0
        self._last_ns = 0
        self._first_ns = 0
        self.observations = 0

    def due(self, at_ns: int) -> bool:
        """Whether `observe` would look at a price of that time."""
        return not self._last_ns or at_ns - self._last_ns >= MIN_STEP_NS

    def observe(self, price: float, at_ns: int) -> None:
        """One price (any unit, positive) at a time; ignored within MIN_STEP_NS of the one before."""
        if price <= 0.0:
            return
        if self._last_ns == 0:
            self._last, self._last_ns, self._first_ns = price, at_ns, at_ns
            return
        step_ns = at_ns - self._last_ns
        if step_ns < MIN_STEP_NS:
            return
        seconds = step_ns * 1e-9
        moved = log(price / self._last)
        rate = moved * moved / seconds
        self._fast = self._mix(self._fast, rate, seconds, self._fast_s)
        self._slow = self._mix(self._slow, rate, seconds, self._slow_s)
        self._last, self._last_ns = price, at_ns
        self.observations += 1

    def _mix(self, old: float, rate: float, seconds: float, scale_s: float) -> float:
        if self.observations == 0:
            return rate
        keep = exp(-seconds / scale_s)
        return keep * old + (1.0 - keep) * rate

    @property
    def ready(self) -> bool:
        """Enough seen to be believed: at least ten steps."""
        return self.observations >= 10

    def sigma_bps(self, horizon_seconds: float) -> float:
        """One standard deviation over the horizon, in bps of the price."""
        return math.sqrt(max(self._fast, self._slow) * horizon_seconds) * 1e4

    def annual(self) -> float:
        """The same as a yearly volatility (1.0 = 100 %), 365 days."""
        return math.sqrt(max(self._fast, self._slow) * 365 * 86400)

    def snapshot(self) -> dict[str, float | int]:
        return {name: getattr(self, name) for name in self.__slots__}
