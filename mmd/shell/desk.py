"""What an operator can ask of the running daemon, and the shapes of the answers.

The daemon implements `Desk`; control speaks it over the socket; the shapes are the schema of
every `--json`. Prices, sizes and positions are exact decimals in the exchange's units.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec


class Caller(msgspec.Struct, frozen=True):
    """Who asks, from SO_PEERCRED."""

    uid: int
    pid: int
    name: str


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"


class SideStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Our order on one side; `price` and `size` null when nothing rests. `withheld`: why no quote is wanted."""

    price: Decimal | None
    size: Decimal | None
    phase: str
    order_id: str | None
    label: str | None
    withheld: str | None


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What shadow orders would have done, between two bounds; never part of the real figures."""

    pessimistic_position: Decimal
    optimistic_position: Decimal
    pessimistic_fills: int
    optimistic_fills: int
    pessimistic_pnl_usd: float | None
    optimistic_pnl_usd: float | None


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    exchange: str
    state: str
    shown: str  # for people: HALTED, or HALTING (3 orders) until nothing of ours rests there
    reason: str
    detail: str
    by: str
    since: float  # Unix seconds
    mode: str
    resting: int  # orders of ours that are or may be at the exchange
    open_cases: int  # differences from the exchange's books: no resume until they are closed
    bid: SideStatus
    ask: SideStatus
    market_bid: Decimal | None
    market_ask: Decimal | None
    fair: float | None
    position: Decimal
    min_position: Decimal | None
    max_position: Decimal | None
    pnl_usd: float | None
    data_age_seconds: float | None
    refusal: str | None  # the gate's last no: rule, number, limit, where the limit was written
    shadow: ShadowStatus | None  # only in shadow mode


class ExchangeStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    network: str
    data_link: bool
    trade_link: bool
    cancel_on_disconnect: bool
    subscriptions: int
    round_trip_ms: float | None
    waiting: str = ""  # why its symbols are not in service since the start; empty: they are


WAITING = "WAITING"  # shown as the state of what waits for its exchange


class WaitingLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `instruments:` whose exchange is not in service since the start. `symbol`: or what it selects."""

    symbol: str
    exchange: str
    entry: str
    reason: str


