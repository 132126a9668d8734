"""Derive's messages as typed structs, as they are on the wire; units as the exchange's, see `codec`.

Unknown fields are skipped, known fields of the wrong type are an error. Decimals are strings there, and
Decimal here; where one may be left out it has a default. Texts that name states and reasons are kept as
they are: there will be new ones. Source: the published v3 specs of August 2026, and recordings of others.
"""

from decimal import Decimal
from typing import Literal

import msgspec

NOTHING = msgspec.Raw(b"")
ZERO = Decimal(0)

Direction = Literal["buy", "sell"]


class Pagination(msgspec.Struct):
    count: int
    num_pages: int


# --- instruments ---------------------------------------------------------------------------------


class OptionDetails(msgspec.Struct):
    """`expiry` in seconds, `strike` in USD."""

    expiry: int
    index: str
    option_type: str
    strike: Decimal
    settlement_price: Decimal | None = None


class PerpDetails(msgspec.Struct):
    """`funding_rate` for an hour."""

    index: str
    funding_rate: Decimal = ZERO


class InstrumentData(msgspec.Struct):
    """A row of public/get_all_instruments. `scheduled_deactivation` in seconds; 2**63 - 1, or about that, = never."""

    instrument_name: str
    instrument_type: str
    base_currency: str
    quote_currency: str
    tick_size: Decimal
    amount_step: Decimal
    minimum_amount: Decimal
    maximum_amount: Decimal
    base_asset_address: str
    base_asset_sub_id: str
    maker_fee_rate: Decimal
    taker_fee_rate: Decimal
    base_fee: Decimal
    is_active: bool
    mark_price_fee_rate_cap: Decimal | None = None
    scheduled_activation: int = 0
    scheduled_deactivation: int = 2**63 - 1
    option_details: OptionDetails | None = None
    perp_details: PerpDetails | None = None


class InstrumentPage(msgspec.Struct):
    """Result of public/get_all_instruments; rows are read one by one."""

    instruments: list[msgspec.Raw]
    pagination: Pagination


class CurrencyData(msgspec.Struct):
    """Result of public/get_currency; USD."""

    spot_price: Decimal | None = None


# --- market data ---------------------------------------------------------------------------------


class LevelObject(msgspec.Struct):
    """A level as the published specification has it; real ones are arrays."""

    price: str
    amount: str


BookLevel = tuple[str, str]
"""(price, amount)"""


class BookData(msgspec.Struct):
    """Data of orderbook.{i}.{group}.{depth}: always the whole book down to that depth."""

    instrument_name: str
    publish_id: int
    timestamp: int
    bids: list[BookLevel]
    asks: list[BookLevel]


class BookObjects(msgspec.Struct):
    """The same with levels as objects."""

    instrument_name: str
    publish_id: int
    timestamp: int
    bids: list[LevelObject]
    asks: list[LevelObject]


class OptionPricing(msgspec.Struct, rename={"delta": "d", "mark_iv": "i", "forward": "f"}):
    """`delta` of one unit, `mark_iv` as a fraction."""

    delta: Decimal | None = None
    mark_iv: Decimal | None = None
    forward: Decimal | None = None


_TICKER_KEYS = {
    "timestamp": "t",
    "best_ask": "a",
    "best_bid": "b",
    "mark": "M",
    "index": "I",
    "funding_rate": "f",
    "min_price": "minp",
    "max_price": "maxp",
}


class TickerData(msgspec.Struct, rename=_TICKER_KEYS):
    """Inside ticker_slim.{i}.{ms} and public/get_ticker. "0" is no price; `funding_rate` is for an hour."""

    timestamp: int
    best_ask: Decimal | None = None
    best_bid: Decimal | None = None
    mark: Decimal | None = None
    index: Decimal | None = None
    funding_rate: Decimal | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    option_pricing: OptionPricing | None = None


class TickerSlim(msgspec.Struct):
    """Data of ticker_slim.{i}.{ms}; which instrument stands in the channel's name only."""

    timestamp: int
    instrument_ticker: TickerData


