"""What a soak must show: memory and collections flat, queues bounded, the journal as large as documented.

Slopes are Theil and Sen's: the median of the slopes between all pairs of looks, so that one look at a bad
moment moves nothing. They are taken over the second half; the first is for what fills up.
"""

from collections.abc import Iterator
from itertools import combinations
from statistics import fmean, median

import msgspec
from soak_run import HOUR, Played, Sample

from mmd.core import own, pnl
from mmd.domain.reasons import Fault, Rule
from mmd.exchanges import jsonrpc
from mmd.exchanges.deribit import book, trading
from mmd.shell import alerts, cases, diary, webhooks, worker

MIB = 1 << 20
GIB = 1 << 30

# A shorter soak shows no slope.
SLOPE_HOURS = 1.5
# Growth that is taken for none, per simulated hour: of the mean, and besides. Objects: one for every fifth tick of
# the default pace is more than that.
RSS_SHARE, BLOCKS_SHARE = 0.01, 0.02
SIZE_SHARE, SIZE_MORE = 0.01, 0.5
# How far the journal may be from what docs/journal.md says.
JOURNAL_SHARE = 0.15
# Of the symbols, over all looks; what is missing reconnects or expires.
ACTIVE_SHARE = 0.9

# docs/journal.md, "How much it will be": bytes of a tick, of a request with its answer, of a symbol's reports and of
# the portfolio's values a second, of a symbol whose settings a reload changes.
TICK_BYTES, REQUEST_BYTES, SYMBOL_BYTES, HOUSE_BYTES, CHANGE_BYTES = 420, 670, 60, 860, 6_500

LIMITS: dict[str, int] = {
    "Position._seen": pnl.REMEMBERED,
    "Position._entries": pnl.REMEMBERED,
    "Position._by_label": pnl.LABELS_REMEMBERED,
    "OwnOrders._finished": own.FINISHED,
    "Trading._closed": trading.MAX_CLOSED,
    "Trading._sent": trading.MAX_CLOSED,
    "Trading._marked": trading.MAX_CLOSED,
    "Ledger._sent": jsonrpc.MAX_EXPIRED,
    "Diary._lines": diary.KEPT,
    "CaseBook._closed": cases.KEPT_CLOSED,
    "Alerts._active": alerts.ACTIVE_MAX,
    "Channel.waiting": webhooks.QUEUE_MAX,
    "Worker._mail": worker.MAILBOX,
    "Pump.replies": 0,
    "Pump.acked": 0,
    "Pump.filled": 0,
    "Pump._ready": 0,
    "Journal._buffer": 1000,
    "Numbers.known": book.KNOWN_TEXTS,
    "SymbolCounters.rejected": len(Fault),
    "SymbolCounters.refused": len(Rule),
    "SymbolSettings.sources": 50,
}
"""Entries that a collection has at most, at every look."""

# They fill, are emptied or cut in half, and fill again: bounded by LIMITS, never flat.
SAWTOOTH = frozenset({"Trading._closed", "Trading._sent", "Trading._marked", "Link._masks", "Numbers.known"})
# A few entries for each symbol that is there, some of which come late: bounded by LIMITS.
LATE = frozenset({"SymbolCounters.rejected", "SymbolCounters.refused", "SymbolSettings.sources"})
# One small number for every symbol that was ever traded: a hundred bytes each.
EVER = frozenset({"Trading.activity", "Trading.fills"})

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


def slope(samples: list[Sample], values: list[float]) -> float:
    """Growth per simulated hour."""
    pairs = combinations(zip((sample.at_hours for sample in samples), values, strict=True), 2)
    return median((b - a) / (later - earlier) for (earlier, a), (later, b) in pairs)


def second_half(played: Played) -> list[Sample]:
    return played.samples[len(played.samples) // 2 :]


def judge(played: Played) -> list[Finding]:
    """Slopes only where there was time enough for one."""
    slopes = [*memory(played), *growing(played)] if played.plan.hours >= SLOPE_HOURS else []
    return [*slopes, *full(played), *queues(played), *journal(played), *quoting(played)]


def memory(played: Played) -> Iterator[Finding]:
    late = second_half(played)
    for what, share, values in (
        ("RSS", RSS_SHARE, [sample.rss / MIB for sample in late]),
        ("objects", BLOCKS_SHARE, [float(sample.blocks) for sample in late]),
        ("tasks", SIZE_SHARE, [float(sample.tasks) for sample in late]),
    ):
        found, mean = slope(late, values), fmean(values)
        unit = " MiB" if what == "RSS" else ""
        told = f"{found:+.2f}{unit} an hour of {mean:,.0f}{unit}"
        yield Finding(found <= share * mean, f"{what} flat", told, f"{share * mean:.2f}{unit}")


def growing(played: Played) -> Iterator[Finding]:
    """Collections that are larger every hour, and never again as small as they were; same names taken together."""
    late = second_half(played)
    third = max(1, len(late) // 3)
    names = sorted({name for sample in late for name in sample.collections} - SAWTOOTH - LATE - EVER)
    grows = []
    for name in names:
        values = [float(found.total) if (found := sample.collections.get(name)) else 0.0 for sample in late]
        rises = slope(late, values) > SIZE_SHARE * fmean(values) + SIZE_MORE
        if rises and min(values[-third:]) > max(values[:third]):
            grows.append(f"{name} {slope(late, values):+.1f} an hour, now {values[-1]:.0f}")
    yield Finding(not grows, f"{len(names)} collections flat", "; ".join(grows) or "all", "none grows")


def full(played: Played) -> Iterator[Finding]:
    for name, most in LIMITS.items():
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
