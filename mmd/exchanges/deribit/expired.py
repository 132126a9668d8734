"""When something expired at Deribit: read from its name, or from its row. Pure.

Futures are BASE-DAY (BTC-25DEC26), options BASE-DAY-STRIKE-C or -P, where BASE is a coin or a pair of them
(XRP_USDC-30JUN26-0d625-P). All of them expire at 08:00 UTC. Source: docs.deribit.com, "Instrument naming",
September 2026.
"""

import re
from datetime import UTC, datetime

import msgspec

from mmd.exchanges.deribit.messages import InstrumentData
from mmd.exchanges.jsonrpc import Decoder

EXPIRY_HOUR = 8
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
NAME = re.compile(
    rf"[A-Z0-9]+(?:_[A-Z0-9]+)?-([1-9]|[12][0-9]|3[01])({'|'.join(MONTHS)})([0-9]{{2}})(?:-[0-9]+(?:d[0-9]+)?-[CP])?",
    re.ASCII,
)
NS_PER_MS = 1_000_000
OVER = frozenset({"closed", "delivered", "archivized"})

_decode_instrument: Decoder[InstrumentData] = Decoder(InstrumentData)


def expiry_ns(symbol: str) -> int | None:
    """Unix ns; None for a perpetual and for every name that is not of these two kinds."""
    found = NAME.fullmatch(symbol)
    if found is None:
        return None
    day, month, year = int(found[1]), MONTHS.index(found[2]) + 1, 2000 + int(found[3])
    try:
        at = datetime(year, month, day, EXPIRY_HOUR, tzinfo=UTC)
    except ValueError:
        return None  # a 31 June
    return int(at.timestamp()) * 1_000_000_000


def read_end(raw: msgspec.Raw | bytes, now_ns: int) -> int | None:
    """When this instrument (the answer of public/get_instrument) expired, at the latest now; None: it lives.

    Raises ExchangeMalformed.
    """
    data = _decode_instrument(raw)
    over = data.state in OVER if data.state else not data.is_active
    return min(now_ns, data.expiration_timestamp * NS_PER_MS) if over else None
