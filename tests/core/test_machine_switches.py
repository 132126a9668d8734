"""The kill switches of one symbol: what trips them, what they do, and what a reset does."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from core_kit import (
    ASK,
    BID,
    EPOCH,
    NS,
    PLAIN,
    START_NS,
    acked,
    book,
    changed,
    closed,
    fill,
    label,
    refused,
    resting,
    settings,
    ticker,
)
from core_playbook import Play, cancel, place

from mmd.core.imagined import shadow_order_id
from mmd.domain import events as ev
from mmd.domain.reasons import CashKind, Fault, Missing, Mode, Phase, Response, Rule, State, Switch, Why
from mmd.domain.settings import KillSwitches
from mmd.domain.switches import DEFAULT_RESPONSES, SWITCHES

BID1, ASK2 = label(BID, 1), label(ASK, 2)
E, L, C, U = Phase.EMPTY, Phase.LIVE, Phase.CANCELLING, Phase.UNKNOWN


def test_the_table_is_complete() -> None:
    assert set(SWITCHES) == set(Switch)
    for switch, row in SWITCHES.items():
        assert row.alert and row.runbook.endswith("."), switch
        assert DEFAULT_RESPONSES[switch] is row.responses[0]


def storm(play: Play) -> None:
    for _ in range(2):
        orders, play.todo = play.todo, []
        for order in orders:
            play.sees(refused(order.label))
        play.after(6.0).sees_book(990, 1010)


def many_fills(play: Play) -> None:
    for n in range(4):
        play.sees(fill(BID1, f"t{n}", BID, 1))


def much_filled(play: Play) -> None:
    play.sees(fill(BID1, "t1", BID, 9), fill(ASK2, "t2", ASK, 7))


def no_answers(play: Play) -> None:
    """Every amend's answer is overdue; the exchange is asked, and the order is there."""
    for n in range(3):
        play.sees_book(980 - n * 20, 1000 - n * 20).todo.clear()
        play.after(2.1).todo.clear()
        slot = play.slot(BID)
        play.sees(acked(slot.label, slot.to_price_ticks, 10), acked(ASK2, 995 - n * 20, 10)).todo.clear()


def never_heard_of(play: Play) -> None:
    play.sees(ev.RequestLost(BID1, "no answer", play.now_ns)).sees_book(990, 1010).after(10.1)


def drifted(play: Play) -> None:
    for _ in range(2):
        play.sees(ev.PositionReported(5, Decimal(100), play.now_ns))


def somebody_else(play: Play) -> None:
    order = resting("mmd-test-PLAIN-b-other-7", BID, 980, 3)
    play.sees(ev.OrdersReported((resting(BID1, BID, 995, 10), resting(ASK2, ASK, 1005, 10), order), play.now_ns))


def a_foreign_answer(play: Play) -> None:
    play.sees(acked("mmd-test-PLAIN-b-other-7", 980, 3))


def with_ourselves(play: Play) -> None:
    play.sees(fill(BID1, "t1", BID, 2), fill(ASK2, "t1", ASK, 2))


def protection_tripped(play: Play) -> None:
    play.sees(ev.ProtectionTripped("quantity above 5 in 1 s", 0, play.now_ns))


def protection_changed(play: Play) -> None:
    play.sees(ev.ProtectionReported(False, "interval 5 s, wanted 1 s", play.now_ns))


def market_halted(play: Play) -> None:
    play.sees(ev.InstrumentStateChanged("locked", False, False, play.now_ns))


def crossed(play: Play) -> None:
    play.sees_book(1010, 1000)


def crooked_ledger(play: Play) -> None:
    play.sees(fill(BID1, "t1", BID, 2))
    play.machine.position.ledger.holdings.cash += 1
    play.sees(fill(BID1, "t2", BID, 2))


