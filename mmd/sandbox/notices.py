"""What the engine tells the world after an operation: frozen values, in the order they happened."""

from decimal import Decimal

import msgspec

from mmd.sandbox.book import BookChanged
from mmd.sandbox.model import InstrumentState, SandboxInstrument
from mmd.sandbox.orders import Order, UserTrade
from mmd.sandbox.tape import Print


class TradesPrinted(msgspec.Struct, frozen=True):
    instrument_name: str
    prints: tuple[Print, ...]


class AccountChanged(msgspec.Struct, frozen=True):
    """What one operation did to one account on one instrument; orders as they stand after it."""

    account: str
    instrument_name: str
    orders: tuple[Order, ...]
    trades: tuple[UserTrade, ...]
    position_changed: bool


class CashChanged(msgspec.Struct, frozen=True):
    """Money came or went without a trade: a settlement, or funding."""

    account: str


class TopChanged(msgspec.Struct, frozen=True):
    """The best bid or ask, or its size, is another."""

    instrument_name: str


class ReferenceChanged(msgspec.Struct, frozen=True):
    instrument_name: str


class IndexChanged(msgspec.Struct, frozen=True):
    index_name: str
    price: Decimal
    timestamp: int


class StateChanged(msgspec.Struct, frozen=True):
    instrument_name: str
    state: InstrumentState
    timestamp: int


class InstrumentCreated(msgspec.Struct, frozen=True):
    instrument: SandboxInstrument


class ProtectionTriggered(msgspec.Struct, frozen=True):
    """`frozen_until` in ms, 0 = until reset."""

    account: str
    index_name: str
    frozen_until: int


Notice = (
    BookChanged
    | TopChanged
    | TradesPrinted
    | AccountChanged
    | CashChanged
    | ReferenceChanged
    | IndexChanged
    | StateChanged
    | InstrumentCreated
    | ProtectionTriggered
)
