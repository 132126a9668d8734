"""The quoting pipeline, step by step and as a whole. Prices in ticks of 0.1 unless said otherwise."""

from decimal import Decimal
from typing import Any

import pytest
from core_kit import INVERSE, OPTION, PLAIN, changed, settings
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.book import Touch
from mmd.core.quoting import Quote, Trace, View, Wanted, Withheld, quote
from mmd.core.rules import Rules, rules_for
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Missing
from mmd.domain.settings import Style, VolatilityWidth
from mmd.domain.units import Grid


def rules(instrument: Instrument = PLAIN, *, limits: dict[str, Any] | None = None, **profile: Any) -> Rules:
    return rules_for(instrument, settings(limits=limits, **{"band_bps": 10_000.0, **profile}))


def view(bid: int = 990, ask: int = 1010, **fields: Any) -> View:
    touch = fields.pop("touch", Touch(bid, 100 if bid else 0, ask, 100 if ask else 0))
    given: dict[str, Any] = {
        "touch": touch,
        "fair": (bid + ask) / 2.0,
        "reference_ticks": (bid + ask) / 2.0,
        "sigma_bps": None,
        "inventory": 0.0,
        "bid_room_lots": 1000,
        "ask_room_lots": 1000,
        "min_ticks": 0.0,
        "max_ticks": 0.0,
    }
    return View(**{**given, **fields})


def prices(found: Quote) -> tuple[int | Missing, int | Missing]:
    """Price of each side, or why there is none."""
    bid, ask = (side.price_ticks if isinstance(side, Wanted) else side.why for side in (found.bid, found.ask))
    return (bid, ask)


# The atomizer's example: best bid 100, best ask 105, improve by 0.10; ticks of 0.005.
ATOMIZER = changed(PLAIN, grid=Grid(Decimal("0.005")))


@pytest.mark.parametrize(
    ("min_spread_bps", "bid", "ask"),
    [
        pytest.param(0.0, "100.100", "104.900", id="A37: the printed example, minimum spread off"),
        pytest.param(400.0, "100.100", "104.900", id="a small minimum changes nothing"),
        pytest.param(1000.0, "97.375", "107.625", id="A24: the default of 10 % widens around mid"),
    ],
)
def test_the_atomizer_example(min_spread_bps: float, bid: str, ask: str) -> None:
    r = rules(ATOMIZER, style=Style.IMPROVE, improve_by=Decimal("0.10"), min_spread_bps=min_spread_bps)
    found = quote(view(20_000, 21_000), r)
    assert isinstance(found.bid, Wanted) and isinstance(found.ask, Wanted)
    grid = ATOMIZER.grid
    assert (grid.price(found.bid.price_ticks), grid.price(found.ask.price_ticks)) == (Decimal(bid), Decimal(ask))


@pytest.mark.parametrize(
    ("profile", "seen", "expected"),
    [
        pytest.param({"spread_bps": 100.0}, view(), (995, 1005), id="around: half the spread on each side"),
        pytest.param({"spread_bps": 95.0}, view(), (995, 1005), id="bids floor and asks ceil"),
        pytest.param({"spread_bps": 0.0}, view(), (999, 1001), id="at least one tick wide, off the fair value"),
        pytest.param({"spread_bps": 100.0, "min_spread_bps": 200.0}, view(), (990, 1010), id="the wider wins: minimum"),
        pytest.param({"spread_bps": 200.0, "min_spread_bps": 100.0}, view(), (990, 1010), id="the wider wins: spread"),
        pytest.param({"style": Style.JOIN}, view(), (990, 1010), id="join the touch"),
        pytest.param({"style": Style.IMPROVE}, view(), (991, 1009), id="improve by one tick"),
        pytest.param({"style": Style.IMPROVE, "improve_by": Decimal("0.25")}, view(), (992, 1008), id="never by more"),
        pytest.param(
            {"style": Style.IMPROVE, "improve_by": Decimal(1), "spread_bps": 0.0},
            view(995, 1005),
            (999, 1001),
            id="a book narrower than twice the step: no crossing, one tick apart at least",
        ),
        pytest.param(
            {"style": Style.IMPROVE, "improve_by": Decimal(1), "spread_bps": 60.0},
            view(995, 1005),
            (997, 1003),
            id="a narrow book and a minimum width",
        ),
        pytest.param(
            {"style": Style.IMPROVE, "spread_bps": 100.0}, view(1000, 1001), (995, 1006), id="tight book: wider"
        ),
    ],
)
def test_styles_and_widths(profile: dict[str, Any], seen: View, expected: tuple[int, int]) -> None:
    assert prices(quote(seen, rules(**profile))) == expected


