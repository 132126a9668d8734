"""A trade link's duty: orders out, answers and fills in, and what to believe after a loss.

Cancel-on-disconnect is armed and read back at every login, and read again every minute. A symbol
hears TradeLinkUp only after its fills, open orders and position were asked on this connection. Every
answer about an order is posted in the order of the stream; a closing that overtakes the answer is
held back until then.
"""

import math
from collections.abc import Sequence
from typing import Protocol

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
from mmd.domain.errors import ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import OrderClosed, OrderRefused, RequestLost, TradeLinkDown
from mmd.domain.reasons import Fault
from mmd.exchanges.api import Account, LinkStats
from mmd.exchanges.audit import Audit
from mmd.exchanges.cancels import Cancels
from mmd.exchanges.channels import Subscriptions, subscribe
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.guards import PULLED, ProtectionCalls, Protections
from mmd.exchanges.inquiry import Inquiry
from mmd.exchanges.jsonrpc import Head, Sent
from mmd.exchanges.known import Known
from mmd.exchanges.lookup import Lookup
from mmd.exchanges.questions import Questions
from mmd.exchanges.record import InDoubt, OrderRecord, Orders, OrderSent, forget_oldest
from mmd.exchanges.rows import OrderRow, told_apart

ORDER_SECONDS = 5.0  # deadline of an order's answer
ARMED_SECONDS = 60.0  # how often cancel-on-disconnect is read back


class AccountCalls(Protocol):
    """What an exchange is asked about the account as a whole. All raise as `Connection.call` does."""

    async def arm(self, connection: Connection) -> bool:
        """Set cancel-on-disconnect and read it back."""

    async def is_armed(self, connection: Connection) -> bool:
        """Read it back."""

    async def accounts(self, connection: Connection) -> list[Account]:
        """Asked now; also renews the message budget."""


class Cash(Protocol):
    """Who tells of cash that moved without a trade."""

    def wake(self) -> None:
        """The watched symbols changed."""

    def settled(self) -> None:
        """Something was settled or delivered just now."""

    async def serve(self, connection: Connection) -> None:
        """Tell until cancelled."""


class TradeCalls(msgspec.Struct, frozen=True, kw_only=True):
    """All that exchanges differ in on a trade link. `most_cancels`: without an answer at a time; inf = any number."""

    channels: Subscriptions
    orders: Orders
    questions: Questions
    protection: ProtectionCalls
    account: AccountCalls
    cash: Cash
    most_cancels: float


