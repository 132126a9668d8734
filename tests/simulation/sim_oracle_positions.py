"""Once it is calm, our position is the exchange's, and no fill was counted twice or not at all."""

from sim_judge import Oracle, glance
from sim_world_type import World


class Positions(Oracle):
    promise = "positions equal"

    def settled(self, world: World) -> None:
        sides = glance(world)
        for worker in world.workers():
            ours = worker.machine.instrument.amount(worker.machine.position.lots)
            theirs = sides[worker.symbol].position
            if ours != theirs:
                raise self.broken(f"ours {ours}, the exchange's {theirs}", worker.symbol)
