"""The data link's duty: instruments, subscriptions, books kept whole, tickers, trades, states.

A gap in one book is mended by subscribing that book again; the link stays up. Resyncs are spaced
per instrument (growing) and over all (three a second), or a storm of gaps would end in a ban.
"""

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.domain.events import BookTop, DataLinkDown, DataLinkUp
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Why
from mmd.exchanges.api import LinkStats
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.book import L2Book
from mmd.exchanges.deribit.errors import RAW_NEEDS_AUTH
from mmd.exchanges.deribit.instruments import Refused, decode_instrument, decode_instruments
from mmd.exchanges.jsonrpc import Head, Sent

RESYNC_SPACING_SECONDS = 1.0 / 3.0
RESYNC_FIRST_SECONDS = 0.5
RESYNC_MAX_SECONDS = 30.0
RESYNC_FORGIVEN_SECONDS = 60.0
SNAPSHOT_SECONDS = 5.0
TIDY_MS = 3_600_000  # an expired instrument is kept so long, and looked for as often
MS = 1_000_000
MAINTENANCE_SECONDS = 60.0  # its end is not always told: after so long a new connection finds out


class Follow:
    """One watched symbol on the current connection."""

    __slots__ = ("book", "due_at", "instrument", "interval", "own", "resynced_at", "snapshot_by", "state", "tries")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.book = L2Book(instrument)
        self.interval = codec.BOOK_INTERVALS[0]
        self.own = ""  # the state that the exchange gives the instrument itself; "" = not told
        self.state = ""  # what its symbol heard last
        self.tries = 0
        self.resynced_at = float("-inf")
        self.due_at: float | None = None  # a resync is wanted then
        self.snapshot_by: float | None = None  # without a snapshot by then, ask again

    @property
    def channel(self) -> str:
        return codec.book_channel(self.instrument.symbol, self.interval)

    def channels(self) -> list[str]:
        symbol = self.instrument.symbol
        return [self.channel, codec.ticker_channel(symbol), codec.trades_channel(symbol)]

    def want_resync(self, now: float, jitter: float) -> None:
        """Plan the next resync: at once the first time, later and later when it keeps breaking."""
        if self.due_at is not None:
            return
        if now - self.resynced_at > RESYNC_FORGIVEN_SECONDS:
            self.tries = 0
        delay = min(RESYNC_MAX_SECONDS, RESYNC_FIRST_SECONDS * 2.0 ** (self.tries - 1)) if self.tries else 0.0
        self.tries += 1
        self.due_at = now + delay * jitter


