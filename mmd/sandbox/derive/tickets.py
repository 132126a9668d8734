"""What an order of Derive has besides what the engine keeps: its signature, nonce, fee bound, and ancestry."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from mmd.sandbox.accounts import Account
from mmd.sandbox.orders import Order

KEPT = 50_000  # before those of orders that nobody remembers are dropped
LIFE_SEC = 3600


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """`price` is what was signed; that of the order is another where a post-only price was moved."""

    nonce: int
    signature: str
    signer: str
    expiry_sec: int
    max_fee: Decimal
    price: Decimal
    order_type: str
    time_in_force: str
    replaces: str | None = None


class Tickets:
    """By order id. Orders that came by a lever have none, and get one that looks right."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self._tickets: dict[str, Ticket] = {}

    def keep(self, order: Order, ticket: Ticket) -> None:
        if len(self._tickets) > KEPT:
            known = {
                key for account in self._accounts.values() for key in (*account.open_orders, *account.closed_orders)
            }
            self._tickets = {key: found for key, found in self._tickets.items() if key in known}
        self._tickets[order.order_id] = ticket

    def of(self, order: Order) -> Ticket:
        found = self._tickets.get(order.order_id)
        if found is not None:
            return found
        return Ticket(
            nonce=order.creation_timestamp * 1_000_000,
            signature="0x",
            signer="0x0000000000000000000000000000000000000000",
            expiry_sec=order.creation_timestamp // 1000 + LIFE_SEC,
            max_fee=Decimal(0),
            price=order.price,
            order_type="limit",
            time_in_force="post_only" if order.post_only else "gtc",
        )
