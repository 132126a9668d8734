"""Compression and retention: whatever interrupts them, no record is lost and the next call goes on."""

import errno
import gzip
from pathlib import Path

import pytest
from journal_kit import (
    HOME,
    NOW,
    SECOND,
    Crashed,
    MemoryDisk,
    all_records,
    content,
    journal,
    put_content,
    settings,
    write_batches,
    write_round,
)

from mmd.domain.settings import JournalSettings
from mmd.journal.keeping import GIB, tidy
from mmd.journal.listing import listing
from mmd.journal.reader import verify
from mmd.journal.writer import Journal

DAY = 86_400 * SECOND
COMPRESS = settings()
PLAIN = JournalSettings(compress=False, reserve_mib=0)


def three_files(rounds: bool = True) -> MemoryDisk:
    """Begun a day apart, the third is written; each begins with every state."""
    disk = MemoryDisk()
    on = journal(disk)
    for day in range(3):
        if day:
            on.rotate(NOW + day * DAY)
        if rounds:
            write_round(on)
        write_batches(on, 20)
    on.close()
    return disk


def names(disk: MemoryDisk) -> list[str]:
    return sorted(path.name for path in disk.files)


def test_closed_files_are_compressed_and_still_the_same_journal() -> None:
    disk = three_files()
    before, plain = all_records(disk), content(disk, "journal-00000001.jsonl")
    kept = tidy(HOME, 3, COMPRESS, NOW, disk=disk)
    assert names(disk) == ["journal-00000001.jsonl.gz", "journal-00000002.jsonl.gz", "journal-00000003.jsonl"]
    assert all_records(disk) == before
    assert gzip.decompress(content(disk, "journal-00000001.jsonl.gz")) == plain
    assert kept.failed == []
    assert kept.done == [f"journal-0000000{n}.jsonl compressed from 0.0 to 0.0 MiB" for n in (1, 2)]
    assert tidy(HOME, 3, COMPRESS, NOW, disk=disk).done == []
    on = journal(disk)
    write_batches(on, 1)
    on.close()
    assert verify(HOME, disk=disk).whole


def test_a_compressed_file_is_read_by_others(tmp_path: Path) -> None:
    on = Journal(tmp_path, settings(), service="s", version="1", code="c", now_ns=NOW)
    write_batches(on, 2000)
    on.rotate(NOW)
    plain = (tmp_path / "journal-00000001.jsonl").read_bytes()
    assert tidy(tmp_path, 2, COMPRESS, NOW).failed == []
    on.close()
    packed = tmp_path / "journal-00000001.jsonl.gz"
    with gzip.open(packed) as file:
        assert file.read() == plain
    assert packed.stat().st_mode & 0o777 == 0o600
    assert packed.stat().st_size < len(plain) / 5
    assert verify(tmp_path).compressed == 1


def test_the_file_that_is_written_is_never_touched() -> None:
    disk = three_files()
    assert tidy(HOME, 1, COMPRESS, NOW + 900 * DAY, disk=disk).done == []
    assert len(names(disk)) == 3


def test_compression_interrupted_at_any_step_loses_nothing_and_goes_on() -> None:
    before = all_records(three_files())
    for dies in range(1, 100):
        for power in (False, True):
            disk = three_files()
            disk.sync_directory(HOME)
            disk.crash_at, disk.tear = disk.changes + dies, 7
            try:
                tidy(HOME, 3, COMPRESS, NOW, disk=disk)
            except Crashed:
                pass
            else:
                assert dies > 15
                return
            after = disk.after_power_loss(lambda size: 0, lambda block: False) if power else disk.after_crash()
            assert all_records(after) == before, (dies, power)
            assert verify(HOME, disk=after).whole
            assert tidy(HOME, 3, COMPRESS, NOW, disk=after).failed == []
            assert names(after) == [
                "journal-00000001.jsonl.gz",
                "journal-00000002.jsonl.gz",
                "journal-00000003.jsonl",
            ], (dies, power)
            assert all_records(after) == before


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename", "unlink"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_compression_on_a_failing_disk_leaves_what_was_there(step: str, code: int) -> None:
    disk = three_files()
    before = all_records(disk)
    disk.fault = lambda number, name: code if name == step else 0
    kept = tidy(HOME, 3, COMPRESS, NOW, disk=disk)
    assert kept.done == []
    assert len(kept.failed) >= 1
    assert errno.errorcode[code] in kept.failed[0]
    assert disk.handles == {}
    disk.fault = lambda number, name: 0
    assert all_records(disk) == before
    assert tidy(HOME, 3, COMPRESS, NOW, disk=disk).failed == []
    assert all_records(disk) == before
    assert len(names(disk)) == 3