class PublicTrade(msgspec.Struct):
    """A row of trades.*. With `liquidity_role`, a row for each side, and `direction` that side's; else the taker's."""

    trade_id: str
    instrument_name: str
    timestamp: int
    direction: Direction
    trade_price: Decimal
    trade_amount: Decimal
    rfq_id: str | None = None
    quote_id: str | None = None
    liquidity_role: str | None = None


# --- orders and fills ----------------------------------------------------------------------------


class OrderData(msgspec.Struct):
    """An order record; there is no reduce_only in it, and in the history `signature` is empty.

    `limit_price` is what counts; `signed_limit_price` what was asked, where a post-only price was moved.
    """

    subaccount_id: int
    order_id: str
    instrument_name: str
    direction: Direction
    amount: Decimal
    filled_amount: Decimal
    limit_price: Decimal
    order_status: str
    label: str = ""
    cancel_reason: str = ""
    average_price: Decimal | None = None
    signed_limit_price: Decimal | None = None
    max_fee: Decimal | None = None
    order_fee: Decimal | None = None
    order_type: str = ""
    time_in_force: str = ""
    mmp: bool = False
    nonce: str | int = ""
    signature_expiry_sec: int = 0
    signer: str = ""
    creation_timestamp: int = 0
    last_update_timestamp: int = 0
    replaced_order_id: str | None = None
    quote_id: str | None = None


class TradeData(msgspec.Struct):
    """One execution of the account. `trade_fee` positive = paid; settled or not, it counts when it arrives.

    `order_id`: None or empty where no order traded: RFQs and transfers.
    """

    trade_id: str
    instrument_name: str
    subaccount_id: int
    timestamp: int
    direction: Direction
    trade_price: Decimal
    trade_amount: Decimal
    trade_fee: Decimal
    liquidity_role: str
    order_id: str | None = None
    label: str = ""
    expected_rebate: Decimal | None = None
    extra_fee: Decimal | None = None
    mark_price: Decimal | None = None
    index_price: Decimal | None = None
    realized_pnl: Decimal | None = None
    quote_id: str | None = None
    rfq_id: str | None = None
    is_transfer: bool = False
    op_uuid: str | None = None
    batch_status: str | None = None
    tx_hash: str | None = None


class RequestError(msgspec.Struct):
    """An error inside a result."""

    code: int
    message: str = ""
    data: msgspec.Raw = NOTHING


class OrderResult(msgspec.Struct):
    """Result of private/order; the trades come on the channel again."""

    order: OrderData
    trades: list[TradeData] = []


class ReplaceResult(msgspec.Struct):
    """Result of private/replace: the old order is gone; with `create_order_error` there is no new one."""

    cancelled_order: OrderData
    order: OrderData | None = None
    trades: list[TradeData] | None = None
    create_order_error: RequestError | None = None


class TradePage(msgspec.Struct):
    """Result of private/get_trade_history."""

    trades: list[TradeData]
    pagination: Pagination


class CancelledCount(msgspec.Struct):
    """Result of the cancels by nonce, label and instrument; -1 = not counted, UNSET in that of one by id: the order."""

    cancelled_orders: int | msgspec.UnsetType = msgspec.UNSET


# --- account -------------------------------------------------------------------------------------


class PositionData(msgspec.Struct):
    """`amount` is signed. Greeks are for one unit. A perpetual's `mark_value` is profit that is not settled yet."""

    instrument_name: str
    instrument_type: str
    amount: Decimal
    average_price: Decimal | None = None
    average_price_excl_fees: Decimal | None = None
    mark_price: Decimal | None = None
    index_price: Decimal | None = None
    mark_value: Decimal | None = None
    delta: Decimal | None = None
    unrealized_pnl: Decimal | None = None
    realized_pnl: Decimal | None = None
    net_settlements: Decimal | None = None
    cumulative_funding: Decimal | None = None
    pending_funding: Decimal | None = None
    total_fees: Decimal | None = None
    amount_step: Decimal | None = None


class CollateralData(msgspec.Struct):
    asset_name: str
    asset_type: str
    amount: Decimal
    mark_price: Decimal | None = None
    mark_value: Decimal | None = None


