"""The processes of a benchmark: the peer, the bare script, the daemon; each started, asked and ended by its own pid.

CPU and memory come from /proc; times across processes from the one monotonic clock.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.peer import Command, Feed, Opened
from bench.venue import symbol_name
from mmd.cli.client import Client

ROOT = Path(__file__).parents[1]
READY_SECONDS = 20.0
STOP_SECONDS = 30.0
PROGRAM = ["-m", "mmd.cli.mmd"]
CALL_SECONDS = 60.0

CONFIG = """\
version: 1
service:
  name: bench
  mode: live
  control: {{socket: {socket}}}
  metrics: {{listen: "127.0.0.1:{metrics}"}}
exchanges:
  deribit:
    type: deribit
    network: {{url: "ws://127.0.0.1:{port}/ws/api/v2"}}
    credentials: {{client_id: {{env: MMD_BENCH_KEY}}, client_secret: {{env: MMD_BENCH_KEY}}}}
spreads:
  bench: {{fair: mid, style: around, spread_bps: {spread_bps}, band_bps: 2000, size: 10,
          tolerance_bps: 0, refresh_seconds: 0}}
market_data: {{stale_seconds: 600}}
instruments:
{instruments}
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, collar_bps: 1000, max_rejects: 1000,
               max_places_per_second: 10000, max_amends_per_second: 10000}}
  portfolio: {{max_exposure: {{BTC: 100000}}, max_notional_usd: 1000000000, max_drawdown_usd: 1000000}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """Time on a processor since its start, by the scheduler's own account."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) * 1e-9


def rss_mb(pid: int) -> float:
    """Resident memory, MB of 10^6 bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, "every live process has VmRSS"
    return int(found[1]) * 1024 / 1e6


def pin(pid: int, *, peer: bool) -> None:
    """The peer on one processor, who is measured on another, where there are two."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        os.sched_setaffinity(pid, {processors[0] if peer else processors[1]})


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to stop, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


class Peer:
    """The exchange-side peer in its process."""

    def __init__(self, symbols: int) -> None:
        command = [sys.executable, "-m", "bench.peer", "--symbols", str(symbols)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        pin(self.process.pid, peer=True)
        self.port: int = msgspec.json.decode(self._line())["port"]

    def _line(self) -> bytes:
        assert self.process.stdout is not None, "opened as a pipe"
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peer died")
        return line

    def _ask(self, command: Command) -> bytes:
        assert self.process.stdin is not None, "opened as a pipe"
        self.process.stdin.write(msgspec.json.encode(command) + b"\n")
        self.process.stdin.flush()
        return self._line()

    def feed(self, client: str, rate: int, seconds: float, symbols: int = 1, *, block: bool = False) -> Feed:
        """Send updates and measure; returns when done."""
        command = Command("feed", client=client, rate=rate, seconds=seconds, symbols=symbols, block=block)
        return msgspec.json.decode(self._ask(command), type=Feed)

    def orders(self, client: str, count: int, seconds: float = 30.0) -> Opened:
        """Wait until so many orders rest. RuntimeError if they do not."""
        command = Command("orders", client=client, seconds=seconds, count=count)
        opened = msgspec.json.decode(self._ask(command), type=Opened)
        if opened.open < count:
            raise RuntimeError(f"{client}: {opened.open} orders rest after {seconds:g} s, wanted {count}")
        return opened


class Bare:
    """The bare script in its process."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "bench.bare", str(port)], cwd=ROOT)
        pin(self.process.pid, peer=False)


class Service:
    """`mmd run` in its process, with its configuration, control socket and metrics."""

    def __init__(self, folder: Path, port: int, symbols: Sequence[str]) -> None:
        """Starts it; returns when it has said READY=1."""
        self.folder = folder
        self.symbols = list(symbols)
        self.metrics_port = free_port()
        self._port = port
        self._config = folder / "mmd.yaml"
        self._socket = folder / "mmd.sock"
        self._log = (folder / "log").open("wb")
        self.write_config()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(folder / "notify"))
            notices.settimeout(0.2)
            environment = {
                **os.environ,
                "NOTIFY_SOCKET": str(folder / "notify"),
                "MMD_BENCH_KEY": "not-a-secret-at-all",
            }
            command = [sys.executable, *PROGRAM, "run", "-c", str(self._config)]
            command += ["--state-dir", str(folder / "state"), "--log-format", "text"]
            self.started_ns = time.monotonic_ns()
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=self._log)
            pin(self.process.pid, peer=False)
            while b"READY=1" not in self._notice(notices):
                pass
            self.ready_ns = time.monotonic_ns()

    def _notice(self, notices: socket.socket) -> bytes:
        """The next word to systemd. RuntimeError once it ended, or had its time."""
        while self.process.poll() is None and time.monotonic_ns() - self.started_ns < READY_SECONDS * 1e9:
            try:
                return notices.recv(65_536)
            except TimeoutError:
                continue
        self.stop()
        raise RuntimeError(f"the daemon was not ready in {READY_SECONDS:g} s:\n{self.log_text()}")

    def stop(self) -> None:
        end(self.process)
        self._log.close()

    def write_config(self, *, spread_bps: float = 10) -> None:
        lines = [f"  - {{exchange: deribit, symbol: {symbol}, spread: bench}}" for symbol in self.symbols]
        text = CONFIG.format(
            socket=self._socket,
            metrics=self.metrics_port,
            port=self._port,
            spread_bps=spread_bps,
            instruments="\n".join(lines),
        )
        self._config.write_text(text)

    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def call(self, method: str, params: dict[str, object]) -> msgspec.Raw:
        """One request over the control socket."""
        client = Client(self._socket, CALL_SECONDS)
        try:
            return client.call(method, params, CALL_SECONDS)
        finally:
            client.close()

    def resume(self) -> int:
        """Make every symbol ACTIVE; returns the monotonic time of the first request.

        READY says that orders and positions are known; a book may come a moment later.
        """
        asked_ns = time.monotonic_ns()
        while True:
            result = self.call("resume", {"symbols": ["all"], "reason": "benchmark"})
            if msgspec.json.decode(result)["outcome"] == "done":
                return asked_ns
            if time.monotonic_ns() - asked_ns > READY_SECONDS * 1e9:
                raise RuntimeError(f"not resumed: {bytes(result).decode()}")
            time.sleep(0.001)

    def metric(self, name: str) -> float:
        """The largest sample of a metric now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return max(map(float, samples), default=0.0)

    @property
    def pid(self) -> int:
        return self.process.pid


@contextmanager
def peer(symbols: int) -> Iterator[Peer]:
    running = Peer(symbols)
    try:
        yield running
    finally:
        end(running.process)


@contextmanager
def bare(port: int) -> Iterator[Bare]:
    running = Bare(port)
    try:
        yield running
    finally:
        end(running.process)


@contextmanager
def service(port: int, symbols: int) -> Iterator[Service]:
    """A daemon that quotes the first `symbols` instruments of the peer; PAUSED, and stopped in order at the end."""
    with tempfile.TemporaryDirectory(prefix="mmd-bench-") as folder:
        running = Service(Path(folder), port, [symbol_name(number) for number in range(symbols)])
        try:
            yield running
        finally:
            running.stop()
