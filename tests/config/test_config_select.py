"""Entries to instruments: names looked up, selections resolved, figures held against the grid."""

from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest
from config_samples import DAYS, NOW_NS, expiry_ns, make_instrument

from mmd.config.model import Config
from mmd.config.select import Resolution, resolve
from mmd.domain.errors import ConfigError
from mmd.domain.instruments import Contract, Instrument, Kind

PRICES = {("deribit", "BTC"): 32_200.0}
Make = Callable[..., Config]
Listing = dict[str, Instrument]
SELECT = "expiries: {nearest: 2}, strikes: {nearest_to_money: 2}"


def symbols(resolution: Resolution) -> list[str]:
    return [resolved.instrument.symbol for resolved in resolution.symbols.values()]


def run(config: Config, listing: Listing, prices: dict[tuple[str, str], float] | None = None) -> Resolution:
    return resolve(config, {"deribit": listing}, PRICES if prices is None else prices, NOW_NS)


def refused(config: Config, listing: Listing, prices: dict[tuple[str, str], float] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        run(config, listing, prices)
    return caught.value.lines


def test_the_good_one(config_with: Make, listing: Listing) -> None:
    resolution = run(config_with(), listing)
    assert symbols(resolution) == [
        "BTC-PERPETUAL",
        "BTC-4DEC26-32000-C",
        "BTC-4DEC26-32000-P",
        "BTC-4DEC26-34000-C",
        "BTC-4DEC26-34000-P",
        "BTC-25DEC26-32000-C",
        "BTC-25DEC26-32000-P",
        "BTC-25DEC26-34000-C",
        "BTC-25DEC26-34000-P",
    ]
    assert resolution.notes == []
    option = resolution.symbols["deribit/BTC-4DEC26-32000-C"]
    assert option.entry == "instruments[1]"
    assert option.settings.limits.max_position == 1


@pytest.mark.parametrize(
    ("wanted", "count", "first"),
    [
        ("expiry: 2026-12-25, strikes: [30000, 32000], kinds: [put]", 2, "BTC-25DEC26-30000-P"),
        ("expiries: [2027-03-26, 20261204], strikes: [32000], kinds: [call]", 2, "BTC-4DEC26-32000-C"),
        ("expiries: {within_days: 30}, strikes: all", 20, "BTC-4DEC26-28000-C"),
        ("expiries: all, strikes: all, kinds: [call]", 14, "BTC-4DEC26-28000-C"),
        ("expiries: {nearest: 9}, strikes: {nearest_to_money: 9}, kinds: [call]", 14, "BTC-4DEC26-28000-C"),
        ("kinds: [perpetual]", 0, ""),
        ("expiries: {nearest: 1}, kinds: [future]", 1, "BTC-25DEC26"),
        ("expiries: all, strikes: [36000], kinds: [future, call]", 4, "BTC-25DEC26"),
    ],
)
def test_selections(config_with: Make, listing: Listing, wanted: str, count: int, first: str) -> None:
    plain = ("size: 0.1}", "size: 10}"), ("limits: {max_position: 1}", "limits: {max_position: 100}")
    resolution = run(config_with((SELECT, wanted), *plain), listing)
    found = [name for name in symbols(resolution) if name != "BTC-PERPETUAL"]
    assert len(found) == count
    assert found[:1] == [first] * (count > 0)


def test_equally_near_strikes_take_the_lower_one(config_with: Make, listing: Listing) -> None:
    config = config_with(("nearest_to_money: 2", "nearest_to_money: 1"))
    assert "BTC-4DEC26-30000-C" in symbols(run(config, listing, {("deribit", "BTC"): 31_000.0}))


def test_what_expired_or_takes_no_orders_is_left_out(config_with: Make, listing: Listing) -> None:
    listing["BTC-OLD"] = make_instrument("BTC-OLD", Kind.CALL, expiry_ns=NOW_NS - 1, strike=Decimal(32000))
    locked = listing["BTC-4DEC26-32000-C"]
    listing[locked.symbol] = msgspec.structs.replace(locked, tradable=False)
    resolution = run(config_with(), listing)
    assert len(resolution.symbols) == 8
    assert resolution.notes == ["instruments[1]: left out, no orders taken there now: BTC-4DEC26-32000-C"]


def test_a_named_instrument_wins_over_a_selection(config_with: Make, listing: Listing) -> None:
    named = "instruments:\n  - {exchange: deribit, symbol: BTC-4DEC26-32000-C, spread: options, size: 0.2}"
    resolution = run(config_with(("instruments:", named)), listing)
    assert resolution.symbols["deribit/BTC-4DEC26-32000-C"].settings.profile.size == Decimal("0.2")
    assert resolution.symbols["deribit/BTC-4DEC26-32000-C"].entry == "instruments[0]"
    assert "instruments[0] says" in resolution.notes[0]
    assert len(resolution.symbols) == 9


def test_two_selections_of_one_symbol_are_refused(config_with: Make, listing: Listing) -> None:
    more = "- {select: {exchange: deribit, underlying: BTC, expiry: 2026-12-04, strikes: [32000]}, spread: options}"
    lines = refused(config_with(("limits:\n  per", f"  {more}\nlimits:\n  per")), listing)
    assert len(lines) == 2
    assert "instruments[2].select: finds BTC-4DEC26-32000-C, which instruments[1] finds too" in lines[0]


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (("BTC-PERPETUAL", "BTC-PERPETAUL"), ["mmd.yaml:12:33: instruments[0].symbol", "close to it: BTC-PERPETUAL"]),
        (("BTC-PERPETUAL", "XYZ"), ["deribit lists no XYZ; it lists 30 instruments"]),
        (("expiries: {nearest: 2}", "expiry: 2026-12-11"), ["nothing expires on 2026-12-11; listed: 2026-12-04, 2026"]),
        (
            ("expiries: {nearest: 2}", "expiries: {within_days: 1}"),
            ["nothing expires within 1 days; listed: 2026-12-04"],
        ),
        (("{nearest_to_money: 2}", "[31000]"), ["no strike 31000 is listed; the nearest: 28000, 30000, 32000"]),
        (("underlying: BTC,", "underlying: BTC, contract: linear,"), ["no linear call, put of BTC; there are inverse"]),
        (
            ("size: 10}", "size: 15}"),
            ["mmd.yaml:9:115: spreads.perp.size: is 15; allowed: multiples of 10, as 10 or 20"],
        ),
        (("size: 10}", "size: 5}"), ["is 5; allowed: at least 10"]),
        (("size: 0.1}", "size: 0.05}"), ["spreads.options.size: is 0.05; allowed: at least 0.1", "and 7 more)"]),
        (
            ("{max_position: 1}", "{max_position: 0.05}"),
            ["instruments[1].limits.max_position: is 0.05; allowed: at lea"],
        ),
        (("max_position: 100,", "max_position: 5,"), ["limits.per_symbol.max_position: is 5; allowed: at least 10"]),
    ],
)
def test_refusals(config_with: Make, listing: Listing, change: tuple[str, str], texts: list[str]) -> None:
    lines = refused(config_with(change), listing)
    assert len(lines) == 1
    for text in texts:
        assert text in lines[0]


