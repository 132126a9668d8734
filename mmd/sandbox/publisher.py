"""Fan-out: notices of the engine to channels, channels to links. One rendering and encoding per channel."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from mmd.sandbox.book import BookChanged
from mmd.sandbox.channels import Channel, Topic
from mmd.sandbox.faults import BookFault, Faults
from mmd.sandbox.floor import Floor
from mmd.sandbox.link import Link
from mmd.sandbox.listing import Listing
from mmd.sandbox.notices import (
    AccountChanged,
    CashChanged,
    IndexChanged,
    InstrumentCreated,
    Notice,
    ProtectionTriggered,
    ReferenceChanged,
    StateChanged,
    TopChanged,
    TradesPrinted,
)

L = TypeVar("L", bound=Link)
S = TypeVar("S", bound=Link, contravariant=True)


class Catalogue(Protocol[S]):
    """Which channels an exchange has, and what its messages look like around their data."""

    tail: bytes

    def head(self, name: str, /) -> bytes: ...

    def encode(self, data: object, /) -> bytes: ...

    def is_private(self, name: str) -> bool: ...

    def is_guarded(self, name: str) -> bool:
        """Whether the rights to a channel are looked at again for every subscriber."""

    def owner(self, name: str, link: S) -> str:
        """Whose own channel a name means on this link: an account, or "" for everybody's."""

    def groups(self, listing: Listing) -> tuple[Topic, ...]:
        """The groups under which channels find an instrument."""

    def open(self, name: str, link: S) -> Channel | None:
        """None: there is no such channel for this link."""


