"""The portfolio machine in the shell: values every symbol each second and on fills, hands out the bounds."""

from collections.abc import Iterable

import trio

from mmd.core.pnl import usd_value
from mmd.core.portfolio import (
    BoundsAcked,
    GrantBounds,
    LimitChanged,
    PortfolioEvent,
    PortfolioMachine,
    SymbolJoined,
    SymbolLeft,
    Totals,
    TotalsChanged,
    TripDrawdown,
    Valued,
)
from mmd.domain.events import BoundsSet, HaltRequested
from mmd.domain.reasons import Why
from mmd.domain.settings import PortfolioLimits
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

VALUE_SECONDS = 1.0


def mark_price(worker: Worker) -> float:
    """The exchange's mark, else our fair value, in the price unit; 0.0 = neither."""
    machine = worker.machine
    if machine.market.mark > 0.0:
        return machine.market.mark
    return machine.fair * machine.market.tick if isinstance(machine.fair, float) else 0.0


def pnl_usd(worker: Worker) -> float | None:
    """Realised + unrealised - fees in USD; None where a position cannot be valued."""
    machine = worker.machine
    profit = machine.position.profit(mark_price(worker))
    return None if profit is None else usd_value(machine.instrument, profit.total, machine.market.index)


class Treasury:
    """Owns the portfolio machine."""

    def __init__(self, limits: PortfolioLimits, pump: Pump) -> None:
        self.machine = PortfolioMachine(limits)
        self._pump = pump
        pump.settle = self.settle
        pump.outbox.max_open_orders = limits.max_open_orders

    def join(self, workers: Iterable[Worker]) -> None:
        """New symbols; bounds follow as soon as their prices are known."""
        self._handle([SymbolJoined(w.machine.instrument, w.machine.rules.max_position_lots) for w in workers])

    def leave(self, worker: Worker) -> None:
        self._handle([SymbolLeft(worker.key, worker.machine.position.lots)])

    def change_limits(self, limits: PortfolioLimits, workers: Iterable[Worker]) -> None:
        self._pump.outbox.max_open_orders = limits.max_open_orders
        changed = [LimitChanged(w.key, w.machine.rules.max_position_lots) for w in workers]
        self._handle([TotalsChanged(limits), *changed])

    def settle(self) -> None:
        """Acknowledgements and fills since the last time; called by the pump."""
        events: list[PortfolioEvent] = [BoundsAcked(key, version) for key, version in self._pump.acked]
        events += [self._valued(worker) for worker in self._pump.filled]
        self._pump.acked.clear()
        self._pump.filled.clear()
        self._handle(events)

    def value_all(self) -> None:
        self._handle([self._valued(worker) for worker in self._pump.workers.values()])

    def totals(self) -> Totals:
        return self.machine.totals()

    @staticmethod
    def _valued(worker: Worker) -> Valued:
        machine = worker.machine
        return Valued(worker.key, machine.position.lots, mark_price(worker), machine.market.index, pnl_usd(worker))

    def _handle(self, events: list[PortfolioEvent]) -> None:
        now_ns = self._pump.clock.now_ns()
        for action in self.machine.handle(events):
            match action:
                case GrantBounds(key=key, version=version, min_lots=low, max_lots=high):
                    worker = self._pump.workers.get(key)
                    if worker is not None:
                        self._pump.post(worker, BoundsSet(version, low, high, now_ns))
                case TripDrawdown(drawdown_usd=drawdown, limit_usd=limit):
                    detail = f"{drawdown:.2f} USD below the high-water mark, allowed {limit:.2f} USD"
                    self._pump.diary.note("portfolio.drawdown", detail)
                    for worker in self._pump.workers.values():
                        self._pump.post(worker, HaltRequested(0, Why.DRAWDOWN, "mmd", detail, now_ns))

    async def run(self) -> None:
        """Value everything once a second, for ever."""
        while True:
            self.value_all()
            await self._pump.deliver()
            await trio.sleep(VALUE_SECONDS)
