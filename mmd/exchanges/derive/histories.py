"""Derive's histories of our orders and trades, which come in pages, the newest first, and are read to their proven end.

It is proven where every row that the exchange counts was read, each once: of rows with the same time one may stand on
two pages, and another on none.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from mmd.domain.errors import ExchangeMalformed
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.messages import OrderData, Pagination, TradeData
from mmd.exchanges.derive.pages import read_pages
from mmd.exchanges.derive.requests import HistoryParams
from mmd.exchanges.jsonrpc import Decoder, Head
from mmd.exchanges.rows import RowReader, Unread

R = TypeVar("R", OrderData, TradeData)


class _Page(msgspec.Struct):
    pagination: Pagination
    orders: msgspec.Raw = msgspec.Raw(b"[]")
    trades: msgspec.Raw = msgspec.Raw(b"[]")


_decode_page: Decoder[_Page] = Decoder(_Page)


class _Part(msgspec.Struct, frozen=True):
    """A page whose rows were taken. `names`: what tells its rows apart; `unread`: how many have none."""

    count: int
    pages: int
    names: list[tuple[str, ...]]
    unread: int


class History(Generic[R]):
    """One of them. `name`: what tells a row from all others."""

    def __init__(
        self,
        method: str,
        part: Callable[[_Page], msgspec.Raw],
        rows: RowReader[R],
        name: Callable[[R], tuple[str, ...]],
    ) -> None:
        self._method = method
        self._part = part
        self._rows: RowReader[R] = rows
        self._name: Callable[[R], tuple[str, ...]] = name

    async def read(
        self, connection: Connection, params: HistoryParams, take: Callable[[list[R], list[Unread]], None]
    ) -> None:
        """Read all of it; rows may be taken more than once. ExchangeMalformed where the end is not proven."""

        async def ask(number: int) -> _Part:
            parts: list[_Part] = []

            def apply(head: Head) -> None:
                page = _decode_page(head.result)
                found, unread = self._rows(self._part(page))
                names = [self._name(row) for row in found]
                parts.append(_Part(page.pagination.count, page.pagination.num_pages, names, len(unread)))
                take(found, unread)

            await connection.call(self._method, msgspec.structs.replace(params, page=number), apply=apply)
            part = parts[0]
            if number < part.pages and not (part.names or part.unread):
                raise ExchangeMalformed(f"{self._method}: page {number} of {part.pages} is empty")
            return part

        await read_pages(self._method, ask, _gap)


def _gap(parts: Sequence[_Part]) -> str:
    """Why not all rows were read; empty where they were."""
    rows = len({name for part in parts for name in part.names}) + sum(part.unread for part in parts)
    return "" if rows == parts[0].count else f"{rows} rows in {len(parts)} pages, counted are {parts[0].count}"


ORDERS: History[OrderData] = History(
    "private/get_order_history", lambda page: page.orders, orders.read_orders, lambda order: (order.order_id,)
)
# Both orders of a trade with ourselves carry the same trade id.
TRADES: History[TradeData] = History(
    "private/get_trade_history",
    lambda page: page.trades,
    orders.read_trades,
    lambda trade: (trade.trade_id, trade.order_id or "", trade.instrument_name, trade.direction),
)
