"""The WebSocket link and the JSON-RPC pairing by themselves."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, LinkLost
from mmd.exchanges.jsonrpc import Head, Ledger, RpcLink, Waiter, decode_head, overdue
from mmd.exchanges.jsonrpc import Request as Call
from mmd.exchanges.link import Link, open_link, tcp_dialer
from mmd.exchanges.paces import Pace

Clock = trio.testing.MockClock


class Server:
    """The other end, by wsproto."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.SERVER)

    async def accept(self) -> None:
        self.ws.receive_data(await self.stream.receive_some(65536))
        request = next(iter(self.ws.events()))
        assert isinstance(request, Request)
        await self.stream.send_all(self.ws.send(AcceptConnection()))

    async def read(self) -> list[object]:
        self.ws.receive_data(await self.stream.receive_some(65536))
        return list(self.ws.events())


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Link, Server]]:
    ours, theirs = trio.testing.memory_stream_pair()
    link, server = Link(ours, "test.example:8645", "/ws/api/v2"), Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        await link.handshake()
    yield link, server


Pair = tuple[Link, Server]


async def test_two_messages_leave_in_one_write(pair: Pair) -> None:
    link, server = pair
    link.send(b'{"a":1}')
    link.send(b'{"b":2}')
    assert link.dirty
    await link.flush()
    assert not link.dirty
    assert [event.data for event in await server.read() if isinstance(event, TextMessage)] == ['{"a":1}', '{"b":2}']


async def test_messages_cut_and_joined_at_any_byte(pair: Pair) -> None:
    link, server = pair
    data = b"".join(server.ws.send(TextMessage(f"message {n}")) for n in range(5))
    for byte in data:
        await server.stream.send_all(bytes([byte]))
    got: list[bytes] = []
    while len(got) < 5:
        got += await link.receive()
    assert [bytes(message) for message in got] == [f"message {n}".encode() for n in range(5)]


async def test_a_message_in_fragments(pair: Pair) -> None:
    link, server = pair
    parts = [("one ", False), ("two ", False), ("three", True)]
    for text, last in parts:
        await server.stream.send_all(server.ws.send(TextMessage(text, message_finished=last)))
        await server.stream.send_all(server.ws.send(Ping(b"in between"))) if not last else None
    got: list[bytes] = []
    while not got:
        got = await link.receive()
    assert bytes(got[0]) == b"one two three"
    await link.flush()
    assert len([event for event in await server.read() if isinstance(event, Pong)]) == 2


async def test_what_came_before_a_close_is_delivered(pair: Pair) -> None:
    link, server = pair
    data = server.ws.send(TextMessage("last words")) + server.ws.send(CloseConnection(1012, "restart"))
    await server.stream.send_all(data)
    assert [bytes(message) for message in await link.receive()] == [b"last words"]
    with pytest.raises(LinkLost, match="1012"):
        await link.receive()
    with pytest.raises(LinkLost):
        link.send(b"x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\xff\xff\xff\xff", "protocol error", id="garbage"),
        pytest.param(b"\x81\x85\x00\x00\x00\x00hello", "protocol error: incorrect masking", id="a masked server frame"),
        pytest.param(b"\x81\x7f" + (1 << 33).to_bytes(8, "big"), "8589934592 bytes", id="too big"),
        pytest.param(b"\x80\x01x", "protocol error", id="continuation of nothing"),
    ],
)
async def test_protocol_errors_end_the_link(pair: Pair, data: bytes, reason: str) -> None:
    link, server = pair
    await server.stream.send_all(data)
    with pytest.raises(LinkLost, match=reason):
        await link.receive()


async def test_end_of_stream_and_broken_write(pair: Pair) -> None:
    link, server = pair
    await server.stream.aclose()
    link.send(b"x")
    with pytest.raises(LinkLost, match="write failed"):
        await link.flush()
    with pytest.raises(LinkLost):
        await link.receive()


