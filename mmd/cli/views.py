"""Answers of the daemon as text for people: one function a result, lines out; nothing is printed here."""

from collections import Counter
from collections.abc import Sequence
from time import localtime, strftime

from mmd.cli.tables import Cell, Column, Page, Style, age, clean, counted, draw, fold, in_words, money, number
from mmd.shell.desk import (
    ChangeResult,
    EventLine,
    ExchangeStatus,
    Explanation,
    OrderLine,
    Outcome,
    PlanResult,
    PositionLine,
    ReloadResult,
    SideStatus,
    Status,
    SymbolResult,
    SymbolStatus,
)

STATES = {"ACTIVE": Style.GOOD, "PAUSED": Style.WARN, "DRAINING": Style.WARN, "HALTED": Style.BAD}
EFFECTS = {"live": Style.GOOD, "requote": Style.WARN, "drain": Style.BAD, "restart": Style.BAD}
DONE_ROWS_MAX = 20
NAMES_MAX = 12


def state_cell(state: str) -> Cell:
    return Cell(state, STATES.get(state, Style.PLAIN))


def all_one(values: Sequence[str]) -> bool:
    return len(set(values)) <= 1


# --- status ----------------------------------------------------------------------------------------


def status_lines(page: Page, status: Status, now: float) -> list[str]:
    """The service in a few lines, then a row a symbol. `now`: Unix seconds."""
    lines = []
    for text, style in _service(status, now):
        lines += [page.paint(line, style) for line in fold(text, page.width)]
    for exchange in status.exchanges:
        style = Style.PLAIN if exchange.data_link and exchange.trade_link else Style.BAD
        lines += [page.paint(line, style) for line in fold(_exchange(exchange), page.width)]
    if not status.symbols:
        return [*lines, "no symbols"]
    return [*lines, "", *_symbol_table(page, status)]


def _service(status: Status, now: float) -> list[tuple[str, Style]]:
    counts = Counter(row.state for row in status.symbols)
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
    ]
    if status.phase != "running":
        texts.append((f"the daemon is {status.phase}", Style.WARN))
    if status.config_error is not None:
        texts.append((f"the configuration on disk is refused: {status.config_error}", Style.BAD))
    if status.confirm_deadline is not None:
        left = age(max(status.confirm_deadline - now, 0))
        texts.append((f"the last reload undoes itself in {left}: `mmdctl confirm` keeps it", Style.WARN))
    return [(text, style) for text, style in texts if text]


def _money_line(status: Status) -> str:
    exposure = ", ".join(f"{number(coins)} {coin}" for coin, coins in sorted(status.exposure.items()))
    return f"pnl {money(status.pnl_usd)} USD, notional {status.notional_usd:,.0f} USD, exposure {exposure or 'none'}"


def _exchange(exchange: ExchangeStatus) -> str:
    trip = "" if exchange.round_trip_ms is None else f", {exchange.round_trip_ms:.1f} ms there and back"
    return (
        f"{exchange.name} ({exchange.network}): data {'up' if exchange.data_link else 'DOWN'}, "
        f"orders {'up' if exchange.trade_link else 'DOWN'}, "
        f"cancel on disconnect {'armed' if exchange.cancel_on_disconnect else 'NOT ARMED'}{trip}"
    )


def _symbol_table(page: Page, status: Status) -> list[str]:
    one_exchange = all_one([row.exchange for row in status.symbols])
    one_mode = all_one([status.mode, *(row.mode for row in status.symbols)])
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
        Column("REASON", words=True),
    ]
    rows = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            state_cell(row.state),
            Cell("" if one_mode else row.mode),
            _side_cell(row, row.bid),
            _side_cell(row, row.ask),
            Cell(number(row.position)),
            Cell(money(row.pnl_usd)),
            Cell(age(row.data_age_seconds)),
            Cell(_reason(row)),
        ]
        for row in status.symbols
    ]
    return draw(page, columns, rows)


