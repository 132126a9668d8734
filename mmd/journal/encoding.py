"""What happens most often, as the JSON of its record. Pure.

Actions are encoded once: for the digest that a replay is compared with, and as they are into the record.
"""

from collections.abc import Sequence

import msgspec

from mmd.domain.actions import Decision
from mmd.domain.events import Mail
from mmd.domain.totals import PortfolioAction, Told
from mmd.journal.chain import digest

NOTHING = msgspec.Raw(b"")
NO_ACTIONS = digest(b"[]")
encode = msgspec.json.Encoder().encode


class _Batch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="batch", gc=False):
    """`mmd.journal.records.Batch` with its actions encoded already."""

    seq: int
    at: int
    key: str
    events: Sequence[Mail]
    digest: str
    actions: msgspec.Raw = NOTHING
    error: str = ""
    called_off: bool = False
    shadow: bool = False


class _Totals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="totals", gc=False):
    """`mmd.journal.records.Totals` with its actions encoded already."""

    seq: int
    at: int
    told: Sequence[Told] = ()
    valued: tuple[str, ...] | None = None
    digest: str
    actions: msgspec.Raw = NOTHING


def encode_batch(
    seq: int,
    at: int,
    key: str,
    events: Sequence[Mail],
    actions: Sequence[Decision],
    *,
    shadow: bool,
    error: str,
    called_off: bool,
) -> bytes:
    """A machine handled these events at `at` (Unix ns) and returned these actions."""
    if actions:
        encoded = encode(actions)
        raw, hashed = msgspec.Raw(encoded), digest(encoded)
    else:
        raw, hashed = NOTHING, NO_ACTIONS
    return encode(
        _Batch(
            seq=seq,
            at=at,
            key=key,
            events=events,
            digest=hashed,
            actions=raw,
            error=error,
            called_off=called_off,
            shadow=shadow,
        )
    )


def encode_totals(
    seq: int, at: int, told: Sequence[Told], valued: tuple[str, ...] | None, actions: Sequence[PortfolioAction]
) -> bytes:
    """The portfolio machine was told these events, then the value of these symbols."""
    encoded = encode(actions)
    raw = msgspec.Raw(encoded) if actions else NOTHING
    return encode(_Totals(seq=seq, at=at, told=told or (), valued=valued, digest=digest(encoded), actions=raw))