PROVOCATIONS: list[tuple[Switch, Why, Callable[[Play], None]]] = [
    (Switch.REJECTION_STORM, Why.REJECTION_STORM, storm),
    (Switch.REPEATED_FILLS, Why.REPEATED_FILLS, many_fills),
    (Switch.REPEATED_FILLS, Why.REPEATED_FILLS, much_filled),
    (Switch.ACK_TIMEOUT, Why.ACK_TIMEOUT, no_answers),
    (Switch.OUTCOME_UNKNOWN, Why.OUTCOME_UNKNOWN, never_heard_of),
    (Switch.POSITION_DRIFT, Why.POSITION_DRIFT, drifted),
    (Switch.FOREIGN_ORDERS, Why.FOREIGN_ORDERS, somebody_else),
    (Switch.FOREIGN_ORDERS, Why.FOREIGN_ORDERS, a_foreign_answer),
    (Switch.SELF_TRADE, Why.SELF_TRADE, with_ourselves),
    (Switch.MAKER_PROTECTION, Why.MAKER_PROTECTION, protection_tripped),
    (Switch.MAKER_PROTECTION, Why.MAKER_PROTECTION, protection_changed),
    (Switch.MARKET_HALT, Why.MARKET_HALTED, market_halted),
    (Switch.MARKET_DATA, Why.CROSSED_BOOK, crossed),
    (Switch.LEDGER, Why.LEDGER, crooked_ledger),
]
SENSITIVE = {"max_rejects": 3, "max_fills": 3, "max_filled": Decimal(15)}


def scene(switches: KillSwitches | None = None, *, live: bool = True) -> Play:
    given = settings(limits=SENSITIVE, data={"stale_seconds": 60.0})
    given = changed(given, protected=True, switches=switches or KillSwitches(max_ack_timeouts=2))
    play = Play(given).connected().sees(ev.ProtectionReported(True, "as configured", 0)).sees_book(990, 1010)
    play.asks(ev.ResumeRequested).is_in(State.ACTIVE, Why.RESUMED)
    if live:
        play.does(place(BID, 1, 995), place(ASK, 2, 1005)).sees(acked(BID1, 995, 10), acked(ASK2, 1005, 10))
    return play


@pytest.mark.parametrize(
    ("switch", "why", "provoke"), PROVOCATIONS, ids=[f"{row[0]}-{row[2].__name__}" for row in PROVOCATIONS]
)
@pytest.mark.parametrize("response", [None, Response.PAUSE, Response.HALT])
def test_a_switch_does_what_is_configured(
    switch: Switch, why: Why, provoke: Callable[[Play], None], response: Response | None
) -> None:
    """By default, and with every response that its row allows."""
    responses = dict(DEFAULT_RESPONSES)
    if response is not None:
        if response not in SWITCHES[switch].responses:
            return
        responses[switch] = response
    play = scene(KillSwitches(responses=responses, max_ack_timeouts=2), live=provoke is not storm)
    provoke(play)
    wanted = State.HALTED if responses[switch] is Response.HALT else State.PAUSED
    play.is_in(wanted, why)
    assert switch in {trip.switch for trip in play.trips}
    trip = next(trip for trip in play.trips if trip.switch is switch)
    assert trip.target == "deribit/PLAIN" and trip.response is responses[switch] and trip.detail


@pytest.mark.parametrize(
    ("switch", "why", "provoke"), PROVOCATIONS, ids=[f"{row[0]}-{row[2].__name__}" for row in PROVOCATIONS]
)
def test_after_a_trip_nothing_is_placed_any_more(switch: Switch, why: Why, provoke: Callable[[Play], None]) -> None:
    play = scene(live=provoke is not storm)
    provoke(play)
    play.todo.clear()
    for shift in (0, 40, -40):
        play.sees_book(990 + shift, 1010 + shift).after(1.5)
    assert not [action for action in play.todo if type(action).__name__ in ("PlaceOrder", "AmendOrder")]


