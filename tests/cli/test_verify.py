"""`mmd verify`: outcomes, words, statuses, and where it looks."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.cli import mmd
from mmd.domain.settings import JournalSettings
from mmd.journal.records import Left
from mmd.journal.writer import Journal
from mmd.shell.locks import lock_state

NOW = 1_700_000_000_000_000_000
FIRST, SECOND = "journal-00000001.jsonl", "journal-00000002.jsonl"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Seven records in two files."""
    on = Journal(
        tmp_path / "journal",
        JournalSettings(reserve_mib=0),
        service="desk",
        version="1",
        code="c",
        now_ns=NOW,
    )
    for number in range(5):
        if number == 3:
            on.rotate(NOW + 60_000_000_000)
        on.put(Left, NOW, key=f"deribit/{number}")
    on.close()
    return tmp_path


@pytest.fixture
def locked(state: Path) -> Iterator[Path]:
    """As a daemon holds it."""
    with lock_state(state):
        yield state


def head(state: Path, line: int = -1, file: str = SECOND) -> str:
    found: str = json.loads((state / "journal" / file).read_text().splitlines()[line])["hash"]
    return found


def test_whole(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["verify", str(state)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "whole",
        "read:   2 files (0 compressed), 7 records, 0.0 MiB",
        f"first:  record 1, 2023-11-14T22:13:20Z, {FIRST}",
        "last:   record 7, 2023-11-14T22:13:20Z",
        f"head:   {head(state)}",
        "        whether records are missing at the end only a head kept elsewhere can tell: --head",
    ]


def test_a_compressed_file_that_cannot_be_read_is_a_warning_where_the_plain_one_is_there(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "journal" / f"{FIRST}.gz").write_bytes(b"garbage")
    assert mmd.main(["verify", str(state)]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert warning == (
        f"warning: {FIRST}.gz is unreadable: it ends within its header; {FIRST} beside it is whole, and is what counts"
    )
    mmd.main(["verify", str(state), "--json"])
    assert json.loads(capsys.readouterr().out)["warnings"] == [warning.removeprefix("warning: ")]


@pytest.mark.parametrize("way", ["argument", "journal", "option", "environment", "config"])
def test_where_it_looks(state: Path, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    words = {
        "argument": [str(state)],
        "journal": [str(state / "journal")],
        "option": ["--state-dir", str(state)],
        "environment": [],
        "config": ["-c", str(tmp_path / "mmd.yaml")],
    }[way]
    if way == "environment":
        monkeypatch.setenv("STATE_DIRECTORY", str(state))
    (tmp_path / "mmd.yaml").write_text(f"""\
version: 1
service: {{name: mmd, mode: shadow, state_dir: {state}}}
exchanges:
  deribit:
    type: deribit
    network: testnet
    credentials: {{client_id: {{env: A}}, client_secret: {{env: B}}}}
spreads:
  wide: {{fair: mid, style: around, spread_bps: 200, size: 10}}
instruments:
  - {{exchange: deribit, symbol: BTC-PERPETUAL, spread: wide}}
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, collar_bps: 500}}
  portfolio: {{max_exposure: {{BTC: 5}}, max_notional_usd: 1000000, max_drawdown_usd: 5000}}
""")
    assert mmd.main(["verify", *words]) == 0


def test_a_changed_byte_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = state / "journal" / FIRST
    file.write_bytes(file.read_bytes().replace(b"deribit/1", b"deribit/7"))
    assert mmd.main(["verify", str(state)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0] == f"BROKEN: {FIRST} line 3 (record 3): changed: the record is not what its hash and the next line say"
    )
    assert said[1] == "read:   1 file (0 compressed), 2 records, 0.0 MiB"


def test_a_tail_is_a_fault_of_its_own_unless_a_daemon_writes_it(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (state / "journal" / SECOND).open("a") as file:
        file.write('{"hash":"')
    assert mmd.main(["verify", str(state)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "UNFINISHED: whole but for its end"
    assert said[5].endswith("are no whole line: left by a crash; the next start cuts it off and records that")
    (state / "mmd.lock").touch()
    assert mmd.main(["verify", str(state)]) == 1, "there is a lock, and nobody holds it"
    capsys.readouterr()
    with lock_state(state):
        for where in (state, state / "journal"):
            assert mmd.main(["verify", str(where)]) == 0
            said = capsys.readouterr().out.splitlines()
            assert said[0] == "whole"
            assert said[5].endswith("being written now")


def test_the_lock_of_a_daemon_is_not_taken(locked: Path) -> None:
    assert mmd.main(["verify", str(locked)]) == 0


def test_a_hash_from_elsewhere(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = head(state, 2, FIRST), head(state)
    assert mmd.main(["verify", str(state), "--head", old]) == 0
    assert f"hash:   {old} is record 3, {FIRST} line 3" in capsys.readouterr().out
    assert mmd.main(["verify", str(state), "--head", old[:12], "--seq", "3"]) == 0
    assert mmd.main(["verify", str(state), "--head", old, "--seq", "4"]) == 1
    assert "NOT THERE: the hash is that of record 3, not 4" in capsys.readouterr().out
    (state / "journal" / SECOND).unlink()
    assert mmd.main(["verify", str(state), "--head", old]) == 0
    assert mmd.main(["verify", str(state)]) == 0
    capsys.readouterr()
    assert mmd.main(["verify", str(state), "--head", new]) == 1
    assert capsys.readouterr().out.startswith(f"NOT IN IT: {new}: the end was cut off")


def test_deleted_files_are_said(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = head(state, -1, FIRST)
    (state / "journal" / FIRST).unlink()
    assert mmd.main(["verify", str(state), "--head", before]) == 0
    said = capsys.readouterr().out
    assert f"follows {before}: older files are not here" in said
    assert f"hash:   {before} is record 4, the one before the oldest file" in said


def test_json(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["verify", str(state), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["records"], found["head"], found["fault"]) == (True, 7, head(state), None)
    file = state / "journal" / SECOND
    file.write_bytes(file.read_bytes()[:-3])
    assert mmd.main(["verify", str(state), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["unfinished"], found["tail"]["file"]) == (False, True, SECOND)
    (state / "journal" / FIRST).write_text("x\n")
    assert mmd.main(["verify", str(state), "--json"]) == 1
    fault = json.loads(capsys.readouterr().out)["fault"]
    assert fault == {
        "file": FIRST,
        "line": 1,
        "seq": 1,
        "what": "changed",
        "detail": "it does not begin as a line does",
    }


@pytest.mark.parametrize("where", ["", "none"])
def test_no_journal_there_is_66(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["verify", str(tmp_path / where)]) == 66
    assert capsys.readouterr().err.startswith("mmd verify: ")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--head", "abc"], id="short hash"),
        pytest.param(["--head", "x" * 64], id="no hash"),
        pytest.param(["--seq", "0"], id="no record"),
        pytest.param(["a", "--state-dir", "b"], id="two places"),
    ],
)
def test_wrong_usage_is_64(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        mmd.main(["verify", *words])
    assert ended.value.code == 64
    assert "mmd verify" in capsys.readouterr().err


def test_a_refused_configuration_is_78(tmp_path: Path) -> None:
    (tmp_path / "mmd.yaml").write_text("version: 2\n")
    assert mmd.main(["verify", "-c", str(tmp_path / "mmd.yaml")]) == 78


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("closed", ["journal", "."])
def test_what_may_not_be_read_is_77(closed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not below tmp_path, which nobody else gets to in any case."""
    with tempfile.TemporaryDirectory() as place:
        state = Path(place)
        state.chmod(0o755)
        Journal(state / "journal", JournalSettings(), service="s", version="1", code="c", now_ns=NOW).close()
        (state / closed).chmod(0o700)
        os.seteuid(65534)
        try:
            status = mmd.main(["verify", place])
        finally:
            os.seteuid(0)
    assert status == 77
    assert "Permission denied" in capsys.readouterr().err
