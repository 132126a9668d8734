"""Interruptions: one operation of the daemon, and at one exact place within it something comes in between.

Every operation is played undisturbed first, while its steps (of the scheduler) and its writes (to the journal)
are counted; then once more for every place. Whatever came in between, the judges of the simulation compare the
books once it is calm again, and quotes must be back.
"""

import argparse
import contextlib
import functools
import gc
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, NamedTuple

import sim_life
import sim_world
import trio
import trio.testing
from sim_disk import SimDisk
from sim_exact import HASH_SEED, again, exactly, needs_new_process
from sim_ground import DERIBIT, ID_VARIABLE, SECRET_VARIABLE
from sim_judge import glance
from sim_life import Life
from sim_market import KINDS
from sim_operator import Operator
from sim_oracle_latch import GONE
from sim_plan import SERVICE, Plan, Variant
from sim_run import MEMORY, Patience
from sim_story import Violation
from sim_world import World

from mmd.config.load import load_text
from mmd.config.model import Config
from mmd.domain.errors import MmdError
from mmd.domain.reasons import State
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Refused
from mmd.shell.daemon import Daemon
from mmd.shell.desk import ChangeResult, Outcome

SEED = 4
D = Decimal
BTC, ETH, USDC = "BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL"
NEVER = 1 << 40
TRADING_SECONDS = 0.5  # before an operation begins
AFTER_SECONDS = 0.15  # what a start still does once it says that it runs: snapshots
ENDS_SECONDS = 90.0
FIRST_TAKE_SECONDS = 0.003  # before a cancel that was just sent arrives
TAKE_SECONDS = 0.013
TAKES = ((BTC, Direction.SELL), (ETH, Direction.BUY), (BTC, Direction.BUY), (ETH, Direction.SELL)) * 3
DOWN_SECONDS = 0.3
WORK_SECONDS = 30.0


class How:
    """What comes in between."""

    CRASH = "crash"  # kill -9; the kernel closes the connections
    VANISH = "vanish"  # the host is gone, and the exchange hears nothing of it
    CUT = "cut"  # every connection to the exchange
    LOST = "lost"  # crash before a write: nothing of it is there
    TORN = "torn"  # half of it
    WHOLE = "whole"  # all of it, and nothing after
    POWER = "power"  # the host loses power: nothing is there that was not made durable


TAILS = (How.LOST, How.TORN, How.WHOLE, How.POWER)
SECONDS = {
    "start": ("stop", "halt", "resume", "reload"),
    "recovery": ("stop", "halt", "resume", "reload"),
    "reload": ("stop", "halt", "reload_back", "pause", "reset"),
    "halt": ("stop", "reset", "resume", "reload"),
    "resume": ("stop", "halt", "pause", "reload"),
    "stop": ("stop", "halt", "resume", "reload"),
}
"""Per operation: the commands that come while it is under way."""

OPERATIONS = tuple(SECONDS)


class Place(NamedTuple):
    """One interruption: of which operation, what, and before which step or at which write (counted from 1)."""

    operation: str
    how: str  # of How, or a command
    at: int

    def __str__(self) -> str:
        return f"{self.operation} {self.how} {self.at}"


@dataclass
class Played:
    """What came of it. `failure` is empty if every promise was kept; `hit`: the place was reached."""

    place: Place
    failure: str = ""
    story: list[str] = field(default_factory=list)
    steps: int = 0
    writes: int = 0
    hit: bool = False
    taken: int = 0  # fills while it was under way
    lives: int = 0
    answers: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def report(self) -> str:
        lines = [f"{self.place}: {self.failure}", *self.story]
        return "\n".join([*lines, f"again: python tests/simulation/sim_steps.py {self.place}"])


# --- the scenario ----------------------------------------------------------------------------------------


