"""What the data link says of an instrument over time: its state, its listing, and books that stay broken."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BID, BTC, ETH, kinds, order, send, started
from deribit_peer import LINEAR, PERP, SILENT, Refuse, Stage

from mmd.domain.actions import CancelOrder, PlaceOrder, QueryOrder
from mmd.domain.events import BookTop, InstrumentStateChanged, OrderAcked
from mmd.domain.reasons import Side

Clock = trio.testing.MockClock
PLACE = PlaceOrder(BID, Side.BID, 200, 5)
FUTURE = PERP | {"settlement_period": "month", "expiration_timestamp": 1_800_000_000_000}


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


def snapshot(symbol: str, bid: float) -> dict[str, Any]:
    return {
        "type": "snapshot",
        "timestamp": 1_798_700_000_001,
        "instrument_name": symbol,
        "change_id": 1,
        "bids": [["new", bid, 50]],
        "asks": [["new", bid + 1, 20]],
    }


def states(stage: Stage, symbol: str) -> list[str]:
    return [event.state for event in stage.sink.of(InstrumentStateChanged, symbol)]


async def tell_state(stage: Stage, symbol: str, state: str) -> None:
    data = {"timestamp": 1, "instrument_name": symbol, "state": state}
    await stage.peer.data.notify("instrument.state.any.any", data)
    await stage.settle()


async def tell_platform(stage: Stage, **data: Any) -> None:
    await stage.peer.data.notify("platform_state", data)
    await stage.settle()


# --- states --------------------------------------------------------------------------------------


async def test_a_lock_elsewhere_does_not_open_an_instrument_that_is_locked_itself(
    autojump_clock: Clock, stage: Stage
) -> None:
    await started(stage)
    await tell_state(stage, BTC, "locked")
    await tell_platform(stage, price_index="sol_usd", locked=True)
    await tell_platform(stage, price_index="sol_usd", locked=False)
    assert states(stage, BTC) == ["locked"]
    await tell_state(stage, BTC, "open")
    assert states(stage, BTC) == ["locked", "open"]


async def test_an_instrument_that_opens_during_maintenance_is_not_open(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await tell_platform(stage, maintenance=True)
    await tell_state(stage, BTC, "halted")
    await tell_state(stage, BTC, "open")
    assert states(stage, BTC) == ["maintenance"]
    await tell_state(stage, BTC, "locked")
    await tell_platform(stage, maintenance=False)
    assert states(stage, BTC) == ["maintenance", "locked"]


async def test_an_instrument_that_opens_while_its_index_is_locked_is_not_open(
    autojump_clock: Clock, stage: Stage
) -> None:
    await started(stage)
    await tell_platform(stage, price_index="btc_usd", locked=True)
    await tell_state(stage, BTC, "open")
    assert states(stage, BTC) == ["locked"]
    await tell_platform(stage, price_index="btc_usd", locked=False)
    assert states(stage, BTC) == ["locked", "open"]


async def test_the_end_of_an_instrument_is_told_during_maintenance(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await tell_platform(stage, maintenance=True)
    await tell_state(stage, BTC, "delivered")
    assert states(stage, BTC) == ["maintenance", "delivered"]


# --- books that stay broken ----------------------------------------------------------------------


async def broken_for_ever(stage: Stage) -> None:
    """Four books that break with every snapshot, and one whose snapshot never comes."""
    names = [f"BTC-{day}JAN27" for day in range(1, 5)]
    stage.peer.rows += [FUTURE | {"instrument_name": name} for name in names]
    for name in names:
        stage.peer.books[f"book.{name}.raw"] = snapshot(name, 100.3)
    await started(stage, *names, ETH)


async def test_broken_books_do_not_hide_a_missing_snapshot(autojump_clock: Clock, stage: Stage) -> None:
    await broken_for_ever(stage)
    stage.peer.books[f"book.{ETH}.raw"] = snapshot(ETH, 100.0)
    await stage.until(lambda: stage.sink.of(BookTop, ETH), seconds=60.0)


async def test_broken_books_do_not_hide_a_maintenance_without_end(autojump_clock: Clock, stage: Stage) -> None:
    await broken_for_ever(stage)
    await tell_platform(stage, maintenance=True)
    await stage.until(lambda: stage.sink.named("link.lost"), seconds=70.0)
    assert "maintenance was announced" in stage.sink.named("link.lost")[0]


async def test_a_refusal_of_raw_that_is_meant_for_all_ends_the_connection(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("public/subscribe", Refuse(13778, "raw_subscriptions_not_available_for_unauthorized"))
    stage.nursery.start_soon(stage.deribit.run, stage.sink)
    await stage.until(lambda: len(stage.sink.named("link.lost")) >= 2)
    assert all("13778" in detail for detail in stage.sink.named("link.lost"))


# --- listed anew ---------------------------------------------------------------------------------


async def relist(stage: Stage, *rows: dict[str, Any]) -> None:
    """The data link breaks, and the next one finds this list."""
    stage.peer.rows = list(rows)
    stage.sink.clear()
    await stage.peer.data.drop()
    await stage.until(lambda: stage.sink.named("link.up"))
    await stage.settle()


async def test_other_units_stop_the_symbol_that_counts_in_the_old_ones(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    finer = PERP | {"contract_size": 1, "min_trade_amount": 1, "maker_commission": 0.0001}
    await relist(stage, finer, LINEAR)
    assert states(stage, BTC) == ["relisted"]
    assert not stage.sink.of(InstrumentStateChanged, BTC)[0].tradable
    assert states(stage, ETH) == []
    assert "lot was 10, is 1" in stage.sink.named("instrument.relisted")[0]
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    assert stage.peer.trade.asked("private/buy")[0]["amount"] == 50
    await tell_state(stage, BTC, "open")
    assert states(stage, BTC) == ["relisted"]


async def test_the_next_symbol_of_that_name_has_the_new_units(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    await relist(stage, PERP | {"tick_size": 0.25}, LINEAR)
    stage.deribit.watch([ETH])
    assert str(stage.deribit.instruments[BTC].grid.tick) == "0.25"
    stage.sink.clear()
    stage.deribit.watch([ETH, BTC])
    await stage.settle()
    assert states(stage, BTC) == []


async def test_other_fees_are_no_other_units(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await relist(stage, PERP | {"maker_commission": 0.0005, "state": "locked"}, LINEAR)
    assert states(stage, BTC) == []
    assert str(stage.deribit.instruments[BTC].maker_fee) == "0.0005"


async def test_a_late_answer_about_an_instrument_that_is_listed_no_longer(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    asked = stage.peer.trade.requests[-1]
    await trio.sleep(6)
    stage.deribit.watch([ETH])
    await relist(stage, LINEAR)
    assert stage.deribit.instruments[BTC].tradable is False
    await stage.peer.trade.answer(asked, {"order": order(), "trades": []})
    await send(stage, QueryOrder(BID, ""), CancelOrder(BID, "o1", Side.BID))
    assert OrderAcked in kinds(stage)
    assert stage.deribit.stats["trade"].up
