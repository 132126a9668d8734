"""Volatility by strike and expiry: one SSVI surface per underlying, fitted to a few implied volatilities.

Total variance w(x) = σ²T at log-moneyness x = ln(K/F):

    w(x) = θ/2 · (1 + ρ φ x + √((φ x + ρ)² + 1 − ρ²)),   φ = η / √(θ (1 + θ))

θ is the total variance at the money, ρ the skew, η the strength of the wings. Free of butterfly
arbitrage while η (1 + |ρ|) <= 2; free of calendar arbitrage while θ does not fall with T.

Source: Gatheral & Jacquier, "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14(1),
2014 (SSVI, power law with γ = ½).
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

# Grid of the fit; the wings of a coin's smile are strong, its skew mild.
SKEWS = tuple(n / 20 for n in range(-12, 9))
WINGS = tuple(n / 10 for n in range(3, 19))
DEFAULT_SKEW = -0.1
DEFAULT_WINGS = 1.0
THETA_MIN, THETA_MAX = 1e-7, 25.0
BISECTIONS = 40
# Without a fit, short expiries carry a little more volatility than long ones.
SHORT_PREMIUM = 0.08
SHORT_YEARS = 0.08


class Point(msgspec.Struct, frozen=True):
    """One implied volatility: `years` to expiry, x = ln(K/F), sigma as an annual fraction."""

    years: float
    x: float
    sigma: float


class Shape(msgspec.Struct, frozen=True):
    """ρ and η."""

    skew: float = DEFAULT_SKEW
    wings: float = DEFAULT_WINGS


class Surface(msgspec.Struct, frozen=True):
    """Shape plus the term structure: `knots` are (years, θ), sorted, θ never falling."""

    shape: Shape
    knots: tuple[tuple[float, float], ...]

    def sigma_atm(self, years: float) -> float:
        """At the money, annual fraction: θ linear in time between knots, flat volatility outside them."""
        first, last = self.knots[0], self.knots[-1]
        if years <= first[0]:
            return math.sqrt(first[1] / first[0])
        for (t0, w0), (t1, w1) in zip(self.knots, self.knots[1:], strict=False):
            if years <= t1:
                return math.sqrt((w0 + (w1 - w0) * (years - t0) / (t1 - t0)) / years)
        return math.sqrt(last[1] / last[0])


def total_variance(x: float, theta: float, shape: Shape) -> float:
    """w(x) of the formula above; `theta` > 0."""
    scaled = x * shape.wings / math.sqrt(theta * (1.0 + theta))
    rho = shape.skew
    return 0.5 * theta * (1.0 + rho * scaled + math.sqrt((scaled + rho) * (scaled + rho) + 1.0 - rho * rho))


def sigma(x: float, years: float, sigma_atm: float, shape: Shape) -> float:
    """Implied volatility at x, annual fraction; `years` and `sigma_atm` > 0."""
    return math.sqrt(total_variance(x, sigma_atm * sigma_atm * years, shape) / years)


def theta_through(points: Sequence[Point], shape: Shape) -> float:
    """The θ of one expiry whose smile runs through its points, on average of the volatilities."""
    years = points[0].years
    wanted = sum(point.sigma for point in points)
    low, high = THETA_MIN, THETA_MAX
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        found = sum(math.sqrt(total_variance(point.x, middle, shape) / years) for point in points)
        low, high = (low, middle) if found > wanted else (middle, high)
    return math.sqrt(low * high)


def miss(expiries: Iterable[Sequence[Point]], shape: Shape) -> float:
    """Sum of squared misses in volatility, each expiry with its best θ."""
    total = 0.0
    for points in expiries:
        theta, years = theta_through(points, shape), points[0].years
        total += sum((math.sqrt(total_variance(p.x, theta, shape) / years) - p.sigma) ** 2 for p in points)
    return total


def fit(points: Iterable[Point]) -> Surface:
    """The surface nearest to the points; with one point per expiry the shape stays at its default.

    Raises ValueError without points, or for one with years or sigma not positive.
    """
    by_expiry: dict[float, list[Point]] = {}
    for point in points:
        if not (point.years > 0.0 and point.sigma > 0.0):
            raise ValueError(f"need years > 0 and sigma > 0: {point}")
        by_expiry.setdefault(point.years, []).append(point)
    if not by_expiry:
        raise ValueError("no volatilities to fit")
    telling = [expiry for expiry in by_expiry.values() if len(expiry) > 1]
    allowed = [Shape(skew, wings) for skew in SKEWS for wings in WINGS if wings * (1.0 + abs(skew)) <= 2.0]
    shape = min(allowed, key=lambda one: miss(telling, one)) if telling else Shape()
    knots: list[tuple[float, float]] = []
    for years in sorted(by_expiry):
        theta = theta_through(by_expiry[years], shape)
        knots.append((years, max(theta, knots[-1][1] if knots else 0.0)))
    return Surface(shape, tuple(knots))


def assumed(volatility: float) -> Surface:
    """A surface where nothing was recorded: `volatility` (annual fraction) with a mild premium for short expiries."""
    years = (1 / 365, 7 / 365, 30 / 365, 0.25, 0.5, 1.0, 2.0)
    levels = [volatility * (1.0 + SHORT_PREMIUM * math.exp(-t / SHORT_YEARS)) for t in years]
    return Surface(Shape(), tuple((t, level * level * t) for t, level in zip(years, levels, strict=True)))
