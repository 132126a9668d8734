"""A byte stream whose first bytes were read already, and WebSocket frames a server writes in bulk."""

import trio


class Rewound(trio.abc.Stream):
    """Gives `first` back to the next reader; whole writes of several tasks never mix, and wait while it is held."""

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self._stream = stream
        self._first = first
        self._writing = trio.StrictFIFOLock()
        self._free = trio.Event()
        self._free.set()

    def hold(self) -> None:
        """Write nothing until `release`, whoever wants to: answers to a client's pings neither."""
        self._free = trio.Event()

    def release(self) -> None:
        """End `hold`."""
        self._free.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._first:
            await trio.lowlevel.checkpoint()
            count = len(self._first) if max_bytes is None else max_bytes
            chunk, self._first = self._first[:count], self._first[count:]
            return chunk
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self._free.is_set():
            await self._free.wait()
        async with self._writing:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        async with self._writing:
            await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def text_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented text frame (RFC 6455 section 5.2), as servers send them.

    Written here and not by the WebSocket library, because many frames then leave in one write.
    """
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return bytes((0x81, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload


class Signal:
    """Wakes one waiting task; a `set` before the wait counts."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Return after the next (or a past, not yet seen) `set`."""
        await self._event.wait()
        self._event = trio.Event()
