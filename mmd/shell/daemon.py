"""The daemon: starts exchanges and symbols, answers the desk, reloads, and stops with nothing left behind.

What must stop last stands outermost: links outside, symbols within, helpers inmost.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from mmd.config.model import Config
from mmd.config.select import Resolution
from mmd.domain.errors import ConfigError, MmdError
from mmd.domain.reasons import Why
from mmd.exchanges.api import Exchange, settle_seconds
from mmd.journal.disk import Disk
from mmd.journal.halts import HaltFile
from mmd.journal.records import Commanded, Stopped
from mmd.journal.segments import DIRECTORY
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal
from mmd.replay.recover import nobody_waits
from mmd.shell import expired, logs
from mmd.shell.alerts import Alerts
from mmd.shell.arrivals import Arrivals
from mmd.shell.cases import CaseBook
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.desk import Caller
from mmd.shell.diary import Diary
from mmd.shell.front import Front
from mmd.shell.heritage import NO_PAST, begin, configured, open_journal, read_back
from mmd.shell.history import History
from mmd.shell.keeper import InThread, Keeper
from mmd.shell.lookout import Lookout
from mmd.shell.office import Office
from mmd.shell.prover import Prover
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister, LossKeeper, carried_losses
from mmd.shell.reload import Generation, Reloader
from mmd.shell.remnants import Remnants
from mmd.shell.renamed import Names, lay_to_rest, merged
from mmd.shell.roster import Roster, nobody_minds
from mmd.shell.selecting import Listing, listing, select
from mmd.shell.sink import ExchangeSink
from mmd.shell.totals import Treasury
from mmd.shell.whereabouts import former_names, settle
from mmd.shell.wiring import Wired, wire

RECONCILE_SECONDS = 30.0
DRAIN_SECONDS = 20.0
PROOF_SECONDS = 8.0  # more than any exchange's budget is empty
PROOF_PAUSE_SECONDS = 0.5
AGAIN_SECONDS = 1.0  # after a question to an exchange that had just come failed
LOOK_AGAIN_SECONDS = 60.0  # after entries did not fit: what it lists, and says of prices, may be another
log = logs.get("mmd.daemon")


def _ignore(_: bool) -> None:
    """Until somebody wants to know of reloads."""


class Farewell(msgspec.Struct, frozen=True):
    """How a stop ended. `left` orders of ours at each exchange, None where it could not be asked."""

    left: dict[str, int | None]

    @property
    def proven_empty(self) -> bool:
        return all(count == 0 for count in self.left.values())

    def __str__(self) -> str:
        return ", ".join(f"{name}: {'unknown' if count is None else count}" for name, count in self.left.items())


class Daemon(Front):
    """Made inside trio; `run` once."""

    def __init__(
        self,
        config: Config,
        path: Path,
        wall_ns: Callable[[], int] | None = None,
        state: Path | None = None,
        *,
        disk: Disk | None = None,
        in_thread: InThread = trio.to_thread.run_sync,
        alive: Callable[[], None] = nobody_waits,
    ) -> None:
        """`state`: the state directory; None keeps nothing. `disk`, `in_thread`: how the journal gets to work.

        Reads back what the last process left, and calls `alive` meanwhile. Raises CredentialError, JournalFailed.
        """
        self.clock = Clock(wall_ns) if wall_ns else Clock()
        self.path = path
        self.started_ns = self.clock.now_ns()
        self.wired: dict[str, Wired] = {
            name: wire(exchange, config.service.name, self.started_ns, self.clock.now_ns)
            for name, exchange in config.exchanges.items()
        }
        self.journal: Journal | None = None
        self.past = NO_PAST
        self.former: Names = {}
        accounts = {name: wired.account for name, wired in self.wired.items()}
        self._state = state
        if state is not None:
            self.journal = self._begin(state, config, accounts, disk, alive)
        self.diary = Diary(self.clock, self.journal)
        self.diary.restore(self.past.notes, self.past.number)
        self.history = History(self.diary, None if state is None else state / DIRECTORY)
        self.counters = Counters()
        exchanges: dict[str, Exchange] = {name: wired.exchange for name, wired in self.wired.items()}
        self.alarms = Alerts(self.clock, self.diary, self.counters, config.service.name, journal=self.journal)
        self.alarms.configure(config.alerts)
        self.alarms.healthy = self.healthy
        self.pump = Pump(self.clock, self.diary, self.counters, exchanges, self.alarms, self.journal)
        self.pump.cases = CaseBook(state, self.pump)
        halts = HaltFile(state, config.service.name) if state is not None else None
        self.register = HaltRegister(halts, self.pump)
        self.register.inherit(self.past.halted)
        self.lookout = Lookout(config.switches, self.pump)
        self.prover = Prover(self.pump)
        self.arrivals = Arrivals(exchanges, self.past, self.alarms)
        self.sinks = {name: self._sink(name) for name in exchanges}
        inherited = self.past.carried or carried_losses(state)
        self.treasury = Treasury(config.portfolio, config.switches, self.pump, inherited)
        self.remnants = Remnants(self.treasury, exchanges, self.diary, config.reconciliation.interval_seconds)
        self.keeper: Keeper | None = None
        if state is not None and self.journal is not None:
            self.register.losses = LossKeeper(state, self.treasury.machine.carried)
            self.keeper = Keeper(self.journal, config.journal, self.pump, in_thread, disk, accounts)
            self.keeper.opened = self._restate
        self.office = Office(self.pump)
        self._config = config
        self._protect(config)
        self._brief(config)
        self._reloader: Reloader | None = None
        self._nursery: trio.Nursery | None = None
        self.phase = "starting"
        self.drain_seconds = DRAIN_SECONDS
        self.farewell: Farewell | None = None
        self.on_reload: Callable[[bool], None] = _ignore
        self.reconfigured = trio.Event()
        self.running, self.stopped = trio.Event(), trio.Event()
        self._starting = trio.CancelScope()
        self._stop_requested = trio.Event()

    # --- life ------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `stop`. Started once every symbol of the exchanges that came is reconciled (or had its time to be)."""
        async with trio.open_nursery() as links:
            with self._starting:
                await self._connect(links)
                async with trio.open_nursery() as symbols:
                    self._nursery = symbols
                    here = await self._enlist(symbols)
                    symbols.start_soon(self.treasury.run)
                    symbols.start_soon(self.register.run)
                    symbols.start_soon(self.lookout.run)
                    symbols.start_soon(self.prover.run)
                    symbols.start_soon(self.remnants.run)
                    if self.keeper is not None:
                        symbols.start_soon(self.keeper.run, self.treasury.machine)
                    await self._reconciled(here)
                    self.treasury.value_all()  # who is ready has its bounds, and quotes as soon as it is resumed
                    await self.pump.deliver()
                    if not self._stop_requested.is_set():
                        self.phase = "running"
                        self.running.set()
                    if self.former:
                        late = max(settle_seconds(each.order_valid_ms) for each in self._config.exchanges.values())
                        rest = self.former, late, self.pump.exchanges, self.diary, self._settled
                        symbols.start_soon(lay_to_rest, *rest)
                    task_status.started()
                    await self._stop_requested.wait()
                    self.phase = "stopping"
                    self.treasury.value_all()
                    self.register.keep_losses()
                    self.farewell = await self._drain()
                    self.register.keep_losses()
                    symbols.cancel_scope.cancel()
            links.cancel_scope.cancel()
        self._close_journal()
        self.phase = "stopped"
        self.stopped.set()

    def _begin(
        self, state: Path, config: Config, accounts: dict[str, str], disk: Disk | None, alive: Callable[[], None]
    ) -> Journal:
        """The journal, with what the last process left read back from it, and the first records of this one."""
        alive()
        journal = open_journal(state, config, self.started_ns, disk)
        self.past = read_back(journal, disk, accounts, alive)
        alive()
        begin(journal, config, self.past, accounts, self.started_ns)
        self.former = merged(former_names(state, config), self.past.former)
        return journal

    def _sink(self, name: str) -> ExchangeSink:
        sink = ExchangeSink(name, self.pump, self.counters.exchange(name), self.lookout.disconnected)
        sink.refused = self.arrivals.refuses_login
        return sink

    def _brief(self, config: Config) -> None:
        """Tell every exchange what is known already, and how often to compare."""
        for name, exchange in self.pump.exchanges.items():
            exchange.reconcile_every(config.reconciliation.interval_seconds)
            exchange.known_until(self.past.known_ms(name), self.past.from_ms(name))
            if name in self.former:
                exchange.also_ours(tuple(self.former[name]))

    def _settled(self) -> None:
        """Nothing rests under a former name of the service any more: the reaper need not look for it."""
        assert self._state is not None, "it has names of its own"
        try:
            settle(self._state, self.in_force)
        except JournalFailed as error:
            log.error("whereabouts.failed", detail=str(error))

    def _restate(self) -> None:
        """Every file of the journal says which configuration is in force."""
        assert self.journal is not None, "only a journal's keeper calls"
        current = self._reloader.current if self._reloader is not None else None
        config, number = (current.config, current.number) if current is not None else (self._config, 1)
        configured(self.journal, config, number, config.sha256, self.clock.now_ns())

    def _close_journal(self) -> None:
        """The last words; a process that ends without them has crashed."""
        if self.journal is None:
            return
        left = self.farewell.left if self.farewell is not None else {}
        self.journal.put(Stopped, self.clock.now_ns(), left=left)
        try:
            self.journal.commit()
            self.journal.sync()
        except JournalFailed as failed:
            log.error("journal.failed", detail=str(failed))
        self.journal.close()

    def record_command(self, caller: Caller, method: str, params: dict[str, Any], outcome: str) -> None:
        """Who asked for what, and what came of it."""
        if self.journal is not None:
            self.journal.put(
                Commanded,
                self.clock.now_ns(),
                uid=caller.uid,
                pid=caller.pid,
                name=caller.name,
                method=method,
                params=params,
                outcome=outcome,
            )

    def stop(self) -> None:
        """Drain and end; before there is anything that could quote, just end."""
        self._stop_requested.set()
        if self._reloader is None:
            self._starting.cancel()
        self.pump.turned.unpark_all()

    async def _connect(self, links: trio.Nursery) -> None:
        """All exchanges at once; returns when each has listed its instruments, or the others have waited enough."""
        for name, wired in self.wired.items():
            links.start_soon(self._connect_one, name, wired, links)
        here = await self.arrivals.gather()
        for name in self.wired.keys() - here:
            self.pump.exchanges[name].endure()

    async def _connect_one(self, name: str, wired: Wired, links: trio.Nursery) -> None:
        if wired.sandbox is not None:
            await links.start(wired.sandbox.run)
        await links.start(wired.exchange.run, self.sinks[name])
        self.arrivals.answered(name)

    async def _enlist(self, symbols: trio.Nursery) -> list[str]:
        """Symbols of the exchanges that came in time; returns which these are. The others follow, each for itself."""
        listings = await self._listings(self._config, self.arrivals.here)
        resolution = select(self._config, listings, self.clock.now_ns())
        past, here = self.past, list(listings)
        roster = Roster(self.pump, self.treasury, self.register, self.lookout, symbols, past.machines, past.doubts)
        workers = roster.prepare(resolution.symbols.values())
        first = Generation(1, self._config, resolution)
        parts = (self.pump, roster, self.treasury)
        self._reloader = Reloader(self.path, first, here, self._resolve, parts, self._adopt, self._committed)
        if self.keeper is not None:
            self.keeper.orphans = roster.orphans
        self.counters.config_applied_at = self.clock.now_ns() * 1e-9
        if past.told:
            self.diary.note("service.recovered", past.told)
        for name, names in self.former.items():
            detail = f"orders under {' and '.join(names)} are ours as well, until none is left"
            self.diary.note("service.renamed", detail, exchange=name)
        for note in resolution.notes:
            self.diary.note("config.note", note)
        self._await([name for name in self.wired if name not in here])
        for name in here:
            self._joined(name, resolution)
        roster.enlist(workers)
        roster.forget_past(self.arrivals.awaited)
        for name in self.arrivals.awaited:
            symbols.start_soon(self._until_stopped, partial(self._follow, name))
        await self.pump.deliver()
        return here

    def _await(self, late: list[str]) -> None:
        """The others go on without these. What may be held and rest there counts from now on."""
        if not late:
            return
        self.treasury.await_exchanges([self.past.awaited(name) for name in late])
        for name in late:
            self.arrivals.late(name)
            resting = self.past.may_rest(name)
            self.pump.outbox.elsewhere[name] = [machine.instrument.base for _, machine in resting]

    def _joined(self, name: str, resolution: Resolution) -> None:
        """Symbols of this exchange come into service; what of them expired meanwhile is told."""
        self.arrivals.joining(name)
        assert self._nursery is not None, "symbols have somewhere to live"
        gone = expired.gone(self.past, resolution, self.clock.now_ns(), name)
        self._nursery.start_soon(expired.tell, gone, self.pump.exchanges, self.diary)

    async def _follow(self, name: str) -> None:
        """An exchange that is late: once it is there, what the configuration in force wants of it is in service."""
        await self.arrivals.wait(name)
        first = True
        while True:
            changed = self.reconfigured
            if first or self.reloader.lacks(name):
                first = not await self._admit(name)
            with trio.move_on_after(LOOK_AGAIN_SECONDS if first else float("inf")):
                await changed.wait()

    async def _admit(self, name: str) -> bool:
        """Bring its symbols into service as a start does. False: its entries do not fit."""
        why = ""
        while True:
            try:
                await self.reloader.admit(name, partial(self._joined, name))
                break
            except ConfigError as wrong:
                self.arrivals.refused(name, "; ".join(wrong.lines))
                return False
            except MmdError as failed:  # its link was lost again
                if why != (why := str(failed)):
                    self.diary.note("exchange.not_asked", why, exchange=name)
                await trio.sleep(AGAIN_SECONDS)
        self.reloader.roster.forget_past(self.arrivals.awaited)
        self.pump.outbox.elsewhere.pop(name, None)
        await self._reconciled([name])
        self.treasury.told(name)
        self.treasury.value_all()
        await self.pump.deliver()
        return True

    async def _listings(self, config: Config, names: Iterable[str]) -> dict[str, Listing]:
        """Of those that answer. Raises MmdError where none does."""
        found: dict[str, Listing] = {}
        error: MmdError | None = None
        for name in names:
            try:
                found[name] = await listing(config, name, self.pump.exchanges[name], self.diary)
            except MmdError as failed:
                error = failed
                self.diary.note("exchange.not_asked", str(failed), exchange=name)
        if error is not None and not found:
            raise error
        return found

    async def _resolve(self, config: Config, names: Collection[str]) -> Resolution:
        """Select instruments with what these exchanges list now; the others are awaited."""
        listings = {name: await listing(config, name, self.pump.exchanges[name], self.diary) for name in names}
        return select(config, listings, self.clock.now_ns())

    async def _reconciled(self, names: Collection[str]) -> None:
        """Every symbol of these exchanges knows its orders and its position, or the time for it is up."""
        with trio.move_on_after(RECONCILE_SECONDS) as waited:
            waiting = ["positions of symbols that are gone"]
            await self._until_stopped(partial(self.remnants.settle, names))
            while (waiting := self.unreconciled(names)) and not self._stop_requested.is_set():
                await self.pump.wait_turn()
        if waited.cancelled_caught:
            self.diary.note("service.unreconciled", f"started without knowing orders of: {', '.join(waiting)}")
        for name in names:
            self.arrivals.served(name)

    async def _until_stopped(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, or leave it once a stop is requested."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._stop_requested.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await work()
            nursery.cancel_scope.cancel()

    def unreconciled(self, names: Collection[str]) -> list[str]:
        """Symbols of these exchanges whose orders or position are not known."""
        return [
            worker.key
            for worker in self.pump.workers.values()
            if worker.exchange in names
            and not (worker.machine.told_here and worker.machine.reconciled and worker.machine.position.known)
        ]

    async def _drain(self) -> Farewell:
        """Pull everything, wait until the exchanges confirm, then ask them once more."""
        roster = self.reloader.roster
        roster.departed = nobody_minds
        with trio.move_on_after(self.drain_seconds):
            while True:
                # Not only at first: a reload that is under way may still add some.
                staying = [key for key in self.pump.workers if key not in roster.parting]
                if staying:
                    roster.remove(staying, Why.SHUTDOWN)
                    await self.pump.deliver()
                if not self.pump.workers:
                    break
                await self.pump.wait_turn()
        left: dict[str, int | None] = dict.fromkeys(self.pump.exchanges)

        async def count(name: str, exchange: Exchange) -> None:
            why = ""
            while left[name] is None:
                try:
                    left[name] = sum(len(orders) for orders in (await exchange.open_orders()).values())
                except MmdError as failed:  # a link that was lost comes back in a moment
                    if self.arrivals.nothing_begun(name):
                        left[name] = 0
                        return
                    if why != (why := str(failed)):
                        self.diary.note("service.orders_unknown", why, exchange=name)
                    await trio.sleep(PROOF_PAUSE_SECONDS)

        with trio.move_on_after(PROOF_SECONDS):
            async with trio.open_nursery() as nursery:
                for name, exchange in self.pump.exchanges.items():
                    nursery.start_soon(count, name, exchange)
        farewell = Farewell(left)
        if farewell.proven_empty:
            self.diary.note("service.orders_gone", "no order of ours rests at any exchange")
        else:
            self.diary.note("service.orders_left", f"orders of ours that may rest: {farewell}")
        return farewell

    def _adopt(self, config: Config) -> None:
        """What of a configuration is not about symbols; CredentialError before anything has changed."""
        self.alarms.configure(config.alerts)
        self.lookout.change(config.switches)
        if self.keeper is not None and self.journal is not None:
            self.keeper.settings = self.journal.settings = config.journal
        for exchange in self.pump.exchanges.values():
            exchange.reconcile_every(config.reconciliation.interval_seconds)
        self.remnants.interval_seconds = config.reconciliation.interval_seconds
        self._protect(config)

    def _protect(self, config: Config) -> None:
        for name, exchange in config.exchanges.items():
            if exchange.protections or self.pump.exchanges[name].protections:
                self.pump.exchanges[name].protect(exchange.protections)

    def _committed(self) -> None:
        """A reload took effect, or was undone."""
        self.reconfigured.set()
        self.reconfigured = trio.Event()