def test_what_does_not_read_back_replaces_nothing() -> None:
    """A disk that writes something else than it was given."""
    disk = three_files()
    write = disk.write

    def bent(handle: int, offset: int, piece: bytes) -> int:
        return write(handle, offset, piece if offset == 0 else piece[:-1] + bytes([piece[-1] ^ 1]))

    disk.write = bent  # type: ignore[method-assign]  # a fault for this one test
    kept = tidy(HOME, 3, COMPRESS, NOW, disk=disk)
    assert kept.failed == [
        f"journal-0000000{n}.jsonl is not compressed: it does not read back as what was written" for n in (1, 2)
    ]
    assert names(disk) == [f"journal-0000000{n}.jsonl" for n in (1, 2, 3)]


def test_a_compressed_file_beside_its_plain_one_is_used_only_if_it_is_the_same() -> None:
    disk = three_files()
    before, plain = all_records(disk), content(disk, "journal-00000001.jsonl")
    put_content(disk, "journal-00000001.jsonl.gz", gzip.compress(plain[:-5]))
    assert all_records(disk) == before, "the plain one counts"
    assert tidy(HOME, 3, COMPRESS, NOW, disk=disk).failed == []
    assert all_records(disk) == before
    assert gzip.decompress(content(disk, "journal-00000001.jsonl.gz")) == plain


@pytest.mark.parametrize("compress", [True, False])
def test_given_up_between_any_two_pieces_it_leaves_what_was_there_and_goes_on(compress: bool) -> None:
    before = all_records(three_files())
    wanted = JournalSettings(compress=compress, reserve_mib=0, keep_days=1.5)
    for asked in range(100):
        disk = three_files()
        questions = iter([False] * asked)
        kept = tidy(HOME, 3, wanted, NOW + 3 * DAY, disk=disk, stop=lambda left=questions: next(left, True))
        assert kept.failed == [] and disk.handles == {}
        assert not [name for name in names(disk) if name.endswith(".new")]
        assert before[-len(all_records(disk)) :] == all_records(disk)
        assert verify(HOME, disk=disk).whole
        over = next(questions, True) is False
        tidy(HOME, 3, wanted, NOW + 3 * DAY, disk=disk)
        last = f"journal-00000002.jsonl{'.gz' if compress else ''}"
        assert names(disk) == [last, "journal-00000003.jsonl"], asked
        if over:
            assert asked > (10 if compress else 3)
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("wanted", [COMPRESS, PLAIN], ids=["compressed", "plain"])
def test_what_an_interruption_has_left_is_removed_whatever_the_settings_are(wanted: JournalSettings) -> None:
    disk = three_files()
    for name in ("journal-00000001.jsonl.gz.new", "journal-00000003.torn-9.100.new"):
        put_content(disk, name, b"half")
    assert tidy(HOME, 3, wanted, NOW, disk=disk).failed == []
    assert not [name for name in names(disk) if name.endswith(".new")]


# --- retention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "left"),
    [
        pytest.param(NOW + 31 * DAY, [1, 2, 3], id="the first ended 30 days ago"),
        pytest.param(NOW + 31 * DAY + 1, [2, 3], id="a moment later"),
        pytest.param(NOW + 900 * DAY, [3], id="long ago"),
    ],
)
def test_files_are_deleted_when_their_last_record_is_too_old(now: int, left: list[int]) -> None:
    disk = three_files()
    kept = tidy(HOME, 3, PLAIN, now, disk=disk)
    assert names(disk) == [f"journal-0000000{n}.jsonl" for n in left]
    gone = [n for n in (1, 2, 3) if n not in left]
    assert kept.done == [f"journal-0000000{n}.jsonl deleted: older than 30 days" for n in gone]
    report = verify(HOME, disk=disk)
    assert report.whole
    assert bool(report.follows) == bool(gone)


@pytest.mark.parametrize(("files", "left"), [(3.1, 3), (2.5, 2), (1.5, 1), (0.1, 1)])
def test_files_are_deleted_when_all_are_too_large(files: float, left: int) -> None:
    disk = three_files()
    size = len(content(disk, "journal-00000002.jsonl"))
    kept = tidy(
        HOME, 3, JournalSettings(compress=False, reserve_mib=0, keep_gib=files * size / GIB), NOW + 3 * DAY, disk=disk
    )
    assert names(disk) == [f"journal-0000000{n}.jsonl" for n in (1, 2, 3)[3 - left :]]
    assert len(kept.done) == 3 - left
    assert verify(HOME, disk=disk).whole


def test_what_a_start_needs_is_kept() -> None:
    """Here only the second file has every state."""
    disk = MemoryDisk()
    on = journal(disk)
    write_round(on)
    write_batches(on, 5)
    on.rotate(NOW)
    write_round(on)
    write_batches(on, 5)
    on.rotate(NOW)
    write_batches(on, 5)
    on.close()
    small = JournalSettings(compress=False, reserve_mib=0, keep_gib=0)
    kept = tidy(HOME, 3, small, NOW + 900 * DAY, disk=disk)
    assert names(disk) == ["journal-00000002.jsonl", "journal-00000003.jsonl"]
    assert len(kept.done) == 1
    assert kept.failed == ["0.00 GiB are more than keep_gib: 0, but journal-00000002.jsonl is needed"]
    assert tidy(HOME, 3, PLAIN, NOW + 900 * DAY, disk=disk).failed == [], "old, but wanted"


