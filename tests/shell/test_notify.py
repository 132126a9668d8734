"""The words to systemd, read back from a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mmd.shell.notify import Notifier, Pulse, connect, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd holds at the other end."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0mmd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name)
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield server


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    with closing(Notifier(connect())) as notifier:
        yield notifier


def test_words_arrive_as_systemd_spells_them(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.ready("quoting 2 of 3 symbols")
    assert manager.recv(4096) == b"READY=1\nSTATUS=quoting 2 of 3 symbols"
    assert notifier.stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    assert notifier.watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert notifier.extend_timeout(1.5)
    assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"


def test_reloading_carries_the_monotonic_clock_in_the_same_datagram(manager: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.reloading()
    word, clock = manager.recv(4096).decode().split("\n")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert word == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_status_cannot_smuggle_in_another_word(manager: socket.socket, notifier: Notifier) -> None:
    notifier.status("file refused:\nWATCHDOG=trigger – line 3")
    assert manager.recv(4096).decode() == "STATUS=file refused: WATCHDOG=trigger – line 3"


def test_a_full_or_dead_socket_costs_a_message_not_the_daemon(manager: socket.socket, notifier: Notifier) -> None:
    sent = 0
    while notifier.watchdog():  # nobody reads: the queue fills
        sent += 1
        assert sent < 100_000
    assert sent > 0
    manager.close()
    assert not notifier.ready()


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert connect() is None
    assert not Notifier(None).ready("x")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        pytest.param({}, None, id="not watched"),
        pytest.param({"WATCHDOG_USEC": "20000000"}, 20 / 3, id="a third of the limit"),
        pytest.param({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20 / 3, id="us"),
        pytest.param({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None, id="another process"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no number"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="zero"),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environ) == seconds


# --- a start that takes long ---------------------------------------------------------------------


def test_a_pulse_asks_for_more_time_once_a_second(manager: socket.socket, notifier: Notifier) -> None:
    now = 100.0
    pulse = Pulse(notifier, "reading the journal", 60.0, lambda: now)
    for now in (100.0, 100.2, 100.9, 101.0, 101.5, 103.0):  # noqa: B007 - the clock that it reads
        pulse()
    manager.setblocking(False)
    heard = []
    with suppress(BlockingIOError):
        while True:
            heard.append(manager.recv(4096))
    assert heard == [b"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the journal"] * 3


def test_a_pulse_that_nobody_hears_is_no_trouble() -> None:
    pulse = Pulse(Notifier(None), "reading", 60.0)
    pulse()
    pulse()
