"""The journal's writer: what it writes, what it does on a failing disk, and where it goes on after a crash."""

import contextlib
import errno
import hashlib
import stat
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_kit import (
    HOME,
    KEY,
    NOW,
    SECOND,
    Content,
    Crashed,
    MemoryDisk,
    all_records,
    amend,
    content,
    journal,
    put_content,
    settings,
    top,
    write_batches,
)

from mmd.domain.settings import FsyncPolicy, JournalSettings
from mmd.domain.totals import BoundsAcked, GrantBounds
from mmd.journal import writer
from mmd.journal.chain import digest, digest_of, line_of, link, parts
from mmd.journal.keeping import tidy
from mmd.journal.reader import verify
from mmd.journal.records import Batch, Left, Lost, Note, Segment, Snapshot, Started, Torn, Totals
from mmd.journal.segments import LINE_BYTES_MAX
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal

FIRST, SECOND_FILE = "journal-00000001.jsonl", "journal-00000002.jsonl"


# --- what is written -----------------------------------------------------------------------------


def test_batches_totals_and_others_are_read_back_as_what_they_were() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    on.batch(KEY, NOW, [top(1), top(2)], [amend(1)], shadow=True)
    on.batch(KEY, NOW + 1, (top(3),), [])
    on.batch(KEY, NOW + 2, [top(4)], [], error="ValueError: no", called_off=True)
    told, granted = (BoundsAcked(KEY, 3),), (GrantBounds(KEY, 4, -5, 5),)
    on.totals(NOW + 3, told, (KEY,), granted)
    on.totals(NOW + 4, (), None, [])
    seq = on.put(Snapshot, NOW + 5, key=KEY, state=msgspec.Raw(b'{"a":1}'))
    on.commit()
    found = all_records(disk)
    assert (on.seq, seq, on.written_seq) == (7, 7, 7)
    assert found == [
        Segment(seq=1, at=NOW, format=1, number=1, previous="", service="desk", version="1.0", code="c1"),
        Batch(
            seq=2,
            at=NOW,
            key=KEY,
            events=(top(1), top(2)),
            digest=digest_of([amend(1)]),
            actions=(amend(1),),
            shadow=True,
        ),
        Batch(seq=3, at=NOW + 1, key=KEY, events=(top(3),), digest=digest_of([])),
        Batch(
            seq=4,
            at=NOW + 2,
            key=KEY,
            events=(top(4),),
            digest=digest_of([]),
            error="ValueError: no",
            called_off=True,
        ),
        Totals(
            seq=5,
            at=NOW + 3,
            told=told,
            valued=(KEY,),
            digest=digest(msgspec.json.encode(granted)),
            actions=granted,
        ),
        Totals(seq=6, at=NOW + 4, digest=digest_of([])),
        Snapshot(seq=7, at=NOW + 5, key=KEY, state=msgspec.Raw(b'{"a":1}')),
    ]


def test_a_batch_is_written_as_the_record_itself_would_be() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    on.batch(KEY, NOW, [top(1)], [amend(1)], error="x", called_off=True, shadow=True)
    on.commit()
    line = content(disk, FIRST).splitlines()[1]
    found = parts(line)
    assert found is not None
    assert found[1] == msgspec.json.encode(all_records(disk)[1])


def test_each_hash_is_over_the_one_before_and_the_record_and_the_last_is_the_head() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 5)
    on.commit()
    head = ""
    for line in content(disk, FIRST).splitlines():
        found = parts(line)
        assert found is not None
        assert found[0] == link(head, found[1])
        head = found[0]
    assert on.head == head


def test_nothing_is_written_before_the_commit_and_all_with_one_write() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    before, changes = content(disk, FIRST), disk.changes
    write_batches(on, 50)
    assert (content(disk, FIRST), on.pending_records, disk.changes) == (before, 50, changes)
    assert on.written_head != on.head and on.written_head.encode() in before
    assert on.pending_bytes > 0
    on.commit()
    assert (disk.changes - changes, on.pending_bytes, on.pending_records) == (1, 0, 0)
    assert on.written_head == on.head
    assert on.segment_bytes == len(content(disk, FIRST)) == on.bytes_written
    on.commit()
    assert disk.changes - changes == 1


def test_files_are_for_the_service_alone(tmp_path: Path) -> None:
    on = Journal(tmp_path / "journal", JournalSettings(), service="s", version="1", code="c", now_ns=NOW)
    on.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "journal").iterdir()}
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    assert modes == {FIRST: 0o600, "reserve": 0o600}
    assert (tmp_path / "journal" / "reserve").stat().st_size == 16 << 20


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalFailed, match=f"{tmp_path}/journal: is a file; allowed: a directory"):
        Journal(tmp_path / "journal", JournalSettings(), service="s", version="1", code="c", now_ns=NOW)


