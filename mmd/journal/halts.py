"""The register of halts: which symbols are HALTED, and why, on disk, so that a restart does not forget.

One small JSON file, `halts.json`, written whole: a new file beside it, fsync, rename, fsync of the
directory. A reader sees the old register or the new one, never a torn one.
"""

import os
from pathlib import Path

import msgspec

from mmd.domain.errors import MmdError
from mmd.domain.reasons import Why

FORMAT = 1
FILE = "halts.json"


class JournalFailed(MmdError):
    """The state directory cannot be written or what is in it cannot be read; names the file."""


class Halt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a symbol is HALTED; `since_ns` Unix time."""

    why: Why
    detail: str
    by: str
    since_ns: int


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content; symbols by `exchange/symbol`."""

    format: int
    service: str
    halts: dict[str, Halt]


class HaltFile:
    """Reads once, writes whenever the register changed."""

    def __init__(self, directory: Path, service: str) -> None:
        self.path = directory / FILE
        self._service = service

    def read(self) -> dict[str, Halt]:
        """What was written last; empty where there is no file. JournalFailed where it cannot be understood.

        A register that cannot be read is no reason to believe that nothing was halted.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise JournalFailed(f"{self.path}: {error.strerror}") from error
        try:
            register = msgspec.json.decode(content, type=Register)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalFailed(f"{self.path}: not a register of halts: {error}; move it away to start") from error
        if register.format != FORMAT:
            raise JournalFailed(f"{self.path}: format {register.format}, this version reads {FORMAT}")
        return register.halts

    def write(self, halts: dict[str, Halt]) -> None:
        """Make it durable. Raises JournalFailed; then the old register is still there."""
        content = msgspec.json.format(msgspec.json.encode(Register(FORMAT, self._service, halts)), indent=1)
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

    def probe(self) -> None:
        """See whether the state directory can be written now. Raises JournalFailed."""
        file = self.path.with_name("probe.new")
        try:
            with open(file, "wb", opener=private) as probe:
                probe.write(b"mmd\n")
            file.unlink()
        except OSError as error:
            raise JournalFailed(f"{file.parent}: {error.strerror}") from error


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
