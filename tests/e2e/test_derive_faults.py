"""What Derive does to its clients: every order is known again, every fill is booked, and a halt leaves nothing."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from arena import ALL, BUY, DERIVE, HERE, HERE_ALL, HERE_BTC, NUDGE, SELL, THERE_BTC, Arena, arena
from still import BTC, D

from mmd.sandbox.derive.known import SESSION_KEY, WALLET
from mmd.sandbox.derive.levers import DeriveLevers
from mmd.shell.desk import Outcome

ACK_SECONDS = 0.1
PROTECTION = {"currency": "BTC", "interval_ms": 5000, "max_amount": 10**6}
IMPATIENT = {"limits": {"per_symbol": {"ack_timeout_seconds": ACK_SECONDS, "unknown_timeout_seconds": 5}}}


def levers(found: Arena) -> DeriveLevers:
    here = found.levers
    assert isinstance(here, DeriveLevers)
    return here


def bids(found: Arena) -> set[str]:
    return {order.order_id for order in found.resting(HERE_BTC) if order.direction is BUY}


# --- what is done, while both quotes rest --------------------------------------------------------


async def fail_half(found: Arena) -> None:
    """The old orders are gone, and no new ones came."""
    levers(found).fail_replaces(2)
    found.move(BTC, NUDGE)
    await found.until(lambda: not found.resting(HERE_BTC))


async def fail_half_after_a_fill(found: Arena) -> None:
    """The order that is replaced was filled a moment before, which nobody knows here."""
    levers(found).fail_replaces(2)
    found.levers.delay_fills(1, 200, found.account)
    found.levers.fill_quote(found.account, BTC, BUY, D(10))
    found.move(BTC, NUDGE)
    await found.until(lambda: len(bids(found)) == 0)


async def differ_in_fills(found: Arena) -> None:
    """11028: the replace expected other fills, and its old order is gone."""
    found.levers.delay_fills(1, 200, found.account)
    found.levers.fill_quote(found.account, BTC, BUY, D(10))
    found.move(BTC, NUDGE)


async def let_expire(found: Arena) -> None:
    """Their signatures end."""
    for order in found.resting(HERE_BTC):
        levers(found).expire_order(found.account, order.order_id)


async def lose_an_ack_and_fill(found: Arena) -> None:
    """A new bid rests, nobody said so, and it is filled."""
    old = bids(found)
    found.levers.lose_answers(1, "private/order")
    found.levers.fill_quote(found.account, BTC, BUY)
    await found.until(lambda: bids(found) - old)
    found.levers.fill_quote(found.account, BTC, BUY)


async def lose_every_word_and_fill(found: Arena) -> None:
    """The same, and no channel tells of the fill."""
    old = bids(found)
    found.levers.lose_answers(1, "private/order")
    found.levers.fill_quote(found.account, BTC, BUY)
    await found.until(lambda: bids(found) - old)
    found.levers.lose_fills(1, found.account)
    found.levers.fill_quote(found.account, BTC, BUY)


async def lose_a_replace_and_fill(found: Arena) -> None:
    """It has happened, nobody said so, and the successor is filled."""
    old = bids(found)
    found.levers.lose_answers(2, "private/replace")
    found.move(BTC, NUDGE)
    await found.until(lambda: bids(found) - old)
    found.levers.fill_quote(found.account, BTC, BUY, D(10))


async def send_late(found: Arena) -> None:
    """Replaces arrive after their answers were given up, and before they may not any more."""
    found.levers.delay_requests(2, 300, "private/replace")
    found.move(BTC, NUDGE)
    await trio.sleep(0.3)


async def send_too_late(found: Arena) -> None:
    """11022: they were valid for half a second only."""
    found.levers.delay_requests(2, 900, "private/replace")
    found.move(BTC, NUDGE)
    await trio.sleep(0.9)


async def cancel_elsewhere(found: Arena) -> None:
    """Somebody cancels everything of the wallet."""
    assert levers(found).cancel_wallet(WALLET) == 4


async def disconnect_elsewhere(found: Arena) -> None:
    """Another logged-in connection of the wallet ends, and takes all orders with it."""
    assert levers(found).disconnect_elsewhere(WALLET) == 4


async def spend_elsewhere(found: Arena) -> None:
    """Somebody else spends the wallet's window: every request is refused until the next one."""
    levers(found).exhaust(WALLET, "matching")
    found.move(BTC, NUDGE)
    await trio.sleep(0.5)


async def fetch_nothing(found: Arena) -> None:
    """The exchange says that it could not fetch the subaccount."""
    levers(found).fail_fetches(3)
    found.levers.fill_quote(found.account, BTC, SELL, D(10))


