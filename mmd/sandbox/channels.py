"""Subscription channels: what a notice does to one, what it sends. Each dialect makes its own of these.

A channel is shared by all its subscribers: it is rendered and encoded once. `note` takes a notice,
`take` returns the data to send now (also several, also none), `first` what a new subscriber gets.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mmd.sandbox.floor import Floor
from mmd.sandbox.link import Link
from mmd.sandbox.notices import Notice

Topic = tuple[str, ...]


class Channel:
    """`interval_ms` 0 sends at once. `timed`: sends at every interval, asked or not."""

    timed = False
    is_market_data = True
    is_book = False
    """Whether its messages make a book, so that faults of books are for it."""

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int) -> None:
        self.name = name
        self.head = b""  # everything of a message before its data
        self.floor = floor
        self.topics = tuple(topics)
        self.interval_ms = interval_ms
        self.links: dict[int, Link] = {}
        self.instrument_name = ""  # of the market-data channels of one instrument
        self.account = ""  # of the channels that are one account's own

    def first(self, now_ms: int) -> list[Any]:
        return []

    def note(self, notice: Notice) -> None:
        """Remember what `take` needs."""

    def take(self, now_ms: int) -> list[Any]:
        return []

    def broken(self, message: Any) -> Any:
        """The same message out of the order of its book."""
        return message


class LatestChannel(Channel):
    """Sends the newest state when something changed; batches conflate."""

    def __init__(
        self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int, look: Callable[[int], Any]
    ) -> None:
        super().__init__(name, floor, topics, interval_ms)
        self._look = look

    def first(self, now_ms: int) -> list[Any]:
        data = self._look(now_ms)
        return [] if data is None else [data]

    def take(self, now_ms: int) -> list[Any]:
        return self.first(now_ms)


class TimedChannel(LatestChannel):
    """Sends at every interval what changed since."""

    timed = True

    def __init__(
        self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int, look: Callable[[int], Any]
    ) -> None:
        super().__init__(name, floor, topics, interval_ms, look)
        self._last: Any = None

    def take(self, now_ms: int) -> list[Any]:
        data = self._look(now_ms)
        if data is None or data == self._last:
            return []
        self._last = data
        return [data]


class RowsChannel(Channel):
    """Sends an array of what notices say, as `rows` renders them."""

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int) -> None:
        super().__init__(name, floor, topics, interval_ms)
        self._rows: list[Any] = []

    def rows(self, notice: Notice) -> list[Any]:
        """What this notice adds."""
        return []

    def note(self, notice: Notice) -> None:
        self._rows += self.rows(notice)

    def take(self, now_ms: int) -> list[Any]:
        rows, self._rows = self._rows, []
        return [rows] if rows else []
