"""A look at everything, again and again: what differs is reported at once, all of it at every interval.

One list of open orders and one of positions for each account (`Questions.account`) cover all symbols. It is looked soon
after every trade and every order of unknown origin, else every AUDIT_SECONDS; such a quick look reports what is
news. At the interval of `every` each symbol is reported whole, news or not, from the same kind of look. In either
case only where nothing happened to the symbol between question and answer, and no request of ours was on its way:
else it is left for the next look, which comes soon the first time, and later each time that somebody moved again.
One that never held still for a whole interval is asked for alone.

Fills that nobody told are asked for as well, a few symbols at each interval, those first that were not asked for
the longest: so it is proven now and then that none is missing, and no question has to reach far back.

Requests that are no orders (Deribit takes 20 a second of them, an account is a settlement currency there), with C
accounts: 1 + C for a look at the most; at each interval at most CATCH_UPS more for fills, and 5 for each of at
most STUBBORN symbols. 100 symbols in 4 currencies every 30 s: 15 to 20 requests for the looks and 5 for fills,
less than one a second; 75 where ten symbols never hold still.
"""

import trio

from mmd.domain.errors import ExchangeMalformed, ExchangeRefused
from mmd.domain.events import PositionReported
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.inquiry import Inquiry
from mmd.exchanges.questions import Questions, TakeOrders, TakePositions
from mmd.exchanges.record import OrderRecord
from mmd.exchanges.rows import OrderListing, OrderRow, PositionListing, Unread

AUDIT_SECONDS = 10.0
SOON_SECONDS = 0.1  # fills come in bunches
SPACING_SECONDS = 0.5  # at least this long between two looks
WHOLE_SECONDS = 30.0  # unless `every` says otherwise
STUBBORN = 10
CATCH_UPS = 10
CATCH_UP_MS = 600_000  # fills are asked for again after that


