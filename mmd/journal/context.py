"""What an export must remember of the journal before a record to say in human units what it means. Bounded.

Positions are counted as the daemon counts them: adopted from the exchange's first report, then a fold over
executions and deliveries, adopted anew where an operator took the exchange's number.
"""

from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec

from mmd.domain.events import Bound, CashMoved, OrderFilled, PositionReported
from mmd.domain.instruments import Contract, Instrument
from mmd.domain.reasons import Side
from mmd.domain.units import Grid
from mmd.journal.rows import plain

IMAGINED = "shadow-"  # begins the order ids of imagined orders
ORDERS_KEPT = 256  # of a symbol: two rest, some are over and may be heard of again
TOLD_KEPT = 200_000  # executions and cash entries that are recognised when they are told again
T = TypeVar("T")


class Order(msgspec.Struct, frozen=True):
    """What is known of one label. 0: not known. `stands`: (price_ticks, total lots) that was acknowledged."""

    side: Side
    price_ticks: int
    total_lots: int
    stands: tuple[int, int] = (0, 0)
    shadow: bool = False
    filled_lots: int = 0
    over: bool = False
    kind: str = ""
    authorised_by: str = ""


class Inherited(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of a symbol. `lots` None: its position was not known. `told`: executions, oldest first."""

    instrument: Instrument
    lots: int | None
    pessimistic_lots: int
    optimistic_lots: int
    resumed_by: str
    orders: dict[str, Order]
    told: tuple[tuple[str, Side], ...]


Peek = Callable[[bytes], Inherited | None]
"""Reads the state of a snapshot; None where it cannot, or where it is not of a symbol."""
AssumedFee = Callable[[Instrument, Decimal, int, float], Decimal]
"""Of an imagined fill: instrument, price, lots, index in USD; settlement currency."""


class Recent(Generic[T]):
    """The last so many distinct values."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[T, None] = OrderedDict()

    def add(self, value: T) -> bool:
        """False if it was there already."""
        if value in self._values:
            self._values.move_to_end(value)
            return False
        self._values[value] = None
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return True


class Symbol:
    """One symbol: its instrument, positions, orders, and who is behind what it does."""

    def __init__(self, key: str, instrument: Instrument | None) -> None:
        self.key = key
        self.exchange, _, self.name = key.partition("/")
        self.instrument = instrument
        self.begun = False  # what is known here is known from its beginning, or from a snapshot
        self.lots: int | None = None
        self.drift = 0  # what the exchange reported last, less what was counted then
        self.imagined = dict.fromkeys(Bound, 0)
        self.index = 0.0
        self.resumed_by = ""
        self.closing_by = ""
        self.orders: OrderedDict[str, Order] = OrderedDict()

    def take_over(self, found: Inherited) -> None:
        """What a snapshot knows, where nothing is known here."""
        self.instrument = found.instrument
        self.begun = True
        self.lots = found.lots
        self.imagined = {Bound.PESSIMISTIC: found.pessimistic_lots, Bound.OPTIMISTIC: found.optimistic_lots}
        self.resumed_by = found.resumed_by
        for label, order in found.orders.items():
            self.remember(label, order)

    def remember(self, label: str, order: Order) -> None:
        self.orders[label] = order
        self.orders.move_to_end(label)
        if len(self.orders) > ORDERS_KEPT:
            self.orders.popitem(last=False)

    # --- positions -------------------------------------------------------------------------------

    def filled(self, event: OrderFilled) -> None:
        if self.lots is not None:
            self.lots += event.size_lots if event.side is Side.BID else -event.size_lots

    def imagined_fill(self, bound: Bound, side: Side, lots: int) -> int:
        self.imagined[bound] += lots if side is Side.BID else -lots
        return self.imagined[bound]

    def delivered(self, event: CashMoved) -> None:
        if self.lots is not None:
            self.lots -= event.closed_lots

    def reported(self, event: PositionReported) -> None:
        if self.lots is None:
            self.lots = event.position_lots
        self.drift = event.position_lots - self.lots

    def adopt(self) -> None:
        """An operator takes the exchange's number."""
        if self.lots is not None:
            self.lots += self.drift
            self.drift = 0

    # --- human units -----------------------------------------------------------------------------

    @property
    def units(self) -> tuple[str, str]:
        """Of a price and of a size; empty where the instrument is not known."""
        found = self.instrument
        if found is None:
            return "", ""
        price = found.base if found.is_option and found.contract is Contract.INVERSE else found.quote
        return price, "USD" if found.amount_is_usd else found.base

    def price(self, ticks: int) -> str:
        grid: Grid | None = self.instrument.grid if self.instrument else None
        return plain(grid.price(ticks)) if grid is not None and ticks else ""

    def size(self, lots: int | None) -> str:
        return "" if lots is None or self.instrument is None else self.instrument.amount_text(lots)
