"""The recorded market: replayed exactly, now, and continued by the generator without a jump."""

import json
from decimal import Decimal

import pytest
from market_tools import FakeVenue, engine_for, run

from mmd.domain.errors import ConfigError
from mmd.sandbox.feed import final_books, read_feed
from mmd.sandbox.markets import RECORDED_FEED, recorded_market, recorded_start_ms
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import NewOrder
from mmd.sandbox.universe import DAY_MS

FIRST_MS = 1_626_993_723_804
END_MS = 1_626_993_754_166
NOW_MS = 1_790_000_000_000  # 21 September 2026, 14:13 UTC
DAYS = 1887
PUT, PUT_NOW = "BTC-31DEC21-34000-P", "BTC-2MAR27-34000-P"


@pytest.fixture
def venue():
    return FakeVenue()


def recorded_lines(channel: str) -> list[dict]:
    messages = (json.loads(line)["message"] for line in RECORDED_FEED.read_text().splitlines())
    return [one["params"]["data"] for one in messages if one.get("params", {}).get("channel") == channel]


def test_as_recorded_every_book_message_arrives_at_its_time(venue):
    market = recorded_market(None, None, seed=1, as_recorded=True)
    assert recorded_start_ms(None) == FIRST_MS
    market.start(venue, FIRST_MS)
    assert not venue.books
    names = sorted(read_feed(RECORDED_FEED).names())
    for name in names:
        market.want(name, FIRST_MS)
    run(market, FIRST_MS, END_MS - 1)
    for name in names:
        raw = recorded_lines(f"book.{name}.raw")
        seen = venue.entries("levels", name)
        assert len(seen) == len(raw)
        for (_, _, at, bids, asks, snapshot), data in zip(seen, raw, strict=True):
            assert at == max(data["timestamp"], FIRST_MS)
            assert snapshot is (data["type"] == "snapshot")
            for side, key in ((bids, "bids"), (asks, "asks")):
                assert {float(p): float(a) for p, a in side.items()} == {p: a for _, p, a in data[key]}
    assert {name: venue.books[name] for name in names} == final_books(read_feed(RECORDED_FEED))


def test_tickers_and_indices_are_the_recorded_ones(venue):
    market = recorded_market(None, None, seed=1, as_recorded=True)
    market.start(venue, FIRST_MS)
    market.want(PUT, FIRST_MS)
    run(market, FIRST_MS, END_MS - 1)
    raw = recorded_lines(f"ticker.{PUT}.raw")
    marks: list[float] = []
    for _, _, _, reference in venue.entries("reference", PUT):
        if not marks or marks[-1] != float(reference.mark_price):
            marks.append(float(reference.mark_price))
    changes = [data["mark_price"] for data in raw]
    assert marks == [mark for n, mark in enumerate(changes) if n == 0 or mark != changes[n - 1]]
    last = venue.references[PUT]
    assert (last.mark_iv, last.greeks.delta) == (raw[-1]["mark_iv"], raw[-1]["greeks"]["delta"])
    assert last.underlying_index == "BTC-31DEC21"
    indices = [float(price) for _, _, _, price in venue.entries("index", "btc_usd")]
    assert indices[0] == 32201.67 and indices[-1] == 32208.37
    assert min(indices) >= 32200 and max(indices) <= 32209


def test_the_replay_happens_now_under_todays_names(venue):
    market = recorded_market(None, None, seed=1, as_recorded=False, now_ms=NOW_MS)
    market.start(venue, NOW_MS)
    market.want(PUT_NOW, NOW_MS)
    bids, asks = venue.books[PUT_NOW]
    assert (max(bids), min(asks), len(bids), len(asks)) == (Decimal("0.2325"), Decimal("0.236"), 8, 6)
    assert venue.references[PUT_NOW].underlying_index == "BTC-2MAR27"
    run(market, NOW_MS, NOW_MS + 31_000)
    changes = [at - NOW_MS for kind, _, at, *_ in venue.entries("levels", PUT_NOW)][:4]
    recorded = [max(data["timestamp"], FIRST_MS) - FIRST_MS for data in recorded_lines(f"book.{PUT}.raw")]
    assert changes == recorded
    expiry = {one.instrument_name: one for one in market.instruments()}[PUT_NOW].expiration_timestamp
    assert expiry == 1_640_937_600_000 + DAYS * DAY_MS


def test_nobody_anonymous_trades_in_a_recorded_book_before_it_ends(venue):
    market = recorded_market(None, None, seed=3, as_recorded=True)
    market.start(venue, FIRST_MS)
    names = read_feed(RECORDED_FEED).names()
    for name in sorted(names):
        market.want(name, FIRST_MS)
    run(market, FIRST_MS, END_MS - 1)
    assert not [entry for entry in venue.log if entry[0] == "take" and entry[1] in names]
    run(market, END_MS - 1, END_MS + 120_000)
    assert [entry for entry in venue.log if entry[0] == "take" and entry[1] in names]


