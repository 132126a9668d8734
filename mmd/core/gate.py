"""The gate: the one place that makes an Approved order. Pure; a refusal is a value with both numbers.

Cancels always pass. A place or an amend passes only if every rule can be computed and holds; not
being able to compute one is a refusal. A closing order passes only where a quote may not: outside
ACTIVE, and only as far as it makes the position smaller. docs/gate.md prints the rules.
"""

import msgspec

from mmd.core.rules import Rules
from mmd.domain.actions import AmendOrder, Approved, CancelOrder, Order, PlaceOrder, ReduceOrder
from mmd.domain.reasons import Rule, Side, State

RESTING_STATES = (State.PAUSED, State.HALTED)


class Exposure(msgspec.Struct, frozen=True, gc=False):
    """What the gate knows of a symbol when an order wants to pass.

    Lots are the worst case besides this order: position, and everything live, in flight,
    unknown or stray per side. `others_on_side`: labels of ours, other than this order's, that
    may rest on its side. `reference_ticks`: 0.0 = unknown; `drift_low`, `drift_high`: between which it
    was within the window. `lot_usd`: worth of one lot, 0.0 = unknown. `vol_low`, `vol_high`: prices at
    the collar's ends in volatility, (0.0, 0.0) = unknown.
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
    drift_low: float
    drift_high: float
    lot_usd: float
    vol_low: float
    vol_high: float


class Room(msgspec.Struct, frozen=True, gc=False):
    """What the service as a whole has left for one order.

    `budget`: one message above the cancels' reserve is left at the exchange. `rate`: the symbol's own rate
    of such messages is kept. `orders`, `max_orders`, `key`: the fullest of the totals of open orders,
    this one not counted; asked for a place only. `journal`: what is decided can be written down.
    """

    budget: bool
    rate: bool
    orders: int = 0
    max_orders: int = 1
    key: str = "max_open_orders"
    journal: bool = True


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Which rule, the number found and the limit; `key`: the limit's name in the configuration, if it is one."""

    rule: Rule
    number: str
    limit: str
    key: str


def review(order: Order, exposure: Exposure | None, room: Room | None) -> Approved | Refused:
    """Approve an order or say which rule stops it. Cancels need to know nothing."""
    if isinstance(order, CancelOrder):
        return Approved(order)
    if exposure is None or room is None:
        return Refused(Rule.STATE, "unknown", str(State.ACTIVE), "")
    if not room.journal:
        return Refused(Rule.JOURNAL, "failing", "writable", "")
    if isinstance(order, ReduceOrder):
        return check_closing(order, exposure, room) or Approved(order)
    return check_order(order, exposure, room) or Approved(order)


def check_order(order: PlaceOrder | AmendOrder, exposure: Exposure, room: Room) -> Refused | None:
    """The first rule that this order breaks, cheapest first; None if it may pass."""
    rules = exposure.rules
    if exposure.state is not State.ACTIVE:
        return Refused(Rule.STATE, str(exposure.state), str(State.ACTIVE), "")
    lots = order.remaining_lots if isinstance(order, AmendOrder) else order.size_lots
    refusal = check_price(order.price_ticks, exposure) or check_size(lots, rules.min_lots, exposure)
    if refusal is not None:
        return refusal
    if exposure.others_on_side:
        return Refused(Rule.ONE_ORDER, f"{exposure.others_on_side + 1} orders", "1 order per side", "")
    if room.orders >= room.max_orders and isinstance(order, PlaceOrder):
        return Refused(Rule.OPEN_ORDERS, f"{room.orders + 1} orders", f"{room.max_orders} orders", room.key)
    return check_position(order.side, lots, exposure) or check_messages(order, rules, room)


def check_closing(order: ReduceOrder, exposure: Exposure, room: Room) -> Refused | None:
    """As `check_order` for an order that closes: bounds do not matter to it, the position's own size does."""
    if exposure.state not in RESTING_STATES:
        return Refused(Rule.STATE, str(exposure.state), "PAUSED or HALTED", "")
    if not exposure.position_known:
        return Refused(Rule.POSITION, "position unknown", "a known position", "")
    position = exposure.position_lots
    closable = max(0, -position if order.side is Side.BID else position)
    others = exposure.other_lots
    if others or exposure.others_on_side:
        return Refused(Rule.ONE_ORDER, f"{exposure.others_on_side + 1} orders", "1 order per side", "")
    if order.size_lots > closable:
        return Refused(Rule.REDUCE_ONLY, f"{order.size_lots} lots", f"{closable} lots of position", "")
    refusal = check_price(order.price_ticks, exposure) or check_size(order.size_lots, 1, exposure)
    return refusal or check_messages(order, exposure.rules, room)


