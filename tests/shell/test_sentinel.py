"""The sentinel's judgement: stuck is one machine that does not come back, not many that are quick, nor nobody."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from shell_kit import Room

from mmd.shell import sentinel as room_of_sentinel
from mmd.shell.sentinel import LOOKS, MachineStuck, Sentinel

PATIENCE = 0.05


class Turns:
    """A pump as the sentinel sees it: `at_each_look` is called whenever it looks, that many times."""

    def __init__(self, at_each_look: Callable[["Turns"], None], looks: int) -> None:
        self.handling: Any = None
        self._handled = 0
        self._left = looks
        self._do = at_each_look
        self.over = threading.Event()

    @property
    def handled(self) -> int:
        self._left -= 1
        if self._left <= 0:
            self.over.set()
        else:
            self._do(self)
        return self._handled


def watched(monkeypatch: pytest.MonkeyPatch, at_each_look: Callable[[Turns], None], looks: int) -> int:
    """How often it sent its signal within so many looks."""
    sent: list[int] = []
    monkeypatch.setattr(room_of_sentinel.signal, "pthread_kill", lambda thread, number: sent.append(number))
    turns = Turns(at_each_look, looks)
    guard = Sentinel(turns, PATIENCE)  # type: ignore[arg-type]  # all that it looks at
    thread = threading.Thread(target=guard.watch, daemon=True)
    thread.start()
    assert turns.over.wait(20.0)
    guard.stop()
    thread.join()
    assert set(sent) <= {signal.SIGUSR2}
    return len(sent)


def stuck(turns: Turns) -> None:
    turns.handling = "a worker"


def busy(turns: Turns) -> None:
    turns.handling = "a worker"
    turns._handled += 1


def idle(turns: Turns) -> None:
    turns.handling = None


async def test_a_machine_that_does_not_come_back_is_called_off_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time only after all its looks."""
    assert watched(monkeypatch, stuck, LOOKS * 2 + 3) == 2


async def test_machines_that_come_back_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, busy, LOOKS * 4) == 0


async def test_nobody_is_called_off_where_nobody_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, idle, LOOKS * 4) == 0


async def test_a_machine_is_called_off_once(autojump_clock: trio.testing.MockClock) -> None:
    """A second signal finds the supervisor at work, which must not be interrupted."""
    room = Room()
    guard = Sentinel(room.pump, PATIENCE)
    room.pump.handling = room.worker()
    with pytest.raises(MachineStuck, match=r"no decision within 0\.05 s"):
        guard.call_off(signal.SIGUSR2, None)
    assert room.pump.handling is None
    guard.call_off(signal.SIGUSR2, None)
