"""What was measured, on what, as a table for people and as JSON for machines."""

import os
import platform
import re
import statistics
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec

from bench.latency import Load, TickToOrder
from bench.life import FEW, MANY, Life
from bench.micro import Micro

PACKAGES = ("mmd", "trio", "websockets", "trio-websocket", "msgspec")


class Machine(msgspec.Struct):
    cpu: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    load_before: float


class Report(msgspec.Struct):
    """Everything; the units are in the names."""

    machine: Machine
    tick_to_order: TickToOrder
    load: Load
    life: Life
    micro: Micro


class Row(msgspec.Struct):
    """One line; `ok` None where there is no target."""

    name: str
    found: str
    target: str = ""
    ok: bool | None = None


def machine() -> Machine:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Machine(
        cpu=found[1] if found else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        versions={name: version(name) for name in PACKAGES},
        load_before=os.getloadavg()[0],
    )


def limit(name: str, value: float, most: float, unit: str, digits: int = 1) -> Row:
    """A figure that should not exceed a target."""
    return Row(name, f"{value:.{digits}f} {unit}".rstrip(), f"<= {most:g} {unit}".rstrip(), value <= most)


def latency_rows(tick: TickToOrder) -> Iterator[Row]:
    ours, theirs = tick.mmd, tick.bare
    yield Row(f"tick to order at 1,000/s, {tick.rounds} turns each of {tick.updates_a_turn:,} updates", "")
    yield Row("  the daemon, p50 / p99", f"{ours.p50_us:.0f} / {ours.p99_us:.0f} µs")
    yield Row("  the bare script, p50 / p99", f"{theirs.p50_us:.0f} / {theirs.p99_us:.0f} µs")
    yield limit("  ratio of p50, median of the turns", tick.ratio, 1.0, "", 3)
    share = ours.pairs_in_one_read
    yield Row("  both quotes of a pair in one write", f"{share:.1%}", ">= 99%", share >= 0.99)
    cpu = f"{ours.cpu_us_per_update / 10:.1f} / {theirs.cpu_us_per_update / 10:.1f} s"
    yield Row("  CPU per 100,000 updates, daemon / script", cpu)


def load_rows(load: Load) -> Iterator[Row]:
    yield Row(f"12,000 updates/s over {load.symbols} instruments, {load.updates:,} updates", "")
    yield Row("  answered, p50", f"{load.p50_us / 1000:.2f} ms")
    yield limit("  answered, p99", load.p99_us / 1000, 5.0, "ms", 2)
    if load.p99_us_by_second:
        low, middle = min(load.p99_us_by_second), statistics.median(load.p99_us_by_second)
        yield Row("  answered, p99 of single seconds, least / median", f"{low / 1000:.2f} / {middle / 1000:.2f} ms")
    yield Row("  answered of all", f"{load.answered:.2%}", ">= 99.9%", load.answered >= 0.999)
    yield limit("  CPU per 100,000 updates", load.cpu_seconds_per_100k, 20.0, "s")
    yield limit("  growth of memory", load.rss_after_mb - load.rss_before_mb, 1.0, "MB")
    yield limit("  mailbox depth afterwards, overflows", load.mailbox_depth + load.mailbox_overflows, 0, "", 0)


def life_rows(life: Life) -> Iterator[Row]:
    yield Row("memory and life", "")
    yield limit(f"  resident with {FEW} symbols", life.rss_few_mb, 80.0, "MB")
    yield limit(f"  for each further symbol, up to {MANY}", life.mb_per_symbol, 0.2, "MB", 3)
    yield Row(f"  start to READY, {FEW} / {MANY} symbols", f"{life.start_to_ready:.2f} / {life.start_many:.2f} s")
    yield Row("  resume to first quote", f"{life.resume_to_quote * 1000:.1f} ms")
    yield limit("  start to first quote, resumed at READY", life.start_to_quote, 1.0, "s", 2)
    yield Row(f"  plan, all {MANY} symbols", f"{life.plan_many * 1000:.0f} ms")
    yield Row(f"  reload, all {MANY} symbols", f"{life.reload_many * 1000:.0f} ms")
    yield Row("  reload to first new quote", f"{life.requote_many * 1000:.0f} ms")


def micro_rows(micro: Micro) -> Iterator[Row]:
    yield Row("where a tick goes: warm, without sockets, µs", "")
    for name in micro.__struct_fields__:
        yield Row(f"  {name.replace('_', ' ')}", f"{getattr(micro, name):.1f}")
    yield Row("  frame to frame, without the pump", f"{micro.tick_path:.1f}")


def rows(report: Report) -> list[Row]:
    parts = (
        latency_rows(report.tick_to_order),
        load_rows(report.load),
        life_rows(report.life),
        micro_rows(report.micro),
    )
    return [row for part in parts for row in part]


def table(report: Report) -> str:
    """At most 100 columns."""
    on = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in on.versions.items())
    lines = [
        f"{on.cpu}, {on.cores} cores, Linux {on.kernel}, load before {on.load_before:.2f}",
        f"Python {on.python}, {versions}",
        "",
    ]
    for row in rows(report):
        verdict = {None: "", True: "ok", False: "MISSED"}[row.ok]
        lines.append(f"{row.name:<56} {row.found:>20}  {row.target:<12} {verdict}".rstrip())
    return "\n".join(lines)
