"""Programs that end with their test; the tables of the kill switches and of the kills in the report."""

from collections.abc import Iterator

import killing
import pytest
from arena import VERDICTS, table
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Also in quiet mode: what each provocation did, and how fast; how often the daemon was killed, and in what."""
    if VERDICTS:
        terminalreporter.section("kill switches: milliseconds from the cause")
        for line in table(VERDICTS):
            terminalreporter.write_line(line)
    for outcome in killing.OUTCOMES:
        terminalreporter.section("kill -9")
        for line in killing.table(outcome):
            terminalreporter.write_line(line)
