"""Our trades of one symbol since a time, page by page to the proven end."""

from collections.abc import Callable
from typing import Protocol

from mmd.domain.errors import ExchangeMalformed
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import rows
from mmd.exchanges.deribit.messages import TradePage, TradesParams, UserTradeData
from mmd.exchanges.jsonrpc import Head
from mmd.exchanges.known import OVERLAP_MS

RECENT_MS = 23 * 3_600_000  # the exchange keeps older trades in another drawer ("historical")


class TakesTrades(Protocol):
    """Who is told of executions."""

    def take_trade(self, trade: UserTradeData, received_ns: int) -> None: ...


async def fetch_trades(
    connection: Connection,
    house: House,
    record: TakesTrades,
    symbol: str,
    since_ms: int,
    posted: dict[tuple[str, str], UserTradeData],
    is_news: Callable[[UserTradeData], bool] = lambda trade: True,
) -> None:
    """Ask for all trades since; post the news that are not in `posted`.

    A row that cannot be read keeps no other one from being posted. Raises ExchangeMalformed in the end where there
    was one: not all is known then.
    """
    pages: list[TradePage] = []
    bad: list[str] = []

    def take(head: Head) -> None:
        page, unread = rows.read_page(head.result)
        pages.append(page)
        bad.extend(row.detail for row in unread)
        for trade in page.trades:
            # Both orders of a trade with ourselves carry the same trade id.
            if (trade.trade_id, trade.order_id) in posted:
                continue
            try:
                if is_news(trade):
                    record.take_trade(trade, house.wall_clock_ns())
            except ExchangeMalformed as error:
                bad.append(str(error))
            else:
                posted[trade.trade_id, trade.order_id] = trade

    now_ms = house.clock.now_ms()
    drawers = (True, False) if since_ms < now_ms - RECENT_MS else (False,)
    for historical in drawers:
        start_ms, more = since_ms, True
        while more:
            params = TradesParams(symbol, start_ms, now_ms + OVERLAP_MS, historical)
            await connection.call("private/get_user_trades_by_instrument_and_time", params, apply=take)
            more = pages[-1].has_more
            if more:
                # The last millisecond is asked again: the page may have cut through it.
                last_ms = max((trade.timestamp for trade in pages[-1].trades), default=start_ms)
                if last_ms <= start_ms:
                    why = f": {bad[0]}" if bad else ""
                    raise ExchangeMalformed(f"{symbol}: more than a page of trades in the millisecond {start_ms}{why}")
                start_ms = last_ms
    if bad:
        raise ExchangeMalformed(f"{len(set(bad))} trades cannot be read: {bad[0]}")
