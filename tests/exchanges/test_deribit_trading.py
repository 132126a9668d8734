"""Orders, fills and reconciliation against a scripted exchange on mock time."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import ASK, BID, BTC, EPOCH, ETH, START_MS, kinds, news, order, send, started, tell, trade
from deribit_peer import SILENT, START_NS, Refuse, Stage, Wire, make_deribit, wall_clock_ns

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, QueryOrder, QueryState
from mmd.domain.errors import LinkLost
from mmd.domain.events import (
    OpenOrder,
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
    TradeLinkDown,
    TradeLinkUp,
)
from mmd.domain.ids import base36
from mmd.domain.reasons import Fault, Side

Clock = trio.testing.MockClock
PLACE = PlaceOrder(BID, Side.BID, 200, 5)
AMEND = AmendOrder(BID, "o1", Side.BID, 198, 4, 4)
CANCEL = CancelOrder(BID, "o1", Side.BID)
BLIND_CANCEL = CancelOrder(BID, "", Side.BID)


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


# --- orders out and answers in -------------------------------------------------------------------


async def test_place_amend_cancel(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", {"order": order(), "trades": []})
    stage.peer.on("private/edit", {"order": order(price=99.0, amount=40, replaced=True), "trades": []})
    stage.peer.on("private/cancel", order(order_state="cancelled", cancel_reason="user_request"))
    await send(stage, PLACE)
    await send(stage, AMEND)
    await send(stage, CANCEL)
    wire = stage.peer.trade
    assert wire.asked("private/buy") == [
        {
            "instrument_name": BTC,
            "amount": 50,
            "price": 100.0,
            "label": BID,
            "type": "limit",
            "time_in_force": "good_til_cancelled",
            "post_only": True,
            "reject_post_only": True,
        }
    ]
    assert wire.asked("private/edit") == [
        {"order_id": "o1", "amount": 40, "price": 99.0, "post_only": True, "reject_post_only": True}
    ]
    assert wire.asked("private/cancel") == [{"order_id": "o1"}]
    assert kinds(stage) == [OrderAcked, OrderAcked, OrderClosed]
    first, second = stage.sink.of(OrderAcked)
    assert (first.order_id, first.price_ticks, first.remaining_lots, first.total_lots) == ("o1", 200, 5, 5)
    assert (second.price_ticks, second.total_lots) == (198, 4)
    assert stage.sink.of(OrderClosed)[0].cause == "user_request"
    assert len(stage.sink.trips) == 3


async def test_a_batch_leaves_in_one_write(autojump_clock: Clock, stage: Stage) -> None:
    writes: list[int] = []

    class Counting(trio.abc.Stream):
        def __init__(self, inner: trio.abc.Stream) -> None:
            self.inner = inner

        async def send_all(self, data: Any) -> None:
            writes.append(len(data))
            await self.inner.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> Any:
            return await self.inner.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.inner.aclose()

    async def dial() -> trio.abc.Stream:
        return Counting(await stage.peer.dial())

    stage.deribit = make_deribit(stage.peer, dial=dial)
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    stage.peer.on("private/sell", SILENT)
    writes.clear()
    assert not stage.deribit.dirty
    stage.deribit.submit([(BTC, PLACE), (BTC, PlaceOrder(ASK, Side.ASK, 202, 5)), (BTC, CANCEL)])
    assert stage.deribit.dirty
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.deribit.flush)
        nursery.start_soon(stage.deribit.flush)
    assert len(writes) == 1
    await stage.settle()
    assert [r["method"] for r in stage.peer.trade.requests[-3:]] == ["private/buy", "private/sell", "private/cancel"]


@pytest.mark.parametrize(
    ("code", "fault", "gone"),
    [
        pytest.param(11054, Fault.ORDER, False, id="post_only_reject"),
        pytest.param(10028, Fault.RATE_LIMIT, False, id="too_many_requests"),
        pytest.param(10004, Fault.STATE, True, id="order_not_found"),
        pytest.param(11044, Fault.STATE, True, id="not_open_order"),
        pytest.param(13666, Fault.INFO, False, id="withdrawn"),
        pytest.param(11051, Fault.MARKET, False, id="maintenance"),
        pytest.param(-32602, Fault.CONFIG, False, id="invalid params"),
    ],
)
async def test_refusals(autojump_clock: Clock, stage: Stage, code: int, fault: Fault, gone: bool) -> None:
    await started(stage)
    stage.peer.on("private/edit", Refuse(code, "text 7", {"reason": "because"}))
    await send(stage, AMEND)
    (event,) = stage.sink.of(OrderRefused)
    assert (event.label, event.fault, event.gone) == (BID, fault, gone)
    assert "because" in event.detail and str(code) in event.detail


@pytest.mark.parametrize("code", [11094, 13028, 10050, 424242])
async def test_an_ambiguous_error_is_no_refusal(autojump_clock: Clock, stage: Stage, code: int) -> None:
    await started(stage)
    stage.peer.on("private/buy", Refuse(code, "hm"))
    await send(stage, PLACE)
    assert kinds(stage) == [RequestLost]


async def test_a_refused_place_never_says_gone(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", Refuse(10004, "order_not_found"))
    await send(stage, PLACE)
    assert stage.sink.of(OrderRefused)[0].gone is False


async def test_a_fill_comes_through_two_channels(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    fill = trade(1, START_MS + 1)
    stage.peer.on("private/buy", {"order": order(filled_amount=10), "trades": [fill]})
    await send(stage, PLACE)
    await tell(stage, [order(filled_amount=10)], [fill])
    assert kinds(stage) == [OrderFilled, OrderAcked, OrderFilled]
    one, other = stage.sink.of(OrderFilled)
    assert one.trade_id == other.trade_id == "t1"
    assert (one.side, one.size_lots, str(one.price), one.maker, one.index) == (Side.BID, 1, "100.0", True, 100.5)
    assert (str(one.fee), one.fee_currency) == ("-1.2E-7", "BTC")
    assert stage.sink.of(OrderAcked)[0].remaining_lots == 4


async def test_filled_at_once_is_closed(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    done = order(order_state="filled", filled_amount=50)
    stage.peer.on("private/buy", {"order": done, "trades": [trade(1, START_MS, amount=50)]})
    await send(stage, PLACE)
    assert kinds(stage) == [OrderFilled, OrderClosed]
    assert stage.sink.of(OrderClosed)[0].filled_lots == 5


async def test_a_closing_that_overtakes_the_answer_waits_for_it(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    await tell(stage, [order(order_state="cancelled", cancel_reason="mmp_trigger")])
    assert kinds(stage) == []
    request = stage.peer.trade.requests[-1]
    await stage.peer.trade.answer(request, {"order": order(), "trades": []})
    await stage.settle()
    assert kinds(stage) == [OrderClosed]
    assert stage.sink.of(OrderClosed)[0].cause == "mmp_trigger"


async def test_a_closing_behind_a_refusal_is_not_lost(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/edit", SILENT)
    await send(stage, AMEND)
    await tell(stage, [order(order_state="cancelled", cancel_reason="cancel_on_disconnect")])
    await stage.peer.trade.refuse(stage.peer.trade.requests[-1], Refuse(10028, "too_many_requests"))
    await stage.settle()
    assert kinds(stage) == [OrderRefused, OrderClosed]


async def test_an_unasked_closing_is_told(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await tell(stage, [order(order_state="cancelled", filled_amount=10)], [trade(1, START_MS + 1)])
    assert kinds(stage) == [OrderFilled, OrderClosed]
    assert stage.sink.of(OrderClosed)[0].filled_lots == 1


async def test_a_lost_answer_and_a_late_one(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    request = stage.peer.trade.requests[-1]
    await trio.sleep(5.5)
    assert kinds(stage) == [RequestLost]
    assert "no answer within 5 s" in stage.sink.of(RequestLost)[0].detail
    await stage.peer.trade.answer(request, {"order": order(), "trades": []})
    await stage.settle()
    assert kinds(stage) == [RequestLost, OrderAcked]


async def test_a_lost_link_loses_what_was_in_flight(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    stage.peer.on("private/get_order_state_by_label", SILENT)
    ask = PlaceOrder(ASK, Side.ASK, 202, 5)
    stage.peer.on("private/sell", SILENT)
    await send(stage, PLACE, ask, QueryOrder("mmd-svc-x-b-1-9", ""))
    await stage.peer.trade.drop()
    await stage.settle()
    assert {event.label for event in stage.sink.of(RequestLost)} == {BID, ASK, "mmd-svc-x-b-1-9"}
    assert len(stage.sink.of(TradeLinkDown)) == 1


async def test_orders_on_a_link_that_is_down(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.refuse_dial = "refused"
    await stage.peer.trade.drop()
    await stage.settle()
    stage.sink.clear()
    delivered = stage.sink.delivered
    await send(stage, PLACE, AMEND, CANCEL, QueryOrder(BID, "o1"), QueryState())
    assert kinds(stage) == [OrderRefused, OrderRefused, RequestLost, RequestLost]
    assert {event.code for event in stage.sink.of(OrderRefused)} == {"link_down"}
    assert stage.sink.delivered > delivered
    with pytest.raises(LinkLost):
        await stage.deribit.open_orders()
    with pytest.raises(LinkLost):
        await stage.deribit.accounts()


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"order": 7}, id="wrong type"),
        pytest.param({"order": order(price=100.1)}, id="off the grid"),
        pytest.param({"order": order(order_state="dreaming")}, id="unknown state"),
        pytest.param({"order": order(instrument_name=ETH)}, id="another instrument"),
        pytest.param({"order": order(price="market_price")}, id="no price"),
        pytest.param({}, id="nothing"),
    ],
)
async def test_an_unreadable_answer_is_an_unknown_outcome(autojump_clock: Clock, stage: Stage, result: Any) -> None:
    await started(stage)
    stage.peer.on("private/buy", result)
    await send(stage, PLACE)
    assert kinds(stage) == [RequestLost]
    assert stage.deribit.stats["trade"].malformed == 1
    assert stage.deribit.stats["trade"].up


async def test_valid_until_by_the_exchanges_clock(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit = make_deribit(stage.peer, order_valid_ms=500, wall_clock_ns=lambda: START_NS - 2_000_000_000)
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    assert stage.peer.trade.asked("private/buy")[0]["valid_until"] == START_MS + 500


@pytest.mark.parametrize("step_ms", [60_000, -60_000])
async def test_our_clock_is_set_and_orders_go_on(autojump_clock: Clock, stage: Stage, step_ms: int) -> None:
    """How long an order is valid follows a clock that nobody sets, until the exchange's next answer and after."""
    offset_ns = 0
    stage.deribit = make_deribit(stage.peer, order_valid_ms=500, wall_clock_ns=lambda: wall_clock_ns() + offset_ns)
    await started(stage)
    await trio.sleep(5)
    offset_ns = step_ms * 1_000_000
    stage.peer.on("private/buy", {"order": order(), "trades": []})
    for _ in range(2):
        await send(stage, PLACE)
        found = stage.peer.trade.asked("private/buy")[-1]["valid_until"]
        assert found == pytest.approx(START_MS + trio.current_time() * 1000 + 500, abs=1)
    assert stage.deribit.clock_skew_ms == pytest.approx(-step_ms, abs=1)


