"""The ledger of one instrument: two books that never read each other and must agree after every event.

What is there (`Holdings`) = where it came from (`Sources`), in the settlement currency, exact:

    cash + marked position - opening = spread + inventory + fees + funding + settlement

- cash: what came in less what was paid, fees included. A fill of signed amount a at price p costs its
  value at p. Futures cost nothing when traded: their cash is notional, and so is their value.
- value of a signed amount a at price p: a*p, but -a/p (coins) where the amount is in USD and paid in coin.
- opening: the value of what was held before we counted, at the price where it was taken over.
- spread: value at the reference less cost, of every fill; the reference is our fair value or the
  mark at that moment. What the fill earned against our own opinion.
- inventory: change of the value of what was held, from reference to reference.
- fees: negative when paid, positive when received. In other currencies: kept apart, see `mmd.core.pnl`.
- funding: as received. settlement: what a delivery paid less the value at the last mark.

Decimal with 50 digits; a float price enters through its shortest text. Source: docs/ledger.md.
"""

import math
from decimal import Context, Decimal, localcontext

import msgspec

from mmd.domain.instruments import Instrument

ZERO = Decimal(0)
CONTEXT = Context(prec=50)
# The two books may differ by rounding: each sum is right to 50 digits of the money that ever moved.
ROUNDING = Decimal("1e-40")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at one mark, in `currency`. `value` None: a position is held and there is no mark.

    `imbalance` is what the identity is off by: 0, or rounding far below any unit of money.
    """

    currency: str
    opening: Decimal
    cash: Decimal
    value: Decimal | None
    spread: Decimal
    inventory: Decimal
    fees: Decimal
    funding: Decimal
    settlement: Decimal
    imbalance: Decimal
    fills: int

    @property
    def total(self) -> Decimal:
        """Profit by its sources."""
        return total(self.spread, self.inventory, self.fees, self.funding, self.settlement)


def total(*amounts: Decimal) -> Decimal:
    """The sum to 50 digits, whatever the caller's context."""
    with localcontext(CONTEXT):
        return sum(amounts, ZERO)


def value(instrument: Instrument, lots: int, price: Decimal) -> Decimal:
    """Value of signed lots at a price > 0, settlement currency."""
    if not lots:
        return ZERO
    amount = instrument.lot * lots
    return -amount / price if instrument.amount_is_usd else amount * price


def gain(instrument: Instrument, lots: int, entry: Decimal, leave: Decimal) -> Decimal:
    """Profit of signed lots from one price to another, both > 0; settlement currency."""
    if not lots:
        return ZERO
    amount = instrument.lot * lots
    return amount * (1 / entry - 1 / leave) if instrument.amount_is_usd else amount * (leave - entry)


def exact(price: float) -> Decimal | None:
    """A model's price as money; None where it is none (0, negative, not finite)."""
    return Decimal(repr(price)) if 0.0 < price < math.inf else None


class Holdings:
    """What is there: cash, and the position at the last price. Knows nothing of where profit comes from."""

    __slots__ = ("_instrument", "cash", "lots", "opening", "price")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.cash = ZERO
        self.opening = ZERO
        self.lots = 0
        self.price: Decimal | None = None

    def revalue(self, price: Decimal) -> None:
        """The first price that is known gives what was held until then its opening value."""
        if self.price is None:
            self.opening += value(self._instrument, self.lots, price)
        self.price = price

    def take(self, lots: int, price: Decimal | None) -> None:
        if price is not None:
            self.opening += value(self._instrument, lots, price)
        self.lots += lots

    def trade(self, lots: int, price: Decimal, fee: Decimal) -> None:
        self.cash -= value(self._instrument, lots, price)
        self.cash -= fee
        self.lots += lots

    def receive(self, amount: Decimal) -> None:
        self.cash += amount

    def deliver(self, lots: int, proceeds: Decimal) -> None:
        if self.price is None and lots:  # never valued: worth what it paid
            self.opening += proceeds
        self.cash += proceeds
        self.lots -= lots

    def value(self) -> Decimal:
        return ZERO if self.price is None else value(self._instrument, self.lots, self.price)

    def worth(self) -> Decimal:
        """cash + marked position - opening."""
        with localcontext(CONTEXT):
            return self.cash + self.value() - self.opening


