"""Every kill switch, provoked: state, alert, metric and an empty book in time; and the way back."""

from pathlib import Path

import pytest
from arena import ALL, GROUNDS, HERE, Arena, Ground, Provocation, arena, judge
from provocations import CASES
from provoke_exchange import Lag, lag_of

from mmd.domain.reasons import State, Switch
from mmd.domain.switches import SWITCHES
from mmd.exchanges.derive import market
from mmd.exchanges.session import RpcExchange
from mmd.shell.desk import Outcome
from mmd.shell.sentinel import sentinel


def is_told(found: Arena, case: Provocation) -> None:
    """Alert, explanation and table of switches say what happened, and what to do."""
    row = SWITCHES[case.switch]
    names = {HERE: (HERE, None), "portfolio": (None, None)}
    lines = {(line.exchange, line.symbol): line for line in found.alerts(case.switch)}
    assert set(lines) == {names.get(target, tuple(target.split("/"))) for target in case.targets}
    for line in lines.values():
        assert line.severity == case.severity
        assert row.alert in line.summary and case.detail in line.detail and line.runbook == row.runbook
    for key in case.scope:
        explained = found.daemon.explain([key])[0]
        assert (explained.state, explained.reason) == (case.state, case.reason)
        assert case.unproven or case.detail in explained.detail
        for side in (explained.bid, explained.ask):
            assert side.startswith("withheld: ") and case.reason in side and case.state[:4] in side
    shown = next(line for line in found.daemon.switches() if line.switch == case.switch)
    assert shown.trips >= 1 and shown.last is not None and case.detail in shown.last_detail
    halted = case.scope if case.state is State.HALTED else ()
    assert shown.tripped == sorted({*case.targets, *halted})


async def is_left(found: Arena, case: Provocation) -> None:
    """The way back: refused while it lasts, possible when it is over; then nothing is said any more."""
    keys = case.scope
    if case.state is State.HALTED:
        refused = await found.resume(keys)
        assert {row.outcome for row in refused.symbols} == {Outcome.REFUSED}
        assert all(found.state(key) == ("HALTED", case.reason) for key in keys)
        await case.mend(found)
        assert all(found.state(key) == ("HALTED", case.reason) for key in keys)  # that it is over changes nothing
        await found.until(lambda: all(found.worker(key).proven for key in keys))
        done = await found.reset(keys)
        assert done.outcome is Outcome.DONE, done
        assert {found.state(key) for key in keys} == {("PAUSED", "reset")}
    else:
        if case.blocked:
            refused = await found.resume(keys)
            assert {row.outcome for row in refused.symbols} == {Outcome.REFUSED}
            assert all(case.blocked in row.detail for row in refused.symbols), refused
        await case.mend(found)
        assert all(found.row(key).state == "PAUSED" for key in keys)  # nobody said resume
    await found.quote(keys)
    await found.until(lambda: not found.alerts(case.switch))
    shown = next(line for line in found.daemon.switches() if line.switch == case.switch)
    assert shown.tripped == []


@pytest.mark.parametrize(
    ("case", "ground"),
    [
        pytest.param(case, ground, id=f"{ground.type}: {case}")
        for ground in GROUNDS.values()
        for case in CASES
        if ground.type in case.spoken
    ],
)
async def test_a_provocation(
    case: Provocation, ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(RpcExchange, "event_lag_seconds", property(lag_of))
    monkeypatch.setattr(Lag, "seconds", 0.0)
    monkeypatch.setattr(market, "SPACING_MS", 500)  # how soon it is known that an instrument is open again
    monkeypatch.setattr(market, "CLOSED_MS", 500)
    monkeypatch.setattr(market, "TURN_SECONDS", 0.2)
    state = tmp_path / "state"
    state.mkdir()
    async with arena(monkeypatch, state, case.config, ground) as found:
        others = {key: found.labels(key) for key in ALL if key not in case.scope}
        with sentinel(found.daemon.pump):
            await judge(found, case)
        is_told(found, case)
        for key, orders in others.items():
            assert found.state(key) == ("ACTIVE", "resumed")
            assert found.labels(key) == orders
        await is_left(found, case)


def test_every_switch_is_provoked() -> None:
    """On each type of exchange."""
    for ground in GROUNDS.values():
        assert set(Switch) == {case.switch for case in CASES if ground.type in case.spoken}
