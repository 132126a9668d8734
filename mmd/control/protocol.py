"""The words on the control socket: JSON-RPC 2.0, one object a line; methods, params, results, roles, errors.

Nothing here waits or touches a socket, so the blocking client reads the same definitions as the
server. Decimals travel as JSON numbers, times as Unix seconds.
"""

from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from mmd.domain.errors import MmdError
from mmd.shell.desk import (
    AlertLine,
    CaseLine,
    ChangeResult,
    EventLine,
    Explanation,
    FlattenPreview,
    LedgerLine,
    OrderLine,
    PlanResult,
    PositionLine,
    ProtectionLine,
    ReloadResult,
    Status,
    SwitchLine,
    SymbolStatus,
    TotalLine,
)

PROTOCOL = 1
LINE_MAX_BYTES = 1024 * 1024
EVENTS_MAX = 10_000
DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_SLIPPAGE_BPS = 50.0
DIGITS_MAX = 18  # of an amount or a price, on each side of the point
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*(?![\s\S])"
"""No control characters: what operators write ends in logs and on terminals. The last part is a strict end."""
NOT_BLANK = r"^(?=.*[^ ])[^\x00-\x1f\x7f-\x9f]*(?![\s\S])"


class Role(StrEnum):
    VIEWER = "viewer"
    ADMIN = "admin"


class Code(IntEnum):
    """Error codes. Below -32600 as JSON-RPC says, -3200x ours."""

    GARBAGE = -32700
    BAD_REQUEST = -32600
    NO_METHOD = -32601
    BAD_PARAMS = -32602
    FAULT = -32603
    NOT_PERMITTED = -32001
    REFUSED = -32002
    BUSY = -32003
    TIMED_OUT = -32004


class Refusal(MmdError):
    """Why a request gets no result; becomes the error object of the answer."""

    def __init__(self, code: Code, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data or {}


# --- params: unknown keys are refused, every key says what is allowed ------------------------------

Pattern = Annotated[str, Meta(min_length=1, max_length=200, pattern=ONE_LINE)]
AnySymbols = Annotated[
    list[Pattern], Meta(max_length=1000, description='symbols, exchange/symbol, globs or "all" (the default)')
]
Symbols = Annotated[
    list[Pattern],
    Meta(min_length=1, max_length=1000, description='at least one symbol, exchange/symbol, glob or "all"'),
]
Reason = Annotated[str, Meta(max_length=500, pattern=ONE_LINE, description="one line of at most 500 characters")]
GivenReason = Annotated[
    str,
    Meta(min_length=1, max_length=500, pattern=NOT_BLANK, description="one line of 1 to 500 characters, not blank"),
]
Timeout = Annotated[
    float, Meta(ge=0, le=600, description="seconds to wait until the change is true, 0 to 600 (default 10)")
]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1, description="number of an event, 0 or more")]
OneSymbol = Annotated[
    Pattern, Meta(description="exactly one symbol: a name, exchange/symbol, or a glob that matches one")
]
Above = {"exclusiveMinimum": 0}
Amount = Annotated[
    Decimal | None,
    Meta(
        description="in the exchange's units, exact: above 0, at most 18 digits on each side of the point; null: all",
        extra_json_schema=Above,
    ),
]
Price = Annotated[
    Decimal,
    Meta(
        description="in the exchange's units, exact: above 0, at most 18 digits on each side of the point",
        extra_json_schema=Above,
    ),
]
Slippage = Annotated[float, Meta(ge=0, le=10_000, description="basis points from the mark, 0 to 10000 (default 50)")]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=ONE_LINE, description="a name on one line")]
Time = Annotated[float, Meta(ge=0, le=1e11)]
Lines = Annotated[int, Meta(ge=0, le=EVENTS_MAX, description=f"number of events, 0 to {EVENTS_MAX}")]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Root of all params."""


class NoParams(Params, frozen=True, kw_only=True):
    """An empty object, or no params at all."""


class ViewParams(Params, frozen=True, kw_only=True):
    symbols: AnySymbols = msgspec.field(default_factory=lambda: ["all"])


class ShowParams(Params, frozen=True, kw_only=True):
    what: Annotated[Literal["config", "symbols"], Meta(description='"config" or "symbols" (the default)')] = "symbols"
    symbols: AnySymbols = msgspec.field(default_factory=lambda: ["all"])


class ChangeParams(Params, frozen=True, kw_only=True):
    symbols: Symbols
    reason: Reason = ""
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS


class ResetParams(Params, frozen=True, kw_only=True):
    """Leaving HALTED needs a reason: somebody looked."""

    symbols: Symbols
    reason: GivenReason
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS


class CasesParams(Params, frozen=True, kw_only=True):
    symbols: AnySymbols = msgspec.field(default_factory=lambda: ["all"])
    closed: Annotated[bool, Meta(description="true: the last 1,000 closed ones as well")] = False


class AcceptParams(Params, frozen=True, kw_only=True):
    """Taking the exchange's word needs a reason: somebody has looked."""

    number: Annotated[int, Meta(ge=1, le=2**63 - 1, description="number of a case, 1 or more")]
    reason: GivenReason
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS


