"""Derive's dialect, the account: what it has, history in pages, cancel on disconnect, protection, limits, HTTP."""

import pytest
import trio
from derive_place import (
    ACCOUNT,
    CALL,
    PERP,
    PUT,
    SESSION_KEY,
    START_MS,
    START_SEC,
    SUBACCOUNT,
    WALLET,
    D,
    headers,
    running,
)

from mmd.sandbox.derive.options import DEFAULT_WALLET, TRADER, DeriveOptions, Rates, WalletLine
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import CancelReason

MINE = {"subaccount_id": SUBACCOUNT}
OURS = {"wallet": WALLET}
SECOND = 30770
TWO = DeriveOptions(wallets=(WalletLine(address=WALLET, subaccounts=(SUBACCOUNT, SECOND), keys=DEFAULT_WALLET.keys),))


def poor(usdc):
    line = WalletLine(address=WALLET, subaccounts=(SUBACCOUNT,), keys=DEFAULT_WALLET.keys, usdc=D(usdc))
    return DeriveOptions(wallets=(line,))


async def long_and_short(house, client):
    """One ETH-PERP bought at 3000, two calls sold at 50."""
    house.levers.fill_order(ACCOUNT, await client.place(limit_price="3000"))
    sold = await client.place(instrument_name=CALL, direction="sell", limit_price="50", amount="2")
    house.levers.fill_order(ACCOUNT, sold)


# --- what it has ---------------------------------------------------------------------------------


async def test_the_account_of_a_wallet(autojump_clock):
    async with running(TWO) as house:
        client = await house.trader()
        account = await client.call("private/get_account", **OURS)
        assert account["subaccount_ids"] == [SUBACCOUNT, SECOND]
        assert account["cancel_on_disconnect"] is False
        assert (account["websocket_matching_tps"], account["websocket_option_tps"]) == (500, 10)
        assert (await client.call("private/get_subaccounts", **OURS))["subaccount_ids"] == [SUBACCOUNT, SECOND]
        (key,) = (await client.call("private/session_keys", **OURS))["public_session_keys"]
        assert (key["public_session_key"], key["protocol_scopes"]) == (SESSION_KEY, ["trade:all"])
        assert key["offchain_scopes"] == ["account_info"]
        assert await client.code("private/get_account", wallet="0x" + "1" * 40) == 14020


async def test_a_subaccount_holds_everything_at_one_instant(autojump_clock):
    async with running(poor("100000")) as house:
        client = await house.trader()
        await long_and_short(house, client)
        order_id = await client.place(instrument_name=PUT, limit_price="10", amount="5")
        data = await client.call("private/get_subaccount", **MINE)
        assert [row["order_id"] for row in data["open_orders"]] == [order_id]
        rows = {row["instrument_name"]: row for row in data["positions"]}
        assert {name: row["amount"] for name, row in rows.items()} == {PERP: "1", CALL: "-2"}
        assert (rows[CALL]["delta"], rows[CALL]["mark_value"]) == ("0.2", "-90")
        assert (rows[PERP]["mark_value"], rows[PERP]["unrealized_pnl"]) == ("0.05", "0.05")
        cash = D("100000") + 100 - D("0.3") - D("0.6")  # premium, and the maker's basis point
        assert data["collaterals"][0]["amount"] == str(cash)
        assert D(data["subaccount_value"]) == cash + D("0.05") - 90
        assert data["open_orders_margin"] == "-50"
        # Two short calls, out of the money by 600: 13 % of the index each, besides the mark.
        assert D(data["initial_margin"]) == cash + D("0.05") - 150 - 90 - 2 * 390
        assert await client.call("private/get_all_portfolios", **OURS) == [data]
        assert (await client.call("private/get_positions", **MINE))["positions"] == data["positions"]
        assert (await client.call("private/get_collaterals", **MINE))["collaterals"] == data["collaterals"]


