"""The races that a market maker knows by name, each told step by step to the end."""

import copy
from collections.abc import Callable

from weather_market import LINEAR, NS, OPTION, PERP, D, changed, settings
from weather_wire import Answer, Done
from weather_words import lots_of
from world import World

from mmd.core.orders import worst_lots
from mmd.core.own import SideState
from mmd.domain.actions import AmendOrder, QueryState
from mmd.domain.events import HaltRequested, OrderAcked, PauseRequested, ResetRequested
from mmd.domain.reasons import Fault, Phase, Side, State, Why
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import CancelReason, Order

BID, ASK = Side.BID, Side.ASK
Race = Callable[[World], None]


# --- verbs ---------------------------------------------------------------------------------------


def side(world: World, symbol: str = PERP, which: Side = BID) -> SideState:
    own = world.of(symbol).machine.own
    return own.bid if which is BID else own.ask


def phase(world: World, symbol: str = PERP, which: Side = BID) -> Phase:
    return side(world, symbol, which).slot.phase


def charged(world: World, symbol: str = PERP, which: Side = BID) -> int:
    return worst_lots(side(world, symbol, which).slot)


def position(world: World, symbol: str = PERP) -> int:
    return world.of(symbol).machine.position.lots


def there(world: World, symbol: str = PERP, which: Side = BID) -> Order:
    """Our order at the exchange."""
    direction = Direction.BUY if which is BID else Direction.SELL
    (order,) = [order for order in world.resting(symbol) if order.direction is direction]
    return order


def take(world: World, lots: int = 0, symbol: str = PERP, which: Side = BID) -> int:
    """Somebody trades with our order; 0 = all of it. The news is on its way."""
    order = there(world, symbol, which)
    lots = lots or lots_of(symbol, order.remaining)
    world.engine.hit(order, world.of(symbol).machine.instrument.amount(lots), world.now_ms)
    world.wire.publish()
    world.turn()
    return lots


def news(world: World) -> None:
    while world.wire.hear_news():
        world.turn()


def answers(world: World) -> None:
    while world.wire.hear_answer():
        world.turn()


def orders_arrive(world: World) -> None:
    while world.wire.arrive_order():
        world.turn()


def ask_and_hear(world: World, times: int) -> None:
    """So many questions are answered."""
    for _ in range(times):
        assert world.wire.arrive_question()
        answers(world)


def later(world: World, seconds: float) -> None:
    world.pass_time(world.now_ns + int(seconds * NS))


def place_anew(world: World, symbol: str = PERP) -> None:
    """The exchange pulled our bid, and the next one is on its way."""
    gone = there(world, symbol)
    chosen = gone.order_id
    world.engine.cancel_where(gone.account, lambda one: one.order_id == chosen, world.now_ms, CancelReason.SETTLEMENT)
    world.wire.publish()
    news(world)
    later(world, 0.5)
    assert phase(world, symbol) is Phase.PLACING and world.wire.link and len(world.wire.link.orders) == 1


def pause(world: World, symbol: str = PERP) -> None:
    world.ask(world.of(symbol), lambda number: PauseRequested(number, "op", "race", world.now_ns))


def leave(world: World, symbol: str) -> None:
    world.roster.remove([world.of(symbol).key], Why.REMOVED)
    world.turn()


def resize(world: World, size: str, symbol: str = PERP) -> None:
    """A reload with another order size."""
    world.reconfigure(symbol, settings(symbol, world.setup, size=D(size)))
    later(world, 0.3)


# --- the races -----------------------------------------------------------------------------------


def a_lost_answer_that_later_fills(world: World) -> None:
    place_anew(world)
    orders_arrive(world)
    world.wire.answers.clear()
    later(world, 2.1)
    assert phase(world) is Phase.UNKNOWN and charged(world) == 1200
    take(world, 500)
    news(world)
    assert (position(world), charged(world)) == (500, 700)
    take(world)
    news(world)
    assert (position(world), world.of(PERP).machine.position.fills) == (1200, 2)


