"""The machine compares with the exchange in four ways, and takes over what an earlier process left."""

from decimal import Decimal
from typing import Any

import pytest
from core_kit import ASK, BID, INVERSE, LINEAR, PLAIN, acked, book, changed, closed, fill, label, machine, settings
from core_playbook import Play, cancel, place

from mmd.core.gate import Refused, Room, review
from mmd.core.orders import Empty, Live, Unknown
from mmd.domain import events as ev
from mmd.domain.actions import CaseClosed, CaseOpened, QueryOrder, QueryState
from mmd.domain.reasons import CaseKind, Missing, Mode, Phase, Response, State, Switch, Why
from mmd.domain.settings import KillSwitches

D = Decimal
BID1, ASK2 = label(BID, 1), label(ASK, 2)


def order(name: str, side: Any, price: int, remaining: int, total: int) -> ev.OpenOrder:
    return ev.OpenOrder(name, f"id-{name}", side, price, remaining, total)


def listed(*orders: ev.OpenOrder) -> ev.OrdersReported:
    return ev.OrdersReported(orders, 1)


def both(bid_left: int = 10) -> ev.OrdersReported:
    return listed(order(BID1, BID, 995, bid_left, 10), order(ASK2, ASK, 1005, 10, 10))


def position(lots: int, average: str = "0", mark: float = 0.0, profit: str | None = None) -> ev.PositionReported:
    return ev.PositionReported(lots, D(average), 1, mark, None if profit is None else D(profit))


def accept(play: Play, kind: CaseKind, subject: str = "") -> Play:
    return play.asks(ev.CaseAccepted, case=kind, subject=subject)


# --- quantities ----------------------------------------------------------------------------------


def test_orders_that_agree_are_no_case() -> None:
    play = Play().quoting().sees(both())
    play.does_nothing().is_in(State.ACTIVE, Why.RESUMED)
    assert not play.cases and not play.machine.doubts


def test_a_fill_that_we_were_not_told_of_is_asked_about_once_and_then_a_case() -> None:
    play = Play().quoting().sees(both(bid_left=6))
    play.does(QueryState()).is_in(State.ACTIVE, Why.RESUMED)
    play.sees(both(bid_left=6)).is_in(State.PAUSED, Why.RECONCILIATION).tripped(Switch.RECONCILIATION)
    assert [(case.case, case.subject) for case in play.cases] == [(CaseKind.QUANTITIES, BID1)]
    opened = play.cases[0]
    assert isinstance(opened, CaseOpened)
    assert opened.ours == "10 at 99.5, 0 lots filled" and opened.theirs == "10 at 99.5, 4 lots filled"


def test_the_fill_comes_in_between_and_nothing_happens() -> None:
    play = Play().quoting().sees(both(bid_left=6)).does(QueryState())
    play.sees(fill(BID1, "t1", BID, 4, "99.5"), both(bid_left=6), position(4, "99.5"))
    assert not play.cases
    play.is_in(State.ACTIVE, Why.RESUMED)


def test_another_difference_is_a_new_doubt_and_not_a_case() -> None:
    play = Play().quoting().sees(both(bid_left=6)).does(QueryState())
    play.sees(both(bid_left=5)).does(QueryState())
    assert not play.cases


def test_a_case_keeps_from_resuming_until_the_order_is_accounted_for() -> None:
    play = Play().quoting().sees(both(bid_left=6)).sees(both(bid_left=6))
    play.todo.clear()
    play.asks(ev.ResumeRequested).replied(False, "no_open_cases")
    play.sees(closed(BID1, 4), closed(ASK2), fill(BID1, "t1", BID, 4, "99.5"))
    assert isinstance(play.slot(BID), Empty)
    play.sees(listed(), position(4, "99.5"))
    assert isinstance(play.cases[-1], CaseClosed) and play.cases[-1].by == "mmd"
    play.sees_book(990, 1010).asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED)


