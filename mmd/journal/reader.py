"""The journal as others read it: record by record in order, and never a line that the chain does not prove.

Reading the newest file while a daemon writes it is fine: a line that is not finished yet is not read.
What a chain cannot show is that its end was cut off at a line: for that, hold a head hash that was
kept elsewhere against it (`verify`, `head`).
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmd.journal.chain import BODY_AT, OPENING, follow, parts
from mmd.journal.disk import Disk, OsDisk
from mmd.journal.faults import Broken, Fault, What, at_of, diagnose, missing, seq_of
from mmd.journal.opening import segment_of
from mmd.journal.records import DECODER, FORMAT, AnyRecord, Segment
from mmd.journal.segments import (
    SMALL_READ,
    Damaged,
    SegmentFile,
    TooLong,
    chunks,
    compressed_name,
    fingerprint,
    lines_of,
    plain_name,
    segment_files,
)
from mmd.journal.statefile import JournalFailed

ROUND_DONE = b'"kind":"snapshotsdone"'
WHOLE_FILE = (What.RENAMED, What.MISSING_FILE, What.DAMAGED, What.UNREADABLE)


class Tail(msgspec.Struct, frozen=True):
    """What follows the last whole line of the newest file: being written now, or left by a crash."""

    file: str
    offset: int
    size: int


class Anchor(msgspec.Struct, frozen=True):
    """Where a hash that was kept elsewhere stands; `seq` 0: it was not found. `wanted`: where it should; 0: anywhere.

    `file` "": it is the hash before the oldest file.
    """

    head: str
    wanted: int = 0
    seq: int = 0
    file: str = ""
    line: int = 0

    @property
    def holds(self) -> bool:
        return self.seq > 0 and self.wanted in (0, self.seq)


class Report(msgspec.Struct):
    """What was verified: up to the fault if there is one. Times are Unix ns.

    `follows`: the hash before the oldest file, "" if that is the very first. `size`: bytes, decompressed.
    `warnings`: what is not as it should be though nothing is missing or changed, a sentence each.
    """

    directory: str
    segments: int = 0
    compressed: int = 0
    records: int = 0
    size: int = 0
    oldest: str = ""
    follows: str = ""
    first_seq: int = 0
    first_at: int = 0
    last_seq: int = 0
    last_at: int = 0
    head: str = ""
    tail: Tail | None = None
    fault: Fault | None = None
    anchor: Anchor | None = None
    warnings: list[str] = []

    @property
    def whole(self) -> bool:
        """No fault, and the hash from elsewhere, if one was given, is in it. A tail is no fault."""
        return self.fault is None and (self.anchor is None or self.anchor.holds)


class Line(msgspec.Struct, frozen=True, gc=False):
    """One proven line: `hash` is the head of the chain there, `body` the record's JSON."""

    seq: int
    hash: str
    body: bytes


