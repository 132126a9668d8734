"""Derive's messages: answers, notifications, error codes, and decimals as the strings it sends.

Source: docs.derive.xyz (Connecting, Error codes). Where it says nothing, a comment says what is assumed.
"""

from decimal import Decimal

import msgspec

from mmd.sandbox.orders import Refuse
from mmd.sandbox.rpc import RpcError

# The code and text of every refusal of the engine that this dialect can meet.
REFUSALS: dict[Refuse, tuple[int, str]] = {
    Refuse.QTY_TOO_LOW: (11012, "Invalid amount"),
    Refuse.INVALID_AMOUNT: (11012, "Invalid amount"),
    Refuse.NOT_WHOLE_CONTRACTS: (11012, "Invalid amount"),
    Refuse.ORDER_OVERLAP: (11007, "Self-crossing disallowed"),
    Refuse.ORDER_NOT_FOUND: (11006, "Does not exist"),
    Refuse.NOT_OWNER: (11006, "Does not exist"),
    Refuse.ALREADY_CLOSED: (11003, "Already cancelled"),
    Refuse.ALREADY_FILLED: (11004, "Already filled"),
    Refuse.BOOK_CLOSED: (11021, "Instrument not live"),
    Refuse.LOCKED: (11021, "Instrument not live"),
    Refuse.SETTLEMENT: (11021, "Instrument not live"),
    Refuse.EXPIRED_BOOK: (11021, "Instrument not live"),
    Refuse.BAD_INSTRUMENT: (12001, "Instrument not found"),
    Refuse.INVALID_PRICE: (11013, "Invalid limit price"),
    Refuse.WRONG_TICK: (11013, "Invalid limit price"),
    Refuse.PRICE_TOO_HIGH: (11013, "Invalid limit price"),
    Refuse.PRICE_TOO_LOW: (11013, "Invalid limit price"),
    Refuse.NO_ROOM_TO_SLIDE: (11013, "Invalid limit price"),
    Refuse.OTHER_REJECT: (11025, "Reduce only order would increase position size"),
    Refuse.POST_ONLY_REJECT: (11008, "Post only order would cross the market"),
    Refuse.MMP_FROZEN: (11015, "MMP frozen"),
    Refuse.MMP_REQUIRED: (11015, "MMP frozen"),
    Refuse.TIMED_OUT: (11022, "Reject timestamp passed"),
}

encode = msgspec.json.Encoder().encode
TAIL = b"}}"
PONG = b"pong"


def plain(value: Decimal | float | None) -> str:
    """A number as text: no exponent, no trailing zeros; "0" for None."""
    if not value:
        return "0"
    text = f"{value if isinstance(value, Decimal) else Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def answer(request_id: object, result: object, error: RpcError | None = None) -> bytes:
    """The answer to one call; `error` wins over `result`. No `jsonrpc` key, as recorded."""
    if error is None:
        return encode({"id": request_id, "result": result})
    return encode({"id": request_id, "error": error.body()})


def notification_head(channel: str) -> bytes:
    """Everything of a notification before its data; `TAIL` closes it."""
    return b'{"method":"subscription","params":{"channel":' + encode(channel) + b',"data":'


def invalid_params(reason: str) -> RpcError:
    return RpcError(-32602, "Invalid params", reason)
