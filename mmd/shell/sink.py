"""What an exchange's session sees of the shell."""

from collections.abc import Callable, Coroutine
from typing import Any

from mmd.domain.events import DataLinkDown, Mail, TradeLinkDown
from mmd.domain.reasons import Mode
from mmd.shell.counters import ExchangeCounters
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

LOGIN_REFUSED = "login.refused"
LINK_LOST = frozenset({DataLinkDown, TradeLinkDown})


def nobody_minds(_exchange: str, _detail: str) -> None:
    """Until somebody wants to know."""


class ExchangeSink:
    """The `Sink` of one exchange: its symbols' mailboxes, the pump, the round-trip histogram."""

    def __init__(self, name: str, pump: Pump, counters: ExchangeCounters, disconnected: Callable[[str], None]) -> None:
        """`disconnected`: told of every link of this exchange that breaks."""
        self.refused: Callable[[str, str], None] = nobody_minds  # told of every login that is refused, and why
        self._disconnected = disconnected
        self._name = name
        self._pump = pump
        self._counters = counters
        self._workers = pump.by_symbol
        self.last_round_trip: float | None = None

    def post(self, symbol: str, event: Mail) -> None:
        worker = self._workers.get((self._name, symbol))
        if worker is None:
            self._counters.unknown_symbols += 1
            return
        self._post(worker, event)

    def _post(self, worker: Worker, event: Mail) -> None:
        """Shadow orders see every market event before the mailbox, where the newest wins."""
        if worker.machine.mode is Mode.SHADOW:
            for filled in worker.shadow.on_market(event, self._pump.clock.now_ns()):
                self._pump.post(worker, filled)
        self._pump.post(worker, event)

    def post_all(self, event: Mail) -> None:
        if type(event) in LINK_LOST:
            self._disconnected(self._name)
        for worker in self._pump.workers.values():
            if worker.exchange == self._name:
                self._post(worker, event)

    def deliver(self) -> Coroutine[Any, Any, None]:
        return self._pump.deliver()

    def round_trip(self, seconds: float) -> None:
        self.last_round_trip = seconds
        self._counters.round_trips.observe(seconds)

    def report(self, name: str, detail: str) -> None:
        self._pump.diary.note(name, detail, exchange=self._name)
        if name == LOGIN_REFUSED:
            self.refused(self._name, detail)
