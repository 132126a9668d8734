"""The desk behind the counter: operators' requests turned into events, answered when they have come true."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import trio

from mmd.domain.actions import Reply
from mmd.domain.errors import MmdError
from mmd.domain.events import (
    CaseAccepted,
    HaltRequested,
    Mail,
    PauseRequested,
    ResetRequested,
    ResumeRequested,
    SettingsChanged,
)
from mmd.domain.reasons import CaseKind, Mode, State, Why
from mmd.shell.cases import matches
from mmd.shell.desk import Caller, ChangeResult, CheckLine, Outcome, SymbolResult
from mmd.shell.prover import orders_left
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

Make = Callable[[int, str], Mail]
Lost = Callable[[Worker], Reply]
WORST = (Outcome.DONE, Outcome.REFUSED, Outcome.TIMED_OUT)
STOPPING = "the daemon is stopping: it cancels every order and quotes nothing any more"
AFTERWARDS = "nothing comes to HALTED any more: after the next start what was not is PAUSED"


def matching(workers: Iterable[Worker], patterns: list[str]) -> list[Worker]:
    """Workers whose `symbol` or `exchange/symbol` matches a name or glob; `all` is every one.

    Raises KeyError with the pattern that matches nothing.
    """
    known = list(workers)
    found: dict[str, Worker] = {}
    for pattern in patterns:
        if pattern == "all":
            found.update({worker.key: worker for worker in known})
            continue
        hits = {w.key: w for w in known if fnmatchcase(w.symbol, pattern) or fnmatchcase(w.key, pattern)}
        if not hits:
            raise KeyError(pattern)
        found.update(hits)
    return list(found.values())


def no_answer(worker: Worker) -> Reply:
    """Nothing can be said."""
    return Reply(0, False, "did not answer: see the log", ())


def has_left(worker: Worker) -> Reply:
    """Whoever has its name now was not meant."""
    return Reply(0, False, "has left since it was asked for; if it came back, ask again", ())


def never(worker: Worker) -> str:
    """Nothing but time ends the wait."""
    return ""


def not_halted(worker: Worker) -> str:
    """Why a halt will not be shown as proven any more; empty while it may be. Who drains may leave HALTED yet."""
    if worker.broken or worker.machine.state in (State.HALTED, State.DRAINING):
        return ""
    return f"no longer HALTED: {worker.machine.state} ({worker.machine.why})"


def not_active(worker: Worker) -> str:
    """What came after the resume."""
    return "" if is_active(worker) else f"no longer ACTIVE: {worker.machine.state} ({worker.machine.why})"


def halted_for_it(worker: Worker) -> Reply:
    """A machine that fails over a request is halted: all that a halt wants."""
    if worker.machine.state is not State.HALTED:
        return no_answer(worker)
    return Reply(0, True, f"HALTED ({worker.machine.why})", ())


@dataclass
class Office:
    """Changes of state, by people. Each waits until it is true or its time is up."""

    pump: Pump
    requests: int = 0

    def ask(self, workers: list[Worker], make: Make, lost: Lost = no_answer) -> dict[str, Reply]:
        """Post one request to each, pump, and collect the answers: machines answer at once, or never.

        One that left while somebody waited for it is not asked: its record has ended, and the name may be another's.
        """
        asked: dict[int, Worker] = {}
        gone = {worker.key: has_left(worker) for worker in workers if self.pump.workers.get(worker.key) is not worker}
        for worker in workers:
            if worker.key in gone:
                continue
            self.requests += 1
            asked[self.requests] = worker
            self.pump.post(worker, make(self.requests, worker.key))
        self.pump.run()
        replies = self.pump.replies
        return gone | {
            worker.key: replies.pop(number) if number in replies else lost(worker) for number, worker in asked.items()
        }

    async def change(
        self,
        workers: list[Worker],
        make: Make,
        until: Callable[[Worker], bool],
        timeout_seconds: float,
        lost: Lost = no_answer,
        overtaken: Callable[[Worker], str] = never,
    ) -> ChangeResult:
        """Ask, then wait until `until` holds for every worker that agreed. `lost`: the answer of one that gave none.

        `overtaken` says why it will not hold any more, or nothing: then nobody waits for it.
        """
        replies = self.ask(workers, make, lost)
        waiting = [worker for worker in workers if replies[worker.key].ok]
        with trio.move_on_after(max(0.0, timeout_seconds)):
            await self.pump.deliver()
            while not all(until(worker) or overtaken(worker) for worker in waiting):
                await self.pump.wait_turn()
        return summed([self._row(worker, replies[worker.key], until, overtaken) for worker in workers])

    @staticmethod
    def _row(
        worker: Worker,
        reply: Reply,
        until: Callable[[Worker], bool],
        overtaken: Callable[[Worker], str] = never,
    ) -> SymbolResult:
        checks = [CheckLine(check.name, check.ok, check.found, check.wanted) for check in reply.checks]
        outcome, detail = Outcome.DONE, reply.detail
        if not reply.ok:
            outcome = Outcome.REFUSED
        elif not until(worker):
            outcome = Outcome.TIMED_OUT
            detail = overtaken(worker) or orders_left(worker)
        return SymbolResult(
            symbol=worker.symbol, outcome=outcome, state=worker.machine.state, detail=detail, checks=checks
        )

    async def pause(self, workers: list[Worker], reason: str, by: str, timeout: float) -> ChangeResult:
        def make(number: int, key: str) -> Mail:
            return PauseRequested(number, by, reason, self.pump.clock.now_ns())

        return await self.change(workers, make, rests_nothing, timeout)

    async def halt(self, workers: list[Worker], reason: str, by: str, timeout: float) -> ChangeResult:
        def make(number: int, key: str) -> Mail:
            return HaltRequested(number, Why.OPERATOR, by, reason, self.pump.clock.now_ns())

        return await self.change(workers, make, is_proven, timeout, halted_for_it, not_halted)

    async def halt_at_the_stop(self, patterns: list[str], reason: str, by: str, timeout: float) -> ChangeResult:
        """While everything is pulled for a stop: have it tried again at once, wait for it, say what is left.

        REFUSED where nothing is left, because who drains comes to HALTED no more; DONE where all are HALTED
        from before; TIMED_OUT unless nothing rests by our own count and the exchanges, asked after that, list
        nothing. Patterns that match nothing any more are no error: their symbols have left.
        """

        def make(number: int, key: str) -> Mail:
            return HaltRequested(number, Why.OPERATOR, by, reason, self.pump.clock.now_ns())

        def wanted(key: str) -> bool:
            return any(matches(key, pattern) for pattern in patterns)

        workers = [worker for worker in self.pump.workers.values() if wanted(worker.key)]
        self.ask(workers, make, halted_for_it)
        listed = ["not proven by the exchanges"]
        with trio.move_on_after(max(0.0, timeout)):
            await self.pump.deliver()
            while not all(rests_nothing(worker) for worker in workers):
                await self.pump.wait_turn()
            listed = await self._listed(wanted)
        rows = [self._row(worker, pulled(worker), rests_nothing) for worker in workers]
        left = [f"{row.symbol}: {row.detail}" for row in rows if row.outcome is Outcome.TIMED_OUT] + listed
        outcome = Outcome.TIMED_OUT if left else summed(rows).outcome if rows else Outcome.REFUSED
        text = f"may be left: {'; '.join(left)}" if left else "the exchanges list none of ours"
        return ChangeResult(outcome=outcome, detail=f"{STOPPING}; {text}; {AFTERWARDS}", symbols=rows)

    async def _listed(self, wanted: Callable[[str], bool]) -> list[str]:
        """What the exchanges list of our orders, or that one cannot be asked; empty where none has any."""
        found: list[str] = []
        for name, exchange in self.pump.exchanges.items():
            try:
                listed = await exchange.open_orders()
            except MmdError as failed:
                found.append(f"{name} cannot be asked: {failed}")
                continue
            keys = {f"{name}/{symbol}": len(orders) for symbol, orders in sorted(listed.items()) if orders}
            found += [f"{key}: {count} orders at the exchange" for key, count in keys.items() if wanted(key)]
        return found

    async def resume(self, workers: list[Worker], reason: str, by: str, timeout: float) -> ChangeResult:
        def make(number: int, key: str) -> Mail:
            return ResumeRequested(number, by, reason, self.pump.clock.now_ns())

        return await self.change(workers, make, is_active, timeout, overtaken=not_active)

    async def reset(self, workers: list[Worker], reason: str, by: str, timeout: float) -> ChangeResult:
        """Waits for the proof of each halt first; one that is not proven in time is refused."""

        def make(number: int, key: str) -> Mail:
            return ResetRequested(number, by, reason, self.pump.clock.now_ns())

        began = trio.current_time()
        with trio.move_on_after(max(0.0, timeout)):
            await self.pump.deliver()
            while any(is_unproven(worker) for worker in workers):
                await self.pump.wait_turn()
        # A reset would end the search for orders that may rest, and the alert about them.
        rows = {
            worker.key: self._row(worker, Reply(0, False, unproven(worker), ()), rests_nothing)
            for worker in workers
            if is_unproven(worker)
        }
        ripe = [worker for worker in workers if worker.key not in rows]
        done = await self.change(ripe, make, rests_nothing, timeout - (trio.current_time() - began))
        rows.update({worker.key: row for worker, row in zip(ripe, done.symbols, strict=True)})
        return summed([rows[worker.key] for worker in workers])

    async def accept(
        self, worker: Worker, case: CaseKind, subject: str, reason: str, by: str, timeout: float
    ) -> ChangeResult:
        """Take the exchange's word in an open case of this symbol."""

        def make(number: int, key: str) -> Mail:
            return CaseAccepted(number, case, subject, by, reason, self.pump.clock.now_ns())

        def is_closed(worker: Worker) -> bool:
            return (case, subject) not in worker.machine.cases

        return await self.change([worker], make, is_closed, timeout)

    async def shadow(self, workers: list[Worker], on: bool, timeout: float) -> ChangeResult:
        """Keep these symbols' orders to ourselves, or go back to the config's mode: orders are pulled first."""
        now_ns = self.pump.clock.now_ns()
        modes: dict[str, Mode] = {}
        for worker in workers:
            worker.shadowed = on
            modes[worker.key] = Mode.SHADOW if on else worker.configured_mode
            self.pump.post(worker, SettingsChanged(worker.effective(worker.machine.settings), now_ns))

        def switched(worker: Worker) -> bool:
            return worker.machine.mode is modes[worker.key]

        with trio.move_on_after(max(0.0, timeout)):
            await self.pump.deliver()
            while not all(switched(worker) for worker in workers):
                await self.pump.wait_turn()
        rows = [
            SymbolResult(
                symbol=worker.symbol,
                outcome=Outcome.DONE if switched(worker) else Outcome.TIMED_OUT,
                state=worker.machine.state,
                detail=f"mode {worker.machine.mode}",
                checks=[],
            )
            for worker in workers
        ]
        worst = max((row.outcome for row in rows), key=WORST.index, default=Outcome.DONE)
        return ChangeResult(outcome=worst, detail=f"{len(rows)} symbols", symbols=rows)


