"""What can be asked of an exchange about our orders, positions and fills: the seam of `inquiry`, `lookup` and `audit`.

Whoever takes an answer is called by the task that reads the link, in the order of the stream: what came before it was
posted before. All raise as `Connection.call` does, and ExchangeMalformed for what is no list.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from mmd.exchanges.connection import Connection
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, TradeRow, Unread

TakeOrders = Callable[[OrderListing], None]
TakePositions = Callable[[PositionListing], None]
TakeTrades = Callable[[list[TradeRow], list[Unread]], None]


class Questions(Protocol):
    """Implemented by each exchange."""

    def account(self, symbol: str) -> str:
        """The positions of all symbols with the same word are in one answer."""

    async def open_orders(self, connection: Connection, take: TakeOrders) -> None:
        """All that are open, whoever's, also on symbols that are not listed."""

    async def open_orders_of(self, connection: Connection, symbol: str, take: TakeOrders) -> None:
        """At least those of one symbol."""

    async def positions(self, connection: Connection, account: str, take: TakePositions) -> None:
        """Those of an account, of symbols that are listed."""

    async def look(
        self,
        connection: Connection,
        accounts: Sequence[str],
        orders: Callable[[], TakeOrders],
        positions: Callable[[str], TakePositions],
    ) -> None:
        """All open orders and the positions of these accounts, in as few requests as go.

        `orders` and `positions` are called right before their question is asked, and return who takes the answer.
        """

    async def trades(self, connection: Connection, symbol: str, since_ms: int, take: TakeTrades) -> None:
        """Our trades of a symbol since a time, page by page to the end, which the exchange has to prove.

        A row that cannot be read keeps no other one from being taken. ExchangeMalformed where the end is not proven.
        """

    def settled_ms(self, label: str) -> int:
        """Before then `order` waits, and asks nothing: the exchange's clock, Unix ms; 0: at no time."""

    async def order(self, connection: Connection, symbol: str, label: str, take: Callable[[OrderRow], None]) -> int:
        """What became of one order: `take` hears its row, if there is one; of several, one that rests.

        Returns when the exchange looked, at the earliest: its clock, Unix ms.
        """
