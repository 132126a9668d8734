"""Every kill switch, provoked at the exchange or at the machine's edge: state, alert, metric and an empty book in time."""

import math
import os
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
import trio
from provocations import (
    ACCOUNT,
    ALL,
    HERE,
    HERE_BTC,
    HERE_ETH,
    THERE_BTC,
    Arena,
    Provocation,
    alert_name,
    arena,
    judge,
    nothing,
)
from still import BTC, ETH, PRICES

from mmd.core.machine import SymbolMachine
from mmd.domain.actions import Decision
from mmd.domain.events import Mail
from mmd.domain.reasons import Response, Scope, State, Switch, Why
from mmd.domain.switches import SWITCHES
from mmd.exchanges.deribit.session import Deribit
from mmd.sandbox.levers import ORDERS_AND_EDITS
from mmd.sandbox.model import Direction, InstrumentState
from mmd.shell.desk import Outcome
from mmd.shell.sentinel import sentinel
from mmd.shell.worker import MAILBOX

D = Decimal
BUY, SELL = Direction.BUY, Direction.SELL
HERE_ALL = (HERE_BTC, HERE_ETH)
HOLDING = 1000  # USD, one whole quote


def halts(switch: Switch) -> dict[str, object]:
    return {"kill_switches": {switch.value: {"response": "halt"}}}


# --- totals --------------------------------------------------------------------------------------


async def trade_elsewhere(found: Arena) -> float:
    """Somebody else on this account buys what nobody here ordered."""
    began = trio.current_time()
    found.levers.take(BTC, BUY, D(5000), account=ACCOUNT)
    return began


async def trade_back(found: Arena) -> None:
    found.levers.take(BTC, SELL, D(5000), account=ACCOUNT)
    await found.until(lambda: found.row(HERE_BTC).position == 0)


async def hold(found: Arena) -> None:
    """Our whole bid is filled, and quoting goes on."""
    found.levers.fill_quote(ACCOUNT, BTC, BUY)
    await found.until(lambda: found.row(HERE_BTC).position == HOLDING and found.quoted(HERE_BTC))


async def fall(found: Arena) -> float:
    """The mark of what we hold falls by 2 %; the book stays."""
    await hold(found)
    began = trio.current_time()
    found.refer(BTC, mark=PRICES[BTC] * D("0.98"))
    return began


async def crash(found: Arena) -> float:
    """Book, mark and index fall by 3 %, through our bid."""
    began = trio.current_time()
    found.move(BTC, -3)
    return began


async def rise_again(found: Arena) -> None:
    found.move(BTC, 0)
    await found.until(lambda: (found.daemon.ledger([HERE_BTC])[0].day_pnl_usd or 0.0) > -5.0)


async def lose_the_index(found: Arena) -> float:
    await hold(found)
    began = trio.current_time()
    found.refer(BTC, index=D(0))
    return began + VALUATION_SECONDS


async def find_the_index(found: Arena) -> None:
    found.refer(BTC, index=PRICES[BTC])
    await found.until(lambda: found.daemon.ledger([HERE_BTC])[0].day_pnl_usd is not None)
    await found.until(lambda: not found.alerts(Switch.VALUATION))


VALUATION_SECONDS = 0.2
LOSSES = {"max_drawdown_usd": 5, "max_daily_loss_usd": None}
SMALL = {"limits": {"portfolio": {"max_exposure": {"BTC": "0.05"}}}}

