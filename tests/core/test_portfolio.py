"""The portfolio machine: whatever the order of messages, the sum of worst cases never passes a total.

The model of the symbols is the contract of the symbol machine: new bounds hold at once for new
orders, an acknowledgement says that old orders fit too, and values are told before it.
"""

import math
import random
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from core_kit import INVERSE, LINEAR, OPTION, changed
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mmd.core.portfolio import (
    DRIFT,
    BoundsAcked,
    GrantBounds,
    LimitChanged,
    PortfolioAction,
    PortfolioEvent,
    PortfolioMachine,
    SymbolJoined,
    SymbolLeft,
    TotalsChanged,
    TripDrawdown,
    Valued,
)
from mmd.domain.instruments import Instrument
from mmd.domain.settings import PortfolioLimits

BTC, ETH = 50_000.0, 2_000.0
# Two underlyings, all three kinds of contract. Name, instrument, mark, index.
MARKET: dict[str, tuple[Instrument, float, float]] = {
    "P": (changed(INVERSE, symbol="P"), BTC, BTC),
    "F": (changed(INVERSE, symbol="F"), BTC * 1.01, BTC),
    "C": (changed(OPTION, symbol="C"), 0.05, BTC),
    "D": (changed(OPTION, symbol="D"), 0.01, BTC),
    "E": (changed(LINEAR, symbol="E"), ETH, ETH),
}


def limits(btc: str = "10", eth: str = "100", usd: str = "1000000", drawdown: str = "5000") -> PortfolioLimits:
    return PortfolioLimits(
        max_exposure={"BTC": Decimal(btc), "ETH": Decimal(eth)},
        max_notional_usd=Decimal(usd),
        max_drawdown_usd=Decimal(drawdown),
    )


def valued(name: str, lots: int = 0, *, move: float = 1.0, pnl: float | None = 0.0) -> Valued:
    instrument, mark, index = MARKET[name]
    mark = mark if instrument.is_option else mark * move
    return Valued(instrument.key, lots, mark, index * move, pnl)


def worth(name: str, move: float = 1.0) -> tuple[float, float]:
    """Coins and dollars of one lot."""
    instrument, mark, index = MARKET[name]
    return (instrument.coins_per_lot(mark * move), instrument.usd_per_lot(index * move))


class Symbol:
    """What a symbol machine promises: `held` is the widest bound it may still be using."""

    def __init__(self) -> None:
        self.inbox: deque[GrantBounds] = deque()
        self.version, self.bound, self.held, self.lots = 0, 0, 0, 0

    @property
    def worst(self) -> int:
        return max(self.held, abs(self.lots))


class Book:
    """Portfolio machine and symbols with messages under way in both directions."""

    def __init__(self, given: PortfolioLimits) -> None:
        self.machine = PortfolioMachine(given)
        self.symbols: dict[str, Symbol] = {}
        self.outbox: deque[PortfolioEvent] = deque()
        self.left: dict[str, int] = {}
        self.trips: list[TripDrawdown] = []

    def tell(self, *events: PortfolioEvent) -> list[PortfolioAction]:
        actions = self.machine.handle(events)
        for action in actions:
            if isinstance(action, TripDrawdown):
                self.trips.append(action)
            else:
                self.symbols[action.key.split("/")[1]].inbox.append(action)
        return actions

    def join(self, name: str, max_lots: int, lots: int = 0) -> None:
        self.left.pop(name, None)
        self.symbols[name] = Symbol()
        self.symbols[name].lots = lots
        self.tell(SymbolJoined(MARKET[name][0], max_lots))
        self.outbox.append(valued(name, lots))

    def leave(self, name: str) -> None:
        """Nothing of it rests; its position stays."""
        symbol = self.symbols.pop(name)
        key = MARKET[name][0].key
        self.outbox = deque(event for event in self.outbox if getattr(event, "key", "") != key)
        self.left[name] = symbol.lots
        self.tell(valued(name, symbol.lots), SymbolLeft(key, symbol.lots))

    def hear(self, name: str) -> None:
        """The symbol takes its next grant; a wider bound is used at once, a tighter one when it has let go."""
        symbol = self.symbols[name]
        if symbol.inbox:
            grant = symbol.inbox.popleft()
            symbol.version, symbol.bound = grant.version, grant.max_lots
            symbol.held = max(symbol.held, symbol.bound)

    def acknowledge(self, name: str) -> None:
        symbol = self.symbols[name]
        if symbol.version:
            symbol.held = symbol.bound
            self.outbox.append(BoundsAcked(MARKET[name][0].key, symbol.version))

    def fill(self, name: str, lots: int) -> None:
        """The position moves within what the symbol may use; it may always come closer to zero."""
        symbol = self.symbols[name]
        wished = max(-symbol.held, min(symbol.held, symbol.lots + lots))
        symbol.lots = wished if abs(wished) <= symbol.held else symbol.lots
        self.outbox.append(valued(name, symbol.lots))

    def deliver(self, count: int) -> None:
        batch = [self.outbox.popleft() for _ in range(min(count, len(self.outbox)))]
        if batch:
            self.tell(*batch)

    def settle(self) -> None:
        """All messages arrive, all acknowledge, until nobody has anything to say."""
        for _ in range(200):
            for name in sorted(self.symbols):
                while self.symbols[name].inbox:
                    self.hear(name)
                    self.acknowledge(name)
            if not self.outbox:
                return
            self.deliver(len(self.outbox))
        raise AssertionError("grants and acknowledgements go round and round")

    def worst(self, move: float = 1.0) -> tuple[dict[str, float], float]:
        """Coins per underlying and dollars, if everything goes one way; by the symbols' own account."""
        coins: dict[str, float] = {}
        usd = 0.0
        everybody = {name: symbol.worst for name, symbol in self.symbols.items()}
        for name, lots in [*everybody.items(), *((name, abs(lots)) for name, lots in self.left.items())]:
            base = MARKET[name][0].base
            coins[base] = coins.get(base, 0.0) + lots * worth(name, move)[0]
            usd += lots * worth(name, move)[1]
        return coins, usd

    def check(self) -> None:
        given = self.machine.limits
        coins, usd = self.worst()
        for base, amount in coins.items():
            assert amount <= float(given.max_exposure[base]) * (1 + 1e-9), f"{base}: {amount} could be reached"
        assert usd <= float(given.max_notional_usd) * (1 + 1e-9), f"{usd} USD could be reached"


