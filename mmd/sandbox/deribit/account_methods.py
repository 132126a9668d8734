"""The account: positions, summaries, ledger, settlements, self-trading and market maker protection."""

from mmd.sandbox import contracts
from mmd.sandbox.accounts import LedgerRow
from mmd.sandbox.deribit.auth import READ, READ_WRITE
from mmd.sandbox.deribit.context import Call, Context, Method
from mmd.sandbox.deribit.market_methods import KINDS, count_of
from mmd.sandbox.deribit.render import Json, money
from mmd.sandbox.deribit.render_account import (
    identity_json,
    ledger_json,
    order_json,
    position_json,
    summary_json,
)
from mmd.sandbox.deribit.rpc import invalid_param
from mmd.sandbox.orders import SelfTrading
from mmd.sandbox.protection import Freeze, Protection, ProtectionConfig
from mmd.sandbox.rpc import RpcError

LIMIT_DECIMALS = 4

# --- positions and money -------------------------------------------------------------------------


def get_positions(context: Context, call: Call) -> object:
    """Positions that are not zero."""
    context.engine.accrue_funding(context.now_ms)
    currency = call.params.text("currency", "any").upper()
    kind = call.params.choice("kind", KINDS, "any")
    account = context.floor.account(call.account, context.now_ms)
    rows = []
    for name in {**account.positions, **account.reported_drift}:
        listing = context.floor.listings[name]
        group = contracts.currency_group(listing.instrument)
        if account.reported_size(name) and currency in ("ANY", group) and kind in ("any", listing.instrument.kind):
            rows.append(position_json(context.floor, account, listing))
    return rows


def get_position(context: Context, call: Call) -> object:
    context.engine.accrue_funding(context.now_ms)
    listing = context.listing(call.params, alive=False)
    return position_json(context.floor, context.floor.account(call.account, context.now_ms), listing)


def get_account_summary(context: Context, call: Call) -> object:
    context.engine.accrue_funding(context.now_ms)
    account = context.floor.account(call.account, context.now_ms)
    currency = call.params.text("currency").upper()
    known = set(account.wallets) | {contracts.currency_group(row.instrument) for row in context.floor.listings.values()}
    if currency not in known:
        raise invalid_param("currency", f"value must be one of: {', '.join(sorted(known))}")
    extended = call.params.flag("extended")
    return summary_json(context.floor, account, currency, context.budgets, extended=extended)


def get_account_summaries(context: Context, call: Call) -> object:
    context.engine.accrue_funding(context.now_ms)
    account = context.floor.account(call.account, context.now_ms)
    rows = [
        summary_json(context.floor, account, currency, context.budgets, extended=False)
        for currency in sorted(account.wallets)
    ]
    data: Json = {"summaries": rows}
    return data | identity_json(account) if call.params.flag("extended") else data


def get_subaccounts(context: Context, call: Call) -> object:
    account = context.floor.account(call.account, context.now_ms)
    data = identity_json(account) | {
        "is_password": True,
        "receive_notifications": False,
        "security_keys_assignments": [],
        "proof_id": "",
        "proof_id_signature": "",
    }
    if call.params.flag("with_portfolio"):
        data["portfolio"] = {
            currency.lower(): summary_json(context.floor, account, currency, context.budgets, extended=False)
            for currency in sorted(account.wallets)
        }
    return [data]


def get_margins(context: Context, call: Call) -> object:
    """No margin is asked of anybody; the price band is real."""
    listing = context.listing(call.params)
    call.params.number("amount")
    call.params.number("price")
    reference = listing.reference
    return {
        "buy": 0.0,
        "sell": 0.0,
        "min_price": reference.min_price if reference is not None else 0.0,
        "max_price": reference.max_price if reference is not None else 0.0,
    }


def get_order_margin_by_ids(context: Context, call: Call) -> object:
    account = context.floor.account(call.account, context.now_ms)
    rows = []
    for order_id in call.params.texts("ids"):
        order = account.order(order_id)
        if order is not None:
            currency = contracts.currency_group(context.engine.instrument(order.instrument_name))
            row = order_json(context.floor, order)
            margin = {"initial_margin": 0.0, "initial_margin_currency": currency}
            rows.append({"order_id": row["order_id"]} | margin)
    return rows


