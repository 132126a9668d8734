"""What a soak must show: memory and collections flat, queues bounded, the journal as large as documented.

Slopes are Theil and Sen's: the median of the slopes between all pairs of looks, so that one look at a bad
moment moves nothing. As in Hirsch's and Slack's for seasons, only looks at the same point of the plan's cycle
are compared: how many symbols are there, and how long ago the links broke, is the same for both. Slopes are
taken over the second half; the first is for what fills up.

What is counted exactly (objects, bytes from malloc, entries of collections) is held to a hair's breadth. Resident
memory is not: it moves with where free memory happens to lie, in steps of a mebibyte, and so it is only to stay
within a margin. Whatever makes it grow for ever is in one of the exact numbers.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean, median

import msgspec
from soak_bounds import held
from soak_plan import Plan
from soak_run import HOUR, Played, Sample

from mmd.domain.reasons import Fault, Rule
from mmd.domain.switches import SWITCHES
from mmd.exchanges import jsonrpc
from mmd.shell import alerts, webhooks, worker

MIB = 1 << 20
GIB = 1 << 30

# A soak of fewer cycles shows no slope: in its first half not all is full, and its second half has too few looks.
SLOPE_CYCLES = 12
# Growth that is taken for none. Of objects: one for so many orders that are placed, so that the smallest leak that
# an order can leave behind is found. Of bytes from malloc: a share of them an hour.
ORDERS_AN_OBJECT = 2
HEAP_SHARE = 0.01
# Of resident memory: over the whole second half, a share of it and some MiB.
RSS_SHARE, RSS_MIB = 0.1, 3.0
# Of collections: a share an hour, and so many entries over the whole second half; and what grows for ever is larger
# at the later look in nearly all pairs of looks, where what goes up and down is in half of them.
SIZE_SHARE, SIZE_MORE, RISING_SHARE = 0.01, 2.0, 0.8
# How far two looks may be from whole cycles apart, in cycles.
CYCLE_OFF = 0.01
# How far the journal may be from what docs/journal.md says.
JOURNAL_SHARE = 0.15
# Of the symbols, over all looks; what is missing reconnects or expires.
ACTIVE_SHARE = 0.9

# docs/journal.md, "How much it will be": bytes of a tick, of a request with its answer, of a symbol's reports and of
# the portfolio's values a second, of a symbol whose settings a reload changes.
TICK_BYTES, REQUEST_BYTES, SYMBOL_BYTES, HOUSE_BYTES, CHANGE_BYTES = 420, 670, 60, 860, 6_500

LIMITS: dict[str, int] = {
    "Ledger._sent": jsonrpc.MAX_EXPIRED,
    "Alerts._active": alerts.ACTIVE_MAX,
    "Channel.waiting": webhooks.QUEUE_MAX,
    "Worker._mail": worker.MAILBOX,
    "Pump.replies": 0,
    "Pump.acked": 0,
    "Pump.filled": 0,
    "Pump._ready": 0,
    "Journal._buffer": 1000,
    "Counters.trips": len(SWITCHES),
    "Counters.alerts": len(SWITCHES) + 20,
    "SymbolCounters.rejected": len(Fault),
    "SymbolCounters.refused": len(Rule),
    "SymbolSettings.sources": 50,
}
"""Entries that a collection has at most, at every look; those of `soak_bounds` come on top."""

# They fill, are emptied, and fill again: bounded, never flat.
SAWTOOTH = frozenset({"Link._masks", "Numbers.known"})
# A few entries for what there is by name, some of which come late: bounded by LIMITS, and nothing to be flat.
LATE = frozenset(
    {
        "Counters.trips",
        "Counters.alerts",
        "SymbolCounters.rejected",
        "SymbolCounters.refused",
        "SymbolSettings.sources",
    }
)

PEAKS: dict[str, tuple[int, int]] = {
    "mailbox": (worker.MAILBOX // 10, 0),
    "workers with mail": (0, 1),
    "outbox": (0, 4),
    "order requests in flight": (0, 2),
    "requests without answer": (20, 3),
    "journal pending bytes": (MIB, 8192),
}
"""The most that was ever there: so many, and so many for each symbol."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    ok: bool
    what: str
    found: str
    allowed: str


Pairs = list[tuple[float, float, float]]


def pairs_of(samples: list[Sample], values: Sequence[float], cycle_hours: float) -> Pairs:
    """Earlier value, later one, hours between them: of all looks that are whole cycles apart."""
    both = combinations(zip((sample.at_hours for sample in samples), values, strict=True), 2)
    return [(a, b, later - at) for (at, a), (later, b) in both if is_whole(later - at, cycle_hours)]


def is_whole(hours: float, cycle_hours: float) -> bool:
    cycles = round(hours / cycle_hours)
    return cycles > 0 and abs(hours / cycle_hours - cycles) < CYCLE_OFF


def slope(pairs: Pairs) -> float:
    """Growth per simulated hour. ValueError where there is no pair."""
    return median((b - a) / hours for a, b, hours in pairs)


