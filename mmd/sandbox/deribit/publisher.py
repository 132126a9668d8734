"""Fan-out: notices of the engine to channels, channels to links. One rendering and encoding per channel."""

from collections.abc import Callable

from mmd.sandbox.book import BookChanged
from mmd.sandbox.deribit.catalogue import Catalogue
from mmd.sandbox.deribit.channels import BookChannel, Channel, Topic, instrument_topics
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.deribit.rpc import TAIL, encode, notification_head
from mmd.sandbox.faults import BookFault, Faults
from mmd.sandbox.floor import Floor
from mmd.sandbox.notices import (
    AccountChanged,
    IndexChanged,
    InstrumentCreated,
    Notice,
    ProtectionTriggered,
    ReferenceChanged,
    StateChanged,
    TopChanged,
    TradesPrinted,
)


class Publisher:
    """`due_changed` is called when `next_flush_ms` may have become earlier."""

    def __init__(self, floor: Floor, faults: Callable[[], Faults]) -> None:
        self.floor = floor
        self.catalogue = Catalogue(floor)
        self.due_changed: Callable[[], None] = lambda: None
        self._faults = faults
        self._channels: dict[tuple[str, str], Channel] = {}
        self._by_topic: dict[Topic, dict[int, Channel]] = {}
        self._due: dict[int, dict[int, Channel]] = {100: {}, 1000: {}}
        self._groups: dict[str, tuple[Topic, ...]] = {}
        self._flushed_second = -1

    @property
    def channel_count(self) -> int:
        return len(self._channels)

    # --- subscriptions -------------------------------------------------------------------------

    def subscribe(self, link: Link, name: str, now_ms: int) -> bool:
        """Follow a channel; its opening messages are queued. False when there is no such channel for this link."""
        if name in link.channels:
            return True
        account = link.grant.account if link.grant is not None and name.startswith("user.") else ""
        channel = self._channels.get((account, name))
        if channel is None or account or name.endswith(".raw"):  # rights are looked at every time
            opened = self.catalogue.open(name, link.grant)
            if opened is None:
                return False
            if channel is None:
                channel = opened
                channel.account = account
                self._add(channel)
        elif channel.interval_ms:
            self._emit(channel, now_ms)  # so that the chain of the others goes on from the snapshot's number
        for data in channel.first(now_ms):
            link.push(channel.head + encode(data) + TAIL)
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

    def unsubscribe_all(self, link: Link, *, private: bool | None = None) -> None:
        """`private` True: only user channels; False: only the others; None: all."""
        for name in list(link.channels):
            if private is None or name.startswith("user.") == private:
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
        payload = notification_head(name) + encode(data) + TAIL
        for (_, other), channel in list(self._channels.items()):
            if other == name:
                for link in channel.links.values():
                    link.push(payload)

    def _where(self, name: str) -> tuple[Topic, ...]:
        found = self._groups.get(name)
        if found is None:
            if len(self._groups) > len(self.floor.listings):  # some are listed no more
                self._groups.clear()
            found = self._groups[name] = instrument_topics(self.floor.listings[name])
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

    def _emit(self, channel: Channel, now_ms: int) -> None:
        messages = channel.take(now_ms)
        if not messages:
            return
        fault = BookFault.NONE
        if channel.instrument_name:
            faults = self._faults()
            if isinstance(channel, BookChannel):
                fault = faults.book_fault(channel.instrument_name, channel.name)
            elif faults.is_silent(channel.instrument_name):
                fault = BookFault.DROP
        elif channel.is_market_data and self._faults().all_silent:
            fault = BookFault.DROP
        if fault is BookFault.DROP:
            return
        for message in messages:
            broken = fault is BookFault.BREAK
            data = message | {"prev_change_id": message["prev_change_id"] + 1} if broken else message
            payload = channel.head + encode(data) + TAIL
            for link in channel.links.values():
                link.push(payload)
                if fault is BookFault.DUPLICATE:
                    link.push(payload)