# --- going on after a restart --------------------------------------------------------------------


def test_a_restart_goes_on_with_the_same_file_and_chain() -> None:
    disk = MemoryDisk()
    first = journal(disk)
    write_batches(first, 3)
    first.close()
    second = journal(disk, now=NOW + SECOND)
    assert (second.seq, second.head, second.path.name, second.torn) == (4, first.head, FIRST, None)
    second.put(Started, NOW + SECOND, version="1.0", pid=1, host="h")
    second.commit()
    assert [record.seq for record in all_records(disk)] == [1, 2, 3, 4, 5]


def test_what_a_killed_process_left_in_memory_is_made_durable_before_it_is_counted_so() -> None:
    disk = MemoryDisk()
    write_batches(on := journal(disk), 3)
    on.commit()
    file = disk.files[HOME / FIRST]
    assert file.durable != file.cached
    assert journal(disk).synced_seq == 4
    assert file.durable == file.cached


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"code": "c2"}, "its snapshots cannot be read", id="other code"),
        pytest.param({"now": NOW + 25 * 3600 * SECOND}, "a day is over", id="old"),
    ],
)
def test_a_restart_begins_a_new_file_when(change: dict[str, str], why: str) -> None:
    disk = MemoryDisk()
    first = journal(disk)
    write_batches(first, 3)
    first.close()
    second = journal(disk, **change)
    assert second.path.name == SECOND_FILE, why
    assert all_records(disk)[-1] == Segment(
        seq=5,
        at=int(change.get("now", NOW)),
        format=1,
        number=2,
        previous=first.head,
        service="desk",
        version="1.0",
        code=change.get("code", "c1"),
    )


def test_a_compressed_newest_file_is_not_written_to() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 3)
    on.rotate(NOW)
    on.close()
    assert tidy(HOME, 3, settings(), NOW, disk=disk).failed == []
    again = journal(disk)
    assert (again.segment, again.seq) == (3, 6)
    assert verify(HOME, disk=disk).fault is None


def test_a_tail_torn_at_any_byte_of_the_last_two_lines_is_cut_and_told() -> None:
    whole = written(4)
    lines = whole.splitlines(keepends=True)
    for cut in range(1, len(lines[-1]) + len(lines[-2]) + 1):
        left = whole[:-cut]
        disk = MemoryDisk()
        put_content(disk, FIRST, left)
        end = left.rfind(b"\n") + 1
        on = journal(disk)
        told = [record for record in all_records(disk) if isinstance(record, Torn)]
        assert content(disk, FIRST).startswith(left[:end]), cut
        if end == len(left):
            assert (told, on.torn) == ([], None), cut
        else:
            piece = hashlib.sha256(left[end:]).hexdigest()
            kept = f"journal-00000001.torn-{on.seq}.{end}"
            (torn,) = told
            assert torn == Torn(
                seq=on.seq, at=NOW, file=FIRST, offset=end, size=len(left) - end, sha256=piece, kept=kept
            ), cut
            assert content(disk, kept) == left[end:], cut
        assert on.seq == left.count(b"\n") + len(told), cut
        assert verify(HOME, disk=disk).whole, cut


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"\0" * 4096, id="zeros"),
        pytest.param(b'{"hash":"12' + b"\0" * 500, id="zeros behind a piece"),
        pytest.param(b'{"hash":"12\n', id="a last line that is none"),
        pytest.param(b"\n", id="an empty line"),
        pytest.param(b"\xff" * 10, id="not even text"),
    ],
)
def test_what_a_loss_of_power_leaves_is_cut_and_told(piece: bytes) -> None:
    whole = written(2)
    disk = MemoryDisk()
    put_content(disk, FIRST, whole + piece)
    on = journal(disk)
    assert on.torn is not None
    assert (on.torn.offset, on.torn.size) == (len(whole), len(piece))
    assert content(disk, FIRST).startswith(whole)
    assert isinstance(all_records(disk)[-1], Torn)
    assert verify(HOME, disk=disk).whole
    on.close()
    assert journal(disk).torn is None


LATER = b'ence":1}\n{"hash":"34"}\n'


def to_sector(size: int) -> int:
    """How many bytes are missing to the end of the sector."""
    return -size % 512


