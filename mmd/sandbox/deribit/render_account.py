"""An account on the wire: orders, own trades, positions, summaries, transaction log."""

from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.accounts import Account, LedgerRow, Position, Wallet
from mmd.sandbox.deribit.render import Json, money
from mmd.sandbox.floor import Floor
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import SandboxInstrument
from mmd.sandbox.orders import ZERO, CancelReason, Order, OrderState, OrderType, UserTrade


def order_json(floor: Floor, order: Order) -> Json:
    instrument = floor.listings[order.instrument_name].instrument
    data: Json = {
        "order_id": order.order_id,
        "order_state": order.state,
        "order_type": order.order_type,
        "instrument_name": order.instrument_name,
        "direction": order.direction,
        "price": order.price,
        "amount": order.amount,
        "contracts": order.amount / instrument.contract_size,
        "filled_amount": order.filled,
        "average_price": money(order.average_price),
        "label": order.label,
        "time_in_force": order.time_in_force,
        "post_only": order.post_only,
        "reject_post_only": order.reject_post_only,
        "reduce_only": order.reduce_only,
        "mmp": order.mmp,
        "api": True,
        "web": False,
        "mobile": False,
        "replaced": order.replaced,
        "is_liquidation": False,
        "is_rebalance": False,
        "risk_reducing": False,
        "max_show": order.amount,
        "display_amount": order.amount,
        "creation_timestamp": order.creation_timestamp,
        "last_update_timestamp": order.last_update_timestamp,
        "user_id": floor.accounts[order.account].user_id,
    }
    if order.order_type is OrderType.MARKET_LIMIT:
        data["original_order_type"] = OrderType.MARKET_LIMIT
        data["order_type"] = OrderType.LIMIT
    if order.state is OrderState.CANCELLED:
        data["cancel_reason"] = order.cancel_reason
        if order.cancel_reason is CancelReason.MMP_TRIGGER:
            data["mmp_cancelled"] = True
    return data


def user_trade_json(floor: Floor, trade: UserTrade) -> Json:
    instrument = floor.listings[trade.instrument_name].instrument
    data: Json = {
        "trade_id": trade.trade_id,
        "trade_seq": trade.trade_seq,
        "order_id": trade.order_id,
        "label": trade.label,
        "instrument_name": trade.instrument_name,
        "timestamp": trade.timestamp,
        "direction": trade.direction,
        "price": trade.price,
        "amount": trade.amount,
        "contracts": trade.amount / instrument.contract_size,
        "fee": money(trade.fee),
        "fee_currency": trade.fee_currency,
        "liquidity": "M" if trade.maker else "T",
        "state": trade.state,
        "order_type": trade.order_type,
        "post_only": trade.post_only,
        "reduce_only": trade.reduce_only,
        "mmp": trade.mmp,
        "api": True,
        "self_trade": trade.self_trade,
        "risk_reducing": False,
        "mark_price": trade.mark_price,
        "index_price": trade.index_price,
        "profit_loss": money(trade.profit_loss),
        "tick_direction": trade.tick_direction,
        "matching_id": None,
        "user_id": floor.accounts[trade.account].user_id,
    }
    if contracts.is_option(instrument):
        data["iv"] = trade.iv if trade.iv is not None else 0.0
        data["underlying_price"] = trade.underlying_price or trade.index_price
    return data


