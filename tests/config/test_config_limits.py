"""Which limits a symbol gets: by its kind, narrowed by its entry, never widened, and where each was written."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from config_samples import GOOD, NOW_NS, make_instrument, make_listing
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st

from mmd.config.limits import NULLABLE, TIGHTER, Tighter, given, kinds_named, reach_of
from mmd.config.load import load, load_text
from mmd.config.model import Config
from mmd.config.schema import definition
from mmd.config.select import Resolution, is_allowed, resolve
from mmd.core.rules import max_filled
from mmd.domain.errors import ConfigError
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.settings import SymbolLimits, SymbolSettings

Make = Callable[..., Config]
NOT_WRITTEN = {"allowed"}
KEYS = {field.name for field in msgspec.structs.fields(SymbolLimits)} - NOT_WRITTEN
NAMES = {
    Kind.PERPETUAL: "BTC-PERPETUAL",
    Kind.FUTURE: "BTC-25DEC26",
    Kind.CALL: "BTC-25DEC26-32000-C",
    Kind.PUT: "BTC-25DEC26-32000-P",
}
COMMON = "  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 200}\n"
KINDS = """\
  per_symbol: {max_position: 100, max_order_size: 50, collar_bps: 200, max_rejects: 7}
  per_kind:
    perpetual: {max_position: 500}
    future: {collar_bps: 300}
    option: {max_position: 4, max_order_size: 2, collar_bps: 10000}
    call: {max_position: 3, max_rejects: 9}
"""
ALL_FOUR = """\
  - select: {exchange: deribit, underlying: BTC, expiry: 2026-12-25, strikes: [32000],
             kinds: [perpetual, future, call, put]}
    spread: one
