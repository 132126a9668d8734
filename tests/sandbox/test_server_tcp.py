"""The port as other people's clients see it: websockets and httpx over real TCP, and the `mmd sandbox` program."""

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys

import httpx
import pytest
import trio
import websockets.sync.client
from static_market import LINEAR, PERP, START_MS, make_sandbox

from mmd.cli import sandbox as program
from mmd.domain.errors import ConfigError
from mmd.sandbox.deribit.auth import Key, sign

API = "/api/v2"


@pytest.fixture
async def port(nursery):
    sandbox = make_sandbox()
    await nursery.start(sandbox.run)
    return await nursery.start(sandbox.serve_tcp, "127.0.0.1", 0)


def http(port, **options):
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", **options)


# --- WebSocket -----------------------------------------------------------------------------------


async def test_websockets_and_http_on_one_port(port):
    def session():
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws/api/v2") as socket:
            for number, (method, params) in enumerate(
                [
                    ("public/auth", {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"}),
                    ("private/subscribe", {"channels": [f"book.{PERP}.raw", "user.changes.any.any.raw"]}),
                    ("private/buy", {"instrument_name": PERP, "amount": 10, "price": 79999, "post_only": True}),
                ]
            ):
                call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                socket.send(json.dumps(call))
            messages = [json.loads(socket.recv(timeout=5)) for _ in range(6)]
            socket.ping().wait(5)
            return messages

    messages = await trio.to_thread.run_sync(session)
    kinds = [message.get("id", message.get("params", {}).get("channel")) for message in messages]
    assert kinds == [0, 1, f"book.{PERP}.raw", 2, f"book.{PERP}.raw", "user.changes.any.any.raw"]
    async with http(port) as client:
        answer = await client.get(f"{API}/private/get_open_orders", auth=("a", "b"))
        assert [order["order_id"] for order in answer.json()["result"]] == [messages[3]["result"]["order"]["order_id"]]


async def test_a_connection_may_be_upgraded_later(port):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /api/v2/public/test HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200 ")
        await stream.send_all(
            b"GET /ws/api/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = await stream.receive_some(1000)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # the sample of RFC 6455


async def test_large_messages_leave_whole(port):
    def session():
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws/api/v2", max_size=None) as socket:
            rows = 600
            channels = [f"nonsense.{row}" for row in range(rows - 200)]
            socket.send(json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": channels}}))
            assert json.loads(socket.recv(timeout=5))["result"] == []
            socket.send(json.dumps({"id": 2, "method": "public/get_instruments", "params": {"currency": "any"}}))
            return json.loads(socket.recv(timeout=5))

    assert len((await trio.to_thread.run_sync(session))["result"]) == 3


# --- HTTP ----------------------------------------------------------------------------------------


async def test_get_with_typed_query_parameters(port):
    async with http(port) as client:
        book = (await client.get(f"{API}/public/get_order_book", params={"instrument_name": PERP, "depth": 1})).json()
        assert book["result"]["bids"] == [[80000.0, 1000]]
        assert "id" not in book
        expired = {"currency": "BTC", "expired": "true"}
        assert (await client.get(f"{API}/public/get_instruments", params=expired)).json()["result"] == []
        order = {"instrument_name": PERP, "amount": "10", "price": "79999.5", "label": "123", "post_only": "true"}
        bought = (await client.get(f"{API}/private/buy", params=order, auth=("a", "b"))).json()["result"]["order"]
        assert (bought["label"], bought["price"], bought["post_only"]) == ("123", 79999.5, True)


async def test_post_on_both_paths_and_keep_alive(port):
    async with http(port, limits=httpx.Limits(max_connections=1)) as client:
        call = {"jsonrpc": "2.0", "id": "x", "method": "public/ticker", "params": {"instrument_name": LINEAR}}
        for path in (API, f"{API}/public/ticker"):
            answer = (await client.post(path, json=call)).json()
            assert (answer["id"], answer["result"]["mark_price"]) == ("x", 3000.05)
        del call["method"]
        assert (await client.post(f"{API}/public/ticker", json=call)).json()["result"]["index_price"] == 3000


async def test_three_ways_to_authorise(port):
    async with http(port) as client:
        login = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"}
        token = (await client.get(f"{API}/public/auth", params=login)).json()["result"]["access_token"]
        target = f"{API}/private/get_account_summary?currency=BTC"
        signature = sign("b", f"{START_MS}\nn1\nGET\n{target}\n\n")
        for header in (
            f"Bearer {token}",
            "Basic YTpi",
            f"deri-hmac-sha256 id=a,ts={START_MS},nonce=n1,sig={signature}",
        ):
            answer = await client.get(target, headers={"authorization": header})
            assert answer.json()["result"]["equity"] == 100


async def test_signatures_are_checked_for_listed_accounts(nursery):
    sandbox = make_sandbox(keys=(Key(client_id="a", client_secret="b"),))
    await nursery.start(sandbox.run)
    port = await nursery.start(sandbox.serve_tcp, "127.0.0.1", 0)
    target, body = f"{API}/private/get_positions", '{"id":1,"method":"private/get_positions","params":{}}'
    async with http(port) as client:
        for secret, status in (("b", 200), ("wrong", 401)):
            signature = sign(secret, f"{START_MS}\n{secret}\nPOST\n{target}\n{body}\n")
            header = f"deri-hmac-sha256 id=a,sig={signature},ts={START_MS},nonce={secret}"
            answer = await client.post(target, content=body, headers={"authorization": header})
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("verb", "path", "content", "status", "code"),
    [
        pytest.param("GET", "/", "", 404, -32601, id="another path"),
        pytest.param("GET", f"{API}/public/nothing", "", 400, -32601, id="no such method"),
        pytest.param("PUT", f"{API}/public/test", "", 405, -32600, id="another verb"),
        pytest.param("POST", API, "{", 400, -32700, id="no JSON"),
        pytest.param("POST", API, "{}", 400, -32600, id="no method"),
        pytest.param("POST", API, "x" * 40_000, 413, -32600, id="too large"),
        pytest.param("GET", f"{API}/public/ticker?instrument_name=NONE", "", 400, 13020, id="no such instrument"),
        pytest.param("GET", f"{API}/private/get_positions", "", 401, 13009, id="no login"),
        pytest.param("GET", f"{API}/public/subscribe?channels=quote.{PERP}", "", 400, 10030, id="WebSocket only"),
    ],
)
async def test_http_errors(port, verb, path, content, status, code):
    async with http(port) as client:
        answer = await client.request(verb, path, content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await client.get(f"{API}/public/test")).status_code == 200


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00", b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b""],
)
async def test_noise_does_not_hurt(port, noise):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(noise)
        await stream.send_eof()
        with trio.fail_after(5):
            while await stream.receive_some(1000):
                pass
    async with http(port) as client:
        assert (await client.get(f"{API}/public/test")).status_code == 200


UPGRADE = (
    b"GET /ws/api/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("linger", [trio.sleep, None], ids=["then silence", "then a reset"])
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x81\x05hello", id="a frame without mask"),
        pytest.param(b"\x8f\x80\0\0\0\0", id="an opcode that is none"),
        pytest.param(b"\x89\x80\0\0\0\0" * 50, id="many pings"),
        pytest.param(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", id="a frame without end"),
        pytest.param(b"\x81\x82\0\0\0\0\xff\xff", id="text that is no UTF-8"),
        pytest.param(b"\x88\x80\0\0\0\0", id="goodbye"),
        pytest.param(b"\x82\x82\0\0\0\0[]", id="a binary message"),
    ],
)
async def test_websocket_noise_does_not_hurt(port, noise, linger):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE + noise)
        if linger is not None:
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 101 ")
        else:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with http(port) as client:
        assert (await client.get(f"{API}/public/test")).status_code == 200


# --- the program ---------------------------------------------------------------------------------


def options(*words):
    parser = argparse.ArgumentParser()
    program.add_parser(parser.add_subparsers())
    return parser.parse_args(["sandbox", *words])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--listen", "nowhere"], 78, "must be HOST:PORT"),
        (["--market", "generated", "--as-recorded"], 78, "need --market recorded"),
        (["--accounts", "/does/not/exist"], 78, "/does/not/exist"),
        (["--feed", "/does/not/exist"], 78, "/does/not/exist"),
    ],
)
def test_wrong_words(capsys, words, status, said):
    assert program.run(options(*words)) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- {client_id: a, client_secret: b, balances: {BTC: 0.1}}", ["a"]),
        ('[{"client_id": "a", "client_secret": "b"}, {"client_id": "c", "client_secret": "d"}]', ["a", "c"]),
        ("- {client_id: a}", "client_secret"),
        ("- {client_id: a, client_secret: b, colour: red}", "colour"),
        ("- {client_id: a, client_secret: b}\n- {client_id: a, client_secret: b}", "given twice"),
        ("{", "wanted"),
    ],
)
def test_accounts_files(tmp_path, text, found):
    path = tmp_path / "accounts.yaml"
    path.write_text(text)
    if isinstance(found, list):
        assert [key.client_id for key in program.read_accounts(path)] == found
    else:
        with pytest.raises(ConfigError, match=found):
            program.read_accounts(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_says_where_it_is_and_ends_on_a_signal(number):
    code = (
        "import argparse, sys; from mmd.cli import sandbox; p = argparse.ArgumentParser();"
        "sandbox.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.func(a))"
    )
    words = ["sandbox", "--market", "generated", "--listen", "127.0.0.1:0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        url = process.stdout.readline().strip()
        assert url.startswith("ws://127.0.0.1:")
        base = "http" + url.removeprefix("ws").removesuffix("/ws/api/v2")
        book = httpx.get(f"{base}{API}/public/get_order_book", params={"instrument_name": PERP}).json()["result"]
        assert book["bids"][0][0] < book["asks"][0][0]
        process.send_signal(number)
        assert process.wait(10) == 0