class Walk:
    """Goes through files in order and proves every line. After each lot `seq` and `head` are its last line's."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.seq = 0
        self.head = ""
        self.line = 0  # of the current file, last of the lot
        self.number = 0  # of the current file
        self.first: Segment | None = None  # first record of the current file
        self.tail: Tail | None = None
        self._disk = disk
        self._directory = directory

    def files(self) -> list[SegmentFile]:
        """Oldest first. Raises JournalFailed where there are none."""
        try:
            found = segment_files(self._disk, self._directory)
        except OSError as error:
            raise JournalFailed(f"{self._directory}: {error.strerror}") from error
        if not found:
            raise JournalFailed(f"{self._directory}: no journal-*.jsonl here")
        return found

    def lots(self, file: SegmentFile, *, newest: bool) -> Iterator[list[bytes]]:
        """The file's lines, proven, without newlines. Raises Broken at the first that is not, JournalFailed."""
        self.line, self.first = 0, None
        self._check_gap(file)
        name, handle = self._open(file)
        compressed = name.endswith(".gz")
        offset = 0
        try:
            content = lines_of(chunks(self._disk, handle, compressed=compressed))
            for lines, rest in content:
                if lines and self.first is None:
                    self._enter(file, name, lines, content)
                head, whole = follow(self.head, lines)
                bad = lines[whole:]
                if bad:
                    del lines[whole:]
                if lines:
                    self._advance(name, head, lines)
                    offset += sum(map(len, lines)) + len(lines)
                    yield lines
                if bad:
                    raise self._broken(name, bad, content)
                if rest:
                    self._end(name, offset, rest, newest=newest and not compressed)
        except TooLong as long:
            raise self._fault(name, What.CHANGED, f"{long}, and no record is") from long
        except Damaged as damaged:
            raise self._fault(name, What.DAMAGED, str(damaged)) from damaged
        except OSError as error:
            raise self._fault(name, What.UNREADABLE, error.strerror or str(error)) from error
        finally:
            self._disk.close(handle)
        if self.first is None and not newest:
            raise self._fault(name, What.MISSING, "the file is empty")
        self.number = file.number

    def _check_gap(self, file: SegmentFile) -> None:
        """Numbers go up by one; a file under another's name says so itself."""
        if not self.number or file.number == self.number + 1:
            return
        first = self.peek(file)
        if first is not None and first.number != file.number:
            raise self._fault(file.name, What.RENAMED, f"it says that it is {plain_name(first.number)}")
        gone = " to ".join(dict.fromkeys((plain_name(self.number + 1), plain_name(file.number - 1))))
        raise self._fault(gone, What.MISSING_FILE, f"between {plain_name(self.number)} and {file.name}")

    def _open(self, file: SegmentFile) -> tuple[str, int]:
        """Of a file that may be compressed by the daemon at this moment."""
        try:
            try:
                return file.name, self._disk.open_to_read(file.path)
            except FileNotFoundError:
                path = file.path.with_name(compressed_name(file.number))
                return path.name, self._disk.open_to_read(path)
        except OSError as error:
            raise JournalFailed(f"{file.path}: {error.strerror}") from error

    def peek(self, file: SegmentFile) -> Segment | None:
        """The first record of a file, not proven; None if it cannot be read. Raises JournalFailed."""
        name, handle = self._open(file)
        try:
            content = chunks(self._disk, handle, compressed=name.endswith(".gz"), most=SMALL_READ)
            lines, _ = next(lines_of(content))
        except (Damaged, OSError):
            return None
        finally:
            self._disk.close(handle)
        return segment_of(lines[0]) if lines else None

    def unproven(self, file: SegmentFile) -> Iterator[list[bytes]]:
        """The file's lines as far as they can be read. Raises JournalFailed."""
        name, handle = self._open(file)
        try:
            for lot, _ in lines_of(chunks(self._disk, handle, compressed=name.endswith(".gz"))):
                yield lot
        except (Damaged, OSError) as error:
            raise JournalFailed(f"{file.path}: {error}") from error
        finally:
            self._disk.close(handle)

    def fingerprint(self, path: Path) -> tuple[str, int]:
        """SHA-256 and size of a file's content. Raises OSError, Damaged."""
        return fingerprint(self._disk, path, compressed=path.name.endswith(".gz"))

    def _enter(
        self, file: SegmentFile, name: str, lines: list[bytes], content: Iterator[tuple[list[bytes], bytes]]
    ) -> None:
        """The first line of a file says which file it is and what it follows. Raises Broken."""
        first = segment_of(lines[0])
        begins = not self.number  # nothing was read before
        if first is None or not follow(first.previous, lines[:1])[1]:
            if begins and first is not None:
                self.seq, self.head = first.seq - 1, first.previous
            raise self._broken(name, lines, content)
        if first.format != FORMAT:
            raise self._fault(name, What.UNREADABLE, f"format {first.format}, this version reads {FORMAT}")
        if first.number != file.number:
            raise self._fault(name, What.RENAMED, f"it says that it is {plain_name(first.number)}")
        if begins:
            self.seq, self.head = first.seq - 1, first.previous
        elif first.previous != self.head:
            if first.seq > self.seq + 1:
                raise self._fault(name, What.MISSING, missing(self.seq + 1, first.seq - 1) + ", before this file")
            raise self._fault(name, What.CHANGED, f"it does not follow {plain_name(self.number)}")
        self.first = first

    def _advance(self, name: str, head: str, lines: list[bytes]) -> None:
        """Proven lines. Their numbers follow from the chain; a writer that miscounts would show at the last."""
        self.seq += len(lines)
        self.line += len(lines)
        self.head = head
        if seq_of(lines[-1]) != self.seq:
            raise self._fault(name, What.CHANGED, f"the record before says that it is {seq_of(lines[-1])}")

    def _end(self, name: str, offset: int, rest: bytes, *, newest: bool) -> None:
        """What follows the last newline: a tail in the newest file, a fault in any other."""
        if follow(self.head, [rest[:-1]])[1] and rest[-1:] != b"\0":
            raise self._fault(name, What.CHANGED, "the newline behind the record")
        if not newest:
            raise self._fault(name, What.UNFINISHED, f"{len(rest)} bytes behind the last whole line")
        self.tail = Tail(name, offset, len(rest))

    def _broken(self, name: str, bad: list[bytes], content: Iterator[tuple[list[bytes], bytes]]) -> Broken:
        """The first of these lines is not the next one."""
        behind, expected = bad[1:], self.seq + 1
        try:
            for lines, _ in content:
                behind += lines if not behind else [line for line in lines if seq_of(line) == expected]
        except (Damaged, OSError):
            pass  # the rest only helps to tell what happened
        what, detail = diagnose(self.head, self.seq, bad[0], behind)
        return self._fault(name, what, detail)

    def _fault(self, name: str, what: What, detail: str) -> Broken:
        line = 0 if what in WHOLE_FILE else self.line + 1
        return Broken(Fault(name, line, self.seq + 1, what, detail))


