"""The pump: one decision per symbol and batch, one hand-over, newest book wins, no fill dropped, bugs stay at home."""

from collections.abc import Sequence

import pytest
import trio
from shell_kit import BTC, ETH, MID_TICKS, Room
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.domain.actions import AmendOrder, CancelOrder, Decision, PlaceOrder, QueryState
from mmd.domain.events import (
    GateRefused,
    HaltRequested,
    Mail,
    OrderRefused,
    PauseRequested,
    RemovalRequested,
    ResetRequested,
    ResumeRequested,
    TimerFired,
    TradeLinkDown,
    TradeLinkUp,
)
from mmd.domain.reasons import Fault, Mode, State, Why
from mmd.shell.pump import ROUNDS
from mmd.shell.worker import MAILBOX, Worker


def names(room: Room) -> list[str]:
    return [line.name for line in room.diary.since(0, 10_000)]


async def test_both_quotes_of_a_pair_leave_in_one_hand_over(autojump_clock: MockClock) -> None:
    room = Room()
    workers = [room.worker(BTC), room.worker(ETH)]
    for worker in workers:
        room.connect(worker)
    room.exchange.taken()
    room.resume(*workers)
    (batch,) = room.exchange.submitted
    assert [(symbol, request.side, type(request)) for symbol, request in batch] == [
        (symbol, side, PlaceOrder) for symbol in (BTC, ETH) for side in ("bid", "ask")
    ]