@pytest.mark.parametrize("days_later", [0, 1887])
def test_the_generator_goes_on_from_the_last_book_without_a_jump(venue, days_later):
    as_recorded = days_later == 0
    start = FIRST_MS if as_recorded else NOW_MS
    market = recorded_market(None, None, seed=1, as_recorded=as_recorded, now_ms=start)
    market.start(venue, start)
    two_sided = [
        name
        for name in [one.instrument_name for one in market.instruments()]
        if name in venue.references and venue.references[name].mark_iv and name.startswith("BTC-")
    ]
    end = start + END_MS - FIRST_MS
    run(market, start, end - 1)
    held = [name for name in two_sided if all(venue.books.get(name, ({}, {})))]
    assert len(held) == 7
    before = {name: venue.anonymous_levels(name) for name in held}
    marks = {name: venue.references[name].mark_price for name in held}
    for name in held:
        market.want(name, end - 1)
    run(market, end - 1, end)
    assert {name: venue.anonymous_levels(name) for name in held} == before
    run(market, end, end + 500)
    for name in held:
        bids, asks = venue.books[name]
        old_bids, old_asks = before[name]
        width = min(old_asks) - max(old_bids)
        assert abs(max(bids) - max(old_bids)) <= width and abs(min(asks) - min(old_asks)) <= width
        kept = sum(price in old_bids for price in bids) + sum(price in old_asks for price in asks)
        assert kept >= (len(old_bids) + len(old_asks)) * 0.6
        assert float(venue.references[name].mark_price) == pytest.approx(float(marks[name]), rel=0.02, abs=5e-5)
    run(market, end + 500, end + 5_000)
    assert all(any(at > end for _, _, at, *_ in venue.entries("levels", name)) for name in held)


def test_one_sided_and_empty_books_stay_so(venue):
    market = recorded_market(None, None, seed=1, as_recorded=True)
    market.start(venue, FIRST_MS)
    for name in ("ETH-23JUL21-2300-C", "ETH-27AUG21-4000-P"):
        market.want(name, FIRST_MS)
    run(market, FIRST_MS, END_MS + 120_000)
    bids, asks = venue.books["ETH-23JUL21-2300-C"]
    assert not bids and asks
    assert venue.books["ETH-27AUG21-4000-P"] == ({}, {})
    assert venue.entries("reference", "ETH-27AUG21-4000-P")[-1][2] > END_MS + 119_000


def test_wanted_only_after_the_recording_a_book_is_alive_at_once(venue):
    market = recorded_market(None, None, seed=1, as_recorded=False, now_ms=NOW_MS)
    market.start(venue, NOW_MS)
    run(market, NOW_MS, NOW_MS + 300_000)
    quiet = len(venue.entries("levels", PUT_NOW))
    market.want(PUT_NOW, NOW_MS + 300_000)
    assert len(venue.entries("levels", PUT_NOW)) == quiet + 1
    bids, asks = venue.books[PUT_NOW]
    mark = venue.references[PUT_NOW].mark_price
    assert max(bids) < min(asks) and abs(max(bids) - mark) < Decimal("0.02")


def test_unrecorded_instruments_start_from_the_recorded_world(venue):
    market = recorded_market(None, None, seed=1, as_recorded=True)
    market.start(venue, FIRST_MS)
    # A put and a call of one strike share a volatility; the recorded put had 80.02 %.
    assert venue.references["BTC-31DEC21-34000-C"].mark_iv == pytest.approx(80.02, abs=1.5)
    assert float(venue.references["BTC-31DEC21"].mark_price) == pytest.approx(32744.81, abs=2)
    assert venue.references["ETH-24SEP21"].mark_price is not None
    market.want("BTC-PERPETUAL", FIRST_MS)
    for second in range(1, 30):
        run(market, FIRST_MS + (second - 1) * 1000, FIRST_MS + second * 1000)
        bid, ask = venue.touch("BTC-PERPETUAL")
        index = venue.indices["btc_usd"]
        assert abs((bid + ask) / 2 - index) < Decimal(30), "the perpetual follows the recorded index"


def test_an_account_that_improves_a_recorded_quote_gets_fills():
    market = recorded_market(None, None, seed=1, as_recorded=False, now_ms=NOW_MS)
    engine = engine_for(market, NOW_MS)
    market.want(PUT_NOW, NOW_MS)
    better = NewOrder(
        account="a", instrument_name=PUT_NOW, direction=Direction.BUY, amount=Decimal(5), price=Decimal("0.233"),
        post_only=True,
    )  # fmt: skip
    engine.place(better, NOW_MS)
    run(market, NOW_MS, NOW_MS + 30_000)
    account = engine.floor.account("a", NOW_MS)
    assert account.positions[PUT_NOW].size > 0
    best_anonymous = max(engine.anonymous_levels(PUT_NOW)[0].items())
    assert best_anonymous == (Decimal("0.2325"), Decimal("1.5")), "the recorded book is as recorded"


def test_a_feed_of_unknown_instruments_or_prices_is_refused(tmp_path):
    lines = RECORDED_FEED.read_text().replace("BTC-24JUN22-15000-C", "BTC-24JUN22-15001-C")
    path = tmp_path / "feed.jsonl"
    path.write_text(lines)
    with pytest.raises(ConfigError, match="BTC-24JUN22-15001-C, which is not listed"):
        recorded_market(path, None, seed=1, as_recorded=True)
    path.write_text(RECORDED_FEED.read_text().replace('[["new",0.583,', '[["new",0.5831,'))
    with pytest.raises(ConfigError, match=r"BTC-24JUN22-15000-C at 0.5831, which is not a multiple of 0.0005"):
        recorded_market(path, None, seed=1, as_recorded=True)


def test_started_years_after_the_recording_as_recorded_everything_has_expired(venue):
    market = recorded_market(None, None, seed=1, as_recorded=True)
    market.start(venue, NOW_MS)
    run(market, NOW_MS, NOW_MS + 5_000)
    delivered = {entry[1] for entry in venue.log if entry[0] == "deliver"}
    assert len(delivered) == sum(not one.is_perpetual for one in market.instruments())
