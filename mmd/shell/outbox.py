"""The way out: every order passes the gate and the message budget here, cancels leave first, one write per link."""

from collections.abc import Callable, Iterable

from mmd.core.budget import Turns
from mmd.core.gate import Room, review
from mmd.domain.actions import (
    AmendOrder,
    Approved,
    CancelOrder,
    Order,
    PlaceOrder,
    QueryOrder,
    QueryState,
    ReduceOrder,
    Request,
)
from mmd.domain.events import GateRefused, Mail
from mmd.domain.reasons import Mode, Rule, State
from mmd.domain.settings import PortfolioLimits
from mmd.exchanges.api import Exchange
from mmd.shell import logs
from mmd.shell.counters import count
from mmd.shell.worker import Worker

log = logs.get("mmd.outbox")


class Outbox:
    """Collects what one pump decided, per exchange, and hands it over in one call each."""

    def __init__(
        self,
        exchanges: dict[str, Exchange],
        post: Callable[[Worker, Mail], None],
        workers: Callable[[], Iterable[Worker]],
    ) -> None:
        """`workers`: everybody whose orders count towards the totals of open orders."""
        self._workers = workers
        self.closed = False  # the journal cannot be written: nothing but cancels and questions leaves
        self.limits: PortfolioLimits | None = None  # until the totals are connected; then nothing is placed without
        self.elsewhere: dict[str, list[str]] = {}  # by exchange that is awaited: coins of orders that may be out there
        self._exchanges = exchanges
        self._post = post
        self._turns: dict[str, Turns] = {}  # by exchange: whose orders wait for credits
        self._first: dict[str, list[tuple[str, Request]]] = {}
        self._then: dict[str, list[tuple[str, Request]]] = {}

    def order(self, worker: Worker, order: Order, now_ns: int) -> None:
        """Through the gate; a refusal goes back to the machine as an event."""
        if isinstance(order, CancelOrder):
            verdict = review(order, None, None)
        else:
            verdict = review(order, worker.machine.exposure(order), self.room(worker, order, now_ns))
        if not isinstance(verdict, Approved):
            count(worker.counters.refused, verdict.rule)
            if verdict.rule is Rule.BUDGET:
                self._turns.setdefault(worker.exchange, Turns()).refused(worker.key, now_ns)
            refusal = GateRefused(
                order.label, order.side, verdict.rule, verdict.number, verdict.limit, verdict.key, now_ns
            )
            self._post(worker, refusal)
            return
        self._exchanges[worker.exchange].budget.spend(now_ns)
        turns = self._turns.get(worker.exchange)
        if turns is not None and not isinstance(order, CancelOrder):
            turns.served(worker.key)
        self._approved(worker, verdict, now_ns)

    def room(self, worker: Worker, order: Order, now_ns: int) -> Room:
        """What is left of budgets, rates and totals for this order."""
        rules = worker.machine.rules
        turns = self._turns.get(worker.exchange)
        ahead = 0
        if turns is not None and not isinstance(order, ReduceOrder):  # what closes a position waits for nobody
            ahead = turns.ahead(worker.key, now_ns)
        budget = self._exchanges[worker.exchange].budget.allows(now_ns, ahead)
        if isinstance(order, AmendOrder):  # by far the most, so it is asked for first
            rate = worker.amends.allows(rules.max_amends_per_second, now_ns)
            return Room(budget, rate, journal=not self.closed)
        orders, most, key = self._fullest(worker)
        rate = worker.places.allows(rules.max_places_per_second, now_ns)
        return Room(budget, rate, orders, most, key, not self.closed)

    def _fullest(self, worker: Worker) -> tuple[int, int, str]:
        """Orders that are or may be out besides this worker's next, the limit, its key: of the fullest total."""
        limits = self.limits
        if limits is None:
            return (0, 0, "max_open_orders")
        base, exchange = worker.machine.instrument.base, worker.exchange
        away = [each for bases in self.elsewhere.values() for each in bases] if self.elsewhere else []
        total, there, coin = len(away) - 1, -1, away.count(base) - 1  # the one in question is among them
        for each in self._workers():
            resting = each.machine.own.resting
            if resting:
                total += resting
                there += resting if each.exchange == exchange else 0
                coin += resting if each.machine.instrument.base == base else 0
        fullest = (total, limits.max_open_orders, "max_open_orders")
        for name, scope, found in (
            ("per_exchange", limits.per_exchange.get(exchange), there),
            ("per_underlying", limits.per_underlying.get(base), coin),
        ):
            most = scope.max_open_orders if scope is not None else None
            if most is not None and most - found < fullest[1] - fullest[0]:
                target = exchange if name == "per_exchange" else base
                fullest = (found, most, f"limits.portfolio.{name}.{target}.max_open_orders")
        return fullest

    def _approved(self, worker: Worker, approved: Approved, now_ns: int) -> None:
        order = approved.order
        if log.debugs:
            kind = type(order).__name__
            log.debug("order.sent", symbol=worker.symbol, exchange=worker.exchange, request=kind, label=order.label)
        counters = worker.counters
        leaving = self._then
        if isinstance(order, AmendOrder):
            counters.amended += 1
            worker.amends.spend(now_ns)
        elif isinstance(order, CancelOrder):
            counters.cancelled += 1
            leaving = self._first
        else:
            counters.placed += 1
            worker.places.spend(now_ns)
        if self.kept(worker, order.label):
            self._post(worker, worker.shadow.send(order, now_ns))
        else:
            leaving.setdefault(worker.exchange, []).append((worker.symbol, order))

    def query(self, worker: Worker, query: QueryOrder | QueryState, now_ns: int) -> None:
        """Questions carry no risk and pass no gate."""
        if isinstance(query, QueryOrder) and self.kept(worker, query.label):
            self._post(worker, worker.shadow.look_up(query.label, now_ns))
        else:
            self._then.setdefault(worker.exchange, []).append((worker.symbol, query))

    def recall(self, worker: Worker, now_ns: int) -> None:
        """Its state is another: what it may not send any more has not left yet, and goes back to the machine."""
        leaving = self._then.get(worker.exchange, [])
        for entry in [entry for entry in leaving if entry[0] == worker.symbol]:
            order, state, allowed = entry[1], worker.machine.state, str(State.ACTIVE)
            if isinstance(order, PlaceOrder | AmendOrder) and state is not State.ACTIVE:
                leaving.remove(entry)
                count(worker.counters.refused, Rule.STATE)
                self._post(worker, GateRefused(order.label, order.side, Rule.STATE, str(state), allowed, "", now_ns))

    def withhold(self, now_ns: int) -> None:
        """What was decided could not be written: only cancels and questions may leave; the rest goes back."""
        for exchange, leaving in self._then.items():
            held = [entry for entry in leaving if isinstance(entry[1], PlaceOrder | AmendOrder | ReduceOrder)]
            self._then[exchange] = [entry for entry in leaving if entry not in held]
            for symbol, order in held:
                assert isinstance(order, PlaceOrder | AmendOrder | ReduceOrder)
                self._refuse(exchange, symbol, order, now_ns)

    def _refuse(self, exchange: str, symbol: str, order: PlaceOrder | AmendOrder | ReduceOrder, now_ns: int) -> None:
        for worker in self._workers():
            if (worker.exchange, worker.symbol) == (exchange, symbol):
                count(worker.counters.refused, Rule.JOURNAL)
                refusal = GateRefused(order.label, order.side, Rule.JOURNAL, "failing", "writable", "", now_ns)
                self._post(worker, refusal)

    @staticmethod
    def kept(worker: Worker, label: str) -> bool:
        """In shadow mode our own orders stay here; a stray of an earlier life is really out there."""
        if worker.broken:  # its machine knows of no stray: whatever was not imagined is out there
            return label in worker.shadow
        return worker.machine.mode is Mode.SHADOW and label not in worker.machine.own.strays

    def submit(self) -> None:
        """Hand everything over, cancels first; never waits."""
        if not self._first and not self._then:
            return
        first, then = self._first, self._then
        self._first, self._then = {}, {}
        for name, exchange in self._exchanges.items():
            requests = first.get(name, []) + then.get(name, [])
            if requests:
                exchange.submit(requests)
