"""Market data on the wire: instruments, books, tickers, trades, summaries as Deribit spells them."""

from decimal import Decimal
from typing import Any

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.deribit.rpc import encode
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import InstrumentState, Reference, SandboxInstrument
from mmd.sandbox.orders import ZERO
from mmd.sandbox.tape import Print

Json = dict[str, Any]
EIGHT_PLACES = Decimal("1e-8")


def money(value: Decimal) -> Decimal:
    """Rounded to eight places, as the exchange shows it."""
    return value.quantize(EIGHT_PLACES) if value else ZERO


def instrument_json(instrument: SandboxInstrument, state: InstrumentState) -> Json:
    data: Json = {
        "instrument_name": instrument.instrument_name,
        "instrument_id": instrument.instrument_id,
        "kind": instrument.kind,
        "instrument_type": instrument.instrument_type,
        "base_currency": instrument.base_currency,
        "quote_currency": instrument.quote_currency,
        "counter_currency": instrument.counter_currency,
        "settlement_currency": instrument.settlement_currency,
        "settlement_period": instrument.settlement_period,
        "price_index": instrument.price_index,
        "contract_size": instrument.contract_size,
        "min_trade_amount": instrument.min_trade_amount,
        "qty_tick_size": contracts.amount_step(instrument),
        "lot_size": contracts.amount_step(instrument),
        "tick_size": instrument.tick_size,
        "tick_size_steps": instrument.tick_size_steps,
        "maker_commission": instrument.maker_commission,
        "taker_commission": instrument.taker_commission,
        "block_trade_commission": instrument.taker_commission,
        "block_trade_min_trade_amount": instrument.min_trade_amount * 100,
        "block_trade_tick_size": instrument.tick_size,
        "creation_timestamp": instrument.creation_timestamp,
        "expiration_timestamp": instrument.expiration_timestamp,
        "is_active": state in (InstrumentState.OPEN, InstrumentState.LOCKED),
        "state": state,
        "rfq": False,
    }
    if contracts.is_option(instrument):
        data["strike"] = instrument.strike
        data["option_type"] = instrument.option_type
    else:
        data["future_type"] = instrument.instrument_type
        data["max_leverage"] = instrument.max_leverage or 50
        data["max_liquidation_commission"] = Decimal("0.0075")
    return data


def book_levels(listing: Listing, depth: int | None) -> tuple[list[Any], list[Any]]:
    """(price, amount) pairs best first."""
    return listing.book.bids.shown_levels(depth), listing.book.asks.shown_levels(depth)


def snapshot_json(listing: Listing) -> Json:
    """The first message of an incremental book channel."""
    bids, asks = book_levels(listing, None)
    return {
        "type": "snapshot",
        "timestamp": listing.book.changed_ms or listing.reference_ms,
        "instrument_name": listing.instrument.instrument_name,
        "change_id": listing.book.change_id,
        "bids": [("new", price, amount) for price, amount in bids],
        "asks": [("new", price, amount) for price, amount in asks],
    }


def grouped_json(listing: Listing, group: Decimal | None, depth: int) -> Json:
    """The top levels, merged on multiples of `group` (bids down, asks up)."""
    bids, asks = book_levels(listing, None if group else depth)
    if group:
        bids, asks = _merge(bids, group, depth, up=False), _merge(asks, group, depth, up=True)
    return {
        "timestamp": listing.book.changed_ms or listing.reference_ms,
        "instrument_name": listing.instrument.instrument_name,
        "change_id": listing.book.change_id,
        "bids": bids,
        "asks": asks,
    }


def _merge(
    levels: list[tuple[Decimal, Decimal]], group: Decimal, depth: int, *, up: bool
) -> list[tuple[Decimal, Decimal]]:
    merged: dict[Decimal, Decimal] = {}
    for price, amount in levels:
        count, rest = divmod(price, group)
        key = (count + 1 if up and rest else count) * group
        if key not in merged and len(merged) == depth:
            break
        merged[key] = merged.get(key, ZERO) + amount
    return list(merged.items())


def quote_json(listing: Listing) -> Json:
    bid, bid_size, ask, ask_size = listing.best()
    return {
        "timestamp": listing.book.changed_ms or listing.reference_ms,
        "instrument_name": listing.instrument.instrument_name,
        "best_bid_price": bid if bid is not None else 0.0,
        "best_bid_amount": bid_size,
        "best_ask_price": ask if ask is not None else 0.0,
        "best_ask_amount": ask_size,
    }


