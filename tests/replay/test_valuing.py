"""What the portfolio is told of a symbol whose mark nobody can vouch for any more."""

from core_kit import NS, START_NS
from core_playbook import Play

from mmd.domain.totals import Valued
from mmd.replay.valuing import valued

KEY = "deribit/PLAIN"
UNKNOWN = Valued(KEY, 10, 0.0, 0.0, None)


def holding(lots: int) -> Play:
    """A position at 100, a book and a ticker that agree."""
    return Play().connected(position=lots).sees_book(990, 1010).sees_ticker(100.0)


def test_a_dead_ticker_leaves_a_position_without_a_value() -> None:
    """The book falls by four in a hundred while the mark stands still: that is no profit of nothing."""
    play = holding(10)
    for second in range(12):
        assert valued(play.machine, play.now_ns) == Valued(KEY, 10, 100.0, 100.0, 0.0), second
        play.after(1.0).sees_book(950, 970)
    assert valued(play.machine, play.now_ns) == UNKNOWN
    play.sees_ticker(96.0)
    assert valued(play.machine, play.now_ns) == Valued(KEY, 10, 96.0, 100.0, -40.0)


def test_an_old_mark_is_none_also_where_book_and_ticker_agree() -> None:
    play = holding(10)
    play.sees_book(990, 1010)
    assert valued(play.machine, START_NS + 30 * NS) == Valued(KEY, 10, 100.0, 100.0, 0.0)
    assert valued(play.machine, START_NS + 30 * NS + 1) == UNKNOWN


def test_nothing_held_needs_no_mark() -> None:
    assert valued(holding(0).machine, START_NS + 3600 * NS) == Valued(KEY, 0, 100.0, 100.0, 0.0)
