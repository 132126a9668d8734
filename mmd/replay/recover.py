"""What the last process left, from the end of its journal: a week's journal is read in seconds.

The replay begins with the newest file that has every machine's state in it. What differs does not stop
it: the machine goes on with what it computed, and whoever starts from it is told.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.journal import records as rec
from mmd.journal.disk import Disk
from mmd.journal.notes import NoteQuery, search_notes
from mmd.journal.reader import lines, resume_at
from mmd.replay.collector import no_collector
from mmd.replay.replayer import PEOPLE, Difference, Replayer, decode

NOTES_KEPT = 10_000
# Older notes are looked for in so many slices of 256 KiB of the files before.
SLICES_MAX = 400
RECORDS_A_BEAT = 500  # some milliseconds
NOTE, _, _, CONFIGURED, _ = PEOPLE
NOTES = msgspec.json.Decoder(rec.Note)


class _Brief(msgspec.Struct):
    """What is read of any record, `sha256` of a Configured one."""

    at: int
    sha256: str = ""


BRIEF = msgspec.json.Decoder(_Brief)


class Recovered(msgspec.Struct, kw_only=True):
    """Machines by symbol's key, as the last process had them; `portfolio` None: nothing is known of its losses.

    `broken`: whose machine may not be as it was, and why. `differences`: the first of each symbol. `notes`:
    the last 10,000, oldest first; `number`: of the last one. `sha256`: of the last configuration that the
    replayed files tell of, "" if none. `owners`: by symbol's key, the account under which it ran, "" where
    that is not known; `accounts`: by exchange, of the process that had the portfolio. `told`: that process came as far
    as to ask one; else it knew of positions by hearsay. `stopped`: the last process ended in order. `seq`, `at`,
    `head`: the last record's. `version`: of the program that wrote the end.
    """

    machines: dict[str, SymbolMachine] = {}
    portfolio: PortfolioMachine | None = None
    broken: dict[str, str] = {}
    differences: list[Difference] = []
    notes: list[rec.Note] = []
    number: int = 0
    sha256: str = ""
    stopped: bool = False
    owners: dict[str, str] = {}
    accounts: dict[str, str] = {}
    told: bool = False
    records: int = 0
    seq: int = 0
    at: int = 0
    head: str = ""
    version: str = ""


def nobody_waits() -> None:
    """Nobody has to be told that it goes on."""


def recover(directory: Path, *, disk: Disk | None = None, alive: Callable[[], None] = nobody_waits) -> Recovered:
    """Replay the end of the journal. JournalFailed where its chain is broken or there is no journal.

    `alive` is called again and again while it reads, and costs nothing if it does nothing.
    """
    with no_collector():
        return _recover(directory, disk, alive)


def _recover(directory: Path, disk: Disk | None, alive: Callable[[], None]) -> Recovered:
    replayer = Replayer()
    found = Recovered()
    notes: deque[bytes] = deque(maxlen=NOTES_KEPT)
    body = configured = b""
    for line in lines(directory, resume_at(directory, disk=disk), disk=disk):
        if found.records % RECORDS_A_BEAT == 0:
            alive()
        found.records += 1
        found.seq, found.head = line.seq, line.hash
        body = line.body
        if body.startswith(PEOPLE):
            if body.startswith(NOTE):
                notes.append(body)
            elif body.startswith(CONFIGURED):
                configured = body
            continue
        record = decode(body, line.seq)
        if type(record) is rec.Stopped:
            found.stopped = True
        elif type(record) is rec.Started:
            found.stopped = False
        elif type(record) is rec.SnapshotsDone:
            found.number = max(found.number, record.note)
        difference = replayer.feed(record)
        if difference is not None:
            found.differences.append(difference)
    found.machines = replayer.heritage()
    found.portfolio, found.accounts = replayer.last_portfolio()
    found.told = replayer.told
    found.broken = replayer.doubts()
    doubted = {*found.broken, *(difference.key for difference in found.differences)}
    found.owners = {key: replayer.owner(key) for key in (*found.machines, *doubted)}
    found.version = replayer.version
    if body:
        found.at = BRIEF.decode(body).at
    if configured:
        found.sha256 = BRIEF.decode(configured).sha256
    _add_notes(found, [NOTES.decode(body) for body in notes], directory, disk, alive)
    return found


def _add_notes(
    found: Recovered, notes: list[rec.Note], directory: Path, disk: Disk | None, alive: Callable[[], None]
) -> None:
    """Those of the replayed files, and older ones as far back as is quick; and the number of the last.

    Where none is found that near, and nobody wrote its number down, they go on from the record's number:
    each was a record, so none has it.
    """
    missing = NOTES_KEPT - len(notes)
    if missing:
        left = iter(range(SLICES_MAX))

        def far_enough() -> str:
            alive()
            return "" if next(left, None) is not None else "far enough"

        query = NoteQuery(below=notes[0].number if notes else None, most=missing)
        older = search_notes(directory, query, far_enough, disk)
        notes = [*older.notes, *notes]
        if not notes and older.cut:
            found.number = found.number or found.seq
    found.notes = notes
    found.number = max(found.number, notes[-1].number if notes else 0)