async def test_a_batch_is_decided_once_and_the_newest_book_counts(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    counters = room.counters.symbol(worker.key)
    before = sum(counters.decisions.counts)
    await trio.sleep(5)  # past the refresh interval
    for shift in range(-300, 310, 10):
        room.sink.post(BTC, room.book(shift=shift))
    room.pump.run()
    assert sum(counters.decisions.counts) == before + 1
    assert worker.machine.touch.bid_ticks == MID_TICKS[BTC] + 300 - 1
    (batch,) = room.exchange.submitted
    assert sorted(type(request).__name__ for _, request in batch) == ["AmendOrder", "AmendOrder"]
    assert counters.conflated == 60


async def test_cancels_of_one_symbol_leave_before_orders_of_another(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.quoting(ETH)
    room.connect(btc)
    room.exchange.taken()
    room.pump.post(btc, ResumeRequested(0, "test", "", room.now_ns))
    room.pump.post(eth, PauseRequested(0, "test", "", room.now_ns))
    room.pump.run()
    (batch,) = room.exchange.submitted
    assert [type(request) for _, request in batch] == [CancelOrder, CancelOrder, PlaceOrder, PlaceOrder]


async def test_no_fill_is_dropped_however_many_come_at_once(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting(size=50)
    for number in range(5):
        room.fill(worker, f"t{number}")
        for _ in range(50):
            room.pump.post(worker, room.book())
            room.pump.post(worker, room.ticker())
        room.fill(worker, f"t{number}")  # told twice, counted once
    room.pump.run()
    assert worker.machine.position.lots == 5
    assert room.counters.symbol(worker.key).fills == 5
    assert room.treasury.machine.shares[worker.key].lots == 5  # and the totals know


async def test_refusals_go_round_only_so_often(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    worker, other = room.quoting(BTC), room.quoting(ETH)
    calls = 0

    def stubborn(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        nonlocal calls
        calls += 1
        if any(isinstance(event, HaltRequested) for event in events):
            worker.machine.state = State.HALTED
            return []
        return [PlaceOrder(f"mmd-kit-{BTC}-b-ep-{calls}", worker.machine.own.bid.side, 1, 1)]  # never passes the collar

    monkeypatch.setattr(worker.machine, "handle", stubborn)
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()
    assert calls == ROUNDS + 1
    assert worker.machine.state is State.HALTED and "still undecided" in str(worker.fault)
    assert other.machine.state is State.ACTIVE
    sent = [request for _, request in room.exchange.taken()]
    assert sent == [QueryState()]


async def test_deliver_writes_each_dirty_link_once(autojump_clock: MockClock) -> None:
    room = Room(names=("deribit", "other"))
    worker = room.worker()
    room.connect(worker)
    room.exchange.taken()
    room.exchange.dirty = False
    room.pump.post(worker, ResumeRequested(0, "test", "", room.now_ns))
    await room.sink.deliver()
    assert (room.exchange.flushes, room.exchanges["other"].flushes) == (1, 0)
    await room.sink.deliver()
    assert room.exchange.flushes == 1


async def test_waiters_wake_after_a_turn_that_handled_something(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.run()
    turns = 0

    async def wait() -> None:
        nonlocal turns
        while turns < 2:
            await room.pump.wait_turn()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        room.pump.run()  # nobody has mail
        await wait_all_tasks_blocked()
        assert turns == 0
        for expected in (1, 2):
            room.pump.post(worker, TimerFired(room.now_ns))
            room.pump.run()
            await wait_all_tasks_blocked()
            assert turns == expected


async def test_the_sink_knows_its_symbols(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    room.pump.run()
    room.sink.post("DOGE-PERPETUAL", TimerFired(room.now_ns))
    assert room.counters.exchange("deribit").unknown_symbols == 1
    room.sink.post_all(TimerFired(room.now_ns))
    assert (btc.depth, eth.depth) == (1, 1)
    room.sink.round_trip(0.004)
    assert room.sink.last_round_trip == 0.004 and room.counters.exchange("deribit").round_trips.total == 0.004
    room.sink.report("link.up", "hello")
    assert room.diary.since(0, 9)[-1].exchange == "deribit"


async def test_what_the_exchange_rejects_is_counted_by_class(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.resume(worker)
    label = worker.machine.own.bid.label
    room.pump.post(worker, OrderRefused(label, Fault.ORDER, "10005", "price", False, room.now_ns))
    room.pump.run()
    assert room.counters.symbol(worker.key).rejected == {"order": 1}
    assert "order.refused" in names(room)


async def test_a_lost_link_drops_what_only_we_imagined(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting(mode=Mode.SHADOW)
    assert len(worker.shadow) == 2
    room.pump.post(worker, TradeLinkDown("cut", room.now_ns))
    room.pump.run()
    assert len(worker.shadow) == 0 and worker.machine.why is Why.EXCHANGE_DISCONNECTED


# --- bugs ----------------------------------------------------------------------------------------


def break_machine(worker: Worker, monkeypatch: pytest.MonkeyPatch, *kinds: type) -> list[int]:
    """Raise on every batch with an event of these kinds (none given: always); returns what counts the raises."""
    real, raised = worker.machine.handle, [0]

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        if not kinds or any(isinstance(event, kinds) for event in events):
            raised[0] += 1
            raise KeyError("a bug of ours")
        return real(events, now_ns)

    monkeypatch.setattr(worker.machine, "handle", handle)
    return raised


async def test_a_bug_halts_asks_for_what_was_lost_and_is_told_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    worker, other = room.quoting(BTC), room.quoting(ETH)
    raised = break_machine(worker, monkeypatch, TimerFired)
    for _ in range(5):
        room.pump.post(worker, TimerFired(room.now_ns))
        room.pump.post(other, TimerFired(room.now_ns))
        room.pump.run()
    assert raised == [5]
    assert (worker.machine.state, worker.machine.why, worker.broken) == (State.HALTED, Why.WORKER_FAULT, False)
    assert other.machine.state is State.ACTIVE
    sent = [(symbol, type(request)) for symbol, request in room.exchange.taken()]
    assert sent == [(BTC, CancelOrder), (BTC, CancelOrder), (BTC, QueryState)]
    assert names(room).count("symbol.fault") == 1
    # A reset forgives; the next bug halts again.
    await trio.sleep(1)
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()
    assert [type(request) for _, request in room.exchange.taken()] == [CancelOrder, CancelOrder]  # still there: again
    room.pump.post(worker, ResetRequested(0, "test", "looked", room.now_ns))
    room.pump.run()
    assert (worker.machine.state, worker.fault) == (State.PAUSED, None)
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()
    assert worker.machine.state is State.HALTED and "a bug of ours" in str(worker.fault)


async def test_a_machine_that_cannot_be_halted_is_not_run_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    worker = room.quoting()
    labels = [worker.machine.own.bid.label, worker.machine.own.ask.label]
    raised = break_machine(worker, monkeypatch)
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()
    assert (worker.machine.state, worker.machine.why, worker.broken) == (State.HALTED, Why.WORKER_FAULT, True)
    by_label = [(BTC, CancelOrder(label, "", side)) for label, side in zip(labels, ("bid", "ask"), strict=True)]
    assert room.exchange.taken() == by_label
    assert raised == [2]  # once by itself, once when it was to be halted
    room.pump.post(worker, room.book(shift=50))
    room.pump.run()
    assert (raised, room.exchange.taken()) == ([2], [])
    room.pump.post(worker, TradeLinkUp(True, room.now_ns))  # whatever survived the lost link is pulled again
    room.pump.run()
    assert room.exchange.taken() == by_label
    room.pump.post(worker, RemovalRequested(Why.SHUTDOWN, room.now_ns))
    room.pump.run()
    assert worker.gone.is_set() and worker.machine.state is State.GONE
    assert room.exchange.taken() == by_label
    assert "symbol.halted" in names(room)


async def test_a_bug_on_the_way_out_halts_as_well(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate asks of the machine is the machine's code too."""
    room = Room()
    worker = room.worker()
    room.connect(worker)

    def exposure(order: PlaceOrder | AmendOrder, *known: object) -> None:
        raise ZeroDivisionError("no exposure")

    monkeypatch.setattr(worker.machine, "exposure", exposure)
    room.resume(worker)
    assert worker.machine.state is State.HALTED and "no exposure" in str(worker.fault)


async def test_a_full_mailbox_halts_and_asks_for_what_was_in_it(autojump_clock: MockClock) -> None:
    room = Room()
    worker, other = room.quoting(BTC), room.quoting(ETH)
    for _ in range(MAILBOX + 1):
        room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.post(other, TimerFired(room.now_ns))
    room.pump.run()
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.INBOX_OVERFLOW)
    assert other.machine.state is State.ACTIVE
    assert sorted(type(request).__name__ for _, request in room.exchange.taken()) == [
        "CancelOrder",
        "CancelOrder",
        "QueryState",
    ]


async def test_a_refusal_of_the_gate_reaches_the_machine_in_the_same_pump(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.exchange.budget.empty_until(room.now_ns)
    seen: list[Mail] = []
    real = worker.machine.handle

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        seen.extend(events)
        return real(events, now_ns)

    worker.machine.handle = handle  # type: ignore[method-assign]  # only watched
    room.resume(worker)
    assert [type(event) for event in seen] == [ResumeRequested, GateRefused, GateRefused]
    assert room.exchange.submitted == []
    assert worker.machine.own.resting == 0
