"""What withholds a symbol's quote, side by side: the rule that does it, and what would end it. Pure."""

from collections.abc import Sequence

import msgspec

from mmd.control.protocol import Explained
from mmd.domain.reasons import MARKET_DATA_REASONS, Missing, State
from mmd.domain.switches import SWITCHES
from mmd.shell.desk import Explanation, SideStatus, SymbolStatus

# The words of an Explanation that say that nothing stands in the way.
PASSES = "passes"
NOTHING = "nothing to judge"
WITHHELD = "withheld"
# The first switch of a reason speaks for it; of market data `explain` itself shows the check that fails.
RUNBOOKS = {str(row.why): row.runbook for row in reversed(SWITCHES.values()) if row.why not in MARKET_DATA_REASONS}


def explained(explanations: Sequence[Explanation], rows: Sequence[SymbolStatus]) -> list[Explained]:
    """Each explanation with its verdict. `rows`: the same symbols at the same moment."""
    status = {(row.exchange, row.symbol): row for row in rows}
    return [with_verdict(item, status[item.exchange, item.symbol]) for item in explanations]


def with_verdict(item: Explanation, row: SymbolStatus) -> Explained:
    return Explained(
        **msgspec.structs.asdict(item),
        shown=row.shown,
        by=row.by,
        since=row.since,
        withheld_bid=withheld(row, row.bid, item.bid, item.gate_bid),
        withheld_ask=withheld(row, row.ask, item.ask, item.gate_ask),
        ends=ends(item, row),
        refusal=row.refusal,
    )


def withheld(row: SymbolStatus, side: SideStatus, wanted: str, gate: str) -> str | None:
    """The rule that keeps this side from being quoted, with its numbers; None where nothing does."""
    if row.state != State.ACTIVE:
        detail = f": {row.detail}" if row.detail else ""
        return f"state: {row.shown} ({row.reason}){detail}"
    if wanted.startswith(WITHHELD):
        return f"quoting: {_with_room(wanted.removeprefix(WITHHELD).lstrip(': '), row)}"
    if gate != NOTHING and not gate.startswith(PASSES):
        return f"gate: {gate}"
    if side.price is None and side.withheld:
        return f"quoting: {_with_room(side.withheld, row)}"
    return None


def ends(item: Explanation, row: SymbolStatus) -> str:
    """What would let it quote again, in the words an operator types; empty while it is ACTIVE."""
    name = f"{row.exchange}/{row.symbol}"
    runbook = f" {RUNBOOKS[row.reason]}" if row.reason in RUNBOOKS else ""
    match row.state:
        case State.ACTIVE:
            return ""
        case State.PAUSED:
            itself = " (by itself where auto_resume says so)" if row.reason in MARKET_DATA_REASONS else ""
            return f"`mmdctl resume {name}` once every check passes{itself}; {_failing(item)}.{runbook}"
        case State.HALTED:
            proof = "" if row.shown == row.state else f" It is {row.shown}: the exchange has not said that none rests."
            return f"`mmdctl reset {name} --reason TEXT`, then `mmdctl resume {name}`.{proof}{runbook}"
        case State.DRAINING:
            return "nothing: its orders are pulled, then it is GONE. A reload of a file that lists it brings it back."
        case _:
            return "a reload of a file that lists it"


def _failing(item: Explanation) -> str:
    failing = [f"{check.name} (found {check.found}, wanted {check.wanted})" for check in item.checks if not check.ok]
    return f"failing now: {', '.join(failing)}" if failing else "none fails now"


def _with_room(why: str, row: SymbolStatus) -> str:
    """`no_room` with the position and its bounds, and where those come from."""
    if why != Missing.NO_ROOM or row.min_position is None or row.max_position is None:
        return why
    return (
        f"{why}: position {row.position:f}, allowed {row.min_position:f} to {row.max_position:f} "
        "(limits.per_symbol.max_position, or less where a total says so: `mmdctl risk`)"
    )