def verify(directory: Path, *, head: str = "", seq: int = 0, disk: Disk | None = None) -> Report:
    """Prove every line of every file, and that this hash (or its beginning) is among them, as record `seq` if not 0.

    The first fault is in the report. Raises JournalFailed where there is no journal to look at.
    """
    walk = Walk(OsDisk() if disk is None else disk, directory)
    report = Report(str(directory), anchor=Anchor(head, seq) if head else None)
    files = walk.files()
    report.oldest = files[0].name
    try:
        for file in files:
            report.segments += 1
            for lines in walk.lots(file, newest=file is files[-1]):
                if not report.records:
                    begin(report, walk, lines[0])
                report.records += len(lines)
                report.size += sum(map(len, lines)) + len(lines)
                report.last_seq, report.last_at, report.head = walk.seq, at_of(lines[-1]), walk.head
                if report.anchor is not None and not report.anchor.seq:
                    report.anchor = find(report.anchor, walk, file.name, lines)
            report.compressed += file.compressed
            if file.spare is not None and (why := beside(walk, file, file.spare)):
                report.warnings.append(why)
    except Broken as broken:
        report.fault = broken.fault
    report.tail = walk.tail
    return report


def beside(walk: Walk, file: SegmentFile, spare: Path) -> str:
    """What is wrong with the compressed file beside a plain one, which is what counts; "" for nothing."""
    try:
        same = walk.fingerprint(spare) == walk.fingerprint(file.path)
        wrong = "" if same else f"has not the content of {file.name}"
    except FileNotFoundError:
        return ""  # the daemon was about to compress it
    except Damaged as damaged:
        wrong = f"is unreadable: {damaged}"
    except OSError as error:
        wrong = f"is unreadable: {error.strerror}"
    return wrong and f"{spare.name} {wrong}; {file.name} beside it is whole, and is what counts"


def begin(report: Report, walk: Walk, line: bytes) -> None:
    """Of the very first line: what it follows, which may be the hash that is looked for."""
    first = walk.first
    assert first is not None, "there are lines"
    report.follows, report.first_seq, report.first_at = first.previous, first.seq, at_of(line)
    if report.anchor is not None and first.previous.startswith(report.anchor.head):
        report.anchor = Anchor(first.previous, report.anchor.wanted, first.seq - 1)


def find(anchor: Anchor, walk: Walk, file: str, lines: list[bytes]) -> Anchor:
    """Look for the hash among these lines."""
    needle = OPENING + anchor.head.encode()
    for place, line in enumerate(lines):
        if line.startswith(needle):
            found = parts(line)
            assert found is not None, "it is proven"
            back = len(lines) - 1 - place
            return Anchor(found[0], anchor.wanted, walk.seq - back, file, walk.line - back)
    return anchor


def lines(directory: Path, since: int = 0, *, disk: Disk | None = None) -> Iterator[Line]:
    """Every line from this sequence number on, proven from the beginning of the file that it is in.

    Ends quietly at a line that is not finished. Raises Broken at the first that is not proven, JournalFailed.
    """
    walk = Walk(OsDisk() if disk is None else disk, directory)
    files = walk.files()
    for file in files[start(walk, files, since) :]:
        for lot in walk.lots(file, newest=file is files[-1]):
            seq = walk.seq - len(lot)
            for line in lot:
                seq += 1
                if seq >= since:
                    found = parts(line)
                    assert found is not None, "it is proven"
                    yield Line(seq, *found)


def start(walk: Walk, files: list[SegmentFile], since: int) -> int:
    """Index of the newest file that begins at or before this record; 0 where the oldest begins later."""
    for index in range(len(files) - 1, 0, -1):
        first = walk.peek(files[index])
        if first is not None and first.seq <= since:
            return index
    return 0


def records(directory: Path, since: int = 0, *, disk: Disk | None = None) -> Iterator[AnyRecord]:
    """`lines`, decoded. Raises JournalFailed as well for a record that this version does not know."""
    for line in lines(directory, since, disk=disk):
        try:
            yield DECODER.decode(line.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalFailed(f"{directory}: record {line.seq}: this version cannot read it: {error}") from error


def resume_at(directory: Path, *, disk: Disk | None = None) -> int:
    """From which record on a replay needs no other: where the newest file with all its snapshots begins.

    0 where none has: then only the whole journal will do. Raises JournalFailed; proves nothing.
    """
    walk = Walk(OsDisk() if disk is None else disk, directory)
    for file in reversed(walk.files()):
        first = walk.peek(file)
        if first is not None and has_round(walk, file):
            return first.seq
    return 0


def has_round(walk: Walk, file: SegmentFile) -> bool:
    """Whether every machine's state is in this file."""
    return any(is_round(lot) for lot in walk.unproven(file))


def is_round(lines: list[bytes]) -> bool:
    """Whether the record is among them that every machine's state was written."""
    return any(line.startswith(ROUND_DONE, BODY_AT) for line in lines)
