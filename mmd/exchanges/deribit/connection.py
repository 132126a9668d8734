"""One connection to Deribit: read, answer heartbeats, notice silence and overdue answers, log in, call.

The reading task does everything from socket to decision: frames, decoding, posting, `deliver`.
What one of the two links is for is its Duty (`feed`, `trading`).
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault
from mmd.exchanges.api import LinkStats, Sink
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.errors import TOO_MANY_REQUESTS, meaning
from mmd.exchanges.jsonrpc import Head, Pace, RpcLink, Sent, Waiter, decode_head, overdue
from mmd.exchanges.link import Link

TICK_SECONDS = 0.25
CALL_SECONDS = 10.0
MIN_LOGIN_SECONDS = 5.0
REAUTH_AT = 0.8  # of the token's life
REPORT_SECONDS = 10.0  # at most one line about malformed messages in that time
DRIFT = 200e-6  # of two undisciplined clocks against each other, at most
SLACK_NS = 1_000_000  # times are told in µs, and the servers of one exchange differ a little

# A time told with market data that is so far off the known difference makes us ask for the exchange's clock.
EARLY_NS, LATE_NS = 200_000_000, 500_000_000
PROBE_FIRST_SECONDS, PROBE_MAX_SECONDS = 0.5, 30.0

# Four fifths of the documented credits: the account's owner may be logged in elsewhere.
GENERAL_RATE, GENERAL_BURST = 16.0, 80.0
SUBSCRIBE_RATE, SUBSCRIBE_BURST = 2.6, 8.0
LISTING_RATE, LISTING_BURST = 0.8, 10.0
LOG_RATE, LOG_BURST = 0.8, 6.0
WRONG_CLOCK_SECONDS = 10.0  # Deribit takes a signature that is up to a minute off
NO_PARAMS: dict[str, object] = {}


class LoginRefused(ExchangeRefused):
    """The exchange does not take these credentials, or not for this."""


class ClockSkew:
    """The exchange's clock minus one of ours, from request and answer times: always a finite number.

    An answer proves that the difference lies between two bounds (it cannot have left before it was
    asked for, nor come before it left), as far apart as its way was long. Bounds are intersected, and
    widen with time by what clocks drift; `skew_ms` is their middle. An answer that contradicts them
    shows that a clock was set: then it alone counts. 0.0 before the first answer, which is the login's:
    known whenever a link is up.
    """

    def __init__(self) -> None:
        self.skew_ms = 0.0
        self.known = False
        self._low_ns = self._high_ns = 0.0
        self._at_ns = 0

    def add(self, sent_ns: int, received_ns: int, us_in: int, us_out: int) -> None:
        """One answer: our send and receive time, the server's receive and send time."""
        low_ns: float = us_out * 1000 - received_ns
        high_ns: float = us_in * 1000 - sent_ns
        if low_ns > high_ns:
            return  # a clock was set while it was on its way
        if self.known:
            slack_ns = abs(received_ns - self._at_ns) * DRIFT + SLACK_NS
            least_ns, most_ns = self._low_ns - slack_ns, self._high_ns + slack_ns
            if low_ns <= most_ns and high_ns >= least_ns:
                low_ns, high_ns = max(low_ns, least_ns), min(high_ns, most_ns)
        self._low_ns, self._high_ns, self._at_ns, self.known = low_ns, high_ns, received_ns, True
        self.skew_ms = (low_ns + high_ns) / 2e6


class Credentials:
    """What logs in. Nothing of it is ever shown."""

    def __init__(self, client_id: str, client_secret: str, grant: str) -> None:
        if grant not in ("client_signature", "client_credentials"):
            raise ValueError(f"grant {grant!r}: wanted client_signature or client_credentials")
        self._id = client_id
        self._secret = client_secret
        self._grant = grant
        self.signs_time = grant == "client_signature"
        self._count = 0

    def params(self, scope: str, now_ms: int, rng: Random) -> msgspec.Struct:
        """Params of public/auth."""
        if self._grant == "client_credentials":
            return codec.credentials_auth(self._id, self._secret, scope)
        self._count += 1
        nonce = f"{now_ms:x}-{self._count:x}-{rng.getrandbits(32):08x}"
        return codec.signature_auth(self._id, self._secret, scope, timestamp_ms=now_ms, nonce=nonce)


