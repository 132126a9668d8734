"""What an export is made of: rows of text with stable columns, for surveillance and for spreadsheets.

Times are UTC in ISO 8601 with nanoseconds. Prices, sizes and fees are exact decimals in the exchange's
units (docs/units.md). An empty cell is one that does not apply or that is not known. Columns may be
added at the end; none is renamed or removed without another FORMAT.
"""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

FORMAT = 1
NS = 1_000_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="what", gc=False):
    """Root of all rows. `seq` and `hash`: the record of the journal that is the evidence."""

    time: str
    seq: int
    hash: str
    exchange: str = ""
    symbol: str = ""


class OrderRow(Row, frozen=True, kw_only=True, tag="order"):
    """One thing that happened to one order; docs/journal-export.md says what each event means.

    `size` is the whole order's, of a fill the execution's; `remaining` can still fill. `found`, `limit`,
    `key`: of the gate's rule. `authorised_by`: who resumed the symbol, or asked to flatten it.
    """

    event: str
    mode: str = ""
    label: str = ""
    order_id: str = ""
    side: str = ""
    order_type: str = ""
    price: str = ""
    size: str = ""
    remaining: str = ""
    price_unit: str = ""
    size_unit: str = ""
    trade_id: str = ""
    ledger: str = ""
    fee: str = ""
    fee_currency: str = ""
    liquidity: str = ""
    rule: str = ""
    found: str = ""
    limit: str = ""
    key: str = ""
    fault: str = ""
    code: str = ""
    detail: str = ""
    exchange_time: str = ""
    received_time: str = ""
    authorised_by: str = ""
    service: str = ""
    version: str = ""
    config_sha256: str = ""


class FillRow(Row, frozen=True, kw_only=True, tag="fill"):
    """One execution, once. `ledger`: real, shadow pessimistic, shadow optimistic; never to be added up together."""

    ledger: str
    side: str
    price: str
    size: str
    price_unit: str = ""
    size_unit: str = ""
    position_after: str = ""
    fee: str = ""
    fee_currency: str = ""
    liquidity: str = ""
    trade_id: str = ""
    order_id: str = ""
    label: str = ""
    exchange_time: str = ""
    received_time: str = ""
    authorised_by: str = ""
    service: str = ""
    version: str = ""
    config_sha256: str = ""


class StateRow(Row, frozen=True, kw_only=True, tag="state"):
    """What changed about a symbol, or about the service."""

    event: str
    old: str = ""
    new: str = ""
    why: str = ""
    by: str = ""
    detail: str = ""
    switch: str = ""
    scope: str = ""
    response: str = ""
    case: str = ""
    subject: str = ""
    ours: str = ""
    theirs: str = ""
    service: str = ""
    version: str = ""
    config_sha256: str = ""


class CommandRow(Row, frozen=True, kw_only=True, tag="command"):
    """What somebody asked for, with what came of it. `params` is JSON."""

    method: str
    uid: int
    pid: int
    name: str
    params: str
    outcome: str
    config_sha256: str = ""


class AlertRow(Row, frozen=True, kw_only=True, tag="alert"):
    """An alert began, changed or ended."""

    name: str
    state: str
    severity: str
    summary: str
    detail: str = ""


class NoteRow(Row, frozen=True, kw_only=True, tag="note"):
    """A line of `mmdctl events`."""

    number: int
    name: str
    detail: str = ""
    by: str = ""


KINDS: dict[str, type[Row]] = {
    "orders": OrderRow,
    "fills": FillRow,
    "states": StateRow,
    "commands": CommandRow,
    "alerts": AlertRow,
    "notes": NoteRow,
}
"""By what is asked for; `all` is all of them in the order of the journal."""


def columns(what: str) -> list[str]:
    """The header of a file; of `all`, every column of every kind once, after the one that names the kind."""
    if what != "all":
        return list(KINDS[what].__struct_fields__)
    return ["what", *dict.fromkeys(name for kind in KINDS.values() for name in kind.__struct_fields__)]


def cells(row: Row, names: list[str]) -> list[object]:
    """A row's cells under these columns; empty where it has no such column."""
    return [row.__struct_config__.tag if name == "what" else getattr(row, name, "") for name in names]


def utc(ns: int) -> str:
    """Unix nanoseconds in ISO 8601, UTC; empty for 0, which is unknown."""
    if not ns:
        return ""
    seconds, rest = divmod(ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def plain(value: Decimal) -> str:
    """Every digit, no exponent."""
    return f"{value:f}"
