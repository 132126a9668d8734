"""Levers that only Derive has. Accounts are subaccounts, by number; a wallet goes by its address.

`cut`, `stall_connections` and `resume_connections` take either.
"""

from mmd.sandbox.derive.context import Incident
from mmd.sandbox.derive.dialect import Dialect
from mmd.sandbox.derive.options import Told
from mmd.sandbox.derive.wallets import SessionKey, Wallet
from mmd.sandbox.faults import Methods
from mmd.sandbox.levers import ORDERS_AND_EDITS, Levers
from mmd.sandbox.orders import CancelReason
from mmd.sandbox.truth import Panel

REPLACE = "private/replace"
MAINTENANCE = "Maintenance"


class DeriveLevers(Levers):
    """The levers of every exchange, with Derive's errors, and its own. ValueError for what cannot be done now."""

    ORDER_REFUSED = (11002, "Rejected from queue")
    CANCEL_REFUSED = (-32603, "Internal error")
    CANCEL_MISSED = (11004, "Already filled")

    def __init__(self, panel: Panel, dialect: Dialect) -> None:
        super().__init__(panel)
        self._dialect = dialect
        self._trouble = dialect.context.trouble

    # --- orders --------------------------------------------------------------------------------

    def fail_replaces(self, count: int = 1, code: int = 11000, message: str = "Insufficient funds") -> None:
        """The next replaces cancel, and make no order: `create_order_error` has this error."""
        self._trouble.failing_replaces += [(code, message)] * count

    def fill_before_edits(self, count: int | None = 1, steps: int | None = None) -> None:
        """The orders that the next replaces mean are filled just before.

        At most so many of the instrument's least steps (None: all that is left).
        """
        self._panel.faults.race(count, method=REPLACE, steps=steps)

    def confirm_with_error(
        self, count: int | None, code: int, message: str, methods: Methods = ORDERS_AND_EDITS
    ) -> None:
        """The next such requests are carried out, and answered with this error."""
        self._panel.faults.confirm_with_error(count, code, message, methods)

    def tell_replaced(self, told: Told) -> None:
        """When the orders channel tells of replaces: before or after their answers, or as the seed has it."""
        self._trouble.replaced_told = told

    def show_mismatch(self, *, in_result: bool) -> None:
        """Whether 11028 comes as create_order_error of a result, instead of as an error."""
        self._trouble.mismatch_in_result = in_result

    def expire_order(self, account: str, order_id: str) -> None:
        """Its signature ends now."""
        order = self._account(account).open_orders.get(order_id)
        if order is None:
            raise ValueError(f"{account} has no open order {order_id}")
        self._panel.engine.expire(order, self._panel.now_ms)
        self._panel.publish()

    def cancel_wallet(self, wallet: str) -> int:
        """Somebody cancels everything of a wallet, all subaccounts, over a connection of his own. How many."""
        return self._dialect.cancel_wallet(self._wallet(wallet), CancelReason.USER_REQUEST)

    def disarm(self) -> None:
        super().disarm()
        self._trouble.failing_replaces.clear()
        self._trouble.failing_fetches = 0

    # --- the wallet ----------------------------------------------------------------------------

    def set_cancel_on_disconnect(self, wallet: str, *, enabled: bool) -> None:
        """Somebody else changes what is stored of a wallet."""
        self._wallet(wallet).cancel_on_disconnect = enabled

    def disconnect_elsewhere(self, wallet: str) -> int:
        """Another logged-in connection of the wallet is gone: where that is armed, all its orders are. How many."""
        return self._dialect.disconnected(self._wallet(wallet))

    def expire_key(self, wallet: str, key: str, at_second: int | None = None) -> None:
        """A session key ends at this time (None: now); its orders rest on until their signatures end."""
        second = self._panel.now_ms // 1000 if at_second is None else at_second
        self._key(wallet, key).expiry_sec = second

    def remove_key(self, wallet: str, key: str) -> int:
        """A session key is deregistered, and the orders that it signed are cancelled. How many."""
        owner, found = self._wallet(wallet), self._key(wallet, key)
        del owner.keys[found.address]
        tickets = self._dialect.context.tickets
        return self._dialect.cancel_wallet(
            owner, CancelReason.KEY_GONE, lambda order: tickets.of(order).signer == found.address
        )

    def burn_nonce(self, wallet: str, nonce: int) -> None:
        """Somebody has used this nonce."""
        self._wallet(wallet).nonces.add(nonce)

    def exhaust(self, wallet: str, kind: str) -> None:
        """Somebody spends the rest of a wallet's window: matching, non_matching, cancel_all or labels."""
        self._dialect.context.budgets.exhaust(self._wallet(wallet).address, kind, self._panel.now_ms)

    def fail_fetches(self, count: int = 1) -> None:
        """The next private/get_subaccount say failed_to_fetch, and have nothing."""
        self._trouble.failing_fetches += count

    def freeze(self, account: str, currency: str) -> None:
        """Market maker protection of a currency fires now. ValueError where none is configured."""
        self.trip_protection(account, self._dialect.context.index(currency))

    # --- market data ---------------------------------------------------------------------------

    def date_books(self, milliseconds: int) -> None:
        """Books have a time so far in the past from now on, as of a feed that is behind; 0 ends it."""
        self._trouble.books_late_ms = milliseconds

    def drop_channels(self, *names: str) -> None:
        """Subscriptions end without a word; who asks again has them again."""
        for name in names:
            self._dialect.context.publisher.drop(name)

    def refuse_channels(self, *names: str) -> None:
        """Who subscribes to one of these gets the others only, until the next call."""
        self._trouble.refused_channels = frozenset(names)

    # --- the platform --------------------------------------------------------------------------

    def raise_incident(self, label: str, message: str = "", severity: str = "medium") -> None:
        """Declare an incident, which public/get_live_incidents lists until `end_incidents`."""
        incident = Incident(
            label=label,
            message=message,
            severity=severity,
            monitor_type="manual",
            creation_timestamp=self._panel.now_ms,
        )
        self._trouble.incidents.append(incident)

    def end_incidents(self) -> None:
        """List none any more."""
        self._trouble.incidents.clear()

    def begin_maintenance(self) -> None:
        """Declare an incident, and answer every other call with -32603 (assumed). Links stay up: see `cut`."""
        self.raise_incident(MAINTENANCE, "the exchange is down", "high")
        self._panel.faults.maintenance = True

    def end_maintenance(self) -> None:
        super().end_maintenance()
        self._trouble.incidents[:] = [row for row in self._trouble.incidents if row.label != MAINTENANCE]

    def _wallet(self, wallet: str) -> Wallet:
        found = self._dialect.context.wallets.by_address.get(wallet)
        if found is None:
            raise ValueError(f"no wallet {wallet}")
        return found

    def _key(self, wallet: str, key: str) -> SessionKey:
        found = self._wallet(wallet).keys.get(key)
        if found is None:
            raise ValueError(f"wallet {wallet} has no session key {key}")
        return found
