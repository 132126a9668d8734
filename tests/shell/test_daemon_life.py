"""The daemon's own duties on fakes: what it waits for, how it stops when it has only begun, what it refuses then."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from daemon_kit import CALLER, Venue
from shell_kit import BTC, ETH, START_NS, FakeExchange
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.config.load import load_text
from mmd.config.model import Config, ExchangeConfig
from mmd.domain.actions import CancelOrder
from mmd.domain.errors import LinkLost, MmdError
from mmd.domain.events import (
    OpenOrder,
    OrderClosed,
)
from mmd.domain.reasons import Side
from mmd.shell import daemon as daemon_module
from mmd.shell.daemon import DRAIN_SECONDS, RECONCILE_SECONDS, Daemon, Farewell
from mmd.shell.desk import Outcome
from mmd.shell.metrics import DaemonCollector, slices
from mmd.shell.selecting import indexes
from mmd.shell.wiring import Wired

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


class Life:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, text: str = TEXT, path: Path = Path("mmd.yaml")
    ) -> None:
        self.venue = Venue()

        def wire(config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
            return Wired(self.venue, None, "fake", "fake account")

        monkeypatch.setattr(daemon_module, "wire", wire)
        self.daemon = Daemon(load_text(text), path, lambda: START_NS)
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
    assert (daemon.phase, daemon.unreconciled(["deribit"])) == ("starting", ["deribit/ETH-PERPETUAL"])
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


async def test_a_stop_waits_until_the_exchange_may_be_asked_again(autojump_clock: MockClock, life: Life) -> None:
    """Derive tells who has asked too much to wait for its next window, of 5 s."""
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC, ETH)
    venue.thinks_seconds = 6.0
    daemon.stop()
    await daemon.stopped.wait()
    assert daemon.farewell == Farewell({"deribit": 0})


async def test_a_stop_asks_again_where_the_link_was_lost_for_a_moment(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC, ETH)
    venue.left = LinkLost("down")
    daemon.stop()
    await trio.sleep(3)
    venue.left = {}
    await daemon.stopped.wait()
    assert daemon.farewell == Farewell({"deribit": 0})
    assert [line.detail for line in daemon.events_since(0, 999) if line.name == "service.orders_unknown"] == ["down"]


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


async def test_a_daemon_that_stops_resumes_nothing_and_says_what_is_left(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC)
    venue.answers = False
    daemon.stop()
    await wait_all_tasks_blocked()
    assert list(daemon.pump.workers) == ["deribit/BTC-PERPETUAL"]  # the other one had nothing to wait for
    for symbols in (["all"], [BTC], [ETH], ["DOGE"]):
        with pytest.raises(MmdError, match=r"is stopping.*still there: 1 symbols, 2 orders that may rest"):
            await daemon.resume(symbols, "", CALLER, 1.0)
    await daemon.stopped.wait()
    for change in (daemon.pause, daemon.resume, daemon.reset):
        with pytest.raises(MmdError, match="the daemon is stopping"):
            await change(["all"], "looked", CALLER, 1.0)


async def test_a_halt_during_the_stop_tries_again_and_says_what_is_left(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(BTC)
    venue.answers = False
    daemon.stop()
    await wait_all_tasks_blocked()
    result = await daemon.halt(["all"], "now", CALLER, 1.0)
    assert result.outcome is Outcome.TIMED_OUT
    assert [(row.symbol, row.outcome, row.state) for row in result.symbols] == [(BTC, Outcome.TIMED_OUT, "DRAINING")]
    assert "is stopping" in result.detail and f"may be left: {BTC}: 2 orders" in result.detail
    venue.answers = True
    for state in daemon.pump.workers["deribit/BTC-PERPETUAL"].machine.own.every():
        assert venue.sink is not None
        venue.sink.post(BTC, OrderClosed(state.label, "", "user_request", 0, START_NS))
    result = await daemon.halt(["all"], "now", CALLER, 1.0)
    assert result.outcome is Outcome.REFUSED  # nothing is left, but it is not HALTED, and will be PAUSED
    assert [(row.symbol, row.outcome) for row in result.symbols] == [(BTC, Outcome.REFUSED)]
    assert "the exchanges list none of ours" in result.detail and "is PAUSED" in result.detail
    await daemon.stopped.wait()


@pytest.mark.parametrize(
    ("left", "outcome", "said"),
    [
        pytest.param({}, Outcome.REFUSED, "the exchanges list none of ours", id="nothing"),
        pytest.param(
            {BTC: [OpenOrder("mmd-kit-x", "1", Side.BID, 1, 1, 1)]},
            Outcome.TIMED_OUT,
            "may be left: deribit/BTC-PERPETUAL: 1 orders at the exchange",
            id="an order",
        ),
        pytest.param(LinkLost("down"), Outcome.TIMED_OUT, "may be left: deribit cannot be asked: down", id="nobody"),
    ],
)
async def test_a_halt_after_everybody_has_left_is_what_the_exchange_says(
    left: dict[str, list[OpenOrder]] | Exception, outcome: Outcome, said: str, autojump_clock: MockClock, life: Life
) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    daemon.stop()
    await daemon.stopped.wait()
    venue.left = left
    for symbols in (["all"], [BTC]):
        result = await daemon.halt(symbols, "now", CALLER, 1.0)
        assert (result.outcome, result.symbols) == (outcome, []) and said in result.detail
    other = await daemon.halt([ETH], "now", CALLER, 1.0)
    assert other.outcome is (Outcome.TIMED_OUT if isinstance(left, Exception) else Outcome.REFUSED)
    assert (await daemon.halt(["all"], "now", CALLER, 0.0)).outcome is Outcome.TIMED_OUT  # no time to ask


async def test_what_was_halted_is_halted_also_during_the_stop(autojump_clock: MockClock, life: Life) -> None:
    daemon, venue = (await life.started()).daemon, life.venue
    await life.quote(ETH)
    assert (await daemon.halt([BTC], "odd", CALLER, 1.0)).outcome is Outcome.DONE
    venue.answers = False
    daemon.stop()
    both = await daemon.halt(["all"], "now", CALLER, 0.5)  # before anybody drains: both come to HALTED
    assert {row.symbol: row.outcome for row in both.symbols} == {BTC: Outcome.DONE, ETH: Outcome.TIMED_OUT}
    assert set(daemon.register.halts) == {"deribit/BTC-PERPETUAL", "deribit/ETH-PERPETUAL"}
    await daemon.stopped.wait()


async def at_once(function: Callable[..., Config], *words: object) -> Config:
    """In place of a thread: mock time would run away while it works."""
    await trio.lowlevel.checkpoint()
    return function(*words)


async def test_the_position_of_a_symbol_that_a_reload_removed_is_shown(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    path = tmp_path / "mmd.yaml"
    life = Life(monkeypatch, nursery, path=path)
    life.venue.lots = {ETH: -4}
    daemon = (await life.started()).daemon
    assert daemon.status(["all"]).left_behind == []
    path.write_text(TEXT.replace("  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}\n", ""))
    assert (await daemon.reload(None, CALLER)).outcome is Outcome.DONE
    await wait_all_tasks_blocked()
    status = daemon.status(["all"])
    assert [row.symbol for row in status.symbols] == [BTC]
    assert [(row.symbol, row.position, row.left) for row in status.left_behind] == [(ETH, -40, "removed")]
    assert daemon.status(["*-PERPETUAL"]).left_behind == status.left_behind == daemon.positions([ETH])
    assert daemon.status([BTC]).left_behind == []
    with pytest.raises(KeyError):
        daemon.status([ETH])  # its state is nobody's any more
    text = b"".join(slices(DaemonCollector(daemon))).decode()
    assert 'mmd_position_left{exchange="deribit",symbol="ETH-PERPETUAL"} -40.0\n' in text
    assert 'mmd_position{exchange="deribit",symbol="ETH-PERPETUAL"}' not in text
    life.venue.holdings = {ETH: -7}
    await trio.sleep(31)
    assert [row.position for row in daemon.status(["all"]).left_behind] == [-70], "the exchange's count"
    life.venue.silent = True
    await trio.sleep(31)
    assert [row.position for row in daemon.status(["all"]).left_behind] == [-70], "as last known"
    life.venue.silent = False
    path.write_text(TEXT)
    assert (await daemon.reload(None, CALLER)).outcome is Outcome.DONE
    status = daemon.status(["all"])
    assert ([row.symbol for row in status.symbols], status.left_behind) == ([BTC, ETH], [])
    daemon.stop()
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
    listed = FakeExchange().instruments
    assert indexes(load_text(TEXT), "deribit", listed) == set()
    chosen = TEXT.replace(
        "  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}",
        "  - {select: {exchange: deribit, underlying: BTC, kinds: [perpetual]}, spread: near}",
    ).replace("  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: near}\n", "")
    assert indexes(load_text(chosen), "deribit", listed) == {("BTC", "btc_usd")}
    assert indexes(load_text(chosen), "derive", listed) == set()
