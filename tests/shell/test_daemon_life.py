"""The daemon's own duties on fakes: what it waits for, how it stops when it has only begun, what it refuses then."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import trio
from shell_kit import BTC, ETH, MID_TICKS, START_NS, FakeExchange
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.domain.actions import CancelOrder, PlaceOrder, Request
from mmd.domain.errors import LinkLost, MmdError
from mmd.domain.events import (
    BookTop,
    DataLinkUp,
    OpenOrder,
    OrderAcked,
    OrderClosed,
    OrdersReported,
    PositionReported,
    Ticker,
    TradeLinkUp,
)
from mmd.domain.reasons import Side
from mmd.exchanges.api import Sink
from mmd.shell import daemon as daemon_module
from mmd.shell.daemon import DRAIN_SECONDS, RECONCILE_SECONDS, Daemon, Farewell, indexes
from mmd.shell.desk import Caller, Outcome
from mmd.shell.wiring import Wired

CALLER = Caller(uid=1, pid=1, name="ann")
TEXT = """\
version: 1
service: {name: kit, mode: live, metrics: {listen: null}}
exchanges: {deribit: {type: deribit, network: sandbox}}
spreads:
  near: {fair: mid, style: around, spread_bps: 20, size: 10}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: near}
  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}
limits:
  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 1000}
  portfolio: {max_exposure: {BTC: 10, ETH: 100}, max_notional_usd: 1000000, max_drawdown_usd: 100}
