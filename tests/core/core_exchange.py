"""A tiny exchange without clocks or sockets, and the pump between it and a symbol machine.

Requests and answers travel in order on one link, each as late as the test likes; both can be
lost. What the link loses the exchange still knows: fills are told again when it is asked.
"""

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
from core_kit import ASK, BID, NS, START_NS, book, settings

from mmd.core.budget import Budget
from mmd.core.gate import Refused, Room, review
from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.actions import (
    AckBounds,
    AmendOrder,
    CancelOrder,
    Decision,
    PlaceOrder,
    QueryOrder,
    QueryState,
    Request,
    SetTimer,
)
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault, Side, State
from mmd.domain.settings import SymbolSettings


@dataclass
class Order:
    """One order at the exchange."""

    label: str
    order_id: str
    side: Side
    price: int
    total: int
    filled: int = 0

    @property
    def remaining(self) -> int:
        return self.total - self.filled


@dataclass
class FakeExchange:
    """Books of its own: what rests, what filled, what the position is."""

    instrument: Instrument
    position: int = 0
    average: Fraction = Fraction(0)
    open: dict[str, Order] = field(default_factory=dict)
    done: dict[str, Order] = field(default_factory=dict)
    fills: list[ev.OrderFilled] = field(default_factory=list)
    next_refusal: Fault | None = None
    made: int = 0

    def on_side(self, side: Side) -> list[Order]:
        return [order for order in self.open.values() if order.side is side]

    def answer(self, request: Request) -> list[ev.Mail]:
        """Process one request and say what came of it."""
        match request:
            case PlaceOrder():
                return self._place(request)
            case AmendOrder():
                return self._amend(request)
            case CancelOrder(label=label):
                return self._end(label, "user_request") if label in self.open else [self._gone(label)]
            case QueryOrder(label=label):
                return self._look_up(label)
            case QueryState():
                return self.report()

    def _place(self, request: PlaceOrder) -> list[ev.Mail]:
        assert request.label not in self.open and request.label not in self.done, "a label was used twice"
        if self.next_refusal is not None:
            fault, self.next_refusal = self.next_refusal, None
            return [ev.OrderRefused(request.label, fault, "refused", "", False, 0)]
        self.made += 1
        order = Order(request.label, f"o{self.made}", request.side, request.price_ticks, request.size_lots)
        self.open[order.label] = order
        return [acked(order)]

    def _amend(self, request: AmendOrder) -> list[ev.Mail]:
        order = self.open.get(request.label)
        if order is None:
            return [self._gone(request.label)]
        if self.next_refusal is not None:
            fault, self.next_refusal = self.next_refusal, None
            return [ev.OrderRefused(request.label, fault, "refused", "", False, 0)]
        if request.total_lots <= order.filled:
            return self._end(request.label, "filled")
        order.price, order.total = request.price_ticks, request.total_lots
        return [acked(order)]

    @staticmethod
    def _gone(label: str) -> ev.OrderRefused:
        return ev.OrderRefused(label, Fault.ORDER, "not_open", "", True, 0)

    def _end(self, label: str, cause: str) -> list[ev.Mail]:
        order = self.open.pop(label)
        self.done[label] = order
        return [ev.OrderClosed(label, order.order_id, cause, order.filled, 0)]

    def _look_up(self, label: str) -> list[ev.Mail]:
        told: list[ev.Mail] = [fill for fill in self.fills if fill.label == label]
        if label in self.open:
            return [*told, acked(self.open[label])]
        return [*told, ev.OrderAbsent(label, 0)]

    def report(self) -> list[ev.Mail]:
        """The answer to QueryState: all fills, all open orders, the position."""
        orders = tuple(
            ev.OpenOrder(o.label, o.order_id, o.side, o.price, o.remaining, o.total) for o in self.open.values()
        )
        average = Decimal(self.average.numerator) / self.average.denominator
        return [*self.fills, ev.OrdersReported(orders, 0), ev.PositionReported(self.position, average, 0)]

    def fill(self, label: str, lots: int) -> list[ev.Mail]:
        """Somebody takes our order."""
        order = self.open[label]
        lots = min(lots, order.remaining)
        order.filled += lots
        price = self.instrument.grid.price(order.price)
        self._trade(lots if order.side is BID else -lots, Fraction(price))
        number = len(self.fills) + 1
        name, at_ns = f"t{number}", START_NS + number // 2  # two in a moment
        fill = ev.OrderFilled(
            label, order.order_id, name, order.side, price, lots, Decimal(0), "USDC", True, 100.0, at_ns, 0
        )
        self.fills.append(fill)
        return [fill] if order.remaining else [fill, *self._end(label, "filled")]

    def _trade(self, lots: int, price: Fraction) -> None:
        """The average entry moves with what opens, and stays with what closes."""
        before, after = self.position, self.position + lots
        self.position = after
        if not after:
            self.average = Fraction(0)
        elif before * after <= 0:
            self.average = price
        elif abs(after) > abs(before):
            if self.instrument.amount_is_usd:
                self.average = after / (before / self.average + lots / price)
            else:
                self.average = (before * self.average + lots * price) / after

    def expel(self, label: str) -> list[ev.Mail]:
        """The exchange cancels our order by itself."""
        return self._end(label, "maintenance")


