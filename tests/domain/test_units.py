"""Grids, labels and instruments: the integers inside, exact at the edges."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.domain.errors import OffGrid
from mmd.domain.ids import LABEL_MAX, Label, base36, label_prefix, parse_label
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Side
from mmd.domain.units import Grid, GridStep, whole, whole_down

FLAT = Grid(Decimal("0.5"))
# Deribit's BTC options: 0.0001 below 0.005, 0.0005 from there; ticks of 0.0001.
STEPPED = Grid(Decimal("0.0001"), (GridStep(from_ticks=50, step_ticks=5),))
THREE = Grid(Decimal("0.01"), (GridStep(0, 2), GridStep(100, 5), GridStep(1000, 50)))


@pytest.mark.parametrize(
    ("grid", "price", "floor", "ceil"),
    [
        pytest.param(FLAT, 10.0, 10, 10, id="on the grid"),
        pytest.param(FLAT, 10.4, 10, 11, id="between"),
        pytest.param(FLAT, 10.0000004, 10, 10, id="float noise above is no price"),
        pytest.param(FLAT, 9.9999996, 10, 10, id="float noise below is no price"),
        pytest.param(FLAT, 10.00001, 10, 11, id="a real difference"),
        pytest.param(STEPPED, 49.3, 49, 50, id="fine steps"),
        pytest.param(STEPPED, 50.0, 50, 50, id="the border itself"),
        pytest.param(STEPPED, 50.1, 50, 55, id="wide steps"),
        pytest.param(STEPPED, 54.9, 50, 55, id="wide steps, nearly"),
        pytest.param(STEPPED, 49.9999999, 50, 50, id="noise at the border"),
        pytest.param(THREE, 99.0, 98, 100, id="first range has steps of two"),
        pytest.param(THREE, 101.0, 100, 105, id="second range"),
        pytest.param(THREE, 998.0, 995, 1000, id="up to the next border"),
        pytest.param(THREE, 1001.0, 1000, 1050, id="third range"),
    ],
)
def test_bids_floor_and_asks_ceil(grid: Grid, price: float, floor: int, ceil: int) -> None:
    assert (grid.floor(price), grid.ceil(price)) == (floor, ceil)


@pytest.mark.parametrize(
    ("grid", "price", "below", "above"),
    [
        pytest.param(FLAT, 10, 9, 11, id="flat"),
        pytest.param(STEPPED, 49, 48, 50, id="into the border from below"),
        pytest.param(STEPPED, 50, 49, 55, id="over the border"),
        pytest.param(STEPPED, 55, 50, 60, id="wide"),
        pytest.param(THREE, 100, 98, 105, id="border of three"),
        pytest.param(THREE, 1000, 995, 1050, id="second border of three"),
    ],
)
def test_the_next_price_across_borders(grid: Grid, price: int, below: int, above: int) -> None:
    assert (grid.below(price), grid.above(price)) == (below, above)


@given(price=st.floats(1.0, 5000.0), grid=st.sampled_from([FLAT, STEPPED, THREE]))
def test_floor_and_ceil_enclose_and_stay(price: float, grid: Grid) -> None:
    low, high = grid.floor(price), grid.ceil(price)
    assert low <= price + 1e-5 and high >= price - 1e-5
    assert high - low <= grid.step_at(high)
    assert grid.floor(low) == grid.ceil(low) == low
    assert grid.floor(high) == grid.ceil(high) == high


@given(price=st.integers(2, 5000), grid=st.sampled_from([FLAT, STEPPED, THREE]))
def test_below_and_above_are_neighbours(price: int, grid: Grid) -> None:
    on = grid.floor(price)
    assert grid.below(grid.above(on)) == on
    assert grid.below(on) < on < grid.above(on)


def test_prices_are_exact() -> None:
    assert FLAT.price(120001) == Decimal("60000.5")
    assert FLAT.ticks(Decimal("60000.5")) == 120001
    with pytest.raises(OffGrid, match=r"60000\.3"):
        FLAT.ticks(Decimal("60000.3"))


def test_whole_and_whole_down() -> None:
    assert whole(Decimal("0.3"), Decimal("0.1")) == 3
    with pytest.raises(OffGrid):
        whole(Decimal("0.35"), Decimal("0.1"))
    assert whole_down(Decimal("0.39"), Decimal("0.1")) == 3
    assert whole_down(Decimal("-0.39"), Decimal("0.1")) == -3


# --- labels -------------------------------------------------------------------------------------------

names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1, max_size=24)


@given(symbol=names, side=st.sampled_from(Side), epoch=st.integers(0, 2**40), n=st.integers(0, 2**40))
def test_labels_round_trip(symbol: str, side: Side, epoch: int, n: int) -> None:
    label = Label(service="mmd", symbol=symbol, side=side, epoch=base36(epoch), n=n)
    assert parse_label(str(label)) == label
    assert str(label).startswith(label_prefix("mmd"))


def test_a_label_fits_the_exchange() -> None:
    longest = Label("production", "BTC_USDC-31DEC26-100000-C", Side.ASK, base36(2_000_000_000), 10**9)
    assert len(str(longest)) <= LABEL_MAX


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("my-order", id="somebody's"),
        pytest.param("mmd-svc-BTC-x-ep-1", id="no side"),
        pytest.param("other-svc-BTC-b-ep-1", id="another program"),
        pytest.param("mmd-svc-BTC-b-ep-", id="no number"),
        pytest.param("mmd-svc-BTC-b-ep-A", id="upper case is no base 36 of ours"),
        pytest.param("mmd-b-ep-1", id="no symbol"),
        pytest.param("mmd-svc-BTC-b-ep-" + "z" * 13, id="a number that nobody counts to"),
        pytest.param("mmd-svc-BTC-b-ep-" + "z" * 5000, id="a number without an end"),
    ],
)
def test_what_is_not_ours(text: str) -> None:
    assert parse_label(text) is None


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (35, "z"), (36, "10"), (1_700_000_000, "s44we8")])
def test_base36(value: int, text: str) -> None:
    assert base36(value) == text
    assert int(text, 36) == value


def test_base36_refuses_negatives() -> None:
    with pytest.raises(ValueError, match="-1"):
        base36(-1)


# --- instruments --------------------------------------------------------------------------------------


def instrument(kind: Kind, contract: Contract, lot: str) -> Instrument:
    return Instrument(
        exchange="deribit",
        symbol="X",
        kind=kind,
        contract=contract,
        base="BTC",
        quote="USD",
        settlement="BTC",
        index="btc_usd",
        grid=FLAT,
        lot=Decimal(lot),
        min_lots=1,
        contract_size=Decimal(lot),
    )


@pytest.mark.parametrize(
    ("kind", "contract", "lot", "coins", "usd", "in_usd"),
    [
        pytest.param(Kind.PERPETUAL, Contract.INVERSE, "10", 10 / 50_000, 10.0, True, id="inverse: the lot is dollars"),
        pytest.param(Kind.FUTURE, Contract.INVERSE, "10", 10 / 50_000, 10.0, True, id="inverse future"),
        pytest.param(Kind.CALL, Contract.INVERSE, "0.1", 0.1, 5_100.0, False, id="inverse option: the lot is coins"),
        pytest.param(Kind.PERPETUAL, Contract.LINEAR, "0.001", 0.001, 51.0, False, id="linear"),
    ],
)
def test_what_a_lot_is_worth(kind: Kind, contract: Contract, lot: str, coins: float, usd: float, in_usd: bool) -> None:
    it = instrument(kind, contract, lot)
    assert it.amount_is_usd is in_usd
    assert it.coins_per_lot(50_000.0) == pytest.approx(coins)
    assert it.usd_per_lot(51_000.0) == pytest.approx(usd)
    assert it.amount(3) == 3 * Decimal(lot)


def test_an_unknown_price_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="mark"):
        instrument(Kind.PERPETUAL, Contract.INVERSE, "10").coins_per_lot(0.0)
    with pytest.raises(ValueError, match="index"):
        instrument(Kind.CALL, Contract.INVERSE, "0.1").usd_per_lot(float("nan"))
