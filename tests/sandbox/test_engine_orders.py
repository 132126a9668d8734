"""Order entry against a still market: every rule of the matching engine, with its refusal."""

from decimal import Decimal

import pytest
from static_market import LINEAR, OPTION, PERP, START_MS, D, make_engine

from mmd.sandbox.book import BookChanged, LevelChange
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.notices import AccountChanged, ProtectionTriggered, StateChanged
from mmd.sandbox.orders import (
    CancelReason,
    NewOrder,
    OrderChange,
    OrderState,
    OrderType,
    Refuse,
    Refused,
    SelfTrading,
    TimeInForce,
)
from mmd.sandbox.protection import ProtectionConfig

BUY, SELL = Direction.BUY, Direction.SELL
NOW = START_MS


@pytest.fixture
def engine():
    return make_engine()


def order(direction: Direction, price: str | None, amount: str = "10", name: str = PERP, account: str = "a", **more):
    return NewOrder(
        account=account,
        instrument_name=name,
        direction=direction,
        amount=D(amount),
        price=None if price is None else D(price),
        **more,
    )


def shown(engine, name=PERP):
    book = engine.floor.listing(name).book
    return book.bids.shown_levels(), book.asks.shown_levels()


@pytest.mark.parametrize(
    ("new", "why"),
    [
        pytest.param(order(BUY, "79000.0", "5"), Refuse.QTY_TOO_LOW, id="below the minimum"),
        pytest.param(order(BUY, "79000.0", "-10"), Refuse.QTY_TOO_LOW, id="negative amount"),
        pytest.param(order(BUY, "79000.0", "15"), Refuse.NOT_WHOLE_CONTRACTS, id="half a contract"),
        pytest.param(order(BUY, "0.0040", "0.15", OPTION), Refuse.INVALID_AMOUNT, id="off the option's step"),
        pytest.param(order(BUY, "79000.2"), Refuse.WRONG_TICK, id="off the tick"),
        pytest.param(order(BUY, "0.0051", "1", OPTION), Refuse.WRONG_TICK, id="off the wider tick"),
        pytest.param(order(BUY, "0"), Refuse.INVALID_PRICE, id="price zero"),
        pytest.param(order(BUY, None), Refuse.INVALID_PRICE, id="limit without a price"),
        pytest.param(order(BUY, "82000.5"), Refuse.PRICE_TOO_HIGH, id="above the band"),
        pytest.param(order(SELL, "77999.5"), Refuse.PRICE_TOO_LOW, id="below the band"),
        pytest.param(
            order(BUY, "80000.5", post_only=True, reject_post_only=True), Refuse.POST_ONLY_REJECT, id="would take"
        ),
        pytest.param(
            order(BUY, "79000.0", post_only=True, time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL),
            Refuse.POST_ONLY_NOT_ALLOWED,
            id="post-only and immediate",
        ),
        pytest.param(order(SELL, "81000.0", reduce_only=True), Refuse.OTHER_REJECT, id="nothing to reduce"),
        pytest.param(order(BUY, "79000.0", valid_until=NOW - 1), Refuse.TIMED_OUT, id="too late"),
        pytest.param(order(BUY, "79000.0", name="BTC-X"), Refuse.BAD_INSTRUMENT, id="no such instrument"),
    ],
)
def test_refusals_change_nothing(engine, new, why):
    before = shown(engine)
    with pytest.raises(Refused) as refused:
        engine.place(new, NOW)
    assert refused.value.why is why
    assert shown(engine) == before
    assert engine.drain() == []


def test_the_limit_of_the_band_is_in_the_text(engine):
    with pytest.raises(Refused, match=r"^price_too_high 82000$"):
        engine.place(order(BUY, "82000.5"), NOW)


def test_a_resting_order_is_in_the_book_of_everybody(engine):
    placed = engine.place(order(BUY, "80000.0", "30", label="x"), NOW)
    assert placed.order.state is OrderState.OPEN
    assert placed.trades == ()
    change, _, account = engine.drain()
    assert change == BookChanged(
        PERP, NOW, change.change_id, change.prev_change_id, (LevelChange("change", D("80000.0"), D("1030")),), ()
    )
    assert isinstance(account, AccountChanged)
    assert account.orders[0].label == "x"
    engine.cancel("a", placed.order.order_id, NOW + 5)
    after = engine.drain()[0]
    assert after.prev_change_id == change.change_id
    assert after.bids == (LevelChange("change", D("80000.0"), D("1000")),)
    assert placed.order.cancel_reason is CancelReason.USER_REQUEST