def position_json(floor: Floor, account: Account, listing: Listing) -> Json:
    """A position, also one of size 0."""
    instrument, reference = listing.instrument, listing.reference
    position = account.positions.get(instrument.instrument_name) or Position()
    size = account.reported_size(instrument.instrument_name)
    mark, index = listing.mark_price, floor.index_price(instrument.price_index)
    floating = floating_profit(instrument, position, mark)
    usd = index if contracts.is_inverse(instrument) else Decimal(1)
    data: Json = {
        "instrument_name": instrument.instrument_name,
        "kind": instrument.kind,
        "direction": "buy" if size > 0 else "sell" if size < 0 else "zero",
        "size": size,
        "average_price": money(position.average_price),
        "mark_price": mark,
        "index_price": index,
        "settlement_price": listing.settlement_price or ZERO,
        "delta": money(position_delta(listing, position)),
        "initial_margin": 0.0,
        "maintenance_margin": 0.0,
        "open_orders_margin": 0.0,
        "floating_profit_loss": money(floating),
        "realized_profit_loss": money(position.realized),
        # Of the position since it was opened: neither the session nor what was realised is in it.
        "total_profit_loss": money(contracts.profit(instrument, position.size, position.average_price, mark)),
    }
    if contracts.is_option(instrument):
        greeks = reference.greeks if reference is not None else None
        data["average_price_usd"] = money(position.average_price * usd)
        data["floating_profit_loss_usd"] = money(floating * usd)
        data["gamma"] = (greeks.gamma if greeks is not None else 0.0) * float(position.size)
        data["vega"] = (greeks.vega if greeks is not None else 0.0) * float(position.size)
        data["theta"] = (greeks.theta if greeks is not None else 0.0) * float(position.size)
    else:
        data["size_currency"] = money(contracts.coins(instrument, size, mark))
        data["leverage"] = instrument.max_leverage or 50
        data["estimated_liquidation_price"] = None
        data["realized_funding"] = money(position.funding)
        data["interest_value"] = 0.0
    return data


def floating_profit(instrument: SandboxInstrument, position: Position, mark: Decimal) -> Decimal:
    """Unrealised profit of the session (options: since they were opened), in the settlement currency."""
    return contracts.profit(instrument, position.size, position.session_price, mark)


def position_delta(listing: Listing, position: Position) -> Decimal:
    """In coins."""
    if not position.size:
        return ZERO
    if contracts.is_option(listing.instrument):
        greeks = listing.reference.greeks if listing.reference is not None else None
        return position.size * Decimal(repr(greeks.delta)) if greeks is not None else ZERO
    return contracts.coins(listing.instrument, position.size, listing.mark_price)


class _Totals:
    """Sums over an account's positions that settle in one currency."""

    def __init__(self, floor: Floor, account: Account, currency: str) -> None:
        self.futures_upl = self.options_value = self.options_upl = self.delta = ZERO
        self.by_index: dict[str, Decimal] = {}
        self.options_delta = ZERO
        self.options_gamma = self.options_vega = self.options_theta = 0.0
        for name, position in account.positions.items():
            listing = floor.listings[name]
            instrument = listing.instrument
            if instrument.settlement_currency != currency or not position.size:
                continue
            delta = position_delta(listing, position)
            self.delta += delta
            self.by_index[instrument.price_index] = self.by_index.get(instrument.price_index, ZERO) + delta
            floating = floating_profit(instrument, position, listing.mark_price)
            if contracts.is_option(instrument):
                self.options_value += position.size * listing.mark_price
                self.options_upl += floating
                self.options_delta += delta
                greeks = listing.reference.greeks if listing.reference is not None else None
                if greeks is not None:
                    self.options_gamma += greeks.gamma * float(position.size)
                    self.options_vega += greeks.vega * float(position.size)
                    self.options_theta += greeks.theta * float(position.size)
            else:
                self.futures_upl += floating


def equity(floor: Floor, account: Account, currency: str) -> Decimal:
    """Cash, session profit of futures and the value of options, in that currency."""
    wallet = account.wallet(currency)
    totals = _Totals(floor, account, currency)
    return wallet.balance + wallet.session_rpl + totals.futures_upl + totals.options_value


