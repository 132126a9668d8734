"""No fill is lost or counted twice, across lives: positions never differ so long that a person is asked.

The exchange of this world never misstates a position, so a difference that is seen twice is ours.
"""

from sim_judge import Oracle, Side
from sim_world_type import World

from mmd.domain.reasons import CaseKind, Why


class NoFillLost(Oracle):
    promise = "no fill lost"

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for worker in world.workers():
            machine = worker.machine
            if (CaseKind.POSITION, "") in machine.cases or machine.why is Why.POSITION_DRIFT:
                ours, theirs = machine.position.lots, sides[worker.symbol].position
                raise self.broken(f"we count {ours} lots, the exchange {theirs}", worker.symbol)
