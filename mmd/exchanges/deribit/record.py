"""What the questions of the trade link need to know of it."""

from typing import Protocol

from mmd.domain.events import OrderClosed
from mmd.exchanges.deribit.messages import UserTradeData
from mmd.exchanges.news import News


class OrderRecord(Protocol):
    """What the trade link knows of orders and fills."""

    activity: News
    fills: News

    def take_trade(self, trade: UserTradeData, received_ns: int) -> None: ...

    def was_closed(self, label: str) -> OrderClosed | None: ...

    def note_closed(self, event: OrderClosed) -> None: ...

    def is_ours(self, label: str) -> bool: ...

    def is_flying(self, label: str) -> bool: ...

    def may_come_until_ms(self, label: str) -> int: ...

    def unsettled_until_ms(self, symbol: str) -> int: ...

    def take_down(self, symbol: str, why: str) -> None:
        """Nothing may be sent for it until it is up (again)."""
