"""`cases` for people: every difference between an exchange and us, with both numbers. Lines out."""

from collections.abc import Sequence

from mmd.cli.tables import Cell, Column, Page, Style, age, all_one, counted, draw, fold
from mmd.shell.desk import CaseLine, CaseState

STYLES = {CaseState.OPEN: Style.BAD, CaseState.EXPLAINED: Style.PLAIN, CaseState.ACCEPTED: Style.WARN}
HINT = "each ends when the numbers agree, or with: mmdctl accept NUMBER --reason TEXT"


def case_lines(page: Page, cases: Sequence[CaseLine], now: float) -> list[str]:
    """A row a case, by number; below, how the open ones end. `now`: Unix seconds."""
    if not cases:
        return ["no open cases"]
    one_exchange = all_one([case.exchange for case in cases])
    columns = [
        Column("CASE", right=True),
        Column("SYMBOL"),
        Column("EXCHANGE", keep=5),
        Column("KIND"),
        Column("AGE", right=True, keep=6),
        Column("STATE"),
        Column("OURS, THE EXCHANGE'S", words=True),
    ]
    rows = [
        [
            Cell(str(case.number)),
            Cell(case.symbol),
            Cell("" if one_exchange else case.exchange),
            Cell(case.kind),
            Cell(age(max(now - case.since, 0))),
            Cell(case.state, STYLES[case.state]),
            Cell("; ".join(part for part in (_subject(case), _numbers(case), _end(case, now)) if part)),
        ]
        for case in cases
    ]
    still = sum(case.state is CaseState.OPEN for case in cases)
    return draw(page, columns, rows) + (fold(f"{counted(still, 'open case')}: {HINT}", page.width) if still else [])


def _subject(case: CaseLine) -> str:
    return f"order {case.subject}" if case.subject else ""


def _numbers(case: CaseLine) -> str:
    return f"ours {case.ours}, the exchange's {case.theirs}"


def _end(case: CaseLine, now: float) -> str:
    """Who ended it, when, why."""
    if case.closed is None:
        return ""
    return f"{case.state} {age(max(now - case.closed, 0))} ago by {case.by}: {case.reason}"
