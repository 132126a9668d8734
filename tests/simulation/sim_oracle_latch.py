"""What was HALTED when a process ended is HALTED when the next one runs, until somebody resets it.

A halt needs a moment to be written; one that is younger than that when the process dies may be forgotten.
"""

from sim_judge import Oracle, Side
from sim_world_type import World

from mmd.domain.reasons import State

GONE = (State.DRAINING, State.GONE)


class Latched(Oracle):
    promise = "HALTED survives a restart"

    def __init__(self) -> None:
        self._number = 0

    def look(self, world: World, sides: dict[str, Side]) -> None:
        life = world.life
        if life is None or not life.up or life.number == self._number:
            return
        assert life.daemon is not None
        if life.daemon.phase != "running":
            return
        self._number = life.number
        for worker in world.workers():
            owed = worker.symbol in world.halted and worker.symbol not in life.operator.reset
            if owed and worker.machine.state is not State.HALTED and worker.machine.state not in GONE:
                detail = f"it was HALTED, and is {worker.machine.state} ({worker.machine.why})"
                raise self.broken(detail, worker.symbol)
        world.halted.clear()
