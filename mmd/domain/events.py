"""What happened, in the past tense. Every event a symbol's machine can see; frozen, closed, journalled as is.

Times are Unix nanoseconds: `exchange_ns` by the exchange's clock, `received_ns` by ours (0 where
unknown). Prices are base ticks of the instrument's grid, sizes are lots; both never negative.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.domain.reasons import CaseKind, CashKind, Fault, Response, Rule, Side, Switch, Why
from mmd.domain.settings import SymbolSettings

Level = tuple[int, int]
"""(price_ticks, size_lots)"""


class Event(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Root of the union; never made itself."""


# --- market data: newest wins --------------------------------------------------------------------


class BookTop(Event, frozen=True):
    """The best few levels of the exchange's book, best first, our own orders included. Sides may be empty."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int
    exchange_ns: int
    received_ns: int


class BookBroken(Event, frozen=True):
    """The book cannot be trusted until the next BookTop. `why` is one of the market-data reasons."""

    why: Why
    detail: str
    received_ns: int


class Ticker(Event, frozen=True):
    """Reference prices: `mark` in the instrument's price unit, `index` and `underlying` in USD; 0.0 where unknown.

    `min_price`, `max_price`: the exchange's price band (0.0 = none). `best_bid`, `best_ask`: the touch as
    the ticker has it (0.0 = none), to hold the book against. Model values, never money.
    """

    mark: float
    index: float
    underlying: float
    min_price: float
    max_price: float
    mark_iv: float
    delta: float
    exchange_ns: int
    received_ns: int
    best_bid: float = 0.0
    best_ask: float = 0.0


class TradePrinted(Event, frozen=True):
    """A public trade. `taker` is the aggressor's side: BID = a buyer."""

    price_ticks: int
    size_lots: int
    taker: Side
    exchange_ns: int
    received_ns: int


class InstrumentStateChanged(Event, frozen=True):
    """`tradable` False: the exchange takes no orders for it now; `terminal`: it never will again."""

    state: str
    tradable: bool
    terminal: bool
    received_ns: int


# --- the links -----------------------------------------------------------------------------------


class DataLinkUp(Event, frozen=True):
    received_ns: int


class DataLinkDown(Event, frozen=True):
    detail: str
    received_ns: int


class TradeLinkUp(Event, frozen=True):
    """Orders can be sent. `cancel_on_disconnect` was armed and read back."""

    cancel_on_disconnect: bool
    received_ns: int


class TradeLinkDown(Event, frozen=True):
    detail: str
    received_ns: int


# --- orders --------------------------------------------------------------------------------------


class OpenOrder(msgspec.Struct, frozen=True, gc=False):
    """One resting order as the exchange reports it. `remaining_lots` is what can still fill."""

    label: str
    order_id: str
    side: Side
    price_ticks: int
    remaining_lots: int
    total_lots: int


class OrderAcked(Event, frozen=True):
    """A place or an amend took effect and the order rests at this price. Amends keep `order_id`.

    `exchange_ns`: since when it rests as it does, by the exchange's clock; 0 = it does not say.
    """

    label: str
    order_id: str
    price_ticks: int
    remaining_lots: int
    total_lots: int
    received_ns: int
    exchange_ns: int = 0


class OrderRefused(Event, frozen=True):
    """A definite no to the request in flight on this label; `gone`: the order is no longer open there."""

    label: str
    fault: Fault
    code: str
    detail: str
    gone: bool
    received_ns: int


class OrderClosed(Event, frozen=True):
    """The exchange says this order is no longer open, whatever the cause. `filled_lots` in total.

    `exchange_ns`: since when, by its clock; 0 = it does not say.
    """

    label: str
    order_id: str
    cause: str
    filled_lots: int
    received_ns: int
    exchange_ns: int = 0


class OrderAbsent(Event, frozen=True):
    """Answer to QueryOrder: no open order with this label, and no trade of it that was not reported before."""

    label: str
    received_ns: int


class RequestLost(Event, frozen=True):
    """The request on this label may or may not have had its effect (link lost, ambiguous error)."""

    label: str
    detail: str
    received_ns: int


class OrderFilled(Event, frozen=True):
    """One execution of ours. `trade_id` is unique per instrument: the fold over fills is idempotent.

    `fee` in `fee_currency`, positive = paid, negative = rebate.
    """

    label: str
    order_id: str
    trade_id: str
    side: Side
    price: Decimal
    size_lots: int
    fee: Decimal
    fee_currency: str
    maker: bool
    index: float
    exchange_ns: int
    received_ns: int


class OrdersReported(Event, frozen=True):
    """All open orders that carry our service's label on this instrument, asked after the link came up."""

    orders: tuple[OpenOrder, ...]
    received_ns: int