def test_taking_walks_the_levels_and_rests_the_rest(engine):
    placed = engine.place(order(BUY, "80001.0", "900"), NOW)
    assert [(fill.price, fill.amount, fill.maker) for fill in placed.trades] == [(D("80000.5"), D("800"), False)]
    assert (placed.order.state, placed.order.filled) == (OrderState.OPEN, D("800"))
    assert shown(engine)[0][0] == (D("80001.0"), D("100"))
    assert placed.trades[0].fee == (D("0.0005") * 800 / D("80000.5")).quantize(D("1e-10"))
    assert placed.trades[0].fee_currency == "BTC"


@pytest.mark.parametrize(
    ("new", "state", "filled"),
    [
        pytest.param(
            order(BUY, "80000.5", "1000", time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL),
            OrderState.CANCELLED,
            "800",
            id="immediate or cancel takes what is there",
        ),
        pytest.param(
            order(BUY, "80000.5", "1000", time_in_force=TimeInForce.FILL_OR_KILL),
            OrderState.CANCELLED,
            "0",
            id="fill or kill kills",
        ),
        pytest.param(
            order(BUY, "80001.5", "1000", time_in_force=TimeInForce.FILL_OR_KILL),
            OrderState.FILLED,
            "1000",
            id="fill or kill fills",
        ),
        pytest.param(order(SELL, None, "1500", order_type=OrderType.MARKET), OrderState.FILLED, "1500", id="market"),
        pytest.param(
            order(SELL, None, "9000", order_type=OrderType.MARKET), OrderState.CANCELLED, "1500", id="market runs dry"
        ),
        pytest.param(
            order(SELL, None, "1200", order_type=OrderType.MARKET_LIMIT),
            OrderState.OPEN,
            "1000",
            id="market limit rests at the touch",
        ),
    ],
)
def test_how_orders_end(engine, new, state, filled):
    done = engine.place(new, NOW).order
    assert (done.state, done.filled) == (state, D(filled))
    assert (done.order_id in engine.floor.accounts["a"].open_orders) == (state is OrderState.OPEN)


@pytest.mark.parametrize(
    ("new", "price"),
    [
        pytest.param(order(BUY, "80001.0", post_only=True), "80000.0", id="a bid slides one tick below the ask"),
        pytest.param(order(SELL, "79999.0", post_only=True), "80000.5", id="an ask slides one tick above the bid"),
        pytest.param(order(BUY, "0.0060", "1", OPTION, post_only=True), "0.0049", id="the finer tick below a step"),
        pytest.param(order(BUY, "79999.0", post_only=True), "79999.0", id="a passive one stays"),
    ],
)
def test_post_only_slides(engine, new, price):
    assert engine.place(new, NOW).order.price == D(price)


def test_older_orders_fill_first_and_anonymous_size_before_later_orders(engine):
    first = engine.place(order(BUY, "80000.0", "20", account="a"), NOW).order
    engine.set_levels(PERP, {D("80000.0"): D("1500")}, {}, NOW + 1, snapshot=False)
    second = engine.place(order(BUY, "80000.0", "20", account="b"), NOW + 2).order
    engine.take(PERP, SELL, D("1010"), D("80000.0"), NOW + 3)
    assert (first.filled, second.filled) == (D("10"), D("0"))
    engine.take(PERP, SELL, D("500"), D("80000.0"), NOW + 4)
    assert (first.filled, second.filled) == (D("20"), D("0"))
    engine.take(PERP, SELL, D("30"), D("80000.0"), NOW + 5)
    assert (first.state, second.filled) == (OrderState.FILLED, D("20"))