@pytest.mark.parametrize("bad", [1, 2, 3])
@pytest.mark.parametrize(
    ("now", "left"),
    [
        pytest.param(0, [1, 2, 3, 4, 5], id="nothing is old"),
        pytest.param(31 * DAY + 1, [2, 3, 4, 5], id="the first ended 30 days ago"),
        pytest.param(32 * DAY + 1, [3, 4, 5], id="two"),
        pytest.param(900 * DAY, [5], id="all but what a start needs"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_goes_in_its_turn(bad: int, now: int, left: list[int]) -> None:
    """It keeps the one before it until it is known that that one is old, and no start begins with it."""
    disk = MemoryDisk()
    on = journal(disk)
    for day in range(5):
        if day:
            on.rotate(NOW + day * DAY)
        write_round(on)
        write_batches(on, 5)
    on.close()
    name = f"journal-0000000{bad}.jsonl.gz"
    assert tidy(HOME, 5, COMPRESS, NOW, disk=disk).failed == []
    put_content(disk, name, b"x" + content(disk, name)[1:])
    kept = tidy(HOME, 5, COMPRESS, NOW + now, disk=disk)
    if bad == left[0] > 1:
        left = [bad - 1, *left]  # when it ended only the unreadable file could tell: a day later
    assert kept.failed == [f"{name} cannot be read: look with `mmd verify`"]
    assert [int(path[8:16]) for path in names(disk)] == left
    tidy(HOME, 5, COMPRESS, NOW + 900 * DAY, disk=disk)
    assert names(disk) == ["journal-00000005.jsonl"] and tidy(HOME, 5, COMPRESS, NOW, disk=disk).failed == []


def test_pieces_that_were_cut_off_go_with_their_file() -> None:
    disk = three_files()
    for name in ("journal-00000001.torn-22.100", "journal-00000001.torn-23.100", "journal-00000002.torn-44.100"):
        put_content(disk, name, b"x" * 1000)
    assert listing(HOME, PLAIN, disk)[0].size > 2000
    tidy(HOME, 3, PLAIN, NOW + 31 * DAY + 1, disk=disk)
    assert names(disk) == ["journal-00000002.jsonl", "journal-00000002.torn-44.100", "journal-00000003.jsonl"]


def test_without_any_state_nothing_is_deleted() -> None:
    disk = three_files(rounds=False)
    assert tidy(HOME, 3, PLAIN, NOW + 900 * DAY, disk=disk).done == []
    assert len(names(disk)) == 3


def test_retention_interrupted_at_any_step_leaves_no_gap() -> None:
    for dies in range(1, 10):
        disk = three_files()
        disk.crash_at = disk.changes + dies
        try:
            tidy(HOME, 3, PLAIN, NOW + 900 * DAY, disk=disk)
        except Crashed:
            pass
        else:
            assert dies > 4
            return
        assert verify(HOME, disk=disk.after_crash()).whole, dies


def test_a_directory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    assert tidy(tmp_path / "journal", 3, COMPRESS, NOW).failed == [f"{tmp_path}/journal: Not a directory"]


def six_files() -> MemoryDisk:
    """Each with every state; the last is the one that is written."""
    disk = MemoryDisk()
    on = journal(disk)
    for number in range(6):
        if number:
            on.rotate(NOW)
        write_round(on)
        write_batches(on, 50)
    on.close()
    return disk


def test_what_is_too_much_is_deleted_before_everything_is_compressed() -> None:
    """Or the disk would fill while files are closed faster than they are compressed."""
    disk = six_files()
    size = len(content(disk, "journal-00000002.jsonl"))
    wanted = JournalSettings(compress=True, reserve_mib=0, keep_gib=4.5 * size / GIB)

    def third_begun() -> bool:
        return "journal-00000003.jsonl.gz.new" in names(disk)

    kept = tidy(HOME, 6, wanted, NOW, disk=disk, stop=third_begun)
    assert [line.partition(":")[0] for line in kept.done if "compressed" not in line] == [
        "journal-00000001.jsonl.gz deleted",
        "journal-00000002.jsonl deleted",
    ]
    assert names(disk)[0] == "journal-00000003.jsonl", "given up in the middle of it"
    kept = tidy(HOME, 6, wanted, NOW, disk=disk)
    assert kept.failed == [] and verify(HOME, disk=disk).whole
    assert names(disk)[0] == "journal-00000003.jsonl.gz"
