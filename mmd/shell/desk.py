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


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    exchange: str
    state: str
    reason: str
    detail: str
    by: str
    since: float  # Unix seconds
    mode: str
    resting: int  # orders of ours that are or may be at the exchange
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


class ExchangeStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    network: str
    data_link: bool
    trade_link: bool
    cancel_on_disconnect: bool
    subscriptions: int
    round_trip_ms: float | None


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
    exposure: dict[str, float]  # coins per underlying, sum of absolute positions
    notional_usd: float
    exchanges: list[ExchangeStatus]
    symbols: list[SymbolStatus]


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


class PositionLine(msgspec.Struct, frozen=True, kw_only=True):
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


class Desk(Protocol):
    """The command layer's view of the daemon. `symbols` are names, globs or `all`, matched by the daemon.

    Raises LookupError (a KeyError with the pattern) when a pattern matches nothing. Changes wait
    until they are true or `timeout_seconds` have passed.
    """

    def status(self, symbols: list[str]) -> Status: ...

    def explain(self, symbols: list[str]) -> list[Explanation]: ...

    def orders(self, symbols: list[str]) -> list[OrderLine]: ...

    def positions(self, symbols: list[str]) -> list[PositionLine]: ...

    async def pause(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def resume(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def halt(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def reset(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult: ...

    async def shadow(
        self, symbols: list[str], on: bool, reason: str, caller: Caller, timeout_seconds: float
    ) -> ChangeResult:
        """Keep the orders of these symbols to ourselves (on), or go back to the config's mode (off)."""

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

    async def wait_event(self, seq: int) -> None:
        """Return once an event with a number above `seq` exists."""
