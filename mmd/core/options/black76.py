"""Black-76: European options on a forward: price, greeks, implied volatility.

    C = D [F N(d1) - K N(d2)],   P = D [K N(-d2) - F N(-d1)]
    d1,2 = (ln(F/K) ± ½ σ² T) / (σ √T)

Units: forward, strike and prices in the same currency (USD); `years` in years of 365 days;
`sigma` annual, as a fraction (0.8 = 80 %); `discount` D = e^(-rT), 1 where margin earns nothing.
Inverse (coin-settled) options: the price in coin is the USD value divided by the forward.

N is taken from `erfc`, whose relative error stays small in the far tails where options are
worth a millionth of a coin; `core.exact` computes the same digits on every machine.

Source: F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976).
"""

import math
from enum import StrEnum

import msgspec

from mmd.core.exact import exp, log, normal_cdf

DAYS_PER_YEAR = 365.0
SQRT_2PI = math.sqrt(2.0 * math.pi)

# Implied volatility is looked for between 0.01 % and 5,000 % a year.
SIGMA_MIN = 1e-4
SIGMA_MAX = 50.0
MAX_ITERATIONS = 100


class OptionType(StrEnum):
    """The exchange's own words."""

    CALL = "call"
    PUT = "put"


class Valuation(msgspec.Struct, frozen=True, gc=False):
    """Price and sensitivities of one option, per unit of the underlying.

    delta: per unit of forward. gamma: delta per unit of forward. vega: per 1.0 of sigma (divide
    by 100 for one volatility point). theta: per year, at constant forward (divide by 365 for a day).
    """

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float


def normal_pdf(x: float) -> float:
    """φ(x)."""
    return exp(-0.5 * x * x) / SQRT_2PI


def intrinsic(option: OptionType, forward: float, strike: float) -> float:
    """Undiscounted value at σ = 0; USD."""
    return max(forward - strike, 0.0) if option is OptionType.CALL else max(strike - forward, 0.0)


def price(
    option: OptionType, forward: float, strike: float, years: float, sigma: float, *, discount: float = 1.0
) -> float:
    """Price in the currency of the forward; the intrinsic value where years or sigma are 0.

    Raises ValueError unless forward > 0, strike > 0, years >= 0, sigma >= 0.
    """
    check(forward, strike, years, sigma)
    deviation = sigma * math.sqrt(years)
    if deviation == 0.0:
        return discount * intrinsic(option, forward, strike)
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    if option is OptionType.CALL:
        return discount * (forward * normal_cdf(d1) - strike * normal_cdf(d2))
    return discount * (strike * normal_cdf(-d2) - forward * normal_cdf(-d1))


def value(
    option: OptionType, forward: float, strike: float, years: float, sigma: float, *, discount: float = 1.0
) -> Valuation:
    """Price and greeks in one pass.

    At years = 0 or sigma = 0 the option is its payoff: delta 0 or ±1 (±½ exactly at the money),
    gamma, vega and theta 0. Theta is the decay at zero interest (Γ F² σ² / 2), whatever `discount`.
    Raises ValueError as `price` does.
    """
    check(forward, strike, years, sigma)
    root = math.sqrt(years)
    deviation = sigma * root
    sign = 1.0 if option is OptionType.CALL else -1.0
    if deviation == 0.0:
        inside = sign * (forward - strike)
        weight = 1.0 if inside > 0 else 0.5 if inside == 0 else 0.0
        worth = discount * intrinsic(option, forward, strike)
        return Valuation(price=worth, delta=discount * sign * weight, gamma=0.0, vega=0.0, theta=0.0)
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    upper, lower = normal_cdf(sign * d1), normal_cdf(sign * d2)
    density = discount * normal_pdf(d1)
    return Valuation(
        price=discount * sign * (forward * upper - strike * lower),
        delta=discount * sign * upper,
        gamma=density / (forward * deviation),
        vega=density * forward * root,
        theta=-0.5 * density * forward * sigma / root,
    )


def implied_volatility(
    option: OptionType, worth: float, forward: float, strike: float, years: float, *, discount: float = 1.0
) -> float:
    """The sigma at which `price` is `worth` (same currency as the forward).

    Safeguarded Newton on the logarithm of the out-of-the-money price, which stays well scaled
    where the price itself is tiny. Raises ValueError where `worth` is not strictly inside the
    no-arbitrage bounds (above the intrinsic value, below forward or strike), or needs a sigma
    outside [SIGMA_MIN, SIGMA_MAX].
    """
    check(forward, strike, years, 0.0)
    ceiling = forward if option is OptionType.CALL else strike
    floor = intrinsic(option, forward, strike)
    undiscounted = worth / discount
    if not floor < undiscounted < ceiling or years == 0.0:
        raise ValueError(
            f"no volatility gives {worth}: allowed is ({discount * floor}, {discount * ceiling}), years > 0"
        )
    time_value = undiscounted - floor
    otm = OptionType.CALL if strike >= forward else OptionType.PUT
    low, high = SIGMA_MIN, SIGMA_MAX
    # The inflection point of price in sigma: Newton from here does not overshoot.
    sigma = min(max(math.sqrt(2.0 * abs(log(forward / strike)) / years), 0.05), SIGMA_MAX)
    target = log(time_value)
    for _ in range(MAX_ITERATIONS):
        found = value(otm, forward, strike, years, sigma)
        miss = log(found.price) - target if found.price > 0.0 else -math.inf
        if abs(miss) < 1e-13:
            return sigma
        low, high = (low, sigma) if miss > 0 else (sigma, high)
        guess = sigma - miss * found.price / found.vega if found.vega > 0.0 and found.price > 0.0 else math.inf
        following = guess if low < guess < high else 0.5 * (low + high)
        if abs(following - sigma) <= 1e-15 * sigma:
            sigma = following
            break
        sigma = following
    if not SIGMA_MIN * 1.01 < sigma < SIGMA_MAX * 0.99:
        raise ValueError(f"no volatility between {SIGMA_MIN} and {SIGMA_MAX} gives {worth}")
    return sigma


def inverse_price(worth_usd: float, forward: float) -> float:
    """USD value to coin per coin, as inverse options are quoted. Raises ValueError unless forward > 0."""
    if not forward > 0.0:
        raise ValueError(f"forward must be positive, not {forward}")
    return worth_usd / forward


def check(forward: float, strike: float, years: float, sigma: float) -> None:
    """Raises ValueError for what no option can have; NaN included."""
    if not (forward > 0.0 and strike > 0.0 and years >= 0.0 and sigma >= 0.0):
        raise ValueError(
            f"need forward > 0, strike > 0, years >= 0, sigma >= 0: got {forward}, {strike}, {years}, {sigma}"
        )
