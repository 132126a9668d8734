"""What exchanges list, row by row, as all of the session speaks of it. Pure.

What cannot be read, or counted in lots and ticks, is a row as well, with what is wrong: it stops its own symbol only.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Generic, Protocol, TypeVar

import msgspec

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import OpenOrder, OrderAcked, OrderClosed, OrderFilled, PositionReported
from mmd.domain.instruments import Instrument
from mmd.domain.units import whole
from mmd.exchanges.jsonrpc import Decoder


class Refused(msgspec.Struct, frozen=True):
    """An instrument that is listed but cannot be quoted, and why."""

    symbol: str
    reason: str


class Unread(msgspec.Struct, frozen=True):
    """What cannot be read or counted. `symbol`: of which instrument; empty where not even that can be read."""

    symbol: str
    detail: str


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it was listed or told. Unix ms by the exchange's clock; 0 = not told.

    `resting`: the exchange says that it is open, readable or not. `unsure`: why that cannot be its last word;
    empty where it can.
    """

    symbol: str
    label: str
    order_id: str
    resting: bool
    state: OpenOrder | OrderClosed | Unread
    created_ms: int = 0
    unsure: str = ""

    @property
    def filled_lots(self) -> int:
        """What it has traded; 0 where that cannot be counted."""
        if isinstance(self.state, OpenOrder):
            return self.state.total_lots - self.state.remaining_lots
        return self.state.filled_lots if isinstance(self.state, OrderClosed) else 0


class TradeRow(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as it was listed or told. `at_ms`: when it was, by the exchange's clock."""

    symbol: str
    label: str
    order_id: str
    trade_id: str
    at_ms: int
    event: OrderFilled | Unread

    def is_of(self, label: str, order_id: str) -> bool:
        """A fill of this order: by its label, or by the id that is known of it; "" = none is."""
        return self.label == label or (bool(order_id) and self.order_id == order_id)


class OrderListing(msgspec.Struct, frozen=True):
    """Open orders. `unread`: rows that are none. `told_us`: when the exchange looked, or before; its clock, µs."""

    rows: list[OrderRow]
    unread: list[Unread]
    told_us: int


class PositionListing(msgspec.Struct, frozen=True):
    """Positions by symbol; who is absent is flat. The rest as in OrderListing."""

    rows: dict[str, PositionReported | Unread]
    unread: list[Unread]
    told_us: int


def acked(order: OpenOrder, received_ns: int) -> OrderAcked:
    """The event that says so."""
    return OrderAcked(
        order.label, order.order_id, order.price_ticks, order.remaining_lots, order.total_lots, received_ns
    )


def told_apart(unread: Sequence[Unread]) -> dict[str, str]:
    """What cannot be read, by symbol. Raises ExchangeMalformed where a row does not say whose it is."""
    found: dict[str, str] = {}
    for row in unread:
        if not row.symbol:
            raise ExchangeMalformed(f"a row that does not say of what: {row.detail}")
        found.setdefault(row.symbol, row.detail)
    return found


# --- numbers -------------------------------------------------------------------------------------


def finite(value: Decimal, instrument: Instrument, what: str) -> Decimal:
    """The value; ExchangeMalformed for the texts "NaN" and "Infinity", which a decimal may be read from."""
    if not value.is_finite():
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {value} is no number")
    return value


def model(value: Decimal | None, instrument: Instrument, what: str) -> float:
    """A model value, 0.0 where there is none. ExchangeMalformed for what is no number, and for what no float holds."""
    found = float(finite(value or Decimal(0), instrument, what))
    if abs(found) == float("inf"):
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {value!s:.30} is too large")
    return found


def whole_lots(amount: Decimal, instrument: Instrument, what: str) -> int:
    """An amount in lots. Raises ExchangeMalformed where that is no whole number."""
    try:
        return whole(amount, instrument.lot)
    except (OffGrid, ArithmeticError) as error:
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {error}") from error


# --- reading -------------------------------------------------------------------------------------


class Named(Protocol):
    """A row that says of which instrument it is."""

    instrument_name: str


R = TypeVar("R", bound=Named)


class _Name(msgspec.Struct):
    instrument_name: str


_split: Decoder[list[msgspec.Raw]] = Decoder(list[msgspec.Raw])
_decode_name: Decoder[_Name] = Decoder(_Name)


class RowReader(Generic[R]):
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
