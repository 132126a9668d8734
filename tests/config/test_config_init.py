"""mmd init: the words of atomizer's market maker, and the file they become."""

from decimal import Decimal

import pytest

from mmd.config.advise import advise
from mmd.config.init import InitRefused, Words, parse
from mmd.config.init_file import to_yaml
from mmd.config.load import load_text
from mmd.config.model import AllStrikes, Config, NetworkKind, Selection
from mmd.domain.reasons import Mode
from mmd.domain.settings import Style

ASKED: dict[str, str | bool | None] = {"expiry": "20261225", "strikes": "2800,3000"}
LEAST = {**ASKED, "exchange": "deribit"}


def config_of(words: Words, environ: dict[str, str] | None = None) -> Config:
    return load_text(to_yaml(parse(words, environ or {})))


def refused(words: Words, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(InitRefused) as caught:
        parse(words, environ or {})
    return caught.value.lines


def test_the_defaults_are_atomizers() -> None:
    config = config_of(LEAST)
    target, settings = config.entries[0].target, config.entries[0].settings
    assert isinstance(target, Selection)
    assert (target.underlying, target.strikes) == ("ETH", (Decimal(2800), Decimal(3000)))
    assert [str(day) for day in target.expiries] == ["2026-12-25"]
    profile = settings.profile
    assert (profile.spread_bps, profile.min_spread_bps, profile.size) == (10, 1000, Decimal("0.1"))
    assert (profile.refresh_seconds, profile.style, profile.improve_by) == (1, Style.IMPROVE, Decimal("0.0005"))
    assert settings.limits.max_position == 1
    assert settings.limits.collar_bps == profile.band_bps == 10000
    assert config.symbol_limits.collar_bps == 200
    assert settings.limits.max_order_value_usd == config.portfolio.max_notional_usd
    assert config.portfolio.max_exposure == {"ETH": Decimal(10)}
    assert config.exchanges["deribit"].network is NetworkKind.MAINNET
    assert config.service.mode is Mode.SHADOW
    assert advise(config, {}).warnings == []


def test_the_exchange_is_derive_and_the_figures_are_the_same() -> None:
    config = config_of({**ASKED, "subaccount": "7"})
    assert {name: (each.type, each.network) for name, each in config.exchanges.items()} == {
        "derive": ("derive", NetworkKind.MAINNET)
    }
    options = config.entries[0].settings
    profile = options.profile
    assert (profile.spread_bps, profile.min_spread_bps, profile.size) == (10, 1000, Decimal("0.1"))
    assert (profile.refresh_seconds, profile.style, profile.improve_by) == (1, Style.IMPROVE, Decimal("0.10"))
    assert (options.limits.max_position, options.limits.max_order_size) == (1, Decimal("0.1"))
    assert config.portfolio.max_exposure == {"ETH": Decimal(10)}
    assert config.service.mode is Mode.SHADOW
    assert advise(config, {}).warnings == []


def test_every_flag_takes_effect() -> None:
    words: dict[str, str | bool | None] = {
        "exchange": "deribit",
        "expiry": "2026-12-25",
        "all_strikes": True,
        "test": True,
        "underlying": "btc",
        "spread": "20",
        "min_spread": "50",
        "size": "0.3",
        "refresh": "2.5",
        "max_position": "3",
        "max_exposure": "12",
        "max_notional_usd": "5000",
        "max_drawdown_usd": "50",
        "improvement_reference_size": "0.5",
        "improvement": "90",
        "index_price": "60000",
        "live": True,
    }
    config = config_of(words)
    entry = config.entries[0]
    profile = entry.settings.profile
    assert isinstance(entry.target, Selection)
    assert entry.target.strikes == AllStrikes()
    assert entry.target.underlying == "BTC"
    assert (profile.spread_bps, profile.min_spread_bps, profile.refresh_seconds) == (20, 50, 2.5)
    assert (profile.size, profile.improve_min_size) == (Decimal("0.3"), Decimal("0.5"))
    assert profile.improve_by == Decimal("0.0015")
    assert entry.settings.limits.max_position == 3
    assert config.portfolio.max_exposure == {"BTC": Decimal(12)}
    assert (config.portfolio.max_notional_usd, config.portfolio.max_drawdown_usd) == (5000, 50)
    assert config.exchanges["deribit"].network is NetworkKind.TESTNET
    assert config.service.mode is Mode.LIVE


def test_the_environment_stands_in_and_flags_win() -> None:
    environ = {
        "EXPIRY": "20261225",
        "STRIKES": "2800",
        "SIZE": "0.2",
        "SPREAD_BPS": "30",
        "MAX_POSITION": "2",
        "MAX_EXPOSURE": "20",
        "DRY_RUN": "true",
        "DERIBIT_PRIVATE_KEY": "secret",
    }
    order = parse({"size": "0.4", "exchange": "deribit"}, environ)
    assert (order.size, order.spread_bps, order.max_position) == (Decimal("0.4"), Decimal(30), Decimal(2))
    assert order.max_exposure == 20
    assert order.dry_run
    assert order.strikes == (Decimal(2800),)
    text = to_yaml(order)
    assert "{env: DERIBIT_PRIVATE_KEY}" in text
    assert "secret:" in text
    assert ": secret" not in text


@pytest.mark.parametrize(
    ("words", "environ", "strikes"),
    [
        ({"strikes": "3000"}, {"ALL_STRIKES": "true"}, 1),
        ({"all_strikes": True}, {"STRIKES": "2800,3000"}, 0),
        ({}, {"STRIKES": "2800,3000", "ALL_STRIKES": "false"}, 2),
        ({}, {"ALL_STRIKES": "1"}, 0),
    ],
)
def test_a_flag_silences_the_other_environment_name(words: Words, environ: dict[str, str], strikes: int) -> None:
    assert len(parse({"expiry": "20261225", "exchange": "deribit", **words}, environ).strikes) == strikes


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"expiry": None}, "--expiry: is missing"),
        ({"expiry": "25DEC26"}, "--expiry: is '25DEC26'; allowed: a date as in 20261225"),
        ({"expiry": "20261325"}, "--expiry: is '20261325'"),
        ({"strikes": None}, "--strikes: is missing; allowed: a list as in 2800,3000 or --all-strikes"),
        ({"all_strikes": True}, "--strikes and --all-strikes: allowed: one of the two"),
        ({"strikes": "2800,,x"}, "--strikes: is ''; allowed: a number"),
        ({"strikes": "0"}, "0 is no strike"),
        ({"exchange": "binance"}, "--exchange: is 'binance'; allowed: derive, deribit"),
        ({"underlying": "DOGE"}, "--underlying: is 'DOGE'; allowed: BTC, ETH"),
        ({"private_key": "0xabc"}, "--private-key: is never taken from the command line"),
        ({"private_key": ""}, "--private-key: is never taken from the command line"),
        ({"size": "-1"}, "--size: is '-1'; allowed: a number"),
        ({"size": "0"}, "--size: is 0; allowed: a number above 0"),
        ({"size": "2"}, "--size: is 2 and above --max-position, 1.0"),
        ({"spread": "1e9"}, "--spread: is '1e9'"),
        ({"spread": "20001"}, "--spread: is 20001; allowed: 0 to 20000"),
        ({"refresh": "1s"}, "--refresh: is '1s'"),
        ({"aggression": "0.5"}, "--aggression: is 0.5; allowed: 0 (join the best price) or 1"),
        ({"improvement": "0.10"}, "--improvement: is in USD and these options are priced in coin"),
        ({"test": True, "network": "sandbox"}, "--test: stands beside --network sandbox"),
        ({"network": "paper"}, "--network: is 'paper'"),
    ],
)
def test_refusals(words: Words, text: str) -> None:
    lines = refused({**LEAST, **words})
    assert any(text in line for line in lines), lines
    assert not any("0xabc" in line for line in lines)


def test_all_refusals_at_once_and_environment_names_are_named() -> None:
    lines = refused({"exchange": "binance"}, {"SIZE": "big", "DRY_RUN": "maybe", "STRIKES": "a"})
    assert len(lines) == 5
    assert any(line.startswith("$SIZE: is 'big'") for line in lines)
    assert any(line.startswith("$DRY_RUN") for line in lines)


@pytest.mark.parametrize(("aggression", "style"), [("0", Style.JOIN), ("1.0", Style.IMPROVE), ("3", Style.IMPROVE)])
def test_aggression_that_maps(aggression: str, style: Style) -> None:
    assert config_of({**LEAST, "aggression": aggression}).entries[0].settings.profile.style is style


@pytest.mark.parametrize(("usd", "improve_by"), [("0.10", "0.0005"), ("45", "0.0005"), ("60", "0.0010")])
def test_an_improvement_in_dollars_becomes_whole_ticks_of_coin(usd: str, improve_by: str) -> None:
    order = parse({**LEAST, "improvement": usd, "index_price": "60000"}, {})
    assert order.improve_by == Decimal(improve_by)
    assert "tick" in order.notes[0]