TOTALS = [
    Provocation(
        Switch.EXPOSURE,
        "5000 USD bought by somebody else on the account",
        trade_elsewhere,
        trade_back,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="limits.portfolio.max_exposure.BTC",
        config={"limits": {"portfolio": {"max_exposure": {"BTC": 0.05}}}},
    ),
    Provocation(
        Switch.EXPOSURE,
        "the same, over the total of one exchange",
        trade_elsewhere,
        trade_back,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail=f"limits.portfolio.per_exchange.{HERE}.max_notional_usd",
        config={"limits": {"portfolio": {"per_exchange": {HERE: {"max_notional_usd": 4000}}}}},
    ),
    Provocation(
        Switch.DRAWDOWN,
        "the mark falls 2 %, limit of the symbol",
        fall,
        detail="USD below the high-water mark, allowed 5.00 USD (limits.per_symbol.max_drawdown_usd",
        config={"limits": {"per_symbol": {"max_drawdown_usd": 5}}},
    ),
    Provocation(
        Switch.DRAWDOWN,
        "the market falls 3 % through our bid, limit of the portfolio",
        crash,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="allowed 5.00 USD (limits.portfolio.max_drawdown_usd)",
        config={"limits": {"portfolio": {"max_drawdown_usd": 5}}},
    ),
    Provocation(
        Switch.DAILY_LOSS,
        "the mark falls 2 %, limit of the symbol",
        fall,
        rise_again,
        detail="USD lost since 00:00 UTC, allowed 5.00 USD (limits.per_symbol.max_daily_loss_usd",
        config={"limits": {"per_symbol": {"max_daily_loss_usd": 5}}},
    ),
    Provocation(
        Switch.DAILY_LOSS,
        "the market falls 3 % through our bid, limit of the portfolio",
        crash,
        rise_again,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="allowed 5.00 USD (limits.portfolio.max_daily_loss_usd)",
        config={"limits": {"portfolio": {"max_daily_loss_usd": 5}}},
    ),
    Provocation(
        Switch.VALUATION,
        f"no index for {VALUATION_SECONDS:g} s while a position is held",
        lose_the_index,
        find_the_index,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail=f"{HERE_BTC}: index missing",
        config={"kill_switches": {"valuation": {"max_seconds": VALUATION_SECONDS}}},
    ),
]

# --- the market ----------------------------------------------------------------------------------


async def lock(found: Arena) -> float:
    began = trio.current_time()
    found.levers.lock(BTC)
    return began


async def settle(found: Arena) -> float:
    began = trio.current_time()
    found.levers.set_state(BTC, InstrumentState.SETTLEMENT)
    return began


async def lock_platform(found: Arena) -> float:
    began = trio.current_time()
    found.levers.lock_platform("btc_usd")
    return began


async def reopen(found: Arena) -> None:
    found.levers.unlock_platform()
    found.levers.reopen(BTC)
    await found.until(lambda: found.worker(HERE_BTC).machine.market.tradable)


async def cross(found: Arena) -> float:
    began = trio.current_time()
    found.levers.cross(BTC)
    return began


async def uncross(found: Arena) -> None:
    found.levers.uncross(BTC)
    await found.until(lambda: found.worker(HERE_BTC).machine.market.book_trouble is None)


async def gap(found: Arena) -> float:
    """The second message shows that one is missing."""
    found.levers.gap(BTC)
    began = trio.current_time()
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    return began


async def whole_again(found: Arena) -> None:
    await found.until(lambda: found.worker(HERE_BTC).machine.market.book is not None)


async def silence(found: Arena) -> float:
    found.levers.silence(BTC)
    return found.worker(HERE_BTC).machine.market.data_ns * 1e-9 - clock_offset(found) + STALE_SECONDS


def clock_offset(found: Arena) -> float:
    """What to take off a time of the daemon's clock to have trio's."""
    return found.daemon.clock.now_ns() * 1e-9 - trio.current_time()


async def speak(found: Arena) -> None:
    found.levers.speak(BTC)
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    await found.until(lambda: found.worker(HERE_BTC).machine.market.trouble(*now_and_rules(found)) is None)


def now_and_rules(found: Arena):
    return found.daemon.clock.now_ns(), found.worker(HERE_BTC).machine.rules


async def jump(found: Arena) -> float:
    began = trio.current_time()
    found.move(BTC, 12)
    return began


async def cut(found: Arena) -> float:
    began = trio.current_time()
    assert found.levers.cut() == 2
    return began


async def connected(found: Arena) -> None:
    await found.until(lambda: all(found.worker(key).machine.market.trade_link for key in HERE_ALL))
    await found.until(lambda: all(found.worker(key).machine.market.book is not None for key in HERE_ALL))


STALE_SECONDS = 0.3

