"""One WebSocket client connection over one trio byte stream, driven by whoever reads it: no task of its own.

The Sans-I/O protocol of the `websockets` package shakes hands, and judges every frame but the one kind
that is nearly all of the traffic: a whole, unfragmented text frame is cut out and put together here, at a
quarter of the cost. Everything queued by `send` leaves in one write at the next `flush`.
"""

import logging
import os
import ssl
from urllib.parse import urlsplit

import trio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from mmd.domain.errors import LinkLost
from mmd.exchanges.api import Dial
from mmd.exchanges.tcp import TcpStream, open_tcp

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

# The list of all instruments is the largest message by far (about 1 kB each).
MAX_MESSAGE_BYTES = 16 * 2**20
CHUNK_BYTES = 64 * 1024

# RFC 6455, section 5.2: FIN and the opcode of text; the bit that says "masked"; lengths of 2 and of 8 bytes.
TEXT_FRAME = 0x81
MASKED = 0x80
TWO_BYTES, EIGHT_BYTES = 126, 127
MASK_BYTES = 4
MASKS = 256  # drawn at a time: a call to the kernel for each frame would cost more than the frame

# Outside the logger hierarchy on purpose: the protocol's debug lines would print whole frames, secrets included.
_SILENT = logging.Logger("mmd.link", logging.CRITICAL + 1)


