"""Funding and deliveries out of the transaction log, against a scripted exchange on mock time."""

from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from deribit_news import BTC, ETH, START_MS, started
from deribit_peer import LINEAR, PERP, Refuse, Stage, Wire, wall_clock_ns

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import CashMoved, PositionReported
from mmd.domain.reasons import CashKind
from mmd.exchanges.deribit.cash import read_row
from mmd.exchanges.deribit.instruments import read_instrument
from mmd.exchanges.deribit.messages import InstrumentData, LogRow

Clock = trio.testing.MockClock
FUTURE = PERP | {
    "instrument_name": "BTC-25DEC26",
    "settlement_period": "month",
    "expiration_timestamp": START_MS + 86_400_000,
}
OPTION = PERP | {
    "instrument_name": "BTC-25DEC26-80000-C",
    "kind": "option",
    "quote_currency": "BTC",
    "strike": 80000,
    "option_type": "call",
    "tick_size": 0.0001,
    "min_trade_amount": 0.1,
    "contract_size": 1,
    "settlement_period": "month",
    "expiration_timestamp": START_MS + 86_400_000,
}
CALL = "BTC-25DEC26-80000-C"


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    stage = Stage(nursery)
    stage.peer.beats = True
    stage.peer.rows = [PERP, LINEAR, FUTURE, OPTION]
    yield stage
    nursery.cancel_scope.cancel()


def row(number: int, **fields: Any) -> dict[str, Any]:
    """A settlement of the perpetual, `number` seconds after the start; that is its id as well."""
    return {
        "id": number,
        "type": "settlement",
        "timestamp": START_MS + number * 1000,
        "currency": "BTC",
        "instrument_name": BTC,
        "side": "long",
        "amount": 30,
        "position": 30,
        "change": 0.0005,
        "cashflow": 0.0005,
        "interest_pl": -0.00001,
        "total_interest_pl": -0.00002,
        "info": {},
    } | fields


def moved(stage: Stage, symbol: str = BTC) -> list[CashMoved]:
    found: list[CashMoved] = stage.sink.of(CashMoved, symbol)
    return found


def meaning(data: dict[str, Any], **fields: Any) -> CashMoved | None:
    instrument = read_instrument(msgspec.convert(data, InstrumentData, strict=False), "deribit")
    line = msgspec.convert(row(1, instrument_name=data["instrument_name"], **fields), LogRow, strict=False)
    return read_row(line, instrument, 7)  # type: ignore[arg-type]  # these rows are no refusals


# --- one row -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fields", "wanted"),
    [
        pytest.param(PERP, {}, (CashKind.FUNDING, "-0.00002", 0), id="the session's funding"),
        pytest.param(PERP, {"total_interest_pl": None}, (CashKind.FUNDING, "-0.00001", 0), id="only the row's funding"),
        pytest.param(PERP, {"total_interest_pl": 0, "interest_pl": 0}, None, id="no funding"),
        pytest.param(FUTURE, {}, None, id="a future's daily settlement is in its value already"),
        pytest.param(OPTION, {"type": "options_settlement_summary"}, None, id="a summary"),
        pytest.param(
            OPTION,
            {"type": "delivery", "side": "close sell", "amount": 1.5, "change": 0.2},
            (CashKind.SETTLEMENT, "0.2", 15),
            id="a long call",
        ),
        pytest.param(
            OPTION,
            {"type": "delivery", "side": "close buy", "amount": 0.1, "change": -0.01},
            (CashKind.SETTLEMENT, "-0.01", -1),
            id="a short call",
        ),
        pytest.param(
            OPTION,
            {"type": "delivery", "side": "close sell", "amount": 0.1, "change": 0},
            (CashKind.SETTLEMENT, "0", 1),
            id="worthless, and gone all the same",
        ),
        pytest.param(
            FUTURE,
            {"type": "delivery", "side": "short", "amount": 40},
            (CashKind.SETTLEMENT, "0.0005", -4),
            id="a short future",
        ),
    ],
)
def test_what_a_row_means(
    data: dict[str, Any], fields: dict[str, Any], wanted: tuple[CashKind, str, int] | None
) -> None:
    event = meaning(data, **fields)
    if wanted is None:
        assert event is None
        return
    assert event is not None
    assert (event.kind, event.amount, event.closed_lots) == (wanted[0], Decimal(wanted[1]), wanted[2])
    assert (event.entry_id, event.currency, event.exchange_ns) == ("1", "BTC", (START_MS + 1000) * 1_000_000)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"side": "sideways"}, id="unknown side"),
        pytest.param({"side": None}, id="no side"),
        pytest.param({"side": "long", "amount": 0.05}, id="off the lot"),
        pytest.param({"side": "long", "amount": None}, id="no amount"),
        pytest.param({"side": "long", "amount": 1, "change": None}, id="no cash"),
        pytest.param({"side": "long", "amount": "NaN"}, id="an amount that is no number"),
        pytest.param({"side": "long", "amount": 1, "change": "NaN"}, id="cash that is no number"),
        pytest.param({"side": "long", "amount": 1, "change": "-Infinity"}, id="cash without an end"),
    ],
)
def test_a_delivery_that_cannot_be_read(fields: dict[str, Any]) -> None:
    with pytest.raises(ExchangeMalformed, match="BTC-25DEC26-80000-C"):
        meaning(OPTION, type="delivery", **fields)


