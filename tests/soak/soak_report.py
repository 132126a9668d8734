"""A soak for people: a line for every hour, what the journal is made of, and the findings."""

from collections.abc import Iterator
from itertools import pairwise

from soak_run import HOUR, Played, Sample
from soak_verdict import Finding

MIB = 1 << 20
HEAD = "    hour     RSS  objects  daemon  tasks   ACTIVE    ticks  requests  fills   journal    disk  files   speed"


def line(before: Sample, after: Sample) -> str:
    """What happened between two looks, and how it was at the second."""
    seconds = (after.at_hours - before.at_hours) * HOUR
    speed = seconds / (after.real_seconds - before.real_seconds)
    return (
        f"{after.at_hours:8.2f} {after.rss / MIB:7.1f} {after.blocks:8,} {after.tracked['daemon']:7,} {after.tasks:6}"
        f" {after.active:5}/{after.symbols:<3} {after.ticks - before.ticks:8,} {after.requests - before.requests:9,}"
        f" {after.fills - before.fills:6,} {(after.journal - before.journal) / MIB:6.1f} MiB"
        f" {after.disk / MIB:7.1f} {after.files:6} {speed:6.0f}x"
    )


def table(samples: list[Sample], every_hours: float) -> Iterator[str]:
    """A line for so many simulated hours."""
    yield HEAD
    marks, wanted = [samples[0]], every_hours
    for sample in samples:
        if sample.at_hours >= wanted - 1e-9:
            marks.append(sample)
            wanted += every_hours
    if marks[-1] is not samples[-1]:
        marks.append(samples[-1])
    for before, after in pairwise(marks):
        yield line(before, after)


def journal_table(played: Played) -> Iterator[str]:
    total = sum(played.bytes.values())
    for name, size in sorted(played.bytes.items(), key=lambda row: -row[1]):
        if size / total >= 0.002:
            count = played.lines[name]
            each = f"{count:9,} lines {size / count:9,.0f} bytes each"
            yield f"  {name:40} {each} {size / MIB:8.1f} MiB {size / total:6.1%}"


def quote_bytes(played: Played) -> str:
    """What one placed or amended order costs, and all it leads to; snapshots left out."""
    first, last = played.samples[0], played.samples[-1]
    written = last.journal - last.snapshots - first.journal + first.snapshots
    hours = last.at_hours - first.at_hours
    quotes = played.seen.get("PlaceOrder", 0) + played.seen.get("AmendOrder", 0)
    parts = ("batch: tick or timer, and requests", "batch: OrderAcked", "batch: OrderClosed", "batch: OrderRefused")
    own = sum(played.bytes.get(name, 0) for name in parts)
    return (
        f"{quotes:,} quotes placed or amended in {hours:.1f} hours: {own / max(1, quotes):,.0f} bytes each for its "
        f"record and its answer's, {written / max(1, quotes):,.0f} of everything; {written / hours / MIB:.1f} MiB an "
        f"hour, with snapshots {(last.journal - first.journal) / hours / MIB:.1f}"
    )


def findings(found: list[Finding]) -> Iterator[str]:
    for one in found:
        yield f"{'ok  ' if one.ok else 'BAD '} {one.what:28} {one.found}   ({one.allowed})"


def summary(played: Played) -> Iterator[str]:
    plan, pace = played.plan, played.plan.pace
    seconds = (played.samples[-1].at_hours - played.samples[0].at_hours) * HOUR
    ticks = (played.samples[-1].ticks - played.samples[0].ticks) / seconds / plan.symbols
    requests = (played.samples[-1].requests - played.samples[0].requests) / seconds / plan.symbols
    yield (
        f"{plan.symbols} symbols, each a second: {pace.books:g} book changes, {pace.marks:g} marks, "
        f"{pace.takers:g} takers; {ticks:.2f} ticks, {requests:.3f} requests"
    )
    yield f"{played.speed:.0f}x real time, {played.cpu_speed:.0f}x by processor time"
    yield ", ".join(f"{name} {count}" for name, count in sorted(played.done.items()))
