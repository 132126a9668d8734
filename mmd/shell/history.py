"""`mmdctl events` further back than the diary reaches: the journal is read beside the loop, never on it."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from fnmatch import translate
from pathlib import Path

import trio

from mmd.journal.notes import MORE, Found, NoteQuery, search_notes
from mmd.journal.records import Note
from mmd.shell.desk import EventAnswer, EventLine, EventQuery
from mmd.shell.diary import KEPT, Diary

SEARCH_SECONDS = 5.0
LOOK_AT = 1000  # lines of the diary before the loop turns
LEFT_OUT = "older ones are in the journal: `mmd journal export --what notes`"


class History:
    """One search of the journal at a time: who asks next waits."""

    def __init__(self, diary: Diary, directory: Path | None) -> None:
        """`directory`: of the journal; None where none is kept."""
        self._diary = diary
        self._directory = directory
        self._searching = trio.Lock()

    async def find(self, query: EventQuery) -> EventAnswer:
        """The last `query.lines` events that match, oldest first. What cannot be read is said in `cut`."""
        newest = self._diary.last
        lines = self._diary.since(0, KEPT)
        wanted = matcher(query)
        found: deque[EventLine] = deque()
        for count, line in enumerate(reversed(lines), 1):
            if line.seq <= query.above or line.time < query.since:
                break
            if wanted(line):
                if len(found) == query.lines:
                    return EventAnswer(newest=newest, events=list(found), cut=MORE)
                found.appendleft(line)
            if count % LOOK_AT == 0:
                await trio.lowlevel.checkpoint()
        oldest = lines[0] if lines else None
        if oldest is not None and (oldest.seq <= query.above + 1 or oldest.time < query.since):
            return EventAnswer(newest=newest, events=list(found), cut="")
        older = await self._look_back(query, wanted, query.lines - len(found), oldest)
        events = [*(line_of(note) for note in older.notes), *found]
        return EventAnswer(newest=max(newest, events[-1].seq if events else 0), events=events, cut=older.cut)

    async def _look_back(
        self, query: EventQuery, wanted: Callable[[EventLine], bool], most: int, oldest: EventLine | None
    ) -> Found:
        """What is older than the diary, in a thread that is given up with the task that waits for it."""
        if self._directory is None:
            return Found([], "")
        given_up = threading.Event()
        search = NoteQuery(
            above=query.above,
            below=oldest.seq if oldest else None,
            since_ns=int(query.since * 1e9),
            until_ns=None if query.until is None else int(query.until * 1e9),
            wanted=lambda note: wanted(line_of(note)),
            most=most,
        )
        async with self._searching:
            deadline = time.monotonic() + SEARCH_SECONDS

            def stop() -> str:
                late = time.monotonic() > deadline
                return f"stopped after {SEARCH_SECONDS:g} s; {LEFT_OUT}" if late or given_up.is_set() else ""

            try:
                return await trio.to_thread.run_sync(
                    search_notes, self._directory, search, stop, abandon_on_cancel=True
                )
            finally:
                given_up.set()


def line_of(note: Note) -> EventLine:
    """A note as it was told."""
    return EventLine(
        seq=note.number,
        time=note.at * 1e-9,
        name=note.name,
        symbol=note.symbol,
        exchange=note.exchange,
        detail=note.detail,
        by=note.by,
    )


def matcher(query: EventQuery) -> Callable[[EventLine], bool]:
    """Whether an event is within the query's upper bounds and has its name and symbol."""
    name = re.compile(translate(query.name)).match
    symbol = re.compile(translate(query.symbol)).match

    def wanted(line: EventLine) -> bool:
        if query.below is not None and line.seq >= query.below:
            return False
        if query.until is not None and line.time > query.until:
            return False
        if query.name != "*" and not name(line.name):
            return False
        if query.symbol == "*":
            return True
        return line.symbol is not None and bool(symbol(line.symbol) or symbol(f"{line.exchange}/{line.symbol}"))

    return wanted
