"""Memories that are bounded by a number, each with a smaller one in a soak: what takes days to fill is full at once.

So every one of them turns over within the hour, and what still grows then is bounded by nothing.
The larger the numbers are in production, the more memory it takes there, for ever the same.
"""

from typing import Any

import msgspec
import trio._core._run as trio_run

from mmd.core import own, pnl
from mmd.exchanges import feed, jsonrpc, levels, link, record
from mmd.sandbox import accounts, floor, tape
from mmd.sandbox.deribit import auth
from mmd.shell import cases, diary


class Bound(msgspec.Struct, frozen=True):
    """`each`: entries for each symbol that is there, besides `most`. `holders`: whose size it is."""

    owner: Any
    name: str
    most: int
    each: int = 0
    holders: tuple[str, ...] = ()

    def of(self, symbols: int) -> int:
        return self.most + self.each * symbols


BOUNDS = (
    Bound(pnl, "REMEMBERED", 64, holders=("Position._seen", "Position._entries")),
    Bound(pnl, "LABELS_REMEMBERED", 32, holders=("Position._by_label",)),
    Bound(pnl, "RECENT", 4, holders=("Position._recent",)),
    Bound(own, "FINISHED", 16, holders=("OwnOrders._finished",)),
    # Two orders of a symbol rest, or close at once when the link breaks.
    Bound(record, "MAX_CLOSED", 40, each=4, holders=("OrderRecord._closed", "OrderRecord._sent", "Trading._marked")),
    Bound(jsonrpc, "MAX_EXPIRED", 20),
    Bound(link, "MASKS", 4, holders=("Link._masks",)),
    Bound(levels, "KNOWN_TEXTS", 8, holders=("Numbers.known",)),
    Bound(feed, "TIDY_MS", 300_000),
    Bound(diary, "KEPT", 300, holders=("Diary._lines",)),
    Bound(cases, "KEPT_CLOSED", 20, holders=("CaseBook._closed",)),
    # The exchange, which is in the same process.
    Bound(accounts, "HISTORY_ORDERS", 40, each=4),
    Bound(accounts, "HISTORY_TRADES", 100),
    Bound(accounts, "HISTORY_ROWS", 100),
    Bound(floor, "DELIVERED_KEPT", 3),
    Bound(auth, "NONCES_KEPT", 10),
    Bound(tape, "TAPE_TRADES", 5),
    Bound(tape, "TAPE_CANDLES", 3),
    # Deadlines that were called off stay in trio's heap until they are so many, or their time has come.
    Bound(trio_run, "DEADLINE_HEAP_MIN_PRUNE_THRESHOLD", 20),
)


def smaller(symbols: int) -> list[tuple[Any, str, int]]:
    """What to put in place of the constants."""
    return [(bound.owner, bound.name, bound.of(symbols)) for bound in BOUNDS]


def held(symbols: int, *, small: bool) -> dict[str, int]:
    """The most entries that a collection has; not `small`: in production."""
    return {
        holder: bound.of(symbols) if small else getattr(bound.owner, bound.name)
        for bound in BOUNDS
        for holder in bound.holders
    }
