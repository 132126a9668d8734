"""The judge's own test: a daemon with a bug planted in it does not get through the interleavings.

Each bug is one that was made somewhere: in other bots, or in an earlier state of this one.
"""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from weather_races import RACES
from world import MOODS, SETUPS, STEPS, perform, play

from mmd.core import gate, machine, orders, own, pnl, symbol, totals, tracker
from mmd.core.orders import EMPTY, Amending, Live, Unknown
from mmd.domain.events import OrderAbsent, OrderClosed
from mmd.domain.reasons import State
from mmd.shell import outbox, prover, roster
from mmd.shell import totals as shell_totals

Patch = pytest.MonkeyPatch
CASES = 1_500


def story(seed: int) -> tuple[str, list[tuple[str, int, int]], int]:
    """As hypothesis draws them, and always the same."""
    draw = random.Random(seed)
    names = STEPS[draw.choice(sorted(MOODS))]
    steps = [(draw.choice(names), draw.randrange(100), draw.randrange(100)) for _ in range(draw.randrange(20, 60))]
    return sorted(SETUPS)[seed % len(SETUPS)], steps, draw.randrange(4)


def objection() -> str:
    """What the judge said, and where; empty if it never objected."""
    for race, setup in RACES.items():
        try:
            perform(setup, race)
        except AssertionError as wrong:
            return f"{race.__name__}: {wrong}"
    for seed in range(CASES):
        try:
            play(*story(seed))
        except AssertionError as wrong:
            return f"case {seed}: {wrong}"
    return ""


# --- the bugs ------------------------------------------------------------------------------------


def in_flight_is_free(patch: Patch) -> None:
    """Only what rests for sure is charged."""

    def worst_lots(slot: Any) -> int:
        return slot.total_lots - slot.filled_lots if isinstance(slot, Live) else 0

    patch.setattr(own, "worst_lots", worst_lots)
    patch.setattr(symbol, "worst_lots", worst_lots)


def amend_is_charged_as_asked(patch: Patch) -> None:
    """While an amend is under way only its new total counts."""
    before = orders.worst_lots

    def worst_lots(slot: Any) -> int:
        return slot.to_total_lots - slot.filled_lots if isinstance(slot, Amending) else before(slot)

    patch.setattr(own, "worst_lots", worst_lots)
    patch.setattr(symbol, "worst_lots", worst_lots)


def trades_are_counted_twice(patch: Patch) -> None:
    before = pnl.Position.fill

    def fill(self: pnl.Position, event: Any, reference: float) -> Any:
        self._seen.clear()
        return before(self, event, reference)

    patch.setattr(pnl.Position, "fill", fill)


def absent_once_is_gone(patch: Patch) -> None:
    before = orders.successor

    def successor(slot: Any, event: Any, now_ns: int, latency_ns: int) -> Any:
        return EMPTY if isinstance(event, OrderAbsent) else before(slot, event, now_ns, latency_ns)

    patch.setattr(orders, "successor", successor)
    patch.setitem(orders.TRANSITIONS, (orders.L, OrderAbsent), (orders.E,))


def silence_is_a_no(patch: Patch) -> None:
    """What was not answered in time was not done, and the side is free for the next order."""
    before = own.OwnOrders.put

    def put(self: Any, state: Any, slot: Any, now_ns: int) -> None:
        before(self, state, EMPTY if isinstance(slot, Unknown) else slot, now_ns)

    patch.setattr(own.OwnOrders, "put", put)


def room_moves_before_it_is_acknowledged(patch: Patch) -> None:
    patch.setattr(totals.Share, "worst_lots", property(lambda self: max(self.granted, abs(self.lots))))


def bounds_are_acknowledged_unread(patch: Patch) -> None:
    patch.setattr(machine.SymbolMachine, "_inside_bounds", lambda self: True)


def a_halt_leaves_the_gate_open(patch: Patch) -> None:
    decide, exposure = machine.SymbolMachine._decide, symbol.SymbolState.exposure

    def decide_as_if_active(self: Any, now_ns: int) -> None:
        halted = self.state is State.HALTED and self.closing is None
        if halted:
            self.state = State.ACTIVE
        decide(self, now_ns)
        if halted and self.state is State.ACTIVE:
            self.state = State.HALTED

    def exposed(self: Any, order: Any) -> Any:
        found = exposure(self, order)
        return msgspec.structs.replace(found, state=State.ACTIVE) if found.state is State.HALTED else found

    patch.setattr(machine.SymbolMachine, "_decide", decide_as_if_active)
    patch.setattr(symbol.SymbolState, "exposure", exposed)


def a_halt_does_not_recall(patch: Patch) -> None:
    """What was approved before the halt, in the same turn, leaves after it."""
    patch.setattr(outbox.Outbox, "recall", lambda self, worker, now_ns: None)


def closed_is_closed(patch: Patch) -> None:
    """The end of an order is believed although it tells of fills that nobody has seen."""
    patch.setattr(orders, "closed", lambda slot, event, now_ns: EMPTY)


