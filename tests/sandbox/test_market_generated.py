"""The generated market: deterministic, uncrossed, fresh, priced from an arbitrage-free smile, settled at expiry."""

import itertools
import math
import time
from collections import Counter
from decimal import Decimal

import pytest
from market_tools import FakeVenue, engine_for, run

from mmd.core.options import black76
from mmd.core.options.black76 import OptionType
from mmd.sandbox.burst import BurstMarket
from mmd.sandbox.makers import grid_of
from mmd.sandbox.markets import GeneratorSettings, generated_market
from mmd.sandbox.model import InstrumentState
from mmd.sandbox.notices import TradesPrinted
from mmd.sandbox.universe import YEAR_MS

NOW_MS = 1_790_000_000_000  # 21 September 2026, 14:13 UTC
EXPIRY_MS = 1_790_064_000_000  # 22 September 2026, 08:00 UTC
PERPETUAL = "BTC-PERPETUAL"


def lively(seed: int, *names: str, until_ms: int = 30_000, settings: GeneratorSettings | None = None):
    """A market on a venue that remembers, these instruments wanted, run for a while."""
    market, venue = generated_market(seed, settings=settings, now_ms=NOW_MS), FakeVenue()
    market.start(venue, NOW_MS)
    for name in names:
        market.want(name, NOW_MS)
    run(market, NOW_MS, NOW_MS + until_ms)
    return market, venue


MIX = (PERPETUAL, "ETH-PERPETUAL", "BTC_USDC-PERPETUAL", "BTC-25DEC26", "BTC-25DEC26-80000-C", "ETH-25DEC26-2400-P",
       "BTC_USDC-25DEC26-80000-P", "BTC-22SEP26-76000-C")  # fmt: skip


def test_the_same_seed_and_steps_give_the_same_market():
    logs = [lively(seed, *MIX)[1].log for seed in (1, 1, 2)]
    assert logs[0] == logs[1] != logs[2]


def test_how_often_it_is_stepped_does_not_matter():
    _, often = lively(1, *MIX, until_ms=10_000)
    market, seldom = generated_market(1, now_ms=NOW_MS), FakeVenue()
    market.start(seldom, NOW_MS)
    for name in MIX:
        market.want(name, NOW_MS)
    for at in range(NOW_MS, NOW_MS + 10_001, 1_000):
        market.step(at)
    assert seldom.log == often.log


def test_books_are_empty_until_wanted_and_references_are_there_from_the_start():
    market, venue = generated_market(1, now_ms=NOW_MS), FakeVenue()
    market.start(venue, NOW_MS)
    assert not venue.books
    assert venue.references.keys() == {one.instrument_name for one in market.instruments()}
    assert venue.indices.keys() == {"btc_usd", "eth_usd", "btc_usdc", "eth_usdc"}
    market.want(PERPETUAL, NOW_MS)
    bid, ask = venue.touch(PERPETUAL)
    assert bid < ask <= bid + Decimal("1.5")
    market.want(PERPETUAL, NOW_MS)
    assert len(venue.entries("levels", PERPETUAL)) == 1


def test_books_are_never_crossed_and_always_on_the_grid():
    market, venue = generated_market(5, now_ms=NOW_MS), FakeVenue()
    grids = {one.instrument_name: grid_of(one) for one in market.instruments()}
    lots = {one.instrument_name: one.min_trade_amount for one in market.instruments()}
    market.start(venue, NOW_MS)
    for name in MIX:
        market.want(name, NOW_MS)
    now = NOW_MS
    while now < NOW_MS + 60_000:
        now = max(market.step(now), now + 1)
        for name in MIX:
            bids, asks = venue.books[name]
            assert not bids or not asks or max(bids) < min(asks), name
    for kind, name, _, bids, asks, _ in (entry for entry in venue.log if entry[0] == "levels"):
        for price, amount in (*bids.items(), *asks.items()):
            ticks = grids[name].ticks(price)
            assert ticks > 0 and grids[name].floor(ticks) == ticks, (kind, name, price)
            assert amount >= 0 and amount % lots[name] == 0


