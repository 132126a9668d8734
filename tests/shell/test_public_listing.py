"""What Deribit lists, asked over plain HTTP: against the sandbox, which answers HTTP as the exchange does."""

import pytest
import trio

from mmd.domain.errors import LinkLost
from mmd.domain.instruments import Kind
from mmd.exchanges.deribit.listing import list_public
from mmd.sandbox.markets import recorded_market
from mmd.sandbox.serve import Sandbox


async def test_everything_listed_and_the_index_of_each_coin(nursery: trio.Nursery) -> None:
    sandbox = Sandbox(recorded_market(None, None, 1, False))
    await nursery.start(sandbox.run)
    port = await nursery.start(sandbox.serve_tcp, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{port}/ws/api/v2"
    instruments, prices = await trio.to_thread.run_sync(list_public, "deribit", url)
    assert instruments["BTC-PERPETUAL"].kind is Kind.PERPETUAL
    assert {"BTC", "ETH"} <= set(prices)
    assert prices["BTC"] == pytest.approx(32_200, rel=0.05)


async def test_nobody_there(nursery: trio.Nursery) -> None:
    with pytest.raises(LinkLost, match=r"127\.0\.0\.1:9"):
        await trio.to_thread.run_sync(list_public, "deribit", "ws://127.0.0.1:9/ws/api/v2")
