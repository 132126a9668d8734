"""The book of cases: every difference between an exchange and us, numbered, kept until it is closed, and after.

The machines find and close them; this room numbers them for people. Numbers are never used again:
the book is on disk, `cases.json` in the state directory, and the next process goes on with it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import msgspec

from mmd.domain.actions import CaseClosed, CaseOpened, Tripped
from mmd.domain.events import JournalDoubted, Mail
from mmd.domain.reasons import CaseKind, Scope, Switch
from mmd.journal.statefile import JournalFailed, StateFile
from mmd.shell.alarm import Alarm
from mmd.shell.clock import Clock
from mmd.shell.desk import CaseLine, CaseState
from mmd.shell.diary import Diary
from mmd.shell.worker import Worker

FORMAT = 1
FILE = "cases.json"
KEPT_CLOSED = 1000
MMD = "mmd"  # who closes a case that explained itself
ABSENT = "nothing was adopted: the symbol is not in service"

Mark = tuple[str, CaseKind, str]
"""Symbol's key, kind, subject: what there is one open case of."""


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One difference. `closed_ns` 0: open; then `by` and `reason` say who ended it and why."""

    number: int
    key: str
    kind: CaseKind
    subject: str
    ours: str
    theirs: str
    since_ns: int
    closed_ns: int = 0
    by: str = ""
    reason: str = ""

    @property
    def mark(self) -> Mark:
        return self.key, self.kind, self.subject

    @property
    def state(self) -> CaseState:
        if not self.closed_ns:
            return CaseState.OPEN
        return CaseState.EXPLAINED if self.by == MMD else CaseState.ACCEPTED

    @property
    def line(self) -> CaseLine:
        exchange, _, symbol = self.key.partition("/")
        return CaseLine(
            number=self.number,
            symbol=symbol,
            exchange=exchange,
            kind=self.kind,
            subject=self.subject,
            ours=self.ours,
            theirs=self.theirs,
            since=self.since_ns * 1e-9,
            state=self.state,
            closed=self.closed_ns * 1e-9 if self.closed_ns else None,
            by=self.by,
            reason=self.reason,
        )

    def __str__(self) -> str:
        subject = f" of {self.subject}" if self.subject else ""
        return f"case {self.number}: {self.kind}{subject}: ours {self.ours}, the exchange's {self.theirs}"


class Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content. `last`: the highest number given; `cases`: the last closed ones, then the open ones."""

    format: int
    last: int
    cases: list[Case]


class House(Protocol):
    """What the book needs of the pump."""

    clock: Clock
    diary: Diary
    alarm: Alarm
    workers: dict[str, Worker]
    unwritten: bool
    write: Callable[[], None]
    journal_failed: Callable[[str], None]

    def post(self, worker: Worker, event: Mail) -> None:
        """Put an event into a mailbox."""


