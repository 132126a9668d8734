"""Deribit's market data: its channels, the platform's state, maintenance."""

import msgspec
import trio

from mmd.domain.events import Ticker, TradePrinted
from mmd.domain.instruments import Instrument
from mmd.exchanges.channels import Subscriptions, subscribe
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.book import L2Book
from mmd.exchanges.deribit.dialect import PUBLIC
from mmd.exchanges.deribit.instruments import decode_instrument, decode_instruments
from mmd.exchanges.feed import Channels, Feed
from mmd.exchanges.rows import Refused

MAINTENANCE_SECONDS = 60.0  # its end is not always told: after so long a new connection finds out


class DeribitMarket:
    """Implements Market."""

    calls: Subscriptions = PUBLIC
    periodic = False
    opened = codec.OPEN_STATES
    ended = codec.TERMINAL_STATES
    settling = frozenset({codec.SETTLEMENT_STATE})

    def __init__(self, house: House) -> None:
        self._house = house
        self._locked: set[str] = set()  # price indices
        self._maintenance = False
        self._maintenance_at = 0.0  # when it was announced

    async def list_instruments(self, connection: Connection) -> tuple[dict[str, Instrument], list[Refused]]:
        raw = await connection.call("public/get_instruments", {"currency": "any", "expired": False})
        return decode_instruments(raw, self._house.name)

    async def begin(self, feed: Feed, connection: Connection) -> None:
        asked = [codec.PLATFORM_STATE, codec.INSTRUMENT_STATE, codec.INSTRUMENT_CREATION]
        missing = await subscribe(connection, self.calls, asked)
        needed = [channel for channel in missing if channel != codec.INSTRUMENT_CREATION]
        if needed:
            self._house.sink.report("subscription.refused", ", ".join(needed))
        try:
            status = codec.decode_status(await connection.call("public/status"))
        except FAILURES:
            return  # tickers tell the state as well
        self._locked = set(status.locked_indices)

    async def turn(self, feed: Feed, connection: Connection) -> None:
        if self._maintenance and trio.current_time() - self._maintenance_at >= MAINTENANCE_SECONDS:
            connection.drop(f"maintenance was announced {MAINTENANCE_SECONDS:g} s ago, and no end of it")

    def open_book(self, instrument: Instrument) -> L2Book:
        return L2Book(instrument)

    def channels_of(self, symbol: str) -> Channels:
        book, slower = (codec.book_channel(symbol, interval) for interval in codec.BOOK_INTERVALS)
        return Channels(book, codec.ticker_channel(symbol), codec.trades_channel(symbol), slower)

    def read_ticker(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> tuple[Ticker, str]:
        return codec.read_ticker(data, received_ns)

    def read_trades(self, data: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[TradePrinted]:
        return codec.read_trades(data, instrument, received_ns)

    def told(self, feed: Feed, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        if channel == codec.PLATFORM_STATE:
            self._platform(feed, data, received_ns)
        elif channel.startswith("instrument.state."):
            state = codec.decode_instrument_state(data)
            follow = feed.follows.get(state.instrument_name)
            if follow is not None:
                feed.take_state(follow, state.state, received_ns)
            feed.mark_listed(state.instrument_name, state.state)
        elif channel.startswith("instrument.creation."):
            created = decode_instrument(data, self._house.name)
            if isinstance(created, Refused):
                self._house.sink.report("instruments.refused", f"{created.symbol}: {created.reason}")
            else:
                feed.created(created)

    def blocked(self, instrument: Instrument) -> str:
        if self._maintenance:
            return "maintenance"
        return "locked" if instrument.index in self._locked else ""

    def forget(self) -> None:
        self._locked.clear()
        self._maintenance = False

    def _platform(self, feed: Feed, data: msgspec.Raw, received_ns: int) -> None:
        state = codec.decode_platform_state(data)
        if state.maintenance is not None:
            self._maintenance, self._maintenance_at = state.maintenance, trio.current_time()
            self._house.sink.report("exchange.maintenance", "begins" if state.maintenance else "ends")
        if state.price_index:
            (self._locked.add if state.locked else self._locked.discard)(state.price_index)
            self._house.sink.report("exchange.index_lock", f"{state.price_index} locked: {state.locked}")
        for follow in feed.follows.values():
            feed.tell_state(follow, received_ns)
