"""`mmd run` up to the point where it would start: usage, files, secrets, the state directory's lock."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmd.cli import mmd
from mmd.cli.run import lock_state, only_cause
from mmd.journal.disk import OsDisk, in_the_way

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


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        pytest.param("file", "{state} is a file", id="a file"),
        pytest.param("link", "{state} is a symbolic link to {nowhere}, which is not there", id="a dead link"),
        pytest.param("below", "{state}/deep/er is below {state}, which is a file", id="below a file"),
        pytest.param("beyond", "{state}/deep is below {state}, which is a symbolic link", id="behind a dead link"),
    ],
)
@pytest.mark.parametrize("by", ["service.state_dir", "--state-dir"])
def test_a_state_directory_that_can_be_none_is_named_with_its_key(
    kind: str, says: str, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_TEST_ID", "id")
    monkeypatch.setenv("RUN_TEST_SECRET", "not-a-real-secret")
    state, nowhere, config = tmp_path / "state", tmp_path / "nowhere", tmp_path / "mmd.yaml"
    if kind in ("file", "below"):
        state.write_text("")
    else:
        state.symlink_to(nowhere)
    wanted = {"below": state / "deep" / "er", "beyond": state / "deep"}.get(kind, state)
    in_file = by == "service.state_dir"
    config.write_text(GOOD.replace("name: mmd,", f"name: mmd, state_dir: {wanted},") if in_file else GOOD)
    words = ["run", "-c", str(config), *([] if in_file else ["--state-dir", str(wanted)])]
    assert mmd.main(words) == (78 if in_file else 70)
    said = capsys.readouterr().err
    begins = f"{config}:2:33: service.state_dir: " if in_file else "mmd: --state-dir: "
    assert said.startswith(begins + says.format(state=state, nowhere=nowhere)), said
    assert said.endswith("; allowed: a directory, or a place where one can be made\n")
    assert not nowhere.exists()


def test_a_journal_that_is_no_directory_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_TEST_ID", "id")
    monkeypatch.setenv("RUN_TEST_SECRET", "not-a-real-secret")
    (tmp_path / "journal").write_text("")
    config = tmp_path / "mmd.yaml"
    config.write_text(GOOD)
    assert mmd.main(["run", "-c", str(config), "--state-dir", str(tmp_path)]) == 70
    assert f"--state-dir: {tmp_path}/journal is a file; allowed: a directory" in capsys.readouterr().err


def test_a_link_to_a_directory_is_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for path in (tmp_path / "link", tmp_path / "link" / "new", tmp_path / "new" / "er", tmp_path / "real"):
        assert in_the_way(path) == ""
        OsDisk().make_directory(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"is below {tmp_path}/file, which is a file; allowed") as refused:
        OsDisk().make_directory(tmp_path / "file" / "journal")
    assert refused.value.filename == str(tmp_path / "file" / "journal")


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