@pytest.mark.parametrize(
    ("before", "zeros", "behind", "torn"),
    [
        pytest.param(b"", 0, LATER, True, id="a sector, and what was written behind it"),
        pytest.param(b"", 512, LATER, True, id="two"),
        pytest.param(b'{"hash":"12', 0, LATER, True, id="a piece, a sector"),
        pytest.param(b"", 0, b"{" * 512 + b"\0" * 512 + LATER, True, id="two with one between them"),
        pytest.param(b"", 1, LATER, False, id="one byte more"),
        pytest.param(b"", -1, LATER, False, id="one byte less"),
        pytest.param(b"", 0, b"{" * 512 + b"\0" * 511 + LATER, False, id="a sector, and some other zeros"),
        pytest.param(b"", 0, LATER[:4], True, id="behind it is no other line"),
        pytest.param(b"", 1, LATER[:4], False, id="one byte more, and no other line"),
    ],
)
def test_zeros_are_torn_up_to_the_end_of_a_sector_or_of_the_file(
    before: bytes, zeros: int, behind: bytes, torn: bool
) -> None:
    whole = written(2)
    left = whole + before
    left += b"\0" * (to_sector(len(left)) + zeros) + behind
    disk = MemoryDisk()
    put_content(disk, FIRST, left)
    if torn:
        on = journal(disk)
        assert on.torn is not None and on.torn.offset == len(whole)
        assert content(disk, on.torn.kept) == left[len(whole) :]
    else:
        with pytest.raises(JournalFailed, match="line 4 does not go on from record 3"):
            journal(disk)
        assert content(disk, FIRST) == left and list(disk.files) == [HOME / FIRST]


def test_a_byte_that_became_zero_lets_nothing_be_cut_off() -> None:
    whole = written(4)
    for at in range(len(whole) - len(whole.splitlines(keepends=True)[-1])):
        if (at + 1) % 512 == 0:
            continue  # as a sector could begin behind it
        disk = MemoryDisk()
        put_content(disk, FIRST, whole[:at] + b"\0" + whole[at + 1 :])
        with pytest.raises(JournalFailed):
            journal(disk)


@pytest.mark.parametrize("number", [1, 2], ids=["a file that goes on", "a file that was only begun"])
@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"x" * 900, id="long"),
        pytest.param(b"x", id="short"),
        pytest.param(b"\0" * 30, id="zeros, fewer than the record of them has bytes"),
        pytest.param(b"\0" * 30 + LATER * 40, id="zeros, and what was written behind them"),
    ],
)
def test_a_crash_while_an_end_is_cut_off_leaves_it_kept_and_told(piece: bytes, number: int) -> None:
    """At any change, twice, with the system alive and with power lost."""
    whole = written(2) if number == 1 else b""
    piece = piece if not piece.endswith(LATER) else b"\0" * (to_sector(len(whole)) or 512) + LATER * 40
    for first in range(1, 40):
        for second in (0, *range(1, 30)):
            disk = MemoryDisk()
            if number == 2:
                put_content(disk, FIRST, written(3))
            put_content(disk, f"journal-0000000{number}.jsonl", whole + piece)
            disk.sync_directory(HOME)
            died = dies_opening(disk, first)
            for power in (False, True):
                after = left_by(disk, power)
                again = dies_opening(after, second) if second else False
                last = left_by(after, power)
                journal(last)
                told = [record for record in all_records(last) if isinstance(record, Torn)]
                for record in told:
                    kept = content(last, record.kept)
                    assert (record.size, record.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())
                pieces = {path.name: content(last, path.name) for path in last.files if ".torn-" in path.name}
                assert sorted(pieces) == sorted(record.kept for record in told), (first, second, power)
                others = [kept for kept in pieces.values() if kept != piece]  # of the record of it
                assert len(others) == len(pieces) - 1 and all(kept.startswith(b'{"hash":"') for kept in others)
                assert verify(HOME, disk=last).whole
            if second and not again:
                break
        if not died:
            assert first > 8
            return
    pytest.fail("it never came to its end")


def dies_opening(disk: MemoryDisk, change: int) -> bool:
    """Open it, and die at this change; False if it was open before."""
    disk.crash_at, disk.tear = disk.changes + change, 40
    try:
        journal(disk)
    except Crashed:
        return True
    return False


def left_by(disk: MemoryDisk, power: bool) -> MemoryDisk:
    return disk.after_power_loss(lambda size: size, lambda block: False) if power else disk.after_crash()


def test_only_the_newest_pieces_are_kept() -> None:
    disk = MemoryDisk()
    journal(disk).close()
    for _ in range(20):
        put_content(disk, FIRST, content(disk, FIRST) + b"x")
        journal(disk).close()
    pieces = [path.name for path in disk.files if ".torn-" in path.name]
    told = [record for record in all_records(disk) if isinstance(record, Torn)]
    assert len(told) == 20
    assert sorted(pieces) == sorted(record.kept for record in told[-16:])


