"""Totals over symbols in coins, dollars and contracts: what is used, what could be, and how room is divided.

A total covers every symbol, those of one exchange, or those of one underlying. A symbol weighs so
much a lot in each unit; its worst case is the larger of its granted bound, what it may still hold
of older ones, and its position. Where the symbols' own limits together exceed a total, each gets
the same part of its own limit, by the tightest total that covers it: simple, and the same on every run.
"""

import math
from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.domain.instruments import Instrument
from mmd.domain.settings import PortfolioLimits, ScopeLimits
from mmd.domain.totals import LeftBehind

# Marks move; a grant is kept while the value of a lot stays within this of what it was granted at,
# and grants leave that much of every total unused that needs a price.
DRIFT = 0.02
# Sums of floats: this much, relatively, is noise and never a lot.
NOISE = 1e-9
ZERO = Decimal(0)
ROOT = "limits.portfolio"  # where all of them are configured
SIDES = 2  # orders that a symbol may have: one a side


class Span(StrEnum):
    """Over which symbols a total goes."""

    PORTFOLIO = "portfolio"
    EXCHANGE = "exchange"
    UNDERLYING = "underlying"


class Unit(StrEnum):
    COINS = "coins"
    USD = "USD"
    CONTRACTS = "contracts"


# Where each unit stands in a weight.
AT = {Unit.COINS: 0, Unit.USD: 1, Unit.CONTRACTS: 2}
Weight = tuple[float, float, float]
"""Of one lot: coins, USD, contracts; 0.0 where a price is missing."""


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """`target`: the exchange or the underlying, empty for the portfolio. `key`: of the configuration."""

    span: Span
    target: str
    unit: Unit
    limit: Decimal
    key: str

    @property
    def grantable(self) -> float:
        """What of it may be granted: contracts need no price, for all else the drift allowance is kept back."""
        return float(self.limit) if self.unit is Unit.CONTRACTS else float(self.limit) / (1.0 + DRIFT)

    def __str__(self) -> str:
        where = {Span.PORTFOLIO: "", Span.EXCHANGE: f" on {self.target}", Span.UNDERLYING: f" of {self.target}"}
        return f"{self.unit}{where[self.span]}"


def covers(span: Span, target: str, instrument: Instrument) -> bool:
    """Whether what goes over this span counts the instrument."""
    if span is Span.PORTFOLIO:
        return True
    return target == (instrument.exchange if span is Span.EXCHANGE else instrument.base)


def scoped(limits: PortfolioLimits) -> tuple[tuple[Span, dict[str, ScopeLimits]], ...]:
    return ((Span.EXCHANGE, limits.per_exchange), (Span.UNDERLYING, limits.per_underlying))


def totals_from(limits: PortfolioLimits, bases: Iterable[str]) -> list[Total]:
    """Every total of the configuration. `bases`: underlyings held; one without a `max_exposure` may hold nothing."""
    found: list[Total] = []

    def add(span: Span, target: str, unit: Unit, limit: Decimal | None, key: str) -> None:
        if limit is not None:
            found.append(Total(span=span, target=target, unit=unit, limit=limit, key=f"{ROOT}.{key}"))

    add(Span.PORTFOLIO, "", Unit.USD, limits.max_notional_usd, "max_notional_usd")
    add(Span.PORTFOLIO, "", Unit.CONTRACTS, limits.max_contracts, "max_contracts")
    for base in sorted({*limits.max_exposure, *bases}):
        add(Span.UNDERLYING, base, Unit.COINS, limits.max_exposure.get(base, ZERO), f"max_exposure.{base}")
    for span, scopes in scoped(limits):
        for target in sorted(scopes):
            given, where = scopes[target], f"per_{span}.{target}"
            add(span, target, Unit.USD, given.max_notional_usd, f"{where}.max_notional_usd")
            add(span, target, Unit.CONTRACTS, given.max_contracts, f"{where}.max_contracts")
    return found


