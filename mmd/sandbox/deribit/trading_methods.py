"""Orders: buy, sell, edit, the cancels, and the queries about orders and own trades."""

from collections.abc import Callable, Iterable
from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.answering import Later
from mmd.sandbox.deribit.auth import READ, READ_WRITE
from mmd.sandbox.deribit.context import Call, Context, Method
from mmd.sandbox.deribit.market_methods import KINDS, SORTINGS, count_of
from mmd.sandbox.deribit.render import Json
from mmd.sandbox.deribit.render_account import order_json, user_trade_json
from mmd.sandbox.deribit.rpc import Params, invalid_param
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import (
    NewOrder,
    Order,
    OrderChange,
    OrderState,
    OrderType,
    Placed,
    Refuse,
    Refused,
    TimeInForce,
    UserTrade,
)
from mmd.sandbox.rpc import RpcError

LABEL_MAX = 64
RECENT_TRADES_MS = 24 * 3_600_000
ARCHIVE_MS = 3_600_000  # executions are in the archive from that age on
RECENT_ORDERS_MS = 30 * 60_000
TRIGGER_TYPES = ("stop_limit", "stop_market", "take_limit", "take_market", "trailing_stop")
ORDER_TYPES = tuple(OrderType)
TYPE_FILTERS = ("all", "limit", "market", "trigger_all", "stop", "take", "trailing_stop", *TRIGGER_TYPES)

# --- placing -------------------------------------------------------------------------------------


def _amount(listing: Listing, params: Params) -> Decimal | None:
    """`amount`, or `contracts` times the contract size; both must agree."""
    amount, count = params.optional_number("amount"), params.optional_number("contracts")
    if count is None:
        return amount
    from_contracts = count * listing.instrument.contract_size
    if amount is not None and amount != from_contracts:
        raise invalid_param("contracts", "does not match amount")
    return from_contracts


def _order_type(params: Params) -> OrderType:
    kind = params.choice("type", (*ORDER_TYPES, *TRIGGER_TYPES), "limit")
    if kind in TRIGGER_TYPES:
        raise RpcError(10033, "not_implemented", {"param": "type", "reason": "the sandbox has no trigger orders"})
    return OrderType(kind)


def _new_order(context: Context, call: Call, direction: Direction) -> NewOrder:
    params = call.params
    listing = context.floor.listings.get(params.text("instrument_name"))
    if listing is None:
        raise RpcError(10020, "invalid_or_unsupported_instrument")
    context.want(listing.instrument.instrument_name)
    amount = _amount(listing, params)
    if amount is None:
        raise invalid_param("amount", "value required")
    kind = _order_type(params)
    label = params.text("label", "")
    if len(label) > LABEL_MAX:
        raise invalid_param("label", f"at most {LABEL_MAX} characters")
    if "advanced" in params:
        raise RpcError(11038 if listing.instrument.kind != "option" else 10033, "not_implemented")
    post_only, reject = params.flag("post_only"), params.flag("reject_post_only")
    if reject and not post_only:
        raise invalid_param("reject_post_only", "needs post_only")
    price = params.number("price") if kind is OrderType.LIMIT else None
    if kind is not OrderType.LIMIT and "time_in_force" in params:
        raise invalid_param("time_in_force", f"not allowed with type {kind}")
    if kind is not OrderType.LIMIT and params.flag("mmp"):
        raise invalid_param("mmp", f"not allowed with type {kind}")
    time_in_force = TimeInForce(params.choice("time_in_force", tuple(TimeInForce), "good_til_cancelled"))
    return NewOrder(
        account=call.account,
        instrument_name=listing.instrument.instrument_name,
        direction=direction,
        amount=amount,
        price=price,
        order_type=kind,
        time_in_force=time_in_force,
        label=label,
        post_only=post_only,
        reject_post_only=reject,
        reduce_only=params.flag("reduce_only"),
        mmp=params.flag("mmp"),
        valid_until=params.optional_integer("valid_until"),
        link=call.link.number if call.link.websocket else None,
    )


def _placed_json(context: Context, placed: Placed) -> Json:
    return {
        "order": order_json(context.floor, placed.order),
        "trades": [user_trade_json(context.floor, trade) for trade in placed.trades],
    }


def _settle(context: Context, placed: Placed) -> object:
    """The answer to an order or edit; a held one is answered when it leaves the speed bump."""
    order = placed.order
    if order.state is not OrderState.SPEED_BUMPED:
        return _placed_json(context, placed)

    def finish() -> object:
        context.engine.release(context.now_ms)
        account = context.floor.accounts[order.account]
        fills = [trade for trade in account.trades if trade.order_id == order.order_id]
        return _placed_json(context, Placed(order, tuple(fills)))

    return Later(order.release_ms, finish)


