"""What each instrument is worth, and the reference prices that the exchange publishes for it.

A future is the underlying carried to its expiry; an option is Black-76 on that forward at the
volatility of its strike. Everything is computed from a spot price that the caller chooses: the
true one for makers, the published index for marks.
"""

import math
from decimal import Decimal

import msgspec

from mmd.core.options import black76
from mmd.core.options.black76 import OptionType
from mmd.sandbox.assets import Asset
from mmd.sandbox.model import Greeks, Reference, SandboxInstrument
from mmd.sandbox.smile import Shape, sigma
from mmd.sandbox.universe import YEAR_MS

MIN_YEARS = 1_000 / YEAR_MS
SIGMA_RANGE = (0.05, 5.0)
DAYS = 365.0
# Where a volatility point is worth less of a tick than this, beliefs are no matter of volatility.
MIN_VEGA = 0.05

# Price bands around the mark, fractions of the price.
PERPETUAL_BAND = 0.02
FUTURE_BAND = 0.05
# Options, in coin: the recorded exchange allowed about this much below and above the mark.
OPTION_BAND_DOWN = (0.02, 0.2)
OPTION_BAND_UP = (0.015, 0.35)

# The exchange's funding formula damps premiums smaller than this.
FUNDING_DAMPER = 0.00025


class Term(msgspec.Struct):
    """One expiry of one underlying: carry (annual log growth of the forward) and volatility at the money."""

    base: str
    expiry_ms: int
    carry: float
    sigma_atm: float

    def years(self, now_ms: int) -> float:
        return max((self.expiry_ms - now_ms) / YEAR_MS, MIN_YEARS)

    def forward(self, spot: float, now_ms: int) -> float:
        return spot * math.exp(self.carry * self.years(now_ms))


class FutureModel:
    """A perpetual (no term) or a dated future. Prices in USD."""

    vega = 0.0

    def __init__(self, instrument: SandboxInstrument, asset: Asset, term: Term | None) -> None:
        self.instrument = instrument
        self.asset = asset
        self.term = term
        self.shift = 1.0  # of the last recorded mark over the model's

    def worth(self, spot: float, now_ms: int) -> float:
        """Price unit of the instrument."""
        if self.term is None:
            return spot * (1.0 + self.asset.premium.value) * self.shift
        return self.term.forward(spot, now_ms) * self.shift

    def calibrate(self, recorded: Reference, spot: float, now_ms: int) -> None:
        """Let the model give the recorded mark now."""
        self.shift *= float(recorded.mark_price) / self.worth(spot, now_ms)

    def reference(self, index: float, now_ms: int, belief: float = 0.0) -> Reference:
        """What the exchange publishes; `belief` is what the market pays beyond the model, price units."""
        mark = self.worth(index, now_ms) + belief
        band = PERPETUAL_BAND if self.term is None else FUTURE_BAND
        tick = self.instrument.tick_size
        premium = mark / index - 1.0
        funding = max(FUNDING_DAMPER, premium) + min(-FUNDING_DAMPER, premium)
        perpetual = self.term is None
        return Reference(
            mark_price=rounded(mark, usd_digits(mark)),
            index_price=rounded(index, usd_digits(index)),
            min_price=on_grid(mark * (1.0 - band), tick),
            max_price=on_grid(mark * (1.0 + band), tick),
            current_funding=round(funding, 8) if perpetual else None,
            funding_8h=round(funding, 8) if perpetual else None,
        )


