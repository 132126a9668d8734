"""The last 10,000 things that happened, for `mmdctl events`; each is logged as it is written."""

from collections import deque
from collections.abc import Sequence

import trio

from mmd.journal.records import Note
from mmd.journal.writer import Journal
from mmd.shell import logs
from mmd.shell.clock import Clock
from mmd.shell.desk import EventLine

KEPT = 10_000
log = logs.get("mmd")

# Names that are worth a warning in the log; everything else is information.
WARNINGS = frozenset(
    {
        "symbol.paused",
        "order.unknown",
        "order.stray",
        "order.unexpected",
        "order.filled_elsewhere",
        "position.left",
        "instrument.expired",
        "exchange.lost",
        "exchange.malformed",
        "config.refused",
        "case.opened",
    }
)
ERRORS = frozenset({"symbol.halted", "symbol.fault", "service.orders_left", "journal.failed"})


class Diary:
    """`note` never waits; readers wait with `wait_event`."""

    def __init__(self, clock: Clock, journal: Journal | None = None) -> None:
        """`journal`: where every line is written as well; None: nowhere."""
        self._clock = clock
        self._journal = journal
        self._lines: deque[EventLine] = deque(maxlen=KEPT)
        self._seq = 0
        self._more = trio.Event()

    def restore(self, notes: Sequence[Note], last: int) -> None:
        """Lines of the processes before, and the number of the last of them."""
        self._lines.extend(
            EventLine(
                seq=note.number,
                time=note.at * 1e-9,
                name=note.name,
                symbol=note.symbol,
                exchange=note.exchange,
                detail=note.detail,
                by=note.by,
            )
            for note in notes
        )
        self._seq = max(self._seq, last)

    def note(
        self, name: str, detail: str, *, symbol: str | None = None, exchange: str | None = None, by: str | None = None
    ) -> None:
        """Write one line; `by` is who caused it, for what people asked for."""
        self._seq += 1
        now_ns = self._clock.now_ns()
        if self._journal is not None:
            self._journal.put(
                Note, now_ns, number=self._seq, name=name, detail=detail, symbol=symbol, exchange=exchange, by=by
            )
        line = EventLine(
            seq=self._seq,
            time=now_ns * 1e-9,
            name=name,
            symbol=symbol,
            exchange=exchange,
            detail=detail,
            by=by,
        )
        self._lines.append(line)
        fields = {key: value for key, value in (("symbol", symbol), ("exchange", exchange), ("by", by)) if value}
        level = log.error if name in ERRORS else log.warning if name in WARNINGS else log.info
        level(name, detail=detail, **fields)
        if self._more.statistics().tasks_waiting:
            self._more.set()
            self._more = trio.Event()

    def since(self, seq: int, limit: int) -> list[EventLine]:
        """Lines numbered above `seq`, oldest first, at most `limit`; a negative `seq` means the last ones."""
        if seq < 0:
            return list(self._lines)[-limit:]
        missing = self._seq - seq
        if missing <= 0:
            return []
        lines = list(self._lines)
        return lines[max(0, len(lines) - missing) :][:limit]

    async def wait(self, seq: int) -> None:
        """Return once a line numbered above `seq` exists."""
        while self._seq <= seq:
            await self._more.wait()

    @property
    def last(self) -> int:
        return self._seq