class Publisher(Generic[L]):
    """`due_changed` is called when `next_flush_ms` may have become earlier."""

    def __init__(self, floor: Floor, catalogue: Catalogue[L], faults: Callable[[], Faults]) -> None:
        self.floor = floor
        self.catalogue = catalogue
        self.due_changed: Callable[[], None] = lambda: None
        self._faults = faults
        self._channels: dict[tuple[str, str], Channel] = {}
        self._by_topic: dict[Topic, dict[int, Channel]] = {}
        self._due: dict[int, dict[int, Channel]] = {100: {}, 1000: {}}
        self._groups: dict[str, tuple[Topic, ...]] = {}
        self._flushed_second = -1

    # --- subscriptions -------------------------------------------------------------------------

    def subscribe(self, link: L, name: str, now_ms: int) -> bool:
        """Follow a channel; its opening messages are queued. False when there is no such channel for this link."""
        if name in link.channels:
            return True
        account = self.catalogue.owner(name, link)
        channel = self._channels.get((account, name))
        if channel is None or self.catalogue.is_guarded(name):
            opened = self.catalogue.open(name, link)
            if opened is None:
                return False
            if channel is None:
                channel = opened
                channel.account = account
                channel.head = self.catalogue.head(name)
                self._add(channel)
        elif channel.interval_ms:
            self._emit(channel, now_ms)  # so that the chain of the others goes on from the snapshot's number
        for data in channel.first(now_ms):
            link.push(self._message(channel, data))
        channel.links[link.number] = link
        link.channels[name] = channel
        if channel.timed:
            self._schedule(channel)
        return True

    def unsubscribe(self, link: Link, name: str) -> bool:
        channel = link.channels.pop(name, None)
        if channel is None:
            return False
        del channel.links[link.number]
        if not channel.links:
            self._remove(channel)
        return True

    def drop(self, name: str) -> None:
        """Everybody's subscription of a channel ends, and nobody is told."""
        for channel in [channel for channel in self._channels.values() if channel.name == name]:
            for link in list(channel.links.values()):
                self.unsubscribe(link, name)

    def unsubscribe_all(self, link: Link, *, private: bool | None = None) -> None:
        """`private` True: only private channels; False: only the others; None: all."""
        for name in list(link.channels):
            if private is None or self.catalogue.is_private(name) == private:
                self.unsubscribe(link, name)

    def _add(self, channel: Channel) -> None:
        self._channels[channel.account, channel.name] = channel
        for topic in channel.topics:
            self._by_topic.setdefault(topic, {})[id(channel)] = channel

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.account, channel.name]
        for topic in channel.topics:
            listening = self._by_topic[topic]
            del listening[id(channel)]
            if not listening:
                del self._by_topic[topic]
        for waiting in self._due.values():
            waiting.pop(id(channel), None)

    # --- notices -------------------------------------------------------------------------------

    def publish(self, notices: list[Notice], now_ms: int) -> None:
        """Tell every channel that listens; those without an interval send at once."""
        for notice in notices:
            for topic in self._topics(notice):
                for channel in list(self._by_topic.get(topic, {}).values()):
                    channel.note(notice)
                    if channel.interval_ms:
                        self._schedule(channel)
                    else:
                        self._emit(channel, now_ms)

    def broadcast(self, name: str, data: object) -> None:
        """Send to the subscribers of a channel that follows nothing of the engine."""
        payload = self.catalogue.head(name) + self.catalogue.encode(data) + self.catalogue.tail
        for (_, other), channel in list(self._channels.items()):
            if other == name:
                for link in channel.links.values():
                    link.push(payload)

    def _where(self, name: str) -> tuple[Topic, ...]:
        found = self._groups.get(name)
        if found is None:
            if len(self._groups) > len(self.floor.listings):  # some are listed no more
                self._groups.clear()
            found = self._groups[name] = self.catalogue.groups(self.floor.listings[name])
        return found

    def _topics(self, notice: Notice) -> list[Topic]:
        match notice:
            case BookChanged(instrument_name=name):
                return [("book", name)]
            case TopChanged(name):
                return [("top", name)]
            case TradesPrinted(name):
                return [("trades", name), *(("trades", *where) for where in self._where(name))]
            case ReferenceChanged(name):
                return [("reference", name)]
            case IndexChanged(name):
                return [("index", name)]
            case AccountChanged(account, name):
                groups = [("account", account, *where) for where in self._where(name)]
                return [("account", account, name), *groups]
            case StateChanged(name):
                return [*(("state", *where) for where in self._where(name)), ("reference", name)]
            case InstrumentCreated(instrument):
                return [("creation", *where) for where in self._where(instrument.instrument_name)]
            case CashChanged(account):
                return [("wallet", account)]
            case ProtectionTriggered(account, index):
                return [("mmp", account, index), ("mmp", account, "all")]

    # --- sending -------------------------------------------------------------------------------

    def _schedule(self, channel: Channel) -> None:
        waiting = self._due[channel.interval_ms]
        if id(channel) not in waiting:
            waiting[id(channel)] = channel
            if len(waiting) == 1:
                self.due_changed()

    def next_flush_ms(self, now_ms: int) -> int | None:
        """When to call `flush`; None when nothing waits."""
        times = [now_ms - now_ms % interval + interval for interval, waiting in self._due.items() if waiting]
        return min(times, default=None)

    def flush(self, now_ms: int) -> None:
        """Send the batches whose interval has ended."""
        self._flush(100, now_ms)
        if now_ms // 1000 != self._flushed_second:
            self._flushed_second = now_ms // 1000
            self._flush(1000, now_ms)

    def _flush(self, interval_ms: int, now_ms: int) -> None:
        waiting, self._due[interval_ms] = self._due[interval_ms], {}
        for channel in waiting.values():
            self._emit(channel, now_ms)
            if channel.timed and channel.links:
                self._due[interval_ms][id(channel)] = channel

    def _message(self, channel: Channel, data: object) -> bytes:
        return channel.head + self.catalogue.encode(data) + self.catalogue.tail

    def _emit(self, channel: Channel, now_ms: int) -> None:
        messages = channel.take(now_ms)
        if not messages:
            return
        fault = BookFault.NONE
        if channel.instrument_name:
            faults = self._faults()
            if channel.is_book:
                fault = faults.book_fault(channel.instrument_name, channel.name)
            elif faults.is_silent(channel.instrument_name):
                fault = BookFault.DROP
        elif channel.is_market_data and self._faults().all_silent:
            fault = BookFault.DROP
        if fault is BookFault.DROP:
            return
        for message in messages:
            data = channel.broken(message) if fault is BookFault.BREAK else message
            payload = self._message(channel, data)
            for link in channel.links.values():
                link.push(payload)
                if fault is BookFault.DUPLICATE:
                    link.push(payload)
