"""Reload step by step: parse, plan, commit; nothing half, nothing lost, and the way back."""

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, START_NS, Room, resolve_named
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.config.load import load
from mmd.config.model import Config
from mmd.config.select import Expired, Resolution
from mmd.domain.actions import AmendOrder, CancelOrder
from mmd.domain.errors import CredentialError, LinkLost
from mmd.domain.events import OrderClosed
from mmd.domain.reasons import State, Why
from mmd.shell.desk import Outcome
from mmd.shell.reload import Generation, Reloader

TEXT = """\
version: 1
service: {name: kit, mode: live, metrics: {listen: null}}
exchanges: {deribit: {type: deribit, network: sandbox}}
spreads:
  near: {fair: mid, style: around, spread_bps: 20, size: 10, tolerance_bps: 0}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: near}
  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}
limits:
  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 1000}
  portfolio: {max_exposure: {BTC: 10, ETH: 100}, max_notional_usd: 1000000, max_drawdown_usd: 100}
"""
ETH_LINE = "  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: near}\n"


class Works:
    """A reloader with two symbols that quote."""

    def __init__(self, path: Path, nursery: trio.Nursery) -> None:
        path.write_text(TEXT)
        self.path = path
        self.nursery = nursery
        self.room = room = Room(nursery)
        assert room.roster is not None
        self.committed = 0
        self.link_is_down = False
        self.ended: list[str] = []
        config = load(path)
        resolution = resolve_named(config)
        parts = (room.pump, room.roster, room.treasury)
        self.adopted: list[Config] = []
        self.reloader = Reloader(
            path, Generation(1, config, resolution), ["deribit"], self.resolve, parts, self.adopt, self.commit
        )
        room.roster.enlist(room.roster.prepare(resolution.symbols.values()))
        for worker in room.pump.workers.values():
            room.connect(worker)
            room.resume(worker)
            room.acknowledge(worker)

    def adopt(self, config: Config) -> None:
        if config.service.name == "no-secret":
            raise CredentialError("alerts.webhooks.pager: no token")
        self.adopted.append(config)

    async def resolve(self, config: Config, names: Collection[str]) -> Resolution:
        await trio.lowlevel.checkpoint()
        if self.link_is_down:
            raise LinkLost("the data link of deribit is down")
        found = resolve_named(config)
        for symbol in self.ended:
            entry = found.symbols.pop(f"deribit/{symbol}").entry
            found.expired[f"deribit/{symbol}"] = Expired("deribit", symbol, START_NS, entry)
            found.notes.append(str(found.expired[f"deribit/{symbol}"]))
        return found

    def commit(self) -> None:
        self.committed += 1

    def write(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    async def reload(self, confirm_seconds: float | None = None) -> tuple[Outcome, list[str]]:
        result = await self.reloader.reload(confirm_seconds, "ann", self.nursery)
        return result.outcome, result.plan.errors

    def ids(self) -> dict[str, tuple[str, str]]:
        """Labels of both orders by symbol."""
        own = {worker.symbol: worker.machine.own for worker in self.room.pump.workers.values()}
        return {symbol: (orders.bid.label, orders.ask.label) for symbol, orders in own.items()}

    def finish_cancels(self) -> None:
        """The exchange confirms every cancel that was sent."""
        for symbol, request in self.room.exchange.taken():
            if isinstance(request, CancelOrder):
                closed = OrderClosed(request.label, request.order_id, "user_request", 0, self.room.now_ns)
                self.room.sink.post(symbol, closed)
        self.room.pump.run()

    def said(self, name: str) -> list[str]:
        return [line.detail for line in self.room.diary.since(0, 9999) if line.name == name]


async def at_once(function: Callable[..., Config], *words: object) -> Config:
    """In place of a thread: mock time would run away while it works."""
    await trio.lowlevel.checkpoint()
    return function(*words)


@pytest.fixture
async def works(tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Works:
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    return Works(tmp_path / "mmd.yaml", nursery)


async def test_an_unchanged_file_touches_nothing(autojump_clock: MockClock, works: Works) -> None:
    before = works.ids()
    plan = await works.reloader.plan()
    assert (plan.ok, plan.lines, plan.unchanged) == (True, [], ["deribit/BTC-PERPETUAL", "deribit/ETH-PERPETUAL"])
    assert works.committed == 0
    assert await works.reload() == (Outcome.DONE, [])
    assert (works.reloader.current.number, works.committed) == (2, 1)
    assert (works.ids(), works.room.exchange.taken()) == (before, [])
    assert works.room.counters.reloads_applied == 1 and works.room.counters.last_reload_ok
    assert works.said("config.applied") == ["generation 2: 0 added, 0 removed, 0 changed, 2 unchanged"]


async def test_a_changed_symbol_moves_and_the_other_stays(autojump_clock: MockClock, works: Works) -> None:
    before = works.ids()
    works.write("ETH-PERPETUAL, spread: near}", "ETH-PERPETUAL, spread: near, spread_bps: 60}")
    plan = await works.reloader.plan()
    assert (plan.changed, plan.unchanged) == (["deribit/ETH-PERPETUAL"], ["deribit/BTC-PERPETUAL"])
    assert works.room.exchange.taken() == []  # a plan is only words
    assert await works.reload() == (Outcome.DONE, [])
    sent = works.room.exchange.taken()
    assert [(symbol, type(request)) for symbol, request in sent] == [(ETH, AmendOrder), (ETH, AmendOrder)]
    assert works.ids() == before


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        pytest.param("spread_bps: 20", "spread_bps: -20", "spread_bps", id="a value"),
        pytest.param("limits:", "limit:", "limit", id="a key"),
        pytest.param("spreads:", "spreads: [", "mmd.yaml:", id="no YAML"),
        pytest.param("name: kit", "name: other", "service.name", id="what needs a restart"),
        pytest.param("size: 10", "size: 1", "below the minimum", id="what does not fit the instrument"),
    ],
)
async def test_any_error_changes_nothing_and_is_said(
    old: str, new: str, error: str, autojump_clock: MockClock, works: Works
) -> None:
    before = works.ids()
    works.write(old, new)
    plan = await works.reloader.plan()
    assert not plan.ok and any(error in line for line in plan.errors)
    outcome, errors = await works.reload()
    assert outcome is Outcome.REFUSED and errors == plan.errors
    assert (works.reloader.current.number, works.committed, works.ids()) == (1, 0, before)
    assert works.room.exchange.taken() == []
    assert error in str(works.reloader.error) and error in works.said("config.refused")[0]
    assert (works.room.counters.reloads_refused, works.room.counters.last_reload_ok) == (1, False)
    works.write(new, old)
    assert await works.reload() == (Outcome.DONE, [])
    assert works.reloader.error is None and works.room.counters.last_reload_ok


