"""The world of one seed: a market, an exchange, a network, a host, an operator, and lives of the daemon.

Storms and calms take turns. In a calm everything that was wrong is mended, the market stands still, the
operator does what is sensible; once quotes are back, the judges compare the books.
"""

import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import trio
from pytest import MonkeyPatch
from sim_disk import Platter
from sim_judge import Oracle, glance
from sim_life import Life
from sim_market import START_NS, MovingMarket
from sim_oracle_charged import Charged
from sim_oracle_empty import Empty
from sim_oracle_fills import NoFillLost
from sim_oracle_journal import JournalKept, WrittenFirst
from sim_oracle_known import Known
from sim_oracle_latch import Latched
from sim_oracle_ledger import Ledger
from sim_oracle_limits import Limits
from sim_oracle_positions import Positions
from sim_oracle_quotes import BACK_SECONDS, missing
from sim_oracle_reaped import Reaped
from sim_oracle_replay import ReplayEqual
from sim_oracle_secrets import Secrets
from sim_oracle_sides import OnePerSide
from sim_plan import SERVICE, Plan, Variant
from sim_story import Story, Violation
from sim_weather import Weather
from sim_weather_derive import DeriveWeather
from sim_wire import Wire

from mmd.config.load import load_text
from mmd.domain.ids import label_prefix
from mmd.exchanges.api import Dial
from mmd.sandbox.accounts import Account
from mmd.sandbox.notices import AccountChanged, Notice
from mmd.sandbox.orders import CancelReason, OrderState
from mmd.sandbox.serve import Sandbox
from mmd.shell import wiring
from mmd.shell.daemon import Daemon, Farewell
from mmd.shell.worker import Worker

POLL_SECONDS = 0.5
REAP_SECONDS = 20.0
FAIR_SECONDS = 6.0  # of good weather after a calm, so that there is something to lose
DOWN_SECONDS = (0.05, 0.3, 1.0, 4.0, 15.0)
CLOCK_IS_RIGHT_NS = 300_000_000
WEATHERS: dict[str, type[Weather]] = {"deribit": Weather, "derive": DeriveWeather}


