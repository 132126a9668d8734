"""Derive's dialect, orders: logins and signatures that count or do not, every refusal, replace, cancels, life."""

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
    running,
    sign,
    signed_login,
)
from eth_account import Account
from ws_client import CallFailed

from mmd.sandbox.derive import signing
from mmd.sandbox.derive.known import WALLET_SECRET
from mmd.sandbox.derive.options import DEFAULT_WALLET, DeriveOptions, KeyLine, Told, WalletLine
from mmd.sandbox.model import Direction

OTHER = Account.from_key(b"\7" * 32)
LATE_KEY = Account.from_key(b"\10" * 32)
PERP_KEY = Account.from_key(b"\11" * 32)
HOUR_SEC = 3600


def key(account, **changes):
    return KeyLine(address=account.address, **changes)


KEYS = DeriveOptions(
    wallets=(
        WalletLine(
            address=WALLET,
            subaccounts=(SUBACCOUNT, 30770),
            keys=(
                *DEFAULT_WALLET.keys,
                key(LATE_KEY, expiry_sec=START_SEC + 500),
                key(PERP_KEY, scopes=("trade:orderbook:perp",), subaccounts=(SUBACCOUNT,)),
            ),
        ),
        WalletLine(address=OTHER.address, subaccounts=(5,)),
    )
)


# --- login ---------------------------------------------------------------------------------------


async def test_login_answers_the_subaccounts_of_the_key(autojump_clock):
    async with running(KEYS) as house:
        client = await house.client()
        assert await client.call("public/login", **signed_login()) == [SUBACCOUNT, 30770]
        assert await client.call("public/login", **signed_login(secret=PERP_KEY.key)) == [SUBACCOUNT]
        assert await client.call("public/login", **signed_login(secret=WALLET_SECRET)) == [SUBACCOUNT, 30770]
        assert await client.code("private/get_open_orders", subaccount_id=5) == 14001


@pytest.mark.parametrize(
    ("login", "code"),
    [
        pytest.param({"wallet": "0x" + "1" * 40}, 14000, id="no such wallet"),
        pytest.param({"wallet": "nonsense"}, 14000, id="no address"),
        pytest.param({"signature": "0x" + "11" * 65}, 14014, id="no signature"),
        pytest.param({"signature": "0x12"}, 14014, id="too short"),
        pytest.param({"timestamp": START_MS + 1}, 14026, id="another time than was signed"),
        pytest.param(signed_login(secret=OTHER.key), 14026, id="a key of nobody's"),
        pytest.param(signed_login(secret=WALLET_SECRET, timestamp=START_MS - 600_000), 14014, id="owner, stale"),
    ],
)
async def test_logins_that_do_not_count(autojump_clock, login, code):
    async with running(KEYS) as house:
        client = await house.client()
        assert await client.code("public/login", **(signed_login() | login)) == code
        assert await client.code("private/get_open_orders", subaccount_id=SUBACCOUNT) == 401


async def test_a_session_key_expires(autojump_clock):
    async with running(KEYS) as house:
        client = await house.trader(secret=LATE_KEY.key)
        old = await house.trader(timestamp=START_MS - 10_000_000)  # of a session key, any age counts
        await client.call("private/get_open_orders", subaccount_id=SUBACCOUNT)
        await trio.sleep(501)
        client = await house.client()
        assert await client.code("public/login", **signed_login(secret=LATE_KEY.key)) == 14030
        assert await old.refusal(signer=LATE_KEY.address) == 14030
        house.levers.expire_key(WALLET, SESSION_KEY)
        assert await old.code("private/get_open_orders", subaccount_id=SUBACCOUNT) == 14030


# --- one order -----------------------------------------------------------------------------------


