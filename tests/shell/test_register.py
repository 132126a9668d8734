"""The register of halts and losses at work: what is written when, and what happens when it cannot be."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from shell_kit import BTC, ETH, NS, Room
from trio.testing import MockClock

from mmd.domain import events as ev
from mmd.domain.actions import CancelOrder
from mmd.domain.reasons import Response, State, Switch, Why
from mmd.journal.halts import FILE, HaltFile
from mmd.journal.statefile import JournalFailed, StateFile
from mmd.shell.office import Office
from mmd.shell.register import LOSSES, PROBE_SECONDS, HaltRegister, LossKeeper, carried_losses
from mmd.shell.worker import Worker


def halt(room: Room, worker: Worker, why: Why = Why.DRAWDOWN, detail: str = "100 USD") -> None:
    room.pump.post(worker, ev.HaltRequested(0, why, "mmd", detail, room.now_ns))


def alerts(room: Room) -> list[str]:
    return [line.name for line in room.alerts.active()]


def state(worker: Worker) -> tuple[State, Why]:
    return worker.machine.state, worker.machine.why


# --- what is remembered -------------------------------------------------------------------------------


async def test_it_is_written_when_a_halt_came_or_went_and_only_then(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    file = HaltFile(tmp_path, "kit")
    HaltRegister(file, room.pump)
    written: list[list[str]] = []
    real = HaltFile.write

    def write(found: HaltFile, halts: Any) -> None:
        written.append(sorted(halts))
        real(found, halts)

    monkeypatch.setattr(HaltFile, "write", write)
    worker = room.quoting()
    await room.pump.deliver()
    room.pump.post(worker, ev.PauseRequested(0, "ann", "", room.now_ns))
    await room.pump.deliver()
    assert written == []
    halt(room, worker)
    await room.pump.deliver()
    assert written == [[worker.key]]
    for _ in range(3):
        room.pump.post(worker, ev.TimerFired(room.now_ns))
        await room.pump.deliver()
    assert written == [[worker.key]] and not room.pump.unwritten
    room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    await room.pump.deliver()
    assert written == [[worker.key], []]


async def test_two_restarts_later_it_reads_as_after_one(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    details = []
    for run in range(3):
        room = Room(nursery)
        register = HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
        worker = room.worker()
        if not run:
            halt(room, worker)
        register.restore([worker])
        await room.pump.deliver()
        assert state(worker) == (State.HALTED, Why.DRAWDOWN) and worker.machine.by == "mmd"
        details.append(worker.machine.detail)
    assert details == ["100 USD", "before a restart: 100 USD", "before a restart: 100 USD"]


async def test_who_leaves_halted_is_halted_when_it_comes_back(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    room = Room(nursery)
    register = HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
    worker = room.worker()
    room.connect(worker)
    halt(room, worker)
    await room.pump.deliver()
    room.pump.post(worker, ev.RemovalRequested(Why.REMOVED, room.now_ns))
    await room.pump.deliver()
    assert worker.machine.state is State.GONE
    assert set(HaltFile(tmp_path, "kit").read()) == set(register.halts) == {worker.key}


async def test_a_broken_worker_that_leaves_is_halted_when_it_comes_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    room = Room()
    HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
    worker = room.worker()
    halt(room, worker, Why.WORKER_FAULT, "a bug")
    await room.pump.deliver()
    worker.broken = True
    room.pump.post(worker, ev.RemovalRequested(Why.SHUTDOWN, room.now_ns))
    await room.pump.deliver()
    assert worker.gone.is_set() and set(HaltFile(tmp_path, "kit").read()) == {worker.key}


async def test_a_halt_that_comes_with_the_stop_is_remembered(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A loss is found while the daemon stops: both events wait in the mailbox and are handled as one batch."""
    room = Room()
    HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
    worker = room.quoting()
    room.pump.post(worker, ev.SwitchTripped(Switch.DRAWDOWN, Response.HALT, "100 USD", room.now_ns))
    room.pump.post(worker, ev.RemovalRequested(Why.SHUTDOWN, room.now_ns))
    await room.pump.deliver()
    assert worker.machine.state is State.DRAINING
    found = HaltFile(tmp_path, "kit").read()
    assert (found[worker.key].why, found[worker.key].detail) == (Why.DRAWDOWN, "100 USD")


# --- what cannot be written ---------------------------------------------------------------------------


async def test_a_halt_that_cannot_be_written_halts_everybody_in_the_same_turn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """And the cancels of all of them have left when it returns."""
    room = Room()
    register = HaltRegister(HaltFile(tmp_path / "nowhere", "kit"), room.pump)
    first, second = room.quoting(BTC), room.quoting(ETH)
    halt(room, first)
    room.exchange.dirty = False
    await room.pump.deliver()
    assert state(first) == (State.HALTED, Why.DRAWDOWN)
    assert state(second) == (State.HALTED, Why.JOURNAL_FAILURE)
    cancelled = [symbol for symbol, request in room.exchange.taken() if isinstance(request, CancelOrder)]
    assert cancelled == [BTC, BTC, ETH, ETH]
    assert not room.exchange.dirty and room.exchange.flushes == 2
    assert "nowhere" in register.failed and alerts(room) == ["MmdJournalFailure"]


