"""Adapter, our own count and the sandbox's books agree, in each dialect: after crashes and late trades."""

import random
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import trio
import trio.testing
from place import PLACES, Place

from mmd.core.ledger import gain
from mmd.core.pnl import Position
from mmd.domain.actions import PlaceOrder, QueryOrder
from mmd.domain.events import (
    CashMoved,
    Mail,
    OrderAbsent,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
)
from mmd.domain.reasons import Side
from mmd.sandbox.model import Direction

Clock = trio.testing.MockClock
MS = 1_000_000


@pytest.fixture(params=list(PLACES))
async def place(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = PLACES[request.param](nursery)
    yield place
    nursery.cancel_scope.cancel()


# --- from one process to the next ----------------------------------------------------------------


def count(journal: list[Mail], position: Position) -> Position:
    """What a machine makes of it that saw all of this, whichever process it came through."""
    for event in journal:
        if isinstance(event, OrderFilled):
            position.fill(event, 0.0)
        elif isinstance(event, CashMoved):
            position.cash_moved(event)
        elif isinstance(event, PositionReported) and not position.known:
            position.adopt(event.position_lots, event.average_price)
    return position


def reported_ms(journal: list[Mail], number: int) -> int:
    """The exchange's time of the first (0) or last (-1) report of the position."""
    return [event for event in journal if isinstance(event, PositionReported)][number].exchange_ns // MS


async def trade_a_little(place: Place, draw: random.Random) -> None:
    """Some orders of ours are filled at once, in whatever way the exchange then tells of it; funding now and then."""
    faults = (
        lambda: place.levers.lose_fills(2, place.account),
        lambda: place.levers.repeat_fills(3, place.account),
        lambda: place.levers.delay_fills(2, 900, place.account),
        lambda: place.levers.split_fills(2, 700, place.account),
        lambda: place.levers.lose_answers(1),
        lambda: None,
    )
    draw.choice(faults)()
    for _ in range(draw.randrange(1, 8)):
        side = draw.choice((Side.BID, Side.ASK))
        ticks = place.near(-100 if side is Side.BID else 100)
        label = place.label(side)
        await place.send(PlaceOrder(label, side, ticks, draw.randrange(1, 50) * place.least))
        for order in place.levers.open_orders(place.account, place.symbol):
            amount = order.remaining if draw.random() < 0.6 else place.amount
            place.levers.fill_order(place.account, order.order_id, amount)
        if draw.random() < 0.3:
            place.levers.pay_funding(place.symbol, Decimal("0.0005"), hours=1)
        await trio.sleep(draw.choice((0.0, 0.01, 0.2)))


@pytest.mark.parametrize("seed", range(10))
async def test_no_fill_and_no_cash_is_lost_or_counted_twice(autojump_clock: Clock, place: Place, seed: int) -> None:
    """Crash after crash in the middle of bursts of fills, some of them told late, twice or never."""
    draw = random.Random(seed)
    await place.start(place.symbol)
    place.levers.pause_market()
    journal: list[Mail] = []
    for _ in range(3):
        await trade_a_little(place, draw)
        top = place.top()
        journal += await place.crash()
        place.levers.disarm()
        pause_seconds = draw.choice((0, 3, 100, 90_000))
        if pause_seconds > 1000:  # a day and more passes at the exchange, in no time
            place.levers.shift_clock(place.sandbox.clock.offset_ms + pause_seconds * 1000)
        else:
            await trio.sleep(pause_seconds)
        place.exchange = place.make(order_valid_ms=2000)
        place.exchange.known_until({place.symbol: reported_ms(journal, -1)}, {place.symbol: reported_ms(journal, 0)})
        place.remember(top)
        await place.begin(place.symbol)
    await trio.sleep(2)
    heard = place.heard()
    ours = count([*journal, *heard], Position(place.exchange.instruments[place.symbol]))
    first = next(at for at, event in enumerate(heard) if isinstance(event, OrdersReported | PositionReported))
    missed = {event.trade_id for event in heard if isinstance(event, OrderFilled)}
    assert missed == {event.trade_id for event in heard[:first] if isinstance(event, OrderFilled)}
    assert ours.lots == place.levers.position(place.account, place.symbol) / place.lot
    assert ours.fills == len(place.levers.trades(place.account, place.symbol))
    paid = [row.interest_pl for row in place.levers.transactions(place.account) if row.kind == "settlement"]
    assert ours.funding == sum(paid, Decimal(0))
    last = [event for event in heard if isinstance(event, PositionReported)][-1]
    assert last.position_lots == ours.lots
    if ours.lots:
        assert float(last.average_price) == pytest.approx(float(ours.average), rel=1e-7)
        assert (last.profit is not None) == place.tells_profit and last.mark > 0
        if last.profit is not None:
            expected = gain(ours.instrument, ours.lots, ours.average, Decimal(repr(last.mark)))
            assert float(last.profit) == pytest.approx(float(expected), abs=2e-8)


async def test_a_filled_order_whose_trades_are_listed_late(autojump_clock: Clock, place: Place) -> None:
    """Told neither by the answer nor by a channel; the order's state knows of the fill before its trades are listed."""
    await place.start(place.symbol)
    label = await place.rest(30 * place.least)
    place.forget()
    place.levers.list_trades_late(600)
    place.levers.lose_fills(1, place.account)
    place.levers.fill_quote(place.account, place.symbol, Direction.BUY)
    await place.send(QueryOrder(label, ""))
    await trio.sleep(0.3)
    assert not place.sink.of(OrderClosed)
    await place.until(lambda: place.sink.of(OrderClosed))
    kinds = [type(event) for event in place.heard() if isinstance(event, OrderFilled | OrderClosed)]
    assert kinds == [OrderFilled, OrderClosed]
    place.levers.list_trades_late(10_000)
    label = await place.rest(20 * place.least)
    place.forget()
    place.levers.lose_fills(1, place.account)
    place.levers.fill_quote(place.account, place.symbol, Direction.BUY)
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(RequestLost))
    assert f"of {20 * place.least} lots filled only 0 are listed yet" in place.sink.of(RequestLost)[0].detail
    assert not place.sink.of(OrderAbsent) and not place.sink.of(OrderClosed)


