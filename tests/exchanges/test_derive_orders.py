"""What leaves for Derive about orders, what its answers and channels are made of, and what it is asked."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from derive_engine import LISTED, START_NS, SUBACCOUNT, SYMBOL, amount, now_ms
from derive_world import World
from test_derive_codec import OPTION, one

from mmd.core.orders import Empty, Live, Unknown
from mmd.domain.actions import AmendOrder, CancelOrder, ReduceOrder
from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import OpenOrder, OrderAcked, OrderClosed, OrderFilled, OrderRefused, RequestLost
from mmd.domain.reasons import Side
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.amounts import scaled
from mmd.exchanges.derive.chains import LABELS, MEMBERS, Chain, Chains, Ending, Sighting
from mmd.exchanges.derive.messages import PositionData
from mmd.exchanges.guards import PULLED
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, TradeRow, Unread

PRICE = 300_000
Clock = trio.testing.MockClock


@asynccontextmanager
async def playing() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        await world.trading.inquiry.catch_up(world.wire, SYMBOL)
        world.wire.asked.clear()
        yield world
        nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def params(world: World) -> dict[str, Any]:
    """Of the last request that left."""
    return world.wire.requests[-1][1]


def resting(world: World, lots: int = 100) -> str:
    """An order that rests, as everybody knows. Returns its label."""
    label = world.place(PRICE, lots)
    world.carry_out()
    world.hear_answer()
    world.engine.tell_orders.clear()
    assert isinstance(world.bid.slot, Live)
    world.heard.clear()
    return label


def replaced(world: World, lots: int = 100) -> None:
    """It was replaced; nobody heard of that on a channel."""
    world.amend(PRICE + 1, lots)
    world.carry_out()
    world.hear_answer()
    world.engine.tell_orders.clear()
    world.heard.clear()


def fill(world: World, label: str, lots: int) -> None:
    """Of the order that rests; the trade is told, the order's change is not."""
    (row,) = world.engine.open(label)
    world.engine.fill(row, lots)
    world.engine.tell_orders.clear()
    world.hear("trades")


def twin(world: World, label: str) -> dict[str, Any]:
    """Somebody else's order with our label."""
    terms = {"direction": "buy", "amount": amount(7), "limit_price": "2999", "time_in_force": "gtc"}
    return world.engine.make(terms | {"label": label, "nonce": "77"})


async def listing(world: World) -> OrderListing:
    found: list[OrderListing] = []
    await world.questions.open_orders(world.wire, found.append)
    return found[-1]


async def asked(world: World, label: str) -> list[OrderRow]:
    found: list[OrderRow] = []
    await world.questions.order(world.wire, SYMBOL, label, found.append)
    return found


# --- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "price", "index", "takes", "dollars"),
    [
        # PERP: 3 basis points, at most; one tick is 0.01, one lot 0.01, base fee 0.01
        pytest.param(LISTED, 300_000, 0.0, False, "2.7", id="three times the rate on the price"),
        pytest.param(LISTED, 300_000, 3999.0, False, "3.6", id="on the index where that is more"),
        pytest.param(LISTED, 300_000, 0.0, True, "3.7", id="who takes pays the base fee, for one lot at the least"),
        pytest.param(one(OPTION), 500, 0.0, False, "3.24", id="an option on its strike where no index is known"),
        pytest.param(one(OPTION), 500, 2999.5, False, "2.7", id="an option on the index, not on its price"),
        pytest.param(one(OPTION | {"taker_fee_rate": "-0.1", "maker_fee_rate": "-1"}), 5, 0.0, False, "0", id="rebate"),
        pytest.param(
            one(OPTION | {"taker_fee_rate": "0.0000123456789", "maker_fee_rate": "0"}),
            5,
            1.0,
            False,
            "0.000074074074",
            id="12 digits",
        ),
    ],
)
def test_the_fee_that_is_allowed(listed: Any, price: int, index: float, takes: bool, dollars: str) -> None:
    found = orders.max_fee_e18(listed, price, index, takes=takes)
    assert found % 10**6 == 0
    assert abs(found - scaled(Decimal(dollars))) <= 10**6


