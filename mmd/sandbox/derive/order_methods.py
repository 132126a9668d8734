"""Orders: place, replace, cancel. Every signed action is verified; what the engine refuses gets Derive's code."""

from collections.abc import Callable
from decimal import Decimal
from typing import Literal

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.accounts import Account
from mmd.sandbox.derive import margin, signing
from mmd.sandbox.derive.budgets import CANCEL_ALL, LABELS, MATCHING
from mmd.sandbox.derive.context import Call, Context, Method
from mmd.sandbox.derive.render import Json
from mmd.sandbox.derive.render_account import order_json, user_trade_json
from mmd.sandbox.derive.rpc import REFUSALS, invalid_params, plain
from mmd.sandbox.derive.tickets import Ticket
from mmd.sandbox.derive.universe import asset, kind_of
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.orders import ZERO, NewOrder, Order, OrderState, Placed, Refuse, Refused, TimeInForce
from mmd.sandbox.rpc import RpcError

NS_PER_MS = 1_000_000
DAY_SEC = 86_400
MOST_LIFE_SEC = 120 * DAY_SEC
MMP_LIFE_SEC = 900
NONCE_BACK_MS = 120 * DAY_SEC * 1000
NONCE_AHEAD_MS = 3_600_000
"""Assumed, as others tell it: from 120 days before to an hour after the exchange's clock."""
NEVER_MS = 2**63 - 1
LABEL_MAX = 64
FEE_FACTOR = 2


class OrderParams(msgspec.Struct, kw_only=True):
    """For private/order. `max_fee` is for one coin."""

    subaccount_id: int
    instrument_name: str
    direction: Literal["buy", "sell"]
    limit_price: Decimal
    amount: Decimal
    max_fee: Decimal
    nonce: str | int
    signature_expiry_sec: int
    signer: str
    signature: str
    order_type: Literal["limit", "market"] = "limit"
    time_in_force: Literal["gtc", "post_only", "fok", "ioc"] = "gtc"
    label: str = ""
    mmp: bool = False
    reduce_only: bool = False
    reject_timestamp: int = NEVER_MS
    reject_post_only: bool = True
    trigger_type: str | None = None
    algo_type: str | None = None


class ReplaceParams(OrderParams, kw_only=True):
    """For private/replace: which order goes, and how much of it the client knows to be filled."""

    order_id_to_cancel: str | None = None
    nonce_to_cancel: int | str | None = None
    expected_filled_amount: Decimal | None = None


class CancelParams(msgspec.Struct):
    subaccount_id: int
    instrument_name: str
    order_id: str


class NonceParams(msgspec.Struct):
    subaccount_id: int
    instrument_name: str
    nonce: int


class InstrumentParams(msgspec.Struct):
    subaccount_id: int
    instrument_name: str


class LabelParams(msgspec.Struct):
    subaccount_id: int
    label: str
    instrument_name: str | None = None


class SubaccountParams(msgspec.Struct):
    subaccount_id: int


# --- what is checked before the engine -----------------------------------------------------------


def action_hashes(context: Context, call: Call, params: OrderParams, listing: Listing) -> signing.ActionHashes:
    """What this order's signer signs. -32602 for numbers that nobody can sign."""
    address, sub_id = asset(listing.instrument)
    envelope = signing.Envelope(
        subaccount=params.subaccount_id,
        nonce=nonce_of(params.nonce),
        expiry=params.signature_expiry_sec,
        owner=call.owner.wallet.address,
        signer=params.signer,
    )
    trade = signing.Trade(
        asset=address,
        sub_id=sub_id,
        limit_price=params.limit_price,
        amount=params.amount,
        max_fee=params.max_fee,
        is_bid=params.direction == "buy",
    )
    try:
        return signing.hash_trade(context.wallets.separator, envelope, trade)
    except signing.Unsigned as error:
        raise invalid_params(str(error)) from None


def nonce_of(nonce: str | int) -> int:
    """-32602 for what is no number."""
    if isinstance(nonce, str) and not (nonce.isascii() and nonce.isdecimal()):
        raise invalid_params("nonce: must be a decimal string")
    return int(nonce)


def _check_signature(context: Context, call: Call, params: OrderParams, listing: Listing) -> None:
    """Signer and signature; and that the key allows this kind of order, for so long."""
    signer = context.wallets.signer(call.owner, params.signer, context.now_ms)
    hashes = action_hashes(context, call, params, listing)
    if signing.recover(hashes.typed_data_hash, params.signature) != signing.address(params.signer):
        raise RpcError(14014, "Signature invalid for message or transaction")
    signer.check_scope(kind_of(listing.instrument))
    if params.subaccount_id not in signer.subaccounts:
        raise RpcError(403, "Forbidden", "the session key is not for this subaccount")
    if signer.key is not None and params.signature_expiry_sec > signer.key.expiry_sec:
        raise RpcError(14038, "Action outlives its session key")