@pytest.mark.parametrize("response", [Response.PAUSE, Response.HALT, Response.WARN])
@pytest.mark.parametrize("switch", [s for s, row in SWITCHES.items() if row.scope != "symbol"])
def test_a_switch_of_the_exchange_or_the_portfolio_reaches_the_symbol(switch: Switch, response: Response) -> None:
    play = scene().sees(ev.SwitchTripped(switch, response, "found 3, allowed 2", 0))
    wanted = {Response.PAUSE: State.PAUSED, Response.HALT: State.HALTED, Response.WARN: State.ACTIVE}[response]
    assert play.machine.state is wanted
    if response is not Response.WARN:
        play.is_in(wanted, SWITCHES[switch].why).does(cancel(BID, 1), cancel(ASK, 2))
    play.tripped()  # it was told, it did not find it


def test_a_skewed_clock_holds_the_symbol_until_it_is_over() -> None:
    play = scene().sees(ev.SwitchTripped(Switch.CLOCK_SKEW, Response.PAUSE, "900 ms", 0))
    play.sees(closed(BID1), closed(ASK2)).todo.clear()
    play.asks(ev.ResumeRequested).replied(False, "kill_switches")
    play.sees(ev.SwitchCleared(Switch.CLOCK_SKEW, 0)).asks(ev.ResumeRequested).replied(True)


def test_a_reset_forgets_the_counts_and_says_what_it_does_not_do() -> None:
    play = scene()
    many_fills(play)
    play.is_in(State.HALTED, Why.REPEATED_FILLS).sees(closed(ASK2), closed(BID1, 4)).todo.clear()
    play.asks(ev.ResetRequested).replied(True, "was HALTED (repeated_fills)", "position 4 stays", "nothing is resumed")
    play.is_in(State.PAUSED, Why.RESET).does_nothing()
    play.asks(ev.ResumeRequested).replied(True)
    play.sees(fill(label(BID, 3), "t9", BID, 1)).is_in(State.ACTIVE, Why.RESUMED)


def test_leftovers_of_an_earlier_run_are_not_foreign() -> None:
    order = resting("mmd-test-PLAIN-b-before-7", BID, 980, 3)
    play = Play().sees(ev.DataLinkUp(0), ev.TradeLinkUp(True, 0), ev.OrdersReported((order,), 0))
    play.is_in(State.PAUSED, Why.STARTUP).tripped()
    assert order.label in play.machine.own.strays


def test_an_answer_of_our_own_that_comes_too_late_is_not_foreign() -> None:
    play = scene().sees(acked(f"mmd-test-PLAIN-b-{EPOCH}-9", 980, 3))
    play.is_in(State.ACTIVE, Why.RESUMED).tripped()


def test_a_cancel_that_is_refused_is_tried_on_but_not_for_ever_at_that_pace() -> None:
    """Five tries, then one each ten seconds; two notes, not one for each try."""
    play = scene().asks(ev.PauseRequested).does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(ASK2))
    play.notes.clear()
    for _ in range(4):
        play.sees(refused(BID1, Fault.ORDER, code="11044")).after(1.1).does(cancel(BID, 1))
    play.sees(refused(BID1, Fault.ORDER, code="11044")).after(9.0).does_nothing()
    play.notes_("order.cancel_refused", "order.cancel_refused")
    play.after(1.1).does(cancel(BID, 1)).sees(refused(BID1)).after(9.0).does_nothing()
    play.asks(ev.HaltRequested, why=Why.OPERATOR).does(cancel(BID, 1)).sees(closed(BID1)).slots(E, E)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda p: p.sees(ev.RemovalRequested(Why.SHUTDOWN, p.now_ns)), id="stop"),
        pytest.param(lambda p: p.sees(ev.SwitchTripped(Switch.EXPOSURE, Response.HALT, "", p.now_ns)), id="switch"),
    ],
)
def test_who_has_to_pull_now_waits_for_no_refusal_of_before(asked: Callable[[Play], Play]) -> None:
    play = scene().asks(ev.PauseRequested).does(cancel(BID, 1), cancel(ASK, 2)).sees(closed(ASK2))
    for _ in range(4):
        play.sees(refused(BID1, Fault.ORDER, code="11051")).after(1.1).does(cancel(BID, 1))
    play.sees(refused(BID1, Fault.ORDER, code="11051")).after(1.1).does_nothing()
    asked(play).does(cancel(BID, 1))