def a_lost_answer_that_fills_before_anybody_asks(world: World) -> None:
    place_anew(world)
    orders_arrive(world)
    world.wire.answers.clear()
    take(world)
    world.wire.news.clear()  # not even that is heard
    later(world, 2.1)
    assert (phase(world), charged(world), position(world)) == (Phase.UNKNOWN, 1200, 0)
    world.calm()
    assert position(world) == 1200


def a_cancel_that_loses_the_race(world: World) -> None:
    pause(world)
    take(world)
    orders_arrive(world)
    answers(world)
    assert (phase(world), charged(world), position(world)) == (Phase.UNKNOWN, 1200, 0), "gone is not an outcome"
    news(world)
    assert (phase(world), position(world)) == (Phase.EMPTY, 1200)


def a_cancel_that_loses_a_part_of_the_race(world: World) -> None:
    pause(world)
    take(world, 400)
    orders_arrive(world)
    answers(world)
    assert (phase(world), charged(world), position(world)) == (Phase.UNKNOWN, 400, 0)
    news(world)
    assert (phase(world), position(world)) == (Phase.EMPTY, 400)


def a_cancel_answered_not_found(world: World) -> None:
    """It filled, nobody was told, and the exchange only says that there is no such order."""
    pause(world)
    take(world)
    world.wire.news.clear()
    orders_arrive(world)
    answers(world)
    assert phase(world) is Phase.UNKNOWN
    world.calm()
    assert (phase(world), position(world)) == (Phase.EMPTY, 1200)


def a_fill_for_an_order_already_forgotten(world: World) -> None:
    pause(world)
    order = there(world)
    world.calm()
    assert phase(world) is Phase.EMPTY
    world.judge.surprises[PERP] += 30
    world.engine.fill_closed(order, D("300"), world.now_ms)
    world.wire.publish()
    news(world)
    assert position(world) == 30


def the_same_trade_through_two_channels(world: World) -> None:
    take(world, 500)
    world.wire.news.append(world.wire.news[0])
    worker = world.of(PERP)
    for _ in range(2):
        world.pump.outbox.query(worker, QueryState(), world.now_ns)
        world.turn()
    world.asked_and_told(0, 0)
    assert position(world) == 500
    news(world)
    assert (position(world), worker.machine.position.fills) == (500, 1)


def the_end_is_told_twice_before_its_fill(world: World) -> None:
    """Cancelled with 400 filled: the news of the closing, then the answer; the news of the fill comes last."""
    pause(world)
    take(world, 400)
    orders_arrive(world)
    world.wire.news.rotate(-1)
    world.wire.hear_news()
    world.turn()
    assert (phase(world), charged(world)) == (Phase.UNKNOWN, 400)
    later(world, 2.1)
    answers(world)
    assert (phase(world), charged(world)) == (Phase.UNKNOWN, 400), "the fill is still under way"
    news(world)
    assert (phase(world), position(world)) == (Phase.EMPTY, 400)


def an_order_that_is_not_there_yet(world: World) -> None:
    """Its placing was answered with an error, the first look finds nothing, and then it rests."""
    place_anew(world)
    world.wire.refusals.append((Fault.AMBIGUOUS, Done.LATER))
    world.wire.arrive_order()
    world.asked_and_told(0, 0)
    assert (phase(world), charged(world)) == (Phase.UNKNOWN, 1200)
    orders_arrive(world)
    later(world, 2.1)
    world.asked_and_told(0, 0)
    assert phase(world) is Phase.LIVE


def old_word_after_an_amend(world: World) -> None:
    """The answer to one amend is heard again after the next: it must not make the order smaller."""
    resize(world, "6000")
    orders_arrive(world)
    echo = next(copy.copy(one) for one in world.wire.answers if isinstance(one, Answer) and ":b" in one.about)
    world.calm()
    resize(world, "12000")
    world.calm()
    assert isinstance(echo.events[0], OrderAcked) and charged(world) == 1200
    world.wire.answers.append(echo)
    answers(world)
    assert charged(world) == 1200
    take(world, 600)
    news(world)
    orders_arrive(world)
    assert charged(world) == 600


