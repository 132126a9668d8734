"""Compressed files that hold too much, or stand beside a plain one: little memory, and nothing is kept back."""

import hashlib
import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import pytest
from journal_kit import HOME, NOW, MemoryDisk, content, journal, put_content, write_batches, write_round

from mmd.journal.notes import NoteQuery, search_notes
from mmd.journal.opening import look
from mmd.journal.reader import records, verify
from mmd.journal.segments import LINE_BYTES_MAX, TooLong, deflate, gzip_header, inflate, lines_of
from mmd.journal.statefile import JournalFailed


def three_files() -> MemoryDisk:
    disk = MemoryDisk()
    on = journal(disk)
    for number in range(3):
        if number:
            on.rotate(NOW)
        write_round(on)
        write_batches(on, 20)
    on.close()
    return disk


# --- what is made to be too much -------------------------------------------------------------------


def bomb(content: Iterable[bytes]) -> bytes:
    """A compressed file with this content, as the daemon would have made it."""
    packed = b"".join(deflate(iter(content), 9))
    return gzip_header(hashlib.sha256(packed).hexdigest()) + packed


def one_line(mib: int) -> Iterator[bytes]:
    yield content(three_files(), "journal-00000001.jsonl")
    for _ in range(mib):
        yield b"a" * (1 << 20)


def many_lines(mib: int) -> Iterator[bytes]:
    yield content(three_files(), "journal-00000001.jsonl")
    for _ in range(mib):
        yield (b"a" * 4095 + b"\n") * 256


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize(
    ("lines", "says"), [(one_line, "is longer than 32 MiB, and no record is"), (many_lines, "does not begin as a line")]
)
def test_a_little_that_holds_very_much_takes_little_memory(
    lines: Callable[[int], Iterator[bytes]], says: str, newest: bool
) -> None:
    disk = three_files()
    count = content(disk, "journal-00000001.jsonl").count(b"\n")
    packed = bomb(lines(256))
    assert len(packed) < 1 << 20
    del disk.files[HOME / "journal-00000001.jsonl"]
    put_content(disk, "journal-00000001.jsonl.gz", packed)
    if newest:
        del disk.files[HOME / "journal-00000002.jsonl"], disk.files[HOME / "journal-00000003.jsonl"]
    tracemalloc.start()
    try:
        fault = verify(HOME, disk=disk).fault
        search_notes(HOME, NoteQuery(most=10), lambda: "", disk)
        with pytest.raises(JournalFailed):
            list(records(HOME, disk=disk))
        if newest:
            with pytest.raises(JournalFailed, match=r"journal-00000001\.jsonl\.gz"):
                look(disk, HOME)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fault is not None and says in fault.detail and fault.line == count + 1
    assert peak < 110 << 20


def test_the_longest_line_is_read_and_one_byte_more_is_named() -> None:
    for more in (0, 1):
        lot = iter([b"x\n" + b"y" * (LINE_BYTES_MAX // 2), b"y" * (LINE_BYTES_MAX // 2 + more) + b"\nz"])
        found = lines_of(lot)
        assert next(found) == ([b"x"], b"")
        if more:
            with pytest.raises(TooLong, match="line 2 is longer than 32 MiB"):
                next(found)
        else:
            assert [len(line) for line in next(found)[0]] == [LINE_BYTES_MAX]
            assert next(found) == ([], b"z")


def test_a_compressed_file_is_the_same_in_pieces_of_any_size() -> None:
    """Also where its end has come, but not yet all of its content."""
    plain = b"".join(b"a" * (1 << 20) for _ in range(5)) + b"end"
    packed = bomb([plain])
    for size in (1, 7, 1000, len(packed) - 8, len(packed)):
        pieces = (packed[at : at + size] for at in range(0, len(packed), size))
        assert b"".join(inflate(pieces)) == plain


# --- a compressed file beside its plain one ------------------------------------------------------


@pytest.mark.parametrize(
    ("spare", "says"),
    [
        pytest.param(lambda plain: b"garbage", "is unreadable: it ends within its header", id="garbage"),
        pytest.param(lambda plain: bomb([plain])[:-9], "is unreadable: it ends too early", id="cut"),
        pytest.param(lambda plain: bomb([plain[:-5]]), "has not the content of journal-00000001.jsonl", id="other"),
        pytest.param(lambda plain: bomb([plain]), "", id="the same"),
    ],
)
def test_what_is_wrong_with_a_compressed_file_beside_its_plain_one_is_said(
    spare: Callable[[bytes], bytes], says: str
) -> None:
    disk = three_files()
    put_content(disk, "journal-00000001.jsonl.gz", spare(content(disk, "journal-00000001.jsonl")))
    report = verify(HOME, disk=disk)
    what = f"journal-00000001.jsonl.gz {says}; journal-00000001.jsonl beside it is whole, and is what counts"
    assert report.whole and report.warnings == ([what] if says else [])
