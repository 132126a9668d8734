"""Private answers and messages row by row: what can be read is taken, of the rest it is said whose it is. Pure."""

import msgspec

from mmd.exchanges.deribit.messages import OrderData, PositionData, TradePage, UserChanges, UserTradeData
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import RowReader, Unread

NO_ROWS = msgspec.Raw(b"[]")


class _Page(msgspec.Struct):
    trades: msgspec.Raw
    has_more: bool = False


class _Changes(msgspec.Struct):
    instrument_name: str = ""
    orders: msgspec.Raw = NO_ROWS
    trades: msgspec.Raw = NO_ROWS
    positions: list[msgspec.Raw] = []


_decode_page: Decoder[_Page] = Decoder(_Page)
_decode_changes: Decoder[_Changes] = Decoder(_Changes)

read_orders: RowReader[OrderData] = RowReader(OrderData, "amount", "filled_amount")
read_positions: RowReader[PositionData] = RowReader(PositionData)
read_trades: RowReader[UserTradeData] = RowReader(UserTradeData, "amount", "price", "fee")


def read_page(raw: msgspec.Raw | bytes) -> tuple[TradePage, list[Unread]]:
    """The result of private/get_user_trades_*. Raises ExchangeMalformed for what is no page."""
    page = _decode_page(raw)
    trades, unread = read_trades(page.trades)
    return TradePage(trades, page.has_more), unread


def read_changes(raw: msgspec.Raw | bytes) -> tuple[UserChanges, list[Unread]]:
    """Data of user.changes.*; a row without a name of its own is of the message's instrument.

    Raises ExchangeMalformed for what is no such message.
    """
    changes = _decode_changes(raw)
    orders, unread_orders = read_orders(changes.orders)
    trades, unread_trades = read_trades(changes.trades)
    unread = [Unread(row.symbol or changes.instrument_name, row.detail) for row in unread_orders + unread_trades]
    return UserChanges(changes.instrument_name, orders, trades, changes.positions), unread
