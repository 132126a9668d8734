"""`python -m bench.apart`: tick to order on one exchange while another one lives, and while it stands still.

The daemon quotes a symbol of the peer (Deribit's protocol, `bench.peer`, which has the stop-watch) and one of a Derive
sandbox, which is a process too. In turns the sandbox runs, and is stopped with all of its sockets open.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench import report
from bench.latency import Block, block, middle
from bench.processes import PROGRAM, ROOT, Peer, Service, cpu_seconds, end, peer, pin
from bench.venue import symbol_name
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET

DERIVE = """\
  derive:
    type: derive
    network: {{url: "{url}", chain: mainnet}}
    wallet: "{wallet}"
    session_key: {{file: "{key}"}}
    subaccount: {subaccount}
"""
WARM_UP_SECONDS = 1.5
RATE = 200  # updates a second: the sandbox needs a processor too


class Figures(msgspec.Struct):
    """Medians over the turns: the other exchange alive, and stopped."""

    machine: report.Machine
    turns: int
    alive: Block
    stopped: Block


class Both(Service):
    """A daemon that quotes there as well."""

    def __init__(self, folder: Path, port: int, url: str) -> None:
        self._url = url
        super().__init__(folder, port, [symbol_name(0)])

    def write_config(self, *, spread_bps: float = 10) -> None:
        super().write_config(spread_bps=spread_bps)
        key = self.folder / "key"
        key.touch(0o600)
        key.write_text(SESSION_SECRET)
        entry = DERIVE.format(url=self._url, wallet=WALLET, key=key, subaccount=SUBACCOUNT)
        config = self.folder / "mmd.yaml"
        text = config.read_text().replace("\nspreads:", f"\n{entry}spreads:")
        text = text.replace("\nlimits:", "\n  - {exchange: derive, symbol: ETH-PERP, spread: bench}\nlimits:")
        config.write_text(text.replace("{BTC: 100000}", "{BTC: 100000, ETH: 100000}"))


@contextmanager
def sandbox() -> Iterator[tuple[int, str]]:
    """Its pid, and its URL."""
    words = [sys.executable, *PROGRAM, "sandbox", "--exchange", "derive", "--listen", "127.0.0.1:0", "--no-rate-limits"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None, "opened as a pipe"
        pin(process.pid, peer=True)
        yield process.pid, process.stdout.readline().decode().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)


def warm_up(exchange: Peer) -> None:
    """Updates that count for nothing: what the sandbox does when it stops or goes on is over then."""
    exchange.feed("mmd", RATE, WARM_UP_SECONDS, block=True)


def turn(exchange: Peer, daemon: Service, seconds: float) -> Block:
    before = cpu_seconds(daemon.pid)
    feed = exchange.feed("mmd", RATE, seconds, block=True)
    return block(feed, cpu_seconds(daemon.pid) - before)


def measure(turns: int, seconds: float) -> Figures:
    on, alive, stopped = report.machine(), [], []
    with tempfile.TemporaryDirectory(prefix="mmd-bench-") as folder, sandbox() as (pid, url), peer(1) as exchange:
        daemon = Both(Path(folder), exchange.port, url)
        try:
            daemon.resume()
            exchange.orders("mmd", 2)
            warm_up(exchange)
            for _ in range(turns):
                alive.append(turn(exchange, daemon, seconds))
                os.kill(pid, signal.SIGSTOP)
                warm_up(exchange)
                stopped.append(turn(exchange, daemon, seconds))
                os.kill(pid, signal.SIGCONT)
                warm_up(exchange)
        finally:
            daemon.stop()
    return Figures(on, turns, middle(alive), middle(stopped))


def table(found: Figures) -> str:
    on = found.machine
    rows = [f"{on.cpu}, {on.cores} cores, load before {on.load_before:.2f}; {found.turns} turns; p50 / p99 in µs"]
    for name, one in (("the other exchange alive", found.alive), ("the other exchange stopped", found.stopped)):
        rows.append(f"{name:<30} {one.p50_us:8.0f} / {one.p99_us:<8.0f} answered {one.answered:.1%}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.apart", description="One exchange while another stops.")
    parser.add_argument("--turns", metavar="N", type=int, default=6, help="how often it is stopped")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there as well")
    args = parser.parse_args()
    found = measure(args.turns, 3.0)
    print(table(found))
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