MARKET = [
    Provocation(
        Switch.MARKET_HALT,
        "the instrument is locked: cancels pass",
        lock,
        reopen,
        detail="instrument is locked",
        blocked="market_data",
    ),
    Provocation(
        Switch.MARKET_HALT,
        "it is being settled: the exchange pulls the orders",
        settle,
        reopen,
        detail="instrument is settlement",
        blocked="market_data",
    ),
    Provocation(
        Switch.MARKET_HALT,
        "the platform is locked, response halt",
        lock_platform,
        reopen,
        detail="instrument is locked",
        config=halts(Switch.MARKET_HALT),
    ),
    Provocation(
        Switch.MARKET_DATA,
        "a crossed book",
        cross,
        uncross,
        why=Why.CROSSED_BOOK,
        detail="best bid",
        blocked="market_data",
    ),
    Provocation(Switch.MARKET_DATA, "a gap in the book", gap, whole_again, why=Why.BOOK_GAP),
    Provocation(
        Switch.MARKET_DATA,
        f"silence for stale_seconds = {STALE_SECONDS:g}",
        silence,
        speak,
        detail="no market data for 0.3 s",
        blocked="market_data",
        config={"market_data": {"stale_seconds": STALE_SECONDS}},
    ),
    Provocation(
        Switch.MARKET_DATA, "the price jumps by 12 %", jump, why=Why.PRICE_JUMP, detail="mid moved 1200 bps"
    ),
    Provocation(
        Switch.MARKET_DATA,
        "the same, response halt",
        jump,
        why=Why.PRICE_JUMP,
        detail="mid moved 1200 bps",
        config=halts(Switch.MARKET_DATA),
    ),
    Provocation(
        Switch.MARKET_DATA,
        "both links are cut",
        cut,
        connected,
        scope=HERE_ALL,
        why=Why.EXCHANGE_DISCONNECTED,
        detail="link down",
        blocked="data_link",
    ),
]

# --- the exchange as a whole ---------------------------------------------------------------------


class Lag:
    """No exchange has an event bus yet: the property of the adapter is replaced for one of them."""

    seconds: float = 0.0


def lag_of(exchange: Deribit) -> float | None:
    return Lag.seconds if exchange.name == HERE else None


async def fall_behind(found: Arena, seconds: float) -> float:
    began = trio.current_time()
    Lag.seconds = seconds
    return began


async def catch_up(found: Arena) -> None:
    Lag.seconds = 0.0
    await found.until(lambda: not found.alerts(Switch.EVENT_LAG))


async def shift_clock(found: Arena, milliseconds: int) -> float:
    """The exchange's clock is wrong from now on."""
    began = trio.current_time()
    found.levers.shift_clock(milliseconds)
    return began


async def set_clock_right(found: Arena) -> None:
    found.levers.shift_clock(0)
    await found.until(lambda: not found.alerts(Switch.CLOCK_SKEW))


async def cut_again(found: Arena) -> float:
    """The second loss within the window, at least a second after the first: those within a second are one."""
    at = trio.current_time()
    found.levers.cut()
    await found.until(lambda: found.state(HERE_BTC)[0] == found.state(HERE_ETH)[0] == "PAUSED")
    await connected(found)
    await trio.sleep_until(at + 1.0)
    await found.quote(HERE_ALL)
    began = trio.current_time()
    found.levers.cut()
    return began


async def trip_protection(found: Arena) -> float:
    began = trio.current_time()
    found.levers.trip_protection(ACCOUNT, "btc_usd")
    return began


async def reset_protection(found: Arena) -> None:
    from still import OPERATOR

    line = await found.daemon.reset_protection(HERE, "BTC", "looked at it", OPERATOR)
    assert line.armed and line.frozen_until is None


async def withdraw_protection(found: Arena) -> float:
    """The account loses the right to it: the next order is refused."""
    found.levers.grant_protection(ACCOUNT, granted=False)
    began = trio.current_time()
    found.move(BTC, D("0.1"))
    return began


async def grant_protection(found: Arena) -> None:
    found.levers.grant_protection(ACCOUNT, granted=True)
    await reset_protection(found)


PROTECTED = {
    "exchanges": {
        HERE: {
            "maker_protection": [{"underlying": "BTC", "interval_seconds": 5, "frozen_seconds": 0, "max_quantity": 1}]
        }
    }
}

