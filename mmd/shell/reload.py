"""Reload is parse, plan, commit: any error leaves everything as it was; a confirmed reload can undo itself."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

import msgspec
import trio

from mmd.config import plan as planning
from mmd.config.load import load
from mmd.config.model import Config
from mmd.config.select import Resolution
from mmd.core.rules import rules_for
from mmd.domain.errors import ConfigError, MmdError
from mmd.domain.reasons import Why
from mmd.shell.desk import Outcome, PlanLine, PlanResult, ReloadResult
from mmd.shell.heritage import configured
from mmd.shell.pump import Pump
from mmd.shell.roster import Roster
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker

Resolve = Callable[[Config, Collection[str]], Awaitable[Resolution]]


class Generation(msgspec.Struct, frozen=True):
    """A configuration in force, and what it selected."""

    number: int
    config: Config
    resolution: Resolution


NOTHING = PlanResult(ok=True, errors=[], lines=[], added=[], removed=[], changed=[], unchanged=[])


class Reloader:
    """Owns which configuration is in force."""

    def __init__(
        self,
        path: Path,
        first: Generation,
        here: Iterable[str],
        resolve: Resolve,
        parts: tuple[Pump, Roster, Treasury],
        adopt: Callable[[Config], None],
        committed: Callable[[], None],
    ) -> None:
        """`here`: exchanges that have come; `resolve` selects from what some of these list.

        `adopt` takes over what is not about symbols, or raises MmdError and changes nothing.
        `committed` is called whenever another configuration has come into force.
        """
        self.path = path
        self.current = first
        self.error: str | None = None
        self.here = list(here)
        self._resolve = resolve
        self._pump, self.roster, self._treasury = parts
        self._adopt = adopt
        self._committed = committed
        self._before: Generation | None = None
        self._undo = trio.CancelScope()
        self.confirm_deadline_ns: int | None = None
        self._busy = trio.Lock()
        self.roster.departed = self._take_back

    async def plan(self) -> PlanResult:
        """What a reload would change; nothing is changed."""
        try:
            return (await self._read())[1]
        except ConfigError as wrong:
            return msgspec.structs.replace(NOTHING, ok=False, errors=wrong.lines)
        except (MmdError, OSError) as wrong:
            return msgspec.structs.replace(NOTHING, ok=False, errors=[str(wrong)])

    async def _read(self) -> tuple[Generation, PlanResult]:
        config = await trio.to_thread.run_sync(load, self.path)
        resolution = await self._resolve(config, self.here)
        candidate = Generation(self.current.number + 1, config, resolution)
        return candidate, self._compare(candidate)

    def _compare(self, candidate: Generation) -> PlanResult:
        old = self.current
        plan = planning.diff(old.config, old.resolution, candidate.config, candidate.resolution)
        lines = [
            PlanLine(path=line.path, effect=str(line.effect), old=line.old, new=line.new, symbols=line.symbols)
            for line in plan.lines
        ]
        lines += self._left_out(candidate.resolution) + self._not_there(candidate.config)
        if held := [key for key in plan.removed if self._holds(key)]:
            old_text, new_text = "positions are looked after", "they stay, count towards the totals, and nobody does"
            lines.append(PlanLine(path="instruments", effect="drain", old=old_text, new=new_text, symbols=held))
        errors = [plan.refusal] if plan.refusal else []
        errors += self._misfits(candidate.resolution, plan.added + plan.changed)
        parting = sorted(set(plan.added) & set(self.roster.parting))
        errors += [f"{key} is still draining: wait until it is gone, then reload" for key in parting]
        return PlanResult(
            ok=not errors,
            errors=errors,
            lines=lines,
            added=plan.added,
            removed=plan.removed,
            changed=plan.changed,
            unchanged=plan.unchanged,
        )

    def _left_out(self, resolution: Resolution) -> list[PlanLine]:
        """What is named and has expired since it was looked at last."""
        lines = []
        for key, one in resolution.expired.items():
            if key not in self.current.resolution.expired:
                effect, old = ("drain", key) if key in self._pump.workers else ("live", None)
                lines.append(PlanLine(path=f"{one.entry}.symbol", effect=effect, old=old, new=str(one), symbols=[key]))
        return lines

    def _not_there(self, config: Config) -> list[PlanLine]:
        """Exchanges whose entries nobody can judge yet."""
        old, new = "not in service since the start", "its entries are selected and judged when it comes"
        absent = [name for name in config.exchanges if name not in self.here]
        return [PlanLine(path=f"exchanges.{name}", effect="live", old=old, new=new, symbols=[]) for name in absent]

    def _holds(self, key: str) -> bool:
        worker = self._pump.workers.get(key)
        return worker is not None and worker.machine.position.lots != 0 and not self._is_over(worker)

    def _is_over(self, worker: Worker) -> bool:
        """It has expired: it leaves by itself, once it has heard of its delivery."""
        expiry_ns = worker.machine.instrument.expiry_ns
        return expiry_ns is not None and expiry_ns <= self._pump.clock.now_ns()

    @staticmethod
    def _misfits(resolution: Resolution, keys: list[str]) -> list[str]:
        """Settings that cannot be put on their instrument's grid: found before anything is applied."""
        wrong: list[str] = []
        for key in keys:
            found = resolution.symbols[key]
            try:
                rules_for(found.instrument, found.settings)
            except ValueError as misfit:
                wrong.append(f"{found.entry}: {misfit}")
        return wrong

    async def reload(self, confirm_seconds: float | None, by: str, nursery: trio.Nursery) -> ReloadResult:
        """Apply the files on disk, all or nothing. `nursery`: where the undo timer lives."""
        async with self._busy:
            try:
                candidate, plan = await self._read()
            except ConfigError as wrong:
                return self._refused(wrong.lines, by)
            except (MmdError, OSError) as wrong:
                return self._refused([str(wrong)], by)
            if not plan.ok:
                return self._refused(plan.errors, by, plan)
            undo_to, told = self._before or self.current, self.current.resolution.notes
            try:
                self._adopt(candidate.config)
            except MmdError as wrong:
                return self._refused([str(wrong)], by, plan)
            self._apply(candidate, plan)
            self._pump.diary.note("config.applied", summary(plan, candidate), by=by)
            for note in candidate.resolution.notes:
                if note not in told:
                    self._pump.diary.note("config.note", note)
            await self._pump.deliver()
            detail = summary(plan, candidate)
            if confirm_seconds is not None:
                self._before = undo_to
                self._arm_undo(confirm_seconds, nursery)
                detail += f"; undone in {confirm_seconds:g} s unless confirmed"
            elif self._before is not None:
                self._confirmed()
            return ReloadResult(outcome=Outcome.DONE, detail=detail, generation=self.current.number, plan=plan)

    def _refused(self, lines: list[str], by: str, plan: PlanResult = NOTHING) -> ReloadResult:
        self.error = "; ".join(lines)
        counters = self._pump.counters
        counters.reloads_refused += 1
        counters.last_reload_ok = False
        self._pump.diary.note("config.refused", self.error, by=by)
        refused = msgspec.structs.replace(plan, ok=False, errors=lines)
        detail = "nothing was applied, the configuration in force stays"
        return ReloadResult(outcome=Outcome.REFUSED, detail=detail, generation=self.current.number, plan=refused)

    def _apply(self, candidate: Generation, plan: PlanResult) -> None:
        """One step between two events: no await in here. Who still leaves is left alone: see `_take_back`."""
        new, parting = candidate.resolution.symbols, self.roster.parting
        staying = {key: worker for key, worker in self._pump.workers.items() if key not in parting}
        workers = self.roster.prepare([new[key] for key in plan.added if key not in parting])
        before, self.current = self.current, candidate
        self.error = None
        going = [key for key in plan.removed if key in staying and not self._is_over(staying[key])]
        self.roster.remove(going, Why.REMOVED)
        for key in plan.changed:
            if key in staying:
                self.roster.change(key, new[key])
        for key in plan.unchanged:  # a limit that only moved to another line is told by its new line
            worker = staying.get(key)
            if worker is not None and worker.machine.settings.sources != new[key].settings.sources:
                self.roster.change(key, new[key])
        self._pump.run()
        changed = [staying[key] for key in plan.changed if key in staying]
        self._treasury.change_limits(candidate.config.portfolio, candidate.config.switches, changed)
        self.roster.enlist(workers)
        counters = self._pump.counters
        counters.reloads_applied += 1
        counters.last_reload_ok = True
        journal, now_ns = self._pump.journal, self._pump.clock.now_ns()
        if journal is not None:
            configured(journal, candidate.config, candidate.number, before.config.sha256, now_ns)
        counters.config_applied_at = self._pump.clock.now_ns() * 1e-9
        self._committed()

    def lacks(self, exchange: str) -> bool:
        """Whether the configuration in force wants something of this exchange that was never selected."""
        return any(entry.target.exchange == exchange for entry in self.current.resolution.awaited)

    async def admit(self, exchange: str, joined: Callable[[Resolution], None]) -> None:
        """An exchange that was absent is there: what the configuration in force wants of it comes into service.

        `joined` is called as it does. ConfigError, or what a question raises: then nothing has changed.
        """
        async with self._busy:
            part = await self._resolve(self.current.config, [exchange])
            before = await self._earlier(exchange)
            there = self._pump.workers
            workers = self.roster.prepare([found for key, found in part.symbols.items() if key not in there])
            # No await from here on: who looks in between sees all of it or nothing.
            if exchange not in self.here:
                self.here.append(exchange)
            self.current = _completed(self.current, part, exchange)
            if self._before is not None and before is not None:
                self._before = _completed(self._before, before, exchange)
            joined(part)
            self.roster.enlist(workers)
            for note in part.notes:
                self._pump.diary.note("config.note", note)
            await self._pump.deliver()

    async def _earlier(self, exchange: str) -> Resolution | None:
        """What the configuration that an unconfirmed reload goes back to wants there; None where that does not fit."""
        if self._before is None:
            return None
        try:
            return await self._resolve(self._before.config, [exchange])
        except ConfigError:
            return None

    def _take_back(self, key: str) -> None:
        """A removed symbol is gone. Where the configuration in force has it, its removal was undone: it returns."""
        found = self.current.resolution.symbols.get(key)
        if found is None:
            return
        try:
            workers = self.roster.prepare([found])
        except ConfigError as wrong:
            self._pump.diary.note("config.undone", f"{key} cannot come back: {wrong}")
            return
        self._pump.diary.note("config.undone", f"{key} has drained and is back")
        self.roster.enlist(workers)

    # --- commit-confirm --------------------------------------------------------------------------

    def _arm_undo(self, seconds: float, nursery: trio.Nursery) -> None:
        self._undo.cancel()
        self._undo = trio.CancelScope()
        self.confirm_deadline_ns = self._pump.clock.now_ns() + int(seconds * 1e9)
        nursery.start_soon(self._undo_later, seconds, self._undo)

    async def _undo_later(self, seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(seconds)
            async with self._busy:
                before = self._before
                if before is None:
                    return
                late = [key for key in before.resolution.symbols if key in self.roster.parting]
                back = Generation(self.current.number + 1, before.config, before.resolution)
                plan = self._compare(back)
                try:
                    self._adopt(back.config)
                except MmdError as wrong:
                    self._pump.diary.note("config.undone", f"but not the alerts: {wrong}")
                self._apply(back, plan)
                self._before = None
                self.confirm_deadline_ns = None
                detail = f"not confirmed within {seconds:g} s: {summary(plan, back)}"
                if late:
                    detail += f"; still draining, back as soon as they are gone: {', '.join(late)}"
                self._pump.diary.note("config.undone", detail)
                await self._pump.deliver()

    def _confirmed(self) -> None:
        self._undo.cancel()
        self._before = None
        self.confirm_deadline_ns = None

    def confirm(self, by: str) -> ReloadResult:
        """Keep what the last `reload --confirm` applied."""
        if self._before is None:
            outcome, detail = Outcome.REFUSED, "no reload waits for confirmation"
        else:
            self._confirmed()
            outcome, detail = Outcome.DONE, f"generation {self.current.number} stays"
            self._pump.diary.note("config.confirmed", detail, by=by)
        return ReloadResult(outcome=outcome, detail=detail, generation=self.current.number, plan=NOTHING)


def _completed(generation: Generation, part: Resolution, exchange: str) -> Generation:
    """With what an exchange has turned out to list."""
    return msgspec.structs.replace(generation, resolution=generation.resolution.completed(part, exchange))


def summary(plan: PlanResult, generation: Generation) -> str:
    """One line for people."""
    counts = f"{len(plan.added)} added, {len(plan.removed)} removed, {len(plan.changed)} changed"
    return f"generation {generation.number}: {counts}, {len(plan.unchanged)} unchanged"
