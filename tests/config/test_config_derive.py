"""An exchange of type derive: its keys as values and as secrets, its names, and the file that `mmd init` makes."""

from decimal import Decimal
from pathlib import Path

import pytest
from config_samples import GOOD

from mmd.cli.mmd import main
from mmd.config.advise import advise
from mmd.config.init import InitRefused, Words, parse
from mmd.config.init_file import to_yaml
from mmd.config.limits import kinds_named
from mmd.config.load import load, load_text
from mmd.config.model import AllStrikes, Chain, Config, ExchangeConfig, Named, NetworkKind, Selection, Wallet
from mmd.config.plan import Effect, diff
from mmd.config.render import to_yaml as render
from mmd.config.salvage import essentials, revive
from mmd.config.schema import reload_effect
from mmd.config.secrets import Secret, Source
from mmd.config.select import Resolution
from mmd.domain.errors import ConfigError, CredentialError
from mmd.domain.instruments import Contract, Kind
from mmd.domain.settings import Protection, Reset

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "etc/examples/derive.yaml"
OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"  # a well-known development key
ACCOUNT = "wallet: {env: W}\n    session_key: {env: K}\n    subaccount: 30769"
MADE_WITH: Words = {
    "test": True,
    "expiry": "20261225",
    "strikes": "2800,3000,3200",
    "min_spread": "300",
    "subaccount": "30769",
}


def with_derive(more: str = ACCOUNT, network: str = "testnet") -> Config:
    entry = f"  derive:\n    type: derive\n    network: {network}\n"
    return load_text(GOOD.replace("spreads:\n", f"{entry}    {more}\nspreads:\n" if more else f"{entry}spreads:\n", 1))


def derive_of(more: str = ACCOUNT, network: str = "testnet") -> ExchangeConfig:
    return with_derive(more, network).exchanges["derive"]


# --- values --------------------------------------------------------------------------------------


def test_an_account_is_a_wallet_a_key_and_a_number() -> None:
    found = derive_of()
    assert (found.type, found.network, found.chain) == ("derive", NetworkKind.TESTNET, Chain.TESTNET)
    assert found.wallet == Wallet(
        address=Secret(Source.ENV, "W"), session_key=Secret(Source.ENV, "K"), subaccount=30769, reaper_key=None
    )
    assert (found.order_valid_ms, found.order_life_seconds) == (2000, 600)
    assert (found.credentials, found.reaper) == (None, None)


def test_what_is_deribits_is_not_filled_in() -> None:
    config = with_derive()
    raw = config.effective["exchanges"]["derive"]
    assert not {"grant", "credentials", "reaper_credentials"} & set(raw)
    assert "order_life_seconds" not in config.effective["exchanges"]["deribit"]
    assert load_text(render(config)).effective == config.effective


@pytest.mark.parametrize(
    ("network", "kind", "chain", "url"),
    [
        ("mainnet", NetworkKind.MAINNET, Chain.MAINNET, None),
        ("testnet", NetworkKind.TESTNET, Chain.TESTNET, None),
        ("sandbox", NetworkKind.SANDBOX, Chain.TESTNET, None),
        ('{url: "wss://x.example/ws", chain: mainnet}', NetworkKind.URL, Chain.MAINNET, "wss://x.example/ws"),
        ('{url: "ws://127.0.0.1:8646/v3/ws", chain: testnet}', NetworkKind.URL, Chain.TESTNET, "ws://127.0.0.1:8646/v3/ws"),
    ],
)  # fmt: skip
def test_networks(network: str, kind: NetworkKind, chain: Chain, url: str | None) -> None:
    found = derive_of(network=network)
    assert (found.network, found.chain, found.url) == (kind, chain, url)


def test_the_sandbox_needs_no_account() -> None:
    assert derive_of("", "sandbox").wallet is None


def test_maker_protection_in_milliseconds_and_amounts() -> None:
    found = derive_of(f"""{ACCOUNT}
    maker_protection:
      - {{currency: ETH, interval_ms: 1500, frozen_ms: 0, max_amount: "2.5"}}
      - {{currency: BTC, interval_ms: 100, frozen_ms: 250, max_delta: 1, reset: automatic}}""")
    assert found.protections == (
        Protection(underlying="ETH", interval_seconds=1.5, frozen_seconds=0, max_quantity=Decimal("2.5")),
        Protection(
            underlying="BTC",
            interval_seconds=0.1,
            frozen_seconds=0.25,
            max_delta=Decimal(1),
            reset=Reset.AUTOMATIC,
        ),
    )


