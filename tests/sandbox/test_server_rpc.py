"""Framing, login, scopes, heartbeats, cancel on disconnect and limits, over in-process WebSockets."""

import hashlib
import hmac
import json

import pytest
import trio
from static_market import PERP, START_MS, D
from ws_client import CallFailed, running

from mmd.sandbox.deribit.auth import Key, sign
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.orders import CancelReason

ORDER = {"instrument_name": PERP, "amount": 10, "price": 79999.0, "post_only": True, "reject_post_only": True}


# --- framing -------------------------------------------------------------------------------------


async def test_framing(autojump_clock):
    async with running() as house:
        client = await house.client()
        answer = await client.raw('{"jsonrpc":"2.0","id":"seven","method":"public/test","params":{}}')
        assert answer["id"] == "seven"
        assert answer["testnet"] is True
        assert answer["usDiff"] == answer["usOut"] - answer["usIn"]
        assert answer["result"]["version"]


@pytest.mark.parametrize(
    ("text", "code", "data"),
    [
        pytest.param("{nonsense", -32700, None, id="no JSON"),
        pytest.param("[]", -32600, None, id="a batch"),
        pytest.param('{"id":1001,"method":"public/nothing"}', -32601, None, id="no such method"),
        pytest.param('{"method":"public/test"}', -32600, {"param": "id", "reason": "value required"}, id="no id"),
        pytest.param('{"id":1001,"method":"public/test","params":[1]}', -32600, None, id="positional parameters"),
        pytest.param(
            '{"id":1001,"method":"public/ticker"}',
            -32602,
            {"param": "instrument_name", "reason": "value required"},
            id="parameter missing",
        ),
        pytest.param(
            '{"id":1001,"method":"public/ticker","params":{"instrument_name":5}}',
            -32602,
            {"param": "instrument_name", "reason": "value must be a string"},
            id="parameter of the wrong shape",
        ),
        pytest.param(
            '{"id":1001,"method":"public/ticker","params":{"instrument_name":"BTC-NONE"}}', 13020, None, id="not listed"
        ),
        pytest.param(
            '{"id":1001,"method":"public/set_heartbeat","params":{"interval":9}}',
            -32602,
            {"param": "interval", "reason": "value must be >= 10"},
            id="heartbeat too fast",
        ),
        pytest.param(
            '{"id":1001,"method":"private/get_positions"}',
            13009,
            {"reason": "invalid_token", "param": "token"},
            id="private without login",
        ),
        pytest.param('{"id":1001,"method":"public/test","x":"' + "y" * 33_000 + '"}', -32600, None, id="over 32 kB"),
    ],
)
async def test_bad_requests_are_answered_and_the_link_lives(autojump_clock, text, code, data):
    async with running() as house:
        client = await house.client()
        answer = await client.raw(text)
        assert answer["error"]["code"] == code
        if data is not None:
            assert answer["error"]["data"] == data
        assert await client.call("public/get_time") >= START_MS


