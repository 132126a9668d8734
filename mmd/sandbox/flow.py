"""The anonymous takers: noise that pays the spread, and informed flow that knows the next move.

A noise taker wants one side at random and goes as far from fair as its patience allows: most stay
near the touch, some sweep. An informed taker knows the fair price a moment before the makers do
and takes whatever is wrong by then. A maker therefore earns its distance from fair on noise, and
loses the move beyond that distance to the informed: too tight loses, sensibly wide earns
(the adverse selection of Glosten & Milgrom, Journal of Financial Economics 14, 1985).
"""

import math
import random
from decimal import Decimal

import msgspec

from mmd.sandbox.makers import Makers
from mmd.sandbox.model import Direction, Trade, Venue


class FlowStyle(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of instrument is traded. Rates in events per second at intensity 1."""

    noise_hz: float
    informed_hz: float
    # Patience of noise in units of the makers' half-width: `near` for certain, plus an exponential part.
    near_halves: float
    patience_halves: float
    # A share of noise sweeps: it goes up to so much further (bps of the price, uniform), in size.
    sweep_share: float
    sweep_bps: float
    # Options: a piece of news moves what the makers believe by so many half-widths (standard deviation).
    news_halves: float
    news_keep: float
    median_lots: float
    spread_lots: float


SWEEP_LOTS = 400.0
INFORMED_LOTS = 5.0


class Takers:
    """Noise and informed takers of one instrument. Fair prices are given in ticks of its grid."""

    def __init__(self, name: str, style: FlowStyle, makers: Makers, rng: random.Random) -> None:
        self.name = name
        self.style = style
        self.makers = makers
        self.rng = rng

    def noise(self, venue: Venue, fair_ticks: float, now_ms: int) -> list[Trade]:
        """One noise taker arrives; it trades if somebody quotes within its patience."""
        style, rng = self.style, self.rng
        direction = Direction.BUY if rng.random() < 0.5 else Direction.SELL
        reach = self.makers.half_ticks * (style.near_halves + rng.expovariate(1.0) * style.patience_halves)
        size = 1.0
        if rng.random() < style.sweep_share:
            reach += fair_ticks * rng.random() * style.sweep_bps / 1e4
            size = SWEEP_LOTS
        return self.take(venue, direction, fair_ticks, reach, size, now_ms)

    def improved(self, venue: Venue, fair_ticks: float, now_ms: int) -> list[Trade]:
        """As `noise`, but only against quotes better than every anonymous one: a recorded book stays as it is."""
        direction = Direction.BUY if self.rng.random() < 0.5 else Direction.SELL
        bid, ask = venue.touch(self.name)
        bids, asks = venue.anonymous_levels(self.name)
        if direction is Direction.BUY:
            quote, rest = ask, min(asks, default=None)
            better = quote is not None and (rest is None or quote < rest)
        else:
            quote, rest = bid, max(bids, default=None)
            better = quote is not None and (rest is None or quote > rest)
        if quote is None or not better:
            return []
        reach = 2.0 * self.makers.half_ticks
        ticks = self.makers.ticks(quote)
        if (ticks - fair_ticks if direction is Direction.BUY else fair_ticks - ticks) > reach:
            return []
        return venue.take(self.name, direction, self.amount(1.0), quote, now_ms)

    def informed(self, venue: Venue, future_ticks: float, now_ms: int) -> list[Trade]:
        """Take every quote that the coming fair price makes a bargain."""
        bid, ask = venue.touch(self.name)
        if ask is not None and self.makers.ticks(ask) < future_ticks:
            return self.take(venue, Direction.BUY, future_ticks, 0.0, INFORMED_LOTS, now_ms)
        if bid is not None and self.makers.ticks(bid) > future_ticks:
            return self.take(venue, Direction.SELL, future_ticks, 0.0, INFORMED_LOTS, now_ms)
        return []

    def take(
        self, venue: Venue, direction: Direction, fair_ticks: float, reach_ticks: float, size: float, now_ms: int
    ) -> list[Trade]:
        """Trade at no worse than `reach_ticks` beyond fair; nothing is sent where nobody quotes there."""
        bid, ask = venue.touch(self.name)
        makers = self.makers
        if direction is Direction.BUY:
            limit = makers.grid.floor(fair_ticks + reach_ticks)
            if ask is None or makers.ticks(ask) > limit:
                return []
        else:
            limit = makers.grid.ceil(fair_ticks - reach_ticks)
            if bid is None or makers.ticks(bid) < limit:
                return []
        return venue.take(
            self.name, direction, self.amount(size), makers.price(max(limit, makers.grid.above(0))), now_ms
        )

    def amount(self, size: float) -> Decimal:
        lots = self.style.median_lots * size * math.exp(self.style.spread_lots * self.rng.gauss(0.0, 1.0))
        return self.makers.lot * max(1, round(lots))
