"""What went through: journal lines and bytes by kind, events and actions, and how full queues ever were.

It puts itself between the daemon's parts where they call each other; what they do stays the same.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmd.domain.actions import AmendOrder, CancelOrder, Decision, PlaceOrder
from mmd.domain.events import BookTop, Mail, OrderFilled, OrdersReported, PositionReported, Ticker, TradePrinted
from mmd.exchanges.deribit.session import Deribit
from mmd.journal.chain import BODY_AT
from mmd.journal.writer import Journal
from mmd.shell.daemon import Daemon
from mmd.shell.worker import Worker

TICKS = frozenset({BookTop, Ticker, TradePrinted})
REQUESTS = frozenset({PlaceOrder, AmendOrder, CancelOrder})
REPORTS = frozenset({OrdersReported, PositionReported})


class Meter:
    """Counts from now on. `lines`, `bytes`: by kind of record, batches by what they are about; `seen`: by class."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.journal is not None, "a soak has a journal"
        self.lines: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.peaks: Counter[str] = Counter()
        self.files = 0
        self._about = ""
        self._listen_to_journal(daemon.journal)
        self._listen_to_pump(daemon)

    @property
    def journal_bytes(self) -> int:
        return sum(self.bytes.values())

    @property
    def ticks(self) -> int:
        return sum(self.seen[kind.__name__] for kind in TICKS)

    @property
    def requests(self) -> int:
        return sum(self.seen[kind.__name__] for kind in REQUESTS)

    def peak(self, name: str, size: int) -> None:
        if size > self.peaks[name]:
            self.peaks[name] = size

    def _listen_to_journal(self, journal: Journal) -> None:
        append, batch, begin, commit = journal._append, journal.batch, journal._begin, journal.commit

        def counted_append(body: bytes, at: int) -> bool:
            kind = self._about or body[9 : body.index(b'"', 9)].decode()
            self.lines[kind] += 1
            self.bytes[kind] += len(body) + BODY_AT - 1
            return append(body, at)

        def counted_batch(key: str, at: int, events: Sequence[Mail], actions: Sequence[Decision], **more: Any) -> None:
            for each in (*events, *actions):
                self.seen[type(each).__name__] += 1
            self._about = about(events, actions)
            batch(key, at, events, actions, **more)
            self._about = ""

        def counted_begin(number: int, now_ns: int) -> None:
            self.files += 1
            begin(number, now_ns)

        def counted_commit() -> None:
            self.peak("journal pending bytes", journal.pending_bytes)
            commit()

        journal._append = counted_append  # type: ignore[method-assign]  # the meter listens
        journal.batch = counted_batch  # type: ignore[method-assign]  # the meter listens
        journal._begin = counted_begin  # type: ignore[method-assign]  # the meter listens
        journal.commit = counted_commit  # type: ignore[method-assign]  # the meter listens

    def _listen_to_pump(self, daemon: Daemon) -> None:
        pump, outbox = daemon.pump, daemon.pump.outbox
        post, submit = pump.post, outbox.submit
        links = [each for each in pump.exchanges.values() if isinstance(each, Deribit)]

        def counted_post(worker: Worker, event: Mail) -> None:
            post(worker, event)
            self.peak("mailbox", worker.depth)
            self.peak("workers with mail", len(pump._ready))

        def counted_submit() -> None:
            self.peak("outbox", sum(map(len, (*outbox._first.values(), *outbox._then.values()))))
            submit()
            for each in links:
                self.peak("order requests in flight", len(each._trading.record._flying))
                connection = each._trading.connection
                if connection is not None:
                    self.peak("requests without answer", len(connection._rpc.ledger))

        pump.post = counted_post  # type: ignore[method-assign]  # the meter listens
        outbox.submit = counted_submit  # type: ignore[method-assign]  # the meter listens


def about(events: Sequence[Mail], actions: Sequence[Decision]) -> str:
    """What a batch is: named after the rarest thing in it."""
    kinds = {type(each) for each in events}
    if OrderFilled in kinds:
        return "batch: fill"
    if REQUESTS & {type(each) for each in actions}:
        return "batch: tick or timer, and requests"
    if kinds <= TICKS:
        return "batch: tick"
    if kinds & REPORTS:
        return "batch: report"
    names = sorted(kind.__name__ for kind in kinds - TICKS)
    return f"batch: {names[0]}" if len(names) == 1 else "batch: several"