def test_a_piece_is_kept_with_the_reserve_or_nothing_is_cut() -> None:
    left = written(2) + b"x" * 5000
    for room, opens in ((20_000, True), (0, False)):
        disk = MemoryDisk()
        put_content(disk, FIRST, left)
        journal(disk, settings(reserve_mib=room / (1 << 20))).close()  # takes the reserve
        put_content(disk, FIRST, left)
        for name in [path for path in disk.files if ".torn-" in path.name]:
            del disk.files[name]
        disk.capacity = sum(len(each.cached) for each in disk.files.values()) + 100
        if opens:
            on = journal(disk, settings(reserve_mib=room / (1 << 20)))
            assert on.torn is not None and content(disk, on.torn.kept) == b"x" * 5000
            assert "No space left" in on.failing
        else:
            with pytest.raises(JournalFailed, match="No space left"):
                journal(disk)
            assert content(disk, FIRST) == left


def test_a_record_that_nobody_could_read_is_not_written() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    most = LINE_BYTES_MAX - 300
    on.put(Note, NOW, number=1, name="x", detail="y" * most)
    on.commit()
    assert verify(HOME, disk=disk).whole
    with pytest.raises(AssertionError, match="nobody reads one that long"):
        on.put(Note, NOW, number=2, name="x", detail="y" * (most + 300))
    on.put(Note, NOW, number=2, name="x", detail="")
    on.commit()
    assert verify(HOME, disk=disk).records == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            lambda lines: [*lines[:2], lines[2].replace(b'"77"', b'"78"'), *lines[3:]], "line 3", id="changed"
        ),
        pytest.param(lambda lines: [*lines[:2], *lines[3:]], "line 3", id="missing"),
        pytest.param(lambda lines: lines[1:], "line 1 is not the first record", id="no first record"),
        pytest.param(lambda lines: [b"hello\n", b"world\n"], "line 1 is not the first record", id="another file"),
    ],
)
def test_what_is_of_no_crash_is_named_and_not_touched(change: Callable[[list[bytes]], list[bytes]], says: str) -> None:
    disk = MemoryDisk()
    left = b"".join(change(written(4).splitlines(keepends=True)))
    put_content(disk, FIRST, left)
    with pytest.raises(JournalFailed) as refused:
        journal(disk)
    assert f"{HOME}/{FIRST}: {says}" in str(refused.value)
    assert f"`mmd verify {HOME}`, move {HOME} away" in str(refused.value)
    assert (content(disk, FIRST), disk.handles) == (left, {})


def test_a_format_of_the_future_is_refused() -> None:
    disk = MemoryDisk()
    body = msgspec.json.encode(
        Segment(seq=1, at=NOW, format=2, number=1, previous="", service="s", version="9", code="c")
    )
    put_content(disk, FIRST, line_of(link("", body), body))
    with pytest.raises(JournalFailed, match="format 2, this version reads 1"):
        journal(disk)


def test_a_renamed_file_is_refused() -> None:
    disk = MemoryDisk()
    put_content(disk, SECOND_FILE, written(2))
    with pytest.raises(JournalFailed, match=f"it says that it is {FIRST}: it was renamed"):
        journal(disk)


@pytest.mark.parametrize("left", [b"", b"\0" * 100, b'{"hash":"'], ids=["empty", "zeros", "piece"])
def test_a_file_that_was_only_begun_follows_the_one_before(left: bytes) -> None:
    disk = MemoryDisk()
    put_content(disk, FIRST, written(3))
    put_content(disk, SECOND_FILE, left)
    on = journal(disk)
    assert (on.path.name, on.seq) == (SECOND_FILE, 5 + bool(left))
    assert (on.torn is not None) == bool(left)
    assert verify(HOME, disk=disk).whole


def test_a_file_that_was_only_begun_as_the_very_first_begins_again() -> None:
    disk = MemoryDisk()
    put_content(disk, FIRST, b"")
    assert journal(disk).seq == 1
    disk = MemoryDisk()
    put_content(disk, SECOND_FILE, b"")
    with pytest.raises(JournalFailed, match=f"{FIRST} is missing"):
        journal(disk)
    put_content(disk, FIRST, written(3)[:-9])
    with pytest.raises(JournalFailed, match=f"{FIRST}: line 4 is broken, and it is not the newest"):
        journal(disk)


def written(batches: int) -> bytes:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, batches)
    on.close()
    return content(disk, FIRST)


# --- a crash at any change -----------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(["batch", "batches", "note", "commit", "commit", "commit", "sync", "rotate", "reopen"]),
    min_size=1,
    max_size=25,
)