class ShadowParams(Params, frozen=True, kw_only=True):
    symbols: Symbols
    on: Annotated[bool, Meta(description="true keeps the orders to ourselves, false goes back to the config's mode")]
    reason: Reason = ""
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS


class PreviewParams(Params, frozen=True, kw_only=True):
    """What would closing cost? `size`: how much of the position."""

    symbol: OneSymbol
    size: Amount = None
    slippage_bps: Slippage = DEFAULT_SLIPPAGE_BPS

    def __post_init__(self) -> None:
        check_decimal("size", self.size)


class FlattenParams(Params, frozen=True, kw_only=True):
    """Close `size` of the position at `limit_price` or better; both as a preview said."""

    symbol: OneSymbol
    size: Amount = None
    limit_price: Price
    reason: Reason = ""
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        check_decimal("size", self.size)
        check_decimal("limit_price", self.limit_price)


class ProtectionResetParams(Params, frozen=True, kw_only=True):
    """Ending a freeze needs a reason: somebody looked at the fills."""

    exchange: Name
    underlying: Name
    reason: GivenReason


class ReloadParams(Params, frozen=True, kw_only=True):
    """`confirm_seconds`: undo the reload then, unless `confirm` came."""

    confirm_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=86400)] | None, Meta(description="seconds, above 0, at most 86400, or null")
    ] = None
    reason: Reason = ""


class ConfirmParams(Params, frozen=True, kw_only=True):
    reason: Reason = ""


class LogLevelParams(Params, frozen=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Meta(description="debug, info, warning, error or critical"),
    ]
    reason: Reason = ""


class EventsParams(Params, frozen=True, kw_only=True):
    """Events numbered above `since` and up to `until`, between two times, of a name and a symbol; the last `lines`.

    What the daemon does not remember any more is read from its journal, for a few seconds at most.
    """

    since: Sequence = 0
    until: Annotated[Sequence | None, Meta(description="number of an event, 0 or more, or null")] = None
    since_time: Annotated[Time | None, Meta(description="Unix seconds, or null")] = None
    until_time: Annotated[Time | None, Meta(description="Unix seconds, or null")] = None
    name: Annotated[Pattern, Meta(description='name of an event, or a glob ("*" is the default)')] = "*"
    symbol: Annotated[Pattern, Meta(description='symbol, exchange/symbol or a glob ("*" is the default)')] = "*"
    lines: Lines = EVENTS_MAX


class FollowParams(Params, frozen=True, kw_only=True):
    """Start after `since`; null: start with the last `lines` events, then whatever comes."""

    since: Annotated[Sequence | None, Meta(description="number of an event, 0 or more, or null")] = None
    lines: Lines = 0


def check_decimal(key: str, value: Decimal | None) -> None:
    """Raises ValueError naming the key. A number of a billion digits would keep the daemon busy: there is a bound."""
    if value is None:
        return
    if not value.is_finite() or value <= 0:
        raise ValueError(f"{key}: {value} is not a number above 0")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "finite"
    if value.adjusted() >= DIGITS_MAX or exponent < -DIGITS_MAX:
        raise ValueError(f"{key}: more than {DIGITS_MAX} digits on one side of the point")


# --- results ---------------------------------------------------------------------------------------


