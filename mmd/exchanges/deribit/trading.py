"""How Deribit takes orders and tells of them, and what it is asked about the account."""

from collections.abc import Sequence

import msgspec

from mmd.core.budget import Budget
from mmd.domain.actions import CancelOrder, Order
from mmd.domain.events import Mail
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.exchanges.api import Account
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import codec, orders, rows
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.messages import CancelParams, Limits, Summaries
from mmd.exchanges.jsonrpc import RpcError
from mmd.exchanges.record import Told
from mmd.exchanges.rows import OrderRow

# The lowest tier, until the account says what it has.
TIER_RATE, TIER_BURST = 5.0, 20.0
RESERVE_SHARE = 0.25  # of the burst, for cancels
# Eight requests of an account wait for its matching engine, one more is refused (10047), and somebody else of the
# account may wait there as well. Source: docs.deribit.com, "Order Management", September 2026.
MOST_CANCELS = 6


class DeribitOrders:
    """Implements Orders."""

    channels: Sequence[Sequence[str]] = tuple((channel,) for channel in codec.USER_CHANGES)

    def __init__(self, house: House) -> None:
        self._house = house

    def request(self, instrument: Instrument, order: Order, until_ms: int | None, *, mmp: bool) -> tuple[str, object]:
        return codec.order_request(instrument, order, until_ms, mmp=mmp)

    def cancel(self, row: OrderRow) -> tuple[str, object]:
        instrument = self._house.instruments.get(row.symbol)
        if instrument is None:
            return "private/cancel", CancelParams(row.order_id)
        return codec.order_request(instrument, CancelOrder(row.label, "", Side.BID))

    def reply(self, order: Order, raw: msgspec.Raw, instrument: Instrument, received_ns: int) -> list[Mail] | None:
        if isinstance(order, CancelOrder) and not order.order_id:
            return None  # a count
        return orders.reply(order, raw, instrument, received_ns)

    def refused(self, order: Order, error: RpcError, received_ns: int, remark: str) -> list[Mail]:
        return [ERRORS.refused(order, error, received_ns, remark)]

    def lost(self, order: Order) -> None:
        """An order keeps its id here, whatever becomes of a request."""

    def told(self, channel: str, data: msgspec.Raw, received_ns: int) -> Told:
        if not channel.startswith("user.changes."):
            return Told()
        changes, unread = rows.read_changes(data)
        known = self._house.instruments
        return Told(
            [orders.trade_row(trade, known.get(trade.instrument_name), received_ns) for trade in changes.trades],
            [orders.order_row(order, known.get(order.instrument_name), received_ns) for order in changes.orders],
            unread,
            bool(changes.positions),
        )


def read_limits(summaries: Summaries) -> tuple[float, float] | None:
    """(requests per second, burst) of the account's matching engine; None where there is none to work with."""
    sources: list[Limits | None] = [summaries.limits, *(row.limits for row in summaries.summaries)]
    for limits in sources:
        found = None if limits is None else codec.matching_limits(limits)
        if found is not None:
            return found
    return None


class DeribitAccount:
    """Implements AccountCalls."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    async def arm(self, connection: Connection) -> bool:
        await connection.call("private/enable_cancel_on_disconnect", {"scope": "connection"})
        return await self.is_armed(connection)

    async def is_armed(self, connection: Connection) -> bool:
        raw = await connection.call("private/get_cancel_on_disconnect", {"scope": "connection"})
        return codec.decode_cancel_on_disconnect(raw).enabled

    async def accounts(self, connection: Connection) -> list[Account]:
        raw = await connection.call("private/get_account_summaries", {"extended": True})
        summaries = orders.decode_summaries(raw)
        if found := read_limits(summaries):
            rate, burst = found
            self._budget.set_limits(rate, burst, min(burst * RESERVE_SHARE, burst - 1))
        return orders.accounts(summaries)
