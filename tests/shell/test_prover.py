"""What counts as proof that a halted book is empty, and what does not."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from shell_kit import BTC, ETH, MID_TICKS, NS, Room, instrument, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.actions import CancelOrder, QueryState
from mmd.domain.reasons import Mode, Side, State, Switch, Why
from mmd.shell.office import Office
from mmd.shell.prover import ASK_SECONDS, orders_left
from mmd.shell.worker import Worker

LEFT = ev.OpenOrder("mmd-kit-BTC-PERPETUAL-b-old-1", "77", Side.BID, MID_TICKS[BTC] - 50, 1, 1)
Orders = dict[str, list[ev.OpenOrder]]


def halt(room: Room, worker: Worker) -> None:
    room.pump.post(worker, ev.HaltRequested(0, Why.OPERATOR, "ann", "", room.now_ns))
    room.pump.run()


def confirm(room: Room, worker: Worker) -> None:
    """The exchange's answer to every cancel."""
    for state in worker.machine.own.every():
        if state.label:
            order_id = getattr(state.slot, "order_id", "")
            room.pump.post(worker, ev.OrderClosed(state.label, order_id, "user_request", 0, room.now_ns))
    room.pump.run()


def answering(room: Room, answer: Callable[[], Awaitable[Orders]]) -> None:
    room.exchange.open_orders = answer  # type: ignore[method-assign]  # what a test says


