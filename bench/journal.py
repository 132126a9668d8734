"""`python -m bench.journal`: what the journal costs: µs per batch, per commit by fsync policy, bytes, verification.

Everything is written to a directory below the current one, or where `--directory` says: the disk is what is measured.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec

from bench import report
from mmd.domain.actions import AmendOrder, Decision
from mmd.domain.events import BookTop, OrderAcked
from mmd.domain.reasons import Side
from mmd.domain.settings import FsyncPolicy, JournalSettings
from mmd.journal.disk import OsDisk
from mmd.journal.keeping import tidy
from mmd.journal.reader import records, verify
from mmd.journal.writer import Journal

KEY = "deribit/BTC-PERPETUAL"
MIB = 1 << 20
PACE_SECONDS = 0.002
TICKS_PER_SEGMENT = 40_000


class Commits(msgspec.Struct):
    """µs per commit of one batch."""

    policy: str
    p50: float
    p99: float
    most: float


class Figures(msgspec.Struct):
    """Everything; µs, bytes, MiB/s, seconds."""

    machine: report.Machine
    file_system: str
    encode_us: float
    commit_of_20_us: float
    commits: list[Commits]
    fdatasync_us: float
    rotate_us: float
    tick_bytes: float
    quiet_bytes: float
    answers_bytes: float
    compressed_to: float
    compress_mib_s: float
    verify_plain_mib_s: float
    verify_compressed_mib_s: float
    decode_records_s: float
    open_seconds: float


class Market:
    """A book that walks at random and what a quoter does about it: prices, sizes and times as they come."""

    def __init__(self) -> None:
        self._chance = Random(1)
        self._mid, self._at, self._sequence = 1_300_000, 1_790_000_000_000_000_000, 70_000_000_000
        self._orders = 31_415_926_535

    def tick(self) -> BookTop:
        draw = self._chance.randrange
        self._mid += draw(-3, 4)
        self._at += draw(1_000_000, 20_000_000)
        self._sequence += draw(1, 5)
        bids = tuple((self._mid - 1 - 2 * level - draw(2), draw(1, 20_000)) for level in range(5))
        asks = tuple((self._mid + 1 + 2 * level + draw(2), draw(1, 20_000)) for level in range(5))
        return BookTop(bids, asks, self._sequence, self._at - 2_000_000, self._at)

    def amends(self) -> list[Decision]:
        return [
            AmendOrder(f"mmd1-k7f3q{side}", f"{self._orders + side}", Side(name), self._mid + step, 1000, 1000)
            for side, name, step in ((0, "bid", -40), (1, "ask", 40))
        ]

    def answers(self) -> list[OrderAcked]:
        """To both amends."""
        return [
            OrderAcked(f"mmd1-k7f3q{side}", f"{self._orders + side}", self._mid, 1000, 1000, self._at)
            for side in (0, 1)
        ]


def settings(fsync: FsyncPolicy = FsyncPolicy.NEVER) -> JournalSettings:
    return JournalSettings(fsync=fsync, segment_mib=1024.0)


def opened(directory: Path, wanted: JournalSettings) -> Journal:
    return Journal(directory, wanted, service="bench", version="1", code="bench", now_ns=time.time_ns())


@contextmanager
def fresh(place: Path, fsync: FsyncPolicy = FsyncPolicy.NEVER) -> Iterator[Journal]:
    """A journal of its own."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        on = opened(Path(directory) / "journal", settings(fsync))
        try:
            yield on
        finally:
            on.close()


