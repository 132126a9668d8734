"""`risk`, `ledger`, `switches`, `protection` and `flatten` for people: limits, accounts, costs. Lines out."""

from collections.abc import Sequence
from decimal import Decimal

from mmd.cli.tables import Cell, Column, Page, Style, age, all_one, amount, counted, draw, fold, money, number, stamp
from mmd.shell.desk import FlattenPreview, LedgerLine, ProtectionLine, SwitchLine, TotalLine

FULL = 1.0  # of a limit
NEAR = 0.8
REAL = "real"
SHADOW_HEADING = "imagined fills, no money moved"
ORDERS = {"bid": "buy", "ask": "sell"}


# --- risk ------------------------------------------------------------------------------------------


def risk_lines(page: Page, totals: Sequence[TotalLine]) -> list[str]:
    """A row a total; the share is that of the worst case, where there is one."""
    if not totals:
        return ["no totals"]
    columns = [
        Column("SCOPE"),
        Column("TARGET", keep=8),
        Column("UNIT"),
        Column("USED", right=True),
        Column("WORST", right=True, keep=7),
        Column("LIMIT", right=True),
        Column("%", right=True, keep=6),
        Column("OVERSUBSCRIBED", right=True, keep=5),
        Column("KEY", words=True),
    ]
    return draw(page, columns, [_total(row) for row in totals])


def _total(row: TotalLine) -> list[Cell]:
    part = share(row)
    style = Style.PLAIN
    if row.used is None or (part is not None and part >= FULL):
        style = Style.BAD
    elif part is not None and part >= NEAR:
        style = Style.WARN
    return [
        Cell(row.scope),
        Cell(row.target),
        Cell(row.unit),
        Cell("not known" if row.used is None else number(row.used), style),
        Cell(number(row.worst)),
        Cell(number(row.limit)),
        Cell("-" if part is None else f"{part:.0%}", style),
        _times(row.oversubscribed),
        Cell(row.key),
    ]


def _times(factor: float | None) -> Cell:
    """How often the symbols' own limits would fill this one."""
    if factor is None:
        return Cell("-")
    return Cell(f"{factor:.1f}x", Style.WARN if factor > FULL else Style.PLAIN)


def share(row: TotalLine) -> float | None:
    """Worst case, else use, as a part of the limit; None where neither or no limit is known."""
    value = row.used if row.worst is None else row.worst
    return None if value is None or row.limit <= 0 else value / row.limit


# --- ledger ----------------------------------------------------------------------------------------


def ledger_lines(page: Page, ledgers: Sequence[LedgerLine]) -> list[str]:
    """Each ledger by itself: accounts, then where the profit came from, then its total in USD.

    Symbols in which nothing ever happened are counted, not listed.
    """
    if not ledgers:
        return ["no ledgers"]
    kinds = sorted({row.ledger for row in ledgers}, key=lambda kind: (kind != REAL, kind))
    lines: list[str] = []
    for kind in kinds:
        if lines:
            lines.append("")
        rows = [row for row in ledgers if row.ledger == kind]
        heading = f"{kind.upper()} LEDGER" + ("" if kind == REAL else f": {SHADOW_HEADING}")
        lines.append(page.paint(heading, Style.TITLE))
        told = [row for row in rows if moved(row)]
        if told:
            lines += [*_accounts(page, told), "", *_sources(page, told)]
        lines += fold(_ledger_total(kind, rows), page.width)
    return lines


def moved(row: LedgerLine) -> bool:
    """Whether there is anything in it."""
    return bool(row.fills or row.position or row.opening or row.cash or row.imbalance or row.foreign_fees)


def _accounts(page: Page, rows: Sequence[LedgerLine]) -> list[str]:
    one_exchange = all_one([row.exchange for row in rows])
    columns = [
        Column("SYMBOL"),
        Column("EXCHANGE", keep=5),
        Column("CURRENCY"),
        Column("POSITION", right=True),
        Column("OPENING", right=True, keep=3),
        Column("CASH", right=True, keep=4),
        Column("VALUE", right=True, keep=4),
        Column("PNL", right=True, keep=8),
        Column("PNL USD", right=True),
        Column("TODAY USD", right=True, keep=7),
        Column("DRAWDOWN USD", right=True, keep=6),
    ]
    cells = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            Cell(row.currency),
            Cell(number(row.position)),
            Cell(amount(row.opening)),
            Cell(amount(row.cash)),
            Cell("no mark", Style.WARN) if row.value is None else Cell(amount(row.value)),
            Cell(amount(row.pnl)),
            Cell(money(row.pnl_usd)),
            Cell(money(row.day_pnl_usd)),
            Cell("-" if row.drawdown_usd is None else f"{row.drawdown_usd:,.2f}"),
        ]
        for row in rows
    ]
    return draw(page, columns, cells)


def _sources(page: Page, rows: Sequence[LedgerLine]) -> list[str]:
    """Where it came from; an imbalance is a defect and said so."""
    columns = [
        Column("SYMBOL"),
        Column("FILLS", right=True, keep=7),
        Column("SPREAD", right=True),
        Column("INVENTORY", right=True),
        Column("FEES", right=True, keep=8),
        Column("FUNDING", right=True, keep=6),
        Column("SETTLEMENT", right=True, keep=5),
        Column("IMBALANCE", right=True, keep=4),
        Column("OTHER FEES", words=True),
    ]
    cells = [
        [
            Cell(row.symbol),
            Cell(str(row.fills)),
            Cell(amount(row.spread)),
            Cell(amount(row.inventory)),
            Cell(amount(row.fees)),
            Cell(amount(row.funding)),
            Cell(amount(row.settlement)),
            Cell(f"{row.imbalance:.2g}" if row.imbalance else "0", Style.WARN if row.imbalance else Style.PLAIN),
            Cell(", ".join(f"{amount(paid)} {coin}" for coin, paid in sorted(row.foreign_fees.items()))),
        ]
        for row in rows
    ]
    return draw(page, columns, cells)


