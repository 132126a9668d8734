"""A running sandbox on mock time, and an adapter logged in to it that can crash and be followed by another one."""

import random
from typing import Any

import trio
import trio.testing
from deribit_peer import START_NS, Recorder, wall_clock_ns

from mmd.domain.actions import PlaceOrder
from mmd.domain.events import BookTop, Mail, OrderAcked, OrderFilled, ProtectionReported, TradeLinkUp
from mmd.domain.ids import base36
from mmd.domain.reasons import Side
from mmd.exchanges.deribit.session import Deribit
from mmd.sandbox.markets import generated_market
from mmd.sandbox.model import Direction
from mmd.sandbox.serve import Sandbox, SandboxOptions

BTC = "BTC-PERPETUAL"
ACCOUNT = "maker"


class Place:
    """A running sandbox, and the adapter logged in to it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        market = generated_market(3, now_ms=START_NS // 1_000_000)
        self.sandbox = Sandbox(market, SandboxOptions(seed=3), wall_clock_ns=wall_clock_ns)
        self.levers = self.sandbox.levers
        self.sink = Recorder()
        self._orders = 0
        self._top: BookTop
        self._process = trio.CancelScope()
        self.deribit = self.make()

    def make(self, **changes: Any) -> Deribit:
        """One process's adapter."""
        values: dict[str, Any] = {
            "name": "deribit",
            "service": "svc",
            "dial": self.sandbox.connect,
            "host": "sandbox",
            "client_id": ACCOUNT,
            "client_secret": "s",
            "rng": random.Random(1),
            "started_ns": wall_clock_ns(),
            "wall_clock_ns": wall_clock_ns,
        }
        return Deribit(**(values | changes))

    async def start(self, *symbols: str) -> None:
        await self.nursery.start(self.sandbox.run)
        await self.begin(*symbols)

    async def begin(self, *symbols: str) -> None:
        """Start the process, and wait until it can trade."""
        await self.nursery.start(self._run)
        self.deribit.watch(symbols)
        for symbol in symbols:
            await self.until(lambda symbol=symbol: self.sink.of(TradeLinkUp, symbol) and self.sink.of(BookTop, symbol))

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._process:
            await self.deribit.run(self.sink, task_status=task_status)

    async def crash(self) -> list[Mail]:
        """The process is gone, without goodbye. Returns what its machine of BTC-PERPETUAL had heard."""
        self._process.cancel()
        heard = self.heard()
        self.sink = Recorder()
        await trio.testing.wait_all_tasks_blocked()
        return heard

    async def until(self, condition, seconds: float = 10.0) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - mock time, and what is waited for has no event
                await trio.sleep(0.01)

    async def send(self, *requests) -> None:
        self.deribit.submit([(BTC, request) for request in requests])
        await self.deribit.flush()
        await trio.sleep(0.05)

    def label(self, side: Side) -> str:
        self._orders += 1
        return f"mmd-svc-{BTC}-{side.value[0]}-{base36(START_NS // 1_000_000)}-{base36(self._orders)}"

    def top(self) -> BookTop:
        found: list[BookTop] = self.sink.of(BookTop, BTC)
        return found[-1] if found else self._top

    def forget(self) -> None:
        """What was posted until now, but for the top of the book."""
        self._top = self.top()
        self.sink.clear()

    def remember(self, top: BookTop) -> None:
        """The top of the book, for a process that has not heard it yet."""
        self._top = top

    def heard(self) -> list[Mail]:
        """What its machine of BTC-PERPETUAL has heard."""
        return [event for symbol, event in self.sink.posted if symbol == BTC]

    def near(self, ticks: int) -> int:
        """So far above the best bid."""
        return self.top().bids[0][0] + ticks

    def protection(self) -> list[tuple[bool, str]]:
        return [(event.armed, event.detail) for event in self.sink.of(ProtectionReported, BTC)]

    async def rest(self, lots: int = 100) -> str:
        """A bid of ours far below; returns its label."""
        label = self.label(Side.BID)
        await self.send(PlaceOrder(label, Side.BID, self.top().bids[0][0] - 200, lots))
        await self.until(lambda: any(event.label == label for event in self.sink.of(OrderAcked)))
        return label

    async def go_long(self, lots: int) -> None:
        await self.rest(lots)
        self.levers.fill_quote(ACCOUNT, BTC, Direction.BUY)
        await self.until(lambda: self.sink.of(OrderFilled))
