"""How Derive takes orders and tells of them: a label's chain of orders is shown as one, under the label as its id."""

from collections.abc import Sequence

import msgspec

from mmd.domain.actions import AmendOrder, CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import Mail, OrderClosed, RequestLost
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Fault
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.chains import Chain, Ending
from mmd.exchanges.derive.errors import ERRORS, FILLED_DIFFERS, MMP_FROZEN
from mmd.exchanges.derive.messages import (
    CancelledCount,
    OrderData,
    OrderResult,
    ReplaceResult,
    RequestError,
    TradeData,
)
from mmd.exchanges.derive.requests import CancelParams, LabelParams
from mmd.exchanges.derive.room import Room
from mmd.exchanges.guards import PULLED
from mmd.exchanges.jsonrpc import Decoder, RpcError
from mmd.exchanges.record import InDoubt, Told, not_cancelled
from mmd.exchanges.rows import OrderRow, TradeRow, Unread

USER_REQUEST = "user_request"

_decode_result: Decoder[OrderResult] = Decoder(OrderResult)
_decode_replace: Decoder[ReplaceResult] = Decoder(ReplaceResult)
_decode_order: Decoder[OrderData] = Decoder(OrderData)
_decode_count: Decoder[CancelledCount] = Decoder(CancelledCount)


def trade_shown(room: Room, trade: TradeData) -> str:
    """The id under which the order of this trade is shown."""
    label, order_id = trade.label, trade.order_id or ""
    if orders.is_no_orders(trade) or not orders.is_chained(label, trade.instrument_name):
        return order_id
    chain = room.chains.get(label)
    return label if chain is None or chain.shows(order_id) else order_id