def test_less_anonymous_size_gives_no_turn_away(engine):
    mine = engine.place(order(BUY, "80000.0", "20"), NOW).order
    engine.set_levels(PERP, {D("80000.0"): D("1500")}, {}, NOW, snapshot=False)
    engine.set_levels(PERP, {D("80000.0"): D("1000")}, {}, NOW, snapshot=False)
    engine.take(PERP, SELL, D("1000"), D("80000.0"), NOW)
    assert mine.filled == 0
    engine.take(PERP, SELL, D("10"), D("80000.0"), NOW)
    assert mine.filled == D("10")


def test_anonymous_size_that_crosses_trades_at_the_resting_price(engine):
    mine = engine.place(order(SELL, "80000.5", "100"), NOW).order
    trades = engine.set_levels(PERP, {D("80001.0"): D("300")}, {D("80000.5"): D("0")}, NOW + 9, snapshot=False)
    assert [(trade.price, trade.amount, trade.direction) for trade in trades] == [(D("80000.5"), D("100"), BUY)]
    assert mine.state is OrderState.FILLED
    assert shown(engine)[0][0] == (D("80001.0"), D("200"))


def test_a_new_anonymous_level_drops_the_stale_ones_it_crosses(engine):
    assert engine.set_levels(PERP, {D("80001.0"): D("300")}, {}, NOW, snapshot=False) == []
    assert shown(engine)[1][0] == (D("80001.5"), D("2000"))


# --- edits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        pytest.param(OrderChange(amount=D("20")), True, id="smaller keeps its turn"),
        pytest.param(OrderChange(amount=D("30")), True, id="the same keeps its turn"),
        pytest.param(OrderChange(amount=D("40")), False, id="larger goes to the back"),
    ],
)
def test_edits_and_the_queue(engine, change, keeps):
    mine = engine.place(order(BUY, "79999.0", "30", account="a"), NOW).order
    other = engine.place(order(BUY, "79999.0", "30", account="b"), NOW).order
    edited = engine.edit("a", mine.order_id, change, NOW + 1).order
    assert (edited.order_id, edited.replaced, edited.amount) == (mine.order_id, True, change.amount)
    engine.take(PERP, SELL, D("1510"), D("79999.0"), NOW + 2)
    assert (mine.filled == D("10")) == keeps
    assert (other.filled == D("10")) != keeps


def test_the_amount_of_an_edit_is_the_new_total(engine):
    mine = engine.place(order(BUY, "80000.5", "1000"), NOW).order
    assert mine.filled == D("800")
    engine.edit("a", mine.order_id, OrderChange(amount=D("1600")), NOW)
    assert mine.remaining == D("800")
    with pytest.raises(Refused) as refused:
        engine.edit("a", mine.order_id, OrderChange(amount=D("800")), NOW)
    assert refused.value.why is Refuse.INVALID_AMOUNT


def test_an_edit_that_would_take_is_cancelled_under_reject_post_only(engine):
    mine = engine.place(order(BUY, "79999.0", post_only=True, reject_post_only=True), NOW).order
    edited = engine.edit("a", mine.order_id, OrderChange(price=D("80000.5")), NOW).order
    assert (edited.state, edited.cancel_reason) == (OrderState.CANCELLED, CancelReason.EDIT_POST_ONLY_REJECT)
    with pytest.raises(Refused) as refused:
        engine.edit("a", mine.order_id, OrderChange(price=D("79999.0")), NOW)
    assert refused.value.why is Refuse.ALREADY_CLOSED


def test_an_edit_may_slide_or_take(engine):
    sliding = engine.place(order(BUY, "79999.0", post_only=True), NOW).order
    assert engine.edit("a", sliding.order_id, OrderChange(price=D("80010.0")), NOW).order.price == D("80000.0")
    taking = engine.place(order(BUY, "79999.0", "100"), NOW).order
    assert engine.edit("a", taking.order_id, OrderChange(price=D("80000.5")), NOW).trades[0].amount == D("100")


@pytest.mark.parametrize("change", [OrderChange(price=D("79999.2")), OrderChange(amount=D("5"))])
def test_a_refused_edit_leaves_the_order(engine, change):
    mine = engine.place(order(BUY, "79999.0"), NOW).order
    engine.drain()
    with pytest.raises(Refused):
        engine.edit("a", mine.order_id, change, NOW)
    assert (mine.price, mine.amount, mine.replaced, engine.drain()) == (D("79999.0"), D("10"), False, [])


