"""`mmd sandbox --exchange derive`, over real TCP, and whether the daemon's own Derive code and it agree."""

import argparse
import json
import os
import signal
import subprocess
import sys

import httpx
import msgspec
import pytest
import websockets.sync.client
from derive_place import (
    ACCOUNT,
    CALL,
    PERP,
    START_MS,
    SUBACCOUNT,
    WALLET,
    DeriveStill,
    headers,
    running,
    signed_login,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.cli import sandbox as program
from mmd.domain.errors import ConfigError
from mmd.domain.reasons import Side
from mmd.exchanges.derive import codec, messages
from mmd.exchanges.derive.instruments import decode_instruments
from mmd.exchanges.derive.keys import SessionKey
from mmd.exchanges.derive.signing import MAINNET, Signer, login_params
from mmd.sandbox.derive.dialect import METHODS
from mmd.sandbox.derive.known import SESSION_SECRET
from mmd.sandbox.derive.link import Link
from mmd.sandbox.derive.options import DeriveOptions, Rates
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions


class Orders(msgspec.Struct):
    orders: list[messages.OrderData]


LINE = f"address: '{WALLET}', subaccounts: [{SUBACCOUNT}]"


# --- the program ---------------------------------------------------------------------------------


def options(*words):
    parser = argparse.ArgumentParser()
    program.add_parser(parser.add_subparsers())
    return parser.parse_args(["sandbox", "--exchange", "derive", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--market", "recorded"], "only a generated market"),
        (["--feed", "/a"], "only a generated market"),
        (["--instruments", "/a"], "only a generated market"),
        (["--accounts", "/does/not/exist"], "/does/not/exist"),
    ],
)
def test_wrong_words(capsys, words, said):
    assert program.run(options(*words)) == 78
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (f"- {{{LINE}, usdc: 12.5, keys: [{{address: '{WALLET}', expiry_sec: 5}}]}}", None),
        (f"- {{{LINE}, colour: red}}", "colour"),
        (f"- {{{LINE}}}\n- {{{LINE}}}", "belongs to two wallets"),
        ("- {address: '0x12', subaccounts: [1]}", "is no address"),
        (f"- {{address: {WALLET}, subaccounts: [1]}}", "Expected `str`"),  # YAML reads it as a number
        ("{", "wanted"),
    ],
)
def test_accounts_files(tmp_path, text, wrong):
    path = tmp_path / "accounts.yaml"
    path.write_text(text)
    if wrong is None:
        (line,) = program.read_wallets(path)
        assert (line.subaccounts, str(line.usdc), line.keys[0].expiry_sec) == ((SUBACCOUNT,), "12.5", 5)
    else:
        with pytest.raises(ConfigError, match=wrong):
            program.read_wallets(path)