def summed(rows: list[SymbolResult]) -> ChangeResult:
    """All rows in one word, the worst."""
    worst = max((row.outcome for row in rows), key=WORST.index, default=Outcome.DONE)
    bad = sum(row.outcome is not Outcome.DONE for row in rows)
    detail = f"{len(rows)} symbols" if not bad else f"{bad} of {len(rows)} symbols: {worst.replace('_', ' ')}"
    return ChangeResult(outcome=worst, detail=detail, symbols=rows)


def stopping(workers: Iterable[Worker]) -> str:
    """Why nothing is changed any more, and what is still there."""
    there = list(workers)
    resting = sum(worker.machine.own.resting for worker in there)
    return f"{STOPPING}; still there: {len(there)} symbols, {resting} orders that may rest"


def pulled(worker: Worker) -> Reply:
    """To a halt while it drains: it is HALTED only where it was."""
    return Reply(0, worker.machine.latch is not None or not rests_nothing(worker), "its orders are pulled", ())


def rests_nothing(worker: Worker) -> bool:
    return worker.machine.own.resting == 0


def is_proven(worker: Worker) -> bool:
    """Nothing of ours rests, and the exchange itself said so."""
    return worker.proven and (worker.broken or worker.machine.own.resting == 0)


def is_unproven(worker: Worker) -> bool:
    """HALTED, and orders of ours may rest."""
    return worker.machine.state is State.HALTED and not is_proven(worker)


def unproven(worker: Worker) -> str:
    """Why such a one is not reset."""
    return f"is not reset before its halt is proven: {orders_left(worker)}"


def is_active(worker: Worker) -> bool:
    return worker.machine.state is State.ACTIVE


def caller_name(caller: Caller) -> str:
    """For the journal and the log: who it was."""
    return f"{caller.name} (uid {caller.uid})"
