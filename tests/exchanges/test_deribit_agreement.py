"""The adapter, our own count and the sandbox's books agree: after crashes, late trades, and any run of fills."""

import random
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest
import trio
import trio.testing
from deribit_place import ACCOUNT, BTC, Place

from mmd.core.ledger import gain
from mmd.core.pnl import Position
from mmd.domain.actions import PlaceOrder, QueryOrder
from mmd.domain.events import (
    CashMoved,
    Mail,
    OrderAbsent,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
    PositionReported,
    RequestLost,
)
from mmd.domain.reasons import Side
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.instruments import read_instrument
from mmd.exchanges.deribit.messages import InstrumentData, PositionData, UserTradeData
from mmd.sandbox.deribit.render import instrument_json
from mmd.sandbox.deribit.render_account import position_json, user_trade_json
from mmd.sandbox.deribit.rpc import encode
from mmd.sandbox.engine import Engine
from mmd.sandbox.model import Direction, InstrumentState, Reference, SandboxInstrument, TickStep
from mmd.sandbox.orders import NewOrder

Clock = trio.testing.MockClock
MS = 1_000_000


@pytest.fixture
async def place(nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = Place(nursery)
    yield place
    nursery.cancel_scope.cancel()


# --- from one process to the next ----------------------------------------------------------------


def count(journal: list[Mail], position: Position) -> Position:
    """What a machine makes of it that saw all of this, whichever process it came through."""
    for event in journal:
        if isinstance(event, OrderFilled):
            position.fill(event, 0.0)
        elif isinstance(event, CashMoved):
            position.cash_moved(event)
        elif isinstance(event, PositionReported) and not position.known:
            position.adopt(event.position_lots, event.average_price)
    return position


def reported_ms(journal: list[Mail], number: int) -> int:
    """The exchange's time of the first (0) or last (-1) report of the position."""
    return [event for event in journal if isinstance(event, PositionReported)][number].exchange_ns // MS


async def trade_a_little(place: Place, draw: random.Random) -> None:
    """Some orders of ours are filled at once, in whatever way the exchange then tells of it; funding now and then."""
    faults = (
        lambda: place.levers.lose_fills(2, ACCOUNT),
        lambda: place.levers.repeat_fills(3, ACCOUNT),
        lambda: place.levers.delay_fills(2, 900, ACCOUNT),
        lambda: place.levers.split_fills(2, 700, ACCOUNT),
        lambda: place.levers.lose_answers(1),
        lambda: None,
    )
    draw.choice(faults)()
    for _ in range(draw.randrange(1, 8)):
        side = draw.choice((Side.BID, Side.ASK))
        ticks = place.near(-100 if side is Side.BID else 100)
        label = place.label(side)
        await place.send(PlaceOrder(label, side, ticks, draw.randrange(1, 50)))
        for order in place.levers.open_orders(ACCOUNT, BTC):
            amount = order.remaining if draw.random() < 0.6 else Decimal(10)
            place.levers.fill_order(ACCOUNT, order.order_id, amount)
        if draw.random() < 0.3:
            place.levers.pay_funding(BTC, Decimal("0.0005"), hours=1)
        await trio.sleep(draw.choice((0.0, 0.01, 0.2)))


@pytest.mark.parametrize("seed", range(10))
async def test_no_fill_and_no_cash_is_lost_or_counted_twice(autojump_clock: Clock, place: Place, seed: int) -> None:
    """Crash after crash in the middle of bursts of fills, some of them told late, twice or never."""
    draw = random.Random(seed)
    await place.start(BTC)
    place.levers.pause_market()
    journal: list[Mail] = []
    for _ in range(3):
        await trade_a_little(place, draw)
        top = place.top()
        journal += await place.crash()
        place.levers.disarm()
        pause_seconds = draw.choice((0, 3, 100, 90_000))
        if pause_seconds > 1000:  # a day and more passes at the exchange, in no time
            place.levers.shift_clock(place.sandbox.clock.offset_ms + pause_seconds * 1000)
        else:
            await trio.sleep(pause_seconds)
        place.deribit = place.make(order_valid_ms=2000, grant="client_credentials")  # whatever the clocks say
        place.deribit.known_until({BTC: reported_ms(journal, -1)}, {BTC: reported_ms(journal, 0)})
        place.remember(top)
        await place.begin(BTC)
    await trio.sleep(2)
    heard = place.heard()
    ours = count([*journal, *heard], Position(place.deribit.instruments[BTC]))
    first = next(at for at, event in enumerate(heard) if isinstance(event, OrdersReported | PositionReported))
    missed = {event.trade_id for event in heard if isinstance(event, OrderFilled)}
    assert missed == {event.trade_id for event in heard[:first] if isinstance(event, OrderFilled)}
    assert ours.lots == place.levers.position(ACCOUNT, BTC) / 10
    assert ours.fills == len(place.levers.trades(ACCOUNT, BTC))
    paid = [row.interest_pl for row in place.levers.transactions(ACCOUNT) if row.kind == "settlement"]
    assert ours.funding == sum(paid, Decimal(0))
    last = [event for event in heard if isinstance(event, PositionReported)][-1]
    assert last.position_lots == ours.lots
    if ours.lots:
        assert float(last.average_price) == pytest.approx(float(ours.average), rel=1e-7)
        assert last.profit is not None and last.mark > 0
        expected = gain(ours.instrument, ours.lots, ours.average, Decimal(repr(last.mark)))
        assert float(last.profit) == pytest.approx(float(expected), abs=2e-8)


async def test_a_filled_order_whose_trades_are_listed_late(autojump_clock: Clock, place: Place) -> None:
    """Told neither by the answer nor by a channel; the order's state knows of the fill before its trades are listed."""
    await place.start(BTC)
    label = await place.rest(30)
    place.forget()
    place.levers.list_trades_late(600)
    place.levers.lose_fills(1, ACCOUNT)
    place.levers.fill_quote(ACCOUNT, BTC, Direction.BUY)
    await place.send(QueryOrder(label, ""))
    await trio.sleep(0.3)
    assert not place.sink.of(OrderClosed)
    await place.until(lambda: place.sink.of(OrderClosed))
    kinds = [type(event) for event in place.heard() if isinstance(event, OrderFilled | OrderClosed)]
    assert kinds == [OrderFilled, OrderClosed]
    place.levers.list_trades_late(10_000)
    label = await place.rest(20)
    place.forget()
    place.levers.lose_fills(1, ACCOUNT)
    place.levers.fill_quote(ACCOUNT, BTC, Direction.BUY)
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(RequestLost))
    assert "of 20 lots filled only 0 are listed yet" in place.sink.of(RequestLost)[0].detail
    assert not place.sink.of(OrderAbsent) and not place.sink.of(OrderClosed)


