"""One imagined machine over recorded market events: what it would have quoted, counted in trading terms.

It runs in shadow mode behind its own gate, and its orders are answered and filled by the queue model
of `mmd.core.shadow`. Time is passed in; its timers fire when they are due.
"""

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from mmd.core.budget import Budget
from mmd.core.gate import Refused, Room, review
from mmd.core.machine import SymbolMachine
from mmd.core.orders import Live
from mmd.core.pnl import Position, usd_value
from mmd.core.rules import NS
from mmd.core.shadow import ShadowBook
from mmd.domain import events as ev
from mmd.domain.actions import (
    AmendOrder,
    CancelOrder,
    Decision,
    PlaceOrder,
    QueryOrder,
    QueryState,
    ReduceOrder,
    SetTimer,
    Tripped,
)
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, Side, State
from mmd.domain.settings import SymbolSettings

ROUNDS = 50  # as the pump: a refused order comes back as an event
AGAIN_NS = NS  # how soon after a pause of its own it is resumed
BPS = 1e4


class Fills(msgspec.Struct):
    """Of one bound of the queue model. Lots signed; `volume_usd` where the index was known."""

    count: int = 0
    lots: int = 0
    least_lots: int = 0
    most_lots: int = 0
    volume_usd: float = 0.0


class Tally(msgspec.Struct):
    """Sums over the time that the record was ACTIVE; times in ns, the sums are values times ns."""

    active_ns: int = 0
    both_ns: int = 0
    side_ns: int = 0  # both sides added
    size_lots: float = 0.0
    size_usd: float = 0.0
    half_spread_bps: float = 0.0
    half_spread_ns: int = 0
    bid_away_bps: float = 0.0
    bid_away_ns: int = 0
    ask_away_bps: float = 0.0
    ask_away_ns: int = 0
    out_ns: int = 0  # PAUSED or HALTED of its own while the record was ACTIVE
    placed: int = 0
    amended: int = 0
    cancelled: int = 0
    refused: int = 0
    busiest_second: int = 0
    pessimistic: Fills = msgspec.field(default_factory=Fills)
    optimistic: Fills = msgspec.field(default_factory=Fills)
    trips: Counter[str] = msgspec.field(default_factory=Counter)

    def of(self, bound: ev.Bound) -> Fills:
        return self.pessimistic if bound is ev.Bound.PESSIMISTIC else self.optimistic


