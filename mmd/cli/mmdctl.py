"""The program mmdctl: ask the running daemon, or tell it what to do."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from mmd import __version__
from mmd.cli import views
from mmd.cli.arguments import LINES_DEFAULT, parser
from mmd.cli.client import Client, Forbidden, NoAnswer, NoDaemon, Refused, default_socket
from mmd.cli.tables import Page, clean, page_of
from mmd.control.protocol import (
    DEFAULT_TIMEOUT_SECONDS,
    EVENTS_MAX,
    EventsResult,
    ExplainResult,
    FollowResult,
    LogLevelResult,
    OrdersResult,
    PositionsResult,
    ShowResult,
    VersionResult,
    encode,
)
from mmd.domain.errors import MmdError
from mmd.shell.desk import ChangeResult, EventLine, Outcome, PlanResult, ReloadResult, Status

RELOAD_SECONDS = 60.0
GRACE_SECONDS = 2.0  # a change has its time, then its answer must still come
FOLLOW_LINES_DEFAULT = 10
INTERRUPTED = 130
T = TypeVar("T")


class Exit(IntEnum):
    """What scripts rely on."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_PERMITTED = 4
    TIMED_OUT = 5


OUTCOMES = {Outcome.DONE: Exit.DONE, Outcome.REFUSED: Exit.REFUSED, Outcome.TIMED_OUT: Exit.TIMED_OUT}
ERRORS: dict[type[MmdError], Exit] = {
    Refused: Exit.REFUSED,
    NoDaemon: Exit.NO_DAEMON,
    Forbidden: Exit.NOT_PERMITTED,
    NoAnswer: Exit.TIMED_OUT,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Usage errors raise SystemExit(2)."""
    asked = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    call = Call(asked, page_of(sys.stdout, os.environ))
    try:
        status = RUN[asked.command](call)
        sys.stdout.flush()
        return status
    except tuple(ERRORS) as error:
        complain(str(error))
        for reason in error.reasons if isinstance(error, Refused) else []:
            complain(reason)
        return ERRORS[type(error)]
    except KeyboardInterrupt:
        complain("interrupted; the daemon may still carry it out")
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more: say nothing now, nor when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE


def say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def complain(text: str) -> None:
    print(f"mmdctl: {clean(text)}", file=sys.stderr)


class Call:
    """One command on its way: what was asked, the daemon, and how the answer is to look."""

    def __init__(self, asked: argparse.Namespace, page: Page) -> None:
        self.asked = asked
        self.page = page
        self.socket: Path = asked.socket or default_socket(os.environ)
        self.as_json: bool = asked.json

    @property
    def symbols(self) -> list[str]:
        return list(self.asked.symbols) or ["all"]

    @property
    def reason(self) -> str:
        return self.asked.reason or ""

    def seconds(self, default: float = DEFAULT_TIMEOUT_SECONDS) -> float:
        return float(self.asked.timeout or default)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        client = Client(self.socket, self.seconds())
        try:
            yield client
        finally:
            client.close()

    def ask(
        self, method: str, result: type[T], params: dict[str, object], view: Callable[[T], list[str]], wait: float = 0
    ) -> T:
        """Ask, print the answer for people or as JSON, hand it on. Raises what the client raises."""
        with self.connect() as client:
            raw = client.call(method, params, wait or self.seconds())
        answer = self.decode(raw, result, method)
        say([bytes(raw).decode()] if self.as_json else view(answer))
        return answer

    def decode(self, raw: msgspec.Raw, result: type[T], method: str) -> T:
        try:
            return msgspec.json.decode(raw, type=result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswer(f"the daemon at {self.socket} answers {method} in another shape: {error}") from error


# --- looking ---------------------------------------------------------------------------------------


def run_status(call: Call) -> int:
    status = call.ask(
        "status", Status, {"symbols": call.symbols}, lambda answer: views.status_lines(call.page, answer, time.time())
    )
    if not call.asked.check:
        return Exit.DONE
    faults = views.degradations(status)
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
        lambda answer: views.symbol_lines(call.page, answer.symbols, time.time()),
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
    since, lines = call.asked.since, call.asked.lines
    if lines is None:
        lines = LINES_DEFAULT if since is None else EVENTS_MAX
    with call.connect() as client:
        raw = client.call("events", {"since": since or 0, "lines": lines}, call.seconds())
    answer = call.decode(raw, EventsResult, "events")
    say(event_text(call, event) for event in answer.events)
    warn_of_restart(since, answer.newest)
    return Exit.DONE


def follow_events(call: Call) -> int:
    """Until Ctrl-C, which is a good end."""
    since, lines = call.asked.since, call.asked.lines
    params = {"since": since, "lines": FOLLOW_LINES_DEFAULT if lines is None else lines}
    with contextlib.suppress(KeyboardInterrupt), call.connect() as client:
        raw = client.call("events_follow", params, call.seconds())
        start = call.decode(raw, FollowResult, "events_follow")
        warn_of_restart(since, start.newest)
        last = start.since
        for event in client.events():
            if event.seq > last + 1:
                complain(f"{event.seq - last - 1} events are missing: the daemon keeps the last {EVENTS_MAX}")
            last = event.seq
            sys.stdout.write(event_text(call, event) + "\n")  # in one piece: readers of a pipe see whole lines
            sys.stdout.flush()
    return Exit.DONE


def event_text(call: Call, event: EventLine) -> str:
    return encode(event).decode() if call.as_json else views.event_line(call.page, event)


def warn_of_restart(since: int | None, newest: int) -> None:
    if since is not None and since > newest:
        complain(f"the newest event is number {newest}: the daemon has been restarted since {since}")


# --- changing --------------------------------------------------------------------------------------


def run_change(call: Call) -> int:
    """pause, resume, halt, reset, shadow."""
    params: dict[str, object] = {
        "symbols": call.symbols,
        "reason": call.reason,
        "timeout_seconds": call.seconds(),
    }
    if call.asked.command == "shadow":
        params["on"] = not call.asked.off
    result = call.ask(
        call.asked.command,
        ChangeResult,
        params,
        lambda answer: views.change_lines(call.page, answer),
        wait=call.seconds() + GRACE_SECONDS,
    )
    return OUTCOMES[result.outcome]


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
    "version": run_version,
    "events": run_events,
    "pause": run_change,
    "resume": run_change,
    "halt": run_change,
    "reset": run_change,
    "shadow": run_change,
    "plan": run_plan,
    "reload": run_reload,
    "confirm": run_confirm,
    "log-level": run_log_level,
}

if __name__ == "__main__":
    sys.exit(main())
