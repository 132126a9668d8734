"""Asking Deribit what is true: fills since, open orders, positions, what became of one order.

Every answer is posted by the reading task, in the order of the stream. A position report is
posted only if no fill of that symbol came between question and answer; else it is asked again,
so that what was posted before it is what it counts.

What comes in pages is read to its end, which the exchange has to prove: trades (`has_more` false) and
the transaction log (`continuation` null, see `cash`). Open orders and positions have no pages there:
private/get_open_orders* and private/get_positions know neither count nor continuation and return all
rows in one array. Source: docs.deribit.com, those methods, September 2026.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Protocol

import msgspec
import trio

from mmd.domain.actions import CancelOrder, QueryOrder
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import (
    OpenOrder,
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
    TradeLinkUp,
)
from mmd.domain.reasons import Fault
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.connection import Connection, House
from mmd.exchanges.deribit.known import OVERLAP_MS, Known
from mmd.exchanges.deribit.messages import (
    CancelParams,
    InstrumentParams,
    LabelParams,
    OrderData,
    PositionData,
    TradePage,
    TradesParams,
    UserTradeData,
)
from mmd.exchanges.jsonrpc import Head

RECENT_MS = 23 * 3_600_000  # the exchange keeps older trades in another drawer ("historical")
QUIET_TRIES = 3
STRAY_SECONDS = 5.0
FIND_TRIES = 4
FIND_PAUSE_SECONDS = 0.25
SETTLE_SECONDS = 2.05  # after a loss: no request of the old connection arrives later than that
SETTLE_MARGIN_SECONDS = 0.25  # beyond what orders are valid for
LATE_SECONDS = 0.01
_FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)


class OrderRecord(Protocol):
    """What the trade link knows of orders and fills."""

    activity: dict[str, int]
    fills: dict[str, int]

    def take_trade(self, trade: UserTradeData, received_ns: int) -> None: ...

    def was_closed(self, label: str) -> OrderClosed | None: ...

    def note_closed(self, event: OrderClosed) -> None: ...

    def is_ours(self, label: str) -> bool: ...

    def is_flying(self, label: str) -> bool: ...

    def may_come_until_ms(self, label: str) -> int: ...

    def unsettled_until_ms(self, symbol: str) -> int: ...


class Inquiry:
    """One per exchange; survives connections, so that it knows from when fills may be missing."""

    def __init__(self, house: House, record: OrderRecord) -> None:
        self._house = house
        self._record = record
        self.known = Known()
        self._armed = False
        self._up: set[str] = set()  # heard TradeLinkUp on this connection
        self._caught_up: set[str] = set()  # what was missed was asked for on this connection
        self._early: dict[str, list[tuple[UserTradeData, int]]] = {}  # by symbol: told before what was missed
        self._doubted: set[str] = set()
        self._look_for_strays = True
        self._wake = trio.Event()
        self._lost_at: float | None = None  # trio's clock, when the last connection was lost
        self._heir = False  # what an earlier process sent last may arrive yet

    # --- when ---

    def wake(self) -> None:
        """The watched symbols changed."""
        self.known.align(self._house.watched)
        self._up.intersection_update(self._house.watched)
        self._caught_up.intersection_update(self._house.watched)
        self._look_for_strays = True
        self._wake.set()

    def recover(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int]) -> None:
        """These symbols go on where an earlier process ended: see `Known.recover`."""
        self.known.recover(known_ms, from_ms)
        self._heir = self._heir or bool(known_ms)

    def doubt_all(self) -> None:
        """Something could not be read: ask for everything again."""
        self._doubted.update(self._house.watched)
        self._wake.set()

    def forget_link(self) -> None:
        """The connection is gone. What was held back is asked for on the next one."""
        self._up.clear()
        self._caught_up.clear()
        self._early.clear()
        self._look_for_strays = True
        self._lost_at = trio.current_time()

    def is_up(self, symbol: str) -> bool:
        """It is reconciled on this connection."""
        return symbol in self._up

    async def serve(self, connection: Connection, armed: bool) -> None:
        """Reconcile whatever needs it, until cancelled."""
        self._armed = armed
        if self._heir and self._lost_at is None:
            self._lost_at = trio.current_time()
        while True:
            self._wake = trio.Event()
            house = self._house
            known = [symbol for symbol in house.watched if symbol in house.instruments]
            due = [symbol for symbol in known if symbol not in self._up or symbol in self._doubted]
            if house.watching and (due or self._look_for_strays):
                await self._reconcile(connection, due)
            else:
                await self._wake.wait()

    async def _reconcile(self, connection: Connection, symbols: list[str]) -> None:
        self._doubted.difference_update(symbols)
        self._look_for_strays = False
        for symbol in symbols:
            await self.catch_up(connection, symbol)
        strays = await self._ask_open_orders(connection, symbols)
        if self._lost_at is not None:
            # A second look for all at once: what is absent then, and was before, is absent.
            await trio.sleep(max(0.0, self._lost_at + self._settle_seconds - trio.current_time()))
            strays = await self._ask_open_orders(connection, symbols)
            self._lost_at = None
            self._heir = False
        await self._ask_positions(connection, symbols)
        now_ns = self._house.wall_clock_ns()
        for symbol in symbols:
            if symbol in self._house.watched and symbol not in self._up:
                self._up.add(symbol)
                self._house.sink.post(symbol, TradeLinkUp(self._armed, now_ns))
        await self._house.sink.deliver()
        for stray in strays:
            await self._cancel_stray(connection, stray)

    @property
    def _settle_seconds(self) -> float:
        """After a loss: no order of the old connection is taken later than that."""
        valid_seconds = (self._house.order_valid_ms or 0) / 1000
        return max(SETTLE_SECONDS, valid_seconds + SETTLE_MARGIN_SECONDS)

    # --- questions of the machine ---

    async def ask_state(self, connection: Connection, symbol: str) -> bool:
        """Answer QueryState: fills, OrdersReported, PositionReported. False where that failed, which is reported."""
        try:
            await self.catch_up(connection, symbol)
            await self._ask_orders_of(connection, symbol)
            await self._ask_positions(connection, [symbol])
        except (*_FAILURES, LinkLost) as error:
            self._house.sink.report("query.failed", f"{symbol}: {error}")
            return False
        return True

    async def ask_order(self, connection: Connection, symbol: str, query: QueryOrder) -> None:
        """Answer QueryOrder: fills, then OrderAcked, OrderClosed, OrderAbsent, or RequestLost."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            self._post_found(symbol, found or OrderAbsent(query.label, now_ns))

        await self._answer_about(connection, symbol, query.label, verdict)

    async def ask_cancelled(self, connection: Connection, symbol: str, order: CancelOrder) -> None:
        """What a cancel by label did."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            post = self._house.sink.post
            if found is not None:
                self._post_found(symbol, found)
                if isinstance(found, OrderAcked):
                    post(symbol, orders.not_cancelled(order, now_ns))
            elif self._record.is_flying(order.label):
                post(symbol, RequestLost(order.label, "not there yet: its placing has no answer", now_ns))
            else:
                detail = "no order with this label"
                post(symbol, OrderRefused(order.label, Fault.STATE, "order_not_found", detail, True, now_ns))

        await self._answer_about(connection, symbol, order.label, verdict)

    async def open_orders(self, connection: Connection) -> dict[str, list[OpenOrder]]:
        """All open orders of our service, by symbol, asked now."""
        raw = await connection.call("private/get_open_orders")
        found: dict[str, list[OpenOrder]] = {}
        for order in orders.decode_orders(raw):
            instrument = self._house.instruments.get(order.instrument_name)
            if self._record.is_ours(order.label) and instrument is not None:
                found.setdefault(order.instrument_name, []).append(orders.open_order(order, instrument))
        return found

    # --- fills ---

    def hold_back(self, trade: UserTradeData, received_ns: int) -> bool:
        """Whether this trade, told on a channel, has to wait: on their order depends what a position has cost.

        Earlier ones may have been missed, and were not asked for on this connection yet.
        """
        symbol = trade.instrument_name
        if symbol in self._caught_up or self.known.missing_since_ms(symbol, 0) is None:
            return False
        self._early.setdefault(symbol, []).append((trade, received_ns))
        return True

    async def catch_up(self, connection: Connection, symbol: str) -> None:
        """Post the fills that may have been missed. Before the first position report there is nothing to miss."""
        asked_ms = self._house.exchange_ms()
        since_ms = self.known.missing_since_ms(symbol, asked_ms)
        if since_ms is not None:
            await self._fetch_trades(connection, symbol, since_ms, {})
            self.known.told(symbol, asked_ms)
        self._caught_up.add(symbol)
        for trade, received_ns in self._early.pop(symbol, ()):
            self._record.take_trade(trade, received_ns)

    async def _fetch_trades(
        self, connection: Connection, symbol: str, since_ms: int, posted: dict[tuple[str, str], UserTradeData]
    ) -> None:
        """Ask for all trades since, page by page to the proven end; those that are not in `posted` are posted."""
        pages: list[TradePage] = []

        def take(head: Head) -> None:
            pages.append(orders.decode_trade_page(head.result))
            for trade in pages[-1].trades:
                # Both orders of a trade with ourselves carry the same trade id.
                if (trade.trade_id, trade.order_id) not in posted:
                    posted[trade.trade_id, trade.order_id] = trade
                    self._record.take_trade(trade, self._house.wall_clock_ns())

        now_ms = self._house.exchange_ms()
        drawers = (True, False) if since_ms < now_ms - RECENT_MS else (False,)
        for historical in drawers:
            start_ms, more = since_ms, True
            while more:
                params = TradesParams(symbol, start_ms, now_ms + OVERLAP_MS, historical)
                await connection.call("private/get_user_trades_by_instrument_and_time", params, apply=take)
                more = pages[-1].has_more
                if more:
                    # The last millisecond is asked again: the page may have cut through it.
                    last_ms = max((trade.timestamp for trade in pages[-1].trades), default=start_ms)
                    if last_ms <= start_ms:
                        raise ExchangeMalformed(f"{symbol}: more than a page of trades in the millisecond {start_ms}")
                    start_ms = last_ms

    # --- open orders ---

    async def _ask_open_orders(self, connection: Connection, symbols: list[str]) -> list[OrderData]:
        """Report the open orders of these symbols; returns ours on symbols that nobody watches."""
        strays: list[OrderData] = []

        def take(head: Head) -> None:
            strays.clear()
            listed = orders.decode_orders(head.result)
            strays.extend(
                order
                for order in listed
                if self._record.is_ours(order.label)
                and order.instrument_name not in self._house.watched
                and self._record.was_closed(order.label) is None
            )
            for symbol in symbols:
                self.report_orders(symbol, [order for order in listed if order.instrument_name == symbol])

        await connection.call("private/get_open_orders", apply=take)
        return strays

    async def _ask_orders_of(self, connection: Connection, symbol: str) -> None:
        """Report one symbol's open orders, if possible at a moment when nothing else changed them.

        Not before what was sent and not answered is either listed or too late to be.
        """
        await trio.sleep(max(0.0, self._seconds_to(self._record.unsettled_until_ms(symbol))))
        for attempt in range(1, QUIET_TRIES + 1):
            before = self._record.activity.get(symbol, 0)
            posted = False

            def take(head: Head, before: int = before, attempt: int = attempt) -> None:
                nonlocal posted
                if self._record.activity.get(symbol, 0) == before or attempt == QUIET_TRIES:
                    self.report_orders(symbol, orders.decode_orders(head.result))
                    posted = True

            await connection.call("private/get_open_orders_by_instrument", InstrumentParams(symbol), apply=take)
            if posted:
                return

    def report_orders(self, symbol: str, listed: Iterable[OrderData]) -> None:
        """Post those of these open orders that are ours."""
        instrument = self._house.instruments[symbol]
        ours = [order for order in listed if self._record.is_ours(order.label)]
        still_open = [order for order in ours if self._record.was_closed(order.label) is None]
        report = tuple(orders.open_order(order, instrument) for order in still_open)
        self._house.sink.post(symbol, OrdersReported(report, self._house.wall_clock_ns()))

    async def _cancel_stray(self, connection: Connection, order: OrderData) -> None:
        """An order of ours on a symbol that is not watched any more."""
        instrument = self._house.instruments.get(order.instrument_name)
        self._house.budget.spend(self._house.wall_clock_ns())
        try:
            if instrument is None:
                await connection.call("private/cancel", CancelParams(order.order_id))
            else:
                params = LabelParams(instrument.settlement, order.label)
                await connection.call("private/cancel_by_label", params)
        except _FAILURES as error:
            self._house.sink.report("order.stray_not_cancelled", f"{order.label} ({order.order_id}): {error}")
            connection.nursery.start_soon(self._look_again)
            return
        self._house.sink.report("order.stray_cancelled", f"{order.label} ({order.order_id})")

    async def _look_again(self) -> None:
        await trio.sleep(STRAY_SECONDS)
        self._look_for_strays = True
        self._wake.set()

    # --- positions ---

    async def _ask_positions(self, connection: Connection, symbols: list[str]) -> None:
        """Report positions, each from a moment without fills. Absent means flat."""
        left = list(symbols)
        while left:
            settlement = self._house.instruments[left[0]].settlement
            group = [symbol for symbol in left if self._house.instruments[symbol].settlement == settlement]
            before = {symbol: self._record.fills.get(symbol, 0) for symbol in group}
            done: list[str] = []

            def take(head: Head, before: dict[str, int] = before, done: list[str] = done) -> None:
                rows = {row.instrument_name: row for row in orders.decode_positions(head.result)}
                for symbol, fills in before.items():
                    if self._record.fills.get(symbol, 0) == fills:
                        self.report_position(symbol, rows.get(symbol), head)
                        done.append(symbol)

            await connection.call("private/get_positions", {"currency": settlement}, apply=take)
            left = [symbol for symbol in left if symbol not in done]

    def report_position(self, symbol: str, row: PositionData | None, head: Head) -> None:
        """Post a position; None: flat."""
        house = self._house
        instrument = house.instruments[symbol]
        now_ns = house.wall_clock_ns()
        if row is None:
            event = PositionReported(0, Decimal(0), now_ns)
        else:
            event = orders.position(row, instrument, now_ns)
        house.sink.post(symbol, msgspec.structs.replace(event, exchange_ns=house.told_us(head) * 1000))
        if symbol in house.watched:
            self.known.begin(symbol, house.told_us(head))

    # --- one order ---

    async def _answer_about(
        self,
        connection: Connection,
        symbol: str,
        label: str,
        verdict: Callable[[OrderAcked | OrderClosed | None, int], None],
    ) -> None:
        why = "the link was lost"
        try:
            await self._find_order(connection, symbol, label, verdict)
            why = ""
        except (*_FAILURES, LinkLost) as error:
            why = str(error)
        finally:
            # Also when cancelled: a question without an answer would be waited for.
            if why:
                self._house.sink.post(symbol, RequestLost(label, why, self._house.wall_clock_ns()))
        await self._house.sink.deliver()

    async def _find_order(
        self,
        connection: Connection,
        symbol: str,
        label: str,
        verdict: Callable[[OrderAcked | OrderClosed | None, int], None],
    ) -> None:
        """Its fills first, then `verdict` with what it is now (None: the exchange knows no such order).

        It knows none only once no request about it can arrive any more, and what it has filled is told
        only once all those trades are listed. Where the symbol started anew, an order of an earlier
        process is excepted from that: its trades are part of the baseline, and not all are asked for.
        """
        house, known = self._house, self.known
        instrument = house.instruments[symbol]
        params = LabelParams(instrument.settlement, label)
        epoch_ms = orders.label_epoch_ms(label) or 0
        started_ms = house.started_ns // 1_000_000
        counted = known.is_recovered(symbol) or epoch_ms >= started_ms - 1000
        posted: dict[tuple[str, str], UserTradeData] = {}
        found: OrderData | None = None
        why = ""
        for _ in range(FIND_TRIES):
            asked_ms = house.exchange_ms()
            missing_ms = known.missing_since_ms(symbol, asked_ms)
            since_ms = started_ms - OVERLAP_MS if missing_ms is None else missing_ms
            if found is not None and counted:
                since_ms = min(since_ms, found.creation_timestamp or epoch_ms - OVERLAP_MS)
            await self._fetch_trades(connection, symbol, since_ms, posted)
            known.told(symbol, asked_ms)
            order_id = found.order_id if found is not None else None
            of_it = [trade for trade in posted.values() if trade.label == label or trade.order_id == order_id]
            listed = sum((trade.amount for trade in of_it), Decimal(0))

            def settle(row: OrderData, listed: Decimal = listed) -> str:
                """Give the verdict, or say what it waits for."""
                if orders.must_end(row):
                    return "its end is not listed yet"
                if counted and (row.filled_amount or 0) > listed:
                    return f"of {row.filled_amount} filled only {listed} are listed yet"
                verdict(orders.order_state(row, instrument, house.wall_clock_ns()), house.wall_clock_ns())
                return ""

            found, why, told_ms = await self._ask_label(connection, symbol, params, settle)
            if found is None:
                closing, until_ms = self._record.was_closed(label), self._record.may_come_until_ms(label)
                if closing is not None or told_ms > until_ms:
                    verdict(closing, house.wall_clock_ns())
                    return
                why = "it is not there, and may come yet"
                await trio.sleep(max(FIND_PAUSE_SECONDS, self._seconds_to(until_ms)))
            elif not why:
                return
            else:
                await trio.sleep(FIND_PAUSE_SECONDS)
        raise ExchangeAmbiguous(f"order {label}: {why}")

    async def _ask_label(
        self, connection: Connection, symbol: str, params: LabelParams, settle: Callable[[OrderData], str]
    ) -> tuple[OrderData | None, str, int]:
        """The order's row as it was listed, what `settle` said of it, and when (the exchange's clock) it was asked."""
        found: OrderData | None = None
        why, told_ms = "", 0

        def take(head: Head) -> None:
            nonlocal found, why, told_ms
            told_ms = told_ms or self._house.told_us(head) // 1000
            found = _choose(orders.decode_orders(head.result), symbol, params.label)
            if found is not None:
                why = settle(found)

        await connection.call("private/get_order_state_by_label", params, apply=take)
        if found is None:
            await connection.call("private/get_open_orders_by_label", params, apply=take)
        return found, why, told_ms

    def _seconds_to(self, exchange_ms: int) -> float:
        """Until the exchange's clock is surely past that."""
        return (exchange_ms - self._house.exchange_ms()) / 1000 + LATE_SECONDS

    def _post_found(self, symbol: str, found: OrderAcked | OrderClosed | OrderAbsent) -> None:
        """The newest word on a label; a closing that was seen before stands."""
        if isinstance(found, OrderClosed):
            self._record.note_closed(found)
        self._house.sink.post(symbol, self._record.was_closed(found.label) or found)


def _choose(rows: list[OrderData], symbol: str, label: str) -> OrderData | None:
    """The row of this order: one that rests before one that does not, the newest of those."""
    found = [row for row in rows if row.instrument_name == symbol and row.label == label]
    return max(
        found, key=lambda row: (row.order_state in orders.RESTING_STATES, row.last_update_timestamp), default=None
    )
