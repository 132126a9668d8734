"""Four looks a second at every exchange: its clock, its broken links, its event bus."""

import trio

from mmd.core.watch import ExchangeWatch, Finding
from mmd.domain.actions import Tripped
from mmd.domain.events import SwitchTripped
from mmd.domain.reasons import Scope
from mmd.domain.settings import KillSwitches
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

LOOK_SECONDS = 0.25


class Lookout:
    """Owns one watch for each exchange."""

    def __init__(self, settings: KillSwitches, pump: Pump) -> None:
        self._pump = pump
        self.settings = settings
        self.watches = {name: ExchangeWatch(settings) for name in pump.exchanges}

    def change(self, settings: KillSwitches) -> None:
        self.settings = settings
        for watch in self.watches.values():
            watch.change(settings)

    def disconnected(self, exchange: str) -> None:
        """One of its links broke."""
        self._report(exchange, self.watches[exchange].disconnected(self._pump.clock.now_ns()))

    def reset(self, exchange: str) -> None:
        self.watches[exchange].reset()

    def brief(self, workers: list[Worker]) -> None:
        """Tell symbols that come into service what holds their exchange now."""
        now_ns = self._pump.clock.now_ns()
        for worker in workers:
            for switch, detail in self.watches[worker.exchange].active.items():
                response = self.settings.responses[switch]
                self._pump.post(worker, SwitchTripped(switch, response, detail, now_ns))

    def look(self) -> None:
        now_ns = self._pump.clock.now_ns()
        for name, exchange in self._pump.exchanges.items():
            watch = self.watches[name]
            self._report(name, watch.look(now_ns, exchange.clock_skew_ms, exchange.event_lag_seconds))

    def _report(self, exchange: str, findings: list[Finding]) -> None:
        for finding in findings:
            if finding.over:
                self._pump.clear(finding.switch, exchange)
                self._pump.diary.note("switch.cleared", f"{finding.switch}: {finding.detail}", exchange=exchange)
                continue
            response = self.settings.responses[finding.switch]
            self._pump.trip(Tripped(finding.switch, Scope.EXCHANGE, exchange, response, finding.detail))

    async def run(self) -> None:
        while True:
            self.look()
            await self._pump.deliver()
            await trio.sleep(LOOK_SECONDS)
