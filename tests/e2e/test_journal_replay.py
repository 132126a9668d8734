"""A real daemon's journal, several lives of it, decided again: not one digest differs."""

import json
from pathlib import Path

import pytest
import trio
from still import BTC, ETH
from test_journal_export import kept, trade

from mmd.cli import mmd as program
from mmd.replay.recover import recover


def replayed(state: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    status = program.main(["replay", "--state-dir", str(state), "--json", *words])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    assert (status == 0) is found["same"]
    return found


async def test_a_daemons_journal_replays_without_a_difference(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for life in range(2):
        async with kept(monkeypatch, tmp_path, later=1000 * life) as house:
            if life:
                await trio.sleep(20)
                continue
            await trade(house)
            assert house.daemon.journal is not None and house.daemon.keeper is not None
            house.daemon.journal.rotate(house.daemon.clock.now_ns())
            house.daemon.keeper.begin_round()
            await trio.sleep(5)
    found = replayed(tmp_path, capsys)
    assert found["same"] and not found["stops"] and not found["skipped"], found
    assert isinstance(found["compared"], int) and found["compared"] > 200
    again = replayed(tmp_path, capsys, "--from-segment", "2")
    assert again["same"] and not again["stops"], again
    end = recover(tmp_path / "journal")
    assert end.stopped and not end.differences and not end.broken
    assert {key.partition("/")[2] for key in end.machines} >= {BTC, ETH}
