"""Asking Deribit what is true: fills since, open orders, positions.

Every answer is posted by the reading task, in the order of the stream. A position report is
posted only if no fill of that symbol came between question and answer; else it is asked again,
so that what was posted before it is what it counts.

What comes in pages is read to its end, which the exchange has to prove: trades (`has_more` false, see
`paging`) and the transaction log (`continuation` null, see `cash`). Open orders and positions have no pages
there: private/get_open_orders* and private/get_positions know neither count nor continuation and return all
rows in one array. Source: docs.deribit.com, those methods, September 2026.

A symbol of which something cannot be read, or is refused, is not up: it hears TradeLinkDown, orders of ours
there are cancelled from here, and it is asked about again, less and less often. The others go on.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import OpenOrder, OrdersReported, PositionReported, TradeLinkUp
from mmd.domain.reasons import Fault
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import orders, rows
from mmd.exchanges.deribit.dialect import told_us
from mmd.exchanges.deribit.lookup import FAILURES, seconds_past
from mmd.exchanges.deribit.messages import (
    CancelParams,
    InstrumentParams,
    LabelParams,
    OrderData,
    PositionData,
    UserTradeData,
)
from mmd.exchanges.deribit.paging import fetch_trades
from mmd.exchanges.deribit.record import OrderRecord
from mmd.exchanges.jsonrpc import Head
from mmd.exchanges.known import Known

QUIET_TRIES = 3
STRAY_SECONDS = 5.0
AGAIN_FIRST_SECONDS, AGAIN_MAX_SECONDS = 5.0, 60.0  # until a symbol that failed is asked about again
SETTLE_SECONDS = 2.05  # after a loss: no request of the old connection arrives later than that
SETTLE_MARGIN_SECONDS = 0.25  # beyond what orders are valid for
OF_THE_LINK = (Fault.RATE_LIMIT, Fault.AUTH)  # refusals that no single symbol is to blame for


class Trial:
    """A symbol that could not be reconciled: why, and when it is tried again, by trio's clock."""

    def __init__(self) -> None:
        self.why = ""
        self.due_at = float("-inf")
        self.pause_seconds = AGAIN_FIRST_SECONDS


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
        self._partly: dict[str, dict[tuple[str, str], UserTradeData]] = {}  # by symbol: posted, and not all was
        self._doubted: set[str] = set()
        self._trials: dict[str, Trial] = {}
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
        self._doubted.intersection_update(self._house.watched)
        watched = set(self._house.watched)
        for table in (self._early, self._partly, self._trials):
            for symbol in table.keys() - watched:
                del table[symbol]
        self._look_for_strays = True
        self._wake.set()

    def recover(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int]) -> None:
        """These symbols go on where an earlier process ended: see `Known.recover`."""
        self.known.recover(known_ms, from_ms)
        self._heir = self._heir or bool(known_ms)

    def doubt_all(self) -> None:
        """Something could not be read: ask for everything again."""
        self.doubt(self._house.watched)

    def doubt(self, symbols: Iterable[str]) -> None:
        """Something of these could not be read: ask for all of theirs again."""
        self._doubted.update(set(symbols).intersection(self._house.watched))
        self._wake.set()

    def forget_link(self) -> None:
        """The connection is gone. What was held back is asked for on the next one."""
        self._up.clear()
        self._caught_up.clear()
        self._early.clear()
        for trial in self._trials.values():
            trial.due_at = float("-inf")  # on another connection it may go well
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
            due = self._due()
            if self._house.watching and (due or self._look_for_strays):
                await self._reconcile(connection, due)
            else:
                listed = self._house.instruments
                again = [trial.due_at for symbol, trial in self._trials.items() if symbol in listed]
                with trio.move_on_at(min(again, default=float("inf"))):
                    await self._wake.wait()

    def _due(self) -> list[str]:
        """Whom to ask about now. Those that failed before come after the others, and keep nobody waiting."""
        house, now = self._house, trio.current_time()
        known = [symbol for symbol in house.watched if symbol in house.instruments]
        due = [symbol for symbol in known if symbol not in self._up or symbol in self._doubted]
        fresh = [symbol for symbol in due if symbol not in self._trials]
        return fresh or [symbol for symbol in due if symbol in self._trials and self._trials[symbol].due_at <= now]

    async def _reconcile(self, connection: Connection, symbols: list[str]) -> None:
        """Ask about these. Raises what is no single symbol's failure."""
        self._doubted.difference_update(symbols)
        self._look_for_strays = False
        failed: dict[str, str] = {}
        await self._catch_up_each(connection, symbols, failed)
        left = [symbol for symbol in symbols if symbol not in failed]
        listed = await self._ask_open_orders(connection, left, failed)
        if self._lost_at is not None:
            # A second look for all at once: what is absent then, and was before, is absent.
            await trio.sleep(max(0.0, self._lost_at + self._settle_seconds - trio.current_time()))
            listed = await self._ask_open_orders(connection, left, failed)
            self._lost_at = None
            self._heir = False
        await self._ask_positions(connection, [symbol for symbol in left if symbol not in failed], failed)
        for symbol in symbols:
            if symbol not in self._house.watched:
                continue
            if symbol in failed:
                self._has_failed(symbol, failed[symbol])
            elif symbol not in self._doubted:
                self._has_succeeded(symbol)
        await self._house.sink.deliver()
        for order in listed:
            if self._is_stray(order):
                await self._cancel_stray(connection, order)

    async def _catch_up_each(self, connection: Connection, symbols: list[str], failed: dict[str, str]) -> None:
        silent = 0
        for symbol in symbols:
            try:
                await self.catch_up(connection, symbol)
            except FAILURES as error:
                silent += isinstance(error, ExchangeAmbiguous) and symbol not in self._trials
                if silent > 1 or self._is_of_the_link(error):
                    raise
                failed[symbol] = str(error)

    def _has_succeeded(self, symbol: str) -> None:
        self._trials.pop(symbol, None)
        if symbol not in self._up:
            self._up.add(symbol)
            self._house.sink.post(symbol, TradeLinkUp(self._armed, self._house.wall_clock_ns()))

    def _has_failed(self, symbol: str, why: str) -> None:
        """It is not up. Told at once, and again where the reason is another one."""
        trial = self._trials.setdefault(symbol, Trial())
        if trial.why != why:
            trial.why = why
            self._house.sink.report("query.failed", f"{symbol}: {why}; nothing is sent for it until it can be read")
        trial.due_at = trio.current_time() + trial.pause_seconds
        trial.pause_seconds = min(AGAIN_MAX_SECONDS, 2.0 * trial.pause_seconds)
        self._up.discard(symbol)
        self._record.take_down(symbol, f"{symbol} could not be reconciled: {why}")

    @property
    def _settle_seconds(self) -> float:
        """After a loss: no order of the old connection is taken later than that."""
        valid_seconds = (self._house.order_valid_ms or 0) / 1000
        return max(SETTLE_SECONDS, valid_seconds + SETTLE_MARGIN_SECONDS)

    # --- questions of the machine ---

    async def ask_state(self, connection: Connection, symbol: str) -> bool:
        """Answer QueryState: fills, OrdersReported, PositionReported. False where that failed, which is reported."""
        failed: dict[str, str] = {}
        try:
            await self.catch_up(connection, symbol)
            await self._ask_orders_of(connection, symbol)
            await self._ask_positions(connection, [symbol], failed)
        except (*FAILURES, LinkLost) as error:
            failed.setdefault(symbol, str(error))
        if symbol in failed:
            self._house.sink.report("query.failed", f"{symbol}: {failed[symbol]}")
        return symbol not in failed

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
        asked_ms = self._house.clock.now_ms()
        since_ms = self.known.missing_since_ms(symbol, asked_ms)
        if since_ms is not None:
            posted = self._partly.setdefault(symbol, {})
            await fetch_trades(connection, self._house, self._record, symbol, since_ms, posted)
            self._partly.pop(symbol, None)
            self.known.told(symbol, asked_ms)
        self._caught_up.add(symbol)
        for trade, received_ns in self._early.pop(symbol, ()):
            self.take_or_doubt(connection, trade, received_ns)

    def take_or_doubt(self, connection: Connection, trade: UserTradeData, received_ns: int) -> None:
        """Post a trade that a channel told. One that cannot be counted is asked for: the list may say it better."""
        try:
            self._record.take_trade(trade, received_ns)
        except ExchangeMalformed as error:
            connection.malformed(str(error))
            self.doubt([trade.instrument_name])

    # --- open orders ---

    def read_orders(self, connection: Connection, raw: msgspec.Raw) -> tuple[list[OrderData], dict[str, str]]:
        """Orders as listed, and the symbols of those that cannot be read, with what is wrong. ExchangeMalformed."""
        listed, unread = rows.read_orders(raw)
        return listed, self._tell_unread(connection, unread)

    def read_positions(
        self, connection: Connection, raw: msgspec.Raw
    ) -> tuple[dict[str, PositionData], dict[str, str]]:
        """Positions by symbol, and the symbols of those that cannot be read, with what is wrong. ExchangeMalformed."""
        listed, unread = rows.read_positions(raw)
        return {row.instrument_name: row for row in listed}, self._tell_unread(connection, unread)

    def _tell_unread(self, connection: Connection, unread: list[rows.Unread]) -> dict[str, str]:
        for row in unread:
            connection.malformed(f"{row.symbol}: {row.detail}")
        found = rows.told_apart(unread)
        self.doubt(found)
        return found

    async def _ask_open_orders(
        self, connection: Connection, symbols: list[str], failed: dict[str, str]
    ) -> list[OrderData]:
        """Report the open orders of these symbols, or say what failed; returns ours on any symbol."""
        ours: list[OrderData] = []

        def take(head: Head) -> None:
            listed, unread = self.read_orders(connection, head.result)
            ours[:] = [order for order in listed if self._record.is_ours(order.label)]
            for symbol in symbols:
                if symbol in unread:
                    failed[symbol] = unread[symbol]
                elif symbol not in failed:
                    why = self.report_orders(symbol, [order for order in listed if order.instrument_name == symbol])
                    if why:
                        failed[symbol] = why

        await connection.call("private/get_open_orders", apply=take)
        return ours

    async def _ask_orders_of(self, connection: Connection, symbol: str) -> None:
        """Report one symbol's open orders, if possible at a moment when nothing else changed them.

        Not before what was sent and not answered is either listed or too late to be.
        """
        await trio.sleep(max(0.0, seconds_past(self._house, self._record.unsettled_until_ms(symbol))))
        for attempt in range(1, QUIET_TRIES + 1):
            before = self._record.activity[symbol]
            posted = False

            def take(head: Head, before: int = before, attempt: int = attempt) -> None:
                nonlocal posted
                if self._record.activity[symbol] == before or attempt == QUIET_TRIES:
                    listed, unread = self.read_orders(connection, head.result)
                    why = unread.get(symbol) or self.report_orders(symbol, listed)
                    if why:
                        raise ExchangeMalformed(why)
                    posted = True

            await connection.call("private/get_open_orders_by_instrument", InstrumentParams(symbol), apply=take)
            if posted:
                return

    def report_orders(self, symbol: str, listed: Iterable[OrderData]) -> str:
        """Post those of these open orders that are ours. Where one has no place on the grid: doubt, and say why."""
        instrument = self._house.instruments[symbol]
        ours = [order for order in listed if self._record.is_ours(order.label)]
        still_open = [order for order in ours if self._record.was_closed(order.label) is None]
        try:
            report = tuple(orders.open_order(order, instrument) for order in still_open)
        except ExchangeMalformed as error:
            self.doubt([symbol])
            return str(error)
        self._house.sink.post(symbol, OrdersReported(report, self._house.wall_clock_ns()))
        return ""

    def _is_stray(self, order: OrderData) -> bool:
        """Ours, and nobody else would cancel it: nobody watches its symbol, or it could not be reconciled."""
        symbol = order.instrument_name
        watched = symbol in self._house.watched and symbol not in self._trials
        return not watched and self._record.was_closed(order.label) is None

    async def _cancel_stray(self, connection: Connection, order: OrderData) -> None:
        """Raises ExchangeRefused where the login is gone."""
        instrument = self._house.instruments.get(order.instrument_name)
        self._house.budget.spend(self._house.wall_clock_ns())
        try:
            if instrument is None:
                await connection.call("private/cancel", CancelParams(order.order_id))
            else:
                params = LabelParams(instrument.settlement, order.label)
                await connection.call("private/cancel_by_label", params)
        except FAILURES as error:
            if self._house.fault(error) is Fault.AUTH:
                raise
            self._house.sink.report("order.stray_not_cancelled", f"{order.label} ({order.order_id}): {error}")
            connection.nursery.start_soon(self._look_again)
            return
        self._house.sink.report("order.stray_cancelled", f"{order.label} ({order.order_id})")

    async def _look_again(self) -> None:
        await trio.sleep(STRAY_SECONDS)
        self._look_for_strays = True
        self._wake.set()

    # --- positions ---

    async def _ask_positions(self, connection: Connection, symbols: list[str], failed: dict[str, str]) -> None:
        """Report positions, each from a moment without fills, or say what failed. Absent means flat."""
        left = list(symbols)
        while left:
            settlement = self._house.instruments[left[0]].settlement
            group = [symbol for symbol in left if self._house.instruments[symbol].settlement == settlement]
            before = {symbol: self._record.fills[symbol] for symbol in group}
            done: list[str] = []

            def take(head: Head, before: dict[str, int] = before, done: list[str] = done) -> None:
                listed, unread = self.read_positions(connection, head.result)
                for symbol, fills in before.items():
                    if symbol in unread:
                        failed[symbol] = unread[symbol]
                    elif self._record.fills[symbol] == fills:
                        done.append(symbol)
                        if why := self.report_position(symbol, listed.get(symbol), head):
                            failed[symbol] = why

            try:
                await connection.call("private/get_positions", {"currency": settlement}, apply=take)
            except (ExchangeRefused, ExchangeMalformed) as error:
                if self._is_of_the_link(error):
                    raise
                failed.update(dict.fromkeys(group, str(error)))
            left = [symbol for symbol in left if symbol not in done and symbol not in failed]

    def report_position(self, symbol: str, row: PositionData | None, head: Head) -> str:
        """Post a position; None: flat. Where it is no whole number of lots: doubt, and say why."""
        house = self._house
        instrument = house.instruments[symbol]
        now_ns = house.wall_clock_ns()
        event = PositionReported(0, Decimal(0), now_ns)
        if row is not None:
            try:
                event = orders.position(row, instrument, now_ns)
            except ExchangeMalformed as error:
                self.doubt([symbol])
                return str(error)
        house.sink.post(symbol, msgspec.structs.replace(event, exchange_ns=told_us(house, head) * 1000))
        if symbol in house.watched:
            self.known.begin(symbol, told_us(house, head))
        return ""

    def _is_of_the_link(self, error: Exception) -> bool:
        return self._house.fault(error) in OF_THE_LINK
