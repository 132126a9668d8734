"""Closing a position at an operator's word: one immediate-or-cancel order at a time, never past zero.

From PAUSED or HALTED only, with nothing else of ours out there. It ends when everything asked for
is closed, or with the first order that the book did not fill whole, that was refused, or that the
gate did not let pass: what is left is told, and nothing is tried again by itself.
"""

import msgspec

from mmd.core.orders import Placing
from mmd.core.quoter import Quoter
from mmd.core.symbol import Closing
from mmd.domain import events as ev
from mmd.domain.actions import Noted, ReduceOrder
from mmd.domain.ids import base36
from mmd.domain.reasons import Mode, Side, State


class Closer(Quoter):
    """The part of the machine that takes instead of makes."""

    def cannot_close(self) -> str:
        """Why the position cannot be closed now; empty if it can."""
        if self.state not in (State.PAUSED, State.HALTED):
            return f"is {self.state}: pause or halt it first"
        if self.mode is not Mode.LIVE:
            return "is in shadow mode: no order would leave the house"
        if not self.position.known or self.drift is not None:
            return "the position is not known for sure"
        if not self.position.lots:
            return "there is no position"
        if self.closing is not None:
            return f"is being closed already, asked by {self.closing.by}"
        if not self.market.trade_link or not self.reconciled:
            return "the trading link is down or its orders are not known yet"
        if self.own.resting:
            return f"{self.own.resting} orders of ours may still rest at the exchange"
        return ""

    def on_flatten(self, event: ev.FlattenRequested, now_ns: int) -> None:
        problem = self.cannot_close()
        if not problem and not 0 < event.lots <= abs(self.position.lots):
            amount = self.instrument.amount_text
            problem = f"{amount(event.lots)} cannot be closed of a position of {amount(self.position.lots)}"
        if problem:
            self._reply(event.request_id, False, problem, ())
            return
        side = Side.ASK if self.position.lots > 0 else Side.BID
        self.closing = Closing(event.request_id, event.by, side, event.limit_ticks, event.lots, event.lots, 0, 0, "")
        amount_text = self.instrument.amount_text(event.lots)
        reason = f": {event.reason}" if event.reason else ""
        self._out.append(Noted("flatten.started", f"{amount_text} by {event.by}{reason}"))
        self._reply(event.request_id, True, "closing", ())
        self._dirty = True

    def stop_closing(self, detail: str) -> None:
        """No further order; one that is out ends by itself."""
        closing = self.closing
        if closing is None:
            return
        self.closing = None
        amount = self.instrument.amount_text
        text = f"{amount(closing.asked_lots - closing.left_lots)} of {amount(closing.asked_lots)} closed"
        self._out.append(Noted("flatten.done", f"{text}: {detail}"))

    def _close(self, now_ns: int) -> None:
        """Judge the order that has ended, and send the next."""
        closing = self.closing
        if closing is None:
            return
        state = self.own.bid if closing.side is Side.BID else self.own.ask
        if closing.label:
            if state.label == closing.label:
                return  # its outcome is still open
            ordered = closing.order_lots
            filled = max(0, min(ordered, abs(closing.before_lots) - abs(self.position.lots)))
            left = closing.left_lots - filled
            self.closing = closing = msgspec.structs.replace(closing, left_lots=left, order_lots=0, label="")
            if not left:
                self.stop_closing("done")
                return
            if filled < ordered:
                self.stop_closing(state.hold_detail if state.hold_ns > now_ns else "the book has no more at this price")
                return
        lots = min(closing.left_lots, abs(self.position.lots), self.rules.max_order_lots)
        if self.market.lot_usd > 0.0:
            lots = min(lots, int(self.rules.max_order_usd / self.market.lot_usd))
        if lots < 1 or state.label:
            self.stop_closing("no order is small enough for the limits" if lots < 1 else "another order is in the way")
            return
        self._orders_made += 1
        side = "b" if closing.side is Side.BID else "a"
        label = f"{self._label_prefix}{side}-{self.epoch}-{base36(self._orders_made)}"
        self.closing = msgspec.structs.replace(closing, order_lots=lots, before_lots=self.position.lots, label=label)
        self.own.put(state, Placing(label, closing.limit_ticks, lots, 0, now_ns), now_ns)
        self._out.append(ReduceOrder(label, closing.side, closing.limit_ticks, lots))
