"""Between the shell and the sandbox's engine: a session without sockets, and the weather on its way.

Requests travel in two lanes of a link (orders, questions), what is said in two channels (answers; own
news of orders and fills). Each is in order, none waits for another. A step of the test moves one
message, loses it, or repeats it. What the exchange promises: a place or an amend has its effect within
LATENCY_NS or never; what it tells of its books was true at one moment, and a session takes what it
hears later than LATENCY_NS for no answer to its question.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import trio
from weather_market import ACCOUNT, EXCHANGE, INSTRUMENTS, LATENCY_NS, SYMBOLS
from weather_words import acked, closed, direction_of, filled, open_order, said, short, shown, stamped

from mmd.core.budget import Budget
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, QueryOrder, QueryState, ReduceOrder, Request
from mmd.domain.errors import LinkLost
from mmd.domain.reasons import Fault
from mmd.domain.settings import Protection
from mmd.exchanges.api import Capabilities, LinkStats, ProtectionStatus
from mmd.sandbox.engine import Engine
from mmd.sandbox.notices import AccountChanged, TopChanged
from mmd.sandbox.orders import NewOrder, Order, OrderChange, OrderState, Refuse, Refused, TimeInForce, UserTrade

GONE = {Refuse.ALREADY_FILLED, Refuse.ALREADY_CLOSED, Refuse.ORDER_NOT_FOUND, Refuse.NOT_OPEN}
FAULTS = {
    Refuse.POST_ONLY_REJECT: Fault.ORDER,
    Refuse.ORDER_OVERLAP: Fault.ORDER,
    Refuse.INVALID_AMOUNT: Fault.ORDER,
    Refuse.OTHER_REJECT: Fault.ORDER,
    Refuse.LOCKED: Fault.MARKET,
    Refuse.BOOK_CLOSED: Fault.MARKET,
    Refuse.TIMED_OUT: Fault.INFO,
    **dict.fromkeys(GONE, Fault.STATE),
}
SETTLE_NS = LATENCY_NS + 50_000_000
FIND_TRIES, FIND_PAUSE_NS = 4, 250_000_000
QUIET_TRIES = 3


class Done(StrEnum):
    """What became of a request that was answered with an error."""

    NEVER = "never"
    NOW = "now"
    LATER = "later"


Steps = Generator["Question | Pause", Any, None]


@dataclass
class Sent:
    """An order request under way. `mute`: it was answered already, as of unknown outcome."""

    symbol: str
    order: Any
    sent_ns: int
    mute: bool = False

    @property
    def valid_ms(self) -> int:
        return (self.sent_ns + LATENCY_NS) // 1_000_000


@dataclass
class Inquiry:
    """Questions that follow from one another."""

    name: str
    steps: Steps


@dataclass
class Question:
    """`look` is what the exchange finds in its books when the question arrives."""

    what: str
    look: Callable[[], Any]


@dataclass
class Pause:
    until_ns: int


@dataclass
class Asked:
    inquiry: Inquiry
    question: Question


@dataclass
class Link:
    """One connection. Its lanes go on for a while after we have lost it: the exchange may not know yet."""

    number: int
    armed: bool
    orders: deque[Sent] = field(default_factory=deque)
    questions: deque[Asked] = field(default_factory=deque)


@dataclass
class Answer:
    """To an order request."""

    symbol: str
    label: str
    events: list[ev.Mail]

    @property
    def about(self) -> str:
        return f"the answer about {short(self.label)}"


@dataclass
class Found:
    """The answer to a question. `result` is an exception where it came to nothing."""

    asked: Asked
    result: Any
    look_ns: int

    @property
    def about(self) -> str:
        return self.asked.question.what


@dataclass
class News:
    """Own fills and closings, as the exchange tells them by itself. `first`: the closings before the fills."""

    symbol: str
    trades: list[tuple[int, UserTrade]]
    closed: list[Order]
    first: bool = False


class Wire:
    """Implements Exchange for the shell; everything that travels is moved by the test."""

    name = EXCHANGE
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
    dirty = False

    def __init__(self, engine: Engine, now_ns: Callable[[], int], tell: Callable[[str], None], remembers: bool) -> None:
        self.engine = engine
        self.now_ns = now_ns
        self.tell = tell
        self.remembers = remembers
        self.budget = Budget(10_000.0, 10_000.0, 10.0)
        self.stats = {"data": LinkStats(), "trade": LinkStats()}
        self.instruments = dict(INSTRUMENTS)
        self.protections: list[ProtectionStatus] = []
        self.sink: Any = None
        self.leaving: Callable[[str, Request], None] = lambda symbol, request: None
        self.changed: Callable[[], None] = lambda: None
        # the way there
        self.link: Link | None = None
        self.lost_links: list[Link] = []
        self.links = 0
        self.refusals: deque[tuple[Fault, Done]] = deque()  # for the next requests
        # the way back
        self.answers: deque[Answer | Found] = deque()
        self.news: deque[News] = deque()
        self.closing_first = False
        # what a session remembers
        self.watched: list[str] = []
        self.up: set[str] = set()
        self.baseline: dict[str, int] = {}
        self.closed: dict[str, ev.OrderClosed] = {}
        self.flying: dict[str, str] = {}  # label -> symbol of requests without an answer
        self.activity = dict.fromkeys(SYMBOLS, 0)
        self.fills = dict.fromkeys(SYMBOLS, 0)
        self.lost_ns: int | None = None
        self.pauses: list[tuple[int, Inquiry]] = []
        self.inquiries: list[Inquiry] = []
        # what the exchange has done
        self.trades: dict[str, list[tuple[int, UserTrade]]] = {symbol: [] for symbol in SYMBOLS}
        self.tops: set[str] = set()
        self.labels: set[str] = set()
        self.told: dict[str, set[str]] = {symbol: set() for symbol in SYMBOLS}  # trade ids posted in this life
        self._trade_count = 0

    # --- Exchange --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.link is not None

    def watch(self, symbols: Sequence[str]) -> None:
        self.watched = list(symbols)
        for symbol in SYMBOLS:
            if symbol not in self.watched:
                self.baseline.pop(symbol, None)
                self.up.discard(symbol)
                self.told[symbol].clear()
        due = [symbol for symbol in self.watched if symbol not in self.up]
        if due and self.link is not None:
            self.begin("reconcile", self.reconcile(due))

    def known_until(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int] | None = None) -> None:
        assert not known_ms

    def reconcile_every(self, seconds: float) -> None:
        raise AssertionError("the weather decides when reports come")

    def protect(self, wanted: Sequence[Protection]) -> None:
        assert not wanted

    async def positions(self, symbols: Sequence[str]) -> dict[str, int]:
        assert not symbols
        await trio.lowlevel.checkpoint()
        return {}

    async def reset_protection(self, underlying: str) -> None:
        raise LinkLost(f"no protection on {underlying}")

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    async def open_orders(self) -> dict[str, list[ev.OpenOrder]]:
        """Asked over the same wires as everything else."""
        done = trio.Event()
        got: list[dict[str, list[ev.OpenOrder]]] = []

        def steps() -> Steps:
            try:
                rows = yield Question("all open orders", self.look_open)
                got.append({symbol: list(orders) for symbol, orders in rows.items()})
            except LinkLost:
                pass
            finally:
                done.set()

        if self.link is None:
            raise LinkLost("the link is down")
        self.begin("prove", steps())
        await done.wait()
        if not got:
            raise LinkLost("no answer")
        return got[0]

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        for symbol, request in requests:
            self.leaving(symbol, request)
            if self.link is None:
                self._turn_back(symbol, request)
            elif isinstance(request, QueryOrder):
                self.begin("query", self.ask_order(symbol, request.label))
            elif isinstance(request, QueryState):
                self.begin("state", self.ask_state(symbol))
            else:
                self.link.orders.append(Sent(symbol, request, self.now_ns()))
                self.flying[request.label] = symbol

    def _turn_back(self, symbol: str, request: Request) -> None:
        now_ns = self.now_ns()
        match request:
            case QueryState():
                return
            case QueryOrder() | CancelOrder():
                self.sink.post(symbol, ev.RequestLost(request.label, "link down", now_ns))
            case _:
                self.sink.post(symbol, ev.OrderRefused(request.label, Fault.STATE, "link_down", "", False, now_ns))

    # --- links -----------------------------------------------------------------------------------

    def connect(self, armed: bool) -> None:
        if self.link is not None:
            return
        self.links += 1
        self.link = Link(self.links, armed)
        self.tell(f"link {self.links} is up, cancel on disconnect {'armed' if armed else 'not armed'}")
        if self.watched:
            self.begin("reconcile", self.reconcile(list(self.watched)))

    def disconnect(self, why: str) -> None:
        """For us it is over; what is under way may still arrive, nothing comes back."""
        link = self.link
        if link is None:
            return
        self.tell(f"link {link.number} is lost: {why}")
        self.link = None
        self.lost_links.append(link)
        self.lost_ns = self.now_ns()
        was_up = bool(self.up)
        self.up.clear()
        self.answers.clear()
        self.news.clear()
        self.pauses.clear()
        for label, symbol in self.flying.items():
            self.sink.post(symbol, ev.RequestLost(label, why, self.now_ns()))
        self.flying.clear()
        for inquiry in list(self.inquiries):
            self.fail(inquiry)
        if was_up:
            self.sink.post_all(ev.TradeLinkDown(why, self.now_ns()))

    def notice_loss(self) -> None:
        """The exchange learns that the oldest lost link is dead: what is in it is gone, its orders too if armed."""
        if not self.lost_links:
            return
        link = self.lost_links.pop(0)
        self.tell(f"exchange: link {link.number} is dead, {len(link.orders)} requests in it are gone")
        link.orders.clear()
        if link.armed:
            self.engine.cancel_link(link.number, self.now_ms)
        self.publish()

    @property
    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    # --- orders arrive ---------------------------------------------------------------------------

    def lanes(self) -> list[Link]:
        return [*self.lost_links, *([self.link] if self.link is not None else [])]

    def arrive_order(self, which: int = 0) -> bool:
        """The exchange takes the next order request of one of the links; False if there is none."""
        links = [link for link in self.lanes() if link.orders]
        if not links:
            return False
        link = links[which % len(links)]
        sent = link.orders.popleft()
        mute = sent.mute
        events = self._try(sent, link) if mute else self._carry_out(sent, link)
        self.publish()
        if link is self.link and not mute:
            self.answers.append(Answer(sent.symbol, sent.order.label, events))
        return True

    def _carry_out(self, sent: Sent, link: Link) -> list[ev.Mail]:
        order = sent.order
        if self.refusals:
            code, done = self.refusals.popleft()
            self.tell(f"exchange: {shown(order)}: answered {code}, carried out {done}")
            if done is Done.NOW:
                self._try(sent, link)
            elif done is Done.LATER:
                sent.mute = True
                link.orders.append(sent)
            if code == Fault.AMBIGUOUS:
                return [ev.RequestLost(order.label, "ambiguous", 0)]
            return [ev.OrderRefused(order.label, Fault(code), f"drawn_{code}", "", False, 0)]
        return self._try(sent, link)

    def _try(self, sent: Sent, link: Link) -> list[ev.Mail]:
        order = sent.order
        try:
            found = self._do(sent, link)
        except Refused as refused:
            assert refused.why in FAULTS, f"the daemon sent what no exchange takes: {shown(order)}: {refused}"
            gone = refused.why in GONE and not isinstance(order, PlaceOrder | ReduceOrder)
            self.tell(f"exchange: {shown(order)}: refused, {refused}")
            return [ev.OrderRefused(order.label, FAULTS[refused.why], refused.why, "", gone, 0)]
        self.tell(f"exchange: {shown(order)}: {', '.join(map(said, found)) or 'done'}")
        return found

    def _do(self, sent: Sent, link: Link) -> list[ev.Mail]:
        order, symbol, engine, now_ms = sent.order, sent.symbol, self.engine, self.now_ms
        ours = INSTRUMENTS[symbol]
        if isinstance(order, PlaceOrder):
            assert order.label not in self.labels, f"label {order.label} was used before"
            self.labels.add(order.label)
            new = NewOrder(
                account=ACCOUNT,
                instrument_name=symbol,
                direction=direction_of(order.side),
                amount=ours.amount(order.size_lots),
                price=ours.grid.price(order.price_ticks),
                label=order.label,
                post_only=True,
                reject_post_only=True,
                valid_until=sent.valid_ms,
                link=link.number,
            )
            return [acked(engine.place(new, now_ms).order)]
        if isinstance(order, ReduceOrder):
            self.labels.add(order.label)
            new = NewOrder(
                account=ACCOUNT,
                instrument_name=symbol,
                direction=direction_of(order.side),
                amount=ours.amount(order.size_lots),
                price=ours.grid.price(order.price_ticks),
                label=order.label,
                time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL,
                reduce_only=True,
                valid_until=sent.valid_ms,
                link=link.number,
            )
            placed = engine.place(new, now_ms)
            self.publish()
            fills: list[ev.Mail] = [filled(trade) for _, trade in self.trades[symbol] if trade.label == order.label]
            return [*fills, closed(placed.order)]
        order_id = order.order_id or self._id_of(order.label)
        if isinstance(order, AmendOrder):
            change = OrderChange(
                amount=ours.amount(order.total_lots),
                price=ours.grid.price(order.price_ticks),
                valid_until=sent.valid_ms,
            )
            after = engine.edit(ACCOUNT, order_id, change, now_ms).order
            return [acked(after) if after.state is OrderState.OPEN else closed(after)]
        return [closed(engine.cancel(ACCOUNT, order_id, now_ms))]

    def _id_of(self, label: str) -> str:
        for order in self.open_here():
            if order.label == label:
                return order.order_id
        raise Refused(Refuse.ORDER_NOT_FOUND)

    def open_here(self, symbol: str = "") -> list[Order]:
        """Our open orders as the exchange has them."""
        account = self.engine.floor.account(ACCOUNT, self.now_ms)
        return [one for one in account.open_orders.values() if symbol in ("", one.instrument_name)]

    # --- what the exchange tells by itself -------------------------------------------------------

    def publish(self) -> None:
        """After every operation of the engine: news for us, tops for the market data."""
        for notice in self.engine.drain():
            if isinstance(notice, TopChanged):
                self.tops.add(notice.instrument_name)
            elif isinstance(notice, AccountChanged) and notice.account == ACCOUNT:
                trades = []
                for trade in notice.trades:
                    self._trade_count += 1
                    trades.append((self._trade_count, trade))
                    self.tell(f"exchange: {said(filled(trade))}")
                self.trades[notice.instrument_name] += trades
                over = [one for one in notice.orders if one.state in (OrderState.FILLED, OrderState.CANCELLED)]
                if self.link is not None and (trades or over):
                    self.news.append(News(notice.instrument_name, trades, over, self.closing_first))
        self.changed()

    # --- hearing ---------------------------------------------------------------------------------

    def hear_answer(self) -> bool:
        if not self.answers:
            return False
        answer = self.answers.popleft()
        if isinstance(answer, Found):
            self._hear_found(answer)
            return True
        self.flying.pop(answer.label, None)
        self.activity[answer.symbol] += 1
        self.tell(f"heard: {', '.join(map(said, answer.events))}")
        for event in answer.events:
            self._post(answer.symbol, event)
        return True

    def hear_news(self) -> bool:
        if not self.news:
            return False
        news = self.news.popleft()
        self.activity[news.symbol] += 1
        closings: list[ev.Mail] = [closed(order) for order in news.closed]
        trades = [(number, filled(trade)) for number, trade in news.trades]
        self.tell(f"heard news: {', '.join(map(said, [*(event for _, event in trades), *closings]))}")
        if news.first:
            for event in closings:
                self._post(news.symbol, event)
        for number, event in trades:
            self._take_trade(news.symbol, number, event)
        if not news.first:
            for event in closings:
                self._post(news.symbol, event)
        return True

    def _hear_found(self, found: Found) -> None:
        inquiry = found.asked.inquiry
        if isinstance(found.result, Exception) or self.now_ns() - found.look_ns >= LATENCY_NS:
            self.tell(f"{inquiry.name}: {found.asked.question.what}: no answer in time")
            self.fail(inquiry)
        else:
            self.tell(f"heard {inquiry.name}: {found.asked.question.what}")
            self._advance(inquiry, found.result)

    def _post(self, symbol: str, event: ev.Mail) -> None:
        if isinstance(event, ev.OrderFilled):
            number = next(number for number, trade in self.trades[symbol] if trade.trade_id == event.trade_id)
            self._take_trade(symbol, number, event)
            return
        if isinstance(event, ev.OrderClosed):
            self.closed[event.label] = event
        self.sink.post(symbol, stamped(event, self.now_ns()))

    def _take_trade(self, symbol: str, number: int, event: ev.OrderFilled) -> None:
        """The machine drops what it has seen; what the first report of the position counted is not told."""
        if number <= self.baseline.get(symbol, 0):
            return
        self.activity[symbol] += 1
        self.fills[symbol] += 1
        if symbol in self.watched:
            self.told[symbol].add(event.trade_id)
        self.sink.post(symbol, stamped(event, self.now_ns()))

    # --- questions -------------------------------------------------------------------------------

    def begin(self, name: str, steps: Steps) -> None:
        inquiry = Inquiry(name, steps)
        self.inquiries.append(inquiry)
        self._advance(inquiry, None)

    def _advance(self, inquiry: Inquiry, value: Any) -> None:
        try:
            ask = inquiry.steps.send(value)
        except StopIteration:
            self.inquiries.remove(inquiry)
            return
        if isinstance(ask, Pause):
            self.pauses.append((ask.until_ns, inquiry))
        elif self.link is None:
            self.fail(inquiry)
        else:
            self.link.questions.append(Asked(inquiry, ask))

    def fail(self, inquiry: Inquiry) -> None:
        if inquiry not in self.inquiries:
            return
        self.inquiries.remove(inquiry)
        try:
            inquiry.steps.throw(LinkLost(f"{inquiry.name}: no answer"))
        except (StopIteration, LinkLost):
            pass
        if inquiry.name == "reconcile":
            self.disconnect("it could not be reconciled")

    def wake(self) -> None:
        """Inquiries whose pause is over go on."""
        due = [inquiry for until_ns, inquiry in self.pauses if until_ns <= self.now_ns()]
        self.pauses = [entry for entry in self.pauses if entry[0] > self.now_ns()]
        for inquiry in due:
            self._advance(inquiry, None)

    def arrive_question(self) -> bool:
        if self.link is None or not self.link.questions:
            return False
        asked = self.link.questions.popleft()
        self.answers.append(Found(asked, asked.question.look(), self.now_ns()))
        return True

    def look_open(self) -> dict[str, list[ev.OpenOrder]]:
        found: dict[str, list[ev.OpenOrder]] = {}
        for order in self.open_here():
            found.setdefault(order.instrument_name, []).append(open_order(order))
        return found

    def reconcile(self, symbols: list[str]) -> Steps:
        """What a login asks, and a symbol that comes into service."""
        for symbol in symbols:
            yield from self.catch_up(symbol)
        yield from self._report_orders(symbols)
        if self.lost_ns is not None:
            yield Pause(self.lost_ns + SETTLE_NS)
            yield from self._report_orders(symbols)
            self.lost_ns = None
        yield from self._positions(symbols)
        armed = self.link is not None and self.link.armed
        for symbol in symbols:
            if symbol in self.watched and symbol not in self.up:
                self.up.add(symbol)
                self.sink.post(symbol, ev.TradeLinkUp(armed, self.now_ns()))

    def ask_state(self, symbol: str) -> Steps:
        yield from self.catch_up(symbol)
        for attempt in range(1, QUIET_TRIES + 1):
            before = self.activity[symbol]
            rows = yield Question(f"open orders of {symbol}", self.look_open)
            if self.activity[symbol] == before or attempt == QUIET_TRIES:
                self._post(symbol, ev.OrdersReported(tuple(rows.get(symbol, ())), 0))
                break
        yield from self._positions([symbol])

    def catch_up(self, symbol: str) -> Steps:
        if symbol not in self.baseline:
            return
        rows = yield Question(f"fills of {symbol}", lambda: list(self.trades[symbol]))
        for number, trade in rows:
            self._take_trade(symbol, number, filled(trade))

    def _report_orders(self, symbols: list[str]) -> Steps:
        rows = yield Question("all open orders", self.look_open)
        for symbol in symbols:
            self._post(symbol, ev.OrdersReported(tuple(rows.get(symbol, ())), 0))

    def _positions(self, symbols: list[str]) -> Steps:
        left = list(symbols)
        while left:
            before = {symbol: self.fills[symbol] for symbol in left}
            rows = yield Question(f"positions of {', '.join(left)}", self._look_positions)
            for symbol in list(left):
                if self.fills[symbol] != before[symbol]:
                    continue  # a fill came between: ask again
                lots, average, number = rows[symbol]
                self.tell(f"position of {symbol} reported: {lots} lots")
                self.sink.post(symbol, ev.PositionReported(lots, average, self.now_ns()))
                left.remove(symbol)
                if symbol in self.watched and symbol not in self.baseline:
                    self.baseline[symbol] = number

    def _look_positions(self) -> dict[str, tuple[int, Decimal, int]]:
        positions = self.engine.floor.account(ACCOUNT, self.now_ms).positions
        found = {}
        for symbol in SYMBOLS:
            held = positions.get(symbol)
            lots = int(held.size / INSTRUMENTS[symbol].lot) if held is not None else 0
            average = held.average_price if held is not None else Decimal(0)
            last = self.trades[symbol][-1][0] if self.trades[symbol] else 0
            found[symbol] = (lots, average, last)
        return found

    def ask_order(self, symbol: str, label: str) -> Steps:
        """Fills first, then what the order is now."""
        try:
            for _ in range(FIND_TRIES):
                rows = yield Question(f"fills for {label}", lambda: list(self.trades[symbol]))
                for number, trade in rows:
                    self._take_trade(symbol, number, filled(trade))
                listed = sum(int(trade.amount / INSTRUMENTS[symbol].lot) for _, trade in rows if trade.label == label)
                state = yield Question(f"state of {label}", lambda: self._look_order(label))
                if state is None:
                    event = self.closed.get(label) or ev.OrderAbsent(label, 0)
                    self.tell(f"  it is {said(event)}")
                    self._post(symbol, event)
                    return
                if isinstance(state, ev.OrderAcked):
                    ahead = state.total_lots - state.remaining_lots > listed
                else:
                    ahead = state.filled_lots > listed
                if not ahead:
                    self.tell(f"  it is {said(state)}")
                    self._post(symbol, self.closed.get(label) or state)
                    return
                yield Pause(self.now_ns() + FIND_PAUSE_NS)
            raise LinkLost("its trades are not listed")
        except LinkLost as lost:
            self.sink.post(symbol, ev.RequestLost(label, str(lost), self.now_ns()))

    def _look_order(self, label: str) -> ev.OrderAcked | ev.OrderClosed | None:
        for order in self.open_here():
            if order.label == label:
                return acked(order)
        for order in self.engine.floor.account(ACCOUNT, self.now_ms).closed_orders.values():
            if order.label == label and (self.remembers or order.filled):
                return closed(order)
        return None
