"""What is one account's own, on the wire: orders, executions, positions, collateral, subaccounts."""

from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.accounts import Account, LedgerRow, Position
from mmd.sandbox.derive import margin
from mmd.sandbox.derive.render import Json
from mmd.sandbox.derive.rpc import plain
from mmd.sandbox.derive.tickets import Tickets
from mmd.sandbox.derive.universe import kind_of
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.orders import ZERO, CancelReason, Order, OrderState, UserTrade

STATUSES = {
    OrderState.OPEN: "open",
    OrderState.SPEED_BUMPED: "open",
    OrderState.FILLED: "filled",
    OrderState.CANCELLED: "cancelled",
    OrderState.EXPIRED: "expired",
}
REASONS = {
    CancelReason.USER_REQUEST: "user_request",
    CancelReason.CANCEL_ON_DISCONNECT: "cancel_on_disconnect",
    CancelReason.MMP_TRIGGER: "mmp_trigger",
    CancelReason.NOT_FILLED: "ioc_or_market_partial_fill",
    CancelReason.REDUCE_ONLY: "validation_failed",
    CancelReason.SELF_TRADE: "validation_failed",
    CancelReason.KEY_GONE: "session_key_deregistered",
}
"""All others are told without a reason."""
TRIGGERS = ("trigger_price", "trigger_price_type", "trigger_reject_message", "trigger_type", "algo_type")


def status(order: Order) -> str:
    """What became of an order; one whose instrument has expired has expired with it."""
    if order.cancel_reason is CancelReason.SETTLEMENT:
        return "expired"
    return STATUSES[order.state]


def order_json(tickets: Tickets, order: Order) -> Json:
    """An order record. There is no reduce_only in it."""
    ticket = tickets.of(order)
    return {
        "subaccount_id": int(order.account) if order.account.isdecimal() else 0,
        "order_id": order.order_id,
        "instrument_name": order.instrument_name,
        "direction": str(order.direction),
        "label": order.label,
        "amount": plain(order.amount),
        "filled_amount": plain(order.filled),
        "average_price": plain(order.average_price),
        "limit_price": plain(order.price),
        "signed_limit_price": plain(ticket.price) if ticket.price != order.price else None,
        "max_fee": plain(ticket.max_fee),
        "order_fee": plain(order.fees),
        "extra_fee": "0",
        "order_type": ticket.order_type,
        "time_in_force": ticket.time_in_force,
        "order_status": status(order),
        "cancel_reason": REASONS.get(order.cancel_reason, ""),
        "mmp": order.mmp,
        "is_transfer": False,
        "nonce": str(ticket.nonce),
        "signature": ticket.signature,
        "signature_expiry_sec": ticket.expiry_sec,
        "signer": ticket.signer,
        "creation_timestamp": order.creation_timestamp,
        "last_update_timestamp": order.last_update_timestamp,
        "replaced_order_id": ticket.replaces,
        "quote_id": None,
        **dict.fromkeys(TRIGGERS),
    }


def past_order_json(tickets: Tickets, order: Order) -> Json:
    """A row of the history, which has neither the signature nor the ancestry, as recorded by others."""
    return order_json(tickets, order) | {"signature": "", "replaced_order_id": None}


def user_trade_json(trade: UserTrade) -> Json:
    """A fill record; not settled on chain here, so its batch is always null."""
    return {
        "trade_id": trade.trade_id,
        "order_id": trade.order_id,
        "instrument_name": trade.instrument_name,
        "subaccount_id": int(trade.account) if trade.account.isdecimal() else 0,
        "timestamp": trade.timestamp,
        "direction": str(trade.direction),
        "trade_price": plain(trade.price),
        "trade_amount": plain(trade.amount),
        "trade_fee": plain(trade.fee),
        "expected_rebate": "0",
        "extra_fee": "0",
        "liquidity_role": "maker" if trade.maker else "taker",
        "mark_price": plain(trade.mark_price),
        "index_price": plain(trade.index_price),
        "realized_pnl": plain(trade.profit_loss),
        "realized_pnl_excl_fees": plain(trade.profit_loss),
        "label": trade.label,
        "is_transfer": False,
        "quote_id": None,
        "rfq_id": None,
        "op_uuid": trade.trade_id,
        "batch_status": None,
        "tx_hash": None,
    }


# --- history of what was settled -----------------------------------------------------------------


def funding_json(subaccount_id: int, row: LedgerRow) -> Json:
    """A payment of a perpetual: its funding, and `pnl`, the rest of what the balance moved by. No batches here."""
    return {
        "subaccount_id": subaccount_id,
        "instrument_name": row.instrument_name,
        "timestamp": row.timestamp,
        "funding": plain(row.interest_pl),
        "pnl": plain(row.change - row.interest_pl),
        "batch_status": "Settled",
        "batch_uuid": f"{row.row_id:032x}",
        "tx_hash": None,
    }