def _check_times(context: Context, call: Call, params: OrderParams) -> None:
    """Nonce and expiry; the nonce is used up, whatever the engine says then (assumed)."""
    now_ms, nonce = context.now_ms, nonce_of(params.nonce)
    nonce_ms = nonce // NS_PER_MS
    if not now_ms - NONCE_BACK_MS <= nonce_ms <= now_ms + NONCE_AHEAD_MS:
        raise RpcError(11018, "Nonce date out of window", "nonces are UTC nanoseconds")
    life_sec = params.signature_expiry_sec - now_ms // 1000
    least, most = context.options.least_life_seconds, MMP_LIFE_SEC if params.mmp else MOST_LIFE_SEC
    if not least <= life_sec <= most:
        raise RpcError(11011, "Invalid signature expiry", f"must be {least} sec to {most} sec from now")
    nonces = call.owner.wallet.nonces
    if nonce in nonces:
        raise RpcError(11017, "Nonce already used")
    nonces.add(nonce)


def least_max_fee(context: Context, params: OrderParams, listing: Listing) -> Decimal:
    """The smallest fee bound of one coin that is taken. Source: docs.derive.xyz, Error codes, 11023."""
    instrument = listing.instrument
    rate = max(instrument.maker_commission, instrument.taker_commission)
    worth = max(context.floor.index_price(instrument.price_index), params.limit_price)
    takes = params.time_in_force != "post_only"
    return FEE_FACTOR * rate * worth + (instrument.base_fee / params.amount if takes else ZERO)


def _check_order(context: Context, account: Account, params: OrderParams, listing: Listing) -> None:
    """What Derive asks of an order besides what the engine looks at."""
    instrument = listing.instrument
    if listing.state is not InstrumentState.OPEN:
        raise RpcError(11021, "Instrument not live")
    most = instrument.max_trade_amount
    if params.amount <= 0 or (most is not None and params.amount > most):
        raise RpcError(11012, "Invalid amount", f"{plain(instrument.min_trade_amount)} to {plain(most)}")
    bound = least_max_fee(context, params, listing)
    if params.max_fee < bound:
        raise RpcError(11023, "Max fee order param is too low", f"must be at least {plain(bound)}")
    resting = params.order_type == "limit" and params.time_in_force in ("gtc", "post_only")
    if params.reduce_only and resting:
        raise RpcError(11024, "Reduce only not supported with this time in force")
    if params.order_type == "market" and params.time_in_force == "post_only":
        raise RpcError(11010, "Post only cannot be a market order")
    if not resting:
        _check_liquidity(context, account, params, listing)
    carried = margin.Carried(listing, Direction(params.direction), params.amount, params.limit_price)
    if not params.reduce_only and not margin.suffices(context.floor, account, carried):
        raise RpcError(11000, "Insufficient funds")


def _check_liquidity(context: Context, account: Account, params: OrderParams, listing: Listing) -> None:
    """An order that must trade at once finds something, or, as fill-or-kill, everything."""
    found = ZERO
    for entry in context.floor.entries(listing, Direction(params.direction), params.limit_price):
        if not isinstance(entry, Order):
            found += entry.amount
        elif entry.account != account.account_id:
            found += entry.remaining
    if not found:
        raise RpcError(11009, "No liquidity for market, ioc or fok order")
    if params.time_in_force == "fok" and found < params.amount:
        raise RpcError(11014, "Fok order not filled")


# --- placing -------------------------------------------------------------------------------------


def _verified(context: Context, call: Call, params: OrderParams) -> tuple[Account, Listing]:
    """All that is looked at before anything is cancelled or placed."""
    account = call.account(context, params.subaccount_id)
    if params.trigger_type is not None or params.algo_type is not None:
        raise invalid_params("trigger_type, algo_type: the sandbox has neither")
    if len(params.label) > LABEL_MAX:
        raise invalid_params(f"label: at most {LABEL_MAX} characters")
    listing = context.listing(params.instrument_name)
    _check_signature(context, call, params, listing)
    _check_times(context, call, params)
    return account, listing


