"""The named races, through the same weather as the random ones: positions stay exact, nothing is passed or left."""

import pytest
from weather_races import RACES, Race
from world import perform


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
@pytest.mark.parametrize("how", range(4), ids=("goes on", "is halted", "is paused", "leaves"))
def test_race(race: Race, how: int) -> None:
    perform(RACES[race], race, how)
