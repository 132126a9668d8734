"""What stands between a wanted quote and a message: the plan and the budget."""

from decimal import Decimal

import pytest
from core_kit import ASK, BID, NS, PLAIN, changed, settings
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.budget import Budget, Turns
from mmd.core.orders import EMPTY, Amending, Cancelling, Live, Placing, Slot, Unknown
from mmd.core.plan import Change, plan_side
from mmd.core.quoting import Quoted, Wanted, Withheld
from mmd.core.rules import rules_for
from mmd.domain.reasons import Missing, Phase
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
        pytest.param(Wanted(990, 10, 4.0), live(), 9.0, Change.KEEP, id="wider by the grid only: keeps its place"),
        pytest.param(Wanted(990, 10, 3.0), live(), 0.0, Change.AMEND, id="wider by more than the grid: at once"),
        pytest.param(Wanted(1000, 10, 4.9), live(), 1.0, Change.AMEND, id="tighter on the grid: it is wanted there"),
        pytest.param(Wanted(995, 6), live(), 0.0, Change.AMEND, id="too large: at once"),
        pytest.param(Wanted(995, 6), live(filled=4), 0.0, Change.KEEP, id="what is left is what is wanted"),
        pytest.param(Wanted(995, 10), live(filled=5), 9.0, Change.KEEP, id="half is left: not worth the queue"),
        pytest.param(Wanted(995, 10), live(filled=6), 9.0, Change.AMEND, id="less than half: top up"),
        pytest.param(Wanted(995, 10), live(filled=6), 0.5, Change.KEEP, id="a top-up waits too"),
    ],
)
def test_plan_for_a_bid(wanted: Quoted, slot: Slot, age_seconds: float, expected: Change) -> None:
    changed_ns = NOW - int(age_seconds * NS)
    assert plan_side(BID, wanted, slot, RULES, 1.5, changed_ns, NOW, NOW) is expected


@pytest.mark.parametrize(
    ("wanted", "age_seconds", "expected"),
    [
        pytest.param(1010, 0.0, Change.AMEND, id="an ask widens upwards"),
        pytest.param(1001, 0.0, Change.KEEP, id="an ask tightens downwards"),
        pytest.param(1001, 2.0, Change.AMEND, id="after the interval"),
    ],
)
def test_plan_for_an_ask(wanted: int, age_seconds: float, expected: Change) -> None:
    found = plan_side(ASK, Wanted(wanted, 10), live(1005), RULES, 1.5, NOW - int(age_seconds * NS), NOW, NOW)
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
    assert plan_side(BID, wanted, slot, RULES, 1.5, 0, NOW, NOW) is Change.KEEP


def test_replace_cancels_instead_of_amending() -> None:
    replace = changed(RULES, requote=Requote.REPLACE)
    assert plan_side(BID, Wanted(990, 10), live(), replace, 1.5, 0, NOW, NOW) is Change.CANCEL


@pytest.mark.parametrize(
    ("wanted", "age_seconds", "requote", "expected"),
    [
        pytest.param(Wanted(995, 10), 419.0, Requote.AMEND, Change.KEEP, id="young enough"),
        pytest.param(Wanted(995, 10), 420.0, Requote.AMEND, Change.AMEND, id="renewed where it is"),
        pytest.param(Wanted(996, 10), 420.0, Requote.AMEND, Change.AMEND, id="renewed where it is wanted"),
        pytest.param(Wanted(995, 10), 420.0, Requote.REPLACE, Change.CANCEL, id="cancelled, and placed anew"),
        pytest.param(NO, 420.0, Requote.AMEND, Change.CANCEL, id="not wanted"),
    ],
)
def test_an_order_that_would_end_by_itself_is_renewed(
    wanted: Quoted, age_seconds: float, requote: Requote, expected: Change
) -> None:
    rules = rules_for(PLAIN, settings(requote=requote, order_life_seconds=600.0))
    sent_ns = NOW - int(age_seconds * NS)
    assert plan_side(BID, wanted, live(), rules, 1.5, NOW, sent_ns, NOW) is expected


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


def test_an_untouched_order_follows_a_larger_wish() -> None:
    """A reload that doubles the size is no partial fill."""
    assert plan_side(BID, Wanted(995, 15), live(), RULES, 0.0, 0, 9 * NS, 9 * NS) is Change.AMEND
    assert plan_side(BID, Wanted(995, 15), live(total=20, filled=8), RULES, 0.0, 0, 9 * NS, 9 * NS) is Change.KEEP


def test_who_asked_in_vain_comes_first_and_once() -> None:
    budget, turns = Budget(rate_per_second=1.0, burst=5.0, reserve=2.0), Turns()
    budget.empty_until(NOW)
    for key in ("a", "b", "a"):
        turns.refused(key, NOW)  # to ask again costs nobody his place
    assert [turns.ahead(key, NOW) for key in ("a", "b", "c")] == [0, 1, 2]
    later = NOW + 3 * NS  # one token above the reserve, which is a's
    for key in ("a", "b"):
        turns.refused(key, later)
    assert [budget.allows(later, turns.ahead(key, later)) for key in ("a", "b", "c")] == [True, False, False]
    turns.served("a")
    turns.refused("a", later)
    assert [turns.ahead(key, later) for key in ("a", "b", "c")] == [1, 0, 2]


def test_who_asks_no_more_has_no_turn() -> None:
    turns = Turns()
    turns.refused("a", NOW)
    turns.refused("b", NOW + NS)
    assert turns.ahead("c", NOW + NS) == 2
    assert turns.ahead("c", NOW + NS + 1) == 1
    turns.refused("a", NOW + NS + 1)  # anew: behind b
    assert [turns.ahead(key, NOW + NS + 1) for key in ("b", "a")] == [0, 1]
