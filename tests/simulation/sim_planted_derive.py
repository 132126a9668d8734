"""Bugs of Derive's room to plant, of the kind that its protocol invites."""

from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from pytest import MonkeyPatch

from mmd.exchanges.derive import chains, orders


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


BUGS = (
    replaces_expect_nothing,
    chains_forget_their_past,
    lost_replaces_are_over,
    late_orders_are_taken,
)
