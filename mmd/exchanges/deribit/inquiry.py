"""Asking Deribit what is true: fills since, open orders, positions, what became of one order.

Every answer is posted by the reading task, in the order of the stream. A position report is
posted only if no fill of that symbol came between question and answer; else it is asked again,
so that what was posted before it is what it counts.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Protocol

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

OVERLAP_MS = 60_000  # fills are asked again from this long before the last one could be missing
RECENT_MS = 23 * 3_600_000  # the exchange keeps older trades in another drawer ("historical")
BASELINE_REACH_US = 7 * 86_400_000_000  # trades older than that before the baseline are not compared with it
QUIET_TRIES = 3
STRAY_SECONDS = 5.0
FIND_TRIES = 4
FIND_PAUSE_SECONDS = 0.25
SETTLE_SECONDS = 2.05  # after a loss: no request of the old connection arrives later than that
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


class Inquiry:
    """One per exchange; survives connections, so that it knows from when fills may be missing."""

    def __init__(self, house: House, record: OrderRecord) -> None:
        self._house = house
        self._record = record
        self._armed = False
        self._up: set[str] = set()  # heard TradeLinkUp on this connection
        self._doubted: set[str] = set()
        self._baseline_us: dict[str, int] = {}  # the exchange's clock at a symbol's first position report
        self._known_ms: dict[str, int] = {}  # all fills up to here were posted
        self._look_for_strays = True
        self._wake = trio.Event()
        self._lost_at: float | None = None  # trio's clock, when the last connection was lost

    # --- when ---

    def wake(self) -> None:
        """The watched symbols changed. One that left starts anew if it ever comes back."""
        watched = set(self._house.watched)
        for symbol in [symbol for symbol in self._baseline_us if symbol not in watched]:
            del self._baseline_us[symbol]
            self._known_ms.pop(symbol, None)
        self._up &= watched
        self._look_for_strays = True
        self._wake.set()

    def doubt_all(self) -> None:
        """Something could not be read: ask for everything again."""
        self._doubted.update(self._house.watched)
        self._wake.set()

    def forget_link(self, heard_ns: int) -> None:
        """The connection is gone; it was last heard at `heard_ns` (our clock)."""
        heard_ms = int(heard_ns // 1_000_000 + self._house.skew.skew_ms)
        for symbol in self._up - self._doubted:
            self._known_ms[symbol] = max(heard_ms, self._known_ms.get(symbol, 0))
        self._up.clear()
        self._look_for_strays = True
        self._lost_at = trio.current_time()

    def is_up(self, symbol: str) -> bool:
        """It is reconciled on this connection."""
        return symbol in self._up

    def is_in_baseline(self, trade: UserTradeData) -> bool:
        """Whether a symbol's first position report counted this trade already."""
        baseline_us = self._baseline_us.get(trade.instrument_name)
        if baseline_us is None:
            return False
        return baseline_us - BASELINE_REACH_US < trade.timestamp * 1000 < baseline_us // 1000 * 1000

    def counts_from_ms(self, symbol: str) -> int | None:
        """The moment of a symbol's first position report, by the exchange's clock; None before it."""
        baseline_us = self._baseline_us.get(symbol)
        return None if baseline_us is None else baseline_us // 1000

    async def serve(self, connection: Connection, armed: bool) -> None:
        """Reconcile whatever needs it, until cancelled."""
        self._armed = armed
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
            await self._catch_up(connection, symbol)
        strays = await self._ask_open_orders(connection, symbols)
        if self._lost_at is not None:
            # A second look for all at once: what is absent then, and was before, is absent.
            await trio.sleep(max(0.0, self._lost_at + SETTLE_SECONDS - trio.current_time()))
            strays = await self._ask_open_orders(connection, symbols)
            self._lost_at = None
        await self._ask_positions(connection, symbols)
        now_ns = self._house.wall_clock_ns()
        for symbol in symbols:
            if symbol in self._house.watched and symbol not in self._up:
                self._up.add(symbol)
                self._house.sink.post(symbol, TradeLinkUp(self._armed, now_ns))
        await self._house.sink.deliver()
        for stray in strays:
            await self._cancel_stray(connection, stray)

    # --- questions of the machine ---

    async def ask_state(self, connection: Connection, symbol: str) -> None:
        """Answer QueryState: fills, OrdersReported, PositionReported."""
        try:
            await self._catch_up(connection, symbol)
            await self._ask_orders_of(connection, symbol)
            await self._ask_positions(connection, [symbol])
        except (*_FAILURES, LinkLost) as error:
            self._house.sink.report("query.failed", f"{symbol}: {error}")

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

    async def _catch_up(self, connection: Connection, symbol: str) -> None:
        """Post the fills that may have been missed. Before the first position report there is nothing to miss."""
        baseline_us = self._baseline_us.get(symbol)
        if baseline_us is None:
            return
        asked_ms = self._house.exchange_ms()
        since_ms = max(baseline_us // 1000, self._known_ms.get(symbol, 0) - OVERLAP_MS)
        await self._fetch_trades(connection, symbol, since_ms)
        self._known_ms[symbol] = asked_ms

    async def _fetch_trades(self, connection: Connection, symbol: str, since_ms: int) -> list[UserTradeData]:
        """Ask for all trades since, page by page to the end, and post them."""
        # Both orders of a trade with ourselves carry the same trade id.
        seen: dict[tuple[str, str], UserTradeData] = {}
        pages: list[TradePage] = []

        def take(head: Head) -> None:
            pages.append(orders.decode_trade_page(head.result))
            for trade in pages[-1].trades:
                if (trade.trade_id, trade.order_id) not in seen:
                    seen[trade.trade_id, trade.order_id] = trade
                    self._record.take_trade(trade, self._house.wall_clock_ns())

        now_ms = self._house.exchange_ms()
        drawers = (True, False) if since_ms < now_ms - RECENT_MS else (False,)
        for historical in drawers:
            start_ms, more = since_ms, True
            while more:
                params = TradesParams(symbol, start_ms, now_ms + OVERLAP_MS, historical)
                await connection.call("private/get_user_trades_by_instrument_and_time", params, apply=take)
                more = pages[-1].has_more and bool(pages[-1].trades)
                if more:
                    # The last millisecond is asked again: the page may have cut through it.
                    last_ms = max(trade.timestamp for trade in pages[-1].trades)
                    if last_ms <= start_ms:
                        raise ExchangeMalformed(f"{symbol}: more than a page of trades in the millisecond {start_ms}")
                    start_ms = last_ms
        return list(seen.values())

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
        """Report one symbol's open orders, if possible at a moment when nothing else changed them."""
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
        house.sink.post(symbol, event)
        if symbol in house.watched and symbol not in self._baseline_us:
            self._baseline_us[symbol] = head.us_in or house.exchange_ms() * 1000
            self._known_ms[symbol] = self._baseline_us[symbol] // 1000

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
        """Its fills first, then `verdict` with what it is now (None: the exchange knows no such order)."""
        house = self._house
        instrument = house.instruments[symbol]
        params = LabelParams(instrument.settlement, label)
        epoch_ms = orders.label_epoch_ms(label) or 0
        since_ms = max(epoch_ms, house.started_ns // 1_000_000) - OVERLAP_MS
        # Fills of an earlier process are part of the baseline: there is nothing to compare with.
        complete_from_ms = house.started_ns // 1_000_000 - 1000
        for _ in range(FIND_TRIES):
            trades = await self._fetch_trades(connection, symbol, since_ms)
            listed = sum((trade.amount for trade in trades if trade.label == label), Decimal(0))
            settled = False

            def take(head: Head, listed: Decimal = listed) -> None:
                nonlocal settled
                row = _choose(orders.decode_orders(head.result), symbol, label)
                if row is None:
                    return
                if orders.must_end(row) or (epoch_ms >= complete_from_ms and (row.filled_amount or 0) > listed):
                    return
                verdict(orders.order_state(row, instrument, house.wall_clock_ns()), house.wall_clock_ns())
                settled = True

            raw = await connection.call("private/get_order_state_by_label", params, apply=take)
            if not settled and _choose(orders.decode_orders(raw), symbol, label) is None:
                raw = await connection.call("private/get_open_orders_by_label", params, apply=take)
                if not settled and _choose(orders.decode_orders(raw), symbol, label) is None:
                    verdict(self._record.was_closed(label), house.wall_clock_ns())
                    return
            if settled:
                return
            await trio.sleep(FIND_PAUSE_SECONDS)
        raise ExchangeAmbiguous(f"order {label}: its end or its trades are not listed yet")

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
