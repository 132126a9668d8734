"""Cash that moved without a trade: funding, and how options ended.

- private/get_funding_history has every payment of a perpetual. `funding` counts, `pnl` does not: it pays out
  profit that the position's value shows already. A payment is known by its time and amount, for its batch may be
  made anew.
- private/get_option_settlement_history has what became of each option that was held when it expired: once for
  each instrument, so that is its name. Whether `amount` is signed is not documented: the row is counted only
  where its value, or the average price that its profit means, proves the side. What is not counted leaves our
  position beside the exchange's, which is a case. The list has no pages and no times, and ends at 1,000 rows: a
  full one is told, and what it does not have is not counted.

`cumulative_funding` of a position is not used: it says neither when it moved nor what an earlier process counted.
Assumed: rows are listed at the latest six hours after their time. Source: the published v3 specifications; a
recorded settlement of October 2026 (long, worthless).
"""

from decimal import Decimal
from functools import partial

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.reasons import CashKind
from mmd.domain.units import whole
from mmd.exchanges.cash import CashLog, CashRow, Question
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive.cash_messages import (
    FundingEvent,
    FundingPage,
    FundingParams,
    OptionSettlement,
    OptionSettlements,
)
from mmd.exchanges.derive.pages import read_pages
from mmd.exchanges.derive.room import Room
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.known import Known

MS, NS = 1_000_000, 1_000_000_000
FUNDING, SETTLEMENT = "funding", "settlement"
LIST_MOST = 1000
CENT = Decimal("0.01")

_decode_funding_page: Decoder[FundingPage] = Decoder(FundingPage)
_decode_funding: Decoder[FundingEvent] = Decoder(FundingEvent)
_decode_settlements: Decoder[OptionSettlements] = Decoder(OptionSettlements)
_decode_settlement: Decoder[OptionSettlement] = Decoder(OptionSettlement)


def read_funding(row: FundingEvent, instrument: Instrument, received_ns: int) -> CashMoved | None:
    """None where only profit was paid out. Raises ExchangeMalformed."""
    if not row.funding.is_finite():
        raise ExchangeMalformed(f"funding of {instrument.symbol}: {row.funding} is no number")
    if not row.funding:
        return None
    entry = f"funding {row.timestamp} {row.funding.normalize():f}"
    return CashMoved(entry, CashKind.FUNDING, row.funding, instrument.settlement, 0, row.timestamp * MS, received_ns)


def read_settlement(row: OptionSettlement, instrument: Instrument, received_ns: int) -> CashMoved:
    """The end of a position in an option. ExchangeMalformed where it does not say which side it was."""
    name = f"settlement of {instrument.symbol}"
    numbers = [row.amount, row.settlement_price, row.settlement_value, row.profit or Decimal(0)]
    if not all(number.is_finite() for number in numbers):
        raise ExchangeMalformed(f"{name}: {', '.join(map(str, numbers))} are no numbers")
    try:
        lots = whole(row.amount, instrument.lot)
    except (OffGrid, ArithmeticError) as error:
        raise ExchangeMalformed(f"{name}: {error}") from error
    payoff = _payoff(instrument, row.settlement_price)
    if not lots or not _is_worth(row, payoff):
        told = f"{row.amount} at {row.settlement_price} for {row.settlement_value}"
        raise ExchangeMalformed(f"{name}: {told}, where one pays {payoff}")
    if row.amount > 0 and row.settlement_value <= CENT and not _was_bought(row):
        raise ExchangeMalformed(f"{name}: {row.amount}, and nothing shows that it was held long")
    return CashMoved(
        f"settlement {row.expiry}",
        CashKind.SETTLEMENT,
        row.settlement_value,
        instrument.settlement,
        lots,
        row.expiry * NS,
        received_ns,
    )


def _payoff(instrument: Instrument, price: Decimal) -> Decimal:
    """What one coin pays. ExchangeMalformed for what is no option."""
    if instrument.strike is None:
        raise ExchangeMalformed(f"settlement of {instrument.symbol}, which is no option")
    inner = price - instrument.strike
    return max(Decimal(0), inner if instrument.kind is Kind.CALL else -inner)


def _is_worth(row: OptionSettlement, payoff: Decimal) -> bool:
    """Its value is that of so many coins; not where the numbers are too large to say."""
    try:
        return abs(row.amount * payoff - row.settlement_value) <= CENT
    except ArithmeticError:
        return False


def _was_bought(row: OptionSettlement) -> bool:
    """A profit means an average price; it is below zero where the amount of a short position has lost its sign."""
    return row.profit is not None and (row.settlement_value - row.profit) / row.amount > 0


class _Rows:
    """Implements CashRows: two lists, of all instruments each."""

    late_ms = 6 * 3_600_000

    def __init__(self, room: Room) -> None:
        self._room = room

    def question(self, instrument: Instrument) -> Question:
        return instrument.settlement, SETTLEMENT if instrument.is_option else FUNDING

    def end(self, instrument: Instrument) -> Question:
        return instrument.settlement, SETTLEMENT

    async def rows(
        self, connection: Connection, question: Question, from_ms: int, until_ms: int
    ) -> tuple[list[CashRow], str]:
        if question[1] == FUNDING:
            return await self._payments(connection, from_ms, until_ms)
        return await self._settlements(connection, from_ms)

    async def _payments(self, connection: Connection, from_ms: int, until_ms: int) -> tuple[list[CashRow], str]:
        async def page(number: int) -> FundingPage:
            params = FundingParams(self._room.subaccount, from_ms, until_ms, page=number)
            return _decode_funding_page(await connection.call("private/get_funding_history", params))

        found: list[CashRow] = []
        problem = ""
        for part in await read_pages("private/get_funding_history", page):
            for raw in part.events:
                try:
                    row = _decode_funding(raw)
                except ExchangeMalformed as error:
                    problem = f"funding: {error}"
                    continue
                if row.subaccount_id == self._room.subaccount:
                    number = f"{row.instrument_name} {row.timestamp} {row.funding}"
                    found.append(CashRow(number, row.instrument_name, row.timestamp, partial(read_funding, row)))
        return found, problem

    async def _settlements(self, connection: Connection, from_ms: int) -> tuple[list[CashRow], str]:
        params = {"subaccount_id": self._room.subaccount}
        answer = _decode_settlements(await connection.call("private/get_option_settlement_history", params))
        found: list[CashRow] = []
        problem = ""
        if len(answer.settlements) >= LIST_MOST:
            problem = f"settlements: the list is full with {LIST_MOST} rows, and may leave out some"
        for raw in answer.settlements:
            try:
                row = _decode_settlement(raw)
            except ExchangeMalformed as error:
                problem = f"settlement: {error}"
                continue
            if row.subaccount_id == self._room.subaccount and row.expiry * 1000 >= from_ms:
                read = partial(read_settlement, row)
                found.append(CashRow(row.instrument_name, row.instrument_name, row.expiry * 1000, read))
        return found, problem


class DeriveCash(CashLog):
    """Implements Cash."""

    def __init__(self, room: Room, known: Known) -> None:
        super().__init__(room.house, known, _Rows(room))
