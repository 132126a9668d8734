"""Keeping house: closed files are compressed, and the oldest are deleted when their time or their space is over.

Slow, so it is called in a worker thread, beside a daemon that writes: only files below the current one
are touched. Interrupted anywhere, every record is still there, once or twice, and the next call goes on.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from mmd.domain.errors import MmdError
from mmd.domain.settings import JournalSettings
from mmd.journal.disk import Disk, OsDisk, write_all
from mmd.journal.reader import Walk, has_round
from mmd.journal.records import Segment
from mmd.journal.segments import (
    FRESH,
    SMALL_READ,
    Damaged,
    SegmentFile,
    compressed_name,
    deflate,
    fingerprint,
    gzip_header,
    raw_chunks,
    segment_files,
)
from mmd.journal.statefile import JournalFailed

LEVEL = 6
GIB = 1 << 30
MIB = 1 << 20
DAY_NS = 86_400_000_000_000


class Kept(msgspec.Struct):
    """What was done and what could not be, a sentence each."""

    done: list[str] = []
    failed: list[str] = []


class GivenUp(MmdError):
    """Somebody does not want to wait for it any more."""


Stop = Callable[[], bool]
"""Asked between files and small pieces of files: whether to give up, as soon as that can be. It may take its time."""


def never() -> bool:
    return False


def tidy(
    directory: Path,
    current: int,
    settings: JournalSettings,
    now_ns: int,
    *,
    disk: Disk | None = None,
    stop: Stop = never,
) -> Kept:
    """Compress and delete what the settings say. `current`: number of the file that is written (`Journal.segment`).

    Raises nothing of the disk's: what failed is in the answer and is tried again with the next call.
    """
    disk = OsDisk() if disk is None else disk
    kept = Kept()
    try:
        clear(disk, directory)
        tried: set[int] = set()
        going = True
        while going:  # what is too much does not wait until all are compressed
            going = settings.compress and compress_one(disk, directory, current, tried, kept, stop)
            expire(disk, directory, current, settings, now_ns, kept, stop)
    except OSError as error:
        kept.failed.append(f"{directory}: {error.strerror}")
    except JournalFailed as failed:
        kept.failed.append(str(failed))
    except GivenUp:
        pass
    kept.failed = list(dict.fromkeys(kept.failed))  # it was looked at more than once
    return kept


def clear(disk: Disk, directory: Path) -> None:
    """Remove what an interrupted call has left. Raises OSError."""
    for name in disk.names(directory):
        if name.startswith("journal-") and name.endswith(FRESH):
            disk.unlink(directory / name)


def unless(stop: Stop, content: Iterator[bytes]) -> Iterator[bytes]:
    """The same, as long as nobody wants to stop. Raises GivenUp."""
    for chunk in content:
        if stop():
            raise GivenUp
        yield chunk


# --- compression -----------------------------------------------------------------------------------


def compress_one(disk: Disk, directory: Path, current: int, tried: set[int], kept: Kept, stop: Stop) -> bool:
    """The oldest closed file that is neither compressed nor `tried`, which it is then. False: there is none.

    Raises OSError where the directory cannot be read, GivenUp.
    """
    for file in segment_files(disk, directory):
        if file.number >= current or file.compressed or file.number in tried:
            continue
        tried.add(file.number)
        try:
            before, after = squeeze(disk, file, stop)
        except (OSError, Damaged) as error:
            kept.failed.append(f"{file.name} is not compressed: {error}")
        else:
            kept.done.append(f"{file.name} compressed from {before / MIB:.1f} to {after / MIB:.1f} MiB")
        return True
    return False


def squeeze(disk: Disk, file: SegmentFile, stop: Stop) -> tuple[int, int]:
    """Replace a file by its compressed self; returns both sizes.

    Raises OSError, Damaged, GivenUp; then it is as it was.
    """
    path = file.path.with_name(compressed_name(file.number))
    through = partial(unless, stop)
    hashed, size = fingerprint(disk, file.path, compressed=False, through=through, most=SMALL_READ)
    if file.spare is None or not same(disk, file.spare, hashed, stop):
        fresh = path.with_name(path.name + FRESH)
        try:
            pack(disk, file.path, fresh, stop)
            if not same(disk, fresh, hashed, stop):
                raise Damaged("it does not read back as what was written")
        except (OSError, Damaged, GivenUp):
            with suppress(FileNotFoundError):
                disk.unlink(fresh)
            raise
        disk.rename(fresh, path)
        disk.sync_directory(path.parent)
    disk.unlink(file.path)
    disk.sync_directory(path.parent)
    return size, size_of(disk, path)


def pack(disk: Disk, plain: Path, fresh: Path, stop: Stop) -> None:
    """Write the compressed file, durable; its header last, for it holds a hash over the rest."""
    source = disk.open_to_read(plain)
    try:
        target = disk.create(fresh)
        try:
            hashed = hashlib.sha256()
            header = gzip_header("0" * 64)
            write_all(disk, target, 0, header)
            offset = len(header)
            for packed in deflate(unless(stop, raw_chunks(disk, source, 0, SMALL_READ)), LEVEL):
                write_all(disk, target, offset, packed)
                hashed.update(packed)
                offset += len(packed)
            write_all(disk, target, 0, gzip_header(hashed.hexdigest()))
            disk.sync(target)
        finally:
            disk.close(target)
    finally:
        disk.close(source)


def same(disk: Disk, path: Path, hashed: str, stop: Stop) -> bool:
    """Whether a compressed file has this content."""
    try:
        through = partial(unless, stop)
        return fingerprint(disk, path, compressed=True, through=through, most=SMALL_READ)[0] == hashed
    except Damaged:
        return False


def size_of(disk: Disk, path: Path) -> int:
    handle = disk.open_to_read(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


# --- retention -------------------------------------------------------------------------------------


def expire(
    disk: Disk, directory: Path, current: int, settings: JournalSettings, now_ns: int, kept: Kept, stop: Stop
) -> None:
    """Delete the oldest files while their last record is too old or all of them together are too large.

    What a start needs stays: the newest file that begins with every machine's state, and all behind it.
    Raises OSError, JournalFailed, GivenUp.
    """
    walk = Walk(disk, directory)
    files = segment_files(disk, directory)
    openings = []
    for file in files:
        if stop():
            raise GivenUp
        openings.append(walk.peek(file))
        if openings[-1] is None and file.number < current:
            kept.failed.append(f"{file.name} cannot be read: look with `mmd verify`")
    sizes = [sum(size_of(disk, path) for path in paths(file)) for file in files]
    total = sum(sizes)
    limit = settings.keep_gib * GIB
    oldest_ns = now_ns - int(settings.keep_days * DAY_NS)
    needed = -1
    for file, size, ended in zip(files, sizes, ends(openings), strict=True):
        too_large = total > limit
        if file.number >= current or ended is None or (ended.at >= oldest_ns and not too_large):
            return
        if needed < 0:
            needed = needed_from(walk, files, openings, stop)
        if ended.seq > needed:
            if too_large:
                kept.failed.append(
                    f"{total / GIB:.2f} GiB are more than keep_gib: {settings.keep_gib:g}, but {file.name} is needed"
                )
            return
        if stop():
            raise GivenUp
        for path in paths(file):
            disk.unlink(path)
        disk.sync_directory(directory)
        total -= size
        why = f"more than {settings.keep_gib:g} GiB" if too_large else f"older than {settings.keep_days:g} days"
        kept.done.append(f"{file.name} deleted: {why}")


def ends(openings: list[Segment | None]) -> list[Segment | None]:
    """For each file the first record behind it: of the next file, or where that cannot be read, of a later one.

    It was begun when the file ended, or later. None: there is none.
    """
    found: list[Segment | None] = []
    following: Segment | None = None
    for first in reversed(openings):
        found.append(following)
        following = first or following
    return found[::-1]


def needed_from(walk: Walk, files: list[SegmentFile], openings: list[Segment | None], stop: Stop) -> int:
    """From which record on a start reads (`reader.resume_at`); 0: from the first. Raises JournalFailed, GivenUp."""
    for file, first in zip(reversed(files), reversed(openings), strict=True):
        if stop():
            raise GivenUp
        if first is not None and has_round(walk, file):
            return first.seq
    return 0


def paths(file: SegmentFile) -> Iterator[Path]:
    """All that is deleted with it; what would be taken for a file without the others comes first."""
    yield from file.pieces
    yield file.path
    if file.spare is not None:
        yield file.spare