def portfolio_json(floor: Floor, account: Account, currency: str) -> Json:
    """The money of one currency; there is no margin in the sandbox, so all margins are zero."""
    wallet = account.wallets.get(currency) or Wallet(ZERO)
    totals = _Totals(floor, account, currency)
    futures_pl = totals.futures_upl + wallet.session_rpl
    options_pl = totals.options_upl
    total = wallet.balance + futures_pl + totals.options_value
    data: Json = {
        "currency": currency,
        "balance": money(wallet.balance),
        "equity": money(total),
        "margin_balance": money(total - totals.options_value),
        "available_funds": money(total - totals.options_value),
        "available_withdrawal_funds": money(max(ZERO, wallet.balance)),
        "total_pl": money(futures_pl + options_pl),
        "session_upl": money(totals.futures_upl),
        "session_rpl": money(wallet.session_rpl),
        "futures_pl": money(futures_pl),
        "futures_session_upl": money(totals.futures_upl),
        "futures_session_rpl": money(wallet.session_rpl),
        "options_pl": money(options_pl),
        "options_session_upl": money(options_pl),
        "options_session_rpl": 0.0,
        "options_value": money(totals.options_value),
        "options_delta": money(totals.options_delta),
        "options_gamma": totals.options_gamma,
        "options_vega": totals.options_vega,
        "options_theta": totals.options_theta,
        "delta_total": money(totals.delta),
        "projected_delta_total": money(totals.delta),
        "delta_total_map": {name: money(delta) for name, delta in totals.by_index.items()},
        "options_gamma_map": {},
        "options_vega_map": {},
        "options_theta_map": {},
        "estimated_liquidation_ratio": 0.0,
        "estimated_liquidation_ratio_map": {},
        "margin_model": "segregated_sm",
        "portfolio_margining_enabled": False,
        "cross_collateral_enabled": False,
    }
    for name in (
        "initial_margin",
        "maintenance_margin",
        "projected_initial_margin",
        "projected_maintenance_margin",
        "spot_reserve",
        "additional_reserve",
        "fee_balance",
        "locked_balance",
    ):
        data[name] = 0.0
    return data


def summary_json(floor: Floor, account: Account, currency: str, budgets: Budgets, *, extended: bool) -> Json:
    data = portfolio_json(floor, account, currency)
    data["fees"] = []
    data["limits"] = limits_json(budgets)
    if extended:
        data |= identity_json(account)
    return data


def identity_json(account: Account) -> Json:
    """The members only the extended summary has."""
    return {
        "id": account.user_id,
        "email": f"{account.user_id}@sandbox.invalid",
        "username": account.account_id,
        "system_name": account.account_id,
        "type": "main",
        "mmp_enabled": account.mmp_enabled,
        "block_rfq_self_match_prevention": True,
        "self_trading_reject_mode": account.self_trading,
        "self_trading_extended_to_subaccounts": str(account.self_trading_extended).lower(),
        "fee_group": "default",
        "creation_timestamp": account.created_ms,
        "security_keys_enabled": False,
        "referrer_id": None,
        "login_enabled": False,
        "interuser_transfers_enabled": False,
        "has_non_block_chain_equity": False,
    }


def limits_json(budgets: Budgets) -> Json:
    def row(budget: Budget) -> Json:
        return {"rate": round(budget.rate, 3), "burst": round(budget.burst, 3)}

    return {
        "non_matching_engine": row(budgets.default),
        "limits_per_currency": False,
        "matching_engine": {
            "trading": {"total": row(budgets.matching)},
            "spot": row(budgets.matching),
            "cancel_all": row(budgets.cancel_all),
            "maximum_quotes": {"rate": 0, "burst": 0},
            "maximum_mass_quotes": {"rate": 0, "burst": 0},
            "guaranteed_mass_quotes": {"rate": 0, "burst": 0},
            "block_rfq_maker": {"rate": 0, "burst": 0},
        },
    }


def ledger_json(instrument: SandboxInstrument, account: Account, row: LedgerRow) -> Json:
    """One row of the transaction log; futures and perpetuals also carry session profit and funding."""
    data: Json = {
        "id": row.row_id,
        "user_seq": row.user_seq,
        "user_id": account.user_id,
        "username": account.account_id,
        "timestamp": row.timestamp,
        "type": row.kind,
        "currency": row.currency,
        "instrument_name": row.instrument_name,
        "side": row.side,
        "amount": row.amount,
        "contracts": row.amount / instrument.contract_size,
        "price": row.price,
        "price_currency": instrument.quote_currency,
        "position": row.position,
        "change": money(row.change),
        "cashflow": money(row.cashflow),
        "commission": money(row.commission),
        "balance": money(row.balance),
        "equity": money(row.balance),
        "mark_price": row.mark_price,
        "index_price": row.index_price,
        "trade_id": row.trade_id or None,
        "order_id": row.order_id or None,
        "profit_as_cashflow": row.profit_as_cashflow,
        "info": {},
    }
    if row.user_role:
        data["user_role"] = row.user_role
    if not contracts.is_option(instrument):
        data["session_rpl"] = money(row.session_rpl)
        data["session_upl"] = money(row.session_upl)
    if instrument.is_perpetual:
        data["interest_pl"] = money(row.interest_pl)
        data["total_interest_pl"] = money(row.total_interest_pl)
    return data
