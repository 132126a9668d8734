"""`mmd replay`: decide again what the journal says was decided, and name the first difference.

With `--config`: what other settings would have quoted, in trading terms (`mmd.cli.whatif`).
"""

import argparse
import os
import sys
import time

import msgspec

import mmd
from mmd.cli import whatif
from mmd.cli.moments import Moment, parse_moment
from mmd.cli.printing import show
from mmd.cli.tape import NS, Tape
from mmd.cli.verify import moment, places
from mmd.config.locate import state_directory
from mmd.domain.errors import ConfigError
from mmd.journal.faults import Broken
from mmd.journal.records import AnyRecord, Batch, Began, Joined, Left, Snapshot, TakenOut, Totals, Unclaimed
from mmd.journal.statefile import JournalFailed
from mmd.replay.collector import no_collector
from mmd.replay.replayer import Difference, Replayer, Stop

EXIT_SAME = 0
EXIT_DIFFERS = 1
EXIT_NO_JOURNAL = 66
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
EVENTS_SHOWN = 20
OTHERS_SHOWN = 10
STATUSES = """\
exit status:
  0 the same    1 it differs, or the chain is broken, or nothing could be compared
  64 usage    66 no journal there    77 not permitted    78 the configuration given with --config is refused

WHEN is the number of a record, a UTC time (2026-01-31, 2026-01-31T12:03:00Z) or an age (90s, 15m, 2h, 3d).
Whatever is asked for, reading begins with a file before it that has the state of every machine in it.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "replay",
        help="decide again what the journal says was decided",
        description="Feeds the journal's events to fresh machines and compares what they decide with what was "
        "decided, digest by digest. The first difference is named. A daemon may run meanwhile.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state-dir", metavar="DIR", help="default: $STATE_DIRECTORY, else /var/lib/mmd")
    parser.add_argument("--since", type=_moment, metavar="WHEN", help="from here on; default: the oldest file")
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="up to here; default: the end")
    parser.add_argument("--from-segment", type=_number, metavar="N", help="begin with journal-N, whatever is in it")
    parser.add_argument(
        "--symbol", metavar="GLOB", help="only these symbols, as deribit/BTC-*; then without the totals"
    )
    parser.add_argument("--config", metavar="FILE", help="what this configuration would have quoted instead")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--quiet", action="store_true", help="print only differences; no progress")
    parser.set_defaults(func=run)


def _moment(text: str) -> Moment:
    return parse_moment(text, time.time_ns(), "a record")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 10**8:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a file, which is 1 or more")
    return int(text)


def complain(text: str) -> None:
    print(f"mmd replay: {text}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Exit status: as STATUSES says."""
    tape: Tape | None = None
    try:
        _, directory = places(state_directory(args.state_dir, None, os.environ))
        progress = None if args.quiet or not sys.stderr.isatty() else sys.stderr
        tape = Tape(directory, args.from_segment, args.since, args.until, args.symbol or "*", progress)
        return whatif.run(args, tape) if args.config else compare(args, tape)
    except ConfigError as wrong:
        complain("\n".join(wrong.lines))
        return EXIT_CONFIG
    except (JournalFailed, OSError) as wrong:
        complain(str(wrong))
        if isinstance(wrong, Broken):
            return EXIT_DIFFERS
        denied = isinstance(wrong, PermissionError) or isinstance(wrong.__cause__, PermissionError)
        return EXIT_PERMISSION if denied else EXIT_NO_JOURNAL
    finally:
        if tape is not None:
            tape.clear()


# --- digest by digest ---------------------------------------------------------------------------------


class Found(msgspec.Struct, kw_only=True):
    """The outcome. `recorded_by`: the versions that wrote what was replayed; `speed`: times real time."""

    same: bool = False
    records: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_at: int = 0
    last_at: int = 0
    compared: int = 0
    skipped: int = 0
    seconds: float = 0.0
    speed: float = 0.0
    recorded_by: list[str] = []
    replayed_by: str = mmd.__version__
    differences: list[Difference] = []
    stops: list[Stop] = []
    unseen: dict[str, int] = {}


