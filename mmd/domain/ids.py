"""Ownership labels: every order says whose it is, for any later process to read.

`mmd-<service>-<symbol>-<side>-<epoch>-<n>`: service has no dash, side is b or a, epoch is when
the symbol came into service in base 36 (Unix milliseconds: a daemon that is back within the second
must not use a label twice), n counts orders in base 36. At most 64 characters.
"""

import msgspec

from mmd.domain.reasons import Side

LABEL_MAX = 64
NUMBER_MAX = 12  # digits; one without an end would be read for as long
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Label(msgspec.Struct, frozen=True):
    service: str
    symbol: str
    side: Side
    epoch: str
    n: int

    def __str__(self) -> str:
        side = "b" if self.side is Side.BID else "a"
        return f"mmd-{self.service}-{self.symbol}-{side}-{self.epoch}-{base36(self.n)}"


def base36(value: int) -> str:
    """A non-negative integer in lower-case base 36."""
    if value < 0:
        raise ValueError(f"no base 36 of {value}")
    text = DIGITS[value % 36]
    while value := value // 36:
        text = DIGITS[value % 36] + text
    return text


def label_prefix(service: str) -> str:
    """What every order of this service starts with."""
    return f"mmd-{service}-"


def parse_label(text: str) -> Label | None:
    """The label's parts, or None for an order that is not mmd's."""
    head, *tail = text.rsplit("-", 3)
    front = head.split("-", 2)
    if len(tail) != 3 or len(front) != 3 or front[0] != "mmd" or tail[0] not in ("a", "b"):
        return None
    if not 0 < len(tail[2]) <= NUMBER_MAX or any(c not in DIGITS for c in tail[2]):
        return None
    side = Side.BID if tail[0] == "b" else Side.ASK
    return Label(service=front[1], symbol=front[2], side=side, epoch=tail[1], n=int(tail[2], 36))
