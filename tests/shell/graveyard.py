"""What a dead daemon left at an exchange, and its reaper: one of each dialect, over memory streams."""

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, ClassVar

import h11
import httpx
import trio

from mmd.exchanges.api import Reaper
from mmd.exchanges.deribit.reaping import ANSWER_SECONDS, DeribitReaper
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.reaping import DeriveReaper
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET
from mmd.sandbox.derive.options import MARKET_MAKER, TRADER, DeriveOptions
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.markets import generated_market
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Order
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

START_NS = 1_798_700_000_000_000_000


def wall_clock_ns() -> int:
    return START_NS + int(trio.current_time() * 1e9)


class SandboxTransport(httpx.AsyncBaseTransport):
    """HTTP to a sandbox in this process: a connection for each request."""

    def __init__(self, dial: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self._dial = dial

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection = h11.Connection(h11.CLIENT)
        body = await request.aread()
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        parts = (head, h11.Data(data=body), h11.EndOfMessage())
        stream = await self._dial()
        try:
            await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
            return await self._answer(connection, stream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise httpx.RemoteProtocolError(f"cut off: {error}") from error
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, connection: h11.Connection, stream: trio.abc.Stream) -> httpx.Response:
        status, text = 0, b""
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(65536))
                case h11.Response() as response:
                    status = response.status_code
                case h11.Data() as data:
                    text += data.data
                case h11.EndOfMessage():
                    return httpx.Response(status, content=text)
                case _:
                    raise httpx.RemoteProtocolError("cut off before an answer")


class Graveyard(ABC):
    """A sandbox with what a dead daemon left there, and a reaper. Each dialect says what it calls things.

    `symbols` with their least amounts; `looking`: what is called to look; `login`: what is called to log in;
    `refused`, `lost`, `hung`: part of what is said of a cancel that is refused, of one whose answer does not come
    within `patience_seconds`, and of a server that lets nobody in.
    """

    account: str
    symbols: ClassVar[dict[str, Decimal]]
    looking: frozenset[str]
    login: str
    wrong_key: tuple[int, str]
    too_much: tuple[int, str]
    refused: str
    lost: str
    patience_seconds: float
    hung: str

    def __init__(self, nursery: trio.Nursery, *, slow: bool = False) -> None:
        """`slow`: the exchange takes as little as it takes from anybody."""
        self.nursery = nursery
        self.sandbox = self.make_sandbox(slow=slow)
        self.levers = self.sandbox.levers
        self.count = 0
        self.reaper = self.make()

    @abstractmethod
    def make_sandbox(self, *, slow: bool) -> Sandbox: ...

    @abstractmethod
    def make_reaper(self, values: dict[str, Any]) -> Reaper: ...

    def make(self, **changes: Any) -> Reaper:
        """Another one. `dial` opens its connections."""
        values: dict[str, Any] = {
            "name": "one",
            "network": "memory",
            "service": "svc",
            "dial": self.sandbox.connect,
            "wall_clock_ns": wall_clock_ns,
            "rng": random.Random(1),
            "order_valid_ms": 2000,
            "settled": False,
        }
        self.reaper = self.make_reaper(values | changes)
        return self.reaper

    @property
    def first(self) -> str:
        """The symbol where most of it happens."""
        return next(iter(self.symbols))

    async def start(self) -> None:
        await self.nursery.start(self.sandbox.run)
        await trio.sleep(1)

    def leave(self, label: str = "", symbol: str = "") -> str:
        """An order far below the market; its id. Each with a label of its own."""
        self.count += 1
        symbol = symbol or self.first
        return self.place(label or f"mmd-svc-{symbol}-b-abc-{self.count}", symbol)

    def place(self, label: str, symbol: str) -> str:
        mark = self.sandbox.engine.floor.listing(symbol).reference
        assert mark is not None
        price = (mark.mark_price * Decimal("0.97")).to_integral_value() - self.count
        found = self.levers.foreign_order(self.account, symbol, Direction.BUY, self.symbols[symbol], price, label)
        return found.order_id

    def cut_login(self) -> None:
        """The next two logins are cut off."""
        self.levers.cut_answers(2, self.login)

    def resting(self) -> set[str]:
        return {order.order_id for order in self.levers.open_orders(self.account)}

    def closed(self, number: str) -> Order:
        return next(order for order in self.levers.closed_orders(self.account) if order.order_id == number)

    async def reap(self, seconds: float = 20, *, only_look: bool = False) -> float:
        """How long it took; the time limit is that of the caller, as in the program."""
        began = trio.current_time()
        with trio.move_on_after(seconds):
            await self.reaper.reap(only_look=only_look)
        return trio.current_time() - began

    def counts(self) -> tuple[int | None, int, int, int, int | None, bool]:
        """before, later, cancelled, gone, after, proven"""
        told = self.reaper.progress
        outcomes = [str(order.outcome) for order in told.orders]
        return (
            told.before,
            told.later,
            outcomes.count("cancelled"),
            outcomes.count("gone"),
            told.after,
            told.proven,
        )


