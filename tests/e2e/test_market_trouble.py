"""A market that misbehaves: each kind of trouble pauses with its own reason, or withholds and says so."""

from functools import partial

import pytest
import trio
from still import BTC, CONFIG, DERIVE, ETH, ON_EACH, OPERATOR, Ground, House, running
from trio.testing import MockClock

from mmd.sandbox.model import Direction, InstrumentState
from mmd.shell.desk import Outcome

AUTO = CONFIG.replace("auto_resume: false", "auto_resume: true")


async def paused(house: House, why: str) -> None:
    """BTC pauses for this reason and its orders go; ETH never notices."""
    before = house.order_ids(ETH)
    await house.until(lambda: house.state(BTC) == ("PAUSED", why))
    await house.until(lambda: not house.resting(BTC))
    assert house.row(BTC).resting == 0
    assert house.state(ETH) == ("ACTIVE", "resumed")
    assert house.order_ids(ETH) == before == house.resting_ids(ETH)
    assert len(house.events("symbol.paused")) == 1


@ON_EACH
async def test_both_sides_rest_at_the_exchange_as_the_status_says(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, ground=ground) as house:
        assert house.state(BTC) == house.state(ETH) == ("PAUSED", "startup")
        assert house.resting(BTC) == []
        await house.quote()
        row = house.row(BTC)
        prices = {order.direction: order.price for order in house.resting(BTC)}
        assert prices == {Direction.BUY: row.bid.price, Direction.SELL: row.ask.price}
        assert (row.bid.size, row.ask.size, row.resting) == (10, 10, 2)


@ON_EACH
async def test_a_crossed_book_pauses(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, ground=ground) as house:
        await house.quote()
        house.faults.cross(BTC, house.sandbox.now_ms)
        await paused(house, "crossed_book")
        refused = await house.resume(BTC)
        assert refused.outcome is Outcome.REFUSED and "market_data" in refused.symbols[0].detail
        house.faults.uncross(BTC, house.sandbox.now_ms)
        await trio.sleep(60)
        assert house.state(BTC) == ("PAUSED", "crossed_book")  # nobody said resume
        await house.quote(BTC)


