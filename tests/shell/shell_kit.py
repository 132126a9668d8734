"""A fake exchange, and the rooms of the shell put together around it, for tests of single rooms."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import trio

from mmd.config.model import Config, Named
from mmd.config.select import Resolution, Resolved
from mmd.core.budget import Budget
from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.actions import Request
from mmd.domain.errors import LinkLost
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Mode
from mmd.domain.settings import (
    DataRules,
    KillSwitches,
    PortfolioLimits,
    Profile,
    Protection,
    SymbolLimits,
    SymbolSettings,
)
from mmd.domain.units import Grid
from mmd.exchanges.api import Capabilities, LinkStats, ProtectionStatus
from mmd.shell.alerts import Alerts
from mmd.shell.arrivals import Arrivals
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.diary import Diary
from mmd.shell.heritage import NO_PAST
from mmd.shell.lookout import Lookout
from mmd.shell.prover import Prover
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.roster import Roster
from mmd.shell.sink import ExchangeSink
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
BTC, ETH = "BTC-PERPETUAL", "ETH-PERPETUAL"
MID_TICKS = {BTC: 160_000, ETH: 6_000}  # half dollars


def instrument(symbol: str = BTC, **changes: Any) -> Instrument:
    base = symbol.partition("-")[0]
    made = Instrument(
        exchange="deribit",
        symbol=symbol,
        kind=Kind.PERPETUAL,
        contract=Contract.INVERSE,
        base=base,
        quote="USD",
        settlement=base,
        index=f"{base.lower()}_usd",
        grid=Grid(Decimal("0.5")),
        lot=Decimal(10),
        min_lots=1,
        contract_size=Decimal(10),
    )
    return msgspec.structs.replace(made, **changes)


def settings(mode: Mode = Mode.LIVE, **profile: Any) -> SymbolSettings:
    keys: dict[str, Any] = {"name": "p", "spread_bps": 20.0, "size": Decimal(10), "tolerance_bps": 0.0, **profile}
    return SymbolSettings(
        service="kit",
        mode=mode,
        profile=Profile(**keys),
        limits=SymbolLimits(max_position=Decimal(100), max_order_size=Decimal(50), collar_bps=1000.0),
        data=DataRules(),
    )


LIMITS = PortfolioLimits(
    max_exposure={"BTC": Decimal(10), "ETH": Decimal(100)},
    max_notional_usd=Decimal(1_000_000),
    max_drawdown_usd=Decimal(100),
)


class FakeExchange:
    """Implements Exchange: keeps what it is told, answers nothing by itself."""

    capabilities = Capabilities(
        atomic_amend=True,
        mass_quote=False,
        cancel_on_disconnect=True,
        maker_protection=False,
        rfq=False,
        client_labels=True,
        label_max=64,
    )
    clock_skew_ms = 0.0
    event_lag_seconds: float | None = None
    subscriptions = 0

    def __init__(self, name: str = "deribit") -> None:
        self.name = name
        self.budget = Budget(1000.0, 1000.0, 10.0)
        self.stats = {"data": LinkStats(), "trade": LinkStats()}
        self.instruments = {symbol: instrument(symbol) for symbol in MID_TICKS}
        self.submitted: list[list[tuple[str, Request]]] = []
        self.watched: list[str] = []
        self.wanted: list[Protection] = []
        self.protections: list[ProtectionStatus] = []
        self.protection_resets: list[str] = []
        self.resting: dict[str, list[ev.OpenOrder]] = {}
        self.holdings: dict[str, int] = {}  # what a question about positions is answered with
        self.silent = False
        self.asked = 0
        self.dirty = False
        self.flushes = 0

    def watch(self, symbols: Sequence[str]) -> None:
        self.watched = list(symbols)

    def endure(self) -> None:
        self.lenient = True

    def known_until(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int] | None = None) -> None:
        self.known_ms = dict(known_ms)

    def reconcile_every(self, seconds: float) -> None:
        self.every_seconds = seconds

    def protect(self, wanted: Sequence[Protection]) -> None:
        self.wanted = list(wanted)

    async def reset_protection(self, underlying: str) -> None:
        self.protection_resets.append(underlying)
        await trio.lowlevel.checkpoint()

    async def positions(self, symbols: Sequence[str]) -> dict[str, int]:
        """As many as a test says; LinkLost where it says that nobody answers."""
        await trio.lowlevel.checkpoint()
        if self.silent:
            raise LinkLost("no answer")
        return {symbol: self.holdings[symbol] for symbol in symbols if symbol in self.holdings}

    async def open_orders(self) -> dict[str, list[ev.OpenOrder]]:
        """What a test says that rests there; LinkLost where it says that nobody answers."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.silent:
            raise LinkLost("no answer")
        return self.resting

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        self.submitted.append(list(requests))
        self.dirty = True

    async def flush(self) -> None:
        self.dirty = False
        self.flushes += 1
        await trio.lowlevel.checkpoint()

    def taken(self) -> list[tuple[str, Request]]:
        """Everything submitted since the last call, in order."""
        taken = [request for batch in self.submitted for request in batch]
        self.submitted.clear()
        return taken


