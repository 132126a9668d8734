"""The reaper's errand at one exchange, of each dialect: on mock time, against the sandbox's own engine."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from graveyard import YARDS, DeribitYard, DeriveYard, Graveyard, SandboxTransport, wall_clock_ns

from mmd.exchanges.api import MARGIN_SECONDS, UNLIMITED_SECONDS, settle_seconds
from mmd.exchanges.deribit.reaping import ANSWER_SECONDS
from mmd.exchanges.reap import ARRIVE_SECONDS
from mmd.sandbox.answering import Answering
from mmd.sandbox.derive import query_methods
from mmd.sandbox.derive.render_account import order_json

Clock = trio.testing.MockClock
SETTLE = 2.5


@pytest.fixture(params=list(YARDS))
async def yard(request: pytest.FixtureRequest, autojump_clock: Clock, nursery: trio.Nursery) -> Graveyard:
    """Only a clock that the test itself asks for is the clock of its run."""
    yard = YARDS[request.param](nursery)
    await yard.start()
    return yard


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every method that was called, in order."""
    methods: list[str] = []
    carry = Answering.carry

    def watched(self: Answering[Any, Any], link: Any, asked: Any) -> Any:
        methods.append(asked.method)
        return carry(self, link, asked)

    monkeypatch.setattr(Answering, "carry", watched)
    return methods


async def test_ours_are_cancelled_in_every_currency_and_nobody_elses(autojump_clock: Clock, yard: Graveyard) -> None:
    ours = {yard.leave(symbol=symbol) for symbol in yard.symbols}
    foreign = {
        yard.place(label, yard.first)
        for label in ("by hand", f"mmd-other-{yard.first}-b-abc-1", "mmd-svc2-X-b-1-1", "")
    }
    assert yard.resting() == ours | foreign
    took = await yard.reap()
    assert yard.resting() == foreign
    count = len(ours)
    assert yard.counts() == (count, 0, count, 0, 0, True)
    assert {order.order_id for order in yard.reaper.progress.orders} == ours
    assert {order.symbol for order in yard.reaper.progress.orders} == set(yard.symbols)
    assert yard.reaper.progress.errors == []
    assert yard.reaper.progress.account == yard.account
    assert SETTLE <= took < SETTLE + 1


async def test_an_empty_account_is_proven_only_after_the_worst_case(autojump_clock: Clock, yard: Graveyard) -> None:
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


async def test_an_order_that_was_under_way_is_caught(autojump_clock: Clock, yard: Graveyard) -> None:
    yard.leave()
    yard.nursery.start_soon(arrive_later, yard, SETTLE - 0.2)
    await yard.reap()
    assert yard.resting() == set()
    assert yard.counts() == (1, 1, 2, 0, 0, True)


async def arrive_later(yard: Graveyard, seconds: float) -> None:
    await trio.sleep(seconds)
    yard.leave()


async def test_looking_only_asks_and_changes_nothing(autojump_clock: Clock, yard: Graveyard, asked: list[str]) -> None:
    ours = {yard.leave(), yard.leave()}
    assert await yard.reap(only_look=True) < 1
    assert yard.resting() == ours
    assert yard.counts() == (2, 0, 0, 0, 2, False)
    assert set(asked) == yard.looking


async def test_only_cancels_by_id_are_sent_and_no_setting_is_touched(
    autojump_clock: Clock, yard: Graveyard, asked: list[str]
) -> None:
    yard.leave()
    yard.leave("by hand")
    await yard.reap()
    assert set(asked) == yard.looking | {"private/cancel"}
    assert asked.count("private/cancel") == 1


@pytest.mark.parametrize("refusals", [1, 5])
async def test_refused_cancels_are_tried_again(autojump_clock: Clock, yard: Graveyard, refusals: int) -> None:
    yard.leave()
    yard.leave()
    yard.levers.refuse_cancels(refusals)
    await yard.reap()
    assert yard.counts() == (2, 0, 2, 0, 0, True)
    assert any(yard.refused in error for error in yard.reaper.progress.errors)


