"""The way out: every order passes the gate and the message budget here, cancels leave first, one write per link."""

from collections.abc import Callable

from mmd.core.gate import review
from mmd.domain.actions import AmendOrder, Approved, Order, PlaceOrder, QueryOrder, QueryState, Request
from mmd.domain.events import GateRefused, Mail
from mmd.domain.reasons import Mode
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
        open_orders: Callable[[], int] = lambda: 1,
    ) -> None:
        """`open_orders`: how many orders of all symbols are or may be out, the one in question included."""
        self._open_orders = open_orders
        self.max_open_orders = 1  # until the totals say otherwise
        self._exchanges = exchanges
        self._post = post
        self._first: dict[str, list[tuple[str, Request]]] = {}
        self._then: dict[str, list[tuple[str, Request]]] = {}

    def order(self, worker: Worker, order: Order, now_ns: int) -> None:
        """Through the gate; a refusal goes back to the machine as an event."""
        budget = self._exchanges[worker.exchange].budget
        if isinstance(order, AmendOrder):  # by far the most, so it is asked for first
            exposure = worker.machine.exposure(order, budget.allows(now_ns))
            verdict = review(order, exposure)
        elif isinstance(order, PlaceOrder):
            others = self._open_orders() - 1
            exposure = worker.machine.exposure(order, budget.allows(now_ns), others, self.max_open_orders)
            verdict = review(order, exposure)
        else:
            verdict = review(order, None)
        if not isinstance(verdict, Approved):
            count(worker.counters.refused, verdict.rule)
            refusal = GateRefused(order.label, order.side, verdict.rule, verdict.number, verdict.limit, now_ns)
            self._post(worker, refusal)
            return
        budget.spend(now_ns)
        self._approved(worker, verdict, now_ns)

    def _approved(self, worker: Worker, approved: Approved, now_ns: int) -> None:
        order = approved.order
        if log.debugs:
            kind = type(order).__name__
            log.debug("order.sent", symbol=worker.symbol, exchange=worker.exchange, request=kind, label=order.label)
        counters = worker.counters
        leaving = self._then
        if isinstance(order, AmendOrder):
            counters.amended += 1
        elif isinstance(order, PlaceOrder):
            counters.placed += 1
        else:
            counters.cancelled += 1
            leaving = self._first
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

    @staticmethod
    def kept(worker: Worker, label: str) -> bool:
        """In shadow mode our own orders stay here; a stray of an earlier life is really out there."""
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