def per_call_us(work: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls * 1e6


def encoding(place: Path, repeats: int) -> tuple[float, float]:
    """Encode, chain and buffer one tick with two amends; and a commit of 20 of them. Medians, µs."""
    market = Market()
    encoded, committed = [], []
    with fresh(place) as on:
        for _ in range(repeats):
            ticks = [([market.tick()], market.amends()) for _ in range(20)]
            began = time.perf_counter()
            for events, actions in ticks:
                on.batch(KEY, events[0].received_ns, events, actions)
            middle = time.perf_counter()
            on.commit()
            committed.append((time.perf_counter() - middle) * 1e6)
            encoded.append((middle - began) / 20 * 1e6)
    return statistics.median(encoded), statistics.median(committed)


def commits(place: Path, policy: FsyncPolicy, count: int) -> Commits:
    """One batch a commit, 500 a second; with `interval` a thread syncs, as often as by default."""
    market, taken = Market(), []
    over = threading.Event()
    with fresh(place, policy) as on:

        def keep_syncing() -> None:
            while not over.wait(on.settings.fsync_seconds):
                on.sync()

        thread = threading.Thread(target=keep_syncing)
        if policy is FsyncPolicy.INTERVAL:
            thread.start()
        for _ in range(count):
            tick = market.tick()
            on.batch(KEY, tick.received_ns, [tick], market.amends())
            began = time.perf_counter()
            on.commit()
            taken.append((time.perf_counter() - began) * 1e6)
            time.sleep(PACE_SECONDS)  # the market's pace: the sync of the thread falls between commits
        over.set()
        if policy is FsyncPolicy.INTERVAL:
            thread.join()
    taken.sort()
    return Commits(policy.value, statistics.median(taken), taken[int(len(taken) * 0.99)], taken[-1])


def syncing(place: Path, repeats: int) -> tuple[float, float]:
    """A sync of one second's worth at 500 a second, and a rotation after it. Medians, µs."""
    market, synced, rotated = Market(), [], []
    with fresh(place) as on:
        for _ in range(repeats):
            for _ in range(500):
                tick = market.tick()
                on.batch(KEY, tick.received_ns, [tick], market.amends())
            on.commit()
            synced.append(per_call_us(on.sync, 1))
            rotated.append(per_call_us(lambda: on.rotate(time.time_ns()), 1))
    return statistics.median(synced), statistics.median(rotated)


def sizes(place: Path, count: int) -> tuple[float, float, float]:
    """Bytes per record: a tick with two amends, a tick without, the answers to both amends."""
    market, found = Market(), []
    with fresh(place) as on:
        for kind in range(3):
            before = on.segment_bytes
            for _ in range(count):
                tick = market.tick()
                events = market.answers() if kind == 2 else [tick]
                on.batch(KEY, tick.received_ns, events, market.amends() if kind == 0 else [])
            on.commit()
            found.append((on.segment_bytes - before) / count)
    return found[0], found[1], found[2]


def reading(place: Path, segments: int, ticks: int) -> dict[str, float]:
    """Of files of about 32 MiB: a third of the ticks leads to two amends and their answers."""
    market = Market()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        directory = Path(folder) / "journal"
        on = opened(directory, settings())
        for number in range(segments):
            if number:
                on.rotate(time.time_ns())
            for place_in in range(ticks):
                tick = market.tick()
                acts = place_in % 3 == 0
                on.batch(KEY, tick.received_ns, [tick], market.amends() if acts else [])
                if acts:
                    on.batch(KEY, tick.received_ns + 3_000_000, market.answers(), [])
                if place_in % 100 == 0:
                    on.commit()
        on.close()
        began = time.perf_counter()
        opened(directory, settings()).close()
        opening = time.perf_counter() - began
        plain, size = rate(directory)
        began = time.perf_counter()
        decoded = sum(1 for _ in records(directory))
        decoding = time.perf_counter() - began
        began = time.perf_counter()
        tidy(directory, segments, settings(), time.time_ns())
        packing = time.perf_counter() - began
        closed = size * (segments - 1) / segments
        packed = sum(path.stat().st_size for path in directory.glob("*.gz"))
        compressed, _ = rate(directory)
    return {
        "compressed_to": packed / closed,
        "compress_mib_s": closed / MIB / packing,
        "verify_plain_mib_s": plain,
        "verify_compressed_mib_s": compressed,
        "decode_records_s": decoded / decoding,
        "open_seconds": opening,
    }


def rate(directory: Path) -> tuple[float, int]:
    """MiB of lines verified a second, and their bytes."""
    began = time.perf_counter()
    found = verify(directory)
    assert found.whole, found.fault
    return found.size / MIB / (time.perf_counter() - began), found.size


def file_system(place: Path) -> str:
    """Its kind and device, by the longest mount point above it."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    device, _, kind = max(
        ((words[0], words[1], words[2]) for words in mounts if place.resolve().is_relative_to(words[1])),
        key=lambda mount: len(mount[1]),
    )
    free = OsDisk().free(place) / (1 << 30)
    return f"{kind} on {device}, {free:.0f} GiB free"


def measure(place: Path, *, quick: bool) -> Figures:
    on = report.machine()
    say("encoding and commits")
    encode_us, commit_us = encoding(place, 5 if quick else 2000)
    by_policy = [commits(place, policy, 5 if quick else 2500) for policy in FsyncPolicy]
    say("syncs, sizes, reading")
    sync_us, rotate_us = syncing(place, 2 if quick else 30)
    tick, quiet, answers = sizes(place, 50 if quick else 5000)
    read = reading(place, 2 if quick else 6, 100 if quick else TICKS_PER_SEGMENT)
    return Figures(
        machine=on,
        file_system=file_system(place),
        encode_us=encode_us,
        commit_of_20_us=commit_us,
        commits=by_policy,
        fdatasync_us=sync_us,
        rotate_us=rotate_us,
        tick_bytes=tick,
        quiet_bytes=quiet,
        answers_bytes=answers,
        **read,
    )


def table(found: Figures) -> str:
    machine = found.machine
    rows = [
        ("encode, chain and buffer a tick with two amends", f"{found.encode_us:.1f} µs"),
        ("write 20 of them, one commit, fsync never", f"{found.commit_of_20_us:.0f} µs"),
        *(
            (
                f"write one, fsync {each.policy}: p50 / p99 / most",
                f"{each.p50:.0f} / {each.p99:.0f} / {each.most:.0f} µs",
            )
            for each in found.commits
        ),
        ("fdatasync of 500 records, in its thread", f"{found.fdatasync_us / 1000:.1f} ms"),
        ("begin a new file", f"{found.rotate_us / 1000:.1f} ms"),
        ("bytes: tick with two amends / without / both answers", sizes_of(found)),
        ("compressed to", f"{found.compressed_to:.1%} at {found.compress_mib_s:.0f} MiB/s"),
        ("verify, plain / compressed", f"{found.verify_plain_mib_s:.0f} / {found.verify_compressed_mib_s:.0f} MiB/s"),
        ("read as records", f"{found.decode_records_s / 1000:.0f} thousand a second"),
        ("open a journal at start", f"{found.open_seconds:.2f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    head = f"{machine.cpu}, {machine.cores} cores, {machine.kernel}, Python {machine.python}; {found.file_system}"
    return "\n".join([head, *(f"{name:<{width}}  {value}" for name, value in rows)])


def sizes_of(found: Figures) -> str:
    return f"{found.tick_bytes:.0f} / {found.quiet_bytes:.0f} / {found.answers_bytes:.0f}"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.journal", description=__doc__)
    parser.add_argument("--directory", metavar="DIR", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there as well")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs: the figures mean nothing")
    args = parser.parse_args()
    found = measure(args.directory, quick=args.quick)
    print(table(found))
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
