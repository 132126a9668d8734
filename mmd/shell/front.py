"""The daemon's counter: everything that operators and the scrape ask for, answered from what the rooms hold."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

import msgspec
import trio

import mmd
from mmd.config.model import Config
from mmd.config.render import to_yaml_masked
from mmd.domain.errors import MmdError
from mmd.domain.reasons import Mode, Switch, Why
from mmd.exchanges.api import LinkStats
from mmd.journal.writer import Journal
from mmd.shell import books, logs, views
from mmd.shell import flatten as flat
from mmd.shell.alerts import Alerts
from mmd.shell.arrivals import Arrivals
from mmd.shell.cases import ABSENT, Case, CaseBook, about, matches
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.desk import (
    WAITING,
    AlertLine,
    Caller,
    CaseLine,
    ChangeResult,
    EventAnswer,
    EventLine,
    EventQuery,
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
    SymbolResult,
    TotalLine,
    WaitingLine,
)
from mmd.shell.diary import Diary
from mmd.shell.history import History
from mmd.shell.lookout import Lookout
from mmd.shell.office import Office, caller_name, matching, stopping, summed
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.reload import Reloader
from mmd.shell.sink import ExchangeSink
from mmd.shell.totals import Treasury
from mmd.shell.wiring import Wired
from mmd.shell.worker import Worker


class Counted(msgspec.Struct, frozen=True):
    """Orders and fills of all symbols since the start, those that are gone included."""

    placed: int
    amended: int
    cancelled: int
    rejected: int
    fills: int


class Front:
    """Implements `Desk` and `MetricsView` over the rooms that the daemon puts together."""

    clock: Clock
    journal: Journal | None
    diary: Diary
    history: History
    counters: Counters
    pump: Pump
    treasury: Treasury
    office: Office
    lookout: Lookout
    register: HaltRegister
    alarms: Alerts
    arrivals: Arrivals
    wired: dict[str, Wired]
    sinks: dict[str, ExchangeSink]
    started_ns: int
    phase: str
    on_reload: Callable[[bool], None]
    _config: Config
    _reloader: Reloader | None
    _nursery: trio.Nursery | None
    _stop_requested: trio.Event

    def healthy(self) -> bool:
        """Whether the heartbeat may say so."""
        return self.phase == "running" and not self.stuck()

    @property
    def in_force(self) -> Config:
        return self._reloader.current.config if self._reloader else self._config

    @property
    def reloader(self) -> Reloader:
        """Raises MmdError while the daemon is still starting."""
        if self._reloader is None:
            raise MmdError("still starting: instruments are not known yet")
        return self._reloader

    # --- Desk ------------------------------------------------------------------------------------

    def status(self, symbols: list[str]) -> Status:
        now_ns = self.clock.now_ns()
        waiting = self._waiting(symbols)
        workers = self._matching(symbols)
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
            journal=books.journal_status(self.journal) if self.journal is not None else None,
            left_behind=list(self._left_behind(symbols).values()),
            waiting=waiting,
            left_out=[str(one) for one in generation.resolution.expired.values()] if generation else [],
        )

    def counted(self) -> Counted:
        counted = [self.counters.parted, *self.counters.symbols.values()]
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
            waiting=self.arrivals.why(name) if self._reloader else "",
        )

    def _waiting(self, symbols: list[str]) -> list[WaitingLine]:
        """Entries of exchanges that are not in service since the start, of those that these patterns name."""
        if self._reloader is None:
            return []
        rows = self.arrivals.waiting(self._reloader.current.resolution.awaited)
        return [row for row in rows if any(matches(f"{row.exchange}/{row.symbol}", one) for one in symbols)]

    def _matching(self, symbols: list[str]) -> list[Worker]:
        """As `matching`; a pattern that names only what waits for its exchange is no error."""
        waiting = self._waiting(symbols)
        keys = [f"{row.exchange}/{row.symbol}" for row in waiting]
        here = [one for one in symbols if not any(matches(key, one) for key in keys) or self._is_here(one)]
        return matching(self.pump.workers.values(), here)

    def _is_here(self, pattern: str) -> bool:
        return any(matches(key, pattern) for key in self.pump.workers)

    def explain(self, symbols: list[str]) -> list[Explanation]:
        now_ns = self.clock.now_ns()
        found = self._matching(symbols)
        return [views.explanation(worker, self.pump.outbox, now_ns) for worker in found]

    def orders(self, symbols: list[str]) -> list[OrderLine]:
        now_ns = self.clock.now_ns()
        found = self._matching(symbols)
        return [line for worker in found for line in views.order_lines(worker, now_ns)]

    def positions(self, symbols: list[str]) -> list[PositionLine]:
        left, workers = self._left_behind(symbols), self.pump.workers
        here = [
            pattern
            for pattern in symbols
            if any(matches(key, pattern) for key in workers) or not any(matches(key, pattern) for key in left)
        ]
        return [*(views.position_line(worker) for worker in matching(workers.values(), here)), *left.values()]

    def _left_behind(self, symbols: list[str]) -> dict[str, PositionLine]:
        """Positions that these symbols left, by key; patterns that match none are no error."""
        left = sorted((key, share) for key, share in self.treasury.machine.left_behind.items() if share.lots)
        return {
            key: views.left_line(share, self._why_left(key))
            for key, share in left
            if any(matches(key, one) for one in symbols)
        }

    def _why_left(self, key: str) -> str:
        if self._stop_requested.is_set():
            return "stopped"
        is_awaited = self._reloader is None or key.partition("/")[0] in self.arrivals.awaited
        return "not in service yet" if is_awaited else "removed"

    def _found(self, symbols: list[str]) -> list[Worker]:
        """The workers that a change is about. Raises KeyError, or MmdError while there are none yet, or no more."""
        if self._stop_requested.is_set():
            raise MmdError(stopping(self.pump.workers.values()))
        if self._reloader is None:
            down = [row.name for row in map(self._exchange_status, self.wired) if not row.data_link]
            raise MmdError(f"still starting: waiting for {', '.join(down) or 'the instruments'}")
        found = self._matching(symbols)
        if not found and (waiting := self._waiting(symbols)):
            raise MmdError(f"{waiting[0].symbol} is not in service: {waiting[0].reason}; it will be PAUSED then")
        return found

    def _also(self, result: ChangeResult, symbols: list[str], *, pulls: bool) -> ChangeResult:
        """With what waits for its exchange. `pulls`: the change wants none of our orders to rest; else quotes."""
        waiting = self._waiting(symbols)
        if not waiting:
            return result
        rows = []
        for one in waiting:
            pulled = Outcome.DONE if self.arrivals.is_clear(one.exchange) else Outcome.TIMED_OUT
            outcome = pulled if pulls else Outcome.REFUSED
            detail = f"{one.reason}; {self.arrivals.at_stake(one.exchange)}; it comes into service PAUSED"
            rows.append(SymbolResult(symbol=one.symbol, outcome=outcome, state=WAITING, detail=detail, checks=[]))
        return summed([*result.symbols, *rows])

    async def pause(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        done = await self.office.pause(found, reason, caller_name(caller), timeout_seconds)
        return self._also(done, symbols, pulls=True)

    async def resume(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        done = await self.office.resume(found, reason, caller_name(caller), timeout_seconds)
        return self._also(done, symbols, pulls=False)

    async def halt(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        by = caller_name(caller)
        if self._stop_requested.is_set():
            return self._kept(await self.office.halt_at_the_stop(symbols, reason, by, timeout_seconds))
        halted = await self.office.halt(self._found(symbols), reason, by, timeout_seconds)
        return self._kept(self._also(halted, symbols, pulls=True))

    def _kept(self, result: ChangeResult) -> ChangeResult:
        """What is done and cannot be written is not done: a restart would forget it."""
        if not self.register.failed or result.outcome is not Outcome.DONE:
            return result
        detail = f"{result.detail}, but it could not be written and a restart would forget it: {self.register.failed}"
        return msgspec.structs.replace(result, outcome=Outcome.TIMED_OUT, detail=detail)

    async def reset(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        found = self._found(symbols)
        storms = {w.key for w in found if w.machine.why is Why.DISCONNECT_STORM}
        result = await self.office.reset(found, reason, caller_name(caller), timeout_seconds)
        rows = zip(found, result.symbols, strict=True)
        done = [worker for worker, row in rows if row.outcome is not Outcome.REFUSED]
        for exchange in sorted({worker.exchange for worker in done if worker.key in storms}):
            self.lookout.reset(exchange)
            self.pump.clear(Switch.DISCONNECT_STORM, exchange)
        self.treasury.reset(done)
        await self.pump.deliver()
        return result

    # --- risk ------------------------------------------------------------------------------------

    def risk(self) -> list[TotalLine]:
        return self.treasury.lines()

    def ledger(self, symbols: list[str]) -> list[LedgerLine]:
        found = self._matching(symbols)
        losses = self.treasury.losses()
        return [line for worker in found for line in ledgers_of(worker, *losses.get(worker.key, (None, None)))]

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

    # --- cases -----------------------------------------------------------------------------------

    def _book(self) -> CaseBook:
        book = self.pump.cases
        assert book is not None, "the daemon makes one"
        return book

    def cases(self, symbols: list[str], closed: bool) -> list[CaseLine]:
        return about(self._book().lines(closed=closed), symbols, self.pump.workers)

    async def accept(self, number: int, reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        case = self._book().find(number)
        if case is None:
            raise MmdError(f"there is no case {number}: `mmdctl cases` has the open ones")
        if case.closed_ns:
            raise MmdError(f"case {number} is closed: {case.state} by {case.by}: {case.reason}")
        by = caller_name(caller)
        worker = self.pump.workers.get(case.key)
        if worker is None:
            return await self._accept_absent(case, by, reason)
        return self._kept(await self.office.accept(worker, case.kind, case.subject, reason, by, timeout_seconds))

    async def _accept_absent(self, case: Case, by: str, reason: str) -> ChangeResult:
        """Its symbol expired or was removed: nobody else can end the case."""
        absent = case.key.partition("/")[0]
        if self._stop_requested.is_set() or self._reloader is None or absent in self.arrivals.awaited:
            starting = "still starting" if self._reloader is None else f"{absent} {self.arrivals.why(absent)}"
            when = "the daemon stops" if self._stop_requested.is_set() else starting
            raise MmdError(f"{when}: {case.key} is not in service, so case {case.number} is not decided now")
        self._book().accept_absent(case, by, reason)
        await self.pump.deliver()  # the book is written
        detail = f"case {case.number} is closed, and {ABSENT}; if it inherits the difference, that is a new case"
        symbol = case.line.symbol
        row = SymbolResult(symbol=symbol, outcome=Outcome.DONE, state="not in service", detail=detail, checks=[])
        return self._kept(ChangeResult(outcome=Outcome.DONE, detail=detail, symbols=[row]))

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
        return to_yaml_masked(self.in_force)

    def set_log_level(self, level: str, caller: Caller) -> str:
        detail = f"{level}, was {logs.set_level(level)}"
        self.diary.note("service.log_level", detail, by=caller_name(caller))
        return detail

    def events_since(self, seq: int, limit: int) -> list[EventLine]:
        return self.diary.since(seq, limit)

    async def find_events(self, query: EventQuery) -> EventAnswer:
        return await self.history.find(query)

    async def wait_event(self, seq: int) -> None:
        await self.diary.wait(seq)

    # --- MetricsView -----------------------------------------------------------------------------

    def links(self) -> Mapping[str, Mapping[str, LinkStats]]:
        return {name: exchange.stats for name, exchange in self.pump.exchanges.items()}

    def ledger_lines(self) -> Iterator[LedgerLine]:
        """As `ledger`, one symbol at a time: the scrape lets the loop turn in between."""
        losses = self.treasury.losses()
        for worker in list(self.pump.workers.values()):
            yield from ledgers_of(worker, *losses.get(worker.key, (None, None)))

    def clock_skews(self) -> Mapping[str, float]:
        return {name: exchange.clock_skew_ms * 1e-3 for name, exchange in self.pump.exchanges.items()}

    def mailbox_depths(self) -> Mapping[str, int]:
        return {key: worker.depth for key, worker in self.pump.workers.items()}

    def not_ready(self) -> str:
        """Empty once everything is reconciled and nothing stops."""
        return "" if self.phase == "running" else self.phase

    def stuck(self) -> list[str]:
        """Workers that have mail although nobody is pumping: they make no progress."""
        return [worker.key for worker in self.pump.workers.values() if worker.depth]


def ledgers_of(worker: Worker, day_usd: float | None, drawdown_usd: float | None) -> list[LedgerLine]:
    """The real ledger and the shadow's, as they are shown."""
    imagined = worker.machine.imagined
    positions = {
        books.REAL: worker.machine.position,
        books.PESSIMISTIC: imagined.pessimistic,
        books.OPTIMISTIC: imagined.optimistic,
    }
    lines = books.ledger_lines(worker, day_usd, drawdown_usd)
    return [views.without_rounding(line, positions[line.ledger]) for line in lines]


def setting_text(config: Config, key: str) -> str:
    """The value of a configuration key as text; of a group, its keys."""
    value: object = config.effective
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        plain = {name: "none" if each is None else each for name, each in value.items() if not isinstance(each, dict)}
        return ", ".join(f"{name} {each}" for name, each in plain.items()) or "none"
    return "none" if value is None else str(value)
