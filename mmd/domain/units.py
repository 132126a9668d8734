"""Prices and amounts as integers: ticks on a price grid, lots on an amount grid.

A grid has one base tick, the finest step it knows; where the exchange uses wider steps at
higher prices, they are multiples of it. `price_ticks` always counts base ticks.
"""

import math
from decimal import Decimal

import msgspec

from mmd.domain.errors import OffGrid

# A model price within a millionth of a tick of the grid is on it: float noise, not a price.
GRID_NOISE_TICKS = 1e-6


class GridStep(msgspec.Struct, frozen=True):
    """From `from_ticks` (base ticks, inclusive) upwards prices are multiples of `step_ticks`."""

    from_ticks: int
    step_ticks: int


class Grid(msgspec.Struct, frozen=True):
    """The price grid of one instrument. `tick` is in the instrument's price unit."""

    tick: Decimal
    steps: tuple[GridStep, ...] = ()

    def step_at(self, price_ticks: float) -> int:
        """The step that is valid at this price, in base ticks."""
        step = self.steps[0].step_ticks if self.steps and self.steps[0].from_ticks <= 0 else 1
        for entry in self.steps:
            if entry.from_ticks <= price_ticks:
                step = entry.step_ticks
        return step

    def floor(self, price_ticks: float) -> int:
        """The highest grid price at or below `price_ticks`; base ticks."""
        if not self.steps:
            return math.floor(price_ticks + GRID_NOISE_TICKS)
        step = self.step_at(price_ticks + GRID_NOISE_TICKS)
        return math.floor((price_ticks + GRID_NOISE_TICKS) / step) * step

    def ceil(self, price_ticks: float) -> int:
        """The lowest grid price at or above `price_ticks`; base ticks."""
        if not self.steps:
            return math.ceil(price_ticks - GRID_NOISE_TICKS)
        step = self.step_at(price_ticks - GRID_NOISE_TICKS)
        up = math.ceil((price_ticks - GRID_NOISE_TICKS) / step) * step
        wider = self.step_at(up)  # rounding up may enter a range with wider steps
        return up if wider == step else -(-up // wider) * wider

    def below(self, price_ticks: int) -> int:
        """The next grid price strictly below."""
        return self.floor(price_ticks - 1)

    def above(self, price_ticks: int) -> int:
        """The next grid price strictly above."""
        return self.ceil(price_ticks + 1)

    def price(self, price_ticks: int) -> Decimal:
        """Base ticks to the exchange's price unit, exact."""
        return self.tick * price_ticks

    def ticks(self, price: Decimal) -> int:
        """A price in the exchange's unit to base ticks; OffGrid if it is no whole number of them."""
        return whole(price, self.tick)


def whole(value: Decimal, unit: Decimal) -> int:
    """`value` as a whole number of `unit`; OffGrid if it is none."""
    count, rest = divmod(value, unit)
    if rest:
        raise OffGrid(f"{value} is not a multiple of {unit}")
    return int(count)


def whole_down(value: Decimal, unit: Decimal) -> int:
    """`value` in whole units, the rest dropped (towards zero)."""
    return int(value / unit)
