"""Many cancels at once against an exchange whose queue takes eight requests, on mock time."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BTC, EPOCH, order, started
from deribit_peer import SILENT, Refuse, Stage, Wire

from mmd.domain.actions import AmendOrder, CancelOrder
from mmd.domain.events import OrderClosed, RequestLost, TradeLinkDown
from mmd.domain.ids import base36
from mmd.domain.reasons import Side
from mmd.domain.settings import KillSwitches
from mmd.exchanges.cancels import PATIENCE_SECONDS, WAVE_SECONDS
from mmd.exchanges.deribit.errors import QUEUE_FULL
from mmd.exchanges.deribit.trading import MOST_CANCELS as MOST

Clock = trio.testing.MockClock
WAITING = 8  # the documented length of the queue
SERVICE_SECONDS = 0.001


class Engine:
    """A matching engine with a queue: one request at a time, and refused is what finds the queue full."""

    def __init__(self, stage: Stage, way_seconds: float = 0.0) -> None:
        """`way_seconds`: from here until an answer is there."""
        self.stage = stage
        self.way_seconds = way_seconds
        self.waiting = self.refused = 0
        self.arrived: list[str] = []  # order ids, as their requests came
        self._send, self._receive = trio.open_memory_channel[tuple[Wire, dict[str, Any]]](WAITING)
        stage.nursery.start_soon(self._serve)
        stage.peer.on("private/cancel", self._take)
        stage.peer.on("private/edit", self._take)

    def _take(self, wire: Wire, params: dict[str, Any]) -> object:
        self.arrived.append(params["order_id"])
        if self.waiting == WAITING:
            self.refused += 1
            raise Refuse(QUEUE_FULL, "matching_engine_queue_full")
        self.waiting += 1
        self._send.send_nowait((wire, wire.requests[-1]))
        return SILENT

    async def _serve(self) -> None:
        async for wire, request in self._receive:
            await trio.sleep(SERVICE_SECONDS)
            self.waiting -= 1
            order_id = request["params"]["order_id"]
            fields = {"order_id": order_id, "label": label(int(order_id[1:]))}
            cancelled = request["method"] == "private/cancel"
            result = order(**fields, order_state="cancelled") if cancelled else {"order": order(**fields), "trades": []}
            self.stage.nursery.start_soon(self._answer, wire, request, result)

    async def _answer(self, wire: Wire, request: dict[str, Any], result: object) -> None:
        await trio.sleep(self.way_seconds)
        await wire.answer(request, result)


def label(number: int) -> str:
    return f"mmd-svc-{BTC}-b-{EPOCH}-{base36(number)}"


def cancel(number: int) -> CancelOrder:
    return CancelOrder(label(number), f"o{number}", Side.BID)


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


async def send(stage: Stage, *requests: Any) -> None:
    stage.deribit.submit([(BTC, request) for request in requests])
    await stage.deribit.flush()


async def test_two_hundred_cancels_at_once(autojump_clock: Clock, stage: Stage) -> None:
    """A halt of a hundred symbols; what is refused is tried again a second later, as the machines do."""
    await started(stage)
    engine = Engine(stage)
    left = [cancel(number) for number in range(200)]
    tries = 0
    while left and tries < KillSwitches().max_cancel_tries:
        tries += 1
        await send(stage, *left)
        await trio.sleep(1.0)
        over = {event.label for event in stage.sink.of(OrderClosed)}
        left = [each for each in left if each.label not in over]
    assert (len(left), tries, engine.refused) == (0, 1, 0)
    assert engine.arrived == [f"o{number}" for number in range(200)]  # first in, first out


async def test_cancels_wait_for_cancels_and_for_nothing_else(autojump_clock: Clock, stage: Stage) -> None:
    """However many amends have no answer: a quote that must go does not stand in their line."""
    await started(stage)
    for method in ("private/edit", "private/cancel"):
        stage.peer.on(method, SILENT)
    amends = [AmendOrder(label(number), f"o{number}", Side.BID, 198, 4, 4) for number in range(3 * MOST)]
    await send(stage, *amends[: 2 * MOST])
    first = [cancel(100 + number) for number in range(MOST)]
    await send(stage, *first, cancel(200), cancel(201), *amends[2 * MOST :], cancel(200))
    await stage.settle()
    assert len(stage.peer.trade.asked("private/edit")) == 3 * MOST
    assert len(stage.peer.trade.asked("private/cancel")) == MOST
    await trio.sleep(1.5 * WAVE_SECONDS)
    assert stage.peer.trade.asked("private/cancel")[MOST:] == [{"order_id": "o200"}, {"order_id": "o201"}]  # each once


async def test_a_long_way_is_no_full_queue(autojump_clock: Clock, stage: Stage) -> None:
    """Answers take 200 ms, and the engine one for each: two hundred are cancelled within a second and a half."""
    await started(stage)
    engine = Engine(stage, way_seconds=0.2)
    began = trio.current_time()
    await send(stage, *(cancel(number) for number in range(200)))
    await stage.until(lambda: len(stage.sink.of(OrderClosed)) == 200)
    assert trio.current_time() - began < 1.5 and engine.refused == 0


async def test_where_the_queue_was_full_they_leave_slower(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/cancel", Refuse(QUEUE_FULL, "matching_engine_queue_full"))
    await send(stage, cancel(300))
    await stage.settle()
    stage.peer.on("private/cancel", SILENT)
    await send(stage, *(cancel(number) for number in range(3 * MOST)))
    await trio.sleep(0.9 * PATIENCE_SECONDS)
    assert len(stage.peer.trade.asked("private/cancel")) == 1 + MOST
    await trio.sleep(0.2 * PATIENCE_SECONDS)
    assert len(stage.peer.trade.asked("private/cancel")) == 1 + 2 * MOST


async def test_without_answers_they_leave_by_and_by(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/cancel", SILENT)
    await send(stage, *(cancel(number) for number in range(4 * MOST)))
    await stage.settle()
    assert len(stage.peer.trade.asked("private/cancel")) == MOST
    await trio.sleep(1.5 * WAVE_SECONDS)
    assert len(stage.peer.trade.asked("private/cancel")) == 2 * MOST
    await trio.sleep(2 * WAVE_SECONDS)
    assert len(stage.peer.trade.asked("private/cancel")) == 4 * MOST
    await trio.sleep(20)
    assert len(stage.sink.of(RequestLost)) == 4 * MOST  # an answer to each, once
    began = trio.current_time()
    await send(stage, cancel(99))
    await stage.settle()
    assert stage.peer.trade.asked("private/cancel")[-1] == {"order_id": "o99"} and trio.current_time() == began


async def test_those_that_wait_are_lost_with_the_link(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/cancel", SILENT)
    await send(stage, *(cancel(number) for number in range(2 * MOST)))
    await stage.settle()
    await stage.peer.trade.drop()
    await stage.settle()
    assert sorted(event.label for event in stage.sink.of(RequestLost)) == sorted(label(n) for n in range(2 * MOST))
    posted = [type(event) for _, event in stage.sink.posted]
    assert posted.index(TradeLinkDown) > max(n for n, kind in enumerate(posted) if kind is RequestLost)
    engine = Engine(stage)
    await stage.until(lambda: stage.deribit.stats["trade"].up)
    await send(stage, *(cancel(number) for number in range(20)))
    await trio.sleep(0.1)
    assert len(engine.arrived) == 20 and not engine.refused