def _side_cell(row: SymbolStatus, side: SideStatus) -> Cell:
    if side.price is not None:
        return Cell(number(side.price))
    if side.withheld and row.state == "ACTIVE":
        return Cell(in_words(side.withheld), Style.WARN)
    return Cell("-")


def _reason(row: SymbolStatus) -> str:
    """Why it does not quote; nothing for a symbol that does."""
    reason = "" if row.state == "ACTIVE" else in_words(row.reason)
    if row.state != "ACTIVE" and row.resting:
        reason += f"; {counted(row.resting, 'order')} may still rest"
    return reason


def degradations(status: Status) -> list[str]:
    """What a monitoring check should shout about; empty when all is well."""
    faults = [
        f"{row.exchange}/{row.symbol} is HALTED: {in_words(row.reason)}"
        for row in status.symbols
        if row.state == "HALTED"
    ]
    for exchange in status.exchanges:
        if not exchange.data_link:
            faults.append(f"{exchange.name}: the data link is down")
        if not exchange.trade_link:
            faults.append(f"{exchange.name}: the order link is down")
    if status.config_error is not None:
        faults.append(f"the configuration on disk is refused: {status.config_error}")
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
    return [
        ("state", f"{row.state} ({in_words(row.reason)}){detail}"),
        ("since", f"{stamp(row.since)}, {age(max(now - row.since, 0))} ago, by {row.by or 'nobody'}"),
        ("mode", row.mode),
        ("bid", _side_text(row.bid)),
        ("ask", _side_text(row.ask)),
        ("resting", f"{counted(row.resting, 'order')} of ours at the exchange, or perhaps"),
        ("market", f"{number(row.market_bid)} / {number(row.market_ask)}, {age(row.data_age_seconds)} old"),
        ("fair", number(row.fair)),
        ("position", f"{number(row.position)}, allowed {number(row.min_position)} to {number(row.max_position)}"),
        ("pnl", f"{money(row.pnl_usd)} USD"),
    ]


def _side_text(side: SideStatus) -> str:
    if side.price is None:
        return f"none, {side.phase}" + (f", withheld: {in_words(side.withheld)}" if side.withheld else "")
    text = f"{number(side.size)} at {number(side.price)}, {side.phase}"
    if side.order_id:
        text += f", id {side.order_id}"
    return text + (f", label {side.label}" if side.label else "")


# --- explain ---------------------------------------------------------------------------------------


def explain_lines(page: Page, explanations: Sequence[Explanation]) -> list[str]:
    """Each step of the pipeline with its numbers, the quote, what the gate says, and each check."""
    lines: list[str] = []
    for item in explanations:
        if lines:
            lines.append("")
        quoting = "quoting" if item.quoting else "not quoting"
        detail = f": {item.detail}" if item.detail else ""
        head = f"{item.exchange}/{item.symbol}: {item.state} ({in_words(item.reason)}), {quoting}{detail}"
        lines += [page.paint(line, Style.TITLE) for line in fold(head, page.width)]
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
                [Cell("bid"), Cell(item.bid), Cell(item.gate_bid)],
                [Cell("ask"), Cell(item.ask), Cell(item.gate_ask)],
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
    ]
    rows = [
        [
            Cell(row.symbol),
            Cell("" if one_exchange else row.exchange),
            Cell(number(row.position)),
            Cell(number(row.average_price)),
            Cell(number(row.mark_price)),
            Cell(number(row.coins)),
            Cell(money(row.pnl_usd)),
            Cell(money(row.realized_usd)),
            Cell(money(row.unrealized_usd)),
            Cell(money(row.fees_usd)),
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
    detail = f" ({result.detail})" if result.detail and not result.symbols else ""
    if not result.symbols or len(result.symbols) > 1:
        lines += fold(
            f"{counted(len(result.symbols), 'symbol')}: {total or in_words(result.outcome)}{detail}", page.width
        )
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


def stamp(seconds: float) -> str:
    """Local time to the second."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(seconds))
