"""Bytes from a client to a request with checked params; every error names the key and what is allowed."""

import difflib
import re
from enum import Enum
from typing import get_type_hints

import msgspec

from mmd.control.protocol import LINE_MAX_BYTES, METHODS, Code, Id, Method, Params, Refusal, Request

_REQUESTS = msgspec.json.Decoder(Request)
_PARAMS = {name: msgspec.json.Decoder(method.params) for name, method in METHODS.items()}
_FIELD = re.compile(r"(?:unknown|required) field `(?P<named>[^`]*)`|- at `\$\.(?P<path>[^`.\[]+)|^(?P<own>[a-z_]+): ")
"""The key in the words of msgspec, or of a check of ours."""


class _Head(msgspec.Struct):
    """What is left of a bad request: perhaps its id."""

    id: Id = None


_HEADS = msgspec.json.Decoder(_Head)


class Overlong(Enum):
    """Stands for a line longer than the protocol allows; its bytes are gone."""

    LINE = "line"


class LineBuffer:
    """Chunks in, lines out, without their newline. Holds at most one line's worth of bytes."""

    def __init__(self, max_bytes: int = LINE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """Whole lines so far. An overlong one is reported once, when it exceeds the limit, and skipped."""
        lines: list[bytes | Overlong] = []
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            lines += self._add(part)
            if not self._skipping:
                lines.append(bytes(self._held))
            self._held.clear()
            self._skipping = False
        lines += self._add(rest)
        return lines

    def rest(self) -> bytes:
        """What came after the last newline; a client may close without one."""
        return bytes(self._held)

    def _add(self, part: bytes) -> list[bytes | Overlong]:
        if self._skipping:
            return []
        self._held += part
        if len(self._held) <= self._max_bytes:
            return []
        self._held.clear()
        self._skipping = True
        return [Overlong.LINE]


def parse_request(line: bytes) -> Request:
    """Raises Refusal GARBAGE or BAD_REQUEST."""
    try:
        return _REQUESTS.decode(line)
    except msgspec.ValidationError as error:
        _refuse_garbage(line)
        raise Refusal(
            Code.BAD_REQUEST,
            f"not a JSON-RPC 2.0 request: {error}",
            {"allowed": "one object a line with jsonrpc, method, params (an object) and id"},
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise garbage(str(error)) from error


def request_id(line: bytes) -> Id:
    """The id of a request that is otherwise wrong, None where it cannot be read."""
    try:
        return _HEADS.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def garbage(detail: str) -> Refusal:
    return Refusal(Code.GARBAGE, f"not JSON: {detail}", {"allowed": "one JSON object a line, UTF-8, at most 1 MiB"})


def find_method(name: str) -> Method:
    """Raises Refusal NO_METHOD with the nearest name."""
    method = METHODS.get(name)
    if method is not None:
        return method
    near = difflib.get_close_matches(name[:100], METHODS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    data: dict[str, object] = {"allowed": list(METHODS)}
    if near:
        data["suggestion"] = near[0]
    raise Refusal(Code.NO_METHOD, f"no method {name[:100]!r}{hint}", data)


def parse_params(method: Method, raw: msgspec.Raw) -> Params:
    """Raises Refusal BAD_PARAMS naming the key, or GARBAGE."""
    try:
        return _PARAMS[method.name].decode(raw)
    except msgspec.ValidationError as error:
        raise _bad_params(method, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise garbage(str(error)) from error


def _bad_params(method: Method, detail: str) -> Refusal:
    hints = get_type_hints(method.params, include_extras=True)
    match = _FIELD.search(detail)
    key = (match["named"] or match["path"] or match["own"] or "") if match else ""
    data: dict[str, object] = {"key": key, "allowed": list(hints)}
    if key in hints:
        data["allowed"] = allowed = _description(hints[key])
        detail = detail.removeprefix(f"{key}: ")
        return Refusal(Code.BAD_PARAMS, f"bad params of {method.name}: {key}: {detail}; allowed: {allowed}", data)
    message = f"bad params of {method.name}: {detail}; allowed: {', '.join(hints) or 'none'}"
    near = difflib.get_close_matches(key[:100], hints, n=1)
    if near:
        data["suggestion"] = near[0]
        message += f"; did you mean {near[0]}?"
    return Refusal(Code.BAD_PARAMS, message, data)


def _description(hint: object) -> str:
    """The outermost description of an annotated type."""
    texts = [meta.description for meta in getattr(hint, "__metadata__", ()) if meta.description]
    return texts[-1] if texts else str(hint)


def _refuse_garbage(line: bytes) -> None:
    """A shape can be refused before the rest of the line was read: is it JSON at all?"""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise garbage(str(error)) from error
