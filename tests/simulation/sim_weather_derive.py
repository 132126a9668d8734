"""What goes wrong on Derive alone, besides everything that goes wrong elsewhere."""

from sim_weather import Weather

from mmd.sandbox.derive.levers import REPLACE, DeriveLevers
from mmd.sandbox.derive.options import Told
from mmd.sandbox.levers import ORDERS, ORDERS_AND_EDITS

FAILED = (
    (11000, "Insufficient funds"),
    (11008, "Post only reject"),
    (11013, "Invalid price"),
    (11022, "Reject timestamp passed"),
    (11015, "Market maker protection frozen"),
    (11002, "Rejected from queue"),
)
UNCONFIRMED = (
    (9000, "Order confirmation timeout"),
    (9001, "Engine confirmation timeout"),
    (-32603, "Internal error"),
)
RATE_LIMITED = (-32000, "Rate limit exceeded")
KINDS_OF_BUDGET = ("matching", "matching", "non_matching", "cancel_all", "labels")


class DeriveWeather(Weather):
    """With the faults of one wallet, of replaces, and of orders that end by themselves."""

    @property
    def _levers(self) -> DeriveLevers:
        levers = self._world.sandbox.levers
        assert isinstance(levers, DeriveLevers)
        return levers

    @property
    def _wallet(self) -> str:
        return self._ground.id

    # --- replaces --------------------------------------------------------------------------------

    def _half_replace(self, a: float, b: float) -> str:
        """The old order is gone, and there is no new one."""
        code, message = FAILED[int(b * len(FAILED))]
        self._levers.fail_replaces(1 + int(a * 3), code, message)
        return f"{1 + int(a * 3)}, {message}"

    def _fill_before_edits(self, a: float, b: float) -> str:
        """So that the filled amount differs from what the replace expects, or nothing is left to replace."""
        steps = None if b > 0.7 else 1 + int(b * 60)
        self._levers.fill_before_edits(1 + int(a * 3), steps)
        return f"{1 + int(a * 3)}, {steps or 'all'}"

    def _show_mismatch(self, a: float, b: float) -> str:
        self._levers.show_mismatch(in_result=True)
        self._until(5 + a * 20, lambda: self._levers.show_mismatch(in_result=False))
        return "11028 in a result"

    def _told_replaces(self, a: float, b: float) -> str:
        told = Told.BEFORE if b < 0.5 else Told.AFTER
        self._levers.tell_replaced(told)
        self._until(5 + a * 20, lambda: self._levers.tell_replaced(Told.SEED))
        return f"{told} their answers"

    # --- ends ------------------------------------------------------------------------------------

    def _expire_order(self, a: float, b: float) -> str | None:
        orders = list(self._world.account.open_orders.values())
        if not orders:
            return None
        chosen = orders[int(a * len(orders))]
        self._levers.expire_order(self._ground.account, chosen.order_id)
        return chosen.label

    def _unconfirmed(self, a: float, b: float) -> str:
        """Carried out, and answered with an error that may mean anything."""
        code, message = UNCONFIRMED[int(b * len(UNCONFIRMED))]
        methods = (ORDERS, REPLACE, ORDERS_AND_EDITS)[int(b * 99) % 3]
        self._levers.confirm_with_error(1 + int(a * 3), code, message, methods)
        return f"{1 + int(a * 3)}, {message}"

    def _unanswered(self, a: float, b: float) -> str:
        """Carried out late, without an answer: it may rest, and fill, when nobody waits for it any more."""
        delay_ms = 50 + int(a * a * 5000)
        self._levers.delay_requests(1 + int(b * 3), delay_ms, ORDERS_AND_EDITS, answered=False)
        return f"{1 + int(b * 3)}, {delay_ms} ms"

    # --- the wallet ------------------------------------------------------------------------------

    def _cancel_wallet(self, a: float, b: float) -> str:
        return f"{self._levers.cancel_wallet(self._wallet)} orders"

    def _disconnect_elsewhere(self, a: float, b: float) -> str:
        """Another login of the wallet ends, and with it every order."""
        return f"{self._levers.disconnect_elsewhere(self._wallet)} orders"

    def _disarm_wallet(self, a: float, b: float) -> str:
        """Somebody switches cancel-on-disconnect off, for as long as the daemon leaves it so."""
        self._levers.set_cancel_on_disconnect(self._wallet, enabled=False)
        self._until(5 + a * 20, lambda: self._levers.set_cancel_on_disconnect(self._wallet, enabled=True))
        return "cancel-on-disconnect is off"

    def _exhaust(self, a: float, b: float) -> str:
        kind = KINDS_OF_BUDGET[int(b * len(KINDS_OF_BUDGET))]
        self._levers.exhaust(self._wallet, kind)
        return kind

    def _throttle(self, a: float, b: float) -> str:
        methods = self._method(b)
        self._levers.refuse_orders(1 + int(a * 5), *RATE_LIMITED, methods)
        return str(methods)

    def _fail_fetches(self, a: float, b: float) -> str:
        self._levers.fail_fetches(1 + int(a * 3))
        return f"{1 + int(a * 3)}"

    # --- what is told ----------------------------------------------------------------------------

    def _late_trades(self, a: float, b: float) -> str:
        """Histories have executions later than positions do."""
        delay_ms = 50 + int(a * a * 4000)
        self._levers.list_trades_late(delay_ms)
        self._until(3 + b * 15, lambda: self._levers.list_trades_late(0))
        self._world.withheld_at = self._world.now + 3 + b * 15
        return f"{delay_ms} ms"

    def _late_orders(self, a: float, b: float) -> str:
        self._levers.tell_orders_late(1 + int(a * 4), 50 + int(b * b * 5000), self._ground.account)
        return f"{50 + int(b * b * 5000)} ms"

    def _split_fills(self, a: float, b: float) -> str:
        self._levers.split_fills(1 + int(a * 4), 50 + int(b * b * 5000), self._ground.account)
        return f"{50 + int(b * b * 5000)} ms"

    def _repeat_answers(self, a: float, b: float) -> str:
        self._levers.repeat_answers(1 + int(a * 4), self._method(b))
        return str(self._method(b))

    def _incident(self, a: float, b: float) -> str:
        self._levers.raise_incident("Matching engine", "slow")
        self._until(3 + b * 15, self._levers.end_incidents)
        return "declared"
