"""A market that costs little: a few price levels, a mid that walks, takers on both sides.

It moves a few times a second at most, and marks wobble by a tick. While it is `still` only marks do, by their
last digit: tickers come, and neither books nor quotes have a reason to move.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from random import Random
from typing import NamedTuple

import msgspec

from mmd.sandbox.derive.universe import BY_BASE, option, perpetual
from mmd.sandbox.model import Direction, Greeks, Reference, SandboxInstrument, TickStep, Venue

D = Decimal
START_NS = 1_795_000_000_000_000_000  # 2026-11-18T11:06:40Z
EXPIRY_MS = 1_798_185_600_000  # 2026-12-25T08:00Z
FOREVER_MS = 32_503_708_800_000
STILL_MS = 1000


class Kind(NamedTuple):
    """One instrument to trade. `depth`: the amount at a level; `bite`: what takers take multiples of, None = lots."""

    name: str
    base: str
    settlement: str
    index: str
    price: Decimal
    tick: Decimal
    lot: Decimal
    depth: Decimal
    linear: bool = False
    option: bool = False
    bite: Decimal | None = None

    @property
    def takes(self) -> Decimal:
        return self.lot if self.bite is None else self.bite


def _by_name(*kinds: Kind) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds}


DERIBIT_KINDS = _by_name(
    Kind("BTC-PERPETUAL", "BTC", "BTC", "btc_usd", D(80000), D("0.5"), D(10), D(200)),
    Kind("ETH-PERPETUAL", "ETH", "ETH", "eth_usd", D(3000), D("0.05"), D(1), D(100)),
    Kind("BTC_USDC-PERPETUAL", "BTC", "USDC", "btc_usdc", D(80000), D(1), D("0.001"), D("0.02"), linear=True),
    Kind("BTC-25DEC26-90000-C", "BTC", "BTC", "btc_usd", D("0.0300"), D("0.0005"), D("0.1"), D("0.5"), option=True),
)
DERIVE_KINDS = _by_name(
    Kind("ETH-PERP", "ETH", "USDC", "eth_usd", D(3000), D("0.01"), D(1), D(20), linear=True, bite=D("0.37")),
    Kind("BTC-PERP", "BTC", "USDC", "btc_usd", D(80000), D("0.1"), D("0.01"), D("0.2"), linear=True, bite=D("0.003")),
    Kind("ETH-20261225-3200-C", "ETH", "USDC", "eth_usd", D(120), D("0.1"), D("0.1"), D(2), linear=True, option=True),
)
"""Their takers take fractions of the least amount of an order, and leave as much."""

KINDS = DERIBIT_KINDS | DERIVE_KINDS
COINS = {"BTC": D(80000), "ETH": D(3000)}


def listed(kind: Kind) -> SandboxInstrument:
    """As the exchange lists it."""
    return _on_deribit(kind) if kind.name in DERIBIT_KINDS else _on_derive(kind)


def _on_derive(kind: Kind) -> SandboxInstrument:
    family, now_ms = BY_BASE[kind.base], START_NS // 1_000_000
    if kind.option:
        return option(family, "month", EXPIRY_MS, now_ms, Decimal(kind.name.split("-")[2]), "call")
    return perpetual(family, now_ms)


def _on_deribit(kind: Kind) -> SandboxInstrument:
    return SandboxInstrument(
        instrument_name=kind.name,
        instrument_id=1 + sorted(DERIBIT_KINDS).index(kind.name),
        kind="option" if kind.option else "future",
        instrument_type="linear" if kind.linear else "reversed",
        base_currency=kind.base,
        quote_currency="USDC" if kind.linear else "BTC" if kind.option else "USD",
        counter_currency="USDC" if kind.linear else "USD",
        settlement_currency=kind.settlement,
        settlement_period="month" if kind.option else "perpetual",
        price_index=kind.index,
        tick_size=D("0.0001") if kind.option else kind.tick,
        tick_size_steps=(TickStep(D("0.005"), D("0.0005")),) if kind.option else (),
        min_trade_amount=kind.lot,
        contract_size=D(1) if kind.option else kind.lot,
        maker_commission=D("0.0003") if kind.option else D("-0.0001") if kind.linear else D(0),
        taker_commission=D("0.0005"),
        creation_timestamp=0,
        expiration_timestamp=EXPIRY_MS if kind.option else FOREVER_MS,
        strike=D(90000) if kind.option else None,
        option_type="call" if kind.option else None,
    )


class MovingMarket:
    """Implements Market. `eagerness`: how often takers come, from 0 to 1."""

    def __init__(self, names: list[str], chance: Random, step_ms: int, eagerness: float) -> None:
        self.still = False
        self.takes = 0
        self._kinds = [KINDS[name] for name in names]
        self._chance = chance
        self._step_ms = step_ms
        self._eagerness = eagerness
        self._mids = {kind.name: kind.price for kind in self._kinds}
        self._alive: list[Kind] = []
        self._levels: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
        self._steps = 0
        self._venue: Venue

    def instruments(self) -> list[SandboxInstrument]:
        found = [listed(kind) for kind in self._kinds]
        return [msgspec.structs.replace(one, instrument_id=one.instrument_id or at) for at, one in enumerate(found, 1)]

    def start(self, venue: Venue, now_ms: int) -> None:
        self._venue = venue
        self._refer(now_ms)

    def want(self, name: str, now_ms: int) -> None:
        kind = KINDS[name]
        self._alive.append(kind)
        self._show(kind, now_ms)

    def step(self, now_ms: int) -> int:
        self._steps += 1
        chance = self._chance
        for kind in self._alive:
            if self.still:
                self._venue.set_levels(kind.name, *self._levels[kind.name], now_ms, snapshot=True)
                continue
            if chance.random() < 0.5:
                self._walk(kind)
                self._show(kind, now_ms)
            if chance.random() < self._eagerness:
                self._take(kind, now_ms)
        self._refer(now_ms)
        return now_ms + (STILL_MS if self.still else self._step_ms)

    def settle_down(self, now_ms: int) -> None:
        """Show sound books again, whatever was done to them."""
        for kind in self._alive:
            self._show(kind, now_ms)
        self._refer(now_ms)

    def price(self, name: str) -> Decimal:
        """The middle of the book, as this market means it."""
        return self._mids[name]

    def _walk(self, kind: Kind) -> None:
        """A few basis points, drawn back towards where it began."""
        mid = self._mids[kind.name]
        away = float(mid / kind.price) - 1.0
        moved = self._chance.gauss(0.0, 4e-4) - 0.02 * away
        ticks = round(float(mid) * moved / float(kind.tick)) or self._chance.choice((-1, 0, 1))
        self._mids[kind.name] = mid + ticks * kind.tick

    def _show(self, kind: Kind, now_ms: int) -> None:
        mid, chance = self._mids[kind.name], self._chance
        half = max(kind.tick, _on_grid(mid * D(chance.choice((2, 5, 12))) / 10_000, kind.tick, ROUND_CEILING))
        step = max(kind.tick, _on_grid(mid / 10_000, kind.tick, ROUND_CEILING))
        sizes = [kind.depth * chance.choice((1, 2, 5)) for _ in range(6)]
        bids = {mid - half - at * step: sizes[at] for at in range(3)}
        asks = {mid + half + at * step: sizes[at + 3] for at in range(3)}
        self._levels[kind.name] = (bids, asks)
        self._venue.set_levels(kind.name, bids, asks, now_ms, snapshot=True)

    def _take(self, kind: Kind, now_ms: int) -> None:
        direction = self._chance.choice((Direction.BUY, Direction.SELL))
        amount = kind.takes * self._chance.choice((1, 1, 2, 5, 20))
        slack = D("1.004") if direction is Direction.BUY else D("0.996")
        limit = _on_grid(self._mids[kind.name] * slack, kind.tick, ROUND_FLOOR)
        self.takes += len(self._venue.take(kind.name, direction, amount, limit, now_ms))

    def _refer(self, now_ms: int) -> None:
        wobbles = self._steps % 2
        for kind in self._kinds:
            mid = self._mids[kind.name]
            index = COINS[kind.base] if kind.option else mid
            alone = all(other.index != kind.index or other.option for other in self._kinds)
            if alone or not kind.option:
                self._venue.set_index(kind.index, index, now_ms)
            if self.still:
                wobble = D("0.000001") if kind.option and not kind.linear else D("0.01")
            else:
                wobble = D("0.0001") if kind.option and not kind.linear else kind.tick
            self._venue.set_reference(
                kind.name,
                Reference(
                    mark_price=mid + wobble * wobbles,
                    index_price=index,
                    min_price=_on_grid(mid * D("0.7"), kind.tick, ROUND_CEILING),
                    max_price=_on_grid(mid * D("1.3"), kind.tick, ROUND_FLOOR),
                    underlying_price=index if kind.option else None,
                    underlying_index=f"{kind.base}-25DEC26" if kind.option else None,
                    mark_iv=55.0 if kind.option else None,
                    greeks=Greeks(0.3, 0.00001, 45.0, -20.0, 5.0) if kind.option else None,
                    current_funding=None if kind.option else 0.0001,
                    funding_8h=None if kind.option else 0.0001,
                ),
                now_ms,
            )


def _on_grid(price: Decimal, tick: Decimal, rounding: str) -> Decimal:
    return (price / tick).to_integral_value(rounding) * tick
