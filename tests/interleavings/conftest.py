"""Talkative asserts in the helpers, and no log lines: tens of thousands of cases would only write."""

import logging
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("weather_judge", "weather_wire", "world")


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("mmd")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
