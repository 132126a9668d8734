"""The totals in the shell: bounds go out and come back acknowledged, a drawdown halts everybody."""

from decimal import Decimal

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, LIMITS, MID_TICKS, Room
from trio.testing import MockClock

from mmd.core.book import Touch
from mmd.core.market import NO_TOUCH
from mmd.domain.reasons import State, Why
from mmd.shell.totals import VALUE_SECONDS, mark_price, pnl_usd


async def test_a_symbol_gets_its_bounds_once_it_has_a_price(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.run()
    assert worker.machine.bounds() == (0, 0)  # no price, no room
    room.connect(worker)
    assert worker.machine.bounds() == (-10, 10)  # its own limit, in lots
    assert room.treasury.machine.shares[worker.key].acked == 10


async def test_two_symbols_share_a_total_and_room_moves_when_it_is_given_up(autojump_clock: MockClock) -> None:
    limits = msgspec.structs.replace(LIMITS, max_notional_usd=Decimal(102))
    room = Room(limits=limits)
    btc = room.worker(BTC)
    room.connect(btc)
    assert btc.machine.bounds() == (-10, 10)
    eth = room.worker(ETH)
    room.connect(eth)
    assert (btc.machine.bounds(), eth.machine.bounds()) == ((-5, 5), (-5, 5))
    room.treasury.leave(eth)
    room.pump.drop(eth)
    room.pump.run()
    assert btc.machine.bounds() == (-10, 10)


async def test_changed_limits_hold_at_once(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.treasury.change_limits(msgspec.structs.replace(LIMITS, max_notional_usd=Decimal(51)), [worker])
    room.pump.run()
    assert worker.machine.bounds() == (-5, 5)


async def test_a_drawdown_halts_every_symbol_once(autojump_clock: MockClock) -> None:
    room = Room(limits=msgspec.structs.replace(LIMITS, max_drawdown_usd=Decimal(1)))
    btc, eth = room.quoting(BTC, size=50), room.quoting(ETH)
    for number in range(5):
        room.fill(btc, f"t{number}")
    room.pump.run()
    room.pump.post(btc, room.ticker(shift=-MID_TICKS[BTC] // 10))  # 50 USD long lose 10 %
    room.pump.run()
    for _ in range(3):
        room.treasury.value_all()
        room.pump.run()
    for worker in (btc, eth):
        assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DRAWDOWN)
    assert [line.name for line in room.diary.since(0, 999)].count("portfolio.drawdown") == 1
    assert room.treasury.totals().drawdown_usd == pytest.approx(5.0, rel=0.05)


async def test_marks_and_profits_that_cannot_be_known_are_not_invented(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    assert mark_price(worker) == 0.0
    assert pnl_usd(worker) == 0.0  # flat: nothing to value
    room.connect(worker, position_lots=3)
    assert mark_price(worker) == MID_TICKS[BTC] / 2
    assert pnl_usd(worker) == pytest.approx(0.0)
    worker.machine.market.mark = 0.0
    seen = worker.machine.touch
    worker.machine.touch = Touch(seen.bid_ticks + 10, seen.bid_lots, seen.ask_ticks + 10, seen.ask_lots)
    assert mark_price(worker) == MID_TICKS[BTC] / 2 + 5  # our own fair value, where the exchange gives no mark
    worker.machine.touch = NO_TOUCH
    assert (mark_price(worker), pnl_usd(worker)) == (0.0, None)
    room.treasury.value_all()
    assert room.treasury.totals().pnl_usd is None


async def test_it_values_everything_every_second(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker, position_lots=5)
    nursery.start_soon(room.treasury.run)
    await trio.testing.wait_all_tasks_blocked()
    room.pump.post(worker, room.ticker(shift=MID_TICKS[BTC]))
    room.pump.run()
    before = room.treasury.totals().pnl_usd
    await trio.sleep(VALUE_SECONDS + 0.1)
    after = room.treasury.totals().pnl_usd
    assert before is not None and after is not None and after > before + 1
    nursery.cancel_scope.cancel()