async def test_an_order_signed_by_eth_account_rests(autojump_clock):
    async with running() as house:
        client = await house.trader("orders", "trades", "balances")
        params = client.order()
        placed = await client.call("private/order", **params)
        order = placed["order"]
        assert placed["trades"] == []
        assert len(order["order_id"]) == 36
        wanted = {
            "subaccount_id": SUBACCOUNT,
            "instrument_name": PERP,
            "direction": "buy",
            "amount": "1",
            "filled_amount": "0",
            "limit_price": "2999",
            "order_status": "open",
            "cancel_reason": "",
            "label": "mine",
            "time_in_force": "post_only",
            "mmp": False,
            "nonce": params["nonce"],
            "signature": params["signature"],
            "signer": SESSION_KEY,
            "replaced_order_id": None,
        }
        assert {name: order[name] for name in wanted} == wanted
        assert await client.told("orders") == [order]
        assert (await client.call("private/get_open_orders", subaccount_id=SUBACCOUNT))["orders"] == [order]
        assert await client.call("private/get_order", subaccount_id=SUBACCOUNT, order_id=order["order_id"]) == order


async def test_a_fill_is_told_on_three_channels(autojump_clock):
    async with running() as house:
        client = await house.trader("orders", "trades", "balances")
        order_id = await client.place(limit_price="3000")
        await client.told("orders")
        house.levers.fill_order(ACCOUNT, order_id, D("0.4"))
        (order,) = await client.told("orders")
        (trade,) = await client.told("trades")
        assert (order["order_status"], order["filled_amount"], order["average_price"]) == ("open", "0.4", "3000")
        assert (trade["order_id"], trade["trade_price"], trade["trade_amount"]) == (order_id, "3000", "0.4")
        assert (trade["liquidity_role"], trade["trade_fee"], trade["label"]) == ("maker", "0.12", "mine")
        cash, position = await client.told("balances")
        assert (cash["name"], cash["previous_balance"], cash["new_balance"]) == ("USDC", "1000000", "999999.88")
        assert position == {
            "name": PERP,
            "new_balance": "0.4",
            "previous_balance": "0",
            "update_type": "trade",
        }


