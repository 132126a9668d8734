"""Derive's links against its sandbox: login, keys, clock, pings, budgets, cancel on disconnect, losses."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial

import msgspec
import pytest
import trio
import trio.testing
from deribit_peer import wall_clock_ns
from derive_data_place import PERP, SESSION_KEY, START_SEC, SUBACCOUNT, WALLET, WALLET_SECRET, Place, wallet

from mmd.domain.actions import PlaceOrder
from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import BookTop, DataLinkDown, DataLinkUp, OrderRefused, TradeLinkDown, TradeLinkUp
from mmd.domain.reasons import Fault, Side
from mmd.exchanges.connection import THROTTLED_TRIES, LoginRefused
from mmd.exchanges.derive.account import read_row
from mmd.exchanges.derive.lifetimes import KEY_NEEDS_SECONDS, KEY_SOON_SECONDS
from mmd.exchanges.derive.messages import CollateralData, Subaccount
from mmd.sandbox.derive.options import TRADER, Rates

D = Decimal
Clock = trio.testing.MockClock
STRANGER = "0x" + "5" * 64
Maker = Callable[..., Place]
NOBODY = "0x" + "1" * 40
DAY = 86_400


@pytest.fixture
async def made(nursery: trio.Nursery) -> AsyncIterator[Maker]:
    """Places of these wallets and limits."""
    yield partial(Place, nursery)
    nursery.cancel_scope.cancel()


@pytest.fixture
def place(made: Maker) -> Place:
    return made()


async def refusal(place: Place) -> LoginRefused:
    """What ends the start."""
    await place.nursery.start(place.sandbox.run)
    with pytest.raises(LoginRefused) as caught:
        await place.derive.run(place.sink)
    return caught.value


def trade_ups(place: Place) -> list[TradeLinkUp]:
    found: list[TradeLinkUp] = place.sink.of(TradeLinkUp, PERP)
    return found


def is_stored(place: Place) -> bool:
    """Whether cancel-on-disconnect is on at the exchange."""
    stored: bool = place.sandbox.server.dialect.context.wallets.by_address[WALLET].cancel_on_disconnect
    return stored


# --- login ---------------------------------------------------------------------------------------


async def test_it_starts_with_one_login_and_a_known_key(autojump_clock: Clock, made: Maker) -> None:
    place = made(wallet(expiry_sec=START_SEC + 30 * DAY))
    await place.start(PERP)
    assert sorted(place.sink.named("link.up")) == ["derive data", "derive trade, cancel on disconnect: True"]
    assert place.derive.room.key_expires_sec == START_SEC + 30 * DAY
    assert not place.sink.named("session_key.ends_soon")
    links = place.sandbox.server.links
    assert sum(link.caller is not None for link in links.values()) == 1


async def test_a_key_for_another_kind_loses_no_link(autojump_clock: Clock, made: Maker) -> None:
    """Its refusal is of one order: to give the login up over it would cancel all that rests."""
    options_only = wallet(scopes=("trade:orderbook:option", "account_info"))
    place = made(msgspec.structs.replace(options_only, cancel_on_disconnect=True))
    await place.start(PERP)
    place.derive.submit([(PERP, PlaceOrder("mmd-svc-ETH-PERP-b-1-1", Side.BID, 1000, 100))])
    await place.derive.flush()
    await place.until(lambda: place.sink.of(OrderRefused, PERP))
    (refused,) = place.sink.of(OrderRefused, PERP)
    assert (refused.fault, refused.code) == (Fault.CONFIG, "scope_missing")
    await trio.sleep(5)
    assert not place.sink.of(TradeLinkDown)


async def test_a_wrong_key(autojump_clock: Clock, place: Place) -> None:
    place.derive = place.make(secret=STRANGER)
    error = await refusal(place)
    assert error.code == 14026
    assert f"is not a key of wallet {WALLET}" in str(error) and str(error).startswith("session key 0x")


async def test_a_wrong_wallet(autojump_clock: Clock, place: Place) -> None:
    place.derive = place.make(owner=NOBODY)
    error = await refusal(place)
    assert (error.code, str(error).startswith(f"wallet {NOBODY} has no account on this network")) == (14000, True)


async def test_a_wrong_subaccount(autojump_clock: Clock, place: Place) -> None:
    place.derive = place.make(number=7)
    error = await refusal(place)
    assert f"subaccount 7 is not one of wallet {WALLET}" in str(error)
    assert f"it may use {SUBACCOUNT}, {SUBACCOUNT + 1}" in str(error)


async def test_a_subaccount_that_the_key_is_not_for(autojump_clock: Clock, made: Maker) -> None:
    error = await refusal(made(wallet(subaccounts=(SUBACCOUNT + 1,))))
    assert f"it may use {SUBACCOUNT + 1}" in str(error)


async def test_an_expired_key(autojump_clock: Clock, made: Maker) -> None:
    error = await refusal(made(wallet(expiry_sec=START_SEC - 1)))
    assert error.code == 14030
    assert f"session key {SESSION_KEY} of wallet {WALLET} has expired" in str(error)


async def test_a_key_that_may_not_trade(autojump_clock: Clock, made: Maker) -> None:
    error = await refusal(made(wallet(scopes=("account_info", "trade:rfq:all"))))
    assert "may not trade: granted is trade:rfq:all, account_info" in str(error)


async def test_a_key_that_ends_too_soon(autojump_clock: Clock, made: Maker) -> None:
    error = await refusal(made(wallet(expiry_sec=START_SEC + KEY_NEEDS_SECONDS - 1)))
    assert "too soon to quote with it" in str(error)


async def test_the_owner_himself_has_no_key_that_ends(autojump_clock: Clock, place: Place) -> None:
    place.derive = place.make(secret=WALLET_SECRET)
    await place.start(PERP)
    assert place.derive.room.key_expires_sec is None


async def test_a_refusal_later_is_tried_again(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.expire_key(WALLET, SESSION_KEY)
    place.levers.cut(WALLET)
    await place.until(lambda: len(place.sink.named("login.refused")) >= 2, seconds=60)
    place.levers.expire_key(WALLET, SESSION_KEY, START_SEC + 30 * DAY)
    place.sink.clear()
    await place.until(lambda: trade_ups(place), seconds=60)


# --- the key's life ------------------------------------------------------------------------------


async def test_a_key_that_ends_within_a_week_is_told(autojump_clock: Clock, made: Maker) -> None:
    place = made(wallet(expiry_sec=START_SEC + KEY_SOON_SECONDS - 3600))
    await place.start(PERP)
    assert [line for line in place.sink.named("session_key.ends_soon") if f"{SESSION_KEY} ends in 7.0 days" in line]


async def test_everything_pauses_before_the_key_ends(autojump_clock: Clock, made: Maker) -> None:
    place = made(wallet(expiry_sec=START_SEC + KEY_NEEDS_SECONDS + 60))
    place.levers.pause_market()
    await place.start(PERP)
    began = trio.current_time()
    await place.until(lambda: place.sink.of(TradeLinkDown), seconds=120)
    # Not much earlier than an order could not be signed any more, and while the key is good to the exchange.
    assert 50 <= trio.current_time() - began <= 70
    assert "too soon to quote" in place.sink.of(TradeLinkDown)[0].detail
    assert place.derive.stats["data"].up


async def test_a_key_that_is_renewed_in_time_goes_on(autojump_clock: Clock, made: Maker) -> None:
    place = made(wallet(expiry_sec=START_SEC + KEY_NEEDS_SECONDS + 60))
    place.levers.pause_market()
    await place.start(PERP)
    place.levers.expire_key(WALLET, SESSION_KEY, START_SEC + 30 * DAY)
    await trio.sleep(120)
    assert not place.sink.of(TradeLinkDown)
    assert place.derive.room.key_expires_sec == START_SEC + 30 * DAY


async def test_a_key_list_that_is_not_told_does_not_stop_the_link(autojump_clock: Clock, place: Place) -> None:
    place.levers.refuse_orders(1, 14031, "Session key scope missing", ("private/session_keys",))
    place.levers.pause_market()
    await place.start(PERP)
    assert ["could not be read" in line for line in place.sink.named("session_key.unknown")] == [True]
    assert place.derive.room.key_expires_sec is None
    await trio.sleep(300)
    assert place.derive.room.key_expires_sec is not None and not place.sink.of(TradeLinkDown)


# --- clock and life of a link --------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [0, 4_000, -90_000])
async def test_the_exchanges_clock_is_known_at_once(autojump_clock: Clock, place: Place, ahead_ms: int) -> None:
    place.ahead_ns = ahead_ms * 1_000_000
    await place.start(PERP)
    assert abs(place.derive.clock_skew_ms - ahead_ms) <= 1.0


async def test_a_clock_that_is_set_is_noticed(autojump_clock: Clock, place: Place) -> None:
    place.levers.pause_market()
    await place.start(PERP)
    place.ahead_ns = 2_000_000_000
    await trio.sleep(31)
    assert abs(place.derive.clock_skew_ms - 2000) <= 1.0


async def test_pings_keep_quiet_links_alive(autojump_clock: Clock, place: Place) -> None:
    place.levers.pause_market()
    await place.start(PERP)
    place.levers.silence()
    await trio.sleep(400)
    assert not place.sink.named("link.lost")
    assert all(stats.malformed == 0 for stats in place.derive.stats.values())


async def test_silence_is_noticed(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.stall_connections()
    await place.until(lambda: len(place.sink.named("link.lost")) == 2, seconds=30)
    assert all("silent for 25 s" in line for line in place.sink.named("link.lost"))
    place.sink.clear()
    await place.until(lambda: trade_ups(place) and place.sink.of(BookTop, PERP))


async def test_both_links_come_back_after_a_cut(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.cut()
    await place.until(lambda: place.sink.of(DataLinkDown) and place.sink.of(TradeLinkDown))
    place.sink.clear()
    await place.until(lambda: place.sink.of(DataLinkUp, PERP) and place.sink.of(BookTop, PERP) and trade_ups(place))


@pytest.mark.parametrize("code", [-32000, -32100])
async def test_who_asked_too_much_comes_back_slowly(autojump_clock: Clock, place: Place, code: int) -> None:
    await place.start(PERP)
    place.levers.refuse_orders(THROTTLED_TRIES, code, "too much", ("public/login",))
    place.levers.cut(WALLET)
    await place.until(lambda: any(f"({code})" in line for line in place.sink.named("link.lost")), seconds=30)
    wait_seconds = float(place.sink.named("link.lost")[-1].rsplit(" ", 2)[1])
    assert 10.0 <= wait_seconds <= 20.0
    assert place.sink.named("exchange.rate_limited") == ["public/login: too much"] * THROTTLED_TRIES
    place.sink.clear()
    await place.until(lambda: trade_ups(place), seconds=25)


async def test_who_asked_too_much_once_asks_again_on_the_same_link(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.levers.refuse_orders(1, -32000, "too much", ("public/login",))
    place.levers.cut(WALLET)
    await place.until(lambda: place.sink.of(TradeLinkDown))
    place.sink.clear()
    await place.until(lambda: trade_ups(place), seconds=15)
    assert not place.sink.named("link.lost")


# --- what it may ask -----------------------------------------------------------------------------


async def test_an_ordinary_account_is_never_refused(autojump_clock: Clock, made: Maker) -> None:
    place = made(rates=TRADER)
    place.levers.pause_market()
    await place.start(PERP, "BTC-PERP")
    await trio.sleep(180)
    assert not place.sink.named("exchange.rate_limited")
    budget = place.derive.budget
    assert (budget.rate_per_second, budget.burst, budget.reserve) == (0.5, 2.5, 0.625)


async def test_the_budget_is_the_wallets(autojump_clock: Clock, made: Maker) -> None:
    place = made(rates=Rates(matching=100))
    await place.start(PERP)
    budget = place.derive.budget
    assert (budget.rate_per_second, budget.burst, budget.reserve) == (50.0, 250.0, 62.5)


async def test_what_an_address_asked_too_much_is_not_taken_from_the_orders(autojump_clock: Clock, place: Place) -> None:
    """Others behind the same address use that up; the orders' budget is the wallet's."""
    await place.start(PERP)
    await trio.sleep(30)
    budget = place.derive.budget
    full = budget.left(wall_clock_ns())
    place.levers.refuse_orders(1, -32000, "Rate limit exceeded", ("public/get_live_incidents",))
    await place.until(lambda: place.sink.named("exchange.rate_limited"), seconds=120)
    assert budget.left(wall_clock_ns()) == full == budget.burst


async def test_a_wallet_without_a_budget_keeps_the_lowest(autojump_clock: Clock, made: Maker) -> None:
    place = made(rates=Rates(matching=0))
    await place.start(PERP)
    assert ["0 requests a second are no budget" in line for line in place.sink.named("limits.unknown")] == [True]
    assert place.derive.budget.burst == 2.5


# --- the account ---------------------------------------------------------------------------------


async def test_cancel_on_disconnect_is_armed_once_and_never_switched_off(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    assert trade_ups(place)[0].cancel_on_disconnect
    assert is_stored(place)
    (told,) = place.sink.named("cancel_on_disconnect.set")
    assert f"all of wallet {WALLET}" in told and "those of others as well" in told
    await place.end()
    assert is_stored(place)
    place.derive = place.make()
    await place.begin(PERP)
    assert trade_ups(place)[0].cancel_on_disconnect and not place.sink.named("cancel_on_disconnect.set")


async def test_cancel_on_disconnect_that_somebody_switches_off_is_armed_again(
    autojump_clock: Clock, place: Place
) -> None:
    place.levers.pause_market()
    await place.start(PERP)
    place.levers.set_cancel_on_disconnect(WALLET, enabled=False)
    await place.until(lambda: place.sink.named("exchange.cod_rearmed"), seconds=90)
    assert is_stored(place)


async def test_a_key_that_may_not_arm_it_says_so(autojump_clock: Clock, made: Maker) -> None:
    place = made(wallet(scopes=("trade:orderbook:all", "account_info")))
    await place.start(PERP)
    assert not trade_ups(place)[0].cancel_on_disconnect
    assert place.sink.named("cancel_on_disconnect.refused")


async def test_margins_are_told_as_what_is_needed(autojump_clock: Clock, place: Place) -> None:
    await place.start(PERP)
    place.hold(PERP, "2")
    (row,) = await place.derive.accounts()
    assert row.currency == "USDC" and row.balance < 1_000_000
    assert row.equity < row.balance  # the spread was paid, and is not settled
    assert D(0) < row.maintenance_margin < row.initial_margin < row.equity


async def test_an_account_that_could_not_be_fetched_is_none(autojump_clock: Clock, place: Place) -> None:
    place.levers.fail_fetches(1)
    await place.start()
    assert ["could not be fetched whole" in line for line in place.sink.named("limits.unknown")] == [True]
    assert place.derive.budget.burst == 1250.0


async def test_an_account_that_is_liquidated_is_told(autojump_clock: Clock, made: Maker) -> None:
    place = made(msgspec.structs.replace(wallet(), usdc=D(2000)))
    await place.start(PERP)
    place.hold(PERP, "-10")
    place.levers.pause_market()
    place.levers.jump(PERP, 90)
    await place.derive.accounts()
    assert place.sink.named("account.liquidation")


def subaccount(**changes: object) -> Subaccount:
    figures = {"subaccount_value": D(100), "initial_margin": D(60), "open_orders_margin": D(-10)}
    row = {"subaccount_id": 7, "margin_type": "SM", "maintenance_margin": D(80)} | figures | changes
    return Subaccount(**row)  # type: ignore[arg-type]  # as the names say


def test_what_is_left_becomes_what_is_needed() -> None:
    cash = [CollateralData("USDC", "erc20", D(90)), CollateralData("WETH", "erc20", D(3))]
    row = read_row(subaccount(collaterals=cash))
    assert (row.equity, row.balance, row.initial_margin, row.maintenance_margin) == (D(100), D(90), D(50), D(20))


@pytest.mark.parametrize(
    "changes",
    [
        {"failed_to_fetch": True},
        {"maintenance_margin": D("NaN")},
        {"initial_margin": D("sNaN")},
        {"subaccount_value": D("9e999999"), "maintenance_margin": D("-9e999999")},
    ],
)
def test_a_subaccount_that_is_not_whole(changes: dict[str, object]) -> None:
    with pytest.raises(ExchangeMalformed, match="subaccount 7 could not be fetched whole"):
        read_row(subaccount(**changes))
