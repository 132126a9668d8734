"""What an operator decides, resolved to one value per symbol: profile, limits, market-data rules.

Human units (bps, seconds, the instrument's own amount and price units); the machine turns them
into ticks and lots once. `spread_bps` and `min_spread_bps` are the whole distance from bid to
ask in hundredths of a percent of fair value; 100 bps = 1 %.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.domain.reasons import Mode


class Fair(StrEnum):
    """Which price the quotes are built on."""

    MID = "mid"
    WEIGHTED_MID = "weighted_mid"
    MICROPRICE = "microprice"
    INDEX = "index"
    MARK = "mark"


class Style(StrEnum):
    """AROUND fair at half the spread; IMPROVE the touch by a fixed step; JOIN the touch."""

    AROUND = "around"
    IMPROVE = "improve"
    JOIN = "join"


class Requote(StrEnum):
    """AMEND changes the resting order in place; REPLACE cancels it and places anew."""

    AMEND = "amend"
    REPLACE = "replace"


class VolatilityWidth(msgspec.Struct, frozen=True, kw_only=True):
    """Width that follows volatility: at least `multiplier` x sigma over `horizon_seconds`, full width.

    Two estimators run, with half-lives `fast_seconds` and `slow_seconds`; the larger counts.
    """

    multiplier: float
    horizon_seconds: float = 10.0
    fast_seconds: float = 30.0
    slow_seconds: float = 300.0
    max_bps: float = 1000.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named quoting profile (`spreads:` in the YAML)."""

    name: str
    fair: Fair = Fair.MID
    style: Style = Style.AROUND
    spread_bps: float = 10.0
    improve_by: Decimal | None = None
    improve_min_size: Decimal = Decimal(0)
    min_spread_bps: float = 0.0
    skew_bps: float = 0.0
    band_bps: float = 500.0
    size: Decimal
    volatility: VolatilityWidth | None = None
    tolerance_bps: float = 1.0
    refresh_seconds: float = 1.0
    requote: Requote = Requote.AMEND


class DataRules(msgspec.Struct, frozen=True, kw_only=True):
    """When market data is too bad to quote on (`market_data:` in the YAML)."""

    stale_seconds: float = 10.0
    max_jump_bps: float = 1000.0
    max_jump_ticks: int = 20
    auto_resume: bool = False
    auto_resume_seconds: float = 5.0
    require_cancel_on_disconnect: bool = True


class SymbolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Hard limits of one symbol, in its own amount unit. `collar_bps` is the distance from the reference."""

    max_position: Decimal
    max_order_size: Decimal
    collar_bps: float
    ack_timeout_seconds: float = 2.0
    unknown_timeout_seconds: float = 10.0
    max_rejects: int = 20
    reject_window_seconds: float = 60.0


class PortfolioLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Totals over all symbols. `max_exposure`: sum of absolute positions per underlying, in coins."""

    max_exposure: dict[str, Decimal]
    max_notional_usd: Decimal
    max_drawdown_usd: Decimal
    max_open_orders: int = 1000


class SymbolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that one symbol's machine needs to know from the config."""

    service: str
    mode: Mode
    profile: Profile
    limits: SymbolLimits
    data: DataRules
