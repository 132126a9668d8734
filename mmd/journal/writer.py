"""The journal as the daemon writes it: encode and chain at once, one write per turn, never a line half done.

`batch`, `totals` and `put` only fill a buffer. `commit` writes it with one system call; what it could
not write stays in the buffer, in order, and the file ends with its last whole line. Lines lie at known
offsets, so writing them again is the same as writing them once.
"""

import errno
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mmd.domain.actions import Decision
from mmd.domain.events import Mail
from mmd.domain.settings import FsyncPolicy, JournalSettings
from mmd.domain.totals import PortfolioAction, Told
from mmd.journal.chain import BODY_AT, GENESIS, follow, line_of, link
from mmd.journal.disk import Disk, OsDisk, read_all, write_all
from mmd.journal.encoding import encode, encode_batch, encode_totals
from mmd.journal.opening import look
from mmd.journal.records import FORMAT, Lost, Record, Segment, Snapshot, Torn, Unclaimed
from mmd.journal.reserve import MIB, Reserve
from mmd.journal.segments import LINE_BYTES_MAX, plain_name
from mmd.journal.statefile import JournalFailed
from mmd.journal.torn import Cut, cut_off, untold

BUFFER_BYTES_MAX = 8 << 20
HOUR_NS = 3_600_000_000_000
ROTATE_AGAIN_NS = 1_000_000_000
STATES = (Snapshot, Unclaimed)


class _Reached(msgspec.Struct, frozen=True, gc=False):
    """How far the file has come: its last record, its hash, and the file's size behind it."""

    seq: int
    head: str
    size: int


