"""Whom a trip reaches and whom its end: a symbol, an exchange, everybody; and what of it is shown and counted."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
import trio
from shell_kit import BTC, ETH, LIMITS, MID_TICKS, NS, Room, instrument, settings
from trio.testing import MockClock

from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, Decision, PlaceOrder, QueryState, Tripped
from mmd.domain.events import Mail
from mmd.domain.reasons import CashKind, Mode, Response, Rule, Scope, Side, State, Switch, Why
from mmd.domain.settings import KillSwitches
from mmd.shell.worker import MAILBOX, Worker

HERE, THERE = "deribit", "other"
Alert = tuple[str, str | None, str | None]


def alerts(room: Room) -> list[Alert]:
    return [(line.name, line.exchange, line.symbol) for line in room.alerts.active()]


def elsewhere(room: Room) -> Worker:
    """A worker on the second exchange, quoting."""
    machine = SymbolMachine(instrument(BTC, exchange=THERE), settings(), "ep", room.now_ns)
    worker = Worker(machine, room.counters.symbol(machine.instrument.key))
    room.pump.add(worker)
    room.treasury.join([worker])
    room.connect(worker)
    room.resume(worker)
    room.acknowledge(worker)
    room.exchanges[THERE].taken()
    return worker


def two_exchanges() -> tuple[Room, list[Worker]]:
    """BTC and ETH here, BTC there, all quoting."""
    room = Room(names=(HERE, THERE))
    return room, [room.quoting(BTC), room.quoting(ETH), elsewhere(room)]


TARGETS = [
    pytest.param(Switch.ORDERS_LEFT, Scope.SYMBOL, f"{HERE}/{BTC}", [True, False, False], (HERE, BTC), id="symbol"),
    pytest.param(Switch.CLOCK_SKEW, Scope.EXCHANGE, HERE, [True, True, False], (HERE, None), id="exchange"),
    pytest.param(
        Switch.CLOCK_SKEW, Scope.EXCHANGE, THERE, [False, False, True], (THERE, None), id="the other exchange"
    ),
    pytest.param(Switch.VALUATION, Scope.PORTFOLIO, "", [True, True, True], (None, None), id="portfolio"),
]


@pytest.mark.parametrize(("switch", "scope", "target", "reached", "shown"), TARGETS)
@pytest.mark.parametrize("response", [Response.PAUSE, Response.HALT])
async def test_a_trip_reaches_its_scope_and_nobody_else(
    autojump_clock: MockClock,
    switch: Switch,
    scope: Scope,
    target: str,
    reached: list[bool],
    shown: tuple[str | None, str | None],
    response: Response,
) -> None:
    room, workers = two_exchanges()
    room.pump.trip(Tripped(switch, scope, target, response, "found 3, allowed 2"))
    room.pump.run()
    wanted = State.HALTED if response is Response.HALT else State.PAUSED
    assert [worker.machine.state is wanted for worker in workers] == reached
    assert [worker.machine.state is State.ACTIVE for worker in workers] == [not hit for hit in reached]
    assert [entry[1:] for entry in alerts(room)] == [shown]
    last = room.pump.alarm.last[switch]
    assert (last.trips, last.at_ns, last.detail) == (1, room.now_ns, "found 3, allowed 2")
    assert room.counters.trips == {(switch, scope): 1}


@pytest.mark.parametrize(("switch", "scope", "target", "reached", "shown"), TARGETS[1:])
async def test_the_end_of_a_cause_reaches_the_same(
    autojump_clock: MockClock,
    switch: Switch,
    scope: Scope,
    target: str,
    reached: list[bool],
    shown: tuple[str | None, str | None],
) -> None:
    room, workers = two_exchanges()
    for name in (HERE, THERE):  # everybody is held by both exchanges' clocks or by the portfolio
        if scope is Scope.EXCHANGE:
            room.pump.trip(Tripped(switch, scope, name, Response.PAUSE, "skewed"))
    if scope is Scope.PORTFOLIO:
        room.pump.trip(Tripped(switch, scope, "", Response.PAUSE, "no index"))
    room.pump.run()
    assert [bool(worker.machine.held) for worker in workers] == [True, True, True]
    room.pump.clear(switch, target or None)
    room.pump.run()
    assert [not worker.machine.held for worker in workers] == reached
    assert [entry[1:] for entry in alerts(room)] == ([] if not target else [(THERE if target == HERE else HERE, None)])


async def test_a_cause_that_comes_again_keeps_its_alert(autojump_clock: MockClock) -> None:
    """Over, while one is HALTED for it, and there again: a reset does not end what lasts."""
    room = Room()
    worker = room.worker()
    skewed = Tripped(Switch.CLOCK_SKEW, Scope.EXCHANGE, HERE, Response.HALT, "3 s")
    room.pump.trip(skewed)
    room.pump.run()
    room.pump.clear(Switch.CLOCK_SKEW, HERE)
    room.pump.trip(skewed)
    room.pump.run()
    room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    room.pump.run()
    assert worker.machine.state is State.PAUSED and alerts(room) == [("MmdClockSkew", HERE, None)]
    room.pump.clear(Switch.CLOCK_SKEW, HERE)
    assert alerts(room) == []


async def test_who_is_halted_elsewhere_keeps_no_alert_here(autojump_clock: MockClock) -> None:
    room, workers = two_exchanges()
    for name in (HERE, THERE):
        room.pump.trip(Tripped(Switch.CLOCK_SKEW, Scope.EXCHANGE, name, Response.HALT, "3 s"))
    room.pump.run()
    room.pump.clear(Switch.CLOCK_SKEW, HERE)
    assert len(alerts(room)) == 2
    for worker in workers[:2]:
        room.pump.post(worker, ev.ResetRequested(0, "ann", "looked", room.now_ns))
    room.pump.run()
    assert alerts(room) == [("MmdClockSkew", THERE, None)]


# --- the lookout --------------------------------------------------------------------------------------


async def test_each_exchange_has_its_own_watch(autojump_clock: MockClock) -> None:
    room, workers = two_exchanges()
    room.exchanges[THERE].clock_skew_ms = -1500.0
    room.lookout.look()
    room.pump.run()
    assert [worker.machine.why for worker in workers] == [Why.RESUMED, Why.RESUMED, Why.CLOCK_SKEW]
    room.exchanges[HERE].event_lag_seconds = 6.0
    room.lookout.look()
    room.pump.run()
    assert [worker.machine.why for worker in workers] == [Why.EVENT_LAG, Why.EVENT_LAG, Why.CLOCK_SKEW]
    room.exchanges[THERE].clock_skew_ms = 0.0
    room.lookout.look()
    room.pump.run()
    assert [bool(worker.machine.held) for worker in workers] == [True, True, False]
    assert alerts(room) == [("MmdEventLag", HERE, None)]


async def test_new_thresholds_and_responses_hold_from_the_next_look(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    room.exchange.clock_skew_ms = 500.0
    room.lookout.look()
    assert worker.depth == 0
    responses = {**KillSwitches().responses, Switch.CLOCK_SKEW: Response.HALT}
    room.lookout.change(KillSwitches(max_skew_ms=400.0, responses=responses))
    room.lookout.look()
    room.pump.run()
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.CLOCK_SKEW)


@pytest.mark.parametrize("event", [ev.DataLinkDown, ev.TradeLinkDown])
async def test_either_link_that_breaks_is_counted(autojump_clock: MockClock, event: type) -> None:
    room = Room()
    worker = room.quoting()
    for _ in range(6):
        room.sink.post_all(event("reset", room.now_ns))
        room.pump.run()
        await trio.sleep(2.0)
    assert (worker.machine.state, worker.machine.why) == (State.HALTED, Why.DISCONNECT_STORM)


async def test_an_exchanges_news_are_for_its_own_symbols(autojump_clock: MockClock) -> None:
    room, workers = two_exchanges()
    room.sink.post_all(ev.TradeLinkDown("cut", room.now_ns))
    assert [worker.depth for worker in workers] == [1, 1, 0]
    room.pump.run()
    assert [worker.machine.market.trade_link for worker in workers] == [False, False, True]


async def test_what_an_imagined_order_would_have_filled_reaches_its_machine(autojump_clock: MockClock) -> None:
    """Somebody sells through our imagined bid; a live symbol's orders are the exchange's business."""
    room = Room()
    shadow, live = room.quoting(BTC, mode=Mode.SHADOW), room.quoting(ETH)
    await trio.sleep(1.0)
    for worker in (shadow, live):
        low = worker.machine.own.bid.slot.price_ticks - 10
        room.sink.post(worker.symbol, room.book(worker.symbol))
        room.sink.post(worker.symbol, ev.TradePrinted(low, 1000, Side.ASK, room.now_ns, room.now_ns))
    room.pump.run()
    assert shadow.machine.imagined.pessimistic.lots == 1 and shadow.machine.position.lots == 0
    assert (live.machine.imagined.pessimistic.lots, live.machine.position.lots) == (0, 0)


# --- a symbol's own alerts ----------------------------------------------------------------------------


def crossed(room: Room) -> ev.BookTop:
    mid = MID_TICKS[BTC]
    return ev.BookTop(((mid + 1, 10),), ((mid - 1, 10),), 3, room.now_ns, room.now_ns)


async def test_a_machines_own_trip_is_an_alert_until_it_quotes_again(autojump_clock: MockClock) -> None:
    room = Room()
    worker, other = room.quoting(BTC), room.quoting(ETH)
    room.pump.post(worker, crossed(room))
    room.pump.post(other, ev.InstrumentStateChanged("locked", False, False, room.now_ns))
    room.pump.run()
    both = [("MmdMarketData", HERE, BTC), ("MmdMarketHalt", HERE, ETH)]
    assert alerts(room) == both
    room.pump.post(worker, ev.PauseRequested(0, "ann", "", room.now_ns))
    room.pump.run()
    assert alerts(room) == both  # a pause cures nothing
    for order in [request for _, request in room.exchange.taken() if isinstance(request, CancelOrder)]:
        room.pump.post(worker, ev.OrderClosed(order.label, order.order_id, "user_request", 0, room.now_ns))
    room.pump.post(worker, room.book())
    room.resume(worker)
    assert worker.machine.state is State.ACTIVE and alerts(room) == both[1:]


async def test_a_reset_ends_the_alerts_of_its_symbol_alone(autojump_clock: MockClock) -> None:
    room = Room()
    workers = [room.quoting(BTC), room.quoting(ETH)]
    for worker in workers:
        trade = ("", "id", "t", Side.BID, Decimal(80_000), 1, Decimal(0), worker.symbol[:3], True, 80_000.0)
        swapped = (*trade[:3], Side.ASK, *trade[4:])
        for told in (trade, swapped):
            room.pump.post(worker, ev.OrderFilled(*told, room.now_ns, room.now_ns))
    room.pump.run()
    assert alerts(room) == [("MmdSelfTrade", HERE, BTC), ("MmdSelfTrade", HERE, ETH)]
    assert room.counters.trips == {(Switch.SELF_TRADE, Scope.SYMBOL): 2}
    room.pump.post(workers[0], ev.ResetRequested(0, "ann", "looked", room.now_ns))
    room.pump.run()
    assert alerts(room) == [("MmdSelfTrade", HERE, ETH)]


async def test_who_leaves_takes_its_alerts_along(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.pump.trip(Tripped(Switch.ORDERS_LEFT, Scope.SYMBOL, worker.key, Response.WARN, "2 orders"))
    assert alerts(room) == [("MmdOrdersLeft", HERE, BTC)]
    room.pump.post(worker, ev.RemovalRequested(Why.REMOVED, room.now_ns))
    room.pump.run()
    assert worker.gone.is_set() and alerts(room) == []


async def test_an_exchanges_alert_ends_with_the_last_that_it_held(autojump_clock: MockClock) -> None:
    """Its cause is over; it lasts while anybody is HALTED for it, and that one may leave as well."""
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.pump.trip(Tripped(Switch.CLOCK_SKEW, Scope.EXCHANGE, HERE, Response.HALT, "3 s"))
    room.pump.run()
    room.pump.clear(Switch.CLOCK_SKEW, HERE)
    room.pump.run()
    assert alerts(room) == [("MmdClockSkew", HERE, None)]
    room.pump.post(worker, ev.RemovalRequested(Why.REMOVED, room.now_ns))
    room.pump.run()
    assert worker.machine.state is State.GONE and alerts(room) == []


async def test_a_broken_worker_that_leaves_takes_its_alerts_along(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    room.pump.trip(Tripped(Switch.WORKER_FAULT, Scope.SYMBOL, worker.key, Response.HALT, "a bug"))
    room.pump.run()
    worker.broken = True
    room.pump.post(worker, ev.RemovalRequested(Why.REMOVED, room.now_ns))
    room.pump.run()
    assert (worker.gone.is_set(), worker.machine.state, alerts(room)) == (True, State.GONE, [])


async def test_a_full_mailbox_is_an_alert_of_its_own(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    for _ in range(MAILBOX + 1):
        room.pump.post(worker, ev.TimerFired(room.now_ns))
    assert alerts(room) == [("MmdInboxOverflow", HERE, BTC)]
    assert room.pump.alarm.last[Switch.INBOX_OVERFLOW].detail == "deribit/BTC-PERPETUAL: 1000 events wait"


async def test_a_bug_is_an_alert_of_its_own_once(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    worker = room.quoting()
    real = worker.machine.handle

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        if any(isinstance(event, ev.TimerFired) for event in events):
            raise KeyError("a bug of ours")
        return real(events, now_ns)

    monkeypatch.setattr(worker.machine, "handle", handle)
    for _ in range(3):
        room.pump.post(worker, ev.TimerFired(room.now_ns))
        room.pump.run()
    assert alerts(room) == [("MmdWorkerFault", HERE, BTC)]
    assert room.pump.alarm.last[Switch.WORKER_FAULT].trips == 1


# --- a machine that is done without -------------------------------------------------------------------


async def test_a_machine_that_swallows_its_halt_is_taken_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises nothing when it is to be halted, and is not HALTED either."""
    room = Room()
    stray = ev.OpenOrder("mmd-kit-BTC-PERPETUAL-a-old-1", "9", Side.ASK, MID_TICKS[BTC] + 80, 2, 3)
    worker = room.quoting()
    orders = [
        ev.OpenOrder(s.label, s.slot.order_id, s.side, s.slot.price_ticks, 1, 1) for s in worker.machine.own.every()
    ]
    room.pump.post(worker, ev.OrdersReported((*orders, stray), room.now_ns))
    room.pump.run()
    worker.machine.state = State.ACTIVE
    room.exchange.taken()

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        if any(isinstance(event, ev.HaltRequested) for event in events):
            return []
        raise ZeroDivisionError

    monkeypatch.setattr(worker.machine, "handle", handle)
    await trio.sleep(5)
    room.pump.post(worker, ev.TimerFired(room.now_ns))
    room.pump.run()
    assert (worker.broken, worker.machine.state, worker.machine.why) == (True, State.HALTED, Why.WORKER_FAULT)
    assert worker.machine.since_ns == room.now_ns and not worker.proven
    pulled = {request.label for _, request in room.exchange.taken() if isinstance(request, CancelOrder)}
    assert pulled == {*(order.label for order in orders), stray.label}


