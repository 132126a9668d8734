"""Derive's orders, trades and positions as domain values, and ours as its requests. Pure.

Amounts are coins there and lots here, prices USDC there and ticks here. What belongs to a label's chain (`chains`) is
shown under the label, as one order; everything else as the exchange has it.
"""

from decimal import ROUND_CEILING, Decimal

import msgspec

from mmd.domain.actions import AmendOrder, PlaceOrder, ReduceOrder
from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import OpenOrder, OrderAcked, OrderClosed, OrderFilled, PositionReported
from mmd.domain.ids import parse_label
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.exchanges.derive.amounts import ONE, STEP, plain
from mmd.exchanges.derive.chains import Chain, Ending, Sighting
from mmd.exchanges.derive.instruments import SETTLEMENT, Listed
from mmd.exchanges.derive.messages import OrderData, PositionData, TradeData
from mmd.exchanges.derive.requests import OrderParams, ReplaceParams
from mmd.exchanges.derive.signing import SignedOrder
from mmd.exchanges.rows import OrderRow, RowReader, TradeRow, Unread, finite, model, whole_lots

MS = 1_000_000
POST_ONLY, IMMEDIATE_OR_CANCEL = "post_only", "ioc"
RESTING_STATUS = "open"
CLOSED_STATUSES = frozenset({"filled", "cancelled", "expired", "rejected"})
# Times the rate of a fee on what one coin is worth. The exchange takes nothing under twice it; one half more, because
# the index moves between our sight of it and its own, and because a fee is charged by the index of the fill.
FEE_FACTOR = 3
NONCE_DIGITS = 30

read_orders: RowReader[OrderData] = RowReader(OrderData, "amount", "filled_amount", "limit_price")
read_trades: RowReader[TradeData] = RowReader(TradeData, "trade_amount", "trade_price", "trade_fee")
read_positions: RowReader[PositionData] = RowReader(PositionData)


# --- out -----------------------------------------------------------------------------------------