async def test_an_order_that_comes_too_late_is_refused_and_never_rests(autojump_clock: Clock, place: Place) -> None:
    place.deribit = place.make(order_valid_ms=1000)
    await place.start(BTC)
    place.forget()
    place.levers.delay_requests(1, 1500)
    label = place.label(Side.BID)
    await place.send(PlaceOrder(label, Side.BID, place.near(-200), 10))
    await place.send(QueryOrder(label, ""))
    await trio.sleep(0.8)
    assert not place.sink.of(OrderAbsent)  # it may come yet
    await place.until(lambda: place.sink.of(OrderAbsent))
    assert not place.sink.of(OrderRefused)
    await place.until(lambda: place.sink.of(OrderRefused))
    assert place.sink.of(OrderRefused)[0].code == "timed_out"
    assert not place.levers.open_orders(ACCOUNT)


@pytest.mark.parametrize("shift_ms", [5000, -5000])
async def test_the_exchanges_clock_is_set(autojump_clock: Clock, place: Place, shift_ms: int) -> None:
    """At most the first order after it is refused: the refusal's own times put ours right."""
    place.deribit = place.make(order_valid_ms=1000)
    await place.start(BTC)
    place.levers.pause_market()
    place.levers.silence()
    await trio.sleep(1)
    place.forget()
    place.levers.shift_clock(shift_ms)
    for _ in range(3):
        await place.send(PlaceOrder(place.label(Side.BID), Side.BID, place.near(-200), 10))
    refused = place.sink.of(OrderRefused)
    assert [event.code for event in refused] == (["timed_out"] if shift_ms > 0 else [])
    assert len(place.levers.open_orders(ACCOUNT)) == 3 - len(refused)


async def test_all_open_orders_are_read(autojump_clock: Clock, place: Place) -> None:
    """However many: the exchange lists them in one answer."""
    await place.start(BTC)
    price = place.deribit.instruments[BTC].grid.price(place.near(-400))
    for _ in range(350):
        place.levers.foreign_order(ACCOUNT, BTC, Direction.BUY, Decimal(10), price, place.label(Side.BID))
    await trio.sleep(11)
    assert len(place.sink.of(OrdersReported, BTC)[-1].orders) == 350
    assert len((await place.deribit.open_orders())[BTC]) == 350


async def test_orders_that_the_engine_loses_silently_are_noticed(autojump_clock: Clock, place: Place) -> None:
    place.deribit.reconcile_every(5)
    await place.start(BTC)
    label = await place.rest(10)
    place.levers.lose_orders(told=False, forget=True)
    place.forget()
    await place.until(lambda: place.sink.of(OrdersReported, BTC), seconds=6)
    assert place.sink.of(OrdersReported, BTC)[0].orders == ()
    await place.send(QueryOrder(label, ""))
    await place.until(lambda: place.sink.of(OrderAbsent))