class Model:
    """Runs steps, and remembers what must be there whatever happens."""

    def __init__(self, disk: MemoryDisk, wanted: JournalSettings) -> None:
        self.disk, self.wanted = disk, wanted
        self.put: list[int] = []  # numbers of the notes
        self.sure = 0  # so many of them were committed
        self.durable = 0  # so many of them were made durable

    def run(self, steps: Sequence[str]) -> None:
        on = journal(self.disk, self.wanted)
        for step in steps:
            if step in ("batch", "batches", "note"):
                for _ in range(3 if step == "batches" else 1):
                    self.put.append(len(self.put) + 1)
                    on.put(Note, NOW, number=self.put[-1], name="x", detail="y" * (self.put[-1] * 37 % 700))
            elif step == "commit":
                on.commit()
                self.sure = len(self.put)
                if self.wanted.fsync is FsyncPolicy.ALWAYS:
                    self.durable = self.sure
            elif step == "sync":
                on.sync()
                self.durable = self.sure
            elif step == "rotate":
                on.rotate(NOW)
                self.sure = self.durable = len(self.put)
            else:
                on.close()
                self.sure = self.durable = len(self.put)
                on = journal(self.disk, self.wanted)


def numbers(disk: MemoryDisk) -> list[int]:
    return [record.number for record in all_records(disk) if isinstance(record, Note)]


@given(
    steps=STEPS,
    crash_at=st.integers(1, 60),
    tear=st.integers(0, 3000),
    fsync=st.sampled_from(FsyncPolicy),
    reserve=st.sampled_from([0.0, 0.01]),
    data=st.data(),
)
@hypothesis.settings(max_examples=400, deadline=None)
def test_a_crash_at_any_change_leaves_all_that_was_committed_and_opens_again(
    steps: list[str], crash_at: int, tear: int, fsync: FsyncPolicy, reserve: float, data: st.DataObject
) -> None:
    """And a loss of power all that was made durable."""
    disk = MemoryDisk()
    disk.crash_at, disk.tear = crash_at, tear
    model = Model(disk, settings(fsync, reserve_mib=reserve))
    try:
        model.run(steps)
    except Crashed:
        pass
    power = data.draw(st.booleans(), label="power lost")
    if power:
        keep = data.draw(st.integers(0, 100), label="percent of the rest kept")
        holes = data.draw(st.integers(0, 255), label="blocks that are zeros")
        after = disk.after_power_loss(lambda size: size * keep // 100, lambda block: bool(holes >> (block % 8) & 1))
    else:
        after = disk.after_crash()
    again = journal(after, model.wanted)
    found = numbers(after)
    assert found == model.put[: len(found)]
    assert len(found) >= (model.durable if power else model.sure)
    report = verify(HOME, disk=after)
    assert (report.fault, report.tail, report.head, report.last_seq) == (None, None, again.head, again.seq)
    again.put(Note, NOW, number=len(found) + 1, name="x", detail="")
    again.close()
    assert numbers(after) == [*found, len(found) + 1]


# --- a disk that fails ---------------------------------------------------------------------------


def fails(code: int, *names: str) -> Callable[[int, str], int]:
    return lambda number, name: code if name in names else 0


def works(number: int, name: str) -> int:
    return 0


def test_short_writes_are_finished() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    disk.write_size_max = 100
    write_batches(on, 5)
    on.commit()
    assert [record.seq for record in all_records(disk)] == [1, 2, 3, 4, 5, 6]


def test_what_could_not_be_written_stays_in_order_and_the_file_ends_with_a_whole_line() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 2)
    on.commit()
    before = content(disk, FIRST)
    disk.write_size_max = 300
    writes = iter([0, errno.EIO])
    disk.fault = lambda number, name: next(writes, errno.EIO) if name == "write" else 0
    write_batches(on, 2)
    with pytest.raises(JournalFailed, match=f"{HOME}/{FIRST}: EIO"):
        on.commit()
    assert content(disk, FIRST) == before
    assert (on.pending_records, on.written_seq, on.seq, on.write_errors) == (2, 3, 5, 1)
    assert "EIO" in on.failing
    write_batches(on, 1)
    disk.fault = works
    on.commit()
    assert (on.failing, on.pending_records, on.written_seq) == ("", 0, 6)
    assert [record.seq for record in all_records(disk)] == [1, 2, 3, 4, 5, 6]


