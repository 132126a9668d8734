"""What an account may ask: orders and trades, open and past, positions, collateral, margins.

Pages begin at 1, newest rows first (assumed). A history's times are those of the last change (assumed).
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeVar

import msgspec

from mmd.sandbox.accounts import Account
from mmd.sandbox.derive import margin
from mmd.sandbox.derive.context import Call, Context, Method
from mmd.sandbox.derive.order_methods import SubaccountParams
from mmd.sandbox.derive.render import Json
from mmd.sandbox.derive.render_account import (
    collaterals_json,
    funding_json,
    order_json,
    past_order_json,
    positions_json,
    settlement_json,
    subaccount_json,
    user_trade_json,
)
from mmd.sandbox.derive.rpc import invalid_params, plain
from mmd.sandbox.orders import Order, UserTrade
from mmd.sandbox.rpc import RpcError

PAGE_MOST = 1000
LATEST_MS = 2**63 - 1

Row = TypeVar("Row")


class WalletParams(msgspec.Struct):
    wallet: str


class OrderIdParams(msgspec.Struct):
    subaccount_id: int
    order_id: str


class HistoryParams(msgspec.Struct, kw_only=True):
    """Of a subaccount, or of all of a wallet."""

    subaccount_id: int | None = None
    wallet: str | None = None
    from_timestamp: int = 0
    to_timestamp: int = LATEST_MS
    page: int = 1
    page_size: int = 100


class TradesParams(HistoryParams, kw_only=True):
    instrument_name: str | None = None
    order_id: str | None = None
    quote_id: str | None = None


class FundingParams(msgspec.Struct, kw_only=True):
    subaccount_id: int | None = None
    wallet: str | None = None
    instrument_name: str | None = None
    start_timestamp: int = 0
    end_timestamp: int = LATEST_MS
    page: int = 1
    page_size: int = 100


class SettlementParams(msgspec.Struct, kw_only=True):
    subaccount_id: int | None = None
    wallet: str | None = None


class PositionChange(msgspec.Struct):
    instrument_name: str
    amount: Decimal
    entry_price: Decimal | None = None


class MarginParams(msgspec.Struct):
    subaccount_id: int
    simulated_position_changes: list[PositionChange] = []


def paged(rows: Sequence[Row], page: int, page_size: int) -> tuple[Sequence[Row], Json]:
    """One page of rows, and what there is in all."""
    if page < 1 or not 1 <= page_size <= PAGE_MOST:
        raise invalid_params(f"page: from 1; page_size: 1 to {PAGE_MOST}")
    count = len(rows)
    pages = -(-count // page_size)
    return rows[(page - 1) * page_size : page * page_size], {"count": count, "num_pages": pages}


def _accounts(context: Context, call: Call, params: HistoryParams | FundingParams | SettlementParams) -> list[Account]:
    """14025 where neither a subaccount nor a wallet is named."""
    if params.subaccount_id is not None:
        return [call.account(context, params.subaccount_id)]
    if params.wallet is None:
        raise RpcError(14025, "No wallet or subaccount given")
    call.check_wallet(params.wallet)
    return [call.account(context, number) for number in call.owner.subaccounts]


# --- orders and trades ---------------------------------------------------------------------------


def get_open_orders(context: Context, call: Call, params: SubaccountParams) -> object:
    account = call.account(context, params.subaccount_id)
    rows = [order_json(context.tickets, order) for order in account.open_orders.values()]
    return {"orders": rows, "subaccount_id": params.subaccount_id}


def get_order(context: Context, call: Call, params: OrderIdParams) -> object:
    found = call.account(context, params.subaccount_id).order(params.order_id)
    if found is None:
        raise RpcError(11006, "Does not exist")
    return order_json(context.tickets, found)


def get_order_history(context: Context, call: Call, params: HistoryParams) -> object:
    """Orders that have ended."""

    def chosen(order: Order) -> bool:
        return params.from_timestamp <= order.last_update_timestamp <= params.to_timestamp

    accounts = _accounts(context, call, params)
    found = [order for account in accounts for order in reversed(account.closed_orders.values()) if chosen(order)]
    rows, pagination = paged(found, params.page, params.page_size)
    data: Json = {"orders": [past_order_json(context.tickets, order) for order in rows], "pagination": pagination}
    return data | {"subaccount_id": params.subaccount_id}


def get_trade_history(context: Context, call: Call, params: TradesParams) -> object:
    latest_ms = min(params.to_timestamp, context.now_ms - context.floor.trade_lag_ms)

    def chosen(trade: UserTrade) -> bool:
        return (
            params.from_timestamp <= trade.timestamp <= latest_ms
            and params.instrument_name in (None, trade.instrument_name)
            and params.order_id in (None, trade.order_id)
            and params.quote_id is None
        )

    found = [
        trade for account in _accounts(context, call, params) for trade in reversed(account.trades) if chosen(trade)
    ]
    rows, pagination = paged(found, params.page, params.page_size)
    data: Json = {"trades": [user_trade_json(trade) for trade in rows], "pagination": pagination}
    return data | {"subaccount_id": params.subaccount_id}


# --- what was settled ----------------------------------------------------------------------------


def get_funding_history(context: Context, call: Call, params: FundingParams) -> object:
    """Payments of perpetuals, with funding or only profit."""
    found = [
        funding_json(int(account.account_id), row)
        for account in _accounts(context, call, params)
        for row in reversed(account.ledger)
        if row.kind == "settlement"
        and params.instrument_name in (None, row.instrument_name)
        and params.start_timestamp <= row.timestamp <= params.end_timestamp
    ]
    rows, pagination = paged(found, params.page, params.page_size)
    return {"events": rows, "pagination": pagination}


def get_option_settlement_history(context: Context, call: Call, params: SettlementParams) -> object:
    """The newest ones, without pages."""
    listings = context.floor.listings
    found = [
        settlement_json(int(account.account_id), row, listings[row.instrument_name])
        for account in _accounts(context, call, params)
        for row in reversed(account.ledger)
        if row.kind == "delivery" and row.instrument_name in listings
    ]
    return {"settlements": found[:PAGE_MOST]}


# --- the account ---------------------------------------------------------------------------------


def _subaccount(context: Context, account: Account) -> Json:
    context.engine.accrue_funding(context.now_ms)
    trouble = context.trouble
    failed = trouble.failing_fetches > 0
    trouble.failing_fetches -= failed
    return subaccount_json(context.floor, context.tickets, account, failed=failed)


def get_subaccount(context: Context, call: Call, params: SubaccountParams) -> object:
    return _subaccount(context, call.account(context, params.subaccount_id))


def get_all_portfolios(context: Context, call: Call, params: WalletParams) -> object:
    call.check_wallet(params.wallet)
    return [_subaccount(context, call.account(context, number)) for number in call.owner.subaccounts]


def get_positions(context: Context, call: Call, params: SubaccountParams) -> object:
    context.engine.accrue_funding(context.now_ms)
    account = call.account(context, params.subaccount_id)
    return {"positions": positions_json(context.floor, account), "subaccount_id": params.subaccount_id}


def get_collaterals(context: Context, call: Call, params: SubaccountParams) -> object:
    account = call.account(context, params.subaccount_id)
    return {"collaterals": collaterals_json(account), "subaccount_id": params.subaccount_id}


def get_margin(context: Context, call: Call, params: MarginParams) -> object:
    """Before and after changes of positions; open orders do not count."""
    account = call.account(context, params.subaccount_id)
    before = margin.margins(context.floor, account)
    initial, maintenance = before.initial, before.maintenance
    for change in params.simulated_position_changes:
        listing = context.listing(change.instrument_name, alive=False)
        price = change.entry_price if change.entry_price is not None else listing.mark_price
        position = account.positions.get(change.instrument_name)
        size = position.size if position is not None else Decimal(0)
        old = margin.position_needs(context.floor, listing, size, price, Decimal(0))
        new = margin.position_needs(context.floor, listing, size + change.amount, price, Decimal(0))
        paid = change.amount * price if listing.instrument.strike is not None else Decimal(0)
        initial += new.initial - old.initial - paid
        maintenance += new.maintenance - old.maintenance - paid
    return {
        "subaccount_id": params.subaccount_id,
        "is_valid_trade": initial >= 0,
        "pre_initial_margin": plain(before.initial),
        "post_initial_margin": plain(initial),
        "pre_maintenance_margin": plain(before.maintenance),
        "post_maintenance_margin": plain(maintenance),
    }


METHODS: dict[str, Method] = {
    "private/get_open_orders": Method(SubaccountParams, get_open_orders, private=True),
    "private/get_order": Method(OrderIdParams, get_order, private=True),
    "private/get_order_history": Method(HistoryParams, get_order_history, private=True),
    "private/get_trade_history": Method(TradesParams, get_trade_history, private=True),
    "private/get_funding_history": Method(FundingParams, get_funding_history, private=True),
    "private/get_option_settlement_history": Method(SettlementParams, get_option_settlement_history, private=True),
    "private/get_subaccount": Method(SubaccountParams, get_subaccount, private=True),
    "private/get_all_portfolios": Method(WalletParams, get_all_portfolios, private=True),
    "private/get_positions": Method(SubaccountParams, get_positions, private=True),
    "private/get_collaterals": Method(SubaccountParams, get_collaterals, private=True),
    "private/get_margin": Method(MarginParams, get_margin, private=True),
}
