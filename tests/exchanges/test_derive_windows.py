"""Derive's windows of requests: whatever is asked when, and wherever a window begins, it holds no more than it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.budget import Budget
from mmd.exchanges.derive.account import order_limits
from mmd.exchanges.derive.windows import (
    OUR_SHARE,
    QUESTION_RATE,
    WINDOW_SECONDS,
    WalletPaces,
    WindowPace,
    address_paces,
    bucket,
)

NS = 1_000_000_000
TINY = 1e-9


def fullest(times: list[float]) -> int:
    """How many of them the fullest window has."""
    return max(sum(begin <= at < begin + WINDOW_SECONDS - TINY for at in times) for begin in times)


@given(st.integers(1, 60), st.lists(st.floats(0.0, 3.0), min_size=1, max_size=120))
def test_no_window_has_more_than_it_may(most: int, pauses: list[float]) -> None:
    pace, now, sent = WindowPace(most), 0.0, []
    for pause in pauses:
        now += pause
        now += pace.take(now)
        sent.append(now)
    assert fullest(sent) <= most


@given(st.integers(1, 40), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=120))
def test_no_window_has_more_orders_than_it_may(most: int, pauses: list[float]) -> None:
    """The gate's bucket, asked without end; the reserve is part of the burst."""
    budget, now, sent = Budget(*order_limits(most / WINDOW_SECONDS)), 1.0, []
    for pause in pauses:
        now += pause
        if budget.left(round(now * NS)) >= 1.0:
            budget.spend(round(now * NS))
            sent.append(now)
    assert not sent or fullest(sent) <= most


def test_a_new_limit_counts_from_now_on() -> None:
    pace = WindowPace(4)
    assert [pace.take(0.0) for _ in range(3)] == [0.0, 0.0, 2.5]
    pace.hold(100)
    assert pace.take(0.0) == pytest.approx(0.2)  # what is owed stays owed
    assert [pace.take(10.0) for _ in range(50)] == [0.0] * 50


@pytest.mark.parametrize("per_second", [0.0, -1.0, 0.19, float("inf"), float("nan")])
def test_what_is_no_budget(per_second: float) -> None:
    with pytest.raises(ValueError, match="are no budget"):
        bucket(per_second)
    paces = WalletPaces()
    with pytest.raises(ValueError, match="are no budget"):
        paces.hold(matching=per_second, questions=100.0)
    assert [paces.charge("private/get_account", 0.0) > 0 for _ in range(11)] == [False] * 10 + [True]


def test_the_smallest_budget_lets_an_order_pass() -> None:
    budget = Budget(*order_limits(0.2))
    assert budget.allows(NS)
    budget.spend(NS)
    assert not budget.allows(NS)


def test_each_class_has_a_window_of_its_own() -> None:
    paces = WalletPaces()
    paces.hold(matching=2.0, questions=5.0)
    assert [paces.charge("private/get_subaccount", 0.0) > 0 for _ in range(11)] == [False] * 10 + [True]
    assert [paces.charge("private/cancel", 0.0) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert [paces.charge("private/cancel_all", 0.0) > 0 for _ in range(3)] == [False] * 2 + [True]


def test_a_listing_leaves_room_for_other_questions() -> None:
    paces = address_paces()
    assert [paces.charge("public/get_all_instruments", 0.0) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert [paces.charge("subscribe", 0.0) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert QUESTION_RATE * WINDOW_SECONDS * OUR_SHARE == 20