class Feed:
    """Implements Duty for market data."""

    name = "data"

    def __init__(self, house: House) -> None:
        self.stats = LinkStats()
        self.connection: Connection | None = None
        self.listed = trio.Event()
        self._house = house
        self._follows: dict[str, Follow] = {}
        self._left: list[Follow] = []  # still subscribed, and nobody's any more
        self._books: dict[str, Follow] = {}  # by channel, and so are the next two
        self._tickers: dict[str, Follow] = {}
        self._trades: dict[str, Follow] = {}
        self._locked: set[str] = set()  # price indices
        self._maintenance = False
        self._maintenance_at = 0.0  # when it was announced
        self._wake = trio.Event()
        self._next_resync_at = 0.0
        self._tidy_ms = 0  # when to drop instruments that have expired
        self._served: dict[str, None] = {}  # symbols that were watched once
        self._relisted: dict[str, Instrument] = {}  # watched, and listed now with units that its symbol does not know

    @property
    def subscriptions(self) -> int:
        """Channels subscribed now for watched symbols."""
        return len(self._books) + len(self._tickers) + len(self._trades)

    def rewatch(self) -> None:
        """The watched symbols changed. Who left and is back before anybody looked begins anew."""
        self._served.update(dict.fromkeys(self._house.watched))
        self._drop_expired()
        for symbol in [symbol for symbol in self._relisted if symbol not in self._house.watched]:
            self._house.instruments[symbol] = self._relisted.pop(symbol)
        for symbol in [symbol for symbol in self._follows if symbol not in self._house.watched]:
            follow = self._follows.pop(symbol)
            self._unroute(follow)
            self._left.append(follow)
        self._wake.set()

    # --- Duty ---

    async def work(self, connection: Connection) -> None:
        self._forget()
        self.connection = connection
        await self._list_instruments(connection)
        await self._subscribe_states(connection)
        connection.set_up()
        self.stats.up = True
        self.stats.connects += 1
        self._house.sink.report("link.up", f"{self._house.name} data")
        self.listed.set()
        while True:
            self._wake = trio.Event()
            await self._follow_watched(connection)
            self._look_for_missing_snapshots()
            if self._maintenance and trio.current_time() - self._maintenance_at >= MAINTENANCE_SECONDS:
                connection.drop(f"maintenance was announced {MAINTENANCE_SECONDS:g} s ago, and no end of it")
            await self._resync_when_due(connection)

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        follow = self._books.get(channel)
        if follow is not None:
            event = follow.book.apply(codec.decode_book(data), received_ns)
            if event is not None:
                self._house.sink.post(follow.instrument.symbol, event)
                if not isinstance(event, BookTop):
                    self._plan_resync(follow, str(event.why), event.detail)
            if follow.snapshot_by is not None and follow.book.live:
                follow.snapshot_by = None
        elif (follow := self._tickers.get(channel)) is not None:
            ticker, state = codec.read_ticker(data, received_ns)
            if self.connection is not None:
                self.connection.check_clock(ticker.exchange_ns, received_ns)
            self._house.sink.post(follow.instrument.symbol, ticker)
            if state and state != follow.own:
                self._take_state(follow, state, received_ns)
        elif (follow := self._trades.get(channel)) is not None:
            for trade in codec.read_trades(data, follow.instrument, received_ns):
                self._house.sink.post(follow.instrument.symbol, trade)
        else:
            self._notified_other(channel, data, received_ns)

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        """Every request here is awaited."""

    def lost(self, sent: Sent, why: str) -> None:
        """Every request here is awaited."""

    def garbled(self, channel: str) -> None:
        """A book message that cannot be read breaks that book; anything else heals itself."""
        follow = self._books.get(channel)
        if follow is not None:
            detail = "a message of the book could not be read"
            event = follow.book.broken(Why.BOOK_MALFORMED, detail, self.stats.last_received_ns)
            self._house.sink.post(follow.instrument.symbol, event)
            self._plan_resync(follow, str(Why.BOOK_MALFORMED), detail)

    def down(self, why: str) -> None:
        """The connection is gone."""
        was_up, self.stats.up = self.stats.up, False
        self.connection = None
        self._forget()
        if was_up:
            self._house.sink.post_all(DataLinkDown(why, self._house.wall_clock_ns()))

    # --- what is listed ---

    async def _list_instruments(self, connection: Connection) -> None:
        house = self._house
        raw = await connection.call("public/get_instruments", {"currency": "any", "expired": False})
        listed, refused = decode_instruments(raw, house.name)
        house.instruments = {**listed, **self._keep(listed)}
        if refused:
            shown = "; ".join(f"{entry.symbol}: {entry.reason}" for entry in refused[:5])
            house.sink.report("instruments.refused", f"{len(refused)} of {len(listed) + len(refused)}: {shown}")

    def _keep(self, listed: dict[str, Instrument]) -> dict[str, Instrument]:
        """What of the instruments known before stays as it is.

        One that was watched and is no longer listed: answers about it may come yet. One that is watched and
        listed with other units: its machine counts in the old ones until it ends, and must not quote with them.
        """
        known, watched = self._house.instruments, self._house.watched
        kept: dict[str, Instrument] = {}
        self._relisted.clear()
        self._served = {symbol: None for symbol in self._served if symbol in known}
        for symbol in self._served:
            before, now = known[symbol], listed.get(symbol)
            if now is None:
                kept[symbol] = before if symbol in watched else msgspec.structs.replace(before, tradable=False)
            elif symbol in watched and (changes := _other_units(before, now)):
                kept[symbol] = before
                self._relisted[symbol] = now
                text = f"{symbol}: {changes}; not quoted before it is taken out and put in again, or the next start"
                self._house.sink.report("instrument.relisted", text)
        return kept

    async def _subscribe_states(self, connection: Connection) -> None:
        asked = [codec.PLATFORM_STATE, codec.INSTRUMENT_STATE, codec.INSTRUMENT_CREATION]
        missing = await self._subscribe(connection, asked)
        needed = [channel for channel in missing if channel != codec.INSTRUMENT_CREATION]
        if needed:
            self._house.sink.report("subscription.refused", ", ".join(needed))
        try:
            status = codec.decode_status(await connection.call("public/status"))
        except (ExchangeRefused, ExchangeMalformed, ExchangeAmbiguous):
            return  # tickers tell the state as well
        self._locked = set(status.locked_indices)

    # --- subscriptions ---

    async def _follow_watched(self, connection: Connection) -> None:
        """Bring the subscriptions in line with what is watched."""
        house = self._house
        gone, self._left = self._left, []
        for chunk in codec.chunk_channels(channel for follow in gone for channel in follow.channels()):
            await connection.call("public/unsubscribe", codec.channels(chunk))
        wanted = [symbol for symbol in house.watched if symbol in house.instruments]
        new = [Follow(house.instruments[symbol]) for symbol in wanted if symbol not in self._follows]
        if not new:
            return
        received_ns = house.wall_clock_ns()
        for follow in new:
            self._follows[follow.instrument.symbol] = follow
            self._route(follow)
            # Before the first snapshot can come: what follows is of this connection.
            house.sink.post(follow.instrument.symbol, DataLinkUp(received_ns))
            self._tell_state(follow, received_ns)
        await self._subscribe_follows(connection, new)

    async def _subscribe_follows(self, connection: Connection, follows: list[Follow]) -> None:
        missing = await self._subscribe(connection, [channel for follow in follows for channel in follow.channels()])
        slower = [follow for follow in follows if follow.channel in missing and self._is_followed(follow)]
        refused = [channel for channel in missing if not channel.startswith("book.")]
        for follow in slower:
            self._unroute(follow)
            follow.interval = codec.BOOK_INTERVALS[1]
            self._route(follow)
        if slower:
            refused += await self._subscribe(connection, [follow.channel for follow in slower])
        if refused:
            self._house.sink.report("subscription.refused", ", ".join(refused[:10]))
        for follow in follows:
            if not follow.book.live:
                follow.snapshot_by = trio.current_time() + SNAPSHOT_SECONDS

    async def _subscribe(self, connection: Connection, channels: list[str]) -> list[str]:
        """Subscribe in chunks; returns what the exchange left out."""
        missing: list[str] = []
        for chunk in codec.chunk_channels(channels):
            try:
                raw = await connection.call("public/subscribe", codec.channels(chunk))
            except ExchangeRefused as error:
                if error.code != RAW_NEEDS_AUTH or not any(channel.endswith(".raw") for channel in chunk):
                    raise
                others = [channel for channel in chunk if not channel.endswith(".raw")]
                missing += [channel for channel in chunk if channel.endswith(".raw")]
                missing += await self._subscribe(connection, others)
                continue
            missing += codec.missing_channels(chunk, raw)
        return missing

    def _is_followed(self, follow: Follow) -> bool:
        """It has not left meanwhile."""
        return self._follows.get(follow.instrument.symbol) is follow

    def _route(self, follow: Follow) -> None:
        book, ticker, trades = follow.channels()
        self._books[book] = self._tickers[ticker] = self._trades[trades] = follow

    def _unroute(self, follow: Follow) -> None:
        book, ticker, trades = follow.channels()
        for routes, channel in ((self._books, book), (self._tickers, ticker), (self._trades, trades)):
            routes.pop(channel, None)

    def _forget(self) -> None:
        for routes in (self._books, self._tickers, self._trades, self._follows):
            routes.clear()
        self._left.clear()
        self._locked.clear()
        self._maintenance = False

    # --- books that broke ---

    def _plan_resync(self, follow: Follow, why: str, detail: str) -> None:
        follow.want_resync(trio.current_time(), self._house.rng.uniform(0.8, 1.2))
        self._house.sink.report("book.broken", f"{follow.instrument.symbol}: {why}: {detail}")
        self._wake.set()

    def _most_due(self) -> Follow | None:
        due = [follow for follow in self._follows.values() if follow.due_at is not None]
        return min(due, key=lambda follow: follow.due_at or 0.0, default=None)

    async def _resync_when_due(self, connection: Connection) -> None:
        """Wait for the next resync that is due and do it; return before that where there is something to look at."""
        follow = self._most_due()
        due_at = float("inf") if follow is None or follow.due_at is None else max(follow.due_at, self._next_resync_at)
        with trio.move_on_at(min(due_at, trio.current_time() + SNAPSHOT_SECONDS)):
            await self._wake.wait()
        if follow is None or trio.current_time() < due_at:
            return
        await trio.lowlevel.checkpoint()
        follow.due_at = None
        follow.resynced_at = trio.current_time()
        self._next_resync_at = follow.resynced_at + RESYNC_SPACING_SECONDS
        self.stats.resyncs += 1
        follow.book.clear()
        channels = codec.channels([follow.channel])
        try:
            # Only after the acknowledgement is every later message of the new subscription.
            await connection.call("public/unsubscribe", channels)
            await self._subscribe_follows_again(connection, follow)
        except (ExchangeAmbiguous, ExchangeRefused) as error:
            self._plan_resync(follow, "resync", str(error))

    async def _subscribe_follows_again(self, connection: Connection, follow: Follow) -> None:
        missing = await self._subscribe(connection, [follow.channel])
        if missing:
            self._plan_resync(follow, "resync", f"{follow.channel} was refused")
        elif not follow.book.live:
            follow.snapshot_by = trio.current_time() + SNAPSHOT_SECONDS

    def _look_for_missing_snapshots(self) -> None:
        """A subscription is healthy when data comes, not when it was acknowledged."""
        now = trio.current_time()
        for follow in self._follows.values():
            if follow.snapshot_by is not None and follow.snapshot_by <= now:
                follow.snapshot_by = None
                if not follow.book.live:
                    self._plan_resync(follow, "resync", f"no snapshot within {SNAPSHOT_SECONDS:g} s")

    # --- states ---

    def _notified_other(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        if channel == codec.PLATFORM_STATE:
            self._platform(data, received_ns)
        elif channel.startswith("instrument.state."):
            state = codec.decode_instrument_state(data)
            follow = self._follows.get(state.instrument_name)
            if follow is not None:
                self._take_state(follow, state.state, received_ns)
            self._mark_listed(state.instrument_name, state.state in codec.OPEN_STATES)
        elif channel.startswith("instrument.creation."):
            created = decode_instrument(data, self._house.name)
            if isinstance(created, Refused):
                self._house.sink.report("instruments.refused", f"{created.symbol}: {created.reason}")
            else:
                self._house.instruments.setdefault(created.symbol, created)
                self._drop_expired()

    def _drop_expired(self) -> None:
        """What nobody watches, and has been expired so long that no answer about it is waited for."""
        house = self._house
        now_ms = house.clock.now_ms()
        if now_ms < self._tidy_ms:
            return
        self._tidy_ms = now_ms + TIDY_MS
        for symbol, instrument in list(house.instruments.items()):
            expiry_ns = instrument.expiry_ns
            if expiry_ns is not None and expiry_ns < (now_ms - TIDY_MS) * MS and symbol not in house.watched:
                del house.instruments[symbol]
                self._served.pop(symbol, None)

    def _mark_listed(self, symbol: str, tradable: bool) -> None:
        known = self._house.instruments.get(symbol)
        if known is not None and known.tradable != tradable:
            self._house.instruments[symbol] = msgspec.structs.replace(known, tradable=tradable)

    def _platform(self, data: msgspec.Raw, received_ns: int) -> None:
        state = codec.decode_platform_state(data)
        if state.maintenance is not None:
            self._maintenance, self._maintenance_at = state.maintenance, trio.current_time()
            self._house.sink.report("exchange.maintenance", "begins" if state.maintenance else "ends")
        if state.price_index:
            (self._locked.add if state.locked else self._locked.discard)(state.price_index)
            self._house.sink.report("exchange.index_lock", f"{state.price_index} locked: {state.locked}")
        for follow in self._follows.values():
            self._tell_state(follow, received_ns)

    def _blocked(self, instrument: Instrument) -> str:
        """What stands above the instrument's own state; empty when nothing does."""
        if instrument.symbol in self._relisted:
            return "relisted"
        if self._maintenance:
            return "maintenance"
        return "locked" if instrument.index in self._locked else ""

    def _take_state(self, follow: Follow, state: str, received_ns: int) -> None:
        """What the exchange says of the instrument itself."""
        if follow.own == codec.SETTLEMENT_STATE or state in codec.TERMINAL_STATES:
            self._house.on_settlement()
        follow.own = state
        self._tell_state(follow, received_ns)

    def _tell_state(self, follow: Follow, received_ns: int) -> None:
        """The symbol hears of a change: the end of an instrument, else what stands above it, else its own state."""
        state = follow.own
        if state not in codec.TERMINAL_STATES:
            # What is over was said before: without the instrument's own word it is taken for open.
            state = self._blocked(follow.instrument) or state or ("open" if follow.state else "")
        if state and state != follow.state:
            follow.state = state
            self._house.sink.post(follow.instrument.symbol, codec.state_event(state, received_ns))


def _other_units(before: Instrument, now: Instrument) -> str:
    """The fields that say what a price and an amount mean, where they differ, with both values; empty if none does."""
    fixed = [field for field in Instrument.__struct_fields__ if field not in ("maker_fee", "taker_fee", "tradable")]
    changed = [field for field in fixed if getattr(before, field) != getattr(now, field)]
    return ", ".join(f"{field} was {getattr(before, field)}, is {getattr(now, field)}" for field in changed)
