"""Closing a position from the desk: what the preview promises, what is sent, and how it ended."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
from shell_kit import BTC, MID_TICKS, NS, Room, instrument
from trio.testing import MockClock

from mmd.domain import events as ev
from mmd.domain.actions import ReduceOrder
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Side, State
from mmd.domain.units import Grid, GridStep
from mmd.shell.desk import Outcome
from mmd.shell.flatten import Taking, cost, fee, flatten, limit_ticks, preview, take
from mmd.shell.office import Office
from mmd.shell.worker import Worker

BID, ASK = Side.BID, Side.ASK
MID = MID_TICKS[BTC]
D = Decimal
LINEAR = instrument(
    contract=Contract.LINEAR,
    quote="USDC",
    settlement="USDC",
    lot=D("0.01"),
    contract_size=D("0.01"),
    taker_fee=D("0.001"),
)
INVERSE = instrument(taker_fee=D("0.001"))
OPTION = instrument(
    "BTC-31DEC27-80000-C", kind=Kind.CALL, quote="BTC", lot=D("0.1"), contract_size=D(1), taker_fee=D("0.0003")
)

# --- the arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "levels", "limit", "lots", "expected"),
    [
        pytest.param(BID, ((100, 5), (101, 5)), 101, 10, Taking(10, 100.5, 101), id="buy up to the limit itself"),
        pytest.param(BID, ((100, 5), (102, 5)), 101, 10, Taking(5, 100.0, 100), id="buy nothing above it"),
        pytest.param(ASK, ((100, 5), (99, 5)), 99, 10, Taking(10, 99.5, 99), id="sell down to the limit itself"),
        pytest.param(ASK, ((100, 5), (98, 5)), 99, 10, Taking(5, 100.0, 100), id="sell nothing below it"),
        pytest.param(ASK, ((100, 5), (99, 5)), 90, 7, Taking(7, (500 + 198) / 7, 99), id="no more than asked"),
        pytest.param(ASK, ((100, 5), (99, 5)), 90, 5, Taking(5, 100.0, 100), id="no level more than needed"),
        pytest.param(ASK, ((98, 5),), 99, 5, Taking(0, 0.0, 0), id="nothing within the limit"),
        pytest.param(BID, (), 99, 5, Taking(0, 0.0, 0), id="an empty side"),
    ],
)
def test_what_the_visible_book_gives(
    side: Side, levels: tuple[ev.Level, ...], limit: int, lots: int, expected: Taking
) -> None:
    assert take(levels, side, limit, lots) == expected


@pytest.mark.parametrize(
    ("side", "reference", "bps", "expected"),
    [
        pytest.param(BID, 1000.0, 100.0, 1010, id="a buyer pays up to 1 % more"),
        pytest.param(ASK, 1000.0, 100.0, 990, id="a seller takes up to 1 % less"),
        pytest.param(BID, 1000.0, 14.0, 1000, id="a step that is not reached is not paid"),
        pytest.param(ASK, 1000.0, 14.0, 1000, id="nor given"),
        pytest.param(BID, 1003.0, 0.0, 1000, id="never further than asked"),
        pytest.param(ASK, 1003.0, 0.0, 1005, id="on either side"),
    ],
)
def test_the_limit_is_never_further_away_than_asked(side: Side, reference: float, bps: float, expected: int) -> None:
    coarse = instrument(grid=Grid(D("0.5"), (GridStep(from_ticks=50, step_ticks=5),)))
    assert limit_ticks(coarse, side, reference, bps) == expected


@pytest.mark.parametrize(
    ("traded", "lots", "price", "against", "costs", "fees"),
    [
        # 1 coin, 100 dollars dearer than the middle.
        pytest.param(LINEAR, 100, D(2100), D(2000), D(100), D("2.1"), id="linear, in dollars"),
        # 80,000 dollars are 1 coin at 80,000 and 1.25 coins at 64,000.
        pytest.param(INVERSE, 8000, D(64000), D(80000), D("0.25"), D("0.00125"), id="inverse, in coins"),
        # 1 coin of options, each 0.01 coins dearer; fees are of the underlying.
        pytest.param(OPTION, 10, D("0.06"), D("0.05"), D("0.01"), D("0.0003"), id="option, in coins"),
    ],
)
def test_cost_and_fee(
    traded: Instrument, lots: int, price: Decimal, against: Decimal, costs: Decimal, fees: Decimal
) -> None:
    assert cost(traded, lots, price, against) == cost(traded, lots, against, price) == costs
    assert fee(traded, lots, price) == fees


# --- the preview --------------------------------------------------------------------------------------


async def held(room: Room, lots: int, **limits: Any) -> Worker:
    """PAUSED with a position, on a book of 3 lots at the touch and 100 three ticks further."""
    worker = room.worker()
    room.connect(worker, position_lots=lots)
    other = msgspec.structs.replace(worker.machine.settings.limits, **limits)
    changed = msgspec.structs.replace(worker.machine.settings, limits=other)
    now_ns = room.now_ns
    book = ev.BookTop(((MID - 1, 3), (MID - 4, 100)), ((MID + 1, 3), (MID + 4, 100)), 2, now_ns, now_ns)
    for event in (ev.SettingsChanged(changed, now_ns), book):
        room.pump.post(worker, event)
    room.pump.run()
    room.exchange.taken()
    return worker


async def test_a_preview_says_what_the_book_gives_and_sends_nothing(autojump_clock: MockClock) -> None:
    room = Room()
    worker = await held(room, 9)
    seen = preview(worker, None, 100.0)
    assert (seen.refused, seen.side, seen.position, seen.size, seen.left) == (None, ASK, 90, 90, 0)
    assert (seen.average_price, seen.worst_price) == ((3 * D(MID - 1) + 6 * D(MID - 4)) / 9 / 2, D(MID - 4) / 2)
    assert (seen.mid, seen.limit_price, seen.currency) == (D(MID) / 2, D(MID) * D("0.99") / 2, "BTC")
    assert seen.cost is not None and seen.cost > 0
    assert seen.orders == 2  # of 5 lots at most
    assert room.exchange.taken() == [] and worker.machine.closing is None


async def test_a_short_position_is_bought_back_from_the_asks(autojump_clock: MockClock) -> None:
    seen = preview(await held(Room(), -9), None, 100.0)
    assert (seen.side, seen.size, seen.worst_price) == (BID, 90, D(MID + 4) / 2)
    assert seen.limit_price == D(MID) * D("1.01") / 2


async def test_what_is_out_of_reach_is_left(autojump_clock: MockClock) -> None:
    worker = await held(Room(), 9)
    near = preview(worker, None, 0.1)  # half a dollar is a tenth of a basis point and more
    assert (near.size, near.left, near.worst_price) == (30, 60, D(MID - 1) / 2)
    part = preview(worker, D(50), 0.1)  # left of what was asked for, not of the position
    assert (part.size, part.left) == (30, 20)
    none = preview(worker, None, 0.0)
    assert (none.size, none.left, none.orders, none.average_price, none.cost) == (0, 90, 0, None, None)
    assert none.refused is not None and none.refused.startswith(
        "the visible book offers nothing within the limit price"
    )


@pytest.mark.parametrize(
    ("limits", "orders"),
    [
        pytest.param({"max_order_size": D(40)}, 3, id="size: 4 lots each"),
        pytest.param({"max_order_value_usd": D(20)}, 5, id="value: 2 lots each"),
    ],
)
async def test_the_orders_are_counted_as_they_will_be_sent(
    limits: dict[str, Any], orders: int, autojump_clock: MockClock
) -> None:
    assert preview(await held(Room(), 9, **limits), None, 100.0).orders == orders


def no_book(worker: Worker) -> None:
    worker.machine.market.book = None


def no_reference(worker: Worker) -> None:
    worker.machine.market.mark_ticks = 0.0
    worker.machine.touch = msgspec.structs.replace(worker.machine.touch, bid_ticks=0, bid_lots=0)


def active(worker: Worker) -> None:
    worker.machine.state = State.ACTIVE


def fine(worker: Worker) -> None:
    """Nothing is wrong with it."""


@pytest.mark.parametrize(
    ("spoil", "size", "words"),
    [
        pytest.param(active, None, "is ACTIVE: pause or halt it first", id="still quoting"),
        pytest.param(no_book, None, "there is no book or no reference price", id="no book"),
        pytest.param(no_reference, None, "there is no book or no reference price", id="no reference"),
        pytest.param(fine, D(100), "100 is not within the position of 90", id="more than the position"),
        pytest.param(fine, D(0), "0 is not within", id="nothing"),
        pytest.param(fine, D(-10), "-10 is not within", id="less than nothing"),
        pytest.param(fine, D(15), "15", id="no whole number of lots"),
    ],
)
async def test_what_cannot_be_closed_is_not_previewed(
    spoil: Callable[[Worker], None], size: Decimal | None, words: str, autojump_clock: MockClock
) -> None:
    worker = await held(Room(), 9)
    spoil(worker)
    seen = preview(worker, size, 100.0)
    assert seen.refused is not None and words in seen.refused
    assert (seen.size, seen.orders, seen.limit_price, seen.cost) == (0, 0, None, None)
    assert seen.left == 90


# --- doing it -----------------------------------------------------------------------------------------


async def answer(room: Room, worker: Worker, fills: list[int], after_seconds: float = 0.1) -> None:
    """The exchange: each closing order in turn fills that much; the rest of it is cancelled."""
    for number, lots in enumerate(fills):
        orders: list[ReduceOrder] = []
        while not orders:
            await trio.sleep(after_seconds)
            orders = [request for _, request in room.exchange.taken() if isinstance(request, ReduceOrder)]
        (order,) = orders
        now_ns = room.now_ns
        if lots:
            price = worker.machine.instrument.grid.price(order.price_ticks)
            told = (order.label, "id", f"c{number}", order.side, price, lots, D(0), "BTC", False, 80_000.0)
            room.pump.post(worker, ev.OrderFilled(*told, now_ns, now_ns))
        room.pump.post(worker, ev.OrderClosed(order.label, "id", "cancelled", lots, now_ns))
        await room.pump.deliver()


async def close(
    room: Room, worker: Worker, fills: list[int], size: Decimal | None = None, price: Decimal | None = None
) -> Any:
    office, limit = Office(room.pump), price or D(MID) * D("0.99") / 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, room, worker, fills)
        result = await flatten(office, worker, size, limit, "why", "ann", 5.0)
        nursery.cancel_scope.cancel()
    return result


async def test_it_answers_when_the_last_order_has_ended(autojump_clock: MockClock) -> None:
    room = Room()
    worker = await held(room, 9)
    began = trio.current_time()
    result = await close(room, worker, [5, 4])
    assert (result.outcome, result.detail) == (Outcome.DONE, "90 of 90 closed, position 0")
    assert trio.current_time() - began == pytest.approx(0.2)
    assert worker.machine.position.lots == 0
    (row,) = result.symbols
    assert (row.symbol, row.outcome, row.state) == (BTC, Outcome.DONE, State.PAUSED)


async def test_only_what_was_asked_for_is_closed(autojump_clock: MockClock) -> None:
    room = Room()
    worker = await held(room, 9)
    result = await close(room, worker, [4], size=D(40))
    assert (result.outcome, result.detail) == (Outcome.DONE, "40 of 40 closed, position 50")


async def test_what_the_book_did_not_give_is_not_done(autojump_clock: MockClock) -> None:
    room = Room()
    worker = await held(room, 9)
    result = await close(room, worker, [5, 1])
    assert (result.outcome, result.detail) == (Outcome.TIMED_OUT, "60 of 90 closed, position 30")


async def test_an_answer_that_does_not_come_is_said(autojump_clock: MockClock) -> None:
    room = Room()
    worker = await held(room, 9)
    result = await close(room, worker, [])
    assert result.outcome is Outcome.TIMED_OUT
    assert result.detail == "0 of 90 closed, position 90; an order is still on its way"


async def test_the_gates_no_is_told_with_its_numbers(autojump_clock: MockClock) -> None:
    """From now, not one of an earlier order."""
    room = Room()
    worker = await held(room, 9)
    far = await close(room, worker, [], price=D(MID) * D("0.8") / 2)
    assert far.outcome is Outcome.TIMED_OUT and "gate: collar 2000.0 bps, limit 1000 bps" in far.detail
    assert room.exchange.taken() == [] and worker.machine.closing is None
    await trio.sleep(1.5)
    part = await close(room, worker, [2])
    assert part.detail == "20 of 90 closed, position 70"


@pytest.mark.parametrize(
    ("size", "price", "words"),
    [
        pytest.param(D(15), D(70_000), "15", id="off the lot"),
        pytest.param(D(40), D("70000.25"), "70000.25", id="off the tick"),
        pytest.param(D(100), D(79_000), "cannot be closed of a position of 90", id="more than the position"),
    ],
)
async def test_a_request_that_makes_no_sense_sends_nothing(
    size: Decimal, price: Decimal, words: str, autojump_clock: MockClock
) -> None:
    room = Room()
    worker = await held(room, 9)
    result = await flatten(Office(room.pump), worker, size, price, "", "ann", 1.0)
    assert result.outcome is Outcome.REFUSED and words in result.detail
    assert room.exchange.taken() == [] and room.now_ns % NS == 0
