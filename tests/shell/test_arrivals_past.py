"""What the journal of several lives says of an exchange that is late: two fakes under whole daemons."""

import trio
from daemon_kit import CALLER
from shell_kit import BTC, ETH
from test_arrivals import TEXT, A, B, Place, alerts, bounds, place
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.domain.events import OpenOrder
from mmd.domain.reasons import Side
from mmd.shell.arrivals import Stage
from mmd.shell.daemon import LOOK_AGAIN_SECONDS
from mmd.shell.desk import Outcome

__all__ = ["place"]  # a fixture
B_BTC = "  - {exchange: other, symbol: BTC-PERPETUAL, spread: near}\n"


async def start_in_vain(place: Place) -> None:
    """Twice, and no exchange answers: systemd ends it after a minute."""
    for _ in range(2):
        async with trio.open_nursery() as inside:
            daemon = place.begin(inside)
            await wait_all_tasks_blocked()
            await daemon.pump.deliver()
            await place.die(daemon, inside)


async def test_a_start_that_nobody_answered_knows_no_more_than_none(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    await start_in_vain(place)
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert (bounds(daemon), alerts(daemon)) == ({f"{A}/{BTC}": 0}, [(B, "critical")])
    halted = await daemon.halt(["all"], "", CALLER, 5.0)
    assert [(row.state, row.outcome) for row in halted.symbols] == [
        ("HALTED", Outcome.DONE),
        ("WAITING", Outcome.TIMED_OUT),
        ("WAITING", Outcome.TIMED_OUT),
    ]
    assert "the journal does not say what is held there" in halted.symbols[1].detail
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_a_start_that_nobody_answered_spoils_nothing_of_what_the_one_before_knew(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    await place.live_once(btc=3)
    await start_in_vain(place)
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert all(bounds(daemon).values())
    assert daemon.treasury.machine.left_behind[f"{B}/{BTC}"].worst_lots == 4
    daemon.stop()
    await daemon.stopped.wait()


async def test_what_an_exchange_counted_of_a_symbol_that_was_gone_is_newer_than_its_machine(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """It is taken out of the file between two lives, and orders that were left fill; then its exchange is late."""
    await place.live_once(btc=3)
    place.path.write_text(TEXT.replace(B_BTC, ""))
    async with trio.open_nursery() as inside:
        daemon = place.begin(inside)
        await wait_all_tasks_blocked()
        place.venues[A].listed.set()
        place.late.holdings = {BTC: 40}
        await place.come(daemon, B)
        await place.venues[A].reconcile(BTC)
        await daemon.running.wait()
        await place.die(daemon, inside)
    daemon = place.begin(nursery)
    await place.without(daemon)
    left = daemon.treasury.machine.left_behind
    assert {key: (share.lots, share.worst_lots) for key, share in left.items()} == {f"{B}/{BTC}": (40, 41)}
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_room_for_orders_that_nobody_took_over_is_kept_until_none_rests(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """They are taken out of the file; their exchange comes late, and pulls them after a while."""
    await place.live_once(btc=3)
    place.path.write_text(TEXT.replace(B_BTC, ""))
    daemon = place.begin(nursery)
    await place.without(daemon)
    place.late.holdings = {BTC: 3}
    place.late.left = {BTC: [OpenOrder("mmd-kit-1", "1", Side.BID, 100, 1, 1)]}
    await place.come(daemon, B)
    await trio.sleep(3)
    assert daemon.treasury.machine.left_behind[f"{B}/{BTC}"].worst_lots == 4
    assert daemon.arrivals.stages[B] is Stage.JOINING
    place.late.left, place.late.holdings = {}, {BTC: 4}
    await trio.sleep(3)
    share = daemon.treasury.machine.left_behind[f"{B}/{BTC}"]
    assert (share.lots, share.worst_lots, daemon.arrivals.stages[B]) == (4, 4, Stage.SERVED)
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_an_exchange_that_lists_later_what_is_wanted_comes_by_itself(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """As after its maintenance, when not everything is there at once."""
    daemon = place.begin(nursery)
    missing = place.late.instruments.pop(ETH)
    await place.without(daemon)
    await place.come(daemon, B)
    assert daemon.arrivals.stages[B] is Stage.REFUSED and place.late.watched == []
    await trio.sleep(3 * LOOK_AGAIN_SECONDS)
    assert daemon.arrivals.stages[B] is Stage.REFUSED and alerts(daemon) == [(B, "critical")]
    place.late.instruments[ETH] = missing
    await trio.sleep(LOOK_AGAIN_SECONDS + 1)
    await place.late.reconcile(BTC, ETH)
    await wait_all_tasks_blocked()
    assert daemon.arrivals.stages[B] is Stage.SERVED and alerts(daemon) == []
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []
