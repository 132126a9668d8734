"""One seed, and many: play, count, and say how to see a failure again."""

import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import trio
import trio.testing
from sim_exact import exactly
from sim_ground import GROUNDS
from sim_plan import draw, weights_on
from sim_planted import planted
from sim_world import World

MEMORY = Path("/dev/shm")
Seed = tuple[str, int]  # of an exchange
RAISED = "raised"
PATIENCE_SECONDS = 10.0  # of work for a simulated minute, which takes less than one


@dataclass
class Outcome:
    """What came of one seed. `failure` is empty if every promise was kept."""

    exchange: str
    seed: int
    minutes: float
    only: frozenset[str] | None
    bug: str = ""
    failure: str = ""
    promise: str = ""
    story: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    simulated_seconds: float = 0.0
    seconds: float = 0.0
    digest: str = ""

    @property
    def again(self) -> str:
        """The one line that shows it again."""
        only = f" --only {','.join(sorted(self.only)) or 'none'}" if self.only is not None else ""
        planted = f" --planted {self.bug}" if self.bug else ""
        where = f"--exchange {self.exchange} --seed {self.seed}"
        return f"python -m tests.simulation {where} --minutes {self.minutes:g}{only}{planted}"

    def report(self) -> str:
        return "\n".join([f"{self.exchange}, seed {self.seed}: {self.failure}", *self.story, f"again: {self.again}"])


class Stuck(Exception):
    """Simulated time does not pass any more."""


