"""A restored machine is the saved one's twin: the same actions for ever after, and the same bytes in the end."""

from collections import Counter

import pytest
from core_kit import START_NS
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from memory_kit import SETUPS, STEPS, Step, Wild, drawn, driven, outcome, unhandled
from portfolio_kit import MARKET, Book
from test_machine_model import SETUPS as SCENES
from test_machine_model import STEPS as SCENE_STEPS
from test_machine_model import Scene
from test_portfolio_properties import TIGHT, WILD, act, random_steps

from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.domain import events as ev
from mmd.domain.reasons import Phase, State
from mmd.domain.settings import KillSwitches
from mmd.replay.memory import load, save

FEW = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = hypothesis_settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
numbers = st.integers(0, 99)
histories = st.lists(
    st.tuples(st.sampled_from([*STEPS, "restart", "removal"]), numbers, numbers), min_size=1, max_size=60
)
futures = st.lists(st.tuples(st.sampled_from(STEPS), numbers, numbers), min_size=1, max_size=40)


def symbol_of(data: bytes) -> SymbolMachine:
    machine = load(data)
    assert isinstance(machine, SymbolMachine)
    return machine


def portfolio_of(data: bytes) -> PortfolioMachine:
    machine = load(data)
    assert isinstance(machine, PortfolioMachine)
    return machine


# --- one symbol ---------------------------------------------------------------------------------------


def follow(wild: Wild, future: list[Step]) -> None:
    """Save, load, go on with both."""
    data = save(wild.machine)
    twin = symbol_of(data)
    assert save(twin) == data
    assert save(wild.machine) == data, "saving changes nothing"
    before = len(wild.log)
    wild.run(future)
    for events, now_ns, expected in wild.log[before:]:
        assert outcome(twin, events, now_ns) == expected
    assert twin.snapshot() == wild.machine.snapshot()
    assert save(twin) == save(wild.machine)


@FEW
@given(setup=st.sampled_from(sorted(SETUPS)), history=histories, future=futures)
def test_a_restored_machine_decides_the_same(setup: str, history: list[Step], future: list[Step]) -> None:
    wild = Wild(setup)
    wild.run(history)
    follow(wild, future)


@pytest.mark.slow
@MANY
@given(setup=st.sampled_from(sorted(SETUPS)), history=histories, future=futures)
def test_many_restored_machines_decide_the_same(setup: str, history: list[Step], future: list[Step]) -> None:
    wild = Wild(setup)
    wild.run(history)
    follow(wild, future)


@pytest.mark.parametrize("setup", sorted(SETUPS))
@pytest.mark.parametrize("seed", range(3))
def test_a_long_life_with_a_copy_at_every_turn(setup: str, seed: int) -> None:
    """Saved and restored again after every few steps: errors would add up."""
    wild = Wild(setup)
    twin = symbol_of(save(wild.machine))
    at = len(wild.log)
    for n, step in enumerate(drawn(seed, 300)):
        wild.run([step])
        for events, now_ns, expected in wild.log[at:]:
            assert outcome(twin, events, now_ns) == expected, step
        at = len(wild.log)
        if n % 7 == 0:
            data = save(wild.machine)
            assert save(twin) == data
            twin = symbol_of(data)


@pytest.mark.parametrize("setup", sorted(SCENES))
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_goes_on_at_the_exchange(setup: str, seed: int) -> None:
    """The core's own model, with a gate that looks and an exchange that answers."""
    scene = Scene(setup)
    steps = [step for step in random_scene(seed, 400) if step[0] != "restart"]
    scene.run(steps[:200])
    twin, rig = symbol_of(save(scene.rig.machine)), scene.rig
    before = len(rig.log)
    scene.run(steps[200:])
    assert len(rig.log) > before + 50
    for (now_ns, batch), expected in zip(rig.log[before:], rig.answers[before:], strict=True):
        assert twin.handle(batch, now_ns) == expected
    assert save(twin) == save(rig.machine)


def random_scene(seed: int, count: int) -> list[Step]:
    return [(SCENE_STEPS[a * b % len(SCENE_STEPS)], a, b) for _, a, b in drawn(seed, count)]


def test_what_was_inherited_is_in_the_copy() -> None:
    """Labels of an earlier life's orders are in a set; whoever iterates over it must get what it had."""
    wild = Wild("plain")
    wild.run([("answer_all", 0, 0), ("filled", 0, 1), ("restart", 1, 3)])
    assert len(wild.machine.heirlooms) == 2 and wild.machine.heir
    assert wild.machine.position.instrument != wild.machine.instrument
    twin = symbol_of(save(wild.machine))
    assert (twin.heirlooms, twin.heir) == (wild.machine.heirlooms, True)
    assert twin.position.instrument == wild.machine.position.instrument
    assert twin.market.instrument is twin.instrument
    follow(wild, drawn(5, 60))


