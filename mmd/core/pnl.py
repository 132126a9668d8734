"""Position and profit of one symbol as a fold over its events: idempotent, exact, per settlement currency.

Two views of one profit. By average price: realised + unrealised - fees + funding - inherited.
By source: the five sums of `mmd.core.ledger`, whose identity `balanced` checks. They agree at every mark.

- A fill counts once for its trade id and side. Both sides of one id: we traded with ourselves, and
  each execution counts.
- The average depends on the order of trades, and a fill that was lost is learned after later ones: it is
  folded where it was made, and the last RECENT after it again. Only what is realised and the average move
  by that; the ledger, and profit as a whole, do not depend on the order.
- A delivery closes its lots at the last mark; an option's payment less that value is settlement, and
  realised. A future's payments are profit that its value shows already: they are remembered
  (`variation`) and are no profit again. Who knows the delivery price of a future marks at it first.
- An adoption is opening: at the reference, else at the average, else at the first price known. What
  the average price shows and we did not earn since is `inherited`.

Fees: positive paid, negative rebate. Source: units of the exchanges' amounts, docs/units.md; docs/ledger.md.
"""

from decimal import Decimal, localcontext
from enum import Enum
from string import digits as DIGITS
from typing import assert_never

import msgspec

from mmd.core.ledger import CONTEXT, ROUNDING, ZERO, Ledger, Statement, exact, gain, value
from mmd.domain.events import CashMoved, OrderFilled
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CashKind, Side

# Trade and entry ids, and orders with fills, that are remembered to recognise a repetition: more than an exchange tells
# again after a reconnection.
REMEMBERED = 4096
LABELS_REMEMBERED = 1024
# Executions that can be folded again: more than are made until one that was lost is asked for.
RECENT = 128
# The usual memory of a trade, made once: so many of their own would be most of an old position.
ONCE = {side: (side,) for side in Side}


class Fold(Enum):
    """What became of a fill."""

    COUNTED = "counted"
    LATE = "late"  # counted, before others that were counted already
    REPEATED = "repeated"
    SELF_TRADE = "self_trade"  # counted, and the same trade was counted on the other side


class Execution(msgspec.Struct, frozen=True, gc=False):
    """Signed lots that were traded at a price: when by the exchange's clock, and under which id."""

    exchange_ns: int
    trade_id: str
    lots: int
    price: Decimal

    def is_before(self, other: "Execution") -> bool:
        """Its time and its id both say so, where ids are numbers that grow, after a prefix that stays.

        Of other ids (Derive's are drawn) the time alone says it; those of one moment stay as they were told.
        """
        if self.trade_id.rstrip(DIGITS) != other.trade_id.rstrip(DIGITS):
            return self.exchange_ns < other.exchange_ns
        if self.exchange_ns > other.exchange_ns:
            return False
        return (len(self.trade_id), self.trade_id) < (len(other.trade_id), other.trade_id)


class Cost(msgspec.Struct, frozen=True, gc=False):
    """Signed lots, their average entry price, and what was realised until then."""

    lots: int = 0
    average: Decimal = ZERO
    realized: Decimal = ZERO


class Profit(msgspec.Struct, frozen=True, kw_only=True):
    """In the settlement currency. `inherited`: of what the average shows, what was not earned by us."""

    realized: float
    unrealized: float
    fees: float
    funding: float = 0.0
    inherited: float = 0.0

    @property
    def total(self) -> float:
        return self.realized + self.unrealized - self.fees + self.funding - self.inherited


