"""Every lever, pulled, and seen by a client over the real protocol."""

import pytest
import trio
from static_market import LINEAR, OPTION, PERP, START_MS, D
from ws_client import CallFailed, running

from mmd.sandbox.faults import FillFault
from mmd.sandbox.levers import AGGRESSOR, ORDERS
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.orders import OrderState, Refused

BUY, SELL = Direction.BUY, Direction.SELL
BID = {"instrument_name": PERP, "amount": 100, "price": 80000.0, "post_only": True, "label": "bid"}
TRADES, CHANGES, ORDERS_CHANNEL = f"user.trades.{PERP}.raw", f"user.changes.{PERP}.raw", f"user.orders.{PERP}.raw"


async def maker(house, *channels, account="maker"):
    client = await house.client()
    await client.login(account)
    if channels:
        assert len(await client.call("private/subscribe", channels=list(channels))) == len(channels)
    return client


async def bid(client, **changes):
    return (await client.call("private/buy", **(BID | changes)))["order"]["order_id"]


async def code_of(client, method, **params):
    with pytest.raises(CallFailed) as caught:
        await client.call(method, **params)
    return caught.value.code


async def unanswered(client, request_id, seconds):
    await trio.sleep(seconds)
    return request_id not in client.answers


# --- clock ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [pytest.param(5_000, id="ahead"), pytest.param(-5_000, id="behind")])
async def test_a_wrong_clock_shows_everywhere_and_stops_nothing(autojump_clock, offset):
    async with running() as house:
        client = await maker(house, f"ticker.{PERP}.100ms")
        house.levers.shift_clock(offset)
        right = house.sandbox.clock.true_ms
        assert await client.call("public/get_time") == pytest.approx(right + offset, abs=5)
        assert client.log[-1]["usIn"] // 1000 == pytest.approx(right + offset, abs=5)
        placed = await client.call("private/buy", instrument_name=PERP, amount=10, type="market")
        assert placed["order"]["creation_timestamp"] == pytest.approx(right + offset, abs=5)
        assert placed["trades"][0]["timestamp"] == pytest.approx(right + offset, abs=5)
        steps = house.sandbox.market.steps
        await trio.sleep(3)
        assert house.sandbox.market.steps >= steps + 2
        await trio.sleep(0.2)
        client.inbox.clear()
        house.levers.jump(PERP, 1)
        told = await client.note(f"ticker.{PERP}.100ms")
        assert told["timestamp"] == pytest.approx(house.sandbox.clock.true_ms + offset, abs=200)
        house.levers.shift_clock(0)
        assert await client.call("public/get_time") == pytest.approx(house.sandbox.clock.true_ms, abs=5)


# --- instruments and platform --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lever", "state", "order_code", "cancel_code"),
    [
        pytest.param("halt", "halted", 10012, 10012, id="halted: not even cancels"),
        pytest.param("lock", "locked", 10019, None, id="locked: cancels pass"),
    ],
)
async def test_halt_lock_and_reopen(autojump_clock, lever, state, order_code, cancel_code):
    async with running() as house:
        client = await maker(house, "instrument.state.future.BTC")
        order_id = await bid(client)
        getattr(house.levers, lever)(PERP)
        told = await client.note("instrument.state.future.BTC")
        assert (told["state"], told["instrument_name"]) == (state, PERP)
        assert await code_of(client, "private/buy", **BID) == order_code
        assert await code_of(client, "private/edit", order_id=order_id, amount=50, price=80000.0) == order_code
        if cancel_code is None:
            await client.call("private/cancel", order_id=order_id)
        else:
            assert await code_of(client, "private/cancel", order_id=order_id) == cancel_code
            assert [order.order_id for order in house.levers.open_orders("maker")] == [order_id]
        house.levers.reopen(PERP)
        assert (await client.note("instrument.state.future.BTC"))["state"] == "open"
        await bid(client)


