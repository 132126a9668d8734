"""A fill that is told after later ones counts where it was made: the average is the exchange's, and no case opens."""

import itertools
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from core_kit import ASK, BID, INVERSE, LINEAR, NS, OPTION, PLAIN, START_NS, changed
from core_kit import fill as told
from core_playbook import Play
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import delivery, funding, trade
from test_machine_model import SETUPS, Scene

from mmd.core.ledger import ROUNDING
from mmd.core.pnl import RECENT, Execution, Fold, Position
from mmd.domain import events as ev
from mmd.domain.actions import CaseOpened, Noted
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import State, Why

D = Decimal
MS = 1_000_000
INSTRUMENTS = (PLAIN, LINEAR, INVERSE, OPTION)


def made(number: int, lots: int, price: str, *, at_ms: int | None = None, instrument: Instrument = PLAIN) -> Any:
    """The trade of this number; its time follows from it unless it says otherwise."""
    event = trade(instrument, f"PLAIN-{number}", lots, price)
    return changed(event, exchange_ns=START_NS + (number if at_ms is None else at_ms) * MS)


def held(*events: ev.OrderFilled, instrument: Instrument = PLAIN) -> Position:
    position = Position(instrument)
    position.adopt(0, D(0))
    for event in events:
        position.fill(event, 0.0)
        assert position.balanced
    return position


def count(position: Position) -> tuple[object, ...]:
    return position.lots, position.average, position.realized


# --- where it counts ---------------------------------------------------------------------------------


def test_a_late_fill_counts_where_it_was_made() -> None:
    """10 at 100, then 10 at 90, of which nobody told, then 5 sold at 110."""
    position = held(made(1, 10, "100"), made(3, -5, "110"))
    assert count(position) == (5, 100, 50)
    before = position.profit(105.0)
    assert position.fill(made(2, 10, "90"), 0.0) is Fold.LATE
    assert count(position) == (15, 95, 75)
    after = position.profit(105.0)
    assert before is not None and after is not None
    assert after.total == pytest.approx(before.total + 10 * (105 - 90))  # the fill, and nothing of the correction


@pytest.mark.parametrize(
    ("trades", "late", "expected"),
    [
        pytest.param([(1, 10, "100"), (3, -15, "110")], (2, 10, "104"), (5, D(102), D(120)), id="no flip after all"),
        pytest.param([(1, -5, "100"), (3, 20, "110")], (2, 10, "104"), (25, D("108.8"), D(-20)), id="an earlier flip"),
        pytest.param([(2, -10, "110"), (3, 4, "105")], (1, 10, "100"), (4, D(105), D(100)), id="it opened"),
        pytest.param([(1, 10, "100"), (3, -10, "110")], (2, 5, "94"), (5, D(98), D(120)), id="flat, and it was not"),
    ],
)
def test_flips_and_flat_positions_are_folded_again(trades: list[Any], late: Any, expected: Any) -> None:
    assert count(held(*(made(*each) for each in trades), made(*late))) == expected
    assert count(held(*(made(*each) for each in sorted([*trades, late])))) == expected


def test_of_one_millisecond_the_number_decides() -> None:
    """Also where it has a digit more."""
    position = held(made(9, 10, "100", at_ms=5), made(11, -5, "110", at_ms=5))
    assert position.fill(made(10, 10, "90", at_ms=5), 0.0) is Fold.LATE
    assert count(position) == (15, 95, 75)