async def test_a_taker_is_told_of_its_trades_at_once(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        params = client.order(time_in_force="ioc", limit_price="3001.3", amount="3")
        placed = await client.call("private/order", **params)
        assert placed["order"]["order_status"] == "filled"
        assert [(row["trade_price"], row["trade_amount"]) for row in placed["trades"]] == [
            ("3000.1", "2"),
            ("3001.3", "1"),
        ]
        assert placed["trades"][0]["trade_fee"] == "1.81"  # 3 bp of the index, and the base fee
        assert await client.told("trades") == placed["trades"]
        part = await client.call(
            "private/order", **client.order(time_in_force="ioc", limit_price="3001.3", amount="90")
        )
        assert (part["order"]["order_status"], part["order"]["filled_amount"]) == ("cancelled", "29")
        assert part["order"]["cancel_reason"] == "ioc_or_market_partial_fill"


NOW_NS = START_MS * 1_000_000
REFUSED = [
    pytest.param({"signature": "0x" + "22" * 65}, 14014, id="no signature"),
    pytest.param({"signer": OTHER.address}, 14023, id="signer of nobody's"),
    pytest.param({"signer": WALLET}, 14014, id="another signer than signed"),
    pytest.param({"signature_expiry_sec": START_SEC + 299}, 11011, id="expires too soon"),
    pytest.param({"signature_expiry_sec": START_SEC + 121 * 86_400}, 11011, id="expires too late"),
    pytest.param({"mmp": True, "signature_expiry_sec": START_SEC + 901}, 11011, id="mmp beyond 15 minutes"),
    pytest.param({"nonce": str(START_MS)}, 11018, id="nonce in ms"),
    pytest.param({"nonce": str(NOW_NS + 2 * HOUR_SEC * 10**9)}, 11018, id="nonce of the future"),
    pytest.param({"nonce": "nonsense", "signature": "0x00"}, -32602, id="nonce is no number"),
    pytest.param({"reject_timestamp": START_MS - 1}, 11022, id="too late"),
    pytest.param({"max_fee": "1.7"}, 11023, id="max_fee too low"),
    pytest.param({"limit_price": "2999.005"}, 11013, id="price off the tick"),
    pytest.param({"limit_price": "0"}, 11013, id="no price"),
    pytest.param({"limit_price": "3100.01", "time_in_force": "gtc"}, 11013, id="price outside the band"),
    pytest.param({"amount": "1.005"}, 11012, id="amount off the step"),
    pytest.param({"amount": "0.5"}, 11012, id="amount below the minimum"),
    pytest.param({"amount": "10001"}, 11012, id="amount above the maximum"),
    pytest.param({"amount": "1.0000000000001"}, -32602, id="more than 12 decimals"),
    pytest.param({"limit_price": "3000.1"}, 11008, id="post-only that crosses"),
    pytest.param({"reduce_only": True}, 11024, id="reduce-only that rests"),
    pytest.param({"reduce_only": True, "time_in_force": "ioc", "limit_price": "3001"}, 11025, id="nothing to reduce"),
    pytest.param({"order_type": "market"}, 11010, id="market and post-only"),
    pytest.param({"time_in_force": "ioc"}, 11009, id="nothing to take"),
    pytest.param({"time_in_force": "fok", "limit_price": "3001.3", "amount": "90"}, 11014, id="not all to take"),
    pytest.param({"amount": "9000"}, 11000, id="no margin"),
    pytest.param({"trigger_type": "stoploss"}, -32602, id="a trigger order"),
    pytest.param({"direction": "up", "signature": "0x00"}, -32602, id="no direction"),
    pytest.param({"subaccount_id": 31}, 14001, id="no such subaccount"),
    pytest.param({"subaccount_id": "30769", "signature": "0x00"}, -32602, id="subaccount as text"),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED)
async def test_orders_that_are_refused(autojump_clock, changes, code):
    poor = WalletLine(address=WALLET, subaccounts=(SUBACCOUNT,), keys=DEFAULT_WALLET.keys, usdc=D("1000000"))
    async with running(DeriveOptions(wallets=(poor,))) as house:
        client = await house.trader("orders")
        assert await client.refusal(**changes) == code
        assert house.levers.open_orders(ACCOUNT) == []
        await client.place()  # and the next one is taken


async def test_a_signature_is_of_every_word(autojump_clock):
    async with running() as house:
        client = await house.trader()
        right = client.order()
        for changes in (
            {"limit_price": "2998"}, {"amount": "2"}, {"max_fee": "11"}, {"direction": "sell", "limit_price": "3010"},
            {"nonce": str(int(right["nonce"]) + 1)}, {"instrument_name": "BTC-PERP"},
            {"signature_expiry_sec": right["signature_expiry_sec"] + 1},
        ):  # fmt: skip
            assert await client.code("private/order", **(right | changes)) == 14014
        testnet = sign(right, chain_id=11155111)
        assert await client.code("private/order", **(right | {"signature": testnet})) == 14014
        await client.call("private/order", **(right | {"label": "not signed", "mmp": True}))


async def test_a_nonce_is_used_once_and_may_be_burnt(autojump_clock):
    async with running() as house:
        client = await house.trader()
        params = client.order()
        await client.call("private/order", **params)
        assert await client.code("private/order", **params) == 11017
        late = client.order()
        cancelled = await client.call(
            "private/cancel_by_nonce", subaccount_id=SUBACCOUNT, instrument_name=PERP, nonce=int(late["nonce"])
        )
        assert cancelled == {"cancelled_orders": 0}
        assert await client.code("private/order", **late) == 11017


async def test_what_a_key_may_not_do(autojump_clock):
    async with running(KEYS) as house:
        client = await house.trader(secret=PERP_KEY.key)
        mine = {"signer": PERP_KEY.address}
        call = client.order(instrument_name=CALL, limit_price="39", **mine)
        assert await client.code("private/order", **(call | {"signature": sign(call, PERP_KEY.key)})) == 14031
        perp = client.order(**mine)
        await client.call("private/order", **(perp | {"signature": sign(perp, PERP_KEY.key)}))
        elsewhere = client.order(subaccount_id=30770, **mine)
        assert await client.code("private/order", **(elsewhere | {"signature": sign(elsewhere, PERP_KEY.key)})) == 403
        assert await client.code("private/set_cancel_on_disconnect", enabled=True) == 14031
        late = client.order(signer=LATE_KEY.address)
        late["signature"] = sign(late, LATE_KEY.key)
        assert await client.code("private/order", **late) == 14038


async def test_the_band_is_told_with_the_refusal(autojump_clock):
    async with running() as house:
        client = await house.trader()
        with pytest.raises(CallFailed) as refused:
            await client.place(limit_price="3100.01", time_in_force="gtc")
        assert refused.value.data == {"limit": "3100", "bandwidth": "99.95"}


async def test_an_instrument_that_is_not_live(autojump_clock):
    async with running() as house:
        client = await house.trader()
        order_id = await client.place()
        house.levers.lock(PERP)
        assert await client.refusal() == 11021
        assert not (await client.call("public/get_instrument", instrument_name=PERP))["is_active"]
        await client.call("private/cancel", subaccount_id=SUBACCOUNT, instrument_name=PERP, order_id=order_id)
        house.levers.reopen(PERP)
        await client.place()


async def test_own_orders_do_not_cross(autojump_clock):
    async with running() as house:
        client = await house.trader()
        await client.place(limit_price="3000.05")
        assert await client.refusal(direction="sell", limit_price="3000.05", time_in_force="gtc") == 11007


async def test_a_post_only_price_may_be_moved(autojump_clock):
    async with running() as house:
        client = await house.trader()
        placed = await client.call("private/order", **client.order(limit_price="3000.1", reject_post_only=False))
        assert placed["order"]["limit_price"] == "3000.09"
        assert placed["order"]["signed_limit_price"] == "3000.1"


async def test_an_order_ends_with_its_signature(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        order_id = await client.place(mmp=True, signature_expiry_sec=START_SEC + 900)
        await client.told("orders")
        await trio.sleep(899)
        assert client.inbox == []
        await trio.sleep(2)
        (row,) = await client.told("orders")
        assert (row["order_id"], row["order_status"], row["cancel_reason"]) == (order_id, "expired", "")
        assert house.levers.open_orders(ACCOUNT) == []
        gone = {"subaccount_id": SUBACCOUNT, "instrument_name": PERP, "order_id": order_id}
        assert await client.code("private/cancel", **gone) == 11005


async def test_order_debug_shows_the_steps(autojump_clock):
    async with running() as house:
        client = await house.trader()
        shown = await client.call("private/order_debug", **client.order())
        assert shown["recovered_signer"] == SESSION_KEY
        assert shown["domain_separator"] == "0xda616dfabb88681b08e1592820a41d55ddc62d68de110e327ae99d734506fe19"
        assert house.levers.open_orders(ACCOUNT) == []


def test_the_published_example_hashes_to_the_published_steps():
    envelope = signing.Envelope(
        subaccount=30769, nonce=1795305600000000001, expiry=1795306500, owner=WALLET, signer=SESSION_KEY
    )
    trade = signing.Trade(
        asset="0xAf65752C4643E25C02F693f9D4FE19cF23a095E3",
        sub_id=0,
        limit_price=D("3100.25"),
        amount=D("1.5"),
        max_fee=D("6.2"),
        is_bid=True,
    )
    hashes = signing.hash_trade(signing.domain_separator(1), envelope, trade)
    assert hashes.data_hash.hex() == "a34d819a6a7ec60e25e9a2d76ad4909da421eb73095059794a39b255848fc2cd"
    assert hashes.action_hash.hex() == "4d351977226902785d0337f5794dbf81d458771206895669ecdcde2ff4359644"
    assert hashes.typed_data_hash.hex() == "d0c9c8066bb7124606e50d34f91a620569144e046062c8fe71608f56523465ad"
    signature = (
        "0x7acf2aad54ae277e348f8a82a8788ad62c6ff95bc9adbda96ef865d52ca792e7"
        "7fbba3ff23f1c4fe1010bdfa9eb9c56f78010b52e1d705688b08780fcf63c5091c"
    )
    assert signing.recover(hashes.typed_data_hash, signature) == SESSION_KEY


# --- replace -------------------------------------------------------------------------------------


async def test_a_replace_makes_another_order(autojump_clock):
    async with running() as house:
        client = await house.trader("orders")
        old = await client.place()
        await client.told("orders")
        answer = await client.replace(old, limit_price="2998", amount="2", expected_filled_amount="0")
        assert answer["create_order_error"] is None
        assert (answer["cancelled_order"]["order_id"], answer["cancelled_order"]["order_status"]) == (old, "cancelled")
        assert answer["cancelled_order"]["cancel_reason"] == "user_request"
        new = answer["order"]
        assert new["order_id"] != old
        assert (new["replaced_order_id"], new["limit_price"], new["amount"]) == (old, "2998", "2")
        told = await client.told("orders") + await client.told("orders")
        assert [(row["order_id"], row["order_status"]) for row in told] == [
            (old, "cancelled"),
            (new["order_id"], "open"),
        ]
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [new["order_id"]]
        by_nonce = client.order(limit_price="2997") | {"nonce_to_cancel": int(new["nonce"])}
        assert (await client.call("private/replace", **by_nonce))["cancelled_order"]["order_id"] == new["order_id"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"limit_price": "3000.1"}, 11008, id="it would cross"),
        pytest.param({"amount": "9000"}, 11000, id="no margin"),
        pytest.param({"reject_timestamp": START_MS - 1}, 11022, id="too late"),
        pytest.param({"max_fee": "1"}, 11023, id="max_fee too low"),
    ],
)
async def test_half_a_replace(autojump_clock, changes, code):
    async with running() as house:
        client = await house.trader()
        old = await client.place()
        answer = await client.replace(old, **changes)
        assert (answer["order"], answer["trades"]) == (None, None)
        assert answer["create_order_error"]["code"] == code
        assert answer["cancelled_order"]["order_id"] == old
        assert house.levers.open_orders(ACCOUNT) == []


