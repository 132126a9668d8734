"""What was HALTED when a process ended is HALTED when the next one runs, until somebody resets it.

A halt needs a moment to be written; one that is younger than that when the process dies may be forgotten.
"""

from sim_judge import Oracle, Side
from sim_world_type import World

from mmd.domain.reasons import State

WRITTEN_SECONDS = 1.0


class Latched(Oracle):
    promise = "HALTED survives a restart"

    def __init__(self) -> None:
        self._number = 0
        self._halted: dict[str, float] = {}  # since when, in this life
        self._owed: set[str] = set()  # of the life before

    def look(self, world: World, sides: dict[str, Side]) -> None:
        life = world.life
        if life is None or life.daemon is None or not life.up:
            return
        if life.number != self._number:
            if life.daemon.phase != "running":
                return
            ended = world.ended_at
            self._owed = {name for name, since in self._halted.items() if ended - since >= WRITTEN_SECONDS}
            self._number, self._halted = life.number, {}
            self._check(world)
        for worker in world.workers():
            if worker.machine.state is State.HALTED:
                self._halted.setdefault(worker.symbol, world.now)
            elif worker.machine.state is not State.DRAINING:
                self._halted.pop(worker.symbol, None)

    def _check(self, world: World) -> None:
        assert world.life is not None
        for worker in world.workers():
            forgotten = worker.symbol in self._owed and worker.symbol not in world.life.operator.reset
            if forgotten and worker.machine.state not in (State.HALTED, State.DRAINING, State.GONE):
                detail = f"it was HALTED, and is {worker.machine.state} ({worker.machine.why})"
                raise self.broken(detail, worker.symbol)
