"""The journal's benchmark runs and writes every figure that docs/journal.md quotes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.journal", "--quick", "--directory", tmp_path, "--json", tmp_path / "found.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["policy"] for each in found["commits"]] == ["always", "interval", "never"]
    assert 400 < found["quiet_bytes"] < found["answers_bytes"] < found["tick_bytes"] < 900
    assert 0.1 < found["compressed_to"] < 0.4
    assert "verify, plain / compressed" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"], "nothing is left behind"
