"""Asking Deribit what became of one order: its fills first, then what it is now."""

from collections.abc import Callable
from decimal import Decimal

import trio

from mmd.domain.actions import CancelOrder, QueryOrder
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import OrderAbsent, OrderAcked, OrderClosed, OrderRefused, RequestLost
from mmd.domain.reasons import Fault
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.dialect import told_us
from mmd.exchanges.deribit.messages import LabelParams, OrderData, UserTradeData
from mmd.exchanges.deribit.paging import fetch_trades
from mmd.exchanges.deribit.record import OrderRecord
from mmd.exchanges.jsonrpc import Head
from mmd.exchanges.known import OVERLAP_MS, Known

FIND_TRIES = 4
FIND_PAUSE_SECONDS = 0.25
LATE_SECONDS = 0.01
FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)


def seconds_past(house: House, exchange_ms: int) -> float:
    """Until the exchange's clock is surely past that."""
    return (exchange_ms - house.clock.now_ms()) / 1000 + LATE_SECONDS


class Lookup:
    """One per exchange. Every answer is posted by the reading task, in the order of the stream."""

    def __init__(self, house: House, record: OrderRecord, known: Known) -> None:
        self._house = house
        self._record = record
        self._known = known

    async def ask_order(self, connection: Connection, symbol: str, query: QueryOrder) -> None:
        """Answer QueryOrder: fills, then OrderAcked, OrderClosed, OrderAbsent, or RequestLost."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            self._post_found(symbol, found or OrderAbsent(query.label, now_ns))

        await self._answer_about(connection, symbol, query.label, verdict)

    async def ask_cancelled(self, connection: Connection, symbol: str, order: CancelOrder) -> None:
        """What a cancel by label did."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            post = self._house.sink.post
            if found is not None:
                self._post_found(symbol, found)
                if isinstance(found, OrderAcked):
                    post(symbol, orders.not_cancelled(order, now_ns))
            elif self._record.is_flying(order.label):
                post(symbol, RequestLost(order.label, "not there yet: its placing has no answer", now_ns))
            else:
                detail = "no order with this label"
                post(symbol, OrderRefused(order.label, Fault.STATE, "order_not_found", detail, True, now_ns))

        await self._answer_about(connection, symbol, order.label, verdict)

    async def _answer_about(
        self,
        connection: Connection,
        symbol: str,
        label: str,
        verdict: Callable[[OrderAcked | OrderClosed | None, int], None],
    ) -> None:
        why = "the link was lost"
        try:
            await self._find_order(connection, symbol, label, verdict)
            why = ""
        except (*FAILURES, LinkLost) as error:
            why = str(error)
        finally:
            # Also when cancelled: a question without an answer would be waited for.
            if why:
                self._house.sink.post(symbol, RequestLost(label, why, self._house.wall_clock_ns()))
        await self._house.sink.deliver()

    async def _find_order(
        self,
        connection: Connection,
        symbol: str,
        label: str,
        verdict: Callable[[OrderAcked | OrderClosed | None, int], None],
    ) -> None:
        """Its fills first, then `verdict` with what it is now (None: the exchange knows no such order).

        It knows none only once no request about it can arrive any more, and what it has filled is told
        only once all those trades are listed. Where the symbol started anew, an order of an earlier
        process is excepted from that: its trades are part of the baseline, and not all are asked for.
        Of trades from before all fills of the symbol were told, only its own are told again: the others may be
        more than a machine remembers to have counted.
        """
        house, known = self._house, self._known
        instrument = house.instruments[symbol]
        params = LabelParams(instrument.settlement, label)
        epoch_ms = orders.label_epoch_ms(label) or 0
        started_ms = house.started_ns // 1_000_000
        counted = known.is_recovered(symbol) or epoch_ms >= started_ms - 1000
        posted: dict[tuple[str, str], UserTradeData] = {}
        found: OrderData | None = None
        why = ""
        for _ in range(FIND_TRIES):
            asked_ms = house.clock.now_ms()
            missing_ms = known.missing_since_ms(symbol, asked_ms)
            since_ms = news_ms = started_ms - OVERLAP_MS if missing_ms is None else missing_ms
            if found is not None and counted:
                since_ms = min(since_ms, found.creation_timestamp or epoch_ms - OVERLAP_MS)
            order_id = found.order_id if found is not None else None

            def is_news(trade: UserTradeData, news_ms: int = news_ms, order_id: str | None = order_id) -> bool:
                return trade.timestamp >= news_ms or orders.is_of(trade, label, order_id)

            await fetch_trades(connection, house, self._record, symbol, since_ms, posted, is_news)
            known.told(symbol, asked_ms)
            of_it = [trade for trade in posted.values() if orders.is_of(trade, label, order_id)]
            listed = sum((trade.amount for trade in of_it), Decimal(0))

            def settle(row: OrderData, listed: Decimal = listed) -> str:
                """Give the verdict, or say what it waits for."""
                if orders.must_end(row):
                    return "its end is not listed yet"
                if counted and (row.filled_amount or 0) > listed:
                    return f"of {row.filled_amount} filled only {listed} are listed yet"
                verdict(orders.order_state(row, instrument, house.wall_clock_ns()), house.wall_clock_ns())
                return ""

            found, why, told_ms = await self._ask_label(connection, symbol, params, settle)
            if found is None:
                closing, until_ms = self._record.was_closed(label), self._record.may_come_until_ms(label)
                if closing is not None or told_ms > until_ms:
                    verdict(closing, house.wall_clock_ns())
                    return
                why = "it is not there, and may come yet"
                await trio.sleep(max(FIND_PAUSE_SECONDS, seconds_past(house, until_ms)))
            elif not why:
                return
            else:
                await trio.sleep(FIND_PAUSE_SECONDS)
        raise ExchangeAmbiguous(f"order {label}: {why}")

    async def _ask_label(
        self, connection: Connection, symbol: str, params: LabelParams, settle: Callable[[OrderData], str]
    ) -> tuple[OrderData | None, str, int]:
        """The order's row as it was listed, what `settle` said of it, and when (the exchange's clock) it was asked."""
        found: OrderData | None = None
        why, told_ms = "", 0

        def take(head: Head) -> None:
            nonlocal found, why, told_ms
            told_ms = told_ms or told_us(self._house, head) // 1000
            found = orders.choose(orders.decode_orders(head.result), symbol, params.label)
            if found is not None:
                why = settle(found)

        await connection.call("private/get_order_state_by_label", params, apply=take)
        if found is None:
            await connection.call("private/get_open_orders_by_label", params, apply=take)
        return found, why, told_ms

    def _post_found(self, symbol: str, found: OrderAcked | OrderClosed | OrderAbsent) -> None:
        """The newest word on a label; a closing that was seen before stands."""
        if isinstance(found, OrderClosed):
            self._record.note_closed(found)
        self._house.sink.post(symbol, self._record.was_closed(found.label) or found)
