"""The daemon's life: memory per symbol, start to READY, first quote, reload."""

import statistics
import time

import msgspec

from bench.processes import Peer, Service, rss_mb, service

FEW, MANY = 10, 110


class Life(msgspec.Struct):
    """Memory in MB of 10^6 bytes, times in seconds, medians where several were taken."""

    rss_few_mb: float
    rss_many_mb: float
    mb_per_symbol: float
    start_to_ready: float
    resume_to_quote: float
    start_to_quote: float
    start_many: float
    plan_many: float
    reload_many: float
    requote_many: float


class Start(msgspec.Struct):
    ready: float
    resume_to_quote: float
    start_to_quote: float


def begin(peer: Peer, daemon: Service, symbols: int) -> Start:
    """Resume, and wait until both quotes of every symbol rest."""
    peer.orders("mmd", 0)
    asked_ns = daemon.resume()
    first_ns = peer.orders("mmd", 2 * symbols).at_ns
    assert first_ns is not None, "there are orders"
    return Start(
        ready=(daemon.ready_ns - daemon.started_ns) / 1e9,
        resume_to_quote=(first_ns - asked_ns) / 1e9,
        start_to_quote=(first_ns - daemon.started_ns) / 1e9,
    )


def warm(peer: Peer, symbols: int) -> None:
    """A hundred updates of every book."""
    peer.feed("mmd", 4_000, symbols * 100 / 4_000, symbols)


def measure(peer: Peer, *, starts: int) -> Life:
    """`starts`: how often the small daemon is started."""
    begun: list[Start] = []
    few: list[float] = []
    for _ in range(starts):
        with service(peer.port, FEW) as daemon:
            begun.append(begin(peer, daemon, FEW))
            warm(peer, FEW)
            few.append(rss_mb(daemon.pid))
    with service(peer.port, MANY) as daemon:
        many_start = begin(peer, daemon, MANY)
        warm(peer, MANY)
        rss_many = rss_mb(daemon.pid)
        plan, reload, requote = reload_all(peer, daemon)
    rss_few = statistics.median(few)
    return Life(
        rss_few_mb=rss_few,
        rss_many_mb=rss_many,
        mb_per_symbol=(rss_many - rss_few) / (MANY - FEW),
        start_to_ready=statistics.median(start.ready for start in begun),
        resume_to_quote=statistics.median(start.resume_to_quote for start in begun),
        start_to_quote=statistics.median(start.start_to_quote for start in begun),
        start_many=many_start.ready,
        plan_many=plan,
        reload_many=reload,
        requote_many=requote,
    )


def reload_all(peer: Peer, daemon: Service) -> tuple[float, float, float]:
    """Seconds of `plan`, of `reload`, and from reload to the first order of the new width; every symbol changes."""
    daemon.write_config(spread_bps=20)
    started_ns = time.monotonic_ns()
    daemon.call("plan", {})
    planned_ns = time.monotonic_ns()
    peer.orders("mmd", 0)
    asked_ns = time.monotonic_ns()
    daemon.call("reload", {})
    done_ns = time.monotonic_ns()
    first_ns = peer.orders("mmd", 2 * MANY).at_ns
    assert first_ns is not None, "every quote was moved"
    return (planned_ns - started_ns) / 1e9, (done_ns - asked_ns) / 1e9, (first_ns - asked_ns) / 1e9