def test_the_exchanges_word_on_an_order_is_accepted() -> None:
    play = Play().quoting().sees(both(bid_left=6)).sees(both(bid_left=6))
    play.sees(closed(BID1, 4), closed(ASK2))
    assert isinstance(play.slot(BID), Unknown)  # four lots that never came
    accept(play, CaseKind.QUANTITIES, BID1).replied(True, "stands", "nothing is resumed")
    assert isinstance(play.slot(BID), Empty) and not play.machine.cases
    assert play.cases[-1] == CaseClosed(CaseKind.QUANTITIES, BID1, "root", "test")


def test_the_configuration_may_say_halt() -> None:
    given = settings()
    responses = {**given.switches.responses, Switch.RECONCILIATION: Response.HALT}
    play = Play(changed(given, switches=changed(KillSwitches(), responses=responses))).quoting()
    play.sees(both(bid_left=6)).sees(both(bid_left=6)).is_in(State.HALTED, Why.RECONCILIATION)


# --- average and profit --------------------------------------------------------------------------


def holding(average: str = "99.5") -> Play:
    play = Play().quoting().sees(fill(BID1, "t1", BID, 10, average))
    play.todo.clear()
    return play


@pytest.mark.parametrize("said", ["99.5", "99.509", "99.491", "0"])
def test_an_average_within_the_tolerance_is_the_same(said: str) -> None:
    play = holding().sees(position(10, said)).sees(position(10, said))
    assert not play.cases


def test_another_average_is_a_case_the_second_time() -> None:
    play = holding().sees(position(10, "99.52")).does(QueryState())
    play.sees(position(10, "99.52")).is_in(State.PAUSED, Why.RECONCILIATION)
    case = play.cases[0]
    assert isinstance(case, CaseOpened)
    assert (case.case, case.ours, case.theirs) == (CaseKind.AVERAGE, "average 99.5", "average 99.52")
    play.sees(position(10, "99.5"))
    assert isinstance(play.cases[-1], CaseClosed)


def test_an_average_that_is_accepted_earns_nothing() -> None:
    play = holding().sees(position(10, "90"), position(10, "90"))
    before = play.machine.position.profit(100.0)
    accept(play, CaseKind.AVERAGE).replied(True, "average 90")
    assert play.machine.position.average == D(90) and play.machine.position.balanced
    after = play.machine.position.profit(100.0)
    assert before is not None and after is not None and after.total == pytest.approx(before.total)


def test_no_tolerance_compares_nothing() -> None:
    play = Play(changed(settings(), average_tolerance_bps=None)).quoting().sees(fill(BID1, "t1", BID, 10, "99.5"))
    play.sees(position(10, "50"), position(10, "50"))
    assert not play.cases


def test_a_profit_that_does_not_follow_from_the_average_is_a_case() -> None:
    play = holding().sees(position(10, "99.5", 101.0, "15.0")).sees(position(10, "99.5", 101.0, "15.0"))
    assert not play.cases  # ten lots, 1.5 each
    play.sees(position(10, "99.5", 101.0, "16.0")).sees(position(10, "99.5", 101.0, "16.0"))
    assert [case.case for case in play.cases] == [CaseKind.AVERAGE]


def test_dust_is_no_difference() -> None:
    play = holding().sees(position(10, "99.5", 99.5, "0.04")).sees(position(10, "99.5", 99.5, "0.04"))
    assert not play.cases


# --- positions -----------------------------------------------------------------------------------


def test_a_drift_is_a_case_as_well_and_a_reset_accepts_it() -> None:
    play = Play().quoting().sees(position(3, "99"), position(3, "99"))
    play.is_in(State.HALTED, Why.POSITION_DRIFT)
    assert [case.case for case in play.cases] == [CaseKind.POSITION]
    play.sees(closed(BID1), closed(ASK2)).asks(ev.ResetRequested).is_in(State.PAUSED, Why.RESET)
    assert play.cases[-1] == CaseClosed(CaseKind.POSITION, "", "root", "test")
    assert play.machine.position.lots == 3


def test_a_drift_is_accepted_and_the_halt_stays() -> None:
    play = Play().quoting().sees(position(3, "99"), position(3, "99"))
    accept(play, CaseKind.POSITION).replied(True, "position 3 is adopted").is_in(State.HALTED, Why.POSITION_DRIFT)
    assert play.machine.position.lots == 3 and not play.machine.cases