class OptionModel:
    """A European option. Inverse: coin per coin; linear: USDC per coin."""

    def __init__(self, instrument: SandboxInstrument, asset: Asset, term: Term, shape: Shape, underlying: str) -> None:
        if instrument.strike is None or instrument.option_type is None:
            raise ValueError(f"{instrument.instrument_name}: an option needs strike and option_type")
        self.instrument = instrument
        self.asset = asset
        self.term = term
        self.shape = shape
        self.underlying = underlying
        self.option = OptionType(instrument.option_type)
        self.strike = float(instrument.strike)
        self.inverse = instrument.instrument_type == "reversed"
        self.sigma_shift = 0.0  # of the recorded volatility over the surface's
        self.vega = 0.0  # price units per volatility point, at the last reference

    def sigma(self, forward: float, years: float) -> float:
        """Annual fraction."""
        smile = sigma(math.log(self.strike / forward), years, self.term.sigma_atm, self.shape)
        low, high = SIGMA_RANGE
        return min(max(smile * self.asset.implied_factor + self.sigma_shift, low), high)

    def worth(self, spot: float, now_ms: int) -> float:
        """Price unit of the instrument."""
        years = self.term.years(now_ms)
        forward = self.term.forward(spot, now_ms)
        usd = black76.price(self.option, forward, self.strike, years, self.sigma(forward, years))
        return usd / forward if self.inverse else usd

    def calibrate(self, recorded: Reference, spot: float, now_ms: int) -> None:
        """Let the model give the recorded mark now; its volatility where the mark does not tell one."""
        years = self.term.years(now_ms)
        forward = self.term.forward(spot, now_ms)
        usd = float(recorded.mark_price) * (forward if self.inverse else 1.0)
        self.sigma_shift = 0.0
        smile = self.sigma(forward, years)
        try:
            wanted = black76.implied_volatility(self.option, usd, forward, self.strike, years)
        except ValueError:
            wanted = recorded.mark_iv / 100 if recorded.mark_iv else smile
        self.sigma_shift = wanted - smile

    def reference(self, index: float, now_ms: int, belief: float = 0.0) -> Reference:
        """What the exchange publishes; `belief` is what the market pays beyond the model, price units.

        The exchange's own smile follows the market: a belief shows as volatility.
        """
        years = self.term.years(now_ms)
        forward = self.term.forward(index, now_ms)
        low, high = SIGMA_RANGE
        points = belief / self.vega if self.vega > MIN_VEGA * float(self.instrument.tick_size) else 0.0
        level = min(max(self.sigma(forward, years) + points / 100, low), high)
        found = black76.value(self.option, forward, self.strike, years, level)
        unit = forward if self.inverse else 1.0
        mark = found.price / unit
        self.vega = found.vega / 100 / unit
        coin = 1.0 if self.inverse else forward
        down = OPTION_BAND_DOWN[0] * coin + OPTION_BAND_DOWN[1] * mark
        up = OPTION_BAND_UP[0] * coin + OPTION_BAND_UP[1] * mark
        tick = widest_tick(self.instrument)
        return Reference(
            mark_price=max(rounded(mark, 6 if self.inverse else 4), Decimal("0.000001")),
            index_price=rounded(index, usd_digits(index)),
            min_price=max(on_grid(mark - down, tick), self.instrument.tick_size),
            max_price=on_grid(mark + up, tick),
            underlying_price=rounded(forward, usd_digits(forward)),
            underlying_index=self.underlying,
            mark_iv=round(level * 100, 2),
            greeks=shown_greeks(found, forward, years),
        )


Model = FutureModel | OptionModel


def shown_greeks(found: black76.Valuation, forward: float, years: float) -> Greeks:
    """As the exchange shows them: USD, vega and rho per point, theta of a day or of what is left of it."""
    return Greeks(
        delta=round(found.delta, 5),
        gamma=round(found.gamma, 5),
        vega=round(found.vega / 100, 5),
        theta=round(found.theta / DAYS * min(1.0, years * DAYS), 5),
        # At constant spot interest only moves the strike's present value.
        rho=round((forward * found.delta - found.price) * years / 100, 5),
    )


def usd_digits(price: float) -> int:
    """Decimals of an index or a future's mark: two for whole coins, more for cheap ones."""
    return 2 if price >= 100.0 else 4 if price >= 1.0 else 6


def rounded(value: float, digits: int) -> Decimal:
    """The nearest decimal with so many places."""
    return Decimal(f"{value:.{digits}f}")


def on_grid(value: float, tick: Decimal) -> Decimal:
    """The nearest multiple of `tick`, at least 0."""
    return tick * max(round(value / float(tick)), 0)


def widest_tick(instrument: SandboxInstrument) -> Decimal:
    """The step that is valid at every price: the widest one."""
    return max((step.tick_size for step in instrument.tick_size_steps), default=instrument.tick_size)
