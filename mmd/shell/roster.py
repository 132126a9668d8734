"""One nursery per symbol: its timer lives in it, its end ends it."""

from collections.abc import Iterable

import trio

from mmd.config.select import Resolved
from mmd.core.machine import SymbolMachine
from mmd.domain.errors import ConfigError
from mmd.domain.events import RemovalRequested, SettingsChanged, TimerFired
from mmd.domain.ids import base36
from mmd.domain.reasons import Why
from mmd.shell.lookout import Lookout
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker


class Roster:
    """Adds and removes symbols on the running daemon."""

    def __init__(
        self, pump: Pump, treasury: Treasury, register: HaltRegister, lookout: Lookout, nursery: trio.Nursery
    ) -> None:
        """`nursery`: where the symbols' own nurseries live."""
        self._register = register
        self._lookout = lookout
        self._pump = pump
        self._treasury = treasury
        self._nursery = nursery
        self.parting: dict[str, Worker] = {}

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
            workers.append(Worker(machine, self._pump.counters.symbol(resolved.instrument.key)))
        if errors:
            raise ConfigError(errors)
        return workers

    def enlist(self, workers: list[Worker]) -> None:
        """Put prepared workers into service and follow their instruments."""
        for worker in workers:
            self._pump.add(worker)
            self._nursery.start_soon(self._live, worker)
        self._register.restore(workers)
        self._lookout.brief(workers)
        self._treasury.join(workers)
        self.watch()

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
        self.parting.pop(worker.key, None)
        self.watch()
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
