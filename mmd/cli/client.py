"""The client's end of the control socket: blocking, one request at a time, standard library and msgspec only."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from mmd.control.protocol import Code, ErrorBody, EventNotice, encode_line
from mmd.domain.errors import MmdError
from mmd.shell.desk import EventLine

DEFAULT_SOCKET = "/run/mmd/mmd.sock"
CHUNK_BYTES = 65_536
ANSWER_MAX_BYTES = 64 * 1024 * 1024


class NoDaemon(MmdError):
    """Nothing answers at the socket's path."""


class Forbidden(MmdError):
    """The socket may not be opened, or the command needs a role that the caller has not."""


class NoAnswer(MmdError):
    """The daemon did not answer in time, or went away first: the command may still take effect."""


class Refused(MmdError):
    """A definite no from the daemon. `reasons` holds one line each."""

    def __init__(self, body: ErrorBody) -> None:
        super().__init__(body.message)
        self.body = body
        errors = body.data.get("errors")
        self.reasons = [str(line) for line in errors] if isinstance(errors, list) else []


class _Answer(msgspec.Struct):
    """Any line of the server: `result` or `error`, or neither (a notification)."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: ErrorBody | None = None


def default_socket(environment: Mapping[str, str]) -> Path:
    """$MMD_SOCKET, else mmd.sock in the first of $RUNTIME_DIRECTORY, else /run/mmd/mmd.sock."""
    if named := environment.get("MMD_SOCKET"):
        return Path(named)
    if folders := environment.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / "mmd.sock"
    return Path(DEFAULT_SOCKET)


class Client:
    """One connection. Every error names the path."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        """Raises NoDaemon, Forbidden or NoAnswer."""
        self.path = path
        self._held = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.connect(os.fspath(path))
        except PermissionError as error:
            self.close()
            raise Forbidden(f"may not open {path}: are you in the daemon's group?") from error
        except (TimeoutError, BlockingIOError) as error:
            self.close()
            raise NoAnswer(f"the daemon at {path} takes no connections now") from error
        except OSError as error:
            self.close()
            raise NoDaemon(f"no daemon answers at {path}: {error.strerror or error}") from error

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, params: msgspec.Struct | dict[str, object], timeout_seconds: float) -> msgspec.Raw:
        """The result's bytes. Raises Refused, Forbidden, NoDaemon or NoAnswer."""
        deadline = time.monotonic() + timeout_seconds
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            self._socket.settimeout(timeout_seconds)
            self._socket.sendall(encode_line(request))
        except TimeoutError as error:
            raise self._late(method, timeout_seconds) from error
        except OSError:
            pass  # a daemon that turns us away says why before it closes: read it
        while True:
            answer = self._decode(self._read_line(deadline, method, timeout_seconds))
            if answer.error is not None:
                raise _refusal(answer.error)
            if answer.id == 1:
                return answer.result

    def events(self) -> Iterator[EventLine]:
        """After `events_follow`: events for ever. Raises NoDaemon when the daemon closes."""
        self._socket.settimeout(None)
        while True:
            line = self._read_line(None, "events_follow", 0)
            try:
                yield msgspec.json.decode(line, type=EventNotice).params
            except msgspec.ValidationError as error:
                raise NoAnswer(f"the daemon at {self.path} sent an event that is none: {error}") from error

    def _read_line(self, deadline: float | None, method: str, timeout_seconds: float) -> bytes:
        parts = [self._held]
        size = len(self._held)
        while b"\n" not in parts[-1]:
            if deadline is not None:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                chunk = self._socket.recv(CHUNK_BYTES)
            except TimeoutError as error:
                raise self._late(method, timeout_seconds) from error
            except OSError as error:
                raise NoAnswer(f"lost the daemon at {self.path}: {error.strerror or error}") from error
            if not chunk:
                if deadline is None:
                    raise NoDaemon(f"the daemon at {self.path} has closed the connection: did it stop?")
                raise NoAnswer(f"the daemon at {self.path} closed the connection before it answered {method}")
            parts.append(chunk)
            size += len(chunk)
            if size > ANSWER_MAX_BYTES:
                raise NoAnswer(f"the daemon at {self.path} sent more than {ANSWER_MAX_BYTES} bytes in one line")
        line, self._held = b"".join(parts).split(b"\n", 1)
        return line

    def _decode(self, line: bytes) -> _Answer:
        try:
            return msgspec.json.decode(line, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswer(f"what answers at {self.path} does not speak mmd's protocol: {error}") from error

    def _late(self, method: str, timeout_seconds: float) -> NoAnswer:
        return NoAnswer(
            f"the daemon at {self.path} did not answer {method} within {timeout_seconds:g} s; it may still take effect"
        )


def _refusal(body: ErrorBody) -> MmdError:
    match body.code:
        case Code.NOT_PERMITTED:
            return Forbidden(body.message)
        case Code.TIMED_OUT | Code.BUSY:
            return NoAnswer(body.message)
        case _:
            return Refused(body)
