"""Derive's market data: what is listed, in which state it is, its channels, and what the exchange declares of itself.

No channel tells of listings or states. So the listing is read again and again: every hour, after the options of the
day have expired, when an order was refused because its instrument is not live, and while one is not active. A state is
what the last listing, such a refusal after it, and the exchange's clock make of it.
Source: docs.derive.xyz; the published v3 specifications.
"""

from collections.abc import Iterable

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.domain.events import Ticker, TradePrinted
from mmd.domain.instruments import Instrument
from mmd.exchanges.channels import Subscriptions
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive import codec
from mmd.exchanges.derive.book import SnapshotBook
from mmd.exchanges.derive.dialect import PUBLIC
from mmd.exchanges.derive.instruments import Listed, Page, decode_instruments
from mmd.exchanges.derive.messages import Incidents, ListingParams
from mmd.exchanges.derive.pages import KINDS, read_listing
from mmd.exchanges.derive.room import Room
from mmd.exchanges.feed import OPEN, Channels, Feed
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import Refused

MS, NS = 1_000_000, 1_000_000_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SETTLED_MS = 8 * HOUR_MS + 30_000  # of a day: its options have expired, and new ones are listed
SOON_MS = 30_000  # while something that expired a moment ago is still listed
SETTLES_MS = 600_000  # so long is a moment
SPACING_MS = 60_000  # between two listings, whoever wants them
CLOSED_MS = 300_000  # the same while something watched is not active, and may be again
INCIDENT_SECONDS = 60.0
TURN_SECONDS = 5.0
NOT_LISTED, NOT_STARTED, INACTIVE, DEACTIVATED = "not_listed", "not_started", "inactive", "deactivated"
NOT_LIVE, SETTLING, EXPIRED = "not_live", "settling", "expired"
_FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)

_decode_incidents: Decoder[Incidents] = Decoder(Incidents)


def state_of(listed: Listed | None, expiry_ns: int | None, now_ns: int) -> str:
    """The word for an instrument's state at a time of the exchange's clock; `listed` as the last listing had it."""
    if expiry_ns is not None and now_ns >= expiry_ns:
        return EXPIRED if listed is None or listed.settled else SETTLING
    if listed is None:
        return NOT_LISTED
    if now_ns < listed.opens_sec * NS:
        return NOT_STARTED
    if now_ns >= listed.closes_sec * NS:
        return DEACTIVATED
    return OPEN if listed.instrument.tradable else INACTIVE


def next_listing_ms(now_ms: int) -> int:
    """When to list again: in an hour, or at 08:00:30 UTC if that is sooner."""
    today = now_ms - now_ms % DAY_MS + SETTLED_MS
    return min(now_ms + HOUR_MS, today if now_ms < today else today + DAY_MS)


