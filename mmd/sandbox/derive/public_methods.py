"""Public market data: time, currencies, instruments, tickers, trades, settlement prices, incidents."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from mmd.sandbox.derive.budgets import FREE
from mmd.sandbox.derive.context import Call, Context, Method, Nothing
from mmd.sandbox.derive.query_methods import LATEST_MS, paged
from mmd.sandbox.derive.render import Json, instrument_json, ticker_json, trade_json
from mmd.sandbox.derive.rpc import invalid_params, plain
from mmd.sandbox.derive.universe import kind_of
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import InstrumentState
from mmd.sandbox.rpc import RpcError

GONE = (InstrumentState.DELIVERED, InstrumentState.ARCHIVIZED)
InstrumentType = Literal["option", "perp", "erc20"]


class CurrencyParams(msgspec.Struct):
    currency: str


class NameParams(msgspec.Struct):
    instrument_name: str


class ListingParams(msgspec.Struct, kw_only=True):
    instrument_type: InstrumentType
    expired: bool
    currency: str | None = None
    page: int = 1
    page_size: int = 100
    risk_universe_id: int | None = None


class TickersParams(msgspec.Struct, kw_only=True):
    """`expiry_date` as YYYYMMDD, for options only."""

    instrument_type: InstrumentType
    currency: str | None = None
    expiry_date: int | None = None


class TradesParams(msgspec.Struct, kw_only=True):
    instrument_name: str | None = None
    instrument_type: InstrumentType | None = None
    currency: str | None = None
    from_timestamp: int = 0
    to_timestamp: int = LATEST_MS
    page: int = 1
    page_size: int = 100


def get_time(context: Context, call: Call, params: Nothing) -> object:
    return context.now_ms


# --- instruments ---------------------------------------------------------------------------------


def _currency_json(context: Context, currency: str) -> Json:
    index = context.floor.indexes[context.index(currency)]
    return {
        "currency": currency,
        "instrument_types": ["perp", "option"],
        "market_type": "ALL",
        "spot_price": plain(index.price),
        "spot_price_24h": plain(index.opened),
    }


def get_all_currencies(context: Context, call: Call, params: Nothing) -> object:
    bases = sorted({listing.instrument.base_currency for listing in context.floor.listings.values()})
    return [_currency_json(context, base) for base in bases]


def get_currency(context: Context, call: Call, params: CurrencyParams) -> object:
    return _currency_json(context, params.currency)


def chosen(context: Context, kind: str | None, currency: str | None) -> list[Listing]:
    """Listings by type and currency; None for any."""
    return [
        listing
        for listing in context.floor.listings.values()
        if kind in (None, kind_of(listing.instrument)) and currency in (None, listing.instrument.base_currency)
    ]


def get_all_instruments(context: Context, call: Call, params: ListingParams) -> object:
    """12001 where there is none of the type in a currency."""
    found = [
        listing
        for listing in chosen(context, params.instrument_type, params.currency)
        if (listing.state in GONE) == params.expired
    ]
    if not found and params.currency is not None:
        raise RpcError(12001, "Instrument not found")
    rows, pagination = paged(found, params.page, params.page_size)
    return {"instruments": [instrument_json(listing) for listing in rows], "pagination": pagination}


def get_instrument(context: Context, call: Call, params: NameParams) -> object:
    return instrument_json(context.listing(params.instrument_name, alive=False))


def get_all_live_instruments(context: Context, call: Call, params: Nothing) -> object:
    listings = context.floor.listings
    return [name for name, listing in listings.items() if listing.state is InstrumentState.OPEN]


# --- tickers and trades --------------------------------------------------------------------------


def _ticker(context: Context, listing: Listing) -> Json:
    index = context.floor.index_price(listing.instrument.price_index)
    return ticker_json(listing, index, context.now_ms)


def get_ticker(context: Context, call: Call, params: NameParams) -> object:
    return _ticker(context, context.listing(params.instrument_name))


def _expiry_date(listing: Listing) -> int:
    day = datetime.fromtimestamp(listing.instrument.expiration_timestamp / 1000, UTC)
    return int(f"{day:%Y%m%d}")


def get_tickers(context: Context, call: Call, params: TickersParams) -> object:
    """Options need a currency and an expiry date; perpetuals may not have one."""
    option = params.instrument_type == "option"
    if option != (params.expiry_date is not None) or (option and params.currency is None):
        raise invalid_params("currency and expiry_date: both for options, no expiry_date for others")
    tickers = {
        listing.instrument.instrument_name: _ticker(context, listing)
        for listing in chosen(context, params.instrument_type, params.currency)
        if listing.state not in GONE and (not option or _expiry_date(listing) == params.expiry_date)
    }
    return {"tickers": tickers}


def get_trade_history(context: Context, call: Call, params: TradesParams) -> object:
    """Two rows of each trade, one a side, as recorded by others; newest first."""
    found = [
        entry
        for listing in chosen(context, params.instrument_type, params.currency)
        if params.instrument_name in (None, listing.instrument.instrument_name)
        for entry in listing.tape.prints
        if params.from_timestamp <= entry.trade.timestamp <= params.to_timestamp
    ]
    found.sort(key=lambda entry: entry.trade.timestamp, reverse=True)
    rows: list[Json] = []
    for entry in found:
        row = trade_json(entry)
        other = "sell" if row["direction"] == "buy" else "buy"
        rows += [row | {"liquidity_role": "taker"}, row | {"liquidity_role": "maker", "direction": other}]
    page, pagination = paged(rows, params.page, params.page_size)
    return {"trades": list(page), "pagination": pagination}


def get_option_settlement_prices(context: Context, call: Call, params: CurrencyParams) -> object:
    """Of the expiries that were delivered here."""
    context.index(params.currency)
    prices: dict[int, Json] = {}
    for listing in chosen(context, "option", params.currency):
        if listing.delivery_price is not None:
            second = listing.instrument.expiration_timestamp // 1000
            date = str(_expiry_date(listing))
            prices[second] = {"expiry_date": date, "utc_expiry_sec": second, "price": plain(listing.delivery_price)}
    return {"expiries": [prices[second] for second in sorted(prices)]}


def get_live_incidents(context: Context, call: Call, params: Nothing) -> object:
    return {"incidents": list(context.trouble.incidents)}


METHODS: dict[str, Method] = {
    "public/get_time": Method(Nothing, get_time),
    "public/get_all_currencies": Method(Nothing, get_all_currencies),
    "public/get_currency": Method(CurrencyParams, get_currency),
    "public/get_all_instruments": Method(ListingParams, get_all_instruments),
    "public/get_instrument": Method(NameParams, get_instrument),
    "public/get_all_live_instruments": Method(Nothing, get_all_live_instruments, FREE),
    "public/get_ticker": Method(NameParams, get_ticker),
    "public/get_tickers": Method(TickersParams, get_tickers),
    "public/get_trade_history": Method(TradesParams, get_trade_history),
    "public/get_option_settlement_prices": Method(CurrencyParams, get_option_settlement_prices),
    "public/get_live_incidents": Method(Nothing, get_live_incidents),
}
