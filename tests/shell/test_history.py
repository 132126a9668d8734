"""Events further back than the diary remembers: the journal's notes, filtered, bounded, never on the loop."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel
from shell_kit import START_NS

from mmd.domain.settings import JournalSettings
from mmd.journal.disk import OsDisk
from mmd.journal.keeping import tidy
from mmd.journal.notes import MORE, SLICE, Found, NoteQuery, search_notes
from mmd.journal.reader import lines
from mmd.journal.records import Alerted, Note
from mmd.journal.segments import segment_files
from mmd.journal.writer import Journal
from mmd.shell import history
from mmd.shell.clock import Clock
from mmd.shell.desk import EventAnswer, EventQuery
from mmd.shell.diary import Diary
from mmd.shell.history import History, line_of

SECOND_NS = 1_000_000_000
SETTINGS = JournalSettings(reserve_mib=0.0)
NAMES = ("order.filled", "order.refused", "symbol.halted")
SYMBOLS = ("BTC-PERPETUAL", "ETH-PERPETUAL", None)


def never() -> str:
    return ""


def begin(directory: Path) -> Journal:
    words = {"service": "t", "version": "1", "code": "c"}
    return Journal(directory, SETTINGS, **words, now_ns=START_NS, clock_ns=lambda: START_NS)


def write(directory: Path, count: int, *, each_file: int = 40) -> list[Note]:
    """Notes a second apart, and other records that look like notes to those who do not look closely."""
    journal = Journal(
        directory, SETTINGS, service="t", version="1", code="c", now_ns=START_NS, clock_ns=lambda: START_NS
    )
    for number in range(1, count + 1):
        at = START_NS + number * SECOND_NS
        symbol = SYMBOLS[number % 3]
        journal.put(
            Note,
            at,
            number=number,
            name=NAMES[number % len(NAMES)],
            detail=f"n {number}",
            symbol=symbol,
            exchange="deribit" if symbol else None,
        )
        fake = '","kind":"note","seq":1,"at":1,"number":1'
        journal.put(Alerted, at, name="a", state="raised", severity="info", summary=fake)
        if number % each_file == 0:
            journal.rotate(at)
    journal.close()
    return [
        msgspec.json.decode(line.body, type=Note)
        for line in lines(directory)
        if line.body.startswith(b'{"kind":"note"')
    ]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def naive(notes: list[Note], query: NoteQuery) -> list[Note]:
    found = [
        note
        for note in notes
        if note.number > query.above
        and (query.below is None or note.number < query.below)
        and note.at >= query.since_ns
        and (query.until_ns is None or note.at <= query.until_ns)
        and query.wanted(note)
    ]
    return found[-query.most :]


def test_every_query_finds_what_a_plain_look_through_finds(directory: Path) -> None:
    notes = write(directory, 200)
    tidy(directory, 6, SETTINGS, START_NS)
    assert [file.compressed for file in segment_files(OsDisk(), directory)] == [True] * 5 + [False]
    draw = random.Random(7)
    for _ in range(150):
        query = NoteQuery(
            above=draw.choice([0, draw.randrange(220)]),
            below=draw.choice([None, draw.randrange(220)]),
            since_ns=draw.choice([0, START_NS + draw.randrange(220) * SECOND_NS]),
            until_ns=draw.choice([None, START_NS + draw.randrange(220) * SECOND_NS]),
            wanted=draw.choice([lambda note: True, lambda note: note.symbol == "BTC-PERPETUAL"]),
            most=draw.choice([1, 7, 1000]),
        )
        found = search_notes(directory, query, never)
        assert found.notes == naive(notes, query), query
        everything = naive(notes, msgspec.structs.replace(query, most=10**6))
        assert found.cut or len(everything) == len(found.notes), query


def test_it_reads_no_further_back_than_it_must(directory: Path) -> None:
    write(directory, 200)
    opened: list[str] = []

    class Watched(OsDisk):
        def open_to_read(self, path: Path) -> int:
            opened.append(path.name)
            return super().open_to_read(path)

    for query, most in (
        (NoteQuery(above=150, most=1000), 3),
        (NoteQuery(since_ns=START_NS + 190 * SECOND_NS, most=1000), 2),
        (NoteQuery(most=10), 2),
    ):
        opened.clear()
        search_notes(directory, query, never, Watched())
        assert len(opened) <= most, query


def test_a_search_that_is_stopped_says_so_and_has_no_gap(directory: Path) -> None:
    notes = write(directory, 200)
    turns = iter(["", "", "enough"])
    found = search_notes(directory, NoteQuery(most=1000), lambda: next(turns))
    assert found.cut == "enough"
    assert found.notes == notes[-len(found.notes) :] and 0 < len(found.notes) < 200


def test_a_search_that_is_stopped_within_a_file_shows_nothing_of_it(directory: Path) -> None:
    """It is read from its old end: its newest notes would be missing in between."""
    journal = begin(directory)
    for number in range(1, 101):
        journal.put(Note, START_NS, number=number, name="n", detail="x" * 20_000)
        if number == 80:
            journal.rotate(START_NS)
    journal.close()
    turns = iter([""] * 4 + ["enough"] * 100)
    found = search_notes(directory, NoteQuery(most=1000), lambda: next(turns))
    assert ([note.number for note in found.notes], found.cut) == (list(range(81, 101)), "enough")


def test_lines_longer_than_a_slice_are_read_whole(directory: Path) -> None:
    journal = Journal(
        directory, SETTINGS, service="t", version="1", code="c", now_ns=START_NS, clock_ns=lambda: START_NS
    )
    for number in range(1, 4):
        journal.put(Note, START_NS, number=number, name="n", detail="x" * (SLICE + number))
    journal.close()
    found = search_notes(directory, NoteQuery(most=10), never)
    assert [len(note.detail) - SLICE for note in found.notes] == [1, 2, 3]


def test_what_cannot_be_read_is_said(directory: Path) -> None:
    write(directory, 200)
    tidy(directory, 6, SETTINGS, START_NS)
    second = segment_files(OsDisk(), directory)[1].path
    second.write_bytes(second.read_bytes()[:200])
    found = search_notes(directory, NoteQuery(most=1000), never)
    assert second.name in found.cut
    assert len(found.notes) == 160
    assert search_notes(directory / "none", NoteQuery(most=1), never) == Found([], "")


# --- beside the loop -------------------------------------------------------------------------------


@pytest.fixture
async def diary(directory: Path) -> Diary:
    """200 notes of earlier lives, of which it has the last 50 in memory."""
    notes = write(directory, 200)
    diary = Diary(Clock(lambda: START_NS + 1000 * SECOND_NS))
    diary.restore(notes[150:], 200)
    return diary


async def find(diary: Diary, directory: Path | None, **query: object) -> EventAnswer:
    return await History(diary, directory).find(EventQuery(**{"lines": 10_000, **query}))


def numbers(answer: EventAnswer) -> list[int]:
    return [event.seq for event in answer.events]


async def test_numbers_go_on_over_restarts_and_old_ones_are_found(diary: Diary, directory: Path) -> None:
    diary.note("test.noted", "after the restart")
    answer = await find(diary, directory, above=100)
    assert (numbers(answer), answer.newest, answer.cut) == (list(range(101, 202)), 201, "")
    assert numbers(await find(diary, directory)) == list(range(1, 202))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"above": 195}, range(196, 201)),
        ({"above": 10, "below": 15}, range(11, 15)),
        ({"since": START_NS * 1e-9 + 120.5, "until": START_NS * 1e-9 + 155.5}, range(121, 156)),
        ({"name": "order.f*", "above": 140}, range(141, 201, 3)),
        ({"symbol": "ETH-*", "above": 170}, range(172, 201, 3)),
        ({"symbol": "deribit/BTC-PERPETUAL", "above": 190}, range(192, 201, 3)),
        ({"symbol": "derive/*"}, []),
        ({"name": "order.f*", "lines": 3}, [192, 195, 198]),
        ({"lines": 0}, []),
    ],
)
async def test_ranges_names_and_symbols(diary: Diary, directory: Path, query: dict[str, object], wanted: range) -> None:
    assert numbers(await find(diary, directory, **query)) == list(wanted)


async def test_it_says_when_there_is_more(diary: Diary, directory: Path) -> None:
    assert (await find(diary, directory, lines=3)).cut == MORE
    assert (await find(diary, directory, lines=60)).cut == MORE
    assert (await find(diary, directory, above=150, lines=50)).cut == ""


async def test_what_is_in_memory_is_not_looked_for_on_disk(
    diary: Diary, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "search_notes", None)
    assert len(numbers(await find(diary, directory, above=150))) == 50
    assert len(numbers(await find(diary, directory, lines=20))) == 20
    assert len(numbers(await find(diary, directory, since=START_NS * 1e-9 + 180))) == 21


async def test_without_a_journal_there_is_what_is_in_memory(diary: Diary) -> None:
    assert numbers(await find(diary, None)) == list(range(151, 201))
    assert await History(Diary(Clock(lambda: START_NS)), None).find(EventQuery(lines=5)) == EventAnswer(
        newest=0, events=[], cut=""
    )


async def test_a_slow_search_stops_and_says_where_to_look(
    diary: Diary, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SEARCH_SECONDS", -1.0)
    answer = await find(diary, directory)
    assert numbers(answer) == list(range(151, 201))
    assert answer.cut == "stopped after -1 s; older ones are in the journal: `mmd journal export --what notes`"


async def test_the_loop_turns_while_the_journal_is_read_and_a_cancelled_search_ends(
    diary: Diary, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended, seen = threading.Event(), threading.Event(), []

    def slow(where: Path, query: NoteQuery, stop: Callable[[], str]) -> Found:
        seen.append(threading.current_thread())
        begun.set()
        while not stop():
            pass
        ended.set()
        return Found([], "")

    monkeypatch.setattr(history, "search_notes", slow)
    monkeypatch.setattr(history, "SEARCH_SECONDS", 60.0)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(find, diary, directory)
            while not begun.is_set():
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        while not ended.is_set():
            await trio.lowlevel.checkpoint()
    assert seen != [threading.main_thread()]


async def test_one_search_at_a_time(diary: Diary, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, guard = 0, 0, threading.Lock()

    def counting(where: Path, query: NoteQuery, stop: Callable[[], str]) -> Found:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        found = search_notes(where, query, stop)
        with guard:
            running -= 1
        return found

    monkeypatch.setattr(history, "search_notes", counting)
    shared = History(diary, directory)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(shared.find, EventQuery(lines=10_000))
    assert most == 1


def test_a_note_is_told_as_it_was() -> None:
    note = Note(seq=9, at=START_NS, number=4, name="a.b", detail="d", symbol="S", exchange="e", by="ann")
    line = line_of(note)
    assert (line.seq, line.time, line.name, line.by) == (4, START_NS * 1e-9, "a.b", "ann")
