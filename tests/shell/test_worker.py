"""The mailbox: market data is conflated, newest wins; everything else waits in order, or overflows loudly."""

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from shell_kit import START_NS, Room, instrument, settings

from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.reasons import Mode, Side, Why
from mmd.shell.counters import SymbolCounters
from mmd.shell.worker import MAILBOX, NEWEST_WINS, MailboxFull, Worker


def make_worker(mode: Mode = Mode.LIVE) -> Worker:
    return Worker(SymbolMachine(instrument(), settings(mode), "ep", START_NS), SymbolCounters())


def book(number: int) -> ev.BookTop:
    return ev.BookTop((), (), number, number, number)


def ticker(number: int) -> ev.Ticker:
    return ev.Ticker(float(number), 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, number, number)


def trade(number: int) -> ev.TradePrinted:
    return ev.TradePrinted(number, 1, Side.BID, number, number)


def fill(number: int) -> ev.OrderAbsent:
    """Any event that is about an order of ours."""
    return ev.OrderAbsent(f"label-{number}", number)


def test_the_newest_market_data_stands_where_the_first_stood() -> None:
    worker = make_worker()
    for event in (book(1), fill(2), ticker(3), book(4), trade(5), ticker(6), trade(7), fill(8)):
        worker.post(event)
    assert worker.depth == 5
    assert worker.take() == [book(4), fill(2), ticker(6), trade(7), fill(8)]
    assert worker.counters.conflated == 3
    assert (worker.take(), worker.depth) == ([], 0)


def test_a_mailbox_that_was_emptied_starts_anew() -> None:
    worker = make_worker()
    worker.post(book(1))
    worker.take()
    worker.post(fill(2))
    worker.post(book(3))
    assert worker.take() == [fill(2), book(3)]


@pytest.mark.parametrize(
    "breaker", [ev.BookBroken(Why.BOOK_GAP, "gap", 2), ev.DataLinkDown("cut", 2)], ids=["book broken", "link down"]
)
def test_what_comes_after_a_break_is_not_moved_before_it(breaker: ev.Mail) -> None:
    worker = make_worker()
    for event in (book(1), breaker, book(3), book(4)):
        worker.post(event)
    assert worker.take() == [book(1), breaker, book(4)]


def test_an_overflow_raises_and_is_counted_and_market_data_still_conflates() -> None:
    worker = make_worker()
    worker.post(book(0))
    for number in range(1, MAILBOX):
        worker.post(fill(number))
    worker.post(book(MAILBOX))
    with pytest.raises(MailboxFull, match="BTC-PERPETUAL: 1000 events wait"):
        worker.post(fill(MAILBOX))
    assert (worker.depth, worker.counters.overflows) == (MAILBOX, 1)
    assert worker.take()[0] == book(MAILBOX)


KINDS = st.sampled_from([book, ticker, trade, fill])


@given(st.lists(KINDS, max_size=60))
def test_nothing_but_market_data_is_ever_lost_or_moved(kinds: list[object]) -> None:
    worker = make_worker()
    posted = [kind(number) for number, kind in enumerate(kinds)]
    for event in posted:
        worker.post(event)
    taken = worker.take()
    assert [event for event in taken if type(event) not in NEWEST_WINS] == [
        event for event in posted if type(event) not in NEWEST_WINS
    ]
    for kind in NEWEST_WINS:
        of_kind = [event for event in posted if type(event) is kind]
        assert [event for event in taken if type(event) is kind] == of_kind[-1:]
    assert worker.counters.conflated == len(posted) - len(taken)


def test_an_operators_shadow_is_stronger_than_the_config() -> None:
    worker = make_worker(Mode.LIVE)
    assert worker.effective(settings(Mode.LIVE)).mode is Mode.LIVE
    worker.shadowed = True
    assert worker.effective(settings(Mode.LIVE)).mode is Mode.SHADOW
    worker.shadowed = False
    worker.configured_mode = Mode.SHADOW
    asked = msgspec.structs.replace(settings(Mode.LIVE), service="other")
    assert worker.effective(asked) == msgspec.structs.replace(asked, mode=Mode.SHADOW)


async def test_each_symbols_timer_fires_when_its_machine_asked(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    room = Room(nursery)
    assert room.roster is not None
    worker = make_worker()
    fired: list[float] = []
    room.roster.enlist([worker])
    real = room.pump.post

    def post(target: Worker, event: ev.Mail) -> None:
        if isinstance(event, ev.TimerFired):
            fired.append(trio.current_time())
        real(target, event)

    room.pump.post = post  # type: ignore[method-assign]  # only watched
    began = trio.current_time()
    second = 1_000_000_000
    worker.set_timer(room.now_ns + 30 * second)
    await trio.sleep(1)
    worker.set_timer(room.now_ns + 2 * second)  # replaces the one before
    await trio.sleep(60)
    assert [round(at - began, 6) for at in fired] == [3.0]
    worker.set_timer(room.now_ns - second)  # overdue: at once
    await trio.sleep(0.1)
    assert len(fired) == 2
    worker.gone.set()
    await trio.testing.wait_all_tasks_blocked()
    assert room.pump.workers == {} and room.exchange.watched == []
