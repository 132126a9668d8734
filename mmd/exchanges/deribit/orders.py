"""Deribit's private messages as domain events: orders, fills, positions, account. Pure.

Where an order carries one of our labels, the label says its side; elsewhere the direction does
(documentation and recordings disagree on whose side a trade's direction is).
"""

from decimal import Decimal

import msgspec

from mmd.domain.actions import CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import Mail, OpenOrder, OrderAcked, OrderClosed, OrderFilled, PositionReported
from mmd.domain.events import RequestLost as Lost
from mmd.domain.ids import parse_label
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.domain.units import whole
from mmd.exchanges.api import Account
from mmd.exchanges.deribit.codec import IMMEDIATE_OR_CANCEL
from mmd.exchanges.deribit.messages import (
    OrderData,
    OrderResult,
    PositionData,
    Summaries,
    UserChanges,
    UserTradeData,
)
from mmd.exchanges.guards import PULLED
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.record import not_cancelled
from mmd.exchanges.rows import OrderRow, TradeRow, Unread, finite, whole_lots

MS = 1_000_000
CLOSED_STATES = frozenset({"filled", "cancelled", "rejected"})
# "speed_bumped": held some milliseconds before it may match; it will rest or fill.
RESTING_STATES = frozenset({"open", "untriggered", "triggered", "speed_bumped"})

decode_changes: Decoder[UserChanges] = Decoder(UserChanges)
decode_orders: Decoder[list[OrderData]] = Decoder(list[OrderData])
decode_positions: Decoder[list[PositionData]] = Decoder(list[PositionData])
decode_summaries: Decoder[Summaries] = Decoder(Summaries)
_decode_price: Decoder[Decimal] = Decoder(Decimal)
_decode_order: Decoder[OrderData] = Decoder(OrderData)
_decode_result: Decoder[OrderResult] = Decoder(OrderResult)


def filled(trade: UserTradeData, instrument: Instrument, received_ns: int) -> OrderFilled:
    """One execution. Raises ExchangeMalformed where its size is no whole number of lots, or a number cannot be."""
    what = f"trade {trade.trade_id}"
    size_lots = whole_lots(trade.amount, instrument, what)
    if size_lots <= 0 or finite(trade.price, instrument, what) <= 0:
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {trade.amount} at {trade.price}, allowed: above 0")
    return OrderFilled(
        label=trade.label,
        order_id=trade.order_id,
        trade_id=trade.trade_id,
        side=_side(trade.label, trade.direction),
        price=trade.price,
        size_lots=size_lots,
        fee=finite(trade.fee, instrument, what),
        fee_currency=trade.fee_currency,
        maker=trade.liquidity == "M",
        index=trade.index_price or 0.0,
        exchange_ns=trade.timestamp * MS,
        received_ns=received_ns,
    )


def acked(order: OrderData, instrument: Instrument, received_ns: int) -> OrderAcked:
    """A resting order."""
    price_ticks, remaining, total = _resting(order, instrument)
    since_ns = order.last_update_timestamp * MS
    return OrderAcked(order.label, order.order_id, price_ticks, remaining, total, received_ns, since_ns)


def closed(order: OrderData, instrument: Instrument, received_ns: int) -> OrderClosed:
    """An order that is no longer open; the cause in the exchange's words.

    An order that never rests has no cause beside its state: that its rest is cancelled is what was asked for.
    """
    lots = whole_lots(order.filled_amount or Decimal(0), instrument, f"order {order.order_id}")
    cause = order.cancel_reason or order.order_state
    if order.mmp_cancelled:
        cause = PULLED
    elif order.time_in_force == IMMEDIATE_OR_CANCEL:
        cause = order.order_state
    since_ns = order.last_update_timestamp * MS
    return OrderClosed(order.label, order.order_id, cause, lots, received_ns, since_ns)


def open_order(order: OrderData, instrument: Instrument) -> OpenOrder:
    """One row of open orders. Raises ExchangeMalformed for an order without a price on the grid."""
    price_ticks, remaining, total = _resting(order, instrument)
    side = _side(order.label, order.direction)
    return OpenOrder(order.label, order.order_id, side, price_ticks, remaining, total)


def _resting(order: OrderData, instrument: Instrument) -> tuple[int, int, int]:
    """(price in ticks, lots that may still fill, lots in total)"""
    if order.amount is None:
        raise ExchangeMalformed(f"order {order.order_id} of {instrument.symbol} has no amount")
    try:
        price_ticks = instrument.grid.ticks(_decode_price(order.price))
        total = whole(order.amount, instrument.lot)
        done = whole(order.filled_amount, instrument.lot) if order.filled_amount else 0
    except (OffGrid, ArithmeticError) as error:
        raise ExchangeMalformed(f"order {order.order_id} of {instrument.symbol}: {error}") from error
    return (price_ticks, total - done, total)


def position(data: PositionData, instrument: Instrument, received_ns: int) -> PositionReported:
    """Signed lots; a size that contradicts its direction is taken by the direction. Profit: since it was opened.

    Raises ExchangeMalformed where its size is no whole number of lots, or a number cannot be.
    """
    lots = whole_lots(data.size, instrument, "position")
    if data.direction == "sell":
        lots = -abs(lots)
    average = finite(data.average_price or Decimal(0), instrument, "average of the position")
    if average < 0:
        raise ExchangeMalformed(f"average of the position of {instrument.symbol}: {average}, allowed: at least 0")
    profit = data.total_profit_loss
    if profit is not None:
        finite(profit, instrument, "profit of the position")
    return PositionReported(lots, average, received_ns, data.mark_price or 0.0, profit)