async def test_an_exchange_that_cannot_be_asked_refuses_too(autojump_clock: MockClock, works: Works) -> None:
    works.link_is_down = True
    assert not (await works.reloader.plan()).ok
    assert await works.reload() == (Outcome.REFUSED, ["the data link of deribit is down"])
    works.path.unlink()
    outcome, (error,) = await works.reload()
    assert outcome is Outcome.REFUSED and str(works.path) in error


async def test_a_removed_symbol_drains_and_only_then_may_come_back(autojump_clock: MockClock, works: Works) -> None:
    works.write(ETH_LINE, "")
    assert await works.reload() == (Outcome.DONE, [])
    eth = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    assert eth.machine.state is State.DRAINING
    works.path.write_text(TEXT)
    outcome, (error,) = await works.reload()
    assert outcome is Outcome.REFUSED and "still draining" in error
    works.finish_cancels()
    await wait_all_tasks_blocked()
    assert list(works.room.pump.workers) == ["deribit/BTC-PERPETUAL"]
    assert works.room.exchange.watched == [BTC]
    assert await works.reload() == (Outcome.DONE, [])
    again = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    assert again is not eth and again.machine.state is State.PAUSED
    assert works.room.exchange.watched == [BTC, ETH]


async def test_a_symbol_that_comes_back_uses_no_label_again(autojump_clock: MockClock, works: Works) -> None:
    """An exchange that told of a label's end would not believe that it rests again."""
    used = set(works.ids()[ETH])
    works.write(ETH_LINE, "")
    await works.reload()
    works.finish_cancels()
    await trio.sleep(0.1)
    works.path.write_text(TEXT)
    await works.reload()
    again = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    works.room.connect(again)
    works.room.resume(again)
    assert again.machine.own.resting == 2
    assert not used & set(works.ids()[ETH])


