"""What makes market data good or bad, each input by itself, and the collar in volatility."""

from typing import Any

import pytest
from core_kit import INVERSE, LINEAR, NS, OPTION, PLAIN, START_NS, book, changed, settings, ticker

from mmd.core.market import LEAST, MARK_AGES, MOST, MarketState
from mmd.core.options.black76 import OptionType, price
from mmd.core.rules import rules_for
from mmd.domain import events as ev
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Side, Why

RULES = rules_for(PLAIN, settings())
STALE_NS = RULES.stale_ns


def state(instrument: Instrument = PLAIN) -> MarketState:
    """Both links up and a good book, 990 at 1010, at second 0."""
    market = MarketState(instrument)
    market.data_link = market.trade_link = True
    market.on_book(book(990, 1010, START_NS), RULES)
    return market


def why(market: MarketState, at_ns: int = START_NS) -> Why | None:
    trouble = market.trouble(at_ns, RULES)
    return trouble[0] if trouble else None


def touch_ticker(bid: float, ask: float, at_ns: int) -> ev.Ticker:
    return changed(ticker(at_ns), best_bid=bid, best_ask=ask)


def test_all_is_well() -> None:
    assert why(state()) is None


@pytest.mark.parametrize("link", ["data_link", "trade_link"])
def test_either_link_is_needed(link: str) -> None:
    market = state()
    setattr(market, link, False)
    assert why(market) is Why.EXCHANGE_DISCONNECTED


def test_data_is_fresh_up_to_its_limit() -> None:
    market = state()
    assert why(market, START_NS + STALE_NS) is None
    assert why(market, START_NS + STALE_NS + 1) is Why.STALE_BOOK


def test_an_old_trade_does_not_make_the_data_older() -> None:
    market = state()
    market.on_trade(ev.TradePrinted(1000, 1, Side.BID, 0, START_NS - 5 * NS))
    assert market.data_ns == START_NS
    market.on_trade(ev.TradePrinted(1000, 1, Side.BID, 0, START_NS + NS))
    assert market.data_ns == START_NS + NS


def test_a_book_that_broke_or_was_lost_is_no_book() -> None:
    market = state()
    market.on_broken(ev.BookBroken(Why.BOOK_GAP, "7 after 5", START_NS))
    assert (market.book, why(market)) == (None, Why.BOOK_GAP)
    market.on_book(book(990, 1010, START_NS), RULES)
    assert why(market) is None
    market.on_data_lost("cut")
    market.data_link = True
    assert (market.book, why(market)) == (None, Why.STALE_BOOK)


@pytest.mark.parametrize("blind", ["broken", "lost"])
def test_a_price_after_blindness_is_no_jump(blind: str) -> None:
    """What happened meanwhile was not seen: there is nothing to measure a jump from."""
    market = state()
    if blind == "broken":
        market.on_broken(ev.BookBroken(Why.BOOK_GAP, "", START_NS))
    else:
        market.on_data_lost("cut")
        market.data_link = True
    market.on_book(book(1490, 1510, START_NS), RULES)
    assert why(market) is None
    market.on_book(book(990, 1010, START_NS), RULES)
    assert why(market) is Why.PRICE_JUMP


@pytest.mark.parametrize(("bid", "ask"), [(1190, 1210), (790, 810)], ids=["up", "down"])
def test_a_jump_either_way_stays_with_its_first_finding(bid: int, ask: int) -> None:
    market = state()
    market.on_book(book(bid, ask, START_NS), RULES)
    first = market.jump
    assert first is not None and "2000 bps" in first[1]
    market.on_book(book(490, 510, START_NS), RULES)
    market.on_book(book(500, 520, START_NS), RULES)
    assert market.jump is first and why(market) is Why.PRICE_JUMP
    market.clear_latches()
    assert why(market) is None


