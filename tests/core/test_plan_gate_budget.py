"""What stands between a wanted quote and a message: the plan, the gate, the budget."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from core_kit import ASK, BID, NS, OPTION, PLAIN, changed, settings
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.budget import Budget
from mmd.core.gate import Exposure, Refused, review
from mmd.core.orders import EMPTY, Amending, Cancelling, Live, Placing, Slot, Unknown
from mmd.core.plan import Change, plan_side
from mmd.core.quoting import Quoted, Wanted, Withheld
from mmd.core.rules import rules_for
from mmd.domain.actions import AmendOrder, Approved, CancelOrder, PlaceOrder
from mmd.domain.reasons import Missing, Phase, Rule, Side, State
from mmd.domain.settings import Requote

RULES = rules_for(PLAIN, settings(requote=Requote.AMEND, refresh_seconds=1.0, limits={"max_order_size": Decimal(50)}))
NOW = 100 * NS
NO = Withheld(Missing.NO_ROOM)


def live(price: int = 995, total: int = 10, filled: int = 0) -> Live:
    return Live("L", "id", price, total, filled, 0)


@pytest.mark.parametrize(
    ("wanted", "slot", "age_seconds", "expected"),
    [
        pytest.param(Wanted(995, 10), EMPTY, 0.0, Change.PLACE, id="nothing there: place at once"),
        pytest.param(NO, EMPTY, 9.0, Change.KEEP, id="nothing wanted, nothing there"),
        pytest.param(NO, live(), 0.0, Change.CANCEL, id="withheld: cancel at once"),
        pytest.param(Wanted(995, 10), live(), 9.0, Change.KEEP, id="as wanted"),
        pytest.param(Wanted(990, 10), live(), 0.0, Change.AMEND, id="widening at once"),
        pytest.param(Wanted(999, 10), live(), 0.99, Change.KEEP, id="tightening waits"),
        pytest.param(Wanted(999, 10), live(), 1.0, Change.AMEND, id="tightening after the refresh interval"),
        pytest.param(Wanted(994, 10), live(), 9.0, Change.KEEP, id="within tolerance keeps its place: wider"),
        pytest.param(Wanted(996, 10), live(), 9.0, Change.KEEP, id="within tolerance keeps its place: tighter"),
        pytest.param(Wanted(995, 6), live(), 0.0, Change.AMEND, id="too large: at once"),
        pytest.param(Wanted(995, 6), live(filled=4), 0.0, Change.KEEP, id="what is left is what is wanted"),
        pytest.param(Wanted(995, 10), live(filled=5), 9.0, Change.KEEP, id="half is left: not worth the queue"),
        pytest.param(Wanted(995, 10), live(filled=6), 9.0, Change.AMEND, id="less than half: top up"),
        pytest.param(Wanted(995, 10), live(filled=6), 0.5, Change.KEEP, id="a top-up waits too"),
    ],
)
def test_plan_for_a_bid(wanted: Quoted, slot: Slot, age_seconds: float, expected: Change) -> None:
    changed_ns = NOW - int(age_seconds * NS)
    assert plan_side(BID, wanted, slot, RULES, 1.5, changed_ns, NOW) is expected


@pytest.mark.parametrize(
    ("wanted", "age_seconds", "expected"),
    [
        pytest.param(1010, 0.0, Change.AMEND, id="an ask widens upwards"),
        pytest.param(1001, 0.0, Change.KEEP, id="an ask tightens downwards"),
        pytest.param(1001, 2.0, Change.AMEND, id="after the interval"),
    ],
)
def test_plan_for_an_ask(wanted: int, age_seconds: float, expected: Change) -> None:
    found = plan_side(ASK, Wanted(wanted, 10), live(1005), RULES, 1.5, NOW - int(age_seconds * NS), NOW)
    assert found is expected


@pytest.mark.parametrize(
    "slot",
    [
        Placing("L", 995, 10, 0, 0),
        Amending("L", "id", 995, 10, 0, 996, 10, 0),
        Cancelling("L", "id", 995, 10, 0, 0),
        Unknown("L", "id", 995, 10, 0, Phase.LIVE, 0, 0, 0),
    ],
    ids=lambda slot: slot.phase,
)
@pytest.mark.parametrize("wanted", [NO, Wanted(500, 1)], ids=["nothing", "another price"])
def test_one_request_in_flight(slot: Slot, wanted: Quoted) -> None:
    assert plan_side(BID, wanted, slot, RULES, 1.5, 0, NOW) is Change.KEEP


def test_replace_cancels_instead_of_amending() -> None:
    replace = changed(RULES, requote=Requote.REPLACE)
    assert plan_side(BID, Wanted(990, 10), live(), replace, 1.5, 0, NOW) is Change.CANCEL


# --- gate ---------------------------------------------------------------------------------------------

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
    budget_allows=True,
)


def place(side: Side = BID, price: int = 995, lots: int = 10) -> PlaceOrder:
    return PlaceOrder("L", side, price, lots)


def test_the_gate_approves_what_breaks_no_rule() -> None:
    assert review(place(), EXPOSURE) == Approved(place())


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
            place(),
            {"budget_allows": False},
            Rule.BUDGET,
            "credits below the cancels' reserve",
            "one credit above it",
            id="no credits",
        ),
    ],
)
def test_the_gate_names_the_rule_and_both_numbers(
    order: PlaceOrder, fields: dict[str, Any], rule: Rule, number: str, limit: str
) -> None:
    verdict = review(order, changed(EXPOSURE, **fields))
    assert isinstance(verdict, Refused)
    assert (verdict.rule, verdict.number, verdict.limit) == (rule, number, limit)


def test_off_the_grid() -> None:
    on_options = changed(EXPOSURE, rules=rules_for(OPTION, settings(size=1)), reference_ticks=102.0)
    verdict = review(place(price=102), on_options)
    assert isinstance(verdict, Refused) and verdict.rule is Rule.GRID
    assert verdict.limit == "multiples of 5"
    assert isinstance(review(place(price=100), on_options), Approved)


def test_a_position_outside_its_bounds_may_be_reduced() -> None:
    outside = changed(EXPOSURE, position_lots=150)
    assert isinstance(review(place(ASK), outside), Approved)
    assert isinstance(review(place(BID), outside), Refused)


@pytest.mark.parametrize("exposure", [None, changed(EXPOSURE, state=State.HALTED, budget_allows=False)])
def test_cancels_always_pass(exposure: Exposure | None) -> None:
    order = CancelOrder("L", "id", BID)
    assert review(order, exposure) == Approved(order)


def test_nothing_known_is_a_refusal() -> None:
    verdict = review(place(), None)
    assert isinstance(verdict, Refused) and verdict.rule is Rule.STATE


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
    assert isinstance(review(order, exposure), Approved) is fits


# --- budget -------------------------------------------------------------------------------------------


def test_the_reserve_is_for_cancels() -> None:
    budget = Budget(rate_per_second=10.0, burst=5.0, reserve=2.0)
    sent = 0
    while budget.allows(NOW):
        budget.spend(NOW)
        sent += 1
    assert sent == 3
    assert budget.left(NOW) == pytest.approx(2.0)
    for _ in range(4):
        budget.spend(NOW)  # cancels: they may empty it, never below nothing
    assert budget.left(NOW) == 0.0


def test_the_budget_refills_to_the_burst_at_most() -> None:
    budget = Budget(rate_per_second=10.0, burst=5.0, reserve=2.0)
    budget.empty_until(NOW)
    assert budget.left(NOW) == 0.0
    wait_ns = budget.wait_ns(NOW)
    assert not budget.allows(NOW + wait_ns - NS // 100)
    assert budget.allows(NOW + wait_ns)
    assert budget.wait_ns(NOW + wait_ns) == 0
    assert budget.left(NOW + 100 * NS) == 5.0


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    budget = Budget(rate_per_second=10.0, burst=5.0, reserve=0.0)
    budget.empty_until(NOW)
    assert budget.left(NOW - NS) == 0.0
    assert budget.left(NOW) == 0.0


@pytest.mark.parametrize(
    ("rate", "burst", "reserve"),
    [
        pytest.param(0.0, 5.0, 1.0, id="no rate"),
        pytest.param(1.0, 5.0, 5.0, id="all is reserve"),
        pytest.param(1.0, 5.0, -1.0, id="negative reserve"),
    ],
)
def test_impossible_budgets(rate: float, burst: float, reserve: float) -> None:
    with pytest.raises(ValueError, match="no budget"):
        Budget(rate, burst, reserve)


def test_smaller_limits_from_the_exchange_hold_at_once() -> None:
    budget = Budget(rate_per_second=10.0, burst=50.0, reserve=2.0)
    budget.set_limits(rate_per_second=1.0, burst=5.0)
    assert budget.left(NOW) == 5.0
    assert budget.reserve == 2.0


@given(steps=st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), max_size=200))
def test_new_risk_never_exceeds_rate_and_burst(steps: list[tuple[int, bool]]) -> None:
    budget, now, sent = Budget(5.0, 20.0, 5.0), NOW, 0
    budget.left(now)
    for step_ns, wants in steps:
        now += step_ns
        if wants and budget.allows(now):
            budget.spend(now)
            sent += 1
    assert sent <= 15 + (now - NOW) / NS * 5.0 + 1e-6


@pytest.mark.parametrize(("others", "passes"), [(9, True), (10, False)])
def test_no_more_open_orders_than_allowed(others: int, passes: bool) -> None:
    """The total counts for a place; an amend adds no order."""
    seen = msgspec.structs.replace(EXPOSURE, open_orders=others, max_open_orders=10)
    verdict = review(place(), seen)
    if passes:
        assert isinstance(verdict, Approved)
    else:
        assert isinstance(verdict, Refused)
        assert (verdict.rule, verdict.number, verdict.limit) == (Rule.OPEN_ORDERS, "11 orders", "10 orders")
    assert isinstance(review(AmendOrder("x", "id", BID, 995, 10, 10), seen), Approved)


def test_an_untouched_order_follows_a_larger_wish() -> None:
    """A reload that doubles the size is no partial fill."""
    assert plan_side(BID, Wanted(995, 15), live(), RULES, 0.0, 0, 9 * NS) is Change.AMEND
    assert plan_side(BID, Wanted(995, 15), live(total=20, filled=8), RULES, 0.0, 0, 9 * NS) is Change.KEEP