def check_price(price: int, exposure: Exposure) -> Refused | None:
    """Grid, and the collars: from the reference, in volatility, and how far the reference itself has moved."""
    rules = exposure.rules
    if not rules.allowed:
        return Refused(Rule.INSTRUMENT, "not in the list", "instruments of limits.allowed", "allowed")
    reference = exposure.reference_ticks
    collar = reference * rules.collar_bps / 10_000.0
    if not (reference > 0.0 and abs(price - reference) <= collar):
        found = f"{abs(price / reference - 1) * 1e4:.1f} bps" if reference > 0.0 else "no reference price"
        return Refused(Rule.COLLAR, found, f"{rules.collar_bps:g} bps", "collar_bps")
    moved = exposure.drift_high - reference
    if reference - exposure.drift_low > moved:
        moved = reference - exposure.drift_low
    if moved > rules.max_drift_ticks and moved * 10_000.0 > reference * rules.max_drift_bps:
        found = f"reference moved {moved / reference * 1e4:.0f} bps in {rules.drift_window_ns / 1e9:g} s"
        return Refused(Rule.DRIFT, found, f"{rules.max_drift_bps:g} bps", "max_drift_bps")
    if rules.collar_vol_points and not exposure.vol_low <= price <= exposure.vol_high:
        found = f"{price} ticks" if exposure.vol_high else "no volatility of the mark"
        limit = f"{exposure.vol_low:.1f}..{exposure.vol_high:.1f} ticks, {rules.collar_vol_points:g} points"
        return Refused(Rule.VOL_COLLAR, found, limit, "collar_vol_points")
    if price < 1 or (rules.grid.steps and rules.grid.floor(price) != price):
        return Refused(Rule.GRID, f"{price} ticks", f"multiples of {rules.grid.step_at(price)}", "")
    return None


def check_size(lots: int, least: int, exposure: Exposure) -> Refused | None:
    """Size in lots and in money."""
    rules = exposure.rules
    if not least <= lots <= rules.max_order_lots:
        return Refused(Rule.ORDER_SIZE, f"{lots} lots", f"{least}..{rules.max_order_lots} lots", "max_order_size")
    worth = lots * exposure.lot_usd
    if not 0.0 < worth <= rules.max_order_usd:
        found = f"{worth:.2f} USD" if worth else "value unknown"
        return Refused(Rule.ORDER_VALUE, found, f"{rules.max_order_usd:.2f} USD", "max_order_value_usd")
    return None


def check_position(side: Side, lots: int, exposure: Exposure) -> Refused | None:
    """Worst-case position inside the bounds: position + everything that may fill + this order."""
    if not exposure.position_known:
        return Refused(Rule.POSITION, "position unknown", "a known position", "")
    worst = exposure.other_lots + max(lots, exposure.own_lots)
    if side is Side.BID and exposure.position_lots + worst > exposure.max_lots:
        found, limit = exposure.position_lots + worst, exposure.max_lots
    elif side is Side.ASK and exposure.position_lots - worst < exposure.min_lots:
        found, limit = exposure.position_lots - worst, exposure.min_lots
    else:
        return None
    return Refused(Rule.POSITION, f"{found} lots", f"{limit} lots", "max_position")


def check_messages(order: Order, rules: Rules, room: Room) -> Refused | None:
    """The exchange's budget, and the symbol's own rate."""
    if not room.budget:
        free = "one above the cancels' reserve and the turns of who waits longer"
        return Refused(Rule.BUDGET, "no credit free", free, "")
    if not room.rate:
        amends = isinstance(order, AmendOrder)
        limit = rules.max_amends_per_second if amends else rules.max_places_per_second
        key = "max_amends_per_second" if amends else "max_places_per_second"
        return Refused(Rule.MESSAGE_RATE, "no message left", f"{limit:g} a second", key)
    return None