def second_half(played: Played) -> list[Sample]:
    return played.samples[len(played.samples) // 2 :]


def hours_of(samples: list[Sample]) -> float:
    return samples[-1].at_hours - samples[0].at_hours


def judge(played: Played) -> list[Finding]:
    """Slopes only where there was time enough for one."""
    slopes = [*memory(played), *growing(played)] if shows_slopes(played.plan) else []
    return [*slopes, *full(played), *queues(played), *journal(played), *quoting(played)]


def shows_slopes(plan: Plan) -> bool:
    return plan.hours >= SLOPE_CYCLES * plan.cycle_hours - 1e-9


def memory(played: Played) -> Iterator[Finding]:
    late, cycle = second_half(played), played.plan.cycle_hours
    hours = hours_of(late)
    placed = (late[-1].placed - late[0].placed) / hours
    heaps, rss = [sample.heap / 1024 for sample in late], [sample.rss / MIB for sample in late]
    for what, unit, values, allowed in (
        ("objects", "", [sample.blocks for sample in late], placed / ORDERS_AN_OBJECT),
        ("bytes from malloc", " KiB", heaps, HEAP_SHARE * fmean(heaps)),
        ("tasks", "", [sample.tasks for sample in late], SIZE_SHARE * fmean(sample.tasks for sample in late)),
        ("RSS", " MiB", rss, (RSS_SHARE * fmean(rss) + RSS_MIB) / hours),
    ):
        found = slope(pairs_of(late, values, cycle))
        told = f"{found:+,.2f}{unit} an hour of {fmean(values):,.0f}{unit}"
        yield Finding(found <= allowed, f"{what} flat", told, f"{allowed:,.2f}{unit}")


def growing(played: Played) -> Iterator[Finding]:
    """Collections that are larger nearly whenever they are looked at again; same names taken together.

    One that is held to a bound may yet fill, for each symbol that is there.
    """
    late, cycle, symbols = second_half(played), played.plan.cycle_hours, played.plan.symbols
    bounds = held(symbols, small=played.plan.small)
    names = sorted({name for sample in late for name in sample.collections} - SAWTOOTH - LATE)
    grows = []
    for name in names:
        values = [float(found.total) if (found := sample.collections.get(name)) else 0.0 for sample in late]
        if max(values) <= bounds.get(name, 0) * symbols:
            continue
        pairs = pairs_of(late, values, cycle)
        allowed = SIZE_SHARE * fmean(values) + SIZE_MORE / hours_of(late)
        if slope(pairs) > allowed and sum(b > a for a, b, _ in pairs) >= RISING_SHARE * len(pairs):
            grows.append(f"{name} {slope(pairs):+.1f} an hour, now {values[-1]:.0f}")
    yield Finding(not grows, f"{len(names)} collections flat", "; ".join(grows) or "all", "none grows")


def full(played: Played) -> Iterator[Finding]:
    for name, most in (LIMITS | held(played.plan.symbols, small=played.plan.small)).items():
        found = max(
            (sample.collections[name].most for sample in played.samples if name in sample.collections), default=0
        )
        yield Finding(found <= most, name, f"{found:,}", f"{most:,}")


def queues(played: Played) -> Iterator[Finding]:
    for name, (most, each) in PEAKS.items():
        allowed, found = most + each * played.plan.symbols, played.peaks.get(name, 0)
        yield Finding(found <= allowed, f"peak: {name}", f"{found:,}", f"{allowed:,}")


def documented_bytes(first: Sample, last: Sample, symbols: int) -> float:
    """What docs/journal.md says of what happened between two looks, without snapshots."""
    seconds = (last.at_hours - first.at_hours) * HOUR
    ticks, requests = last.ticks - first.ticks, last.requests - first.requests
    changes = last.changes - first.changes
    steady = seconds * (HOUSE_BYTES + symbols * SYMBOL_BYTES)
    return steady + ticks * TICK_BYTES + requests * REQUEST_BYTES + changes * CHANGE_BYTES


def journal(played: Played) -> Iterator[Finding]:
    first, last, plan = played.samples[0], played.samples[-1], played.plan
    hours = last.at_hours - first.at_hours
    written = last.journal - last.snapshots - first.journal + first.snapshots
    said = documented_bytes(first, last, plan.symbols)
    yield Finding(
        abs(written / said - 1.0) <= JOURNAL_SHARE,
        "journal without snapshots",
        f"{written / hours / MIB:.1f} MiB an hour",
        f"{said / hours / MIB:.1f} documented, {JOURNAL_SHARE:.0%} off at most",
    )
    snapshot = max(played.bytes["snapshot"] / max(1, played.lines["snapshot"]) * (plan.symbols + 1), 0.0)
    reserve = 1 * MIB
    # The file that is written now, and the one that is closed and not compressed yet, whole; then what may be kept.
    most = plan.keep_gib * GIB + 2 * (plan.segment_mib * MIB + snapshot) + reserve
    disk = max(sample.disk for sample in played.samples)
    yield Finding(disk <= most, "journal on disk", f"{disk / MIB:.1f} MiB", f"{most / MIB:.1f} MiB")


def quoting(played: Played) -> Iterator[Finding]:
    looked = played.samples[1:]
    share = sum(sample.active for sample in looked) / (played.plan.symbols * len(looked))
    yield Finding(share >= ACTIVE_SHARE, "ACTIVE, of all looks", f"{share:.1%}", f"{ACTIVE_SHARE:.0%} or more")
    bad = {name: count for name, count in played.done.items() if name.startswith("halted")}
    yield Finding(not bad, "halts", str(bad or "none"), "none")
