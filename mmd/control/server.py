"""The socket server: clients, their roles, one task a request, the stream of events, the audit.

T106: people can always intervene. `halt` waits for no other request, viewers cannot use up the
places of admins, a client that does not read is dropped, and a fault behind one request is
answered and logged; it reaches neither the other clients nor the quotes.
"""

import contextlib
import math
import os
import select
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec import UNSET, Raw

from mmd.control.commands import newest_event, perform
from mmd.control.door import group_id, open_door
from mmd.control.parse import (
    LineBuffer,
    Overlong,
    find_method,
    garbage,
    parse_params,
    parse_request,
    request_id,
)
from mmd.control.peer import identify, role_of, user_name
from mmd.control.protocol import (
    EVENTS_MAX,
    METHODS,
    Answer,
    Code,
    ErrorBody,
    EventNotice,
    Failure,
    FollowParams,
    FollowResult,
    Id,
    Method,
    Params,
    Refusal,
    Request,
    Role,
    encode,
    encode_line,
)
from mmd.domain.errors import ConfigError, MmdError
from mmd.shell import logs
from mmd.shell.desk import Caller, Desk

CLIENTS_MAX = 64
VIEWERS_MAX = 56  # the rest is kept for those who may halt
WORKING_MAX = 16  # requests of one connection at work
WAITING_MAX = 64  # and read ahead, so that a halt behind them is seen
CHUNK_BYTES = 65_536
SEND_SECONDS = 10.0
NAME_SECONDS = 1.0
HANGUP_SECONDS = 1.0
GRACE_SECONDS = 5.0  # the desk keeps its deadlines itself; this is for a desk that is stuck
FOLLOW_BATCH = 500

# What a bug behind one request may look like. Trio's own errors are not among them.
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ExceptionGroup,
    LookupError,
    MmdError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
Audit = Callable[[Caller, str, dict[str, Any], str], None]
"""(who, method, params, what came of it). The params as they were understood, decimals as text."""
log = logs.get("control")


