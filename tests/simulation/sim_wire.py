"""The network between the daemon and the exchange: late, slow, cut in the middle, or silent on one side.

It does what TCP can do and nothing else: within a connection bytes keep their order, and what is lost
is lost from some byte on. Messages that come twice or out of order are the exchange's doing (its levers).
"""

import hashlib
import re
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random

import trio

WINDOW_BYTES = 64 * 1024
TOKEN = re.compile(rb'"(?:access|refresh)_token":"([^"]+)"')
NEVER = float("inf")


def nobody(owner: int) -> None:
    """Until somebody wants to know who sends."""


class Way:
    """One direction of a connection. A chunk without bytes is the end."""

    def __init__(self, wire: "Wire", link: "Link", *, upward: bool) -> None:
        self.upward = upward  # from the daemon to the exchange
        self.lost = False  # from now on everything vanishes
        self.fuse: int | None = None  # so many more bytes pass, and then the connection is cut
        self.sip: int | None = None  # the reader gets no more at a time
        self.broken = ""
        self.writer_gone = self.reader_gone = False  # it has closed its end
        self._wire = wire
        self._link = link
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._due = 0.0
        self._stirred = trio.Event()
        self._room = trio.Event()

    def wake(self) -> None:
        self._stirred.set()
        self._room.set()

    def put(self, data: bytes) -> None:
        """Send bytes on their way (none: the end)."""
        self._bytes += len(data)
        if self.lost:
            return
        cut = self.fuse is not None and len(data) >= self.fuse
        if self.fuse is not None:
            data, self.fuse = data[: self.fuse], self.fuse - min(self.fuse, len(data))
        wire = self._wire
        if self.upward:
            wire.leaving(self._link.owner)
        if not self.upward and data:
            data = wire.spoil(data)
            if b"_token" in data:
                wire.tokens.update(TOKEN.findall(data))
        self._due = max(self._due, trio.current_time() + wire.delay(self._link))
        if data or not cut:
            self._chunks.append((self._due, data))
        wire.note(self._link.number, self.upward, self._due, data)
        self._stirred.set()
        if cut:
            wire.counts["cut midway"] += 1
            self._link.cut("cut in the middle of a write", keep=self)

    async def wait_room(self) -> None:
        while self._bytes > self._wire.window and not self.broken and not self.writer_gone:
            if self.reader_gone and not self.lost:
                return
            self._room = trio.Event()
            await self._room.wait()

    async def take(self, most: int) -> bytes:
        """What has arrived, at least one byte; none at the end."""
        while True:
            now = trio.current_time()
            if self._chunks and self._chunks[0][0] <= now:
                return self._taken(now, min(most, self.sip or most))
            if self.broken and not self._chunks:
                raise trio.BrokenResourceError(self.broken)
            if self.reader_gone:
                raise trio.ClosedResourceError("closed here")
            self._stirred = trio.Event()
            with trio.move_on_at(self._chunks[0][0] if self._chunks else NEVER):
                await self._stirred.wait()

    @property
    def arrived(self) -> bool:
        """Whether `take` would not wait."""
        return (
            self.reader_gone or bool(self.broken) or (bool(self._chunks) and self._chunks[0][0] <= trio.current_time())
        )

    def _taken(self, now: float, most: int) -> bytes:
        parts: list[bytes] = []
        while self._chunks and self._chunks[0][0] <= now and most > 0:
            due, data = self._chunks[0]
            if not data:
                break  # the end stays, for whoever asks again
            if len(data) <= most:
                self._chunks.popleft()
            else:
                self._chunks[0] = (due, data[most:])
                data = data[:most]
            most -= len(data)
            parts.append(data)
        taken = b"".join(parts)
        self._bytes -= len(taken)
        if self._bytes <= self._wire.window:
            self._room.set()
        return taken

    def drop(self) -> None:
        """What is under way never arrives."""
        self._chunks.clear()


class Link:
    """One connection: two ways. `owner`: the daemon's life that dialled."""

    def __init__(self, wire: "Wire", number: int, owner: int, latency: float) -> None:
        self.number = number
        self.owner = owner
        self.latency = latency
        self.up = Way(wire, self, upward=True)
        self.down = Way(wire, self, upward=False)
        self.open = True

    def cut(self, why: str, keep: Way | None = None) -> None:
        """Both sides find it broken; what is under way on `keep` still arrives."""
        self.open = False
        for way in (self.up, self.down):
            if way is not keep:
                way.drop()
            way.broken = why
            way.wake()

    def vanish(self, *, up: bool, down: bool) -> None:
        """Half-open: nobody is told, and nothing arrives any more."""
        self.up.lost |= up
        self.down.lost |= down

    def die(self, *, told: bool) -> None:
        """The daemon's host is gone. `told`: its kernel closes the connection; else nobody hears of it."""
        self.open = False
        if told and not self.up.lost:
            self.up.put(b"")
        self.up.lost = self.down.lost = True
        self.up.broken = self.down.broken = ""
        self.down.drop()


