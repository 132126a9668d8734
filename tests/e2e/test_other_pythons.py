"""A journal that this Python has written is decided again by others, digest by digest: those that are installed.

`MMD_PYTHONS`: their programs, separated by spaces, where they are not found by their names. Packages are those of
`requirements.lock`; what runs is the tree that is tested.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from house import Daemon, environment
from test_derive import example, known

ROOT = Path(__file__).parents[2]
NAMES = "python3.11 python3.12 python3.13 python3.14"
RECORDS = 3_000


def others() -> list[str]:
    return [program for name in os.environ.get("MMD_PYTHONS", NAMES).split() if (program := shutil.which(name))]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a daemon that has quoted options and their perpetual."""
    folder = tmp_path_factory.mktemp("recorded")
    daemon = Daemon(folder, example(folder))
    try:
        daemon.ready()
        daemon.until(lambda: daemon.ask("resume", symbols=["all"])["outcome"] == "done", "resume")
        daemon.until(lambda: len(known(daemon)) >= 10, "quotes")
        daemon.until(lambda: daemon.ask("status")["journal"]["seq"] >= RECORDS, "records", 300)
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return folder / "state"


def made(program: str, folder: Path) -> Path:
    """An environment of that Python, with everything that is pinned."""
    subprocess.run([program, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    lock = ["--require-hashes", "--disable-pip-version-check", "-q", "-r", str(ROOT / "requirements.lock")]
    subprocess.run([str(python), "-m", "pip", "install", *lock], check=True, env=os.environ)
    return python


@pytest.mark.slow
@pytest.mark.judgement
@pytest.mark.parametrize("program", others())
def test_another_python_decides_the_same(program: str, state: Path, tmp_path: Path) -> None:
    python = made(program, tmp_path / "env")
    command = [str(python), "-W", "error", "-m", "mmd.cli.mmd", "replay", "--state-dir", str(state), "--json"]
    env = environment({"PYTHONHASHSEED": "11", "PYTHONPATH": str(ROOT)})
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["same"] and not found["skipped"] and not found["stops"], found
    assert found["compared"] >= RECORDS // 2
    version = subprocess.run([str(python), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version}: {found['compared']} decisions, the same")
