"""The portfolio machine: every total becomes position bounds for each symbol, so that worst cases never pass a total.

A symbol's worst case is the larger of its granted bound, its last acknowledged bound until the
new one is acknowledged, and its position. Room moves only after the symbol that gives it up has
acknowledged. The hot path then compares integers and shares nothing.

Totals: exposure per underlying (sum of absolute positions, coins), notional over everything
(USD), drawdown from the high-water mark (USD). Where the symbols' own limits together exceed a
total, every symbol gets the same share of its own limit: simple, and the same on every run.
"""

import math
from collections.abc import Container, Sequence
from decimal import Decimal

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.settings import PortfolioLimits

# Marks move; a grant is kept while the value of a lot stays within this of what it was granted at,
# and grants leave that much of the total unused.
DRIFT = 0.02
ZERO = Decimal(0)


class SymbolJoined(msgspec.Struct, frozen=True):
    """A symbol exists. `max_lots`: its own limit."""

    instrument: Instrument
    max_lots: int


class SymbolLeft(msgspec.Struct, frozen=True):
    """A symbol is gone: nothing of ours rests there. `lots`: what position it leaves behind."""

    key: str
    lots: int


class LimitChanged(msgspec.Struct, frozen=True):
    key: str
    max_lots: int


class TotalsChanged(msgspec.Struct, frozen=True):
    limits: PortfolioLimits


class BoundsAcked(msgspec.Struct, frozen=True):
    key: str
    version: int


class Valued(msgspec.Struct, frozen=True):
    """A symbol's numbers now: `mark` in its price unit, `index` in USD (0 = unknown); `pnl_usd` None = cannot say."""

    key: str
    lots: int
    mark: float
    index: float
    pnl_usd: float | None


PortfolioEvent = SymbolJoined | SymbolLeft | LimitChanged | TotalsChanged | BoundsAcked | Valued


class GrantBounds(msgspec.Struct, frozen=True):
    """To the symbol, as BoundsSet: signed lots."""

    key: str
    version: int
    min_lots: int
    max_lots: int


class TripDrawdown(msgspec.Struct, frozen=True):
    """The loss limit is reached: halt everything."""

    drawdown_usd: float
    limit_usd: float


PortfolioAction = GrantBounds | TripDrawdown


class Share:
    """One symbol's part of the totals."""

    __slots__ = (
        "acked",
        "coins",
        "granted",
        "index",
        "instrument",
        "lots",
        "mark",
        "max_lots",
        "pnl_usd",
        "usd",
        "version",
    )

    def __init__(self, instrument: Instrument, max_lots: int) -> None:
        self.instrument = instrument
        self.max_lots = max_lots
        self.granted = 0
        self.acked = 0
        self.version = 0
        self.lots = 0
        self.mark = 0.0
        self.index = 0.0
        self.coins = 0.0  # per lot, at the last allocation
        self.usd = 0.0
        self.pnl_usd: float | None = None

    @property
    def worst_lots(self) -> int:
        return max(self.granted, self.acked, abs(self.lots))

    @property
    def blind(self) -> bool:
        """It has a position that cannot be valued or marked: neither totals nor drawdown can be computed."""
        return bool(self.lots) and (not self.coins or not self.usd or self.pnl_usd is None)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """For status and metrics."""

    exposure: dict[str, float]
    worst_exposure: dict[str, float]
    notional_usd: float
    pnl_usd: float | None
    high_water_usd: float
    drawdown_usd: float
    oversubscribed: float  # how many times the tightest total the symbols' own limits add up to


