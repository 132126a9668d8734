"""What the daemon says of itself in one line: the statistics record every 30 s and systemd's STATUS= sentence."""

import msgspec

from mmd.domain.reasons import State
from mmd.shell.desk import Status

STATISTICS_SECONDS = 30.0
SENTENCE_MAX = 80


class Totals(msgspec.Struct, frozen=True):
    """Order counts since the start, to be subtracted from later ones."""

    placed: int = 0
    amended: int = 0
    cancelled: int = 0
    rejected: int = 0
    filled: int = 0


def totals(status: Status) -> Totals:
    return Totals(
        placed=status.orders_placed,
        amended=status.orders_amended,
        cancelled=status.orders_cancelled,
        rejected=status.orders_rejected,
        filled=status.fills,
    )


def statistics(status: Status, before: Totals) -> dict[str, int | float | None]:
    """Fields of the record `statistics.written`: orders since `before`, and how things stand now."""
    now = totals(status)
    fields: dict[str, int | float | None] = {
        name: getattr(now, name) - getattr(before, name) for name in Totals.__struct_fields__
    }
    fields["orders_resting"] = sum(row.resting for row in status.symbols)
    for state in (State.ACTIVE, State.PAUSED, State.HALTED):
        fields[f"symbols_{state.lower()}"] = sum(row.state == state for row in status.symbols)
    fields["pnl_usd"] = None if status.pnl_usd is None else round(status.pnl_usd, 2)
    fields["uptime_seconds"] = round(status.uptime_seconds)
    return fields


def sentence(status: Status) -> str:
    """For `systemctl status`: numbers first, at most 80 characters."""
    states = [row.state for row in status.symbols]
    parts = [f"quoting {states.count(State.ACTIVE)} of {len(states)} symbols"]
    for state in (State.PAUSED, State.HALTED, State.DRAINING):
        if number := states.count(state):
            parts.append(f"{number} {state.lower()}")
    parts.append(f"generation {status.config_generation}")
    if status.config_error is not None:
        parts.append("file on disk refused")
    if down := [row.name for row in status.exchanges if not (row.data_link and row.trade_link)]:
        parts.append(f"{', '.join(down)} down")
    text = ", ".join(parts)
    return text if len(text) <= SENTENCE_MAX else text[: SENTENCE_MAX - 1] + "…"
