"""The daemon's numbers under their Prometheus names, read at scrape and rendered in slices.

Names and labels are an interface: docs/metrics.md lists them, renaming one is a CHANGELOG line.
Prices, sizes and positions appear as floats in the exchange's own units: for eyes and alerts only.
"""

import os
import platform
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import trio
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mmd.domain.reasons import Mode, State
from mmd.exchanges.api import LinkStats
from mmd.shell.counters import Counters
from mmd.shell.desk import LedgerLine, ProtectionLine, SideStatus, Status, SymbolStatus, TotalLine
from mmd.shell.families import counter, gauge, histogram, number
from mmd.shell.risk_metrics import alert_families, journal_families, ledger_families, risk_families

LAG_INTERVAL_SECONDS = 0.25
SYMBOL = ("exchange", "symbol")


class MetricsView(Protocol):
    """What the scrape reads; every getter is cheap, changes nothing and never waits."""

    @property
    def counters(self) -> Counters: ...

    def status(self, symbols: list[str]) -> Status:
        """The desk's; `["all"]` must match on a daemon without symbols too."""

    def links(self) -> Mapping[str, Mapping[str, LinkStats]]:
        """Links by name by exchange."""

    def mailbox_depths(self) -> Mapping[str, int]:
        """Events that wait, by `exchange/symbol`."""

    def not_ready(self) -> str:
        """Why the daemon is not ready (recovery, reconciliation, stop); empty when it is."""

    def ledger_lines(self) -> Iterator[LedgerLine]:
        """The desk's ledger of all symbols, made one by one: the loop turns in between, and symbols may go."""

    def risk(self) -> list[TotalLine]:
        """The desk's."""

    def protection(self) -> list[ProtectionLine]:
        """The desk's."""

    def clock_skews(self) -> Mapping[str, float]:
        """The exchange's clock minus ours in seconds, by exchange."""


def split_key(key: str) -> tuple[str, str]:
    """`exchange/symbol` to its parts."""
    exchange, _, symbol = key.partition("/")
    return exchange, symbol


def spread_bps(bid: float | None, ask: float | None) -> float | None:
    """Distance from bid to ask in bps of their middle; None where a side is missing."""
    if bid is None or ask is None or not bid + ask > 0:
        return None
    return (ask - bid) / (bid + ask) * 20_000


def sides(row: SymbolStatus) -> tuple[tuple[str, SideStatus], tuple[str, SideStatus]]:
    return ("bid", row.bid), ("ask", row.ask)


# --- families ------------------------------------------------------------------------------------


def state_families(status: Status) -> Iterator[Metric]:
    """Where every symbol stands."""
    rows = [((row.exchange, row.symbol), row) for row in status.symbols]
    yield from gauge(
        "symbol_state",
        "1 for the state the symbol is in, 0 for the others.",
        (*SYMBOL, "state"),
        (((*key, state.value), float(row.state == state)) for key, row in rows for state in State),
    )
    yield from gauge(
        "symbol_reason",
        "Always 1; the label names why the symbol is in its state.",
        (*SYMBOL, "reason"),
        (((*key, row.reason), 1) for key, row in rows),
    )
    yield from gauge(
        "symbol_state_since_timestamp_seconds",
        "When the symbol entered its state, Unix time.",
        SYMBOL,
        ((key, row.since) for key, row in rows),
    )
    yield from gauge(
        "symbol_live",
        "1 if approved orders leave the house, 0 in shadow mode.",
        SYMBOL,
        ((key, float(row.mode == Mode.LIVE)) for key, row in rows),
    )
    yield from gauge(
        "position",
        "Signed position in the instrument's own amount unit.",
        SYMBOL,
        ((key, number(row.position)) for key, row in rows),
    )
    yield from gauge(
        "position_left",
        "Signed position of a symbol that has left, as last known, in the instrument's own amount unit.",
        SYMBOL,
        (((row.exchange, row.symbol), number(row.position)) for row in status.left_behind),
    )
    yield from gauge(
        "open_cases",
        "Differences from the exchange's books that are neither explained nor accepted.",
        SYMBOL,
        ((key, row.open_cases) for key, row in rows),
    )
    bounds = [(key, bound, value) for key, row in rows for bound, value in bounds_of(row)]
    yield from gauge(
        "position_bound",
        "Bounds the position is held in, in the instrument's own amount unit.",
        (*SYMBOL, "bound"),
        (((*key, bound), number(value)) for key, bound, value in bounds),
    )
    yield from gauge(
        "symbol_pnl_usd",
        "Profit and loss of the symbol since its ledger began in USD, fees included.",
        SYMBOL,
        ((key, row.pnl_usd) for key, row in rows),
    )
    yield from gauge(
        "orders_resting",
        "Orders of ours that are or may be at the exchange.",
        SYMBOL,
        ((key, row.resting) for key, row in rows),
    )


