"""nautilus_trader's own Deribit adapter, data and execution, against `mmd sandbox`.

Runs only where nautilus_trader with that adapter is installed (1.230 or newer). MMD_PYTHON names an
interpreter that can import mmd, where it is another one than that of the tests.
"""

import asyncio
import os
import subprocess
import sys
from decimal import Decimal

import pytest

pytest.importorskip("nautilus_trader")
deribit = pytest.importorskip("nautilus_trader.adapters.deribit")
execution = pytest.importorskip("nautilus_trader.adapters.deribit.execution")

from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, StrategyConfig, TradingNodeConfig  # noqa: E402
from nautilus_trader.core.nautilus_pyo3 import DeribitProductType  # noqa: E402
from nautilus_trader.live.node import TradingNode  # noqa: E402
from nautilus_trader.model.enums import BookType, OrderSide, TimeInForce  # noqa: E402
from nautilus_trader.model.identifiers import InstrumentId, TraderId  # noqa: E402
from nautilus_trader.trading.strategy import Strategy  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PERP = InstrumentId.from_str("BTC-PERPETUAL.DERIBIT")
SECONDS = 40
PROGRAM = (
    "import argparse, sys; from mmd.cli import sandbox; p = argparse.ArgumentParser();"
    "sandbox.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.func(a))"
)


@pytest.fixture(params=["recorded", "generated"])
def url(request):
    """The WebSocket URL of a sandbox of its own."""
    python = os.environ.get("MMD_PYTHON", sys.executable)
    words = ["sandbox", "--market", request.param, "--listen", "127.0.0.1:0"]
    with subprocess.Popen([python, "-c", PROGRAM, *words], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


class Quoter(Strategy):
    """Follows one book, places a bid far away, moves it, cancels it, takes once, and notes all that happened."""

    def __init__(self):
        super().__init__(StrategyConfig())
        self.seen = []
        self.resting = None
        self.done = asyncio.Event()

    def on_start(self):
        self.subscribe_quote_ticks(PERP)
        self.subscribe_trade_ticks(PERP)
        self.subscribe_order_book_deltas(PERP, book_type=BookType.L2_MBP)
        self.subscribe_mark_prices(PERP)
        self.subscribe_index_prices(PERP)
        self.subscribe_funding_rates(PERP)

    def note(self, what):
        if what not in self.seen:
            self.seen.append(what)

    def on_order_book_deltas(self, deltas):
        self.note("book")

    def on_mark_price(self, mark):
        self.note("mark")

    def on_index_price(self, index):
        self.note("index")

    def on_trade_tick(self, tick):
        self.note("trade")

    def on_quote_tick(self, tick):
        self.note("quote")
        if self.resting is None:
            instrument = self.cache.instrument(PERP)
            self.resting = self.order_factory.limit(
                PERP,
                OrderSide.BUY,
                instrument.make_qty(Decimal(10)),
                instrument.make_price(float(tick.bid_price) - 100),
                time_in_force=TimeInForce.GTC,
                post_only=True,
            )
            self.submit_order(self.resting)

    def on_order_accepted(self, event):
        self.note("accepted")
        if event.client_order_id == self.resting.client_order_id:
            instrument = self.cache.instrument(PERP)
            self.modify_order(self.resting, price=instrument.make_price(float(self.resting.price) - 10))

    def on_order_updated(self, event):
        self.note("updated")
        if event.client_order_id == self.resting.client_order_id:
            self.cancel_order(self.resting)

    def on_order_canceled(self, event):
        self.note("canceled")
        instrument = self.cache.instrument(PERP)
        self.submit_order(self.order_factory.market(PERP, OrderSide.BUY, instrument.make_qty(Decimal(100))))

    def on_order_filled(self, event):
        self.note("filled")

    def on_order_rejected(self, event):
        self.note(f"rejected {event.reason}")

    def on_order_denied(self, event):
        self.note(f"denied {event.reason}")

    def on_position_opened(self, event):
        self.note("position")


WANTED = {"book", "mark", "index", "trade", "quote", "accepted", "updated", "canceled", "filled", "position"}


def node_for(url):
    http = "http" + url.removeprefix("ws").removesuffix("/ws/api/v2")
    common = {
        "api_key": "foreign",
        "api_secret": "secret",
        "product_types": (DeribitProductType.FUTURE,),
        "base_url_http": http + "/api/v2",
        "base_url_ws": url,
        "instrument_provider": InstrumentProviderConfig(load_all=True),
    }
    config = TradingNodeConfig(
        trader_id=TraderId("MMD-001"),
        logging=LoggingConfig(log_level=os.environ.get("NAUTILUS_LOG", "ERROR")),
        data_clients={"DERIBIT": deribit.DeribitDataClientConfig(**common)},
        exec_clients={"DERIBIT": deribit.DeribitExecClientConfig(**common)},
        timeout_connection=10.0,
        timeout_reconciliation=5.0,
        timeout_portfolio=5.0,
        timeout_disconnection=5.0,
    )
    node = TradingNode(config=config)
    node.add_data_client_factory("DERIBIT", deribit.DeribitLiveDataClientFactory)
    node.add_exec_client_factory("DERIBIT", deribit.DeribitLiveExecClientFactory)
    return node


class Redirected:
    """nautilus_pyo3 with one difference: the order link, which takes no URL from its config, goes to the sandbox."""

    def __init__(self, module, url):
        self._module = module
        self.DeribitWebSocketClient = self
        self._url = url

    def __getattr__(self, name):
        return getattr(self._module, name)

    def with_credentials(self, environment, api_key, api_secret, account_id, proxy_url):
        client = self._module.DeribitWebSocketClient(self._url, api_key, api_secret, environment=environment)
        client.set_account_id(account_id)
        return client


def test_a_trading_node(url, monkeypatch):
    monkeypatch.setattr(execution, "nautilus_pyo3", Redirected(execution.nautilus_pyo3, url))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    node = node_for(url)
    quoter = Quoter()
    node.trader.add_strategy(quoter)
    node.build()

    async def scene():
        running = asyncio.ensure_future(node.run_async())
        for _ in range(SECONDS * 10):
            await asyncio.sleep(0.1)
            if set(quoter.seen) >= WANTED:
                break
        await node.stop_async()
        await asyncio.wait([running], timeout=10)

    try:
        loop.run_until_complete(scene())
        assert set(quoter.seen) == WANTED
        assert node.portfolio.net_position(PERP) == 100
    finally:
        node.dispose()
