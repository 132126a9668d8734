"""What Deribit is asked about orders, positions and fills.

What comes in pages is read to its end, which the exchange has to prove: trades (`has_more` false) and the transaction
log (`continuation` null, see `cash`). Open orders and positions have no pages there: private/get_open_orders* and
private/get_positions know neither count nor continuation and return all rows in one array.
Source: docs.deribit.com, those methods, September 2026.
"""

from collections.abc import Callable, Sequence

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import PositionReported
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import orders, rows
from mmd.exchanges.deribit.dialect import told_us
from mmd.exchanges.deribit.messages import (
    InstrumentParams,
    LabelParams,
    OrderData,
    PositionData,
    TradePage,
    TradesParams,
)
from mmd.exchanges.jsonrpc import Head
from mmd.exchanges.known import OVERLAP_MS
from mmd.exchanges.questions import TakeOrders, TakePositions, TakeTrades
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, Unread

RECENT_MS = 23 * 3_600_000  # the exchange keeps older trades in another drawer ("historical")


class DeribitQuestions:
    """Implements Questions; an account is a settlement currency."""

    def __init__(self, house: House) -> None:
        self._house = house

    def account(self, symbol: str) -> str:
        return self._house.instruments[symbol].settlement

    async def open_orders(self, connection: Connection, take: TakeOrders) -> None:
        await connection.call("private/get_open_orders", apply=lambda head: take(self._orders(head)))

    async def open_orders_of(self, connection: Connection, symbol: str, take: TakeOrders) -> None:
        params = InstrumentParams(symbol)
        await connection.call(
            "private/get_open_orders_by_instrument", params, apply=lambda head: take(self._orders(head))
        )

    async def positions(self, connection: Connection, account: str, take: TakePositions) -> None:
        params = {"currency": account}
        await connection.call("private/get_positions", params, apply=lambda head: take(self._positions(head)))

    async def look(
        self,
        connection: Connection,
        accounts: Sequence[str],
        orders: Callable[[], TakeOrders],
        positions: Callable[[str], TakePositions],
    ) -> None:
        await self.open_orders(connection, orders())
        for account in accounts:
            await self.positions(connection, account, positions(account))

    async def trades(self, connection: Connection, symbol: str, since_ms: int, take: TakeTrades) -> None:
        house = self._house
        pages: list[TradePage] = []

        def page(head: Head) -> None:
            found, unread = rows.read_page(head.result)
            pages.append(found)
            now_ns = house.wall_clock_ns()
            take(
                [
                    orders.trade_row(trade, house.instruments.get(trade.instrument_name), now_ns)
                    for trade in found.trades
                ],
                unread,
            )

        now_ms = house.clock.now_ms()
        drawers = (True, False) if since_ms < now_ms - RECENT_MS else (False,)
        for historical in drawers:
            start_ms, more = since_ms, True
            while more:
                params = TradesParams(symbol, start_ms, now_ms + OVERLAP_MS, historical)
                await connection.call("private/get_user_trades_by_instrument_and_time", params, apply=page)
                more = pages[-1].has_more
                if more:
                    # The last millisecond is asked again: the page may have cut through it.
                    last_ms = max((trade.timestamp for trade in pages[-1].trades), default=start_ms)
                    if last_ms <= start_ms:
                        raise ExchangeMalformed(f"{symbol}: more than a page of trades in the millisecond {start_ms}")
                    start_ms = last_ms

    def settled_ms(self, label: str) -> int:
        return 0

    async def order(self, connection: Connection, symbol: str, label: str, take: Callable[[OrderRow], None]) -> int:
        """The state by label forgets an order at some time; the list of open ones does not."""
        house = self._house
        instrument = house.instruments[symbol]
        params = LabelParams(instrument.settlement, label)
        found: OrderData | None = None
        told_ms = 0

        def choose(head: Head) -> None:
            nonlocal found, told_ms
            told_ms = told_ms or told_us(house, head) // 1000
            found = orders.choose(orders.decode_orders(head.result), symbol, label)
            if found is not None:
                take(orders.order_row(found, instrument, house.wall_clock_ns()))

        await connection.call("private/get_order_state_by_label", params, apply=choose)
        if found is None:
            await connection.call("private/get_open_orders_by_label", params, apply=choose)
        return told_ms

    def _orders(self, head: Head) -> OrderListing:
        house = self._house
        found, unread = rows.read_orders(head.result)
        now_ns = house.wall_clock_ns()
        listed = [orders.order_row(order, house.instruments.get(order.instrument_name), now_ns) for order in found]
        return OrderListing(listed, unread, told_us(house, head))

    def _positions(self, head: Head) -> PositionListing:
        found, unread = rows.read_positions(head.result)
        listed = {row.instrument_name: self._position(row) for row in found}
        return PositionListing(listed, unread, told_us(self._house, head))

    def _position(self, row: PositionData) -> PositionReported | Unread:
        instrument = self._house.instruments.get(row.instrument_name)
        if instrument is None:
            return Unread(row.instrument_name, "a position in what is not listed")
        try:
            return orders.position(row, instrument, self._house.wall_clock_ns())
        except ExchangeMalformed as error:
            return Unread(row.instrument_name, str(error))