class DeriveOrders:
    """Implements record.Orders."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._orders, self._trades = (f"{room.subaccount}.{topic}" for topic in ("orders", "trades"))
        self.channels: Sequence[Sequence[str]] = ((self._orders, self._trades),)

    # --- requests ---

    def request(self, instrument: Instrument, order: Order, until_ms: int | None, *, mmp: bool) -> tuple[str, object]:
        match order:
            case PlaceOrder() | ReduceOrder():
                return self._place(instrument.symbol, order, until_ms, mmp=mmp)
            case AmendOrder():
                return self._replace(instrument, order, until_ms, mmp=mmp)
            case CancelOrder():
                return self._cancel(instrument.symbol, order.label, order.order_id)

    def _place(
        self, symbol: str, order: PlaceOrder | ReduceOrder, until_ms: int | None, *, mmp: bool
    ) -> tuple[str, object]:
        mmp = mmp and isinstance(order, PlaceOrder)
        fee = self._max_fee(symbol, order.price_ticks, takes=isinstance(order, ReduceOrder))
        signed = self._room.sign(symbol, order.side, order.price_ticks, order.size_lots, fee, mmp=mmp)
        self._sent(self._room.chains.begin(order.label), order, int(signed.nonce), "", until_ms)
        return "private/order", orders.place_params(signed, symbol, order, until_ms, mmp=mmp)

    def _replace(
        self, instrument: Instrument, order: AmendOrder, until_ms: int | None, *, mmp: bool
    ) -> tuple[str, object]:
        """Only of an order whose id, and whose fills before it, are known: the exchange cancels it where it differs."""
        room, symbol = self._room, instrument.symbol
        chain = room.chains.get(order.label)
        current = None if chain is None else chain.current
        if chain is None or current is None or current.ending is not None or chain.unsettled:
            raise InDoubt("which order rests with this label is not known: it is asked for")
        before = chain.before_lots
        filled_lots = -1 if before is None else order.total_lots - order.remaining_lots - before
        if order.order_id != order.label or filled_lots < 0:
            raise InDoubt("what it has filled is not known: it is asked for")
        fee = self._max_fee(symbol, order.price_ticks, takes=False)
        signed = room.sign(symbol, order.side, order.price_ticks, order.remaining_lots, fee, mmp=mmp)
        self._sent(chain, order, int(signed.nonce), current.order_id, until_ms)
        filled_e18 = filled_lots * room.listed[symbol].lot_e18
        params = orders.replace_params(signed, symbol, order, until_ms, current.order_id, filled_e18, mmp=mmp)
        return "private/replace", params

    def _max_fee(self, symbol: str, price_ticks: int, *, takes: bool) -> int:
        room = self._room
        return orders.max_fee_e18(room.listed[symbol], price_ticks, room.indexes.get(symbol, 0.0), takes=takes)

    def _sent(self, chain: Chain, order: Order, nonce: int, old_id: str, until_ms: int | None) -> None:
        now_ms = self._room.house.clock.now_ms()
        chain.sent(order, nonce, old_id, now_ms, until_ms or now_ms + self._room.valid_ms)

    def cancel(self, row: OrderRow) -> tuple[str, object]:
        return self._cancel(row.symbol, row.label, row.order_id)

    def _cancel(self, symbol: str, label: str, order_id: str) -> tuple[str, object]:
        """The order with this id; by its label where that may be another one by now."""
        subaccount = self._room.subaccount
        if order_id not in ("", label):
            return "private/cancel", CancelParams(subaccount, symbol, order_id)
        chain = self._room.chains.get(label)
        current = None if chain is None else chain.current
        if chain is None or current is None or current.ending is not None or chain.unsettled:
            return "private/cancel_by_label", LabelParams(subaccount, symbol, label)
        return "private/cancel", CancelParams(subaccount, symbol, current.order_id)

    # --- answers ---

    def reply(self, order: Order, raw: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[Mail] | None:
        if isinstance(order, CancelOrder):
            return self._cancelled(order, raw, instrument, received_ns)
        chain = self._room.chains.of(order.label)
        try:
            if isinstance(order, AmendOrder):
                return self._replaced(chain, order, raw, instrument, received_ns)
            return self._placed(chain, order, raw, instrument, received_ns)
        except ExchangeMalformed:
            chain.lost(order)
            raise

    def _placed(
        self, chain: Chain, order: PlaceOrder | ReduceOrder, raw: msgspec.Raw, instrument: Instrument, received_ns: int
    ) -> list[Mail]:
        result = _decode_result(raw)
        return self._made(chain, order, result.order, result.trades, instrument, received_ns)

    def _replaced(
        self, chain: Chain, order: AmendOrder, raw: msgspec.Raw, instrument: Instrument, received_ns: int
    ) -> list[Mail]:
        result = _decode_replace(raw)
        old, flight = result.cancelled_order, chain.flight(order)
        _check(old, instrument)
        if flight is not None and old.order_id != flight.old_id:
            raise ExchangeMalformed(f"order {old.order_id} was cancelled, asked for was {flight.old_id}")
        old.label = order.label
        chain.take(orders.sighting(old, instrument))
        error = result.create_order_error
        if result.order is None and (why := _half_told(old, error)):
            chain.lost(order)
            return [RequestLost(order.label, why, received_ns)]
        if old.order_id in chain.members:
            chain.end(old.order_id, Ending(old.cancel_reason or USER_REQUEST, old.last_update_timestamp))
        if result.order is not None:
            return self._made(chain, order, result.order, result.trades or [], instrument, received_ns)
        assert error is not None, "that none was made is told with a reason"
        if error.code in ERRORS.not_live:
            self._room.house.on_not_live(instrument.symbol)
        return self._not_made(chain, order, RpcError(error.code, error.message, error.data), received_ns)

    def _not_made(self, chain: Chain, order: AmendOrder, error: RpcError, received_ns: int) -> list[Mail]:
        """A replace cancelled the old order and made none: a refusal like any other, and the chain's end.

        That it has filled more than we knew is nobody's refusal.
        """
        chain.answered(order)
        no = [] if error.code == FILLED_DIFFERS else [ERRORS.refused(order, error, received_ns)]
        closing = orders.chain_closed(chain, received_ns, _failed(error))
        why = f"{error.text} ({error.code}): it is gone; its fills have to be asked for"
        return [*no, closing or RequestLost(order.label, why, received_ns)]

    def _made(
        self,
        chain: Chain,
        order: Order,
        data: OrderData,
        trades: list[TradeData],
        instrument: Instrument,
        received_ns: int,
    ) -> list[Mail]:
        """The order that a request made joins its chain: its fills, then what the chain is now."""
        _check(data, instrument)
        data.label = order.label
        flight, seen = chain.flight(order), orders.sighting(data, instrument)
        if flight is not None and seen.nonce != flight.nonce:
            raise ExchangeMalformed(f"order {data.order_id} has the nonce {seen.nonce}, sent was {flight.nonce}")
        if chain.take(seen) is None:
            raise ExchangeMalformed(f"order {data.order_id} is none that was asked for")
        events: list[Mail] = [
            orders.filled(trade, instrument, chain.label, chain.label, received_ns) for trade in trades
        ]
        if why := orders.unsure(data):
            chain.lost(order)
            return [*events, RequestLost(order.label, why, received_ns)]
        chain.answered(order)
        return [*events, *self._verdict(chain, data, instrument, received_ns)]

    def _verdict(self, chain: Chain, data: OrderData, instrument: Instrument, received_ns: int) -> list[Mail]:
        """What the chain is, now that this order of it was answered for."""
        current = chain.current
        assert current is not None, "it was just answered for"
        if current.order_id != data.order_id:
            return []  # late: another one took its place, which has an answer of its own
        if chain.before_lots is None:
            return [RequestLost(chain.label, "what orders before it have filled has to be asked for", received_ns)]
        if current.ending is None:
            return [orders.chain_acked(data, chain, instrument, received_ns)]
        closing = orders.chain_closed(chain, received_ns)
        return [] if closing is None else [closing]

    def _cancelled(
        self, order: CancelOrder, raw: msgspec.Raw, instrument: Instrument, received_ns: int
    ) -> list[Mail] | None:
        if _decode_count(raw).cancelled_orders is not msgspec.UNSET:
            return None
        data = _decode_order(raw)
        _check(data, instrument)
        seen = orders.sighting(data, instrument)
        chain = self._room.chains.get(order.label)
        if order.order_id not in ("", order.label) or chain is None or chain.take(seen) is None:
            if seen.ending is not None:
                return [orders.closed(data, seen, received_ns)]
            return [not_cancelled(order, received_ns)]
        events = self._verdict(chain, data, instrument, received_ns)
        if seen.ending is None:
            return [*events, not_cancelled(order, received_ns)]
        return events or [RequestLost(order.label, "another order may have taken its place", received_ns)]

    def refused(self, order: Order, error: RpcError, received_ns: int, remark: str) -> list[Mail]:
        no = ERRORS.refused(order, error, received_ns, remark)
        if isinstance(order, CancelOrder):
            return [no]
        chain = self._room.chains.of(order.label)
        if isinstance(order, AmendOrder) and error.code == FILLED_DIFFERS:
            return self._not_made(chain, order, error, received_ns)
        if ERRORS.meaning(error.code).fault is Fault.AMBIGUOUS:
            chain.lost(order)
            return [no]
        chain.answered(order)
        closing = orders.chain_closed(chain, received_ns)
        return [no] if closing is None else [no, closing]

    def lost(self, order: Order) -> None:
        chain = self._room.chains.get(order.label)
        if chain is not None:
            chain.lost(order)

    # --- channels ---

    def told(self, channel: str, data: msgspec.Raw, received_ns: int) -> Told:
        if channel == self._trades:
            trades, unread = orders.read_trades(data)
            return Told([self._trade(trade, received_ns) for trade in trades], (), unread, bool(trades))
        if channel != self._orders:
            return Told()
        found, unread = orders.read_orders(data)
        rows: list[OrderRow] = []
        changed: list[str] = []
        strange = False
        for order in found:
            told = self._told(order, received_ns)
            if told is None:
                changed.append(order.instrument_name)
                strange |= self._is_strange(order)
            else:
                rows.append(told)
        return Told((), rows, unread, strange, changed)

    def _trade(self, trade: TradeData, received_ns: int) -> TradeRow:
        room = self._room
        return orders.trade_row(trade, room.instrument(trade.instrument_name), trade_shown(room, trade), received_ns)

    def _told(self, order: OrderData, received_ns: int) -> OrderRow | None:
        """What an order that changed makes of its chain, or of itself where it is of none; None: nothing to tell."""
        instrument = self._room.instrument(order.instrument_name)
        if instrument is None or not orders.is_chained(order.label, instrument.symbol):
            return orders.plain_row(order, instrument, received_ns)
        chain = self._room.chains.of(order.label)
        if not chain.complete and order.order_id not in chain.members and order.order_id not in chain.twins:
            return None  # which of an earlier process's orders are one, a list of all shows
        try:
            before = chain.total_filled_lots
            if chain.take(orders.sighting(order, instrument)) is None:
                return orders.plain_row(order, instrument, received_ns)
        except ExchangeMalformed as error:
            return orders.row(order, Unread(order.instrument_name, str(error)))
        closing = orders.chain_closed(chain, received_ns) if before is None else None
        return None if closing is None else self._closed(order, closing)

    def _closed(self, order: OrderData, closing: OrderClosed) -> OrderRow:
        """The row that says so; it may be an order before the last one that was told last."""
        return OrderRow(
            symbol=order.instrument_name, label=closing.label, order_id=closing.order_id, resting=False, state=closing
        )

    def _is_strange(self, order: OrderData) -> bool:
        """It rests, and nobody placed it here."""
        chain = self._room.chains.get(order.label)
        return not orders.is_over(order) and chain is not None and not chain.complete


def _check(order: OrderData, instrument: Instrument) -> None:
    if order.instrument_name != instrument.symbol:
        raise ExchangeMalformed(f"answer for {order.instrument_name} to a request for {instrument.symbol}")


def _half_told(old: OrderData, error: RequestError | None) -> str:
    """Why a replace that shows no new order may have made one, or left the old one; empty where it did neither."""
    if error is None:
        return "replaced by nothing, and no reason is told"
    if ERRORS.meaning(error.code).fault is Fault.AMBIGUOUS:
        return f"it may have been replaced: {error.message} ({error.code})"
    return "" if orders.is_over(old) else f"replaced by nothing ({error.code}), and told to be {old.order_status}"


def _failed(error: RpcError) -> str:
    """The cause of an order's end that had no successor. A freeze has a name that the session listens to."""
    return PULLED if error.code == MMP_FROZEN else f"replace_failed: {ERRORS.meaning(error.code).name}"
