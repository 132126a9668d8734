"""What became of our orders, and what we hold: kept up in every state, whatever else is wrong."""

from decimal import Decimal
from typing import Any

import msgspec

from mmd.core.closer import Closer
from mmd.core.orders import Amending, Cancelling, Live, Unknown
from mmd.core.own import SideState, id_of
from mmd.core.pnl import Fold
from mmd.core.quoting import Withheld
from mmd.core.rules import NS
from mmd.core.symbol import VANISHED_NS
from mmd.domain import events as ev
from mmd.domain.actions import Noted
from mmd.domain.ids import parse_label
from mmd.domain.reasons import Fault, Missing, Mode, Rule, State, Switch, Why

MS = 1_000_000
# Seconds without a new order on a side after a refusal, by its class; doubled each time, at most MAX_HOLD.
HOLD_SECONDS = {Fault.ORDER: 0.25, Fault.RATE_LIMIT: 2.0, Fault.MARKET: 5.0, Fault.RETRY: 1.0, Fault.STATE: 0.25}
DEFAULT_HOLD_SECONDS = 1.0
MAX_HOLD_SECONDS = 5.0
GATE_HOLD_NS = NS
BUDGET_HOLD_NS = NS // 5
# As many of our orders may be cancelled by somebody else within VANISHED_NS; more are a second daemon's work.
VANISHED_MAX = 4
BRIEF = (Rule.BUDGET, Rule.MESSAGE_RATE)  # refusals that a moment cures