@pytest.mark.parametrize(
    ("inventory", "expected"),
    [
        pytest.param(0.0, (990, 1010), id="flat is symmetric (T59)"),
        pytest.param(0.5, (985, 1005), id="long: both down (T60)"),
        pytest.param(-0.5, (995, 1015), id="short: both up (T61)"),
        pytest.param(1.0, (980, 1000), id="full"),
        pytest.param(5.0, (980, 1000), id="beyond the maximum is the maximum"),
    ],
)
def test_skew_moves_both_and_keeps_the_width(inventory: float, expected: tuple[int, int]) -> None:
    r = rules(spread_bps=200.0, skew_bps=100.0)
    assert prices(quote(view(950, 1050, fair=1000.0, inventory=inventory), r)) == expected


def test_skew_never_passes_our_own_fair_value() -> None:
    r = rules(spread_bps=100.0, skew_bps=1000.0)
    assert prices(quote(view(900, 1100, fair=1000.0, inventory=1.0), r)) == (990, 1000)


@pytest.mark.parametrize(
    ("bid", "ask", "style", "why"),
    [
        pytest.param(0, 1010, Style.IMPROVE, Missing.NO_BID, id="improve needs a bid"),
        pytest.param(990, 0, Style.JOIN, Missing.NO_ASK, id="join needs an ask"),
        pytest.param(0, 0, Style.JOIN, Missing.NO_BOOK, id="nothing at all"),
    ],
)
def test_styles_that_need_a_touch_withhold_without(bid: int, ask: int, style: Style, why: Missing) -> None:
    assert prices(quote(view(bid, ask, fair=1000.0), rules(style=style))) == (why, why)


def test_around_a_mark_quotes_into_an_empty_book() -> None:
    assert prices(quote(view(0, 0, fair=1000.0, reference_ticks=1000.0), rules(spread_bps=100.0))) == (995, 1005)


def test_a_missing_fair_value_is_the_reason() -> None:
    assert prices(quote(view(fair=Missing.NO_INDEX), rules())) == (Missing.NO_INDEX, Missing.NO_INDEX)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(view(970, 980, fair=1000.0), (979, 1005), id="the bid stays below the best ask"),
        pytest.param(view(1020, 1030, fair=1000.0), (995, 1021), id="the ask stays above the best bid"),
        pytest.param(view(994, 995, fair=1000.0), (994, 1005), id="equal to the best ask would take"),
    ],
)
def test_post_only(seen: View, expected: tuple[int, int]) -> None:
    assert prices(quote(seen, rules(spread_bps=100.0))) == expected


