"""Plays a soak and looks at it again and again: memory, collections, queues, journal, disk."""

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio
from soak_census import (
    Size,
    blocks,
    collections_of,
    empty_caches,
    heap_bytes,
    rss_bytes,
    tasks,
    tracked_by_owner,
)
from soak_house import House, running
from soak_plan import Plan
from trio.testing import MockClock

from mmd.domain.reasons import State

HOUR = 3600.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look. `at_hours` simulated; counts since the start of the daemon; bytes. `heap`: malloc's."""

    at_hours: float
    real_seconds: float
    cpu_seconds: float
    rss: int
    heap: int
    blocks: int
    tasks: int
    tracked: dict[str, int]
    collections: dict[str, Size]
    active: int
    symbols: int
    ticks: int
    requests: int
    placed: int
    fills: int
    changes: int
    journal: int
    snapshots: int
    disk: int
    files: int


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """A soak that is over. `bytes`, `lines`: of the journal, by kind of record; `done`: what happened, how often."""

    plan: Plan
    samples: list[Sample]
    peaks: dict[str, int]
    bytes: dict[str, int]
    lines: dict[str, int]
    seen: dict[str, int]
    done: dict[str, int]
    segments: int

    @property
    def speed(self) -> float:
        """Simulated seconds in one real one, all that was looked at included."""
        first, last = self.samples[0], self.samples[-1]
        return (last.at_hours - first.at_hours) * HOUR / (last.real_seconds - first.real_seconds)

    @property
    def cpu_speed(self) -> float:
        """Simulated seconds in one of processor time: what a machine with nothing else to do would reach."""
        first, last = self.samples[0], self.samples[-1]
        return (last.at_hours - first.at_hours) * HOUR / (last.cpu_seconds - first.cpu_seconds)


def look(house: House) -> Sample:
    """Everything as it is now, after a collection of garbage."""
    empty_caches()
    gc.collect()
    meter = house.meter
    sizes = [path.stat().st_size for path in house.journal_directory.iterdir()]
    workers = house.workers()
    return Sample(
        at_hours=trio.current_time() / HOUR,
        real_seconds=time.perf_counter(),
        cpu_seconds=time.process_time(),
        rss=rss_bytes(),
        heap=heap_bytes(),
        blocks=blocks(),
        tasks=tasks(),
        tracked=dict(tracked_by_owner()),
        collections=collections_of(house.daemon),
        active=sum(worker.machine.state is State.ACTIVE for worker in workers),
        symbols=len(workers),
        ticks=meter.ticks,
        requests=meter.requests,
        placed=meter.seen["PlaceOrder"],
        fills=meter.seen["OrderFilled"],
        changes=meter.seen["SettingsChanged"] + meter.lines["joined"],
        journal=meter.journal_bytes,
        snapshots=meter.bytes["snapshot"],
        disk=sum(sizes),
        files=len(sizes),
    )


@contextmanager
def unheard(log: logging.Logger) -> Iterator[None]:
    """What is logged goes nowhere: whoever listens, as pytest does, keeps every line."""
    handler, propagates = logging.NullHandler(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = propagates
        log.removeHandler(handler)


def play(plan: Plan, directory: Path, told: Callable[[Sample], None] = lambda sample: None) -> Played:
    """From start to stop. `told`: each sample as it is taken."""
    kept = directory / "looks.jsonl"  # not in memory, where it would look like a leak

    def keep(sample: Sample) -> None:
        with kept.open("ab") as file:
            file.write(msgspec.json.encode(sample) + b"\n")
        told(sample)

    async def soak() -> Played:
        async with running(plan, directory) as house:
            while True:
                keep(look(house))
                if trio.current_time() >= plan.hours * HOUR:
                    break
                await trio.sleep(plan.sample_seconds)
            meter = house.meter
            return Played(
                plan=plan,
                samples=[msgspec.json.decode(line, type=Sample) for line in kept.read_bytes().splitlines()],
                peaks=dict(meter.peaks),
                bytes=dict(meter.bytes),
                lines=dict(meter.lines),
                seen=dict(meter.seen),
                done=dict(house.done),
                segments=meter.files,
            )

    with unheard(logging.getLogger("mmd")):
        return trio.run(soak, clock=MockClock(autojump_threshold=0))
