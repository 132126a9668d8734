"""A fixed set of seeds of the simulation, and the simulation's own test: planted bugs are caught.

Each run is a process of its own, because the order of sets is fixed when a process starts.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = (  # caught within a few seeds
    ("deribit", "in_flight_is_free"),
    ("deribit", "a_cancel_is_not_waited_for"),
    ("deribit", "act_before_write"),
    ("deribit", "proof_without_asking"),
    ("deribit", "the_chain_stands_still"),
    ("deribit", "a_machine_looks_elsewhere"),
    ("derive", "in_flight_is_free"),
    ("derive", "replaces_expect_nothing"),
    ("derive", "chains_forget_their_past"),
    ("derive", "lost_replaces_are_over"),
)
EXCHANGES = ("deribit", "derive")


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
    said = played("--exchange", "both", "--seeds", "20", "--first", "1", "--minutes", "1")
    assert said.startswith("40 seeds, 0 failed")
    assert "seeds: deribit 20, derive 20" in said


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_same_seed_is_the_same_run_to_the_last_byte(exchange: str) -> None:
    words = ("--exchange", exchange, "--seed", "7", "--minutes", "1", "--story", "--exact")
    first, second = (played(*words) for _ in range(2))
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


def test_a_kind_of_trouble_of_another_exchange_is_refused() -> None:
    found = simulate("--seed", "1", "--only", "half_replace")
    assert found.returncode == 2
    assert "unknown: half_replace" in found.stderr


def test_a_seed_is_of_one_exchange() -> None:
    found = simulate("--exchange", "both", "--seed", "1")
    assert found.returncode == 2
    assert "--exchange deribit or derive" in found.stderr


@pytest.mark.parametrize(("exchange", "bug"), QUICK)
def test_a_planted_bug_is_caught(exchange: str, bug: str) -> None:
    found = simulate("--exchange", exchange, "--planted", bug, "--seeds", "60", "--minutes", "1", "--jobs", "1")
    assert found.returncode == 0, found.stdout
    assert f"{exchange} {bug:36} caught by seed" in found.stdout


@pytest.mark.slow
@pytest.mark.judgement
def test_every_planted_bug_is_caught() -> None:
    found = simulate("--exchange", "both", "--planted", "all", "--seeds", "200", "--minutes", "1")
    assert found.returncode == 0, found.stdout
    print(found.stdout)


def test_a_failure_says_how_to_see_it_again() -> None:
    found = simulate("--planted", "position_is_not_limited", "--seed", "1", "--minutes", "1")
    assert found.returncode == 1
    again = "--exchange deribit --seed 1 --minutes 1 --planted position_is_not_limited"
    assert f"again: python -m tests.simulation {again}" in found.stdout
    assert "VIOLATION" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("exchange", "seeds"), [("deribit", 250), ("derive", 150)])
def test_every_promise_is_kept_for_many_seeds(exchange: str, seeds: int) -> None:
    said = played("--exchange", exchange, "--seeds", str(seeds), "--first", "1001", "--minutes", "2")
    assert said.startswith(f"{seeds} seeds, 0 failed")


@pytest.mark.slow
def test_every_promise_is_kept_for_ten_minutes() -> None:
    said = played("--exchange", "both", "--seeds", "6", "--first", "5001", "--minutes", "10")
    assert said.startswith("12 seeds, 0 failed")
