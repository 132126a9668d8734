"""What is true at the exchange, whatever it tells its clients: for judges. The front of it is `Sandbox.levers`."""

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from mmd.sandbox.accounts import Account, LedgerRow, Wallet
from mmd.sandbox.alarms import Alarms
from mmd.sandbox.clock import Clock
from mmd.sandbox.engine import Engine
from mmd.sandbox.faults import Faults
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import ZERO, Order, UserTrade
from mmd.sandbox.publisher import Publisher
from mmd.sandbox.server import Server


class Panel(Protocol):
    """What dialects and levers hang on: a `Sandbox`. `alarms` ring by the exchange's clock while it runs."""

    engine: Engine
    faults: Faults
    publisher: Publisher[Any]
    server: Server[Any]
    clock: Clock
    alarms: Alarms

    @property
    def now_ms(self) -> int: ...

    def wall_us(self) -> int: ...

    def publish(self) -> None: ...

    def later(self, seconds: float, action: Callable[[], object]) -> None: ...

    def settle(self, now_ms: int, *, daily: bool) -> None: ...

    def deliver(self, name: str, price: Decimal, now_ms: int) -> None: ...

    def want(self, name: str) -> None: ...


class Truth:
    """Copies, so that nothing that a judge does changes the exchange."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def open_orders(self, account: str, instrument: str | None = None) -> list[Order]:
        """The account's open orders as the engine has them, oldest first, labels included; copies."""
        orders = self._account(account).open_orders.values()
        return [copy.copy(order) for order in orders if instrument in (None, order.instrument_name)]

    def closed_orders(self, account: str, instrument: str | None = None) -> list[Order]:
        """Its closed orders, oldest first, with state, fills and cancel reason; copies."""
        orders = self._account(account).closed_orders.values()
        return [copy.copy(order) for order in orders if instrument in (None, order.instrument_name)]

    def position(self, account: str, instrument: str) -> Decimal:
        """Its true signed position in the amount unit, whatever reports say."""
        position = self._account(account).positions.get(instrument)
        return position.size if position is not None else ZERO

    def trades(self, account: str, instrument: str | None = None) -> list[UserTrade]:
        """Its executions, oldest first, labels included; a self trade stands here twice with one id."""
        trades = self._account(account).trades
        return [trade for trade in trades if instrument in (None, trade.instrument_name)]

    def most_open(self, account: str, instrument: str, side: Direction) -> int:
        """The most orders it ever had open at once on one side of an instrument."""
        return self._panel.engine.floor.max_open.get((account, instrument, side), 0)

    def wallet(self, account: str, currency: str) -> Wallet:
        """Its cash of one currency and the session's profit that is not settled yet; a copy."""
        return copy.copy(self._account(account).wallet(currency))

    def transactions(self, account: str) -> list[LedgerRow]:
        """Its transaction log, oldest first."""
        return list(self._account(account).ledger)

    def _account(self, account: str) -> Account:
        return self._panel.engine.floor.account(account, self._panel.now_ms)