def test_a_drift_that_goes_away_is_explained() -> None:
    play = Play().quoting().sees(position(3, "99"), position(3, "99"), fill(BID1, "t1", BID, 3, "99"))
    play.sees(position(3, "99"))
    assert isinstance(play.cases[-1], CaseClosed) and play.cases[-1].reason == "the positions agree"


def lost(play: Play, *labels: str) -> Play:
    """No word any more of these orders."""
    return play.sees(*(ev.RequestLost(name, "test", play.now_ns) for name in labels))


def in_doubt(lots: int = 10) -> Play:
    """The bid, ten lots, may have filled; the exchange's position says so, twice."""
    play = lost(Play(settings(data={"stale_seconds": 60.0})).quoting(), BID1)
    play.todo.clear()
    play.sees(position(lots, "99.5")).sees(position(lots, "99.5"))
    return play.is_in(State.ACTIVE, Why.RESUMED)


def case_and_halt(play: Play) -> None:
    play.is_in(State.HALTED, Why.POSITION_DRIFT).tripped(Switch.POSITION_DRIFT)
    assert [case.case for case in play.cases] == [CaseKind.POSITION]


@pytest.mark.parametrize("lots", [1, 10])
def test_an_order_of_unknown_outcome_may_be_the_difference(lots: int) -> None:
    play = in_doubt(lots).sees(fill(BID1, "t1", BID, lots, "99.5"), position(lots, "99.5"))
    play.is_in(State.ACTIVE, Why.RESUMED).tripped()
    assert not play.cases and not play.machine.doubts and play.machine.drift is None


def test_nothing_is_quoted_meanwhile_and_the_order_is_charged() -> None:
    play = in_doubt().withholds(Missing.POSITION_UNKNOWN).does(QueryState(), cancel(ASK, 2))
    play.sees_book(995, 1000).does_nothing()
    machine = play.machine
    assert machine.own.worst(BID) == 10
    exposure = machine.exposure(place(BID, 5, 900))
    assert (exposure.other_lots, exposure.others_on_side) == (10, 1)
    refused = review(place(BID, 5, 990, 1), exposure, Room(True, True))
    assert isinstance(refused, Refused)
    play.sees(ev.BoundsSet(2, -100, 9, play.now_ns)).does_nothing()  # not acknowledged: ten may fill
    play.asks(ev.PauseRequested).asks(ev.ResumeRequested).replied(False, "no_unknown_orders", "no_drift")


def test_it_is_asked_for_again_and_again_and_at_its_end() -> None:
    play = in_doubt()
    play.todo.clear()
    for _ in range(4):
        play.after(1.9)
        play.todo = [action for action in play.todo if isinstance(action, QueryState)]
        play.does_nothing().after(0.1)
        assert QueryState() in play.todo and QueryOrder(BID1, f"id-{BID1}") in play.todo
        play.todo.clear()
        play.sees(position(10, "99.5")).does_nothing()
    play.after(2.0)
    assert play.todo[0] == QueryState()
    play.tripped(Switch.OUTCOME_UNKNOWN)
    case_and_halt(play.sees(position(10, "99.5")))


def test_the_time_counts_from_the_first_difference() -> None:
    """Also where it has changed since; and a young order is no new excuse."""
    play = in_doubt(4).after(6.0).sees(position(5, "99.5")).after(3.9).sees(position(5, "99.5"))
    lost(play, ASK2)
    assert not play.cases
    play.after(0.2).sees(position(5, "99.5")).is_in(State.HALTED, Why.POSITION_DRIFT)


def test_a_difference_that_was_explained_is_no_burden_for_the_next() -> None:
    play = in_doubt(4).after(9.0).sees(fill(BID1, "t1", BID, 4, "99.5"), position(4, "99.5"))
    assert play.machine.drift is None
    play.after(0.9).sees(position(5, "99.5")).after(1.0).sees(position(5, "99.5"))
    assert play.machine.drift == 1 and not play.cases


@pytest.mark.parametrize(
    "lots", [pytest.param(11, id="more than it may fill"), pytest.param(-1, id="it is on the other side")]
)
def test_what_the_order_cannot_be_is_a_case_the_second_time(lots: int) -> None:
    play = lost(Play().quoting(), BID1).sees(position(lots, "99.5")).sees(position(lots, "99.5"))
    case_and_halt(play)