def test_an_exchange_that_amends_again_is_asked_to_cancel_again() -> None:
    play = scene()
    play.machine.own.bid.cancel_tries, play.machine.own.bid.hold_cancel_ns = 5, play.now_ns + 10 * NS
    play.after(1.5).sees_book(1000, 1020).slots(Phase.AMENDING, Phase.AMENDING).sees(acked(BID1, 1004, 10))
    assert (play.machine.own.bid.cancel_tries, play.machine.own.bid.hold_cancel_ns) == (0, 0)


def test_maker_protection_must_be_armed_before_it_quotes() -> None:
    play = Play(changed(settings(), protected=True)).connected().sees_book(990, 1010)
    play.asks(ev.ResumeRequested).replied(False, "maker_protection")
    play.sees(ev.ProtectionReported(True, "", 0)).asks(ev.ResumeRequested).replied(True)


def test_the_drift_collar_withholds_and_explains() -> None:
    play = Play(settings(data={"max_jump_bps": 10_000.0})).active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    assert (play.machine.drifts.low, play.machine.drifts.high) == (1000.0, 1000.0)
    play.after(1.0).sees_book(690, 710)
    exposure = play.machine.exposure(place(BID, 3, 695))
    assert (exposure.reference_ticks, exposure.drift_high) == (700.0, 1000.0)


def test_funding_is_counted_once() -> None:
    paid = ev.CashMoved("f1", CashKind.FUNDING, Decimal("-0.5"), "USDC", 0, 1, 1)
    play = scene().sees(paid, paid).sees(paid)
    assert play.machine.position.statement(100.0).funding == Decimal("-0.5")
    play.tripped()


def test_shadow_fills_move_the_imagined_order_and_no_real_figure() -> None:
    play = Play(settings(mode=Mode.SHADOW)).active().does(place(BID, 1, 995), place(ASK, 2, 1005))
    play.sees(*(acked(name, at, 10, order_id=shadow_order_id(name)) for name, at in ((BID1, 995), (ASK2, 1005))))
    for bound in (ev.Bound.OPTIMISTIC, ev.Bound.PESSIMISTIC):
        play.sees(ev.ShadowFilled(BID1, bound, BID, Decimal("99.5"), 4, 1, 1))
    machine = play.machine
    assert (machine.position.lots, machine.position.fills) == (0, 0)
    assert (machine.imagined.pessimistic.lots, machine.imagined.optimistic.lots) == (4, 4)
    assert machine.inventory_lots == 4
    slot: Any = play.slot(BID)
    assert (slot.total_lots, slot.filled_lots) == (10, 4)


# --- closing a position -------------------------------------------------------------------------------


def halted(position: int = 25, **limits: Any) -> Play:
    play = Play(settings(limits={"max_order_size": Decimal(10), **limits})).connected(position=position)
    return play.sees_book(990, 1010).sees_ticker().asks(ev.HaltRequested, why=Why.OPERATOR)


def flatten(play: Play, lots: int, limit: int) -> Play:
    play.requests += 1
    return play.sees(ev.FlattenRequested(play.requests, "root", "test", lots, limit, play.now_ns))


def sent(play: Play) -> Any:
    (order,) = play.todo
    play.todo = []
    return order


