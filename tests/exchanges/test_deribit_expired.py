"""What has expired, by its name and by the exchange's word; former names of a service; a clock that is minutes off."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import trio
import trio.testing
from deribit_peer import wall_clock_ns
from place import ACCOUNT, BTC, DeribitPlace, Place

from mmd.domain.actions import PlaceOrder
from mmd.domain.events import BookTop, OrderAcked, OrderFilled, OrdersReported
from mmd.domain.reasons import CashKind, Side
from mmd.exchanges.connection import LoginRefused
from mmd.exchanges.deribit.expired import expiry_ns
from mmd.sandbox.model import Direction

Clock = trio.testing.MockClock


@pytest.fixture
async def place(nursery: trio.Nursery) -> AsyncIterator[Place]:
    yield DeribitPlace(nursery)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("BTC-25DEC26", "2026-12-25"),
        ("BTC-4DEC26-32000-C", "2026-12-04"),
        ("ETH-29FEB28-1800-P", "2028-02-29"),
        ("BTC_USDC-25DEC26-90000-C", "2026-12-25"),
        ("XRP_USDC-30JUN26-0d625-P", "2026-06-30"),
        ("BTC-PERPETUAL", ""),
        ("ETH_USDC-PERPETUAL", ""),
        ("BTC_USDC", ""),
        ("BTC-29FEB27", ""),
        ("BTC-04DEC26", ""),
        ("BTC-4DEC2026", ""),
        ("BTC-4DEC26-32000", ""),
        ("BTC-4DEC26-32000-X", ""),
        ("btc-4dec26", ""),
        ("BTC-FS-25DEC26_PERP", ""),
        ("BTC-4DEC26\n", ""),
        ("", ""),
    ],
)
def test_when_an_instrument_of_this_name_expires(name: str, day: str) -> None:
    at = datetime.fromisoformat(f"{day}T08:00:00+00:00") if day else None
    assert expiry_ns(name) == (int(at.timestamp()) * 10**9 if at else None)


async def test_what_the_sandbox_lists_is_read_as_it_lists_it(place: Place) -> None:
    listed = [listing.instrument for listing in place.sandbox.engine.floor.listings.values()]
    dated = [one for one in listed if one.kind in ("future", "option") and not one.is_perpetual]
    assert len(dated) > 50
    for one in dated:
        assert expiry_ns(one.instrument_name) == one.expiration_timestamp * 1_000_000


async def test_an_expired_option_is_known_by_the_exchange_with_its_delivery(
    autojump_clock: Clock, place: Place
) -> None:
    call = next(
        name
        for name, listing in place.sandbox.engine.floor.listings.items()
        if listing.instrument.option_type == "call" and listing.instrument.settlement_currency == "BTC"
    )
    await place.start(call)
    assert await place.exchange.expired_ns(call) is None
    assert await place.exchange.expired_ns("BTC-PERPETUAL") is None
    assert await place.exchange.expired_ns("BTC-PERPETAUL") is None  # never was
    assert await place.exchange.expired_ns("BTC-1JAN21") == int(datetime(2021, 1, 1, 8, tzinfo=UTC).timestamp()) * 10**9
    top = place.sink.of(BookTop, call)[-1]
    instrument = place.exchange.instruments[call]
    ticks = instrument.grid.below(top.asks[0][0]) if top.asks else top.bids[0][0]
    place.exchange.submit([(call, PlaceOrder(place.label(Side.BID).replace(BTC, call), Side.BID, ticks, 5))])
    await place.exchange.flush()
    await place.until(lambda: place.sink.of(OrderAcked))
    place.levers.fill_quote(ACCOUNT, call, Direction.BUY)
    await place.until(lambda: place.sink.of(OrderFilled))
    assert await place.exchange.deliveries(instrument) == []
    place.levers.expire(call, (instrument.strike or Decimal(0)) * 2)
    place.exchange.watch([])  # nobody follows it any more
    (delivery,) = await place.exchange.deliveries(instrument)
    assert (delivery.kind, delivery.closed_lots) == (CashKind.SETTLEMENT, 5)
    assert delivery.amount == instrument.amount(5) / 2  # (2K - K) / 2K coins for each
    # The exchange has let it go before its time: that counts, and not what the name says.
    ended_ns = await place.exchange.expired_ns(call)
    assert ended_ns is not None and abs(ended_ns - wall_clock_ns()) < 10**9


async def test_orders_under_a_former_name_are_ours_as_long_as_it_is_said(autojump_clock: Clock, place: Place) -> None:
    await place.start(BTC)
    label = await place.rest()
    await place.crash()
    place.exchange = place.make(service="renamed", client_id="maker")
    place.exchange.also_ours(["svc"])
    placed = [order.label for order in place.levers.open_orders(ACCOUNT)]
    await place.begin(BTC)
    assert placed in ([], [label])  # as cancel-on-disconnect had it
    order = PlaceOrder(label.replace("-b-", "-b-x"), Side.BID, place.top().bids[0][0] - 300, 10)
    await place.send(order)
    assert [one.label for one in (await place.exchange.open_orders())[BTC]] == [order.label]
    place.exchange.also_ours(["sv"])
    assert await place.exchange.open_orders() == {}
    place.exchange.also_ours([])
    assert await place.exchange.open_orders() == {}
    assert place.sink.of(OrdersReported, BTC)


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("off_seconds", "way"), [(95.0, "95.0 s ahead of"), (-600.0, "600.0 s behind")])
async def test_a_login_that_fails_for_the_clock_says_so(
    autojump_clock: Clock, place: Place, nursery: trio.Nursery, off_seconds: float, way: str
) -> None:
    await nursery.start(place.sandbox.run)

    def clock_ns() -> int:
        return wall_clock_ns() + int(off_seconds * 1e9)

    deribit = place.make(grant="client_signature", wall_clock_ns=clock_ns)
    with pytest.raises(LoginRefused, match=f"the clock of this machine is {way} the exchange's"), trio.fail_after(60):
        await deribit.run(place.sink)


async def test_a_wrong_key_is_not_blamed_on_a_clock_that_is_right(
    autojump_clock: Clock, place: Place, nursery: trio.Nursery
) -> None:
    await nursery.start(place.sandbox.run)
    place.levers.refuse_orders(None, 13004, "invalid_credentials", "public/auth")
    deribit = place.make()
    with pytest.raises(LoginRefused) as caught:
        await deribit.run(place.sink)
    assert "clock" not in str(caught.value)


async def test_a_key_that_signs_nothing_fails_for_no_clock(
    autojump_clock: Clock, place: Place, nursery: trio.Nursery
) -> None:
    await nursery.start(place.sandbox.run)
    place.levers.refuse_orders(None, 13004, "invalid_credentials", "public/auth")
    off = place.make(grant="client_credentials", wall_clock_ns=lambda: wall_clock_ns() + 600_000_000_000)
    with pytest.raises(LoginRefused) as caught:
        await off.run(place.sink)
    assert "clock" not in str(caught.value)
