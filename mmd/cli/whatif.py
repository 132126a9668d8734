"""`mmd replay --config FILE`: what that configuration would have quoted, beside what was in force."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mmd.cli.moments import Instant
from mmd.cli.printing import show
from mmd.cli.tables import Cell, Column, Page, Style, draw, fold, page_of
from mmd.cli.tape import NS, Tape
from mmd.cli.verify import moment
from mmd.config.load import load
from mmd.config.model import Config, Named
from mmd.config.select import Resolution, resolve
from mmd.domain.events import Ticker
from mmd.domain.instruments import Instrument
from mmd.journal.reader import lines
from mmd.journal.records import AnyRecord, Batch, Joined, Snapshot
from mmd.replay.collector import no_collector
from mmd.replay.peek import instrument_of
from mmd.replay.replayer import decode
from mmd.replay.whatif import CAVEATS, Comparison, Row, WhatIf, rows

EXIT_DONE = 0
EXIT_DIFFERS = 1
JOINED, SNAPSHOT, BATCH = (f'{{"kind":"{kind}",'.encode() for kind in ("joined", "snapshot", "batch"))
TICKER = b'"type":"Ticker"'
CHANGES_SHOWN = 12
COLUMNS = (
    Column(""),
    Column("unit"),
    Column("A: as recorded", right=True),
    Column("B: other", right=True),
    Column("B - A", right=True),
)


class Known(msgspec.Struct):
    """What the journal says of the market before anything is compared."""

    instruments: dict[str, Instrument]
    index_prices: dict[tuple[str, str], float]
    at: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """For `--json`."""

    first_at: int
    last_at: int
    seconds: float
    symbols: dict[str, list[Row]]
    changes: dict[str, tuple[str, ...]]
    total: list[Row]
    trips: dict[str, list[dict[str, int]]]
    not_quoted: list[str]
    not_compared: dict[str, str]
    notes: list[str]
    caveats: tuple[str, ...]


def run(args: argparse.Namespace, tape: Tape) -> int:
    """1 where no symbol could be compared. Raises ConfigError, JournalFailed."""
    config = load(Path(args.config))
    resolution = resolved(config, look(tape))
    others = {key: found.settings for key, found in resolution.symbols.items()}
    compared = WhatIf(lambda instrument: others.get(instrument.key), tape.wants, Begins(tape.since))
    with no_collector():
        for record in tape:
            compared.feed(record)
    found = compared.finish()
    report = reported(found, compared, tape, resolution)
    tape.clear()
    if args.json:
        show(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        show("\n".join(text(report, args.config)))
    return EXIT_DONE if any(one.after is not None for one in found) else EXIT_DIFFERS


class Begins:
    """Whether a record is at or after what was asked for."""

    def __init__(self, since: int | Instant | None) -> None:
        self._seq = since if isinstance(since, int) else 0
        self._at = since.ns if isinstance(since, Instant) else 0

    def __call__(self, record: AnyRecord) -> bool:
        return record.seq >= self._seq and record.at >= self._at


def look(tape: Tape) -> Known:
    """Every symbol in the part that is read, and the first index price of each coin."""
    known = Known({}, {})
    for line in lines(tape.directory, tape.start):
        body = line.body
        if not (body.startswith((JOINED, SNAPSHOT)) or (body.startswith(BATCH) and TICKER in body)):
            continue
        record = decode(body, line.seq)
        known.at = known.at or record.at
        match record:
            case Joined(key=key, instrument=instrument):
                known.instruments[key] = instrument
            case Snapshot(key=key, state=state) if key and key not in known.instruments:
                found = instrument_of(bytes(state))
                if found is not None:
                    known.instruments[key] = found
            case Batch(key=key, events=events) if key in known.instruments:
                coin = (known.instruments[key].exchange, known.instruments[key].base)
                for event in events:
                    if isinstance(event, Ticker) and event.index > 0.0:
                        known.index_prices.setdefault(coin, event.index)
    return known


def resolved(config: Config, known: Known) -> Resolution:
    """What the configuration would have quoted of what is in the journal. Raises ConfigError."""
    listed: dict[str, dict[str, Instrument]] = {name: {} for name in config.exchanges}
    for instrument in known.instruments.values():
        listed.setdefault(instrument.exchange, {})[instrument.symbol] = instrument
    notes: list[str] = []
    entries = []
    for entry in config.entries:
        target = entry.target
        if isinstance(target, Named) and target.symbol not in listed.get(target.exchange, {}):
            notes.append(f"{entry.path}: {target.exchange}/{target.symbol} is not in the journal")
        else:
            entries.append(entry)
    kept = msgspec.structs.replace(config, entries=tuple(entries))
    found = resolve(kept, listed, known.index_prices, known.at)
    return msgspec.structs.replace(found, notes=notes + found.notes)


def reported(found: Sequence[Comparison], compared: WhatIf, tape: Tape, resolution: Resolution) -> Report:
    both = [one for one in found if one.after is not None]
    total = rows([one.before for one in both], [one.after for one in both if one.after is not None], None)
    return Report(
        first_at=compared.first_at,
        last_at=compared.last_at,
        seconds=tape.seconds,
        symbols={
            one.key: rows([one.before], [one.after] if one.after is not None else [], one.instrument) for one in found
        },
        changes={one.key: one.changes for one in both},
        total=total if both else [],
        trips={
            one.key: [dict(side.tally.trips) for side in (one.before, one.after) if side is not None] for one in found
        },
        not_quoted=[one.key for one in found if one.after is None],
        not_compared=compared.troubles | dict(compared.replayer.broken),
        notes=resolution.notes,
        caveats=CAVEATS,
    )


# --- for people ---------------------------------------------------------------------------------------


def text(report: Report, file: str) -> list[str]:
    page = page_of(sys.stdout, os.environ)
    span = (report.last_at - report.first_at) / NS
    said = [
        f"what if: A as recorded, B as in {file}",
        f"{moment(report.first_at)} to {moment(report.last_at)}: {span:,.1f} s, imagined in {report.seconds:.1f} s",
    ]
    for key, of_symbol in report.symbols.items():
        said += ["", page.paint(key, Style.TITLE)]
        if key in report.not_quoted:
            said.append("  B does not quote it")
        elif not report.changes[key]:
            said.append("  the settings are the same")
        else:
            changes = report.changes[key]
            said += [f"  {change}" for change in changes[:CHANGES_SHOWN]]
            if len(changes) > CHANGES_SHOWN:
                said.append(f"  and {len(changes) - CHANGES_SHOWN} more settings")
        said += table(page, of_symbol)
        for side, trips in zip("AB", report.trips[key], strict=False):
            if trips:
                said.append(f"{side} tripped: " + ", ".join(f"{name} {count}" for name, count in trips.items()))
    if len(report.symbols) - len(report.not_quoted) > 1:
        said += ["", page.paint("all symbols that both quote", Style.TITLE), *table(page, report.total)]
    said.append("")
    said += [f"not compared: {key or 'the portfolio'}: {why}" for key, why in report.not_compared.items()]
    said += [f"note: {note}" for note in report.notes]
    said.append("What this cannot know:")
    for caveat in report.caveats:
        said += fold(f"- {caveat}", page.width, "  ")
    return said


def table(page: Page, found: Sequence[Row]) -> list[str]:
    return draw(page, COLUMNS, [[Cell(part) for part in cells(row)] for row in found])


def cells(row: Row) -> tuple[str, ...]:
    """Numbers with as many places as matter; a dash where there is none."""
    change = "" if row.before is None or row.after is None else number(row.after - row.before, row.places, sign=True)
    return (row.name, row.unit, number(row.before, row.places), number(row.after, row.places), change)


def number(value: float | None, places: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    shown = f"{value:{'+' if sign else ''},.{places}f}"
    return "=" if sign and not value else shown
