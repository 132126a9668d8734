"""The commands check, show-config and init, as a shell sees them: output and exit status."""

import argparse
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from config_samples import GOOD, expiry_ns, make_instrument

from mmd.cli.config_commands import Lister, Looker, add_parsers
from mmd.config.load import load_text
from mmd.config.model import Config
from mmd.domain.errors import LinkLost
from mmd.domain.instruments import Contract, Kind
from mmd.exchanges.preflight import Finding, Grade
from mmd.shell.preflight import Report

ROOT = Path(__file__).parents[2]


def nobody_asks(config: Config) -> list[Report]:
    raise AssertionError("nobody asked for that")


def mmd(*words: str, lister: Lister | None = None, looker: Looker = nobody_asks) -> int:
    parser = argparse.ArgumentParser(prog="mmd")
    add_parsers(parser.add_subparsers(required=True), lister, looker)
    args = parser.parse_args(words)
    status: int = args.func(args)
    return status


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mmd.yaml"
    path.write_text(GOOD)
    return path


def test_check_of_the_shipped_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("check", "-c", str(ROOT / "etc/mmd.yaml"), "--strict") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "good, 2 entries" in said.out
    assert "not checked: whether the exchanges list these instruments" in said.out


def test_check_says_every_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace("size: 10}", "size: ten}").replace("mode: shadow", "mode: paper"))
    assert mmd("check", "-c", str(file)) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0].startswith(f"{file}:2:28: service.mode: is 'paper'")
    assert said.err.splitlines()[-1] == "2 errors"


