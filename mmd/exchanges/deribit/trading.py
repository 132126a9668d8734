"""The trade link's duty: orders out, answers and fills in, and what to believe after a loss.

Cancel-on-disconnect is armed and read back at every login, and read again every minute. A symbol
hears TradeLinkUp only after its fills, open orders and position were asked on this connection. Every
answer about an order is posted in the order of the stream; a closing that overtakes the answer is
held back until then.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from mmd.domain.actions import (
    AmendOrder,
    CancelOrder,
    Order,
    PlaceOrder,
    QueryOrder,
    QueryState,
    ReduceOrder,
    Request,
)
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import Mail, OrderAcked, OrderClosed, OrderFilled, OrderRefused, RequestLost, TradeLinkDown
from mmd.domain.ids import label_prefix
from mmd.domain.reasons import Fault
from mmd.exchanges.api import Account, LinkStats
from mmd.exchanges.channels import subscribe
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import codec, orders, rows
from mmd.exchanges.deribit.audit import Audit
from mmd.exchanges.deribit.cancels import Cancels
from mmd.exchanges.deribit.cash import CashLog
from mmd.exchanges.deribit.dialect import PRIVATE
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.inquiry import Inquiry
from mmd.exchanges.deribit.lookup import Lookup
from mmd.exchanges.deribit.messages import OrderData, UserTradeData
from mmd.exchanges.deribit.protection import Protections
from mmd.exchanges.jsonrpc import Head, Sent
from mmd.exchanges.news import News

ORDER_SECONDS = 5.0  # deadline of an order's answer
ARMED_SECONDS = 60.0  # how often cancel-on-disconnect is read back
MAX_CLOSED = 2000
PAST_MS = 60_000
RESERVE_SHARE = 0.25  # of the burst, for cancels


class OrderSent(msgspec.Struct, frozen=True):
    """Context of an order request in flight. `until_ms`: later the exchange does not carry it out; 0: no such time."""

    symbol: str
    order: Order
    until_ms: int = 0


class Trading:
    """Implements Duty for orders."""

    name = "trade"

    def __init__(self, house: House) -> None:
        self.stats = LinkStats()
        self.connection: Connection | None = None
        self.first_up = trio.Event()
        self.inquiry = Inquiry(house, self)
        self.lookup = Lookup(house, self, self.inquiry.known)
        self.audit = Audit(house, self, self.inquiry)
        self.protections = Protections(house)
        self.cash = CashLog(house, self.inquiry)
        house.on_settlement = self.cash.settled
        self._house = house
        self._prefixes: tuple[str, ...] = (label_prefix(house.service),)
        self._cancels = Cancels()
        self._flying: dict[str, int] = {}  # requests in flight by label
        self._closed: dict[str, OrderClosed] = {}  # what closed lately, by label
        self._marked: dict[str, None] = {}  # labels that were placed for maker protection to pull
        self._sent: dict[str, int] = {}  # labels that were placed here, and how long the last request is valid
        self._unanswered: dict[str, OrderSent] = {}  # the last place or amend of a label, until it is answered
        self.activity = News()  # of all that changes a symbol's orders
        self.fills = News()

    @property
    def up(self) -> bool:
        """Orders can be sent."""
        return self.connection is not None and self.connection.ready

    def rewatch(self) -> None:
        """The watched symbols changed."""
        self.activity.keep(self._house.watched)
        self.fills.keep(self._house.watched)
        self.inquiry.wake()
        self.audit.forget_others()
        self.protections.wake()
        self.cash.wake()

    def was_closed(self, label: str) -> OrderClosed | None:
        """The closing of this order, if it was seen."""
        return self._closed.get(label)

    def is_ours(self, label: str) -> bool:
        return label.startswith(self._prefixes)

    def answer_for(self, services: Sequence[str]) -> None:
        """Orders with these services' labels are ours as well; replaces what was said before."""
        self._prefixes = tuple(label_prefix(name) for name in (self._house.service, *services))

    def is_flying(self, label: str) -> bool:
        """An order request on this label has no answer yet."""
        return label in self._flying

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

    # --- Duty ---

    async def work(self, connection: Connection) -> None:
        self.connection = connection
        armed = await self._arm(connection)
        await self._subscribe(connection)
        await self._read_account(connection)
        connection.set_up()
        self.stats.up = True
        self.stats.connects += 1
        self._house.sink.report("link.up", f"{self._house.name} trade, cancel on disconnect: {armed}")
        self.first_up.set()
        connection.nursery.start_soon(self._stay_armed if armed else self._arm_later, connection)
        connection.nursery.start_soon(self._hurry_cancels, connection)
        connection.nursery.start_soon(self.protections.serve, connection)
        connection.nursery.start_soon(self.cash.serve, connection)
        connection.nursery.start_soon(self.audit.serve, connection)
        await self.inquiry.serve(connection, armed)

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        if channel.startswith(codec.MMP_TRIGGER):
            self.protections.notified(channel, data)
        if not channel.startswith("user.changes."):
            return
        changes, unread = rows.read_changes(data)
        for row in unread:
            self._malformed(f"{channel}: {row.symbol}: {row.detail}")
        for trade in changes.trades:
            if not self.inquiry.hold_back(trade, received_ns):
                self._take_row(trade.instrument_name, trade, received_ns)
        for order in changes.orders:
            self._take_row(order.instrument_name, order, received_ns)
        if changes.positions:
            self.audit.soon()  # that they are as the fills say
        self.inquiry.doubt(rows.told_apart(unread))  # it may have been a fill

    def _take_row(self, symbol: str, row: UserTradeData | OrderData, received_ns: int) -> None:
        """One row of user.changes. One that cannot be counted is asked for: a list may say it better."""
        try:
            if isinstance(row, UserTradeData):
                self.take_trade(row, received_ns)
            else:
                self._take_order(row, received_ns)
        except ExchangeMalformed as error:
            self._malformed(str(error))
            self.inquiry.doubt([symbol])

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        symbol, order = sent.context.symbol, sent.context.order
        if head.error is not None and head.error.code in ERRORS.queue_full:
            self._cancels.refused()
        if not sent.expired:
            self._landed(order)
        if self._unanswered.get(order.label) is sent.context:
            del self._unanswered[order.label]
        instrument = self._house.instruments[symbol]
        if head.error is not None:
            self.protections.refused(symbol, head.error.code, head.error.text)
            remark = self._why_late() if head.error.code == ERRORS.timed_out else ""
            self._post(symbol, [ERRORS.refused(order, head.error, received_ns, remark)])
            self._post_closing(symbol, order.label)
            if ERRORS.meaning(head.error.code).fault is Fault.AUTH and self.connection is not None:
                # Cancels are refused as well now. A new login can send them, and the loss itself cancels.
                self.connection.drop(f"the login is not valid any more: {sent.method}: {head.error.text}")
            return
        if isinstance(order, CancelOrder) and not order.order_id:
            # The answer is a count; what became of the order has to be asked.
            self.ask_label(symbol, order)
            return
        try:
            self._post(symbol, orders.reply(order, head.result, instrument, received_ns))
        except ExchangeMalformed as error:
            self._malformed(f"{sent.method}: {error}")
            self._post(symbol, [RequestLost(order.label, f"unreadable answer: {error}", received_ns)])
        self._post_closing(symbol, order.label)

    def lost(self, sent: Sent, why: str) -> None:
        if isinstance(sent.context, OrderSent):
            self._landed(sent.context.order)
            event = RequestLost(sent.context.order.label, why, self._house.wall_clock_ns())
            self._house.sink.post(sent.context.symbol, event)

    def garbled(self, channel: str) -> None:
        """It may have been a fill: ask for everything."""
        self.inquiry.doubt_all()

    def take_down(self, symbol: str, why: str) -> None:
        """It could not be reconciled: as far as it knows, the connection is gone."""
        self._house.sink.post(symbol, TradeLinkDown(why, self._house.wall_clock_ns()))
        self.protections.forget(symbol)

    def down(self, why: str) -> None:
        """The connection is gone."""
        was_up, self.stats.up = self.stats.up, False
        self.connection = None
        self._flying.clear()
        for symbol, order in self._cancels.give_up():
            self._refuse(symbol, order, f"it waited to be sent: {why}")
        self.inquiry.forget_link()
        self.protections.forget_link()
        if was_up:
            self._house.sink.post_all(TradeLinkDown(why, self._house.wall_clock_ns()))

    # --- orders out ---

    def submit(self, requests: Sequence[tuple[str, Request]]) -> bool:
        """Queue requests in order. True if some were answered at once because the link is down."""
        refused = False
        for symbol, request in requests:
            if isinstance(request, CancelOrder) and self.up and self._cancels.must_wait():
                self._cancels.add(symbol, request)
            else:
                refused |= not self._is_sent(symbol, request)
        return refused

    def _is_sent(self, symbol: str, request: Request) -> bool:
        """Queue it; else it is answered at once."""
        connection = self.connection
        try:
            if connection is None or not connection.ready:
                raise LinkLost("the trade link is down")
            self._send(connection, symbol, request)
        except LinkLost as error:
            self._refuse(symbol, request, str(error))
            return False
        return True

    def _send_waiting(self) -> None:
        while self.up and (waiting := self._cancels.take()) is not None:
            self._is_sent(*waiting)

    async def _hurry_cancels(self, connection: Connection) -> None:
        while True:
            await self._cancels.wait_overdue()
            self._send_waiting()
            await connection.flush()

    def _send(self, connection: Connection, symbol: str, request: Request) -> None:
        match request:
            case AmendOrder() | PlaceOrder() | CancelOrder() | ReduceOrder():
                self._send_order(connection, symbol, request)
            case QueryOrder():
                connection.nursery.start_soon(self.lookup.ask_order, connection, symbol, request)
            case QueryState():
                connection.nursery.start_soon(self.inquiry.ask_state, connection, symbol)

    def _send_order(self, connection: Connection, symbol: str, request: Order) -> None:
        valid = self._house.order_valid_ms
        now_ms = self._house.clock.now_ms()
        until = None if valid is None else now_ms + valid
        mmp = False
        if self._marked or self.protections.any_wanted:
            request, mmp = self._mark(symbol, request)
        method, params = codec.order_request(self._house.instruments[symbol], request, until, mmp=mmp)
        sent = OrderSent(symbol, request, until or 0)
        connection.request(method, params, sent, ORDER_SECONDS)
        if isinstance(request, CancelOrder):
            self._cancels.sent()
        else:
            self._sent[request.label] = sent.until_ms
            _forget(self._sent)
            if until is not None:
                self._unanswered.pop(request.label, None)
                self._unanswered[request.label] = sent
                self._settle(now_ms)
        self._flying[request.label] = self._flying.get(request.label, 0) + 1

    def _settle(self, now_ms: int) -> None:
        """Forget unanswered requests that nobody carries out any more."""
        while self._unanswered:
            label, oldest = next(iter(self._unanswered.items()))
            if oldest.until_ms >= now_ms - PAST_MS:
                return
            del self._unanswered[label]

    def _why_late(self) -> str:
        """Why an order may have come after its time, for people: the clocks are a suspect."""
        return (
            f"it came to the matching engine more than {self._house.order_valid_ms} ms after it was sent, by the "
            f"exchange's clock, which is {self._house.clock.skew_ms:+.0f} ms from ours: a slow link, or a clock was set"
        )

    def _mark(self, symbol: str, order: Order) -> tuple[Order, bool]:
        """The request to send, and whether with `mmp`: as the symbol is protected, and as the order has it.

        An edit cannot give an order what it was placed without: it is cancelled instead, and the next has it.
        A reduction never carries it: it must be possible during a freeze.
        """
        match order:
            case PlaceOrder() if self.protections.covers(symbol):
                self._marked[order.label] = None
                _forget(self._marked)
                return order, True
            case AmendOrder():
                marked = order.label in self._marked
                if not marked and self.protections.covers(symbol):
                    self._house.sink.report("order.unprotected", f"{order.label} was placed before: cancelled")
                    return CancelOrder(order.label, order.order_id, order.side), False
                return order, marked
        return order, False

    def _refuse(self, symbol: str, request: Request, why: str) -> None:
        now_ns = self._house.wall_clock_ns()
        match request:
            case QueryState():
                return  # the reconcile after the next login answers it
            case QueryOrder() | CancelOrder():
                self._house.sink.post(symbol, RequestLost(request.label, why, now_ns))
            case _:
                event = OrderRefused(request.label, Fault.STATE, "link_down", why, False, now_ns)
                self._house.sink.post(symbol, event)

    def ask_label(self, symbol: str, order: CancelOrder) -> None:
        """Find out what a cancel by label did."""
        connection = self.connection
        if connection is None or not connection.ready:
            self._house.sink.post(symbol, RequestLost(order.label, "link lost", self._house.wall_clock_ns()))
        else:
            connection.nursery.start_soon(self.lookup.ask_cancelled, connection, symbol, order)

    # --- orders and fills in ---

    def take_trade(self, trade: UserTradeData, received_ns: int) -> None:
        """Post one execution; the machine drops what it has seen. Raises ExchangeMalformed."""
        instrument = self._house.instruments.get(trade.instrument_name)
        if instrument is None:
            return  # spot, or the aggregate row of a combo: its legs come as rows of their own
        if not self.is_ours(trade.label):
            self.stats.unknown_labels += 1
        if self.inquiry.known.is_in_baseline(trade.instrument_name, trade.timestamp):
            return
        self.activity.count(trade.instrument_name)
        self.fills.count(trade.instrument_name)
        self._house.sink.post(trade.instrument_name, orders.filled(trade, instrument, received_ns))

    def _take_order(self, order: OrderData, received_ns: int) -> None:
        """An order's news: only closings matter, and not before the answer that they overtook."""
        if not self.is_ours(order.label):
            self.stats.unknown_labels += 1
            return
        instrument = self._house.instruments.get(order.instrument_name)
        if instrument is None:
            return
        self.activity.count(order.instrument_name)
        if order.order_state not in orders.CLOSED_STATES:
            if order.label not in self._sent:
                self.audit.soon()  # somebody else uses our name
            return
        event = orders.closed(order, instrument, received_ns)
        self._look_for_freeze(order.instrument_name, event)
        self.note_closed(event)
        if not self.is_flying(order.label):
            self._post_closing(order.instrument_name, order.label)

    def note_closed(self, event: OrderClosed) -> None:
        """Remember a closing."""
        self._closed[event.label] = event
        _forget(self._closed)

    def _look_for_freeze(self, symbol: str, event: OrderClosed) -> None:
        if event.cause == orders.MMP_CANCELLED:
            self.protections.suspect(symbol, f"it pulled order {event.label}")

    def _post(self, symbol: str, events: list[Mail]) -> None:
        self.activity.count(symbol)
        for event in events:
            if isinstance(event, OrderAcked):
                if event.label in self._closed:
                    continue  # the closing overtook this answer
            elif isinstance(event, OrderClosed):
                self._look_for_freeze(symbol, event)
                self.note_closed(event)
                continue  # posted by _post_closing, once
            elif isinstance(event, OrderFilled):
                self.fills.count(symbol)
            self._house.sink.post(symbol, event)

    def _post_closing(self, symbol: str, label: str) -> None:
        """The last word on a label: whatever was said before, the order is closed."""
        event = self._closed.get(label)
        if event is not None:
            self._house.sink.post(symbol, event)

    def _landed(self, order: Order) -> None:
        self._flying[order.label] = self._flying.get(order.label, 0) - 1
        if self._flying[order.label] <= 0:
            del self._flying[order.label]
        if isinstance(order, CancelOrder):
            self._cancels.landed()
            self._send_waiting()

    def _malformed(self, detail: str) -> None:
        if self.connection is not None:
            self.connection.malformed(detail)

    # --- login ---

    async def _arm(self, connection: Connection) -> bool:
        """Cancel on disconnect: arm and read back. False where the exchange says no for good; raises a no for now."""
        try:
            await connection.call("private/enable_cancel_on_disconnect", {"scope": "connection"})
            raw = await connection.call("private/get_cancel_on_disconnect", {"scope": "connection"})
        except ExchangeRefused as error:
            self._house.sink.report("cancel_on_disconnect.refused", str(error))
            if ERRORS.is_for_now(error.code):
                raise  # the next connection asks again
            return False
        return codec.decode_cancel_on_disconnect(raw).enabled

    async def _arm_later(self, connection: Connection) -> None:
        """It was refused: ask now and then whether it still is. A link that can be armed begins anew, armed."""
        while True:
            await trio.sleep(ARMED_SECONDS)
            if await self._arm(connection):
                connection.drop("cancel on disconnect can be armed now")
                return

    async def _stay_armed(self, connection: Connection) -> None:
        """Read it back now and then; armed again where it was lost, and the link given up where that fails."""
        while True:
            await trio.sleep(ARMED_SECONDS)
            why = "it was switched off"
            try:
                raw = await connection.call("private/get_cancel_on_disconnect", {"scope": "connection"})
                if codec.decode_cancel_on_disconnect(raw).enabled:
                    continue
                if await self._arm(connection):
                    self._house.sink.report("exchange.cod_rearmed", f"{self._house.name}: {why}")
                    continue
            except (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as error:
                why = str(error)
            self._house.sink.report("exchange.cod_lost", f"{self._house.name}: cancel on disconnect: {why}")
            connection.drop("cancel on disconnect was lost")
            return

    async def _subscribe(self, connection: Connection) -> None:
        """Our own orders and fills. Without them nothing may be traded: the connection is given up."""
        for channel in codec.USER_CHANGES:
            try:
                missing = await subscribe(connection, PRIVATE, [channel])
            except ExchangeRefused as error:
                self._house.sink.report("subscription.refused", f"{channel}: {error}")
                continue
            if not missing:
                return
        raise LinkLost(f"the exchange refuses {' and '.join(codec.USER_CHANGES)}: fills would not be seen")

    async def _read_account(self, connection: Connection) -> None:
        """The account's rate limits into the budget."""
        try:
            await self.accounts(connection)
        except (ExchangeRefused, ExchangeMalformed, ExchangeAmbiguous) as error:
            self._house.sink.report("limits.unknown", f"the budget stays at the lowest tier: {error}")

    async def accounts(self, connection: Connection) -> list[Account]:
        """Asked now; also renews the message budget."""
        raw = await connection.call("private/get_account_summaries", {"extended": True})
        summaries = orders.decode_summaries(raw)
        sources = [summaries.limits, *(row.limits for row in summaries.summaries)]
        for limits in sources:
            found = None if limits is None else codec.matching_limits(limits)
            if found is not None:
                rate, burst = found
                self._house.budget.set_limits(rate, burst, min(burst * RESERVE_SHARE, burst - 1))
                break
        return orders.accounts(summaries)


def _forget(known: dict[str, Any]) -> None:
    """Drop the oldest of a table that is full."""
    if len(known) > MAX_CLOSED:
        del known[next(iter(known))]
