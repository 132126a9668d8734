"""Posts alerts to webhooks: one queue and one task each, retries, repeats, and the heartbeat.

Nothing here is waited for by whoever fires an alert. A queue holds the newest notice per alert, the oldest
goes when it is full. What fails is tried again until it is delivered; what the receiver refuses (4xx except
408 and 429) is not. No redirects, no proxies or passwords from the environment.
"""

import random
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import StrEnum

import httpx
import msgspec
import trio

from mmd.config.model import Heartbeat, Webhook, WebhookFormat
from mmd.domain.reasons import Severity
from mmd.shell import logs
from mmd.shell.clock import Clock
from mmd.shell.counters import WebhookCounters, count
from mmd.shell.notices import BODIES, SEVERITIES, Key, Notice, Sender

# What happens together goes out together.
GATHER_SECONDS = 0.1
POST_SECONDS = 10.0
RETRY_MIN_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0
RETRY_AFTER_MAX_SECONDS = 3600.0
KEEPALIVE_SECONDS = 90.0
# An Alertmanager calls an alert resolved that it has not heard of for its resolve_timeout (5 minutes).
ALERTMANAGER_REPEAT_SECONDS = 55.0
QUEUE_MAX = 5_000
BATCH_MAX = 100
ANSWER_BYTES_MAX = 4_096
TOLD_CHARACTERS = 200
TRY_AGAIN = frozenset({408, 429})

HEARTBEAT = "heartbeat"
HEARTBEAT_ALERT = "MmdHeartbeat"

log = logs.get("mmd.alerts")


class Result(StrEnum):
    """FAILED is tried again, REFUSED is not."""

    DELIVERED = "delivered"
    FAILED = "failed"
    REFUSED = "refused"


class Answer(msgspec.Struct, frozen=True):
    """What became of a post; `retry_after_seconds` as the receiver asked for, else 0."""

    result: Result
    detail: str = ""
    retry_after_seconds: float = 0.0


class Token:
    """A bearer token; shows nothing of itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """An empty value: no Authorization header."""
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self._value == other._value

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._value}"} if self._value else {}


class Network:
    """Makes HTTP clients, in a thread: reading the certificates of the system takes 20 ms."""

    def __init__(self, transport: Callable[[], httpx.AsyncBaseTransport] | None = None) -> None:
        """`transport` replaces sockets."""
        self._transport = transport
        self._tls: ssl.SSLContext | None = None

    async def client(self, token: Token) -> httpx.AsyncClient:
        if self._transport is not None:
            return httpx.AsyncClient(transport=self._transport(), headers=token.headers, timeout=None)
        return await trio.to_thread.run_sync(self._make, token)

    def _make(self, token: Token) -> httpx.AsyncClient:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return httpx.AsyncClient(
            verify=self._tls,
            headers=token.headers,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # POST_SECONDS is for the whole of it
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
        )


# --- one post ------------------------------------------------------------------------------------


async def post(
    client: httpx.AsyncClient, url: str, body: bytes, clock: Clock, limit_seconds: float = POST_SECONDS
) -> Answer:
    """Post JSON once. Never raises for what the network or the receiver does."""
    try:
        with trio.fail_after(limit_seconds):
            request = client.stream("POST", url, content=body, headers={"content-type": "application/json"})
            async with request as response:
                text = await beginning(response)
    except trio.TooSlowError:
        return Answer(Result.FAILED, f"no answer within {limit_seconds:g} s")
    except (httpx.HTTPError, OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
        return Answer(Result.FAILED, f"{type(error).__name__}: {error}")
    if response.is_success:
        return Answer(Result.DELIVERED)
    detail = f"status {response.status_code}" + (f": {text}" if text else "")
    if response.status_code in TRY_AGAIN or response.is_server_error:
        return Answer(Result.FAILED, detail, retry_after(response.headers.get("retry-after", ""), clock))
    return Answer(Result.REFUSED, detail)


async def beginning(response: httpx.Response) -> str:
    """The first characters of a response's body, if it says that it is short; a long one is not read at all."""
    length = response.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or len(length) > 9 or int(length) > ANSWER_BYTES_MAX:
        return ""
    found = b"".join([piece async for piece in response.aiter_raw()])
    return " ".join(found.decode(errors="replace").split())[:TOLD_CHARACTERS]