class DeriveMarket:
    """Implements Market. Fills `room.indexes`, and `room.listed`: a watched symbol keeps its machine's units there."""

    calls: Subscriptions = PUBLIC
    periodic = True
    opened = frozenset({OPEN})
    ended = frozenset({EXPIRED})
    settling = frozenset({SETTLING})

    def __init__(self, room: Room) -> None:
        self._room = room
        self._fresh: dict[str, Listed] = {}  # as the exchange listed it last
        self._looked_ms = self._due_ms = 0
        self._not_live: set[str] = set()  # an order was refused for that since the last listing
        self._refused = trio.Event()
        self._incidents: dict[tuple[str, str], None] = {}  # that were told
        self._incidents_at = float("-inf")
        self._incidents_failed = False
        room.house.on_not_live = self._take_refusal

    # --- what is listed ---

    async def list_instruments(self, connection: Connection) -> tuple[dict[str, Instrument], list[Refused]]:
        room, house = self._room, self._room.house
        judged = frozenset(self._not_live)  # what is refused from now on is newer than this listing

        async def ask(params: ListingParams) -> Page:
            return decode_instruments(await connection.call("public/get_all_instruments", params), house.name)

        fresh: dict[str, Listed] = {}
        refused: list[Refused] = []
        for kind in KINDS:
            listed, bad = await read_listing(ask, kind)
            fresh |= listed
            refused += bad
        self._fresh = fresh
        self._not_live -= judged
        room.listed = fresh | {symbol: room.listed[symbol] for symbol in self._kept(house.watched)}
        self._looked_ms = house.clock.now_ms()
        self._due_ms = next_listing_ms(self._looked_ms)
        return {symbol: one.instrument for symbol, one in fresh.items()}, refused

    def _kept(self, watched: Iterable[str]) -> list[str]:
        """Watched, and gone from the listing or in other units there: the machine counts in the old ones."""
        listed = self._room.listed
        return [symbol for symbol in watched if symbol in listed and not self._is_fresh(listed[symbol].instrument)]

    def _is_fresh(self, instrument: Instrument) -> bool:
        """It is listed, with these units."""
        fresh = self._fresh.get(instrument.symbol)
        return fresh is not None and _units(fresh.instrument) == _units(instrument)

    def _take_refusal(self, symbol: str) -> None:
        """An order was refused: its instrument is not live. That holds until a listing says something else."""
        self._not_live.add(symbol)
        self._refused.set()

    def _want_listing(self, spacing_ms: int) -> None:
        """So long after the last one, or the last try, if none is due before."""
        self._due_ms = min(self._due_ms, self._looked_ms + spacing_ms)

    async def _list_again(self, feed: Feed, connection: Connection) -> None:
        house = self._room.house
        try:
            await feed.relist(connection)
        except _FAILURES as error:
            self._looked_ms = house.clock.now_ms()
            self._due_ms = self._looked_ms + SPACING_MS
            house.sink.report("instruments.unknown", f"{house.name}: the listing stays as it was: {error}")
            return
        await self._tell_states(feed)
        since_ns = (self._looked_ms - SETTLES_MS) * MS
        if any(f.own == SETTLING and (f.instrument.expiry_ns or 0) > since_ns for f in feed.follows.values()):
            self._due_ms = min(self._due_ms, self._looked_ms + SOON_MS)
            house.on_settlement()

    # --- states ---

    async def turn(self, feed: Feed, connection: Connection) -> None:
        await self._tell_states(feed)

    async def _tell_states(self, feed: Feed) -> None:
        house = self._room.house
        now_ns, received_ns = house.clock.now_ms() * MS, house.wall_clock_ns()
        if self._not_live:
            self._want_listing(SPACING_MS)
        for symbol, follow in feed.follows.items():
            state = state_of(self._fresh.get(symbol), follow.instrument.expiry_ns, now_ns)
            if state == OPEN and symbol in self._not_live:
                state = NOT_LIVE
            if state == INACTIVE:
                self._want_listing(CLOSED_MS)
            if state == follow.own:
                feed.tell_state(follow, received_ns)  # what stands above it may be another one
                continue
            feed.take_state(follow, state, received_ns)
            feed.mark_listed(symbol, state)
            if state == SETTLING:
                self._due_ms = min(self._due_ms, house.clock.now_ms() + SOON_MS)
                house.on_settlement()
        await house.sink.deliver()

    def blocked(self, instrument: Instrument) -> str:
        """An incident is told to people; none is said to stop trading in what it does not name."""
        return ""

    def forget(self) -> None:
        """States are of the listing, which the next connection reads first."""

    # --- what is polled ---

    async def begin(self, feed: Feed, connection: Connection) -> None:
        connection.nursery.start_soon(self._poll, feed, connection)

    async def _poll(self, feed: Feed, connection: Connection) -> None:
        while True:
            with trio.move_on_after(TURN_SECONDS):
                await self._refused.wait()
            if self._refused.is_set():
                self._refused = trio.Event()
                await self._tell_states(feed)
            if self._room.house.clock.now_ms() >= self._due_ms:
                await self._list_again(feed, connection)
            if trio.current_time() >= self._incidents_at:
                self._incidents_at = trio.current_time() + INCIDENT_SECONDS
                await self._look_for_incidents(connection)

    async def _look_for_incidents(self, connection: Connection) -> None:
        report = self._room.house.sink.report
        try:
            found = _decode_incidents(await connection.call("public/get_live_incidents"))
        except _FAILURES as error:
            if not self._incidents_failed:
                report("exchange.incidents_unknown", str(error))
            self._incidents_failed = True
            return
        self._incidents_failed = False
        live = {(one.label, one.message): one.severity for one in found.incidents}
        for (label, message), severity in live.items():
            if (label, message) not in self._incidents:
                report("exchange.incident", f"{severity}: {label}: {message}")
        for label, message in self._incidents.keys() - live.keys():
            report("exchange.incident_over", f"{label}: {message}")
        self._incidents = dict.fromkeys(live)

    # --- channels ---

    def open_book(self, instrument: Instrument) -> SnapshotBook:
        """A symbol that is followed anew has the units that are listed now, unless its machine has others."""
        if self._is_fresh(instrument):
            self._room.listed[instrument.symbol] = self._fresh[instrument.symbol]
        return SnapshotBook(instrument, self._room.house.clock.now_ms)

    def channels_of(self, symbol: str) -> Channels:
        return Channels(codec.book_channel(symbol), codec.ticker_channel(symbol), codec.trades_channel(symbol))

    def read_ticker(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> tuple[Ticker, str]:
        ticker = codec.read_ticker(data, received_ns)
        self._room.indexes[instrument.symbol] = ticker.index
        return ticker, ""

    def read_trades(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[TradePrinted]:
        return codec.read_trades(data, instrument, received_ns)

    def told(self, feed: Feed, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        """Nothing but the last words of a symbol that nobody watches any more."""


def _units(instrument: Instrument) -> tuple[object, object]:
    return instrument.grid.tick, instrument.lot
