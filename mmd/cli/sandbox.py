"""`mmd sandbox`: an exchange in a box that any client of the real one can talk to."""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import trio
import yaml

from mmd.domain.errors import ConfigError
from mmd.sandbox.deribit.auth import Key
from mmd.sandbox.derive.options import MARKET_MAKER, TRADER, DeriveOptions, WalletLine
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.feed import read_feed
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.markets import RECORDED_FEED, generated_market, recorded_market
from mmd.sandbox.model import Market
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

EXIT_OK, EXIT_USAGE, EXIT_CANNOT_LISTEN, EXIT_CONFIG = 0, 64, 71, 78
WEBSOCKET_PATHS = {Exchange.DERIBIT: "/ws/api/v2", Exchange.DERIVE: "/v3/ws"}


class AccountLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of Deribit's accounts file; Derive's are WalletLine."""

    client_id: str
    client_secret: str
    scope: str = ""
    balances: dict[str, float | int | str] = {}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `sandbox` subcommand."""
    parser = subparsers.add_parser(
        "sandbox",
        help="run an exchange in a box",
        description="Runs an exchange with a matching engine and a live market on a local port. It speaks the "
        "exchange's own protocol over WebSocket and HTTP; prints its URL when it is ready.",
    )
    parser.add_argument("--exchange", choices=list(Exchange), default=Exchange.DERIBIT, help="whose protocol to speak")
    parser.add_argument("--listen", default="127.0.0.1:8645", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument(
        "--market", choices=["recorded", "generated"], help="default: recorded; for derive there is only generated"
    )
    parser.add_argument("--feed", type=Path, metavar="FILE", help="recorded messages to replay (default: the packaged)")
    parser.add_argument("--instruments", type=Path, metavar="FILE", help="instruments to list (default: the packaged)")
    parser.add_argument("--as-recorded", action="store_true", help="keep the recording's times and expiries")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same market and ids")
    parser.add_argument("--accounts", type=Path, metavar="FILE", help="JSON or YAML list of who may log in")
    parser.add_argument("--matching-rate", type=float, default=250.0, metavar="N", help="deribit: orders a second")
    parser.add_argument("--matching-burst", type=float, default=1000.0, metavar="N", help="deribit: orders at once")
    parser.add_argument("--trader-limits", action="store_true", help="derive: the budgets of who is no market maker")
    parser.add_argument("--no-rate-limits", action="store_true", help="refuse nothing for being too much")
    parser.add_argument("--keep-open", action="store_true", help="deribit: do not close a link after 10028")
    parser.add_argument("--speed-bump-ms", type=int, default=0, metavar="MS", help="hold aggressive orders this long")
    parser.add_argument(
        "--notifications-first", action="store_true", help="send what an order caused before its answer"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    try:
        host, port = parse_listen(args.listen)
        exchange = Exchange(args.exchange)
        keys = None if args.accounts is None or exchange is not Exchange.DERIBIT else read_accounts(args.accounts)
        market, clock = _market(args, exchange)
        options = SandboxOptions(
            exchange=exchange,
            seed=args.seed,
            derive=_derive(args) if exchange is Exchange.DERIVE else DeriveOptions(),
            keys=keys,
            budgets=Budgets(
                matching=Budget(args.matching_rate, args.matching_burst),
                cancel_all=Budget(args.matching_rate, args.matching_burst),
                enforced=not args.no_rate_limits,
                closes=not args.keep_open,
            ),
            speed_bump_ms=args.speed_bump_ms,
            notifications_first=args.notifications_first,
        )
    except ConfigError as error:
        print("\n".join(f"mmd sandbox: {line}" for line in error.lines), file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"mmd sandbox: {error}", file=sys.stderr)
        return EXIT_CONFIG
    try:
        trio.run(serve, Sandbox(market, options, wall_clock_ns=clock), host, port)
    except OSError as error:
        print(f"mmd sandbox: cannot listen on {args.listen}: {error}", file=sys.stderr)
        return EXIT_CANNOT_LISTEN
    return EXIT_OK


def _derive(args: argparse.Namespace) -> DeriveOptions:
    """What only Derive's dialect is told."""
    rates = msgspec.structs.replace(TRADER if args.trader_limits else MARKET_MAKER, enforced=not args.no_rate_limits)
    if args.accounts is None:
        return DeriveOptions(rates=rates)
    return DeriveOptions(rates=rates, wallets=read_wallets(args.accounts))


def _market(args: argparse.Namespace, exchange: Exchange) -> tuple[Market, Callable[[], int]]:
    """The market that was asked for and the clock it lives on."""
    if exchange is Exchange.DERIVE:
        if args.market == "recorded" or args.feed is not None or args.as_recorded or args.instruments is not None:
            raise ConfigError(["--exchange derive: there is only a generated market, of instruments of its own"])
        return derive_market(args.seed, now_ms=time.time_ns() // 1_000_000), time.time_ns
    if args.market == "generated":
        if args.feed is not None or args.as_recorded:
            raise ConfigError(["--feed and --as-recorded need --market recorded"])
        return generated_market(args.seed, args.instruments), time.time_ns
    clock = time.time_ns
    if args.as_recorded:
        clock = clock_from(read_feed(args.feed or RECORDED_FEED).first_ms)
    market = recorded_market(args.feed, args.instruments, args.seed, args.as_recorded, now_ms=clock() // 1_000_000)
    return market, clock


def clock_from(start_ms: int) -> Callable[[], int]:
    """A clock (Unix ns) that reads `start_ms` now and runs at the speed of time."""
    begin_ns = time.monotonic_ns()
    return lambda: start_ms * 1_000_000 + time.monotonic_ns() - begin_ns


async def serve(sandbox: Sandbox, host: str, port: int) -> None:
    """Run the sandbox on a port until a signal; prints one line with its URL when it is ready."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(sandbox.run)
            bound: int = await nursery.start(sandbox.serve_tcp, host, port)
            shown = f"[{host}]" if ":" in host else host
            print(f"ws://{shown}:{bound}{WEBSOCKET_PATHS[sandbox.options.exchange]}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 host in brackets; ConfigError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ConfigError([f"--listen {text}: must be HOST:PORT with a port from 0 to 65535"])
    return host.strip("[]") or "127.0.0.1", int(port)


def read_accounts(path: Path) -> tuple[Key, ...]:
    """The accounts file; ConfigError with what is wrong in it."""
    try:
        rows = msgspec.convert(yaml.safe_load(path.read_text()), list[AccountLine])
        keys = tuple(
            Key(
                client_id=row.client_id,
                client_secret=row.client_secret,
                scope=row.scope,
                balances={name: Decimal(str(amount)) for name, amount in row.balances.items()},
            )
            for row in rows
        )
    except (yaml.YAMLError, msgspec.ValidationError, ArithmeticError, UnicodeDecodeError) as error:
        raise ConfigError(
            [f"{path}: {error}; wanted: a list of {{client_id, client_secret, scope?, balances?}}"]
        ) from None
    names = [key.client_id for key in keys]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError([f"{path}: client_id given twice: {', '.join(sorted(doubled))}"])
    return keys


def read_wallets(path: Path) -> tuple[WalletLine, ...]:
    """Derive's accounts file; ConfigError with what is wrong in it."""
    # Not before it is asked for: it loads a curve and a codec.
    from mmd.sandbox.derive.wallets import Wallets

    try:
        lines = msgspec.convert(yaml.safe_load(path.read_text()), tuple[WalletLine, ...])
        Wallets(lines, DeriveOptions().chain_id)
    except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        raise ConfigError(
            [f"{path}: {error}; wanted: a list of {{address, subaccounts, keys?, cancel_on_disconnect?, usdc?}}"]
        ) from None
    return lines
