"""A fake exchange that a whole daemon can live on: it lists, reconciles and answers when a test lets it."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import trio
from shell_kit import MID_TICKS, START_NS, FakeExchange, instrument

from mmd.domain.actions import CancelOrder, PlaceOrder, Request
from mmd.domain.events import (
    BookTop,
    DataLinkUp,
    OpenOrder,
    OrderAcked,
    OrderClosed,
    OrdersReported,
    PositionReported,
    Ticker,
    TradeLinkUp,
)
from mmd.exchanges.api import Sink
from mmd.shell.desk import Caller

CALLER = Caller(uid=1, pid=1, name="ann")


class Venue(FakeExchange):
    """An exchange that lists and reconciles when a test lets it, and answers orders at once unless it is mute."""

    def __init__(self, name: str = "deribit") -> None:
        super().__init__(name)
        self.instruments = {symbol: instrument(symbol, exchange=name) for symbol in MID_TICKS}
        self.sink: Sink | None = None
        self.now_ns: Callable[[], int] = lambda: START_NS
        self.listed = trio.Event()
        self.answers = True
        self.left: dict[str, list[OpenOrder]] | Exception = {}
        self.asked = 0
        self.thinks_seconds = 0.0
        self.lots: dict[str, int] = {}
        self._to_post: list[tuple[str, OrderAcked | OrderClosed]] = []
        self._wake = trio.Event()

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.sink = sink
        await self.listed.wait()
        self.stats["data"].up = self.stats["trade"].up = True
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            for symbol, event in self._to_post:
                sink.post(symbol, event)
            self._to_post.clear()
            await sink.deliver()

    async def reconcile(self, *symbols: str) -> None:
        assert self.sink is not None
        for symbol in symbols:
            now_ns = self.now_ns()
            mid, mark, lots = MID_TICKS[symbol], MID_TICKS[symbol] / 2, self.lots.get(symbol, 0)
            for event in (
                DataLinkUp(now_ns),
                TradeLinkUp(True, now_ns),
                OrdersReported((), now_ns),
                PositionReported(lots, Decimal(mark if lots else 0), now_ns),
                BookTop(((mid - 1, 5),), ((mid + 1, 5),), 1, now_ns, now_ns),
                Ticker(mark, mark, mark, 0.0, 0.0, 0.0, 0.0, now_ns, now_ns),
            ):
                self.sink.post(symbol, event)
        await self.sink.deliver()

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        super().submit(requests)
        if not self.answers:
            return
        for symbol, request in requests:
            if isinstance(request, PlaceOrder):
                size = request.size_lots
                acked = OrderAcked(request.label, request.label[-3:], request.price_ticks, size, size, START_NS)
                self._to_post.append((symbol, acked))
            elif isinstance(request, CancelOrder):
                self._to_post.append((symbol, OrderClosed(request.label, "", "user_request", 0, START_NS)))
        self._wake.set()

    async def open_orders(self) -> dict[str, list[OpenOrder]]:
        self.asked += 1
        await trio.sleep(self.thinks_seconds)
        if isinstance(self.left, Exception):
            raise self.left
        return self.left

    async def expired_ns(self, symbol: str) -> int | None:
        await trio.lowlevel.checkpoint()
        return None

    async def index_price(self, index: str) -> float:
        await trio.lowlevel.checkpoint()
        return 80_000.0
