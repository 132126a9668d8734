"""Deribit's instruments as ours: kind, contract, units, price grid. Pure.

What an amount counts follows from kind and contract (docs.deribit.com, private/buy): inverse
perpetuals and futures in USD, all else in the base coin. A row whose currencies do not fit one
of the four known patterns is refused rather than guessed at.
"""

import math
from decimal import Decimal

import msgspec

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.units import Grid, GridStep, whole
from mmd.exchanges.deribit.messages import InstrumentData
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import Refused

QUOTED_KINDS = ("future", "option")
_CONTRACTS = {"reversed": Contract.INVERSE, "linear": Contract.LINEAR}
# No real tick or lot lies outside; keeps absurd exponents away from the arithmetic.
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")

_decode_rows: Decoder[list[msgspec.Raw]] = Decoder(list[msgspec.Raw])
_decode_row: Decoder[InstrumentData] = Decoder(InstrumentData)


def decode_instruments(raw: msgspec.Raw | bytes, exchange: str) -> tuple[dict[str, Instrument], list[Refused]]:
    """The answer of public/get_instruments. Spot and combos are left out; a bad row loses only itself."""
    listed: dict[str, Instrument] = {}
    refused: list[Refused] = []
    for number, row in enumerate(_decode_rows(raw)):
        try:
            data = _decode_row(row)
        except ExchangeMalformed as error:
            refused.append(Refused(f"row {number}", str(error)))
            continue
        if data.kind not in QUOTED_KINDS:
            continue
        result = read_instrument(data, exchange)
        if isinstance(result, Refused):
            refused.append(result)
        else:
            listed[result.symbol] = result
    return listed, refused


def decode_instrument(raw: msgspec.Raw | bytes, exchange: str) -> Instrument | Refused:
    """One row, as instrument.creation.* sends it."""
    return read_instrument(_decode_row(raw), exchange)


def read_instrument(data: InstrumentData, exchange: str) -> Instrument | Refused:
    """One instrument, or why not."""
    try:
        return _read(data, exchange)
    except (_Unknown, OffGrid, ArithmeticError) as error:
        return Refused(data.instrument_name, str(error) or type(error).__name__)


class _Unknown(Exception):
    """A combination of fields that this adapter has no units for."""


def _read(data: InstrumentData, exchange: str) -> Instrument:
    kind = _kind(data)
    contract = _contract(data)
    settlement = data.settlement_currency or (
        data.base_currency if contract is Contract.INVERSE else data.quote_currency
    )
    _check_currencies(data, contract, settlement)
    _check_numbers(data)
    lot = _lot(data, contract)
    counter = "usd" if contract is Contract.INVERSE else data.quote_currency.lower()
    active = data.is_active and data.state in ("", "open")
    return Instrument(
        exchange=exchange,
        symbol=data.instrument_name,
        kind=kind,
        contract=contract,
        base=data.base_currency,
        quote=data.quote_currency,
        settlement=settlement,
        index=data.price_index or f"{data.base_currency.lower()}_{counter}",
        grid=read_grid(data),
        lot=lot,
        min_lots=whole(data.min_trade_amount, lot),
        contract_size=data.contract_size,
        strike=data.strike,
        expiry_ns=None if kind is Kind.PERPETUAL else data.expiration_timestamp * 1_000_000,
        maker_fee=data.maker_commission,
        taker_fee=data.taker_commission,
        tradable=active,
    )


def _kind(data: InstrumentData) -> Kind:
    if data.kind == "future":
        return Kind.PERPETUAL if data.settlement_period == "perpetual" else Kind.FUTURE
    if data.kind != "option":
        raise _Unknown(f"kind {data.kind!r} is not quoted; known are {', '.join(QUOTED_KINDS)}")
    if data.strike is None or data.option_type not in ("call", "put"):
        raise _Unknown(f"option without strike or with option_type {data.option_type!r}")
    return Kind.CALL if data.option_type == "call" else Kind.PUT


def _contract(data: InstrumentData) -> Contract:
    named = data.instrument_type or data.future_type
    if named:
        contract = _CONTRACTS.get(named)
        if contract is None:
            raise _Unknown(f"instrument_type {named!r}; known are {', '.join(_CONTRACTS)}")
        return contract
    # 2021 and before: the name says it (BASE_QUOTE-… is linear).
    return Contract.LINEAR if "_" in data.instrument_name.partition("-")[0] else Contract.INVERSE


def _check_currencies(data: InstrumentData, contract: Contract, settlement: str) -> None:
    base, quote = data.base_currency, data.quote_currency
    if contract is Contract.LINEAR:
        fits = quote == settlement != base
    elif data.kind == "option":
        fits = quote == settlement == base
    else:
        fits = quote == "USD" and settlement == base
    if not fits:
        raise _Unknown(f"{contract} {data.kind} on {base} quoted in {quote}, settled in {settlement}: units unknown")


def _lot(data: InstrumentData, contract: Contract) -> Decimal:
    """The smallest documented step of an amount that orders take as well.

    Futures are counted in whole contracts (error 10027), also where the least order is several; options are not
    (0.1 contracts), so without `qty_tick_size` their least order is the only step that is told.
    """
    least, contracts = data.min_trade_amount, data.contract_size
    for name, value in (("contract_size", contracts), ("min_trade_amount", least)):
        _check(name, value)
    if data.kind == "future" and contract is Contract.INVERSE:
        return contracts
    step = data.qty_tick_size
    if not step:
        whole_contracts = data.kind == "future" and contracts < least and least % contracts == 0
        step = contracts if whole_contracts else least
    _check("lot", step)
    return step


def _check(name: str, value: Decimal) -> None:
    if not value.is_finite() or not _SMALLEST <= value <= _LARGEST:
        raise _Unknown(f"{name} {value} is out of range")


def _check_numbers(data: InstrumentData) -> None:
    """A decimal may be read from the texts "NaN" and "Infinity"; a fee may be negative, and all else is not."""
    if data.strike is not None:
        _check("strike", data.strike)
    for name in ("maker_commission", "taker_commission"):
        value = getattr(data, name)
        if not (value.is_finite() and abs(value) <= 1):
            raise _Unknown(f"{name} {value} is out of range")
    for step in data.tick_size_steps:
        if not (step.above_price.is_finite() and 0 <= step.above_price <= _LARGEST):
            raise _Unknown(f"tick size above {step.above_price}: the price is out of range")


def read_grid(data: InstrumentData) -> Grid:
    """Price grid with the greatest common divisor of all ticks as base tick."""
    ticks = [data.tick_size, *(step.tick_size for step in data.tick_size_steps)]
    for value in ticks:
        _check("tick size", value)
    base = common_divisor(ticks)
    if not data.tick_size_steps:
        return Grid(base)
    steps = [GridStep(0, whole(data.tick_size, base))]
    for step in sorted(data.tick_size_steps, key=lambda entry: entry.above_price):
        steps.append(GridStep(math.ceil(step.above_price / base), whole(step.tick_size, base)))
    return Grid(base, tuple(steps))


def common_divisor(values: list[Decimal]) -> Decimal:
    """The largest decimal of which all values are whole multiples."""
    places = max(0, *(-int(value.as_tuple().exponent) for value in values))
    scaled = math.gcd(*(int(value.scaleb(places)) for value in values))
    return Decimal(scaled).scaleb(-places)
