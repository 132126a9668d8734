"""From a call to its answer: what every dialect does the same way, faults of requests and answers included.

No waiting here: what must come later is returned as `Deferred` and finished by the transport.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from mmd.sandbox.faults import NO_FAULT, UNANSWERED, AnswerFault, ArmedAnswer, Faults
from mmd.sandbox.link import Link
from mmd.sandbox.orders import Refused
from mmd.sandbox.rpc import RpcError


class Deferred(msgspec.Struct, frozen=True):
    """Call `finish` after this many seconds; it pushes the answer to the link, or defers again."""

    seconds: float
    finish: Callable[[], "Deferred | None"]


class Later(msgspec.Struct, frozen=True):
    """A result that exists only at `at_ms`: `finish` makes it then."""

    at_ms: int
    finish: Callable[[], object]


class NoAnswer:
    """The result of a method that answers nothing."""


NO_ANSWER = NoAnswer()


class HttpCall(msgspec.Struct, frozen=True):
    """One HTTP request; names of headers in lower case, `target` as it was sent."""

    verb: str
    target: str
    headers: dict[str, str]
    body: bytes


class Asked(Protocol):
    """A call that was read: a dialect's own, with whatever it knows of it. `us_in`: when it arrived."""

    us_in: int

    @property
    def method(self) -> str: ...


L = TypeVar("L", bound=Link)
A = TypeVar("A", bound=Asked)


class Answering(ABC, Generic[L, A]):
    """The part of a dialect that all have. `publish` hands what the engine reports to the subscribers."""

    websocket_paths: tuple[str, ...]
    idle_seconds: float
    """A link on which nothing passes for so long is closed."""
    writing_is_life = True
    """Whether what we send counts as something that passes."""
    ping_seconds: float | None = None
    """How often a WebSocket Ping is sent."""

    def __init__(self, faults: Faults, publish: Callable[[], None], wall_us: Callable[[], int]) -> None:
        self.faults = faults
        self.publish = publish
        self.wall_us = wall_us

    # --- what each dialect says ----------------------------------------------------------------

    @abstractmethod
    def link(
        self,
        number: int,
        *,
        websocket: bool,
        wake: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> L:
        """A new connection."""

    @abstractmethod
    def handle(self, link: L, body: bytes | str) -> Deferred | None:
        """One message of a WebSocket. The answer is pushed to `link`, now or by the Deferred."""

    @abstractmethod
    def http(self, link: L, call: HttpCall) -> Deferred | None:
        """One HTTP request; the first thing pushed is the body of its answer."""

    @abstractmethod
    def no_request(self, status: int, reason: str) -> bytes:
        """The body of an answer to what is no request."""

    @abstractmethod
    def beat(self, link: L) -> None:
        """The link's `heartbeat_seconds` are over."""

    @abstractmethod
    def closed(self, link: L) -> None:
        """A connection is gone. May be said more than once."""

    @abstractmethod
    def call(self, link: L, asked: A) -> object:
        """Run the method. RpcError or Refused: it did nothing. May return Later or NO_ANSWER."""

    @abstractmethod
    def payload(self, asked: A, result: object, error: RpcError | None) -> bytes:
        """The answer as it goes out; `error` wins over `result`."""

    @abstractmethod
    def refusal(self, error: Refused) -> RpcError:
        """The wire form of the engine's refusal."""

    @abstractmethod
    def fill_meant(self, link: L, asked: A, steps: int | None) -> None:
        """Fill every resting order that this request means to end, at most so many least steps of each (None: all)."""

    def failed(self, link: L, asked: A, error: RpcError) -> None:
        """An error is answered: what else follows of it."""

    def news_first(self, asked: A) -> bool:
        """Whether what this call caused is told before its answer."""
        return self.faults.notifications_first

    # --- one call ------------------------------------------------------------------------------

    def carry(self, link: L, asked: A) -> Deferred | None:
        """Let a call come in, with what faults make of that."""
        fault = self.faults.next_answer(asked.method)
        if fault.fault is AnswerFault.LOSE_REQUEST:
            return None
        if fault.fault is AnswerFault.DELAY_REQUEST:
            came_us = self.wall_us()

            def arrive() -> Deferred | None:
                asked.us_in = self.wall_us()
                if asked.us_in < came_us + (fault.delay_ms - 1) * 1000:
                    return None  # the clock was set back: a request that was out of time would be in time again
                return self._carry_out(link, asked, NO_FAULT if fault.answered else UNANSWERED)

            return Deferred(fault.delay_ms / 1000, arrive)
        return self._carry_out(link, asked, fault)

    def _carry_out(self, link: L, asked: A, fault: ArmedAnswer) -> Deferred | None:
        error: RpcError | None = None
        result: object = None
        place = link.place()  # what the method itself pushes (snapshots) follows its answer
        try:
            if fault.fault is AnswerFault.REFUSE:
                raise RpcError(fault.code, fault.message)
            if fault.fault is AnswerFault.RACE:
                self.fill_meant(link, asked, fault.steps)
                if fault.code and asked.method == "private/cancel":
                    raise RpcError(fault.code, fault.message)
            result = self.call(link, asked)
            if fault.fault is AnswerFault.UNCONFIRMED:
                error = RpcError(fault.code, fault.message)
        except RpcError as raised:
            error = raised
        except Refused as raised:
            error = self.refusal(raised)
        if isinstance(result, NoAnswer):
            self.publish()
            return None
        if isinstance(result, Later):
            self.publish()
            return self._defer_result(link, asked, result, fault)
        deferred = self._deliver(link, asked, self.payload(asked, result, error), place, fault)
        if error is not None:
            self.failed(link, asked, error)
        return deferred

    def _deliver(self, link: L, asked: A, payload: bytes, place: int | None, fault: ArmedAnswer) -> Deferred | None:
        """Push an answer, at its place among the notifications it caused, as far as the fault lets it through."""
        match fault.fault:
            case AnswerFault.LOSE_ANSWER | AnswerFault.CUT:
                self.publish()
                if fault.fault is AnswerFault.CUT:
                    link.cut_off()
                return None
            case AnswerFault.DELAY:
                self.publish()
                return Deferred(fault.delay_ms / 1000, lambda: link.push(payload))
        if self.news_first(asked):
            self.publish()
            link.push(payload)
        else:
            link.push(payload, place)
            self.publish()
        if fault.fault is AnswerFault.REPEAT:
            link.push(payload)
        return None

    def _defer_result(self, link: L, asked: A, later: Later, fault: ArmedAnswer) -> Deferred:
        def finish() -> Deferred | None:
            result, error = None, None
            try:
                result = later.finish()
            except Refused as raised:
                error = self.refusal(raised)
            return self._deliver(link, asked, self.payload(asked, result, error), None, fault)

        return Deferred(max(0.0, (later.at_ms * 1000 - self.wall_us()) / 1e6), finish)


def http_error(link: Link, status: int, payload: bytes) -> None:
    """Answer an HTTP request with a status of its own."""
    link.http_status = status
    link.push(payload)
