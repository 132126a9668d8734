"""The adapter, our own count and the sandbox's books agree: after crashes, late trades, and any run of fills."""

import random
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest
import trio
import trio.testing
from place import ACCOUNT, BTC, DeribitPlace, Place

from mmd.core.ledger import gain
from mmd.core.pnl import Position
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
    place = DeribitPlace(nursery)
    yield place
    nursery.cancel_scope.cancel()


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
