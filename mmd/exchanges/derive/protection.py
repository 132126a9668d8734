"""Derive's market maker protection: one configuration for each currency, options and perpetual together.

Milliseconds, an amount and a delta; no limit of vega. Nothing tells of a freeze but the orders that it pulls
(`mmp_trigger`) or refuses (11015), so it is asked for. Setting a configuration lifts none, as far as is known.
Source: docs.derive.xyz, "Market maker protection"; private/set_mmp_config of the published v3 specification.
"""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive.errors import MMP_FROZEN
from mmd.exchanges.derive.messages import MmpConfig
from mmd.exchanges.derive.room import Room
from mmd.exchanges.guards import Sign, Standing
from mmd.exchanges.jsonrpc import Decoder

MS_IN_SECOND = 1000


class MmpParams(msgspec.Struct):
    """For private/set_mmp_config; units as in MmpConfig."""

    subaccount_id: int
    currency: str
    mmp_interval: int
    mmp_frozen_time: int
    mmp_amount_limit: Decimal
    mmp_delta_limit: Decimal


decode_configs: Decoder[list[MmpConfig]] = Decoder(list[MmpConfig])


def mmp_params(subaccount: int, wanted: Protection) -> MmpParams:
    """What is set at the exchange, where 0 is no limit. ValueError for what it does not have."""
    if wanted.max_vega is not None:
        raise ValueError("max_vega: this exchange has no limit of vega")
    interval_ms = round(wanted.interval_seconds * MS_IN_SECOND)
    if interval_ms <= 0:
        raise ValueError(f"interval {wanted.interval_seconds} s is too short, the least is 1 ms")
    return MmpParams(
        subaccount_id=subaccount,
        currency=wanted.underlying,
        mmp_interval=interval_ms,
        mmp_frozen_time=round(wanted.frozen_seconds * MS_IN_SECOND),
        mmp_amount_limit=_limit(wanted.max_quantity),
        mmp_delta_limit=_limit(wanted.max_delta),
    )


def _limit(value: Decimal | None) -> Decimal:
    """As it stands in the JSON: without an exponent."""
    return Decimal(0) if value is None else Decimal(f"{value:f}")


def mmp_difference(found: MmpConfig | None, wanted: MmpParams) -> str:
    """The fields in which what stands there is not what is wanted, with both values; empty if it is."""
    if found is None or not found.mmp_interval:
        return "nothing is set there"
    names = ("mmp_interval", "mmp_frozen_time", "mmp_amount_limit", "mmp_delta_limit")
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in names]
    return "; ".join(f"{name} is {there}, wanted {here}" for name, there, here in pairs if not _is_same(there, here))


def _is_same(there: Decimal | int, here: Decimal | int) -> bool:
    """A limit may be read from the text "sNaN", which cannot even be compared."""
    return Decimal(there).is_finite() and there == here


def find_config(rows: Sequence[MmpConfig], subaccount: int, currency: str) -> MmpConfig | None:
    """The row of private/get_mmp_config that is ours."""
    ours = [row for row in rows if row.subaccount_id == subaccount and row.currency == currency]
    return ours[0] if ours else None


class DeriveProtection:
    """Implements ProtectionCalls; a key is a currency."""

    frozen_code = MMP_FROZEN
    required_code = 0

    def __init__(self, room: Room) -> None:
        self._subaccount = room.subaccount

    def key(self, instrument: Instrument) -> str:
        return instrument.base

    def check(self, wanted: Protection) -> None:
        mmp_params(self._subaccount, wanted)

    def channel(self, key: str) -> str:
        return ""

    def told(self, channel: str, data: msgspec.Raw) -> Sign | None:
        return None

    async def read(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        raw = await connection.call("private/get_mmp_config", self._of(key))
        found = find_config(decode_configs(raw), self._subaccount, key)
        frozen_ms = found.mmp_unfreeze_time if found is not None and found.is_frozen else None
        return Standing(mmp_difference(found, mmp_params(self._subaccount, wanted)), frozen_ms)

    async def push(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        await connection.call("private/set_mmp_config", mmp_params(self._subaccount, wanted))
        return await self.read(connection, key, wanted)

    async def reset(self, connection: Connection, key: str) -> None:
        await connection.call("private/reset_mmp", self._of(key))

    def _of(self, currency: str) -> dict[str, object]:
        return {"subaccount_id": self._subaccount, "currency": currency}
