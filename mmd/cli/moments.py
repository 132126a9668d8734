"""A point in a sequence of records as people write it: a number, a time, or an age."""

import argparse
import re
from datetime import UTC, datetime

import msgspec

NS = 1_000_000_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
AGE = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
NUMBER = re.compile(r"\d{1,18}", re.ASCII)
TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)


class Instant(msgspec.Struct, frozen=True):
    """Unix nanoseconds."""

    ns: int

    @property
    def seconds(self) -> float:
        return self.ns * 1e-9


Moment = int | Instant
"""A number in the sequence, or a time."""


def parse_moment(text: str, now_ns: int, what: str) -> Moment:
    """`what`: what a plain number counts. ArgumentTypeError says what is allowed.

    A time without a zone is UTC; an age counts back from now.
    """
    if NUMBER.fullmatch(text):
        return int(text)
    if found := AGE.fullmatch(text):
        return Instant(now_ns - int(found[1]) * UNITS[found[2]] * NS)
    if found := TIME.fullmatch(text):
        day, minute, second, fraction, zone = found.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone or 'Z'}")
        except ValueError:
            whole = None
        if whole is not None:
            return Instant(int(whole.astimezone(UTC).timestamp()) * NS + int((fraction or "").ljust(9, "0")))
    raise argparse.ArgumentTypeError(
        f"{text!r} is not the number of {what}, a UTC time as 2026-01-31T12:03:00Z, or an age as 90s, 15m, 2h, 3d"
    )
