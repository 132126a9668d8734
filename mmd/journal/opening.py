"""Where a journal goes on: what the last process, or a crash of it, has left in the newest file.

A crash can leave a piece of a line at the end; a loss of power also zeros where blocks were never
written, and everything behind them. That is torn and may be cut off, with a record of it (`mmd.journal.torn`).
Anything else is not of a crash: it is named, and nothing is touched.
"""

from collections import deque
from pathlib import Path

import msgspec

from mmd.journal.chain import GENESIS, follow, parts
from mmd.journal.disk import Disk, read_all
from mmd.journal.records import FORMAT, Segment
from mmd.journal.segments import Damaged, SegmentFile, TooLong, chunks, lines_of, plain_name, segment_files
from mmd.journal.statefile import JournalFailed
from mmd.journal.torn import is_torn

SEGMENT = msgspec.json.Decoder(Segment)


class Found(msgspec.Struct, frozen=True):
    """Where to go on. `goes_on`: in this file, behind `size`; else it must be begun. `extra`: to be removed first.

    `torn`: what must be cut off there.
    """

    number: int
    path: Path
    goes_on: bool
    seq: int = 0
    head: str = GENESIS
    size: int = 0
    began_ns: int = 0
    code: str = ""
    service: str = ""
    torn: bytes = b""
    extra: Path | None = None


class Survey(msgspec.Struct, frozen=True):
    """A file's whole lines: how many, the first, where they end, the chain's state there, and what is behind them.

    Of what is behind them in a compressed file only the beginning.
    """

    file: SegmentFile
    first: Segment | None
    lines: int
    size: int
    seq: int
    head: str
    rest: bytes

    @property
    def torn(self) -> bool:
        """Whether the rest is what a crash leaves."""
        return is_torn(self.rest, self.size)


def look(disk: Disk, directory: Path) -> Found:
    """Where to go on. Raises OSError, and JournalFailed naming what is broken and what to do."""
    files = segment_files(disk, directory)
    if not files:
        return Found(1, directory / plain_name(1), goes_on=False)
    newest = survey(disk, files[-1])
    before = files[-2] if len(files) > 1 and files[-2].number == newest.file.number - 1 else None
    if newest.first is None:
        return begin_again(disk, newest, before)
    if newest.lines == 1 and before is not None:
        older = survey(disk, before)
        if older.first is not None and not before.compressed and older.seq >= newest.first.seq:
            # it was begun, could not be made durable, and was given up: the one before went on
            return msgspec.structs.replace(go_on(older), extra=newest.file.path)
    return go_on(newest)


def survey(disk: Disk, file: SegmentFile) -> Survey:
    """Read a whole file. Raises OSError, JournalFailed."""
    first: Segment | None = None
    head, rest, count, size = GENESIS, b"", 0, 0
    handle = disk.open_to_read(file.path)
    try:
        try:
            content = lines_of(chunks(disk, handle, compressed=file.compressed))
            for lines, end in content:
                if first is None and lines and (first := segment_of(lines[0])) is not None:
                    head = first.previous
                whole = 0
                if first is not None:
                    head, whole = follow(head, lines)
                count, size = count + whole, size + sum(map(len, lines[:whole])) + whole
                rest = b"".join(line + b"\n" for line in lines[whole:]) + end
                if rest:
                    if file.compressed:
                        deque(content, maxlen=0)  # its checksums come last: damage is the better word
                    break
        except TooLong:
            if file.compressed:
                raise
            rest = b"\n"
        if rest and not file.compressed:
            rest = read_all(disk, handle, size, disk.size(handle))
    except Damaged as damaged:
        raise failed(file, f"{damaged}") from damaged
    finally:
        disk.close(handle)
    if first is None or not count:
        return Survey(file, None, 0, 0, 0, GENESIS, rest)
    return Survey(file, first, count, size, first.seq + count - 1, head, rest)


def go_on(newest: Survey) -> Found:
    """Behind the last whole line of the newest file, or in a new one if it is compressed already."""
    file, first = newest.file, newest.first
    assert first is not None, "the caller looked"
    if first.format != FORMAT:
        raise failed(file, f"format {first.format}, this version reads {FORMAT}")
    if first.number != file.number:
        raise failed(file, f"it says that it is {plain_name(first.number)}: it was renamed")
    if newest.rest and (file.compressed or not newest.torn):
        raise failed(file, f"line {newest.lines + 1} does not go on from record {newest.seq}")
    if file.compressed:
        number = file.number + 1
        return Found(number, file.path.with_name(plain_name(number)), goes_on=False, seq=newest.seq, head=newest.head)
    return Found(
        file.number,
        file.path,
        goes_on=True,
        seq=newest.seq,
        head=newest.head,
        size=newest.size,
        began_ns=first.at,
        code=first.code,
        service=first.service,
        torn=newest.rest,
    )


def begin_again(disk: Disk, newest: Survey, before: SegmentFile | None) -> Found:
    """The newest file has no whole line: the process died while it began it. It follows the one before."""
    file = newest.file
    if not newest.torn or file.compressed:
        raise failed(file, "line 1 is not the first record of a journal's file")
    if before is None:
        if file.number != 1:
            raise failed(file, f"it has no whole line, and {plain_name(file.number - 1)} is missing")
        return Found(1, file.path, goes_on=False, torn=newest.rest)
    older = survey(disk, before)
    if older.first is None or older.rest:
        raise failed(before, f"line {older.lines + 1} is broken, and it is not the newest file")
    return Found(file.number, file.path, goes_on=False, seq=older.seq, head=older.head, torn=newest.rest)


def segment_of(line: bytes) -> Segment | None:
    """The first record of a file; None if this line is none."""
    found = parts(line)
    if found is None:
        return None
    try:
        return SEGMENT.decode(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def failed(file: SegmentFile, what: str) -> JournalFailed:
    """Names the file, and what to do."""
    directory = file.path.parent
    return JournalFailed(f"{file.path}: {what}; look with `mmd verify {directory}`, move {directory} away to start")
