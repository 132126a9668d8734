"""The few system calls that the journal makes, in one place, so that tests can let each of them fail.

Every call may raise OSError, and does nothing else that is not said here. Nothing else that writes
the journal touches the file system.
"""

import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """A file system. Handles are opaque integers; offsets and sizes in bytes."""

    def make_directory(self, path: Path) -> None:
        """With its parents, for the service's user alone; one that is there stays as it is."""

    def names(self, directory: Path) -> list[str]:
        """Of what is in it, in any order."""

    def create(self, path: Path) -> int:
        """Open for reading and writing, empty, for the service's user alone."""

    def open(self, path: Path) -> int:
        """Open what is there for reading and writing."""

    def open_to_read(self, path: Path) -> int:
        """Open what is there for reading."""

    def close(self, handle: int) -> None: ...

    def size(self, handle: int) -> int: ...

    def same(self, handle: int, path: Path) -> bool:
        """Whether this name still leads to what is open here."""

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """May return less than was asked for; nothing at the end."""

    def write(self, handle: int, offset: int, content: bytes) -> int:
        """Returns how many bytes were written, which may be fewer than were given."""

    def sync(self, handle: int) -> None:
        """Make the content durable (fdatasync)."""

    def truncate(self, handle: int, size: int) -> None: ...

    def preallocate(self, handle: int, size: int) -> None:
        """Take the space, so that it is not somebody else's."""

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, directory: Path) -> None:
        """Make its names durable."""

    def free(self, directory: Path) -> int:
        """What the service's user may still take on this file system."""


class OsDisk:
    """The real one."""

    def make_directory(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OSError(error.errno, in_the_way(path) or error.strerror, str(path)) from error

    def names(self, directory: Path) -> list[str]:
        return [entry.name for entry in directory.iterdir()]

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_to_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, handle: int) -> None:
        os.close(handle)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def same(self, handle: int, path: Path) -> bool:
        return os.path.samestat(os.fstat(handle), path.stat())

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, handle: int, offset: int, content: bytes) -> int:
        return os.pwrite(handle, content, offset)

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def preallocate(self, handle: int, size: int) -> None:
        os.posix_fallocate(handle, 0, size)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def free(self, directory: Path) -> int:
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize


def in_the_way(path: Path) -> str:
    """What keeps this path from being a directory, or from becoming one, and what is allowed; empty for nothing."""
    for place in (path, *path.parents):
        what = ""
        if place.is_symlink() and not place.exists():
            what = f"is a symbolic link to {place.readlink()}, which is not there"
        elif place.exists() and not place.is_dir():
            what = "is a file"
        if what:
            found = what if place == path else f"is below {place}, which {what}"
            return f"{found}; allowed: a directory, or a place where one can be made"
    return ""


def read_all(disk: Disk, handle: int, offset: int, end: int) -> bytes:
    """The bytes from offset to end; less where the file is shorter."""
    pieces = []
    while offset < end:
        piece = disk.read(handle, offset, end - offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def write_all(disk: Disk, handle: int, offset: int, content: bytes) -> None:
    """Every byte; what was written before an OSError stays."""
    written = disk.write(handle, offset, content)
    while written < len(content):
        rest = disk.write(handle, offset + written, content[written:])
        if rest == 0:
            raise OSError(0, "the disk takes no more")
        written += rest