class Share:
    """One symbol's part of the totals. `parted`: the symbol is gone, what it left behind still counts."""

    __slots__ = (
        "acked",
        "granted",
        "instrument",
        "latest",
        "lots",
        "max_lots",
        "missing",
        "parted",
        "pnl_known",
        "pnl_usd",
        "rooms",
        "version",
        "weight",
    )

    def __init__(self, instrument: Instrument, max_lots: int) -> None:
        contracts = float(instrument.lot / instrument.contract_size)
        self.instrument = instrument
        self.max_lots = max_lots
        self.granted = 0
        self.acked = 0
        self.version = 0
        self.lots = 0
        self.weight: Weight = (0.0, 0.0, contracts)  # at the last division
        self.latest: Weight = self.weight  # the newest known
        self.missing: tuple[str, ...] = ()  # for saying what its position is worth and has gained
        self.pnl_usd = 0.0  # the last known
        self.pnl_known = False
        self.parted = False
        self.rooms: list[Room] = []

    @property
    def worst_lots(self) -> int:
        return max(self.granted, self.acked, abs(self.lots))

    @property
    def priced(self) -> bool:
        """It had a worth at the last division; without a worth there is no room."""
        return bool(self.weight[0] and self.weight[1])

    def value(self, lots: int, mark: float, index: float, pnl_usd: float | None) -> None:
        """Take the symbol's numbers; 0.0 and None = unknown. What is not known any more keeps its last value."""
        self.lots = lots
        self.pnl_known = pnl_usd is not None
        if pnl_usd is not None:
            self.pnl_usd = pnl_usd
        coins, usd = coins_of(self.instrument, mark), usd_of(self.instrument, index)
        self.latest = (coins or self.latest[0], usd or self.latest[1], self.latest[2])
        self.missing = ()
        if lots and not (coins and usd and self.pnl_known):
            unknown = [name for name, price in (("mark", mark), ("index", index)) if not price > 0.0]
            self.missing = tuple(unknown or ["profit"])

    def depart(self, lots: int, worst_lots: int = 0) -> None:
        """The symbol is gone and leaves this position, which may become `worst_lots` through orders that are out."""
        self.lots, self.max_lots, self.granted, self.acked, self.parted = lots, 0, 0, worst_lots, True
        self.missing = () if self.latest[0] and self.latest[1] else ("mark", "index")

    def left(self) -> LeftBehind:
        """Its position, for the next run."""
        coins, usd, _ = self.latest
        return LeftBehind(instrument=self.instrument, lots=self.lots, coins=coins, usd=usd)

    @classmethod
    def of(cls, left: LeftBehind) -> "Share":
        """A position that the last run left."""
        share = cls(left.instrument, 0)
        share.latest = (left.coins, left.usd, share.weight[2])
        share.depart(left.lots, left.worst_lots)
        return share

    def follow(self, left: "Share") -> None:
        """The symbol is back: its old position counts until it says what it has, at worst until it acknowledges."""
        self.lots, self.weight, self.latest, self.acked = left.lots, left.weight, left.latest, left.acked
        self.missing, self.pnl_known = left.missing, not left.missing

    @property
    def drifted(self) -> bool:
        """A lot is worth more, or less, by more than DRIFT since the last division."""
        if not (self.latest[0] and self.latest[1]):
            return False
        return not self.priced or any(abs(self.latest[i] / self.weight[i] - 1.0) > DRIFT for i in (0, 1))


def coins_of(instrument: Instrument, mark: float) -> float:
    """Of one lot; 0.0 where the mark is needed and unknown."""
    try:
        return instrument.coins_per_lot(mark)
    except ValueError:
        return 0.0


def usd_of(instrument: Instrument, index: float) -> float:
    """Of one lot; 0.0 where the index is needed and unknown."""
    try:
        return instrument.usd_per_lot(index)
    except ValueError:
        return 0.0


class Room:
    """One total and the symbols that it covers.

    While room is dealt out: `worst`, what they hold of it at worst; `part`, what each may have of its own limit.
    """

    __slots__ = ("at", "grantable", "limit", "members", "part", "total", "worst")

    def __init__(self, total: Total, members: list[Share]) -> None:
        self.total = total
        self.members = members
        self.at = AT[total.unit]
        self.limit = float(total.limit)
        self.grantable = total.grantable
        self.worst = 0.0
        self.part = 1.0

    def used(self) -> float:
        """By the positions, at the newest prices known."""
        at = self.at
        return math.fsum(abs(share.lots) * share.latest[at] for share in self.members)

    @property
    def passed(self) -> bool:
        """The positions alone exceed the limit; rounding never does."""
        return self.used() > self.limit * (1.0 + NOISE)

    def count_worst(self) -> None:
        at = self.at
        self.worst = math.fsum(share.worst_lots * share.weight[at] for share in self.members)

    def divide(self, beyond: Container[str]) -> None:
        """Sets which part of its own limit each may have; those `beyond` their share use what their positions use."""
        at = self.at
        used = wanted = 0.0
        for share in self.members:
            if share.parted:
                used += share.worst_lots * share.weight[at]
            elif share.instrument.key in beyond:
                used += abs(share.lots) * share.weight[at]
            elif share.priced:
                wanted += share.max_lots * share.weight[at]
        self.part = max(0.0, min(1.0, (self.grantable - used) / wanted)) if wanted > 0.0 else 1.0


