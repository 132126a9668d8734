"""A fixed set of seeds of the simulation, and the simulation's own test: planted bugs are caught.

Each run is a process of its own, because the order of sets is fixed when a process starts.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = (  # caught within a few seeds
    "in_flight_is_free",
    "a_cancel_is_not_waited_for",
    "act_before_write",
    "proof_without_asking",
    "the_chain_stands_still",
    "a_machine_looks_elsewhere",
)


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def played(*words: str) -> str:
    """What a run says in which every promise was kept."""
    found = simulate(*words)
    assert found.returncode == 0, f"{found.stdout[-20_000:]}\n{found.stderr[-2_000:]}"
    return found.stdout


def test_every_promise_is_kept_in_any_weather() -> None:
    said = played("--seeds", "30", "--first", "1", "--minutes", "1")
    assert said.startswith("30 seeds, 0 failed")


def test_the_same_seed_is_the_same_run_to_the_last_byte() -> None:
    first, second = (played("--seed", "7", "--minutes", "1", "--story", "--exact") for _ in range(2))
    assert first == second
    assert "wire " in first


def test_leaving_faults_out_leaves_the_rest_as_it_was() -> None:
    said = played("--seed", "7", "--minutes", "1", "--only", "cut,crash", "--story", "--lines", "5000")
    kinds = {line.split()[2].rstrip(":") for line in said.splitlines() if line.split()[1:2] == ["*"]}
    assert kinds <= {"cut", "crash"}


def test_an_unknown_kind_of_trouble_is_refused() -> None:
    found = simulate("--seed", "1", "--only", "earthquake")
    assert found.returncode == 2
    assert "unknown: earthquake" in found.stderr


@pytest.mark.parametrize("bug", QUICK)
def test_a_planted_bug_is_caught(bug: str) -> None:
    found = simulate("--planted", bug, "--seeds", "12", "--minutes", "1", "--jobs", "1")
    assert found.returncode == 0, found.stdout
    assert f"{bug:36} caught by seed" in found.stdout


@pytest.mark.slow
@pytest.mark.judgement
def test_every_planted_bug_is_caught() -> None:
    found = simulate("--planted", "all", "--seeds", "200", "--minutes", "2")
    assert found.returncode == 0, found.stdout
    print(found.stdout)


def test_a_failure_says_how_to_see_it_again() -> None:
    found = simulate("--planted", "position_is_not_limited", "--seed", "1", "--minutes", "1")
    assert found.returncode == 1
    assert "again: python -m tests.simulation --seed 1 --minutes 1 --planted position_is_not_limited" in found.stdout
    assert "VIOLATION" in found.stdout


@pytest.mark.slow
def test_every_promise_is_kept_for_many_seeds() -> None:
    said = played("--seeds", "250", "--first", "1001", "--minutes", "2")
    assert said.startswith("250 seeds, 0 failed")


@pytest.mark.slow
def test_every_promise_is_kept_for_ten_minutes() -> None:
    said = played("--seeds", "10", "--first", "5001", "--minutes", "10")
    assert said.startswith("10 seeds, 0 failed")