def test_every_trouble_comes_at_once(config_with: Make, listing: Listing) -> None:
    config = config_with(("BTC-PERPETUAL", "BTC-PERP"), ("size: 0.1}", "size: 0.15}"), ("{nearest: 2}", "[2026-12-11]"))
    assert len(refused(config, listing)) == 2
    config = config_with(("size: 10}", "size: 15}"), ("size: 0.1}", "size: 0.15}"))
    assert len(refused(config, listing)) == 2


def test_no_index_price_is_no_guess(config_with: Make, listing: Listing) -> None:
    for prices in ({}, {("deribit", "BTC"): 0.0}, {("deribit", "BTC"): float("nan")}):
        lines = refused(config_with(), listing, prices)
        assert len(lines) == 1
        assert "no index price of BTC is known" in lines[0]
    assert run(config_with(("{nearest_to_money: 2}", "all")), listing, {}).symbols


@pytest.mark.parametrize("still_listed", [True, False])
def test_an_expired_named_instrument_is_left_out(config_with: Make, listing: Listing, still_listed: bool) -> None:
    ended = {} if still_listed else {("deribit", "BTC-1DEC26"): NOW_NS}
    if still_listed:
        listing["BTC-1DEC26"] = make_instrument("BTC-1DEC26", Kind.FUTURE, expiry_ns=NOW_NS)
    found = resolve(config_with(("BTC-PERPETUAL", "BTC-1DEC26")), {"deribit": listing}, PRICES, NOW_NS, ended)
    assert "BTC-1DEC26" not in symbols(found) and len(found.symbols) == 8
    assert found.notes == ["instruments[0].symbol: BTC-1DEC26 expired on 2026-12-01: left out"]
    assert found.expired["deribit/BTC-1DEC26"].expiry_ns == NOW_NS


