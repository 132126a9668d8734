"""Derive's messages about orders, spoilt at random: refused as malformed, or understood and fit for the journal."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from derive_engine import SUBACCOUNT, SYMBOL
from derive_world import PRICE, World, asked, fill, listing, playing, replaced, resting, twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.domain.actions import PlaceOrder, ReduceOrder
from mmd.domain.errors import MmdError
from mmd.domain.events import Mail
from mmd.domain.reasons import Side
from mmd.exchanges.jsonrpc import decode_head

SEEDED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
TEXTS = ["", "NaN", "sNaN", "Infinity", "-1", "-0", "1e400", "1e-400", "1E+5", "1e999999999", "٣", "\0", "x" * 300]
WORDS = ["open", "filled", "cancelled", "expired", "rejected", "pending", "buy", "sell", "1795305600000"]
NUMBERS = [0, -1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, 1e308, 1795305600000]
values = st.deferred(lambda: st.sampled_from([None, True, False, *TEXTS, *WORDS, *NUMBERS]) | st.builds(list))
read_mail = msgspec.json.Decoder(Mail).decode


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all that is in a message."""
    yield way
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*way, key))


def spoilt(data: st.DataObject, message: Any) -> Any:
    """The message with one to three values that are others, or not there."""
    message = json.loads(json.dumps(message))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([way for way in places({0: message}) if len(way) > 1] or [(0,)]))
        holder: Any = {0: message}
        for key in way:
            holder = holder[key]
        if data.draw(st.booleans()) and way:
            holder[last] = data.draw(values)
        elif way:
            del holder[last]
    return message


def tell(world: World, topic: str, data: st.DataObject) -> None:
    row = world.engine.open()[0]
    world.engine.tell_orders.clear()
    world.engine.fill(row, data.draw(st.sampled_from([3, 1000])))
    rows = world.engine.tell_orders if topic == "orders" else world.engine.tell_trades
    raw = msgspec.Raw(json.dumps(spoilt(data, list(rows))).encode())
    world.trading.notified(f"{SUBACCOUNT}.{topic}", raw, 5)


def answer(world: World, what: str, data: st.DataObject) -> None:
    label = f"mmd-svc-{SYMBOL}-b-1-1"
    if what == "amend":
        world.engine.failing = data.draw(st.sampled_from([[], [11008], [9000]]))
        world.amend(PRICE + 1, 50)
    elif what == "cancel":
        world.cancel(world.bid)
    elif what == "place":
        world.trading.submit([(SYMBOL, PlaceOrder(label, Side.BID, PRICE, 10))])
    else:
        world.trading.submit([(SYMBOL, ReduceOrder(label, Side.ASK, PRICE, 10))])
    world.carry_out()
    sent, found = world.wire.answers.popleft()
    head = decode_head(json.dumps(spoilt(data, {"id": 1} | found)).encode())
    world.wire.drop = lambda why: None
    world.trading.answered(sent, head, 5)


async def ask(world: World, what: str, label: str, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        world.restart()
    elif data.draw(st.booleans()):
        world.amend(PRICE + 1, 50)
        world.carry_out()
        world.give_up_answers()
    good = world.engine.answer

    def spoil(method: str, params: dict[str, Any]) -> dict[str, Any]:
        found = good(method, params)
        if "result" in found and data.draw(st.booleans()):
            found["result"] = spoilt(data, found["result"])
        return found

    world.engine.answer = spoil
    match what:
        case "order":
            await asked(world, label)
        case "list":
            await listing(world)
        case "positions":
            await world.questions.positions(world.wire, "subaccount", lambda rows: None)
        case _:
            await world.trading.inquiry.catch_up(world.wire, SYMBOL)


async def scene(kind: str, what: str, data: st.DataObject) -> None:
    async with playing() as world:
        label = resting(world)
        if data.draw(st.booleans()):
            fill(world, label, 10)
            replaced(world)
        if data.draw(st.booleans()):
            twin(world, label)
        world.post = lambda symbol, event: world.heard.append(event)
        try:
            if kind == "told":
                tell(world, what, data)
            elif kind == "answered":
                answer(world, what, data)
            else:
                await ask(world, what, label, data)
        except MmdError as error:
            assert str(error)
        for event in world.heard:
            assert read_mail(msgspec.json.encode(event)) == event


@pytest.mark.parametrize(
    ("kind", "what"),
    [("told", "orders"), ("told", "trades")]
    + [("answered", what) for what in ("amend", "cancel", "place", "reduce")]
    + [("asked", what) for what in ("order", "list", "positions", "trades")],
)
@SEEDED
@given(data=st.data())
def test_what_is_spoilt_is_refused_or_understood(kind: str, what: str, data: st.DataObject) -> None:
    trio.run(scene, kind, what, data, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_index_that_no_number_holds_is_no_fill() -> None:
    async def story() -> None:
        async with playing() as world:
            label = resting(world)
            world.engine.fill(world.engine.open(label)[0], 3)
            row = world.engine.tell_trades.popleft()
            world.tell("trades", row | {"index_price": "1e400"})
            assert not world.heard
            assert world.wire.unread

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))
