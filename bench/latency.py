"""Tick to order: the daemon against the bare script, in turns, and the daemon under 12,000 updates a second."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from bench.peer import Feed
from bench.processes import Peer, bare, cpu_seconds, rss_mb, service

TICK_RATE = 1_000
LOAD_RATE = 12_000
LOAD_SYMBOLS = 10


class Block(msgspec.Struct):
    """One client's turn."""

    p50_us: float
    p99_us: float
    answered: float
    pairs_in_one_read: float
    cpu_us_per_update: float


class TickToOrder(msgspec.Struct):
    """Medians over the turns; `ratio` is the median of p50(mmd) / p50(script) over turns next to each other."""

    rounds: int
    updates_a_turn: int
    mmd: Block
    bare: Block
    ratio: float
    ratios: list[float]


class Load(msgspec.Struct):
    updates: int
    symbols: int
    p50_us: float
    p99_us: float
    p99_us_by_second: list[float]
    max_us: float
    answered: float
    orders: int
    cpu_seconds_per_100k: float
    rss_before_mb: float
    rss_after_mb: float
    mailbox_depth: float
    mailbox_overflows: float
    peer_late_us: float


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p99(times: Sequence[float | None]) -> float:
    """An update without an answer counts as one that took for ever."""
    return quantile([math.inf if time is None else time for time in times], 0.99)


def block(feed: Feed, cpu: float) -> Block:
    times = [time for time in feed.times_us if time is not None]
    if not times:
        raise RuntimeError("no update was answered")
    return Block(
        p50_us=quantile(times, 0.5),
        p99_us=quantile(times, 0.99),
        answered=len(times) / feed.updates,
        pairs_in_one_read=feed.pairs_in_one_read / max(1, feed.pairs),
        cpu_us_per_update=cpu / feed.updates * 1e6,
    )


def middle(blocks: list[Block]) -> Block:
    """Field by field, the median."""
    return Block(*(statistics.median(getattr(b, name) for b in blocks) for name in Block.__struct_fields__))


def tick_to_order(peer: Peer, rounds: int, seconds: float) -> TickToOrder:
    """Both clients connected all the time; one is fed while the other waits."""
    with service(peer.port, 1) as daemon, bare(peer.port) as script:
        daemon.resume()
        peer.orders("mmd", 2)
        peer.orders("bare", 2)
        pids = {"mmd": daemon.pid, "bare": script.process.pid}
        blocks: dict[str, list[Block]] = {"mmd": [], "bare": []}
        for client in pids:  # warm up
            peer.feed(client, TICK_RATE, seconds / 4)
        for number in range(rounds):
            for client in ("mmd", "bare") if number % 2 else ("bare", "mmd"):
                before = cpu_seconds(pids[client])
                feed = peer.feed(client, TICK_RATE, seconds)
                blocks[client].append(block(feed, cpu_seconds(pids[client]) - before))
    ratios = [ours.p50_us / theirs.p50_us for ours, theirs in zip(blocks["mmd"], blocks["bare"], strict=True)]
    return TickToOrder(
        rounds=rounds,
        updates_a_turn=int(TICK_RATE * seconds),
        mmd=middle(blocks["mmd"]),
        bare=middle(blocks["bare"]),
        ratio=statistics.median(ratios),
        ratios=ratios,
    )


def load(peer: Peer, seconds: float) -> Load:
    """Ten instruments, 1,200 updates a second each."""
    with service(peer.port, LOAD_SYMBOLS) as daemon:
        daemon.resume()
        peer.orders("mmd", 2 * LOAD_SYMBOLS)
        peer.feed("mmd", LOAD_RATE, 1.0, LOAD_SYMBOLS)
        rss_before = rss_mb(daemon.pid)
        before = cpu_seconds(daemon.pid)
        feed = peer.feed("mmd", LOAD_RATE, seconds, LOAD_SYMBOLS)
        cpu = cpu_seconds(daemon.pid) - before
        found = block(feed, cpu)
        whole_seconds = range(0, len(feed.times_us) - LOAD_RATE + 1, LOAD_RATE)
        return Load(
            updates=feed.updates,
            symbols=LOAD_SYMBOLS,
            p50_us=found.p50_us,
            p99_us=found.p99_us,
            p99_us_by_second=[p99(feed.times_us[start : start + LOAD_RATE]) for start in whole_seconds],
            max_us=max(time for time in feed.times_us if time is not None),
            answered=found.answered,
            orders=feed.orders,
            cpu_seconds_per_100k=found.cpu_us_per_update / 10,
            rss_before_mb=rss_before,
            rss_after_mb=rss_mb(daemon.pid),
            mailbox_depth=daemon.metric("mmd_mailbox_depth"),
            mailbox_overflows=daemon.metric("mmd_mailbox_overflows_total"),
            peer_late_us=feed.late_us,
        )
