"""A playbook: what the machine sees and what it must do, as one sentence a line.

    play().active().sees(book(990, 1010)).does(place(BID, 1, 995), place(ASK, 2, 1005))

Every action must be named, in order, except timers and notes (those are asked for by name).
"""

from typing import Any, Self

from core_kit import ASK, BID, EPOCH, NS, PLAIN, START_NS, acked, book, label, settings, ticker

from mmd.core.machine import SymbolMachine
from mmd.core.orders import Slot
from mmd.domain import events as ev
from mmd.domain.actions import (
    AckBounds,
    Action,
    AmendOrder,
    CancelOrder,
    CaseClosed,
    CaseOpened,
    Noted,
    PlaceOrder,
    Reply,
    SetTimer,
    StateChanged,
    Tripped,
)
from mmd.domain.reasons import Missing, Phase, Side, State, Switch, Why
from mmd.domain.settings import SymbolSettings

QUIET = (SetTimer, Noted)


class Play:
    """One symbol machine on a clock of its own. Actions pile up until `does` names them."""

    def __init__(self, given: SymbolSettings | None = None, instrument: Any = PLAIN) -> None:
        self.now_ns = START_NS
        self.machine = SymbolMachine(instrument, given or settings(), EPOCH, START_NS)
        self.todo: list[Any] = []
        self.notes: list[str] = []
        self.replies: list[Reply] = []
        self.moves: list[StateChanged] = []
        self.trips: list[Tripped] = []
        self.cases: list[CaseOpened | CaseClosed] = []
        self.timer_ns = 0
        self.wakeups = 0
        self.requests = 0

    # --- what happens ---

    def sees(self, *events: ev.Mail) -> Self:
        """One batch."""
        for action in self.machine.handle(events, self.now_ns):
            self._note(action)
        return self

    def _note(self, action: Action) -> None:
        match action:
            case SetTimer(at_ns=at_ns):
                self.timer_ns = at_ns
            case Noted(name=name):
                self.notes.append(name)
            case Reply():
                self.replies.append(action)
            case StateChanged():
                self.moves.append(action)
            case Tripped():
                self.trips.append(action)
            case CaseOpened() | CaseClosed():
                self.cases.append(action)
            case _:
                self.todo.append(action)

    def after(self, seconds: float) -> Self:
        """Let time pass; the timer fires when it is due."""
        end_ns = self.now_ns + int(seconds * NS)
        while self.timer_ns and self.timer_ns <= end_ns:
            self.now_ns, self.timer_ns = max(self.now_ns, self.timer_ns), 0
            self.wakeups += 1
            assert self.wakeups < 1000, "the machine keeps itself awake"
            self.sees(ev.TimerFired(self.now_ns))
        self.now_ns = end_ns
        return self

    def sees_book(self, bid: int, ask: int, **more: Any) -> Self:
        return self.sees(book(bid, ask, self.now_ns, **more))

    def sees_ticker(self, mark: float = 100.0, **more: Any) -> Self:
        return self.sees(ticker(self.now_ns, mark, **more))

    def asks(self, kind: Any, **more: Any) -> Self:
        """An operator's request: ResumeRequested, PauseRequested, HaltRequested or ResetRequested."""
        self.requests += 1
        return self.sees(kind(request_id=self.requests, by="root", reason="test", received_ns=self.now_ns, **more))

    # --- where scenes start ---

    def connected(self, *, low: int = -100, high: int = 100, position: int = 0) -> Self:
        """Links up, reconciled, position known, bounds granted; still PAUSED(startup)."""
        self.sees(
            ev.DataLinkUp(self.now_ns),
            ev.TradeLinkUp(True, self.now_ns),
            ev.OrdersReported((), self.now_ns),
            ev.PositionReported(position, PLAIN.grid.price(1000), self.now_ns),
            ev.BoundsSet(1, low, high, self.now_ns),
        )
        return self.does(AckBounds(1, low, high))

    def active(self, bid: int = 990, ask: int = 1010, **more: Any) -> Self:
        """ACTIVE on a book, its two orders requested: bid number 1, ask number 2."""
        self.connected(**more).sees_book(bid, ask).does_nothing()
        self.asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED)
        return self

    def quoting(self, **more: Any) -> Self:
        """ACTIVE with a live bid (1) at 995 and a live ask (2) at 1005, 10 lots each."""
        self.active(**more).does(place(BID, 1, 995), place(ASK, 2, 1005))
        return self.sees(acked(label(BID, 1), 995, 10), acked(label(ASK, 2), 1005, 10)).does_nothing()

    # --- what must be so ---

    def does(self, *expected: Action) -> Self:
        assert self.todo == list(expected)
        self.todo = []
        return self

    def does_nothing(self) -> Self:
        return self.does()

    def notes_(self, *names: str) -> Self:
        """These notes, and no others, since the last look."""
        assert self.notes == list(names)
        self.notes = []
        return self

    def is_in(self, state: State, why: Why) -> Self:
        assert (self.machine.state, self.machine.why) == (state, why), self.machine.detail
        return self

    def tripped(self, *switches: Switch) -> Self:
        """These kill switches, and no others, since the last look."""
        assert [trip.switch for trip in self.trips] == list(switches)
        self.trips = []
        return self

    def replied(self, ok: bool, *words: str) -> Self:
        """The last reply, and words of it."""
        reply = self.replies[-1]
        assert reply.request_id == self.requests and reply.ok is ok, reply
        for word in words:
            assert word in reply.detail, reply
        return self

    def slots(self, bid: Phase, ask: Phase) -> Self:
        assert (self.slot(BID).phase, self.slot(ASK).phase) == (bid, ask)
        return self

    def withholds(self, why: Missing) -> Self:
        """Neither side is wanted, both for this reason."""
        wanted = (self.machine.own.bid.wanted, self.machine.own.ask.wanted)
        assert [getattr(side, "why", side) for side in wanted] == [why, why]
        return self

    def slot(self, side: Side) -> Slot:
        return (self.machine.own.bid if side is BID else self.machine.own.ask).slot


def place(side: Side, n: int, price: int, lots: int = 10) -> PlaceOrder:
    return PlaceOrder(label(side, n), side, price, lots)


def amend(side: Side, n: int, price: int, lots: int = 10, total: int | None = None) -> AmendOrder:
    name = label(side, n)
    return AmendOrder(name, f"id-{name}", side, price, lots if total is None else total, lots)


def cancel(side: Side, n: int) -> CancelOrder:
    name = label(side, n)
    return CancelOrder(name, f"id-{name}", side)