async def go_down(found: Arena) -> None:
    """Every request is answered with an internal error, which says nothing of what it did."""
    found.levers.begin_maintenance()
    found.levers.fill_quote(found.account, BTC, BUY, D(10))
    found.move(BTC, NUDGE)
    await trio.sleep(0.5)
    found.levers.end_maintenance()


CASES = [
    fail_half,
    fail_half_after_a_fill,
    differ_in_fills,
    let_expire,
    lose_an_ack_and_fill,
    lose_every_word_and_fill,
    lose_a_replace_and_fill,
    send_late,
    send_too_late,
    cancel_elsewhere,
    disconnect_elsewhere,
    fetch_nothing,
    go_down,
    pytest.param(spend_elsewhere, marks=pytest.mark.slow),  # a window is five seconds
]


@pytest.mark.parametrize("fault", CASES)
async def test_quoting_goes_on(
    fault: Callable[[Arena], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with arena(monkeypatch, tmp_path, IMPATIENT, DERIVE) as found:
        await fault(found)
        await found.until(lambda: all(found.quoted(key) for key in ALL) and agrees(found), 15.0)
        assert {found.state(key) for key in ALL} == {("ACTIVE", "resumed")}
        await leaves_nothing(found)


async def test_a_freeze_pauses_and_quoting_goes_on_when_it_has_thawed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody resets it: the exchange ends it by itself."""
    thaws = {"exchanges": {HERE: {"maker_protection": [{**PROTECTION, "frozen_ms": 4000}]}}}
    async with arena(monkeypatch, tmp_path, thaws, DERIVE) as found:
        found.levers.fill_quote(found.account, BTC, BUY, D(10))
        levers(found).freeze(found.account, "BTC")
        await found.until(lambda: found.state(HERE_BTC) == ("PAUSED", "maker_protection"))
        assert not found.resting(HERE_BTC)
        refused = await found.resume([HERE_BTC])
        assert refused.outcome is Outcome.REFUSED and "maker_protection" in refused.symbols[0].detail
        await found.until(lambda: frozen(found))
        await found.until(lambda: not frozen(found), 10.0)
        await found.quote([HERE_BTC])
        await found.until(lambda: agrees(found))
        await leaves_nothing(found)


def frozen(found: Arena) -> bool:
    return any(line.frozen_until is not None for line in found.daemon.protection())


async def test_a_wallet_that_is_cancelled_again_and_again_halts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second process on the wallet: once may be a person."""
    async with arena(monkeypatch, tmp_path, None, DERIVE) as found:
        while found.state(HERE_BTC)[0] == "ACTIVE":
            levers(found).cancel_wallet(WALLET)
            await found.until(lambda: found.quoted(HERE_BTC) or found.state(HERE_BTC)[0] != "ACTIVE")
        assert found.state(HERE_BTC) == ("HALTED", "foreign_orders")
        await found.until(lambda: not found.resting(HERE_BTC))
        assert agrees(found)


async def test_a_session_key_that_is_taken_away_pauses_that_exchange_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exchange cancels what the key has signed; nobody can log in any more."""
    async with arena(monkeypatch, tmp_path, None, DERIVE) as found:
        elsewhere = found.labels(THERE_BTC)
        keys = found.sandboxes[HERE].server.dialect.context.wallets.by_address[WALLET].keys
        registered = dict(keys)
        assert levers(found).remove_key(WALLET, SESSION_KEY) == 4
        found.move(BTC, NUDGE)
        await found.until(lambda: all(found.state(key)[0] != "ACTIVE" for key in HERE_ALL))
        await found.until(lambda: not any(found.resting(key) for key in HERE_ALL))
        assert found.labels(THERE_BTC) == elsewhere and found.state(THERE_BTC) == ("ACTIVE", "resumed")
        assert (await found.resume(HERE_ALL)).outcome is Outcome.REFUSED
        keys.update(registered)
        await found.until(lambda: all(found.worker(key).machine.market.trade_link for key in HERE_ALL), 20.0)
        await found.until(lambda: agrees(found))
        await found.quote(HERE_ALL)


# --- the judge -----------------------------------------------------------------------------------


def agrees(found: Arena) -> bool:
    """The daemon's books are the exchange's, and it never thought otherwise."""
    machine, there = found.worker(HERE_BTC).machine, found.position_of(BTC)
    assert found.daemon.cases(["all"], closed=True) == []
    average = float(machine.position.average)
    return found.row(HERE_BTC).position == there.size and average == pytest.approx(float(there.average_price))


async def leaves_nothing(found: Arena) -> None:
    result = await found.halt(seconds=10.0)
    assert result.outcome is Outcome.DONE, result
    assert not any(found.resting(key) for key in ALL)
    assert agrees(found)