def order_state(order: OrderData, instrument: Instrument, received_ns: int) -> OrderAcked | OrderClosed:
    """Open or closed, as the exchange says. Raises ExchangeMalformed for a state that is neither."""
    if order.order_state in CLOSED_STATES:
        return closed(order, instrument, received_ns)
    if order.order_state in RESTING_STATES:
        return acked(order, instrument, received_ns)
    raise ExchangeMalformed(f"order {order.order_id} is in the unknown state {order.order_state!r}")


def must_end(order: OrderData) -> bool:
    """An immediate-or-cancel order that is not closed: it cannot stay so, and it never rests."""
    return order.time_in_force == IMMEDIATE_OR_CANCEL and order.order_state in RESTING_STATES


def order_row(order: OrderData, instrument: Instrument | None, received_ns: int) -> OrderRow:
    """An order as it is listed or told; `instrument`: None where it is not listed (any more)."""
    resting = order.order_state not in CLOSED_STATES
    unsure = ""
    if must_end(order):
        unsure = "its end is not listed yet"
    elif resting and order.order_state not in RESTING_STATES:
        unsure = f"it is in the unknown state {order.order_state!r}"
    state: OpenOrder | OrderClosed | Unread
    try:
        if instrument is None:
            state = Unread(order.instrument_name, f"order {order.order_id} of what is not listed")
        elif resting:
            state = open_order(order, instrument)
        else:
            state = closed(order, instrument, received_ns)
    except ExchangeMalformed as error:
        state = Unread(order.instrument_name, str(error))
    return OrderRow(
        symbol=order.instrument_name,
        label=order.label,
        order_id=order.order_id,
        resting=resting,
        state=state,
        created_ms=order.creation_timestamp,
        unsure=unsure,
    )


def trade_row(trade: UserTradeData, instrument: Instrument | None, received_ns: int) -> TradeRow:
    """An execution as it is listed or told; `instrument`: None where it is not listed (any more)."""
    event: OrderFilled | Unread
    try:
        if instrument is None:
            event = Unread(trade.instrument_name, f"trade {trade.trade_id} of what is not listed")
        else:
            event = filled(trade, instrument, received_ns)
    except ExchangeMalformed as error:
        event = Unread(trade.instrument_name, str(error))
    return TradeRow(
        symbol=trade.instrument_name,
        label=trade.label,
        order_id=trade.order_id,
        trade_id=trade.trade_id,
        at_ms=trade.timestamp,
        event=event,
    )


def choose(rows: list[OrderData], symbol: str, label: str) -> OrderData | None:
    """The row of this order: one that rests before one that does not, the newest of those."""
    found = [row for row in rows if row.instrument_name == symbol and row.label == label]
    return max(found, key=lambda row: (row.order_state in RESTING_STATES, row.last_update_timestamp), default=None)


def reply(order: Order, raw: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[Mail]:
    """The answer to a place, an amend, a reduction or a cancel by id: fills first, then what the order is now."""
    if isinstance(order, CancelOrder):
        state, trades = _decode_order(raw), []
    else:
        result = _decode_result(raw)
        state, trades = result.order, result.trades
    if state.instrument_name != instrument.symbol:
        raise ExchangeMalformed(f"answer for {state.instrument_name} to a request for {instrument.symbol}")
    if not isinstance(order, PlaceOrder | ReduceOrder) and state.order_id != order.order_id:
        raise ExchangeMalformed(f"answer for order {state.order_id} to a request for {order.order_id}")
    # An order that an earlier process placed may have lost its label in the answer: ours is the one asked for.
    state.label = order.label
    for trade in trades:
        trade.label = trade.label or order.label
    events: list[Mail] = [filled(trade, instrument, received_ns) for trade in trades]
    if isinstance(order, ReduceOrder):
        state.time_in_force = IMMEDIATE_OR_CANCEL
    if must_end(state):
        # Held before it may match, maybe: it will be gone, and what it traded has to be asked.
        events.append(Lost(order.label, f"not closed yet: {state.order_state}", received_ns))
        return events
    verdict = order_state(state, instrument, received_ns)
    events.append(verdict)
    if isinstance(order, CancelOrder) and isinstance(verdict, OrderAcked):
        events.append(not_cancelled(order, received_ns))
    return events


def accounts(summaries: Summaries) -> list[Account]:
    """The account, one row a currency. Raises ExchangeMalformed for what is no number."""
    for row in summaries.summaries:
        for amount in (row.equity, row.balance, row.initial_margin, row.maintenance_margin):
            if not amount.is_finite():
                raise ExchangeMalformed(f"account in {row.currency}: {amount} is no number")
    return [
        Account(
            currency=row.currency,
            equity=row.equity,
            balance=row.balance,
            initial_margin=row.initial_margin,
            maintenance_margin=row.maintenance_margin,
        )
        for row in summaries.summaries
    ]


def _side(label: str, direction: str) -> Side:
    parsed = parse_label(label)
    if parsed is not None:
        return parsed.side
    return Side.BID if direction == "buy" else Side.ASK