@pytest.mark.parametrize(("bid", "ask"), [(99.0, 101.1), (99.1, 101.0), (0.0, 101.0)], ids=["ask", "bid", "no bid"])
def test_a_ticker_that_differs_on_one_side_differs(bid: float, ask: float) -> None:
    market = state()
    for second in range(1, 12):
        market.on_ticker(touch_ticker(bid, ask, START_NS + second * NS))
        assert why(market, START_NS + second * NS) is None
    at_ns = START_NS + NS + STALE_NS + 1  # since the first that differed, not since the last
    market.on_ticker(touch_ticker(bid, ask, at_ns))
    assert why(market, at_ns) is Why.STALE_BOOK


@pytest.mark.parametrize("agrees", ["ticker", "book"])
def test_agreeing_once_ends_the_difference(agrees: str) -> None:
    market = state()
    for second in range(1, 40):
        at_ns = START_NS + second * NS
        market.on_ticker(touch_ticker(99.1, 101.1, at_ns))
        if second % 8 == 0 and agrees == "ticker":
            market.on_ticker(touch_ticker(99.0, 101.0, at_ns))
        elif second % 8 == 0:
            market.on_book(book(990, 1010, at_ns), RULES)
        assert why(market, at_ns) is None


# --- a ticker that has died ---------------------------------------------------------------------------

LATER_NS = START_NS + STALE_NS + 1


def ticked(bid: float = 99.0, ask: float = 101.0) -> MarketState:
    """As `state`, and a ticker with the book's own touch, or this one."""
    market = state()
    market.on_ticker(touch_ticker(bid, ask, START_NS))
    return market


