"""Deribit's market data and requests: bytes to domain events, domain actions to bytes. Pure.

Amounts on the wire are in the instrument's amount unit, ours are lots; prices on the wire are in
its price unit, ours are base ticks. Channel names, login and subscriptions are here as well;
orders, fills and positions are in `orders`.
"""

import hashlib
import hmac

import msgspec

from mmd.domain.actions import AmendOrder, CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import Ticker, TradePrinted
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.domain.units import whole
from mmd.exchanges.deribit.messages import (
    AuthResult,
    BookData,
    CancelOnDisconnect,
    CancelParams,
    ChannelsParams,
    CredentialsParams,
    EditParams,
    IndexPrice,
    InstrumentState,
    LabelParams,
    Limits,
    PlaceParams,
    PlatformState,
    Rate,
    SignatureParams,
    Status,
    TickerData,
    TradeData,
)
from mmd.exchanges.jsonrpc import Decoder, Request

MS = 1_000_000

PLATFORM_STATE = "platform_state"
INSTRUMENT_STATE = "instrument.state.any.any"
INSTRUMENT_CREATION = "instrument.creation.any.any"
USER_CHANGES = ("user.changes.any.any.raw", "user.changes.any.any.100ms")
BOOK_INTERVALS = ("raw", "100ms")
MMP_TRIGGER = "user.mmp_trigger."
IMMEDIATE_OR_CANCEL = "immediate_or_cancel"

# "started" is the word for open before 2026. What is not known counts as not open.
OPEN_STATES = frozenset({"open", "started"})
TERMINAL_STATES = frozenset({"delivered", "archivized", "closed", "terminated"})
SETTLEMENT_STATE = "settlement"

encode_request = msgspec.json.Encoder(decimal_format="number").encode
"""A jsonrpc.Request to bytes; decimals as plain JSON numbers."""

decode_book: Decoder[BookData] = Decoder(BookData)
decode_auth: Decoder[AuthResult] = Decoder(AuthResult)
decode_cancel_on_disconnect: Decoder[CancelOnDisconnect] = Decoder(CancelOnDisconnect)
decode_channels: Decoder[list[str]] = Decoder(list[str])
decode_instrument_state: Decoder[InstrumentState] = Decoder(InstrumentState)
decode_platform_state: Decoder[PlatformState] = Decoder(PlatformState)
decode_status: Decoder[Status] = Decoder(Status)
_decode_index: Decoder[IndexPrice] = Decoder(IndexPrice)
_decode_ticker: Decoder[TickerData] = Decoder(TickerData)
_decode_trades: Decoder[list[TradeData]] = Decoder(list[TradeData])
_decode_rate: Decoder[Rate] = Decoder(Rate)
_decode_rates: Decoder[dict[str, msgspec.Raw]] = Decoder(dict[str, msgspec.Raw])


# --- market data ---------------------------------------------------------------------------------


def read_ticker(raw: msgspec.Raw | bytes, received_ns: int) -> tuple[Ticker, str]:
    """Reference prices, and the instrument's state as the ticker tells it ("" where it does not)."""
    data = _decode_ticker(raw)
    delta = data.greeks.delta if data.greeks is not None else None
    return Ticker(
        mark=data.mark_price or 0.0,
        index=data.index_price or 0.0,
        underlying=data.underlying_price or 0.0,
        min_price=data.min_price or 0.0,
        max_price=data.max_price or 0.0,
        mark_iv=data.mark_iv or 0.0,
        delta=delta or 0.0,
        exchange_ns=data.timestamp * MS,
        received_ns=received_ns,
        best_bid=data.best_bid_price or 0.0,
        best_ask=data.best_ask_price or 0.0,
    ), data.state


def read_trades(raw: msgspec.Raw | bytes, instrument: Instrument, received_ns: int) -> list[TradePrinted]:
    """Trades of the book; block trades and combo legs are left out: they did not happen there."""
    printed: list[TradePrinted] = []
    for data in _decode_trades(raw):
        if data.block_trade_id is not None or data.block_rfq_id is not None or data.combo_id is not None:
            continue
        try:
            price_ticks = instrument.grid.ticks(data.price)
            size_lots = whole(data.amount, instrument.lot)
        except (OffGrid, ArithmeticError) as error:
            raise ExchangeMalformed(f"trade {data.trade_id} of {instrument.symbol}: {error}") from error
        taker = Side.BID if data.direction == "buy" else Side.ASK
        printed.append(TradePrinted(price_ticks, size_lots, taker, data.timestamp * MS, received_ns))
    return printed


def read_index(raw: msgspec.Raw | bytes) -> float:
    """Result of public/get_index_price."""
    return _decode_index(raw).index_price