def _variant(symbols: tuple[str, ...], spread_bps: int) -> Variant:
    limits = {name: KINDS[name].lot * 60 for name in symbols}
    content: dict[str, Any] = {
        "version": 1,
        "service": {"name": SERVICE, "mode": "live", "metrics": {"listen": None}, "statistics_seconds": 3600},
        "exchanges": {
            DERIBIT.name: {
                "type": "deribit",
                "network": {"url": "ws://127.0.0.1:1/ws/api/v2"},
                "credentials": {"client_id": {"env": ID_VARIABLE}, "client_secret": {"env": SECRET_VARIABLE}},
                "grant": "client_credentials",
            }
        },
        "market_data": {"stale_seconds": 10, "auto_resume": False},
        "spreads": {
            name: {
                "spread_bps": spread_bps,
                "min_spread_bps": 2,
                "band_bps": 3000,
                "size": str(KINDS[name].lot * 2),
                "refresh_seconds": 0,
            }
            for name in symbols
        },
        "kill_switches": {"disconnect_storm": {"max_disconnects": 20}},
        "reconciliation": {"interval_seconds": 5},
        "journal": {"fsync": "interval", "segment_mib": 0.25, "reserve_mib": 0},
        "instruments": [
            {
                "exchange": DERIBIT.name,
                "symbol": name,
                "spread": name,
                "limits": {"max_position": str(limits[name]), "max_order_size": str(limits[name])},
            }
            for name in symbols
        ],
        "limits": {
            "per_symbol": {
                "max_position": str(max(limits.values())),
                "max_order_size": str(max(limits.values())),
                "collar_bps": 2000,
                "max_fills": 10_000,
                "max_filled": "100000000",
                "ack_timeout_seconds": 2,
            },
            "portfolio": {
                "max_exposure": {"BTC": "100", "ETH": "100"},
                "max_notional_usd": "10000000",
                "max_drawdown_usd": 100_000_000,
            },
        },
    }
    exposure = {"BTC": D(100), "ETH": D(100)}
    return Variant(json.dumps(content, indent=1), symbols, limits, D(10_000_000), exposure)


def _plan() -> Plan:
    """Two symbols; the second configuration changes one, drops one, and adds another."""
    variants = [_variant((BTC, ETH), 10), _variant((BTC, USDC), 20)]
    return Plan(SEED, [BTC, ETH, USDC], 100, 0.5, 0.01, variants, [], maker_protection=False)