@pytest.mark.parametrize("name", ["interest_pl", "total_interest_pl"])
@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity"])
def test_funding_that_is_no_number_cannot_be_read(name: str, text: str) -> None:
    with pytest.raises(ExchangeMalformed, match="is no number"):
        meaning(PERP, **({"total_interest_pl": None} | {name: text}))


async def test_a_row_that_cannot_be_read_is_told_and_the_others_count(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.log = [row(1), row(2, total_interest_pl=[]), row(3)]
    await trio.sleep(200)
    assert [event.entry_id for event in moved(stage)] == ["1", "3"]
    assert len(stage.sink.named("cash.unknown")) == 1
    stage.peer.log[1] = row(2)
    await trio.sleep(61)
    assert [event.entry_id for event in moved(stage)] == ["1", "3", "2"]


# --- the log -------------------------------------------------------------------------------------


async def test_what_came_before_the_first_report_does_not_count(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.log = [row(-100), row(-1)]
    await stage.start(BTC)
    assert stage.sink.of(PositionReported)
    stage.peer.log.append(row(-2, id=2))  # listed late
    await trio.sleep(61)
    assert not moved(stage)
    assert not stage.sink.named("cash.unknown")


async def test_rows_count_once_page_by_page_oldest_first(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.log = [row(number) for number in range(10, 17)]
    stage.peer.log.insert(3, row(100, type="trade", timestamp=START_MS + 12_000))
    await trio.sleep(61)
    assert [event.entry_id for event in moved(stage)] == [str(number) for number in range(10, 17)]
    assert {event.kind for event in moved(stage)} == {CashKind.FUNDING}
    delivered = stage.sink.delivered
    stage.peer.log.append(row(90))
    await trio.sleep(61)
    assert [event.entry_id for event in moved(stage)][-1] == "90"
    assert len(moved(stage)) == 8
    assert stage.sink.delivered > delivered
    asked = stage.peer.trade.asked("private/get_transaction_log")
    assert {params["query"] for params in asked} == {"settlement"}
    assert asked[0]["count"] == 250


async def test_each_currency_and_kind_is_asked_for(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, BTC, ETH, CALL, "BTC-25DEC26")
    asked = stage.peer.trade.asked("private/get_transaction_log")
    assert {(params["currency"], params["query"]) for params in asked} == {
        ("BTC", "settlement"),
        ("BTC", "delivery"),
        ("USDC", "settlement"),
    }
    stage.peer.log = [
        row(5, currency="USDC", instrument_name=ETH),
        row(6, type="delivery", instrument_name=CALL, side="close sell", amount=0.3, change=0.01),
        row(7, type="delivery", instrument_name="BTC-25DEC26-90000-C", side="close sell", amount=0.3, change=0.01),
    ]
    await trio.sleep(61)
    assert [event.currency for event in moved(stage, ETH)] == ["USDC"]
    assert [event.closed_lots for event in moved(stage, CALL)] == [3]
    assert len(stage.sink.of(CashMoved)) == 2


async def test_what_moved_while_the_link_was_down(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.refuse_dial = "no"
    await stage.peer.trade.drop()
    await trio.sleep(1000)
    stage.peer.log = [row(300), row(900)]
    stage.peer.refuse_dial = ""
    await stage.until(lambda: len(moved(stage)) == 2)


async def test_a_delivery_is_asked_for_at_once(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage, CALL)
    await trio.sleep(2)
    state = {"instrument_name": CALL, "state": "delivered", "timestamp": START_MS}
    await stage.peer.data.notify("instrument.state.any.any", state)
    await trio.sleep(3)
    assert not moved(stage, CALL)
    stage.peer.log = [row(4, type="delivery", instrument_name=CALL, side="close buy", amount=0.1, change=-0.01)]
    await stage.until(lambda: moved(stage, CALL), seconds=6)
    assert moved(stage, CALL)[0].closed_lots == -1


async def test_a_refusal_is_told_once_and_rarely_repeated(autojump_clock: Clock, stage: Stage) -> None:
    working = stage.peer.handlers["private/get_transaction_log"]
    stage.peer.on("private/get_transaction_log", Refuse(13021, "forbidden"))
    await stage.start(BTC)
    await trio.sleep(3000)
    assert len(stage.peer.trade.asked("private/get_transaction_log")) == 1
    assert len(stage.sink.named("cash.unknown")) == 1
    await trio.sleep(1200)
    assert len(stage.peer.trade.asked("private/get_transaction_log")) == 2
    assert len(stage.sink.named("cash.unknown")) == 1
    stage.peer.on("private/get_transaction_log", working)
    stage.peer.log = [row(4300)]
    await trio.sleep(3600)
    assert len(moved(stage)) == 1
    assert stage.deribit.stats["trade"].connects == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Refuse(11051, "system_maintenance"),
        Refuse(10028, "too_many_requests"),
        Refuse(13028, "temporarily_unavailable"),
        Refuse(10041, "settlement_in_progress"),
    ],
    ids=str,
)
async def test_a_refusal_that_time_cures_is_asked_again_soon(
    autojump_clock: Clock, stage: Stage, refusal: Refuse
) -> None:
    await started(stage)
    working = stage.peer.handlers["private/get_transaction_log"]
    asked: list[float] = []

    def refuse(wire: Wire, params: dict[str, Any]) -> Refuse:
        asked.append(trio.current_time())
        return refusal

    stage.peer.on("private/get_transaction_log", refuse)
    await trio.sleep(1500)
    assert [later - earlier for earlier, later in pairwise(asked)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert len(stage.sink.named("cash.unknown")) == 1
    stage.peer.on("private/get_transaction_log", working)
    stage.peer.log = [row(4)]
    await stage.until(lambda: moved(stage), seconds=301)
    stage.peer.on("private/get_transaction_log", refuse)
    asked.clear()
    await trio.sleep(80)
    assert [later - earlier for earlier, later in pairwise(asked)] == [5, 10]  # it begins anew


async def test_a_row_without_a_head_keeps_no_other_from_counting(autojump_clock: Clock, stage: Stage) -> None:
    await started(stage)
    stage.peer.log = [row(1), row(2), row(3)]
    working = stage.peer.handlers["private/get_transaction_log"]

    def log(wire: Wire, params: dict[str, Any]) -> Any:
        page = working(wire, params)
        return page | {"logs": [{"id": 99, "type": "settlement"}, 7, *page["logs"]]}

    stage.peer.on("private/get_transaction_log", log)
    await stage.until(lambda: len(moved(stage)) == 3, seconds=61)
    await trio.sleep(200)
    assert len(stage.sink.named("cash.unknown")) == 1 and len(moved(stage)) == 3


async def test_the_log_costs_no_order(autojump_clock: Clock, stage: Stage) -> None:
    """It has credits of its own: a long one would leave none for a cancel."""
    await started(stage)
    await trio.sleep(30)
    working = stage.peer.handlers["private/get_transaction_log"]
    spent: list[float] = []

    def log(wire: Wire, params: dict[str, Any]) -> Any:
        spent.append(stage.deribit.budget.burst - stage.deribit.budget.left(wall_clock_ns()))
        return working(wire, params)

    stage.peer.on("private/get_transaction_log", log)
    stage.peer.log = [row(number) for number in range(1, 13)]
    await stage.until(lambda: len(moved(stage)) == 12)
    assert len(spent) >= 6 and set(spent) == {0.0}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"logs": [row(1)], "continuation": 5}, id="no end"),
        pytest.param({"logs": [{"id": 1}], "continuation": None}, id="no row"),
    ],
)
async def test_a_log_that_cannot_be_read_counts_nothing(autojump_clock: Clock, stage: Stage, answer: Any) -> None:
    await started(stage)
    working = stage.peer.handlers["private/get_transaction_log"]
    stage.peer.on("private/get_transaction_log", answer)
    await stage.until(lambda: stage.sink.named("cash.unknown"), seconds=300)
    assert not moved(stage)
    assert stage.deribit.stats["trade"].up
    stage.peer.on("private/get_transaction_log", working)
    stage.peer.log = [row(1), row(2)]
    await stage.until(lambda: len(moved(stage)) == 2, seconds=130)
