"""Over the wire: orders that must trade at once, maker protection, funding, settlement, delivery, self trades."""

from decimal import Decimal

import pytest
import trio
from static_market import EXPIRY_MS, LINEAR, OPTION, PERP, START_MS, D
from ws_client import CallFailed, running

from mmd.sandbox import funding
from mmd.sandbox.funding import received
from mmd.sandbox.levers import AGGRESSOR
from mmd.sandbox.limits import Budgets
from mmd.sandbox.model import Direction, InstrumentState

BUY, SELL = Direction.BUY, Direction.SELL
LOG = {"currency": "BTC", "start_timestamp": 0, "end_timestamp": EXPIRY_MS + 86_400_000}
MMP = {"index_name": "btc_usd", "interval": 5, "frozen_time": 0, "max_quote_quantity": 50}
BID = {"instrument_name": PERP, "amount": 100, "price": 79990.0, "post_only": True, "label": "bid"}


async def maker(house, *channels, account="maker"):
    client = await house.client()
    await client.login(account)
    if channels:
        assert len(await client.call("private/subscribe", channels=list(channels))) == len(channels)
    return client


async def refused(client, method, **params):
    with pytest.raises(CallFailed) as caught:
        await client.call(method, **params)
    return caught.value


# --- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_in_force", "amount", "filled", "state"),
    [
        pytest.param("immediate_or_cancel", 1000, 800, "cancelled", id="ioc takes what is there, the rest is gone"),
        pytest.param("immediate_or_cancel", 500, 500, "filled", id="ioc filled"),
        pytest.param("fill_or_kill", 1000, 0, "cancelled", id="fok not at all"),
        pytest.param("fill_or_kill", 800, 800, "filled", id="fok whole"),
        pytest.param("good_til_cancelled", 1000, 800, "open", id="gtc rests"),
    ],
)
async def test_time_in_force(autojump_clock, time_in_force, amount, filled, state):
    async with running() as house:
        client = await maker(house)
        done = await client.call(
            "private/buy", instrument_name=PERP, amount=amount, price=80000.5, time_in_force=time_in_force
        )
        assert (done["order"]["order_state"], done["order"]["filled_amount"]) == (state, filled)
        assert sum(trade["amount"] for trade in done["trades"]) == filled
        assert done["order"]["time_in_force"] == time_in_force
        assert len(await client.call("private/get_open_orders")) == (1 if state == "open" else 0)


async def test_market_orders_take_no_time_in_force_and_no_protection(autojump_clock):
    async with running() as house:
        client = await maker(house)
        for extra in ({"time_in_force": "immediate_or_cancel"}, {"mmp": True}):
            failed = await refused(client, "private/buy", instrument_name=PERP, amount=10, type="market", **extra)
            assert (failed.code, failed.data["param"]) == (-32602, next(iter(extra)))


async def test_reduce_only_never_flips(autojump_clock):
    async with running() as house:
        client = await maker(house)
        closing = {"instrument_name": PERP, "amount": 500, "price": 80000.0, "reduce_only": True}
        assert (await refused(client, "private/sell", **closing)).code == 11030
        await client.call("private/buy", instrument_name=PERP, amount=100, type="market")
        assert (await refused(client, "private/buy", **closing)).code == 11030
        done = await client.call("private/sell", **(closing | {"time_in_force": "immediate_or_cancel"}))
        assert (done["order"]["amount"], done["order"]["filled_amount"]) == (100, 100)
        assert done["trades"][0]["reduce_only"] is True
        assert house.levers.position("maker", PERP) == 0


async def test_an_edit_of_a_reduce_only_order_does_not_flip(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=100, type="market")
        resting = await client.call("private/sell", instrument_name=PERP, amount=100, price=80010.0, reduce_only=True)
        order_id = resting["order"]["order_id"]
        done = await client.call("private/edit", order_id=order_id, amount=700, price=80000.0)
        assert (done["order"]["amount"], done["order"]["order_state"]) == (100, "filled")
        assert house.levers.position("maker", PERP) == 0


async def test_a_reduce_only_order_without_a_position_left_is_cancelled(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=100, type="market")
        resting = await client.call("private/sell", instrument_name=PERP, amount=100, price=80010.0, reduce_only=True)
        await client.call("private/sell", instrument_name=PERP, amount=100, type="market")
        done = await client.call("private/edit", order_id=resting["order"]["order_id"], amount=100, price=80009.0)
        assert (done["order"]["order_state"], done["order"]["cancel_reason"]) == ("cancelled", "reduce_only")


# --- maker protection ----------------------------------------------------------------------------


