"""Halting under bad conditions: stuck machines, a flood, a restart, a cause that lasts, a fill that nobody tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio
from arena import ALL, BUY, HERE, HERE_BTC, HERE_ETH, LIMIT_SECONDS, NUDGE, THERE_BTC, Arena, arena, started
from provoke_house import Bug, fill_the_disk, make_room
from provoke_market import crash, trade_back, trade_elsewhere
from still import BTC, DERIVE, ETH, ON_EACH, D, Ground

from mmd.domain.reasons import Switch
from mmd.exchanges import audit
from mmd.shell.desk import Outcome
from mmd.shell.sentinel import PATIENCE_SECONDS as SENTINEL_SECONDS
from mmd.shell.sentinel import sentinel

CALLED_OFF_SECONDS = SENTINEL_SECONDS * 1.2  # five looks, and one that may just have missed it


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = trio.current_time()
    yield
    assert trio.current_time() - began <= seconds


def all_halted(found: Arena) -> None:
    assert [found.row(key).shown for key in ALL] == ["HALTED"] * len(ALL)
    assert not any(found.resting(key) for key in ALL)


# --- halt all ------------------------------------------------------------------------------------


async def test_halt_all_while_a_worker_is_stuck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with arena(monkeypatch, tmp_path) as found:
        bug = Bug(found.worker(HERE_BTC).machine)
        with sentinel(found.daemon.pump):
            bug.what = "loop"
            found.set_book(BTC, [(-1, 500)], [(1, 500)])  # what wakes it is under way when the command comes
            with within(CALLED_OFF_SECONDS + LIMIT_SECONDS):
                result = await found.halt()
        assert result.outcome is Outcome.DONE, result
        all_halted(found)
        assert found.state(HERE_ETH) == found.state(THERE_BTC) == ("HALTED", "operator")
        await found.reset()
        await found.quote()


@ON_EACH
async def test_halt_all_while_a_worker_is_stuck_for_good(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It hangs again when it is told to halt: it is taken out, its orders are pulled, and that is proven."""
    async with arena(monkeypatch, tmp_path, None, ground) as found:
        bug = Bug(found.worker(HERE_BTC).machine)
        with sentinel(found.daemon.pump):
            bug.what = "loop for ever"
            with within(2 * CALLED_OFF_SECONDS + LIMIT_SECONDS):
                result = await found.halt()
            assert result.outcome is Outcome.DONE, result
            all_halted(found)
            assert found.state(HERE_BTC) == ("HALTED", "worker_fault")
            refused = await found.reset([HERE_BTC])
            assert refused.outcome is Outcome.REFUSED
        assert bug.calls == 2  # and never again


async def test_halt_all_while_the_market_floods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with arena(monkeypatch, tmp_path) as found, trio.open_nursery() as nursery:
        floods = nursery.cancel_scope

        async def flood() -> None:
            for turn in count():
                for name in (BTC, ETH):
                    for step in range(20):
                        size = 100 + 10 * ((turn + step) % 50)
                        found.set_book(name, [(-1 - step % 7, size)], [(1 + step % 5, size)])
                await trio.lowlevel.checkpoint()

        counters = found.worker(HERE_BTC).counters
        nursery.start_soon(flood)
        await found.until(lambda: counters.conflated > 1000)  # more comes than is decided upon
        with within(LIMIT_SECONDS):
            result = await found.halt()
        assert result.outcome is Outcome.DONE, result
        all_halted(found)
        floods.cancel()


# --- what lasts ----------------------------------------------------------------------------------


async def test_halted_survives_a_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limited = {"limits": {"per_symbol": {"max_fills": 1}}}
    async with arena(monkeypatch, tmp_path, limited) as found:
        for _ in range(2):
            found.levers.fill_quote(found.account, BTC, BUY, D(10))
        await found.until(lambda: found.state(HERE_BTC) == ("HALTED", "repeated_fills"))
    for _ in range(2):  # however often
        async with started(monkeypatch, tmp_path, limited) as found:
            assert found.state(HERE_BTC) == ("HALTED", "repeated_fills")
            assert found.row(HERE_BTC).detail == "before a restart: 2 fills in 60 s, allowed 1"
            shown = next(line for line in found.daemon.switches() if line.switch == Switch.REPEATED_FILLS)
            assert HERE_BTC in shown.tripped
            restored = [(line.name, line.exchange, line.symbol) for line in found.daemon.alerts()]
            assert restored == [("MmdHaltRestored", HERE, BTC)]
            assert (await found.resume([HERE_BTC])).outcome is Outcome.REFUSED
            await found.quote([HERE_ETH, THERE_BTC])
            assert not found.resting(HERE_BTC)
    async with started(monkeypatch, tmp_path, limited) as found:
        assert (await found.reset([HERE_BTC])).outcome is Outcome.DONE
    async with started(monkeypatch, tmp_path, limited) as found:
        assert found.state(HERE_BTC) == ("PAUSED", "startup")
        await found.quote()


