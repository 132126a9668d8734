"""`mmd reap`: cancel what a dead daemon left at its exchanges, prove that nothing is left, and certify it."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
import trio

from mmd.cli.tables import Cell, Column, Style, clean, draw, page_of
from mmd.config.locate import config_path, state_directory
from mmd.domain.errors import MmdError
from mmd.shell.certificate import Certificate, ExchangeLine, write, write_to
from mmd.shell.reap import Job, Places, Sentry, Trouble, read_places, reap
from mmd.shell.whereabouts import Whereabouts, forget

EXIT_PROVEN = 0
EXIT_NOT_PROVEN = 1
EXIT_USAGE = 64
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
DEFAULT_SECONDS = 20.0
MAX_SECONDS = 3600.0
STATUSES = """\
exit status:
  0 proven: nothing of ours rests at any exchange that was looked at (--dry-run: nothing was found)
  1 not proven: orders are left, an exchange did not answer in time, or a daemon lives
  64 usage    77 an exchange refuses the key, or others can read it
  78 configuration or key missing, or what the last daemon left cannot be read
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "reap",
        help="after a crash: cancel every order of ours, and prove that none is left",
        description="Cancels what carries this service's label at every exchange of the configuration and of the "
        "last run, looks again until nothing is left, and writes a certificate. Nobody else's order is touched. "
        "systemd runs it after every end of the daemon; while a daemon lives, use mmdctl halt all.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration (default: /etc/mmd/mmd.yaml)")
    parser.add_argument("--dry-run", action="store_true", help="look once and change nothing")
    parser.add_argument("--timeout", type=_seconds, default=DEFAULT_SECONDS, metavar="S", help="default: 20 seconds")
    parser.add_argument("--exchange", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--state-dir", metavar="DIR", help="default: as the daemon's")
    parser.add_argument("--certificate", type=Path, metavar="PATH", help="write it there, not into the state directory")
    alive = parser.add_mutually_exclusive_group()
    alive.add_argument("--even-if-running", action="store_true", help="also while a daemon lives, which will notice")
    alive.add_argument("--unless-running", action="store_true", help="that this directory's daemon lives is no error")
    parser.add_argument("--after", metavar="END", help="how the daemon ended: RESULT-CODE-STATUS, in systemd's words")
    parser.add_argument("--json", action="store_true", help="print the certificate instead of a table")
    parser.set_defaults(func=run)


def main(argv: list[str] | None = None) -> int:
    """For `python -m mmd.cli.reap reap …`: nothing of the daemon is loaded, so nothing of it can be in the way."""
    alone = argparse.ArgumentParser(prog="mmd")
    add_parser(alone.add_subparsers(dest="command", metavar="COMMAND", required=True))
    return run(alone.parse_args(argv))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to {MAX_SECONDS:g}")
    return value


def say(lines: list[str]) -> None:
    """A file's name may have bytes that are no text; they are shown as what they are."""
    print("\n".join(lines).encode("utf-8", "backslashreplace").decode())


def complain(text: str) -> None:
    print(f"mmd reap: {clean(text)}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """The exit status."""

    def state_of(configured: str | None) -> Path:
        return state_directory(args.state_dir, configured, os.environ)

    places = read_places(config_path(args.config, os.environ), state_of)
    for problem in places.config.problems:
        complain(problem)
    if not places.found:
        complain("no exchange is known, neither from the file nor from the last run")
        return EXIT_CONFIG
    if args.exchange:
        names = sorted({place.config.name for place in places.found})
        if unknown := [name for name in args.exchange if name not in names]:
            complain(f"no exchange {', '.join(unknown)}; there are: {', '.join(names)}")
            return EXIT_USAGE
        kept = tuple(place for place in places.found if place.config.name in args.exchange)
        left_out = tuple(name for name in names if name not in args.exchange)
        places = msgspec.structs.replace(places, found=kept, left_out=left_out)
    return _reap(args, places, state_of(places.state_dir))


def _reap(args: argparse.Namespace, places: Places, state: Path) -> int:
    sentry = Sentry(state, places.found)
    watched = not (args.even_if_running or args.dry_run)
    if watched and (lives := sentry.alive()):
        return _leave_it(lives, args)
    if sentry.problem:
        complain(sentry.problem)
    held = sentry.held() if watched else {}
    for text in dict.fromkeys(held.values()):
        complain(text)
    errand = partial(
        reap,
        places,
        state=state,
        seconds=args.timeout,
        only_look=args.dry_run,
        after=args.after or "",
        taken_over=sentry.taken if watched else _nobody,
        held=held,
    )
    certificate, jobs = trio.run(errand)
    where = "" if args.dry_run else _keep(certificate, args.certificate, state)
    if not args.json:
        say(_text(certificate, where))
    if args.json or not (where or args.dry_run):  # somebody must have it
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(certificate), indent=1).decode() + "\n")
    lives = sentry.alive()
    if certificate.proven and not lives:
        _forget(state, places.content)
    if certificate.ended and lives and watched:
        return _leave_it(lives, args)
    return status_of(jobs, dry_run=args.dry_run, incomplete=places.incomplete)


def _nobody() -> str:
    return ""


def _leave_it(lives: str, args: argparse.Namespace) -> int:
    """The daemon of this state directory looks after its orders itself."""
    if args.unless_running:
        say([f"mmd reap: {lives}; it looks after its orders itself"])
        return EXIT_PROVEN
    complain(f"{lives}; it can do this better: mmdctl halt all. Or stop it first, or say --even-if-running")
    return EXIT_NOT_PROVEN


def status_of(jobs: list[Job], *, dry_run: bool, incomplete: bool) -> int:
    """1 where trying again may help, else why it would not. `incomplete`: an exchange may be missing."""
    left = [job for job in jobs if (job.progress.after != 0 if dry_run else not job.progress.proven)]
    troubles = {job.trouble for job in left}
    if Trouble.NONE in troubles:
        return EXIT_NOT_PROVEN
    if Trouble.PERMISSION in troubles:
        return EXIT_PERMISSION
    return EXIT_CONFIG if troubles or incomplete else EXIT_PROVEN


def _keep(certificate: Certificate, wanted: Path | None, state: Path) -> str:
    """Write it; the path, or "" where that failed: a disk must not decide whether orders are cancelled."""
    try:
        if wanted is not None:
            write_to(certificate, wanted)
            return str(wanted)
        return str(write(certificate, state))
    except (OSError, MmdError, ValueError) as error:  # ValueError: a path that can be no file's
        complain(f"the certificate could not be written, so it follows on standard output: {error}")
        return ""


def _forget(state: Path, content: Whereabouts | None) -> None:
    try:
        forget(state, content)
    except (OSError, MmdError) as error:
        complain(f"{error}")


# --- for people ----------------------------------------------------------------------------------

COLUMNS = (
    Column("exchange"),
    Column("account", keep=4),
    Column("service", keep=3),
    Column("before", right=True),
    Column("later", right=True, keep=5),
    Column("cancelled", right=True),
    Column("gone", right=True, keep=5),
    Column("left", right=True),
    Column("proven"),
)


def _text(certificate: Certificate, where: str) -> list[str]:
    page = page_of(sys.stdout, os.environ)
    lines = [f"reaped after {certificate.cause}" if not certificate.dry_run else "dry run: nothing was cancelled"]
    lines += draw(page, COLUMNS, [_row(line) for line in certificate.exchanges])
    for line in certificate.exchanges:
        lines += [f"{line.exchange}: {clean(error)}" for error in line.errors]
        if not line.proven:
            left = [order for order in line.orders if order.outcome == "left"]
            lines += [f"{line.exchange}: LEFT {order.symbol} {order.side} {clean(order.label)}" for order in left]
    if certificate.ended:
        lines.append(f"ended early: {certificate.ended}")
    if where:
        lines.append(f"certificate: {where}")
    if not certificate.dry_run:
        lines.append(_verdict(certificate))
    return lines


def _verdict(certificate: Certificate) -> str:
    if certificate.proven:
        return "PROVEN: nothing of ours rests"
    if certificate.left_out and certificate.exchanges and all(line.proven for line in certificate.exchanges):
        names = ", ".join(dict.fromkeys(line.exchange for line in certificate.exchanges))
        return f"PROVEN of {names} only: NOT LOOKED AT: {', '.join(certificate.left_out)}"
    left_out = f"; not looked at: {', '.join(certificate.left_out)}" if certificate.left_out else ""
    return f"NOT PROVEN: orders of ours may still rest{left_out}"


def _row(line: ExchangeLine) -> list[Cell]:
    def count(number: int | None) -> Cell:
        return Cell("?" if number is None else str(number))

    return [
        Cell(line.exchange),
        Cell(clean(line.account) or "?"),
        Cell(line.service),
        count(line.before),
        count(line.later),
        count(line.cancelled),
        count(line.gone),
        count(line.after),
        Cell("yes", Style.GOOD) if line.proven else Cell("NO", Style.BAD),
    ]


if __name__ == "__main__":
    sys.exit(main())
