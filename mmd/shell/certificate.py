"""The reaper's certificate: what it found at each exchange, what it did, and whether that is proven; one file a run."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mmd.exchanges.api import ReapedOrder
from mmd.journal.chain import parts
from mmd.journal.disk import OsDisk
from mmd.journal.opening import survey
from mmd.journal.segments import DIRECTORY as JOURNAL
from mmd.journal.segments import SegmentFile, segment_files
from mmd.journal.statefile import JournalFailed, StateFile

FORMAT = 1
DIRECTORY = "certificates"
KEPT = 100
NAME = re.compile(r"reap-[0-9]{8}T[0-9]{6}\.[0-9]{6}Z\.json")
_TAIL_BYTES = 65_536


class JournalHead(msgspec.Struct, frozen=True):
    """The last whole record of the journal as the dead daemon left it; hash "" where there is none."""

    seq: int = 0
    hash: str = ""
    file: str = ""
    problem: str = ""


class ConfigFound(msgspec.Struct, frozen=True):
    """Where the exchanges came from. `sha256` as in `mmdctl status`, "" where the file could not be used."""

    file: str
    sha256: str
    last_run_sha256: str
    problems: tuple[str, ...] = ()


class ExchangeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One account. Counts are of orders with our label; `before`, `after` null: nobody could look.

    `later`: they appeared after the first look. `gone`: not open any more when it was their turn, filled
    or cancelled by somebody else.
    """

    exchange: str
    network: str
    account: str
    service: str
    before: int | None
    later: int
    cancelled: int
    gone: int
    after: int | None
    proven: bool
    orders: tuple[ReapedOrder, ...]
    errors: tuple[str, ...]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """`started`, `finished`: UTC by this machine's clock. `proven`: of every exchange. `ended` "": by itself.

    `left_out`: exchanges that were not looked at because the command line named others.
    """

    format: int = FORMAT
    service: str
    host: str
    version: str
    cause: str
    started: str
    finished: str
    dry_run: bool
    proven: bool
    left_out: tuple[str, ...] = ()
    ended: str
    config: ConfigFound
    journal: JournalHead
    exchanges: tuple[ExchangeLine, ...]


def in_utf8(certificate: Certificate) -> Certificate:
    """Bytes of file names and variables that are no UTF-8, which JSON cannot hold, are shown as `\\udcff`."""
    return msgspec.convert(_shown(msgspec.to_builtins(certificate)), Certificate)


def _shown(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _shown(each) for key, each in value.items()}
        case list() | tuple():
            return [_shown(each) for each in value]
    return value


def utc(now_ns: int) -> str:
    """ISO 8601 with microseconds."""
    return datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write(certificate: Certificate, state: Path) -> Path:
    """Into the state directory, which must be there; older ones than the newest hundred are deleted.

    Raises JournalFailed, OSError. Where root writes, the files become the directory's owner's.
    """
    directory = state / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    name = re.sub(r"[-:]", "", certificate.started)
    path = directory / f"reap-{name}.json"
    write_to(certificate, path)
    if os.geteuid() == 0:
        owner = state.stat()
        for each in (directory, path):
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
    for old in sorted(file for file in directory.iterdir() if NAME.fullmatch(file.name))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def write_to(certificate: Certificate, path: Path) -> None:
    """Whole, or not at all. Raises JournalFailed."""
    StateFile(path, Certificate).write(certificate)


# --- the journal's head --------------------------------------------------------------------------


class _Numbered(msgspec.Struct):
    """Of any record."""

    seq: int


_SEQ = msgspec.json.Decoder(_Numbered)


def journal_head(state: Path) -> JournalHead:
    """The newest file's last whole line; it says in `problem` why there is none. The chain is not verified here."""
    disk = OsDisk()
    try:
        files = segment_files(disk, state / JOURNAL)
        for file in reversed(files[-2:]):  # the newest may have been begun, and no more
            found = _head_of(file)
            if found is not None:
                return found
    except (OSError, JournalFailed, msgspec.DecodeError) as error:
        return JournalHead(problem=str(error))
    return JournalHead(problem="there is no journal" if not files else "its newest files have no whole record")


def _head_of(file: SegmentFile) -> JournalHead | None:
    """Raises OSError, JournalFailed, msgspec.DecodeError."""
    if file.compressed:
        whole = survey(OsDisk(), file)
        return JournalHead(whole.seq, whole.head, file.name) if whole.lines else None
    with file.path.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        size = 0
        while size < end:
            size = min(end, max(_TAIL_BYTES, size * 4))
            opened.seek(end - size)
            lines = opened.read(size).split(b"\n")
            # The first piece may be the end of a line, the last one is behind the last newline.
            for line in reversed(lines[0 if size == end else 1 : -1]):
                found = parts(line)
                if found is not None:
                    return JournalHead(_SEQ.decode(found[1]).seq, found[0], file.name)
    return None