def bounds_of(row: SymbolStatus) -> tuple[tuple[str, object], tuple[str, object]]:
    return ("min", row.min_position), ("max", row.max_position)


def quote_families(status: Status) -> Iterator[Metric]:
    """What we quote and what the market quotes."""
    rows = [((row.exchange, row.symbol), row) for row in status.symbols]
    yield from gauge(
        "quote_price",
        "Price of our resting order in the instrument's price unit.",
        (*SYMBOL, "side"),
        (((*key, side), number(ours.price)) for key, row in rows for side, ours in sides(row)),
    )
    yield from gauge(
        "quote_size",
        "Size of our resting order in the instrument's amount unit.",
        (*SYMBOL, "side"),
        (((*key, side), number(ours.size)) for key, row in rows for side, ours in sides(row)),
    )
    yield from gauge(
        "quote_withheld",
        "1 while no quote is wanted on this side; the label names why.",
        (*SYMBOL, "side", "reason"),
        (((*key, side, ours.withheld), 1) for key, row in rows for side, ours in sides(row) if ours.withheld),
    )
    yield from gauge(
        "quote_spread_bps",
        "Distance between our two orders in hundredths of a percent.",
        SYMBOL,
        ((key, spread_bps(number(row.bid.price), number(row.ask.price))) for key, row in rows),
    )
    yield from gauge(
        "market_price",
        "Best price of the market in the instrument's price unit.",
        (*SYMBOL, "side"),
        (((*key, s), number(p)) for key, row in rows for s, p in (("bid", row.market_bid), ("ask", row.market_ask))),
    )
    yield from gauge(
        "market_spread_bps",
        "Distance between the market's best prices in hundredths of a percent.",
        SYMBOL,
        ((key, spread_bps(number(row.market_bid), number(row.market_ask))) for key, row in rows),
    )
    yield from gauge(
        "fair_price",
        "Fair value the quotes are built on, in the instrument's price unit.",
        SYMBOL,
        ((key, row.fair) for key, row in rows),
    )
    yield from gauge(
        "data_age_seconds",
        "Time since the last market data of the symbol.",
        SYMBOL,
        ((key, row.data_age_seconds) for key, row in rows),
    )


def order_families(counters: Counters, depths: Mapping[str, int]) -> Iterator[Metric]:
    """What became of our orders, and how busy each symbol is."""
    rows = [(split_key(key), row) for key, row in sorted(counters.symbols.items())]
    yield from counter(
        "orders",
        "Order requests by outcome.",
        (*SYMBOL, "outcome"),
        (
            ((*key, outcome), total)
            for key, row in rows
            for outcome, total in (
                ("placed", row.placed),
                ("amended", row.amended),
                ("cancelled", row.cancelled),
                ("rejected", sum(row.rejected.values())),
                ("refused", sum(row.refused.values())),
            )
        ),
    )
    yield from counter(
        "order_rejects",
        "Order requests the exchange refused, by class of fault.",
        (*SYMBOL, "reason"),
        (((*key, why), total) for key, row in rows for why, total in sorted(row.rejected.items())),
    )
    yield from counter(
        "gate_refusals",
        "Orders our own gate refused, by rule.",
        (*SYMBOL, "rule"),
        (((*key, rule), total) for key, row in rows for rule, total in sorted(row.refused.items())),
    )
    yield from counter("fills", "Executions of our orders.", SYMBOL, ((key, row.fills) for key, row in rows))
    yield from gauge(
        "mailbox_depth",
        "Events that wait for the symbol's next decision.",
        SYMBOL,
        ((split_key(key), depth) for key, depth in sorted(depths.items())),
    )
    yield from counter(
        "mailbox_overflows",
        "Events a full mailbox could not take.",
        SYMBOL,
        ((key, row.overflows) for key, row in rows),
    )
    yield from counter(
        "mailbox_conflated",
        "Market data replaced by newer before a decision.",
        SYMBOL,
        ((key, row.conflated) for key, row in rows),
    )
    yield from histogram(
        "decision_duration_seconds",
        "Time one symbol needs to decide on a batch of events.",
        SYMBOL,
        ((key, row.decisions) for key, row in rows),
    )


