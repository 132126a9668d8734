"""No position beyond its limit, everything that rests included; no total beyond its own.

A limit that was lowered cannot undo what is there. What was sent before may still arrive for a moment;
after that, what is above the limit may only shrink. Totals are weighed at the exchange's prices of this
moment, so they may be passed by as much as prices have moved.
"""

from decimal import Decimal

from sim_judge import Oracle, Side
from sim_market import KINDS
from sim_plan import Variant
from sim_world_type import World

GRACE_SECONDS = 12.0  # a request that was on its way when a limit fell
PRICES_MOVE = Decimal("1.03")  # between the daemon's marks and the exchange's, and the reserve of the grants


class Limits(Oracle):
    promise = "limits"

    def __init__(self) -> None:
        self._variant: Variant | None = None
        self._changed_at = 0.0
        self._high: dict[str, Decimal] = {}
        self._low: dict[str, Decimal] = {}
        self._coins: dict[str, Decimal] = {}
        self._usd = Decimal(0)
        self._seen: dict[str, tuple[Decimal, Decimal]] = {}

    def look(self, world: World, sides: dict[str, Side]) -> None:
        variant = world.variant
        if variant is not self._variant:
            self._variant = variant
            self._changed_at = world.now
        settled = world.now > self._changed_at + GRACE_SECONDS
        for symbol, side in sides.items():
            self._symbol(symbol, side, variant, settled)
        self._totals(world, sides, variant, settled)

    def _symbol(self, symbol: str, side: Side, variant: Variant, settled: bool) -> None:
        limit = variant.max_position.get(symbol)
        if limit is None:  # it left: what it had stays
            limit = Decimal(0)
        high, low = max(side.high, side.position), -min(side.low, side.position)
        most_high, most_low = max(limit, self._high.get(symbol, limit)), max(limit, self._low.get(symbol, limit))
        if high > most_high:
            raise self.broken(f"{symbol} could become {high}, allowed {most_high} (limit {limit})", symbol)
        if low > most_low:
            raise self.broken(f"{symbol} could become -{low}, allowed -{most_low} (limit {limit})", symbol)
        self._high[symbol] = max(limit, min(most_high, high)) if settled else most_high
        self._low[symbol] = max(limit, min(most_low, low)) if settled else most_low

    def _totals(self, world: World, sides: dict[str, Side], variant: Variant, settled: bool) -> None:
        usd = Decimal(0)
        coins: dict[str, Decimal] = {}
        slack = PRICES_MOVE
        for symbol, side in sides.items():
            mark, index = world.prices(symbol)
            size = max(abs(side.position), abs(side.high), abs(side.low))
            kind = KINDS[symbol]
            in_coins = kind.linear or kind.option
            usd += size * index if in_coins else size
            coins[kind.base] = coins.get(kind.base, Decimal(0)) + (size if in_coins else size / mark)
            low, high = self._seen.get(symbol, (mark, mark))
            self._seen[symbol] = low, high = min(low, mark), max(high, mark)
            slack = max(slack, PRICES_MOVE * high / low)
        limit = variant.max_notional_usd
        most = max(limit, self._usd)
        if usd > most * slack:
            raise self.broken(f"max_notional_usd: could become {usd:.2f}, allowed {most} (limit {limit})")
        self._usd = max(limit, min(most, usd)) if settled else most
        for coin, held in coins.items():
            limit = variant.max_exposure.get(coin, Decimal(0))
            most = max(limit, self._coins.get(coin, limit))
            if held > most * slack:
                raise self.broken(f"max_exposure of {coin}: could become {held:.6f}, allowed {most} (limit {limit})")
            self._coins[coin] = max(limit, min(most, held)) if settled else most
