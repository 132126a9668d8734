"""A data link's duty: instruments, subscriptions, books kept whole, tickers, trades, states.

A gap in one book is mended by subscribing that book again; the link stays up. Resyncs are spaced
per instrument (growing) and over all (three a second), or a storm of gaps would end in a ban.
What an exchange calls its channels, and what it says on them, its Market knows.
"""

from typing import Protocol

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeRefused
from mmd.domain.events import (
    BookBroken,
    BookTop,
    DataLinkDown,
    DataLinkUp,
    InstrumentStateChanged,
    Ticker,
    TradePrinted,
)
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Why
from mmd.exchanges.api import LinkStats
from mmd.exchanges.channels import Subscriptions, subscribe, unsubscribe
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.jsonrpc import Head, Sent
from mmd.exchanges.rows import Refused

RESYNC_SPACING_SECONDS = 1.0 / 3.0
RESYNC_FIRST_SECONDS = 0.5
RESYNC_MAX_SECONDS = 30.0
RESYNC_FORGIVEN_SECONDS = 60.0
SNAPSHOT_SECONDS = 5.0
RENEW_SECONDS = 30.0  # how often what was refused, or has gone silent, is asked for again
TIDY_MS = 3_600_000  # an expired instrument is kept so long, and looked for as often
MS = 1_000_000
OPEN = "open"


class Book(Protocol):
    """One instrument's. `live`: what it shows is the exchange's."""

    live: bool

    def clear(self) -> None:
        """Wait for a snapshot."""

    def take(self, data: msgspec.Raw, received_ns: int) -> BookTop | BookBroken | None:
        """One message of its channel. None: nothing that shows. Raises ExchangeMalformed: call `broken` then."""

    def broken(self, why: Why, detail: str, received_ns: int) -> BookBroken:
        """Give it up until the next snapshot."""


class Channels(msgspec.Struct, frozen=True):
    """Those of one symbol. `slower`: instead of `book`, where that is not granted; empty: nothing is."""

    book: str
    ticker: str
    trades: str
    slower: str = ""


class Follow:
    """One watched symbol on the current connection."""

    def __init__(self, instrument: Instrument, book: Book, channels: Channels) -> None:
        self.instrument = instrument
        self.book = book
        self.channels = channels
        self.own = ""  # the state that the exchange gives the instrument itself; "" = not told
        self.state = ""  # what its symbol heard last
        self.tries = 0
        self.resynced_at = float("-inf")
        self.due_at: float | None = None  # a resync is wanted then
        self.snapshot_by: float | None = None  # without a snapshot by then, ask again
        self.refused: list[str] = []  # its channels that were not granted, but for the book's
        self.book_ns = self.ticker_ns = 0  # when either was heard last

    @property
    def names(self) -> list[str]:
        return [self.channels.book, self.channels.ticker, self.channels.trades]

    def want_resync(self, now: float, jitter: float) -> None:
        """Plan the next resync: at once the first time, later and later when it keeps breaking."""
        if self.due_at is not None:
            return
        if now - self.resynced_at > RESYNC_FORGIVEN_SECONDS:
            self.tries = 0
        delay = min(RESYNC_MAX_SECONDS, RESYNC_FIRST_SECONDS * 2.0 ** (self.tries - 1)) if self.tries else 0.0
        self.tries += 1
        self.due_at = now + delay * jitter


