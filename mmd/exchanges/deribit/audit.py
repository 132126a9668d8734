"""A look at everything, now and then: orders under our name that nobody here placed, positions that no fill explains.

One list of open orders and one of positions for each currency cover all symbols. It is looked soon after
every trade and every order of unknown origin, else every AUDIT_SECONDS. A symbol that something happened
to between question and answer is left for the next look, and one that nothing happened to since it was
last told is not told again: so a report costs a symbol nothing while all is well.
"""

import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.connection import Connection, House
from mmd.exchanges.deribit.inquiry import Inquiry, OrderRecord
from mmd.exchanges.deribit.messages import OrderData
from mmd.exchanges.jsonrpc import Head

AUDIT_SECONDS = 10.0
SOON_SECONDS = 0.1  # fills come in bunches
SPACING_SECONDS = 0.5  # at least this long between two looks


class Audit:
    """One per exchange. What differs is reported as `Inquiry` reports it; the machine asks again, and judges."""

    def __init__(self, house: House, record: OrderRecord, inquiry: Inquiry) -> None:
        self._house = house
        self._record = record
        self._inquiry = inquiry
        self._wake = trio.Event()
        self._looked_at = self._due_at = float("-inf")  # trio's clock
        self._told_orders: dict[str, tuple[int, frozenset[str]]] = {}  # activity then, order ids
        self._told_positions: dict[str, tuple[int, str]] = {}  # fills then, the position

    def soon(self) -> None:
        """Something happened that orders and positions may show."""
        due_at = max(trio.current_time() + SOON_SECONDS, self._looked_at + SPACING_SECONDS)
        if due_at < self._due_at:
            self._due_at = due_at
            self._wake.set()

    async def serve(self, connection: Connection) -> None:
        """Look until cancelled. Raises LinkLost."""
        self._told_orders.clear()
        self._told_positions.clear()
        self._due_at = trio.current_time() + AUDIT_SECONDS
        while True:
            self._wake = trio.Event()
            with trio.move_on_at(self._due_at):
                await self._wake.wait()
            if trio.current_time() >= self._due_at:
                await self._look(connection)

    async def _look(self, connection: Connection) -> None:
        self._looked_at = trio.current_time()
        self._due_at = self._looked_at + AUDIT_SECONDS
        symbols = [symbol for symbol in self._house.watched if self._inquiry.is_up(symbol)]
        if not symbols:
            return
        try:
            await self._look_at_orders(connection, symbols)
            for currency in sorted({self._house.instruments[symbol].settlement for symbol in symbols}):
                await self._look_at_positions(connection, currency, symbols)
        except (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as error:
            self._house.sink.report("query.failed", f"{self._house.name}: {error}")

    async def _look_at_orders(self, connection: Connection, symbols: list[str]) -> None:
        activity = self._record.activity
        before = {symbol: activity.get(symbol, 0) for symbol in symbols}

        def take(head: Head) -> None:
            listed: dict[str, list[OrderData]] = {}
            for order in orders.decode_orders(head.result):
                listed.setdefault(order.instrument_name, []).append(order)
            for symbol, count in before.items():
                if activity.get(symbol, 0) != count:
                    self.soon()
                    continue
                found = listed.get(symbol, [])
                news = (count, frozenset(order.order_id for order in found))
                if self._told_orders.get(symbol) != news:
                    self._told_orders[symbol] = news
                    self._inquiry.report_orders(symbol, found)

        await connection.call("private/get_open_orders", apply=take)

    async def _look_at_positions(self, connection: Connection, currency: str, symbols: list[str]) -> None:
        fills = self._record.fills
        group = [symbol for symbol in symbols if self._house.instruments[symbol].settlement == currency]
        before = {symbol: fills.get(symbol, 0) for symbol in group}

        def take(head: Head) -> None:
            rows = {row.instrument_name: row for row in orders.decode_positions(head.result)}
            for symbol, count in before.items():
                if fills.get(symbol, 0) != count:
                    self.soon()
                    continue
                row = rows.get(symbol)
                news = (count, "0" if row is None else f"{row.direction} {row.size}")
                if self._told_positions.get(symbol) != news:
                    self._told_positions[symbol] = news
                    self._inquiry.report_position(symbol, row, head)

        await connection.call("private/get_positions", {"currency": currency}, apply=take)
