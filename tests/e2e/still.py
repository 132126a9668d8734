"""A daemon and its sandbox in this process, on mock time, with a market that moves only when a test moves it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.exchanges.derive.signing import TESTNET
from mmd.sandbox.derive.known import SUBACCOUNT
from mmd.sandbox.derive.options import DEFAULT_WALLET, DeriveOptions
from mmd.sandbox.faults import Faults
from mmd.sandbox.model import Direction, InstrumentState, Reference, SandboxInstrument, Venue
from mmd.sandbox.orders import Order
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions
from mmd.shell import wiring
from mmd.shell.accounts import SANDBOX_KEY
from mmd.shell.daemon import Daemon
from mmd.shell.desk import Caller, ChangeResult, Outcome, SymbolStatus
from mmd.shell.worker import Worker

T = TypeVar("T")
D = Decimal
START_NS = 1_795_000_000_000_000_000  # 2026-11-18T11:06:40Z
BTC, ETH = "BTC-PERPETUAL", "ETH-PERPETUAL"
PRICES = {BTC: D(80000), ETH: D(3000)}
OPERATOR = Caller(uid=1000, pid=1, name="tester")
PATIENCE_SECONDS = 120.0  # of mock time
POLL_SECONDS = 0.02

CONFIG = """\
version: 1
service: {name: still, mode: live, metrics: {listen: null}}
exchanges: {deribit: {type: deribit, network: sandbox}}
market_data: {stale_seconds: 5, auto_resume: false, auto_resume_seconds: 1}
spreads:
  join: {fair: mid, style: around, spread_bps: 20, band_bps: 300, size: 10}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: join}
  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: join}
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5, ETH: 50}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""
RICH = {  # on Derive, where amounts are coins
    "collar_bps: 500}": "collar_bps: 500, max_order_value_usd: 1000000000}",
    "{BTC: 5, ETH: 50}, max_notional_usd: 1000000,": "{BTC: 5000, ETH: 50000}, max_notional_usd: 1000000000,",
}


def perpetual(name: str) -> SandboxInstrument:
    base = name.partition("-")[0]
    return SandboxInstrument(
        instrument_name=name,
        instrument_id=len(base) + ord(base[0]),
        kind="future",
        instrument_type="reversed",
        base_currency=base,
        quote_currency="USD",
        counter_currency="USD",
        settlement_currency=base,
        settlement_period="perpetual",
        price_index=f"{base.lower()}_usd",
        tick_size=D("0.5"),
        min_trade_amount=D(10),
        contract_size=D(10),
        maker_commission=D(0),
        taker_commission=D("0.0005"),
        creation_timestamp=0,
        expiration_timestamp=32_503_708_800_000,
    )


