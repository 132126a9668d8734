"""One daemon, two exchanges, a hundred symbols: what one exchange suffers concerns its own symbols alone."""

import signal
from pathlib import Path

import pytest
from both import ACCOUNTS, EACH, TYPES, Both, again, pace, plain, rigged
from house import Program
from rigged_exchange import Rigged

pytestmark = pytest.mark.slow

PAUSED_SECONDS = 2.0  # a socket that ends is heard of at once; this machine may be busy
MEASURED_SECONDS = 3.0
KEPT_PACE = 0.4  # of two counts over so few seconds; who waits for another exchange has none
STALE_SECONDS = 10.0  # as it is unless configured
LOST_SECONDS = 26.0  # the longest silence of a link that is not lost, and a little
QUIET = ("ACTIVE", "auto_resumed")


@pytest.fixture(params=TYPES)
def victim(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def other(victim: str) -> str:
    return next(name for name in TYPES if name != victim)


class Survivor:
    """The exchange to which nothing happens: its symbols stay as they were, and go on quoting."""

    def __init__(self, both: Both, name: str) -> None:
        self.both, self.name = both, name
        self.pace = pace(both, name, MEASURED_SECONDS)
        self.since = both.since(name)
        assert len(self.since) == EACH and self.pace > 0

    def check(self) -> None:
        """Nothing became of it: no symbol left its state."""
        assert self.both.since(self.name) == self.since
        assert {state for state, _ in self.both.states(self.name)} == {"ACTIVE"}

    def goes_on(self) -> None:
        """Quotes move, at their pace."""
        found = pace(self.both, self.name, MEASURED_SECONDS)
        assert found > KEPT_PACE * self.pace, f"{self.name}: {found:.1f} answers a second, before {self.pace:.1f}"
        self.check()


def told(both: Both, victim: str, *, up: bool) -> None:
    """`mmdctl status` says which exchange it is, and how its symbols are."""
    said = both.daemon.ctl("status")
    lines = {name: next(line for line in said.out.splitlines() if line.startswith(f"{name} (")) for name in TYPES}
    assert said.status == 0
    assert "data up, orders up" in lines[other(victim)]
    assert ("data up, orders up" if up else "data DOWN, orders DOWN") in lines[victim]
    active = 2 * EACH if up else EACH
    assert f"{active} ACTIVE" in said.out
    assert up or f"{EACH} PAUS" in said.out  # PAUSED, or PAUSING while it is not known what rests


def back(both: Both, victim: str) -> None:
    """All symbols there quote again by themselves, and both sides have the same orders everywhere."""
    both.until(lambda: both.links(victim) == (True, True), "the links")
    both.until(lambda: both.quoting(victim), "both sides of every symbol")
    assert both.states(victim) == {QUIET}
    both.until(lambda: all(both.same_orders(name) for name in TYPES), "the same orders")
    told(both, victim, up=True)


def fill_some(both: Both, name: str) -> None:
    """Somebody trades with our orders; until the daemon has counted it."""
    rig(both, name, "hit", count=1)
    both.until(lambda: both.positions(name) and same_positions(both, name), f"positions at {name}")
    both.until(lambda: both.quoting(name), "both sides of every symbol")


def same_positions(both: Both, name: str) -> bool:
    return both.positions(name) == both.exchange_positions(name)


def rig(both: Both, name: str, do: str, **params: object) -> None:
    exchange = both.exchanges[name]
    assert isinstance(exchange, Rigged)
    if do == "hit":
        params["account"] = ACCOUNTS[name]
    exchange.rig(do, **params)


def test_one_exchange_is_killed_and_comes_back_with_nothing(
    tmp_path: Path, programs: list[Program], victim: str
) -> None:
    both = plain(tmp_path, programs)
    both.start()
    survivor = Survivor(both, other(victim))
    both.exchanges[victim].kill()
    lost = {("PAUSED", "exchange_disconnected")}
    both.until(lambda: both.states(victim) == lost, "all its symbols paused", PAUSED_SECONDS)
    survivor.goes_on()
    told(both, victim, up=False)
    again(both, victim)
    back(both, victim)
    survivor.check()
    both.end()


def test_one_exchange_cannot_be_reached_and_trades_on_with_our_orders(
    tmp_path: Path, programs: list[Program], victim: str
) -> None:
    """Its cancel-on-disconnect fails: all orders rest on, and some are filled while nobody hears of it."""
    both = rigged(tmp_path, programs, STALE_SECONDS)
    both.start()
    for name in TYPES:
        fill_some(both, name)
    survivor = Survivor(both, other(victim))
    rig(both, victim, "keep", on=True)
    rig(both, victim, "refuse", on=True)
    lost = {("PAUSED", "exchange_disconnected")}
    both.until(lambda: both.states(victim) == lost, "all its symbols paused", PAUSED_SECONDS)
    before = both.exchange_positions(victim)
    rig(both, victim, "hit", count=1)
    assert both.exchange_positions(victim) != before
    survivor.goes_on()
    told(both, victim, up=False)
    rig(both, victim, "refuse", on=False)
    back(both, victim)
    both.until(lambda: all(same_positions(both, name) for name in TYPES), "the same positions")
    survivor.check()
    both.end()


def test_one_exchange_stands_still_and_goes_on(tmp_path: Path, programs: list[Program], victim: str) -> None:
    """Sockets are open, nothing comes: the silence is noticed, no other link waits, and no total loses its room."""
    both = rigged(tmp_path, programs, STALE_SECONDS)
    both.start()
    for name in TYPES:
        fill_some(both, name)
    survivor = Survivor(both, other(victim))
    rig(both, victim, "keep", on=True)
    both.exchanges[victim].process.send_signal(signal.SIGSTOP)
    both.until(lambda: {state for state, _ in both.states(victim)} == {"PAUSED"}, "its symbols paused", 15.0)
    survivor.goes_on()
    both.until(lambda: both.links(victim) == (False, False), "the links to be lost", LOST_SECONDS)
    survivor.goes_on()
    both.exchanges[victim].process.send_signal(signal.SIGCONT)
    back(both, victim)
    both.until(lambda: all(same_positions(both, name) for name in TYPES), "the same positions")
    survivor.check()
    both.end()
