"""Quotes are back soon after the weather has cleared, wherever configuration and operator allow them.

`missing` says what is still in the way, so that the wait has an end as soon as nothing is.
"""

from sim_world_type import World

from mmd.core.orders import Empty, Live
from mmd.core.quoting import Withheld
from mmd.domain.reasons import Missing, Mode, State
from mmd.shell.worker import Worker

BACK_SECONDS = 150.0  # 60 until a silent link is noticed, then backoff, login, reconciliation, reset and resume
ALLOWED = frozenset({Missing.NO_ROOM, Missing.OUTSIDE_BAND, Missing.BELOW_TICK})


def missing(world: World) -> tuple[str, str]:
    """The first thing that is not as it will be when it is calm: (what, symbol); empty if nothing."""
    daemon = world.daemon
    if daemon is None or daemon.phase != "running":
        return ("no daemon runs" if daemon is None else f"the daemon is {daemon.phase}"), ""
    workers = world.workers()
    if sorted(worker.symbol for worker in workers) != sorted(world.variant.symbols):
        return f"in service: {[worker.symbol for worker in workers]}, configured {world.variant.symbols}", ""
    for worker in workers:
        why = _unsettled(worker) or _silent(world, worker)
        if why:
            return why, worker.symbol
    return "", ""


def _unsettled(worker: Worker) -> str:
    machine = worker.machine
    if worker.depth:
        return f"{worker.depth} events wait"
    if not (machine.reconciled and machine.position.known) or machine.drift is not None:
        return f"reconciled {machine.reconciled}, position known {machine.position.known}, drift {machine.drift}"
    if machine.own.strays:
        return f"strays {sorted(machine.own.strays)}"
    for state in (machine.own.bid, machine.own.ask):
        if not isinstance(state.slot, Live | Empty):
            return f"{state.slot}"
    return ""


def _silent(world: World, worker: Worker) -> str:
    machine = worker.machine
    now_ns = world.host_now_ns
    if machine.state is State.ACTIVE:
        for state in (machine.own.bid, machine.own.ask):
            wanted = state.wanted
            if isinstance(wanted, Withheld):
                if wanted.why not in ALLOWED:
                    return f"{state.side} is withheld: {wanted.why}"
            elif not isinstance(state.slot, Live):
                return f"{state.side} wants {wanted}, has {state.slot}"
        return "" if machine.mode is Mode.LIVE else "its orders stay in the house"
    failing = {check.name for check in machine.checks(now_ns) if not check.ok}
    if machine.state is State.PAUSED and failing == {"bounds"}:
        world.story.count("held by bounds")
        return "" if not machine.own.resting else f"{machine.own.resting} orders rest"
    return f"{machine.state} ({machine.why}: {machine.detail}), failing: {sorted(failing)}"
