"""Immediate-or-cancel reductions, trades with ourselves and the exchange's clock."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import ASK, BID, BTC, START_MS, kinds, order, send, started, tell, trade
from deribit_peer import SILENT, Refuse, Stage

from mmd.domain.actions import PlaceOrder, QueryOrder, QueryState, ReduceOrder
from mmd.domain.events import (
    OrderAbsent,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
    TradeLinkUp,
)
from mmd.domain.reasons import Side
from mmd.exchanges.clock import ClockSkew

Clock = trio.testing.MockClock
REDUCE = ReduceOrder(ASK, Side.ASK, 200, 5)
MS = 1_000_000


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


def ended(**fields: Any) -> dict[str, Any]:
    """A reduction that found 30 of 50."""
    values = {
        "order_state": "cancelled",
        "cancel_reason": "not_filled",
        "time_in_force": "immediate_or_cancel",
        "direction": "sell",
        "label": ASK,
        "filled_amount": 30,
    }
    return order(**(values | fields))


def sold(number: int, amount: int = 10, **fields: Any) -> dict[str, Any]:
    return trade(number, START_MS + 1, label=ASK, direction="sell", amount=amount, liquidity="T", **fields)


# --- reductions ----------------------------------------------------------------------------------


async def test_a_reduction_never_rests(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/sell", {"order": ended(), "trades": [sold(1), sold(2, 20)]})
    await send(stage, REDUCE)
    assert stage.peer.trade.asked("private/sell") == [
        {
            "instrument_name": BTC,
            "amount": 50,
            "price": 100.0,
            "label": ASK,
            "type": "limit",
            "time_in_force": "immediate_or_cancel",
            "post_only": False,
            "reject_post_only": False,
            "reduce_only": True,
        }
    ]
    assert kinds(stage) == [OrderFilled, OrderFilled, OrderClosed]
    (closed,) = stage.sink.of(OrderClosed)
    assert (closed.label, closed.cause, closed.filled_lots) == (ASK, "cancelled", 3)
    assert [(fill.side, fill.size_lots, fill.maker) for fill in stage.sink.of(OrderFilled)] == [
        (Side.ASK, 1, False),
        (Side.ASK, 2, False),
    ]


async def test_a_reduction_that_found_all(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    done = ended(order_state="filled", cancel_reason="", filled_amount=50)
    stage.peer.on("private/sell", {"order": done, "trades": [sold(1, 50)]})
    await send(stage, REDUCE)
    await tell(stage, [done], [sold(1, 50)])
    assert kinds(stage) == [OrderFilled, OrderClosed, OrderFilled, OrderClosed]
    assert [(closed.cause, closed.filled_lots) for closed in stage.sink.of(OrderClosed)] == [("filled", 5)] * 2
    assert len({(fill.trade_id, fill.side) for fill in stage.sink.of(OrderFilled)}) == 1


async def test_news_that_overtake_the_answer_of_a_reduction(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/sell", SILENT)
    await send(stage, REDUCE)
    await tell(stage, [ended()], [sold(1, 30)])
    assert kinds(stage) == [OrderFilled]
    await stage.peer.trade.answer(stage.peer.trade.requests[-1], {"order": ended(), "trades": [sold(1, 30)]})
    await stage.settle()
    assert kinds(stage) == [OrderFilled, OrderFilled, OrderClosed]
    assert stage.sink.of(OrderClosed)[0].cause == "cancelled"


async def test_a_reduction_answered_as_open_is_an_unknown_outcome(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/sell", {"order": ended(order_state="open", time_in_force=""), "trades": [sold(1)]})
    await send(stage, REDUCE)
    assert kinds(stage) == [OrderFilled, RequestLost]
    stage.sink.clear()
    stage.peer.trades = [sold(1), sold(2, 20)]
    answers = iter([[ended(order_state="open")], [ended()]])
    stage.peer.on("private/get_order_state_by_label", lambda wire, params: next(answers))
    stage.deribit.submit([(BTC, QueryOrder(ASK, ""))])
    await stage.until(lambda: stage.sink.of(OrderClosed))
    assert kinds(stage) == [OrderFilled, OrderFilled, OrderClosed]
    assert stage.sink.of(OrderClosed)[0].filled_lots == 3


@pytest.mark.parametrize("fate", ["filled", "absent"])
async def test_a_lost_reduction_is_found_by_its_label(autojump_clock: Clock, stage: Stage, fate: str) -> None:
    await started(stage)
    stage.peer.on("private/sell", SILENT)
    await send(stage, REDUCE)
    await stage.peer.trade.drop()
    await stage.until(lambda: stage.sink.of(RequestLost))
    assert stage.sink.of(RequestLost)[0].label == ASK
    if fate == "filled":
        stage.peer.trades = [sold(1, 30)]
        stage.peer.on("private/get_order_state_by_label", [ended()])
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    stage.sink.clear()
    stage.deribit.submit([(BTC, QueryOrder(ASK, ""))])
    await stage.until(lambda: stage.sink.of(OrderClosed) or stage.sink.of(OrderAbsent))
    if fate == "filled":
        assert stage.sink.of(OrderClosed)[0].filled_lots == 3
        assert stage.sink.of(OrderFilled)
    else:
        assert stage.sink.of(OrderAbsent)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(11030, OrderRefused, id="nothing to reduce"),
        pytest.param(10004, OrderRefused, id="a place is never gone"),
        pytest.param(11094, RequestLost, id="ambiguous"),
    ],
)
async def test_a_refused_reduction(autojump_clock: Clock, stage: Stage, code: int, kind: type) -> None:
    await started(stage)
    stage.peer.on("private/sell", Refuse(code, "no"))
    await send(stage, REDUCE)
    assert kinds(stage) == [kind]
    assert not any(event.gone for event in stage.sink.of(OrderRefused))


async def test_a_reduction_on_a_link_that_is_down(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.refuse_dial = "no"
    await stage.peer.trade.drop()
    await stage.settle()
    stage.sink.clear()
    await send(stage, REDUCE)
    assert [event.code for event in stage.sink.of(OrderRefused)] == ["link_down"]


# --- a trade with ourselves ----------------------------------------------------------------------


async def test_a_trade_with_ourselves_is_two_fills(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    both = [trade(1, START_MS + 1), sold(1, order_id="o2")]
    await tell(stage, trades=both)
    assert [(fill.trade_id, fill.side) for fill in stage.sink.of(OrderFilled)] == [("t1", Side.BID), ("t1", Side.ASK)]
    stage.sink.clear()
    stage.peer.trades = both
    await send(stage, QueryState())
    assert [(fill.trade_id, fill.side) for fill in stage.sink.of(OrderFilled)] == [("t1", Side.BID), ("t1", Side.ASK)]
    assert kinds(stage)[-2:] == [OrdersReported, PositionReported]


async def test_a_trade_with_ourselves_in_one_answer(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", {"order": order(filled_amount=10), "trades": [trade(1, START_MS)]})
    await send(stage, PlaceOrder(BID, Side.BID, 200, 5))
    await tell(stage, trades=[trade(1, START_MS + 1), sold(1, order_id="o2")])
    assert {(fill.trade_id, fill.side) for fill in stage.sink.of(OrderFilled)} == {("t1", Side.BID), ("t1", Side.ASK)}


# --- the exchange's clock ------------------------------------------------------------------------


def answer(skew: ClockSkew, sent_ms: float, true_ms: float, out_ms: float = 1.0, back_ms: float = 1.0) -> float:
    """An answer at a true difference of clocks, with its times on the way; the estimate after it."""
    arrived_ms = sent_ms + out_ms
    us_in = int((arrived_ms + true_ms) * 1000)
    skew.add(int(sent_ms * MS), int((arrived_ms + 0.1 + back_ms) * MS), us_in, us_in + 100)
    return skew.skew_ms


def test_before_the_first_answer_the_clocks_are_taken_as_one() -> None:
    assert ClockSkew().skew_ms == 0.0


def test_a_slow_answer_does_not_spoil_what_is_known() -> None:
    skew = ClockSkew()
    assert answer(skew, 1e6, 40.0) == pytest.approx(40.0, abs=0.1)
    assert answer(skew, 1e6 + 1e5, 40.0, out_ms=3000.0) == pytest.approx(40.0, abs=25.0)


def test_the_way_is_halved() -> None:
    assert answer(ClockSkew(), 1e6, -500.0, out_ms=40.0, back_ms=60.0) == pytest.approx(-510.0, abs=0.1)


@pytest.mark.parametrize("step_ms", [1500.0, -1500.0, 20.0])
def test_a_clock_that_was_set_shows_in_the_next_answer(step_ms: float) -> None:
    skew = ClockSkew()
    for at in range(10):
        answer(skew, 1e6 + at * 100, 3.0)
    assert answer(skew, 1e6 + 1000, 3.0 + step_ms) == pytest.approx(3.0 + step_ms, abs=2.0)


def test_a_clock_set_back_on_the_way_is_passed_over() -> None:
    skew = ClockSkew()
    answer(skew, 1e6, 5.0)
    skew.add(2_000 * MS, 1_000 * MS, 5_000_000, 5_000_000)
    assert skew.skew_ms == pytest.approx(5.0, abs=0.1)