async def test_half_a_replace_by_lever(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.fail_replaces(1, 11019, "Open orders limit")
        answer = await client.replace(await client.place())
        assert answer["create_order_error"] == {"code": 11019, "message": "Open orders limit"}
        assert (await client.replace(await client.place(limit_price="2990")))["order"] is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"signature": "0x" + "22" * 65}, 14014, id="no signature"),
        pytest.param({"signature_expiry_sec": START_SEC}, 11011, id="expired"),
        pytest.param({"instrument_name": "BTC-PERP"}, -32602, id="another instrument"),
    ],
)
async def test_a_bad_replace_cancels_nothing(autojump_clock, changes, code):
    async with running() as house:
        client = await house.trader()
        old = await client.place()
        params = client.order(**changes) | {"order_id_to_cancel": old}
        assert await client.code("private/replace", **params) == code
        assert [order.order_id for order in house.levers.open_orders(ACCOUNT)] == [old]


async def test_a_replace_of_what_is_gone_makes_nothing(autojump_clock):
    async with running() as house:
        client = await house.trader()
        old = await client.place(limit_price="3000")
        house.levers.fill_order(ACCOUNT, old)
        assert await client.code("private/replace", **client.order(), order_id_to_cancel=old) == 11004
        assert await client.code("private/replace", **client.order(), order_id_to_cancel="nobody") == 11006
        assert await client.code("private/replace", **client.order()) == -32602
        assert house.levers.open_orders(ACCOUNT) == []