class Patience(contextlib.AbstractContextManager["Patience"]):
    """Raises Stuck within, with the place where it is, once the processor has worked for so long. `over` then."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._seconds = seconds

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        self.over = True
        sys.unraisablehook = lambda told: None  # what becomes of the tasks that are left behind tells nothing
        raise Stuck(f"not done after {self._seconds:g} s of work")

    def __enter__(self) -> "Patience":
        self._hook = sys.unraisablehook
        self._before = signal.signal(signal.SIGPROF, self._give_up)
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        return self

    def __exit__(self, *raised: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, self._before)
        gc.collect()
        sys.unraisablehook = self._hook


def play(
    exchange: str,
    seed: int,
    minutes: float,
    only: frozenset[str] | None = None,
    shown: int = 40,
    *,
    told: bool = False,
    bug: str = "",
) -> Outcome:
    """Run one seed on an exchange to its end or its first broken promise; the story of a failure, or any if `told`.

    `bug`: one of `sim_planted`. Same arguments, same run, to the last byte.
    """
    outcome = Outcome(exchange, seed, minutes, only, bug)
    ground = GROUNDS[exchange]
    os.environ.update(ground.environment)
    logger = logging.getLogger("mmd")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    began = time.perf_counter()
    root = Path(tempfile.mkdtemp(prefix="mmd-sim-", dir=MEMORY if MEMORY.is_dir() else None))
    worlds: list[World] = []

    patient = Patience(PATIENCE_SECONDS * max(1.0, minutes))

    async def main() -> None:
        worlds.append(World(draw(seed, minutes, only, ground)))
        await worlds[0].run()
        outcome.simulated_seconds = trio.current_time()

    try:
        with (
            contextlib.chdir(root),
            ground.adapted(),
            planted(exchange, bug),
            exactly(seed),
            patient,
        ):  # in the directory: names are relative, so that where it is is in no message
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as raised:  # whatever it is, it is what came of this seed
        if isinstance(raised, KeyboardInterrupt):
            raise
        outcome.failure = "".join(traceback.format_exception(raised))
        outcome.promise = "time passes" if patient.over else f"{RAISED} {_leaf(raised).__class__.__name__}"
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
    for world in worlds:
        if world.violation is not None:
            outcome.failure, outcome.promise = str(world.violation), world.violation.promise
        if outcome.failure or told:
            about = world.violation.about if world.violation is not None else ""
            outcome.story = world.story.ending(about, shown)
        outcome.counts = world.story.counts | world.wire.counts | {"takes": world.market.takes}
        outcome.digest = world.wire.digest.hexdigest()
    shutil.rmtree(root)
    outcome.seconds = time.perf_counter() - began
    gc.collect()
    return outcome


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def play_many(seeds: Iterable[Seed], minutes: float, jobs: int, only: frozenset[str] | None) -> Iterator[Outcome]:
    """Outcomes as they come; each seed runs in one of `jobs` processes."""
    tasks = ((exchange, seed, minutes, only) for exchange, seed in seeds)
    if jobs <= 1:
        yield from itertools.starmap(play, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(_play, tasks)


def _play(task: tuple[str, int, float, frozenset[str] | None]) -> Outcome:
    return play(*task)


class Tally:
    """Sums over many seeds."""

    def __init__(self) -> None:
        self.outcomes = 0
        self.failures: list[Outcome] = []
        self.counts: dict[str, int] = {}
        self.simulated_seconds = 0.0
        self.slowest: list[tuple[float, str, int]] = []
        self.exchanges: dict[str, int] = {}
        self._began = time.perf_counter()

    def add(self, outcome: Outcome) -> None:
        self.outcomes += 1
        self.simulated_seconds += outcome.simulated_seconds
        for name, count in outcome.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.exchanges[outcome.exchange] = self.exchanges.get(outcome.exchange, 0) + 1
        self.slowest = sorted([*self.slowest, (outcome.seconds, outcome.exchange, outcome.seed)], reverse=True)[:5]
        if outcome.failure:
            self.failures.append(outcome)

    def line(self) -> str:
        seconds = time.perf_counter() - self._began
        pace = f"{self.outcomes / seconds:.2f} seeds/s, {self.simulated_seconds / seconds:.0f} simulated s/s"
        return f"{self.outcomes} seeds, {len(self.failures)} failed, {pace}"

    def totals(self) -> str:
        """What the weather was, so that one sees that it was real."""
        kinds = {kind for exchange in self.exchanges for kind in weights_on(GROUNDS[exchange])}
        troubles = {name: self.counts.get(name, 0) for name in sorted(kinds)}
        others = {name: count for name, count in sorted(self.counts.items()) if name not in kinds}
        slow = {f"{exchange} {seed}": f"{seconds:.1f} s" for seconds, exchange, seed in self.slowest}
        rows: list[tuple[str, Mapping[str, object]]] = [
            ("seeds", self.exchanges),
            ("troubles", troubles),
            ("happened", others),
            ("slowest", slow),
        ]
        return "\n".join(
            f"{title}: " + ", ".join(f"{name} {count}" for name, count in row.items()) for title, row in rows
        )


def main(seeds: list[Seed], minutes: float, jobs: int, only: frozenset[str] | None, most_failures: int) -> int:
    """Print as it goes; 1 if a promise was broken."""
    tally = Tally()
    told_at = time.perf_counter()
    for outcome in play_many(seeds, minutes, jobs, only):
        tally.add(outcome)
        if outcome.failure:
            print(f"FAILED {outcome.report()}\n", flush=True)
        if time.perf_counter() - told_at > 10.0:
            told_at = time.perf_counter()
            print(tally.line(), file=sys.stderr, flush=True)
        if len(tally.failures) >= most_failures:
            break
    print(tally.line())
    print(tally.totals())
    return 1 if tally.failures else 0


def hunt(planted: list[tuple[str, str]], seeds: list[int], minutes: float, jobs: int) -> int:
    """After how many seeds each planted bug of an exchange was caught, and by whom; 1 if one was not."""
    tasks = [(exchange, name, seeds, minutes) for exchange, name in planted]
    missed = 0
    with multiprocessing.get_context("spawn").Pool(max(1, jobs), maxtasksperchild=1) as pool:
        for exchange, name, count, promise, seed in pool.imap_unordered(_hunt, tasks):
            caught = f"caught by seed {seed}, the {count}. tried: {promise}" if promise else f"not in {count} seeds"
            missed += not promise or promise.startswith(RAISED)  # then it is planted wrongly
            print(f"{exchange} {name:36} {caught}", flush=True)
    return 1 if missed else 0


def _hunt(task: tuple[str, str, list[int], float]) -> tuple[str, str, int, str, int]:
    exchange, name, seeds, minutes = task
    for count, seed in enumerate(seeds, 1):
        outcome = play(exchange, seed, minutes, bug=name)
        if outcome.failure:
            return exchange, name, count, outcome.promise, seed
    return exchange, name, len(seeds), "", 0
