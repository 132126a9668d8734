"""Answers of the daemon as text for people: one function a result, lines out; nothing is printed here."""

import re
from collections import Counter
from collections.abc import Sequence

from mmd.cli.tables import (
    Cell,
    Column,
    Page,
    Style,
    age,
    all_one,
    amount,
    clean,
    counted,
    draw,
    fold,
    in_words,
    money,
    number,
    stamp,
    state_cell,
)
from mmd.control.protocol import Explained
from mmd.shell.desk import (
    ChangeResult,
    EventLine,
    OrderLine,
    Outcome,
    PlanResult,
    PositionLine,
    ReloadResult,
    SymbolResult,
)

EFFECTS = {"live": Style.GOOD, "requote": Style.WARN, "drain": Style.BAD, "restart": Style.BAD}
DONE_ROWS_MAX = 20
NAMES_MAX = 12
WITHHELD = "withheld"
LAST_KNOWN = "as last known, without later fills"
COUNT_ONLY = re.compile(r"(\d+ of )?\d+ symbols?(: [a-z ]+)?")
"""A detail that says no more than the total line does."""


# --- explain ---------------------------------------------------------------------------------------


def explain_lines(page: Page, explanations: Sequence[Explained]) -> list[str]:
    """What withholds the quote, each step of the pipeline with its numbers, what the gate says, and each check."""
    lines: list[str] = []
    for item in explanations:
        if lines:
            lines.append("")
        quoting = "quoting" if item.quoting else "not quoting"
        detail = f": {item.detail}" if item.detail and not item.ends else ""  # else the verdict has it
        head = f"{item.exchange}/{item.symbol}: {item.shown or item.state} ({in_words(item.reason)}), {quoting}{detail}"
        lines += [page.paint(line, Style.TITLE) for line in fold(head, page.width)]
        for text, style in _verdict(item):
            lines += [page.paint(line, style) for line in fold(text, page.width)]
        lines += draw(
            page,
            [Column("STEP"), Column("BID", right=True), Column("ASK", right=True), Column("HOW", words=True)],
            [
                [Cell(in_words(step.step)), Cell(step.bid or "-"), Cell(step.ask or "-"), Cell(step.detail)]
                for step in item.steps
            ],
        )
        lines.append("")
        lines += draw(
            page,
            [Column("SIDE"), Column("WANTED"), Column("GATE", words=True)],
            [
                [Cell("bid"), Cell(_wanted(item.bid)), Cell(item.gate_bid)],
                [Cell("ask"), Cell(_wanted(item.ask)), Cell(item.gate_ask)],
            ],
        )
        if item.checks:
            lines.append("")
        lines += draw(
            page,
            [Column("CHECK"), Column("RESULT"), Column("FOUND, WANTED", words=True)],
            [
                [
                    Cell(in_words(check.name)),
                    Cell("pass", Style.GOOD) if check.ok else Cell("FAIL", Style.BAD),
                    Cell(f"found {check.found}, wanted {check.wanted}"),
                ]
                for check in item.checks
            ],
        )
    return lines


def _wanted(text: str) -> str:
    """A withheld side has its reason in the verdict above."""
    return WITHHELD if text.startswith(WITHHELD) else text


def _verdict(item: Explained) -> list[tuple[str, Style]]:
    """The rule that withholds, first of all; then what would end it, and the gate's last no."""
    bid, ask = item.withheld_bid, item.withheld_ask
    texts = []
    if bid is not None and bid == ask:
        texts.append((f"withheld by {bid}", Style.WARN))
    else:
        texts += [
            (f"{side} withheld by {rule}", Style.WARN)
            for side, rule in (("bid", bid), ("ask", ask))
            if rule is not None
        ]
    if item.ends:
        texts.append((f"since {stamp(item.since)}, by {item.by or 'nobody'}", Style.PLAIN))
        texts.append((f"what ends it: {item.ends}", Style.PLAIN))
    if item.refusal is not None:
        texts.append((f"last refusal of the gate: {item.refusal}", Style.PLAIN))
    return texts


# --- orders and positions --------------------------------------------------------------------------


def order_lines(page: Page, orders: Sequence[OrderLine]) -> list[str]:
    if not orders:
        return ["no orders"]
    one_exchange = all_one([row.exchange for row in orders])
    columns = [
        Column("SYMBOL"),
        Column("EXCHANGE", keep=4),
        Column("SIDE"),
        Column("PRICE", right=True),
        Column("SIZE", right=True, keep=8),
        Column("PHASE", keep=7),
        Column("AGE", right=True, keep=5),
        Column("MODE", keep=6),
        Column("ID", words=True),
    ]
    rows = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            Cell(row.side),
            Cell(number(row.price)),
            Cell(number(row.size)),
            Cell(row.phase, Style.PLAIN if row.phase == "LIVE" else Style.WARN),
            Cell(age(row.age_seconds)),
            Cell(row.mode),
            Cell(row.order_id or row.label),
        ]
        for row in orders
    ]
    return draw(page, columns, rows)