async def test_a_mode_change_pulls_first(autojump_clock: MockClock, works: Works) -> None:
    works.write("mode: live", "mode: shadow")
    assert await works.reload() == (Outcome.DONE, [])
    btc = works.room.pump.workers["deribit/BTC-PERPETUAL"]
    assert btc.machine.mode == "live" and btc.machine.own.resting == 2
    works.finish_cancels()
    assert btc.machine.mode == "shadow" and len(btc.shadow) == 2
    assert works.room.exchange.taken() == []


# --- commit-confirm ------------------------------------------------------------------------------


def width_bps(works: Works) -> float:
    return works.room.pump.workers["deribit/ETH-PERPETUAL"].machine.rules.spread_bps


async def test_what_is_not_confirmed_is_undone(autojump_clock: MockClock, works: Works) -> None:
    works.write("spread_bps: 20", "spread_bps: 60")
    assert await works.reload(60.0) == (Outcome.DONE, [])
    assert (width_bps(works), works.reloader.current.number) == (60.0, 2)
    deadline_ns = works.reloader.confirm_deadline_ns
    assert deadline_ns is not None and deadline_ns - works.room.now_ns <= 60_000_000_000
    await trio.sleep(59.5)
    assert width_bps(works) == 60.0
    await trio.sleep(1)
    assert (width_bps(works), works.reloader.current.number) == (20.0, 3)
    assert (works.reloader.confirm_deadline_ns, works.committed) == (None, 2)
    assert works.said("config.undone") == [
        "not confirmed within 60 s: generation 3: 0 added, 0 removed, 2 changed, 0 unchanged"
    ]
    assert works.reloader.confirm("ann").outcome is Outcome.REFUSED


async def test_what_is_confirmed_stays(autojump_clock: MockClock, works: Works) -> None:
    works.write("spread_bps: 20", "spread_bps: 60")
    await works.reload(60.0)
    await trio.sleep(30)
    assert works.reloader.confirm("ann").outcome is Outcome.DONE
    await trio.sleep(120)
    assert (width_bps(works), works.reloader.current.number) == (60.0, 2)


async def test_a_second_trial_goes_back_to_what_was_last_confirmed(autojump_clock: MockClock, works: Works) -> None:
    works.write("spread_bps: 20", "spread_bps: 60")
    await works.reload(60.0)
    await trio.sleep(40)
    works.write("spread_bps: 60", "spread_bps: 80")
    await works.reload(60.0)
    await trio.sleep(40)  # the first trial's time is over; the second one's is not
    assert width_bps(works) == 80.0
    await trio.sleep(30)
    assert width_bps(works) == 20.0


async def test_a_plain_reload_confirms_what_was_on_trial(autojump_clock: MockClock, works: Works) -> None:
    works.write("spread_bps: 20", "spread_bps: 60")
    await works.reload(60.0)
    assert await works.reload() == (Outcome.DONE, [])
    await trio.sleep(120)
    assert width_bps(works) == 60.0


async def test_a_refused_reload_does_not_stop_the_clock(autojump_clock: MockClock, works: Works) -> None:
    works.write("spread_bps: 20", "spread_bps: 60")
    await works.reload(60.0)
    works.write("spread_bps: 60", "spread_bps: wide")
    assert (await works.reload())[0] is Outcome.REFUSED
    await trio.sleep(61)
    assert width_bps(works) == 20.0


async def test_the_way_back_takes_in_what_was_removed_once_it_is_gone(autojump_clock: MockClock, works: Works) -> None:
    works.write(ETH_LINE, "")
    await works.reload(5.0)
    works.finish_cancels()
    await trio.sleep(6)
    assert [worker.machine.state for worker in works.room.pump.workers.values()] == [State.ACTIVE, State.PAUSED]


