"""The volatility surface: free of arbitrage, through its points; prices of underlyings follow what was recorded."""

import math

import pytest

from mmd.sandbox.assets import AHEAD_MS, GRID_MS, AssetAssumption, Assets
from mmd.sandbox.smile import Point, Shape, assumed, fit, sigma, total_variance

# The recorded Bitcoin options of 22 July 2021: years, strike over forward, volatility.
RECORDED = [
    Point(0.0206, math.log(24000 / 32185.65), 1.1677),
    Point(0.1736, math.log(8000 / 32366.75), 1.4278),
    Point(0.1736, math.log(34000 / 32366.75), 0.7657),
    Point(0.4418, math.log(34000 / 32744.81), 0.8002),
    Point(0.4418, math.log(300000 / 32744.81), 1.3416),
    Point(0.6719, math.log(30000 / 33420.42), 0.819),
    Point(0.9212, math.log(15000 / 33974.38), 0.8727),
]


def test_the_fit_runs_near_every_recorded_volatility():
    surface = fit(RECORDED)
    for point in RECORDED:
        found = sigma(point.x, point.years, surface.sigma_atm(point.years), surface.shape)
        assert found == pytest.approx(point.sigma, abs=0.06), point
    # A single point per expiry is met exactly.
    lone = RECORDED[0]
    exact = sigma(lone.x, lone.years, surface.sigma_atm(lone.years), surface.shape)
    assert exact == pytest.approx(lone.sigma, abs=1e-4)


@pytest.mark.parametrize("surface", [fit(RECORDED), assumed(0.6), fit(RECORDED[:1])], ids=["fitted", "assumed", "lone"])
def test_no_static_arbitrage(surface):
    """Gatheral's g(x) >= 0 at every expiry; total variance does not fall with time at any strike."""
    assert surface.shape.wings * (1 + abs(surface.shape.skew)) <= 2
    previous: dict[float, float] = {}
    for years in (0.003, 0.02, 0.1, 0.25, 0.5, 1.0, 1.5):
        theta = surface.sigma_atm(years) ** 2 * years
        step = 1e-4

        def w(x: float, theta: float = theta) -> float:
            return total_variance(x, theta, surface.shape)

        for n in range(-30, 31):
            x = n / 10 * math.sqrt(theta) * 2
            slope = (w(x + step) - w(x - step)) / (2 * step)
            curve = (w(x + step) - 2 * w(x) + w(x - step)) / step**2
            g = (1 - x * slope / (2 * w(x))) ** 2 - slope**2 / 4 * (1 / w(x) + 0.25) + curve / 2
            assert g >= -1e-6, (years, x)
        for x in (-1.0, -0.3, 0.0, 0.3, 1.0):
            assert w(x) >= previous.get(x, 0.0) - 1e-12
            previous[x] = w(x)


def test_total_variance_at_the_money_is_theta():
    assert total_variance(0.0, 0.09, Shape(-0.3, 1.1)) == pytest.approx(0.09)
    assert sigma(0.0, 0.25, 0.6, Shape()) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        pytest.param([], "no volatilities", id="none"),
        pytest.param([Point(0.0, 0.0, 0.5)], "need years > 0", id="expired"),
        pytest.param([Point(0.5, 0.0, 0.0)], "need years > 0", id="no volatility"),
    ],
)
def test_what_cannot_be_fitted_is_refused(points, says):
    with pytest.raises(ValueError, match=says):
        fit(points)


def assets_with(pins: dict[int, float] | None = None) -> Assets:
    assets = Assets({"BTC": AssetAssumption(100.0, 0.8, 0.9)}, seed=1, now_ms=0)
    if pins:
        assets.by_base["BTC"].pin(list(pins), list(pins.values()))
    assets.foresee()
    return assets


def test_a_path_is_known_ahead_and_comes_true():
    assets = assets_with()
    asset = assets.by_base["BTC"]
    expected = asset.ahead(AHEAD_MS)
    assets.advance(AHEAD_MS)
    assert asset.price == expected != 100.0


def test_a_pinned_path_is_the_recorded_one_and_goes_on_from_its_end():
    assets = assets_with({0: 100.0, 10_000: 110.0, 20_000: 90.0})
    asset = assets.by_base["BTC"]
    for at, price in ((5_000, 105.0), (10_000, 110.0), (15_000, 100.0), (20_000, 90.0)):
        assets.advance(at)
        assert asset.price == pytest.approx(price)
    assets.advance(20_000 + GRID_MS)
    assert asset.price == pytest.approx(90.0, rel=1e-3) and asset.price != 90.0


def test_a_long_stride_moves_by_the_volatility_of_the_time_that_passed():
    moves = []
    for seed in range(200):
        assets = Assets({"BTC": AssetAssumption(100.0, 0.8, 0.9)}, seed=seed, now_ms=0)
        assets.foresee()
        assets.advance(86_400_000)
        moves.append(math.log(assets.by_base["BTC"].price / 100.0))
    deviation = math.sqrt(sum(move * move for move in moves) / len(moves))
    assert deviation == pytest.approx(0.8 / math.sqrt(365), rel=0.2)