"""
LISTED = {name: make_listing()[name] for name in NAMES.values()}


def all_four(limits: str = KINDS, own: str = "{}") -> Config:
    """One selection of one instrument of each kind."""
    head, _, tail = GOOD.partition("spreads:\n")
    portfolio = tail[tail.index("  portfolio:") :]
    spreads = "spreads:\n  one: {size: 0.1, band_bps: 100}\n"
    return load_text(f"{head}{spreads}instruments:\n{ALL_FOUR}    limits: {own}\nlimits:\n{limits}{portfolio}")


def run(config: Config, listing: dict[str, Instrument] | None = None) -> Resolution:
    """With amounts of every kind in coins, so that one size fits all of them."""
    found = LISTED if listing is None else listing
    coins = {name: msgspec.structs.replace(each, lot=Decimal("0.1")) for name, each in found.items()}
    return resolve(config, {"deribit": coins}, {("deribit", "BTC"): 32_200.0}, NOW_NS)


def settings_of(resolution: Resolution, kind: Kind) -> SymbolSettings:
    return resolution.symbols[f"deribit/{NAMES[kind]}"].settings


def test_every_limit_has_a_tighter_direction_and_can_be_narrowed() -> None:
    assert set(TIGHTER) == KEYS
    assert {key for key, tighter in TIGHTER.items() if tighter is Tighter.HIGHER} == {
        "drift_window_seconds",
        "fill_window_seconds",
        "reject_window_seconds",
    }
    fields = msgspec.structs.fields(SymbolLimits)
    assert {field.name for field in fields if field.default is None} == NULLABLE
    for place in (definition("kind_limits"), definition("entry")["properties"]["limits"]):
        assert set(place["properties"]) == KEYS
        for key, node in place["properties"].items():
            assert node == {"$ref": f"#/$defs/symbol_limits/properties/{key}"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("BTC-PERPETUAL", [Kind.PERPETUAL]),
        ("SOL_USDC-PERPETUAL", [Kind.PERPETUAL]),
        ("btc-perpetual", [Kind.PERPETUAL]),
        ("BTC-27DEC26", [Kind.FUTURE]),
        ("BTC-7DEC26", [Kind.FUTURE]),
        ("BTC-27DEC26-60000-C", [Kind.CALL]),
        ("XRP_USDC-27DEC26-0d625-P", [Kind.PUT]),
        ("BTC-FS-27DEC26_PERP", list(Kind)),
        ("BTC-27DEC26-60000-X", list(Kind)),
        ("BTC_USDC", list(Kind)),
        ("BTC-SOON", list(Kind)),
        ("", list(Kind)),
    ],
)
def test_what_a_name_tells(name: str, kinds: list[Kind]) -> None:
    assert list(kinds_named(name)) == kinds


@pytest.mark.parametrize(
    ("kind", "position", "size", "collar", "rejects"),
    [
        (Kind.PERPETUAL, "500", "50", 200.0, 7),
        (Kind.FUTURE, "100", "50", 300.0, 7),
        (Kind.CALL, "3", "2", 10000.0, 9),
        (Kind.PUT, "4", "2", 10000.0, 7),
    ],
)
def test_the_kind_decides(kind: Kind, position: str, size: str, collar: float, rejects: int) -> None:
    limits = settings_of(run(all_four()), kind).limits
    assert (limits.max_position, limits.max_order_size) == (Decimal(position), Decimal(size))
    assert (limits.collar_bps, limits.max_rejects) == (collar, rejects)


def test_the_tighter_one_counts_for_each_kind_and_a_note_says_so() -> None:
    resolution = run(all_four(own="{max_position: 3.5, collar_bps: 250, max_fills: 10, reject_window_seconds: 90}"))
    found = {kind: settings_of(resolution, kind).limits for kind in Kind}
    assert {kind: str(limits.max_position) for kind, limits in found.items()} == {
        Kind.PERPETUAL: "3.5",
        Kind.FUTURE: "3.5",
        Kind.CALL: "3",
        Kind.PUT: "3.5",
    }
    assert [limits.collar_bps for limits in found.values()] == [200.0, 250.0, 250.0, 250.0]
    assert {limits.max_fills for limits in found.values()} == {10}
    assert {limits.reject_window_seconds for limits in found.values()} == {90.0}
    assert sorted(resolution.notes) == [
        "instruments[0].limits.collar_bps: too wide, limits.per_symbol.collar_bps (mmd.yaml:16) is kept"
        " for BTC-PERPETUAL",
        "instruments[0].limits.max_position: too wide, limits.per_kind.call.max_position (mmd.yaml:21) is kept"
        " for BTC-25DEC26-32000-C",
    ]


def test_a_name_that_says_another_kind_than_the_exchange_gets_the_kind_of_the_exchange(config_with: Make) -> None:
    config = config_with(
        ("BTC-PERPETUAL", "BTC-25DEC26-32000-C"),
        ("spread: perp}", "spread: options, limits: {max_position: 3}}"),
        (COMMON, KINDS.replace("call: {max_position: 3", "call: {max_position: 5")),
        ("limits: {max_position: 1}", "limits: {}"),
    )
    odd = make_instrument("BTC-25DEC26-32000-C", Kind.PERPETUAL)
    listing = make_listing() | {odd.symbol: odd}
    found = run(config, listing).symbols["deribit/BTC-25DEC26-32000-C"].settings
    assert found.limits.max_position == 3
    assert found.limits.max_order_size == 50


def test_no_limit_can_be_narrowed_to_one_and_one_not_to_none() -> None:
    own = "{max_drawdown_usd: 5, collar_vol_points: 3, max_filled: 2}"
    limits = settings_of(run(all_four(own=own)), Kind.CALL).limits
    assert (limits.max_drawdown_usd, limits.collar_vol_points, limits.max_filled) == (5, 3, 2)
    wider = KINDS.replace("max_rejects: 7", "max_drawdown_usd: 5")
    with pytest.raises(
        ConfigError, match=r"max_drawdown_usd: is null, wider than limits\.per_symbol\.max_drawdown_usd"
    ):
        all_four(wider, "{max_drawdown_usd: null}")
    assert settings_of(run(all_four(own="{max_drawdown_usd: null}")), Kind.CALL).limits.max_drawdown_usd is None


def test_what_may_fill_follows_a_narrower_position() -> None:
    limits = settings_of(run(all_four(own="{max_position: 1}")), Kind.PUT).limits
    assert (limits.max_filled, max_filled(limits)) == (None, 5)


def test_narrowing_by_a_drop_in_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "mmd.yaml").write_text(GOOD)
    (tmp_path / "mmd.d").mkdir()
    (tmp_path / "mmd.d/10-site.yaml").write_text("limits:\n  per_kind:\n    put: {max_position: 0.5}\n")
    found = run(load(tmp_path / "mmd.yaml"), make_listing()).symbols["deribit/BTC-25DEC26-32000-P"].settings
    assert found.limits.max_position == Decimal("0.5")
    assert found.sources["max_position"] == "limits.per_kind.put.max_position (10-site.yaml:3)"


def test_where_each_limit_was_written() -> None:
    sources = settings_of(run(all_four(own="{max_order_size: 1}")), Kind.CALL).sources
    assert set(sources) == KEYS | {"allowed", "max_open_orders"}
    picked = {key: sources[key] for key in ("max_position", "max_order_size", "collar_bps", "max_fills", "allowed")}
    assert picked == {
        "max_position": "limits.per_kind.call.max_position (mmd.yaml:21)",
        "max_order_size": "instruments[0].limits.max_order_size (mmd.yaml:14)",
        "collar_bps": "limits.per_kind.option.collar_bps (mmd.yaml:20)",
        "max_fills": "limits.per_symbol.max_fills (default)",
        "allowed": "limits.allowed (default)",
    }
    assert sources["max_open_orders"] == "limits.portfolio.max_open_orders (default)"


@pytest.mark.parametrize(
    ("patterns", "symbol", "allowed"),
    [
        (None, "BTC-PERPETUAL", True),
        ((), "BTC-PERPETUAL", False),
        (("BTC-PERPETUAL",), "BTC-PERPETUAL", True),
        (("BTC-PERPETUAL",), "BTC-PERPETUAL-2", False),
        (("btc-perpetual",), "BTC-PERPETUAL", False),
        (("BTC-*-C",), "BTC-25DEC26-32000-C", True),
        (("BTC-*-C",), "BTC-25DEC26-32000-P", False),
        (("deribit/BTC-*",), "BTC-PERPETUAL", True),
        (("other/BTC-*",), "BTC-PERPETUAL", False),
        (("*/BTC-PERPETUAL",), "BTC-PERPETUAL", True),
    ],
)
def test_who_is_allowed(patterns: tuple[str, ...] | None, symbol: str, allowed: bool) -> None:
    assert is_allowed(patterns, "deribit", symbol) is allowed


def test_allowed_reaches_each_symbol_and_a_note_names_those_left_out() -> None:
    resolution = run(all_four(KINDS + '  allowed: [BTC-PERPETUAL, "deribit/*-C"]\n'))
    assert [kind for kind in Kind if settings_of(resolution, kind).limits.allowed] == [Kind.PERPETUAL, Kind.CALL]
    assert settings_of(resolution, Kind.PUT).sources["allowed"] == "limits.allowed (mmd.yaml:22)"
    assert resolution.notes == [
        "instruments[0]: limits.allowed does not name them, no order will be sent: BTC-25DEC26, BTC-25DEC26-32000-P"
    ]


def test_protected_are_those_of_the_underlying(config_with: Make) -> None:
    protection = "maker_protection: [{underlying: BTC, interval_seconds: 5, frozen_seconds: 0, max_delta: 1}]"
    on = run(config_with(("    network: sandbox", f"    network: sandbox\n    {protection}")), make_listing())
    assert all(each.settings.protected for each in on.symbols.values())
    other = protection.replace("BTC", "ETH")
    off = run(config_with(("    network: sandbox", f"    network: sandbox\n    {other}")), make_listing())
    assert not any(each.settings.protected for each in off.symbols.values())


def test_a_size_that_one_kind_has_no_room_for_is_refused() -> None:
    config = all_four(KINDS.replace("call: {max_position: 3", "call: {max_order_size: 0.1"))
    assert run(config)
    text = "spreads.one.size: is 0.3; allowed: at most 0.2, which is limits.per_kind.call.max_order_size (mmd.yaml:"
    narrow = KINDS.replace("call: {max_position: 3", "call: {max_order_size: 0.2")
    head, _, tail = GOOD.partition("spreads:\n")
    whole = f"{head}spreads:\n  one: {{size: 0.3, band_bps: 100}}\ninstruments:\n{ALL_FOUR}limits:\n{narrow}"
    config = load_text(whole + tail[tail.index("  portfolio:") :])
    with pytest.raises(ConfigError) as caught:
        run(config)
    assert len(caught.value.lines) == 1
    assert text in caught.value.lines[0]


WHOLE = {"max_drift_ticks", "max_fills", "max_rejects"}
VALUES = st.dictionaries(
    st.sampled_from(sorted(KEYS)), st.one_of(st.integers(1, 50), st.sampled_from([None, Decimal("0.5")])), max_size=8
)


def written(layer: dict[str, Decimal | int | None]) -> str:
    """A layer in flow style, without what the schema would refuse."""
    good = {
        key: value
        for key, value in layer.items()
        if (value is not None or key in NULLABLE) and not (key in WHOLE and isinstance(value, Decimal))
    }
    return "{" + ", ".join(f"{key}: {'null' if value is None else value}" for key, value in good.items()) + "}"


@settings(max_examples=300, deadline=None)
@given_values(VALUES, VALUES, VALUES, VALUES)
def test_no_entry_widens_a_limit(
    common: dict[str, Decimal | int | None],
    option: dict[str, Decimal | int | None],
    call: dict[str, Decimal | int | None],
    own: dict[str, Decimal | int | None],
) -> None:
    """Whatever is written where: refused, or at most what `limits:` gives to the kind."""
    base = {"max_position": 40, "max_order_size": 30, "collar_bps": 20}
    limits = (
        f"  per_symbol: {written(base | common)}\n  per_kind: {{option: {written(option)}, call: {written(call)}}}\n"
    )
    try:
        config = all_four(limits, written(own))
        resolution = run(config)
    except ConfigError:
        return
    for kind in Kind:
        outer = given(config.effective["limits"], kind)
        final = settings_of(resolution, kind).limits
        for key in KEYS:
            reach = reach_of(key, outer)
            value = max_filled(final) if key == "max_filled" else getattr(final, key)
            if reach is None:
                continue
            assert value is not None, key
            inside = value >= reach if TIGHTER[key] is Tighter.HIGHER else value <= reach
            assert inside, (kind, key, value, reach)
