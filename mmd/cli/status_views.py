"""`status`, `show` and `alerts` for people: what the service is, what its symbols are, what is wrong. Lines out.

What shadow orders would have done is always marked with the word shadow and never stands in a column
of real figures.
"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from mmd.cli.tables import (
    INDENT,
    Cell,
    Column,
    Page,
    Style,
    age,
    all_one,
    counted,
    draw,
    fold,
    in_words,
    money,
    number,
    stamp,
    state_cell,
)
from mmd.domain.reasons import Mode, Severity, State
from mmd.shell.desk import (
    WAITING,
    AlertLine,
    ExchangeStatus,
    JournalStatus,
    ShadowStatus,
    SideStatus,
    Status,
    SymbolStatus,
)

ALERTS_SHOWN = 3
LEFT_OUT_SHOWN = 3
SEVERITIES = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
SEVERITY_STYLES: dict[str, Style] = {Severity.CRITICAL: Style.BAD, Severity.WARNING: Style.WARN}


# --- status ----------------------------------------------------------------------------------------


def status_lines(page: Page, status: Status, now: float) -> list[str]:
    """The service in a few lines, its worst alerts, then a row a symbol. `now`: Unix seconds."""
    lines = []
    for text, style in _service(status, now):
        lines += [page.paint(line, style) for line in fold(text, page.width)]
    for exchange in status.exchanges:
        style = Style.PLAIN if exchange.data_link and exchange.trade_link else Style.BAD
        lines += [page.paint(line, style) for line in fold(_exchange(exchange), page.width)]
        if exchange.waiting:
            text = f"{exchange.name} {exchange.waiting}: its symbols wait for it"
            lines += [page.paint(line, Style.BAD) for line in fold(text, page.width)]
    lines += _worst_alerts(page, status.alerts, now)
    if not status.symbols and not status.waiting:
        return [*lines, "no symbols"]
    return [*lines, "", *_symbol_table(page, status)]


def _service(status: Status, now: float) -> list[tuple[str, Style]]:
    counts = Counter(shown_word(row) for row in status.symbols)
    counts.update(WAITING for _ in status.waiting)
    texts = [
        (
            f"{status.service} {status.version}, {status.mode}, up {age(status.uptime_seconds)}, "
            f"config generation {status.config_generation} ({status.config_hash[:12]})",
            Style.TITLE,
        ),
        (", ".join(f"{count} {state}" for state, count in sorted(counts.items())), Style.PLAIN),
        (
            f"orders: {status.orders_placed} placed, {status.orders_amended} amended, "
            f"{status.orders_cancelled} cancelled, {status.orders_rejected} rejected, {status.fills} filled",
            Style.PLAIN,
        ),
        (_money_line(status), Style.PLAIN),
        (_exposure_line(status), Style.PLAIN),
        (_left_line(status), Style.WARN),
        (_shadow_line(status), Style.DIM),
        (_case_line(status), Style.BAD),
        _journal_line(status.journal),
    ]
    if status.phase != "running":
        texts.append((f"the daemon is {status.phase}", Style.WARN))
    if status.config_error is not None:
        texts.append((f"the configuration on disk is refused: {status.config_error}", Style.BAD))
    if status.left_out:
        more = f" and {len(status.left_out) - LEFT_OUT_SHOWN} more" if len(status.left_out) > LEFT_OUT_SHOWN else ""
        texts.append(("; ".join(status.left_out[:LEFT_OUT_SHOWN]) + more, Style.WARN))
    if status.confirm_deadline is not None:
        left = age(max(status.confirm_deadline - now, 0))
        texts.append((f"the last reload undoes itself in {left}: `mmdctl confirm` keeps it", Style.WARN))
    return [(text, style) for text, style in texts if text]


def _journal_line(journal: JournalStatus | None) -> tuple[str, Style]:
    if journal is None:
        return "", Style.PLAIN
    if journal.failing:
        return f"the journal cannot be written: {journal.failing}", Style.BAD
    safe = "" if journal.synced_seq == journal.seq else f", {journal.synced_seq} of them beyond a loss of power"
    lost = f", {journal.lost_records} given up" if journal.lost_records else ""
    return f"journal: record {journal.seq}, head {journal.head[:12]}{safe}{lost}", Style.DIM


def shown_word(row: SymbolStatus) -> str:
    """The state without its count: HALTING stays apart from HALTED."""
    return (row.shown or row.state).split(" ")[0]


def _money_line(status: Status) -> str:
    below = "not known" if status.drawdown_usd is None else f"{status.drawdown_usd:,.2f} USD"
    return f"pnl {money(status.pnl_usd)} USD, today {money(status.day_pnl_usd)} USD, drawdown {below}"


def _exposure_line(status: Status) -> str:
    exposure = ", ".join(f"{number(coins)} {coin}" for coin, coins in sorted(status.exposure.items()))
    return f"notional {status.notional_usd:,.0f} USD, exposure {exposure or 'none'}"


def _left_line(status: Status) -> str:
    """Positions whose symbols are not in service."""
    left = ", ".join(f"{row.exchange}/{row.symbol} {number(row.position)} ({row.left})" for row in status.left_behind)
    return f"held and not looked after, as last known: {left}: `mmdctl positions`" if left else ""


def _shadow_line(status: Status) -> str:
    """All shadow results in one; apart from the real ones above."""
    shadows = [row.shadow for row in status.symbols if row.shadow is not None]
    if not shadows:
        return ""
    fills = sum(s.pessimistic_fills for s in shadows), sum(s.optimistic_fills for s in shadows)
    low = [s.pessimistic_pnl_usd for s in shadows if s.pessimistic_pnl_usd is not None]
    high = [s.optimistic_pnl_usd for s in shadows if s.optimistic_pnl_usd is not None]
    unpriced = len(shadows) - min(len(low), len(high))
    missing = f", {counted(unpriced, 'symbol')} without a price" if unpriced else ""
    return (
        f"shadow, imagined and in none of the figures above: {counted(len(shadows), 'symbol')}, "
        f"{fills[0]}..{fills[1]} fills, pnl {money(sum(low))}..{money(sum(high))} USD{missing}"
    )


def _case_line(status: Status) -> str:
    found = [row for row in status.symbols if row.open_cases]
    cases = counted(sum(row.open_cases for row in found), "open case")
    return (
        f"{cases} of {counted(len(found), 'symbol')}, none of which is resumed before: `mmdctl cases`" if found else ""
    )


def _exchange(exchange: ExchangeStatus) -> str:
    trip = "" if exchange.round_trip_ms is None else f", {exchange.round_trip_ms:.1f} ms there and back"
    return (
        f"{exchange.name} ({exchange.network}): data {'up' if exchange.data_link else 'DOWN'}, "
        f"orders {'up' if exchange.trade_link else 'DOWN'}, "
        f"cancel on disconnect {'armed' if exchange.cancel_on_disconnect else 'NOT ARMED'}{trip}"
    )


def _symbol_table(page: Page, status: Status) -> list[str]:
    one_exchange = all_one([*(row.exchange for row in status.symbols), *(one.exchange for one in status.waiting)])
    one_mode = all_one([status.mode, *(row.mode for row in status.symbols)])
    shadow = any(row.shadow is not None for row in status.symbols)
    columns = [
        Column("SYMBOL"),
        Column("EXCHANGE", keep=5),
        Column("STATE"),
        Column("MODE", keep=8),
        Column("BID", right=True, keep=7),
        Column("ASK", right=True, keep=7),
        Column("POSITION", right=True, keep=6),
        Column("PNL USD", right=True, keep=4),
        Column("DATA", right=True, keep=3),
        Column("REASON, SHADOW" if shadow else "REASON", words=True),
    ]
    rows = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            state_cell(row.state, row.shown),
            Cell("" if one_mode else row.mode),
            _side_cell(row, row.bid),
            _side_cell(row, row.ask),
            Cell(number(row.position)),
            Cell(money(row.pnl_usd)),
            Cell(age(row.data_age_seconds)),
            Cell("; ".join(part for part in (_reason(row), shadow_text(row.shadow)) if part)),
        ]
        for row in status.symbols
    ]
    nothing = [Cell("") if one_mode else Cell("-"), *[Cell("-")] * 5]
    for one in status.waiting:
        words = f"{one.entry}: {one.reason}"
        where_ = "" if one_exchange else one.exchange
        rows.append([Cell(one.symbol), Cell(where_), state_cell(WAITING), *nothing, Cell(words)])
    return draw(page, columns, rows)


def _side_cell(row: SymbolStatus, side: SideStatus) -> Cell:
    if side.price is not None:
        return Cell(number(side.price))
    if side.withheld and row.state == State.ACTIVE:
        return Cell(in_words(side.withheld), Style.WARN)
    return Cell("-")


def _reason(row: SymbolStatus) -> str:
    """Why it does not quote; nothing for a symbol that does."""
    reason = "" if row.state == State.ACTIVE else in_words(row.reason)
    if row.state != State.ACTIVE and row.resting and row.shown == row.state:
        reason += f"; {counted(row.resting, 'order')} may still rest"
    if row.open_cases:
        reason += f"{'; ' if reason else ''}{counted(row.open_cases, 'open case')}"
    return reason


def shadow_text(shadow: ShadowStatus | None) -> str:
    """`shadow +0.2..+0.5, pnl -1.20..+3.40 USD`: pessimistic, then optimistic profit."""
    if shadow is None:
        return ""
    low, high = sorted((shadow.pessimistic_position, shadow.optimistic_position))
    position = signed(low) if low == high else f"{signed(low)}..{signed(high)}"
    profit = f"{money(shadow.pessimistic_pnl_usd)}..{money(shadow.optimistic_pnl_usd)}"
    return f"shadow {position}, pnl {profit} USD"


def signed(value: Decimal) -> str:
    return format(value, "+f")


# --- alerts ----------------------------------------------------------------------------------------


def worst_first(alerts: Sequence[AlertLine]) -> list[AlertLine]:
    """CRITICAL before WARNING before the rest, the oldest of each first."""
    rank = {str(severity): n for n, severity in enumerate(SEVERITIES)}
    return sorted(alerts, key=lambda alert: (rank.get(alert.severity, len(rank)), alert.since))


def where(alert: AlertLine) -> str:
    """`deribit/BTC-PERPETUAL`, or as much of it as the alert has; a symbol may carry its exchange already."""
    if alert.symbol and (alert.exchange is None or alert.symbol.startswith(f"{alert.exchange}/")):
        return alert.symbol
    return "/".join(part for part in (alert.exchange, alert.symbol) if part)


def _worst_alerts(page: Page, alerts: Sequence[AlertLine], now: float) -> list[str]:
    """How many, the worst few, and what to do about them."""
    if not alerts:
        return []
    counts = Counter(alert.severity for alert in alerts)
    total = ", ".join(f"{counts[name]} {name}" for name in SEVERITIES if counts[name])
    lines = [page.paint(f"{counted(len(alerts), 'alert')}: {total}", Style.TITLE)]
    alike: dict[tuple[str, str], list[AlertLine]] = {}
    for alert in worst_first(alerts):
        alike.setdefault((alert.severity, alert.name), []).append(alert)
    shown = list(alike.values())[:ALERTS_SHOWN]
    for alert, *others in shown:
        head = " ".join(part for part in (alert.severity.upper(), alert.name, where(alert)) if part)
        head += f" and {len(others)} more" if others else ""
        detail = f": {alert.detail}" if alert.detail else ""
        text = f"{head}, {age(max(now - alert.since, 0))}: {alert.summary}{detail}"
        style = SEVERITY_STYLES.get(alert.severity, Style.PLAIN)
        lines += [page.paint(line, style) for line in fold(text, page.width, "  ")]
        lines += fold(f"-> {alert.runbook}", page.width, INDENT) if alert.runbook else []
    if rest := len(alerts) - sum(len(group) for group in shown):
        lines.append(f"  and {rest} more: mmdctl alerts")
    return lines


def alert_lines(page: Page, alerts: Sequence[AlertLine], now: float) -> list[str]:
    """Every alert that lasts, the worst first; below, once for each name, what it means and what to do."""
    if not alerts:
        return ["no alerts"]
    rows = [
        [
            Cell(alert.severity, SEVERITY_STYLES.get(alert.severity, Style.PLAIN)),
            Cell(alert.name),
            Cell(where(alert)),
            Cell(age(max(now - alert.since, 0))),
            Cell(alert.detail or alert.summary),
        ]
        for alert in worst_first(alerts)
    ]
    columns = [
        Column("SEVERITY"),
        Column("ALERT"),
        Column("WHERE", keep=8),
        Column("AGE", right=True, keep=7),
        Column("DETAIL", words=True),
    ]
    lines = draw(page, columns, rows)
    # A summary begins with whom it is about, which WHERE says already.
    meanings = {alert.name: (alert.summary.split(": ", 1)[-1], alert.runbook) for alert in reversed(alerts)}
    for name in dict.fromkeys(alert.name for alert in worst_first(alerts)):
        meaning, runbook = meanings[name]
        lines += ["", *fold(f"{name}: {meaning}", page.width)]
        lines += fold(f"-> {runbook}", page.width, INDENT) if runbook else []
    return lines


def degradations(status: Status, asked: Sequence[str] = ("all",)) -> list[str]:
    """What a monitoring check should shout about; empty when all is well.

    `asked`: the patterns that chose the symbols; alerts about other symbols are then left out.
    """
    faults = []
    for row in status.symbols:
        if row.state == State.HALTED:
            proof = "" if row.shown == row.state else ", and nothing proves that none of our orders rests"
            faults.append(f"{row.exchange}/{row.symbol} is {row.shown}: {in_words(row.reason)}{proof}")
    for exchange in status.exchanges:
        if not exchange.data_link:
            faults.append(f"{exchange.name}: the data link is down")
        if not exchange.trade_link:
            faults.append(f"{exchange.name}: the order link is down")
        if exchange.waiting:
            faults.append(f"{exchange.name}: its symbols are not in service: it {exchange.waiting}")
    if cases := sum(row.open_cases for row in status.symbols):
        faults.append(f"{counted(cases, 'open case')}: see `mmdctl cases`")
    if status.config_error is not None:
        faults.append(f"the configuration on disk is refused: {status.config_error}")
    ours = {name for row in status.symbols for name in (row.symbol, f"{row.exchange}/{row.symbol}")}
    for alert in worst_first(status.alerts):
        if alert.severity == Severity.CRITICAL and ("all" in asked or alert.symbol is None or alert.symbol in ours):
            place = f" {where(alert)}" if where(alert) else ""
            faults.append(f"alert {alert.name}{place}: {alert.summary}" + (f": {alert.detail}" if alert.detail else ""))
    return faults


# --- show ------------------------------------------------------------------------------------------


def symbol_lines(page: Page, rows: Sequence[SymbolStatus], now: float) -> list[str]:
    """Everything about each symbol, a block each."""
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        lines.append(page.paint(f"{row.exchange}/{row.symbol}", Style.TITLE))
        for name, text in _facts(row, now):
            first, *more = fold(text, page.width - 15) or [""]
            lines.append(f"  {name:<12} {first}".rstrip())
            lines += [" " * 15 + part for part in more]
    return lines


def _facts(row: SymbolStatus, now: float) -> list[tuple[str, str]]:
    detail = f": {row.detail}" if row.detail else ""
    facts = [
        ("state", f"{row.shown or row.state} ({in_words(row.reason)}){detail}"),
        ("since", f"{stamp(row.since)}, {age(max(now - row.since, 0))} ago, by {row.by or 'nobody'}"),
        ("mode", row.mode),
        ("bid", _side_text(row.bid)),
        ("ask", _side_text(row.ask)),
        ("resting", f"{counted(row.resting, 'order')} {_whereabouts(row)}"),
        ("market", f"{number(row.market_bid)} / {number(row.market_ask)}, {age(row.data_age_seconds)} old"),
        ("fair", number(row.fair)),
        ("position", f"{number(row.position)}, allowed {number(row.min_position)} to {number(row.max_position)}"),
        ("pnl", f"{money(row.pnl_usd)} USD"),
    ]
    if row.open_cases:
        facts.append(("cases", f"{row.open_cases} open: `mmdctl cases {row.exchange}/{row.symbol}`"))
    if row.refusal is not None:
        facts.append(("last refusal", row.refusal))
    return facts + (_shadow_facts(row.shadow) if row.shadow is not None else [])


def _whereabouts(row: SymbolStatus) -> str:
    return "imagined, none sent" if row.mode == Mode.SHADOW else "of ours at the exchange, or perhaps"


def _shadow_facts(shadow: ShadowStatus) -> list[tuple[str, str]]:
    return [
        (
            "shadow",
            f"pessimistic: position {signed(shadow.pessimistic_position)}, "
            f"{counted(shadow.pessimistic_fills, 'fill')}, pnl {money(shadow.pessimistic_pnl_usd)} USD",
        ),
        (
            "shadow",
            f"optimistic: position {signed(shadow.optimistic_position)}, "
            f"{counted(shadow.optimistic_fills, 'fill')}, pnl {money(shadow.optimistic_pnl_usd)} USD",
        ),
    ]


def _side_text(side: SideStatus) -> str:
    if side.price is None:
        return f"none, {side.phase}" + (f", withheld: {in_words(side.withheld)}" if side.withheld else "")
    text = f"{number(side.size)} at {number(side.price)}, {side.phase}"
    if side.order_id:
        text += f", id {side.order_id}"
    return text + (f", label {side.label}" if side.label else "")