def test_a_protection_of_a_coin_that_nobody_quotes_is_named() -> None:
    protection = "maker_protection: [{currency: BTC, interval_ms: 1000, frozen_ms: 0, max_delta: 1}]"
    lines = advise(with_derive(f"{ACCOUNT}\n    {protection}"), {}).warnings
    assert any("maker_protection[0].currency: no instrument of BTC is quoted on derive" in line for line in lines)


@pytest.mark.parametrize(("life", "fine"), [(900, True), (901, False)])
def test_a_protected_order_lives_a_quarter_of_an_hour(life: int, fine: bool) -> None:
    protection = "maker_protection: [{currency: ETH, interval_ms: 1000, frozen_ms: 0, max_delta: 1}]"
    assert derive_of(f"{ACCOUNT}\n    order_life_seconds: {life}").order_life_seconds == life
    text = f"{ACCOUNT}\n    order_life_seconds: {life}\n    {protection}"
    if fine:
        assert derive_of(text).order_life_seconds == life
    else:
        with pytest.raises(ConfigError, match=r"order_life_seconds: is 901, .* at most 900 with maker_protection"):
            derive_of(text)


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("wallet", Effect.RESTART),
        ("session_key", Effect.RESTART),
        ("subaccount", Effect.RESTART),
        ("order_life_seconds", Effect.RESTART),
        ("reaper_session_key", Effect.LIVE),
        ("maker_protection", Effect.LIVE),
    ],
)
def test_what_a_reload_may_change(key: str, effect: Effect) -> None:
    assert Effect(reload_effect(["exchanges", "derive", key])) is effect


def test_a_plan_names_the_key() -> None:
    nothing = Resolution({}, [])
    plan = diff(with_derive(), nothing, with_derive(f"{ACCOUNT}\n    reaper_session_key: {{env: R}}"), nothing)
    assert [(line.path, line.effect) for line in plan.lines] == [("exchanges.derive.reaper_session_key", Effect.LIVE)]
    assert plan.refusal is None


def test_the_reaper_finds_the_account_again() -> None:
    config = with_derive(f"{ACCOUNT}\n    reaper_session_key: {{file: /k}}\n    order_valid_ms: 500")
    saved = revive("mmd", essentials(config), "kept")
    assert not saved.problems
    found = next(each for each in saved.exchanges if each.name == "derive")
    assert found.wallet == config.exchanges["derive"].wallet
    assert (found.chain, found.order_valid_ms) == (Chain.TESTNET, 500)


# --- secrets -------------------------------------------------------------------------------------


def test_the_owner_is_read_when_it_is_needed() -> None:
    wallet = derive_of().wallet
    assert wallet is not None
    assert wallet.owner({"W": OWNER.lower()}) == OWNER
    written = derive_of(ACCOUNT.replace("{env: W}", f'"{OWNER}"')).wallet
    assert written is not None
    assert written.owner({}) == OWNER


@pytest.mark.parametrize("value", ["", "0x12", KEY, f"0x{KEY}", OWNER[:-1] + "7"])
def test_a_wallet_that_is_none_is_refused_and_no_key_is_shown(value: str) -> None:
    wallet = derive_of().wallet
    assert wallet is not None
    with pytest.raises(CredentialError) as caught:
        wallet.owner({"W": value})
    assert KEY not in str(caught.value)


def checked(environ: dict[str, str], more: str = ACCOUNT) -> list[str]:
    return advise(with_derive(more), environ).unusable


def test_check_says_what_a_secret_cannot_be_and_does_not_show_it() -> None:
    assert checked({"W": OWNER, "K": KEY}) == checked({"W": OWNER, "K": f"0x{KEY}"}) == checked({}) == []
    lines = checked({"W": KEY, "K": KEY[1:], "R": "00" * 32}, f"{ACCOUNT}\n    reaper_session_key: {{env: R}}")
    assert [line.partition(": exchanges")[2].partition(":")[0] for line in lines] == [
        ".derive.wallet",
        ".derive.session_key",
        ".derive.reaper_session_key",
    ]
    assert "{env: K}: holds no private key: wanted 64 hexadecimal digits" in lines[1]
    assert KEY[1:] not in "".join(lines)


