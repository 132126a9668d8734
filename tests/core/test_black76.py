"""Black-76 against recorded exchange greeks, textbook numbers, parity and finite differences."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.options import black76
from mmd.core.options.black76 import OptionType

YEAR_MS = 365 * 86_400_000
CALL, PUT = OptionType.CALL, OptionType.PUT

# name, option, strike, timestamp, expiry, underlying, mark, iv in percent, delta, gamma, vega, theta:
# tickers of the recorded feed of 22 July 2021.
RECORDED = [
    pytest.param(PUT, 34000, 1626993722933, 1640937600000, 32744.81, 0.2335098, 80.02,
                 -0.42256, 2e-5, 85.22269, -21.12703, id="BTC-31DEC21-34000-P"),
    pytest.param(CALL, 300000, 1626993722931, 1640937600000, 32744.81, 0.00525226, 134.16,
                 0.02083, 0.0, 10.91161, -4.53535, id="BTC-31DEC21-300000-C"),
    pytest.param(PUT, 34000, 1626993722931, 1632470400000, 32366.75, 0.15670957, 76.57,
                 -0.4979, 4e-5, 53.80944, -32.50023, id="BTC-24SEP21-34000-P"),
    pytest.param(CALL, 2800, 1626993723632, 1627632000000, 2003.61, 0.001972, 120.74,
                 0.03127, 0.0002, 0.20072, -1.64029, id="ETH-30JUL21-2800-C"),
    pytest.param(CALL, 15000, 1626993722929, 1656057600000, 33974.38, 0.60445275, 87.27,
                 0.91845, 1e-5, 49.19588, -6.3817, id="BTC-24JUN22-15000-C"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "strike", "at", "expiry", "forward", "mark", "iv", "delta", "gamma", "vega", "theta"), RECORDED
)
def test_agrees_with_recorded_tickers(option, strike, at, expiry, forward, mark, iv, delta, gamma, vega, theta):
    years = (expiry - at) / YEAR_MS
    found = black76.value(option, forward, strike, years, iv / 100)
    # The exchange rounds its volatility to a hundredth of a point: that is the tolerance.
    rounding = found.vega * 0.00005 / forward
    assert black76.inverse_price(found.price, forward) == pytest.approx(mark, abs=rounding + 2e-6)
    assert found.delta == pytest.approx(delta, abs=2e-4)
    assert found.gamma == pytest.approx(gamma, abs=6e-6)
    assert found.vega / 100 == pytest.approx(vega, rel=2e-3)
    assert found.theta / 365 == pytest.approx(theta, rel=2e-3)
    assert black76.implied_volatility(option, mark * forward, forward, strike, years) * 100 == pytest.approx(
        iv, abs=0.05
    )


def test_textbook_price():
    # Hull, Options, Futures, and Other Derivatives: put on crude oil futures, F=K=20, r=9 %, 4 months, 25 %: 1.12.
    discount = math.exp(-0.09 * 4 / 12)
    assert black76.price(PUT, 20, 20, 4 / 12, 0.25, discount=discount) == pytest.approx(1.12, abs=0.005)


strikes = st.floats(0.2, 5.0)
years = st.floats(1 / 365, 3.0)
sigmas = st.floats(0.1, 3.0)


@given(strike=strikes, years=years, sigma=sigmas)
def test_put_call_parity(strike, years, sigma):
    call, put = (black76.price(option, 1.0, strike, years, sigma) for option in (CALL, PUT))
    assert call - put == pytest.approx(1.0 - strike, abs=1e-12)


@given(option=st.sampled_from(OptionType), strike=strikes, years=years, sigma=sigmas)
def test_greeks_are_the_derivatives(option, strike, years, sigma):
    def worth(forward=1.0, years=years, sigma=sigma):
        return black76.price(option, forward, strike, years, sigma)

    found, bump = black76.value(option, 1.0, strike, years, sigma), 1e-4
    assert found.price == worth()
    assert found.delta == pytest.approx((worth(1 + bump) - worth(1 - bump)) / (2 * bump), abs=1e-4)
    curvature = (worth(1 + bump) - 2 * worth() + worth(1 - bump)) / bump**2
    assert found.gamma == pytest.approx(curvature, rel=1e-2, abs=1e-2)
    assert found.vega == pytest.approx((worth(sigma=sigma + bump) - worth(sigma=sigma - bump)) / (2 * bump), abs=1e-4)
    day = years * 1e-3
    decay = (worth(years=years - day) - worth(years=years + day)) / (2 * day)
    assert found.theta == pytest.approx(decay, rel=1e-3, abs=1e-3)


@given(option=st.sampled_from(OptionType), strike=strikes, years=years, sigma=sigmas)
def test_implied_volatility_inverts_the_price(option, strike, years, sigma):
    worth = black76.price(option, 1.0, strike, years, sigma)
    time_value = worth - black76.intrinsic(option, 1.0, strike)
    if time_value < 1e-9 or worth >= (1.0 if option is CALL else strike) - 1e-9:
        return  # no information left in the price
    found = black76.implied_volatility(option, worth, 1.0, strike, years)
    assert black76.price(option, 1.0, strike, years, found) == pytest.approx(worth, abs=1e-12)


@pytest.mark.parametrize(
    ("option", "worth"),
    [
        pytest.param(CALL, 0.0, id="worthless"),
        pytest.param(CALL, 100.0, id="as dear as the forward"),
        pytest.param(PUT, 20.0, id="no time value"),
        pytest.param(PUT, math.nan, id="not a number"),
    ],
)
def test_no_volatility_outside_the_bounds(option, worth):
    with pytest.raises(ValueError, match="no volatility"):
        black76.implied_volatility(option, worth, 100.0, 120.0, 0.5)


@pytest.mark.parametrize(
    ("option", "forward", "delta", "worth"),
    [
        pytest.param(CALL, 110.0, 1.0, 10.0, id="call in the money"),
        pytest.param(CALL, 90.0, 0.0, 0.0, id="call out of the money"),
        pytest.param(PUT, 90.0, -1.0, 10.0, id="put in the money"),
        pytest.param(PUT, 100.0, -0.5, 0.0, id="at the money"),
    ],
)
def test_at_expiry_an_option_is_its_payoff(option, forward, delta, worth):
    found = black76.value(option, forward, 100.0, 0.0, 0.8)
    assert (found.price, found.delta, found.gamma, found.vega, found.theta) == (worth, delta, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "bad", [(0.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0), (1.0, 1.0, -1.0, 1.0), (1.0, 1.0, 1.0, math.nan)]
)
def test_impossible_arguments_are_refused(bad):
    with pytest.raises(ValueError, match="need forward > 0"):
        black76.price(CALL, *bad)