def test_a_position_is_closed_in_orders_of_the_allowed_size() -> None:
    play = flatten(halted(25), 25, 985).replied(True)
    sizes = []
    for n in range(1, 4):
        order = sent(play)
        assert (type(order).__name__, order.label, order.side, order.price_ticks) == (
            "ReduceOrder",
            label(ASK, n),
            ASK,
            985,
        )
        sizes.append(order.size_lots)
        play.sees(fill(order.label, f"t{n}", ASK, order.size_lots), closed(order.label, order.size_lots, "filled"))
    assert sizes == [10, 10, 5]
    assert play.machine.position.lots == 0 and play.machine.closing is None
    assert "flatten.done" in play.notes
    play.does_nothing()


def test_it_ends_with_the_first_order_that_the_book_does_not_fill() -> None:
    play = flatten(halted(-25), 25, 1015).replied(True)
    order = sent(play)
    assert order.side is BID
    play.sees(fill(order.label, "t1", BID, 4), closed(order.label, 4, "cancelled"))
    assert play.machine.position.lots == -21 and play.machine.closing is None
    play.does_nothing().after(30.0).does_nothing()


def test_fills_that_come_after_the_end_still_count() -> None:
    """The exchange says 10 filled before the trades are here: nothing more is sent until they are."""
    play = flatten(halted(25), 25, 985)
    order = sent(play)
    play.sees(closed(order.label, 10, "filled"))
    assert play.machine.closing is not None
    play.todo.clear()
    play.sees(fill(order.label, "t1", ASK, 10))
    assert sent(play).size_lots == 10


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda p: flatten(p, 26, 985), "cannot be closed of a position of 25", id="more than there is"),
        pytest.param(lambda p: flatten(p, 0, 985), "cannot be closed", id="nothing"),
        pytest.param(lambda p: flatten(p.sees(ev.TradeLinkDown("", 0)), 5, 985), "link is down", id="no link"),
        pytest.param(
            lambda p: flatten(p.sees(ev.PositionReported(9, Decimal(1), 0)), 5, 985), "not known for sure", id="drift"
        ),
        pytest.param(lambda p: flatten(flatten(p, 5, 985), 5, 985), "being closed already", id="twice"),
    ],
)
def test_what_cannot_be_closed_is_refused(spoil: Callable[[Play], Play], words: str) -> None:
    play = halted()
    before = len(play.replies)
    spoil(play)
    assert len(play.replies) > before
    play.replied(False, words)


def test_an_active_symbol_is_not_flattened() -> None:
    flatten(scene().sees(fill(BID1, "t1", BID, 5)), 5, 985).replied(False, "is ACTIVE")


def test_a_shadow_symbol_is_not_flattened() -> None:
    play = Play(settings(mode=Mode.SHADOW)).connected(position=5).sees_book(990, 1010)
    flatten(play, 5, 985).replied(False, "shadow")


def test_an_operator_stops_it() -> None:
    play = flatten(halted(25), 25, 985)
    order = sent(play)
    play.asks(ev.HaltRequested, why=Why.OPERATOR)
    play.sees(fill(order.label, "t1", ASK, 10), closed(order.label, 10, "filled")).does_nothing()
    assert play.machine.position.lots == 15 and play.machine.closing is None


def test_no_resume_while_it_closes() -> None:
    flatten(halted(25), 25, 985).asks(ev.ResetRequested).asks(ev.ResumeRequested).replied(False, "being closed")


def test_a_gate_that_says_no_ends_it() -> None:
    play = flatten(halted(25), 25, 985)
    order = sent(play)
    play.sees(ev.GateRefused(order.label, ASK, Rule.COLLAR, "1", "2", "collar_bps", play.now_ns)).does_nothing()
    assert play.machine.closing is None and play.notes[-1] == "flatten.done"


def test_the_books_own_shape() -> None:
    """The helper of these plays makes a book as the feed does."""
    assert book(990, 1010, 0).bids == ((990, 100),) and PLAIN.lot == 1


