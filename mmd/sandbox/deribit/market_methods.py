"""Public market data: instruments, books, tickers, trades, indexes, charts."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.deribit import render
from mmd.sandbox.deribit.catalogue import RESOLUTIONS, resolution_ms
from mmd.sandbox.deribit.context import Call, Context, Method
from mmd.sandbox.deribit.render import Json
from mmd.sandbox.deribit.rpc import Params, invalid_param
from mmd.sandbox.listing import IndexPrice, Listing
from mmd.sandbox.model import InstrumentState
from mmd.sandbox.tape import Print

KINDS = ("future", "option", "spot", "future_combo", "option_combo", "combo", "any")
GONE = (InstrumentState.DELIVERED, InstrumentState.ARCHIVIZED)
SORTINGS = ("asc", "desc", "default")
COIN_DECIMALS = {"BTC": 8, "ETH": 18, "SOL": 9, "USDC": 6, "USDT": 6}


def chosen(context: Context, params: Params) -> list[Listing]:
    """Listings by `currency` (default any) and `kind` (default all)."""
    currency = params.text("currency", "any").upper()
    kind = params.choice("kind", KINDS, "any")
    return [
        listing
        for listing in context.floor.listings.values()
        if (currency == "ANY" or contracts.currency_group(listing.instrument) == currency)
        and kind in ("any", listing.instrument.kind)
    ]


def count_of(params: Params, default: int, most: int) -> int:
    count = params.integer("count", default)
    if not 1 <= count <= most:
        raise invalid_param("count", f"value must be between 1 and {most}")
    return count


# --- instruments ---------------------------------------------------------------------------------


def _instrument(context: Context, listing: Listing) -> msgspec.Raw:
    name = listing.instrument.instrument_name
    known = context.ready_json.get(name)
    if known is None or known[0] != listing.state:
        if len(context.ready_json) > len(context.floor.listings):  # some are listed no more
            context.ready_json.clear()
        ready = render.encode_ready(render.instrument_json(listing.instrument, listing.state))
        known = context.ready_json[name] = (listing.state, ready)
    return known[1]


def get_instruments(context: Context, call: Call) -> object:
    call.params.text("currency", "any")
    expired = call.params.flag("expired")
    return [
        _instrument(context, listing) for listing in chosen(context, call.params) if (listing.state in GONE) == expired
    ]


def get_instrument(context: Context, call: Call) -> object:
    return _instrument(context, context.listing(call.params, alive=False))


def get_contract_size(context: Context, call: Call) -> object:
    return {"contract_size": context.listing(call.params, alive=False).instrument.contract_size}


def get_currencies(context: Context, call: Call) -> object:
    names: dict[str, None] = {}
    for listing in context.floor.listings.values():
        names[listing.instrument.base_currency] = None
        names[contracts.currency_group(listing.instrument)] = None
    return [
        {
            "currency": name,
            "currency_long": name,
            "coin_type": name,
            "decimals": COIN_DECIMALS.get(name, 8),
            "fee_precision": 4,
            "min_confirmations": 1,
            "disabled_deposit_address_creation": True,
            "in_cross_collateral_pool": False,
            "apr": 0.0,
            "network_currency": name,
            "network_fee": 0.0,
        }
        for name in sorted(names)
    ]


def get_expirations(context: Context, call: Call) -> object:
    currency = call.params.text("currency")
    kind = call.params.choice("kind", KINDS, "any")
    grouped: dict[str, dict[str, dict[str, int]]] = {}
    for listing in context.floor.listings.values():
        instrument = listing.instrument
        group = contracts.currency_group(instrument)
        if listing.state in GONE or kind not in ("any", instrument.kind):
            continue
        if currency.upper() not in ("ANY", "GROUPED", group):
            continue
        expiry = "PERPETUAL" if instrument.is_perpetual else instrument.instrument_name.split("-")[1]
        entry = grouped.setdefault(group.lower(), {}).setdefault(instrument.kind, {})
        entry[expiry] = instrument.expiration_timestamp
    plain = {
        group: {kind: sorted(expiries, key=lambda name: expiries[name]) for kind, expiries in kinds.items()}
        for group, kinds in grouped.items()
    }
    if currency == "grouped":
        return plain
    merged: dict[str, list[str]] = {}
    for kinds in plain.values():
        for name, expiries in kinds.items():
            merged[name] = list(dict.fromkeys([*merged.get(name, []), *expiries]))
    return merged


# --- books and tickers ---------------------------------------------------------------------------


def _order_book(context: Context, listing: Listing, params: Params) -> object:
    depth = params.integer("depth", 5)
    if not 1 <= depth <= 10_000:
        raise invalid_param("depth", "value must be between 1 and 10000")
    bids, asks = render.book_levels(listing, depth)
    data = render.ticker_json(context.floor, listing, context.now_ms)
    data["change_id"] = listing.book.change_id
    data["bids"], data["asks"] = bids, asks
    return data


def get_order_book(context: Context, call: Call) -> object:
    return _order_book(context, context.listing(call.params), call.params)


def get_order_book_by_instrument_id(context: Context, call: Call) -> object:
    name = context.floor.by_id.get(call.params.integer("instrument_id"))
    if name is None:
        raise invalid_param("instrument_id", "instrument not found")
    context.want(name)
    return _order_book(context, context.floor.listings[name], call.params)


def ticker(context: Context, call: Call) -> object:
    listing = context.listing(call.params)
    return render.ticker_json(context.floor, listing, context.now_ms)


def get_book_summary_by_currency(context: Context, call: Call) -> object:
    call.params.text("currency")
    return [
        render.summary_json(context.floor, listing, context.now_ms)
        for listing in chosen(context, call.params)
        if listing.state not in GONE
    ]


def get_book_summary_by_instrument(context: Context, call: Call) -> object:
    return [render.summary_json(context.floor, context.listing(call.params), context.now_ms)]


# --- trades --------------------------------------------------------------------------------------


def _trades(listings: Iterable[Listing], params: Params, *, by_seq: bool, default_sorting: str) -> object:
    """The newest `count` trades that match, or the oldest where a start is given with ascending order."""
    count = count_of(params, 10, 1000)
    low, high = ("start_seq", "end_seq") if by_seq else ("start_id", "end_id")
    start, end = params.text(low, "") if not by_seq else "", params.text(high, "") if not by_seq else ""
    start_seq = params.optional_integer("start_seq") if by_seq else None
    end_seq = params.optional_integer("end_seq") if by_seq else None
    start_ms, end_ms = params.optional_integer("start_timestamp"), params.optional_integer("end_timestamp")
    sorting = params.choice("sorting", SORTINGS, "default")
    ascending = (default_sorting if sorting == "default" else sorting) == "asc"

    def keep(entry: Print) -> bool:
        trade = entry.trade
        return (
            (start_seq is None or trade.trade_seq >= start_seq)
            and (end_seq is None or trade.trade_seq <= end_seq)
            and (not start or _trade_number(trade.trade_id) >= _trade_number(start))
            and (not end or _trade_number(trade.trade_id) <= _trade_number(end))
            and (start_ms is None or trade.timestamp >= start_ms)
            and (end_ms is None or trade.timestamp <= end_ms)
        )

    rows = [(entry, listing) for listing in listings for entry in listing.tape.prints if keep(entry)]
    rows.sort(key=lambda row: _trade_number(row[0].trade.trade_id), reverse=not ascending)
    has_more = len(rows) > count
    chosen_rows = rows[:count]
    return {"trades": [render.trade_json(listing, entry) for entry, listing in chosen_rows], "has_more": has_more}


def _trade_number(trade_id: str) -> int:
    digits = trade_id.rpartition("-")[2]
    if not digits.isdigit():
        raise invalid_param("start_id", "wrong format")
    return int(digits)


def get_last_trades_by_instrument(context: Context, call: Call) -> object:
    return _trades([context.listing(call.params)], call.params, by_seq=True, default_sorting="desc")


def get_last_trades_by_currency(context: Context, call: Call) -> object:
    call.params.text("currency")
    return _trades(chosen(context, call.params), call.params, by_seq=False, default_sorting="desc")


# --- indexes -------------------------------------------------------------------------------------


def _index(context: Context, params: Params) -> IndexPrice:
    found = context.floor.indexes.get(params.text("index_name"))
    if found is None:
        raise invalid_param("index_name", f"value must be one of: {', '.join(sorted(context.floor.indexes))}")
    return found


def get_index_price(context: Context, call: Call) -> object:
    index = _index(context, call.params)
    return {"index_price": index.price, "estimated_delivery_price": index.average(context.now_ms)}


def get_index_price_names(context: Context, call: Call) -> object:
    names = sorted(context.floor.indexes)
    if call.params.flag("extended"):
        return [{"name": name, "future_combo_enabled": False, "option_combo_enabled": False} for name in names]
    return names


def get_index(context: Context, call: Call) -> object:
    """The older form: by currency."""
    currency = call.params.text("currency")
    index = context.floor.indexes.get(f"{currency.lower()}_usd")
    if index is None:
        raise invalid_param("currency", "no index of this currency")
    return {currency.upper(): index.price, "edp": index.average(context.now_ms)}


def get_volatility_index_data(context: Context, call: Call) -> object:
    """One candle at the present value: the sandbox keeps no history of it."""
    index = f"{call.params.text('currency').lower()}_usd"
    value = render.volatility_index(context.floor, index, context.now_ms)
    rows = [] if value is None else [[context.now_ms, value, value, value, value]]
    return {"data": rows, "continuation": None}


def get_historical_volatility(context: Context, call: Call) -> object:
    """Hourly rows of a day at the present value: the sandbox keeps no history of it."""
    value = render.volatility_index(context.floor, f"{call.params.text('currency').lower()}_usd", context.now_ms)
    hour = context.now_ms - context.now_ms % 3_600_000
    return [] if value is None else [[hour - back * 3_600_000, value] for back in range(23, -1, -1)]


# --- charts, funding -----------------------------------------------------------------------------


def get_tradingview_chart_data(context: Context, call: Call) -> object:
    listing = context.listing(call.params)
    resolution = call.params.text("resolution")
    if resolution not in RESOLUTIONS:
        raise invalid_param("resolution", f"value must be one of: {', '.join(sorted(RESOLUTIONS))}")
    start, end = call.params.integer("start_timestamp"), call.params.integer("end_timestamp")
    if start > end:
        raise invalid_param("start_timestamp", "value must not be after end_timestamp")
    bars = listing.tape.bars(start, end, resolution_ms(resolution))
    return {
        "status": "ok" if bars else "no_data",
        "ticks": [bar.start_ms for bar in bars],
        "open": [bar.open for bar in bars],
        "high": [bar.high for bar in bars],
        "low": [bar.low for bar in bars],
        "close": [bar.close for bar in bars],
        "volume": [render.money(bar.volume) for bar in bars],
        "cost": [render.money(bar.cost) for bar in bars],
    }


def _perpetual(context: Context, params: Params) -> Listing:
    listing = context.listing(params)
    if not listing.instrument.is_perpetual:
        raise invalid_param("instrument_name", "must be a perpetual")
    return listing


def get_funding_rate_value(context: Context, call: Call) -> object:
    """The present 8-hour rate over the asked time: the sandbox keeps no history of it."""
    listing = _perpetual(context, call.params)
    span = call.params.integer("end_timestamp") - call.params.integer("start_timestamp")
    rate = (listing.reference.funding_8h or 0.0) if listing.reference is not None else 0.0
    return rate * max(0, span) / 28_800_000


def get_funding_rate_history(context: Context, call: Call) -> object:
    """Hourly rows at the present rates, at most 744 of them."""
    listing = _perpetual(context, call.params)
    start, end = call.params.integer("start_timestamp"), call.params.integer("end_timestamp")
    hour = 3_600_000
    first = max(-(-start // hour) * hour, end - 744 * hour)
    reference = listing.reference
    index = context.floor.index_price(listing.instrument.price_index)
    rows: list[Json] = []
    for at_ms in range(first, min(end, context.now_ms) + 1, hour):
        eight = (reference.funding_8h or 0.0) if reference is not None else 0.0
        row: Json = {"timestamp": at_ms, "index_price": index, "prev_index_price": index}
        rows.append(row | {"interest_8h": eight, "interest_1h": eight / 8})
    return rows


def get_funding_chart_data(context: Context, call: Call) -> object:
    listing = _perpetual(context, call.params)
    call.params.choice("length", ("8h", "24h", "1m"))
    reference = listing.reference
    eight = (reference.funding_8h or 0.0) if reference is not None else 0.0
    current = (reference.current_funding or 0.0) if reference is not None else 0.0
    index = context.floor.index_price(listing.instrument.price_index)
    row = {"timestamp": context.now_ms, "index_price": index, "interest_8h": eight}
    return {"current_interest": current, "interest_8h": eight, "data": [row]}


def get_announcements(context: Context, call: Call) -> object:
    count_of(call.params, 5, 50)
    return []


def get_delivery_prices(context: Context, call: Call) -> object:
    name = call.params.text("index_name")
    rows: dict[str, Decimal] = {}
    for listing in context.floor.listings.values():
        if listing.instrument.price_index == name and listing.delivery_price is not None:
            expiry = datetime.fromtimestamp(listing.instrument.expiration_timestamp / 1000, UTC)
            rows[f"{expiry:%Y-%m-%d}"] = listing.delivery_price
    data = [{"date": day, "delivery_price": price} for day, price in sorted(rows.items(), reverse=True)]
    return {"data": data, "records_total": len(data)}


METHODS: dict[str, Method] = {
    "public/get_instruments": Method(get_instruments, budget="instruments"),
    "public/get_instrument": Method(get_instrument),
    "public/get_contract_size": Method(get_contract_size),
    "public/get_currencies": Method(get_currencies),
    "public/get_expirations": Method(get_expirations),
    "public/get_order_book": Method(get_order_book),
    "public/get_order_book_by_instrument_id": Method(get_order_book_by_instrument_id),
    "public/ticker": Method(ticker),
    "public/get_book_summary_by_currency": Method(get_book_summary_by_currency),
    "public/get_book_summary_by_instrument": Method(get_book_summary_by_instrument),
    "public/get_last_trades_by_instrument": Method(get_last_trades_by_instrument),
    "public/get_last_trades_by_instrument_and_time": Method(get_last_trades_by_instrument),
    "public/get_last_trades_by_currency": Method(get_last_trades_by_currency),
    "public/get_last_trades_by_currency_and_time": Method(get_last_trades_by_currency),
    "public/get_index_price": Method(get_index_price),
    "public/get_index_price_names": Method(get_index_price_names),
    "public/get_index": Method(get_index),
    "public/get_volatility_index_data": Method(get_volatility_index_data),
    "public/get_historical_volatility": Method(get_historical_volatility),
    "public/get_tradingview_chart_data": Method(get_tradingview_chart_data),
    "public/get_funding_rate_value": Method(get_funding_rate_value),
    "public/get_funding_rate_history": Method(get_funding_rate_history),
    "public/get_funding_chart_data": Method(get_funding_chart_data),
    "public/get_announcements": Method(get_announcements),
    "public/get_delivery_prices": Method(get_delivery_prices),
}
