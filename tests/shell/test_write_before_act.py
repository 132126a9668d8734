"""What was decided is in the journal before any of it is handed to an exchange; what cannot be written stays here."""

import errno
from pathlib import Path

from shell_kit import BTC, START_NS, Room

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, Request
from mmd.domain.events import ResetRequested
from mmd.domain.reasons import Rule, State, Why
from mmd.domain.settings import JournalSettings
from mmd.journal.disk import OsDisk
from mmd.journal.writer import Journal
from mmd.replay.memory import CODE


class FullDisk(OsDisk):
    """Takes nothing more while it is full."""

    full = False

    def write(self, handle: int, offset: int, content: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(handle, offset, content)


class Written:
    """A room whose pump keeps a journal; `order` is what happened to it and to the exchange, in turn."""

    def __init__(self, folder: Path) -> None:
        self.disk = FullDisk()
        self.room = Room()
        self.journal = Journal(
            folder,
            JournalSettings(reserve_mib=0),
            service="kit",
            version="0",
            code=CODE,
            now_ns=START_NS,
            disk=self.disk,
        )
        self.room.pump.journal = self.journal
        self.left: list[tuple[int, Request]] = []  # records in the file when a request left, and the request
        exchange = self.room.exchange
        submit = exchange.submit

        def watched(requests: list[tuple[str, Request]]) -> None:
            self.left += [(self.journal.written_seq, request) for _, request in requests]
            submit(requests)

        exchange.submit = watched  # type: ignore[method-assign]  # the one thing that is looked at

    def kinds(self) -> set[type]:
        return {type(request) for _, request in self.left}


async def test_an_order_leaves_after_its_record(tmp_path: Path) -> None:
    written = Written(tmp_path / "journal")
    room = written.room
    worker = room.worker()
    room.connect(worker)
    before = written.journal.written_seq
    room.resume(worker)
    places = [seq for seq, request in written.left if isinstance(request, PlaceOrder)]
    assert len(places) == 2 and min(places) > before
    assert written.journal.pending_records == 0
    text = written.journal.path.read_text()
    assert all(request.label in text for _, request in written.left if isinstance(request, PlaceOrder))


async def test_what_cannot_be_written_does_not_leave_but_cancels_do(tmp_path: Path) -> None:
    written = Written(tmp_path / "journal")
    room = written.room
    worker = room.quoting()
    written.left.clear()
    written.disk.full = True
    room.pump.post(worker, room.book(shift=5))
    room.pump.post(worker, room.ticker(shift=5))
    room.pump.run()
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.JOURNAL_FAILURE)
    assert written.kinds() == {CancelOrder} and len(written.left) == 2
    assert not any(isinstance(request, AmendOrder) for _, request in written.left)
    assert worker.counters.refused[Rule.JOURNAL] >= 1 or worker.counters.refused[Rule.STATE] >= 1
    assert room.register.failed and written.journal.pending_records > 0


async def test_nothing_is_placed_while_it_fails_and_everything_is_written_after(tmp_path: Path) -> None:
    written = Written(tmp_path / "journal")
    room = written.room
    worker = room.quoting()
    written.disk.full = True
    room.pump.post(worker, room.book(shift=1))
    room.pump.run()
    assert worker.machine.state is State.HALTED
    room.pump.post(worker, ResetRequested(0, "test", "", room.now_ns))
    room.pump.run()
    written.left.clear()
    room.resume(worker)
    assert worker.machine.state is State.PAUSED, "the cause lasts"
    assert not written.left
    waiting, written.disk.full = written.journal.pending_records, False
    room.pump.run()
    assert waiting > 0 and written.journal.pending_records == 0 and not written.journal.failing
    assert not room.pump.outbox.closed
    assert BTC in written.journal.path.read_text()


async def test_the_alarm_of_a_failing_journal_is_told_once(tmp_path: Path) -> None:
    written = Written(tmp_path / "journal")
    room = written.room
    worker = room.quoting()
    written.disk.full = True
    for shift in range(3):
        room.pump.post(worker, room.book(shift=shift + 1))
        room.pump.run()
    names = [line.name for line in room.diary.since(0, 1000)]
    assert names.count("switch.tripped") == 1
