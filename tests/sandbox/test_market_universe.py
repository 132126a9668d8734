"""Which instruments are listed, where their dates go, and what the fields of today say."""

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from mmd.domain.errors import ConfigError
from mmd.sandbox.markets import RECORDED_INSTRUMENTS, generated_market, recorded_market
from mmd.sandbox.universe import (
    DAY_MS,
    PERPETUAL_EXPIRY_MS,
    date_code,
    days_until,
    expiry_calendar,
    read_instruments,
    redated,
    strikes,
)

RECORDED_MS = 1_626_993_723_804  # Thursday 22 July 2021, 22:42:03 UTC


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


def test_the_recorded_listing_has_the_fields_of_today():
    listed = {one.instrument_name: one for one in read_instruments(RECORDED_INSTRUMENTS)}
    assert len(listed) == 1017
    assert len({one.instrument_id for one in listed.values()}) == 1017
    put = listed["BTC-24SEP21-40000-P"]
    assert (put.instrument_type, put.counter_currency, put.settlement_currency) == ("reversed", "USD", "BTC")
    assert (put.price_index, put.strike, put.option_type, put.tick_size) == ("btc_usd", 40000, "put", Decimal("0.0005"))
    linear = listed["ETH_USDC-PERPETUAL"]
    assert (linear.instrument_type, linear.price_index, linear.settlement_currency) == ("linear", "eth_usdc", "USDC")
    assert linear.instrument_id == 211305
    assert Counter(one.kind for one in listed.values()) == {"option": 980, "future": 37}


@pytest.mark.parametrize(
    ("now", "days"),
    [
        pytest.param(RECORDED_MS, 0, id="at the recorded moment"),
        pytest.param(RECORDED_MS + 1, 1, id="a moment later"),
        pytest.param(RECORDED_MS + DAY_MS, 1, id="a day later"),
        pytest.param(ms(2026, 9, 21, 10), 1887, id="years later, before that time of day"),
        pytest.param(ms(2026, 9, 21, 23), 1888, id="years later, after it"),
    ],
)
def test_dates_move_by_the_smallest_number_of_days(now, days):
    assert days_until(RECORDED_MS, now) == days
    market = recorded_market(None, None, seed=1, as_recorded=False, now_ms=now)
    by_strike = {(one.expiration_timestamp, one.strike, one.option_type) for one in market.instruments()}
    assert (1_632_470_400_000 + days * DAY_MS, 40000, "put") in by_strike
    assert all(one.expiration_timestamp > now for one in market.instruments())
    assert all(one.creation_timestamp <= max(now, RECORDED_MS) for one in market.instruments()) or days == 0


def test_names_follow_their_dates():
    market = recorded_market(None, None, seed=1, as_recorded=False, now_ms=ms(2026, 9, 21, 10))
    names = [one.instrument_name for one in market.instruments()]
    assert len(set(names)) == 1017
    assert {"BTC-PERPETUAL", "BTC-24NOV26-40000-P", "BTC-24NOV26", "SOL-3AUG27", "UNI_USDC-PERPETUAL"} <= set(names)
    for one in market.instruments():
        if one.is_perpetual:
            assert one.expiration_timestamp == PERPETUAL_EXPIRY_MS
        else:
            assert one.instrument_name.split("-")[1] == date_code(one.expiration_timestamp)
            assert one.expiration_timestamp % DAY_MS == 8 * 3_600_000


def test_as_recorded_keeps_names_and_times():
    market = recorded_market(None, None, seed=1, as_recorded=True)
    assert market.instruments() == read_instruments(RECORDED_INSTRUMENTS)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        pytest.param("BTC-24SEP21-40000-P", "BTC-4OCT21-40000-P", id="option, day without a zero"),
        pytest.param("SYN.BTC-24SEP21", "SYN.BTC-4OCT21", id="synthetic underlying"),
        pytest.param("index_price", "index_price", id="no date in it"),
    ],
)
def test_redated(name, moved):
    assert redated(name, ms(2021, 9, 24, 8), ms(2021, 10, 4, 8)) == moved


def test_the_calendar_has_every_period_at_eight():
    # Monday 21 September 2026, after that day's expiry.
    calendar = expiry_calendar(ms(2026, 9, 21, 10))
    assert {date_code(at): period for at, period in calendar.items()} == {
        "22SEP26": "day",
        "23SEP26": "day",
        "25SEP26": "month",
        "2OCT26": "week",
        "30OCT26": "month",
        "25DEC26": "month",
        "26MAR27": "month",
    }
    assert all(at % DAY_MS == 8 * 3_600_000 for at in calendar)
    assert "21SEP26" in {date_code(at) for at in expiry_calendar(ms(2026, 9, 21, 7, 59))}


def test_the_built_in_universe():
    now = ms(2026, 9, 21, 10)
    listed = {one.instrument_name: one for one in generated_market(1, now_ms=now).instruments()}
    perpetuals = {"BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL", "ETH_USDC-PERPETUAL"}
    assert perpetuals == {name for name, one in listed.items() if one.is_perpetual}
    assert {"BTC-25DEC26", "ETH-25DEC26"} <= listed.keys()
    call = listed["BTC-25DEC26-80000-C"]
    assert (call.tick_size, call.quote_currency, call.min_trade_amount) == (Decimal("0.0001"), "BTC", Decimal("0.1"))
    assert [(step.above_price, step.tick_size) for step in call.tick_size_steps] == [
        (Decimal("0.005"), Decimal("0.0005"))
    ]
    linear = listed["BTC_USDC-25DEC26-80000-P"]
    assert (linear.instrument_type, linear.quote_currency, linear.settlement_currency) == ("linear", "USDC", "USDC")
    assert len({one.instrument_id for one in listed.values()}) == len(listed)


def test_strikes_are_round_and_surround_the_price():
    ladder = strikes(78_000, 0.2)
    assert ladder == sorted(set(ladder))
    assert ladder[0] < 55_000 and ladder[-1] > 120_000
    assert all(strike % 500 == 0 for strike in ladder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("nonsense", "not a public/get_instruments answer", id="no JSON"),
        pytest.param('{"result": []}', "no future, perpetual or option", id="nothing listed"),
        pytest.param('{"result": [{"instrument_name": "X"}]}', "missing required field", id="fields missing"),
    ],
)
def test_a_wrong_listing_is_refused(tmp_path, text, says):
    path = tmp_path / "instruments.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_instruments(path)


def test_a_name_listed_twice_is_refused(tmp_path):
    row = json.loads(RECORDED_INSTRUMENTS.read_text())["result"][0]
    path = tmp_path / "instruments.json"
    path.write_text(json.dumps({"result": [row, row]}))
    with pytest.raises(ConfigError, match="BTC-24SEP21-40000-P is listed twice"):
        read_instruments(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_instruments(tmp_path / "absent.json")


def test_a_bare_result_is_a_listing_too_and_moves_ahead_of_now(tmp_path):
    rows = json.loads(RECORDED_INSTRUMENTS.read_text())["result"]
    path = tmp_path / "instruments.json"
    path.write_text(json.dumps([row for row in rows if row["base_currency"] == "BTC"]))
    now = ms(2026, 9, 21, 7)
    soonest = min(one.expiration_timestamp for one in generated_market(1, path, now_ms=now).instruments())
    assert soonest == ms(2026, 9, 21, 8)
