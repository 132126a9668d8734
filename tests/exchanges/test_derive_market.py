"""Derive's market data against its sandbox: books, tickers, trades, listings, states, incidents."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import trio
import trio.testing
from deribit_peer import START_NS
from derive_data_place import PERP, Place

from mmd.core.market import MarketState
from mmd.core.rules import NS
from mmd.domain.actions import PlaceOrder
from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import BookBroken, BookTop, DataLinkDown, InstrumentStateChanged, Ticker, TradePrinted
from mmd.domain.reasons import Side, Why
from mmd.domain.units import Grid
from mmd.exchanges.derive.instruments import Listed
from mmd.exchanges.derive.market import HOUR_MS, next_listing_ms, state_of
from mmd.sandbox.model import Direction

Clock = trio.testing.MockClock
START_MS = START_NS // 1_000_000
HALF_PAST_EIGHT = 30_000 + 8 * HOUR_MS
EXPIRY_MS = START_MS - START_MS % 86_400_000 + 8 * HOUR_MS  # 08:00 UTC of the first day


@pytest.fixture
async def place(nursery: trio.Nursery) -> AsyncIterator[Place]:
    place = Place(nursery)
    place.levers.pause_market()
    yield place
    nursery.cancel_scope.cancel()


def states(place: Place, symbol: str) -> list[tuple[str, bool, bool]]:
    return [(event.state, event.tradable, event.terminal) for event in place.sink.of(InstrumentStateChanged, symbol)]


async def sleep_until(place: Place, at_ms: int) -> None:
    """By the exchange's clock."""
    await trio.sleep(at_ms / 1000 - place.sandbox.now_ms / 1000)


async def list_soon(place: Place) -> None:
    """As after an order that was refused because its instrument is not live."""
    await trio.sleep(60)
    place.derive.room.house.on_not_live("DOGE-PERP")
    await trio.sleep(10)


# --- what the words mean -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expiry_sec", "wanted"),
    [
        pytest.param({}, None, "open", id="open"),
        pytest.param({"active": False}, None, "inactive", id="inactive"),
        pytest.param({"opens_sec": 101}, None, "not_started", id="not yet"),
        pytest.param({"closes_sec": 100}, None, "deactivated", id="no more"),
        pytest.param({}, 101, "open", id="an option that lives"),
        pytest.param({}, 100, "settling", id="an option that has expired and is listed"),
        pytest.param({"settled": True}, 100, "expired", id="an option that is settled"),
        pytest.param(None, 100, "expired", id="an option that has expired and is not listed"),
        pytest.param(None, 101, "not_listed", id="an option that is gone before its time"),
        pytest.param(None, None, "not_listed", id="a perpetual that is gone"),
    ],
)
async def test_the_state_of_an_instrument(
    autojump_clock: Clock, place: Place, changes: dict[str, object] | None, expiry_sec: int | None, wanted: str
) -> None:
    await place.start()
    listed: Listed | None = None
    if changes is not None:
        one = place.derive.room.listed[PERP]
        instrument = msgspec.structs.replace(one.instrument, tradable=changes.get("active", True))
        rest = {"opens_sec": 0, "closes_sec": 200} | {key: it for key, it in changes.items() if key != "active"}
        listed = msgspec.structs.replace(one, instrument=instrument, **rest)
    expiry_ns = None if expiry_sec is None else expiry_sec * NS
    assert state_of(listed, expiry_ns, 100 * NS) == wanted


@pytest.mark.parametrize(
    ("now_ms", "wanted"),
    [
        pytest.param(0, HOUR_MS, id="in an hour"),
        pytest.param(HALF_PAST_EIGHT - 1, HALF_PAST_EIGHT, id="when the options of the day are gone"),
        pytest.param(HALF_PAST_EIGHT, HALF_PAST_EIGHT + HOUR_MS, id="in an hour after that"),
        pytest.param(86_400_000 - 1, 86_400_000 - 1 + HOUR_MS, id="over midnight"),
    ],
)
def test_when_to_list_again(now_ms: int, wanted: int) -> None:
    assert next_listing_ms(now_ms) == wanted


# --- what flows ----------------------------------------------------------------------------------


