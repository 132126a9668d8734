"""The command line of mmdctl: words in, a checked Namespace out. Usage errors end the program with status 2."""

import argparse
import textwrap
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Protocol

from mmd import __version__
from mmd.cli.moments import Moment, parse_moment
from mmd.control.protocol import DEFAULT_SLIPPAGE_BPS, EVENTS_MAX, check_decimal

TIMEOUT_MAX_SECONDS = 600
REASON_MAX = 500
GLOB_MAX = 200
DIGITS_MAX = 18
LINES_DEFAULT = 20
HELP_COLUMNS = 78
EPILOG = """\
SYMBOL is a name, EXCHANGE/NAME, a glob (quote it) or `all`.

exit status:
  0 done    1 refused, with reasons    2 usage    3 no daemon answers
  4 not permitted    5 timed out, not proven, some is left, or degraded (status --check)

examples:
  mmdctl status                              the service and all its symbols
  mmdctl explain BTC-PERPETUAL               how its quote comes about, or why there is none
  mmdctl resume 'deribit/BTC-*'              quote again, once every check passes
  mmdctl halt all --reason "bad fills"       emergency stop; asks no question
  mmdctl reset all --reason "fills checked"  after a halt: to PAUSED; then resume
  mmdctl flatten BTC-PERPETUAL --dry-run     what closing the position would cost now
  mmdctl plan && mmdctl reload --confirm 60  undone after a minute unless `mmdctl confirm`
  mmdctl --json status | jq '.symbols[] | {symbol, state, position}'
  mmdctl events --follow --json              one JSON object a line

environment:
  MMD_SOCKET, RUNTIME_DIRECTORY  where the socket is: --socket, else $MMD_SOCKET, else
                                 $RUNTIME_DIRECTORY/mmd.sock, else /run/mmd/mmd.sock
  NO_COLOR, COLUMNS, TERM        how the tables look
"""
EXAMPLES = {
    "status": ["status", "status 'BTC-*' deribit/ETH-PERPETUAL", "status --check >/dev/null || page-somebody"],
    "show": ["show BTC-PERPETUAL", "show config"],
    "explain": ["explain BTC-PERPETUAL"],
    "orders": ["orders", "orders 'BTC-*' --json"],
    "positions": ["positions"],
    "risk": ["risk", "risk --json | jq '.totals[] | select(.worst > 0.8 * .limit)'"],
    "ledger": ["ledger", "ledger 'BTC-*' --json"],
    "switches": ["switches"],
    "alerts": ["alerts"],
    "cases": ["cases", "cases --all 'BTC-*'", "cases --json | jq '.cases[] | {number, ours, theirs}'"],
    "accept": ["accept 7 --reason 'the trade was made by hand in the web page'"],
    "protection": ["protection", "protection --reset deribit/BTC --reason 'fills reviewed, the price was right'"],
    "flatten": [
        "flatten BTC-PERPETUAL --dry-run",
        "flatten BTC-PERPETUAL --reason 'expiry tonight'",
        "flatten deribit/ETH-PERPETUAL --size 200 --slippage-bps 20 --yes",
    ],
    "pause": ["pause 'BTC-*' --reason 'expiry in an hour'"],
    "resume": ["resume all", "resume deribit/ETH-PERPETUAL --timeout 30"],
    "halt": ["halt all", "halt BTC-PERPETUAL --reason 'odd fills'"],
    "reset": ["reset BTC-PERPETUAL --reason 'fills reviewed with risk'"],
    "plan": ["plan"],
    "reload": ["reload", "reload --confirm 60"],
    "confirm": ["confirm"],
    "shadow": ["shadow 'BTC-*'", "shadow 'BTC-*' --off"],
    "events": [
        "events --lines 100",
        "events --follow",
        "events --since 1042 --json",
        "events --since 2h --name 'order.filled' --symbol 'BTC-*'",
        "events --since 2026-01-31T12:00Z --until 2026-01-31T12:15Z",
    ],
    "log-level": ["log-level debug"],
    "version": ["version"],
}


