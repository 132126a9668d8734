"""Deribit's messages as typed structs, as they are on the wire; units as the exchange's, see `codec`.

Unknown fields are skipped, known fields of the wrong type are an error. Prices and amounts that
count as money or orders are Decimal, taken from the JSON text; model values (marks, indices,
volatilities) are float. Source: docs.deribit.com as of September 2026, recordings of 2021.
"""

from decimal import Decimal
from typing import Literal

import msgspec

NOTHING = msgspec.Raw(b"")
ZERO = Decimal(0)


# --- instruments ---------------------------------------------------------------------------------


class TickStep(msgspec.Struct):
    above_price: Decimal
    tick_size: Decimal


class InstrumentData(msgspec.Struct):
    """A row of public/get_instruments; 2021 rows lack instrument_type, price_index, state, tick_size_steps."""

    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    tick_size: Decimal
    min_trade_amount: Decimal
    contract_size: Decimal
    expiration_timestamp: int
    maker_commission: Decimal = ZERO
    taker_commission: Decimal = ZERO
    settlement_period: str = ""
    settlement_currency: str = ""
    instrument_type: str = ""
    future_type: str = ""
    option_type: str = ""
    strike: Decimal | None = None
    price_index: str = ""
    tick_size_steps: list[TickStep] = []
    qty_tick_size: Decimal | None = None
    is_active: bool = True
    state: str = ""


class InstrumentState(msgspec.Struct):
    """Data of instrument.state.*"""

    instrument_name: str
    state: str
    timestamp: int = 0


class PlatformState(msgspec.Struct):
    """Data of platform_state: an index that locks or unlocks, or a maintenance break."""

    price_index: str = ""
    locked: bool = False
    maintenance: bool | None = None


class Status(msgspec.Struct):
    """Result of public/status; `locked` is documented as text."""

    locked: bool | str = False
    locked_indices: list[str] = []


class IndexPrice(msgspec.Struct):
    index_price: float


# --- market data ---------------------------------------------------------------------------------

BookChange = tuple[Literal["new", "change", "delete"], msgspec.Raw, msgspec.Raw]
"""(action, price, new total amount at that price); the numbers as they are written, read by `book`"""


class BookData(msgspec.Struct):
    """Data of book.{i}.{interval}; payloads of 2019 have no `type`."""

    change_id: int
    timestamp: int
    bids: list[BookChange]
    asks: list[BookChange]
    prev_change_id: int | None = None
    type: Literal["snapshot", "change"] | None = None


class Greeks(msgspec.Struct):
    delta: float | None = None


class TickerData(msgspec.Struct):
    """Data of ticker.{i}.{interval}; null or 0.0 means no price."""

    timestamp: int
    state: str = ""
    mark_price: float | None = None
    index_price: float | None = None
    underlying_price: float | None = None
    min_price: float | None = None
    max_price: float | None = None
    mark_iv: float | None = None
    best_bid_price: float | None = None
    best_ask_price: float | None = None
    greeks: Greeks | None = None


class TradeData(msgspec.Struct):
    """A row of trades.*; `direction` is the taker's."""

    trade_id: str
    instrument_name: str
    timestamp: int
    direction: Literal["buy", "sell"]
    price: Decimal
    amount: Decimal
    block_trade_id: str | None = None
    block_rfq_id: int | str | None = None
    combo_id: str | None = None


# --- orders --------------------------------------------------------------------------------------


class OrderData(msgspec.Struct):
    """`price` stays raw: it is the text "market_price" for trigger market orders. `mmp_cancelled` is true or absent."""

    order_id: str
    order_state: str
    instrument_name: str
    direction: Literal["buy", "sell"]
    amount: Decimal | None = None
    filled_amount: Decimal | None = None
    price: msgspec.Raw = NOTHING
    label: str = ""
    cancel_reason: str = ""
    mmp_cancelled: bool = False
    time_in_force: str = ""
    creation_timestamp: int = 0
    last_update_timestamp: int = 0


class UserTradeData(msgspec.Struct):
    """One execution of the account; fee positive = paid."""

    trade_id: str
    order_id: str
    instrument_name: str
    timestamp: int
    direction: Literal["buy", "sell"]
    price: Decimal
    amount: Decimal
    label: str = ""
    fee: Decimal = ZERO
    fee_currency: str = ""
    liquidity: str = ""
    index_price: float | None = None


class PositionData(msgspec.Struct):
    """`size` is signed, in amount units. A flat book may have no average price.

    `total_profit_loss`: from the average price to the mark, settlement currency. It is the only profit of
    the row that is not the session's: in the documentation's example 50 USD from 7440.18 to 7476.65 are
    0.000032781 BTC there, while floating (0) and realised profit are left out of it. Unverified for options,
    where floating and total profit are equal in every example that we saw.
    """

    instrument_name: str
    size: Decimal
    direction: str = ""
    average_price: Decimal | None = None
    mark_price: float | None = None
    total_profit_loss: Decimal | None = None


class UserChanges(msgspec.Struct):
    """Data of user.changes.*"""

    instrument_name: str = ""
    orders: list[OrderData] = []
    trades: list[UserTradeData] = []
    positions: list[msgspec.Raw] = []


class OrderResult(msgspec.Struct):
    """Result of private/buy, sell, edit."""

    order: OrderData
    trades: list[UserTradeData] = []


class TradePage(msgspec.Struct):
    """Result of private/get_user_trades_*."""

    trades: list[UserTradeData]
    has_more: bool = False


# --- maker protection ----------------------------------------------------------------------------


