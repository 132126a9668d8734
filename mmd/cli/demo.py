"""`mmd demo`: the whole daemon, live, in the sandbox inside this process; then the proof that nothing rests."""

import argparse
import os
import signal
import sys
import time
from importlib import resources
from pathlib import Path

import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mmd.config.load import load, load_text
from mmd.config.model import Config, NetworkKind
from mmd.domain.errors import ConfigError
from mmd.shell import logs
from mmd.shell.daemon import Daemon
from mmd.shell.desk import Caller, Outcome, Status, SymbolStatus

EXIT_INTERNAL = 70
EXIT_CONFIG = 78
REFRESH_SECONDS = 0.25
RESUME_SECONDS = 0.5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("demo", help="watch the daemon quote a recorded option chain; needs no account")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop after N seconds (default: at Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end and nothing else")
    parser.add_argument("-c", "--config", metavar="FILE", help="another configuration; sandbox networks only")
    parser.set_defaults(func=run)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    seconds: float
    symbols: int
    symbols_active: int
    orders_placed: int
    orders_amended: int
    orders_cancelled: int
    orders_rejected: int
    fills: int
    pnl_usd: float | None
    exposure: dict[str, float]
    orders_left_at_exchange: int | None


def demo_config(path: str | None) -> tuple[Config, Path]:
    """The packaged configuration or the given one; ConfigError for any network but the in-process sandbox."""
    if path is None:
        text = resources.files("mmd.cli").joinpath("demo.yaml").read_text("utf-8")
        config, where = load_text(text, "demo.yaml"), Path("demo.yaml")
    else:
        where = Path(path)
        config = load(where)
    real = [name for name, exchange in config.exchanges.items() if exchange.network is not NetworkKind.SANDBOX]
    if real:
        names = ", ".join(real)
        raise ConfigError([f"{where}: the demo trades live and therefore only in the sandbox; not on: {names}"])
    return config, where


def run(args: argparse.Namespace) -> int:
    """Exit status 0 only if the sandbox says that nothing of ours rests."""
    if args.seconds is not None and not args.seconds > 0:
        print("mmd demo: --seconds must be above 0", file=sys.stderr)
        return 64
    try:
        config, path = demo_config(args.config)
    except ConfigError as wrong:
        print("\n".join(wrong.lines), file=sys.stderr)
        return EXIT_CONFIG
    logs.setup("error")
    console = None if args.json else Console()
    try:
        summary = trio.run(show, config, path, args.seconds, console)
    except ConfigError as wrong:
        print("\n".join(wrong.lines), file=sys.stderr)
        return EXIT_CONFIG
    if args.json:
        print(msgspec.json.encode(summary).decode())
    else:
        assert console is not None, "a console is made unless --json is given"
        tell(console, summary)
    return 0 if summary.orders_left_at_exchange == 0 else EXIT_INTERNAL


async def show(config: Config, path: Path, seconds: float | None, console: Console | None) -> Summary:
    """Run the daemon, resume everything, draw until the time or Ctrl-C, stop, ask the exchange."""
    daemon = Daemon(config, path)
    began = time.monotonic()
    last = trio.Event()
    status: Status | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_at_signal, daemon, last)
        if seconds is not None:
            nursery.start_soon(stop_after, daemon, seconds, last)
        async with trio.open_nursery() as inner:
            await inner.start(run_daemon, daemon)
            inner.start_soon(keep_resumed, daemon, last)
            if console is not None:
                inner.start_soon(draw, daemon, console, last)
            await last.wait()
            status = daemon.status(["all"])
            daemon.stop()
            await daemon.stopped.wait()
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert status is not None, "the daemon was asked before it stopped"
    left = daemon.farewell.left.values() if daemon.farewell else [None]
    after = daemon.counted()
    return Summary(
        seconds=round(time.monotonic() - began, 3),
        symbols=len(status.symbols),
        symbols_active=sum(row.state == "ACTIVE" for row in status.symbols),
        orders_placed=after.placed,
        orders_amended=after.amended,
        orders_cancelled=after.cancelled,
        orders_rejected=after.rejected,
        fills=after.fills,
        pnl_usd=daemon.treasury.totals().pnl_usd if status.pnl_usd is None else status.pnl_usd,
        exposure=status.exposure,
        orders_left_at_exchange=None if None in left else sum(count or 0 for count in left),
    )


async def run_daemon(daemon: Daemon, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await daemon.run(task_status=task_status)


async def stop_at_signal(
    daemon: Daemon, last: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            last.set()


async def stop_after(daemon: Daemon, seconds: float, last: trio.Event) -> None:
    await trio.sleep(seconds)
    last.set()


async def keep_resumed(daemon: Daemon, last: trio.Event) -> None:
    """Resume what is PAUSED at the start, as its checks come true; market trouble resumes by itself."""
    caller = Caller(uid=os.getuid(), pid=os.getpid(), name="demo")
    while not last.is_set():
        waiting = [row.symbol for row in daemon.status(["all"]).symbols if row.reason == "startup"]
        if not waiting:
            return
        result = await daemon.resume(waiting, "demo", caller, RESUME_SECONDS)
        if result.outcome is not Outcome.DONE:
            await trio.sleep(RESUME_SECONDS)


async def draw(daemon: Daemon, console: Console, last: trio.Event) -> None:
    if not console.is_terminal:
        console.print(f"quoting {len(daemon.pump.workers)} symbols in the sandbox; Ctrl-C ends")
        await last.wait()
        console.print(table(daemon.status(["all"])))
        return
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while not last.is_set():
            live.update(table(daemon.status(["all"])), refresh=True)
            with trio.move_on_after(REFRESH_SECONDS):
                await last.wait()


def table(status: Status) -> Table:
    """At most 100 columns."""
    money = "unknown" if status.pnl_usd is None else f"{status.pnl_usd:+,.2f} USD"
    counts = f"{status.orders_placed} placed, {status.orders_amended} amended, {status.orders_cancelled} cancelled"
    drawn = Table(
        title=f"mmd demo: a recorded Deribit chain in the sandbox, {status.uptime_seconds:.0f} s",
        caption=f"{counts}, {status.fills} fills, profit {money}; Ctrl-C ends",
        width=100,
    )
    for name, side in (("symbol", "left"), ("state", "left"), ("market", "right"), ("our quote", "right")):
        drawn.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]  # literals, seen as str
    drawn.add_column("position", justify="right", no_wrap=True)
    drawn.add_column("pnl USD", justify="right", no_wrap=True)
    for row in status.symbols:
        drawn.add_row(*cells(row))
    return drawn


def cells(row: SymbolStatus) -> list[str]:
    market = f"{row.market_bid or '-'} / {row.market_ask or '-'}"
    ours = f"{row.bid.price or '-'} / {row.ask.price or '-'}"
    state = row.state if row.state == "ACTIVE" else f"{row.state} {row.reason}"
    pnl = "?" if row.pnl_usd is None else f"{row.pnl_usd:+.2f}"
    return [row.symbol, state, market, ours, str(row.position), pnl]


def tell(console: Console, summary: Summary) -> None:
    left = summary.orders_left_at_exchange
    proof = "the exchange says that no order of ours rests" if left == 0 else f"ORDERS LEFT: {left}"
    orders = f"{summary.orders_placed} placed, {summary.orders_amended} amended, {summary.orders_cancelled} cancelled"
    console.print(f"{summary.seconds:.0f} s, {summary.symbols} symbols: {orders}, {summary.fills} fills")
    money = "unknown" if summary.pnl_usd is None else f"{summary.pnl_usd:+,.2f} USD"
    console.print(f"profit {money}; {proof}.")