def _ledger_total(kind: str, rows: Sequence[LedgerLine]) -> str:
    known = [row.pnl_usd for row in rows if row.pnl_usd is not None]
    today = [row.day_pnl_usd for row in rows if row.day_pnl_usd is not None]
    missing = len(rows) - len(known)
    still = sum(not moved(row) for row in rows)
    without = f"; {counted(missing, 'symbol')} without a price left out" if missing else ""
    without += f"; {counted(still, 'symbol')} without a fill or a position not listed" if still else ""
    day = f", today {money(sum(today))} USD" if today else ""
    return f"total, {kind}: {money(sum(known)) if known else '-'} USD{day}{without}"


# --- switches --------------------------------------------------------------------------------------


def switch_lines(page: Page, switches: Sequence[SwitchLine], now: float) -> list[str]:
    """What holds something now comes first, then what tripped before, the latest first."""
    if not switches:
        return ["no kill switches"]
    columns = [
        Column("SWITCH"),
        Column("SCOPE", keep=6),
        Column("RESPONSE", keep=7),
        Column("NOW"),
        Column("TRIPS", right=True, keep=5),
        Column("LAST", right=True, keep=4),
        Column("DETAIL", words=True),
    ]
    order = sorted(switches, key=lambda row: (not row.tripped, -(row.last or 0.0)))
    return draw(page, columns, [_switch(row, now) for row in order])


def _switch(row: SwitchLine, now: float) -> list[Cell]:
    if row.tripped:
        words = [f"holds {', '.join(row.tripped)}", row.last_detail, f"-> {row.runbook}"]
    else:
        words = [", ".join(row.thresholds), f"last: {row.last_detail}" if row.trips and row.last_detail else ""]
    return [
        Cell(row.switch),
        Cell(row.scope),
        Cell(row.response),
        Cell("TRIPPED", Style.BAD) if row.tripped else Cell("ok", Style.GOOD),
        Cell(str(row.trips)),
        Cell("-" if row.last is None else age(max(now - row.last, 0))),
        Cell("; ".join(word for word in words if word)),
    ]


# --- maker protection ------------------------------------------------------------------------------


def protection_lines(page: Page, protections: Sequence[ProtectionLine], now: float) -> list[str]:
    if not protections:
        return ["no maker protection"]
    columns = [
        Column("EXCHANGE"),
        Column("UNDERLYING"),
        Column("ARMED"),
        Column("FROZEN"),
        Column("CHECKED", right=True, keep=5),
        Column("DETAIL", words=True),
    ]
    rows = [
        [
            Cell(row.exchange),
            Cell(row.underlying),
            Cell("yes", Style.GOOD) if row.armed else Cell("NO", Style.BAD),
            _frozen(row.frozen_until, now),
            Cell("never" if row.checked is None else age(max(now - row.checked, 0))),
            Cell(row.detail),
        ]
        for row in protections
    ]
    return draw(page, columns, rows)


def _frozen(until: float | None, now: float) -> Cell:
    """0 is for ever, that is until somebody resets it."""
    if until is None:
        return Cell("no")
    if until == 0:
        return Cell("UNTIL RESET", Style.BAD)
    return Cell(f"until {stamp(until)}" if until > now else "until now", Style.WARN)


# --- flatten ---------------------------------------------------------------------------------------


def preview_lines(page: Page, preview: FlattenPreview) -> list[str]:
    """What closing costs, a fact a line."""
    lines = [page.paint(f"flatten {preview.exchange}/{preview.symbol}: nothing is sent yet", Style.TITLE)]
    for name, text, style in _preview_facts(preview):
        first, *more = fold(text, page.width - 17) or [""]
        lines.append(page.paint(f"  {name:<14} {first}".rstrip(), style))
        lines += [page.paint(" " * 17 + part, style) for part in more]
    return lines


def _preview_facts(preview: FlattenPreview) -> list[tuple[str, str, Style]]:
    plain = Style.PLAIN
    facts = [("position", number(preview.position), plain)]
    if preview.side is not None and preview.limit_price is not None:
        money_of = f" {preview.currency}"
        facts += [
            ("order", f"{ORDERS.get(preview.side, preview.side)} {number(preview.size)}, reduce-only", plain),
            ("orders", str(preview.orders), plain),
            ("average price", amount(preview.average_price), plain),
            ("worst price", number(preview.worst_price), plain),
            ("limit price", number(preview.limit_price), plain),
            ("mid", number(preview.mid), plain),
            ("cost", _money_of(preview.cost, money_of, "against the mid"), plain),
            ("fee", _money_of(preview.fee, money_of, "as taker"), plain),
            ("position after", amount(preview.position - preview.size.copy_sign(preview.position)), plain),
        ]
        if preview.left:
            facts.append(("out of reach", f"{number(preview.left)} within the limit price", Style.WARN))
    if preview.refused is not None:
        facts.append(("refused", preview.refused, Style.BAD))
    return facts


def _money_of(value: Decimal | None, currency: str, what: str) -> str:
    return "not known" if value is None else f"{amount(value)}{currency} {what}"
