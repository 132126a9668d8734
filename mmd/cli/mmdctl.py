"""The program mmdctl: ask the running daemon, or tell it what to do."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from mmd import __version__
from mmd.cli import case_views, risk_views, status_views, views
from mmd.cli.arguments import LINES_DEFAULT, parser
from mmd.cli.call import ERRORS, GRACE_SECONDS, OUTCOMES, Call, Exit, complain, mute, say
from mmd.cli.client import Client, NoAnswer, NoDaemon, Refused
from mmd.cli.flatten import run_flatten
from mmd.cli.moments import Instant, Moment
from mmd.cli.tables import clean, number, page_of
from mmd.control.protocol import (
    EVENTS_MAX,
    AlertsResult,
    CasesResult,
    EventsResult,
    ExplainResult,
    FollowResult,
    LedgerResult,
    LogLevelResult,
    OrdersResult,
    PositionsResult,
    ProtectionResult,
    RiskResult,
    ShowResult,
    SwitchesResult,
    VersionResult,
    encode,
)
from mmd.shell.desk import ChangeResult, EventLine, Outcome, PlanResult, ProtectionLine, ReloadResult, Status

RELOAD_SECONDS = 60.0
LABELS_SECONDS = 2.0
FOLLOW_LINES_DEFAULT = 10
UNPROVEN = "HALT NOT PROVEN: orders of ours may still rest at the exchange"
PROTECTS = (
    "what still protects: systemd's watchdog ends a daemon that makes no progress within WatchdogSec; when its "
    "connection breaks, the exchange cancels our orders where cancel on disconnect is armed (`mmdctl status`)"
)
DO_NOW = "do now: ask again, or `systemctl stop mmd`; look at the orders with the exchange itself"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Usage errors raise SystemExit(2)."""
    asked = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    call = Call(asked, page_of(sys.stdout, os.environ))
    try:
        return RUN[asked.command](call)
    except tuple(ERRORS) as error:
        complain(str(error))
        for reason in error.reasons if isinstance(error, Refused) else []:
            complain(reason)
        return ERRORS[type(error)]
    except KeyboardInterrupt:
        complain("interrupted; the daemon may still carry it out")
        return Exit.INTERRUPTED
    except BrokenPipeError:  # of `events --follow`: its reader has left
        mute()
        return Exit.DONE


# --- looking ---------------------------------------------------------------------------------------


def run_status(call: Call) -> int:
    status = call.ask(
        "status",
        Status,
        {"symbols": call.symbols},
        lambda answer: status_views.status_lines(call.page, answer, time.time()),
    )
    if not call.asked.check:
        return Exit.DONE
    faults = status_views.degradations(status, call.symbols)
    for fault in faults:
        complain(f"degraded: {fault}")
    return Exit.TIMED_OUT if faults else Exit.DONE


def run_show(call: Call) -> int:
    if "config" in call.symbols:
        if len(call.symbols) > 1:
            parser().error("show: either `config` or symbols")
        call.ask("show", ShowResult, {"what": "config"}, lambda answer: (answer.config or "").splitlines())
        return Exit.DONE
    call.ask(
        "show",
        ShowResult,
        {"symbols": call.symbols},
        lambda answer: status_views.symbol_lines(call.page, answer.symbols, time.time()),
    )
    return Exit.DONE


def run_explain(call: Call) -> int:
    call.ask(
        "explain",
        ExplainResult,
        {"symbols": call.symbols},
        lambda answer: views.explain_lines(call.page, answer.symbols),
    )
    return Exit.DONE


def run_orders(call: Call) -> int:
    call.ask(
        "orders", OrdersResult, {"symbols": call.symbols}, lambda answer: views.order_lines(call.page, answer.orders)
    )
    return Exit.DONE


def run_positions(call: Call) -> int:
    call.ask(
        "positions",
        PositionsResult,
        {"symbols": call.symbols},
        lambda answer: views.position_lines(call.page, answer.positions),
    )
    return Exit.DONE


def run_risk(call: Call) -> int:
    call.ask("risk", RiskResult, {}, lambda answer: risk_views.risk_lines(call.page, answer.totals))
    return Exit.DONE


def run_ledger(call: Call) -> int:
    call.ask(
        "ledger",
        LedgerResult,
        {"symbols": call.symbols},
        lambda answer: risk_views.ledger_lines(call.page, answer.ledgers),
    )
    return Exit.DONE


def run_switches(call: Call) -> int:
    call.ask(
        "switches",
        SwitchesResult,
        {},
        lambda answer: risk_views.switch_lines(call.page, answer.switches, time.time()),
    )
    return Exit.DONE


def run_alerts(call: Call) -> int:
    call.ask("alerts", AlertsResult, {}, lambda answer: status_views.alert_lines(call.page, answer.alerts, time.time()))
    return Exit.DONE


