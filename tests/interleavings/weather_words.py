"""From the engine's words to the domain's, and both in words for people."""

from decimal import Decimal
from typing import Any

from weather_market import INSTRUMENTS

from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, ReduceOrder
from mmd.domain.reasons import Side
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Order, UserTrade


def direction_of(side: Side) -> Direction:
    return Direction.BUY if side is Side.BID else Direction.SELL


def side_of(direction: Direction) -> Side:
    return Side.BID if direction is Direction.BUY else Side.ASK


def lots_of(symbol: str, amount: Decimal) -> int:
    lots = amount / INSTRUMENTS[symbol].lot
    assert lots == int(lots)
    return int(lots)


def acked(order: Order) -> ev.OrderAcked:
    name = order.instrument_name
    price = INSTRUMENTS[name].grid.ticks(order.price)
    remaining, total = lots_of(name, order.remaining), lots_of(name, order.amount)
    return ev.OrderAcked(order.label, order.order_id, price, remaining, total, 0)


def open_order(order: Order) -> ev.OpenOrder:
    ack = acked(order)
    side = side_of(order.direction)
    return ev.OpenOrder(order.label, order.order_id, side, ack.price_ticks, ack.remaining_lots, ack.total_lots)


def closed(order: Order) -> ev.OrderClosed:
    cause = order.cancel_reason or order.state
    return ev.OrderClosed(order.label, order.order_id, str(cause), lots_of(order.instrument_name, order.filled), 0)


def filled(trade: UserTrade) -> ev.OrderFilled:
    return ev.OrderFilled(
        label=trade.label,
        order_id=trade.order_id,
        trade_id=trade.trade_id,
        side=side_of(trade.direction),
        price=trade.price,
        size_lots=lots_of(trade.instrument_name, trade.amount),
        fee=trade.fee,
        fee_currency=trade.fee_currency,
        maker=trade.maker,
        index=float(trade.index_price),
        exchange_ns=trade.timestamp * 1_000_000,
        received_ns=0,
    )


def stamped(event: Any, now_ns: int) -> Any:
    """The same event, heard now."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return type(event)(**(fields | {"received_ns": now_ns}))


def shown(order: Any) -> str:
    match order:
        case PlaceOrder(label=label, price_ticks=price, size_lots=lots):
            return f"place {short(label)} {lots} at {price}"
        case AmendOrder(label=label, price_ticks=price, total_lots=lots):
            return f"amend {short(label)} to {lots} at {price}"
        case CancelOrder(label=label):
            return f"cancel {short(label)}"
        case ReduceOrder(label=label, price_ticks=price, size_lots=lots):
            return f"reduce {short(label)} {lots} at {price}"
        case _:
            return str(order)


def short(label: str) -> str:
    """Without who and when: the symbol's kind, the side, the number."""
    parts = label.split("-")
    return f"{'-'.join(parts[2:-3])}:{parts[-3]}{parts[-1]}" if len(parts) > 5 else label


def said(event: Any) -> str:
    match event:
        case ev.OrderAcked(label=label, price_ticks=price, remaining_lots=left, total_lots=total):
            return f"{short(label)} rests at {price}, {left} of {total} left"
        case ev.OrderClosed(label=label, cause=cause, filled_lots=lots):
            return f"{short(label)} closed ({cause}), {lots} filled"
        case ev.OrderRefused(label=label, code=code, gone=gone):
            return f"{short(label)} refused ({code}){', gone' if gone else ''}"
        case ev.OrderFilled(label=label, trade_id=trade, size_lots=lots):
            return f"{short(label)} filled {lots} (trade {trade})"
        case ev.OrderAbsent(label=label):
            return f"{short(label)} absent"
        case ev.RequestLost(label=label):
            return f"{short(label)} in doubt"
        case _:
            return str(event)