class Audit:
    """One per exchange. What it finds is reported as `Inquiry` reports it; the machine asks again, and judges."""

    def __init__(self, house: House, record: OrderRecord, questions: Questions, inquiry: Inquiry) -> None:
        self._house = house
        self._questions = questions
        self._record = record
        self._inquiry = inquiry
        self._every_seconds = WHOLE_SECONDS
        self._wake = trio.Event()
        self._looked_at = self._due_at = float("-inf")  # trio's clock
        self._whole_at = float("inf")
        self._moved = False  # some symbol did not hold still during this look
        self._misses = 0  # looks in a row during which that was so
        self._owed_orders: set[str] = set()  # symbols that are to be reported, news or not
        self._owed_positions: set[str] = set()
        self._told_orders: dict[str, tuple[int, frozenset[str]]] = {}  # activity then, order ids
        self._told_positions: dict[str, tuple[int, str]] = {}  # fills then, the position

    def every(self, seconds: float) -> None:
        """How often everything is reported, from now on. ValueError unless above 0."""
        if not seconds > 0:
            raise ValueError(f"reconcile every {seconds} s, allowed: above 0")
        self._every_seconds = seconds
        if self._whole_at < float("inf"):
            self._whole_at = trio.current_time() + seconds
            self._look_at(self._whole_at)

    def soon(self) -> None:
        """Something happened that orders and positions may show."""
        self._look_at(max(trio.current_time() + SOON_SECONDS, self._looked_at + SPACING_SECONDS))

    def forget_others(self) -> None:
        """The watched symbols changed."""
        for told in (self._told_orders, self._told_positions):
            for symbol in told.keys() - set(self._house.watched):
                del told[symbol]

    def _look_at(self, due_at: float) -> None:
        if due_at < self._due_at:
            self._due_at = due_at
            self._wake.set()

    async def serve(self, connection: Connection) -> None:
        """Look until cancelled. Raises LinkLost."""
        self._told_orders.clear()
        self._told_positions.clear()
        self._owed_orders.clear()
        self._owed_positions.clear()
        # Everything is reported when the link comes up.
        self._whole_at = trio.current_time() + self._every_seconds
        self._due_at = min(trio.current_time() + AUDIT_SECONDS, self._whole_at)
        while True:
            self._wake = trio.Event()
            with trio.move_on_at(self._due_at):
                await self._wake.wait()
            if trio.current_time() >= self._due_at:
                await self._look(connection)

    async def _look(self, connection: Connection) -> None:
        now = self._looked_at = trio.current_time()
        whole = now >= self._whole_at
        if whole:
            self._whole_at = now + self._every_seconds
        self._due_at = min(now + AUDIT_SECONDS, self._whole_at)
        symbols = [symbol for symbol in self._house.watched if self._inquiry.is_up(symbol)]
        if not symbols:
            return
        self._moved = False
        try:
            if whole:
                await self._begin_whole(connection, symbols)
            await self._questions.look(
                connection,
                sorted({self._questions.account(symbol) for symbol in symbols}),
                lambda: self._look_at_orders(connection, symbols),
                lambda account: self._look_at_positions(connection, account, symbols),
            )
        except FAILURES as error:
            self._house.sink.report("query.failed", f"{self._house.name}: {error}")
        self._misses = self._misses + 1 if self._moved else 0
        if self._moved:
            self._look_at(now + min(AUDIT_SECONDS, SPACING_SECONDS * 2.0 ** min(self._misses - 1, 10)))

    async def _begin_whole(self, connection: Connection, symbols: list[str]) -> None:
        """All are to be reported; first those that were to be, and were not, and the fills of some."""
        late = [symbol for symbol in symbols if symbol in self._owed_orders | self._owed_positions]
        self._owed_orders = set(symbols)
        self._owed_positions = set(symbols)
        async with trio.open_nursery() as nursery:
            for symbol in late[:STUBBORN]:
                nursery.start_soon(self._ask_alone, connection, symbol)
        before_ms = self._house.clock.now_ms() - CATCH_UP_MS
        for symbol in self._inquiry.known.stale(symbols, before_ms)[:CATCH_UPS]:
            try:
                await self._inquiry.catch_up(connection, symbol)
            except (ExchangeRefused, ExchangeMalformed):
                self._inquiry.doubt([symbol])  # asked again and told there; the others go on

    async def _ask_alone(self, connection: Connection, symbol: str) -> None:
        if await self._inquiry.ask_state(connection, symbol):
            self._owed_orders.discard(symbol)
            self._owed_positions.discard(symbol)

    def _look_at_orders(self, connection: Connection, symbols: list[str]) -> TakeOrders:
        """Orders are asked for now; returns who takes the answer."""
        activity = self._record.activity
        before = {symbol: activity[symbol] for symbol in symbols}

        def take(listing: OrderListing) -> None:
            unread = self._inquiry.tell_unread(connection, listing.unread)
            listed: dict[str, list[OrderRow]] = {}
            for row in listing.rows:
                listed.setdefault(row.symbol, []).append(row)
            told_ms = listing.told_us // 1000
            for symbol, count in before.items():
                if symbol in unread:
                    continue
                if activity[symbol] != count or told_ms <= self._record.unsettled_until_ms(symbol):
                    self._moved = True
                    continue
                found = listed.get(symbol, [])
                news = (count, frozenset(row.order_id for row in found))
                if symbol in self._owed_orders or self._told_orders.get(symbol) != news:
                    self._told_orders[symbol] = news
                    self._owed_orders.discard(symbol)
                    self._inquiry.report_orders(symbol, found)

        return take

    def _look_at_positions(self, connection: Connection, account: str, symbols: list[str]) -> TakePositions:
        """Positions are asked for now; returns who takes the answer."""
        fills = self._record.fills
        before = {symbol: fills[symbol] for symbol in symbols if self._questions.account(symbol) == account}

        def take(listing: PositionListing) -> None:
            unread = self._inquiry.tell_unread(connection, listing.unread)
            for symbol, count in before.items():
                if symbol in unread:
                    continue
                if fills[symbol] != count:
                    self._moved = True
                    continue
                news = (count, _shown(listing.rows.get(symbol)))
                if symbol in self._owed_positions or self._told_positions.get(symbol) != news:
                    self._told_positions[symbol] = news
                    self._owed_positions.discard(symbol)
                    self._inquiry.report_position(symbol, listing)

        return take


def _shown(row: PositionReported | Unread | None) -> str:
    """What makes a position another one."""
    if row is None:
        return "absent"
    return row.detail if isinstance(row, Unread) else str(row.position_lots)
