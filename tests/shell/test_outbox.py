"""The way out: gate and budget for every order, cancels first, one hand-over per exchange, shadow orders stay."""

import pytest
import trio
from shell_kit import BTC, ETH, MID_TICKS, NS, Room
from trio.testing import MockClock

from mmd.domain.actions import CancelOrder, PlaceOrder, QueryOrder, QueryState, ReduceOrder
from mmd.domain.events import OpenOrder, OrderAbsent, OrderAcked, OrderClosed, TimerFired
from mmd.domain.reasons import Mode, Rule, Side, State
from mmd.shell.worker import Worker


def place(worker: Worker, side: Side = Side.BID, lots: int = 1, shift: int = -20, number: int = 99) -> PlaceOrder:
    label = f"mmd-kit-{worker.symbol}-{side[0]}-ep-{number}"
    return PlaceOrder(label, side, MID_TICKS[worker.symbol] + shift, lots)


def bare(room: Room, symbol: str = BTC, mode: Mode = Mode.LIVE) -> Worker:
    """ACTIVE by force, without orders: what the gate lets through is the outbox's business here."""
    worker = room.worker(symbol, mode=mode)
    room.connect(worker)
    worker.machine.state = State.ACTIVE
    room.exchange.taken()
    return worker


async def test_cancels_leave_first_and_each_exchange_hears_once(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = bare(room), bare(room, ETH)
    outbox = room.pump.outbox
    bid, ask = place(btc), place(btc, Side.ASK, shift=20)
    cancels = [CancelOrder("mmd-kit-x", "1", Side.BID), CancelOrder("mmd-kit-y", "2", Side.ASK)]
    outbox.query(btc, QueryState(), room.now_ns)
    outbox.order(btc, bid, room.now_ns)
    outbox.order(eth, cancels[0], room.now_ns)
    outbox.order(btc, ask, room.now_ns)
    outbox.order(btc, cancels[1], room.now_ns)
    assert room.exchange.submitted == []
    outbox.submit()
    assert room.exchange.submitted == [
        [(ETH, cancels[0]), (BTC, cancels[1]), (BTC, QueryState()), (BTC, bid), (BTC, ask)]
    ]
    outbox.submit()
    assert len(room.exchange.submitted) == 1  # nothing twice
    counted = room.counters.symbol(btc.key)
    assert (counted.placed, counted.cancelled, counted.amended) == (2, 1, 0)


async def test_what_the_gate_refuses_goes_back_and_never_out(autojump_clock: MockClock) -> None:
    room = Room()
    worker = bare(room)
    room.pump.outbox.order(worker, place(worker, lots=6), room.now_ns)  # 60 USD, allowed 50
    room.pump.outbox.submit()
    assert room.exchange.submitted == []
    (refusal,) = worker.take()
    assert (refusal.rule, refusal.limit) == (Rule.ORDER_SIZE, "1..5 lots")
    assert room.counters.symbol(worker.key).refused == {Rule.ORDER_SIZE: 1}
    assert room.counters.symbol(worker.key).placed == 0


async def test_a_symbol_that_is_not_active_places_nothing_and_cancels_everything(autojump_clock: MockClock) -> None:
    room = Room()
    worker = bare(room)
    worker.machine.state = State.HALTED
    cancel = CancelOrder("mmd-kit-x", "1", Side.BID)
    room.pump.outbox.order(worker, place(worker), room.now_ns)
    room.pump.outbox.order(worker, cancel, room.now_ns)
    room.pump.outbox.submit()
    assert room.exchange.taken() == [(BTC, cancel)]
    assert worker.take()[0].rule is Rule.STATE


async def test_an_empty_budget_stops_orders_and_no_cancel(autojump_clock: MockClock) -> None:
    room = Room()
    worker = bare(room)
    room.exchange.budget.set_limits(1.0, 12.0, 10.0)
    room.exchange.budget.left(room.now_ns)
    for number in range(4):
        room.pump.outbox.order(worker, place(worker, number=number), room.now_ns)
    for number in range(20):
        room.pump.outbox.order(worker, CancelOrder(f"mmd-kit-{number}", "1", Side.BID), room.now_ns)
    room.pump.outbox.submit()
    sent = [request for _, request in room.exchange.taken()]
    assert sum(isinstance(request, CancelOrder) for request in sent) == 20
    assert sum(isinstance(request, PlaceOrder) for request in sent) == 2
    assert {event.rule for event in worker.take()} == {Rule.BUDGET}
    await trio.sleep(15)
    assert room.exchange.budget.allows(room.now_ns)


async def test_a_busy_symbol_leaves_the_others_their_turn(autojump_clock: MockClock) -> None:
    room = Room()
    quiet, busy = bare(room), bare(room, ETH)
    room.exchange.budget.set_limits(1.0, 12.0, 10.0)
    room.exchange.budget.empty_until(room.now_ns)
    room.pump.outbox.order(quiet, place(quiet), room.now_ns)
    assert [event.rule for event in quiet.take()] == [Rule.BUDGET]
    await trio.sleep(11.0)
    room.pump.outbox.order(quiet, place(quiet), room.now_ns - 1)  # it asked all the time, just before the token came
    quiet.take()
    room.pump.outbox.order(busy, place(busy), room.now_ns)
    assert [event.rule for event in busy.take()] == [Rule.BUDGET]
    room.pump.outbox.order(quiet, place(quiet), room.now_ns)
    assert quiet.take() == []
    await trio.sleep(1.0)
    room.pump.outbox.order(busy, place(busy), room.now_ns)
    assert busy.take() == []


async def test_a_closing_order_waits_for_no_turn(autojump_clock: MockClock) -> None:
    room = Room()
    quiet, closing = bare(room), bare(room, ETH)
    room.exchange.budget.set_limits(1.0, 12.0, 10.0)
    room.exchange.budget.empty_until(room.now_ns)
    await trio.sleep(10.9)
    room.pump.outbox.order(quiet, place(quiet), room.now_ns)
    assert [event.rule for event in quiet.take()] == [Rule.BUDGET]
    await trio.sleep(0.1)
    order = ReduceOrder("mmd-kit-r", Side.ASK, 100, 1)
    assert room.pump.outbox.room(closing, order, room.now_ns).budget
    assert not room.pump.outbox.room(closing, place(closing), room.now_ns).budget


async def test_shadow_orders_are_answered_here(autojump_clock: MockClock) -> None:
    room = Room()
    worker = bare(room, mode=Mode.SHADOW)
    order = place(worker)
    room.pump.outbox.order(worker, order, room.now_ns)
    (acked,) = worker.take()
    assert isinstance(acked, OrderAcked) and acked.order_id.startswith("shadow-")
    room.pump.outbox.query(worker, QueryOrder(order.label, ""), room.now_ns)
    assert worker.take() == [acked]
    room.pump.outbox.order(worker, CancelOrder(order.label, acked.order_id, Side.BID), room.now_ns)
    assert isinstance(worker.take()[0], OrderClosed)
    room.pump.outbox.query(worker, QueryOrder(order.label, ""), room.now_ns)
    assert worker.take() == [OrderAbsent(order.label, room.now_ns)]
    room.pump.outbox.query(worker, QueryState(), room.now_ns)  # a question about what is really there
    room.pump.outbox.submit()
    assert room.exchange.taken() == [(BTC, QueryState())]


async def test_a_stray_is_really_out_there_in_shadow_mode_too(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker(mode=Mode.SHADOW)
    label = f"mmd-kit-{BTC}-b-old-1"
    room.connect(worker, orders=(OpenOrder(label, "77", Side.BID, MID_TICKS[BTC] - 50, 1, 1),))
    assert room.exchange.taken() == [(BTC, CancelOrder(label, "77", Side.BID))]
    assert worker.depth == 0 and worker.machine.own.resting == 1
    await trio.sleep(3)
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()  # no answer came: it is asked there, not here
    assert room.exchange.taken() == [(BTC, QueryOrder(label, "77"))]


async def test_two_exchanges_hear_only_of_their_own(autojump_clock: MockClock) -> None:
    room = Room(names=("deribit", "other"))
    worker = bare(room)
    room.pump.outbox.order(worker, place(worker), room.now_ns)
    room.pump.outbox.submit()
    assert len(room.exchanges["deribit"].taken()) == 1
    assert room.exchanges["other"].submitted == []


async def test_every_message_is_charged(autojump_clock: MockClock) -> None:
    room = Room()
    worker = bare(room)
    before = room.exchange.budget.left(room.now_ns)
    room.pump.outbox.order(worker, place(worker), room.now_ns)
    room.pump.outbox.order(worker, CancelOrder("mmd-kit-x", "1", Side.BID), room.now_ns)
    room.pump.outbox.query(worker, QueryState(), room.now_ns)
    assert before - room.exchange.budget.left(room.now_ns) == pytest.approx(2.0)
    assert room.now_ns % NS == 0  # no time has passed