def acked(order: Order) -> ev.OrderAcked:
    return ev.OrderAcked(order.label, order.order_id, order.price, order.remaining, order.total, 0)


class Rig:
    """Machine, gate and exchange on one clock; the pump is the shell's, without the shell."""

    def __init__(self, instrument: Instrument, given: SymbolSettings | None = None) -> None:
        self.instrument = instrument
        self.given = given or settings()
        self.now_ns = START_NS
        self.epochs = 0
        self.born_ns = START_NS
        self.machine = SymbolMachine(instrument, self.given, "ep0", START_NS)
        self.exchange = FakeExchange(instrument)
        self.budget = Budget(rate_per_second=5.0, burst=20.0, reserve=5.0)
        self.to_exchange: deque[Request] = deque()
        self.to_machine: deque[list[ev.Mail]] = deque()
        self.link_up = False
        self.timer_ns = 0
        self.wakeups = 0
        self.log: list[tuple[int, list[ev.Mail]]] = []
        self.answers: list[list[Decision]] = []
        # The bounds that the portfolio must still count with: old ones until the new are acknowledged.
        self.bounds: dict[int, tuple[int, int]] = {0: (0, 0)}
        self.acked_version = 0
        self.requests = 0

    # --- the pump ---

    def post(self, *events: ev.Mail) -> list[Decision]:
        """Hand a batch over and act on what comes back, until nothing is left to say."""
        mail = list(events)
        seen: list[Decision] = []
        while mail:
            actions = self.machine.handle(mail, self.now_ns)
            self.log.append((self.now_ns, mail))
            self.answers.append(actions)
            seen += actions
            mail = [event for action in actions for event in self._act(action)]
        self.check()
        return seen

    def _act(self, action: Decision) -> list[ev.Mail]:
        match action:
            case PlaceOrder() | AmendOrder():
                room = Room(self.budget.allows(self.now_ns), True)
                verdict = review(action, self.machine.exposure(action), room)
                if isinstance(verdict, Refused):
                    told = (verdict.rule, verdict.number, verdict.limit, verdict.key)
                    return [ev.GateRefused(action.label, action.side, *told, self.now_ns)]
                assert self.machine.state is State.ACTIVE, "an order left while not ACTIVE"
                return self._submit(action)
            case CancelOrder() | QueryOrder() | QueryState():
                return self._submit(action)
            case SetTimer(at_ns=at_ns):
                self.timer_ns = at_ns
            case AckBounds(version=version):
                self.acked_version = version
        return []

    def _submit(self, request: Request) -> list[ev.Mail]:
        if not self.link_up:
            match request:
                case PlaceOrder(label=label) | AmendOrder(label=label):
                    return [ev.OrderRefused(label, Fault.STATE, "link_down", "", False, self.now_ns)]
                case QueryOrder(label=label) | CancelOrder(label=label):
                    return [ev.RequestLost(label, "link down", self.now_ns)]
            return []
        self.budget.spend(self.now_ns)
        self.to_exchange.append(request)
        return []

    # --- the link ---

    def process(self) -> None:
        """The exchange takes the next request."""
        if self.to_exchange:
            self.to_machine.append(self.exchange.answer(self.to_exchange.popleft()))

    def deliver(self, count: int = 1) -> None:
        """The next messages arrive, as one batch."""
        batch = [event for _ in range(min(count, len(self.to_machine))) for event in self.to_machine.popleft()]
        if batch:
            self.post(*batch)

    def connect(self) -> None:
        self.link_up = True
        self.post(ev.TradeLinkUp(True, self.now_ns))
        self.to_exchange.append(QueryState())

    def tell(self, *messages: list[ev.Mail]) -> None:
        """What the exchange says by itself; nobody hears it while the link is down."""
        if self.link_up:
            self.to_machine.extend(messages)

    def disconnect(self) -> None:
        """What is under way on the link is lost; the exchange keeps what it has."""
        self.link_up = False
        self.to_exchange.clear()
        self.to_machine.clear()
        self.post(ev.TradeLinkDown("test", self.now_ns))

    def restart(self) -> None:
        """The daemon dies and comes back; the exchange keeps what it has."""
        self.replay()
        self.epochs += 1
        if self.link_up:
            self.disconnect()
        self.machine = SymbolMachine(self.instrument, self.given, f"ep{self.epochs}", self.now_ns)
        self.born_ns, self.timer_ns, self.log, self.answers = self.now_ns, 0, [], []
        self.post(ev.DataLinkUp(self.now_ns))
        self.set_bounds(*self.bounds[max(self.bounds)])
        self.connect()

    # --- the operator ---

    def ask(self, kind: Any, **more: Any) -> list[Decision]:
        self.requests += 1
        return self.post(kind(request_id=self.requests, by="root", reason="test", received_ns=self.now_ns, **more))

    def set_bounds(self, low: int, high: int) -> None:
        version = max(self.bounds) + 1
        self.bounds[version] = (low, high)
        self.post(ev.BoundsSet(version, low, high, self.now_ns))

    # --- time ---

    def wait(self, seconds: float) -> None:
        """Let time pass; timers fire when they are due."""
        end_ns, woken = self.now_ns + int(seconds * NS), 0
        while self.timer_ns and self.timer_ns <= end_ns:
            self.now_ns, self.timer_ns = max(self.now_ns, self.timer_ns), 0
            woken += 1
            assert woken <= 50 + 50 * seconds, "the machine keeps itself awake"
            self.post(ev.TimerFired(self.now_ns))
        self.now_ns = end_ns

    def settle(self) -> None:
        """A responsive exchange and fifteen quiet seconds."""
        for _ in range(60):
            while self.to_exchange or self.to_machine:
                self.process()
                self.deliver(len(self.to_machine))
            self.wait(0.25)

    def start(self, bid: int = 990, ask: int = 1010) -> None:
        """Connected, reconciled, bounds of 100 lots, ACTIVE on a book."""
        self.post(ev.DataLinkUp(self.now_ns))
        self.connect()
        self.process()
        self.deliver(10)
        self.set_bounds(-100, 100)
        self.post(book(bid, ask, self.now_ns))
        self.ask(ev.ResumeRequested)
        assert self.machine.state is State.ACTIVE

    # --- the oracle: it looks only at the exchange's own books ---

    def check(self) -> None:
        exchange = self.exchange
        live = [(low, high) for version, (low, high) in self.bounds.items() if version >= self.acked_version]
        low, high = min(pair[0] for pair in live), max(pair[1] for pair in live)
        limit = int(self.given.limits.max_position / self.instrument.lot)
        low, high = max(low, -limit), min(high, limit)
        for side in (BID, ASK):
            orders = exchange.on_side(side)
            assert len(orders) <= 1, f"two orders of ours on the {side} side"
            lots = sum(order.remaining for order in orders)
            if not lots:
                continue
            worst = exchange.position + (lots if side is BID else -lots)
            inside = worst <= high if side is BID else worst >= low
            assert inside, f"{side}: worst case {worst} outside {low}..{high}"
            known = self.machine.position.lots + (1 if side is BID else -1) * self.machine.own.worst(side)
            if self.machine.orders_seen and self.machine.position.known:
                short = worst - known if side is BID else known - worst
                assert short <= 0, f"{side}: accounted for {known}, {worst} is possible"
        for order in exchange.open.values():
            known_label = self.machine.own.find(order.label) is not None
            assert known_label or not self.machine.orders_seen, f"{order.label} rests and the machine forgot it"

    # --- replay ---

    def replay(self) -> None:
        """The log through JSON into a fresh machine: equal actions, equal end."""
        fresh = SymbolMachine(self.instrument, self.given, f"ep{self.epochs}", self.born_ns)
        for (now_ns, batch), expected in zip(self.log, self.answers, strict=True):
            events = msgspec.json.decode(msgspec.json.encode(batch), type=list[ev.Mail])
            assert events == batch
            actions = fresh.handle(events, now_ns)
            assert actions == expected
            assert msgspec.json.decode(msgspec.json.encode(actions), type=list[Decision]) == actions
        assert fresh.snapshot() == self.machine.snapshot()
