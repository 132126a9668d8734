"""What comes between two steps while a connection ends, or between two looks at what is watched."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from deribit_peer import Stage

from mmd.domain.actions import QueryState
from mmd.domain.events import DataLinkUp, TradeLinkUp

BTC = "BTC-PERPETUAL"
ETH = "ETH_USDC-PERPETUAL"
Clock = trio.testing.MockClock


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    yield Stage(nursery)
    nursery.cancel_scope.cancel()


class Asking(trio.abc.Instrument):
    """Submits a question before the n-th step of any task from now."""

    def __init__(self, stage: Stage, at: int) -> None:
        self._stage = stage
        self.left = at
        self.failure: RuntimeError | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            try:
                self._stage.deribit.submit([(BTC, QueryState())])
            except RuntimeError as closed:
                self.failure = closed


@pytest.mark.parametrize("at", range(1, 41))
async def test_a_question_at_any_step_while_the_link_ends(autojump_clock: Clock, stage: Stage, at: int) -> None:
    await stage.start(BTC)
    asking = Asking(stage, at)
    trio.lowlevel.add_instrument(asking)
    await stage.peer.trade.drop()
    for _ in range(60):
        await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(asking)
    assert not stage.deribit.stats["trade"].up and asking.left < 0
    assert asking.failure is None
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))


@pytest.mark.parametrize("steps", range(12))
async def test_who_leaves_and_is_back_at_once_begins_anew(autojump_clock: Clock, stage: Stage, steps: int) -> None:
    await stage.start(BTC, ETH)
    stage.sink.clear()
    stage.deribit.watch([ETH])
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    stage.deribit.watch([ETH, BTC])
    await stage.settle()
    assert len(stage.sink.of(DataLinkUp, BTC)) == 1
    book = "book.BTC-PERPETUAL.raw"
    calls = [
        request["method"]
        for request in stage.peer.data.requests
        if book in (request["params"] or {}).get("channels", ())
    ]
    assert calls == ["public/subscribe", "public/unsubscribe", "public/subscribe"]
    assert stage.deribit.subscriptions == 6