MAX_LOTS = {"P": 30_000, "F": 20_000, "C": 60, "D": 100, "E": 5_000}
STEPS = ["hear", "hear", "ack", "ack", "fill", "fill", "deliver", "deliver", "deliver", "join", "leave", "limit"]
Step = tuple[str, str, int]


def run(steps: list[Step], given: PortfolioLimits) -> Book:
    book = Book(given)
    for what, name, number in steps:
        present = name in book.symbols
        if what == "join" and not present and not book.left.get(name):
            book.join(name, MAX_LOTS[name])
        elif what == "deliver":
            book.deliver(1 + number % 4)
        elif not present:
            continue
        elif what == "hear":
            book.hear(name)
        elif what == "ack":
            book.acknowledge(name)
        elif what == "fill":
            book.fill(name, (number - 50) * MAX_LOTS[name] // 60)
        elif what == "leave" and number < 25:
            book.leave(name)
        elif what == "limit":
            book.outbox.append(LimitChanged(MARKET[name][0].key, MAX_LOTS[name] * (1 + number % 5) // 3))
        # A message of a symbol that left meanwhile is not delivered.
        keys = set(book.machine.shares)
        book.outbox = deque(event for event in book.outbox if getattr(event, "key", None) in keys)
        book.check()
    return book


TIGHT = [
    pytest.param(limits(btc="10", eth="30", usd="1000000"), id="all totals tight"),
    pytest.param(limits(btc="3", eth="1000", usd="10000000"), id="coins tight"),
    pytest.param(limits(btc="1000", eth="1000", usd="200000"), id="dollars tight"),
    pytest.param(limits(btc="1000", eth="1000", usd="100000000"), id="room for all"),
]
traces = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(sorted(MARKET)), st.integers(0, 99)), max_size=80)


@pytest.mark.parametrize("given_limits", TIGHT)
@hypothesis_settings(max_examples=60, deadline=None)
@given(steps=traces)
def test_no_interleaving_passes_a_total(given_limits: PortfolioLimits, steps: list[Step]) -> None:
    run(steps, given_limits).settle()


def random_steps(seed: int, count: int) -> list[Step]:
    draw = random.Random(seed)
    return [(draw.choice(STEPS), draw.choice(sorted(MARKET)), draw.randrange(100)) for _ in range(count)]


@pytest.mark.parametrize("given_limits", TIGHT)
@pytest.mark.parametrize("seed", range(5))
def test_long_interleavings(given_limits: PortfolioLimits, seed: int) -> None:
    book = run(random_steps(seed, 600), given_limits)
    book.settle()
    book.check()


@pytest.mark.slow
@pytest.mark.parametrize("given_limits", TIGHT)
@pytest.mark.parametrize("seed", range(100, 600))
def test_thousands_of_interleavings(given_limits: PortfolioLimits, seed: int) -> None:
    book = run(random_steps(seed, 1000), given_limits)
    book.settle()
    book.check()


def shares(given: PortfolioLimits, names: list[str]) -> dict[str, int]:
    """What everybody has once all is quiet and flat: the same part of its own limit, by the tightest total."""
    coins: dict[str, float] = {}
    usd = 0.0
    for name in names:
        base = MARKET[name][0].base
        coins[base] = coins.get(base, 0.0) + MAX_LOTS[name] * worth(name)[0]
        usd += MAX_LOTS[name] * worth(name)[1]
    out = {}
    for name in names:
        base = MARKET[name][0].base
        by_coins = float(given.max_exposure[base]) / (1 + DRIFT) / coins[base]
        part = min(1.0, by_coins, float(given.max_notional_usd) / (1 + DRIFT) / usd)
        out[name] = math.floor(MAX_LOTS[name] * part + 1e-9)
    return out


@pytest.mark.parametrize("given_limits", TIGHT)
@hypothesis_settings(max_examples=60, deadline=None)
@given(order=st.permutations(sorted(MARKET)), gone=st.sampled_from(sorted(MARKET)))
def test_when_all_have_acknowledged_everybody_has_its_share(
    given_limits: PortfolioLimits, order: list[str], gone: str
) -> None:
    """No deadlock, and the order of joining does not matter."""
    book = Book(given_limits)
    for name in order:
        book.join(name, MAX_LOTS[name])
        book.settle()
    assert {name: symbol.held for name, symbol in book.symbols.items()} == shares(given_limits, order)
    book.leave(gone)
    book.settle()
    rest = [name for name in order if name != gone]
    assert {name: symbol.held for name, symbol in book.symbols.items()} == shares(given_limits, rest)


def test_room_moves_only_after_the_acknowledgement() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.settle()
    assert book.symbols["C"].held == 98  # 10 coins less the drift allowance, 0.1 coin a lot
    book.join("D", 100)
    book.deliver(9)
    assert [grant.max_lots for grant in book.symbols["C"].inbox] == [49]
    assert [grant.max_lots for grant in book.symbols["D"].inbox] == [0]
    book.hear("C")
    book.deliver(9)
    assert book.machine.shares[MARKET["D"][0].key].granted == 0, "heard is not acknowledged"
    book.acknowledge("C")
    book.deliver(9)
    assert [grant.max_lots for grant in book.symbols["D"].inbox][-1] == 49


def test_an_old_acknowledgement_frees_nothing() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.settle()
    book.join("D", 100)
    book.deliver(9)
    old = book.symbols["C"].version
    assert book.tell(BoundsAcked(MARKET["C"][0].key, old)) == []


def test_no_price_no_room() -> None:
    machine = PortfolioMachine(limits())
    key = INVERSE.key
    assert machine.handle([SymbolJoined(INVERSE, 100)]) == [GrantBounds(key, 1, 0, 0)]
    assert machine.handle([Valued(key, 0, 0.0, 0.0, None)]) == []
    assert machine.handle([Valued(key, 0, BTC, BTC, None)]) == [GrantBounds(key, 2, -100, 100)]


def test_an_underlying_without_a_limit_gets_no_room() -> None:
    machine = PortfolioMachine(changed(limits(), max_exposure={"ETH": Decimal(100)}))
    machine.handle([SymbolJoined(INVERSE, 100)])
    machine.handle([Valued(INVERSE.key, 0, BTC, BTC, None)])
    assert machine.shares[INVERSE.key].granted == 0


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param({"mark": 0.0, "index": 0.0, "pnl_usd": None}, id="no prices"),
        pytest.param({"pnl_usd": None}, id="no profit: the drawdown cannot be computed"),
    ],
)
def test_a_position_that_cannot_be_valued_stops_everybody(unknown: dict[str, Any]) -> None:
    book = Book(limits())
    book.join("C", 50)
    book.settle()
    assert book.symbols["C"].held == 50
    book.symbols["D"] = Symbol()
    book.tell(SymbolJoined(MARKET["D"][0], 10))
    book.tell(changed(valued("D", 3), **unknown))
    book.settle()
    assert book.symbols["C"].held == 0
    book.tell(valued("D", 3))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (50, 10)