def test_an_instrument_that_is_not_allowed_any_more_is_not_quoted() -> None:
    """A reload that takes it off the list pulls what rests, and a resume is refused."""
    off = changed(settings(), limits=changed(settings().limits, allowed=False))
    play = Play().quoting().sees(ev.SettingsChanged(off, 0)).does(cancel(BID, 1), cancel(ASK, 2))
    play.withholds(Missing.NOT_ALLOWED).asks(ev.PauseRequested).sees(closed(BID1), closed(ASK2))
    play.asks(ev.ResumeRequested).replied(False, "allowed")


def test_an_expired_position_waits_for_the_word_of_its_delivery() -> None:
    play = Play().connected(position=5).sees(ev.InstrumentStateChanged("settlement", False, True, 0))
    play.is_in(State.DRAINING, Why.EXPIRED).after(60.0).is_in(State.DRAINING, Why.EXPIRED)
    play.sees(ev.CashMoved("d1", CashKind.SETTLEMENT, Decimal(500), "USDC", 5, 1, 1))
    play.is_in(State.GONE, Why.EXPIRED)
    assert play.machine.position.lots == 0


def test_a_lost_link_does_not_cut_the_wait_for_a_delivery_short() -> None:
    """The link may be back before the time is over, and with it the word."""
    lost = ev.TradeLinkDown("cut", 0)
    delivered = ev.InstrumentStateChanged("settlement", False, True, 0)
    orders: tuple[tuple[ev.Mail, ev.Mail], ...] = ((lost, delivered), (delivered, lost))
    for news in orders:
        play = Play().connected(position=5)
        for event in news:
            play.sees(event).after(5.0)
        play.is_in(State.DRAINING, Why.EXPIRED).after(60.0).is_in(State.DRAINING, Why.EXPIRED)
        play.sees(ev.TradeLinkUp(True, play.now_ns))
        play.sees(ev.CashMoved("d1", CashKind.SETTLEMENT, Decimal(500), "USDC", 5, 1, 1)).is_in(State.GONE, Why.EXPIRED)


@pytest.mark.parametrize("link", ["up", "down"])
@pytest.mark.parametrize("ends", ["time", "removal"])
def test_it_does_not_wait_for_ever(ends: str, link: str) -> None:
    play = Play().connected(position=5).sees(ev.InstrumentStateChanged("settlement", False, True, 0))
    if link == "down":
        play.sees(ev.TradeLinkDown("cut", 0)).is_in(State.DRAINING, Why.EXPIRED)
    if ends == "time":
        play.after(125.0).is_in(State.GONE, Why.EXPIRED)
    else:
        play.sees(ev.RemovalRequested(Why.SHUTDOWN, 0)).is_in(State.GONE, Why.SHUTDOWN)


def test_a_stray_that_nothing_is_heard_of_pauses_as_any_order_does() -> None:
    """It rests after all although it was given up twice; its cancel is never answered, nor any question."""
    play = Play().quoting().sees(ev.RequestLost(BID1, "no answer", 0)).after(2.5)
    play.sees(ev.OrderAbsent(BID1, 0), ev.OrderAbsent(BID1, 0))
    again = play.slot(BID).label
    play.sees(acked(again, 995, 10), acked(BID1, 995, 10)).sees(closed(again), closed(ASK2))
    assert list(play.machine.own.strays) == [BID1] and play.machine.own.resting == 1
    for _ in range(11):
        play.is_in(State.ACTIVE, Why.RESUMED).after(1.0).sees_book(990, 1010)
    play.after(1.1).is_in(State.PAUSED, Why.OUTCOME_UNKNOWN).tripped(Switch.OUTCOME_UNKNOWN)
    assert BID1 in play.machine.detail


def test_a_dead_ticker_is_found_without_another_message() -> None:
    """The last word of the market, a trade, is younger than the difference: the timer knows of both."""
    play = Play().quoting().sees_ticker(100.0)
    play.after(5.0).sees_book(980, 1000).after(4.0).sees(ev.TradePrinted(990, 1, BID, 0, play.now_ns))
    play.after(5.9).is_in(State.ACTIVE, Why.RESUMED)
    play.after(0.2).is_in(State.PAUSED, Why.STALE_BOOK).tripped(Switch.MARKET_DATA)
    assert play.machine.since_ns == START_NS + 15 * NS + 1 and "no ticker" in play.machine.detail


