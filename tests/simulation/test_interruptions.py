"""Start-up, recovery, reload, halt, resume and stop, interrupted at every step.

The quick tests take some of the places, the slow ones every step and every write. `python
tests/simulation/sim_steps.py all` takes everything at every place; with the words of a failure it shows that one.
"""

from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest
from sim_steps import EVERYWHERE, OPERATIONS, SECONDS, TAILS, Every, How, Place, Played, Tally, places, players, tally

JOBS = 2
STEPS = {"start": 300, "recovery": 300, "reload": 100, "halt": 25, "resume": 75, "stop": 50}
WRITES = {"start": 40, "recovery": 40, "reload": 15, "halt": 5, "resume": 15, "stop": 4}
"""No operation has fewer: a test of fewer places would have lost sight of it."""

LONG = ("start", "recovery")
QUICK = {name: Every(37, 29, 1, 101, 67) if name in LONG else Every(9, 6, 1, 23, 13) for name in OPERATIONS}
SLOW = {name: Every(1, 1, 1, 12, 12) if name in LONG else Every(1, 1, 2, 3, 3) for name in OPERATIONS}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with players(JOBS) as made:
        yield made


def judge(found: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    operation = found.base.place.operation
    with capsys.disabled():
        print(f"\n{found.line()}", end=" ")
    assert not found.failures, "\n\n".join(each.report() for each in found.failures[:3])
    assert found.base.steps >= STEPS[operation] and found.base.writes >= WRITES[operation], found.line()
    assert not found.missed, f"never came to {', '.join(map(str, found.missed))}"
    assert min(found.count(How.CRASH), found.count(How.VANISH), found.count(*TAILS), found.count(How.CUT)) > 0
    assert found.count(*SECONDS[operation]) > 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupted(pool: Pool, operation: str, capsys: pytest.CaptureFixture[str]) -> None:
    judge(tally(pool, operation, QUICK[operation]), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupted_at_every_step(pool: Pool, operation: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = tally(pool, operation, SLOW[operation])
    judge(found, capsys)
    assert found.count(How.CRASH, How.VANISH) == found.base.steps
    assert {each.place.at for each in found.played if each.place.how in TAILS} == set(range(1, found.base.writes + 1))


def test_every_place_is_taken() -> None:
    base = Played(Place("halt", How.CRASH, 0), steps=9, writes=5)
    taken = places(base, EVERYWHERE)
    assert len(taken) == len(set(taken)) == 3 * 9 + len(TAILS) * 5
    assert {place.how for place in taken} == {How.CRASH, How.VANISH, How.CUT, *TAILS, *SECONDS["halt"]}