def exchange_families(
    status: Status, counters: Counters, links: Mapping[str, Mapping[str, LinkStats]], skews: Mapping[str, float]
) -> Iterator[Metric]:
    """The links and the exchanges, as we see them."""
    rows = [((name, link), stats) for name in sorted(links) for link, stats in sorted(links[name].items())]
    label = ("exchange", "link")
    yield from gauge("link_up", "1 while the link is up and logged in.", label, ((key, row.up) for key, row in rows))
    yield from counter(
        "link_reconnects",
        "Connections made after the first.",
        label,
        ((key, max(0, row.connects - 1)) for key, row in rows),
    )
    yield from counter(
        "link_received_messages", "Messages received.", label, ((key, row.messages_in) for key, row in rows)
    )
    yield from counter("link_sent_messages", "Messages sent.", label, ((key, row.messages_out) for key, row in rows))
    yield from counter("link_received_bytes", "Bytes received.", label, ((key, row.bytes_in) for key, row in rows))
    yield from counter("link_sent_bytes", "Bytes sent.", label, ((key, row.bytes_out) for key, row in rows))
    yield from counter(
        "link_resyncs", "Books asked for anew after a gap.", label, ((key, row.resyncs) for key, row in rows)
    )
    yield from counter(
        "link_malformed", "Messages that broke the protocol.", label, ((key, row.malformed) for key, row in rows)
    )
    yield from counter(
        "link_unknown_labels",
        "Reports on orders that carry no label of ours.",
        label,
        ((key, row.unknown_labels) for key, row in rows),
    )
    yield from gauge(
        "exchange_cancel_on_disconnect",
        "1 if the exchange confirmed that it cancels our orders when the link is lost.",
        ("exchange",),
        (((row.name,), row.cancel_on_disconnect) for row in status.exchanges),
    )
    yield from gauge(
        "clock_skew_seconds",
        "The exchange's clock minus ours, as its answers show.",
        ("exchange",),
        (((name,), seconds) for name, seconds in sorted(skews.items())),
    )
    yield from histogram(
        "round_trip_seconds",
        "Time from a request to its answer.",
        ("exchange",),
        (((name,), row.round_trips) for name, row in sorted(counters.exchanges.items())),
    )
    yield from counter(
        "unknown_symbol_events",
        "Events for symbols that nobody quotes.",
        ("exchange",),
        (((name,), row.unknown_symbols) for name, row in sorted(counters.exchanges.items())),
    )