class World:
    """Made inside trio; `run` once. `violation` is the first promise that was broken."""

    def __init__(self, plan: Plan) -> None:
        """In a directory of its own, which is the current one."""
        self.plan = plan
        self.story = Story()
        self.violation: Violation | None = None
        self.prefix = label_prefix(SERVICE)
        self.tiny = Decimal("1e-25")
        self.mild = False
        self.shadowed = False
        self.crash_at_start: list[int] = []
        self.dialling = 0
        self.life: Life | None = None
        self.farewell: Farewell | None = None
        self.withheld_at = -1e9  # when the exchange last kept news of a fill to itself
        self.left_to_exchange = 0  # orders that cancel-on-disconnect pulled
        self.reaped = False  # nothing rests: the reaper says so, and no life has begun since
        self.halted: set[str] = set()  # symbols that were HALTED when a life ended, until one runs again
        self.last_head = ""  # of the journal, as the last life left it in order
        self.platter = Platter()
        self.host_offset_ns = 0
        self.config_path = Path("mmd.yaml")
        self.state_directory = Path("state-0001")
        self.scope = trio.CancelScope()
        self._keeping = True
        self._all_over = trio.Event()  # no life follows
        self._host = plan.stream("host")
        self._reaper = plan.stream("reaper")
        self.variants: dict[str, Variant] = {load_text(variant.text).sha256: variant for variant in plan.variants}
        self.variant = plan.variants[0]
        self.config_path.write_text(self.variant.text)
        self.state_directory.mkdir()
        self.market = MovingMarket(plan.symbols, plan.stream("market"), plan.step_ms, plan.eagerness)
        self.ground = plan.ground
        self.sandbox = Sandbox(self.market, self.ground.sandbox(plan.seed), wall_clock_ns=self.true_ns)
        self.wire = Wire(plan.stream("wire"), plan.latency, self.sandbox.server.serve)
        self.weather = WEATHERS[self.ground.name](self)
        self.secrets = Secrets()
        self.written_first = WrittenFirst()
        self.judges: list[Oracle] = [
            OnePerSide(),
            Limits(),
            Charged(),
            Empty(),
            Reaped(),
            Known(),
            Positions(),
            Ledger(),
            self.secrets,
        ]
        self.judges += [NoFillLost(), Latched(), JournalKept(), ReplayEqual(), self.written_first]
        self._lookers = [judge for judge in self.judges if type(judge).look is not Oracle.look]
        self.wire.leaving = self._leaving
        self._listen()

    # --- looking ---------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return trio.current_time()

    def true_ns(self) -> int:
        return START_NS + round(trio.current_time() * 1e9)

    def host_ns(self) -> int:
        """The clock of the daemon's host."""
        return self.true_ns() + self.host_offset_ns

    @property
    def host_now_ns(self) -> int:
        return self.daemon.clock.now_ns() if self.daemon is not None else self.host_ns()

    @property
    def account(self) -> Account:
        return self.sandbox.engine.floor.account(self.ground.account, self.sandbox.now_ms)

    @property
    def daemon(self) -> Daemon | None:
        """The one that runs; None while there is none, or after its crash."""
        return self.life.daemon if self.life is not None and self.life.up else None

    def workers(self) -> list[Worker]:
        daemon = self.daemon
        return list(daemon.pump.workers.values()) if daemon is not None else []

    def prices(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Mark and index in USD, as the exchange has them now."""
        floor = self.sandbox.engine.floor
        listing = floor.listing(symbol)
        return listing.mark_price, floor.index_price(listing.instrument.price_index)

    def tell(self, text: str, symbol: str = "") -> None:
        self.story.tell(self.now, text, symbol)

    def fail(self, violation: Violation) -> None:
        """The first one counts; everything ends."""
        if self.violation is None:
            self.violation = violation
            self.tell(f"VIOLATION {violation}", violation.about)
            self.scope.cancel()

    # --- the engine's books ----------------------------------------------------------------------

    def _listen(self) -> None:
        """Look after every operation of the engine, and tell what it did to us."""
        floor = self.sandbox.engine.floor
        commit = floor.commit

        def looked(now_ms: int) -> None:
            before = len(floor.notices)
            commit(now_ms)
            for notice in floor.notices[before:]:
                if isinstance(notice, AccountChanged) and notice.account == self.ground.account:
                    self._overhear(notice)
            self.look()

        reshape = self.sandbox.faults.reshape

        def reshaped(notices: list[Notice]) -> list[Notice]:
            told = reshape(notices)
            passed = {id(notice) for notice in told}
            if any(id(notice) not in passed for notice in notices):
                self.withheld_at = self.now
            return told

        self.sandbox.faults.reshape = reshaped  # type: ignore[method-assign]  # they hear what is withheld
        floor.commit = looked  # type: ignore[method-assign]  # the judges sit at the exchange

    def _overhear(self, notice: AccountChanged) -> None:
        for trade in notice.trades:
            self.story.count("fills")
            self.tell(f"exchange: {trade.label} {trade.direction} {trade.amount} filled", notice.instrument_name)
        for order in notice.orders:
            self.story.count("orders")
            if order.state is OrderState.EXPIRED:
                self.story.count("expired")
            self.left_to_exchange += order.cancel_reason is CancelReason.CANCEL_ON_DISCONNECT
            text = f"{order.label} {order.direction} {order.remaining} at {order.price} {order.state}"
            self.tell(f"exchange: {text} {order.cancel_reason}".rstrip(), notice.instrument_name)

    def _leaving(self, owner: int) -> None:
        if self.life is not None and self.life.number == owner:
            try:
                self.written_first.leaving(self)
            except Violation as broken:
                self.fail(broken)

    def look(self) -> None:
        if self.life is not None and self.life.daemon is not None:  # also a dead one's: what it sent may arrive yet
            self.variant = self.variants.get(self.life.daemon.in_force.sha256, self.variant)
        sides = glance(self)
        try:
            for judge in self._lookers:
                judge.look(self, sides)
        except Violation as broken:
            self.fail(broken)

    def _ask(self, what: Callable[[Oracle], None]) -> None:
        try:
            for judge in self.judges:
                what(judge)
        except Violation as broken:
            self.fail(broken)

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Storms and calms, then a stop. `violation` afterwards."""
        logger = logging.getLogger("mmd")
        logger.addHandler(self.secrets.listener)
        try:
            with MonkeyPatch.context() as patch, self.scope:
                self.ground.plug(patch, self._dialer)  # there is no other network here
                await self._run()
        except BaseExceptionGroup as group:
            self._unwrap(group)
        finally:
            logger.removeHandler(self.secrets.listener)

    def _unwrap(self, group: BaseExceptionGroup[BaseException]) -> None:
        broken, rest = group.split(Violation)
        if rest is not None:
            raise rest
        leaf: BaseException | None = broken
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        assert isinstance(leaf, Violation)
        self.fail(leaf)

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.sandbox.run)
            await nursery.start(self.wire.run)
            await nursery.start(self.weather.run)
            nursery.start_soon(self._keep_alive)
            await self._calm()
            for storm in self.plan.storms:
                await trio.sleep(FAIR_SECONDS)
                await self.weather.storm(storm)
                await self._calm()
            await self._end()
            nursery.cancel_scope.cancel()

    def _dialer(self, what: str) -> Dial:
        owner = self.dialling

        async def dial() -> trio.abc.Stream:
            self.story.count(f"{what} dialled")
            return await self.wire.dial(owner)

        return dial

    async def _keep_alive(self) -> None:
        """What a service manager does: start it again, however it ended."""
        number = 0
        while self._keeping:
            number += 1
            self.reaped = False
            life = self.life = Life(self, number, self.state_directory)
            if self.crash_at_start:
                life.crash_after(self.crash_at_start.pop(0), told=True)
            self.tell(f"life {number} begins, clock off by {self.host_offset_ns / 1e9:g} s")
            await life.run()
            self.story.count("lives")
            self.state_directory = life.next_directory
            if not life.dead:
                self._ask(lambda judge: judge.stopped(self))
            if self._keeping:
                if life.dead and self._reaper.random() < self.ground.reaped_share:
                    await self._reap()
                await trio.sleep(self._host.choice(DOWN_SECONDS))
                self._set_clock()
        self._all_over.set()

    async def _reap(self) -> None:
        """What a service manager has done after a daemon that did not stop in order."""
        self.dialling = 0  # no life's
        config = load_text(self.config_path.read_text())
        reaper = wiring.wire_reaper(config.exchanges[self.ground.name], SERVICE, self.host_ns, settled=False)
        with trio.move_on_after(REAP_SECONDS):
            await reaper.reap(only_look=False)
        found = reaper.progress
        self.reaped = found.proven
        self.story.count("reaped" if found.proven else "reaped in vain")
        self.story.count("reaped orders", len(found.orders))
        self.tell(f"reaper: {found.before} before, {found.after} after, proven {found.proven}, {found.errors}")
        self.look()

    def _set_clock(self) -> None:
        """Between two lives somebody may set the clock, well or badly."""
        drawn = self._host.random()
        if self.mild or drawn < 0.6:
            self.host_offset_ns = 0
        elif drawn < 0.95:
            self.host_offset_ns = int(self._host.uniform(-0.25, 0.25) * 1e9)
        else:
            self.host_offset_ns = int(self._host.choice((-7200.0, -30.0, -3.0, 2.0, 45.0, 7200.0)) * 1e9)

    async def _calm(self) -> None:
        """Mend everything, wait until quotes are back, and let the judges compare."""
        self.tell("--- the weather clears")
        self.weather.clear()
        self.market.still = True
        self.market.settle_down(self.sandbox.clock.true_ms)
        self.sandbox.publish()
        self.mild = True
        if self.life is not None:
            self.life.forgive()
        self.crash_at_start.clear()
        began = self.now
        if abs(self.host_offset_ns) > CLOCK_IS_RIGHT_NS and self.life is not None:
            await self.life.stop()
        while (late := self._not_yet()) is not None:
            if self.now - began > BACK_SECONDS:
                raise late
            await trio.sleep(POLL_SECONDS)
        self.story.count("calms")
        self.story.count("seconds until calm", round(self.now - began))
        self.tell(f"--- calm after {self.now - began:.1f} s")
        self._ask(lambda judge: judge.calm(self))
        self.mild = False
        self.market.still = False

    def _not_yet(self) -> Violation | None:
        """What will be a broken promise unless it mends itself in time."""
        why, symbol = missing(self)
        if why:
            return Violation(f"quotes are back within {BACK_SECONDS:g} s", why, symbol)
        try:
            for judge in self.judges:
                judge.settled(self)
        except Violation as late:
            return late
        return None

    async def _end(self) -> None:
        self._keeping = False
        assert self.life is not None
        self.mild = True
        self.market.still = True
        before = self.left_to_exchange
        # Nobody can cancel over a half-open link. Its end comes too late for a stop, which says then that orders may
        # be left; that it is one, neither side may have noticed yet.
        heard = not any(link.up.lost or link.down.lost for link in self.wire.standing())
        await self.life.stop()
        await self._all_over.wait()
        await trio.sleep(FAIR_SECONDS)
        if (count := self.left_to_exchange - before) > 0 and heard:
            raise Violation("an orderly stop cancels by itself", f"{count} orders were left to cancel-on-disconnect")
        left = self.farewell
        if left is None or (heard and not left.proven_empty):
            raise Violation("an orderly stop in good weather leaves nothing", str(left))
        self._ask(lambda judge: judge.over(self))