async def test_a_locked_platform(autojump_clock):
    async with running() as house:
        client = await maker(house, "platform_state")
        order_id = await bid(client)
        house.levers.lock_platform("btc_usd")
        assert await client.note("platform_state") == {"price_index": "btc_usd", "locked": True}
        assert await client.call("public/status") == {"locked": "partial", "locked_indices": ["btc_usd"]}
        assert await code_of(client, "private/buy", **BID) == 10019
        await client.call("private/buy", instrument_name=LINEAR, amount=1, price=2990.0)
        await client.call("private/cancel", order_id=order_id)
        house.levers.lock_platform()
        assert (await client.call("public/status"))["locked"] == "true"
        house.levers.unlock_platform()
        assert await client.call("public/status") == {"locked": "false", "locked_indices": []}
        await bid(client)
        with pytest.raises(ValueError, match="no index"):
            house.levers.lock_platform("abc_usd")


async def test_maintenance(autojump_clock):
    async with running() as house:
        client = await maker(house, "platform_state")
        house.levers.begin_maintenance()
        assert await client.note("platform_state") == {"maintenance": True}
        assert await code_of(client, "private/buy", **BID) == 11051
        house.levers.end_maintenance()
        await bid(client)


async def test_any_state(autojump_clock):
    async with running() as house:
        client = await maker(house, "instrument.state.option.BTC")
        house.levers.set_state(OPTION, InstrumentState.SETTLEMENT)
        assert (await client.note("instrument.state.option.BTC"))["state"] == "settlement"
        assert await code_of(client, "private/buy", instrument_name=OPTION, amount=1, price=0.003) == 10041
        with pytest.raises(Refused):
            house.levers.halt("NO-SUCH")


# --- answers and requests ------------------------------------------------------------------------


