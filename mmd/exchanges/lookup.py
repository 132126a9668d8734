"""Asking an exchange what became of one order: its fills first, then what it is now."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

import trio

from mmd.domain.actions import CancelOrder, QueryOrder
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, LinkLost
from mmd.domain.events import OpenOrder, OrderAbsent, OrderAcked, OrderClosed, OrderFilled, OrderRefused, RequestLost
from mmd.domain.ids import parse_label
from mmd.domain.reasons import Fault
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.known import OVERLAP_MS, Known
from mmd.exchanges.questions import Questions
from mmd.exchanges.record import OrderRecord, not_cancelled
from mmd.exchanges.rows import OrderRow, TradeRow, Unread, acked

FIND_TRIES = 4
FIND_PAUSE_SECONDS = 0.25
LATE_SECONDS = 0.01
# Orders that are looked for at a time, where there are more. A question that waits has its place in the exchange's
# credits, and what is asked later comes after it: with a hundred orders at once, the proof of a halt had to wait for
# half a minute.
TURNS = 4


def seconds_past(house: House, exchange_ms: int) -> float:
    """Until the exchange's clock is surely past that."""
    return (exchange_ms - house.clock.now_ms()) / 1000 + LATE_SECONDS


def label_epoch_ms(label: str) -> int | None:
    """When the symbol came into service for which this label was made; None for a label that is not ours."""
    parsed = parse_label(label)
    if parsed is None:
        return None
    try:
        return int(parsed.epoch, 36)
    except ValueError:
        return None


async def fetch_trades(
    connection: Connection,
    questions: Questions,
    record: OrderRecord,
    symbol: str,
    since_ms: int,
    posted: dict[tuple[str, str], TradeRow],
    is_news: Callable[[TradeRow], bool] = lambda row: True,
) -> None:
    """Ask for all trades since; post the news that are not in `posted`.

    A row that cannot be read keeps no other one from being posted. Raises ExchangeMalformed in the end where there
    was one: not all is known then.
    """
    bad: list[str] = []

    def take(rows: list[TradeRow], unread: list[Unread]) -> None:
        bad.extend(row.detail for row in unread)
        for row in rows:
            # Both orders of a trade with ourselves carry the same trade id.
            if (row.trade_id, row.order_id) in posted:
                continue
            try:
                if is_news(row):
                    record.take_trade(row)
            except ExchangeMalformed as error:
                bad.append(str(error))
            else:
                posted[row.trade_id, row.order_id] = row

    try:
        await questions.trades(connection, symbol, since_ms, take)
    except ExchangeMalformed as error:
        raise ExchangeMalformed(f"{error}: {bad[0]}" if bad else str(error)) from error
    if bad:
        raise ExchangeMalformed(f"{len(set(bad))} trades cannot be read: {bad[0]}")