class PositionReported(Event, frozen=True):
    """The exchange's own count: signed lots; average price in price units (0 when flat).

    `profit`: what it says that the position has earned since it was opened, settlement currency, at its
    `mark` (price units); None and 0.0 where it does not say. `exchange_ns`: when it counted, by its clock; 0 = unknown.
    """

    position_lots: int
    average_price: Decimal
    received_ns: int
    mark: float = 0.0
    profit: Decimal | None = None
    exchange_ns: int = 0


class CashMoved(Event, frozen=True):
    """Funding or settlement of our position. `entry_id` is unique per instrument: counted once.

    `amount` in `currency`, positive = received. `closed_lots`: the signed position that a delivery
    ended (0 for anything else); it is gone with this event.
    """

    entry_id: str
    kind: CashKind
    amount: Decimal
    currency: str
    closed_lots: int
    exchange_ns: int
    received_ns: int


class ProtectionReported(Event, frozen=True):
    """Whether the exchange's maker protection stands as configured, read back from it."""

    armed: bool
    detail: str
    received_ns: int


class ProtectionTripped(Event, frozen=True):
    """The exchange's maker protection pulled our orders; `until_ns` 0 = until it is reset."""

    detail: str
    until_ns: int
    received_ns: int


class Bound(StrEnum):
    """Between which the truth of a shadow fill lies."""

    PESSIMISTIC = "pessimistic"
    OPTIMISTIC = "optimistic"


class ShadowFilled(Event, frozen=True):
    """An imagined order would have filled, by the queue model. Never mixed with fills of the exchange.

    The pessimistic bound moves the imagined order; the optimistic one is only counted.
    """

    label: str
    bound: Bound
    side: Side
    price: Decimal
    size_lots: int
    number: int
    received_ns: int


# --- the house -----------------------------------------------------------------------------------


class GateRefused(Event, frozen=True):
    """The gate let an action not pass."""

    label: str
    side: Side
    rule: Rule
    number: str
    limit: str
    key: str
    received_ns: int


class TimerFired(Event, frozen=True):
    received_ns: int


class BoundsSet(Event, frozen=True):
    """Position bounds from the portfolio machine, signed lots, min <= 0 <= max. Answered by BoundsAcked."""

    version: int
    min_lots: int
    max_lots: int
    received_ns: int


class SettingsChanged(Event, frozen=True):
    settings: SymbolSettings
    received_ns: int


class ResumeRequested(Event, frozen=True):
    request_id: int
    by: str
    reason: str
    received_ns: int


class PauseRequested(Event, frozen=True):
    request_id: int
    by: str
    reason: str
    received_ns: int


class HaltRequested(Event, frozen=True):
    """An operator's halt or a kill switch; `why` names which."""

    request_id: int
    why: Why
    by: str
    reason: str
    received_ns: int


class ResetRequested(Event, frozen=True):
    request_id: int
    by: str
    reason: str
    received_ns: int


class SwitchTripped(Event, frozen=True):
    """A kill switch of the exchange or of the whole portfolio, which this symbol is in the scope of."""

    switch: Switch
    response: Response
    detail: str
    received_ns: int


class SwitchCleared(Event, frozen=True):
    """What tripped this switch is over: it no longer stands in the way of a resume."""

    switch: Switch
    received_ns: int


class FlattenRequested(Event, frozen=True):
    """Close at most `lots` of the position, at no worse a price than `limit_ticks`."""

    request_id: int
    by: str
    reason: str
    lots: int
    limit_ticks: int
    received_ns: int


class JournalDoubted(Event, frozen=True):
    """What the last process did with this symbol could not be read back from the journal whole."""

    detail: str
    received_ns: int


class CaseAccepted(Event, frozen=True):
    """An operator takes the exchange's word in this case; `subject` is the order's label, or empty."""

    request_id: int
    case: CaseKind
    subject: str
    by: str
    reason: str
    received_ns: int


class RemovalRequested(Event, frozen=True):
    """The symbol left the config, or the service stops: drain, then be gone."""

    why: Why
    received_ns: int


Mail = (
    BookTop
    | BookBroken
    | Ticker
    | TradePrinted
    | InstrumentStateChanged
    | DataLinkUp
    | DataLinkDown
    | TradeLinkUp
    | TradeLinkDown
    | OrderAcked
    | OrderRefused
    | OrderClosed
    | OrderAbsent
    | RequestLost
    | OrderFilled
    | OrdersReported
    | PositionReported
    | CashMoved
    | ProtectionReported
    | ProtectionTripped
    | ShadowFilled
    | GateRefused
    | TimerFired
    | BoundsSet
    | SettingsChanged
    | ResumeRequested
    | PauseRequested
    | HaltRequested
    | ResetRequested
    | SwitchTripped
    | SwitchCleared
    | FlattenRequested
    | JournalDoubted
    | CaseAccepted
    | RemovalRequested
)