def test_foreign_unknown_and_closed_orders(engine):
    mine = engine.place(order(BUY, "79999.0"), NOW).order
    for account, order_id, why in [("b", mine.order_id, Refuse.NOT_OWNER), ("a", "7", Refuse.ORDER_NOT_FOUND)]:
        with pytest.raises(Refused) as refused:
            engine.cancel(account, order_id, NOW)
        assert refused.value.why is why
    engine.take(PERP, SELL, D("2000"), D("79999.0"), NOW)
    with pytest.raises(Refused) as refused:
        engine.cancel("a", mine.order_id, NOW)
    assert refused.value.why is Refuse.ALREADY_FILLED


# --- self-trading, reduce-only, protection -------------------------------------------------------


def test_self_trades_are_refused_or_cancel_the_maker(engine):
    ask = engine.place(order(SELL, "80000.5", "50"), NOW).order
    assert engine.place(order(BUY, "80000.5", "800"), NOW).order.state is OrderState.FILLED  # only anonymous size
    with pytest.raises(Refused) as refused:
        engine.place(order(BUY, "80000.5", "10"), NOW)
    assert refused.value.why is Refuse.ORDER_OVERLAP
    engine.floor.accounts["a"].self_trading = SelfTrading.CANCEL_MAKER
    placed = engine.place(order(BUY, "80000.5", "10"), NOW)
    assert (ask.state, ask.cancel_reason) == (OrderState.CANCELLED, CancelReason.SELF_TRADE)
    assert (placed.order.state, placed.trades) == (OrderState.OPEN, ())


def test_reduce_only_never_turns_a_position(engine):
    engine.place(order(BUY, "80000.5", "100"), NOW)
    closing = engine.place(order(SELL, "80010.0", "500", reduce_only=True), NOW).order
    assert closing.amount == D("100")
    engine.place(order(SELL, "80000.0", "70"), NOW)
    engine.take(PERP, BUY, D("5000"), D("80010.0"), NOW)
    assert (closing.filled, closing.state) == (D("30"), OrderState.CANCELLED)
    assert engine.floor.accounts["a"].positions[PERP].size == 0


def test_close_position(engine):
    with pytest.raises(Refused):
        engine.close_position("a", PERP, OrderType.MARKET, None, NOW, None)
    engine.place(order(SELL, "80000.0", "100"), NOW)
    placed = engine.close_position("a", PERP, OrderType.MARKET, None, NOW, None)
    assert (placed.order.direction, placed.order.filled) == (BUY, D("100"))
    assert engine.floor.accounts["a"].positions[PERP].size == 0


def test_protection_pulls_protected_orders_and_freezes(engine):
    config = ProtectionConfig(index_name="btc_usd", interval=5, frozen_time=10, quantity_limit=1.0)
    engine.set_protection("a", config, NOW)
    guarded = [engine.place(order(BUY, price, "1", OPTION, mmp=True), NOW).order for price in ("0.0041", "0.0042")]
    plain = engine.place(order(BUY, "0.0039", "1", OPTION), NOW).order
    engine.drain()
    engine.take(OPTION, SELL, D("1"), D("0.0042"), NOW + 100)
    assert guarded[0].cancel_reason is CancelReason.MMP_TRIGGER
    assert plain.state is OrderState.OPEN
    assert ProtectionTriggered("a", "btc_usd", NOW + 10_100) in engine.drain()
    with pytest.raises(Refused) as refused:
        engine.place(order(BUY, "0.0041", "1", OPTION, mmp=True), NOW + 200)
    assert refused.value.why is Refuse.MMP_FROZEN
    assert engine.place(order(BUY, "0.0041", "1", OPTION, mmp=True), NOW + 10_100).order.state is OrderState.OPEN


def test_protection_forgets_after_its_window(engine):
    config = ProtectionConfig(index_name="btc_usd", interval=5, frozen_time=0, quantity_limit=1.0)
    engine.set_protection("a", config, NOW)
    engine.place(order(BUY, "0.0042", "3", OPTION, mmp=True), NOW)
    for second in (0, 5, 10):
        engine.take(OPTION, SELL, D("0.9"), D("0.0042"), NOW + second * 1000)
    assert engine.floor.accounts["a"].protections["btc_usd"].frozen_until is None


