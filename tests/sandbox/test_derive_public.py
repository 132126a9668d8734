"""Derive's dialect without a login: framing, pings, market data, channels, limits, HTTP."""

import json

import pytest
import trio
from derive_place import ACCOUNT, CALL, PERP, START_MS, D, derive_sandbox, running
from ws_client import CallFailed

from mmd.sandbox.derive.options import TRADER, DeriveOptions
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.model import Direction

BOOK = f"orderbook.{PERP}.1.10"


# --- framing -------------------------------------------------------------------------------------


async def test_answers_have_an_id_and_no_version(autojump_clock):
    async with running() as house:
        client = await house.client()
        assert await client.raw('{"id":"seven","method":"public/get_time","params":{}}') == {
            "id": "seven",
            "result": START_MS,
        }


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("{nonsense", -32700, id="no JSON"),
        pytest.param('{"id":1001,"method":"public/nothing","params":{}}', -32601, id="no such method"),
        pytest.param('{"method":"public/get_time","params":{}}', -32600, id="no id"),
        pytest.param('{"id":1001,"method":"public/get_time","params":null}', -32600, id="params are null"),
        pytest.param('{"id":1001,"method":"public/get_ticker","params":{}}', -32602, id="parameter missing"),
        pytest.param(
            '{"id":1001,"method":"public/get_ticker","params":{"instrument_name":"ETH-NONE"}}', 12001, id="not listed"
        ),
        pytest.param('{"id":1001,"method":"private/get_account","params":{"wallet":"0x"}}', 401, id="no login"),
        pytest.param(
            '{"id":1001,"method":"subscribe","params":{"channels":["book.ETH-PERP.raw"]}}', 13000, id="no such channel"
        ),
        pytest.param(
            f'{{"id":1001,"method":"subscribe","params":{{"channels":["{ACCOUNT}.orders"]}}}}', 13000, id="not allowed"
        ),
    ],
)
async def test_bad_requests_are_answered_and_the_link_lives(autojump_clock, text, code):
    async with running() as house:
        client = await house.client()
        assert (await client.raw(text))["error"]["code"] == code
        assert await client.call("public/get_time") == START_MS


