"""What a reader of the journal wants to know of a symbol's snapshot, without a replay."""

from mmd.core.orders import Empty
from mmd.domain.events import Bound
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, State
from mmd.journal.context import Inherited, Order
from mmd.replay.memory import CannotLoad, salvage


def peek(state: bytes) -> Inherited | None:
    """As far as it can be read, whatever version wrote it; None where it is not of a symbol, or not readable."""
    try:
        machine, _ = salvage(state)
    except CannotLoad:
        return None
    orders: dict[str, Order] = {}
    for each in machine.own.every():
        slot = each.slot
        if isinstance(slot, Empty):
            continue
        shadow = machine.mode is Mode.SHADOW and slot.label not in machine.own.strays
        stands = (slot.price_ticks, slot.total_lots)
        orders[slot.label] = Order(each.side, *stands, stands, shadow, slot.filled_lots)
    position, imagined = machine.position, machine.imagined
    return Inherited(
        instrument=machine.instrument,
        lots=position.lots if position.known else None,
        pessimistic_lots=imagined.of(Bound.PESSIMISTIC).lots,
        optimistic_lots=imagined.of(Bound.OPTIMISTIC).lots,
        resumed_by=machine.by if machine.state is State.ACTIVE else "",
        orders=orders,
        told=tuple((trade_id, side) for trade_id, sides in position._seen.items() for side in sides),
    )


def instrument_of(state: bytes) -> Instrument | None:
    """Of the symbol whose state it is; None where it is not of a symbol, or not readable."""
    found = peek(state)
    return found.instrument if found is not None else None
