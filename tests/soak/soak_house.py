"""The daemon and the exchange of a soak: one process, mock time, and an operator who keeps everything quoting."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sized
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from soak_bounds import smaller
from soak_market import START_NS, Crowd
from soak_meter import Meter
from soak_plan import Plan, configuration

from mmd.config.load import load
from mmd.config.model import ExchangeConfig
from mmd.core import own, pnl
from mmd.domain.reasons import Side, State
from mmd.sandbox.serve import Sandbox, SandboxOptions
from mmd.shell import diary, wiring
from mmd.shell.daemon import Daemon
from mmd.shell.desk import Caller, Outcome
from mmd.shell.keeper import inline
from mmd.shell.scrape import metrics_page
from mmd.shell.webhooks import Network
from mmd.shell.worker import Worker

OPERATOR = Caller(uid=1000, pid=1, name="soak")
ATTEND_SECONDS = 5.0
SPREADS_BPS = (6.0, 8.0)
FOREVER_SECONDS = 1e9
MANY = 100_000


class House:
    """What the sampler and the tests hold."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """`directory`: for the state, the configuration and nothing else. Made inside trio."""
        self.plan = plan
        self.state = directory / "state"
        self.state.mkdir()
        self.market = Crowd(plan.symbols - 1, plan.pace, plan.seed)
        self._acts = {
            self._reload: plan.reload_seconds,
            self._reconnect: plan.reconnect_seconds,
            self._roll: plan.roll_seconds,
            self._look: plan.look_seconds,
        }
        # Each at another part of its time, and none just before a look at memory.
        self._due = {
            act: trio.current_time() + seconds * share
            for (act, seconds), share in zip(self._acts.items(), (0.6, 0.2, 0.4, 1.0), strict=True)
            if seconds
        }
        self._expiry_ms = self._next_expiry_ms()
        self.rolling = self.market.list_more(self._expiry_ms).instrument_name
        self.symbols = [one.instrument_name for one in self.market.instruments()]
        self.away = ""  # the symbol that a reload took out
        self.done: Counter[str] = Counter()
        self.expired = ""  # the symbol whose option was delivered, until another takes its place
        self._path = directory / "mmd.yaml"
        self._write_config()
        self.sandbox: Sandbox
        with replaced([(wiring, "make_sandbox", self._make_sandbox)]):
            self.daemon = Daemon(load(self._path), self._path, lambda: START_NS, self.state, in_thread=inline)
        self.daemon.alarms._network = Network(lambda: httpx.MockTransport(self._hook))
        self.meter = Meter(self.daemon)

    def _make_sandbox(self, config: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
        self.sandbox = Sandbox(self.market, SandboxOptions(seed=self.plan.seed), wall_clock_ns=wall_ns)
        return self.sandbox

    def _hook(self, request: httpx.Request) -> httpx.Response:
        self.done["webhook posts"] += 1
        return httpx.Response(200)

    def _write_config(self) -> None:
        wanted = [name for name in self.symbols if name != self.away]
        spread_bps = SPREADS_BPS[self.done["reloads"] % 2]
        self._path.write_text(configuration(self.plan, wanted, spread_bps))

    @property
    def journal_directory(self) -> Path:
        assert self.daemon.journal is not None
        return self.daemon.journal.directory

    def workers(self) -> list[Worker]:
        return list(self.daemon.pump.workers.values())

    # --- what an operator and everybody who looks does -----------------------------------------------

    async def attend(self) -> None:
        """Resume what is PAUSED, reset what is HALTED, and let happen what the plan says; for ever."""
        due = self._due
        while True:
            await self._mend()
            if self.expired:
                await self._replace()
            for act, at in due.items():
                if trio.current_time() >= at:
                    due[act] = at + self._acts[act]
                    await act()
            await trio.sleep(ATTEND_SECONDS)

    async def _mend(self) -> None:
        halted = [worker for worker in self.workers() if worker.machine.state is State.HALTED]
        for worker in halted:
            self.done[f"halted: {worker.machine.why}"] += 1
        if halted:
            await self.daemon.reset([worker.key for worker in halted], "soak", OPERATOR, 30.0)
        paused = [worker for worker in self.workers() if worker.machine.state is State.PAUSED]
        for worker in paused:
            self.done[f"paused: {worker.machine.why}"] += 1
        if paused:
            result = await self.daemon.resume([worker.key for worker in paused], "soak", OPERATOR, 30.0)
            for row in result.symbols:
                if row.outcome is not Outcome.DONE:
                    self.done[f"not resumed: {row.detail}"] += 1

    async def _reload(self) -> None:
        """All spreads change; one symbol leaves, the one that left the last time comes back."""
        if self.expired or self.sandbox.now_ms >= self._expiry_ms:
            return  # a configuration that names what has expired is refused
        self.done["reloads"] += 1
        stays = [name for name in self.symbols if name not in (self.rolling, "BTC-PERPETUAL")]
        self.away = stays[self.done["reloads"] % len(stays)]
        await self._apply()

    async def _apply(self) -> None:
        self._write_config()
        result = await self.daemon.reload(None, OPERATOR)
        assert result.outcome is Outcome.DONE, result
        self.age()

    async def _reconnect(self) -> None:
        self.done["reconnects"] += 1
        self.sandbox.faults.disconnect()

    def _next_expiry_ms(self) -> int:
        """A moment before the next roll."""
        return START_NS // 1_000_000 + round((self._due.get(self._roll, FOREVER_SECONDS) - ATTEND_SECONDS) * 1000)

    async def _roll(self) -> None:
        """The rolling option has expired: it is delivered, and the next one is listed."""
        self.done["rolls"] += 1
        sandbox, market, self.expired = self.sandbox, self.market, self.rolling
        now_ms = sandbox.now_ms
        sandbox.deliver(self.expired, sandbox.engine.floor.index_price("btc_usd"), now_ms)
        market.delist(self.expired)
        self._expiry_ms = self._next_expiry_ms()
        listed = market.list_more(self._expiry_ms)
        sandbox.engine.floor.list_instrument(listed)
        market.mark(listed.instrument_name, now_ms)
        sandbox.publish()
        self.rolling = listed.instrument_name

    async def _replace(self) -> None:
        """Once the symbol of what has expired is gone, what is new takes its place."""
        if f"deribit/{self.expired}" not in self.daemon.pump.workers:
            self.symbols[self.symbols.index(self.expired)] = self.rolling
            self.expired = ""
            await self._apply()

    async def _look(self) -> None:
        """What a scrape, `mmdctl status` and `mmdctl events` read."""
        for _ in metrics_page(self.daemon).body:
            pass
        self.daemon.status(["all"])
        self.daemon.events_since(-1, 100)
        self.daemon.risk()

    # --- age -------------------------------------------------------------------------------------------

    def age(self) -> None:
        """Fill every memory that takes days to fill, of whoever is not aged yet."""
        if not self.plan.aged:
            return
        for worker in self.workers():
            position, orders = worker.machine.position, worker.machine.own
            if len(position._by_label) == pnl.LABELS_REMEMBERED:
                continue

            def texts(most: int, there: Sized, form: str = f"mmd-soak-{worker.symbol}-b-old-{{}}") -> list[str]:
                return [form.format(number) for number in range(most - len(there))]

            number = "{}00000000"
            seen, entries, labels = position._seen, position._entries, position._by_label
            position._seen = dict.fromkeys(texts(pnl.REMEMBERED, seen, number), pnl.ONCE[Side.BID]) | seen
            position._entries = dict.fromkeys(texts(pnl.REMEMBERED, entries, number)) | entries
            position._by_label = dict.fromkeys(texts(pnl.LABELS_REMEMBERED, labels), 1) | labels
            orders._finished = dict.fromkeys(texts(own.FINISHED, orders._finished)) | orders._finished

    def age_house(self) -> None:
        """What the symbols share; and at the exchange, numbers begin where each is an object of its own."""
        if not self.plan.aged:
            return
        for number in range(diary.KEPT):
            self.daemon.diary.note("soak.aged", f"line {number} of a day that was long ago, as long as others are")
        venue = self.sandbox.engine.floor
        venue._next_row = MANY
        for account in venue.accounts.values():
            account._rows = MANY
        for listing in venue.listings.values():
            listing.trade_seq = MANY


@contextmanager
def replaced(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of modules for a while."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


async def here(work: Callable[..., Any], *arguments: Any, **how: Any) -> Any:
    """Instead of a thread, which no mock time waits for."""
    await trio.lowlevel.checkpoint()
    return work(*arguments)


@asynccontextmanager
async def running(plan: Plan, directory: Path) -> AsyncIterator[House]:
    """A daemon that quotes; stopped at the end, with the exchange's word that nothing rests."""
    bounds = smaller(plan.symbols) if plan.small else []
    with replaced([*bounds, (trio.to_thread, "run_sync", here)]):
        house = House(plan, directory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.daemon.alarms.run)
            await nursery.start(house.daemon.run)
            house.age()
            house.age_house()
            await house.daemon.pump.deliver()
            house.meter.peaks.clear()
            await house._mend()
            async with trio.open_nursery() as around:
                around.start_soon(house.attend)
                yield house
                around.cancel_scope.cancel()
            house.daemon.stop()
            await house.daemon.stopped.wait()
            nursery.cancel_scope.cancel()
        assert house.daemon.farewell is not None and house.daemon.farewell.proven_empty