EXCHANGE = [
    Provocation(
        Switch.EVENT_LAG,
        "the event bus is 10 s behind (made up: no exchange has one)",
        partial(fall_behind, seconds=10.0),
        catch_up,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail="10.0 s behind the event bus, allowed 5",
        blocked="kill_switches",
    ),
    Provocation(
        Switch.EVENT_LAG,
        "its lag cannot be computed, response halt",
        partial(fall_behind, seconds=math.nan),
        catch_up,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail="nan s behind the event bus, allowed 5",
        config=halts(Switch.EVENT_LAG),
    ),
    Provocation(
        Switch.CLOCK_SKEW,
        "the exchange's clock is 3 s ahead",
        partial(shift_clock, milliseconds=3000),
        set_clock_right,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail="ms between the clocks, allowed 1000",
        blocked="kill_switches",
    ),
    Provocation(
        Switch.CLOCK_SKEW,
        "it is 3 s behind, response halt",
        partial(shift_clock, milliseconds=-3000),
        set_clock_right,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail="ms between the clocks, allowed 1000",
        config=halts(Switch.CLOCK_SKEW),
    ),
    Provocation(
        Switch.DISCONNECT_STORM,
        "the links are cut a second time",
        cut_again,
        connected,
        scope=HERE_ALL,
        of=Scope.EXCHANGE,
        detail="2 disconnects in 300 s, allowed 1",
        config={"kill_switches": {"disconnect_storm": {"max_disconnects": 1}}},
    ),
    Provocation(
        Switch.MAKER_PROTECTION,
        "the exchange's protection fires",
        trip_protection,
        reset_protection,
        detail="btc_usd",
        blocked="maker_protection",
        config=PROTECTED,
    ),
    Provocation(
        Switch.MAKER_PROTECTION,
        "the account loses the right to it",
        withdraw_protection,
        grant_protection,
        blocked="maker_protection",
        config=PROTECTED,
    ),
]

# --- our orders ----------------------------------------------------------------------------------


async def refuse(found: Arena) -> float:
    """Every place and amend is refused, and the market moves."""
    found.levers.refuse_orders(None)
    began = trio.current_time()
    found.move(BTC, D("0.2"))
    return began


async def answer_again(found: Arena) -> None:
    found.levers.disarm()


async def fill_often(found: Arena) -> float:
    began = trio.current_time()
    for _ in range(4):
        found.levers.fill_quote(ACCOUNT, BTC, BUY, D(10))
    return began


async def fill_much(found: Arena) -> float:
    began = trio.current_time()
    found.levers.fill_quote(ACCOUNT, BTC, BUY)
    found.levers.fill_quote(ACCOUNT, BTC, SELL)
    return began


async def lose_answers(found: Arena) -> float:
    """Amends have their effect, and nobody says so."""
    found.levers.lose_answers(None, ORDERS_AND_EDITS)
    began = trio.current_time()
    found.move(BTC, D("0.2"))
    return began + ACK_SECONDS


async def lose_requests(found: Arena) -> float:
    found.levers.lose_requests(None, ORDERS_AND_EDITS)
    began = trio.current_time()
    found.move(BTC, D("0.2"))
    return began + ACK_SECONDS


async def lose_every_word(found: Arena) -> float:
    """Nor is it told what became of them when asked; from half a second after the deadline on it is."""
    found.levers.lose_answers(None, "private/")
    began = trio.current_time()
    found.move(BTC, D("0.2"))
    late = began + ACK_SECONDS + UNKNOWN_SECONDS
    await trio.sleep_until(late + 0.1)
    found.levers.disarm()
    return late


async def drift(found: Arena) -> float:
    """The exchange counts another position than the fills that it told."""
    began = trio.current_time()
    found.levers.drift_position(ACCOUNT, BTC, D(50))
    return began


async def lose_a_fill(found: Arena) -> float:
    """A fill that no channel tells."""
    found.levers.lose_fills(1, ACCOUNT)
    began = trio.current_time()
    found.levers.fill_quote(ACCOUNT, BTC, BUY, D(10))
    return began


async def end_drift(found: Arena) -> None:
    """It stays so: a reset adopts it."""


async def place_under_our_name(found: Arena) -> float:
    began = trio.current_time()
    price = PRICES[BTC] - 5000
    found.levers.foreign_order(ACCOUNT, BTC, BUY, D(10), price, label=f"mmd-kill-{BTC}-b-abc123-1", post_only=True)
    return began


async def trade_with_ourselves(found: Arena) -> float:
    """Somebody else on the account sells through the book into our bid."""
    found.set_book(BTC, [(-1, 10)], [(1, 10)])
    await found.until(lambda: found.quoted(HERE_BTC))
    began = trio.current_time()
    found.levers.self_trade(ACCOUNT, BTC, SELL, D(30))
    return began


ACK_SECONDS, UNKNOWN_SECONDS = 0.1, 0.2

