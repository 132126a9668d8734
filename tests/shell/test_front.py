"""The counter over the rooms: what a reset resets, what one symbol means, and what counts as stuck."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, LIMITS, NS, Room, all_came
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.domain import events as ev
from mmd.domain.errors import MmdError
from mmd.domain.reasons import Mode, State, Switch, Why
from mmd.domain.settings import KillSwitches
from mmd.domain.totals import CarriedLosses
from mmd.exchanges.api import ProtectionStatus
from mmd.shell.desk import Caller, ChangeResult, Outcome
from mmd.shell.front import Front
from mmd.shell.office import Office
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker

ANN = Caller(uid=1000, pid=1, name="ann")


def front(room: Room) -> Front:
    """The counter over a room's parts, as if the daemon had started."""
    made = Front()
    made.clock, made.diary, made.counters = room.clock, room.diary, room.counters
    made.pump, made.treasury, made.lookout, made.register = room.pump, room.treasury, room.lookout, room.register
    made.alarms, made.office, made.phase = room.alerts, Office(room.pump), "running"
    made.sinks = {"deribit": room.sink}
    made.arrivals = all_came(room.alerts, "deribit")
    nothing = SimpleNamespace(resolution=SimpleNamespace(awaited=()))
    made._reloader = SimpleNamespace(current=nothing)  # type: ignore[assignment]  # it is asked nothing else
    made._stop_requested = trio.Event()
    made.wired = {"deribit": SimpleNamespace(network="test")}  # type: ignore[dict-item]  # only its name is shown
    return made


def alerts(room: Room) -> list[tuple[str, str | None, str | None]]:
    return [(line.name, line.exchange, line.symbol) for line in room.alerts.active()]


async def stormy(room: Room, *symbols: str) -> list[Worker]:
    workers = [room.worker(symbol) for symbol in symbols]
    for worker in workers:
        room.connect(worker)
    for _ in range(6):
        room.lookout.disconnected("deribit")
        room.pump.run()
        await trio.sleep(2.0)
    assert {worker.machine.why for worker in workers} == {Why.DISCONNECT_STORM}
    return workers


# --- reset --------------------------------------------------------------------------------------------


async def test_a_reset_counts_broken_links_from_here_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    (worker,) = await stormy(room, BTC)
    assert (await front(room).reset(["all"], "looked", ANN, 5.0)).outcome is Outcome.DONE
    assert alerts(room) == [] and room.lookout.watches["deribit"].active == {}
    room.lookout.look()
    room.lookout.disconnected("deribit")
    room.pump.run()
    assert worker.machine.state is State.PAUSED  # one more link is one, not seven


async def test_a_storm_is_over_when_nobody_is_halted_for_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    await stormy(room, BTC, ETH)
    counter = front(room)
    storm_alert = [("MmdDisconnectStorm", "deribit", None)]
    await counter.reset([BTC], "looked", ANN, 5.0)
    assert alerts(room) == storm_alert
    await counter.reset([ETH], "looked", ANN, 5.0)
    assert alerts(room) == []


async def test_a_refused_reset_resets_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    room.exchange.silent = True
    (worker,) = await stormy(room, BTC)
    result = await front(room).reset(["all"], "looked", ANN, 2.0)
    assert result.outcome is Outcome.REFUSED and "before its halt is proven" in result.symbols[0].detail
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DISCONNECT_STORM)
    assert room.lookout.watches["deribit"].active.keys() == {Switch.DISCONNECT_STORM}
    assert ("MmdDisconnectStorm", "deribit", None) in alerts(room)


async def test_a_reset_that_waited_is_not_for_who_has_the_name_now(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    room = Room(nursery)
    room.exchange.silent = True
    (worker,) = await stormy(room, BTC)
    told: list[ChangeResult] = []

    async def reset() -> None:
        told.append(await front(room).reset([BTC], "looked", ANN, 20.0))

    nursery.start_soon(reset)
    await wait_all_tasks_blocked()
    assert not told
    room.pump.post(worker, ev.RemovalRequested(Why.REMOVED, room.now_ns))
    room.pump.run()
    assert worker.machine.state is State.GONE
    room.pump.drop(worker)
    newcomer = room.worker(BTC)
    room.pump.turned.unpark_all()
    await wait_all_tasks_blocked()
    assert told[0].outcome is Outcome.REFUSED and "has left" in told[0].symbols[0].detail
    assert worker.depth == 0 and newcomer.machine.state is State.PAUSED


async def test_a_reset_of_another_halt_leaves_the_storm_alone(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    other = room.worker(ETH)
    room.pump.post(other, ev.HaltRequested(0, Why.OPERATOR, "ann", "", room.now_ns))
    room.pump.run()
    await stormy(room, BTC)
    assert (await front(room).reset([ETH], "looked", ANN, 5.0)).outcome is Outcome.DONE
    assert room.lookout.watches["deribit"].active.keys() == {Switch.DISCONNECT_STORM}
    assert alerts(room) == [("MmdDisconnectStorm", "deribit", None)]


async def test_a_halt_that_a_restart_would_forget_is_not_done(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    room.worker()
    room.register.failed = "No space left on device"
    result = await front(room).halt(["all"], "stop", ANN, 5.0)
    assert result.outcome is Outcome.TIMED_OUT
    assert "a restart would forget it: No space left on device" in result.detail
    assert [row.outcome for row in result.symbols] == [Outcome.DONE]


def lose(room: Room, worker: Worker, part: float) -> None:
    room.pump.post(worker, room.ticker(worker.symbol, round(-part * 160_000)))
    room.pump.run()
    room.treasury.value_all()
    room.pump.run()


async def drawn_down(room: Room) -> Worker:
    worker = room.worker()
    room.connect(worker, position_lots=5)
    lose(room, worker, 0.1)
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DRAWDOWN)
    return worker


LOSS = msgspec.structs.replace(LIMITS, max_drawdown_usd=Decimal(4))


async def test_a_reset_counts_the_drawdown_from_here_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery, limits=LOSS)
    worker = await drawn_down(room)
    assert (await front(room).reset([BTC], "looked", ANN, 5.0)).outcome is Outcome.DONE
    assert alerts(room) == []
    assert room.treasury.totals().drawdown_usd == pytest.approx(0.0)
    lose(room, worker, 0.15)
    assert worker.machine.state is State.PAUSED
    lose(room, worker, 0.2)
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DRAWDOWN)