def tcp_dialer(url: str) -> Dial:
    """A dialer for a ws:// or wss:// URL: TCP with no delay (trio's default), TLS with the system's trust store.

    ValueError for any other URL. The dialer raises OSError or trio.BrokenResourceError.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is not a WebSocket URL: wanted ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH")
    host = parts.hostname
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)

    async def dial() -> trio.abc.Stream:
        stream = await open_tcp(host, port)
        if not secure:
            return stream
        wrapped: trio.SSLStream[TcpStream] = trio.SSLStream(
            stream, ssl.create_default_context(), server_hostname=host, https_compatible=True
        )
        try:
            await wrapped.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return wrapped

    return dial


class Link:
    """One connection. `receive` is for one task, `send` and `flush` for any.

    Every method raises LinkLost, with the reason in words, once the connection is of no more use.
    """

    def __init__(self, stream: trio.abc.Stream, host: str, path: str) -> None:
        """`host` as in the Host header, port included where it is not the default; `path` of the upgrade request."""
        self.bytes_in = 0
        self.bytes_out = 0
        self._stream = stream
        carrier = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self._tcp = carrier if isinstance(carrier, TcpStream) else None
        uri = parse_uri(f"ws://{host}{path}")
        self._protocol = ClientProtocol(uri, max_size=MAX_MESSAGE_BYTES, logger=_SILENT)
        self._masks: list[bytes] = []  # random, each used once
        self._held = bytearray()  # the beginning of a frame
        self._wanted = 0  # how much of it is known to be needed
        self._parts: list[bytes | bytearray | memoryview] = []
        self._part_is_text = True
        self._binaries = 0
        self._flushing = False
        self._lost = ""

    @property
    def lost(self) -> str:
        """Why the connection is of no more use; empty while it is."""
        return self._lost

    @property
    def dirty(self) -> bool:
        """Bytes wait for `flush`."""
        return bool(self._protocol.writes)

    def would_block(self) -> bool:
        """The peer takes no bytes now: who calls `flush` waits for it. False where the stream cannot tell."""
        return self._tcp is not None and self._tcp.would_block()

    async def handshake(self) -> None:
        """Upgrade the stream to a WebSocket."""
        self._protocol.send_request(self._protocol.connect())
        await self.flush()
        connecting = True
        while connecting:
            # Line by line: frames may come in the same chunk, and they are for `receive`.
            for line in (await self._read()).splitlines(keepends=True):
                if connecting:
                    self._protocol.receive_data(line)
                    connecting = self._protocol.state is State.CONNECTING
                else:
                    self._held += line
            if self._protocol.handshake_exc is not None:
                raise self._fail(f"handshake refused: {self._protocol.handshake_exc}")

    async def receive(self) -> list[bytes]:
        """The text messages that the next chunk from the stream completes; often one, maybe none."""
        if self._lost:
            raise LinkLost(self._lost)
        if self._held and (messages := self._cut(b"")):
            return messages
        return self._cut(await self._read())

    def take_binaries(self) -> int:
        """How many binary messages came since the last look; they are dropped unread."""
        count, self._binaries = self._binaries, 0
        return count

    def send(self, payload: bytes) -> None:
        """Queue one text message."""
        if self._lost or self._protocol.state is not State.OPEN:
            raise LinkLost(self._lost or "the connection is closing")
        size = len(payload)
        if size < TWO_BYTES:
            head = bytes((TEXT_FRAME, MASKED | size))
        elif size < 1 << 16:
            head = bytes((TEXT_FRAME, MASKED | TWO_BYTES, size >> 8, size & 0xFF))
        else:
            head = bytes((TEXT_FRAME, MASKED | EIGHT_BYTES)) + size.to_bytes(8, "big")
        if not self._masks:
            pool = os.urandom(MASK_BYTES * MASKS)
            self._masks = [pool[at : at + MASK_BYTES] for at in range(0, len(pool), MASK_BYTES)]
        mask = self._masks.pop()
        self._protocol.writes.append(b"".join((head, mask, apply_mask(payload, mask))))

    async def flush(self) -> None:
        """Write all that is queued in one send. While another task is at it, it takes ours along: return at once."""
        if self._flushing:
            return
        self._flushing = True
        sent = False
        try:
            while self._protocol.writes:
                # An empty chunk asks for a half-close; closing the stream is the owner's business.
                data = b"".join(self._protocol.data_to_send())
                if data:
                    await self._stream.send_all(data)
                    self.bytes_out += len(data)
            sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise self._fail(f"write failed: {_words(error)}") from error
        finally:
            self._flushing = False
            if not sent and not self._lost:
                # Cancelled in the middle: part of a frame may be out, so nothing may follow it.
                self._lost = "a write was interrupted"

    async def _read(self) -> bytes | bytearray:
        """One chunk from the stream."""
        try:
            data = await self._stream.receive_some(CHUNK_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise self._fail(f"read failed: {_words(error)}") from error
        if not data:
            self._protocol.receive_eof()
            refusal = self._protocol.handshake_exc
            raise self._fail("closed by the exchange" if refusal is None else f"handshake refused: {refusal}")
        self.bytes_in += len(data)
        return data

    def _cut(self, data: bytes | bytearray) -> list[bytes]:
        """The text messages in what is held and `data`; an incomplete frame at the end is held."""
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held.clear()
            self._wanted = 0
        messages: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == TWO_BYTES:
                start = at + 4
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length == EIGHT_BYTES:
                start = at + 10
                length = int.from_bytes(data[at + 2 : start], "big")
            end = start + length
            sound = data[at + 1] < MASKED and length <= MAX_MESSAGE_BYTES
            if sound and end > size:
                self._wanted = end - at
                break
            if sound and data[at] == TEXT_FRAME and not self._parts:
                messages.append(bytes(data[start:end]))
            else:
                self._judge(data[at:end] if sound else data[at:], messages)
                if self._lost:
                    break
            at = end
        if at < size:
            self._held += data[at:]
        return messages

    def _judge(self, data: bytes | bytearray, messages: list[bytes]) -> None:
        """A frame of another kind: a fragment, a ping, a close, or an error."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event, messages)
        if self._protocol.state is not State.OPEN:
            # What came before the close is still delivered; the next `receive` raises.
            self._lost = self._lost or self._close_reason()
            if not messages:
                raise LinkLost(self._lost)

    def _take(self, frame: Frame, messages: list[bytes]) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._part_is_text = opcode is Opcode.TEXT
        elif opcode is not Opcode.CONT:
            return
        if frame.fin and not self._parts:
            data = frame.data
        else:
            self._parts.append(frame.data)
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        if self._part_is_text:
            messages.append(data)  # type: ignore[arg-type]  # any buffer will do for the decoder, and a copy costs
        else:
            self._binaries += 1

    def _close_reason(self) -> str:
        protocol = self._protocol
        if protocol.parser_exc is not None:
            return f"protocol error: {protocol.parser_exc or type(protocol.parser_exc).__name__}"
        if protocol.close_rcvd is not None:
            return f"closed by the exchange: {protocol.close_rcvd}"
        return "closed"

    def _fail(self, reason: str) -> LinkLost:
        self._lost = self._lost or reason
        return LinkLost(self._lost)


def _words(error: BaseException) -> str:
    """What an error of the stream says; trio's own keep it in the cause."""
    return str(error) or str(error.__cause__ or "") or type(error).__name__


async def open_link(dial: Dial, host: str, path: str) -> tuple[trio.abc.Stream, Link]:
    """Dial and shake hands. The caller owns the stream. Raises LinkLost; nothing stays open then."""
    try:
        stream = await dial()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise LinkLost(f"connect failed: {_words(error)}") from error
    except UnicodeError as error:
        raise LinkLost(f"connect failed: {host} can be no host's name: {_words(error)}") from error
    link = Link(stream, host, path)
    try:
        await link.handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream, link
