"""Cash that moved without a trade: asked for again and again, each row told once. Exchanges differ in their rows.

Only rows since a symbol's first position report count: that report has what came before. So the first
funding of a session already begun is that of the whole session. For a symbol that an earlier process left
to this one, rows count from what that process may not have seen (`Known.cash_from_ms`): a row that it has
counted is recognised by its id.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.known import Known

MS = 1_000_000
DAY_MS = 86_400_000
POLL_SECONDS = 60.0
EAGER_SECONDS, EAGER_POLLS = 5.0, 4  # after a settlement: its rows may take a moment
AGAIN_FIRST_SECONDS, AGAIN_MAX_SECONDS = 5.0, 300.0  # after a refusal that time may cure, or no answer
RARE_SECONDS = 3600.0  # after any other refusal

Question = tuple[str, str]
"""(currency, kind of row): what is asked for at a time"""


class CashRow(msgspec.Struct, frozen=True):
    """`row_id`: the same whenever it is listed, and no other one's in the answers to its question.

    `read`: what it means for the position, None for nothing; takes the instrument and when it was received.
    Raises ExchangeMalformed.
    """

    row_id: int | str
    symbol: str
    at_ms: int
    read: Callable[[Instrument, int], CashMoved | None]


class CashRows(Protocol):
    """What an exchange has of them. `late_ms`: a row is listed at the latest so long after its time."""

    late_ms: int

    def question(self, instrument: Instrument) -> Question:
        """Which answers have the rows of this instrument."""

    def end(self, instrument: Instrument) -> Question:
        """Which answers say how a position in it ended when it expired."""

    async def rows(
        self, connection: Connection, question: Question, from_ms: int, until_ms: int
    ) -> tuple[list[CashRow], str]:
        """All of a time (the exchange's clock), to the end that the exchange proves; and what could not be read.

        Raises as `Connection.call` does, and ExchangeMalformed for what is no list.
        """


class Follow:
    """One question that is asked again and again."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self.seen: dict[int | str, int] = {}  # row ids that were posted or passed over, with their times
        self.refused = False  # for good, as far as we know
        self.again_seconds = AGAIN_FIRST_SECONDS
        self.failure = ""
        self.due_at = float("-inf")


class CashLog:
    """Implements Cash. One per exchange; survives connections, so that no row is missed between two of them."""

    def __init__(self, house: House, known: Known, rows: CashRows) -> None:
        self._house = house
        self._known = known
        self._rows = rows
        self._follows: dict[Question, Follow] = {}
        self._begun: dict[str, int] = {}  # how far back each recovered symbol was gone, Unix ms
        self._eager = 0
        self._wake = trio.Event()

    def wake(self) -> None:
        """The watched symbols changed."""
        self._wake.set()

    def settled(self) -> None:
        """Something was settled or delivered just now."""
        self._eager = EAGER_POLLS
        for follow in self._follows.values():
            follow.due_at = min(follow.due_at, trio.current_time()) if not follow.refused else follow.due_at
        self._wake.set()

    async def serve(self, connection: Connection) -> None:
        """Ask again and again until cancelled."""
        for follow in self._follows.values():
            follow.due_at = float("-inf")
        while True:
            self._wake = trio.Event()
            self._align()
            now = trio.current_time()
            for question, follow in list(self._follows.items()):
                if follow.due_at <= now:
                    await self._ask(connection, question, follow)
            self._eager = max(0, self._eager - 1)
            next_at = min((follow.due_at for follow in self._follows.values()), default=float("inf"))
            with trio.move_on_at(next_at):
                await self._wake.wait()

    def _align(self) -> None:
        """The questions that the watched symbols make necessary, and from when on."""
        wanted: dict[Question, int] = {}
        begun: dict[str, int] = {}
        now_ms = self._house.clock.now_ms()
        for symbol in self._house.watched:
            instrument = self._house.instruments.get(symbol)
            if instrument is None:
                continue
            question = self._rows.question(instrument)
            wanted.setdefault(question, now_ms)
            from_ms = self._known.cash_from_ms(symbol)
            if from_ms is not None and self._known.is_recovered(symbol):
                begun[symbol] = from_ms
                if self._begun.get(symbol) != from_ms:
                    wanted[question] = min(wanted[question], from_ms)
        self._begun = begun
        for question in self._follows.keys() - wanted.keys():
            del self._follows[question]
        for question, since_ms in sorted(wanted.items()):
            follow = self._follows.setdefault(question, Follow(now_ms))
            if since_ms < follow.since_ms and since_ms < now_ms:
                # A row that meant nothing before may mean something now.
                follow.since_ms, follow.seen, follow.due_at = since_ms, {}, float("-inf")

    async def _ask(self, connection: Connection, question: Question, follow: Follow) -> None:
        follow.due_at = trio.current_time() + (EAGER_SECONDS if self._eager else POLL_SECONDS)
        name = " ".join(question)
        asked_ms = self._house.clock.now_ms()
        try:
            found = await self._read(connection, question, follow)
        except (ExchangeRefused, ExchangeAmbiguous) as error:
            errors = self._house.errors
            follow.refused = isinstance(error, ExchangeRefused) and not errors.is_for_now(error.code)
            wait_seconds = RARE_SECONDS if follow.refused else follow.again_seconds
            follow.again_seconds = min(AGAIN_MAX_SECONDS, 2.0 * follow.again_seconds)
            follow.due_at = trio.current_time() + wait_seconds
            when = f"every {RARE_SECONDS / 60:g} min" if follow.refused else f"soon, then every {AGAIN_MAX_SECONDS:g} s"
            self._failed(follow, f"{name}: {error}; asked again {when}")
        except ExchangeMalformed as error:
            self._failed(follow, f"{name}: {error}")
        else:
            follow.refused = False
            follow.again_seconds = AGAIN_FIRST_SECONDS
            follow.since_ms = max(follow.since_ms, asked_ms)
            oldest_ms = follow.since_ms - self._rows.late_ms
            follow.seen = {number: at_ms for number, at_ms in follow.seen.items() if at_ms >= oldest_ms}
            for symbol, event in found:
                self._house.sink.post(symbol, event)
            if found:
                await self._house.sink.deliver()

    async def _read(self, connection: Connection, question: Question, follow: Follow) -> list[tuple[str, CashMoved]]:
        """What is new, oldest first; nothing of it counts before the last page is read.

        A row that cannot be read is told and left out; it is tried again while it is asked for.
        """
        house, late_ms = self._house, self._rows.late_ms
        from_ms, until_ms = follow.since_ms - late_ms, house.clock.now_ms() + late_ms
        rows, problem = await self._rows.rows(connection, question, from_ms, until_ms)
        found: list[tuple[str, CashMoved]] = []
        passed: dict[int | str, int] = {}
        for row in rows:
            if row.row_id in follow.seen or row.row_id in passed:
                continue
            instrument = house.instruments.get(row.symbol)
            if instrument is not None and self._counts(row.symbol, row.at_ms):
                try:
                    event = row.read(instrument, house.wall_clock_ns())
                except ExchangeMalformed as error:
                    problem = f"{' '.join(question)}: {error}"
                    continue
                if event is not None:
                    found.append((row.symbol, event))
            passed[row.row_id] = row.at_ms
        self._failed(follow, problem)
        follow.seen |= passed
        found.sort(key=lambda one: one[1].exchange_ns)
        return found

    async def deliveries(self, connection: Connection, instrument: Instrument) -> list[CashMoved]:
        """How a position in what has expired was settled, oldest first: all rows, whoever watched it.

        Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed.
        """
        house = self._house
        now_ms = house.clock.now_ms()
        from_ms = min(now_ms, (instrument.expiry_ns or 0) // MS) - DAY_MS
        until_ms = now_ms + self._rows.late_ms
        rows, problem = await self._rows.rows(connection, self._rows.end(instrument), from_ms, until_ms)
        if problem:
            raise ExchangeMalformed(problem)
        events = [row.read(instrument, house.wall_clock_ns()) for row in rows if row.symbol == instrument.symbol]
        return sorted((event for event in events if event is not None), key=lambda event: event.exchange_ns)

    def _counts(self, symbol: str, at_ms: int) -> bool:
        """Whether a row of that time is of after the symbol's first position report."""
        from_ms = self._known.cash_from_ms(symbol)
        return symbol in self._house.watched and from_ms is not None and at_ms >= from_ms

    def _failed(self, follow: Follow, detail: str) -> None:
        """Told once, until it works again (empty) or fails in another way."""
        if detail and follow.failure != detail:
            self._house.sink.report("cash.unknown", detail)
        follow.failure = detail