def test_a_piece_that_cannot_even_be_cut_is_written_over() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    disk.write_size_max = 100
    calls = iter([0, errno.EIO])
    disk.fault = lambda number, name: next(calls, errno.EIO)
    write_batches(on, 2)
    with pytest.raises(JournalFailed):
        on.commit()
    assert not content(disk, FIRST).endswith(b"\n")
    assert journal(disk.after_crash()).torn is not None
    disk.fault = works
    on.commit()
    assert verify(HOME, disk=disk).whole
    assert [record.seq for record in all_records(disk)] == [1, 2, 3]


def test_a_disk_that_takes_nothing_and_says_nothing_is_a_fault() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    disk.write_size_max = 0
    write_batches(on, 1)
    with pytest.raises(JournalFailed, match="takes no more"):
        on.commit()


def test_beyond_the_buffer_records_are_given_up_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BUFFER_BYTES_MAX", 2000)
    disk = MemoryDisk()
    on = journal(disk)
    disk.fault = fails(errno.EIO, "write")
    for _ in range(20):
        write_batches(on, 1)
        with pytest.raises(JournalFailed):
            on.commit()
    kept = on.pending_records
    assert 2 < kept < 6
    assert on.pending_bytes <= 2000
    assert on.lost == 20 - kept
    assert on.put(Left, NOW, key=KEY) == 0
    assert not on.due(NOW)
    disk.fault = works
    on.commit()
    found = all_records(disk)
    assert found[-1] == Lost(seq=kept + 2, at=NOW, records=21 - kept)
    assert [record.seq for record in found] == list(range(1, kept + 3))
    assert on.due(NOW), "a new file with new snapshots makes up for them"
    on.rotate(NOW)
    assert (on.failing, on.lost, on.due(NOW)) == ("", 21 - kept, False)


def test_a_large_turn_on_a_good_disk_gives_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BUFFER_BYTES_MAX", 2000)
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 100)
    on.commit()
    assert (on.lost, len(all_records(disk))) == (0, 101)


# --- a full disk ---------------------------------------------------------------------------------


def test_a_full_disk_gets_the_reserve_and_everything_is_written_but_the_caller_is_told() -> None:
    disk = MemoryDisk(capacity=100_000)
    wanted = settings(reserve_mib=30_000 / (1 << 20))
    on = journal(disk, wanted)
    assert disk.free(HOME) < 70_000
    stuffing = Content(b"x" * disk.free(HOME))
    disk.files[Path("/elsewhere")] = stuffing
    write_batches(on, 3)
    with pytest.raises(JournalFailed, match="No space left on device"):
        on.commit()
    assert (on.pending_records, on.written_seq, on.lost) == (0, 4, 0)
    assert Path(HOME / "reserve") not in disk.files
    write_batches(on, 3)
    with pytest.raises(JournalFailed, match="reserve"):
        on.commit()
    assert on.written_seq == 7, "the reserve lets the halt be told"
    with pytest.raises(JournalFailed):
        on.commit()
    while True:  # until nothing is left of it
        write_batches(on, 5)
        with pytest.raises(JournalFailed):
            on.commit()
        if on.pending_records:
            break
    assert content(disk, FIRST).endswith(b"\n")
    del stuffing.cached[:]
    on.commit()
    assert (on.failing, on.pending_records) == ("", 0)
    assert disk.files[HOME / "reserve"].cached
    assert verify(HOME, disk=disk).last_seq == on.seq


def test_without_a_reserve_a_full_disk_keeps_it_in_the_buffer() -> None:
    disk = MemoryDisk(capacity=1000)
    on = journal(disk)
    write_batches(on, 3)
    with pytest.raises(JournalFailed, match="No space left"):
        on.commit()
    assert on.pending_records == 3
    assert content(disk, FIRST).count(b"\n") == 1
    disk.capacity = 10_000
    on.commit()
    assert (on.failing, on.pending_records) == ("", 0)


def test_a_start_without_room_for_the_reserve_writes_but_fails() -> None:
    disk = MemoryDisk(capacity=100_000)
    on = journal(disk, settings(reserve_mib=0.06))
    assert "no room for twice the reserve of 0.06 MiB" in on.failing
    write_batches(on, 1)
    with pytest.raises(JournalFailed, match="reserve"):
        on.commit()
    assert on.written_seq == 2
    on.settings = settings(reserve_mib=0.01)
    on.commit()
    assert on.failing == ""


def test_a_new_file_on_a_full_disk_gets_the_reserve() -> None:
    disk = MemoryDisk(capacity=100_000)
    on = journal(disk, settings(reserve_mib=0.03))
    disk.files[Path("/elsewhere")] = Content(b"x" * disk.free(HOME))
    on.rotate(NOW)
    assert (on.segment, "No space left" in on.failing) == (2, True)
    assert verify(HOME, disk=disk).whole


