"""The judges' common ground: what they look at, and when they are asked.

`look` comes after everything that the exchange's engine does and must be cheap; `settled` again and again once
the weather has cleared, until nobody complains or it has taken too long; then `calm`, once; `stopped` after
an orderly stop; `over` at the very end.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from sim_story import Violation

from mmd.sandbox.model import Direction
from mmd.sandbox.orders import ZERO, Order

if TYPE_CHECKING:
    from sim_world import World


class Side:
    """What the exchange has of ours on one symbol."""

    __slots__ = ("asks", "bids", "position")

    def __init__(self, position: Decimal) -> None:
        self.position = position
        self.bids: list[Order] = []
        self.asks: list[Order] = []

    @property
    def high(self) -> Decimal:
        """What the position may become if every buy fills."""
        return self.position + sum((order.remaining for order in self.bids if not order.reduce_only), ZERO)

    @property
    def low(self) -> Decimal:
        return self.position - sum((order.remaining for order in self.asks if not order.reduce_only), ZERO)


def glance(world: "World") -> dict[str, Side]:
    """Our orders and positions as the matching engine has them."""
    account = world.account
    found = {}
    for symbol in world.plan.symbols:
        held = account.positions.get(symbol)
        found[symbol] = Side(held.size if held is not None else ZERO)
    for order in account.open_orders.values():
        if order.label.startswith(world.prefix):
            side = found[order.instrument_name]
            (side.bids if order.direction is Direction.BUY else side.asks).append(order)
    return found


class Oracle:
    """One promise. Every method raises Violation, or says nothing."""

    promise = ""

    def look(self, world: "World", sides: dict[str, Side]) -> None: ...

    def settled(self, world: "World") -> None: ...

    def calm(self, world: "World") -> None: ...

    def stopped(self, world: "World") -> None: ...

    def over(self, world: "World") -> None: ...

    def broken(self, detail: str, about: str = "") -> Violation:
        return Violation(self.promise, detail, about)


def shown(orders: list[Order]) -> str:
    return ", ".join(f"{order.label} {order.remaining} at {order.price}" for order in orders)


def all_ours(sides: dict[str, Side]) -> Iterator[Order]:
    for side in sides.values():
        yield from side.bids
        yield from side.asks
