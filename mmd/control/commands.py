"""The command layer: one checked request to the desk, and the shape of what comes back."""

from decimal import Decimal
from typing import assert_never

from mmd import __version__
from mmd.control.protocol import (
    EVENTS_MAX,
    PROTOCOL,
    AcceptParams,
    AlertsResult,
    CasesParams,
    CasesResult,
    ChangeParams,
    Code,
    ConfirmParams,
    EventsParams,
    EventsResult,
    ExplainResult,
    FlattenParams,
    FlattenResult,
    LedgerResult,
    LogLevelParams,
    LogLevelResult,
    Method,
    NoParams,
    OrdersResult,
    Params,
    PositionsResult,
    PreviewParams,
    ProtectionResetParams,
    ProtectionResult,
    Refusal,
    ReloadParams,
    ResetParams,
    RiskResult,
    Role,
    ShadowParams,
    ShowParams,
    ShowResult,
    SwitchesResult,
    VersionResult,
    ViewParams,
)
from mmd.control.verdict import explained
from mmd.shell.desk import (
    Caller,
    ChangeResult,
    Desk,
    EventQuery,
    FlattenPreview,
    PlanResult,
    ProtectionLine,
    ReloadResult,
    Status,
    SymbolStatus,
)

MATCHES_SHOWN = 5

Result = (
    VersionResult
    | Status
    | ShowResult
    | ExplainResult
    | OrdersResult
    | PositionsResult
    | RiskResult
    | LedgerResult
    | SwitchesResult
    | AlertsResult
    | ProtectionResult
    | ProtectionLine
    | CasesResult
    | FlattenPreview
    | PlanResult
    | EventsResult
    | ChangeResult
    | ReloadResult
    | LogLevelResult
)


async def perform(method: Method, params: Params, desk: Desk, caller: Caller, role: Role) -> Result:
    """Carry out one request whose caller is allowed to make it. Raises what the desk raises."""
    match params:
        case ViewParams() | ShowParams():
            return look(method.name, params, desk)
        case EventsParams():
            return await find_events(params, desk)
        case NoParams() if method.name == "version":
            return VersionResult(version=__version__, protocol=PROTOCOL, role=role, user=caller.name)
        case NoParams() if method.name == "plan":
            return await desk.plan()
        case NoParams():
            return overview(method.name, desk)
        case CasesParams(symbols=symbols, closed=closed):
            return CasesResult(cases=desk.cases(symbols, closed))
        case AcceptParams(number=number, reason=reason, timeout_seconds=timeout):
            return await desk.accept(number, reason, caller, timeout)
        case PreviewParams(symbol=pattern, size=size, slippage_bps=slippage):
            return desk.flatten_preview(key_of(only(desk, pattern)), size, slippage)
        case FlattenParams():
            return await flatten(params, desk, caller)
        case ProtectionResetParams(exchange=exchange, underlying=underlying, reason=reason):
            return await desk.reset_protection(exchange, underlying, reason, caller)
        case ChangeParams() | ResetParams():
            return await change(method.name, params, desk, caller)
        case ShadowParams(symbols=symbols, on=on, reason=reason, timeout_seconds=timeout):
            return await desk.shadow(symbols, on, reason, caller, timeout)
        case ReloadParams(confirm_seconds=confirm_seconds):
            return await desk.reload(confirm_seconds, caller)
        case ConfirmParams():
            return await desk.confirm(caller)
        case LogLevelParams(level=level):
            return LogLevelResult(detail=desk.set_log_level(level, caller))
        case _:
            raise AssertionError(f"no handler for {method.name}")


async def find_events(params: EventsParams, desk: Desk) -> EventsResult:
    """Those in memory and those in the journal."""
    answer = await desk.find_events(
        EventQuery(
            above=params.since,
            below=None if params.until is None else params.until + 1,
            since=params.since_time or 0.0,
            until=params.until_time,
            name=params.name,
            symbol=params.symbol,
            lines=params.lines,
        )
    )
    return EventsResult(newest=answer.newest, events=answer.events, cut=answer.cut)


def look(name: str, params: ViewParams | ShowParams, desk: Desk) -> Result:
    """Requests that change nothing and need not wait."""
    match params:
        case ShowParams(what="config"):
            return ShowResult(config=desk.config(), symbols=[])
        case ShowParams(symbols=symbols):
            return ShowResult(config=None, symbols=desk.status(symbols).symbols)
        case ViewParams(symbols=symbols):
            match name:
                case "status":
                    return desk.status(symbols)
                case "explain":
                    return ExplainResult(symbols=explained(desk.explain(symbols), desk.status(symbols).symbols))
                case "orders":
                    return OrdersResult(orders=desk.orders(symbols))
                case "positions":
                    return PositionsResult(positions=desk.positions(symbols))
                case "ledger":
                    return LedgerResult(ledgers=desk.ledger(symbols))
            raise AssertionError(f"no handler for {name}")
    assert_never(params)


def overview(name: str, desk: Desk) -> Result:
    """What is asked of the whole service."""
    match name:
        case "risk":
            return RiskResult(totals=desk.risk())
        case "switches":
            return SwitchesResult(switches=desk.switches())
        case "alerts":
            return AlertsResult(alerts=desk.alerts())
        case "protection":
            return ProtectionResult(protections=desk.protection())
    raise AssertionError(f"no handler for {name}")


def only(desk: Desk, pattern: str) -> SymbolStatus:
    """The one symbol that `pattern` means. Raises Refusal where it means several, LookupError where none."""
    rows = desk.status([pattern]).symbols
    if not rows:
        raise KeyError(pattern)
    if len(rows) > 1:
        keys = [key_of(row) for row in rows]
        named = ", ".join(keys[:MATCHES_SHOWN]) + (" and more" if len(keys) > MATCHES_SHOWN else "")
        raise Refusal(
            Code.REFUSED, f"{pattern!r} matches {len(keys)} symbols, wanted is exactly one: {named}", {"matches": keys}
        )
    return rows[0]


def key_of(row: SymbolStatus) -> str:
    return f"{row.exchange}/{row.symbol}"


async def flatten(params: FlattenParams, desk: Desk, caller: Caller) -> FlattenResult:
    """Close it, then look at what came of it: an answer `done` alone does not say how much is left."""
    before = only(desk, params.symbol)
    key = key_of(before)
    result = await desk.flatten(key, params.size, params.limit_price, params.reason, caller, params.timeout_seconds)
    position = _position(desk, key)
    closed = None if position is None else (before.position - position) * (1 if before.position > 0 else -1)
    return FlattenResult(
        outcome=result.outcome, detail=result.detail, symbols=result.symbols, closed=closed, position=position
    )


def _position(desk: Desk, key: str) -> Decimal | None:
    """None where a reload has taken the symbol away meanwhile."""
    try:
        rows = desk.status([key]).symbols
    except LookupError:
        return None
    return rows[0].position if rows else None


async def change(name: str, params: ChangeParams | ResetParams, desk: Desk, caller: Caller) -> ChangeResult:
    """pause, resume, halt, reset."""
    do = {"pause": desk.pause, "resume": desk.resume, "halt": desk.halt, "reset": desk.reset}[name]
    return await do(params.symbols, params.reason, caller, params.timeout_seconds)


def newest_event(desk: Desk, since: int = 0) -> int:
    """Number of the newest event, 0 if there is none. `since`: where to look first, to look at less."""
    for start in (since, 0):
        events = desk.events_since(start, EVENTS_MAX)
        if events:
            return events[-1].seq
    return 0
