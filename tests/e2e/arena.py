"""Kill switches, provoked: two exchanges and a daemon in this process, in real time, and a judge with a watch."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from still import BTC, DERIBIT, DERIVE, ETH, GROUNDS, OPERATOR, PRICES, D, Ground, StillMarket, perpetual

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.domain.reasons import Response, Scope, State, Switch, Why
from mmd.domain.switches import SWITCHES
from mmd.sandbox.accounts import Position
from mmd.sandbox.levers import Levers
from mmd.sandbox.model import Direction, Reference
from mmd.sandbox.orders import Order
from mmd.sandbox.serve import Sandbox
from mmd.shell import wiring
from mmd.shell.daemon import Daemon
from mmd.shell.desk import AlertLine, ChangeResult, Outcome, SymbolStatus
from mmd.shell.metrics import DaemonCollector, slices
from mmd.shell.worker import Worker

T = TypeVar("T")
HERE, THERE = "first", "second"  # two exchanges, so that it shows what a switch of one leaves alone
HERE_BTC, HERE_ETH, THERE_BTC = f"{HERE}/{BTC}", f"{HERE}/{ETH}", f"{THERE}/{BTC}"
ALL = (HERE_BTC, HERE_ETH, THERE_BTC)
HERE_ALL = (HERE_BTC, HERE_ETH)
BUY, SELL = Direction.BUY, Direction.SELL
NUDGE = D("0.05")  # percent: both quotes are amended, neither is met
LIMIT_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.002
STEP_MS = 100
DEPTH = 1_000_000
ZERO = Decimal(0)

CONFIG: dict[str, Any] = {
    "version": 1,
    "service": {"name": "kill", "mode": "live", "metrics": {"listen": None}},
    "exchanges": {name: {"type": "deribit", "network": "sandbox"} for name in (HERE, THERE)},
    "market_data": {"stale_seconds": 20},
    "spreads": {
        "plain": {
            "fair": "mid",
            "style": "around",
            "spread_bps": 20,
            "band_bps": 1000,
            "size": 1000,
            "refresh_seconds": 0.01,
        }
    },
    "instruments": [
        {"exchange": key.partition("/")[0], "symbol": key.partition("/")[2], "spread": "plain"} for key in ALL
    ],
    "limits": {
        "per_symbol": {"max_position": 10_000, "max_order_size": 1000, "collar_bps": 2000},
        "portfolio": {
            "max_exposure": {"BTC": 5, "ETH": 50},
            "max_notional_usd": 1_000_000,
            "max_drawdown_usd": 5000,
        },
    },
}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Maps merge, everything else is replaced."""
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


