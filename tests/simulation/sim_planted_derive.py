"""Bugs of Derive's room to plant, of the kind that its protocol invites."""

from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from pytest import MonkeyPatch

from mmd.core import orders as slots
from mmd.domain import events as ev
from mmd.exchanges import record
from mmd.exchanges.derive import chains, orders, questions


def replaces_expect_nothing(patch: MonkeyPatch) -> None:
    """A fill just before a replace is not noticed there: the new order is too large by it."""
    before = orders.replace_params

    def params(*words: Any, **more: Any) -> Any:
        return replace(before(*words, **more), expected_filled_amount=UNSET)

    patch.setattr(orders, "replace_params", params)


def chains_forget_their_past(patch: MonkeyPatch) -> None:
    """Only the newest order of a chain is known: what those before it filled is not counted."""
    before = chains.Chain._join

    def join(self: chains.Chain, seen: Any) -> Any:
        self.members.clear()
        self.current = None
        return before(self, seen)

    patch.setattr(chains.Chain, "_join", join)


def lost_replaces_are_over(patch: MonkeyPatch) -> None:
    """A request without an answer was not carried out, and will not be."""

    def lost(self: chains.Chain, order: object) -> None:
        self.answered(order)

    patch.setattr(chains.Chain, "lost", lost)


def late_orders_are_taken(patch: MonkeyPatch) -> None:
    """Orders do not say until when they may be taken."""
    before = orders._fields

    def fields(*words: Any) -> Any:
        return before(*words) | {"reject_timestamp": UNSET}

    patch.setattr(orders, "_fields", fields)


def absent_once_is_gone(patch: MonkeyPatch) -> None:
    """What is not there when we ask for the first time was never there.

    Three places have to be wrong: a machine asks twice, and the room neither asks nor says "absent" before
    requests about the order can arrive no more. Each is enough, so none is missed alone. On Deribit an order
    that arrives after the first question is too late by its own word: `late_requests_are_taken`.
    """
    before = slots.successor

    def successor(slot: Any, event: Any, now_ns: int, latency_ns: int) -> Any:
        return slots.EMPTY if isinstance(event, ev.OrderAbsent) else before(slot, event, now_ns, latency_ns)

    patch.setattr(slots, "successor", successor)
    patch.setitem(slots.TRANSITIONS, (slots.L, ev.OrderAbsent), (slots.E,))
    patch.setattr(questions.DeriveQuestions, "settled_ms", lambda self, label: 0)
    patch.setattr(record.OrderRecord, "may_come_until_ms", lambda self, label: 0)


BUGS = (
    absent_once_is_gone,
    replaces_expect_nothing,
    chains_forget_their_past,
    lost_replaces_are_over,
    late_orders_are_taken,
)
