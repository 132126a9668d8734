"""Values of the exchange in a box: instruments, references, orders, trades; and what a market may do to it.

Prices and amounts are Decimal in the exchange's own units; times are Unix milliseconds by the
sandbox's clock, passed in. Bids are `Direction.BUY`.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec


class Direction(StrEnum):
    BUY = "buy"
    SELL = "sell"


class InstrumentState(StrEnum):
    """Deribit's vocabulary since January 2026."""

    OPEN = "open"
    LOCKED = "locked"
    SETTLEMENT = "settlement"
    DELIVERED = "delivered"
    INACTIVE = "inactive"
    HALTED = "halted"
    ARCHIVIZED = "archivized"


class TickStep(msgspec.Struct, frozen=True):
    above_price: Decimal
    tick_size: Decimal


class SandboxInstrument(msgspec.Struct, frozen=True, kw_only=True):
    """One listed instrument; field names and units as in Deribit's `public/get_instruments`."""

    instrument_name: str
    instrument_id: int
    kind: str  # "future" (perpetuals too) or "option"
    instrument_type: str  # "reversed" or "linear"
    base_currency: str
    quote_currency: str
    counter_currency: str
    settlement_currency: str
    settlement_period: str
    price_index: str
    tick_size: Decimal
    tick_size_steps: tuple[TickStep, ...] = ()
    min_trade_amount: Decimal
    contract_size: Decimal
    maker_commission: Decimal
    taker_commission: Decimal
    creation_timestamp: int
    expiration_timestamp: int
    strike: Decimal | None = None
    option_type: str | None = None  # "call" or "put"
    max_leverage: int | None = None
    max_trade_amount: Decimal | None = None
    base_fee: Decimal = Decimal(0)  # of a taker, besides the rate
    fee_on_index: bool = False  # futures: the rate is of the index, not of the price

    @property
    def is_perpetual(self) -> bool:
        return self.settlement_period == "perpetual"


class Greeks(msgspec.Struct, frozen=True):
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What the exchange says of an instrument besides its book; mark in its price unit, index and underlying in USD.

    Volatilities in percent, options only. Rates as fractions, perpetuals only.
    """

    mark_price: Decimal
    index_price: Decimal
    min_price: Decimal
    max_price: Decimal
    underlying_price: Decimal | None = None
    underlying_index: str | None = None
    mark_iv: float | None = None
    greeks: Greeks | None = None
    current_funding: float | None = None
    funding_8h: float | None = None


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One execution as the public sees it; `direction` is the taker's side."""

    trade_id: str
    trade_seq: int
    instrument_name: str
    timestamp: int
    direction: Direction
    price: Decimal
    amount: Decimal
    maker_is_account: bool
    taker_is_account: bool


class Venue(Protocol):
    """What a market (recorded feed or generator) may do to the engine. Anonymous liquidity only.

    Anonymous size at a price stands before the accounts' orders that came later at that price.
    Setting anonymous size at a price that crosses an account's resting order trades with it
    first, at the resting price; what is left rests.
    """

    def instrument(self, name: str) -> SandboxInstrument: ...

    def set_levels(
        self, name: str, bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal], now_ms: int, *, snapshot: bool
    ) -> list[Trade]:
        """Set the anonymous amount at each price (0 removes); `snapshot`: prices not named go to 0."""

    def take(self, name: str, direction: Direction, amount: Decimal, limit: Decimal, now_ms: int) -> list[Trade]:
        """An anonymous taker (immediate or cancel) against anonymous and account orders."""

    def anonymous_levels(self, name: str) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        """Anonymous bids and asks now."""

    def touch(self, name: str) -> tuple[Decimal | None, Decimal | None]:
        """Best bid and ask of everybody."""

    def set_reference(self, name: str, reference: Reference, now_ms: int) -> None:
        """New reference prices; the ticker channel shows them at its next turn."""

    def set_index(self, index_name: str, price: Decimal, now_ms: int) -> None: ...

    def set_state(self, name: str, state: InstrumentState, now_ms: int) -> None: ...

    def deliver(self, name: str, delivery_price: Decimal, now_ms: int) -> None:
        """Expiry: cancel all orders, settle all positions in cash, state `delivered`."""


class Market(Protocol):
    """A source of life for the engine. Only instruments somebody looks at (`wanted`) need be alive."""

    def instruments(self) -> list[SandboxInstrument]: ...

    def start(self, venue: Venue, now_ms: int) -> None:
        """Seed index prices and references of everything, books of nothing."""

    def want(self, name: str, now_ms: int) -> None:
        """Somebody subscribed to or asked for this instrument: bring its book to life, at once, and keep it alive."""

    def step(self, now_ms: int) -> int:
        """Let the market live up to now; returns the time (ms) of its next event."""
