"""`mmd journal`: export what happened for surveillance, list the files, show one record. Needs no daemon."""

import argparse
import contextlib
import csv
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
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
from mmd.journal.segments import DIRECTORY, segment_files
from mmd.journal.statefile import JournalFailed, private, sync_directory
from mmd.replay.peek import instrument_of, peek

EX_OK = 0
EX_DATA = 65  # the journal is damaged
EX_NO_INPUT = 66  # there is none, or not this record
EX_OUTPUT = 74
EX_NO_PERMISSION = 77
EX_CONFIG = 78
WHAT = (*KINDS, "all")
CONTEXT_DEFAULT = 3
NEIGHBOURS_MAX = 1000
NEXT_RECORDS = 200_000  # how far behind a record its neighbours are looked for
MIB = 1 << 20
UNTOLD = re.compile(rb'"type":"(?!(?:BookTop|TradePrinted|TimerFired|SetTimer)")|"error":|"called_off":')
"""A batch in which this is not found has nothing in it that an export tells."""
BATCH = b'{"kind":"batch",'
STATUSES = """\
exit status:
  0 done    64 usage    65 the journal is damaged: what is before the damage was written, unless -o was given
  66 no journal there, or no such record    74 the file cannot be written    77 permission    78 configuration

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

    _add_export(command("export", "orders, fills and more as CSV or JSON lines", "docs/journal-export.md has each column."))
    listed = command("list", "the files: records, times, sizes", "Nothing is proven: that is `mmd verify`.")
    listed.add_argument("--json", action="store_true", help="one JSON array")
    listed.set_defaults(func=run_list)
    show = command("show", "one record with its neighbours of the same symbol", "SEQ may be a time: the first from then.")
    show.add_argument("record", type=_when, metavar="SEQ|WHEN")
    show.add_argument("--context", type=_count, default=CONTEXT_DEFAULT, metavar="N", help="neighbours; default 3")
    show.add_argument("--symbol", default="", metavar="EXCHANGE/SYMBOL", help="only with a time: of this symbol")
    show.set_defaults(func=run_show)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", choices=WHAT, default="orders", help="default: orders")
    parser.add_argument("--format", choices=("csv", "jsonl"), help="default: by the name of FILE, else csv")
    parser.add_argument("--since", type=_when, metavar="WHEN", help="from this record or time on")
    parser.add_argument("--until", type=_when, metavar="WHEN", help="up to this record or time")
    parser.add_argument("--symbol", default="*", metavar="GLOB", help="a symbol, or exchange/symbol")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="whole or not at all; default: stdout")
    parser.set_defaults(func=run_export)


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


def guarded(args: argparse.Namespace, work: "Work") -> int:
    """Errors to words and statuses."""
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
        return EX_DATA
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