def max_fee_e18(listed: Listed, price_ticks: int, index: float, *, takes: bool) -> int:
    """The most that may be charged for one coin, in units of 1e-18 USDC: 3 * rate * max(index, limit price).

    Refused where it is below 2 * rate * max(index, limit price), each by the exchange's index. `index`: the last we
    saw, 0.0 = none: then an option's strike stands in for it, and where that is less than two thirds of the index the
    order is refused (11023), until an index was seen. An order that `takes` also pays the base fee, once, whatever it
    fills: for one coin that is the most where it fills a single lot.
    """
    instrument = listed.instrument
    worth = max(price_ticks * listed.tick_e18, (int(index) + 1) * ONE if index > 0.0 else 0)
    if index <= 0.0 and instrument.strike is not None:
        worth = max(worth, _up(instrument.strike))
    rate = _up(max(instrument.maker_fee, instrument.taker_fee, Decimal(0)))
    fee = FEE_FACTOR * rate * worth // ONE
    if takes:
        fee += _up(max(listed.base_fee, Decimal(0))) * ONE // listed.lot_e18
    return -(-fee // STEP) * STEP


def _up(value: Decimal) -> int:
    """In units of 1e-18, rounded up: a rate may be finer than what can be signed."""
    return int((value * ONE).to_integral_value(ROUND_CEILING))


def place_params(
    signed: SignedOrder, symbol: str, order: PlaceOrder | ReduceOrder, until_ms: int | None, *, mmp: bool
) -> OrderParams:
    """For private/order. A reduction is never for maker protection to pull."""
    if isinstance(order, ReduceOrder):
        terms = {"time_in_force": IMMEDIATE_OR_CANCEL, "reduce_only": True, "mmp": False}
    else:
        terms = {"time_in_force": POST_ONLY, "reject_post_only": True, "mmp": mmp}
    return OrderParams(**_fields(signed, symbol, order.label, until_ms), **terms)  # type: ignore[arg-type]  # by name


def replace_params(
    signed: SignedOrder,
    symbol: str,
    order: AmendOrder,
    until_ms: int | None,
    old_id: str,
    filled_e18: int,
    *,
    mmp: bool,
) -> ReplaceParams:
    """For private/replace. `filled_e18`: what the old order has filled as we know it, in units of 1e-18."""
    return ReplaceParams(
        **_fields(signed, symbol, order.label, until_ms),  # type: ignore[arg-type]  # by name
        time_in_force=POST_ONLY,
        reject_post_only=True,
        mmp=mmp,
        order_id_to_cancel=old_id,
        expected_filled_amount=plain(filled_e18),
    )


def _fields(signed: SignedOrder, symbol: str, label: str, until_ms: int | None) -> dict[str, object]:
    until = msgspec.UNSET if until_ms is None else until_ms
    return msgspec.structs.asdict(signed) | {"instrument_name": symbol, "label": label, "reject_timestamp": until}


# --- whose ---------------------------------------------------------------------------------------


def is_chained(label: str, symbol: str) -> bool:
    """One of ours, made for this instrument: all orders with it count as one."""
    parsed = parse_label(label)
    return parsed is not None and parsed.symbol == symbol


# --- orders in -----------------------------------------------------------------------------------


def is_over(order: OrderData) -> bool:
    return order.order_status in CLOSED_STATUSES


def unsure(order: OrderData) -> str:
    """Why its record cannot be the last word on it; empty where it can."""
    if is_over(order):
        return ""
    if order.time_in_force == IMMEDIATE_OR_CANCEL:
        return "its end is not listed yet"
    return "" if order.order_status == RESTING_STATUS else f"it is in the unknown status {order.order_status[:40]!r}"


def sighting(order: OrderData, instrument: Instrument) -> Sighting:
    """What its chain wants to know. Raises ExchangeMalformed for amounts off the grid, and a nonce that is none."""
    ending = None
    if is_over(order):
        cause = order.cancel_reason or order.order_status
        if order.time_in_force == IMMEDIATE_OR_CANCEL:
            cause = order.order_status  # that its rest is cancelled is what was asked for
        ending = Ending(cause, order.last_update_timestamp)
    return Sighting(
        order_id=order.order_id,
        nonce=_nonce(order),
        created_ms=order.creation_timestamp,
        filled_lots=whole_lots(order.filled_amount, instrument, f"order {order.order_id}"),
        ending=ending,
    )


def _nonce(order: OrderData) -> int:
    """0 where none is told, as of orders that were no request of their own."""
    text = str(order.nonce)
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()) or len(text) > NONCE_DIGITS:
        raise ExchangeMalformed(f"order {order.order_id}: nonce {text[:NONCE_DIGITS]!r} is no number")
    return int(text)


def open_order(order: OrderData, instrument: Instrument, shown_id: str, before_lots: int) -> OpenOrder:
    """A resting order. `before_lots`: filled by orders before it that count as it. Raises ExchangeMalformed."""
    what = f"order {order.order_id}"
    total = whole_lots(order.amount, instrument, what)
    left = total - whole_lots(order.filled_amount, instrument, what)
    try:
        price_ticks = instrument.grid.ticks(order.limit_price)
    except (OffGrid, ArithmeticError) as error:
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {error}") from error
    if left < 0:
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: filled {order.filled_amount} of {order.amount}")
    return OpenOrder(order.label, shown_id, side_of(order.direction), price_ticks, left, before_lots + total)


def chain_acked(order: OrderData, chain: Chain, instrument: Instrument, received_ns: int) -> OrderAcked:
    """The chain rests as this order. Raises ExchangeMalformed; the fills before it are known."""
    before = chain.before_lots
    assert before is not None, "what has filled before is looked up first"
    found = open_order(order, instrument, chain.label, before)
    return OrderAcked(
        chain.label,
        chain.label,
        found.price_ticks,
        found.remaining_lots,
        found.total_lots,
        received_ns,
        order.last_update_timestamp * MS,
    )


def chain_closed(chain: Chain, received_ns: int, cause: str = "") -> OrderClosed | None:
    """The chain is over, with all its fills; None: it is not, or that is not known (yet)."""
    filled, current = chain.total_filled_lots, chain.current
    if filled is None or current is None or current.ending is None:
        return None
    ending = current.ending
    return OrderClosed(chain.label, chain.label, cause or ending.cause, filled, received_ns, ending.at_ms * MS)


def closed(order: OrderData, seen: Sighting, received_ns: int) -> OrderClosed:
    """An order that is none of a chain is over."""
    assert seen.ending is not None, "it rests"
    at_ns = seen.ending.at_ms * MS
    return OrderClosed(order.label, order.order_id, seen.ending.cause, seen.filled_lots, received_ns, at_ns)