class Subaccount(msgspec.Struct):
    """Result of private/get_subaccount. Margins are what is left, not what is needed: below 0 it is liquidated.

    What can be used for orders is `initial_margin + open_orders_margin`. With `failed_to_fetch` nothing counts.
    """

    subaccount_id: int
    margin_type: str
    subaccount_value: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    open_orders_margin: Decimal
    currency: list[str] | str = ""
    risk_universe_id: int | None = None
    label: str = ""
    is_under_liquidation: bool = False
    failed_to_fetch: bool = False
    positions_value: Decimal = ZERO
    collaterals_value: Decimal = ZERO
    positions_initial_margin: Decimal = ZERO
    positions_maintenance_margin: Decimal = ZERO
    projected_margin_change: Decimal = ZERO
    mm_credits: Decimal | None = None
    open_orders: list[OrderData] = []
    positions: list[PositionData] = []
    collaterals: list[CollateralData] = []


class Positions(msgspec.Struct):
    """Result of private/get_positions."""

    positions: list[PositionData]
    subaccount_id: int = 0


class FeeInfo(msgspec.Struct):
    """None = as the instrument says."""

    option_maker_fee: Decimal | None = None
    option_taker_fee: Decimal | None = None
    perp_maker_fee: Decimal | None = None
    perp_taker_fee: Decimal | None = None
    base_fee_discount: Decimal | None = None


class AccountData(msgspec.Struct):
    """Result of private/get_account: of the wallet. Requests per second; `cancel_on_disconnect` is stored there."""

    subaccount_ids: list[int]
    cancel_on_disconnect: bool
    websocket_matching_tps: float
    websocket_non_matching_tps: float
    is_rfq_maker: bool = False
    websocket_perp_tps: float | None = None
    websocket_option_tps: float | None = None
    per_endpoint_tps: dict[str, msgspec.Raw] = {}
    fee_info: FeeInfo | None = None


class SessionKeyData(msgspec.Struct):
    """One key of the wallet; empty `ip_whitelist` = from anywhere."""

    public_session_key: str
    expiry_sec: int
    protocol_scopes: list[str] = []
    offchain_scopes: list[str] = []
    ip_whitelist: list[str] = []
    subaccount_ids: list[int] = []
    label: str = ""
    registered_sec: int | None = None


class SessionKeys(msgspec.Struct):
    """Result of private/session_keys."""

    public_session_keys: list[SessionKeyData]


class MmpConfig(msgspec.Struct):
    """A row of private/get_mmp_config; times in ms. `interval` 0 = off, a limit 0 = none, `unfreeze_time` 0 = reset."""

    subaccount_id: int
    currency: str
    mmp_interval: int
    mmp_frozen_time: int
    mmp_amount_limit: Decimal = ZERO
    mmp_delta_limit: Decimal = ZERO
    is_frozen: bool = False
    mmp_unfreeze_time: int = 0


# --- session -------------------------------------------------------------------------------------


class Subscribed(msgspec.Struct):
    """Result of subscribe: "ok" or a reason by channel, and what is subscribed now."""

    status: dict[str, str]
    current_subscriptions: list[str]


class Incident(msgspec.Struct):
    label: str = ""
    message: str = ""
    severity: str = ""


class Incidents(msgspec.Struct):
    """Result of public/get_live_incidents."""

    incidents: list[Incident]


# --- requests ------------------------------------------------------------------------------------


class LoginParams(msgspec.Struct):
    """For public/login; `wallet` is the owner, also when a session key signs."""

    wallet: str
    timestamp: int
    signature: str

    def __repr__(self) -> str:
        return "LoginParams(...)"


class ChannelsParams(msgspec.Struct):
    channels: list[str]


class ListingParams(msgspec.Struct):
    """For public/get_all_instruments; pages of at most 1,000 rows, from 1."""

    instrument_type: str
    expired: bool = False
    currency: str | msgspec.UnsetType = msgspec.UNSET
    page: int = 1
    page_size: int = 1000
