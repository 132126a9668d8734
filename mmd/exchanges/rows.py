"""What exchanges list, row by row, as all of the session speaks of it. Pure."""

import msgspec


class Refused(msgspec.Struct, frozen=True):
    """An instrument that is listed but cannot be quoted, and why."""

    symbol: str
    reason: str
