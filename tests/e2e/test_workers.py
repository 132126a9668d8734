"""What goes wrong inside the daemon: a bug in one symbol, a full mailbox, a loss; and what the others see of it."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
import trio
from still import BTC, CONFIG, ETH, OPERATOR, PRICES, House, running
from trio.testing import MockClock

from mmd.core.machine import SymbolMachine
from mmd.domain.actions import Decision
from mmd.domain.events import BookTop, HaltRequested, Mail, OrderFilled, TimerFired
from mmd.sandbox.faults import Faults
from mmd.sandbox.model import Direction
from mmd.shell.desk import Outcome
from mmd.shell.worker import MAILBOX


class Bug:
    """Makes a machine raise on the next `times` batches that hold an event of this kind."""

    def __init__(self, machine: SymbolMachine, monkeypatch: pytest.MonkeyPatch, kind: type = object) -> None:
        self.times = 0
        self.calls = 0
        self.kind = kind
        self.real = machine.handle
        monkeypatch.setattr(machine, "handle", self.handle)

    def handle(self, events: Sequence[Mail], now_ns: int) -> list[Decision]:
        self.calls += 1
        if self.times and any(isinstance(event, self.kind) for event in events):
            self.times -= 1
            raise ZeroDivisionError("a bug of ours")
        return self.real(events, now_ns)


def only_btc_is_hurt(house: House, orders: set[str]) -> None:
    assert house.state(BTC) == ("HALTED", "worker_fault")
    assert "a bug of ours" in house.row(BTC).detail
    assert house.state(ETH) == ("ACTIVE", "resumed")
    assert house.order_ids(ETH) == orders == {order.order_id for order in house.resting(ETH)}


async def test_a_bug_halts_its_symbol_only_and_again_after_a_reset(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        bug = Bug(house.worker(BTC).machine, monkeypatch, BookTop)
        await house.quote()
        others = house.order_ids(ETH)
        for _ in range(2):
            bug.times = 1
            house.set_book(BTC, [(-1, 500)], [(1, 500)])
            await house.until(lambda: not house.resting(BTC))
            only_btc_is_hurt(house, others)
            assert (await house.resume(BTC)).outcome is Outcome.REFUSED
            assert (await house.reset(BTC)).outcome is Outcome.DONE
            assert house.state(BTC) == ("PAUSED", "reset")
            assert house.row(BTC).detail == "looked at it"
            house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
            await house.quote(BTC)
        assert len(house.events("symbol.fault")) == 2


async def test_a_machine_that_always_raises_is_taken_out_by_force(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        bug = Bug(house.worker(BTC).machine, monkeypatch)
        await house.quote()
        others = house.order_ids(ETH)
        bug.times = 1_000_000
        house.set_book(BTC, [(-1, 500)], [(1, 500)])
        await house.until(lambda: not house.resting(BTC))
        only_btc_is_hurt(house, others)
        calls, written = bug.calls, house.daemon.diary.last
        for amount in range(100, 600, 10):
            house.set_book(BTC, [(-1, amount)], [(1, amount)])
            await trio.sleep(0.1)
        assert bug.calls == calls  # it is not run any more
        assert house.daemon.diary.last == written  # and nobody is flooded
        only_btc_is_hurt(house, others)
        refused = await house.daemon.reset([BTC], "try", OPERATOR, 1.0)
        assert refused.outcome is Outcome.REFUSED
        began = trio.current_time()
        await house.stop()
        assert trio.current_time() - began < 1.0  # a broken machine does not hold up the stop


async def test_a_fill_that_a_bug_lost_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        bug = Bug(house.worker(BTC).machine, monkeypatch, OrderFilled)
        await house.quote()
        bug.times = 1
        # Somebody buys through the anonymous asks up to ours.
        house.set_book(BTC, [(-1, 1000)], [(1, 10)])
        house.take(BTC, Direction.BUY, 20)
        await house.until(lambda: house.state(BTC) == ("HALTED", "worker_fault"))
        assert house.position(BTC) == Decimal(-10)
        await house.until(lambda: house.row(BTC).position == Decimal(-10))
        assert (await house.reset(BTC)).outcome is Outcome.DONE
        house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
        await house.quote(BTC)
        assert house.row(BTC).position == house.position(BTC) == Decimal(-10)


async def test_a_full_mailbox_halts_its_symbol_and_loses_no_fill(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        others = house.order_ids(ETH)
        pump, worker = house.daemon.pump, house.worker(BTC)
        real, lost = worker.post, []

        def swallow(event: Mail) -> None:
            """The mailbox as it would be if 1,000 events had come first: the fill is among what is dropped."""
            if isinstance(event, OrderFilled) and not lost:
                lost.append(event)
                while worker.depth < MAILBOX:
                    real(TimerFired(house.daemon.clock.now_ns()))
            real(event)

        monkeypatch.setattr(worker, "post", swallow)
        house.set_book(BTC, [(-1, 1000)], [(1, 10)])
        house.take(BTC, Direction.BUY, 20)
        await house.until(lambda: house.state(BTC) == ("HALTED", "inbox_overflow"))
        assert lost and house.daemon.counters.symbol(worker.key).overflows == 1
        await house.until(lambda: house.row(BTC).position == house.position(BTC) == Decimal(-10))
        await house.until(lambda: not house.resting(BTC))
        assert house.state(ETH) == ("ACTIVE", "resumed") and house.order_ids(ETH) == others
        assert pump.workers[worker.key].depth == 0


async def test_a_loss_halts_everything_until_somebody_has_looked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    small = CONFIG.replace("max_drawdown_usd: 5000", "max_drawdown_usd: 1").replace(
        "auto_resume: false", "auto_resume: true"
    )
    async with running(monkeypatch, small) as house:
        await house.quote()
        for _ in range(20):  # sell higher and higher into a rising mark
            house.set_book(BTC, [(-1, 1000)], [(1, 10)])
            house.take(BTC, Direction.BUY, 20)
            house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
            await trio.sleep(1)
        assert house.position(BTC) < -100
        house.market.marks[BTC] = PRICES[BTC] * Decimal("1.02")
        await house.until(lambda: house.state(BTC) == house.state(ETH) == ("HALTED", "drawdown"))
        await house.until(lambda: not house.resting(BTC) and not house.resting(ETH))
        assert len(house.events("switch.tripped")) == 1
        assert house.events("switch.tripped")[0].startswith("drawdown: ")
        await trio.sleep(30)
        assert house.state(ETH) == ("HALTED", "drawdown")  # auto_resume is for the market's troubles
        assert (await house.resume()).outcome is Outcome.REFUSED
        assert (await house.reset()).outcome is Outcome.DONE
        assert (await house.resume(ETH)).outcome is Outcome.DONE
        await trio.sleep(5)
        assert house.state(ETH) == ("ACTIVE", "resumed")  # it counts from here again


async def test_it_starts_without_what_the_exchange_does_not_tell_and_says_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def arm(faults: Faults) -> None:
        faults.refuse(1000, 11051, "system_maintenance", "private/get_open_orders")

    patient = CONFIG + "kill_switches: {disconnect_storm: {max_disconnects: 10000}}\n"
    async with running(monkeypatch, patient, arm=arm) as house:
        assert house.daemon.phase == "running"
        assert "deribit/BTC-PERPETUAL" in house.events("service.unreconciled")[0]
        refused = await house.resume(BTC)
        assert refused.outcome is Outcome.REFUSED and "orders_known" in refused.symbols[0].detail
        for _ in range(1000):
            house.faults.next_answer("private/get_open_orders")
        await house.until(lambda: not house.daemon.unreconciled(house.daemon.arrivals.here))
        await house.quote()


async def test_a_halt_of_everything_comes_through_while_one_machine_is_broken(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        bug = Bug(house.worker(BTC).machine, monkeypatch, HaltRequested)
        await house.quote()
        bug.times = 1_000_000
        result = await house.daemon.halt(["all"], "now", OPERATOR, 10.0)
        outcomes = {row.symbol: (row.outcome, row.state) for row in result.symbols}
        assert outcomes[ETH] == (Outcome.DONE, "HALTED")
        assert outcomes[BTC][1] == "HALTED"
        await house.until(lambda: not house.resting(BTC) and not house.resting(ETH))
