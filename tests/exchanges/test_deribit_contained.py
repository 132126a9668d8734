"""What is wrong with one symbol stops that symbol: it is told and asked again, and the others go on."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BTC, EPOCH, ETH, START_MS, kinds, order, started, tell, trade
from deribit_peer import SILENT, Refuse, Stage, Wire

from mmd.domain.actions import CancelOrder, PlaceOrder, QueryState
from mmd.domain.events import (
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    ProtectionReported,
    TradeLinkDown,
    TradeLinkUp,
)
from mmd.domain.reasons import Fault, Side
from mmd.domain.settings import Protection

Clock = trio.testing.MockClock
TRADES = "private/get_user_trades_by_instrument_and_time"
ETH_BID = f"mmd-svc-{ETH}-b-{EPOCH}-3"
ETH_ORDER = {"label": ETH_BID, "order_id": "o3", "instrument_name": ETH, "price": 3000.0, "amount": 0.5}


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


def only_eth(stage: Stage, answer: Any) -> Callable[[Wire, dict[str, Any]], Any]:
    """The trades question about ETH is answered so, the others as they are."""
    working = stage.peer.handlers[TRADES]

    def trades(wire: Wire, params: dict[str, Any]) -> Any:
        return answer if params["instrument_name"] == ETH else working(wire, params)

    return trades


def off_lot_position(stage: Stage) -> None:
    stage.peer.positions = {ETH: 0.015}


def unreadable_position(stage: Stage) -> None:
    row = {"instrument_name": ETH, "size": "much", "direction": "buy"}
    working = stage.peer.handlers["private/get_positions"]
    stage.peer.on(
        "private/get_positions", lambda wire, params: working(wire, params) + [row] * (params["currency"] == "USDC")
    )


def refused_positions(stage: Stage) -> None:
    working = stage.peer.handlers["private/get_positions"]

    def positions(wire: Wire, params: dict[str, Any]) -> Any:
        return Refuse(13028, "temporarily_unavailable") if params["currency"] == "USDC" else working(wire, params)

    stage.peer.on("private/get_positions", positions)


def refused_trades(stage: Stage) -> None:
    stage.peer.on(TRADES, only_eth(stage, Refuse(13028, "temporarily_unavailable")))


def malformed_trades(stage: Stage) -> None:
    stage.peer.on(TRADES, only_eth(stage, {"trades": 7}))


def unreadable_trade(stage: Stage) -> None:
    rows = [trade(7, START_MS - 10, instrument_name=ETH, amount="some")]
    stage.peer.on(TRADES, only_eth(stage, {"trades": rows, "has_more": False}))


def off_lot_trade(stage: Stage) -> None:
    rows = [trade(7, START_MS - 10, instrument_name=ETH, amount=0.015)]
    stage.peer.on(TRADES, only_eth(stage, {"trades": rows, "has_more": False}))


def silent_trades(stage: Stage) -> None:
    stage.peer.on(TRADES, only_eth(stage, SILENT))


def off_grid_order(stage: Stage) -> None:
    stage.peer.open_orders = [order(**ETH_ORDER | {"price": 3000.01})]


def unreadable_order(stage: Stage) -> None:
    stage.peer.open_orders = [order(**ETH_ORDER | {"amount": "some"}), order(order_id="o9")]


ACCIDENTS = [
    off_lot_position,
    unreadable_position,
    refused_positions,
    refused_trades,
    malformed_trades,
    unreadable_trade,
    off_lot_trade,
    silent_trades,
    off_grid_order,
    unreadable_order,
]


@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda accident: accident.__name__)
async def test_the_others_come_up(autojump_clock: Clock, stage: Stage, accident: Callable[[Stage], None]) -> None:
    working = dict(stage.peer.handlers)
    accident(stage)
    stage.deribit.known_until({BTC: START_MS, ETH: START_MS - 1000})
    await stage.start(ETH, BTC)
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC), seconds=15)
    await trio.sleep(100)
    assert not stage.sink.of(TradeLinkUp, ETH)
    assert not stage.sink.named("link.lost") and stage.deribit.stats["trade"].connects == 1
    (line,) = stage.sink.named("query.failed")
    assert line.startswith(f"{ETH}: ")
    assert stage.sink.of(TradeLinkDown, ETH)[0].detail.startswith(f"{ETH} could not be reconciled: ")
    assert not stage.sink.of(TradeLinkDown, BTC) and not stage.sink.of(TradeLinkDown, "*")
    stage.peer.handlers = working
    stage.peer.positions, stage.peer.open_orders = {ETH: 0.02}, []
    await stage.until(lambda: stage.sink.of(TradeLinkUp, ETH), seconds=75)
    assert stage.sink.of(PositionReported, ETH)[-1].position_lots == 2
    assert len(stage.sink.of(TradeLinkUp, BTC)) == 1


async def test_it_is_asked_again_less_and_less_often(autojump_clock: Clock, stage: Stage) -> None:
    asked: list[float] = []

    def trades(wire: Wire, params: dict[str, Any]) -> Any:
        asked.append(trio.current_time())
        return Refuse(13028, "temporarily_unavailable")

    stage.peer.on(TRADES, trades)
    stage.deribit.known_until({ETH: START_MS})
    await stage.start(ETH)
    await trio.sleep(280)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    # First of all it is waited for what an earlier process may have sent last.
    assert pauses == pytest.approx([2.05 + 5, 10, 20, 40, 60, 60, 60], abs=0.1)
    stage.peer.on(TRADES, Refuse(13020, "not_found"))
    await trio.sleep(200)
    assert len(stage.sink.named("query.failed")) == 2  # another reason is told
    dropped_at = trio.current_time()
    await stage.peer.trade.drop()
    stage.peer.on(TRADES, trades)
    await stage.until(lambda: asked[-1] > dropped_at, seconds=5)  # on a new connection it may go well


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        pytest.param(Refuse(10028, "too_many_requests"), "too_many_requests", id="too many requests"),
        pytest.param(Refuse(13009, "unauthorized"), "unauthorized", id="not logged in"),
        pytest.param(SILENT, "no answer", id="nobody answers"),
    ],
)
async def test_what_no_symbol_is_to_blame_for_ends_the_link(
    autojump_clock: Clock, stage: Stage, refusal: Any, why: str
) -> None:
    stage.peer.on(TRADES, refusal)
    stage.deribit.known_until({BTC: START_MS, ETH: START_MS})
    await stage.start(BTC, ETH)
    await stage.until(lambda: stage.sink.named("link.lost"), seconds=30)
    assert why in stage.sink.named("link.lost")[0]


# --- on a running link ---------------------------------------------------------------------------


async def test_the_good_rows_of_a_message_are_taken(autojump_clock: Clock, stage: Stage) -> None:
    """The list has the trade as it should be: nobody goes down."""
    await started(stage, BTC, ETH)
    good = trade(2, START_MS + 2, instrument_name=ETH, amount=0.1, label=ETH_BID)
    stage.peer.trades = [good]
    bad = [good | {"amount": []}, good | {"amount": 0.015}]
    for row in bad:
        stage.sink.clear()
        stage.peer.trade.requests.clear()
        await tell(stage, [order(order_state="?"), {}], [row, trade(1, START_MS + 1)])
        assert [event.trade_id for event in stage.sink.of(OrderFilled, BTC)] == ["t1"]
        assert [event.trade_id for event in stage.sink.of(OrderFilled, ETH)] == ["t2"]
        assert {params["instrument_name"] for params in stage.peer.trade.asked(TRADES)} >= {ETH}
        assert not stage.sink.of(TradeLinkDown)
    assert stage.deribit.stats["trade"].malformed >= 2


async def test_only_who_is_doubted_is_asked_about(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    await tell(stage, trades=[trade(1, START_MS + 1), trade(2, START_MS + 2, instrument_name=ETH, amount=0.015)])
    assert [params["instrument_name"] for params in stage.peer.trade.asked(TRADES)] == [ETH]
    assert kinds(stage, ETH) == [OrdersReported, PositionReported]
    assert kinds(stage)[0] is OrderFilled and TradeLinkDown not in kinds(stage)


async def test_a_fill_that_nobody_can_read_takes_its_symbol_down(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH)
    stage.peer.open_orders = [order(), order(**ETH_ORDER)]
    rows = [trade(n, START_MS + n, instrument_name=ETH, amount=0.1, label=ETH_BID) for n in range(1, 6)]
    stage.peer.trades = [*rows[:3], rows[3] | {"amount": 0.015}, rows[4]]
    await tell(stage, trades=[stage.peer.trades[3]])
    await stage.until(lambda: stage.sink.of(TradeLinkDown, ETH), seconds=1)
    await stage.settle()
    assert [event.trade_id for event in stage.sink.of(OrderFilled, ETH)] == ["t1", "t2", "t3", "t5"]
    assert stage.peer.trade.asked("private/cancel_by_label") == [{"currency": "USDC", "label": ETH_BID}]
    assert "trade t4" in stage.sink.named("query.failed")[0]
    await trio.sleep(120)
    assert not stage.sink.of(TradeLinkUp) and kinds(stage).count(TradeLinkDown) == 0
    assert len(stage.sink.of(OrdersReported, BTC)) >= 3  # it is looked at as before
    assert stage.deribit.stats["trade"].connects == 1
    stage.peer.trades = rows
    stage.peer.open_orders = [order()]
    await stage.until(lambda: stage.sink.of(TradeLinkUp, ETH), seconds=65)
    assert [event.trade_id for event in stage.sink.of(OrderFilled, ETH)] == ["t1", "t2", "t3", "t5", "t4"]
    assert kinds(stage, ETH)[-3:] == [OrdersReported, PositionReported, TradeLinkUp]


async def test_a_position_off_the_grid_takes_its_symbol_down_and_the_look_goes_on(
    autojump_clock: Clock, stage: Stage
) -> None:
    other = stage.peer.rows[1] | {"instrument_name": "SOL_USDC-PERPETUAL", "base_currency": "SOL"}
    stage.peer.rows = [*stage.peer.rows, other]
    await started(stage, ETH, BTC, other["instrument_name"])
    stage.peer.positions = {ETH: 0.015}
    await stage.until(lambda: stage.sink.of(TradeLinkDown, ETH), seconds=15)
    await trio.sleep(100)
    assert len(stage.sink.of(PositionReported, other["instrument_name"])) >= 3
    assert {name for name, event in stage.sink.posted if isinstance(event, TradeLinkDown)} == {ETH}
    assert len(stage.sink.named("query.failed")) == 1


async def test_fills_that_cannot_be_asked_for_later_keep_no_other_symbol_from_being_looked_at(
    autojump_clock: Clock, stage: Stage
) -> None:
    await started(stage, ETH, BTC)
    stage.peer.on(TRADES, only_eth(stage, Refuse(13028, "temporarily_unavailable")))
    await trio.sleep(1300)
    assert {params["instrument_name"] for params in stage.peer.trade.asked(TRADES)} == {ETH, BTC}
    assert len(stage.sink.of(PositionReported, BTC)) > 30
    assert stage.sink.of(TradeLinkDown, ETH) and stage.deribit.stats["trade"].connects == 1


async def test_an_answer_to_the_machine_that_cannot_be_read(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, ETH, BTC)
    stage.peer.open_orders = [order(**ETH_ORDER | {"price": 3000.01})]
    stage.deribit.submit([(ETH, QueryState())])
    await stage.deribit.flush()
    await stage.until(lambda: stage.sink.of(TradeLinkDown, ETH), seconds=1)
    assert "3000.01" in stage.sink.named("query.failed")[0]
    assert not stage.sink.of(TradeLinkDown, BTC)


async def test_what_comes_up_again_hears_of_its_protection_again(autojump_clock: Clock, stage: Stage) -> None:
    """Its machine forgets with the link what was read."""
    await started(stage, ETH)
    stage.deribit.protect(
        [Protection(underlying="ETH", interval_seconds=5, frozen_seconds=10, max_quantity=Decimal(1))]
    )
    await stage.until(lambda: [event.armed for event in stage.sink.of(ProtectionReported, ETH)][-1:] == [True])
    stage.peer.positions = {ETH: 0.015}
    await stage.until(lambda: stage.sink.of(TradeLinkDown, ETH), seconds=15)
    stage.peer.positions = {}
    await stage.until(lambda: stage.sink.of(TradeLinkUp, ETH), seconds=15)
    after = kinds(stage, ETH)[kinds(stage, ETH).index(TradeLinkDown) :]
    assert ProtectionReported in after


async def test_a_symbol_that_left_is_not_asked_about(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.positions = {ETH: 0.015}
    await stage.start(ETH, BTC)
    assert stage.sink.named("query.failed")
    stage.deribit.watch([BTC])
    await stage.settle()
    asked = len(stage.peer.trade.asked(TRADES)) + len(stage.peer.trade.asked("private/get_open_orders"))
    await trio.sleep(8)
    assert len(stage.peer.trade.asked(TRADES)) + len(stage.peer.trade.asked("private/get_open_orders")) == asked
    stage.sink.clear()
    stage.deribit.watch([BTC, ETH])
    await stage.settle()
    assert stage.sink.named("query.failed")  # it starts anew, and so do its troubles


# --- the login is gone ---------------------------------------------------------------------------


@pytest.mark.parametrize("request_method", ["private/buy", "private/cancel"])
async def test_a_login_that_is_gone_ends_the_link_at_once(
    autojump_clock: Clock, stage: Stage, request_method: str
) -> None:
    """Cancels would be refused as well: the loss itself cancels, and a new login can send them."""
    await started(stage, BTC)
    stage.peer.on(request_method, Refuse(13009, "unauthorized", {"reason": "invalid_token"}))
    place = PlaceOrder(f"mmd-svc-{BTC}-b-{EPOCH}-9", Side.BID, 200, 5)
    sent = place if request_method == "private/buy" else CancelOrder(place.label, "o9", Side.BID)
    stage.deribit.submit([(BTC, sent)])
    await stage.deribit.flush()
    await stage.settle()
    assert [event.fault for event in stage.sink.of(OrderRefused)] == [Fault.AUTH]
    assert [type(event) for _, event in stage.sink.posted][-1] is TradeLinkDown
    assert (
        "login is not valid" in stage.sink.named("link.lost")[0] and "invalid_token" in stage.sink.named("link.lost")[0]
    )
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC), seconds=5)
    assert stage.deribit.stats["trade"].connects == 2


async def test_any_other_refusal_leaves_the_link(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC)
    stage.peer.on("private/buy", Refuse(13021, "forbidden"))
    stage.deribit.submit([(BTC, PlaceOrder(f"mmd-svc-{BTC}-b-{EPOCH}-9", Side.BID, 200, 5))])
    await stage.deribit.flush()
    await trio.sleep(5)
    assert stage.sink.of(OrderRefused) and stage.deribit.stats["trade"].connects == 1
    assert stage.deribit.stats["trade"].up
