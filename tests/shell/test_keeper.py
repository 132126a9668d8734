"""The keeper of the journal: what somebody takes away under it halts everybody, and the next file is begun."""

from pathlib import Path

import trio
from shell_kit import BTC, ETH, START_NS, Room
from trio.testing import MockClock

from mmd.domain.reasons import State, Why
from mmd.domain.settings import JournalSettings
from mmd.journal.halts import HaltFile
from mmd.journal.reader import records, verify
from mmd.journal.records import SnapshotsDone
from mmd.journal.writer import Journal
from mmd.replay.memory import CODE
from mmd.shell.keeper import LOOK_SECONDS, Keeper, inline
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
