"""The connection's seam, spoken by another dialect: pings of ours, a bare `pong`, answers without times, maybe a login.

No exchange of its own: what is proven here is that nothing of Deribit is left in `connection`.
"""

import json
import math
import socket
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from deribit_peer import START_NS, Recorder, Wire, wall_clock_ns
from wsproto.events import AcceptConnection, Request, TextMessage

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeRefused, LinkLost
from mmd.domain.reasons import Fault
from mmd.exchanges.api import LinkStats
from mmd.exchanges.connection import (
    CALL_SECONDS,
    THROTTLED_SECONDS,
    THROTTLED_TRIES,
    Connection,
    Dialect,
    House,
    Login,
    LoginRefused,
)
from mmd.exchanges.faults import ErrorTable
from mmd.exchanges.jsonrpc import Decoder, Head, Sent
from mmd.exchanges.link import open_link
from mmd.exchanges.paces import Pace, Paces
from mmd.exchanges.tcp import STALL_SECONDS, TcpStream

Clock = trio.testing.MockClock
MS = 1_000_000
PING_SECONDS = 10.0
CLOCK_SECONDS = 30.0
WINDOW_SECONDS = 5.0
ERRORS = ErrorTable(
    ((Fault.RATE_LIMIT, "-32000 slower"), (Fault.AUTH, "401 stranger"), (Fault.ORDER, "11000 poor")),
    gone=frozenset(),
    throttled=frozenset({-32000}),
    timed_out=11022,
)
read_ms: Decoder[int] = Decoder(int)


class Pings:
    """Implements Beat: we send `ping`, and what comes back is no JSON."""

    silent_seconds = 2.5 * PING_SECONDS

    def __init__(self) -> None:
        self.due_at = 0.0
        self.pongs = 0

    async def begin(self, connection: Connection) -> None:
        self.due_at = trio.current_time() + PING_SECONDS

    def due(self, now: float) -> bytes:
        if now < self.due_at:
            return b""
        self.due_at = now + PING_SECONDS
        return b"ping"

    def took(self, message: bytes) -> bool:
        is_pong = message == b"pong"
        self.pongs += is_pong
        return is_pong

    def heard(self, connection: Connection, head: Head) -> bool:
        return False


class Wallet:
    """Implements Login: the answer is a list of accounts, and says nothing of an end."""

    signs_time = True

    async def log_in(self, connection: Connection) -> float:
        if not msgspec.json.decode(await connection.call("public/login", {"wallet": "0x1"})):
            raise LoginRefused(0, "the key may use no account")
        return float("inf")


class Idle:
    """Implements Duty: nothing but what a test does with the connection."""

    name = "data"

    def __init__(self) -> None:
        self.deaf_after = 2.0
        self.stats = LinkStats()
        self.told: list[tuple[str, bytes]] = []
        self.up = trio.Event()

    async def work(self, connection: Connection) -> None:
        connection.set_up()
        self.up.set()
        await trio.sleep_forever()

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        self.told.append((channel, bytes(data)))

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        raise AssertionError("every request here is awaited")

    def lost(self, sent: Sent, why: str) -> None:
        raise AssertionError("every request here is awaited")

    def garbled(self, channel: str) -> None:
        """Counted by the connection."""


def times(sent: Sent, head: Head) -> tuple[int, int] | None:
    """Whole ms, and in one answer only: the clock showed that or a little more."""
    if sent.method != "public/get_time" or head.error is not None:
        return None
    told_ms = read_ms(head.result)
    return (told_ms + 1) * 1000, told_ms * 1000


