"""The one small protocol every exchange offers to the shell, and the one the shell offers to exchanges.

An exchange never decides; it translates and keeps its links alive. Its tasks post events and
call `deliver`, which runs every machine that has mail and writes what came of it: no task hop.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.domain.actions import Request
from mmd.domain.events import CashMoved, Mail, OpenOrder
from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange can do."""

    atomic_amend: bool
    mass_quote: bool
    cancel_on_disconnect: bool
    maker_protection: bool
    rfq: bool
    client_labels: bool
    label_max: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One currency of the account, in that currency."""

    currency: str
    equity: Decimal
    balance: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal


class ProtectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange's maker protection for one underlying, as last read back.

    `frozen_until_ns`: None = not frozen, 0 = until it is reset. `checked_ns` 0 = never read.
    """

    underlying: str
    armed: bool
    detail: str
    frozen_until_ns: int | None
    checked_ns: int


class LinkStats(msgspec.Struct, kw_only=True):
    """Counters of one link, read at scrape."""

    connects: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    resyncs: int = 0
    malformed: int = 0
    unknown_labels: int = 0
    last_received_ns: int = 0
    up: bool = False


class Sink(Protocol):
    """What the shell offers an exchange."""

    def post(self, symbol: str, event: Mail) -> None:
        """Put an event into a symbol's mailbox; unknown symbols are counted and dropped."""

    def post_all(self, event: Mail) -> None:
        """Put an event into the mailbox of every symbol of this exchange."""

    async def deliver(self) -> None:
        """Let every symbol with mail decide, and write what it decided: one write per link."""

    def round_trip(self, seconds: float) -> None:
        """A request's answer took this long."""

    def report(self, name: str, detail: str) -> None:
        """Something an operator should read: connected, lost, cancelled a stray order."""


Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens the byte stream to the exchange: TCP, TLS, or memory for the in-process sandbox."""


class Exchange(Protocol):
    """One exchange as the shell sees it. Symbols are the exchange's instrument names."""

    name: str
    capabilities: Capabilities
    budget: Budget  # charged by the gate, limits set from the account by the exchange

    @property
    def stats(self) -> dict[str, LinkStats]:
        """By link name: `data`, `trade`."""

    @property
    def subscriptions(self) -> int:
        """Channels subscribed now for watched symbols."""

    @property
    def clock_skew_ms(self) -> float:
        """The exchange's clock minus ours, as its answers show; 0.0 before the first."""

    @property
    def instruments(self) -> dict[str, Instrument]:
        """What the exchange listed at the last look, by symbol."""

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links alive until cancelled. Started once instruments are known and both links are up."""

    def endure(self) -> None:
        """From now on a refused login ends `run` no more, also before the first time that both links were up."""

    def watch(self, symbols: Sequence[str]) -> None:
        """The symbols to follow from now on: subscribes and unsubscribes as needed, on running links too."""

    def known_until(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int] | None = None) -> None:
        """Before `watch`: up to when all fills of these symbols are known, Unix ms by the exchange's clock.

        `from_ms`: since when they are counted; earlier ones are in the position that was adopted then.
        Later ones are asked for, and posted before the first report of orders and position. A symbol that
        is not named starts from its first position report.
        """

    def also_ours(self, services: Sequence[str]) -> None:
        """Former names of this service, whose orders are ours as well: reported, cancelled, counted."""

    def reconcile_every(self, seconds: float) -> None:
        """How often orders and positions of every watched symbol are asked for and reported to it."""

    def protect(self, wanted: Sequence[Protection]) -> None:
        """The maker protection to hold: pushed at login and on change, read back then and every minute.

        Every symbol of these underlyings gets ProtectionReported when what stands there is known or
        changes, and ProtectionTripped when the exchange pulls our orders. ValueError where the
        exchange has no maker protection.
        """

    @property
    def protections(self) -> list[ProtectionStatus]:
        """What was last read back, one line for each underlying that is protected."""

    async def reset_protection(self, underlying: str) -> None:
        """End a freeze now. Raises what a refused or lost request raises."""

    @property
    def event_lag_seconds(self) -> float | None:
        """How far behind the exchange's event bus we are; None where there is none, inf if it cannot be told."""

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        """Encode (symbol, request) pairs onto the trading link, in order; never waits.

        A request that cannot be sent because the link is down comes back as RequestLost
        (cancel, query) or OrderRefused (place, amend).
        """

    @property
    def dirty(self) -> bool:
        """Encoded bytes wait for `flush`."""

    async def flush(self) -> None:
        """Write everything encoded so far in one send."""

    async def open_orders(self) -> dict[str, list[OpenOrder]]:
        """All open orders with our service's label, by symbol (OpenOrder); asked now."""

    async def positions(self, symbols: Sequence[str]) -> dict[str, int]:
        """What we have in these listed instruments, signed lots; asked now. Who is not in it could not be read.

        Raises as the others that ask do.
        """

    async def expired_ns(self, symbol: str) -> int | None:
        """When an instrument that is not listed any more expired; None where it lives, or never was.

        Read from its name where that says it, else asked now.
        """

    async def deliveries(self, instrument: Instrument) -> list[CashMoved]:
        """How our position in an instrument that has expired was settled, oldest first; asked now.

        Raises as the others that ask do.
        """

    async def index_price(self, index: str) -> float:
        """The index in USD (or the quote currency), asked now; ExchangeRefused for an unknown name."""

    async def accounts(self) -> list[Account]:
        """Account summary; asked now."""


# --- what a dead process has sent ---------------------------------------------------------------

# Between the exchange's clock and what the process thought it was, and for an engine's own few ms of speed bump.
MARGIN_SECONDS = 0.5
# Where orders have no time limit: 5 s is the longest that Deribit lets a request wait for its engine
# (it answers 10050 then), and as much again for the network to deliver what the dead process had sent.
UNLIMITED_SECONDS = 10.0


def settle_seconds(order_valid_ms: int | None) -> float:
    """How long after its process's death an order may still arrive at an exchange, at the most."""
    return UNLIMITED_SECONDS if order_valid_ms is None else order_valid_ms / 1000 + MARGIN_SECONDS


# --- reaping -------------------------------------------------------------------------------------


class Reaped(StrEnum):
    """What became of an order that a reaper found."""

    LEFT = "left"
    CANCELLED = "cancelled"
    GONE = "gone"  # not open any more when its cancel arrived: filled, or cancelled by somebody else


class ReapedOrder(msgspec.Struct, kw_only=True):
    """An order of ours that rested. `side` is the exchange's word."""

    order_id: str
    label: str
    symbol: str
    side: str
    outcome: Reaped = Reaped.LEFT


class Reaping(msgspec.Struct, kw_only=True):
    """What a reaper found and did up to now: true at every moment, also when its time is up.

    `before`: orders of ours at the first look; `later` those that only a later look showed. `after`: at the
    last look, None while nobody has looked since the last cancel. `proven`: a look after the worst-case
    latency showed none. `refused`: the exchange does not take the credentials.
    """

    account: str
    before: int | None = None
    later: int = 0
    after: int | None = None
    proven: bool = False
    refused: bool = False
    orders: list[ReapedOrder] = []
    errors: list[str] = []


class Reaper(Protocol):
    """Cancels what a dead daemon left at one exchange. Knows labels, and nothing of trading."""

    name: str
    network: str
    progress: Reaping

    async def reap(self, *, only_look: bool) -> None:
        """Returns once nothing of ours is proven to rest, or the credentials are refused; else it goes on trying.

        `only_look`: returns after the first look, and cancels nothing.
        """