def _enter(
    context: Context, account: Account, listing: Listing, params: OrderParams, replaces: str | None = None
) -> Placed:
    """Give a verified order to the engine. Raises RpcError."""
    if context.now_ms > params.reject_timestamp:
        raise RpcError(11022, "Reject timestamp passed")
    _check_order(context, account, params, listing)
    force = TimeInForce.GOOD_TIL_CANCELLED
    if params.time_in_force == "fok":
        force = TimeInForce.FILL_OR_KILL
    elif params.time_in_force == "ioc" or params.order_type == "market":
        force = TimeInForce.IMMEDIATE_OR_CANCEL
    new = NewOrder(
        account=account.account_id,
        instrument_name=params.instrument_name,
        direction=Direction(params.direction),
        amount=params.amount,
        price=params.limit_price,
        time_in_force=force,
        label=params.label,
        post_only=params.time_in_force == "post_only",
        reject_post_only=params.reject_post_only and params.time_in_force == "post_only",
        reduce_only=params.reduce_only,
        mmp=params.mmp,
    )
    try:
        placed = context.engine.place(new, context.now_ms, bumped=False)
    except Refused as error:
        raise _refusal(error, listing) from None
    ticket = Ticket(
        nonce=nonce_of(params.nonce),
        signature=params.signature,
        signer=signing.address(params.signer),
        expiry_sec=params.signature_expiry_sec,
        max_fee=params.max_fee,
        price=params.limit_price,
        order_type=params.order_type,
        time_in_force=params.time_in_force,
        replaces=replaces,
    )
    context.tickets.keep(placed.order, ticket)
    if placed.order.state is OrderState.OPEN:
        order_id = placed.order.order_id
        context.alarms.at(
            params.signature_expiry_sec * 1000, lambda now_ms: _expire(context, account, order_id, now_ms)
        )
    return placed


def _expire(context: Context, account: Account, order_id: str, now_ms: int) -> None:
    order = account.open_orders.get(order_id)
    if order is not None:
        context.engine.expire(order, now_ms)


def _refusal(error: Refused, listing: Listing) -> RpcError:
    """With what 11013 tells of the price band, and 11012 of amounts."""
    code, message = REFUSALS[error.why]
    instrument, reference = listing.instrument, listing.reference
    if code == 11012:
        step = plain(contracts.amount_step(instrument))
        return RpcError(code, message, f"at least {plain(instrument.min_trade_amount)}, in steps of {step}")
    if error.why in (Refuse.PRICE_TOO_HIGH, Refuse.PRICE_TOO_LOW) and reference is not None:
        high = error.why is Refuse.PRICE_TOO_HIGH
        limit = reference.max_price if high else reference.min_price
        width = abs(limit - reference.mark_price)
        return RpcError(code, message, {"limit": plain(limit), "bandwidth": plain(width)})
    return RpcError(code, message)


def _placed_json(context: Context, placed: Placed) -> Json:
    return {
        "order": order_json(context.tickets, placed.order),
        "trades": [user_trade_json(trade) for trade in placed.trades],
    }


def order(context: Context, call: Call, params: OrderParams) -> object:
    account, listing = _verified(context, call, params)
    return _placed_json(context, _enter(context, account, listing, params))


def order_debug(context: Context, call: Call, params: OrderParams) -> object:
    """Every step of the hash, and whose signature it is; nothing is executed."""
    listing = context.listing(params.instrument_name)
    hashes = action_hashes(context, call, params, listing)
    return {
        "encoded_data": "0x" + hashes.data.hex(),
        "encoded_data_hashed": "0x" + hashes.data_hash.hex(),
        "action_hash": "0x" + hashes.action_hash.hex(),
        "typed_data_hash": "0x" + hashes.typed_data_hash.hex(),
        "domain_separator": "0x" + context.wallets.separator.hex(),
        "module": signing.TRADE_MODULE,
        "owner": call.owner.wallet.address,
        "expected_signer": params.signer,
        "recovered_signer": signing.recover(hashes.typed_data_hash, params.signature),
    }


def replace(context: Context, call: Call, params: ReplaceParams) -> object:
    """Cancel, then create. What is wrong with the request cancels nothing; after that the old order is gone."""
    if (params.order_id_to_cancel is None) == (params.nonce_to_cancel is None):
        raise invalid_params("order_id_to_cancel or nonce_to_cancel: exactly one")
    account, listing = _verified(context, call, params)
    old = _order_to_replace(context, account, params)
    if old.instrument_name != params.instrument_name:
        raise invalid_params("instrument_name: not that of the order to cancel")
    context.engine.cancel(account.account_id, old.order_id, context.now_ms)
    data: Json = {
        "cancelled_order": order_json(context.tickets, old),
        "order": None,
        "trades": None,
        "create_order_error": None,
    }
    try:
        if params.expected_filled_amount is not None and params.expected_filled_amount != old.filled:
            told = f"filled {plain(old.filled)}, expected {plain(params.expected_filled_amount)}"
            raise RpcError(11028, "Replaced order filled amount does not match expected", told)
        if context.trouble.failing_replaces:
            raise RpcError(*context.trouble.failing_replaces.pop(0))
        data |= _placed_json(context, _enter(context, account, listing, params, old.order_id))
    except RpcError as error:
        if error.code == 11028 and not context.trouble.mismatch_in_result:
            raise
        data["create_order_error"] = error.body()
    return data


