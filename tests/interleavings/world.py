"""A daemon's rooms between an operator and an exchange, on simulated time, step by step.

Real are pump, outbox, gate, machines, treasury, roster, register, lookout, office and prover; real is the
sandbox's engine. Between them is `weather_wire`; `weather_judge` looks after everything that happens.
A step is a name and two numbers below 100 of which it makes what it needs; `story` tells what came of it.
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
    REACH,
    SETUPS,
    SIZES,
    START_NS,
    SWITCHES,
    SYMBOLS,
    D,
    changed,
    levels,
    make_engine,
    reference,
    settings,
    totals,
)
from weather_wire import Answer, Done, Found, Wire, acked, lots_of, short

from mmd.config.select import Resolved
from mmd.core.orders import Amending, Live, Unknown
from mmd.domain import events as ev
from mmd.domain.reasons import Fault, Mode, State, Why
from mmd.domain.settings import PortfolioLimits, Requote, ScopeLimits, SymbolSettings
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.orders import CancelReason, Order
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
SIZES_LOTS = {symbol: lots_of(symbol, D(row[0])) for symbol, row in SIZES.items()}
BEAT_NS = NS  # how often the treasury values, and the tickers tick
Step = tuple[str, int, int]
# How often each step is drawn: mostly trading, now and then trouble.
FAIR = {
    "market_moves": 10,
    "somebody_takes": 14,
    "sweep": 2,
    "order_arrives": 12,
    "question_arrives": 4,
    "answer_heard": 10,
    "news_heard": 9,
    "asked_and_told": 5,
    "calm": 8,
    "wait": 10,
    "back_to_work": 6,
    "request_lost": 3,
    "answer_lost": 3,
    "question_lost": 1,
    "news_garbled": 1,
    "answer_repeated": 2,
    "news_repeated": 3,
    "closing_first": 1,
    "will_refuse": 3,
    "expelled": 2,
    "fills_after_all": 1,
    "link_lost": 3,
    "link_back": 4,
    "loss_noticed": 3,
    "book_closes": 1,
    "data_trouble": 1,
    "pause": 2,
    "resume": 3,
    "halt": 2,
    "reset": 2,
    "flatten": 2,
    "prove": 1,
    "reload": 5,
    "reload_totals": 4,
    "leaves": 2,
    "comes_back": 3,
    "shadow": 2,
}
NO_CALM = {"calm": 1, "back_to_work": 2}
# Races are found where one kind of trouble comes often: every case has its mood.
MOODS = {
    "fair": FAIR,
    "slow": FAIR | NO_CALM | {"wait": 16, "asked_and_told": 9, "news_heard": 4},
    "lossy": FAIR | NO_CALM | {"request_lost": 8, "answer_lost": 8, "will_refuse": 8, "news_garbled": 5, "wait": 16},
    "echoes": FAIR | NO_CALM | {"answer_repeated": 14, "news_repeated": 10, "closing_first": 3, "news_garbled": 4},
    "links": FAIR | {"link_lost": 9, "link_back": 12, "loss_noticed": 7, "asked_and_told": 10, "wait": 14},
    "office": FAIR | {"pause": 6, "halt": 6, "reset": 8, "resume": 8, "flatten": 12, "shadow": 5, "prove": 5},
    "config": FAIR | NO_CALM | {"reload": 14, "reload_totals": 12, "leaves": 5, "comes_back": 8},
    "races": FAIR | NO_CALM | {"somebody_takes": 30, "expelled": 5, "reload": 9, "news_heard": 5, "order_arrives": 20},
}
STEPS = {mood: tuple(name for name, often in weights.items() for _ in range(often)) for mood, weights in MOODS.items()}


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


class World:
    """Made inside trio."""

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

    def start(self) -> None:
        """Linked, reconciled, ACTIVE, both orders of everybody at the exchange."""
        self.wire.connect(armed=self.setup.armed)
        self.enlist(list(SYMBOLS))
        self.calm()
        self.treasury.value_all()
        self.turn()
        self.back_to_work()
        assert all(worker.machine.state is State.ACTIVE for worker in self.pump.workers.values()), self.told()

    def told(self) -> str:
        return "\n".join(self.story)

    async def run(self, steps: list[Step], how: int) -> None:
        try:
            self.start()
            for name, a, b in steps:
                self.tell(f"--- {name} {a} {b}")
                getattr(self, name)(a, b)
                self.moment()
                if self.proving:
                    await trio.testing.wait_all_tasks_blocked()
                    self.turn()
            await self.settle(how)
        except AssertionError as wrong:
            wrong.add_note(f"The story:\n{self.told()}")
            raise

    # --- steps: the market -----------------------------------------------------------------------

    def market_moves(self, a: int, b: int) -> None:
        symbol = SYMBOLS[a % 3]
        reach, centre = REACH[symbol], CENTRE[symbol]
        move = (b - 50) * reach // 40
        moved = min(centre + reach, max(centre - reach, self.centre[symbol] + move))
        self.centre[symbol] = moved
        self.depth[symbol] = DEPTHS[symbol][(a // 3) % 3]
        self.tell(f"market: {symbol} moves to {moved}")
        self._reprice(symbol)
        self.judge.repriced()
        self.wire.publish()
        if self.data_up[symbol]:
            self._tick(symbol)
        self.turn()

    def _pick(self, a: int) -> Order | None:
        found = self.resting()
        return found[a % len(found)] if found else None

    def somebody_takes(self, a: int, b: int) -> None:
        """A part of one of our orders, or all of it."""
        order = self._pick(a)
        if order is None or self.engine.floor.listing(order.instrument_name).state is not InstrumentState.OPEN:
            return
        left = lots_of(order.instrument_name, order.remaining)
        lots = left if b >= 50 else max(1, left * (1 + b) // 55)
        self.tell(f"market: somebody takes {lots} of {short(order.label)}")
        self.engine.hit(order, INSTRUMENTS[order.instrument_name].amount(lots), self.now_ms)
        self.wire.publish()
        self.turn()

    def sweep(self, a: int, b: int) -> None:
        """A taker walks through the book, whoever stands there."""
        symbol = SYMBOLS[a % 3]
        ours = INSTRUMENTS[symbol]
        direction = Direction.BUY if b % 2 else Direction.SELL
        limit = ours.grid.price(max(1, self.centre[symbol] + (1 if b % 2 else -1) * self.width[symbol] * 3 // 2))
        self.tell(f"market: a sweep, {direction} on {symbol}")
        self.engine.take(symbol, direction, ours.lot * (5 + b), limit, self.now_ms)
        self.wire.publish()
        self._reprice(symbol)
        self.wire.publish()
        self.turn()

    def expelled(self, a: int, b: int) -> None:
        order = self._pick(a)
        if order is not None:
            self.tell(f"exchange: pulls {short(order.label)} by itself")
            chosen = order.order_id
            self.engine.cancel_where(ACCOUNT, lambda one: one.order_id == chosen, self.now_ms, CancelReason.SETTLEMENT)
            self.wire.publish()
            self.turn()

    def fills_after_all(self, a: int, b: int) -> None:
        """A fill of an order that was closed turns up, forgotten by us or not."""
        account = self.engine.floor.account(ACCOUNT, self.now_ms)
        over = list(account.closed_orders.values())
        if not over:
            return
        order = over[a % len(over)]
        symbol = order.instrument_name
        lots = 1 + b % 2 * (SIZES_LOTS[symbol] // 3)
        self.judge.surprises[symbol] += lots
        self.tell(f"exchange: {short(order.label)} was closed and fills after all")
        self.engine.fill_closed(order, INSTRUMENTS[symbol].amount(lots), self.now_ms)
        self.wire.publish()
        self.turn()

    def book_closes(self, a: int, b: int) -> None:
        """The exchange takes no orders for an instrument, or no cancels either; later it opens again."""
        symbol = SYMBOLS[a % 3]
        now = self.engine.floor.listing(symbol).state
        states = (InstrumentState.LOCKED, InstrumentState.HALTED)
        state = states[b % 2] if now is InstrumentState.OPEN else InstrumentState.OPEN
        self._set_state(symbol, state)
        if b < 60:
            opened = state is InstrumentState.OPEN
            self.wire.sink.post(symbol, ev.InstrumentStateChanged(str(state), opened, False, self.now_ns))
        self.turn()

    def _set_state(self, symbol: str, state: InstrumentState) -> None:
        self.tell(f"exchange: {symbol} is {state}")
        self.engine.set_state(symbol, state, self.now_ms)
        self.wire.publish()

    def data_trouble(self, a: int, b: int) -> None:
        symbol = SYMBOLS[a % 3]
        self.data_up[symbol] = not self.data_up[symbol]
        self.tell(f"market data of {symbol} {'is back' if self.data_up[symbol] else 'breaks'}")
        if not self.data_up[symbol]:
            event: ev.Mail = ev.BookBroken(Why.BOOK_GAP, "drawn", self.now_ns)
            if b % 2:
                event = ev.DataLinkDown("drawn", self.now_ns)
            self.wire.sink.post(symbol, event)
        else:
            self._data_back(symbol)
        self.turn()

    def _data_back(self, symbol: str) -> None:
        self.data_up[symbol] = True
        self.wire.sink.post(symbol, ev.DataLinkUp(self.now_ns))
        self.wire.tops.add(symbol)
        self._tick(symbol)

    # --- steps: what travels ---------------------------------------------------------------------

    def order_arrives(self, a: int, b: int) -> None:
        for _ in range(1 + b % 3):
            self.wire.arrive_order(a)
            self.turn()

    def question_arrives(self, a: int, b: int) -> None:
        for _ in range(1 + b % 3):
            self.wire.arrive_question()

    def answer_heard(self, a: int, b: int) -> None:
        for _ in range(1 + b % 3):
            if self.wire.hear_answer():
                self.turn()

    def news_heard(self, a: int, b: int) -> None:
        for _ in range(1 + b % 3):
            if self.wire.hear_news():
                self.turn()

    def asked_and_told(self, a: int, b: int) -> None:
        """Questions and answers travel, orders and news do not."""
        for _ in range(100):
            if not (self.wire.arrive_question() or self.wire.hear_answer()):
                break
            self.turn()

    def calm(self, a: int = 0, b: int = 0) -> None:
        """Everything under way arrives, both ways, until nothing is."""
        wire = self.wire
        for _ in range(300):
            if not (wire.arrive_order(0) or wire.hear_news() or wire.hear_answer() or wire.arrive_question()):
                return
            self.turn()
        raise AssertionError("there is no end of messages")

    def request_lost(self, a: int, b: int) -> None:
        links = [link for link in self.wire.lanes() if link.orders]
        if links:
            sent = links[a % len(links)].orders.popleft()
            self.tell(f"lost on the way: {type(sent.order).__name__} {short(sent.order.label)}")

    def question_lost(self, a: int, b: int) -> None:
        link = self.wire.link
        if link is not None and link.questions:
            asked = link.questions.popleft()
            self.tell(f"lost on the way: {asked.question.what}")
            self.wire.fail(asked.inquiry)
            self.turn()

    def answer_lost(self, a: int, b: int) -> None:
        if self.wire.answers:
            answer = self.wire.answers.popleft()
            self.tell(f"lost on the way back: {answer.about}")
            if isinstance(answer, Found):
                self.wire.fail(answer.asked.inquiry)
            self.turn()

    def news_garbled(self, a: int, b: int) -> None:
        """News that cannot be read: a session then asks for everything."""
        if self.wire.news:
            news = self.wire.news.popleft()
            self.tell(f"news of {news.symbol} cannot be read: everything is asked again")
            if news.symbol in self.wire.watched:
                self.wire.begin("reconcile", self.wire.reconcile([news.symbol]))

    def answer_repeated(self, a: int, b: int) -> None:
        """An answer to an order is heard twice, the second time at once or after whatever waits."""
        answers = self.wire.answers
        if answers and isinstance(answers[0], Answer):
            self.tell(f"{answers[0].about} will be heard twice")
            answers.insert(1 if b % 2 else len(answers), answers[0])

    def news_repeated(self, a: int, b: int) -> None:
        news = self.wire.news
        if news:
            self.tell(f"news of {news[0].symbol} will be heard twice")
            news.insert(1 if b % 2 else len(news), news[0])

    def closing_first(self, a: int, b: int) -> None:
        self.wire.closing_first = not self.wire.closing_first
        self.tell(f"closings are told {'before' if self.wire.closing_first else 'after'} the fills")

    def will_refuse(self, a: int, b: int) -> None:
        """The next request is refused; or its outcome is not told: it is carried out, or later, or never."""
        faults = (Fault.ORDER, Fault.RATE_LIMIT, Fault.STATE, Fault.AMBIGUOUS, Fault.AMBIGUOUS)
        fault = faults[a % len(faults)]
        done = (Done.NEVER, Done.NOW, Done.LATER)[b % 3] if fault is Fault.AMBIGUOUS else Done.NEVER
        self.wire.refusals.append((fault, done))

    def link_lost(self, a: int, b: int) -> None:
        self.wire.disconnect("drawn")
        self.turn()

    def link_back(self, a: int, b: int) -> None:
        self.wire.connect(armed=self.setup.armed and a < 90)
        self.turn()

    def loss_noticed(self, a: int, b: int) -> None:
        self.wire.notice_loss()
        self.turn()

    # --- steps: time -----------------------------------------------------------------------------

    def wait(self, a: int, b: int) -> None:
        self.pass_time(self.now_ns + (20, 200, 500, 1_000, 2_100, 4_500)[a % 6] * MS)

    # --- steps: the operator ---------------------------------------------------------------------

    def _ask(self, worker: Worker, make: Callable[[int], ev.Mail]) -> None:
        reply = self.office.ask([worker], lambda number, key: make(number))[worker.key]
        self.tell(f"operator: {worker.symbol}: {reply.detail}")
        if "is adopted" in reply.detail:
            self.adopted.add(worker.symbol)
        self.turn()

    def pause(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None:
            self._ask(worker, lambda number: ev.PauseRequested(number, "op", "drawn", self.now_ns))

    def resume(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None:
            self._ask(worker, lambda number: ev.ResumeRequested(number, "op", "drawn", self.now_ns))

    def halt(self, a: int, b: int) -> None:
        for worker in list(self.pump.workers.values()) if b >= 80 else [self.worker(a)]:
            if worker is not None:
                self._ask(worker, lambda number: ev.HaltRequested(number, Why.OPERATOR, "op", "drawn", self.now_ns))

    def reset(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None and worker.machine.state is State.HALTED:
            self._ask(worker, lambda number: ev.ResetRequested(number, "op", "drawn", self.now_ns))
            self.treasury.reset([worker])
            self.turn()

    def flatten(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is None:
            return
        machine = worker.machine
        if machine.state is State.ACTIVE and b % 2:
            self.pause(a, b)
            self.calm()
        lots = abs(machine.position.lots)
        if lots:
            centre, away = self.centre[worker.symbol], self.width[worker.symbol] * 2
            at = centre - away if machine.position.lots > 0 else centre + away
            limit = max(1, machine.instrument.grid.floor(at))
            part = max(1, lots * (1 + b) // 100)
            self._ask(worker, lambda number: ev.FlattenRequested(number, "op", "drawn", part, limit, self.now_ns))

    def prove(self, a: int, b: int) -> None:
        """Ask the exchange for proof that halted books are empty; the answer comes over the same wires."""
        waiting = self.prover.unproven()
        if waiting and not self.proving:
            self.proving += 1
            self.nursery.start_soon(self._prove, waiting)

    async def _prove(self, waiting: list[Worker]) -> None:
        await self.prover.prove(waiting)
        self.proving -= 1

    def back_to_work(self, a: int = 0, b: int = 0) -> None:
        """What it takes to be ACTIVE again, so that runs do not end in a pause."""
        self.clear_up()
        for symbol in SYMBOLS:
            if f"{EXCHANGE}/{symbol}" not in self.pump.workers:
                self.comes_back(SYMBOLS.index(symbol), 0)
        self.calm()
        self.pass_time(self.now_ns + 2_100 * MS)
        self.calm()
        for worker in list(self.pump.workers.values()):
            if worker.shadowed:
                self._set_shadow(worker, on=False)
            if worker.machine.state is State.HALTED:
                self._ask(worker, lambda number: ev.ResetRequested(number, "op", "work", self.now_ns))
                self.treasury.reset([worker])
            if worker.machine.state is State.PAUSED:
                self._ask(worker, lambda number: ev.ResumeRequested(number, "op", "work", self.now_ns))
        self.calm()

    def clear_up(self) -> None:
        """No new faults from now on."""
        self.wire.refusals.clear()
        self.wire.closing_first = False
        while self.wire.lost_links:
            self.wire.notice_loss()
        for symbol in SYMBOLS:
            if self.engine.floor.listing(symbol).state is not InstrumentState.OPEN:
                self._set_state(symbol, InstrumentState.OPEN)
            self.wire.sink.post(symbol, ev.InstrumentStateChanged("open", True, False, self.now_ns))
            if not self.data_up[symbol]:
                self._data_back(symbol)
        self.wire.connect(armed=self.setup.armed)
        self.turn()

    # --- steps: the configuration ----------------------------------------------------------------

    def reload(self, a: int, b: int) -> None:
        """Other sizes, spreads, limits of one symbol."""
        symbol = SYMBOLS[a % 3]
        worker = self.pump.workers.get(f"{EXCHANGE}/{symbol}")
        if worker is None or worker.key in self.roster.parting:
            return
        size, most, order, spread = SIZES[symbol]
        lot = INSTRUMENTS[symbol].lot
        part = Decimal(2 + b % 7) / 5  # 0.4 .. 1.6

        def scaled(text: str) -> Decimal:
            return max(lot, D(text) * part // lot * lot)

        changes: dict[str, Any] = {
            0: {"size": scaled(size)},
            1: {"max_position": scaled(most), "max_filled": D(most) * 1000},
            2: {"size": scaled(size), "max_order_size": scaled(order)},
            3: {"spread_bps": spread * float(part)},
            4: {"requote": Requote.REPLACE if b % 2 else Requote.AMEND, "skew_bps": 4.0 * (b % 3)},
            5: {"max_position": scaled(most), "size": scaled(size), "max_filled": D(most) * 1000},
            6: {"collar_bps": 60.0 + b, "spread_bps": spread * float(part)},
        }[b % 7 if a < 80 else 5]
        self.given[symbol] = settings(symbol, self.setup, **changes)
        self.tell(f"reload: {symbol}: {', '.join(f'{key} {value}' for key, value in changes.items())}")
        self.judge.set_settings(symbol, self.given[symbol])
        self.roster.change(worker.key, self.resolved(symbol))
        self.pump.run()
        self._change_limits([worker])

    def reload_totals(self, a: int, b: int) -> None:
        limits = self.setup.totals
        part = Decimal(1 + b % 6) / 4  # 0.25 .. 1.5
        if a % 4 == 3:
            limits = changed(limits, max_open_orders=1 + b % 8)
        else:
            scope = ScopeLimits(max_notional_usd=D("40000") * part) if a % 4 == 2 else ScopeLimits()
            limits = changed(
                limits,
                max_exposure={"BTC": limits.max_exposure["BTC"] * part},
                max_contracts=D("1500") * part if a % 4 == 1 else limits.max_contracts,
                per_exchange={EXCHANGE: scope},
            )
        self.limits = limits
        shown = {
            "max_exposure": limits.max_exposure["BTC"],
            "max_contracts": limits.max_contracts,
            "max_open_orders": limits.max_open_orders,
            "per_exchange": limits.per_exchange.get(EXCHANGE),
        }
        self.tell(f"reload: totals: {shown}")
        self.judge.set_limits(limits)
        self._change_limits([])

    def _change_limits(self, workers: list[Worker]) -> None:
        self.treasury.change_limits(self.limits, SWITCHES, workers)
        self.turn()

    def leaves(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None and worker.key not in self.roster.parting:
            self.tell(f"reload: {worker.symbol} leaves")
            self.roster.remove([worker.key], Why.REMOVED)
            self.turn()

    def comes_back(self, a: int, b: int) -> None:
        symbol = SYMBOLS[a % 3]
        if f"{EXCHANGE}/{symbol}" not in self.pump.workers:
            self.tell(f"reload: {symbol} comes back")
            self.adopted.discard(symbol)
            self.enlist([symbol])

    def shadow(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None:
            self._set_shadow(worker, on=not worker.shadowed)

    def _set_shadow(self, worker: Worker, *, on: bool) -> None:
        """As Office.shadow begins."""
        self.tell(f"operator: {worker.symbol}: shadow {'on' if on else 'off'}")
        worker.shadowed = on
        self.pump.post(worker, ev.SettingsChanged(worker.effective(worker.machine.settings), self.now_ns))
        self.turn()

    # --- the end ---------------------------------------------------------------------------------

    async def settle(self, how: int) -> None:
        """The weather clears, then the books are compared."""
        self.tell("--- the weather clears")
        self.clear_up()
        self.calm()
        ending = how % 4
        for worker in list(self.pump.workers.values()):
            if ending == 1:
                self._ask(worker, lambda number: ev.HaltRequested(number, Why.OPERATOR, "op", "end", self.now_ns))
            elif ending == 2:
                self._ask(worker, lambda number: ev.PauseRequested(number, "op", "end", self.now_ns))
        if ending == 3:
            self.roster.remove([key for key in self.pump.workers if key not in self.roster.parting], Why.REMOVED)
            self.turn()
        for _ in range(60):
            self.pass_time(self.now_ns + 500 * MS)
            self.clear_up()  # an old answer may have cost the link
            self.calm()
            if self.proving:
                await trio.testing.wait_all_tasks_blocked()
                self.turn()
            elif self.prover.unproven() and not any(w.machine.own.resting for w in self.prover.unproven()):
                self.prove(0, 0)
                await trio.testing.wait_all_tasks_blocked()
                self.turn()
            elif self._still():
                break
        self._compare()

    def _still(self) -> bool:
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

    def _compare(self) -> None:
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


def play(setup: str, steps: list[Step], how: int = 0) -> World:
    """One case from its start to the comparison of the books; AssertionError carries the story."""
    try:
        return trio.run(_play, setup, steps, how, clock=trio.testing.MockClock())
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        raise found from None


async def _play(setup: str, steps: list[Step], how: int) -> World:
    async with trio.open_nursery() as nursery:
        world = World(setup, nursery)
        await world.run(steps, how)
        nursery.cancel_scope.cancel()
    return world


__all__ = ["MOODS", "SETUPS", "STEPS", "Step", "World", "play", "totals"]