def position_lines(page: Page, positions: Sequence[PositionLine]) -> list[str]:
    if not positions:
        return ["no positions"]
    one_exchange = all_one([row.exchange for row in positions])
    columns = [
        Column("SYMBOL"),
        Column("EXCHANGE", keep=4),
        Column("POSITION", right=True),
        Column("AVERAGE", right=True, keep=6),
        Column("MARK", right=True, keep=6),
        Column("COINS", right=True, keep=5),
        Column("PNL USD", right=True),
        Column("REALIZED", right=True, keep=3),
        Column("UNREALIZED", right=True, keep=2),
        Column("FEES", right=True, keep=1),
        Column("NOT IN SERVICE", words=True),
    ]
    rows = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            Cell(number(row.position)),
            Cell(amount(row.average_price)),
            Cell(number(row.mark_price)),
            Cell(number(row.coins)),
            Cell(money(row.pnl_usd)),
            Cell(money(row.realized_usd)),
            Cell(money(row.unrealized_usd)),
            Cell(money(row.fees_usd)),
            Cell(f"{row.left}: {LAST_KNOWN}" if row.left else "", Style.WARN),
        ]
        for row in positions
    ]
    return draw(page, columns, rows)


# --- changes, plan, reload -------------------------------------------------------------------------


def change_lines(page: Page, result: ChangeResult) -> list[str]:
    """What was not done first of all, with every failing check; what was done, if it is not too long a list."""
    counts = Counter(row.outcome for row in result.symbols)
    done = [row for row in result.symbols if row.outcome is Outcome.DONE]
    rows = [row for row in result.symbols if row.outcome is not Outcome.DONE]
    if len(done) <= DONE_ROWS_MAX:
        rows = [*rows, *done]
    lines = draw(
        page,
        [Column("SYMBOL"), Column("OUTCOME"), Column("STATE"), Column("DETAIL", words=True)],
        [[Cell(row.symbol), _outcome_cell(row.outcome), state_cell(row.state), Cell(_why(row))] for row in rows],
    )
    total = ", ".join(f"{count} {in_words(outcome)}" for outcome, count in sorted(counts.items()))
    if result.detail and not COUNT_ONLY.fullmatch(result.detail) and result.detail not in {row.detail for row in rows}:
        lines += fold(result.detail, page.width)
    if len(result.symbols) > 1 or not lines:
        lines += fold(f"{counted(len(result.symbols), 'symbol')}: {total or in_words(result.outcome)}", page.width)
    return lines


def _why(row: SymbolResult) -> str:
    failed = [
        f"{in_words(check.name)}: found {check.found}, wanted {check.wanted}" for check in row.checks if not check.ok
    ]
    return "; ".join(([row.detail] if row.detail else []) + failed)


def _outcome_cell(outcome: Outcome) -> Cell:
    style = {Outcome.DONE: Style.GOOD, Outcome.REFUSED: Style.BAD, Outcome.TIMED_OUT: Style.WARN}[outcome]
    return Cell(in_words(outcome), style)


def plan_lines(page: Page, plan: PlanResult) -> list[str]:
    """The differences, each with what it does to the running symbols. Errors are not among these lines."""
    lines = draw(
        page,
        [Column("EFFECT"), Column("KEY"), Column("CHANGE", words=True)],
        [
            [
                Cell(line.effect, EFFECTS.get(line.effect, Style.PLAIN)),
                Cell(line.path),
                Cell(
                    f"{_value(line.old)} -> {_value(line.new)}" + (f"; {names(line.symbols)}" if line.symbols else "")
                ),
            ]
            for line in plan.lines
        ],
    )
    for title, symbols in (("added", plan.added), ("removed", plan.removed), ("changed", plan.changed)):
        if symbols:
            lines += fold(f"{title}: {names(symbols)}", page.width)
    if plan.ok and not (plan.lines or plan.added or plan.removed or plan.changed):
        lines.append("nothing would change")
    if plan.ok and plan.unchanged:
        lines += fold(f"{counted(len(plan.unchanged), 'symbol')} unchanged: orders and queue places stay", page.width)
    return lines


def _value(text: str | None) -> str:
    return "nothing" if text is None else text


def names(symbols: Sequence[str]) -> str:
    """A list that stays readable with 200 symbols."""
    if len(symbols) <= NAMES_MAX:
        return ", ".join(symbols)
    return f"{', '.join(symbols[:NAMES_MAX])} and {len(symbols) - NAMES_MAX} more"


def reload_lines(page: Page, result: ReloadResult) -> list[str]:
    plan = result.plan
    about_symbols = plan.lines or plan.added or plan.removed or plan.changed or plan.unchanged
    lines = plan_lines(page, plan) if plan.ok and about_symbols else []
    style = Style.GOOD if result.outcome is Outcome.DONE else Style.BAD
    head = f"{in_words(result.outcome)}: {result.detail or f'generation {result.generation} is in force'}"
    return [*lines, *(page.paint(line, style) for line in fold(head, page.width))]


# --- events ----------------------------------------------------------------------------------------


def event_line(page: Page, event: EventLine) -> str:
    """One line whatever its length: for grep, and for scrolling terminals."""
    where = "/".join(part for part in (event.exchange, event.symbol) if part)
    words = [part for part in (where, event.detail, f"by {event.by}" if event.by else "") if part]
    head = page.paint(f"{event.seq:>6} {stamp(event.time)}", Style.DIM)
    return f"{head} {page.paint(clean(event.name), Style.TITLE)} {clean('  '.join(words))}".rstrip()