async def test_what_cannot_be_cancelled_is_never_proven(
    autojump_clock: Clock, yard: Graveyard, asked: list[str]
) -> None:
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


async def test_an_order_filled_before_its_cancel_is_no_error(autojump_clock: Clock, yard: Graveyard) -> None:
    number = yard.leave()
    yard.levers.fill_before_cancels(1)
    await yard.reap()
    assert yard.counts() == (1, 0, 0, 1, 0, True)
    assert yard.reaper.progress.errors == []
    assert yard.closed(number).state == "filled"


async def test_a_lost_answer_is_looked_up(autojump_clock: Clock, yard: Graveyard) -> None:
    yard.leave()
    yard.levers.lose_answers(1, "private/cancel")
    took = await yard.reap()
    assert yard.counts() == (1, 0, 0, 1, 0, True)
    assert any(yard.lost in error for error in yard.reaper.progress.errors)
    assert took > yard.patience_seconds


async def test_a_cancel_that_never_arrived_is_sent_again(autojump_clock: Clock, yard: Graveyard) -> None:
    yard.leave()
    yard.levers.lose_requests(1, "private/cancel")
    await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)


async def test_a_look_that_ends_after_the_last_order_could_come_began_too_early(
    autojump_clock: Clock, yard: Graveyard
) -> None:
    yard.levers.delay_answers(1, round(SETTLE * 1000) + 500, "private/get_open_orders")
    took = await yard.reap()
    assert SETTLE + 0.5 <= took < SETTLE + 1.5
    assert yard.counts() == (0, 0, 0, 0, 0, True)


def cut_after_one_cancel(yard: Graveyard) -> None:
    yard.sandbox.faults.cut_answers(1, "private/cancel")


def cut_at_the_list(yard: Graveyard) -> None:
    yard.sandbox.faults.cut_answers(1, "private/get_open_orders")


def cut_login(yard: Graveyard) -> None:
    yard.cut_login()


def lose_the_list(yard: Graveyard) -> None:
    yard.levers.lose_answers(1, "private/get_open_orders")


def lose_the_login(yard: Graveyard) -> None:
    yard.levers.lose_answers(1, yard.login)


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
async def test_trouble_on_the_way_is_overcome(
    autojump_clock: Clock, yard: Graveyard, trouble: Callable[[Graveyard], None]
) -> None:
    for _ in range(4):
        yard.leave()
    foreign = yard.leave("by hand")
    trouble(yard)
    await yard.reap()
    assert yard.resting() == {foreign}
    before, _, cancelled, gone, after, proven = yard.counts()
    assert (before, cancelled + gone, after, proven) == (4, 4, 0, True)
    assert yard.reaper.progress.errors


async def test_a_link_that_goes_silent_is_left_for_another(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    """Where there is a link at all."""
    yard = DeribitYard(nursery)
    await yard.start()
    yard.leave()

    async def stall() -> None:
        await trio.sleep(0.5)
        assert yard.levers.stall_connections(yard.account) == 1

    yard.nursery.start_soon(stall)
    took = await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)
    assert SETTLE + ANSWER_SECONDS <= took < SETTLE + ANSWER_SECONDS + ARRIVE_SECONDS


async def test_nobody_there_is_no_proof(autojump_clock: Clock, yard: Graveyard) -> None:
    number = yard.leave()
    yard.levers.refuse_connections()
    assert await yard.reap(20) == pytest.approx(20, abs=0.1)
    assert yard.counts() == (None, 0, 0, 0, None, False)
    assert yard.resting() == {number}
    assert yard.reaper.progress.errors


async def test_a_dial_that_hangs_is_given_up_for_another(autojump_clock: Clock, yard: Graveyard) -> None:
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
    assert took > ANSWER_SECONDS
    assert yard.reaper.progress.errors == [yard.hung]