async def test_an_interrupted_write_ends_the_link(autojump_clock: Clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    link, server = Link(ours, "test.example", "/"), Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        await link.handshake()
    link.send(b"nobody reads this")
    with trio.move_on_after(1):
        await link.flush()
    assert link.lost == "a write was interrupted"
    with pytest.raises(LinkLost):
        link.send(b"x")


async def test_while_one_flushes_the_other_returns(autojump_clock: Clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    link, server = Link(ours, "test.example", "/"), Server(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        await link.handshake()
    async with trio.open_nursery() as nursery:
        link.send(b"first")
        nursery.start_soon(link.flush)
        await trio.testing.wait_all_tasks_blocked()
        link.send(b"second")
        await link.flush()
        assert link.dirty
        texts: list[str] = []
        while len(texts) < 2:
            texts += [event.data for event in await server.read() if isinstance(event, TextMessage)]
        assert texts == ["first", "second"]


# --- dialling ------------------------------------------------------------------------------------


async def test_tcp_dialer_against_a_real_server() -> None:
    async def echo(request: WebSocketRequest) -> None:
        connection = await request.accept()
        try:
            while True:
                await connection.send_message(await connection.get_message() + "!")
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, echo, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serve)
        stream, link = await open_link(tcp_dialer(f"ws://127.0.0.1:{server.port}/x"), f"127.0.0.1:{server.port}", "/x")
        async with stream:
            link.send(b"hello")
            await link.flush()
            assert [bytes(message) for message in await link.receive()] == [b"hello!"]
            assert link.bytes_in > 0 and link.bytes_out > 0
        nursery.cancel_scope.cancel()


async def test_tls_to_a_server_without_it_is_a_clear_failure() -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, plain, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(LinkLost, match=r"connect failed: .*SSL"):
            await open_link(tcp_dialer(f"wss://127.0.0.1:{port}/x"), "x", "/x")
        nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    with pytest.raises(LinkLost, match="connect failed"):
        await open_link(tcp_dialer("ws://127.0.0.1:1/x"), "x", "/x")


@pytest.mark.parametrize("host", ["www..deribit.com", f"{'x' * 64}.example"])
async def test_a_host_that_dns_cannot_have_is_a_link_that_is_lost(host: str) -> None:
    with pytest.raises(LinkLost, match=f"connect failed: {host} can be no host's name: .*label"):
        await open_link(tcp_dialer(f"wss://{host}/x"), host, "/x")


@pytest.mark.parametrize("url", ["http://x/", "ws://", "www.deribit.com", "", "wss:///ws/api/v2"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="is not a WebSocket URL"):
        tcp_dialer(url)


async def test_an_http_refusal_is_named() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\nmaintenance")
    await theirs.send_eof() if hasattr(theirs, "send_eof") else await theirs.aclose()

    async def dial() -> trio.abc.Stream:
        return ours

    with pytest.raises(LinkLost, match=r"handshake refused: .*503"):
        await open_link(dial, "test.example", "/")


# --- JSON-RPC ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"\xff", b"null", b'{"id":true}', b'{"id":1,"error":7}', b"[" * 100_000])
def test_heads_that_are_none(text: bytes) -> None:
    with pytest.raises(ExchangeMalformed):
        decode_head(text)


def test_heads_are_lenient_about_the_unknown() -> None:
    head = decode_head(b'{"jsonrpc":"2.0","id":"abc","result":{"x":[1,{"y":2}]},"usIn":5,"news":{"a":[]}}')
    assert (head.id, bytes(head.result), head.us_in, head.error) == ("abc", b'{"x":[1,{"y":2}]}', 5, None)


def test_ledger_pairs_expires_and_abandons() -> None:
    ledger = Ledger()
    one = ledger.open("a", "A", 0.0, 5.0)
    two = ledger.open("b", "B", 1.0, 6.0)
    three = ledger.open("c", "C", 2.0, 7.0)
    assert [sent.context for sent in ledger.expire(6.0)] == ["A", "B"]
    assert ledger.expire(6.0) == []
    late = ledger.close(one)
    assert late is not None and late.expired and str(overdue(late)) == "a: no answer within 5 s"
    assert ledger.close(one) is None and ledger.close("x") is None and ledger.close(None) is None
    assert [sent.context for sent in ledger.abandon()] == ["C"]
    assert ledger.close(two) is None and ledger.close(three) is None


def test_ledger_is_bounded() -> None:
    ledger = Ledger()
    for _ in range(3000):
        ledger.open("a", None, 0.0, 1.0)
    assert len(ledger.expire(2.0)) == 3000
    assert len(ledger) == 1000


async def test_a_late_answer_to_a_call_that_was_given_up_is_not_applied() -> None:
    applied: list[Head] = []
    waiter = Waiter("private/x", applied.append)
    waiter.failed(ExchangeAmbiguous("private/x: no answer within 10 s"))
    waiter.answered(Head(id=1))
    with pytest.raises(ExchangeAmbiguous):
        await waiter.wait()
    assert applied == []


def test_pace() -> None:
    pace = Pace(rate_per_second=10, burst=3)
    assert [pace.take(0.0) for _ in range(3)] == [0, 0, 0]
    assert pace.take(0.0) == pytest.approx(0.1)
    assert pace.take(0.1) == pytest.approx(0.1)
    assert pace.take(60.0) == 0
    assert [pace.take(60.0) for _ in range(3)][-1] == pytest.approx(0.1)


async def test_a_call_that_failed_to_leave_is_not_in_flight(pair: Pair) -> None:
    link, server = pair
    rpc = RpcLink(link, lambda call: b"{}")
    await server.stream.aclose()
    with pytest.raises(LinkLost):
        await rpc.call("x", {}, 1.0)
    assert len(rpc.ledger) == 1  # it may have left: the owner of the link gives it up
    with pytest.raises(LinkLost):
        rpc.request("y", {}, None, 1.0)
    assert len(rpc.ledger) == 1
    assert isinstance(overdue(rpc.ledger.abandon()[0]), ExchangeAmbiguous)
    assert Call(1, "x", {}).jsonrpc == "2.0"