DRAWN = (
    "c0ffee00-5b3e-4c57-9d2a-7f1e00000009",
    "0badcafe-2f6d-41ab-8a4d-00e5e0000003",
    "f00dfeed-9a11-4b22-8c33-1d4400000001",
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ids_that_are_no_numbers_leave_it_to_the_time(order: tuple[int, int, int]) -> None:
    """As Derive's are."""
    trades = [made(1, 10, "100"), made(2, 10, "90"), made(3, -5, "110")]
    for drawn in itertools.permutations(DRAWN):
        events = [changed(each, trade_id=trade_id) for each, trade_id in zip(trades, drawn, strict=True)]
        assert count(held(*(events[at] for at in order))) == (15, 95, 75)


@pytest.mark.parametrize("drawn", list(itertools.permutations(DRAWN)))
def test_of_one_millisecond_such_ids_stay_as_they_were_told(drawn: tuple[str, str, str]) -> None:
    trades = [made(1, 10, "100", at_ms=5), made(2, -5, "110", at_ms=5), made(3, 10, "90", at_ms=5)]
    events = [changed(each, trade_id=trade_id) for each, trade_id in zip(trades, drawn, strict=True)]
    position = Position(PLAIN)
    position.adopt(0, D(0))
    assert [position.fill(each, 0.0) for each in events] == [Fold.COUNTED] * 3
    assert (position.lots, position.realized) == (15, 50)


def test_a_clock_that_was_set_back_puts_nothing_out_of_order() -> None:
    """The numbers go on: told in the order in which they were made."""
    position = held(made(1, 10, "100", at_ms=5000), made(2, 10, "90", at_ms=7))
    assert position.fill(made(3, -5, "110", at_ms=9), 0.0) is Fold.COUNTED
    assert count(position) == (15, 95, 75)


def test_numbers_that_mean_nothing_put_nothing_out_of_order() -> None:
    position = held(made(9, 10, "100", at_ms=1), made(7, 10, "90", at_ms=2))
    assert position.fill(made(3, -5, "110", at_ms=3), 0.0) is Fold.COUNTED
    assert count(position) == (15, 95, 75)


def test_without_a_time_it_counts_where_it_is_told() -> None:
    """And what was made earlier, by its time, counts after it."""
    position = held(made(1, 10, "100"), changed(made(3, -5, "110"), exchange_ns=0))
    assert position.fill(made(2, 5, "90"), 0.0) is Fold.COUNTED
    assert count(position) == (10, 95, 50) and position.balanced


def test_both_sides_of_one_trade_stay_as_they_were_told() -> None:
    position = held(made(1, 10, "100"), made(2, -5, "110"))
    assert position.fill(made(2, 5, "110"), 0.0) is Fold.SELF_TRADE
    assert count(position) == (10, 105, 50)


def test_a_late_fill_that_is_repeated_changes_nothing() -> None:
    position = held(made(1, 10, "100"), made(3, -5, "110"), made(2, 10, "90"))
    before = position.snapshot()
    assert position.fill(made(2, 10, "90"), 0.0) is Fold.REPEATED
    assert position.snapshot() == before


@pytest.mark.parametrize("instrument", [PLAIN, OPTION], ids=["linear", "option"])
def test_what_was_settled_in_between_stays_realised(instrument: Instrument) -> None:
    """A daily settlement ends no lots."""
    position = held(made(1, 10, "100", instrument=instrument), instrument=instrument)
    position.cash_moved(delivery(instrument, "e1", "7", 0))
    position.cash_moved(funding(instrument, "e2", "3"))
    settled = position.realized
    assert settled == (7 if instrument is OPTION else 0)
    position.fill(made(3, -5, "110", instrument=instrument), 0.0)
    position.fill(made(2, 10, "90", instrument=instrument), 0.0)
    assert count(position) == (15, 95, 75 * instrument.lot + settled) and position.balanced


def test_nothing_is_folded_before_an_adoption() -> None:
    position = held(made(1, 10, "100"), made(4, -5, "110"))
    position.adopt(5, D(101), 101.0)
    position.fill(made(5, 3, "111"), 0.0)
    assert position.fill(made(2, -2, "97"), 0.0) is Fold.LATE  # of the five at 101
    assert count(position) == (6, 106, 50 - 8) and position.balanced


def test_nothing_is_folded_before_a_delivery() -> None:
    position = held(made(1, 10, "100"), made(3, -5, "110"))
    position.cash_moved(delivery(PLAIN, "e1", "0", 5))
    realized = position.realized
    assert (position.lots, realized) == (0, 100)
    position.fill(made(4, 1, "80"), 0.0)
    assert position.fill(made(2, 1, "70"), 0.0) is Fold.LATE
    assert count(position) == (2, 75, realized) and position.balanced


def test_an_average_that_was_unknown_is_where_the_fold_begins() -> None:
    """It is the first price that is known."""
    position = Position(PLAIN)
    position.adopt(10, D(0))
    position.fill(made(2, 5, "110"), 100.0)
    assert position.fill(made(1, -5, "104"), 102.0) is Fold.LATE
    assert count(position) == (10, 105, 20) and position.balanced


# --- any order ---------------------------------------------------------------------------------------


def exchanges_count(instrument: Instrument, events: list[ev.OrderFilled]) -> tuple[int, Fraction, Fraction]:
    """Lots, average and realised profit in fractions, from the trades in their order."""
    lots, average, realized = 0, Fraction(0), Fraction(0)
    usd, lot = instrument.amount_is_usd, Fraction(instrument.lot)
    for event in events:
        price = Fraction(event.price)
        left = event.size_lots if event.side is BID else -event.size_lots
        if lots * left < 0:
            closed = min(abs(lots), abs(left)) * (1 if lots > 0 else -1)
            realized += lot * closed * (1 / average - 1 / price if usd else price - average)
            lots, left = lots - closed, left + closed
        average = average if lots else price
        if usd:
            average = (lots + left) / (lots / average + left / price) if lots + left else Fraction(0)
        else:
            average = (lots * average + left * price) / (lots + left) if lots + left else Fraction(0)
        lots += left
    return lots, average, realized


trades = st.lists(
    st.tuples(
        st.integers(-500, 500).filter(bool),
        st.integers(1, 9_999_999).map(lambda n: D(n) / 1000),
        st.integers(0, 2),  # milliseconds since the one before
        st.sampled_from([0.0, 99.5, 1234.5]),
    ),
    min_size=1,
    max_size=40,
)


@given(steps=trades, instrument=st.sampled_from(INSTRUMENTS), draw=st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_exchanges_average(
    steps: list[tuple[int, Decimal, int, float]], instrument: Instrument, draw: random.Random
) -> None:
    at_ms, events = 1, []
    for n, (lots, price, later_ms, reference) in enumerate(steps, 1):
        at_ms += later_ms
        events.append((made(n, lots, str(price), at_ms=at_ms, instrument=instrument), reference))
    shuffled = events + [draw.choice(events) for _ in range(3)]
    draw.shuffle(shuffled)
    ordered, other = Position(instrument), Position(instrument)
    ordered.adopt(0, D(0))
    other.adopt(0, D(0))
    for event, reference in events:
        assert ordered.fill(event, reference) is Fold.COUNTED
    for event, reference in shuffled:
        other.fill(event, reference)
        assert other.balanced and other.refolds
    assert count(other) == count(ordered)
    lots, average, realized = exchanges_count(instrument, [event for event, _ in events])
    rounding = Fraction(ROUNDING) * 1000 * Fraction(other.ledger.gross + 1)
    assert other.lots == lots
    assert abs(Fraction(other.average) - average) <= rounding
    assert abs(Fraction(other.realized) - realized) <= rounding


@given(
    first=st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1, 999)), min_size=RECENT, max_size=200),
    late=st.integers(1, 60),
)
def test_after_a_long_history_it_is_the_same(first: list[tuple[int, int]], late: int) -> None:
    events = [made(n, lots, str(price)) for n, (lots, price) in enumerate(first, 1)]
    missed = events.pop(len(events) - late)
    position = held(*events)
    assert len(position._recent) == min(len(events), RECENT)
    position.fill(missed, 0.0)
    assert count(position) == count(held(*(made(n, lots, str(price)) for n, (lots, price) in enumerate(first, 1))))
    assert position.balanced and len(position._recent) == min(len(first), RECENT)


