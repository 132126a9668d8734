"""What is traded: one instrument, its grid, its units, and what an amount of it is worth."""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.domain.units import Grid


class Kind(StrEnum):
    PERPETUAL = "perpetual"
    FUTURE = "future"
    CALL = "call"
    PUT = "put"


class Contract(StrEnum):
    """How a contract pays: INVERSE in the coin itself, LINEAR in the quote currency."""

    INVERSE = "inverse"
    LINEAR = "linear"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of one exchange.

    Amount unit (as on Deribit): inverse perpetuals and futures in USD, everything else in the
    base coin. `lot` is the smallest step of an amount, in that unit; sizes are whole lots.
    Price unit: inverse options in coin per coin, inverse futures in USD per coin, linear
    instruments in the quote currency per coin. Fees are fractions of the notional.
    """

    exchange: str
    symbol: str
    kind: Kind
    contract: Contract
    base: str
    quote: str
    settlement: str
    index: str
    grid: Grid
    lot: Decimal
    min_lots: int
    contract_size: Decimal
    strike: Decimal | None = None
    expiry_ns: int | None = None
    maker_fee: Decimal = Decimal(0)
    taker_fee: Decimal = Decimal(0)
    tradable: bool = True

    @property
    def key(self) -> str:
        """Unique in the daemon: `exchange/symbol`."""
        return f"{self.exchange}/{self.symbol}"

    @property
    def is_option(self) -> bool:
        return self.kind in (Kind.CALL, Kind.PUT)

    @property
    def amount_is_usd(self) -> bool:
        """True where the amount counts quote dollars, not coins."""
        return self.contract is Contract.INVERSE and not self.is_option

    def amount(self, lots: int) -> Decimal:
        """Lots to the exchange's amount unit, exact."""
        return self.lot * lots

    def amount_text(self, lots: int) -> str:
        """The amount for people: no exponent, no trailing zeros."""
        text = f"{self.lot * lots:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def coins_per_lot(self, mark_price: float) -> float:
        """Coins of the underlying in one lot; `mark_price` in the price unit, used for USD amounts only.

        Raises ValueError where the price is needed and not positive.
        """
        if not self.amount_is_usd:
            return float(self.lot)
        if not mark_price > 0:
            raise ValueError(f"{self.key}: no mark price to turn USD into {self.base}")
        return float(self.lot) / mark_price

    def usd_per_lot(self, index_price: float) -> float:
        """Notional of one lot in USD; for options the notional of the underlying.

        Raises ValueError where the index is needed and not positive.
        """
        if self.amount_is_usd:
            return float(self.lot)
        if not index_price > 0:
            raise ValueError(f"{self.key}: no index price to value {self.base} in USD")
        return float(self.lot) * index_price
