"""Old lines of `mmdctl events`, looked up in the journal beside a running daemon: newest first, in small slices.

Nothing is decoded but the notes themselves: they are found by their bytes. The slices are short and the
thread lets go between them, so that the daemon's own thread never waits longer than for one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mmd.journal.chain import BODY_AT, parts
from mmd.journal.disk import Disk, OsDisk
from mmd.journal.records import Note
from mmd.journal.segments import (
    LINE_BYTES_MAX,
    Damaged,
    SegmentFile,
    compressed_name,
    inflate,
    raw_chunks,
    segment_files,
)

MARK = b'","kind":"note",'
SLICE = 1 << 18
PIECE = SLICE // 8
PAUSE_SECONDS = 0.0002
MORE = "older ones match as well"
NOTES = msgspec.json.Decoder(Note)


class _Opening(msgspec.Struct):
    """What is read of the first record of a file."""

    at: int


OPENINGS = msgspec.json.Decoder(_Opening)


class NoteQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Notes numbered above `above` and below `below`, not before `since_ns`, not after `until_ns` (Unix).

    `wanted` says of each whether it is asked for; the last `most` of them are.
    """

    above: int = 0
    below: int | None = None
    since_ns: int = 0
    until_ns: int | None = None
    wanted: Callable[[Note], bool] = lambda note: True
    most: int


class Found(msgspec.Struct, frozen=True):
    """The notes, oldest first. `cut`: why there may be more, older ones; empty if there are none."""

    notes: list[Note]
    cut: str


def search_notes(directory: Path, query: NoteQuery, stop: Callable[[], str], disk: Disk | None = None) -> Found:
    """Look back from the newest file. `stop`: asked between slices; why the search is to end, or empty."""
    disk = disk or OsDisk()
    kept: list[Note] = []
    troubles: list[str] = []
    try:
        files = segment_files(disk, directory)
    except OSError as error:
        return Found([], f"{directory}: {error.strerror}")
    for file in reversed(files):
        room = query.most - len(kept)
        if not room:
            return Found(kept, MORE)
        search = _Search(query, room, stop)
        try:
            search.run(disk, file)
        except (OSError, Damaged) as error:
            troubles.append(f"{file.name}: {getattr(error, 'strerror', None) or error}")
        kept = [*search.kept, *kept]
        if search.ended:
            return Found(kept, search.ended)
        if search.reached:
            break
    return Found(kept, "; ".join(troubles))


class _Search:
    """One file. `reached`: what is older than the query begins here; `ended`: why it was ended before its end."""

    def __init__(self, query: NoteQuery, most: int, stop: Callable[[], str]) -> None:
        self.kept: deque[Note] = deque(maxlen=most)
        self.reached = False
        self.ended = ""
        self._query = query
        self._stop = stop

    def run(self, disk: Disk, file: SegmentFile) -> None:
        """Raises OSError, Damaged; what was found until then is kept."""
        try:
            handle, compressed = disk.open_to_read(file.path), file.compressed
        except FileNotFoundError:  # compressed by the daemon at this moment
            handle, compressed = disk.open_to_read(file.path.with_name(compressed_name(file.number))), True
        try:
            raw = raw_chunks(disk, handle, 0)
            self._read(inflate(_small(raw)) if compressed else raw)
        finally:
            disk.close(handle)

    def _read(self, content: Iterator[bytes]) -> None:
        query = self._query
        first = True
        for lines in self._slices(content):
            if first:
                first = False
                opened_ns = _opened_ns(lines)
                self.reached = opened_ns < query.since_ns
                if query.until_ns is not None and opened_ns > query.until_ns:
                    return
            for note in _notes_in(lines):
                if note.number <= query.above + 1 or note.at < query.since_ns:
                    self.reached = True
                if query.until_ns is not None and note.at > query.until_ns:
                    return
                if query.below is not None and note.number >= query.below:
                    return
                if note.number > query.above and note.at >= query.since_ns and query.wanted(note):
                    if len(self.kept) == self.kept.maxlen:
                        self.ended = MORE
                    self.kept.append(note)
            if why := self._stop():
                self.kept.clear()  # the newest of this file are not among them: no gap in what is shown
                self.ended = why
                return

    def _slices(self, content: Iterator[bytes]) -> Iterator[bytes]:
        """Whole lines, about SLICE bytes of them at a time."""
        rest = b""
        for chunk in content:
            for start in range(0, len(chunk), SLICE):
                piece = rest + chunk[start : start + SLICE]
                end = piece.rfind(b"\n") + 1
                rest = piece[end:]
                if len(rest) > LINE_BYTES_MAX:
                    raise Damaged("a line of it is longer than any record")
                if end:
                    yield piece[:end]
                time.sleep(PAUSE_SECONDS)  # in a thread of its own: the daemon's loop gets the interpreter


def _small(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Compressed bytes in pieces of which each becomes a slice or so."""
    for chunk in raw:
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]


def _opened_ns(lines: bytes) -> int:
    """When the file was begun; Damaged where its first line cannot be read."""
    found = parts(lines[: lines.index(b"\n")])
    if found is None:
        raise Damaged("its first line is no record")
    try:
        return OPENINGS.decode(found[1]).at
    except msgspec.DecodeError as error:
        raise Damaged(f"its first line is no record: {error}") from error


def _notes_in(lines: bytes) -> Iterator[Note]:
    """The notes among whole lines. Damaged where one cannot be read."""
    at = lines.find(MARK)
    while at >= 0:
        start, end = lines.rfind(b"\n", 0, at) + 1, lines.index(b"\n", at)
        if at - start == BODY_AT - 2:
            try:
                yield NOTES.decode(b"{" + lines[start + BODY_AT : end])
            except msgspec.DecodeError as error:
                raise Damaged(f"a note in it cannot be read: {error}") from error
        at = lines.find(MARK, end)
