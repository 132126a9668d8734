"""Whatever the order of messages: no total can be passed, nothing grows past it, and the same events do the same.

The model of the symbols is the contract of the symbol machine: new bounds hold at once for new
orders, an acknowledgement says that old orders fit too, and values are told before it.
"""

import random
from decimal import Decimal

import pytest
from core_kit import changed
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from portfolio_kit import EPSILON, MARKET, MAX_LOTS, Book, every_total, key, limits, replay, scope

from mmd.domain.reasons import Switch
from mmd.domain.settings import PortfolioLimits
from mmd.domain.totals import GrantBounds, LimitChanged, PortfolioAction

SPARE = {"btc": "1000", "eth": "10000", "usd": "100000000"}
TIGHT: dict[str, PortfolioLimits] = {
    "all tight": limits(
        btc="10",
        eth="60",
        usd="900000",
        max_contracts=Decimal(30_000),
        per_exchange={"deribit": scope(usd="600000", contracts="25000"), "other": scope(usd="400000")},
        per_underlying={"BTC": scope(usd="700000", contracts="20000"), "ETH": scope(contracts="9000")},
    ),
    "coins and dollars tight": limits(btc="3", eth="30", usd="150000"),
    "contracts tight": limits(**SPARE, max_contracts=Decimal(700)),
    "scopes tight": limits(
        **SPARE,
        per_exchange={"deribit": scope(contracts="5000"), "other": scope(usd="90000", contracts="40")},
        per_underlying={"BTC": scope(usd="200000"), "ETH": scope(contracts="300", usd="70000")},
    ),
    "room for all": limits(**SPARE),
}
QUIET = ["hear", "hear", "ack", "ack", "fill", "fill", "deliver", "deliver", "deliver", "join", "leave", "limit"]
WILD = [*QUIET, *QUIET, "price", "price", "found", "total", "blind", "reset", "wait"]
Step = tuple[str, str, int]


def act(book: Book, step: Step) -> None:
    what, name, number = step
    if what == "join":
        if name not in book.symbols:
            book.join(name, MAX_LOTS[name])
    elif what == "deliver":
        book.deliver(1 + number % 4)
    elif what == "total":
        book.change(scaled(book.first, Decimal(1 + number % 12) / 8))
    elif what == "wait":
        book.tell(seconds=number * 400.0)
    elif what == "price":
        base = MARKET[name][0].base
        book.move[base] *= 1.0 + (number - 50) / (400.0 if number % 3 else 2500.0)
    elif name in book.symbols:
        act_of_symbol(book, what, name, number)


