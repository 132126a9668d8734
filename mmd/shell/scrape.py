"""The metrics endpoint: a small read-only HTTP server on the daemon's own loop, no thread.

GET and HEAD of /metrics, /-/healthy (the loop turns) and /-/ready (200, or 503 and why not).
Nothing here changes anything; whoever may connect may read, so it listens on loopback unless told otherwise.
"""

from collections.abc import Callable, Iterator

import h11
import msgspec
import trio

from mmd.shell.metrics import DaemonCollector, MetricsView, slices

# One request, from its first byte to our last; also how long an idle connection is kept.
EXCHANGE_SECONDS = 30.0
CONNECTIONS_MAX = 32
HEADERS_MAX = 16_384
BODY_MAX = 65_536
TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Answer(msgspec.Struct, frozen=True):
    """One response; `body` is read piece by piece while it is sent."""

    status: int
    content_type: str
    body: Iterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, TEXT, iter([f"{text}\n".encode()]), headers)


def metrics_page(view: MetricsView) -> Answer:
    view.counters.scrapes += 1
    return Answer(200, EXPOSITION, slices(DaemonCollector(view)))


def healthy_page(view: MetricsView) -> Answer:
    return text_answer(200, "mmd is healthy.")


def ready_page(view: MetricsView) -> Answer:
    why = view.not_ready()
    return text_answer(503, f"mmd is not ready: {why}") if why else text_answer(200, "mmd is ready.")


PAGES: dict[bytes, Callable[[MetricsView], Answer]] = {
    b"/metrics": metrics_page,
    b"/-/healthy": healthy_page,
    b"/-/ready": ready_page,
}


def answer(view: MetricsView, request: h11.Request) -> Answer:
    """The response to a request; never an error of ours for whatever was asked."""
    if request.method not in (b"GET", b"HEAD"):
        return text_answer(405, "This endpoint is read-only: GET or HEAD.", ("allow", "GET, HEAD"))
    page = PAGES.get(request.target.partition(b"?")[0])
    if page is None:
        return text_answer(404, "Here are: " + ", ".join(path.decode() for path in PAGES))
    return page(view)


async def read_request(http: h11.Connection, stream: trio.abc.ReceiveStream) -> h11.Request | None:
    """The next whole request, its body dropped; None at the end. Raises h11.RemoteProtocolError."""
    request: h11.Request | None = None
    body_bytes = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(65_536)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body_bytes += len(event.data)
            if body_bytes > BODY_MAX:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:  # ConnectionClosed, or PAUSED behind a request that forbids another
            return None


async def send_answer(http: h11.Connection, stream: trio.abc.SendStream, reply: Answer, *, body: bool) -> None:
    """Write a response; without `body` only its head."""
    headers = [("content-type", reply.content_type), ("cache-control", "no-store"), *reply.headers]
    await stream.send_all(http.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
    if body:
        for piece in reply.body:
            await stream.send_all(http.send(h11.Data(data=piece)) or b"")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")


async def converse(view: MetricsView, stream: trio.abc.Stream) -> None:
    """Answer one connection until it ends. A peer that leaves, stalls or is cut off costs only itself."""
    try:
        await answer_requests(view, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def answer_requests(view: MetricsView, stream: trio.abc.Stream) -> None:
    """One request after the other; each has EXCHANGE_SECONDS."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_MAX)
    while True:
        with trio.fail_after(EXCHANGE_SECONDS):
            try:
                request = await read_request(http, stream)
            except h11.RemoteProtocolError as error:
                reply = text_answer(error.error_status_hint, f"Bad request: {error}", ("connection", "close"))
                await send_answer(http, stream, reply, body=True)
                return
            if request is None:
                return
            await send_answer(http, stream, answer(view, request), body=request.method != b"HEAD")
        if http.our_state is not h11.DONE:
            return
        http.start_next_cycle()


async def serve(
    view: MetricsView,
    host: str,
    port: int,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; reports its listeners once they are bound. Raises OSError if the address is taken."""
    open_now = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal open_now
        if open_now >= CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        open_now += 1
        try:
            await converse(view, stream)
        finally:
            open_now -= 1

    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        why = f"service.metrics.listen (null: no metrics): {error.strerror}"
        raise OSError(error.errno, why, f"{host}:{port}") from error
    await trio.serve_listeners(handle, listeners, task_status=task_status)
