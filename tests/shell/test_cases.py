"""The book of cases: numbers that are never used again, what is kept over a restart, what operators read and accept."""

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio
from shell_kit import BTC, ETH, NS, Room, all_came
from trio.testing import MockClock

from mmd.core.symbol import Difference
from mmd.domain import events as ev
from mmd.domain.actions import CaseClosed, CaseOpened
from mmd.domain.errors import MmdError
from mmd.domain.reasons import CaseKind, Side, State, Switch, Why
from mmd.journal.halts import HaltFile
from mmd.journal.statefile import JournalFailed, StateFile
from mmd.shell.cases import FILE, KEPT_CLOSED, CaseBook, about
from mmd.shell.desk import Caller, CaseLine, CaseState, ChangeResult, Outcome
from mmd.shell.front import Front
from mmd.shell.office import Office
from mmd.shell.register import HaltRegister
from mmd.shell.worker import Worker

ANN = Caller(1000, 1, "ann")
PRICE = Decimal(80_000)


class Counter(Front):
    """The daemon's counter with only the rooms that cases need."""

    def __init__(self, room: Room) -> None:
        self.pump = room.pump
        self.register = room.register
        self.office = Office(room.pump)
        self._reloader = SimpleNamespace()  # type: ignore[assignment]  # there is one: it is not asked anything
        self.arrivals = all_came(room.alerts, "deribit")
        self._stop_requested = trio.Event()


def keep(room: Room, state: Path | None) -> CaseBook:
    """A book and a register in this directory, made in the daemon's order."""
    book = CaseBook(state, room.pump)
    room.pump.cases = book
    room.register = HaltRegister(HaltFile(state, "kit") if state is not None else None, room.pump)
    return book


def drift(room: Room, worker: Worker, lots: int) -> None:
    """The exchange says twice that the position is another one."""
    for _ in range(2):
        room.pump.post(worker, ev.PositionReported(lots, PRICE, room.now_ns))
        room.pump.run()


def explain(room: Room, worker: Worker) -> None:
    """The exchange says what our fills say."""
    room.pump.post(worker, ev.PositionReported(worker.machine.position.lots, PRICE, room.now_ns))
    room.pump.run()


def brief(lines: list[CaseLine]) -> list[tuple[int, str, str, str, str, CaseState]]:
    return [(line.number, line.symbol, line.kind, line.ours, line.theirs, line.state) for line in lines]


def notes(room: Room) -> list[tuple[str, str, str | None]]:
    return [(line.name, line.detail, line.by) for line in room.diary.since(0, 10**6) if line.name.startswith("case.")]


def alerts(room: Room) -> list[str]:
    return [line.name for line in room.alerts.active()]


async def accept(room: Room, number: int, reason: str = "checked with the exchange") -> ChangeResult:
    return await Counter(room).accept(number, reason, ANN, 1.0)


# --- from a difference to its end ---------------------------------------------------------------------


