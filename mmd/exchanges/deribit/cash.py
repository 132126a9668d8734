"""Cash that moved without a trade: funding and deliveries, out of Deribit's transaction log.

The log is asked for one kind of row at a time (`query`), so that our own trades do not fill its pages; its
requests have credits of their own (`dialect.account_credits`), and cost none of the matching engine's:

- settlement, of perpetuals: funding. `total_interest_pl` is the session's funding, `interest_pl` what
  of it was not on a trade's row before; the first is taken where it is given. The rest of such a row
  pays out profit that the position's value shows already.
- delivery, of what expires: `side` "close sell" (also "long") ended a long position of `amount`,
  "close buy" ("short") a short one; `change` is the cash received, delivery fee included.

Assumed, as no recording shows it: a row's id is never used twice; a row appears at the latest
OVERLAP_MS after its time; in-the-money options that are exercised into the future of their expiry
(since 2026) pay what they are worth on a delivery row of their own.

Only rows since a symbol's first position report count: that report has what came before. So the first
funding of a session already begun is that of the whole session. For a symbol that an earlier process left
to this one, rows count from what that process may not have seen (`Known.cash_from_ms`): a row that it has
counted is recognised by its id.
Source: docs.deribit.com, private/get_transaction_log, September 2026.
"""

import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, OffGrid
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.reasons import CashKind
from mmd.domain.units import whole
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.messages import LogHead, LogPage, LogParams, LogRow
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.known import Known
from mmd.exchanges.rows import finite

MS = 1_000_000
POLL_SECONDS = 60.0
EAGER_SECONDS, EAGER_POLLS = 5.0, 4  # after a settlement: its rows may take a moment
AGAIN_FIRST_SECONDS, AGAIN_MAX_SECONDS = 5.0, 300.0  # after a refusal that time may cure, or no answer
RARE_SECONDS = 3600.0  # after any other refusal
OVERLAP_MS = 600_000
DAY_MS = 86_400_000
MAX_PAGES = 100  # 25,000 settlements since the last look are not believed
SETTLEMENT, DELIVERY = "settlement", "delivery"
CLOSED_LONG = frozenset({"close sell", "long"})
CLOSED_SHORT = frozenset({"close buy", "short"})

_decode_page: Decoder[LogPage] = Decoder(LogPage)
_decode_head: Decoder[LogHead] = Decoder(LogHead)
_decode_row: Decoder[LogRow] = Decoder(LogRow)


def read_row(row: LogRow, instrument: Instrument, received_ns: int) -> CashMoved | None:
    """What a row means for the position in `instrument`; None for nothing. Raises ExchangeMalformed."""
    closed_lots = 0
    if row.type == SETTLEMENT and instrument.kind is Kind.PERPETUAL:
        kind = CashKind.FUNDING
        amount = row.total_interest_pl if row.total_interest_pl is not None else row.interest_pl
        if not amount:
            return None
    elif row.type == DELIVERY:
        kind, amount = CashKind.SETTLEMENT, row.change
        closed_lots = _closed_lots(row, instrument)
    else:
        return None
    if amount is None:
        raise ExchangeMalformed(f"{row.type} {row.id} of {instrument.symbol} does not say what it paid")
    finite(amount, instrument, f"{row.type} {row.id}")
    return CashMoved(str(row.id), kind, amount, row.currency, closed_lots, row.timestamp * MS, received_ns)


