"""Ledgers, kill switches and protections in the shapes of the desk. Only looks."""

from collections.abc import Callable, Iterable
from decimal import Decimal

from mmd.core.pnl import Position, usd_value
from mmd.domain.reasons import Scope, State, Switch
from mmd.domain.settings import KillSwitches
from mmd.domain.switches import SWITCHES
from mmd.exchanges.api import Exchange
from mmd.journal.writer import Journal
from mmd.shell.alarm import Alarm
from mmd.shell.alerts import switch_alert
from mmd.shell.desk import JournalStatus, LedgerLine, ProtectionLine, ShadowStatus, SwitchLine
from mmd.shell.views import number
from mmd.shell.worker import Worker

REAL, PESSIMISTIC, OPTIMISTIC = "real", "shadow pessimistic", "shadow optimistic"


def ledger_lines(worker: Worker, day_usd: float | None, drawdown_usd: float | None) -> list[LedgerLine]:
    """The real ledger, then the shadow's two where shadow orders ever filled."""
    machine = worker.machine
    lines = [ledger_line(worker, REAL, machine.position, day_usd, drawdown_usd)]
    if machine.imagined.optimistic.fills:
        lines.append(ledger_line(worker, PESSIMISTIC, machine.imagined.pessimistic, None, None))
        lines.append(ledger_line(worker, OPTIMISTIC, machine.imagined.optimistic, None, None))
    return lines


def ledger_line(
    worker: Worker, ledger: str, position: Position, day_usd: float | None, drawdown_usd: float | None
) -> LedgerLine:
    machine = worker.machine
    mark = machine.mark_price
    statement, profit = position.statement(mark), position.profit(mark)
    value = statement.value
    return LedgerLine(
        symbol=worker.symbol,
        exchange=worker.exchange,
        ledger=ledger,
        currency=statement.currency,
        position=number(machine.instrument.amount(position.lots)),
        opening=number(statement.opening),
        cash=number(statement.cash),
        value=None if value is None else number(value),
        spread=number(statement.spread),
        inventory=number(statement.inventory),
        fees=number(statement.fees),
        funding=number(statement.funding),
        settlement=number(statement.settlement),
        imbalance=number(statement.imbalance),
        fills=statement.fills,
        foreign_fees=dict(position.foreign_fees),
        pnl=None if value is None else number(statement.cash + value - statement.opening),
        pnl_usd=None if profit is None else usd_value(machine.instrument, profit.total, machine.market.index),
        day_pnl_usd=day_usd,
        drawdown_usd=drawdown_usd,
    )


def shadow_status(worker: Worker) -> ShadowStatus:
    """What shadow orders would have done."""
    machine = worker.machine
    imagined, mark = machine.imagined, machine.mark_price

    def usd(position: Position) -> float | None:
        profit = position.profit(mark)
        return None if profit is None else usd_value(machine.instrument, profit.total, machine.market.index)

    def amount(position: Position) -> Decimal:
        return number(machine.instrument.amount(position.lots))

    return ShadowStatus(
        pessimistic_position=amount(imagined.pessimistic),
        optimistic_position=amount(imagined.optimistic),
        pessimistic_fills=imagined.pessimistic.fills,
        optimistic_fills=imagined.optimistic.fills,
        pessimistic_pnl_usd=usd(imagined.pessimistic),
        optimistic_pnl_usd=usd(imagined.optimistic),
    )


def switch_lines(
    alarm: Alarm, settings: KillSwitches, workers: Iterable[Worker], value_of: Callable[[str], str]
) -> list[SwitchLine]:
    """Every switch with what it holds now. `value_of`: a configuration key's value as text."""
    halted: dict[Switch, list[str]] = {}
    by_alert = {switch_alert(switch): switch for switch in SWITCHES}
    for line in alarm.alerts.active():
        if line.name not in by_alert:
            continue
        target = "/".join(part for part in (line.exchange, line.symbol) if part) or "portfolio"
        halted.setdefault(by_alert[line.name], []).append(target)
    by_why = {row.why: switch for switch, row in SWITCHES.items() if switch is not Switch.ORDERS_LEFT}
    for worker in workers:
        switch = by_why.get(worker.machine.why)
        if worker.machine.state is State.HALTED and switch is not None and worker.key not in halted.get(switch, []):
            halted.setdefault(switch, []).append(worker.key)
    return [
        SwitchLine(
            switch=switch,
            scope=", ".join(SCOPES.get(switch, (row.scope,))),
            response=settings.responses[switch],
            thresholds=[f"{key} = {value_of(key)}" for key in row.thresholds],
            trips=alarm.last[switch].trips,
            last=alarm.last[switch].at_ns * 1e-9 if alarm.last[switch].trips else None,
            last_detail=alarm.last[switch].detail,
            tripped=sorted(halted.get(switch, [])),
            runbook=row.runbook,
        )
        for switch, row in SWITCHES.items()
    ]


SCOPES = {
    Switch.EXPOSURE: (Scope.EXCHANGE, Scope.PORTFOLIO),
    Switch.DRAWDOWN: (Scope.SYMBOL, Scope.PORTFOLIO),
    Switch.DAILY_LOSS: (Scope.SYMBOL, Scope.PORTFOLIO),
}


def protection_lines(exchanges: Iterable[Exchange]) -> list[ProtectionLine]:
    """What was last read back from every exchange that protects."""
    return [
        ProtectionLine(
            exchange=exchange.name,
            underlying=found.underlying,
            armed=found.armed,
            detail=found.detail,
            frozen_until=None if found.frozen_until_ns is None else found.frozen_until_ns * 1e-9,
            checked=found.checked_ns * 1e-9 if found.checked_ns else None,
        )
        for exchange in exchanges
        for found in exchange.protections
    ]


def journal_status(journal: Journal) -> JournalStatus:
    return JournalStatus(
        head=journal.written_head,
        seq=journal.written_seq,
        synced_seq=journal.synced_seq,
        segment=journal.segment,
        segment_bytes=journal.segment_bytes,
        bytes_written=journal.bytes_written,
        pending_records=journal.pending_records,
        lost_records=journal.lost,
        failing=journal.failing,
    )
