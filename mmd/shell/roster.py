"""One nursery per symbol: its timer lives in it, its end ends it."""

from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType

import trio

from mmd.config.select import Resolved
from mmd.core.machine import SymbolMachine
from mmd.domain.errors import ConfigError
from mmd.domain.events import JournalDoubted, RemovalRequested, SettingsChanged, TimerFired
from mmd.domain.ids import base36
from mmd.domain.reasons import Why
from mmd.journal.records import Joined, Left
from mmd.shell.keeper import Orphan
from mmd.shell.lookout import Lookout
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker

NOTHING: Mapping[str, SymbolMachine] = MappingProxyType({})
NO_DOUBTS: Mapping[str, str] = MappingProxyType({})


def nobody_minds(_key: str) -> None:
    """Who left stays away."""


class Roster:
    """Adds and removes symbols on the running daemon."""

    def __init__(
        self,
        pump: Pump,
        treasury: Treasury,
        register: HaltRegister,
        lookout: Lookout,
        nursery: trio.Nursery,
        past: Mapping[str, SymbolMachine] = NOTHING,
        doubts: Mapping[str, str] = NO_DOUBTS,
    ) -> None:
        """`nursery`: where the symbols' own nurseries live. `past`: what the last process left, by symbol's key;
        `doubts`: of which of them something could not be read back, and why."""
        self._past = dict(past)
        self._doubts = dict(doubts)
        self._register = register
        self._lookout = lookout
        self._pump = pump
        self._treasury = treasury
        self._nursery = nursery
        self.parting: dict[str, Worker] = {}
        self.departed: Callable[[str], None] = nobody_minds  # called once a symbol that was removed is gone

    def prepare(self, wanted: Iterable[Resolved]) -> list[Worker]:
        """Machines for new symbols, none of them in service yet; ConfigError names what does not fit."""
        now_ns = self._pump.clock.now_ns()
        # Now, not the daemon's start: a symbol that left and comes back must not use its old labels again.
        epoch = base36(now_ns // 1_000_000)
        workers: list[Worker] = []
        errors: list[str] = []
        for resolved in wanted:
            try:
                machine = SymbolMachine(resolved.instrument, resolved.settings, epoch, now_ns)
            except ValueError as wrong:
                errors.append(f"{resolved.entry}: {wrong}")
                continue
            old = self._past.get(machine.instrument.key)
            if old is not None and not machine.cannot_inherit(old):
                machine.inherit(old, now_ns)
            workers.append(Worker(machine, self._pump.counters.symbol(resolved.instrument.key)))
        if errors:
            raise ConfigError(errors)
        return workers

    def enlist(self, workers: list[Worker]) -> None:
        """Put prepared workers into service and follow their instruments."""
        for worker in workers:
            self._put_on_record(worker)
            self._pump.add(worker)
            self._nursery.start_soon(self._live, worker)
        self._register.restore(workers)
        self._lookout.brief(workers)
        self._treasury.join(workers)
        self.watch()

    def orphans(self) -> dict[str, Orphan]:
        """Whom nobody has inherited from yet, by symbol's key."""
        keys = dict.fromkeys((*self._past, *self._doubts))
        return {key: Orphan(self._past.get(key), self._doubts.get(key, "")) for key in keys}

    def forget_past(self, awaited: Container[str]) -> None:
        """Only who is there when its exchange comes inherits. `awaited`: exchanges that have not come."""
        for past in (self._past, self._doubts):
            for key in [key for key in past if key.partition("/")[0] not in awaited]:
                del past[key]

    def _put_on_record(self, worker: Worker) -> None:
        """That it came into service, what it took over, and what it could not."""
        machine, key = worker.machine, worker.key
        journal, old = self._pump.journal, self._past.pop(key, None)
        doubt = self._doubts.pop(key, "")
        if old is not None and not machine.heir:
            doubt = f"{machine.cannot_inherit(old)}; {doubt}".rstrip("; ")
        if journal is not None:
            journal.put(
                Joined,
                machine.since_ns,
                key=key,
                instrument=machine.instrument,
                settings=machine.settings,
                epoch=machine.epoch,
                inherits=machine.heir,
            )
        if machine.heir:
            worker.shadow.number = machine.imagined.pessimistic.fills + machine.imagined.optimistic.fills
        if self._pump.cases is not None:
            self._pump.cases.restored(worker)
        if doubt:
            self._pump.post(worker, JournalDoubted(doubt, self._pump.clock.now_ns()))

    def change(self, key: str, resolved: Resolved) -> None:
        """New settings for a running symbol; its orders stay where the new quote allows."""
        now_ns = self._pump.clock.now_ns()
        worker = self._pump.workers[key]
        worker.configured_mode = resolved.settings.mode
        self._pump.post(worker, SettingsChanged(worker.effective(resolved.settings), now_ns))

    def remove(self, keys: Iterable[str], why: Why) -> None:
        """Drain these symbols; each leaves when nothing of ours rests."""
        now_ns = self._pump.clock.now_ns()
        for key in keys:
            worker = self._pump.workers[key]
            self.parting[key] = worker
            self._pump.post(worker, RemovalRequested(why, now_ns))

    def watch(self) -> None:
        """Tell every exchange which instruments to follow."""
        for name, exchange in self._pump.exchanges.items():
            exchange.watch([worker.symbol for worker in self._pump.workers.values() if worker.exchange == name])

    async def _live(self, worker: Worker) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._timers, worker)
            await worker.gone.wait()
            nursery.cancel_scope.cancel()
        self._treasury.leave(worker)
        machine = worker.machine
        if machine.position.lots and machine.why is Why.REMOVED:
            detail = f"{machine.instrument.amount_text(machine.position.lots)} stays and counts towards the totals"
            self._pump.diary.note("position.left", detail, symbol=worker.symbol, exchange=worker.exchange)
        self._pump.drop(worker)
        if machine.why is not Why.SHUTDOWN:
            self._pump.counters.part(worker.key)
            if self._pump.journal is not None:  # at a stop: the next process inherits from that one
                self._pump.journal.put(Left, self._pump.clock.now_ns(), key=worker.key)
        self.parting.pop(worker.key, None)
        self.watch()
        if machine.why is Why.REMOVED:
            self.departed(worker.key)
            await self._pump.deliver()
        self._pump.turned.unpark_all()

    async def _timers(self, worker: Worker) -> None:
        """Post TimerFired when the machine asked for it."""
        clock = self._pump.clock
        while True:
            worker.timer_moved = trio.Event()
            if not worker.timer_ns:
                await worker.timer_moved.wait()
                continue
            with trio.move_on_after(clock.seconds_until(worker.timer_ns)) as due:
                await worker.timer_moved.wait()
            if due.cancelled_caught:
                worker.timer_ns = 0
                self._pump.post(worker, TimerFired(clock.now_ns()))
                await self._pump.deliver()
