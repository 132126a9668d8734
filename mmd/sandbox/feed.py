"""A recorded feed: JSON lines of WebSocket messages, read into book, ticker and index messages in replay order.

One line each: `{"received_s": <unix seconds>, "message": <the JSON-RPC message>}`. Channels
`book.*`, `ticker.*` and `deribit_price_index.*` are replayed; others and answers are skipped.

A message happens at its exchange timestamp, but never before the first line was received (a
snapshot carries the time of the last change before it) nor before the message of the same
instrument ahead of it in the file.
"""

from decimal import Decimal
from pathlib import Path

import msgspec

from mmd.domain.errors import ConfigError
from mmd.sandbox.model import Greeks, Reference

# A timestamp further than this from the receipt is a broken clock: the receipt counts.
CLOCK_TOLERANCE_MS = 5_000

Levels = dict[Decimal, Decimal]


class BookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Amount at each price; 0 removes. A snapshot replaces the book."""

    at_ms: int
    name: str
    bids: Levels
    asks: Levels
    snapshot: bool


class TickerMessage(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    name: str
    reference: Reference


class IndexMessage(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    name: str
    price: Decimal


Recorded = BookMessage | TickerMessage | IndexMessage


class Recording(msgspec.Struct, frozen=True):
    """Messages in replay order; times as recorded. `skipped` counts messages that cannot be replayed."""

    first_ms: int
    end_ms: int
    messages: tuple[Recorded, ...]
    skipped: int

    def names(self) -> set[str]:
        """Instruments with a recorded book or ticker."""
        return {message.name for message in self.messages if not isinstance(message, IndexMessage)}


class Line(msgspec.Struct):
    received_s: float
    message: msgspec.Raw


class Params(msgspec.Struct):
    channel: str
    data: msgspec.Raw


class Notification(msgspec.Struct):
    params: Params | None = None


class WireBook(msgspec.Struct):
    """`book.{instrument}.{interval}`: the full book, then changes chained by their ids."""

    instrument_name: str
    timestamp: int
    change_id: int
    bids: list[tuple[str, Decimal, Decimal]]
    asks: list[tuple[str, Decimal, Decimal]]
    prev_change_id: int | None = None


class WireGroupedBook(msgspec.Struct):
    """`book.{instrument}.{group}.{depth}.{interval}`: always the full top of the book."""

    instrument_name: str
    timestamp: int
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]


class WireTicker(msgspec.Struct):
    instrument_name: str
    timestamp: int
    mark_price: Decimal
    index_price: Decimal
    min_price: Decimal
    max_price: Decimal
    underlying_price: Decimal | None = None
    underlying_index: str | None = None
    mark_iv: float | None = None
    greeks: Greeks | None = None
    current_funding: float | None = None
    funding_8h: float | None = None


class WireIndex(msgspec.Struct):
    index_name: str
    timestamp: int
    price: Decimal


def read_feed(path: Path) -> Recording:
    """The recording in this file.

    Raises ConfigError with every malformed line as `file:line: what is wrong`, or if nothing can be replayed.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    reader = Reader()
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            reader.read(line)
        except msgspec.DecodeError as error:
            wrong.append(f"{path}:{number}: not a recorded message: {error}")
    if wrong:
        raise ConfigError(wrong)
    if not reader.messages:
        raise ConfigError([f"{path}: holds no book, ticker or index message"])
    ordered = sorted(reader.messages, key=lambda message: message.at_ms)
    end = max(ordered[-1].at_ms, reader.received_ms)
    return Recording(first_ms=reader.first_ms, end_ms=end, messages=tuple(ordered), skipped=reader.skipped)


class Reader:
    """Line by line: keeps what the next line's meaning depends on."""

    def __init__(self) -> None:
        self.messages: list[Recorded] = []
        self.skipped = 0
        self.first_ms = 0
        self.received_ms = 0
        self._latest_ms: dict[str, int] = {}
        self._change_id: dict[str, int] = {}

    def read(self, data: bytes) -> None:
        """Raises msgspec.DecodeError for a line that is no recorded message."""
        line = msgspec.json.decode(data, type=Line)
        self.received_ms = max(self.received_ms, round(line.received_s * 1000))
        self.first_ms = self.first_ms or self.received_ms
        params = msgspec.json.decode(line.message, type=Notification).params
        head, _, rest = params.channel.partition(".") if params else ("", "", "")
        message: Recorded | None = None
        if params and head == "book":
            message = self.grouped(params.data) if rest.count(".") == 3 else self.book(params.data)
        elif params and head == "ticker":
            message = self.ticker(params.data)
        elif params and head == "deribit_price_index":
            index = msgspec.json.decode(params.data, type=WireIndex)
            message = IndexMessage(
                at_ms=self.time(index.index_name, index.timestamp), name=index.index_name, price=index.price
            )
        if message is None:
            self.skipped += 1
        else:
            self.messages.append(message)

    def book(self, data: msgspec.Raw) -> BookMessage | None:
        """None for a change that does not follow the one before: the recorder lost something."""
        wire = msgspec.json.decode(data, type=WireBook)
        if wire.prev_change_id is not None and self._change_id.get(wire.instrument_name) != wire.prev_change_id:
            self._change_id.pop(wire.instrument_name, None)
            return None
        self._change_id[wire.instrument_name] = wire.change_id
        return BookMessage(
            at_ms=self.time(wire.instrument_name, wire.timestamp),
            name=wire.instrument_name,
            bids={price: amount for _, price, amount in wire.bids},
            asks={price: amount for _, price, amount in wire.asks},
            snapshot=wire.prev_change_id is None,
        )

    def grouped(self, data: msgspec.Raw) -> BookMessage:
        wire = msgspec.json.decode(data, type=WireGroupedBook)
        return BookMessage(
            at_ms=self.time(wire.instrument_name, wire.timestamp),
            name=wire.instrument_name,
            bids=dict(wire.bids),
            asks=dict(wire.asks),
            snapshot=True,
        )

    def ticker(self, data: msgspec.Raw) -> TickerMessage:
        wire = msgspec.json.decode(data, type=WireTicker)
        reference = Reference(
            mark_price=wire.mark_price,
            index_price=wire.index_price,
            min_price=wire.min_price,
            max_price=wire.max_price,
            underlying_price=wire.underlying_price,
            underlying_index=wire.underlying_index,
            mark_iv=wire.mark_iv,
            greeks=wire.greeks,
            current_funding=wire.current_funding,
            funding_8h=wire.funding_8h,
        )
        at_ms = self.time(wire.instrument_name, wire.timestamp)
        return TickerMessage(at_ms=at_ms, name=wire.instrument_name, reference=reference)

    def time(self, name: str, timestamp: int) -> int:
        believable = abs(timestamp - self.received_ms) <= CLOCK_TOLERANCE_MS
        at_ms = max(timestamp if believable else self.received_ms, self.first_ms, self._latest_ms.get(name, 0))
        self._latest_ms[name] = at_ms
        return at_ms


def final_books(recording: Recording) -> dict[str, tuple[Levels, Levels]]:
    """Bids and asks of every recorded book after its last message."""
    books: dict[str, tuple[Levels, Levels]] = {}
    for message in recording.messages:
        if isinstance(message, BookMessage):
            if message.snapshot or message.name not in books:
                books[message.name] = ({}, {})
            for side, changes in zip(books[message.name], (message.bids, message.asks), strict=True):
                side.update(changes)
                for price in [price for price, amount in side.items() if not amount]:
                    del side[price]
    return books
