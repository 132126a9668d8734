"""What an exchange's session sees of the shell."""

from collections.abc import Coroutine
from typing import Any

from mmd.domain.events import Mail
from mmd.shell.counters import ExchangeCounters
from mmd.shell.pump import Pump


class ExchangeSink:
    """The `Sink` of one exchange: its symbols' mailboxes, the pump, the round-trip histogram."""

    def __init__(self, name: str, pump: Pump, counters: ExchangeCounters) -> None:
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
        self._pump.post(worker, event)

    def post_all(self, event: Mail) -> None:
        for worker in self._pump.workers.values():
            if worker.exchange == self._name:
                self._pump.post(worker, event)

    def deliver(self) -> Coroutine[Any, Any, None]:
        return self._pump.deliver()

    def round_trip(self, seconds: float) -> None:
        self.last_round_trip = seconds
        self._counters.round_trips.observe(seconds)

    def report(self, name: str, detail: str) -> None:
        self._pump.diary.note(name, detail, exchange=self._name)
