"""Text for people: tables, ages, numbers, colours. Plain ASCII of our own, at home in any terminal or pipe.

A table that is too wide first moves its wordy column under the rows, then drops the columns that
matter least; a number or a name is never cut.
"""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from time import localtime, strftime
from typing import NamedTuple, TextIO

DEFAULT_COLUMNS = 100
GAP = "  "
INDENT = "    "
WORDS_MIN = 16  # a wordy column narrower than this reads badly; it goes under the row
NONE = "-"
PLACES = 8


class Style(StrEnum):
    """SGR parameters."""

    PLAIN = ""
    GOOD = "32"
    WARN = "33"
    BAD = "31;1"
    DIM = "2"
    TITLE = "1"


STATES = {"ACTIVE": Style.GOOD, "PAUSED": Style.WARN, "WAITING": Style.BAD, "DRAINING": Style.WARN, "HALTED": Style.BAD}


class Cell(NamedTuple):
    text: str
    style: Style = Style.PLAIN


class Column(NamedTuple):
    """`keep`: columns of the lowest number are dropped first, those of 9 never.

    `words`: the last column, free text; wrapped in what is left of the line, or under its row.
    """

    title: str
    right: bool = False
    keep: int = 9
    words: bool = False


class Page(NamedTuple):
    """Where the text goes: `width` columns, with colours or without."""

    width: int
    colour: bool

    def paint(self, text: str, style: Style) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and style and text.strip() else text


def page_of(stream: TextIO, environment: Mapping[str, str]) -> Page:
    """A pipe is as wide as $COLUMNS or 100; colours only on a terminal that is not dumb, and never with NO_COLOR."""
    terminal = stream.isatty()
    colour = terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    if terminal:
        width = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns
    else:
        named = environment.get("COLUMNS", "")
        width = int(named) if named.isdecimal() and int(named) else DEFAULT_COLUMNS
    return Page(width=width, colour=colour)


def draw(page: Page, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Header and rows, ready to print; nothing for no rows."""
    if not rows:
        return []
    rows = [[Cell(clean(cell.text), cell.style) for cell in row] for row in rows]
    shown = [n for n, column in enumerate(columns) if any(row[n].text for row in rows)]
    widths = [max(len(column.title), *(len(row[n].text) for row in rows)) for n, column in enumerate(columns)]
    words = next((n for n in shown if columns[n].words), None)
    fixed = [n for n in shown if n != words]
    beside = words is not None and _span(fixed, widths) + len(GAP) + _least(columns, rows, words) <= page.width
    while not beside and _span(fixed, widths) > page.width:
        least = min((columns[n].keep, -n) for n in fixed)
        if least[0] == 9:
            break
        fixed.remove(-least[1])
    titles = [Cell(column.title, Style.TITLE) for column in columns]
    lines = [_row(page, columns, titles, fixed, widths, words if beside else None)]
    for row in rows:
        lines.append(_row(page, columns, row, fixed, widths, None))
        if words is None or not row[words].text:
            continue
        text, style = row[words]
        if beside:
            lines[-1:] = _beside(page, lines[-1], _span(fixed, widths), text, style)
        else:
            lines += [page.paint(line, style) for line in fold(text, page.width, INDENT)]
    return lines


def fold(text: str, width: int, indent: str = "") -> list[str]:
    """Words over several lines, each indented; a word that is too long stands alone, uncut."""
    return textwrap.wrap(
        clean(text),
        max(width, len(indent) + 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def clean(text: str) -> str:
    """One line without control characters: what others wrote must not steer our terminal."""
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "?" for c in text)


def _least(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], words: int) -> int:
    """How narrow the wordy column may become: what it needs, or enough to read, and no less than its longest word."""
    longest = max((len(word) for row in rows for word in row[words].text.split()), default=0)
    return max(longest, len(columns[words].title), min(WORDS_MIN, max(len(row[words].text) for row in rows)))


def _span(shown: Iterable[int], widths: Sequence[int]) -> int:
    used = [widths[n] for n in shown]
    return sum(used) + len(GAP) * (len(used) - 1)


def _row(
    page: Page,
    columns: Sequence[Column],
    row: Sequence[Cell],
    fixed: Sequence[int],
    widths: Sequence[int],
    words: int | None,
) -> str:
    cells = []
    for n in fixed:
        text = row[n].text.rjust(widths[n]) if columns[n].right else row[n].text.ljust(widths[n])
        cells.append(page.paint(text, row[n].style))
    if words is not None:
        cells.append(page.paint(row[words].text, row[words].style))
    return GAP.join(cells).rstrip()


def _beside(page: Page, line: str, span: int, text: str, style: Style) -> list[str]:
    """The wordy cell to the right of its row, folded within what is left."""
    first, *more = fold(text, page.width - span - len(GAP))
    bare = len(line) if not page.colour else len(_uncoloured(line))
    start = line + " " * (span - bare) + GAP
    return [start + page.paint(first, style), *(" " * (span + len(GAP)) + page.paint(part, style) for part in more)]


def _uncoloured(line: str) -> str:
    parts = line.split("\x1b[")
    return parts[0] + "".join(part.split("m", 1)[1] for part in parts[1:])


# --- single values ---------------------------------------------------------------------------------


def number(value: Decimal | float | None) -> str:
    """Exact decimals as they are; floats with eight significant digits; never an exponent."""
    if value is None:
        return NONE
    if isinstance(value, Decimal):
        return format(value, "f")
    digits = format(Decimal(f"{value:.8g}"), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def money(value: float | None) -> str:
    """A result in USD, signed, to the cent."""
    return NONE if value is None else f"{value:+,.2f}"


def age(seconds: float | None) -> str:
    """`3s`, `2m`, `5h`, `4d`; the largest unit that fits, rounded down."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return "<1s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def amount(value: Decimal | None) -> str:
    """A sum of money or coins for people: at most eight places, without trailing zeros; `--json` has every digit."""
    if value is None:
        return NONE
    text = format(round(value, PLACES), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def stamp(seconds: float) -> str:
    """Local time to the second."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(seconds))


def state_cell(state: str, shown: str = "") -> Cell:
    """`shown`: what people read instead of the bare state, in the same colour."""
    return Cell(shown or state, STATES.get(state, Style.PLAIN))


def all_one(values: Sequence[str]) -> bool:
    return len(set(values)) <= 1


def in_words(name: str) -> str:
    """`stale_book` reads `stale book`."""
    return name.replace("_", " ")


def counted(count: int, noun: str) -> str:
    """`1 symbol`, `2 symbols`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