def compare(args: argparse.Namespace, tape: Tape) -> int:
    found = collect(tape, everything=args.symbol is None)
    tape.clear()
    if args.json:
        show(msgspec.json.format(msgspec.json.encode(found)).decode())
    elif not (args.quiet and found.same):
        show("\n".join(sentences(found)))
    return EXIT_SAME if found.same else EXIT_DIFFERS


def collect(tape: Tape, *, everything: bool) -> Found:
    """Replay it all."""
    replayer = Replayer()
    found = Found()
    versions: dict[str, None] = {}
    feed = replayer.feed
    with no_collector():
        for record in tape:
            if not (everything or concerns(record, tape)):
                continue
            difference = feed(record)
            if difference is not None:
                found.differences.append(difference)
            if replayer.version not in versions:
                versions[replayer.version] = None
    found.records, found.first_seq, found.last_seq = tape.records, tape.first_seq, tape.last_seq
    found.first_at, found.last_at = tape.first_at, tape.last_at
    found.compared, found.skipped = replayer.compared, replayer.skipped
    found.seconds, found.speed = tape.seconds, tape.times
    found.recorded_by = [version for version in versions if version]
    found.stops, found.unseen = replayer.stops, replayer.unseen
    found.same = not found.differences and found.compared > 0
    return found


def concerns(record: AnyRecord, tape: Tape) -> bool:
    """Whether a record is about one of the symbols that were asked for, or about the file or the process."""
    match record:
        case Batch(key=key) | Snapshot(key=key) | Joined(key=key) | Left(key=key) | TakenOut(key=key):
            return bool(key) and tape.wants(key)
        case Unclaimed(key=key):
            return bool(key) and tape.wants(key)
        case Totals() | Began():
            return False
    return True


def sentences(found: Found) -> list[str]:
    """The outcome first."""
    said: list[str] = []
    if found.differences:
        said += difference_lines(found.differences[0], found)
        others = found.differences[1:]
        said += [f"  also: {name(d.key)} at record {d.seq}, {moment(d.at)}: {d.where}" for d in others[:OTHERS_SHOWN]]
        if len(others) > OTHERS_SHOWN:
            said.append(f"  and {len(others) - OTHERS_SHOWN} more")
    elif found.compared:
        said.append(f"the same: {found.compared} decisions")
    else:
        said.append("NOTHING COMPARED: no machine's state is known in what was read")
    span = (found.last_at - found.first_at) / NS
    said.append(
        f"read:     {found.records} records, {found.first_seq} to {found.last_seq}, "
        f"{moment(found.first_at)} to {moment(found.last_at)}"
    )
    rate = found.records / max(found.seconds, 1e-9)
    fast = f"{found.speed:,.0f} times real time, {rate:,.0f} records a second"
    said.append(f"speed:    {span:,.1f} s in {found.seconds:.2f} s: {fast}")
    said.append(
        f"versions: written by {', '.join(found.recorded_by) or 'nobody knows'}, replayed by {found.replayed_by}"
    )
    if found.skipped:
        said.append(f"skipped:  {found.skipped} records of machines that were not known, or not comparable any more")
    said += [f"  {name(stop.key)} from record {stop.seq}: {stop.why}" for stop in found.stops]
    said += [f"  {name(key)} from record {seq}: its state comes later or never" for key, seq in found.unseen.items()]
    return said


def difference_lines(difference: Difference, found: Found) -> list[str]:
    said = [
        f"DIFFERS at record {difference.seq}, {moment(difference.at)}, {name(difference.key)}: {difference.where}",
        f"  written by {', '.join(found.recorded_by)}, replayed by {found.replayed_by}",
        f"  recorded: {difference.recorded}",
        f"  replayed: {difference.replayed}",
    ]
    if difference.events:
        said.append("  after these events:")
        said += [f"    {event}" for event in difference.events[:EVENTS_SHOWN]]
        if len(difference.events) > EVENTS_SHOWN:
            said.append(f"    and {len(difference.events) - EVENTS_SHOWN} more")
    return said


def name(key: str) -> str:
    return key or "the portfolio"
