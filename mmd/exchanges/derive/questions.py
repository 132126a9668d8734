"""What Derive is asked about orders, positions and fills.

One private/get_subaccount has open orders and positions of one instant. What one cannot tell from it is asked first:
of an order that took another's place, what those before it have filled (`_learn`). Then the list is asked for again,
so that it is taken as of its own moment; what is still not known then is Unread, and stops its symbol only.
Histories are read to their proven end (`histories`).
"""

from collections.abc import Callable, Sequence

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed
from mmd.domain.events import OpenOrder, PositionReported
from mmd.domain.instruments import Instrument
from mmd.exchanges.connection import FAILURES, Connection
from mmd.exchanges.derive import orders
from mmd.exchanges.derive.chains import MARGIN_MS, Chain, Sighting
from mmd.exchanges.derive.histories import ORDERS, TRADES
from mmd.exchanges.derive.messages import OrderData, PositionData, TradeData
from mmd.exchanges.derive.requests import HistoryParams, OrderIdParams, SubaccountParams
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.trading import trade_shown
from mmd.exchanges.jsonrpc import Decoder, Head
from mmd.exchanges.known import OVERLAP_MS
from mmd.exchanges.lookup import label_epoch_ms, seconds_past
from mmd.exchanges.questions import TakeOrders, TakePositions, TakeTrades
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, Unread

ACCOUNT = "subaccount"
TRIES = 3  # of an order that moves while it is asked about
# How far back one that has ended is looked for at a time, in ms: most have just done so.
REACHES_MS = (600_000, 7_200_000, 86_400_000)
# An order that took another's place came right after that one's end, by the exchange's clock.
BEFORE_MS, AFTER_MS = 120_000, 5_000


class _Subaccount(msgspec.Struct):
    """Of private/get_subaccount what counts here, rows not read yet."""

    open_orders: msgspec.Raw
    positions: msgspec.Raw
    failed_to_fetch: bool = False


_decode_subaccount: Decoder[_Subaccount] = Decoder(_Subaccount)
_decode_order: Decoder[OrderData] = Decoder(OrderData)