class House:
    """What both links of one exchange share."""

    def __init__(
        self,
        *,
        name: str,
        service: str,
        credentials: Credentials,
        wall_clock_ns: Callable[[], int],
        rng: Random,
        started_ns: int,
        budget: Budget,
        order_valid_ms: int | None,
    ) -> None:
        self.name = name
        self.service = service
        self.credentials = credentials
        self.wall_clock_ns = wall_clock_ns
        self.rng = rng
        self.started_ns = started_ns
        self.budget = budget
        self.order_valid_ms = order_valid_ms
        self.skew = ClockSkew()  # against our wall clock
        self._steady = ClockSkew()  # against a clock that nobody can set
        self.instruments: dict[str, Instrument] = {}
        self.watched: tuple[str, ...] = ()
        self.watching = False  # `watch` was called at least once
        self.on_settlement: Callable[[], None] = lambda: None  # a watched instrument was settled or delivered
        self.sink: Sink
        self._general = Pace(GENERAL_RATE, GENERAL_BURST)
        self._subscribe = Pace(SUBSCRIBE_RATE, SUBSCRIBE_BURST)
        self._listing = Pace(LISTING_RATE, LISTING_BURST)
        self._log = Pace(LOG_RATE, LOG_BURST)

    def exchange_ms(self) -> int:
        """The exchange's clock, as well as we know it: that our wall clock is set does not change it."""
        if self._steady.known:
            return round(trio.current_time() * 1000 + self._steady.skew_ms)
        return round(self.wall_clock_ns() / 1_000_000 + self.skew.skew_ms)

    def heard(self, sent_at: float, received_at: float, received_ns: int, us_in: int, us_out: int) -> None:
        """An answer told the exchange's clock: trio's times of the request and of the answer, our wall clock then."""
        self.skew.add(received_ns - int((received_at - sent_at) * 1e9), received_ns, us_in, us_out)
        self._steady.add(int(sent_at * 1e9), int(received_at * 1e9), us_in, us_out)

    def clock_hint(self) -> str:
        """What may be wrong with a login, where the clocks are far apart; empty where they are not."""
        ahead_seconds = -self.skew.skew_ms / 1000
        if not (self.skew.known and self.credentials.signs_time) or abs(ahead_seconds) < WRONG_CLOCK_SECONDS:
            return ""
        way = "ahead of" if ahead_seconds > 0 else "behind"
        return (
            f"; the clock of this machine is {abs(ahead_seconds):.1f} s {way} the exchange's, and a login is signed "
            "with the time: set it (timedatectl)"
        )

    def told_us(self, head: Head) -> int:
        """When the exchange took the request of this answer, by its own clock, µs."""
        return head.us_in or self.exchange_ms() * 1000

    def charge(self, method: str) -> float:
        """Take a call's credits; returns the seconds to wait before sending it."""
        now = trio.current_time()
        if method in ("public/subscribe", "private/subscribe"):
            return self._subscribe.take(now)
        if method == "public/get_instruments":
            return self._listing.take(now)
        if method == "private/get_transaction_log":
            return self._log.take(now)
        return self._general.take(now)


class Duty(Protocol):
    """What a link is for."""

    name: str
    heartbeat_seconds: int
    scope: str
    stats: LinkStats

    async def work(self, connection: "Connection") -> None:
        """Everything after the login; runs until cancelled."""

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        """A subscription's message. ExchangeMalformed if it cannot be read."""

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        """The answer to a request of ours that nobody awaits."""

    def lost(self, sent: Sent, why: str) -> None:
        """No answer will come in time (or at all); it may still come late."""

    def garbled(self, channel: str) -> None:
        """A message could not be read; `channel` is empty where even that is unknown."""


