"""What is known of our orders and fills on the trade link: in flight, unanswered, closed, and what happened when."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from mmd.domain.actions import CancelOrder, Order
from mmd.domain.errors import ExchangeMalformed, MmdError
from mmd.domain.events import Mail, OrderAcked, OrderClosed, OrderFilled, OrderRefused
from mmd.domain.ids import label_prefix
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault
from mmd.exchanges.api import LinkStats
from mmd.exchanges.connection import House
from mmd.exchanges.jsonrpc import RpcError
from mmd.exchanges.known import Known
from mmd.exchanges.news import News
from mmd.exchanges.rows import OrderRow, TradeRow, Unread

MAX_CLOSED = 2000
PAST_MS = 60_000


class InDoubt(MmdError):
    """What the request is about is not known well enough: it is not sent, and the order is looked up."""


class Told(msgspec.Struct, frozen=True):
    """A message about our orders and fills. `moved`: it says that positions are others now.

    `changed`: symbols with orders that changed, about which there is nothing to tell.
    """

    trades: Sequence[TradeRow] = ()
    orders: Sequence[OrderRow] = ()
    unread: Sequence[Unread] = ()
    moved: bool = False
    changed: Sequence[str] = ()


class Orders(Protocol):
    """How an exchange takes orders and tells of them. Pure; implemented by each exchange.

    `channels`: on which it tells; all of one group, of the first group that is granted.
    """

    channels: Sequence[Sequence[str]]

    def request(self, instrument: Instrument, order: Order, until_ms: int | None, *, mmp: bool) -> tuple[str, object]:
        """Method and params. `until_ms`: not to be carried out later, by the exchange's clock. `mmp`: for maker
        protection to pull; for an amend, what the order was placed with.

        Raises LinkLost where it cannot be sent now, InDoubt where it must not be.
        """

    def cancel(self, row: OrderRow) -> tuple[str, object]:
        """Method and params that cancel what was listed, also on a symbol that is not."""

    def reply(self, order: Order, raw: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[Mail] | None:
        """The answer to an order's request: fills first, then what the order is now. Raises ExchangeMalformed.

        None: a cancel's answer that does not say what became of the order, which is looked up. `order` is the
        very object that `request` was called with.
        """

    def refused(self, order: Order, error: RpcError, received_ns: int, remark: str) -> list[Mail]:
        """The error that a request was answered with. `remark`: for people."""

    def lost(self, order: Order) -> None:
        """No answer will come in time, or at all: it may come late, and the request may have had its effect."""

    def told(self, channel: str, data: msgspec.Raw, received_ns: int) -> Told:
        """A message of `channels`; nothing where it is of another one. Raises ExchangeMalformed."""


def not_cancelled(order: CancelOrder, received_ns: int) -> OrderRefused:
    """The cancel was answered, and the order still rests."""
    return OrderRefused(order.label, Fault.STATE, "not_cancelled", "the order is still open", False, received_ns)


class OrderSent(msgspec.Struct, frozen=True):
    """Context of an order request in flight. `until_ms`: later the exchange does not carry it out; 0: no such time."""

    symbol: str
    order: Order
    until_ms: int = 0


class OrderRecord:
    """One per exchange; survives connections. `closing`: hears of every closing before it is posted."""

    def __init__(
        self, house: House, stats: LinkStats, known: Known, closing: Callable[[str, OrderClosed], None]
    ) -> None:
        self.activity = News()  # of all that changes a symbol's orders
        self.fills = News()
        self._house = house
        self._stats = stats
        self._known = known
        self._closing = closing
        self._prefixes: tuple[str, ...] = (label_prefix(house.service),)
        self._flying: dict[str, int] = {}  # requests in flight by label
        self._closed: dict[str, OrderClosed] = {}  # what closed lately, by label
        self._sent: dict[str, int] = {}  # labels that were placed here, and how long the last request is valid
        self._unanswered: dict[str, OrderSent] = {}  # the last place or amend of a label, until it is answered

    # --- what is known ---

    def answer_for(self, services: Sequence[str]) -> None:
        """Orders with these services' labels are ours as well; replaces what was said before."""
        self._prefixes = tuple(label_prefix(name) for name in (self._house.service, *services))

    def is_ours(self, label: str) -> bool:
        return label.startswith(self._prefixes)

    def was_sent(self, label: str) -> bool:
        """An order with this label was placed here."""
        return label in self._sent

    def is_flying(self, label: str) -> bool:
        """An order request on this label has no answer yet."""
        return label in self._flying

    def was_closed(self, label: str, order_id: str = "") -> OrderClosed | None:
        """The closing of this order, if it was seen; with an id not that of another order with the label."""
        event = self._closed.get(label)
        return event if event is None or order_id in ("", event.order_id) else None

    def may_come_until_ms(self, label: str) -> int:
        """Until when (the exchange's clock) a request about this order may yet be carried out; 0: nobody can say.

        An earlier process sent its last one before this process began.
        """
        valid_ms, house = self._house.order_valid_ms, self._house
        if valid_ms is None:
            return 0
        return self._sent.get(label) or round(house.started_ns / 1_000_000 + house.clock.skew_ms) + valid_ms

    def unsettled_until_ms(self, symbol: str) -> int:
        """Until when (the exchange's clock) an order of this symbol may appear or change unannounced; 0: none may."""
        return max((sent.until_ms for sent in self._unanswered.values() if sent.symbol == symbol), default=0)

    def keep(self, symbols: Sequence[str]) -> None:
        """These are watched now."""
        self.activity.keep(symbols)
        self.fills.keep(symbols)

    # --- requests ---

    def sent(self, sent: OrderSent, now_ms: int) -> None:
        """A request left. `now_ms` by the exchange's clock."""
        label = sent.order.label
        if not isinstance(sent.order, CancelOrder):
            self._sent[label] = sent.until_ms
            forget_oldest(self._sent)
            if sent.until_ms:
                self._unanswered.pop(label, None)
                self._unanswered[label] = sent
                self._settle(now_ms)
        self._flying[label] = self._flying.get(label, 0) + 1

    def _settle(self, now_ms: int) -> None:
        """Forget unanswered requests that nobody carries out any more."""
        while self._unanswered:
            label, oldest = next(iter(self._unanswered.items()))
            if oldest.until_ms >= now_ms - PAST_MS:
                return
            del self._unanswered[label]

    def landed(self, label: str) -> None:
        """A request on it was answered, or given up."""
        self._flying[label] = self._flying.get(label, 0) - 1
        if self._flying[label] <= 0:
            del self._flying[label]

    def answered(self, sent: OrderSent) -> None:
        """Its answer came, in time or late."""
        if self._unanswered.get(sent.order.label) is sent:
            del self._unanswered[sent.order.label]

    def grounded(self) -> None:
        """The connection is gone."""
        self._flying.clear()

    # --- orders and fills in ---

    def take_trade(self, row: TradeRow) -> None:
        """Post one execution; the machine drops what it has seen. Raises ExchangeMalformed."""
        if row.symbol not in self._house.instruments:
            return  # spot, or the aggregate row of a combo: its legs come as rows of their own
        if not self.is_ours(row.label):
            self._stats.unknown_labels += 1
        if self._known.is_in_baseline(row.symbol, row.at_ms):
            return
        self.activity.count(row.symbol)
        self.fills.count(row.symbol)
        if isinstance(row.event, Unread):
            raise ExchangeMalformed(row.event.detail)
        self._house.sink.post(row.symbol, row.event)

    def take_order(self, row: OrderRow) -> bool:
        """An order's news: only closings matter, and not before the answer that they overtook.

        True if it rests and nobody placed it here: somebody else uses our name. Raises ExchangeMalformed.
        """
        if not self.is_ours(row.label):
            self._stats.unknown_labels += 1
            return False
        if row.symbol not in self._house.instruments:
            return False
        self.activity.count(row.symbol)
        if row.resting:
            return not self.was_sent(row.label)
        if not isinstance(row.state, OrderClosed):
            raise ExchangeMalformed(row.state.detail if isinstance(row.state, Unread) else "it is open, and is not")
        self._closing(row.symbol, row.state)
        self.note_closed(row.state)
        if not self.is_flying(row.label):
            self.post_closing(row.symbol, row.label)
        return False

    def note_closed(self, event: OrderClosed) -> None:
        """Remember a closing."""
        self._closed[event.label] = event
        forget_oldest(self._closed)

    def post(self, symbol: str, events: Sequence[Mail]) -> None:
        """What an answer said; its closing is posted by `post_closing`, once."""
        self.activity.count(symbol)
        for event in events:
            if isinstance(event, OrderAcked):
                if self.was_closed(event.label, event.order_id):
                    continue  # the closing overtook this answer
            elif isinstance(event, OrderClosed):
                self._closing(symbol, event)
                self.note_closed(event)
                continue
            elif isinstance(event, OrderFilled):
                self.fills.count(symbol)
            self._house.sink.post(symbol, event)

    def post_closing(self, symbol: str, label: str) -> None:
        """The last word on a label: whatever was said before, the order is closed."""
        event = self._closed.get(label)
        if event is not None:
            self._house.sink.post(symbol, event)


def forget_oldest(known: dict[str, Any]) -> None:
    """Drop the oldest of a table that is full."""
    if len(known) > MAX_CLOSED:
        del known[next(iter(known))]
