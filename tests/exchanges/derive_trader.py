"""A running Derive sandbox on mock time, and the trade half of the room logged in to it, over the session's own link.

What the data half of the room does is played here as far as a trade link needs it.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing
from deribit_peer import START_NS, Recorder, wall_clock_ns

from mmd.core.budget import Budget
from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder
from mmd.domain.events import Mail, OpenOrder, OrderAcked, TradeLinkUp
from mmd.domain.ids import base36
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.exchanges.connection import Connection, Dialect, House
from mmd.exchanges.derive import codec
from mmd.exchanges.derive.errors import ERRORS
from mmd.exchanges.derive.instruments import decode_instruments
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.messages import ListingParams
from mmd.exchanges.derive.questions import DeriveQuestions
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.signing import MAINNET, login_params
from mmd.exchanges.derive.trading import DeriveOrders
from mmd.exchanges.jsonrpc import Head, Sent
from mmd.exchanges.known import Known
from mmd.exchanges.paces import Pace, Paces
from mmd.exchanges.reconnect import Reconnect
from mmd.exchanges.trading import TradeCalls, Trading
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

SYMBOL = "ETH-PERP"
ACCOUNT = str(SUBACCOUNT)
VALID_MS = 2000


class Part:
    """Login, Beat, Subscriptions, AccountCalls, Cash and ProtectionCalls in one, as little as goes."""

    silent_seconds = 60.0
    signs_time = False
    frozen_code = required_code = 0

    def __init__(self, room: Room) -> None:
        self.room = room

    async def log_in(self, connection: Connection) -> float:
        params = login_params(SessionKey(SESSION_SECRET), WALLET, self.room.house.clock.now_ms())
        await connection.call("public/login", params)
        return float("inf")

    async def begin(self, connection: Connection) -> None:
        pass

    def due(self, now: float) -> bytes:
        return b"ping" if round(now * 4) % 40 == 0 else b""

    def took(self, message: bytes) -> bool:
        return message == b"pong"

    def heard(self, connection: Connection, head: Head) -> bool:
        return False

    def request(self, names: list[str], *, on: bool) -> tuple[str, object]:
        return ("subscribe" if on else "unsubscribe"), codec.channels(names)

    def granted(self, raw: msgspec.Raw) -> set[str]:
        return set(msgspec.json.decode(raw)["current_subscriptions"])

    def culprits(self, error: Exception, names: list[str]) -> list[str]:
        return []

    async def arm(self, connection: Connection) -> bool:
        raw = await connection.call("public/get_all_instruments", ListingParams("perp"))
        for symbol, listed in decode_instruments(raw, "derive").listed.items():
            self.room.listed[symbol] = listed
            self.room.house.instruments[symbol] = listed.instrument
        await connection.call("subscribe", codec.channels([codec.book_channel(SYMBOL)]))  # or nobody makes a market
        return True

    async def is_armed(self, connection: Connection) -> bool:
        return True

    async def accounts(self, connection: Connection) -> list[Any]:
        return []

    def wake(self) -> None:
        pass

    def settled(self) -> None:
        pass

    async def serve(self, connection: Connection) -> None:
        pass

    def key(self, instrument: Instrument) -> str:
        return instrument.base

    def told(self, channel: str, data: msgspec.Raw) -> None:
        return None


def times(sent: Sent, head: Head) -> tuple[int, int] | None:
    if sent.method != "public/get_time" or head.error is not None:
        return None
    at_us = int(bytes(head.result)) * 1000
    return at_us, at_us


class Trader:
    """The sandbox, and one process's trade link after the other."""

    def __init__(self, nursery: trio.Nursery, derive: DeriveOptions) -> None:
        self.nursery = nursery
        self.sandbox = Sandbox(
            derive_market(3, now_ms=START_NS // 1_000_000),
            SandboxOptions(exchange=Exchange.DERIVE, seed=3, derive=derive),
            wall_clock_ns=wall_clock_ns,
        )
        self.levers: Any = self.sandbox.levers
        self._orders = 0

    async def begin(self, known_ms: dict[str, int] | None = None) -> None:
        """The next process: it knows labels, and since when fills may be missing."""
        self.sink = Recorder()
        house = House(
            name="derive", service="svc", errors=ERRORS, wall_clock_ns=wall_clock_ns, rng=random.Random(1),
            started_ns=wall_clock_ns(), budget=Budget(100.0, 100.0, 10.0), order_valid_ms=VALID_MS,
        )  # fmt: skip
        house.sink = self.sink
        self.room = Room(
            house, Identity(SessionKey(SESSION_SECRET), WALLET, SUBACCOUNT), MAINNET, order_life_seconds=600
        )
        part: Any = Part(self.room)
        self.questions = DeriveQuestions(self.room)
        calls = TradeCalls(
            channels=part, orders=DeriveOrders(self.room), questions=self.questions, protection=part,
            account=part, cash=part, most_cancels=float("inf"),
        )  # fmt: skip
        self.trading = Trading(house, Known(), calls)
        self.trading.inquiry.recover(known_ms or {}, {})
        dialect = Dialect(
            login=part, beat=part, paces=Paces(Pace(1000.0, 1000.0), {}), encode=codec.encode, times=times,
            clock="public/get_time", clock_seconds=30.0, throttled_seconds=5.0,
            one_budget=True,
        )  # fmt: skip
        house.watched, house.watching = (SYMBOL,), True
        self.trading.rewatch()
        link = Reconnect(house, self.trading, dialect, self.sandbox.connect, "sandbox", "/v3/ws", self._refused)
        self._process = trio.CancelScope()
        self.nursery.start_soon(self._keep, link, self._process)
        await self.until(lambda: self.sink.of(TradeLinkUp, SYMBOL))

    async def _keep(self, link: Reconnect, scope: trio.CancelScope) -> None:
        with scope:
            await link.keep()

    def _refused(self, error: Exception) -> None:
        raise error

    async def restart(self) -> None:
        """The process is gone without a word; cancel on disconnect is not armed."""
        self._process.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await self.begin({SYMBOL: START_NS // 1_000_000})

    # --- the machine's side ---

    async def until(self, condition: Any, seconds: float = 30.0) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - mock time, and what is waited for has no event
                await trio.sleep(0.01)

    def label(self) -> str:
        self._orders += 1
        return f"mmd-svc-{SYMBOL}-b-{base36(START_NS // 1_000_000)}-{base36(self._orders)}"

    @property
    def price(self) -> int:
        """Far below the market."""
        listing = self.sandbox.levers._panel.engine.floor.listings[SYMBOL]
        return self.room.house.instruments[SYMBOL].grid.ticks(listing.best()[0]) - 5000

    def said(self, kind: type, label: str) -> list[Any]:
        return [event for event in self.sink.of(kind, SYMBOL) if getattr(event, "label", "") == label]

    async def send(self, *requests: Any) -> None:
        self.trading.submit([(SYMBOL, request) for request in requests])
        assert self.trading.connection is not None
        await self.trading.connection.flush()
        await trio.sleep(0.05)

    async def rest(self, lots: int = 200) -> str:
        label = self.label()
        await self.send(PlaceOrder(label, Side.BID, self.price, lots))
        await self.until(lambda: self.said(OrderAcked, label))
        return label

    async def amend(self, label: str, lots: int, *, filled: int = 0, ticks: int = 10) -> list[Mail]:
        """What is said of the order then."""
        self.sink.clear()
        await self.send(AmendOrder(label, label, Side.BID, self.price + ticks, filled + lots, lots))
        return self.said(object, label)

    async def cancel(self, label: str) -> list[Mail]:
        self.sink.clear()
        await self.send(CancelOrder(label, label, Side.BID))
        return self.said(object, label)

    def open(self) -> list[Any]:
        """As the exchange has them."""
        return list(self.sandbox.levers._panel.engine.floor.accounts[ACCOUNT].open_orders.values())

    async def listed(self) -> list[OpenOrder]:
        assert self.trading.connection is not None
        return (await self.trading.inquiry.open_orders(self.trading.connection)).get(SYMBOL, [])


@asynccontextmanager
async def trading(**options: Any) -> AsyncIterator[Trader]:
    async with trio.open_nursery() as nursery:
        trader = Trader(nursery, DeriveOptions(**options))
        await nursery.start(trader.sandbox.run)
        await trader.begin()
        yield trader
        nursery.cancel_scope.cancel()
