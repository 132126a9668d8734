"""A part of the journal as the programs read it: proven, decoded, with a line of progress for a terminal."""

import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

from mmd.cli.moments import Instant, Moment
from mmd.cli.verify import moment
from mmd.journal.beginning import beginning
from mmd.journal.disk import OsDisk
from mmd.journal.reader import Walk, lines
from mmd.journal.records import AnyRecord
from mmd.journal.statefile import JournalFailed
from mmd.replay.peek import instrument_of
from mmd.replay.replayer import decode, moves

NS = 1_000_000_000
PROGRESS_SECONDS = 0.5
LOOK_EVERY = 2048  # records between two looks at the clock


class Tape:
    """The records that are asked for. It may be read more than once; the counts are of the last time."""

    def __init__(
        self,
        directory: Path,
        segment: int | None,
        since: Moment | None,
        until: Moment | None,
        symbol: str,
        progress: TextIO | None,
    ) -> None:
        """From this file or moment on; `symbol`: a pattern. JournalFailed where there is no such file."""
        self.directory = directory
        self.symbol = symbol
        self.since = since
        self._reset()
        self._until = until
        self._progress = progress
        self._drawn = 0
        self.start = start(directory, segment, since)

    def _reset(self) -> None:
        self.records = self.first_seq = self.last_seq = self.size = 0
        self.first_at = self.last_at = 0
        self.begun = self._looked = time.perf_counter()

    def __iter__(self) -> Iterator[AnyRecord]:
        """Those that move a machine; the others are proven and counted."""
        self._reset()
        until = self._until
        last_seq = until if isinstance(until, int) else 0
        last_at = until.ns if isinstance(until, Instant) else 0
        for line in lines(self.directory, self.start):
            if last_seq and line.seq > last_seq:
                return
            self.records += 1
            self.size += len(line.body)
            self.last_seq = line.seq
            if not self.records % LOOK_EVERY:
                self._show()
            if not moves(line.body):
                continue
            record = decode(line.body, line.seq)
            if last_at and record.at > last_at:
                return
            if not self.first_seq:
                self.first_seq, self.first_at = record.seq, record.at
            self.last_at = max(self.last_at, record.at)
            yield record

    def wants(self, key: str) -> bool:
        """By `exchange/symbol` or by the symbol alone."""
        return fnmatchcase(key, self.symbol) or fnmatchcase(key.partition("/")[2], self.symbol)

    @property
    def seconds(self) -> float:
        """Of work until now."""
        return time.perf_counter() - self.begun

    @property
    def times(self) -> float:
        """How many times faster than the record."""
        return (self.last_at - self.first_at) / NS / max(self.seconds, 1e-9)

    def _show(self) -> None:
        now = time.perf_counter()
        if self._progress is None or now - self._looked < PROGRESS_SECONDS:
            return
        self._looked = now
        rate = self.records / max(self.seconds, 1e-9)
        text = f"record {self.last_seq}, {moment(self.last_at)}, {rate:,.0f} a second, {self.times:,.0f}x real time"
        self._progress.write(f"\r{text:<{self._drawn}}")
        self._progress.flush()
        self._drawn = len(text)

    def clear(self) -> None:
        """Take the line of progress away."""
        if self._progress is not None and self._drawn:
            self._progress.write(f"\r{'':<{self._drawn}}\r")
            self._progress.flush()
            self._drawn = 0


def start(directory: Path, segment: int | None, since: Moment | None) -> int:
    """The record to begin with. Raises JournalFailed."""
    if segment is not None:
        walk = Walk(OsDisk(), directory)
        for file in walk.files():
            first = walk.peek(file)
            if file.number == segment and first is not None:
                return first.seq
        raise JournalFailed(f"{directory}: no readable file number {segment} here")
    if since is None:
        return 0
    seq, at = (since, 0) if isinstance(since, int) else (0, since.ns)
    return beginning(directory, seq, at, instrument_of).seq