def test_check_ends_with_78_for_a_key_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERIVE_PRIVATE_KEY", KEY[2:])
    monkeypatch.setenv("DERIVE_WALLET_ADDRESS", OWNER)
    assert main(["check", "-c", str(EXAMPLE)]) == 78
    said = capsys.readouterr()
    assert "exchanges.derive.session_key: {env: DERIVE_PRIVATE_KEY}: holds no private key" in said.err
    assert KEY[2:] not in said.err + said.out
    monkeypatch.setenv("DERIVE_PRIVATE_KEY", KEY)
    assert main(["check", "-c", str(EXAMPLE), "--strict"]) == 0


def test_a_key_that_others_can_read_is_77(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o644)
    file = tmp_path / "mmd.yaml"
    file.write_text(EXAMPLE.read_text().replace("{env: DERIVE_PRIVATE_KEY}", f"{{file: {key}}}"))
    assert main(["check", "-c", str(file)]) == 77
    said = capsys.readouterr()
    assert f"session_key: {key}: has mode 0644, so others can read it" in said.err
    assert KEY not in said.err + said.out


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [("ETH-PERP", Kind.PERPETUAL), ("ETH-20261225-3000-C", Kind.CALL), ("XRP-20261225-0_5-P", Kind.PUT)],
)
def test_names_tell_kinds(symbol: str, kind: Kind) -> None:
    assert kinds_named(symbol) == (kind,)


def test_everything_there_is_linear() -> None:
    """So a perpetual's amount is coins, and counts as exposure."""
    text = EXAMPLE.read_text().replace("max_exposure: {ETH: 10.0}", "max_exposure: {ETH: 6}")
    lines = advise(load_text(text), {}).warnings
    assert [line for line in lines if "add up to at least 7 ETH" in line]


# --- the example, and mmd init -------------------------------------------------------------------


def config_of(words: Words, environ: dict[str, str] | None = None) -> Config:
    return load_text(to_yaml(parse(words, environ or {})))


def refused(words: Words) -> list[str]:
    with pytest.raises(InitRefused) as caught:
        parse(words, {})
    return caught.value.lines


def test_the_example_is_what_init_prints() -> None:
    assert to_yaml(parse(MADE_WITH, {})) == EXAMPLE.read_text()


def test_the_example_quotes_options_and_the_perpetual() -> None:
    config = load(EXAMPLE)
    options, perpetual = config.entries
    assert isinstance(options.target, Selection)
    assert (options.target.underlying, options.target.contract) == ("ETH", Contract.LINEAR)
    assert options.target.strikes == (2800, 3000, 3200)
    assert perpetual.target == Named("derive", "ETH-PERP")
    assert (options.settings.limits.collar_bps, perpetual.settings.limits.collar_bps) == (10000, 200)
    assert config.exchanges["derive"].protections == (
        Protection(
            underlying="ETH",
            interval_seconds=5,
            frozen_seconds=60,
            max_quantity=Decimal(10),
            max_delta=Decimal(3),
        ),
    )
    assert advise(config, {}).warnings == []


def test_each_figure_of_the_example_is_explained() -> None:
    plain = ("version", "type", "kinds", "spread: ", "exchange: ", "underlying: ", "fair: mid", "contract:")
    bare = [
        line
        for line in EXAMPLE.read_text().splitlines()
        if ": " in line and " # " not in line and not line.startswith("#") and not line.strip("- ").startswith(plain)
    ]
    assert bare == []


def test_words_of_derive() -> None:
    words = {**MADE_WITH, "test": None, "wallet": OWNER.lower(), "underlying": "sol", "improvement": "0.05"}
    config = config_of(words | {"strikes": None, "all_strikes": True})
    found = config.exchanges["derive"]
    assert found.network is NetworkKind.MAINNET
    assert found.wallet is not None
    assert (found.wallet.address, found.wallet.session_key) == (OWNER, Secret(Source.ENV, "DERIVE_PRIVATE_KEY"))
    target, profile = config.entries[0].target, config.entries[0].settings.profile
    assert isinstance(target, Selection)
    assert (target.underlying, target.strikes) == ("SOL", AllStrikes())
    assert profile.improve_by == Decimal("0.05")
    assert config.entries[1].target == Named("derive", "SOL-PERP")
    assert advise(config, {}).warnings == []