@pytest.mark.parametrize(
    ("profile", "seen", "expected"),
    [
        pytest.param(
            {"style": Style.JOIN, "band_bps": 500.0},
            view(900, 1100),
            (950, 1050),
            id="T56: clamped to the band around the reference",
        ),
        pytest.param(
            {"spread_bps": 100.0, "band_bps": 500.0},
            view(990, 1010, reference_ticks=1100.0),
            (Missing.OUTSIDE_BAND, 1045),
            id="a reference far above the book: no bid, and the ask inside the band",
        ),
        pytest.param(
            {"spread_bps": 400.0, "band_bps": 100.0},
            view(990, 1010),
            (Missing.OUTSIDE_BAND, Missing.OUTSIDE_BAND),
            id="a band narrower than the minimum width: no quote",
        ),
        pytest.param(
            {"spread_bps": 100.0},
            view(990, 1010, max_ticks=1003.0),
            (995, Missing.OUTSIDE_BAND),
            id="exchange's upper limit: too little width left",
        ),
        pytest.param(
            {"style": Style.JOIN, "spread_bps": 10.0},
            view(900, 1100, min_ticks=950.0, max_ticks=1040.0),
            (950, 1040),
            id="inside the exchange's limits",
        ),
        pytest.param(
            {"spread_bps": 100.0},
            view(990, 1010, min_ticks=1100.0, max_ticks=1200.0),
            (Missing.OUTSIDE_BAND, 1100),
            id="exchange's limits far above: no bid",
        ),
        pytest.param({"style": Style.JOIN}, view(1, 3), (1, 3), id="the lowest price there is"),
        pytest.param({"spread_bps": 100.0}, view(1, 2, fair=1.5), (1, 2), id="one tick apart at the bottom"),
        pytest.param({"spread_bps": 100.0}, view(0, 2, fair=0.5), (Missing.BELOW_TICK, 1), id="no bid below one tick"),
    ],
)
def test_bands(profile: dict[str, Any], seen: View, expected: tuple[Any, Any]) -> None:
    assert prices(quote(seen, rules(**profile))) == expected


@pytest.mark.parametrize(
    ("bid_room", "ask_room", "expected"),
    [
        pytest.param(1000, 1000, (10, 10), id="the profile's size"),
        pytest.param(4, 1000, (4, 10), id="what room is left"),
        pytest.param(0, 1000, (Missing.NO_ROOM, 10), id="full on one side"),
        pytest.param(1000, -5, (10, Missing.NO_ROOM), id="beyond the bound"),
        pytest.param(2, 2, (Missing.NO_ROOM, Missing.NO_ROOM), id="below the minimum size"),
    ],
)
def test_sizes(bid_room: int, ask_room: int, expected: tuple[Any, Any]) -> None:
    found = quote(view(bid_room_lots=bid_room, ask_room_lots=ask_room), rules(changed(PLAIN, min_lots=3)))
    sizes = tuple(side.size_lots if isinstance(side, Wanted) else side.why for side in (found.bid, found.ask))
    assert sizes == expected


def test_the_order_limit_caps_the_size() -> None:
    found = quote(view(), rules(limits={"max_order_size": Decimal(7)}))
    assert isinstance(found.bid, Wanted) and found.bid.size_lots == 7


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        pytest.param(None, (Missing.NO_VOLATILITY, Missing.NO_VOLATILITY), id="not known yet"),
        pytest.param(10.0, (995, 1005), id="calm: the profile's spread"),
        pytest.param(100.0, (990, 1010), id="T50: twice sigma, full width"),
        pytest.param(5000.0, (975, 1025), id="at most max_bps"),
    ],
)
def test_width_follows_volatility(sigma: float | None, expected: tuple[Any, Any]) -> None:
    r = rules(spread_bps=100.0, volatility=VolatilityWidth(multiplier=2.0, max_bps=500.0))
    assert prices(quote(view(sigma_bps=sigma), r)) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(view(40, 60, fair=50.0), (45, 55), id="across the border: fine below, wide above"),
        pytest.param(view(200, 240, fair=221.0), (205, 240), id="wide steps: both away from fair"),
    ],
)
def test_price_dependent_ticks(seen: View, expected: tuple[int, int]) -> None:
    width = 2000.0 if seen.fair == 50.0 else 1300.0
    assert prices(quote(seen, rules(OPTION, size=1, spread_bps=width))) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(view(200, 240, fair=221.0), (1.635, 4.635), id="wide steps: what each took"),
        pytest.param(view(200, 240, fair=200.0), (2.0, 2.0), id="to the next step"),
        pytest.param(view(200, 205, fair=225.0), (0.0, 0.375), id="a price that the market took is no rounding"),
    ],
)
def test_what_the_grid_took_is_known(seen: View, expected: tuple[float, float]) -> None:
    found = quote(seen, rules(OPTION, size=1, spread_bps=1300.0))
    assert isinstance(found.bid, Wanted) and isinstance(found.ask, Wanted)
    assert (found.bid.rounded_ticks, found.ask.rounded_ticks) == pytest.approx(expected)