class DeribitYard(Graveyard):
    account = "maker"
    symbols: ClassVar[dict[str, Decimal]] = {
        "BTC-PERPETUAL": Decimal(10),
        "ETH-PERPETUAL": Decimal(1),
        "BTC_USDC-PERPETUAL": Decimal("0.01"),
    }
    looking = frozenset({"public/auth", "public/set_heartbeat", "private/get_open_orders"})
    login = "public/auth"
    wrong_key = (13004, "invalid_credentials")
    too_much = (10028, "too_many_requests")
    refused = "book_closed"
    lost = "no answer"
    patience_seconds = ANSWER_SECONDS
    hung = "not logged in within 5 s"

    def make_sandbox(self, *, slow: bool) -> Sandbox:
        budget = Budget(5, 20) if slow else Budget(30, 100)
        budgets = Budgets(matching=budget, cancel_all=budget, closes=True)
        market = generated_market(3, now_ms=START_NS // 1_000_000)
        return Sandbox(market, SandboxOptions(seed=3, budgets=budgets), wall_clock_ns=wall_clock_ns)

    def make_reaper(self, values: dict[str, Any]) -> DeribitReaper:
        key = {"client_id": self.account, "client_secret": "s", "grant": "client_signature"}
        return DeribitReaper(host="sandbox", path="/ws/api/v2", **key, **values)


class DeriveYard(Graveyard):
    account = str(SUBACCOUNT)
    symbols: ClassVar[dict[str, Decimal]] = {"ETH-PERP": Decimal(1), "BTC-PERP": Decimal("0.01")}
    looking = frozenset({"public/get_time", "private/get_open_orders"})
    login = "private/get_open_orders"  # the first private call
    wrong_key = (14026, "Session key not found")
    too_much = (-32000, "Rate limit exceeded")
    refused = "Internal error"
    lost = "cut off"  # over HTTP the sandbox hangs up
    patience_seconds = 0.0
    hung = "public/get_time: no answer within 4 s"

    def make_sandbox(self, *, slow: bool) -> Sandbox:
        market = derive_market(3, now_ms=START_NS // 1_000_000)
        derive = DeriveOptions(rates=TRADER if slow else MARKET_MAKER)
        options = SandboxOptions(exchange=Exchange.DERIVE, seed=3, derive=derive)
        return Sandbox(market, options, wall_clock_ns=wall_clock_ns)

    def make_reaper(self, values: dict[str, Any]) -> DeriveReaper:
        values.setdefault("transport", SandboxTransport(values.pop("dial")))
        identity = Identity(SessionKey(SESSION_SECRET), WALLET, SUBACCOUNT)
        return DeriveReaper(base="http://sandbox/v3", identity=identity, account=self.account, **values)


YARDS: dict[str, type[Graveyard]] = {"deribit": DeribitYard, "derive": DeriveYard}
