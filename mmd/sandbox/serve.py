"""The exchange in a box, alive: engine, market and dialect on one clock, behind TCP or memory streams."""

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec
import trio
from trio.testing import memory_stream_pair

from mmd.sandbox.accounts import STARTING_BALANCES
from mmd.sandbox.alarms import Alarms
from mmd.sandbox.clock import Clock, ShiftedVenue
from mmd.sandbox.deribit import voice as deribit
from mmd.sandbox.deribit.auth import Key
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.engine import Engine
from mmd.sandbox.faults import Faults
from mmd.sandbox.limits import Budgets
from mmd.sandbox.listing import next_settlement
from mmd.sandbox.model import InstrumentState, Market
from mmd.sandbox.notices import Notice
from mmd.sandbox.server import Server
from mmd.sandbox.voice import Voice
from mmd.sandbox.wire import Signal

PAUSED_STEP_MS = 100
ACCRUAL_MS = 1000
LONGEST_SLEEP_SECONDS = 3600.0
LIVE = (InstrumentState.OPEN, InstrumentState.LOCKED)


class Exchange(StrEnum):
    """Whose protocol is spoken."""

    DERIBIT = "deribit"
    DERIVE = "derive"


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of Deribit alone: `budgets`, and `keys` (None: any credentials open an account of that client id). Of Derive

    alone: `derive`. `balances` are what a new account has.

    `funding_seconds`: how often accrued funding is paid into balances, besides the daily settlement (0: only
    there). `without_mmp`: accounts without the right to market maker protection.
    """

    exchange: Exchange = Exchange.DERIBIT
    seed: int = 0
    derive: DeriveOptions = DeriveOptions()
    budgets: Budgets = Budgets()
    keys: tuple[Key, ...] | None = None
    balances: Mapping[str, Decimal] = msgspec.field(default_factory=lambda: STARTING_BALANCES)
    speed_bump_ms: int = 0
    notifications_first: bool = False
    funding_seconds: float = 0.0
    without_mmp: frozenset[str] = frozenset()


class Sandbox:
    """One exchange. Start `run` first; then `serve_tcp` and `connect` take clients, in any number.

    `wall_clock_ns` gives Unix nanoseconds and must advance with trio's clock.
    """

    def __init__(
        self, market: Market, options: SandboxOptions | None = None, *, wall_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        options = options or SandboxOptions()
        self.options = options
        self.market = market
        self.clock = Clock(wall_clock_ns)
        self.name = f"sandbox begun at {wall_clock_ns()}"  # what happened in another one is nothing to this one
        self.engine = Engine(seed=options.seed, balances=options.balances, speed_bump_ms=options.speed_bump_ms)
        self.engine.floor.without_mmp = options.without_mmp
        self.alarms = Alarms()
        self.faults = Faults(self.engine, self.publish, self.send, self.later, self._cut)
        self.faults.notifications_first = options.notifications_first
        voice = self._voice(options)
        self.publisher, self.levers = voice.publisher, voice.levers
        self.server = Server(voice.dialect)
        self._wanted: set[str] = set()
        self._market_wake = Signal()
        self._flush_wake = Signal()
        self._alarm_wake = Signal()
        self.clock.shifted = self._clock_shifted
        self.alarms.changed = self._watch_alarms
        self._alarms_watched = False
        self._accrue_ms = 0
        self._nursery: trio.Nursery | None = None
        self.publisher.due_changed = self._flush_wake.set
        for instrument in market.instruments():
            self.engine.floor.list_instrument(instrument)
        market.start(ShiftedVenue(self.engine, self.clock), self.clock.true_ms)
        self.publish()

    def _voice(self, options: SandboxOptions) -> Voice:
        if options.exchange is Exchange.DERIVE:
            from mmd.sandbox.derive import voice as derive  # no sooner: it loads a curve and a codec

            return derive.speak(self, options.derive, options.seed)
        return deribit.speak(self, options.keys, options.budgets, options.seed)

    def _clock_shifted(self) -> None:
        self._flush_wake.set()
        self._alarm_wake.set()

    def wall_us(self) -> int:
        """The exchange's clock, Unix µs; a lever can make it wrong."""
        return self.clock.us

    @property
    def now_ms(self) -> int:
        return self.clock.ms

    def _cut(self, account: str | None) -> int:
        return self.server.cut(account)

    # --- the market ----------------------------------------------------------------------------

    def want(self, name: str) -> None:
        """Bring an instrument's book to life, once."""
        if name in self._wanted or self.engine.floor.listing(name).state not in LIVE:
            return
        self._wanted.add(name)
        self.market.want(name, self.clock.true_ms)
        self.publish()
        self._market_wake.set()

    def publish(self) -> None:
        """Send what the engine has reported since the last call to the subscribers."""
        notices = self.engine.drain()
        if notices:
            self.publisher.publish(self.faults.reshape(notices), self.now_ms)
        self.engine.floor.forget_delivered()

    def send(self, notices: list[Notice]) -> None:
        """Send these notices as they are."""
        self.publisher.publish(notices, self.now_ms)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Run something after so long, while `run` runs. RuntimeError otherwise."""
        if self._nursery is None:
            raise RuntimeError("the sandbox does not run")
        self._nursery.start_soon(_after, seconds, action)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the market live, batches go out and instruments expire, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._run_market)
            nursery.start_soon(self._run_batches)
            nursery.start_soon(self._run_expiries)
            self._watch_alarms()
            if self.options.funding_seconds > 0:
                nursery.start_soon(self._run_funding)
            task_status.started()

    async def _run_market(self) -> None:
        while True:
            now_ms = self.clock.true_ms
            due_ms = now_ms + PAUSED_STEP_MS
            if not self.faults.market_paused:
                due_ms = self.market.step(now_ms)
                self.publish()
            if now_ms >= self._accrue_ms:
                self._accrue_ms = now_ms + ACCRUAL_MS
                self.engine.accrue_funding(self.now_ms)
            with trio.move_on_after(max(0.001, (due_ms - self.clock.true_ms) / 1000)):
                await self._market_wake.wait()

    async def _run_funding(self) -> None:
        while True:
            await trio.sleep(self.options.funding_seconds)
            self.engine.pay_funding(self.now_ms)
            self.publish()

    async def _run_batches(self) -> None:
        while True:
            due_ms = self.publisher.next_flush_ms(self.now_ms)
            if due_ms is None:
                await self._flush_wake.wait()
                continue
            with trio.move_on_after(max(0.001, due_ms / 1000 - self.wall_us() / 1e6)):
                await self._flush_wake.wait()
                continue
            self.publisher.flush(self.now_ms)

    def _watch_alarms(self) -> None:
        """Look at the alarms anew; a dialect that sets none has no task for them."""
        self._alarm_wake.set()
        if self._nursery is not None and not self._alarms_watched and self.alarms.next_ms is not None:
            self._alarms_watched = True
            self._nursery.start_soon(self._run_alarms)

    async def _run_alarms(self) -> None:
        while (due_ms := self.alarms.next_ms) is not None:
            with trio.move_on_after(max(0.001, (due_ms - self.now_ms) / 1000)):
                await self._alarm_wake.wait()
                continue
            if self.alarms.ring(self.now_ms):
                self.publish()
        self._alarms_watched = False

    async def _run_expiries(self) -> None:
        last_ms = self.now_ms
        while True:
            due_ms = min(next_settlement(last_ms), self._next_expiry_ms())
            seconds = (due_ms - self.now_ms) / 1000
            if seconds > 0:
                await trio.sleep(min(seconds, LONGEST_SLEEP_SECONDS))
            if self.now_ms >= due_ms:
                self.settle(self.now_ms, daily=next_settlement(last_ms) <= self.now_ms)
                last_ms = self.now_ms

    def _next_expiry_ms(self) -> int:
        expiries = [
            listing.instrument.expiration_timestamp
            for listing in self.engine.floor.listings.values()
            if listing.state is not InstrumentState.DELIVERED
        ]
        return min(expiries, default=next_settlement(self.now_ms))

    def settle(self, now_ms: int, *, daily: bool) -> None:
        """Deliver what has expired at the index average; `daily` also pays futures profit and lists what is new."""
        floor = self.engine.floor
        expired = [
            (name, listing)
            for name, listing in floor.listings.items()
            if listing.instrument.expiration_timestamp <= now_ms and listing.state is not InstrumentState.DELIVERED
        ]
        prices = {name: index.average(now_ms) for name, index in floor.indexes.items()}
        for name, listing in expired:
            self.deliver(name, prices.get(listing.instrument.price_index, listing.mark_price), now_ms)
        if daily:
            self.engine.settle(now_ms)
            for instrument in self.market.instruments():
                if instrument.expiration_timestamp > now_ms:
                    floor.list_instrument(instrument)
        self.publish()

    def deliver(self, name: str, price: Decimal, now_ms: int) -> None:
        """Settle and deliver one instrument at this price of its index; nothing happens a second time."""
        if self.engine.floor.listing(name).state is InstrumentState.DELIVERED:
            return
        self.engine.set_state(name, InstrumentState.SETTLEMENT, now_ms)
        self.engine.deliver(name, price, now_ms)
        self._wanted.discard(name)

    # --- clients -------------------------------------------------------------------------------

    async def connect(self) -> trio.abc.Stream:
        """A new client's end of an in-process connection to the port. RuntimeError unless `run` runs."""
        if self._nursery is None:
            raise RuntimeError("the sandbox does not run")
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.server.serve, ours)
        await trio.lowlevel.checkpoint()
        return theirs

    async def serve_tcp(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen until cancelled; reports the port (asked as 0: the one it got). OSError if it cannot listen."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        bound: int = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.server.serve, listeners)
            task_status.started(bound)


async def _after(seconds: float, action: Callable[[], object]) -> None:
    await trio.sleep(seconds)
    action()