def test_an_inverse_perpetual_in_human_units() -> None:
    """60,000 USD, 10 bps: 30 USD on each side, ticks of 0.5, lots of 10 USD."""
    found = quote(
        view(119_990, 120_010), rules(INVERSE, limits={"max_order_size": Decimal(1000)}, size=1000, spread_bps=10.0)
    )
    assert found == Quote(Wanted(119_940, 100), Wanted(120_060, 100))


views = st.builds(
    lambda bid, width, fair_off, inventory, ref_off, rooms: view(
        bid,
        bid + width,
        fair=bid + width / 2 + fair_off,
        reference_ticks=max(0.0, bid + ref_off),
        inventory=inventory,
        bid_room_lots=rooms[0],
        ask_room_lots=rooms[1],
    ),
    st.integers(20, 3000),
    st.integers(1, 200),
    st.floats(-10, 10),
    st.floats(-2, 2),
    st.floats(-300, 300),
    st.tuples(st.integers(-5, 30), st.integers(-5, 30)),
)
profiles = st.fixed_dictionaries(
    {
        "style": st.sampled_from(Style),
        "spread_bps": st.floats(0, 2000),
        "min_spread_bps": st.floats(0, 2000),
        "skew_bps": st.floats(0, 500),
        "band_bps": st.floats(1, 3000),
    }
)


@given(seen=views, profile=profiles, instrument=st.sampled_from([PLAIN, OPTION]))
def test_every_quote_keeps_the_promises(seen: View, profile: dict[str, Any], instrument: Instrument) -> None:
    r = rules(instrument, **{**profile, "size": 1})
    trace: Trace = []
    found = quote(seen, r, trace)
    assert found == quote(seen, r), "explaining changes nothing"
    assert trace
    bid, ask = found.bid, found.ask
    for side, room in ((bid, seen.bid_room_lots), (ask, seen.ask_room_lots)):
        if isinstance(side, Withheld):
            continue
        assert r.min_lots <= side.size_lots <= min(room, r.size_lots, r.max_order_lots)
        assert side.price_ticks >= 1 and r.grid.floor(side.price_ticks) == side.price_ticks
        reference = seen.reference_ticks or seen.fair
        step = r.grid.step_at(side.price_ticks)
        assert 0.0 <= side.rounded_ticks < step
        assert abs(side.price_ticks - reference) <= reference * r.band_bps / 1e4 + step + 1e-6
    if isinstance(bid, Wanted):
        assert bid.price_ticks < seen.touch.ask_ticks
    if isinstance(ask, Wanted):
        assert ask.price_ticks > seen.touch.bid_ticks
    if isinstance(bid, Wanted) and isinstance(ask, Wanted):
        width = max(1.0, float(seen.fair) * max(r.spread_bps, r.min_spread_bps) / 1e4)
        assert ask.price_ticks - bid.price_ticks >= width - 1e-5


def test_the_trace_names_the_steps() -> None:
    trace: Trace = []
    quote(view(), rules(), trace)
    assert [step.name for step in trace] == [
        "fair",
        "half_width",
        "style",
        "inventory_shift",
        "minimum_width",
        "band",
        "post_only_and_grid",
        "size",
    ]
    assert all(step.detail for step in trace)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        pytest.param({"size": Decimal("0.5")}, "below the minimum", id="less than one lot"),
        pytest.param({"improve_by": Decimal(0)}, "improve_by", id="improve by nothing"),
    ],
)
def test_settings_off_the_grid_are_refused(profile: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules(**profile)


@pytest.mark.parametrize("improve_by", [None, Decimal("0.0001")])
def test_improving_is_at_least_one_step_of_the_grid_here(improve_by: Decimal | None) -> None:
    """From 0.005 upwards steps are five base ticks: one base tick would be rounded away."""
    r = rules(OPTION, style=Style.IMPROVE, improve_by=improve_by, size=Decimal("0.1"), spread_bps=0.0)
    assert prices(quote(view(100, 150), r)) == (105, 145)
    assert prices(quote(view(30, 40), r)) == (31, 39)