@pytest.mark.parametrize("in_result", [False, True])
async def test_a_fill_that_slips_in_between_ends_the_order(autojump_clock, in_result):
    async with running() as house:
        house.levers.show_mismatch(in_result=in_result)
        client = await house.trader("orders")
        old = await client.place(limit_price="3000", amount="3")
        house.levers.fill_order(ACCOUNT, old, D("1"))
        params = client.order(amount="3") | {"order_id_to_cancel": old, "expected_filled_amount": "0"}
        if in_result:
            answer = await client.call("private/replace", **params)
            assert (answer["order"], answer["create_order_error"]["code"]) == (None, 11028)
            assert answer["cancelled_order"]["filled_amount"] == "1"
        else:
            assert await client.code("private/replace", **params) == 11028
        assert house.levers.open_orders(ACCOUNT) == []


async def replaced(client, order_id, limit_price):
    """The new id, and whether the answer came before what the channel told."""
    begin = len(client.log)
    new = (await client.replace(order_id, limit_price=limit_price))["order"]["order_id"]
    await client.told("orders")
    await client.told("orders")
    return new, "result" in client.log[begin]


@pytest.mark.parametrize(("told", "answer_first"), [(Told.BEFORE, False), (Told.AFTER, True)])
async def test_the_predecessor_is_told_before_or_after_the_answer(autojump_clock, told, answer_first):
    async with running() as house:
        house.levers.tell_replaced(told)
        client = await house.trader("orders")
        order_id = await client.place()
        await client.told("orders")
        assert (await replaced(client, order_id, "2998"))[1] is answer_first


