"""`mmd run`: the daemon, composed: configuration, exchanges, control socket, metrics, signals, systemd."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import trio

from mmd.config.load import load
from mmd.config.locate import config_path, socket_path, state_directory
from mmd.config.model import Config
from mmd.config.nodes import Finding
from mmd.config.secrets import ExposedSecret
from mmd.control.server import describe, serve_control
from mmd.domain.actions import Tripped
from mmd.domain.errors import ConfigError, CredentialError, ExchangeRefused, MmdError
from mmd.domain.reasons import Response, Scope, Switch
from mmd.journal.disk import in_the_way
from mmd.journal.statefile import JournalFailed
from mmd.shell import logs, notify, whereabouts
from mmd.shell.daemon import Daemon
from mmd.shell.desk import Caller
from mmd.shell.heritage import JOURNAL, may_rest
from mmd.shell.locks import AccountLocks, StateLock, lock_accounts, lock_state
from mmd.shell.sentinel import sentinel
from mmd.shell.service import attend, heed_signals, serve_metrics
from mmd.shell.statistics import sentence

EXIT_OK = 0
EXIT_INTERNAL = 70
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
GUARD_SECONDS = 1.0
START_SECONDS = 60.0  # for what follows the reading of the journal: TimeoutStartSec= of the unit
LAST_WORDS_SECONDS = 3.0  # for alerts that were fired while it stopped
log = logs.get("mmd")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("run", help="run the daemon in the foreground")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration (default: /etc/mmd/mmd.yaml)")
    parser.add_argument("--state-dir", metavar="DIR", help="default: $STATE_DIRECTORY, else /var/lib/mmd")
    parser.add_argument("--socket", metavar="PATH", help="control socket (default: /run/mmd/mmd.sock)")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="instead of the config's")
    parser.add_argument("--log-format", choices=["auto", "text", "json"], help="instead of the config's")
    parser.set_defaults(func=run)


def complain(text: str) -> None:
    print(text, file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 stopped with nothing left behind, 70, 77, 78 as in docs/operations.md."""
    path = config_path(args.config, os.environ)
    try:
        config = load(path)
        outlet = logs.setup(
            args.log_level or config.service.log_level, logs.Format(args.log_format or config.service.log_format)
        )
        state = state_directory(args.state_dir, config.service.state_dir, os.environ)
        check_state(state, args.state_dir, config)
        with lock_state(state) as lock, lock_accounts(config.exchanges.values()) as accounts:
            whereabouts.keep(state, config)
            socket = socket_path(args.socket, config.service.control.socket, os.environ)
            return trio.run(main, config, path, socket, state, outlet, lock, accounts)
    except ConfigError as wrong:
        complain("\n".join(wrong.lines))
        return EXIT_CONFIG
    except ExposedSecret as wrong:
        complain(f"mmd: {wrong}")
        return EXIT_PERMISSION
    except CredentialError as wrong:
        complain(f"mmd: {wrong}")
        return EXIT_CONFIG
    except ExchangeRefused as wrong:
        complain(f"mmd: an exchange does not let us in: {wrong}")
        return EXIT_PERMISSION
    except PermissionError as wrong:
        complain(f"mmd: {wrong.filename}: {wrong.strerror}; run as a user that may, or pass --state-dir and --socket")
        return EXIT_PERMISSION
    except (OSError, MmdError) as wrong:
        complain(f"mmd: {wrong}")
        return EXIT_PERMISSION if isinstance(wrong.__cause__, PermissionError) else EXIT_INTERNAL


def check_state(state: Path, argument: str | None, config: Config) -> None:
    """Raises ConfigError where the file names a state directory that can be none; where another did, JournalFailed."""
    written = config.service.state_dir if argument is None else None
    key = "service.state_dir" if written else "--state-dir" if argument else "the state directory"
    if what := in_the_way(state):
        text = f"{state} {what}"
        raise ConfigError([str(Finding(config.where(key), key, text))]) if written else JournalFailed(f"{key}: {text}")
    if what := in_the_way(state / JOURNAL):
        raise JournalFailed(f"{key}: {state / JOURNAL} {what}")