class Position:
    """Signed lots, average entry price, realised profit and fees of one instrument, and its ledger."""

    __slots__ = (
        "_base",
        "_by_label",
        "_entries",
        "_recent",
        "_seen",
        "average",
        "fees",
        "fills",
        "foreign_cash",
        "foreign_fees",
        "funding",
        "inherited",
        "instrument",
        "known",
        "ledger",
        "lots",
        "realized",
        "variation",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.lots = 0
        self.average = ZERO
        self.realized = ZERO
        self.fees = ZERO
        self.funding = ZERO
        self.inherited = ZERO
        self.variation = ZERO  # what the exchange paid out of a future's value
        self.foreign_fees: dict[str, Decimal] = {}
        self.foreign_cash: dict[str, Decimal] = {}
        self.fills = 0
        self.known = False
        self.ledger = Ledger(instrument)
        self._seen: dict[str, tuple[Side, ...]] = {}
        self._entries: dict[str, None] = {}
        self._by_label: dict[str, int] = {}
        self._recent: list[Execution] = []  # in the order in which they were made
        self._base = Cost()  # before the first of them

    # --- events ----------------------------------------------------------------------------------

    def fill(self, event: OrderFilled, reference: float) -> Fold:
        """Add one execution. `reference`: our fair value or the mark in price units; not > 0 = unknown.

        Without a reference the fill's own price is one, and its spread 0. Raises ValueError where the
        price is not positive: then nothing was counted.
        """
        sides = self._seen.get(event.trade_id, ())
        if event.side in sides:
            return Fold.REPEATED
        if not event.price > 0:
            raise ValueError(f"{self.instrument.key}: trade {event.trade_id} at {event.price}, allowed: above 0")
        self._seen[event.trade_id] = (*sides, event.side) if sides else ONCE[event.side]
        _forget(self._seen, REMEMBERED)
        self.fills += 1
        self._by_label[event.label] = self._by_label.get(event.label, 0) + event.size_lots
        _forget(self._by_label, LABELS_REMEMBERED)
        signed = event.size_lots if event.side is Side.BID else -event.size_lots
        with localcontext(CONTEXT):
            fee = event.fee
            if event.fee_currency != self.instrument.settlement:
                fee = ZERO
                self.foreign_fees[event.fee_currency] = self.foreign_fees.get(event.fee_currency, ZERO) + event.fee
            self.fees += fee
            at = exact(reference) or event.price
            self._revalue(at)
            late = self._enter(Execution(event.exchange_ns, event.trade_id, signed, event.price))
            self.ledger.trade(signed, event.price, fee, at)
        if sides:
            return Fold.SELF_TRADE
        return Fold.LATE if late else Fold.COUNTED

    def cash_moved(self, event: CashMoved) -> bool:
        """Add funding, a settlement or a delivery; False if its entry id was counted before."""
        if event.entry_id in self._entries:
            return False
        self._entries[event.entry_id] = None
        _forget(self._entries, REMEMBERED)
        own = event.currency == self.instrument.settlement
        with localcontext(CONTEXT):
            if not own:
                self.foreign_cash[event.currency] = self.foreign_cash.get(event.currency, ZERO) + event.amount
            match event.kind:
                case CashKind.FUNDING:
                    amount = event.amount if own else ZERO
                    self.funding += amount
                    self.ledger.receive(amount)
                case CashKind.SETTLEMENT if own and self.instrument.is_option:
                    self._deliver(event.closed_lots, event.amount)
                case CashKind.SETTLEMENT:
                    self.variation += event.amount if own else ZERO
                    self._deliver(event.closed_lots, self._last_value(event.closed_lots))
                case _:
                    assert_never(event.kind)
        return True

    def mark(self, price: float) -> None:
        """Revalue what is held at this price (price units); nothing where it is none."""
        at = exact(price)
        if at is not None:
            with localcontext(CONTEXT):
                self._revalue(at)

    def adopt(self, lots: int, average: Decimal, reference: float = 0.0) -> None:
        """Take the exchange's count: what it holds beyond ours is opening, and no profit.

        It is taken over at the reference; without one at the average the first time and at the last
        price later; where nothing is known, at the first price that will be. `average` 0 = unknown.
        """
        with localcontext(CONTEXT):
            stated = average if average > 0 else None
            last = self.ledger.price
            at = exact(reference) or ((last or stated) if self.known else (stated or last))
            self.known = True
            if at is not None and (last is None or exact(reference) is not None):
                self._revalue(at)
            more = lots - self.lots
            entry = (stated or self.average or at or ZERO) if lots else ZERO
            if at is not None:
                before = value(self.instrument, self.lots, self.average) if self.lots else ZERO
                after = value(self.instrument, lots, entry)
                self.inherited += value(self.instrument, more, at) + before - after
            self.ledger.take(more, at)
            self.lots, self.average = lots, entry
            self.rebase()

    def rebase(self) -> None:
        """Lots, average and what is realised are taken as they are: nothing until here is folded again."""
        self._base = self._cost
        self._recent.clear()

    @property
    def refolds(self) -> bool:
        """What is remembered of its executions makes this position; False where they are no prices and sizes."""
        try:
            with localcontext(CONTEXT):
                found = self._refolded()
                off = abs(found.realized - self.realized)
                return (found.lots, found.average) == (self.lots, self.average) and off <= self.ledger.gross * ROUNDING
        except ArithmeticError:
            return False

    def seen(self, trade_id: str) -> bool:
        return trade_id in self._seen

    def filled_by(self, label: str) -> int:
        """Lots of this order's fills that are counted."""
        return self._by_label.get(label, 0)

    # --- the fold --------------------------------------------------------------------------------

    def _revalue(self, price: Decimal) -> None:
        """A position of unknown average counts from the first price that is known."""
        if self.lots and not self.average:
            self.average = price
            self.rebase()
        self.ledger.revalue(price)

    def _last_value(self, lots: int) -> Decimal:
        return ZERO if self.ledger.price is None else value(self.instrument, lots, self.ledger.price)

    def _deliver(self, closed: int, proceeds: Decimal) -> None:
        """Close at the last price; what was paid beyond the value there is realised too."""
        price = self.ledger.price
        paid = proceeds - self._last_value(closed) if price is not None or not closed else ZERO
        if not closed:
            self._base = msgspec.structs.replace(self._base, realized=self._base.realized + paid)
        elif price is not None:
            self._become(self._after(self._cost, -closed, price))
        else:
            self.lots -= closed
        self.realized += paid
        if closed:
            self.rebase()
        self.ledger.deliver(closed, proceeds)

    def _enter(self, traded: Execution) -> bool:
        """Fold an execution at the place where it was made; whether others had to be folded again after it.

        One without a time is the last, and none is folded before it any more. One that is older than all that
        are remembered goes before them, which is as near as can be known.
        """
        if not traded.exchange_ns:
            self._become(self._after(self._cost, traded.lots, traded.price))
            self.rebase()
            return False
        recent = self._recent
        place = len(recent)
        while place and traded.is_before(recent[place - 1]):
            place -= 1
        late = place < len(recent)
        recent.insert(place, traded)
        self._become(self._refolded() if late else self._after(self._cost, traded.lots, traded.price))
        if len(recent) > RECENT:
            oldest = recent.pop(0)
            self._base = self._after(self._base, oldest.lots, oldest.price)
        return late

    def _refolded(self) -> Cost:
        """What the remembered executions make of the base."""
        cost = self._base
        for traded in self._recent:
            cost = self._after(cost, traded.lots, traded.price)
        return cost

    @property
    def _cost(self) -> Cost:
        return Cost(self.lots, self.average, self.realized)

    def _become(self, cost: Cost) -> None:
        self.lots, self.average, self.realized = cost.lots, cost.average, cost.realized

    def _after(self, cost: Cost, signed: int, price: Decimal) -> Cost:
        """The cost once these lots were traded."""
        if not signed:
            return cost
        before, lots = cost.lots, cost.lots + signed
        if before == 0 or (before > 0) == (signed > 0):
            return Cost(lots, self._blend(before, cost.average, signed, price), cost.realized)
        closed = min(abs(before), abs(signed))
        realized = cost.realized + gain(self.instrument, closed if before > 0 else -closed, cost.average, price)
        if abs(signed) > abs(before):
            return Cost(lots, price, realized)
        return Cost(lots, cost.average if lots else ZERO, realized)

    def _blend(self, lots: int, average: Decimal, more: int, price: Decimal) -> Decimal:
        """Average entry: arithmetic, but harmonic where the contract pays in 1/price."""
        if not lots:
            return price
        if self.instrument.amount_is_usd:
            return (lots + more) / (lots / average + more / price)
        return (lots * average + more * price) / (lots + more)

    # --- reading ---------------------------------------------------------------------------------

    @property
    def imbalance(self) -> Decimal:
        """What the ledger's identity is off by; settlement currency."""
        return self.ledger.imbalance

    @property
    def balanced(self) -> bool:
        """The ledger's two books and this fold agree; money but for rounding at 50 digits (`ledger.ROUNDING`)."""
        return self.lots == self.ledger.holdings.lots and self.ledger.balanced

    def statement(self, mark: float) -> Statement:
        """The ledger at this mark (price units); not > 0 = unknown. Nothing changes."""
        return self.ledger.statement(exact(mark), self.fills)

    def profit(self, mark: float) -> Profit | None:
        """Profit at this mark (price unit); None where a position cannot be marked."""
        unrealized = ZERO
        at = exact(mark)
        if self.lots:
            if at is None or not self.average:
                return None
            with localcontext(CONTEXT):
                unrealized = gain(self.instrument, self.lots, self.average, at)
        return Profit(
            realized=float(self.realized),
            unrealized=float(unrealized),
            fees=float(self.fees),
            funding=float(self.funding),
            inherited=float(self.inherited),
        )

    def snapshot(self) -> dict[str, str | int | bool]:
        ours, sources = self.ledger.holdings, self.ledger.sources
        return {
            "lots": self.lots,
            "average": str(self.average),
            "realized": str(self.realized),
            "fees": str(self.fees),
            "fills": self.fills,
            "known": self.known,
            "opening": str(ours.opening),
            "cash": str(ours.cash),
            "spread": str(sources.spread),
            "inventory": str(sources.inventory),
            "funding": str(sources.funding),
            "settlement": str(sources.settlement),
        }


def _forget(memory: dict[str, tuple[Side, ...]] | dict[str, None] | dict[str, int], most: int = REMEMBERED) -> None:
    """Drop the oldest entry where there are too many."""
    if len(memory) > most:
        del memory[next(iter(memory))]


def usd_value(instrument: Instrument, amount: float, index: float) -> float | None:
    """An amount of the settlement currency in USD: stable coins count as dollars, coins at the index."""
    if instrument.settlement in ("USD", "USDC", "USDT"):
        return amount
    if amount == 0.0:
        return 0.0
    return amount * index if index > 0.0 else None
