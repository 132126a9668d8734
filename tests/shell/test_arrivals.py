"""Exchanges come one by one: two fakes under whole daemons, one after the other on one state directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_kit import CALLER, Venue
from shell_kit import BTC, ETH, START_NS
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.domain.actions import CancelOrder
from mmd.domain.errors import LinkLost, MmdError
from mmd.journal.reader import records
from mmd.journal.records import Joined, Unclaimed
from mmd.replay.replayer import Replayer
from mmd.shell import daemon as daemon_module
from mmd.shell.arrivals import ALERT, ANSWER_SECONDS, Stage
from mmd.shell.daemon import RECONCILE_SECONDS, Daemon, Farewell
from mmd.shell.desk import Outcome
from mmd.shell.keeper import inline
from mmd.shell.sink import LOGIN_REFUSED
from mmd.shell.wiring import Wired

A, B = "deribit", "other"
TEXT = """\
version: 1
service: {name: kit, mode: live, metrics: {listen: null}}
exchanges: {deribit: {type: deribit, network: sandbox}, other: {type: deribit, network: sandbox}}
spreads:
  near: {fair: mid, style: around, spread_bps: 20, size: 10}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: near}
  - {exchange: other, symbol: BTC-PERPETUAL, spread: near}
  - {exchange: other, symbol: ETH-PERPETUAL, spread: near}
limits:
  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 1000}
  portfolio: {max_exposure: {BTC: 10, ETH: 100}, max_notional_usd: 1000000, max_drawdown_usd: 100}