async def test_an_order_that_came_too_late_names_the_clock(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit = make_deribit(stage.peer, order_valid_ms=500)
    await started(stage)
    stage.peer.on("private/buy", Refuse(13888, "timed_out"))
    await send(stage, PLACE)
    (event,) = stage.sink.of(OrderRefused)
    assert (event.label, event.code, event.fault, event.gone) == (BID, "timed_out", Fault.INFO, False)
    assert "more than 500 ms after it was sent" in event.detail and "a clock was set" in event.detail


async def test_an_amend_that_came_too_late_changed_nothing(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit = make_deribit(stage.peer, order_valid_ms=500)
    await started(stage)
    stage.peer.on("private/edit", Refuse(13888, "timed_out"))
    await send(stage, AMEND)
    assert stage.peer.trade.asked("private/edit")[0]["valid_until"] == START_MS + 500
    (event,) = stage.sink.of(OrderRefused)
    assert (event.code, event.gone) == ("timed_out", False)


async def test_after_a_loss_what_was_sent_last_is_waited_for(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit = make_deribit(stage.peer, order_valid_ms=6000)
    await started(stage)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE)
    await stage.peer.trade.drop()
    lost_at = trio.current_time()
    await stage.until(lambda: stage.sink.of(TradeLinkUp))
    assert trio.current_time() - lost_at == pytest.approx(6.25, abs=0.2)
    assert len(stage.sink.of(OrdersReported)) == 2


# --- cancel by label and questions ---------------------------------------------------------------


async def test_cancel_by_label_is_followed_up(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/get_order_state_by_label", [order(order_state="cancelled", filled_amount=10)])
    stage.peer.trades = [trade(1, START_MS + 1)]
    await send(stage, BLIND_CANCEL)
    assert stage.peer.trade.asked("private/cancel_by_label") == [{"currency": "BTC", "label": BID}]
    assert kinds(stage) == [OrderFilled, OrderClosed]


async def test_cancel_by_label_that_found_nothing(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/cancel_by_label", 0)
    await send(stage, BLIND_CANCEL)
    (event,) = stage.sink.of(OrderRefused)
    assert (event.code, event.gone) == ("order_not_found", True)


async def test_cancel_by_label_before_its_place_is_answered(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/cancel_by_label", 0)
    stage.peer.on("private/buy", SILENT)
    await send(stage, PLACE, BLIND_CANCEL)
    assert kinds(stage) == [RequestLost]


async def test_cancel_by_label_that_did_not_cancel(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/get_order_state_by_label", [order()])
    await send(stage, BLIND_CANCEL)
    assert kinds(stage) == [OrderAcked, OrderRefused]
    assert stage.sink.of(OrderRefused)[0].gone is False


@pytest.mark.parametrize(
    ("rows", "by_label", "expected"),
    [
        pytest.param([order()], [], [OrderAcked], id="open"),
        pytest.param([], [order()], [OrderAcked], id="only among the open ones"),
        pytest.param([order(order_state="cancelled")], [], [OrderClosed], id="closed"),
        pytest.param([order(order_state="rejected"), order()], [], [OrderAcked], id="open wins"),
        pytest.param([order(instrument_name=ETH)], [], [OrderAbsent], id="another instrument"),
        pytest.param([], [], [OrderAbsent], id="absent"),
    ],
)
async def test_query_order(
    autojump_clock: Clock, stage: Stage, rows: list[Any], by_label: list[Any], expected: list[type]
) -> None:
    await started(stage)
    stage.peer.on("private/get_order_state_by_label", rows)
    stage.peer.on("private/get_open_orders_by_label", by_label)
    await send(stage, QueryOrder(BID, ""))
    assert kinds(stage) == expected


async def test_query_order_waits_for_the_trades(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    asked: list[int] = []

    def state(wire: Wire, params: dict[str, Any]) -> Any:
        asked.append(1)
        if len(asked) == 2:
            stage.peer.trades = [trade(n, START_MS + n, amount=10) for n in range(1, 6)]
        return [order(order_state="filled", filled_amount=50)]

    stage.peer.on("private/get_order_state_by_label", state)
    await send(stage, QueryOrder(BID, "o1"))
    await trio.sleep(2)
    assert kinds(stage) == [OrderFilled] * 5 + [OrderClosed]


async def test_query_order_without_its_trades_is_not_answered_wrongly(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/get_order_state_by_label", [order(order_state="filled", filled_amount=50)])
    await send(stage, QueryOrder(BID, "o1"))
    await trio.sleep(2)
    assert kinds(stage) == [RequestLost]


async def test_query_order_tells_no_old_fills_of_other_orders(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    others = [trade(n, START_MS + 1000 + n, order_id="o2", label=ASK) for n in range(10, 14)]
    stage.peer.trades = [trade(1, START_MS + 500), *others]
    await trio.sleep(1000)
    assert len(stage.sink.of(OrderFilled)) == 5
    stage.sink.clear()
    # It rests since then: whether all of its own are listed can only be told from there on.
    resting = order(creation_timestamp=START_MS + 400, filled_amount=10)
    stage.peer.on("private/get_order_state_by_label", [resting])
    await send(stage, QueryOrder(BID, "o1"))
    await trio.sleep(3)
    assert [event.trade_id for event in stage.sink.of(OrderFilled)] == ["t1"]
    assert stage.sink.of(OrderAcked)


async def test_query_order_refused(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/get_order_state_by_label", Refuse(13028, "temporarily_unavailable"))
    await send(stage, QueryOrder(BID, "o1"))
    assert kinds(stage) == [RequestLost]
    assert stage.deribit.stats["trade"].up


async def test_query_state(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.positions = {BTC: 10}
    await started(stage, BTC, ETH)
    stage.peer.open_orders = [
        order(filled_amount=10),
        order(label="someone", order_id="o2"),
        order(label="", price="?"),
    ]
    stage.peer.trades = [trade(1, START_MS + 1)]
    stage.peer.positions = {BTC: 20, ETH: -0.5}
    await send(stage, QueryState())
    assert kinds(stage) == [OrderFilled, OrdersReported, PositionReported]
    assert stage.sink.of(OrdersReported)[0].orders == (OpenOrder(BID, "o1", Side.BID, 200, 4, 5),)
    assert stage.sink.of(PositionReported)[0].position_lots == 2
    assert str(stage.sink.of(PositionReported)[0].average_price) == "81000.0"
    assert kinds(stage, ETH) == []
    assert set(await stage.deribit.open_orders()) == {BTC}


async def test_query_state_refused_is_reported(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/get_positions", Refuse(13028, "temporarily_unavailable"))
    await send(stage, QueryState())
    assert stage.sink.named("query.failed")


async def test_a_position_without_a_whole_number_of_lots_is_not_reported(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.positions = {BTC: 15}
    await send(stage, QueryState())
    assert not stage.sink.of(PositionReported)
    assert "not a multiple" in stage.sink.named("query.failed")[0]


async def test_a_fill_during_the_question_asks_again(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    answers = iter([0, 10])

    async def positions(wire: Wire, params: dict[str, Any]) -> Any:
        size = next(answers)
        if size == 0:
            await wire.notify("user.changes.any.any.raw", news(trades=[trade(1, START_MS + 5)]))
        return [{"instrument_name": BTC, "size": size, "average_price": 100.0}]

    stage.peer.on("private/get_positions", positions)
    await send(stage, QueryState())
    assert kinds(stage) == [OrdersReported, OrderFilled, PositionReported]
    assert stage.sink.of(PositionReported)[0].position_lots == 1


# --- losses and strays ---------------------------------------------------------------------------


async def test_missed_fills_come_after_a_reconnect(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.trades = [trade(0, START_MS - 5_000)]  # before our time: in the baseline
    await started(stage)
    assert not stage.peer.trade.asked("private/get_user_trades_by_instrument_and_time")
    await trio.sleep(30)
    await tell(stage, trades=[trade(1, START_MS + 30_000)])
    stage.sink.clear()
    await stage.peer.trade.drop()
    stage.peer.trades += [trade(n, START_MS + 30_000 + n // 2) for n in range(1, 8)]
    stage.peer.positions = {BTC: 70}
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    assert [event.trade_id for event in stage.sink.of(OrderFilled)] == [f"t{n}" for n in range(1, 8)]
    assert kinds(stage)[-3:] == [OrdersReported, PositionReported, TradeLinkUp]
    assert len(stage.peer.trade.asked("private/get_user_trades_by_instrument_and_time")) >= 4


async def test_a_late_fill_that_the_baseline_counted_is_not_counted_again(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.positions = {BTC: 10}
    await started(stage)
    await tell(stage, trades=[trade(1, START_MS - 1)])
    await tell(stage, trades=[trade(2, START_MS + 1)])
    assert [event.trade_id for event in stage.sink.of(OrderFilled)] == ["t2"]


async def test_strays_are_cancelled_by_label(autojump_clock: Clock, stage: Stage) -> None:
    stray = f"mmd-svc-{ETH}-a-{EPOCH}-7"
    other = f"mmd-other-{ETH}-a-{EPOCH}-7"
    eth = {"instrument_name": ETH, "price": 3000.0, "amount": 0.5}
    stage.peer.open_orders = [
        order(),
        order(label=stray, order_id="o7", **eth),
        order(label=other, order_id="o8", **eth),
    ]
    stage.peer.open_orders.append(order(label=stray + "x", order_id="o9", instrument_name="BTC-FS-1_2"))
    stage.peer.on("private/cancel", {})
    await stage.start(BTC)
    assert stage.sink.of(OrdersReported)[0].orders[0].label == BID
    assert stage.peer.trade.asked("private/cancel_by_label") == [{"currency": "USDC", "label": stray}]
    assert stage.peer.trade.asked("private/cancel") == [{"order_id": "o9"}]
    assert len(stage.sink.named("order.stray_cancelled")) == 2


async def test_a_stray_that_stays_is_tried_again(autojump_clock: Clock, stage: Stage) -> None:
    stray = order(label=f"mmd-svc-{ETH}-a-{EPOCH}-7", instrument_name=ETH)
    stage.peer.open_orders = [stray]
    stage.peer.on("private/cancel_by_label", Refuse(10028, "too_many_requests"))
    await stage.start(BTC)
    assert stage.sink.named("order.stray_not_cancelled")
    stage.peer.on("private/cancel_by_label", 1)
    await stage.until(lambda: stage.sink.named("order.stray_cancelled"), seconds=10)


async def test_before_the_first_watch_nothing_is_cancelled(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.open_orders = [order()]
    await stage.start()
    await trio.sleep(5)
    assert not stage.peer.trade.asked("private/cancel_by_label")
    stage.deribit.watch([])
    await stage.settle()
    assert stage.peer.trade.asked("private/cancel_by_label")


async def test_foreign_orders_and_fills(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    foreign = order(label="", order_id="x", order_state="cancelled", price="market_price")
    await tell(stage, [foreign], [trade(1, START_MS + 1, label="", direction="sell")])
    await tell(stage, trades=[trade(2, START_MS + 1, label="", instrument_name="BTC-FS-25DEC26_PERP")])
    # The account's position moved, whoever did it; the order is not ours to follow.
    assert kinds(stage) == [OrderFilled]
    assert stage.sink.of(OrderFilled)[0].side is Side.ASK
    assert stage.deribit.stats["trade"].unknown_labels == 2


async def test_the_label_says_the_side(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await tell(stage, trades=[trade(1, START_MS + 1, direction="sell")])  # the taker's, as the schema text has it
    assert stage.sink.of(OrderFilled)[0].side is Side.BID


async def test_our_calls_stay_within_the_credits(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    times: list[float] = []

    def state(wire: Wire, params: dict[str, Any]) -> Any:
        times.append(trio.current_time())
        return []

    stage.peer.on("private/get_order_state_by_label", state)
    began = trio.current_time()
    for number in range(100):
        stage.deribit.submit([(BTC, QueryOrder(f"mmd-svc-{BTC}-b-{EPOCH}-{base36(number)}", ""))])
    await stage.until(lambda: len(stage.sink.of(OrderAbsent)) == 100)
    # 300 calls: a burst of 80, then 16 a second.
    assert trio.current_time() - began == pytest.approx((300 - 80) / 16, abs=1.5)


async def test_stats(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await trio.sleep(1)
    trade_stats = stage.deribit.stats["trade"]
    assert (trade_stats.connects, trade_stats.up) == (1, True)
    assert trade_stats.messages_out == len(stage.peer.trade.requests)
    assert trade_stats.messages_in >= trade_stats.messages_out
    assert trade_stats.bytes_out > 500 and trade_stats.bytes_in > 500
    assert trade_stats.last_received_ns >= START_NS
    assert json.dumps(trade_stats.last_received_ns)