def test_what_it_has_filled_already_explains_no_more() -> None:
    play = lost(Play().quoting().sees(fill(BID1, "t1", BID, 4, "99.5")), BID1)
    case_and_halt(play.sees(position(11, "99.5")).sees(position(11, "99.5")))


def test_an_order_that_is_known_to_rest_explains_nothing() -> None:
    """Whoever tells that has asked for its fills first."""
    play = in_doubt().sees(acked(BID1, 995, 10)).sees(position(10, "99.5"))
    case_and_halt(play)


def test_an_order_that_never_was_explains_nothing() -> None:
    play = in_doubt().after(2.1).sees(ev.OrderAbsent(BID1, 0), ev.OrderAbsent(BID1, 0))
    assert isinstance(play.slot(BID), Empty)
    case_and_halt(play.sees(position(10, "99.5")))


def test_two_orders_explain_more_than_one_and_sides_do_not_help_each_other() -> None:
    play = lost(Play().quoting(), BID1, ASK2).sees(position(-10, "99.5")).sees(position(-10, "99.5"))
    assert not play.cases and play.machine.own.may_explain(10)
    assert not play.machine.own.may_explain(11) and not play.machine.own.may_explain(-11)


def test_imagined_orders_explain_nothing() -> None:
    play = Play(settings(mode=Mode.SHADOW)).quoting()
    case_and_halt(lost(play, BID1).sees(position(10, "99.5")).sees(position(10, "99.5")))


def test_nothing_is_accepted_that_is_not_open_or_while_it_quotes() -> None:
    play = Play().quoting()
    accept(play, CaseKind.AVERAGE).replied(False, "closed already")
    play.machine.open_case(CaseKind.JOURNAL, "", "a", "b", play.now_ns)
    accept(play, CaseKind.JOURNAL).replied(True)


# --- from one process to the next ----------------------------------------------------------------


def heir_of(old: Play, **more: Any) -> Play:
    """A new process's machine for the same symbol."""
    new = Play(**more)
    new.machine.epoch = "ep2"
    new.machine.inherit(old.machine, new.now_ns)
    return new


def test_position_and_ledger_go_on() -> None:
    old = holding()
    new = heir_of(old)
    assert new.machine.position.lots == 10 and new.machine.position.known
    new.sees(fill(BID1, "t1", BID, 10, "99.5"))
    assert new.machine.position.lots == 10  # told again after the restart: counted once


def test_orders_of_the_last_process_are_asked_about_charged_and_cancelled() -> None:
    new = heir_of(Play().quoting())
    assert set(new.machine.own.strays) == {BID1, ASK2}
    assert new.machine.own.worst(BID) == 10 and new.machine.own.unknown == 2
    new.sees(ev.DataLinkUp(1), ev.TradeLinkUp(True, 1), both(), position(0))
    assert {action.label for action in new.todo if isinstance(action, type(cancel(BID, 1)))} == {BID1, ASK2}
    new.sees(closed(BID1), closed(ASK2))
    assert not new.machine.own.strays and not new.cases


def test_a_position_from_the_journal_quotes_only_once_the_exchange_has_told_its_own() -> None:
    new = heir_of(Play().connected())
    new.sees(ev.DataLinkUp(1), ev.TradeLinkUp(True, 1), listed(), ev.BoundsSet(1, -100, 100, 1)).sees_book(990, 1010)
    new.asks(ev.ResumeRequested).replied(False, "position_known")
    (check,) = (check for check in new.replies[-1].checks if not check.ok)
    assert "from the journal only" in check.found
    new.sees(position(0)).asks(ev.ResumeRequested).replied(True)


def test_fills_while_nobody_listened_reach_the_position_and_end_the_order() -> None:
    new = heir_of(Play().quoting())
    new.sees(fill(BID1, "t1", BID, 10, "99.5"), ev.TradeLinkUp(True, 1), listed(order(ASK2, ASK, 1005, 10, 10)))
    new.sees(position(10, "99.5"))
    assert set(new.machine.own.strays) == {ASK2} and new.machine.position.lots == 10 and not new.cases