def test_a_position_beyond_its_share_takes_from_the_others() -> None:
    """Found at start with 8 of 10 coins: no bound can lower it, so the others get what is left."""
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 100)
    book.join("D", 100)
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 49)
    book.symbols["C"].lots = 80
    book.tell(valued("C", 80))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 18)
    book.check()
    book.symbols["C"].lots = 40
    book.tell(valued("C", 40))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (49, 49)


def test_a_lone_position_beyond_its_share_gives_no_more_room() -> None:
    book = Book(limits(btc="5", usd="100000000"))
    book.join("C", 100, lots=80)
    book.settle()
    assert book.symbols["C"].held == 49


def test_what_a_removed_symbol_leaves_behind_still_counts() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 60)
    book.settle()
    book.fill("C", 40)
    book.settle()
    book.leave("C")
    book.join("D", 100)
    book.settle()
    assert book.symbols["D"].held == 58  # 10/1.02 - 4 coins, a tenth each
    assert book.machine.totals().exposure["BTC"] == pytest.approx(4.0)


def test_a_symbol_that_returns_still_has_its_position() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    book.join("C", 60)
    book.settle()
    book.fill("C", 40)
    book.settle()
    book.leave("C")
    book.symbols["C"] = Symbol()
    book.tell(SymbolJoined(MARKET["C"][0], 60))
    assert book.machine.totals().exposure["BTC"] == pytest.approx(4.0)