def _closed_lots(row: LogRow, instrument: Instrument) -> int:
    side = row.side or ""
    if row.amount is None or side not in CLOSED_LONG | CLOSED_SHORT:
        raise ExchangeMalformed(f"delivery {row.id} of {instrument.symbol}: {row.amount} {side!r} is no position")
    try:
        lots = whole(abs(row.amount), instrument.lot)
    except (OffGrid, ArithmeticError) as error:
        raise ExchangeMalformed(f"delivery {row.id} of {instrument.symbol}: {error}") from error
    return lots if side in CLOSED_LONG else -lots


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
    """One per exchange; survives connections, so that no row is missed between two of them."""

    def __init__(self, house: House, known: Known) -> None:
        self._house = house
        self._known = known
        self._follows: dict[tuple[str, str], Follow] = {}  # by currency and kind of row
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
            for (currency, kind), follow in list(self._follows.items()):
                if follow.due_at <= now:
                    await self._ask(connection, currency, kind, follow)
            self._eager = max(0, self._eager - 1)
            next_at = min((follow.due_at for follow in self._follows.values()), default=float("inf"))
            with trio.move_on_at(next_at):
                await self._wake.wait()

    def _align(self) -> None:
        """The questions that the watched symbols make necessary, and from when on."""
        wanted: dict[tuple[str, str], int] = {}
        begun: dict[str, int] = {}
        now_ms = self._house.clock.now_ms()
        for symbol in self._house.watched:
            instrument = self._house.instruments.get(symbol)
            if instrument is None:
                continue
            key = (instrument.settlement, SETTLEMENT if instrument.kind is Kind.PERPETUAL else DELIVERY)
            wanted.setdefault(key, now_ms)
            from_ms = self._known.cash_from_ms(symbol)
            if from_ms is not None and self._known.is_recovered(symbol):
                begun[symbol] = from_ms
                if self._begun.get(symbol) != from_ms:
                    wanted[key] = min(wanted[key], from_ms)
        self._begun = begun
        for key in self._follows.keys() - wanted.keys():
            del self._follows[key]
        for key, since_ms in sorted(wanted.items()):
            follow = self._follows.setdefault(key, Follow(now_ms))
            if since_ms < follow.since_ms and since_ms < now_ms:
                # A row that meant nothing before may mean something now.
                follow.since_ms, follow.seen, follow.due_at = since_ms, {}, float("-inf")

    async def _ask(self, connection: Connection, currency: str, kind: str, follow: Follow) -> None:
        follow.due_at = trio.current_time() + (EAGER_SECONDS if self._eager else POLL_SECONDS)
        asked_ms = self._house.clock.now_ms()
        try:
            found = await self._read(connection, currency, kind, follow)
        except (ExchangeRefused, ExchangeAmbiguous) as error:
            follow.refused = isinstance(error, ExchangeRefused) and not ERRORS.is_for_now(error.code)
            wait_seconds = RARE_SECONDS if follow.refused else follow.again_seconds
            follow.again_seconds = min(AGAIN_MAX_SECONDS, 2.0 * follow.again_seconds)
            follow.due_at = trio.current_time() + wait_seconds
            when = f"every {RARE_SECONDS / 60:g} min" if follow.refused else f"soon, then every {AGAIN_MAX_SECONDS:g} s"
            self._failed(follow, f"{currency} {kind}: {error}; asked again {when}")
        except ExchangeMalformed as error:
            self._failed(follow, f"{currency} {kind}: {error}")
        else:
            follow.refused = False
            follow.again_seconds = AGAIN_FIRST_SECONDS
            follow.since_ms = max(follow.since_ms, asked_ms)
            oldest_ms = follow.since_ms - OVERLAP_MS
            follow.seen = {number: at_ms for number, at_ms in follow.seen.items() if at_ms >= oldest_ms}
            for symbol, event in found:
                self._house.sink.post(symbol, event)
            if found:
                await self._house.sink.deliver()

    async def _read(
        self, connection: Connection, currency: str, kind: str, follow: Follow
    ) -> list[tuple[str, CashMoved]]:
        """What is new, oldest first, from all pages: nothing of it counts before the last page is read.

        A row that cannot be read is told and left out; it is tried again while it is asked for.
        """
        house = self._house
        params = LogParams(currency, follow.since_ms - OVERLAP_MS, house.clock.now_ms() + OVERLAP_MS, kind)
        found: list[tuple[str, CashMoved]] = []
        passed: dict[int | str, int] = {}
        problem = ""
        for _ in range(MAX_PAGES):
            page = _decode_page(await connection.call("private/get_transaction_log", params))
            for raw in page.logs:
                try:
                    head = _decode_head(raw)
                except ExchangeMalformed as error:
                    problem = f"{currency} {kind}: {error}"
                    continue
                if head.type != kind or head.id in follow.seen or head.id in passed:
                    continue
                instrument = house.instruments.get(head.instrument_name or "")
                if instrument is not None and self._counts(instrument.symbol, head.timestamp):
                    try:
                        event = read_row(_decode_row(raw), instrument, house.wall_clock_ns())
                    except ExchangeMalformed as error:
                        problem = f"{currency} {kind}: {error}"
                        continue
                    if event is not None:
                        found.append((instrument.symbol, event))
                passed[head.id] = head.timestamp
            if page.continuation is None:
                self._failed(follow, problem)
                follow.seen |= passed
                found.sort(key=lambda row: row[1].exchange_ns)
                return found
            params.continuation = page.continuation
        raise ExchangeMalformed(f"the log of {currency} does not end after {MAX_PAGES} pages")

    async def deliveries(self, connection: Connection, instrument: Instrument) -> list[CashMoved]:
        """How a position in what has expired was settled, oldest first: all rows, whoever watched it.

        Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed.
        """
        house = self._house
        now_ms = house.clock.now_ms()
        from_ms = min(now_ms, (instrument.expiry_ns or 0) // MS) - DAY_MS
        params = LogParams(instrument.settlement, from_ms, now_ms + OVERLAP_MS, DELIVERY)
        found: list[CashMoved] = []
        for _ in range(MAX_PAGES):
            page = _decode_page(await connection.call("private/get_transaction_log", params))
            rows = [_decode_row(raw) for raw in page.logs if _decode_head(raw).instrument_name == instrument.symbol]
            events = [read_row(row, instrument, house.wall_clock_ns()) for row in rows if row.type == DELIVERY]
            found += [event for event in events if event is not None]
            if page.continuation is None:
                return sorted(found, key=lambda event: event.exchange_ns)
            params.continuation = page.continuation
        raise ExchangeMalformed(f"the log of {instrument.settlement} does not end after {MAX_PAGES} pages")

    def _counts(self, symbol: str, at_ms: int) -> bool:
        """Whether a row of that time is of after the symbol's first position report."""
        from_ms = self._known.cash_from_ms(symbol)
        return symbol in self._house.watched and from_ms is not None and at_ms >= from_ms

    def _failed(self, follow: Follow, detail: str) -> None:
        """Told once, until it works again (empty) or fails in another way."""
        if detail and follow.failure != detail:
            self._house.sink.report("cash.unknown", detail)
        follow.failure = detail