class Gate:
    """Open, until it is closed."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self.open()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open = trio.Event()

    async def wait(self) -> None:
        await self._open.wait()


class Other:
    """The other side of a link, and ours."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.answers: dict[str, Any] = {"public/get_time": self.now_ms, "public/login": [30769]}
        self.ahead_ms = 0
        self.asked: list[str] = []
        self.mute = self.deaf = False
        self.reading = Gate()
        self.wire: Wire
        self.beat = Pings()
        self.duty = Idle()
        self.sink = Recorder()
        self.house = House(
            name="other",
            service="svc",
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=Random(1),
            started_ns=START_NS,
            budget=Budget(1.0, 5.0, 1.0),
            order_valid_ms=None,
        )
        self.house.sink = self.sink
        self.ended: BaseException | None = None

    def now_ms(self) -> int:
        return wall_clock_ns() // MS + self.ahead_ms

    async def start(self, login: Login | None = None, *, tcp: bool = False) -> Connection:
        ours: trio.abc.Stream
        theirs: trio.abc.Stream
        if tcp:
            one, another = socket.socketpair()
            ours, theirs = TcpStream(one), trio.SocketStream(trio.socket.from_stdlib_socket(another))
        else:
            ours, theirs = trio.testing.memory_stream_pair()
        self.wire = Wire(theirs)
        self.nursery.start_soon(self._serve)
        _, link = await open_link(self._dialer(ours), "test.example", "/v3/ws")
        dialect = Dialect(
            login=login,
            beat=self.beat,
            paces=Paces(Pace(5.0, 25.0), {}),
            encode=msgspec.json.encode,
            times=times,
            clock="public/get_time",
            clock_seconds=CLOCK_SECONDS,
            throttled_seconds=WINDOW_SECONDS,
            one_budget=True,
        )
        connection = Connection(link, self.house, self.duty, dialect)
        self.nursery.start_soon(self._run, connection, ours)
        return connection

    def _dialer(self, stream: trio.abc.Stream) -> Callable[[], Any]:
        async def dial() -> trio.abc.Stream:
            return stream

        return dial

    async def _run(self, connection: Connection, stream: trio.abc.Stream) -> None:
        try:
            await connection.run()
        except* (LinkLost, LoginRefused) as group:
            self.ended = group.exceptions[0]
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self) -> None:
        wire = self.wire
        async with wire.stream:
            while data := await wire.stream.receive_some(65536):
                await self.reading.wait()
                wire.ws.receive_data(data)
                for event in wire.ws.events():
                    if isinstance(event, Request):
                        await wire.stream.send_all(wire.ws.send(AcceptConnection()))
                    elif isinstance(event, TextMessage):
                        await self._answer(event.data)

    async def _answer(self, text: str) -> None:
        if self.mute or (self.deaf and text != "ping"):
            return
        if text == "ping":
            self.asked.append(text)
            await self.wire.send_text("pong")
            return
        request = json.loads(text)
        self.asked.append(request["method"])
        answer = self.answers[request["method"]]
        result = answer() if callable(answer) else answer
        member = "error" if isinstance(result, dict) and "code" in result else "result"
        await self.wire.send_text(json.dumps({"id": request["id"], member: result}))


@pytest.fixture
async def other(nursery: trio.Nursery) -> AsyncIterator[Other]:
    other = Other(nursery)
    yield other
    nursery.cancel_scope.cancel()


async def test_a_link_without_a_login_lives_on_pings(autojump_clock: Clock, other: Other) -> None:
    await other.start()
    await other.duty.up.wait()
    await trio.sleep(10.5 * PING_SECONDS)
    assert other.beat.pongs == 10 and other.ended is None
    assert set(other.asked) == {"ping", "public/get_time"}
    assert other.duty.stats.malformed == 0


async def test_a_link_on_which_nothing_comes_is_lost(autojump_clock: Clock, other: Other) -> None:
    await other.start()
    await other.duty.up.wait()
    other.mute = True
    await trio.sleep(other.beat.silent_seconds + 1)
    assert str(other.ended) == "silent for 25 s"


async def stream(other: Other) -> None:
    """What was subscribed comes in, whatever becomes of our requests."""
    while True:
        await trio.sleep(3)
        await other.wire.send_text('{"method": "subscription", "params": {"channel": "book", "data": 1}}')


