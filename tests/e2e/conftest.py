"""Programs that end with their test."""

from collections.abc import Iterator

import pytest
from house import Exchange, Program, house


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    yield from house([])


@pytest.fixture(scope="module")
def shared_exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """One exchange for the tests of a file that do not hurt it; each takes an account of its own."""
    exchange = Exchange(tmp_path_factory.mktemp("exchange"))
    yield exchange
    status = exchange.stop()
    exchange.clear()
    assert (status, exchange.err) == (0, "")