def house_families(status: Status, counters: Counters, not_ready: str) -> Iterator[Metric]:
    """The daemon and its configuration."""

    def one(name: str, text: str, value: float | None) -> Iterator[Metric]:
        return gauge(name, text, (), [((), value)])

    def sums(name: str, text: str, value: float) -> Iterator[Metric]:
        return counter(name, text, (), [((), value)])

    build = (status.version, platform.python_version(), status.service)
    yield from gauge("build_info", "Always 1; what is running.", ("version", "python", "service"), [(build, 1)])
    yield from one("ready", "1 after recovery and reconciliation, until the stop begins.", float(not not_ready))
    yield from one("start_time_seconds", "When the daemon started, Unix time.", status.started)
    yield from one(
        "config_generation", "Number of the configuration in force; grows with each reload.", status.config_generation
    )
    yield from gauge(
        "config_info", "Always 1; hash of the configuration in force.", ("sha256",), [((status.config_hash,), 1)]
    )
    yield from one("config_last_reload_successful", "0 if the last reload was refused.", float(counters.last_reload_ok))
    yield from one(
        "config_last_reload_success_timestamp_seconds",
        "When the configuration in force was applied, Unix time.",
        counters.config_applied_at,
    )
    yield from one(
        "config_confirm_deadline_timestamp_seconds",
        "When an unconfirmed reload undoes itself, Unix time; absent without one.",
        status.confirm_deadline,
    )
    yield from counter(
        "config_reloads",
        "Reloads by outcome.",
        ("outcome",),
        [(("applied",), counters.reloads_applied), (("refused",), counters.reloads_refused)],
    )
    yield from one(
        "pnl_usd",
        "Profit and loss in USD, fees included: of all symbols since their ledgers began, and of those that left "
        "since the process started.",
        status.pnl_usd,
    )
    yield from one("notional_usd", "Sum of absolute positions in USD.", status.notional_usd)
    yield from gauge(
        "exposure_coins",
        "Sum of absolute positions per underlying, in coins.",
        ("underlying",),
        (((name,), coins) for name, coins in sorted(status.exposure.items())),
    )
    yield from histogram("loop_lag_seconds", "How late the event loop woke a sleeper.", (), [((), counters.loop_lag)])
    yield from sums("log_lost_records", "Log records that could not be written.", counters.log_lost)
    yield from sums("scrapes", "Scrapes of this endpoint.", counters.scrapes)


def process_families(proc: Path = Path("/proc/self")) -> Iterator[Metric]:
    """Memory and processor time under the customary names.

    Read here, not by prometheus_client: its collector wants /proc/stat, which ProcSubset=pid hides.
    """
    pages = proc.joinpath("statm").read_text().split()
    times = os.times()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    page = resource.getpagesize()
    resident = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.")
    resident.add_metric((), float(pages[1]) * page)
    virtual = GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.")
    virtual.add_metric((), float(pages[0]) * page)
    cpu = CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.")
    cpu.add_metric((), times.user + times.system)
    files = GaugeMetricFamily("process_open_fds", "Number of open file descriptors.")
    files.add_metric((), sum(1 for _ in proc.joinpath("fd").iterdir()))
    most = GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.")
    most.add_metric((), soft)
    yield from (resident, virtual, cpu, files, most)


# --- rendering -----------------------------------------------------------------------------------


class DaemonCollector(Collector):
    """Every family of the daemon, computed when asked; large ones come in parts of the same name."""

    def __init__(self, view: MetricsView) -> None:
        self.view = view

    def collect(self) -> Iterator[Metric]:
        view = self.view
        status, counters = view.status(["all"]), view.counters
        yield from house_families(status, counters, view.not_ready())
        yield from state_families(status)
        yield from quote_families(status)
        yield from order_families(counters, view.mailbox_depths())
        yield from exchange_families(status, counters, view.links(), view.clock_skews())
        yield from risk_families(status, counters, view.risk(), view.protection())
        yield from ledger_families(view.ledger_lines())
        yield from alert_families(status, counters)
        if status.journal is not None:
            yield from journal_families(status.journal)
        yield from process_families()


class Part(Collector):
    """One part of a family, for generate_latest."""

    def __init__(self, family: Metric) -> None:
        self.family = family

    def collect(self) -> Iterator[Metric]:
        yield self.family


def slices(collector: Collector) -> Iterator[bytes]:
    """The text exposition in pieces; whoever sends them lets the loop turn in between."""
    before = ""
    for family in collector.collect():
        if family.samples:
            text = generate_latest(Part(family))
            # The family's HELP and TYPE were written before its first part.
            yield text.split(b"\n", 2)[2] if family.name == before else text
            before = family.name


async def watch_loop_lag(counters: Counters) -> None:
    """Measure until cancelled how late the loop wakes a sleeper."""
    while True:
        due = trio.current_time() + LAG_INTERVAL_SECONDS
        await trio.sleep_until(due)
        counters.loop_lag.observe(max(0.0, trio.current_time() - due))