def buy(context: Context, call: Call) -> object:
    return _settle(context, context.engine.place(_new_order(context, call, Direction.BUY), context.now_ms))


def sell(context: Context, call: Call) -> object:
    return _settle(context, context.engine.place(_new_order(context, call, Direction.SELL), context.now_ms))


def close_position(context: Context, call: Call) -> object:
    listing = context.listing(call.params)
    kind = OrderType(call.params.choice("type", ("limit", "market")))
    price = call.params.number("price") if kind is OrderType.LIMIT else None
    link = call.link.number if call.link.websocket else None
    name = listing.instrument.instrument_name
    return _settle(context, context.engine.close_position(call.account, name, kind, price, context.now_ms, link))


def _edit(context: Context, call: Call, order: Order) -> object:
    params = call.params
    if "mmp" in params and params.flag("mmp") != order.mmp:
        raise invalid_param("mmp", "cannot be changed")
    listing = context.floor.listings[order.instrument_name]
    context.want(order.instrument_name)
    change = OrderChange(
        amount=_amount(listing, params),
        price=params.optional_number("price"),
        post_only=params.optional_flag("post_only"),
        reject_post_only=params.optional_flag("reject_post_only"),
        reduce_only=params.optional_flag("reduce_only"),
        valid_until=params.optional_integer("valid_until"),
    )
    return _settle(context, context.engine.edit(call.account, order.order_id, change, context.now_ms))


def edit(context: Context, call: Call) -> object:
    account = context.floor.account(call.account, context.now_ms)
    order_id = call.params.text("order_id")
    order = account.open_orders.get(order_id)
    if order is None:
        context.engine.edit(call.account, order_id, OrderChange(), context.now_ms)  # says why it cannot be edited
        raise Refused(Refuse.ORDER_NOT_FOUND)
    return _edit(context, call, order)


def edit_by_label(context: Context, call: Call) -> object:
    name, label = call.params.text("instrument_name"), call.params.text("label")
    account = context.floor.account(call.account, context.now_ms)
    found = [order for order in account.open_orders.values() if order.label == label and order.instrument_name == name]
    if not found:
        raise Refused(Refuse.ORDER_NOT_FOUND)
    if len(found) > 1:
        raise Refused(Refuse.NOT_UNIQUE)
    return _edit(context, call, found[0])


# --- cancelling ----------------------------------------------------------------------------------


def cancel(context: Context, call: Call) -> object:
    order = context.engine.cancel(call.account, call.params.text("order_id"), context.now_ms)
    return order_json(context.floor, order)


def _cancel_where(context: Context, call: Call, chosen: Callable[[Order], bool]) -> object:
    kind = call.params.choice("type", TYPE_FILTERS, "all")
    detailed = call.params.flag("detailed")

    def wanted(order: Order) -> bool:
        return chosen(order) and kind in ("all", order.order_type)

    orders = context.engine.cancel_where(call.account, wanted, context.now_ms)
    if not detailed:
        return len(orders)
    groups: dict[str, list[Json]] = {}
    for order in orders:
        groups.setdefault(order.instrument_name, []).append(order_json(context.floor, order))
    return [
        {
            "currency": contracts.currency_group(context.floor.listings[name].instrument),
            "instrument_name": name,
            "type": kind,
            "result": rows,
        }
        for name, rows in groups.items()
    ]


def cancel_all(context: Context, call: Call) -> object:
    return _cancel_where(context, call, lambda order: True)


def cancel_by_label(context: Context, call: Call) -> object:
    label = call.params.text("label")
    currency = call.params.text("currency", "any").upper()
    return _cancel_where(context, call, lambda order: order.label == label and _in_group(context, order, currency))


def cancel_all_by_instrument(context: Context, call: Call) -> object:
    listing = context.listing(call.params, alive=False)
    return _cancel_where(context, call, lambda order: order.instrument_name == listing.instrument.instrument_name)


def cancel_all_by_currency(context: Context, call: Call) -> object:
    currency = call.params.text("currency").upper()
    kind = call.params.choice("kind", KINDS, "any")
    return _cancel_where(
        context, call, lambda order: _in_group(context, order, currency) and _of_kind(context, order, kind)
    )


def cancel_all_by_currency_pair(context: Context, call: Call) -> object:
    pair = call.params.text("currency_pair")
    kind = call.params.choice("kind", KINDS, "any")
    return _cancel_where(
        context,
        call,
        lambda order: (
            context.engine.instrument(order.instrument_name).price_index == pair and _of_kind(context, order, kind)
        ),
    )


