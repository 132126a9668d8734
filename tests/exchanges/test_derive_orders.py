"""What leaves for Derive about orders, and what its answers and channels are made of."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from derive_engine import LISTED, START_NS, SUBACCOUNT, SYMBOL, now_ms
from derive_world import PRICE, fill, params, playing, replaced, resting
from test_derive_codec import OPTION, one

from mmd.core.orders import Empty, Live, Unknown
from mmd.domain.actions import AmendOrder, CancelOrder, ReduceOrder
from mmd.domain.events import OrderAcked, OrderClosed, OrderFilled, OrderRefused, RequestLost
from mmd.domain.reasons import Side
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.amounts import scaled
from mmd.exchanges.guards import PULLED

Clock = trio.testing.MockClock


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
        no, event = world.heard
        assert isinstance(no, OrderRefused)  # it counts as one
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


def another_status(result: dict[str, Any]) -> None:
    result["order"]["order_status"] = "pending"


@pytest.mark.parametrize("spoil", [another_status, no_order, another_nonce, another_order, another_symbol, half_a_lot])
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
