"""Orders and positions are looked at without being asked: soon after something happened, else now and then."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BID, BTC, ETH, START_MS, news, order, send, started, tell, trade
from deribit_peer import PERP, SILENT, START_NS, Refuse, Stage, Wire, make_deribit

from mmd.domain.actions import PlaceOrder, QueryState
from mmd.domain.events import OrderFilled, OrdersReported, PositionReported
from mmd.domain.reasons import Side
from mmd.exchanges.audit import AUDIT_SECONDS, CATCH_UP_MS, SOON_SECONDS, SPACING_SECONDS, WHOLE_SECONDS

Clock = trio.testing.MockClock
LISTS = "private/get_open_orders"
POSITIONS = "private/get_positions"
FOREIGN = f"mmd-svc-{BTC}-b-foreign-1"


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


def looks(stage: Stage) -> int:
    return len(stage.peer.trade.asked(LISTS))


async def tell_position(stage: Stage, **more: Any) -> None:
    await stage.peer.trade.notify("user.changes.any.any.raw", news(**more) | {"positions": [{"size": 0}]})
    await stage.settle()


async def test_all_is_looked_at_now_and_then_and_told_once(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit.reconcile_every(3600)
    await started(stage)
    before = looks(stage)
    stage.peer.positions[BTC] = 30
    await trio.sleep(AUDIT_SECONDS + 1)
    assert [event.position_lots for event in stage.sink.of(PositionReported, BTC)] == [3]
    assert [event.orders for event in stage.sink.of(OrdersReported, BTC)] == [()]
    await trio.sleep(5 * AUDIT_SECONDS)
    assert looks(stage) == before + 6
    assert len(stage.sink.of(PositionReported)) == len(stage.sink.of(OrdersReported)) == 1
    stage.peer.positions[BTC] = 50
    stage.peer.open_orders = [order(label=FOREIGN)]
    await trio.sleep(AUDIT_SECONDS)
    assert [event.position_lots for event in stage.sink.of(PositionReported, BTC)] == [3, 5]
    assert [found.label for event in stage.sink.of(OrdersReported, BTC) for found in event.orders] == [FOREIGN]


async def test_a_trade_has_the_position_looked_at_soon(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.positions[BTC] = 10
    await tell_position(stage, trades=[trade(1, START_NS // 1_000_000)])
    assert not stage.sink.of(PositionReported)
    await trio.sleep(SOON_SECONDS + 0.01)
    assert [event.position_lots for event in stage.sink.of(PositionReported, BTC)] == [1]


async def test_an_order_of_unknown_origin_under_our_name_is_looked_for_soon(
    autojump_clock: Clock, stage: Stage
) -> None:
    await started(stage)
    stage.peer.open_orders = [order(label=FOREIGN)]
    await tell(stage, orders=[order(label=FOREIGN)])
    await trio.sleep(SOON_SECONDS + 0.01)
    assert [found.label for event in stage.sink.of(OrdersReported, BTC) for found in event.orders] == [FOREIGN]


async def test_orders_of_our_own_and_of_strangers_are_no_reason_to_look(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    before = looks(stage)
    stage.peer.on("private/buy", {"order": order(), "trades": []})
    await send(stage, PlaceOrder(BID, Side.BID, 200, 5))
    await tell(stage, orders=[order()])
    await tell(stage, orders=[order(label="somebody", order_id="o9")])
    await trio.sleep(SPACING_SECONDS + SOON_SECONDS)
    assert looks(stage) == before


async def test_many_trades_are_one_look_at_a_time(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    before, began = looks(stage), trio.current_time()
    for number in range(50):
        await tell_position(stage, trades=[trade(number, START_NS // 1_000_000)])
        await trio.sleep(0.1)
    passed = trio.current_time() - began
    assert 5 <= looks(stage) - before <= passed / SPACING_SECONDS + 1


async def test_a_symbol_that_moves_meanwhile_is_left_for_the_next_look(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    answers = 0

    def overtaken(wire: Wire, params: dict[str, Any]) -> object:
        """A fill is told between question and answer, the first time."""
        nonlocal answers
        answers += 1
        if answers == 1:
            stage.nursery.start_soon(
                late, wire, [request for request in wire.requests if request["method"] == POSITIONS][-1]
            )
            return SILENT
        return [row(20)]

    async def late(wire: Wire, request: dict[str, Any]) -> None:
        await wire.notify("user.changes.any.any.raw", news(trades=[trade(2, START_NS // 1_000_000)]))
        await wire.answer(request, [row(10)])

    stage.peer.on(POSITIONS, overtaken)
    await trio.sleep(AUDIT_SECONDS + 0.2)
    assert answers == 1 and not stage.sink.of(PositionReported)
    await trio.sleep(SPACING_SECONDS + 0.2)
    assert [event.position_lots for event in stage.sink.of(PositionReported, BTC)] == [2]


def row(size: int) -> dict[str, Any]:
    return {"instrument_name": BTC, "size": size, "direction": "buy", "average_price": 81000.0}


async def test_a_refusal_is_told_and_the_next_look_comes(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on(LISTS, Refuse(11051, "system_maintenance"))
    await trio.sleep(AUDIT_SECONDS + 1)
    assert len(stage.sink.named("query.failed")) == 1
    stage.peer.on(LISTS, [order(label=FOREIGN)])
    await trio.sleep(AUDIT_SECONDS)
    assert [found.label for event in stage.sink.of(OrdersReported, BTC) for found in event.orders] == [FOREIGN]


# --- everything, at the interval -----------------------------------------------------------------


async def test_all_is_reported_at_the_interval_news_or_not(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit.reconcile_every(25)
    stage.peer.positions[BTC] = 30
    await started(stage, BTC, ETH)
    await trio.sleep(AUDIT_SECONDS + 1)
    stage.sink.clear()
    before = looks(stage)
    for _ in range(4):
        await trio.sleep(25)
    for symbol, lots in ((BTC, 3), (ETH, 0)):
        assert [event.position_lots for event in stage.sink.of(PositionReported, symbol)] == [lots] * 4
        assert [event.orders for event in stage.sink.of(OrdersReported, symbol)] == [()] * 4
    times = [event.received_ns / 1e9 for event in stage.sink.of(PositionReported, BTC)]
    assert [round(after - at) for at, after in pairwise(times)] == [25, 25, 25]
    assert looks(stage) - before <= 13  # every ten seconds, and at the interval


async def test_the_interval_can_be_changed_and_is_checked(autojump_clock: Clock, stage: Stage) -> None:
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="allowed: above 0"):
            stage.deribit.reconcile_every(wrong)
    stage.deribit.reconcile_every(3600)
    await started(stage)
    await trio.sleep(AUDIT_SECONDS + 1)
    stage.sink.clear()
    stage.deribit.reconcile_every(2)
    await trio.sleep(4.1)
    assert len(stage.sink.of(PositionReported, BTC)) == len(stage.sink.of(OrdersReported, BTC)) == 2


async def test_after_a_reconnection_everything_is_reported_at_once(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    await stage.peer.trade.drop()
    began = trio.current_time()
    await stage.until(lambda: stage.sink.of(PositionReported, ETH))
    assert trio.current_time() - began < 5
    assert stage.sink.of(OrdersReported, BTC) and stage.sink.of(PositionReported, BTC)


async def busy(stage: Stage) -> None:
    """A symbol whose orders change all the time: word of one overtakes every answer."""

    async def overtaken(wire: Wire, params: dict[str, Any]) -> object:
        await wire.notify("user.changes.any.any.raw", news([order()]))
        return stage.peer.open_orders

    await send(stage, PlaceOrder(BID, Side.BID, 200, 5))
    stage.peer.on(LISTS, overtaken)


async def test_one_that_never_holds_still_is_asked_for_alone(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    await busy(stage)
    stage.sink.clear()
    before = looks(stage)
    await trio.sleep(WHOLE_SECONDS + 1)
    assert not stage.sink.of(OrdersReported, BTC)
    assert stage.sink.of(OrdersReported, ETH) and stage.sink.of(PositionReported, BTC)
    assert looks(stage) - before <= 12  # less and less often
    await trio.sleep(WHOLE_SECONDS)
    assert stage.sink.of(OrdersReported, BTC)
    assert len(stage.peer.trade.asked("private/get_open_orders_by_instrument")) == 1


async def test_a_request_under_way_is_waited_for(autojump_clock: Clock, stage: Stage) -> None:
    """An order that may arrive yet is not reported as absent, neither by a look nor by a question."""
    stage.deribit = make_deribit(stage.peer, order_valid_ms=2000)
    await started(stage, BTC, ETH)
    await trio.sleep(AUDIT_SECONDS - 1)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PlaceOrder(BID, Side.BID, 200, 5), QueryState())
    await trio.sleep(1.9)
    assert not stage.sink.of(OrdersReported, BTC)
    assert stage.sink.of(OrdersReported, ETH)
    await trio.sleep(1)
    told = [event.received_ns // 1_000_000 - START_MS for event in stage.sink.of(OrdersReported, BTC)]
    assert told and min(told) > (AUDIT_SECONDS - 1 + 2) * 1000


async def test_fills_that_nobody_told_are_asked_for_now_and_then(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.trades = [trade(1, START_MS + 1000)]
    await trio.sleep(CATCH_UP_MS / 1000 - 1)
    assert not stage.sink.of(OrderFilled)
    await trio.sleep(WHOLE_SECONDS + 2)
    assert [event.trade_id for event in stage.sink.of(OrderFilled)] == ["t1"]
    await trio.sleep(CATCH_UP_MS / 1000 + WHOLE_SECONDS)
    asked = stage.peer.trade.asked("private/get_user_trades_by_instrument_and_time")
    assert len(asked) == 2
    assert asked[1]["start_timestamp"] > asked[0]["start_timestamp"] + CATCH_UP_MS / 2


async def test_what_a_hundred_symbols_cost(autojump_clock: Clock, stage: Stage) -> None:
    symbols = [f"BTC-{day}" for day in range(1000, 1100)]
    stage.peer.rows += [PERP | {"instrument_name": symbol} for symbol in symbols]
    await started(stage, *symbols)
    await trio.sleep(600)
    stage.sink.clear()
    before = len(stage.peer.trade.requests)
    await trio.sleep(600)
    for symbol in symbols:
        assert 19 <= len(stage.sink.of(OrdersReported, symbol)) <= 21
    # Looks, fills, heartbeats, cancel on disconnect read back, the transaction log.
    assert len(stage.peer.trade.requests) - before < 600
