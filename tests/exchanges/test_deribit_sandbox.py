"""The adapter against the sandbox's own engine, on mock time: reductions, protection, cash, clock, self-trades."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import trio
import trio.testing
from place import ACCOUNT, BTC, DeribitPlace, Place

from mmd.domain.actions import AmendOrder, PlaceOrder, QueryOrder, ReduceOrder
from mmd.domain.events import (
    BookTop,
    CashMoved,
    OrderAcked,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    PositionReported,
    ProtectionTripped,
    Ticker,
)
from mmd.domain.reasons import CashKind, Side
from mmd.domain.settings import Protection, Reset
from mmd.sandbox.model import Direction

WANTED = Protection(
    underlying="BTC", interval_seconds=5, frozen_seconds=0, max_quantity=Decimal("0.5"), max_delta=Decimal("0.25")
)
Clock = trio.testing.MockClock


@pytest.fixture
async def place(nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = DeribitPlace(nursery)
    yield place
    nursery.cancel_scope.cancel()


# --- reductions ----------------------------------------------------------------------------------


async def test_a_position_is_reduced_and_never_turned(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    await place.go_long(100)
    place.forget()
    label = place.label(Side.ASK)
    await place.send(ReduceOrder(label, Side.ASK, place.near(-200), 40))
    await place.until(lambda: place.sink.of(OrderClosed))
    fills = place.sink.of(OrderFilled)
    assert {(fill.label, fill.side, fill.maker) for fill in fills} == {(label, Side.ASK, False)}
    assert sum({fill.trade_id: fill.size_lots for fill in fills}.values()) == 40
    assert {(event.cause, event.filled_lots) for event in place.sink.of(OrderClosed)} == {("filled", 40)}
    assert not place.sink.of(OrderAcked)
    await place.send(ReduceOrder(place.label(Side.ASK), Side.ASK, place.near(-200), 90))
    await trio.sleep(0.2)
    assert place.levers.position(ACCOUNT, BTC) == 0
    await place.send(ReduceOrder(place.label(Side.ASK), Side.ASK, place.near(-200), 1))
    await place.until(lambda: place.sink.of(OrderRefused))
    assert place.levers.position(ACCOUNT, BTC) == 0


async def test_a_reduction_beyond_the_book_ends_unfilled(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    await place.go_long(100)
    place.forget()
    label = place.label(Side.ASK)
    await place.send(ReduceOrder(label, Side.ASK, place.near(2000), 10))
    await place.until(lambda: place.sink.of(OrderClosed))
    assert {(event.cause, event.filled_lots) for event in place.sink.of(OrderClosed)} == {("cancelled", 0)}
    assert not place.sink.of(OrderFilled) and not place.sink.of(OrderAcked)
    place.forget()
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(OrderClosed))
    assert place.sink.of(OrderClosed)[0].cause == "cancelled"


async def test_a_lost_answer_of_a_reduction(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    await place.go_long(100)
    place.forget()
    place.levers.lose_answers(1)
    label = place.label(Side.ASK)
    await place.send(ReduceOrder(label, Side.ASK, place.near(-200), 10))
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(OrderClosed))
    assert len({fill.trade_id for fill in place.sink.of(OrderFilled) if fill.label == label}) >= 1
    assert place.sink.of(OrderClosed)[-1].filled_lots == 10


# --- maker protection ----------------------------------------------------------------------------


async def test_protection_is_armed_trips_and_is_reset(autojump_clock: Clock, place: Place) -> None:
    place.exchange.protect([WANTED])
    await place.start(BTC)
    await place.until(lambda: place.protection() == [(True, "as configured")])
    label = await place.rest()
    assert [order.mmp for order in place.levers.open_orders(ACCOUNT)] == [True]
    (acked,) = place.sink.of(OrderAcked)
    await place.send(AmendOrder(label, acked.order_id, Side.BID, acked.price_ticks - 10, 90, 90))
    assert [order.amount for order in place.levers.open_orders(ACCOUNT)] == [900]
    place.forget()
    place.levers.trip_protection(ACCOUNT, "btc_usd")
    await place.until(lambda: place.sink.of(ProtectionTripped, BTC))
    await place.until(lambda: place.sink.of(OrderClosed))
    assert place.sink.of(OrderClosed)[0].cause == "mmp_trigger"
    assert not place.levers.open_orders(ACCOUNT)
    await place.until(lambda: place.protection())
    assert place.protection() == [(False, "frozen until it is reset")]
    await place.send(PlaceOrder(place.label(Side.BID), Side.BID, acked.price_ticks, 10))
    assert place.sink.of(OrderRefused)[0].code == "mmp_trigger"
    assert len(place.sink.of(ProtectionTripped, BTC)) == 1
    await place.exchange.reset_protection("BTC")
    assert place.protection()[-1] == (True, "as configured")
    await place.rest()


async def test_fills_beyond_the_limit_trip_it(autojump_clock: Clock, place: Place) -> None:
    place.exchange.protect([WANTED])
    await place.start(BTC)
    await place.until(lambda: place.protection())
    index = await place.exchange.index_price("btc_usd")
    await place.rest(int(index * 0.3 / 10))  # 0.3 BTC, allowed: 0.25 net
    place.levers.fill_quote(ACCOUNT, BTC, Direction.BUY)
    await place.until(lambda: place.sink.of(ProtectionTripped, BTC))


async def test_an_automatic_reset(autojump_clock: Clock, place: Place) -> None:
    place.exchange.protect(
        [
            Protection(
                underlying="BTC", interval_seconds=3, frozen_seconds=0, max_quantity=Decimal(1), reset=Reset.AUTOMATIC
            )
        ]
    )
    await place.start(BTC)
    await place.until(lambda: place.protection())
    place.levers.trip_protection(ACCOUNT, "btc_usd")
    began = trio.current_time()
    await place.until(lambda: place.protection()[-1][0] and len(place.protection()) == 3)
    assert trio.current_time() - began == pytest.approx(3.0, abs=0.5)


async def test_an_account_without_the_right(autojump_clock: Clock, place: Place) -> None:
    place.levers.grant_protection(ACCOUNT, False)
    place.exchange.protect([WANTED])
    await place.start(BTC)
    await place.until(lambda: place.protection())
    ((armed, detail),) = place.protection()
    assert not armed and "mmp_required" in detail
    place.levers.grant_protection(ACCOUNT, True)
    await place.until(lambda: place.protection()[-1] == (True, "as configured"), seconds=70)


# --- cash ----------------------------------------------------------------------------------------


async def test_funding_is_told_once(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    await place.go_long(1000)
    await trio.sleep(61)
    place.forget()
    place.levers.pay_funding(BTC, Decimal("0.001"))
    await place.until(lambda: place.sink.of(CashMoved, BTC), seconds=65)
    row = next(row for row in reversed(place.levers.transactions(ACCOUNT)) if row.kind == "settlement")
    (event,) = place.sink.of(CashMoved, BTC)
    assert (event.kind, event.amount, event.currency) == (CashKind.FUNDING, row.interest_pl, "BTC")
    assert event.amount < 0 and event.closed_lots == 0
    await trio.sleep(130)
    assert len(place.sink.of(CashMoved, BTC)) == 1


async def test_a_delivery_ends_the_position(autojump_clock: Clock, place: Place) -> None:
    call = next(
        name
        for name, listing in place.sandbox.engine.floor.listings.items()
        if listing.instrument.option_type == "call" and listing.instrument.settlement_currency == "BTC"
    )
    await place.start(call)
    instrument = place.exchange.instruments[call]
    top = place.sink.of(BookTop, call)[-1]
    ticks = instrument.grid.below(top.asks[0][0]) if top.asks else top.bids[0][0]
    label = place.label(Side.BID).replace(BTC, call)
    place.exchange.submit([(call, PlaceOrder(label, Side.BID, ticks, 5))])
    await place.exchange.flush()
    await place.until(lambda: place.sink.of(OrderAcked))
    place.levers.fill_quote(ACCOUNT, call, Direction.BUY)
    await place.until(lambda: place.sink.of(OrderFilled))
    place.levers.expire(call, (instrument.strike or Decimal(0)) * 2)
    await place.until(lambda: place.sink.of(CashMoved, call))
    (event,) = place.sink.of(CashMoved, call)
    assert (event.kind, event.closed_lots) == (CashKind.SETTLEMENT, 5)
    assert event.amount == instrument.amount(5) / 2  # (2K - K) / 2K coins for each
    assert place.levers.position(ACCOUNT, call) == 0


# --- the clock and ourselves ---------------------------------------------------------------------


@pytest.mark.parametrize("offset_ms", [3000, -3000])
async def test_a_wrong_clock_shows_within_a_second(autojump_clock: Clock, place: Place, offset_ms: int) -> None:
    await place.start(BTC)
    await place.until(lambda: place.sink.of(Ticker, BTC))
    assert place.exchange.clock_skew_ms == pytest.approx(0, abs=5)
    place.levers.shift_clock(offset_ms)
    place.levers.jump(BTC, 0)
    await place.until(lambda: abs(place.exchange.clock_skew_ms - offset_ms) < 5, seconds=1)


async def test_a_trade_with_ourselves(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    place.levers.allow_self_trades(ACCOUNT)
    bid = place.label(Side.BID)
    await place.send(PlaceOrder(bid, Side.BID, place.top().asks[0][0] - 1, 10))
    await place.until(lambda: place.sink.of(OrderAcked))
    place.levers.self_trade(ACCOUNT, BTC, Direction.SELL, Decimal(100))
    await place.until(lambda: len(place.sink.of(OrderFilled)) >= 2)
    first = place.sink.of(OrderFilled)[0]
    same = [fill for fill in place.sink.of(OrderFilled) if fill.trade_id == first.trade_id]
    assert {fill.side for fill in same} == {Side.BID, Side.ASK}
    assert place.sink.of(PositionReported)[-1].position_lots == 0


# --- positions of what nobody quotes --------------------------------------------------------------


async def test_positions_can_be_asked_for_by_symbol(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    await place.go_long(70)
    eth = "ETH-PERPETUAL"
    assert await place.exchange.positions([BTC, eth, "NOT-LISTED"]) == {BTC: 70, eth: 0}
    assert await place.exchange.positions([]) == {}