def test_a_real_full_file_system(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("only somebody who may mount can have a small file system")
    try:
        on = Journal(
            tmp_path / "journal",
            settings(reserve_mib=0.25),
            service="s",
            version="1",
            code="c",
            now_ns=NOW,
        )
        filler = tmp_path / "filler"
        filler.write_bytes(b"x" * 600_000)
        told = 0
        while not on.pending_records and told < 10_000:
            write_batches(on, 10)
            with contextlib.suppress(JournalFailed):
                on.commit()
            told += 1
        assert "No space left" in on.failing
        assert on.seq > 500
        filler.unlink()
        on.commit()
        assert on.failing == ""
        on.close()
        report = verify(tmp_path / "journal")
        assert (report.whole, report.last_seq) == (True, on.seq)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


# --- durability ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "each"), [("always", 3), ("interval", 0), ("never", 0)])
def test_commits_are_made_durable_as_the_policy_says(policy: str, each: int) -> None:
    disk = MemoryDisk()
    on = journal(disk, settings(FsyncPolicy(policy)))
    before = disk.syncs
    for _ in range(3):
        write_batches(on, 2)
        on.commit()
    on.commit()
    assert disk.syncs - before == each
    assert (on.synced_seq, on.written_seq) == (7 if each else 1, 7)
    on.sync()
    assert (on.synced_seq, disk.files[HOME / FIRST].durable) == (7, content(disk, FIRST))
    assert on.last_sync_ns > NOW
    done = disk.syncs
    on.sync()
    assert disk.syncs == done, "nothing new"


@pytest.mark.parametrize("policy", list(FsyncPolicy))
def test_after_a_sync_that_failed_the_same_bytes_are_written_again(policy: FsyncPolicy) -> None:
    """The system may have dropped them, and would say that the next sync is fine."""
    disk = MemoryDisk()
    on = journal(disk, settings(policy))
    disk.fault = fails(errno.EIO, "sync")
    write_batches(on, 3)
    if policy is FsyncPolicy.ALWAYS:
        with pytest.raises(JournalFailed, match="EIO"):
            on.commit()
    else:
        on.commit()
        with pytest.raises(JournalFailed, match="EIO"):
            on.sync()
        with pytest.raises(JournalFailed, match="EIO"):
            on.commit()
    assert (on.synced_seq, on.written_seq) == (1, 4)
    file = disk.files[HOME / FIRST]
    writes: list[str] = []

    def watch(number: int, name: str) -> int:
        writes.append(name)
        return 0

    disk.fault = watch
    if policy is FsyncPolicy.INTERVAL:
        on.sync()
    on.commit()
    assert writes == ["write", "sync"]
    assert (on.failing, on.synced_seq, file.durable) == ("", 4, bytes(file.cached))


def test_after_a_sync_that_failed_what_cannot_be_read_back_stays_a_fault() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 3)
    on.commit()
    disk.fault = fails(errno.EIO, "sync")
    with pytest.raises(JournalFailed):
        on.sync()
    disk.fault = works
    disk.files[HOME / FIRST].cached[-20:-10] = b"\0" * 10
    with pytest.raises(JournalFailed, match="after record 1 cannot be read back; restart"):
        on.sync()


def test_sync_in_a_thread_beside_commits_and_rotations(tmp_path: Path) -> None:
    on = Journal(
        tmp_path / "journal",
        settings(FsyncPolicy.INTERVAL),
        service="s",
        version="1",
        code="c",
        now_ns=NOW,
    )
    over = threading.Event()
    troubles: list[str] = []

    def keep_syncing() -> None:
        while not over.is_set():
            try:
                on.sync()
            except JournalFailed as failed:
                troubles.append(str(failed))

    thread = threading.Thread(target=keep_syncing)
    thread.start()
    try:
        for turn in range(300):
            write_batches(on, 5)
            on.commit()
            assert on.synced_seq <= on.written_seq
            if turn % 20 == 19:
                on.rotate(NOW)
    finally:
        over.set()
        thread.join()
    on.close()
    on.sync()
    assert troubles == []
    assert on.synced_seq == on.seq == 1 + 300 * 5 + 15
    assert verify(tmp_path / "journal").records == on.seq


# --- files ---------------------------------------------------------------------------------------


def test_a_new_file_is_due_by_size_and_by_time() -> None:
    disk = MemoryDisk()
    on = journal(disk, settings(segment_mib=0.002, segment_hours=2))
    assert not on.due(NOW + 2 * 3600 * SECOND - 1)
    assert on.due(NOW + 2 * 3600 * SECOND)
    write_batches(on, 5)
    assert not on.due(NOW)
    on.commit()
    assert on.due(NOW)
    on.rotate(NOW + 5)
    assert not on.due(NOW + 5)


