"""A second process goes on where the first one ended: its fills and its cash, each told before the first report."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import ASK, BID, BTC, ETH, START_MS, news, order, tell, trade
from deribit_peer import HOUR_MS, SILENT, Recorder, Refuse, Stage, Wire, make_deribit

from mmd.domain.actions import QueryOrder
from mmd.domain.events import (
    CashMoved,
    OrderAbsent,
    OrderClosed,
    OrderFilled,
    OrdersReported,
    PositionReported,
    RequestLost,
    TradeLinkUp,
)
from mmd.domain.ids import base36
from mmd.exchanges.known import CASH_REACH_MS, OVERLAP_MS, Known

Clock = trio.testing.MockClock
TRADES = "private/get_user_trades_by_instrument_and_time"


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


async def recover(
    stage: Stage, known_ms: Mapping[str, int], from_ms: Mapping[str, int] | None = None, **changes: Any
) -> None:
    """A new process with a memory of its own, on the same exchange."""
    stage.sink = Recorder()
    stage.deribit = make_deribit(stage.peer, **changes)
    stage.deribit.known_until(known_ms, from_ms)
    await stage.start(BTC, ETH)
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))


def filled(stage: Stage, symbol: str = BTC) -> list[str]:
    return [event.trade_id for event in stage.sink.of(OrderFilled, symbol)]


def before_the_first_report(stage: Stage, symbol: str = BTC) -> list[str]:
    """Trade ids that were posted before anything was reported of the symbol."""
    found = []
    for name, event in stage.sink.posted:
        if name == symbol and isinstance(event, OrderFilled):
            found.append(event.trade_id)
        elif name == symbol and isinstance(event, OrdersReported | PositionReported):
            return found
    raise AssertionError(f"nothing was reported of {symbol}")


# --- fills ---------------------------------------------------------------------------------------


async def test_a_crash_in_the_middle_of_a_burst(autojump_clock: Clock, stage: Stage, nursery: trio.Nursery) -> None:
    crashed = trio.CancelScope()

    async def first_process() -> None:
        with crashed:
            await stage.deribit.run(stage.sink)

    nursery.start_soon(first_process)
    stage.deribit.watch([BTC])
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    began_ms = START_MS + int(trio.current_time() * 1000)
    await trio.sleep(120)
    now_ms = START_MS + int(trio.current_time() * 1000)
    burst = [trade(n, now_ms + n // 2) for n in range(10)]
    stage.peer.trades = burst
    await tell(stage, trades=burst[:4])
    crashed.cancel()
    await stage.settle()
    first = filled(stage)
    assert first == ["t0", "t1", "t2", "t3"]
    stage.peer.positions = {BTC: 100}
    await trio.sleep(7)
    await recover(stage, {BTC: now_ms}, {BTC: began_ms})
    assert sorted(filled(stage)) == sorted(set(filled(stage))) == [f"t{n}" for n in range(10)]
    assert before_the_first_report(stage) == [f"t{n}" for n in range(10)]
    assert [event.position_lots for event in stage.sink.of(PositionReported, BTC)] == [10]
    assert not filled(stage, ETH)


@pytest.mark.parametrize(
    ("offset_ms", "told"),
    [
        pytest.param(-OVERLAP_MS - 1, False, id="longer ago than any fill may be late"),
        pytest.param(-OVERLAP_MS, True, id="just as long ago"),
        pytest.param(-1, True, id="just before"),
        pytest.param(0, True, id="in the same millisecond"),
        pytest.param(1, True, id="just after"),
        pytest.param(3 * HOUR_MS, True, id="long after"),
    ],
)
async def test_from_when_fills_are_told(autojump_clock: Clock, stage: Stage, offset_ms: int, told: bool) -> None:
    known_ms = START_MS - 4 * HOUR_MS
    stage.peer.trades = [trade(1, known_ms + offset_ms)]
    await recover(stage, {BTC: known_ms})
    assert before_the_first_report(stage) == (["t1"] if told else [])


async def test_pages_and_drawers_are_read_to_their_end_and_told_once(autojump_clock: Clock, stage: Stage) -> None:
    ages = [50, 49, 48, 30, 30, 25, 24, 23.9, 23.5, 20, 3, 2, 0.5, 0.1]
    stage.peer.trades = [trade(n, START_MS - int(age * HOUR_MS)) for n, age in enumerate(ages)]
    await recover(stage, {BTC: START_MS - 51 * HOUR_MS})
    assert sorted(filled(stage)) == sorted(f"t{n}" for n in range(len(ages)))
    assert len(before_the_first_report(stage)) == len(ages)
    asked = [params["historical"] for params in stage.peer.trade.asked(TRADES)]
    assert asked.count(True) >= 3 and asked.count(False) >= 3
    assert asked == sorted(asked, reverse=True)


async def test_a_page_that_promises_more_and_has_nothing_proves_nothing(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on(TRADES, {"trades": [], "has_more": True})
    stage.deribit.known_until({BTC: START_MS})
    await stage.start(BTC)
    await trio.sleep(3)
    assert not stage.sink.of(PositionReported) and not stage.sink.of(TradeLinkUp)
    assert any("more than a page of trades" in line for line in stage.sink.named("query.failed"))


async def test_nothing_from_before_its_count_began(autojump_clock: Clock, stage: Stage) -> None:
    """The first process took the position over ten seconds before it ended: trades before that are in it."""
    stage.peer.trades = [trade(1, START_MS - 10_001), trade(2, START_MS - 10_000)]
    await recover(stage, {BTC: START_MS}, {BTC: START_MS - 10_000})
    assert filled(stage) == ["t2"]


async def test_a_late_listed_fill_is_never_taken_for_part_of_the_baseline(autojump_clock: Clock, stage: Stage) -> None:
    await recover(stage, {BTC: START_MS - HOUR_MS})
    await tell(stage, trades=[trade(1, START_MS - 1), trade(2, START_MS - 1, instrument_name=ETH)])
    assert filled(stage) == ["t1"]
    assert not filled(stage, ETH)  # which started anew


@pytest.mark.parametrize("listed", [pytest.param(True, id="listed as well"), pytest.param(False, id="listed later")])
async def test_a_fill_told_at_once_waits_for_those_that_were_missed(
    autojump_clock: Clock, stage: Stage, listed: bool
) -> None:
    """On their order depends what the position has cost."""
    missed, told, other = trade(1, START_MS - 500), trade(2, START_MS + 1), trade(3, START_MS + 1, instrument_name=ETH)
    stage.peer.trades = [missed, told] if listed else [missed]
    posted_early = []

    def summaries(wire: Wire, params: object) -> object:
        stage.peer.nursery.start_soon(wire.notify, "user.changes.any.any.raw", news(trades=[told, other]))
        return {"summaries": []}

    def trades(wire: Wire, params: dict[str, Any]) -> object:
        posted_early.extend(filled(stage))
        return {"trades": [row for row in stage.peer.trades if params["instrument_name"] == BTC], "has_more": False}

    stage.peer.on("private/get_account_summaries", summaries)
    stage.peer.on(TRADES, trades)
    await recover(stage, {BTC: START_MS - 1000})
    assert not posted_early
    assert list(dict.fromkeys(filled(stage))) == ["t1", "t2"] == before_the_first_report(stage)[:2]
    assert filled(stage, ETH) == ["t3"]  # which has missed nothing: it starts anew
    await tell(stage, trades=[trade(4, START_MS + 2)])
    assert filled(stage)[-1] == "t4"


async def test_what_was_held_back_is_not_lost_with_the_connection(autojump_clock: Clock, stage: Stage) -> None:
    missed, told = trade(1, START_MS - 500), trade(2, START_MS + 1)
    stage.peer.trades = [missed, told]
    stage.peer.on(TRADES, SILENT)
    stage.deribit.known_until({BTC: START_MS - 1000})
    await stage.start(BTC)
    await stage.until(lambda: stage.peer.trade.asked(TRADES))
    await tell(stage, trades=[told])
    assert not filled(stage)
    stage.peer.on(TRADES, {"trades": [missed, told], "has_more": False})
    await stage.peer.trade.drop()
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert filled(stage) == ["t1", "t2"]


async def test_a_symbol_that_returns_starts_anew_unless_it_is_named(autojump_clock: Clock, stage: Stage) -> None:
    await recover(stage, {BTC: START_MS - HOUR_MS})
    stage.peer.trades = [trade(1, START_MS + 1)]
    for named in (False, True):
        stage.deribit.watch([ETH])
        await trio.sleep(1)
        stage.sink.clear()
        if named:
            stage.deribit.known_until({BTC: START_MS})
            stage.deribit.watch([ETH])  # somebody else's news in between changes nothing
        stage.deribit.watch([ETH, BTC])
        await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
        assert filled(stage) == (["t1"] if named else [])


async def test_only_a_time_is_taken(stage: Stage) -> None:
    with pytest.raises(ValueError, match="BTC-PERPETUAL: fills known until 0 ms, allowed: above 0"):
        stage.deribit.known_until({BTC: 0})


def test_what_is_known_of_the_future_is_not_believed() -> None:
    known = Known()
    known.recover({BTC: START_MS + HOUR_MS}, {})
    known.align([BTC])
    assert known.missing_since_ms(BTC, START_MS) == START_MS - OVERLAP_MS


async def test_the_last_requests_of_the_first_process_may_yet_arrive(autojump_clock: Clock, stage: Stage) -> None:
    await recover(stage, {BTC: START_MS - 1000}, order_valid_ms=4000)
    assert trio.current_time() == pytest.approx(4.25, abs=0.1)
    assert len(stage.sink.of(OrdersReported, BTC)) == 2
    stage.sink = Recorder()
    began = trio.current_time()
    stage.deribit = make_deribit(stage.peer, order_valid_ms=4000)
    await stage.start(BTC)
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert trio.current_time() - began < 0.1  # nobody was before it


# --- orders of the first process -----------------------------------------------------------------


async def query(stage: Stage, label: str) -> None:
    stage.sink.clear()
    stage.deribit.submit([(BTC, QueryOrder(label, ""))])
    await stage.deribit.flush()


async def test_its_order_is_not_over_before_all_its_trades_are_listed(autojump_clock: Clock, stage: Stage) -> None:
    old_ms = START_MS - 30 * HOUR_MS
    epoch_ms = old_ms - HOUR_MS
    label = BID.replace(BID.split("-")[-2], base36(epoch_ms))
    closed = order(label=label, order_state="cancelled", filled_amount=30, creation_timestamp=old_ms - 5)
    stage.peer.on("private/get_order_state_by_label", [closed])
    listed = [trade(1, old_ms, label=label), trade(2, START_MS - HOUR_MS // 2, label=label)]
    stage.peer.trades = listed
    await recover(stage, {BTC: START_MS - HOUR_MS})
    assert filled(stage) == ["t2"]
    await query(stage, label)
    await trio.sleep(2)
    assert set(filled(stage)) == {"t1", "t2"}
    assert not stage.sink.of(OrderClosed)
    (lost,) = stage.sink.of(RequestLost)
    assert "of 3 lots filled only 2 are listed yet" in lost.detail
    stage.peer.trades = [*listed, trade(3, START_MS - 10, label=label)]
    await query(stage, label)
    await stage.until(lambda: stage.sink.of(OrderClosed))
    kinds = [type(event) for name, event in stage.sink.posted if name == BTC]
    assert kinds[-1] is OrderClosed and set(filled(stage)) == {"t1", "t2", "t3"}
    assert stage.sink.of(OrderClosed)[0].filled_lots == 3


async def test_an_order_from_before_a_new_beginning_has_no_trades_to_wait_for(
    autojump_clock: Clock, stage: Stage
) -> None:
    label = BID.replace(BID.split("-")[-2], base36(START_MS - HOUR_MS))
    stage.peer.on("private/get_order_state_by_label", [order(label=label, order_state="cancelled", filled_amount=30)])
    await recover(stage, {ETH: START_MS})
    await query(stage, label)
    await stage.until(lambda: stage.sink.of(OrderClosed), seconds=1)


async def test_an_unknown_order_is_absent_once_it_can_come_no_more(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit = make_deribit(stage.peer, order_valid_ms=3000)
    await stage.start(BTC)
    await query(stage, ASK)
    await trio.sleep(2.5)
    assert not stage.sink.of(OrderAbsent)
    await stage.until(lambda: stage.sink.of(OrderAbsent), seconds=1)
    assert trio.current_time() == pytest.approx(3.0, abs=0.1)
    await query(stage, ASK)
    await stage.until(lambda: stage.sink.of(OrderAbsent), seconds=0.1)


# --- cash ----------------------------------------------------------------------------------------


def funding(number: int, at_ms: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "settlement",
        "timestamp": at_ms,
        "currency": "BTC",
        "instrument_name": BTC,
        "side": "long",
        "amount": 30,
        "change": 0.0005,
        "interest_pl": -0.00001,
        "total_interest_pl": -0.00002,
    } | fields


async def test_funding_that_was_paid_meanwhile(autojump_clock: Clock, stage: Stage) -> None:
    known_ms = START_MS - 30 * HOUR_MS
    stage.peer.log = [
        funding(1, known_ms - CASH_REACH_MS - 1),
        funding(2, known_ms - CASH_REACH_MS),
        funding(3, known_ms),
        *(funding(n, known_ms + n * HOUR_MS) for n in range(4, 12)),
        funding(20, START_MS - HOUR_MS, instrument_name=ETH, currency="USDC"),
    ]
    await recover(stage, {BTC: known_ms})
    await stage.until(lambda: len(stage.sink.of(CashMoved, BTC)) >= 10)
    await trio.sleep(200)
    assert [event.entry_id for event in stage.sink.of(CashMoved, BTC)] == [str(n) for n in range(2, 12)]
    assert not stage.sink.of(CashMoved, ETH)


async def test_cash_of_a_symbol_that_is_recovered_later(autojump_clock: Clock, stage: Stage) -> None:
    """Rows that were passed over while nobody watched the symbol are read again."""
    second = {**stage.peer.rows[0], "instrument_name": "ETH-PERPETUAL", "settlement_currency": "BTC"}
    stage.peer.rows = [*stage.peer.rows, second]
    await stage.start(BTC)
    stage.peer.log = [funding(1, START_MS + 1, instrument_name="ETH-PERPETUAL"), funding(2, START_MS + 2)]
    await stage.until(lambda: stage.sink.of(CashMoved, BTC))
    stage.deribit.known_until({"ETH-PERPETUAL": START_MS - 1000})
    stage.deribit.watch([BTC, "ETH-PERPETUAL"])
    await stage.until(lambda: stage.sink.of(CashMoved, "ETH-PERPETUAL"))
    assert [event.entry_id for event in stage.sink.of(CashMoved, "ETH-PERPETUAL")] == ["1"]


async def test_a_refused_start_is_tried_again_whole(autojump_clock: Clock, stage: Stage) -> None:
    """The link is lost between the fills and the reports: nothing is skipped the next time."""
    stage.peer.trades = [trade(1, START_MS - 10)]
    working = stage.peer.handlers["private/get_open_orders"]
    stage.peer.on("private/get_open_orders", Refuse(11051, "system_maintenance"))
    stage.deribit.known_until({BTC: START_MS - 1000})
    await stage.start(BTC)
    await trio.sleep(3)
    assert not stage.sink.of(TradeLinkUp)
    stage.sink.clear()
    stage.peer.on("private/get_open_orders", working)
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert before_the_first_report(stage) == ["t1"]


async def test_the_link_is_lost_between_two_pages(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.trades = [trade(n, START_MS - 1000 + n) for n in range(8)]
    working = stage.peer.handlers[TRADES]
    asked: list[int] = []

    async def half(wire: Wire, params: dict[str, Any]) -> Any:
        asked.append(1)
        if len(asked) == 2:
            await wire.drop()
            return SILENT
        return working(wire, params)

    stage.peer.on(TRADES, half)
    stage.deribit.known_until({BTC: START_MS - 1000})
    await stage.start(BTC)
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert set(before_the_first_report(stage)) == {f"t{n}" for n in range(8)}