async def test_a_bare_ping_gets_a_bare_pong(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.socket.send_message("ping")
        await client.heard(lambda: client.pongs == 1)
        await client.socket.ping(b"x")  # a frame of the protocol is answered too
        assert client.log == []


async def test_a_silent_client_that_answers_pings_stays_and_one_that_does_not_is_closed(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.call("subscribe", channels=[BOOK])
        await trio.sleep(400)
        assert not client.closed.is_set()
        house.levers.stall_connections()
        await trio.sleep(100)
        assert len(house.sandbox.server.links) == 1
        await trio.sleep(100)  # what we send is no life of theirs
        assert house.sandbox.server.links == {}


async def test_a_stalled_link_answers_no_ping(autojump_clock):
    async with running() as house:
        client = await house.client()
        house.levers.stall_connections()
        with trio.move_on_after(5) as scope:
            await client.socket.ping(b"x")
        assert scope.cancelled_caught
        house.levers.resume_connections()
        with trio.fail_after(5):
            await client.socket.ping(b"y")


# --- instruments ---------------------------------------------------------------------------------


async def test_instruments_come_in_pages(autojump_clock):
    async with running() as house:
        client = await house.client()
        ask = {"instrument_type": "option", "expired": False, "currency": "ETH", "page_size": 1}
        pages = [await client.call("public/get_all_instruments", page=page, **ask) for page in (1, 2, 3)]
        assert [len(page["instruments"]) for page in pages] == [1, 1, 0]
        assert {json.dumps(page["pagination"]) for page in pages} == {'{"count": 2, "num_pages": 2}'}
        row = pages[0]["instruments"][0]
        assert (row["instrument_name"], row["base_asset_sub_id"]) == (CALL, "39614082803320395358570160768")
        assert row["option_details"] == {
            "expiry": 1798185600,
            "index": "ETH-USD",
            "option_type": "C",
            "strike": "3600",
            "settlement_price": None,
        }
        perp = await client.call("public/get_instrument", instrument_name=PERP)
        assert (perp["tick_size"], perp["amount_step"], perp["minimum_amount"]) == ("0.01", "0.01", "1")
        assert perp["perp_details"]["funding_rate"] == "0.0001"
        code = await client.code("public/get_all_instruments", **(ask | {"currency": "SOL"}))
        assert code == 12001
        assert await client.code("public/get_all_instruments", **(ask | {"page_size": 1001})) == -32602


async def test_an_expired_option_moves_to_the_expired(autojump_clock):
    async with running() as house:
        client = await house.client()
        house.levers.expire(CALL, D("3700"))
        ask = {"instrument_type": "option", "currency": "ETH"}
        live = await client.call("public/get_all_instruments", expired=False, **ask)
        gone = await client.call("public/get_all_instruments", expired=True, **ask)
        assert [row["instrument_name"] for row in gone["instruments"]] == [CALL]
        assert gone["instruments"][0]["option_details"]["settlement_price"] == "3700"
        assert CALL not in [row["instrument_name"] for row in live["instruments"]]
        prices = await client.call("public/get_option_settlement_prices", currency="ETH")
        assert prices == {"expiries": [{"expiry_date": "20261225", "utc_expiry_sec": 1798185600, "price": "3700"}]}


async def test_tickers(autojump_clock):
    async with running() as house:
        client = await house.client()
        perp = await client.call("public/get_ticker", instrument_name=PERP)
        assert (perp["b"], perp["B"], perp["a"], perp["A"], perp["M"]) == ("3000", "5", "3000.1", "2", "3000.05")
        assert (perp["f"], perp["minp"], perp["maxp"], perp["option_pricing"]) == ("0.0001", "2900", "3100", None)
        options = {"instrument_type": "option", "currency": "ETH", "expiry_date": 20261225}
        tickers = (await client.call("public/get_tickers", **options))["tickers"]
        assert tickers[CALL]["option_pricing"]["i"] == "0.65"
        assert tickers[CALL]["option_pricing"]["f"] == "3010"
        assert await client.code("public/get_tickers", instrument_type="option", currency="ETH") == -32602
        assert list((await client.call("public/get_tickers", instrument_type="perp"))["tickers"]) == [PERP, "BTC-PERP"]
        assert [row["currency"] for row in await client.call("public/get_all_currencies")] == ["BTC", "ETH"]
        assert (await client.call("public/get_currency", currency="ETH"))["spot_price"] == "3000"


async def test_the_universe_is_derives(autojump_clock):
    market = derive_market(1, now_ms=START_MS)
    names = [one.instrument_name for one in market.instruments()]
    assert {"ETH-PERP", "BTC-PERP"} <= set(names)
    assert len(names) == len(set(names)) > 500
    assert all(one.settlement_currency == "USDC" for one in market.instruments())


# --- channels ------------------------------------------------------------------------------------


async def test_subscribing_says_what_is_and_what_is_not(autojump_clock):
    async with running() as house:
        client = await house.client()
        answer = await client.call("subscribe", channels=[BOOK, "nonsense", f"{ACCOUNT}.orders"])
        assert answer["current_subscriptions"] == [BOOK]
        assert answer["status"][BOOK] == "ok"
        assert "ok" not in (answer["status"]["nonsense"], answer["status"][f"{ACCOUNT}.orders"])
        answer = await client.call("unsubscribe", channels=[BOOK])
        assert answer == {"status": {BOOK: "ok"}, "remaining_subscriptions": []}
        await client.call("subscribe", channels=[BOOK, f"trades.{PERP}"])
        assert (await client.call("unsubscribe"))["remaining_subscriptions"] == []


async def test_books_are_whole_and_numbered(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.call("subscribe", channels=[BOOK])
        first = await client.note(BOOK)
        assert first["bids"] == [["3000", "5"], ["2999.5", "15"]]
        assert first["asks"] == [["3000.1", "2"], ["3001.3", "30"]]
        house.levers.take(PERP, Direction.BUY, D("2"))
        second = await client.note(BOOK)
        assert second["asks"] == [["3001.3", "30"]]
        assert second["bids"] == first["bids"]
        quiet = await client.note(BOOK)
        assert quiet["asks"] == second["asks"]
        assert 900 <= quiet["timestamp"] - second["timestamp"] <= 1200
        assert first["publish_id"] < second["publish_id"] < quiet["publish_id"]


async def test_prices_are_grouped_away_from_the_middle(autojump_clock):
    async with running() as house:
        client = await house.client()
        name = f"orderbook.{PERP}.100.1"
        await client.call("subscribe", channels=[name])
        book = await client.note(name)
        assert (book["bids"], book["asks"]) == ([["3000", "5"]], [["3001", "2"]])
        assert await client.code("subscribe", channels=[f"orderbook.{PERP}.5.10"]) == 13000


async def test_tickers_and_trades_are_told(autojump_clock):
    async with running() as house:
        client = await house.client()
        ticker, one, kind = f"ticker_slim.{PERP}.100", f"trades.{PERP}", "trades.perp.ETH"
        await client.call("subscribe", channels=[ticker, one, kind, "spot_feed.ETH"])
        assert (await client.note(ticker))["instrument_ticker"]["b"] == "3000"
        assert (await client.note("spot_feed.ETH"))["feeds"]["ETH"]["price"] == "3000"
        house.levers.take(PERP, Direction.SELL, D("5"))
        rows = await client.note(one)
        assert [(row["trade_price"], row["trade_amount"], row["direction"]) for row in rows] == [("3000", "5", "sell")]
        assert await client.note(kind) == rows
        assert (await client.note(ticker))["instrument_ticker"]["b"] == "2999.5"
        history = await client.call("public/get_trade_history", instrument_name=PERP)
        assert [(row["trade_id"], row["liquidity_role"], row["direction"]) for row in history["trades"]] == [
            (rows[0]["trade_id"], "taker", "sell"),
            (rows[0]["trade_id"], "maker", "buy"),
        ]


async def test_faults_of_books(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.call("subscribe", channels=[BOOK])
        first = await client.note(BOOK)
        house.levers.repeat_changes(PERP)
        second = await client.note(BOOK)
        assert await client.note(BOOK) == second
        house.levers.break_chain(PERP)
        assert (await client.note(BOOK))["publish_id"] < second["publish_id"] + 1
        house.levers.silence(PERP)
        client.inbox.clear()
        assert await client.quiet(BOOK, 3)
        house.levers.speak(PERP)
        assert (await client.note(BOOK))["publish_id"] > first["publish_id"]


# --- limits and platform -------------------------------------------------------------------------


async def test_who_is_not_logged_in_shares_one_window(autojump_clock):
    async with running(DeriveOptions(rates=TRADER)) as house:
        one, two = await house.client(), await house.client()
        for _ in range(12):
            await one.call("public/get_time")
            await two.call("public/get_time")
        left = await one.call("public/getRateLimits")
        assert left["remaining_non_matching"]["remainingPoints"] == 1
        assert left["remaining_non_matching"]["consumedPoints"] == 24
        await one.call("public/get_time")
        with pytest.raises(CallFailed) as refused:
            await two.call("public/get_time")
        assert refused.value.code == -32000
        assert refused.value.data.startswith("Retry after ")
        await trio.sleep(5.1)
        await two.call("public/get_time")


async def test_maintenance_is_an_incident(autojump_clock):
    async with running() as house:
        client = await house.client()
        assert await client.call("public/get_live_incidents") == {"incidents": []}
        house.levers.begin_maintenance()
        assert await client.code("public/get_time") == -32603
        (row,) = (await client.call("public/get_live_incidents"))["incidents"]
        assert (row["label"], row["severity"], row["creation_timestamp"]) == ("Maintenance", "high", START_MS)
        house.levers.end_maintenance()
        assert await client.call("public/get_live_incidents") == {"incidents": []}
        await client.call("public/get_time")


async def test_the_clock_can_be_wrong(autojump_clock):
    async with running() as house:
        client = await house.client()
        house.levers.shift_clock(-7000)
        assert await client.call("public/get_time") == START_MS - 7000


async def test_public_http(autojump_clock):
    async with running() as house:
        agent = {"User-Agent": "test"}
        status, body = await house.http("public/get_instrument", {"instrument_name": PERP}, agent)
        assert (status, body["result"]["instrument_name"]) == (200, PERP)
        assert len(body["id"]) == 36
        assert (await house.http("public/get_instrument", {"instrument_name": "X"}, agent))[1]["error"]["code"] == 12001
        assert (await house.http("public/get_time", {}, {}))[0] == 403
        assert (await house.http("public/get_time", {}, agent, verb="GET"))[0] == 405
        assert (await house.http("public/get_time", {}, agent, base="/v2"))[0] == 404
        assert (await house.http("subscribe", {"channels": [BOOK]}, agent))[1]["error"]["code"] == -32601


async def test_same_seed_same_ids(autojump_clock):
    ids = [derive_sandbox(seed=seed).engine.floor.names.order(None) for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
