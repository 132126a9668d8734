"""The fold over fills, the rolling volatility, and the quality of market data."""

import math
import random
from decimal import Decimal

import pytest
from core_kit import ASK, BID, INVERSE, LINEAR, NS, OPTION, PLAIN, book, fill, settings, ticker
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.market import MarketState
from mmd.core.pnl import Fold, Position, usd_value
from mmd.core.rules import rules_for
from mmd.core.volatility import Volatility
from mmd.domain import events as ev
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side, Why

# --- position and profit ------------------------------------------------------------------------------


def folded(instrument: Instrument, *fills: tuple[Side, int, str], fee: str = "0") -> Position:
    position = Position(instrument)
    for n, (side, lots, price) in enumerate(fills):
        position.fill(fill("L", f"t{n}", side, lots, price, fee=fee, currency=instrument.settlement), 0.0)
    return position


@pytest.mark.parametrize(
    ("instrument", "fills", "mark", "lots", "average", "realized", "unrealized"),
    [
        pytest.param(LINEAR, [(BID, 100, "2000")], 2100.0, 100, 2000.0, 0.0, 100.0, id="linear long: 1 ETH"),
        pytest.param(LINEAR, [(ASK, 100, "2000")], 2100.0, -100, 2000.0, 0.0, -100.0, id="linear short"),
        pytest.param(
            LINEAR, [(BID, 100, "2000"), (BID, 100, "2200")], 2100.0, 200, 2100.0, 0.0, 0.0, id="linear average"
        ),
        pytest.param(
            LINEAR, [(BID, 100, "2000"), (ASK, 40, "2100")], 2100.0, 60, 2000.0, 40.0, 60.0, id="linear part closed"
        ),
        pytest.param(
            LINEAR, [(BID, 100, "2000"), (ASK, 150, "2100")], 2000.0, -50, 2100.0, 100.0, 50.0, id="linear flip"
        ),
        pytest.param(
            LINEAR, [(BID, 100, "2000"), (ASK, 100, "2100")], 0.0, 0, 0.0, 100.0, 0.0, id="flat needs no mark"
        ),
        pytest.param(
            INVERSE, [(BID, 1000, "50000")], 40000.0, 1000, 50000.0, 0.0, -0.05, id="inverse long: 10,000 USD, in coin"
        ),
        pytest.param(
            INVERSE,
            [(BID, 1000, "50000"), (ASK, 1000, "40000")],
            1.0,
            0,
            0.0,
            10_000 * (1 / 50_000 - 1 / 40_000),
            0.0,
            id="inverse loss",
        ),
        pytest.param(
            INVERSE,
            [(BID, 1000, "50000"), (BID, 1000, "40000")],
            44444.444444444445,
            2000,
            44444.444444444445,
            0.0,
            0.0,
            id="inverse average is harmonic",
        ),
        pytest.param(
            INVERSE,
            [(BID, 1000, "50000"), (ASK, 1500, "60000")],
            60000.0,
            -500,
            60000.0,
            10_000 * (1 / 50_000 - 1 / 60_000),
            0.0,
            id="inverse flip",
        ),
        pytest.param(OPTION, [(BID, 10, "0.05")], 0.06, 10, 0.05, 0.0, 0.01, id="inverse option: coin per coin"),
        pytest.param(
            OPTION, [(ASK, 10, "0.05"), (BID, 4, "0.02")], 0.02, -6, 0.05, 0.012, 0.018, id="inverse option written"
        ),
    ],
)
def test_profit(
    instrument: Instrument,
    fills: list[tuple[Side, int, str]],
    mark: float,
    lots: int,
    average: float,
    realized: float,
    unrealized: float,
) -> None:
    position = folded(instrument, *fills)
    profit = position.profit(mark)
    assert profit is not None
    assert position.lots == lots
    assert float(position.average) == pytest.approx(average)
    assert (profit.realized, profit.unrealized) == pytest.approx((realized, unrealized), abs=1e-12)


def test_fees_are_paid_and_rebates_received() -> None:
    paid = folded(LINEAR, (BID, 100, "2000"), (ASK, 100, "2000"), fee="0.5").profit(0.0)
    received = folded(LINEAR, (BID, 100, "2000"), (ASK, 100, "2000"), fee="-0.5").profit(0.0)
    assert paid is not None and received is not None
    assert (paid.fees, paid.total) == (1.0, -1.0)
    assert (received.fees, received.total) == (-1.0, 1.0)


def test_fees_in_another_currency_are_kept_apart() -> None:
    position = Position(LINEAR)
    position.fill(fill("L", "t1", BID, 100, "2000", fee="0.01", currency="BTC"), 0.0)
    position.fill(fill("L", "t2", BID, 100, "2000", fee="0.02", currency="BTC"), 0.0)
    assert position.fees == 0
    assert position.foreign_fees == {"BTC": Decimal("0.03")}