def lively(market: MarketState, bid: int, ask: int, until_ns: int) -> None:
    """A book ten times a second, from the start to then."""
    for at_ns in range(START_NS, until_ns, NS // 10):
        market.on_book(book(bid, ask, at_ns), RULES)
    market.on_book(book(bid, ask, until_ns), RULES)


@pytest.mark.parametrize(("bid", "ask"), [(991, 1010), (990, 1009), (0, 1010), (990, 0)])
def test_a_silent_ticker_under_a_lively_book_is_dead(bid: int, ask: int) -> None:
    """Mark, band and collars would go on from where it stopped. Since the first book that differed."""
    market = ticked()
    lively(market, bid, ask, START_NS + STALE_NS)
    assert why(market, START_NS + STALE_NS) is None
    lively(market, bid, ask, LATER_NS)
    trouble = market.trouble(LATER_NS, RULES)
    assert trouble == (Why.STALE_BOOK, "no ticker for 10.0 s although the book shows other prices")
    assert market.stale_at_ns(RULES) == LATER_NS


def test_a_silent_ticker_that_agrees_is_a_quiet_market() -> None:
    market = ticked()
    for second in range(600):
        market.on_book(book(990, 1010, START_NS + second * NS, lots=1 + second), RULES)
        assert why(market, START_NS + second * NS) is None
    one_sided = state()
    one_sided.on_book(book(0, 1010, START_NS), RULES)
    one_sided.on_ticker(touch_ticker(0.0, 101.0, START_NS))
    lively(one_sided, 0, 1010, LATER_NS)
    assert why(one_sided, LATER_NS) is None


@pytest.mark.parametrize("ends", ["ticker", "book"])
def test_a_ticker_or_a_book_that_comes_back_ends_it(ends: str) -> None:
    market = ticked()
    for second in range(1, 40):
        at_ns = START_NS + second * NS
        if second % 8 == 0 and ends == "ticker":
            market.on_ticker(touch_ticker(90.0, 91.0, at_ns))  # another touch again: both are alive
        market.on_book(book(990 if second % 8 == 0 and ends == "book" else 991, 1010, at_ns), RULES)
        assert why(market, at_ns) is None


def test_a_ticker_that_tells_no_touch_means_the_books_of_its_time() -> None:
    market = state()
    market.on_ticker(ticker(START_NS))
    lively(market, 990, 1010, LATER_NS)
    assert why(market, LATER_NS) is None
    market.on_ticker(ticker(START_NS))
    lively(market, 980, 1000, LATER_NS)
    assert why(market, LATER_NS) is Why.STALE_BOOK
    early = MarketState(PLAIN)
    early.data_link = early.trade_link = True
    early.on_ticker(ticker(START_NS))  # before any book
    lively(early, 990, 1010, LATER_NS)
    assert why(early, LATER_NS) is None


def test_without_a_ticker_there_is_none_to_be_late() -> None:
    market = state()
    lively(market, 900, 950, LATER_NS)
    market.clear_latches()
    assert why(market, LATER_NS) is None


def test_a_lost_link_begins_the_comparison_anew() -> None:
    market = ticked()
    market.on_book(book(991, 1010, START_NS), RULES)
    market.on_data_lost("cut")
    market.on_data_up(LATER_NS)
    market.on_book(book(991, 1010, LATER_NS), RULES)
    assert why(market, LATER_NS) is None
    market.on_book(book(991, 1010, LATER_NS + STALE_NS + 1), RULES)
    assert why(market, LATER_NS + STALE_NS + 1) is Why.STALE_BOOK


# --- a mark that is none any more ---------------------------------------------------------------------

OLD_NS = START_NS + MARK_AGES * STALE_NS


def stale_at(market: MarketState) -> int | None:
    """From which second on the mark counts as unknown; looked for within five minutes."""
    seconds = (second for second in range(300) if market.mark_is_stale(START_NS + second * NS, RULES))
    return next(seconds, None)


def test_a_mark_is_stale_when_the_book_has_left_its_ticker_or_it_is_old() -> None:
    assert not ticked().mark_is_stale(OLD_NS, RULES) and ticked().mark_is_stale(OLD_NS + 1, RULES)
    left = ticked()
    left.on_book(book(991, 1010, START_NS + 5 * NS), RULES)
    assert (stale_at(left), stale_at(ticked())) == (16, 31)
    left.on_ticker(touch_ticker(99.1, 101.0, START_NS + 20 * NS))
    assert stale_at(left) == 51
    assert stale_at(state()) is None  # without a ticker there is no mark that could be old


def test_where_no_ticker_can_come_the_last_mark_stays() -> None:
    cut, closed, over = ticked(), ticked(), ticked()
    cut.on_data_lost("cut")
    closed.on_state(ev.InstrumentStateChanged("halted", False, False, START_NS))
    over.instrument = changed(PLAIN, expiry_ns=OLD_NS)
    assert [stale_at(market) for market in (cut, closed, over)] == [None, None, None]
    cut.on_data_up(START_NS + 100 * NS)
    closed.on_state(ev.InstrumentStateChanged("open", True, False, START_NS + 100 * NS))
    closed.on_state(ev.InstrumentStateChanged("open", True, False, START_NS + 110 * NS))  # that is no news
    assert [stale_at(market) for market in (cut, closed)] == [131, 131]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 5e-324, 1e-300, 1e308, -1.0])
@pytest.mark.parametrize("name", ["mark", "index", "underlying", "mark_iv", "min_price", "max_price"])
def test_a_reference_that_can_be_no_price_is_unknown(name: str, odd: float) -> None:
    market = MarketState(OPTION)
    market.on_ticker(changed(option_ticker(), **{"min_price": 0.01, "max_price": 0.1, name: odd}))
    figures = {
        "mark": market.mark,
        "index": market.index,
        "underlying": market.underlying,
        "mark_iv": market.mark_iv,
        "min_price": market.min_ticks,
        "max_price": market.max_ticks,
    }
    assert [known for known, figure in figures.items() if not figure] == [name]
    assert bool(market.mark_ticks) is (name != "mark") and bool(market.lot_usd) is (name != "index")
    assert (market.vol_collar(10.0) == (0.0, 0.0)) is (name in ("underlying", "mark_iv"))


@pytest.mark.parametrize("name", ["mark", "index", "underlying", "mark_iv"])
@pytest.mark.parametrize("extreme", [LEAST, MOST])
def test_the_smallest_and_the_largest_reference_can_be_computed_with(name: str, extreme: float) -> None:
    market = MarketState(OPTION)
    market.on_ticker(changed(option_ticker(), **{name: extreme}))
    low, high = market.vol_collar(10.0)
    assert 0.0 <= low <= high < float("inf")