async def test_the_seed_says_when_replaces_are_told(autojump_clock):
    turns = []
    for seed in (3, 3):
        async with running(seed=seed) as house:
            client = await house.trader("orders")
            order_id = await client.place()
            await client.told("orders")
            turns.append([])
            for step in range(12):
                order_id, answer_first = await replaced(client, order_id, str(2990 - step))
                turns[-1].append(answer_first)
    assert turns[0] == turns[1]
    assert set(turns[0]) == {True, False}


# --- cancels -------------------------------------------------------------------------------------


async def test_cancels(autojump_clock):
    async with running() as house:
        client = await house.trader()
        rows = ((PERP, "2999", "a"), (CALL, "39", "a"), (PUT, "5", "b"), ("BTC-PERP", "79000", "b"))
        ids = {
            name: await client.place(instrument_name=name, limit_price=price, label=label)
            for name, price, label in rows
        }
        assert len(ids) == 4
        mine = {"subaccount_id": SUBACCOUNT}
        assert await client.code("private/cancel", order_id=ids[PERP], instrument_name=CALL, **mine) == 11006
        row = await client.call("private/cancel", order_id=ids[PERP], instrument_name=PERP, **mine)
        assert (row["order_status"], row["cancel_reason"]) == ("cancelled", "user_request")
        assert await client.code("private/cancel", order_id=ids[PERP], instrument_name=PERP, **mine) == 11003
        scoped = await client.call("private/cancel_by_label", label="b", instrument_name=PUT, **mine)
        assert scoped == {"cancelled_orders": 1}
        assert await client.call("private/cancel_by_label", label="a", **mine) == {"cancelled_orders": -1}
        open_now = {order.instrument_name for order in house.levers.open_orders(ACCOUNT)}
        assert open_now == {"BTC-PERP"}
        assert await client.call("private/cancel_by_instrument", instrument_name="BTC-PERP", **mine) == {
            "cancelled_orders": 1
        }
        placed = (await client.call("private/order", **client.order()))["order"]
        by_nonce = {"instrument_name": PERP, "nonce": int(placed["nonce"]), **mine}
        assert await client.call("private/cancel_by_nonce", **by_nonce) == {"cancelled_orders": 1}
        await client.place()
        assert await client.call("private/cancel_all", **mine) == "ok"
        assert house.levers.open_orders(ACCOUNT) == []


async def test_a_fill_may_win_the_race_with_a_cancel(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        order_id = await client.place(limit_price="3000")
        house.levers.fill_before_cancels()
        gone = {"subaccount_id": SUBACCOUNT, "instrument_name": PERP, "order_id": order_id}
        assert await client.code("private/cancel", **gone) == 11004
        assert [row["order_id"] for row in await client.told("trades")] == [order_id]
        assert house.levers.position(ACCOUNT, PERP) == 1


async def test_a_lost_answer_of_an_order_that_fills_later(autojump_clock):
    async with running() as house:
        client = await house.trader("trades")
        house.levers.lose_answers(1)
        request = await client.send("private/order", **client.order(limit_price="3000"))
        await trio.sleep(5)
        assert request not in client.answers
        house.levers.fill_quote(ACCOUNT, PERP, Direction.BUY)
        assert len(await client.told("trades")) == 1


async def test_an_answer_may_come_twice(autojump_clock):
    async with running() as house:
        client = await house.trader()
        house.levers.repeat_answers()
        await client.place()
        await trio.sleep(1)
        assert client.log[-1] == client.log[-2]
        assert len(house.levers.open_orders(ACCOUNT)) == 1