# --- ledger --------------------------------------------------------------------------------------


def get_transaction_log(context: Context, call: Call) -> object:
    """Newest first; `continuation` is the id of the row to go on with, so that new rows shift nothing."""
    params = call.params
    currency = params.text("currency").upper()
    start, end = params.integer("start_timestamp"), params.integer("end_timestamp")
    count = count_of(params, 100, 250)
    query = params.text("query", "")
    latest = params.optional_integer("continuation")
    account = context.floor.account(call.account, context.now_ms)
    rows = [
        row
        for row in reversed(account.ledger)
        if currency in ("ANY", row.currency)
        and start <= row.timestamp <= end
        and (latest is None or row.row_id <= latest)
        and query in f"{row.kind} {row.instrument_name} {row.side} {row.user_role}"
    ]
    following = rows[count].row_id if len(rows) > count else None
    logs = [ledger_json(context.engine.instrument(row.instrument_name), account, row) for row in rows[:count]]
    return {"logs": logs, "continuation": following}


def _settlements(context: Context, call: Call, wanted: str, currency: str) -> object:
    """Newest first; `continuation` is the id of the row to go on with, or the word none."""
    kind = call.params.choice("type", ("settlement", "delivery", "bankruptcy", "all"), "all")
    count = count_of(call.params, 20, 1000)
    continuation = call.params.text("continuation", "none")
    if continuation != "none" and not continuation.isdigit():
        raise invalid_param("continuation", "wrong format")
    account = context.floor.account(call.account, context.now_ms)

    def row_json(row: LedgerRow) -> Json:
        return {
            "type": row.kind,
            "timestamp": row.timestamp,
            "instrument_name": row.instrument_name,
            "position": row.position,
            "mark_price": row.mark_price,
            "index_price": row.index_price,
            "profit_loss": money(row.cashflow),
            "session_profit_loss": money(row.session_rpl + row.session_upl),
            "funding": money(row.interest_pl),
        }

    rows = [
        row
        for row in reversed(account.ledger)
        if row.kind in ("settlement", "delivery")
        and kind in ("all", row.kind)
        and (continuation == "none" or row.row_id <= int(continuation))
        and wanted in ("", row.instrument_name)
        and currency in ("ANY", row.currency)
    ]
    following = str(rows[count].row_id) if len(rows) > count else "none"
    return {"settlements": [row_json(row) for row in rows[:count]], "continuation": following}


def get_settlement_history_by_currency(context: Context, call: Call) -> object:
    return _settlements(context, call, "", call.params.text("currency").upper())


def get_settlement_history_by_instrument(context: Context, call: Call) -> object:
    name = context.listing(call.params, alive=False).instrument.instrument_name
    return _settlements(context, call, name, "ANY")


# --- self-trading and protection -----------------------------------------------------------------


def set_self_trading_config(context: Context, call: Call) -> object:
    account = context.floor.account(call.account, context.now_ms)
    mode = SelfTrading(call.params.choice("mode", (SelfTrading.REJECT_TAKER, SelfTrading.CANCEL_MAKER)))
    account.self_trading_extended = call.params.flag("extended_to_subaccounts")
    account.self_trading = mode
    return "ok"


def _limit(call: Call, name: str) -> float | None:
    value = call.params.optional_number(name)
    if value is not None and value < 0:
        raise invalid_param(name, "value must be >= 0")
    if value is not None and value != round(value, LIMIT_DECIMALS):
        raise invalid_param(name, f"at most {LIMIT_DECIMALS} decimals")
    return float(value) if value is not None else None


def _protections(context: Context, call: Call) -> dict[str, Freeze]:
    """The account's protections by index. 13040 for an account without the right to any."""
    account = context.floor.account(call.account, context.now_ms)
    if not account.mmp_enabled:
        raise RpcError(13040, "mmp_required")
    return account.protections


