"""The wallet and its connections: login, subscriptions, keys, cancel on disconnect, maker protection, limits."""

from decimal import Decimal

import msgspec

from mmd.sandbox.derive.budgets import CANCEL_ALL, ENDPOINTS, FREE, LABELS, MATCHING, NON_MATCHING
from mmd.sandbox.derive.context import Call, Context, Method, Nothing
from mmd.sandbox.derive.protection import MmpLimits, RollingProtection
from mmd.sandbox.derive.query_methods import WalletParams
from mmd.sandbox.derive.render import Json
from mmd.sandbox.derive.rpc import invalid_params, plain
from mmd.sandbox.derive.wallets import key_row
from mmd.sandbox.rpc import RpcError

MAX_CHANNELS = 500
FEES = ("perp_maker_fee", "perp_taker_fee", "option_maker_fee", "option_taker_fee", "spot_maker_fee", "spot_taker_fee")
RFQ_DISCOUNTS = ("base_fee_discount", "rfq_maker_discount", "rfq_taker_discount")


class LoginParams(msgspec.Struct):
    wallet: str
    timestamp: int | str
    signature: str


class ChannelsParams(msgspec.Struct):
    channels: list[str]


class UnsubscribeParams(msgspec.Struct):
    channels: list[str] | None = None


class CancelOnDisconnectParams(msgspec.Struct):
    enabled: bool
    wallet: str | None = None


class MmpParams(msgspec.Struct):
    subaccount_id: int
    currency: str
    mmp_interval: int
    mmp_frozen_time: int
    mmp_amount_limit: Decimal = Decimal(0)
    mmp_delta_limit: Decimal = Decimal(0)


class CurrencyParams(msgspec.Struct):
    subaccount_id: int
    currency: str | None = None


class KeyParams(msgspec.Struct):
    public_session_key: str


# --- the connection ------------------------------------------------------------------------------


def login(context: Context, call: Call, params: LoginParams) -> object:
    """The subaccounts that this key may use."""
    caller = context.wallets.log_in(params.wallet, str(params.timestamp), params.signature, context.now_ms)
    link = call.link
    if link.caller is not None and link.caller.wallet is not caller.wallet:
        context.publisher.unsubscribe_all(link, private=True)
    link.caller = caller
    return caller.subaccounts


def subscribe(context: Context, call: Call, params: ChannelsParams) -> object:
    """Succeeds where any channel is there; 13000 where none is."""
    if len(params.channels) > MAX_CHANNELS:
        raise invalid_params(f"channels: at most {MAX_CHANNELS}")
    link = call.link
    status: dict[str, str] = {}
    for name in params.channels:
        for part in name.split(".")[1:2]:
            if part in context.floor.listings and name not in link.channels:
                context.want(part)
        refused = name in context.trouble.refused_channels
        granted = not refused and context.publisher.subscribe(link, name, context.now_ms)
        status[name] = "ok" if granted else f"{name}: {_why_not(context, call, name)}"
    if status and "ok" not in status.values():
        raise RpcError(13000, "All channels invalid", str(status))
    return {"status": status, "current_subscriptions": list(link.channels)}


def _why_not(context: Context, call: Call, name: str) -> str:
    if not context.publisher.catalogue.is_private(name):
        return "Invalid channel"
    return "Unauthorized (14022)" if call.link.caller is None else "Forbidden (14022)"


def unsubscribe(context: Context, call: Call, params: UnsubscribeParams) -> object:
    """Without channels, from all."""
    link = call.link
    names = list(link.channels) if params.channels is None else params.channels
    status = {name: "ok" if context.publisher.unsubscribe(link, name) else "not subscribed" for name in names}
    return {"status": status, "remaining_subscriptions": list(link.channels)}


def set_cancel_on_disconnect(context: Context, call: Call, params: CancelOnDisconnectParams) -> object:
    """Of the whole wallet, and kept."""
    if params.wallet is not None:
        call.check_wallet(params.wallet)
    call.owner.wallet.cancel_on_disconnect = params.enabled
    return "ok"


# --- the wallet ----------------------------------------------------------------------------------


def get_account(context: Context, call: Call, params: WalletParams) -> object:
    call.check_wallet(params.wallet)
    wallet, rates = call.owner.wallet, context.budgets.rates
    created_ms = min(context.floor.account(account, context.now_ms).created_ms for account in wallet.accounts)
    return {
        "wallet": wallet.address,
        "subaccount_ids": list(wallet.subaccounts),
        "fallback_subaccount_id": None,
        "cancel_on_disconnect": wallet.cancel_on_disconnect,
        "is_rfq_maker": False,
        "websocket_matching_tps": rates.matching,
        "websocket_non_matching_tps": rates.non_matching,
        "websocket_perp_tps": rates.perp,
        "websocket_option_tps": rates.option,
        "per_endpoint_tps": {ENDPOINTS[CANCEL_ALL]: rates.cancel_all, ENDPOINTS[LABELS]: rates.labels},
        "fee_info": dict.fromkeys(RFQ_DISCOUNTS, "0") | dict.fromkeys(FEES),
        "whitelisted_recipients": [],
        "creation_timestamp_sec": created_ms // 1000,
    }


