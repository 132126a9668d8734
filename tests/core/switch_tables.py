"""The tables of docs/kill-switches.md, made from the table of switches that the code runs on.

`python tests/core/switch_tables.py` writes them into the document; a test holds them in step.
"""

from collections.abc import Callable

from core_tables import DOCS, table, with_block

from mmd.config.schema import at
from mmd.domain.reasons import Response, Scope, Switch
from mmd.domain.switches import SWITCHES, Row
from mmd.shell.alerts import switch_alert, switch_severity

DOCUMENT = DOCS / "kill-switches.md"
NO_CHOICE = {Response.WARN: "only says so", Response.HALT: "halt"}
# Where a part of what is judged has a narrower scope than the whole.
ALSO: dict[Switch, Scope] = {
    Switch.EXPOSURE: Scope.EXCHANGE,
    Switch.DRAWDOWN: Scope.SYMBOL,
    Switch.DAILY_LOSS: Scope.SYMBOL,
}
REASONS = {Switch.MARKET_DATA: "the market's own", Switch.ORDERS_LEFT: "as before"}


def scope(switch: Switch, row: Row) -> str:
    return f"{row.scope}, {ALSO[switch]}" if switch in ALSO else str(row.scope)


def responses(row: Row) -> str:
    """The default, and what else the configuration may choose."""
    first, *others = row.responses
    if not others:
        return NO_CHOICE[first]
    return f"**{first}**, or {' or '.join(others)}"


def threshold(key: str) -> str:
    """A key of the configuration, with its default where it has one."""
    found = at([*key.split(".")])
    default = found.get("default") if found is not None else None
    shown = isinstance(default, int | float | str) and not isinstance(default, bool)
    return f"`{key}` ({default})" if shown else f"`{key}`"


def switches() -> str:
    rows = [
        [
            f"`{switch}`",
            scope(switch, row),
            responses(row),
            ", ".join(threshold(key) for key in row.thresholds) or "none",
            REASONS.get(switch, f"`{row.why}`"),
        ]
        for switch, row in SWITCHES.items()
    ]
    return table(["switch", "scope", "does", "thresholds (default)", "reason shown"], rows)


def runbooks() -> str:
    rows = [
        [
            f"`{switch}`",
            f"`{switch_alert(switch)}`, {switch_severity(switch, row.responses[0])}",
            row.alert,
            row.runbook,
        ]
        for switch, row in SWITCHES.items()
    ]
    return table(["switch", "alert, severity by default", "it says", "what to do"], rows)


SWITCH_BLOCKS: dict[str, Callable[[], str]] = {"switches": switches, "runbooks": runbooks}


def main() -> None:
    text = DOCUMENT.read_text()
    for name, render in SWITCH_BLOCKS.items():
        text = with_block(text, name, render())
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
