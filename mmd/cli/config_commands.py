"""The commands of mmd that only read configuration: check, show-config, init."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from mmd.cli.tables import Cell, Column, Style, clean, draw, page_of
from mmd.config.advise import Advice, advise
from mmd.config.init import InitRefused, Order, parse
from mmd.config.init_file import to_yaml
from mmd.config.load import load, load_text
from mmd.config.locate import config_path
from mmd.config.model import Config
from mmd.config.render import to_json
from mmd.config.render import to_yaml as render_yaml
from mmd.config.select import resolve
from mmd.domain.errors import ConfigError, MmdError
from mmd.domain.instruments import Instrument
from mmd.shell.preflight import Report, look_online

EX_OK = 0
EX_WARNINGS = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_NOPERM = 77
EX_CONFIG = 78

Listing = tuple[Mapping[str, Instrument], Mapping[str, float]]
"""Instruments by symbol, index prices in USD by coin."""

Lister = Callable[[str, str], Listing]
"""Asks an exchange (name, network) what it lists now. Raises MmdError or OSError where it cannot be asked."""

Looker = Callable[[Config], list[Report]]
"""Looks at every exchange of a configuration; raises nothing."""

Subparsers = argparse._SubParsersAction  # argparse has no public name for it
Parser = TypeVar("Parser", bound=argparse.ArgumentParser)


def add_parsers(subparsers: "Subparsers[Parser]", lister: Lister | None = None, looker: Looker = look_online) -> None:
    """Adds the commands; each sets `func` to a callable that takes the arguments and returns an exit status."""
    check = subparsers.add_parser("check", help="say everything that is wrong with a configuration")
    _add_config(check)
    check.add_argument("--strict", action="store_true", help="exit 1 where there are warnings")
    check.add_argument("--online", action="store_true", help="then look at the exchanges too; changes nothing there")
    check.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    check.set_defaults(func=lambda args: check_command(args, looker))
    show = subparsers.add_parser("show-config", help="print the configuration with every default filled in")
    _add_config(show)
    show.add_argument("--origin", action="store_true", help="the file and line of each value")
    show.add_argument("--json", action="store_true", help="one JSON object instead of YAML")
    show.set_defaults(func=show_command)
    _add_init(subparsers, lister)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help="default: mmd.yaml in /etc/mmd")


def _add_init(subparsers: "Subparsers[Parser]", lister: Lister | None) -> None:
    init = subparsers.add_parser(
        "init",
        help="print a first configuration",
        description="Prints the YAML that quotes the options of one expiry, on derive the perpetual as well. "
        "Secrets stay where they are: the file names the environment variables that have them. "
        "-word and --word are the same. "
        "EXPIRY, STRIKES, ALL_STRIKES, SIZE, SPREAD_BPS, MAX_POSITION, MAX_EXPOSURE and DRY_RUN in the "
        "environment stand in for flags that are not given.",
        allow_abbrev=False,
    )

    def word(name: str, metavar: str, text: str) -> None:
        init.add_argument(f"--{name}", f"-{name}", metavar=metavar, help=text)

    def switch(name: str, text: str) -> None:
        init.add_argument(f"--{name}", f"-{name}", action="store_true", help=text)

    word("expiry", "YYYYMMDD", "day on which the options expire (required)")
    word("strikes", "LIST", "strikes, separated by commas")
    switch("all-strikes", "every strike of the expiry")
    word("exchange", "NAME", "derive (default) or deribit")
    switch("test", "the test network")
    word("network", "NAME", "mainnet (default), testnet or sandbox")
    word("underlying", "COIN", "ETH (default); on deribit ETH or BTC, on derive any coin")
    word("spread", "BPS", "whole distance from bid to ask; default 10")
    word("min-spread", "BPS", "never less than this; default 1000")
    word("size", "AMOUNT", "coins on each side; default 0.1; of derive's perpetual at least what it takes")
    word("refresh", "SECONDS", "quotes tighten at most this often; default 1")
    word("max-position", "AMOUNT", "coins for each instrument; default 1.0")
    word("max-exposure", "AMOUNT", "coins in all, sum of absolute positions; default 10.0")
    word("max-notional-usd", "USD", "notional in all; default 100000")
    word("max-drawdown-usd", "USD", "loss that halts everything; default 1000")
    word(
        "improvement",
        "USD",
        "better the best price by this; derive: default 0.10; deribit: with --index-price, default one tick",
    )
    word("index-price", "USD", "price of the coin, to turn --improvement into coins")
    word("improvement-reference-size", "AMOUNT", "look through thinner levels; default 0, off")
    word("aggression", "NUMBER", "0 joins the best price, 1 and above improves it (default)")
    word("wallet", "ADDRESS", "of derive: the owner's address; default $DERIVE_WALLET_ADDRESS, when mmd runs")
    word("subaccount", "NUMBER", "of derive: the wallet's subaccount that trades (required there, but in the sandbox)")
    init.add_argument("--private-key", "-private-key", nargs="?", const="", help="refused: never on the command line")
    switch("live", "write mode: live; without it the file says shadow")
    switch("dry-run", "also ask the exchange and list what would be traded")
    init.set_defaults(func=lambda args: init_command(args, lister))


def check_command(args: argparse.Namespace, looker: Looker) -> int:
    """0 fine, 1 warnings under --strict, 69 an exchange is not as it is wanted, 77 an exposed secret, 78 wrong."""
    path = config_path(args.config, os.environ)
    errors: list[str] = []
    config = None
    try:
        config = load(path)
    except ConfigError as error:
        errors = error.lines
    advice = advise(config) if config is not None else None
    errors += advice.unusable if advice else []
    exposed = advice.exposed if advice else []
    reports = looker(config) if config is not None and args.online and not (errors or exposed) else []
    status = _status(args, errors, exposed, advice.warnings if advice else [], reports)
    if args.json:
        report = {
            "ok": status == EX_OK,
            "errors": errors + exposed,
            "warnings": advice.warnings if advice else [],
            "notes": advice.notes if advice else [],
            "not_checked": advice.not_checked if advice else [],
            "files": list(config.files) if config else [str(path)],
            "sha256": config.sha256 if config else None,
        }
        print(msgspec.json.encode(report | ({"exchanges": reports} if args.online else {})).decode())
        return status
    for line in (*errors, *exposed):
        print(line, file=sys.stderr)
    if errors or advice is None or config is None:
        print(f"{len(errors)} error{'s'[: len(errors) != 1]}", file=sys.stderr)
        return status
    _print_advice(advice, online=bool(reports))
    if not exposed:
        print(f"{', '.join(config.files)}: good, {_summary(config)}, {len(advice.warnings)} warnings")
    for line in _table(reports):
        print(line)
    return status


def _status(
    args: argparse.Namespace, errors: list[str], exposed: list[str], warnings: list[str], reports: list[Report]
) -> int:
    grades = {finding.grade.value for report in reports for finding in report.findings}
    if errors:
        return EX_CONFIG
    if exposed:
        return EX_NOPERM
    if "fail" in grades:
        return EX_UNAVAILABLE
    return EX_WARNINGS if args.strict and (warnings or "warn" in grades) else EX_OK


def _print_advice(advice: Advice, *, online: bool) -> None:
    for line in advice.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in advice.notes:
        print(f"note: {line}")
    for line in advice.not_checked if not online else ():
        print(f"not checked: {line}")


COLUMNS = (Column("exchange"), Column("check"), Column(""), Column("found", words=True))
STYLES = {"ok": Style.GOOD, "warn": Style.WARN, "fail": Style.BAD}


def _table(reports: list[Report]) -> list[str]:
    """One row for each thing that was looked at, and a verdict for each exchange."""
    rows: list[list[Cell]] = []
    verdicts: list[str] = []
    for report in reports:
        for each in report.findings:
            grade = each.grade.value
            text = f"{each.found}; wanted: {each.wanted}" if each.wanted else each.found
            rows.append([Cell(report.exchange), Cell(each.check), Cell(grade, STYLES[grade]), Cell(text)])
        grades = [each.grade.value for each in report.findings]
        told = ", ".join(f"{grades.count(grade)} {grade}" for grade in STYLES)
        verdicts.append(f"{report.exchange} ({report.network}): {told}")
    return [*draw(page_of(sys.stdout, os.environ), COLUMNS, rows), *map(clean, verdicts)]


def _summary(config: Config) -> str:
    entries = len(config.entries)
    return f"{entries} {'entry' if entries == 1 else 'entries'}, sha256 {config.sha256[:12]}"


def show_command(args: argparse.Namespace) -> int:
    """The effective configuration on standard output; secrets only as where they are."""
    try:
        config = load(config_path(args.config, os.environ))
    except ConfigError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        return EX_CONFIG
    if args.json:
        print(to_json(config, origin=args.origin).decode())
    else:
        print(render_yaml(config, origin=args.origin), end="")
    return EX_OK


def init_command(args: argparse.Namespace, lister: Lister | None) -> int:
    """The YAML on standard output; with --dry-run the instruments follow it as comments."""
    try:
        order = parse(vars(args), os.environ)
    except InitRefused as refused:
        for line in refused.lines:
            print(f"mmd init: {line}", file=sys.stderr)
        return EX_USAGE
    text = to_yaml(order)
    print(text, end="")
    for note in order.notes:
        print(f"mmd init: {note}", file=sys.stderr)
    return _dry_run(order, text, lister) if order.dry_run else EX_OK


def _dry_run(order: Order, text: str, lister: Lister | None) -> int:
    if lister is None:
        print("mmd init: --dry-run: no exchange can be asked from here", file=sys.stderr)
        return EX_UNAVAILABLE
    try:
        instruments, prices = lister(order.exchange, order.network)
    except (MmdError, OSError) as error:
        place = f"{order.exchange} ({order.network})"
        print(f"mmd init: --dry-run: {place} could not be asked: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    index_prices = {(order.exchange, coin): price for coin, price in prices.items()}
    config = load_text(text, "(mmd init)")
    try:
        resolution = resolve(config, {order.exchange: instruments}, index_prices, time.time_ns())
    except ConfigError as error:
        for line in error.lines:
            print(f"mmd init: {line}", file=sys.stderr)
        return EX_CONFIG
    print(f"\n# {len(resolution.symbols)} instruments would be traded:")
    for resolved in resolution.symbols.values():
        print(f"#   {resolved.instrument.symbol}")
    for note in resolution.notes:
        print(f"mmd init: {note}", file=sys.stderr)
    return EX_OK
