"""What is listed where Derive's dialect is spoken: perpetuals and option chains of ETH and BTC, paid in USDC.

Names, addresses and sub ids are as Derive makes them. Sizes, ticks and fees are of its size; those of
ETH-PERP were recorded by others, the rest is assumed. Source: docs.derive.xyz, Instrument names.
"""

import math
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from mmd.sandbox.assets import assumptions
from mmd.sandbox.generator import GeneratedMarket, GeneratorSettings
from mmd.sandbox.model import Market, SandboxInstrument
from mmd.sandbox.universe import DAY_MS, PERPETUAL_EXPIRY_MS, YEAR_MS, expiry_calendar, strikes

QUOTE = "USDC"
MAKER_RATE, TAKER_RATE = Decimal("0.0001"), Decimal("0.0003")
OPTION_FEE_CAP = Decimal("0.125")
NEAREST_DEVIATION = 0.015
CALL_BIT = 1 << 95
STRIKE_UNITS = 10**8


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What one coin's instruments have in common: ticks in USDC, amounts in coins, the addresses that are signed."""

    base: str
    perp_tick: str
    perp_step: str
    perp_least: str
    option_tick: str
    option_step: str
    option_least: str
    most: str
    perp_asset: str
    option_asset: str


FAMILIES = (
    Family(
        base="ETH", perp_tick="0.01", perp_step="0.01", perp_least="1",
        option_tick="0.1", option_step="0.1", option_least="0.1", most="10000",
        perp_asset="0xAf65752C4643E25C02F693f9D4FE19cF23a095E3",
        option_asset="0x4BB4C3CDc7562f08e9910A0C7D8bB7e108861eB4",
    ),
    Family(
        base="BTC", perp_tick="0.1", perp_step="0.001", perp_least="0.01",
        option_tick="1", option_step="0.01", option_least="0.1", most="1000",
        perp_asset="0xDBa83C0C654DB1cd914FA2710bA743e925B53086",
        option_asset="0xd0711b9eBE84b778483709CDe62BacFDBAE13623",
    ),
)  # fmt: skip
BY_BASE = {family.base: family for family in FAMILIES}


def listed(now_ms: int, prices: dict[str, float], volatilities: dict[str, float]) -> list[SandboxInstrument]:
    """All instruments, for the expiries after `now_ms`; strikes around `prices` (USD) by annual `volatilities`."""
    made: list[SandboxInstrument] = []
    for family in FAMILIES:
        price, volatility = prices[family.base], volatilities[family.base]
        made.append(perpetual(family, now_ms))
        for expiry, period in expiry_calendar(now_ms).items():
            deviation = max(volatility * math.sqrt((expiry - now_ms) / YEAR_MS), NEAREST_DEVIATION)
            made += [
                option(family, period, expiry, now_ms, strike, kind)
                for strike in strikes(price, deviation)
                for kind in ("call", "put")
            ]
    return [msgspec.structs.replace(one, instrument_id=place) for place, one in enumerate(made, 1)]


def derive_market(seed: int, *, settings: GeneratorSettings | None = None, now_ms: int) -> Market:
    """A generated market of what is listed."""
    table = assumptions()
    instruments = listed(
        now_ms,
        {base: row.price for base, row in table.items()},
        {base: row.volatility for base, row in table.items()},
    )
    return GeneratedMarket({one.instrument_name: one for one in instruments}, seed, settings or GeneratorSettings())


def perpetual(family: Family, now_ms: int) -> SandboxInstrument:
    return SandboxInstrument(
        instrument_name=f"{family.base}-PERP",
        instrument_id=0,
        kind="future",
        instrument_type="linear",
        base_currency=family.base,
        quote_currency=QUOTE,
        counter_currency=QUOTE,
        settlement_currency=QUOTE,
        settlement_period="perpetual",
        price_index=f"{family.base}_usd".lower(),
        tick_size=Decimal(family.perp_tick),
        min_trade_amount=Decimal(family.perp_least),
        contract_size=Decimal(family.perp_step),
        max_trade_amount=Decimal(family.most),
        maker_commission=MAKER_RATE,
        taker_commission=TAKER_RATE,
        base_fee=Decimal("0.01"),
        fee_on_index=True,
        creation_timestamp=now_ms - 30 * DAY_MS,
        expiration_timestamp=PERPETUAL_EXPIRY_MS,
    )


def option(family: Family, period: str, expiry_ms: int, now_ms: int, strike: Decimal, kind: str) -> SandboxInstrument:
    return SandboxInstrument(
        instrument_name=option_name(family.base, expiry_ms, strike, kind),
        instrument_id=0,
        kind="option",
        instrument_type="linear",
        base_currency=family.base,
        quote_currency=QUOTE,
        counter_currency=QUOTE,
        settlement_currency=QUOTE,
        settlement_period=period,
        price_index=f"{family.base}_usd".lower(),
        tick_size=Decimal(family.option_tick),
        min_trade_amount=Decimal(family.option_least),
        contract_size=Decimal(family.option_step),
        max_trade_amount=Decimal(family.most),
        maker_commission=MAKER_RATE,
        taker_commission=TAKER_RATE,
        base_fee=Decimal("0.5"),
        creation_timestamp=now_ms - 7 * DAY_MS,
        expiration_timestamp=expiry_ms,
        strike=strike,
        option_type=kind,
    )


def option_name(base: str, expiry_ms: int, strike: Decimal, kind: str) -> str:
    """ETH-20261225-4000-C; an underscore is the decimal point."""
    day = datetime.fromtimestamp(expiry_ms / 1000, UTC)
    return f"{base}-{day:%Y%m%d}-{strike:f}-{kind[0].upper()}".replace(".", "_")


def asset(instrument: SandboxInstrument) -> tuple[str, int]:
    """Address and sub id of what is traded, as it is signed."""
    family = BY_BASE[instrument.base_currency]
    if instrument.strike is None:
        return family.perp_asset, 0
    strike = int(instrument.strike * STRIKE_UNITS)
    call = CALL_BIT if instrument.option_type == "call" else 0
    return family.option_asset, instrument.expiration_timestamp // 1000 | strike << 32 | call


def kind_of(instrument: SandboxInstrument) -> str:
    """`option` or `perp`."""
    return "option" if instrument.strike is not None else "perp"
