"""What expired long ago leaves nothing behind in the exchange; what expired lately does."""

import pytest
from static_market import BOOKS, OPTION, PERP, START_MS, D, instrument, make_engine
from ws_client import running

from mmd.sandbox import floor
from mmd.sandbox.engine import Engine
from mmd.sandbox.model import Direction, SandboxInstrument
from mmd.sandbox.orders import NewOrder, Refused

KEPT = 3


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "DELIVERED_KEPT", KEPT)


def option(number: int, expires_ms: int = START_MS + 1000) -> SandboxInstrument:
    return instrument(f"BTC-{number}", instrument_id=number, kind="option", expiration_timestamp=expires_ms)


def trade_and_deliver(engine: Engine, name: str) -> None:
    engine.set_levels(name, *BOOKS[PERP], START_MS, snapshot=True)
    new = NewOrder(account="a", instrument_name=name, direction=Direction.BUY, amount=D("10"), price=D("80000.5"))
    assert engine.place(new, START_MS).trades
    engine.deliver(name, D("80000"), START_MS + 1000)
    engine.floor.forget_delivered()


def test_the_histories_are_of_what_is_listed() -> None:
    engine = make_engine(balances={"BTC": D("100")})
    names = [option(number).instrument_name for number in range(1, 9)]
    for number, name in enumerate(names, 1):
        engine.floor.list_instrument(option(number))
        trade_and_deliver(engine, name)
    left = names[-KEPT:]
    place, account = engine.floor, engine.floor.accounts["a"]
    assert [name for name in place.listings if name not in BOOKS] == left
    assert set(place.by_id.values()) == place.listings.keys()
    assert [order.instrument_name for order in account.closed_orders.values()] == left
    assert [row.instrument_name for row in account.trades] == left
    assert [row.kind for row in account.ledger if row.instrument_name in left] == ["trade", "delivery"] * KEPT
    assert {row.instrument_name for row in account.ledger} == set(left)
    assert {key[1] for key in (*place.max_open, *place._open_sides)} == set(left)
    assert account.trades.maxlen and account.ledger.maxlen
    with pytest.raises(Refused):
        engine.instrument(names[0])


def test_many_at_once_leave_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories are long: nobody goes through them for each instrument of a large expiry."""
    monkeypatch.setattr(floor, "DELIVERED_KEPT", 20)
    engine = make_engine()
    for number in range(1, 24):
        engine.floor.list_instrument(option(number))
        engine.deliver(f"BTC-{number}", D("80000"), START_MS + 1000)
        engine.floor.forget_delivered()
        assert len(engine.floor.listings) - len(BOOKS) == (number if number < 23 else 20)


async def test_what_clients_followed_is_forgotten_with_it(autojump_clock: object) -> None:
    async with running() as house:
        client, publisher = await house.client(), house.sandbox.publisher
        for number in range(1, 9):
            name = f"BTC-{number}"
            house.engine.floor.list_instrument(option(number, START_MS + 10**9))
            await client.call("public/get_instruments", currency="BTC")
            await client.call("public/subscribe", channels=[f"book.{name}.100ms", f"trades.{name}.100ms"])
            await client.call("public/unsubscribe", channels=[f"book.{name}.100ms", f"trades.{name}.100ms"])
            house.sandbox.deliver(name, D("80000"), house.sandbox.now_ms)
            house.sandbox.publish()
        listed = len(house.engine.floor.listings)
        assert listed == len(BOOKS) + KEPT
        assert not publisher._by_topic
        assert len(publisher._groups) <= listed + 1
        assert len(house.sandbox.server.dialect.context.ready_json) <= listed + 1


async def test_what_the_market_lists_for_ever_is_not_listed_again_once_it_is_over(autojump_clock: object) -> None:
    async with running() as house:
        over = [option(number, START_MS) for number in range(1, 9)]
        house.sandbox.market.more = over
        for one in over:
            house.engine.floor.list_instrument(one)
        house.sandbox.settle(START_MS + 1000, daily=True)
        house.sandbox.settle(START_MS + 2000, daily=True)
        assert [name for name in house.engine.floor.listings if name not in BOOKS] == [f"BTC-{n}" for n in (6, 7, 8)]
        assert OPTION in house.engine.floor.listings
