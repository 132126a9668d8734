"""What is done to a machine that cannot be run any more; live and in a replay the same."""

from mmd.core.symbol import Latch, SymbolState
from mmd.domain.actions import StateChanged
from mmd.domain.reasons import State, Why


def take_out(machine: SymbolState, detail: str, now_ns: int) -> StateChanged:
    """HALTED by force, whatever the table of states says; `detail`: what was wrong. Returns what changed."""
    change = StateChanged(machine.state, State.HALTED, Why.WORKER_FAULT, "mmd", detail)
    machine.state, machine.why, machine.detail, machine.by = change.new, change.why, detail, change.by
    machine.since_ns = now_ns
    machine.latch = Latch(change.why, detail, change.by, now_ns)
    return change
