"""Space kept for the end: a file that is given up when the disk is full, so that the journal can tell of the halt."""

import errno
from pathlib import Path

from mmd.journal.disk import Disk

NAME = "reserve"
MIB = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """`fault`: why it is not there; empty when it is, or when none is wanted."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.path = directory / NAME
        self.fault = ""
        self._disk = disk

    def take(self, mib: float) -> None:
        """Have it, of this size (0: none), once there is room for twice as much. Sets `fault`, raises nothing."""
        size = int(mib * MIB)
        try:
            if size and not self._has(size):
                if self._disk.free(self.path.parent) < 2 * size:
                    raise OSError(errno.ENOSPC, f"no room for twice the reserve of {mib:g} MiB")
                self._allocate(size)
            self.fault = ""
        except OSError as error:
            self.fault = f"{self.path}: {error.strerror}"

    def give(self, error: OSError) -> bool:
        """Give it up if that may help against this error; then it is a fault until it is taken back."""
        if error.errno not in NO_ROOM:
            return False
        self.fault = f"{self.path.parent}: {error.strerror}"
        try:
            self._disk.unlink(self.path)
        except OSError:
            return False
        return True

    def _has(self, size: int) -> bool:
        """Whether it is there, from now or from the last process."""
        try:
            handle = self._disk.open_to_read(self.path)
        except FileNotFoundError:
            return False
        try:
            return self._disk.size(handle) == size
        finally:
            self._disk.close(handle)

    def _allocate(self, size: int) -> None:
        handle = self._disk.create(self.path)
        try:
            self._disk.preallocate(handle, size)
        except OSError:
            self._disk.unlink(self.path)
            raise
        finally:
            self._disk.close(handle)
