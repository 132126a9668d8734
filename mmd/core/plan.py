"""Wanted against live: the smallest change per side. Widening acts at once, tightening is rate-limited."""

from enum import Enum, auto

from mmd.core.orders import Empty, Live, Slot
from mmd.core.quoting import Quoted, Wanted
from mmd.core.rules import Rules
from mmd.domain.reasons import Side
from mmd.domain.settings import Requote


class Change(Enum):
    """What to do about one side."""

    KEEP = auto()
    PLACE = auto()
    AMEND = auto()
    CANCEL = auto()


def plan_side(
    side: Side,
    wanted: Quoted,
    slot: Slot,
    rules: Rules,
    tolerance_ticks: float,
    changed_ns: int,
    sent_ns: int,
    now_ns: int,
) -> Change:
    """The change for one side now; KEEP while a request is in flight.

    `changed_ns`: when this side last changed in the market; `sent_ns`: when the order that rests was sent, so
    that one that would soon end by itself is renewed, at the wanted price, which it may have already. Within
    `tolerance_ticks` an order stays and keeps its place in the queue, unless it is larger than wanted; on the side of
    the market that is measured from the price before it was rounded, or a fair price that trembles at the edge of a
    wide step would move the order by a whole step each time.
    """
    if not isinstance(slot, Live):
        return Change.PLACE if isinstance(slot, Empty) and isinstance(wanted, Wanted) else Change.KEEP
    if not isinstance(wanted, Wanted):
        return Change.CANCEL
    remaining = slot.total_lots - slot.filled_lots
    away = slot.price_ticks - wanted.price_ticks if side is Side.BID else wanted.price_ticks - slot.price_ticks
    if remaining > wanted.size_lots or away > tolerance_ticks + wanted.rounded_ticks:
        return change(rules)  # too large, or too close to the market: at once
    closer = -away > tolerance_ticks
    # Topping up loses the queue: only once half is gone. An order that nothing was taken from is
    # smaller because the wish has grown (a reload, more room): that is followed.
    small = remaining * 2 < wanted.size_lots or (slot.filled_lots == 0 and remaining < wanted.size_lots)
    if (closer or small) and now_ns - changed_ns >= rules.refresh_ns:
        return change(rules)
    if rules.renew_ns and now_ns - sent_ns >= rules.renew_ns:
        return change(rules)
    return Change.KEEP


def change(rules: Rules) -> Change:
    """Amend where the profile allows; else cancel, and place when it is known gone."""
    return Change.AMEND if rules.requote is Requote.AMEND else Change.CANCEL