def ticker_json(floor: Floor, listing: Listing, now_ms: int) -> Json:
    instrument, reference = listing.instrument, listing.reference
    index = floor.indexes.get(instrument.price_index)
    index_price = index.price if index is not None else ZERO
    stats = listing.tape.stats(now_ms)
    data = quote_json(listing)
    data |= {
        "timestamp": max(listing.book.changed_ms, listing.reference_ms),
        "state": listing.state,
        "last_price": listing.tape.last_price,
        "mark_price": listing.mark_price,
        "index_price": index_price,
        "min_price": reference.min_price if reference is not None else ZERO,
        "max_price": reference.max_price if reference is not None else ZERO,
        "open_interest": listing.open_interest,
        "settlement_price": listing.settlement_price,
        "estimated_delivery_price": index.average(now_ms) if index is not None else ZERO,
        "stats": {
            "volume": stats.volume,
            "volume_usd": stats.volume_usd,
            "volume_notional": stats.volume_notional,
            "high": stats.high,
            "low": stats.low,
            "price_change": stats.price_change,
        },
    }
    if listing.delivery_price is not None:
        data["delivery_price"] = listing.delivery_price
    if contracts.is_option(instrument):
        data |= option_json(data, instrument, reference, index_price)
    elif instrument.is_perpetual:
        data["current_funding"] = reference.current_funding or 0.0 if reference is not None else 0.0
        data["funding_8h"] = reference.funding_8h or 0.0 if reference is not None else 0.0
        data["interest_value"] = 0.0
    return data


def option_json(quote: Json, instrument: SandboxInstrument, reference: Reference | None, index: Decimal) -> Json:
    """Volatilities and greeks. Bid and ask volatility by one Newton step from the mark, good enough to look at."""
    if reference is None:
        return {}
    greeks = reference.greeks
    underlying = reference.underlying_price or index

    def volatility(price: Decimal | float) -> float:
        if not price or reference.mark_iv is None or greeks is None or greeks.vega <= 0:
            return 0.0
        usd = float(price) - float(reference.mark_price)
        if contracts.is_inverse(instrument):
            usd *= float(underlying)
        return round(max(0.0, reference.mark_iv + usd / greeks.vega), 2)

    return {
        "mark_iv": reference.mark_iv if reference.mark_iv is not None else 0.0,
        "bid_iv": volatility(quote["best_bid_price"]),
        "ask_iv": volatility(quote["best_ask_price"]),
        "underlying_price": underlying,
        "underlying_index": reference.underlying_index or "index_price",
        "interest_rate": 0.0,
        "greeks": greeks if greeks is not None else {"delta": 0.0, "gamma": 0.0, "vega": 0.0, "theta": 0.0, "rho": 0.0},
    }


def trade_json(listing: Listing, entry: Print) -> Json:
    trade = entry.trade
    data: Json = {
        "trade_id": trade.trade_id,
        "trade_seq": trade.trade_seq,
        "instrument_name": trade.instrument_name,
        "timestamp": trade.timestamp,
        "direction": trade.direction,
        "price": trade.price,
        "amount": trade.amount,
        "contracts": trade.amount / listing.instrument.contract_size,
        "mark_price": entry.mark_price,
        "index_price": entry.index_price,
        "tick_direction": entry.tick_direction,
    }
    if entry.iv is not None:
        data["iv"] = entry.iv
    return data


def summary_json(floor: Floor, listing: Listing, now_ms: int) -> Json:
    """One row of `get_book_summary_by_*`."""
    instrument = listing.instrument
    bid, _, ask, _ = listing.best()
    stats = listing.tape.stats(now_ms)
    data: Json = {
        "instrument_name": instrument.instrument_name,
        "base_currency": instrument.base_currency,
        "quote_currency": instrument.quote_currency,
        "creation_timestamp": now_ms,
        "bid_price": bid,
        "ask_price": ask,
        "mid_price": (bid + ask) / 2 if bid is not None and ask is not None else None,
        "mark_price": listing.mark_price,
        "last": listing.tape.last_price,
        "high": stats.high,
        "low": stats.low,
        "price_change": stats.price_change,
        "open_interest": listing.open_interest,
        "volume": stats.volume or ZERO,
        "volume_usd": stats.volume_usd or ZERO,
        "volume_notional": stats.volume_notional or ZERO,
        "estimated_delivery_price": floor.index_price(instrument.price_index),
    }
    reference = listing.reference
    if contracts.is_option(instrument) and reference is not None:
        data["mark_iv"] = reference.mark_iv
        data["underlying_price"] = reference.underlying_price
        data["underlying_index"] = reference.underlying_index or "index_price"
        data["interest_rate"] = 0.0
    elif instrument.is_perpetual and reference is not None:
        data["current_funding"] = reference.current_funding or 0.0
        data["funding_8h"] = reference.funding_8h or 0.0
    return data


def volatility_index(floor: Floor, index_name: str, now_ms: int) -> float | None:
    """A stand-in for DVOL: the mark volatility nearest to the money, at the expiry nearest to 30 days. Percent."""
    price = floor.index_price(index_name)
    best: tuple[int, Decimal] | None = None
    found: float | None = None
    for listing in floor.listings.values():
        instrument, reference = listing.instrument, listing.reference
        if instrument.price_index != index_name or instrument.strike is None or reference is None:
            continue
        if reference.mark_iv is None or listing.state is not InstrumentState.OPEN:
            continue
        distance = (abs(instrument.expiration_timestamp - now_ms - 30 * 86_400_000), abs(instrument.strike - price))
        if best is None or distance < best:
            best, found = distance, reference.mark_iv
    return found


def encode_ready(data: object) -> msgspec.Raw:
    """JSON that is kept for many answers."""
    return msgspec.Raw(encode(data))