ORDERS = [
    Provocation(
        Switch.REJECTION_STORM,
        "every amend is refused",
        refuse,
        answer_again,
        detail="refusals in 60 s, allowed 2",
        config={"limits": {"per_symbol": {"max_rejects": 2}}},
    ),
    Provocation(
        Switch.REPEATED_FILLS,
        "four fills at once",
        fill_often,
        detail="4 fills in 60 s, allowed 3",
        config={"limits": {"per_symbol": {"max_fills": 3}}},
    ),
    Provocation(
        Switch.REPEATED_FILLS,
        "both quotes are taken whole",
        fill_much,
        detail="2000 filled in 60 s, allowed 1500",
        config={"limits": {"per_symbol": {"max_filled": 1500}}},
    ),
    Provocation(
        Switch.ACK_TIMEOUT,
        f"answers to amends are lost, ack_timeout_seconds = {ACK_SECONDS:g}",
        lose_answers,
        answer_again,
        detail="2 answers overdue in 60 s, allowed 1",
        config={
            "limits": {"per_symbol": {"ack_timeout_seconds": ACK_SECONDS}},
            "kill_switches": {"ack_timeout": {"max_timeouts": 1}},
        },
    ),
    Provocation(
        Switch.ACK_TIMEOUT,
        "amends are lost on their way, response pause",
        lose_requests,
        answer_again,
        detail="2 answers overdue in 60 s, allowed 1",
        config={
            "limits": {"per_symbol": {"ack_timeout_seconds": ACK_SECONDS}},
            "kill_switches": {"ack_timeout": {"max_timeouts": 1, "response": "pause"}},
        },
    ),
    Provocation(
        Switch.OUTCOME_UNKNOWN,
        f"no word of an order for unknown_timeout_seconds = {UNKNOWN_SECONDS:g}",
        lose_every_word,
        detail="no word of mmd-kill-",
        config={
            "limits": {
                "per_symbol": {"ack_timeout_seconds": ACK_SECONDS, "unknown_timeout_seconds": UNKNOWN_SECONDS}
            }
        },
    ),
    Provocation(
        Switch.POSITION_DRIFT,
        "the exchange counts 50 more",
        drift,
        end_drift,
        detail="exchange says 50, fills say 0",
    ),
    Provocation(
        Switch.FOREIGN_ORDERS,
        "a second daemon under our name places an order",
        place_under_our_name,
        detail="not placed by this daemon",
    ),
    Provocation(
        Switch.SELF_TRADE,
        "somebody else on the account sells into our bid",
        trade_with_ourselves,
        detail="both sides are ours",
    ),
]

# --- the machine ---------------------------------------------------------------------------------


class Bug:
    """Makes a machine do something else on each batch while it is armed."""

    def __init__(self, machine: SymbolMachine) -> None:
        self.what = ""
        self.real = machine.handle
        machine.handle = self.handle  # type: ignore[method-assign]

    def handle(self, events: Sequence[Mail], now_ns: int) -> list[Decision]:
        what, self.what = self.what, self.what if self.what == "always" else ""
        if what == "loop":
            while True:
                pass
        if what:
            raise ZeroDivisionError("a bug of ours")
        return self.real(events, now_ns)


async def bug(found: Arena, what: str) -> float:
    hurt = Bug(found.worker(HERE_BTC).machine)
    began = trio.current_time()
    hurt.what = what
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    return began


async def corrupt(found: Arena) -> float:
    """One accumulator of the ledger is changed behind its back; the next fill shows it."""
    found.worker(HERE_BTC).machine.position.ledger.sources.spread += D("0.001")
    began = trio.current_time()
    found.levers.fill_quote(ACCOUNT, BTC, BUY, D(10))
    return began


async def mend_ledger(found: Arena) -> None:
    found.worker(HERE_BTC).machine.position.ledger.sources.spread -= D("0.001")


async def flood(found: Arena) -> float:
    """Somebody else on the account takes more levels of the book at once than a mailbox holds."""
    levels = MAILBOX + 100
    found.set_book(BTC, [(-1, 500)], [(at, 10) for at in range(1, levels + 1)])
    await found.until(lambda: found.quoted(HERE_BTC))
    began = trio.current_time()
    found.levers.take(BTC, BUY, D(10) * levels, account=ACCOUNT)
    return began


async def lose_the_directory(found: Arena) -> float:
    """A file stands where the state directory was."""
    began = trio.current_time()
    found.state_dir.rename(found.state_dir.with_suffix(".away"))
    found.state_dir.touch()
    return began


async def find_the_directory(found: Arena) -> None:
    found.state_dir.unlink()
    found.state_dir.with_suffix(".away").rename(found.state_dir)
    await found.until(lambda: not found.daemon.register.failed)