class Journal:
    """Opens or creates the journal in `directory`. Raises JournalFailed where that cannot be done safely.

    Everything is called by one thread, but for `sync`, which any one other thread may call at any time.
    `fsync: interval` needs somebody who calls it; `always` is done by `commit`. `settings` may be replaced;
    a reserve of another size is taken at the next opening.
    `code`, `service`: if the newest file names others, a new one is begun.
    """

    def __init__(
        self,
        directory: Path,
        settings: JournalSettings,
        *,
        service: str,
        version: str,
        code: str,
        now_ns: int,
        disk: Disk | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.service, self.version, self.code = service, version, code
        self.records = self.bytes_written = self.fsyncs = self.write_errors = 0  # since this process began
        self.lost = 0  # records given up for good
        self.last_sync_ns = 0
        self.sync_seconds = 0.0
        self.torn: Cut | None = None  # what was cut off at the opening
        self._disk: Disk = OsDisk() if disk is None else disk
        self._reserve = Reserve(self._disk, directory)
        self._clock_ns = clock_ns
        self._syncing = threading.RLock()  # held while a handle must not be closed
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._given_up = 0  # records lost since the last Lost record
        self._last_at = now_ns
        self._write_fault = self._sync_fault = self._rotation_fault = self._vanished = ""  # what fails now, and why
        self._rotate_again_ns = 0
        self._renew = False
        self._seen = 0  # how much of the file was last seen to be there
        self._handle = -1
        self.seq, self.head, self.segment, self._began_ns = 0, GENESIS, 0, now_ns
        self._written = self._durable = _Reached(0, GENESIS, 0)
        try:
            self._open(now_ns)
        except OSError as error:
            self._abandon()
            raise JournalFailed(f"{error.filename or directory}: {error.strerror}") from error
        except JournalFailed:
            self._abandon()
            raise

    # --- what it is ------------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """Why nothing may be done now; empty when all is well."""
        return self._write_fault or self._sync_fault or self._reserve.fault or self._rotation_fault or self._vanished

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self.directory / plain_name(self.segment)

    @property
    def segment_bytes(self) -> int:
        """Its size, without what is still in the buffer."""
        return self._written.size

    @property
    def written_seq(self) -> int:
        """The last record that is in the file."""
        return self._written.seq

    @property
    def written_head(self) -> str:
        """Its hash: what to show to others, who may look for it in the file."""
        return self._written.head

    @property
    def synced_seq(self) -> int:
        """The last record that outlives a loss of power."""
        return self._durable.seq

    @property
    def pending_bytes(self) -> int:
        """Waiting in the buffer."""
        return self._buffered

    @property
    def pending_records(self) -> int:
        return len(self._buffer)

    # --- writing down ----------------------------------------------------------------------------

    def batch(
        self,
        key: str,
        at: int,
        events: Sequence[Mail],
        actions: Sequence[Decision],
        *,
        shadow: bool = False,
        error: str = "",
        called_off: bool = False,
    ) -> None:
        """A machine handled these events at `at` (Unix ns) and returned these actions. Buffered only."""
        seq = self.seq + 1
        body = encode_batch(seq, at, key, events, actions, shadow=shadow, error=error, called_off=called_off)
        self._append(body, at)

    def totals(
        self, at: int, told: Sequence[Told], valued: tuple[str, ...] | None, actions: Sequence[PortfolioAction]
    ) -> None:
        """The portfolio machine was told these events, then the value of these symbols. Buffered only."""
        self._append(encode_totals(self.seq + 1, at, told, valued, actions), at)

    def put(self, kind: type[Record], at: int, **fields: Any) -> int:
        """Any other record; returns its sequence number, 0 if it had to be given up. Buffered only."""
        record = kind(seq=self.seq + 1, at=at, **fields)
        body = encode(record)
        assert b"\n" not in body, f"{kind.__name__} with a newline in its raw JSON"
        if kind in STATES:
            self._snapshot_bytes += len(body)
        return self.seq if self._append(body, at) else 0

    def _append(self, body: bytes, at: int) -> bool:
        """Chain it and buffer it. False: the disk has failed for so long that it was given up."""
        self._last_at = at
        if self._given_up or (self._write_fault and self._buffered + len(body) > BUFFER_BYTES_MAX):
            self._given_up += 1
            self.lost += 1
            return False
        assert len(body) < LINE_BYTES_MAX - BODY_AT, f"a record of {len(body)} bytes: nobody reads one that long"
        self.seq += 1
        self.head = link(self.head, body)
        line = line_of(self.head, body)
        self._buffer.append(line)
        self._buffered += len(line)
        return True

    # --- to the disk -----------------------------------------------------------------------------

    def commit(self) -> None:
        """Write what is buffered; with `fsync: always` make it durable as well.

        Raises JournalFailed: nothing may be done that was not journalled. What could not be written stays
        buffered; call it again. A full disk raises too, though the reserve may have let everything through.
        """
        if self._reserve.fault:
            self._reserve.take(self.settings.reserve_mib)
        if self._buffer:
            self._write()
        if self._given_up and not self._write_fault:
            self._admit()
        if self._write_fault:
            self._cut_back()
        policy = self.settings.fsync
        if policy is FsyncPolicy.ALWAYS or (policy is FsyncPolicy.NEVER and self._sync_fault):
            self._sync()
        if fault := self._write_fault or self._sync_fault or self._reserve.fault:
            raise JournalFailed(fault)

    def _write(self) -> None:
        """The buffer to the file, all or nothing; a full disk gets the reserve and a second try."""
        content = b"".join(self._buffer)
        try:
            try:
                write_all(self._disk, self._handle, self._written.size, content)
            except OSError as error:
                if not self._reserve.give(error):
                    raise
                write_all(self._disk, self._handle, self._written.size, content)
        except OSError as error:
            self._write_fault = self._said(error)
            return
        self._write_fault = ""
        self.records += len(self._buffer)
        self.bytes_written += len(content)
        self._written = _Reached(self.seq, self.head, self._written.size + len(content))
        self._buffer = []
        self._buffered = 0

    def _cut_back(self) -> None:
        """End the file with its last whole line. If that fails too, the next write covers what is there."""
        try:
            self._disk.truncate(self._handle, self._written.size)
        except OSError:
            self.write_errors += 1

    def _admit(self) -> None:
        """Say how many records are missing, and ask for a new file: its snapshots make up for them."""
        missing, self._given_up = self._given_up, 0
        self._renew = True
        self.put(Lost, self._last_at, records=missing)
        self._write()

    def _said(self, error: OSError) -> str:
        """What goes into the log and the state."""
        self.write_errors += 1
        return f"{self.path}: {error.strerror or error}"

    def sync(self) -> None:
        """Make durable what is written. Raises JournalFailed. May be called by another thread."""
        self._sync()
        if self._sync_fault:
            raise JournalFailed(self._sync_fault)

    def _sync(self) -> None:
        with self._syncing:
            written = self._written
            if self._handle < 0:
                return
            if self._durable == written and not self._sync_fault:
                return
            began = time.perf_counter()
            try:
                if self._sync_fault:
                    self._write_again(written)
                self._disk.sync(self._handle)
            except OSError as error:
                self._sync_fault = self._said(error)
                return
            finally:
                self.sync_seconds += time.perf_counter() - began
            self._sync_fault = ""
            self._durable = written
            self.fsyncs += 1
            self.last_sync_ns = self._clock_ns()

    def _write_again(self, written: _Reached) -> None:
        """What a failed sync may have dropped: the system counts those pages as clean and would not write them."""
        start, end = self._durable, written.size
        content = read_all(self._disk, self._handle, start.size, end)
        lines = content.split(b"\n")
        head, whole = follow(start.head, lines[:-1])
        if len(content) != end - start.size or lines[-1] or whole != len(lines) - 1 or head != written.head:
            raise OSError(errno.EIO, f"what was written after record {start.seq} cannot be read back; restart")
        write_all(self._disk, self._handle, start.size, content)

    # --- files -----------------------------------------------------------------------------------

    def look(self) -> None:
        """See that what is written can be found: the file under its name is ours, and as long as we made it.

        Raises JournalFailed, once; then a new file is due, and `failing` says why until it has begun.
        """
        if self._handle < 0 or self._vanished or self._write_fault:
            return
        try:
            if not self._disk.same(self._handle, self.path):
                what = "another file has this name now"
            elif self._is_cut():
                what = "somebody has cut it"
            else:
                self._seen = self._written.size
                return
        except OSError as error:
            what = error.strerror or str(error)
        self.write_errors += 1
        self._vanished = f"{self.path}: what was written into it is lost: {what}"
        self._renew = True
        raise JournalFailed(self._vanished)

    def _is_cut(self) -> bool:
        """Somebody made the file shorter than we had. Raises OSError.

        What was written behind the cut has made it long enough again, with a hole before it: one that begins
        where something was when we looked last, or behind. No record has a zero byte.
        """
        start, end = max(0, self._seen - 1), self._written.size
        return b"\0" in read_all(self._disk, self._handle, start, end) or self._disk.size(self._handle) < end

    def due(self, now_ns: int) -> bool:
        """Whether a new file should be begun: this one is large or old, or gone, or records were lost before it.

        Snapshots do not count: however large they are, a file has room for what happens.
        """
        if now_ns < self._rotate_again_ns:
            return False
        settings = self.settings
        old = now_ns - self._began_ns >= settings.segment_hours * HOUR_NS
        return self._renew or old or self._written.size - self._snapshot_bytes >= settings.segment_mib * MIB

    def rotate(self, now_ns: int) -> None:
        """Close this file and begin the next. Raises JournalFailed; then this one goes on, and it is due again."""
        try:
            self.commit()
            self._next(now_ns)
        except JournalFailed:
            self._rotate_again_ns = now_ns + ROTATE_AGAIN_NS
            raise

    def _next(self, now_ns: int) -> None:
        """`rotate`, with nothing in the buffer, whether or not there is room."""
        with self._syncing:
            self.sync()
            old = self._handle
            try:
                self._begin(self.segment + 1, now_ns)
            except OSError as error:
                self._rotation_fault = self._said(error)
                raise JournalFailed(self._rotation_fault) from error
            self._rotation_fault = ""
            self._shut(old)

    def close(self) -> None:
        """Write and make durable what is left. Raises JournalFailed; the file is closed all the same."""
        try:
            try:
                self.commit()
            finally:
                self.sync()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        if self._handle >= 0:
            with self._syncing:
                self._shut(self._handle)
                self._handle = -1

    def _shut(self, handle: int) -> None:
        """What is in the file was made durable before, or that has failed and was told."""
        try:
            self._disk.close(handle)
        except OSError:
            self.write_errors += 1

    def _begin(self, number: int, now_ns: int) -> None:
        """A new file with its first record, durable. Raises OSError; then nothing has changed."""
        record = Segment(
            seq=self.seq + 1,
            at=now_ns,
            format=FORMAT,
            number=number,
            previous=self.head,
            service=self.service,
            version=self.version,
            code=self.code,
        )
        body = encode(record)
        head = link(self.head, body)
        line = line_of(head, body)
        path = self.directory / plain_name(number)
        try:
            handle = self._create(path, line)
        except OSError as error:
            if not self._reserve.give(error):
                raise
            handle = self._create(path, line)
        self.seq, self.head, self.segment, self._handle = self.seq + 1, head, number, handle
        self._written = self._durable = _Reached(self.seq, head, len(line))
        self._began_ns, self._renew, self._snapshot_bytes = now_ns, False, 0
        self._seen, self._vanished = len(line), ""
        self.records += 1
        self.bytes_written += len(line)
        self.fsyncs += 1
        self.last_sync_ns = self._clock_ns()

    def _create(self, path: Path, line: bytes) -> int:
        """The file with its first line, durable. Raises OSError; then it is gone again."""
        handle = self._disk.create(path)  # one that is there is what an earlier try has left
        try:
            write_all(self._disk, handle, 0, line)
            self._disk.sync(handle)
            self._disk.sync_directory(self.directory)
        except OSError:
            self._shut(handle)
            self._disk.unlink(path)
            raise
        return handle

    def _open(self, now_ns: int) -> None:
        """Go on where the last process ended, or begin."""
        self._disk.make_directory(self.directory)
        found = look(self._disk, self.directory)
        self.seq, self.head, self.segment = found.seq, found.head, found.number
        self._written = self._durable = _Reached(found.seq, found.head, found.size)
        self._seen = found.size
        self._began_ns = found.began_ns
        self._snapshot_bytes = 0  # of this process: what an earlier one wrote counts as any record
        self._reserve.take(self.settings.reserve_mib)
        if found.extra is not None:
            self._disk.unlink(found.extra)
        if found.torn:
            record = found.seq + (1 if found.goes_on else 2)  # a file that is begun has its first record before
            cut_off(self._disk, found.path, found.size, found.torn, record, self._reserve.give)
        if found.goes_on:
            self._handle = self._disk.open(found.path)
            self._disk.sync(self._handle)  # what a killed process wrote may be in memory only
            self._tell_torn(now_ns)
            changed = self.code != found.code or self.service != found.service
            if changed or (self.due(now_ns) and not self.failing):
                self._next(now_ns)
        else:
            self._begin(found.number, now_ns)
            self._tell_torn(now_ns)

    def _tell_torn(self, now_ns: int) -> None:
        """The record of what was cut off, also by a process that died before it could tell."""
        for cut in untold(self._disk, self.directory, self.seq + 1):
            self.torn = cut
            self.put(Torn, now_ns, **msgspec.structs.asdict(cut))
        if self.torn is None:
            return
        self._write()
        if self._write_fault:
            raise JournalFailed(self._write_fault)
        self.sync()