async def test_a_link_that_streams_and_answers_nothing_is_lost(
    autojump_clock: Clock, other: Other, nursery: trio.Nursery
) -> None:
    await other.start()
    await other.duty.up.wait()
    nursery.start_soon(stream, other)
    other.mute = True
    await trio.sleep(2 * CLOCK_SECONDS + CALL_SECONDS - 1)
    assert other.ended is None, "one request without an answer is not enough"
    await trio.sleep(2)
    assert str(other.ended) == "nothing was answered for 70 s, 2 requests are overdue"
    nursery.cancel_scope.cancel()


async def test_a_link_that_answered_nothing_for_a_moment_is_kept(
    autojump_clock: Clock, other: Other, nursery: trio.Nursery
) -> None:
    """However much was asked meanwhile: what is under way together is lost together."""
    connection = await other.start()
    await other.duty.up.wait()
    nursery.start_soon(stream, other)
    other.mute = True
    for _ in range(5):
        connection.ask("public/get_time")
        await connection.flush()
        await trio.sleep(0.5)
    await trio.sleep(CALL_SECONDS)
    other.mute = False
    await trio.sleep(300)
    assert other.ended is None
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by_others", [True, False])
async def test_a_link_that_answers_pings_or_whose_silence_others_judge_is_kept(
    autojump_clock: Clock, other: Other, nursery: trio.Nursery, by_others: bool
) -> None:
    other.duty.deaf_after = math.inf if by_others else 2.0
    await other.start()
    await other.duty.up.wait()
    nursery.start_soon(stream, other)
    other.mute, other.deaf = by_others, True
    await trio.sleep(600)
    assert other.ended is None
    nursery.cancel_scope.cancel()


async def test_who_flushes_does_not_wait_for_a_peer_that_takes_nothing(autojump_clock: Clock, other: Other) -> None:
    """It may be a task of another exchange, or an operator's command."""
    connection = await other.start(tcp=True)
    await other.duty.up.wait()
    other.mute = True
    other.reading.close()
    began = trio.current_time()
    while not connection.link.would_block():
        for _ in range(20):
            connection.link.send(b"x" * 10_000)
        await connection.flush()
    for _ in range(3):
        connection.link.send(b"last")
        await connection.flush()
    assert trio.current_time() == began and other.ended is None and connection.link.dirty
    other.reading.open()
    while connection.link.dirty or connection.link.would_block():
        await trio.testing.wait_all_tasks_blocked()
    assert other.ended is None, "it takes them again"
    other.reading.close()
    while not connection.link.would_block():
        connection.link.send(b"x" * 10_000)
        await connection.flush()
    for _ in range(200):
        connection.link.send(b"x" * 10_000)
    await connection.flush()
    await trio.sleep(STALL_SECONDS + 0.1)
    assert "takes no bytes for 3 s" in str(other.ended)


async def test_other_text_is_malformed(autojump_clock: Clock, other: Other) -> None:
    await other.start()
    await other.duty.up.wait()
    await other.wire.send_text("pong pong")
    await other.wire.send_text(json.dumps({"method": "heartbeat", "params": {"type": "test_request"}}))
    await trio.testing.wait_all_tasks_blocked()
    assert other.duty.stats.malformed == 2
    assert other.asked == ["public/get_time"]


async def test_the_clock_is_asked_first_and_again_and_again(autojump_clock: Clock, other: Other) -> None:
    other.ahead_ms = 5000
    await other.start(Wallet())
    await other.duty.up.wait()
    assert other.asked == ["public/get_time", "public/login"]
    assert abs(other.house.clock.skew_ms - 5000) <= 1
    other.ahead_ms = -3000
    await trio.sleep(CLOCK_SECONDS + 1)
    assert abs(other.house.clock.skew_ms + 3000) <= 1


async def test_a_time_in_market_data_that_is_off_asks_for_the_clock(autojump_clock: Clock, other: Other) -> None:
    connection = await other.start()
    await other.duty.up.wait()
    connection.check_clock(wall_clock_ns() + 10_000 * MS, wall_clock_ns())
    await connection.flush()
    await trio.testing.wait_all_tasks_blocked()
    assert other.asked == ["public/get_time"] * 2


