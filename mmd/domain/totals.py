"""What the portfolio machine hears and says: frozen, closed, journalled as is."""

from decimal import Decimal

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Scope, Switch
from mmd.domain.settings import KillSwitches, PortfolioLimits


class LossLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one account may lose, USD; None = no such limit. The keys: where each was configured."""

    max_drawdown_usd: Decimal | None = None
    max_daily_loss_usd: Decimal | None = None
    drawdown_key: str = "limits.per_symbol.max_drawdown_usd"
    daily_loss_key: str = "limits.per_symbol.max_daily_loss_usd"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What one account's losses are known by after a restart.

    `expiry_ns`: of its instrument; None = it has none, or an earlier version wrote this.
    """

    day_started_ns: int
    day_usd: float
    drawdown_usd: float
    expiry_ns: int | None = None


class LeftBehind(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A position as it was last known. `coins`, `usd`: what one lot was worth; 0.0 = never known.

    `worst_lots`: the largest that it may be by now, long or short, where orders may have filled since; 0 = as known.
    """

    instrument: Instrument
    lots: int
    coins: float
    usd: float
    worst_lots: int = 0


class CarriedLosses(msgspec.Struct, frozen=True, kw_only=True):
    """What a restart must not forget: losses, and positions: those of symbols that are gone count until they expire."""

    everything: Carried
    symbols: dict[str, Carried]
    left: tuple[LeftBehind, ...] = ()


class SymbolJoined(msgspec.Struct, frozen=True, tag=True):
    """A symbol exists. `max_lots`, `losses`: its own limits."""

    instrument: Instrument
    max_lots: int
    losses: LossLimits = LossLimits()


class SymbolLeft(msgspec.Struct, frozen=True, tag=True):
    """A symbol is gone: nothing of ours rests there. `lots`: what position it leaves behind.

    That position counts until the symbol is back or its instrument has expired; its profit stays as it was.
    """

    key: str
    lots: int


class LeftCounted(msgspec.Struct, frozen=True, tag=True):
    """What a symbol that is gone left behind, as the exchange has it now, signed lots."""

    key: str
    lots: int


class ExchangeAwaited(msgspec.Struct, frozen=True, tag=True):
    """It has not answered since the start. `left`: what an earlier process may have there, at worst.

    `known` False: nobody can say what is held there, so it may be anything.
    """

    exchange: str
    left: tuple[LeftBehind, ...]
    known: bool


class ExchangeTold(msgspec.Struct, frozen=True, tag=True):
    """An exchange that was awaited is there: its symbols have joined, and it has told what is held."""

    exchange: str


class LimitChanged(msgspec.Struct, frozen=True, tag=True):
    """Its own limits are others now."""

    key: str
    max_lots: int
    losses: LossLimits = LossLimits()


class TotalsChanged(msgspec.Struct, frozen=True, tag=True):
    limits: PortfolioLimits
    switches: KillSwitches


class BoundsAcked(msgspec.Struct, frozen=True, tag=True):
    key: str
    version: int


class Valued(msgspec.Struct, frozen=True, tag=True):
    """A symbol's numbers now: `mark` in its price unit, `index` in USD (0 = unknown); `pnl_usd` None = cannot say."""

    key: str
    lots: int
    mark: float
    index: float
    pnl_usd: float | None


class OperatorReset(msgspec.Struct, frozen=True, tag=True):
    """An operator has looked at these symbols, sorted."""

    keys: tuple[str, ...]


Told = (
    SymbolJoined
    | SymbolLeft
    | LeftCounted
    | ExchangeAwaited
    | ExchangeTold
    | LimitChanged
    | TotalsChanged
    | BoundsAcked
    | OperatorReset
)
PortfolioEvent = Told | Valued


class GrantBounds(msgspec.Struct, frozen=True, tag=True):
    """To the symbol, as BoundsSet: signed lots."""

    key: str
    version: int
    min_lots: int
    max_lots: int


class TripSwitch(msgspec.Struct, frozen=True, tag=True):
    """A kill switch tripped. `target`: a symbol's key or an exchange's name; empty for the portfolio."""

    switch: Switch
    scope: Scope
    target: str
    detail: str


class ClearSwitch(msgspec.Struct, frozen=True, tag=True):
    """A trip is over: reset, or its cause is gone where that is enough. It may trip again."""

    switch: Switch
    scope: Scope
    target: str


PortfolioAction = GrantBounds | TripSwitch | ClearSwitch
