"""Underlyings of the generated market: correlated prices that wander on a fixed time grid, known a little ahead.

Each price is a log-normal walk whose volatility itself wanders; a common factor correlates all.
The next seconds of every path are drawn in advance: that is what informed takers know and makers
do not. While a recording runs, the path of its underlyings is the recorded index, interpolated.

Prices in USD; USDC counts as USD. Volatilities as annual fractions.
"""

import math
import random
from bisect import bisect_left
from collections import deque
from pathlib import Path

import msgspec

from mmd.sandbox.universe import YEAR_MS

GRID_MS = 100
AHEAD_STEPS = 45
AHEAD_MS = GRID_MS * AHEAD_STEPS
# After a longer silence than this the walk takes one long stride.
STRIDE_MS = 60_000

# Ornstein-Uhlenbeck levels: (relaxation time in seconds, standard deviation in the long run).
REALISED_LEVEL = (600.0, 0.25)
IMPLIED_LEVEL = (3600.0, 0.03)
PREMIUM_LEVEL = (120.0, 0.0001)

ASSETS_FILE = Path(__file__).parent / "data" / "assets.json"
# Of a coin that the table does not know.
UNKNOWN_PRICE, UNKNOWN_VOLATILITY, UNKNOWN_BETA = 10.0, 1.0, 0.6


class AssetAssumption(msgspec.Struct, frozen=True):
    """Starting price in USD, annual volatility, and the share of the common factor in its moves (0 to 1)."""

    price: float
    volatility: float
    beta: float


def assumptions() -> dict[str, AssetAssumption]:
    """The packaged table, by coin."""
    return msgspec.json.decode(ASSETS_FILE.read_bytes(), type=dict[str, AssetAssumption])


def assumption(base: str, table: dict[str, AssetAssumption]) -> AssetAssumption:
    return table.get(base) or AssetAssumption(UNKNOWN_PRICE, UNKNOWN_VOLATILITY, UNKNOWN_BETA)


class Level:
    """A quantity that wanders around 0 and comes back (Ornstein-Uhlenbeck)."""

    def __init__(self, spec: tuple[float, float]) -> None:
        self.value = 0.0
        self._relaxation_s, self._deviation = spec
        # Of one grid step, the usual one.
        self._keep, self._kick = self._factors(GRID_MS / 1000)

    def _factors(self, seconds: float) -> tuple[float, float]:
        keep = math.exp(-seconds / self._relaxation_s)
        return keep, self._deviation * math.sqrt(1.0 - keep * keep)

    def step(self, rng: random.Random) -> None:
        self.value = self._keep * self.value + self._kick * rng.gauss(0.0, 1.0)

    def stride(self, seconds: float, rng: random.Random) -> None:
        keep, kick = self._factors(seconds)
        self.value = keep * self.value + kick * rng.gauss(0.0, 1.0)


class Asset:
    """One coin: its price now, its path a few seconds ahead, its wandering volatility and premium."""

    def __init__(self, base: str, start: AssetAssumption, seed: int, now_ms: int) -> None:
        self.base = base
        self.volatility = start.volatility
        self.beta = start.beta
        self.realised = Level(REALISED_LEVEL)
        self.implied = Level(IMPLIED_LEVEL)
        self.premium = Level(PREMIUM_LEVEL)  # of the perpetual over the index, as a fraction
        self.rng = random.Random(f"{seed}/asset/{base}")
        self.path: deque[float] = deque([start.price])
        self._pin_times: list[int] = []
        self._pin_prices: list[float] = []
        self._end_ms = now_ms  # of the path

    @property
    def price(self) -> float:
        return self.path[0]

    @property
    def implied_factor(self) -> float:
        """What multiplies all implied volatilities now."""
        return math.exp(self.implied.value)

    def ahead(self, lead_ms: int) -> float:
        """The price that it will have `lead_ms` later, up to AHEAD_MS."""
        return self.path[min(lead_ms // GRID_MS, len(self.path) - 1)]

    def pin(self, times_ms: list[int], prices: list[float]) -> None:
        """Follow these prices (times rising) until the last of them; before the first step only."""
        self._pin_times, self._pin_prices = times_ms, prices
        self.path = deque([self._pinned(self._end_ms)])

    def extend(self, factor: float) -> None:
        """One grid step more of path; `factor` is the common standard normal draw."""
        self._end_ms += GRID_MS
        own = self.rng.gauss(0.0, 1.0)
        if self._pin_times and self._end_ms <= self._pin_times[-1]:
            self.path.append(self._pinned(self._end_ms))
            return
        self.path.append(self.path[-1] * math.exp(self._move(GRID_MS, factor, own)))

    def step(self, factor: float) -> None:
        """Time moves one grid step."""
        self.realised.step(self.rng)
        self.implied.step(self.rng)
        self.premium.step(self.rng)
        self.extend(factor)
        self.path.popleft()

    def stride(self, gap_ms: int, factor: float) -> None:
        """Time moves a long way at once; the path ahead is to be extended anew."""
        for level in (self.realised, self.implied, self.premium):
            level.stride(gap_ms / 1000, self.rng)
        beyond_ms = max(gap_ms - AHEAD_MS, 0)
        price = self.path[-1] * math.exp(self._move(beyond_ms, factor, self.rng.gauss(0.0, 1.0)))
        self._end_ms += beyond_ms
        self.path = deque([price])

    def _move(self, span_ms: int, factor: float, own: float) -> float:
        sigma = self.volatility * math.exp(self.realised.value)
        deviation = sigma * math.sqrt(span_ms / YEAR_MS)
        shock = self.beta * factor + math.sqrt(1.0 - self.beta * self.beta) * own
        return deviation * shock - 0.5 * deviation * deviation

    def _pinned(self, at_ms: int) -> float:
        place = bisect_left(self._pin_times, at_ms)
        if place == 0:
            return self._pin_prices[0]
        if place == len(self._pin_times):
            return self._pin_prices[-1]
        t0, t1 = self._pin_times[place - 1 : place + 1]
        p0, p1 = self._pin_prices[place - 1 : place + 1]
        return p0 + (p1 - p0) * (at_ms - t0) / (t1 - t0)


class Assets:
    """All coins, moved together on the grid."""

    def __init__(self, starts: dict[str, AssetAssumption], seed: int, now_ms: int) -> None:
        self.now_ms = now_ms
        self.by_base = {base: Asset(base, start, seed, now_ms) for base, start in sorted(starts.items())}
        self._rng = random.Random(f"{seed}/factor")

    def foresee(self) -> None:
        """Draw the path ahead of every asset; once, after pins are set, and after a stride."""
        for _ in range(AHEAD_STEPS):
            factor = self._rng.gauss(0.0, 1.0)
            for asset in self.by_base.values():
                asset.extend(factor)

    def advance(self, now_ms: int) -> None:
        """Move to the last grid time at or before `now_ms`."""
        if now_ms - self.now_ms > STRIDE_MS:
            gap_ms = (now_ms - self.now_ms) // GRID_MS * GRID_MS
            factor = self._rng.gauss(0.0, 1.0)
            for asset in self.by_base.values():
                asset.stride(gap_ms, factor)
            self.now_ms += gap_ms
            self.foresee()
        while now_ms - self.now_ms >= GRID_MS:
            factor = self._rng.gauss(0.0, 1.0)
            for asset in self.by_base.values():
                asset.step(factor)
            self.now_ms += GRID_MS