def retry_after(header: str, clock: Clock) -> float:
    """Seconds of a Retry-After header (RFC 9110: a number or a date), 0 if there is none or it makes no sense."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        seconds = float(header)
    else:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - clock.now_ns() * 1e-9
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), RETRY_AFTER_MAX_SECONDS)


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds before the try after `attempt` failures (1, 2, ...): doubling, the last half of it at random."""
    return min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2.0 ** min(attempt - 1, 10)) * rng.uniform(0.5, 1.0)


class Voice:
    """Says in the log when a webhook begins to fail and when it works again: once each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[Result] = set()

    def hear(self, answer: Answer) -> None:
        if answer.result is Result.DELIVERED:
            if self._said:
                log.info("webhook.recovered", webhook=self._name)
                self._said.clear()
        elif answer.result not in self._said:
            self._said.add(answer.result)
            level = log.error if answer.result is Result.REFUSED else log.warning
            level(f"webhook.{answer.result}", webhook=self._name, detail=answer.detail)


def urgency(notice: Notice) -> int:
    """Sorts the most severe first; what is equal stays in its order."""
    return -SEVERITIES.index(notice.severity)


# --- one webhook ---------------------------------------------------------------------------------


class Channel:
    """What waits for one webhook, and the task that posts it."""

    def __init__(
        self,
        webhook: Webhook,
        sender: Sender,
        token: Token,
        repeat_seconds: float,
        clock: Clock,
        counters: WebhookCounters,
        rng: random.Random,
    ) -> None:
        self.webhook = webhook
        self._sender = sender
        self._token = token
        self._asked = (webhook, sender, token, repeat_seconds)
        alertmanager = webhook.format is WebhookFormat.ALERTMANAGER
        self.repeat_seconds = min(repeat_seconds, ALERTMANAGER_REPEAT_SECONDS) if alertmanager else repeat_seconds
        self.scope = trio.CancelScope()
        self.waiting: dict[Key, Notice] = {}
        self.progress = trio.lowlevel.ParkingLot()
        self._clock = clock
        self._counters = counters
        self._rng = rng
        self._news = trio.Event()
        self._voice = Voice(webhook.name)
        self._full = False
        self._due: dict[Key, tuple[float, Notice]] = {}  # when to say again what lasts

    def serves(self, webhook: Webhook, sender: Sender, token: Token, repeat_seconds: float) -> bool:
        """Whether a reload may keep this one: everything is as it was."""
        return self._asked == (webhook, sender, token, repeat_seconds)

    def stop(self) -> None:
        """End the task; what waits is not delivered."""
        self.scope.cancel()
        self.progress.unpark_all()

    def wants(self, severity: Severity) -> bool:
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.webhook.min_severity)

    def put(self, notice: Notice) -> None:
        """Take a notice, never wait. A newer one replaces what waits for the same alert."""
        if not self.wants(notice.severity):
            return
        self._due.pop(notice.key, None)
        self._enqueue(notice)

    def update(self, notice: Notice) -> None:
        """The same alert in other words: for the next time it is said."""
        if notice.key in self.waiting:
            self.waiting[notice.key] = notice
        elif notice.key in self._due:
            self._due[notice.key] = (self._due[notice.key][0], notice)

    def _enqueue(self, notice: Notice) -> None:
        if notice.key not in self.waiting and len(self.waiting) >= QUEUE_MAX:
            oldest = self.waiting.pop(next(iter(self.waiting)))
            if not oldest.resolved:
                self._due[oldest.key] = (trio.current_time() + self.repeat_seconds, oldest)
            self._counters.dropped += 1
            if not self._full:
                self._full = True
                log.error("webhook.overflowed", webhook=self.webhook.name, queue=QUEUE_MAX)
        self.waiting[notice.key] = notice
        self._counters.waiting = len(self.waiting)
        self._news.set()

    def _done(self, batch: list[Notice]) -> None:
        """These need no further try; what lasts is due again. A newer notice that came meanwhile stays."""
        due = trio.current_time() + self.repeat_seconds
        for notice in batch:
            found = self.waiting.get(notice.key)
            if found is not None and (found.started_ns, found.resolved) == (notice.started_ns, notice.resolved):
                del self.waiting[notice.key]
                if not notice.resolved:
                    self._due[notice.key] = (due, found)
        self._full = self._full and bool(self.waiting)
        self._counters.waiting = len(self.waiting)
        self.progress.unpark_all()

    async def _wait(self) -> None:
        """Return when something waits: news, or what is due to be said again."""
        while not self.waiting:
            self._news = trio.Event()
            with trio.move_on_at(min((at for at, _ in self._due.values()), default=float("inf"))):
                await self._news.wait()
            # What was said together is said again together.
            until = trio.current_time() + self.repeat_seconds * 0.1
            due = [notice for at, notice in self._due.values() if at <= until]
            for notice in due[: QUEUE_MAX - len(self.waiting)]:
                del self._due[notice.key]
                self._enqueue(notice)

    async def run(self, network: Network) -> None:
        """Post until cancelled."""
        with self.scope:
            async with await network.client(self._token) as client:
                failures = 0
                while True:
                    await self._wait()
                    await trio.sleep(GATHER_SECONDS)
                    batch = sorted(self.waiting.values(), key=urgency)[:BATCH_MAX]
                    body = BODIES[self.webhook.format](batch, self._sender)
                    answer = await post(client, self.webhook.url, body, self._clock)
                    count(self._counters.posts, answer.result)
                    self._voice.hear(answer)
                    if answer.result is Result.FAILED:
                        failures += 1
                        await trio.sleep(max(backoff(failures, self._rng), answer.retry_after_seconds))
                    else:
                        failures = 0
                        self._done(batch)


# --- the heartbeat -------------------------------------------------------------------------------


class Beat:
    """Posts an alert that always fires, every `seconds`, while the daemon is well; silence is the alarm."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        sender: Sender,
        token: Token,
        clock: Clock,
        counters: WebhookCounters,
        rng: random.Random,
    ) -> None:
        self.heartbeat = heartbeat
        self.sender = sender
        self.token = token
        self.scope = trio.CancelScope()
        self._clock = clock
        self._counters = counters
        self._rng = rng
        self._voice = Voice(HEARTBEAT)
        self._started_ns = clock.now_ns()

    def body(self) -> bytes:
        """Ends after three beats: an Alertmanager that hears no more calls it resolved, whatever its timeout is."""
        notice = Notice(
            name=HEARTBEAT_ALERT,
            severity=Severity.INFO,
            exchange=None,
            symbol=None,
            summary=f"{self.sender.service} is well",
            detail="Posted while the daemon runs and no worker is stuck. Its absence is the alarm.",
            runbook="When it stops: systemctl status mmd, mmdctl status. Orders may rest at the exchange.",
            started_ns=self._started_ns,
            ended_ns=self._clock.now_ns() + int(3e9 * self.heartbeat.seconds),
        )
        return BODIES[self.heartbeat.format]([notice], self.sender)

    async def run(self, network: Network, healthy: Callable[[], bool]) -> None:
        """Beat until cancelled. A beat that fails is tried again until the next one is due."""
        with self.scope:
            async with await network.client(self.token) as client:
                while True:
                    due = trio.current_time() + self.heartbeat.seconds
                    with trio.move_on_at(due):
                        await self._beat(client, healthy)
                    await trio.sleep_until(due)

    async def _beat(self, client: httpx.AsyncClient, healthy: Callable[[], bool]) -> None:
        failures = 0
        limit_seconds = min(POST_SECONDS, self.heartbeat.seconds * 0.9)
        while healthy():
            answer = await post(client, self.heartbeat.url, self.body(), self._clock, limit_seconds)
            count(self._counters.posts, answer.result)
            self._voice.hear(answer)
            if answer.result is not Result.FAILED:
                return
            failures += 1
            await trio.sleep(max(backoff(failures, self._rng), answer.retry_after_seconds))
