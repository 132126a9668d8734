"""Never two of our orders on one side of one symbol, whatever travels late, and across lives."""

from sim_judge import Oracle, Side, shown
from sim_world_type import World


class OnePerSide(Oracle):
    promise = "one order per side"

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for symbol, side in sides.items():
            for orders in (side.bids, side.asks):
                if len(orders) > 1:
                    raise self.broken(f"{len(orders)} of ours rest on one side of {symbol}: {shown(orders)}", symbol)
