"""What Derive's session is made of and these tests do not need: orders, questions and protection that do the least."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any

from mmd.domain.events import PositionReported
from mmd.domain.units import whole
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive.messages import Subaccount
from mmd.exchanges.derive.room import Room
from mmd.exchanges.guards import Standing
from mmd.exchanges.jsonrpc import Decoder, Head
from mmd.exchanges.record import Told
from mmd.exchanges.rows import OrderListing, PositionListing

_decode: Decoder[Subaccount] = Decoder(Subaccount)


class DeriveOrders:
    def __init__(self, room: Room) -> None:
        self.channels = ((f"{room.subaccount}.orders", f"{room.subaccount}.trades"),)

    def request(self, instrument: Any, order: Any, until_ms: int | None, *, mmp: bool) -> tuple[str, object]:
        return "private/order", {"instrument_name": instrument.symbol, "subaccount_id": 30769}

    def cancel(self, row: Any) -> tuple[str, object]:
        return "private/cancel", {}

    def reply(self, order: Any, raw: Any, instrument: Any, received_ns: int) -> list[Any]:
        return []

    def refused(self, order: Any, error: Any, received_ns: int, remark: str) -> list[Any]:
        return []

    def told(self, channel: str, data: Any, received_ns: int) -> Told:
        return Told()


class DeriveQuestions:
    """Positions as they are; no orders, no trades."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def account(self, symbol: str) -> str:
        return "all"

    async def open_orders(self, connection: Connection, take: Callable[[OrderListing], None]) -> None:
        await self._subaccount(connection, lambda data: take(OrderListing([], [], self._told_us())))

    async def open_orders_of(self, connection: Connection, symbol: str, take: Callable[[OrderListing], None]) -> None:
        await self.open_orders(connection, take)

    async def positions(self, connection: Connection, account: str, take: Callable[[PositionListing], None]) -> None:
        def found(data: Subaccount) -> None:
            rows = {}
            for row in data.positions:
                instrument = self._room.house.instruments[row.instrument_name]
                lots = whole(row.amount, instrument.lot)
                rows[row.instrument_name] = PositionReported(lots, row.average_price or Decimal(0), 0)
            take(PositionListing(rows, [], self._told_us()))

        await self._subaccount(connection, found)

    async def look(
        self,
        connection: Connection,
        accounts: Sequence[str],
        orders: Callable[[], Any],
        positions: Callable[[str], Any],
    ) -> None:
        await self.open_orders(connection, orders())
        for account in accounts:
            await self.positions(connection, account, positions(account))

    async def trades(self, connection: Connection, symbol: str, since_ms: int, take: Any) -> None:
        await self._subaccount(connection, lambda data: take([], []))

    async def order(self, connection: Connection, symbol: str, label: str, take: Any) -> int:
        return self._told_us() // 1000

    async def _subaccount(self, connection: Connection, take: Callable[[Subaccount], None]) -> None:
        def apply(head: Head) -> None:
            take(_decode(head.result))

        params = {"subaccount_id": self._room.subaccount}
        await connection.call("private/get_subaccount", params, apply=apply)

    def _told_us(self) -> int:
        return self._room.house.clock.now_ms() * 1000


class DeriveProtection:
    frozen_code = required_code = 0

    def __init__(self, room: Room) -> None:
        self._room = room

    def key(self, instrument: Any) -> str:
        return str(instrument.base)

    def check(self, wanted: Any) -> None:
        """Anything goes."""

    def channel(self, key: str) -> str:
        return ""

    def told(self, channel: str, data: Any) -> None:
        return None

    async def read(self, connection: Connection, key: str, wanted: Any) -> Standing:
        return Standing("", None)


def stand_in(**members: type) -> None:
    """Members by the name of their module, as far as there is none yet."""
    for name, member in members.items():
        path = f"mmd.exchanges.derive.{name}"
        if importlib.util.find_spec(path) is None:
            module = ModuleType(path)
            setattr(module, member.__name__, member)
            sys.modules[path] = module


stand_in(trading=DeriveOrders, questions=DeriveQuestions, protection=DeriveProtection)
