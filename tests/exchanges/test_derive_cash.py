"""Funding and settlements out of Derive's lists: single rows, and the lists of its sandbox on mock time."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from derive_data_place import ACCOUNT, PERP, SUBACCOUNT, Place

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import CashMoved, PositionReported
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import CashKind
from mmd.domain.units import Grid
from mmd.exchanges.derive.cash import LIST_MOST, read_funding, read_settlement
from mmd.exchanges.derive.cash_messages import FundingEvent, OptionSettlement
from mmd.exchanges.derive.pages import READINGS_MAX, read_pages

Clock = trio.testing.MockClock
D = Decimal
CALL = Instrument(
    exchange="derive",
    symbol="BTC-20261004-88000-C",
    kind=Kind.CALL,
    contract=Contract.LINEAR,
    base="BTC",
    quote="USDC",
    settlement="USDC",
    index="BTC-USD",
    grid=Grid(D(1)),
    lot=D("0.01"),
    min_lots=10,
    contract_size=D(1),
    strike=D(88000),
    expiry_ns=1_791_100_800_000_000_000,
)
PUT = msgspec.structs.replace(CALL, symbol="BTC-20261004-88000-P", kind=Kind.PUT)
# As it was recorded by others in October 2026: a long call that expired worthless.
RECORDED = {
    "amount": "0.1",
    "expiry": 1791100800,
    "instrument_name": "BTC-20261004-88000-C",
    "option_settlement_pnl": "-2.8625",
    "option_settlement_pnl_excl_fees": "-2.1",
    "settlement_price": "84975.94721521944",
    "settlement_value": "0",
    "subaccount_id": 86815,
}


@pytest.fixture
async def place(nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = Place(nursery)
    place.levers.pause_market()
    yield place
    nursery.cancel_scope.cancel()


def settled(instrument: Instrument, **changes: Any) -> CashMoved:
    row = msgspec.json.decode(msgspec.json.encode(RECORDED | changes), type=OptionSettlement)
    return read_settlement(row, instrument, 7)


def moved(place: Place, symbol: str = PERP) -> list[CashMoved]:
    found: list[CashMoved] = place.sink.of(CashMoved, symbol)
    return found


# --- one row -------------------------------------------------------------------------------------


def test_a_recorded_settlement() -> None:
    at_ns = 1_791_100_800_000_000_000
    assert settled(CALL) == CashMoved("settlement 1791100800", CashKind.SETTLEMENT, D(0), "USDC", 10, at_ns, 7)


@pytest.mark.parametrize(
    ("instrument", "changes", "wanted"),
    [
        pytest.param(
            CALL, {"settlement_price": "90000", "settlement_value": "200"}, (D(200), 10), id="a long call that pays"
        ),
        pytest.param(
            CALL,
            {"amount": "-0.1", "settlement_price": "90000", "settlement_value": "-200"},
            (D(-200), -10),
            id="a short call that pays",
        ),
        pytest.param(CALL, {"amount": "-0.1"}, (D(0), -10), id="a short call, worthless"),
        pytest.param(
            PUT, {"settlement_price": "87000", "settlement_value": "100.004"}, (D("100.004"), 10), id="a put, rounded"
        ),
        pytest.param(
            PUT,
            {"amount": "-0.2", "settlement_price": "88000", "settlement_value": "0"},
            (D(0), -20),
            id="at the strike",
        ),
    ],
)
def test_how_an_option_ended(instrument: Instrument, changes: dict[str, Any], wanted: tuple[Decimal, int]) -> None:
    event = settled(instrument, **changes)
    assert (event.amount, event.closed_lots) == wanted


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"option_settlement_pnl_excl_fees": "2.1"}, "held long", id="a short whose amount has no sign"),
        pytest.param({"option_settlement_pnl_excl_fees": None}, "held long", id="nothing proves the side"),
        pytest.param({"settlement_value": "5"}, "where one pays 0", id="a value that is not its payoff"),
        pytest.param({"settlement_price": "90000", "settlement_value": "-200"}, "where one pays 2000", id="signs"),
        pytest.param({"amount": "0.105"}, "0.105", id="no whole number of lots"),
        pytest.param({"amount": "0"}, "where one pays", id="nothing"),
        pytest.param({"amount": "10", "settlement_price": "9e999999"}, "where one pays", id="more than can be said"),
        pytest.param({"settlement_value": "NaN"}, "are no numbers", id="a value that is no number"),
        pytest.param({"option_settlement_pnl_excl_fees": "Infinity"}, "are no numbers", id="a profit without an end"),
    ],
)
def test_a_settlement_that_does_not_say_which_side_it_was_is_not_counted(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ExchangeMalformed, match=why):
        settled(CALL, **changes)


def test_a_settlement_of_what_is_no_option() -> None:
    with pytest.raises(ExchangeMalformed, match="is no option"):
        settled(msgspec.structs.replace(CALL, kind=Kind.PERPETUAL, strike=None))


def test_one_payment() -> None:
    row = FundingEvent(PERP, SUBACCOUNT, 1_791_100_800_123, D("-0.0100"), D(5))
    event = read_funding(row, CALL, 7)
    assert event is not None
    assert (event.entry_id, event.amount) == ("funding 1791100800123 -0.01", D("-0.01"))
    assert (event.kind, event.closed_lots, event.exchange_ns) == (CashKind.FUNDING, 0, 1_791_100_800_123_000_000)
    assert read_funding(msgspec.structs.replace(row, funding=D(0)), CALL, 7) is None
    with pytest.raises(ExchangeMalformed, match="no number"):
        read_funding(msgspec.structs.replace(row, funding=D("NaN")), CALL, 7)


# --- pages ---------------------------------------------------------------------------------------


@dataclass
class Part:
    number: int
    count: int
    pages: int


async def test_pages_are_read_anew_where_their_number_of_rows_changes() -> None:
    counts = iter([5, 6, 6, 6])
    asked: list[int] = []

    async def ask(number: int) -> Part:
        asked.append(number)
        await trio.lowlevel.checkpoint()
        return Part(number, next(counts), 2)

    assert [part.number for part in await read_pages("rows", ask)] == [1, 2]
    assert asked == [1, 2, 1, 2]


async def test_pages_that_never_rest_are_given_up() -> None:
    asked: list[int] = []

    async def ask(number: int) -> Part:
        asked.append(number)
        await trio.lowlevel.checkpoint()
        return Part(number, len(asked), 2)

    with pytest.raises(ExchangeMalformed, match="rows: the number of rows changes"):
        await read_pages("rows", ask)
    assert len(asked) == 2 * READINGS_MAX


async def test_an_empty_list_is_one_page() -> None:
    async def ask(number: int) -> Part:
        await trio.lowlevel.checkpoint()
        return Part(number, 0, 0)

    assert len(await read_pages("rows", ask)) == 1


# --- funding -------------------------------------------------------------------------------------


async def test_funding_is_told_once(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.hold(PERP, "2")
    place.levers.pay_funding(PERP, D("0.0001"))
    await place.until(lambda: moved(place), seconds=70)
    await trio.sleep(200)
    (event,) = moved(place)
    paid = place.sandbox.engine.floor.accounts[ACCOUNT].ledger[-1]
    assert (event.amount, event.kind, event.currency) == (paid.interest_pl, CashKind.FUNDING, "USDC")
    assert event.amount < 0 and event.closed_lots == 0
    place.levers.pay_funding(PERP, D("-0.0002"))
    await place.until(lambda: len(moved(place)) == 2, seconds=70)
    assert moved(place)[1].amount > 0
    assert len({one.entry_id for one in moved(place)}) == 2


async def test_profit_that_is_paid_out_is_no_funding(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.hold(PERP, "2")
    place.levers.jump(PERP, 1)
    place.levers.settle()
    rows = [row for row in place.sandbox.engine.floor.accounts[ACCOUNT].ledger if row.kind == "settlement"]
    assert rows and rows[-1].change > 40
    await trio.sleep(130)
    assert sum(event.amount for event in moved(place)) == sum(row.interest_pl for row in rows)


async def test_funding_of_before_the_first_report_does_not_count(autojump_clock: Clock, place: Place) -> None:
    await place.nursery.start(place.sandbox.run)
    place.hold(PERP, "2")
    place.levers.pay_funding(PERP, D("0.0001"))
    await trio.sleep(5)
    await place.begin(PERP)
    assert place.sink.of(PositionReported, PERP)
    await trio.sleep(130)
    assert not moved(place) and not place.sink.named("cash.unknown")


async def test_the_next_process_tells_what_was_paid_meanwhile_under_the_same_ids(
    autojump_clock: Clock, place: Place
) -> None:
    await place.start(PERP)
    place.hold(PERP, "2")
    place.levers.pay_funding(PERP, D("0.0001"))
    await place.until(lambda: moved(place), seconds=70)
    (first,) = moved(place)
    known_ms = place.sandbox.now_ms
    await place.end()
    place.levers.pay_funding(PERP, D("0.0003"))
    place.derive = place.make()
    place.derive.known_until({PERP: known_ms})
    await place.begin(PERP)
    await place.until(lambda: len(moved(place)) == 2, seconds=70)
    assert moved(place)[0].entry_id == first.entry_id
    assert moved(place)[1].amount < first.amount < 0


async def test_funding_while_the_link_was_down(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.hold(PERP, "2")
    place.levers.refuse_connections(60)
    place.levers.cut()
    await trio.sleep(30)
    place.levers.pay_funding(PERP, D("0.0001"))
    await place.until(lambda: moved(place), seconds=120)


async def test_a_refusal_is_told_once(autojump_clock: Clock, place: Place) -> None:
    place.levers.refuse_orders(None, 14031, "Session key scope missing", ("private/get_funding_history",))
    await place.start(PERP)
    await trio.sleep(300)
    assert ["USDC funding: private/get_funding_history" in line for line in place.sink.named("cash.unknown")] == [True]
    assert place.derive.stats["trade"].connects == 1


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "price"), [("1.5", "9000"), ("-1.5", "9000"), ("1.5", "100"), ("-1.5", "100")])
async def test_an_option_that_expires_is_settled(autojump_clock: Clock, place: Place, amount: str, price: str) -> None:
    await place.start()
    call = place.call()
    place.derive.watch([call])
    await place.until(lambda: place.sink.of(PositionReported, call))
    place.hold(call, amount, "30")
    place.levers.expire(call, D(price))
    held = place.sandbox.engine.floor.accounts[ACCOUNT].ledger[-1]
    assert held.kind == "delivery"
    await trio.sleep(130)
    expiry_ns = place.derive.instruments[call].expiry_ns
    (event,) = moved(place, call)
    lots = int(D(amount) / place.derive.instruments[call].lot)
    assert (event.amount, event.closed_lots, event.exchange_ns) == (held.change, lots, expiry_ns)
    assert (event.amount == 0) == (price == "100")
    found = await place.derive.deliveries(place.derive.instruments[call])
    assert [(one.entry_id, one.amount) for one in found] == [(event.entry_id, event.amount)]


async def test_a_settlement_is_asked_for_eagerly_once_the_option_has_expired(
    autojump_clock: Clock, place: Place
) -> None:
    """The machine waits two minutes for it."""
    await place.start()
    call = place.call()
    place.derive.watch([call])
    await place.until(lambda: place.sink.of(PositionReported, call))
    place.hold(call, "1", "30")
    expiry_ns = place.derive.instruments[call].expiry_ns
    await trio.sleep(expiry_ns / 1e9 - place.sandbox.now_ms / 1000 + 15)
    (event,) = moved(place, call)
    assert event.closed_lots == int(1 / place.derive.instruments[call].lot)


async def test_nothing_was_held_at_the_end(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    call = place.call()
    place.levers.expire(call)
    assert await place.derive.deliveries(place.derive.instruments[call]) == []


async def test_a_full_list_of_settlements_is_told(autojump_clock: Clock, place: Place) -> None:
    await place.start()
    call = place.call()
    ledger = place.sandbox.engine.floor.account(ACCOUNT, 0).ledger
    place.hold(call, "1")
    row = msgspec.structs.replace(
        ledger[-1], kind="delivery", side="long", change=D(0), price=D(100), average_price=D(20)
    )
    ledger.extend([row] * LIST_MOST)
    place.derive.watch([call])
    await place.until(lambda: place.sink.named("cash.unknown"))
    assert "full with 1000 rows" in place.sink.named("cash.unknown")[0]
    with pytest.raises(ExchangeMalformed, match="full with 1000 rows"):
        await place.derive.deliveries(place.derive.instruments[call])