async def test_an_order_that_comes_too_late_is_refused_and_never_rests(autojump_clock: Clock, place: Place) -> None:
    place.exchange = place.make(order_valid_ms=1000)
    await place.start(place.symbol)
    place.forget()
    place.levers.delay_requests(1, 1500)
    label = place.label(Side.BID)
    await place.send(PlaceOrder(label, Side.BID, place.near(-200), 10 * place.least))
    await place.send(QueryOrder(label, ""))
    await trio.sleep(0.8)
    assert not place.sink.of(OrderAbsent)  # it may come yet
    await place.until(lambda: place.sink.of(OrderAbsent))
    assert not place.sink.of(OrderRefused)
    await place.until(lambda: place.sink.of(OrderRefused))
    assert place.sink.of(OrderRefused)[0].code == place.late
    assert not place.levers.open_orders(place.account)


@pytest.mark.parametrize("shift_ms", [5000, -5000])
async def test_the_exchanges_clock_is_set(autojump_clock: Clock, place: Place, shift_ms: int) -> None:
    """At most the first order after it is refused, where a refusal tells the time; else until it is asked for."""
    place.exchange = place.make(order_valid_ms=1000)
    await place.start(place.symbol)
    place.levers.pause_market()
    place.levers.silence()
    await trio.sleep(1)
    place.forget()
    place.levers.shift_clock(shift_ms)
    for _ in range(3):
        await place.send(PlaceOrder(place.label(Side.BID), Side.BID, place.near(-200), 10 * place.least))
        await trio.sleep(place.clock_seconds)
    refused = place.sink.of(OrderRefused)
    assert [event.code for event in refused] == ([place.late] if shift_ms > 0 else [])
    assert len(place.levers.open_orders(place.account)) == 3 - len(refused)


async def test_all_open_orders_are_read(autojump_clock: Clock, place: Place) -> None:
    """However many: the exchange lists them in one answer."""
    await place.start(place.symbol)
    price = place.exchange.instruments[place.symbol].grid.price(place.near(-400))
    for _ in range(350):
        label = place.label(Side.BID)
        place.levers.foreign_order(place.account, place.symbol, Direction.BUY, place.amount, price, label)
    await trio.sleep(11)
    assert len(place.sink.of(OrdersReported, place.symbol)[-1].orders) == 350
    assert len((await place.exchange.open_orders())[place.symbol]) == 350


async def test_orders_that_the_engine_loses_silently_are_noticed(autojump_clock: Clock, place: Place) -> None:
    """Where an exchange has no record of an order that rested, that says nothing of its fills."""
    place.exchange.reconcile_every(5)
    await place.start(place.symbol)
    label = await place.rest(10 * place.least)
    place.levers.lose_orders(told=False, forget=True)
    place.forget()
    await place.until(lambda: place.sink.of(OrdersReported, place.symbol), seconds=6)
    assert place.sink.of(OrdersReported, place.symbol)[0].orders == ()
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(place.forgotten))
