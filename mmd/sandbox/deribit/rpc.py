"""JSON-RPC as Deribit has it: answers and notifications out, errors with its codes, parameters read."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from mmd.sandbox.orders import Refuse, Refused
from mmd.sandbox.rpc import RpcError

CODES: dict[Refuse, int] = {
    Refuse.QTY_TOO_LOW: 10002,
    Refuse.ORDER_OVERLAP: 10003,
    Refuse.ORDER_NOT_FOUND: 10004,
    Refuse.PRICE_TOO_LOW: 10005,
    Refuse.PRICE_TOO_HIGH: 10007,
    Refuse.ALREADY_CLOSED: 10010,
    Refuse.BOOK_CLOSED: 10012,
    Refuse.LOCKED: 10019,
    Refuse.BAD_INSTRUMENT: 10020,
    Refuse.INVALID_AMOUNT: 10021,
    Refuse.INVALID_PRICE: 10023,
    Refuse.NOT_WHOLE_CONTRACTS: 10027,
    Refuse.NOT_OWNER: 10029,
    Refuse.BAD_ARGUMENTS: 10031,
    Refuse.SETTLEMENT: 10041,
    Refuse.WRONG_TICK: 10043,
    Refuse.ALREADY_FILLED: 11008,
    Refuse.NO_ROOM_TO_SLIDE: 11021,
    Refuse.OTHER_REJECT: 11030,
    Refuse.NOT_OPEN: 11044,
    Refuse.POST_ONLY_REJECT: 11054,
    Refuse.POST_ONLY_NOT_ALLOWED: 11055,
    Refuse.EXPIRED_BOOK: 13019,
    Refuse.MMP_FROZEN: 13030,
    Refuse.NOT_UNIQUE: 13032,
    Refuse.MMP_REQUIRED: 13040,
    Refuse.TIMED_OUT: 13888,
}

_encoder = msgspec.json.Encoder(decimal_format="number")
encode = _encoder.encode


def refusal(error: Refused) -> RpcError:
    """The wire form of the engine's refusal."""
    return RpcError(CODES[error.why], str(error))


def invalid_param(param: str, reason: str) -> RpcError:
    return RpcError(-32602, "Invalid params", {"param": param, "reason": reason})


def unauthorized(reason: str = "invalid_token") -> RpcError:
    return RpcError(13009, "unauthorized", {"reason": reason, "param": "token"})


def answer(
    request_id: int | str | float | None, result: object, us_in: int, us_out: int, error: RpcError | None = None
) -> bytes:
    """The answer to one call; `error` wins over `result`. Calls without an id are answered without one."""
    message: dict[str, object] = {"jsonrpc": "2.0"}
    if request_id is not None:
        message["id"] = request_id
    if error is None:
        message["result"] = result
    else:
        message["error"] = error.body()
    message["usIn"] = us_in
    message["usOut"] = us_out
    message["usDiff"] = us_out - us_in
    message["testnet"] = True
    return encode(message)


def notification_head(channel: str) -> bytes:
    """Everything of a notification before its data; `TAIL` closes it."""
    return b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":' + encode(channel) + b',"data":'


TAIL = b"}}"
HEARTBEAT = encode({"params": {"type": "heartbeat"}, "method": "heartbeat", "jsonrpc": "2.0"})
TEST_REQUEST = encode({"params": {"type": "test_request"}, "method": "heartbeat", "jsonrpc": "2.0"})


class Params:
    """The parameters of one call. Values are raw JSON, or plain text from a query string.

    Every getter raises -32602 with `param` and `reason` for a value of the wrong shape.
    """

    def __init__(self, values: Mapping[str, msgspec.Raw | str]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._get(name) is not None

    def _get(self, name: str) -> msgspec.Raw | str | None:
        value = self._values.get(name)
        return None if value is None or (not isinstance(value, str) and bytes(value) == b"null") else value

    def _required(self, name: str) -> msgspec.Raw | str:
        value = self._get(name)
        if value is None:
            raise invalid_param(name, "value required")
        return value

    @staticmethod
    def _parse(name: str, value: msgspec.Raw, kind: Any, reason: str) -> Any:
        try:
            return msgspec.json.decode(value, type=kind)
        except msgspec.DecodeError:
            raise invalid_param(name, reason) from None

    def text(self, name: str, default: str | None = None) -> str:
        """A string; required when there is no default."""
        if default is not None and self._get(name) is None:
            return default
        value = self._required(name)
        return value if isinstance(value, str) else str(self._parse(name, value, str, "value must be a string"))

    def number(self, name: str) -> Decimal:
        """A finite JSON number, exact. Strings are numbers only in a query string."""
        value = self._required(name)
        try:
            number = Decimal(value if isinstance(value, str) else bytes(value).decode())
        except InvalidOperation:
            raise invalid_param(name, "value must be a number") from None
        if not number.is_finite() or abs(number.adjusted()) > 20:
            raise invalid_param(name, "value must be a finite number")
        return number

    def optional_number(self, name: str) -> Decimal | None:
        return self.number(name) if name in self else None

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; required when there is no default."""
        if default is not None and name not in self:
            return default
        number = self.number(name)
        if number % 1:
            raise invalid_param(name, "value must be an integer")
        return int(number)

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name) if name in self else None

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, str):
            if value not in ("true", "false"):
                raise invalid_param(name, "value must be a boolean")
            return value == "true"
        return bool(self._parse(name, value, bool, "value must be a boolean"))

    def optional_flag(self, name: str) -> bool | None:
        return self.flag(name) if name in self else None

    def choice(self, name: str, options: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(name, default)
        if value not in options:
            raise invalid_param(name, f"value must be one of: {', '.join(options)}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; in a query string a JSON list or one plain value."""
        value = self._required(name)
        if isinstance(value, str):
            if not value.startswith("["):
                return [value]
            value = msgspec.Raw(value.encode())
        return list(self._parse(name, value, list[str], "value must be a list of strings"))
