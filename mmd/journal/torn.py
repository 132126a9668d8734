"""What a crash tore off: which ends may be cut, and where the pieces are kept.

A piece is kept in a file of its own, made durable, before the journal's file is cut, and is told of behind the
cut: so whatever interrupts it, nothing is cut that is not kept, and a piece that no record tells of yet is found by
its name. That is of the journal's file, the number of the record that tells of it, and where it was:
`journal-00000002.torn-1234.567890`.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from mmd.journal.disk import Disk, read_all, write_all
from mmd.journal.segments import FRESH, PIECE, plain_name

SECTOR = 512
PIECES_MAX = 16
ZEROS = re.compile(rb"\0+")


class Cut(msgspec.Struct, frozen=True):
    """What is cut off: the fields of a Torn record. `kept`: the file with the piece."""

    file: str
    offset: int
    size: int
    sha256: str
    kept: str


def is_torn(rest: bytes, offset: int) -> bool:
    """Whether what follows a file's last whole line, at this offset, is what a crash leaves.

    That is a last line, whole or not. Where zeros are in it, each run of them goes up to the file's end or
    to the end of a sector: that is what a disk writes or does not, and then other lines may be behind it.
    """
    line, _, behind = rest.partition(b"\n")
    ends = [found.end() for found in ZEROS.finditer(line)]
    of_crash = all(end == len(rest) or (offset + end) % SECTOR == 0 for end in ends)
    return of_crash and (bool(ends) or not behind)


def cut_off(disk: Disk, path: Path, size: int, piece: bytes, record: int, give: Callable[[OSError], bool]) -> None:
    """End this file here, before the piece, but not before there is a durable copy of it. Raises OSError.

    `record`: the next number there is. `give`: asked for room where there is none.
    """
    try:
        keep(disk, path, size, piece, record)
    except OSError as error:
        if not give(error):
            raise
        keep(disk, path, size, piece, record)
    handle = disk.open(path)
    try:
        disk.truncate(handle, size)
        disk.sync(handle)
    finally:
        disk.close(handle)


def keep(disk: Disk, file: Path, offset: int, piece: bytes, record: int) -> None:
    """Copy the piece, once only, beside the file; of many copies the oldest goes. Raises OSError."""
    directory = file.parent
    waiting = untold(disk, directory, record)
    if any(each.sha256 == hashlib.sha256(piece).hexdigest() for each in waiting):
        return
    if waiting:
        record = _numbers(waiting[-1].kept)[1] + 1
    path = directory / f"{file.stem}.torn-{record}.{offset}"
    fresh = path.with_name(path.name + FRESH)
    handle = disk.create(fresh)
    try:
        write_all(disk, handle, 0, piece)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(fresh, path)
    for name in _names(disk, directory)[:-PIECES_MAX]:
        disk.unlink(directory / name)
    disk.sync_directory(directory)


def untold(disk: Disk, directory: Path, record: int) -> list[Cut]:
    """The pieces that no record tells of, in the order in which they were cut. `record`: the next number there is.

    Raises OSError.
    """
    found = []
    for name in _names(disk, directory):
        number, told, offset = _numbers(name)
        if record <= told < record + PIECES_MAX:
            piece = _content(disk, directory / name)
            found.append(Cut(plain_name(number), offset, len(piece), hashlib.sha256(piece).hexdigest(), name))
    return found


def _names(disk: Disk, directory: Path) -> list[str]:
    """Of all pieces, by the number of their record."""
    return sorted((name for name in disk.names(directory) if PIECE.fullmatch(name)), key=lambda name: _numbers(name)[1])


def _numbers(name: str) -> tuple[int, int, int]:
    """Of the file, of the record, and the offset."""
    match = PIECE.fullmatch(name)
    assert match is not None, "it is the name of a piece"
    return int(match[1]), int(match[2]), int(match[3])


def _content(disk: Disk, path: Path) -> bytes:
    handle = disk.open_to_read(path)
    try:
        return read_all(disk, handle, 0, disk.size(handle))
    finally:
        disk.close(handle)
