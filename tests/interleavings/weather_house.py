"""A daemon's rooms between an operator and an exchange, on simulated time; and the comparison of their books.

Real are pump, outbox, gate, machines, treasury, roster, register, lookout, office and prover; real is the
sandbox's engine. Between them is `weather_wire`; `weather_judge` looks after everything that happens.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import trio
import trio.testing
from weather_judge import Judge
from weather_market import (
    ACCOUNT,
    CENTRE,
    DEPTHS,
    EXCHANGE,
    HALF,
    INSTRUMENTS,
    NS,
    PERP,
    SETUPS,
    START_NS,
    SWITCHES,
    SYMBOLS,
    levels,
    make_engine,
    reference,
    settings,
)
from weather_wire import Wire
from weather_words import acked, lots_of

from mmd.config.select import Resolved
from mmd.core.orders import Amending, Live, Unknown
from mmd.domain import events as ev
from mmd.domain.reasons import Mode, State
from mmd.domain.settings import PortfolioLimits, SymbolSettings
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Order
from mmd.shell.alerts import Alerts
from mmd.shell.counters import Counters
from mmd.shell.diary import Diary
from mmd.shell.lookout import Lookout
from mmd.shell.office import Office
from mmd.shell.prover import Prover
from mmd.shell.pump import Pump
from mmd.shell.register import HaltRegister
from mmd.shell.roster import Roster
from mmd.shell.sink import ExchangeSink
from mmd.shell.totals import Treasury
from mmd.shell.worker import Worker

MS = 1_000_000
BEAT_NS = NS  # how often the treasury values, and the tickers tick


class SimClock:
    """Stands for mmd.shell.clock.Clock; the world moves it."""

    def __init__(self) -> None:
        self.at_ns = START_NS

    def now_ns(self) -> int:
        return self.at_ns

    def seconds_until(self, at_ns: int) -> float:
        return max(0.0, (at_ns - self.at_ns) * 1e-9)


class Narrator(Diary):
    """The diary's lines are part of the story."""

    def __init__(self, clock: Any, tell: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._tell = tell

    def note(self, name: str, detail: str, *, symbol: str | None = None, **more: Any) -> None:
        if not name.startswith("alert."):
            self._tell(f"  {name} {symbol or ''}: {detail}")
        super().note(name, detail, symbol=symbol, **more)


class Ward:
    """Stands for the nursery of the symbols' tasks: the world itself fires timers and sees who is gone."""

    def start_soon(self, *_: Any) -> None:
        pass


class House:
    """Made inside trio. `story` tells what came of everything."""

    def __init__(self, setup: str, nursery: trio.Nursery) -> None:
        self.story: list[str] = []
        self.setup = SETUPS[setup]
        self.nursery = nursery
        self.clock = SimClock()
        self.engine = make_engine()
        self.wire = Wire(self.engine, self.clock.now_ns, self.tell, self.setup.remembers)
        self.given: dict[str, SymbolSettings] = {symbol: settings(symbol, self.setup) for symbol in SYMBOLS}
        self.limits: PortfolioLimits = self.setup.totals
        self._rooms()
        self.centre = dict(CENTRE)
        self.width = dict(HALF)
        self.depth = {symbol: depths[1] for symbol, depths in DEPTHS.items()}
        self.data_up = dict.fromkeys(SYMBOLS, True)
        self.next_beat_ns = START_NS + BEAT_NS
        self.proving = 0
        self.sequence = 0
        self.adopted: set[str] = set()
        for symbol in SYMBOLS:
            self._reprice(symbol)
        self.engine.drain()
        self.judge = Judge(self.wire, self.pump, self.limits, self.given)
        self.wire.leaving = self.judge.leaving
        self.wire.changed = self.judge.look

    def _rooms(self) -> None:
        """As mmd.shell.daemon puts them together."""
        clock: Any = self.clock
        self.diary = Narrator(clock, self.tell)
        self.counters = Counters()
        self.alerts = Alerts(clock, self.diary, self.counters, "weather")
        self.pump = Pump(clock, self.diary, self.counters, {EXCHANGE: self.wire}, self.alerts)
        self.register = HaltRegister(None, self.pump)
        self.lookout = Lookout(SWITCHES, self.pump)
        self.prover = Prover(self.pump)
        sunk = self.counters.exchange(EXCHANGE)
        self.wire.sink = ExchangeSink(EXCHANGE, self.pump, sunk, self.lookout.disconnected)
        self.treasury = Treasury(self.limits, SWITCHES, self.pump)
        self.office = Office(self.pump)
        ward: Any = Ward()
        self.roster = Roster(self.pump, self.treasury, self.register, self.lookout, ward)

    # --- looking ---------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        self.story.append(f"{(self.clock.at_ns - START_NS) / NS:8.3f}  {line}")

    @property
    def now_ns(self) -> int:
        return self.clock.at_ns

    @property
    def now_ms(self) -> int:
        return self.clock.at_ns // MS

    def worker(self, a: int) -> Worker | None:
        """One of those in service, in the order of the list."""
        found = [self.pump.workers[key] for key in sorted(self.pump.workers)]
        return found[a % len(found)] if found else None

    def of(self, symbol: str) -> Worker:
        return self.pump.workers[f"{EXCHANGE}/{symbol}"]

    def resting(self, symbol: str = "") -> list[Order]:
        """Our open orders at the engine, oldest first."""
        return self.wire.open_here(symbol)

    # --- the turn of the pump --------------------------------------------------------------------

    def turn(self) -> None:
        """Everybody with mail decides; whoever is gone leaves; the judge looks."""
        while True:
            self._show_books()
            self.pump.run()
            if self.pump.unwritten:
                self.pump.write()
            gone = [worker for worker in self.pump.workers.values() if worker.gone.is_set()]
            for worker in gone:
                self._bury(worker)
            if not gone and not any(worker.depth for worker in self.pump.workers.values()):
                break
        self.judge.look()

    def _bury(self, worker: Worker) -> None:
        """What Roster does at the end of a symbol's life."""
        self.tell(f"{worker.symbol} is gone")
        self.judge.look()
        self.treasury.leave(worker)
        self.pump.drop(worker)
        self.roster.parting.pop(worker.key, None)
        self.roster.watch()

    def _show_books(self) -> None:
        for symbol in sorted(self.wire.tops):
            if self.data_up[symbol]:
                self.wire.tops.discard(symbol)
                self.wire.sink.post(symbol, self._top(symbol))

    def _top(self, symbol: str) -> ev.BookTop:
        book = self.engine.floor.listing(symbol).book
        ours = INSTRUMENTS[symbol]
        bids, asks = (
            tuple((ours.grid.ticks(price), lots_of(symbol, amount)) for price, amount in side.shown_levels(3))
            for side in (book.bids, book.asks)
        )
        self.sequence += 1
        return ev.BookTop(bids, asks, self.sequence, self.now_ns, self.now_ns)

    def _tick(self, symbol: str) -> None:
        """The ticker tells the engine's prices."""
        listing = self.engine.floor.listing(symbol)
        mark, index = float(listing.mark_price), float(self.engine.floor.index_price(listing.instrument.price_index))
        self.judge.marks[symbol] = mark
        now_ns = self.now_ns
        self.wire.sink.post(symbol, ev.Ticker(mark, index, index, 0.0, 0.0, 55.0, 0.12, now_ns, now_ns))

    def _reprice(self, symbol: str) -> None:
        """Mark, index and book where the centre is now."""
        index = INSTRUMENTS[PERP].grid.price(self.centre[PERP])
        for one in SYMBOLS if symbol == PERP else (symbol,):
            self.engine.set_index(INSTRUMENTS[one].index, index, self.now_ms)
            self.engine.set_reference(one, reference(one, self.centre[one], index), self.now_ms)
        bids, asks = levels(symbol, self.centre[symbol], self.width[symbol], self.depth[symbol])
        self.engine.set_levels(symbol, bids, asks, self.now_ms, snapshot=True)

    # --- time ------------------------------------------------------------------------------------

    def pass_time(self, to_ns: int) -> None:
        """Timers, pauses and beats fall due in their order."""
        for _ in range(5_000):
            dues = [self.next_beat_ns, *(until_ns for until_ns, _ in self.wire.pauses)]
            dues += [worker.timer_ns for worker in self.pump.workers.values() if worker.timer_ns]
            due = min(dues)
            if due > to_ns:
                break
            self.clock.at_ns = max(self.clock.at_ns, due)
            self._fall_due()
        else:
            raise AssertionError("somebody keeps itself awake")
        self.clock.at_ns = max(self.clock.at_ns, to_ns)

    def _fall_due(self) -> None:
        now_ns = self.now_ns
        if now_ns >= self.next_beat_ns:
            self.next_beat_ns = now_ns + BEAT_NS
            for symbol in SYMBOLS:
                if self.data_up[symbol]:
                    self._tick(symbol)
            self.lookout.look()
            self.turn()
            self.treasury.value_all()
        for worker in list(self.pump.workers.values()):
            if worker.timer_ns and worker.timer_ns <= now_ns:
                worker.timer_ns = 0
                self.pump.post(worker, ev.TimerFired(now_ns))
        self.wire.wake()
        self.turn()

    def moment(self) -> None:
        self.pass_time(self.now_ns + 2 * MS)

    # --- life ------------------------------------------------------------------------------------

    def resolved(self, symbol: str) -> Resolved:
        return Resolved(INSTRUMENTS[symbol], self.given[symbol], symbol)

    def enlist(self, symbols: list[str]) -> None:
        workers = self.roster.prepare([self.resolved(symbol) for symbol in symbols])
        self.roster.enlist(workers)
        for symbol in symbols:
            self.judge.set_settings(symbol, self.given[symbol])
            self.wire.sink.post(symbol, ev.DataLinkUp(self.now_ns))
            self.wire.tops.add(symbol)
            self._tick(symbol)
        self.turn()

    def told(self) -> str:
        return "\n".join(self.story)

    # --- the books -------------------------------------------------------------------------------

    def still(self) -> bool:
        """Nothing is under way, in doubt or to be done."""
        for worker in self.pump.workers.values():
            machine = worker.machine
            if machine.drift is not None or not machine.reconciled or not machine.position.known:
                return False
            if not all(isinstance(state.slot, Live) or not state.label for state in machine.own.every()):
                return False
            if machine.state is not State.ACTIVE and machine.own.resting:
                return False
        return not any(link.orders for link in self.wire.lanes())

    def compare(self) -> None:
        """Slots, positions and ledgers against the engine's."""
        for symbol in SYMBOLS:
            there = {order.label: order for order in self.resting(symbol)}
            worker = self.pump.workers.get(f"{EXCHANGE}/{symbol}")
            if worker is None:
                assert not there, f"{symbol} is gone and {sorted(there)} rest"
                continue
            machine = worker.machine
            assert machine.state is not State.DRAINING, f"{symbol} cannot end: {machine.snapshot()}"
            states = machine.own.strays.values() if machine.mode is Mode.SHADOW else machine.own.every()
            slots = {state.label: state.slot for state in states if state.label}
            assert not any(isinstance(slot, Unknown | Amending) for slot in slots.values()), f"{symbol}: {slots}"
            assert sorted(slots) == sorted(there), f"{symbol}: we know {sorted(slots)}, there are {sorted(there)}"
            for label, slot in slots.items():
                ack = acked(there[label])
                found = (slot.price_ticks, slot.total_lots - slot.filled_lots)
                assert found == (ack.price_ticks, ack.remaining_lots), f"{symbol}: {label} is {found}, there {ack}"
            if machine.state is not State.ACTIVE:
                assert not there, f"{symbol} is {machine.state} and {sorted(there)} rest"
            if machine.state is State.HALTED:
                assert worker.proven, f"{symbol} is HALTED and never proven empty"
            self._compare_money(worker)

    def _compare_money(self, worker: Worker) -> None:
        symbol, position, wire = worker.symbol, worker.machine.position, self.wire
        ours = INSTRUMENTS[symbol]
        held = self.engine.floor.account(ACCOUNT, self.now_ms).positions.get(symbol)
        lots = lots_of(symbol, held.size) if held is not None else 0
        assert position.lots == lots, f"{symbol}: we count {position.lots} lots, the exchange {lots}"
        assert symbol not in self.adopted, f"{symbol}: a difference was adopted that was only late"
        trades = [trade for _, trade in wire.trades[symbol] if trade.trade_id in wire.told[symbol]]
        since = [trade for number, trade in wire.trades[symbol] if number > wire.baseline.get(symbol, 0)]
        assert all(trade in trades for trade in since), f"{symbol}: a trade was never told"
        assert position.fills == len(trades), f"{symbol}: {position.fills} fills counted, {len(trades)} told"
        cash = Fraction(0)
        for trade in trades:
            signed = Fraction(trade.amount if trade.direction is Direction.BUY else -trade.amount)
            price = Fraction(trade.price)
            cash += (signed / price if ours.amount_is_usd else -signed * price) - Fraction(trade.fee)
        fees = sum((trade.fee for trade in trades), Decimal(0))
        statement = position.statement(worker.machine.mark_price)
        assert statement.fees == -fees, f"{symbol}: fees {statement.fees}, the exchange took {fees}"
        assert position.fees == fees
        close(statement.cash, cash, f"{symbol}: cash")
        mark = Fraction(repr(worker.machine.mark_price))
        amount = Fraction(ours.lot * lots)
        value = -amount / mark if ours.amount_is_usd else amount * mark
        if not wire.baseline.get(symbol):
            assert statement.opening == 0
        assert statement.value is not None
        close(statement.value, value, f"{symbol}: value")
        close(statement.total, cash + value - Fraction(statement.opening), f"{symbol}: total")


def close(ours: Decimal, exact: Fraction, what: str) -> None:
    """Equal but for the rounding of 50 digits."""
    assert abs(Fraction(ours) - exact) <= Fraction(1, 10**30), f"{what}: {ours}, exactly {float(exact)}"
