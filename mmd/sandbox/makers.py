"""The anonymous market makers of one instrument: a ladder around the fair price that follows it and breathes.

Prices are in base ticks of the instrument's grid. The gaps say how far the best bid and ask stay
from fair; an infinite gap is a side nobody makes (deep options). A best price stays while it is
about right, so that books do not flicker between two ticks.
"""

import math
import random
from decimal import Decimal

import msgspec

from mmd.domain.units import Grid, GridStep, whole
from mmd.sandbox.model import SandboxInstrument

Levels = dict[Decimal, Decimal]

# Of one price step: a best price moves when the wanted one is so far beyond it.
STICKY_INNER = 0.3
STICKY_OUTER = 1.3
LOWEST_BID = 0.4
CACHED_PRICES = 4096


class MakerStyle(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of instrument is made."""

    levels: int  # per side
    spacing_ticks: float  # mean distance between a level and the touch
    median_lots: float
    spread_lots: float  # standard deviation of the logarithm of an amount


class Makers:
    """Wanted book of one instrument, as changes to the anonymous levels that are there."""

    def __init__(self, instrument: SandboxInstrument, style: MakerStyle, rng: random.Random) -> None:
        self.grid = grid_of(instrument)
        self.lot = instrument.min_trade_amount
        self.style = style
        self.rng = rng
        # Distance of best bid and ask from fair, in units of `half_ticks`; set apart by recordings.
        self.bid_scale = 1.0
        self.ask_scale = 1.0
        self.half_ticks = 1.0
        # Fair price minus theory, ticks: what the makers believe beyond the model.
        self.offset_ticks = 0.0
        self.levels = (style.levels, style.levels)
        self._prices: dict[int, Decimal] = {}
        self._ticks: dict[Decimal, int] = {}

    def price(self, ticks: int) -> Decimal:
        known = self._prices.get(ticks)
        if known is None:
            if len(self._prices) > CACHED_PRICES:
                self._prices.clear()
            known = self._prices[ticks] = self.grid.price(ticks)
        return known

    def ticks(self, price: Decimal) -> int:
        known = self._ticks.get(price)
        if known is None:
            if len(self._ticks) > CACHED_PRICES:
                self._ticks.clear()
            known = self._ticks[price] = whole(price, self.grid.tick)
        return known

    def adopt(self, bids: Levels, asks: Levels, theory_ticks: float) -> None:
        """Take over a book as it stands: its touch is right where it is, its missing sides stay missing."""
        half = self.half_ticks
        best_bid = self.ticks(max(bids)) if bids else -math.inf
        best_ask = self.ticks(min(asks)) if asks else math.inf
        self.bid_scale = (theory_ticks - best_bid) / half
        self.ask_scale = (best_ask - theory_ticks) / half
        self.offset_ticks = 0.0
        self.levels = (max(len(bids), self.style.levels), max(len(asks), self.style.levels))

    def snapshot(self, theory_ticks: float) -> tuple[Levels, Levels]:
        """A whole new book."""
        bids: dict[int, Decimal] = {}
        asks: dict[int, Decimal] = {}
        bid, ask = self.targets(bids, asks, theory_ticks)
        for side, target, sign, count in ((bids, bid, -1, self.levels[0]), (asks, ask, 1, self.levels[1])):
            if target is None:
                continue
            side[target] = self.amount(0)
            for _ in range(4 * count):
                if len(side) >= count:
                    break
                deeper = self.deeper(target, sign)
                if deeper is not None:
                    side.setdefault(deeper, self.amount(abs(deeper - target)))
        return {self.price(t): a for t, a in bids.items()}, {self.price(t): a for t, a in asks.items()}

    def requote(self, bids: Levels, asks: Levels, theory_ticks: float) -> tuple[Levels, Levels]:
        """Changes that bring these anonymous levels up to date: stale prices go, the best one stands, one level
        breathes. Afterwards every bid is below every ask."""
        bid_ticks = {self.ticks(price): amount for price, amount in bids.items()}
        ask_ticks = {self.ticks(price): amount for price, amount in asks.items()}
        bid, ask = self.targets(bid_ticks, ask_ticks, theory_ticks)
        return self.side_changes(bid_ticks, bid, -1), self.side_changes(ask_ticks, ask, 1)

    def targets(
        self, bids: dict[int, Decimal], asks: dict[int, Decimal], theory_ticks: float
    ) -> tuple[int | None, int | None]:
        """Where best bid and ask should stand; None where nobody makes a price."""
        fair = theory_ticks + self.offset_ticks
        raw_bid = fair - self.bid_scale * self.half_ticks
        raw_ask = fair + self.ask_scale * self.half_ticks
        bid: int | None = None
        ask: int | None = None
        if raw_bid > 0.0:
            best = max(bids, default=None)
            step = self.grid.step_at(raw_bid)
            held = best is not None and best - STICKY_INNER * step <= raw_bid < best + STICKY_OUTER * step
            bid = best if held else self.grid.floor(raw_bid)
            if bid == 0:  # the lowest price there is serves a little below its worth
                bid = step if raw_bid >= LOWEST_BID * step else None
        if raw_ask < math.inf:
            best = min(asks, default=None)
            step = self.grid.step_at(raw_ask)
            held = best is not None and best - STICKY_OUTER * step < raw_ask <= best + STICKY_INNER * step
            ask = best if held else max(self.grid.ceil(raw_ask), self.grid.above(0))
        if bid is not None and ask is not None and ask <= bid:
            ask = self.grid.above(bid)
        return bid, ask

    def side_changes(self, levels: dict[int, Decimal], target: int | None, sign: int) -> Levels:
        """`sign` is -1 for bids, 1 for asks: the direction away from the touch."""
        if target is None:
            return {self.price(ticks): Decimal(0) for ticks in levels}
        changes: dict[int, Decimal] = {ticks: Decimal(0) for ticks in levels if (ticks - target) * sign < 0}
        if target not in levels:
            changes[target] = self.amount(0)
        standing = {*levels, target} - {ticks for ticks, amount in changes.items() if not amount}
        wanted = self.levels[0] if sign < 0 else self.levels[1]
        if len(standing) < wanted:
            deeper = self.deeper(target, sign)
            if deeper is not None and deeper not in standing:
                changes[deeper] = self.amount(abs(deeper - target))
        elif len(standing) > wanted:
            farthest = min(standing) if sign < 0 else max(standing)
            changes[farthest] = Decimal(0)
        if not changes or self.rng.random() < 0.3:
            breathing = self.rng.choice(sorted(standing - changes.keys()) or [target])
            changes[breathing] = self.amount(abs(breathing - target))
        return {self.price(ticks): amount for ticks, amount in changes.items()}

    def deeper(self, target: int, sign: int) -> int | None:
        """A random grid price behind the touch; None below the lowest price."""
        distance = 1.0 + self.rng.expovariate(1.0 / self.style.spacing_ticks)
        ticks = self.grid.floor(target - distance) if sign < 0 else self.grid.ceil(target + distance)
        return ticks if ticks > 0 else None

    def amount(self, depth_ticks: float) -> Decimal:
        """A random amount; deeper levels are larger."""
        style = self.style
        deep = 1.0 + min(depth_ticks / style.spacing_ticks, 4.0) * 0.5
        lots = style.median_lots * deep * math.exp(style.spread_lots * self.rng.gauss(0.0, 1.0))
        return self.lot * max(1, round(lots))


def grid_of(instrument: SandboxInstrument) -> Grid:
    """The price grid in base ticks."""
    tick = instrument.tick_size
    steps = tuple(
        GridStep(from_ticks=int(step.above_price / tick), step_ticks=int(step.tick_size / tick))
        for step in instrument.tick_size_steps
    )
    return Grid(tick=tick, steps=steps)
