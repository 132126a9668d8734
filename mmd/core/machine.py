"""The symbol machine: events in, actions out. Pure and total; its whole state can be printed.

States and their table: PAUSED, ACTIVE, HALTED (docs/states.md). Leaving ACTIVE closes the gate
at once, because the gate asks for ACTIVE; the orders are then pulled until the exchange says
that none rests. Order and fill tracking goes on in every state.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mmd.core.book import Touch, best_external, read_level
from mmd.core.fair import microprice
from mmd.core.market import NO_TOUCH
from mmd.core.orders import Live, Unknown
from mmd.core.quoting import Withheld
from mmd.core.reconciler import Reconciler
from mmd.core.rules import NS, rules_for
from mmd.core.window import PriceRange
from mmd.domain import events as ev
from mmd.domain.actions import AckBounds, Decision
from mmd.domain.reasons import MARKET_DATA_REASONS, CaseKind, Missing, Mode, Response, Side, State, Switch, Why
from mmd.domain.switches import SWITCHES

# No resume while the cause of one of these lasts; the shell says when it is over.
LASTING = frozenset({Switch.CLOCK_SKEW, Switch.EVENT_LAG, Switch.JOURNAL_FAILURE, Switch.VALUATION})
# How long an expired symbol stays for the word of its delivery.
SETTLEMENT_NS = 120 * NS


class SymbolMachine(Reconciler):
    """One symbol. `handle` is the only way in; everything else only looks."""

    # --- the way in ------------------------------------------------------------------------------

    def handle(self, events: Sequence[ev.Mail], now_ns: int) -> list[Decision]:
        """Take a batch, decide once. Time never runs backwards between calls."""
        out = self._out = []
        for event in events:
            HANDLERS[type(event)](self, event, now_ns)
        if self._dirty and self.state is not State.GONE:
            self._dirty = False
            self._decide(now_ns)
            self._arm_timer(now_ns)
        return out

    # --- market data -----------------------------------------------------------------------------

    def on_book(self, event: ev.BookTop, now_ns: int) -> None:
        market = self.market
        before = market.book_trouble
        market.on_book(event, self.rules)
        touch = self._external_touch(event, now_ns)
        if touch != self.touch:
            self.touch = touch
            self._dirty = True
            if self.volatility.due(event.received_ns) and touch.two_sided and market.book_trouble is None:
                self.volatility.observe(microprice(touch), event.received_ns)
        if market.book_trouble is not before or market.jump is not None:
            self._dirty = True

    def _external_touch(self, book: ev.BookTop, now_ns: int) -> Touch:
        own, least = self.own, self.rules.improve_min_lots
        if self.mode is Mode.SHADOW:  # what stays in the house is not in the book
            bid, ask = best_external(book.bids, (), least), best_external(book.asks, (), least)
            return Touch(bid[0], bid[1], ask[0], ask[1])
        touch, at_ns = self.touch, book.exchange_ns
        bid = read_level(book.bids, own.bid.shown(now_ns, at_ns), least, (touch.bid_ticks, touch.bid_lots))
        ask = read_level(book.asks, own.ask.shown(now_ns, at_ns), least, (touch.ask_ticks, touch.ask_lots))
        return Touch(bid[0], bid[1], ask[0], ask[1])

    def on_broken(self, event: ev.BookBroken, now_ns: int) -> None:
        self.market.on_broken(event)
        self.touch = NO_TOUCH
        self._leave_for_market(now_ns)

    def on_ticker(self, event: ev.Ticker, now_ns: int) -> None:
        self.market.on_ticker(event)
        self._dirty = True
        if self.position.lots or self.mode is Mode.SHADOW:
            self.mark(now_ns)

    def on_trade(self, event: ev.TradePrinted, now_ns: int) -> None:
        self.market.on_trade(event)

    def on_instrument_state(self, event: ev.InstrumentStateChanged, now_ns: int) -> None:
        self.market.on_state(event)
        if event.tradable:
            self.own.try_again()
        self._leave_for_market(now_ns)

    def on_data_up(self, event: ev.DataLinkUp, now_ns: int) -> None:
        self.market.on_data_up(event.received_ns)
        self._dirty = True

    def on_data_down(self, event: ev.DataLinkDown, now_ns: int) -> None:
        self.market.on_data_lost(event.detail)
        self.touch = NO_TOUCH
        self._leave_for_market(now_ns)

    def _leave_for_market(self, now_ns: int) -> None:
        """At once, not at the end of the batch: what cures it there would hide that it happened."""
        self._dirty = True
        trouble = self.market.trouble(now_ns, self.rules)
        if trouble is not None and self.state is State.ACTIVE:
            self._market_trip(trouble, now_ns)

    def _market_trip(self, trouble: tuple[Why, str], now_ns: int) -> None:
        switch = Switch.MARKET_HALT if trouble[0] is Why.MARKET_HALTED else Switch.MARKET_DATA
        self._trip(switch, trouble[0], trouble[1], now_ns)

    # --- links and reconciliation ----------------------------------------------------------------

    def on_trade_up(self, event: ev.TradeLinkUp, now_ns: int) -> None:
        self.market.trade_link = True
        self.own.try_again()
        self.state_asked_ns = now_ns  # the exchange reports by itself after this
        self.market.cod_armed = event.cancel_on_disconnect
        self._dirty = True

    def on_trade_down(self, event: ev.TradeLinkDown, now_ns: int) -> None:
        self.market.trade_link = False
        self.market.cod_armed = False
        self.market.link_detail = event.detail
        self.protection = (False, "not read since the link was lost")
        self.reconciled = False
        self.own.link_lost(now_ns)
        self._leave_for_market(now_ns)

    # --- the house -------------------------------------------------------------------------------

    def on_timer(self, event: ev.TimerFired, now_ns: int) -> None:
        self.timer_ns = 0
        self._dirty = True

    def on_bounds(self, event: ev.BoundsSet, now_ns: int) -> None:
        """Tighter bounds hold at once; they are acknowledged when the worst case fits (in `_decide`)."""
        self.min_lots, self.max_lots = event.min_lots, event.max_lots
        self.bounds_version = event.version
        self._dirty = True

    def on_settings(self, event: ev.SettingsChanged, now_ns: int) -> None:
        self.settings = event.settings
        had = self.rules.volatility
        self.rules = rules_for(self.instrument, event.settings)
        self.own.latency_ns = self.rules.ack_timeout_ns
        if had != self.rules.volatility:
            self.volatility = self._new_volatility()
        self.rejects.length_ns = self.rules.reject_window_ns
        self.fills.length_ns = self.rules.fill_window_ns
        self.timeouts.length_ns = self.rules.ack_window_ns
        if self.drifts.length_ns != self.rules.drift_window_ns:
            self.drifts = PriceRange(self.rules.drift_window_ns)
        self._dirty = True

    def on_resume(self, event: ev.ResumeRequested, now_ns: int) -> None:
        if self.state is State.ACTIVE:
            self._reply(event.request_id, True, "is ACTIVE already", ())
            return
        if self.state is not State.PAUSED:
            hint = ": reset it first, with a reason" if self.state is State.HALTED else ""
            self._reply(event.request_id, False, f"is {self.state} ({self.why}){hint}", ())
            return
        if self.closing is not None:
            self._reply(event.request_id, False, "its position is being closed: pause it to stop that", ())
            return
        self.market.clear_latches()
        checks = self.checks(now_ns)
        failing = [check.name for check in checks if not check.ok]
        if failing:
            self._reply(event.request_id, False, f"not ready: {', '.join(failing)}", checks)
            return
        self._move(State.ACTIVE, Why.RESUMED, event.reason, event.by, now_ns)
        self._reply(event.request_id, True, "ACTIVE", checks)

    def on_pause(self, event: ev.PauseRequested, now_ns: int) -> None:
        self.stop_closing(f"paused by {event.by}")
        if self.state in (State.ACTIVE, State.PAUSED):
            self._move(State.PAUSED, Why.OPERATOR, event.reason, event.by, now_ns)
            self._reply(event.request_id, True, "PAUSED", ())
        else:
            self._reply(event.request_id, False, f"is {self.state} ({self.why})", ())

    def on_halt(self, event: ev.HaltRequested, now_ns: int) -> None:
        self.stop_closing(f"halted by {event.by}")
        self.own.try_again()
        self._dirty = True
        if self.state in (State.ACTIVE, State.PAUSED):
            self._move(State.HALTED, event.why, event.reason, event.by, now_ns)
        self._reply(event.request_id, self.state is State.HALTED, f"{self.state}", ())

    def on_reset(self, event: ev.ResetRequested, now_ns: int) -> None:
        if self.state is not State.HALTED:
            self._reply(event.request_id, False, f"is {self.state}, only HALTED is reset", ())
            return
        was, amount = self.why, self.instrument.amount_text
        done = ["refusals, fills and timeouts are counted from here again"]
        sure = self.why is Why.POSITION_DRIFT and self._is_sure(CaseKind.POSITION)
        if self.drift is not None and not sure:
            # Seen once, or before a fill that the report may have counted already: the next confirms or clears it.
            self._ask_state(now_ns)
            done.append("the exchange's position is asked for again")
        elif self.drift is not None:
            done.append(self._adopt_reported(now_ns))
            self.close_case(CaseKind.POSITION, "", event.by, event.reason)
        self.rejects.clear()
        self.fills.clear()
        self.timeouts.clear()
        self.vanished.clear()
        self.drifts.clear()
        self.market.clear_latches()
        self._move(State.PAUSED, Why.RESET, event.reason, event.by, now_ns)
        left = f"{self.own.resting} orders are still being pulled" if self.own.resting else "nothing is placed"
        kept = f"position {amount(self.position.lots)} stays"
        text = f"PAUSED, was HALTED ({was}). Done: {', '.join(done)}. Not done: {left}, {kept}, nothing is resumed"
        self._reply(event.request_id, True, text, ())

    def on_switch(self, event: ev.SwitchTripped, now_ns: int) -> None:
        """A switch of the exchange or of the portfolio; some last until their cause is over."""
        row = SWITCHES[event.switch]
        if event.switch in LASTING:
            self.held[event.switch] = event.detail
        if event.response is not Response.WARN:
            self._respond(event.response, row.why, event.detail, now_ns)

    def on_switch_cleared(self, event: ev.SwitchCleared, now_ns: int) -> None:
        self.held.pop(event.switch, None)

    def on_removal(self, event: ev.RemovalRequested, now_ns: int) -> None:
        self.stop_closing("the symbol leaves")
        if self.state is State.DRAINING:
            self.why = event.why  # what an expiry waits for is not waited for any more
            self._dirty = True
        elif self.state is not State.GONE:
            self._move(State.DRAINING, event.why, "orders are pulled, then it is gone", "mmd", now_ns)

    # --- decisions -------------------------------------------------------------------------------

    def _decide(self, now_ns: int) -> None:
        self._overdue(now_ns)
        reference = self.reference_ticks
        if reference > 0.0:
            self.drifts.add(reference, now_ns)
        self._judge(now_ns)
        if self.mode is not self.rules.mode and self.own.resting == 0:
            self.mode = self.rules.mode
        if self.state is State.ACTIVE and self.mode is self.rules.mode:
            self._quote(now_ns)
        else:
            why = Missing.NOT_ACTIVE if self.state is not State.ACTIVE else Missing.MODE_CHANGE
            self.own.bid.wanted = self.own.ask.wanted = Withheld(why)
            self._pull(self.own.bid, now_ns)
            self._pull(self.own.ask, now_ns)
            if self.closing is not None:
                self._close(now_ns)
        if self.own.strays:
            for stray in list(self.own.strays.values()):
                self._pull(stray, now_ns)
        if self.bounds_acked != self.bounds_version and self._inside_bounds():
            self.bounds_acked = self.bounds_version
            self._out.append(AckBounds(self.bounds_version, self.min_lots, self.max_lots))
        if self.state is State.DRAINING and self.own.resting == 0 and self.orders_seen and not self._unsettled(now_ns):
            self._move(State.GONE, self.why, "nothing of ours rests", "mmd", now_ns)

    def _unsettled(self, now_ns: int) -> bool:
        """Expired with a position whose delivery the exchange has not told us of yet."""
        if self.why is not Why.EXPIRED or not self.position.lots:
            return False
        return now_ns < self.since_ns + SETTLEMENT_NS

    def _inside_bounds(self) -> bool:
        """No order of ours, an earlier run's included, can move the position further outside than it is."""
        if not self.orders_seen:
            return False
        bid, ask = self.own.worst(Side.BID), self.own.worst(Side.ASK)
        lots = self.inventory_lots
        return (bid == 0 or lots + bid <= self.max_lots) and (ask == 0 or lots - ask >= self.min_lots)

    def _judge(self, now_ns: int) -> None:
        """Leave ACTIVE, or return to it, by what market, orders and calendar say."""
        expiry_ns = self.instrument.expiry_ns
        if (self.market.terminal or (expiry_ns and now_ns >= expiry_ns)) and self.state not in (
            State.DRAINING,
            State.GONE,
        ):
            self._move(State.DRAINING, Why.EXPIRED, "expired or delivered", "mmd", now_ns)
            return
        if self.state is State.ACTIVE:
            trouble = self.market.trouble(now_ns, self.rules)
            if trouble is not None:
                self._market_trip(trouble, now_ns)
            elif (unknown := self._unknown_too_long(now_ns)) is not None:
                self._trip(Switch.OUTCOME_UNKNOWN, Why.OUTCOME_UNKNOWN, unknown, now_ns)
        elif self.state is State.PAUSED and self.rules.auto_resume and self.why in MARKET_DATA_REASONS:
            self._try_auto_resume(now_ns)

    def _unknown_too_long(self, now_ns: int) -> str | None:
        for state in self.own.every():
            slot = state.slot
            if isinstance(slot, Live):
                continue
            if isinstance(slot, Unknown) and now_ns - slot.since_ns >= self.rules.unknown_timeout_ns:
                waited = f"{(now_ns - slot.since_ns) / NS:.1f} s"
                return f"no word of {slot.label} for {waited}"
        return None

    def _try_auto_resume(self, now_ns: int) -> None:
        """Back to ACTIVE once everything has been ready for the configured time without a break."""
        self.market.clear_latches()
        if self.closing is not None or not all(check.ok for check in self.checks(now_ns)):
            self.healthy_since_ns = 0
        elif not self.healthy_since_ns:
            self.healthy_since_ns = now_ns
        elif now_ns - self.healthy_since_ns >= self.rules.auto_resume_ns:
            self._move(State.ACTIVE, Why.AUTO_RESUMED, f"was {self.why}, ready again", "mmd", now_ns)