# --- average and profit --------------------------------------------------------------------------


def listed(**changes: object) -> SandboxInstrument:
    values: dict[str, object] = {
        "instrument_name": BTC,
        "instrument_id": 1,
        "kind": "future",
        "instrument_type": "reversed",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "counter_currency": "USD",
        "settlement_currency": "BTC",
        "settlement_period": "perpetual",
        "price_index": "btc_usd",
        "tick_size": Decimal("0.5"),
        "min_trade_amount": Decimal(10),
        "contract_size": Decimal(10),
        "maker_commission": Decimal("-0.0001"),
        "taker_commission": Decimal("0.0005"),
        "creation_timestamp": 0,
        "expiration_timestamp": 32_503_708_800_000,
    }
    return SandboxInstrument(**(values | changes))  # type: ignore[arg-type]  # the values are of the right types


INVERSE = listed()
LINEAR = listed(
    instrument_name="ETH_USDC-PERPETUAL",
    instrument_type="linear",
    base_currency="ETH",
    quote_currency="USDC",
    counter_currency="USDC",
    settlement_currency="USDC",
    price_index="eth_usdc",
    tick_size=Decimal("0.05"),
    min_trade_amount=Decimal("0.01"),
    contract_size=Decimal("0.01"),
)
OPTION = listed(
    instrument_name="BTC-25DEC26-90000-C",
    kind="option",
    quote_currency="BTC",
    settlement_period="month",
    tick_size=Decimal("0.0001"),
    tick_size_steps=(TickStep(Decimal("0.005"), Decimal("0.0005")),),
    min_trade_amount=Decimal("0.1"),
    contract_size=Decimal(1),
    strike=Decimal(90000),
    option_type="call",
    expiration_timestamp=1_798_185_600_000,
)


@pytest.mark.parametrize(
    ("instrument", "low", "high"),
    [
        pytest.param(INVERSE, 60_000, 110_000, id="inverse"),
        pytest.param(LINEAR, 1_500, 4_500, id="linear"),
        pytest.param(OPTION, 0.001, 0.3, id="option"),
    ],
)
@pytest.mark.parametrize("seed", range(15))
def test_average_and_profit_are_as_we_count_them(
    instrument: SandboxInstrument, low: float, high: float, seed: int
) -> None:
    """Any run of fills, flips through zero and daily settlements included."""
    draw = random.Random(seed)
    engine = Engine(seed=seed)
    name, now_ms = instrument.instrument_name, 1_795_000_000_000
    engine.floor.list_instrument(instrument)
    engine.set_state(name, InstrumentState.OPEN, now_ms)
    raw = encode(instrument_json(instrument, InstrumentState.OPEN))
    ours = Position(read_instrument(msgspec.json.decode(raw, type=InstrumentData), "deribit"))  # type: ignore[arg-type]  # no refusal
    ours.adopt(0, Decimal(0))
    flips, before = 0, 0
    for _ in range(120):
        now_ms += draw.randrange(0, 3_600_000)
        tick = Decimal("0.0005") if high < 1 else Decimal("0.5")
        price = tick * max(1, round(draw.uniform(low, high) / float(tick)))
        engine.set_index(instrument.price_index, Decimal(80_000), now_ms)
        band = {"min_price": Decimal(0), "max_price": Decimal(10) * price}
        engine.set_reference(name, Reference(mark_price=price, index_price=Decimal(80_000), **band), now_ms)
        side = Direction.BUY if draw.random() < (0.7 if ours.lots < 0 else 0.3) else Direction.SELL
        step = max(instrument.min_trade_amount, Decimal("0.01"))
        amount = step * draw.randrange(1, 60)
        new = NewOrder(account=ACCOUNT, instrument_name=name, direction=side, amount=amount, price=price)
        engine.hit(engine.place(new, now_ms).order, None, now_ms)
        if draw.random() < 0.1:
            engine.settle(now_ms)
        account = engine.floor.accounts[ACCOUNT]
        trade = encode(user_trade_json(engine.floor, account.trades[-1]))
        ours.fill(orders.filled(msgspec.json.decode(trade, type=UserTradeData), ours.instrument, 0), 0.0)
        row = encode(position_json(engine.floor, account, engine.floor.listings[name]))
        said = orders.position(msgspec.json.decode(row, type=PositionData), ours.instrument, 0)
        flips += before * ours.lots < 0
        before = ours.lots
        assert said.position_lots == ours.lots and said.profit is not None
        assert float(said.average_price) == pytest.approx(float(ours.average), rel=1e-7, abs=1e-8)
        assert said.mark == float(price)
        unrealized = gain(ours.instrument, ours.lots, ours.average, price) if ours.lots else Decimal(0)
        assert float(said.profit) == pytest.approx(float(unrealized), abs=1e-8)
    assert flips > 3
