"""The gate: the one place that makes an Approved order. Pure; a refusal is a value with both numbers.

Cancels always pass. A place or an amend passes only if every rule of RULES can be computed and
holds; not being able to compute one is a refusal.
"""

import msgspec

from mmd.core.rules import Rules
from mmd.domain.actions import AmendOrder, Approved, CancelOrder, Order, PlaceOrder
from mmd.domain.reasons import Rule, Side, State


class Exposure(msgspec.Struct, frozen=True, gc=False):
    """What the gate knows of a symbol when an order wants to pass.

    Lots are the worst case besides this order: position, and everything live, in flight,
    unknown or stray per side. `others_on_side`: labels of ours, other than this order's, that
    may rest on its side. `reference_ticks`: 0.0 = unknown. `open_orders`: all orders of the service
    besides this one that are or may be at an exchange; counted for a place only.
    """

    state: State
    rules: Rules
    position_lots: int
    position_known: bool
    min_lots: int
    max_lots: int
    other_lots: int
    others_on_side: int
    own_lots: int
    reference_ticks: float
    budget_allows: bool
    open_orders: int = 0
    max_open_orders: int = 1


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Which rule, the number found and the limit; `key`: the line of the config that set it."""

    rule: Rule
    number: str
    limit: str
    key: str


def review(order: Order, exposure: Exposure | None) -> Approved | Refused:
    """Approve an order or say which rule stops it. Cancels need no exposure."""
    if isinstance(order, CancelOrder):
        return Approved(order)
    if exposure is None:
        return Refused(Rule.STATE, "unknown", State.ACTIVE, "")
    return check_order(order, exposure) or Approved(order)


def check_order(order: PlaceOrder | AmendOrder, exposure: Exposure) -> Refused | None:
    """The first rule that this order breaks, cheapest first; None if it may pass."""
    rules = exposure.rules
    if exposure.state is not State.ACTIVE:
        return Refused(Rule.STATE, exposure.state, State.ACTIVE, "")
    price = order.price_ticks
    reference = exposure.reference_ticks
    collar = reference * rules.collar_bps / 10_000.0
    if not (reference > 0.0 and abs(price - reference) <= collar):
        found = f"{abs(price / reference - 1) * 1e4:.1f} bps" if reference > 0.0 else "no reference price"
        return Refused(Rule.COLLAR, found, f"{rules.collar_bps:g} bps", "limits.per_symbol.collar_bps")
    lots = order.remaining_lots if isinstance(order, AmendOrder) else order.size_lots
    if not rules.min_lots <= lots <= rules.max_order_lots:
        limit = f"{rules.min_lots}..{rules.max_order_lots} lots"
        return Refused(Rule.ORDER_SIZE, f"{lots} lots", limit, "limits.per_symbol.max_order_size")
    if price < 1 or (rules.grid.steps and rules.grid.floor(price) != price):
        return Refused(Rule.GRID, f"{price} ticks", f"multiples of {rules.grid.step_at(price)}", "")
    if exposure.others_on_side:
        return Refused(Rule.ONE_ORDER, f"{exposure.others_on_side + 1} orders", "1 order per side", "")
    if exposure.open_orders >= exposure.max_open_orders and isinstance(order, PlaceOrder):
        limit = f"{exposure.max_open_orders} orders"
        found = f"{exposure.open_orders + 1} orders"
        return Refused(Rule.OPEN_ORDERS, found, limit, "limits.portfolio.max_open_orders")
    refusal = check_position(order.side, lots, exposure)
    if refusal is None and not exposure.budget_allows:
        return Refused(Rule.BUDGET, "credits below the cancels' reserve", "one credit above it", "")
    return refusal


def check_position(side: Side, lots: int, exposure: Exposure) -> Refused | None:
    """Worst-case position inside the bounds: position + everything that may fill + this order."""
    if not exposure.position_known:
        return Refused(Rule.POSITION, "position unknown", "a known position", "")
    worst = exposure.other_lots + max(lots, exposure.own_lots)
    key = "limits.per_symbol.max_position"
    if side is Side.BID and exposure.position_lots + worst > exposure.max_lots:
        return Refused(Rule.POSITION, f"{exposure.position_lots + worst} lots", f"{exposure.max_lots} lots", key)
    if side is Side.ASK and exposure.position_lots - worst < exposure.min_lots:
        return Refused(Rule.POSITION, f"{exposure.position_lots - worst} lots", f"{exposure.min_lots} lots", key)
    return None
