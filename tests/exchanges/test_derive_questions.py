"""What Derive is asked about orders, positions and fills, and the chains that its orders are."""

from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from derive_engine import LISTED, PAGE_ROWS, START_NS, SYMBOL, now_ms
from derive_world import PRICE, World, asked, fill, listing, playing, replaced, resting, twin

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import OpenOrder, OrderAcked, OrderClosed, OrderFilled, OrdersReported
from mmd.domain.reasons import Side
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.chains import LABELS, MEMBERS, Chain, Chains, Ending, Sighting
from mmd.exchanges.derive.messages import PositionData
from mmd.exchanges.rows import OrderListing, PositionListing, TradeRow, Unread

Clock = trio.testing.MockClock


# --- twins ---------------------------------------------------------------------------------------


async def test_an_order_of_somebody_else_with_our_label_is_shown_as_what_it_is(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        other = twin(world, label)
        rows = {row.order_id: row.state for row in (await listing(world)).rows}
        assert rows == {
            label: OpenOrder(label, label, Side.BID, PRICE, 100, 100),
            other["order_id"]: OpenOrder(label, other["order_id"], Side.BID, 299_900, 7, 7),
        }
        world.engine.fill(other, 2)
        world.hear("trades")
        event = world.heard[-1]
        assert isinstance(event, OrderFilled)
        assert event.order_id == other["order_id"]
        (found,) = await asked(world, label)
        assert found.order_id == label


async def test_the_end_of_a_twin_does_not_hide_the_order_itself(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        other = twin(world, label)
        world.engine.end(other)
        while world.engine.tell_orders:
            world.hear("orders")
        assert [event.order_id for event in world.heard] == [other["order_id"]]
        world.give_up_answers()
        world.own.link_lost(START_NS)
        world.heard.clear()
        world.ask()
        await trio.sleep(1)
        (found,) = world.heard
        assert isinstance(found, OrderAcked)
        assert found.order_id == label
        await world.audit()
        assert isinstance(world.heard[-1], OrdersReported)
        assert [order.order_id for order in world.heard[-1].orders] == [label]


async def test_of_two_orders_of_an_earlier_process_the_newest_is_its_own(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        other = twin(world, label)
        world.restart()
        rows = {row.order_id for row in (await listing(world)).rows}
        assert rows == {label, other["order_id"]}
        (found,) = await asked(world, label)
        assert isinstance(found.state, OpenOrder)
        assert found.state.remaining_lots == 100  # the nonce of the other one is from long ago


# --- an earlier process's ------------------------------------------------------------------------


async def test_what_an_earlier_process_replaced_is_shown_with_all_its_fills(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        for lots in (10, 20, 30):
            fill(world, label, lots)
            await trio.sleep(100)
            replaced(world)
        fill(world, label, 5)
        world.restart()
        (row,) = (await listing(world)).rows
        assert row.state == OpenOrder(label, label, Side.BID, PRICE + 1, 95, 160)
        assert row.order_id == label


async def test_fills_of_long_ago_are_listed_before_an_order_of_theirs_is_believed(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        await trio.sleep(1000)
        replaced(world)
        await trio.sleep(1000)
        world.restart()
        world.heard.clear()
        world.ask()
        await trio.sleep(2)
        fills, found = world.heard
        assert isinstance(fills, OrderFilled)
        assert isinstance(found, OrderAcked)
        assert (found.order_id, found.remaining_lots, found.total_lots) == (label, 100, 110)


async def test_a_fill_that_is_listed_late_is_in_the_record_of_the_order_that_was_replaced(
    autojump_clock: Clock,
) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        world.engine.late_trades = 1
        world.restart()
        (row,) = (await listing(world)).rows
        assert row.state == OpenOrder(label, label, Side.BID, PRICE + 1, 100, 110)


async def test_what_cannot_be_learnt_stops_the_symbol(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        world.engine.trades[0]["trade_price"] = "none"
        world.restart()
        (row,) = (await listing(world)).rows
        assert isinstance(row.state, Unread)
        assert row.resting
        assert [name for name, _ in world.reports] == ["query.failed"]


async def test_an_order_that_ended_while_nobody_looked_is_found_far_back(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        (row,) = world.engine.open(label)
        world.engine.end(row, "cancelled", "cancel_on_disconnect")
        world.cut()
        await trio.sleep(80_000)
        world.restart()
        (found,) = await asked(world, label)
        assert isinstance(found.state, OrderClosed)
        assert (found.state.cause, found.state.filled_lots, found.order_id) == ("cancel_on_disconnect", 10, label)


async def test_an_order_that_was_replaced_very_often_is_told_with_its_first_fill(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        began_ms = now_ms()
        for _ in range(2 * MEMBERS):
            await trio.sleep(1)
            replaced(world)
        (found,) = await asked(world, label)
        assert (found.filled_lots, found.created_ms) == (10, began_ms)


async def test_an_order_that_never_was_has_no_row(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = world.place(PRICE, 100)
        world.cut()
        assert await asked(world, label) == []
        assert now_ms() > START_NS // 10**6 + 1000  # not before it could come no more


# --- questions -----------------------------------------------------------------------------------


async def test_a_subaccount_that_could_not_be_fetched_is_no_empty_one(autojump_clock: Clock) -> None:
    async with playing() as world:
        world.engine.answer = lambda method, params: {
            "result": {"open_orders": [], "positions": [], "failed_to_fetch": True}
        }
        with pytest.raises(ExchangeMalformed, match="could not fetch"):
            await listing(world)


async def test_one_question_is_a_look_at_everything(autojump_clock: Clock) -> None:
    async with playing() as world:
        resting(world)
        seen: list[OrderListing | PositionListing] = []
        await world.questions.look(
            world.wire,
            ["subaccount"],
            lambda: seen.append,
            lambda account: seen.append,
        )
        assert world.wire.asked == ["private/get_subaccount"]
        assert [type(each) for each in seen] == [OrderListing, PositionListing]


async def read_trades(world: World) -> list[TradeRow]:
    found: list[TradeRow] = []
    await world.questions.trades(world.wire, SYMBOL, 0, lambda rows, unread: found.extend(rows))
    return found


async def test_trades_are_read_to_their_proven_end(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        for _ in range(7):
            fill(world, label, 1)
        found = await read_trades(world)
        assert sorted(trade.trade_id for trade in found) == sorted(trade["trade_id"] for trade in world.engine.trades)
        assert len(world.wire.asked) == 3


async def test_trades_of_one_millisecond_come_as_they_were_made(autojump_clock: Clock) -> None:
    """Pages begin with the newest, and ids say nothing."""
    async with playing() as world:
        label = resting(world)
        for _ in range(PAGE_ROWS):
            fill(world, label, 1)
        for trade in world.engine.trades:
            trade["timestamp"] = world.engine.trades[0]["timestamp"]
        found = await read_trades(world)
        assert [trade.trade_id for trade in found] == [trade["trade_id"] for trade in world.engine.trades]


async def test_a_count_that_moves_is_read_anew_and_one_that_never_stands_still_is_no_answer(
    autojump_clock: Clock,
) -> None:
    async with playing() as world:
        label = resting(world)
        for _ in range(4):
            fill(world, label, 1)
        carry_out, moves = world.engine.answer, [1]

        def moving(method: str, asked: dict[str, Any]) -> dict[str, Any]:
            answer = carry_out(method, asked)
            if moves and moves.pop():
                fill(world, label, 1)
            return answer

        world.engine.answer = moving
        assert len({trade.trade_id for trade in await read_trades(world)}) == 5
        moves[:] = [1] * 20
        with pytest.raises(ExchangeMalformed, match="changes"):
            await read_trades(world)


@pytest.mark.parametrize(("count", "pages"), [(5, 1), (5, 2), (0, 1)])
async def test_pages_that_do_not_add_up_prove_nothing(count: int, pages: int, autojump_clock: Clock) -> None:
    async with playing() as world:
        rows = [] if pages == 2 else [{"instrument_name": SYMBOL}]
        page = {"trades": rows, "pagination": {"count": count, "num_pages": pages}}
        world.engine.answer = lambda method, params: {"result": page}
        with pytest.raises(ExchangeMalformed):
            await read_trades(world)


@pytest.mark.parametrize(
    ("change", "average"),
    [
        pytest.param({}, "3100.25", id="average"),
        pytest.param({"average_price_excl_fees": Decimal("3100")}, "3100", id="without fees where it is told"),
        pytest.param({"average_price": None}, "0", id="none"),
    ],
)
def test_a_position(change: dict[str, Any], average: str) -> None:
    row = PositionData(SYMBOL, "perp", Decimal("-1.5"), Decimal("3100.25"), mark_price=Decimal("3000.5"))
    for name, value in (change | {"unrealized_pnl": Decimal(5)}).items():
        setattr(row, name, value)
    found = orders.position(row, LISTED.instrument, 7)
    assert (found.position_lots, found.average_price, found.mark) == (-150, Decimal(average), 3000.5)
    assert found.profit is None  # nobody says what is in it


@pytest.mark.parametrize(
    "change", [{"amount": Decimal("0.001")}, {"average_price": Decimal("NaN")}, {"mark_price": Decimal("Infinity")}]
)
def test_a_position_that_is_none(change: dict[str, Any]) -> None:
    row = PositionData(SYMBOL, "perp", Decimal("-1.5"), Decimal("3100.25"), mark_price=Decimal("3000.5"))
    for name, value in change.items():
        setattr(row, name, value)
    with pytest.raises(ExchangeMalformed):
        orders.position(row, LISTED.instrument, 7)


# --- tables --------------------------------------------------------------------------------------


def seen(number: int, filled_lots: int = 0, *, over: bool = True) -> Sighting:
    ending = Ending("user_request", number) if over else None
    return Sighting(order_id=f"o{number}", nonce=number, created_ms=number, filled_lots=filled_lots, ending=ending)


def test_a_chain_of_any_length_is_remembered_in_little_room() -> None:
    chain = Chain("label", complete=True)
    for number in range(1, 1000):
        chain.sent(object(), number, f"o{number - 1}", number, number + 1000)
        chain.take(seen(number, 2))
    assert len(chain.members) == MEMBERS
    assert chain.total_filled_lots == 2 * 999
    assert chain.current is not None
    assert chain.current.order_id == "o999"


def test_what_was_folded_and_counted_anew_is_counted_once() -> None:
    chain = Chain("label", complete=False)
    for number in range(1, MEMBERS + 3):
        chain.take(seen(number, 1))
    assert chain.before_lots is None
    chain.count({f"o{number}": 2 for number in range(1, MEMBERS + 3)})  # trades know of more than the records did
    assert chain.before_lots == 2 * 2 + (MEMBERS - 1)
    chain.take(seen(1, 2))
    assert chain.has_ended("o1") and chain.shows("o1")
    assert chain.before_lots == 2 * 2 + (MEMBERS - 1)
    chain.take(seen(1, 3))
    assert chain.before_lots == 2 * 2 + MEMBERS


def test_fills_only_grow_and_an_end_stays() -> None:
    chain = Chain("label", complete=True)
    chain.sent("a", 1, "", 1, 1000)
    chain.take(seen(1, 5))
    chain.take(seen(1, 3, over=False))
    assert chain.total_filled_lots == 5


@pytest.mark.parametrize(
    ("complete", "flying", "order_id", "shows"),
    [
        pytest.param(True, False, "o1", True, id="a member"),
        pytest.param(True, False, "o9", False, id="of nobody"),
        pytest.param(True, True, "o9", True, id="maybe of a request in flight"),
        pytest.param(False, False, "o9", True, id="of an earlier process"),
    ],
)
def test_whose_a_trade_is(complete: bool, flying: bool, order_id: str, shows: bool) -> None:
    chain = Chain("label", complete=complete)
    chain.sent("a", 1, "", 1, 1000)
    chain.take(seen(1, over=False))
    chain.answered("a")
    if flying:
        chain.sent("b", 2, "o1", 1, 1000)
    assert chain.shows(order_id) is shows


def test_what_is_not_known_is_not_summed() -> None:
    chain = Chain("label", complete=False)
    chain.take(seen(1, 5, over=False))
    assert chain.before_lots is None
    chain.count({"o0": 7, "o1": 6})
    assert chain.before_lots == 7
    chain.take(seen(2, 1))
    assert chain.before_lots is None  # whether others came between them, nobody knows
    chain.count({"o0": 7, "o1": 6, "o2": 1})
    assert chain.unfinished == ["o1"]
    assert chain.before_lots is None
    chain.take(seen(1, 6))
    assert (chain.before_lots, chain.total_filled_lots) == (13, 14)


def test_chains_that_were_not_used_for_long_are_forgotten() -> None:
    chains = Chains(lambda: (1, 2))
    first = chains.begin("first")
    for number in range(LABELS):
        if number == 5:
            chains.of("first")
        chains.begin(f"label {number}")
    assert chains.get("first") is first
    assert chains.get("label 0") is None
    assert not chains.of("label 0").complete
    assert chains.of("label 0").may_come_until_ms == 2


def test_a_chain_that_rests_is_not_forgotten_over_others() -> None:
    chains = Chains(lambda: (1, 2))
    rests = chains.begin("rests")
    rests.sent("a", 1, "", 1, 1000)
    rests.take(seen(1, over=False))
    rests.answered("a")
    chains.begin("unanswered").sent("b", 2, "", 1, 1000)
    for number in range(3 * LABELS):
        chains.begin(f"label {number}")
    assert chains.get("rests") is rests
    assert chains.get("unanswered") is not None
    assert chains.get(f"label {2 * LABELS}") is None
    rests.end("o1", Ending("user_request", 5))
    for number in range(LABELS):
        chains.begin(f"after {number}")
    assert chains.get("rests") is None
    for number in range(3 * LABELS):
        chains.begin(f"more {number}").sent("c", 3, "", 1, 1000)
    assert chains.get("more 0") is None
