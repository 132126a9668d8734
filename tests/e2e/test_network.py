"""Peers that are no exchange: the daemon lives, control answers, a signal ends it."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import WIDE, Daemon, Exchange, Program, write_config

SLOW = pytest.mark.slow
Answer = Callable[[socket.socket], None]


def say_nothing(peer: socket.socket) -> None:
    """Until the other side has had enough."""
    while peer.recv(65_536):
        pass


def hang_up(peer: socket.socket) -> None:
    peer.recv(1)


def server_error(peer: socket.socket) -> None:
    peer.recv(65_536)
    peer.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno!\n")


def garbage(peer: socket.socket) -> None:
    peer.recv(65_536)
    peer.sendall(bytes(range(256)) * 64)


class Peer:
    """Listens on a port of this process, treats every connection alike, counts them."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.open: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.listener.getsockname()[1]}/ws/api/v2"

    def accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(peer)
            self.threads.append(threading.Thread(target=self.talk, args=(peer,)))
            self.threads[-1].start()

    def talk(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            self.answer(peer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for peer in self.open:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        for peer in self.open:
            peer.close()


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    found = Peer(request.param)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("peer", "exchange"),
    [
        (say_nothing, "deribit"),
        (server_error, "deribit"),
        pytest.param(hang_up, "deribit", marks=SLOW),
        pytest.param(garbage, "deribit", marks=SLOW),
        pytest.param(garbage, "derive", marks=SLOW),
    ],
    indirect=["peer"],
)
def test_a_peer_that_is_no_exchange_is_survived(
    peer: Peer, exchange: str, tmp_path: Path, programs: list[Program]
) -> None:
    network = f'{{url: "{peer.url}"}}' if exchange == "deribit" else f'{{url: "{peer.url}", chain: mainnet}}'
    daemon = Daemon(tmp_path, write_config(tmp_path / "mmd.yaml", network=network, exchange=exchange))
    programs.append(daemon)
    daemon.until(daemon.answers, "control socket")
    daemon.until(lambda: peer.connections >= (2 if peer.answer is say_nothing else 4), "its tries")
    status = daemon.status()
    assert (status["phase"], status["symbols"]) == ("starting", [])
    (link,) = status["exchanges"]
    assert (link["data_link"], link["trade_link"]) == (False, False)
    said = daemon.ctl("status")
    assert said.status == 0 and "starting" in said.out and "DOWN" in said.out
    assert daemon.ctl("resume", WIDE[exchange][0]).status == 1
    reload = daemon.ctl("reload")
    assert reload.status == 1 and "still starting" in reload.err
    daemon.process.send_signal(signal.SIGHUP)  # too early for it, and no reason to die
    daemon.until(lambda: "config.reload_refused" in daemon.err, "the refusal")
    assert daemon.status()["phase"] == "starting"
    assert daemon.stop(seconds=10) == 0
    assert "Traceback" not in daemon.err
    assert not daemon.socket.exists()


def test_an_address_where_nobody_listens_is_tried_again_until_somebody_does(
    tmp_path: Path, programs: list[Program]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = write_config(tmp_path / "mmd.yaml", network=f'{{url: "ws://127.0.0.1:{port}/ws/api/v2"}}')
    daemon = Daemon(tmp_path, config)
    programs.append(daemon)
    daemon.until(lambda: daemon.answers() and daemon.events("link.lost"), "the first failure")
    programs.append(Exchange(tmp_path, "--market", "generated", port=port))
    daemon.ready().start_quoting()
    assert daemon.stop() == 0
