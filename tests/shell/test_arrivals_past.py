"""What the journal of several lives says of an exchange that is late: two fakes under whole daemons."""

import trio
from shell_kit import BTC
from test_arrivals import A, B, Place, alerts, bounds, place
from trio.testing import MockClock, wait_all_tasks_blocked

__all__ = ["place"]  # a fixture


async def test_a_start_that_nobody_answered_knows_no_more_than_none(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    """As where systemd ends a first start after a minute, and again."""
    for _ in range(2):
        async with trio.open_nursery() as inside:
            daemon = place.begin(inside)
            await wait_all_tasks_blocked()
            await daemon.pump.deliver()
            await place.die(daemon, inside)
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert (bounds(daemon), alerts(daemon)) == ({f"{A}/{BTC}": 0}, [(B, "critical")])
    daemon.stop()
    await daemon.stopped.wait()
    assert place.replayed() == []


async def test_a_start_that_nobody_answered_spoils_nothing_of_what_the_one_before_knew(
    autojump_clock: MockClock, nursery: trio.Nursery, place: Place
) -> None:
    await place.live_once(btc=3)
    for _ in range(2):
        async with trio.open_nursery() as inside:
            daemon = place.begin(inside)
            await wait_all_tasks_blocked()
            await daemon.pump.deliver()
            await place.die(daemon, inside)
    daemon = place.begin(nursery)
    await place.without(daemon)
    assert all(bounds(daemon).values())
    assert daemon.treasury.machine.left_behind[f"{B}/{BTC}"].worst_lots == 4
    daemon.stop()
    await daemon.stopped.wait()