def test_the_sandbox_wants_no_account() -> None:
    text = to_yaml(parse({**MADE_WITH, "test": None, "network": "sandbox", "subaccount": None}, {}))
    config = load_text(text)
    assert (config.exchanges["derive"].network, config.exchanges["derive"].wallet) == (NetworkKind.SANDBOX, None)
    assert [line for line in advise(config, {}).notes if "not set" in line] == []
    with pytest.raises(ConfigError) as caught:
        load_text(text.replace("network: sandbox", "network: testnet"))
    missing = {line.partition(" exchanges.derive.")[2].partition(":")[0] for line in caught.value.lines}
    assert missing == {"wallet", "session_key", "subaccount"}


def test_an_account_that_is_named_for_the_sandbox_stays_in_the_file() -> None:
    words = {**MADE_WITH, "test": None, "network": "sandbox", "wallet": OWNER}
    wallet = config_of(words).exchanges["derive"].wallet
    assert wallet is not None
    assert (wallet.address, wallet.subaccount) == (OWNER, 30769)
    half = parse({**words, "subaccount": None}, {})
    assert half.notes == ("--wallet has no meaning in the sandbox without --subaccount and was left out",)
    assert load_text(to_yaml(half)).exchanges["derive"].wallet is None


@pytest.mark.parametrize(
    ("words", "size", "option_size"),
    [
        ({}, "1", "0.1"),
        ({"size": "0.4"}, "1", "0.4"),
        ({"size": "2", "max_position": "2"}, "2", "2"),
        ({"underlying": "BTC"}, "0.1", "0.1"),
    ],
)
def test_the_perpetual_is_quoted_with_what_it_takes(words: Words, size: str, option_size: str) -> None:
    options, perpetual = config_of({**MADE_WITH, **words}).entries
    assert perpetual.settings.profile.size == perpetual.settings.limits.max_order_size == Decimal(size)
    assert options.settings.profile.size == options.settings.limits.max_order_size == Decimal(option_size)


def test_a_perpetual_that_takes_more_than_may_be_held_is_left_out() -> None:
    order = parse({**MADE_WITH, "max_position": "0.9"}, {})
    assert order.notes == ("ETH-PERP takes no less than 1, more than --max-position 0.9: left out",)
    text = to_yaml(order)
    assert "# Note: ETH-PERP takes no less" in text
    config = load_text(text)
    assert [type(entry.target) for entry in config.entries] == [Selection]
    assert advise(config, {}).warnings == []


@pytest.mark.parametrize("network", ["mainnet", "testnet"])
def test_elsewhere_the_subaccount_is_demanded(network: str) -> None:
    (line,) = refused({**MADE_WITH, "test": None, "network": network, "subaccount": None})
    assert line.startswith("--subaccount: is missing; allowed: the number of the wallet's subaccount")
    assert "--network sandbox and --exchange deribit need none" in line


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"subaccount": "0"}, "--subaccount: is '0'; allowed: a whole number from 1"),
        ({"wallet": KEY}, "--wallet: a text of 64 characters is no address"),
        ({"wallet": OWNER[:-1] + "7"}, "upper and lower case do not fit its digits"),
        ({"private_key": f"0x{KEY}"}, "put it into the environment variable DERIVE_PRIVATE_KEY"),
        ({"underlying": "ETH-USD"}, "--underlying: is 'ETH-USD'; allowed: a coin"),
        ({"improvement": "0"}, "--improvement: is 0; allowed: a number above 0"),
    ],
)
def test_refusals(words: Words, text: str) -> None:
    lines = refused({**MADE_WITH, **words})
    assert any(text in line for line in lines), lines
    assert not any(KEY in line for line in lines)


def test_joining_the_touch_needs_no_improvement() -> None:
    assert config_of({**MADE_WITH, "aggression": "0"}).entries[0].settings.profile.improve_by is None
