"""Derive's instruments as ours: kind, units, price grid, and what is signed for them. Pure.

Perpetuals and options are linear: prices in USDC for one coin, amounts in coins, profit in USDC, which
the exchange counts as dollars ("USD" in older records). A row that does not fit is refused, not guessed at.
"""

import re
from decimal import Decimal

import msgspec

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.units import Grid, whole, whole_down
from mmd.exchanges.derive.amounts import scaled
from mmd.exchanges.derive.messages import InstrumentData, InstrumentPage
from mmd.exchanges.derive.signing import Asset
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import Refused

NS = 1_000_000_000
PERP = "perp"
OPTION = "option"
SETTLEMENT = "USDC"
_QUOTES = ("USDC", "USD")
_KINDS = {"C": Kind.CALL, "P": Kind.PUT}
_OPTION_NAME = re.compile(r"([A-Z0-9]+)-(\d{8})-(\d+(?:_\d+)?)-([CP])")
_LARGEST = Decimal("1e12")

_decode_page: Decoder[InstrumentPage] = Decoder(InstrumentPage)
_decode_row: Decoder[InstrumentData] = Decoder(InstrumentData)


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument with what only Derive's orders need.

    `tick_e18`, `lot_e18`: one tick and one lot in units of 1e-18, so that what is signed is one product.
    Fees: `base_fee` in USD for a taker's order; `fee_cap` as a fraction of an option's value, None = no cap.
    `opens_sec`, `closes_sec`: between which it is to be traded, Unix seconds. `settled`: it was, at its last price.
    """

    instrument: Instrument
    asset: Asset
    tick_e18: int
    lot_e18: int
    max_lots: int
    base_fee: Decimal
    fee_cap: Decimal | None
    opens_sec: int
    closes_sec: int
    settled: bool


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the listing. `count`: rows of all pages; a listing whose count moves between pages is read anew."""

    listed: dict[str, Listed]
    refused: list[Refused]
    count: int
    pages: int


def decode_instruments(raw: msgspec.Raw | bytes, exchange: str) -> Page:
    """The answer of public/get_all_instruments. Spot is left out; a bad row loses only itself."""
    page = _decode_page(raw)
    listed: dict[str, Listed] = {}
    refused: list[Refused] = []
    for number, row in enumerate(page.instruments):
        try:
            data = _decode_row(row)
        except ExchangeMalformed as error:
            refused.append(Refused(f"row {number}", str(error)))
            continue
        if data.instrument_type not in (PERP, OPTION):
            continue
        result = read_instrument(data, exchange)
        if isinstance(result, Refused):
            refused.append(result)
        else:
            listed[data.instrument_name] = result
    return Page(listed=listed, refused=refused, count=page.pagination.count, pages=page.pagination.num_pages)


def decode_instrument(raw: msgspec.Raw | bytes, exchange: str) -> Listed | Refused:
    """The answer of public/get_instrument."""
    return read_instrument(_decode_row(raw), exchange)


def read_instrument(data: InstrumentData, exchange: str) -> Listed | Refused:
    """One instrument, or why not."""
    try:
        return _read(data, exchange)
    except (_Unknown, OffGrid, ArithmeticError, ValueError) as error:
        return Refused(data.instrument_name, str(error) or type(error).__name__)


class _Unknown(Exception):
    """A combination of fields that this adapter has no units for."""


def _read(data: InstrumentData, exchange: str) -> Listed:
    if data.quote_currency not in _QUOTES or data.base_currency in _QUOTES:
        raise _Unknown(f"{data.base_currency} quoted in {data.quote_currency}: units unknown")
    kind, index, strike, expiry_ns = _option(data) if data.instrument_type == OPTION else _perpetual(data)
    tick = _step("tick_size", data.tick_size)
    lot = _step("amount_step", data.amount_step)
    min_lots = whole(data.minimum_amount, lot)
    max_lots = whole_down(data.maximum_amount, lot)
    if not 1 <= min_lots <= max_lots:
        raise _Unknown(f"amounts from {data.minimum_amount} to {data.maximum_amount} in steps of {lot}")
    fees = (data.maker_fee_rate, data.taker_fee_rate, data.base_fee, data.mark_price_fee_rate_cap or Decimal(0))
    if not all(fee.is_finite() for fee in fees):
        raise _Unknown(f"fees {', '.join(map(str, fees))} are no numbers")
    instrument = Instrument(
        exchange=exchange,
        symbol=data.instrument_name,
        kind=kind,
        contract=Contract.LINEAR,
        base=data.base_currency,
        quote=SETTLEMENT,
        settlement=SETTLEMENT,
        index=index,
        grid=Grid(tick),
        lot=lot,
        min_lots=min_lots,
        contract_size=Decimal(1),
        strike=strike,
        expiry_ns=expiry_ns,
        maker_fee=data.maker_fee_rate,
        taker_fee=data.taker_fee_rate,
        tradable=data.is_active,
    )
    return Listed(
        instrument=instrument,
        asset=Asset(data.base_asset_address, _sub_id(data.base_asset_sub_id)),
        tick_e18=scaled(tick),
        lot_e18=scaled(lot),
        max_lots=max_lots,
        base_fee=data.base_fee,
        fee_cap=data.mark_price_fee_rate_cap,
        opens_sec=data.scheduled_activation,
        closes_sec=data.scheduled_deactivation,
        settled=data.option_details is not None and data.option_details.settlement_price is not None,
    )


_Terms = tuple[Kind, str, Decimal | None, int | None]
"""Kind, index, strike, expiry in ns"""


def _perpetual(data: InstrumentData) -> _Terms:
    if data.perp_details is None:
        raise _Unknown("a perpetual without perp_details")
    return Kind.PERPETUAL, data.perp_details.index, None, None


def _option(data: InstrumentData) -> _Terms:
    """The details count; the name must agree with them, because people choose by the name."""
    details, name = data.option_details, _OPTION_NAME.fullmatch(data.instrument_name)
    if details is None or name is None:
        raise _Unknown("an option without option_details" if details is None else "no name of an option")
    kind = _KINDS.get(details.option_type)
    if kind is None:
        raise _Unknown(f"option_type {details.option_type!r}; known are {', '.join(_KINDS)}")
    base, _, strike, letter = name.groups()
    if (base, Decimal(strike.replace("_", ".")), letter) != (data.base_currency, details.strike, details.option_type):
        told = f"{data.base_currency}, strike {details.strike}, {details.option_type}"
        raise _Unknown(f"the name says another thing than the details: {told}")
    if not 0 < details.strike <= _LARGEST or details.expiry <= 0:
        raise _Unknown(f"strike {details.strike}, expiry {details.expiry}: out of range")
    return kind, details.index, details.strike, details.expiry * NS


def _step(name: str, value: Decimal) -> Decimal:
    """A tick or a lot; that it can be signed is checked where it is scaled."""
    if not 0 < value <= _LARGEST:
        raise _Unknown(f"{name} {value} is out of range")
    return value


def _sub_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise _Unknown(f"base_asset_sub_id {text[:50]!r} is no number")
    return int(text)