async def test_a_key_that_is_refused_ends_it_at_once(autojump_clock: Clock, yard: Graveyard) -> None:
    code, message = yard.wrong_key
    yard.levers.refuse_orders(None, code, message, yard.login)
    assert await yard.reap() < 1
    assert yard.reaper.progress.refused
    assert yard.counts() == (None, 0, 0, 0, None, False)
    assert len(yard.reaper.progress.errors) == 1 and message in yard.reaper.progress.errors[0]


@pytest.mark.parametrize(
    ("kind", "slow", "seconds"),
    [
        pytest.param(DeribitYard, True, (8, 20), id="the lowest tier: 60 orders need their time"),
        pytest.param(DeribitYard, False, (SETTLE, SETTLE + 1), id="the highest tier"),
        pytest.param(DeriveYard, True, (70, 80), id="five in five seconds, four of them ours"),
        pytest.param(DeriveYard, False, (SETTLE, SETTLE + 1), id="a market maker"),
    ],
)
async def test_many_orders_stay_within_the_message_rate(
    kind: type[Graveyard],
    slow: bool,
    seconds: tuple[float, float],
    autojump_clock: Clock,
    nursery: trio.Nursery,
) -> None:
    yard = kind(nursery, slow=slow)
    await yard.start()
    for _ in range(30):
        for symbol in list(yard.symbols)[:2]:
            yard.leave(symbol=symbol)
    took = await yard.reap(90)
    assert yard.counts() == (60, 0, 60, 0, 0, True)
    assert yard.reaper.progress.errors == []
    assert seconds[0] <= took <= seconds[1]


async def test_used_up_credits_only_cost_time(autojump_clock: Clock, yard: Graveyard) -> None:
    for _ in range(3):
        yard.leave()
    code, message = yard.too_much
    yard.levers.refuse_orders(1, code, message, "private/cancel")
    await yard.reap()
    before, _, cancelled, gone, after, proven = yard.counts()
    assert (before, cancelled + gone, after, proven) == (3, 3, 0, True)
    assert any(message in error for error in yard.reaper.progress.errors)


async def test_two_reapers_at_once_do_no_harm(autojump_clock: Clock, yard: Graveyard) -> None:
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


async def test_an_order_without_an_instrument_is_cancelled_by_its_label(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    yard = DeriveYard(nursery)
    await yard.start()
    yard.leave()
    foreign = yard.leave("by hand")
    monkeypatch.setattr(query_methods, "order_json", lambda tickets, order: bare(order_json(tickets, order)))
    await yard.reap()
    assert "private/cancel_by_label" in asked and "private/cancel" not in asked
    assert yard.resting() == {foreign} and yard.reaper.progress.proven


def bare(row: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": row["order_id"], "label": row["label"], "amount": "many"}


async def test_a_signature_that_comes_back_is_not_shown(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    yard = DeriveYard(nursery)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/get_time"):
            return httpx.Response(200, json={"id": 1, "result": wall_clock_ns() // 1_000_000})
        sent = request.headers["x-derivesignature"]
        return httpx.Response(400, json={"id": 1, "error": {"code": 14014, "message": f"wrong: {sent}"}})

    yard.make(transport=httpx.MockTransport(answer))
    await yard.reap()
    assert yard.reaper.progress.refused
    assert "wrong: [secret]" in yard.reaper.progress.errors[0]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_page_that_stands_before_the_exchange_is_no_refused_key(
    status: int, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    yard = DeriveYard(nursery)
    await yard.start()
    yard.leave()
    behind = SandboxTransport(yard.sandbox.connect)
    pages = [httpx.Response(status, text="<html>checking your browser</html>")] * 2

    async def answer(request: httpx.Request) -> httpx.Response:
        if pages and request.url.path.endswith(yard.login):
            return pages.pop()
        return await behind.handle_async_request(request)

    yard.make(transport=httpx.MockTransport(answer))
    await yard.reap()
    assert yard.counts() == (1, 0, 1, 0, 0, True)
    assert "checking your browser" in yard.reaper.progress.errors[0]