def test_older_than_all_that_is_remembered_it_counts_before_them() -> None:
    events = [made(n, 1, "100") for n in range(2, RECENT + 12)]
    position = held(*events, made(RECENT + 20, -10, "120"))
    assert position.fill(made(1, 10, "50"), 0.0) is Fold.LATE
    assert position.lots == RECENT + 10 and position.balanced and position.refolds
    assert len(position._recent) == RECENT


def test_before_means_by_time_and_by_number() -> None:
    one = Execution(5, "ETH-99", 1, D(1))
    assert one.is_before(Execution(5, "ETH-100", 1, D(1))) and one.is_before(Execution(6, "ETH-100", 1, D(1)))
    assert not one.is_before(Execution(4, "ETH-100", 1, D(1))) and not one.is_before(Execution(6, "ETH-98", 1, D(1)))
    assert not one.is_before(one)


# --- the machine -------------------------------------------------------------------------------------


def reported(lots: int, average: str) -> ev.PositionReported:
    return ev.PositionReported(lots, D(average), 1)


def elsewhere(number: int, side: Any, lots: int, price: str) -> Any:
    """A trade of ours of which no order is known."""
    return changed(told("", f"PLAIN-{number}", side, lots, price), exchange_ns=START_NS + number * NS)


def test_the_exchanges_average_is_ours_after_a_late_fill() -> None:
    play = Play().connected().sees(elsewhere(1, BID, 10, "100"), elsewhere(3, ASK, 5, "110"))
    play.sees(reported(15, "95")).sees(elsewhere(2, BID, 10, "90"))
    for _ in range(3):
        play.sees(reported(15, "95"))
    assert not [case for case in play.cases if isinstance(case, CaseOpened)]
    assert play.machine.drift is None and not play.machine.doubts
    play.is_in(State.PAUSED, Why.STARTUP)


