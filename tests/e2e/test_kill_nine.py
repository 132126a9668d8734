"""kill -9 at any moment: no lost fill, no order unknown, positions equal, the journal verifies and replays."""

from pathlib import Path

import pytest
from house import Program
from killing import World, run_all
from killing_plan import DERIBIT, DERIVE, SPOKEN, Moment, Spoken, chosen_seed, draws

QUICK_ROUNDS, MANY_ROUNDS = 6, 200
EACH = pytest.mark.parametrize("spoken", [pytest.param(spoken, id=name) for name, spoken in SPOKEN.items()])


@pytest.mark.parametrize(
    "spoken", [pytest.param(DERIBIT, id="deribit"), pytest.param(DERIVE, id="derive", marks=pytest.mark.slow)]
)
def test_a_daemon_is_killed_again_and_again(spoken: Spoken, tmp_path: Path, programs: list[Program]) -> None:
    outcome = run_all(tmp_path, programs, chosen_seed("quick 0"), QUICK_ROUNDS, spoken=spoken)
    assert len(outcome.rounds) == QUICK_ROUNDS
    assert sum(one.alive for one in outcome.rounds) > 0


@pytest.mark.slow
@pytest.mark.judgement
@pytest.mark.parametrize(
    ("spoken", "count"),
    [pytest.param(DERIBIT, MANY_ROUNDS, id="deribit"), pytest.param(DERIVE, MANY_ROUNDS // 2, id="derive")],
)
def test_hundreds_of_deaths(spoken: Spoken, count: int, tmp_path: Path, programs: list[Program]) -> None:
    outcome = run_all(tmp_path, programs, chosen_seed("many"), count, worlds=3, spoken=spoken)
    rounds = outcome.rounds
    assert len(rounds) == count
    assert {one.draw.moment for one in rounds} == set(Moment)
    # Otherwise the judges had nothing to judge.
    assert sum(one.alive for one in rounds) > 2.5 * count
    assert min(sum(one.dead for one in rounds), sum(one.starting for one in rounds)) > count / 4
    assert min(sum(one.left for one in rounds), sum(one.reaped for one in rounds)) > count / 4
    assert sum(one.outlived for one in rounds) > count / 10


def test_half_of_the_rounds_leave_orders_and_every_moment_comes() -> None:
    rounds = draws("any", MANY_ROUNDS)
    assert rounds == draws("any", MANY_ROUNDS) != draws("other", MANY_ROUNDS)
    assert sum(draw.kept for draw in rounds) == MANY_ROUNDS // 2
    assert sum(draw.reap for draw in rounds) > MANY_ROUNDS // 5
    assert {draw.moment for draw in rounds} == set(Moment)


@EACH
def test_the_position_outlives_a_file_of_the_journal_that_tells_of_no_start(
    spoken: Spoken, tmp_path: Path, programs: list[Program]
) -> None:
    """Recovery reads the newest file with every state: whose they are must be in it too."""
    world = World(tmp_path, programs, "rotation", spoken)
    daemon = world.spawn().ready()
    world.quote()
    world.exchange.rig("keep", on=True)
    world.rig("pace", per_second=20)
    world.until(world.has_every_state, "a second file with every state")
    world.bury(daemon)
    world.rig("pace", per_second=0)
    assert world.rig("hit", count=3) == 3
    again = world.spawn().ready()
    world.judge(draws("any", 1)[0])
    (told,) = again.events("service.recovered")[-1:]
    assert ": 3 symbols, " in told["detail"]
    world.exchange.hang_up()