async def test_a_halt_that_could_not_be_written_is_written_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with arena(monkeypatch, tmp_path) as found:
        await fill_the_disk(found)
        assert (await found.halt()).outcome is Outcome.TIMED_OUT
        await found.until(lambda: bool(found.alerts(Switch.JOURNAL_FAILURE)))
        assert not (tmp_path / "halts.json").exists()
        await make_room(found)
        await found.until(lambda: not found.daemon.register.failed)
    async with started(monkeypatch, tmp_path) as found:
        assert all(found.row(key).state == "HALTED" for key in ALL)


@pytest.mark.parametrize(
    ("provoke", "limits", "why"),
    [
        pytest.param(trade_elsewhere, {"max_exposure": {"BTC": 0.05}}, "exposure", id="exposure"),
        pytest.param(crash, {"max_daily_loss_usd": 5}, "daily_loss", id="daily loss"),
    ],
)
async def test_a_reset_while_the_cause_lasts_halts_again(
    provoke, limits: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with arena(monkeypatch, tmp_path, {"limits": {"portfolio": limits}}) as found:
        await provoke(found)
        await found.until(lambda: all(found.state(key) == ("HALTED", why) for key in ALL))
        await found.reset()
        await found.until(lambda: all(found.state(key) == ("HALTED", why) for key in ALL), LIMIT_SECONDS)
        assert len(found.alerts(Switch(why))) == 1
        assert not any(found.resting(key) for key in ALL)


async def test_a_second_switch_leaves_the_first_reason_and_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with arena(monkeypatch, tmp_path, {"limits": {"portfolio": {"max_exposure": {"BTC": 0.05}}}}) as found:
        assert (await found.halt()).outcome is Outcome.DONE
        await trade_elsewhere(found)
        await found.until(lambda: bool(found.alerts(Switch.EXPOSURE)))
        assert all(found.state(key) == ("HALTED", "operator") for key in ALL)
        await trade_back(found)


# --- what is found though nobody tells it --------------------------------------------------------


@ON_EACH
async def test_a_fill_that_no_channel_tells_is_found(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(audit, "AUDIT_SECONDS", 0.2)
    async with arena(monkeypatch, tmp_path, None, ground) as found:
        found.levers.lose_fills(1, found.account)
        found.levers.fill_quote(found.account, BTC, BUY)
        await found.until(lambda: found.row(HERE_BTC).position == found.levers.position(found.account, BTC) == 1000)
        await found.until(partial(found.quoted, HERE_BTC))
        assert found.state(HERE_BTC) == ("ACTIVE", "resumed")
        assert not found.daemon.alerts()


@ON_EACH
async def test_orders_that_a_halted_market_keeps_are_told_and_go_when_it_opens(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    impatient = {
        "limits": {"per_symbol": {"unknown_timeout_seconds": 0.2}},
        "kill_switches": {"market_halt": {"response": "halt"}},
    }
    async with arena(monkeypatch, tmp_path, impatient, ground) as found:
        if ground is DERIVE:
            found.move(BTC, NUDGE)  # a replace that is refused tells of it, and nothing else does
        found.levers.halt(BTC)  # the exchange refuses cancels as well
        await found.until(lambda: found.state(HERE_BTC) == ("HALTED", "market_halted"), LIMIT_SECONDS)
        await found.until(lambda: bool(found.alerts(Switch.ORDERS_LEFT)), LIMIT_SECONDS + 0.2)
        assert found.row(HERE_BTC).shown == "HALTING (2 orders)"
        assert len(found.resting(HERE_BTC)) == 2
        found.levers.reopen(BTC)
        await found.until(lambda: found.row(HERE_BTC).shown == "HALTED")
        assert not found.resting(HERE_BTC)
        assert not found.alerts(Switch.ORDERS_LEFT)
        assert found.state(HERE_ETH) == ("ACTIVE", "resumed")
