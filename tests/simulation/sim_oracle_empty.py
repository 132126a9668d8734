"""A halt that is shown as proven, and an orderly stop, leave nothing of ours at the exchange."""

from sim_judge import Oracle, Side, all_ours, glance, shown
from sim_world_type import World

from mmd.domain.reasons import State


class Empty(Oracle):
    promise = "empty book"

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for worker in world.workers():
            if worker.machine.state is State.HALTED and worker.proven:
                side = sides[worker.symbol]
                if side.bids or side.asks:
                    rest = shown(side.bids + side.asks)
                    raise self.broken(f"{worker.symbol} is HALTED and proven empty: {rest} rests", worker.symbol)

    def stopped(self, world: World) -> None:
        farewell = world.farewell
        if farewell is not None and farewell.proven_empty:
            left = list(all_ours(glance(world)))
            if left:
                raise self.broken(f"after a stop that was proven empty rests {shown(left)}")
