"""The disk below the journal: full, failing, tearing, and forgetting what was not made durable.

Implements mmd.journal.disk.Disk over the real one. A daemon that has crashed goes on writing into a
directory that nobody looks at any more: the next one starts from a copy that was taken at the crash.
"""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from mmd.journal.disk import OsDisk


def nothing(size: int) -> None:
    """Until somebody wants to know of writes."""


class Platter:
    """What is wrong with the disk itself, whichever process uses it."""

    def __init__(self) -> None:
        self.full = False
        self.failing = False  # with EIO
        self.tearing = 0  # so many writes leave only a part


class SimDisk(OsDisk):
    """One life's disk. `before_write` is told of every write with its size, before it happens."""

    def __init__(self, chance: Random, platter: Platter) -> None:
        self.platter = platter
        self.before_write: Callable[[int], None] = nothing
        self.writes = 0
        self.refused = 0
        self._chance = chance
        self._paths: dict[int, Path] = {}
        self._pending: dict[Path, list[tuple[int, int]]] = {}  # offset and size of what is not durable yet

    def _check(self, *, grows: bool = True) -> None:
        if self.platter.failing:
            self.refused += 1
            raise OSError(errno.EIO, "Input/output error")
        if self.platter.full and grows:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def create(self, path: Path) -> int:
        self._check()
        handle = super().create(path)
        self._paths[handle] = path
        self._pending[path] = []
        return handle

    def open(self, path: Path) -> int:
        self._check(grows=False)
        handle = super().open(path)
        self._paths[handle] = path
        return handle

    def close(self, handle: int) -> None:
        self._paths.pop(handle, None)
        super().close(handle)

    def write(self, handle: int, offset: int, content: bytes) -> int:
        self.writes += 1
        self.before_write(len(content))
        part = content
        if self.platter.tearing and len(content) > 1:
            self.platter.tearing -= 1
            part = content[: self._chance.randrange(len(content))]
        elif self.platter.full and offset + len(content) > self.size(handle):
            part = content[: self._chance.randrange(len(content) + 1)]
        self._check(grows=offset + len(part) > self.size(handle))
        path = self._paths.get(handle)
        if path is not None:
            self._pending.setdefault(path, []).append((offset, len(part)))
        written = super().write(handle, offset, part)
        if part is not content:
            self.refused += 1
            raise OSError(errno.ENOSPC if self.platter.full else errno.EIO, "the write ended half-way")
        return written

    def sync(self, handle: int) -> None:
        self._check(grows=False)
        super().sync(handle)
        path = self._paths.get(handle)
        if path is not None:
            self._pending.pop(path, None)

    def truncate(self, handle: int, size: int) -> None:
        self._check(grows=False)
        super().truncate(handle, size)

    def preallocate(self, handle: int, size: int) -> None:
        self._check()
        super().preallocate(handle, size)

    def rename(self, old: Path, new: Path) -> None:
        self._check(grows=False)
        super().rename(old, new)
        if old in self._pending:
            self._pending[new] = self._pending.pop(old)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._pending.pop(path, None)

    def free(self, directory: Path) -> int:
        return 0 if self.platter.full else super().free(directory)

    def copied(self, directory: Path, to: Path, *, power_lost: bool) -> None:
        """The directory as the next life finds it."""
        shutil.copytree(directory, to)
        if not power_lost:
            return
        for path, writes in sorted(self._pending.items()):
            copy = to / path.relative_to(directory)
            if writes and copy.exists():
                self._forget(copy, writes)

    def _forget(self, copy: Path, writes: list[tuple[int, int]]) -> None:
        """Some of the last writes never got to the platter, and the first of them perhaps in part."""
        kept = self._chance.randrange(len(writes) + 1)
        if kept == len(writes):
            return
        offset, size = writes[kept]
        end = offset + self._chance.randrange(size + 1)
        with copy.open("r+b") as file:
            file.truncate(max(end, 0))
