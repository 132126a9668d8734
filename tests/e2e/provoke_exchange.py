"""Provocations of an exchange as a whole, and of what becomes of our orders there."""

import math
from functools import partial

import trio
from arena import (
    BUY,
    DERIBIT,
    DERIVE,
    HERE,
    HERE_ALL,
    HERE_BTC,
    HERE_ETH,
    LIMIT_SECONDS,
    NUDGE,
    SELL,
    Arena,
    Provocation,
    connected,
    fill_the_book,
    halts,
    merged,
)
from still import BTC, OPERATOR, PRICES, D

from mmd.domain.reasons import Scope, Switch
from mmd.exchanges.session import RpcExchange
from mmd.sandbox.levers import ORDERS_AND_EDITS

# --- the exchange as a whole ---------------------------------------------------------------------


class Lag:
    """No exchange has an event bus yet: the property of the adapter is replaced for one of them."""

    seconds: float = 0.0


def lag_of(exchange: RpcExchange) -> float | None:
    return Lag.seconds if exchange.name == HERE else None


async def fall_behind(found: Arena, seconds: float) -> float:
    began = trio.current_time()
    Lag.seconds = seconds
    return began


async def catch_up(found: Arena) -> None:
    Lag.seconds = 0.0
    await found.until(lambda: not any(Switch.EVENT_LAG in found.worker(key).machine.held for key in HERE_ALL))


async def shift_clock(found: Arena, milliseconds: int) -> float:
    """The exchange's clock is wrong from now on."""
    began = trio.current_time()
    found.levers.shift_clock(milliseconds)
    return began


async def set_clock_right(found: Arena) -> None:
    found.levers.shift_clock(0)
    await found.until(lambda: not any(Switch.CLOCK_SKEW in found.worker(key).machine.held for key in HERE_ALL))


async def cut_again(found: Arena) -> float:
    """The second loss within the window, at least a second after the first: those within a second are one."""
    at = trio.current_time()
    found.levers.cut()
    await found.until(lambda: found.state(HERE_BTC)[0] == found.state(HERE_ETH)[0] == "PAUSED")
    await found.until(lambda: not any(found.worker(key).machine.market.trade_link for key in HERE_ALL))
    await connected(found)
    await trio.sleep_until(at + 1.0)
    await found.quote(HERE_ALL)
    began = trio.current_time()
    found.levers.cut()
    return began


async def trip_protection(found: Arena) -> float:
    began = trio.current_time()
    found.levers.trip_protection(found.account, "btc_usd")
    return began


async def reset_protection(found: Arena) -> None:
    line = await found.daemon.reset_protection(HERE, "BTC", "looked at it", OPERATOR)
    assert line.armed and line.frozen_until is None


async def withdraw_protection(found: Arena) -> float:
    """The account loses the right to it: the next order is refused."""
    found.levers.grant_protection(found.account, granted=False)
    began = trio.current_time()
    found.move(BTC, NUDGE)
    return began


async def grant_protection(found: Arena) -> None:
    found.levers.grant_protection(found.account, granted=True)
    await reset_protection(found)


PROTECTED = {
    "exchanges": {
        HERE: {
            "maker_protection": [{"underlying": "BTC", "interval_seconds": 5, "frozen_seconds": 0, "max_quantity": 1}]
        }
    }
}
PROTECTED_THERE = {
    "exchanges": {
        HERE: {"maker_protection": [{"currency": "BTC", "interval_ms": 5000, "frozen_ms": 0, "max_amount": 10**6}]}
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
        spoken=(DERIBIT.type,),
    ),
    Provocation(
        Switch.MAKER_PROTECTION,
        "the exchange's protection fires, and only what it pulls tells of that",
        trip_protection,
        reset_protection,
        detail="it pulled order",
        blocked="maker_protection",
        config=PROTECTED_THERE,
        spoken=(DERIVE.type,),
    ),
    Provocation(
        Switch.MAKER_PROTECTION,
        "the account loses the right to it",
        withdraw_protection,
        grant_protection,
        blocked="maker_protection",
        config=merged(PROTECTED, {"spreads": {"plain": {"requote": "replace"}}}),
        spoken=(DERIBIT.type,),
    ),
]

# --- our orders ----------------------------------------------------------------------------------


async def refuse(found: Arena) -> float:
    """Every place and amend is refused, and the market moves."""
    found.levers.refuse_orders(None)
    began = trio.current_time()
    found.move(BTC, NUDGE)
    return began


