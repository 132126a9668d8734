"""JSON-RPC over HTTP: what is sent, what each kind of answer means, and what never shows."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost, MmdError
from mmd.exchanges import http_rpc
from mmd.exchanges.deribit.codec import encode as deribit_encode
from mmd.exchanges.derive.private import encode_params
from mmd.exchanges.http_rpc import http_base, open_rpc

BASE = "https://exchange.example/v3"
SECRET = "hunter2"
Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]


async def call(handler: Handler, **options: Any) -> msgspec.Raw:
    """One call with a secret in its params and in its headers."""
    async with open_rpc(BASE, encode_params, transport=httpx.MockTransport(handler), **options) as rpc:
        return await rpc.call("private/look", {"secret": SECRET}, {"x-signature": SECRET})


def answers(status: int, body: object, **headers: str) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: httpx.Response(status, content=content, headers=headers)


# --- what is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encode", "body"),
    [
        (encode_params, {"secret": SECRET}),
        (deribit_encode, {"jsonrpc": "2.0", "id": 1, "method": "private/look", "params": {"secret": SECRET}}),
    ],
    ids=["derive", "deribit"],
)
async def test_the_method_is_in_the_path_and_the_exchange_says_the_body(encode, body: object) -> None:
    asked: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"id": "3f", "result": [1]})

    async with open_rpc(BASE, encode, transport=httpx.MockTransport(take)) as rpc:
        assert bytes(await rpc.call("private/look", {"secret": SECRET}, {"x-signature": "s"})) == b"[1]"
    (request,) = asked
    assert (request.method, str(request.url)) == ("POST", f"{BASE}/private/look")
    assert json.loads(request.content) == body
    assert request.headers["x-signature"] == "s"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("mmd/")
    assert request.headers["accept-encoding"] == "identity"


async def test_a_call_without_params() -> None:
    async with open_rpc(BASE, encode_params, transport=httpx.MockTransport(answers(200, {"result": None}))) as rpc:
        assert bytes(await rpc.call("public/get_time")) == b"null"


async def test_one_connection_serves_call_after_call_and_is_closed() -> None:
    """Against sockets: a server that counts its connections."""
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        heard = b""
        async with stream:
            while piece := bytes(await stream.receive_some(65536)):
                heard += piece
                if heard.endswith(b"\r\n\r\n{}"):  # a whole request
                    heard = b""
                    await stream.send_all(b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"result": 5}')

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_rpc(f"http://127.0.0.1:{port}", encode_params) as rpc:
            assert [bytes(await rpc.call("public/get_time")) for _ in range(3)] == [b"5"] * 3
        nursery.cancel_scope.cancel()
    assert connections == 1


# --- what an answer means ------------------------------------------------------------------------


def refusal(code: int) -> dict[str, object]:
    return {"id": "1", "error": {"code": code, "message": "no", "data": {"reason": "why"}}}


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_error_of_the_exchange_is_one_whatever_the_status(status: int) -> None:
    with pytest.raises(ExchangeRefused, match=r'private/look: no \{"reason":"why"\} \(14023\)') as caught:
        await call(answers(status, msgspec.json.encode(refusal(14023))))
    assert caught.value.code == 14023


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (answers(403, b"<p>you\n look odd"), ExchangeRefused, r"HTTP status 403: <p>you look odd \(403\)"),
        (answers(429, b""), ExchangeRefused, r"HTTP status 429 \(429\)"),
        (answers(404, {"result": 1}), ExchangeRefused, "HTTP status 404"),
        (answers(502, b"Bad Gateway"), ExchangeAmbiguous, "HTTP status 502: Bad Gateway"),
        (answers(301, b"", location="https://elsewhere.example/"), ExchangeMalformed, "HTTP status 301"),
        (answers(200, b"hello"), ExchangeMalformed, "no JSON-RPC message"),
        (answers(200, b""), ExchangeMalformed, "no JSON-RPC message"),
        (answers(200, {"id": 1}), ExchangeMalformed, "neither a result nor an error"),
        (answers(200, [1]), ExchangeMalformed, "no JSON-RPC message"),
        (answers(200, b"\x1f\x8b", **{"content-encoding": "br"}), ExchangeMalformed, "packed as 'br'"),
    ],
)  # fmt: skip
async def test_what_is_no_answer(handler: Handler, kind: type[MmdError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        await call(handler)
    assert SECRET not in str(caught.value)


async def test_an_answer_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_rpc, "ANSWER_BYTES_MAX", 1000)
    assert len(bytes(await call(answers(200, {"result": "x" * 900})))) == 902
    with pytest.raises(ExchangeMalformed, match="more than 1000 bytes"):
        await call(answers(200, {"result": "x" * 1000}))


async def test_a_flood_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against sockets: the server goes on as long as anybody listens."""
    monkeypatch.setattr(http_rpc, "ANSWER_BYTES_MAX", 1_000_000)
    cut = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n")
            try:
                while True:
                    await stream.send_all(b" " * 65536)
            except trio.BrokenResourceError:
                cut.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with open_rpc(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", encode_params) as rpc:
            with pytest.raises(ExchangeMalformed, match="more than 1000000 bytes"):
                await rpc.call("public/get_time")
            await cut.wait()
        nursery.cancel_scope.cancel()


# --- no answer -----------------------------------------------------------------------------------


async def test_no_answer_in_time_is_ambiguous(autojump_clock: trio.abc.Clock) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError("sleeps for ever")

    begun = trio.current_time()
    with pytest.raises(ExchangeAmbiguous, match="private/look: no answer within 7 s"):
        await call(never, answer_seconds=7.0)
    assert trio.current_time() - begun == 7.0


def fails_with(error: Exception) -> Handler:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (httpx.ConnectError("Name or service not known"), LinkLost, r"exchange.example/v3: Name or service"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), LinkLost, "CERTIFICATE_VERIFY_FAILED"),
        (httpx.ConnectTimeout(""), LinkLost, "ConnectTimeout"),
        (httpx.LocalProtocolError(f"Illegal header value b'{SECRET}'"), LinkLost, "a header that cannot be sent"),
        (httpx.ReadError(""), ExchangeAmbiguous, "private/look: ReadError"),
        (httpx.RemoteProtocolError("peer closed connection"), ExchangeAmbiguous, "peer closed connection"),
        (httpx.WriteError("broken"), ExchangeAmbiguous, "broken"),
        (OSError("odd"), ExchangeAmbiguous, "odd"),
    ],
)  # fmt: skip
async def test_what_has_not_left_is_lost_and_the_rest_is_ambiguous(
    error: Exception, kind: type[MmdError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        await call(fails_with(error))
    assert SECRET not in str(caught.value)


async def test_nobody_listens() -> None:
    async with open_rpc("http://127.0.0.1:1", encode_params) as rpc:
        with pytest.raises(LinkLost, match=r"http://127\.0\.0\.1:1: "):
            await rpc.call("public/get_time")


async def test_who_does_not_speak_tls_is_told_as_that() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_rpc(f"https://127.0.0.1:{port}", encode_params) as rpc:
            with pytest.raises(LinkLost, match=r"127\.0\.0\.1:\d+: \[SSL"):
                await rpc.call("public/get_time")
        nursery.cancel_scope.cancel()


async def test_half_an_answer_is_ambiguous() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"result": 1}')

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_rpc(f"http://127.0.0.1:{port}", encode_params) as rpc:
            with pytest.raises(ExchangeAmbiguous, match="public/get_time"):
                await rpc.call("public/get_time")
        nursery.cancel_scope.cancel()


# --- where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("websocket", "http"),
    [
        ("wss://www.deribit.com/ws/api/v2", "https://www.deribit.com/api/v2"),
        ("ws://127.0.0.1:8645/ws/api/v2", "http://127.0.0.1:8645/api/v2"),
        ("wss://api.derive.xyz/v3/ws", "https://api.derive.xyz/v3"),
        ("wss://testnet.api.derive.xyz/v3/ws/", "https://testnet.api.derive.xyz/v3"),
        ("ws://[::1]:9/ws", "http://[::1]:9"),
    ],
)
def test_the_http_address_is_beside_the_other(websocket: str, http: str) -> None:
    assert http_base(websocket) == http