async def test_protection_end_to_end(autojump_clock):
    async with running() as house:
        client = await maker(house, "user.mmp_trigger.btc_usd", "user.orders.option.BTC.raw")
        config = MMP | {"frozen_time": 10, "quantity_limit": 2, "delta_limit": 1.5}
        assert await client.call("private/set_mmp_config", **config) == config
        assert await client.call("private/get_mmp_config", index_name="btc_usd") == [config]
        assert await client.call("private/get_mmp_config", index_name="eth_usdc") == []
        for price in (0.0041, 0.0042):
            guarded = await client.call(
                "private/buy", instrument_name=OPTION, amount=2, price=price, mmp=True, label=f"{price}"
            )
            assert guarded["order"]["mmp"] is True
        await client.call("private/buy", instrument_name=OPTION, amount=2, price=0.004, label="plain")
        elsewhere = {"instrument_name": LINEAR, "amount": 1, "price": 2990.0, "mmp": True}
        await client.call("private/buy", **elsewhere)
        for _ in range(3):
            await client.note("user.orders.option.BTC.raw")
        house.levers.fill_quote("maker", OPTION, BUY)
        frozen_until = START_MS + 10_000 + (await client.call("public/get_time") - START_MS)
        told = await client.note("user.mmp_trigger.btc_usd")
        assert told == {"index_name": "btc_usd", "frozen_until": pytest.approx(frozen_until, abs=100)}
        states = {}
        for _ in range(2):
            order = await client.note("user.orders.option.BTC.raw")
            states[order["label"]] = (order["order_state"], order.get("cancel_reason"), order.get("mmp_cancelled"))
        assert states == {"0.0042": ("filled", None, None), "0.0041": ("cancelled", "mmp_trigger", True)}
        assert {order["label"] for order in await client.call("private/get_open_orders")} == {"plain", ""}
        assert (await client.call("private/get_mmp_status", index_name="btc_usd")) == [told]
        again = {"instrument_name": OPTION, "amount": 1, "price": 0.0041, "mmp": True}
        failed = await refused(client, "private/buy", **again)
        assert (failed.code, failed.message) == (13030, "mmp_trigger")
        await client.call("private/buy", **elsewhere)  # another index is not frozen
        await trio.sleep(10)
        await client.call("private/buy", **again)
        assert await client.call("private/get_mmp_status") == []


@pytest.mark.parametrize(
    ("limit", "amounts"),
    [
        pytest.param({"delta_limit": 0.2}, ["1.0", "1.0"], id="delta: option delta less its mark price"),
        pytest.param({"vega_limit": 80}, ["1.0", "1.0"], id="vega in USD"),
        pytest.param({"quantity_limit": 1.5}, ["1.0", "0.5"], id="quantity in coins, gross"),
    ],
)
async def test_each_limit_trips_with_the_last_fill(autojump_clock, limit, amounts):
    async with running() as house:
        client = await maker(house, "user.mmp_trigger.all")
        await client.call("private/set_mmp_config", **(MMP | {"interval": 60} | limit))
        await client.call("private/buy", instrument_name=OPTION, amount=5, price=0.0041, mmp=True)
        for amount in amounts[:-1]:
            house.levers.fill_quote("maker", OPTION, BUY, D(amount))
        assert await client.call("private/get_mmp_status") == []
        house.levers.fill_quote("maker", OPTION, BUY, D(amounts[-1]))
        assert await client.note("user.mmp_trigger.all") == {"index_name": "btc_usd", "frozen_until": 0}
        await trio.sleep(3600)
        client = await maker(house)
        assert len(await client.call("private/get_mmp_status")) == 1  # 0: until reset
        assert await client.call("private/reset_mmp", index_name="btc_usd") == "ok"
        assert await client.call("private/get_mmp_status") == []


async def test_protection_belongs_to_one_account(autojump_clock):
    async with running() as house:
        one, other = await maker(house), await maker(house, account="other")
        for client in (one, other):
            await client.call("private/set_mmp_config", **MMP)
            await client.call("private/buy", **(BID | {"mmp": True}))
        house.levers.trip_protection("maker", "btc_usd")
        assert await one.call("private/get_open_orders") == []
        assert len(await other.call("private/get_open_orders")) == 1
        assert await other.call("private/get_mmp_status") == []