def test_the_histories_reach_every_corner() -> None:
    """A property over histories in which nothing happens would prove nothing."""
    seen: Counter[str] = Counter()

    def look(wild: Wild) -> None:
        machine, position, market = wild.machine, wild.machine.position, wild.machine.market
        sides = machine.own.every()
        seen.update(state.slot.phase for state in sides)
        seen[f"state {machine.state}"] += 1
        corners = {
            "strays": machine.own.strays,
            "finished": machine.own._finished,
            "told": any(state.told for state in sides),
            "owed": any(state.owed for state in sides),
            "ghost": any(state.ghost_ns for state in sides),
            "trail": any(len(state.trail) > 1 for state in sides),
            "closing": machine.closing,
            "drift": machine.drift is not None,
            "cases": machine.cases,
            "doubts": machine.doubts,
            "held": machine.held,
            "refusal": machine.refusal,
            "volatility": machine.volatility.ready,
            "rejects": machine.rejects._events,
            "fills": machine.fills._events,
            "timeouts": machine.timeouts._events,
            "vanished": machine.vanished._events,
            "drifts": machine.drifts._parts,
            "position": position.lots,
            "both sides of an id": any(len(sides) == 2 for sides in position._seen.values()),
            "entries": position._entries,
            "foreign fees": position.foreign_fees,
            "foreign cash": position.foreign_cash,
            "variation": position.variation,
            "pessimistic": machine.imagined.pessimistic.fills,
            "optimistic": machine.imagined.optimistic.fills,
            "book trouble": market.book_trouble,
            "jump": market.jump,
            "last trade": market.last_trade,
            "differs": market.differs_ns,
            "behind": market.behind_ns,
            "ticker touch": market.ticker_touch,
            "vol collar": market._vol_collar != (0.0, 0.0),
        }
        for corner, there in corners.items():
            seen[corner] += bool(there)

    for seed, setup in enumerate([*SETUPS, *SETUPS]):
        driven(setup, seed, 400, look)
    states = [f"state {state}" for state in (State.PAUSED, State.ACTIVE, State.HALTED)]
    assert [corner for corner in [*Phase, *states] if not seen[corner]] == []
    assert [corner for corner, count in seen.items() if not count] == []


def test_the_histories_have_every_event() -> None:
    assert unhandled() == set()


def test_a_machine_that_is_gone_stays_gone() -> None:
    wild = Wild("plain")
    wild.run([("answer_all", 0, 0), ("removal", 0, 0), ("answer_all", 0, 0)])
    assert wild.machine.state is State.GONE
    follow(wild, drawn(2, 30))


# --- the portfolio ------------------------------------------------------------------------------------


def steps_of(longest: int) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    one = st.tuples(st.sampled_from(WILD), st.sampled_from(sorted(MARKET)), numbers)
    return st.lists(one, min_size=5, max_size=longest)


def follow_book(book: Book, future: list[tuple[str, str, int]]) -> None:
    data = save(book.machine)
    twin = portfolio_of(data)
    assert save(twin) == data
    before = len(book.log)
    for n, step in enumerate(future):
        act(book, step)
        if n % 5 == 0:
            book.machine.uses({}), book.machine.totals()  # looks: they may fill what is made anew
    for events, now_ns, expected in book.log[before:]:
        assert twin.handle(events, now_ns) == expected
    assert twin.totals() == book.machine.totals()
    assert twin.uses({}) == book.machine.uses({})
    assert twin.carried() == book.machine.carried()
    assert save(twin) == save(book.machine)


@FEW
@given(which=st.sampled_from(sorted(TIGHT)), history=steps_of(80), future=steps_of(50))
def test_a_restored_portfolio_decides_the_same(which: str, history: list, future: list) -> None:
    book = Book(TIGHT[which])
    for step in history:
        act(book, step)
    follow_book(book, future)


@pytest.mark.slow
@MANY
@given(which=st.sampled_from(sorted(TIGHT)), history=steps_of(80), future=steps_of(50))
def test_many_restored_portfolios_decide_the_same(which: str, history: list, future: list) -> None:
    book = Book(TIGHT[which])
    for step in history:
        act(book, step)
    follow_book(book, future)


@pytest.mark.parametrize("which", sorted(TIGHT))
def test_a_long_life_of_a_portfolio(which: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(3):
        book = Book(TIGHT[which])
        for step in random_steps(WILD, seed, 300):
            act(book, step)
            seen["left behind"] += bool(book.machine.left_behind)
            seen["held"] += bool(book.machine.held)
            seen["blind"] += bool(book.machine._blind_since_ns)
        follow_book(book, random_steps(WILD, seed + 50, 300))
    assert min(seen["left behind"], seen["blind"]) > 0, seen
    assert seen["held"] > 0 or which == "room for all"


def test_a_look_changes_no_state() -> None:
    """The totals are listed before anything was divided: the rooms are made early, and are no state."""
    machine = PortfolioMachine(TIGHT["all tight"], KillSwitches(), START_NS)
    data = save(machine)
    assert machine.uses({}) and machine._rooms
    assert save(machine) == data
    wild = Wild("option")
    wild.run([("ticker", 50, 51), ("answer_all", 0, 0)])
    data = save(wild.machine)
    assert wild.machine.market.vol_collar(7.0) != (0.0, 0.0)
    assert save(wild.machine) == data
    assert symbol_of(data).market.vol_collar(7.0) == wild.machine.market.vol_collar(7.0)


def test_the_next_event_is_all_that_counts() -> None:
    """What the last batch was answered with is out of the house."""
    wild = Wild("plain")
    data = save(wild.machine)
    assert wild.machine.handle([ev.PauseRequested(9, "root", "", wild.now_ns)], wild.now_ns)
    twin = symbol_of(save(wild.machine))
    assert twin._out == [] and wild.machine._out != []
    assert save(twin) == save(wild.machine) != data
