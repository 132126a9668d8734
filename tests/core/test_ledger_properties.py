"""The ledger under random histories: it balances after every event, and agrees with exact fractions."""

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from core_kit import ASK, BID, INVERSE, LINEAR, OPTION, PLAIN, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import delivery, funding, trade

from mmd.core.ledger import CONTEXT
from mmd.core.pnl import Fold, Position
from mmd.domain.events import CashMoved, OrderFilled
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.reasons import CashKind

FUTURE = changed(INVERSE, kind=Kind.FUTURE, symbol="BTC-29DEC23")
INSTRUMENTS = (LINEAR, PLAIN, INVERSE, OPTION, FUTURE)
CLOSE = Decimal("1e-35")  # of what moved: rounding of hundreds of steps at 50 digits


class Marked(msgspec.Struct, frozen=True):
    price: float


class Adopted(msgspec.Struct, frozen=True):
    lots: int
    average: Decimal
    reference: float


class Filled(msgspec.Struct, frozen=True):
    event: OrderFilled
    reference: float


Step = Marked | Adopted | Filled | CashMoved

prices = st.integers(1, 99_999_999).map(lambda n: Decimal(n) / 1000)
marks = st.one_of(
    st.floats(1e-4, 1e6, allow_nan=False), prices.map(float), st.sampled_from([0.0, -1.0, float("nan"), float("inf")])
)
lots = st.integers(-5000, 5000)
sizes = st.integers(1, 5000)
fees = st.integers(-1000, 1000).map(lambda n: Decimal(n) / 100_000)