def test_a_trade_id_counts_once() -> None:
    position = Position(LINEAR)
    assert position.fill(fill("L", "t1", BID, 100, "2000"), 0.0) is Fold.COUNTED
    assert position.fill(fill("L", "t1", BID, 100, "2000"), 0.0) is Fold.REPEATED
    assert (position.lots, position.fills, position.seen("t1")) == (100, 1, True)


def test_a_position_without_a_mark_has_no_profit() -> None:
    position = folded(LINEAR, (BID, 100, "2000"))
    assert position.profit(0.0) is None
    assert position.profit(math.nan) is None


def test_adopting_starts_from_the_exchanges_count() -> None:
    position = Position(LINEAR)
    assert not position.known
    position.adopt(-50, Decimal(2000))
    profit = position.profit(1900.0)
    assert position.known and profit is not None and profit.unrealized == pytest.approx(50.0)
    position.adopt(0, Decimal(1))
    assert position.average == 0


trades = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 500), st.integers(1000, 3000)), min_size=1, max_size=30
)


@given(steps=trades, mark=st.integers(1000, 3000), instrument=st.sampled_from([LINEAR, INVERSE, OPTION]))
def test_profit_is_cash_plus_value(steps: list[tuple[Side, int, int]], mark: int, instrument: Instrument) -> None:
    """The ledger identity: whatever the order of fills, profit = what came in + what the rest is worth."""
    position = folded(instrument, *((side, lots, str(price)) for side, lots, price in steps))
    amount = float(instrument.lot)
    signed = [(lots if side is BID else -lots, price) for side, lots, price in steps]
    if instrument.amount_is_usd:
        cash = sum(lots * amount / price for lots, price in signed)
        value = -sum(lots for lots, _ in signed) * amount / mark
    else:
        cash = -sum(lots * amount * price for lots, price in signed)
        value = sum(lots for lots, _ in signed) * amount * mark
    profit = position.profit(float(mark))
    assert profit is not None
    assert position.lots == sum(lots for lots, _ in signed)
    assert profit.total == pytest.approx(cash + value, rel=1e-9, abs=1e-6)


@given(steps=trades, draw=st.randoms(use_true_random=False))
def test_repetitions_change_nothing(steps: list[tuple[Side, int, int]], draw: random.Random) -> None:
    events = [fill("L", f"t{n}", side, lots, str(price)) for n, (side, lots, price) in enumerate(steps)]
    once, often = Position(LINEAR), Position(LINEAR)
    for n, event in enumerate(events):
        once.fill(event, 0.0)
        often.fill(event, 0.0)
        often.fill(events[draw.randrange(n + 1)], 0.0)
    assert once.snapshot() == often.snapshot()


@pytest.mark.parametrize(
    ("instrument", "amount", "index", "expected"),
    [
        pytest.param(LINEAR, 5.0, 0.0, 5.0, id="a stable coin is a dollar"),
        pytest.param(INVERSE, 0.5, 60_000.0, 30_000.0, id="coins at the index"),
        pytest.param(INVERSE, 0.5, 0.0, None, id="no index: cannot say"),
        pytest.param(INVERSE, 0.0, 0.0, 0.0, id="nothing is nothing"),
    ],
)
def test_usd_value(instrument: Instrument, amount: float, index: float, expected: float | None) -> None:
    assert usd_value(instrument, amount, index) == expected


# --- volatility ---------------------------------------------------------------------------------------


def fed(returns: list[float], step_seconds: float = 1.0) -> Volatility:
    volatility, price, now = Volatility(30.0, 300.0), 100.0, NS
    volatility.observe(price, now)
    for value in returns:
        price *= math.exp(value)
        now += int(step_seconds * NS)
        volatility.observe(price, now)
    return volatility


@pytest.mark.parametrize("step_seconds", [0.1, 1.0, 7.0])
def test_a_constant_move_is_measured_exactly(step_seconds: float) -> None:
    """|return| of 10 bps per second-root, on any clock."""
    size = 1e-3 * math.sqrt(step_seconds)
    volatility = fed([size if n % 2 else -size for n in range(50)], step_seconds)
    assert volatility.sigma_bps(1.0) == pytest.approx(10.0, rel=1e-6)
    assert volatility.sigma_bps(4.0) == pytest.approx(20.0, rel=1e-6)
    assert volatility.annual() == pytest.approx(1e-3 * math.sqrt(365 * 86400), rel=1e-6)


def test_width_grows_at_once_and_shrinks_slowly() -> None:
    calm = fed([1e-4, -1e-4] * 300)
    storm = fed([1e-4, -1e-4] * 300 + [5e-3, -5e-3] * 10)
    after = fed([1e-4, -1e-4] * 300 + [5e-3, -5e-3] * 10 + [1e-4, -1e-4] * 30)
    assert storm.sigma_bps(1.0) > 10 * calm.sigma_bps(1.0)
    assert storm.sigma_bps(1.0) > after.sigma_bps(1.0) > 3 * calm.sigma_bps(1.0)