def a_late_no_to_an_amend(world: World) -> None:
    """The exchange takes it too late and says so; what rests is the old order."""
    resize(world, "6000")
    world.calm()
    resize(world, "12000")
    assert phase(world) is Phase.AMENDING
    later(world, 2.1)
    assert (phase(world), charged(world)) == (Phase.UNKNOWN, 1200)
    world.calm()
    later(world, 2.1)
    world.calm()
    assert lots_of(PERP, there(world).remaining) == charged(world)


def a_link_lost_with_a_place_in_flight(world: World) -> None:
    """It still arrives over the dead link, fills in part, and is cancelled when the exchange notices."""
    place_anew(world)
    world.link_lost(0, 0)
    assert (phase(world), charged(world)) == (Phase.UNKNOWN, 1200)
    world.link_back(0, 0)
    world.asked_and_told(0, 0)
    orders_arrive(world)
    take(world, 700)
    later(world, 2.1)
    world.asked_and_told(0, 0)
    world.loss_noticed(0, 0)
    world.calm()
    assert (phase(world), position(world)) == (Phase.EMPTY, 700)


def a_symbol_leaves_and_is_back_among_fills(world: World) -> None:
    take(world, 300)
    leave(world, PERP)
    take(world, 200, which=ASK)
    world.calm()
    assert f"sandbox/{PERP}" not in world.pump.workers
    world.comes_back(0, 0)
    world.calm()
    assert position(world) == 100


def a_symbol_leaves_before_it_knows_its_position(world: World) -> None:
    """It is back and goes again at once: what it holds must not be forgotten by the totals."""
    take(world, symbol=LINEAR)
    leave(world, LINEAR)
    world.calm()
    world.comes_back(1, 0)
    leave(world, LINEAR)
    for _ in range(3):
        world.calm()
        later(world, 1.2)


def a_late_word_of_an_earlier_life(world: World) -> None:
    """The symbol is back when it hears that an order rests which has long been filled."""
    place_anew(world)
    orders_arrive(world)
    pause(world)
    take(world)
    orders_arrive(world)
    news(world)
    leave(world, PERP)
    assert f"sandbox/{PERP}" not in world.pump.workers and len(world.wire.answers) > 1
    world.comes_back(0, 0)
    world.calm()
    later(world, 2.1)
    world.calm()
    assert (position(world), world.of(PERP).machine.own.resting) == (1200, 0)


def a_halt_in_the_turn_of_an_order(world: World) -> None:
    """The fill lets one machine place, and the totals halt it before anything has left."""
    world.set_totals(changed(world.limits, max_exposure={"BTC": D("0.15")}))
    assert world.wire.link
    lane = world.wire.link.orders
    lane.remove(next(sent for sent in lane if sent.symbol == OPTION and sent.order.side is BID))
    world.calm()
    take(world, 2, symbol=OPTION)
    news(world)
    machine = world.of(OPTION).machine
    assert (machine.state, machine.why) == (State.HALTED, Why.EXPOSURE)
    assert not [order for order in world.resting(OPTION) if order.direction is Direction.SELL]


def a_reset_while_a_fill_is_late(world: World) -> None:
    """Two fills, each between two looks of the exchange at itself, look like drift; they are only late."""
    worker = world.of(PERP)
    world.pump.outbox.query(worker, QueryState(), world.now_ns)
    world.turn()
    for _ in range(2):  # fills and orders are asked, then there is a fill, then the position is asked
        ask_and_hear(world, 2)
        take(world, 10)
        ask_and_hear(world, 1)
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.POSITION_DRIFT)
    news(world)
    assert position(world) == 20
    world.ask(worker, lambda number: ResetRequested(number, "op", "it looks right now", world.now_ns))
    world.calm()
    assert (position(world), worker.machine.drift) == (20, None)


