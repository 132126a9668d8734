"""The command layer: one checked request to the desk, and the shape of what comes back."""

from typing import assert_never

from mmd import __version__
from mmd.control.protocol import (
    EVENTS_MAX,
    PROTOCOL,
    ChangeParams,
    ConfirmParams,
    EventsParams,
    EventsResult,
    ExplainResult,
    LogLevelParams,
    LogLevelResult,
    Method,
    NoParams,
    OrdersResult,
    Params,
    PositionsResult,
    ReloadParams,
    ResetParams,
    Role,
    ShadowParams,
    ShowParams,
    ShowResult,
    VersionResult,
    ViewParams,
)
from mmd.shell.desk import Caller, ChangeResult, Desk, PlanResult, ReloadResult, Status

Result = (
    VersionResult
    | Status
    | ShowResult
    | ExplainResult
    | OrdersResult
    | PositionsResult
    | PlanResult
    | EventsResult
    | ChangeResult
    | ReloadResult
    | LogLevelResult
)


async def perform(method: Method, params: Params, desk: Desk, caller: Caller, role: Role) -> Result:
    """Carry out one request whose caller is allowed to make it. Raises what the desk raises."""
    match params:
        case ViewParams() | ShowParams() | EventsParams():
            return look(method.name, params, desk)
        case NoParams() if method.name == "version":
            return VersionResult(version=__version__, protocol=PROTOCOL, role=role, user=caller.name)
        case NoParams():
            assert method.name == "plan", method.name
            return await desk.plan()
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


def look(name: str, params: ViewParams | ShowParams | EventsParams, desk: Desk) -> Result:
    """Requests that change nothing and need not wait."""
    match params:
        case EventsParams(since=since, lines=lines):
            events = desk.events_since(since, EVENTS_MAX)
            return EventsResult(newest=newest_event(desk, since), events=events[-lines:] if lines else [])
        case ShowParams(what="config"):
            return ShowResult(config=desk.config(), symbols=[])
        case ShowParams(symbols=symbols):
            return ShowResult(config=None, symbols=desk.status(symbols).symbols)
        case ViewParams(symbols=symbols):
            match name:
                case "status":
                    return desk.status(symbols)
                case "explain":
                    return ExplainResult(symbols=desk.explain(symbols))
                case "orders":
                    return OrdersResult(orders=desk.orders(symbols))
                case "positions":
                    return PositionsResult(positions=desk.positions(symbols))
            raise AssertionError(f"no handler for {name}")
    assert_never(params)


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