@st.composite
def histories(draw: st.DrawFn, instrument: Instrument, *, most: int = 25) -> list[Step]:
    """Distinct ids, but for fills whose other side is told under the same id; some fills are told late."""
    steps: list[Step] = []
    held = 0
    for n in range(draw(st.integers(1, most))):
        match draw(st.sampled_from("ffffmmmcdawx")):
            case "f":
                size = draw(sizes) * draw(st.sampled_from((1, -1)))
                event = trade(instrument, f"t{n}", size, str(draw(prices)), str(draw(fees)))
                early = draw(st.sampled_from((0, 0, 3, 9)))
                if early:  # by time and number some of those before it were made after it
                    event = changed(event, trade_id=f"t{100 + n - early}-{10 + n}", exchange_ns=max(1, 50 + n - early))
                steps.append(Filled(event, draw(marks)))
                held += size
            case "m":
                steps.append(Marked(draw(marks)))
            case "c":
                steps.append(funding(instrument, f"e{n}", str(draw(fees))))
            case "d":
                closed = draw(st.sampled_from((held, held, held // 2, 0, held + 7)))
                steps.append(delivery(instrument, f"e{n}", str(draw(fees) * abs(closed)), closed))
                held -= closed
            case "a":
                held = draw(st.one_of(lots, st.just(0)))
                steps.append(Adopted(held, draw(st.one_of(prices, st.just(Decimal(0)))), draw(marks)))
            case "w":
                event = trade(instrument, f"t{n}", draw(sizes), str(draw(prices)), str(draw(fees)), "XYZ")
                steps.append(Filled(event, draw(marks)))
                held += event.size_lots
            case "x":
                told = [step for step in steps if isinstance(step, Filled) and step.event.trade_id[0] == "t"]
                if told:
                    first = told[draw(st.integers(0, len(told) - 1))]
                    other = mirrored(first.event)
                    if not any(isinstance(step, Filled) and step.event == other for step in steps):
                        steps.append(Filled(other, draw(marks)))
                        held += other.size_lots if other.side is BID else -other.size_lots
    return steps


def mirrored(event: OrderFilled) -> OrderFilled:
    return changed(event, side=ASK if event.side is BID else BID)


def apply(position: Position, step: Step) -> Any:
    match step:
        case Marked():
            return position.mark(step.price)
        case Adopted():
            return position.adopt(step.lots, step.average, step.reference)
        case Filled():
            return position.fill(step.event, step.reference)
        case CashMoved():
            return position.cash_moved(step)


def signed(event: OrderFilled) -> int:
    return event.size_lots if event.side is BID else -event.size_lots


class Oracle:
    """The left side of the identity in fractions: what is there, by distinct events. Repetitions are not told it."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.cash = self.opening = Fraction(0)
        self.lots = 0
        self.price: Fraction | None = None
        self.known = False

    def value(self, lots: int, price: Fraction | Decimal) -> Fraction:
        amount = Fraction(self.instrument.lot) * lots
        return -amount / Fraction(price) if self.instrument.amount_is_usd else amount * Fraction(price)

    def mark(self, price: Fraction | Decimal) -> None:
        if self.price is None:
            self.opening += self.value(self.lots, price)
        self.price = Fraction(price)

    def tell(self, step: Step) -> None:
        own = self.instrument.settlement
        match step:
            case Marked(price=price):
                if is_price(price):
                    self.mark(Decimal(repr(price)))
            case Filled(event=event, reference=reference):
                self.mark(Decimal(repr(reference)) if is_price(reference) else event.price)
                self.cash -= self.value(signed(event), event.price)
                self.cash -= Fraction(event.fee) if event.fee_currency == own else 0
                self.lots += signed(event)
            case CashMoved(kind=CashKind.FUNDING, amount=amount):
                self.cash += Fraction(amount)
            case CashMoved(amount=amount, closed_lots=closed):
                paid = Fraction(amount)
                if not self.instrument.is_option:
                    paid = self.value(closed, self.price) if self.price is not None else Fraction(0)
                if self.price is None and closed:
                    self.opening += paid
                self.cash += paid
                self.lots -= closed
            case Adopted(lots=lots, average=average, reference=reference):
                self._adopt(lots, average, reference)

    def _adopt(self, lots: int, average: Decimal, reference: float) -> None:
        if is_price(reference):
            self.mark(Decimal(repr(reference)))
            at = self.price
        else:
            choices = [self.price, Fraction(average) or None]
            at = next((price for price in (choices if self.known else reversed(choices)) if price is not None), None)
            if self.price is None and at is not None:
                self.mark(at)
        if at is not None:
            self.opening += self.value(lots - self.lots, at)
        self.lots, self.known = lots, True

    def profit(self) -> Fraction:
        return self.cash - self.opening + (self.value(self.lots, self.price) if self.price is not None else 0)


def is_price(price: float) -> bool:
    return 0.0 < price < float("inf")


def near(one: Decimal | Fraction, other: Decimal | Fraction, gross: Decimal) -> bool:
    return abs(Fraction(one) - Fraction(other)) <= Fraction(CLOSE) * Fraction(gross)


def by_average(position: Position, mark: Decimal) -> Fraction:
    """realised + unrealised - fees + funding - inherited, in fractions of the position's public figures."""
    amount = Fraction(position.instrument.lot) * position.lots
    unrealized = Fraction(0)
    if position.lots:
        entry, leave = Fraction(position.average), Fraction(mark)
        usd = position.instrument.amount_is_usd
        unrealized = amount * (1 / entry - 1 / leave) if usd else amount * (leave - entry)
    rest = CONTEXT.subtract(CONTEXT.add(position.realized, position.funding), position.fees)
    return unrealized + Fraction(rest) - Fraction(position.inherited)


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS))
def test_the_identity_holds_after_every_event(data: st.DataObject, instrument: Instrument) -> None:
    position, oracle = Position(instrument), Oracle(instrument)
    steps = data.draw(histories(instrument))
    for n, step in enumerate(steps):
        apply(position, step)
        oracle.tell(step)
        assert position.balanced
        repeated = steps[data.draw(st.integers(0, n))]
        if isinstance(repeated, Filled):
            assert apply(position, repeated) is Fold.REPEATED
        elif isinstance(repeated, CashMoved):
            assert apply(position, repeated) is False
        gross = position.ledger.gross
        assert position.lots == oracle.lots
        assert near(position.ledger.sources.total(), oracle.profit(), gross)
        assert near(position.ledger.holdings.opening, oracle.opening, gross)


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS), mark=prices)
def test_profit_by_average_is_profit_by_source(data: st.DataObject, instrument: Instrument, mark: Decimal) -> None:
    position = Position(instrument)
    for step in data.draw(histories(instrument)):
        apply(position, step)
        price = position.ledger.price
        if price is not None:
            assert near(by_average(position, price), position.ledger.sources.total(), position.ledger.gross)
    position.mark(float(mark))
    statement, profit = position.statement(float(mark)), position.profit(float(mark))
    assert profit is not None and statement.value is not None
    assert near(by_average(position, mark), statement.total, position.ledger.gross)
    scale = float(position.ledger.gross) + 1.0
    assert profit.total == pytest.approx(float(statement.total), rel=1e-12, abs=1e-14 * scale)


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS), mark=marks)
def test_a_statement_is_what_marking_would_make_it(data: st.DataObject, instrument: Instrument, mark: float) -> None:
    position = Position(instrument)
    for step in data.draw(histories(instrument, most=10)):
        apply(position, step)
    foreseen = position.statement(mark)
    position.mark(mark)
    assert position.statement(mark) == foreseen
    assert near(foreseen.imbalance, Decimal(0), position.ledger.gross)
    if foreseen.value is not None:
        worth = Fraction(foreseen.cash) + Fraction(foreseen.value) - Fraction(foreseen.opening)
        assert near(worth, foreseen.total, position.ledger.gross + abs(foreseen.value))


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS), draw=st.randoms(use_true_random=False))
def test_when_repetitions_come_does_not_matter(
    data: st.DataObject, instrument: Instrument, draw: random.Random
) -> None:
    """Each fill and each payment told again any number of times, at any later moment."""
    steps = data.draw(histories(instrument))
    told = list(steps)
    for step in steps:
        if isinstance(step, Filled | CashMoved):
            for _ in range(draw.randrange(3)):
                told.insert(draw.randrange(told.index(step) + 1, len(told) + 1), step)
    once, often = Position(instrument), Position(instrument)
    for step in steps:
        apply(once, step)
    for step in told:
        apply(often, step)
        assert often.balanced
    assert often.snapshot() == once.snapshot()
    assert (often.inherited, often.variation) == (once.inherited, once.variation)
    assert (often.foreign_fees, often.foreign_cash) == (once.foreign_fees, once.foreign_cash)


