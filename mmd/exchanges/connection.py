"""One connection to an exchange: read, keep alive, notice silence and overdue answers, log in, call.

The reading task does everything from socket to decision: frames, decoding, posting, `deliver`.
How the exchange speaks on a link is its Dialect; what a link is for is its Duty (`feed`, `trading`).
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault
from mmd.exchanges.api import LinkStats, Sink
from mmd.exchanges.clock import ExchangeClock
from mmd.exchanges.faults import ErrorTable
from mmd.exchanges.jsonrpc import Head, Request, RpcError, RpcLink, Sent, Waiter, decode_head, overdue
from mmd.exchanges.link import Link
from mmd.exchanges.paces import Paces

TICK_SECONDS = 0.25
CALL_SECONDS = 10.0
MIN_LOGIN_SECONDS = 5.0
REAUTH_AT = 0.8  # of a login's life
REPORT_SECONDS = 10.0  # at most one line about malformed messages in that time
THROTTLED_SECONDS = 10.0  # who was told that he asks too much waits so long before he connects again

# A time told with market data that is so far off the known difference makes us ask for the exchange's clock.
EARLY_NS, LATE_NS = 200_000_000, 500_000_000
PROBE_FIRST_SECONDS, PROBE_MAX_SECONDS = 0.5, 30.0
WRONG_CLOCK_SECONDS = 10.0
NO_PARAMS: dict[str, object] = {}
THROTTLED_TRIES = 4
FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)  # of a call whose link lives


class LoginRefused(ExchangeRefused):
    """The exchange does not take these credentials, or not for this."""


class House:
    """What the links of one exchange share."""

    def __init__(
        self,
        *,
        name: str,
        service: str,
        errors: ErrorTable,
        wall_clock_ns: Callable[[], int],
        rng: Random,
        started_ns: int,
        budget: Budget,
        order_valid_ms: int | None,
    ) -> None:
        self.name = name
        self.service = service
        self.errors = errors
        self.wall_clock_ns = wall_clock_ns
        self.rng = rng
        self.started_ns = started_ns
        self.budget = budget
        self.order_valid_ms = order_valid_ms
        self.clock = ExchangeClock(wall_clock_ns)
        self.instruments: dict[str, Instrument] = {}
        self.watched: tuple[str, ...] = ()
        self.watching = False  # `watch` was called at least once
        self.on_settlement: Callable[[], None] = lambda: None  # a watched instrument was settled or delivered
        self.on_not_live: Callable[[str], None] = lambda symbol: None  # an order was refused: it takes none
        self.sink: Sink

    def fault(self, error: Exception) -> Fault | None:
        """Whose a refusal is; None for what is no refusal."""
        return self.errors.meaning(error.code).fault if isinstance(error, ExchangeRefused) else None

    def clock_hint(self) -> str:
        """What may be wrong with a login that is signed with the time; empty where the clocks agree."""
        ahead_seconds = -self.clock.skew_ms / 1000
        if not self.clock.known or abs(ahead_seconds) < WRONG_CLOCK_SECONDS:
            return ""
        way = "ahead of" if ahead_seconds > 0 else "behind"
        return (
            f"; the clock of this machine is {abs(ahead_seconds):.1f} s {way} the exchange's, and a login is signed "
            "with the time: set it (timedatectl)"
        )


# --- what differs between exchanges --------------------------------------------------------------


class Login(Protocol):
    """Who we are on one link."""

    signs_time: bool

    async def log_in(self, connection: "Connection") -> float:
        """Returns the seconds for which it holds, inf where nothing is said.

        Raises LoginRefused, and whatever `call` raises: a refusal whose fault is ours becomes a LoginRefused.
        """


class Beat(Protocol):
    """How an idle link is known to be alive. One for each link; `begin` comes with every connection."""

    silent_seconds: float  # without a message for so long it counts as lost

    async def begin(self, connection: "Connection") -> None:
        """Once it is logged in."""

    def due(self, now: float) -> bytes:
        """A text to send now; empty: nothing. Asked every TICK_SECONDS, `now` in trio's seconds."""

    def took(self, message: bytes) -> bool:
        """Whether this message, which is no JSON, is a beat."""

    def heard(self, connection: "Connection", head: Head) -> bool:
        """Whether a notification that is no subscription's is a beat; one that wants an answer gets it."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange speaks on one link.

    `login`: None where nobody logs in. `clock`: a method whose answer tells the exchange's clock, as `times` reads
    it: when the request came and the answer left there, µs; None where an answer does not say. It is asked before
    the login and every `clock_seconds`; not unless it is needed where that is inf: any answer tells it then.
    `throttled_seconds`: a call that was refused because too much is asked was not carried out, and is asked again
    after so long; inf: the exchange ends the connection over it. `one_budget`: what is asked here and orders come
    out of one, so that who asked too much has nothing left for orders either.
    """

    login: Login | None
    beat: Beat
    paces: Paces
    encode: Callable[[Request], bytes]
    times: Callable[[Sent, Head], tuple[int, int] | None]
    clock: str
    clock_seconds: float
    throttled_seconds: float
    one_budget: bool


