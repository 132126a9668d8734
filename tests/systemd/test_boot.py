"""The installed daemon under a real systemd as PID 1, in a container that is thrown away."""

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


def need_a_machine_that_can_boot() -> None:
    if not BOOT.exists():
        pytest.skip(f"{BOOT} is missing: the unit is not tried under a real systemd")
    if os.geteuid() != 0:
        pytest.skip("needs root: the unit is not tried under a real systemd")
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_CODENAME")) != ("debian", "bookworm"):
        pytest.skip("needs Debian 12, whose Python the booted system has")


@pytest.mark.slow
def test_a_day_of_the_installed_daemon(tmp_path: Path) -> None:
    need_a_machine_that_can_boot()
    stage = tmp_path / "stage"
    built = subprocess.run(
        ["make", "-C", ROOT, "install", f"DESTDIR={stage}"],
        env={**os.environ, "PYTHON": str(SYSTEM_PYTHON)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    CACHE.mkdir(parents=True, exist_ok=True)
    journal = tmp_path / "journal.log"
    command = [BOOT, "--timeout", "240", "--journal", journal, "--bind-ro", f"{stage}:/mnt/stage"]
    inside = ["bash", "/mnt/host/tests/systemd/inside.sh", "/mnt/stage"]
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
    assert len(re.findall(r"^ok ", booted.stdout, flags=re.MULTILINE)) >= 40
