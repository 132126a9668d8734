"""What of ours rested on a side when, and where a book of some time may show it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.trail import LENGTH, Rest, noted, rested

TRAIL: tuple[Rest, ...] = ((10, 100, 5), (20, 0, 0), (30, 101, 5), (30, 101, 2))


@pytest.mark.parametrize(
    ("book_ns", "expected"),
    [
        pytest.param(9, None, id="older than what is known"),
        pytest.param(10, None, id="of the time of the first change: what rested before is not known"),
        pytest.param(11, ((100, 5),), id="the first"),
        pytest.param(20, ((100, 5),), id="gone in that instant: may show"),
        pytest.param(25, (), id="gone"),
        pytest.param(30, ((101, 2), (101, 5)), id="two changes at once"),
        pytest.param(31, ((101, 2),), id="now"),
    ],
)
def test_where_a_book_may_show_us(book_ns: int, expected: tuple[tuple[int, int], ...] | None) -> None:
    assert rested(TRAIL, book_ns) == expected


def test_nothing_is_known_without_a_trail() -> None:
    assert rested((), 10**18) is None


def test_a_time_that_goes_back_is_no_time() -> None:
    """Late word, or the exchange's clock was set back: an order whose place was never noted must not look external."""
    assert noted(TRAIL, 29, 90, 1) == ()
    assert noted((), 29, 90, 1) == ((29, 90, 1),)


def test_what_is_told_twice_is_noted_once() -> None:
    assert noted(TRAIL, 30, 101, 2) == TRAIL, "told twice"
    assert noted(TRAIL, 30, 0, 0) == (*TRAIL, (30, 0, 0))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9), st.integers(0, 5)), max_size=40))
def test_it_is_bounded_in_order_and_ends_with_what_rests_now(changes: list[Rest]) -> None:
    trail: tuple[Rest, ...] = ()
    for change in changes:
        before, trail = trail, noted(trail, *change)
        assert trail == () if before and change[0] < before[-1][0] else trail[-1] == change
    assert len(trail) <= LENGTH
    assert [since for since, _, _ in trail] == sorted(since for since, _, _ in trail)
    if trail:
        _, price, lots = trail[-1]
        assert rested(trail, trail[-1][0] + 1) == (((price, lots),) if lots else ())
