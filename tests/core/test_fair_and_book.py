"""Fair values, and the book without our own orders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.book import Touch, best_external
from mmd.core.fair import FROM_BOOK, fair_value, microprice, mid, weighted_mid
from mmd.domain.reasons import Missing
from mmd.domain.settings import Fair


@pytest.mark.parametrize(
    ("touch", "expected"),
    [
        pytest.param(Touch(100, 10, 110, 10), (105.0, 105.0, 105.0), id="balanced: all alike"),
        pytest.param(Touch(100, 30, 110, 10), (105.0, 107.5, 105 + 5 * (0.25 + 0.0625)), id="buyers: up"),
        pytest.param(Touch(100, 10, 110, 30), (105.0, 102.5, 105 - 5 * (0.25 + 0.0625)), id="sellers: down"),
        pytest.param(Touch(100, 1, 101, 10**9), (100.5, 100.0, 100.0), id="one-sided weight stays inside the book"),
    ],
)
def test_fair_from_the_book(touch: Touch, expected: tuple[float, float, float]) -> None:
    assert (mid(touch), weighted_mid(touch), microprice(touch)) == pytest.approx(expected)


@given(bid=st.integers(1, 10**6), width=st.integers(1, 1000), b=st.integers(1, 10**6), a=st.integers(1, 10**6))
def test_every_fair_value_lies_in_the_book_and_is_symmetric(bid: int, width: int, b: int, a: int) -> None:
    touch, mirrored = Touch(bid, b, bid + width, a), Touch(bid, a, bid + width, b)
    for fair in FROM_BOOK.values():
        assert bid - 1e-6 <= fair(touch) <= bid + width + 1e-6
        assert fair(touch) + fair(mirrored) == pytest.approx(2 * mid(touch))
    assert abs(microprice(touch) - mid(touch)) <= abs(weighted_mid(touch) - mid(touch)) + 1e-6


@pytest.mark.parametrize(
    ("kind", "touch", "mark", "index", "expected"),
    [
        pytest.param(Fair.MARK, Touch(0, 0, 0, 0), 77.0, 0.0, 77.0, id="mark needs no book"),
        pytest.param(Fair.INDEX, Touch(0, 0, 0, 0), 0.0, 78.0, 78.0, id="index needs no book"),
        pytest.param(Fair.MARK, Touch(1, 1, 2, 1), 0.0, 78.0, Missing.NO_MARK, id="no mark"),
        pytest.param(Fair.INDEX, Touch(1, 1, 2, 1), 77.0, 0.0, Missing.NO_INDEX, id="no index"),
        pytest.param(Fair.MID, Touch(0, 0, 9, 1), 77.0, 78.0, Missing.NO_BID, id="no bid"),
        pytest.param(Fair.MICROPRICE, Touch(9, 1, 0, 0), 77.0, 78.0, Missing.NO_ASK, id="no ask"),
        pytest.param(Fair.WEIGHTED_MID, Touch(0, 0, 0, 0), 77.0, 78.0, Missing.NO_BOOK, id="no book"),
    ],
)
def test_fair_or_what_is_missing(
    kind: Fair, touch: Touch, mark: float, index: float, expected: float | Missing
) -> None:
    assert fair_value(kind, touch, mark, index) == expected


LEVELS = ((100, 10), (99, 20), (98, 30))


@pytest.mark.parametrize(
    ("levels", "own", "least", "expected"),
    [
        pytest.param((), (), 0, (0, 0), id="empty"),
        pytest.param(LEVELS, (), 0, (100, 10), id="nothing of ours"),
        pytest.param(LEVELS, ((100, 10),), 0, (99, 20), id="ours alone at the touch"),
        pytest.param(LEVELS, ((100, 4),), 0, (100, 6), id="ours with others"),
        pytest.param(LEVELS, ((100, 11),), 0, (100, 10), id="smaller than ours: the book does not show it yet"),
        pytest.param(LEVELS, ((100, 10), (99, 20)), 0, (98, 30), id="amending: old price and new price"),
        pytest.param(LEVELS, ((99, 20), (99, 8)), 0, (100, 10), id="elsewhere"),
        pytest.param(((100, 16),), ((100, 6), (100, 10)), 0, (100, 6), id="shown once: the largest that fits"),
        pytest.param(((100, 8),), ((100, 6), (100, 10)), 0, (100, 2), id="shown once: the larger does not fit"),
        pytest.param(LEVELS, (), 15, (99, 20), id="thin levels are stepped over"),
        pytest.param(LEVELS, ((99, 8),), 15, (98, 30), id="thin without ours"),
        pytest.param(LEVELS, (), 31, (0, 0), id="all thin"),
    ],
)
def test_best_external(
    levels: tuple[tuple[int, int], ...], own: tuple[tuple[int, int], ...], least: int, expected: tuple[int, int]
) -> None:
    assert best_external(levels, own, least) == expected
