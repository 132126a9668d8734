"""The machine behind its gate against a fake exchange that is late, lossy and fills at will.

The oracle reads the exchange's own books: one order a side, worst case inside the bounds, no
order that the machine does not know, nothing left after a stop; and the log replays bit by bit.
"""

import random
from typing import Any

import pytest
from core_exchange import Rig
from core_kit import INVERSE, LINEAR, OPTION, PLAIN, book, changed, settings, ticker
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mmd.domain import events as ev
from mmd.domain.reasons import CaseKind, Fault, State, Why
from mmd.domain.settings import Fair, Requote, Style

SETUPS = {
    "plain": (PLAIN, settings(limits={"max_position": 30}), 1000),
    "replace": (
        PLAIN,
        settings(style=Style.IMPROVE, requote=Requote.REPLACE, skew_bps=20.0, limits={"max_position": 15}),
        1000,
    ),
    "inverse": (
        INVERSE,
        settings(
            size=100, fair=Fair.MICROPRICE, tolerance_bps=0.0, limits={"max_position": 300, "max_order_size": 500}
        ),
        60_000,
    ),
    "option": (OPTION, settings(size=1, style=Style.JOIN, spread_bps=500.0, limits={"max_position": 3}), 200),
    "linear": (LINEAR, settings(size=1, skew_bps=50.0, limits={"max_position": 5}, data={"auto_resume": True}), 40_000),
}
FAULTS = [Fault.ORDER, Fault.RATE_LIMIT, Fault.STATE, Fault.CONFIG]
# How often each step is drawn: mostly trading, now and then trouble.
WEIGHTS = {
    "market": 12,
    "answer_all": 10,
    "process": 8,
    "deliver": 8,
    "somebody_trades": 12,
    "wait": 8,
    "back_to_work": 5,
    "mark": 2,
    "lose_request": 2,
    "lose_answer": 2,
    "repeat_answer": 2,
    "one_sided": 1,
    "broken": 1,
    "expelled": 2,
    "will_refuse": 2,
    "reconnect": 2,
    "restart": 1,
    "bounds": 3,
    "settings_change": 2,
    "operator": 1,
}
STEPS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
Step = tuple[str, int, int]