class Market(StillMarket):
    """Deep books that stand where they are put; the bands wobble by a tick, so that tickers come.

    Not the marks: where amounts are coins, a tick of them is worth more than some limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.indexes = dict(PRICES)
        self.ticks = dict.fromkeys(PRICES, 0)

    def want(self, name: str, now_ms: int) -> None:
        middle = self.ticks[name]
        self.set_book(
            name, now_ms, [(middle - 1, DEPTH), (middle - 2, DEPTH)], [(middle + 1, DEPTH), (middle + 2, DEPTH)]
        )

    def step(self, now_ms: int) -> int:
        super().step(now_ms)
        return now_ms + STEP_MS

    def _refer(self, now_ms: int) -> None:
        for name in self.marks:
            self.refer(name, now_ms)

    def refer(self, name: str, now_ms: int) -> None:
        """Tell mark, index and band of one instrument."""
        assert self.venue is not None
        price, index = self.marks[name], self.indexes[name]
        self.venue.set_index(perpetual(name).price_index, index, now_ms)
        reference = Reference(
            mark_price=price,
            index_price=index,
            min_price=PRICES[name] * D("0.7"),
            max_price=PRICES[name] * D("1.3") + D("0.5") * (self.steps % 2),
            current_funding=0.0,
            funding_8h=0.0,
        )
        self.venue.set_reference(name, reference, now_ms)


# On Derive, where amounts are coins, money is worth more.
RICH: dict[str, Any] = {
    "exchanges": {HERE: {"order_valid_ms": 500}},  # what a lost replace has become is known no sooner
    "limits": {
        "per_symbol": {"max_order_value_usd": 10**9},
        "portfolio": {
            "max_exposure": {"BTC": 10**6, "ETH": 10**6},
            "max_notional_usd": 10**12,
            "max_drawdown_usd": 10**9,
        },
    },
}
CONFIGS: dict[str, Mapping[str, Any]] = {DERIBIT.type: {}, DERIVE.type: RICH}


class Arena:
    """What a provocation holds: the daemon, and both exchanges from behind. Symbols by their key."""

    def __init__(
        self, daemon: Daemon, sandboxes: dict[str, Sandbox], markets: dict[str, Market], state: Path, ground: Ground
    ) -> None:
        self.daemon = daemon
        self.ground = ground
        self.sandboxes = sandboxes
        self.markets = markets
        self.state_dir = state

    @property
    def account(self) -> str:
        """Ours, where things are provoked, as its sandbox calls it."""
        return self.ground.account

    @property
    def accounts(self) -> dict[str, str]:
        """By exchange."""
        return {HERE: self.account, THERE: DERIBIT.account}

    @property
    def levers(self) -> Levers:
        """Of the exchange where things are provoked."""
        return self.sandboxes[HERE].levers

    # --- the market ------------------------------------------------------------------------------

    def refer(self, name: str, *, mark: Decimal | None = None, index: Decimal | None = None) -> None:
        """Another mark or index of an instrument here, told at once; the book stays."""
        market = self.markets[HERE]
        market.marks[name] = market.marks[name] if mark is None else mark
        market.indexes[name] = market.indexes[name] if index is None else index
        market.refer(name, self.sandboxes[HERE].now_ms)
        self.sandboxes[HERE].publish()

    def move(self, name: str, percent: Decimal | int) -> None:
        """Book, mark and index of an instrument here, measured from where they began. Orders in the way are filled."""
        market, price = self.markets[HERE], PRICES[name] * (1 + Decimal(percent) / 100)
        market.ticks[name] = int((price - PRICES[name]) / D("0.5"))
        market.want(name, self.sandboxes[HERE].now_ms)
        self.refer(name, mark=price, index=price)

    def set_book(self, name: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        self.markets[HERE].set_book(name, self.sandboxes[HERE].now_ms, bids, asks)
        self.sandboxes[HERE].publish()

    # --- looking ---------------------------------------------------------------------------------

    def position_of(self, name: str) -> Position:
        """Our position here as the exchange keeps it."""
        sandbox = self.sandboxes[HERE]
        return sandbox.engine.floor.account(self.account, sandbox.now_ms).position(name)

    def worker(self, key: str) -> Worker:
        return self.daemon.pump.workers[key]

    def row(self, key: str) -> SymbolStatus:
        return self.daemon.status([key]).symbols[0]

    def state(self, key: str) -> tuple[str, str]:
        row = self.row(key)
        return row.state, row.reason

    def resting(self, key: str) -> list[Order]:
        """Our orders as the matching engine has them, whatever their label."""
        exchange, _, symbol = key.partition("/")
        return self.sandboxes[exchange].levers.open_orders(self.accounts[exchange], symbol)

    def quoted(self, key: str) -> bool:
        """Both orders rest there, the daemon knows it, and nothing else rests."""
        row = self.row(key)
        known = {side.label for side in (row.bid, row.ask) if side.phase == "LIVE"}
        return len(known) == 2 and sorted(known) == self.labels(key)

    def labels(self, key: str) -> list[str]:
        """Of our orders there: an order that was replaced has another id on some exchanges."""
        return sorted(order.label for order in self.resting(key))

    def alerts(self, switch: Switch) -> list[AlertLine]:
        return [line for line in self.daemon.alerts() if line.name == alert_name(switch)]

    def scrape(self) -> str:
        """What Prometheus gets."""
        return b"".join(slices(DaemonCollector(self.daemon))).decode()

    def trips(self, switch: Switch, scope: Scope) -> int:
        """The metric of a switch, read from a scrape."""
        start = f'mmd_switch_trips_total{{scope="{scope}",switch="{switch}"}} '
        lines = [line for line in self.scrape().splitlines() if line.startswith(start)]
        return int(float(lines[0].removeprefix(start))) if lines else 0

    async def until(self, condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """The first true value; trio.TooSlowError after so long."""
        with trio.fail_after(seconds):
            while True:
                value = condition()
                if value:
                    return value
                await trio.sleep(POLL_SECONDS)

    # --- commands --------------------------------------------------------------------------------

    async def resume(self, keys: Iterable[str] = ALL) -> ChangeResult:
        return await self.daemon.resume(list(keys), "test", OPERATOR, PATIENCE_SECONDS)

    async def reset(self, keys: Iterable[str] = ALL) -> ChangeResult:
        return await self.daemon.reset(list(keys), "looked at it", OPERATOR, PATIENCE_SECONDS)

    async def halt(self, keys: Iterable[str] = ALL, seconds: float = PATIENCE_SECONDS) -> ChangeResult:
        return await self.daemon.halt(list(keys), "now", OPERATOR, seconds)

    async def quote(self, keys: Iterable[str] = ALL) -> None:
        """Resume, and wait for both orders of each."""
        result = await self.resume(keys)
        assert result.outcome is Outcome.DONE, result
        await self.until(lambda: all(self.quoted(key) for key in keys))


@asynccontextmanager
async def arena(
    monkeypatch: pytest.MonkeyPatch, state: Path, config: Mapping[str, Any] | None = None, ground: Ground = DERIBIT
) -> AsyncIterator[Arena]:
    """Everything quotes when it begins. At the end the daemon stops, and the engines say that nothing rests."""
    async with started(monkeypatch, state, config, ground) as found:
        await found.until(lambda: all(line.armed for line in found.daemon.protection()))
        await found.quote()
        yield found


@asynccontextmanager
async def started(
    monkeypatch: pytest.MonkeyPatch, state: Path, config: Mapping[str, Any] | None = None, ground: Ground = DERIBIT
) -> AsyncIterator[Arena]:
    """A daemon that is ready; nobody has resumed anything."""
    markets: dict[str, Market] = {}
    sandboxes: dict[str, Sandbox] = {}

    def make_sandbox(exchange: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
        market = markets[exchange.name] = Market()
        sandboxes[exchange.name] = GROUNDS[exchange.type].sandbox(market, wall_ns)
        return sandboxes[exchange.name]

    monkeypatch.setattr(wiring, "make_sandbox", make_sandbox)
    spoken = {"exchanges": {HERE: {"type": ground.type}}}
    text = json.dumps(merged(merged(merged(CONFIG, CONFIGS[ground.type]), config or {}), spoken))
    daemon = Daemon(load_text(text), Path("mmd.yaml"), state=state)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        found = Arena(daemon, sandboxes, markets, state, ground)
        yield found
        for sandbox in sandboxes.values():
            sandbox.levers.disarm()
        daemon.stop()
        with trio.fail_after(PATIENCE_SECONDS):
            await daemon.stopped.wait()
        accounts = found.accounts
        assert not [order for name in sandboxes for order in sandboxes[name].levers.open_orders(accounts[name])]
        nursery.cancel_scope.cancel()


# --- provocations --------------------------------------------------------------------------------

Pull = Callable[[Arena], Awaitable[float]]
Mend = Callable[[Arena], Awaitable[object]]


async def nothing(found: Arena) -> None:
    """What needs no mending."""


async def connected(found: Arena) -> None:
    await found.until(lambda: all(found.worker(key).machine.market.trade_link for key in HERE_ALL))
    await found.until(lambda: all(found.worker(key).machine.market.book is not None for key in HERE_ALL))


async def fill_the_book(found: Arena) -> None:
    found.move(BTC, 0)


def halts(switch: Switch) -> dict[str, Any]:
    """The configuration in which it halts."""
    return {"kill_switches": {switch.value: {"response": "halt"}}}


@dataclass(frozen=True)
class Provocation:
    """One way to trip one switch.

    `pull` does it and returns when, by trio's clock: where the switch waits for a stated time, the end of
    that time. `scope`: whom it concerns. `target`: what it is told of; empty: each symbol of the scope.
    `detail`: part of the alert's text. `blocked`: the check that stands against a resume until `mend`; for a pause.
    `unproven`: the exchange does not let the orders go, or nobody can ask it: that must be said instead.
    `spoken`: types of exchanges that have that. What counts money, which no exchange knows of, needs one only.
    """

    switch: Switch
    what: str
    pull: Pull
    mend: Mend = nothing
    scope: tuple[str, ...] = (HERE_BTC,)
    of: Scope = Scope.SYMBOL
    why: Why | None = None
    detail: str = ""
    blocked: str = ""
    unproven: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    spoken: tuple[str, ...] = tuple(GROUNDS)

    @property
    def response(self) -> Response:
        switches = self.config.get("kill_switches", {})
        return Response(switches.get(self.switch, {}).get("response", SWITCHES[self.switch].responses[0]))

    @property
    def state(self) -> State:
        return State.PAUSED if self.response is Response.PAUSE else State.HALTED

    @property
    def reason(self) -> Why:
        return self.why or SWITCHES[self.switch].why

    @property
    def severity(self) -> str:
        return "warning" if self.response is Response.PAUSE else "critical"

    @property
    def targets(self) -> tuple[str, ...]:
        """As `mmdctl switches` names them."""
        match self.of:
            case Scope.PORTFOLIO:
                return ("portfolio",)
            case Scope.EXCHANGE:
                return (HERE,)
        return self.scope

    def __str__(self) -> str:
        return f"{self.switch}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """What the judge saw of one provocation; milliseconds after the cause."""

    provocation: Provocation
    state_ms: float
    alert_ms: float
    metric_ms: float
    empty_ms: float
    trips: int


VERDICTS: list[Verdict] = []


def alert_name(switch: Switch) -> str:
    return "Mmd" + switch.replace("_", " ").title().replace(" ", "")


async def judge(found: Arena, case: Provocation) -> Verdict:
    """Pull, and take the time until state, alert, metric and the exchange's own book are what they must be."""
    before = found.trips(case.switch, case.of)
    began = await case.pull(found)
    wanted: dict[str, Callable[[], bool]] = {
        "state": lambda: all(found.state(key) == (case.state, case.reason) for key in case.scope),
        "alert": lambda: len(found.alerts(case.switch)) == len(case.targets),
        "metric": lambda: found.trips(case.switch, case.of) - before >= len(case.targets),
        "empty": lambda: not any(found.resting(key) for key in case.scope),
    }
    if case.unproven:
        wanted["empty"] = lambda: all(found.row(key).shown == "HALTING (2 orders)" for key in case.scope)
    seen: dict[str, float] = {}
    while len(seen) < len(wanted) and trio.current_time() < began + PATIENCE_SECONDS:
        for name, holds in wanted.items():
            if name not in seen and holds():
                seen[name] = (trio.current_time() - began) * 1e3
        await trio.sleep(POLL_SECONDS)
    states = {key: found.state(key) for key in ALL}
    assert seen.keys() == wanted.keys(), (
        f"missing {sorted(wanted.keys() - seen.keys())}: {states}, {found.daemon.alerts()}"
    )
    late = {name: f"{ms:.0f} ms" for name, ms in seen.items() if not 0.0 <= ms <= LIMIT_SECONDS * 1e3}
    assert not late, f"{case}: {late}"
    trips = found.trips(case.switch, case.of) - before
    verdict = Verdict(case, seen["state"], seen["alert"], seen["metric"], seen["empty"], trips)
    VERDICTS.append(verdict)
    return verdict


def table(verdicts: Iterable[Verdict]) -> list[str]:
    """The report: one line for each provocation, in the order of the switches."""
    order = list(Switch)
    head = ["switch", "provocation", "scope", "state (reason)", "ms", "alert", "ms", "metric", "ms", "book", "ms"]
    rows = []
    for verdict in sorted(verdicts, key=lambda verdict: order.index(verdict.provocation.switch)):
        case = verdict.provocation
        rows.append(
            [
                case.switch,
                case.what,
                HERE if case.of is Scope.EXCHANGE else case.of,
                f"{case.state} ({case.reason})",
                f"{verdict.state_ms:.0f}",
                f"{alert_name(case.switch)} {case.severity}",
                f"{verdict.alert_ms:.0f}",
                f"+{verdict.trips}",
                f"{verdict.metric_ms:.0f}",
                "HALTING, told" if case.unproven else "empty",
                f"{verdict.empty_ms:.0f}",
            ]
        )
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if name in ("ms", "metric") else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]
