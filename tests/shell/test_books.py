"""The ledgers, kill switches and protections as the desk shows them."""

from decimal import Decimal

import pytest
from shell_kit import BTC, ETH, Room
from trio.testing import MockClock

from mmd.domain import events as ev
from mmd.domain.actions import Tripped
from mmd.domain.reasons import Mode, Response, Scope, Side, Switch, Why
from mmd.domain.settings import KillSwitches
from mmd.domain.switches import SWITCHES
from mmd.exchanges.api import ProtectionStatus
from mmd.shell import books
from mmd.shell.desk import SwitchLine
from mmd.shell.worker import Worker


def lines(room: Room, settings: KillSwitches | None = None) -> dict[Switch, SwitchLine]:
    found = books.switch_lines(
        room.pump.alarm, settings or KillSwitches(), room.pump.workers.values(), lambda key: f"<{key}>"
    )
    return {line.switch: line for line in found}


def halt(room: Room, worker: Worker, why: Why) -> None:
    room.pump.post(worker, ev.HaltRequested(0, why, "mmd", "", room.now_ns))
    room.pump.run()


# --- kill switches ------------------------------------------------------------------------------------


async def test_every_switch_has_its_line(autojump_clock: MockClock) -> None:
    responses = {**KillSwitches().responses, Switch.CLOCK_SKEW: Response.HALT}
    found = lines(Room(), KillSwitches(responses=responses))
    assert list(found) == list(SWITCHES)
    assert all((line.trips, line.last, line.tripped) == (0, None, []) for line in found.values())
    assert found[Switch.CLOCK_SKEW].response is Response.HALT
    assert found[Switch.CLOCK_SKEW].thresholds == [
        "kill_switches.clock_skew.max_ms = <kill_switches.clock_skew.max_ms>"
    ]
    assert all(line.runbook == SWITCHES[switch].runbook for switch, line in found.items())


@pytest.mark.parametrize("switch", list(SWITCHES))
async def test_a_line_names_every_scope_that_its_switch_trips_in(autojump_clock: MockClock, switch: Switch) -> None:
    shown = lines(Room())[switch].scope
    assert SWITCHES[switch].scope in shown.split(", ")
    assert ("," in shown) is (switch in (Switch.EXPOSURE, Switch.DRAWDOWN, Switch.DAILY_LOSS))


async def test_a_line_says_who_is_tripped_now_and_what_happened_last(autojump_clock: MockClock) -> None:
    room = Room()
    room.worker(BTC)
    room.pump.trip(Tripped(Switch.CLOCK_SKEW, Scope.EXCHANGE, "deribit", Response.PAUSE, "3 s"))
    room.pump.trip(Tripped(Switch.VALUATION, Scope.PORTFOLIO, "", Response.PAUSE, "no index"))
    room.pump.trip(Tripped(Switch.ORDERS_LEFT, Scope.SYMBOL, f"deribit/{BTC}", Response.WARN, "2 orders"))
    found = lines(room)
    assert {switch: line.tripped for switch, line in found.items() if line.tripped} == {
        Switch.CLOCK_SKEW: ["deribit"],
        Switch.VALUATION: ["portfolio"],
        Switch.ORDERS_LEFT: [f"deribit/{BTC}"],
    }
    skew = found[Switch.CLOCK_SKEW]
    assert (skew.trips, skew.last, skew.last_detail) == (1, pytest.approx(room.now_ns * 1e-9), "3 s")


async def test_who_is_halted_is_named_once_with_and_without_an_alert(autojump_clock: MockClock) -> None:
    """A halt of an earlier run has no alert of this one."""
    room = Room()
    btc, eth = room.worker(BTC), room.worker(ETH)
    halt(room, btc, Why.SELF_TRADE)
    halt(room, eth, Why.SELF_TRADE)
    room.pump.alarm.raise_(Tripped(Switch.SELF_TRADE, Scope.SYMBOL, btc.key, Response.HALT, "t1"))
    assert lines(room)[Switch.SELF_TRADE].tripped == [btc.key, eth.key]