def act_of_symbol(book: Book, what: str, name: str, number: int) -> None:
    if what == "hear":
        book.hear(name)
    elif what == "ack":
        book.acknowledge(name)
    elif what == "fill":
        book.fill(name, (number - 50) * MAX_LOTS[name] // 60)
    elif what == "leave" and number < 25:
        book.leave(name)
    elif what == "limit":
        book.outbox.append(LimitChanged(key(name), MAX_LOTS[name] * (1 + number % 5) // 3))
    elif what == "found":  # the exchange's count is another
        book.symbols[name].lots = (number - 50) * MAX_LOTS[name] // (40 if number % 5 == 0 else 800)
        book.unsay(name)
        book.tell(book.now(name))
    elif what == "blind":
        unknown = [{}, {"mark": 0.0}, {"index": 0.0}, {"mark": 0.0, "index": 0.0}][number % 4]
        book.unsay(name)
        for seconds in (0, number % 21):
            book.tell(book.now(name, pnl_usd=None, **unknown), seconds=float(seconds))
        late = book.symbols[name].lots and number % 21 >= book.switches.max_unvalued_seconds
        assert not late or (Switch.VALUATION, "") in book.machine.held
        book.outbox.append(book.now(name))
    elif what == "reset":
        book.reset(name)


def scaled(given: PortfolioLimits, part: Decimal) -> PortfolioLimits:
    """Other totals in money and coins; what is scoped stays."""
    exposure = {base: limit * part for base, limit in given.max_exposure.items()}
    return changed(given, max_exposure=exposure, max_notional_usd=given.max_notional_usd * part)


# --- nothing from outside: never, not even for a moment -----------------------------------------------


def run_quiet(steps: list[Step], given: PortfolioLimits) -> Book:
    book = Book(given)
    for step in steps:
        act(book, step)
        book.check()
    book.settle()
    book.check()
    assert not book.trips, "positions within their bounds breach nothing"
    replay(book.log, given)
    return book


def traces(steps: list[str], longest: int) -> st.SearchStrategy[list[Step]]:
    one = st.tuples(st.sampled_from(steps), st.sampled_from(sorted(MARKET)), st.integers(0, 99))
    return st.lists(one, min_size=10, max_size=longest)


EVERY = st.sampled_from(sorted(TIGHT))
QUICK = hypothesis_settings(max_examples=150, deadline=None)
MANY = hypothesis_settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(which=EVERY, steps=traces(QUIET, 80))
def test_no_interleaving_passes_a_total(which: str, steps: list[Step]) -> None:
    run_quiet(steps, TIGHT[which])


@pytest.mark.slow
@MANY
@given(which=EVERY, steps=traces(QUIET, 60))
def test_no_interleaving_of_many_passes_a_total(which: str, steps: list[Step]) -> None:
    run_quiet(steps, TIGHT[which])


def random_steps(kinds: list[str], seed: int, count: int) -> list[Step]:
    draw = random.Random(seed)
    return [(draw.choice(kinds), draw.choice(sorted(MARKET)), draw.randrange(100)) for _ in range(count)]


@pytest.mark.parametrize("which", sorted(TIGHT))
@pytest.mark.parametrize("seed", range(3))
def test_long_interleavings(which: str, seed: int) -> None:
    book = run_quiet(random_steps(QUIET, seed, 400), TIGHT[which])
    assert any(symbol.lots for symbol in book.symbols.values()), "a run without positions proves nothing"


# --- prices, limits, found positions: what no bound can prevent trips; nothing else grows ---------------


def run_wild(steps: list[Step], given: PortfolioLimits) -> Book:
    book = Book(given)
    for step in steps:
        before = len(book.log)
        granted = {name: book.machine.shares[key(name)].granted for name in book.symbols}
        act(book, step)
        for _, _, actions in book.log[before:]:
            check_raises(book, actions, granted)
        check_breaches(book)
    for name in sorted(book.symbols):
        book.outbox.append(book.now(name))
    book.settle()
    book.check_settled()
    check_breaches(book)
    return book


def check_raises(book: Book, actions: list[PortfolioAction], granted: dict[str, int]) -> None:
    """Whoever gets more fits, with everybody else at worst, into every total; while one is blind nobody gets any."""
    for action in actions:
        if not isinstance(action, GrantBounds):
            continue
        assert -action.min_lots == action.max_lots >= 0
        name = action.key.partition("/")[2]
        if action.max_lots <= max(granted.get(name, 0), abs(book.symbols[name].lots)):
            continue
        assert not any(share.missing for share in book.machine.shares.values())
        for total in every_total(book.given):
            if name in total.names:
                worst = book.worst_of(total, instead={name: action.max_lots})
                assert worst <= total.limit * (1 + EPSILON), f"{total.name} grew to {worst} of {total.limit}"


def check_breaches(book: Book) -> None:
    """A total that positions pass has tripped; what can be valued again is no trip any more."""
    held = book.machine.held
    for total in every_total(book.given):
        if book.held_of(total) > total.limit * (1 + 2 * EPSILON):
            exchange = total.name.partition(" on ")[2]
            assert (Switch.EXPOSURE, exchange) in held, f"{total.name} is passed and nothing tripped"
    if not any(share.missing for share in [*book.machine.shares.values(), *book.machine.left_behind.values()]):
        assert (Switch.VALUATION, "") not in held, "everything can be valued again"


# A first price without an index: what it tells of the mark counts all the same.
NO_INDEX = [("join", "F", 0), ("price", "C", 59), ("total", "C", 0), ("blind", "F", 2)]
# And the other way round: a mark that is missing moves no coins.
NO_MARK = [
    ("join", "F", 0),
    ("price", "C", 0),
    ("deliver", "C", 0),
    ("total", "C", 0),
    ("blind", "F", 1),
    ("total", "C", 1),
]


@QUICK
@example(which="all tight", steps=NO_INDEX)
@example(which="all tight", steps=NO_MARK)
@given(which=EVERY, steps=traces(WILD, 80))
def test_nothing_grows_past_a_total(which: str, steps: list[Step]) -> None:
    run_wild(steps, TIGHT[which])


@pytest.mark.slow
@MANY
@given(which=EVERY, steps=traces(WILD, 60))
def test_nothing_grows_past_a_total_in_many_runs(which: str, steps: list[Step]) -> None:
    run_wild(steps, TIGHT[which])


@pytest.mark.parametrize("which", sorted(TIGHT))
def test_long_wild_runs(which: str) -> None:
    books = [run_wild(random_steps(WILD, seed, 600), TIGHT[which]) for seed in range(3)]
    grants = sum(isinstance(each, GrantBounds) for book in books for _, _, out in book.log for each in out)
    assert grants > 200, "a run in which nothing moves proves nothing"
    assert any(book.trips for book in books), "nor does one in which nothing trips"


@QUICK
@example(which="all tight", steps=NO_INDEX)
@example(which="all tight", steps=NO_MARK)
@given(which=EVERY, steps=traces(WILD, 80))
def test_the_same_events_do_the_same(which: str, steps: list[Step]) -> None:
    book = run_wild(steps, TIGHT[which])
    replay(book.log, TIGHT[which])