class Trading:
    """Implements LongDuty for orders."""

    name = "trade"
    deaf_after = math.inf  # what of an order is not known has its own clock and its own switches

    def __init__(self, house: House, known: Known, calls: TradeCalls) -> None:
        self.stats = LinkStats()
        self.connection: Connection | None = None
        self.first_up = trio.Event()
        self.record = OrderRecord(house, self.stats, known, self._look_for_freeze)
        self.questions = calls.questions
        self.inquiry = Inquiry(house, self.record, known, calls.questions, calls.orders, self._take_down)
        self.lookup = Lookup(house, self.record, known, calls.questions)
        self.audit = Audit(house, self.record, calls.questions, self.inquiry)
        self.protections = Protections(house, calls.protection, calls.channels)
        house.on_settlement = calls.cash.settled
        self._house = house
        self._calls = calls
        self._cancels = Cancels(calls.most_cancels)
        self._marked: dict[str, None] = {}  # labels that were placed for maker protection to pull

    @property
    def up(self) -> bool:
        """Orders can be sent."""
        return self.connection is not None and self.connection.ready

    def rewatch(self) -> None:
        """The watched symbols changed."""
        self.record.keep(self._house.watched)
        self.inquiry.wake()
        self.audit.forget_others()
        self.protections.wake()
        self._calls.cash.wake()

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
        connection.nursery.start_soon(self._calls.cash.serve, connection)
        connection.nursery.start_soon(self.audit.serve, connection)
        await self.inquiry.serve(connection, armed)

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        if self.protections.notified(channel, data):
            return
        told = self._calls.orders.told(channel, data, received_ns)
        for row in told.unread:
            self._malformed(f"{channel}: {row.symbol}: {row.detail}")
        assert self.connection is not None, "something was told on no connection"
        for trade in told.trades:
            if not self.inquiry.hold_back(trade):
                self.inquiry.take_or_doubt(self.connection, trade)
        for order in told.orders:
            self._take_order(order)
        for symbol in told.changed:
            self.record.activity.count(symbol)
        if told.moved:
            self.audit.soon()  # that they are as the fills say
        if told.unread:
            self.inquiry.doubt(told_apart(told.unread))  # it may have been a fill

    def _take_order(self, row: OrderRow) -> None:
        """One that cannot be counted is asked for: a list may say it better."""
        try:
            if self.record.take_order(row):
                self.audit.soon()
        except ExchangeMalformed as error:
            self._malformed(str(error))
            self.inquiry.doubt([row.symbol])

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        symbol, order = sent.context.symbol, sent.context.order
        errors, record = self._house.errors, self.record
        if head.error is not None and head.error.code in errors.queue_full:
            self._cancels.refused()
        if not sent.expired:
            self._landed(order)
        record.answered(sent.context)
        instrument = self._house.instruments[symbol]
        if head.error is not None:
            self.protections.refused(symbol, head.error.code, head.error.text)
            if head.error.code in errors.not_live:
                self._house.on_not_live(symbol)
            remark = self._why_late() if head.error.code == errors.timed_out else ""
            record.post(symbol, self._calls.orders.refused(order, head.error, received_ns, remark))
            record.post_closing(symbol, order.label)
            if errors.meaning(head.error.code).fault is Fault.AUTH and self.connection is not None:
                # Cancels are refused as well now. A new login can send them, and the loss itself cancels.
                self.connection.drop(f"the login is not valid any more: {sent.method}: {head.error.text}")
            return
        try:
            events = self._calls.orders.reply(order, head.result, instrument, received_ns)
        except ExchangeMalformed as error:
            self._malformed(f"{sent.method}: {error}")
            events = [RequestLost(order.label, f"unreadable answer: {error}", received_ns)]
        if events is None:
            assert isinstance(order, CancelOrder), "all other answers say what became of the order"
            self._ask_cancelled(symbol, order)
            return
        record.post(symbol, events)
        record.post_closing(symbol, order.label)

    def lost(self, sent: Sent, why: str) -> None:
        if isinstance(sent.context, OrderSent):
            self._landed(sent.context.order)
            self._calls.orders.lost(sent.context.order)
            event = RequestLost(sent.context.order.label, why, self._house.wall_clock_ns())
            self._house.sink.post(sent.context.symbol, event)

    def garbled(self, channel: str) -> None:
        """It may have been a fill: ask for everything."""
        self.inquiry.doubt_all()

    def _take_down(self, symbol: str, why: str) -> None:
        """It could not be reconciled: as far as it knows, the connection is gone."""
        self._house.sink.post(symbol, TradeLinkDown(why, self._house.wall_clock_ns()))
        self.protections.forget(symbol)

    def down(self, why: str) -> None:
        """The connection is gone."""
        was_up, self.stats.up = self.stats.up, False
        self.connection = None
        self.record.grounded()
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
        except InDoubt as error:
            assert isinstance(request, Order), "questions are always sent"
            self._house.sink.post(symbol, RequestLost(request.label, str(error), self._house.wall_clock_ns()))
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
        method, params = self._calls.orders.request(self._house.instruments[symbol], request, until, mmp=mmp)
        sent = OrderSent(symbol, request, until or 0)
        try:
            connection.request(method, params, sent, ORDER_SECONDS)
        except LinkLost:
            self._calls.orders.lost(request)
            raise
        if isinstance(request, CancelOrder):
            self._cancels.sent()
        self.record.sent(sent, now_ms)

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
                forget_oldest(self._marked)
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

    def _ask_cancelled(self, symbol: str, order: CancelOrder) -> None:
        """Find out what a cancel by label did."""
        connection = self.connection
        if connection is None or not connection.ready:
            self._house.sink.post(symbol, RequestLost(order.label, "link lost", self._house.wall_clock_ns()))
        else:
            connection.nursery.start_soon(self.lookup.ask_cancelled, connection, symbol, order)

    def _look_for_freeze(self, symbol: str, event: OrderClosed) -> None:
        if event.cause == PULLED:
            self.protections.suspect(symbol, f"it pulled order {event.label}")

    def _landed(self, order: Order) -> None:
        self.record.landed(order.label)
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
            return await self._calls.account.arm(connection)
        except ExchangeRefused as error:
            self._house.sink.report("cancel_on_disconnect.refused", str(error))
            if self._house.errors.is_for_now(error.code):
                raise  # the next connection asks again
            return False

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
                if await self._calls.account.is_armed(connection):
                    continue
                if await self._arm(connection):
                    self._house.sink.report("exchange.cod_rearmed", f"{self._house.name}: {why}")
                    continue
            except FAILURES as error:
                why = str(error)
            self._house.sink.report("exchange.cod_lost", f"{self._house.name}: cancel on disconnect: {why}")
            connection.drop("cancel on disconnect was lost")
            return

    async def _subscribe(self, connection: Connection) -> None:
        """Our own orders and fills. Without them nothing may be traded: the connection is given up."""
        groups = self._calls.orders.channels
        for group in groups:
            try:
                missing = await subscribe(connection, self._calls.channels, group)
            except ExchangeRefused as error:
                self._house.sink.report("subscription.refused", f"{', '.join(group)}: {error}")
                continue
            if not missing:
                return
        names = " and ".join(name for group in groups for name in group)
        raise LinkLost(f"the exchange refuses {names}: fills would not be seen")

    async def _read_account(self, connection: Connection) -> None:
        """The account's rate limits into the budget."""
        try:
            await self.accounts(connection)
        except FAILURES as error:
            self._house.sink.report("limits.unknown", f"the budget stays at the lowest tier: {error}")

    async def accounts(self, connection: Connection) -> list[Account]:
        """Asked now; also renews the message budget."""
        return await self._calls.account.accounts(connection)
