"""People's requests: which symbols a pattern means, what each is told, and when the answer comes."""

from collections.abc import Sequence

import pytest
import trio
from shell_kit import BTC, ETH, NS, Room
from trio.testing import MockClock

from mmd.domain.actions import CancelOrder, Decision
from mmd.domain.events import Mail, OrderClosed, ResetRequested
from mmd.domain.reasons import Mode
from mmd.shell.desk import Caller, ChangeResult, Outcome
from mmd.shell.office import Office, caller_name, matching


async def test_names_globs_and_all(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    both = [btc, eth]
    assert matching(both, ["all"]) == matching(both, ["*"]) == matching(both, ["deribit/*"]) == both
    assert matching(both, [ETH]) == matching(both, ["deribit/ETH-*"]) == [eth]
    assert matching(both, [BTC, "BTC-*", "all"]) == both  # each once
    assert matching([], ["all"]) == []
    for pattern in ("DOGE-*", "btc-perpetual", "other/BTC-PERPETUAL", ""):
        with pytest.raises(KeyError) as unknown:
            matching(both, [BTC, pattern])
        assert unknown.value.args == (pattern,)


def test_who_it_was() -> None:
    assert caller_name(Caller(uid=1000, pid=7, name="ann")) == "ann (uid 1000)"


async def test_resume_is_refused_with_every_failing_check_and_its_numbers(autojump_clock: MockClock) -> None:
    room = Room()
    ready, cold = room.worker(BTC), room.worker(ETH)
    room.connect(ready)
    result = await Office(room.pump).resume([ready, cold], "go", "ann", 1.0)
    assert result.outcome is Outcome.REFUSED
    assert result.detail == "1 of 2 symbols: refused"
    rows = {row.symbol: row for row in result.symbols}
    assert (rows[BTC].outcome, rows[BTC].state) == (Outcome.DONE, "ACTIVE")
    assert (rows[ETH].outcome, rows[ETH].state) == (Outcome.REFUSED, "PAUSED")
    failing = {check.name: (check.found, check.wanted) for check in rows[ETH].checks if not check.ok}
    assert {"data_link", "trade_link", "orders_known", "position_known"} <= failing.keys()
    assert failing["orders_known"] == ("not asked yet", "reconciled")
    assert rows[ETH].detail.startswith("not ready: ")


async def test_pause_answers_when_the_exchange_has_confirmed(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()

    async def confirm() -> None:
        await trio.sleep(1.5)
        for _, request in room.exchange.taken():
            assert isinstance(request, CancelOrder)
            room.pump.post(worker, OrderClosed(request.label, request.order_id, "user_request", 0, room.now_ns))
        await room.pump.deliver()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm)
        result = await Office(room.pump).pause([worker], "", "ann", 10.0)
    assert result.outcome is Outcome.DONE
    assert trio.current_time() - began == pytest.approx(1.5)
    assert (worker.machine.state, worker.machine.own.resting) == ("PAUSED", 0)


async def test_a_pause_that_the_exchange_does_not_confirm_times_out_and_says_what_may_rest(
    autojump_clock: MockClock,
) -> None:
    room = Room()
    worker = room.quoting()
    began = trio.current_time()
    result = await Office(room.pump).pause([worker], "", "ann", 1.5)
    assert trio.current_time() - began == pytest.approx(1.5)
    (row,) = result.symbols
    assert (row.outcome, row.state) == (Outcome.TIMED_OUT, "PAUSED")
    assert row.detail.startswith("2 orders may still rest: mmd-kit-BTC-PERPETUAL-b-ep-1, mmd-kit-")
    again = await Office(room.pump).pause([worker], "", "ann", 0.0)  # no patience at all is allowed
    assert again.outcome is Outcome.TIMED_OUT


async def test_halt_reset_and_what_each_state_refuses(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    room = Room(nursery)
    office = Office(room.pump)
    worker = room.worker()
    room.connect(worker)
    assert (await office.reset([worker], "why", "ann", 1.0)).outcome is Outcome.REFUSED  # PAUSED is not HALTED
    assert (await office.halt([worker], "stop", "ann", 1.0)).outcome is Outcome.DONE
    assert (worker.machine.state, worker.machine.why, worker.machine.by) == ("HALTED", "operator", "ann")
    assert (await office.halt([worker], "again", "ann", 1.0)).outcome is Outcome.DONE
    assert (await office.pause([worker], "", "ann", 1.0)).outcome is Outcome.REFUSED
    assert (await office.resume([worker], "", "ann", 1.0)).outcome is Outcome.REFUSED
    assert (await office.reset([worker], "looked", "ann", 1.0)).outcome is Outcome.DONE
    assert (worker.machine.state, worker.machine.why) == ("PAUSED", "reset")
    assert room.pump.replies == {}  # every answer was fetched


async def test_a_halt_that_somebody_resets_at_once_says_so_and_nobody_waits(autojump_clock: MockClock) -> None:
    room = Room()
    office = Office(room.pump)
    worker = room.worker()
    room.connect(worker)
    results: list[ChangeResult] = []

    async def halt() -> None:
        results.append(await office.halt([worker], "stop", "ann", 10.0))

    began = trio.current_time()
    async with trio.open_nursery() as both:
        both.start_soon(halt)
        await trio.testing.wait_all_tasks_blocked()
        assert not worker.proven and not results
        worker.proven = True  # the exchange says so, and before the halt's own task looks somebody resets
        done = office.ask([worker], lambda number, key: ResetRequested(number, "ben", "looked", room.now_ns))
        assert done[worker.key].ok
        room.pump.turned.unpark_all()
    assert trio.current_time() - began < 1.0
    (row,) = results[0].symbols
    assert (row.outcome, row.state, row.detail) == (Outcome.TIMED_OUT, "PAUSED", "no longer HALTED: PAUSED (reset)")


async def test_nobody_to_ask_is_done(autojump_clock: MockClock) -> None:
    result = await Office(Room().pump).halt([], "", "ann", 1.0)
    assert (result.outcome, result.symbols) == (Outcome.DONE, [])


async def test_a_worker_that_cannot_answer_is_a_refusal(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    worker = room.worker()

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        raise ZeroDivisionError

    monkeypatch.setattr(worker.machine, "handle", handle)
    result = await Office(room.pump).resume([worker], "", "ann", 1.0)
    (row,) = result.symbols
    assert (row.outcome, row.state) == (Outcome.REFUSED, "HALTED")
    assert "see the log" in row.detail


async def test_shadow_waits_until_the_real_orders_are_gone(autojump_clock: MockClock) -> None:
    room = Room()
    office = Office(room.pump)
    worker = room.quoting()
    result = await office.shadow([worker], True, 1.0)
    assert (result.outcome, result.symbols[0].detail) == (Outcome.TIMED_OUT, "mode live")
    for _, request in room.exchange.taken():
        if isinstance(request, CancelOrder):
            room.pump.post(worker, OrderClosed(request.label, request.order_id, "user_request", 0, room.now_ns))
    result = await office.shadow([worker], True, 1.0)
    assert (result.outcome, worker.machine.mode) == (Outcome.DONE, Mode.SHADOW)
    assert len(worker.shadow) == 2 and room.exchange.taken() == []
    result = await office.shadow([worker], False, 1.0)
    assert (result.outcome, worker.machine.mode, len(worker.shadow)) == (Outcome.DONE, Mode.LIVE, 0)
    assert len(room.exchange.taken()) == 2  # the real ones again
    assert room.now_ns % NS == 0