class CaseBook:
    """A book that cannot be written halts everything: a case must survive a restart."""

    def __init__(self, state: Path | None, pump: House) -> None:
        """Raises JournalFailed if the file is there and cannot be read. None: nothing is kept (demo, tests)."""
        self._file = StateFile(state / FILE, Book) if state is not None else None
        self._pump = pump
        self._open: dict[Mark, Case] = {}
        self._closed: deque[Case] = deque(maxlen=KEPT_CLOSED)
        self._last = 0
        self._changed = False
        self._write_others = pump.write
        if self._file is not None:
            self._read(self._file)

    def _read(self, file: StateFile[Book]) -> None:
        book = file.read()
        if book is None:
            return
        if book.format != FORMAT:
            raise JournalFailed(f"{file.path}: format {book.format}, this version reads {FORMAT}")
        self._last = book.last
        for case in book.cases:
            if case.closed_ns:
                self._closed.append(case)
            else:
                self._open[case.mark] = case

    # --- what machines find ------------------------------------------------------------------------

    def opened(self, worker: Worker, action: CaseOpened) -> None:
        """Number it. One that was open before under the same mark goes on under its number."""
        mark = worker.key, action.case, action.subject
        known = self._open.get(mark)
        if known is not None:
            case = msgspec.structs.replace(known, ours=action.ours, theirs=action.theirs)
        else:
            difference = worker.machine.cases.get((action.case, action.subject))
            self._last += 1
            case = Case(
                number=self._last,
                key=worker.key,
                kind=action.case,
                subject=action.subject,
                ours=action.ours,
                theirs=action.theirs,
                since_ns=difference.since_ns if difference is not None else self._pump.clock.now_ns(),
            )
        self._open[mark] = case
        self._note("case.opened", str(case), worker.key)

    def closed(self, worker: Worker, action: CaseClosed) -> None:
        """It is explained (by mmd) or accepted (by a person)."""
        case = self._open.get((worker.key, action.case, action.subject))
        if case is not None:
            self._close(case, action.by, action.reason)

    def accept_absent(self, case: Case, by: str, reason: str) -> None:
        """A person closes an open one of a symbol that is not in service.

        Nothing adopts the exchange's word: a successor that inherits the difference opens another case.
        """
        assert case.key not in self._pump.workers, "its machine decides"
        self._close(case, by, f"{reason} ({ABSENT})")

    def restored(self, worker: Worker) -> None:
        """This symbol came into service; its machine may have inherited cases. Each keeps its number.

        An open case that an heir does not have was closed in the last moment before the end. Where
        nothing was inherited, nobody can say that it was: that is a case of the journal.
        """
        machine = worker.machine
        for (kind, subject), found in machine.cases.items():
            if (worker.key, kind, subject) not in self._open:
                self.opened(worker, CaseOpened(kind, subject, found.ours, found.theirs))
        gone = [case for case in self._open.values() if case.key == worker.key]
        gone = [case for case in gone if (case.kind, case.subject) not in machine.cases]
        if gone and not machine.heir:
            doubt = "; ".join(case.ours if case.kind is CaseKind.JOURNAL else f"{case}: not decided" for case in gone)
            self._pump.post(worker, JournalDoubted(doubt, self._pump.clock.now_ns()))
        for case in gone:
            if machine.heir:
                self._close(case, MMD, "over before the restart")
            elif case.kind is not CaseKind.JOURNAL:  # that one goes on under its number
                self._close(case, MMD, "goes on as a case of the journal")
        if machine.cases:
            self._alert(worker)

    def _alert(self, worker: Worker) -> None:
        """What was tripped in the last process lasts; it is not a trip of this one."""
        response = worker.machine.settings.switches.responses[Switch.RECONCILIATION]
        detail = f"{len(worker.machine.cases)} open since before a restart"
        tripped = Tripped(Switch.RECONCILIATION, Scope.SYMBOL, worker.key, response, detail)
        self._pump.alarm.alerts.fire_switch(tripped)

    def _close(self, case: Case, by: str, reason: str) -> None:
        over = msgspec.structs.replace(case, closed_ns=self._pump.clock.now_ns(), by=by, reason=reason)
        del self._open[case.mark]
        self._closed.append(over)
        self._note("case.closed", f"{over}; {over.state}: {reason}", case.key, None if by == MMD else by)

    def _note(self, name: str, detail: str, key: str, by: str | None = None) -> None:
        exchange, _, symbol = key.partition("/")
        self._pump.diary.note(name, detail, symbol=symbol, exchange=exchange, by=by)
        self._changed = True
        self._pump.unwritten = True
        # The pump has one writer, and the register of halts is made after this book: go in front of it now.
        if self._pump.write != self.write:
            self._write_others, self._pump.write = self._pump.write, self.write

    # --- on disk -----------------------------------------------------------------------------------

    def write(self) -> None:
        """Called by the pump after a turn in which a halt or a case came or went, once the cancels have left.

        What cannot be written is tried again with the next change; a reset of the halt that it brings is one.
        """
        self._write_others()
        if self._file is None or not self._changed:
            return
        try:
            self._file.write(Book(FORMAT, self._last, [*self._closed, *map(self._current, self._open.values())]))
        except JournalFailed as error:
            self._pump.journal_failed(str(error))
            return
        self._changed = False

    # --- for people --------------------------------------------------------------------------------

    def lines(self, *, closed: bool) -> list[CaseLine]:
        """By number; open ones with the numbers of now. `closed`: the last 1,000 closed ones as well."""
        cases = [self._current(case) for case in self._open.values()]
        if closed:
            cases += self._closed
        return [case.line for case in sorted(cases, key=lambda case: case.number)]

    def find(self, number: int) -> Case | None:
        """None where there is no such case, or it was closed long ago."""
        for mark, case in self._open.items():
            if case.number == number:
                self._open[mark] = self._current(case)  # the numbers that somebody is about to accept
                return self._open[mark]
        return next((case for case in self._closed if case.number == number), None)

    def _current(self, case: Case) -> Case:
        """A case whose numbers have moved since it was opened is the same case."""
        worker = self._pump.workers.get(case.key)
        found = worker.machine.cases.get((case.kind, case.subject)) if worker is not None else None
        if case.closed_ns or found is None:
            return case
        return msgspec.structs.replace(case, ours=found.ours, theirs=found.theirs)


def about(lines: list[CaseLine], patterns: list[str], keys: Iterable[str]) -> list[CaseLine]:
    """Those of the symbols that `patterns` name, as for any other view; `keys`: symbols in service.

    A symbol that has left may have cases still. Raises KeyError with the pattern that matches nothing at all.
    """
    found: dict[int, CaseLine] = {}
    for pattern in patterns:
        hits = [line for line in lines if matches(f"{line.exchange}/{line.symbol}", pattern)]
        if not hits and pattern != "all" and not any(matches(key, pattern) for key in keys):
            raise KeyError(pattern)
        found.update({line.number: line for line in hits})
    return [found[number] for number in sorted(found)]


def matches(key: str, pattern: str) -> bool:
    return pattern == "all" or fnmatchcase(key, pattern) or fnmatchcase(key.partition("/")[2], pattern)