def get_subaccounts(context: Context, call: Call, params: WalletParams) -> object:
    call.check_wallet(params.wallet)
    return {"wallet": call.owner.wallet.address, "subaccount_ids": call.owner.subaccounts}


def session_keys(context: Context, call: Call, params: WalletParams) -> object:
    call.check_wallet(params.wallet)
    wallet = call.owner.wallet
    return {"public_session_keys": [key_row(key, wallet) for key in wallet.keys.values()]}


def get_wallets_from_session_key(context: Context, call: Call, params: KeyParams) -> object:
    wanted = params.public_session_key.lower()
    wallets = context.wallets.by_address.values()
    return {"wallets": [one.address for one in wallets if any(key.lower() == wanted for key in one.keys)]}


def rate_limits(context: Context, call: Call, params: Nothing) -> object:
    """What is left of the caller's windows; the buckets of instruments are not told."""
    owner, now_ms, budgets = call.link.owner, context.now_ms, context.budgets
    return {
        "remaining_matching": budgets.remaining(owner, MATCHING, now_ms),
        "remaining_non_matching": budgets.remaining(owner, NON_MATCHING, now_ms),
        "remaining_per_endpoint": {
            method: budgets.remaining(owner, kind, now_ms) for kind, method in ENDPOINTS.items()
        },
        "remaining_connections": None,
    }


# --- maker protection ----------------------------------------------------------------------------


def set_mmp_config(context: Context, call: Call, params: MmpParams) -> object:
    """Replaces the whole configuration of a currency."""
    if min(params.mmp_interval, params.mmp_frozen_time) < 0 or min(params.mmp_amount_limit, params.mmp_delta_limit) < 0:
        raise invalid_params("mmp_interval, mmp_frozen_time and the limits: not below 0")
    protections = call.account(context, params.subaccount_id).protections
    limits = MmpLimits(
        currency=params.currency,
        interval_ms=params.mmp_interval,
        frozen_ms=params.mmp_frozen_time,
        amount=params.mmp_amount_limit,
        delta=params.mmp_delta_limit,
    )
    index = context.index(params.currency)
    standing = protections.get(index)
    if isinstance(standing, RollingProtection):
        standing.configure(limits)
    else:
        protections[index] = RollingProtection(limits)
    return _limits_json(params.subaccount_id, limits)


def _limits_json(subaccount_id: int, limits: MmpLimits) -> Json:
    return {
        "subaccount_id": subaccount_id,
        "currency": limits.currency,
        "mmp_interval": limits.interval_ms,
        "mmp_frozen_time": limits.frozen_ms,
        "mmp_amount_limit": plain(limits.amount),
        "mmp_delta_limit": plain(limits.delta),
    }


def _chosen(context: Context, call: Call, params: CurrencyParams) -> list[RollingProtection]:
    account = call.account(context, params.subaccount_id)
    if params.currency is not None:
        context.index(params.currency)
    return [
        found
        for found in account.protections.values()
        if isinstance(found, RollingProtection) and params.currency in (None, found.limits.currency)
    ]


def get_mmp_config(context: Context, call: Call, params: CurrencyParams) -> object:
    """A row for each currency that has one."""
    rows = []
    for found in _chosen(context, call, params):
        frozen = found.is_frozen(context.now_ms)
        state: Json = {"is_frozen": frozen, "mmp_unfreeze_time": (found.frozen_until or 0) if frozen else 0}
        rows.append(_limits_json(params.subaccount_id, found.limits) | state)
    return rows


def reset_mmp(context: Context, call: Call, params: CurrencyParams) -> object:
    for found in _chosen(context, call, params):
        found.reset()
    return "ok"


METHODS: dict[str, Method] = {
    "public/login": Method(LoginParams, login, websocket=True),
    "subscribe": Method(ChannelsParams, subscribe, websocket=True),
    "unsubscribe": Method(UnsubscribeParams, unsubscribe, websocket=True),
    "public/getRateLimits": Method(Nothing, rate_limits, FREE),
    "public/get_wallets_from_session_key": Method(KeyParams, get_wallets_from_session_key),
    "private/set_cancel_on_disconnect": Method(
        CancelOnDisconnectParams, set_cancel_on_disconnect, private=True, scope="wallet", websocket=True
    ),
    "private/get_account": Method(WalletParams, get_account, private=True),
    "private/get_subaccounts": Method(WalletParams, get_subaccounts, private=True),
    "private/session_keys": Method(WalletParams, session_keys, private=True),
    "private/set_mmp_config": Method(MmpParams, set_mmp_config, private=True, scope="trade"),
    "private/get_mmp_config": Method(CurrencyParams, get_mmp_config, private=True),
    "private/reset_mmp": Method(CurrencyParams, reset_mmp, private=True, scope="trade"),
}