def room_that_is_not_given_back_yet(world: World) -> None:
    """One symbol may have more and another less: nobody grows before the other's orders are known to be smaller."""
    before = there(world, LINEAR).remaining
    more = settings(LINEAR, world.setup, max_position=D("0.32"), max_order_size=D("0.32"), size=D("0.3"))
    world.reconfigure(LINEAR, more)
    for _ in range(3):
        later(world, 0.25)
        assert world.wire.link
        lane = world.wire.link.orders
        waiting = [lane.popleft() for _ in range(len(lane))]
        lane.extend(sorted(waiting, key=lambda sent: sent.symbol != LINEAR))
        while lane and lane[0].symbol == LINEAR:
            world.wire.arrive_order()
        answers(world)
    world.calm()
    later(world, 1.0)
    world.calm()
    assert there(world, LINEAR).remaining > before


def a_no_that_belongs_to_an_earlier_amend(world: World) -> None:
    """It comes while the next amend is under way, which may be carried out all the same."""
    world.roster.remove([world.of(OPTION).key], Why.REMOVED)
    world.set_totals(changed(world.limits, max_exposure={"BTC": D("0.2")}))
    world.calm()
    later(world, 1.2)
    world.calm()
    resize(world, "3000")
    world.calm()
    resize(world, "12000")
    assert world.wire.link
    lane = world.wire.link.orders
    for _ in range(2):
        later(world, 2.1)
        world.asked_and_told(0, 0)
    labels = [sent.order.label for sent in lane if isinstance(sent.order, AmendOrder) and sent.order.side is BID]
    assert len(labels) == 2 and labels[0] == labels[1] and phase(world) is Phase.AMENDING
    world.wire.arrive_order()
    while lane and lane[0].order.label != labels[0]:
        world.wire.arrive_order()
    answers(world)
    more = settings(LINEAR, world.setup, max_position=D("0.5"), max_order_size=D("0.5"), size=D("0.5"))
    world.reconfigure(LINEAR, more)
    later(world, 0.3)
    waiting = [lane.popleft() for _ in range(len(lane))]
    lane.extend(sorted(waiting, key=lambda sent: sent.symbol != LINEAR))
    orders_arrive(world)


def a_halt_with_everything_in_flight(world: World) -> None:
    """A place, an amend and a cancel are under way; the place arrives after the halt and is pulled."""
    place_anew(world)
    resize(world, "0.1", LINEAR)
    for worker in list(world.pump.workers.values()):
        world.ask(worker, lambda number: HaltRequested(number, Why.OPERATOR, "op", "race", world.now_ns))
    orders_arrive(world)
    assert world.resting(PERP), "it was under way"
    take(world, 100)


RACES: dict[Race, str] = {
    a_lost_answer_that_later_fills: "roomy",
    a_lost_answer_that_fills_before_anybody_asks: "roomy",
    a_cancel_that_loses_the_race: "roomy",
    a_cancel_that_loses_a_part_of_the_race: "roomy",
    a_cancel_answered_not_found: "forgetful",
    a_fill_for_an_order_already_forgotten: "roomy",
    the_same_trade_through_two_channels: "roomy",
    the_end_is_told_twice_before_its_fill: "roomy",
    an_order_that_is_not_there_yet: "roomy",
    old_word_after_an_amend: "roomy",
    a_late_no_to_an_amend: "roomy",
    a_link_lost_with_a_place_in_flight: "roomy",
    a_symbol_leaves_and_is_back_among_fills: "roomy",
    a_symbol_leaves_before_it_knows_its_position: "unarmed",
    a_late_word_of_an_earlier_life: "roomy",
    a_halt_in_the_turn_of_an_order: "roomy",
    a_reset_while_a_fill_is_late: "roomy",
    a_halt_with_everything_in_flight: "roomy",
    room_that_is_not_given_back_yet: "oversubscribed",
    a_no_that_belongs_to_an_earlier_amend: "oversubscribed",
}
