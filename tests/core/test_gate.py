"""The gate: every rule with its number, its limit and its key; what cannot be computed is refused."""

from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, OPTION, PLAIN, changed, settings
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.gate import Exposure, Refused, Room, review
from mmd.core.rules import rules_for
from mmd.domain.actions import AmendOrder, Approved, CancelOrder, PlaceOrder, ReduceOrder
from mmd.domain.reasons import Rule, Side, State

# --- gate ---------------------------------------------------------------------------------------------

LIMITS = {"max_order_size": Decimal(50), "max_order_value_usd": Decimal(10_000)}
RULES = rules_for(PLAIN, settings(limits=LIMITS))
ROOM = Room(budget=True, rate=True, orders=0, max_orders=10, key="max_open_orders")
EXPOSURE = Exposure(
    state=State.ACTIVE,
    rules=RULES,
    position_lots=0,
    position_known=True,
    min_lots=-100,
    max_lots=100,
    other_lots=0,
    others_on_side=0,
    own_lots=0,
    reference_ticks=1000.0,
    drift_low=1000.0,
    drift_high=1000.0,
    lot_usd=100.0,
    vol_low=0.0,
    vol_high=0.0,
)
DRIFTING = changed(RULES, max_drift_bps=1500.0, max_drift_ticks=50)
CLOSABLE = changed(EXPOSURE, state=State.HALTED, position_lots=30)


def place(side: Side = BID, price: int = 995, lots: int = 10) -> PlaceOrder:
    return PlaceOrder("L", side, price, lots)


def test_the_gate_approves_what_breaks_no_rule() -> None:
    assert review(place(), EXPOSURE, ROOM) == Approved(place())


@pytest.mark.parametrize(
    ("order", "fields", "rule", "number", "limit"),
    [
        pytest.param(place(), {"state": State.PAUSED}, Rule.STATE, "PAUSED", "ACTIVE", id="paused"),
        pytest.param(place(), {"state": State.HALTED}, Rule.STATE, "HALTED", "ACTIVE", id="halted"),
        pytest.param(place(price=799), {}, Rule.COLLAR, "2010.0 bps", "2000 bps", id="too far below"),
        pytest.param(place(ASK, 1201), {}, Rule.COLLAR, "2010.0 bps", "2000 bps", id="too far above"),
        pytest.param(
            place(), {"reference_ticks": 0.0}, Rule.COLLAR, "no reference price", "2000 bps", id="no reference"
        ),
        pytest.param(
            place(), {"reference_ticks": float("nan")}, Rule.COLLAR, "no reference price", "2000 bps", id="not a number"
        ),
        pytest.param(place(lots=51), {}, Rule.ORDER_SIZE, "51 lots", "1..50 lots", id="too large"),
        pytest.param(place(lots=0), {}, Rule.ORDER_SIZE, "0 lots", "1..50 lots", id="nothing"),
        pytest.param(place(lots=-5), {}, Rule.ORDER_SIZE, "-5 lots", "1..50 lots", id="negative"),
        pytest.param(
            place(), {"others_on_side": 1}, Rule.ONE_ORDER, "2 orders", "1 order per side", id="a second order"
        ),
        pytest.param(
            place(), {"position_known": False}, Rule.POSITION, "position unknown", "a known position", id="unknown"
        ),
        pytest.param(place(), {"position_lots": 91}, Rule.POSITION, "101 lots", "100 lots", id="bid beyond the bound"),
        pytest.param(
            place(ASK), {"position_lots": -91}, Rule.POSITION, "-101 lots", "-100 lots", id="ask beyond the bound"
        ),
        pytest.param(
            place(), {"other_lots": 91}, Rule.POSITION, "101 lots", "100 lots", id="what else may fill counts"
        ),
        pytest.param(
            place(), {"own_lots": 101}, Rule.POSITION, "101 lots", "100 lots", id="the amended one's old size"
        ),
        pytest.param(place(), {"max_lots": 9}, Rule.POSITION, "10 lots", "9 lots", id="the portfolio's bound"),
        pytest.param(
            place(ASK, lots=20),
            {"position_lots": 10, "min_lots": -5},
            Rule.POSITION,
            "-10 lots",
            "-5 lots",
            id="a reducing order may not flip the position past the bound",
        ),
        pytest.param(
            place(price=799),
            {"rules": changed(RULES, allowed=False)},
            Rule.INSTRUMENT,
            "not in the list",
            "instruments of limits.allowed",
            id="not on the list",
        ),
        pytest.param(
            place(), {"drift_low": 833.0}, Rule.DRIFT, "reference moved 1670 bps in 60 s", "1500 bps", id="up"
        ),
        pytest.param(
            place(), {"drift_high": 1151.0}, Rule.DRIFT, "reference moved 1510 bps in 60 s", "1500 bps", id="down"
        ),
        pytest.param(place(), {"lot_usd": 0.0}, Rule.ORDER_VALUE, "value unknown", "10000.00 USD", id="worth unknown"),
        pytest.param(
            place(), {"lot_usd": 1000.1}, Rule.ORDER_VALUE, "10001.00 USD", "10000.00 USD", id="worth too much"
        ),
    ],
)
def test_the_gate_names_the_rule_and_both_numbers(
    order: PlaceOrder, fields: dict[str, Any], rule: Rule, number: str, limit: str
) -> None:
    verdict = review(order, changed(EXPOSURE, **{"rules": DRIFTING, **fields}), ROOM)
    assert isinstance(verdict, Refused)
    assert (verdict.rule, verdict.number, verdict.limit) == (rule, number, limit)


