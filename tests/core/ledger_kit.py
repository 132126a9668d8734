"""Events that the tests of the ledger share."""

from decimal import Decimal

from core_kit import ASK, BID, fill

from mmd.core.ledger import Statement
from mmd.core.pnl import Fold, Position
from mmd.domain.events import CashMoved, OrderFilled
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CashKind, Side

SUMS = ("cash", "value", "opening", "spread", "inventory", "fees", "funding", "settlement")


def trade(
    instrument: Instrument, trade_id: str, lots: int, price: str, fee: str = "0", currency: str | None = None
) -> OrderFilled:
    """Signed lots; the fee is in the settlement currency unless it says otherwise."""
    side: Side = BID if lots > 0 else ASK
    return fill("L", trade_id, side, abs(lots), price, fee=fee, currency=currency or instrument.settlement)


def moved(instrument: Instrument, entry_id: str, kind: CashKind, amount: str, closed: int = 0) -> CashMoved:
    return CashMoved(entry_id, kind, Decimal(amount), instrument.settlement, closed, 0, 0)


def funding(instrument: Instrument, entry_id: str, amount: str) -> CashMoved:
    return moved(instrument, entry_id, CashKind.FUNDING, amount)


def delivery(instrument: Instrument, entry_id: str, amount: str, closed: int) -> CashMoved:
    return moved(instrument, entry_id, CashKind.SETTLEMENT, amount, closed)


def traded(position: Position, trade_id: str, lots: int, price: str, reference: float = 0.0, fee: str = "0") -> None:
    """One execution that must count, and leave the books in balance."""
    assert position.fill(trade(position.instrument, trade_id, lots, price, fee), reference) is Fold.COUNTED
    assert position.balanced


def sums(statement: Statement) -> dict[str, Decimal | None]:
    return {name: getattr(statement, name) for name in SUMS}


def at_last(position: Position) -> Statement:
    """The statement at the last price, as the books have it."""
    price = position.ledger.price
    return position.statement(0.0 if price is None else float(price))