def run_cases(call: Call) -> int:
    call.ask(
        "cases",
        CasesResult,
        {"symbols": call.symbols, "closed": call.asked.all},
        lambda answer: case_views.case_lines(call.page, answer.cases, time.time()),
    )
    return Exit.DONE


def run_protection(call: Call) -> int:
    """Look, or end a freeze with --reset."""
    if call.asked.reset is None:
        if call.asked.reason is not None:
            parser().error("protection: --reason goes with --reset")
        call.ask(
            "protection",
            ProtectionResult,
            {},
            lambda answer: risk_views.protection_lines(call.page, answer.protections, time.time()),
        )
        return Exit.DONE
    if call.asked.reason is None:
        parser().error("protection: --reset needs --reason: somebody has looked at the fills")
    exchange, underlying = call.asked.reset
    line = call.ask(
        "protection_reset",
        ProtectionLine,
        {"exchange": exchange, "underlying": underlying, "reason": call.reason},
        lambda answer: risk_views.protection_lines(call.page, [answer], time.time()),
    )
    if line.frozen_until is None:
        return Exit.DONE
    complain(f"{exchange}/{underlying} is still frozen")
    return Exit.TIMED_OUT


def run_version(call: Call) -> int:
    if not call.as_json:
        say([f"mmdctl {__version__}"])
    call.ask(
        "version",
        VersionResult,
        {},
        lambda answer: [f"mmd {answer.version} (protocol {answer.protocol}); you are {answer.user}, {answer.role}"],
    )
    return Exit.DONE


# --- events ----------------------------------------------------------------------------------------


def run_events(call: Call) -> int:
    if call.asked.follow:
        return follow_events(call)
    ranged = call.asked.since is not None or call.asked.until is not None
    lines = call.asked.lines
    if lines is None:
        lines = EVENTS_MAX if ranged else LINES_DEFAULT
    with call.connect() as client:
        answer = find_events(call, client, lines)
    say(event_text(call, event) for event in answer.events)
    warn_of_future(call.asked.since, answer.newest)
    if answer.cut and ranged:
        complain(f"not all are shown: {answer.cut}")
    return Exit.DONE


def find_events(call: Call, client: Client, lines: int) -> EventsResult:
    """Ask for the events that the options name."""
    params: dict[str, object] = {"lines": lines}
    for key in ("since", "until"):
        moment: Moment | None = getattr(call.asked, key)
        if isinstance(moment, Instant):
            params[f"{key}_time"] = moment.seconds
        elif moment is not None:
            params[key] = moment
    for key in ("name", "symbol"):
        if (glob := getattr(call.asked, key)) is not None:
            params[key] = glob
    return call.decode(client.call("events", params, call.seconds()), EventsResult, "events")


def follow_events(call: Call) -> int:
    """Until Ctrl-C, which is a good end. What was first, then what comes: only of the name and symbol asked for."""
    if call.asked.until is not None:
        parser().error("events: --until has no meaning with --follow")
    since, lines = call.asked.since, call.asked.lines
    with contextlib.suppress(KeyboardInterrupt), call.connect() as client:
        if isinstance(since, Instant) or call.asked.name or call.asked.symbol:
            default = FOLLOW_LINES_DEFAULT if since is None else EVENTS_MAX
            answer = find_events(call, client, default if lines is None else lines)
            if answer.cut and since is not None:
                complain(f"not all are shown: {answer.cut}")
            say(event_text(call, event) for event in answer.events)
            params: dict[str, object] = {"since": answer.newest}
        else:
            params = {"since": since, "lines": FOLLOW_LINES_DEFAULT if lines is None else lines}
        raw = client.call("events_follow", params, call.seconds())
        start = call.decode(raw, FollowResult, "events_follow")
        warn_of_future(since, start.newest)
        last = start.since
        for event in client.events():
            if event.seq > last + 1:
                complain(f"{event.seq - last - 1} events are missing: the daemon keeps the last {EVENTS_MAX}")
            last = event.seq
            if asked_for(call, event):
                sys.stdout.write(event_text(call, event) + "\n")  # in one piece: readers of a pipe see whole lines
                sys.stdout.flush()
    return Exit.DONE


def asked_for(call: Call, event: EventLine) -> bool:
    """Whether an event of the stream has the name and the symbol that were asked for."""
    name, symbol = call.asked.name, call.asked.symbol
    if name is not None and not fnmatchcase(event.name, name):
        return False
    if symbol is None:
        return True
    here = event.symbol or ""
    return event.symbol is not None and (fnmatchcase(here, symbol) or fnmatchcase(f"{event.exchange}/{here}", symbol))


def event_text(call: Call, event: EventLine) -> str:
    return encode(event).decode() if call.as_json else views.event_line(call.page, event)


