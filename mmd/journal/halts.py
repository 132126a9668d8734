"""The register of halts: which symbols are HALTED, and why, on disk, so that a restart does not forget."""

from pathlib import Path

import msgspec

from mmd.domain.reasons import Why
from mmd.journal.statefile import JournalFailed, StateFile, probe

FORMAT = 1
FILE = "halts.json"


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
        self.directory = directory
        self._file = StateFile(directory / FILE, Register)
        self._service = service

    def read(self) -> dict[str, Halt]:
        """What was written last; empty where there is no file. JournalFailed where it cannot be understood.

        A register that cannot be read is no reason to believe that nothing was halted.
        """
        register = self._file.read()
        if register is None:
            return {}
        if register.format != FORMAT:
            raise JournalFailed(f"{self._file.path}: format {register.format}, this version reads {FORMAT}")
        return register.halts

    def write(self, halts: dict[str, Halt]) -> None:
        """Make it durable. Raises JournalFailed; then the old register is still there."""
        self._file.write(Register(FORMAT, self._service, halts))

    def probe(self) -> None:
        """See whether the state directory can be written now. Raises JournalFailed."""
        probe(self.directory)
