"""`mmd replay`: what it prints and how it ends."""

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from replay_kit import STEPS, House

from mmd.cli import mmd as program
from mmd.cli import tape as taping
from mmd.domain import events as ev
from mmd.domain.actions import Noted

PERP = "deribit/BTC-PERPETUAL"
OTHER = """\
version: 1
exchanges:
  deribit: {{type: deribit, network: sandbox}}
spreads:
  wide: {{spread_bps: {spread}, band_bps: 500, size: 100, tolerance_bps: 0, refresh_seconds: 1}}
instruments:
  - {{exchange: deribit, symbol: BTC-PERPETUAL, spread: wide}}
{more}limits:
  per_symbol: {{max_position: {position}, max_order_size: 500, collar_bps: 2000}}
  portfolio: {{max_exposure: {{BTC: 100}}, max_notional_usd: 1000000, max_drawdown_usd: 1000}}
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "journal", ("inverse", "option"))
    made.steps = [step for step in STEPS if step != "settings_change"]
    made.run(120)
    made.rotate()
    made.run(60, 2)
    made.journal.commit()
    yield made
    made.journal.close()


@pytest.fixture
def replay(house: House, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on the house's journal; status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        house.journal.commit()
        capsys.readouterr()
        status = program.main(["replay", "--state-dir", str(house.directory.parent), *words])
        return (status, *capsys.readouterr())

    return run


def spoil(house: House) -> int:
    """A record that says something else than what was decided; its number."""
    rig = house.scenes[PERP].rig
    event = ev.PauseRequested(7, "root", "lunch", rig.now_ns)
    actions = rig.machine.handle([event], rig.now_ns)
    house.journal.batch(PERP, rig.now_ns, [event], [*actions[:1], Noted("never", "said"), *actions[1:]])
    return house.journal.seq


def test_the_same_is_0_and_says_how_much_and_how_fast(replay: Any, house: House) -> None:
    status, out, err = replay()
    assert status == 0 and err == ""
    first, read, speed, versions = out.splitlines()
    assert first.startswith("the same: ")
    assert read.startswith(f"read:     {house.journal.seq} records, 1 to {house.journal.seq}, 2023-11-14T22:13:20Z to ")
    assert "times real time" in speed and "records a second" in speed
    assert versions.startswith("versions: written by 1.2.3, replayed by ")


def test_a_difference_is_1_and_is_named(replay: Any, house: House) -> None:
    seq = spoil(house)
    house.run(30, 3)
    status, out, _ = replay()
    assert status == 1
    lines = out.splitlines()
    assert lines[0].startswith(f"DIFFERS at record {seq}, ") and PERP in lines[0] and "action 2 (" in lines[0]
    assert lines[1].startswith("  written by 1.2.3, replayed by ")
    assert lines[2] == "  recorded: Noted name=never detail=said"
    assert lines[3].startswith("  replayed: ")
    assert lines[5].startswith("    PauseRequested request_id=7 by=root reason=lunch received_ns=")
    assert f"  {PERP} from record {seq}: it differs from the record" in out
    assert "skipped:" in out


def test_quiet_says_only_what_differs(replay: Any, house: House) -> None:
    assert replay("--quiet") == (0, "", "")
    spoil(house)
    status, out, err = replay("--quiet")
    assert status == 1 and out.startswith("DIFFERS") and err == ""


def test_json(replay: Any, house: House) -> None:
    status, out, _ = replay("--json")
    found = json.loads(out)
    assert status == 0 and found["same"] and found["differences"] == []
    assert found["records"] == house.journal.seq and found["compared"] > 100
    assert found["recorded_by"] == ["1.2.3"] and found["speed"] > 0
    seq = spoil(house)
    status, out, _ = replay("--json")
    found = json.loads(out)
    assert status == 1 and not found["same"]
    (difference,) = found["differences"]
    assert difference["seq"] == seq and difference["key"] == PERP


# --- a part of it --------------------------------------------------------------------------------------


def test_from_a_file(replay: Any, house: House) -> None:
    found = json.loads(replay("--json", "--from-segment", "2")[1])
    assert found["same"] and found["first_seq"] > 100 and found["last_seq"] == house.journal.seq
    status, _, err = replay("--from-segment", "9")
    assert status == 66 and "no readable file number 9" in err


def test_since_begins_with_a_file_that_knows_every_state(replay: Any, house: House) -> None:
    begins = json.loads(replay("--json", "--from-segment", "2")[1])["first_seq"]
    house.rotate()
    house.run(20, 4)
    assert json.loads(replay("--json", "--since", str(house.journal.seq))[1])["first_seq"] == begins
    assert json.loads(replay("--json", "--since", "1")[1])["first_seq"] == 1


@pytest.mark.parametrize("until", ["100", "time"])
def test_until(replay: Any, house: House, until: str) -> None:
    whole = json.loads(replay("--json")[1])
    if until == "time":
        until = "2023-11-14T22:13:30Z"
    found = json.loads(replay("--json", "--until", until)[1])
    assert found["same"] and found["compared"] < whole["compared"]
    if until == "100":
        assert found["last_seq"] == 100
    else:
        assert found["last_at"] <= 1_700_000_010_000_000_000


@pytest.mark.parametrize("glob", ["BTC-PERP*", PERP])
def test_only_some_symbols(replay: Any, house: House, glob: str) -> None:
    whole = json.loads(replay("--json")[1])["compared"]
    found = json.loads(replay("--json", "--symbol", glob)[1])
    assert found["same"] and 0 < found["compared"] < whole
    spoil(house)
    assert replay("--symbol", glob)[0] == 1
    assert replay("--symbol", "*-C")[0] == 0


def test_nothing_compared_is_no_success(replay: Any) -> None:
    status, out, _ = replay("--symbol", "nothing")
    assert status == 1 and out.startswith("NOTHING COMPARED")


# --- what is wrong -------------------------------------------------------------------------------------


def test_a_broken_chain_is_1_and_named(replay: Any, house: House) -> None:
    path = house.directory / "journal-00000001.jsonl"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, _, err = replay()
    assert status == 1 and path.name in err


def test_no_journal_is_66(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert program.main(["replay", "--state-dir", str(tmp_path)]) == 66
    assert str(tmp_path) in capsys.readouterr().err
    assert program.main(["replay", "--state-dir", str(tmp_path / "missing")]) == 66


@pytest.mark.parametrize("words", [["--since", "noon"], ["--until", "-3"], ["--from-segment", "0"]])
def test_wrong_words_are_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["replay", *words])
    assert ended.value.code == 64


def test_a_terminal_sees_progress_and_then_nothing_of_it(
    replay: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(taping, "LOOK_EVERY", 50)
    monkeypatch.setattr(taping, "PROGRESS_SECONDS", 0.0)
    replay()
    shown = screen.getvalue().split("\r")
    assert "real time" in shown[1]
    assert shown[-1] == "" and not shown[-2].strip(), "the line is taken away"


# --- what if -------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Any:
    def write(spread: float = 200, position: int = 300, more: str = "") -> str:
        path = tmp_path / "other.yaml"
        path.write_text(OTHER.format(spread=spread, position=position, more=more))
        return str(path)

    return write


def test_what_if_compares_in_trading_terms(replay: Any, other: Any) -> None:
    status, out, _ = replay("--config", other())
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("what if: A as recorded, B as in ")
    at = lines.index(PERP)
    assert "  profile.spread_bps: 100.0 -> 200.0" in lines[at:]
    (header,) = [line for line in lines[at:] if "A: as recorded" in line][:1]
    assert header.split()[-1] == "A" and "B: other" in header
    assert any(line.startswith("half spread") for line in lines)
    option = lines.index("deribit/BTC-31DEC21-34000-C")
    assert lines[option + 1] == "  B does not quote it"
    assert "What this cannot know:" in lines
    assert any("market does not react" in line for line in lines)


def test_what_if_of_the_same_settings_shows_no_change(replay: Any, other: Any, house: House) -> None:
    status, out, _ = replay("--config", other(), "--json", "--symbol", "BTC-PERP*")
    found = json.loads(out)
    assert status == 0 and set(found["symbols"]) == {PERP}
    wide = {(row["name"], row["unit"]): row for row in found["symbols"][PERP]}
    assert wide["half spread", "bps"]["after"] == pytest.approx(2 * wide["half spread", "bps"]["before"], rel=0.05)
    out = replay("--config", other(spread=100), "--json", "--symbol", "BTC-PERP*")[1]
    for row in json.loads(out)["symbols"][PERP]:
        assert row["before"] == row["after"], row
    assert Decimal(house.scenes[PERP].rig.given.limits.max_position) == 300


def test_what_if_says_what_it_left_out(replay: Any, other: Any) -> None:
    more = "  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: wide}\n"
    status, out, _ = replay("--config", other(more=more))
    assert status == 0
    assert "note: instruments[1]: deribit/ETH-PERPETUAL is not in the journal" in out.splitlines()


def test_what_if_without_a_symbol_to_compare_is_1(replay: Any, other: Any) -> None:
    assert replay("--config", other(), "--symbol", "*-C")[0] == 1


def test_what_if_of_a_part(replay: Any, other: Any, house: House) -> None:
    whole = json.loads(replay("--config", other(), "--json")[1])
    since = str(house.journal.seq - 60)
    part = json.loads(replay("--config", other(), "--json", "--since", since)[1])
    assert part["first_at"] > whole["first_at"] and part["last_at"] == whole["last_at"]

    def active(found: Any) -> float:
        return sum(float(of_symbol[0]["before"]) for of_symbol in found["symbols"].values())

    assert 0 < active(part) < active(whole)


def test_a_configuration_that_is_wrong_is_78(replay: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("version: 1\n")
    status, _, err = replay("--config", str(path))
    assert status == 78 and "wrong.yaml" in err
