"""Bugs to plant in the daemon, each one that was made somewhere: the judges must object to every one of them.

`python -m tests.simulation --planted all` says after how many seeds each was caught.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sim_planted_derive
from msgspec.structs import replace
from pytest import MonkeyPatch
from sim_ground import SECRET_VARIABLE

from mmd.core import gate, machine, orders, own, pnl, symbol, tracker
from mmd.core.orders import EMPTY, Cancelling, Live, Unknown
from mmd.domain import events as ev
from mmd.domain.reasons import State
from mmd.exchanges.deribit import session
from mmd.exchanges.session import RpcExchange
from mmd.journal import writer
from mmd.shell import daemon, prover, pump, register, totals

Plant = Callable[[MonkeyPatch], None]


def in_flight_is_free(patch: MonkeyPatch) -> None:
    """The gate forgets orders in flight: only what rests for sure is charged."""

    def worst_lots(slot: Any) -> int:
        return slot.total_lots - slot.filled_lots if isinstance(slot, Live) else 0

    patch.setattr(own, "worst_lots", worst_lots)
    patch.setattr(symbol, "worst_lots", worst_lots)


def trades_are_counted_twice(patch: MonkeyPatch) -> None:
    """No check for duplicates."""
    before = pnl.Position.fill

    def fill(self: pnl.Position, event: Any, reference: float) -> Any:
        self._seen.clear()
        return before(self, event, reference)

    patch.setattr(pnl.Position, "fill", fill)


def a_cancel_is_not_waited_for(patch: MonkeyPatch) -> None:
    """The side is free as soon as the cancel was sent."""
    before = own.OwnOrders.put

    def put(self: Any, state: Any, slot: Any, now_ns: int) -> None:
        before(self, state, EMPTY if isinstance(slot, Cancelling) else slot, now_ns)

    patch.setattr(own.OwnOrders, "put", put)


def act_before_write(patch: MonkeyPatch) -> None:
    """Bytes leave first, and the journal has them afterwards."""
    commit, deliver = pump.Pump._commit, pump.Pump.deliver

    async def delivered(self: pump.Pump) -> None:
        await deliver(self)
        commit(self)

    patch.setattr(pump.Pump, "_commit", lambda self: True)
    patch.setattr(pump.Pump, "deliver", delivered)


def the_journal_waits(patch: MonkeyPatch) -> None:
    """What was decided is written every tenth time."""
    before, turns = writer.Journal.commit, itertools.count()

    def commit(self: writer.Journal) -> None:
        if next(turns) % 10 == 0:
            before(self)

    patch.setattr(writer.Journal, "commit", commit)


def silence_is_a_no(patch: MonkeyPatch) -> None:
    """What was not answered in time was not done, and the side is free for the next order."""
    before = own.OwnOrders.put

    def put(self: Any, state: Any, slot: Any, now_ns: int) -> None:
        before(self, state, EMPTY if isinstance(slot, Unknown) else slot, now_ns)

    patch.setattr(own.OwnOrders, "put", put)


def late_requests_are_taken(patch: MonkeyPatch) -> None:
    """Orders do not say until when they may be taken."""
    before = session.Deribit.__init__

    def made(self: Any, **how: Any) -> None:
        before(self, **{**how, "order_valid_ms": None})

    patch.setattr(session.Deribit, "__init__", made)


def a_halt_leaves_the_gate_open(patch: MonkeyPatch) -> None:
    decide, check = machine.SymbolMachine._decide, gate.check_order

    def decide_as_if_active(self: Any, now_ns: int) -> None:
        halted = self.state is State.HALTED and self.closing is None
        if halted:
            self.state = State.ACTIVE
        decide(self, now_ns)
        if halted and self.state is State.ACTIVE:
            self.state = State.HALTED

    def checked(order: Any, exposure: Any, room: Any) -> Any:
        refused = check(order, exposure, room)
        return None if refused is not None and refused.rule is gate.Rule.STATE else refused

    patch.setattr(machine.SymbolMachine, "_decide", decide_as_if_active)
    patch.setattr(gate, "check_order", checked)


def not_found_is_gone(patch: MonkeyPatch) -> None:
    """A cancel that is answered "not found" ends the order, filled or not."""
    before = orders.refused

    def refused(slot: Any, event: Any, now_ns: int) -> Any:
        return EMPTY if event.gone else before(slot, event, now_ns)

    patch.setattr(orders, "refused", refused)
    for phase in (orders.L, orders.A, orders.C):
        patch.setitem(orders.TRANSITIONS, (phase, ev.OrderRefused), (orders.L, orders.U, orders.E))


def forgotten_orders_do_not_fill(patch: MonkeyPatch) -> None:
    """Fills count for orders that a slot has, and for no others."""
    before = tracker.Tracker.on_filled

    def on_filled(self: Any, event: Any, now_ns: int) -> None:
        if self.own.find(event.label) is not None:
            before(self, event, now_ns)

    patch.setitem(machine.HANDLERS, ev.OrderFilled, on_filled)


def position_is_not_limited(patch: MonkeyPatch) -> None:
    patch.setattr(gate, "check_position", lambda side, lots, exposure: None)
    patch.setattr(symbol.SymbolState, "bounds", lambda self: (-(10**6), 10**6))


def proof_without_asking(patch: MonkeyPatch) -> None:
    """A halt is shown as proven at once."""

    async def prove(self: Any, waiting: list[Any]) -> bool:
        for worker in waiting:
            worker.proven = True
        return False

    patch.setattr(prover.Prover, "prove", prove)


def halts_are_forgotten(patch: MonkeyPatch) -> None:
    """A restart is as good as a reset."""
    patch.setattr(register.HaltRegister, "restore", lambda self, workers: None)


def a_stop_just_ends(patch: MonkeyPatch) -> None:
    """Nothing is pulled, nobody is asked."""

    async def drain(self: daemon.Daemon) -> daemon.Farewell:
        return daemon.Farewell(dict.fromkeys(self.wired, 0))

    patch.setattr(daemon.Daemon, "_drain", drain)


def leftovers_are_left(patch: MonkeyPatch) -> None:
    """Orders of the process before are neither taken over nor pulled."""
    before = own.OwnOrders.reported

    def reported(self: Any, event: Any, now_ns: int) -> list[str]:
        known = tuple(order for order in event.orders if self.find(order.label) is not None)
        return before(self, ev.OrdersReported(known, event.received_ns), now_ns)

    patch.setattr(own.OwnOrders, "reported", reported)
    patch.setattr(own.OwnOrders, "inherit", lambda self, state, now_ns: None)


def fills_of_the_dead_time_are_lost(patch: MonkeyPatch) -> None:
    """After a restart the exchange is asked for fills since now."""
    patch.setattr(RpcExchange, "known_until", lambda *known, **more: None)


def a_lowered_limit_is_ignored(patch: MonkeyPatch) -> None:
    """A symbol's, and the totals."""
    before = machine.SymbolMachine.on_settings

    def on_settings(self: Any, event: Any, now_ns: int) -> None:
        most = max(self.settings.limits.max_position, event.settings.limits.max_position)
        limits = replace(event.settings.limits, max_position=most)
        before(self, ev.SettingsChanged(replace(event.settings, limits=limits), event.received_ns), now_ns)

    def change_limits(self: Any, limits: Any, *others: Any) -> None:
        old = self.machine.limits
        coins = {coin: max(most, old.max_exposure.get(coin, most)) for coin, most in limits.max_exposure.items()}
        usd = max(limits.max_notional_usd, old.max_notional_usd)
        lowered(self, replace(limits, max_exposure=coins, max_notional_usd=usd), *others)

    lowered = totals.Treasury.change_limits
    patch.setitem(machine.HANDLERS, ev.SettingsChanged, on_settings)
    patch.setattr(totals.Treasury, "change_limits", change_limits)


