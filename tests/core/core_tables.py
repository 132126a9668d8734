"""The tables of docs/orders.md and docs/states.md, made from the tables that the code runs on.

`python tests/core/core_tables.py` writes them into the documents; a test holds them in step.
"""

import re
from collections.abc import Callable
from pathlib import Path

from mmd.core.orders import TRANSITIONS
from mmd.core.states import MOVES
from mmd.domain.reasons import Missing, Phase, Rule, State, Why

DOCS = Path(__file__).parents[2] / "docs"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def slots() -> str:
    """Phases down, events across; a dot is an event without meaning there, which changes nothing."""
    kinds = list(dict.fromkeys(kind for _, kind in TRANSITIONS))
    rows = []
    for phase in Phase:
        if phase is Phase.EMPTY:
            continue
        cells = [" or ".join(TRANSITIONS.get((phase, kind), (".",))) for kind in kinds]
        rows.append([f"**{phase}**", *cells])
    return table(["in", *(kind.__name__ for kind in kinds)], rows)


def states() -> str:
    rows = []
    for old, allowed in MOVES.items():
        rows.append([f"**{old}**", *("yes" if new in allowed else "." for new in State)])
    return table(["from \\ to", *State], rows)


def names(kind: type[Why] | type[Missing] | type[Rule]) -> str:
    return ", ".join(f"`{name}`" for name in kind)


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "slots": ("orders.md", slots),
    "moves": ("states.md", states),
    "reasons": ("states.md", lambda: names(Why)),
    "rules": ("orders.md", lambda: names(Rule)),
    "missing": ("quoting.md", lambda: names(Missing)),
}


def with_block(text: str, name: str, body: str) -> str:
    """The document with the part between its two markers replaced; ValueError where they are missing."""
    pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no block named {name}")
    return pattern.sub(lambda found: found[1] + body + "\n" + found[2], text)


def main() -> None:
    for name, (document, render) in BLOCKS.items():
        path = DOCS / document
        path.write_text(with_block(path.read_text(), name, render()))


if __name__ == "__main__":
    main()