class StillMarket:
    """Implements Market: each second the mark wobbles by a tick, so that tickers come; books stay as they are set."""

    def __init__(self) -> None:
        self.venue: Venue | None = None
        self.perpetual = perpetual
        self.marks = dict(PRICES)
        self.steps = 0

    def instruments(self) -> list[SandboxInstrument]:
        return [self.perpetual(name) for name in PRICES]

    def start(self, venue: Venue, now_ms: int) -> None:
        self.venue = venue
        self._refer(now_ms)

    def want(self, name: str, now_ms: int) -> None:
        self.set_book(name, now_ms, [(-1, 1000), (-2, 1000)], [(1, 1000), (2, 1000)])

    def step(self, now_ms: int) -> int:
        self.steps += 1
        self._refer(now_ms)
        return now_ms + 1000

    def _refer(self, now_ms: int) -> None:
        assert self.venue is not None
        for name, price in self.marks.items():
            self.venue.set_index(perpetual(name).price_index, price, now_ms)
            mark = price + D("0.5") * (self.steps % 2)
            reference = Reference(
                mark_price=mark,
                index_price=price,
                min_price=price * D("0.9"),
                max_price=price * D("1.1"),
                current_funding=0.0,
                funding_8h=0.0,
            )
            self.venue.set_reference(name, reference, now_ms)

    def set_book(self, name: str, now_ms: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        """The whole anonymous book: (ticks from the first price, amount)."""
        assert self.venue is not None
        levels = [{PRICES[name] + D("0.5") * ticks: D(amount) for ticks, amount in side} for side in (bids, asks)]
        self.venue.set_levels(name, *levels, now_ms, snapshot=True)


def in_coins(name: str) -> SandboxInstrument:
    """The instrument as Derive would have it: paid in USDC, its amounts in coins."""
    return msgspec.structs.replace(
        perpetual(name),
        instrument_type="linear",
        quote_currency="USDC",
        counter_currency="USDC",
        settlement_currency="USDC",
        max_trade_amount=D(10**6),
    )


@dataclass(frozen=True)
class Ground:
    """What is spoken by the exchange where something is tried.

    Instruments have the same names, grids and amounts everywhere, but amounts are USD on Deribit and coins on Derive.
    """

    type: str
    account: str

    def sandbox(self, market: StillMarket, wall_ns: Callable[[], int]) -> Sandbox:
        if self is DERIBIT:
            return Sandbox(market, wall_clock_ns=wall_ns)
        market.perpetual = in_coins
        wallet = msgspec.structs.replace(DEFAULT_WALLET, usdc=D(10**12))
        derive = DeriveOptions(chain_id=TESTNET.chain_id, wallets=(wallet,))
        return Sandbox(market, SandboxOptions(exchange=Exchange.DERIVE, derive=derive), wall_clock_ns=wall_ns)

    def write(self, text: str) -> str:
        """A configuration for Deribit, made one for this ground; the exchange keeps its name."""
        if self is DERIVE:
            for poor, rich in {"type: deribit": "type: derive", **RICH}.items():
                text = text.replace(poor, rich)
        return text

    def shown(self, order: Order) -> str:
        """The id under which the daemon shows an order: on Derive that changes with every replace."""
        return order.label if self is DERIVE else order.order_id


DERIBIT = Ground("deribit", SANDBOX_KEY[0])
DERIVE = Ground("derive", str(SUBACCOUNT))
GROUNDS = {ground.type: ground for ground in (DERIBIT, DERIVE)}
ON_EACH = pytest.mark.parametrize("ground", [pytest.param(ground, id=name) for name, ground in GROUNDS.items()])


class House:
    """What a test holds: the daemon, and the exchange from behind."""

    def __init__(self, daemon: Daemon, sandbox: Sandbox, market: StillMarket, ground: Ground = DERIBIT) -> None:
        self.ground = ground
        self.daemon = daemon
        self.sandbox = sandbox
        self.market = market
        self.started = trio.Event()

    @property
    def faults(self) -> Faults:
        return self.sandbox.faults

    def worker(self, name: str) -> Worker:
        return self.daemon.pump.workers[f"deribit/{name}"]

    def row(self, name: str) -> SymbolStatus:
        return self.daemon.status([name]).symbols[0]

    def state(self, name: str) -> tuple[str, str]:
        row = self.row(name)
        return row.state, row.reason

    def resting(self, name: str) -> list[Order]:
        """Our orders as the matching engine has them."""
        return self.sandbox.levers.open_orders(self.ground.account, name)

    def resting_ids(self, name: str) -> set[str]:
        """As `order_ids` shows them."""
        return {self.ground.shown(order) for order in self.resting(name)}

    def position(self, name: str) -> Decimal:
        """Our position as the exchange has it."""
        return self.sandbox.levers.position(self.ground.account, name)

    def set_book(self, name: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        self.market.set_book(name, self.sandbox.now_ms, bids, asks)
        self.sandbox.publish()

    def set_state(self, name: str, state: InstrumentState) -> None:
        self.sandbox.engine.set_state(name, state, self.sandbox.now_ms)
        self.sandbox.publish()

    def take(self, name: str, direction: Direction, amount: int) -> None:
        """Somebody takes from the book, through every price."""
        limit = PRICES[name] * (D("1.05") if direction is Direction.BUY else D("0.95"))
        assert self.sandbox.engine.take(name, direction, D(amount), limit.quantize(D(1)), self.sandbox.now_ms)
        self.sandbox.publish()

    def events(self, name: str) -> list[str]:
        """Details of the events of one name."""
        return [line.detail for line in self.daemon.events_since(0, 10_000) if line.name == name]

    async def until(self, condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """The first true value, looked for on mock time; trio.TooSlowError after `seconds` of it."""
        with trio.fail_after(seconds):
            while True:
                value = condition()
                if value:
                    return value
                await trio.sleep(POLL_SECONDS)

    async def resume(self, *names: str) -> ChangeResult:
        return await self.daemon.resume(list(names or ("all",)), "test", OPERATOR, 10.0)

    async def reset(self, *names: str) -> ChangeResult:
        return await self.daemon.reset(list(names or ("all",)), "looked at it", OPERATOR, 10.0)

    def both_live(self, *names: str) -> bool:
        rows = [self.row(name) for name in names or PRICES]
        return all(side.phase == "LIVE" for row in rows for side in (row.bid, row.ask))

    async def quote(self, *names: str) -> None:
        """Resume, and wait for both orders of each symbol."""
        assert (await self.resume(*names)).outcome is Outcome.DONE
        await self.until(lambda: self.both_live(*names))

    def order_ids(self, name: str) -> set[str]:
        row = self.row(name)
        return {str(row.bid.order_id), str(row.ask.order_id)}

    async def stop(self) -> None:
        self.daemon.stop()
        await self.daemon.stopped.wait()


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch,
    text: str = CONFIG,
    arm: Callable[[Faults], None] | None = None,
    ground: Ground = DERIBIT,
) -> AsyncIterator[House]:
    """A daemon that is ready, all PAUSED; stopped at the end, with the engine's word that nothing rests.

    `arm`: faults for the start.
    """
    market = StillMarket()
    made: list[Sandbox] = []

    def make_sandbox(config: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
        made.append(ground.sandbox(market, wall_ns))
        return made[-1]

    monkeypatch.setattr(wiring, "make_sandbox", make_sandbox)
    daemon = Daemon(load_text(ground.write(text)), Path("mmd.yaml"), lambda: START_NS)
    if arm is not None:
        arm(made[0].faults)
    house = House(daemon, made[0], market, ground)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        yield house
        await house.stop()
        assert daemon.farewell is not None and daemon.farewell.proven_empty
        assert not house.sandbox.levers.open_orders(ground.account)
        nursery.cancel_scope.cancel()