HANDLERS: dict[type, Callable[[SymbolMachine, Any, int], None]] = {
    ev.BookTop: SymbolMachine.on_book,
    ev.BookBroken: SymbolMachine.on_broken,
    ev.Ticker: SymbolMachine.on_ticker,
    ev.TradePrinted: SymbolMachine.on_trade,
    ev.InstrumentStateChanged: SymbolMachine.on_instrument_state,
    ev.DataLinkUp: SymbolMachine.on_data_up,
    ev.DataLinkDown: SymbolMachine.on_data_down,
    ev.TradeLinkUp: SymbolMachine.on_trade_up,
    ev.TradeLinkDown: SymbolMachine.on_trade_down,
    ev.OrderAcked: SymbolMachine.on_acked,
    ev.OrderRefused: SymbolMachine.on_refused,
    ev.OrderClosed: SymbolMachine.on_closed,
    ev.OrderAbsent: SymbolMachine.on_absent,
    ev.RequestLost: SymbolMachine.on_request_lost,
    ev.OrderFilled: SymbolMachine.on_filled,
    ev.OrdersReported: SymbolMachine.on_orders_reported,
    ev.PositionReported: SymbolMachine.on_position_reported,
    ev.CashMoved: SymbolMachine.on_cash,
    ev.ProtectionReported: SymbolMachine.on_protection,
    ev.ProtectionTripped: SymbolMachine.on_protection_tripped,
    ev.ShadowFilled: SymbolMachine.on_shadow_filled,
    ev.GateRefused: SymbolMachine.on_gate_refused,
    ev.TimerFired: SymbolMachine.on_timer,
    ev.BoundsSet: SymbolMachine.on_bounds,
    ev.SettingsChanged: SymbolMachine.on_settings,
    ev.ResumeRequested: SymbolMachine.on_resume,
    ev.PauseRequested: SymbolMachine.on_pause,
    ev.HaltRequested: SymbolMachine.on_halt,
    ev.ResetRequested: SymbolMachine.on_reset,
    ev.SwitchTripped: SymbolMachine.on_switch,
    ev.SwitchCleared: SymbolMachine.on_switch_cleared,
    ev.FlattenRequested: SymbolMachine.on_flatten,
    ev.CaseAccepted: SymbolMachine.on_case_accepted,
    ev.JournalDoubted: SymbolMachine.on_journal_doubted,
    ev.RemovalRequested: SymbolMachine.on_removal,
}
