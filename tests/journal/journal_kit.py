"""A disk in memory that fails on request and forgets what was not made durable, and journals to write on it."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from mmd.domain.actions import AmendOrder, Decision
from mmd.domain.events import BookTop, Mail
from mmd.domain.reasons import Side
from mmd.domain.settings import FsyncPolicy, JournalSettings
from mmd.journal.reader import records
from mmd.journal.records import AnyRecord, SnapshotsDone
from mmd.journal.writer import Journal

HOME = Path("/state/journal")
KEY = "deribit/BTC-PERPETUAL"
NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
BLOCK = 512


class Crashed(Exception):
    """The process is gone: nothing that it tries has an effect any more."""


class Content:
    """A file: what the system has, and what has reached the disk."""

    def __init__(self, cached: bytes = b"", durable: bytes = b"") -> None:
        self.cached = bytearray(cached)
        self.durable = bytes(durable)


class MemoryDisk:
    """`Disk` in memory. `fault`: asked before each change with its number and name; returns an errno, 0 for none.

    `crash_at`: number of the change at which the process dies; a write is done in part, of `tear` bytes.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.files: dict[Path, Content] = {}
        self.durable_names: dict[Path, Content] = {}
        self.handles: dict[int, tuple[Path, Content]] = {}
        self.capacity = capacity
        self.changes = 0
        self.crash_at = 0
        self.tear = 0
        self.write_size_max = 1 << 30
        self.fault: Callable[[int, str], int] = lambda number, name: 0
        self.syncs = 0
        self.dead = False
        self._opened = 0

    def _change(self, name: str) -> bool:
        """Count it; True if the process dies in it."""
        if self.dead:
            raise Crashed
        self.changes += 1
        if code := self.fault(self.changes, name):
            raise OSError(code, errno.errorcode[code])
        if self.changes == self.crash_at:
            self.dead = True
        return self.dead

    def _used(self) -> int:
        return sum(len(content.cached) for content in self.files.values())

    def _handle(self, path: Path, content: Content) -> int:
        self._opened += 1
        self.handles[self._opened] = (path, content)
        return self._opened

    def _content(self, handle: int) -> Content:
        if handle not in self.handles:
            raise OSError(errno.EBADF, "bad handle")
        return self.handles[handle][1]

    def make_directory(self, path: Path) -> None:
        self._change("make_directory")

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == directory][::-1]

    def create(self, path: Path) -> int:
        if self._change("create"):
            raise Crashed
        content = self.files.setdefault(path, Content())
        content.cached = bytearray()
        return self._handle(path, content)

    def open(self, path: Path) -> int:
        return self.open_to_read(path)

    def open_to_read(self, path: Path) -> int:
        if self.dead:
            raise Crashed
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self._handle(path, self.files[path])

    def close(self, handle: int) -> None:
        self._content(handle)
        del self.handles[handle]

    def size(self, handle: int) -> int:
        return len(self._content(handle).cached)

    def same(self, handle: int, path: Path) -> bool:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self._content(handle) is self.files[path]

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return bytes(self._content(handle).cached[offset : offset + min(size, 1 << 16)])

    def write(self, handle: int, offset: int, content: bytes) -> int:
        file = self._content(handle)
        dies = self._change("write")
        piece = content[: min(self.tear if dies else len(content), self.write_size_max)]
        grows = max(0, offset + len(piece) - len(file.cached))
        room = self.capacity - self._used()
        if grows > room:
            piece = piece[: max(0, len(piece) - (grows - max(room, 0)))]
            if not piece:
                raise OSError(errno.ENOSPC, "No space left on device")
        file.cached.extend(b"\0" * (offset - len(file.cached)))
        file.cached[offset : offset + len(piece)] = piece
        if dies:
            raise Crashed
        return len(piece)

    def sync(self, handle: int) -> None:
        file = self._content(handle)
        if self._change("sync"):
            raise Crashed
        file.durable = bytes(file.cached)
        self.syncs += 1

    def truncate(self, handle: int, size: int) -> None:
        file = self._content(handle)
        if self._change("truncate"):
            raise Crashed
        del file.cached[size:]

    def preallocate(self, handle: int, size: int) -> None:
        if self._change("preallocate"):
            raise Crashed
        if self._used() + size > self.capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._content(handle).cached.extend(b"\0" * size)

    def rename(self, old: Path, new: Path) -> None:
        if self._change("rename"):
            raise Crashed
        self.files[new] = self.files.pop(old)

    def unlink(self, path: Path) -> None:
        if self._change("unlink"):
            raise Crashed
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        del self.files[path]

    def sync_directory(self, directory: Path) -> None:
        if self._change("sync_directory"):
            raise Crashed
        self.durable_names = dict(self.files)

    def free(self, directory: Path) -> int:
        return self.capacity - self._used()

    # --- what the next process finds -------------------------------------------------------------

    def after_crash(self) -> "MemoryDisk":
        """The system has lived on: everything that was written is there."""
        after = MemoryDisk(self.capacity)
        after.files = {path: Content(content.cached, content.cached) for path, content in self.files.items()}
        after.durable_names = dict(after.files)
        return after

    def after_power_loss(self, keep: Callable[[int], int], holes: Callable[[int], bool]) -> "MemoryDisk":
        """Of what was not made durable, `keep(bytes)` bytes are left, with zeros in blocks where `holes` says so."""
        after = MemoryDisk(self.capacity)
        for path, content in self.durable_names.items():
            kept = len(content.durable) + keep(max(0, len(content.cached) - len(content.durable)))
            left = bytearray(content.durable + content.cached[len(content.durable) : kept])
            first = -(-len(content.durable) // BLOCK)
            for block in range(first, -(-len(left) // BLOCK)):
                if holes(block):
                    end = min(len(left), (block + 1) * BLOCK)
                    left[block * BLOCK : end] = bytes(end - block * BLOCK)
            after.files[path] = Content(left, left)
        after.durable_names = dict(after.files)
        return after


def settings(fsync: FsyncPolicy = FsyncPolicy.NEVER, **fields: float) -> JournalSettings:
    """No reserve unless it is asked for."""
    return JournalSettings(fsync=fsync, **{"reserve_mib": 0.0, **fields})


def journal(disk: MemoryDisk, wanted: JournalSettings | None = None, *, code: str = "c1", now: int = NOW) -> Journal:
    return Journal(
        HOME,
        wanted or settings(),
        service="desk",
        version="1.0",
        code=code,
        now_ns=now,
        disk=disk,
        clock_ns=lambda: NOW + disk.changes,
    )


def top(sequence: int) -> BookTop:
    return BookTop(
        bids=((1000 - sequence % 7, 5),), asks=((1002, 4),), sequence=sequence, exchange_ns=NOW, received_ns=NOW
    )


def amend(number: int) -> AmendOrder:
    return AmendOrder(f"desk-{number}", "77", Side.BID, 1000 + number, 10, 10)


def write_batches(on: Journal, count: int, at: int = NOW) -> None:
    """Of one event and one action each."""
    for _ in range(count):
        events: Sequence[Mail] = (top(on.seq),)
        actions: Sequence[Decision] = [amend(on.seq)]
        on.batch(KEY, at, events, actions)


def write_round(on: Journal) -> None:
    on.put(SnapshotsDone, NOW)


def all_records(disk: MemoryDisk, since: int = 0) -> list[AnyRecord]:
    return list(records(HOME, since, disk=disk))


def content(disk: MemoryDisk, name: str) -> bytes:
    return bytes(disk.files[HOME / name].cached)


def put_content(disk: MemoryDisk, name: str, new: bytes) -> None:
    disk.files[HOME / name] = Content(new, new)
