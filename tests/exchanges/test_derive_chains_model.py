"""A label's orders on Derive are one: whatever races, is lost, fails half, ends by itself, or comes late.

The session's own trade link and the machine's own table of orders, before a small exchange in memory. After every
step all that may still fill is charged, and nothing is believed twice; in the end what is believed is what is there.
"""

import random

import trio
import trio.testing
from derive_world import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.core.orders import Empty, Live, Unknown

STEPS = {
    "flow": 12,
    "place": 6,
    "amend": 8,
    "cancel": 2,
    "carry_out": 8,
    "hear_answer": 6,
    "hear_orders": 6,
    "hear_trades": 4,
    "fill": 5,
    "fill_up": 1,
    "expire": 1,
    "pull": 1,
    "remove": 1,
    "fail": 2,
    "mistake": 1,
    "repeat": 1,
    "give_up": 2,
    "ask": 2,
    "audit": 1,
    "wait": 2,
    "cut": 1,
    "restart": 1,
    "late": 1,
    "stale": 1,
}
NAMES = [name for name, weight in STEPS.items() for _ in range(weight)]


class Player:
    """One story: steps that cannot be done now are left out."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def step(self, name: str, a: int, b: int) -> None:
        world = self.world
        await getattr(self, f"do_{name}")(a, b)
        await trio.testing.wait_all_tasks_blocked()
        world.check()

    async def do_place(self, a: int, b: int) -> None:
        if isinstance(self.world.bid.slot, Empty) and not self.world.own.strays:
            self.world.place(300_000 + a, 100 + b)

    async def do_amend(self, a: int, b: int) -> None:
        if isinstance(self.world.bid.slot, Live):
            self.world.amend(300_000 + a, 100 + b)

    async def do_cancel(self, a: int, b: int) -> None:
        states = [state for state in self.world.own.every() if isinstance(state.slot, Live)]
        if states:
            self.world.cancel(states[a % len(states)])

    async def do_carry_out(self, a: int, b: int) -> None:
        if self.world.wire.requests:
            self.world.carry_out()

    async def do_flow(self, a: int, b: int) -> None:
        """All that is on its way arrives, in one of the orders in which it can."""
        world = self.world
        kinds = ["answer", "orders", "trades"]
        kinds = kinds[a % 3 :] + kinds[: a % 3]
        for kind in ["requests", *(kinds if b % 2 else kinds[::-1])]:
            queue = {
                "requests": world.wire.requests,
                "answer": world.wire.answers,
                "orders": world.engine.tell_orders,
                "trades": world.engine.tell_trades,
            }[kind]
            while queue:
                if kind == "requests":
                    world.carry_out()
                elif kind == "answer":
                    world.hear_answer()
                else:
                    world.hear(kind)
                world.check()

    async def do_stale(self, a: int, b: int) -> None:
        if self.world.stale:
            self.world.carry_out_stale()

    async def do_hear_answer(self, a: int, b: int) -> None:
        if self.world.wire.answers:
            self.world.hear_answer()

    async def do_hear_orders(self, a: int, b: int) -> None:
        if self.world.engine.tell_orders:
            self.world.hear("orders")

    async def do_hear_trades(self, a: int, b: int) -> None:
        if self.world.engine.tell_trades:
            self.world.hear("trades")

    async def do_fill(self, a: int, b: int) -> None:
        for row in self.world.engine.open()[:1]:
            self.world.engine.fill(row, 1 + a)

    async def do_fill_up(self, a: int, b: int) -> None:
        for row in self.world.engine.open()[:1]:
            self.world.engine.fill(row, 10_000)

    async def do_expire(self, a: int, b: int) -> None:
        for row in self.world.engine.open()[:1]:
            self.world.engine.end(row, "expired", "")

    async def do_pull(self, a: int, b: int) -> None:
        for row in self.world.engine.open()[:1]:
            self.world.engine.end(row, "cancelled", "mmp_trigger")

    async def do_remove(self, a: int, b: int) -> None:
        """Somebody else cancels it."""
        for row in self.world.engine.open()[:1]:
            self.world.engine.end(row)

    async def do_fail(self, a: int, b: int) -> None:
        self.world.engine.failing.append((11008, 11000, 9000, -32603)[a % 4])

    async def do_mistake(self, a: int, b: int) -> None:
        """What became of the next request is not known there either, and it was carried out."""
        self.world.engine.mistaken.append((9000, 9001, -32603)[a % 3])

    async def do_repeat(self, a: int, b: int) -> None:
        """Something is told again, as it was."""
        engine = self.world.engine
        queue = (engine.tell_orders, engine.tell_trades)[a % 2]
        if queue:
            queue.append(dict(queue[b % len(queue)]))

    async def do_give_up(self, a: int, b: int) -> None:
        self.world.give_up_answers()

    async def do_ask(self, a: int, b: int) -> None:
        self.world.ask()

    async def do_audit(self, a: int, b: int) -> None:
        await self.world.audit()

    async def do_wait(self, a: int, b: int) -> None:
        await trio.sleep(0.1 * (1 + a))

    async def do_late(self, a: int, b: int) -> None:
        """The newest trades are not listed yet, or all are."""
        self.world.engine.late_trades = a % 3

    async def do_cut(self, a: int, b: int) -> None:
        self.world.cut()

    async def do_restart(self, a: int, b: int) -> None:
        self.world.restart()


stories = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 20), st.integers(0, 20)), min_size=5, max_size=60)


async def play(story: list[tuple[str, int, int]]) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        player = Player(world)
        for step in story:
            await player.step(*step)
        await world.come_to_rest()
        world.agree()
        nursery.cancel_scope.cancel()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(stories)
def test_all_that_may_fill_is_charged_and_all_is_found_again(story: list[tuple[str, int, int]]) -> None:
    trio.run(play, story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_long_stories() -> None:
    """Of which most steps can be done: a chain grows long, and is cut, restarted and lost with fills in it."""
    for seed in range(600):
        rng = random.Random(seed)
        story = [(rng.choice(NAMES), rng.randrange(21), rng.randrange(21)) for _ in range(rng.randrange(5, 90))]
        trio.run(play, story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_unknown_is_a_phase_that_stories_reach() -> None:
    """The stories above would prove nothing if answers were never lost."""

    async def lose() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            world.place(300_000, 100)
            world.carry_out()
            world.give_up_answers()
            assert isinstance(world.bid.slot, Unknown)
            await world.come_to_rest()
            world.agree()
            assert isinstance(world.bid.slot, Live)
            nursery.cancel_scope.cancel()

    trio.run(lose, clock=trio.testing.MockClock(autojump_threshold=0))