async def answer_again(found: Arena) -> None:
    found.levers.disarm()
    await known_again(found)


async def known_again(found: Arena) -> None:
    await found.until(lambda: found.worker(HERE_BTC).machine.own.unknown == 0)


async def fill_often(found: Arena) -> float:
    began = trio.current_time()
    for _ in range(4):
        found.levers.fill_quote(found.account, BTC, BUY, D(10))
    return began


async def fill_much(found: Arena) -> float:
    began = trio.current_time()
    found.levers.fill_quote(found.account, BTC, BUY)
    found.levers.fill_quote(found.account, BTC, SELL)
    return began


async def lose_answers(found: Arena) -> float:
    """Amends have their effect, and nobody says so."""
    found.levers.lose_answers(None, ORDERS_AND_EDITS)
    began = trio.current_time()
    found.move(BTC, NUDGE)
    return began + ACK_SECONDS


async def lose_requests(found: Arena) -> float:
    found.levers.lose_requests(None, ORDERS_AND_EDITS)
    began = trio.current_time()
    found.move(BTC, NUDGE)
    return began + ACK_SECONDS


async def lose_every_word(found: Arena) -> float:
    """Nor is it told what became of them when asked; soon after the deadline it is."""
    found.levers.lose_answers(None, "private/")
    began = trio.current_time()
    found.move(BTC, NUDGE)
    found.sandboxes[HERE].later(ACK_SECONDS + UNKNOWN_SECONDS + 0.05, found.levers.disarm)
    return began + ACK_SECONDS + UNKNOWN_SECONDS


async def drift(found: Arena) -> float:
    """The exchange counts another position than the fills that it told; Derive says so only when it is asked."""
    began = trio.current_time()
    found.levers.drift_position(found.account, BTC, D(50))
    if found.ground is DERIVE:
        await found.until(lambda: found.worker(HERE_BTC).machine.cases or found.state(HERE_BTC)[0] != "ACTIVE")
        assert trio.current_time() - began < RECONCILE_SECONDS + LIMIT_SECONDS
        began = trio.current_time()
    return began


async def misremember(found: Arena) -> float:
    """The exchange's own average of our position is another than that of the fills that it told."""
    found.levers.fill_quote(found.account, BTC, BUY, D(10))
    await found.until(lambda: found.worker(HERE_BTC).machine.position.lots)
    found.position_of(BTC).average_price += 400
    return trio.current_time()  # after a trade it is looked soon


async def remember(found: Arena) -> None:
    found.position_of(BTC).average_price -= 400
    await found.until(lambda: not found.worker(HERE_BTC).machine.cases)


async def place_under_our_name(found: Arena) -> float:
    began = trio.current_time()
    price = PRICES[BTC] - 5000
    found.levers.foreign_order(
        found.account, BTC, BUY, D(10), price, label=f"mmd-kill-{BTC}-b-abc123-1", post_only=True
    )
    return began


async def trade_with_ourselves(found: Arena) -> float:
    """Somebody else on the account sells through the book into our bid."""
    found.set_book(BTC, [(-1, 10)], [(1, 10)])
    await found.until(lambda: found.quoted(HERE_BTC))
    began = trio.current_time()
    found.levers.self_trade(found.account, BTC, SELL, D(30))
    return began


ACK_SECONDS, UNKNOWN_SECONDS = 0.1, 0.2
RECONCILE_SECONDS = 1

ORDERS = [
    Provocation(
        Switch.REJECTION_STORM,
        "every amend is refused",
        refuse,
        answer_again,
        detail="2 refusals in 60 s, allowed 1",
        config={"limits": {"per_symbol": {"max_rejects": 1}}},
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
        known_again,
        detail="no word of mmd-kill-",
        config={
            "limits": {"per_symbol": {"ack_timeout_seconds": ACK_SECONDS, "unknown_timeout_seconds": UNKNOWN_SECONDS}}
        },
    ),
    Provocation(
        Switch.POSITION_DRIFT,
        "the exchange counts 50 more",
        drift,
        detail="exchange says 50, fills say 0",
        config={"reconciliation": {"interval_seconds": RECONCILE_SECONDS}},
    ),
    Provocation(
        Switch.RECONCILIATION,
        "the exchange has another average price",
        misremember,
        remember,
        detail="average: ours average",
        blocked="no_open_cases",
        config={"reconciliation": {"interval_seconds": RECONCILE_SECONDS}},
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
        fill_the_book,
        detail="both sides are ours",
    ),
]