class VersionResult(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    protocol: int
    role: Role  # what this connection may do
    user: str


class ShowResult(msgspec.Struct, frozen=True, kw_only=True):
    """`config` is the effective YAML, secrets masked; null where symbols were asked for."""

    config: str | None
    symbols: list[SymbolStatus]


class Explained(Explanation, frozen=True, kw_only=True):
    """An explanation with its verdict: what withholds each side, null where nothing does, and what would end it."""

    shown: str
    by: str
    since: float  # Unix seconds
    withheld_bid: str | None
    withheld_ask: str | None
    ends: str  # empty where nothing but the market withholds
    refusal: str | None  # the gate's last no


class ExplainResult(msgspec.Struct, frozen=True, kw_only=True):
    symbols: list[Explained]


class OrdersResult(msgspec.Struct, frozen=True, kw_only=True):
    orders: list[OrderLine]


class PositionsResult(msgspec.Struct, frozen=True, kw_only=True):
    positions: list[PositionLine]


class RiskResult(msgspec.Struct, frozen=True, kw_only=True):
    totals: list[TotalLine]


class CasesResult(msgspec.Struct, frozen=True, kw_only=True):
    cases: list[CaseLine]


class LedgerResult(msgspec.Struct, frozen=True, kw_only=True):
    ledgers: list[LedgerLine]


class SwitchesResult(msgspec.Struct, frozen=True, kw_only=True):
    switches: list[SwitchLine]


class AlertsResult(msgspec.Struct, frozen=True, kw_only=True):
    alerts: list[AlertLine]


class ProtectionResult(msgspec.Struct, frozen=True, kw_only=True):
    protections: list[ProtectionLine]


class FlattenResult(ChangeResult, frozen=True, kw_only=True):
    """`closed`: by how much the position shrank; `position`: what is left. Null: the symbol has gone meanwhile."""

    closed: Decimal | None
    position: Decimal | None


class LogLevelResult(msgspec.Struct, frozen=True, kw_only=True):
    detail: str


class EventsResult(msgspec.Struct, frozen=True, kw_only=True):
    """`newest`: the number of the newest event the daemon knows, 0 if there is none.

    `cut`: why older events that were asked for may be missing; empty where none is.
    """

    newest: int
    events: list[EventLine]
    cut: str = ""


class FollowResult(msgspec.Struct, frozen=True, kw_only=True):
    """The stream is on; notifications `event` follow, the first numbered above `since`."""

    since: int
    newest: int


class Method(msgspec.Struct, frozen=True):
    """One row of the table of methods. Those that need ADMIN are changes, and audited."""

    name: str
    params: type[Params]
    result: type[msgspec.Struct]
    role: Role
    summary: str


METHODS = {
    method.name: method
    for method in (
        Method("version", NoParams, VersionResult, Role.VIEWER, "Version of the daemon, and who you are to it."),
        Method("status", ViewParams, Status, Role.VIEWER, "The service, its exchanges and symbols."),
        Method("show", ShowParams, ShowResult, Role.VIEWER, "Symbols in full, or the effective config."),
        Method("explain", ViewParams, ExplainResult, Role.VIEWER, "How each quote comes about, and each check."),
        Method("orders", ViewParams, OrdersResult, Role.VIEWER, "Our orders."),
        Method("positions", ViewParams, PositionsResult, Role.VIEWER, "Our positions and their profit."),
        Method("risk", NoParams, RiskResult, Role.VIEWER, "Every total: used, at worst, allowed."),
        Method("ledger", ViewParams, LedgerResult, Role.VIEWER, "The account of each symbol, real and shadow apart."),
        Method("switches", NoParams, SwitchesResult, Role.VIEWER, "The kill switches and what they hold."),
        Method("alerts", NoParams, AlertsResult, Role.VIEWER, "Alerts that last."),
        Method("protection", NoParams, ProtectionResult, Role.VIEWER, "The exchanges' own maker protection."),
        Method("cases", CasesParams, CasesResult, Role.VIEWER, "Differences between the exchanges and us."),
        Method("flatten_preview", PreviewParams, FlattenPreview, Role.VIEWER, "What closing a position would cost."),
        Method("plan", NoParams, PlanResult, Role.VIEWER, "What a reload would change."),
        Method("events", EventsParams, EventsResult, Role.VIEWER, "One batch of events."),
        Method("events_follow", FollowParams, FollowResult, Role.VIEWER, "Events as they happen."),
        Method("pause", ChangeParams, ChangeResult, Role.ADMIN, "Stop quoting, pull the orders."),
        Method("resume", ChangeParams, ChangeResult, Role.ADMIN, "Quote, if every readiness check passes."),
        Method("halt", ChangeParams, ChangeResult, Role.ADMIN, "Emergency stop; only `reset` leaves it."),
        Method("reset", ResetParams, ChangeResult, Role.ADMIN, "From HALTED to PAUSED."),
        Method("accept", AcceptParams, ChangeResult, Role.ADMIN, "Take the exchange's word in an open case."),
        Method("flatten", FlattenParams, FlattenResult, Role.ADMIN, "Close a position, reduce-only, never resting."),
        Method(
            "protection_reset", ProtectionResetParams, ProtectionLine, Role.ADMIN, "End a freeze of maker protection."
        ),
        Method("shadow", ShadowParams, ChangeResult, Role.ADMIN, "Keep orders to ourselves, or not any more."),
        Method("reload", ReloadParams, ReloadResult, Role.ADMIN, "Apply the files on disk, all or nothing."),
        Method("confirm", ConfirmParams, ReloadResult, Role.ADMIN, "Keep a reload that waits for it."),
        Method("log_level", LogLevelParams, LogLevelResult, Role.ADMIN, "How much the daemon logs."),
    )
}

# --- the envelope ----------------------------------------------------------------------------------

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | str | None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `id` it is a notification: carried out, never answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = Raw(b"{}")
    id: Id | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: Literal["2.0"] = "2.0"
    id: Id
    result: Any


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """`data` may name `key`, `allowed`, `suggestion`, `pattern`, `matches`, `role`, `errors`."""

    code: int
    message: str
    data: dict[str, Any]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is null where the request's could not be read."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: Id
    error: ErrorBody


class EventNotice(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: Literal["2.0"] = "2.0"
    method: Literal["event"] = "event"
    params: EventLine


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def encode(value: object) -> bytes:
    """JSON without a newline; decimals are numbers."""
    return _ENCODER.encode(value)


def encode_line(value: object) -> bytes:
    """What goes over the socket: one object, one newline."""
    return _ENCODER.encode(value) + b"\n"
