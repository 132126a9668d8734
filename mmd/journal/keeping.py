"""Keeping house: closed files are compressed, and the oldest are deleted when their time or their space is over.

Slow, so it is called in a worker thread, beside a daemon that writes: only files below the current one
are touched. Interrupted anywhere, every record is still there, once or twice, and the next call goes on.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from mmd.domain.settings import JournalSettings
from mmd.journal.disk import Disk, OsDisk, write_all
from mmd.journal.reader import Walk, resume_at
from mmd.journal.segments import (
    FRESH,
    Damaged,
    SegmentFile,
    chunks,
    compressed_name,
    deflate,
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


def tidy(directory: Path, current: int, settings: JournalSettings, now_ns: int, *, disk: Disk | None = None) -> Kept:
    """Compress and delete what the settings say. `current`: number of the file that is written (`Journal.segment`).

    Raises nothing of the disk's: what failed is in the answer and is tried again with the next call.
    """
    disk = OsDisk() if disk is None else disk
    kept = Kept()
    try:
        if settings.compress:
            compress(disk, directory, current, kept)
        expire(disk, directory, current, settings, now_ns, kept)
    except OSError as error:
        kept.failed.append(f"{directory}: {error.strerror}")
    except JournalFailed as failed:
        kept.failed.append(str(failed))
    return kept


# --- compression -----------------------------------------------------------------------------------


def compress(disk: Disk, directory: Path, current: int, kept: Kept) -> None:
    """Every closed file that is not compressed yet. Raises OSError where the directory cannot be read."""
    for name in disk.names(directory):
        if name.startswith("journal-") and name.endswith(FRESH):
            disk.unlink(directory / name)  # an interrupted call
    for file in segment_files(disk, directory):
        if file.number >= current or file.compressed:
            continue
        try:
            before, after = squeeze(disk, file)
        except (OSError, Damaged) as error:
            kept.failed.append(f"{file.name} is not compressed: {error}")
        else:
            kept.done.append(f"{file.name} compressed from {before / MIB:.1f} to {after / MIB:.1f} MiB")


def squeeze(disk: Disk, file: SegmentFile) -> tuple[int, int]:
    """Replace a file by its compressed self; returns both sizes. Raises OSError, Damaged; then it is as it was."""
    path = file.path.with_name(compressed_name(file.number))
    hashed, size = fingerprint(disk, file.path, compressed=False)
    if file.spare is None or not same(disk, file.spare, hashed):
        fresh = path.with_name(path.name + FRESH)
        try:
            pack(disk, file.path, fresh)
            if not same(disk, fresh, hashed):
                raise Damaged("it does not read back as what was written")
        except (OSError, Damaged):
            with suppress(FileNotFoundError):
                disk.unlink(fresh)
            raise
        disk.rename(fresh, path)
        disk.sync_directory(path.parent)
    disk.unlink(file.path)
    disk.sync_directory(path.parent)
    return size, size_of(disk, path)


def pack(disk: Disk, plain: Path, fresh: Path) -> None:
    """Write the compressed file, durable; its header last, for it holds a hash over the rest."""
    source = disk.open_to_read(plain)
    try:
        target = disk.create(fresh)
        try:
            hashed = hashlib.sha256()
            header = gzip_header("0" * 64)
            write_all(disk, target, 0, header)
            offset = len(header)
            for packed in deflate(raw_chunks(disk, source, 0), LEVEL):
                write_all(disk, target, offset, packed)
                hashed.update(packed)
                offset += len(packed)
            write_all(disk, target, 0, gzip_header(hashed.hexdigest()))
            disk.sync(target)
        finally:
            disk.close(target)
    finally:
        disk.close(source)


def fingerprint(disk: Disk, path: Path, *, compressed: bool) -> tuple[str, int]:
    """SHA-256 and size of a file's content, decompressed. Raises OSError, Damaged."""
    handle = disk.open_to_read(path)
    try:
        hashed, size = hashlib.sha256(), 0
        for chunk in chunks(disk, handle, compressed=compressed):
            hashed.update(chunk)
            size += len(chunk)
        return hashed.hexdigest(), size
    finally:
        disk.close(handle)


def same(disk: Disk, path: Path, hashed: str) -> bool:
    """Whether a compressed file has this content."""
    try:
        return fingerprint(disk, path, compressed=True)[0] == hashed
    except Damaged:
        return False


def size_of(disk: Disk, path: Path) -> int:
    handle = disk.open_to_read(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


# --- retention -------------------------------------------------------------------------------------


def expire(disk: Disk, directory: Path, current: int, settings: JournalSettings, now_ns: int, kept: Kept) -> None:
    """Delete the oldest files while their last record is too old or all of them together are too large.

    What a start needs stays: the newest file that begins with every machine's state, and all behind it.
    Raises OSError, JournalFailed.
    """
    files = segment_files(disk, directory)
    sizes = [sum(size_of(disk, path) for path in paths(file)) for file in files]
    total = sum(sizes)
    limit = settings.keep_gib * GIB
    oldest_ns = now_ns - int(settings.keep_days * DAY_NS)
    walk = Walk(disk, directory)
    needed = -1
    for file, size, after in zip(files, sizes, files[1:], strict=False):
        first = walk.peek(after)  # begun when the one before it ended
        too_large = total > limit
        if file.number >= current or first is None or (first.at >= oldest_ns and not too_large):
            return
        if needed < 0:
            needed = resume_at(directory, disk=disk)
        if first.seq > needed:
            if too_large:
                kept.failed.append(
                    f"{total / GIB:.2f} GiB are more than keep_gib: {settings.keep_gib:g}, but {file.name} is needed"
                )
            return
        for path in paths(file):
            disk.unlink(path)
        disk.sync_directory(directory)
        total -= size
        why = f"more than {settings.keep_gib:g} GiB" if too_large else f"older than {settings.keep_days:g} days"
        kept.done.append(f"{file.name} deleted: {why}")


def paths(file: SegmentFile) -> Iterator[Path]:
    yield file.path
    if file.spare is not None:
        yield file.spare
