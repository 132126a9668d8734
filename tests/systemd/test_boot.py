"""The installed daemon under a real systemd as PID 1, in a container that is thrown away."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOT = Path(os.environ.get("MMD_BOOT", ROOT.parent / "shared" / "tools" / "boot-systemd"))
CACHE = Path(os.environ.get("MMD_BOOT_CACHE", "/var/cache/mmd-boot"))
SYSTEM_PYTHON = Path("/usr/bin/python3")
CANNOT = 77
WENT_DOWN = 125


def need_a_machine_that_can_boot() -> None:
    if not BOOT.exists():
        pytest.skip(f"{BOOT} is missing: the unit is not tried under a real systemd")
    if os.geteuid() != 0:
        pytest.skip("needs root: the unit is not tried under a real systemd")
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_CODENAME")) != ("debian", "bookworm"):
        pytest.skip("needs Debian 12, whose Python the booted system has")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install` makes, for the Python of the system that is booted."""
    need_a_machine_that_can_boot()
    stage = tmp_path_factory.mktemp("installed") / "stage"
    built = subprocess.run(
        ["make", "-C", ROOT, "install", f"DESTDIR={stage}"],
        env={**os.environ, "PYTHON": str(SYSTEM_PYTHON)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return stage


def live_through(script: str, stage: Path, folder: Path) -> int:
    """Boot, run a script of this folder inside, fail where it says so. How many of its checks were right."""
    CACHE.mkdir(parents=True, exist_ok=True)
    journal = folder / "journal.log"
    command = [BOOT, "--timeout", "240", "--journal", journal, "--bind-ro", f"{stage}:/mnt/stage"]
    inside = ["bash", f"/mnt/host/tests/systemd/{script}", "/mnt/stage"]
    booted = subprocess.run(
        [*command, CACHE / "bookworm", ROOT, "--", *inside],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if booted.returncode == CANNOT:
        pytest.skip(f"this machine cannot boot a container: {booted.stderr.strip()}")
    sys.stdout.write(booted.stdout + booted.stderr)
    if journal.exists():
        lines = journal.read_text(errors="replace").splitlines()
        sys.stdout.write("\n".join(line for line in lines if re.search(r"\bmmd", line)))
    failed = re.findall(r"^FAILED (\S+)", booted.stdout, flags=re.MULTILINE)
    assert (booted.returncode, failed) == (0, [])
    return len(re.findall(r"^ok ", booted.stdout, flags=re.MULTILINE))


@pytest.mark.slow
def test_a_day_of_the_installed_daemon(stage: Path, tmp_path: Path) -> None:
    assert live_through("inside.sh", stage, tmp_path) >= 40


@pytest.mark.slow
def test_the_reaper_comes_after_every_end(stage: Path, tmp_path: Path) -> None:
    assert live_through("reaper.sh", stage, tmp_path) >= 20


@pytest.mark.slow
def test_the_reaper_comes_while_the_system_goes_down(stage: Path, tmp_path: Path) -> None:
    """With the state directory on a mount of its own, which waits to be unmounted."""
    state = tmp_path / "state"
    state.mkdir()
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [BOOT, "--timeout", "120", "--bind-ro", f"{stage}:/mnt/stage", "--bind", f"{state}:/var/lib/mmd"]
    inside = ["bash", "/mnt/host/tests/systemd/poweroff.sh", "/mnt/stage"]
    booted = subprocess.run(
        [*command, CACHE / "bookworm", ROOT, "--", *inside],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if booted.returncode == CANNOT:
        pytest.skip(f"this machine cannot boot a container: {booted.stderr.strip()}")
    sys.stdout.write(booted.stdout + booted.stderr)
    assert booted.returncode == WENT_DOWN
    (path,) = (state / "certificates").iterdir()
    certificate = json.loads(path.read_text())
    assert (certificate["proven"], certificate["cause"]) == (True, "the daemon's end: success-exited-0")