class Scene:
    """The steps; every one takes two numbers below 100 and makes of them what it needs."""

    last_mark = 0.0  # by the last ticker; 0.0 = there was none

    def __init__(self, setup: str) -> None:
        instrument, self.given, self.centre = SETUPS[setup]
        self.unit = self.centre // 400 + 1  # what counts as a small move here, ticks
        self.rig = Rig(instrument, self.given)
        self.rig.start(self.centre - 5 * self.unit, self.centre + 5 * self.unit)

    def run(self, steps: list[Step]) -> None:
        for name, a, b in steps:
            getattr(self, name)(a, b)
            self.rig.check()

    # --- market ---

    def market(self, a: int, b: int) -> None:
        self.centre = max(60, self.centre + (a - 50) * self.unit // 5)
        width = 1 + b * self.unit // 10
        self.rig.post(book(self.centre - width, self.centre + width, self.rig.now_ns))
        if b % 8:
            self.tick()

    def one_sided(self, a: int, b: int) -> None:
        bid, ask = (self.centre - 5, 0) if a % 2 else (0, self.centre + 5)
        self.rig.post(book(bid, ask, self.rig.now_ns))

    def mark(self, a: int, b: int) -> None:
        self.last_mark = float(self.rig.instrument.grid.price(self.centre)) * (1.0 + (a - 50) / 2000.0)
        self.tick()

    def tick(self) -> None:
        """A ticker soon follows the book, once there has been one at all."""
        if self.last_mark:
            self.rig.post(ticker(self.rig.now_ns, self.last_mark, self.last_mark))

    def broken(self, a: int, b: int) -> None:
        why = Why.BOOK_GAP if a % 2 else Why.BOOK_MALFORMED
        self.rig.post(ev.BookBroken(why, "test", self.rig.now_ns))

    # --- the exchange and its link ---

    def process(self, a: int, b: int) -> None:
        for _ in range(1 + a % 4):
            self.rig.process()

    def deliver(self, a: int, b: int) -> None:
        self.rig.deliver(1 + a % 6)

    def answer_all(self, a: int, b: int) -> None:
        while self.rig.to_exchange or self.rig.to_machine:
            self.rig.process()
            self.rig.deliver(len(self.rig.to_machine))

    def lose_request(self, a: int, b: int) -> None:
        if self.rig.to_exchange:
            self.rig.to_exchange.popleft()

    def lose_answer(self, a: int, b: int) -> None:
        if self.rig.to_machine:
            self.rig.to_machine.popleft()

    def repeat_answer(self, a: int, b: int) -> None:
        if self.rig.to_machine:
            self.rig.to_machine.insert(1, self.rig.to_machine[0])

    def _pick(self, a: int) -> str | None:
        labels = sorted(self.rig.exchange.open)
        return labels[a % len(labels)] if labels else None

    def somebody_trades(self, a: int, b: int) -> None:
        """A part or all; the end of an order may be told before the fill that ended it."""
        label = self._pick(a)
        if label is not None:
            told = self.rig.exchange.fill(label, 1 + b % 12)
            self.rig.tell(*([[event] for event in reversed(told)] if b >= 60 else [told]))

    def expelled(self, a: int, b: int) -> None:
        label = self._pick(a)
        if label is not None:
            self.rig.tell(self.rig.exchange.expel(label))

    def will_refuse(self, a: int, b: int) -> None:
        self.rig.exchange.next_refusal = FAULTS[a % len(FAULTS)]

    def reconnect(self, a: int, b: int) -> None:
        if self.rig.link_up:
            self.rig.disconnect()
        self.rig.wait(a / 20.0)
        if b < 80:
            self.rig.connect()

    def restart(self, a: int, b: int) -> None:
        self.rig.restart()

    # --- people, limits, time ---

    def operator(self, a: int, b: int) -> None:
        kinds: list[Any] = [ev.PauseRequested, ev.ResumeRequested, ev.ResetRequested, ev.HaltRequested]
        kind = kinds[a % len(kinds)]
        self.rig.ask(kind, **({"why": Why.OPERATOR} if kind is ev.HaltRequested else {}))

    def back_to_work(self, a: int, b: int) -> None:
        """What it takes to be ACTIVE again, so that runs do not end in a pause."""
        rig = self.rig
        if not rig.link_up:
            rig.connect()
        rig.settle()
        rig.post(book(self.centre - 4 * self.unit, self.centre + 4 * self.unit, rig.now_ns))
        self.tick()
        lots = rig.machine.position.lots
        if not rig.machine.bounds()[0] <= lots <= rig.machine.bounds()[1]:
            rig.set_bounds(min(-20, lots - 10), max(20, lots + 10))
        rig.ask(ev.ResetRequested)
        rig.ask(ev.ResumeRequested)

    def bounds(self, a: int, b: int) -> None:
        self.rig.set_bounds(-(a // 2), b // 2)

    def settings_change(self, a: int, b: int) -> None:
        old = self.rig.machine.settings
        profile = changed(
            old.profile,
            size=(1 + a % 10) * self.rig.instrument.lot,
            requote=Requote.AMEND if b % 2 else Requote.REPLACE,
            tolerance_bps=(0.0, 1.0, 50.0)[b % 3],
        )
        self.rig.post(ev.SettingsChanged(changed(old, profile=profile), self.rig.now_ns))

    def wait(self, a: int, b: int) -> None:
        self.rig.wait((0.01, 0.3, 1.0, 2.1, 12.0)[a % 5])

    # --- the end ---

    def finish(self, how: int) -> None:
        """Stop in one of three ways; with a responsive exchange nothing may be left."""
        rig = self.rig
        if not rig.link_up:
            rig.connect()
        rig.exchange.next_refusal = None
        match how % 3:
            case 0:
                rig.ask(ev.PauseRequested)
            case 1:
                rig.ask(ev.HaltRequested, why=Why.OPERATOR)
            case _:
                rig.post(ev.RemovalRequested(Why.REMOVED, rig.now_ns))
        rig.settle()
        assert not rig.exchange.open, "orders rest after the stop"
        assert rig.machine.own.resting == 0
        assert rig.machine.state in ((State.PAUSED, State.HALTED, State.GONE)[how % 3], State.HALTED)
        rig.disconnect()
        rig.connect()
        rig.settle()
        off = rig.exchange.position - rig.machine.position.lots
        assert off == 0 or rig.machine.drift == off, "the fold over the fills lost one"
        averages = [subject for subject in rig.machine.cases if subject[0] is CaseKind.AVERAGE]
        assert not averages, "the fold over the fills was out of order"
        rig.replay()


numbers = st.integers(0, 99)
traces = st.lists(st.tuples(st.sampled_from(STEPS), numbers, numbers), min_size=5, max_size=60)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(setup=st.sampled_from(sorted(SETUPS)), steps=traces, how=numbers)
def test_any_trace_keeps_the_promises(setup: str, steps: list[Step], how: int) -> None:
    scene = Scene(setup)
    scene.run(steps)
    scene.finish(how)


@pytest.mark.slow
@hypothesis_settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(setup=st.sampled_from(sorted(SETUPS)), steps=traces, how=numbers)
def test_many_traces_keep_the_promises(setup: str, steps: list[Step], how: int) -> None:
    scene = Scene(setup)
    scene.run(steps)
    scene.finish(how)


def long_run(setup: str, seed: int, count: int) -> Scene:
    draw = random.Random(seed)
    scene = Scene(setup)
    scene.run([(draw.choice(STEPS), draw.randrange(100), draw.randrange(100)) for _ in range(count)])
    return scene


@pytest.mark.parametrize("setup", sorted(SETUPS))
@pytest.mark.parametrize("seed", range(6))
def test_long_run(setup: str, seed: int) -> None:
    scene = long_run(setup, seed, 300)
    assert scene.rig.exchange.made > 10, "a run that never trades proves nothing"
    scene.finish(seed)


@pytest.mark.slow
@pytest.mark.parametrize("setup", sorted(SETUPS))
@pytest.mark.parametrize("seed", range(100, 200))
def test_longer_run(setup: str, seed: int) -> None:
    long_run(setup, seed, 1000).finish(seed)
