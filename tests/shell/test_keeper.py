"""The keeper of the journal: what somebody takes away halts everybody, a stop waits for nothing, notes are counted."""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from shell_kit import BTC, ETH, START_NS, Room
from trio.testing import MockClock

from mmd.domain.reasons import State, Why
from mmd.domain.settings import JournalSettings
from mmd.journal.disk import OsDisk
from mmd.journal.halts import HaltFile
from mmd.journal.reader import records, verify
from mmd.journal.records import SnapshotsDone
from mmd.journal.writer import Journal
from mmd.replay.memory import CODE
from mmd.shell.keeper import BEHIND_REST, LOOK_SECONDS, REST, Keeper, Unhurried, inline
from mmd.shell.register import PROBE_SECONDS, HaltRegister

SETTINGS = JournalSettings(reserve_mib=0.0)


async def test_a_removed_file_halts_everybody_and_the_next_has_every_state(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    room = Room(nursery)
    state, home = tmp_path / "state", tmp_path / "state" / "journal"
    journal = Journal(home, SETTINGS, service="kit", version="1", code=CODE, now_ns=START_NS)
    room.pump.journal = journal
    register = HaltRegister(HaltFile(state, "kit"), room.pump)
    workers = [room.quoting(BTC), room.quoting(ETH)]
    nursery.start_soon(register.run)
    nursery.start_soon(Keeper(journal, SETTINGS, room.pump, inline).run, room.treasury.machine)
    await trio.sleep(1)
    assert {worker.machine.state for worker in workers} == {State.ACTIVE}
    journal.path.unlink()
    await trio.sleep(2 * LOOK_SECONDS)
    for worker in workers:
        assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.JOURNAL_FAILURE)
        assert "what was written into it is lost" in worker.machine.detail
    await trio.sleep(2 * PROBE_SECONDS)
    assert not register.failed and not journal.failing
    assert [path.name for path in home.iterdir()] == ["journal-00000002.jsonl"] and verify(home).whole
    assert any(isinstance(record, SnapshotsDone) for record in records(home))
    nursery.cancel_scope.cancel()


class SlowDisk(OsDisk):
    """Nothing is read in a thread before a stop was asked for; `begun` then, `read`: how often."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.read_after = 0
        self.stop: Callable[[], bool] = lambda: False

    def read(self, handle: int, offset: int, size: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            self.begun.set()
            assert self.go_on.wait(10)
            self.read_after += self.stop()
        return super().read(handle, offset, size)


async def test_a_stop_does_not_wait_for_files_to_be_compressed(nursery: trio.Nursery, tmp_path: Path) -> None:
    room, disk = Room(nursery), SlowDisk()
    journal = Journal(tmp_path, SETTINGS, service="kit", version="1", code=CODE, now_ns=START_NS, disk=disk)
    for _ in range(4):
        journal.rotate(START_NS)
    room.pump.journal = journal
    keeper = Keeper(journal, SETTINGS, room.pump, trio.to_thread.run_sync, disk)
    disk.stop = keeper.ending
    ended = trio.Event()

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            await keeper.run(room.treasury.machine)
        ended.set()

    scope = trio.CancelScope()
    nursery.start_soon(run, scope)
    assert await trio.to_thread.run_sync(disk.begun.wait, 10)
    scope.cancel()
    while not keeper.ending():
        await trio.lowlevel.checkpoint()
    disk.go_on.set()
    with trio.fail_after(10):
        await ended.wait()
    assert disk.read_after == 1, "the one that it was in"
    left = sorted(path.name for path in journal.directory.glob("*"))
    assert left == [f"journal-0000000{n}.jsonl" for n in range(1, 6)]
    journal.close()
    nursery.cancel_scope.cancel()


async def test_every_file_has_the_number_of_the_last_note(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    room = Room(nursery)
    journal = Journal(tmp_path, SETTINGS, service="kit", version="1", code=CODE, now_ns=START_NS)
    room.pump.journal = journal
    room.pump.diary.restore((), 41)
    room.pump.diary.note("test", "")
    nursery.start_soon(Keeper(journal, SETTINGS, room.pump, inline).run, room.treasury.machine)
    await trio.sleep(1)
    assert [record.note for record in records(tmp_path) if isinstance(record, SnapshotsDone)] == [42]
    nursery.cancel_scope.cancel()


class Rests(threading.Event):
    """Tells how long somebody would have rested, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked.append(timeout)
        return self.is_set()


def spend(seconds: float) -> None:
    """Processor time of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        hashlib.sha256(b"0" * 65536).digest()


@pytest.mark.parametrize(("behind", "times"), [(False, REST), (True, BEHIND_REST)])
def test_who_works_beside_a_machine_rests_much_longer_than_it_worked_unless_it_is_behind(
    behind: bool, times: float
) -> None:
    rests = Rests()
    unhurried = Unhurried(rests, lambda: behind)
    answers: list[bool] = []

    def work() -> None:
        for seconds in (0.0, 0.01, 0.02):
            spend(seconds)
            answers.append(unhurried())
        rests.set()
        answers.append(unhurried())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False, False, False, True]
    before, short, long, _ = rests.asked
    assert before == 0.0
    assert 0.01 * times <= short < 0.015 * times and 0.02 * times <= long < 0.03 * times


def test_who_works_inline_rests_for_nobody() -> None:
    rests = Rests()
    unhurried = Unhurried(rests, lambda: False)
    spend(0.001)
    assert not unhurried()
    rests.set()
    assert unhurried()
    assert rests.asked == []