class Duty(Protocol):
    """What a link is for.

    `deaf_after`: so many requests without an answer, each sent when the one before was overdue, and nothing answered
    meanwhile, and the link is lost, whatever still comes in; inf where it is up to others what silence means.
    """

    name: str
    stats: LinkStats
    deaf_after: float

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

    def __init__(self, link: Link, house: House, duty: Duty, dialect: Dialect) -> None:
        self.link = link
        self._ready = False
        self._ending = False
        self._throttled_at = float("-inf")
        self._house = house
        self._duty = duty
        self._dialect = dialect
        self._rpc = RpcLink(link, dialect.encode)
        self._seconds = trio.lowlevel.current_clock().current_time
        self._scope = trio.CancelScope()
        self._why = ""
        self._heard_at = self._answered_at = trio.current_time()
        self._unanswered, self._missed_at = 0, 0.0  # since then, and when the last of these was overdue
        self._probe_at = float("-inf")
        self._probe_pause = PROBE_FIRST_SECONDS
        self._garbled_at = -REPORT_SECONDS
        self._garbled_count = 0
        self._clogged = trio.Event()
        self.nursery: trio.Nursery

    @property
    def ready(self) -> bool:
        """Logged in and set up by the duty, and not about to end: `nursery` takes new tasks."""
        return self._ready and not self._ending

    @property
    def throttled(self) -> bool:
        """The exchange said lately that too much is asked."""
        return trio.current_time() - self._throttled_at < THROTTLED_SECONDS

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
                    nursery.start_soon(self._unclog)
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
        """A request of our own, within the exchange's credits; not for orders. Raises as RpcLink.call does.

        `apply` runs in the reading task, in the stream's order.
        """
        dialect = self._dialect
        for tries in range(1, THROTTLED_TRIES + 1):
            delay = dialect.paces.charge(method, trio.current_time())
            if delay > 0:
                await trio.sleep(delay)
            try:
                return await self._rpc.call(method, params, CALL_SECONDS, apply)
            except ExchangeRefused as error:
                if error.code not in self._house.errors.throttled or tries == THROTTLED_TRIES:
                    raise
                if dialect.throttled_seconds == float("inf"):
                    raise
            await trio.sleep(dialect.throttled_seconds)
        raise AssertionError("the last try returns or raises")

    def check_clock(self, exchange_ns: int, received_ns: int) -> None:
        """A time that the exchange told unasked: where it contradicts the known difference, ask for its clock.

        The data may only be late: then the answer says so, and it is asked less and less often. Others in between
        that are in time do not change that: one symbol that is always late would use up what may be asked.
        """
        off_ns = exchange_ns - received_ns - self._house.clock.skew_ms * 1e6
        if -LATE_NS < off_ns < EARLY_NS:
            return
        now = self._seconds()
        if now < self._probe_at or self.link.lost:
            return
        calm = now - self._probe_at > PROBE_MAX_SECONDS
        self._probe_pause = PROBE_FIRST_SECONDS if calm else min(PROBE_MAX_SECONDS, self._probe_pause * 2.0)
        self._probe_at = now + self._probe_pause
        self.ask(self._dialect.clock)

    def ask(self, method: str) -> None:
        """Ask for nothing but an answer; it leaves with the next flush. Raises LinkLost."""
        self._dialect.paces.charge(method, trio.current_time())
        self._rpc.request(method, NO_PARAMS, Waiter(method, None), CALL_SECONDS)

    async def flush(self) -> None:
        """Write what is queued. A lost link ends this connection, not the caller: any task may flush.

        It may be another exchange's: where the peer takes no bytes now, a task of our own waits for it.
        """
        if self.link.would_block():
            self._clogged.set()
            return
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

    async def _unclog(self) -> None:
        """Write on once the peer takes bytes again; a link that takes none for long is lost."""
        while True:
            await self._clogged.wait()
            self._clogged = trio.Event()
            await self.link.flush()

    async def _watch(self) -> None:
        """Silence and overdue answers."""
        beat = self._dialect.beat
        while True:
            await trio.sleep(TICK_SECONDS)
            self._count_bytes()
            now = trio.current_time()
            if now - self._heard_at > beat.silent_seconds:
                raise LinkLost(f"silent for {beat.silent_seconds:g} s")
            if self.link.lost:
                raise LinkLost(self.link.lost)
            if text := beat.due(now):
                self.link.send(text)
                await self.flush()
            late = self._rpc.ledger.expire(now)
            for sent in late:
                self._give_up(sent, str(overdue(sent)))
            if any(sent.sent_at >= max(self._answered_at, self._missed_at) for sent in late):
                self._unanswered, self._missed_at = self._unanswered + 1, now
            if late:
                await self._house.sink.deliver()
            if self._unanswered >= self._duty.deaf_after:
                waited = now - self._answered_at
                raise LinkLost(f"nothing was answered for {waited:.0f} s, {self._unanswered} requests are overdue")

    async def _work(self) -> None:
        dialect = self._dialect
        if dialect.clock_seconds < float("inf"):
            await self.call(dialect.clock)
            self.nursery.start_soon(self._ask_clock)
        if dialect.login is not None:
            life_seconds = await self._log_in(dialect.login)
            self.nursery.start_soon(self._stay_logged_in, dialect.login, life_seconds)
        await dialect.beat.begin(self)
        await self._duty.work(self)

    async def _ask_clock(self) -> None:
        while True:
            await trio.sleep(self._dialect.clock_seconds)
            self.ask(self._dialect.clock)
            await self.flush()

    async def _log_in(self, login: Login) -> float:
        """Returns the seconds for which the login holds."""
        try:
            return await login.log_in(self)
        except LoginRefused:
            raise
        except ExchangeRefused as error:
            told = self._house.errors.meaning(error.code)
            if told.fault in (Fault.AUTH, Fault.CONFIG):
                hint = self._house.clock_hint() if login.signs_time else ""
                raise LoginRefused(error.code, f"{told.name}: {error.message}{hint}") from error
            raise

    async def _stay_logged_in(self, login: Login, life_seconds: float) -> None:
        while True:
            await trio.sleep(max(MIN_LOGIN_SECONDS, life_seconds * REAUTH_AT))
            life_seconds = await self._log_in(login)

    # --- in ---

    def _take(self, message: bytes, received_ns: int) -> None:
        try:
            head = decode_head(message)
        except ExchangeMalformed as error:
            if self._dialect.beat.took(message):
                self._note_answer()
            else:
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
        elif self._dialect.beat.heard(self, head):
            pass
        elif head.error is not None:
            self._note_throttling(head.error, f"{self._duty.name} link", received_ns)
            self._malformed("", f"the exchange could not read a request: {head.error.text}")
        else:
            self.malformed(f"neither an answer nor a known notification (method {head.method[:40]!r})")

    def _answer(self, head: Head, received_ns: int) -> None:
        sent = self._rpc.ledger.close(head.id)
        if sent is None:
            self.malformed(f"an answer to a request that was not made (id {head.id})")
            return
        self._note_answer()
        times = self._dialect.times(sent, head)
        if times is not None:
            self._house.clock.heard(sent.sent_at, self._heard_at, received_ns, *times)
        if head.error is not None:
            self._note_throttling(head.error, sent.method, received_ns)
        if isinstance(sent.context, Waiter):
            sent.context.answered(head)
            return
        self._house.sink.round_trip(self._heard_at - sent.sent_at)
        self._duty.answered(sent, head, received_ns)

    def _note_answer(self) -> None:
        """What we send arrives."""
        self._answered_at, self._unanswered = self._heard_at, 0

    def _note_throttling(self, error: RpcError, what: str, received_ns: int) -> None:
        if error.code in self._house.errors.throttled:
            self._throttled_at = self._heard_at
            if self._dialect.one_budget:
                self._house.budget.empty_until(received_ns)
            self._house.sink.report("exchange.rate_limited", f"{what}: {error.text}")

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
