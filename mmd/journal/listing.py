"""The files of a journal, one by one: what is in each, and which the retention will delete next."""

from pathlib import Path

import msgspec

from mmd.domain.settings import JournalSettings
from mmd.journal.disk import Disk, OsDisk
from mmd.journal.faults import at_of, seq_of
from mmd.journal.keeping import DAY_NS, GIB, ends, paths, size_of
from mmd.journal.reader import Walk, is_round, resume_at
from mmd.journal.segments import SegmentFile
from mmd.journal.statefile import JournalFailed


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One file. Times are Unix ns; `size` in bytes on disk. `snapshots`: it has the state of every machine.

    `deleted_ns`: when the retention will delete it, 0 = as soon as it looks, null = not by what is there now.
    `damaged`: why nothing behind `last_seq` can be read; empty = the whole file can.
    """

    number: int
    file: str
    first_seq: int
    last_seq: int
    first_at: int
    last_at: int
    records: int
    size: int
    compressed: bool
    snapshots: bool
    deleted_ns: int | None
    damaged: str


def listing(directory: Path, settings: JournalSettings, disk: Disk | None = None) -> list[Listed]:
    """Oldest first. Nothing is proven: that is `mmd verify`. Raises JournalFailed where there is none, OSError."""
    disk = OsDisk() if disk is None else disk
    walk = Walk(disk, directory)
    files = walk.files()
    sizes = [sum(size_of(disk, path) for path in paths(file)) for file in files]
    total = sum(sizes)
    try:
        needed = resume_at(directory, disk=disk)
    except JournalFailed:
        needed = 0  # nothing is deleted while it is not known what a start needs
    found = []
    for file, size, after in zip(files, sizes, ends([walk.peek(file) for file in files]), strict=True):
        first, last, snapshots, damaged = _read(walk, file)
        first_seq, last_seq = seq_of(first) or 0, seq_of(last) or 0
        deleted: int | None = None
        if after is not None and after.seq <= needed:
            too_large = total > settings.keep_gib * GIB
            deleted = 0 if too_large else after.at + int(settings.keep_days * DAY_NS)
            total -= size if too_large else 0
        found.append(
            Listed(
                number=file.number,
                file=file.name,
                first_seq=first_seq,
                last_seq=last_seq,
                first_at=at_of(first),
                last_at=at_of(last),
                records=last_seq - first_seq + 1 if last_seq else 0,
                size=size,
                compressed=file.compressed,
                snapshots=snapshots,
                deleted_ns=deleted,
                damaged=damaged,
            )
        )
    return found


def _read(walk: Walk, file: SegmentFile) -> tuple[bytes, bytes, bool, str]:
    """First and last whole line (empty: there is none), whether all states are there, and what cannot be read."""
    first, last, snapshots = b"", b"", False
    try:
        for lot in walk.unproven(file):
            if lot:
                first, last = first or lot[0], lot[-1]
                snapshots = snapshots or is_round(lot)
    except JournalFailed as failed:
        return first, last, snapshots, str(failed)
    return first, last, snapshots, ""