async def test_books_tickers_and_trades_come(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP, "BTC-PERP")
    place.levers.resume_market()
    place.levers.take(PERP, Direction.BUY, place.derive.room.listed[PERP].instrument.lot * 200)
    await place.until(lambda: all(place.sink.of(kind, PERP) for kind in (BookTop, Ticker, TradePrinted)))
    top, ticker = place.sink.of(BookTop, PERP)[-1], place.sink.of(Ticker, PERP)[-1]
    assert top.bids[0][0] < top.asks[0][0] and len(top.bids) == 5
    tick = float(place.derive.instruments[PERP].grid.tick)
    assert abs(top.bids[0][0] * tick / ticker.index - 1) < 0.05
    assert place.sink.of(TradePrinted, PERP)[0].taker is Side.BID
    assert place.derive.subscriptions == 6
    assert place.derive.room.indexes[PERP] == ticker.index > 0.0
    assert await place.derive.index_price("ETH-USD") == pytest.approx(ticker.index, rel=0.01)
    with pytest.raises(ExchangeRefused):
        await place.derive.index_price("DOGE-USD")


async def test_a_quiet_market_is_not_stale(autojump_clock: Clock, place: Place) -> None:
    """A snapshot that shows nothing new is heard of all the same: nothing else comes where nobody trades."""
    await place.start(PERP)
    await trio.sleep(30)
    tops = place.sink.of(BookTop, PERP)
    assert 25 <= len([top for top in tops if top.received_ns > START_NS]) <= 45
    state = MarketState(place.derive.instruments[PERP])
    state.data_ns = tops[-1].received_ns
    assert START_NS + 30 * NS - state.data_ns < 2 * NS