DETAILS = {
    "halt": "Exit 5 means: nothing proves that the book is empty of our orders. The daemon goes on cancelling; what is "
    "known of the orders is printed on stderr.",
    "reset": "It moves a symbol from HALTED to PAUSED; what tripped it is counted from here again, and after a "
    "position drift the exchange's position is adopted. It does not quote (that is resume), it places and closes "
    "nothing, it changes no limit, and orders that are still being pulled go on being pulled. The reply says which.",
    "flatten": "From PAUSED or HALTED, one symbol at a time. Prints what it would cost against the visible book, asks "
    "for the symbol's name, then sends reduce-only orders that never rest, at the previewed limit price or better. "
    "It never turns a position round. With --json, stdout has the answer to flatten (or the preview, where it ends "
    "with that); the rest is on stderr.",
    "cases": "A case is a difference between the exchange's books and ours. It keeps its symbol from being resumed "
    "until the numbers agree or somebody accepts the exchange's. See docs/reconciliation.md.",
    "accept": "Takes the exchange's word in one case; the reply says what that did. It quotes nothing (that is "
    "resume), leaves a HALTED symbol HALTED (that is reset) and sends no order. Refused while the symbol is ACTIVE.",
    "protection": "A freeze of the exchange's maker protection stops new quotes there. --reset ends it at the "
    "exchange; it resumes nothing.",
    "ledger": "Since the symbol's ledger began, which a restart does not end; it begins anew without a journal, on "
    "another account, or when a symbol leaves the configuration and comes back. TODAY and DRAWDOWN outlive all that. "
    "See docs/ledger.md.",
    "positions": "What a symbol left behind when it was removed comes last, as it was last known: it counts towards "
    "the totals until the symbol is back or the instrument expires, and fills since then are not in it.",
    "events": "The last 10,000 are in memory, older ones in the journal: the daemon looks there for a few seconds and "
    "says where it stopped. `mmd journal export --what notes` has no such limit and needs no daemon.",
    "explain": "The rule that withholds a quote comes first, with its number, its limit and where that was written; "
    "then what would end it.",
}


class AddCommand(Protocol):
    def __call__(self, name: str, summary: str) -> argparse.ArgumentParser: ...


