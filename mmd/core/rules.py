"""An operator's settings turned once into the ticks, lots and nanoseconds that the machine compares."""

import math
from decimal import Decimal

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode
from mmd.domain.settings import Fair, Requote, Style, SymbolLimits, SymbolSettings, VolatilityWidth
from mmd.domain.units import Grid, whole_down

NS = 1_000_000_000
FILLED_POSITIONS = 5
RENEWED_AT = 0.7  # of an order's life


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What one symbol's machine works with. Widths stay in bps of fair value; the rest is integers."""

    service: str
    mode: Mode
    grid: Grid
    tick: float  # the grid's base tick, for models and for people
    min_lots: int
    fair: Fair
    style: Style
    spread_bps: float
    min_spread_bps: float
    skew_bps: float
    band_bps: float
    improve_ticks: int  # 0 = one step of the grid, whatever it is at the touch
    improve_min_lots: int
    size_lots: int
    volatility: VolatilityWidth | None
    tolerance_bps: float
    refresh_ns: int
    renew_ns: int  # an order this old is sent anew; 0 = never
    requote: Requote
    max_position_lots: int
    max_order_lots: int
    max_order_usd: float
    collar_bps: float
    collar_vol_points: float  # 0.0 = no collar in volatility
    max_drift_bps: float
    max_drift_ticks: int
    drift_window_ns: int
    max_fills: int
    max_filled_lots: int
    fill_window_ns: int
    allowed: bool
    max_places_per_second: float
    max_amends_per_second: float
    ack_timeout_ns: int
    unknown_timeout_ns: int
    max_rejects: int
    reject_window_ns: int
    max_ack_timeouts: int
    ack_window_ns: int
    max_cancel_tries: int
    protected: bool
    stale_ns: int
    max_jump_bps: float
    max_jump_ticks: int
    auto_resume: bool
    auto_resume_ns: int
    require_cod: bool


def rules_for(instrument: Instrument, settings: SymbolSettings) -> Rules:
    """Raises ValueError naming the key where a figure cannot be put on the instrument's grid."""
    profile, limits, data, switches = settings.profile, settings.limits, settings.data, settings.switches
    size_lots = whole_down(profile.size, instrument.lot)
    if size_lots < instrument.min_lots:
        smallest = instrument.amount(instrument.min_lots)
        raise ValueError(f"size {profile.size} is below the minimum of {instrument.key}: {smallest}")
    improve = profile.improve_by
    if improve is not None and improve <= 0:
        raise ValueError(f"improve_by must be positive, got {improve}")
    return Rules(
        service=settings.service,
        mode=settings.mode,
        grid=instrument.grid,
        tick=float(instrument.grid.tick),
        min_lots=instrument.min_lots,
        fair=profile.fair,
        style=profile.style,
        spread_bps=profile.spread_bps,
        min_spread_bps=profile.min_spread_bps,
        skew_bps=profile.skew_bps,
        band_bps=profile.band_bps,
        # Never improve by more than was asked: down to whole ticks, but at least one.
        improve_ticks=0 if improve is None else max(1, whole_down(improve, instrument.grid.tick)),
        improve_min_lots=lots_up(profile.improve_min_size, instrument.lot),
        size_lots=size_lots,
        volatility=profile.volatility,
        tolerance_bps=profile.tolerance_bps,
        refresh_ns=seconds(profile.refresh_seconds),
        renew_ns=seconds(RENEWED_AT * (settings.order_life_seconds or 0.0)),
        requote=profile.requote,
        max_position_lots=whole_down(limits.max_position, instrument.lot),
        max_order_lots=whole_down(limits.max_order_size, instrument.lot),
        max_order_usd=float(limits.max_order_value_usd),
        collar_bps=limits.collar_bps,
        collar_vol_points=limits.collar_vol_points or 0.0 if instrument.is_option else 0.0,
        max_drift_bps=limits.max_drift_bps,
        max_drift_ticks=limits.max_drift_ticks,
        drift_window_ns=seconds(limits.drift_window_seconds),
        max_fills=limits.max_fills,
        max_filled_lots=whole_down(max_filled(limits), instrument.lot),
        fill_window_ns=seconds(limits.fill_window_seconds),
        allowed=limits.allowed,
        max_places_per_second=limits.max_places_per_second,
        max_amends_per_second=limits.max_amends_per_second,
        ack_timeout_ns=seconds(limits.ack_timeout_seconds),
        unknown_timeout_ns=seconds(limits.unknown_timeout_seconds),
        max_rejects=limits.max_rejects,
        reject_window_ns=seconds(limits.reject_window_seconds),
        max_ack_timeouts=switches.max_ack_timeouts,
        ack_window_ns=seconds(switches.ack_timeout_window_seconds),
        max_cancel_tries=switches.max_cancel_tries,
        protected=settings.protected,
        stale_ns=seconds(data.stale_seconds),
        max_jump_bps=data.max_jump_bps,
        max_jump_ticks=data.max_jump_ticks,
        auto_resume=data.auto_resume,
        auto_resume_ns=seconds(data.auto_resume_seconds),
        require_cod=data.require_cancel_on_disconnect,
    )


def max_filled(limits: SymbolLimits) -> Decimal:
    """What may fill within the window: as configured, else five times the largest position."""
    return FILLED_POSITIONS * limits.max_position if limits.max_filled is None else limits.max_filled


def seconds(value: float) -> int:
    """Seconds to whole nanoseconds."""
    return int(value * NS)


def lots_up(amount: Decimal, lot: Decimal) -> int:
    """An amount in lots, rounded up."""
    return math.ceil(amount / lot)
