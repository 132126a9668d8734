"""One side's order as a state machine: EMPTY, PLACING, LIVE, AMENDING, CANCELLING, UNKNOWN.

One request in flight per slot. UNKNOWN is charged at full exposure and ends only when the
exchange says what became of the label. The table is the law: a pair that is not in it changes
nothing and is reported. `docs/orders.md` prints it.
"""

import msgspec

from mmd.domain.events import (
    GateRefused,
    Mail,
    OpenOrder,
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    RequestLost,
)
from mmd.domain.reasons import Phase


class Empty(msgspec.Struct, frozen=True, gc=False):
    """No order, and no request about one."""

    phase = Phase.EMPTY


class Placing(msgspec.Struct, frozen=True, gc=False):
    """Sent, not answered. Fills may come before the answer."""

    label: str
    price_ticks: int
    total_lots: int
    filled_lots: int
    sent_ns: int
    phase = Phase.PLACING


class Live(msgspec.Struct, frozen=True, gc=False):
    """Resting at the exchange."""

    label: str
    order_id: str
    price_ticks: int
    total_lots: int
    filled_lots: int
    since_ns: int
    phase = Phase.LIVE


class Amending(msgspec.Struct, frozen=True, gc=False):
    """Resting at the old or the new price with the old or the new total."""

    label: str
    order_id: str
    price_ticks: int
    total_lots: int
    filled_lots: int
    to_price_ticks: int
    to_total_lots: int
    sent_ns: int
    phase = Phase.AMENDING


class Cancelling(msgspec.Struct, frozen=True, gc=False):
    label: str
    order_id: str
    price_ticks: int
    total_lots: int
    filled_lots: int
    sent_ns: int
    phase = Phase.CANCELLING


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """An answer, or the fills that an answer spoke of, did not come. Charged for all that it may have been.

    `was`: the phase it came from; `total_lots`: the most that it may have been. `absent`: how often it was
    not there; `seen`: how often it was found as it was before the change to `to_*`. `ended`: it is over, and
    only its fills are missing.
    """

    label: str
    order_id: str
    price_ticks: int
    total_lots: int
    filled_lots: int
    was: Phase
    since_ns: int
    asked_ns: int
    absent: int
    to_price_ticks: int = 0  # where an amend may have moved it; 0 = there was none
    to_total_lots: int = 0
    seen: int = 0
    ended: bool = False
    phase = Phase.UNKNOWN


Slot = Empty | Placing | Live | Amending | Cancelling | Unknown
Occupied = Placing | Live | Amending | Cancelling | Unknown
EMPTY = Empty()

E, P, L, A, C, U = Phase.EMPTY, Phase.PLACING, Phase.LIVE, Phase.AMENDING, Phase.CANCELLING, Phase.UNKNOWN

TRANSITIONS: dict[tuple[Phase, type], tuple[Phase, ...]] = {
    (P, OrderAcked): (L,),
    (P, OrderRefused): (E,),
    (P, GateRefused): (E,),
    (P, OrderClosed): (E, U),  # UNKNOWN where it speaks of fills that we have not seen
    (P, OrderFilled): (P, E),  # the fill overtook the answer
    (P, RequestLost): (U,),
    (L, OrderAcked): (L, U),  # UNKNOWN where it contradicts what we know
    (L, OrderClosed): (E, U),
    (L, OrderFilled): (L, E),
    (L, OrderRefused): (L, U),  # a late no; UNKNOWN where it says that the order is gone
    (L, OrderAbsent): (U,),
    (L, RequestLost): (U,),
    (A, OrderAcked): (L, A),  # AMENDING still where it does not describe what was asked for
    (A, OrderRefused): (L, U),
    (A, GateRefused): (L,),
    (A, OrderClosed): (E, U),
    (A, OrderFilled): (A,),  # the amend may have made it larger: wait for the answer
    (A, RequestLost): (U,),
    (C, OrderAcked): (C,),  # the answer to an earlier request
    (C, OrderClosed): (E, U),
    (C, OrderFilled): (C, E),  # the fill won the race: legal, and common
    (C, OrderRefused): (L, U),
    (C, RequestLost): (U,),
    (U, OrderAcked): (L, U),  # UNKNOWN still where it may be older than a change that is unaccounted for
    (U, OrderClosed): (E, U),
    (U, OrderFilled): (U, E),
    (U, OrderRefused): (E, U),  # a late no to the placing: it never was
    (U, OrderAbsent): (U, E),
    (U, RequestLost): (U,),
}