class Market(Protocol):
    """What an exchange's market data is called, and how it is read.

    `periodic`: books and tickers are told again where nothing changes, so that silence means a lost subscription.
    `opened`, `ended`, `settling`: the words for the states of an instrument in which orders are taken, in which
    they never will be again, and after which cash has moved. What is in none of them takes no orders now.
    """

    calls: Subscriptions
    periodic: bool
    opened: frozenset[str]
    ended: frozenset[str]
    settling: frozenset[str]

    async def list_instruments(self, connection: Connection) -> tuple[dict[str, Instrument], list[Refused]]:
        """Everything that can be quoted, by symbol, and what cannot. Raises as `Connection.call` does."""

    async def begin(self, feed: "Feed", connection: Connection) -> None:
        """On a new connection, once all is listed, before anything is followed."""

    async def turn(self, feed: "Feed", connection: Connection) -> None:
        """Again and again, every SNAPSHOT_SECONDS at the latest: what else is to be looked at."""

    def open_book(self, instrument: Instrument) -> Book:
        """A new one, without a snapshot yet."""

    def channels_of(self, symbol: str) -> Channels:
        """What to subscribe for a symbol."""

    def read_ticker(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> tuple[Ticker, str]:
        """Reference prices, and the instrument's state where the ticker tells it, else "". ExchangeMalformed."""

    def read_trades(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[TradePrinted]:
        """Trades of the book. ExchangeMalformed."""

    def told(self, feed: "Feed", channel: str, data: msgspec.Raw, received_ns: int) -> None:
        """A message of a channel that no symbol has. ExchangeMalformed."""

    def blocked(self, instrument: Instrument) -> str:
        """A state that stands above the instrument's own; empty when none does."""

    def forget(self) -> None:
        """The connection is gone: what was told of states does not hold any more."""


class Feed:
    """Implements LongDuty for market data."""

    name = "data"
    deaf_after = 2.0  # instruments, states and subscriptions are asked for here: what only streams grows old unseen

    def __init__(self, house: House, market: Market) -> None:
        self.stats = LinkStats()
        self.connection: Connection | None = None
        self.listed = trio.Event()
        self.house = house
        self._market = market
        self.follows: dict[str, Follow] = {}
        self._left: list[Follow] = []  # still subscribed, and nobody's any more
        self._books: dict[str, Follow] = {}  # by channel, and so are the next two
        self._tickers: dict[str, Follow] = {}
        self._trades: dict[str, Follow] = {}
        self._wake = trio.Event()
        self._next_resync_at = 0.0
        self._renew_at = 0.0
        self._tidy_ms = 0  # when to drop instruments that have expired
        self._served: dict[str, None] = {}  # symbols that were watched once
        self._relisted: dict[str, Instrument] = {}  # watched, and listed now with units that its symbol does not know

    @property
    def subscriptions(self) -> int:
        """Channels subscribed now for watched symbols."""
        return len(self._books) + len(self._tickers) + len(self._trades)

    def rewatch(self) -> None:
        """The watched symbols changed. Who left and is back before anybody looked begins anew."""
        self._served.update(dict.fromkeys(self.house.watched))
        self._drop_expired()
        for symbol in [symbol for symbol in self._relisted if symbol not in self.house.watched]:
            self.house.instruments[symbol] = self._relisted.pop(symbol)
        for symbol in [symbol for symbol in self.follows if symbol not in self.house.watched]:
            follow = self.follows.pop(symbol)
            self._unroute(follow)
            self._left.append(follow)
        self._wake.set()

    # --- Duty ---

    async def work(self, connection: Connection) -> None:
        self._forget()
        self.connection = connection
        await self.relist(connection)
        await self._market.begin(self, connection)
        connection.set_up()
        self.stats.up = True
        self.stats.connects += 1
        self.house.sink.report("link.up", f"{self.house.name} data")
        self.listed.set()
        self._renew_at = trio.current_time() + RENEW_SECONDS
        while True:
            self._wake = trio.Event()
            await self._follow_watched(connection)
            self._look_for_missing_snapshots()
            await self._renew_when_due(connection)
            await self._market.turn(self, connection)
            await self._resync_when_due(connection)

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        follow = self._books.get(channel)
        if follow is not None:
            follow.book_ns = received_ns
            event = follow.book.take(data, received_ns)
            if event is not None:
                self.house.sink.post(follow.instrument.symbol, event)
                if not isinstance(event, BookTop):
                    self._plan_resync(follow, str(event.why), event.detail)
            if follow.snapshot_by is not None and follow.book.live:
                follow.snapshot_by = None
        elif (follow := self._tickers.get(channel)) is not None:
            follow.ticker_ns = received_ns
            ticker, state = self._market.read_ticker(data, follow.instrument, received_ns)
            if self.connection is not None:
                self.connection.check_clock(ticker.exchange_ns, received_ns)
            self.house.sink.post(follow.instrument.symbol, ticker)
            if state and state != follow.own:
                self.take_state(follow, state, received_ns)
        elif (follow := self._trades.get(channel)) is not None:
            for trade in self._market.read_trades(data, follow.instrument, received_ns):
                self.house.sink.post(follow.instrument.symbol, trade)
        else:
            self._market.told(self, channel, data, received_ns)

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        """Every request here is awaited."""

    def lost(self, sent: Sent, why: str) -> None:
        """Every request here is awaited."""

    def garbled(self, channel: str) -> None:
        """A book message that cannot be read breaks that book; anything else heals itself."""
        follow = self._books.get(channel)
        if follow is not None:
            self.break_book(follow, Why.BOOK_MALFORMED, "a message of the book could not be read")

    def down(self, why: str) -> None:
        """The connection is gone."""
        was_up, self.stats.up = self.stats.up, False
        self.connection = None
        self._forget()
        if was_up:
            self.house.sink.post_all(DataLinkDown(why, self.house.wall_clock_ns()))

    # --- what is listed ---

    async def relist(self, connection: Connection) -> None:
        """Look at what is listed now. Raises as `list_instruments` does."""
        house = self.house
        listed, refused = await self._market.list_instruments(connection)
        house.instruments = {**listed, **self._keep(listed)}
        if refused:
            shown = "; ".join(f"{entry.symbol}: {entry.reason}" for entry in refused[:5])
            house.sink.report("instruments.refused", f"{len(refused)} of {len(listed) + len(refused)}: {shown}")

    def _keep(self, listed: dict[str, Instrument]) -> dict[str, Instrument]:
        """What of the instruments known before stays as it is.

        One that was watched and is no longer listed: answers about it may come yet. One that is watched and
        listed with other units: its machine counts in the old ones until it ends, and must not quote with them.
        """
        known, watched = self.house.instruments, self.house.watched
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
                self.house.sink.report("instrument.relisted", text)
        return kept

    # --- subscriptions ---

    async def _follow_watched(self, connection: Connection) -> None:
        """Bring the subscriptions in line with what is watched."""
        house = self.house
        gone, self._left = self._left, []
        await unsubscribe(connection, self._market.calls, [name for follow in gone for name in follow.names])
        wanted = [symbol for symbol in house.watched if symbol in house.instruments]
        new = [self._begin(house.instruments[symbol]) for symbol in wanted if symbol not in self.follows]
        if not new:
            return
        received_ns = house.wall_clock_ns()
        for follow in new:
            self.follows[follow.instrument.symbol] = follow
            self._route(follow)
            # Before the first snapshot can come: what follows is of this connection.
            house.sink.post(follow.instrument.symbol, DataLinkUp(received_ns))
            self.tell_state(follow, received_ns)
        await self._subscribe_follows(connection, new)

    def _begin(self, instrument: Instrument) -> Follow:
        return Follow(instrument, self._market.open_book(instrument), self._market.channels_of(instrument.symbol))

    async def _subscribe_follows(self, connection: Connection, follows: list[Follow]) -> None:
        missing = await subscribe(connection, self._market.calls, [name for follow in follows for name in follow.names])
        slower = [
            follow
            for follow in follows
            if follow.channels.book in missing and follow.channels.slower and self._is_followed(follow)
        ]
        replaced = {follow.channels.book for follow in follows if follow.channels.slower}
        refused = [channel for channel in missing if channel not in replaced]
        for follow in slower:
            self._unroute(follow)
            follow.channels = msgspec.structs.replace(follow.channels, book=follow.channels.slower, slower="")
            self._route(follow)
        if slower:
            refused += await subscribe(connection, self._market.calls, [follow.channels.book for follow in slower])
        if refused:
            self.house.sink.report("subscription.refused", ", ".join(refused[:10]))
        for follow in follows:
            follow.refused = [name for name in follow.names if name in refused and name != follow.channels.book]
            if not follow.book.live:
                follow.snapshot_by = trio.current_time() + SNAPSHOT_SECONDS

    async def _renew_when_due(self, connection: Connection) -> None:
        """Ask again for what was refused, which may have been for a moment only, and for what has gone silent.

        To ask for what is subscribed changes nothing. A book that never came is another matter: it is resynced.
        """
        now = trio.current_time()
        if now < self._renew_at:
            return
        self._renew_at = now + RENEW_SECONDS
        names = [name for follow in self.follows.values() for name in [*follow.refused, *self._silent(follow)]]
        try:
            missing = set(await subscribe(connection, self._market.calls, names))
        except (ExchangeAmbiguous, ExchangeRefused):
            return  # the next time
        for follow in self.follows.values():
            follow.refused = [name for name in follow.refused if name in missing]

    def _silent(self, follow: Follow) -> list[str]:
        """Its channels that have told nothing for long, although they should."""
        since_ns = self.house.wall_clock_ns() - int(RENEW_SECONDS * 1e9)
        heard = ((follow.channels.book, follow.book_ns), (follow.channels.ticker, follow.ticker_ns))
        return [name for name, at_ns in heard if self._market.periodic and 0 < at_ns < since_ns]

    def _is_followed(self, follow: Follow) -> bool:
        """It has not left meanwhile."""
        return self.follows.get(follow.instrument.symbol) is follow

    def _route(self, follow: Follow) -> None:
        book, ticker, trades = follow.names
        self._books[book] = self._tickers[ticker] = self._trades[trades] = follow

    def _unroute(self, follow: Follow) -> None:
        book, ticker, trades = follow.names
        for routes, channel in ((self._books, book), (self._tickers, ticker), (self._trades, trades)):
            routes.pop(channel, None)

    def _forget(self) -> None:
        for routes in (self._books, self._tickers, self._trades, self.follows):
            routes.clear()
        self._left.clear()
        self._market.forget()

    # --- books that broke ---

    def break_book(self, follow: Follow, why: Why, detail: str) -> None:
        """It is not to be believed any more: its symbol hears that, and it is subscribed again."""
        event = follow.book.broken(why, detail, self.stats.last_received_ns)
        self.house.sink.post(follow.instrument.symbol, event)
        self._plan_resync(follow, str(why), detail)

    def _plan_resync(self, follow: Follow, why: str, detail: str) -> None:
        follow.want_resync(trio.current_time(), self.house.rng.uniform(0.8, 1.2))
        self.house.sink.report("book.broken", f"{follow.instrument.symbol}: {why}: {detail}")
        self._wake.set()

    def _most_due(self) -> Follow | None:
        due = [follow for follow in self.follows.values() if follow.due_at is not None]
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
        try:
            # Only after the acknowledgement is every later message of the new subscription.
            await unsubscribe(connection, self._market.calls, [follow.channels.book])
            await self._subscribe_follows_again(connection, follow)
        except (ExchangeAmbiguous, ExchangeRefused) as error:
            self._plan_resync(follow, "resync", str(error))

    async def _subscribe_follows_again(self, connection: Connection, follow: Follow) -> None:
        channel = follow.channels.book
        if await subscribe(connection, self._market.calls, [channel]):
            self._plan_resync(follow, "resync", f"{channel} was refused")
        elif not follow.book.live:
            follow.snapshot_by = trio.current_time() + SNAPSHOT_SECONDS

    def _look_for_missing_snapshots(self) -> None:
        """A subscription is healthy when data comes, not when it was acknowledged."""
        now = trio.current_time()
        for follow in self.follows.values():
            if follow.snapshot_by is not None and follow.snapshot_by <= now:
                follow.snapshot_by = None
                if not follow.book.live:
                    self._plan_resync(follow, "resync", f"no snapshot within {SNAPSHOT_SECONDS:g} s")

    # --- states ---

    def created(self, instrument: Instrument) -> None:
        """It is listed from now on."""
        self.house.instruments.setdefault(instrument.symbol, instrument)
        self._drop_expired()

    def _drop_expired(self) -> None:
        """What nobody watches, and has been expired so long that no answer about it is waited for."""
        house = self.house
        now_ms = house.clock.now_ms()
        if now_ms < self._tidy_ms:
            return
        self._tidy_ms = now_ms + TIDY_MS
        for symbol, instrument in list(house.instruments.items()):
            expiry_ns = instrument.expiry_ns
            if expiry_ns is not None and expiry_ns < (now_ms - TIDY_MS) * MS and symbol not in house.watched:
                del house.instruments[symbol]
                self._served.pop(symbol, None)

    def mark_listed(self, symbol: str, state: str) -> None:
        """The exchange told an instrument's state, followed or not."""
        tradable = state in self._market.opened
        known = self.house.instruments.get(symbol)
        if known is not None and known.tradable != tradable:
            self.house.instruments[symbol] = msgspec.structs.replace(known, tradable=tradable)

    def take_state(self, follow: Follow, state: str, received_ns: int) -> None:
        """What the exchange says of the instrument itself."""
        if follow.own in self._market.settling or state in self._market.ended:
            self.house.on_settlement()
        follow.own = state
        self.tell_state(follow, received_ns)

    def tell_state(self, follow: Follow, received_ns: int) -> None:
        """The symbol hears of a change: the end of an instrument, else what stands above it, else its own state."""
        state, market = follow.own, self._market
        if state not in market.ended:
            # What is over was said before: without the instrument's own word it is taken for open.
            above = (
                "relisted" if follow.instrument.symbol in self._relisted else self._market.blocked(follow.instrument)
            )
            state = above or state or (OPEN if follow.state else "")
        if state and state != follow.state:
            follow.state = state
            event = InstrumentStateChanged(
                state, state in self._market.opened, state in self._market.ended, received_ns
            )
            self.house.sink.post(follow.instrument.symbol, event)


def _other_units(before: Instrument, now: Instrument) -> str:
    """The fields that say what a price and an amount mean, where they differ, with both values; empty if none does."""
    fixed = [field for field in Instrument.__struct_fields__ if field not in ("maker_fee", "taker_fee", "tradable")]
    changed = [field for field in fixed if getattr(before, field) != getattr(now, field)]
    return ", ".join(f"{field} was {getattr(before, field)}, is {getattr(now, field)}" for field in changed)
