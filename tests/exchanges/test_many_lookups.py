"""A hundred orders of unknown outcome at once: they are asked about in turn, and hold up no other question."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from place import PLACES, Place

from mmd.domain.actions import QueryOrder
from mmd.domain.events import OrderAbsent
from mmd.domain.reasons import Side
from mmd.exchanges.connection import CALL_SECONDS
from mmd.exchanges.lookup import TURNS

ORDERS = 100
SETTLED_SECONDS = 20.0  # nothing of a former life can come any more
ASIDE_SECONDS = 4.0  # well within what a proof of a halt waits


@pytest.fixture(params=list(PLACES))
async def place(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = PLACES[request.param](nursery)
    yield place
    nursery.cancel_scope.cancel()


async def test_the_open_orders_are_told_while_many_orders_are_looked_for(
    autojump_clock: trio.testing.MockClock, place: Place
) -> None:
    await place.start(place.symbol)
    place.forget()
    await place.send(*(QueryOrder(place.label(Side.BID), "") for _ in range(ORDERS)))
    for _ in range(5):
        with trio.fail_after(ASIDE_SECONDS):
            assert await place.exchange.open_orders() == {}
        await trio.sleep(0.5)

    heard = len(place.sink.of(OrderAbsent))
    assert heard < ORDERS  # they are still being asked about
    await place.until(lambda: len(place.sink.of(OrderAbsent)) > heard, 60.0)


async def test_who_asks_again_does_not_wait_for_answers_that_were_lost(
    autojump_clock: trio.testing.MockClock, place: Place
) -> None:
    await place.start(place.symbol)
    await trio.sleep(SETTLED_SECONDS)
    place.forget()
    label = place.label(Side.BID)
    place.levers.lose_answers(None, "private/")
    for _ in range(TURNS + 1):
        await place.send(QueryOrder(label, ""))
        await trio.sleep(0.5)
    place.levers.disarm()
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: bool(place.sink.of(OrderAbsent)), CALL_SECONDS / 2)


async def test_who_asks_again_and_again_is_answered_however_slow_the_answers(
    autojump_clock: trio.testing.MockClock, place: Place
) -> None:
    """A question that is asked again has not to begin from the start, or it would never end."""
    await place.start(place.symbol)
    await trio.sleep(SETTLED_SECONDS)
    place.forget()
    label = place.label(Side.BID)
    place.levers.delay_answers(None, 1500, "private/")
    for _ in range(20):
        await place.send(QueryOrder(label, ""))
        await trio.sleep(0.5)
    assert place.sink.of(OrderAbsent)