class Imaginary:
    """`advance` to a time, then `market` what happened then; `follow` what the recorded machine did."""

    def __init__(self, instrument: Instrument, settings: SymbolSettings, now_ns: int) -> None:
        """Raises ValueError where the settings do not fit the instrument's grid."""
        self.instrument = instrument
        self.machine = SymbolMachine(instrument, imagined(settings), "whatif", now_ns)
        self.tally = Tally()
        self.wanted = False  # the recorded machine is ACTIVE
        self._book = ShadowBook(instrument)
        self._now_ns = now_ns
        self._timer_ns = 0
        self._asked_ns = 0  # for a resume
        self._requests = 0
        self._sent: deque[int] = deque()
        rules = self.machine.rules
        self._places = Budget(rules.max_places_per_second, max(1.0, rules.max_places_per_second), 0.0)
        self._amends = Budget(rules.max_amends_per_second, max(1.0, rules.max_amends_per_second), 0.0)

    # --- what comes in -----------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let time pass; timers that were due meanwhile fire at their time."""
        while self._timer_ns and self._timer_ns <= now_ns:
            at_ns, self._timer_ns = max(self._timer_ns, self._now_ns), 0
            self._count_until(at_ns)
            self._post([ev.TimerFired(at_ns)])
            self._keep_active()
        self._count_until(now_ns)

    def market(self, events: Sequence[ev.Mail]) -> None:
        """One batch of market and link events, at the time to which it was advanced."""
        now_ns = self._now_ns
        mail: list[ev.Mail] = []
        for event in events:
            mail += self._book.on_market(event, now_ns)
            mail.append(event)
            if isinstance(event, ev.TradeLinkDown):
                self._book.drop()
            elif isinstance(event, ev.TradeLinkUp):
                mail += self._state()
        if mail:
            self._post(mail)

    def bounds(self, version: int, low: int, high: int) -> None:
        self._post([ev.BoundsSet(version, low, high, self._now_ns)])

    def settings(self, settings: SymbolSettings) -> None:
        """Other ones from now on. Raises ValueError as at the beginning."""
        self._post([ev.SettingsChanged(imagined(settings), self._now_ns)])
        rules = self.machine.rules
        self._places.set_limits(rules.max_places_per_second, max(1.0, rules.max_places_per_second))
        self._amends.set_limits(rules.max_amends_per_second, max(1.0, rules.max_amends_per_second))

    def follow(self, *, active: bool) -> None:
        """The recorded machine is ACTIVE, or is not."""
        if not active and self.machine.state is State.ACTIVE:
            self._post([ev.PauseRequested(self._request(), "record", "the record is not ACTIVE", self._now_ns)])
        if active and not self.wanted:
            self._asked_ns = 0
        self.wanted = active
        self._keep_active()

    def _keep_active(self) -> None:
        """Whatever it paused or halted for by itself was looked at by somebody who resumes at once."""
        if not self.wanted or self.machine.state in (State.ACTIVE, State.DRAINING, State.GONE):
            return
        now_ns = self._now_ns
        if self._asked_ns and now_ns - self._asked_ns < AGAIN_NS:
            return
        self._asked_ns = now_ns
        mail: list[ev.Mail] = []
        if self.machine.state is State.HALTED:
            mail.append(ev.ResetRequested(self._request(), "record", "what if", now_ns))
        mail.append(ev.ResumeRequested(self._request(), "record", "the record is ACTIVE", now_ns))
        self._post(mail)

    def _request(self) -> int:
        self._requests += 1
        return self._requests

    def _state(self) -> list[ev.Mail]:
        """What an exchange with nothing of ours reports."""
        now_ns = self._now_ns
        return [ev.OrdersReported((), now_ns), ev.PositionReported(0, Decimal(0), now_ns)]

    # --- what it does ------------------------------------------------------------------------------

    def _post(self, mail: list[ev.Mail]) -> None:
        for _ in range(ROUNDS):
            self._count_fills(mail)
            actions = self.machine.handle(mail, self._now_ns)
            mail = [event for action in actions for event in self._act(action)]
            if not mail:
                return

    def _act(self, action: Decision) -> list[ev.Mail]:
        now_ns = self._now_ns
        match action:
            case PlaceOrder() | AmendOrder() | ReduceOrder():
                verdict = review(action, self.machine.exposure(action), self._room(action))
                if isinstance(verdict, Refused):
                    self.tally.refused += 1
                    told = (verdict.rule, verdict.number, verdict.limit, verdict.key)
                    return [ev.GateRefused(action.label, action.side, *told, now_ns)]
                return self._send(action)
            case CancelOrder():
                return self._send(action)
            case QueryOrder(label=label):
                return [self._book.look_up(label, now_ns)]
            case QueryState():
                return self._state()
            case SetTimer(at_ns=at_ns):
                self._timer_ns = at_ns
            case Tripped(switch=switch):
                self.tally.trips[str(switch)] += 1
        return []

    def _room(self, order: PlaceOrder | AmendOrder | ReduceOrder) -> Room:
        """Its own rates; the exchange's credits and the totals of open orders are others' as well."""
        rate = self._amends if isinstance(order, AmendOrder) else self._places
        return Room(budget=True, rate=rate.allows(self._now_ns))

    def _send(self, order: PlaceOrder | AmendOrder | CancelOrder | ReduceOrder) -> list[ev.Mail]:
        tally, now_ns = self.tally, self._now_ns
        match order:
            case PlaceOrder() | ReduceOrder():
                tally.placed += 1
                self._places.spend(now_ns)
            case AmendOrder():
                tally.amended += 1
                self._amends.spend(now_ns)
            case CancelOrder():
                tally.cancelled += 1
        sent = self._sent
        sent.append(now_ns)
        while now_ns - sent[0] >= NS:
            sent.popleft()
        tally.busiest_second = max(tally.busiest_second, len(sent))
        return [self._book.send(order, now_ns)]

    # --- what is counted ---------------------------------------------------------------------------

    def _count_fills(self, mail: Sequence[ev.Mail]) -> None:
        for event in mail:
            if not isinstance(event, ev.ShadowFilled):
                continue
            fills = self.tally.of(event.bound)
            fills.count += 1
            fills.lots += event.size_lots if event.side is Side.BID else -event.size_lots
            fills.least_lots, fills.most_lots = min(fills.least_lots, fills.lots), max(fills.most_lots, fills.lots)
            fills.volume_usd += event.size_lots * self._lot_usd()

    def _lot_usd(self) -> float:
        """Worth of one lot; 0.0 while the index is not known."""
        return self.machine.market.lot_usd

    def _count_until(self, now_ns: int) -> None:
        """What stood since the last time stood until now."""
        span_ns, self._now_ns = now_ns - self._now_ns, max(now_ns, self._now_ns)
        if span_ns <= 0 or not self.wanted:
            return
        tally, machine = self.tally, self.machine
        tally.active_ns += span_ns
        if machine.state is not State.ACTIVE:
            tally.out_ns += span_ns
        bid, ask, touch = machine.own.bid.slot, machine.own.ask.slot, machine.touch
        mid = (touch.bid_ticks + touch.ask_ticks) * 0.5 if touch.two_sided else 0.0
        for slot in (bid, ask):
            if isinstance(slot, Live):
                lots = slot.total_lots - slot.filled_lots
                tally.side_ns += span_ns
                tally.size_lots += lots * span_ns
                tally.size_usd += lots * self._lot_usd() * span_ns
        if isinstance(bid, Live) and mid:
            tally.bid_away_bps += (mid - bid.price_ticks) / mid * BPS * span_ns
            tally.bid_away_ns += span_ns
        if isinstance(ask, Live) and mid:
            tally.ask_away_bps += (ask.price_ticks - mid) / mid * BPS * span_ns
            tally.ask_away_ns += span_ns
        if isinstance(bid, Live) and isinstance(ask, Live):
            tally.both_ns += span_ns
            if mid:
                tally.half_spread_bps += (ask.price_ticks - bid.price_ticks) * 0.5 / mid * BPS * span_ns
                tally.half_spread_ns += span_ns

    def pnl_usd(self, bound: ev.Bound) -> float | None:
        """At the last mark; None where it cannot be said."""
        machine = self.machine
        position: Position = machine.imagined.of(bound)
        profit = position.profit(machine.mark_price)
        return None if profit is None else usd_value(self.instrument, profit.total, machine.market.index)


def imagined(settings: SymbolSettings) -> SymbolSettings:
    """The same for orders that stay in the house; there is no exchange whose protection could be armed."""
    return msgspec.structs.replace(settings, mode=Mode.SHADOW, protected=False)
