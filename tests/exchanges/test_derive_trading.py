"""The trade half of Derive's room before the sandbox that speaks Derive's dialect, which verifies every signature."""

from decimal import Decimal

import pytest
import trio
import trio.testing
from derive_trader import ACCOUNT, SYMBOL, trading

from mmd.domain.actions import QueryOrder, QueryState, ReduceOrder
from mmd.domain.events import (
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
)
from mmd.domain.reasons import Side
from mmd.exchanges.rows import OrderListing
from mmd.sandbox.derive.options import Told
from mmd.sandbox.model import Direction

Clock = trio.testing.MockClock
EVERY_ORDER = pytest.mark.parametrize("told", [Told.BEFORE, Told.AFTER])


async def test_an_order_rests_under_its_label(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        (event,) = trader.said(OrderAcked, label)
        assert (event.order_id, event.remaining_lots, event.total_lots) == (label, 200, 200)
        (order,) = await trader.listed()
        assert (order.order_id, order.total_lots) == (label, 200)
        (found,) = trader.open()
        assert found.post_only


@EVERY_ORDER
async def test_replaces_and_fills_are_one_order(told: Told, autojump_clock: Clock) -> None:
    async with trading(replaced_told=told) as trader:
        label = await trader.rest(200)
        filled = 0
        for lots in (30, 20, 10):
            trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal(lots) / 100)
            await trader.until(lambda: trader.said(OrderFilled, label))
            filled += lots
            (event,) = await trader.amend(label, 200, filled=filled)
            assert isinstance(event, OrderAcked)
            assert (event.order_id, event.remaining_lots, event.total_lots) == (label, 200, 200 + filled)
        (order,) = await trader.listed()
        assert (order.remaining_lots, order.total_lots) == (200, 260)
        (closing,) = await trader.cancel(label)
        assert isinstance(closing, OrderClosed)
        assert (closing.order_id, closing.cause, closing.filled_lots) == (label, "user_request", 60)
        await trio.sleep(1)
        assert len(trader.sink.of(OrderClosed)) == 1
        assert not trader.open()


@EVERY_ORDER
async def test_a_replace_that_fails_half_is_the_end(told: Told, autojump_clock: Clock) -> None:
    async with trading(replaced_told=told) as trader:
        label = await trader.rest(200)
        trader.levers.fail_replaces()
        no, closing = await trader.amend(label, 200)
        assert isinstance(no, OrderRefused)
        assert isinstance(closing, OrderClosed)
        assert closing.cause == "replace_failed: insufficient_funds"
        await trio.sleep(1)
        assert len(trader.sink.of(OrderClosed)) == 1


async def test_a_replace_that_fails_half_because_the_instrument_is_closed_tells_of_that(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        refused: list[str] = []
        trader.room.house.on_not_live = refused.append
        trader.levers.fail_replaces(1, 11021, "Instrument not live")
        no, event = await trader.amend(label, 200)
        assert isinstance(no, OrderRefused) and isinstance(event, OrderClosed)
        assert refused == [SYMBOL]


@pytest.mark.parametrize("in_result", [True, False])
@EVERY_ORDER
async def test_a_replace_of_what_has_filled_more_than_we_know(
    told: Told, in_result: bool, autojump_clock: Clock
) -> None:
    async with trading(replaced_told=told, mismatch_in_result=in_result) as trader:
        label = await trader.rest(200)
        trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal("0.3"))
        await trader.amend(label, 200)
        await trader.until(lambda: trader.said(OrderClosed, label))
        assert trader.said(OrderClosed, label)[-1].filled_lots == 30
        assert not trader.open()


@EVERY_ORDER
async def test_a_lost_answer_to_a_replace_is_found_again(told: Told, autojump_clock: Clock) -> None:
    async with trading(replaced_told=told) as trader:
        label = await trader.rest(200)
        trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal("0.3"))
        await trader.until(lambda: trader.said(OrderFilled, label))
        trader.levers.lose_answers(1, "private/replace")
        assert await trader.amend(label, 150, filled=30) == []
        await trader.until(lambda: trader.said(RequestLost, label))
        trader.sink.clear()
        await trader.send(QueryOrder(label, label))
        await trader.until(lambda: trader.said(OrderAcked, label))
        (event,) = trader.said(OrderAcked, label)
        assert (event.remaining_lots, event.total_lots) == (150, 180)
        (closing,) = await trader.cancel(label)
        assert isinstance(closing, OrderClosed)
        assert closing.filled_lots == 30


