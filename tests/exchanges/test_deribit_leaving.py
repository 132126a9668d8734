"""Symbols come and go for years: of those that left nothing is kept, and what comes back starts anew."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BTC, ETH, START_MS, news, order, started, tell, trade
from deribit_peer import PERP, SILENT, START_NS, Stage
from hypothesis import given
from hypothesis import strategies as st

from mmd.domain.events import OrderFilled, TradeLinkUp
from mmd.exchanges.feed import TIDY_MS
from mmd.exchanges.news import News
from mmd.exchanges.record import MAX_CLOSED, forget_oldest

Clock = trio.testing.MockClock
HOUR_SECONDS = 3600.0
TRADES = "private/get_user_trades_by_instrument_and_time"


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


# --- news ----------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.sampled_from("abc"), st.sets(st.sampled_from("abc"))), max_size=30))
def test_a_number_that_was_seen_means_that_nothing_happened(steps: list[str | set[str]]) -> None:
    """A letter: news of it. A set: nobody but these is watched. However they come and go, no number is seen again."""
    news_of, happened = News(), dict.fromkeys("abc", 0)
    seen: dict[str, dict[int, int]] = {name: {news_of[name]: 0} for name in "abc"}
    for step in steps:
        if isinstance(step, str):
            news_of.count(step)
            happened[step] += 1
        else:
            leaving = {name: news_of[name] for name in news_of._numbers.keys() - step}
            news_of.keep(step)
            assert news_of._numbers.keys() <= step
            assert all(news_of[name] != number for name, number in leaving.items())
        for name, numbers in seen.items():
            assert numbers.setdefault(news_of[name], happened[name]) == happened[name]


async def test_who_left_is_counted_no_more(autojump_clock: Clock, stage: Stage) -> None:
    trading = stage.deribit._trading
    await started(stage, BTC, ETH)
    await tell(stage, [order(order_state="filled")], [trade(1, START_MS), trade(2, START_MS, instrument_name=ETH)])
    await trio.sleep(HOUR_SECONDS / 60)
    tables = (
        trading.record.activity._numbers,
        trading.record.fills._numbers,
        trading.audit._told_orders,
        trading.audit._told_positions,
    )
    assert [set(table) for table in tables] == [{BTC, ETH}] * 4
    stage.deribit.watch([ETH])
    assert [set(table) for table in tables] == [{ETH}] * 4


async def test_a_doubt_leaves_with_its_symbol(autojump_clock: Clock, stage: Stage) -> None:
    inquiry = stage.deribit._trading.inquiry
    await started(stage, BTC, ETH)
    inquiry.doubt_all()
    stage.deribit.watch([ETH])
    assert inquiry._doubted <= {ETH}


async def test_a_fill_that_was_held_back_for_a_symbol_that_left_is_not_told_to_the_next(
    autojump_clock: Clock, stage: Stage
) -> None:
    stage.peer.on(TRADES, SILENT)
    stage.deribit.known_until({BTC: START_MS - 1000})
    await stage.start(BTC, ETH)
    await stage.until(lambda: stage.peer.trade.asked(TRADES))
    await stage.peer.trade.notify("user.changes.any.any.raw", news(trades=[trade(1, START_MS + 1)]))
    await stage.settle()
    assert set(stage.deribit._trading.inquiry._early) == {BTC}
    stage.deribit.watch([ETH])
    assert not stage.deribit._trading.inquiry._early
    stage.peer.on(TRADES, {"trades": [], "has_more": False})
    stage.deribit.watch([ETH, BTC])
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert not stage.sink.of(OrderFilled, BTC)


# --- memories of a fixed size --------------------------------------------------------------------


def test_the_oldest_label_is_forgotten() -> None:
    known: dict[str, int] = {}
    for number in range(MAX_CLOSED + 3):
        known[str(number)] = number
        forget_oldest(known)
    assert list(known.values()) == list(range(3, MAX_CLOSED + 3))


# --- instruments ---------------------------------------------------------------------------------


def option(name: str, expires_seconds: float) -> dict[str, Any]:
    expiry_ms = START_NS // 1_000_000 + round(expires_seconds * 1000)
    return PERP | {"instrument_name": name, "settlement_period": "month", "expiration_timestamp": expiry_ms}


async def test_what_has_expired_is_dropped_unless_somebody_watches_it(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.rows = [PERP, option("BTC-1", 10.0), option("BTC-2", 10.0), option("BTC-3", 2.5 * HOUR_SECONDS)]
    await started(stage, BTC, "BTC-1")
    known = stage.deribit.instruments

    async def list_one(name: str) -> None:
        await stage.peer.data.notify("instrument.creation.any.any", option(name, 24 * HOUR_SECONDS))
        await stage.settle()

    await trio.sleep(0.9 * HOUR_SECONDS)
    await list_one("BTC-4")
    assert set(known) == {BTC, "BTC-1", "BTC-2", "BTC-3", "BTC-4"}  # an answer about it may yet come
    await trio.sleep(HOUR_SECONDS + 60.0)
    await list_one("BTC-5")
    assert set(known) == {BTC, "BTC-1", "BTC-3", "BTC-4", "BTC-5"}
    stage.deribit.watch([BTC])
    await trio.sleep(TIDY_MS / 1000)
    await list_one("BTC-6")
    assert set(known) == {BTC, "BTC-3", "BTC-4", "BTC-5", "BTC-6"}
    assert stage.deribit._feed._served.keys() <= known.keys()
