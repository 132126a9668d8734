"""A margin of the right kind and about the right size, so that orders can be refused for want of it. Pure.

Not Derive's: one rate of the index for perpetuals, the usual rule for short options, nothing netted, no
portfolio margin. All figures in USDC; initial and maintenance are what is left, as Derive shows them.
"""

from decimal import Decimal
from typing import NamedTuple

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.accounts import Account
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import ZERO

PERP_INITIAL, PERP_MAINTENANCE = Decimal("0.05"), Decimal("0.03")
SHORT_RATE, SHORT_LEAST, SHORT_MAINTENANCE = Decimal("0.15"), Decimal("0.13"), Decimal("0.08")
USDC = "USDC"


class Needs(msgspec.Struct, frozen=True):
    """What a position needs, in USDC."""

    value: Decimal
    initial: Decimal
    maintenance: Decimal


class Carried(NamedTuple):
    """An order, as far as margin is concerned."""

    listing: Listing
    direction: Direction
    amount: Decimal
    price: Decimal


class Margins(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has, and what is left of it. `open_orders` is zero or negative."""

    collateral: Decimal
    positions_value: Decimal
    positions_initial: Decimal
    positions_maintenance: Decimal
    open_orders: Decimal

    @property
    def value(self) -> Decimal:
        return self.collateral + self.positions_value

    @property
    def initial(self) -> Decimal:
        return self.collateral + self.positions_initial

    @property
    def maintenance(self) -> Decimal:
        return self.collateral + self.positions_maintenance


def _index(floor: Floor, listing: Listing) -> Decimal:
    return floor.index_price(listing.instrument.price_index)


def _short_rate(floor: Floor, listing: Listing) -> Decimal:
    """What a unit of a short option needs initially, besides its mark."""
    instrument, index = listing.instrument, _index(floor, listing)
    strike = instrument.strike or ZERO
    out = max(ZERO, strike - index if instrument.option_type == "call" else index - strike)
    return max(SHORT_RATE * index - out, SHORT_LEAST * index)


def position_needs(floor: Floor, listing: Listing, size: Decimal, session_price: Decimal, held: Decimal) -> Needs:
    """Of a position of this signed size; `held` is profit and funding not settled yet, perpetuals only."""
    mark = listing.mark_price
    if not contracts.is_option(listing.instrument):
        value = contracts.profit(listing.instrument, size, session_price, mark) + held
        notional = abs(size) * _index(floor, listing)
        return Needs(value, value - PERP_INITIAL * notional, value - PERP_MAINTENANCE * notional)
    value = size * mark
    if size >= 0:  # paid for; not lent upon
        return Needs(value, ZERO, ZERO)
    index = _index(floor, listing)
    return Needs(value, value + size * _short_rate(floor, listing), value + size * SHORT_MAINTENANCE * index)


def order_need(floor: Floor, order: Carried) -> Decimal:
    """What an order may need if it fills."""
    if not contracts.is_option(order.listing.instrument):
        return order.amount * PERP_INITIAL * _index(floor, order.listing)
    return order.amount * (order.price if order.direction is Direction.BUY else _short_rate(floor, order.listing))


def margins(floor: Floor, account: Account, more: Carried | None = None) -> Margins:
    """Everything of one account; of the two sides of an instrument the one that needs more counts."""
    needs = []
    for name, position in account.positions.items():
        if position.size or position.realized or position.funding:
            held = position.realized + position.funding
            needs.append(position_needs(floor, floor.listings[name], position.size, position.session_price, held))
    orders = [
        Carried(floor.listings[order.instrument_name], order.direction, order.remaining, order.price)
        for order in account.open_orders.values()
    ]
    sides: dict[str, dict[Direction, Decimal]] = {}
    for order in orders if more is None else [*orders, more]:
        found = sides.setdefault(order.listing.instrument.instrument_name, {})
        found[order.direction] = found.get(order.direction, ZERO) + order_need(floor, order)
    return Margins(
        collateral=account.wallet(USDC).balance,
        positions_value=sum((need.value for need in needs), ZERO),
        positions_initial=sum((need.initial for need in needs), ZERO),
        positions_maintenance=sum((need.maintenance for need in needs), ZERO),
        open_orders=-sum((max(found.values()) for found in sides.values()), ZERO),
    )


def suffices(floor: Floor, account: Account, more: Carried) -> bool:
    """Whether the account can carry one more order; one that only reduces a position always."""
    position = account.positions.get(more.listing.instrument.instrument_name)
    size = position.size if position is not None else ZERO
    if more.amount <= -contracts.signed(more.direction, size):
        return True
    have = margins(floor, account, more)
    return have.initial + have.open_orders >= ZERO
