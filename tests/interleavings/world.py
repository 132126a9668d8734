"""What may happen to the daemon in `weather_house`, step by step.

A step is a name and two numbers below 100 of which it makes what it needs.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import trio
import trio.testing
from weather_house import MS, House
from weather_market import (
    ACCOUNT,
    CENTRE,
    DEPTHS,
    EXCHANGE,
    INSTRUMENTS,
    REACH,
    SETUPS,
    SIZES,
    SWITCHES,
    SYMBOLS,
    D,
    changed,
    settings,
)
from weather_wire import Answer, Done, Found
from weather_words import lots_of, short

from mmd.domain import events as ev
from mmd.domain.reasons import Fault, State, Why
from mmd.domain.settings import PortfolioLimits, Requote, ScopeLimits, SymbolSettings
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.orders import CancelReason, Order
from mmd.shell.worker import Worker

SIZES_LOTS = {symbol: lots_of(symbol, D(row[0])) for symbol, row in SIZES.items()}
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


class World(House):
    """The steps."""

    def start(self) -> None:
        """Linked, reconciled, ACTIVE, both orders of everybody at the exchange."""
        self.wire.connect(armed=self.setup.armed)
        self.enlist(list(SYMBOLS))
        self.calm()
        self.treasury.value_all()
        self.turn()
        self.back_to_work()
        assert all(worker.machine.state is State.ACTIVE for worker in self.pump.workers.values()), self.told()

    async def run(self, act: Callable[["World"], None], how: int) -> None:
        """From the start through `act` to the comparison of the books."""
        try:
            self.start()
            act(self)
            await self.settle(how)
        except AssertionError as wrong:
            wrong.add_note(f"The story:\n{self.told()}")
            raise

    async def walk(self, steps: list[Step], how: int) -> None:
        """The same with steps."""
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
        fault = (Fault.AMBIGUOUS, Fault.AMBIGUOUS, Fault.ORDER, Fault.RATE_LIMIT, Fault.STATE)[a % 5]
        done = Done.NEVER
        if fault is Fault.AMBIGUOUS and b >= 25:
            done = Done.NOW if b < 50 else Done.LATER
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

    def ask(self, worker: Worker, make: Callable[[int], ev.Mail]) -> None:
        reply = self.office.ask([worker], lambda number, key: make(number))[worker.key]
        self.tell(f"operator: {worker.symbol}: {reply.detail}")
        if "is adopted" in reply.detail:
            self.adopted.add(worker.symbol)
        self.turn()

    def pause(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None:
            self.ask(worker, lambda number: ev.PauseRequested(number, "op", "drawn", self.now_ns))

    def resume(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None:
            self.ask(worker, lambda number: ev.ResumeRequested(number, "op", "drawn", self.now_ns))

    def halt(self, a: int, b: int) -> None:
        for worker in list(self.pump.workers.values()) if b >= 80 else [self.worker(a)]:
            if worker is not None:
                self.ask(worker, lambda number: ev.HaltRequested(number, Why.OPERATOR, "op", "drawn", self.now_ns))

    def reset(self, a: int, b: int) -> None:
        worker = self.worker(a)
        if worker is not None and worker.machine.state is State.HALTED:
            self.ask(worker, lambda number: ev.ResetRequested(number, "op", "drawn", self.now_ns))
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
            self.ask(worker, lambda number: ev.FlattenRequested(number, "op", "drawn", part, limit, self.now_ns))

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
                self.ask(worker, lambda number: ev.ResetRequested(number, "op", "work", self.now_ns))
                self.treasury.reset([worker])
            if worker.machine.state is State.PAUSED:
                self.ask(worker, lambda number: ev.ResumeRequested(number, "op", "work", self.now_ns))
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
        self.tell(f"reload: {symbol}: {', '.join(f'{key} {value}' for key, value in changes.items())}")
        self.reconfigure(symbol, settings(symbol, self.setup, **changes))

    def reconfigure(self, symbol: str, given: SymbolSettings) -> None:
        """As Reloader applies a changed symbol."""
        worker = self.of(symbol)
        self.given[symbol] = given
        self.judge.set_settings(symbol, given)
        self.roster.change(worker.key, self.resolved(symbol))
        self.pump.run()
        self.treasury.change_limits(self.limits, SWITCHES, [worker])
        self.turn()

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
        self.set_totals(limits)

    def set_totals(self, limits: PortfolioLimits) -> None:
        """As Reloader applies changed totals."""
        shown = {
            "max_exposure": limits.max_exposure["BTC"],
            "max_contracts": limits.max_contracts,
            "max_open_orders": limits.max_open_orders,
            "per_exchange": limits.per_exchange.get(EXCHANGE),
        }
        self.tell(f"reload: totals: {shown}")
        self.limits = limits
        self.judge.set_limits(limits)
        self.treasury.change_limits(limits, SWITCHES, [])
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
                self.ask(worker, lambda number: ev.HaltRequested(number, Why.OPERATOR, "op", "end", self.now_ns))
            elif ending == 2:
                self.ask(worker, lambda number: ev.PauseRequested(number, "op", "end", self.now_ns))
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
            elif self.still():
                break
        self.compare()


def play(setup: str, steps: list[Step], how: int = 0) -> World:
    """One case of steps; AssertionError carries the story."""
    return _alone(setup, lambda world: world.walk(steps, how))


def perform(setup: str, act: Callable[[World], None], how: int = 0) -> World:
    """One case in which `act` does as it likes."""
    return _alone(setup, lambda world: world.run(act, how))


def _alone(setup: str, life: Callable[[World], Awaitable[None]]) -> World:
    async def main() -> World:
        async with trio.open_nursery() as nursery:
            world = World(setup, nursery)
            await life(world)
            nursery.cancel_scope.cancel()
        return world

    try:
        return trio.run(main, clock=trio.testing.MockClock())
    except BaseExceptionGroup as group:  # swallows nothing: hypothesis shrinks by the error inside its wrapping
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        raise found from None


__all__ = ["MOODS", "SETUPS", "STEPS", "Step", "World", "perform", "play"]