# --- mass cancels, states, speed bump ------------------------------------------------------------


def test_cancel_on_disconnect_takes_only_what_the_link_placed(engine):
    mine = engine.place(order(BUY, "79999.0", link=1), NOW).order
    other = engine.place(order(BUY, "79998.0", link=2), NOW).order
    assert engine.cancel_link(1, NOW) == 1
    assert (mine.cancel_reason, other.state) == (CancelReason.CANCEL_ON_DISCONNECT, OrderState.OPEN)


@pytest.mark.parametrize(
    ("state", "entry", "cancel"),
    [
        (InstrumentState.LOCKED, Refuse.LOCKED, None),
        (InstrumentState.SETTLEMENT, Refuse.SETTLEMENT, Refuse.SETTLEMENT),
        (InstrumentState.HALTED, Refuse.BOOK_CLOSED, Refuse.BOOK_CLOSED),
        (InstrumentState.DELIVERED, Refuse.EXPIRED_BOOK, Refuse.ALREADY_CLOSED),
        (InstrumentState.INACTIVE, Refuse.BOOK_CLOSED, Refuse.ALREADY_CLOSED),
    ],
)
def test_states(engine, state, entry, cancel):
    mine = engine.place(order(BUY, "79999.0"), NOW).order
    engine.set_state(PERP, state, NOW)
    assert StateChanged(PERP, state, NOW) in engine.drain()
    with pytest.raises(Refused) as refused:
        engine.place(order(BUY, "79999.0"), NOW)
    assert refused.value.why is entry
    if cancel is None:
        assert engine.cancel("a", mine.order_id, NOW).state is OrderState.CANCELLED
    else:
        with pytest.raises(Refused) as refused:
            engine.cancel("a", mine.order_id, NOW)
        assert refused.value.why is cancel


def test_good_til_day_orders_go_in_settlement(engine):
    day = engine.place(order(BUY, "79999.0", time_in_force=TimeInForce.GOOD_TIL_DAY), NOW).order
    stays = engine.place(order(BUY, "79999.0"), NOW).order
    engine.settle(NOW)
    assert (day.cancel_reason, stays.state) == (CancelReason.SETTLEMENT, OrderState.OPEN)


def test_the_speed_bump_holds_takers_only():
    engine = make_engine(speed_bump_ms=10)
    resting = engine.place(order(BUY, "0.0041", "1", OPTION), NOW).order
    taking = engine.place(order(BUY, "0.0050", "1", OPTION), NOW).order
    pulled = engine.place(order(BUY, "0.0050", "1", OPTION), NOW + 1).order
    exempt = engine.place(order(BUY, "80000.5", "10"), NOW).order
    assert [one.state for one in (resting, taking, exempt)] == [
        OrderState.OPEN,
        OrderState.SPEED_BUMPED,
        OrderState.FILLED,
    ]
    engine.cancel("a", pulled.order_id, NOW + 2)
    assert engine.release(NOW + 9) == []
    engine.set_levels(OPTION, {}, {D("0.0050"): D("1")}, NOW + 9, snapshot=False)
    engine.release(NOW + 11)
    assert taking.state is OrderState.FILLED
    assert (pulled.state, pulled.filled) == (OrderState.CANCELLED, Decimal(0))


def test_the_most_orders_ever_open_are_remembered(engine):
    for price in ("79999.0", "79998.0"):
        engine.cancel("a", engine.place(order(BUY, price), NOW).order.order_id, NOW)
    assert engine.floor.max_open["a", PERP, BUY] == 1
    engine.place(order(BUY, "79999.0"), NOW)
    engine.place(order(BUY, "79998.0"), NOW)
    assert engine.floor.max_open["a", PERP, BUY] == 2


def test_same_seed_same_ids():
    ids = [make_engine(seed=7).place(order(BUY, "79999.0"), NOW).order.order_id for _ in range(2)]
    assert ids[0] == ids[1] != make_engine(seed=8).place(order(BUY, "79999.0"), NOW).order.order_id
    assert make_engine().place(order(BUY, "2999.00", "1", LINEAR), NOW).order.order_id.startswith("USDC-")
