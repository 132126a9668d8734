"""The numbers of safety under their Prometheus names: totals, kill switches, ledgers, protection, alerts, webhooks."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from mmd.domain.switches import SWITCHES
from mmd.shell.counters import Counters
from mmd.shell.desk import JournalStatus, LedgerLine, ProtectionLine, Status, TotalLine
from mmd.shell.families import counter, gauge, number

PARTS = ("spread", "inventory", "fees", "funding", "settlement")
REAL = "real"
HEAD_DIGITS = 12


def risk_families(
    status: Status, counters: Counters, totals: list[TotalLine], protections: list[ProtectionLine]
) -> Iterator[Metric]:
    """What is lost, what is used of each limit, what tripped, what the exchange guards."""
    yield from gauge("drawdown_usd", "How far profit is below its high-water mark.", (), [((), status.drawdown_usd)])
    yield from gauge("day_pnl_usd", "Profit and loss since the day began.", (), [((), status.day_pnl_usd)])
    label = ("scope", "target", "unit")
    rows = [((line.scope, line.target, line.unit), line) for line in totals]
    yield from gauge("total_used", "What is used of a total.", label, ((key, line.used) for key, line in rows))
    yield from gauge(
        "total_worst", "What a total could become if every order filled.", label, ((key, x.worst) for key, x in rows)
    )
    yield from gauge("total_limit", "What is allowed of a total.", label, ((key, line.limit) for key, line in rows))
    trips = {(switch, row.scope): 0 for switch, row in SWITCHES.items()} | counters.trips
    yield from counter(
        "switch_trips",
        "Trips of the kill switches.",
        ("switch", "scope"),
        (((switch, scope), trips[switch, scope]) for switch, scope in sorted(trips)),
    )
    guarded = [((line.exchange, line.underlying), line) for line in protections]
    yield from gauge(
        "protection_armed",
        "1 while the exchange's maker protection is as configured.",
        ("exchange", "underlying"),
        ((key, line.armed) for key, line in guarded),
    )
    yield from gauge(
        "protection_frozen",
        "1 while the exchange's maker protection keeps our orders out.",
        ("exchange", "underlying"),
        ((key, line.frozen_until is not None) for key, line in guarded),
    )


def ledger_families(lines: Iterator[LedgerLine]) -> Iterator[Metric]:
    """Each symbol's account. The lines are made while the first family is read, part by part."""
    kept: list[tuple[tuple[str, str, str], LedgerLine]] = []

    def parts() -> Iterator[tuple[tuple[str, ...], float | None]]:
        for line in lines:
            key = (line.exchange, line.symbol, line.ledger.replace(" ", "_"))
            kept.append((key, line))
            for part in PARTS:
                yield (*key, line.currency, part), number(getattr(line, part))

    label = ("exchange", "symbol", "ledger")
    yield from gauge(
        "ledger_amount",
        "Where the symbol's profit comes from since its ledger began, in its settlement currency.",
        (*label, "currency", "part"),
        parts(),
    )
    yield from gauge(
        "ledger_imbalance",
        "What the ledger's identity misses beyond rounding, in the settlement currency: 0.",
        (*label, "currency"),
        (((*key, line.currency), number(line.imbalance)) for key, line in kept if key[2] == REAL),
    )
    yield from gauge(
        "ledger_pnl_usd", "Profit and loss since the ledger began.", label, ((key, line.pnl_usd) for key, line in kept)
    )
    yield from gauge(
        "ledger_day_pnl_usd",
        "Profit and loss since the day began.",
        label,
        ((key, line.day_pnl_usd) for key, line in kept),
    )
    yield from gauge(
        "ledger_drawdown_usd",
        "How far the symbol's profit is below its high-water mark.",
        label,
        ((key, line.drawdown_usd) for key, line in kept),
    )


def alert_families(status: Status, counters: Counters) -> Iterator[Metric]:
    """What was fired, what lasts, and whether anybody hears of it."""
    yield from counter(
        "alerts",
        "Alerts fired, those that lasted already included.",
        ("name", "severity"),
        ((key, number) for key, number in sorted(counters.alerts.items())),
    )
    yield from gauge(
        "alert_active",
        "Always 1; one series per alert that lasts.",
        ("name", "severity", "exchange", "symbol"),
        (((row.name, row.severity, row.exchange or "", row.symbol or ""), 1) for row in status.alerts),
    )
    yield from counter(
        "alerts_dropped", "Alerts beyond what can be held: only logged.", (), [((), counters.alerts_dropped)]
    )
    hooks = sorted(counters.webhooks.items())
    yield from counter(
        "webhook_posts",
        "Posts to a webhook by result.",
        ("webhook", "result"),
        (((name, result), total) for name, row in hooks for result, total in sorted(row.posts.items())),
    )
    yield from gauge(
        "webhook_queue",
        "Notices that are not delivered yet.",
        ("webhook",),
        (((name,), row.waiting) for name, row in hooks),
    )
    yield from counter(
        "webhook_dropped",
        "Notices that a full queue let go.",
        ("webhook",),
        (((name,), row.dropped) for name, row in hooks),
    )
    yield from gauge(
        "heartbeat_timestamp_seconds",
        "When the daemon last found itself well, Unix time.",
        (),
        [((), counters.heartbeat_at or None)],
    )


def journal_families(journal: JournalStatus) -> Iterator[Metric]:
    """How far it is. `mmd_journal_head` is the hash's first 12 hexadecimal digits as a number, exact in a float."""
    head = int(journal.head[:HEAD_DIGITS] or "0", 16)
    for name, text, value in (
        ("journal_seq", "Number of the journal's last record.", journal.seq),
        ("journal_head", "First 48 bits of the hash of that record's line: see mmd verify --head.", head),
        ("journal_synced_seq", "Number of the last record that outlives a loss of power.", journal.synced_seq),
        ("journal_segment", "Number of the file that is written.", journal.segment),
        ("journal_segment_bytes", "Its size.", journal.segment_bytes),
        ("journal_pending_records", "Records that wait to be written.", journal.pending_records),
        ("journal_failing", "1 while the journal cannot be written.", bool(journal.failing)),
    ):
        yield from gauge(name, text, (), [((), value)])
    yield from counter("journal_bytes", "Bytes written since the process started.", (), [((), journal.bytes_written)])
    yield from counter("journal_lost_records", "Records that had to be given up.", (), [((), journal.lost_records)])
