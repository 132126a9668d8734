"""Halts that are proven and remembered; exchanges that are looked at; a machine that does not come back."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, LIMITS, NS, Room, instrument
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.core.watch import ExchangeWatch
from mmd.core.window import PriceRange, Window
from mmd.domain import events as ev
from mmd.domain.actions import CancelOrder, Decision, QueryState
from mmd.domain.events import Mail
from mmd.domain.reasons import Fault, Side, State, Switch, Why
from mmd.domain.settings import KillSwitches, ScopeLimits
from mmd.journal.halts import Halt, HaltFile
from mmd.journal.statefile import JournalFailed
from mmd.shell.desk import Outcome
from mmd.shell.office import Office
from mmd.shell.register import HaltRegister, LossKeeper, carried_losses
from mmd.shell.sentinel import sentinel
from mmd.shell.totals import Treasury
from mmd.shell.views import shown_state


def alerts_of(room: Room) -> list[str]:
    return [line.name for line in room.alerts.active()]


# --- proof --------------------------------------------------------------------------------------------


async def test_a_halt_waits_for_the_exchanges_own_word(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    room.exchange.silent = True
    result = await Office(room.pump).halt([worker], "stop", "ann", 3.0)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.symbols[0].detail == "the exchange did not confirm that nothing of ours rests"
    assert shown_state(worker) == "HALTING (unproven)"
    room.exchange.silent = False
    with trio.fail_after(10.0):
        while not worker.proven:
            await room.pump.wait_turn()
    assert shown_state(worker) == State.HALTED
    assert (await Office(room.pump).halt([worker], "again", "ann", 0.1)).outcome is Outcome.DONE


async def test_what_rests_after_all_is_found_and_pulled(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    left = ev.OpenOrder("mmd-kit-BTC-PERPETUAL-b-old-1", "id", Side.BID, 159_000, 1, 1)
    room.exchange.resting = {BTC: [left]}
    room.exchange.taken()
    assert (await Office(room.pump).halt([worker], "stop", "ann", 1.0)).outcome is Outcome.TIMED_OUT
    assert (BTC, QueryState()) in room.exchange.taken()
    assert not worker.proven


async def test_an_unproven_halt_says_so_loudly(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    room.exchange.silent = True
    await Office(room.pump).halt([worker], "stop", "ann", 1.0)
    assert alerts_of(room) == []
    await trio.sleep(worker.machine.rules.unknown_timeout_ns / NS + 1.0)
    assert alerts_of(room) == ["MmdOrdersLeft"]
    asked = room.exchange.asked
    room.exchange.silent = False
    await trio.sleep(3.0)
    assert worker.proven and alerts_of(room) == [] and room.exchange.asked > asked


async def test_a_cancel_that_is_refused_too_often_says_so_sooner(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    room = Room(nursery)
    worker = room.quoting()
    rules = worker.machine.rules
    room.exchange.taken()
    room.pump.post(worker, ev.HaltRequested(0, Why.OPERATOR, "ann", "", room.now_ns))
    refused = 0
    while not alerts_of(room):
        await room.pump.deliver()
        for _, request in room.exchange.taken():
            if isinstance(request, CancelOrder):
                refused += 1
                refusal = ev.OrderRefused(request.label, Fault.RATE_LIMIT, "10028", "too_many", False, room.now_ns)
                room.pump.post(worker, refusal)
        await room.pump.deliver()
        await trio.sleep(0.1)
        room.pump.post(worker, ev.TimerFired(room.now_ns))
    assert alerts_of(room) == ["MmdOrdersLeft"]
    assert room.now_ns - worker.machine.since_ns < rules.unknown_timeout_ns
    assert refused >= rules.max_cancel_tries


async def test_no_reset_while_orders_may_rest(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    office = Office(room.pump)
    workers = [room.worker(BTC), room.worker(ETH)]
    for worker in workers:
        room.connect(worker)
    assert (await office.halt(workers[1:], "stop", "ann", 2.0)).outcome is Outcome.DONE
    room.exchange.silent = True
    await office.halt(workers[:1], "stop", "ann", 1.0)
    await trio.sleep(workers[0].machine.rules.unknown_timeout_ns / NS + 1.0)
    result = await office.reset(workers, "looked", "ann", 2.0)
    assert [row.outcome for row in result.symbols] == [Outcome.REFUSED, Outcome.DONE]
    assert result.symbols[0].detail.startswith("is not reset before its halt is proven: ")
    assert [worker.machine.state for worker in workers] == [State.HALTED, State.PAUSED]
    assert alerts_of(room) == ["MmdOrdersLeft"]  # it goes on looking, and saying so
    room.exchange.silent = False
    assert (await office.reset(workers[:1], "looked", "ann", 10.0)).outcome is Outcome.DONE
    assert alerts_of(room) == []


async def test_one_question_proves_all_symbols(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    workers = [room.worker(BTC), room.worker(ETH)]
    for worker in workers:
        room.connect(worker)
    assert (await Office(room.pump).halt(workers, "stop", "ann", 2.0)).outcome is Outcome.DONE
    assert room.exchange.asked == 1


# --- the register -------------------------------------------------------------------------------------


def test_the_register_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = HaltFile(tmp_path, "kit")
    assert file.read() == {}
    halts = {"deribit/BTC-PERPETUAL": Halt(Why.DRAWDOWN, "100.00 USD", "mmd", 17)}
    file.write(halts)
    assert file.read() == halts
    assert (tmp_path / "halts.json").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["halts.json"]
    file.probe()
    assert [entry.name for entry in tmp_path.iterdir()] == ["halts.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be understood"),
        (b'{"format":2,"service":"kit","halts":{}}', "format 2, this version reads 1"),
        (b'{"format":1,"service":"kit","halts":{"a":{"why":"gone fishing"}}}', "gone fishing"),
        (b"\xff\xfe", "cannot be understood"),
    ],
)
def test_a_register_that_cannot_be_read_is_no_reason_to_start(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "halts.json").write_bytes(content)
    with pytest.raises(JournalFailed, match=words):
        HaltFile(tmp_path, "kit").read()


async def test_a_halt_survives_a_restart_and_a_reset_ends_it(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    first = Room(nursery)
    HaltRegister(HaltFile(tmp_path, "kit"), first.pump)
    worker = first.worker()
    first.connect(worker)
    first.pump.post(worker, ev.HaltRequested(0, Why.DRAWDOWN, "mmd", "100 USD", first.now_ns))
    await first.pump.deliver()
    assert HaltFile(tmp_path, "kit").read()[worker.key].why is Why.DRAWDOWN

    second = Room(nursery)
    register = HaltRegister(HaltFile(tmp_path, "kit"), second.pump)
    again, other = second.worker(BTC), second.worker(ETH)
    register.restore([again, other])
    await second.pump.deliver()
    assert (again.machine.state, again.machine.why) == (State.HALTED, Why.DRAWDOWN)
    assert again.machine.detail == "before a restart: 100 USD"
    assert alerts_of(second) == ["MmdHaltRestored"]
    assert other.machine.state is State.PAUSED
    assert (await Office(second.pump).reset([again], "looked", "ann", 1.0)).outcome is Outcome.DONE
    await second.pump.deliver()
    assert HaltFile(tmp_path, "kit").read() == {} and alerts_of(second) == []


async def test_a_state_directory_that_cannot_be_written_halts_everything(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    room = Room(nursery)
    register = HaltRegister(HaltFile(state, "kit"), room.pump)
    nursery.start_soon(register.run)
    workers = [room.worker(BTC), room.worker(ETH)]
    await trio.sleep(2.0)
    assert [worker.machine.state for worker in workers] == [State.PAUSED, State.PAUSED]
    state.rmdir()
    await trio.sleep(1.0)
    assert {(worker.machine.state, worker.machine.why) for worker in workers} == {(State.HALTED, Why.JOURNAL_FAILURE)}
    assert alerts_of(room) == ["MmdJournalFailure"]
    state.mkdir()
    await trio.sleep(1.0)
    assert register.failed == ""
    assert set(HaltFile(state, "kit").read()) == {worker.key for worker in workers}  # what could not be written then


async def test_it_is_over_when_the_register_can_be_written_not_when_the_directory_can(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    room = Room(nursery)
    register = HaltRegister(HaltFile(tmp_path, "kit"), room.pump)
    nursery.start_soon(register.run)
    worker = room.worker()
    room.connect(worker)
    (tmp_path / "halts.new").mkdir()  # a probe gets through, the register does not
    await Office(room.pump).halt([worker], "stop", "ann", 1.0)
    await trio.sleep(5.0)
    assert register.failed and alerts_of(room) == ["MmdJournalFailure"]
    assert room.pump.alarm.last[Switch.JOURNAL_FAILURE].trips == 1  # said once, not twice a second
    (tmp_path / "halts.new").rmdir()
    await trio.sleep(1.0)
    assert not register.failed and alerts_of(room) == []
    assert set(HaltFile(tmp_path, "kit").read()) == {worker.key}


# --- the exchange as a whole --------------------------------------------------------------------------


async def test_a_skewed_clock_pauses_holds_and_lets_go(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.quoting()
    nursery.start_soon(room.lookout.run)
    room.exchange.clock_skew_ms = 1500.0
    await trio.sleep(0.5)
    assert (worker.machine.state, worker.machine.why) == (State.PAUSED, Why.CLOCK_SKEW)
    assert alerts_of(room) == ["MmdClockSkew"]
    refused = await Office(room.pump).resume([worker], "", "ann", 0.1)
    assert "kill_switches" in refused.symbols[0].detail
    late = room.worker(ETH)
    room.lookout.brief([late])
    await room.pump.deliver()
    assert late.machine.held  # it came while the clock was wrong
    room.exchange.clock_skew_ms = 600.0  # within the limit, but not calm yet
    await trio.sleep(0.5)
    assert worker.machine.held
    room.exchange.clock_skew_ms = -20.0
    await trio.sleep(0.5)
    assert not worker.machine.held and not late.machine.held and alerts_of(room) == []


async def test_an_event_bus_that_is_behind_or_cannot_say(autojump_clock: MockClock) -> None:
    for lag in (6.0, float("inf"), float("nan")):
        room = Room()
        worker = room.quoting()
        room.exchange.event_lag_seconds = lag
        room.lookout.look()
        room.pump.run()
        assert (worker.machine.state, worker.machine.why) == (State.PAUSED, Why.EVENT_LAG), lag


async def test_a_connection_that_breaks_again_and_again_halts(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    for _ in range(6):
        assert worker.machine.why is not Why.DISCONNECT_STORM
        room.sink.post_all(ev.DataLinkDown("reset", room.now_ns))
        room.sink.post_all(ev.TradeLinkDown("reset", room.now_ns))  # the same accident
        room.pump.run()
        await trio.sleep(20.0)
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DISCONNECT_STORM)
    assert alerts_of(room)[-1] == "MmdDisconnectStorm"
    room.lookout.reset("deribit")
    assert room.lookout.watches["deribit"].active == {}


def test_a_watch_reports_a_cause_once_when_it_comes_and_once_when_it_goes() -> None:
    watch = ExchangeWatch(KillSwitches(max_skew_ms=100.0, max_disconnects=1, disconnect_window_seconds=10.0))
    assert [f.switch for f in watch.look(0, 101.0, None)] == [Switch.CLOCK_SKEW]
    assert watch.look(1, 150.0, None) == [] and watch.look(2, 99.0, None) == []
    assert [(f.switch, f.over) for f in watch.look(3, 50.0, None)] == [(Switch.CLOCK_SKEW, True)]
    assert watch.disconnected(1 * NS) == []
    assert [f.switch for f in watch.disconnected(3 * NS)] == [Switch.DISCONNECT_STORM]
    assert watch.look(4 * NS, 0.0, None) == []
    assert [(f.switch, f.over) for f in watch.look(12 * NS, 0.0, None)] == [(Switch.DISCONNECT_STORM, True)]
    assert [f.switch for f in watch.look(13 * NS, float("nan"), None)] == [Switch.CLOCK_SKEW]


def test_a_window_forgets() -> None:
    window = Window(10)
    for at_ns in (0, 4, 9):
        window.add(at_ns, 5)
    assert (window.count(10), window.amount) == (3, 15)
    assert (window.count(15), window.amount) == (1, 5)


def test_a_range_of_prices_forgets_by_eighths() -> None:
    seen = PriceRange(80)
    for at_ns, price in ((0, 100.0), (10, 90.0), (11, 120.0), (50, 101.0)):
        seen.add(price, at_ns)
    assert (seen.low, seen.high) == (90.0, 120.0)
    seen.add(102.0, 95)
    assert (seen.low, seen.high) == (90.0, 120.0)
    seen.add(103.0, 100)
    assert (seen.low, seen.high) == (101.0, 103.0)


# --- totals of open orders ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_open_orders": 2}, "max_open_orders"),
        (
            {"per_exchange": {"deribit": ScopeLimits(max_open_orders=2)}},
            "limits.portfolio.per_exchange.deribit.max_open_orders",
        ),
        ({"per_underlying": {"BTC": ScopeLimits(max_open_orders=1)}}, ""),
    ],
)
async def test_the_fullest_total_of_open_orders_counts(
    autojump_clock: MockClock, limits: dict[str, object], key: str
) -> None:
    room = Room(limits=msgspec.structs.replace(LIMITS, **limits))
    first, second = room.worker(BTC), room.worker(ETH)
    for worker in (first, second):
        room.connect(worker)
        room.resume(worker)
    room.pump.run()
    resting = (first.machine.own.resting, second.machine.own.resting)
    assert resting == ((2, 0) if key else (0, 2))  # both sides were asked for together: neither is let through
    refusal = second.machine.refusal if key else first.machine.refusal
    assert refusal is not None and refusal.rule == "open_orders"
    assert refusal.key == (key or "limits.portfolio.per_underlying.BTC.max_open_orders")


@pytest.mark.parametrize(
    ("limits", "both_places"),
    [
        ({"max_open_orders": 6}, True),
        ({"max_open_orders": 5}, False),
        ({"per_underlying": {"BTC": ScopeLimits(max_open_orders=4)}}, True),
        ({"per_underlying": {"BTC": ScopeLimits(max_open_orders=3)}}, False),
        ({"per_underlying": {"ETH": ScopeLimits(max_open_orders=2)}}, True),
        ({"per_exchange": {"deribit": ScopeLimits(max_open_orders=4)}}, True),
    ],
)
async def test_orders_that_may_be_out_at_an_exchange_that_is_awaited_count(
    autojump_clock: MockClock, limits: dict[str, object], both_places: bool
) -> None:
    room = Room(limits=msgspec.structs.replace(LIMITS, **limits))
    room.pump.outbox.elsewhere["other"] = ["BTC", "BTC"]
    workers = [room.worker(BTC), room.worker(ETH)]
    for worker in workers:
        room.connect(worker)
        room.resume(worker)
    room.pump.run()
    assert all(worker.machine.own.resting == 2 for worker in workers) is both_places


# --- the sentinel -------------------------------------------------------------------------------------


async def test_a_machine_in_an_endless_loop_is_called_off_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room()
    stuck, well = room.quoting(BTC), room.quoting(ETH)

    def loop(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        while True:
            pass

    handle = stuck.machine.handle
    monkeypatch.setattr(stuck.machine, "handle", loop)
    before = signal.getsignal(signal.SIGUSR2)
    started = time.monotonic()
    with sentinel(room.pump, patience_seconds=0.1):
        room.pump.post(stuck, ev.TimerFired(room.now_ns))
        room.pump.post(well, ev.TimerFired(room.now_ns))
        room.pump.run()
    assert time.monotonic() - started < 5.0
    assert signal.getsignal(signal.SIGUSR2) is before
    assert stuck.broken and stuck.machine.state is State.HALTED and stuck.machine.why is Why.WORKER_FAULT
    assert well.machine.state is State.ACTIVE
    assert "no decision within 0.1 s" in (stuck.fault or "")
    cancelled = [request.label for symbol, request in room.exchange.taken() if type(request).__name__ == "CancelOrder"]
    assert len(cancelled) == 2  # its orders are pulled without it
    monkeypatch.setattr(stuck.machine, "handle", handle)


async def test_a_signal_while_no_machine_runs_does_nothing() -> None:
    room = Room()
    with sentinel(room.pump, patience_seconds=0.1):
        os.kill(os.getpid(), signal.SIGUSR2)
        await trio.lowlevel.checkpoint()


async def test_the_book_of_the_kit(autojump_clock: MockClock) -> None:
    """The room's instruments are what these tests think they are."""
    await wait_all_tasks_blocked()
    assert instrument(BTC).lot == 10


async def test_the_days_loss_is_carried_over_a_restart(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    first = Room(nursery)
    worker = first.quoting()
    first.fill(worker, "t1", lots=5)
    first.pump.run()
    first.pump.post(worker, first.ticker(shift=-4_000))
    first.pump.run()
    first.treasury.value_all()
    lost = first.treasury.totals()
    assert lost.day_pnl_usd is not None and lost.day_pnl_usd < -1.0
    LossKeeper(tmp_path, first.treasury.machine.carried).write()

    carried = carried_losses(tmp_path)
    second = Treasury(LIMITS, KillSwitches(), Room(nursery).pump, carried)
    again = second.totals()
    assert (again.day_pnl_usd, again.drawdown_usd) == (lost.day_pnl_usd, lost.drawdown_usd)
    assert carried_losses(None) is None and carried_losses(tmp_path / "nowhere") is None
