"""When something expired at Derive: as its record tells, or its name. Pure.

Options are BASE-DAY-STRIKE-C or -P, and expire at 08:00 UTC of that day, but for a few underlyings: the record
counts. Source: docs.derive.xyz, "Instrument names".
"""

import re
from datetime import UTC, datetime

import msgspec

from mmd.exchanges.derive.messages import InstrumentData
from mmd.exchanges.jsonrpc import Decoder

MS, NS = 1_000_000, 1_000_000_000
EXPIRY_HOUR = 8
_DAY = re.compile(r"[A-Z0-9]+-([0-9]{8})-[0-9_]+-[CP]", re.ASCII)

_decode_instrument: Decoder[InstrumentData] = Decoder(InstrumentData)


def ended_ns(symbol: str, now_ns: int) -> int | None:
    """When an option expired, by its name; None for what lives, and for what is none."""
    found = _DAY.fullmatch(symbol)
    if found is None:
        return None
    try:
        day = datetime.strptime(found[1], "%Y%m%d").replace(hour=EXPIRY_HOUR, tzinfo=UTC)
    except ValueError:
        return None
    at_ns = int(day.timestamp()) * NS
    return at_ns if at_ns <= now_ns else None


def read_end(raw: msgspec.Raw | bytes, now_ns: int) -> int | None:
    """When this instrument (the answer of public/get_instrument) expired or was taken out; None: it lives.

    Raises ExchangeMalformed.
    """
    data = _decode_instrument(raw)
    details = data.option_details
    at_sec = data.scheduled_deactivation if details is None else details.expiry
    over = at_sec * NS <= now_ns and (details is not None or not data.is_active)
    return at_sec * NS if over else None
