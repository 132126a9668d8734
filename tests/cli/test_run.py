"""`mmd run` up to the point where it would start: usage, files, secrets, the state directory's lock."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmd.cli import mmd
from mmd.cli.run import lock_state, only_cause

GOOD = """\
version: 1
service: {name: mmd, mode: shadow, metrics: {listen: null}}
exchanges:
  deribit:
    type: deribit
    network: testnet
    credentials: {client_id: {env: RUN_TEST_ID}, client_secret: {env: RUN_TEST_SECRET}}
spreads:
  wide: {fair: mid, style: around, spread_bps: 200, size: 10}
instruments:
  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: wide}
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="no command"),
        pytest.param(["fly"], id="unknown command"),
        pytest.param(["run", "--log-level", "loud"], id="unknown level"),
        pytest.param(["run", "-c"], id="option without its value"),
        pytest.param(["demo", "--seconds", "soon"], id="time that is no number"),
    ],
)
def test_wrong_usage_is_64(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        mmd.main(list(words))
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (64, "")
    assert said.err.startswith("usage: mmd")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_demo_of_no_time_is_64(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["demo", f"--seconds={seconds}", "--json"]) == 64
    assert "above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        pytest.param("max_position: 1000", "max_positon: 1000", "max_positon", id="unknown key"),
        pytest.param("spread: wide}", "spread: wyde}", "wyde", id="unknown profile"),
        pytest.param("limits:\n", "spreads: {}\nlimits:\n", "spreads", id="duplicate key"),
        pytest.param("size: 10}", "size: ten}", "ten", id="wrong type"),
        pytest.param("version: 1\n", "version: 1\nbad: [\n", "mmd.yaml:", id="no YAML at all"),
        pytest.param("version: 1\n", "version: 99\n", "version", id="a version of the future"),
        pytest.param(GOOD[GOOD.index("limits:") :], "", "limits", id="no limits"),
        pytest.param(GOOD, "", "empty", id="an empty file"),
    ],
)
def test_a_wrong_configuration_is_78(
    old: str, new: str, finding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert GOOD.count(old) == 1
    config = tmp_path / "mmd.yaml"
    config.write_text(GOOD.replace(old, new))
    assert mmd.main(["run", "-c", str(config), "--state-dir", str(tmp_path / "state")]) == 78
    said = capsys.readouterr()
    assert str(config) in said.err and finding in said.err and said.out == ""
    assert not (tmp_path / "state").exists()  # nothing was touched


def test_a_missing_file_is_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["run", "-c", str(tmp_path / "none.yaml")]) == 78
    assert "none.yaml" in capsys.readouterr().err


def test_a_lock_is_held_by_one_and_tells_its_process(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "state"
    with lock_state(directory):
        assert (directory / "mmd.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(OSError, match="another mmd uses this state directory"):
            lock_state(directory)
        assert (directory / "mmd.lock").read_text() == f"{os.getpid()}\n"
    with lock_state(directory) as again:
        assert fcntl.fcntl(again, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_the_one_cause_of_a_group_is_found_however_deep() -> None:
    cause = OSError("full")
    assert only_cause(ExceptionGroup("", [ExceptionGroup("", [cause])])) is cause
    assert only_cause(ExceptionGroup("", [cause, ValueError()])) is None
