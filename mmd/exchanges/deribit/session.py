"""Deribit as the shell sees it: two links kept alive, each read by one task."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from time import time_ns

import trio

from mmd.core.budget import Budget
from mmd.domain.actions import Request
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import CashMoved, OpenOrder
from mmd.domain.ids import LABEL_MAX
from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection
from mmd.exchanges.api import Account, Capabilities, Dial, LinkStats, ProtectionStatus, Sink
from mmd.exchanges.deribit import codec, expired
from mmd.exchanges.deribit.connection import Connection, Credentials, House, LoginRefused
from mmd.exchanges.deribit.feed import Feed
from mmd.exchanges.deribit.messages import InstrumentParams
from mmd.exchanges.deribit.trading import RESERVE_SHARE, Trading
from mmd.exchanges.link import open_link

PATH = "/ws/api/v2"
CONNECT_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 10.0
THROTTLED_SECONDS = 10.0  # after too_many_requests
STEADY_SECONDS = 10.0  # a connection that lasted this long was a good one

# The lowest tier, until the account says what it has.
TIER_RATE, TIER_BURST = 5.0, 20.0


class Deribit:
    """Implements Exchange. One instance, one account."""

    capabilities = Capabilities(
        atomic_amend=True,
        mass_quote=False,
        cancel_on_disconnect=True,
        maker_protection=True,
        rfq=False,
        client_labels=True,
        label_max=LABEL_MAX,
    )

    def __init__(
        self,
        *,
        name: str,
        service: str,
        dial: Dial,
        host: str,
        path: str = PATH,
        client_id: str,
        client_secret: str,
        rng: Random,
        started_ns: int,
        grant: str = "client_signature",
        wall_clock_ns: Callable[[], int] = time_ns,
        order_valid_ms: int | None = None,
    ) -> None:
        """`host` and `path` name the server in the WebSocket handshake; `dial` decides where the bytes go.

        `order_valid_ms`: places and amends that reach the matching engine later than that are refused there.
        ValueError for an unknown grant.
        """
        self.name = name
        self.budget = Budget(TIER_RATE, TIER_BURST, TIER_BURST * RESERVE_SHARE)
        self._dial = dial
        self._host = host
        self._path = path
        self._house = House(
            name=name,
            service=service,
            credentials=Credentials(client_id, client_secret, grant),
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=started_ns,
            budget=self.budget,
            order_valid_ms=order_valid_ms,
        )
        self._feed = Feed(self._house)
        self._trading = Trading(self._house)
        self._stats = {"data": self._feed.stats, "trade": self._trading.stats}
        self._refused_here = trio.Event()
        self._fatal: LoginRefused | None = None
        self._started = False

    # --- what is known ---

    @property
    def stats(self) -> dict[str, LinkStats]:
        return self._stats

    @property
    def instruments(self) -> dict[str, Instrument]:
        return self._house.instruments

    @property
    def clock_skew_ms(self) -> float:
        """The exchange's clock minus ours, renewed by every answer (at the latest at each heartbeat).

        Always a finite number; 0.0 before the first answer, so known whenever a link is up.
        """
        return self._house.skew.skew_ms

    @property
    def event_lag_seconds(self) -> float | None:
        """None: there is no event bus."""
        return None

    @property
    def protections(self) -> list[ProtectionStatus]:
        """What was last read back of the maker protection, one for each underlying."""
        return self._trading.protections.statuses()

    @property
    def subscriptions(self) -> int:
        """Market-data channels subscribed now."""
        return self._feed.subscriptions

    # --- run ---

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep both links alive until cancelled.

        LoginRefused if the exchange refuses the credentials before the first time both links were
        up; later it is reported and tried again.
        """
        self._house.sink = sink
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, self._feed, nursery.cancel_scope)
            nursery.start_soon(self._keep, self._trading, nursery.cancel_scope)
            nursery.start_soon(self._deliver_refusals)
            await self._feed.listed.wait()
            await self._trading.first_up.wait()
            self._started = True
            task_status.started()
        if self._fatal is not None:
            raise self._fatal

    async def _keep(self, duty: Feed | Trading, run_scope: trio.CancelScope) -> None:
        """Connect, serve, wait, again."""
        failures = 0
        while True:
            began = trio.current_time()
            why, wait_seconds = await self._connect_and_serve(duty)
            steady = trio.current_time() - began >= STEADY_SECONDS and duty.stats.up
            failures = 0 if steady else failures + 1
            duty.down(why)
            if self._fatal is not None:
                run_scope.cancel()
            delay = max(wait_seconds, self._backoff(failures))
            self._house.sink.report("link.lost", f"{self.name} {duty.name}: {why}; again in {delay:.1f} s")
            await self._house.sink.deliver()
            await trio.sleep(delay)

    async def _connect_and_serve(self, duty: Feed | Trading) -> tuple[str, float]:
        """One connection from dial to end. Returns why it ended and the least time to wait."""
        why, wait_seconds = "", 0.0
        connection: Connection | None = None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                stream, link = await open_link(self._dial, self._host, self._path)
        except LinkLost as error:
            return str(error), 0.0
        except trio.TooSlowError:
            return f"no connection within {CONNECT_SECONDS:g} s", 0.0
        try:
            connection = Connection(link, self._house, duty)
            await connection.run()
        except* LoginRefused as group:
            why, wait_seconds = self._login_refused(duty, _leaf(group)), BACKOFF_MAX_SECONDS
        except* (LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as group:
            why = why or str(_leaf(group))
        finally:
            await trio.aclose_forcefully(stream)
        if connection is not None and connection.throttled:
            wait_seconds = max(wait_seconds, THROTTLED_SECONDS)
        return why, wait_seconds

    def _login_refused(self, duty: Feed | Trading, error: BaseException) -> str:
        assert isinstance(error, LoginRefused)
        self._house.sink.report("login.refused", f"{self.name} {duty.name}: {error}")
        if not self._started:
            self._fatal = error
        return f"login refused: {error}"

    def _backoff(self, failures: int) -> float:
        longest = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 10))
        return max(BACKOFF_FIRST_SECONDS, longest * self._house.rng.uniform(0.5, 1.0))

    async def _deliver_refusals(self) -> None:
        """`submit` is called from within `deliver`: what it had to refuse is delivered from here."""
        while True:
            await self._refused_here.wait()
            self._refused_here = trio.Event()
            await self._house.sink.deliver()

    # --- commands ---

    def watch(self, symbols: Sequence[str]) -> None:
        """The symbols to follow from now on. Names that are not listed are reported and left out."""
        house = self._house
        house.watching = True
        house.watched = tuple(dict.fromkeys(symbols))
        unknown = [symbol for symbol in house.watched if symbol not in house.instruments]
        if unknown and self._feed.listed.is_set():
            house.sink.report("watch.not_listed", f"{self.name}: {', '.join(unknown)}")
        self._feed.rewatch()
        self._trading.rewatch()

    def known_until(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int] | None = None) -> None:
        """Before `watch`: these symbols go on where an earlier process ended, whose fills are known until then.

        Exchange's clock, Unix ms. Later fills (and, since they may be listed late, those of the minute before)
        are posted before the first report; so is cash that the earlier process may have missed. `from_ms`:
        where that process's own count began, as far as known: nothing from before it is told.
        ValueError for a time that is not positive.
        """
        self._trading.inquiry.recover(known_ms, from_ms or {})

    def also_ours(self, services: Sequence[str]) -> None:
        """Former names of the service: orders that carry one of them are ours, from the next answer on."""
        self._trading.answer_for(services)

    def reconcile_every(self, seconds: float) -> None:
        """How often orders and positions of every watched symbol are reported, news or not. ValueError unless > 0."""
        self._trading.audit.every(seconds)

    def protect(self, wanted: Sequence[Protection]) -> None:
        """The maker protection to hold from now on: set and read back as soon as a symbol of it is watched."""
        self._trading.protections.protect(wanted)

    async def reset_protection(self, underlying: str) -> None:
        """End a freeze now. Raises LinkLost, ExchangeRefused, ExchangeAmbiguous."""
        await self._trading.protections.reset(self._ready(self._trading), underlying)

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        """Queue (symbol, request) pairs on the trade link, in order; refusals come back as events."""
        if self._trading.submit(requests):
            self._refused_here.set()

    @property
    def dirty(self) -> bool:
        """Encoded bytes wait for `flush`."""
        connection = self._trading.connection
        return connection is not None and connection.link.dirty

    async def flush(self) -> None:
        """Write everything encoded so far in one send. Two may flush at once."""
        connection = self._trading.connection
        if connection is not None:
            await connection.flush()

    async def open_orders(self) -> dict[str, list[OpenOrder]]:
        """Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed; so do the next two."""
        return await self._trading.inquiry.open_orders(self._ready(self._trading))

    async def accounts(self) -> list[Account]:
        """Account summary, one row a currency; renews the message budget."""
        return await self._trading.accounts(self._ready(self._trading))

    async def expired_ns(self, symbol: str) -> int | None:
        """Raises LinkLost, ExchangeAmbiguous, ExchangeMalformed."""
        now_ns = self._house.exchange_ms() * expired.NS_PER_MS
        named_ns = expired.expiry_ns(symbol)
        if named_ns is not None and named_ns <= now_ns:
            return named_ns
        connection = self._ready(self._feed)
        try:
            raw = await connection.call("public/get_instrument", InstrumentParams(symbol))
        except ExchangeRefused:
            return None  # there was never one of this name
        return expired.read_end(raw, now_ns)

    async def deliveries(self, instrument: Instrument) -> list[CashMoved]:
        """Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed."""
        return await self._trading.cash.deliveries(self._ready(self._trading), instrument)

    async def index_price(self, index: str) -> float:
        """The index in USD or the quote currency."""
        raw = await self._ready(self._feed).call("public/get_index_price", {"index_name": index})
        return codec.read_index(raw)

    def _ready(self, duty: Feed | Trading) -> Connection:
        connection = duty.connection
        if connection is None or not connection.ready:
            raise LinkLost(f"the {duty.name} link of {self.name} is down")
        return connection


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
