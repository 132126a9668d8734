"""`mmd demo` as people and scripts run it: the summary, the table on a terminal, Ctrl-C, and what it refuses."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmd.cli import mmd

DEMO = [sys.executable, "-m", "mmd.cli.mmd", "demo"]
KEYS = {
    "symbols",
    "orders_placed",
    "orders_amended",
    "orders_cancelled",
    "fills",
    "pnl_usd",
    "orders_left_at_exchange",
}
OTHER = """\
version: 1
service: {{mode: live}}
exchanges:
  deribit: {{type: deribit, network: {network}, credentials: {{client_id: {{env: A}}, client_secret: {{env: B}}}}}}
spreads: {{perp: {{size: 10}}}}
instruments: [{{exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}}]
limits:
  per_symbol: {{max_position: 100, max_order_size: 50, collar_bps: 1000}}
  portfolio: {{max_exposure: {{BTC: 10}}, max_notional_usd: 1000000, max_drawdown_usd: 5000}}
"""


def test_the_summary_is_one_object_with_orders_fills_and_nothing_left() -> None:
    ran = subprocess.run([*DEMO, "--seconds", "5", "--json"], capture_output=True, text=True, check=False, timeout=90)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("\n") == 1
    summary = json.loads(ran.stdout)
    assert summary.keys() >= KEYS
    assert summary["symbols"] == summary["symbols_active"] > 10
    assert summary["orders_placed"] > 0 and summary["fills"] > 0
    assert summary["orders_left_at_exchange"] == 0
    assert isinstance(summary["pnl_usd"], float)
    assert 4.5 < summary["seconds"] < 30


class Terminal:
    """A pseudo terminal of 100 columns and what was written on it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.bytes = b""

    @property
    def text(self) -> str:
        return self.bytes.decode(errors="replace")

    def run(self, words: list[str]) -> subprocess.Popen[bytes]:
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "60"}
        process = subprocess.Popen(
            words, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, env=env, start_new_session=True
        )
        os.close(self.theirs)
        return process

    def read(self, seconds: float) -> bool:
        """Take what is there; False once the other side has closed."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.ours, 65_536)
        except OSError:  # how Linux says that the last writer is gone
            return False
        self.bytes += piece
        return bool(piece)


def test_ctrl_c_on_a_terminal_ends_the_table_with_the_proof() -> None:
    terminal = Terminal()
    process = terminal.run(DEMO)
    try:
        deadline = time.monotonic() + 60
        while not re.search(r"[1-9][0-9]* placed.*Ctrl-C ends", terminal.text, flags=re.DOTALL):
            assert time.monotonic() < deadline and terminal.read(1.0), terminal.text[-2000:]
        assert "BTC-PERPETUAL" in terminal.text and "\x1b[" in terminal.text
        process.send_signal(signal.SIGINT)
        while terminal.read(1.0):
            assert time.monotonic() < deadline
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal.ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.text)
    assert "the exchange says that no order of ours rests" in plain
    assert re.search(r"[0-9]+ s, [0-9]+ symbols: [0-9]+ placed", plain)
    assert "Traceback" not in plain
    assert all(len(line.rstrip()) <= 100 for line in plain.replace("\r", "\n").splitlines())


@pytest.mark.parametrize("network", ["testnet", "mainnet", '{url: "ws://127.0.0.1:1/ws/api/v2"}'])
def test_any_other_network_is_refused(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mmd.yaml"
    config.write_text(OTHER.format(network=network))
    assert mmd.main(["demo", "-c", str(config), "--seconds", "1", "--json"]) == 78
    said = capsys.readouterr()
    assert "only in the sandbox" in said.err and "deribit" in said.err and said.out == ""


def test_a_broken_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mmd.yaml"
    config.write_text("version: 1\n")
    assert mmd.main(["demo", "-c", str(config)]) == 78
    assert str(config) in capsys.readouterr().err
