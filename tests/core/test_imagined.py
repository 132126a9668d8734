"""The shadow's own ledgers: one position a bound, each number once, assumed fees, nothing mixed."""

from decimal import Decimal

import msgspec
import pytest
from core_kit import ASK, BID, INVERSE, LINEAR, OPTION
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.imagined import Imagined, maker_fee, shadow_order_id
from mmd.core.pnl import Fold
from mmd.domain.events import Bound, OrderFilled, ShadowFilled
from mmd.domain.instruments import Contract, Instrument
from mmd.domain.reasons import Side

LOW, HIGH = Bound.PESSIMISTIC, Bound.OPTIMISTIC
LABEL = "mmd-test-ETH_USDC-PERPETUAL-b-ep-1"
LINEAR_OPTION = msgspec.structs.replace(OPTION, contract=Contract.LINEAR, quote="USDC", settlement="USDC")


def filled(bound: Bound, number: int, side: Side = BID, price: str = "2000", lots: int = 100) -> ShadowFilled:
    return ShadowFilled(LABEL, bound, side, Decimal(price), lots, number, 7)


@pytest.mark.parametrize(
    ("instrument", "rate", "price", "lots", "index", "fee"),
    [
        pytest.param(LINEAR, "0.0002", "2000", 100, 0.0, "0.4", id="linear: of 2000 dollars"),
        pytest.param(LINEAR, "-0.0001", "2000", 100, 0.0, "-0.2", id="a rebate is negative"),
        pytest.param(LINEAR, "0", "2000", 100, 0.0, "0", id="free"),
        pytest.param(INVERSE, "0.0005", "50000", 1000, 0.0, "0.0001", id="inverse: 10000 dollars, in coin"),
        pytest.param(OPTION, "0.0003", "0.05", 10, 0.0, "0.0003", id="inverse option: of the underlying"),
        pytest.param(OPTION, "0.0003", "0.0001", 10, 0.0, "0.0000125", id="capped at 12.5 % of its price"),
        pytest.param(LINEAR_OPTION, "0.0003", "500", 10, 40000.0, "12", id="linear option: of the index"),
        pytest.param(LINEAR_OPTION, "0.0003", "8", 10, 40000.0, "1", id="linear option, capped"),
        pytest.param(LINEAR_OPTION, "0.0003", "500", 10, 0.0, "62.5", id="no index: the most it can be"),
        pytest.param(LINEAR_OPTION, "0", "500", 10, 0.0, "0", id="no index and free"),
    ],
)
def test_the_assumed_fee(instrument: Instrument, rate: str, price: str, lots: int, index: float, fee: str) -> None:
    charged = msgspec.structs.replace(instrument, maker_fee=Decimal(rate))
    assert maker_fee(charged, Decimal(price), lots, index) == Decimal(fee)


def test_a_fill_as_an_exchange_would_tell_it() -> None:
    charged = msgspec.structs.replace(LINEAR, maker_fee=Decimal("0.0002"))
    assert Imagined(charged).as_fill(filled(LOW, 3)) == OrderFilled(
        label=LABEL,
        order_id="shadow-test-ETH_USDC-PERPETUAL-b-ep-1",
        trade_id="shadow-3",
        side=BID,
        price=Decimal(2000),
        size_lots=100,
        fee=Decimal("0.4"),
        fee_currency="USDC",
        maker=True,
        index=0.0,
        exchange_ns=0,
        received_ns=7,
    )
    assert shadow_order_id("another") == "shadow-another"


def test_two_ledgers_that_know_nothing_of_each_other() -> None:
    imagined = Imagined(LINEAR)
    assert (imagined.pessimistic.lots, imagined.optimistic.lots) == (0, 0)
    assert imagined.fill(filled(HIGH, 1), 2000.0) is Fold.COUNTED
    assert imagined.fill(filled(HIGH, 2, ASK, "2010", 40), 2000.0) is Fold.COUNTED
    assert imagined.fill(filled(LOW, 3, lots=30), 2000.0) is Fold.COUNTED
    assert (imagined.of(LOW).lots, imagined.of(HIGH).lots) == (30, 60)
    low, high = imagined.pessimistic.profit(2100.0), imagined.optimistic.profit(2100.0)
    assert low is not None and high is not None
    assert (low.total, high.total) == (pytest.approx(30.0), pytest.approx(60.0 + 4.0))
    assert imagined.of(LOW) is imagined.pessimistic and imagined.of(HIGH) is imagined.optimistic


def test_each_number_counts_once() -> None:
    imagined = Imagined(LINEAR)
    imagined.fill(filled(LOW, 1), 2000.0)
    assert imagined.fill(filled(LOW, 1), 2000.0) is Fold.REPEATED
    assert (imagined.pessimistic.lots, imagined.pessimistic.fills) == (100, 1)


def test_it_starts_at_nothing_again() -> None:
    imagined = Imagined(LINEAR)
    imagined.fill(filled(LOW, 1), 2000.0)
    imagined.fill(filled(HIGH, 2), 2000.0)
    imagined.reset()
    assert imagined.snapshot() == Imagined(LINEAR).snapshot()
    assert imagined.fill(filled(LOW, 1), 2000.0) is Fold.COUNTED  # the count begins anew with it


def test_marks_move_both() -> None:
    imagined = Imagined(LINEAR)
    imagined.fill(filled(LOW, 1), 2000.0)
    imagined.fill(filled(HIGH, 2, lots=200), 2000.0)
    imagined.mark(2050.0)
    imagined.mark(0.0)  # none
    assert imagined.pessimistic.statement(2050.0).inventory == Decimal(50)
    assert imagined.optimistic.statement(2050.0).inventory == Decimal(100)
    assert imagined.snapshot().keys() == {"pessimistic", "optimistic"}


def test_a_fill_without_a_price_counts_nowhere() -> None:
    imagined = Imagined(INVERSE)
    with pytest.raises(ValueError, match="shadow-1 at 0, allowed: above 0"):
        imagined.fill(filled(LOW, 1, price="0"), 2000.0)
    assert imagined.snapshot() == Imagined(INVERSE).snapshot()


@given(
    st.lists(
        st.tuples(st.sampled_from([LOW, HIGH]), st.sampled_from([BID, ASK]), st.integers(1, 5000), st.integers(1, 500)),
        max_size=30,
    ),
    st.sampled_from([INVERSE, OPTION, LINEAR, LINEAR_OPTION]),
)
def test_both_balance_after_every_fill(fills: list[tuple[Bound, Side, int, int]], instrument: Instrument) -> None:
    """Each bound's ledger keeps the identity of the real one, and each holds exactly its own fills."""
    imagined = Imagined(msgspec.structs.replace(instrument, maker_fee=Decimal("0.0003")))
    sums = {LOW: 0, HIGH: 0}
    for number, (bound, side, ticks, lots) in enumerate(fills, 1):
        event = ShadowFilled(LABEL, bound, side, instrument.grid.price(ticks), lots, number, 0)
        imagined.fill(event, float(instrument.grid.price(ticks + 1)))
        sums[bound] += lots if side is BID else -lots
        for known in (LOW, HIGH):
            assert imagined.of(known).lots == sums[known]
            assert imagined.of(known).balanced
