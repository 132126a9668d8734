"""ccxt and ccxt.pro, which this project did not write, against `mmd sandbox`: over HTTP and over WebSocket.

Runs only where ccxt is installed (`pip install ccxt`). MMD_PYTHON names an interpreter that can import
mmd, where it is another one than that of the tests.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

ccxt = pytest.importorskip("ccxt.async_support")
pro = pytest.importorskip("ccxt.pro")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PERP = "BTC/USD:BTC"
SECONDS = 20
PROGRAM = (
    "import argparse, sys; from mmd.cli import sandbox; p = argparse.ArgumentParser();"
    "sandbox.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.func(a))"
)


@pytest.fixture(scope="module", params=["recorded", "generated"])
def url(request):
    """The WebSocket URL of a sandbox of its own."""
    python = os.environ.get("MMD_PYTHON", sys.executable)
    words = ["sandbox", "--market", request.param, "--listen", "127.0.0.1:0", "--speed-bump-ms", "10"]
    with subprocess.Popen([python, "-c", PROGRAM, *words], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


@asynccontextmanager
async def exchange(kind, url):
    client = kind.deribit({"apiKey": "foreign", "secret": "secret", "enableRateLimit": True})
    client.urls["api"] = {"rest": "http" + url.removeprefix("ws").removesuffix("/ws/api/v2"), "ws": url}
    try:
        yield client
    finally:
        await client.close()


def play(scene):
    asyncio.run(asyncio.wait_for(scene(), SECONDS))


def test_market_data_over_http(url):
    async def scene():
        async with exchange(ccxt, url) as client:
            markets = await client.load_markets()
            assert PERP in markets
            market = markets[PERP]
            assert (market["swap"], market["inverse"], market["contractSize"]) == (True, True, 10.0)
            assert sum(bool(row["option"]) for row in markets.values()) > 100
            book = await client.fetch_order_book(PERP)
            assert book["bids"][0][0] < book["asks"][0][0]
            assert book["bids"] == sorted(book["bids"], reverse=True)
            ticker = await client.fetch_ticker(PERP)
            assert ticker["bid"] < ticker["ask"]
            assert ticker["info"]["state"] == "open"
            assert len(await client.fetch_tickers(params={"code": "BTC"})) > 10
            option = next(row for row in markets.values() if row["option"] and row["base"] == "BTC")
            greeks = await client.fetch_greeks(option["symbol"])
            assert -1 <= greeks["delta"] <= 1
            chain = await client.fetch_option_chain("BTC")
            assert option["symbol"] in chain
            assert (await client.fetch_time()) > 1_700_000_000_000
            assert (await client.fetch_status())["status"] == "ok"
            assert "BTC" in await client.fetch_currencies()
            await client.fetch_funding_rate(PERP)
            await client.fetch_funding_rate_history(PERP)
            assert await client.fetch_volatility_history("BTC")
            assert isinstance(await client.fetch_ohlcv(PERP), list)
            assert isinstance(await client.fetch_trades(PERP), list)

    play(scene)


def test_trading_over_http(url):
    async def scene():
        async with exchange(ccxt, url) as client:
            await client.load_markets()
            best = (await client.fetch_order_book(PERP))["bids"][0][0]
            order = await client.create_order(PERP, "limit", "buy", 10, best - 50, {"postOnly": True, "label": "x1"})
            assert (order["status"], order["amount"], order["filled"]) == ("open", 10.0, 0.0)
            assert (await client.fetch_order(order["id"], PERP))["price"] == best - 50
            assert [row["id"] for row in await client.fetch_open_orders(PERP)] == [order["id"]]
            edited = await client.edit_order(order["id"], PERP, "limit", "buy", 20, best - 60)
            assert (edited["id"], edited["amount"], edited["price"]) == (order["id"], 20.0, best - 60)
            cancelled = await client.cancel_order(order["id"], PERP)
            assert cancelled["status"] == "canceled"
            with pytest.raises(ccxt.OrderNotFound):
                await client.cancel_order("123", PERP)
            with pytest.raises(ccxt.BaseError):
                await client.create_order(PERP, "limit", "buy", 10, best * 3)
            taken = await client.create_order(PERP, "market", "buy", 100)
            assert (taken["status"], taken["filled"]) == ("closed", 100.0)
            trades = await client.fetch_my_trades(PERP)
            assert (trades[-1]["order"], trades[-1]["takerOrMaker"]) == (taken["id"], "taker")
            assert trades[-1]["fee"]["cost"] > 0
            (position,) = await client.fetch_positions([PERP])
            assert (position["side"], position["contracts"]) == ("long", 100.0)
            assert (await client.fetch_position(PERP))["entryPrice"] > 0
            balance = await client.fetch_balance({"code": "BTC"})
            assert 99 < balance["BTC"]["total"] < 101
            assert [row["id"] for row in await client.fetch_closed_orders(PERP)] == [taken["id"]]
            assert await client.fetch_order_trades(taken["id"], PERP)
            await client.create_order(PERP, "market", "sell", 100, params={"reduceOnly": True})
            assert not [row for row in await client.fetch_positions([PERP]) if row["contracts"]]
            await client.create_order(PERP, "limit", "buy", 10, best - 50)
            await client.cancel_all_orders(PERP)
            assert await client.fetch_open_orders(PERP) == []

    play(scene)


def test_watching(url):
    async def scene():
        async with exchange(pro, url) as client, exchange(ccxt, url) as trader:
            await client.load_markets()
            await trader.load_markets()
            for _ in range(3):
                book = await client.watch_order_book(PERP)
                assert book["bids"][0][0] < book["asks"][0][0]
            ticker = await client.watch_ticker(PERP)
            assert ticker["bid"] < ticker["ask"]
            assert (await client.watch_bids_asks([PERP]))[PERP]["bid"] > 0
            trades = asyncio.create_task(client.watch_trades(PERP))
            mine = asyncio.create_task(client.watch_my_trades(PERP))
            orders = asyncio.create_task(client.watch_orders(PERP))
            candles = asyncio.create_task(client.watch_ohlcv(PERP, "1m"))
            await asyncio.sleep(0.5)
            taken = await trader.create_order(PERP, "market", "buy", 10)
            assert (await orders)[-1]["id"] == taken["id"]
            assert (await mine)[-1]["order"] == taken["id"]
            assert (await trades)[-1]["price"] > 0
            assert (await candles)[-1][4] > 0
            balance = await client.watch_balance()
            assert balance["BTC"]["info"]["equity"] > 0
            placed = asyncio.create_task(client.watch_orders(PERP))
            await asyncio.sleep(0.2)
            price = (await trader.fetch_order_book(PERP))["bids"][0][0] - 50
            order = await trader.create_order(PERP, "limit", "buy", 10, price)
            assert {row["id"]: row["status"] for row in await placed}[order["id"]] == "open"
            await trader.cancel_order(order["id"], PERP)

    play(scene)
