"""A running sandbox on mock time, and an adapter logged in to it that can crash and be followed by another one.

One of each dialect, with the same helpers: `symbol` is the perpetual where it all happens, `lot` the amount of one of
its lots and `least` the fewest of them in an order, `account` ours as the sandbox calls it, `late` what is said of an
order that came too late, `tells_profit` whether positions are reported with one; within `clock_seconds` the exchange's
clock is known again. `forgotten`: what is told of an order of which the exchange has no record any more.
"""

import random
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any

import trio
import trio.testing
from deribit_peer import START_NS, Recorder, wall_clock_ns

from mmd.domain.actions import PlaceOrder
from mmd.domain.events import (
    BookTop,
    Mail,
    OrderAbsent,
    OrderAcked,
    OrderFilled,
    ProtectionReported,
    RequestLost,
    TradeLinkUp,
)
from mmd.domain.ids import base36
from mmd.domain.reasons import Side
from mmd.exchanges.deribit.session import Deribit
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.session import Derive
from mmd.exchanges.derive.signing import MAINNET
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.markets import generated_market
from mmd.sandbox.model import Direction
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

BTC = "BTC-PERPETUAL"
ACCOUNT = "maker"


class Place(ABC):
    """A running sandbox, and the adapter logged in to it."""

    symbol: str
    account: str
    lot: Decimal
    least: int
    late: str
    tells_profit: bool
    clock_seconds: float
    forgotten: type[Mail]

    @property
    def amount(self) -> Decimal:
        """Of the smallest order."""
        return self.lot * self.least

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.sandbox = self.make_sandbox()
        self.levers: Any = self.sandbox.levers
        self.sink = Recorder()
        self._orders = 0
        self._top: BookTop
        self._process = trio.CancelScope()
        self.exchange = self.make()

    @abstractmethod
    def make_sandbox(self) -> Sandbox: ...

    @abstractmethod
    def make(self, **changes: Any) -> Any:
        """One process's adapter."""

    async def start(self, *symbols: str) -> None:
        await self.nursery.start(self.sandbox.run)
        await self.begin(*symbols)

    async def begin(self, *symbols: str) -> None:
        """Start the process, and wait until it can trade."""
        await self.nursery.start(self._run)
        self.exchange.watch(symbols)
        for symbol in symbols:
            await self.until(lambda symbol=symbol: self.sink.of(TradeLinkUp, symbol) and self.sink.of(BookTop, symbol))

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._process:
            await self.exchange.run(self.sink, task_status=task_status)

    async def crash(self) -> list[Mail]:
        """The process is gone, without goodbye. Returns what its machine of our symbol had heard."""
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
        self.exchange.submit([(self.symbol, request) for request in requests])
        await self.exchange.flush()
        await trio.sleep(0.05)

    def label(self, side: Side) -> str:
        self._orders += 1
        return f"mmd-svc-{self.symbol}-{side.value[0]}-{base36(START_NS // 1_000_000)}-{base36(self._orders)}"

    def top(self) -> BookTop:
        found: list[BookTop] = self.sink.of(BookTop, self.symbol)
        return found[-1] if found else self._top

    def forget(self) -> None:
        """What was posted until now, but for the top of the book."""
        self._top = self.top()
        self.sink.clear()

    def remember(self, top: BookTop) -> None:
        """The top of the book, for a process that has not heard it yet."""
        self._top = top

    def heard(self) -> list[Mail]:
        """What its machine of our symbol has heard."""
        return [event for symbol, event in self.sink.posted if symbol == self.symbol]

    def near(self, ticks: int) -> int:
        """So far above the best bid."""
        return self.top().bids[0][0] + ticks

    def protection(self) -> list[tuple[bool, str]]:
        return [(event.armed, event.detail) for event in self.sink.of(ProtectionReported, self.symbol)]

    async def rest(self, lots: int = 100) -> str:
        """A bid of ours far below; returns its label."""
        label = self.label(Side.BID)
        await self.send(PlaceOrder(label, Side.BID, self.top().bids[0][0] - 200, lots))
        await self.until(lambda: any(event.label == label for event in self.sink.of(OrderAcked)))
        return label

    async def go_long(self, lots: int) -> None:
        await self.rest(lots)
        self.levers.fill_quote(self.account, self.symbol, Direction.BUY)
        await self.until(lambda: self.sink.of(OrderFilled))


class DeribitPlace(Place):
    symbol = BTC
    account = ACCOUNT
    lot = Decimal(10)
    least = 1
    late = "timed_out"
    tells_profit = True
    clock_seconds = 0.0
    forgotten = OrderAbsent

    def make_sandbox(self) -> Sandbox:
        market = generated_market(3, now_ms=START_NS // 1_000_000)
        return Sandbox(market, SandboxOptions(seed=3), wall_clock_ns=wall_clock_ns)

    def make(self, **changes: Any) -> Deribit:
        values: dict[str, Any] = {
            "name": "deribit",
            "service": "svc",
            "dial": self.sandbox.connect,
            "host": "sandbox",
            "client_id": ACCOUNT,
            "client_secret": "s",
            "grant": "client_credentials",  # whatever the clocks say
            "rng": random.Random(1),
            "started_ns": wall_clock_ns(),
            "wall_clock_ns": wall_clock_ns,
        }
        return Deribit(**(values | changes))


class DerivePlace(Place):
    symbol = "ETH-PERP"
    account = str(SUBACCOUNT)
    lot = Decimal("0.01")
    least = 100
    late = "reject_timestamp_passed"
    tells_profit = False
    clock_seconds = 31.0
    forgotten = RequestLost

    def make_sandbox(self) -> Sandbox:
        market = derive_market(3, now_ms=START_NS // 1_000_000)
        options = SandboxOptions(exchange=Exchange.DERIVE, seed=3)
        return Sandbox(market, options, wall_clock_ns=wall_clock_ns)

    def make(self, **changes: Any) -> Derive:
        values: dict[str, Any] = {
            "name": "derive",
            "service": "svc",
            "dial": self.sandbox.connect,
            "host": "sandbox",
            "identity": Identity(SessionKey(SESSION_SECRET), WALLET, SUBACCOUNT),
            "domain": MAINNET,
            "rng": random.Random(1),
            "started_ns": wall_clock_ns(),
            "wall_clock_ns": wall_clock_ns,
        }
        return Derive(**(values | changes))


PLACES: dict[str, type[Place]] = {"deribit": DeribitPlace, "derive": DerivePlace}