def test_a_dead_book_is_found_without_another_message() -> None:
    play = Play().quoting().sees(changed(ticker(START_NS), best_bid=99.0, best_ask=101.0))
    for _ in range(2):
        play.after(4.0).sees(changed(ticker(play.now_ns), best_bid=98.0, best_ask=101.0))
    play.after(5.9).is_in(State.ACTIVE, Why.RESUMED).after(0.2).is_in(State.PAUSED, Why.STALE_BOOK)
    assert play.machine.since_ns == START_NS + 14 * NS + 1 and "no word of the book" in play.machine.detail


def test_no_quote_leans_on_a_dead_ticker() -> None:
    """The collars measure from its mark: they would hold us where it died. A resume waits for the ticker."""
    play = Play().quoting().sees_ticker(100.0)
    for fallen in range(1, 40):
        play.after(1.0).sees_book(990 - fallen, 1010 - fallen)
    play.is_in(State.PAUSED, Why.STALE_BOOK).asks(ev.ResumeRequested).replied(False, "market_data")
    play.sees_ticker(96.1).asks(ev.ResumeRequested)
    assert "market_data" not in play.replies[-1].detail


def test_fills_that_never_come_are_settled_by_adopting_the_exchanges_position() -> None:
    """The order is over and 4 of it filled, but no trade is ever told: the drift says so, a reset settles it."""
    play = scene().sees(closed(BID1, 4)).slots(U, L)
    for _ in range(2):
        play.sees(ev.PositionReported(4, Decimal(100), play.now_ns)).tripped()
    play.after(10.1).trips.clear()  # as long as it may take until they come
    play.sees_book(990, 1010).sees(ev.PositionReported(4, Decimal(100), play.now_ns))
    play.is_in(State.HALTED, Why.POSITION_DRIFT).sees(closed(ASK2)).slots(U, E)
    play.asks(ev.ResetRequested).replied(True, "position 4 is adopted").slots(E, E)
    play.todo.clear()
    assert play.machine.position.lots == 4
    play.asks(ev.ResumeRequested).replied(True)


def test_a_cancel_of_ours_that_comes_late_is_nobody_elses() -> None:
    """It had no answer, the order was still listed and was wanted again; then the cancel arrived after all."""
    play = scene().sees(ev.BoundsSet(2, 0, 0, 0)).slots(C, C)
    play.sees(ev.RequestLost(BID1, "link lost", play.now_ns)).slots(U, C)
    play.sees(ev.BoundsSet(3, -100, 100, 0))
    play.sees(ev.OrdersReported((resting(BID1, BID, 995, 10), resting(ASK2, ASK, 1005, 10)), play.now_ns)).slots(L, C)
    play.sees(closed(BID1)).slots(Phase.PLACING, C)
    assert "order.vanished" not in play.notes


def test_somebody_else_who_cancels_our_orders_again_and_again_is_a_second_daemon() -> None:
    """Once may be a person at the exchange's own page; five times in a minute is not."""
    play = scene()
    for n in range(5):
        play.is_in(State.ACTIVE, Why.RESUMED)
        bid = play.slot(BID)
        play.sees(closed(bid.label)).after(1.1).sees_book(990, 1010 + n % 2)
        play.todo.clear()
        bid = play.slot(BID)
        if bid.phase is Phase.PLACING:
            play.sees(acked(bid.label, bid.price_ticks, 10))
            play.todo.clear()
    play.is_in(State.HALTED, Why.FOREIGN_ORDERS)
    assert "cancelled by somebody else" in play.machine.detail and play.notes.count("order.vanished") == 5
