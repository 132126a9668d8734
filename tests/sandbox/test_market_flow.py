"""What a maker earns: too tight loses to those who know more, sensibly wide earns the spread from those who do not.

Mean over several seeds of the profit of a maker of fixed width, each fill valued at the market's mid
a few seconds later. The profit of one run is random; the claim is about three standard errors.
"""

from decimal import Decimal

import pytest
from market_tools import FixedSpreadMaker, engine_for, make_for, mean_and_error

from mmd.sandbox.markets import generated_market

NOW_MS = 1_790_000_000_000
SEEDS = range(5)


def profits(name: str, width_of_market: float, amount: str, most: str, seconds: int) -> tuple[list[float], int]:
    """Profit of each seed, and the fills of all, at so many times the width of the market's own book.

    Of a perpetual, whose book is a tick wide, `width_of_market` is in bps of the price.
    """
    found, fills = [], 0
    for seed in SEEDS:
        market = generated_market(seed, now_ms=NOW_MS)
        engine = engine_for(market, NOW_MS)
        market.want(name, NOW_MS)
        bids, asks = engine.anonymous_levels(name)
        unit = float(min(asks) - max(bids)) if name == OPTION else float(min(asks)) / 1e4
        maker = FixedSpreadMaker(engine, name, width_of_market * unit, Decimal(amount), Decimal(most))
        found.append(make_for(market, maker, NOW_MS, seconds, every_ms=500))
        fills += maker.fills
    return found, fills


OPTION = "BTC-26MAR27-80000-C"


@pytest.mark.parametrize(
    ("name", "width", "amount", "most", "seconds", "sign"),
    [
        pytest.param("BTC-PERPETUAL", 1.0, "1000", "3000", 150, -1, id="perpetual, 1 bps: loses"),
        pytest.param("BTC-PERPETUAL", 8.0, "1000", "3000", 500, 1, id="perpetual, 8 bps: earns"),
        pytest.param(OPTION, 0.2, "0.5", "2", 600, -1, id="option, a fifth of the makers' width: loses"),
        pytest.param(OPTION, 0.7, "0.5", "2", 400, 1, id="option, inside the makers' width: earns"),
    ],
)
def test_width_decides(name, width, amount, most, seconds, sign):
    found, fills = profits(name, width, amount, most, seconds)
    mean, error = mean_and_error(found)
    assert fills > 30
    assert sign * mean > 3 * error, f"{mean:.3g} ± {error:.2g} over seeds {list(SEEDS)}"