def the_end_told_twice_is_believed(patch: Patch) -> None:
    before = orders.closed

    def closed(slot: Any, event: OrderClosed, now_ns: int) -> Any:
        if isinstance(slot, Unknown) and slot.absent >= 1 and now_ns - slot.since_ns >= 2_000_000_000:
            return EMPTY
        return before(slot, event, now_ns)

    patch.setattr(orders, "closed", closed)


def not_found_is_gone(patch: Patch) -> None:
    """A cancel that is answered "not found" ends the order, filled or not."""
    before = orders.refused

    def refused(slot: Any, event: Any, now_ns: int) -> Any:
        return EMPTY if event.gone else before(slot, event, now_ns)

    patch.setattr(orders, "refused", refused)
    for phase in (orders.L, orders.A, orders.C):
        patch.setitem(orders.TRANSITIONS, (phase, orders.OrderRefused), (orders.L, orders.U, orders.E))


def the_newest_word_counts(patch: Patch) -> None:
    """Whatever is said last of an order is believed, however old it is."""

    def acknowledged(slot: Any, event: Any, now_ns: int, latency_ns: int) -> Any:
        if isinstance(slot, orders.Cancelling):
            return slot
        return orders.live_from(slot, event, now_ns)

    patch.setattr(orders, "acknowledged", acknowledged)


def forgotten_orders_do_not_fill(patch: Patch) -> None:
    before = tracker.Tracker.on_filled

    def on_filled(self: Any, event: Any, now_ns: int) -> None:
        if self.own.find(event.label) is not None:
            before(self, event, now_ns)

    patch.setattr(tracker.Tracker, "on_filled", on_filled)
    patch.setitem(machine.HANDLERS, machine.ev.OrderFilled, on_filled)


def open_orders_are_not_counted(patch: Patch) -> None:
    patch.setattr(outbox.Outbox, "_fullest", lambda self, worker: (0, 1, "max_open_orders"))


def position_is_not_limited(patch: Patch) -> None:
    patch.setattr(gate, "check_position", lambda side, lots, exposure: None)
    patch.setattr(symbol.SymbolState, "bounds", lambda self: (-(10**6), 10**6))


def rebates_are_fees(patch: Patch) -> None:
    before = pnl.Position.fill

    def fill(self: pnl.Position, event: Any, reference: float) -> Any:
        return before(self, msgspec.structs.replace(event, fee=abs(event.fee)), reference)

    patch.setattr(pnl.Position, "fill", fill)


def labels_begin_anew(patch: Patch) -> None:
    """A symbol that comes back uses the labels of its first life."""
    patch.setattr(roster, "base36", lambda value: "0")


def proof_without_asking(patch: Patch) -> None:
    async def prove(self: Any, waiting: list[Any]) -> None:
        for worker in waiting:
            worker.proven = True

    patch.setattr(prover.Prover, "prove", prove)


def a_reset_adopts_whatever_was_reported(patch: Patch) -> None:
    """Although fills have come since, which the report may have counted."""
    before = machine.SymbolMachine.on_reset

    def on_reset(self: Any, event: Any, now_ns: int) -> None:
        self.reported_fills = self.position.fills
        before(self, event, now_ns)

    patch.setitem(machine.HANDLERS, machine.ev.ResetRequested, on_reset)


def a_no_is_to_the_last_request(patch: Patch) -> None:
    """Although an earlier one was never answered."""
    before = own.OwnOrders.take

    def take(self: Any, event: Any, label: str, now_ns: int) -> Any:
        for state in self.every():
            state.owed = 0
        return before(self, event, label, now_ns)

    patch.setattr(own.OwnOrders, "take", take)


def an_unknown_position_is_none(patch: Patch) -> None:
    """A symbol that leaves before it knew its position leaves nothing behind in the totals."""

    leave = shell_totals.Treasury.leave

    def forgetful(self: Any, worker: Any) -> None:
        if not worker.machine.position.known:
            self.machine.shares[worker.key].lots = 0
        leave(self, worker)

    patch.setattr(shell_totals.Treasury, "leave", forgetful)


BUGS: tuple[Callable[[Patch], None], ...] = (
    in_flight_is_free,
    amend_is_charged_as_asked,
    trades_are_counted_twice,
    absent_once_is_gone,
    silence_is_a_no,
    room_moves_before_it_is_acknowledged,
    bounds_are_acknowledged_unread,
    a_halt_leaves_the_gate_open,
    a_halt_does_not_recall,
    closed_is_closed,
    the_end_told_twice_is_believed,
    not_found_is_gone,
    the_newest_word_counts,
    forgotten_orders_do_not_fill,
    open_orders_are_not_counted,
    position_is_not_limited,
    rebates_are_fees,
    labels_begin_anew,
    proof_without_asking,
    a_reset_adopts_whatever_was_reported,
    a_no_is_to_the_last_request,
    an_unknown_position_is_none,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_judge_objects(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    said = objection()
    assert said, f"{len(RACES)} races and {CASES} cases without an objection"
    print(said.splitlines()[0])