class Connection:
    """One connection's life: `run` until it ends with LinkLost or LoginRefused (in a group)."""

    def __init__(self, link: Link, house: House, duty: Duty) -> None:
        self.link = link
        self._ready = False
        self._ending = False
        self.throttled = False  # the exchange said too_many_requests
        self._house = house
        self._duty = duty
        self._rpc = RpcLink(link, codec.encode)
        self._seconds = trio.lowlevel.current_clock().current_time
        self._scope = trio.CancelScope()
        self._why = ""
        self._heard_at = trio.current_time()
        self._probe_at = 0.0
        self._probe_pause = PROBE_FIRST_SECONDS
        self._garbled_at = -REPORT_SECONDS
        self._garbled_count = 0
        self.nursery: trio.Nursery

    @property
    def ready(self) -> bool:
        """Logged in and set up by the duty, and not about to end: `nursery` takes new tasks."""
        return self._ready and not self._ending

    def set_up(self) -> None:
        """By the duty: from now on there is more than a login."""
        self._ready = True

    async def run(self) -> None:
        """Log in and serve until the connection is lost."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.nursery = nursery
                    nursery.start_soon(self._listen)
                    nursery.start_soon(self._watch)
                    nursery.start_soon(self._work)
            raise LinkLost(self._why or self.link.lost or "dropped")
        finally:
            self._ending = True
            self._count_bytes()
            for sent in self._rpc.ledger.abandon():
                self._give_up(sent, "the link was lost")

    def drop(self, why: str) -> None:
        """End this connection."""
        self._why = self._why or why
        self._scope.cancel()

    # --- out ---

    def request(self, method: str, params: object, context: object, deadline_seconds: float) -> None:
        """Queue a request whose answer goes to the duty. Raises LinkLost."""
        self._rpc.request(method, params, context, deadline_seconds)

    async def call(
        self, method: str, params: object = NO_PARAMS, *, apply: Callable[[Head], None] | None = None
    ) -> msgspec.Raw:
        """A request of our own, within the exchange's credits. Raises as RpcLink.call does.

        `apply` runs in the reading task, in the stream's order.
        """
        delay = self._house.charge(method)
        if delay > 0:
            await trio.sleep(delay)
        return await self._rpc.call(method, params, CALL_SECONDS, apply)

    def check_clock(self, exchange_ns: int, received_ns: int) -> None:
        """A time that the exchange told unasked: where it contradicts the known difference, ask for its clock.

        The data may only be late: then the answer says so, and it is asked less and less often.
        """
        off_ns = exchange_ns - received_ns - self._house.skew.skew_ms * 1e6
        if -LATE_NS < off_ns < EARLY_NS:
            self._probe_pause = PROBE_FIRST_SECONDS
            return
        now = self._seconds()
        if now >= self._probe_at and not self.link.lost:
            self._probe_at = now + self._probe_pause
            self._probe_pause = min(PROBE_MAX_SECONDS, self._probe_pause * 2.0)
            self._test()

    def _test(self) -> None:
        """Ask for nothing but an answer; it leaves with the next flush."""
        self._house.charge("public/test")
        self._rpc.request("public/test", NO_PARAMS, Waiter("public/test", None), CALL_SECONDS)

    async def flush(self) -> None:
        """Write what is queued. A lost link ends this connection, not the caller: any task may flush."""
        try:
            await self.link.flush()
        except LinkLost as error:
            self.drop(str(error))

    # --- tasks ---

    async def _listen(self) -> None:
        """Nobody starts a task for this connection once its reading has ended, whatever ended it."""
        try:
            await self._read()
        finally:
            self._ending = True

    async def _read(self) -> None:
        house, link, stats = self._house, self.link, self._duty.stats
        while True:
            messages = await link.receive()
            self._heard_at = self._seconds()
            received_ns = house.wall_clock_ns()
            stats.last_received_ns = received_ns
            stats.messages_in += len(messages)
            for message in messages:
                self._take(message, received_ns)
            if binaries := link.take_binaries():
                self._malformed("", f"{binaries} binary message(s), only text is spoken here")
            if link.dirty:
                await link.flush()
            await house.sink.deliver()

    async def _watch(self) -> None:
        """Silence and overdue answers."""
        silent_seconds = 2.0 * self._duty.heartbeat_seconds
        while True:
            await trio.sleep(TICK_SECONDS)
            self._count_bytes()
            now = trio.current_time()
            if now - self._heard_at > silent_seconds:
                raise LinkLost(f"silent for {silent_seconds:g} s")
            if self.link.lost:
                raise LinkLost(self.link.lost)
            late = self._rpc.ledger.expire(now)
            for sent in late:
                self._give_up(sent, str(overdue(sent)))
            if late:
                await self._house.sink.deliver()

    async def _work(self) -> None:
        life_seconds = await self._login()
        self.nursery.start_soon(self._stay_logged_in, life_seconds)
        interval = {"interval": self._duty.heartbeat_seconds}
        await self.call("public/set_heartbeat", interval)
        await self._duty.work(self)

    async def _login(self) -> float:
        """Returns the seconds for which the login holds."""
        params = self._house.credentials.params(self._duty.scope, self._house.exchange_ms(), self._house.rng)
        try:
            raw = await self.call("public/auth", params)
        except ExchangeRefused as error:
            told = meaning(error.code)
            if told.fault in (Fault.AUTH, Fault.CONFIG):
                raise LoginRefused(error.code, f"{told.name}: {error.message}{self._house.clock_hint()}") from error
            raise
        result = codec.decode_auth(raw)
        if short := codec.missing_scopes(self._duty.scope, result.scope):
            self._house.sink.report("login.scope_narrowed", f"{self._duty.name}: not granted: {' '.join(short)}")
        return float(result.expires_in)

    async def _stay_logged_in(self, life_seconds: float) -> None:
        while True:
            await trio.sleep(max(MIN_LOGIN_SECONDS, life_seconds * REAUTH_AT))
            life_seconds = await self._login()

    # --- in ---

    def _take(self, message: bytes, received_ns: int) -> None:
        try:
            head = decode_head(message)
        except ExchangeMalformed as error:
            self._malformed("", str(error))
            return
        if head.method == "subscription" and head.params is not None:
            channel = head.params.channel
            try:
                self._duty.notified(channel, head.params.data, received_ns)
            except ExchangeMalformed as error:
                self._malformed(channel, str(error))
        elif head.id is not None:
            self._answer(head, received_ns)
        elif head.method == "heartbeat" and head.params is not None:
            if head.params.type == "test_request" and not self.link.lost:
                self._test()
        elif head.error is not None:
            self._malformed("", f"the exchange could not read a request: {head.error.text}")
        else:
            self.malformed(f"neither an answer nor a known notification (method {head.method[:40]!r})")

    def _answer(self, head: Head, received_ns: int) -> None:
        sent = self._rpc.ledger.close(head.id)
        if sent is None:
            self.malformed(f"an answer to a request that was not made (id {head.id})")
            return
        if head.us_in and head.us_out:
            self._house.heard(sent.sent_at, self._heard_at, received_ns, head.us_in, head.us_out)
        if head.error is not None and head.error.code == TOO_MANY_REQUESTS:
            self.throttled = True
            self._house.budget.empty_until(received_ns)
            self._house.sink.report("exchange.rate_limited", f"{sent.method}: {head.error.text}")
        if isinstance(sent.context, Waiter):
            sent.context.answered(head)
            return
        self._house.sink.round_trip(self._heard_at - sent.sent_at)
        self._duty.answered(sent, head, received_ns)

    def malformed(self, detail: str) -> None:
        """Count and report a message that cannot be read, now and then."""
        self._duty.stats.malformed += 1
        self._garbled_count += 1
        now = trio.current_time()
        if now - self._garbled_at >= REPORT_SECONDS:
            text = f"{self._duty.name} link: {detail} ({self._garbled_count} since the last such line)"
            self._house.sink.report("message.malformed", text)
            self._garbled_at = now
            self._garbled_count = 0

    def _malformed(self, channel: str, detail: str) -> None:
        self.malformed(f"{channel}: {detail}" if channel else detail)
        self._duty.garbled(channel)

    def _give_up(self, sent: Sent, why: str) -> None:
        if isinstance(sent.context, Waiter):
            sent.context.failed(overdue(sent) if sent.expired else LinkLost(why))
        else:
            self._duty.lost(sent, why)

    def _count_bytes(self) -> None:
        stats, link = self._duty.stats, self.link
        stats.bytes_in += link.bytes_in
        stats.bytes_out += link.bytes_out
        stats.messages_out += self._rpc.messages_out
        link.bytes_in = link.bytes_out = self._rpc.messages_out = 0