async def main(
    config: Config,
    path: Path,
    socket: Path,
    state: Path,
    outlet: logs.Outlet,
    lock: StateLock,
    accounts: AccountLocks,
) -> int:
    """The nurseries: control outermost, so that it answers while everything else starts and stops."""
    notifier = notify.Notifier(notify.connect())
    daemon = Daemon(config, path, state=state, alive=notify.Pulse(notifier, "reading the journal", START_SECONDS))

    def on_reload(begins: bool) -> None:
        if begins:
            notifier.reloading()
        else:
            notifier.ready(sentence(daemon.status(["all"])))

    daemon.on_reload = on_reload
    service = config.service
    status = EXIT_INTERNAL
    try:
        async with trio.open_nursery() as outer:
            await outer.start(
                heed_signals, daemon, notifier, lambda: outer.start_soon(reload, daemon), outer.cancel_scope.cancel
            )
            await outer.start(serve, daemon, config, socket)
            if service.metrics_listen is not None:
                await outer.start(serve_metrics, daemon, service.metrics_listen)
            outer.start_soon(attend, daemon, notifier, outlet)
            outer.start_soon(daemon.alarms.run)
            outer.start_soon(announce, daemon, notifier)
            outer.start_soon(guard, daemon, lock, accounts)
            outer.start_soon(keep_whereabouts, daemon, state)
            notifier.status("connecting to " + ", ".join(config.exchanges))
            log.info("service.started", config=str(path), sha256=config.sha256[:12], socket=str(socket))
            with sentinel(daemon.pump):
                await daemon.run()
            status = farewell(daemon)
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await daemon.alarms.wait_delivered()
            outer.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        cause = only_cause(group)
        if isinstance(cause, MmdError | OSError):
            raise cause from cause.__cause__
        raise
    return status


def only_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one error inside, however deep; None if there are several."""
    inner = group.exceptions
    if len(inner) != 1:
        return None
    return only_cause(inner[0]) if isinstance(inner[0], BaseExceptionGroup) else inner[0]


def farewell(daemon: Daemon) -> int:
    """0 when it is proven that nothing rests, or nothing was ever begun, by the process before neither."""
    end = daemon.farewell
    left = sum(len(may_rest(machine)) for machine in daemon.past.machines.values())
    if end is None and left:
        log.critical("service.stopped", orders_left=f"{left} of the process before may rest: nobody could be asked")
        return EXIT_INTERNAL
    if end is None:
        log.info("service.stopped", detail="before any symbol was there to be quoted")
        return EXIT_OK
    if end.proven_empty:
        log.info("service.stopped", orders_left=0)
        return EXIT_OK
    log.critical("service.stopped", orders_left=str(end))
    return EXIT_INTERNAL


async def serve(
    daemon: Daemon, config: Config, socket: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The control socket; every change is written into the events with who asked."""

    def audit(caller: Caller, method: str, params: dict[str, Any], outcome: str) -> None:
        detail = f"{describe(params)} -> {outcome}".strip()
        daemon.diary.note(f"command.{method}", detail, by=f"{caller.name} (uid {caller.uid}, pid {caller.pid})")
        daemon.record_command(caller, method, params, outcome)

    control = config.service.control
    await serve_control(
        socket,
        daemon,
        admin_group=control.admin_group,
        view_group=control.view_group,
        audit=audit,
        task_status=task_status,
    )


async def announce(daemon: Daemon, notifier: notify.Notifier) -> None:
    """READY=1 once every symbol of the exchanges that came is reconciled."""
    await daemon.running.wait()
    awaited = daemon.arrivals.awaited
    without = f", without {', '.join(awaited)}" if awaited else ""
    notifier.ready(f"ready{without}, {len(daemon.pump.workers)} symbols PAUSED: mmdctl resume all")
    log.info("service.ready", symbols=len(daemon.pump.workers), awaited=", ".join(awaited) or "nobody")


async def guard(daemon: Daemon, lock: StateLock, accounts: AccountLocks) -> None:
    """A state directory that was replaced under us: halt until a restart, and lock what is there now.

    What was opened there before is written where nobody will find it.
    """
    lost = ""
    while True:
        await trio.sleep(GUARD_SECONDS)
        accounts.answer()
        why = lock.lost()
        if why and not lost:
            lost = f"{why}; restart mmd"
            log.critical("state.lost", detail=lost)
            daemon.pump.over.add((Switch.JOURNAL_FAILURE, None))
        if lost and (Switch.JOURNAL_FAILURE, None) in daemon.pump.over:
            # That it can be written again does not end this.
            daemon.pump.trip(Tripped(Switch.JOURNAL_FAILURE, Scope.PORTFOLIO, "", Response.HALT, lost))
            await daemon.pump.deliver()
        if why:
            try:
                lock.renew()
            except OSError as error:
                log.error("state.locked_out", detail=str(error))


async def keep_whereabouts(daemon: Daemon, state: Path) -> None:
    """Tell the reaper what a reload changed."""
    while True:
        await daemon.reconfigured.wait()
        try:
            whereabouts.keep(state, daemon.in_force)
        except JournalFailed as error:
            log.error("whereabouts.failed", detail=str(error))


async def reload(daemon: Daemon) -> None:
    """SIGHUP: the asynchronous way in; the outcome is in the log, the metrics and the status."""
    try:
        await daemon.reload(None, Caller(uid=os.getuid(), pid=os.getpid(), name="SIGHUP"))
    except MmdError as refused:
        log.error("config.reload_refused", detail=str(refused))