class Sources:
    """Where profit came from. Knows nothing of cash; counts its own lots and remembers its own price."""

    __slots__ = ("_instrument", "fees", "funding", "inventory", "lots", "price", "settlement", "spread")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.spread = ZERO
        self.inventory = ZERO
        self.fees = ZERO
        self.funding = ZERO
        self.settlement = ZERO
        self.lots = 0
        self.price: Decimal | None = None

    def revalue(self, price: Decimal) -> Decimal:
        """Returns what it changed."""
        moved = ZERO if self.price is None else gain(self._instrument, self.lots, self.price, price)
        self.inventory += moved
        self.price = price
        return moved

    def take(self, lots: int, price: Decimal | None) -> None:
        """Lots taken over at another price than the last are carried to the last."""
        if price is not None and self.price is not None:
            self.inventory += gain(self._instrument, lots, price, self.price)
        self.lots += lots

    def trade(self, lots: int, price: Decimal, fee: Decimal) -> None:
        """After `revalue` at the reference."""
        assert self.price is not None, "a fill needs a reference"
        self.spread += gain(self._instrument, lots, price, self.price)
        self.fees -= fee
        self.lots += lots

    def receive(self, amount: Decimal) -> None:
        self.funding += amount

    def deliver(self, lots: int, proceeds: Decimal) -> None:
        if self.price is not None:
            self.settlement += proceeds - value(self._instrument, lots, self.price)
        elif not lots:
            self.settlement += proceeds
        self.lots -= lots

    def total(self) -> Decimal:
        return total(self.spread, self.inventory, self.fees, self.funding, self.settlement)


class Ledger:
    """Tells both books the same and compares them. Call within `localcontext(CONTEXT)`, but for reading."""

    __slots__ = ("_instrument", "gross", "holdings", "sources")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.holdings = Holdings(instrument)
        self.sources = Sources(instrument)
        self.gross = ZERO  # of all that moved, unsigned: the measure of rounding

    @property
    def price(self) -> Decimal | None:
        """The last price at which the position was valued."""
        return self.sources.price

    def revalue(self, price: Decimal) -> None:
        if self.price is None:
            self.gross += abs(value(self._instrument, self.sources.lots, price))
        self.gross += abs(self.sources.revalue(price))
        self.holdings.revalue(price)

    def take(self, lots: int, price: Decimal | None) -> None:
        """Lots that somebody else counted, at this price; None = at the first price that will be known.

        None is only for a position that was never valued.
        """
        assert (price is None) == (self.price is None), (
            "an unknown price is for what was never valued, and only for that"
        )
        if price is not None and self.price is not None:
            self.gross += abs(value(self._instrument, lots, price)) + abs(value(self._instrument, lots, self.price))
        self.holdings.take(lots, price)
        self.sources.take(lots, price)

    def trade(self, lots: int, price: Decimal, fee: Decimal, reference: Decimal) -> None:
        self.revalue(reference)
        self.gross += abs(value(self._instrument, lots, price)) + abs(value(self._instrument, lots, reference))
        self.gross += abs(fee)
        self.holdings.trade(lots, price, fee)
        self.sources.trade(lots, price, fee)

    def receive(self, amount: Decimal) -> None:
        """Funding."""
        self.gross += abs(amount)
        self.holdings.receive(amount)
        self.sources.receive(amount)

    def deliver(self, lots: int, proceeds: Decimal) -> None:
        """These lots are gone for this money."""
        self.gross += abs(proceeds)
        self.holdings.deliver(lots, proceeds)
        self.sources.deliver(lots, proceeds)

    @property
    def imbalance(self) -> Decimal:
        """What the identity is off by, at the last price."""
        with localcontext(CONTEXT):
            return self.holdings.worth() - self.sources.total()

    @property
    def balanced(self) -> bool:
        """The books agree: the same lots at the same price, and the same profit but for rounding."""
        ours, theirs = self.holdings, self.sources
        if ours.lots != theirs.lots or ours.price != theirs.price:
            return False
        return abs(self.imbalance) <= CONTEXT.multiply(self.gross, ROUNDING)

    def statement(self, mark: Decimal | None, fills: int) -> Statement:
        """The ledger as it would be at this mark; nothing changes. None: at the last price, position not valued."""
        ours, theirs = self.holdings, self.sources
        with localcontext(CONTEXT):
            opening, inventory = ours.opening, theirs.inventory
            worth: Decimal | None = ours.value()
            imbalance = ours.worth() - theirs.total()
            if ours.lots and mark is None:
                worth = None
            elif mark is not None:
                worth = value(self._instrument, ours.lots, mark)
                if ours.price is None:
                    opening += worth
                if theirs.price is not None:
                    inventory += gain(self._instrument, theirs.lots, theirs.price, mark)
                sources = total(theirs.spread, inventory, theirs.fees, theirs.funding, theirs.settlement)
                imbalance = ours.cash + worth - opening - sources
        return Statement(
            currency=self._instrument.settlement,
            opening=opening,
            cash=ours.cash,
            value=worth,
            spread=theirs.spread,
            inventory=inventory,
            fees=theirs.fees,
            funding=theirs.funding,
            settlement=theirs.settlement,
            imbalance=imbalance,
            fills=fills,
        )
