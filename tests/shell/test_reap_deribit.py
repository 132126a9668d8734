"""The reaper's errand at one exchange: on mock time, against the sandbox's own engine over memory streams."""

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing

from mmd.exchanges.api import MARGIN_SECONDS, UNLIMITED_SECONDS, settle_seconds
from mmd.exchanges.deribit.reaping import ANSWER_SECONDS, DeribitReaper
from mmd.exchanges.reap import ARRIVE_SECONDS
from mmd.sandbox.deribit.dialect import Dialect
from mmd.sandbox.limits import Budget, Budgets
from mmd.sandbox.markets import generated_market
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Order
from mmd.sandbox.serve import Sandbox, SandboxOptions

START_NS = 1_798_700_000_000_000_000
ACCOUNT = "maker"
SYMBOLS = {"BTC-PERPETUAL": Decimal(10), "ETH-PERPETUAL": Decimal(1), "BTC_USDC-PERPETUAL": Decimal("0.01")}
BTC = "BTC-PERPETUAL"
SETTLE = 2.5
LOOKING = {"public/auth", "public/set_heartbeat", "private/get_open_orders"}


def wall_clock_ns() -> int:
    return START_NS + int(trio.current_time() * 1e9)


class Graveyard:
    """A sandbox with what a dead daemon left there, and a reaper."""

    def __init__(self, nursery: trio.Nursery, budgets: Budgets | None = None) -> None:
        self.nursery = nursery
        market = generated_market(3, now_ms=START_NS // 1_000_000)
        options = SandboxOptions(seed=3) if budgets is None else SandboxOptions(seed=3, budgets=budgets)
        self.sandbox = Sandbox(market, options, wall_clock_ns=wall_clock_ns)
        self.levers = self.sandbox.levers
        self.count = 0
        self.reaper = self.make()

    def make(self, **changes: Any) -> DeribitReaper:
        values: dict[str, Any] = {
            "name": "deribit",
            "network": "memory",
            "service": "svc",
            "dial": self.sandbox.connect,
            "host": "sandbox",
            "path": "/ws/api/v2",
            "client_id": ACCOUNT,
            "client_secret": "s",
            "grant": "client_signature",
            "wall_clock_ns": wall_clock_ns,
            "rng": random.Random(1),
            "order_valid_ms": 2000,
            "settled": False,
        }
        self.reaper = DeribitReaper(**(values | changes))
        return self.reaper

    async def start(self) -> None:
        await self.nursery.start(self.sandbox.run)
        await trio.sleep(1)

    def leave(self, label: str = "", symbol: str = BTC) -> str:
        """An order far below the market; its id."""
        self.count += 1
        mark = self.sandbox.engine.floor.listing(symbol).reference
        assert mark is not None
        price = (mark.mark_price * Decimal("0.97")).to_integral_value() - self.count
        label = label or f"mmd-svc-{symbol}-b-abc-{self.count}"
        return self.levers.foreign_order(ACCOUNT, symbol, Direction.BUY, SYMBOLS[symbol], price, label).order_id

    def resting(self) -> set[str]:
        return {order.order_id for order in self.levers.open_orders(ACCOUNT)}

    def closed(self, number: str) -> Order:
        return next(order for order in self.levers.closed_orders(ACCOUNT) if order.order_id == number)

    async def reap(self, seconds: float = 20, *, only_look: bool = False) -> float:
        """How long it took; the time limit is that of the caller, as in the program."""
        began = trio.current_time()
        with trio.move_on_after(seconds):
            await self.reaper.reap(only_look=only_look)
        return trio.current_time() - began

    def counts(self) -> tuple[int | None, int, int, int, int | None, bool]:
        """before, later, cancelled, gone, after, proven"""
        told = self.reaper.progress
        outcomes = [str(order.outcome) for order in told.orders]
        return (
            told.before,
            told.later,
            outcomes.count("cancelled"),
            outcomes.count("gone"),
            told.after,
            told.proven,
        )


@pytest.fixture
async def yard(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Graveyard:
    yard = Graveyard(nursery)
    await yard.start()
    return yard


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every method that was called, in order."""
    methods: list[str] = []
    carry_out = Dialect.run

    def run(self: Dialect, link: Any, request: Any, *rest: Any) -> Any:
        methods.append(request.method)
        return carry_out(self, link, request, *rest)

    monkeypatch.setattr(Dialect, "run", run)
    return methods


async def test_ours_are_cancelled_in_every_currency_and_nobody_elses(yard: Graveyard) -> None:
    ours = {yard.leave(symbol=symbol) for symbol in SYMBOLS}
    foreign = {yard.leave(label) for label in ("by hand", "mmd-other-BTC-PERPETUAL-b-abc-1", "mmd-svc2-X-b-1-1")}
    unlabelled = yard.levers.foreign_order(ACCOUNT, BTC, Direction.BUY, Decimal(10), Decimal(10_000)).order_id
    assert yard.resting() == ours | foreign | {unlabelled}
    took = await yard.reap()
    assert yard.resting() == foreign | {unlabelled}
    assert yard.counts() == (3, 0, 3, 0, 0, True)
    assert {order.order_id for order in yard.reaper.progress.orders} == ours
    assert {order.symbol for order in yard.reaper.progress.orders} == set(SYMBOLS)
    assert yard.reaper.progress.errors == []
    assert yard.reaper.progress.account == ACCOUNT
    assert SETTLE <= took < SETTLE + 1


async def test_an_empty_account_is_proven_only_after_the_worst_case(yard: Graveyard) -> None:
    assert SETTLE <= await yard.reap() < SETTLE + 1
    assert yard.counts() == (0, 0, 0, 0, 0, True)
    yard.make(settled=True)
    assert await yard.reap() < 1
    assert yard.counts() == (0, 0, 0, 0, 0, True)


@pytest.mark.parametrize(
    ("valid_ms", "seconds"),
    [
        pytest.param(2000, 2.0 + MARGIN_SECONDS, id="the time that requests are valid, and a margin"),
        pytest.param(100, 0.1 + MARGIN_SECONDS, id="shorter"),
        pytest.param(600_000, 600.5, id="longer"),
        pytest.param(None, UNLIMITED_SECONDS, id="no limit"),
    ],
)
def test_the_worst_case(valid_ms: int | None, seconds: float) -> None:
    assert settle_seconds(valid_ms) == pytest.approx(seconds)


async def test_an_order_that_was_under_way_is_caught(yard: Graveyard) -> None:
    yard.leave()
    yard.nursery.start_soon(arrive_later, yard, SETTLE - 0.2)
    await yard.reap()
    assert yard.resting() == set()
    assert yard.counts() == (1, 1, 2, 0, 0, True)


async def arrive_later(yard: Graveyard, seconds: float) -> None:
    await trio.sleep(seconds)
    yard.leave()


async def test_looking_only_asks_and_changes_nothing(yard: Graveyard, asked: list[str]) -> None:
    ours = {yard.leave(), yard.leave()}
    assert await yard.reap(only_look=True) < 1
    assert yard.resting() == ours
    assert yard.counts() == (2, 0, 0, 0, 2, False)
    assert set(asked) == LOOKING


async def test_only_cancels_by_id_are_sent_and_no_setting_is_touched(yard: Graveyard, asked: list[str]) -> None:
    yard.leave()
    yard.leave("by hand")
    await yard.reap()
    assert set(asked) == LOOKING | {"private/cancel"}
    assert asked.count("private/cancel") == 1


@pytest.mark.parametrize("refusals", [1, 5])
async def test_refused_cancels_are_tried_again(yard: Graveyard, refusals: int) -> None:
    yard.leave()
    yard.leave()
    yard.levers.refuse_cancels(refusals)
    await yard.reap()
    assert yard.counts() == (2, 0, 2, 0, 0, True)
    assert any("book_closed" in error for error in yard.reaper.progress.errors)


async def test_what_cannot_be_cancelled_is_never_proven(yard: Graveyard, asked: list[str]) -> None:
    number = yard.leave()
    yard.levers.refuse_cancels()
    assert await yard.reap(20) == pytest.approx(20, abs=0.1)
    assert yard.resting() == {number}
    before, later, cancelled, gone, after, proven = yard.counts()
    assert (before, later, cancelled, gone, proven) == (1, 0, 0, 0, False)
    assert after in (1, None)
    assert [str(order.outcome) for order in yard.reaper.progress.orders] == ["left"]
    assert len(yard.reaper.progress.errors) == 1  # said once
    assert 4 <= asked.count("private/cancel") <= 15  # tried again and again, with growing pauses


async def test_an_order_filled_before_its_cancel_is_no_error(yard: Graveyard) -> None:
    number = yard.leave()
    yard.levers.fill_before_cancels(1)
    await yard.reap()
    assert yard.counts() == (1, 0, 0, 1, 0, True)
    assert yard.reaper.progress.errors == []
    assert yard.closed(number).state == "filled"


async def test_a_lost_answer_is_looked_up(yard: Graveyard) -> None:
    yard.leave()
    yard.levers.lose_answers(1, "private/cancel")
    took = await yard.reap()
    assert yard.counts() == (1, 0, 0, 1, 0, True)
    assert any("no answer" in error for error in yard.reaper.progress.errors)
    assert took > ANSWER_SECONDS


async def test_a_cancel_that_never_arrived_is_sent_again(yard: Graveyard) -> None:
    yard.leave()
    yard.levers.lose_requests(1, "private/cancel")
    await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)


def cut_after_one_cancel(yard: Graveyard) -> None:
    yard.sandbox.faults.cut_answers(1, "private/cancel")


def cut_at_the_list(yard: Graveyard) -> None:
    yard.sandbox.faults.cut_answers(1, "private/get_open_orders")


def cut_login(yard: Graveyard) -> None:
    yard.levers.cut_logins(2)


def lose_the_list(yard: Graveyard) -> None:
    yard.levers.lose_answers(1, "private/get_open_orders")


def lose_the_login(yard: Graveyard) -> None:
    yard.levers.lose_answers(1, "public/auth")


def no_door_for_a_while(yard: Graveyard) -> None:
    yard.levers.refuse_connections(3)


def maintenance(yard: Graveyard) -> None:
    yard.levers.begin_maintenance()
    yard.nursery.start_soon(end_maintenance, yard)


async def end_maintenance(yard: Graveyard) -> None:
    await trio.sleep(4)
    yard.levers.end_maintenance()


@pytest.mark.parametrize(
    "trouble",
    [
        cut_after_one_cancel,
        cut_at_the_list,
        cut_login,
        lose_the_list,
        lose_the_login,
        no_door_for_a_while,
        maintenance,
    ],
)
async def test_trouble_on_the_way_is_overcome(yard: Graveyard, trouble: Callable[[Graveyard], None]) -> None:
    for _ in range(4):
        yard.leave()
    foreign = yard.leave("by hand")
    trouble(yard)
    await yard.reap()
    assert yard.resting() == {foreign}
    before, _, cancelled, gone, after, proven = yard.counts()
    assert (before, cancelled + gone, after, proven) == (4, 4, 0, True)
    assert yard.reaper.progress.errors


async def test_a_link_that_goes_silent_is_left_for_another(yard: Graveyard) -> None:
    yard.leave()

    async def stall() -> None:
        await trio.sleep(0.5)
        assert yard.levers.stall_connections(ACCOUNT) == 1

    yard.nursery.start_soon(stall)
    took = await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)
    assert SETTLE + ANSWER_SECONDS <= took < SETTLE + ANSWER_SECONDS + ARRIVE_SECONDS


async def test_nobody_there_is_no_proof(yard: Graveyard) -> None:
    number = yard.leave()
    yard.levers.refuse_connections()
    assert await yard.reap(20) == pytest.approx(20, abs=0.1)
    assert yard.counts() == (None, 0, 0, 0, None, False)
    assert yard.resting() == {number}
    assert yard.reaper.progress.errors


async def test_a_dial_that_hangs_is_given_up_for_another(yard: Graveyard) -> None:
    yard.leave()
    dials = 0

    async def dial() -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        if dials == 1:
            await trio.sleep_forever()
        return await yard.sandbox.connect()

    yard.make(dial=dial)
    took = await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)
    assert took > ARRIVE_SECONDS
    assert yard.reaper.progress.errors == [f"not logged in within {ARRIVE_SECONDS:g} s"]


async def test_a_key_that_is_refused_ends_it_at_once(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    yard = Graveyard(nursery)
    await yard.start()
    yard.levers.refuse_orders(None, 13004, "invalid_credentials", "public/auth")
    assert await yard.reap() < 1
    assert yard.reaper.progress.refused
    assert yard.counts() == (None, 0, 0, 0, None, False)
    assert len(yard.reaper.progress.errors) == 1 and "invalid_credentials" in yard.reaper.progress.errors[0]


@pytest.mark.parametrize(
    ("rate", "burst", "seconds"),
    [
        pytest.param(5, 20, (8, 20), id="the lowest tier: 60 orders need their time"),
        pytest.param(30, 100, (SETTLE, SETTLE + 1), id="the highest tier"),
    ],
)
async def test_many_orders_stay_within_the_message_rate(
    rate: float,
    burst: float,
    seconds: tuple[float, float],
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
) -> None:
    yard = Graveyard(nursery, Budgets(matching=Budget(rate, burst), cancel_all=Budget(rate, burst), closes=True))
    await yard.start()
    for _ in range(60):
        yard.leave()
    took = await yard.reap(60)
    assert yard.counts() == (60, 0, 60, 0, 0, True)
    assert yard.reaper.progress.errors == []
    assert seconds[0] <= took <= seconds[1]


async def test_used_up_credits_only_cost_time(yard: Graveyard) -> None:
    for _ in range(3):
        yard.leave()
    yard.levers.refuse_orders(1, 10028, "too_many_requests", "private/cancel")
    await yard.reap()
    assert yard.counts() == (3, 0, 3, 0, 0, True)
    assert any("too_many_requests" in error for error in yard.reaper.progress.errors)


async def test_two_reapers_at_once_do_no_harm(yard: Graveyard) -> None:
    for _ in range(5):
        yard.leave()
    first, second = yard.reaper, yard.make(rng=random.Random(2))
    async with trio.open_nursery() as both:
        run: list[Callable[..., Awaitable[None]]] = [first.reap, second.reap]
        for reap in run:
            both.start_soon(lambda reap=reap: reap(only_look=False))
    assert yard.resting() == set()
    assert first.progress.proven and second.progress.proven
    assert first.progress.errors == second.progress.errors == []
