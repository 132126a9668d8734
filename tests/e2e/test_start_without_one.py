"""A start while one of two exchanges is down: the other quotes, and the late one is recovered once it is there."""

import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from both import ACCOUNTS, PERPETUALS, TYPES, Both, again, plain, rigged
from house import Daemon, Program
from rigged_exchange import Rigged

pytestmark = pytest.mark.slow

STALE_SECONDS = 10.0
EACH = 2
SMALL_FILES = "journal: {{segment_mib: 0.1}}\n"
PAUSED = ("PAUSED", "startup")


@pytest.fixture(params=TYPES)
def victim(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def other(victim: str) -> str:
    return next(name for name in TYPES if name != victim)


def rig(both: Both, name: str, do: str, **params: object) -> Any:
    exchange = both.exchanges[name]
    assert isinstance(exchange, Rigged)
    return exchange.rig(do, **params)


def hit(both: Both, name: str) -> None:
    rig(both, name, "hit", count=1, account=ACCOUNTS[name])


def die(both: Both) -> None:
    """kill -9: orders rest at both exchanges, whose cancel-on-disconnect fails."""
    for name in TYPES:
        rig(both, name, "keep", on=True)
    both.daemon.process.send_signal(signal.SIGKILL)
    both.daemon.ended()
    assert all(len(both.resting(name)) == 2 * EACH for name in TYPES)


def start_again(both: Both) -> None:
    both.daemon = Daemon(both.folder, both.folder / "mmd.yaml")
    both.programs.append(both.daemon)
    both.daemon.ready()


def waiting(both: Both) -> set[str]:
    """What waits for its exchange."""
    rows = both.daemon.status()["waiting"]
    assert all(row["reason"] for row in rows)
    return {row["exchange"] for row in rows}


def alerts(both: Both) -> list[tuple[str, str]]:
    found = [alert for alert in both.daemon.status()["alerts"] if alert["name"] == "MmdExchangeAbsent"]
    return [(alert["exchange"], alert["severity"]) for alert in found]


def resume(both: Both, name: str) -> None:
    """All of one exchange quote on both sides."""
    both.until(lambda: both.daemon.ask("resume", symbols=[f"{name}/*"])["outcome"] == "done", f"resume of {name}")
    both.until(lambda: both.quoting(name), "both sides of every symbol")


def comes_back(both: Both, name: str) -> None:
    """Its symbols come into service by themselves, PAUSED, and go on when they are asked to."""
    both.until(lambda: len(both.rows(name)) == EACH, "its symbols in service")
    both.until(lambda: not alerts(both), "the end of the alert")
    assert both.states(name) == {PAUSED} and waiting(both) == set()
    resume(both, name)
    both.until(lambda: all(both.same_orders(each) for each in TYPES), "the same orders")


def same_positions(both: Both, name: str) -> bool:
    return both.positions(name) == both.exchange_positions(name)


def test_a_start_after_a_crash_with_one_exchange_down(tmp_path: Path, programs: list[Program], victim: str) -> None:
    """Orders were left at both; one cannot be reached, and fills there what we left, over two more crashes."""
    both = rigged(tmp_path, programs, STALE_SECONDS, text=PERPETUALS + SMALL_FILES, each=EACH)
    both.start()
    for name in TYPES:
        hit(both, name)
        both.until(lambda name=name: both.positions(name) and same_positions(both, name), f"positions at {name}")
    die(both)
    rig(both, victim, "refuse", on=True)
    held = both.exchange_positions(victim)
    start_again(both)
    assert both.rows(victim) == {} and waiting(both) == {victim} and alerts(both) == [(victim, "critical")]
    assert both.states(other(victim)) == {PAUSED}
    assert both.positions(other(victim)) == both.exchange_positions(other(victim))
    left = {row["symbol"]: row for row in both.daemon.status()["left_behind"]}
    assert {name: Decimal(str(row["position"])) for name, row in left.items()} == held
    assert {row["left"] for row in left.values()} == {"not in service yet"}
    said = both.daemon.ctl("status")
    assert "WAITING" in said.out and f"{victim} has not answered since the start" in said.out
    resume(both, other(victim))
    refused = both.daemon.ctl("resume", f"{victim}/*")
    assert refused.status != 0 and "has not answered since the start" in refused.out + refused.err
    halted = both.daemon.ask("halt", symbols=["all"], reason="a look")
    assert halted["outcome"] == "timed_out" and "may rest there" in str(halted)
    assert both.daemon.ask("reset", symbols=[f"{other(victim)}/*"], reason="looked")["outcome"] == "done"
    hit(both, victim)
    assert both.exchange_positions(victim) != held
    segment = both.daemon.status()["journal"]["segment"]
    both.until(lambda: both.daemon.status()["journal"]["segment"] > segment + 1, "files in which nobody has inherited")
    both.daemon.kill()
    start_again(both)
    assert both.rows(victim) == {} and waiting(both) == {victim} and alerts(both) == [(victim, "critical")]
    resume(both, other(victim))
    rig(both, victim, "refuse", on=False)
    comes_back(both, victim)
    both.until(lambda: all(same_positions(both, name) for name in TYPES), "the same positions")
    both.end()


def test_a_first_start_with_one_exchange_down_gives_room_to_nobody(
    tmp_path: Path, programs: list[Program], victim: str
) -> None:
    """Nobody knows what is held there. Nothing was ever placed there, but what counts is proof: the stop says so."""
    both = plain(tmp_path, programs, text=PERPETUALS, each=EACH)
    both.exchanges[victim].kill()
    both.daemon.ready()
    assert waiting(both) == {victim} and alerts(both) == [(victim, "critical")]
    assert both.daemon.ask("resume", symbols=[f"{other(victim)}/*"])["outcome"] == "done"
    rows = both.rows(other(victim)).values()
    assert {(row["min_position"], row["max_position"]) for row in rows} == {(0, 0)}
    assert {row[side]["withheld"] for row in rows for side in ("bid", "ask")} == {"no_room"}
    assert both.resting(other(victim)) == set()
    again(both, victim)
    comes_back(both, victim)
    both.until(lambda: both.quoting(other(victim)), "both sides of every symbol there")
    both.end()