def rooms_for(limits: PortfolioLimits, shares: Iterable[Share]) -> list[Room]:
    """Every total with its members; tells each share which totals it is under."""
    shares = list(shares)
    for share in shares:
        share.rooms = []
    rooms = []
    for total in totals_from(limits, {share.instrument.base for share in shares}):
        room = Room(total, [share for share in shares if covers(total.span, total.target, share.instrument)])
        for share in room.members:
            share.rooms.append(room)
        rooms.append(room)
    return rooms


def targets_for(rooms: Iterable[Room], shares: Mapping[str, Share]) -> dict[str, int]:
    """Each symbol's lots if everybody had acknowledged: its own limit times the tightest total's part.

    A position beyond its share cannot be lowered by a bound: it is taken off the totals as it
    stands, and the others divide what is left.
    """
    beyond: dict[str, int] = {}
    while True:
        targets = divide(rooms, shares, beyond)
        found = {
            key: targets[key] for key, share in shares.items() if key not in beyond and abs(share.lots) > targets[key]
        }
        if not found:
            return targets | beyond
        beyond |= found


def divide(rooms: Iterable[Room], shares: Mapping[str, Share], beyond: Container[str]) -> dict[str, int]:
    """Lots for all; what a symbol gets that is `beyond` its share means nothing."""
    for room in rooms:
        room.divide(beyond)
    targets: dict[str, int] = {}
    for key, share in shares.items():
        part = min(room.part for room in share.rooms)
        targets[key] = math.floor(share.max_lots * part + NOISE) if share.priced else 0
    return targets


def room_left(share: Share) -> int:
    """Lots this symbol may have while all the others keep their worst case; `Room.worst` must be counted."""
    if not share.priced:
        return 0
    own = share.worst_lots
    left = min(
        (room.grantable - (room.worst - own * share.weight[room.at])) / share.weight[room.at] for room in share.rooms
    )
    return max(0, math.floor(left + NOISE))


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One total: used now, what it could become at worst, allowed; None where it cannot be said.

    `oversubscribed`: how many times the limit the symbols' own limits add up to.
    """

    scope: str
    target: str
    unit: str
    used: float | None
    worst: float | None
    limit: float
    oversubscribed: float | None
    key: str


def use_of(room: Room) -> Use:
    at, total = room.at, room.total
    known = all(share.latest[at] for share in room.members if share.lots)
    priced = all(share.latest[at] for share in room.members)
    wanted = math.fsum(share.max_lots * share.latest[at] for share in room.members)
    return Use(
        scope=total.span,
        target=total.target,
        unit=total.unit,
        used=room.used() if known else None,
        worst=math.fsum(share.worst_lots * share.latest[at] for share in room.members) if known else None,
        limit=room.limit,
        oversubscribed=wanted / room.limit if priced and room.limit else None,
        key=total.key,
    )


def order_uses(limits: PortfolioLimits, instruments: Iterable[Instrument], resting: Mapping[str, int]) -> list[Use]:
    """Open orders against every maximum of them. `resting`: by symbol's key, those that are or may be out.

    At worst every symbol has an order on both sides, but the gate stops at the limit.
    """
    rows = [(Span.PORTFOLIO, "", limits.max_open_orders, f"{ROOT}.max_open_orders")]
    for span, scopes in scoped(limits):
        for target in sorted(scopes):
            most = scopes[target].max_open_orders
            if most is not None:
                rows.append((span, target, most, f"{ROOT}.per_{span}.{target}.max_open_orders"))
    instruments = list(instruments)
    found: list[Use] = []
    for span, target, most, key in rows:
        covered = [instrument.key for instrument in instruments if covers(span, target, instrument)]
        used, wanted = sum(resting.get(each, 0) for each in covered), SIDES * len(covered)
        use = Use(
            scope=span,
            target=target,
            unit="orders",
            used=float(used),
            worst=float(max(used, min(most, wanted))),
            limit=float(most),
            oversubscribed=wanted / most if most else None,
            key=key,
        )
        found.append(use)
    return found
