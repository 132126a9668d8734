"""A running sandbox that speaks Derive's dialect, on mock time, and an adapter that is logged in to it."""

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import trio
import trio.testing
from deribit_peer import START_NS, Recorder, wall_clock_ns

from mmd.domain.events import BookTop, TradeLinkUp
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.session import Derive
from mmd.exchanges.derive.signing import MAINNET
from mmd.sandbox.derive.known import SESSION_KEY, SESSION_SECRET, SUBACCOUNT, WALLET, WALLET_SECRET
from mmd.sandbox.derive.options import DeriveOptions, KeyLine, Rates, WalletLine
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.model import Direction
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

PERP = "ETH-PERP"
ACCOUNT = str(SUBACCOUNT)
START_SEC = START_NS // 1_000_000_000
__all__ = ["ACCOUNT", "PERP", "SESSION_KEY", "START_SEC", "SUBACCOUNT", "WALLET", "WALLET_SECRET", "Place", "wallet"]


def wallet(**key: Any) -> WalletLine:
    """The known wallet, whose one key is another one in these fields."""
    keys = (KeyLine(**({"address": SESSION_KEY} | key)),)
    return WalletLine(address=WALLET, subaccounts=(SUBACCOUNT, SUBACCOUNT + 1), keys=keys)


class Place:
    """A sandbox, and the adapter."""

    def __init__(self, nursery: trio.Nursery, *wallets: WalletLine, rates: Rates | None = None) -> None:
        self.nursery = nursery
        self.ahead_ns = 0  # the exchange's clock
        options = DeriveOptions(wallets=wallets or (wallet(),), rates=rates or Rates())
        self.sandbox = Sandbox(
            derive_market(3, now_ms=START_NS // 1_000_000),
            SandboxOptions(exchange=Exchange.DERIVE, seed=3, derive=options),
            wall_clock_ns=lambda: wall_clock_ns() + self.ahead_ns,
        )
        self.levers: Any = self.sandbox.levers
        self.sink = Recorder()
        self.derive = self.make()
        self._process = trio.CancelScope()

    def make(self, secret: str = SESSION_SECRET, owner: str = WALLET, number: int = SUBACCOUNT) -> Derive:
        """One process's adapter."""
        return Derive(
            name="derive",
            service="svc",
            dial=self.sandbox.connect,
            host="sandbox",
            identity=Identity(SessionKey(secret), owner, number),
            domain=MAINNET,
            rng=random.Random(1),
            started_ns=wall_clock_ns(),
            wall_clock_ns=wall_clock_ns,
        )

    async def start(self, *symbols: str) -> None:
        await self.nursery.start(self.sandbox.run)
        await self.begin(*symbols)

    async def begin(self, *symbols: str) -> None:
        """Start the process, and wait until it can trade."""
        await self.nursery.start(self._run)
        self.derive.watch(symbols)
        for symbol in symbols:
            await self.until(lambda symbol=symbol: self.sink.of(TradeLinkUp, symbol) and self.sink.of(BookTop, symbol))

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._process:
            await self.derive.run(self.sink, task_status=task_status)

    async def end(self) -> None:
        """The process is gone."""
        self._process.cancel()
        self.sink = Recorder()
        await trio.testing.wait_all_tasks_blocked()

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - mock time, and what is waited for has no event
                await trio.sleep(0.01)

    def call(self, days: float = 0.0) -> str:
        """The name of a call of the first expiry after so many days."""
        return min(
            (one for one in self.derive.instruments.values() if one.strike is not None and one.symbol.endswith("-C")
             and one.base == "ETH" and (one.expiry_ns or 0) > START_NS + days * 86_400e9),
            key=lambda one: (one.expiry_ns, abs((one.strike or Decimal(0)) - 3000)),
        ).symbol  # fmt: skip

    def hold(self, symbol: str, amount: str, price: str = "") -> None:
        """The account has a position from now on, at the market's price or, as far as it rests there, at this one."""
        size = Decimal(amount)
        side = Direction.BUY if size > 0 else Direction.SELL
        if not price:
            self.levers.take(symbol, side, abs(size), account=ACCOUNT)
            return
        order = self.levers.foreign_order(ACCOUNT, symbol, side, abs(size), Decimal(price))
        if order.remaining:
            self.levers.fill_order(ACCOUNT, order.order_id)
