"""Configurations and listings that the tests of this room share."""

from datetime import UTC, date, datetime
from decimal import Decimal

from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.units import Grid

GOOD = """\
version: 1
service: {name: mmd, mode: shadow, metrics: {listen: "127.0.0.1:9464"}}
exchanges:
  deribit:
    type: deribit
    network: sandbox
    credentials: {client_id: {env: DERIBIT_CLIENT_ID}, client_secret: {credential: deribit-secret}}
spreads:
  perp:    {fair: microprice, style: around, spread_bps: 10, min_spread_bps: 2, skew_bps: 5, band_bps: 100, size: 10}
  options: {fair: mid, style: improve, improve_by: "0.0005", min_spread_bps: 100, band_bps: 5000, size: 0.1}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}
  - select: {exchange: deribit, underlying: BTC, expiries: {nearest: 2}, strikes: {nearest_to_money: 2}}
    spread: options
    limits: {max_position: 1}
limits:
  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 200}
  portfolio: {max_exposure: {BTC: 10}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""
DAYS = (date(2026, 12, 4), date(2026, 12, 25), date(2027, 3, 26))
STRIKES = (28000, 30000, 32000, 34000, 36000)
NOW_NS = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9


def make_instrument(symbol: str, kind: Kind, **changes: object) -> Instrument:
    inverse_future = kind in (Kind.PERPETUAL, Kind.FUTURE)
    fields: dict[str, object] = {
        "exchange": "deribit",
        "symbol": symbol,
        "kind": kind,
        "contract": Contract.INVERSE,
        "base": "BTC",
        "quote": "USD" if inverse_future else "BTC",
        "settlement": "BTC",
        "index": "btc_usd",
        "grid": Grid(Decimal("0.5" if inverse_future else "0.0005")),
        "lot": Decimal(10) if inverse_future else Decimal("0.1"),
        "min_lots": 1,
        "contract_size": Decimal(10) if inverse_future else Decimal(1),
    }
    return Instrument(**{**fields, **changes})


def expiry_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 8, tzinfo=UTC).timestamp()) * 10**9


def make_listing() -> dict[str, Instrument]:
    """A perpetual, a future and a chain of three expiries; the last one lacks the strike 28000."""
    found = [
        make_instrument("BTC-PERPETUAL", Kind.PERPETUAL),
        make_instrument("BTC-25DEC26", Kind.FUTURE, expiry_ns=expiry_ns(DAYS[1])),
    ]
    for day in DAYS:
        for strike in STRIKES:
            if day == DAYS[2] and strike == 28000:
                continue
            for kind, letter in ((Kind.CALL, "C"), (Kind.PUT, "P")):
                name = f"BTC-{day.day}{day:%b%y}-{strike}-{letter}".upper()
                found.append(make_instrument(name, kind, expiry_ns=expiry_ns(day), strike=Decimal(strike)))
    return {instrument.symbol: instrument for instrument in found}