def row(order: OrderData, state: OpenOrder | OrderClosed | Unread, chain: Chain | None = None) -> OrderRow:
    """An order as the session speaks of it: under its own id, or as the chain that it is the newest of."""
    return OrderRow(
        symbol=order.instrument_name,
        label=order.label,
        order_id=order.order_id if chain is None else chain.label,
        resting=not is_over(order),
        state=state,
        created_ms=order.creation_timestamp if chain is None else chain.began_ms,
        unsure=unsure(order),
    )


def plain_row(order: OrderData, instrument: Instrument | None, received_ns: int) -> OrderRow:
    """An order that is none of a chain; `instrument`: None where it is not listed (any more)."""
    state: OpenOrder | OrderClosed | Unread
    try:
        if instrument is None:
            state = Unread(order.instrument_name, f"order {order.order_id} of what is not listed")
        elif is_over(order):
            state = closed(order, sighting(order, instrument), received_ns)
        else:
            state = open_order(order, instrument, order.order_id, 0)
    except ExchangeMalformed as error:
        state = Unread(order.instrument_name, str(error))
    return row(order, state)


# --- trades and positions ------------------------------------------------------------------------


def trade_row(trade: TradeData, instrument: Instrument | None, shown_id: str, received_ns: int) -> TradeRow:
    """An execution; `instrument`: None where it is not listed (any more). Of an RFQ or a transfer it has no label."""
    label = "" if is_no_orders(trade) else trade.label
    event: OrderFilled | Unread
    try:
        if instrument is None:
            event = Unread(trade.instrument_name, f"trade {trade.trade_id} of what is not listed")
        else:
            event = filled(trade, instrument, label, shown_id, received_ns)
    except ExchangeMalformed as error:
        event = Unread(trade.instrument_name, str(error))
    return TradeRow(
        symbol=trade.instrument_name,
        label=label,
        order_id=shown_id,
        trade_id=trade.trade_id,
        at_ms=trade.timestamp,
        event=event,
    )


def is_no_orders(trade: TradeData) -> bool:
    """It came of an RFQ or a transfer: it moves the position, and is no order's."""
    return trade.is_transfer or bool(trade.rfq_id) or bool(trade.quote_id)


def filled(trade: TradeData, instrument: Instrument, label: str, shown_id: str, received_ns: int) -> OrderFilled:
    """One execution; `direction` is our own side. Raises ExchangeMalformed.

    The fee is what was charged: a rebate that is only expected is none until it is paid.
    """
    what = f"trade {trade.trade_id}"
    size_lots = whole_lots(trade.trade_amount, instrument, what)
    price = finite(trade.trade_price, instrument, what)
    if size_lots <= 0 or price <= 0:
        found = f"{trade.trade_amount} at {trade.trade_price}, allowed: above 0"
        raise ExchangeMalformed(f"{what} of {instrument.symbol}: {found}")
    return OrderFilled(
        label=label,
        order_id=shown_id,
        trade_id=trade.trade_id,
        side=side_of(trade.direction),
        price=price,
        size_lots=size_lots,
        fee=finite(trade.trade_fee, instrument, what),
        fee_currency=SETTLEMENT,
        maker=trade.liquidity_role == "maker",
        index=model(trade.index_price, instrument, what),
        exchange_ns=trade.timestamp * MS,
        received_ns=received_ns,
    )


def position(data: PositionData, instrument: Instrument, received_ns: int) -> PositionReported:
    """Signed lots. Raises ExchangeMalformed where that is no whole number of lots, or a number cannot be.

    The average without fees where it is told: ours has none in it. The profit is not taken: whether `unrealized_pnl`
    has fees, funding and what was settled already in it is written nowhere.
    """
    average = data.average_price_excl_fees
    if average is None:
        average = data.average_price or Decimal(0)
    if finite(average, instrument, "average of the position") < 0:
        raise ExchangeMalformed(f"average of the position of {instrument.symbol}: {average}, allowed: at least 0")
    mark = model(data.mark_price, instrument, "mark of the position")
    return PositionReported(whole_lots(data.amount, instrument, "position"), average, received_ns, mark)


def side_of(direction: str) -> Side:
    return Side.BID if direction == "buy" else Side.ASK
