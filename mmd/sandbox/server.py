"""The port of the sandbox: one stream in, HTTP until a request asks for a WebSocket, the dialect behind both."""

import itertools
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket

from mmd.sandbox.answering import Answering, Deferred, HttpCall
from mmd.sandbox.link import Link
from mmd.sandbox.rpc import MAX_REQUEST_BYTES
from mmd.sandbox.wire import Rewound, Signal, text_frame

MAX_HEAD_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
HANDSHAKE_SECONDS = 30.0
GOODBYE_SECONDS = 2.0
HTTP_SECONDS = 900.0
LOST = (trio.BrokenResourceError, trio.ClosedResourceError)
GONE = (*LOST, trio_websocket.ConnectionClosed)

L = TypeVar("L", bound=Link)


class Server(Generic[L]):
    """Serves streams. `links` are the open WebSocket connections, for faults and inspection."""

    def __init__(self, dialect: Answering[L, Any]) -> None:
        self.dialect = dialect
        self.links: dict[int, L] = {}
        self.refused_until = 0.0
        """Connections that come before this time (the transport's clock) are dropped at once."""
        self._numbers = itertools.count(1)
        self._streams: dict[int, Rewound] = {}
        self._resumed: dict[int, trio.Event] = {}

    def cut(self, account: str | None) -> int:
        """Drop connections without goodbye: those of an account, or all."""
        links = self._links_of(account)
        for link in links:
            link.cut_off()
            self._resume(link)
        return len(links)

    def _links_of(self, account: str | None) -> list[L]:
        return [link for link in self.links.values() if account is None or link.speaks_for(account)]

    def stall(self, account: str | None) -> int:
        """Leave connections half-open: they stand, and nothing passes in either direction. Returns how many."""
        links = [link for link in self._links_of(account) if not link.stalled]
        for link in links:
            self._resumed[link.number] = trio.Event()
            self._streams[link.number].hold()
            link.stall(True)
        return len(links)

    def resume(self, account: str | None) -> int:
        """End `stall`: what was sent meanwhile, by either side, arrives now. Returns how many."""
        links = [link for link in self._links_of(account) if link.stalled]
        for link in links:
            link.stall(False)
            self._resume(link)
        return len(links)

    def _resume(self, link: L) -> None:
        self._streams[link.number].release()
        resumed = self._resumed.pop(link.number, None)
        if resumed is not None:
            resumed.set()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Talk to one client until either side ends it. Never raises for what a client does."""
        if trio.current_time() < self.refused_until:
            await trio.aclose_forcefully(stream)
            return
        try:
            upgrade = await self._serve_http(stream)
            if upgrade:
                await self._serve_websocket(Rewound(stream, upgrade))
        except* GONE:
            pass  # the client is gone; what had to be done about it was done on the way out
        finally:
            await trio.aclose_forcefully(stream)

    # --- WebSocket -----------------------------------------------------------------------------

    async def _serve_websocket(self, stream: Rewound) -> None:
        async with trio.open_nursery() as nursery:
            request = None
            with trio.move_on_after(HANDSHAKE_SECONDS):
                request = await trio_websocket.wrap_server_stream(
                    nursery, stream, max_message_size=MAX_MESSAGE_BYTES, receive_buffer_size=64 * 1024
                )
            if request is None:
                nursery.cancel_scope.cancel()
            elif urlsplit(request.path).path.rstrip("/") not in self.dialect.websocket_paths:
                await request.reject(404, body=b"not found")
                nursery.cancel_scope.cancel()
            else:
                try:
                    await self._talk(await request.accept(), stream, nursery)
                except trio_websocket.ConnectionClosed:
                    pass  # before it began
                nursery.cancel_scope.cancel()

    async def _talk(self, socket: trio_websocket.WebSocketConnection, stream: Rewound, nursery: trio.Nursery) -> None:
        wake, beat = Signal(), Signal()
        link = self.dialect.link(next(self._numbers), websocket=True, wake=wake.set, beat=beat.set)
        self.links[link.number] = link
        self._streams[link.number] = stream
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._write, link, socket, stream, wake, tasks.cancel_scope)
                tasks.start_soon(self._watch, link, beat)
                if self.dialect.ping_seconds is not None:
                    tasks.start_soon(self._ping, link, socket, self.dialect.ping_seconds)
                try:
                    while link.close_reason is None:
                        message = await socket.get_message()
                        if not await self._flows(link):
                            break
                        link.active_at = trio.current_time()
                        deferred = self.dialect.handle(link, message)
                        if deferred is not None:
                            tasks.start_soon(_later, deferred)
                except trio_websocket.ConnectionClosed:
                    pass  # the client said goodbye or is gone
                if link.close_reason is None:
                    tasks.cancel_scope.cancel()
        finally:
            del self.links[link.number]
            del self._streams[link.number]
            self._resumed.pop(link.number, None)
            self.dialect.closed(link)

    async def _flows(self, link: L) -> bool:
        """Wait while the link is stalled; False when it closed meanwhile."""
        resumed = self._resumed.get(link.number)
        if resumed is not None:
            await resumed.wait()
        return link.close_reason is None

    async def _write(
        self,
        link: L,
        socket: trio_websocket.WebSocketConnection,
        stream: Rewound,
        wake: Signal,
        scope: trio.CancelScope,
    ) -> None:
        """Write all that is queued in one send, again and again; ends the connection (and `scope`) at its close."""
        closing = False
        while not closing:
            await wake.wait()
            closing = link.close_reason is not None
            if link.stalled and not closing:
                continue
            outgoing = link.take()
            if closing:
                self.dialect.closed(link)  # its orders are gone before the client hears of it
            if link.cut or link.stalled:
                break
            if outgoing and socket.closed is None:
                if self.dialect.writing_is_life:
                    link.active_at = trio.current_time()
                try:
                    await stream.send_all(b"".join(map(text_frame, outgoing)))
                except LOST:
                    break
        if not link.cut and not link.stalled and link.close_reason is not None:
            with trio.move_on_after(GOODBYE_SECONDS):
                await socket.aclose(1000, link.close_reason)
        await trio.aclose_forcefully(stream)
        scope.cancel()

    async def _watch(self, link: L, beat: Signal) -> None:
        """Heartbeats, and the end of a link that ignores them or is silent for too long."""
        interval: float | None = None
        beat_at = link.active_at = trio.current_time()
        while link.close_reason is None:
            idle_at = link.active_at + self.dialect.idle_seconds
            if interval != link.heartbeat_seconds:
                interval = link.heartbeat_seconds
                beat_at = trio.current_time() + (interval or 0.0)
            with trio.move_on_at(idle_at if interval is None else min(idle_at, beat_at)):
                await beat.wait()
            now = trio.current_time()
            if now >= link.active_at + self.dialect.idle_seconds:
                link.close("idle")
            elif interval is not None and now >= beat_at:
                self.dialect.beat(link)
                beat_at = now + interval

    async def _ping(self, link: L, socket: trio_websocket.WebSocketConnection, seconds: float) -> None:
        """Send WebSocket Pings; a Pong is a sign of life."""
        while link.close_reason is None:
            await trio.sleep(seconds)
            if link.stalled:
                continue
            try:
                await socket.ping()
            except trio_websocket.ConnectionClosed:
                return
            link.active_at = trio.current_time()

    # --- HTTP ----------------------------------------------------------------------------------

    async def _serve_http(self, stream: trio.abc.Stream) -> bytes:
        """Answer HTTP requests; returns when the client is done, or the bytes of its request for a WebSocket.

        Clients with a connection pool upgrade a connection that has carried other requests before.
        """
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        with trio.move_on_after(HTTP_SECONDS):
            try:
                while True:
                    request = await _next_request(connection, stream)
                    if request is None:
                        return b""
                    head, body = request
                    if _wants_websocket(head):
                        return _spelled(head) + connection.trailing_data[0]
                    if not await self._answer_http(connection, stream, head, body):
                        return b""
                    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                        return b""
                    connection.start_next_cycle()
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    status = error.error_status_hint
                    await _respond(connection, stream, status, self.dialect.no_request(status, str(error)))
        return b""

    async def _answer_http(
        self, connection: h11.Connection, stream: trio.abc.Stream, head: h11.Request, body: bytes
    ) -> bool:
        """Run one request and answer it; False when the connection ends with it."""
        if len(body) > MAX_REQUEST_BYTES:
            too_large = self.dialect.no_request(413, "request entity too large")
            await _respond(connection, stream, 413, too_large, close=True)
            return False
        link = self.dialect.link(next(self._numbers), websocket=False)
        deferred = self.dialect.http(link, _http_call(head, body))
        if deferred is not None:
            await _later(deferred)
        answers = link.take()
        if not answers:
            return False  # a fault: the answer is lost
        status = link.http_status if link.http_status is not None else 200
        await _respond(connection, stream, status, answers[0], close=link.close_reason is not None)
        return link.close_reason is None


async def _later(deferred: Deferred) -> None:
    following: Deferred | None = deferred
    while following is not None:
        await trio.sleep(following.seconds)
        following = following.finish()


async def _next_request(connection: h11.Connection, stream: trio.abc.Stream) -> tuple[h11.Request, bytes] | None:
    """The next request with its body, None at the end. A body that is too long is not read to its end."""
    head: h11.Request | None = None
    body = b""
    while len(body) <= MAX_REQUEST_BYTES:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await stream.send_all(connection.send(go_on) or b"")
            connection.receive_data(bytes(await stream.receive_some(64 * 1024)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            return None
    assert head is not None  # h11 gives the request before its body and its end
    return head, body


def _wants_websocket(head: h11.Request) -> bool:
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in head.headers)


def _spelled(head: h11.Request) -> bytes:
    """The request's head as bytes again, for the WebSocket library to parse."""
    lines = [head.method + b" " + head.target + b" HTTP/" + head.http_version]
    lines += [name + b": " + value for name, value in head.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _http_call(head: h11.Request, body: bytes) -> HttpCall:
    return HttpCall(
        head.method.decode("ascii", errors="replace"),
        head.target.decode("ascii", errors="replace"),
        {name.decode("ascii", errors="replace"): value.decode("latin-1") for name, value in head.headers},
        body,
    )


async def _respond(
    connection: h11.Connection, stream: trio.abc.Stream, status: int, body: bytes, *, close: bool = False
) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("server", "mmd-sandbox")]
    if close:
        headers.append(("connection", "close"))
    data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    data += connection.send(h11.Data(data=body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)