async def test_setting_a_config_resets_and_interval_0_deletes(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/set_mmp_config", **MMP)
        house.levers.trip_protection("maker", "btc_usd")
        assert (await refused(client, "private/buy", **(BID | {"mmp": True}))).code == 13030
        await client.call("private/set_mmp_config", **MMP)
        await client.call("private/buy", **(BID | {"mmp": True}))
        await client.call("private/set_mmp_config", index_name="btc_usd", interval=0, frozen_time=0)
        assert await client.call("private/get_mmp_config") == []
        with pytest.raises(ValueError, match="no protection"):
            house.levers.trip_protection("maker", "btc_usd")


async def test_the_quoted_size_is_capped(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/set_mmp_config", **(MMP | {"max_quote_quantity": 3}))
        bid = {"instrument_name": OPTION, "amount": 2, "price": 0.0041, "mmp": True}
        placed = await client.call("private/buy", **bid)
        failed = await refused(client, "private/buy", **bid)
        assert (failed.code, failed.message) == (11030, "other_reject max_quote_quantity")
        await client.call("private/sell", **(bid | {"price": 0.006}))  # each side has its own room
        order_id = placed["order"]["order_id"]
        assert (await refused(client, "private/edit", order_id=order_id, amount=4, price=0.0041)).code == 11030
        await client.call("private/edit", order_id=order_id, amount=3, price=0.0041)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("private/set_mmp_config", MMP),
        ("private/get_mmp_config", {}),
        ("private/get_mmp_status", {}),
        ("private/reset_mmp", {"index_name": "btc_usd"}),
        ("private/buy", BID | {"mmp": True}),
    ],
)
async def test_without_the_right_there_is_no_protection(autojump_clock, method, params):
    async with running(without_mmp=frozenset({"maker"})) as house:
        client = await maker(house)
        failed = await refused(client, method, **params)
        assert (failed.code, failed.message) == (13040, "mmp_required")
        summary = await client.call("private/get_account_summary", currency="BTC", extended=True)
        assert summary["mmp_enabled"] is False
        house.levers.grant_protection("maker", True)
        await client.call(method, **params)


async def test_wrong_protection_settings(autojump_clock):
    async with running() as house:
        client = await maker(house)
        for wrong in (
            {"quantity_limit": 0.00001},
            {"delta_limit": -1},
            {"index_name": "xyz"},
            {"interval": -1},
            {"max_quote_quantity": None},
        ):
            failed = await refused(client, "private/set_mmp_config", **(MMP | wrong))
            assert (failed.code, failed.data["param"]) == (-32602, next(iter(wrong)))


# --- funding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "index", "rate", "hours", "gain"),
    [
        pytest.param(PERP, "8000", "80000", "0.0001", 8, "-0.00001", id="a long pays, inverse: in coin"),
        pytest.param(PERP, "-8000", "80000", "0.0001", 4, "0.000005", id="a short receives, by time"),
        pytest.param(PERP, "8000", "80000", "-0.0001", 8, "0.00001", id="a negative rate pays longs"),
        pytest.param(LINEAR, "2", "3000", "0.0001", 8, "-0.6", id="linear: in the quote currency"),
        pytest.param(PERP, "8000", "0", "0.0001", 8, "0", id="no index, no funding"),
    ],
)
async def test_what_a_position_receives(name, size, index, rate, hours, gain, autojump_clock):
    async with running() as house:
        found = received(house.engine.instrument(name), D(size), D(index), D(rate), hours * 3_600_000)
        assert found == D(gain)


def test_the_rate_is_capped():
    assert funding.capped(D("0.02")) == D("0.005")
    assert funding.capped(D("-0.02")) == D("-0.005")


def set_rate(house, rate):
    engine = house.engine
    old = engine.floor.listing(PERP).reference
    changed = type(old)(
        mark_price=old.mark_price,
        index_price=old.index_price,
        min_price=old.min_price,
        max_price=old.max_price,
        current_funding=rate,
        funding_8h=rate,
    )
    engine.set_reference(PERP, changed, house.sandbox.now_ms)


async def test_funding_accrues_into_the_session_and_is_paid_at_eight(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=800, type="market")
        set_rate(house, 0.004)
        house.sandbox.market.period_ms = 60_000
        await trio.sleep(3600)
        client = await maker(house)
        position = await client.call("private/get_position", instrument_name=PERP)
        hourly = -Decimal(800) / 80000 * D("0.0005")
        assert position["realized_funding"] == pytest.approx(float(hourly), rel=0.03)
        before = await client.call("private/get_account_summary", currency="BTC")
        assert before["session_rpl"] == pytest.approx(float(hourly), rel=0.03)
        assert before["equity"] == pytest.approx(before["balance"] + before["session_rpl"] + before["session_upl"])
        house.levers.settle()
        after = await client.call("private/get_account_summary", currency="BTC")
        assert after["session_rpl"] == pytest.approx(0, abs=1e-8)
        assert after["equity"] == pytest.approx(before["equity"], abs=2e-8)
        row, traded = (await client.call("private/get_transaction_log", **LOG))["logs"]
        assert (row["type"], row["instrument_name"], row["side"], row["position"]) == ("settlement", PERP, "long", 800)
        assert row["interest_pl"] == pytest.approx(float(hourly), rel=0.03)
        assert row["change"] == pytest.approx(row["interest_pl"] + row["session_rpl"] + row["session_upl"], abs=2e-8)
        assert (traded["type"], traded["interest_pl"]) == ("trade", 0)
        assert (await client.call("private/get_position", instrument_name=PERP))["realized_funding"] == 0