def test_half_life_of_the_slow_estimator() -> None:
    volatility = fed([1e-3, -1e-3] * 500)
    before = volatility.sigma_bps(1.0) ** 2
    quiet = fed([1e-3, -1e-3] * 500 + [0.0] * 300)
    assert quiet.sigma_bps(1.0) ** 2 == pytest.approx(before / 2, rel=0.01)


def test_not_ready_before_ten_steps() -> None:
    assert not fed([1e-3] * 9).ready
    assert fed([1e-3] * 10).ready


def test_bursts_and_clocks_that_go_back_are_ignored() -> None:
    volatility = fed([1e-3] * 20)
    before = volatility.snapshot()
    volatility.observe(500.0, 21 * NS + 1000)
    volatility.observe(500.0, 5 * NS)
    volatility.observe(0.0, 500 * NS)
    assert volatility.snapshot() == before


@pytest.mark.parametrize(("fast", "slow"), [(0.0, 1.0), (10.0, 5.0), (-1.0, 1.0)])
def test_impossible_half_lives(fast: float, slow: float) -> None:
    with pytest.raises(ValueError, match="half-lives"):
        Volatility(fast, slow)


# --- market data --------------------------------------------------------------------------------------

RULES = rules_for(PLAIN, settings())
T = 1_000 * NS


def market() -> MarketState:
    state = MarketState(PLAIN)
    state.data_link = state.trade_link = True
    state.on_book(book(990, 1010, T), RULES)
    return state


def reason(state: MarketState, now_ns: int = T) -> Why | None:
    found = state.trouble(now_ns, RULES)
    return found[0] if found else None


def test_a_good_market() -> None:
    assert reason(market()) is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(book(1011, 1010, T), Why.CROSSED_BOOK, id="crossed"),
        pytest.param(book(1010, 1010, T), Why.LOCKED_BOOK, id="locked"),
        pytest.param(book(0, 1010, T), None, id="no bid is no trouble"),
        pytest.param(book(0, 0, T), None, id="an empty book is no trouble"),
        pytest.param(book(1101, 1121, T), Why.PRICE_JUMP, id="more than 10 %"),
        pytest.param(book(1090, 1109, T), None, id="a little less than 10 %"),
        pytest.param(book(879, 900, T), Why.PRICE_JUMP, id="down counts as well"),
    ],
)
def test_book_quality(event: ev.BookTop, expected: Why | None) -> None:
    state = market()
    state.on_book(event, RULES)
    assert reason(state) is expected


def test_a_jump_is_latched_and_a_cross_is_not() -> None:
    state = market()
    state.on_book(book(1020, 1010, T), RULES)
    state.on_book(book(990, 1010, T), RULES)
    assert reason(state) is None
    state.on_book(book(1200, 1220, T), RULES)
    state.on_book(book(1201, 1221, T), RULES)
    assert reason(state) is Why.PRICE_JUMP
    state.clear_latches()
    assert reason(state) is None


def test_a_jump_is_measured_over_one_sided_books_and_not_over_gaps() -> None:
    state = market()
    state.on_book(book(990, 0, T), RULES)
    state.on_book(book(1200, 1220, T), RULES)
    assert reason(state) is Why.PRICE_JUMP
    fresh = market()
    fresh.on_broken(ev.BookBroken(Why.BOOK_GAP, "", T))
    assert reason(fresh) is Why.BOOK_GAP
    fresh.on_book(book(1200, 1220, T), RULES)
    assert reason(fresh) is None, "a new snapshot is a new baseline"


def test_silence() -> None:
    state = market()
    assert reason(state, T + 10 * NS) is None
    assert reason(state, T + 10 * NS + 1) is Why.STALE_BOOK
    state.on_ticker(ticker(T + 5 * NS))
    assert reason(state, T + 15 * NS) is None
    assert reason(MarketState(PLAIN)) is Why.EXCHANGE_DISCONNECTED


def test_no_book_yet_is_stale_not_fine() -> None:
    state = MarketState(PLAIN)
    state.data_link = state.trade_link = True
    state.on_ticker(ticker(T))
    assert reason(state) is Why.STALE_BOOK


def test_links_and_instrument_come_first() -> None:
    state = market()
    state.on_state(ev.InstrumentStateChanged("locked", False, False, T))
    assert reason(state) is Why.MARKET_HALTED
    state.on_data_lost("reset")
    assert reason(state) is Why.EXCHANGE_DISCONNECTED


def test_reference_prices_in_ticks() -> None:
    state = market()
    assert state.reference_ticks(1000.0) == 1000.0
    state.on_ticker(ticker(T, mark=101.0, index=102.0, low=50.0, high=150.0))
    assert state.reference_ticks(1000.0) == pytest.approx(1010.0)
    assert (state.index_ticks, state.min_ticks, state.max_ticks) == pytest.approx((1020.0, 500.0, 1500.0))


def test_an_index_in_dollars_is_no_price_of_an_option_in_coin() -> None:
    state = MarketState(OPTION)
    state.on_ticker(ticker(T, mark=0.05, index=34_000.0))
    assert state.index_ticks == 0.0
    assert state.mark_ticks == pytest.approx(500.0)
