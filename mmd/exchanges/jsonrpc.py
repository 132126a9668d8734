"""JSON-RPC 2.0 over one link: requests and answers paired by id, deadlines, awaited calls.

Knows no exchange. An answer is applied by the task that reads the link, in the order of the
stream; whoever awaits a call only sees what was applied already.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost, MmdError
from mmd.exchanges.link import Link

T = TypeVar("T")
NOTHING = msgspec.Raw(b"")

# An expired request is remembered so that its late answer still finds its order.
MAX_EXPIRED = 1000


class RpcError(msgspec.Struct):
    """The `error` member; `data` in any shape."""

    code: int
    message: str = ""
    data: msgspec.Raw = NOTHING

    @property
    def text(self) -> str:
        """Message with `data`, short enough for one line."""
        extra = bytes(self.data)[:200].decode(errors="replace")
        return f"{self.message} {extra}" if extra not in ("", "null") else self.message


class Params(msgspec.Struct):
    """Params of what the server sends unasked; `type` is used by heartbeats."""

    channel: str = ""
    data: msgspec.Raw = NOTHING
    type: str = ""


class Head(msgspec.Struct, rename="camel"):
    """First step of decoding any message; the payload stays raw. `us_in`, `us_out`: the server's clock, µs, or 0."""

    id: int | str | None = None
    method: str = ""
    params: Params | None = None
    result: msgspec.Raw = NOTHING
    error: RpcError | None = None
    us_in: int = 0
    us_out: int = 0


_decode_head = msgspec.json.Decoder(Head).decode


def decode_head(message: bytes) -> Head:
    """Raises ExchangeMalformed for what is no JSON-RPC message. It is not quoted there: it may hold secrets."""
    try:
        return _decode_head(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExchangeMalformed(f"no JSON-RPC message ({len(message)} bytes): {error}") from error


class Decoder(Generic[T]):
    """A typed JSON decoder whose errors are ours."""

    def __init__(self, kind: Any) -> None:
        self._decode: Callable[[Any], T] = msgspec.json.Decoder(kind).decode
        self._name = getattr(kind, "__name__", str(kind))

    def __call__(self, raw: msgspec.Raw | bytes) -> T:
        try:
            return self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ExchangeMalformed(f"no {self._name}: {error}") from error


class Sent(msgspec.Struct):
    """A request without its answer. `sent_at`, `deadline`: trio seconds."""

    id: int
    method: str
    context: Any
    sent_at: float
    deadline: float
    expired: bool = False


class Ledger:
    """Requests in flight, by id. Pure."""

    def __init__(self) -> None:
        self._next = 1
        self._sent: dict[int, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def open(self, method: str, context: object, now: float, deadline: float) -> int:
        """A new id for a request that leaves now."""
        number = self._next
        self._next += 1
        self._sent[number] = Sent(number, method, context, now, deadline)
        return number

    def close(self, number: int | str | None) -> Sent | None:
        """The request that this answer belongs to; None if there is none."""
        return self._sent.pop(number, None) if isinstance(number, int) else None

    def expire(self, now: float) -> list[Sent]:
        """Requests whose deadline has just passed; they stay known for a late answer."""
        late = [sent for sent in self._sent.values() if not sent.expired and sent.deadline <= now]
        for sent in late:
            sent.expired = True
        expired = [number for number, sent in self._sent.items() if sent.expired]
        for number in expired[: max(0, len(expired) - MAX_EXPIRED)]:
            del self._sent[number]
        return late

    def abandon(self) -> list[Sent]:
        """The link is gone: all that was still waited for."""
        waiting = [sent for sent in self._sent.values() if not sent.expired]
        self._sent.clear()
        return waiting


class Waiter:
    """One awaited call. `apply` runs in the reading task, before anything later in the stream is looked at."""

    def __init__(self, method: str, apply: Callable[[Head], None] | None) -> None:
        self._method = method
        self._apply = apply
        self._done = trio.Event()
        self._result = NOTHING
        self._error: MmdError | None = None

    def answered(self, head: Head) -> None:
        """Called by the reader. Too late it changes nothing: the caller was told that there is no answer."""
        if self._done.is_set():
            return
        if head.error is not None:
            self._error = ExchangeRefused(head.error.code, f"{self._method}: {head.error.text}")
        else:
            self._result = head.result
            try:
                if self._apply is not None:
                    self._apply(head)
            except ExchangeMalformed as error:
                self._error = error
        self._done.set()

    def failed(self, error: MmdError) -> None:
        self._error = error
        self._done.set()

    async def wait(self) -> msgspec.Raw:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result


class Request(msgspec.Struct):
    id: int
    method: str
    params: Any
    jsonrpc: str = "2.0"


class RpcLink:
    """Requests over one link. `encode` turns a Request into bytes (exchanges differ in how they write decimals)."""

    def __init__(self, link: Link, encode: Callable[[Request], bytes]) -> None:
        self.link = link
        self.ledger = Ledger()
        self.messages_out = 0
        self._encode = encode
        self._seconds = trio.lowlevel.current_clock().current_time

    def request(self, method: str, params: object, context: object, deadline_seconds: float) -> None:
        """Queue a request; `flush` sends it. Raises LinkLost (then nothing was queued)."""
        if self.link.lost:
            raise LinkLost(self.link.lost)
        now = self._seconds()
        number = self.ledger.open(method, context, now, now + deadline_seconds)
        try:
            self.link.send(self._encode(Request(number, method, params)))
        except LinkLost:
            self.ledger.close(number)
            raise
        self.messages_out += 1

    async def call(
        self, method: str, params: object, deadline_seconds: float, apply: Callable[[Head], None] | None = None
    ) -> msgspec.Raw:
        """Send and wait for the result.

        Raises ExchangeRefused, ExchangeAmbiguous (no answer in time), ExchangeMalformed, LinkLost.
        """
        waiter = Waiter(method, apply)
        self.request(method, params, waiter, deadline_seconds)
        await self.link.flush()
        return await waiter.wait()


def overdue(sent: Sent) -> ExchangeAmbiguous:
    """What a caller learns when the deadline passed."""
    return ExchangeAmbiguous(f"{sent.method}: no answer within {sent.deadline - sent.sent_at:g} s")
