"""One connection as the sandbox sees it: what it follows, what waits to be written, how it ends.

Who it is stands in the subclass of each dialect.
"""

from collections.abc import Callable
from typing import Any

MAX_WAITING_BYTES = 64 * 1024 * 1024


class Link:
    """`number` is unique in the sandbox. `wake`: there is something to write, or it closes. `beat`: new heartbeat."""

    def __init__(
        self,
        number: int,
        *,
        websocket: bool,
        wake: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.number = number
        self.websocket = websocket
        self.channels: dict[str, Any] = {}
        self.heartbeat_seconds: float | None = None
        self.close_reason: str | None = None
        self.cut = False
        self.stalled = False
        """Half-open: nothing is read or written, and neither side is told."""
        self.active_at = 0.0
        """When something was last received or sent; the transport's clock."""
        self.ended = False
        self.http_status: int | None = None
        self._outgoing: list[bytes] = []
        self._waiting_bytes = 0
        self._wake = wake
        self._beat = beat

    def speaks_for(self, account: str) -> bool:
        """Whether it is logged in to this account."""
        return False

    def place(self) -> int:
        """The end of the queue as it is now; valid until the transport takes from it."""
        return len(self._outgoing)

    def push(self, payload: bytes, place: int | None = None) -> None:
        """Queue one message, at a place remembered before if given. A reader that lets too much wait is closed."""
        if self.close_reason is not None:
            return
        self._outgoing.insert(len(self._outgoing) if place is None else place, payload)
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._outgoing.clear()
            self.close("connection_too_slow")
        self._wake()

    def take(self) -> list[bytes]:
        """Everything queued, oldest first."""
        outgoing, self._outgoing = self._outgoing, []
        self._waiting_bytes = 0
        return outgoing

    def close(self, reason: str) -> None:
        """Close once what is queued has been written."""
        if self.close_reason is None:
            self.close_reason = reason
            self._wake()

    def cut_off(self) -> None:
        """Drop the connection now, without goodbye."""
        self.cut = True
        self.close("cut")
        self._wake()

    def stall(self, stalled: bool) -> None:
        """Stop or resume reading and writing; what came meanwhile is handled at the end of it."""
        self.stalled = stalled
        self._wake()

    def heartbeat_changed(self) -> None:
        """Let the transport look at `heartbeat_seconds` again."""
        self._beat()