class MmpConfig(msgspec.Struct):
    """A row of private/get_mmp_config. Limits in coins of the index, vega in USD; absent = off."""

    index_name: str
    interval: int
    frozen_time: int
    quantity_limit: Decimal | None = None
    delta_limit: Decimal | None = None
    vega_limit: Decimal | None = None
    max_quote_quantity: Decimal | None = None
    mmp_group: str | None = None
    block_rfq: bool = False


class MmpStatus(msgspec.Struct):
    """A row of private/get_mmp_status and data of user.mmp_trigger.*; `frozen_until` in ms, 0 = until reset."""

    index_name: str = ""
    frozen_until: int | None = None
    mmp_group: str | None = None
    block_rfq: bool = False


class MmpParams(msgspec.Struct, omit_defaults=True):
    """For private/set_mmp_config: a limit that is left out is off from then on."""

    index_name: str
    interval: int
    frozen_time: int
    quantity_limit: Decimal | None = None
    delta_limit: Decimal | None = None
    vega_limit: Decimal | None = None
    max_quote_quantity: Decimal | None = None


class IndexParams(msgspec.Struct):
    """For private/get_mmp_config, get_mmp_status, reset_mmp."""

    index_name: str


# --- cash ----------------------------------------------------------------------------------------


class LogHead(msgspec.Struct):
    """What every row of the transaction log has."""

    id: int | str
    type: str
    timestamp: int
    instrument_name: str | None = None


class LogRow(msgspec.Struct):
    """A row of type settlement or delivery. `change`: what it did to the balance of `currency`."""

    id: int | str
    type: str
    timestamp: int
    currency: str
    instrument_name: str
    side: str | None = None
    amount: Decimal | None = None
    change: Decimal | None = None
    interest_pl: Decimal | None = None
    total_interest_pl: Decimal | None = None


class LogPage(msgspec.Struct):
    """Result of private/get_transaction_log, newest first; `continuation` null at the end."""

    logs: list[msgspec.Raw]
    continuation: int | str | None = None


class LogParams(msgspec.Struct):
    """For private/get_transaction_log; times in ms, both ends included; at most 250 rows a page."""

    currency: str
    start_timestamp: int
    end_timestamp: int
    query: str
    count: int = 250
    continuation: int | str | msgspec.UnsetType = msgspec.UNSET


# --- session and account -------------------------------------------------------------------------


class AuthResult(msgspec.Struct):
    """The tokens are not kept: the connection itself is authenticated."""

    expires_in: int
    scope: str = ""


class CancelOnDisconnect(msgspec.Struct):
    enabled: bool
    scope: str = ""


class Rate(msgspec.Struct):
    rate: float
    burst: float


class Limits(msgspec.Struct):
    """`matching_engine` is {rate, burst} (old), {trading: {total: …}} or that under each currency."""

    matching_engine: dict[str, msgspec.Raw] = {}
    limits_per_currency: bool = False


class Summary(msgspec.Struct):
    """One currency of the account, in that currency."""

    currency: str
    equity: Decimal = ZERO
    balance: Decimal = ZERO
    initial_margin: Decimal = ZERO
    maintenance_margin: Decimal = ZERO
    limits: Limits | None = None


class Summaries(msgspec.Struct):
    """Result of private/get_account_summaries."""

    summaries: list[Summary]
    limits: Limits | None = None


# --- requests ------------------------------------------------------------------------------------


class PlaceParams(msgspec.Struct):
    """`mmp`: maker protection may pull it."""

    instrument_name: str
    amount: Decimal
    price: Decimal
    label: str
    valid_until: int | msgspec.UnsetType = msgspec.UNSET
    type: str = "limit"
    time_in_force: str = "good_til_cancelled"
    post_only: bool = True
    reject_post_only: bool = True
    reduce_only: bool | msgspec.UnsetType = msgspec.UNSET
    mmp: bool | msgspec.UnsetType = msgspec.UNSET


class EditParams(msgspec.Struct):
    """`amount` is the new total, what has filled included. `mmp` must be what the order has already."""

    order_id: str
    amount: Decimal
    price: Decimal
    valid_until: int | msgspec.UnsetType = msgspec.UNSET
    post_only: bool = True
    reject_post_only: bool = True
    mmp: bool | msgspec.UnsetType = msgspec.UNSET


class CancelParams(msgspec.Struct):
    order_id: str


class LabelParams(msgspec.Struct):
    """For cancel_by_label, get_order_state_by_label, get_open_orders_by_label; currency of settlement."""

    currency: str
    label: str


class InstrumentParams(msgspec.Struct):
    instrument_name: str


class TradesParams(msgspec.Struct):
    """For private/get_user_trades_by_instrument_and_time; times in ms, both ends included.

    `count`: a page is posted at once, and must leave room in a mailbox of 1,000; the exchange gives up to 1,000.
    """

    instrument_name: str
    start_timestamp: int
    end_timestamp: int
    historical: bool
    count: int = 500
    sorting: str = "asc"


class ChannelsParams(msgspec.Struct):
    channels: list[str]


class CredentialsParams(msgspec.Struct):
    client_id: str
    client_secret: str
    scope: str
    grant_type: str = "client_credentials"

    def __repr__(self) -> str:
        return "CredentialsParams(...)"


class SignatureParams(msgspec.Struct):
    client_id: str
    timestamp: int
    nonce: str
    data: str
    signature: str
    scope: str
    grant_type: str = "client_signature"

    def __repr__(self) -> str:
        return "SignatureParams(...)"
