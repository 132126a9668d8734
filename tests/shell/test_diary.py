"""The last 10,000 things that happened: numbering, reading from a number, waiting, and the log's copy."""

import logging

import pytest
import trio
from shell_kit import START_NS
from trio.testing import MockClock

from mmd.shell.clock import Clock
from mmd.shell.diary import KEPT, Diary


@pytest.fixture
async def diary() -> Diary:
    return Diary(Clock(lambda: START_NS))


def numbers(diary: Diary, seq: int, limit: int = KEPT) -> list[int]:
    return [line.seq for line in diary.since(seq, limit)]


async def test_lines_are_numbered_and_read_from_a_number(diary: Diary) -> None:
    assert (numbers(diary, 0), diary.last) == ([], 0)
    for number in range(1, 6):
        diary.note("test.noted", f"line {number}")
    assert numbers(diary, 0) == [1, 2, 3, 4, 5]
    assert numbers(diary, 3) == [4, 5]
    assert numbers(diary, 5) == numbers(diary, 99) == []
    assert numbers(diary, 0, limit=2) == [1, 2]  # the oldest first: a reader that pages misses nothing
    assert numbers(diary, -1, limit=2) == [4, 5]
    assert diary.last == 5


async def test_the_oldest_go_when_it_is_full(diary: Diary) -> None:
    logging.getLogger("mmd").setLevel(logging.CRITICAL)
    try:
        for _ in range(KEPT + 10):
            diary.note("test.noted", "again")
    finally:
        logging.getLogger("mmd").setLevel(logging.NOTSET)
    assert len(diary.since(0, KEPT * 2)) == KEPT
    assert numbers(diary, 0)[0] == 11 and diary.last == KEPT + 10
    assert numbers(diary, KEPT + 8) == [KEPT + 9, KEPT + 10]


async def test_a_line_says_when_what_where_and_by_whom(autojump_clock: MockClock, diary: Diary) -> None:
    await trio.sleep(1.5)
    diary.note("symbol.paused", "because", symbol="BTC-PERPETUAL", exchange="deribit", by="ann (uid 7)")
    (line,) = diary.since(0, 1)
    assert (line.time, line.name, line.detail) == (START_NS * 1e-9 + 1.5, "symbol.paused", "because")
    assert (line.symbol, line.exchange, line.by) == ("BTC-PERPETUAL", "deribit", "ann (uid 7)")


async def test_a_waiter_wakes_at_the_line_it_waits_for(diary: Diary) -> None:
    diary.note("test.noted", "1")
    with trio.fail_after(0.1):
        await diary.wait(0)  # is there already
    seen: list[int] = []

    async def wait(seq: int) -> None:
        await diary.wait(seq)
        seen.append(diary.last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        diary.note("test.noted", "2")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [2]
        diary.note("test.noted", "3")
    assert seen == [2, 3]


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("symbol.halted", logging.ERROR),
        ("symbol.fault", logging.ERROR),
        ("symbol.paused", logging.WARNING),
        ("order.stray", logging.WARNING),
        ("config.refused", logging.WARNING),
        ("order.filled", logging.INFO),
    ],
)
async def test_each_line_is_logged_as_loud_as_it_deserves(
    name: str, level: int, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mmd"):
        diary.note(name, "detail", symbol="BTC-PERPETUAL")
    (record,) = caplog.records
    assert (record.levelno, record.msg) == (level, name)
    assert record.fields == {"detail": "detail", "symbol": "BTC-PERPETUAL"}
