"""Derive's public market data: bytes to domain events, and the channels it comes on. Pure.

Amounts on the wire are coins, ours are lots; prices on the wire are USDC, ours are base ticks. Model
values come as decimals and become floats here. Names of instruments have no dot, so channels are
split at dots.
"""

from decimal import Decimal

import msgspec

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import Ticker, TradePrinted
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.domain.units import whole
from mmd.exchanges.derive.messages import (
    BookData,
    BookObjects,
    ChannelsParams,
    CurrencyData,
    PublicTrade,
    TickerData,
    TickerSlim,
)
from mmd.exchanges.jsonrpc import Decoder, Request

MS = 1_000_000
PERCENT = 100.0

encode_request = msgspec.json.Encoder(decimal_format="string").encode
"""A jsonrpc.Request to bytes; decimals as strings."""

_decode_book: Decoder[BookData] = Decoder(BookData)
_decode_objects: Decoder[BookObjects] = Decoder(BookObjects)
_decode_ticker_slim: Decoder[TickerSlim] = Decoder(TickerSlim)
_decode_ticker: Decoder[TickerData] = Decoder(TickerData)
_decode_trades: Decoder[list[PublicTrade]] = Decoder(list[PublicTrade])
_decode_currency: Decoder[CurrencyData] = Decoder(CurrencyData)
_decode_time: Decoder[int] = Decoder(int)


def encode(request: Request) -> bytes:
    return encode_request(request)


# --- channels ------------------------------------------------------------------------------------


def book_channel(symbol: str) -> str:
    """Prices as fine as there are, ten levels of each side."""
    return f"orderbook.{symbol}.1.10"


def ticker_channel(symbol: str) -> str:
    """Every 100 ms; there is nothing faster."""
    return f"ticker_slim.{symbol}.100"


def trades_channel(symbol: str) -> str:
    return f"trades.{symbol}"


def channels(names: list[str]) -> ChannelsParams:
    """Params of subscribe and unsubscribe."""
    return ChannelsParams(names)


# --- market data ---------------------------------------------------------------------------------


def decode_book(raw: msgspec.Raw | bytes) -> BookData:
    """A book; levels as arrays, as they really come, or as objects, as the specification has them."""
    try:
        return _decode_book(raw)
    except ExchangeMalformed:
        data = _decode_objects(raw)
    bids, asks = ([(level.price, level.amount) for level in side] for side in (data.bids, data.asks))
    return BookData(data.instrument_name, data.publish_id, data.timestamp, bids, asks)


def read_ticker(raw: msgspec.Raw | bytes, received_ns: int) -> Ticker:
    """Reference prices of ticker_slim. Which instrument stands in the channel only."""
    return _ticker(_decode_ticker_slim(raw).instrument_ticker, received_ns)


def read_ticker_answer(raw: msgspec.Raw | bytes, received_ns: int) -> Ticker:
    """The same as public/get_ticker answers it."""
    return _ticker(_decode_ticker(raw), received_ns)


def _ticker(data: TickerData, received_ns: int) -> Ticker:
    option = data.option_pricing
    return Ticker(
        mark=_number(data.mark),
        index=_number(data.index),
        underlying=_number(option.forward) if option is not None else 0.0,
        min_price=_number(data.min_price),
        max_price=_number(data.max_price),
        mark_iv=_number(option.mark_iv, PERCENT) if option is not None else 0.0,
        delta=_number(option.delta) if option is not None else 0.0,
        exchange_ns=data.timestamp * MS,
        received_ns=received_ns,
        best_bid=_number(data.best_bid),
        best_ask=_number(data.best_ask),
    )


def _number(value: Decimal | None, times: float = 1.0) -> float:
    """A model value, `times` as much; 0.0 where there is none. A text may say NaN, which no comparison would stop."""
    if value is None:
        return 0.0
    if not value.is_finite() or abs(found := float(value) * times) == float("inf"):
        raise ExchangeMalformed(f"a model value of {value!s:.30}")
    return found


def read_spot(raw: msgspec.Raw | bytes) -> float:
    """The answer of public/get_currency: its index in USD. ExchangeMalformed where there is no price."""
    price = _number(_decode_currency(raw).spot_price)
    if not price > 0.0:
        raise ExchangeMalformed(f"a currency at {price} USD")
    return price


def read_trades(raw: msgspec.Raw | bytes, instrument: Instrument, received_ns: int) -> list[TradePrinted]:
    """Trades of the book; those of RFQs are left out: they did not happen there. One row of each trade counts."""
    printed: list[TradePrinted] = []
    seen: set[str] = set()
    for data in _decode_trades(raw):
        if data.rfq_id or data.quote_id or data.liquidity_role == "maker" or data.trade_id in seen:
            continue
        seen.add(data.trade_id)
        if data.instrument_name != instrument.symbol:
            raise ExchangeMalformed(f"trade {data.trade_id} of {data.instrument_name[:50]}, not of {instrument.symbol}")
        try:
            price_ticks = instrument.grid.ticks(data.trade_price)
            size_lots = whole(data.trade_amount, instrument.lot)
        except (OffGrid, ArithmeticError) as error:
            raise ExchangeMalformed(f"trade {data.trade_id} of {instrument.symbol}: {error}") from error
        taker = Side.BID if data.direction == "buy" else Side.ASK
        printed.append(TradePrinted(price_ticks, size_lots, taker, data.timestamp * MS, received_ns))
    return printed


def read_time(raw: msgspec.Raw | bytes) -> int:
    """Result of public/get_time: the exchange's clock, Unix ns."""
    return _decode_time(raw) * MS