async def test_a_failure_is_told_once_and_its_end_too(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    room = Room(nursery)
    register = HaltRegister(HaltFile(directory, "kit"), room.pump)
    worker = room.quoting()
    nursery.start_soon(register.run)
    await trio.sleep(PROBE_SECONDS * 20.5)
    assert room.pump.alarm.last[Switch.JOURNAL_FAILURE].trips == 1
    assert state(worker) == (State.HALTED, Why.JOURNAL_FAILURE) and worker.machine.held
    late = room.worker(ETH)  # who comes into service now hears of it
    register.restore([late])
    await room.pump.deliver()
    assert state(late) == (State.HALTED, Why.JOURNAL_FAILURE)
    directory.mkdir()
    await trio.sleep(PROBE_SECONDS * 1.5)
    assert register.failed == "" and not worker.machine.held and not late.machine.held
    assert set(HaltFile(directory, "kit").read()) == {worker.key, late.key}
    for each in (worker, late):
        room.pump.post(each, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    await room.pump.deliver()
    assert alerts(room) == [] and HaltFile(directory, "kit").read() == {}


async def test_a_failure_is_no_pause(autojump_clock: MockClock, tmp_path: Path) -> None:
    room = Room()
    HaltRegister(HaltFile(tmp_path / "nowhere", "kit"), room.pump)
    workers = [room.worker(BTC), room.worker(ETH)]
    halt(room, workers[0])
    await room.pump.deliver()
    room.pump.run()
    assert state(workers[1]) == (State.HALTED, Why.JOURNAL_FAILURE)
    for worker in workers:
        worker.proven = True  # the exchange lists nothing
    result = await Office(room.pump).reset(workers, "looked", "ann", 1.0)
    assert result.outcome == "done"
    held = await Office(room.pump).resume(workers, "", "ann", 1.0)
    assert all("kill_switches" in row.detail for row in held.symbols)


# --- losses -------------------------------------------------------------------------------------------


async def test_losses_are_written_every_few_seconds_when_they_changed(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(nursery)
    register = HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
    register.losses = LossKeeper(tmp_path, room.treasury.machine.carried)
    worker = room.quoting()
    nursery.start_soon(register.run)
    writes = 0
    real = StateFile.write

    def write(file: StateFile[Any], value: Any) -> None:
        nonlocal writes
        writes += file.path.name == LOSSES
        real(file, value)

    monkeypatch.setattr(StateFile, "write", write)
    await trio.sleep(5.2)
    first = carried_losses(tmp_path)
    assert (writes, first) == (1, room.treasury.machine.carried())
    await trio.sleep(20.0)
    assert writes == 1  # nothing has changed
    room.fill(worker, "t1", lots=1)
    room.pump.post(worker, room.ticker(shift=-4_000))
    room.pump.run()
    room.treasury.value_all()
    await trio.sleep(5.2)
    assert writes == 2
    again = carried_losses(tmp_path)
    assert again == room.treasury.machine.carried() and again != first


# --- the files ----------------------------------------------------------------------------------------


def test_a_file_is_whole_and_durable_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content first, then the name, then the directory: whenever the power fails, a reader finds one of the two."""
    file = StateFile(tmp_path / "x.json", list[int])
    file.write([1])
    seen: list[tuple[str, bytes, bytes]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        content = path.read_bytes() if path.is_file() else b""
        seen.append((path.name, content.strip(), (tmp_path / "x.json").read_bytes()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    old = (tmp_path / "x.json").read_bytes()
    file.write([1, 2])
    new = (tmp_path / "x.json").read_bytes()
    assert old != new and file.read() == [1, 2]
    assert seen == [("x.new", new.strip(), old), (tmp_path.name, b"", new)]


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_what_cannot_be_made_durable_is_a_failure_and_the_old_is_still_there(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(tmp_path / "x.json", list[int])
    file.write([1])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(JournalFailed, match="No space left on device"):
        file.write([1, 2])
    assert file.read() == [1]


@pytest.mark.parametrize(
    "content",
    [
        b'{"format":1,"service":"kit","halts":{"a":{"why":"drawdown","detail":"","by":"","since_ns":1,"x":1}}}',
        b'{"format":1,"service":"kit","halts":{},"more":1}',
        b'{"format":1,"service":"\xff","halts":{}}',
        b"[]",
        b"",
    ],
    ids=["a key of a halt", "a key", "no text", "another shape", "nothing"],
)
def test_what_we_did_not_write_is_not_believed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(JournalFailed, match="cannot be understood"):
        HaltFile(tmp_path, "kit").read()


def test_a_file_that_may_not_be_read_is_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(JournalFailed, match="Is a directory"):
        HaltFile(tmp_path, "kit").read()
    assert NS == 10**9