def test_the_end_of_an_instrument_is_final() -> None:
    market = state()
    market.on_state(ev.InstrumentStateChanged("settlement", False, True, START_NS))
    market.on_state(ev.InstrumentStateChanged("open", True, False, START_NS))
    assert market.terminal and market.tradable


def test_a_lot_is_worth_nothing_known_without_an_index() -> None:
    """An order's value in dollars cannot be computed then: the gate refuses it."""
    linear, inverse = state(LINEAR), state(INVERSE)
    assert (linear.lot_usd, inverse.lot_usd) == (0.0, 10.0)
    for market in (linear, inverse):
        market.on_ticker(ticker(START_NS, 2000.0, 2000.0))
    assert (linear.lot_usd, inverse.lot_usd) == (20.0, 10.0)
    for market in (linear, inverse):
        market.on_ticker(ticker(START_NS, 2000.0, 0.0))
    assert (linear.lot_usd, inverse.lot_usd) == (0.0, 10.0)


# --- the collar in volatility -------------------------------------------------------------------------

FORWARD, STRIKE, DAY = 35_000.0, 34_000.0, 1 / 365.0
LINEAR_OPTION = changed(OPTION, contract=Contract.LINEAR, grid=changed(OPTION.grid, steps=()))


def option_ticker(iv: float = 70.0, forward: float = FORWARD) -> ev.Ticker:
    return changed(ticker(START_NS, 0.05, forward), mark_iv=iv)


def worth(kind: OptionType, iv: float) -> float:
    return price(kind, FORWARD, STRIKE, DAY, iv / 100.0)


@pytest.mark.parametrize(
    ("instrument", "unit", "step"),
    [
        pytest.param(OPTION, 0.0001 * FORWARD, 5, id="inverse call, in coins"),
        pytest.param(changed(OPTION, kind=Kind.PUT), 0.0001 * FORWARD, 5, id="inverse put"),
        pytest.param(LINEAR_OPTION, 0.0001, 1, id="linear call, in dollars"),
    ],
)
def test_the_collars_ends_are_the_prices_at_both_volatilities(instrument: Instrument, unit: float, step: int) -> None:
    """Rounded outwards, to the grid: by less than a step."""
    market = MarketState(instrument)
    market.on_ticker(option_ticker())
    low, high = market.vol_collar(10.0)
    kind = OptionType.PUT if instrument.kind is Kind.PUT else OptionType.CALL
    cheap, dear = worth(kind, 60.0) / unit, worth(kind, 80.0) / unit
    assert low <= cheap < low + step and high - step < dear <= high
    assert low < worth(kind, 70.0) / unit < high


def test_the_collar_follows_the_volatility_and_the_points() -> None:
    market = MarketState(OPTION)
    market.on_ticker(option_ticker(70.0))
    first = market.vol_collar(10.0)
    assert market.vol_collar(5.0)[0] > first[0] and market.vol_collar(10.0) == first
    market.on_ticker(changed(option_ticker(90.0), received_ns=START_NS + 1))
    assert market.vol_collar(10.0)[0] > first[0]


@pytest.mark.parametrize(
    "missing",
    [{"iv": 0.0}, {"iv": -1.0}, {"forward": 0.0}],
    ids=["no volatility", "a volatility that is none", "no forward"],
)
def test_a_collar_that_cannot_be_computed_is_unknown(missing: dict[str, Any]) -> None:
    market = MarketState(OPTION)
    assert market.vol_collar(10.0) == (0.0, 0.0)
    market.on_ticker(option_ticker(**missing))
    assert market.vol_collar(10.0) == (0.0, 0.0)


def test_an_options_index_is_no_price_of_it() -> None:
    market = MarketState(OPTION)
    market.on_ticker(option_ticker())
    assert market.index_ticks == 0.0 and market.mark_ticks == pytest.approx(500.0)