class Room:
    """Pump, treasury and, given a nursery, a roster, around fake exchanges. Made inside trio."""

    def __init__(
        self, nursery: trio.Nursery | None = None, limits: PortfolioLimits = LIMITS, names: Iterable[str] = ("deribit",)
    ) -> None:
        self.clock = Clock(lambda: START_NS)
        self.diary = Diary(self.clock)
        self.counters = Counters()
        self.exchanges = {name: FakeExchange(name) for name in names}
        self.exchange = next(iter(self.exchanges.values()))
        self.alerts = Alerts(self.clock, self.diary, self.counters, "kit")
        self.pump = Pump(self.clock, self.diary, self.counters, dict(self.exchanges), self.alerts)
        self.treasury = Treasury(limits, KillSwitches(), self.pump)
        self.register = HaltRegister(None, self.pump)
        self.lookout = Lookout(KillSwitches(), self.pump)
        self.prover = Prover(self.pump)
        sunk = self.counters.exchange("deribit")
        self.sink = ExchangeSink("deribit", self.pump, sunk, self.lookout.disconnected)
        self.nursery = nursery
        parts = (self.pump, self.treasury, self.register, self.lookout)
        self.roster = Roster(*parts, nursery) if nursery is not None else None
        if nursery is not None:
            nursery.start_soon(self.prover.run)

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    def worker(self, symbol: str = BTC, **changes: Any) -> Worker:
        """A worker in service, without timers: `changes` as of `settings`."""
        machine = SymbolMachine(instrument(symbol), settings(**changes), "ep", self.now_ns)
        worker = Worker(machine, self.counters.symbol(machine.instrument.key))
        self.pump.add(worker)
        self.treasury.join([worker])
        return worker

    def book(self, symbol: str = BTC, shift: int = 0, lots: int = 100) -> ev.BookTop:
        """One level a side, two ticks apart around the middle."""
        mid = MID_TICKS[symbol] + shift
        return ev.BookTop(((mid - 1, lots),), ((mid + 1, lots),), 1, self.now_ns, self.now_ns)

    def ticker(self, symbol: str = BTC, shift: int = 0) -> ev.Ticker:
        mark = (MID_TICKS[symbol] + shift) * 0.5
        return ev.Ticker(mark, mark, mark, 0.0, 0.0, 0.0, 0.0, self.now_ns, self.now_ns)

    def connect(self, worker: Worker, orders: tuple[ev.OpenOrder, ...] = (), position_lots: int = 0) -> None:
        """Links up, reconciled, a good market."""
        now_ns, symbol = self.now_ns, worker.symbol
        average = Decimal(MID_TICKS[symbol]) / 2 if position_lots else Decimal(0)
        for event in (
            ev.DataLinkUp(now_ns),
            ev.TradeLinkUp(True, now_ns),
            ev.OrdersReported(orders, now_ns),
            ev.PositionReported(position_lots, average, now_ns),
            self.book(symbol),
            self.ticker(symbol),
        ):
            self.pump.post(worker, event)
        self.pump.run()
        self.treasury.value_all()
        self.pump.run()

    def resume(self, *workers: Worker) -> None:
        for worker in workers:
            self.pump.post(worker, ev.ResumeRequested(0, "test", "", self.now_ns))
        self.pump.run()

    def quoting(self, symbol: str = BTC, **changes: Any) -> Worker:
        """A worker with both orders acknowledged; what it sent is taken from the exchange."""
        worker = self.worker(symbol, **changes)
        self.connect(worker)
        self.resume(worker)
        self.acknowledge(worker)
        return worker

    def acknowledge(self, worker: Worker) -> None:
        """Answer every place of this worker that waits."""
        for number, state in enumerate((worker.machine.own.bid, worker.machine.own.ask)):
            slot = state.slot
            if slot.phase == "PLACING":
                self.pump.post(
                    worker,
                    ev.OrderAcked(
                        slot.label, f"id{number}", slot.price_ticks, slot.total_lots, slot.total_lots, self.now_ns
                    ),
                )
        self.pump.run()
        self.exchange.taken()

    def fill(self, worker: Worker, trade_id: str, lots: int = 1) -> ev.OrderFilled:
        """A fill of its bid, posted and not yet pumped."""
        state = worker.machine.own.bid
        price = worker.machine.instrument.grid.price(MID_TICKS[worker.symbol])
        event = ev.OrderFilled(
            state.label,
            "id0",
            trade_id,
            state.side,
            price,
            lots,
            Decimal(0),
            worker.machine.instrument.settlement,
            True,
            float(price),
            self.now_ns,
            self.now_ns,
        )
        self.pump.post(worker, event)
        return event


def all_came(alerts: Alerts, *exchanges: str) -> Arrivals:
    """A start is over to which these exchanges came."""
    arrivals = Arrivals(exchanges, NO_PAST, alerts)
    for name in exchanges:
        arrivals.joining(name)
        arrivals.served(name)
    return arrivals


def resolve_named(config: Config) -> Resolution:
    """Every instrument that a configuration names, as this kit makes them."""
    found = [
        Resolved(instrument(entry.target.symbol), entry.settings, entry.path)
        for entry in config.entries
        if isinstance(entry.target, Named)
    ]
    return Resolution({one.instrument.key: one for one in found}, [])
