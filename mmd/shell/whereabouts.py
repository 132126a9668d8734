"""Where orders of ours may rest: a small file that the daemon leaves for the reaper, in case it dies.

It names the exchanges of the configuration in force, which after a crash need not be those of the file
that somebody is editing. Secrets are not in it, only where they are. The daemon writes it before it
connects and when a reload changes it; a reaper that has proven every one of them empty removes it.
"""

from pathlib import Path
from typing import Any

import msgspec

from mmd.config.model import Config
from mmd.config.salvage import Salvaged, essentials, revive
from mmd.journal.statefile import JournalFailed, StateFile

FILE = "exchanges.json"
FORMAT = 1


class Whereabouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content. `exchanges`: by name, as the configuration has them."""

    format: int
    service: str
    sha256: str
    exchanges: dict[str, dict[str, Any]]


def keep(state: Path, config: Config) -> None:
    """Write it. Raises JournalFailed."""
    _file(state).write(Whereabouts(FORMAT, config.service.name, config.sha256, essentials(config)))


def recall(state: Path) -> tuple[Salvaged, str]:
    """What the last daemon left, and its configuration's hash; nothing where there is no file."""
    file = _file(state)
    try:
        found = file.read()
    except JournalFailed as error:
        return Salvaged(problems=(str(error),)), ""
    if found is None:
        return Salvaged(), ""
    if found.format != FORMAT:
        problem = f"{file.path}: format {found.format}, this version reads {FORMAT}"
        return Salvaged(problems=(problem,)), ""
    return revive(found.service, found.exchanges, str(file.path)), found.sha256


def forget(state: Path) -> None:
    """Nothing rests anywhere. Raises OSError."""
    _file(state).path.unlink(missing_ok=True)


def _file(state: Path) -> StateFile[Whereabouts]:
    return StateFile(state / FILE, Whereabouts)
