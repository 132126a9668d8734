"""What tests of alerts need: a real HTTP server on loopback, receivers on mock time, settings."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import httpx
import trio

from mmd.config.model import AlertSettings, Heartbeat, Webhook, WebhookFormat
from mmd.config.secrets import Secret
from mmd.domain.reasons import Severity
from mmd.shell.alerts import Alerts
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.diary import Diary

START_NS = 1_800_000_000_000_000_000
SERVICE = "mm1"


class Post:
    """One request as a receiver saw it."""

    def __init__(self, host: str, headers: dict[str, str], body: bytes) -> None:
        self.host = host
        self.headers = headers
        self.at = trio.current_time()
        self.body: Any = json.loads(body)

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """The alerts in either format."""
        return self.body if isinstance(self.body, list) else self.body["alerts"]

    @property
    def names(self) -> list[str]:
        return [alert["labels"]["alertname"] for alert in self.alerts]


class Receivers:
    """HTTP servers without sockets, by host name, for mock time. `script`: what to answer, else 200."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.script: dict[str, list[tuple[int, dict[str, str]] | Exception]] = {}
        self.silent: set[str] = set()
        self.seconds = 0.0  # before each answer

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.posts.append(Post(host, dict(request.headers), request.content))
        if host in self.silent:
            await trio.sleep_forever()
        await trio.sleep(self.seconds)
        step = self.script[host].pop(0) if self.script.get(host) else (200, {})
        if isinstance(step, Exception):
            raise step
        return httpx.Response(
            step[0], headers={"content-length": "8", **step[1]}, stream=httpx.ByteStream(b"because\n")
        )

    def at(self, host: str) -> list[Post]:
        return [post for post in self.posts if post.host == host]


class Server:
    """A real HTTP/1.1 server on loopback that answers from a script, then 200."""

    def __init__(self) -> None:
        self.port = 0
        self.script: list[tuple[int, dict[str, str]]] = []
        self.lines = 1
        self.connections = 0
        self._told, self.posts = trio.open_memory_channel[Post](1000)

    async def run(self, port: int = 0, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._converse, listeners, task_status=task_status)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2/alerts"

    async def _converse(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        http = h11.Connection(h11.SERVER)
        headers: dict[str, str] = {}
        body = b""
        while True:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError:
                return
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Request):
                assert event.method == b"POST"
                headers, body = {key.decode(): value.decode() for key, value in event.headers}, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._told.send_nowait(Post("127.0.0.1", headers, body))
                status, answer = self.script.pop(0) if self.script else (200, {})
                text = b"as asked\n" * self.lines
                answer = {"content-length": str(len(text)), **answer}
                sent = http.send(h11.Response(status_code=status, headers=list(answer.items()))) or b""
                try:
                    await stream.send_all(sent + (http.send(h11.Data(data=text)) or b""))
                except trio.BrokenResourceError:
                    return
                http.send(h11.EndOfMessage())
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()
            else:
                return


def webhook(
    name: str = "pager",
    url: str = "http://pager/hook",
    form: WebhookFormat = WebhookFormat.WEBHOOK,
    severity: Severity = Severity.INFO,
    bearer: Secret | None = None,
) -> Webhook:
    return Webhook(name=name, url=url, format=form, min_severity=severity, bearer=bearer)


def heartbeat(url: str = "http://snitch/beat", seconds: float = 30.0, bearer: Secret | None = None) -> Heartbeat:
    return Heartbeat(url=url, seconds=seconds, format=WebhookFormat.WEBHOOK, bearer=bearer)


class House:
    """Alerts with everything they write to; on mock time unless it has real sockets."""

    def __init__(
        self,
        receivers: Receivers | None = None,
        healthy: Callable[[], bool] = lambda: True,
        wall_ns: Callable[[], int] = lambda: START_NS,
        **settings: Any,
    ) -> None:
        self.clock = Clock(wall_ns)
        self.diary = Diary(self.clock)
        self.counters = Counters()
        self.alerts = Alerts(
            self.clock,
            self.diary,
            self.counters,
            SERVICE,
            healthy,
            transport=None if receivers is None else receivers.transport,
        )
        self.configure(**settings)

    def configure(self, *webhooks: Webhook, **settings: Any) -> None:
        self.alerts.configure(AlertSettings(**{"webhooks": webhooks, **settings}))

    def fire(
        self,
        name: str = "MmdTest",
        severity: Severity = Severity.CRITICAL,
        detail: str = "5 > 3",
        exchange: str | None = None,
        symbol: str | None = None,
    ) -> None:
        self.alerts.fire(name, severity, "too much", detail, "look at it", exchange=exchange, symbol=symbol)

    def events(self, name: str) -> list[str]:
        return [line.detail for line in self.diary.since(0, 10_000) if line.name == name]

    def posts_of(self, name: str) -> dict[str, int]:
        return self.counters.webhook(name).posts

    @asynccontextmanager
    async def running(self) -> AsyncIterator["House"]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.alerts.run)
            yield self
            nursery.cancel_scope.cancel()