def test_off_the_grid() -> None:
    rules = rules_for(OPTION, settings(size=1))
    on_options = changed(EXPOSURE, rules=rules, reference_ticks=102.0, drift_low=102.0, drift_high=102.0)
    verdict = review(place(price=102), on_options, ROOM)
    assert isinstance(verdict, Refused) and verdict.rule is Rule.GRID
    assert verdict.limit == "multiples of 5"
    assert isinstance(review(place(price=100), on_options, ROOM), Approved)


def test_a_position_outside_its_bounds_may_be_reduced() -> None:
    outside = changed(EXPOSURE, position_lots=150)
    assert isinstance(review(place(ASK), outside, ROOM), Approved)
    assert isinstance(review(place(BID), outside, ROOM), Refused)


@pytest.mark.parametrize("exposure", [None, changed(EXPOSURE, state=State.HALTED, position_known=False)])
@pytest.mark.parametrize("room", [None, changed(ROOM, budget=False, rate=False, orders=99)])
def test_cancels_always_pass(exposure: Exposure | None, room: Room | None) -> None:
    order = CancelOrder("L", "id", BID)
    assert review(order, exposure, room) == Approved(order)


@pytest.mark.parametrize(("exposure", "room"), [(None, ROOM), (EXPOSURE, None), (None, None)])
@pytest.mark.parametrize("order", [place(), ReduceOrder("L", ASK, 1000, 5)])
def test_nothing_known_is_a_refusal(order: PlaceOrder, exposure: Exposure | None, room: Room | None) -> None:
    verdict = review(order, exposure, room)
    assert isinstance(verdict, Refused) and verdict.rule is Rule.STATE
    assert type(verdict.number) is type(verdict.limit) is str


@pytest.mark.parametrize(
    ("order", "room", "rule", "limit", "key"),
    [
        pytest.param(
            place(),
            {"budget": False},
            Rule.BUDGET,
            "one above the cancels' reserve and the turns of who waits longer",
            "",
            id="no credits",
        ),
        pytest.param(
            place(), {"rate": False}, Rule.MESSAGE_RATE, "20 a second", "max_places_per_second", id="too many places"
        ),
        pytest.param(
            AmendOrder("L", "id", BID, 995, 10, 10),
            {"rate": False},
            Rule.MESSAGE_RATE,
            "100 a second",
            "max_amends_per_second",
            id="too many amends",
        ),
        pytest.param(place(), {"orders": 10}, Rule.OPEN_ORDERS, "10 orders", "max_open_orders", id="too many orders"),
    ],
)
def test_messages_and_orders_are_counted_apart(
    order: PlaceOrder, room: dict[str, Any], rule: Rule, limit: str, key: str
) -> None:
    verdict = review(order, EXPOSURE, changed(ROOM, **room))
    assert isinstance(verdict, Refused)
    assert (verdict.rule, verdict.limit, verdict.key) == (rule, limit, key)


