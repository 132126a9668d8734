"""The recorded market: real books and tickers replayed exactly, then continued by the generator.

While the recording runs, recorded books are set as recorded and nobody anonymous trades in them,
except with quotes that are better than every recorded one. All other instruments live from the
generator, in a world that starts from, and follows, the recorded index. When the recording ends,
makers and takers take over each recorded book where it stands.
"""

from collections.abc import Mapping

import msgspec

from mmd.domain.errors import ConfigError, OffGrid
from mmd.domain.units import whole
from mmd.sandbox.feed import BookMessage, IndexMessage, Recorded, Recording, TickerMessage, final_books
from mmd.sandbox.generator import GeneratedMarket, GeneratorSettings
from mmd.sandbox.model import Reference, SandboxInstrument, Venue
from mmd.sandbox.universe import DAY_MS, redated
from mmd.sandbox.world import IndexPath


class RecordedMarket:
    """A `Market`. `listed`: every instrument as it is listed now, by its recorded name.

    `days` is how far the listing was moved; the first message happens at `start`, or, with 0 days
    and `keep_times`, at its recorded time. Raises ConfigError where the recording does not fit the listing.
    """

    def __init__(
        self,
        recording: Recording,
        listed: Mapping[str, SandboxInstrument],
        seed: int,
        settings: GeneratorSettings,
        *,
        days: int,
        keep_times: bool,
    ) -> None:
        check_fit(recording, listed)
        self.recording = recording
        self._listed = dict(listed)
        self._names = {old: one.instrument_name for old, one in listed.items()}
        self._seed = seed
        self._settings = settings
        self._days = days
        self._keep_times = keep_times
        self._held = {message.name for message in recording.messages if isinstance(message, BookMessage)}
        self._next = 0
        self._offset_ms = 0
        self._released = False

    def instruments(self) -> list[SandboxInstrument]:
        return list(self._listed.values())

    def start(self, venue: Venue, now_ms: int) -> None:
        self._venue = venue
        self._offset_ms = 0 if self._keep_times else now_ms - self.recording.first_ms
        first = first_references(self.recording)
        self._generator = GeneratedMarket(
            {one.instrument_name: one for one in self._listed.values()},
            self._seed,
            self._settings,
            recorded={self._names[old]: self._moved(old, reference) for old, reference in first.items()},
            paths=index_paths(self.recording, self._listed, self._offset_ms),
        )
        self._generator.start(venue, now_ms)
        for old in sorted(self._held & first.keys()):
            self._generator.hold(self._names[old], self._moved(old, first[old]), now_ms)

    def want(self, name: str, now_ms: int) -> None:
        self.step(now_ms)
        self._generator.want(name, now_ms)

    def step(self, now_ms: int) -> int:
        messages, offset = self.recording.messages, self._offset_ms
        while self._next < len(messages) and messages[self._next].at_ms + offset <= now_ms:
            message = messages[self._next]
            self._next += 1
            self._generator.step(message.at_ms + offset)
            self._apply(message, message.at_ms + offset)
        end_ms = self.recording.end_ms + offset
        if not self._released and now_ms >= end_ms:
            self._released = True
            self._generator.step(end_ms)
            self._release(end_ms)
        upcoming = self._generator.step(now_ms)
        if self._next < len(messages):
            return min(upcoming, messages[self._next].at_ms + offset)
        return upcoming if self._released else min(upcoming, end_ms)

    def _apply(self, message: Recorded, at_ms: int) -> None:
        match message:
            case IndexMessage(name=index_name, price=price):
                self._generator.publish_index(index_name, price, at_ms)
            case BookMessage(name=old, bids=bids, asks=asks, snapshot=snapshot):
                if not self._generator.is_delivered(self._names[old]):
                    self._venue.set_levels(self._names[old], bids, asks, at_ms, snapshot=snapshot)
            case TickerMessage(name=old, reference=reference):
                name = self._names[old]
                self._generator.publish_index(self._listed[old].price_index, reference.index_price, at_ms)
                if self._generator.is_delivered(name):
                    return
                if old in self._held:
                    self._generator.hold(name, self._moved(old, reference), at_ms)
                else:
                    self._generator.learn(name, reference, at_ms)

    def _release(self, now_ms: int) -> None:
        for old, (bids, asks) in sorted(final_books(self.recording).items()):
            if not self._generator.is_delivered(self._names[old]):
                self._generator.release(self._names[old], bids, asks, now_ms)

    def _moved(self, old: str, reference: Reference) -> Reference:
        """The reference with its underlying's name as listed now."""
        if reference.underlying_index is None or self._days == 0:
            return reference
        expiry = self._listed[old].expiration_timestamp
        underlying = redated(reference.underlying_index, expiry - self._days * DAY_MS, expiry)
        return msgspec.structs.replace(reference, underlying_index=underlying)


def check_fit(recording: Recording, listed: Mapping[str, SandboxInstrument]) -> None:
    """Raises ConfigError with everything that the recording says of instruments or prices that do not exist."""
    wrong = [f"the feed speaks of {name}, which is not listed" for name in sorted(recording.names() - listed.keys())]
    if wrong:
        raise ConfigError(wrong)
    for message in recording.messages:
        if isinstance(message, BookMessage):
            tick = listed[message.name].tick_size
            for price in (*message.bids, *message.asks):
                try:
                    whole(price, tick)
                except OffGrid:
                    wrong.append(f"the feed quotes {message.name} at {price}, which is not a multiple of {tick}")
    if wrong:
        raise ConfigError(wrong)


def first_references(recording: Recording) -> dict[str, Reference]:
    """The first recorded reference of every instrument that has one, by its recorded name."""
    first: dict[str, Reference] = {}
    for message in recording.messages:
        if isinstance(message, TickerMessage):
            first.setdefault(message.name, message.reference)
    return first


def index_paths(recording: Recording, listed: Mapping[str, SandboxInstrument], offset_ms: int) -> dict[str, IndexPath]:
    """Per coin the recorded index that was published most often; times moved by `offset_ms`."""
    seen: dict[str, dict[int, float]] = {}
    for message in recording.messages:
        match message:
            case IndexMessage(at_ms=at, name=index_name, price=price):
                seen.setdefault(index_name, {})[at + offset_ms] = float(price)
            case TickerMessage(at_ms=at, name=name, reference=reference):
                seen.setdefault(listed[name].price_index, {})[at + offset_ms] = float(reference.index_price)
    coins = {one.price_index: one.base_currency for one in listed.values()}
    paths: dict[str, IndexPath] = {}
    for index_name, points in sorted(seen.items()):
        coin = coins.get(index_name)
        if coin is not None and (coin not in paths or len(points) > len(paths[coin].times_ms)):
            times = sorted(points)
            paths[coin] = IndexPath(index_name, times, [points[at] for at in times])
    return paths
