"""The levers of every exchange, pulled at Derive's dialect, where it answers or counts in a way of its own."""

import pytest
import trio
from derive_place import ACCOUNT, CALL, PERP, PUT, START_MS, SUBACCOUNT, WALLET, D, running, signed_login
from ws_client import CallFailed

from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.orders import OrderState

MINE = {"subaccount_id": SUBACCOUNT}


def cancel_of(order_id):
    return MINE | {"instrument_name": PERP, "order_id": order_id}


# --- answers and requests ------------------------------------------------------------------------


async def test_refused_orders_and_cancels(autojump_clock):
    async with running() as house:
        client = await house.trader()
        order_id = await client.place()
        house.levers.refuse_orders(2)
        assert await client.refusal() == 11002
        assert await client.code("private/replace", order_id_to_cancel=order_id, **client.order()) == 11002
        house.levers.refuse_orders(1, 9001, "Engine confirmation timeout")
        with pytest.raises(CallFailed, match="Engine confirmation timeout"):
            await client.place()
        house.levers.refuse_cancels(1)
        assert await client.code("private/cancel", **cancel_of(order_id)) == -32603
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [order_id]
        await client.call("private/cancel", **cancel_of(order_id))


async def test_a_request_that_comes_too_late(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.delay_requests(1, 1500)
        assert await client.refusal(reject_timestamp=START_MS + 1000) == 11022
        house.levers.lose_requests(1)
        request = await client.send("private/order", **client.order())
        await trio.sleep(30)
        assert request not in client.answers
        assert house.levers.open_orders(ACCOUNT) == []


async def test_answers_overtake_each_other(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        house.levers.delay_answers(1, 1000)
        late = await client.send("private/order", **client.order())
        await client.told("orders")
        await client.place(limit_price="2990")
        assert late not in client.answers
        assert (await client.answer(late))["order"]["order_status"] == "open"


async def test_a_lost_answer_of_a_replace_leaves_one_order(autojump_clock):
    async with running() as house:
        client = await house.trader()
        old = await client.place()
        house.levers.lose_answers(1, "private/replace")
        await client.send("private/replace", order_id_to_cancel=old, **client.order(limit_price="2998"))
        await trio.sleep(1)
        (order,) = house.levers.open_orders(ACCOUNT)
        assert (order.price, order.label) == (D("2998"), "mine")


async def test_a_late_request_without_an_answer_is_carried_out(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.delay_requests(1, 3000, answered=False)
        request = await client.send("private/order", **client.order())
        await trio.sleep(2.9)
        assert house.levers.open_orders(ACCOUNT) == []
        await trio.sleep(30)
        assert [order.label for order in house.levers.open_orders(ACCOUNT)] == ["mine"]
        assert request not in client.answers


async def test_an_order_is_made_and_the_answer_is_an_error(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.confirm_with_error(1, 9000, "Order confirmation timeout")
        assert await client.refusal() == 9000
        assert [order.label for order in house.levers.open_orders(ACCOUNT)] == ["mine"]
        house.levers.confirm_with_error(1, 9000, "Order confirmation timeout")
        assert await client.refusal(amount="0") == 11012  # what was not carried out is refused as ever


@pytest.mark.parametrize(("steps", "code"), [(25, 11028), (None, 11004), (10_000, 11004)])
async def test_a_fill_wins_the_race_against_a_replace(autojump_clock, steps, code):
    async with running() as house:
        client = await house.trader()
        old, other = await client.place(), await client.place(label="other")
        house.levers.fill_before_edits(1, steps)
        wanted = client.order(order_id_to_cancel=old, expected_filled_amount="0")
        assert await client.code("private/replace", **wanted) == code
        filled = D("0.25") if steps == 25 else D(1)
        assert house.levers.position(ACCOUNT, PERP) == filled
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [other]


async def test_a_login_may_be_cut(autojump_clock):
    async with running() as house:
        client = await house.client()
        house.levers.cut_logins(1)
        await client.send("public/login", **signed_login())
        await client.closed.wait()
        await house.trader()


# --- clock, instruments, platform ----------------------------------------------------------------


async def test_orders_end_by_the_exchanges_clock(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        await client.place()
        await client.told("orders")
        house.levers.shift_clock(500_000)
        await trio.sleep(1)
        assert client.inbox == []
        house.levers.shift_clock(601_000)
        assert (await client.told("orders"))[0]["order_status"] == "expired"
        assert await client.refusal(nonce=str((START_MS - 1000) * 1_000_000)) is None
        house.levers.shift_clock(-2 * 3_600_000)
        assert await client.refusal(nonce=str(START_MS * 1_000_000 + 5)) == 11018


async def test_a_halted_instrument(autojump_clock):
    async with running() as house:
        client = await house.trader()
        order_id = await client.place()
        house.levers.halt(PERP)
        assert await client.refusal() == 11021
        assert await client.code("private/cancel", **cancel_of(order_id)) == 11021
        assert await client.code("private/replace", order_id_to_cancel=order_id, **client.order()) == 11021
        assert await client.call("private/cancel_all", **MINE) == "ok"
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [order_id]
        house.levers.reopen(PERP)
        await client.call("private/cancel", **cancel_of(order_id))
        house.levers.lock_platform("eth_usd")
        assert await client.refusal() == 11021
        house.levers.unlock_platform()
        house.levers.set_state(CALL, InstrumentState.INACTIVE)
        assert CALL not in await client.call("public/get_all_live_instruments")


async def test_maintenance_stops_orders_and_not_connections(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.begin_maintenance()
        assert await client.refusal() == -32603
        house.levers.end_maintenance()
        await client.place()


# --- the account from behind ---------------------------------------------------------------------


async def test_a_position_that_is_reported_wrong(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.drift_position(ACCOUNT, PERP, D("2.5"))
        (row,) = (await client.call("private/get_positions", **MINE))["positions"]
        assert (row["instrument_name"], row["amount"]) == (PERP, "2.5")
        house.levers.drift_position(ACCOUNT, PERP, D("0"))
        assert (await client.call("private/get_positions", **MINE))["positions"] == []


async def test_a_fill_of_an_order_that_was_closed(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        order_id = await client.place()
        await client.call("private/cancel", **cancel_of(order_id))
        trade_id = house.levers.fill_closed_order(ACCOUNT, order_id, D("1"))
        assert [row["trade_id"] for row in await client.told("trades")] == [trade_id]
        assert house.levers.repeat_fill(ACCOUNT) == trade_id
        assert [row["trade_id"] for row in await client.told("trades")] == [trade_id]


async def test_a_restart_loses_orders_without_a_word(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        order_id = await client.place()
        await client.told("orders")
        assert house.levers.restart(5) == 1
        await client.closed.wait()
        assert client.inbox == []
        await trio.sleep(5)
        client = await house.trader()
        assert (await client.call("private/get_open_orders", **MINE))["orders"] == []
        found = await client.call("private/get_order", order_id=order_id, **MINE)
        assert (found["order_status"], found["cancel_reason"]) == ("cancelled", "")


async def test_an_aggressor_meets_our_quotes(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        await client.place(instrument_name=PUT, limit_price="10", amount="3")
        house.levers.take(PUT, Direction.SELL, D("2"))
        (row,) = await client.told("trades")
        assert (row["trade_amount"], row["liquidity_role"], row["trade_fee"]) == ("2", "maker", "0.6")
        (order,) = house.levers.open_orders(ACCOUNT)
        assert (order.filled, order.state) == (2, OrderState.OPEN)


@pytest.mark.parametrize("who", [ACCOUNT, WALLET])
async def test_a_connection_that_is_half_open_trips_the_wallet_late(autojump_clock, who):
    async with running() as house:
        client = await house.trader()
        await client.call("private/set_cancel_on_disconnect", enabled=True)
        await client.place()
        assert house.levers.stall_connections(who) == 1
        await trio.sleep(100)
        assert len(house.levers.open_orders(ACCOUNT)) == 1
        await trio.sleep(100)
        assert house.levers.open_orders(ACCOUNT) == []