def test_the_chain_goes_on_over_files() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    for _ in range(3):
        write_batches(on, 2)
        on.rotate(NOW)
    write_batches(on, 1)
    on.close()
    segments = [record for record in all_records(disk) if isinstance(record, Segment)]
    assert [(record.number, record.seq) for record in segments] == [(1, 1), (2, 4), (3, 7), (4, 10)]
    report = verify(HOME, disk=disk)
    assert (report.whole, report.segments, report.records, report.head) == (True, 4, 11, on.head)


@pytest.mark.parametrize("step", ["create", "write", "sync", "sync_directory"])
@pytest.mark.parametrize("gone", [True, False], ids=["removed", "left behind"])
def test_a_file_that_cannot_be_begun_leaves_the_old_one_going_on(step: str, gone: bool) -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 2)
    on.commit()
    on.sync()
    disk.fault = fails(errno.EIO, step) if gone else fails(errno.EIO, step, "unlink")
    with pytest.raises(JournalFailed, match="EIO"):
        on.rotate(NOW)
    assert (on.segment, on.seq, "EIO" in on.failing) == (1, 3, True)
    disk.fault = works
    write_batches(on, 2)
    on.commit()
    after = disk.after_crash()
    again = journal(after)
    write_batches(again, 1)
    again.close()
    assert verify(HOME, disk=after).whole
    assert [record.seq for record in all_records(after)][:5] == [1, 2, 3, 4, 5]
    assert not on.due(NOW)
    on.rotate(NOW + SECOND)
    assert (on.failing, on.segment) == ("", 2)
    assert verify(HOME, disk=disk).whole


def cut(disk: MemoryDisk) -> None:
    del disk.files[HOME / "journal-00000001.jsonl"].cached[40:]


def replace(disk: MemoryDisk) -> None:
    put_content(disk, "journal-00000001.jsonl", content(disk, "journal-00000001.jsonl"))


def remove(disk: MemoryDisk) -> None:
    del disk.files[HOME / "journal-00000001.jsonl"]


@pytest.mark.parametrize(
    ("harm", "why"),
    [(cut, "somebody has cut it"), (replace, "another file has this name now"), (remove, "No such file")],
)
@pytest.mark.parametrize("written", [False, True])
def test_a_file_that_somebody_takes_away_is_noticed_and_the_next_is_begun(
    harm: Callable[[MemoryDisk], None], why: str, written: bool
) -> None:
    """Also if more was written meanwhile, which makes a file that was cut as long as it should be."""
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 3)
    on.commit()
    on.look()
    harm(disk)
    if written:
        write_batches(on, 3)
        on.commit()
    with pytest.raises(JournalFailed, match=why):
        on.look()
    on.look()  # told once
    assert why in on.failing and on.due(NOW)
    before = on.seq
    on.rotate(NOW)
    assert not on.failing and not on.due(NOW) and on.segment == 2
    on.look()
    write_batches(on, 2)
    on.close()
    after = all_records(disk, before + 1)
    assert [record.seq for record in after] == [before + 1, before + 2, before + 3]


def test_a_cut_anywhere_is_noticed_whatever_was_written_before_and_behind_it() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 2)
    on.commit()
    seen = on.segment_bytes
    write_batches(on, 2)
    on.commit()
    for size in range(on.segment_bytes):
        disk = MemoryDisk()
        on = journal(disk)
        write_batches(on, 2)
        on.commit()
        on.look()
        assert on.segment_bytes == seen
        write_batches(on, 2)
        on.commit()
        del disk.files[on.path].cached[size:]
        write_batches(on, 1)
        on.commit()
        with pytest.raises(JournalFailed, match="somebody has cut it"):
            on.look()


def test_a_file_with_a_piece_that_could_not_be_written_is_not_taken_for_a_cut_one() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 3)
    disk.fault = lambda number, name: errno.EIO if name == "write" else 0
    with pytest.raises(JournalFailed, match="journal-00000001"):
        on.commit()
    on.look()
    disk.fault = lambda number, name: 0
    on.commit()
    on.look()
    assert not on.failing and not on.due(NOW)


def test_close_writes_and_syncs_what_is_left_and_may_be_called_twice() -> None:
    disk = MemoryDisk()
    on = journal(disk)
    write_batches(on, 2)
    on.close()
    on.close()
    assert disk.files[HOME / FIRST].durable.count(b"\n") == 3
    assert disk.handles == {}
    write_batches(on, 1)
    with pytest.raises(JournalFailed, match="bad handle"):
        on.commit()
