"""The exchange's book without our own orders: never quote against, or climb over, ourselves."""

import msgspec

from mmd.domain.events import Level


class Touch(msgspec.Struct, frozen=True, gc=False):
    """Best external price and size per side; 0 lots = that side is empty (then the price means nothing)."""

    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int

    @property
    def two_sided(self) -> bool:
        return self.bid_lots > 0 and self.ask_lots > 0


def best_external(levels: tuple[Level, ...], own: tuple[Level, ...], least_lots: int) -> Level:
    """The first level that holds at least `least_lots`, and at least one, that are not ours; (0, 0) if none.

    `own`: where, and how large, our order of this side may show. A level smaller than our order
    cannot hold it: the book has not shown it yet, or no longer does.
    """
    for price_ticks, size_lots in levels:
        external = size_lots
        for own_ticks, own_lots in own:
            if price_ticks == own_ticks and external >= own_lots:
                external -= own_lots
        if external > 0 and external >= least_lots:
            return (price_ticks, external)
    return (0, 0)