async def test_a_difference_gets_a_number_and_explains_itself(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    worker = room.worker()
    room.connect(worker)
    assert book.lines(closed=True) == []
    drift(room, worker, 3)
    assert brief(book.lines(closed=False)) == [(1, BTC, "position", "0", "30", CaseState.OPEN)]
    explain(room, worker)
    assert book.lines(closed=False) == []
    (line,) = book.lines(closed=True)
    assert (line.state, line.by, line.reason) == (CaseState.EXPLAINED, "mmd", "the positions agree")
    assert line.closed is not None and line.closed >= line.since > 0
    assert notes(room) == [
        ("case.opened", "case 1: position: ours 0, the exchange's 30", None),
        ("case.closed", "case 1: position: ours 0, the exchange's 30; explained: the positions agree", None),
    ]
    drift(room, worker, 4)
    assert brief(book.lines(closed=False)) == [(2, BTC, "position", "0", "40", CaseState.OPEN)]


async def test_a_case_keeps_its_number_while_its_figures_move(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    since = book.lines(closed=False)[0].since
    drift(room, worker, -5)
    assert brief(book.lines(closed=False)) == [(1, BTC, "position", "0", "-50", CaseState.OPEN)]
    assert book.lines(closed=False)[0].since == since
    found = book.find(1)
    assert found is not None and (found.ours, found.theirs) == ("0", "-50")
    assert book.find(2) is None


async def test_accepting_adopts_the_exchanges_word_and_resumes_nothing(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    assert worker.machine.state is State.HALTED
    result = await accept(room, 1)
    assert result.outcome is Outcome.DONE
    (row,) = result.symbols
    assert "the exchange's position 30 is adopted" in row.detail and "nothing is resumed" in row.detail
    assert (worker.machine.position.lots, worker.machine.state) == (3, State.HALTED)
    assert worker.machine.cases == {} and book.lines(closed=False) == []
    (line,) = book.lines(closed=True)
    assert (line.state, line.by, line.reason) == (CaseState.ACCEPTED, "ann (uid 1000)", "checked with the exchange")
    assert notes(room)[-1][2] == "ann (uid 1000)"
    with pytest.raises(MmdError, match=r"case 1 is closed: accepted by ann \(uid 1000\): checked"):
        await accept(room, 1)


async def test_a_case_of_an_order_names_its_label(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    worker = room.quoting()
    label = worker.machine.own.bid.label
    order = ev.OpenOrder(label, "id0", Side.BID, 159_000, 1, 1)
    asked = worker.machine.own.ask.slot
    other = ev.OpenOrder(asked.label, "id1", Side.ASK, asked.price_ticks, 1, 1)
    for _ in range(2):
        room.pump.post(worker, ev.OrdersReported((order, other), room.now_ns))
        room.pump.run()
    (line,) = book.lines(closed=False)
    assert (line.kind, line.subject) == ("quantities", label)
    assert notes(room)[0][1].startswith(f"case 1: quantities of {label}: ours 10 at ")
    assert alerts(room) == ["MmdReconciliation"]
    assert (worker.machine.state, worker.machine.why) == (State.PAUSED, Why.RECONCILIATION)


async def test_an_active_symbol_is_paused_first(autojump_clock: MockClock) -> None:
    """As the machine says: nothing is adopted under a quote that is out."""
    room = Room()
    book = keep(room, None)
    worker = room.quoting()
    worker.machine.open_case(CaseKind.JOURNAL, "", "a gap", "not asked yet", room.now_ns)
    worker.machine.state = State.ACTIVE
    book.restored(worker)
    result = await accept(room, 1)
    assert (result.outcome, result.symbols[0].detail) == (Outcome.REFUSED, "is ACTIVE: pause it first")
    assert [line.state for line in book.lines(closed=True)] == [CaseState.OPEN]


async def test_what_cannot_be_accepted_is_refused_in_words(autojump_clock: MockClock) -> None:
    room = Room()
    keep(room, None)
    worker = room.worker()
    room.connect(worker)
    with pytest.raises(MmdError, match="there is no case 1: `mmdctl cases`"):
        await accept(room, 1)
    drift(room, worker, 3)
    room.pump.drop(worker)
    counter = Counter(room)
    counter._reloader = None
    with pytest.raises(MmdError, match="still starting: deribit/BTC-PERPETUAL is not in service, so case 1 is not"):
        await counter.accept(1, "why", ANN, 1.0)
    counter._stop_requested.set()
    with pytest.raises(MmdError, match="the daemon stops: deribit/BTC-PERPETUAL is not in service"):
        await counter.accept(1, "why", ANN, 1.0)


async def test_a_case_of_a_symbol_that_is_gone_can_be_closed_and_adopts_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It expired or was removed with the case open; if it comes back with the difference, that is a new case."""
    room = Room()
    book = keep(room, tmp_path)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    room.pump.drop(worker)
    before = worker.machine.position.lots
    result = await accept(room, 1, "delivered; checked by hand")
    assert result.outcome is Outcome.DONE
    assert "nothing was adopted: the symbol is not in service" in result.symbols[0].detail
    assert (result.symbols[0].symbol, result.symbols[0].state) == (BTC, "not in service")
    (line,) = book.lines(closed=True)
    assert (line.number, line.state, line.by) == (1, CaseState.ACCEPTED, "ann (uid 1000)")
    assert line.reason == "delivered; checked by hand (nothing was adopted: the symbol is not in service)"
    assert book.lines(closed=False) == []
    name, detail, by = notes(room)[-1]
    assert (name, by) == ("case.closed", "ann (uid 1000)") and "nothing was adopted" in detail
    assert worker.machine.position.lots == before and worker.machine.cases  # nobody told it
    assert [line.state for line in keep(Room(), tmp_path).lines(closed=True)] == [CaseState.ACCEPTED]  # it is written
    with pytest.raises(MmdError, match=r"case 1 is closed: accepted by ann \(uid 1000\): delivered"):
        await accept(room, 1)

    heir = room.worker()
    room.pump.drop(heir)
    heir.machine.inherit(worker.machine, room.now_ns)
    book.restored(heir)
    room.pump.add(heir)
    assert [(line.number, line.kind) for line in book.lines(closed=False)] == [(2, "position")]


async def test_a_closing_that_cannot_be_written_is_not_done(autojump_clock: MockClock, tmp_path: Path) -> None:
    room = Room()
    keep(room, tmp_path)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    await room.pump.deliver()
    room.pump.drop(worker)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    result = await accept(room, 1)
    assert result.outcome is Outcome.TIMED_OUT and "could not be written" in result.detail


async def test_words_that_no_open_case_belongs_to_change_nothing(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    worker = room.worker()
    book.closed(worker, CaseClosed(CaseKind.AVERAGE, "", "mmd", "the numbers agree"))
    assert book.lines(closed=True) == [] and notes(room) == []


# --- who asks -----------------------------------------------------------------------------------------


async def test_cases_are_found_by_symbol_and_by_glob(autojump_clock: MockClock) -> None:
    room = Room()
    book = keep(room, None)
    first, second = room.worker(BTC), room.worker(ETH)
    for worker in (first, second):
        room.connect(worker)
        drift(room, worker, 3)
    explain(room, first)
    desk = Counter(room)

    def numbers(*patterns: str, closed: bool = True) -> list[int]:
        return [line.number for line in desk.cases([*patterns], closed)]

    assert numbers("all") == numbers("*") == numbers("ETH-*", BTC) == numbers("all", ETH) == [1, 2]
    assert numbers("all", closed=False) == [2] == numbers("deribit/ETH-*")
    assert numbers(BTC, closed=False) == []
    with pytest.raises(KeyError, match="SOL-"):
        numbers(BTC, "SOL-*")
    room.pump.drop(second)
    assert numbers(ETH) == [2]  # it has left; its case has not
    lines = book.lines(closed=True)
    assert about(lines, ["all"], []) == lines and about([], ["all"], []) == []


# --- over a restart -----------------------------------------------------------------------------------


async def test_numbers_go_on_over_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    room = Room()
    book = keep(room, tmp_path)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    explain(room, worker)
    drift(room, worker, 4)
    await room.pump.deliver()
    before = book.lines(closed=True)
    assert [line.number for line in before] == [1, 2]

    room = Room()
    again = keep(room, tmp_path)
    assert again.lines(closed=True) == before
    heir = room.worker()
    room.pump.drop(heir)
    heir.machine.inherit(worker.machine, room.now_ns)
    again.restored(heir)
    room.pump.add(heir)
    assert again.lines(closed=True) == before and notes(room) == []
    assert alerts(room) == ["MmdReconciliation"] and room.pump.alarm.last[Switch.RECONCILIATION].trips == 0
    room.connect(heir)  # the exchange says 0, as our fills do
    assert [line.state for line in again.lines(closed=True)] == [CaseState.EXPLAINED] * 2
    assert alerts(room) == []
    drift(room, heir, 5)
    await room.pump.deliver()
    assert [line.number for line in again.lines(closed=False)] == [3]
    assert [line.number for line in keep(Room(), tmp_path).lines(closed=True)] == [1, 2, 3]


async def test_a_case_that_was_not_written_in_time_gets_a_number_from_the_heir(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    room = Room()
    book = keep(room, tmp_path)
    worker = room.worker()
    worker.machine.cases[CaseKind.AVERAGE, ""] = Difference("average 1", "average 2", 7 * NS)
    book.restored(worker)
    assert [(line.number, line.since) for line in book.lines(closed=False)] == [(1, 7.0)]
    assert [name for name, _, _ in notes(room)] == ["case.opened"]
    await room.pump.deliver()
    assert [line.number for line in keep(Room(), tmp_path).lines(closed=False)] == [1]


async def test_a_case_whose_end_was_not_written_ends_with_the_restart(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    room = await left_open(tmp_path)
    book = keep(room, tmp_path)
    heir = room.worker()
    heir.machine.heir = True  # and its predecessor had no case
    book.restored(heir)
    room.pump.run()
    assert [(line.state, line.reason) for line in book.lines(closed=True)] == [
        (CaseState.EXPLAINED, "over before the restart")
    ]
    assert heir.machine.cases == {}


async def test_a_case_that_nobody_inherited_is_one_of_the_journal(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Without a journal nobody knows what was decided: no resume until somebody says so. Over two restarts."""
    for run in range(2):
        room = await left_open(tmp_path) if not run else Room()
        book = keep(room, tmp_path)
        worker = room.worker()
        book.restored(worker)
        room.pump.run()
        await room.pump.deliver()
        (line,) = book.lines(closed=False)
        assert (line.number, line.kind) == (2, "journal")
        assert line.ours == "case 1: position: ours 0, the exchange's 30: not decided"
        assert next(each.reason for each in book.lines(closed=True)) == "goes on as a case of the journal"
        assert [check.name for check in worker.machine.checks(room.now_ns) if not check.ok].count("no_open_cases") == 1
    assert (await accept(room, 2, "the position is right")).outcome is Outcome.DONE
    assert [line.state for line in book.lines(closed=True)] == [CaseState.EXPLAINED, CaseState.ACCEPTED]


async def left_open(state: Path) -> Room:
    """A fresh room after one that ended with case 1 open, in its book at least."""
    room = Room()
    keep(room, state)
    worker = room.worker()
    room.connect(worker)
    drift(room, worker, 3)
    await room.pump.deliver()
    return Room()


# --- the file -----------------------------------------------------------------------------------------


async def test_it_is_written_after_the_cancels_have_left_and_beside_the_halts(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    keep(room, tmp_path)
    worker = room.quoting()
    seen: list[tuple[str, int]] = []
    real = StateFile.write

    def write(file: StateFile[object], value: object) -> None:
        seen.append((file.path.name, room.exchange.flushes))
        real(file, value)

    monkeypatch.setattr(StateFile, "write", write)
    room.exchange.flushes = 0
    drift(room, worker, 3)
    assert seen == []
    await room.pump.deliver()
    assert seen == [("halts.json", 1), (FILE, 1)]
    await room.pump.deliver()
    assert len(seen) == 2 and not room.pump.unwritten


async def test_a_book_that_cannot_be_written_halts_everybody_and_is_written_later(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    room = Room()
    directory = tmp_path / "state"
    directory.mkdir()
    book = keep(room, directory)
    first, second = room.worker(BTC), room.worker(ETH)
    for worker in (first, second):
        room.connect(worker)
    (directory / FILE).mkdir()  # a rename to it fails
    drift(room, first, 3)
    await room.pump.deliver()
    assert (second.machine.state, second.machine.why) == (State.HALTED, Why.JOURNAL_FAILURE)
    assert "cases.json" in room.register.failed
    first.proven = second.proven = True
    result = await accept(room, 1)
    assert result.outcome is Outcome.TIMED_OUT
    assert "could not be written and a restart would forget it" in result.detail
    (directory / FILE).rmdir()
    assert (await Office(room.pump).reset([first, second], "mended", "ann", 1.0)).outcome is Outcome.DONE
    assert [line.state for line in keep(Room(), directory).lines(closed=True)] == [CaseState.ACCEPTED]
    assert book.lines(closed=False) == []


async def test_only_so_many_closed_ones_are_kept_and_every_open_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    room = Room()
    book = keep(room, tmp_path)
    worker = room.worker()
    book.opened(worker, CaseOpened(CaseKind.AVERAGE, "", "average 1", "average 2"))
    for number in range(KEPT_CLOSED + 5):
        label = f"label-{number}"
        book.opened(worker, CaseOpened(CaseKind.ORDERS, label, "not in the journal", "bid 10 at 1"))
        book.closed(worker, CaseClosed(CaseKind.ORDERS, label, "ann", "mine"))
    await room.pump.deliver()
    for found in (book, keep(Room(), tmp_path)):
        assert [line.number for line in found.lines(closed=True)] == [1, *range(7, KEPT_CLOSED + 7)]
        assert found.find(6) is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"format":2,"last":1,"cases":[]}',
        b'{"format":1,"last":1,"cases":[],"more":1}',
        b'{"format":1,"last":1,"cases":[{"number":1}]}',
        b"[]",
    ],
    ids=["another format", "a key", "half a case", "another shape"],
)
def test_what_we_did_not_write_is_not_believed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)

    async def start() -> None:
        keep(Room(), tmp_path)

    with pytest.raises(JournalFailed, match=r"cases\.json: (format 2, this version reads 1|cannot be understood)"):
        trio.run(start)


def test_a_line_says_everything_in_json() -> None:
    line = CaseLine(
        number=1,
        symbol=BTC,
        exchange="deribit",
        kind="position",
        subject="",
        ours="0",
        theirs="30",
        since=1.0,
        state=CaseState.OPEN,
        closed=None,
        by="",
        reason="",
    )
    assert msgspec.json.decode(msgspec.json.encode(line))["state"] == "open"