async def test_a_lost_request_left_the_old_order(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        trader.levers.lose_requests(1, "private/replace")
        await trader.amend(label, 150)
        await trader.until(lambda: trader.said(RequestLost, label))
        trader.sink.clear()
        await trader.send(QueryOrder(label, label))
        await trader.until(lambda: trader.said(OrderAcked, label))
        assert trader.said(OrderAcked, label)[-1].total_lots == 200


@pytest.mark.parametrize("replaces", [0, 1, 3])
async def test_another_process_finds_all_of_it(replaces: int, autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        for number in range(replaces):
            trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal("0.1"))
            await trader.until(lambda: trader.said(OrderFilled, label))
            await trader.amend(label, 200, filled=10 * (number + 1))
        await trio.sleep(200)
        await trader.restart()
        report = trader.sink.of(OrdersReported, SYMBOL)[-1]
        (order,) = report.orders
        assert (order.order_id, order.remaining_lots, order.total_lots) == (label, 200, 200 + 10 * replaces)
        assert sum(event.size_lots for event in trader.said(OrderFilled, label)) == 10 * replaces
        (closing,) = await trader.cancel(label)
        assert isinstance(closing, OrderClosed)
        assert closing.filled_lots == 10 * replaces


async def test_another_process_finds_the_end_of_it(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal("0.1"))
        await trader.until(lambda: trader.said(OrderFilled, label))
        await trader.amend(label, 50, filled=10)
        await trader.cancel(label)
        await trader.restart()
        await trader.send(QueryOrder(label, label))
        await trader.until(lambda: trader.said(OrderClosed, label))
        assert trader.said(OrderClosed, label)[-1].filled_lots == 10
        unknown = trader.label()
        await trader.send(QueryOrder(unknown, ""))
        await trader.until(lambda: trader.said(OrderAbsent, unknown))


async def test_a_cut_link_is_mended_and_everything_asked_for(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        await trader.amend(label, 200)
        trader.sink.clear()
        trader.levers.cut()
        await trio.testing.wait_all_tasks_blocked()
        trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY, Decimal("0.4"))
        await trader.until(lambda: trader.said(OrderFilled, label))
        await trader.until(lambda: trader.sink.of(PositionReported, SYMBOL))
        assert trader.sink.of(PositionReported, SYMBOL)[-1].position_lots == 40
        (order,) = await trader.listed()
        assert (order.remaining_lots, order.total_lots) == (160, 200)


async def test_an_order_of_somebody_else_with_our_label(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        bid = trader.open()[0].price
        other = trader.levers.foreign_order(ACCOUNT, SYMBOL, Direction.BUY, Decimal(1), bid, label=label)
        found = {order.order_id: order.total_lots for order in await trader.listed()}
        assert found == {label: 200, other.order_id: 100}
        (closing,) = await trader.cancel(label)
        assert isinstance(closing, OrderClosed)
        assert [order.order_id for order in trader.open()] == [other.order_id]


async def test_a_reduction_takes_and_ends(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        trader.levers.fill_quote(ACCOUNT, SYMBOL, Direction.BUY)
        await trader.until(lambda: trader.said(OrderClosed, label))
        trader.sink.clear()
        closing = label.replace("-b-", "-a-") + "z"
        await trader.send(ReduceOrder(closing, Side.ASK, trader.price + 4800, 150))
        await trader.until(lambda: trader.said(OrderClosed, closing))
        fills = {event.trade_id: event.size_lots for event in trader.said(OrderFilled, closing)}
        assert sum(fills.values()) == 150  # told by the answer and by the channel
        assert trader.said(OrderClosed, closing)[-1].filled_lots == 150
        await trader.send(QueryState())
        await trader.until(lambda: trader.sink.of(PositionReported, SYMBOL))
        assert trader.sink.of(PositionReported, SYMBOL)[-1].position_lots == 50


async def test_what_would_cross_is_refused(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        no, event = await trader.amend(label, 200, ticks=5_200)
        assert isinstance(no, OrderRefused)
        assert isinstance(event, OrderClosed)
        assert event.cause == "replace_failed: post_only_reject"


async def test_an_order_that_ends_with_its_signature(autojump_clock: Clock) -> None:
    async with trading() as trader:
        label = await trader.rest(200)
        await trader.amend(label, 200)
        trader.levers.expire_order(ACCOUNT, trader.open()[0].order_id)
        await trader.until(lambda: trader.said(OrderClosed, label))
        assert trader.said(OrderClosed, label)[-1].cause == "expired"
        assert not trader.said(OrderRefused, label)


async def test_a_subaccount_that_could_not_be_fetched_is_asked_for_again(autojump_clock: Clock) -> None:
    async with trading() as trader:
        await trader.rest(200)
        trader.sink.clear()
        trader.levers.fail_fetches()
        await trader.send(QueryState())
        await trader.until(lambda: trader.sink.named("query.failed"))
        seen: list[OrderListing] = []
        await trader.questions.open_orders(trader.trading.connection, seen.append)
        assert len(seen[0].rows) == 1