def settlement_json(subaccount_id: int, row: LedgerRow, listing: Listing) -> Json:
    """An option that has expired: `amount` is signed (assumed), `settlement_price` that of the index."""
    amount = row.amount if row.side == "long" else -row.amount
    profit = plain(row.change - amount * row.average_price)
    return {
        "subaccount_id": subaccount_id,
        "instrument_name": row.instrument_name,
        "expiry": listing.instrument.expiration_timestamp // 1000,
        "amount": plain(amount),
        "settlement_price": plain(row.price),
        "settlement_value": plain(row.change),
        "option_settlement_pnl": profit,
        "option_settlement_pnl_excl_fees": profit,
    }


# --- positions -----------------------------------------------------------------------------------


def position_json(floor: Floor, account: Account, listing: Listing) -> Json:
    """`amount` is signed; greeks are of one unit. A perpetual's value is profit that is not settled yet.

    Assumed: funding is positive where it was received.
    """
    instrument, reference = listing.instrument, listing.reference
    name = instrument.instrument_name
    position = account.positions.get(name) or Position()
    option = contracts.is_option(instrument)
    held = ZERO if option else position.realized + position.funding
    needs = margin.position_needs(floor, listing, position.size, position.session_price, held)
    floating = contracts.profit(instrument, position.size, position.average_price, listing.mark_price)
    greeks = reference.greeks if reference is not None else None
    return {
        "instrument_name": name,
        "instrument_type": kind_of(instrument),
        "amount": plain(account.reported_size(name)),
        "average_price": plain(position.average_price),
        "average_price_excl_fees": plain(position.average_price),
        "mark_price": plain(listing.mark_price),
        "index_price": plain(floor.index_price(instrument.price_index)),
        "mark_value": plain(needs.value),
        "delta": plain(greeks.delta if greeks is not None else 0.0 if option else 1.0),
        "gamma": plain(greeks.gamma if greeks is not None else 0.0),
        "vega": plain(greeks.vega if greeks is not None else 0.0),
        "theta": plain(greeks.theta if greeks is not None else 0.0),
        "initial_margin": plain(needs.initial),
        "maintenance_margin": plain(needs.maintenance),
        "open_orders_margin": "0",
        "liquidation_price": None,
        "leverage": None,
        "realized_pnl": plain(position.realized),
        "realized_pnl_excl_fees": plain(position.realized),
        "unrealized_pnl": plain(floating),
        "unrealized_pnl_excl_fees": plain(floating),
        "total_fees": plain(position.fees),
        "net_settlements": plain(position.profit_settled),
        "cumulative_funding": plain(position.funding_settled + position.funding),
        "pending_funding": plain(position.funding),
        "amount_step": plain(contracts.amount_step(instrument)),
        "creation_timestamp": instrument.creation_timestamp,
    }


def positions_json(floor: Floor, account: Account) -> list[Json]:
    """Those that are not zero."""
    names = {**account.positions, **account.reported_drift}
    return [position_json(floor, account, floor.listings[name]) for name in names if account.reported_size(name)]


def collaterals_json(account: Account) -> list[Json]:
    """USDC, the only one here; it counts as a dollar."""
    cash = plain(account.wallet(margin.USDC).balance)
    return [
        {
            "asset_name": margin.USDC,
            "asset_type": "erc20",
            "currency": margin.USDC,
            "amount": cash,
            "mark_price": "1",
            "mark_value": cash,
            "initial_margin": cash,
            "maintenance_margin": cash,
            "pending_interest": "0",
            "cumulative_interest": "0",
            "delta": "1",
            "delta_currency": margin.USDC,
            "average_price": "1",
            "open_orders_margin": "0",
            "realized_pnl": "0",
            "unrealized_pnl": "0",
            "total_fees": "0",
            "creation_timestamp": account.created_ms,
        }
    ]


def subaccount_json(floor: Floor, tickets: Tickets, account: Account, *, failed: bool) -> Json:
    """Everything of a subaccount at one instant; with `failed` it says that it could not be fetched."""
    have = margin.margins(floor, account)
    bases = sorted({listing.instrument.base_currency for listing in floor.listings.values()})
    return {
        "subaccount_id": int(account.account_id),
        "label": "",
        "manager_id": 1,
        "risk_universe_id": 1,
        "margin_type": "SM",
        "currency": bases,
        "is_under_liquidation": have.maintenance < ZERO and not failed,
        "failed_to_fetch": failed,
        "subaccount_value": _figure(have.value, failed),
        "positions_value": _figure(have.positions_value, failed),
        "collaterals_value": _figure(have.collateral, failed),
        "initial_margin": _figure(have.initial, failed),
        "maintenance_margin": _figure(have.maintenance, failed),
        "positions_initial_margin": _figure(have.positions_initial, failed),
        "positions_maintenance_margin": _figure(have.positions_maintenance, failed),
        "collaterals_initial_margin": _figure(have.collateral, failed),
        "collaterals_maintenance_margin": _figure(have.collateral, failed),
        "open_orders_margin": _figure(have.open_orders, failed),
        "projected_margin_change": "0",
        "mm_credits": "0",
        "open_orders": [] if failed else [order_json(tickets, order) for order in account.open_orders.values()],
        "positions": [] if failed else positions_json(floor, account),
        "collaterals": [] if failed else collaterals_json(account),
        "vault_deposit_holds": [],
    }


def _figure(value: Decimal, failed: bool) -> str:
    return "0" if failed else plain(value)
