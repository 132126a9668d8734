"""An exchange that does not answer at the start: what may be held there counts, at worst, until it has told."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from portfolio_kit import MARKET, MAX_LOTS, Book, Symbol, key, limits, replay, worth
from test_portfolio_properties import QUIET, TIGHT, act

from mmd.core.portfolio import PortfolioMachine
from mmd.domain.totals import (
    ExchangeAwaited,
    ExchangeTold,
    LeftBehind,
    LeftCounted,
    LossLimits,
    SymbolJoined,
    SymbolLeft,
)
from mmd.replay.memory import load, save

OTHER = [name for name in sorted(MARKET) if MARKET[name][0].exchange == "other"]
HERE = [name for name in sorted(MARKET) if name not in OTHER]
LIMITS = limits(btc="10", eth="1000", usd="10000000")


def left(name: str, lots: int, worst_lots: int, **changes: Any) -> LeftBehind:
    coins, usd, _ = worth(name)
    made = LeftBehind(instrument=MARKET[name][0], lots=lots, coins=coins, usd=usd, worst_lots=worst_lots)
    return msgspec.structs.replace(made, **changes)


def awaiting(*there: LeftBehind, known: bool = True) -> Book:
    """Nobody of the others has joined yet."""
    book = Book(LIMITS)
    book.tell(ExchangeAwaited("other", there, known))
    return book


def bound_of_c(*there: LeftBehind, known: bool = True) -> int:
    """What C may have beside what is awaited."""
    book = awaiting(*there, known=known)
    book.join("C", 1000)
    book.settle()
    return book.symbols["C"].bound


def test_an_order_that_may_be_out_there_takes_room_from_everybody() -> None:
    coins = worth("D")[0]
    free = bound_of_c()
    assert bound_of_c(left("D", 10, 0)) == bound_of_c(left("D", -10, 10)) == free - round(10 * coins / worth("C")[0])
    assert bound_of_c(left("D", 10, 30)) == bound_of_c(left("D", 0, 30)) < bound_of_c(left("D", 10, 0))
    assert bound_of_c(left("D", 10, 30), left("G", 0, 5)) == bound_of_c(left("D", 10, 30))  # another coin


def test_who_cannot_be_valued_gives_nobody_room() -> None:
    assert bound_of_c(left("D", 0, 30, coins=0.0)) == bound_of_c(left("D", 0, 30, usd=0.0)) == 0
    over = msgspec.structs.replace(MARKET["D"][0], expiry_ns=1)
    assert bound_of_c(left("D", 0, 30, coins=0.0, instrument=over)) == bound_of_c()  # nothing can fill any more


def test_where_nobody_knows_nobody_gets_room_until_it_has_told() -> None:
    book = awaiting(known=False)
    book.join("C", 1000)
    book.settle()
    assert book.symbols["C"].bound == 0 and not book.trips
    again = load(save(book.machine))
    assert isinstance(again, PortfolioMachine) and again.awaited == {"other": False}  # the next process knows no more
    book.join("D", MAX_LOTS["D"], lots=7)
    book.settle()
    assert book.symbols["C"].bound == book.symbols["D"].bound == 0
    book.tell(ExchangeTold("other"))
    book.settle()
    assert book.symbols["C"].bound > 0 and book.symbols["D"].bound > 0 and book.machine.awaited == {}
    replay(book.log, LIMITS)


def test_two_are_awaited_each_for_itself() -> None:
    book = awaiting(known=False)
    book.tell(ExchangeAwaited("third", (), known=False))
    book.join("C", 1000)
    book.tell(ExchangeTold("other"))
    book.settle()
    assert book.symbols["C"].bound == 0
    book.tell(ExchangeTold("third"))
    book.settle()
    assert book.symbols["C"].bound > 0


def test_what_nobody_takes_over_is_held_without_orders_once_it_has_told() -> None:
    book = awaiting(left("D", 10, 30), left("G", 0, 5))
    book.join("C", 1000)
    book.settle()
    before = book.symbols["C"].bound
    book.tell(ExchangeTold("other"))
    book.settle()
    assert {name: share.lots for name, share in book.machine.left_behind.items()} == {key("D"): 10}
    assert book.symbols["C"].bound > before
    assert [one.worst_lots for one in book.machine.carried().left] == [0]


@pytest.mark.parametrize("lots", [12, 0])
def test_a_fill_that_is_counted_meanwhile_frees_no_room(lots: int) -> None:
    """Of how many orders it was, nobody can say."""
    book = awaiting(left("D", 10, 30))
    book.join("C", 1000)
    book.settle()
    before = book.symbols["C"].bound
    book.tell(LeftCounted(key("D"), lots))
    book.settle()
    assert book.symbols["C"].bound == before
    assert book.machine.left_behind[key("D")].lots == lots


def test_who_joins_is_charged_at_worst_until_it_has_acknowledged() -> None:
    """Its orders of the last process may fill until they are gone: nobody else is given that room before."""
    book = awaiting(left("D", 10, 90))
    book.join("C", 60)
    book.settle()
    book.symbols["D"] = Symbol(10)
    book.tell(SymbolJoined(MARKET["D"][0], 20, LossLimits()))
    book.tell(ExchangeTold("other"), book.now("D"))
    assert book.machine.shares[key("D")].worst_lots == 90
    book.settle()
    assert book.machine.shares[key("D")].worst_lots == book.symbols["D"].bound < 90
    book.tell(SymbolLeft(key("D"), 10))
    assert book.machine.left_behind[key("D")].worst_lots == 10


@pytest.mark.parametrize("name", sorted(TIGHT))
@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_total_is_passed_whenever_it_comes(name: str, data: st.DataObject) -> None:
    """The last process used what it was granted; the others go on; what rests there fills whenever it likes."""
    steps = st.lists(st.tuples(st.sampled_from(QUIET), st.sampled_from(HERE), st.integers(0, 99)), max_size=40)
    before = Book(TIGHT[name])
    for each in sorted(MARKET):
        before.join(each, MAX_LOTS[each])
    before.settle()
    worst = {each: before.symbols[each].held for each in OTHER}
    lots = {each: data.draw(st.integers(-worst[each], worst[each])) for each in OTHER}
    book = Book(TIGHT[name])
    there = tuple(left(each, lots[each], worst[each]) for each in OTHER if worst[each])
    book.tell(ExchangeAwaited("other", there, known=True))
    book.left = dict(worst)  # that much it may be by now
    for step in data.draw(steps):
        act(book, step)
        book.check()
    for each in OTHER:
        book.left.pop(each)
        book.symbols[each] = Symbol(data.draw(st.integers(-worst[each], worst[each])))
        book.symbols[each].held = worst[each]
        book.tell(SymbolJoined(MARKET[each][0], MAX_LOTS[each], LossLimits()))
        book.outbox.append(book.now(each))
        book.check()
    book.tell(ExchangeTold("other"))
    for step in data.draw(
        st.lists(st.tuples(st.sampled_from(QUIET), st.sampled_from(sorted(MARKET)), st.integers(0, 99)))
    ):
        act(book, step)
        book.check()
    book.settle()
    book.check()
    assert not book.trips
    replay(book.log, TIGHT[name])
