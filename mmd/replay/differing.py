"""Where the record and its replay part, in words."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mmd.domain.actions import Decision
from mmd.domain.totals import PortfolioAction

SHOWN_MAX = 300  # characters of one value in a difference


def words(value: msgspec.Struct) -> str:
    """An event or an action on one line: its name, then its fields as the journal has them."""
    fields = (f"{name}={_text(getattr(value, name))}" for name in value.__struct_fields__)
    return " ".join((type(value).__name__, *fields))


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}… ({len(text)} characters)"


def between(
    recorded: Sequence[Decision | PortfolioAction], replayed: Sequence[Decision | PortfolioAction]
) -> tuple[str, str, str]:
    """Where two lists of actions part: which one, what was recorded, what came out."""
    count = f"{len(recorded)} recorded, {len(replayed)} replayed"
    for number, (ours, theirs) in enumerate(itertools.zip_longest(recorded, replayed), 1):
        if ours != theirs or type(ours) is not type(theirs):
            return (
                f"action {number} ({count})",
                words(ours) if ours is not None else "nothing more",
                words(theirs) if theirs is not None else "nothing more",
            )
    return ("the digest, not the actions", "a digest of other actions than those beside it", "these actions")


def first_difference(recorded: Any, replayed: Any) -> tuple[str, str, str] | None:
    """The path in two trees of JSON at which they part, and both values there; None if they are equal."""
    for path, ours, theirs in _differing(recorded, replayed, ""):
        return (path.removeprefix(".machine").removeprefix("."), _json(ours), _json(theirs))
    return None


MISSING = object()


def _json(value: object) -> str:
    return "nothing" if value is MISSING else msgspec.json.encode(value).decode()


def _differing(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            yield from _differing(ours.get(name, MISSING), theirs.get(name, MISSING), f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for at, (one, other) in enumerate(itertools.zip_longest(ours, theirs, fillvalue=MISSING)):
            yield from _differing(one, other, f"{path}[{at}]")
    elif ours != theirs or type(ours) is not type(theirs):
        yield (path, ours, theirs)