class End(trio.abc.Stream):
    """One end of a connection, as a byte stream."""

    def __init__(self, link: Link, out: Way, into: Way) -> None:
        self._link = link
        self._out = out
        self._into = into
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._out.put(bytes(data))
        await self._out.wait_room()
        self._check()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("closed here")
        if self._out.broken:
            raise trio.BrokenResourceError(self._out.broken)

    @property
    def stirs(self) -> bool:
        """Whether a read would say something at once, were it that it has ended."""
        return self._into.arrived

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._out.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("closed here")
        return await self._into.take(max_bytes or 1 << 30)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.open = False
            if not self._out.broken:
                self._out.put(b"")
            self._into.reader_gone = self._out.writer_gone = True
            self._into.wake()
            self._out.wake()
        await trio.lowlevel.checkpoint()


class Wire:
    """All connections. Faults last until they are ended, or until their connection has ended."""

    def __init__(self, chance: Random, latency: float, serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        """`latency`: seconds one way, about."""
        self._latency = latency
        self.links: list[Link] = []
        self.extra_seconds = 0.0  # of delay, each way
        self.refusing = False  # new connections are refused
        self.swallowing = False  # new connections never come up
        self.window = WINDOW_BYTES
        self.spoiling = 0  # so many messages of the exchange are cut short within their frames
        self.tokens: set[bytes] = set()
        self.leaving: Callable[[int], None] = nobody  # called with the life that sends, before its bytes leave
        self.counts: dict[str, int] = {"connections": 0, "cut midway": 0, "spoilt": 0, "bytes": 0}
        self.digest = hashlib.sha256()
        self._chance = chance
        self._serve = serve
        self._nursery: trio.Nursery | None = None
        self._made = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve what dials, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def standing(self, owner: int | None = None) -> list[Link]:
        """Connections that have not ended, of one life or all."""
        self.links = [link for link in self.links if link.open]
        return [link for link in self.links if owner in (None, link.owner)]

    async def dial(self, owner: int) -> trio.abc.Stream:
        """A connection to the exchange. Raises OSError."""
        latency = self._chance.choice((0.5, 1.0, 2.0)) * self._latency
        await trio.sleep(2 * (latency + self.extra_seconds))
        if self.swallowing:
            await trio.sleep_forever()
        if self.refusing:
            raise ConnectionRefusedError("connection refused")
        assert self._nursery is not None, "the wire runs"
        self._made += 1
        self.counts["connections"] += 1
        link = Link(self, self._made, owner, latency)
        self.links.append(link)
        self._nursery.start_soon(self._serve, End(link, link.down, link.up))
        return End(link, link.up, link.down)

    def delay(self, link: Link) -> float:
        return link.latency * (1.0 + self._chance.random()) + self.extra_seconds

    def note(self, number: int, upward: bool, due: float, data: bytes) -> None:
        self.counts["bytes"] += len(data)
        self.digest.update(b"%d %d %r " % (number, upward, due))
        self.digest.update(data)

    def spoil(self, data: bytes) -> bytes:
        """Cut the text of the first whole frame short: what an exchange sends that falls over while it writes."""
        if not self.spoiling or data[0] != 0x81 or len(data) < 4:
            return data
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if size == 127 or len(data) < start + size:
            return data
        self.spoiling -= 1
        self.counts["spoilt"] += 1
        half = data[start : start + size // 2]
        head = bytes((0x81, len(half))) if len(half) < 126 else bytes((0x81, 126)) + len(half).to_bytes(2, "big")
        return head + half + data[start + size :]

    def calm(self) -> None:
        """No fault any more, for connections that come; those that are half-open stay so until they end."""
        self.extra_seconds = 0.0
        self.refusing = self.swallowing = False
        self.window = WINDOW_BYTES
        self.spoiling = 0
        for link in self.standing():
            link.up.fuse = link.down.fuse = None
            link.up.sip = link.down.sip = None