def cancel_all_by_kind_or_type(context: Context, call: Call) -> object:
    try:
        currencies = [call.params.text("currency")]
    except RpcError:
        currencies = call.params.texts("currency")
    wanted = {currency.upper() for currency in currencies}
    kind = call.params.choice("kind", KINDS, "any")
    return _cancel_where(
        context,
        call,
        lambda order: (
            any(_in_group(context, order, currency) for currency in wanted) and _of_kind(context, order, kind)
        ),
    )


def _in_group(context: Context, order: Order, currency: str) -> bool:
    group = contracts.currency_group(context.engine.instrument(order.instrument_name))
    return currency in ("ANY", group)


def _of_kind(context: Context, order: Order, kind: str) -> bool:
    return kind in ("any", context.engine.instrument(order.instrument_name).kind)


# --- orders, asked -------------------------------------------------------------------------------


def _open_orders(context: Context, call: Call, chosen: Callable[[Order], bool]) -> object:
    account = context.floor.account(call.account, context.now_ms)
    kind = call.params.choice("kind", KINDS, "any")
    order_type = call.params.choice("type", TYPE_FILTERS, "all")
    return [
        order_json(context.floor, order)
        for order in account.open_orders.values()
        if chosen(order) and _of_kind(context, order, kind) and order_type in ("all", order.order_type)
    ]


def get_open_orders(context: Context, call: Call) -> object:
    return _open_orders(context, call, lambda order: True)


def get_open_orders_by_currency(context: Context, call: Call) -> object:
    currency = call.params.text("currency").upper()
    return _open_orders(context, call, lambda order: _in_group(context, order, currency))


def get_open_orders_by_instrument(context: Context, call: Call) -> object:
    name = context.listing(call.params, alive=False).instrument.instrument_name
    return _open_orders(context, call, lambda order: order.instrument_name == name)


def get_open_orders_by_label(context: Context, call: Call) -> object:
    label, currency = call.params.text("label", ""), call.params.text("currency").upper()
    return _open_orders(
        context, call, lambda order: (not label or order.label == label) and _in_group(context, order, currency)
    )


def _is_remembered(order: Order, now_ms: int) -> bool:
    """A closed order that never filled is forgotten after half an hour."""
    is_open = order.state in (OrderState.OPEN, OrderState.SPEED_BUMPED)
    return is_open or bool(order.filled) or now_ms - order.last_update_timestamp <= RECENT_ORDERS_MS


def get_order_state(context: Context, call: Call) -> object:
    order = context.floor.account(call.account, context.now_ms).order(call.params.text("order_id"))
    if order is None or not _is_remembered(order, context.now_ms):
        raise Refused(Refuse.ORDER_NOT_FOUND)
    return order_json(context.floor, order)


def get_order_state_by_label(context: Context, call: Call) -> object:
    label, currency = call.params.text("label"), call.params.text("currency").upper()
    account = context.floor.account(call.account, context.now_ms)
    return [
        order_json(context.floor, order)
        for orders in (account.open_orders, account.closed_orders)
        for order in orders.values()
        if order.label == label and _in_group(context, order, currency) and _is_remembered(order, context.now_ms)
    ]


def _history(context: Context, call: Call, chosen: Callable[[Order], bool]) -> object:
    """Closed orders, newest first; those that never filled only when asked for."""
    count = count_of(call.params, 20, 1000)
    offset = call.params.integer("offset", 0)
    unfilled = call.params.flag("include_unfilled")
    account = context.floor.account(call.account, context.now_ms)
    rows = [order for order in reversed(account.closed_orders.values()) if chosen(order) and (unfilled or order.filled)]
    return [order_json(context.floor, order) for order in rows[offset : offset + count]]


def get_order_history_by_currency(context: Context, call: Call) -> object:
    currency = call.params.text("currency").upper()
    kind = call.params.choice("kind", KINDS, "any")
    return _history(context, call, lambda order: _in_group(context, order, currency) and _of_kind(context, order, kind))


def get_order_history_by_instrument(context: Context, call: Call) -> object:
    name = context.listing(call.params, alive=False).instrument.instrument_name
    return _history(context, call, lambda order: order.instrument_name == name)


# --- own trades ----------------------------------------------------------------------------------


def _drawer(context: Context, call: Call) -> tuple[int, int]:
    """Between which times a query sees executions: the last day's, or, after a while, the archive of all."""
    now_ms = context.now_ms
    if call.params.flag("historical"):
        return 0, now_ms - ARCHIVE_MS
    return now_ms - RECENT_TRADES_MS, now_ms - context.floor.trade_lag_ms


