"""`mmd journal`: export what happened for surveillance, list the files, show one record. Needs no daemon."""

import argparse
import csv
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

import msgspec

from mmd.cli.moments import Instant, Moment, parse_moment
from mmd.cli.tables import Cell, Column, clean, draw, page_of
from mmd.config.load import load
from mmd.config.locate import config_path, state_directory
from mmd.core.imagined import maker_fee
from mmd.domain.errors import ConfigError
from mmd.domain.settings import JournalSettings
from mmd.journal.beginning import beginning
from mmd.journal.disk import OsDisk
from mmd.journal.export import Selection, export
from mmd.journal.faults import Broken
from mmd.journal.listing import Listed, listing
from mmd.journal.reader import Line, Walk, lines, start
from mmd.journal.records import DECODER, AnyRecord, Batch
from mmd.journal.rows import KINDS, Row, cells, columns, utc
from mmd.journal.segments import DIRECTORY, SegmentFile, segment_files
from mmd.journal.statefile import JournalFailed, into, is_stream, private, sync_directory
from mmd.replay.peek import instrument_of, peek

EX_OK = 0
EX_BROKEN = 1  # the journal is, as `mmd verify` says
EX_NO_INPUT = 66  # there is none, or not this record
EX_OUTPUT = 74
EX_NO_PERMISSION = 77
EX_CONFIG = 78
JSON_LINES = (".jsonl", ".ndjson", ".json")
WHAT = (*KINDS, "all")
CONTEXT_DEFAULT = 3
NEIGHBOURS_MAX = 1000
NEXT_RECORDS = 200_000  # how far behind a record its neighbours are looked for
MIB = 1 << 20
UNTOLD = re.compile(rb'"type":"(?!(?:BookTop|TradePrinted|TimerFired|SetTimer)")|"error":|"called_off":')
"""A batch in which this is not found has nothing in it that an export tells."""
BATCH = b'{"kind":"batch",'
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
STATUSES = """\
exit status:
  0 done    1 the journal is broken: what is before was written, but with -o nothing    64 usage
  66 no journal there, or no such record    74 cannot write    77 not permitted    78 configuration

WHEN is the number of a record, a UTC time (2026-01-31, 2026-01-31T12:03:00Z) or an age (90s, 15m, 2h, 3d).
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    journal = subparsers.add_parser("journal", help="export, list or show what is in the journal")
    commands = journal.add_subparsers(dest="journal_command", metavar="COMMAND", required=True)

    def command(name: str, text: str, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=description,
            epilog=STATUSES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("-c", "--config", metavar="FILE", help="says where the state directory is")
        added.add_argument("--state-dir", metavar="DIR", help="the state directory, or a directory with a journal")
        return added

    _add_export(
        command("export", "orders, fills and more as CSV or JSON lines", "docs/journal-export.md has each column.")
    )
    listed = command("list", "the files: records, times, sizes", "Nothing is proven: that is `mmd verify`.")
    listed.add_argument("--json", action="store_true", help="one JSON array")
    listed.set_defaults(func=lambda args: guarded(args, run_list))
    show = command(
        "show", "one record with its neighbours of the same symbol", "SEQ may be a time: the first from then."
    )
    show.add_argument("record", type=_when, metavar="SEQ|WHEN")
    show.add_argument("--context", type=_count, default=CONTEXT_DEFAULT, metavar="N", help="neighbours; default 3")
    show.add_argument("--symbol", default="", metavar="EXCHANGE/SYMBOL", help="only with a time: of this symbol")
    show.set_defaults(func=lambda args: guarded(args, run_show))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", choices=WHAT, default="orders", help="default: orders")
    parser.add_argument("--format", choices=("csv", "jsonl"), help="default: by the name of FILE, else csv")
    parser.add_argument("--since", type=_when, metavar="WHEN", help="from this record or time on")
    parser.add_argument("--until", type=_when, metavar="WHEN", help="up to this record or time")
    parser.add_argument("--symbol", default="*", metavar="GLOB", help="a symbol, or exchange/symbol")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="whole or not at all; default: stdout")
    parser.set_defaults(func=lambda args: guarded(args, run_export))


def _when(text: str) -> Moment:
    return parse_moment(text, time.time_ns(), "a record")


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or int(text) > NEIGHBOURS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {NEIGHBOURS_MAX}")
    return int(text)


def complain(text: str) -> None:
    print(f"mmd: {clean(text)}", file=sys.stderr)


# --- where it is -----------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True):
    """The journal's directory, and the settings in force as far as they can be known."""

    directory: Path
    settings: JournalSettings
    configured: bool


def find_place(args: argparse.Namespace) -> Place:
    """Raises ConfigError where the configuration was named and is wrong; a default one need not be there."""
    settings, configured, state = JournalSettings(), False, None
    path = config_path(args.config, os.environ)
    if args.config or path.is_file():
        try:
            config = load(path)
            settings, configured, state = config.journal, True, config.service.state_dir
        except ConfigError:
            if args.config or not args.state_dir:
                raise
    root = state_directory(args.state_dir, state, os.environ)
    here = args.state_dir and segment_files(OsDisk(), root)
    return Place(root if here else root / DIRECTORY, settings, configured)