class PortfolioMachine:
    """`handle` events, get grants. Pure: same events, same actions."""

    def __init__(self, limits: PortfolioLimits) -> None:
        self.limits = limits
        self.shares: dict[str, Share] = {}
        self.left_behind: dict[str, tuple[Instrument, int, float, float]] = {}
        self.closed_pnl_usd = 0.0
        self.high_water_usd: float | None = None
        self.tripped = False
        self.factor = 1.0
        self._version = 0

    def handle(self, events: Sequence[PortfolioEvent]) -> list[PortfolioAction]:
        """Take a batch, allocate once if anything that matters changed."""
        again = False
        for event in events:
            again = self._take(event) or again
        out: list[PortfolioAction] = []
        if again:
            self._allocate(out)
        self._watch_drawdown(out)
        return out

    def _take(self, event: PortfolioEvent) -> bool:
        match event:
            case SymbolJoined(instrument=instrument, max_lots=max_lots):
                joined = self.shares[instrument.key] = Share(instrument, max_lots)
                left = self.left_behind.pop(instrument.key, None)
                if left is not None:  # its old position counts until it says what it has
                    _, joined.lots, joined.coins, joined.usd = left
                    joined.pnl_usd = 0.0
                return True
            case SymbolLeft(key=key, lots=lots):
                share = self.shares.pop(key, None)
                if share is not None:
                    self.closed_pnl_usd += share.pnl_usd or 0.0
                    if lots:
                        self.left_behind[key] = (share.instrument, lots, share.coins, share.usd)
                return True
            case LimitChanged(key=key, max_lots=max_lots):
                self.shares[key].max_lots = max_lots
                return True
            case TotalsChanged(limits=limits):
                self.limits = limits
                return True
            case BoundsAcked(key=key, version=version):
                share = self.shares.get(key)
                if share is None or version != share.version:
                    return False
                shrunk = share.acked > share.granted
                share.acked = share.granted
                return shrunk  # room came free for others
            case Valued():
                return self._value(event)

    def _value(self, event: Valued) -> bool:
        share = self.shares.get(event.key)
        if share is None:
            return False
        was_blind = share.blind
        share.pnl_usd = event.pnl_usd
        bound = max(share.granted, share.acked)
        outgrown = event.lots != share.lots and max(abs(event.lots), abs(share.lots)) > bound
        share.lots = event.lots
        share.mark, share.index = event.mark, event.index
        coins, usd = self._worth(share)
        outgrown = outgrown or share.blind is not was_blind
        if not coins or not usd:
            return outgrown
        moved = not share.coins or max(abs(coins / share.coins - 1.0), abs(usd / share.usd - 1.0)) > DRIFT
        return moved or outgrown

    @staticmethod
    def _worth(share: Share) -> tuple[float, float]:
        """Coins and dollars of one lot now; zeros where a price is missing."""
        try:
            return (share.instrument.coins_per_lot(share.mark), share.instrument.usd_per_lot(share.index))
        except ValueError:
            return (0.0, 0.0)

    # --- allocation ------------------------------------------------------------------------------

    def _allocate(self, out: list[PortfolioAction]) -> None:
        """Give every symbol its share; raise nobody above what the others have let go of."""
        for share in self.shares.values():
            coins, usd = self._worth(share)
            if coins and usd:
                share.coins, share.usd = coins, usd
        targets = self._targets()
        for key in sorted(self.shares):
            share = self.shares[key]
            target = targets[key]
            if target > share.granted:
                target = max(share.granted, min(target, self._room_for(share)))
            if target == share.granted and share.version:
                continue
            self._version += 1
            share.version = self._version
            share.acked = max(share.acked, share.granted, target)
            share.granted = target
            out.append(GrantBounds(key, share.version, -target, target))

    def _targets(self) -> dict[str, int]:
        """Each symbol's lots if everybody had acknowledged: its own limit times the tightest total's share.

        A position beyond its share cannot be lowered by a bound: it is taken off the totals as it
        stands, and the others divide what is left.
        """
        beyond: dict[str, int] = {}
        while True:
            targets = self._divide(beyond)
            found = {
                key: targets[key]
                for key, share in self.shares.items()
                if key not in beyond and abs(share.lots) > targets[key]
            }
            if not found:
                return targets | beyond
            beyond |= found

    def _divide(self, beyond: Container[str]) -> dict[str, int]:
        """The shares of all, while those `beyond` theirs use what their positions use."""
        wanted_coins: dict[str, float] = {}
        used_coins: dict[str, float] = {}
        wanted_usd, used_usd = 0.0, sum(abs(lots) * usd for _, lots, _, usd in self.left_behind.values())
        for key, share in self.shares.items():
            base = share.instrument.base
            if key in beyond:
                used_coins[base] = used_coins.get(base, 0.0) + abs(share.lots) * share.coins
                used_usd += abs(share.lots) * share.usd
            else:
                wanted_coins[base] = wanted_coins.get(base, 0.0) + share.max_lots * share.coins
                wanted_usd += share.max_lots * share.usd
        by_usd = fraction(usable(self.limits.max_notional_usd) - used_usd, wanted_usd)
        if any(share.blind for share in self.shares.values()):
            by_usd = 0.0  # it may be any size, and lose anything: no room for anybody
        self.factor = 1.0 / by_usd if by_usd else math.inf
        targets: dict[str, int] = {}
        for key, share in self.shares.items():
            base = share.instrument.base
            room = usable(self.limits.max_exposure.get(base, ZERO)) - self._left_coins(base) - used_coins.get(base, 0.0)
            part = min(by_usd, fraction(room, wanted_coins.get(base, 0.0)))
            self.factor = max(self.factor, 1.0 / part if part else math.inf)
            # Without a price there is no worth, and without a worth no room.
            targets[key] = math.floor(share.max_lots * part + 1e-9) if share.coins and share.usd else 0
        return targets

    def _left_coins(self, base: str) -> float:
        return sum(abs(lots) * coins for i, lots, coins, _ in self.left_behind.values() if i.base == base)

    def _room_for(self, share: Share) -> int:
        """Lots this symbol may have while all the others keep their worst case."""
        base = share.instrument.base
        others_coins = self._left_coins(base)
        others_usd = sum(abs(lots) * usd for _, lots, _, usd in self.left_behind.values())
        for other in self.shares.values():
            if other is share:
                continue
            others_usd += other.worst_lots * other.usd
            if other.instrument.base == base:
                others_coins += other.worst_lots * other.coins
        coins = usable(self.limits.max_exposure.get(base, ZERO)) - others_coins
        usd = usable(self.limits.max_notional_usd) - others_usd
        if not share.coins or not share.usd:
            return 0
        return max(0, math.floor(min(coins / share.coins, usd / share.usd) + 1e-9))

    # --- totals ----------------------------------------------------------------------------------

    def totals(self) -> Totals:
        exposure: dict[str, float] = {}
        worst: dict[str, float] = {}
        notional = 0.0
        for share in self.shares.values():
            base = share.instrument.base
            exposure[base] = exposure.get(base, 0.0) + abs(share.lots) * share.coins
            worst[base] = worst.get(base, 0.0) + share.worst_lots * share.coins
            notional += abs(share.lots) * share.usd
        for instrument, lots, coins, usd in self.left_behind.values():
            exposure[instrument.base] = exposure.get(instrument.base, 0.0) + abs(lots) * coins
            worst[instrument.base] = worst.get(instrument.base, 0.0) + abs(lots) * coins
            notional += abs(lots) * usd
        pnl = self._pnl()
        high = self.high_water_usd if self.high_water_usd is not None else 0.0
        return Totals(
            exposure=exposure,
            worst_exposure=worst,
            notional_usd=notional,
            pnl_usd=pnl,
            high_water_usd=high,
            drawdown_usd=max(0.0, high - pnl) if pnl is not None else 0.0,
            oversubscribed=self.factor,
        )

    def _pnl(self) -> float | None:
        """Over all symbols; None while one with a position cannot be marked."""
        total = self.closed_pnl_usd
        for share in self.shares.values():
            if share.pnl_usd is None:
                if share.lots:
                    return None
                continue
            total += share.pnl_usd
        return total

    def _watch_drawdown(self, out: list[PortfolioAction]) -> None:
        pnl = self._pnl()
        if pnl is None:
            return
        if self.high_water_usd is None or pnl > self.high_water_usd:
            self.high_water_usd = pnl
        drawdown = self.high_water_usd - pnl
        limit = float(self.limits.max_drawdown_usd)
        if drawdown >= limit and not self.tripped:
            self.tripped = True
            out.append(TripDrawdown(drawdown, limit))

    def reset_drawdown(self) -> None:
        """An operator has reset the halt: count from here again."""
        self.tripped = False
        self.high_water_usd = self._pnl()


def usable(total: Decimal) -> float:
    """What of a total may be granted: the drift allowance is kept back."""
    return float(total) / (1.0 + DRIFT)


def fraction(room: float, wanted: float) -> float:
    """The part of `wanted` that fits into `room`; at most 1, at least 0."""
    if wanted <= 0.0:
        return 1.0
    return max(0.0, min(1.0, room / wanted))