async def test_what_two_switches_share_a_reason_for_is_the_switchs_that_halts(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    halt(room, worker, Why.OUTCOME_UNKNOWN)
    found = lines(room)
    assert (found[Switch.OUTCOME_UNKNOWN].tripped, found[Switch.ORDERS_LEFT].tripped) == ([worker.key], [])


async def test_a_pause_is_no_trip(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    worker.machine.why = Why.SELF_TRADE
    assert lines(room)[Switch.SELF_TRADE].tripped == []


# --- ledgers ------------------------------------------------------------------------------------------


def imagined(room: Room, worker: Worker, bound: ev.Bound, lots: int, number: int) -> None:
    told = ("", bound, Side.BID, Decimal(80_000), lots, number, room.now_ns)
    room.pump.post(worker, ev.ShadowFilled(*told))
    room.pump.run()


async def test_the_shadows_ledgers_are_shown_once_anything_may_have_filled(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting(mode=Mode.SHADOW)
    assert [line.ledger for line in books.ledger_lines(worker, None, None)] == [books.REAL]
    imagined(room, worker, ev.Bound.OPTIMISTIC, 3, 1)
    real, sure, hoped = books.ledger_lines(worker, 1.5, 2.5)
    assert (real.ledger, sure.ledger, hoped.ledger) == (books.REAL, books.PESSIMISTIC, books.OPTIMISTIC)
    assert (real.position, sure.position, hoped.position) == (0, 0, 30)
    imagined(room, worker, ev.Bound.PESSIMISTIC, 2, 2)
    real, sure, hoped = books.ledger_lines(worker, 1.5, 2.5)
    assert (real.position, sure.position, hoped.position) == (0, 20, 30)
    assert (real.day_pnl_usd, real.drawdown_usd) == (1.5, 2.5)
    assert (sure.day_pnl_usd, sure.drawdown_usd) == (hoped.day_pnl_usd, hoped.drawdown_usd) == (None, None)
    shown = books.shadow_status(worker)
    assert (shown.pessimistic_position, shown.optimistic_position) == (20, 30)
    assert (shown.pessimistic_fills, shown.optimistic_fills) == (1, 1)


async def test_a_profit_is_what_was_earned_since_the_opening(autojump_clock: MockClock) -> None:
    """The position that was there at the start is no profit; 10 % of it lost is."""
    room = Room()
    worker = room.worker()
    room.connect(worker, position_lots=5)
    (line,) = books.ledger_lines(worker, None, None)
    assert line.opening != 0 and line.pnl == 0 and line.imbalance == 0
    room.pump.post(worker, room.ticker(shift=-16_000))
    room.pump.run()
    (line,) = books.ledger_lines(worker, None, None)
    assert line.value is not None and line.pnl == line.cash + line.value - line.opening
    assert line.pnl_usd == pytest.approx(-5.0, rel=0.01)


# --- protection ---------------------------------------------------------------------------------------


async def test_protection_is_shown_as_it_was_read(autojump_clock: MockClock) -> None:
    room = Room()
    room.exchange.protections = [
        ProtectionStatus(
            underlying="BTC", armed=True, detail="as configured", frozen_until_ns=None, checked_ns=5 * 10**9
        ),
        ProtectionStatus(underlying="ETH", armed=False, detail="frozen", frozen_until_ns=7 * 10**9, checked_ns=0),
    ]
    armed, frozen = books.protection_lines(room.exchanges.values())
    assert (armed.exchange, armed.underlying, armed.armed, armed.frozen_until, armed.checked) == (
        "deribit",
        "BTC",
        True,
        None,
        5.0,
    )
    assert (frozen.underlying, frozen.armed, frozen.frozen_until, frozen.checked) == ("ETH", False, 7.0, None)
