"""Deribit's market maker protection: one configuration for each price index.

BTC has btc_usd and, for linear contracts, btc_usdc. Setting one lifts a freeze there.
Source: docs.deribit.com, "Market Maker Protection" and private/set_mmp_config, September 2026.
"""

from decimal import ROUND_DOWN, Decimal, InvalidOperation

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection
from mmd.exchanges.clock import ExchangeClock
from mmd.exchanges.connection import Connection
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.messages import IndexParams, MmpConfig, MmpParams, MmpStatus
from mmd.exchanges.guards import Sign, Standing
from mmd.exchanges.jsonrpc import Decoder

PLACES = Decimal("0.0001")  # the exchange takes four decimals
LIMITS = ("quantity_limit", "delta_limit", "vega_limit", "max_quote_quantity")
FIELDS = ("interval", "frozen_time", *LIMITS)
MMP_TRIGGER, MMP_REQUIRED = 13030, 13040

_decode_configs: Decoder[list[MmpConfig]] = Decoder(list[MmpConfig])
_decode_statuses: Decoder[list[MmpStatus]] = Decoder(list[MmpStatus])
_decode_status: Decoder[MmpStatus] = Decoder(MmpStatus)


def mmp_params(index: str, wanted: Protection) -> MmpParams:
    """What is set at the exchange: coins and seconds as here, limits cut to four decimals.

    The exchange also wants the most that may rest on one side of one book (`max_quote_quantity`):
    what may trade in one interval, `max_quantity` or else `max_delta`. ValueError where a limit
    would be cut to nothing.
    """
    found = {"max_quantity": wanted.max_quantity, "max_delta": wanted.max_delta, "max_vega": wanted.max_vega}
    limits = {name: None if value is None else value.quantize(PLACES, ROUND_DOWN) for name, value in found.items()}
    for name, value in limits.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} {found[name]} is too small, the least is {PLACES}")
    quantity, delta = limits["max_quantity"], limits["max_delta"]
    return MmpParams(
        index_name=index,
        interval=round(wanted.interval_seconds),
        frozen_time=round(wanted.frozen_seconds),
        quantity_limit=quantity,
        delta_limit=delta,
        vega_limit=limits["max_vega"],
        max_quote_quantity=delta if quantity is None else quantity,
    )


def difference(found: MmpConfig | None, wanted: MmpParams) -> str:
    """The fields in which what stands there is not what is wanted, with both values; empty if it is."""
    if found is None:
        return "nothing is set there"
    texts = []
    for name in FIELDS:
        there, here = getattr(found, name), getattr(wanted, name)
        if name in LIMITS and there is not None:
            there = _cut(there)
        if there != here:
            texts.append(f"{name} is {_text(there)}, wanted {_text(here)}")
    return "; ".join(texts)


def _cut(value: Decimal) -> Decimal:
    """To the places that the exchange takes; what is too large for that, or no number, stays as it is."""
    try:
        return value.quantize(PLACES)
    except InvalidOperation:
        return value


def _text(value: Decimal | int | None) -> str:
    if value is None:
        return "off"
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_config(raw: msgspec.Raw | bytes, index: str) -> MmpConfig | None:
    """The configuration for orders (not of a group, not for block RFQ) out of private/get_mmp_config."""
    for row in _decode_configs(raw):
        if row.index_name == index and not row.mmp_group and not row.block_rfq and row.interval:
            return row
    return None


def read_freeze(raw: msgspec.Raw | bytes, index: str, now_ms: int) -> int | None:
    """Until when it is frozen, ms (0 = until reset), out of private/get_mmp_status; None = it is not."""
    for row in _decode_statuses(raw):
        if row.index_name == index and not row.mmp_group and not row.block_rfq:
            return _freeze(row, now_ms)
    return None


def _freeze(row: MmpStatus, now_ms: int) -> int | None:
    return None if row.frozen_until is None or 0 < row.frozen_until <= now_ms else row.frozen_until


class DeribitProtection:
    """Implements ProtectionCalls; a key is a price index."""

    frozen_code = MMP_TRIGGER
    required_code = MMP_REQUIRED

    def __init__(self, clock: ExchangeClock) -> None:
        self._clock = clock

    def key(self, instrument: Instrument) -> str:
        return instrument.index

    def check(self, wanted: Protection) -> None:
        mmp_params("", wanted)

    def channel(self, key: str) -> str:
        return codec.MMP_TRIGGER + key

    def told(self, channel: str, data: msgspec.Raw) -> Sign | None:
        if not channel.startswith(codec.MMP_TRIGGER):
            return None
        row = _decode_status(data)
        if row.mmp_group or row.block_rfq:
            return None
        return Sign(channel.removeprefix(codec.MMP_TRIGGER), _freeze(row, self._clock.now_ms()))

    async def read(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        frozen_ms = await self._freeze(connection, key)
        return Standing(await self._off(connection, key, wanted), frozen_ms)

    async def push(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        await connection.call("private/set_mmp_config", mmp_params(key, wanted))
        off = await self._off(connection, key, wanted)
        return Standing(off, await self._freeze(connection, key))

    async def reset(self, connection: Connection, key: str) -> None:
        await connection.call("private/reset_mmp", IndexParams(key))

    async def _freeze(self, connection: Connection, key: str) -> int | None:
        raw = await connection.call("private/get_mmp_status", IndexParams(key))
        return read_freeze(raw, key, self._clock.now_ms())

    async def _off(self, connection: Connection, key: str, wanted: Protection) -> str:
        raw = await connection.call("private/get_mmp_config", IndexParams(key))
        return difference(read_config(raw, key), mmp_params(key, wanted))
