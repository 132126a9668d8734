"""An exchange as the shell sees it: two links kept alive, data and trade, each read by one task."""

from collections.abc import Mapping, Sequence

import msgspec
import trio

from mmd.domain.actions import Request
from mmd.domain.errors import LinkLost
from mmd.domain.events import OpenOrder
from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection
from mmd.exchanges.api import Account, Dial, LinkStats, ProtectionStatus, Sink
from mmd.exchanges.connection import Connection, Dialect, House, LoginRefused
from mmd.exchanges.feed import Feed
from mmd.exchanges.reconnect import LongDuty, Reconnect
from mmd.exchanges.rows import PositionListing, Unread, told_apart
from mmd.exchanges.trading import Trading


class Server(msgspec.Struct, frozen=True):
    """`host` and `path` name the server in the WebSocket handshake; `dial` decides where the bytes go."""

    dial: Dial
    host: str
    path: str


class RpcExchange:
    """Implements Exchange, but for what each exchange says of itself: its capabilities and single questions."""

    def __init__(
        self, house: House, server: Server, feed: Feed, trading: Trading, *, data: Dialect, trade: Dialect
    ) -> None:
        """`data`, `trade`: how the exchange speaks on the two links."""
        self.name = house.name
        self.budget = house.budget
        self._house = house
        self._feed = feed
        self._trading = trading
        pairs: tuple[tuple[LongDuty, Dialect], ...] = ((feed, data), (trading, trade))
        self._links = [
            Reconnect(house, duty, dialect, server.dial, server.host, server.path, self._login_refused)
            for duty, dialect in pairs
        ]
        self._stats = {"data": feed.stats, "trade": trading.stats}
        self._refused_here = trio.Event()
        self._fatal: LoginRefused | None = None
        self._lenient = False  # a refused login is tried again
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
        up (or `endure`); later it is reported and tried again.
        """
        self._house.sink = sink
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            for link in self._links:
                nursery.start_soon(link.keep)
            nursery.start_soon(self._deliver_refusals)
            await self._feed.listed.wait()
            await self._trading.first_up.wait()
            self._lenient = True
            task_status.started()
        if self._fatal is not None:
            raise self._fatal

    def _login_refused(self, error: LoginRefused) -> None:
        if not self._lenient:
            self._fatal = error
            self._scope.cancel()

    async def _deliver_refusals(self) -> None:
        """`submit` is called from within `deliver`: what it had to refuse is delivered from here."""
        while True:
            await self._refused_here.wait()
            self._refused_here = trio.Event()
            await self._house.sink.deliver()

    # --- commands ---

    def endure(self) -> None:
        """Bear refused logins from now on, although the links were never up."""
        self._lenient = True

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
        """Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed."""
        return await self._trading.inquiry.open_orders(self._ready(self._trading))

    async def positions(self, symbols: Sequence[str]) -> dict[str, int]:
        """Raises as `open_orders`."""
        connection, questions = self._ready(self._trading), self._trading.questions
        by_account: dict[str, list[str]] = {}
        for symbol in symbols:
            if symbol in self._house.instruments:
                by_account.setdefault(questions.account(symbol), []).append(symbol)
        found: dict[str, int] = {}

        def take(listing: PositionListing) -> None:
            unread = told_apart(listing.unread)
            for symbol in by_account[account]:
                row = listing.rows.get(symbol)
                if symbol not in unread and not isinstance(row, Unread):
                    found[symbol] = 0 if row is None else row.position_lots

        for account in sorted(by_account):
            await questions.positions(connection, account, take)
        return found

    async def accounts(self) -> list[Account]:
        """Account summary, one row a currency; renews the message budget. Raises as `open_orders`."""
        return await self._trading.accounts(self._ready(self._trading))

    def _ready(self, duty: LongDuty) -> Connection:
        connection = duty.connection
        if connection is None or not connection.ready:
            raise LinkLost(f"the {duty.name} link of {self.name} is down")
        return connection