async def test_funding_can_be_paid_faster(autojump_clock):
    async with running(funding_seconds=600.0) as house:
        client = await maker(house)
        set_rate(house, 0.02)  # capped at 0.005
        await client.call("private/sell", instrument_name=PERP, amount=1000, type="market")
        start = house.levers.wallet("maker", "BTC").balance
        await trio.sleep(1801)
        client = await maker(house)
        rows = [row for row in house.levers.transactions("maker") if row.kind == "settlement"]
        assert len(rows) == 3
        total = sum(row.interest_pl for row in rows)
        assert float(total) == pytest.approx(1000 / 80000 * 0.005 * 1800 / 28800, rel=0.01)
        assert house.levers.wallet("maker", "BTC").balance == start + total
        history = await client.call("private/get_settlement_history_by_instrument", instrument_name=PERP)
        assert [row["funding"] for row in history["settlements"]] == [float(row.interest_pl) for row in reversed(rows)]


async def test_funding_at_will(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=800, type="market")
        house.levers.pay_funding(PERP, D("0.001"), hours=16)
        row = (await client.call("private/get_transaction_log", query="settlement", **LOG))["logs"][0]
        assert row["interest_pl"] == row["change"] == pytest.approx(-0.00002)
        with pytest.raises(ValueError, match="no perpetual"):
            house.levers.pay_funding(OPTION, D("0.001"))


# --- the log -------------------------------------------------------------------------------------


async def test_rows_of_the_log(autojump_clock):
    async with running() as house:
        client = await maker(house)
        done = await client.call("private/buy", instrument_name=PERP, amount=800, type="market")
        await client.call("private/buy", instrument_name=OPTION, amount=2, price=0.005)
        option, perpetual = (await client.call("private/get_transaction_log", **LOG))["logs"]
        assert perpetual["trade_id"] == done["trades"][0]["trade_id"]
        assert perpetual["order_id"] == done["order"]["order_id"]
        assert (perpetual["side"], perpetual["amount"], perpetual["contracts"]) == ("open buy", 800, 80)
        assert (perpetual["user_role"], perpetual["price_currency"], perpetual["currency"]) == ("taker", "USD", "BTC")
        assert perpetual["change"] == -perpetual["commission"] == -0.000005
        assert (perpetual["user_seq"], option["user_seq"]) == (1, 2)
        assert option["cashflow"] == -0.01
        assert option["change"] == pytest.approx(-0.0106)
        assert "interest_pl" not in option
        summary = await client.call("private/get_account_summary", currency="BTC")
        assert option["balance"] == summary["balance"]


async def test_paging_through_the_log_while_it_grows(autojump_clock):
    async with running(budgets=Budgets(enforced=False)) as house:
        client = await maker(house)
        for _ in range(7):
            await client.call("private/buy", instrument_name=PERP, amount=10, type="market")
        seen, after = [], None
        while True:
            more = {} if after is None else {"continuation": after}
            page = await client.call("private/get_transaction_log", count=3, **LOG, **more)
            seen += [row["id"] for row in page["logs"]]
            after = page["continuation"]
            if after is None:
                break
            await client.call("private/buy", instrument_name=PERP, amount=10, type="market")
        assert len(seen) == len(set(seen)) == 7
        assert seen == sorted(seen, reverse=True)
        wanted = await client.call("private/get_transaction_log", query="maker", **LOG)
        assert wanted["logs"] == []


async def test_paging_through_settlements(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=800, type="market")
        for _ in range(5):
            house.levers.pay_funding(PERP, D("0.001"))
        seen, after = [], "none"
        while True:
            page = await client.call(
                "private/get_settlement_history_by_currency", currency="BTC", count=2, continuation=after
            )
            seen += page["settlements"]
            after = page["continuation"]
            if after == "none":
                break
        assert [row["funding"] for row in seen] == [-0.00001] * 5


# --- delivery ------------------------------------------------------------------------------------


