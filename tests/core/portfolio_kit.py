"""A portfolio machine among symbols that keep the symbol machine's promises, with messages under way both ways.

The totals are counted here anew, from the configuration and the symbols' own account.
"""

from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from core_kit import INVERSE, LINEAR, NS, OPTION, START_NS, changed

from mmd.core.portfolio import PortfolioMachine
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Switch
from mmd.domain.settings import KillSwitches, PortfolioLimits, ScopeLimits
from mmd.domain.totals import (
    BoundsAcked,
    ClearSwitch,
    GrantBounds,
    LossLimits,
    OperatorReset,
    PortfolioAction,
    PortfolioEvent,
    SymbolJoined,
    SymbolLeft,
    TotalsChanged,
    TripSwitch,
    Valued,
)

BTC, ETH = 50_000.0, 2_000.0
INDEX = {"BTC": BTC, "ETH": ETH}
FOREVER_NS = START_NS * 2
# Two exchanges, two underlyings, all three kinds of contract, several sizes. Name, instrument, mark, index.
MARKET: dict[str, tuple[Instrument, float, float]] = {
    "P": (changed(INVERSE, symbol="P"), BTC, BTC),
    "F": (changed(INVERSE, symbol="F", contract_size=Decimal(100)), BTC * 1.01, BTC),
    "C": (changed(OPTION, symbol="C", expiry_ns=FOREVER_NS), 0.05, BTC),
    "D": (changed(OPTION, symbol="D", expiry_ns=FOREVER_NS, exchange="other"), 0.01, BTC),
    "E": (changed(LINEAR, symbol="E"), ETH, ETH),
    "G": (changed(LINEAR, symbol="G", exchange="other", contract_size=Decimal(1)), ETH, ETH),
}
MAX_LOTS = {"P": 30_000, "F": 20_000, "C": 60, "D": 100, "E": 5_000, "G": 3_000}
EPSILON = 1e-9
UNMOVED = (1.0, 1.0)


def limits(
    btc: str = "10", eth: str = "100", usd: str = "1000000", drawdown: str = "5000", **more: Any
) -> PortfolioLimits:
    return PortfolioLimits(
        max_exposure={"BTC": Decimal(btc), "ETH": Decimal(eth)},
        max_notional_usd=Decimal(usd),
        max_drawdown_usd=Decimal(drawdown),
        **more,
    )


def scope(usd: str | None = None, contracts: str | None = None) -> ScopeLimits:
    return ScopeLimits(
        max_notional_usd=None if usd is None else Decimal(usd),
        max_contracts=None if contracts is None else Decimal(contracts),
    )


def key(name: str) -> str:
    return MARKET[name][0].key


def valued(name: str, lots: int = 0, *, move: float = 1.0, pnl: float | None = 0.0) -> Valued:
    instrument, mark, index = MARKET[name]
    mark = mark if instrument.is_option else mark * move
    return Valued(instrument.key, lots, mark, index * move, pnl)


def worth(name: str, moves: tuple[float, float] = UNMOVED) -> tuple[float, float, float]:
    """Coins, dollars and contracts of one lot, where mark and index have moved so far."""
    instrument, mark, index = MARKET[name]
    contracts = float(instrument.lot / instrument.contract_size)
    return (instrument.coins_per_lot(mark * moves[0]), instrument.usd_per_lot(index * moves[1]), contracts)


class Counted(msgspec.Struct, frozen=True):
    """One total as the configuration has it: which symbols, which part of `worth`, how much."""

    name: str
    names: frozenset[str]
    at: int
    limit: float


def every_total(given: PortfolioLimits) -> Iterator[Counted]:
    def over(exchange: str = "", base: str = "") -> frozenset[str]:
        return frozenset(
            name
            for name, (instrument, _, _) in MARKET.items()
            if exchange in ("", instrument.exchange) and base in ("", instrument.base)
        )

    yield Counted("USD", over(), 1, float(given.max_notional_usd))
    if given.max_contracts is not None:
        yield Counted("contracts", over(), 2, float(given.max_contracts))
    for base, coins in given.max_exposure.items():
        yield Counted(f"coins of {base}", over(base=base), 0, float(coins))
    scopes = [(f"on {name}", over(exchange=name), each) for name, each in given.per_exchange.items()]
    scopes += [(f"of {name}", over(base=name), each) for name, each in given.per_underlying.items()]
    for where, names, each in scopes:
        if each.max_notional_usd is not None:
            yield Counted(f"USD {where}", names, 1, float(each.max_notional_usd))
        if each.max_contracts is not None:
            yield Counted(f"contracts {where}", names, 2, float(each.max_contracts))


