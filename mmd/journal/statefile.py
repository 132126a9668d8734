"""One small JSON file that is written whole: a new file beside it, fsync, rename, fsync of the directory.

A reader sees the old content or the new one, never a torn one.
"""

import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from mmd.domain.errors import MmdError

T = TypeVar("T")


class JournalFailed(MmdError):
    """The state directory cannot be written or what is in it cannot be read; names the file."""


class StateFile(Generic[T]):
    """Holds one value of one type."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> T | None:
        """What was written last, None where there is no file. JournalFailed where it cannot be understood."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalFailed(f"{self.path}: {error.strerror}") from error
        try:
            return msgspec.json.decode(content, type=self._kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalFailed(f"{self.path}: cannot be understood: {error}; move it away to start") from error

    def write(self, value: T) -> None:
        """Make it durable. Raises JournalFailed; then the old content is still there."""
        content = msgspec.json.format(msgspec.json.encode(value), indent=1)
        fresh = self.path.with_suffix(".new")
        try:
            with open(fresh, "wb", opener=private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise JournalFailed(f"{self.path}: {error.strerror}") from error


def probe(directory: Path) -> None:
    """See whether the state directory can be written now. Raises JournalFailed."""
    file = directory / "probe.new"
    try:
        with open(file, "wb", opener=private) as tried:
            tried.write(b"mmd\n")
        file.unlink()
    except OSError as error:
        raise JournalFailed(f"{directory}: {error.strerror}") from error


def private(path: str, flags: int) -> int:
    """Open for the service's user alone."""
    return os.open(path, flags, 0o600)


def sync_directory(directory: Path) -> None:
    """Make a rename in it durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
