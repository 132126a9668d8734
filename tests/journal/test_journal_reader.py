"""The journal's reader: any changed byte is found and named, and nothing else is called broken."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_kit import (
    HOME,
    NOW,
    Content,
    MemoryDisk,
    all_records,
    content,
    journal,
    put_content,
    settings,
    write_batches,
    write_round,
)

from mmd.journal.chain import line_of, link, parts
from mmd.journal.faults import Broken, What
from mmd.journal.keeping import tidy
from mmd.journal.reader import Tail, lines, records, resume_at, verify
from mmd.journal.segments import GZIP_HEADER_SIZE
from mmd.journal.statefile import JournalFailed

FILES = ["journal-00000001.jsonl.gz", "journal-00000002.jsonl.gz", "journal-00000003.jsonl", "journal-00000004.jsonl"]


def four_files() -> MemoryDisk:
    """Records 1 to 24 in four files of six, two of them compressed."""
    disk = MemoryDisk()
    on = journal(disk)
    for _ in range(3):
        write_batches(on, 5)
        on.rotate(NOW)
    write_batches(on, 5)
    on.close()
    tidy(HOME, 3, settings(), NOW, disk=disk)
    assert sorted(path.name for path in disk.files) == FILES
    return disk


WHOLE = four_files()


def fresh() -> MemoryDisk:
    disk = MemoryDisk()
    disk.files = {path: Content(file.cached, file.cached) for path, file in WHOLE.files.items()}
    return disk


def test_a_whole_journal_is_whole() -> None:
    report = verify(HOME, disk=fresh())
    assert (report.whole, report.tail, report.segments, report.compressed, report.records) == (True, None, 4, 2, 24)
    assert (report.first_seq, report.first_at, report.last_seq, report.last_at) == (1, NOW, 24, NOW)
    assert (report.oldest, report.follows) == (FILES[0], "")
    plain = sum(len(line.hash) + len(line.body) for line in lines(HOME, disk=fresh()))
    assert report.size == plain + 24 * len('{"hash":"",\n') - 24


@given(data=st.data(), name=st.sampled_from(FILES), change=st.integers(1, 255))
@hypothesis.settings(max_examples=600, deadline=None)
def test_one_changed_byte_is_found_and_named(data: st.DataObject, name: str, change: int) -> None:
    disk = fresh()
    before = content(disk, name)
    offset = data.draw(st.integers(0, len(before) - 1), label="offset")
    put_content(disk, name, before[:offset] + bytes([before[offset] ^ change]) + before[offset + 1 :])
    report = verify(HOME, disk=disk)
    if report.fault is None:  # the newest file's last newline became a zero, as a loss of power may leave it
        assert (name, offset, before[offset] ^ change) == (FILES[3], len(before) - 1, 0)
        assert report.tail is not None
        return
    assert report.fault.file == name
    if not name.endswith(".gz"):
        line = before[:offset].count(b"\n") + 1
        assert (report.fault.line, report.fault.seq, report.fault.what) == (
            line,
            line + 6 * FILES.index(name),
            What.CHANGED,
        )


def test_every_byte_of_a_compressed_file_counts() -> None:
    """gzip itself covers neither its header nor the unused bits at the end of its stream."""
    name = FILES[1]
    whole = content(fresh(), name)
    for offset in [*range(GZIP_HEADER_SIZE), *range(len(whole) - 40, len(whole))]:
        for bit in range(8):
            disk = fresh()
            put_content(disk, name, whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :])
            fault = verify(HOME, disk=disk).fault
            assert fault is not None and fault.file == name, (offset, bit)


@pytest.mark.parametrize("size", [0, 5, GZIP_HEADER_SIZE, -9, -1])
def test_a_compressed_file_cut_short_is_named(size: int) -> None:
    disk = fresh()
    put_content(disk, FILES[0], content(disk, FILES[0])[:size])
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    assert (fault.file, fault.line, fault.what) == (FILES[0], 0, What.DAMAGED)


def test_a_compressed_file_with_something_behind_it_is_named() -> None:
    disk = fresh()
    put_content(disk, FILES[0], content(disk, FILES[0]) + b"\0")
    assert verify(HOME, disk=disk).fault is not None


Change = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("change", "line", "what", "detail"),
    [
        pytest.param(lambda n: n[:2] + n[3:], 3, What.MISSING, "record 15 is missing", id="a line"),
        pytest.param(lambda n: n[:1] + n[4:], 2, What.MISSING, "records 14 to 16 are missing", id="lines"),
        pytest.param(
            lambda n: [n[0], n[2], n[1], *n[3:]],
            2,
            What.REORDERED,
            "record 15 stands here, record 14 comes later",
            id="two lines swapped",
        ),
        pytest.param(
            lambda n: [*n[:3], n[1], *n[3:]],
            4,
            What.REORDERED,
            "record 14 stands here, record 16 comes later",
            id="a line twice",
        ),
        pytest.param(lambda n: [*n[:3], b"hello\n", *n[3:]], 4, What.CHANGED, "it does not begin as", id="inserted"),
        pytest.param(lambda n: [*n[:3], b"\n", *n[3:]], 4, What.CHANGED, "it does not begin as", id="empty line"),
        pytest.param(
            lambda n: [*n[:2], n[2].replace(b'"seq":15', b'"seq":19'), *n[3:]],
            3,
            What.CHANGED,
            "the record is not what its hash and the next line say",
            id="its number",
        ),
        pytest.param(
            lambda n: [*n[:2], n[2].replace(b'"77"', b'"78"'), *n[3:]],
            3,
            What.CHANGED,
            "the record is not what its hash and the next line say",
            id="its record",
        ),
        *(
            pytest.param(
                lambda n, number=number: [*n[:5], n[5].replace(b'"seq":18', number)],
                6,
                What.CHANGED,
                "the record does not fit its hash",
                id=f"the last one's {number.decode()}",
            )
            for number in (b'"seq":19', b'"seq":28', b'"seq":17', b'"seq":x8')
        ),
        pytest.param(
            lambda n: [*n[:2], n[2][:9] + b"0" * 64 + n[2][73:], *n[3:]],
            3,
            What.CHANGED,
            "its hash is not that of the record, the next line's is",
            id="its hash",
        ),
        pytest.param(
            lambda n: [*n[:5], n[5].replace(b'"77"', b'"78"')],
            6,
            What.CHANGED,
            "the record does not fit its hash",
            id="the last record",
        ),
        pytest.param(
            lambda n: [*n[:2], n[2][:-1], *n[3:]], 3, What.CHANGED, "the newline behind the record", id="no newline"
        ),
        pytest.param(
            lambda n: [*n[:5], n[5][:-1] + b"x"], 6, What.CHANGED, "the newline behind the record", id="last newline"
        ),
        pytest.param(lambda n: n[1:], 1, What.MISSING, "record 13 is missing", id="no first record"),
        pytest.param(
            lambda n: [*n, n[3]],
            7,
            What.REORDERED,
            "record 16 stands here, which is out of order",
            id="again at the end",
        ),
        pytest.param(lambda n: [*n, b"xyz"], 7, What.UNFINISHED, "3 bytes behind the last whole line", id="appended"),
        pytest.param(
            lambda n: [*n[:2], b"\0" * len(n[2]), *n[3:]], 3, What.CHANGED, "zeros, as a loss of power", id="zeros"
        ),
        pytest.param(lambda n: [], 1, What.MISSING, "the file is empty", id="empty file"),
    ],
)
def test_what_happened_to_a_line_is_said(change: Change, line: int, what: What, detail: str) -> None:
    """In the third file, which holds records 13 to 18."""
    disk = fresh()
    put_content(disk, FILES[2], b"".join(change(content(disk, FILES[2]).splitlines(keepends=True))))
    report = verify(HOME, disk=disk)
    assert report.fault is not None
    assert (report.fault.file, report.fault.line, report.fault.what) == (FILES[2], line, what)
    assert detail in report.fault.detail
    assert report.last_seq == report.records == report.fault.seq - 1 == 11 + line
    assert str(report.fault).startswith(f"{FILES[2]} line {line} (record {12 + line}): {what}: ")


def test_lines_missing_at_the_end_of_an_older_file_are_named() -> None:
    disk = fresh()
    kept = content(disk, FILES[2]).splitlines(keepends=True)[:4]
    put_content(disk, FILES[2], b"".join(kept))
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    assert (fault.file, fault.seq, fault.what) == (FILES[3], 17, What.MISSING)
    assert fault.detail == "records 17 to 18 are missing, before this file"


def test_a_missing_file_is_named() -> None:
    disk = fresh()
    del disk.files[HOME / FILES[1]]
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    assert (fault.file, fault.line, fault.seq, fault.what) == ("journal-00000002.jsonl", 0, 7, What.MISSING_FILE)
    del disk.files[HOME / FILES[2]]
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    assert fault.file == "journal-00000002.jsonl to journal-00000003.jsonl"


@pytest.mark.parametrize(
    ("moves", "named", "says"),
    [
        pytest.param({3: 5}, "journal-00000005.jsonl", "journal-00000004.jsonl", id="the newest"),
        pytest.param({2: 3, 3: 2}, "journal-00000003.jsonl", "journal-00000004.jsonl", id="two of them"),
        pytest.param({0: 9}, "journal-00000009.jsonl.gz", "journal-00000001.jsonl", id="the oldest"),
    ],
)
def test_a_renamed_file_is_named(moves: dict[int, int], named: str, says: str) -> None:
    """Keys: index of a file; values: index of the file whose name it gets, or another number."""
    disk = fresh()
    taken = {index: disk.files.pop(HOME / FILES[index]) for index in moves}
    for index, number in moves.items():
        ending = ".jsonl.gz" if index < 2 else ".jsonl"
        disk.files[HOME / f"journal-{number + (number < 4):08}{ending}"] = taken[index]
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    if fault.what is What.MISSING_FILE:  # the gap comes before the file that is named otherwise
        assert moves == {0: 9}
        return
    assert (fault.file, fault.line, fault.what) == (named, 0, What.RENAMED)
    assert says in fault.detail


def test_a_file_of_another_journal_does_not_follow() -> None:
    disk, other = fresh(), MemoryDisk()
    on = journal(other, now=NOW + 1)
    for _ in range(3):
        write_batches(on, 5)
        on.rotate(NOW)
    on.close()
    put_content(disk, FILES[3], content(other, FILES[3]))
    fault = verify(HOME, disk=disk).fault
    assert fault is not None
    assert (fault.file, fault.line, fault.what) == (FILES[3], 1, What.CHANGED)
    assert "does not follow journal-00000003.jsonl" in fault.detail


def test_the_oldest_files_may_be_gone() -> None:
    disk = fresh()
    del disk.files[HOME / FILES[0]]
    report = verify(HOME, disk=disk)
    assert (report.whole, report.first_seq, report.oldest) == (True, 7, FILES[1])
    sixth = [line.hash for line in lines(HOME, disk=fresh())][5]
    assert report.follows == sixth


# --- a hash from elsewhere -----------------------------------------------------------------------


def test_only_a_hash_from_elsewhere_shows_that_the_end_was_cut_off() -> None:
    disk = fresh()
    hashes = [line.hash for line in lines(HOME, disk=disk)]
    del disk.files[HOME / FILES[3]]
    kept = content(disk, FILES[2]).splitlines(keepends=True)[:4]
    put_content(disk, FILES[2], b"".join(kept))
    report = verify(HOME, disk=disk)
    assert (report.whole, report.last_seq) == (True, 16), "nothing in the files themselves can tell"
    assert not verify(HOME, head=hashes[-1], disk=disk).whole
    anchor = verify(HOME, head=hashes[15], disk=disk).anchor
    assert anchor is not None
    assert (anchor.seq, anchor.file, anchor.line) == (16, FILES[2], 4)


@pytest.mark.parametrize("seq", [1, 6, 7, 9, 24])
def test_a_hash_from_elsewhere_is_found_wherever_it_is(seq: int) -> None:
    hashes = [line.hash for line in lines(HOME, disk=fresh())]
    for given_hash in (hashes[seq - 1], hashes[seq - 1][:16]):
        report = verify(HOME, head=given_hash, seq=seq, disk=fresh())
        assert report.whole and report.anchor is not None
        assert (report.anchor.head, report.anchor.seq) == (hashes[seq - 1], seq)
        assert (report.anchor.file, report.anchor.line) == (FILES[(seq - 1) // 6], (seq - 1) % 6 + 1)
    assert not verify(HOME, head=hashes[seq - 1], seq=seq + 1, disk=fresh()).whole


def test_the_hash_before_the_oldest_file_counts_as_found() -> None:
    disk = fresh()
    sixth = [line.hash for line in lines(HOME, disk=disk)][5]
    del disk.files[HOME / FILES[0]]
    anchor = verify(HOME, head=sixth, disk=disk).anchor
    assert anchor is not None
    assert (anchor.holds, anchor.seq, anchor.file) == (True, 6, "")


def test_a_rewritten_chain_is_whole_but_for_the_hash_from_elsewhere() -> None:
    """Whoever can write the files can write a whole new chain."""
    disk = fresh()
    old = verify(HOME, disk=disk).head
    head, made = "", []
    for line in lines(HOME, disk=disk):
        body = line.body
        if b'"kind":"segment"' in body and head:
            start = body.index(b'"previous":"') + len(b'"previous":"')
            body = body[:start] + head.encode() + body[start + 64 :]
        body = body.replace(b'"77"', b'"99"')
        head = link(head, body)
        made.append(line_of(head, body))
    for index, name in enumerate(FILES):
        del disk.files[HOME / name]
        put_content(disk, f"journal-{index + 1:08}.jsonl", b"".join(made[index * 6 : index * 6 + 6]))
    assert verify(HOME, disk=disk).whole
    assert not verify(HOME, head=old, disk=disk).whole


# --- beside a daemon -----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 100, 400])
def test_a_line_that_is_not_finished_is_a_tail_and_not_read(cut: int) -> None:
    disk = fresh()
    whole = content(disk, FILES[3])
    put_content(disk, FILES[3], whole[:-cut])
    report = verify(HOME, disk=disk)
    end = whole.rstrip(b"\n").rfind(b"\n") + 1
    assert (report.whole, report.last_seq) == (True, 23)
    assert report.tail == Tail(FILES[3], end, len(whole) - cut - end)
    assert all_records(disk)[-1].seq == 23


def test_a_file_that_is_compressed_while_somebody_reads_is_still_read() -> None:
    disk = fresh()
    reading = records(HOME, disk=disk)
    next(reading)
    tidy(HOME, 4, settings(), NOW, disk=disk)
    assert HOME / FILES[2] not in disk.files
    assert [record.seq for record in reading] == list(range(2, 25))


def test_a_file_that_is_deleted_while_somebody_reads_is_said() -> None:
    disk = fresh()
    reading = records(HOME, disk=disk)
    next(reading)
    del disk.files[HOME / FILES[2]]
    with pytest.raises(JournalFailed, match=r"journal-00000003\.jsonl: No such file"):
        list(reading)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [0, 1, 6, 7, 8, 13, 24])
def test_reading_from_a_record_on(since: int) -> None:
    expected = list(range(max(1, since), 25))
    assert [record.seq for record in all_records(fresh(), since)] == expected
    assert [line.seq for line in lines(HOME, since, disk=fresh())] == expected


def test_reading_from_later_than_the_end_is_nothing() -> None:
    assert all_records(fresh(), 25) == []


def test_reading_from_a_record_on_does_not_need_the_files_before() -> None:
    disk = fresh()
    put_content(disk, FILES[0], b"broken")
    assert [record.seq for record in all_records(disk, 13)] == list(range(13, 25))


def test_reading_ends_with_the_fault() -> None:
    disk = fresh()
    put_content(disk, FILES[2], content(disk, FILES[2]).replace(b'"77"', b'"78"'))
    seen = []
    with pytest.raises(Broken, match=r"journal-00000003.jsonl line 2 \(record 14\): changed"):
        for line in lines(HOME, disk=disk):
            seen.append(line.seq)
    assert seen == list(range(1, 14))


def test_a_record_of_another_version_is_said() -> None:
    disk = fresh()
    head = verify(HOME, disk=disk).head
    body = b'{"kind":"dreamt","seq":25,"at":1}'
    put_content(disk, FILES[3], content(disk, FILES[3]) + line_of(link(head, body), body))
    assert verify(HOME, disk=disk).whole
    with pytest.raises(JournalFailed, match="record 25: this version cannot read it"):
        all_records(disk)


def test_where_nothing_is_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match=f"{tmp_path}: no journal-\\*.jsonl here"):
        verify(tmp_path)
    with pytest.raises(JournalFailed, match=f"{tmp_path}/none: no journal"):
        verify(tmp_path / "none")


def test_a_replay_may_begin_with_the_newest_file_that_has_every_state() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_round(on)
    on.commit()
    assert resume_at(HOME, disk=disk) == 1
    on.rotate(NOW)
    write_batches(on, 3)
    on.commit()
    assert resume_at(HOME, disk=disk) == 1, "the round of the second file is not complete"
    write_round(on)
    on.commit()
    assert resume_at(HOME, disk=disk) == 3
    tidy(HOME, 2, settings(), NOW, disk=disk)
    assert resume_at(HOME, disk=disk) == 3
    assert resume_at(HOME, disk=fresh()) == 0


def test_the_hash_of_a_line_is_over_the_line_before_and_its_own_bytes() -> None:
    """As docs/journal.md tells others to compute it."""
    head = b""
    for line in content(fresh(), FILES[2]).splitlines():
        found = parts(line)
        assert found is not None
        body = b"{" + line[75:]
        if not head:
            assert b'"previous":"' in body
            head = body[body.index(b'"previous":"') + 12 :][:64]
        assert hashlib.sha256(head + body).hexdigest() == found[0]
        head = found[0].encode()