async def test_a_lost_answer_to_an_order_that_rests(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.lose_answers()
        lost = await client.send("private/buy", **BID)
        await client.call("public/get_time")  # other requests are answered
        assert await unanswered(client, lost, 60)
        assert [order.label for order in house.levers.open_orders("maker", PERP)] == ["bid"]
        await bid(client, label="next")


async def test_a_lost_request_changes_nothing(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.lose_requests(1, "private/sell")
        lost = await client.send("private/sell", **(BID | {"price": 80001.0}))
        await bid(client)
        assert await unanswered(client, lost, 60)
        assert len(house.levers.open_orders("maker")) == 1


async def test_the_answer_of_a_held_order_can_be_lost(autojump_clock):
    async with running(speed_bump_ms=10) as house:
        client = await maker(house)
        house.levers.lose_answers()
        lost = await client.send("private/buy", instrument_name=LINEAR, amount=1, price=3000.1)
        assert await unanswered(client, lost, 60)
        assert house.levers.position("maker", LINEAR) == 1


async def test_late_answers_and_late_requests(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.delay_answers(1, 3_000)
        late = await client.send("private/buy", **BID)
        assert await unanswered(client, late, 2.9)
        assert len(house.levers.open_orders("maker")) == 1
        order_id = (await client.answer(late))["order"]["order_id"]
        house.levers.delay_requests(1, 3_000, "private/cancel")
        late = await client.send("private/cancel", order_id=order_id)
        assert await unanswered(client, late, 2.9)
        assert len(house.levers.open_orders("maker")) == 1
        assert (await client.answer(late))["order_state"] == "cancelled"
        assert house.levers.open_orders("maker") == []


async def test_a_late_request_is_lost_where_the_clock_was_set_back_meanwhile(autojump_clock):
    """Else one whose time was over would be carried out after all."""
    async with running() as house:
        client = await maker(house)
        house.levers.delay_requests(1, 3_000)
        late = await client.send("private/buy", **BID)
        assert await unanswered(client, late, 2)
        house.levers.shift_clock(-2_000)
        assert await unanswered(client, late, 5)
        assert house.levers.open_orders("maker") == []


async def test_refused_orders(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.refuse_orders(3, 10009, "not_enough_funds")
        assert [await code_of(client, "private/buy", **BID) for _ in range(3)] == [10009] * 3
        order_id = await bid(client)
        house.levers.refuse_orders(None, methods=ORDERS)
        assert [await code_of(client, "private/buy", **BID) for _ in range(5)] == [11030] * 5
        await client.call("private/edit", order_id=order_id, amount=50, price=80000.0)
        house.levers.disarm()
        await bid(client)


async def test_refused_cancels(autojump_clock):
    async with running() as house:
        client = await maker(house)
        order_id = await bid(client)
        house.levers.refuse_cancels(1)
        assert await code_of(client, "private/cancel", order_id=order_id) == 10012
        house.levers.refuse_cancels(None, 11094, "internal_server_error")
        for method, params in (
            ("private/cancel", {"order_id": order_id}),
            ("private/cancel_all", {}),
            ("private/cancel_by_label", {"label": "bid"}),
        ):
            assert await code_of(client, method, **params) == 11094
        assert len(house.levers.open_orders("maker")) == 1
        house.levers.disarm()
        await client.call("private/cancel", order_id=order_id)


@pytest.mark.parametrize("code", [pytest.param(10004, id="not found"), 11044, pytest.param(0, id="the engine's own")])
async def test_a_fill_wins_the_race_against_its_cancel(autojump_clock, code):
    async with running() as house:
        client = await maker(house, TRADES)
        order_id, other = await bid(client), await bid(client, label="other", price=79999.0)
        house.levers.fill_before_cancels(1, code)
        assert await code_of(client, "private/cancel", order_id=order_id) == (code or 11008)
        assert [trade["order_id"] for trade in await client.note(TRADES)] == [order_id]
        assert house.levers.position("maker", PERP) == 100
        assert (await client.call("private/cancel", order_id=other))["order_state"] == "cancelled"


async def test_a_fill_wins_the_race_against_a_mass_cancel(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await bid(client)
        await bid(client, label="other", price=79999.0)
        house.levers.fill_before_cancels(2)
        assert await client.call("private/cancel_by_label", label="bid") == 0
        assert await client.call("private/cancel_all_by_instrument", instrument_name=PERP) == 0
        assert house.levers.position("maker", PERP) == 200


async def test_a_fill_wins_the_race_against_an_edit(autojump_clock):
    async with running() as house:
        client = await maker(house)
        order_id = await bid(client)
        house.sandbox.faults.race(1, method="private/edit", steps=3)
        edited = await client.call("private/edit", order_id=order_id, amount=100, price=79999.0)
        assert (edited["order"]["filled_amount"], house.levers.position("maker", PERP)) == (30, 30)


@pytest.mark.parametrize("arm", ["lose_answers", "refuse_orders", "repeat_fills"])
async def test_counts_are_at_least_one(autojump_clock, arm):
    async with running() as house:
        with pytest.raises(ValueError, match="at least 1"):
            getattr(house.levers, arm)(0)


# --- fills ---------------------------------------------------------------------------------------


async def test_a_fill_told_twice(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES, CHANGES)
        order_id = await bid(client)
        house.levers.repeat_fills(1, "maker")
        trade_id = house.levers.fill_order("maker", order_id, D("40"))
        assert [[row["trade_id"] for row in await client.note(TRADES)] for _ in range(2)] == [[trade_id]] * 2
        await client.note(CHANGES)  # the placing
        for _ in range(2):
            assert [row["trade_id"] for row in (await client.note(CHANGES))["trades"]] == [trade_id]
        found = await client.call("private/get_user_trades_by_instrument", instrument_name=PERP)
        assert [row["trade_id"] for row in found["trades"]] == [trade_id]
        assert house.levers.position("maker", PERP) == 40
        house.levers.fill_order("maker", order_id)
        await client.note(TRADES)
        assert await client.quiet(TRADES, 1)


async def test_a_fill_told_again_later(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES)
        with pytest.raises(ValueError, match="no trade"):
            house.levers.repeat_fill("maker")
        await bid(client)
        trade_id = house.levers.fill_quote("maker", PERP, BUY)
        await client.note(TRADES)
        await trio.sleep(30)
        assert house.levers.repeat_fill("maker") == house.levers.repeat_fill("maker", trade_id) == trade_id
        assert (await client.note(TRADES))[0]["trade_id"] == trade_id
        assert house.levers.position("maker", PERP) == 100


async def test_a_fill_told_late_and_one_never_told(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES, ORDERS_CHANNEL)
        await bid(client)
        await client.note(ORDERS_CHANNEL)
        house.levers.delay_fills(1, 5_000)
        house.levers.lose_fills(1)
        late = house.levers.fill_quote("maker", PERP, BUY, D("30"))
        house.levers.fill_quote("maker", PERP, BUY, D("30"))
        assert await client.quiet(TRADES, 4.9)
        assert await client.quiet(ORDERS_CHANNEL, 0)
        found = await client.call("private/get_user_trades_by_instrument", instrument_name=PERP)
        assert len(found["trades"]) == 2
        assert [row["trade_id"] for row in await client.note(TRADES)] == [late]
        assert await client.quiet(TRADES, 10)


async def test_a_fill_of_an_order_closed_long_ago(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES, ORDERS_CHANNEL)
        order_id = await bid(client)
        with pytest.raises(ValueError, match="no closed order"):
            house.levers.fill_closed_order("maker", order_id, D("10"))
        await client.call("private/cancel", order_id=order_id)
        for _ in range(2):
            await client.note(ORDERS_CHANNEL)
        await trio.sleep(100)
        trade_id = house.levers.fill_closed_order("maker", order_id, D("30"))
        told = (await client.note(TRADES))[0]
        assert (told["trade_id"], told["order_id"], told["label"], told["amount"]) == (trade_id, order_id, "bid", 30)
        assert (await client.note(ORDERS_CHANNEL))["order_state"] == "cancelled"
        assert house.levers.position("maker", PERP) == 30
        house.levers.fill_closed_order("maker", order_id, D("100"))
        order = house.levers.closed_orders("maker")[0]
        assert (order.filled, order.amount, order.state) == (D("130"), D("130"), OrderState.FILLED)
        assert house.levers.open_orders("maker") == []
        found = await client.call("private/get_user_trades_by_order", order_id=order_id)
        assert [row["amount"] for row in found] == [30, 100]
        await bid(client)
        assert house.levers.most_open("maker", PERP, BUY) == 1


async def test_wrong_fills(autojump_clock):
    async with running() as house:
        client = await maker(house)
        order_id = await bid(client)
        with pytest.raises(ValueError, match="has 100 left"):
            house.levers.fill_order("maker", order_id, D("110"))
        with pytest.raises(ValueError, match="no sell order"):
            house.levers.fill_quote("maker", PERP, SELL)
        with pytest.raises(ValueError, match="no open order"):
            house.levers.fill_order("maker", "1")


async def test_an_aggressor_takes_again_and_again(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES)
        await bid(client, price=80000.0, amount=100)
        taken = house.levers.take(PERP, SELL, D("1000"))  # what stands before us at that price
        assert sum(trade.amount for trade in taken) == 1000
        taken = house.levers.take(PERP, SELL, D("20"), times=5)
        assert [trade.amount for trade in taken] == [20] * 5
        assert [(await client.note(TRADES))[0]["amount"] for _ in range(5)] == [20] * 5
        assert house.levers.position("maker", PERP) == 100
        assert house.levers.position(AGGRESSOR, PERP) == -1100


# --- the account from behind ---------------------------------------------------------------------


async def test_a_foreign_order(autojump_clock):
    async with running() as house:
        client = await maker(house, ORDERS_CHANNEL)
        await client.call("private/enable_cancel_on_disconnect")
        order = house.levers.foreign_order("maker", PERP, SELL, D("50"), D("80010"), "mmd-still-1")
        told = await client.note(ORDERS_CHANNEL)
        assert (told["order_id"], told["label"], told["direction"]) == (order.order_id, "mmd-still-1", "sell")
        assert len(await client.call("private/get_open_orders")) == 1
        house.levers.cut("maker")
        await client.closed.wait()
        assert [row.label for row in house.levers.open_orders("maker")] == ["mmd-still-1"]


async def test_reports_of_a_position_drift(autojump_clock):
    async with running() as house:
        client = await maker(house, CHANGES)
        assert await client.call("private/get_positions", currency="BTC") == []
        house.levers.drift_position("maker", PERP, D("-70"))
        told = (await client.note(CHANGES))["positions"]
        assert [(row["size"], row["direction"]) for row in told] == [(-70, "sell")]
        assert (await client.call("private/get_positions", currency="BTC"))[0]["size"] == -70
        await client.call("private/buy", instrument_name=PERP, amount=100, type="market")
        assert (await client.call("private/get_position", instrument_name=PERP))["size"] == 30
        assert house.levers.position("maker", PERP) == 100
        house.levers.drift_position("maker", PERP, D("0"))
        assert (await client.call("private/get_positions", currency="BTC"))[0]["size"] == 100


async def test_protection_trips_at_will(autojump_clock):
    async with running() as house:
        client = await maker(house, "user.mmp_trigger.btc_usd")
        await client.call(
            "private/set_mmp_config", index_name="btc_usd", interval=5, frozen_time=30, max_quote_quantity=9
        )
        await bid(client, mmp=True)
        house.levers.trip_protection("maker", "btc_usd")
        told = await client.note("user.mmp_trigger.btc_usd")
        assert told["frozen_until"] == pytest.approx(house.sandbox.now_ms + 30_000, abs=50)
        assert house.levers.open_orders("maker") == []
        assert [str(order.cancel_reason) for order in house.levers.closed_orders("maker")] == ["mmp_trigger"]


# --- connections ---------------------------------------------------------------------------------


async def test_cut_one_account_or_all_or_again_and_again(autojump_clock):
    async with running() as house:
        one, other = await maker(house), await maker(house, account="other")
        assert house.levers.cut("maker") == 1
        await one.closed.wait()
        await other.call("public/get_time")
        assert house.levers.cut() == 1
        await other.closed.wait()
        client = await maker(house)
        house.levers.cut_repeatedly(3, 1.0)
        for _ in range(3):
            with trio.fail_after(1.5):
                await client.closed.wait()
            client = await maker(house)
        client = await maker(house)
        await trio.sleep(5)
        await client.call("public/get_time")


async def test_logins_that_are_cut(autojump_clock):
    async with running() as house:
        house.levers.cut_logins(2)
        for _ in range(2):
            client = await house.client()
            await client.send("public/auth", grant_type="client_credentials", client_id="maker", client_secret="s")
            with trio.fail_after(1):
                await client.closed.wait()
        await maker(house)


async def test_connections_are_refused_for_a_while(autojump_clock):
    async with running() as house:
        standing = await maker(house)
        house.levers.refuse_connections(10)
        stream = await house.sandbox.connect()
        assert await stream.receive_some() == b""
        await standing.call("public/get_time")
        await trio.sleep(10)
        await maker(house)
        house.levers.refuse_connections()
        await trio.sleep(100)
        stream = await house.sandbox.connect()
        assert await stream.receive_some() == b""
        house.levers.accept_connections()
        await maker(house)


async def test_half_open_connections_pass_nothing_until_they_do(autojump_clock):
    async with running() as house:
        client = await maker(house, TRADES)
        order_id = await bid(client)
        assert house.levers.stall_connections() == 1
        waiting = await client.send("private/cancel", order_id=order_id)
        house.levers.fill_quote("maker", PERP, BUY, D("40"))
        assert await unanswered(client, waiting, 60)
        assert client.inbox == []
        assert len(house.levers.open_orders("maker")) == 1
        fresh = await maker(house)
        assert len(await fresh.call("private/get_open_orders")) == 1
        assert house.levers.resume_connections() == 1
        assert (await client.answer(waiting))["filled_amount"] == 40
        assert (await client.note(TRADES))[0]["amount"] == 40


async def test_a_stalled_link_is_closed_by_its_heartbeat_and_its_orders_go(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("public/set_heartbeat", interval=10)
        await client.call("private/enable_cancel_on_disconnect")
        await bid(client)
        house.levers.stall_connections("maker")
        await trio.sleep(25)
        assert house.levers.open_orders("maker") == []
        assert client.closed.is_set()
        assert house.sandbox.server.links == {}
        await maker(house)
        house.levers.stall_connections()
        assert house.levers.cut() == 1
        await trio.sleep(1)
        assert house.sandbox.server.links == {}


# --- market data ---------------------------------------------------------------------------------


async def test_silence_of_one_and_of_all(autojump_clock):
    async with running() as house:
        channels = [f"quote.{PERP}", f"quote.{LINEAR}", "deribit_price_index.btc_usd", f"trades.{PERP}.raw"]
        client = await maker(house, *channels, ORDERS_CHANNEL)
        await trio.sleep(1)
        client.inbox.clear()
        house.levers.silence(PERP)
        house.levers.take(PERP, BUY, D("10"))
        house.levers.take(LINEAR, BUY, D("1"))
        await client.note(channels[1])
        assert await client.quiet(channels[0], 1) and await client.quiet(channels[3], 0)
        house.levers.speak(PERP)
        house.levers.take(PERP, BUY, D("10"))
        await client.note(channels[0])
        await client.note(channels[3])
        house.levers.silence()
        house.levers.jump(PERP, 1)
        house.levers.take(LINEAR, BUY, D("0.5"))
        await bid(client)
        await client.note(ORDERS_CHANNEL)  # what is the account's own is told
        for channel in channels:
            assert await client.quiet(channel, 0.5)
        house.levers.speak()
        house.levers.take(LINEAR, BUY, D("0.1"))
        await client.note(channels[1])


@pytest.mark.parametrize("interval", ["raw", "100ms"])
async def test_a_gap_shows_within_half_a_second(autojump_clock, interval):
    async with running() as house:
        channel = f"book.{PERP}.{interval}"
        client = await maker(house, channel)
        snapshot = await client.note(channel)
        house.levers.gap(PERP)
        with trio.fail_after(0.5):
            change = await client.note(channel)
        assert change["prev_change_id"] > snapshot["change_id"]
        book = await client.call("public/get_order_book", instrument_name=PERP, depth=100)
        assert len(book["bids"]) == 2


async def test_changes_told_twice(autojump_clock):
    async with running() as house:
        channel = f"book.{PERP}.raw"
        client = await maker(house, channel)
        await client.note(channel)
        house.levers.repeat_changes(PERP)
        house.levers.take(PERP, BUY, D("10"))
        assert await client.note(channel) == await client.note(channel)


async def test_a_crossed_book(autojump_clock):
    async with running() as house:
        channel = f"book.{PERP}.raw"
        client = await maker(house, channel)
        snapshot = await client.note(channel)
        house.levers.cross(PERP)
        change = await client.note(channel)
        assert change["prev_change_id"] == snapshot["change_id"]
        assert change["bids"][0][1] > min(price for _, price, _ in snapshot["asks"])
        house.levers.uncross(PERP)
        assert (await client.note(channel))["bids"][0][0] == "delete"


@pytest.mark.parametrize(
    ("name", "percent", "best"),
    [
        pytest.param(PERP, 5, (84000, 84001), id="up: bids floor, asks ceil"),
        pytest.param(PERP, -50, (40000, 40000.5), id="down"),
        pytest.param(OPTION, 100, (0.008, 0.01), id="an option with tick steps"),
    ],
)
async def test_a_jump(autojump_clock, name, percent, best):
    async with running() as house:
        client = await maker(house, f"quote.{name}")
        before = await client.call("public/ticker", instrument_name=name)
        client.inbox.clear()
        house.levers.jump(name, percent)
        told = await client.note(f"quote.{name}")
        assert (told["best_bid_price"], told["best_ask_price"]) == best
        after = await client.call("public/ticker", instrument_name=name)
        factor = 1 + percent / 100
        for key in ("mark_price", "index_price", "max_price"):
            assert after[key] == pytest.approx(before[key] * factor, rel=1e-3)
        await bid(client, instrument_name=name, price=best[0], amount=100)


async def test_a_market_that_stands_still(autojump_clock):
    async with running() as house:
        house.levers.pause_market()
        steps = house.sandbox.market.steps
        await trio.sleep(10)
        assert house.sandbox.market.steps == steps
        house.levers.resume_market()
        await trio.sleep(2)
        assert house.sandbox.market.steps > steps


# --- the truth -----------------------------------------------------------------------------------


async def test_what_judges_see_are_copies(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await bid(client)
        copied = house.levers.open_orders("maker")[0]
        copied.amount = D("1")
        house.levers.wallet("maker", "BTC").balance = D("0")
        assert (await client.call("private/get_open_orders"))[0]["amount"] == 100
        assert house.levers.wallet("maker", "BTC").balance == 100
        house.levers.fill_quote("maker", PERP, BUY, D("10"))
        trades = house.levers.trades("maker", PERP)
        assert [(trade.label, trade.amount, trade.timestamp >= START_MS) for trade in trades] == [("bid", 10, True)]
        assert [row.kind for row in house.levers.transactions("maker")] == ["trade"]


# --- what an exchange loses, and what it tells late ----------------------------------------------


@pytest.mark.parametrize("forget", [pytest.param(False, id="cancelled"), pytest.param(True, id="never heard of")])
@pytest.mark.parametrize("told", [True, False])
async def test_orders_that_the_engine_loses(autojump_clock, told, forget):
    async with running() as house:
        client = await maker(house, CHANGES)
        order_id = await bid(client)
        await bid(client, price=79999.0, label="second")
        for _ in range(2):
            await client.note(CHANGES)
        assert house.levers.lose_orders(told=told, forget=forget) == 2
        if told:
            assert (await client.note(CHANGES))["orders"][0]["order_state"] == "cancelled"
        else:
            assert await client.quiet(CHANGES, 1)
        assert await client.call("private/get_open_orders") == []
        if forget:
            assert await code_of(client, "private/get_order_state", order_id=order_id) == 10004
        else:
            assert (await client.call("private/get_order_state", order_id=order_id))["order_state"] == "cancelled"
        assert not house.levers.open_orders("maker")
        shown = await client.call("public/get_order_book", instrument_name=PERP)
        assert shown["bids"][0] == [80000.0, 1000.0]
        await bid(client)  # and it goes on


async def test_a_restart_loses_orders_and_connections_but_no_position(autojump_clock):
    async with running() as house:
        client = await maker(house, CHANGES)
        await bid(client)
        house.levers.fill_quote("maker", PERP, BUY, D("40"))
        for _ in range(2):
            await client.note(CHANGES)
        assert house.levers.restart(5, forget=True) == 1
        await client.closed.wait()
        assert not client.inbox
        await trio.sleep(6)
        back = await maker(house)
        assert await back.call("private/get_open_orders") == []
        assert await back.call("private/get_order_state_by_label", currency="BTC", label="bid") == []
        assert (await back.call("private/get_positions", currency="BTC"))[0]["size"] == 40


async def test_an_answer_that_dies_with_its_link(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.cut_answers()
        sent = await client.send("private/buy", **BID)
        await client.closed.wait()
        assert sent not in client.answers
        assert [order.label for order in house.levers.open_orders("maker")] == ["bid"]


async def test_a_fill_whose_trade_is_told_after_its_order(autojump_clock):
    async with running() as house:
        client = await maker(house, CHANGES, TRADES, ORDERS_CHANNEL)
        await bid(client)
        for channel in (CHANGES, ORDERS_CHANNEL):
            await client.note(channel)
        house.levers.split_fills(1, 3000)
        house.levers.list_trades_late(2000)
        house.levers.fill_quote("maker", PERP, BUY)
        first = await client.note(CHANGES)
        assert first["orders"][0]["order_state"] == "filled" and not first["trades"]
        assert (await client.note(ORDERS_CHANNEL))["order_state"] == "filled"
        asked = {"instrument_name": PERP, "count": 10}
        assert (await client.call("private/get_user_trades_by_instrument", **asked))["trades"] == []
        assert (await client.call("private/get_positions", currency="BTC"))[0]["size"] == 100
        await trio.sleep(2.1)
        (listed,) = (await client.call("private/get_user_trades_by_instrument", **asked))["trades"]
        assert not any(message["params"].get("channel") == TRADES for message in client.inbox)
        assert [row["trade_id"] for row in await client.note(TRADES)] == [listed["trade_id"]]
        second = await client.note(CHANGES)
        assert [row["trade_id"] for row in second["trades"]] == [listed["trade_id"]] and not second["orders"]


async def test_news_of_any_kind_twice_late_or_never(autojump_clock):
    async with running() as house:
        client = await maker(house, CHANGES)
        with pytest.raises(ValueError, match="at least 1"):
            house.levers.fault_news(FillFault.LOSE, 0)
        house.levers.fault_news(FillFault.REPEAT, 1)
        order_id = await bid(client)
        assert await client.note(CHANGES) == await client.note(CHANGES)
        house.levers.fault_news(FillFault.DELAY, 1, 700)
        await client.call("private/edit", order_id=order_id, amount=50, price=80000.0)
        assert await client.quiet(CHANGES, 0.6)
        assert (await client.note(CHANGES))["orders"][0]["amount"] == 50
        house.levers.fault_news(FillFault.LOSE, 1, account="maker")
        await client.call("private/cancel", order_id=order_id)
        assert await client.quiet(CHANGES, 5)


async def test_a_chain_of_changes_that_breaks(autojump_clock):
    async with running() as house:
        channel = f"book.{PERP}.raw"
        client = await maker(house)
        await client.call("public/subscribe", channels=[channel])
        last = (await client.note(channel))["change_id"]
        house.levers.break_chain(PERP)
        broken = await client.note(channel)
        assert broken["prev_change_id"] == last + 1
        assert (await client.note(channel))["prev_change_id"] == broken["change_id"]


# --- what a query still lists --------------------------------------------------------------------


async def test_two_drawers_of_executions(autojump_clock):
    async with running() as house:
        client = await maker(house)
        await client.call("private/buy", instrument_name=PERP, amount=10, type="market")
        asked = {"instrument_name": PERP, "start_timestamp": START_MS, "end_timestamp": START_MS * 2, "count": 10}

        async def listed(historical):
            method = "private/get_user_trades_by_instrument_and_time"
            by_time = (await client.call(method, **asked, historical=historical))["trades"]
            order_id = house.levers.trades("maker")[0].order_id
            by_order = await client.call("private/get_user_trades_by_order", order_id=order_id, historical=historical)
            assert by_time == by_order
            return len(by_time)

        hour = 3_600_000
        for age, recent, archived in ((0, 1, 0), (2 * hour, 1, 1), (25 * hour, 0, 1)):
            house.levers.shift_clock(age)
            assert (await listed(False), await listed(True)) == (recent, archived)


async def test_a_closed_order_without_fills_is_forgotten(autojump_clock):
    async with running() as house:
        client = await maker(house)
        order_id = await bid(client)
        await client.call("private/cancel", order_id=order_id)
        filled = await bid(client, label="filled")
        house.levers.fill_order("maker", filled)
        resting = await bid(client, label="resting")
        house.levers.shift_clock(31 * 60_000)
        by_label = {"currency": "BTC"}
        assert await code_of(client, "private/get_order_state", order_id=order_id) == 10004
        for label, count in (("bid", 0), ("filled", 1), ("resting", 1)):
            rows = await client.call("private/get_order_state_by_label", **by_label, label=label)
            assert len(rows) == count
        assert (await client.call("private/get_order_state", order_id=resting))["order_state"] == "open"


async def test_all_open_orders_come_in_one_answer(autojump_clock):
    async with running() as house:
        client = await maker(house)
        for number in range(350):
            house.levers.foreign_order("maker", PERP, BUY, D("10"), D("79000") + D("0.5") * number, f"n{number}")
        assert len(await client.call("private/get_open_orders")) == 350


@pytest.mark.parametrize(
    ("age_ms", "taken"), [pytest.param(0, True, id="just in time"), pytest.param(1, False, id="a millisecond late")]
)
async def test_an_order_is_valid_by_the_exchanges_clock(autojump_clock, age_ms, taken):
    async with running() as house:
        client = await maker(house)
        house.levers.shift_clock(60_000)
        until = house.sandbox.now_ms - age_ms
        order_id = await bid(client)
        edit = {"order_id": order_id, "amount": 50, "price": 80000.0}
        if taken:
            await bid(client, label="second", valid_until=until)
            await client.call("private/edit", **edit, valid_until=until)
        else:
            assert await code_of(client, "private/buy", **BID, valid_until=until) == 13888
            assert await code_of(client, "private/edit", **edit, valid_until=until) == 13888
        assert len(house.levers.open_orders("maker")) == (2 if taken else 1)
        assert house.levers.open_orders("maker")[0].amount == (50 if taken else 100)


async def test_an_order_that_is_late_on_its_way_is_refused(autojump_clock):
    async with running() as house:
        client = await maker(house)
        house.levers.delay_requests(1, 3000)
        assert await code_of(client, "private/buy", **BID, valid_until=house.sandbox.now_ms + 2000) == 13888
        assert not house.levers.open_orders("maker")