async def test_an_order_as_it_leaves(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = world.place(PRICE, 150)
        found = params(world)
        assert world.wire.requests[-1][0].method == "private/order"
        assert found.pop("signature").startswith("0x")
        assert found.pop("signer") == world.room.signer.name
        assert found == {
            "subaccount_id": SUBACCOUNT,
            "instrument_name": SYMBOL,
            "direction": "buy",
            "limit_price": "3000",
            "amount": "1.5",
            "max_fee": "2.7",
            "nonce": str(START_NS),
            "signature_expiry_sec": START_NS // 10**9 + 600,
            "label": label,
            "order_type": "limit",
            "time_in_force": "post_only",
            "reject_post_only": True,
            "mmp": False,
            "reject_timestamp": now_ms() + 1000,
        }


async def test_a_reduction_takes_reduces_and_is_never_for_maker_protection(autojump_clock: Clock) -> None:
    async with playing() as world:
        room_orders = world.trading._calls.orders
        order = ReduceOrder("mmd-svc-ETH-PERP-a-1-1", Side.ASK, PRICE, 10)
        method, found = room_orders.request(LISTED.instrument, order, None, mmp=True)
        sent = msgspec.to_builtins(found)
        assert method == "private/order"
        terms = ("direction", "time_in_force", "reduce_only", "mmp", "max_fee")
        assert [sent[name] for name in terms] == ["sell", "ioc", True, False, "3.7"]
        assert "reject_timestamp" not in sent
        assert "reject_post_only" not in sent


async def test_a_replace_says_what_the_order_that_goes_has_filled(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        fill(world, label, 3)
        world.amend(PRICE + 2, 50)
        assert world.wire.requests[-1][0].method == "private/replace"
        found = params(world)
        (current,) = world.engine.open(label)
        assert found["order_id_to_cancel"] == current["order_id"]
        assert (found["expected_filled_amount"], found["amount"], found["limit_price"]) == ("0.03", "0.5", "3000.02")


async def test_what_is_not_known_is_asked_for_and_not_sent(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        cases = {
            "less than the orders before it": AmendOrder(label, label, Side.BID, PRICE, 59, 50),
            "an order of its own id": AmendOrder(label, "o1", Side.BID, PRICE, 110, 100),
            "of nobody": AmendOrder("mmd-svc-ETH-PERP-b-1-9", "mmd-svc-ETH-PERP-b-1-9", Side.BID, PRICE, 50, 50),
        }
        for name, order in cases.items():
            world.heard.clear()
            world.trading.submit([(SYMBOL, order)])
            (event,) = world.heard
            assert isinstance(event, RequestLost), name
            assert not world.wire.requests, name


async def test_a_cancel_names_the_order_that_rests_or_the_label_where_that_may_be_another(
    autojump_clock: Clock,
) -> None:
    async with playing() as world:
        label = resting(world)
        request = world.trading._calls.orders.request
        replaced(world)
        (current,) = world.engine.open(label)
        by_id = (
            "private/cancel",
            {"subaccount_id": SUBACCOUNT, "instrument_name": SYMBOL, "order_id": current["order_id"]},
        )
        cancel = CancelOrder(label, label, Side.BID)
        method, found = request(LISTED.instrument, cancel, None, mmp=False)
        assert (method, msgspec.to_builtins(found)) == by_id
        world.amend(PRICE, 100)  # no answer yet: which of the two rests?
        method, found = request(LISTED.instrument, cancel, None, mmp=False)
        by_label = {"subaccount_id": SUBACCOUNT, "instrument_name": SYMBOL, "label": label}
        assert (method, msgspec.to_builtins(found)) == ("private/cancel_by_label", by_label)
        method, found = request(LISTED.instrument, CancelOrder(label, "o77", Side.BID), None, mmp=False)
        assert (method, msgspec.to_builtins(found)["order_id"]) == ("private/cancel", "o77")


async def test_an_order_that_nobody_may_sign_any_more_is_refused_here(autojump_clock: Clock) -> None:
    async with playing() as world:
        world.room.key_expires_sec = START_NS // 10**9 + 100
        world.place(PRICE, 100)
        assert not world.wire.requests
        assert isinstance(world.heard[-1], OrderRefused)


# --- answers -------------------------------------------------------------------------------------


async def test_what_a_replace_answers_is_one_order_with_all_its_fills(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        world.heard.clear()
        world.amend(PRICE + 1, 50)
        await trio.sleep(0.5)
        world.carry_out()
        world.hear_answer()
        (event,) = world.heard
        at_ns = START_NS + 500_000_000
        assert event == OrderAcked(label, label, PRICE + 1, 50, 60, at_ns, at_ns)


@pytest.mark.parametrize(
    ("code", "cause"),
    [(11008, "replace_failed: post_only_reject"), (11000, "replace_failed: insufficient_funds"), (11015, PULLED)],
)
async def test_a_replace_that_made_nothing_is_the_orders_end(code: int, cause: str, autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        world.heard.clear()
        world.engine.failing = [code]
        world.amend(PRICE + 1, 50)
        world.carry_out()
        world.hear_answer()
        (event,) = world.heard
        assert isinstance(event, OrderClosed)
        assert (event.label, event.order_id, event.cause, event.filled_lots) == (label, label, cause, 10)
        assert event.exchange_ns == START_NS
        assert isinstance(world.bid.slot, Empty)


@pytest.mark.parametrize("told_first", [True, False])
async def test_a_replace_of_an_order_that_was_filled_meanwhile(told_first: bool, autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        world.amend(PRICE + 1, 50)
        (row,) = world.engine.open(label)
        world.engine.fill(row, 10)
        world.carry_out()  # 11028: it is gone, and has no successor
        if told_first:
            while world.engine.tell_orders:
                world.hear("orders")
            assert not world.heard
        world.hear_answer()
        if not told_first:
            assert isinstance(world.heard[-1], RequestLost)
            while world.engine.tell_orders:
                world.hear("orders")
        closing = world.heard[-1]
        assert isinstance(closing, OrderClosed)
        assert closing.filled_lots == 10
        assert isinstance(world.bid.slot, Unknown)
        assert world.bid.slot.ended
        world.hear("trades")
        assert isinstance(world.bid.slot, Empty)


async def test_an_end_that_came_before_the_no_is_told_after_it(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        world.amend(PRICE + 1, 50)
        (row,) = world.engine.open(label)
        world.engine.end(row, "expired", "")
        world.hear("orders")
        assert not world.heard
        world.carry_out()
        world.hear_answer()
        no, closing = world.heard
        assert isinstance(no, OrderRefused)
        assert isinstance(closing, OrderClosed)
        assert (closing.label, closing.cause) == (label, "expired")


async def test_an_end_of_the_successor_that_came_before_the_answer(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        world.amend(PRICE + 1, 50)
        world.carry_out()
        (row,) = world.engine.open(label)
        world.engine.end(row, "cancelled", "compliance")
        while world.engine.tell_orders:
            world.hear("orders")
        assert not world.heard
        world.hear_answer()
        (closing,) = world.heard
        assert isinstance(closing, OrderClosed)
        assert (closing.cause, closing.filled_lots) == ("compliance", 0)


async def test_an_end_is_told_once(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        (row,) = world.engine.open(label)
        world.engine.end(row)
        told = world.engine.tell_orders.popleft()
        for _ in range(2):
            world.tell("orders", told)
        assert len(world.heard) == 1


def no_order(result: dict[str, Any]) -> None:
    result["order"] = None


def another_nonce(result: dict[str, Any]) -> None:
    result["order"]["nonce"] = "5"


def another_order(result: dict[str, Any]) -> None:
    result["cancelled_order"]["order_id"] = "o99"


def another_symbol(result: dict[str, Any]) -> None:
    result["order"]["instrument_name"] = "BTC-PERP"


def half_a_lot(result: dict[str, Any]) -> None:
    result["order"]["amount"] = "0.005"


@pytest.mark.parametrize("spoil", [no_order, another_nonce, another_order, another_symbol, half_a_lot])
async def test_an_answer_that_does_not_fit_is_looked_up(spoil: Any, autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        world.amend(PRICE + 1, 50)
        world.carry_out()
        spoil(world.wire.answers[0][1]["result"])
        world.hear_answer()
        (event,) = world.heard
        assert isinstance(event, RequestLost)
        world.wire.unread.clear()
        world.check()
        await world.come_to_rest()
        world.agree()
        assert isinstance(world.bid.slot, Live)
        assert world.bid.slot.label == label


async def test_an_answer_that_is_late_adds_nothing(autojump_clock: Clock) -> None:
    async with playing() as world:
        resting(world)
        world.amend(PRICE + 1, 50)
        world.carry_out()
        world.give_up_answers()
        late = world.wire.answers.popleft()
        await world.come_to_rest()
        replaced(world)
        world.wire.answers.append(late)
        world.hear_answer()
        assert not world.heard
        world.agree()


async def test_a_cancel_of_what_fills_at_the_same_time(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        replaced(world)
        fill(world, label, 5)
        world.heard.clear()
        world.cancel(world.bid)
        world.carry_out()
        world.hear_answer()
        (closing,) = world.heard
        assert isinstance(closing, OrderClosed)
        assert (closing.order_id, closing.cause, closing.filled_lots) == (label, "user_request", 15)


async def test_an_immediate_order_that_has_not_ended_is_asked_for(autojump_clock: Clock) -> None:
    async with playing() as world:
        room_orders = world.trading._calls.orders
        order = ReduceOrder(f"mmd-svc-{SYMBOL}-a-1-1", Side.ASK, PRICE, 10)
        _, sent = room_orders.request(LISTED.instrument, order, None, mmp=False)
        result = {"order": world.engine.make(msgspec.to_builtins(sent)), "trades": []}
        raw = msgspec.Raw(json.dumps(result).encode())
        (event,) = room_orders.reply(order, raw, LISTED.instrument, 5) or []
        assert isinstance(event, RequestLost)
        ended = result["order"] | {"order_status": "cancelled", "cancel_reason": "ioc_or_market_partial_fill"}
        raw = msgspec.Raw(json.dumps(result | {"order": ended}).encode())
        (event,) = room_orders.reply(order, raw, LISTED.instrument, 5) or []
        assert isinstance(event, OrderClosed)
        assert (event.cause, event.filled_lots) == ("cancelled", 0)


# --- channels ------------------------------------------------------------------------------------


async def test_fills_count_for_the_order_whose_label_they_have(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        fill(world, label, 10)
        world.amend(PRICE + 1, 50)
        world.carry_out()
        world.heard.clear()
        fill(world, label, 4)  # of a successor that nobody was told of yet
        (event,) = world.heard
        assert isinstance(event, OrderFilled)
        assert (event.label, event.order_id, event.size_lots) == (label, label, 4)
        assert (event.price, event.fee, event.fee_currency) == (Decimal("3000.01"), Decimal("0.1"), "USDC")
        assert (event.maker, event.index, event.side) == (True, 3000.0, Side.BID)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"rfq_id": "r1", "quote_id": "q1", "order_id": None}, id="of an RFQ"),
        pytest.param({"is_transfer": True, "order_id": ""}, id="of a transfer"),
    ],
)
async def test_what_no_order_traded_moves_the_position_all_the_same(
    change: dict[str, Any], autojump_clock: Clock
) -> None:
    async with playing() as world:
        label = resting(world)
        (row,) = world.engine.open(label)
        world.engine.fill(row, 3)
        told = world.trading._calls.orders.told(
            f"{SUBACCOUNT}.trades",
            msgspec.Raw(json.dumps([world.engine.tell_trades.popleft() | change]).encode()),
            5,
        )
        (trade,) = told.trades
        assert isinstance(trade.event, OrderFilled)
        assert (trade.label, trade.order_id, trade.event.size_lots, told.moved) == ("", "", 3, True)


async def test_one_row_that_cannot_be_read_stops_its_own_symbol_only(autojump_clock: Clock) -> None:
    async with playing() as world:
        label = resting(world)
        (row,) = world.engine.open(label)
        world.engine.fill(row, 3)
        good = world.engine.tell_trades.popleft()
        bad = good | {"instrument_name": "BTC-PERP", "trade_price": "NaN", "trade_id": "x"}
        told = world.trading._calls.orders.told(
            f"{SUBACCOUNT}.trades", msgspec.Raw(json.dumps([good, bad, {"instrument_name": "SOL-PERP"}]).encode()), 5
        )
        assert [trade.trade_id for trade in told.trades] == [good["trade_id"]]
        assert sorted(row.symbol for row in told.unread) == ["BTC-PERP", "SOL-PERP"]


async def test_what_changed_without_news_keeps_an_older_list_from_being_believed(autojump_clock: Clock) -> None:
    async with playing() as world:
        resting(world)
        world.amend(PRICE + 1, 50)
        world.carry_out()
        before = world.trading.record.activity[SYMBOL]
        world.hear("orders")  # the end of the one that was replaced
        assert world.trading.record.activity[SYMBOL] != before
        assert not world.heard


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
        with pytest.raises(ExchangeMalformed, match="moved"):
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