def the_chain_stands_still(patch: MonkeyPatch) -> None:
    """Every line hashes the same predecessor."""
    patch.setattr(writer, "link", lambda head, body, link=writer.link: link("", body))


def a_machine_looks_elsewhere(patch: MonkeyPatch) -> None:
    """A decision depends on something that is not in the journal."""
    before, turns = machine.SymbolMachine._quote, itertools.count()

    def quote(self: Any, now_ns: int) -> None:
        if next(turns) % 7:
            before(self, now_ns)

    patch.setattr(machine.SymbolMachine, "_quote", quote)


def the_secret_is_noted(patch: MonkeyPatch) -> None:
    before = daemon.Daemon._committed

    def committed(self: daemon.Daemon) -> None:
        secret = os.environ[SECRET_VARIABLE]
        self.diary.note("credentials.read", f"logged in with {secret}")
        before(self)

    patch.setattr(daemon.Daemon, "_committed", committed)


def waiting_for_ever(patch: MonkeyPatch) -> None:
    """Nobody asks again about an order whose answer was lost."""
    patch.setattr(tracker.Tracker, "_overdue", lambda self, now_ns: None)


EVERYWHERE: tuple[Plant, ...] = (
    in_flight_is_free,
    trades_are_counted_twice,
    a_cancel_is_not_waited_for,
    act_before_write,
    the_journal_waits,
    silence_is_a_no,
    a_halt_leaves_the_gate_open,
    not_found_is_gone,
    forgotten_orders_do_not_fill,
    position_is_not_limited,
    proof_without_asking,
    halts_are_forgotten,
    a_stop_just_ends,
    leftovers_are_left,
    fills_of_the_dead_time_are_lost,
    a_lowered_limit_is_ignored,
    the_chain_stands_still,
    a_machine_looks_elsewhere,
    the_secret_is_noted,
    waiting_for_ever,
)
ONLY: dict[str, tuple[Plant, ...]] = {"deribit": (late_requests_are_taken,), "derive": sim_planted_derive.BUGS}
"""In one exchange's room."""


def bugs_on(exchange: str) -> dict[str, Plant]:
    """Those that can be made there, by name."""
    return {plant.__name__: plant for plant in (*EVERYWHERE, *ONLY[exchange])}


@contextmanager
def planted(exchange: str, name: str) -> Iterator[None]:
    """Within, the daemon has this bug; none for an empty name."""
    with MonkeyPatch.context() as patch:
        if name:
            bugs_on(exchange)[name](patch)
        yield
