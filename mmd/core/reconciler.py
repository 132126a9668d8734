"""What the exchange lists against what we know: orders, quantities, average and profit, position.

A difference that is seen twice is a case: shown, journalled, and in the way of a resume until the
numbers agree or an operator has accepted the exchange's (docs/reconciliation.md). Also what a
machine takes over from the one that an earlier process left.
"""

from mmd.core.ledger import gain, value
from mmd.core.orders import Live, Unknown
from mmd.core.pnl import usd_value
from mmd.core.symbol import Difference, SymbolState
from mmd.core.tracker import Tracker
from mmd.domain import events as ev
from mmd.domain.actions import CaseClosed, CaseOpened, Noted, Tripped
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CaseKind, Mode, Response, Scope, State, Switch, Why

# Profits closer than this are equal: exchanges round to cents or to nine digits of a coin.
DUST_USD = 0.05


class Reconciler(Tracker):
    """The part of the machine that compares."""

    # --- from one process to the next ------------------------------------------------------------

    def cannot_inherit(self, old: SymbolState) -> str:
        """Why the position of that machine means something else here; empty if it does not."""
        ours, theirs = meaning(self.instrument), meaning(old.instrument)
        return "" if ours == theirs else f"the instrument was {theirs}, is {ours}"

    def inherit(self, old: SymbolState, now_ns: int) -> None:
        """Take over what outlives a process: position, ledgers, open cases, and orders that may be out.

        ValueError where `cannot_inherit` has an objection. Only for a machine that has handled nothing yet.
        """
        objection = self.cannot_inherit(old)
        if objection:
            raise ValueError(f"{self.instrument.key}: {objection}")
        self.position, self.imagined = old.position, old.imagined
        self.cases = dict(old.cases)
        self.counts_from_ns, self.agreed_ns, self.told_ns = old.counts_from_ns, old.agreed_ns, old.told_ns
        self.heir = True
        self.own.remember(old.own)
        for state in old.own.every():
            imaginary = old.mode is Mode.SHADOW and state.label not in old.own.strays
            if state.label and not imaginary:
                self.own.inherit(state, now_ns)
                self.heirlooms.add(state.label)

    # --- cases -----------------------------------------------------------------------------------

    def open_case(self, kind: CaseKind, subject: str, ours: str, theirs: str, now_ns: int) -> None:
        """Once for each difference; a case whose numbers move stays the same case."""
        known = self.cases.get((kind, subject))
        self.cases[(kind, subject)] = Difference(ours, theirs, known.since_ns if known else now_ns)
        self.doubts.pop((kind, subject), None)
        self._dirty = True
        if known is not None:
            return
        self._out.append(CaseOpened(kind, subject, ours, theirs))
        if kind is CaseKind.POSITION:
            return  # that one has a switch of its own
        found = f"{kind}{f' of {subject}' if subject else ''}: ours {ours}, the exchange's {theirs}"
        response = self.settings.switches.responses[Switch.RECONCILIATION]
        self._respond(response, Why.RECONCILIATION, found, now_ns)
        self._out.append(Tripped(Switch.RECONCILIATION, Scope.SYMBOL, self.instrument.key, response, found))

    def close_case(self, kind: CaseKind, subject: str, by: str, reason: str) -> None:
        self.doubts.pop((kind, subject), None)
        if self.cases.pop((kind, subject), None) is not None:
            self._out.append(CaseClosed(kind, subject, by, reason))
            self._dirty = True

    def _doubt(self, kind: CaseKind, subject: str, ours: str, theirs: str, now_ns: int) -> None:
        """A difference: the second time that it is the same, it is a case.

        Average and profit move with fills and mark: the same figure that is wrong again is the same, whatever it
        is now. Where the other one is, that is not asked for at once a second time: it would never end.
        """
        before, now = self.doubts.get((kind, subject)), (ours, theirs)
        by_name = kind is CaseKind.AVERAGE
        again = before is not None and (figure(before) == figure(now) if by_name else before == now)
        if (kind, subject) in self.cases or again:
            self.open_case(kind, subject, ours, theirs, now_ns)
            return
        self.doubts[(kind, subject)] = now
        if before is None or not by_name:
            self._ask_state(now_ns)

    def on_journal_doubted(self, event: ev.JournalDoubted, now_ns: int) -> None:
        self.open_case(CaseKind.JOURNAL, "", event.detail, "not asked yet", now_ns)

    def on_case_accepted(self, event: ev.CaseAccepted, now_ns: int) -> None:
        kind, subject = event.case, event.subject
        if (kind, subject) not in self.cases:
            self._reply(event.request_id, False, "this case is closed already", ())
            return
        if self.state is State.ACTIVE:
            self._reply(event.request_id, False, "is ACTIVE: pause it first", ())
            return
        if kind in (CaseKind.POSITION, CaseKind.AVERAGE) and not self._is_sure(kind):
            self._ask_state(now_ns)
            text = "what the exchange said last may be out of date: it is asked for now, try again in a moment"
            self._reply(event.request_id, False, text, ())
            return
        match kind:
            case CaseKind.POSITION:
                done = self._adopt_reported(now_ns)
            case CaseKind.AVERAGE:
                average = self.reported_average
                self.position.adopt(self.position.lots, average, self.mark_price)
                done = f"the exchange's average {average} is taken over"
            case CaseKind.QUANTITIES:
                self.own.forget_ended(now_ns, only=subject)
                done = "the exchange's word on this order stands"
            case CaseKind.ORDERS:
                done = "the order is cancelled as any stray, and nobody asks where it came from"
            case CaseKind.JOURNAL:
                done = "the exchange's word is the truth"
        self.close_case(kind, subject, event.by, event.reason)
        self._reply(event.request_id, True, f"accepted: {done}; nothing is resumed", ())

    def _is_sure(self, kind: CaseKind) -> bool:
        """Whether the exchange's last word on the position can be taken over: it is of what we hold by now."""
        if not self.told_here or self.reported_fills != self.position.fills:
            return False
        if kind is CaseKind.POSITION:
            return self.drift is not None and self.drift_sure
        return self.drift is None and self.reported_lots == self.position.lots

    def _adopt_reported(self, now_ns: int) -> str:
        """Take the exchange's position instead of ours."""
        lots = self.position.lots + (self.drift or 0)
        self.position.adopt(lots, self.reported_average or self.position.average, self.mark_price)
        self.own.forget_ended(now_ns)
        self.drift, self.drift_sure = None, False
        self.counts_from_ns = self.agreed_ns = self.told_ns
        return f"the exchange's position {self.instrument.amount_text(lots)} is adopted"

    # --- orders ----------------------------------------------------------------------------------

    def on_orders_reported(self, event: ev.OrdersReported, now_ns: int) -> None:
        self._compare_quantities(event, now_ns)
        strays = self.own.reported(event, now_ns)
        for label in strays:
            self._out.append(Noted("order.stray", f"{label} rests there and is not ours to keep: cancelling"))
        if self.heir and not self.orders_seen:
            self._unknown_leftovers(event, strays, now_ns)
        self._judge_foreign(strays, now_ns)  # the first report is of leftovers, later ones must know us
        self.reconciled = self.orders_seen = True
        self._dirty = True

    def _unknown_leftovers(self, event: ev.OrdersReported, strays: list[str], now_ns: int) -> None:
        """An order of an earlier life that is not in its journal: written before it was sent, it should be."""
        for order in event.orders:
            if order.label in strays:
                text = f"{order.side} {self._amount_at(order.remaining_lots, order.price_ticks)}"
                self.open_case(CaseKind.ORDERS, order.label, "not in the journal", text, now_ns)

    def _amount_at(self, lots: int, price_ticks: int) -> str:
        return f"{self.instrument.amount_text(lots)} at {self.instrument.grid.price(price_ticks)}"

    def _compare_quantities(self, event: ev.OrdersReported, now_ns: int) -> None:
        """Of orders that rest and that nothing is in flight about, and of those that are over and still owe fills."""
        differing = set()
        for order in event.orders:
            state = self.own.find(order.label, order.order_id)
            if state is None or not isinstance(state.slot, Live):
                continue
            slot, filled = state.slot, order.total_lots - order.remaining_lots
            ours = f"{self._amount_at(slot.total_lots, slot.price_ticks)}, {slot.filled_lots} lots filled"
            theirs = f"{self._amount_at(order.total_lots, order.price_ticks)}, {filled} lots filled"
            if ours != theirs:
                differing.add(state.label)
                self._doubt(CaseKind.QUANTITIES, state.label, ours, theirs, now_ns)
        for label, over in self._owing(now_ns):
            ours, theirs = f"{over.filled_lots} lots filled", f"over, {over.total_lots} lots filled"
            self._doubt(CaseKind.QUANTITIES, label, ours, theirs, now_ns)
        for kind, label in [*self.cases, *self.doubts]:
            if kind is CaseKind.QUANTITIES and label not in differing:
                state = self.own.find(label)
                if state is None:
                    self.close_case(kind, label, "mmd", "the order is over and accounted for")
                elif isinstance(state.slot, Live):
                    self.close_case(kind, label, "mmd", "the numbers agree")

    def _owing(self, now_ns: int) -> list[tuple[str, Unknown]]:
        """Orders that ended with more fills than we were told, so long ago that somebody must look."""
        found = [(state.label, state.slot) for state in self.own.every() if isinstance(state.slot, Unknown)]
        timeout_ns = self.rules.unknown_timeout_ns
        return [(label, slot) for label, slot in found if slot.ended and now_ns - slot.since_ns >= timeout_ns]

    # --- position --------------------------------------------------------------------------------

    def on_position_reported(self, event: ev.PositionReported, now_ns: int) -> None:
        self.reported_lots, self.reported_average = event.position_lots, event.average_price
        self.reported_fills = self.position.fills
        self.told_ns = told_ns = event.exchange_ns or event.received_ns
        self.told_here = self._dirty = True
        if not self.position.known:
            self.position.adopt(event.position_lots, event.average_price, self.mark_price)
            self.counts_from_ns = self.agreed_ns = told_ns
            return
        off = event.position_lots - self.position.lots
        if off == 0:
            self.drift, self.drift_sure = None, False
            self.agreed_ns = told_ns
            self.close_case(CaseKind.POSITION, "", "mmd", "the positions agree")
            self._compare_average(event, now_ns)
        elif self.drift == off:
            self.drift_sure = True
            self._drifted(event, now_ns)
        else:
            if self.drift is None:
                self.drift_since_ns = now_ns
            self.drift, self.drift_sure = off, False
            self.doubts.pop((CaseKind.POSITION, ""), None)
            self._ask_state(now_ns)

    def _may_be_explained(self, off_lots: int, now_ns: int) -> bool:
        """Whether orders of ours of unknown outcome can be the difference: their fills are about to be asked for.

        Whoever tells the outcome has asked for all fills first, so it ends with that, or when the time is over in
        which an outcome must be known. Until then nothing is quoted, and these orders are charged.
        """
        if self.mode is Mode.SHADOW or (CaseKind.POSITION, "") in self.cases:
            return False  # orders that never left explain nothing; and a case ends when the numbers agree
        in_time = now_ns - self.drift_since_ns < self.rules.unknown_timeout_ns
        return in_time and self.own.may_explain(off_lots)

    def _state_due(self) -> int:
        """A position in doubt is asked for as often as the orders that may explain it."""
        due_ns = super()._state_due()
        if not due_ns or (CaseKind.POSITION, "") not in self.doubts:
            return due_ns
        return min(due_ns, self.state_asked_ns + self.rules.ack_timeout_ns)

    def _drifted(self, event: ev.PositionReported, now_ns: int) -> None:
        """The same difference again."""
        if self.state in (State.DRAINING, State.GONE):
            return
        amount = self.instrument.amount_text
        ours, theirs = amount(self.position.lots), amount(event.position_lots)
        if self._may_be_explained(event.position_lots - self.position.lots, now_ns):
            self.doubts[(CaseKind.POSITION, "")] = (ours, theirs)
            return
        self.open_case(CaseKind.POSITION, "", ours, theirs, now_ns)
        if self.why is Why.POSITION_DRIFT:
            return
        found = f"exchange says {theirs}, fills say {ours}"
        if not self._trip(Switch.POSITION_DRIFT, Why.POSITION_DRIFT, found, now_ns):
            # HALTED already: this is the reason now, so that a reset adopts the exchange's number.
            self._move(State.HALTED, Why.POSITION_DRIFT, found, "mmd", now_ns)
            key = self.instrument.key
            self._out.append(Tripped(Switch.POSITION_DRIFT, Scope.SYMBOL, key, Response.HALT, found))

    def _compare_average(self, event: ev.PositionReported, now_ns: int) -> None:
        """Average entry price and unrealised profit of a position whose size agrees."""
        found = self._average_differs(event)
        if found is None:
            self.close_case(CaseKind.AVERAGE, "", "mmd", "the numbers agree")
        else:
            self._doubt(CaseKind.AVERAGE, "", *found, now_ns)

    def _average_differs(self, event: ev.PositionReported) -> tuple[str, str] | None:
        """Our numbers and theirs, where they are further apart than the tolerance."""
        position, tolerance = self.position, self.settings.average_tolerance_bps
        if tolerance is None or not position.lots or not position.average or not event.average_price > 0:
            return None
        share = float(tolerance) * 1e-4
        ours, theirs = float(position.average), float(event.average_price)
        if abs(ours - theirs) > share * theirs:
            return f"average {ours:.10g}", f"average {theirs:.10g}"
        if event.profit is None or not event.mark > 0.0:
            return None
        mark = type(position.average)(repr(event.mark))
        profit = float(gain(self.instrument, position.lots, position.average, mark))
        said = float(event.profit)
        worth = abs(float(value(self.instrument, position.lots, mark)))
        off_usd = usd_value(self.instrument, abs(profit - said), self.market.index)
        if abs(profit - said) <= 2 * share * worth or (off_usd is not None and off_usd <= DUST_USD):
            return None
        return f"profit {profit:.10g}", f"profit {said:.10g}"


def figure(found: tuple[str, str]) -> str:
    """Which of the two is wrong: "average" or "profit"."""
    return found[0].partition(" ")[0]


def meaning(instrument: Instrument) -> tuple[object, ...]:
    """What a count of lots and a price mean."""
    return (
        instrument.kind,
        instrument.contract,
        instrument.lot,
        instrument.grid.tick,
        instrument.settlement,
        instrument.strike,
        instrument.expiry_ns,
    )
