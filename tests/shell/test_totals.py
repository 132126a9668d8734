"""The totals in the shell: bounds go out and come back acknowledged, trips reach those they are about."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, LIMITS, MID_TICKS, Room
from trio.testing import MockClock

from mmd.core.book import Touch
from mmd.core.market import NO_TOUCH
from mmd.domain import events as ev
from mmd.domain.reasons import Response, State, Switch, Why
from mmd.domain.settings import KillSwitches, PortfolioLimits, ScopeLimits
from mmd.replay.valuing import pnl_usd
from mmd.shell.totals import VALUE_SECONDS
from mmd.shell.worker import Worker


def limits(**changes: Any) -> PortfolioLimits:
    return msgspec.structs.replace(LIMITS, **changes)


def price(room: Room, worker: Worker, part: float) -> None:
    """Its mark and index are that part of what they were; everything is valued."""
    room.pump.post(worker, room.ticker(worker.symbol, round((part - 1.0) * MID_TICKS[worker.symbol])))
    room.pump.run()
    room.treasury.value_all()
    room.pump.run()


def own_limits(room: Room, worker: Worker, **changes: Any) -> None:
    """Other limits of its own, as a reload brings them."""
    settings = worker.machine.settings
    sources = {"max_drawdown_usd": "limits.per_symbol.max_drawdown_usd (mmd.yaml:7)"}
    other = msgspec.structs.replace(settings.limits, **changes)
    changed = msgspec.structs.replace(settings, limits=other, sources=sources)
    room.pump.post(worker, ev.SettingsChanged(changed, room.now_ns))
    room.pump.run()
    room.treasury.change_limits(LIMITS, KillSwitches(), [worker])


def state(worker: Worker) -> tuple[State, Why]:
    return (worker.machine.state, worker.machine.why)


def alerts(room: Room) -> list[tuple[str, str | None, str | None]]:
    return [(line.name, line.exchange, line.symbol) for line in room.alerts.active()]


# --- bounds -------------------------------------------------------------------------------------------


async def test_a_symbol_gets_its_bounds_once_it_has_a_price(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.run()
    assert worker.machine.bounds() == (0, 0)  # no price, no room
    room.connect(worker)
    assert worker.machine.bounds() == (-10, 10)  # its own limit, in lots
    assert room.treasury.machine.shares[worker.key].acked == 10


async def test_two_symbols_share_a_total_and_room_moves_when_it_is_given_up(autojump_clock: MockClock) -> None:
    room = Room(limits=limits(max_notional_usd=Decimal(102)))
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
    room.treasury.change_limits(limits(max_notional_usd=Decimal(51)), KillSwitches(), [worker])
    room.pump.run()
    assert worker.machine.bounds() == (-5, 5)
    assert room.pump.outbox.limits is room.treasury.machine.limits


async def test_a_position_that_nobody_knows_yet_gives_no_bounds(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    for event in (ev.DataLinkUp(room.now_ns), room.book(), room.ticker()):
        room.pump.post(worker, event)
    room.pump.run()
    room.treasury.value_all()
    room.pump.run()
    assert worker.machine.bounds() == (0, 0)


# --- trips --------------------------------------------------------------------------------------------


async def test_a_drawdown_halts_every_symbol_once_until_somebody_has_looked(autojump_clock: MockClock) -> None:
    room = Room(limits=limits(max_drawdown_usd=Decimal(1)))
    btc, eth = room.quoting(BTC, size=50), room.quoting(ETH)
    for number in range(5):
        room.fill(btc, f"t{number}")
    room.pump.run()
    for _ in range(3):
        price(room, btc, 0.9)  # 50 USD long lose 10 %
    assert state(btc) == state(eth) == (State.HALTED, Why.DRAWDOWN)
    assert room.pump.alarm.last[Switch.DRAWDOWN].trips == 1
    assert room.treasury.totals().drawdown_usd == pytest.approx(5.0, rel=0.05)
    assert alerts(room) == [("MmdDrawdown", None, None)]
    for worker in (btc, eth):
        room.pump.post(worker, ev.ResetRequested(0, "test", "looked", room.now_ns))
    room.pump.run()
    room.treasury.reset([btc, eth])
    price(room, btc, 0.9)
    assert state(btc) == state(eth) == (State.PAUSED, Why.RESET)
    assert alerts(room) == []
    price(room, btc, 0.85)
    assert state(btc) == state(eth) == (State.HALTED, Why.DRAWDOWN)


async def test_a_daily_loss_halts_again_right_after_a_reset(autojump_clock: MockClock) -> None:
    room = Room(limits=limits(max_daily_loss_usd=Decimal(5)))
    worker = room.worker()
    room.connect(worker, position_lots=5)
    price(room, worker, 0.89)
    assert state(worker) == (State.HALTED, Why.DAILY_LOSS)
    room.pump.post(worker, ev.ResetRequested(0, "test", "looked", room.now_ns))
    room.pump.run()
    assert state(worker) == (State.PAUSED, Why.RESET)
    room.treasury.reset([worker])
    room.pump.run()
    assert state(worker) == (State.HALTED, Why.DAILY_LOSS)
    assert alerts(room) == [("MmdDailyLoss", None, None)]


async def test_a_symbols_own_drawdown_halts_it_alone(autojump_clock: MockClock) -> None:
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    room.connect(btc, position_lots=5)
    room.connect(eth)
    own_limits(room, btc, max_drawdown_usd=Decimal(5))
    price(room, btc, 0.89)
    assert state(btc) == (State.HALTED, Why.DRAWDOWN)
    assert "allowed 5.00 USD (limits.per_symbol.max_drawdown_usd (mmd.yaml:7))" in btc.machine.detail
    assert state(eth) == (State.PAUSED, Why.STARTUP)
    assert alerts(room) == [("MmdDrawdown", "deribit", BTC)]


async def test_a_breach_on_an_exchange_halts_its_symbols(autojump_clock: MockClock) -> None:
    room = Room(limits=limits(per_exchange={"deribit": ScopeLimits(max_contracts=Decimal(6))}))
    btc, eth = room.worker(BTC), room.worker(ETH)
    room.connect(eth)
    room.connect(btc, position_lots=7)
    assert state(btc) == state(eth) == (State.HALTED, Why.EXPOSURE)
    assert alerts(room) == [("MmdExposure", "deribit", None)]
    line = next(line for line in room.treasury.lines() if line.scope == "exchange")
    assert (line.target, line.unit, line.used, line.limit) == ("deribit", "contracts", 7.0, 6.0)
    assert line.oversubscribed == pytest.approx(20 / 6)
    assert line.key == "limits.portfolio.per_exchange.deribit.max_contracts"


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        pytest.param(Response.PAUSE, (State.PAUSED, Why.VALUATION), id="pause"),
        pytest.param(Response.HALT, (State.HALTED, Why.VALUATION), id="halt"),
    ],
)
async def test_what_cannot_be_valued_does_what_is_configured(
    response: Response, wanted: tuple[State, Why], autojump_clock: MockClock
) -> None:
    room = Room()
    switches = KillSwitches(responses={Switch.VALUATION: response}, max_unvalued_seconds=3.0)
    room.treasury.change_limits(LIMITS, switches, [])
    btc, eth = room.quoting(BTC), room.quoting(ETH)
    room.fill(btc, "t")
    price(room, btc, 0.99)  # a loss in coins, which only the index turns into dollars
    market = btc.machine.market
    market.index, seen = 0.0, market.index
    room.treasury.value_all()
    await trio.sleep(3.0)
    assert state(eth)[0] is State.ACTIVE
    room.treasury.value_all()
    room.pump.run()
    assert state(eth) == wanted
    assert alerts(room) == [("MmdValuation", None, None)]
    market.index = seen
    room.treasury.value_all()
    if response is Response.HALT:  # the cause is over, and everybody is HALTED for it all the same
        assert alerts(room) == [("MmdValuation", None, None)]
        for worker in (btc, eth):
            room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
        room.pump.run()
    assert alerts(room) == []


async def test_a_dead_ticker_hides_no_loss(autojump_clock: MockClock) -> None:
    """The book falls and the mark stands still: its symbol pauses, and soon the whole house does."""
    room = Room(limits=limits(max_drawdown_usd=Decimal(10)))
    room.treasury.change_limits(limits(max_drawdown_usd=Decimal(10)), KillSwitches(max_unvalued_seconds=3.0), [])
    btc, eth = room.quoting(BTC), room.quoting(ETH)
    room.fill(btc, "t")
    for second in range(16):
        for event in (room.book(ETH), room.ticker(ETH)):
            room.pump.post(eth, event)
        room.pump.post(btc, room.book(BTC, shift=-10 * second))
        room.pump.run()
        room.treasury.value_all()
        room.pump.run()
        if second == 10:
            assert state(btc)[0] is State.ACTIVE and room.treasury.totals().pnl_usd is not None
        await trio.sleep(1.0)
    assert state(btc) == (State.PAUSED, Why.VALUATION)
    assert state(eth) == (State.PAUSED, Why.VALUATION)
    assert ("MmdValuation", None, None) in alerts(room) and ("MmdMarketData", "deribit", BTC) in alerts(room)
    assert room.treasury.totals().drawdown_usd is None


# --- what is known ------------------------------------------------------------------------------------


async def test_profits_that_cannot_be_known_are_not_invented(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    assert pnl_usd(worker.machine) == 0.0  # flat: nothing to value
    room.connect(worker, position_lots=3)
    assert pnl_usd(worker.machine) == pytest.approx(0.0)
    assert room.treasury.losses() == {worker.key: pytest.approx((0.0, 0.0))}
    worker.machine.market.mark = 0.0
    seen = worker.machine.touch
    worker.machine.touch = Touch(seen.bid_ticks + 10, seen.bid_lots, seen.ask_ticks + 10, seen.ask_lots)
    assert (pnl_usd(worker.machine) or 0.0) > 0.0  # by our own fair value, where the exchange gives no mark
    worker.machine.touch = NO_TOUCH
    assert pnl_usd(worker.machine) is None
    room.treasury.value_all()
    totals = room.treasury.totals()
    assert (totals.pnl_usd, totals.day_pnl_usd, totals.drawdown_usd) == (None, None, None)
    assert room.treasury.losses() == {}


async def test_open_orders_have_their_line(autojump_clock: MockClock) -> None:
    room = Room(limits=limits(max_open_orders=8))
    room.quoting(BTC)
    room.worker(ETH)
    line = next(line for line in room.treasury.lines() if line.unit == "orders")
    assert (line.scope, line.used, line.worst, line.limit, line.oversubscribed) == ("portfolio", 2.0, 4.0, 8.0, 0.5)


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