class DeriveQuestions:
    """Implements questions.Questions; there is one account for everything."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._house = room.house

    def account(self, symbol: str) -> str:
        return ACCOUNT

    async def open_orders(self, connection: Connection, take: TakeOrders) -> None:
        await self._list(connection, lambda: take, None)

    async def open_orders_of(self, connection: Connection, symbol: str, take: TakeOrders) -> None:
        await self._list(connection, lambda: take, None)

    async def positions(self, connection: Connection, account: str, take: TakePositions) -> None:
        await self._list(connection, None, lambda _: take)

    async def look(
        self,
        connection: Connection,
        accounts: Sequence[str],
        orders: Callable[[], TakeOrders],
        positions: Callable[[str], TakePositions],
    ) -> None:
        await self._list(connection, orders, positions if accounts else None)

    def _instrument(self, symbol: str) -> Instrument:
        """Raises ExchangeMalformed: it may be gone from the listing while something of it is asked."""
        found = self._room.instrument(symbol)
        if found is None:
            raise ExchangeMalformed(f"{symbol} is not listed any more")
        return found

    # --- the subaccount ---

    async def _list(
        self,
        connection: Connection,
        orders_to: Callable[[], TakeOrders] | None,
        positions_to: Callable[[str], TakePositions] | None,
    ) -> None:
        """Orders and positions as of one moment; where fills before an order are not known, these are asked first."""
        for again in (False, True):
            asked_ms = self._house.clock.now_ms()
            take_orders = None if orders_to is None else orders_to()
            take_positions = None if positions_to is None else positions_to(ACCOUNT)
            unknown: list[tuple[str, Chain]] = []

            def apply(
                head: Head,
                again: bool = again,
                asked_ms: int = asked_ms,
                take_orders: TakeOrders | None = take_orders,
                take_positions: TakePositions | None = take_positions,
                unknown: list[tuple[str, Chain]] = unknown,
            ) -> None:
                found = _subaccount(head)
                if take_orders is not None:
                    listing = self._orders(found.open_orders, asked_ms, unknown)
                    if unknown and not again:
                        return
                    take_orders(listing)
                if take_positions is not None:
                    take_positions(self._positions(found.positions, asked_ms))

            await connection.call("private/get_subaccount", SubaccountParams(self._room.subaccount), apply=apply)
            if again or not unknown:
                return
            for symbol, chain in unknown:
                try:
                    await self._learn(connection, symbol, chain)
                except FAILURES as error:
                    self._house.sink.report("query.failed", f"{symbol}: what filled before {chain.label}: {error}")

    def _orders(self, raw: msgspec.Raw, asked_ms: int, unknown: list[tuple[str, Chain]]) -> OrderListing:
        """`unknown` hears of chains of which not all fills are known."""
        found, unread = orders.read_orders(raw)
        now_ns = self._house.wall_clock_ns()
        rows: list[OrderRow] = []
        labelled: dict[tuple[str, str], list[OrderData]] = {}
        for order in found:
            instrument = self._room.instrument(order.instrument_name)
            if instrument is None or not orders.is_chained(order.label, instrument.symbol):
                rows.append(orders.plain_row(order, instrument, now_ns))
            else:
                labelled.setdefault((order.instrument_name, order.label), []).append(order)
        for (symbol, label), group in labelled.items():
            chain = self._room.chains.of(label)
            rows += self._chain_rows(chain, group, asked_ms)
            current = chain.current
            if current is not None and current.ending is None and chain.before_lots is None:
                unknown.append((symbol, chain))
        return OrderListing(rows, unread, asked_ms * 1000)

    def _chain_rows(self, chain: Chain, group: list[OrderData], asked_ms: int) -> list[OrderRow]:
        """All open orders of a label, as of one moment: the one that is its chain's, and others as what they are."""
        now_ns = self._house.wall_clock_ns()
        rows: list[OrderRow] = []
        resting: list[tuple[Sighting, OrderData]] = []
        for order in group:
            try:
                instrument = self._instrument(order.instrument_name)
                resting.append((orders.sighting(order, instrument), order))
            except ExchangeMalformed as error:
                rows.append(orders.row(order, Unread(order.instrument_name, str(error))))
        known = chain.current
        # The one that was known before the others, else the newest.
        resting.sort(key=lambda pair: (known is not None and pair[0].order_id == known.order_id, pair[0].nonce))
        alone = True
        for seen, _ in reversed(resting):
            if chain.take(seen, alone=alone) is not None:
                alone = False
        for _, order in resting:
            if (shown := self._shown(chain, order, now_ns)) is not None:
                rows.append(shown)
        current = chain.current
        if current is not None and any(seen.order_id == current.order_id for seen, _ in resting):
            chain.settle(asked_ms)
        return rows

    def _shown(self, chain: Chain, order: OrderData, now_ns: int) -> OrderRow | None:
        """The row of one that is listed as open; None where it is known to be over: the list is older than that."""
        instrument, current = self._house.instruments[order.instrument_name], chain.current
        if chain.has_ended(order.order_id):
            return None
        if current is None or order.order_id != current.order_id:
            return orders.plain_row(order, instrument, now_ns)
        before = chain.before_lots
        state: OpenOrder | Unread
        if before is None:
            state = Unread(order.instrument_name, f"what orders before {order.order_id} have filled is not known")
        else:
            try:
                state = orders.open_order(order, instrument, chain.label, before)
            except ExchangeMalformed as error:
                state = Unread(order.instrument_name, str(error))
        return orders.row(order, state, chain)

    def _positions(self, raw: msgspec.Raw, asked_ms: int) -> PositionListing:
        found, unread = orders.read_positions(raw)
        listed = {row.instrument_name: self._position(row) for row in found}
        return PositionListing(listed, unread, asked_ms * 1000)

    def _position(self, row: PositionData) -> PositionReported | Unread:
        instrument = self._room.instrument(row.instrument_name)
        if instrument is None:
            return Unread(row.instrument_name, "a position in what is not listed")
        try:
            return orders.position(row, instrument, self._house.wall_clock_ns())
        except ExchangeMalformed as error:
            return Unread(row.instrument_name, str(error))

    # --- histories ---

    async def trades(self, connection: Connection, symbol: str, since_ms: int, take: TakeTrades) -> None:
        room = self._room

        def page(found: list[TradeData], unread: list[Unread]) -> None:
            now_ns = self._house.wall_clock_ns()
            # A page begins with the newest, and nothing else says which of one millisecond was first.
            rows = [
                orders.trade_row(trade, room.instrument(trade.instrument_name), trade_shown(room, trade), now_ns)
                for trade in reversed(found)
            ]
            take(rows, unread)

        await self._trades(connection, symbol, since_ms, page)

    async def _trades(
        self,
        connection: Connection,
        symbol: str,
        since_ms: int,
        take: Callable[[list[TradeData], list[Unread]], None],
    ) -> None:
        params = HistoryParams(self._room.subaccount, since_ms, instrument_name=symbol)
        await TRADES.read(connection, params, take)

    async def _history(
        self, connection: Connection, symbol: str, label: str, since_ms: int, until_ms: int
    ) -> list[Sighting]:
        """Orders with the label that ended in that time."""
        found: dict[str, Sighting] = {}

        def take(rows: list[OrderData], unread: list[Unread]) -> None:
            if bad := [row.detail for row in unread if row.symbol in ("", symbol)]:
                raise ExchangeMalformed(bad[0])
            for order in rows:
                if (order.instrument_name, order.label) == (symbol, label):
                    found[order.order_id] = orders.sighting(order, self._instrument(symbol))

        params = HistoryParams(self._room.subaccount, max(0, since_ms), until_ms)
        await ORDERS.read(connection, params, take)
        return list(found.values())

    # --- one order ---

    def settled_ms(self, label: str) -> int:
        """Not before a request about it that has no answer can come no more: then what is found is the last word."""
        return self._room.chains.of(label).may_come_until_ms + MARGIN_MS

    async def order(self, connection: Connection, symbol: str, label: str, take: Callable[[OrderRow], None]) -> int:
        chain = self._room.chains.of(label)
        for _ in range(TRIES):
            await trio.sleep(max(0.0, seconds_past(self._house, self.settled_ms(label))))
            asked_ms = self._house.clock.now_ms()
            taken = await self._take_open(connection, symbol, chain, asked_ms, take)
            if taken is None:
                taken = await self._take_ended(connection, symbol, chain, asked_ms, take)
            if taken:
                return asked_ms
            await self._learn(connection, symbol, chain)
        raise ExchangeAmbiguous(f"order {label} moves while it is asked about")

    async def _take_open(
        self, connection: Connection, symbol: str, chain: Chain, asked_ms: int, take: Callable[[OrderRow], None]
    ) -> bool | None:
        """True: it rests, and was taken. False: it rests, and the fills before it are not known. None: it is over."""
        outcome: bool | None = None

        def apply(head: Head) -> None:
            nonlocal outcome
            found, unread = orders.read_orders(_subaccount(head).open_orders)
            if bad := [row.detail for row in unread if row.symbol in ("", symbol)]:
                raise ExchangeMalformed(bad[0])
            group = [row for row in found if row.label == chain.label and row.instrument_name == symbol]
            for row in self._chain_rows(chain, group, asked_ms):
                if row.order_id == chain.label:
                    outcome = chain.before_lots is not None
                    if outcome:
                        take(_unsettled(chain, row))

        await connection.call("private/get_subaccount", SubaccountParams(self._room.subaccount), apply=apply)
        return outcome

    async def _take_ended(
        self, connection: Connection, symbol: str, chain: Chain, asked_ms: int, take: Callable[[OrderRow], None]
    ) -> bool:
        """Its end, if there is one to tell. False: what it depends on has to be learnt first."""
        if not chain.complete and chain.current is None:
            await self._search(connection, symbol, chain, asked_ms)
        elif chain.unsettled:
            # Up to now: the list of open ones was older, and what it did not show has ended before.
            until_ms = self._house.clock.now_ms() + MARGIN_MS
            since_ms = chain.asked_from_ms - AFTER_MS
            for seen in await self._history(connection, symbol, chain.label, since_ms, until_ms):
                chain.take(seen)
        chain.settle(asked_ms)
        current = chain.current
        if current is None:
            return True
        if chain.before_lots is None:
            return False
        outcome = False

        def apply(order: OrderData, seen: Sighting) -> None:
            nonlocal outcome
            closing = orders.chain_closed(chain, self._house.wall_clock_ns())
            outcome = seen.ending is not None and closing is not None
            if closing is not None and outcome:
                take(orders.row(order, closing, chain))

        await self._ask_member(connection, symbol, chain, current.order_id, apply)
        return outcome

    async def _search(self, connection: Connection, symbol: str, chain: Chain, asked_ms: int) -> None:
        """An order of an earlier process that rests no more: the newest of its chain, further and further back."""
        epoch_ms = label_epoch_ms(chain.label) or 0
        until_ms = self._house.clock.now_ms() + MARGIN_MS
        for reach_ms in (*REACHES_MS, asked_ms):
            since_ms = max(epoch_ms - OVERLAP_MS, asked_ms - reach_ms)
            for seen in await self._history(connection, symbol, chain.label, since_ms, until_ms):
                chain.take(seen)
            if chain.current is not None or since_ms <= epoch_ms - OVERLAP_MS:
                return
            until_ms = since_ms

    async def _ask_member(
        self,
        connection: Connection,
        symbol: str,
        chain: Chain,
        order_id: str,
        then: Callable[[OrderData, Sighting], None] = lambda order, seen: None,
    ) -> None:
        """Take what the exchange says of one order of a chain. Raises ExchangeMalformed where it is another's."""

        def apply(head: Head) -> None:
            order = _decode_order(head.result)
            if (order.order_id, order.instrument_name) != (order_id, symbol):
                raise ExchangeMalformed(f"asked about order {order_id}, told of {order.order_id}")
            order.label = chain.label
            seen = orders.sighting(order, self._instrument(symbol))
            chain.take(seen)
            then(order, seen)

        await connection.call("private/get_order", OrderIdParams(self._room.subaccount, order_id), apply=apply)

    async def _learn(self, connection: Connection, symbol: str, chain: Chain) -> None:
        """What the orders before the newest have filled.

        Of those that this process has seen their records say it. Of an earlier process's all trades of the label,
        and, as trades may be listed late, the records of those that ended shortly before the newest came.
        """
        current = chain.current
        if current is None:
            return
        if chain.base_lots is None:
            sizes: dict[tuple[str, str], int] = {}
            bad: list[str] = []

            def take(found: list[TradeData], unread: list[Unread]) -> None:
                bad.extend(row.detail for row in unread)
                instrument = self._instrument(symbol)
                for trade in found:
                    if trade.label == chain.label and not orders.is_no_orders(trade):
                        fill = orders.filled(trade, instrument, "", "", 0)
                        sizes[trade.trade_id, trade.order_id or ""] = fill.size_lots

            epoch_ms = label_epoch_ms(chain.label) or 0
            await self._trades(connection, symbol, epoch_ms - OVERLAP_MS, take)
            if bad:
                raise ExchangeMalformed(bad[0])
            filled: dict[str, int] = {}
            for (_, order_id), lots in sizes.items():
                filled[order_id] = filled.get(order_id, 0) + lots
            since_ms, until_ms = current.created_ms - BEFORE_MS, current.created_ms + AFTER_MS
            for seen in await self._history(connection, symbol, chain.label, since_ms, until_ms):
                filled[seen.order_id] = max(filled.get(seen.order_id, 0), seen.filled_lots)
            chain.count(filled)
        for order_id in chain.unfinished:
            await self._ask_member(connection, symbol, chain, order_id)


def _subaccount(head: Head) -> _Subaccount:
    found = _decode_subaccount(head.result)
    if found.failed_to_fetch:
        raise ExchangeMalformed("private/get_subaccount: the exchange could not fetch it")
    return found


def _unsettled(chain: Chain, row: OrderRow) -> OrderRow:
    """Not its last word where a request left after the question."""
    return msgspec.structs.replace(row, unsure="a request about it may come yet") if chain.unsettled else row
