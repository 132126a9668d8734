"""One small JSON file that is written whole: a new file beside it, fsync, rename, fsync of the directory.

A reader sees the old content or the new one, never a torn one. What is no file takes no other's name: a link
is followed, and a device or a pipe is written into.
"""

import os
import stat
from contextlib import suppress
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
        try:
            if is_stream(self.path):
                with open(self.path, "wb", buffering=0, opener=into) as stream:
                    stream.write(content)
                return
            path = self.path.resolve()
            fresh = path.with_suffix(".new")
            with open(fresh, "wb", opener=private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
            sync_directory(path.parent)
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


def into(path: str, flags: int) -> int:
    """Open what is there to write into it; where our own output goes there, behind that."""
    ours = _output(Path(path).stat())
    return os.dup(ours) if ours is not None else os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def is_stream(path: Path) -> bool:
    """Whether what is there is to be written into: a device, a pipe, or a file that our own output goes to.

    Raises OSError.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(found.st_mode) or _output(found) is not None


def _output(found: os.stat_result) -> int | None:
    """Whether this is standard output or error."""
    for handle in (1, 2):
        with suppress(OSError):  # it may be closed
            if os.path.samestat(found, os.fstat(handle)):
                return handle
    return None


def sync_directory(directory: Path) -> None:
    """Make a rename in it durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