async def undone_while_eth_drains(works: Works) -> None:
    works.write(ETH_LINE, "")
    await works.reload(5.0)
    await trio.sleep(6)  # undone, while the exchange has not confirmed the cancels
    assert works.room.pump.workers["deribit/ETH-PERPETUAL"].machine.state is State.DRAINING
    assert works.said("config.undone")[0].endswith("back as soon as they are gone: deribit/ETH-PERPETUAL")


async def test_what_still_drains_comes_back_by_itself(autojump_clock: MockClock, works: Works) -> None:
    await undone_while_eth_drains(works)
    old = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    works.finish_cancels()
    await wait_all_tasks_blocked()
    back = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    assert back is not old and back.machine.state is State.PAUSED
    assert works.said("config.undone")[1:] == ["deribit/ETH-PERPETUAL has drained and is back"]
    assert works.room.exchange.watched == [BTC, ETH]
    works.path.write_text(TEXT)
    assert await works.reload() == (Outcome.DONE, [])
    assert works.room.pump.workers["deribit/ETH-PERPETUAL"] is back


async def test_it_comes_back_as_the_configuration_is_by_then(autojump_clock: MockClock, works: Works) -> None:
    await undone_while_eth_drains(works)
    works.path.write_text(TEXT.replace("ETH-PERPETUAL, spread: near}", "ETH-PERPETUAL, spread: near, spread_bps: 60}"))
    assert await works.reload() == (Outcome.DONE, [])
    works.finish_cancels()
    await wait_all_tasks_blocked()
    assert width_bps(works) == 60.0


async def test_what_is_not_wanted_any_more_stays_away(autojump_clock: MockClock, works: Works) -> None:
    await undone_while_eth_drains(works)
    works.path.write_text(TEXT.replace(ETH_LINE, ""))
    assert await works.reload() == (Outcome.DONE, [])
    works.finish_cancels()
    await wait_all_tasks_blocked()
    assert list(works.room.pump.workers) == ["deribit/BTC-PERPETUAL"]


# --- what expires --------------------------------------------------------------------------------


async def test_what_has_expired_refuses_no_reload_and_leaves_by_itself(autojump_clock: MockClock, works: Works) -> None:
    """It waits for the news of its delivery; nobody removes it before."""
    eth = works.room.pump.workers["deribit/ETH-PERPETUAL"]
    eth.machine.instrument = msgspec.structs.replace(eth.machine.instrument, expiry_ns=works.room.now_ns)
    works.ended = [ETH]
    works.write("symbol: BTC-PERPETUAL, spread: near}", "symbol: BTC-PERPETUAL, spread: near, spread_bps: 60}")
    plan = await works.reloader.plan()
    (line,) = [line for line in plan.lines if line.symbols == [eth.key]]
    told = "instruments[1].symbol: ETH-PERPETUAL expired on 2023-11-14: left out"
    assert plan.ok and (line.path, line.effect, line.old) == ("instruments[1].symbol", "drain", eth.key)
    assert line.new == told
    assert await works.reload() == (Outcome.DONE, [])
    btc = works.room.pump.workers["deribit/BTC-PERPETUAL"]
    assert btc.machine.rules.spread_bps == 60.0
    assert eth.machine.why is not Why.REMOVED and works.room.pump.workers[eth.key] is eth
    assert works.said("config.note") == [told]
    assert await works.reload() == (Outcome.DONE, [])
    assert works.said("config.note") == [told]  # once


async def test_a_symbol_that_leaves_a_position_is_told_before_and_after(
    works: Works, autojump_clock: MockClock
) -> None:
    works.write(ETH_LINE, "")
    assert not [line for line in (await works.reloader.plan()).lines if "totals" in (line.new or "")]
    eth = next(worker for worker in works.room.pump.workers.values() if worker.symbol == ETH)
    works.room.fill(eth, "trade-1")
    works.room.pump.run()
    (line,) = [line for line in (await works.reloader.plan()).lines if "totals" in (line.new or "")]
    assert (line.effect, line.symbols) == ("drain", [eth.key])
    works.room.acknowledge(eth)
    assert (await works.reload())[0] is Outcome.DONE
    works.finish_cancels()
    await wait_all_tasks_blocked()
    assert works.said("position.left") == ["10 stays and counts towards the totals"]
