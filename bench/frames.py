"""The server's side of a WebSocket on a plain socket: just enough for two well-behaved clients on this machine.

Text frames only, no fragments, no extensions. Raises PeerClosed when the other side is gone.
"""

import base64
import hashlib
import socket

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CHUNK_BYTES = 1 << 18
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class PeerClosed(Exception):
    """The connection ended."""


def frame(payload: bytes) -> bytes:
    """One unmasked text frame."""
    return header(TEXT, len(payload)) + payload


def header(opcode: int, size: int) -> bytes:
    """FIN, opcode and length of an unmasked frame."""
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def accept(sock: socket.socket) -> str:
    """Answer the upgrade request; returns its path."""
    request = b""
    while b"\r\n\r\n" not in request:
        chunk = sock.recv(CHUNK_BYTES)
        if not chunk:
            raise PeerClosed("closed before the handshake")
        request += chunk
    sock.sendall(upgrade(request))
    return request.split(b" ", 2)[1].decode()


def upgrade(request: bytes) -> bytes:
    """The answer to an upgrade request."""
    lines = request.split(b"\r\n")[1:]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    key = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"


class FrameReader:
    """Bytes of one client in, text payloads out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads that this chunk completes. Pings are answered, a close raises PeerClosed."""
        data = self._held + chunk if self._held else chunk
        payloads: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 6:
            size = data[at + 1] & 0x7F
            mask_at = at + 2
            if size == 126:
                size = int.from_bytes(data[at + 2 : at + 4], "big")
                mask_at = at + 4
            elif size == 127:
                size = int.from_bytes(data[at + 2 : at + 10], "big")
                mask_at = at + 10
            start = mask_at + 4
            if start + size > end:
                break
            payload = unmask(data[start : start + size], data[mask_at:start])
            opcode = data[at] & 0x0F
            if opcode == TEXT:
                payloads.append(payload)
            elif opcode == CLOSE:
                raise PeerClosed("closed by the client")
            elif opcode == PING:
                self._sock.sendall(header(PONG, size) + payload)
            at = start + size
        self._held = data[at:]
        return payloads


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated four-byte mask."""
    size = len(data)
    keys = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