def _order_to_replace(context: Context, account: Account, params: ReplaceParams) -> Order:
    if params.order_id_to_cancel is not None:
        return _open_order(context, account, params.order_id_to_cancel)
    nonce = nonce_of(params.nonce_to_cancel or 0)
    for found in account.open_orders.values():
        if context.tickets.of(found).nonce == nonce:
            return found
    raise RpcError(11006, "Does not exist")


def _open_order(context: Context, account: Account, order_id: str) -> Order:
    """RpcError: 11006 for an order that never was, 11003 to 11005 for one that is closed."""
    found = account.open_orders.get(order_id)
    if found is not None:
        return found
    closed = account.closed_orders.get(order_id)
    if closed is not None and closed.state is OrderState.EXPIRED:
        raise RpcError(11005, "Already expired")
    if closed is None:
        raise RpcError(11006, "Does not exist")
    why = Refuse.ALREADY_FILLED if closed.state is OrderState.FILLED else Refuse.ALREADY_CLOSED
    raise RpcError(*REFUSALS[why])


# --- cancelling ----------------------------------------------------------------------------------


def cancel(context: Context, call: Call, params: CancelParams) -> object:
    account = call.account(context, params.subaccount_id)
    found = _open_order(context, account, params.order_id)
    if found.instrument_name != params.instrument_name:
        raise RpcError(11006, "Does not exist")
    context.engine.cancel(account.account_id, found.order_id, context.now_ms)
    return order_json(context.tickets, found)


def _cancel_where(context: Context, call: Call, subaccount_id: int, chosen: Callable[[Order], bool]) -> int:
    account = call.account(context, subaccount_id)
    return len(context.engine.cancel_where(account.account_id, chosen, context.now_ms))


def cancel_by_nonce(context: Context, call: Call, params: NonceParams) -> object:
    """A nonce that no open order has is burnt, so that a late order with it is refused."""
    call.owner.wallet.nonces.add(params.nonce)
    count = _cancel_where(
        context,
        call,
        params.subaccount_id,
        lambda found: (
            found.instrument_name == params.instrument_name and context.tickets.of(found).nonce == params.nonce
        ),
    )
    return {"cancelled_orders": count}


def cancel_by_instrument(context: Context, call: Call, params: InstrumentParams) -> object:
    context.listing(params.instrument_name, alive=False)
    count = _cancel_where(
        context, call, params.subaccount_id, lambda found: found.instrument_name == params.instrument_name
    )
    return {"cancelled_orders": count}


def cancel_by_label(context: Context, call: Call, params: LabelParams) -> object:
    """Counts only where an instrument is named."""
    count = _cancel_where(
        context,
        call,
        params.subaccount_id,
        lambda found: found.label == params.label and params.instrument_name in (None, found.instrument_name),
    )
    return {"cancelled_orders": count if params.instrument_name is not None else -1}


def cancel_all(context: Context, call: Call, params: SubaccountParams) -> object:
    _cancel_where(context, call, params.subaccount_id, lambda found: True)
    return "ok"


def _label_budget(params: LabelParams) -> str:
    return MATCHING if params.instrument_name is not None else LABELS


METHODS: dict[str, Method] = {
    "private/order": Method(OrderParams, order, MATCHING, private=True, scope="trade"),
    "private/order_debug": Method(OrderParams, order_debug, private=True),
    "private/replace": Method(ReplaceParams, replace, MATCHING, private=True, scope="trade"),
    "private/cancel": Method(CancelParams, cancel, MATCHING, private=True, scope="trade"),
    "private/cancel_by_nonce": Method(NonceParams, cancel_by_nonce, MATCHING, private=True, scope="trade"),
    "private/cancel_by_instrument": Method(
        InstrumentParams, cancel_by_instrument, MATCHING, private=True, scope="trade"
    ),
    "private/cancel_by_label": Method(LabelParams, cancel_by_label, _label_budget, private=True, scope="trade"),
    "private/cancel_all": Method(SubaccountParams, cancel_all, CANCEL_ALL, private=True, scope="trade"),
}