def test_the_program_speaks_both_ways_on_one_port():
    code = (
        "import argparse, sys; from mmd.cli import sandbox; p = argparse.ArgumentParser();"
        "sandbox.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.func(a))"
    )
    words = ["sandbox", "--exchange", "derive", "--listen", "127.0.0.1:0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        url = process.stdout.readline().strip()
        assert url.endswith("/v3/ws")
        base = "http" + url.removeprefix("ws").removesuffix("/ws")
        book = f"orderbook.{PERP}.1.10"
        with websockets.sync.client.connect(url) as socket:
            for number, (method, params) in enumerate(
                [("public/login", signed_login()), ("subscribe", {"channels": [book, f"{ACCOUNT}.orders"]})]
            ):
                socket.send(json.dumps({"id": number, "method": method, "params": params}))
            told = [json.loads(socket.recv(timeout=5)) for _ in range(3)]
            socket.send("ping")
            assert any(socket.recv(timeout=5) == "pong" for _ in range(50))
        assert told[0] == {"id": 0, "result": [SUBACCOUNT]}
        assert told[1]["result"]["current_subscriptions"] == [book, f"{ACCOUNT}.orders"]
        data = told[2]["params"]["data"]
        assert float(data["bids"][0][0]) < float(data["asks"][0][0])
        answer = httpx.post(f"{base}/private/get_open_orders", json={"subaccount_id": SUBACCOUNT}, headers=headers())
        assert answer.json()["result"] == {"orders": [], "subaccount_id": SUBACCOUNT}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


# --- the daemon's side of it ---------------------------------------------------------------------


def daemon_key():
    return SessionKey(SESSION_SECRET)


def by_daemon(signer, listed, side, ticks, nonce):
    """Parameters of an order of one lot or more, as the daemon signs it."""
    amount = listed.instrument.min_lots * listed.lot_e18
    signed = signer.order(
        listed.asset, side, ticks * listed.tick_e18, amount, 100 * 10**18, nonce, START_MS // 1000 + 600
    )
    return msgspec.to_builtins(signed) | {"instrument_name": listed.instrument.symbol}


async def listing(client):
    rows = []
    for kind in ("perp", "option"):
        page = await client.call("public/get_all_instruments", instrument_type=kind, expired=False, page_size=1000)
        rows += page["instruments"]
    raw = json.dumps({"instruments": rows, "pagination": {"count": len(rows), "num_pages": 1}}).encode()
    return decode_instruments(raw, "derive")


async def test_what_the_daemon_signs_is_taken(autojump_clock):
    async with running() as house:
        client = await house.client()
        login = login_params(daemon_key(), WALLET, START_MS)
        assert await client.call("public/login", **msgspec.to_builtins(login)) == [SUBACCOUNT]
        page = await listing(client)
        assert page.refused == []
        signer = Signer(daemon_key(), MAINNET, WALLET, SUBACCOUNT)
        for name, side, ticks in ((PERP, Side.BID, 299_900), (CALL, Side.ASK, 700)):
            params = by_daemon(signer, page.listed[name], side, ticks, START_MS * 1_000_000 + ticks)
            shown = await client.call("private/order_debug", **params)
            assert shown["recovered_signer"] == signer.name
            assert (await client.call("private/order", **params))["order"]["order_status"] == "open"


async def test_the_daemon_reads_what_it_is_told(autojump_clock):
    async with running() as house:
        client = await house.trader("orders", "trades")
        await client.call("subscribe", channels=[f"ticker_slim.{CALL}.100", f"orderbook.{CALL}.1.10"])
        order_id = await client.place(limit_price="3000", amount="3")
        house.levers.fill_order(ACCOUNT, order_id)
        mine, ours = {"subaccount_id": SUBACCOUNT}, {"wallet": WALLET}
        decoded = [
            ("private/get_subaccount", mine, messages.Subaccount),
            ("private/get_positions", mine, messages.Positions),
            ("private/get_account", ours, messages.AccountData),
            ("private/session_keys", ours, messages.SessionKeys),
            ("private/get_open_orders", mine, Orders),
            ("private/get_order_history", mine, Orders),
            ("private/get_trade_history", mine, messages.TradePage),
            ("private/get_mmp_config", mine, list[messages.MmpConfig]),
            ("public/get_live_incidents", {}, messages.Incidents),
        ]
        house.levers.raise_incident("x")
        for method, params, kind in decoded:
            answer = await client.call(method, **params)
            msgspec.json.decode(json.dumps(answer).encode(), type=kind)
        placed = await client.call("private/order", **client.order())
        msgspec.json.decode(json.dumps(placed).encode(), type=messages.OrderResult)
        replaced = await client.replace(placed["order"]["order_id"])
        msgspec.json.decode(json.dumps(replaced).encode(), type=messages.ReplaceResult)
        ticker = codec.read_ticker(json.dumps(await client.note(f"ticker_slim.{CALL}.100")).encode(), 0)
        assert (ticker.mark_iv, ticker.delta, ticker.underlying) == (65.0, 0.2, 3010.0)
        book = codec.decode_book(json.dumps(await client.note(f"orderbook.{CALL}.1.10")).encode())
        assert (book.bids, book.asks) == ([("40", "10")], [("50", "5"), ("60", "20")])


# --- whatever is asked ---------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from([PERP, CALL, "ETH", SUBACCOUNT, WALLET, "1", "1e400", "NaN", "-1", "buy", "gtc", "perp", 1, 1000]),
)
NAMES = sorted({name for method in METHODS.values() for name in method.params.__struct_fields__})
FULL = {
    "subaccount_id": SUBACCOUNT,
    "instrument_name": PERP,
    "instrument_type": "perp",
    "expired": False,
    "wallet": WALLET,
    "currency": "ETH",
    "direction": "buy",
    "limit_price": "2999",
    "amount": "1",
    "max_fee": "10",
    "nonce": str(START_MS * 1_000_000),
    "signature_expiry_sec": START_MS // 1000 + 600,
    "signer": WALLET,
    "signature": "0x00",
    "order_id": "x",
    "label": "x",
    "mmp_interval": 1,
    "mmp_frozen_time": 1,
    "channels": [f"trades.{PERP}"],
    "enabled": True,
    "timestamp": START_MS,
    "public_session_key": WALLET,
}


@settings(max_examples=400, deadline=None)
@given(method=st.sampled_from(sorted(METHODS)), params=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_whatever_is_asked_is_answered(method, params):
    sandbox = Sandbox(
        DeriveStill(),
        SandboxOptions(exchange=Exchange.DERIVE, derive=DeriveOptions(rates=Rates(enforced=False))),
        wall_clock_ns=lambda: START_MS * 1_000_000,
    )
    link = Link(1, websocket=True)
    dialect = sandbox.server.dialect
    dialect.handle(link, json.dumps({"id": 0, "method": "public/login", "params": signed_login()}))
    dialect.handle(link, json.dumps({"id": 1, "method": method, "params": FULL | params}))
    answers = [message for message in map(json.loads, link.take()) if message.get("id") == 1]
    assert len(answers) == 1