async def test_a_subaccount_may_fail_to_be_fetched(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.fail_fetches()
        assert (await client.call("private/get_subaccount", **MINE))["failed_to_fetch"] is True
        assert (await client.call("private/get_subaccount", **MINE))["failed_to_fetch"] is False


async def test_margin_is_what_may_be_used(autojump_clock):
    async with running(poor("1000")) as house:
        client = await house.trader()
        change = [{"instrument_name": PERP, "amount": "4"}]
        told = await client.call("private/get_margin", simulated_position_changes=change, **MINE)
        assert (told["pre_initial_margin"], told["post_initial_margin"], told["is_valid_trade"]) == (
            "1000",
            "400",
            True,
        )
        await client.place(amount="4")
        await client.place(amount="2", limit_price="2990")
        assert await client.refusal(limit_price="2980") == 11000
        await client.place(direction="sell", limit_price="3010", amount="6")  # the larger side counts
        assert await client.refusal(limit_price="2980") == 11000


async def test_funding_shows_in_the_position(autojump_clock):
    async with running() as house:
        client = await house.trader("balances")
        house.levers.fill_order(ACCOUNT, await client.place(limit_price="3000"))
        await client.told("balances")
        await trio.sleep(3600)
        (row,) = (await client.call("private/get_positions", **MINE))["positions"]
        assert D(row["cumulative_funding"]) == pytest.approx(D("-0.3"), abs=D("0.001"))  # 1 bp an hour of 3000
        assert row["pending_funding"] == row["cumulative_funding"]
        house.levers.pay_funding()
        (row,) = (await client.call("private/get_positions", **MINE))["positions"]
        assert D(row["cumulative_funding"]) == pytest.approx(D("-0.3"), abs=D("0.001"))
        assert abs(D(row["pending_funding"])) < D("0.001")
        (paid,) = await client.told("balances")
        assert (paid["name"], paid["update_type"]) == ("USDC", "perp_settlement")


async def test_an_option_ends_in_cash(autojump_clock):
    async with running() as house:
        client = await house.trader("balances", "orders")
        await long_and_short(house, client)
        order_id = await client.place(instrument_name=CALL, limit_price="40")
        await trio.sleep(1)
        client.inbox.clear()
        house.levers.expire(CALL, D("3700"))
        rows = await client.told("balances")
        assert [(row["name"], row["new_balance"], row["previous_balance"]) for row in rows] == [
            ("USDC", "999899.1", "1000099.1"),
            (CALL, "0", "-2"),
        ]
        assert {row["update_type"] for row in rows} == {"option_settlement"}
        (row,) = await client.told("orders")
        assert (row["order_id"], row["order_status"]) == (order_id, "expired")
        assert await client.refusal(instrument_name=CALL, limit_price="40") == 11021


# --- history -------------------------------------------------------------------------------------


async def test_history_comes_in_pages(autojump_clock):
    async with running(TWO) as house:
        client = await house.trader()
        ids = []
        for _ in range(5):
            ids.append(await client.place(limit_price="3000"))
            house.levers.fill_order(ACCOUNT, ids[-1])
            await trio.sleep(1)
        pages = [await client.call("private/get_order_history", page=page, page_size=2, **MINE) for page in (1, 2, 3)]
        rows = [row for page in pages for row in page["orders"]]
        assert [row["order_id"] for row in rows] == ids[::-1]
        assert pages[0]["pagination"] == {"count": 5, "num_pages": 3}
        assert (rows[0]["signature"], rows[0]["replaced_order_id"], rows[0]["order_status"]) == ("", None, "filled")
        late = await client.call("private/get_order_history", from_timestamp=START_MS + 2500, **OURS)
        assert [row["order_id"] for row in late["orders"]] == ids[:2:-1]
        trades = await client.call("private/get_trade_history", order_id=ids[1], **MINE)
        assert [row["order_id"] for row in trades["trades"]] == [ids[1]]
        trades = await client.call("private/get_trade_history", page_size=3, instrument_name=PERP, **MINE)
        assert [row["order_id"] for row in trades["trades"]] == ids[:1:-1]
        assert trades["pagination"] == {"count": 5, "num_pages": 2}
        assert await client.code("private/get_order_history") == 14025
        house.levers.list_trades_late(10_000)
        assert (await client.call("private/get_trade_history", **MINE))["pagination"]["count"] == 0


async def test_faults_of_private_channels(autojump_clock):
    async with running() as house:
        client = await house.trader("orders", "trades")
        order_id = await client.place(limit_price="3000", amount="3")
        await client.told("orders")
        house.levers.repeat_fills()
        house.levers.fill_order(ACCOUNT, order_id, D("1"))
        assert await client.told("trades") == await client.told("trades")
        assert await client.told("orders") == await client.told("orders")
        house.levers.split_fills(1, 500)
        house.levers.fill_order(ACCOUNT, order_id, D("1"))
        await client.told("orders")
        assert client.inbox == []
        await client.told("trades")
        house.levers.tell_orders_late(1, 500)
        house.levers.fill_order(ACCOUNT, order_id, D("1"))
        await client.told("trades")
        assert client.inbox == []
        assert (await client.told("orders"))[0]["order_status"] == "filled"


# --- cancel on disconnect ------------------------------------------------------------------------


async def test_any_logged_in_socket_trips_the_whole_wallet(autojump_clock):
    async with running(TWO) as house:
        one, two, stranger = await house.trader("orders"), await house.trader(), await house.client()
        assert await two.call("private/set_cancel_on_disconnect", enabled=True) == "ok"
        assert (await one.call("private/get_account", **OURS))["cancel_on_disconnect"] is True
        ids = {await one.place(), await one.place(subaccount_id=SECOND)}
        await one.told("orders")
        await stranger.socket.aclose()
        await trio.sleep(1)
        assert len(house.levers.open_orders(ACCOUNT)) == 1
        await two.socket.aclose()
        (row,) = await one.told("orders")
        assert (row["order_status"], row["cancel_reason"]) == ("cancelled", "cancel_on_disconnect")
        gone = house.levers.closed_orders(ACCOUNT) + house.levers.closed_orders(str(SECOND))
        assert {order.order_id for order in gone} == ids
        assert {order.cancel_reason for order in gone} == {CancelReason.CANCEL_ON_DISCONNECT}


async def test_what_is_stored_outlives_the_socket(autojump_clock):
    async with running() as house:
        client = await house.trader()
        await client.call("private/set_cancel_on_disconnect", enabled=True)
        house.levers.cut(ACCOUNT)
        await client.closed.wait()
        client = await house.trader()
        await client.place()
        assert house.levers.cut(WALLET) == 1
        await client.closed.wait()
        assert house.levers.open_orders(ACCOUNT) == []
        client = await house.trader()
        await client.call("private/set_cancel_on_disconnect", enabled=False)
        await client.place()
        await client.socket.aclose()
        await trio.sleep(1)
        assert len(house.levers.open_orders(ACCOUNT)) == 1


async def test_the_wallet_is_cancelled_from_elsewhere(autojump_clock):
    async with running(TWO) as house:
        client = await house.trader("orders")
        await client.place()
        await client.place(subaccount_id=SECOND)
        await client.told("orders")
        assert house.levers.disconnect_elsewhere(WALLET) == 0
        assert house.levers.cancel_wallet(WALLET) == 2
        assert (await client.told("orders"))[0]["cancel_reason"] == "user_request"
        await client.place()
        house.levers.set_cancel_on_disconnect(WALLET, enabled=True)
        assert house.levers.disconnect_elsewhere(WALLET) == 1
        with pytest.raises(ValueError, match="no wallet"):
            house.levers.cancel_wallet("0x0")


async def test_a_key_that_is_removed_takes_its_orders_along(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        await client.place()
        await client.told("orders")
        assert house.levers.remove_key(WALLET, SESSION_KEY) == 1
        assert (await client.told("orders"))[0]["cancel_reason"] == "session_key_deregistered"
        assert await client.refusal() == 14026


async def test_orders_expire_and_nonces_burn_by_lever(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        order_id = await client.place()
        await client.told("orders")
        house.levers.expire_order(ACCOUNT, order_id)
        assert (await client.told("orders"))[0]["order_status"] == "expired"
        params = client.order()
        house.levers.burn_nonce(WALLET, int(params["nonce"]))
        assert await client.code("private/order", **params) == 11017


# --- maker protection ----------------------------------------------------------------------------

LIMITS = {"currency": "ETH", "mmp_interval": 10_000, "mmp_frozen_time": 5_000, "mmp_amount_limit": "2"}


async def protected(house, **changes):
    client = await house.trader("orders", "trades")
    wanted = LIMITS | {"mmp_delta_limit": "0"} | changes
    assert await client.call("private/set_mmp_config", **MINE, **wanted) == MINE | wanted
    return client


async def mmp_order(client, **changes):
    return await client.place(**({"mmp": True, "limit_price": "3000"} | changes))


async def test_too_much_in_the_interval_trips_it(autojump_clock):
    async with running() as house:
        client = await protected(house)
        hit = await mmp_order(client, amount="4")
        other = await mmp_order(client, instrument_name=CALL, limit_price="39")
        plain = await client.place(limit_price="2990")
        house.levers.fill_order(ACCOUNT, hit, D("2"))  # at the limit, not above it
        assert len(house.levers.open_orders(ACCOUNT)) == 3
        house.levers.fill_order(ACCOUNT, hit, D("1"))
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [plain]
        rows = {}
        while other not in rows or rows[hit]["order_status"] == "open":
            rows |= {row["order_id"]: row for row in await client.told("orders")}
            rows = {key: row for key, row in rows.items() if key != other or row["order_status"] != "open"}
        assert {rows[name]["cancel_reason"] for name in (hit, other)} == {"mmp_trigger"}
        (state,) = await client.call("private/get_mmp_config", **MINE)
        assert state["is_frozen"] is True
        assert state["mmp_unfreeze_time"] == house.sandbox.now_ms + 5_000
        assert await client.refusal(mmp=True) == 11015
        await client.place(limit_price="2991")  # not protected, not refused
        assert await client.refusal(mmp=True, instrument_name="BTC-PERP", limit_price="79000") is None
        await trio.sleep(5.1)
        await mmp_order(client, limit_price="2992")
        (state,) = await client.call("private/get_mmp_config", currency="ETH", **MINE)
        assert (state["is_frozen"], state["mmp_unfreeze_time"]) == (False, 0)


async def test_the_interval_rolls(autojump_clock):
    async with running() as house:
        client = await protected(house)
        order_id = await mmp_order(client, amount="8")
        for _ in range(3):
            house.levers.fill_order(ACCOUNT, order_id, D("1.5"))
            await trio.sleep(10.1)
        assert len(house.levers.open_orders(ACCOUNT)) == 1
        house.levers.fill_order(ACCOUNT, order_id, D("1.5"))
        house.levers.fill_order(ACCOUNT, order_id, D("1"))
        assert house.levers.open_orders(ACCOUNT) == []


async def test_deltas_net_and_amounts_do_not(autojump_clock):
    async with running() as house:
        client = await protected(house, mmp_amount_limit="0", mmp_delta_limit="2")
        bid = await mmp_order(client, amount="4")
        ask = await mmp_order(client, direction="sell", limit_price="3000.1", amount="4")
        for order_id in (bid, ask, bid, ask):
            house.levers.fill_order(ACCOUNT, order_id, D("1.5"))
        assert len(house.levers.open_orders(ACCOUNT)) == 2
        house.levers.fill_order(ACCOUNT, bid, D("1"))
        call = await mmp_order(client, instrument_name=CALL, limit_price="40", amount="10")
        house.levers.fill_order(ACCOUNT, call, D("5"))  # 0.2 each: 2, with what the bid bought
        assert len(house.levers.open_orders(ACCOUNT)) == 2
        house.levers.fill_order(ACCOUNT, call, D("1"))
        assert house.levers.open_orders(ACCOUNT) == []


async def test_a_freeze_without_end_waits_for_a_reset(autojump_clock):
    async with running() as house:
        client = await protected(house, mmp_frozen_time=0)
        await mmp_order(client)
        house.levers.freeze(ACCOUNT, "ETH")
        assert house.levers.open_orders(ACCOUNT) == []
        await trio.sleep(100)
        assert await client.refusal(mmp=True) == 11015
        await client.call("private/set_mmp_config", **MINE, **LIMITS)
        assert await client.refusal(mmp=True) == 11015
        assert await client.call("private/reset_mmp", currency="ETH", **MINE) == "ok"
        await mmp_order(client)
        with pytest.raises(ValueError, match="no protection"):
            house.levers.freeze(ACCOUNT, "BTC")
        assert await client.code("private/set_mmp_config", **MINE, **(LIMITS | {"currency": "eth"})) == 12002


# --- budgets -------------------------------------------------------------------------------------


async def test_windows_of_a_wallet(autojump_clock):
    rates = Rates(matching=1, non_matching=2, perp=100, option=100)
    async with running(DeriveOptions(rates=rates)) as house:
        one, two = await house.trader(), await house.trader()
        for _ in range(2):
            await one.place()
            await two.place()
        told = await one.call("public/getRateLimits")
        assert told["remaining_matching"] == {
            "remainingPoints": 1,
            "consumedPoints": 4,
            "msBeforeNext": 5000,
            "isFirstInDuration": False,
        }
        await one.place()
        assert await two.refusal() == -32000
        assert len(house.levers.open_orders(ACCOUNT)) == 5  # not carried out
        await one.call("private/get_open_orders", **MINE)
        await one.call("private/cancel_all", **MINE)  # of a window of its own
        await trio.sleep(4.9)
        assert await two.refusal() == -32000
        await trio.sleep(0.2)
        await two.place()
        house.levers.exhaust(WALLET, "matching")
        assert await two.refusal() == -32000


async def test_windows_of_single_methods(autojump_clock):
    async with running() as house:
        client = await house.trader()
        for _ in range(5):
            await client.call("private/cancel_all", **MINE)
        assert await client.code("private/cancel_all", **MINE) == -32000
        for _ in range(50):
            await client.call("private/cancel_by_label", label="x", **MINE)
        assert await client.code("private/cancel_by_label", label="x", **MINE) == -32000
        scoped = {"label": "x", "instrument_name": PERP}
        assert await client.call("private/cancel_by_label", **scoped, **MINE) == {"cancelled_orders": 0}


async def test_a_bucket_for_each_instrument(autojump_clock):
    async with running(DeriveOptions(rates=Rates(perp=1, option=2))) as house:
        client = await house.trader()
        order_id = await client.place()
        for _ in range(4):
            order_id = (await client.replace(order_id))["order"]["order_id"]  # one token, like an order
        assert await client.refusal() == -32000
        await client.place(instrument_name=CALL, limit_price="39")
        await trio.sleep(1)
        await client.place()
        assert await client.refusal() == -32000


async def test_the_limits_of_a_trader(autojump_clock):
    async with running(DeriveOptions(rates=TRADER)) as house:
        client = await house.trader()
        account = await client.call("private/get_account", **OURS)
        assert (account["websocket_matching_tps"], account["websocket_non_matching_tps"]) == (1, 5)


# --- HTTP ----------------------------------------------------------------------------------------


async def test_headers_log_in_one_request(autojump_clock):
    async with running() as house:
        client = await house.trader()
        await client.call("private/set_cancel_on_disconnect", enabled=True)
        order_id = await client.place()
        status, body = await house.http("private/get_open_orders", MINE, headers())
        assert (status, [row["order_id"] for row in body["result"]["orders"]]) == (200, [order_id])
        await trio.sleep(1)
        assert len(house.levers.open_orders(ACCOUNT)) == 1  # its end trips nothing
        status, body = await house.http(
            "private/cancel", MINE | {"instrument_name": PERP, "order_id": order_id}, headers()
        )
        assert (status, body["result"]["order_status"]) == (200, "cancelled")
        status, body = await house.http("private/order", client.order(), headers())
        assert body["result"]["order"]["order_status"] == "open"


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        pytest.param({}, 401, 401, id="no headers"),
        pytest.param({"X-DeriveWallet": WALLET}, 400, 14021, id="not all headers"),
        pytest.param(headers() | {"X-DeriveSignature": "0x" + "11" * 65}, 401, 14014, id="no signature"),
        pytest.param(headers() | {"X-DeriveWallet": "0x" + "1" * 40}, 401, 14000, id="no such wallet"),
    ],
)
async def test_headers_that_do_not_count(autojump_clock, head, status, code):
    async with running() as house:
        found, body = await house.http("private/get_open_orders", MINE, {"User-Agent": "test"} | head)
        assert (found, body["error"]["code"]) == (status, code)


async def test_a_market_maker_that_buys_by_hand(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        house.levers.take(PERP, Direction.BUY, D("1"), account=ACCOUNT)
        (row,) = await client.told("trades")
        assert (row["liquidity_role"], row["direction"]) == ("taker", "buy")
        foreign = house.levers.foreign_order(ACCOUNT, PERP, Direction.BUY, D("1"), D("2990"), "somebody")
        rows = (await client.call("private/get_open_orders", **MINE))["orders"]
        assert [(row["order_id"], row["label"], row["signature_expiry_sec"]) for row in rows] == [
            (foreign.order_id, "somebody", START_SEC + 3600)
        ]


# --- what was settled ----------------------------------------------------------------------------


async def test_the_history_of_funding(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.fill_order(ACCOUNT, await client.place(limit_price="3000"))
        house.levers.pay_funding(PERP, D("0.0001"))
        await trio.sleep(1)
        house.levers.pay_funding(PERP, D("-0.0003"))
        answer = await client.call("private/get_funding_history", **MINE, page_size=1)
        assert answer["pagination"] == {"count": 2, "num_pages": 2}
        (newest,) = answer["events"]
        assert newest["instrument_name"] == PERP and D(newest["funding"]) > 0
        older = (await client.call("private/get_funding_history", **MINE, page=2, page_size=1))["events"][0]
        assert D(older["funding"]) < 0 and older["timestamp"] < newest["timestamp"]
        since = await client.call("private/get_funding_history", **MINE, start_timestamp=newest["timestamp"])
        assert since["events"] == [newest]
        assert (await client.call("private/get_funding_history", **OURS, instrument_name=CALL))["events"] == []
        assert await client.code("private/get_funding_history") == 14025


async def test_the_history_of_option_settlements(autojump_clock):
    async with running() as house:
        client = await house.trader()
        await long_and_short(house, client)
        house.levers.expire(CALL, D("3700"))
        (row,) = (await client.call("private/get_option_settlement_history", **MINE))["settlements"]
        assert row == {
            "subaccount_id": SUBACCOUNT,
            "instrument_name": CALL,
            "expiry": 1_798_185_600,
            "amount": "-2",
            "settlement_price": "3700",
            "settlement_value": "-200",
            "option_settlement_pnl": "-100",
            "option_settlement_pnl_excl_fees": "-100",
        }
