"""The pump: mail in, one decision per symbol and batch, requests out. The one supervisor of machines.

Synchronous from end to end: whoever received something posts it and pumps, in its own task, and
then flushes the links that have bytes to write. A machine that raises halts its own symbol only.
"""

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from mmd.core.machine import SymbolMachine
from mmd.domain.actions import (
    AckBounds,
    AmendOrder,
    CancelOrder,
    CaseClosed,
    CaseOpened,
    Decision,
    Noted,
    PlaceOrder,
    QueryOrder,
    QueryState,
    ReduceOrder,
    Reply,
    SetTimer,
    StateChanged,
    Tripped,
)
from mmd.domain.events import (
    CashMoved,
    HaltRequested,
    Mail,
    OrderFilled,
    OrderRefused,
    PositionReported,
    RemovalRequested,
    SwitchCleared,
    SwitchTripped,
    TradeLinkDown,
    TradeLinkUp,
)
from mmd.domain.reasons import Mode, Response, Scope, State, Switch, Why
from mmd.domain.switches import SWITCHES
from mmd.exchanges.api import Exchange
from mmd.journal.records import TakenOut
from mmd.journal.statefile import JournalFailed
from mmd.replay.forced import take_out
from mmd.shell import logs
from mmd.shell.alarm import Alarm
from mmd.shell.alerts import Alerts
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters, count
from mmd.shell.diary import Diary
from mmd.shell.outbox import Outbox
from mmd.shell.worker import MailboxFull, Worker

if TYPE_CHECKING:
    from mmd.journal.writer import Journal
    from mmd.shell.cases import CaseBook

# A refused order comes back as an event: two rounds are usual, more than this is a loop.
ROUNDS = 50
PULL_AGAIN_NS = 1_000_000_000
log = logs.get("mmd.pump")


def nobody_remembers(worker: Worker, change: StateChanged) -> None:
    """Until the register of halts is connected."""