def test_an_inherited_order_that_ended_waits_for_its_fills() -> None:
    new = heir_of(Play().quoting())
    new.sees(ev.TradeLinkUp(True, 1), closed(BID1, 4))
    assert BID1 in new.machine.own.strays
    new.after(60).sees(closed(BID1, 4))
    assert BID1 in new.machine.own.strays  # its fills are told to this process: they are not in any position yet
    new.sees(fill(BID1, "t9", BID, 4, "99.5"))
    assert BID1 not in new.machine.own.strays and new.machine.position.lots == 4


def test_a_stray_of_unknown_outcome_may_be_the_difference() -> None:
    new = heir_of(Play().quoting())
    new.sees(ev.TradeLinkUp(True, 1), position(10, "99.5"), position(10, "99.5"))
    assert not new.cases
    new.sees(fill(BID1, "t1", BID, 10, "99.5"), position(10, "99.5"))
    assert not new.cases and new.machine.drift is None


def test_a_case_that_is_open_is_put_in_doubt_by_no_order() -> None:
    old = Play().quoting().sees(position(3, "99"), position(3, "99"))
    new = heir_of(old).sees(ev.TradeLinkUp(True, 1), position(3, "99"))
    new.is_in(State.PAUSED, Why.STARTUP).sees(position(3, "99")).is_in(State.HALTED, Why.POSITION_DRIFT)


def test_an_order_with_our_name_that_no_journal_knows_is_a_case_and_cancelled() -> None:
    strange = label(BID, 9)
    new = heir_of(Play().connected())
    new.sees(ev.DataLinkUp(1), ev.TradeLinkUp(True, 1), listed(order(strange, BID, 900, 5, 5)), position(0))
    assert [(case.case, case.subject) for case in new.cases] == [(CaseKind.ORDERS, strange)]
    assert any(getattr(action, "label", "") == strange for action in new.todo)
    new.sees(closed(strange))
    accept(new, CaseKind.ORDERS, strange).replied(True)
    assert not new.machine.cases


def test_what_was_imagined_goes_on_and_no_imagined_order_is_looked_for() -> None:
    old = Play(settings(mode=Mode.SHADOW)).quoting()
    old.sees(ev.ShadowFilled(BID1, ev.Bound.PESSIMISTIC, BID, D("99.5"), 3, 1, 1))
    new = heir_of(old, given=settings(mode=Mode.SHADOW))
    assert new.machine.inventory_lots == 3 and not new.machine.own.strays


def test_open_cases_stay_open() -> None:
    old = holding().sees(position(10, "90"), position(10, "90"))
    new = heir_of(old)
    assert set(new.machine.cases) == {(CaseKind.AVERAGE, "")}
    new.sees(ev.TradeLinkUp(True, 1), listed(), position(10, "99.5"))
    assert not new.machine.cases


def test_another_meaning_of_lots_is_not_inherited() -> None:
    old, new = machine(LINEAR), machine(changed(LINEAR, lot=D("0.001")))
    assert "0.01" in new.cannot_inherit(old)
    with pytest.raises(ValueError, match="the instrument was"):
        new.inherit(old, 1)
    assert not machine(INVERSE).cannot_inherit(machine(changed(INVERSE, maker_fee=D("0.0001"), tradable=False)))


def test_a_doubted_journal_is_a_case() -> None:
    play = Play().connected().sees(ev.JournalDoubted("the replay differs at record 7", 1))
    play.sees(book(990, 1010, play.now_ns)).asks(ev.ResumeRequested).replied(False, "no_open_cases")
    accept(play, CaseKind.JOURNAL).asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED)


def test_phases_of_inherited_orders_are_remembered() -> None:
    old = Play().active()
    old.sees(acked(ASK2, 1005, 10))
    new = heir_of(old)
    was = {name: state.slot for name, state in new.machine.own.strays.items()}
    bid, ask = was[BID1], was[ASK2]
    assert isinstance(bid, Unknown) and bid.was is Phase.PLACING
    assert isinstance(ask, Unknown) and ask.was is Phase.LIVE
    assert isinstance(old.slot(ASK), Live) and PLAIN.symbol in BID1
