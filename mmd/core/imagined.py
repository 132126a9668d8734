"""The shadow's own ledgers: what imagined orders would have done, one position for each bound of the queue model.

They start at nothing and never touch the real position. Both bounds are bounds on fills, not on
profit: who fills more may earn less.

Fees are assumed: every fill is a maker's, at the instrument's own maker rate, without discounts.
Options: min(rate, 0.125 x price) x amount in coin, or min(rate x index, 0.125 x price) x amount in
dollars; inverse futures: rate x amount / price in coin; linear futures: rate x amount x price.
Source: Deribit's fee page (rates per instrument, cap 12.5 % of the option's price).
"""

from decimal import Decimal

from mmd.core.pnl import Fold, Position
from mmd.domain.events import Bound, OrderFilled, ShadowFilled
from mmd.domain.instruments import Contract, Instrument

OPTION_FEE_CAP = Decimal("0.125")  # of the option's price
PREFIX = "shadow-"


def shadow_order_id(label: str) -> str:
    """The order id of an imagined order: no exchange's looks like it."""
    return f"{PREFIX}{label.removeprefix('mmd-')}"


def maker_fee(instrument: Instrument, price: Decimal, size_lots: int, index: float = 0.0) -> Decimal:
    """Fee of a maker's fill at a price > 0, settlement currency; negative = rebate.

    `index` in USD is needed for linear options only; where it is not > 0 they are charged the cap,
    which is the most it can be.
    """
    rate, amount = instrument.maker_fee, instrument.amount(size_lots)
    if instrument.is_option:
        cap = OPTION_FEE_CAP * price
        if instrument.contract is Contract.INVERSE:
            return min(rate, cap) * amount
        if rate > 0 and not index > 0.0:
            return cap * amount
        return min(rate * Decimal(repr(index)), cap) * amount
    return rate * amount / price if instrument.amount_is_usd else rate * amount * price


class Imagined:
    """Two positions of one instrument. Every use is by name of its bound, so that they are never mixed."""

    __slots__ = ("instrument", "optimistic", "pessimistic")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.reset()

    def reset(self) -> None:
        """Both start at nothing again."""
        self.pessimistic = Position(self.instrument)
        self.optimistic = Position(self.instrument)
        for position in (self.pessimistic, self.optimistic):
            position.adopt(0, Decimal(0))

    def of(self, bound: Bound) -> Position:
        return self.pessimistic if bound is Bound.PESSIMISTIC else self.optimistic

    def fill(self, event: ShadowFilled, reference: float, index: float = 0.0) -> Fold:
        """Count an imagined fill in its bound's ledger, each number once.

        `reference`: fair value or mark in price units, `index` in USD; not > 0 = unknown. Raises
        ValueError where the price is not positive.
        """
        return self.of(event.bound).fill(self.as_fill(event, index), reference)

    def as_fill(self, event: ShadowFilled, index: float = 0.0) -> OrderFilled:
        """The fill as an exchange would have told it: maker, with the assumed fee."""
        fee = maker_fee(self.instrument, event.price, event.size_lots, index) if event.price > 0 else Decimal(0)
        return OrderFilled(
            label=event.label,
            order_id=shadow_order_id(event.label),
            trade_id=f"{PREFIX}{event.number}",
            side=event.side,
            price=event.price,
            size_lots=event.size_lots,
            fee=fee,
            fee_currency=self.instrument.settlement,
            maker=True,
            index=index,
            exchange_ns=0,
            received_ns=event.received_ns,
        )

    def mark(self, price: float) -> None:
        """Revalue both at this price (price units); nothing where it is none."""
        self.pessimistic.mark(price)
        self.optimistic.mark(price)

    def snapshot(self) -> dict[str, dict[str, str | int | bool]]:
        """Both, by bound."""
        return {bound.value: self.of(bound).snapshot() for bound in Bound}
