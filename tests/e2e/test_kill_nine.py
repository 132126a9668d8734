"""kill -9 at any moment: no lost fill, no order unknown, positions equal, the journal verifies and replays."""

from pathlib import Path

import pytest
from house import Program
from killing import World, run_all
from killing_plan import Moment, chosen_seed, draws

QUICK_ROUNDS, MANY_ROUNDS = 6, 200


def test_a_daemon_is_killed_again_and_again(tmp_path: Path, programs: list[Program]) -> None:
    outcome = run_all(tmp_path, programs, chosen_seed("quick 0"), QUICK_ROUNDS)
    assert len(outcome.rounds) == QUICK_ROUNDS
    assert sum(one.alive for one in outcome.rounds) > 0


@pytest.mark.slow
@pytest.mark.judgement
def test_two_hundred_deaths(tmp_path: Path, programs: list[Program]) -> None:
    outcome = run_all(tmp_path, programs, chosen_seed("many"), MANY_ROUNDS, worlds=3)
    rounds = outcome.rounds
    assert len(rounds) == MANY_ROUNDS
    assert {one.draw.moment for one in rounds} == set(Moment)
    # Otherwise the judges had nothing to judge.
    assert sum(one.alive for one in rounds) > 500
    assert min(sum(one.dead for one in rounds), sum(one.starting for one in rounds)) > 50
    assert min(sum(one.left for one in rounds), sum(one.reaped for one in rounds)) > 50
    assert sum(one.outlived for one in rounds) > 20


def test_half_of_the_rounds_leave_orders_and_every_moment_comes() -> None:
    rounds = draws("any", MANY_ROUNDS)
    assert rounds == draws("any", MANY_ROUNDS) != draws("other", MANY_ROUNDS)
    assert sum(draw.kept for draw in rounds) == MANY_ROUNDS // 2
    assert sum(draw.reap for draw in rounds) > MANY_ROUNDS // 5
    assert {draw.moment for draw in rounds} == set(Moment)


def test_the_position_outlives_a_file_of_the_journal_that_tells_of_no_start(
    tmp_path: Path, programs: list[Program]
) -> None:
    """Recovery reads the newest file with every state: whose they are must be in it too."""
    world = World(tmp_path, programs, "rotation")
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