def matching_limits(limits: Limits) -> tuple[float, float] | None:
    """(requests per second, burst) of the trading bucket; the tightest where each currency has its own.

    None where there is none to work with: not told, or nothing allowed.
    """
    engine = limits.matching_engine
    found = [_decode_rate(msgspec.json.encode(engine)) if "rate" in engine else _trading_rate(engine)]
    if limits.limits_per_currency and "rate" not in engine:
        found += [_trading_rate(_decode_rates(group)) for group in engine.values() if bytes(group).startswith(b"{")]
    rates = [rate for rate in found if rate is not None and rate.rate > 0 and rate.burst >= 1]
    if not rates:
        return None
    return min(rate.rate for rate in rates), min(rate.burst for rate in rates)


def _trading_rate(engine: dict[str, msgspec.Raw]) -> Rate | None:
    trading = engine.get("trading")
    if trading is None:
        return None
    total = _decode_rates(trading).get("total")
    return None if total is None else _decode_rate(total)


# --- login ---------------------------------------------------------------------------------------


def credentials_auth(client_id: str, client_secret: str, scope: str) -> CredentialsParams:
    """public/auth with the plain secret."""
    return CredentialsParams(client_id, client_secret, scope)


def signature_auth(
    client_id: str, client_secret: str, scope: str, *, timestamp_ms: int, nonce: str, data: str = ""
) -> SignatureParams:
    """public/auth with an HMAC in the secret's place. The nonce is good once, the timestamp for 60 s."""
    return SignatureParams(
        client_id=client_id,
        timestamp=timestamp_ms,
        nonce=nonce,
        data=data,
        signature=sign(client_secret, timestamp_ms, nonce, data),
        scope=scope,
    )


def sign(client_secret: str, timestamp_ms: int, nonce: str, data: str) -> str:
    """Lower-case hex HMAC-SHA256 of `timestamp\\nnonce\\ndata`. Source: docs.deribit.com, Authentication."""
    text = f"{timestamp_ms}\n{nonce}\n{data}"
    return hmac.new(client_secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def missing_scopes(asked: str, granted: str) -> list[str]:
    """Rights that the login asked for and did not get; none where the answer does not say what it granted."""
    have = set(granted.split())
    missing = []
    for part in asked.split():
        topic, _, level = part.partition(":")
        enough = {f"{topic}:read_write", part} if level == "read" else {part}
        if have and level in ("read", "read_write") and not enough & have:
            missing.append(part)
    return missing


# --- subscriptions -------------------------------------------------------------------------------


def book_channel(symbol: str, interval: str) -> str:
    return f"book.{symbol}.{interval}"


def ticker_channel(symbol: str) -> str:
    return f"ticker.{symbol}.100ms"


def trades_channel(symbol: str) -> str:
    return f"trades.{symbol}.100ms"


def channels(names: list[str]) -> ChannelsParams:
    """Params of subscribe and unsubscribe."""
    return ChannelsParams(names)


# --- orders out ----------------------------------------------------------------------------------


def order_request(
    instrument: Instrument, order: Order, valid_until_ms: int | None = None, *, mmp: bool = False
) -> tuple[str, msgspec.Struct]:
    """Method and params of one order request.

    `valid_until_ms`: by the exchange's clock; later, a place or an amend is refused there with 13888.
    `mmp`: maker protection may pull the order; for an amend, what the order was placed with.
    """
    until = msgspec.UNSET if valid_until_ms is None else valid_until_ms
    match order:
        case AmendOrder():
            return "private/edit", EditParams(
                order_id=order.order_id,
                amount=instrument.amount(order.total_lots),
                price=instrument.grid.price(order.price_ticks),
                valid_until=until,
                mmp=mmp or msgspec.UNSET,
            )
        case PlaceOrder():
            return "private/buy" if order.side is Side.BID else "private/sell", PlaceParams(
                instrument_name=instrument.symbol,
                amount=instrument.amount(order.size_lots),
                price=instrument.grid.price(order.price_ticks),
                label=order.label,
                valid_until=until,
                mmp=mmp or msgspec.UNSET,
            )
        case CancelOrder(order_id=""):
            return "private/cancel_by_label", LabelParams(instrument.settlement, order.label)
        case CancelOrder():
            return "private/cancel", CancelParams(order.order_id)
        case ReduceOrder():
            return "private/buy" if order.side is Side.BID else "private/sell", PlaceParams(
                instrument_name=instrument.symbol,
                amount=instrument.amount(order.size_lots),
                price=instrument.grid.price(order.price_ticks),
                label=order.label,
                valid_until=until,
                time_in_force=IMMEDIATE_OR_CANCEL,
                post_only=False,
                reject_post_only=False,
                reduce_only=True,
            )


def encode(request: Request) -> bytes:
    return encode_request(request)
