"""What to do, in the imperative. A symbol's machine returns these; nothing happens until the shell acts."""

import msgspec

from mmd.domain.reasons import CaseKind, Response, Scope, Side, State, Switch, Why


class Action(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Root of the union; never made itself."""


class PlaceOrder(Action, frozen=True):
    """A post-only limit order; refused by the exchange rather than taking liquidity."""

    label: str
    side: Side
    price_ticks: int
    size_lots: int


class AmendOrder(Action, frozen=True):
    """Change price and size of the order in place. `total_lots` includes what it has filled already."""

    label: str
    order_id: str
    side: Side
    price_ticks: int
    total_lots: int
    remaining_lots: int


class CancelOrder(Action, frozen=True):
    """`order_id` is empty when only the label is known."""

    label: str
    order_id: str
    side: Side


class ReduceOrder(Action, frozen=True):
    """Immediate-or-cancel and reduce-only: takes what the book offers up to this price, never rests."""

    label: str
    side: Side
    price_ticks: int
    size_lots: int


class QueryOrder(Action, frozen=True):
    """Ask the exchange what became of this label: its fills, then OrderAcked, OrderClosed or OrderAbsent."""

    label: str
    order_id: str


class QueryState(Action, frozen=True):
    """Ask for open orders and position of this instrument: answered by fills, OrdersReported, PositionReported."""


class SetTimer(Action, frozen=True):
    """Send TimerFired at this time; replaces the timer set before."""

    at_ns: int


class AckBounds(Action, frozen=True):
    """The worst case is inside these bounds from now on."""

    version: int
    min_lots: int
    max_lots: int


class Check(msgspec.Struct, frozen=True):
    """One readiness check with both numbers."""

    name: str
    ok: bool
    found: str
    wanted: str


class Reply(Action, frozen=True):
    """The answer to an operator's request."""

    request_id: int
    ok: bool
    detail: str
    checks: tuple[Check, ...]


class StateChanged(Action, frozen=True):
    """For the log, the events stream and alerts."""

    old: State
    new: State
    why: Why
    by: str
    detail: str


class Tripped(Action, frozen=True):
    """A kill switch tripped. `target`: a symbol's key or an exchange's name; empty for the portfolio."""

    switch: Switch
    scope: Scope
    target: str
    response: Response
    detail: str


class CaseOpened(Action, frozen=True):
    """The exchange and we differ; `subject` is the order's label, or empty. No resume until it is closed."""

    case: CaseKind
    subject: str
    ours: str
    theirs: str


class CaseClosed(Action, frozen=True):
    """The difference is gone, or an operator has accepted it: then `by` and `reason` say who and why."""

    case: CaseKind
    subject: str
    by: str
    reason: str


class Noted(Action, frozen=True):
    """Something an operator wants to read later: a fill, a refusal, a foreign order."""

    name: str
    detail: str


Request = PlaceOrder | AmendOrder | CancelOrder | ReduceOrder | QueryOrder | QueryState
"""What goes to an exchange."""

Order = PlaceOrder | AmendOrder | CancelOrder | ReduceOrder


class Approved(msgspec.Struct, frozen=True, gc=False):
    """An order that passed the gate. Only mmd.core.gate makes one; the outbox takes no other order."""

    order: Order


Decision = Request | SetTimer | AckBounds | Reply | StateChanged | Tripped | CaseOpened | CaseClosed | Noted