def guarded(args: argparse.Namespace, work: Callable[[argparse.Namespace, Place], int]) -> int:
    """Do the work; errors become words and statuses."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return work(args, find_place(args))
    except ConfigError as wrong:
        for line in wrong.lines:
            complain(line)
        return EX_CONFIG
    except Broken as broken:
        complain(f"{broken}")
        return EX_BROKEN
    except JournalFailed as failed:
        complain(str(failed))
        return EX_NO_PERMISSION if isinstance(failed.__cause__, PermissionError) else EX_NO_INPUT
    except PermissionError as wrong:
        complain(f"{wrong.filename}: {wrong.strerror}")
        return EX_NO_PERMISSION
    except BrokenPipeError:  # its reader has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_OK
    except OSError as wrong:
        complain(f"{wrong.filename}: {wrong.strerror}" if wrong.filename else str(wrong))
        return EX_OUTPUT


# --- export ----------------------------------------------------------------------------------------


class Reading:
    """Proven records, as they come, and how far they go."""

    def __init__(self, directory: Path, since: int) -> None:
        self._directory = directory
        self._since = since
        self.last: Line | None = None

    def __iter__(self) -> Iterator[tuple[str, AnyRecord]]:
        """Hash and record; batches that tell an export nothing are passed over. Raises JournalFailed."""
        for line in lines(self._directory, self._since):
            self.last = line
            if not line.body.startswith(BATCH) or UNTOLD.search(line.body):
                yield line.hash, decoded(self._directory, line)


def decoded(directory: Path, line: Line) -> AnyRecord:
    """Raises JournalFailed where this version does not know such a record."""
    try:
        record: AnyRecord = DECODER.decode(line.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalFailed(f"{directory}: record {line.seq}: this version cannot read it: {error}") from error
    return record


def run_export(args: argparse.Namespace, place: Place) -> int:
    since, until = args.since, args.until
    selection = Selection(
        what=args.what,
        first=since if isinstance(since, int) else 0,
        last=until if isinstance(until, int) else None,
        since_ns=since.ns if isinstance(since, Instant) else 0,
        until_ns=until.ns if isinstance(until, Instant) else None,
        symbol=args.symbol,
    )
    begin = beginning(place.directory, selection.first, selection.since_ns, instrument_of)
    reading = Reading(place.directory, begin.seq)
    rows = export(reading, selection, peek=peek, fee=maker_fee, before=begin.before)
    as_csv = args.format == "csv" if args.format else args.output is None or args.output.suffix not in JSON_LINES
    if args.output is None:
        count = write_rows(sys.stdout, rows, args.what, as_csv=as_csv)
        sys.stdout.flush()
    else:
        count = write_whole(args.output, rows, args.what, as_csv=as_csv)
    if reading.last is not None:
        told = f"every line from record {begin.seq} to {reading.last.seq} is proven, head {reading.last.hash}"
        complain(f"{count} rows; {told}")
    return EX_OK


def write_rows(file: TextIO, rows: Iterable[Row], what: str, *, as_csv: bool) -> int:
    """CSV by RFC 4180 with a header, or JSON lines whose empty cells are left out; how many rows."""
    count = 0
    if as_csv:
        names = columns(what)
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([inert(cell) for cell in cells(row, names)])
            count += 1
        return count
    encode = msgspec.json.Encoder().encode
    for row in rows:
        file.write(encode(row).decode() + "\n")
        count += 1
    return count


def inert(cell: object) -> object:
    """A cell as it stands in CSV: a text that a spreadsheet would run as a formula begins with an apostrophe.

    So does one that begins with an apostrophe: without its first one every text is what it was.
    """
    if isinstance(cell, str) and cell.startswith(FORMULA) and NUMBER.fullmatch(cell) is None:
        return f"'{cell}"
    return cell


def write_whole(path: Path, rows: Iterable[Row], what: str, *, as_csv: bool) -> int:
    """A new file beside it that takes its name once it is whole and durable; mode 0600. Raises OSError.

    A link's target is replaced, not the link; a device or a pipe is written into.
    """
    if is_stream(path):
        with open(path, "w", opener=into, encoding="utf-8", newline="") as file:
            return write_rows(file, rows, what, as_csv=as_csv)
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(fresh, "x", opener=private, encoding="utf-8", newline="") as file:
            count = write_rows(file, rows, what, as_csv=as_csv)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        sync_directory(path.parent)
    except BaseException:  # Ctrl-C too: nothing half done stays behind
        fresh.unlink(missing_ok=True)
        raise
    return count


# --- list ------------------------------------------------------------------------------------------


def run_list(args: argparse.Namespace, place: Place) -> int:
    found = listing(place.directory, place.settings)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return status_of(found)
    page = page_of(sys.stdout, os.environ)
    heads = (
        Column("FILE"),
        Column("RECORDS", right=True),
        Column("FIRST", right=True),
        Column("LAST", right=True),
        Column("FROM"),
        Column("TO", keep=5),
        Column("MIB", right=True),
        Column("STATES", keep=3),
    )
    for text in draw(page, heads, [file_cells(row) for row in found]):
        print(text)
    print(next_to_go(found, place))
    for row in found:
        if row.damaged:
            behind = f" behind record {row.last_seq}" if row.last_seq else ""
            print(f"mmd: nothing{behind} can be read: {row.damaged}: look with `mmd verify`", file=sys.stderr)
    return status_of(found)


def status_of(found: list[Listed]) -> int:
    return EX_BROKEN if any(row.damaged for row in found) else EX_OK


def file_cells(row: Listed) -> list[Cell]:
    texts = (
        row.file,
        str(row.records),
        str(row.first_seq),
        str(row.last_seq),
        utc(row.first_at)[:19],
        utc(row.last_at)[:19],
        f"{row.size / MIB:.2f}",
        "yes" if row.snapshots else "no",
    )
    return [Cell(text) for text in texts]


def next_to_go(found: list[Listed], place: Place) -> str:
    """Which file the retention takes next, and why."""
    settings = place.settings
    rule = f"keep_days {settings.keep_days:g}, keep_gib {settings.keep_gib:g}"
    rule += "" if place.configured else ", the defaults: no configuration was read"
    first = found[0]
    if first.deleted_ns is None:
        why = "not all can be read" if any(row.damaged for row in found) else "a start needs what is there"
        return f"nothing is deleted next: {why} ({rule})"
    when = f"after {utc(first.deleted_ns)[:19]}Z" if first.deleted_ns else "as soon as the daemon looks: it is too much"
    return f"{first.file} is deleted next, {when} ({rule})"


# --- show ------------------------------------------------------------------------------------------


class Outline(msgspec.Struct):
    """What is read of every record to see whose neighbour it is."""

    kind: str
    seq: int
    at: int
    key: str = ""
    symbol: str | None = None
    exchange: str | None = None

    @property
    def of(self) -> str:
        """The symbol's key; empty for the service."""
        return self.key or (f"{self.exchange}/{self.symbol}" if self.symbol else "")


