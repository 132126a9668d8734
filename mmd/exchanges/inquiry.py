"""Asking an exchange what is true: fills since, open orders, positions.

Every answer is posted by the reading task, in the order of the stream. A position report is
posted only if no fill of that symbol came between question and answer; else it is asked again,
so that what was posted before it is what it counts.

A symbol of which something cannot be read, or is refused, is not up: it hears TradeLinkDown, orders of ours
there are cancelled from here, and it is asked about again, less and less often. The others go on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import OpenOrder, OrdersReported, PositionReported, TradeLinkUp
from mmd.domain.reasons import Fault
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.known import Known
from mmd.exchanges.lookup import fetch_trades, seconds_past
from mmd.exchanges.questions import Questions
from mmd.exchanges.record import OrderRecord, Orders
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, TradeRow, Unread, told_apart

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

    def __init__(
        self,
        house: House,
        record: OrderRecord,
        known: Known,
        questions: Questions,
        orders: Orders,
        take_down: Callable[[str, str], None],
    ) -> None:
        """`take_down`: hears of a symbol that could not be reconciled, and why; nothing may be sent for it then."""
        self.known = known
        self._house = house
        self._record = record
        self._questions = questions
        self._orders = orders
        self._take_down = take_down
        self._armed = False
        self._up: set[str] = set()  # heard TradeLinkUp on this connection
        self._caught_up: set[str] = set()  # what was missed was asked for on this connection
        self._early: dict[str, list[TradeRow]] = {}  # by symbol: told before what was missed
        self._partly: dict[str, dict[tuple[str, str], TradeRow]] = {}  # by symbol: posted, and not all was
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
        doubted = set(symbols).intersection(self._house.watched)
        if doubted:
            self._doubted.update(doubted)
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
        self._take_down(symbol, f"{symbol} could not be reconciled: {why}")

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
        found: dict[str, list[OpenOrder]] = {}

        def take(listing: OrderListing) -> None:
            bad = [*listing.unread]
            for row in listing.rows:
                if not self._record.is_ours(row.label) or row.symbol not in self._house.instruments:
                    continue
                if isinstance(row.state, Unread):
                    bad.append(row.state)
                elif isinstance(row.state, OpenOrder):
                    found.setdefault(row.symbol, []).append(row.state)
            if bad:
                raise ExchangeMalformed(bad[0].detail)

        await self._questions.open_orders(connection, take)
        return found

    # --- fills ---

    def hold_back(self, row: TradeRow) -> bool:
        """Whether this trade, told on a channel, has to wait: on their order depends what a position has cost.

        Earlier ones may have been missed, and were not asked for on this connection yet.
        """
        if row.symbol in self._caught_up or self.known.missing_since_ms(row.symbol, 0) is None:
            return False
        self._early.setdefault(row.symbol, []).append(row)
        return True

    async def catch_up(self, connection: Connection, symbol: str) -> None:
        """Post the fills that may have been missed. Before the first position report there is nothing to miss."""
        asked_ms = self._house.clock.now_ms()
        since_ms = self.known.missing_since_ms(symbol, asked_ms)
        if since_ms is not None:
            posted = self._partly.setdefault(symbol, {})
            await fetch_trades(connection, self._questions, self._record, symbol, since_ms, posted)
            self._partly.pop(symbol, None)
            self.known.told(symbol, asked_ms)
        self._caught_up.add(symbol)
        for row in self._early.pop(symbol, ()):
            self.take_or_doubt(connection, row)

    def take_or_doubt(self, connection: Connection, row: TradeRow) -> None:
        """Post a trade that a channel told. One that cannot be counted is asked for: the list may say it better."""
        try:
            self._record.take_trade(row)
        except ExchangeMalformed as error:
            connection.malformed(str(error))
            self.doubt([row.symbol])

    # --- open orders ---

    def tell_unread(self, connection: Connection, unread: Sequence[Unread]) -> dict[str, str]:
        """The symbols of rows that cannot be read, with what is wrong: they are doubted. Raises as `told_apart`."""
        for row in unread:
            connection.malformed(f"{row.symbol}: {row.detail}")
        found = told_apart(unread)
        self.doubt(found)
        return found

    async def _ask_open_orders(
        self, connection: Connection, symbols: list[str], failed: dict[str, str]
    ) -> list[OrderRow]:
        """Report the open orders of these symbols, or say what failed; returns ours on any symbol."""
        ours: list[OrderRow] = []

        def take(listing: OrderListing) -> None:
            unread = self.tell_unread(connection, listing.unread)
            ours[:] = [row for row in listing.rows if self._record.is_ours(row.label)]
            for symbol in symbols:
                if symbol in unread:
                    failed[symbol] = unread[symbol]
                elif symbol not in failed:
                    why = self.report_orders(symbol, [row for row in listing.rows if row.symbol == symbol])
                    if why:
                        failed[symbol] = why

        await self._questions.open_orders(connection, take)
        return ours

    async def _ask_orders_of(self, connection: Connection, symbol: str) -> None:
        """Report one symbol's open orders, if possible at a moment when nothing else changed them.

        Not before what was sent and not answered is either listed or too late to be.
        """
        await trio.sleep(max(0.0, seconds_past(self._house, self._record.unsettled_until_ms(symbol))))
        for attempt in range(1, QUIET_TRIES + 1):
            before = self._record.activity[symbol]
            posted = False

            def take(listing: OrderListing, before: int = before, attempt: int = attempt) -> None:
                nonlocal posted
                if self._record.activity[symbol] == before or attempt == QUIET_TRIES:
                    unread = self.tell_unread(connection, listing.unread)
                    rows = [row for row in listing.rows if row.symbol == symbol]
                    why = unread.get(symbol) or self.report_orders(symbol, rows)
                    if why:
                        raise ExchangeMalformed(why)
                    posted = True

            await self._questions.open_orders_of(connection, symbol, take)
            if posted:
                return

    def report_orders(self, symbol: str, listed: Iterable[OrderRow]) -> str:
        """Post those of these open orders that are ours. Where one has no place on the grid: doubt, and say why."""
        report: list[OpenOrder] = []
        for row in listed:
            if not self._record.is_ours(row.label) or self._record.was_closed(row.label, row.order_id) is not None:
                continue
            if isinstance(row.state, Unread):
                self.doubt([symbol])
                return row.state.detail
            if isinstance(row.state, OpenOrder):
                report.append(row.state)
        self._house.sink.post(symbol, OrdersReported(tuple(report), self._house.wall_clock_ns()))
        return ""

    def _is_stray(self, row: OrderRow) -> bool:
        """Ours, and nobody else would cancel it: nobody watches its symbol, or it could not be reconciled."""
        watched = row.symbol in self._house.watched and row.symbol not in self._trials
        return not watched and self._record.was_closed(row.label, row.order_id) is None

    async def _cancel_stray(self, connection: Connection, row: OrderRow) -> None:
        """Raises ExchangeRefused where the login is gone."""
        self._house.budget.spend(self._house.wall_clock_ns())
        try:
            await connection.call(*self._orders.cancel(row))
        except FAILURES as error:
            if self._house.fault(error) is Fault.AUTH:
                raise
            self._house.sink.report("order.stray_not_cancelled", f"{row.label} ({row.order_id}): {error}")
            connection.nursery.start_soon(self._look_again)
            return
        self._house.sink.report("order.stray_cancelled", f"{row.label} ({row.order_id})")

    async def _look_again(self) -> None:
        await trio.sleep(STRAY_SECONDS)
        self._look_for_strays = True
        self._wake.set()

    # --- positions ---

    async def _ask_positions(self, connection: Connection, symbols: list[str], failed: dict[str, str]) -> None:
        """Report positions, each from a moment without fills, or say what failed. Absent means flat."""
        left = list(symbols)
        while left:
            account = self._questions.account(left[0])
            group = [symbol for symbol in left if self._questions.account(symbol) == account]
            before = {symbol: self._record.fills[symbol] for symbol in group}
            done: list[str] = []

            def take(listing: PositionListing, before: dict[str, int] = before, done: list[str] = done) -> None:
                unread = self.tell_unread(connection, listing.unread)
                for symbol, fills in before.items():
                    if symbol in unread:
                        failed[symbol] = unread[symbol]
                    elif self._record.fills[symbol] == fills:
                        done.append(symbol)
                        if why := self.report_position(symbol, listing):
                            failed[symbol] = why

            try:
                await self._questions.positions(connection, account, take)
            except (ExchangeRefused, ExchangeMalformed) as error:
                if self._is_of_the_link(error):
                    raise
                failed.update(dict.fromkeys(group, str(error)))
            left = [symbol for symbol in left if symbol not in done and symbol not in failed]

    def report_position(self, symbol: str, listing: PositionListing) -> str:
        """Post a position; absent: flat. Where it is no whole number of lots: doubt, and say why."""
        house = self._house
        event = listing.rows.get(symbol) or PositionReported(0, Decimal(0), house.wall_clock_ns())
        if isinstance(event, Unread):
            self.doubt([symbol])
            return event.detail
        house.sink.post(symbol, msgspec.structs.replace(event, exchange_ns=listing.told_us * 1000))
        if symbol in house.watched:
            self.known.begin(symbol, listing.told_us)
        return ""

    def _is_of_the_link(self, error: Exception) -> bool:
        return self._house.fault(error) in OF_THE_LINK
