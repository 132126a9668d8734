"""Cash that moved without a trade: funding and deliveries, out of Deribit's transaction log.

The log is asked for one kind of row at a time (`query`), so that our own trades do not fill its pages; its
requests have credits of their own (`dialect.account_credits`), and cost none of the matching engine's:

- settlement, of perpetuals: funding. `total_interest_pl` is the session's funding, `interest_pl` what
  of it was not on a trade's row before; the first is taken where it is given. The rest of such a row
  pays out profit that the position's value shows already.
- delivery, of what expires: `side` "close sell" (also "long") ended a long position of `amount`,
  "close buy" ("short") a short one; `change` is the cash received, delivery fee included.

Assumed, as no recording shows it: a row's id is never used twice; a row appears at the latest
ten minutes after its time; in-the-money options that are exercised into the future of their expiry
(since 2026) pay what they are worth on a delivery row of their own.

Source: docs.deribit.com, private/get_transaction_log, September 2026.
"""

from functools import partial

import msgspec

from mmd.domain.errors import ExchangeMalformed, OffGrid
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.reasons import CashKind
from mmd.domain.units import whole
from mmd.exchanges.cash import CashRow, Question
from mmd.exchanges.connection import Connection
from mmd.exchanges.deribit.messages import LogHead, LogPage, LogParams, LogRow
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.rows import finite

MS = 1_000_000
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


class LogRows:
    """Implements CashRows."""

    late_ms = 600_000

    def question(self, instrument: Instrument) -> Question:
        return instrument.settlement, SETTLEMENT if instrument.kind is Kind.PERPETUAL else DELIVERY

    def end(self, instrument: Instrument) -> Question:
        return instrument.settlement, DELIVERY

    async def rows(
        self, connection: Connection, question: Question, from_ms: int, until_ms: int
    ) -> tuple[list[CashRow], str]:
        currency, kind = question
        params = LogParams(currency, from_ms, until_ms, kind)
        found: list[CashRow] = []
        problem = ""
        for _ in range(MAX_PAGES):
            page = _decode_page(await connection.call("private/get_transaction_log", params))
            for raw in page.logs:
                try:
                    head = _decode_head(raw)
                except ExchangeMalformed as error:
                    problem = f"{currency} {kind}: {error}"
                    continue
                if head.type == kind:
                    found.append(CashRow(head.id, head.instrument_name or "", head.timestamp, partial(_read_raw, raw)))
            if page.continuation is None:
                return found, problem
            params.continuation = page.continuation
        raise ExchangeMalformed(f"the log of {currency} does not end after {MAX_PAGES} pages")


def _read_raw(raw: msgspec.Raw, instrument: Instrument, received_ns: int) -> CashMoved | None:
    return read_row(_decode_row(raw), instrument, received_ns)