class Symbol:
    """What a symbol machine promises: `held` is the widest bound it may still be using."""

    def __init__(self, lots: int = 0) -> None:
        self.inbox: deque[GrantBounds] = deque()
        self.version, self.bound, self.held, self.lots = 0, 0, 0, lots

    @property
    def worst(self) -> int:
        """What it holds, may be using, or will be told that it may use."""
        return max(self.held, abs(self.lots), *(grant.max_lots for grant in self.inbox), 0)


class Book:
    """The machine, its symbols, and all that was said between them.

    `told`: lots, and moves of mark and index, as delivered.
    """

    def __init__(self, given: PortfolioLimits, switches: KillSwitches | None = None) -> None:
        self.switches = switches or KillSwitches()
        self.now_ns = START_NS
        self.machine = PortfolioMachine(given, self.switches, START_NS)
        self.symbols: dict[str, Symbol] = {}
        self.outbox: deque[PortfolioEvent] = deque()
        self.left: dict[str, int] = {}
        self.trips: list[TripSwitch] = []
        self.cleared: list[ClearSwitch] = []
        self.move = {"BTC": 1.0, "ETH": 1.0}
        self.told: dict[str, tuple[int, tuple[float, float]]] = {}
        self.log: list[tuple[tuple[PortfolioEvent, ...], int, list[PortfolioAction]]] = []
        self.first = self.given = given

    # --- talk ------------------------------------------------------------------------------------

    def tell(self, *events: PortfolioEvent, seconds: float = 0.0) -> list[PortfolioAction]:
        self.now_ns += int(seconds * NS)
        actions = self.machine.handle(events, self.now_ns)
        self.log.append((events, self.now_ns, actions))
        for event in events:
            if isinstance(event, Valued):
                name = event.key.partition("/")[2]
                instrument, mark, index = MARKET[name]
                by_mark, by_index = self.told.get(name, (0, UNMOVED))[1]
                if event.mark and not instrument.is_option:
                    by_mark = event.mark / mark  # coins go by it, dollars by the index; each keeps its last one
                if event.index or (event.mark and not instrument.is_option):
                    self.told[name] = (event.lots, (by_mark, event.index / index if event.index else by_index))
        self._take(actions)
        return actions

    def _take(self, actions: list[PortfolioAction]) -> None:
        for action in actions:
            if isinstance(action, TripSwitch):
                self.trips.append(action)
            elif isinstance(action, ClearSwitch):
                self.cleared.append(action)
            else:
                self.symbols[action.key.partition("/")[2]].inbox.append(action)

    def reset(self, *names: str) -> list[PortfolioAction]:
        keys = [key(name) for name in names]
        actions = self.machine.reset(keys, self.now_ns)
        self.log.append(((OperatorReset(tuple(sorted(keys))),), self.now_ns, actions))
        self._take(actions)
        return actions

    def change(self, given: PortfolioLimits) -> list[PortfolioAction]:
        self.given = given
        return self.tell(TotalsChanged(given, self.switches))

    def now(self, name: str, **changes: Any) -> Valued:
        return changed(valued(name, self.symbols[name].lots, move=self.move[MARKET[name][0].base]), **changes)

    def join(self, name: str, max_lots: int, lots: int = 0, losses: LossLimits | None = None) -> None:
        """Its position, if it left one, is what it left."""
        lots = self.left.pop(name, lots)
        self.symbols[name] = Symbol(lots)
        self.tell(SymbolJoined(MARKET[name][0], max_lots, losses or LossLimits()))
        self.outbox.append(self.now(name))

    def leave(self, name: str, pnl: float = 0.0) -> None:
        """Nothing of it rests; its position stays."""
        last = self.now(name, pnl_usd=pnl)
        symbol = self.symbols.pop(name)
        self.outbox = deque(event for event in self.outbox if getattr(event, "key", "") != key(name))
        self.left[name] = symbol.lots
        self.tell(last, SymbolLeft(key(name), symbol.lots))

    def hear(self, name: str) -> None:
        """The symbol takes its next grant; a wider bound is used at once, a tighter one when it has let go."""
        symbol = self.symbols[name]
        if symbol.inbox:
            grant = symbol.inbox.popleft()
            symbol.version, symbol.bound = grant.version, grant.max_lots
            symbol.held = max(symbol.held, symbol.bound)

    def acknowledge(self, name: str) -> None:
        """Once its orders and its position fit."""
        symbol = self.symbols[name]
        if symbol.version and abs(symbol.lots) <= symbol.bound:
            symbol.held = symbol.bound
            self.outbox.append(BoundsAcked(key(name), symbol.version))

    def fill(self, name: str, lots: int) -> None:
        """The position moves within what the symbol may use; it may always come closer to zero."""
        symbol = self.symbols[name]
        wished = max(-symbol.held, min(symbol.held, symbol.lots + lots))
        symbol.lots = wished if abs(wished) <= max(symbol.held, abs(symbol.lots)) else symbol.lots
        self.outbox.append(self.now(name))

    def unsay(self, name: str) -> None:
        """What it said of its numbers and was not heard yet is out of date."""
        self.outbox = deque(
            event for event in self.outbox if not (isinstance(event, Valued) and event.key == key(name))
        )

    def deliver(self, count: int) -> None:
        """What symbols that left meanwhile had to say is not delivered."""
        keys = set(self.machine.shares)
        self.outbox = deque(event for event in self.outbox if getattr(event, "key", "") in keys)
        batch = [self.outbox.popleft() for _ in range(min(count, len(self.outbox)))]
        if batch:
            self.tell(*batch)

    def settle(self) -> None:
        """All messages arrive, all acknowledge, until nobody has anything to say."""
        for name in sorted(self.symbols):
            self.acknowledge(name)
        for _ in range(300):
            for name in sorted(self.symbols):
                while self.symbols[name].inbox:
                    self.hear(name)
                    self.acknowledge(name)
            if not self.outbox:
                break
            self.deliver(len(self.outbox))
        else:
            raise AssertionError("grants and acknowledgements go round and round")
        for symbol in self.symbols.values():
            symbol.held = symbol.bound  # one that cannot acknowledge, for its position, has pulled its orders too

    # --- judge -----------------------------------------------------------------------------------

    def worst_of(self, total: Counted, *, move: float | None = None, instead: dict[str, int] | None = None) -> float:
        """If everything goes one way, at the prices told (or at this move); `instead`: lots of some of them."""
        everybody = {name: symbol.worst for name, symbol in self.symbols.items()}
        everybody |= {name: abs(lots) for name, lots in self.left.items()} | (instead or {})
        return sum(
            lots * worth(name, (move, move) if move is not None else self.told.get(name, (0, UNMOVED))[1])[total.at]
            for name, lots in everybody.items()
            if name in total.names
        )

    def held_of(self, total: Counted) -> float:
        """By the positions as told."""
        present = {**self.symbols, **self.left}
        return sum(
            abs(lots) * worth(name, moves)[total.at]
            for name, (lots, moves) in self.told.items()
            if name in total.names and name in present
        )

    def check(self) -> None:
        """No total can be passed."""
        for total in every_total(self.given):
            worst = self.worst_of(total)
            assert worst <= total.limit * (1 + EPSILON), f"{total.name}: {worst} could be reached, {total.limit} may"

    def check_settled(self) -> None:
        """No total can be passed, or positions alone do and nobody under it may add anything."""
        for total in every_total(self.given):
            if self.worst_of(total) <= total.limit * (1 + EPSILON):
                continue
            for name in total.names & set(self.symbols):
                symbol = self.symbols[name]
                assert symbol.bound <= abs(symbol.lots), f"{total.name} is full, and {name} may still grow"

    def tripped(self, switch: Switch) -> list[TripSwitch]:
        return [trip for trip in self.trips if trip.switch is switch]


def replay(log: list[tuple[tuple[PortfolioEvent, ...], int, list[PortfolioAction]]], given: PortfolioLimits) -> None:
    """The same events give the same actions."""
    again = PortfolioMachine(given, KillSwitches(), START_NS)
    for events, now_ns, actions in log:
        assert again.handle(events, now_ns) == actions
