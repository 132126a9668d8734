"""What symbols that are gone left behind is counted by their exchanges."""

from collections.abc import AsyncIterator

import pytest
import trio
from shell_kit import BTC, ETH, Room
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.shell.remnants import AGAIN_SECONDS, Remnants
from mmd.shell.worker import Worker

KEY = f"deribit/{ETH}"


class Leaving:
    """A symbol quoted, and one that is gone with a position of 3 lots."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.room = Room(nursery)
        self.workers: list[Worker] = [self.room.worker(BTC), self.room.worker(ETH)]
        for worker, lots in zip(self.workers, (0, 3), strict=True):
            self.room.connect(worker, position_lots=lots)
        self.room.treasury.join(self.workers)
        self.room.pump.run()
        self.room.treasury.leave(self.workers[1])
        self.remnants = Remnants(self.room.treasury, self.room.exchanges, self.room.diary, 30.0)

    @property
    def lots(self) -> int:
        return self.room.treasury.machine.left_behind[KEY].lots


@pytest.fixture
async def leaving(nursery: trio.Nursery) -> AsyncIterator[Leaving]:
    leaving = Leaving(nursery)
    yield leaving
    nursery.cancel_scope.cancel()


async def test_a_start_waits_until_the_exchange_has_told(
    autojump_clock: MockClock, leaving: Leaving, nursery: trio.Nursery
) -> None:
    exchange = leaving.room.exchange
    assert leaving.lots == 3
    exchange.holdings, exchange.silent = {ETH: 5, BTC: 9}, True
    settled = trio.Event()

    async def settle() -> None:
        await leaving.remnants.settle(["deribit"])
        settled.set()

    nursery.start_soon(settle)
    await trio.sleep(5.5 * AGAIN_SECONDS)
    assert not settled.is_set() and leaving.lots == 3
    exchange.silent = False
    await settled.wait()
    assert leaving.lots == 5
    (line,) = [line for line in leaving.room.diary.since(0, 100) if line.name == "position.left"]
    assert (line.symbol, line.detail) == (ETH, "50 is what the exchange has of it now")


async def test_it_is_counted_again_and_again_and_forgotten_once_it_is_closed(
    autojump_clock: MockClock, leaving: Leaving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(leaving.remnants.run)
    await trio.sleep(31)
    assert leaving.lots == 3, "an answer without it says nothing"
    leaving.room.exchange.holdings = {ETH: 0}
    await trio.sleep(30)
    await wait_all_tasks_blocked()
    assert not leaving.room.treasury.machine.left_behind