def test_a_late_fill_says_that_it_is_late() -> None:
    play = Play().connected().sees(elsewhere(1, BID, 10, "100"), elsewhere(3, ASK, 5, "110"))
    actions = play.machine.handle([elsewhere(2, BID, 10, "90")], play.now_ns)
    noted = [action.detail for action in actions if isinstance(action, Noted)]
    assert len(noted) == 1 and "told late" in noted[0]


@pytest.mark.parametrize("setup", sorted(SETUPS))
@pytest.mark.parametrize("seed", range(4))
def test_fills_that_nobody_tells_open_no_case_once_they_are_asked_for(setup: str, seed: int) -> None:
    """Behind the gate, at the model's exchange: a third of the fills is lost, later ones are told."""
    draw, scene = random.Random(seed), Scene(setup)
    rig, lost = scene.rig, 0
    for turn in range(40):
        scene.mark(50, 0)
        scene.back_to_work(0, 0)
        for _ in range(3):
            scene.market(draw.randrange(40, 60), draw.randrange(10, 30))
            scene.answer_all(0, 0)
            label = scene._pick(draw.randrange(100))
            if label is not None:
                events = rig.exchange.fill(label, 1 + draw.randrange(3))
                if draw.randrange(3):
                    rig.tell(events)
                else:
                    lost += 1
        rig.disconnect()
        rig.connect()
        rig.settle()
        ours = rig.machine.position
        assert ours.lots == rig.exchange.position, turn
        assert float(ours.average) == pytest.approx(float(rig.exchange.average), rel=1e-12), turn
        assert not rig.machine.cases, turn
    assert lost > 10


def test_an_average_that_differs_for_another_reason_is_a_case_as_ever() -> None:
    play = Play().connected().sees(elsewhere(1, BID, 10, "100"), elsewhere(3, ASK, 5, "110"))
    play.sees(elsewhere(2, BID, 10, "90"))
    for _ in range(2):
        play.sees(reported(15, "97"))
    assert [type(case) for case in play.cases] == [CaseOpened]
