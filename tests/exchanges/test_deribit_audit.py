"""Orders and positions are looked at without being asked: soon after something happened, else now and then."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BID, BTC, news, order, send, started, tell, trade
from deribit_peer import SILENT, START_NS, Refuse, Stage, Wire

from mmd.domain.actions import PlaceOrder
from mmd.domain.events import OrdersReported, PositionReported
from mmd.domain.reasons import Side
from mmd.exchanges.deribit.audit import AUDIT_SECONDS, SOON_SECONDS, SPACING_SECONDS

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
