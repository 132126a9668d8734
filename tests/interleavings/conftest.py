"""Talkative asserts in the helpers, and no log lines: tens of thousands of cases would only write."""

import logging
from collections.abc import Iterator

import pytest

HELPERS = ("weather_house", "weather_judge", "weather_races", "weather_wire", "weather_words", "world")
pytest.register_assert_rewrite(*HELPERS)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("mmd")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
