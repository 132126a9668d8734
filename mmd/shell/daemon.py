"""The daemon: starts exchanges and symbols, answers the desk, reloads, and stops with nothing left behind.

What must stop last stands outermost: links outside, symbols within, helpers inmost.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec
import trio

import mmd
from mmd.config.model import Config, Selection
from mmd.config.render import to_yaml
from mmd.config.select import Resolution, resolve
from mmd.domain.errors import ExchangeRefused, MmdError
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, Switch, Why
from mmd.exchanges.api import Exchange, LinkStats
from mmd.journal.halts import HaltFile
from mmd.shell import books, logs, views
from mmd.shell import flatten as flat
from mmd.shell.alerts import Alerts
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.desk import (
    AlertLine,
    Caller,
    ChangeResult,
    EventLine,
    ExchangeStatus,
    Explanation,
    FlattenPreview,
    LedgerLine,
    OrderLine,
    Outcome,
    PlanResult,
    PositionLine,
    ProtectionLine,
    ReloadResult,
    Status,
    SwitchLine,
    TotalLine,
)
from mmd.shell.diary import Diary
from mmd.shell.lookout import Lookout
from mmd.shell.office import Office, caller_name, matching
from mmd.shell.prover import Prover
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.reload import Generation, Reloader
from mmd.shell.roster import Roster
from mmd.shell.sink import ExchangeSink
from mmd.shell.totals import Treasury
from mmd.shell.wiring import Wired, wire
from mmd.shell.worker import Worker

RECONCILE_SECONDS = 30.0
DRAIN_SECONDS = 20.0
PROOF_SECONDS = 5.0
log = logs.get("mmd.daemon")


def _ignore(_: bool) -> None:
    """Until somebody wants to know of reloads."""


class Counted(msgspec.Struct, frozen=True):
    """Orders and fills of all symbols since the start, those that are gone included."""

    placed: int
    amended: int
    cancelled: int
    rejected: int
    fills: int


class Farewell(msgspec.Struct, frozen=True):
    """How a stop ended. `left` orders of ours at each exchange, None where it could not be asked."""

    left: dict[str, int | None]

    @property
    def proven_empty(self) -> bool:
        return all(count == 0 for count in self.left.values())

    def __str__(self) -> str:
        return ", ".join(f"{name}: {'unknown' if count is None else count}" for name, count in self.left.items())


class Daemon:
    """Implements `Desk` and `MetricsView`. Made inside trio; `run` once."""

    def __init__(
        self, config: Config, path: Path, wall_ns: Callable[[], int] | None = None, state: Path | None = None
    ) -> None:
        """`state`: the state directory; None keeps nothing. Raises CredentialError, JournalFailed."""
        self.clock = Clock(wall_ns) if wall_ns else Clock()
        self.path = path
        self.started_ns = self.clock.now_ns()
        self.diary = Diary(self.clock)
        self.counters = Counters()
        self.wired: dict[str, Wired] = {
            name: wire(exchange, config.service.name, self.started_ns, self.clock.now_ns)
            for name, exchange in config.exchanges.items()
        }
        exchanges: dict[str, Exchange] = {name: wired.exchange for name, wired in self.wired.items()}
        self.alarms = Alerts(self.clock, self.diary, self.counters, config.service.name)
        self.alarms.configure(config.alerts)
        self.alarms.healthy = self.healthy
        self.pump = Pump(self.clock, self.diary, self.counters, exchanges, self.alarms)
        halts = HaltFile(state, config.service.name) if state is not None else None
        self.register = HaltRegister(halts, self.pump)
        self.lookout = Lookout(config.switches, self.pump, self._exchange_well)
        self.prover = Prover(self.pump)
        self.sinks = {
            name: ExchangeSink(name, self.pump, self.counters.exchange(name), self.lookout.disconnected)
            for name in exchanges
        }
        self.treasury = Treasury(config.portfolio, config.switches, self.pump)
        self.office = Office(self.pump)
        self._config = config
        self._protect(config)
        self._reloader: Reloader | None = None
        self._nursery: trio.Nursery | None = None
        self.phase = "starting"
        self.drain_seconds = DRAIN_SECONDS
        self.farewell: Farewell | None = None
        self.on_reload: Callable[[bool], None] = _ignore
        self.reconfigured = trio.Event()
        self.running = trio.Event()
        self.stopped = trio.Event()
        self._starting = trio.CancelScope()
        self._stop_requested = trio.Event()

    # --- life ------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `stop`. Started once every symbol is reconciled (or had its time to be)."""
        async with trio.open_nursery() as links:
            with self._starting:
                await self._connect(links)
                async with trio.open_nursery() as symbols:
                    self._nursery = symbols
                    await self._enlist(symbols)
                    symbols.start_soon(self.treasury.run)
                    symbols.start_soon(self.register.run)
                    symbols.start_soon(self.lookout.run)
                    symbols.start_soon(self.prover.run)
                    await self._reconciled()
                    self.treasury.value_all()  # who is ready has its bounds, and quotes as soon as it is resumed
                    await self.pump.deliver()
                    if not self._stop_requested.is_set():
                        self.phase = "running"
                        self.running.set()
                    task_status.started()
                    await self._stop_requested.wait()
                    self.phase = "stopping"
                    self.farewell = await self._drain()
                    symbols.cancel_scope.cancel()
            links.cancel_scope.cancel()
        self.phase = "stopped"
        self.stopped.set()

    def stop(self) -> None:
        """Drain and end; before there is anything that could quote, just end."""
        self._stop_requested.set()
        if self._reloader is None:
            self._starting.cancel()
        self.pump.turned.unpark_all()

    async def _connect(self, links: trio.Nursery) -> None:
        """All exchanges at once; returns when each has listed its instruments."""
        async with trio.open_nursery() as starting:
            for name, wired in self.wired.items():
                starting.start_soon(self._connect_one, name, wired, links)

    async def _connect_one(self, name: str, wired: Wired, links: trio.Nursery) -> None:
        if wired.sandbox is not None:
            await links.start(wired.sandbox.run)
        await links.start(wired.exchange.run, self.sinks[name])

    async def _enlist(self, symbols: trio.Nursery) -> None:
        resolution = await self._resolve(self._config)
        roster = Roster(self.pump, self.treasury, self.register, self.lookout, symbols)
        workers = roster.prepare(resolution.symbols.values())
        first = Generation(1, self._config, resolution)
        parts = (self.pump, roster, self.treasury)
        self._reloader = Reloader(self.path, first, self._resolve, parts, self._adopt, self._committed)
        self.counters.config_applied_at = self.clock.now_ns() * 1e-9
        for note in resolution.notes:
            self.diary.note("config.note", note)
        roster.enlist(workers)
        await self.pump.deliver()

    async def _resolve(self, config: Config) -> Resolution:
        """Select instruments with what the exchanges list now."""
        listed = {name: exchange.instruments for name, exchange in self.pump.exchanges.items()}
        prices = {}
        for name, base, index in sorted(indexes(config, listed)):
            try:
                prices[(name, base)] = await self.pump.exchanges[name].index_price(index)
            except ExchangeRefused as refused:
                self.diary.note("exchange.no_index", f"{index}: {refused}", exchange=name)
        return resolve(config, listed, prices, self.clock.now_ns())

    async def _reconciled(self) -> None:
        """Every symbol knows its orders and its position, or the time for it is up."""
        with trio.move_on_after(RECONCILE_SECONDS) as waited:
            while (waiting := self.unreconciled()) and not self._stop_requested.is_set():
                await self.pump.wait_turn()
        if waited.cancelled_caught:
            self.diary.note("service.unreconciled", f"started without knowing orders of: {', '.join(waiting)}")

    def unreconciled(self) -> list[str]:
        """Symbols whose orders or position are not known."""
        return [
            worker.key
            for worker in self.pump.workers.values()
            if not (worker.machine.reconciled and worker.machine.position.known)
        ]

    async def _drain(self) -> Farewell:
        """Pull everything, wait until the exchanges confirm, then ask them once more."""
        roster = self.reloader.roster
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
        left: dict[str, int | None] = {}
        for name, exchange in self.pump.exchanges.items():
            left[name] = None
            with trio.move_on_after(PROOF_SECONDS):
                try:
                    left[name] = sum(len(orders) for orders in (await exchange.open_orders()).values())
                except MmdError as failed:
                    self.diary.note("service.orders_unknown", str(failed), exchange=name)
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
        self._protect(config)

    def _protect(self, config: Config) -> None:
        for name, exchange in config.exchanges.items():
            if exchange.protections or self.pump.exchanges[name].protections:
                self.pump.exchanges[name].protect(exchange.protections)

    def _exchange_well(self, switch: Switch, exchange: str) -> None:
        self.pump.alarm.clear_exchange(switch, exchange)

    def healthy(self) -> bool:
        """Whether the heartbeat may say so."""
        return self.phase == "running" and not self.stuck()

    @property
    def in_force(self) -> Config:
        return self._reloader.current.config if self._reloader else self._config

    def _committed(self) -> None:
        """A reload took effect, or was undone."""
        self.reconfigured.set()
        self.reconfigured = trio.Event()

    @property
    def reloader(self) -> Reloader:
        """Raises MmdError while the daemon is still starting."""
        if self._reloader is None:
            raise MmdError("still starting: instruments are not known yet")
        return self._reloader

    # --- Desk ------------------------------------------------------------------------------------

    def status(self, symbols: list[str]) -> Status:
        now_ns = self.clock.now_ns()
        workers = matching(self.pump.workers.values(), symbols)
        totals = self.treasury.totals()
        counted = self.counted()
        generation = self._reloader.current if self._reloader else None
        config = self.in_force
        deadline = self._reloader.confirm_deadline_ns if self._reloader else None
        return Status(
            service=config.service.name,
            version=mmd.__version__,
            mode=str(config.service.mode),
            phase=self.phase,
            started=self.started_ns * 1e-9,
            uptime_seconds=(now_ns - self.started_ns) * 1e-9,
            config_hash=config.sha256,
            config_generation=generation.number if generation else 0,
            config_error=self._reloader.error if self._reloader else None,
            confirm_deadline=deadline * 1e-9 if deadline else None,
            orders_placed=counted.placed,
            orders_amended=counted.amended,
            orders_cancelled=counted.cancelled,
            orders_rejected=counted.rejected,
            fills=counted.fills,
            pnl_usd=totals.pnl_usd,
            day_pnl_usd=totals.day_pnl_usd,
            drawdown_usd=totals.drawdown_usd,
            alerts=self.alarms.active(),
            exposure=totals.exposure,
            notional_usd=totals.notional_usd,
            exchanges=[self._exchange_status(name) for name in self.wired],
            symbols=[
                views.symbol_status(
                    worker, now_ns, books.shadow_status(worker) if worker.machine.mode is Mode.SHADOW else None
                )
                for worker in workers
            ],
        )

    def counted(self) -> Counted:
        counted = list(self.counters.symbols.values())
        return Counted(
            placed=sum(c.placed for c in counted),
            amended=sum(c.amended for c in counted),
            cancelled=sum(c.cancelled for c in counted),
            rejected=sum(sum(c.rejected.values()) for c in counted),
            fills=sum(c.fills for c in counted),
        )

    def _exchange_status(self, name: str) -> ExchangeStatus:
        stats = self.pump.exchanges[name].stats
        workers = [worker for worker in self.pump.workers.values() if worker.exchange == name]
        last = self.sinks[name].last_round_trip
        return ExchangeStatus(
            name=name,
            network=self.wired[name].network,
            data_link=stats["data"].up,
            trade_link=stats["trade"].up,
            cancel_on_disconnect=bool(workers) and all(worker.machine.market.cod_armed for worker in workers),
            subscriptions=self.pump.exchanges[name].subscriptions,
            round_trip_ms=None if last is None else last * 1e3,
        )

    def explain(self, symbols: list[str]) -> list[Explanation]:
        now_ns = self.clock.now_ns()
        found = matching(self.pump.workers.values(), symbols)
        return [views.explanation(worker, self.pump.outbox, now_ns) for worker in found]

    def orders(self, symbols: list[str]) -> list[OrderLine]:
        now_ns = self.clock.now_ns()
        found = matching(self.pump.workers.values(), symbols)
        return [line for worker in found for line in views.order_lines(worker, now_ns)]

    def positions(self, symbols: list[str]) -> list[PositionLine]:
        return [views.position_line(worker) for worker in matching(self.pump.workers.values(), symbols)]

    def _found(self, symbols: list[str]) -> list[Worker]:
        """The workers that a change is about. Raises KeyError, or MmdError while there are none yet."""
        if self._reloader is None:
            down = [row.name for row in map(self._exchange_status, self.wired) if not row.data_link]
            raise MmdError(f"still starting: waiting for {', '.join(down) or 'the instruments'}")
        return matching(self.pump.workers.values(), symbols)

    async def pause(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        return await self.office.pause(found, reason, caller_name(caller), timeout_seconds)

    async def resume(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        return await self.office.resume(found, reason, caller_name(caller), timeout_seconds)

    async def halt(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        return await self.office.halt(found, reason, caller_name(caller), timeout_seconds)

    async def reset(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        storms = {w.exchange for w in found if w.machine.why is Why.DISCONNECT_STORM}
        result = await self.office.reset(found, reason, caller_name(caller), timeout_seconds)
        done = {row.symbol for row in result.symbols if row.outcome is not Outcome.REFUSED}
        for exchange in storms:
            self.lookout.reset(exchange)
            self.pump.alarm.clear_exchange(Switch.DISCONNECT_STORM, exchange)
        self.treasury.reset([worker for worker in found if worker.symbol in done])
        await self.pump.deliver()
        return result

    # --- risk ------------------------------------------------------------------------------------

    def risk(self) -> list[TotalLine]:
        return self.treasury.lines()

    def ledger(self, symbols: list[str]) -> list[LedgerLine]:
        found = matching(self.pump.workers.values(), symbols)
        losses = self.treasury.losses()
        return [line for worker in found for line in books.ledger_lines(worker, *losses.get(worker.key, (None, None)))]

    def switches(self) -> list[SwitchLine]:
        config = self.in_force

        def value_of(key: str) -> str:
            return setting_text(config, key)

        return books.switch_lines(self.pump.alarm, config.switches, self.pump.workers.values(), value_of)

    def alerts(self) -> list[AlertLine]:
        return self.alarms.active()

    def protection(self) -> list[ProtectionLine]:
        return books.protection_lines(self.pump.exchanges.values())

    async def reset_protection(self, exchange: str, underlying: str, reason: str, caller: Caller) -> ProtectionLine:
        found = self.pump.exchanges.get(exchange)
        if found is None or all(line.underlying != underlying for line in found.protections):
            raise MmdError(f"no maker protection of {underlying} on {exchange} is configured")
        await found.reset_protection(underlying)
        detail = f"{underlying}: freeze ended" + (f": {reason}" if reason else "")
        self.diary.note("protection.reset", detail, exchange=exchange, by=caller_name(caller))
        return next(line for line in self.protection() if (line.exchange, line.underlying) == (exchange, underlying))

    def _only(self, symbol: str) -> Worker:
        found = self._found([symbol])
        if len(found) != 1:
            raise MmdError(f"{symbol} matches {len(found)} symbols: flatten them one by one")
        return found[0]

    def flatten_preview(self, symbol: str, size: Decimal | None, slippage_bps: float) -> FlattenPreview:
        return flat.preview(self._only(symbol), size, slippage_bps)

    async def flatten(
        self,
        symbol: str,
        size: Decimal | None,
        limit_price: Decimal,
        reason: str,
        caller: Caller,
        timeout_seconds: float,
    ) -> ChangeResult:
        worker = self._only(symbol)
        return await flat.flatten(self.office, worker, size, limit_price, reason, caller_name(caller), timeout_seconds)

    # --- more changes ----------------------------------------------------------------------------

    async def shadow(
        self, symbols: list[str], on: bool, reason: str, caller: Caller, timeout_seconds: float
    ) -> ChangeResult:
        found = self._found(symbols)
        word = "shadow" if on else "the config's mode"
        for worker in found:
            detail = f"to {word}" + (f": {reason}" if reason else "")
            self.diary.note(
                "symbol.mode", detail, symbol=worker.symbol, exchange=worker.exchange, by=caller_name(caller)
            )
        return await self.office.shadow(found, on, timeout_seconds)

    async def plan(self) -> PlanResult:
        return await self.reloader.plan()

    async def reload(self, confirm_seconds: float | None, caller: Caller) -> ReloadResult:
        reloader = self.reloader
        assert self._nursery is not None, "a reloader exists only with its nursery"
        if self._stop_requested.is_set():
            raise MmdError("the daemon stops: nothing was applied")
        self.on_reload(True)
        try:
            return await reloader.reload(confirm_seconds, caller_name(caller), self._nursery)
        finally:
            self.on_reload(False)

    async def confirm(self, caller: Caller) -> ReloadResult:
        return self.reloader.confirm(caller_name(caller))

    def config(self) -> str:
        return to_yaml(self.in_force)

    def set_log_level(self, level: str, caller: Caller) -> str:
        detail = f"{level}, was {logs.set_level(level)}"
        self.diary.note("service.log_level", detail, by=caller_name(caller))
        return detail

    def events_since(self, seq: int, limit: int) -> list[EventLine]:
        return self.diary.since(seq, limit)

    async def wait_event(self, seq: int) -> None:
        await self.diary.wait(seq)

    # --- MetricsView -----------------------------------------------------------------------------

    def links(self) -> Mapping[str, Mapping[str, LinkStats]]:
        return {name: exchange.stats for name, exchange in self.pump.exchanges.items()}

    def mailbox_depths(self) -> Mapping[str, int]:
        return {key: worker.depth for key, worker in self.pump.workers.items()}

    def not_ready(self) -> str:
        """Empty once everything is reconciled and nothing stops."""
        return "" if self.phase == "running" else self.phase

    def stuck(self) -> list[str]:
        """Workers that have mail although nobody is pumping: they make no progress."""
        return [worker.key for worker in self.pump.workers.values() if worker.depth]


def indexes(config: Config, listed: Mapping[str, Mapping[str, Instrument]]) -> set[tuple[str, str, str]]:
    """(exchange, coin, index) of every underlying that the configuration speaks of."""
    wanted = {
        (entry.target.exchange, entry.target.underlying, entry.target.contract)
        for entry in config.entries
        if isinstance(entry.target, Selection)
    }
    return {
        (name, instrument.base, instrument.index)
        for name, instruments in listed.items()
        for instrument in instruments.values()
        if (name, instrument.base, instrument.contract) in wanted
    }


def setting_text(config: Config, key: str) -> str:
    """The value of a configuration key as text; of a group, its keys."""
    value: object = config.effective
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if not isinstance(each, dict)) or "none"
    return "none" if value is None else str(value)