class IllegalTransition(msgspec.Struct, frozen=True):
    """This event has no meaning in this phase; nothing changed."""

    phase: Phase
    event: str


def worst_lots(slot: Slot) -> int:
    """Lots that this slot may still add to the position."""
    if isinstance(slot, Amending):
        return max(0, slot.total_lots - slot.filled_lots, slot.to_total_lots - slot.filled_lots)
    return 0 if isinstance(slot, Empty) else max(0, slot.total_lots - slot.filled_lots)


def resting_prices(slot: Slot) -> tuple[int, ...]:
    """Prices at which this slot may have an order now."""
    if isinstance(slot, Amending) or (isinstance(slot, Unknown) and slot.to_price_ticks):
        return (slot.price_ticks, slot.to_price_ticks)
    return () if isinstance(slot, Empty) else (slot.price_ticks,)


def lost(slot: Occupied, now_ns: int) -> Unknown:
    """The slot once its answer is overdue or its link is gone."""
    if isinstance(slot, Unknown):
        return slot
    if isinstance(slot, Amending):
        return moved(slot, slot.to_price_ticks, slot.to_total_lots, now_ns)
    order_id = "" if isinstance(slot, Placing) else slot.order_id
    return Unknown(slot.label, order_id, slot.price_ticks, slot.total_lots, slot.filled_lots, slot.phase, now_ns, 0, 0)


def inherited(slot: Occupied, now_ns: int) -> Unknown:
    """The slot of a process that ended, in the next one: the old one's clock may have been ahead."""
    unknown = lost(slot, now_ns)
    return msgspec.structs.replace(
        unknown, since_ns=min(unknown.since_ns, now_ns), asked_ns=min(unknown.asked_ns, now_ns)
    )


def moved(slot: Live | Amending, price_ticks: int, total_lots: int, now_ns: int) -> Unknown:
    """An order that may rest as it did or like this; charged with the larger."""
    total = max(slot.total_lots, total_lots)
    return Unknown(
        slot.label,
        slot.order_id,
        slot.price_ticks,
        total,
        slot.filled_lots,
        slot.phase,
        now_ns,
        0,
        0,
        price_ticks,
        total_lots,
    )


def closed(slot: Occupied, event: OrderClosed, now_ns: int) -> Slot:
    """The slot once the exchange says that the order is over.

    Fills that it speaks of and that we have not counted are still to come: forgetting the order
    now would give their room away twice. They are charged until they are here, however often the
    end is told.
    """
    if event.filled_lots <= slot.filled_lots:
        return EMPTY
    since_ns, asked_ns = (slot.since_ns, slot.asked_ns) if isinstance(slot, Unknown) else (now_ns, 0)
    total, filled, price = event.filled_lots, slot.filled_lots, slot.price_ticks
    return Unknown(slot.label, event.order_id, price, total, filled, Phase.LIVE, since_ns, asked_ns, 1, ended=True)


def live_from(slot: Occupied, event: OrderAcked | OpenOrder, now_ns: int) -> Live:
    """The slot as the exchange just described it.

    Only fills count fills: an answer that is ahead of its trades must not count them twice.
    """
    return Live(slot.label, event.order_id, event.price_ticks, event.total_lots, slot.filled_lots, now_ns)


def is_answer(slot: Amending | Unknown, event: OrderAcked) -> bool:
    """Whether it describes what the amend asked for; else it is late word of an earlier request."""
    return (event.price_ticks, event.total_lots) == (slot.to_price_ticks, slot.to_total_lots)