class AlertLine(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that lasts."""

    name: str
    severity: str
    exchange: str | None
    symbol: str | None
    summary: str
    detail: str
    runbook: str
    since: float  # Unix seconds


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the journal stands. `head`: the hash of the last line, which proves all lines before it."""

    head: str
    seq: int  # of the last record
    synced_seq: int  # of the last record that outlives a loss of power
    segment: int
    segment_bytes: int
    bytes_written: int  # by this process
    pending_records: int
    lost_records: int
    failing: str  # why nothing can be written; empty when all is well


class PositionLine(msgspec.Struct, frozen=True, kw_only=True):
    """`left`: why its symbol is not in service; then this is what was last known, and later fills are not in it."""

    symbol: str
    exchange: str
    position: Decimal
    average_price: Decimal | None
    mark_price: float | None
    pnl_usd: float | None
    realized_usd: float | None
    unrealized_usd: float | None
    fees_usd: float | None
    coins: float | None
    left: str = ""  # removed, stopped, not in service yet; empty: in service


class Status(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    version: str
    mode: str
    phase: str  # starting, running, stopping, stopped
    started: float
    uptime_seconds: float
    config_hash: str
    config_generation: int
    config_error: str | None  # why the file on disk was refused, if it was
    confirm_deadline: float | None  # an unconfirmed reload undoes itself then
    orders_placed: int
    orders_amended: int
    orders_cancelled: int
    orders_rejected: int
    fills: int
    pnl_usd: float | None
    day_pnl_usd: float | None  # since the day began
    drawdown_usd: float | None  # below the high-water mark
    alerts: list[AlertLine]
    exposure: dict[str, float]  # coins per underlying, sum of absolute positions
    notional_usd: float
    exchanges: list[ExchangeStatus]
    symbols: list[SymbolStatus]
    journal: JournalStatus | None = None  # none is kept
    left_behind: list[PositionLine] = []  # positions whose symbols are not in service
    waiting: list[WaitingLine] = []  # what comes into service, PAUSED, once its exchange is there
    left_out: list[str] = []  # instruments that are named and have expired: where, which, when


class CheckLine(msgspec.Struct, frozen=True):
    name: str
    ok: bool
    found: str
    wanted: str


class StepLine(msgspec.Struct, frozen=True):
    """One step of the quoting pipeline: what it took in and what it left as bid and ask (price units)."""

    step: str
    detail: str
    bid: str
    ask: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    exchange: str
    state: str
    reason: str
    detail: str
    quoting: bool
    steps: list[StepLine]
    bid: str  # the wanted quote or why it is withheld
    ask: str
    gate_bid: str  # what the gate says of it
    gate_ask: str
    checks: list[CheckLine]


class OrderLine(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    exchange: str
    side: str
    phase: str
    price: Decimal | None
    size: Decimal | None
    order_id: str | None
    label: str
    age_seconds: float
    mode: str


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's account in its settlement currency, to 50 digits, since its ledger began: docs/ledger.md.

    cash + value - opening = spread + inventory + fees + funding + settlement. `imbalance` is what that misses,
    0 while it is no more than rounding: less than 1e-40 of all that ever moved. `fees` is negative where fees
    were paid. `ledger`: real, or one of the shadow's bounds.
    """

    symbol: str
    exchange: str
    ledger: str  # real, shadow pessimistic, shadow optimistic
    currency: str
    position: Decimal
    opening: Decimal
    cash: Decimal
    value: Decimal | None  # null: no mark
    spread: Decimal
    inventory: Decimal
    fees: Decimal
    funding: Decimal
    settlement: Decimal
    imbalance: Decimal
    fills: int
    foreign_fees: dict[str, Decimal]  # paid in other currencies than the settlement's
    pnl: Decimal | None
    pnl_usd: float | None
    day_pnl_usd: float | None
    drawdown_usd: float | None


class TotalLine(msgspec.Struct, frozen=True, kw_only=True):
    """One total: what is used now, what it could become at worst, and what is allowed."""

    scope: str  # portfolio, exchange, underlying
    target: str  # its name; empty for the portfolio
    unit: str  # coins, USD, contracts, orders, USD lost, USD lost today
    used: float | None
    worst: float | None
    limit: float
    oversubscribed: float | None  # how many times the limit the symbols' own limits add up to
    key: str  # of the configuration


class SwitchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One kill switch."""

    switch: str
    scope: str
    response: str
    thresholds: list[str]  # key = value
    trips: int
    last: float | None  # Unix seconds
    last_detail: str
    tripped: list[str]  # what it holds now: symbols, exchanges
    runbook: str


class ProtectionLine(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange's own maker protection."""

    exchange: str
    underlying: str
    armed: bool
    detail: str
    frozen_until: float | None  # Unix seconds, 0 = until it is reset, null = not frozen
    checked: float | None


class FlattenPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What closing the position would cost against the book as it is now. Nothing was sent.

    `size` of `position` can be had within `limit_price`; `left` cannot. Cost: against the mid (or
    the mark), in the settlement currency, taker fee apart.
    """

    symbol: str
    exchange: str
    position: Decimal
    side: str | None  # of the closing order; null when flat
    size: Decimal
    left: Decimal
    orders: int
    average_price: Decimal | None
    worst_price: Decimal | None
    limit_price: Decimal | None
    mid: Decimal | None
    cost: Decimal | None
    fee: Decimal | None
    currency: str
    refused: str | None  # why it cannot be done now


class CaseState(StrEnum):
    """EXPLAINED: the numbers agree now; ACCEPTED: a person has taken the exchange's word."""

    OPEN = "open"
    EXPLAINED = "explained"
    ACCEPTED = "accepted"


class CaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the exchange and us. `subject`: the order's label, or empty."""

    number: int
    symbol: str
    exchange: str
    kind: str  # orders, quantities, average, position, journal
    subject: str
    ours: str
    theirs: str
    since: float  # Unix seconds
    state: CaseState
    closed: float | None  # Unix seconds; null while it is open
    by: str  # who closed it; mmd where it explained itself
    reason: str


class SymbolResult(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    outcome: Outcome
    state: str
    detail: str
    checks: list[CheckLine]


class ChangeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to pause, resume, halt, reset, shadow: one row a symbol; `outcome` is the worst of them."""

    outcome: Outcome
    detail: str
    symbols: list[SymbolResult]


class PlanLine(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: `effect` is live, requote, drain or restart."""

    path: str
    effect: str
    old: str | None
    new: str | None
    symbols: list[str]


class PlanResult(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    errors: list[str]
    lines: list[PlanLine]
    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: list[str]


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Outcome
    detail: str
    generation: int
    plan: PlanResult


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the events stream; `seq` grows by one."""

    seq: int
    time: float  # Unix seconds
    name: str
    symbol: str | None
    exchange: str | None
    detail: str
    by: str | None


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Events numbered above `above` and below `below`, from `since` to `until` (Unix seconds): the last `lines`.

    `name` and `symbol` are globs; the symbol's also matches `exchange/symbol`.
    """

    above: int = 0
    below: int | None = None
    since: float = 0.0
    until: float | None = None
    name: str = "*"
    symbol: str = "*"
    lines: int


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first. `newest`: the last number there is. `cut`: why there may be more, older ones; else empty."""

    newest: int
    events: list[EventLine]
    cut: str


class Desk(Protocol):
    """The command layer's view of the daemon. `symbols` are names, globs or `all`, matched by the daemon.

    Raises LookupError (a KeyError with the pattern) when a pattern matches nothing. Changes wait
    until they are true or `timeout_seconds` have passed. While the daemon stops they raise MmdError, but
    for `halt`, which tells what is left of our orders.
    """

    def status(self, symbols: list[str]) -> Status: ...

    def explain(self, symbols: list[str]) -> list[Explanation]: ...

    def orders(self, symbols: list[str]) -> list[OrderLine]: ...

    def positions(self, symbols: list[str]) -> list[PositionLine]:
        """Of symbols in service, then of those that left a position behind."""

    async def pause(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def resume(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def halt(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def reset(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def shadow(
        self, symbols: list[str], on: bool, reason: str, caller: Caller, timeout_seconds: float
    ) -> ChangeResult:
        """Keep the orders of these symbols to ourselves (on), or go back to the config's mode (off)."""

    def risk(self) -> list[TotalLine]:
        """Every total with its limit."""

    def ledger(self, symbols: list[str]) -> list[LedgerLine]: ...

    def switches(self) -> list[SwitchLine]: ...

    def alerts(self) -> list[AlertLine]:
        """Alerts that last, oldest first."""

    def protection(self) -> list[ProtectionLine]: ...

    async def reset_protection(self, exchange: str, underlying: str, reason: str, caller: Caller) -> ProtectionLine:
        """End a freeze of the exchange's maker protection. Raises MmdError where it cannot be done."""

    def flatten_preview(self, symbol: str, size: Decimal | None, slippage_bps: float) -> FlattenPreview:
        """Closing `size` (None = all) at no worse than `slippage_bps` from the mark. Raises LookupError."""

    async def flatten(
        self,
        symbol: str,
        size: Decimal | None,
        limit_price: Decimal,
        reason: str,
        caller: Caller,
        timeout_seconds: float,
    ) -> ChangeResult:
        """Close it with reduce-only orders that never rest; DONE once nothing is in flight any more.

        REFUSED where the gate or the state says no; the detail says what was filled and what is left.
        """

    def cases(self, symbols: list[str], closed: bool) -> list[CaseLine]:
        """Open cases by number; `closed`: the last 1,000 closed ones too. Symbols may have left the service."""

    async def accept(self, number: int, reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        """Take the exchange's word in this open case; resumes nothing. Raises MmdError where there is none."""

    async def plan(self) -> PlanResult:
        """What a reload would change; reads the files, changes nothing."""

    async def reload(self, confirm_seconds: float | None, caller: Caller) -> ReloadResult:
        """Apply the files on disk, all or nothing; undone after `confirm_seconds` unless confirmed."""

    async def confirm(self, caller: Caller) -> ReloadResult: ...

    def config(self) -> str:
        """The effective configuration as YAML, secrets masked."""

    def set_log_level(self, level: str, caller: Caller) -> str: ...

    def events_since(self, seq: int, limit: int) -> list[EventLine]:
        """Events with a number above `seq`, oldest first; the daemon keeps the last 10,000."""

    async def find_events(self, query: EventQuery) -> EventAnswer:
        """Those in memory, then those in the journal, as far as it can be read in a few seconds."""

    async def wait_event(self, seq: int) -> None:
        """Return once an event with a number above `seq` exists."""