def _user_trades(context: Context, call: Call, chosen: Callable[[UserTrade], bool]) -> object:
    params = call.params
    oldest_ms, newest_ms = _drawer(context, call)
    count = count_of(params, 10, 1000)
    start_ms, end_ms = params.optional_integer("start_timestamp"), params.optional_integer("end_timestamp")
    start_seq, end_seq = params.optional_integer("start_seq"), params.optional_integer("end_seq")
    start_id, end_id = params.text("start_id", ""), params.text("end_id", "")
    sorting = params.choice("sorting", SORTINGS, "default")
    ascending = sorting == "asc" or (sorting == "default" and bool(start_id or start_ms is not None))

    def keep(trade: UserTrade) -> bool:
        return (
            chosen(trade)
            and oldest_ms <= trade.timestamp <= newest_ms
            and (start_ms is None or trade.timestamp >= start_ms)
            and (end_ms is None or trade.timestamp <= end_ms)
            and (start_seq is None or trade.trade_seq >= start_seq)
            and (end_seq is None or trade.trade_seq <= end_seq)
            and (not start_id or _number(trade.trade_id) >= _number(start_id))
            and (not end_id or _number(trade.trade_id) <= _number(end_id))
        )

    trades = context.floor.account(call.account, context.now_ms).trades
    ordered: Iterable[UserTrade] = trades if ascending else reversed(trades)
    rows = [trade for trade in ordered if keep(trade)]
    shown = [user_trade_json(context.floor, trade) for trade in rows[:count]]
    return {"trades": shown, "has_more": len(rows) > count}


def _number(trade_id: str) -> int:
    digits = trade_id.rpartition("-")[2]
    if not digits.isdigit():
        raise invalid_param("start_id", "wrong format")
    return int(digits)


def get_user_trades_by_currency(context: Context, call: Call) -> object:
    currency = call.params.text("currency").upper()
    kind = call.params.choice("kind", KINDS, "any")

    def chosen(trade: UserTrade) -> bool:
        instrument = context.engine.instrument(trade.instrument_name)
        return currency in ("ANY", contracts.currency_group(instrument)) and kind in ("any", instrument.kind)

    return _user_trades(context, call, chosen)


def get_user_trades_by_instrument(context: Context, call: Call) -> object:
    name = context.listing(call.params, alive=False).instrument.instrument_name
    return _user_trades(context, call, lambda trade: trade.instrument_name == name)


def get_user_trades_by_order(context: Context, call: Call) -> object:
    order_id = call.params.text("order_id")
    oldest_ms, newest_ms = _drawer(context, call)
    return [
        user_trade_json(context.floor, trade)
        for trade in context.floor.account(call.account, context.now_ms).trades
        if trade.order_id == order_id and oldest_ms <= trade.timestamp <= newest_ms
    ]


WRITE, LOOK = ("trade", READ_WRITE), ("trade", READ)

METHODS: dict[str, Method] = {
    "private/buy": Method(buy, WRITE, budget="matching"),
    "private/sell": Method(sell, WRITE, budget="matching"),
    "private/edit": Method(edit, WRITE, budget="matching"),
    "private/edit_by_label": Method(edit_by_label, WRITE, budget="matching"),
    "private/close_position": Method(close_position, WRITE, budget="matching"),
    "private/cancel": Method(cancel, WRITE, budget="matching"),
    "private/cancel_by_label": Method(cancel_by_label, WRITE, budget="cancel_all"),
    "private/cancel_all": Method(cancel_all, WRITE, budget="cancel_all"),
    "private/cancel_all_by_instrument": Method(cancel_all_by_instrument, WRITE, budget="matching"),
    "private/cancel_all_by_currency": Method(cancel_all_by_currency, WRITE, budget="matching"),
    "private/cancel_all_by_currency_pair": Method(cancel_all_by_currency_pair, WRITE, budget="matching"),
    "private/cancel_all_by_kind_or_type": Method(cancel_all_by_kind_or_type, WRITE, budget="matching"),
    "private/get_open_orders": Method(get_open_orders, LOOK),
    "private/get_open_orders_by_currency": Method(get_open_orders_by_currency, LOOK),
    "private/get_open_orders_by_instrument": Method(get_open_orders_by_instrument, LOOK),
    "private/get_open_orders_by_label": Method(get_open_orders_by_label, LOOK),
    "private/get_order_state": Method(get_order_state, LOOK),
    "private/get_order_state_by_label": Method(get_order_state_by_label, LOOK),
    "private/get_order_history_by_currency": Method(get_order_history_by_currency, LOOK),
    "private/get_order_history_by_instrument": Method(get_order_history_by_instrument, LOOK),
    "private/get_user_trades_by_currency": Method(get_user_trades_by_currency, LOOK),
    "private/get_user_trades_by_currency_and_time": Method(get_user_trades_by_currency, LOOK),
    "private/get_user_trades_by_instrument": Method(get_user_trades_by_instrument, LOOK),
    "private/get_user_trades_by_instrument_and_time": Method(get_user_trades_by_instrument, LOOK),
    "private/get_user_trades_by_order": Method(get_user_trades_by_order, LOOK),
}