@pytest.mark.parametrize(
    ("price", "ends", "passes"),
    [
        pytest.param(950, (940.0, 1060.0), True, id="inside"),
        pytest.param(940, (940.0, 1060.0), True, id="at the low end"),
        pytest.param(939, (940.0, 1060.0), False, id="below"),
        pytest.param(1061, (940.0, 1060.0), False, id="above"),
        pytest.param(1000, (0.0, 0.0), False, id="no volatility of the mark: refused"),
    ],
)
def test_an_option_has_a_collar_in_volatility_as_well(price: int, ends: tuple[float, float], passes: bool) -> None:
    rules = changed(RULES, collar_vol_points=10.0)
    verdict = review(place(price=price), changed(EXPOSURE, rules=rules, vol_low=ends[0], vol_high=ends[1]), ROOM)
    assert isinstance(verdict, Approved) is passes
    if isinstance(verdict, Refused):
        assert (verdict.rule, verdict.key) == (Rule.VOL_COLLAR, "collar_vol_points")


def test_a_cheap_option_may_drift_by_ticks() -> None:
    """From 2 to 5 ticks is 6,000 bps and nothing that means danger."""
    cheap = changed(EXPOSURE, reference_ticks=5.0, drift_low=2.0, drift_high=5.0, lot_usd=1.0)
    assert isinstance(review(place(price=5), changed(cheap, rules=DRIFTING), ROOM), Approved)


def reduce(side: Side = ASK, lots: int = 30, price: int = 990) -> ReduceOrder:
    return ReduceOrder("L", side, price, lots)


def test_a_closing_order_passes_outside_active_only() -> None:
    for state in State:
        verdict = review(reduce(), changed(CLOSABLE, state=state), ROOM)
        assert isinstance(verdict, Approved) is (state in (State.PAUSED, State.HALTED)), state


@pytest.mark.parametrize(
    ("order", "fields", "rule"),
    [
        pytest.param(reduce(lots=31), {}, Rule.REDUCE_ONLY, id="more than the position: it would flip"),
        pytest.param(reduce(BID), {}, Rule.REDUCE_ONLY, id="the wrong side adds to it"),
        pytest.param(reduce(), {"position_lots": 0}, Rule.REDUCE_ONLY, id="nothing to close"),
        pytest.param(reduce(), {"position_known": False}, Rule.POSITION, id="position unknown"),
        pytest.param(reduce(), {"others_on_side": 1, "other_lots": 5}, Rule.ONE_ORDER, id="a second order"),
        pytest.param(reduce(price=799), {}, Rule.COLLAR, id="too far from the reference"),
        pytest.param(reduce(lots=51), {"position_lots": 60}, Rule.ORDER_SIZE, id="too large"),
        pytest.param(reduce(), {"lot_usd": 0.0}, Rule.ORDER_VALUE, id="worth unknown"),
    ],
)
def test_a_closing_order_is_held_to_the_same_rules(order: ReduceOrder, fields: dict[str, Any], rule: Rule) -> None:
    verdict = review(order, changed(CLOSABLE, **fields), ROOM)
    assert isinstance(verdict, Refused) and verdict.rule is rule
    # Plain text, no enumeration: what a replay reads back from the journal is the same then.
    assert type(verdict.number) is type(verdict.limit) is str


def test_bounds_do_not_hinder_closing() -> None:
    outside = changed(CLOSABLE, position_lots=500, min_lots=0, max_lots=0)
    assert isinstance(review(reduce(lots=50), outside, ROOM), Approved)


@given(position=st.integers(-100, 100), lots=st.integers(-5, 120), side=st.sampled_from(Side))
def test_a_closing_order_never_flips_the_position(position: int, lots: int, side: Side) -> None:
    order = ReduceOrder("L", side, 1000, lots)
    if isinstance(review(order, changed(CLOSABLE, position_lots=position), ROOM), Approved):
        after = position + lots if side is BID else position - lots
        assert abs(after) < abs(position) and after * position >= 0


@given(
    position=st.integers(-200, 200),
    lots=st.integers(1, 50),
    other=st.integers(0, 100),
    own=st.integers(0, 100),
    side=st.sampled_from(Side),
    amends=st.booleans(),
)
def test_an_approved_order_fits_in_the_worst_case(
    position: int, lots: int, other: int, own: int, side: Side, amends: bool
) -> None:
    exposure = changed(EXPOSURE, position_lots=position, other_lots=other, own_lots=own)
    order = AmendOrder("L", "id", side, 1000, lots + 7, lots) if amends else place(side, 1000, lots)
    worst = other + max(lots, own)
    fits = position + worst <= 100 if side is BID else position - worst >= -100
    assert isinstance(review(order, exposure, ROOM), Approved) is fits


def test_an_amend_adds_no_order() -> None:
    full = changed(ROOM, orders=10)
    assert isinstance(review(AmendOrder("x", "id", BID, 995, 10, 10), EXPOSURE, full), Approved)