@given(
    trades=st.lists(st.tuples(lots.filter(bool), prices, fees, marks), min_size=1, max_size=20),
    instrument=st.sampled_from(INSTRUMENTS),
    mark=prices,
    draw=st.randoms(use_true_random=False),
)
def test_the_order_of_fills_does_not_matter(
    trades: list[tuple[int, Decimal, Decimal, float]], instrument: Instrument, mark: Decimal, draw: random.Random
) -> None:
    """Shuffled, with repetitions: the same lots, cash, fees and profit; only the split of profit depends on marks."""
    steps = [
        Filled(trade(instrument, f"t{n}", size, str(price), str(fee)), reference)
        for n, (size, price, fee, reference) in enumerate(trades)
    ]
    shuffled = steps + [draw.choice(steps) for _ in range(5)]
    draw.shuffle(shuffled)
    one, other = Position(instrument), Position(instrument)
    for step in steps:
        apply(one, step)
    for step in shuffled:
        apply(other, step)
        assert other.balanced
    one.mark(float(mark))
    other.mark(float(mark))
    assert one.lots == other.lots == sum(size for size, *_ in trades)
    assert (one.fees, one.fills) == (other.fees, other.fills) == (sum(fee for _, _, fee, _ in trades), len(trades))
    gross = one.ledger.gross + other.ledger.gross
    assert near(one.ledger.holdings.cash, other.ledger.holdings.cash, gross)
    assert near(one.ledger.sources.total(), other.ledger.sources.total(), gross)


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS))
def test_trading_with_ourselves_costs_only_fees(data: st.DataObject, instrument: Instrument) -> None:
    position = Position(instrument)
    for step in data.draw(histories(instrument, most=8)):
        apply(position, step)
    size, price, fee = data.draw(sizes), data.draw(prices), data.draw(fees)
    position.mark(float(price))
    lots_before, before = position.lots, position.ledger.sources.total()
    event = trade(instrument, "own", size, str(price), str(fee))
    order = [event, mirrored(event)]
    if data.draw(st.booleans()):
        order.reverse()
    assert position.fill(order[0], float(price)) is Fold.COUNTED
    assert position.fill(order[1], float(price)) is Fold.SELF_TRADE
    assert position.fill(order[0], float(price)) is position.fill(order[1], float(price)) is Fold.REPEATED
    assert position.lots == lots_before and position.balanced
    assert near(position.ledger.sources.total(), Fraction(before) - 2 * Fraction(fee), position.ledger.gross)


@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS), size=st.integers(1, 10**6))
def test_one_satoshi_is_never_lost_in_rounding(data: st.DataObject, instrument: Instrument, size: int) -> None:
    """However long the history, a hundred-millionth in one book only is noticed."""
    position = Position(instrument)
    for step in data.draw(histories(instrument)):
        apply(position, step)
    name = data.draw(st.sampled_from(("cash", "opening", "spread", "inventory", "fees", "funding", "settlement")))
    book = position.ledger.holdings if name in ("cash", "opening") else position.ledger.sources
    off = Decimal(size) / 10**8 * data.draw(st.sampled_from((1, -1)))
    setattr(book, name, CONTEXT.add(getattr(book, name), off))
    assert not position.balanced


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(data=st.data(), instrument=st.sampled_from(INSTRUMENTS))
def test_long_histories_balance(data: st.DataObject, instrument: Instrument) -> None:
    position, oracle = Position(instrument), Oracle(instrument)
    for step in data.draw(histories(instrument, most=60)):
        apply(position, step)
        oracle.tell(step)
        assert position.balanced and position.lots == oracle.lots
    assert near(position.ledger.sources.total(), oracle.profit(), position.ledger.gross)
