"""Random interleavings: whatever travels late, twice, or not at all, no limit is passed and the books agree.

A failure prints the shrunk steps and the story that they make.
"""

import os

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from world import MOODS, SETUPS, STEPS, Step, play

NUMBERS = st.integers(0, 99)


def stories(mood: str) -> st.SearchStrategy[list[Step]]:
    """One list would be short on average; every part of this one may shrink to nothing."""
    part = st.lists(st.tuples(st.sampled_from(STEPS[mood]), NUMBERS, NUMBERS), max_size=20)
    return st.tuples(*[part] * 7).map(lambda parts: [step for part in parts for step in part])


MOODY = st.sampled_from(sorted(MOODS)).flatmap(stories)
QUICK = hypothesis_settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = hypothesis_settings(QUICK, max_examples=10_000, derandomize="MMD_RANDOM" not in os.environ)  # set: other cases


@QUICK
@given(setup=st.sampled_from(sorted(SETUPS)), steps=MOODY, how=NUMBERS)
def test_no_interleaving_breaks_a_promise(setup: str, steps: list[Step], how: int) -> None:
    play(setup, steps, how)


@pytest.mark.slow
@MANY
@given(setup=st.sampled_from(sorted(SETUPS)), steps=MOODY, how=NUMBERS)
def test_none_of_ten_thousand_interleavings_breaks_a_promise(setup: str, steps: list[Step], how: int) -> None:
    play(setup, steps, how)