def test_density_and_freshness():
    seconds = 60
    _, venue = lively(1, *MIX, until_ms=seconds * 1000)
    rate = {name: len(venue.entries("levels", name)) / seconds for name in MIX}
    assert 10 <= rate[PERPETUAL] <= 22
    assert 1 <= rate["BTC-25DEC26-80000-C"] <= 3.5
    for name in MIX:
        times = [entry[2] for entry in venue.entries("reference", name)]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 500
    takes = Counter(entry[1] for entry in venue.log if entry[0] == "take")
    assert 0.5 <= takes[PERPETUAL] / seconds <= 3
    assert 0.05 <= takes["BTC-25DEC26-80000-C"] / seconds <= 0.5
    for index in ("btc_usd", "eth_usdc"):
        assert len(venue.entries("index", index)) >= seconds


def test_intensity_speeds_up_the_takers_alone():
    calm, wild = (
        lively(1, PERPETUAL, until_ms=60_000, settings=GeneratorSettings(intensity=intensity))[1]
        for intensity in (1.0, 5.0)
    )
    takes = [sum(entry[0] == "take" for entry in venue.log) for venue in (calm, wild)]
    assert 3.5 < takes[1] / takes[0] < 6.5


def test_marks_are_black_76_at_the_published_volatility():
    market, venue = lively(1, *MIX)
    checked = 0
    for one in market.instruments():
        reference = venue.references[one.instrument_name]
        if one.kind == "option" and one.expiration_timestamp > EXPIRY_MS + 86_400_000:
            forward = float(reference.underlying_price)
            # References of unwanted options are up to a minute old: that is nothing for these expiries.
            years = (one.expiration_timestamp - NOW_MS) / YEAR_MS
            usd = black76.price(OptionType(one.option_type), forward, float(one.strike), years, reference.mark_iv / 100)
            unit = forward if one.instrument_type == "reversed" else 1.0
            tolerance = 2e-5 if unit > 1 else 3.0
            assert float(reference.mark_price) == pytest.approx(usd / unit, rel=5e-3, abs=tolerance)
            checked += 1
    assert checked > 300


def test_the_smile_admits_no_static_arbitrage():
    """Call prices fall and are convex in the strike; total variance at the money does not fall with time."""
    market, venue = generated_market(1, now_ms=NOW_MS), FakeVenue()
    market.start(venue, NOW_MS)
    chains: dict[int, list[tuple[float, float, float]]] = {}
    for one in market.instruments():
        if one.option_type == "call" and one.instrument_name.startswith("BTC-"):
            reference = venue.references[one.instrument_name]
            usd = float(reference.mark_price) * float(reference.underlying_price)
            chains.setdefault(one.expiration_timestamp, []).append((float(one.strike), usd, reference.mark_iv))
    assert len(chains) == 7
    variances = []
    for expiry, chain in sorted(chains.items()):
        chain.sort()
        slopes = [(c1 - c0) / (k1 - k0) for (k0, c0, _), (k1, c1, _) in itertools.pairwise(chain)]
        assert all(-1.001 <= slope <= 1e-3 for slope in slopes)
        assert all(b - a > -1e-3 for a, b in itertools.pairwise(slopes))
        nearest = min(chain, key=lambda row: abs(row[0] - 78_000))
        assert max(iv for *_, iv in chain) > nearest[2] + 1, "wings above the money"
        variances.append(nearest[2] ** 2 * (expiry - NOW_MS))
    assert variances == sorted(variances)


def test_deep_options_may_have_no_bid():
    market, venue = generated_market(1, now_ms=NOW_MS), FakeVenue()
    started = EXPIRY_MS - 3 * 3_600_000
    market.start(venue, started)
    calls = [one for one in market.instruments() if one.instrument_name.startswith("BTC-22SEP26") and one.option_type]
    for one in calls:
        market.want(one.instrument_name, started)
    bidless = [one for one in calls if not venue.books[one.instrument_name][0]]
    assert 0 < len(bidless) < len(calls)
    for one in bidless:
        assert venue.books[one.instrument_name][1]
        assert venue.references[one.instrument_name].mark_price < Decimal("0.0005")


def test_underlyings_move_together_by_their_volatility():
    market, venue = generated_market(11, now_ms=NOW_MS), FakeVenue()
    market.start(venue, NOW_MS)
    run(market, NOW_MS, NOW_MS + 1_800_000)
    moves = {}
    for index in ("btc_usd", "eth_usd"):
        prices = [float(entry[3]) for entry in venue.entries("index", index)][::5]
        moves[index] = [math.log(b / a) for a, b in itertools.pairwise(prices)]
    deviations = {
        index: math.sqrt(sum(m * m for m in values) / len(values) * YEAR_MS / 5_000) for index, values in moves.items()
    }
    assert 0.3 < deviations["btc_usd"] < 1.2
    products = [a * b for a, b in zip(moves["btc_usd"], moves["eth_usd"], strict=True)]
    norms = [math.sqrt(sum(m * m for m in values)) for values in moves.values()]
    assert sum(products) / (norms[0] * norms[1]) > 0.5


