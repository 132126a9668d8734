"""The portfolio machine in the shell: values every symbol four times a second and on fills, hands out bounds, trips."""

from collections.abc import Iterable, Mapping, Sequence

import trio

from mmd.core.portfolio import PortfolioMachine, Totals
from mmd.domain.actions import Tripped
from mmd.domain.events import BoundsSet
from mmd.domain.reasons import Scope
from mmd.domain.settings import KillSwitches, PortfolioLimits, SymbolSettings
from mmd.domain.switches import DEFAULT_RESPONSES
from mmd.domain.totals import (
    BoundsAcked,
    CarriedLosses,
    ClearSwitch,
    ExchangeAwaited,
    ExchangeTold,
    GrantBounds,
    LeftCounted,
    LimitChanged,
    LossLimits,
    OperatorReset,
    PortfolioAction,
    SymbolJoined,
    SymbolLeft,
    Told,
    TotalsChanged,
    TripSwitch,
)
from mmd.journal.records import Began
from mmd.replay.valuing import valued
from mmd.shell.desk import TotalLine
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

VALUE_SECONDS = 0.25


def loss_limits(settings: SymbolSettings) -> LossLimits:
    """What one symbol may lose, and where that was written."""
    limits, keys = settings.limits, LossLimits()
    return LossLimits(
        max_drawdown_usd=limits.max_drawdown_usd,
        max_daily_loss_usd=limits.max_daily_loss_usd,
        drawdown_key=settings.sources.get("max_drawdown_usd", keys.drawdown_key),
        daily_loss_key=settings.sources.get("max_daily_loss_usd", keys.daily_loss_key),
    )


class Treasury:
    """Owns the portfolio machine."""

    def __init__(
        self, limits: PortfolioLimits, switches: KillSwitches, pump: Pump, carried: CarriedLosses | None = None
    ) -> None:
        """`carried`: what `machine.carried()` of an earlier run had counted of losses, and left of positions."""
        now_ns = pump.clock.now_ns()
        self.machine = PortfolioMachine(limits, switches, now_ns, carried)
        if pump.journal is not None:
            pump.journal.put(Began, now_ns, limits=limits, switches=switches, carried=carried)
        self._pump = pump
        pump.settle = self.settle
        pump.outbox.limits = limits

    # --- what changes ----------------------------------------------------------------------------

    def join(self, workers: Iterable[Worker]) -> None:
        """New symbols, in service already; bounds follow as soon as their prices and positions are known."""
        joined = [
            SymbolJoined(w.machine.instrument, w.machine.rules.max_position_lots, loss_limits(w.machine.settings))
            for w in workers
        ]
        self._handle(joined, [])

    def leave(self, worker: Worker) -> None:
        """One that goes before it knew its position leaves the one that it was counted with."""
        position, share = worker.machine.position, self.machine.shares.get(worker.key)
        lots = position.lots if position.known or share is None else share.lots
        self._handle([], [worker])
        self._handle([SymbolLeft(worker.key, lots)], [])

    def count_left(self, found: Mapping[str, int]) -> list[str]:
        """What symbols that are gone left behind, signed lots by key, as exchanges have it; returns whose is news."""
        left = self.machine.left_behind
        news = [LeftCounted(key, lots) for key, lots in sorted(found.items()) if key in left and left[key].lots != lots]
        if news:
            self._handle(news, [])
        return [one.key for one in news]

    def await_exchanges(self, awaited: Sequence[ExchangeAwaited]) -> None:
        """These have not answered: what may be held there counts. Before the first symbol joins."""
        self._handle(awaited, [])

    def told(self, exchange: str) -> None:
        """An exchange that was awaited has told what is held there."""
        self._handle([ExchangeTold(exchange)], [])

    def change_limits(self, limits: PortfolioLimits, switches: KillSwitches, workers: Iterable[Worker]) -> None:
        """`workers`: those whose own settings are others now."""
        self._pump.outbox.limits = limits
        changed = [
            LimitChanged(w.key, w.machine.rules.max_position_lots, loss_limits(w.machine.settings)) for w in workers
        ]
        self._handle([TotalsChanged(limits, switches), *changed], [])

    def reset(self, workers: Iterable[Worker]) -> None:
        """An operator has reset these symbols: see `PortfolioMachine.reset`."""
        keys = tuple(sorted({worker.key for worker in workers}))
        if keys:
            self._handle([OperatorReset(keys)], [])

    def settle(self) -> None:
        """Acknowledgements and fills since the last time; called by the pump."""
        acked = [BoundsAcked(key, version) for key, version in self._pump.acked]
        filled = list(dict.fromkeys(self._pump.filled))
        self._pump.acked.clear()
        self._pump.filled.clear()
        self._handle(acked, filled)

    def value_all(self) -> None:
        self._handle([], None)

    # --- what follows ----------------------------------------------------------------------------

    def _handle(self, told: Sequence[Told], workers: Iterable[Worker] | None) -> None:
        """These events, then the values of these workers, read now; None: of all."""
        now_ns, journal = self._pump.clock.now_ns(), self._pump.journal
        looked_at = self._pump.workers.values() if workers is None else list(workers)
        values = [one for one in (valued(worker.machine, now_ns) for worker in looked_at) if one is not None]
        actions = self.machine.handle([*told, *values], now_ns)
        if journal is not None:
            journal.totals(now_ns, told, None if workers is None else tuple(w.key for w in looked_at), actions)
        self._act(actions, now_ns)

    def _act(self, actions: list[PortfolioAction], now_ns: int) -> None:
        for action in actions:
            match action:
                case GrantBounds(key=key, version=version, min_lots=low, max_lots=high):
                    worker = self._pump.workers.get(key)
                    if worker is not None:
                        self._pump.post(worker, BoundsSet(version, low, high, now_ns))
                case TripSwitch():
                    self._pump.trip(self._tripped(action))
                case ClearSwitch(switch=switch, scope=Scope.SYMBOL, target=key):
                    worker = self._pump.workers.get(key)
                    if worker is not None:
                        self._pump.alarm.clear(switch, worker)
                case ClearSwitch(switch=switch, target=target):
                    self._pump.clear(switch, target or None)

    def _tripped(self, trip: TripSwitch) -> Tripped:
        response = self.machine.switches.responses.get(trip.switch, DEFAULT_RESPONSES[trip.switch])
        return Tripped(trip.switch, trip.scope, trip.target, response, trip.detail)

    async def run(self) -> None:
        """Value everything four times a second, for ever."""
        while True:
            self.value_all()
            await self._pump.deliver()
            await trio.sleep(VALUE_SECONDS)

    # --- what is shown ---------------------------------------------------------------------------

    def totals(self) -> Totals:
        return self.machine.totals()

    def lines(self) -> list[TotalLine]:
        """Every total with what is used of it."""
        resting = {worker.key: worker.machine.own.resting for worker in self._pump.workers.values()}
        return [
            TotalLine(
                scope=use.scope,
                target=use.target,
                unit=use.unit,
                used=use.used,
                worst=use.worst,
                limit=use.limit,
                oversubscribed=use.oversubscribed,
                key=use.key,
            )
            for use in self.machine.uses(resting)
        ]

    def losses(self) -> dict[str, tuple[float, float]]:
        """By symbol's key: the day's gain and the drawdown, USD; not in it: those that cannot be valued."""
        found = {key: self.machine.losses_of(key) for key in self.machine.shares}
        return {key: (one.day_usd, one.drawdown_usd) for key, one in found.items() if one is not None}
