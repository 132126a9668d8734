"""The journal's files: their names, their order, and how a closed one is compressed.

`<state>/journal/journal-<number>.jsonl` is written or was; `.jsonl.gz` is closed and compressed. A
compressed file is gzip of one member whose header has no time, no name and one comment: the SHA-256
of all bytes behind the header, because gzip's own checksum covers neither its header nor the unused
bits of its last block, and a changed byte must be found wherever it is. `zcat` reads it as any other.

`journal-<number>.torn-<record>.<offset>` is a piece that was cut off that file, as it was found (`mmd.journal.torn`).
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mmd.domain.errors import MmdError
from mmd.journal.disk import Disk

DIRECTORY = "journal"
NAME = re.compile(r"journal-(\d{8})\.jsonl(\.gz)?", re.ASCII)
PIECE = re.compile(r"journal-(\d{8})\.torn-(\d{1,18})\.(\d{1,18})", re.ASCII)
FRESH = ".new"
MIB = 1 << 20
READ_SIZE = MIB
SMALL_READ = 1 << 13
"""Of who gives way to others between two pieces: a fraction of a millisecond is spent on each."""
LINE_BYTES_MAX = 32 * MIB
"""No record is longer: the writer refuses it. So no file takes much memory to read, whatever is in it."""

# magic, deflate, a comment and nothing else, no time, no level, system unknown
GZIP_START = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x00\xffsha256 of what follows: "
GZIP_HEADER_SIZE = len(GZIP_START) + 65
TRAILER_SIZE = 8


class Damaged(MmdError):
    """A compressed file is not what was written; the text says how."""


class TooLong(Damaged):
    """A line that is longer than any record."""


class SegmentFile(msgspec.Struct, frozen=True):
    """One file of the journal. `spare`: the same content is there compressed as well (an interruption left both).

    `pieces`: what was cut off it when it was opened.
    """

    number: int
    path: Path
    compressed: bool
    spare: Path | None = None
    pieces: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name


def plain_name(number: int) -> str:
    return f"journal-{number:08}.jsonl"


def compressed_name(number: int) -> str:
    return plain_name(number) + ".gz"


def segment_files(disk: Disk, directory: Path) -> list[SegmentFile]:
    """What is there, oldest first; nothing if the directory is missing. Raises OSError."""
    try:
        names = sorted(disk.names(directory))
    except FileNotFoundError:
        return []
    found: dict[int, SegmentFile] = {}
    pieces: dict[int, list[Path]] = {}
    for name in names:  # the plain one comes before its .gz
        if piece := PIECE.fullmatch(name):
            pieces.setdefault(int(piece[1]), []).append(directory / name)
        match = NAME.fullmatch(name)
        if match is None:
            continue
        number, path = int(match[1]), directory / name
        plain = found.get(number)
        if plain is not None:
            found[number] = msgspec.structs.replace(plain, spare=path)
        else:
            found[number] = SegmentFile(number, path, compressed=match[2] is not None)
    for number in found.keys() & pieces.keys():
        found[number] = msgspec.structs.replace(found[number], pieces=tuple(pieces[number]))
    return [found[number] for number in sorted(found)]


def chunks(disk: Disk, handle: int, *, compressed: bool, most: int = READ_SIZE) -> Iterator[bytes]:
    """The content from its beginning, decompressed, at most so many bytes at once. Raises OSError, Damaged."""
    raw = raw_chunks(disk, handle, 0, most)
    return inflate(raw, most) if compressed else raw


def raw_chunks(disk: Disk, handle: int, offset: int, most: int = READ_SIZE) -> Iterator[bytes]:
    while chunk := disk.read(handle, offset, most):
        yield chunk
        offset += len(chunk)


def lines_of(content: Iterator[bytes]) -> Iterator[tuple[list[bytes], bytes]]:
    """Lots of lines without their newlines; the last lot has no line, and what follows the last newline.

    Raises TooLong, after the lines before it.
    """
    rest: list[bytes] = []  # of a line that has not ended
    size = count = 0
    for chunk in content:
        size += chunk.find(b"\n") if b"\n" in chunk else len(chunk)
        if size > LINE_BYTES_MAX:  # any other line is no longer than a chunk
            raise TooLong(f"line {count + 1} is longer than {LINE_BYTES_MAX // MIB} MiB")
        rest.append(chunk)
        if b"\n" not in chunk:
            continue
        lines = b"".join(rest).split(b"\n")
        rest = [lines.pop()]
        size = len(rest[0])
        count += len(lines)
        yield lines, b""
    yield [], b"".join(rest)


def fingerprint(
    disk: Disk,
    path: Path,
    *,
    compressed: bool,
    through: Callable[[Iterator[bytes]], Iterator[bytes]] = iter,
    most: int = READ_SIZE,
) -> tuple[str, int]:
    """SHA-256 and size of a file's content, decompressed. Raises OSError, Damaged, and what `through` raises.

    `most`: bytes of a piece that goes `through`.
    """
    handle = disk.open_to_read(path)
    try:
        hashed, size = hashlib.sha256(), 0
        for chunk in through(chunks(disk, handle, compressed=compressed, most=most)):
            hashed.update(chunk)
            size += len(chunk)
        return hashed.hexdigest(), size
    finally:
        disk.close(handle)


def gzip_header(sha256: str) -> bytes:
    return GZIP_START + sha256.encode() + b"\0"


def deflate(content: Iterator[bytes], level: int) -> Iterator[bytes]:
    """What follows the header: one deflate stream, its CRC-32 and its size, as RFC 1952 has it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = size = 0
    for chunk in content:
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush() + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def inflate(content: Iterator[bytes], most: int = READ_SIZE) -> Iterator[bytes]:
    """The content of a compressed file, from its bytes. Raises Damaged at the first sign, at the latest at the end."""
    head = b""
    while len(head) < GZIP_HEADER_SIZE:
        chunk = next(content, b"")
        if not chunk:
            raise Damaged("it ends within its header")
        head += chunk
    header, body = head[:GZIP_HEADER_SIZE], head[GZIP_HEADER_SIZE:]
    if not header.startswith(GZIP_START):
        raise Damaged("its header is not the one that was written")
    hashed = hashlib.sha256()
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    crc = size = 0
    trailer = b""
    body = body or next(content, b"")
    while body:
        hashed.update(body)
        while body and not unpacker.eof:  # a little may hold very much
            try:
                plain = unpacker.decompress(body, most)
            except zlib.error as error:
                raise Damaged(f"it cannot be decompressed: {error}") from error
            body = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            crc, size = zlib.crc32(plain, crc), size + len(plain)
            if plain:
                yield plain
        trailer = (trailer + body)[: TRAILER_SIZE + 1]
        body = next(content, b"")
    if not unpacker.eof:
        raise Damaged("it ends too early")
    if trailer != crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise Damaged("its checksum does not fit its content")
    if header != gzip_header(hashed.hexdigest()):
        raise Damaged("its SHA-256 is not the one in its header")