async def test_one_source_that_is_always_late_does_not_use_up_what_may_be_asked(
    autojump_clock: Clock, other: Other
) -> None:
    """The others are in time: the clock is right, and asked less and less often; after a calm, at once again."""
    connection = await other.start()
    await other.duty.up.wait()
    began = trio.current_time()
    while trio.current_time() - began < 120:
        for late_ms in (2000, 0):
            connection.check_clock(wall_clock_ns() - late_ms * MS, wall_clock_ns())
        await connection.flush()
        await trio.sleep(0.1)
    probes = other.asked.count("public/get_time") - 1 - int(120 / CLOCK_SECONDS)
    assert 5 <= probes <= 10
    await trio.sleep(CLOCK_SECONDS + 1)
    other.asked.clear()
    connection.check_clock(wall_clock_ns() - 2000 * MS, wall_clock_ns())
    await connection.flush()
    await trio.testing.wait_all_tasks_blocked()
    assert other.asked == ["public/get_time"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param([], "the key may use no account (0)", id="no account"),
        pytest.param({"code": 401, "message": "who?"}, "stranger: public/login: who? (401)", id="refused"),
    ],
)
async def test_a_login_is_refused(autojump_clock: Clock, other: Other, answer: object, why: str) -> None:
    other.answers["public/login"] = answer
    await other.start(Wallet())
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(1)
    assert isinstance(other.ended, LoginRefused) and str(other.ended) == why
    assert not other.duty.up.is_set()


async def test_a_login_that_is_refused_far_from_the_exchanges_time_says_so(autojump_clock: Clock, other: Other) -> None:
    other.ahead_ms = -20_000
    other.answers["public/login"] = {"code": 401, "message": "who?"}
    await other.start(Wallet())
    await trio.sleep(1)
    assert "the clock of this machine is 20.0 s ahead of the exchange's" in str(other.ended)


async def test_a_login_without_an_end_is_not_renewed(autojump_clock: Clock, other: Other) -> None:
    await other.start(Wallet())
    await trio.sleep(3600)
    assert other.asked.count("public/login") == 1 and other.ended is None


async def test_too_much_was_asked_and_the_link_stays(autojump_clock: Clock, other: Other) -> None:
    connection = await other.start()
    await other.duty.up.wait()
    too_much = {"code": -32000, "message": "Rate limit exceeded", "data": {"x": 1}}
    answers = iter([too_much, too_much, ["all is well"]])
    other.answers["public/get_live_incidents"] = lambda: next(answers)
    began = trio.current_time()
    assert bytes(await connection.call("public/get_live_incidents")) == b'["all is well"]'
    assert trio.current_time() - began == pytest.approx(2 * WINDOW_SECONDS)
    assert connection.throttled
    assert other.sink.named("exchange.rate_limited") == ['public/get_live_incidents: Rate limit exceeded {"x": 1}'] * 2
    await trio.sleep(THROTTLED_SECONDS)
    assert not connection.throttled and other.ended is None  # a loss from now on has another cause


async def test_too_much_is_asked_for_too_long(autojump_clock: Clock, other: Other) -> None:
    connection = await other.start()
    await other.duty.up.wait()
    other.answers["public/get_live_incidents"] = {"code": -32000, "message": "Rate limit exceeded"}
    with pytest.raises(ExchangeRefused):
        await connection.call("public/get_live_incidents")
    assert other.asked.count("public/get_live_incidents") == THROTTLED_TRIES


async def test_too_many_sockets_are_told_without_a_question(autojump_clock: Clock, other: Other) -> None:
    connection = await other.start()
    await other.duty.up.wait()
    await other.wire.send_text(json.dumps({"id": None, "error": {"code": -32000, "message": "too many connections"}}))
    await trio.testing.wait_all_tasks_blocked()
    assert connection.throttled
    assert other.sink.named("exchange.rate_limited") == ["data link: too many connections"]
