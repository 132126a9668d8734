"""What an operator decides, resolved to one value per symbol: profile, limits, market-data rules.

Human units (bps, seconds, the instrument's own amount and price units); the machine turns them
into ticks and lots once. `spread_bps` and `min_spread_bps` are the whole distance from bid to
ask in hundredths of a percent of fair value; 100 bps = 1 %.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.domain.reasons import Mode, Response, Switch
from mmd.domain.switches import DEFAULT_RESPONSES


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
    """Hard limits of one symbol, in its own amount unit. `collar_bps` is the distance from the reference.

    A nullable limit that is None does not exist, except `max_filled`: five times `max_position`.
    `collar_vol_points` is for options: how far an order's implied volatility may be from the mark's,
    in points (65 % to 75 % are 10 points). `allowed`: whether `limits.allowed` names the instrument.
    """

    max_position: Decimal
    max_order_size: Decimal
    collar_bps: float
    max_order_value_usd: Decimal = Decimal(100_000)
    collar_vol_points: float | None = None
    max_drift_bps: float = 2000.0
    max_drift_ticks: int = 50
    drift_window_seconds: float = 60.0
    max_fills: int = 100
    max_filled: Decimal | None = None
    fill_window_seconds: float = 60.0
    max_places_per_second: float = 20.0
    max_amends_per_second: float = 100.0
    max_drawdown_usd: Decimal | None = None
    max_daily_loss_usd: Decimal | None = None
    ack_timeout_seconds: float = 2.0
    unknown_timeout_seconds: float = 10.0
    max_rejects: int = 20
    reject_window_seconds: float = 60.0
    allowed: bool = True


class ScopeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Totals over the symbols of one exchange or one underlying; None = no such limit.

    `max_contracts`: sum of absolute positions, amounts divided by the contract size.
    """

    max_notional_usd: Decimal | None = None
    max_contracts: Decimal | None = None
    max_open_orders: int | None = None


class PortfolioLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Totals over all symbols. `max_exposure`: sum of absolute positions per underlying, in coins.

    `day_starts_hour`: UTC hour at which the daily loss starts from nothing.
    """

    max_exposure: dict[str, Decimal]
    max_notional_usd: Decimal
    max_drawdown_usd: Decimal
    max_daily_loss_usd: Decimal | None = None
    max_contracts: Decimal | None = None
    max_open_orders: int = 1000
    day_starts_hour: int = 0
    per_exchange: dict[str, ScopeLimits] = {}
    per_underlying: dict[str, ScopeLimits] = {}


class KillSwitches(msgspec.Struct, frozen=True, kw_only=True):
    """What each kill switch does, and those thresholds that are not limits (`kill_switches:` in the YAML)."""

    responses: dict[Switch, Response] = msgspec.field(default_factory=lambda: dict(DEFAULT_RESPONSES))
    max_ack_timeouts: int = 5
    ack_timeout_window_seconds: float = 60.0
    max_cancel_tries: int = 5
    max_skew_ms: float = 1000.0
    max_disconnects: int = 5
    disconnect_window_seconds: float = 300.0
    max_event_lag_seconds: float = 5.0
    max_unvalued_seconds: float = 10.0


class Reset(StrEnum):
    """Who ends a freeze of the exchange's maker protection."""

    MANUAL = "manual"
    AUTOMATIC = "automatic"


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange's own maker protection for one underlying (`exchanges.NAME.maker_protection`).

    Within `interval_seconds` at most these amounts may trade, in coins of the underlying (vega in
    USD per point); beyond, the exchange pulls our orders and takes none for `frozen_seconds`
    (0 = until reset). None = no limit of that kind.
    """

    underlying: str
    interval_seconds: float
    frozen_seconds: float
    max_quantity: Decimal | None = None
    max_delta: Decimal | None = None
    max_vega: Decimal | None = None
    reset: Reset = Reset.MANUAL


class SymbolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that one symbol's machine needs to know from the config.

    `sources`: where each limit was written, by its key, as `limits.per_symbol.collar_bps (mmd.yaml:71)`.
    `protected`: maker protection is configured for it and must be armed before it quotes.
    `average_tolerance_bps`: from `reconciliation:`; None: average and profit are not compared.
    `order_life_seconds`: how long the exchange lets an order rest after it was sent; None: until it is cancelled.
    """

    service: str
    mode: Mode
    profile: Profile
    limits: SymbolLimits
    data: DataRules
    switches: KillSwitches = KillSwitches()
    protected: bool = False
    average_tolerance_bps: Decimal | None = Decimal(1)
    order_life_seconds: float | None = None
    sources: dict[str, str] = {}


class FsyncPolicy(StrEnum):
    """When the journal is made durable: before every act, every so often, or when the system pleases."""

    ALWAYS = "always"
    INTERVAL = "interval"
    NEVER = "never"


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`journal:` in the YAML. Sizes in MiB and GiB, before compression but for `keep_gib`."""

    fsync: FsyncPolicy = FsyncPolicy.INTERVAL
    fsync_seconds: float = 1.0
    segment_mib: float = 32.0
    segment_hours: float = 24.0
    compress: bool = True
    keep_days: float = 30.0
    keep_gib: float = 10.0
    reserve_mib: float = 16.0


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """`reconciliation:` in the YAML. `average_tolerance_bps` None: averages and profits are not compared."""

    interval_seconds: float = 30.0
    average_tolerance_bps: Decimal | None = Decimal(1)
