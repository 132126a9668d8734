"""The ledger by hand: worked examples, and that a mistake in either book is noticed."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from core_kit import INVERSE, LINEAR, OPTION, PLAIN, changed
from ledger_kit import SUMS, at_last, delivery, funding, sums, trade, traded

from mmd.core import pnl
from mmd.core.ledger import CONTEXT, Holdings, Sources
from mmd.core.pnl import Fold, Position
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.reasons import CashKind

DOC = Path(__file__).parents[2] / "docs" / "ledger.md"
EXAMPLES = {"linear": LINEAR, "inverse": INVERSE, "option": OPTION}
FUTURE = changed(INVERSE, kind=Kind.FUTURE, symbol="BTC-29DEC23")


def numbers(values: str) -> dict[str, Decimal]:
    return dict(zip(SUMS, map(Decimal, values.split()), strict=True))


def same(position: Position, values: str, mark: float | None = None) -> None:
    """The statement says this (order of SUMS), and the identity holds to the last digit."""
    statement = at_last(position) if mark is None else position.statement(mark)
    assert sums(statement) == numbers(values)
    assert statement.imbalance == 0 and position.balanced


# --- the document -------------------------------------------------------------------------------------

FILL = re.compile(r"fill (\S+) at (\S+), reference (\S+), fee (\S+)")
TAKE = re.compile(r"take over (\S+) at (\S+), reference (\S+)")
DELIVERY = re.compile(r"delivery of (\S+) pays (\S+)")


def replay(position: Position, n: int, event: str) -> None:
    """Do what one row of the document says."""
    instrument = position.instrument

    def lots(amount: str) -> int:
        return int(Decimal(amount) / instrument.lot)

    if found := FILL.fullmatch(event):
        amount, price, reference, fee = found.groups()
        traded(position, f"t{n}", lots(amount), price, float(reference), fee)
    elif found := TAKE.fullmatch(event):
        amount, price, reference = found.groups()
        position.adopt(lots(amount), Decimal(price), float(reference))
    elif found := DELIVERY.fullmatch(event):
        amount, paid = found.groups()
        assert position.cash_moved(delivery(instrument, f"e{n}", paid, lots(amount)))
    else:
        word, number = event.split()
        if word == "mark":
            position.mark(float(number))
        else:
            assert word == "funding" and position.cash_moved(funding(instrument, f"e{n}", number))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_worked_examples_are_what_the_code_does(name: str) -> None:
    block = re.search(rf"<!-- example: {name} -->\n(.*?)<!-- end example -->", DOC.read_text(), re.DOTALL)
    assert block is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block[1].splitlines()]
    assert tuple(rows[0][1:]) == SUMS and len(rows) == 6
    position = Position(EXAMPLES[name])
    for n, (event, *values) in enumerate(rows[2:]):
        replay(position, n, event)
        same(position, " ".join(values))


def test_numbers_that_the_document_names() -> None:
    text = DOC.read_text()
    assert f"The last {pnl.REMEMBERED} ids" in text and "below 1e-40" in text


# --- fills --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instrument", "steps", "mark", "values"),
    [
        pytest.param(
            PLAIN,
            [(10, "100", 101.0), (-15, "103", 102.0)],
            104.0,
            # spread 10*1 + 15*1; inventory 10*(102-101) - 5*(104-102)
            "545 -520 0 25 0 0 0 0",
            id="linear flip",
        ),
        pytest.param(
            PLAIN,
            [(10, "100", 101.0), (-4, "103", 102.0)],
            100.0,
            # inventory 10*1 - 6*2
            "-588 600 0 14 -2 0 0 0",
            id="linear part closed",
        ),
        pytest.param(
            PLAIN, [(10, "100", 99.0)], 99.0, "-1000 990 0 -10 0 0 0 0", id="run over: the spread is negative"
        ),
        pytest.param(
            PLAIN, [(10, "100", 0.0), (-10, "105", 0.0)], 0.0, "50 0 0 0 50 0 0 0", id="no reference: no spread"
        ),
        pytest.param(
            INVERSE,
            [(800, "40000", 50000.0), (-1600, "50000", 40000.0)],
            80000.0,
            # +8000/40000 - 16000/50000; short 8000 USD at 80000 is worth 0.1.
            # spread 8000/40000 - 8000/50000, 16000/40000 - 16000/50000; inventory -0.04, then -0.1
            "-0.12 0.1 0 0.12 -0.14 0 0 0",
            id="inverse flip",
        ),
        pytest.param(
            OPTION, [(-10, "0.05", 0.04), (4, "0.02", 0.03)], 0.03, "0.042 -0.018 0 0.014 0.01 0 0 0", id="option"
        ),
    ],
)
def test_fills(instrument: Instrument, steps: list[tuple[int, str, float]], mark: float, values: str) -> None:
    position = Position(instrument)
    for n, (lots, price, reference) in enumerate(steps):
        traded(position, f"t{n}", lots, price, reference)
    before = position.snapshot()
    same(position, values, mark)
    assert position.snapshot() == before, "a statement changes nothing"
    position.mark(mark)
    same(position, values, mark)


def test_fees_have_one_sign_here_and_the_other_outside() -> None:
    position = Position(PLAIN)
    traded(position, "t1", 10, "100", 100.0, fee="3")
    traded(position, "t2", -10, "100", 100.0, fee="-1")
    same(position, "-2 0 0 0 0 -2 0 0")
    assert position.fees == 2


def test_fees_in_another_currency_are_no_part_of_it() -> None:
    position = Position(PLAIN)
    position.fill(trade(PLAIN, "t1", 10, "100", "0.01", "BTC"), 100.0)
    position.fill(trade(PLAIN, "t2", 10, "100", "-0.004", "BTC"), 100.0)
    same(position, "-2000 2000 0 0 0 0 0 0")
    assert position.foreign_fees == {"BTC": Decimal("0.006")}


def test_the_first_word_counts() -> None:
    position = Position(PLAIN)
    traded(position, "t1", 10, "100", 101.0)
    before = position.snapshot()
    assert position.fill(trade(PLAIN, "t1", 99, "77", "5"), 50.0) is Fold.REPEATED
    assert position.snapshot() == before


def test_both_sides_of_one_trade_count_once_each() -> None:
    position = Position(PLAIN)
    assert position.fill(trade(PLAIN, "t1", 10, "100", "1"), 100.0) is Fold.COUNTED
    assert position.fill(trade(PLAIN, "t1", -10, "100", "2"), 100.0) is Fold.SELF_TRADE
    assert position.fill(trade(PLAIN, "t1", -10, "100", "2"), 100.0) is Fold.REPEATED
    assert position.fill(trade(PLAIN, "t1", 10, "100", "1"), 100.0) is Fold.REPEATED
    assert (position.lots, position.fills) == (0, 2)
    same(position, "-3 0 0 0 0 -3 0 0")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pnl, "REMEMBERED", 3)
    position = Position(PLAIN)
    for n in range(5):
        traded(position, f"t{n}", 1, "100")
        assert position.cash_moved(funding(PLAIN, f"e{n}", "1"))
    assert [position.seen(f"t{n}") for n in range(5)] == [False, False, True, True, True]
    assert position.fill(trade(PLAIN, "t2", 1, "100"), 0.0) is Fold.REPEATED
    assert not position.cash_moved(funding(PLAIN, "e2", "1"))


@pytest.mark.parametrize("price", ["0", "-1"])
def test_a_fill_without_a_price_is_refused_and_not_counted(price: str) -> None:
    position = Position(INVERSE)
    with pytest.raises(ValueError, match=r"trade t1 at .*, allowed: above 0"):
        position.fill(trade(INVERSE, "t1", 10, price), 100.0)
    assert not position.seen("t1") and position.snapshot() == Position(INVERSE).snapshot()


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_price_is_no_mark(price: float) -> None:
    position = Position(PLAIN)
    traded(position, "t1", 10, "100", price)
    before = position.snapshot()
    position.mark(price)
    assert position.snapshot() == before
    statement = position.statement(price)
    assert statement.value is None and statement.inventory == 0 and position.profit(price) is None


def test_a_float_enters_through_its_shortest_text() -> None:
    position = Position(PLAIN)
    traded(position, "t1", 1, "0.1", 0.3)
    assert position.statement(0.7).spread == Decimal("0.2")
    assert position.statement(0.7).inventory == Decimal("0.4")


# --- cash ---------------------------------------------------------------------------------------------


def test_funding_counts_once() -> None:
    position = Position(PLAIN)
    assert position.cash_moved(funding(PLAIN, "e1", "-0.5"))
    assert not position.cash_moved(funding(PLAIN, "e1", "-0.5"))
    same(position, "-0.5 0 0 0 0 0 -0.5 0")
    profit = position.profit(0.0)
    assert profit is not None and profit.total == -0.5


@pytest.mark.parametrize(
    ("lots", "paid", "settled", "realized"),
    [
        pytest.param(10, "0.08", "0.02", "0.03", id="long, in the money"),
        pytest.param(10, "0", "-0.06", "-0.05", id="long, worthless"),
        pytest.param(-10, "-0.08", "-0.02", "-0.03", id="short, in the money"),
        pytest.param(-10, "0", "0.06", "0.05", id="short, worthless"),
    ],
)
def test_delivery_of_an_option(lots: int, paid: str, settled: str, realized: str) -> None:
    position = Position(OPTION)
    traded(position, "t1", lots, "0.05", 0.05)
    position.mark(0.06)
    event = delivery(OPTION, "e1", paid, lots)
    assert position.cash_moved(event) and not position.cash_moved(event)
    assert (position.lots, position.average) == (0, 0)
    cash = Decimal("-0.005") * lots + Decimal(paid)
    same(position, f"{cash} 0 0 0 {Decimal('0.001') * lots} 0 0 {settled}")
    assert position.realized == Decimal(realized) == cash


def test_a_delivery_of_other_lots_than_ours_leaves_the_difference() -> None:
    position = Position(OPTION)
    traded(position, "t1", 10, "0.05", 0.05)
    position.cash_moved(delivery(OPTION, "e1", "0.09", 15))
    assert position.lots == -5 and position.balanced
    same(position, "0.04 -0.025 0 0 0 0 0 0.015")
    profit = position.profit(0.05)
    assert profit is not None and profit.total == pytest.approx(0.015)


def test_a_future_is_paid_what_its_value_shows_already() -> None:
    """Daily payments are no profit again; delivered at the mark, which who knows the price sets first."""
    position = Position(FUTURE)
    traded(position, "t1", 1000, "50000", 50000.0)
    position.mark(62500.0)
    assert position.cash_moved(delivery(FUTURE, "e1", "0.04", 0))
    same(position, "0.2 -0.16 0 0 0.04 0 0 0")
    position.mark(64000.0)
    assert position.cash_moved(delivery(FUTURE, "e2", "0.00375", 1000))
    same(position, "0.04375 0 0 0 0.04375 0 0 0")
    assert (position.lots, position.average, position.realized) == (0, 0, Decimal("0.04375"))
    assert position.variation == Decimal("0.04375")


def test_cash_in_another_currency_is_kept_apart() -> None:
    position = Position(PLAIN)
    traded(position, "t1", 10, "100", 100.0)
    for n, kind in enumerate(CashKind):
        position.cash_moved(CashMoved(f"e{n}", kind, Decimal(5), "BTC", 10 if n else 0, 0, 0))
    assert position.foreign_cash == {"BTC": Decimal(10)}
    assert position.lots == 0
    same(position, "0 0 0 0 0 0 0 0")


def test_a_payment_on_no_position_is_settlement() -> None:
    position = Position(OPTION)
    position.cash_moved(delivery(OPTION, "e1", "0.001", 0))
    same(position, "0.001 0 0 0 0 0 0 0.001")
    assert (position.average, position.realized) == (0, Decimal("0.001"))


# --- positions taken over -----------------------------------------------------------------------------


def test_adopted_at_the_average_profit_counts_from_there() -> None:
    position = Position(PLAIN)
    position.adopt(10, Decimal(100))
    position.mark(103.0)
    same(position, "0 1030 1000 0 30 0 0 0")
    profit = position.profit(103.0)
    assert profit is not None and (profit.unrealized, profit.inherited, profit.total) == (30.0, 0.0, 30.0)
    traded(position, "t1", -10, "105", 104.0)
    same(position, "1050 0 1000 10 40 0 0 0")


def test_adopted_at_a_reference_profit_counts_from_the_reference() -> None:
    position = Position(PLAIN)
    position.adopt(-10, Decimal(100), 103.0)
    same(position, "0 -1030 -1030 0 0 0 0 0")
    profit = position.profit(104.0)
    assert profit is not None
    assert (profit.unrealized, profit.inherited, profit.total) == (-40.0, -30.0, -10.0)


def test_adopted_at_no_price_it_opens_at_the_first_one() -> None:
    position = Position(INVERSE)
    position.adopt(100, Decimal(0))
    assert position.statement(0.0).value is None and position.profit(40000.0) is None and position.balanced
    assert position.statement(40000.0).opening == Decimal("-0.025")
    position.mark(40000.0)
    same(position, "0 -0.025 -0.025 0 0 0 0 0")
    traded(position, "t1", 100, "50000", 50000.0)
    profit = position.profit(50000.0)
    assert profit is not None and profit.total == pytest.approx(0.005)


def test_adopted_at_no_price_and_delivered_it_was_worth_what_it_paid() -> None:
    position = Position(OPTION)
    position.adopt(10, Decimal(0))
    position.cash_moved(delivery(OPTION, "e1", "0.07", 10))
    same(position, "0.07 0 0.07 0 0 0 0 0")
    assert position.lots == 0 and position.realized == 0


def test_fills_before_the_first_report_are_not_opening() -> None:
    position = Position(PLAIN)
    traded(position, "t1", 4, "104", 104.0)
    position.adopt(10, Decimal(100), 105.0)
    assert position.known and position.lots == 10
    same(position, "-416 1050 630 0 4 0 0 0")


@pytest.mark.parametrize(
    ("lots", "average", "reference", "opening"),
    [
        pytest.param(15, 102, 110.0, 550, id="more, at the reference"),
        pytest.param(15, 102, 0.0, 550, id="more, at the last price"),
        pytest.param(15, 0, 0.0, 550, id="average unknown"),
        pytest.param(4, 100, 110.0, -660, id="less"),
        pytest.param(0, 0, 110.0, -1100, id="gone"),
        pytest.param(-5, 111, 110.0, -1650, id="turned over"),
        pytest.param(15, 102, 120.0, 600, id="at a reference that moved"),
    ],
)
def test_drift_adopted_later_is_no_profit(lots: int, average: int, reference: float, opening: int) -> None:
    position = Position(PLAIN)
    position.adopt(0, Decimal(0))
    traded(position, "t1", 10, "100", 100.0)
    position.mark(110.0)
    position.mark(reference)
    before = position.profit(reference or 110.0)
    position.adopt(lots, Decimal(average), reference)
    after = position.profit(reference or 110.0)
    assert before is not None and after is not None
    assert after.total == before.total == (200.0 if reference == 120.0 else 100.0)
    assert position.lots == lots and position.balanced
    assert position.statement(reference or 110.0).opening == opening
    if average and lots:
        assert position.average == average


# --- a mistake is noticed -----------------------------------------------------------------------------


def history(position: Position) -> None:
    """One of everything."""
    instrument = position.instrument
    position.adopt(7, Decimal("0.06"), 0.055)
    position.fill(trade(instrument, "t1", 10, "0.05", "0.0003"), 0.052)
    position.mark(0.0571)
    position.cash_moved(funding(instrument, "e1", "-0.0001"))
    position.fill(trade(instrument, "t2", -30, "0.0588", "-0.0001"), 0.0577)
    position.mark(0.0333)
    position.cash_moved(delivery(instrument, "e2", "0.02", -5))


def test_a_correct_history_is_in_balance() -> None:
    for instrument in (LINEAR, INVERSE, OPTION):
        position = Position(instrument)
        history(position)
        assert position.balanced


@pytest.mark.parametrize("off", ["0.00000001", "-1e-30"])
@pytest.mark.parametrize("name", ["cash", "opening", "spread", "inventory", "fees", "funding", "settlement"])
def test_any_sum_that_is_off_is_noticed(name: str, off: str) -> None:
    position = Position(OPTION)
    history(position)
    book = position.ledger.holdings if name in ("cash", "opening") else position.ledger.sources
    setattr(book, name, CONTEXT.add(getattr(book, name), Decimal(off)))
    assert not position.balanced
    assert abs(position.imbalance) == abs(Decimal(off)) == abs(position.statement(0.04).imbalance)


@pytest.mark.parametrize("book", ["holdings", "sources", "position"])
def test_lots_that_are_off_are_noticed(book: str) -> None:
    position = Position(OPTION)
    history(position)
    target = position if book == "position" else getattr(position.ledger, book)
    target.lots += 1
    assert not position.balanced


def _wrong_fee_sign(book: Holdings, lots: int, price: Decimal, fee: Decimal) -> None:
    TRADE(book, lots, price, -fee)


def _cost_twice(book: Holdings, lots: int, price: Decimal, fee: Decimal) -> None:
    TRADE(book, lots, price, fee)
    book.cash -= book._instrument.lot * lots * price


def _wrong_side(book: Holdings, lots: int, price: Decimal, fee: Decimal) -> None:
    TRADE(book, -lots, price, fee)


def _no_mark(book: Holdings, price: Decimal) -> None:
    book.price = book.price or price


def _forgotten_payment(book: Holdings, lots: int, proceeds: Decimal) -> None:
    DELIVER(book, lots, Decimal(0))


def _funding_reversed(book: Sources, amount: Decimal) -> None:
    book.funding -= amount


def _opening_missed(book: Holdings, lots: int, price: Decimal | None) -> None:
    book.lots += lots


def _spread_reversed(book: Sources, lots: int, price: Decimal, fee: Decimal) -> None:
    before = book.spread
    SOURCE(book, lots, price, fee)
    book.spread = before - (book.spread - before)


TRADE, DELIVER, SOURCE = Holdings.trade, Holdings.deliver, Sources.trade


@pytest.mark.parametrize(
    ("book", "method", "mutant"),
    [
        pytest.param(Holdings, "trade", _wrong_fee_sign, id="fee with the wrong sign"),
        pytest.param(Holdings, "trade", _cost_twice, id="cost taken twice"),
        pytest.param(Holdings, "trade", _wrong_side, id="fill on the wrong side"),
        pytest.param(Holdings, "revalue", _no_mark, id="mark not taken"),
        pytest.param(Holdings, "deliver", _forgotten_payment, id="payment forgotten"),
        pytest.param(Holdings, "take", _opening_missed, id="opening not valued"),
        pytest.param(Sources, "receive", _funding_reversed, id="funding with the wrong sign"),
        pytest.param(Sources, "trade", _spread_reversed, id="spread with the wrong sign"),
    ],
)
def test_a_defect_in_one_book_is_noticed(
    monkeypatch: pytest.MonkeyPatch, book: type, method: str, mutant: Callable[..., None]
) -> None:
    monkeypatch.setattr(book, method, mutant)
    position = Position(OPTION)
    history(position)
    assert not position.balanced