def test_warnings_count_only_when_strict(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("check", "-c", str(file)) == 0
    assert mmd("check", "-c", str(file), "--strict") == 1
    said = capsys.readouterr().err
    assert "max_order_size 50 is above max_position 1 of instruments[1]" in said
    assert "collar_bps 200 is narrower than band_bps 5000 of instruments[1]" in said


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("nearest_to_money: 2", "nearest_to_money: 9", "add up to at least 36 BTC, 3.6 times this limit"),
        ("band_bps: 100,", "band_bps: 4,", "band_bps 4 is narrower than half of spread_bps 10 of instruments[0]"),
        ("min_spread_bps: 2,", "min_spread_bps: 300,", "band_bps 100 is narrower than half of min_spread_bps 300"),
        ("collar_bps: 200", "collar_bps: 201", "is more than 2 times band_bps 100 of instruments[0]: no quote can be"),
        ("collar_bps: 200", "collar_bps: 200, max_filled: 10001", "is more than 100 times max_position 100"),
        (
            "collar_bps: 200",
            "collar_bps: 200, max_order_value_usd: 1000001",
            "limits.per_symbol.max_order_value_usd: 1000001 is above limits.portfolio.max_notional_usd, 1000000",
        ),
        (
            "limits: {max_position: 1}",
            "limits: {max_drawdown_usd: 5001}",
            "instruments[1].limits.max_drawdown_usd: 5001 is above limits.portfolio.max_drawdown_usd, 5000",
        ),
        (
            "collar_bps: 200}",
            "collar_bps: 200}\n  per_kind: {call: {max_drawdown_usd: 9000}}",
            "limits.per_kind.call.max_drawdown_usd: 9000 is above",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, max_daily_loss_usd: 100}\n  per_kind: {put: {max_daily_loss_usd: 101}}",
            "limits.per_kind.put.max_daily_loss_usd: 101 is above limits.portfolio.max_daily_loss_usd, 100",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, per_exchange: {deribit: {max_notional_usd: 1000001}}}",
            "per_exchange.deribit.max_notional_usd: 1000001 is above limits.portfolio.max_notional_usd, 1000000",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, max_contracts: 9, per_underlying: {BTC: {max_contracts: 10}}}",
            "limits.portfolio.per_underlying.BTC.max_contracts: 10 is above limits.portfolio.max_contracts, 9",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, per_exchange: {deribit: {max_open_orders: 1001}}}",
            "per_exchange.deribit.max_open_orders: 1001 is above limits.portfolio.max_open_orders, 1000",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, max_open_orders: 17}",
            "limits.portfolio.max_open_orders: is 17, and at least 9 symbols with a bid and an ask want 18, 1.1 times",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, per_underlying: {BTC: {max_open_orders: 9}}}",
            "per_underlying.BTC.max_open_orders: is 9, and at least 9 symbols with a bid and an ask want 18, 2.0 times",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, max_contracts: 4}",
            "max_contracts: the symbols' max_position add up to at least 8 contracts, 2.0 times this limit",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000, per_exchange: {deribit: {max_notional_usd: 40}}}",
            "deribit.max_notional_usd: the symbols' max_position add up to at least 100 USD, 2.5 times this limit",
        ),
        (
            "max_drawdown_usd: 5000}",
            "max_drawdown_usd: 5000}\n  allowed: [BTC-*-C, other/BTC-PERPETUAL]",
            "instruments[0].symbol: BTC-PERPETUAL is not in limits.allowed",
        ),
        (
            "network: sandbox",
            "network: sandbox\n    maker_protection:"
            " [{underlying: ETH, interval_seconds: 1, frozen_seconds: 0, max_vega: 1}]",
            "exchanges.deribit.maker_protection[0].underlying: no instrument of ETH is quoted on deribit",
        ),
        (
            "limits:\n  per",
            "alerts: {webhooks: [{url: 'http://127.0.0.1.example.org/'}]}\nlimits:\n  per",
            "alerts.webhooks[0].url: is not encrypted and leaves this machine; use https://",
        ),
        (
            "limits:\n  per",
            "alerts: {heartbeat: {url: 'http://example.org:80/'}}\nlimits:\n  per",
            "alerts.heartbeat.url: is not encrypted and leaves this machine; use https://",
        ),
        (
            "limits:\n  per",
            "alerts: {heartbeat: {url: 'https://example.org/', bearer: {file: /nowhere/token}}}\nlimits:\n  per",
            "alerts.heartbeat.bearer: /nowhere/token: cannot be read: No such file",
        ),
        ("size: 10}", "size: 10}\n  spare: {size: 1}", "spreads.spare: no instrument uses it"),
        ("max_order_size: 50", "max_order_size: 500", "max_order_size 500 is above max_position 100"),
        (
            "network: sandbox",
            "network: {url: 'ws://example.org/ws'}",
            "exchanges.deribit.network.url: is not encrypted",
        ),
        ("network: sandbox", "network: testnet\n    sandbox: {seed: 3}", "has no effect with network testnet"),
    ],
)
def test_each_warning(file: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, text: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    assert mmd("check", "-c", str(file), "--strict") == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("BTC-PERPETUAL", "BTC-4DEC26-32000-C"), id="named and selected counts once"),
        pytest.param(("{nearest: 2}", "{nearest: 1}"), id="few"),
        pytest.param(("max_drawdown_usd: 5000}", "max_drawdown_usd: 5000, max_open_orders: 18}"), id="just enough"),
    ],
)
def test_what_just_fits_is_no_oversubscription(
    file: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str]
) -> None:
    file.write_text(
        GOOD.replace(*change).replace("{BTC: 10}", "{BTC: 8}").replace("max_position: 100", "max_position: 1")
    )
    mmd("check", "-c", str(file))
    said = capsys.readouterr().err
    assert "add up to" not in said
    assert "want" not in said


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9093/", "http://localhost/", "http://[::1]:9093/", "https://a.example/"]
)
def test_an_address_that_nobody_can_listen_to_is_fine(file: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    file.write_text(f"{GOOD}alerts: {{webhooks: [{{url: '{url}'}}]}}\n")
    assert mmd("check", "-c", str(file)) == 0
    assert "encrypted" not in capsys.readouterr().err


def test_a_token_that_others_can_read_is_77(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = file.parent / "token"
    token.write_text("hunter2")
    token.chmod(0o644)
    file.write_text(f"{GOOD}alerts: {{webhooks: [{{url: 'https://a.example/', bearer: {{file: {token}}}}}]}}\n")
    assert mmd("check", "-c", str(file)) == 77
    said = capsys.readouterr()
    assert f"alerts.webhooks[0].bearer: {token}: has mode 0644, so others can read it" in said.err
    token.chmod(0o600)
    assert mmd("check", "-c", str(file)) == 0
    assert mmd("show-config", "-c", str(file)) == 0
    shown = capsys.readouterr()
    assert f"bearer: {{file: {token}}}" in shown.out
    assert "hunter2" not in said.err + said.out + shown.out + shown.err


def test_check_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("check", "-c", str(file), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["errors"] == []
    assert len(report["warnings"]) == 2
    assert report["sha256"] == load_text(GOOD).sha256
    file.write_text("{")
    assert mmd("check", "-c", str(file), "--json") == 78
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert len(report["errors"]) == 1


def test_live_on_mainnet_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace("network: sandbox", "network: mainnet").replace("mode: shadow", "mode: live"))
    assert mmd("check", "-c", str(file)) == 0
    assert "live on mainnet: deribit trades real money" in capsys.readouterr().out


def test_a_secret_that_others_can_read_is_77(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = file.parent / "key"
    key.write_text("hunter2")
    key.chmod(0o644)
    file.write_text(GOOD.replace("{credential: deribit-secret}", f"{{file: {key}}}"))
    assert mmd("check", "-c", str(file)) == 77
    said = capsys.readouterr()
    assert f"{key}: has mode 0644, so others can read it; run: chmod o-rwx" in said.err
    key.chmod(0o600)
    assert mmd("check", "-c", str(file)) == 0
    assert "hunter2" not in said.err + said.out + capsys.readouterr().out


# --- check --online ------------------------------------------------------------------------------


def finds(*grades: Grade) -> Looker:
    """Two exchanges, the first of which has these grades."""
    findings = tuple(Finding("clock", grade, f"found {grade.value}", "a clock") for grade in grades)
    return lambda config: [Report("deribit", "testnet", findings), Report("derive", "\x1b[2J", ())]


@pytest.mark.parametrize(
    ("grades", "words", "status"),
    [
        ([Grade.OK], [], 0),
        ([Grade.OK, Grade.WARN], [], 0),
        ([Grade.OK, Grade.WARN], ["--strict"], 1),
        ([Grade.WARN, Grade.FAIL, Grade.OK], [], 69),
        ([Grade.FAIL], ["--strict"], 69),
    ],
)
def test_the_exit_status_of_a_look(
    capsys: pytest.CaptureFixture[str], grades: list[Grade], words: list[str], status: int
) -> None:
    shipped = str(ROOT / "etc/mmd.yaml")
    assert mmd("check", "-c", shipped, "--online", *words, looker=finds(*grades)) == status
    assert mmd("check", "-c", shipped, "--online", "--json", *words, looker=finds(*grades)) == status


def test_a_look_is_a_table_with_a_verdict(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("check", "-c", str(file), "--online", looker=finds(Grade.OK, Grade.FAIL)) == 69
    lines = capsys.readouterr().out.splitlines()
    assert "deribit   clock  fail  found fail; wanted: a clock" in lines
    assert lines[-2] == "deribit (testnet): 1 ok, 0 warn, 1 fail"
    assert "\x1b" not in lines[-1]
    assert not any(line.startswith("not checked") for line in lines)


def test_a_look_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("check", "-c", str(file), "--online", "--json", looker=finds(Grade.FAIL)) == 69
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert report["errors"] == []
    assert report["exchanges"][0] == {
        "exchange": "deribit",
        "network": "testnet",
        "findings": [{"check": "clock", "grade": "fail", "found": "found fail", "wanted": "a clock"}],
    }


def test_nobody_is_asked_about_a_file_with_errors(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace("size: 10}", "size: ten}"))
    assert mmd("check", "-c", str(file), "--online", "--json") == 78
    assert json.loads(capsys.readouterr().out)["exchanges"] == []


def test_show_config_is_yaml_that_means_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("show-config", "-c", str(file)) == 0
    shown = capsys.readouterr().out
    assert load_text(shown).sha256 == load_text(GOOD).sha256
    assert "stale_seconds: 10" in shown
    assert "client_secret: {credential: deribit-secret}" in shown


def test_show_config_says_where_each_value_is_from(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "mmd.d").mkdir()
    (file.parent / "mmd.d/10-site.yaml").write_text("spreads: {perp: {skew_bps: 7}}\n")
    assert mmd("show-config", "-c", str(file), "--origin") == 0
    lines = {line.split("#")[0].strip(): line.split("#")[-1].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["skew_bps: 7"] == f"{file.parent}/mmd.d/10-site.yaml:1"
    assert lines["fair: microprice"] == f"{file}:9"
    assert lines["stale_seconds: 10"] == "default"


def test_show_config_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("show-config", "-c", str(file), "--json") == 0
    text = capsys.readouterr().out
    assert '"size":0.1' in text
    assert json.loads(text)["limits"]["portfolio"]["max_exposure"] == {"BTC": 10}
    assert mmd("show-config", "-c", str(file), "--json", "--origin") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["origin"]["service.mode"] == f"{file}:2"
    assert report["origin"]["service.log.level"] == "default"


def test_show_config_of_a_bad_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("version: 2\n")
    assert mmd("show-config", "-c", str(file)) == 78
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("account", [("subaccount", "30769"), ("exchange", "deribit")])
@pytest.mark.parametrize("dash", ["-", "--"])
def test_init_prints_a_file_that_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dash: str, account: tuple[str, str]
) -> None:
    words = [f"{dash}expiry", "20261225", f"{dash}all-strikes", f"{dash}min-spread", "50", f"{dash}test"]
    assert mmd("init", *words, f"{dash}{account[0]}", account[1]) == 0
    path = tmp_path / "made.yaml"
    path.write_text(capsys.readouterr().out)
    assert mmd("check", "-c", str(path), "--strict") == 0


def test_init_refuses_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("init", "--exchange", "binance", "--private-key", "0xabc") == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert "--exchange: is 'binance'; allowed: derive, deribit" in said.err
    assert "0xabc" not in said.err


def test_init_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd("init") == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(":")[1].strip() for line in said.err.splitlines()] == ["--expiry", "--strikes", "--subaccount"]
    assert all("; allowed: " in line for line in said.err.splitlines())


ON_DERIBIT = ("init", "--exchange", "deribit", "--expiry", "20991225")


def chain(exchange: str, network: str) -> tuple[dict[str, object], dict[str, float]]:
    assert (exchange, network) == ("deribit", "sandbox")
    found = {}
    for strike in (2800, 3000):
        for kind, letter in ((Kind.CALL, "C"), (Kind.PUT, "P")):
            name = f"ETH-25DEC99-{strike}-{letter}"
            day = date(2099, 12, 25)
            found[name] = make_instrument(name, kind, base="ETH", expiry_ns=expiry_ns(day), strike=Decimal(strike))
    return found, {"ETH": 2900.0}


def test_a_dry_run_lists_what_would_be_traded(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*ON_DERIBIT, "--strikes", "3000", "--network", "sandbox", "--dry-run"]
    assert mmd(*words, lister=chain) == 0
    said = capsys.readouterr().out
    assert load_text(said).entries
    assert said.endswith("# 2 instruments would be traded:\n#   ETH-25DEC99-3000-C\n#   ETH-25DEC99-3000-P\n")


def test_a_dry_run_asks_derive_where_none_was_named(capsys: pytest.CaptureFixture[str]) -> None:
    def on_derive(exchange: str, network: str) -> tuple[dict[str, object], dict[str, float]]:
        assert (exchange, network) == ("derive", "testnet")
        linear = {"exchange": "derive", "base": "ETH", "contract": Contract.LINEAR, "lot": Decimal("0.1")}
        day = expiry_ns(date(2099, 12, 25))
        option = make_instrument("ETH-20991225-3000-C", Kind.CALL, **linear, expiry_ns=day, strike=Decimal(3000))
        return {each.symbol: each for each in (option, make_instrument("ETH-PERP", Kind.PERPETUAL, **linear))}, {}

    words = ["init", "--test", "--subaccount", "7", "--expiry", "20991225", "--dry-run"]
    assert mmd(*words, "--strikes", "3000", lister=on_derive) == 0
    assert capsys.readouterr().out.endswith("traded:\n#   ETH-20991225-3000-C\n#   ETH-PERP\n")


def test_a_dry_run_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*ON_DERIBIT, "--strikes", "3100", "--network", "sandbox", "--size", "0.15", "--dry-run"]
    assert mmd(*words, lister=chain) == 78
    assert "no strike 3100 is listed; the nearest: 2800, 3000" in capsys.readouterr().err


def test_a_dry_run_without_an_exchange(capsys: pytest.CaptureFixture[str]) -> None:
    def lost(exchange: str, network: str) -> tuple[dict[str, object], dict[str, float]]:
        raise LinkLost("connection refused")

    words = [*ON_DERIBIT, "--strikes", "3000", "--dry-run"]
    assert mmd(*words, lister=lost) == 69
    assert mmd(*words) == 69
    assert "could not be asked: connection refused" in capsys.readouterr().err