def test_at_expiry_positions_are_settled_at_the_average_index():
    market, venue = generated_market(1, now_ms=EXPIRY_MS - 1_200_000), FakeVenue()
    market.start(venue, EXPIRY_MS - 1_200_000)
    name = "BTC-22SEP26-78000-C"
    market.want(name, EXPIRY_MS - 5_000)
    run(market, EXPIRY_MS - 1_200_000, EXPIRY_MS + 10_000)
    expiring = {one.instrument_name for one in market.instruments() if one.expiration_timestamp == EXPIRY_MS}
    for instrument in expiring:
        assert [entry[2:] for entry in venue.entries("state", instrument)] == [(EXPIRY_MS, InstrumentState.SETTLEMENT)]
    delivered = {entry[1]: entry[3] for entry in venue.log if entry[0] == "deliver"}
    assert delivered.keys() == expiring
    prices = [float(entry[3]) for entry in venue.entries("index", "btc_usd") if entry[2] <= EXPIRY_MS]
    average = sum(prices) / len(prices)
    assert float(delivered[name]) == pytest.approx(average, rel=2e-4)
    assert max(entry[2] for entry in venue.log if entry[1] == name) == EXPIRY_MS
    done = len(venue.log)
    market.want(name, EXPIRY_MS + 10_000)
    assert len(venue.log) == done, "a delivered instrument does not come back to life"


def test_a_long_silence_is_not_made_up_for():
    market, venue = generated_market(1, now_ms=NOW_MS), FakeVenue()
    market.start(venue, NOW_MS)
    market.want(PERPETUAL, NOW_MS)
    run(market, NOW_MS, NOW_MS + 1_000)
    before = len(venue.log)
    later = NOW_MS + 6 * 3_600_000
    assert market.step(later) > later
    assert 0 < len(venue.log) - before < 400
    bid, ask = venue.touch(PERPETUAL)
    assert bid < ask and abs(float(bid) / float(venue.indices["btc_usd"]) - 1) < 0.01


def test_on_the_real_engine_a_hundred_instruments_are_cheap():
    market = generated_market(1, now_ms=NOW_MS)
    engine = engine_for(market, NOW_MS)
    names = [one.instrument_name for one in market.instruments() if one.base_currency == "BTC"][:100]
    for name in names:
        market.want(name, NOW_MS)
    trades, now, started = 0, NOW_MS, time.process_time()
    while now < NOW_MS + 20_000:
        now = max(market.step(now), now + 1)
        trades += sum(isinstance(notice, TradesPrinted) for notice in engine.drain())
    used = time.process_time() - started
    assert trades > 100
    assert used / 20 < 0.10, f"{used / 20:.1%} of one core"
    for name in names:
        bids, asks = engine.anonymous_levels(name)
        assert not bids or not asks or max(bids) < min(asks)


def test_burst_changes_both_best_prices_at_its_rate():
    market, venue = BurstMarket(["A-PERPETUAL", "B-PERPETUAL"], rate_per_second=1_000), FakeVenue()
    market.start(venue, NOW_MS)
    for one in market.instruments():
        market.want(one.instrument_name, NOW_MS)
    tops = [venue.touch("A-PERPETUAL")]
    now = NOW_MS
    while now <= NOW_MS + 1_000:
        now = market.step(now)
        if venue.touch("A-PERPETUAL") != tops[-1]:
            tops.append(venue.touch("A-PERPETUAL"))
    changes = [len(venue.entries("levels", name)) - 1 for name in ("A-PERPETUAL", "B-PERPETUAL")]
    assert changes == [500, 500]
    assert len(tops) == 501
    for (bid, ask), (next_bid, next_ask) in itertools.pairwise(tops):
        assert next_bid - bid == next_ask - ask != 0 and next_bid < next_ask
    assert len(venue.entries("reference", "A-PERPETUAL")) == 3


@pytest.mark.parametrize("arguments", [([], 1.0), (["A"], 0.0)])
def test_burst_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match="need a name"):
        BurstMarket(*arguments)
