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

    `own`: where, and how large, our one order of this side may show: alternatives, so at one price
    only the largest counts. A level smaller than our order cannot hold it: the book has not shown
    it yet, or no longer does.
    """
    for price_ticks, size_lots in levels:
        ours = 0
        for own_ticks, own_lots in own:
            if own_ticks == price_ticks and ours < own_lots <= size_lots:
                ours = own_lots
        external = size_lots - ours
        if external > 0 and external >= least_lots:
            return (price_ticks, external)
    return (0, 0)


def read_level(
    levels: tuple[Level, ...], shown: tuple[tuple[Level, ...], ...], least_lots: int, before: Level
) -> Level:
    """The first external level; `shown`: each way in which the book may show our order, `before` the level until now.

    Whether a request in flight is in the book already, the book does not say, and an outsider of our size at
    that price looks the same. If one of the ways means that nothing has changed, nothing has: or our own
    requests would move the market that we see.
    """
    if len(shown) == 1:
        return best_external(levels, shown[0], least_lots)
    if any(best_external(levels, own, least_lots) == before for own in shown):
        return before
    return best_external(levels, tuple(level for own in shown for level in own), least_lots)
