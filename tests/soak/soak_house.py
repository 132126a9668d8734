"""The daemon and the exchange of a soak: one process, mock time, and an operator who keeps everything quoting."""

import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio
from soak_market import START_NS, Crowd, Pace

from mmd.config.load import load
from mmd.config.model import ExchangeConfig
from mmd.core import own, pnl
from mmd.domain.reasons import Side, State
from mmd.exchanges.deribit import trading
from mmd.journal.writer import Journal
from mmd.sandbox import accounts, tape
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.serve import Sandbox, SandboxOptions
from mmd.shell import diary, wiring
from mmd.shell.daemon import Daemon
from mmd.shell.desk import Caller
from mmd.shell.keeper import inline
from mmd.shell.scrape import metrics_page
from mmd.shell.webhooks import Network

D = Decimal
OPERATOR = Caller(uid=1000, pid=1, name="soak")
ATTEND_SECONDS = 5.0
# The exchange's own histories are cut short, so that the memory of the process is the daemon's.
SMALL_SANDBOX = (
    (accounts, "HISTORY_ORDERS", 2_000),
    (accounts, "HISTORY_TRADES", 5_000),
    (accounts, "HISTORY_ROWS", 2_000),
    (tape, "TAPE_TRADES", 50),
    (tape, "TAPE_CANDLES", 30),
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What happens in a soak; seconds are simulated ones. `aged`: it begins with memories that are full."""

    hours: float = 3.0
    symbols: int = 50
    pace: Pace = Pace()
    seed: int = 1
    sample_seconds: float = 120.0
    reload_seconds: float = 900.0
    reconnect_seconds: float = 1_500.0
    roll_seconds: float = 1_200.0
    scrape_seconds: float = 15.0
    segment_mib: float = 16.0
    keep_gib: float = 0.05
    fsync_seconds: float = 5.0
    aged: bool = True


def configuration(plan: Plan, symbols: Sequence[str], spread_bps: float) -> str:
    """JSON, which is YAML."""
    return json.dumps(
        {
            "version": 1,
            "service": {"name": "soak", "mode": "live", "metrics": {"listen": None}},
            "exchanges": {"deribit": {"type": "deribit", "network": "sandbox", "order_valid_ms": 2000}},
            "market_data": {"stale_seconds": 120, "max_jump_bps": 5000, "auto_resume": True},
            "spreads": {
                "wide": {"spread_bps": 60, "band_bps": 2000, "size": "0.1", "skew_bps": 40, "tolerance_bps": 2},
                "money": {"spread_bps": spread_bps, "band_bps": 1000, "size": 10, "skew_bps": 10},
                "coin": {"spread_bps": spread_bps, "band_bps": 1000, "size": 1, "skew_bps": 10},
            },
            "instruments": [
                {
                    "exchange": "deribit",
                    "symbol": name,
                    "spread": "money" if name == "BTC-PERPETUAL" or "DOGE" in name else "coin" if "PERP" in name else "wide",
                }
                for name in symbols
            ],
            "limits": {
                "per_symbol": {"max_position": 100_000, "max_order_size": 1000, "collar_bps": 3000,
                               "max_order_value_usd": 1_000_000, "max_drift_bps": 10000, "max_fills": 1000, "max_filled": 1_000_000},
                "portfolio": {
                    "max_exposure": {base: 10_000_000 for base in
                                     ("BTC", "ETH", "SOL", "XRP", "DOGE", "AVAX", "LINK", "LTC")},
                    "max_notional_usd": 1_000_000_000_000,
                    "max_drawdown_usd": 1_000_000_000,
                },
            },
            "kill_switches": {"exposure": {"response": "pause"}},
            "journal": {
                "segment_mib": plan.segment_mib,
                "keep_gib": plan.keep_gib,
                "fsync_seconds": plan.fsync_seconds,
                "reserve_mib": 1,
            },
            "alerts": {"webhooks": [{"url": "http://alerts.invalid/hook"}]},
        }
    )