WIDE_LIMITS = {"limits": {"per_symbol": {"max_fills": 100_000, "max_filled": 1_000_000, "max_position": 100_000}}}

MACHINE = [
    Provocation(
        Switch.LEDGER,
        "an accumulator is corrupted, then a fill",
        corrupt,
        mend_ledger,
        detail="off by",
    ),
    Provocation(
        Switch.WORKER_FAULT, "a machine raises", partial(bug, what="once"), detail="ZeroDivisionError: a bug of ours"
    ),
    Provocation(
        Switch.WORKER_FAULT,
        "a machine loops for ever: the sentinel calls it off after 0.5 s",
        partial(bug, what="loop"),
        detail="no decision within 0.5 s",
    ),
    Provocation(
        Switch.INBOX_OVERFLOW,
        f"{MAILBOX + 100} fills in one message",
        flood,
        detail=f"{MAILBOX} events wait",
        config=WIDE_LIMITS,
    ),
    Provocation(
        Switch.JOURNAL_FAILURE,
        "a file where the state directory was",
        lose_the_directory,
        find_the_directory,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="Not a directory",
    ),
]

CASES = [*TOTALS, *MARKET, *EXCHANGE, *ORDERS, *MACHINE]


# --- the judge -----------------------------------------------------------------------------------


def is_told(found: Arena, case: Provocation) -> None:
    """Alert, explanation and table of switches say what happened, and what to do."""
    row = SWITCHES[case.switch]
    names = {HERE: (HERE, None), "portfolio": (None, None)}
    lines = {(line.exchange, line.symbol): line for line in found.alerts(case.switch)}
    assert set(lines) == {names.get(target, tuple(target.split("/"))) for target in case.targets}
    for line in lines.values():
        assert line.severity == case.severity
        assert row.alert in line.summary and case.detail in line.detail and line.runbook == row.runbook
    for key in case.scope:
        explained = found.daemon.explain([key])[0]
        assert (explained.state, explained.reason) == (case.state, case.reason)
        assert case.detail in explained.detail
        for side in (explained.bid, explained.ask):
            assert side.startswith("withheld: ") and case.reason in side and case.state[:4] in side
    shown = next(line for line in found.daemon.switches() if line.switch == case.switch)
    assert shown.trips >= 1 and shown.last is not None and case.detail in shown.last_detail
    halted = case.scope if case.state is State.HALTED else ()
    assert shown.tripped == sorted({*case.targets, *halted})


async def is_left(found: Arena, case: Provocation) -> None:
    """The way back: refused while it lasts, possible when it is over; then nothing is said any more."""
    keys = case.scope
    if case.state is State.HALTED:
        refused = await found.resume(keys)
        assert {row.outcome for row in refused.symbols} == {Outcome.REFUSED}
        assert all(found.state(key) == ("HALTED", case.reason) for key in keys)
        await case.mend(found)
        assert all(found.state(key) == ("HALTED", case.reason) for key in keys)  # that it is over changes nothing
        await found.until(lambda: all(found.worker(key).proven for key in keys))
        done = await found.reset(keys)
        assert done.outcome is Outcome.DONE, done
        assert {found.state(key) for key in keys} == {("PAUSED", "reset")}
    else:
        if case.blocked:
            refused = await found.resume(keys)
            assert {row.outcome for row in refused.symbols} == {Outcome.REFUSED}
            assert all(case.blocked in row.detail for row in refused.symbols), refused
        await case.mend(found)
        assert all(found.row(key).state == "PAUSED" for key in keys)  # nobody said resume
    await found.quote(keys)
    await found.until(lambda: not found.alerts(case.switch))
    shown = next(line for line in found.daemon.switches() if line.switch == case.switch)
    assert shown.tripped == []


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_provocation(case: Provocation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Deribit, "event_lag_seconds", property(lag_of))
    monkeypatch.setattr(Lag, "seconds", 0.0)
    state = tmp_path / "state"
    state.mkdir()
    async with arena(monkeypatch, state, case.config) as found:
        others = {key: {order.order_id for order in found.resting(key)} for key in ALL if key not in case.scope}
        with sentinel(found.daemon.pump):
            await judge(found, case)
        is_told(found, case)
        for key, orders in others.items():
            assert found.state(key) == ("ACTIVE", "resumed")
            assert {order.order_id for order in found.resting(key)} == orders
        await is_left(found, case)


def test_every_switch_is_provoked() -> None:
    assert {case.switch for case in CASES} == set(Switch)