async def test_delivery_ends_the_position_in_cash(autojump_clock):
    async with running() as house:
        channels = ("user.changes.option.BTC.raw", "user.portfolio.btc", "instrument.state.option.BTC")
        client = await maker(house, *channels)
        await client.call("private/buy", instrument_name=OPTION, amount=2, price=0.005)
        await client.call("private/buy", instrument_name=OPTION, amount=1, price=0.003)
        for _ in range(2):
            await client.note(channels[0])
        before = await client.call("private/get_account_summary", currency="BTC")
        house.levers.expire(OPTION, D("100000"))
        assert [(await client.note(channels[2]))["state"] for _ in range(2)] == ["settlement", "delivered"]
        cancelled, ended = await client.note(channels[0]), await client.note(channels[0])
        assert cancelled["orders"][0]["cancel_reason"] == "settlement"
        assert [(row["direction"], row["size"]) for row in ended["positions"]] == [("zero", 0)]
        after = await client.call("private/get_account_summary", currency="BTC")
        assert after["balance"] - before["balance"] == pytest.approx(0.2)  # 2 x (100000 - 90000) / 100000
        await trio.sleep(1.5)
        while (portfolio := await client.note("user.portfolio.btc"))["balance"] != after["balance"]:
            assert portfolio["balance"] in (100.0, before["balance"])
        row = (await client.call("private/get_transaction_log", query="delivery", **LOG))["logs"][0]
        assert (row["side"], row["amount"], row["position"], row["price"]) == ("long", 2, 0, 100000)
        assert row["change"] == pytest.approx(0.2)
        house.levers.expire(OPTION, D("120000"))
        assert house.levers.wallet("maker", "BTC").balance == D(str(after["balance"]))
        assert house.engine.floor.listing(OPTION).state is InstrumentState.DELIVERED


# --- self trades ---------------------------------------------------------------------------------


async def test_a_self_trade_shows_both_sides_with_one_id(autojump_clock):
    async with running() as house:
        client = await maker(house, f"user.trades.{PERP}.raw", f"user.changes.{PERP}.raw")
        inside = {"instrument_name": PERP, "amount": 100, "price": 80000.5}
        await client.call("private/buy", instrument_name=PERP, amount=800, price=80000.5)
        await client.call("private/sell", **inside)
        assert (await refused(client, "private/buy", **inside)).code == 10003
        house.levers.allow_self_trades("maker")
        done = await client.call("private/buy", **inside, time_in_force="fill_or_kill", label="taker")
        assert [trade["self_trade"] for trade in done["trades"]] == [True]
        assert [trade["label"] for trade in done["trades"]] == ["taker"]
        rows = (await client.call("private/get_user_trades_by_instrument", instrument_name=PERP))["trades"]
        pair = [row for row in rows if row["self_trade"]]
        assert {row["direction"] for row in pair} == {"buy", "sell"}
        assert {row["liquidity"] for row in pair} == {"M", "T"}
        assert len({row["trade_id"] for row in pair}) == 1
        await client.note(f"user.trades.{PERP}.raw")
        assert [row["trade_id"] for row in await client.note(f"user.trades.{PERP}.raw")] == [pair[0]["trade_id"]] * 2
        assert house.levers.position("maker", PERP) == 800
        ids = [row.row_id for row in house.levers.transactions("maker")]
        assert len(ids) == len(set(ids)) == 3


async def test_the_mode_on_the_wire_is_one_of_deribits(autojump_clock):
    async with running() as house:
        client = await maker(house)
        assert (await refused(client, "private/set_self_trading_config", mode="allow")).code == -32602
        assert await client.call("private/set_self_trading_config", mode="cancel_maker") == "ok"
        summary = await client.call("private/get_account_summary", currency="BTC", extended=True)
        assert summary["self_trading_reject_mode"] == "cancel_maker"


async def test_a_self_trade_at_will(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/sell", instrument_name=LINEAR, amount=1, price=3000.05)
        pair = house.levers.self_trade("maker", LINEAR, BUY, D("1"))
        assert [(trade.direction, trade.self_trade) for trade in pair] == [(SELL, True), (BUY, True)]
        assert len({trade.trade_id for trade in pair}) == 1
        assert house.levers.position("maker", LINEAR) == 0
        await client.call("private/sell", instrument_name=LINEAR, amount=1, price=3000.05)
        again = {"instrument_name": LINEAR, "amount": 1, "price": 3000.05}
        assert (await refused(client, "private/buy", **again)).code == 10003  # prevention is back
        assert house.levers.trades(AGGRESSOR) == []