class Lookup:
    """One per exchange. Every answer is posted by the reading task, in the order of the stream."""

    def __init__(self, house: House, record: OrderRecord, known: Known, questions: Questions) -> None:
        self._house = house
        self._record = record
        self._known = known
        self._questions = questions
        self._turns = trio.CapacityLimiter(TURNS)
        self._asking: Counter[tuple[str, str, type]] = Counter()

    async def ask_order(self, connection: Connection, symbol: str, query: QueryOrder) -> None:
        """Answer QueryOrder: fills, then OrderAcked, OrderClosed, OrderAbsent, or RequestLost."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            self._post_found(symbol, found or OrderAbsent(query.label, now_ns))

        await self._answer_about(connection, symbol, query, verdict)

    async def ask_cancelled(self, connection: Connection, symbol: str, order: CancelOrder) -> None:
        """What a cancel by label did."""

        def verdict(found: OrderAcked | OrderClosed | None, now_ns: int) -> None:
            post = self._house.sink.post
            if found is not None:
                self._post_found(symbol, found)
                if isinstance(found, OrderAcked):
                    post(symbol, not_cancelled(order, now_ns))
            elif self._record.is_flying(order.label):
                post(symbol, RequestLost(order.label, "not there yet: its placing has no answer", now_ns))
            else:
                detail = "no order with this label"
                post(symbol, OrderRefused(order.label, Fault.STATE, "order_not_found", detail, True, now_ns))

        await self._answer_about(connection, symbol, order, verdict)

    async def _answer_about(
        self,
        connection: Connection,
        symbol: str,
        asked: QueryOrder | CancelOrder,
        verdict: Callable[[OrderAcked | OrderClosed | None, int], None],
    ) -> None:
        """Who asks again asks anew, for an answer may be lost; where many are asked about, one question is enough."""
        label, key = asked.label, (asked.label, asked.order_id, type(asked))
        if key in self._asking and self._are_many():
            return
        self._asking[key] += 1
        why = "the link was lost"
        try:
            await self._find_order(connection, symbol, label, verdict)
            why = ""
        except (*FAILURES, LinkLost) as error:
            why = str(error)
        finally:
            self._asking[key] -= 1
            if not self._asking[key]:
                del self._asking[key]
            # Also when cancelled: a question without an answer would be waited for.
            if why:
                self._house.sink.post(symbol, RequestLost(label, why, self._house.wall_clock_ns()))
        await self._house.sink.deliver()

    def _are_many(self) -> bool:
        return len(self._asking) > TURNS

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
        epoch_ms = label_epoch_ms(label) or 0
        started_ms = house.started_ns // 1_000_000
        counted = known.is_recovered(symbol) or epoch_ms >= started_ms - 1000
        posted: dict[tuple[str, str], TradeRow] = {}
        found: OrderRow | None = None
        why = ""
        for _ in range(FIND_TRIES):
            await trio.sleep(max(0.0, seconds_past(house, self._questions.settled_ms(label))))
            async with self._turns if self._are_many() else nullcontext():
                asked_ms = house.clock.now_ms()
                missing_ms = known.missing_since_ms(symbol, asked_ms)
                since_ms = news_ms = started_ms - OVERLAP_MS if missing_ms is None else missing_ms
                if found is not None and counted:
                    since_ms = min(since_ms, found.created_ms or epoch_ms - OVERLAP_MS)
                order_id = found.order_id if found is not None else ""

                def is_news(row: TradeRow, news_ms: int = news_ms, order_id: str = order_id) -> bool:
                    return row.at_ms >= news_ms or row.is_of(label, order_id)

                await fetch_trades(connection, self._questions, self._record, symbol, since_ms, posted, is_news)
                known.told(symbol, asked_ms)
                listed_lots = sum(
                    row.event.size_lots
                    for row in posted.values()
                    if row.is_of(label, order_id) and isinstance(row.event, OrderFilled)
                )

                def settle(row: OrderRow, listed_lots: int = listed_lots) -> str:
                    """Give the verdict, or say what it waits for."""
                    if isinstance(row.state, Unread):
                        raise ExchangeMalformed(row.state.detail)
                    if row.unsure:
                        return row.unsure
                    if counted and row.filled_lots > listed_lots:
                        return f"of {row.filled_lots} lots filled only {listed_lots} are listed yet"
                    now_ns = house.wall_clock_ns()
                    verdict(acked(row.state, now_ns) if isinstance(row.state, OpenOrder) else row.state, now_ns)
                    return ""

                found, why, told_ms = await self._ask(connection, symbol, label, settle)
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

    async def _ask(
        self, connection: Connection, symbol: str, label: str, settle: Callable[[OrderRow], str]
    ) -> tuple[OrderRow | None, str, int]:
        """The order's row as it was listed, what `settle` said of it, and when (the exchange's clock) it was asked."""
        found: OrderRow | None = None
        why = ""

        def take(row: OrderRow) -> None:
            nonlocal found, why
            found, why = row, settle(row)

        told_ms = await self._questions.order(connection, symbol, label, take)
        return found, why, told_ms

    def _post_found(self, symbol: str, found: OrderAcked | OrderClosed | OrderAbsent) -> None:
        """The newest word on a label; a closing that was seen before stands."""
        if isinstance(found, OrderClosed):
            self._record.note_closed(found)
        order_id = found.order_id if isinstance(found, OrderAcked) else ""
        self._house.sink.post(symbol, self._record.was_closed(found.label, order_id) or found)
