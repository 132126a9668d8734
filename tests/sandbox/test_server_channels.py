"""Subscriptions: what is accepted, what comes first, what changes send, and the faults of a book."""

from decimal import Decimal

import pytest
import trio
from static_market import BOOKS, EXPIRY_MS, LINEAR, OPTION, PERP, START_MS, D, instrument
from ws_client import CallFailed, running

from mmd.sandbox.model import Direction, InstrumentState

BOOK = f"book.{PERP}.raw"
REST = {"instrument_name": PERP, "amount": 20, "price": 79999.0, "label": "mine", "post_only": True}
TAKE = {"instrument_name": PERP, "amount": 100, "type": "market"}


class Mirror:
    """A client's book, built from messages; refuses a broken chain."""

    def __init__(self):
        self.sides = None
        self.change_id = None

    def apply(self, data):
        if data["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert data["prev_change_id"] == self.change_id
        for side, levels in self.sides.items():
            for action, price, amount in data[side]:
                if action == "delete":
                    assert levels.pop(price) and amount == 0
                else:
                    assert (price in levels) == (action == "change")
                    levels[price] = amount
        self.change_id = data["change_id"]


async def shown(client, name=PERP):
    book = await client.call("public/get_order_book", instrument_name=name, depth=1000)
    return {side: dict(book[side]) for side in ("bids", "asks")}, book["change_id"]


async def maker(house, *channels):
    client = await house.client()
    await client.login()
    assert await client.call("private/subscribe", channels=list(channels)) == list(channels)
    return client


# --- what is accepted ----------------------------------------------------------------------------

PUBLIC = [
    BOOK,
    f"book.{PERP}.100ms",
    f"book.{PERP}.agg2",
    f"book.{PERP}.none.10.100ms",
    f"book.{PERP}.5.20.agg2",
    f"quote.{PERP}",
    f"ticker.{PERP}.raw",
    f"ticker.{OPTION}.100ms",
    f"incremental_ticker.{PERP}",
    f"trades.{PERP}.raw",
    "trades.option.BTC.100ms",
    "trades.any.any.agg2",
    "deribit_price_index.btc_usd",
    "deribit_price_ranking.btc_usd",
    "deribit_price_statistics.btc_usd",
    "deribit_volatility_index.btc_usd",
    "markprice.options.btc_usd",
    "estimated_expiration_price.btc_usd",
    f"perpetual.{PERP}.100ms",
    "instrument.state.option.BTC",
    "instrument.creation.any.any",
    "platform_state",
    "platform_state.public_methods_state",
    "announcements",
    f"chart.trades.{PERP}.1",
]
PRIVATE = [
    f"user.orders.{PERP}.raw",
    "user.orders.future.BTC.100ms",
    f"user.trades.{PERP}.agg2",
    "user.trades.any.any.raw",
    f"user.changes.{PERP}.100ms",
    "user.changes.any.any.raw",
    "user.portfolio.btc",
    "user.portfolio.any",
    "user.mmp_trigger.btc_usd",
    "user.mmp_trigger.all",
    "user.lock",
    "user.access_log",
]
UNKNOWN = [
    "book.BTC-NONE.100ms",
    f"book.{PERP}.7ms",
    f"book.{PERP}.3.10.100ms",
    f"perpetual.{OPTION}.100ms",
    "user.orders.nothing.BTC.raw",
    "nonsense",
    "",
    "trades..raw",
]


async def test_every_channel_is_accepted_and_no_other(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.login()
        asked = [*PUBLIC, *UNKNOWN, *PRIVATE]
        assert set(await client.call("private/subscribe", channels=asked)) == {*PUBLIC, *PRIVATE}
        assert set(await client.call("public/subscribe", channels=[PUBLIC[0], PRIVATE[0]])) == {PUBLIC[0]}
        assert await client.call("public/unsubscribe", channels=[BOOK, "nonsense"]) == [BOOK]
        await client.call("private/unsubscribe_all")
        await client.call("public/unsubscribe_all")
        client.inbox.clear()
        house.engine.take(PERP, Direction.BUY, D("10"), D("81000"), house.sandbox.now_ms)
        house.sandbox.publish()
        await trio.sleep(3)
        assert client.inbox == []


async def test_what_a_stranger_may_follow(autojump_clock):
    async with running() as house:
        client = await house.client()
        assert await client.call("public/subscribe", channels=[f"book.{PERP}.100ms", "user.lock"]) == [
            f"book.{PERP}.100ms"
        ]
        with pytest.raises(CallFailed) as refused:
            await client.call("public/subscribe", channels=[BOOK])
        assert refused.value.code == 13778
        await client.login(scope="trade:read")
        assert await client.call("private/subscribe", channels=["user.portfolio.btc", "user.orders.any.any.raw"]) == [
            "user.orders.any.any.raw"
        ]


# --- books ---------------------------------------------------------------------------------------


async def test_the_answer_comes_before_the_snapshot(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.call("public/subscribe", channels=[f"book.{PERP}.100ms"])
        snapshot = await client.note()
        assert ["id" in message for message in client.log] == [True, False]
        assert snapshot["type"] == "snapshot"
        assert "prev_change_id" not in snapshot
        assert snapshot["bids"] == [["new", float(price), float(amount)] for price, amount in BOOKS[PERP][0].items()]


@pytest.mark.parametrize("interval", ["raw", "100ms", "agg2"])
async def test_changes_rebuild_the_book(autojump_clock, interval):
    async with running() as house:
        channel = f"book.{PERP}.{interval}"
        first, mirror = await maker(house, channel), Mirror()
        mirrors = [(first, mirror)]
        for step in range(12):
            price = Decimal("79990") + step
            house.engine.set_levels(PERP, {price: D("10"), price - 1: D("0")}, {}, house.sandbox.now_ms, snapshot=False)
            house.sandbox.publish()
            await first.call("private/buy", **(REST | {"price": 79999.0 - step / 2}))
            if step == 5:
                mirrors.append((await maker(house, channel), Mirror()))
            await trio.sleep(0.04)
        await first.call("private/cancel_all")
        await trio.sleep(2)
        for client, mirror in mirrors:
            while client.inbox:
                mirror.apply(await client.note(channel))
            assert (mirror.sides, mirror.change_id) == await shown(client)


@pytest.mark.parametrize("interval", ["raw", "100ms", "agg2"])
async def test_a_level_that_goes_and_comes_back_before_it_is_told_does_not_stay_for_ever(autojump_clock, interval):
    async with running() as house:
        channel, price, now_ms = f"book.{PERP}.{interval}", D("79990"), house.sandbox.now_ms
        client, mirror = await maker(house, channel), Mirror()
        house.engine.set_levels(PERP, {price: D("10")}, {}, now_ms, snapshot=False)
        house.sandbox.publish()
        await trio.sleep(2)
        for amount in ("0", "50"):  # a trade and its refill in one breath
            house.engine.set_levels(PERP, {price: D(amount)}, {}, now_ms, snapshot=False)
        house.sandbox.publish()
        await trio.sleep(2)
        house.engine.set_levels(PERP, {price: D("0")}, {}, now_ms, snapshot=False)
        house.sandbox.publish()
        await trio.sleep(2)
        while client.inbox:
            mirror.apply(await client.note(channel))
        assert (mirror.sides, mirror.change_id) == await shown(client)


async def test_batches_merge_what_happened_to_a_level(autojump_clock):
    async with running() as house:
        client = await maker(house, f"book.{PERP}.100ms")
        await client.note()
        order = await client.call("private/buy", **REST)
        await client.call("private/cancel", order_id=order["order"]["order_id"])
        change = await client.note()
        assert (change["bids"], change["asks"]) == ([], [])
        assert change["prev_change_id"] < change["change_id"]


async def test_fast_batches_do_not_wait_for_slow_ones(autojump_clock):
    async with running() as house:
        client = await maker(house, "user.portfolio.any", f"book.{PERP}.100ms")
        await client.note(f"book.{PERP}.100ms")
        for _ in range(20):
            await client.call("private/buy", **REST)
            with trio.fail_after(0.101):
                await client.note(f"book.{PERP}.100ms")


async def test_grouped_books(autojump_clock):
    async with running() as house:
        client = await maker(house, f"book.{PERP}.2.10.100ms")
        first = await client.note()
        assert first["bids"] == [[80000.0, 1000.0], [79999.0, 500.0]]
        assert first["asks"] == [[80001.0, 800.0], [80002.0, 2000.0]]


async def test_a_dropped_change_is_a_gap(autojump_clock):
    async with running() as house:
        client = await maker(house, BOOK)
        last = (await client.note())["change_id"]
        house.faults.drop_change(PERP)
        await client.call("private/buy", **REST)
        await client.call("private/buy", **REST)
        assert (await client.note())["prev_change_id"] != last
        house.faults.duplicate_change(PERP)
        await client.call("private/buy", **REST)
        assert await client.note() == await client.note()


async def test_silence_and_a_crossed_book(autojump_clock):
    async with running() as house:
        client = await maker(house, BOOK, f"ticker.{PERP}.raw")
        mirror = Mirror()
        mirror.apply(await client.note(BOOK))
        house.faults.cross(PERP, house.sandbox.now_ms)
        mirror.apply(await client.note(BOOK))
        assert max(mirror.sides["bids"]) > min(mirror.sides["asks"])
        assert (await client.call("private/buy", **REST))["order"]["order_state"] == "open"  # shown, never traded
        mirror.apply(await client.note(BOOK))
        house.faults.uncross(PERP, house.sandbox.now_ms)
        mirror.apply(await client.note(BOOK))
        assert (mirror.sides, mirror.change_id) == await shown(client)
        house.faults.silence(PERP)
        client.inbox.clear()
        await client.call("private/buy", **TAKE)
        assert await client.quiet(BOOK, 5)
        house.faults.speak(PERP)
        await client.call("private/buy", **REST)
        assert (await client.note(BOOK))["prev_change_id"] != mirror.change_id


# --- quotes, tickers, trades ---------------------------------------------------------------------


async def test_quote_and_ticker(autojump_clock):
    async with running() as house:
        client = await maker(house, f"quote.{PERP}", f"ticker.{OPTION}.100ms", f"incremental_ticker.{PERP}")
        quote = await client.note(f"quote.{PERP}")
        assert (quote["best_bid_price"], quote["best_ask_amount"]) == (80000.0, 800.0)
        ticker = await client.note(f"ticker.{OPTION}.100ms")
        assert ticker["greeks"] == {"delta": 0.12, "gamma": 1e-05, "vega": 45.0, "theta": -20.0, "rho": 5.0}
        assert ticker["bid_iv"] < ticker["mark_iv"] == 55.0 < ticker["ask_iv"]
        assert ticker["stats"]["volume"] is None
        full = await client.note(f"incremental_ticker.{PERP}")
        assert (full["type"], full["mark_price"]) == ("snapshot", 80000.25)
        await client.call("private/buy", **TAKE)
        assert (await client.note(f"quote.{PERP}"))["best_ask_amount"] == 700.0
        change = await client.note(f"incremental_ticker.{PERP}")
        assert (change["type"], change["best_ask_amount"], change["last_price"]) == ("change", 700.0, 80000.5)
        assert "mark_price" not in change
        house.engine.set_levels(OPTION, {}, {}, house.sandbox.now_ms, snapshot=True)
        house.sandbox.publish()
        ticker = await client.note(f"ticker.{OPTION}.100ms")
        assert (ticker["best_bid_price"], ticker["best_bid_amount"], ticker["bid_iv"]) == (0.0, 0.0, 0.0)


async def test_public_and_own_trades(autojump_clock):
    channels = [f"trades.{PERP}.raw", "trades.future.BTC.100ms", "user.trades.any.any.raw", f"chart.trades.{PERP}.1"]
    async with running() as house:
        client = await maker(house, *channels)
        answer = await client.call("private/buy", **TAKE)
        (public,) = await client.note(channels[0])
        assert [public] == await client.note(channels[1])
        assert (public["direction"], public["amount"], public["contracts"]) == ("buy", 100.0, 10.0)
        (own,) = await client.note(channels[2])
        assert [own] == answer["trades"]
        assert (own["liquidity"], own["trade_id"], own["fee_currency"]) == ("T", public["trade_id"], "BTC")
        assert (await client.note(channels[3]))["close"] == 80000.5


async def test_user_orders_and_changes(autojump_clock):
    channels = [f"user.orders.{PERP}.raw", "user.orders.future.BTC.100ms", "user.changes.any.any.raw"]
    async with running() as house:
        client = await maker(house, *channels)
        order = (await client.call("private/buy", **REST))["order"]
        assert await client.note(channels[0]) == order
        assert await client.note(channels[1]) == [order]
        assert await client.note(channels[2]) == {
            "instrument_name": PERP,
            "orders": [order],
            "trades": [],
            "positions": [],
        }
        house.engine.take(PERP, Direction.SELL, D("1510"), D("79999"), house.sandbox.now_ms)
        house.sandbox.publish()
        changes = await client.note(channels[2])
        assert changes["orders"][0]["filled_amount"] == 10.0
        assert changes["trades"][0]["liquidity"] == "M"
        assert (changes["positions"][0]["size"], changes["positions"][0]["direction"]) == (10.0, "buy")
        edited = await client.call("private/edit", order_id=order["order_id"], amount=30, price=79998.0)
        assert (edited["order"]["replaced"], edited["order"]["amount"]) == (True, 30.0)
        await client.call("private/cancel_by_label", label="mine")
        assert (await client.note(channels[0]))["filled_amount"] == 10.0
        assert (await client.note(channels[0]))["replaced"] is True
        assert (await client.note(channels[0]))["cancel_reason"] == "user_request"


async def test_own_channels_are_own(autojump_clock):
    async with running() as house:
        client = await maker(house, "user.orders.any.any.raw")
        other = await house.client()
        await other.login("stranger")
        await other.call("private/subscribe", channels=["user.orders.any.any.raw"])
        await client.call("private/buy", **REST)
        await client.note("user.orders.any.any.raw")
        assert await other.quiet("user.orders.any.any.raw", 1)


async def test_portfolio_and_protection(autojump_clock):
    async with running() as house:
        client = await maker(house, "user.portfolio.btc", "user.mmp_trigger.btc_usd")
        assert (await client.note("user.portfolio.btc"))["equity"] == 100.0
        await client.call(
            "private/set_mmp_config",
            index_name="btc_usd",
            interval=5,
            frozen_time=0,
            quantity_limit=0.001,
            max_quote_quantity=1,
        )
        await client.call("private/buy", **(REST | {"mmp": True, "price": 80000.0}))
        taken = D("1000") + D("100")
        house.engine.take(PERP, Direction.SELL, taken, D("80000"), house.sandbox.now_ms)
        house.sandbox.publish()
        await trio.sleep(1.5)
        assert (await client.note("user.portfolio.btc"))["delta_total"] > 0
        await client.call("private/buy", **(REST | {"mmp": True, "price": 80000.0, "amount": 100}))
        house.engine.take(PERP, Direction.SELL, D("90"), D("80000"), house.sandbox.now_ms)
        house.sandbox.publish()
        assert await client.note("user.mmp_trigger.btc_usd") == {"index_name": "btc_usd", "frozen_until": 0}
        assert (await client.call("private/get_mmp_status"))[0]["index_name"] == "btc_usd"
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", **(REST | {"mmp": True}))
        assert refused.value.code == 13030
        assert await client.call("private/reset_mmp", index_name="btc_usd") == "ok"
        await client.call("private/buy", **(REST | {"mmp": True}))


# --- expiry --------------------------------------------------------------------------------------


async def test_expiry_at_eight(autojump_clock):
    async with running() as house:
        client = await maker(house, "instrument.state.option.BTC", "instrument.creation.any.any")
        await client.call("private/buy", instrument_name=OPTION, amount=2, price=0.005)
        await client.call("private/buy", instrument_name=OPTION, amount=1, price=0.003)
        house.engine.set_index("btc_usd", D("100000"), house.sandbox.now_ms)
        house.sandbox.market.period_ms = 3_600_000
        house.sandbox.market.more.append(instrument("BTC-26MAR27", settlement_period="month", instrument_id=5))
        before = (await client.call("private/get_account_summary", currency="BTC"))["balance"]
        await trio.sleep((EXPIRY_MS - START_MS) / 1000 + 1)
        client = await maker(house, "user.lock")  # the first one was idle for too long
        listing = house.engine.floor.listing(OPTION)
        assert (listing.state, listing.delivery_price) == (InstrumentState.DELIVERED, D("100000"))
        assert await client.call("private/get_positions", currency="BTC") == []
        assert await client.call("private/get_open_orders") == []
        after = (await client.call("private/get_account_summary", currency="BTC"))["balance"]
        assert after - before == pytest.approx(0.2)
        names = [row["instrument_name"] for row in await client.call("public/get_instruments", currency="BTC")]
        assert names == [PERP, "BTC-26MAR27"]
        log = await client.call(
            "private/get_transaction_log", currency="BTC", start_timestamp=0, end_timestamp=EXPIRY_MS + 10_000
        )
        assert [row["type"] for row in log["logs"]] == ["delivery", "trade"]
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", instrument_name=OPTION, amount=1, price=0.003)
        assert refused.value.code == 13019


async def test_state_changes_are_told(autojump_clock):
    async with running() as house:
        client = await maker(house, "instrument.state.any.any", f"ticker.{LINEAR}.100ms", "platform_state")
        await client.note(f"ticker.{LINEAR}.100ms")
        house.engine.set_state(LINEAR, InstrumentState.HALTED, house.sandbox.now_ms)
        house.sandbox.publisher.broadcast("platform_state", {"maintenance": True})
        house.sandbox.publish()
        assert await client.note("platform_state") == {"maintenance": True}
        told = await client.note("instrument.state.any.any")
        assert (told["instrument_name"], told["state"]) == (LINEAR, "halted")
        assert (await client.note(f"ticker.{LINEAR}.100ms"))["state"] == "halted"
