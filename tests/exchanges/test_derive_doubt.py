"""What Derive says half, twice, late or against itself: nothing of ours is taken for gone that may rest."""

from typing import Any

import pytest
import trio
import trio.testing
from derive_engine import SYMBOL, now_ms
from derive_world import PRICE, asked, fill, playing, replaced, resting

from mmd.core.orders import Empty, Live, Unknown
from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import OpenOrder, OrderClosed
from mmd.exchanges.derive.chains import MEMBERS

Clock = trio.testing.MockClock


@pytest.mark.parametrize("code", [9000, 9001, 9002, -32603, 8001, 11017, 8123, 99999])
@pytest.mark.parametrize("made", [True, False])
async def test_a_replace_of_which_half_is_unknown_is_asked_for(code: int, made: bool, autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        if not made:
            world.engine.failing = [code]
        world.amend(PRICE + 1, 50)
        world.carry_out()
        result = world.wire.answers[0][1]["result"]
        result |= {"order": None, "trades": None, "create_order_error": {"code": code, "message": "later"}}
        world.hear_answer()
        world.engine.tell_orders.clear()
        assert isinstance(world.bid.slot, Unknown)
        world.check()
        await world.come_to_rest()
        world.agree()
        assert isinstance(world.bid.slot, Live if made else Empty)


async def test_an_order_that_is_replaced_by_nothing_and_said_to_be_open_is_asked_for(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        (row,) = world.engine.open(label)
        world.engine.failing = [11008]
        world.amend(PRICE + 1, 50)
        world.carry_out()
        row["order_status"] = world.wire.answers[0][1]["result"]["cancelled_order"]["order_status"] = "open"
        world.engine.tell_orders.clear()
        world.hear_answer()
        assert isinstance(world.bid.slot, Unknown)
        await world.come_to_rest()
        world.agree()
        assert isinstance(world.bid.slot, Live)


async def test_an_order_that_was_replaced_very_often_is_counted_once(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        for _ in range(2 * MEMBERS):
            await trio.sleep(0.1)
            replaced(world)
        fill(world, label, 5)
        world.engine.failing = [11008]
        world.amend(PRICE + 1, 50)
        world.carry_out()
        world.give_up_answers()  # what became of the last replace is looked up in the history
        world.wire.answers.clear()
        world.engine.tell_orders.clear()
        (found,) = await asked(world, label)
        assert isinstance(found.state, OrderClosed)
        assert found.state.filled_lots == 15


async def test_rows_of_one_time_that_change_places_between_pages_are_all_read(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        for _ in range(4):
            fill(world, label, 1)  # all in one millisecond
        world.counted.clear()
        carry_out, pages = world.engine.answer, [0]

        def shuffled(method: str, params: dict[str, Any]) -> dict[str, Any]:
            pages[0] += 1
            if pages[0] == 2:
                world.engine.trades.reverse()  # what page 1 has shown is on page 2 again
            return carry_out(method, params)

        world.engine.answer = shuffled
        await world.questions.trades(
            world.wire,
            SYMBOL,
            0,
            lambda rows, unread: world.counted.update({row.trade_id: row.event.size_lots for row in rows}),
        )
        assert len(world.counted) == 4
        world.engine.answer = carry_out
        world.engine.trades[0] = world.engine.trades[1]
        with pytest.raises(ExchangeMalformed, match="3 rows in 2 pages, counted are 4"):
            await world.questions.trades(world.wire, SYMBOL, 0, lambda rows, unread: None)


async def test_an_order_that_lists_show_a_little_later_is_waited_for(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        world.amend(PRICE + 1, 50)
        await trio.sleep(0.99)
        world.carry_out()
        world.give_up_answers()
        world.wire.answers.clear()
        world.engine.tell_orders.clear()
        made = world.engine.open(label)[0]
        carry_out = world.engine.answer

        def late(method: str, params: dict[str, Any]) -> dict[str, Any]:
            shown = dict(world.engine.orders)
            if now_ms() < made["creation_timestamp"] + 200:
                del world.engine.orders[made["order_id"]]
            answer = carry_out(method, params)
            world.engine.orders = shown
            return answer

        world.engine.answer = late
        (found,) = await asked(world, label)
        assert isinstance(found.state, OpenOrder)
        assert found.state.remaining_lots == 50


@pytest.mark.parametrize("question", ["subaccount", "trade_history", "order_history"])
async def test_what_is_listed_no_more_while_it_is_asked_about(question: str, autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        world.restart()
        carry_out = world.engine.answer

        def vanish(method: str, params: dict[str, Any]) -> dict[str, Any]:
            if method == f"private/get_{question}":
                world.room.house.instruments.clear()
            return carry_out(method, params)

        world.engine.answer = vanish
        with pytest.raises(ExchangeMalformed, match="not listed any more"):
            await asked(world, label)
