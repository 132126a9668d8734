"""From a wanted quote to requests: smallest change per side, never two orders, never against ourselves."""

import msgspec

from mmd.core import quoting
from mmd.core.orders import Amending, Cancelling, Live, Placing, Unknown, lost, resting_prices
from mmd.core.own import InFlight, SideState
from mmd.core.plan import Change, plan_side
from mmd.core.quoting import Wanted, Withheld
from mmd.core.rules import NS, Rules
from mmd.core.states import Stateful
from mmd.domain.actions import AmendOrder, CancelOrder, Noted, PlaceOrder, QueryOrder, QueryState, SetTimer
from mmd.domain.ids import base36
from mmd.domain.reasons import MARKET_DATA_REASONS, Missing, Side, State, Switch, Why


class Quoter(Stateful):
    """The part of the machine that makes requests. It decides nothing about states."""

    def _ask_state(self, now_ns: int) -> None:
        self.state_asked_ns = now_ns
        self._out.append(QueryState())

    def _state_due(self) -> int:
        """When to ask again for orders and position; 0 = they are known, or there is nobody to ask."""
        if (self.reconciled and self.position.known and self.drift is None) or not self.market.trade_link:
            return 0
        return self.state_asked_ns + self.rules.unknown_timeout_ns

    def _overdue(self, now_ns: int) -> None:
        """Requests whose answer did not come become UNKNOWN; UNKNOWN ones are asked about."""
        timeout_ns = self.rules.ack_timeout_ns
        state_due_ns = self._state_due()
        if state_due_ns and now_ns >= state_due_ns:
            self._ask_state(now_ns)
        for state in self.own.every():
            slot = state.slot
            if isinstance(slot, Live):
                continue
            if isinstance(slot, InFlight) and now_ns - slot.sent_ns >= timeout_ns:
                slot = lost(slot, now_ns)
                self.own.put(state, slot, now_ns)
                state.owed += 1
                self._out.append(Noted("order.unknown", f"{slot.label}: no answer to {slot.was}"))
                self._count_timeout(now_ns)
            if isinstance(slot, Unknown) and self.market.trade_link and now_ns - slot.asked_ns >= timeout_ns:
                self.own.put(state, msgspec.structs.replace(slot, asked_ns=now_ns), now_ns)
                self._out.append(QueryOrder(slot.label, slot.order_id))

    def _count_timeout(self, now_ns: int) -> None:
        self.timeouts.add(now_ns)
        rules, count = self.rules, self.timeouts.count(now_ns)
        if count > rules.max_ack_timeouts:
            found = f"{count} answers overdue in {rules.ack_window_ns / NS:g} s, allowed {rules.max_ack_timeouts}"
            self._trip(Switch.ACK_TIMEOUT, Why.ACK_TIMEOUT, found, now_ns)

    def _quote(self, now_ns: int) -> None:
        view = self.view()
        wanted = quoting.quote(view, self.rules)
        own = self.own
        if own.strays:
            wanted = quoting.both(Missing.STRAY_ORDER)
        elif self.drift is not None or not self.position.known:
            wanted = quoting.both(Missing.POSITION_UNKNOWN)
        elif not self.rules.allowed:
            wanted = quoting.both(Missing.NOT_ALLOWED)
        bid, ask = own.bid, own.ask
        old = bid.wanted
        bid.wanted, ask.wanted = wanted.bid, wanted.ask
        fair = view.fair
        tolerance = fair * self.rules.tolerance_bps * 1e-4 if isinstance(fair, float) else 0.0
        # Moving up, the ask makes way for the bid; moving down, the bid for the ask.
        new = wanted.bid
        rising = isinstance(old, Wanted) and isinstance(new, Wanted) and new.price_ticks > old.price_ticks
        for state in (ask, bid) if rising else (bid, ask):
            self._side(state, tolerance, now_ns)

    def _as_wanted(self, state: SideState) -> bool:
        """This side rests as it was last wanted, and nothing can have waited for it to do so."""
        own, wanted, slot = self.own, state.wanted, state.slot
        if not (isinstance(wanted, Wanted) and isinstance(slot, Live)) or own.strays:
            return False
        if slot.price_ticks != wanted.price_ticks or slot.total_lots - slot.filled_lots != wanted.size_lots:
            return False
        other = own.ask if state.side is Side.BID else own.bid
        return isinstance(other.wanted, Wanted) and self.bounds_acked == self.bounds_version

    def _side(self, state: SideState, tolerance: float, now_ns: int) -> None:
        wanted, slot = state.wanted, state.slot
        change = plan_side(state.side, wanted, slot, self.rules, tolerance, state.changed_ns, state.sent_ns, now_ns)
        if change is Change.KEEP:
            return
        if change is Change.CANCEL:
            self._pull(state, now_ns)
            return
        assert isinstance(wanted, Wanted)
        if state.hold_ns > now_ns:
            if change is Change.AMEND and self._too_close(state, wanted):
                self._pull(state, now_ns)
            state.wanted = Withheld(Missing.REFUSED)
            return
        if self._crosses_own(state, wanted):
            state.wanted = Withheld(Missing.SELF_CROSS)
            if isinstance(slot, Live) and self._too_close(state, wanted):
                self._pull(state, now_ns)
            return
        if change is Change.PLACE:
            self._place(state, wanted, now_ns)
        elif isinstance(slot, Live):
            total = slot.filled_lots + wanted.size_lots
            self.own.put(
                state,
                Amending(
                    slot.label,
                    slot.order_id,
                    slot.price_ticks,
                    slot.total_lots,
                    slot.filled_lots,
                    wanted.price_ticks,
                    total,
                    now_ns,
                ),
                now_ns,
            )
            self._out.append(
                AmendOrder(slot.label, slot.order_id, state.side, wanted.price_ticks, total, wanted.size_lots)
            )

    def _place(self, state: SideState, wanted: Wanted, now_ns: int) -> None:
        self._orders_made += 1
        side = "b" if state.side is Side.BID else "a"
        label = f"{self._label_prefix}{side}-{self.epoch}-{base36(self._orders_made)}"
        self.own.put(state, Placing(label, wanted.price_ticks, wanted.size_lots, 0, now_ns), now_ns)
        self._out.append(PlaceOrder(label, state.side, wanted.price_ticks, wanted.size_lots))

    def _too_close(self, state: SideState, wanted: Wanted) -> bool:
        """The live order is nearer to the market, or larger, than we want it."""
        slot = state.slot
        if not isinstance(slot, Live):
            return False
        if slot.total_lots - slot.filled_lots > wanted.size_lots:
            return True
        if state.side is Side.BID:
            return slot.price_ticks > wanted.price_ticks
        return slot.price_ticks < wanted.price_ticks

    def _crosses_own(self, state: SideState, wanted: Wanted) -> bool:
        """It would meet our own order on the other side before that one has moved."""
        price = wanted.price_ticks
        if state.side is Side.BID:
            slot = self.own.ask.slot
            if isinstance(slot, Live):
                return price >= slot.price_ticks
            return price >= min(resting_prices(slot), default=price + 1)
        slot = self.own.bid.slot
        if isinstance(slot, Live):
            return price <= slot.price_ticks
        return price <= max(resting_prices(slot), default=price - 1)

    def _pull(self, state: SideState, now_ns: int) -> None:
        """Cancel what rests; what is in flight or unknown is pulled when its answer is there."""
        slot = state.slot
        if not isinstance(slot, Live) or state.hold_cancel_ns > now_ns or not self.market.trade_link:
            return
        state.cancel_tries += 1
        if state.cancel_tries >= self.rules.max_cancel_tries:  # not for ever at this pace: now and then
            state.hold_cancel_ns = now_ns + self.rules.unknown_timeout_ns
        after = Cancelling(slot.label, slot.order_id, slot.price_ticks, slot.total_lots, slot.filled_lots, now_ns)
        self.own.put(state, after, now_ns)
        self._out.append(CancelOrder(slot.label, slot.order_id, state.side))

    def _arm_timer(self, now_ns: int) -> None:
        """Ask to be woken when something falls due; an early wake-up costs little, a late one quotes."""
        due = self._next_due(now_ns)
        if due and (not self.timer_ns or due < self.timer_ns or self.timer_ns <= now_ns):
            self.timer_ns = due
            self._out.append(SetTimer(due))

    def _next_due(self, now_ns: int) -> int:
        rules, own = self.rules, self.own
        due = 0
        if self.state is State.ACTIVE:
            due = self.market.stale_at_ns(rules)
        elif self.state is State.PAUSED and rules.auto_resume and self.why in MARKET_DATA_REASONS:
            due = now_ns + min(NS, rules.auto_resume_ns)
        elif self.state is State.DRAINING:
            due = now_ns + NS
        state_due_ns = self._state_due()
        if state_due_ns and (not due or state_due_ns < due):
            due = state_due_ns
        expiry_ns = self.instrument.expiry_ns
        if expiry_ns and expiry_ns > now_ns:
            due = min(due, expiry_ns) if due else expiry_ns
        for state in own.every():
            at_ns = side_due(state, rules, now_ns)
            if isinstance(state.slot, Unknown):
                deadline_ns = state.slot.since_ns + rules.unknown_timeout_ns
                if not self.market.trade_link:
                    at_ns = 0  # nobody to ask: the link's return wakes us
                elif now_ns < deadline_ns < at_ns:
                    at_ns = deadline_ns
            if state.hold_ns > now_ns:
                at_ns = min(at_ns, state.hold_ns) if at_ns else state.hold_ns
            if not at_ns and self._pending(state):
                # Once the interval is over a difference is one that the plan tolerates.
                refresh_ns = state.changed_ns + rules.refresh_ns
                at_ns = refresh_ns if refresh_ns > now_ns else 0
            if at_ns and (not due or at_ns < due):
                due = at_ns
        return due

    def _pending(self, state: SideState) -> bool:
        """A tightening or a top-up may wait for the refresh interval."""
        wanted, slot = state.wanted, state.slot
        if not (isinstance(wanted, Wanted) and isinstance(slot, Live)):
            return False
        return (wanted.price_ticks, wanted.size_lots) != (slot.price_ticks, slot.total_lots - slot.filled_lots)


def side_due(state: SideState, rules: Rules, now_ns: int) -> int:
    """When this side's slot wants to be looked at; 0 = when something happens."""
    slot, timeout_ns = state.slot, rules.ack_timeout_ns
    if isinstance(slot, Amending):
        return slot.sent_ns + timeout_ns
    if isinstance(slot, Live):
        if state.hold_cancel_ns > now_ns:
            return state.hold_cancel_ns
        renew_ns = state.sent_ns + rules.renew_ns if rules.renew_ns else 0
        return renew_ns if renew_ns > now_ns else 0
    if isinstance(slot, InFlight):
        return slot.sent_ns + timeout_ns
    if isinstance(slot, Unknown):
        return max(now_ns + 1, slot.asked_ns + timeout_ns)
    return 0
