"""What one seed draws: the instruments, the market's temper, configurations, and what goes wrong when.

Everything is drawn before the run begins or from generators of its own, so that leaving faults out
(`--only`) leaves the rest of the drawing as it was.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from sim_ground import DERIBIT, Ground
from sim_market import COINS, KINDS, Kind

D = Decimal
SERVICE = "sim"

# How often each kind of trouble is drawn; an exchange adds its own.
WEIGHTS = {
    "cut": 4,
    "cut_midway": 3,
    "half_open": 2,
    "slow_reader": 1,
    "latency": 2,
    "refuse_connections": 1,
    "swallow_connections": 1,
    "spoil": 1,
    "lose_answers": 3,
    "lose_requests": 3,
    "delay_answers": 4,
    "delay_requests": 4,
    "cut_answers": 3,
    "refuse_orders": 2,
    "refuse_cancels": 2,
    "fill_before_cancels": 4,
    "repeat_fills": 3,
    "delay_fills": 3,
    "lose_fills": 3,
    "old_fill": 2,
    "fill_quote": 5,
    "sweep": 2,
    "expel": 2,
    "news_first": 2,
    "gap": 2,
    "repeat_changes": 2,
    "cross": 1,
    "silence": 1,
    "jump": 1,
    "close_book": 1,
    "lock": 1,
    "maintenance": 1,
    "skew": 1,
    "restart": 2,
    "funding": 1,
    "settle": 1,
    "protection": 1,
    "pause": 2,
    "resume": 3,
    "halt": 2,
    "reset": 2,
    "flatten": 2,
    "shadow": 2,
    "reload": 5,
    "bad_reload": 1,
    "confirm": 1,
    "crash": 5,
    "crash_soon": 3,
    "crash_write": 3,
    "power_cut": 2,
    "stop": 2,
    "disk_full": 1,
    "disk_error": 1,
    "disk_torn": 1,
}
MOODS: dict[str, dict[str, int]] = {
    "fair": {},
    "network": {"cut": 12, "cut_midway": 12, "half_open": 6, "latency": 6, "slow_reader": 4, "spoil": 4},
    "answers": {"lose_answers": 12, "lose_requests": 12, "delay_answers": 12, "delay_requests": 12, "cut_answers": 8},
    "fills": {"fill_quote": 15, "repeat_fills": 10, "delay_fills": 10, "lose_fills": 10, "fill_before_cancels": 15},
    "office": {"pause": 8, "halt": 8, "reset": 8, "flatten": 10, "shadow": 6, "reload": 10},
    "crashes": {"crash": 20, "crash_soon": 20, "crash_write": 15, "power_cut": 8, "stop": 6, "fill_quote": 10},
    "config": {"reload": 25, "bad_reload": 3, "confirm": 6, "crash": 8},
    "disk": {"disk_full": 10, "disk_error": 10, "disk_torn": 10, "crash_write": 8},
    "exchange": {"restart": 6, "maintenance": 4, "expel": 8, "close_book": 4, "lock": 4, "refuse_orders": 8},
}


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong `at` seconds into a storm; `a` and `b` below 1 say how."""

    at: float
    kind: str
    a: float
    b: float


@dataclass(frozen=True)
class Storm:
    seconds: float
    mood: str
    troubles: tuple[Trouble, ...]


@dataclass(frozen=True)
class Variant:
    """One configuration. Limits in the exchange's units; the symbols that are not in it leave."""

    text: str
    symbols: tuple[str, ...]
    max_position: dict[str, Decimal]
    max_notional_usd: Decimal
    max_exposure: dict[str, Decimal]


@dataclass
class Plan:
    seed: int
    symbols: list[str]
    step_ms: int
    eagerness: float
    latency: float
    variants: list[Variant]
    storms: list[Storm]
    maker_protection: bool
    only: frozenset[str] | None = None
    ground: Ground = DERIBIT
    chance: Random = field(default_factory=Random)

    def stream(self, name: str) -> Random:
        """Chance for one purpose."""
        return Random(f"{self.ground.prefix}{self.seed}/{name}")


def draw(seed: int, minutes: float, only: frozenset[str] | None = None, ground: Ground = DERIBIT) -> Plan:
    """The plan of a seed on an exchange; `only` these kinds of trouble happen."""
    chance = Random(f"{ground.prefix}{seed}/plan")
    most = len(ground.perpetuals)
    symbols = list(chance.sample(ground.perpetuals, min(most, chance.choice((1, 2, 2, 3)))))
    if chance.random() < 0.4:
        symbols.append(ground.option)
    protected = chance.random() < ground.protected_share
    base = _settings(chance, symbols, ground, protected)
    variants = [_variant(Random(f"{ground.prefix}{seed}/variant/{n}"), base, symbols, n) for n in range(4)]
    plan = Plan(
        seed=seed,
        symbols=symbols,
        step_ms=chance.choice((250, 400, 700, 1000)),
        eagerness=chance.choice((0.05, 0.15, 0.3)),
        latency=chance.choice((0.0005, 0.005, 0.02, 0.1, 0.25)),
        variants=variants,
        storms=[],
        maker_protection=protected,
        only=only,
        ground=ground,
    )
    left = minutes * 60.0
    while left > 0.0:
        storm = _storm(chance, min(left, 45.0), only, ground)
        plan.storms.append(storm)
        left -= storm.seconds + 15.0
    return plan