class Tracker(Closer):
    """The part of the machine that hears from the exchange about us."""

    # --- orders ----------------------------------------------------------------------------------

    def _order_event(self, event: Any, now_ns: int) -> bool:
        """Move the slot with this label; True if there was one and the event made sense."""
        self._dirty = True
        found = self.own.find(event.label, id_of(event)) is not None
        illegal = self.own.take(event, event.label, now_ns)
        if illegal is not None:
            self._out.append(Noted("order.unexpected", f"{illegal.event} while {illegal.phase}: {event.label}"))
            return False
        return found

    def on_acked(self, event: ev.OrderAcked, now_ns: int) -> None:
        state = self.own.find(event.label, event.order_id)
        if state is not None:
            state.failures = 0
            state.told = None
            waiting = self._dirty
            self._order_event(event, now_ns)
            if not waiting and self._as_wanted(state):
                self._dirty = False  # the answer that was expected: the same decision would come out
        elif event.remaining_lots > 0 and self.own.is_news(event):
            label = parse_label(event.label)
            if label is None:
                return
            self.own.adopt(event, label.side, now_ns, self.position.filled_by(event.label))
            self._out.append(Noted("order.stray", f"{event.label} was given up and rests after all: cancelling"))
            self._dirty = True
            self._judge_foreign([event.label], now_ns)

    def _judge_foreign(self, labels: list[str], now_ns: int) -> None:
        """Strays of another life, once the leftovers of earlier ones are known: somebody else uses our name.

        So does, at any time, who placed one of two orders with one label.
        """
        doubled = sorted({label for label in labels if self.own.is_doubled(label)})
        if doubled:
            detail = f"{', '.join(doubled)}: an order rests with this label that this daemon did not place"
            self._trip(Switch.FOREIGN_ORDERS, Why.FOREIGN_ORDERS, detail, now_ns)
        if not self.orders_seen:
            return
        foreign = [label for label in labels if not self._is_ours(label)]
        if foreign:
            detail = f"{', '.join(foreign)}: not placed by this daemon"
            self._trip(Switch.FOREIGN_ORDERS, Why.FOREIGN_ORDERS, detail, now_ns)

    def _is_ours(self, label: str) -> bool:
        """Placed by this machine, or inherited: its fills are told to us."""
        parsed = parse_label(label)
        return label in self.heirlooms or (parsed is not None and parsed.epoch == self.epoch)

    def on_refused(self, event: ev.OrderRefused, now_ns: int) -> None:
        state = self.own.find(event.label)
        if state is None:
            return
        cancelling = isinstance(state.slot, Cancelling)
        self._order_event(event, now_ns)
        text = f"{event.label}: {event.code} {event.detail}".rstrip()
        seconds = HOLD_SECONDS.get(event.fault, DEFAULT_HOLD_SECONDS)
        hold_ns = int(min(MAX_HOLD_SECONDS, seconds * 2 ** min(state.failures, 10)) * NS)
        state.failures += 1
        if cancelling:
            tries, most = state.cancel_tries, self.rules.max_cancel_tries
            if tries in (1, most):  # not at every try
                self._out.append(Noted("order.cancel_refused", f"{text}, try {tries} of {most}"))
            state.hold_cancel_ns = max(state.hold_cancel_ns, now_ns + min(hold_ns, NS))
            return
        self._out.append(Noted("order.refused", text))
        state.hold(now_ns + hold_ns, f"exchange refused: {event.code} {event.detail}".rstrip())
        self.rejects.add(now_ns)
        recent = self.rejects.count(now_ns)
        if recent > self.rules.max_rejects:
            found = f"{recent} refusals in {self.rules.reject_window_ns / NS:g} s, allowed {self.rules.max_rejects}"
            self._trip(Switch.REJECTION_STORM, Why.REJECTION_STORM, found, now_ns)
        elif event.fault in (Fault.CONFIG, Fault.AUTH) and self.state is State.ACTIVE:
            self._move(State.PAUSED, Why.ORDERS_REFUSED, f"{event.code} {event.detail}".rstrip(), "mmd", now_ns)

    def on_closed(self, event: ev.OrderClosed, now_ns: int) -> None:
        state = self.own.find(event.label, event.order_id)
        closing = self.closing is not None and self.closing.label == event.label
        if state is not None and not closing and isinstance(state.slot, Live | Amending):
            self._count_vanished(event, state, now_ns)
        if state is not None and not closing and event.cause not in ("filled", "user_request", "cancelled"):
            self._out.append(Noted("order.closed", f"{event.label}: {event.cause}"))
            # The exchange pulled it: not at once again, whatever the cause.
            state.hold(now_ns + GATE_HOLD_NS // 4, f"exchange closed it: {event.cause}")
        self._order_event(event, now_ns)
        if state is not None and state.label in self.own.strays:
            self._end_of_another_life(state, now_ns)

    def _end_of_another_life(self, state: SideState, now_ns: int) -> None:
        """What an order of an earlier life had filled is in the position that was adopted: those fills never come."""
        slot = state.slot
        if not isinstance(slot, Unknown) or self._is_ours(slot.label):
            return
        if now_ns - slot.since_ns >= self.own.latency_ns:
            self.own.forget_ended(now_ns, only=state.label)

    def _count_vanished(self, event: ev.OrderClosed, state: SideState, now_ns: int) -> None:
        """An order that rests is cancelled, and not by us: once may be a person, again and again is a second daemon.

        Where we have tried to cancel it, it was us: a cancel without an answer may arrive late.
        """
        if event.cause not in ("user_request", "cancelled") or state.cancel_tries:
            return
        self._out.append(Noted("order.vanished", f"{event.label}: cancelled, and not by us"))
        state.hold(now_ns + GATE_HOLD_NS, "somebody else cancelled it")
        self.vanished.add(now_ns)
        count = self.vanished.count(now_ns)
        if count > VANISHED_MAX:
            found = f"{count} of our orders were cancelled by somebody else in {VANISHED_NS / NS:g} s"
            self._trip(Switch.FOREIGN_ORDERS, Why.FOREIGN_ORDERS, found, now_ns)

    def on_absent(self, event: ev.OrderAbsent, now_ns: int) -> None:
        self._order_event(event, now_ns)

    def on_request_lost(self, event: ev.RequestLost, now_ns: int) -> None:
        self._order_event(event, now_ns)

    def on_gate_refused(self, event: ev.GateRefused, now_ns: int) -> None:
        self.refusal = event
        state = self.own.find(event.label)
        if state is None:
            return
        amending = isinstance(state.slot, Amending)
        self._order_event(event, now_ns)
        wait_ns = BUDGET_HOLD_NS if event.rule in BRIEF else GATE_HOLD_NS
        state.hold(now_ns + wait_ns, self.refusal_text(event))
        if state.told is not event.rule:  # once, not at every try
            state.told = event.rule
            self._out.append(Noted("order.withheld", f"{event.side}: {state.hold_detail}"))
        if amending and event.rule not in BRIEF:
            state.wanted = Withheld(Missing.REFUSED)

    def refusal_text(self, event: ev.GateRefused) -> str:
        """Rule, number, limit, and where the limit was written."""
        where = self.settings.sources.get(event.key, event.key)
        return f"gate: {event.rule} {event.number}, limit {event.limit}" + (f", {where}" if where else "")

    # --- fills and positions ---------------------------------------------------------------------

    def on_filled(self, event: ev.OrderFilled, now_ns: int) -> None:
        adopted = self._was_adopted(event)
        counted = msgspec.structs.replace(event, size_lots=0, fee=Decimal(0)) if adopted else event
        fold = self.position.fill(counted, self.mark_price)
        if fold is Fold.REPEATED:
            return
        self._dirty = True
        text = f"{event.side} {self.instrument.amount_text(event.size_lots)} at {event.price}"
        if adopted:
            text += ", traded before the position was adopted, which has it in it: not counted again"
        elif fold is Fold.LATE:
            text += ", told late: average and realised profit are now as if it had come before later ones"
        if self._order_event(event, now_ns):
            self._out.append(Noted("order.filled", f"{text} ({event.label})"))
        else:
            self._out.append(Noted("order.filled_elsewhere", f"{text} ({event.label or 'no label'})"))
        if fold is Fold.SELF_TRADE:
            detail = f"trade {event.trade_id}: both sides are ours"
            self._trip(Switch.SELF_TRADE, Why.SELF_TRADE, detail, now_ns)
        if not adopted:
            self._count_fill(event.size_lots, now_ns)
        self._balance(now_ns)

    def _was_adopted(self, event: ev.OrderFilled) -> bool:
        """Traded before the position was counted that we took over. Trades are timed to the millisecond."""
        return 0 < event.exchange_ns < self.counts_from_ns // MS * MS

    def _count_fill(self, size_lots: int, now_ns: int) -> None:
        """Too many executions, or too much, in a short time: somebody must look."""
        if self.closing is not None:
            return  # an operator takes, and knows it
        rules, fills = self.rules, self.fills
        fills.add(now_ns, size_lots)
        count = fills.count(now_ns)
        if count > rules.max_fills:
            found = f"{count} fills in {rules.fill_window_ns / NS:g} s, allowed {rules.max_fills}"
        elif fills.amount > rules.max_filled_lots:
            amount = self.instrument.amount_text
            allowed = amount(rules.max_filled_lots)
            found = f"{amount(fills.amount)} filled in {rules.fill_window_ns / NS:g} s, allowed {allowed}"
        else:
            return
        self._trip(Switch.REPEATED_FILLS, Why.REPEATED_FILLS, found, now_ns)

    def _balance(self, now_ns: int) -> None:
        """The ledger's identity, after every event that moves it."""
        if not self.position.balanced:
            found = f"off by {self.position.imbalance} {self.instrument.settlement}"
            self._trip(Switch.LEDGER, Why.LEDGER, found, now_ns)

    def on_cash(self, event: ev.CashMoved, now_ns: int) -> None:
        if not self.position.cash_moved(event):
            return
        self._dirty = True
        self._out.append(Noted(f"cash.{event.kind}", f"{event.amount} {event.currency} ({event.entry_id})"))
        self._balance(now_ns)

    def mark(self, now_ns: int) -> None:
        """Revalue the position in the ledger, at most once a second."""
        if now_ns - self.marked_ns < NS:
            return
        self.marked_ns = now_ns
        price = self.mark_price
        if price > 0.0:
            if self.position.lots:
                self.position.mark(price)
                self._balance(now_ns)
            if self.mode is Mode.SHADOW:
                self.imagined.mark(price)

    def on_shadow_filled(self, event: ev.ShadowFilled, now_ns: int) -> None:
        """An imagined fill. The sure ones move the imagined order; neither kind touches the real ledger."""
        self.imagined.fill(event, self.mark_price, self.market.index)
        if event.bound is not ev.Bound.PESSIMISTIC:
            return
        text = f"{event.side} {self.instrument.amount_text(event.size_lots)} at {event.price}"
        self._out.append(Noted("shadow.filled", f"{text} ({event.label})"))
        self._order_event(self.imagined.as_fill(event, self.market.index), now_ns)
        self._count_fill(event.size_lots, now_ns)

    # --- the exchange's own maker protection -----------------------------------------------------

    def on_protection(self, event: ev.ProtectionReported, now_ns: int) -> None:
        self.protection = (event.armed, event.detail)
        self._dirty = True
        if not event.armed and self.rules.protected and self.state is State.ACTIVE:
            self._trip(Switch.MAKER_PROTECTION, Why.MAKER_PROTECTION, event.detail, now_ns)

    def on_protection_tripped(self, event: ev.ProtectionTripped, now_ns: int) -> None:
        self._dirty = True
        for state in (self.own.bid, self.own.ask):
            state.hold(now_ns + GATE_HOLD_NS, "the exchange's maker protection tripped")
        self._trip(Switch.MAKER_PROTECTION, Why.MAKER_PROTECTION, event.detail, now_ns)