class StagedDisk(SimDisk):
    """Counts writes of one life, the first ones included; at one of them its process ends."""

    count = 0
    until = NEVER

    def __init__(self, stage: "Stage", life: Life) -> None:
        super().__init__(stage.plan.stream("disk"), stage.platter)
        self._stage = stage
        self._life = life

    def write(self, handle: int, offset: int, content: bytes) -> int:
        self.count += 1
        if self.count != self.until:
            return super().write(handle, offset, content)
        how = self._stage.place.how
        if how is not How.LOST:
            super().write(handle, offset, content[: len(content) // 2] if how == How.TORN else content)
        self._stage.hit = True
        self._life.crash("write", power_lost=how == How.POWER, told=how != How.POWER)
        return super().write(handle, offset, content)  # the dead go on, where nobody looks

    def _forget(self, copy: Path, writes: list[tuple[int, int]]) -> None:
        with copy.open("r+b") as file:
            file.truncate(writes[0][0])


class StagedOperator(Operator):
    """Does nothing of his own accord until it is to be calm."""

    async def attend(self) -> None:
        while True:
            await trio.sleep(0.4)
            desk = self._desk
            if not self._world.mild or desk is None or desk.phase != "running":
                continue
            try:
                await self._tidy(always=True)
            except (MmdError, LookupError) as refused:
                self._world.tell(f"operator: refused: {refused}")

    async def _change(self, name: str, symbols: list[str]) -> ChangeResult:
        result = await super()._change(name, symbols)
        done = {row.symbol for row in result.symbols if row.outcome is Outcome.DONE}
        if name == "halt":
            self._world.halted |= done  # what is answered so is so after every crash
        elif name == "reset":
            self._world.halted -= done
        return result


class StagedLife(Life):
    """Something happens at its n-th step from some moment."""

    def __init__(self, world: "Stage", number: int, directory: Path) -> None:
        super().__init__(world, number, directory)
        self.disk = self.staged = StagedDisk(world, self)
        self.operator = StagedOperator(world, self)
        self.steps = 0  # of the operation
        self.runs = trio.Event()  # or it is over
        self._stage = world

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self.runs.set()

    def _made(self) -> Daemon:
        daemon = super()._made()
        self.nursery.start_soon(self._watch, daemon)
        return daemon

    async def _watch(self, daemon: Daemon) -> None:
        await daemon.running.wait()
        self.runs.set()

    def stepped(self) -> None:
        assert self.steps_left is not None
        self.steps += 1
        self.steps_left -= 1
        if self.steps_left <= 0:
            self.forgive()
            self._stage.interrupt()


class Stage(World):
    """Plays one operation, interrupted at one place."""

    def __init__(self, place: Place) -> None:
        super().__init__(_plan())
        self.place = place
        self.hit = False
        self.steps = 0
        self.writes = 0
        self.answers: list[str] = []
        self.taken = 0
        self._nursery: trio.Nursery
        self._busy = 0  # commands that have no answer yet
        self._quiet = trio.Event()
        self._quiet.set()
        self._armed = False  # the next life is the operation
        self._began = trio.Event()  # it is

    @property
    def _staged(self) -> StagedLife:
        assert isinstance(self.life, StagedLife)
        return self.life

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.sandbox.run)
            await nursery.start(self.wire.run)
            await nursery.start(self.weather.run)
            nursery.start_soon(self._keep_alive)
            await self._calm()
            await self._trade()
            await getattr(self, f"op_{self.place.operation}")()
            await self._calm()
            await self._end()
            nursery.cancel_scope.cancel()

    async def _keep_alive(self) -> None:
        number = 0
        while self._keeping:
            number += 1
            life = self.life = StagedLife(self, number, self.state_directory)
            if self._armed:
                self._armed = False
                self._arm(life)
                self._began.set()
            self.tell(f"life {number} begins")
            await life.run()
            self.story.count("lives")
            self.state_directory = life.next_directory
            if not life.dead:
                self._ask(lambda judge: judge.stopped(self))
            if self._keeping:
                await trio.sleep(DOWN_SECONDS)
        self._all_over.set()

    async def _trade(self) -> None:
        """Positions on both symbols, and orders that rest."""
        for symbol, side in ((BTC, Direction.BUY), (ETH, Direction.SELL)):
            self.sandbox.levers.fill_quote(DERIBIT.account, symbol, side, KINDS[symbol].lot)
        await trio.sleep(TRADING_SECONDS)
        for symbol, side in glance(self).items():
            traded = bool(side.position and side.bids and side.asks)
            assert traded or symbol == USDC, f"{symbol}: position {side.position}, {side.bids}, {side.asks}"

    async def _take(self) -> None:
        """Now and then somebody takes a lot of what rests, while the operation is under way."""
        await trio.sleep(FIRST_TAKE_SECONDS)
        for symbol, side in TAKES:
            with contextlib.suppress(ValueError, Refused):
                self.sandbox.levers.fill_quote(DERIBIT.account, symbol, side, KINDS[symbol].lot)
                self.taken += 1
            await trio.sleep(TAKE_SECONDS)

    # --- the interruption ------------------------------------------------------------------------

    def _arm(self, life: StagedLife) -> None:
        """The operation begins with this life's next step."""
        self.tell(f"=== {self.place} from here")
        if self.place.how in TAILS:
            life.staged.until = life.staged.count + self.place.at
        self.writes = -life.staged.count
        life.crash_after(NEVER if self.place.how in TAILS else self.place.at, told=True)
        self._nursery.start_soon(self._take)

    def interrupt(self) -> None:
        """Now: between two steps of the daemon."""
        life, how = self._staged, self.place.how
        self.hit = True
        self.tell(f"=== {how} now")
        if how in (How.CRASH, How.VANISH):
            life.crash("step", told=how == How.CRASH)
        elif how == How.CUT:
            for link in self.wire.standing():
                link.cut("reset by peer")
        elif life.over.is_set():
            self.answers.append(f"{how}: nobody listens any more")
        else:
            self._ask_for(life, how)

    def _ask_for(self, life: StagedLife, command: str) -> None:
        if not self._busy:
            self._quiet = trio.Event()
        self._busy += 1
        life.nursery.start_soon(self._command, life, command)

    async def _command(self, life: StagedLife, command: str) -> None:
        """As the control socket does it: an answer, or a refusal that says why."""
        try:
            answer = await self._answer(life, command)
            self.answers.append(f"{command}: {answer}")
        except (MmdError, LookupError) as refused:
            assert str(refused), f"{command} is refused without a word"
            self.tell(f"operator: {command}: refused: {refused}")
            self.answers.append(f"{command}: {refused}")
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    async def _answer(self, life: StagedLife, command: str) -> str:
        operator = life.operator
        if life.daemon is None:
            raise MmdError("nobody listens yet")
        if command == "stop":
            life._note_halted()
            life.daemon.stop()
            return "asked"
        if command.startswith("reload"):
            await operator._reload(0 if command == "reload_back" else 1, None)
            return "answered"
        result = await operator._change(command, ["all"])
        silent = [row.symbol for row in result.symbols if row.outcome is not Outcome.DONE and not row.detail]
        assert not silent, f"{command} is not done, and nobody says why: {silent}"
        return str(result.outcome)

    # --- operations ------------------------------------------------------------------------------

    async def _during(self, command: str) -> None:
        """The operation is a command to the life that is."""
        life = self._staged
        self._arm(life)
        self._ask_for(life, command)
        await self._over(life)

    async def _restart(self) -> None:
        """The operation is the next life's beginning."""
        old = self._staged
        self._armed = True
        self._began = trio.Event()
        if self.place.operation == "start":
            await old.stop()
        else:
            old.crash("now", told=False)
        await self._began.wait()
        life = self._staged
        with trio.move_on_after(ENDS_SECONDS):
            await life.runs.wait()
        await self._over(life)

    async def _over(self, life: StagedLife) -> None:
        """Wait until it is complete, whatever came in between; then what was answered must be so."""
        with trio.move_on_after(ENDS_SECONDS) as waited:
            await self._quiet.wait()
            if life.daemon is not None and life.daemon._stop_requested.is_set():
                await life.over.wait()
            else:
                with trio.move_on_after(AFTER_SECONDS):
                    await life.over.wait()
            await self._quiet.wait()
        if waited.cancelled_caught:
            raise Violation("an operation ends", f"not after {ENDS_SECONDS:g} s")
        self.steps = life.steps
        self.writes += life.staged.count
        life.staged.until = NEVER
        life.forgive()
        self.tell("=== over" if self.hit else "=== complete")
        self._keep_word()

    def _keep_word(self) -> None:
        """A halt that was answered with done lasts."""
        for worker in self.workers():
            if worker.symbol in self.halted and worker.machine.state not in (State.HALTED, *GONE):
                raise Violation("a halt lasts", f"it is {worker.machine.state} ({worker.machine.why})", worker.symbol)

    async def op_start(self) -> None:
        await self._restart()

    async def op_recovery(self) -> None:
        await self._restart()

    async def op_reload(self) -> None:
        await self._during("reload")

    async def op_halt(self) -> None:
        await self._during("halt")

    async def op_resume(self) -> None:
        await self._staged.operator._change("pause", ["all"])
        await self._during("resume")

    async def op_stop(self) -> None:
        await self._during("stop")


# --- playing ---------------------------------------------------------------------------------------------


def interrupt(place: Place, *, told: bool = False) -> Played:
    """Play the operation with this interruption. Same place, same run. `told`: with its story in any case."""
    played = Played(place)
    os.environ.update(DERIBIT.environment)
    logger = logging.getLogger("mmd")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    began = time.process_time()
    root = Path(tempfile.mkdtemp(prefix="mmd-steps-", dir=MEMORY if MEMORY.is_dir() else None))
    stages: list[Stage] = []

    async def main() -> None:
        stages.append(Stage(place))
        await stages[0].run()

    try:
        with contextlib.chdir(root), exactly(SEED), Patience(WORK_SECONDS), read_once():
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except Exception as raised:  # noqa: BLE001  whatever it is, it is what came of this place
        played.failure = "".join(traceback.format_exception(raised))
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
    for stage in stages:
        if stage.violation is not None:
            played.failure = str(stage.violation)
        if played.failure or told:
            played.story = stage.story.ending(stage.violation.about if stage.violation is not None else "", 60)
        played.steps, played.writes, played.hit = stage.steps, stage.writes, stage.hit
        played.answers = stage.answers
        played.taken, played.lives = stage.taken, stage.story.counts.get("lives", 0)
    shutil.rmtree(root)
    played.seconds = time.process_time() - began
    return played


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """The configurations are always the same two: only a reload reads them anew."""
    before = sim_world.load_text, sim_life.load_text
    sim_world.load_text = sim_life.load_text = loaded
    try:
        yield
    finally:
        sim_world.load_text, sim_life.load_text = before


@functools.cache
def loaded(text: str) -> Config:
    return load_text(text)


def undisturbed(operation: str) -> Played:
    """How many steps and writes it has when nothing comes in between."""
    return interrupt(Place(operation, How.CRASH, NEVER))


class Every(NamedTuple):
    """How densely one operation is interrupted: at every n-th step or write. 0: never."""

    crash: int
    write: int
    tails: int  # how many of the tails each such write gets, taking turns
    cut: int
    command: int


EVERYWHERE = Every(1, 1, len(TAILS), 1, 1)


def places(base: Played, every: Every) -> list[Place]:
    """Crashes of the process and of the host take turns, and so do tails and commands."""
    operation, steps = base.place.operation, base.steps
    crashes = (How.CRASH, How.VANISH)
    commands = SECONDS[operation]
    found = [Place(operation, crashes[n % 2], at) for n, at in enumerate(_each(every.crash, steps))]
    for n, at in enumerate(_each(every.write, base.writes)):
        found += [Place(operation, TAILS[(n + more) % len(TAILS)], at) for more in range(every.tails)]
    found += [Place(operation, How.CUT, at) for at in _each(every.cut, steps)]
    found += [Place(operation, commands[n % len(commands)], at) for n, at in enumerate(_each(every.command, steps))]
    return found


def _each(stride: int, count: int) -> range:
    return range(1 + stride // 2, count + 1, stride) if stride else range(0)


def ready() -> None:
    """For a process that plays many: what lives as long as the process need not be looked at after each."""
    undisturbed(OPERATIONS[0])
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def players(jobs: int) -> Iterator[Pool]:
    """Processes in which sets of strings are walked in the same order everywhere: same place, same run."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    try:
        pool = multiprocessing.get_context("spawn").Pool(jobs, ready)
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
    with pool:
        yield pool


@dataclass
class Tally:
    """All interruptions of one operation."""

    base: Played
    played: list[Played]

    @property
    def failures(self) -> list[Played]:
        return [each for each in (self.base, *self.played) if each.failure]

    @property
    def missed(self) -> list[Place]:
        return [each.place for each in self.played if not each.hit and not each.failure]

    def count(self, *hows: str) -> int:
        return sum(each.place.how in hows for each in self.played)

    def line(self) -> str:
        crashes, writes, cuts = self.count(How.CRASH, How.VANISH), self.count(*TAILS), self.count(How.CUT)
        return (
            f"{self.base.place.operation}: {self.base.steps} steps, {self.base.writes} writes; interrupted "
            f"{len(self.played)} times: {crashes} crashes at a step, {writes} at a write, {cuts} cuts, "
            f"{len(self.played) - crashes - writes - cuts} commands; {len(self.failures)} failed, "
            f"{sum(each.seconds for each in self.played):.0f} s"
        )


def tally(pool: Pool, operation: str, every: Every) -> Tally:
    base = pool.apply(undisturbed, (operation,))
    return Tally(base, pool.map(interrupt, places(base, every) if not base.failure else [], chunksize=4))


def everywhere() -> int:
    """Every place of every operation."""
    failed = 0
    with players(os.cpu_count() or 1) as pool:
        for operation in OPERATIONS:
            found = tally(pool, operation, EVERYWHERE)
            print(found.line(), flush=True)
            for each in found.failures:
                print(f"FAILED {each.report()}\n", flush=True)
            failed += len(found.failures)
    return 1 if failed else 0


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operation", choices=(*OPERATIONS, "all"), help="`all`: everything, everywhere; minutes")
    parser.add_argument("how", nargs="?", default=How.CRASH)
    parser.add_argument("at", nargs="?", type=int, default=NEVER)
    words = parser.parse_args()
    if words.operation == "all":
        return everywhere()
    played = interrupt(Place(words.operation, words.how, words.at), told=True)
    print("\n".join(played.story))
    print(played.failure or "every promise was kept")
    print(f"{played.steps} steps, {played.writes} writes, hit {played.hit}, {played.taken} fills, {played.lives} lives")
    print(f"answers {played.answers}, {played.seconds:.2f} s")
    return 1 if played.failure else 0


if __name__ == "__main__":
    if needs_new_process():
        again()
    sys.exit(run())
