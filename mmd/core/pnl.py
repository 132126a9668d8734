"""Position and profit of one symbol as a fold over its fills: idempotent, exact, per settlement currency.

Linear: cash -= signed amount x price; value = position x mark. Inverse futures (amount in USD):
cash += signed amount / price; value = -position / mark. Inverse options: as linear, in coin.
Profit = cash + value of the position - fees. Fees: positive paid, negative rebate.
Source: units of the exchanges' amounts, docs/units.md.
"""

from decimal import Decimal

import msgspec

from mmd.domain.events import OrderFilled
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side

# Trade ids that are remembered to recognise a repetition; a repetition comes within seconds.
REMEMBERED = 4096
ZERO = Decimal(0)


class Profit(msgspec.Struct, frozen=True, kw_only=True):
    """In the settlement currency."""

    realized: float
    unrealized: float
    fees: float

    @property
    def total(self) -> float:
        return self.realized + self.unrealized - self.fees


class Position:
    """Signed lots, average entry price, realised profit and fees of one instrument."""

    __slots__ = ("_seen", "average", "fees", "fills", "foreign_fees", "instrument", "known", "lots", "realized")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.lots = 0
        self.average = ZERO
        self.realized = ZERO
        self.fees = ZERO
        self.foreign_fees: dict[str, Decimal] = {}
        self.fills = 0
        self.known = False
        self._seen: dict[str, None] = {}

    def adopt(self, lots: int, average: Decimal) -> None:
        """Take the exchange's count as the start; profit counts from here."""
        self.lots = lots
        self.average = average if lots else ZERO
        self.known = True

    def seen(self, trade_id: str) -> bool:
        return trade_id in self._seen

    def fill(self, event: OrderFilled) -> bool:
        """Add one execution; False if its trade id was counted before."""
        if event.trade_id in self._seen:
            return False
        self._seen[event.trade_id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self.fills += 1
        signed = event.size_lots if event.side is Side.BID else -event.size_lots
        self._move(signed, event.price)
        if event.fee_currency == self.instrument.settlement:
            self.fees += event.fee
        else:
            self.foreign_fees[event.fee_currency] = self.foreign_fees.get(event.fee_currency, ZERO) + event.fee
        return True

    def _move(self, signed: int, price: Decimal) -> None:
        before = self.lots
        self.lots = before + signed
        if before == 0 or (before > 0) == (signed > 0):
            self.average = self._blend(before, self.average, signed, price)
            return
        closed = min(abs(before), abs(signed))
        self.realized += self._gain(closed if before > 0 else -closed, self.average, price)
        if abs(signed) > abs(before):
            self.average = price
        elif self.lots == 0:
            self.average = ZERO

    def _blend(self, lots: int, average: Decimal, more: int, price: Decimal) -> Decimal:
        """Average entry: arithmetic, but harmonic where the contract pays in 1/price."""
        if not lots:
            return price
        if self.instrument.amount_is_usd:
            return (lots + more) / (lots / average + more / price)
        return (lots * average + more * price) / (lots + more)

    def _gain(self, lots: int, entry: Decimal, price: Decimal) -> Decimal:
        """Profit of signed lots from entry to price, settlement currency."""
        if not lots or not entry or not price:
            return ZERO
        amount = self.instrument.lot * lots
        return amount * (1 / entry - 1 / price) if self.instrument.amount_is_usd else amount * (price - entry)

    def profit(self, mark: float) -> Profit | None:
        """Profit at this mark (price unit); None where a position cannot be marked."""
        unrealized = 0.0
        if self.lots:
            if not mark > 0.0 or not self.average:
                return None
            unrealized = float(self._gain(self.lots, self.average, Decimal(repr(mark))))
        return Profit(realized=float(self.realized), unrealized=unrealized, fees=float(self.fees))

    def snapshot(self) -> dict[str, str | int | bool]:
        return {
            "lots": self.lots,
            "average": str(self.average),
            "realized": str(self.realized),
            "fees": str(self.fees),
            "fills": self.fills,
            "known": self.known,
        }


def usd_value(instrument: Instrument, amount: float, index: float) -> float | None:
    """An amount of the settlement currency in USD: stable coins count as dollars, coins at the index."""
    if instrument.settlement in ("USD", "USDC", "USDT"):
        return amount
    if amount == 0.0:
        return 0.0
    return amount * index if index > 0.0 else None
