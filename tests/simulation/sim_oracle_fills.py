"""No fill is lost or counted twice, across lives: positions never differ so long that a person is asked.

The exchange of this world never misstates a position, so a difference that is seen twice is ours; but for
a while after it has kept news of a fill to itself: then a halt is the right thing to do.
"""

from sim_judge import Oracle, Side
from sim_world_type import World

from mmd.domain.reasons import CaseKind

WITHHELD_SECONDS = 45.0  # until every question about it has been asked again


class NoFillLost(Oracle):
    promise = "no fill lost"

    def __init__(self) -> None:
        self._open: set[str] = set()  # symbols whose case is known

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for worker in world.workers():
            machine, symbol = worker.machine, worker.symbol
            if (CaseKind.POSITION, "") not in machine.cases:
                self._open.discard(symbol)
            elif symbol not in self._open:
                self._open.add(symbol)
                world.story.count("position cases")
                if world.now - world.withheld_at >= WITHHELD_SECONDS:
                    ours = machine.instrument.amount(machine.position.lots)
                    raise self.broken(f"we count {ours}, the exchange {sides[symbol].position}", symbol)
