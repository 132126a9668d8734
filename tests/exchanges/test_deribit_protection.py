"""Maker protection and cancel-on-disconnect as managed state, against a scripted exchange on mock time."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from deribit_news import BID, BTC, ETH, START_MS, kinds, order, send, started, tell
from deribit_peer import SILENT, Refuse, Stage, Wire

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, ReduceOrder
from mmd.domain.errors import ExchangeRefused, LinkLost
from mmd.domain.events import (
    OrderAcked,
    OrderClosed,
    OrderRefused,
    ProtectionReported,
    ProtectionTripped,
    TradeLinkDown,
    TradeLinkUp,
)
from mmd.domain.reasons import Side
from mmd.domain.settings import Protection, Reset
from mmd.exchanges.deribit.messages import MmpConfig
from mmd.exchanges.deribit.protection import difference, mmp_params

Clock = trio.testing.MockClock
INDEX = "btc_usd"
WANTED = Protection(
    underlying="BTC",
    interval_seconds=5,
    frozen_seconds=0,
    max_quantity=Decimal("2"),
    max_delta=Decimal("1.00005"),
)
STANDS = {
    "index_name": INDEX,
    "interval": 5,
    "frozen_time": 0,
    "quantity_limit": 2,
    "delta_limit": 1.0,
    "max_quote_quantity": 2.0,
}
PLACE = PlaceOrder(BID, Side.BID, 200, 5)
AMEND = AmendOrder(BID, "o1", Side.BID, 198, 4, 4)


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    yield stage
    nursery.cancel_scope.cancel()


def told(stage: Stage, symbol: str = BTC) -> list[tuple[bool, str]]:
    return [(event.armed, event.detail) for event in stage.sink.of(ProtectionReported, symbol)]


def changed(**fields: Any) -> Protection:
    values = {name: getattr(WANTED, name) for name in WANTED.__struct_fields__}
    return Protection(**(values | fields))


async def protected(stage: Stage, wanted: Protection = WANTED) -> None:
    """Up, watched and armed."""
    stage.deribit.protect([wanted])
    await started(stage)


# --- units ---------------------------------------------------------------------------------------


def test_limits_are_cut_to_four_decimals() -> None:
    params = mmp_params(INDEX, WANTED)
    assert (params.quantity_limit, params.delta_limit, params.vega_limit) == (Decimal(2), Decimal("1.0000"), None)
    assert params.max_quote_quantity == Decimal(2)
    assert mmp_params(INDEX, changed(max_quantity=None)).max_quote_quantity == Decimal("1.0000")


def test_a_limit_that_would_be_cut_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_delta 0.00009 is too small, the least is 0.0001"):
        mmp_params(INDEX, changed(max_delta=Decimal("0.00009")))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({}, "", id="as wanted"),
        pytest.param({"quantity_limit": Decimal("2.50")}, "quantity_limit is 2.5, wanted 2", id="another limit"),
        pytest.param({"delta_limit": None}, "delta_limit is off, wanted 1", id="a limit that is off"),
        pytest.param({"vega_limit": Decimal(10)}, "vega_limit is 10, wanted off", id="a limit too many"),
        pytest.param(
            {"interval": 6, "frozen_time": 9}, "interval is 6, wanted 5; frozen_time is 9, wanted 0", id="times"
        ),
        pytest.param({"delta_limit": Decimal("1.00000000000002")}, "", id="float noise"),
        pytest.param({"delta_limit": Decimal("1e25")}, f"delta_limit is 1{'0' * 25}, wanted 1", id="beyond all places"),
    ],
)
def test_every_field_is_compared(fields: dict[str, Any], text: str) -> None:
    values = {
        name: Decimal(str(value)) if "limit" in name or "max" in name else value for name, value in STANDS.items()
    }
    assert difference(MmpConfig(**(values | fields)), mmp_params(INDEX, WANTED)) == text


def test_nothing_set_is_a_difference() -> None:
    assert difference(None, mmp_params(INDEX, WANTED)) == "nothing is set there"


# --- set and read back ---------------------------------------------------------------------------


async def test_it_is_set_read_back_and_told(autojump_clock: Clock, stage: Stage) -> None:
    stage.deribit.protect([WANTED])
    assert [(line.underlying, line.armed, line.checked_ns) for line in stage.deribit.protections] == [("BTC", False, 0)]
    await stage.start(BTC, ETH)
    wire = stage.peer.trade
    assert wire.asked("private/set_mmp_config") == [STANDS]
    assert {"channels": [f"user.mmp_trigger.{INDEX}"]} in wire.asked("private/subscribe")
    assert told(stage) == [(True, "as configured")]
    assert not told(stage, ETH)
    (line,) = stage.deribit.protections
    assert (line.armed, line.frozen_until_ns) == (True, None)
    assert line.checked_ns
    assert stage.deribit.capabilities.maker_protection
    assert stage.deribit.event_lag_seconds is None


async def test_what_stands_is_not_set_again(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.mmp[INDEX] = STANDS | {"mmp_group": None}
    await stage.start(BTC)
    stage.deribit.protect([WANTED])
    await stage.settle()
    assert told(stage) == [(True, "as configured")]
    await trio.sleep(130)
    assert not stage.peer.trade.asked("private/set_mmp_config")
    assert len(stage.peer.trade.asked("private/get_mmp_config")) == 3
    assert told(stage) == [(True, "as configured")]


async def test_a_configuration_of_a_group_is_not_ours(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("private/get_mmp_config", [STANDS | {"mmp_group": "bot"}, STANDS | {"block_rfq": True}])
    await protected(stage)
    assert len(stage.peer.trade.asked("private/set_mmp_config")) == 1
    stage.peer.handlers["private/get_mmp_config"] = lambda wire, params: list(stage.peer.mmp.values())
    await stage.until(lambda: told(stage) == [(True, "as configured")])


async def test_what_cannot_be_set_is_not_armed(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("private/set_mmp_config", Refuse(13040, "mmp_required"))
    stage.deribit.protect([WANTED])
    await stage.start(BTC)
    ((armed, detail),) = told(stage)
    assert not armed and "mmp_required" in detail and "13040" in detail
    assert not stage.deribit.protections[0].armed


async def test_another_value_read_back_is_named_with_both(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("private/get_mmp_config", [STANDS | {"quantity_limit": 3}])
    stage.deribit.protect([WANTED])
    await stage.start(BTC)
    assert told(stage) == [(False, "quantity_limit is 3, wanted 2")]


@pytest.mark.parametrize("answer", [SILENT, [{"index_name": INDEX, "interval": "soon"}]])
async def test_what_cannot_be_read_is_not_armed_and_asked_again(
    autojump_clock: Clock, stage: Stage, answer: Any
) -> None:
    working = stage.peer.handlers["private/get_mmp_config"]
    stage.peer.on("private/get_mmp_config", answer)
    stage.deribit.protect([WANTED])
    await stage.start(BTC)
    await stage.until(lambda: told(stage))
    assert not told(stage)[0][0]
    stage.peer.on("private/get_mmp_config", working)
    await stage.until(lambda: told(stage)[-1] == (True, "as configured"), seconds=11)


async def test_drift_is_told_and_mended_once(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()
    stage.peer.mmp[INDEX] = STANDS | {"delta_limit": 50}
    await trio.sleep(61)
    assert told(stage) == [(False, "delta_limit is 50, wanted 1"), (True, "as configured")]
    assert stage.sink.named("protection.drifted") == ["btc_usd: delta_limit is 50, wanted 1"]
    assert stage.peer.mmp[INDEX] == STANDS
    stage.sink.clear()
    stage.peer.mmp.clear()
    await trio.sleep(200)
    assert told(stage) == [(False, "nothing is set there")]
    assert len(stage.sink.named("protection.drifted")) == 1
    assert not stage.deribit.protections[0].armed


async def test_it_is_told_anew_after_a_reconnect(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()
    stage.peer.refuse_dial = "no"
    await stage.peer.trade.drop()
    await stage.until(lambda: stage.sink.of(TradeLinkDown))
    assert stage.deribit.protections[0].detail == "btc_usd: the trade link is down"
    with pytest.raises(LinkLost):
        await stage.deribit.reset_protection("BTC")
    stage.peer.refuse_dial = ""
    await stage.until(lambda: told(stage))
    assert told(stage) == [(True, "as configured")]
    assert not stage.peer.trade.asked("private/set_mmp_config")


async def test_a_symbol_that_joins_is_told(autojump_clock: Clock, stage: Stage) -> None:
    row = stage.peer.rows[0] | {"instrument_name": "BTC-25DEC26", "settlement_period": "month"}
    stage.peer.rows.append(row)
    await protected(stage)
    asked = len(stage.peer.trade.asked("private/get_mmp_config"))
    stage.deribit.watch([BTC, "BTC-25DEC26"])
    await stage.settle()
    assert told(stage, "BTC-25DEC26") == [(True, "as configured")]
    assert len(stage.peer.trade.asked("private/get_mmp_config")) == asked


async def test_a_symbol_that_leaves_and_returns_at_once_is_told_anew(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    before = told(stage)
    stage.deribit.watch([])
    stage.deribit.watch([BTC])
    await stage.settle()
    assert told(stage) == [*before, (True, "as configured")]


async def test_each_index_of_an_underlying_has_its_own(autojump_clock: Clock, stage: Stage) -> None:
    linear = stage.peer.rows[1] | {"instrument_name": "BTC_USDC-PERPETUAL", "base_currency": "BTC"}
    stage.peer.rows.append(linear | {"price_index": "btc_usdc"})
    stage.deribit.protect([WANTED])
    await stage.start(BTC, "BTC_USDC-PERPETUAL")
    assert [params["index_name"] for params in stage.peer.trade.asked("private/set_mmp_config")] == [INDEX, "btc_usdc"]
    await stage.peer.trip("btc_usdc")
    await stage.settle()
    assert not stage.sink.of(ProtectionTripped, BTC)
    assert len(stage.sink.of(ProtectionTripped, "BTC_USDC-PERPETUAL")) == 1
    (line,) = stage.deribit.protections
    assert not line.armed and line.frozen_until_ns == 0


async def test_a_change_is_set_and_a_removal_leaves_it(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.deribit.protect([changed(interval_seconds=7)])
    await stage.settle()
    assert stage.peer.mmp[INDEX]["interval"] == 7
    stage.deribit.protect([])
    await stage.settle()
    assert stage.deribit.protections == []
    assert stage.peer.mmp[INDEX]["interval"] == 7
    assert "stays there" in stage.sink.named("protection.released")[0]
    await stage.peer.trip(INDEX)
    await stage.settle()
    assert not stage.sink.of(ProtectionTripped)
    with pytest.raises(ExchangeRefused, match="BTC: no maker protection is managed here"):
        await stage.deribit.reset_protection("BTC")


# --- freezes -------------------------------------------------------------------------------------


async def test_a_trigger_is_told_once(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()
    await stage.peer.trip(INDEX)
    await tell(stage, [order(order_state="cancelled", cancel_reason="mmp_trigger", mmp_cancelled=True)])
    assert [event.until_ns for event in stage.sink.of(ProtectionTripped, BTC)] == [0]
    assert told(stage) == [(False, "frozen until it is reset")]
    assert stage.sink.of(OrderClosed)[0].cause == "mmp_trigger"
    assert stage.deribit.protections[0].frozen_until_ns == 0
    await trio.sleep(130)  # manual: nobody ends it
    assert stage.peer.frozen and not stage.peer.trade.asked("private/reset_mmp")
    await stage.deribit.reset_protection("BTC")
    assert told(stage)[-1] == (True, "as configured")
    assert stage.deribit.protections[0].frozen_until_ns is None
    await stage.peer.trip(INDEX)
    await stage.settle()
    assert len(stage.sink.of(ProtectionTripped, BTC)) == 2


async def test_a_freeze_that_ends_by_itself(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage, changed(frozen_seconds=10))
    stage.sink.clear()
    now_ms = START_MS + int(trio.current_time() * 1000)
    await stage.peer.trip(INDEX, now_ms + 10_000)
    await stage.settle()
    (event,) = stage.sink.of(ProtectionTripped, BTC)
    assert event.until_ns == (now_ms + 10_000) * 1_000_000
    assert told(stage)[0][1].startswith("frozen until ") and told(stage)[0][1].endswith(" UTC")
    began = trio.current_time()
    await stage.until(lambda: told(stage)[-1][0])
    assert trio.current_time() - began == pytest.approx(10.2, abs=0.2)


async def test_a_freeze_until_a_time_that_is_no_date(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()
    await stage.peer.trip(INDEX, 10**20)
    await stage.settle()
    assert told(stage)[0] == (False, f"frozen until {10**20} ms, which is no date")
    assert stage.deribit.stats["trade"].up


async def test_an_automatic_reset_waits_one_interval(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage, changed(reset=Reset.AUTOMATIC))
    stage.sink.clear()
    await stage.peer.trip(INDEX)
    began = trio.current_time()
    await stage.until(lambda: told(stage) and told(stage)[-1][0])
    assert trio.current_time() - began == pytest.approx(5, abs=0.2)
    assert stage.peer.trade.asked("private/reset_mmp") == [{"index_name": INDEX}]
    assert stage.sink.named("protection.reset")


async def test_a_freeze_found_at_login_is_not_lifted_by_setting(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.mmp[INDEX] = STANDS | {"interval": 1}
    stage.peer.frozen[INDEX] = 0
    stage.deribit.protect([WANTED])
    await stage.start(BTC)
    assert not stage.peer.trade.asked("private/set_mmp_config")
    assert told(stage) == [(False, "frozen until it is reset; interval is 1, wanted 5")]
    assert len(stage.sink.of(ProtectionTripped)) == 1
    await stage.deribit.reset_protection("BTC")
    assert told(stage)[-1] == (True, "as configured")
    assert stage.peer.mmp[INDEX] == STANDS


@pytest.mark.parametrize("how", ["news", "answer", "refusal"])
async def test_a_freeze_is_seen_in_the_fate_of_orders(autojump_clock: Clock, stage: Stage, how: str) -> None:
    await protected(stage)
    stage.sink.clear()
    stage.peer.frozen[INDEX] = 0
    pulled = order(order_state="cancelled", mmp_cancelled=True)
    if how == "news":
        await tell(stage, [pulled])
    elif how == "answer":
        stage.peer.on("private/buy", {"order": pulled, "trades": []})
        await send(stage, PLACE)
    else:
        stage.peer.on("private/buy", Refuse(13030, "mmp_trigger"))
        await send(stage, PLACE)
        assert stage.sink.of(OrderRefused)[0].code == "mmp_trigger"
    assert len(stage.sink.of(ProtectionTripped, BTC)) == 1
    suspected, confirmed = told(stage)
    assert not suspected[0] and suspected[1].endswith("whether it is frozen is asked")
    assert confirmed == (False, "frozen until it is reset")


async def test_a_trigger_during_a_look_is_not_taken_back(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()

    async def status(wire: Wire, params: dict[str, Any]) -> Any:
        await stage.peer.trip(INDEX)
        stage.peer.on("private/get_mmp_status", [{"index_name": INDEX, "frozen_until": 0}])
        return []

    stage.peer.on("private/get_mmp_status", status)
    await trio.sleep(61)
    assert len(stage.sink.of(ProtectionTripped)) == 1
    assert told(stage) == [(False, "frozen until it is reset")]


@pytest.mark.parametrize("fields", [{"mmp_group": "bot"}, {"block_rfq": True}, {"frozen_until": 1}])
async def test_a_trigger_of_something_else_is_none(autojump_clock: Clock, stage: Stage, fields: dict[str, Any]) -> None:
    await protected(stage)
    data = {"index_name": INDEX, "frozen_until": 0} | fields
    await stage.peer.trade.notify(f"user.mmp_trigger.{INDEX}", data)
    await stage.settle()
    assert not stage.sink.of(ProtectionTripped)


async def test_an_account_that_lost_the_right_is_told(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.sink.clear()
    for method in ("private/buy", "private/get_mmp_config", "private/get_mmp_status"):
        stage.peer.on(method, Refuse(13040, "mmp_required"))
    await send(stage, PLACE)
    assert told(stage)[0][0] is False
    assert "mmp_required" in told(stage)[0][1]
    assert not stage.deribit.protections[0].armed


# --- orders --------------------------------------------------------------------------------------


async def test_orders_carry_the_flag(autojump_clock: Clock, stage: Stage) -> None:
    await protected(stage)
    stage.peer.on("private/buy", {"order": order(), "trades": []})
    stage.peer.on("private/edit", {"order": order(), "trades": []})
    stage.peer.on("private/sell", {"order": order(order_state="cancelled", direction="sell"), "trades": []})
    await send(stage, PLACE)
    await send(stage, AMEND)
    await send(stage, ReduceOrder(f"{BID}0", Side.ASK, 200, 1))
    wire = stage.peer.trade
    assert wire.asked("private/buy")[0]["mmp"] is True
    assert wire.asked("private/edit")[0]["mmp"] is True
    assert "mmp" not in wire.asked("private/sell")[0]
    stage.deribit.protect([])
    await send(stage, AMEND)  # the order has it: an edit must say so
    assert wire.asked("private/edit")[1]["mmp"] is True
    await send(stage, PlaceOrder(f"{BID}1", Side.BID, 200, 5))
    assert "mmp" not in wire.asked("private/buy")[1]


async def test_an_order_without_the_flag_is_cancelled_instead_of_amended(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.on("private/buy", {"order": order(), "trades": []})
    stage.peer.on("private/cancel", order(order_state="cancelled", cancel_reason="user_request"))
    await send(stage, PLACE)
    assert "mmp" not in stage.peer.trade.asked("private/buy")[0]
    stage.deribit.protect([WANTED])
    await stage.settle()
    stage.sink.clear()
    await send(stage, AMEND)
    assert stage.peer.trade.asked("private/cancel") == [{"order_id": "o1"}]
    assert kinds(stage) == [OrderClosed]
    assert stage.sink.named("order.unprotected")
    await send(stage, CancelOrder(BID, "o1", Side.BID), PLACE)
    assert stage.peer.trade.asked("private/buy")[-1]["mmp"] is True
    assert len(stage.sink.of(OrderAcked)) == 0  # this label was closed before


# --- cancel on disconnect ------------------------------------------------------------------------


async def test_cancel_on_disconnect_is_read_every_minute(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    await trio.sleep(125)
    assert len(stage.peer.trade.asked("private/get_cancel_on_disconnect")) == 3
    assert len(stage.peer.trade.asked("private/enable_cancel_on_disconnect")) == 1


async def test_cancel_on_disconnect_that_was_switched_off_is_armed_again(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    state = {"scope": "connection", "enabled": False}
    stage.peer.on("private/get_cancel_on_disconnect", lambda wire, params: dict(state))

    def enable(wire: Wire, params: dict[str, Any]) -> str:
        state["enabled"] = True
        return "ok"

    stage.peer.on("private/enable_cancel_on_disconnect", enable)
    await stage.until(lambda: stage.sink.named("exchange.cod_rearmed"), seconds=62)
    assert not stage.sink.of(TradeLinkDown)


@pytest.mark.parametrize("answer", [{"scope": "connection", "enabled": False}, Refuse(10049, "failed"), SILENT, {}])
async def test_cancel_on_disconnect_that_cannot_be_proven_costs_the_link(
    autojump_clock: Clock, stage: Stage, answer: Any
) -> None:
    await started(stage)
    stage.peer.on("private/get_cancel_on_disconnect", answer)
    await stage.until(lambda: stage.sink.of(TradeLinkDown), seconds=75)
    assert stage.sink.named("exchange.cod_lost")
    stage.peer.on("private/get_cancel_on_disconnect", {"scope": "connection", "enabled": True})
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC)[-1].cancel_on_disconnect)


async def test_what_was_never_armed_is_not_watched(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("private/get_cancel_on_disconnect", {"scope": "connection", "enabled": False})
    await started(stage)
    await trio.sleep(125)
    assert not stage.sink.of(TradeLinkDown)