async def test_an_older_book_is_dropped(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.resume_market()
    place.levers.break_chain(PERP)
    await trio.sleep(5)
    tops = place.sink.of(BookTop, PERP)
    assert [top.sequence for top in tops] == sorted({top.sequence for top in tops})
    assert not place.sink.of(BookBroken)


async def test_a_book_that_comes_late_is_broken_until_it_is_in_time(autojump_clock: Clock, place: Place) -> None:
    """It comes, and the ticker shows the same prices: only its time tells that it is not the market's."""
    await place.start(PERP, "BTC-PERP")
    place.levers.date_books(6000)
    await place.until(lambda: place.sink.of(BookBroken, PERP))
    broken = place.sink.of(BookBroken, PERP)[0]
    assert broken.why is Why.STALE_BOOK and "6.0 s late" in broken.detail
    place.sink.clear()
    await trio.sleep(120)
    assert not place.sink.of(BookTop)
    assert 4 <= place.derive.stats["data"].resyncs <= 20  # each of both again and again, later and later
    place.levers.date_books(0)
    await place.until(lambda: place.sink.of(BookTop, PERP) and place.sink.of(BookTop, "BTC-PERP"), seconds=40)


async def test_a_clock_that_is_set_breaks_no_book(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.resume_market()
    place.levers.shift_clock(-20_000)
    await trio.sleep(40)
    assert not place.sink.of(BookBroken)
    assert abs(place.derive.clock_skew_ms + 20_000) < 100


async def test_who_is_not_watched_any_more_is_not_subscribed(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP, "BTC-PERP")
    place.derive.watch(["BTC-PERP"])
    await trio.sleep(1)
    place.sink.clear()
    place.levers.resume_market()
    await trio.sleep(3)
    assert not place.sink.of(BookTop, PERP) and place.sink.of(BookTop, "BTC-PERP")
    assert place.derive.subscriptions == 3
    place.derive.watch(["BTC-PERP", PERP])
    await place.until(lambda: place.sink.of(BookTop, PERP))


async def test_a_channel_that_is_not_there_is_told(autojump_clock: Clock, place: Place) -> None:
    await place.start()
    gone = msgspec.structs.replace(place.derive.instruments[PERP], symbol="DOGE-PERP")
    place.derive.instruments["DOGE-PERP"] = gone
    place.derive.watch(["DOGE-PERP"])
    await place.until(lambda: place.sink.named("subscription.refused"))
    assert "ticker_slim.DOGE-PERP.100" in place.sink.named("subscription.refused")[0]
    assert place.derive.stats["data"].up


@pytest.mark.parametrize("channel", [f"ticker_slim.{PERP}.100", f"trades.{PERP}", f"orderbook.{PERP}.1.10"])
async def test_a_channel_that_was_refused_is_asked_for_again(autojump_clock: Clock, place: Place, channel: str) -> None:
    kinds = {"ticker_slim": Ticker, "trades": TradePrinted, "orderbook": BookTop}
    kind = kinds[channel.partition(".")[0]]
    place.levers.refuse_channels(channel)
    await place.start()
    place.derive.watch([PERP])
    place.levers.resume_market()
    await place.until(lambda: place.sink.named("subscription.refused"))
    await trio.sleep(40)
    assert not place.sink.of(kind, PERP)
    assert len(place.sink.named("subscription.refused")) == 1
    place.levers.refuse_channels()
    await trio.sleep(31)
    place.levers.take(PERP, Direction.BUY, place.derive.room.listed[PERP].instrument.lot * 200)
    await place.until(lambda: place.sink.of(kind, PERP), seconds=1)


@pytest.mark.parametrize("channel", [f"ticker_slim.{PERP}.100", f"orderbook.{PERP}.1.10"])
async def test_a_channel_that_goes_silent_is_asked_for_again(autojump_clock: Clock, place: Place, channel: str) -> None:
    kind = Ticker if channel.startswith("ticker") else BookTop
    await place.start(PERP, "BTC-PERP")
    place.levers.resume_market()
    place.levers.drop_channels(channel)
    await trio.sleep(1)
    place.sink.clear()
    await trio.sleep(25)
    assert not place.sink.of(kind, PERP) and place.sink.of(kind, "BTC-PERP")
    await place.until(lambda: place.sink.of(kind, PERP), seconds=50)
    assert place.derive.stats["data"].connects == 1


# --- listings and states -------------------------------------------------------------------------


async def test_what_is_listed_is_read_page_by_page(autojump_clock: Clock, place: Place) -> None:
    await place.start()
    assert set(place.derive.room.listed) == set(place.derive.instruments)
    assert {"ETH-PERP", "BTC-PERP"} < set(place.derive.instruments)
    assert len(place.derive.instruments) > 100


async def test_a_state_is_told_once_and_again_on_the_next_link(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    await trio.sleep(20)
    assert states(place, PERP) == [("open", True, False)]
    place.levers.cut()
    await place.until(lambda: place.sink.of(DataLinkDown))
    await place.until(lambda: len(states(place, PERP)) == 2, seconds=30)


async def test_what_stops_is_noticed_within_the_hour(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.halt(PERP)
    await trio.sleep(3610)
    assert states(place, PERP) == [("open", True, False), ("inactive", False, False)]
    assert not place.derive.instruments[PERP].tradable
    place.levers.reopen(PERP)
    await list_soon(place)
    assert states(place, PERP)[-1] == ("open", True, False)


async def test_what_stops_is_noticed_when_an_order_is_refused(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.halt(PERP)
    await be_refused(place)
    await place.until(lambda: states(place, PERP)[-1] == ("not_live", False, False), seconds=0.5)
    assert not place.derive.instruments[PERP].tradable
    await place.until(lambda: states(place, PERP)[-1] == ("inactive", False, False), seconds=80)
    place.levers.reopen(PERP)
    await place.until(lambda: states(place, PERP)[-1] == ("open", True, False), seconds=320)


async def test_a_refusal_counts_until_a_listing_that_was_asked_for_later(autojump_clock: Clock, place: Place) -> None:
    """The exchange closes the instrument while the listing, which still has it as active, is on its way."""
    await place.start(PERP)
    await trio.sleep(60)
    place.levers.delay_answers(None, 3_000, ("public/get_all_instruments",))
    place.derive.room.house.on_not_live("DOGE-PERP")
    await trio.sleep(1)
    await be_refused(place)
    await place.until(lambda: states(place, PERP)[-1] == ("not_live", False, False), seconds=60)
    place.levers.disarm()
    asked = place.sandbox.now_ms
    await trio.sleep(30)
    assert states(place, PERP)[-1] == ("not_live", False, False)
    await place.until(lambda: states(place, PERP)[-1] == ("open", True, False), seconds=120)
    assert place.sandbox.now_ms - asked > 60_000


async def be_refused(place: Place) -> None:
    """One order of ours is told that its instrument is not live."""
    place.levers.refuse_orders(1, 11021, "Instrument not live")
    place.derive.submit([(PERP, PlaceOrder("mmd-svc-ETH-PERP-b-1-1", Side.BID, 1000, 100))])
    await place.derive.flush()


async def test_an_option_expires_at_eight(autojump_clock: Clock, place: Place) -> None:
    await place.start()
    call = place.call()
    assert place.derive.instruments[call].expiry_ns == EXPIRY_MS * 1_000_000
    place.derive.watch([call, PERP])
    await sleep_until(place, EXPIRY_MS - 5_000)
    place.sink.clear()
    assert await place.derive.expired_ns(call) is None
    await sleep_until(place, EXPIRY_MS + 3_000)
    assert states(place, call) == [("settling", False, False)]
    await sleep_until(place, EXPIRY_MS + 40_000)
    assert states(place, call) == [("settling", False, False), ("expired", False, True)]
    assert not states(place, PERP)
    assert await place.derive.expired_ns(call) == EXPIRY_MS * 1_000_000
    assert await place.derive.expired_ns(PERP) is None
    assert place.derive.room.listed[call].instrument.symbol == call  # its machine may have something to sign yet


async def test_when_something_expired_that_the_exchange_has_forgotten(autojump_clock: Clock, place: Place) -> None:
    await place.start()
    assert await place.derive.expired_ns("ETH-20260102-3000-C") == 1_767_340_800 * NS
    assert await place.derive.expired_ns("ETH-20990102-3000-C") is None
    assert await place.derive.expired_ns("DOGE-PERP") is None


async def test_a_listing_that_fails_leaves_the_last_one(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    before = set(place.derive.instruments)
    place.levers.refuse_orders(1, -32603, "Internal error", ("public/get_all_instruments",))
    await list_soon(place)
    assert ["the listing stays as it was" in line for line in place.sink.named("instruments.unknown")] == [True]
    assert set(place.derive.instruments) >= before and not place.sink.of(DataLinkDown)
    place.levers.halt(PERP)
    await trio.sleep(90)  # it was read again soon after
    assert states(place, PERP)[-1] == ("inactive", False, False)


async def test_other_units_stop_the_symbol_and_nothing_is_signed_with_them(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    old = place.derive.room.listed[PERP]
    listing = place.sandbox.engine.floor.listings[PERP]
    listing.instrument = msgspec.structs.replace(listing.instrument, tick_size=old.instrument.grid.tick * 10)
    await list_soon(place)
    assert states(place, PERP)[-1] == ("relisted", False, False)
    assert place.derive.instruments[PERP].grid == Grid(old.instrument.grid.tick)
    assert place.derive.room.listed[PERP].tick_e18 == old.tick_e18
    place.derive.watch(["BTC-PERP"])
    place.derive.watch(["BTC-PERP", PERP])
    await trio.sleep(1)
    assert place.derive.instruments[PERP].grid == Grid(old.instrument.grid.tick * 10)
    assert place.derive.room.listed[PERP].tick_e18 == old.tick_e18 * 10


# --- incidents -----------------------------------------------------------------------------------


async def test_incidents_are_told_once_and_stop_nothing(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.raise_incident("Oracle", "prices are late", "high")
    await trio.sleep(200)
    assert place.sink.named("exchange.incident") == ["high: Oracle: prices are late"]
    assert states(place, PERP) == [("open", True, False)]
    place.levers.end_incidents()
    await trio.sleep(70)
    assert place.sink.named("exchange.incident_over") == ["Oracle: prices are late"]


async def test_incidents_that_cannot_be_read_are_told_once(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.refuse_orders(3, -32603, "Internal error", ("public/get_live_incidents",))
    await trio.sleep(300)
    assert len(place.sink.named("exchange.incidents_unknown")) == 1
