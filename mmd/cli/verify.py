"""`mmd verify`: prove that no byte of the journal was changed, or name the first that was."""

import argparse
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mmd.cli.printing import show
from mmd.config.load import load
from mmd.config.locate import state_directory
from mmd.domain.errors import ConfigError
from mmd.journal.reader import Report, verify
from mmd.journal.segments import DIRECTORY
from mmd.journal.statefile import JournalFailed
from mmd.shell.locks import state_holder

EXIT_WHOLE = 0
EXIT_BROKEN = 1
EXIT_NO_JOURNAL = 66
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
HASH = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
MIB = 1 << 20
STATUSES = """\
A journal whose end was cut off behind a whole line is a whole journal. What shows that it was longer is a head hash
kept elsewhere, as the metrics, the status and the certificate of mmd reap have it. Give it with --head.

exit status:
  0 whole
  1 broken: the first fault is named; or the hash is not in it; or its end is unfinished and no daemon writes it
  64 usage    66 no journal there    77 not permitted    78 the configuration given with -c is refused
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "verify",
        help="prove that no byte of the journal was changed",
        description="Follows the chain of hashes through every file of the journal, from the oldest to the newest. "
        "A daemon may run meanwhile.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("directory", nargs="?", metavar="DIR", help="a state directory, or one that holds journal-*")
    place.add_argument("--state-dir", metavar="DIR", help="default: $STATE_DIRECTORY, else /var/lib/mmd")
    place.add_argument("-c", "--config", metavar="FILE", help="the state directory that this configuration names")
    parser.add_argument("--head", type=_hash, metavar="HASH", help="must be in it; 12 digits or more")
    parser.add_argument("--seq", type=_seq, metavar="N", help="and be the hash of this record")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.set_defaults(func=run)


def _hash(text: str) -> str:
    if HASH.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not 12 to 64 hexadecimal digits in small letters")
    return text


def _seq(text: str) -> int:
    if re.fullmatch(r"[1-9]\d{0,17}", text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a record's number, which is 1 or more")
    return int(text)


def complain(text: str) -> None:
    print(f"mmd verify: {text}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Exit status: as STATUSES says."""
    try:
        configured = load(Path(args.config)).service.state_dir if args.config else None
        state, directory = places(state_directory(args.directory or args.state_dir, configured, os.environ))
        report = verify(directory, head=args.head or "", seq=args.seq or 0)
        unfinished = report.tail is not None and not daemon_runs(state)
    except ConfigError as wrong:
        complain("\n".join(wrong.lines))
        return EXIT_CONFIG
    except (JournalFailed, OSError) as wrong:
        complain(str(wrong))
        denied = isinstance(wrong, PermissionError) or isinstance(wrong.__cause__, PermissionError)
        return EXIT_PERMISSION if denied else EXIT_NO_JOURNAL
    whole = report.whole and not unfinished
    if args.json:
        found = {"whole": whole, "unfinished": unfinished, **msgspec.structs.asdict(report)}
        show(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show("\n".join(sentences(report, unfinished=unfinished)))
    return EXIT_WHOLE if whole else EXIT_BROKEN


def places(given: Path) -> tuple[Path, Path]:
    """The state directory and the journal's, whichever was given. Raises OSError where it cannot be looked at."""
    inner = given / DIRECTORY
    given.stat()
    return (given, inner) if inner.is_dir() else (given.parent, given)


def daemon_runs(state: Path) -> bool:
    """Whether a daemon holds the lock of this state directory."""
    try:
        return state_holder(state) is not None
    except OSError:
        return False


def sentences(report: Report, *, unfinished: bool) -> list[str]:
    """The outcome first, then what it is about."""
    said = [outcome(report, unfinished=unfinished)]
    files = f"{report.segments} file{'s' if report.segments != 1 else ''}"
    said.append(
        f"read:   {files} ({report.compressed} compressed), {report.records} records, {report.size / MIB:.1f} MiB"
    )
    if report.records:
        said.append(f"first:  record {report.first_seq}, {moment(report.first_at)}, {report.oldest}")
        if report.follows:
            said.append(f"        follows {report.follows}: older files are not here, see journal.keep_days")
        said.append(f"last:   record {report.last_seq}, {moment(report.last_at)}")
        said.append(f"head:   {report.head}")
    if report.tail is not None:
        why = "left by a crash; the next start cuts it off and records that" if unfinished else "being written now"
        tail = report.tail
        said.append(f"tail:   {tail.file}: {tail.size} bytes from offset {tail.offset} are no whole line: {why}")
    said += [f"warning: {text}" for text in report.warnings]
    anchor = report.anchor
    if anchor is not None and anchor.seq:
        where = f"{anchor.file} line {anchor.line}" if anchor.file else "the one before the oldest file"
        said.append(f"hash:   {anchor.head} is record {anchor.seq}, {where}")
    elif anchor is None and report.fault is None:
        said.append("        whether records are missing at the end only a head kept elsewhere can tell: --head")
    return said


def outcome(report: Report, *, unfinished: bool) -> str:
    if report.fault is not None:
        return f"BROKEN: {report.fault}"
    anchor = report.anchor
    if anchor is not None and not anchor.seq:
        return (
            f"NOT IN IT: {anchor.head}: the end was cut off, or it is another journal, or its file was deleted as old"
        )
    if anchor is not None and not anchor.holds:
        return f"NOT THERE: the hash is that of record {anchor.seq}, not {anchor.wanted}"
    return "UNFINISHED: whole but for its end" if unfinished else "whole"


def moment(at: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(at // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