@pytest.mark.parametrize(("outcome", "counts"), [(Outcome.TIMED_OUT, True), (Outcome.REFUSED, False)])
async def test_what_was_reset_counts_even_if_its_orders_are_still_on_their_way(
    outcome: Outcome, counts: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(limits=LOSS)
    worker = await drawn_down(room)
    counter = front(room)
    row = msgspec.structs.replace((await counter.pause([BTC], "", ANN, 0.0)).symbols[0], outcome=outcome)

    async def told(*asked: Any) -> ChangeResult:
        await trio.lowlevel.checkpoint()
        return ChangeResult(outcome=outcome, detail="", symbols=[row])

    monkeypatch.setattr(counter.office, "reset", told)
    await counter.reset([BTC], "looked", ANN, 1.0)
    left = room.treasury.totals().drawdown_usd
    assert left is not None and (left < 1.0) is counts, worker.key


# --- what else the counter decides by itself ----------------------------------------------------------


async def test_mail_that_waits_while_nobody_pumps_is_stuck(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    room.pump.run()
    counter = front(room)
    assert counter.stuck() == [] and counter.healthy()
    room.pump.post(eth, ev.TimerFired(room.now_ns))
    assert counter.stuck() == [eth.key] and not counter.healthy()
    room.pump.run()
    assert counter.healthy() and btc.depth == 0
    counter.phase = "stopping"
    assert not counter.healthy()


async def test_one_symbol_is_one_symbol(autojump_clock: MockClock) -> None:
    room = Room()
    room.worker(BTC)
    room.worker(ETH)
    counter = front(room)
    assert counter.flatten_preview(BTC, None, 10.0).symbol == BTC
    for pattern in ("all", "*-PERPETUAL"):
        with pytest.raises(MmdError, match="matches 2 symbols"):
            counter.flatten_preview(pattern, None, 10.0)
        with pytest.raises(MmdError, match="matches 2 symbols"):
            await counter.flatten(pattern, None, Decimal(1), "", ANN, 1.0)
    with pytest.raises(KeyError):
        counter.flatten_preview("DOGE", None, 10.0)


async def test_cancel_on_disconnect_is_shown_where_all_have_it(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    counter = front(room)
    room.pump.post(btc, ev.TradeLinkUp(True, room.now_ns))
    room.pump.post(eth, ev.TradeLinkUp(False, room.now_ns))
    room.pump.run()
    assert not counter._exchange_status("deribit").cancel_on_disconnect
    room.pump.post(eth, ev.TradeLinkUp(True, room.now_ns))
    room.pump.run()
    assert counter._exchange_status("deribit").cancel_on_disconnect


async def test_only_a_protection_that_is_configured_is_reset(autojump_clock: MockClock) -> None:
    room = Room()
    room.exchange.protections = [
        ProtectionStatus(underlying="BTC", armed=False, detail="frozen", frozen_until_ns=0, checked_ns=NS)
    ]
    counter = front(room)
    line = await counter.reset_protection("deribit", "BTC", "looked", ANN)
    assert (line.exchange, line.underlying, room.exchange.protection_resets) == ("deribit", "BTC", ["BTC"])
    for exchange, underlying in (("deribit", "ETH"), ("other", "BTC")):
        with pytest.raises(MmdError, match=f"no maker protection of {underlying} on {exchange}"):
            await counter.reset_protection(exchange, underlying, "", ANN)
    assert room.exchange.protection_resets == ["BTC"]


async def test_a_halt_in_shadow_mode_is_a_halt(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.quoting(mode=Mode.SHADOW)
    result = await front(room).halt(["all"], "stop", ANN, 5.0)
    assert (result.outcome, worker.machine.state, len(worker.shadow)) == (Outcome.DONE, State.HALTED, 0)


async def test_a_daemon_that_starts_or_stops_changes_nothing(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.run()
    counter = front(room)
    counter._nursery = SimpleNamespace()  # type: ignore[assignment]  # there is one: it is not used
    counter._stop_requested.set()
    with pytest.raises(MmdError, match="the daemon stops: nothing was applied"):
        await counter.reload(None, ANN)
    for change in (counter.pause, counter.resume, counter.reset):
        with pytest.raises(MmdError, match=r"is stopping: .* still there: 1 symbols, 0 orders that may rest"):
            await change(["all"], "", ANN, 1.0)
    with pytest.raises(MmdError, match="is stopping"):
        await counter.shadow(["all"], True, "", ANN, 1.0)
    with pytest.raises(MmdError, match="is stopping"):
        await counter.flatten(BTC, None, Decimal(1), "", ANN, 1.0)
    counter._reloader, counter._stop_requested = None, trio.Event()
    for change in (counter.pause, counter.resume, counter.halt, counter.reset):
        with pytest.raises(MmdError, match="still starting: waiting for deribit"):
            await change(["all"], "", ANN, 1.0)
    assert (worker.machine.state, worker.depth) == (State.PAUSED, 0)


# --- what a symbol leaves behind ------------------------------------------------------------------------


def leave(room: Room, worker: Worker) -> None:
    """As the roster does it once nothing rests any more."""
    room.treasury.leave(worker)
    room.pump.drop(worker)


async def test_a_position_outlives_its_symbol(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    room.connect(btc, position_lots=2)
    room.connect(eth, position_lots=-4)
    counter = front(room)
    assert [line.left for line in counter.positions(["all"])] == ["", ""]
    leave(room, eth)
    here, left = counter.positions(["all"])
    assert (here.symbol, here.position, here.left) == (BTC, 20, "")
    assert (left.symbol, left.exchange, left.position, left.left) == (ETH, "deribit", -40, "removed")
    assert left.coins == pytest.approx(-40 / 3000) and left.pnl_usd == pytest.approx(0.0)
    assert (left.average_price, left.mark_price, left.realized_usd) == (None, None, None)
    assert counter.positions([ETH]) == counter.positions(["deribit/ETH-*"]) == counter.positions([ETH, "E*"]) == [left]
    assert counter.positions([BTC]) == [here] and counter.positions(["*"]) == [here, left]
    for wrong in ("DOGE", "deribit/DOGE"):
        with pytest.raises(KeyError, match=wrong):
            counter.positions([wrong, ETH])
    room.worker(ETH)
    assert [(line.symbol, line.left) for line in counter.positions(["all"])] == [(BTC, ""), (ETH, "")]


async def test_why_a_position_is_nobodys_is_said(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker, position_lots=2)
    leave(room, worker)
    counter = front(room)
    counter._stop_requested.set()
    assert [line.left for line in counter.positions(["all"])] == ["stopped"]
    # The next process, before it knows its instruments: neither price nor profit came along with the lots.
    left = room.treasury.machine.carried().left[0]
    carried = CarriedLosses(everything=room.treasury.machine.losses.carried(), symbols={}, left=(left,))
    again = Room()
    again.treasury = Treasury(LIMITS, KillSwitches(), again.pump, carried)
    counter = front(again)
    counter._reloader = None
    (line,) = counter.positions(["all"])
    assert (line.left, line.position, line.pnl_usd) == ("not in service yet", 20, None)
    assert line.coins == pytest.approx(20 / 80_000)


# --- ledgers ------------------------------------------------------------------------------------------


async def test_rounding_is_no_imbalance_and_a_defect_is(autojump_clock: MockClock) -> None:
    """A price that divides leaves something in the fiftieth digit."""
    room = Room()
    worker = room.quoting()
    for number in range(7):
        room.fill(worker, f"t{number}")
        room.pump.post(worker, room.ticker(shift=37 * number + 1))
        room.pump.run()
    position = worker.machine.position
    assert position.balanced and position.statement(worker.machine.mark_price).imbalance != 0
    counter = front(room)
    assert [line.imbalance for line in counter.ledger(["all"])] == [0]
    assert [line.imbalance for line in counter.ledger_lines()] == [0]
    position.ledger.holdings.cash += Decimal("1e-12")
    for line in (*counter.ledger(["all"]), *counter.ledger_lines()):
        assert abs(line.imbalance - Decimal("1e-12")) < Decimal("1e-40")


async def test_every_digit_of_a_ledger_is_shown(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    for number in range(3):
        room.fill(worker, f"t{number}")
    room.pump.run()
    (line,) = front(room).ledger(["all"])
    assert line.cash == worker.machine.position.ledger.holdings.cash
    room.pump.post(worker, room.ticker(shift=37))
    room.pump.run()
    (line,) = front(room).ledger(["all"])
    shown = line.inventory
    assert shown == worker.machine.position.ledger.sources.inventory and len(shown.as_tuple().digits) > 28
