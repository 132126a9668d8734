"""The daemon's state in the desk's shapes: exact decimals, every phase of a slot, and honest gaps."""

from decimal import Decimal

import pytest
import trio
from shell_kit import BTC, MID_TICKS, Room
from trio.testing import MockClock

from mmd.core.market import NO_TOUCH
from mmd.domain.events import BookTop, OpenOrder, PauseRequested, TimerFired, TradeLinkDown
from mmd.domain.reasons import Mode, Side
from mmd.shell import views


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("32200.0", "32200"),
        ("32200", "32200"),
        ("1E+3", "1000"),
        ("0.00050", "0.0005"),
        ("0E-8", "0"),
        ("-7.10", "-7.1"),
    ],
)
def test_numbers_have_no_exponent_and_no_zeros_at_the_end(value: str, shown: str) -> None:
    assert str(views.number(Decimal(value))) == shown


async def test_a_symbol_that_quotes(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    await trio.sleep(2)
    row = views.symbol_status(worker, room.now_ns, None)
    assert (row.symbol, row.exchange, row.state, row.reason, row.mode) == (BTC, "deribit", "ACTIVE", "resumed", "live")
    assert (row.market_bid, row.market_ask, row.fair) == (Decimal("79999.5"), Decimal("80000.5"), 80000.0)
    assert (row.bid.price, row.bid.size, row.bid.phase, row.bid.order_id) == (79920, 10, "LIVE", "id0")
    assert (row.position, row.min_position, row.max_position, row.pnl_usd) == (0, -100, 100, 0.0)
    assert (row.resting, row.data_age_seconds) == (2, pytest.approx(2.0))
    lines = views.order_lines(worker, room.now_ns)
    assert [(line.side, line.price, line.phase, line.mode) for line in lines] == [
        ("bid", 79920, "LIVE", "live"),
        ("ask", 80080, "LIVE", "live"),
    ]
    assert [line.age_seconds for line in lines] == [pytest.approx(2.0)] * 2


async def test_a_symbol_before_anything_is_known(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    row = views.symbol_status(worker, room.now_ns, None)
    assert (row.state, row.reason) == ("PAUSED", "startup")
    assert (row.market_bid, row.market_ask, row.fair, row.data_age_seconds) == (None, None, None, None)
    assert (row.min_position, row.max_position) == (None, None)
    assert (row.bid.price, row.bid.phase, row.bid.withheld) == (None, "EMPTY", "not_active")
    assert views.order_lines(worker, room.now_ns) == []
    explained = views.explanation(worker, room.pump.outbox, room.now_ns)
    assert not explained.quoting
    assert explained.bid == "withheld: PAUSED: startup, waiting for resume, by mmd; ends with `mmdctl resume`"
    assert explained.gate_bid == "nothing to judge"
    assert {check.name for check in explained.checks if not check.ok} >= {"data_link", "trade_link", "bounds"}


async def test_every_phase_of_an_order_can_be_shown(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.resume(worker)
    seen = [line.phase for line in views.order_lines(worker, room.now_ns)]
    assert seen == ["PLACING", "PLACING"]
    assert views.symbol_status(worker, room.now_ns, None).bid.order_id is None
    room.acknowledge(worker)
    await trio.sleep(2)
    room.pump.post(worker, room.book(shift=100))
    room.pump.run()
    assert [line.phase for line in views.order_lines(worker, room.now_ns)] == ["AMENDING", "AMENDING"]
    room.pump.post(worker, TradeLinkDown("cut", room.now_ns))
    room.pump.run()
    await trio.sleep(3)
    lines = views.order_lines(worker, room.now_ns)
    assert [(line.phase, line.age_seconds) for line in lines] == [("UNKNOWN", pytest.approx(3.0))] * 2
    assert views.symbol_status(worker, room.now_ns, None).resting == 2


async def test_a_stray_is_listed_with_what_it_really_is(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker(mode=Mode.SHADOW)
    stray = OpenOrder("mmd-kit-BTC-PERPETUAL-a-old-1", "9", Side.ASK, MID_TICKS[BTC] + 80, 2, 3)
    room.connect(worker, orders=(stray,))
    (line,) = views.order_lines(worker, room.now_ns)
    assert (line.side, line.size, line.phase, line.mode) == ("ask", 20, "CANCELLING", "live")
    assert views.symbol_status(worker, room.now_ns, None).mode == "shadow"


async def test_a_one_sided_book_is_explained(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    room.pump.post(worker, BookTop(((MID_TICKS[BTC] - 1, 5),), (), 2, room.now_ns, room.now_ns))
    room.pump.run()
    row = views.symbol_status(worker, room.now_ns, None)
    assert (row.state, row.bid.withheld, row.ask.withheld) == ("ACTIVE", "no_ask", "no_ask")
    explained = views.explanation(worker, room.pump.outbox, room.now_ns)
    book = explained.steps[0]
    assert (book.step, book.bid, book.ask) == ("book", "79999.5", "none")
    assert any(step.step == "fair" and "no_ask" in step.detail for step in explained.steps)
    assert explained.ask == "withheld: no_ask"


async def test_explaining_changes_nothing(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.quoting()
    before = worker.machine.snapshot()
    explained = views.explanation(worker, room.pump.outbox, room.now_ns)
    assert (explained.bid, explained.gate_bid) == ("10 at 79920", "passes")
    assert worker.machine.snapshot() == before and room.exchange.submitted == []
    room.pump.post(worker, PauseRequested(0, "ann", "", room.now_ns))
    room.pump.run()
    assert views.explanation(worker, room.pump.outbox, room.now_ns).gate_bid.startswith("refused by state: PAUSED")


async def test_what_the_gate_refuses_is_shown_with_both_numbers(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    room.connect(worker)
    room.exchange.budget.empty_until(room.now_ns)
    room.resume(worker)
    withheld = views.symbol_status(worker, room.now_ns, None).bid.withheld
    assert withheld is not None and withheld.startswith("refused: gate: message_budget")
    await trio.sleep(2)  # the credits are back
    room.pump.post(worker, TimerFired(room.now_ns))
    room.pump.run()
    assert views.symbol_status(worker, room.now_ns, None).bid.withheld is None


async def test_positions_with_and_without_a_price(autojump_clock: MockClock) -> None:
    room = Room()
    worker = room.worker()
    flat = views.position_line(worker)
    assert (flat.position, flat.average_price, flat.mark_price, flat.coins, flat.pnl_usd) == (0, None, None, 0.0, 0.0)
    room.connect(worker, position_lots=-4)
    line = views.position_line(worker)
    assert (line.position, line.average_price, line.mark_price) == (-40, 80000, 80000.0)
    assert line.coins == pytest.approx(-0.0005)
    assert (line.realized_usd, line.unrealized_usd, line.fees_usd) == (0.0, pytest.approx(0.0), 0.0)
    worker.machine.market.mark = 0.0
    worker.machine.touch = NO_TOUCH
    blind = views.position_line(worker)
    assert (blind.mark_price, blind.coins, blind.pnl_usd, blind.unrealized_usd) == (None, None, None, None)