def weights_on(ground: Ground) -> dict[str, int]:
    """All kinds of trouble that there are."""
    return WEIGHTS | dict(ground.weights)


def _storm(chance: Random, most: float, only: frozenset[str] | None, ground: Ground) -> Storm:
    seconds = min(most, chance.uniform(12.0, 45.0))
    moods: Mapping[str, Mapping[str, int]] = MOODS | dict(ground.moods)
    mood = chance.choice(sorted(moods))
    weights = weights_on(ground) | dict(moods[mood])
    names = sorted(weights)
    count = round(seconds * chance.choice((0.05, 0.15, 0.3, 0.6)))
    kinds = chance.choices(names, [weights[name] for name in names], k=count)
    drawn = sorted((chance.uniform(0.0, seconds), kind, chance.random(), chance.random()) for kind in kinds)
    troubles = tuple(Trouble(*row) for row in drawn if only is None or row[1] in only)
    return Storm(seconds, mood, troubles)


def _settings(chance: Random, symbols: list[str], ground: Ground, protected: bool) -> dict[str, Any]:
    """A configuration as plain values."""
    exchange = ground.entry(chance, symbols, protected=protected)
    spreads = {
        name: {
            "fair": chance.choice(("mid", "microprice", "mark")),
            "style": chance.choice(("around", "around", "improve", "join")),
            "spread_bps": chance.choice((4, 10, 25)) * (40 if KINDS[name].option else 1),
            "min_spread_bps": 2,
            "skew_bps": chance.choice((0, 5, 20)),
            "band_bps": 3000,
            "size": str(KINDS[name].lot * chance.choice((1, 2, 5))),
            "refresh_seconds": chance.choice((0, 0.3, 1)),
            "requote": chance.choice(("amend", "amend", "replace")),
        }
        for name in symbols
    }
    return {
        "version": 1,
        "service": {"name": SERVICE, "mode": "live", "metrics": {"listen": None}, "statistics_seconds": 3600},
        "exchanges": {ground.name: exchange},
        "market_data": {
            "stale_seconds": chance.choice((3, 10)),
            "auto_resume": chance.random() < 0.5,
            "auto_resume_seconds": 1,
        },
        "spreads": spreads,
        "kill_switches": {"disconnect_storm": {"max_disconnects": chance.choice((5, 20))}},
        "reconciliation": {"interval_seconds": chance.choice((5, 30))},
        "journal": {"fsync": chance.choice(("always", "interval", "never")), "segment_mib": 0.25, "reserve_mib": 0},
    }


def _variant(chance: Random, base: dict[str, Any], symbols: list[str], number: int) -> Variant:
    """The configuration `number`; the first has all symbols and the base's spreads."""
    kept = tuple(symbols)
    spreads = base["spreads"]
    (exchange,) = base["exchanges"]
    if number:
        if len(symbols) > 1 and chance.random() < 0.4:
            kept = tuple(chance.sample(symbols, len(symbols) - 1))
        spreads = {
            name: {**spread, "spread_bps": spread["spread_bps"] * chance.choice((1, 1, 2))}
            for name, spread in spreads.items()
            if name in kept
        }
    limits = {name: KINDS[name].lot * chance.choice((5, 8, 20, 60)) for name in kept}
    usd = sum((worth(KINDS[name], limits[name]) for name in kept), D(0))
    notional = (usd * chance.choice((D("0.4"), D("0.7"), D(1), D(3)))).quantize(D(1)) + 1
    exposure: dict[str, Decimal] = {}
    for base_coin in sorted({KINDS[name].base for name in symbols}):
        coins = sum((coins_of(KINDS[name], limits[name]) for name in kept if KINDS[name].base == base_coin), D("0.01"))
        exposure[base_coin] = (coins * chance.choice((D("0.4"), D("0.7"), D(1), D(3)))).quantize(D("0.0001")) + D(
            "0.0001"
        )
    content = {
        **base,
        "spreads": spreads,
        "instruments": [
            {
                "exchange": exchange,
                "symbol": name,
                "spread": name,
                "limits": {"max_position": str(limits[name]), "max_order_size": str(limits[name])},
            }
            for name in kept
        ],
        "limits": {
            "per_symbol": {
                "max_position": str(max(limits.values())),
                "max_order_size": str(max(limits.values())),
                "collar_bps": 50_000 if any(KINDS[name].option for name in kept) else 2000,
                "max_fills": chance.choice((100, 10_000)),
                "max_filled": "100000000",
                "ack_timeout_seconds": 2,
            },
            "portfolio": {
                "max_exposure": {coin: str(most) for coin, most in exposure.items()},
                "max_notional_usd": str(notional),
                "max_drawdown_usd": 100_000_000,
            },
        },
    }
    return Variant(json.dumps(content, indent=1), kept, limits, notional, exposure)


def worth(kind: Kind, amount: Decimal) -> Decimal:
    """In USD, at the first price."""
    return amount * COINS[kind.base] if kind.option or kind.linear else amount


def coins_of(kind: Kind, amount: Decimal) -> Decimal:
    return amount if kind.option or kind.linear else amount / kind.price