class Pump:
    """Owns the list of workers with mail. `settle` is called when bounds were acknowledged or fills came in."""

    def __init__(
        self,
        clock: Clock,
        diary: Diary,
        counters: Counters,
        exchanges: dict[str, Exchange],
        alerts: Alerts,
        journal: "Journal | None" = None,
    ) -> None:
        """`journal` None: nothing is written (demo, tests)."""
        self.journal = journal
        self.alarm = Alarm(alerts, diary, counters, clock)
        self.clock = clock
        self.diary = diary
        self.counters = counters
        self.exchanges = exchanges
        self.workers: dict[str, Worker] = {}
        self.by_symbol: dict[tuple[str, str], Worker] = {}
        self.outbox = Outbox(exchanges, self.post, self.workers.values)
        self.replies: dict[int, Reply] = {}
        self.acked: list[tuple[str, int]] = []
        self.filled: list[Worker] = []
        self.settle: Callable[[], None] = self._nothing_to_settle
        self.remember: Callable[[Worker, StateChanged], None] = nobody_remembers
        self.write: Callable[[], None] = self._nothing_to_write
        self.journal_failed: Callable[[str], None] = self._nobody_to_tell
        self.cases: CaseBook | None = None
        self.over: set[tuple[Switch, str | None]] = set()  # causes that are over, alerts that may last
        self.unwritten = False  # a halt came or went since the register was written
        self.handling: Worker | None = None  # whose machine runs now
        self.handled = 0  # machines that ran, for the sentinel
        self.turned = trio.lowlevel.ParkingLot()
        self._ready: list[Worker] = []

    def _nothing_to_settle(self) -> None:
        """Until the totals are connected."""
        self.acked.clear()
        self.filled.clear()

    def _nothing_to_write(self) -> None:
        """Until the register is connected."""
        self.unwritten = False

    def _nobody_to_tell(self, detail: str) -> None:
        """Until the register is connected."""
        self.trip(Tripped(Switch.JOURNAL_FAILURE, Scope.PORTFOLIO, "", Response.HALT, detail))

    def add(self, worker: Worker) -> None:
        self.workers[worker.key] = worker
        self.by_symbol[(worker.exchange, worker.symbol)] = worker

    def drop(self, worker: Worker) -> None:
        del self.workers[worker.key]
        del self.by_symbol[(worker.exchange, worker.symbol)]

    def post(self, worker: Worker, event: Mail) -> None:
        """Put an event into a mailbox; an overflow is a fault of that worker."""
        try:
            worker.post(event)
        except MailboxFull as full:
            now_ns = self.clock.now_ns()
            worker.take()  # fills and answers are lost with it: ask for all of them again
            worker.post(HaltRequested(0, Why.INBOX_OVERFLOW, "mmd", str(full), now_ns))
            self._raise(Switch.INBOX_OVERFLOW, worker, str(full))
            self.outbox.query(worker, QueryState(), now_ns)
        if not worker.ready:
            worker.ready = True
            self._ready.append(worker)

    def run(self) -> None:
        """Let everybody with mail decide, until nobody has mail; then hand the requests over."""
        idle = not self._ready
        if not idle:
            self._decide_all()
        if not self._commit():
            idle = False
            self._decide_all()  # everybody halts
            self._commit()
        self.outbox.submit()  # a question may be there that nobody's mail led to
        if self.turned and not idle:
            self.turned.unpark_all()

    def _commit(self) -> bool:
        """Write what was decided before any of it leaves; False, once, if the journal fails from here on."""
        journal = self.journal
        if journal is None:
            return True
        failing = journal.failing
        try:
            journal.commit()
        except JournalFailed as failed:
            self.outbox.closed = True
            self.outbox.withhold(self.clock.now_ns())
            if failing:
                return True  # everybody knows
            self.journal_failed(str(failed))
            return False
        self.outbox.closed = False
        return True

    def _decide_all(self) -> None:
        now_ns = self.clock.now_ns()
        for _ in range(ROUNDS):
            ready, self._ready = self._ready, []
            for worker in ready:
                worker.ready = False
                self._handle(worker, now_ns)
            if self.acked or self.filled:
                self.settle()
            if not self._ready:
                break
        else:
            for worker in self._ready:
                self._fault(worker, f"still undecided after {ROUNDS} rounds", now_ns)

    async def deliver(self) -> None:
        """`run`, then one write per link that has bytes."""
        self.run()
        for exchange in self.exchanges.values():
            if exchange.dirty:
                await exchange.flush()
        if self.unwritten:  # after the cancels have left
            self.write()
            if self._ready:  # it could not be written: everybody halts
                self.run()
                for exchange in self.exchanges.values():
                    await exchange.flush()

    async def wait_turn(self) -> None:
        """Return after the next pump that handled something."""
        await self.turned.park()

    def trip(self, tripped: Tripped) -> None:
        """A kill switch that no machine found itself: alert, and tell every symbol in its scope."""
        self.over.discard((tripped.switch, tripped.target or None))
        self.alarm.raise_(tripped)
        event = SwitchTripped(tripped.switch, tripped.response, tripped.detail, self.clock.now_ns())
        for worker in self.workers.values():
            if tripped.scope is Scope.PORTFOLIO or tripped.target in (worker.key, worker.exchange):
                self.post(worker, event)

    def clear(self, switch: Switch, exchange: str | None = None) -> None:
        """The cause at an exchange, or of the portfolio, is over; its alert lasts while anybody is HALTED for it."""
        self.over.add((switch, exchange))
        self._end_alerts()
        event = SwitchCleared(switch, self.clock.now_ns())
        for worker in self.workers.values():
            if exchange in (None, worker.exchange):
                self.post(worker, event)

    def _end_alerts(self) -> None:
        """Those whose cause is over and that no symbol is HALTED for any more."""
        for switch, exchange in sorted(self.over, key=str):
            why = SWITCHES[switch].why
            held = any(
                worker.machine.state is State.HALTED and worker.machine.why is why
                for worker in self.workers.values()
                if exchange in (None, worker.exchange)
            )
            if not held:
                self.over.discard((switch, exchange))
                self.alarm.clear_scope(switch, exchange)

    def _raise(self, switch: Switch, worker: Worker, detail: str) -> None:
        self.alarm.raise_(Tripped(switch, Scope.SYMBOL, worker.key, Response.HALT, detail))

    # --- one worker ------------------------------------------------------------------------------

    def _handle(self, worker: Worker, now_ns: int) -> None:
        batch = worker.take()
        if worker.broken:
            self._without_machine(worker, batch, now_ns)
            return
        started = time.perf_counter_ns()
        try:
            decisions = self._decide(worker, batch, now_ns)
            self.handled += 1
            if worker.machine.mode is not worker.mode:
                worker.mode = worker.machine.mode
                worker.shadow.drop()  # what it knew of the book is old when it comes back
            self._note_events(worker, batch)
            for decision in decisions:
                self._act(worker, decision, now_ns)
        except Exception as bug:  # noqa: BLE001  the one supervisor: a bug halts its own symbol
            log.error("worker.raised", symbol=worker.symbol, exchange=worker.exchange, trace=traceback.format_exc())
            self._fault(worker, f"{type(bug).__name__}: {bug}", now_ns)
            return
        worker.counters.decisions.observe((time.perf_counter_ns() - started) * 1e-9)

    def _decide(self, worker: Worker, batch: list[Mail], now_ns: int) -> list[Decision]:
        """Run the machine, and put on record what it saw and decided. Raises whatever the machine raises."""
        journal, machine = self.journal, worker.machine
        try:
            self.handling = worker
            decisions = machine.handle(batch, now_ns)
            self.handling = None
        except BaseException as bug:  # put on record whatever it is, then it goes on
            called_off = self.handling is None
            self.handling = None
            if journal is not None:
                error = f"{type(bug).__name__}: {bug}"
                journal.batch(worker.key, now_ns, batch, [], error=error, called_off=called_off)
            raise
        if journal is not None:
            journal.batch(worker.key, now_ns, batch, decisions, shadow=machine.mode is Mode.SHADOW)
        return decisions

    def _note_events(self, worker: Worker, batch: list[Mail]) -> None:
        """What the shell itself reads of a batch that was handled."""
        for event in batch:
            kind = type(event)
            if kind is OrderFilled:
                self.filled.append(worker)
                worker.counters.fills = worker.machine.position.fills - worker.fills_before
            elif kind is PositionReported or kind is CashMoved:
                self.filled.append(worker)  # it is valued at once
            elif type(event) is OrderRefused:
                count(worker.counters.rejected, event.fault)
            elif kind is TradeLinkDown:
                worker.shadow.drop()

    def _act(self, worker: Worker, decision: Decision, now_ns: int) -> None:
        match decision:
            case AmendOrder() | PlaceOrder() | CancelOrder() | ReduceOrder():
                self.outbox.order(worker, decision, now_ns)
            case QueryOrder() | QueryState():
                self.outbox.query(worker, decision, now_ns)
            case SetTimer(at_ns=at_ns):
                worker.set_timer(at_ns)
            case AckBounds(version=version):
                self.acked.append((worker.key, version))
            case Reply(request_id=request_id):
                if request_id:
                    self.replies[request_id] = decision
            case CaseOpened():
                if self.cases is not None:
                    self.cases.opened(worker, decision)
            case CaseClosed():
                if self.cases is not None:
                    self.cases.closed(worker, decision)
                if not worker.machine.cases:
                    self.alarm.clear(Switch.RECONCILIATION, worker)
            case Noted(name=name, detail=detail):
                self.diary.note(name, detail, symbol=worker.symbol, exchange=worker.exchange)
            case Tripped():
                self.alarm.raise_(decision)
            case StateChanged():
                self._state_changed(worker, decision)

    def _state_changed(self, worker: Worker, change: StateChanged) -> None:
        detail = f"{change.old} -> {change.new}: {change.why}" + (f", {change.detail}" if change.detail else "")
        name = f"symbol.{change.new.lower()}"
        self.diary.note(name, detail, symbol=worker.symbol, exchange=worker.exchange, by=change.by)
        if change.old is State.ACTIVE:
            self.outbox.recall(worker, self.clock.now_ns())
        if State.HALTED in (change.old, change.new) and change.new is not State.DRAINING:
            worker.proven = False
            self.remember(worker, change)
        if change.new is State.ACTIVE or (change.old is State.HALTED and change.new is State.PAUSED):
            self.alarm.clear_symbol(worker)
            if worker.machine.cases:
                found = f"{len(worker.machine.cases)} cases are still open"
                response = worker.machine.settings.switches.responses[Switch.RECONCILIATION]
                self.alarm.alerts.fire_switch(Tripped(Switch.RECONCILIATION, Scope.SYMBOL, worker.key, response, found))
        if change.old is State.HALTED and self.over:
            self._end_alerts()
        if change.new is State.GONE:
            self.alarm.clear_symbol(worker)
            worker.gone.set()
        elif change.old is State.HALTED and change.new is State.PAUSED:
            worker.fault = None  # somebody looked at it

    def _fault(self, worker: Worker, detail: str, now_ns: int) -> None:
        """A bug in this worker: halt it; if even that raises, do without its machine."""
        if detail != worker.fault:
            self.diary.note("symbol.fault", detail, symbol=worker.symbol, exchange=worker.exchange)
            self._raise(Switch.WORKER_FAULT, worker, detail)
        worker.fault = detail
        machine = worker.machine
        if machine.state in (State.ACTIVE, State.PAUSED):
            if self._halted(machine, detail, worker, now_ns):
                # The batch is lost, and fills and answers may have been in it: ask for all of them again.
                self.outbox.query(worker, QueryState(), now_ns)
                worker.pulled_ns = now_ns
            else:
                self._take_out(worker, detail, now_ns)
        elif machine.own.resting and now_ns - worker.pulled_ns >= PULL_AGAIN_NS:
            self._pull(worker, now_ns)

    def _take_out(self, worker: Worker, detail: str, now_ns: int) -> None:
        """HALTED by force: the machine is not run again, only a removal or a restart heals it."""
        worker.broken = True
        change = take_out(worker.machine, detail, now_ns)
        if self.journal is not None:
            self.journal.put(TakenOut, now_ns, key=worker.key, detail=detail)
        self._state_changed(worker, change)
        self._pull(worker, now_ns)

    def _without_machine(self, worker: Worker, batch: list[Mail], now_ns: int) -> None:
        """A broken worker's mail: its orders are pulled again where that may help, and it may leave."""
        kinds = {type(event) for event in batch}
        if kinds & {TradeLinkUp, RemovalRequested}:
            self._pull(worker, now_ns)
        if RemovalRequested in kinds:
            machine = worker.machine
            change = StateChanged(machine.state, State.GONE, machine.why, "mmd", "its machine does not run any more")
            machine.state = change.new
            self._state_changed(worker, change)

    def _pull(self, worker: Worker, now_ns: int) -> None:
        """Cancel by label whatever its machine last knew of."""
        worker.pulled_ns = now_ns
        for state in worker.machine.own.every():
            if state.label:
                self.outbox.order(worker, CancelOrder(state.label, "", state.side), now_ns)

    def _halted(self, machine: SymbolMachine, detail: str, worker: Worker, now_ns: int) -> bool:
        halt = HaltRequested(0, Why.WORKER_FAULT, "mmd", detail, now_ns)
        try:
            decisions = self._decide(worker, [halt], now_ns)
            for decision in decisions:
                self._act(worker, decision, now_ns)
        except Exception as bug:  # noqa: BLE001  the same supervisor: the machine cannot even halt itself
            log.error("worker.cannot_halt", symbol=worker.symbol, exchange=worker.exchange, error=str(bug))
            return False
        return machine.state in (State.HALTED, State.DRAINING)