"""


class Venue(FakeExchange):
    """An exchange that lists and reconciles when a test lets it, and answers orders at once unless it is mute."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: Sink | None = None
        self.listed = trio.Event()
        self.answers = True
        self.left: dict[str, list[OpenOrder]] | Exception = {}
        self.asked = 0
        self._to_post: list[tuple[str, OrderAcked | OrderClosed]] = []
        self._wake = trio.Event()

    async def run(self, sink: Sink, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.sink = sink
        await self.listed.wait()
        self.stats["data"].up = self.stats["trade"].up = True
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            for symbol, event in self._to_post:
                sink.post(symbol, event)
            self._to_post.clear()
            await sink.deliver()

    async def reconcile(self, *symbols: str) -> None:
        assert self.sink is not None
        for symbol in symbols:
            mid, mark = MID_TICKS[symbol], MID_TICKS[symbol] / 2
            for event in (
                DataLinkUp(START_NS),
                TradeLinkUp(True, START_NS),
                OrdersReported((), START_NS),
                PositionReported(0, 0, START_NS),  # type: ignore[arg-type]  # flat: no average
                BookTop(((mid - 1, 5),), ((mid + 1, 5),), 1, START_NS, START_NS),
                Ticker(mark, mark, mark, 0.0, 0.0, 0.0, 0.0, START_NS, START_NS),
            ):
                self.sink.post(symbol, event)
        await self.sink.deliver()

    def submit(self, requests: Sequence[tuple[str, Request]]) -> None:
        super().submit(requests)
        if not self.answers:
            return
        for symbol, request in requests:
            if isinstance(request, PlaceOrder):
                size = request.size_lots
                acked = OrderAcked(request.label, request.label[-3:], request.price_ticks, size, size, START_NS)
                self._to_post.append((symbol, acked))
            elif isinstance(request, CancelOrder):
                self._to_post.append((symbol, OrderClosed(request.label, "", "user_request", 0, START_NS)))
        self._wake.set()

    async def open_orders(self) -> dict[str, list[OpenOrder]]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if isinstance(self.left, Exception):
            raise self.left
        return self.left

    async def index_price(self, index: str) -> float:
        await trio.lowlevel.checkpoint()
        return 80_000.0


class Life:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, text: str = TEXT) -> None:
        self.venue = Venue()

        def wire(config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
            return Wired(self.venue, None, "fake", "fake account")

        monkeypatch.setattr(daemon_module, "wire", wire)
        self.daemon = Daemon(load_text(text), Path("mmd.yaml"), lambda: START_NS)
        nursery.start_soon(self.daemon.run)

    async def started(self) -> "Life":
        self.venue.listed.set()
        await wait_all_tasks_blocked()
        await self.venue.reconcile(BTC, ETH)
        await self.daemon.running.wait()
        return self

    async def quote(self, *symbols: str) -> None:
        """Resume, and wait until both orders rest."""
        assert (await self.daemon.resume(list(symbols), "", CALLER, 5.0)).outcome is Outcome.DONE
        with trio.fail_after(5):
            while any(row.bid.phase != "LIVE" for name in symbols for row in self.daemon.status([name]).symbols):
                await self.daemon.pump.wait_turn()


@pytest.fixture
async def life(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(monkeypatch, nursery)


async def test_it_runs_once_every_symbol_is_reconciled(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = life.daemon, life.venue
    await wait_all_tasks_blocked()
    assert (daemon.phase, daemon.not_ready(), daemon.status(["all"]).symbols) == ("starting", "starting", [])
    venue.listed.set()
    await wait_all_tasks_blocked()
    assert venue.watched == [BTC, ETH]
    await venue.reconcile(BTC)
    await wait_all_tasks_blocked()
    assert (daemon.phase, daemon.unreconciled()) == ("starting", ["deribit/ETH-PERPETUAL"])
    await venue.reconcile(ETH)
    await daemon.running.wait()
    assert (daemon.phase, daemon.not_ready(), daemon.stuck()) == ("running", "", [])
    rows = daemon.status(["all"]).symbols
    assert {(row.state, row.max_position) for row in rows} == {("PAUSED", 100)}  # their bounds are granted already
    daemon.stop()
    await daemon.stopped.wait()
    assert daemon.phase == "stopped"


async def test_it_does_not_wait_for_ever(autojump_clock: MockClock, life: Life) -> None:
    life.venue.listed.set()
    began = trio.current_time()
    await life.daemon.running.wait()
    assert trio.current_time() - began == pytest.approx(RECONCILE_SECONDS)
    (line,) = [line for line in life.daemon.events_since(0, 99) if line.name == "service.unreconciled"]
    assert BTC in line.detail and ETH in line.detail
    life.daemon.stop()
    await life.daemon.stopped.wait()


async def test_a_stop_before_the_exchange_has_answered_just_ends(autojump_clock: MockClock, life: Life) -> None:
    await wait_all_tasks_blocked()
    life.daemon.stop()
    with trio.fail_after(1):
        await life.daemon.stopped.wait()
    assert life.daemon.farewell is None and life.venue.asked == 0


async def test_a_stop_while_it_reconciles_still_pulls_and_proves(autojump_clock: MockClock, life: Life) -> None:
    """One symbol was resumed although another is not known yet: its orders must not outlive us unasked."""
    daemon, venue = life.daemon, life.venue
    venue.listed.set()
    await wait_all_tasks_blocked()
    await venue.reconcile(BTC)
    await life.quote(BTC)
    assert daemon.phase == "starting"
    venue.taken()
    daemon.stop()
    await venue.reconcile(ETH)
    with trio.fail_after(5):
        await daemon.stopped.wait()
    assert [type(request) for _, request in venue.taken()] == [CancelOrder, CancelOrder]
    assert daemon.farewell == Farewell({"deribit": 0}) and not daemon.running.is_set()


async def test_a_stop_waits_for_the_exchanges_word_but_not_for_ever(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC, ETH)
    venue.answers = False
    venue.left = {BTC: [OpenOrder("mmd-kit-x", "1", Side.BID, 1, 1, 1)]}
    began = trio.current_time()
    daemon.stop()
    await daemon.stopped.wait()
    assert trio.current_time() - began == pytest.approx(DRAIN_SECONDS, abs=1)
    assert daemon.farewell is not None and not daemon.farewell.proven_empty
    assert str(daemon.farewell) == "deribit: 1"
    assert [line.detail for line in daemon.events_since(0, 999) if line.name == "service.orders_left"] == [
        "orders of ours that may rest: deribit: 1"
    ]


async def test_an_exchange_that_cannot_be_asked_proves_nothing(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    venue.left = LinkLost("down")
    daemon.stop()
    await daemon.stopped.wait()
    assert daemon.farewell == Farewell({"deribit": None}) and not daemon.farewell.proven_empty
    assert str(daemon.farewell) == "deribit: unknown"


async def test_what_needs_the_instruments_is_refused_before_they_are_known(
    autojump_clock: MockClock, life: Life
) -> None:
    await wait_all_tasks_blocked()
    for ask in (life.daemon.plan, lambda: life.daemon.reload(None, CALLER), lambda: life.daemon.confirm(CALLER)):
        with pytest.raises(MmdError, match="still starting"):
            await ask()
    with pytest.raises(MmdError, match="waiting for deribit"):
        await life.daemon.resume([BTC], "", CALLER, 1.0)
    assert "BTC-PERPETUAL" in life.daemon.config()
    life.daemon.stop()
    await life.daemon.stopped.wait()


async def test_a_daemon_that_stops_reloads_nothing(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC, ETH)
    venue.answers = False
    told: list[bool] = []
    daemon.on_reload = told.append
    daemon.stop()
    await wait_all_tasks_blocked()
    assert daemon.phase == "stopping"
    with pytest.raises(MmdError, match="stops"):
        await daemon.reload(None, CALLER)
    assert told == []
    await daemon.stopped.wait()


async def test_the_service_manager_hears_of_every_reload_from_beginning_to_end(
    autojump_clock: MockClock, life: Life
) -> None:
    daemon = (await life.started()).daemon
    told: list[bool] = []
    daemon.on_reload = told.append
    result = await daemon.reload(None, CALLER)  # there is no file at its path
    assert (result.outcome, told) == (Outcome.REFUSED, [True, False])
    daemon.stop()
    await daemon.stopped.wait()


def test_an_empty_farewell_is_none_left() -> None:
    assert Farewell({}).proven_empty and Farewell({"a": 0, "b": 0}).proven_empty
    assert not Farewell({"a": 0, "b": None}).proven_empty


def test_only_indexes_that_a_selection_speaks_of_are_asked_for() -> None:
    listed: Mapping[str, Mapping[str, object]] = {"deribit": FakeExchange().instruments}
    assert indexes(load_text(TEXT), listed) == set()
    chosen = TEXT.replace(
        "  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}",
        "  - {select: {exchange: deribit, underlying: BTC, kinds: [perpetual]}, spread: near}",
    ).replace("  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: near}\n", "")
    assert indexes(load_text(chosen), listed) == {("deribit", "BTC", "btc_usd")}