async def test_paths(autojump_clock):
    async with running() as house:
        assert await (await house.client("/den/ws")).call("public/test")
        stream = await house.sandbox.connect()
        await stream.send_all(
            b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 404 ")


# --- login ---------------------------------------------------------------------------------------


async def test_three_grants(autojump_clock):
    async with running() as house:
        client = await house.client()
        first = await client.login(scope="session:one trade:read account:read_write expires:600")
        assert first["token_type"] == "bearer"
        assert first["expires_in"] == 600
        assert {"session:one", "trade:read", "account:read_write"} <= set(first["scope"].split())
        second = await client.call(
            "public/auth", grant_type="refresh_token", refresh_token=first["refresh_token"], state="x"
        )
        assert second["state"] == "x"
        assert second["access_token"] != first["access_token"]
        other = await house.client()
        text = f"{START_MS}\nn0\nctx"
        signed = await other.call(
            "public/auth",
            grant_type="client_signature",
            client_id="maker",
            timestamp=START_MS,
            nonce="n0",
            data="ctx",
            signature=sign("s", text),
        )
        assert signed["access_token"]
        with pytest.raises(CallFailed) as again:  # a nonce is for one use
            await other.call(
                "public/auth",
                grant_type="client_signature",
                client_id="maker",
                timestamp=START_MS,
                nonce="n0",
                signature="x",
            )
        assert again.value.code == 13004


def test_the_signature_of_the_reference():
    assert sign("mmd-test-secret", "1767225600000\nn0nce-01\n") == (
        "dc51af8b3e6fad17f64610003f9fac386492699152c14e35c83b11e158e9ea1a"
    )
    assert sign("mmd-test-secret", "1767225600000\nn0nce-01\nctx") == (
        hmac.new(b"mmd-test-secret", b"1767225600000\nn0nce-01\nctx", hashlib.sha256).hexdigest()
    )


async def test_listed_accounts_only(autojump_clock):
    keys = (Key(client_id="maker", client_secret="s", scope="trade:read account:read", balances={"BTC": D("7")}),)
    async with running(keys=keys) as house:
        client = await house.client()
        for client_id, secret in (("maker", "wrong"), ("stranger", "s")):
            with pytest.raises(CallFailed) as refused:
                await client.call(
                    "public/auth", grant_type="client_credentials", client_id=client_id, client_secret=secret
                )
            assert refused.value.code == 13004
        granted = await client.login(scope="trade:read_write")
        assert "trade:read" in granted["scope"].split()
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", **ORDER)
        assert refused.value.code == 13021
        assert await client.call("private/get_open_orders") == []
        await client.login()
        assert (await client.call("private/get_account_summary", currency="BTC"))["balance"] == 7


async def test_tokens_expire_and_belong_to_their_connection(autojump_clock):
    async with running() as house:
        client = await house.client()
        own = await client.login(scope="expires:60")
        other = await house.client()
        with pytest.raises(CallFailed) as refused:
            await other.call("private/get_positions", access_token=own["access_token"])
        assert refused.value.code == 13009
        session = await client.login(scope="session:shared")
        assert await other.call("private/get_positions", access_token=session["access_token"]) == []
        await client.login(scope="expires:60")
        await trio.sleep(61)
        with pytest.raises(CallFailed) as refused:
            await client.call("private/get_positions")
        assert refused.value.code == 13009


# --- the life of a link --------------------------------------------------------------------------


async def test_heartbeats_answered_keep_the_link(autojump_clock):
    async with running() as house:
        client = await house.client()
        assert await client.call("public/set_heartbeat", interval=10) == "ok"
        for _ in range(5):
            assert await client.note() == {"type": "heartbeat"}
            assert await client.note() == {"type": "test_request"}
            await client.call("public/test")
        assert not client.closed.is_set()
        await client.call("public/disable_heartbeat")
        await trio.sleep(60)
        assert client.inbox == []


async def test_an_ignored_test_request_ends_the_link_and_pulls_the_orders(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.login()
        await client.call("public/set_heartbeat", interval=10)
        await client.call("private/enable_cancel_on_disconnect")
        await client.call("private/buy", **ORDER)
        with trio.fail_after(25):
            await client.closed.wait()
        account = house.engine.floor.accounts["maker"]
        assert not account.open_orders
        assert [order.cancel_reason for order in account.closed_orders.values()] == [CancelReason.CANCEL_ON_DISCONNECT]


async def test_idle_links_are_closed(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.call("public/test")
        await trio.sleep(599)
        assert not client.closed.is_set()
        await trio.sleep(2)
        assert client.closed.is_set()


async def test_cancel_on_disconnect_per_connection_and_account(autojump_clock):
    async with running() as house:
        first, second = await house.client(), await house.client()
        for client in (first, second):
            await client.login()
            await client.call("private/buy", **ORDER)
        await first.call("private/enable_cancel_on_disconnect", scope="connection")
        assert await first.call("private/get_cancel_on_disconnect") == {"scope": "connection", "enabled": True}
        assert (await first.call("private/get_cancel_on_disconnect", scope="account"))["enabled"] is False
        await first.socket.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(house.engine.floor.accounts["maker"].open_orders) == 1
        await second.call("private/enable_cancel_on_disconnect", scope="account")
        third = await house.client()
        await third.login()
        assert (await third.call("private/get_cancel_on_disconnect"))["enabled"] is True
        await third.call("private/buy", **ORDER)
        await third.send("private/logout")  # says goodbye: its orders stay
        await third.closed.wait()
        assert len(house.engine.floor.accounts["maker"].open_orders) == 2
        house.faults.disconnect("maker")
        await second.closed.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(house.engine.floor.accounts["maker"].open_orders) == 1


@pytest.mark.parametrize("closes", [True, False])
async def test_rate_limits(autojump_clock, closes):
    budgets = Budgets(matching=Budget(5.0, 3.0), closes=closes)
    async with running(budgets=budgets) as house:
        client = await house.client()
        await client.login()
        for _ in range(3):
            await client.call("private/buy", **ORDER)
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", **ORDER)
        assert refused.value.code == 10028
        await trio.sleep(1.0)
        assert client.closed.is_set() == closes
        if not closes:
            for _ in range(3):
                await client.call("private/buy", **ORDER)
            assert len(await client.call("private/get_open_orders")) == 6


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("notifications_first", [True, False])
async def test_the_order_of_answer_and_notification(autojump_clock, notifications_first):
    async with running(notifications_first=notifications_first) as house:
        client = await house.client()
        await client.login()
        await client.call("private/subscribe", channels=["user.orders.any.any.raw"])
        before = len(client.log)
        await client.call("private/buy", **ORDER)
        await client.note("user.orders.any.any.raw")
        kinds = ["answer" if "id" in message else "note" for message in client.log[before:]]
        assert kinds == (["note", "answer"] if notifications_first else ["answer", "note"])


async def test_late_lost_and_refused_answers(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.login()
        house.faults.delay_answers(1, 500, "private/buy")
        slow = await client.send("private/buy", **ORDER)
        fast = await client.send("private/get_open_orders")
        assert len(await client.answer(fast)) == 1  # it had its effect at once
        assert slow not in client.answers
        assert (await client.answer(slow))["order"]["order_state"] == "open"
        house.faults.lose_answers(1)
        await client.send("private/cancel_all")
        house.faults.lose_requests(1, "private/buy")
        lost = await client.send("private/buy", **ORDER)
        assert await client.call("private/get_open_orders") == []
        assert lost not in client.answers
        house.faults.refuse(1, 11094, "internal_server_error")
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", **ORDER)
        assert refused.value.code == 11094
        house.faults.cut_answers(1, "private/buy")
        await client.send("private/buy", **ORDER)
        await client.closed.wait()
        assert len(house.engine.floor.accounts["maker"].open_orders) == 1


async def test_maintenance(autojump_clock):
    async with running() as house:
        client = await house.client()
        house.faults.maintenance = True
        with pytest.raises(CallFailed) as refused:
            await client.call("public/get_time")
        assert refused.value.code == 11051


async def test_a_paused_market_does_not_step(autojump_clock):
    async with running() as house:
        market = house.sandbox.market
        house.faults.pause_market()
        await trio.sleep(5)
        before = market.steps
        await trio.sleep(5)
        assert market.steps == before
        house.faults.resume_market()
        await trio.sleep(5)
        assert market.steps > before


async def test_the_speed_bump_delays_the_answer_only_of_takers(autojump_clock):
    async with running(speed_bump_ms=10) as house:
        client = await house.client()
        await client.login()
        taking = {"instrument_name": "BTC-25DEC26-90000-C", "amount": 1, "price": 0.005}
        before = trio.current_time()
        answer = await client.call("private/buy", **taking)
        assert answer["order"]["order_state"] == "filled"
        assert len(answer["trades"]) == 1
        assert trio.current_time() - before == pytest.approx(0.010, abs=0.002)


def test_json_numbers_are_exact():
    from mmd.sandbox.rpc import decode_request

    request = decode_request(json.dumps({"id": 1, "method": "m", "params": {"price": 0.1}}))
    from mmd.sandbox.deribit.rpc import Params

    assert Params(request.params).number("price") == D("0.1")