def warn_of_future(since: Moment | None, newest: int) -> None:
    if isinstance(since, int) and since > newest:
        complain(f"the newest event is number {newest}: {since} is not there yet, or went with an earlier journal")


# --- changing --------------------------------------------------------------------------------------


def run_change(call: Call) -> int:
    """pause, resume, reset, shadow."""
    return OUTCOMES[change(call).outcome]


def change(call: Call) -> ChangeResult:
    """Ask for it and print what came of it. Raises what the client raises."""
    params: dict[str, object] = {
        "symbols": call.symbols,
        "reason": call.reason,
        "timeout_seconds": call.seconds(),
    }
    if call.asked.command == "shadow":
        params["on"] = not call.asked.off
    return call.ask(
        call.asked.command,
        ChangeResult,
        params,
        lambda answer: views.change_lines(call.page, answer),
        wait=call.seconds() + GRACE_SECONDS,
    )


def run_accept(call: Call) -> int:
    result = call.ask(
        "accept",
        ChangeResult,
        {"number": call.asked.number, "reason": call.reason, "timeout_seconds": call.seconds()},
        lambda answer: views.change_lines(call.page, answer),
        wait=call.seconds() + GRACE_SECONDS,
    )
    return OUTCOMES[result.outcome]


def run_halt(call: Call) -> int:
    """A halt that is not proven says so on stderr, whatever stdout is."""
    try:
        result = change(call)
    except (NoAnswer, NoDaemon) as error:
        for text in (str(error), UNPROVEN, PROTECTS, DO_NOW):
            complain(text)
        return ERRORS[type(error)]
    except Refused:
        complain("NOTHING WAS HALTED")  # main says why
        raise
    if result.outcome is Outcome.TIMED_OUT:
        complain(f"{UNPROVEN}: {result.detail}" if result.detail else UNPROVEN)
        late = [row for row in result.symbols if row.outcome is Outcome.TIMED_OUT]
        for row in late:
            complain(f"  {row.symbol}: {row.detail or row.state}")
        for text in left_orders(call, [row.symbol for row in late]):
            complain(f"  {text}")
        complain("the gate is closed, the daemon goes on cancelling and asking: `mmdctl status`, `mmdctl orders`")
    return OUTCOMES[result.outcome]


def left_orders(call: Call, symbols: list[str]) -> list[str]:
    """The orders of these symbols with their labels, as far as the daemon can still say."""
    if not symbols:
        return []
    with contextlib.suppress(*ERRORS):
        _, answer = call.fetch("orders", OrdersResult, {"symbols": symbols}, LABELS_SECONDS)
        return [
            f"{row.exchange}/{row.symbol}: {row.side} {number(row.size)} at {number(row.price)}, {row.phase}, "
            f"label {row.label}" + (f", id {row.order_id}" if row.order_id else "")
            for row in answer.orders
        ]
    return []


def run_plan(call: Call) -> int:
    plan = call.ask("plan", PlanResult, {}, lambda answer: views.plan_lines(call.page, answer))
    for error in plan.errors:
        complain(error)
    return Exit.DONE if plan.ok else Exit.REFUSED


def run_reload(call: Call) -> int:
    confirm = call.asked.confirm
    status = finish_reload(call, "reload", {"confirm_seconds": confirm, "reason": call.reason})
    if confirm is not None and status == Exit.DONE and not call.as_json:
        say([f"undone in {confirm:g} s unless you say: mmdctl confirm"])
    return status


def run_confirm(call: Call) -> int:
    return finish_reload(call, "confirm", {"reason": call.reason})


def finish_reload(call: Call, method: str, params: dict[str, object]) -> int:
    result = call.ask(
        method,
        ReloadResult,
        params,
        lambda answer: views.reload_lines(call.page, answer),
        wait=call.seconds(RELOAD_SECONDS),
    )
    for error in result.plan.errors:
        complain(error)
    return OUTCOMES[result.outcome]


def run_log_level(call: Call) -> int:
    params: dict[str, object] = {"level": call.asked.level, "reason": call.reason}
    call.ask("log_level", LogLevelResult, params, lambda answer: [clean(answer.detail)])
    return Exit.DONE


RUN: dict[str, Callable[[Call], int]] = {
    "status": run_status,
    "show": run_show,
    "explain": run_explain,
    "orders": run_orders,
    "positions": run_positions,
    "risk": run_risk,
    "ledger": run_ledger,
    "switches": run_switches,
    "alerts": run_alerts,
    "cases": run_cases,
    "accept": run_accept,
    "protection": run_protection,
    "version": run_version,
    "events": run_events,
    "pause": run_change,
    "resume": run_change,
    "halt": run_halt,
    "reset": run_change,
    "shadow": run_change,
    "flatten": run_flatten,
    "plan": run_plan,
    "reload": run_reload,
    "confirm": run_confirm,
    "log-level": run_log_level,
}

if __name__ == "__main__":
    sys.exit(main())