async def test_nobody_is_asked_while_an_order_is_known_to_rest(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    room = Room(nursery)
    worker = room.quoting()
    halt(room, worker)
    await trio.sleep(5.0)
    assert (room.exchange.asked, worker.proven) == (0, False)
    assert orders_left(worker) == (
        "2 orders may still rest: mmd-kit-BTC-PERPETUAL-b-ep-1, mmd-kit-BTC-PERPETUAL-a-ep-2"
    )
    confirm(room, worker)
    await trio.sleep(1.5)
    assert (room.exchange.asked, worker.proven) == (1, True)


async def test_only_the_exchange_of_who_waits_is_asked(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery, names=("deribit", "other"))
    here = room.worker()
    machine = SymbolMachine(instrument(BTC, exchange="other"), settings(), "ep", room.now_ns)
    there = Worker(machine, room.counters.symbol(machine.instrument.key))
    room.pump.add(there)
    halt(room, here)
    await trio.sleep(2.0)
    assert [exchange.asked for exchange in room.exchanges.values()] == [1, 0]
    assert (here.proven, there.proven) == (True, False)
    room.exchanges["other"].resting = {BTC: [LEFT]}
    halt(room, there)
    await trio.sleep(2.0)
    assert (here.proven, there.proven) == (True, False)


async def test_an_exchange_that_gives_no_proof_is_not_asked_at_every_turn(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Books of others come a hundred times a second."""
    room = Room(nursery)
    worker, other = room.worker(), room.worker(ETH)
    room.exchange.silent = True
    halt(room, worker)
    for _ in range(500):
        room.pump.post(other, ev.TimerFired(room.now_ns))
        room.pump.run()
        await trio.sleep(0.01)
    assert 4 <= room.exchange.asked <= 6


async def test_no_answer_is_no_proof(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    asked = 0

    async def never() -> Orders:
        nonlocal asked
        asked += 1
        await trio.sleep_forever()

    answering(room, never)
    halt(room, worker)
    await trio.sleep(4 * ASK_SECONDS)
    assert not worker.proven and asked in (3, 4)


async def slow_answer(room: Room, worker: Worker, meanwhile: Callable[[Room, Worker], None]) -> None:
    """One question is answered after a second, in which something happens; no other one is answered at all."""
    questions = 0

    async def slow() -> Orders:
        nonlocal questions
        questions += 1
        await trio.sleep(1.0 if questions == 1 else 1000.0)
        return {}

    answering(room, slow)
    halt(room, worker)
    await trio.sleep(0.5)
    assert questions == 1
    meanwhile(room, worker)
    await trio.sleep(1.0)


def nothing(room: Room, worker: Worker) -> None:
    """It stays as it is."""


def reset_and_halted_again(room: Room, worker: Worker) -> None:
    room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    halt(room, worker)


def reset(room: Room, worker: Worker) -> None:
    room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    room.pump.run()


def a_late_answer(room: Room, worker: Worker) -> None:
    """An order that was believed gone rests after all: older than the question, newer than our knowledge."""
    label = f"mmd-kit-{BTC}-b-ep-9"
    room.pump.post(worker, ev.OrderAcked(label, "9", MID_TICKS[BTC] - 50, 1, 1, room.now_ns))
    room.pump.run()


@pytest.mark.parametrize(
    ("meanwhile", "proven"),
    [(nothing, True), (reset, False), (reset_and_halted_again, False), (a_late_answer, False)],
)
async def test_an_answer_proves_what_was_true_when_it_was_asked_for(
    meanwhile: Callable[[Room, Worker], None], proven: bool, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    await slow_answer(room, worker, meanwhile)
    assert worker.proven is proven


async def test_every_halt_needs_a_proof_of_its_own(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    halt(room, worker)
    await trio.sleep(1.5)
    assert worker.proven
    reset(room, worker)
    assert not worker.proven
    room.exchange.silent = True
    halt(room, worker)
    await trio.sleep(5.0)
    assert not worker.proven


async def test_each_halt_that_is_overdue_is_told_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    room.exchange.silent = True
    last = room.pump.alarm.last[Switch.ORDERS_LEFT]
    halt(room, worker)
    await trio.sleep(worker.machine.rules.unknown_timeout_ns / NS - 0.5)
    assert last.trips == 0
    await trio.sleep(60.0)
    assert last.trips == 1
    room.exchange.silent = False
    await trio.sleep(3.0)
    assert worker.proven
    reset(room, worker)
    room.exchange.silent = True
    halt(room, worker)
    await trio.sleep(60.0)
    assert last.trips == 2
    assert last.detail == "the exchange did not confirm that nothing of ours rests"


async def test_who_waits_for_the_proof_wakes_when_it_is_there(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    began = trio.current_time()
    result = await Office(room.pump).halt([worker], "", "ann", 10.0)
    assert (result.outcome, worker.proven) == ("done", True)
    assert trio.current_time() - began < 1.5


async def test_a_proof_that_an_order_contradicts_is_none(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Proven, and then an answer tells of an order that was believed gone."""
    room = Room(nursery)
    worker = room.worker()
    room.connect(worker)
    assert (await Office(room.pump).halt([worker], "", "ann", 5.0)).outcome == "done"
    a_late_answer(room, worker)
    assert (await Office(room.pump).halt([worker], "again", "ann", 1.0)).outcome == "timed_out"
    assert (await Office(room.pump).reset([worker], "looked", "ann", 1.0)).outcome == "refused"
    confirm(room, worker)
    assert (await Office(room.pump).halt([worker], "again", "ann", 5.0)).outcome == "done"


# --- a machine that does not run any more -------------------------------------------------------------


def take_out(room: Room, worker: Worker) -> None:
    worker.broken = True
    worker.machine.state, worker.machine.why = State.HALTED, Why.WORKER_FAULT
    worker.machine.since_ns = room.now_ns
    room.pump.turned.unpark_all()


@pytest.mark.parametrize("mode", list(Mode))
async def test_what_a_broken_worker_left_is_cancelled_by_the_exchanges_list(
    mode: Mode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its machine knows nothing of it. In shadow mode too: what the exchange lists is really there."""
    room = Room(nursery)
    worker = room.worker(mode=mode)
    room.connect(worker)
    await wait_all_tasks_blocked()
    room.exchange.resting = {BTC: [LEFT], ETH: [LEFT]}
    room.exchange.taken()
    take_out(room, worker)
    await trio.sleep(2.5)
    cancelled = room.exchange.taken()
    assert cancelled[0] == (BTC, CancelOrder(LEFT.label, LEFT.order_id, Side.BID))
    assert 2 <= len(cancelled) <= 3 and not worker.proven
    room.exchange.resting = {ETH: [LEFT]}
    await trio.sleep(1.5)
    assert worker.proven


async def test_what_a_broken_worker_only_imagined_stays_here(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting(mode=Mode.SHADOW)
    assert len(worker.shadow) == 2
    take_out(room, worker)
    room.pump.post(worker, ev.TradeLinkUp(True, room.now_ns))  # its orders are pulled without it
    room.pump.run()
    assert room.exchange.taken() == [] and len(worker.shadow) == 0


async def test_a_broken_workers_own_list_counts_for_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It believes two orders rest; the exchange lists none."""
    room = Room(nursery)
    worker = room.quoting()
    take_out(room, worker)
    await trio.sleep(1.5)
    assert worker.machine.own.resting == 2 and worker.proven


async def test_what_rests_after_all_becomes_the_machines_business(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    room = Room(nursery)
    worker, other = room.worker(BTC), room.worker(ETH)
    for each in (worker, other):
        room.connect(each)
    room.exchange.taken()
    room.exchange.resting = {BTC: [LEFT]}
    halt(room, worker)
    halt(room, other)
    await trio.sleep(0.5)
    assert (worker.proven, other.proven) == (False, True)
    assert room.exchange.taken() == [(BTC, QueryState())]