async def test_silence_pauses_after_the_configured_time(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        house.faults.silence(BTC)
        age = house.row(BTC).data_age_seconds
        assert age is not None and age < 2
        await trio.sleep(4.9 - age)
        assert house.state(BTC) == ("ACTIVE", "resumed")
        await trio.sleep(0.2)
        await paused(house, "stale_book")
        assert "allowed 5 s" in house.row(BTC).detail
        house.faults.speak(BTC)
        house.set_book(BTC, [(-1, 900)], [(1, 900)])  # shows that changes are missing: the book is asked for anew
        await house.until(lambda: house.daemon.links()["deribit"]["data"].resyncs == 1)
        await house.until(lambda: house.row(BTC).market_bid is not None)
        await house.quote(BTC)


async def test_a_gap_pauses_and_mends_that_book_only(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        house.faults.drop_change(BTC)
        house.set_book(BTC, [(-1, 900)], [(1, 900)])
        await trio.sleep(0.5)
        assert house.state(BTC) == ("ACTIVE", "resumed")  # nobody can know yet that one is missing
        house.set_book(BTC, [(-1, 800)], [(1, 800)])
        await paused(house, "book_gap")
        links = house.daemon.links()["deribit"]
        await house.until(lambda: links["data"].resyncs == 1)
        assert (links["data"].connects, links["trade"].connects) == (1, 1)
        await house.until(lambda: house.row(BTC).market_bid is not None)
        await house.quote(BTC)


async def test_a_locked_market_pauses(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        house.set_state(BTC, InstrumentState.LOCKED)
        await paused(house, "market_halted")
        assert (await house.resume(BTC)).outcome is Outcome.REFUSED
        house.set_state(BTC, InstrumentState.OPEN)
        await house.until(lambda: house.worker(BTC).machine.market.tradable)
        await house.quote(BTC)


async def test_orders_that_a_halted_market_does_not_let_go_are_shown_and_go_later(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        house.set_state(BTC, InstrumentState.HALTED)  # the exchange refuses cancels as well
        await house.until(lambda: house.state(BTC) == ("PAUSED", "market_halted"))
        await trio.sleep(10)
        assert house.row(BTC).resting == len(house.resting(BTC)) == 2
        timed_out = await house.daemon.pause([BTC], "", OPERATOR, 1.0)
        assert timed_out.outcome is Outcome.TIMED_OUT
        assert timed_out.symbols[0].detail.startswith("2 orders may still rest: mmd-")
        house.set_state(BTC, InstrumentState.OPEN)
        await house.until(lambda: not house.resting(BTC), 3)
        await house.until(lambda: house.row(BTC).resting == 0, 3)


@pytest.mark.parametrize(
    ("bids", "asks", "why"),
    [
        pytest.param([(-1, 1000)], [], "no_ask", id="no asks"),
        pytest.param([], [(1, 1000)], "no_bid", id="no bids"),
        pytest.param([], [], "no_book", id="an empty book"),
    ],
)
async def test_a_one_sided_book_withholds_and_says_so(
    bids: list[tuple[int, int]],
    asks: list[tuple[int, int]],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    async with running(monkeypatch) as house:
        await house.quote()
        house.set_book(BTC, bids, asks)
        await house.until(lambda: not house.resting(BTC))
        row = house.row(BTC)
        assert (row.state, row.reason) == ("ACTIVE", "resumed")
        assert (row.bid.phase, row.ask.phase) == ("EMPTY", "EMPTY")
        assert {row.bid.withheld, row.ask.withheld} <= {"no_ask", "no_bid", "no_book"} and why in row.bid.withheld
        explained = house.daemon.explain([BTC])[0]
        assert explained.bid == f"withheld: {row.bid.withheld}"
        assert explained.gate_bid == "nothing to judge"
        assert any(step.step == "book" and "none" in (step.bid, step.ask) for step in explained.steps)
        await trio.sleep(60)
        assert house.state(BTC) == ("ACTIVE", "resumed")  # quiet, not stale: tickers come
        house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
        await house.until(partial(house.both_live, BTC))
        assert house.events("symbol.paused") == []


@ON_EACH
async def test_cut_links_pause_everything_and_come_back_by_themselves(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, AUTO, ground=ground) as house:
        await house.quote()
        before = house.order_ids(BTC)
        assert house.faults.disconnect() == 2
        await house.until(lambda: house.state(BTC) == house.state(ETH) == ("PAUSED", "exchange_disconnected"))
        assert house.resting(BTC) == house.resting(ETH) == []  # cancel on disconnect
        await house.until(house.both_live)
        assert house.state(BTC) == house.state(ETH) == ("ACTIVE", "auto_resumed")
        assert house.order_ids(BTC) == house.resting_ids(BTC)
        assert not house.order_ids(BTC) & before
        links = house.daemon.links()["deribit"]
        assert (links["data"].connects, links["trade"].connects) == (2, 2)


@pytest.mark.parametrize("fault", ["cross", "silence", "gap"])
async def test_auto_resume_waits_until_the_market_was_good_for_a_while(
    fault: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, AUTO) as house:
        await house.quote()
        match fault:
            case "cross":
                house.faults.cross(BTC, house.sandbox.now_ms)
            case "silence":
                house.faults.silence(BTC)
            case "gap":
                house.faults.drop_change(BTC)
                house.set_book(BTC, [(-1, 900)], [(1, 900)])
                house.set_book(BTC, [(-1, 800)], [(1, 800)])
        await house.until(lambda: house.row(BTC).state == "PAUSED")
        good_since = house.row(BTC).since
        if fault != "gap":  # which mends itself
            await trio.sleep(30)
            assert house.row(BTC).state == "PAUSED"
            good_since = house.daemon.clock.now_ns() * 1e-9
        house.faults.uncross(BTC, house.sandbox.now_ms)
        house.faults.speak(BTC)
        await house.until(partial(house.both_live, BTC))
        assert house.state(BTC) == ("ACTIVE", "auto_resumed")
        assert house.row(BTC).since - good_since >= 1.0


@ON_EACH
async def test_a_lost_answer_never_makes_two_orders_on_a_side(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, ground=ground) as house:
        bid, ask = ("private/order",) * 2 if ground is DERIVE else ("private/buy", "private/sell")
        house.faults.lose_answers(1, bid)
        house.faults.lose_requests(1, ask)
        assert (await house.resume(BTC)).outcome is Outcome.DONE
        seen: set[str] = set()
        with trio.move_on_after(30):
            while not house.both_live(BTC):
                directions = [order.direction for order in house.resting(BTC)]
                assert len(directions) == len(set(directions))
                row = house.row(BTC)
                seen |= {row.bid.phase, row.ask.phase}
                await trio.sleep(0.02)
        assert house.both_live(BTC)
        assert "UNKNOWN" in seen
        assert house.order_ids(BTC) == house.resting_ids(BTC)


@ON_EACH
async def test_a_stop_whose_answers_are_lost_still_proves_that_nothing_rests(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running(monkeypatch, ground=ground) as house:
        await house.quote()
        house.faults.lose_answers(2, "private/cancel")
        house.faults.lose_requests(1, "private/cancel")
        await house.stop()
        assert house.daemon.farewell is not None and house.daemon.farewell.left == {"deribit": 0}
