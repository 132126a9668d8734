"""Programs that end with their test."""

from collections.abc import Iterator

import pytest
from house import Program, house


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    yield from house([])