OUTLINES = msgspec.json.Decoder(Outline)


def run_show(args: argparse.Namespace, place: Place) -> int:
    record: Moment = args.record
    walk = Walk(OsDisk(), place.directory)
    files = walk.files()
    first_ns = record.ns if isinstance(record, Instant) else 0
    index = start(walk, files, record) if isinstance(record, int) else file_at(walk, files, first_ns)
    opened = walk.peek(files[max(0, index - 1)])
    before: deque[tuple[Outline, Line]] = deque(maxlen=20 * NEIGHBOURS_MAX)
    found: Outline | None = None
    wanted = args.context
    for line in lines(place.directory, opened.seq if opened is not None else 0):
        outline = OUTLINES.decode(line.body)
        if found is None:
            if line.seq == record or (first_ns and outline.at >= first_ns and args.symbol in ("", outline.of)):
                found = outline
                near = [each for each in before if each[0].of == outline.of]
                for each, kept in near[len(near) - min(wanted, len(near)) :]:
                    print(summary(each, kept))
                say_record(outline, line)
            else:
                before.append((outline, line))
        elif outline.seq > found.seq + NEXT_RECORDS or not wanted:
            break
        elif outline.of == found.of:
            print(summary(outline, line))
            wanted -= 1
    if found is None:
        complain(f"{place.directory}: no such record: {args.record if first_ns == 0 else utc(first_ns)}")
        return EX_NO_INPUT
    return EX_OK


def file_at(walk: Walk, files: list[SegmentFile], at_ns: int) -> int:
    """Index of the newest file that begins at or before this time; else 0."""
    for index in range(len(files) - 1, 0, -1):
        opened = walk.peek(files[index])
        if opened is not None and opened.at <= at_ns:
            return index
    return 0


def say_record(outline: Outline, line: Line) -> None:
    """All of one record, for people."""
    print(f"record {line.seq}  {utc(outline.at)}  {outline.kind}  {outline.of or 'the service'}")
    print(f"hash {line.hash}")
    for text in msgspec.json.format(line.body, indent=2).decode().splitlines():
        print(clean(text) if text.strip() else "")


def summary(outline: Outline, line: Line) -> str:
    """A neighbour on one line: what happened, and what was decided."""
    text = ""
    if outline.kind == "batch":
        batch = DECODER.decode(line.body)
        if isinstance(batch, Batch):
            events = ", ".join(type(event).__name__ for event in batch.events)
            actions = ", ".join(type(action).__name__ for action in batch.actions)
            text = f"{events} -> {actions or 'nothing'}"
    return f"{line.seq:>10}  {utc(outline.at)}  {outline.kind}  {text or outline.of}".rstrip()
