"""Market data on the wire: instruments, books, tickers, trades as Derive spells them."""

from decimal import Decimal
from typing import Any

from mmd.sandbox import contracts
from mmd.sandbox.derive.rpc import plain
from mmd.sandbox.derive.universe import OPTION_FEE_CAP, asset, kind_of
from mmd.sandbox.listing import IndexPrice, Listing
from mmd.sandbox.model import InstrumentState, Reference, SandboxInstrument
from mmd.sandbox.orders import ZERO
from mmd.sandbox.tape import Print

Json = dict[str, Any]
NEVER_SECOND = 2**63 - 1
HOURS = 8  # of the rate that a reference has
HOURLY_CAP = "0.004"


def index_label(instrument: SandboxInstrument) -> str:
    return f"{instrument.base_currency}-USD"


def instrument_json(listing: Listing) -> Json:
    instrument = listing.instrument
    address, sub_id = asset(instrument)
    option = contracts.is_option(instrument)
    never = instrument.is_perpetual
    return {
        "instrument_name": instrument.instrument_name,
        "instrument_type": kind_of(instrument),
        "base_currency": instrument.base_currency,
        "quote_currency": instrument.quote_currency,
        "tick_size": plain(instrument.tick_size),
        "amount_step": plain(contracts.amount_step(instrument)),
        "minimum_amount": plain(instrument.min_trade_amount),
        "maximum_amount": plain(instrument.max_trade_amount),
        "base_asset_address": address,
        "base_asset_sub_id": str(sub_id),
        "maker_fee_rate": plain(instrument.maker_commission),
        "taker_fee_rate": plain(instrument.taker_commission),
        "base_fee": plain(instrument.base_fee),
        "mark_price_fee_rate_cap": plain(OPTION_FEE_CAP) if option else None,
        "is_active": listing.state is InstrumentState.OPEN,
        "scheduled_activation": instrument.creation_timestamp // 1000,
        "scheduled_deactivation": NEVER_SECOND if never else instrument.expiration_timestamp // 1000,
        "pro_rata_fraction": "0",
        "fifo_min_allocation": "0",
        "pro_rata_amount_step": plain(contracts.amount_step(instrument)),
        "option_details": _option_details(listing) if option else None,
        "perp_details": None if option else _perp_details(listing),
        "erc20_details": None,
    }


def _option_details(listing: Listing) -> Json:
    instrument = listing.instrument
    return {
        "expiry": instrument.expiration_timestamp // 1000,
        "index": index_label(instrument),
        "option_type": "C" if instrument.option_type == "call" else "P",
        "strike": plain(instrument.strike),
        "settlement_price": plain(listing.delivery_price) if listing.delivery_price is not None else None,
    }


def _perp_details(listing: Listing) -> Json:
    return {
        "index": index_label(listing.instrument),
        "funding_rate": hourly_funding(listing.reference),
        "max_rate_per_hour": HOURLY_CAP,
        "min_rate_per_hour": f"-{HOURLY_CAP}",
        "static_interest_rate": "0",
        "aggregate_funding": "0",
        "srm_perp_margin_requirements": {"im_perp_req": "0.05", "mm_perp_req": "0.03", "max_leverage": "20"},
    }


def hourly_funding(reference: Reference | None) -> str:
    return plain((reference.current_funding or 0.0) / HOURS) if reference is not None else "0"


# --- books ---------------------------------------------------------------------------------------


def book_json(listing: Listing, group: int, depth: int, publish_id: int, now_ms: int) -> Json:
    """The whole book down to `depth`; prices merged on multiples of `group` ticks, away from the middle."""
    step = group * listing.instrument.tick_size
    book = listing.book
    return {
        "timestamp": now_ms,
        "instrument_name": listing.instrument.instrument_name,
        "publish_id": publish_id,
        "bids": _levels(book.bids.shown_levels(depth if group == 1 else None), group, step, depth, up=False),
        "asks": _levels(book.asks.shown_levels(depth if group == 1 else None), group, step, depth, up=True),
    }


