"""Where an export must begin to read so that it knows what the records it is asked for mean.

Not at the beginning of the journal: every file has the state of every machine in it, and only what
those do not tell (which configuration, which version) is looked for further back.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mmd.domain.instruments import Instrument
from mmd.journal.chain import BODY_AT
from mmd.journal.disk import Disk, OsDisk
from mmd.journal.export import Before
from mmd.journal.reader import Walk, has_round
from mmd.journal.records import DECODER, AnyRecord, Configured, Joined, Snapshot, Started
from mmd.journal.segments import SegmentFile
from mmd.journal.statefile import JournalFailed

CONFIGURED = b'","kind":"configured",'
STARTED = b'","kind":"started",'
JOINED = b'","kind":"joined",'
SNAPSHOT = b'","kind":"snapshot",'
InstrumentOf = Callable[[bytes], Instrument | None]
"""Of a snapshot's state; None where it is not of a symbol or cannot be read."""


class Beginning(msgspec.Struct, frozen=True):
    """The first record to read, and what is known before it."""

    seq: int
    before: Before


def beginning(
    directory: Path, first: int, since_ns: int, instrument_of: InstrumentOf, disk: Disk | None = None
) -> Beginning:
    """For records numbered from `first` and of times from `since_ns`; 0 and 0: all. Raises JournalFailed."""
    walk = Walk(OsDisk() if disk is None else disk, directory)
    files = walk.files()
    index = _file_of(walk, files, first, since_ns)
    while index > 0:
        index -= 1
        if has_round(walk, files[index]):
            break
    opened = walk.peek(files[index])
    version, config = _in_force(walk, files[:index])
    whole = index == 0 and opened is not None and opened.seq == 1
    instruments = {} if whole else _instruments(walk, files[index], instrument_of)
    before = Before(version=version, config_sha256=config, instruments=instruments)
    return Beginning(opened.seq if opened is not None else 0, before)


def _file_of(walk: Walk, files: list[SegmentFile], first: int, since_ns: int) -> int:
    """Index of the newest file that begins before what is asked for; 0 where none does."""
    if not first and not since_ns:
        return 0
    for index in range(len(files) - 1, 0, -1):
        opened = walk.peek(files[index])
        if opened is None:
            continue
        if (not first or opened.seq <= first) and (not since_ns or opened.at <= since_ns):
            return index
    return 0


def _in_force(walk: Walk, files: list[SegmentFile]) -> tuple[str, str]:
    """Version and configuration at the end of these files; empty where they do not say."""
    version = config = ""
    for file in reversed(files):
        last: dict[type, str] = {}
        for record in _of_kinds(walk, file, STARTED, CONFIGURED):
            if isinstance(record, Started):
                last[Started] = record.version
            elif isinstance(record, Configured):
                last[Configured] = record.sha256
        version = version or last.get(Started, "")
        config = config or last.get(Configured, "")
        if version and config:
            break
    return version, config


def _instruments(walk: Walk, file: SegmentFile, instrument_of: InstrumentOf) -> dict[str, Instrument]:
    """Of all symbols in this file: what is said of them before their snapshot needs one as well."""
    found: dict[str, Instrument] = {}
    for record in _of_kinds(walk, file, JOINED, SNAPSHOT):
        if isinstance(record, Joined):
            found.setdefault(record.key, record.instrument)
        elif isinstance(record, Snapshot) and record.key and record.key not in found:
            instrument = instrument_of(bytes(record.state))
            if instrument is not None:
                found[record.key] = instrument
    return found


def _of_kinds(walk: Walk, file: SegmentFile, *marks: bytes) -> Iterator[AnyRecord]:
    """The records of these kinds in a file, not proven. Raises JournalFailed."""
    for lot in walk.unproven(file):
        for line in lot:
            if line.startswith(marks, BODY_AT - 2):
                try:
                    yield DECODER.decode(b"{" + line[BODY_AT:])
                except msgspec.DecodeError as error:
                    raise JournalFailed(f"{file.path}: this version cannot read it: {error}") from error
