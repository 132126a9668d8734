"""A TCP byte stream for links: what trio's own does, by way of a tenth of the calls.

Between a book change and our order lie one read and one write. trio's SocketStream makes some
thirty Python calls of them; at a thousand ticks a second that is a tenth of the way from tick to order.
"""

import select
import socket

import trio

# A peer that takes nothing for so long is not there: whoever writes waits for it, and others for him.
STALL_SECONDS = 3.0


async def open_tcp(host: str, port: int) -> "TcpStream":
    """Connect as trio.open_tcp_stream does (all addresses, no delay). Raises OSError."""
    opened = await trio.open_tcp_stream(host, port)
    return TcpStream(socket.socket(fileno=opened.socket.detach()))


class TcpStream(trio.abc.Stream):
    """One task may read while another writes. Errors as trio's streams raise them."""

    def __init__(self, connected: socket.socket) -> None:
        """Takes the socket over."""
        connected.setblocking(False)
        self._socket = connected
        self._room = select.poll()
        self._room.register(connected, select.POLLOUT)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What there is, at most `max_bytes`; empty at the end of the stream."""
        while True:
            # First wait, then read: the bytes of the next tick are hardly ever there yet.
            await trio.lowlevel.wait_readable(self._fileno())
            try:
                return self._socket.recv(max_bytes or 65_536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """At once what the system takes, then the rest. Cancelled in the middle, part of it is out.

        No checkpoint where nothing has to wait: whoever writes here waits for its next bytes anyway.
        trio.BrokenResourceError where the peer stops taking bytes.
        """
        sent = self._send(data)
        if sent < len(data):
            left = memoryview(data)[sent:]
            while left:
                with trio.move_on_after(STALL_SECONDS) as waited:
                    await trio.lowlevel.wait_writable(self._fileno())
                if waited.cancelled_caught:
                    raise trio.BrokenResourceError(f"the peer takes no bytes for {STALL_SECONDS:g} s")
                left = left[self._send(left) :]

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """How much the system takes now."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fileno()
            raise trio.BrokenResourceError(str(error)) from error

    def would_block(self) -> bool:
        """The system takes no more bytes now: whoever sends waits for the peer."""
        return self._socket.fileno() >= 0 and not self._room.poll(0)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._fileno())

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._room.unregister(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

    def _fileno(self) -> int:
        number = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("this stream was closed")
        return number