def _levels(
    levels: list[tuple[Decimal, Decimal]], group: int, step: Decimal, depth: int, *, up: bool
) -> list[tuple[str, str]]:
    merged: dict[Decimal, Decimal] = {}
    for price, amount in levels:
        key = price
        if group > 1:
            count, rest = divmod(price, step)
            key = (count + 1 if up and rest else count) * step
        if key not in merged and len(merged) == depth:
            break
        merged[key] = merged.get(key, ZERO) + amount
    return [(plain(price), plain(amount)) for price, amount in merged.items()]


# --- tickers -------------------------------------------------------------------------------------


def ticker_json(listing: Listing, index: Decimal, now_ms: int) -> Json:
    """The short form, which is the only one: inside ticker_slim and from public/get_ticker."""
    bid, bid_size, ask, ask_size = listing.best()
    reference = listing.reference
    instrument = listing.instrument
    return {
        "t": now_ms,
        "a": plain(ask),
        "A": plain(ask_size),
        "b": plain(bid),
        "B": plain(bid_size),
        "M": plain(listing.mark_price),
        "I": plain(index),
        "f": hourly_funding(reference) if instrument.is_perpetual else None,
        "minp": plain(reference.min_price) if reference is not None else "0",
        "maxp": plain(reference.max_price) if reference is not None else "0",
        "option_pricing": _pricing(listing, bid, ask) if contracts.is_option(instrument) else None,
        "stats": _stats(listing, now_ms),
    }


def _pricing(listing: Listing, bid: Decimal | None, ask: Decimal | None) -> Json | None:
    """Volatilities as fractions. Those of bid and ask are simplified to the mark's, as it has no model here."""
    reference = listing.reference
    if reference is None or reference.greeks is None:
        return None
    greeks, iv = reference.greeks, plain(round((reference.mark_iv or 0.0) / 100, 6))
    return {
        "d": plain(greeks.delta),
        "g": plain(greeks.gamma),
        "v": plain(greeks.vega),
        "t": plain(greeks.theta),
        "r": plain(greeks.rho),
        "i": iv,
        "bi": iv if bid is not None else "0",
        "ai": iv if ask is not None else "0",
        "f": plain(reference.underlying_price),
        "m": plain(reference.mark_price),
        "df": "1",
    }


def _stats(listing: Listing, now_ms: int) -> Json:
    stats = listing.tape.stats(now_ms)
    return {
        "c": plain(stats.volume),
        "v": plain(stats.volume_notional),
        "pr": "0",
        "n": len(listing.tape.prints),
        "oi": plain(listing.open_interest),
        "h": plain(stats.high),
        "l": plain(stats.low),
        "p": plain(stats.price_change / 100 if stats.price_change is not None else ZERO),
    }


def spot_json(currency: str, index: IndexPrice, now_ms: int) -> Json:
    """Data of spot_feed.{currency}."""
    return {
        "timestamp": now_ms,
        "feeds": {
            currency: {
                "price": plain(index.price),
                "confidence": "1",
                "price_prev_daily": plain(index.opened),
                "confidence_prev_daily": "1",
                "timestamp_prev_daily": now_ms - now_ms % 86_400_000,
            }
        },
    }


# --- trades --------------------------------------------------------------------------------------


def trade_json(entry: Print) -> Json:
    """A row of trades.*; `direction` is the taker's."""
    trade = entry.trade
    return {
        "trade_id": trade.trade_id,
        "instrument_name": trade.instrument_name,
        "timestamp": trade.timestamp,
        "trade_price": plain(trade.price),
        "trade_amount": plain(trade.amount),
        "mark_price": plain(entry.mark_price),
        "index_price": plain(entry.index_price),
        "direction": str(trade.direction),
        "quote_id": None,
        "rfq_id": None,
    }