async def serve_control(
    path: Path,
    desk: Desk,
    *,
    admin_group: str | None,
    view_group: str | None,
    audit: Audit,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the Unix socket at `path` until cancelled.

    Raises DoorError where the socket cannot be made. What `audit` raises passes through: a change
    that cannot be recorded stops the daemon.
    """
    admin_group_id = group_id(admin_group)
    view_group_id = group_id(view_group)
    group = view_group_id if view_group_id is not None else admin_group_id
    with open_door(path, group_id=group) as door:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(door))
        server = Server(desk, audit, admin_group, admin_group_id)
        async with listener, trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, server.welcome, [listener], handler_nursery=nursery))
            task_status.started()


class Server:
    """What all connections share."""

    def __init__(self, desk: Desk, audit: Audit, admin_group: str | None, admin_group_id: int | None) -> None:
        self.desk = desk
        self.audit = audit
        self.admin_group = admin_group
        self.admin_group_id = admin_group_id
        self.daemon_uid = os.geteuid()
        self.clients = 0
        self.viewers = 0

    async def welcome(self, stream: trio.SocketStream) -> None:
        """One client from its first to its last byte."""
        async with stream:
            try:
                peer = identify(stream.socket)
            except OSError as error:
                log.warning("control.peer_unknown", error=error)
                return
            role = role_of(peer, daemon_uid=self.daemon_uid, admin_group_id=self.admin_group_id)
            viewer = int(role is Role.VIEWER)
            if self.clients >= CLIENTS_MAX or self.viewers + viewer > VIEWERS_MAX:
                await _turn_away(stream)
                return
            self.clients += 1
            self.viewers += viewer
            try:
                caller = Caller(uid=peer.uid, pid=peer.pid, name=await _name_of(peer.uid))
                await Connection(self, stream, caller, role).run()
            finally:
                self.clients -= 1
                self.viewers -= viewer


class Connection:
    """One client. Requests run side by side; answers leave as they come, each in one piece."""

    def __init__(self, server: Server, stream: trio.SocketStream, caller: Caller, role: Role) -> None:
        self.server = server
        self.stream = stream
        self.caller = caller
        self.role = role
        self.gone = False
        self.following = False
        self.send_lock = trio.Lock()
        self.waiting = trio.Semaphore(WAITING_MAX)
        self.working = trio.Semaphore(WORKING_MAX)
        self.read_scope = trio.CancelScope()
        self.follow_scope = trio.CancelScope()

    async def run(self) -> None:
        """Until the client has closed and all its requests are answered: changes are never left half done."""
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as requests:
                with self.read_scope:
                    await self.read(requests)
                outer.start_soon(self.watch_hangup)
            outer.cancel_scope.cancel()

    async def read(self, requests: trio.Nursery) -> None:
        """`requests`: where the tasks of this connection's requests live."""
        buffer = LineBuffer()
        while True:
            try:
                chunk = await self.stream.receive_some(CHUNK_BYTES)
            except trio.BrokenResourceError:
                self.drop("connection reset")
                return
            for line in buffer.feed(chunk):
                await self.accept(line, requests)
            if not chunk:
                await self.accept(buffer.rest(), requests)
                return

    async def accept(self, line: bytes | Overlong, requests: trio.Nursery) -> None:
        """Start the request of one line, or say why not."""
        if isinstance(line, Overlong):
            await self.fail(None, garbage("the line is longer than 1 MiB"))
            return
        if not line.strip():
            return
        try:
            request = parse_request(line)
        except Refusal as refusal:
            await self.fail(request_id(line), refusal)
            return
        await self.waiting.acquire()
        requests.start_soon(self.work, request)

    async def work(self, request: Request) -> None:
        """One request until its answer is sent, then its place among the waiting is free."""
        try:
            method = find_method(request.method)
            params = parse_params(method, request.params)
            if isinstance(params, FollowParams):
                await self.follow(params, request)
                return
            # A halt waits for nobody.
            async with contextlib.nullcontext() if method.name == "halt" else self.working:
                result = await self.carry_out(method, params)
            if request.id is not UNSET:
                await self.send(encode_line(Answer(id=request.id, result=result)))
        except Refusal as refusal:
            if request.id is not UNSET:
                await self.fail(request.id, refusal)
        finally:
            self.waiting.release()

    async def carry_out(self, method: Method, params: Params) -> Raw:
        """The encoded result. Raises Refusal. Every change is audited, also one that is refused or cut short."""
        if method.role is Role.VIEWER:
            result, _ = await self.ask_desk(method, params)
            return result
        outcome = "cut short: the daemon stops"
        try:
            if self.role is not Role.ADMIN:
                raise not_permitted(method, self.caller, self.server.admin_group)
            result, outcome = await self.ask_desk(method, params)
            return result
        except Refusal as refusal:
            outcome = f"{refusal.code.name.lower()}: {refusal.message}"
            raise
        finally:
            self.server.audit(self.caller, method.name, asked_for(params), outcome)

    async def ask_desk(self, method: Method, params: Params) -> tuple[Raw, str]:
        """The desk's answer, encoded, and its outcome in words; errors become Refusals."""
        seconds: float | None = getattr(params, "timeout_seconds", None)
        deadline = math.inf if seconds is None else trio.current_time() + seconds + GRACE_SECONDS
        with trio.CancelScope(deadline=deadline):
            try:
                result = await perform(method, params, self.server.desk, self.caller, self.role)
                return Raw(encode(result)), outcome_of(result)
            except FAULTS as error:
                raise refusal_of(method, params, error) from error
        raise Refusal(Code.TIMED_OUT, f"{method.name} took longer than {seconds:g} s; it may still take effect")

    async def follow(self, params: FollowParams, request: Request) -> None:
        """Events until the client closes, at the client's own pace: what it missed shows as a gap in `seq`."""
        if request.id is UNSET:
            return
        if self.following:
            raise Refusal(Code.BUSY, "this connection follows the events already")
        self.following = True
        try:
            answer = start_of_stream(self.server.desk, params)
            await self.send(encode_line(Answer(id=request.id, result=answer)))
            with self.follow_scope:
                await self.stream_events(answer.since)
        except FAULTS as error:
            raise refusal_of(METHODS["events_follow"], params, error) from error

    async def stream_events(self, since: int) -> None:
        while not self.gone:
            await self.server.desk.wait_event(since)
            events = self.server.desk.events_since(since, FOLLOW_BATCH)
            await self.send(b"".join(encode_line(EventNotice(params=event)) for event in events))
            since = events[-1].seq if events else since

    async def fail(self, request_id: Id, refusal: Refusal) -> None:
        """The error answer."""
        body = ErrorBody(code=int(refusal.code), message=refusal.message, data=refusal.data)
        await self.send(encode_line(Failure(id=request_id, error=body)))

    async def send(self, line: bytes) -> None:
        """In one piece. A client that does not take it in time is dropped."""
        async with self.send_lock:
            if self.gone:
                return
            with trio.move_on_after(SEND_SECONDS) as scope:
                try:
                    await self.stream.send_all(line)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.drop("connection closed")
            if scope.cancelled_caught:
                self.drop(f"did not read for {SEND_SECONDS:.0f} s")

    async def watch_hangup(self) -> None:
        """After its last request a client may still listen, or be gone: only a poll can tell the two apart."""
        poll = select.poll()
        poll.register(self.stream.socket.fileno(), 0)
        while not self.gone:
            if poll.poll(0):
                self.drop("connection closed")
                return
            await trio.sleep(HANGUP_SECONDS)

    def drop(self, why: str) -> None:
        """Read and send nothing more. Changes at work come to their end."""
        if not self.gone:
            log.debug("control.client_dropped", user=self.caller.name, pid=self.caller.pid, why=why)
        self.gone = True
        self.read_scope.cancel()
        self.follow_scope.cancel()


def start_of_stream(desk: Desk, params: FollowParams) -> FollowResult:
    """Where a stream begins: after `since`, or so that the last `lines` events come first."""
    newest = newest_event(desk)
    if params.since is not None:
        return FollowResult(since=params.since, newest=newest)
    last = desk.events_since(0, EVENTS_MAX)[-params.lines :] if params.lines else []
    return FollowResult(since=last[0].seq - 1 if last else newest, newest=newest)


def refusal_of(method: Method, params: Params, error: Exception) -> Refusal:
    """What the client is told of the desk's error; a bug is logged with its traceback."""
    match error:
        case Refusal():
            return error
        case ConfigError(lines=lines):
            return Refusal(Code.REFUSED, f"{method.name}: {len(lines)} errors in the configuration", {"errors": lines})
        case MmdError():
            return Refusal(Code.REFUSED, f"{method.name}: {error}")
        case LookupError() if hasattr(params, "symbols") or hasattr(params, "symbol"):
            pattern = str(error.args[0]) if error.args else ""
            return Refusal(Code.REFUSED, f"no symbol matches {pattern!r}", {"pattern": pattern})
    log.error("control.fault", method=method.name, error=error)
    return Refusal(Code.FAULT, f"{method.name} failed inside the daemon: {error!r}; its log has the traceback")


def not_permitted(method: Method, caller: Caller, admin_group: str | None) -> Refusal:
    group = f" and the members of group {admin_group}" if admin_group else ""
    return Refusal(
        Code.NOT_PERMITTED,
        f"{method.name} needs the admin role; {caller.name} (uid {caller.uid}) may only look. "
        f"Admins are root, the daemon's own user{group}",
        {"role": Role.VIEWER.value, "allowed": Role.ADMIN.value, "uid": caller.uid},
    )


def asked_for(params: Params) -> dict[str, Any]:
    """The params for the audit, plain values, what was left empty left out. None of them is ever a secret."""
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(params):
        value = getattr(params, field.name)
        if field.name != "timeout_seconds" and value not in ("", None):
            given[field.name] = f"{value:f}" if isinstance(value, Decimal) else value
    return given


def describe(params: dict[str, Any]) -> str:
    """What was asked, on one line: key=value."""
    return " ".join(f"{name}={_word(value)}" for name, value in params.items())


def _word(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else repr(value)


def outcome_of(result: object) -> str:
    """For the audit: how a change ended."""
    outcome = getattr(result, "outcome", "done")
    detail = getattr(result, "detail", "")
    return f"{outcome}: {detail}" if detail else str(outcome)


async def _turn_away(stream: trio.SocketStream) -> None:
    body = ErrorBody(code=int(Code.BUSY), message="too many clients are connected; try again", data={})
    with trio.move_on_after(SEND_SECONDS):
        try:
            await stream.send_all(encode_line(Failure(id=None, error=body)))
        except trio.BrokenResourceError:
            return


async def _name_of(uid: int) -> str:
    """The login name; its number as text where the name service does not answer soon."""
    with trio.move_on_after(NAME_SECONDS):
        return await trio.to_thread.run_sync(user_name, uid, abandon_on_cancel=True)
    return str(uid)