async def test_machines_that_ran_are_counted(autojump_clock: MockClock) -> None:
    """The sentinel tells a machine that does not come back from many that are quick."""
    room = Room()
    workers = [room.worker(BTC), room.worker(ETH)]
    room.pump.run()
    before = room.pump.handled
    for worker in workers:
        room.pump.post(worker, ev.TimerFired(room.now_ns))
    room.pump.run()
    assert (room.pump.handled, room.pump.handling) == (before + 2, None)


async def test_a_timer_that_a_machine_asks_for_is_set(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.post(worker, ev.TradeLinkUp(True, room.now_ns))
    room.pump.run()
    assert worker.timer_ns == worker.machine.timer_ns == room.now_ns + 10 * NS


@pytest.mark.parametrize(
    ("event", "lots"),
    [
        pytest.param(lambda ns: ev.PositionReported(4, Decimal(80_000), ns), 4, id="position"),
        pytest.param(
            lambda ns: ev.CashMoved("d", CashKind.SETTLEMENT, Decimal(0), "BTC", 3, ns, ns), -3, id="delivery"
        ),
    ],
)
async def test_what_moves_a_position_is_valued_at_once(autojump_clock: MockClock, event: object, lots: int) -> None:
    room = Room()
    worker = room.worker()
    for told in (ev.DataLinkUp(room.now_ns), ev.TradeLinkUp(True, room.now_ns), room.book(), room.ticker()):
        room.pump.post(worker, told)
    if lots < 0:
        room.pump.post(worker, ev.PositionReported(0, Decimal(0), room.now_ns))
    room.pump.run()
    room.pump.post(worker, event(room.now_ns))  # type: ignore[operator]  # a table of makers
    room.pump.run()
    assert room.treasury.machine.shares[worker.key].lots == worker.machine.position.lots == lots


async def test_what_is_imagined_is_forgotten_when_the_mode_changes(autojump_clock: MockClock) -> None:
    """Nobody tells the shadow of books meanwhile: an old one must not judge a later order."""
    room = Room()
    worker = room.quoting(mode=Mode.SHADOW)
    room.sink.post(BTC, room.book())
    room.pump.run()
    crossing = PlaceOrder("mmd-kit-x", Side.BID, MID_TICKS[BTC] + 5, 1)
    assert isinstance(worker.shadow.send(crossing, room.now_ns), ev.OrderRefused)
    for state in worker.machine.own.every():
        room.pump.outbox.order(worker, CancelOrder(state.label, "", state.side), room.now_ns)
    worker.configured_mode = Mode.LIVE
    room.pump.post(worker, ev.SettingsChanged(worker.effective(worker.machine.settings), room.now_ns))
    room.pump.run()
    assert worker.mode is worker.machine.mode is Mode.LIVE
    assert isinstance(worker.shadow.send(crossing, room.now_ns), ev.OrderAcked)


# --- the way out --------------------------------------------------------------------------------------


async def test_nothing_is_placed_before_the_totals_are_known(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.pump.outbox.limits = None
    room.exchange.taken()
    room.resume(worker)
    assert room.exchange.taken() == []
    refusal = worker.machine.refusal
    assert refusal is not None and refusal.rule is Rule.OPEN_ORDERS


async def test_places_and_amends_have_a_rate_each(autojump_clock: MockClock) -> None:
    """Two and three at once, then as many a second; cancels are not counted."""
    room = Room()
    worker = room.quoting()
    limits = worker.machine.settings.limits
    slow = type(limits)(
        max_position=limits.max_position,
        max_order_size=limits.max_order_size,
        collar_bps=limits.collar_bps,
        max_places_per_second=2.0,
        max_amends_per_second=3.0,
    )
    with_rates = type(worker.machine.settings)(
        service="kit",
        mode=Mode.LIVE,
        profile=worker.machine.settings.profile,
        limits=slow,
        data=worker.machine.settings.data,
    )
    room.pump.post(worker, ev.SettingsChanged(with_rates, room.now_ns))
    room.pump.run()
    outbox, machine = room.pump.outbox, worker.machine
    bid = machine.own.bid
    amend = AmendOrder(bid.label, "id0", Side.BID, bid.slot.price_ticks, 1, 1)

    def passed(order: PlaceOrder | AmendOrder, times: int) -> int:
        room.exchange.taken()
        for _ in range(times):
            outbox.order(worker, order, room.now_ns)
        outbox.submit()
        assert {event.rule for event in worker.take()} <= {Rule.MESSAGE_RATE}
        return len(room.exchange.taken())

    await trio.sleep(5.0)
    assert (passed(amend, 6), passed(amend, 1)) == (3, 0)
    await trio.sleep(1.0)
    assert passed(amend, 6) == 3
    machine.own.bid.slot, machine.own.bid.label = type(machine.own.bid)(Side.BID).slot, ""
    place = PlaceOrder("mmd-kit-BTC-PERPETUAL-b-ep-z", Side.BID, MID_TICKS[BTC] - 20, 1)
    assert (passed(place, 6), passed(place, 1)) == (2, 0)
    for _ in range(20):
        outbox.order(worker, CancelOrder("mmd-kit-x", "", Side.BID), room.now_ns)
    outbox.submit()
    assert len(room.exchange.taken()) == 20
    await trio.sleep(0.5)
    assert passed(place, 6) == 1
    assert LIMITS.max_open_orders == 1000


async def test_orders_that_have_not_left_stay_when_their_symbol_may_not_quote_any_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One decides to place; before the requests are handed over another's event halts everybody."""
    room = Room()
    first, second = room.worker(BTC), room.worker(ETH)
    for worker in (first, second):
        room.connect(worker)
    room.exchange.taken()
    real = second.machine.handle

    def handle(events: Sequence[Mail], now_ns: int) -> list[Decision]:
        if any(isinstance(event, ev.TimerFired) for event in events):
            room.pump.trip(Tripped(Switch.DRAWDOWN, Scope.PORTFOLIO, "", Response.HALT, "100 USD"))
        return real(events, now_ns)

    monkeypatch.setattr(second.machine, "handle", handle)
    room.pump.post(first, ev.ResumeRequested(0, "ann", "", room.now_ns))
    room.pump.post(second, ev.TimerFired(room.now_ns))
    room.pump.run()
    assert (first.machine.state, first.machine.why) == (State.HALTED, Why.DRAWDOWN)
    assert room.exchange.taken() == [] and first.machine.own.resting == 0
    assert room.counters.symbol(first.key).refused == {Rule.STATE: 2}
    refusal = first.machine.refusal
    assert refusal is not None and (refusal.number, refusal.limit) == ("HALTED", "ACTIVE")
    assert type(refusal.number) is type(refusal.limit) is str, "a replay gets texts, and its machine has to be equal"


async def test_a_question_is_asked_although_nobody_has_mail(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.pump.run()
    room.exchange.taken()
    room.pump.outbox.query(worker, QueryState(), room.now_ns)
    room.pump.run()
    assert room.exchange.taken() == [(BTC, QueryState())]
