"""Private answers and messages row by row: what can be read is taken, of the rest it is said whose it is. Pure."""

from typing import Generic, TypeVar

import msgspec

from mmd.domain.errors import ExchangeMalformed
from mmd.exchanges.deribit.messages import OrderData, PositionData, TradePage, UserChanges, UserTradeData
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import Unread

R = TypeVar("R", OrderData, PositionData, UserTradeData)
NO_ROWS = msgspec.Raw(b"[]")


class _Named(msgspec.Struct):
    instrument_name: str


class _Page(msgspec.Struct):
    trades: msgspec.Raw
    has_more: bool = False


class _Changes(msgspec.Struct):
    instrument_name: str = ""
    orders: msgspec.Raw = NO_ROWS
    trades: msgspec.Raw = NO_ROWS
    positions: list[msgspec.Raw] = []


_split: Decoder[list[msgspec.Raw]] = Decoder(list[msgspec.Raw])
_decode_name: Decoder[_Named] = Decoder(_Named)
_decode_page: Decoder[_Page] = Decoder(_Page)
_decode_changes: Decoder[_Changes] = Decoder(_Changes)


class Rows(Generic[R]):
    """Reads a list of rows of one kind; in `numbers` of a row nothing but a number is taken."""

    def __init__(self, kind: type[R], *numbers: str) -> None:
        self._whole: Decoder[list[R]] = Decoder(list[kind])  # type: ignore[valid-type]  # a kind at run time
        self._one: Decoder[R] = Decoder(kind)
        self._numbers = numbers

    def __call__(self, raw: msgspec.Raw | bytes) -> tuple[list[R], list[Unread]]:
        """Raises ExchangeMalformed for what is no list."""
        unread: list[Unread] = []
        try:
            found = self._whole(raw)  # by far the most
        except ExchangeMalformed:
            found = []
            for line in _split(raw):
                try:
                    found.append(self._one(line))
                except ExchangeMalformed as error:
                    unread.append(Unread(_name(line), str(error)))
        good = []
        for row in found:
            if odd := self._odd(row):
                unread.append(Unread(row.instrument_name, odd))
            else:
                good.append(row)
        return good, unread

    def _odd(self, row: R) -> str:
        """A decimal may be read from the texts "NaN" and "Infinity"."""
        for name in self._numbers:
            value = getattr(row, name)
            if value is not None and not value.is_finite():
                return f"{name} {value} is no number"
        return ""


def _name(line: msgspec.Raw) -> str:
    try:
        return _decode_name(line).instrument_name
    except ExchangeMalformed:
        return ""


read_orders: Rows[OrderData] = Rows(OrderData, "amount", "filled_amount")
read_positions: Rows[PositionData] = Rows(PositionData)
read_trades: Rows[UserTradeData] = Rows(UserTradeData, "amount", "price", "fee")


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
