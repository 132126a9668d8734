"""Who is HALTED and what was lost, kept on disk: a restart forgives neither.

Halts are restored when a symbol comes into service and written when one halts or is reset. Losses
are written every few seconds, and the next process counts the day and the drawdown on from there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio

from mmd.core.machine import SymbolMachine
from mmd.domain.actions import StateChanged, Tripped
from mmd.domain.events import HaltRequested
from mmd.domain.reasons import Response, Scope, State, Switch
from mmd.domain.totals import CarriedLosses
from mmd.journal.halts import FORMAT, Halt, HaltFile
from mmd.journal.statefile import JournalFailed, StateFile
from mmd.shell import logs
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

PROBE_SECONDS = 0.5
LOOKS_PER_WRITE = 10
LOSSES = "losses.json"
log = logs.get("mmd.register")


class LossRegister(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `losses.json`."""

    format: int
    losses: CarriedLosses


class LossKeeper:
    """The day's gain and the drawdowns, from one process to the next."""

    def __init__(self, directory: Path, losses: Callable[[], CarriedLosses]) -> None:
        """`losses`: what has been counted up to now."""
        self._file = StateFile(directory / LOSSES, LossRegister)
        self._losses = losses
        self._written: CarriedLosses | None = None

    def write(self) -> None:
        """If it changed. Raises JournalFailed."""
        losses = self._losses()
        if losses != self._written:
            self._file.write(LossRegister(FORMAT, losses))
            self._written = losses


def carried_losses(directory: Path | None) -> CarriedLosses | None:
    """What the last process had counted. Raises JournalFailed if it is there and cannot be read."""
    if directory is None:
        return None
    file = StateFile(directory / LOSSES, LossRegister)
    register = file.read()
    if register is not None and register.format != FORMAT:
        raise JournalFailed(f"{file.path}: format {register.format}, this version reads {FORMAT}")
    return register.losses if register is not None else None


class HaltRegister:
    """Owns the file. A register that cannot be written halts everything: a halt must survive a restart."""

    def __init__(self, file: HaltFile | None, pump: Pump) -> None:
        """Raises JournalFailed if the file is there and cannot be read. None: nothing is kept (demo, tests)."""
        self._file = file
        self.losses: LossKeeper | None = None
        self._pump = pump
        self.halts: dict[str, Halt] = file.read() if file is not None else {}
        self.failed: str = ""  # why it cannot be written; empty while it can
        pump.journal_failed = self.fail
        pump.remember = self.remember
        pump.write = self.write

    def restore(self, workers: list[Worker]) -> None:
        """Halt what was HALTED when the last process ended."""
        for worker in workers:
            halt = self.halts.get(worker.key)
            if halt is not None:
                now_ns = self._pump.clock.now_ns()
                self._pump.alarm.restored(worker, f"{halt.why}: {halt.detail}, by {halt.by}")
                detail = (
                    halt.detail if halt.detail.startswith("before a restart") else f"before a restart: {halt.detail}"
                )
                self._pump.post(worker, HaltRequested(0, halt.why, halt.by, detail, now_ns))
        if self.failed:
            self._trip()

    def remember(self, worker: Worker, change: StateChanged) -> None:
        """This worker came to HALTED, or left it. A symbol that left the configuration keeps its entry.

        By the change, not by the machine: a halt and the stop may come in one batch, and both count.
        """
        if change.new is State.HALTED:
            self.halts[worker.key] = Halt(change.why, change.detail, change.by, worker.machine.since_ns)
        elif change.new is State.PAUSED:
            self.halts.pop(worker.key, None)
        self._pump.unwritten = True

    def write(self) -> None:
        """Called by the pump after a turn in which a halt came or went."""
        self._pump.unwritten = False
        if self._file is not None:
            self._try(lambda file: file.write(self.halts))

    def _try(self, what: Callable[[HaltFile], None]) -> None:
        assert self._file is not None
        try:
            what(self._file)
            if self.failed:
                self._file.write(self.halts)  # what could not be written then; only now is it over
        except JournalFailed as error:
            self.fail(str(error))
            return
        journal = self._pump.journal
        if self.failed and (journal is None or not journal.failing):
            self.failed = ""
            self._pump.clear(Switch.JOURNAL_FAILURE)
            self._pump.diary.note("journal.writable", "the state directory can be written again")

    def fail(self, detail: str) -> None:
        """The state directory, or the journal in it, cannot be written: everybody halts."""
        if not self.failed:
            self.failed = detail
            log.error("journal.failed", detail=detail)
            self._trip()

    def inherit(self, past: Mapping[str, SymbolMachine]) -> None:
        """Halts that the journal has and the register has not: the last process ended between the two."""
        for key, machine in past.items():
            if machine.latch is not None and key not in self.halts:
                self.halts[key] = Halt(**msgspec.structs.asdict(machine.latch))
                self._pump.unwritten = True

    def _trip(self) -> None:
        self._pump.trip(Tripped(Switch.JOURNAL_FAILURE, Scope.PORTFOLIO, "", Response.HALT, self.failed))

    async def run(self) -> None:
        """See twice a second whether the state directory can still be written, for ever."""
        looks = 0
        while True:
            await trio.sleep(PROBE_SECONDS)
            if self._file is None:
                continue
            looks += 1
            self._try(HaltFile.probe)
            if looks % LOOKS_PER_WRITE == 0:
                self.keep_losses()
            await self._pump.deliver()

    def keep_losses(self) -> None:
        """Write what has been lost up to now; also called when the daemon stops."""
        losses = self.losses
        if losses is not None:
            self._try(lambda _: losses.write())