def acknowledged(slot: Occupied, event: OrderAcked, now_ns: int, latency_ns: int) -> Slot:
    """The slot once the exchange says that the order rests.

    While nothing is in flight there is no news: word of another price or total is older than what
    we know, or of a request that we had given up; which of them, the exchange must say. An amend that is
    unaccounted for may come after the word: only what is said again past the latency is believed. That it is
    larger than we knew is charged at once.
    """
    total = max(slot.total_lots, event.total_lots)
    if isinstance(slot, Cancelling):
        return msgspec.structs.replace(slot, order_id=event.order_id, total_lots=total)
    if isinstance(slot, Amending) and not is_answer(slot, event):
        return slot
    if isinstance(slot, Live) and (event.price_ticks, event.total_lots) != (slot.price_ticks, slot.total_lots):
        return moved(slot, event.price_ticks, event.total_lots, now_ns)
    if isinstance(slot, Unknown) and slot.to_price_ticks and not is_answer(slot, event):
        return doubted(slot, event, now_ns, latency_ns)
    return live_from(slot, event, now_ns)


def doubted(slot: Unknown, event: OrderAcked, now_ns: int, latency_ns: int) -> Slot:
    """The slot after word that may be late: only what is said again past the latency is believed."""
    if slot.seen < 1 or now_ns - slot.since_ns < latency_ns:
        total = max(slot.total_lots, event.total_lots)
        return msgspec.structs.replace(slot, seen=slot.seen + 1, total_lots=total)
    return live_from(slot, event, now_ns)


def advance(slot: Occupied, event: Mail, now_ns: int, latency_ns: int) -> Slot | IllegalTransition:
    """The slot after an event about its own label. Pure; the caller has matched the label.

    `latency_ns`: the exchange's worst latency. A label that is absent twice, the second time at
    least that long after it was lost, is absent.
    """
    allowed = TRANSITIONS.get((slot.phase, type(event)))
    if allowed is None:
        return IllegalTransition(slot.phase, type(event).__name__)
    after = successor(slot, event, now_ns, latency_ns)
    assert after.phase in allowed, f"{slot.phase} x {type(event).__name__} -> {after.phase} is not in the table"
    return after


def successor(slot: Occupied, event: Mail, now_ns: int, latency_ns: int) -> Slot:
    """What `advance` moves to, before the table has its say."""
    match event:
        case OrderAcked():
            return acknowledged(slot, event, now_ns, latency_ns)
        case OrderClosed():
            return closed(slot, event, now_ns)
        case OrderFilled():
            filled = msgspec.structs.replace(slot, filled_lots=slot.filled_lots + event.size_lots)
            done = worst_lots(filled) == 0 and not isinstance(filled, Amending)
            return EMPTY if done else filled
        case OrderRefused():
            return refused(slot, event, now_ns)
        case GateRefused():
            return back_to_live(slot, now_ns) if isinstance(slot, Amending) else EMPTY
        case OrderAbsent():
            unknown = lost(slot, now_ns)
            if unknown.absent >= 1 and now_ns - unknown.since_ns >= latency_ns:
                return EMPTY
            return msgspec.structs.replace(unknown, absent=unknown.absent + 1)
        case RequestLost():
            return lost(slot, now_ns)
        case _:
            raise AssertionError(f"no successor for {type(event).__name__}")


def refused(slot: Occupied, event: OrderRefused, now_ns: int) -> Slot:
    """A definite no to the request in flight."""
    if isinstance(slot, Placing):
        return EMPTY
    if isinstance(slot, Unknown):
        return EMPTY if slot.was is Phase.PLACING and not event.gone else slot
    if event.gone:
        # Gone is not an outcome: it may have filled. Ask, and charge it until then.
        return lost(slot, now_ns)
    return back_to_live(slot, now_ns)


def back_to_live(slot: Occupied, now_ns: int) -> Live:
    """As before the request that was refused."""
    order_id = "" if isinstance(slot, Placing) else slot.order_id
    return Live(slot.label, order_id, slot.price_ticks, slot.total_lots, slot.filled_lots, now_ns)
