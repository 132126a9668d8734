"""Deribit as the shell sees it: two links kept alive, each read by one task."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from time import time_ns

import trio

from mmd.core.budget import Budget
from mmd.domain.actions import Request
from mmd.domain.errors import ExchangeRefused, LinkLost
from mmd.domain.events import CashMoved, OpenOrder
from mmd.domain.ids import LABEL_MAX
from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection
from mmd.exchanges.api import Account, Capabilities, Dial, LinkStats, ProtectionStatus, Sink
from mmd.exchanges.connection import Connection, House, LoginRefused
from mmd.exchanges.deribit import codec, expired
from mmd.exchanges.deribit.cash import CashLog
from mmd.exchanges.deribit.dialect import PRIVATE, Credentials, credits, make_dialect
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.market import DeribitMarket
from mmd.exchanges.deribit.messages import InstrumentParams
from mmd.exchanges.deribit.protection import DeribitProtection
from mmd.exchanges.deribit.questions import DeribitQuestions
from mmd.exchanges.deribit.trading import (
    MOST_CANCELS,
    RESERVE_SHARE,
    TIER_BURST,
    TIER_RATE,
    DeribitAccount,
    DeribitOrders,
)
from mmd.exchanges.feed import Feed
from mmd.exchanges.known import Known
from mmd.exchanges.reconnect import LongDuty, Reconnect
from mmd.exchanges.trading import TradeCalls, Trading

PATH = "/ws/api/v2"
DATA_SCOPE = "connection account:read trade:read wallet:none"
TRADE_SCOPE = "connection account:read_write trade:read_write wallet:none"
DATA_HEARTBEAT_SECONDS, TRADE_HEARTBEAT_SECONDS = 30, 10


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
        self._house = House(
            name=name,
            service=service,
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=started_ns,
            budget=self.budget,
            order_valid_ms=order_valid_ms,
        )
        self._feed = Feed(self._house, DeribitMarket(self._house))
        known = Known()
        self._account = DeribitAccount(self.budget)
        self._cash = CashLog(self._house, known)
        calls = TradeCalls(
            channels=PRIVATE,
            orders=DeribitOrders(self._house),
            questions=DeribitQuestions(self._house),
            protection=DeribitProtection(self._house.clock),
            account=self._account,
            cash=self._cash,
            most_cancels=MOST_CANCELS,
        )
        self._trading = Trading(self._house, known, calls)
        self._credentials = Credentials(client_id, client_secret, grant)
        paces = credits()
        links = (
            (self._feed, DATA_SCOPE, DATA_HEARTBEAT_SECONDS),
            (self._trading, TRADE_SCOPE, TRADE_HEARTBEAT_SECONDS),
        )
        self._links = [
            Reconnect(
                self._house,
                duty,
                make_dialect(
                    self._house, self._credentials, paces, link=duty.name, scope=scope, heartbeat_seconds=seconds
                ),
                dial,
                host,
                path,
                self._login_refused,
            )
            for duty, scope, seconds in links
        ]
        self._stats = {"data": self._feed.stats, "trade": self._trading.stats}
        self._refused_here = trio.Event()
        self._fatal: LoginRefused | None = None
        self._started = False
        self._scope: trio.CancelScope

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
        return self._house.clock.skew_ms

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
            self._scope = nursery.cancel_scope
            for link in self._links:
                nursery.start_soon(link.keep)
            nursery.start_soon(self._deliver_refusals)
            await self._feed.listed.wait()
            await self._trading.first_up.wait()
            self._started = True
            task_status.started()
        if self._fatal is not None:
            raise self._fatal

    def _login_refused(self, error: LoginRefused) -> None:
        if not self._started:
            self._fatal = error
            self._scope.cancel()

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
        self._trading.record.answer_for(services)

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
        return await self._account.accounts(self._ready(self._trading))

    async def expired_ns(self, symbol: str) -> int | None:
        """Raises LinkLost, ExchangeAmbiguous, ExchangeMalformed."""
        now_ns = self._house.clock.now_ms() * expired.NS_PER_MS
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
        return await self._cash.deliveries(self._ready(self._trading), instrument)

    async def index_price(self, index: str) -> float:
        """The index in USD or the quote currency."""
        raw = await self._ready(self._feed).call("public/get_index_price", {"index_name": index})
        return codec.read_index(raw)

    def _ready(self, duty: LongDuty) -> Connection:
        connection = duty.connection
        if connection is None or not connection.ready:
            raise LinkLost(f"the {duty.name} link of {self.name} is down")
        return connection
