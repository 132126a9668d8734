"""The shipped unit, rules and scripts, judged by the tools that will read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "mmd.service"
REAPER = ROOT / "systemd" / "mmd-reap@.service"
UNTIL_PROVEN = ROOT / "systemd" / "mmd-reap@until-proven.service.d" / "until-proven.conf"
RULES = ROOT / "packaging" / "prometheus-rules.yml"


def tool(name: str, package: str) -> str:
    """Path of a program, or a skip that says what goes unchecked."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def settings(text: str) -> dict[str, list[str]]:
    """Key to its values, in order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", re.sub(r"\\\n\s*", "", text), flags=re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def verify(folder: Path, **units: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze verify of units whose programs are /bin/true: the real ones may not be installed here."""
    names = {"mmd": "mmd.service", "reaper": "mmd-reap@.service"}
    paths = []
    for name, unit in units.items():
        paths.append(folder / names[name])
        paths[-1].write_text(re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", unit, flags=re.MULTILINE))
    return run(tool("systemd-analyze", "systemd"), "verify", "--man=no", *paths)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    found = verify(tmp_path, mmd=UNIT.read_text(), reaper=REAPER.read_text())
    assert (found.returncode, found.stderr) == (0, "")
    assert "Typo" in verify(tmp_path, mmd=UNIT.read_text() + "Typo=1\n").stderr


@pytest.mark.parametrize("unit", [UNIT, REAPER], ids=lambda path: path.name)
def test_the_unit_is_as_closed_as_it_can_be(unit: Path) -> None:
    command = [tool("systemd-analyze", "systemd"), "security", "--offline=true"]
    found = run(*command, "--threshold=12", unit)
    assert found.returncode == 0, found.stdout
    assert run(*command, "--threshold=1", unit).returncode != 0


def test_the_unit_keeps_the_promises_of_the_manual() -> None:
    unit = settings(UNIT.read_text())
    expected = {
        "Type": ["notify"],
        "ExecStart": ["/usr/sbin/mmd run -c /etc/mmd/mmd.yaml"],
        "ExecReload": ["/usr/bin/mmdctl reload --wait"],
        "RestartPreventExitStatus": ["64 77 78"],
        "WatchdogSec": ["20"],
        "TimeoutStopSec": ["30"],
        "ExecStopPost": ["+/usr/bin/systemctl start mmd-reap@${SERVICE_RESULT}-${EXIT_CODE}-${EXIT_STATUS}.service"],
        "OnFailure": ["mmd-reap@until-proven.service"],
    }
    assert {key: unit[key] for key in expected} == expected
    assert "AF_UNIX" in unit["RestrictAddressFamilies"][0]  # without it sd_notify cannot speak


def option(command: str, name: str) -> float:
    """The number behind an option of a command."""
    return float(command.split(f"{name} ")[1].split()[0])


def test_the_reaper_has_its_time_within_that_of_the_unit() -> None:
    unit, reaper = settings(UNIT.read_text()), settings(REAPER.read_text())
    (command,) = reaper["ExecStart"]
    whole = float(reaper["TimeoutStartSec"][0]) + float(reaper["TimeoutStopSec"][0])
    assert option(command, "--timeout") + 3 <= float(reaper["TimeoutStartSec"][0])
    assert whole < float(unit["TimeoutStopSec"][0])


def test_the_reapers_unit_can_start_while_the_system_goes_down() -> None:
    """What needs a mount or the network would wait for their stop, which waits for ours."""
    reaper = settings(REAPER.read_text())
    assert (reaper["DefaultDependencies"], reaper["Slice"]) == (["no"], ["system.slice"])
    assert {"After", "Wants", "Requires", "Restart"}.isdisjoint(reaper)
    assert {"StateDirectory", "RuntimeDirectory", "ConfigurationDirectory", "LogsDirectory", "PrivateTmp"}.isdisjoint(
        reaper
    )
    same = ("User", "Group", "UMask", "SystemCallFilter", "RestrictAddressFamilies", "CapabilityBoundingSet")
    unit = settings(UNIT.read_text())
    assert {key: reaper[key] for key in same} == {key: unit[key] for key in same}
    assert reaper["ExecStart"] == ["/usr/sbin/mmd reap -c /etc/mmd/mmd.yaml --timeout 20 --unless-running --after %i"]


def test_one_instance_goes_on_and_not_where_trying_cannot_help() -> None:
    instance = settings(UNTIL_PROVEN.read_text())
    assert (instance["Restart"], instance["RestartPreventExitStatus"]) == (["on-failure"], ["64 77 78"])
    assert UNTIL_PROVEN.parent.name.removesuffix(".d") in settings(UNIT.read_text())["OnFailure"]


def test_users_and_folders_are_declared(tmp_path: Path) -> None:
    sysusers, tmpfiles = tool("systemd-sysusers", "systemd"), tool("systemd-tmpfiles", "systemd")
    (tmp_path / "etc").mkdir()
    users = run(sysusers, f"--root={tmp_path}", ROOT / "systemd" / "mmd.sysusers")
    assert users.returncode == 0, users.stderr
    assert "mmd:" in (tmp_path / "etc" / "passwd").read_text()
    assert "mmd-admin:" in (tmp_path / "etc" / "group").read_text()
    dry = run(tmpfiles, f"--root={tmp_path}", "--create", ROOT / "systemd" / "mmd.tmpfiles")
    if dry.returncode == 0:  # needs root
        assert (tmp_path / "etc" / "mmd" / "keys").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "etc" / "mmd").stat().st_mode & 0o777 == 0o750


def test_prometheus_understands_the_alerts() -> None:
    promtool = tool("promtool", "prometheus")
    checked = run(promtool, "check", "rules", RULES)
    assert checked.returncode == 0, checked.stderr
    tested = run(promtool, "test", "rules", Path(__file__).with_name("prometheus-rules.test.yml"))
    assert tested.returncode == 0, tested.stderr + tested.stdout


def test_alerts_use_only_metrics_that_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)", (ROOT / "docs" / "metrics.md").read_text(), flags=re.MULTILINE))
    used = set(re.findall(r"\b((?:mmd|process)_\w+)", RULES.read_text()))
    assert used
    assert {re.sub(r"_bucket$", "", name) for name in used} <= documented


def test_scripts_have_no_finding_of_shellcheck() -> None:
    scripts = [*ROOT.glob("scripts/*.sh"), *ROOT.glob("packaging/*.sh"), *ROOT.glob("tests/systemd/*.sh")]
    found = run(tool("shellcheck", "shellcheck"), ROOT / ".ci" / "run", *scripts)
    assert found.returncode == 0, found.stdout