def test_lower_totals_reach_everybody() -> None:
    book = Book(limits(btc="10", usd="100000000"))
    for name in ("C", "D"):
        book.join(name, 100)
    book.settle()
    book.tell(TotalsChanged(limits(btc="5", usd="100000000")))
    book.settle()
    assert (book.symbols["C"].held, book.symbols["D"].held) == (24, 24)
    book.check()


# --- marks that move ----------------------------------------------------------------------------------


def test_a_small_move_of_the_marks_changes_no_bounds_and_passes_no_total() -> None:
    """Grants leave DRIFT of every total unused: that is what a lot may gain before a new division."""
    book = Book(limits(btc="1000", usd="1000000"))
    for name in ("C", "E"):
        book.join(name, MAX_LOTS[name])
    book.settle()
    move = 1.0 + DRIFT * 0.99
    assert book.tell(valued("C", move=move), valued("E", move=move)) == []
    _, usd = book.worst(move)
    assert usd <= 1_000_000.0


def test_a_large_move_divides_anew_and_may_pass_the_total_until_the_symbols_have_let_go() -> None:
    """A mark that jumps makes positions worth more at once: no bound can be faster than that."""
    book = Book(limits(btc="1000", usd="300000"))
    for name in ("C", "D"):
        book.join(name, MAX_LOTS[name])
    book.settle()
    _, before = book.worst()
    assert before <= 300_000.0
    book.tell(valued("C", move=1.1), valued("D", move=1.1))
    _, during = book.worst(1.1)
    assert during > 300_000.0
    book.settle()
    _, after = book.worst(1.1)
    assert after <= 300_000.0


# --- drawdown -----------------------------------------------------------------------------------------


def test_drawdown_trips_once_and_again_after_a_reset() -> None:
    book = Book(limits(drawdown="500"))
    book.join("C", 10)
    book.settle()
    for pnl in (100.0, 400.0, 0.0, -99.0):
        book.tell(valued("C", 1, pnl=pnl))
        assert not book.trips
    book.tell(valued("C", 1, pnl=-100.0))
    assert book.trips == [TripDrawdown(500.0, 500.0)]
    book.tell(valued("C", 1, pnl=-900.0))
    assert len(book.trips) == 1
    totals = book.machine.totals()
    assert (totals.pnl_usd, totals.high_water_usd, totals.drawdown_usd) == (-900.0, 400.0, 1300.0)
    book.machine.reset_drawdown()
    book.tell(valued("C", 1, pnl=-1300.0))
    assert len(book.trips) == 1
    book.tell(valued("C", 1, pnl=-1400.0))
    assert len(book.trips) == 2


def test_drawdown_is_a_total_over_symbols_and_those_that_left() -> None:
    book = Book(limits(drawdown="500"))
    for name in ("C", "D", "E"):
        book.join(name, 10)
    book.settle()
    book.tell(valued("C", 1, pnl=300.0), valued("D", 1, pnl=100.0), valued("E", 1, pnl=0.0))
    book.leave("D")  # pnl 0 is what it says last
    book.tell(valued("C", 1, pnl=-100.0), valued("E", 1, pnl=-101.0))
    assert len(book.trips) == 1


def test_totals_for_status() -> None:
    book = Book(limits())
    book.join("C", 20)
    book.join("P", 1000)
    book.settle()
    book.fill("C", -10)
    book.fill("P", 500)
    book.settle()
    totals = book.machine.totals()
    assert totals.exposure["BTC"] == pytest.approx(1.0 + 500 * 10 / BTC)
    assert totals.worst_exposure["BTC"] == pytest.approx(2.0 + 1000 * 10 / BTC)
    assert totals.notional_usd == pytest.approx(10 * 0.1 * BTC + 5000)
