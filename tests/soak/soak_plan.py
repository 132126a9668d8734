"""What happens in a soak, and the daemon's configuration for it."""

import json
from collections.abc import Sequence
from math import lcm
from typing import Any

import msgspec
from soak_market import PERPETUALS, Pace

MONEY = ("BTC-PERPETUAL", "DOGE_USDC-PERPETUAL")  # their amounts are large numbers


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds are simulated ones; 0: never. `aged`: it begins with memories that are full, as after weeks.

    Every `reload_seconds` all widths change, one symbol leaves and another comes back; every `roll_seconds` an
    option expires and one is listed; every `reconnect_seconds` both links break. `small`: memories are bounded as
    `soak_bounds` says, else as in production.
    """

    hours: float = 3.0
    symbols: int = 50
    pace: Pace = Pace()
    seed: int = 1
    sample_seconds: float = 150.0
    reload_seconds: float = 300.0
    reconnect_seconds: float = 600.0
    roll_seconds: float = 300.0
    look_seconds: float = 60.0
    segment_mib: float = 16.0
    keep_gib: float = 0.07
    fsync_seconds: float = 5.0
    aged: bool = True
    small: bool = True

    @property
    def cycle_hours(self) -> float:
        """After that long everything that happens by plan has happened as often as before."""
        every = (self.reload_seconds, self.reconnect_seconds, self.roll_seconds, self.sample_seconds)
        return lcm(*(round(seconds) for seconds in every if seconds)) / 3600


def configuration(plan: Plan, symbols: Sequence[str], spread_bps: float) -> str:
    """The file, in JSON, which is YAML."""
    coins = sorted({row[0] for row in PERPETUALS})
    return json.dumps(
        {
            "version": 1,
            "service": {"name": "soak", "mode": "live", "metrics": {"listen": None}},
            "exchanges": {"deribit": {"type": "deribit", "network": "sandbox", "order_valid_ms": 2000}},
            "market_data": {"stale_seconds": 300, "max_jump_bps": 5000},
            "spreads": spreads(spread_bps),
            "instruments": [{"exchange": "deribit", "symbol": name, "spread": spread_of(name)} for name in symbols],
            "limits": {
                "per_symbol": {
                    "max_position": 1_000_000,
                    "max_order_size": 1_000,
                    "max_order_value_usd": 1_000_000,
                    "collar_bps": 3_000,
                    "max_drift_bps": 10_000,
                },
                "portfolio": {
                    "max_exposure": dict.fromkeys(coins, 100_000_000),
                    "max_notional_usd": 1_000_000_000_000,
                    "max_drawdown_usd": 1_000_000_000,
                },
            },
            "journal": {
                "segment_mib": plan.segment_mib,
                "keep_gib": plan.keep_gib,
                "fsync_seconds": plan.fsync_seconds,
                "reserve_mib": 1,
            },
            "alerts": {"webhooks": [{"url": "http://alerts.invalid/hook", "min_severity": "info"}]},
        }
    )


def spreads(spread_bps: float) -> dict[str, dict[str, Any]]:
    """Sizes that one taker or two fill: an order ends, and another one is placed."""
    return {
        "money": {"spread_bps": spread_bps, "band_bps": 1_000, "size": 20},
        "coin": {"spread_bps": spread_bps, "band_bps": 1_000, "size": 2},
        "option": {"spread_bps": 10 * spread_bps, "band_bps": 4_000, "size": "0.2", "tolerance_bps": 20},
    }


def spread_of(symbol: str) -> str:
    if "PERPETUAL" not in symbol:
        return "option"
    return "money" if symbol in MONEY else "coin"