def test_a_name_that_never_was_is_refused_beside_one_that_expired(config_with: Make, listing: Listing) -> None:
    more = "instruments:\n  - {exchange: deribit, symbol: BTC-1NOV26, spread: perp}"
    config = config_with(("BTC-PERPETUAL", "BTC-PERPETAUL"), ("instruments:", more))
    with pytest.raises(ConfigError) as caught:
        resolve(config, {"deribit": listing}, PRICES, NOW_NS, {("deribit", "BTC-1NOV26"): NOW_NS - 1})
    (line,) = caught.value.lines
    assert line.startswith("mmd.yaml:13:33: instruments[1].symbol: deribit lists no BTC-PERPETAUL")


@pytest.mark.parametrize(
    ("days", "count", "notes"),
    [
        pytest.param("[2026-11-27, 2026-12-04]", 4, ["what expired on 2026-11-27 is left out"], id="one of two"),
        pytest.param(
            "[2026-11-27, 2026-12-01]", 0, [f"what expired on 2026-{day} is left out" for day in ("11-27", "12-01")]
        ),
    ],
)
def test_days_of_a_selection_that_are_over_are_left_out(
    config_with: Make, listing: Listing, days: str, count: int, notes: list[str]
) -> None:
    resolution = run(config_with(("{nearest: 2}", days)), listing)
    assert len(resolution.symbols) == 1 + count
    assert resolution.notes == [f"instruments[1].select.expiries: {note}" for note in notes]


def test_an_underlying_without_exposure_limit_is_refused(config_with: Make, listing: Listing) -> None:
    listing["ETH-PERPETUAL"] = make_instrument("ETH-PERPETUAL", Kind.PERPETUAL, base="ETH")
    lines = refused(config_with(("BTC-PERPETUAL", "ETH-PERPETUAL")), listing)
    assert "limits.portfolio.max_exposure: has no line for ETH" in lines[0]


def test_linear_options_only_where_asked(config_with: Make, listing: Listing) -> None:
    name = "BTC_USDC-4DEC26-32000-C"
    listing[name] = make_instrument(
        name, Kind.CALL, contract=Contract.LINEAR, expiry_ns=expiry_ns(DAYS[0]), strike=Decimal(32000)
    )
    assert name not in symbols(run(config_with(), listing))
    config = config_with(("underlying: BTC,", "underlying: BTC, contract: linear,"))
    assert symbols(run(config, listing)) == ["BTC-PERPETUAL", name]


def test_a_strike_that_some_expiries_lack_is_a_note(config_with: Make, listing: Listing) -> None:
    config = config_with((SELECT, "expiries: all, strikes: [28000, 30000]"))
    resolution = run(config, listing)
    assert resolution.notes == ["instruments[1].select: strike 28000 is not listed for 2027-03-26"]
    assert len(resolution.symbols) == 11