def _index_name(context: Context, call: Call) -> str:
    name = call.params.text("index_name")
    if name not in context.floor.indexes:
        raise invalid_param("index_name", f"value must be one of: {', '.join(sorted(context.floor.indexes))}")
    if "mmp_group" in call.params or call.params.flag("block_rfq"):
        raise RpcError(13902, "mass_quotes_disabled")
    return name


def set_mmp_config(context: Context, call: Call) -> object:
    _protections(context, call)
    interval, frozen_time = call.params.integer("interval"), call.params.integer("frozen_time")
    if interval < 0 or frozen_time < 0:
        raise invalid_param("interval" if interval < 0 else "frozen_time", "value must be >= 0")
    if interval and "max_quote_quantity" not in call.params:
        raise invalid_param("max_quote_quantity", "value required")
    config = ProtectionConfig(
        index_name=_index_name(context, call),
        interval=interval,
        frozen_time=frozen_time,
        quantity_limit=_limit(call, "quantity_limit"),
        delta_limit=_limit(call, "delta_limit"),
        vega_limit=_limit(call, "vega_limit"),
        max_quote_quantity=_limit(call, "max_quote_quantity"),
    )
    context.engine.set_protection(call.account, config, context.now_ms)
    return _config_json(config)


def _config_json(config: ProtectionConfig) -> Json:
    data: Json = {
        "index_name": config.index_name,
        "interval": config.interval,
        "frozen_time": config.frozen_time,
    }
    for name in ("quantity_limit", "delta_limit", "vega_limit", "max_quote_quantity"):
        value = getattr(config, name)
        if value is not None:
            data[name] = value
    return data


def get_mmp_config(context: Context, call: Call) -> object:
    protections = _protections(context, call)
    wanted = call.params.text("index_name", "")
    return [
        _config_json(row.config)
        for name, row in protections.items()
        if isinstance(row, Protection) and wanted in ("", name)
    ]


def get_mmp_status(context: Context, call: Call) -> object:
    protections = _protections(context, call)
    wanted = call.params.text("index_name", "")
    return [
        {"index_name": name, "frozen_until": row.frozen_until or 0}
        for name, row in protections.items()
        if wanted in ("", name) and row.is_frozen(context.now_ms)
    ]


def reset_mmp(context: Context, call: Call) -> object:
    protections = _protections(context, call)
    protection = protections.get(_index_name(context, call))
    if protection is not None:
        protection.reset()
    return "ok"


def mass_quote(context: Context, call: Call) -> object:
    raise RpcError(13902, "mass_quotes_disabled")


ACCOUNT, TRADE, TRADE_WRITE = ("account", READ), ("trade", READ), ("trade", READ_WRITE)

METHODS: dict[str, Method] = {
    "private/get_positions": Method(get_positions, TRADE),
    "private/get_position": Method(get_position, TRADE),
    "private/get_account_summary": Method(get_account_summary, ACCOUNT),
    "private/get_account_summaries": Method(get_account_summaries, ACCOUNT),
    "private/get_subaccounts": Method(get_subaccounts, ACCOUNT),
    "private/get_margins": Method(get_margins, TRADE),
    "private/get_order_margin_by_ids": Method(get_order_margin_by_ids, TRADE),
    "private/get_transaction_log": Method(get_transaction_log, ACCOUNT, budget="transaction_log"),
    "private/get_settlement_history_by_currency": Method(get_settlement_history_by_currency, TRADE),
    "private/get_settlement_history_by_instrument": Method(get_settlement_history_by_instrument, TRADE),
    "private/set_self_trading_config": Method(set_self_trading_config, ("account", READ_WRITE)),
    "private/set_mmp_config": Method(set_mmp_config, TRADE_WRITE),
    "private/get_mmp_config": Method(get_mmp_config, TRADE),
    "private/get_mmp_status": Method(get_mmp_status, TRADE),
    "private/reset_mmp": Method(reset_mmp, TRADE_WRITE),
    "private/mass_quote": Method(mass_quote, TRADE_WRITE, budget="matching"),
    "private/cancel_quotes": Method(mass_quote, TRADE_WRITE, budget="matching"),
}