"""


class Place:
    """Where one daemon after the other lives: a state directory, a file, two exchanges of each life."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "mmd.yaml"
        self.path.write_text(TEXT)
        self.state = folder / "state"
        self.venues: dict[str, Venue] = {}
        self.accounts = {A: "account A", B: "account B"}

        def wire(config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
            return Wired(self.venues[config.name], None, "fake", self.accounts[config.name])

        monkeypatch.setattr(daemon_module, "wire", wire)

    @property
    def late(self) -> Venue:
        return self.venues[B]

    def begin(self, nursery: trio.Nursery) -> Daemon:
        """Nobody answers yet."""
        self.venues = {name: Venue(name) for name in (A, B)}
        daemon = Daemon(load_text(self.path.read_text()), self.path, lambda: START_NS, self.state, in_thread=inline)
        for venue in self.venues.values():
            venue.now_ns = daemon.clock.now_ns
        nursery.start_soon(daemon.run)
        return daemon

    async def come(self, daemon: Daemon, name: str, **lots: int) -> None:
        """This exchange answers, and tells what we have: lots by coin."""
        venue = self.venues[name]
        venue.lots = {BTC: lots.get("btc", 0), ETH: lots.get("eth", 0)}
        venue.listed.set()
        await wait_all_tasks_blocked()
        await venue.reconcile(BTC, ETH)
        await wait_all_tasks_blocked()

    async def without(self, daemon: Daemon, **lots: int) -> None:
        """A start is over to which the late one did not come."""
        await wait_all_tasks_blocked()
        self.venues[A].lots = {BTC: lots.get("btc", 0)}
        self.venues[A].listed.set()
        await trio.sleep(ANSWER_SECONDS + 0.1)
        await self.venues[A].reconcile(BTC)
        await daemon.running.wait()

    async def live_once(self, **lots: int) -> None:
        """A life to which both came, and which ended without a word; two orders of ours are out at each."""
        async with trio.open_nursery() as nursery:
            daemon = self.begin(nursery)
            await wait_all_tasks_blocked()
            self.venues[A].listed.set()
            await self.come(daemon, B, **lots)
            await self.venues[A].reconcile(BTC)
            await daemon.running.wait()
            await self.quote(daemon, f"{A}/{BTC}", f"{B}/{BTC}")
            nursery.cancel_scope.cancel()
        assert daemon.journal is not None
        daemon.journal.close()

    async def die(self, daemon: Daemon, nursery: trio.Nursery) -> None:
        """As above: nobody pulls, nobody says goodbye."""
        nursery.cancel_scope.cancel()
        assert daemon.journal is not None
        daemon.journal.close()

    async def quote(self, daemon: Daemon, *symbols: str) -> None:
        assert (await daemon.resume(list(symbols), "", CALLER, 5.0)).outcome is Outcome.DONE
        with trio.fail_after(5):
            while not all(row.bid.phase == row.ask.phase == "LIVE" for row in daemon.status(list(symbols)).symbols):
                await daemon.pump.wait_turn()

    def replayed(self) -> list[Any]:
        """Everything in the journal decided again: what differs, and whom the replay gave up."""
        replayer = Replayer()
        found = [replayer.feed(record) for record in records(self.state / "journal")]
        return [*filter(None, found), *replayer.stops]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def alerts(daemon: Daemon) -> list[tuple[str | None, str]]:
    return [(alert.exchange, alert.severity) for alert in daemon.alerts() if alert.name == ALERT]


def states(daemon: Daemon) -> dict[str, tuple[str, str]]:
    return {f"{row.exchange}/{row.symbol}": (row.state, row.reason) for row in daemon.status(["all"]).symbols}


def bounds(daemon: Daemon) -> dict[str, int]:
    found = daemon.status(["all"]).symbols
    return {f"{row.exchange}/{row.symbol}": int(row.max_position or 0) for row in found}


PAUSED = ("PAUSED", "startup")
HERE = {f"{A}/{BTC}": PAUSED}
ALL = {**HERE, f"{B}/{BTC}": PAUSED, f"{B}/{ETH}": PAUSED}


async def test_the_others_go_on_after_a_while_and_the_late_one_comes_by_itself(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    daemon = place.begin(nursery)
    began = trio.current_time()
    await place.without(daemon)
    assert trio.current_time() - began == pytest.approx(ANSWER_SECONDS, abs=0.2)
    assert states(daemon) == HERE and place.late.lenient and not hasattr(place.venues[A], "lenient")
    status = daemon.status(["all"])
    assert [(row.exchange, row.symbol) for row in status.waiting] == [(B, BTC), (B, ETH)]
    assert [(row.name, bool(row.waiting)) for row in status.exchanges] == [(A, False), (B, True)]
    await trio.sleep(RECONCILE_SECONDS)
    assert states(daemon) == HERE and alerts(daemon) == [(B, "critical")]
    await place.come(daemon, B, btc=3)
    assert states(daemon) == ALL and alerts(daemon) == [] and daemon.status(["all"]).waiting == []
    assert all(bounds(daemon).values()) and place.late.watched == [BTC, ETH]
    await place.venues[A].reconcile(BTC)  # its book has become old
    await place.quote(daemon, "all")
    daemon.stop()
    await daemon.stopped.wait()
    assert daemon.farewell == Farewell({A: 0, B: 0})
    assert place.replayed() == []


async def test_all_come_in_time_and_nobody_is_awaited(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    daemon = place.begin(nursery)
    await wait_all_tasks_blocked()
    place.venues[A].listed.set()
    await trio.sleep(ANSWER_SECONDS - 0.1)
    assert daemon.phase == "starting" and states(daemon) == {}
    place.late.listed.set()
    await wait_all_tasks_blocked()
    for name, symbols in ((A, (BTC,)), (B, (BTC, ETH))):
        await place.venues[name].reconcile(*symbols)
    await daemon.running.wait()
    assert states(daemon) == ALL and alerts(daemon) == [] and not hasattr(place.late, "lenient")
    assert daemon.treasury.machine.awaited == {} and set(daemon.arrivals.stages.values()) == {Stage.SERVED}
    daemon.stop()
    await daemon.stopped.wait()


async def test_where_nobody_knows_what_is_held_nobody_gets_room(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """A first start; another key; and what a process did not know the next one knows no better."""
    for lives in range(2):
        async with trio.open_nursery() as inside:
            daemon = place.begin(inside)
            await place.without(daemon)
            assert bounds(daemon) == {f"{A}/{BTC}": 0} and alerts(daemon) == [(B, "critical")], lives
            await place.die(daemon, inside)
    await place.live_once()
    place.accounts[B] = "another key"
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert bounds(daemon) == {f"{A}/{BTC}": 0}
    assert daemon.status(["all"]).symbols[0].bid.withheld in ("not_active", "no_room")
    await place.come(daemon, B)
    assert all(bounds(daemon).values()) and len(bounds(daemon)) == 3
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_what_the_last_process_left_counts_at_worst_and_is_taken_over(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    await place.live_once(btc=3, eth=-2)
    daemon = place.begin(nursery)
    await place.without(daemon)
    left = daemon.treasury.machine.left_behind
    # One lot is 10 USD; each order is one lot, and each position may be one larger by now. ETH was never resumed.
    assert {key: (share.lots, share.worst_lots) for key, share in left.items()} == {
        f"{B}/{BTC}": (3, 4),
        f"{B}/{ETH}": (-2, 2),
    }
    assert daemon.pump.outbox.elsewhere == {B: ["BTC", "BTC"]}
    assert {(row.symbol, row.left) for row in daemon.positions(["all"]) if row.left} == {
        (BTC, "not in service yet"),
        (ETH, "not in service yet"),
    }
    assert all(bounds(daemon).values()) and alerts(daemon) == [(B, "critical")]
    detail = next(alert.detail for alert in daemon.alerts() if alert.name == ALERT)
    assert "orders of the last process may rest there: mmd-kit-" in detail
    place.late.taken()
    await place.come(daemon, B, btc=3, eth=-2)
    assert states(daemon) == ALL and not any(row.left for row in daemon.positions(["all"]))
    assert {row.symbol: int(row.position) for row in daemon.positions([f"{B}/*"])} == {BTC: 30, ETH: -20}
    assert sum(isinstance(request, CancelOrder) for _, request in place.late.taken()) <= 2
    assert daemon.pump.outbox.elsewhere == {}
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_no_crash_and_no_new_file_loses_what_waits_for_its_heir(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """Twice it begins a new file, dies, and starts from that one alone; then its exchange comes."""
    await place.live_once(btc=3)
    for _ in range(2):
        async with trio.open_nursery() as inside:
            daemon = place.begin(inside)
            await place.without(daemon)
            journal = daemon.journal
            assert journal is not None and daemon.keeper is not None
            journal.rotate(daemon.clock.now_ns())
            daemon.keeper.begin_round()
            await trio.sleep(2.0)
            await place.die(daemon, inside)
    for old in sorted((place.state / "journal").glob("journal-*"))[:-1]:
        old.unlink()
    found = list(records(place.state / "journal"))
    assert {one.key for one in found if isinstance(one, Unclaimed)} == {f"{B}/{BTC}", f"{B}/{ETH}"}
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert daemon.treasury.machine.left_behind[f"{B}/{BTC}"].worst_lots == 4
    await place.come(daemon, B, btc=3)
    assert states(daemon) == ALL
    daemon.stop()
    await daemon.stopped.wait()
    joined = [one for one in records(place.state / "journal") if isinstance(one, Joined)]
    assert [(one.key, one.inherits) for one in joined][-2:] == [(f"{B}/{BTC}", True), (f"{B}/{ETH}", True)]
    assert place.replayed() == []


async def test_a_halt_outlives_that_its_exchange_is_late(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    async with trio.open_nursery() as inside:
        daemon = place.begin(inside)
        await wait_all_tasks_blocked()
        place.venues[A].listed.set()
        await place.come(daemon, B)
        await place.venues[A].reconcile(BTC)
        await daemon.running.wait()
        await daemon.halt([f"{B}/{ETH}"], "looked odd", CALLER, 1.0)
        await place.die(daemon, inside)
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert alerts(daemon) == [(B, "warning")]  # nothing rests, and what is held is known
    await place.come(daemon, B)
    assert states(daemon) == ALL | {f"{B}/{ETH}": ("HALTED", "operator")}
    daemon.stop()
    await daemon.stopped.wait()


async def test_changes_say_what_waits(autojump_clock: MockClock, nursery: trio.Nursery, place: Place) -> None:
    await place.live_once()
    daemon = place.begin(nursery)
    await place.without(daemon)
    waits = "other has not answered since the start"
    for change in (daemon.pause, daemon.resume, daemon.halt, daemon.reset):
        with pytest.raises(MmdError, match=f"ETH-PERPETUAL is not in service: {waits}; it will be PAUSED then"):
            await change([ETH], "", CALLER, 1.0)
    assert daemon.explain([ETH]) == daemon.orders([ETH]) == daemon.ledger([ETH]) == []
    assert [row.symbol for row in daemon.status([ETH]).waiting] == [ETH]
    with pytest.raises(KeyError):
        daemon.status(["DOGE"])
    await trio.sleep(3.0)
    await place.venues[A].reconcile(BTC)  # now nothing that the last process sent can come any more
    resumed = await daemon.resume(["all"], "", CALLER, 1.0)
    assert resumed.outcome is Outcome.REFUSED
    assert [(row.symbol, row.outcome, row.state) for row in resumed.symbols] == [
        (BTC, Outcome.DONE, "ACTIVE"),
        (BTC, Outcome.REFUSED, "WAITING"),
        (ETH, Outcome.REFUSED, "WAITING"),
    ]
    paused = await daemon.pause(["all"], "", CALLER, 1.0)
    assert [row.outcome for row in paused.symbols] == [Outcome.DONE, Outcome.TIMED_OUT, Outcome.TIMED_OUT]
    assert "may rest there: mmd-kit-" in paused.symbols[1].detail
    place.late.left = LinkLost("down")
    daemon.stop()
    with trio.fail_after(10):
        await daemon.stopped.wait()
    assert daemon.farewell == Farewell({A: 0, B: None})


async def test_a_stop_proves_what_the_journal_proves(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours was there at the end of the last process, and nothing was sent since."""

    async def quote(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Place, "quote", quote)
    await place.live_once()
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.late.left = LinkLost("down")
    daemon.stop()
    await daemon.stopped.wait()
    assert daemon.farewell == Farewell({A: 0, B: 0})


async def test_entries_that_do_not_fit_keep_their_own_exchange_out_until_the_file_is_right(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    right = place.path.read_text()
    place.path.write_text(right.replace("other, symbol: ETH-PERPETUAL", "other, symbol: DOGE-PERPETUAL"))
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.late.listed.set()
    await wait_all_tasks_blocked()
    assert states(daemon) == HERE and alerts(daemon) == [(B, "critical")] and place.late.watched == []
    (row,) = [row for row in daemon.status(["all"]).exchanges if row.name == B]
    assert "its entries do not fit: " in row.waiting and "lists no DOGE-PERPETUAL" in row.waiting
    assert (await daemon.reload(None, CALLER)).outcome is Outcome.DONE  # nothing is different: it is looked at again
    await wait_all_tasks_blocked()
    assert states(daemon) == HERE
    place.path.write_text(right)
    assert (await daemon.reload(None, CALLER)).outcome is Outcome.DONE
    await wait_all_tasks_blocked()
    await place.late.reconcile(BTC, ETH)
    await wait_all_tasks_blocked()
    assert states(daemon) == ALL and alerts(daemon) == []
    daemon.stop()
    await daemon.stopped.wait()


async def test_a_reload_meanwhile_is_about_the_others_and_counts_when_it_comes(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    daemon = place.begin(nursery)
    await place.without(daemon)
    text = place.path.read_text().replace("max_position: 100", "max_position: 80")
    place.path.write_text(text.replace("  - {exchange: other, symbol: ETH-PERPETUAL, spread: near}\n", ""))
    plan = await daemon.plan()
    assert plan.ok and plan.changed == [f"{A}/{BTC}"] and not plan.removed
    assert [(line.path, line.new) for line in plan.lines if line.path == "exchanges.other"] == [
        ("exchanges.other", "its entries are selected and judged when it comes")
    ]
    assert (await daemon.reload(None, CALLER)).outcome is Outcome.DONE
    assert [row.symbol for row in daemon.status(["all"]).waiting] == [BTC]
    await place.come(daemon, B)
    assert bounds(daemon) == {f"{A}/{BTC}": 80, f"{B}/{BTC}": 80}
    plan = await daemon.plan()
    assert plan.ok and not plan.lines and not plan.added and not plan.removed
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


@pytest.mark.parametrize("fits", [True, False])
async def test_an_undone_reload_keeps_who_came_meanwhile_if_it_fits_there_too(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place, fits: bool
) -> None:
    right = place.path.read_text()
    if not fits:
        place.path.write_text(right.replace("other, symbol: ETH-PERPETUAL", "other, symbol: DOGE-PERPETUAL"))
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.path.write_text(right.replace("max_position: 100", "max_position: 80"))
    assert (await daemon.reload(30.0, CALLER)).outcome is Outcome.DONE
    await place.come(daemon, B)
    assert bounds(daemon) == dict.fromkeys(ALL, 80)
    await trio.sleep(31)
    expected = dict.fromkeys(ALL, 100) if fits else {f"{A}/{BTC}": 100}
    assert bounds(daemon) == expected
    assert alerts(daemon) == ([] if fits else [(B, "critical")])
    assert daemon.arrivals.stages[B] is (Stage.SERVED if fits else Stage.REFUSED)
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_a_link_that_is_lost_at_once_is_asked_again(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = place.path.read_text()
    select = "{select: {exchange: other, underlying: ETH, kinds: [perpetual]}, spread: near}"
    place.path.write_text(text.replace("{exchange: other, symbol: ETH-PERPETUAL, spread: near}", select))
    daemon = place.begin(nursery)
    lost = True

    async def index_price(index: str) -> float:
        await trio.lowlevel.checkpoint()
        if lost:
            raise LinkLost("down again")
        return 3000.0

    monkeypatch.setattr(place.late, "index_price", index_price)
    await wait_all_tasks_blocked()
    place.late.listed.set()
    await place.without(daemon)
    assert states(daemon) == HERE and [row.symbol for row in daemon.status(["all"]).waiting] == [
        BTC,
        "selection of ETH",
    ]
    await trio.sleep(5)
    noted = [line for line in daemon.events_since(0, 999) if line.name == "exchange.not_asked"]
    assert [(line.exchange, line.detail) for line in noted] == [(B, "down again")] * 2  # not again and again
    lost = False
    await trio.sleep(2)
    await place.come(daemon, B)
    assert states(daemon) == ALL
    daemon.stop()
    await daemon.stopped.wait()


async def test_a_key_that_is_refused_late_is_told_and_ends_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    await place.live_once()
    daemon = place.begin(nursery)
    await place.without(daemon)
    for _ in range(3):
        daemon.sinks[B].report(LOGIN_REFUSED, "invalid_credentials")
    assert alerts(daemon) == [(B, "critical")]
    (row,) = [row for row in daemon.status(["all"]).exchanges if row.name == B]
    assert row.waiting == "does not let us in: invalid_credentials"
    await place.come(daemon, B)
    daemon.sinks[B].report(LOGIN_REFUSED, "again")  # as it may at any time
    assert states(daemon) == ALL and alerts(daemon) == []
    daemon.stop()
    await daemon.stopped.wait()


async def test_a_late_exchange_that_does_not_tell_holds_nobody_up(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.late.listed.set()
    await trio.sleep(RECONCILE_SECONDS - 1)
    assert daemon.treasury.machine.awaited == {B: False} and bounds(daemon)[f"{A}/{BTC}"] == 0
    await trio.sleep(2)
    assert daemon.treasury.machine.awaited == {} and bounds(daemon)[f"{A}/{BTC}"] == 100
    (line,) = [line for line in daemon.events_since(0, 999) if line.name == "service.unreconciled"]
    assert f"{B}/{BTC}" in line.detail and f"{A}/" not in line.detail
    refused = await daemon.resume([f"{B}/*"], "", CALLER, 1.0)
    assert refused.outcome is Outcome.REFUSED
    daemon.stop()
    await daemon.stopped.wait()


async def test_a_stop_while_nobody_came_brings_nobody_into_service(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.late.left = LinkLost("down")
    daemon.stop()
    await wait_all_tasks_blocked()
    place.late.listed.set()
    await daemon.stopped.wait()
    assert place.late.watched == [] and daemon.farewell == Farewell({A: 0, B: None})