def parser() -> argparse.ArgumentParser:
    """The whole command line. Common options may stand before or after the command."""
    top = argparse.ArgumentParser(
        prog="mmdctl",
        description="Ask the running market maker, or tell it what to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mmdctl {__version__}")
    _add_common(top, absent=None)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description="\n\n".join([summary, *_folded(name)]),
            epilog="\n".join(["examples:", *(f"  mmdctl {example}" for example in EXAMPLES[name])]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_common(sub, absent=argparse.SUPPRESS)
        return sub

    _add_views(command)
    _add_changes(command)
    return top


def _folded(name: str) -> list[str]:
    return [textwrap.fill(DETAILS[name], HELP_COLUMNS)] if name in DETAILS else []


def _add_views(command: AddCommand) -> None:
    status = command("status", "The service, its exchanges and its symbols.")
    status.add_argument("symbols", nargs="*", metavar="SYMBOL")
    status.add_argument(
        "--check",
        action="store_true",
        help="exit 5 if a symbol is halted, a case open, an alert critical, a link down, a file refused",
    )
    show = command("show", "Symbols in full, or the effective configuration.")
    show.add_argument("symbols", nargs="*", metavar="SYMBOL", help="or the word `config` (secrets are masked)")
    explain = command("explain", "Each step of a quote and each readiness check, with numbers.")
    explain.add_argument("symbols", nargs="+", metavar="SYMBOL")
    orders = command("orders", "Our orders.")
    orders.add_argument("symbols", nargs="*", metavar="SYMBOL")
    positions = command("positions", "Our positions and their profit.")
    positions.add_argument("symbols", nargs="*", metavar="SYMBOL")
    command("risk", "Every total: used now, at worst, allowed, and where the limit is written.")
    ledger = command("ledger", "The account of each symbol; real and shadow apart.")
    ledger.add_argument("symbols", nargs="*", metavar="SYMBOL")
    command("switches", "The kill switches: thresholds, trips, what they hold now.")
    cases = command("cases", "Differences between the exchanges' books and ours, with both numbers.")
    cases.add_argument("symbols", nargs="*", metavar="SYMBOL")
    cases.add_argument("--all", action="store_true", help="the last 1,000 closed ones as well")
    command("alerts", "Alerts that last, the worst first, with what to do.")
    command("plan", "What a reload would change; changes nothing.")
    events = command("events", "State changes, fills, refusals, operators' commands.")
    events.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    events.add_argument("--since", type=_moment, metavar="WHEN", help="after a number, from a time, for 90s, 2h, 3d")
    events.add_argument("--until", type=_moment, metavar="WHEN", help="up to a number, a time or an age")
    events.add_argument("--name", type=_glob, metavar="GLOB", help="of this name, as 'order.*'")
    events.add_argument("--symbol", type=_glob, metavar="GLOB", help="of this symbol, as 'deribit/BTC-*'")
    events.add_argument("-n", "--lines", type=_lines, metavar="N", help=f"the last N (default {LINES_DEFAULT})")
    command("version", "Versions of mmdctl and of the daemon, and your role.")


def _add_changes(command: AddCommand) -> None:
    for name, summary in (
        ("pause", "Stop quoting and pull the orders; waits until none rests."),
        ("resume", "Quote if every readiness check passes, else print what fails."),
        ("halt", "Emergency stop until `reset`; asks no question."),
        ("reset", "From HALTED to PAUSED after a review; needs --reason."),
    ):
        change = command(name, summary)
        change.add_argument("symbols", nargs="+", metavar="SYMBOL", help="or `all`")
        _add_reason(change, required=name == "reset")
    accept = command("accept", "Take the exchange's word in an open case; needs --reason.")
    accept.add_argument("number", type=_case, metavar="NUMBER", help="of the case, from `mmdctl cases`")
    _add_reason(accept, required=True)
    _add_flatten(command)
    protection = command("protection", "The exchanges' own maker protection; --reset ends a freeze.")
    protection.add_argument("--reset", type=_protection, metavar="EXCHANGE/UNDERLYING", help="needs --reason")
    _add_reason(protection, required=False)
    shadow = command("shadow", "Keep the orders of symbols to ourselves.")
    shadow.add_argument("symbols", nargs="+", metavar="SYMBOL", help="or `all`")
    shadow.add_argument("--off", action="store_true", help="go back to the mode of the configuration")
    _add_reason(shadow, required=False)
    reload = command("reload", "Apply the files on disk, all or nothing; waits for the outcome.")
    reload.add_argument("--confirm", type=_confirm, metavar="S", help="undo it after S seconds unless confirmed")
    reload.add_argument("--wait", action="store_true", help="wait for the outcome (it always does)")
    _add_reason(reload, required=False)
    confirm = command("confirm", "Keep a reload that was made with --confirm.")
    _add_reason(confirm, required=False)
    level = command("log-level", "How much the daemon logs, until it restarts.")
    level.add_argument("level", choices=("debug", "info", "warning", "error", "critical"), type=str.lower)
    _add_reason(level, required=False)


def _add_flatten(command: AddCommand) -> None:
    flatten = command("flatten", "Close the position of one symbol; shows the cost and asks first.")
    flatten.add_argument("symbol", metavar="SYMBOL", help="exactly one; a glob may match one only")
    flatten.add_argument("--size", type=_amount, metavar="AMOUNT", help="how much of it (default: all)")
    flatten.add_argument(
        "--slippage-bps",
        type=_basis_points,
        default=DEFAULT_SLIPPAGE_BPS,
        metavar="N",
        help=f"no worse than this from the mark (default {DEFAULT_SLIPPAGE_BPS:g})",
    )
    flatten.add_argument("--yes", action="store_true", help="do not ask; needed without a terminal")
    flatten.add_argument("--dry-run", action="store_true", help="only the preview; sends nothing")
    _add_reason(flatten, required=False)


def _add_common(to: argparse.ArgumentParser, *, absent: str | None) -> None:
    """`absent`: the default; a command's own must not overwrite what stood before the command."""
    to.add_argument("--socket", type=Path, default=absent, metavar="PATH", help="control socket of the daemon")
    to.add_argument("--json", action="store_true", default=absent or False, help="print the result as JSON")
    to.add_argument("--timeout", type=_timeout, default=absent, metavar="S", help="seconds to wait for the outcome")


def _add_reason(to: argparse.ArgumentParser, *, required: bool) -> None:
    to.add_argument("--reason", type=_reason, required=required, metavar="TEXT", help="for the record")


def _reason(text: str) -> str:
    text = text.strip()
    if not text or not text.isprintable() or len(text) > REASON_MAX:
        raise argparse.ArgumentTypeError(f"a reason is one printable line of 1 to {REASON_MAX} characters")
    return text


def _seconds(text: str, low: float, high: float) -> float:
    """A number from `low` to `high`; nan is none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {low:g} to {high:g}")
    return value


def _timeout(text: str) -> float:
    return _seconds(text, 0.1, TIMEOUT_MAX_SECONDS)


def _confirm(text: str) -> float:
    return _seconds(text, 1, 86_400)


def _amount(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    try:
        check_decimal("size", value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an amount above 0 with at most 18 digits on each side of the point"
        ) from error
    return value


def _basis_points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of basis points from 0 to 10000")
    return value


def _protection(text: str) -> tuple[str, str]:
    exchange, _, underlying = text.partition("/")
    if not exchange or not underlying or "/" in underlying or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not EXCHANGE/UNDERLYING, as in deribit/BTC")
    return exchange, underlying


def _case(text: str) -> int:
    digits = text.removeprefix("#")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > DIGITS_MAX or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a case, as in 7")
    return int(digits)


def _moment(text: str) -> Moment:
    return parse_moment(text, time.time_ns(), "an event")


def _glob(text: str) -> str:
    if not text or not text.isprintable() or len(text) > GLOB_MAX:
        raise argparse.ArgumentTypeError(f"a glob has 1 to {GLOB_MAX} printable characters")
    return text


def _lines(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) > EVENTS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines from 0 to {EVENTS_MAX}")
    return int(text)
