"""`mmd check --online` below the command line: who we are, what a configuration wants, and all exchanges at once."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from mmd.config.load import load_text
from mmd.config.model import Config
from mmd.config.secrets import ExposedSecret
from mmd.domain.errors import CredentialError
from mmd.exchanges.preflight import Finding
from mmd.shell.accounts import derive_identity, session_key
from mmd.shell.logs import redact
from mmd.shell.preflight import LOOK_SECONDS, Report, look

OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
SIGNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
NOW_NS = 1_795_305_600 * 10**9  # 2026-11-22
CONFIG = """\
version: 1
exchanges:
  box: {type: deribit, network: sandbox}
  deribit:
    type: deribit
    network: {url: "wss://deribit.example/ws/api/v2"}
    credentials: {client_id: {env: DERIBIT_ID}, client_secret: {env: DERIBIT_SECRET}}
  derive:
    type: derive
    network: {url: "wss://derive.example/v3/ws", chain: testnet}
    wallet: {env: WALLET}
    session_key: {env: SESSION_KEY}
    subaccount: 7
spreads: {perp: {spread_bps: 10, band_bps: 100, size: 1}}
instruments:
  - {exchange: derive, symbol: ETH-PERP, spread: perp}
  - {exchange: derive, symbol: ETH-20201225-3000-C, spread: perp}
  - select:
      {exchange: derive, underlying: ETH, contract: linear, expiry: 2026-12-25, strikes: [3000], kinds: [call, put]}
    spread: perp
limits:
  per_symbol: {max_position: 5, max_order_size: 5, collar_bps: 200}
  portfolio: {max_exposure: {ETH: 40}, max_notional_usd: 100000, max_drawdown_usd: 100}
"""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIBIT_ID", "me")
    monkeypatch.setenv("DERIBIT_SECRET", "hunter2-hunter2")
    monkeypatch.setenv("WALLET", OWNER)
    monkeypatch.setenv("SESSION_KEY", f"0x{KEY}")


def config_with(old: str = "", new: str = "") -> Config:
    assert old in CONFIG
    return load_text(CONFIG.replace(old, new) if old else CONFIG)


# --- who we are ----------------------------------------------------------------------------------


def test_the_identity_of_a_derive_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = derive_identity(config_with().exchanges["derive"])
    assert (identity.key.name, identity.wallet, identity.subaccount) == (SIGNER, OWNER, 7)
    assert KEY not in repr(identity)
    assert KEY not in redact(f"0x{KEY} and {KEY}")


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("WALLET", KEY, "exchanges.derive.wallet: a text of 64 characters is no address"),
        ("WALLET", "", "exchanges.derive.wallet: the environment variable WALLET is not set"),
        ("SESSION_KEY", KEY[1:], "exchanges.derive.session_key: a private key is 64 hexadecimal digits"),
        ("SESSION_KEY", "", "exchanges.derive.session_key: the environment variable SESSION_KEY is not set"),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CredentialError) as caught:
        derive_identity(config_with().exchanges["derive"])
    assert text in str(caught.value)
    assert KEY[1:] not in str(caught.value)


def test_a_key_that_others_can_read_keeps_its_exit_status(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    config = config_with("session_key: {env: SESSION_KEY}", f"session_key: {{file: {file}}}").exchanges["derive"]
    with pytest.raises(ExposedSecret, match=r"exchanges\.derive\.session_key: .* has mode 0644"):
        derive_identity(config)
    file.chmod(0o600)
    assert config.wallet is not None
    assert session_key(config.wallet.session_key, "x").name == SIGNER


# --- all at once ---------------------------------------------------------------------------------


def instrument(name: str) -> dict[str, Any]:
    is_option = name.count("-") > 1
    return {
        "instrument_name": name,
        "instrument_type": "option" if is_option else "perp",
        "is_active": name != "ETH-20261225-3000-P",
        "tick_size": "0.1",
        "minimum_amount": "1",
        "maximum_amount": "1000",
        "amount_step": "0.1",
        "maker_fee_rate": "0.0001",
        "taker_fee_rate": "0.0003",
        "base_fee": "0.01",
        "base_currency": "ETH",
        "quote_currency": "USDC",
        "option_details": {"expiry": 1798185600, "index": "ETH-USD", "option_type": name[-1], "strike": "3000"}
        if is_option
        else None,
        "perp_details": None if is_option else {"index": "ETH-USD"},
        "base_asset_address": "0xAf65752C4643E25C02F693f9D4FE19cF23a095E3",
        "base_asset_sub_id": "0",
    }


LISTED = [instrument(name) for name in ("ETH-PERP", "ETH-20261225-3000-C", "ETH-20261225-3000-P")]


def derive_answer(request: httpx.Request) -> httpx.Response:
    """The public half; the account is nobody's."""
    method = request.url.path.removeprefix("/v3/")
    if method.startswith("private/"):
        told = f"no such signer, your secret is {KEY}"
        return httpx.Response(400, json={"error": {"code": 14023, "message": told}})
    if method == "public/get_all_instruments":
        kind = json.loads(request.content)["instrument_type"]
        rows = [row for row in LISTED if row["instrument_type"] == kind]
        return httpx.Response(200, json={"result": {"instruments": rows, "pagination": {"count": 2, "num_pages": 1}}})
    answers: dict[str, Any] = {
        "public/get_time": NOW_NS // 10**6,
        "public/get_live_incidents": {"incidents": []},
        "public/get_ticker": {"t": 1, "I": "3000"},
    }
    return httpx.Response(200, json={"result": answers[method]})


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.host == "derive.example":
        return derive_answer(request)
    raise httpx.ConnectError("no route to host")


async def look_at(config: Config) -> dict[str, Report]:
    reports = await look(config, lambda: NOW_NS, lambda: httpx.MockTransport(answer))
    assert [report.exchange for report in reports] == list(config.exchanges)
    return {report.exchange: report for report in reports}


def told(report: Report) -> list[tuple[str, str, str]]:
    return [(each.check, each.grade.value, each.found) for each in report.findings]


async def test_every_exchange_is_looked_at_in_its_own_words() -> None:
    reports = await look_at(config_with())
    assert told(reports["box"]) == [("reach", "ok", "inside the daemon's own process: nobody to ask")]
    assert told(reports["deribit"]) == [("reach", "fail", "https://deribit.example/api/v2: no route to host")]
    derive = reports["derive"]
    assert derive.network == "wss://derive.example/v3/ws"
    assert ("instruments", "ok", "2 to quote: ETH-PERP, ETH-20261225-3000-C") in told(derive)
    notes = [found for check, grade, found in told(derive) if (check, grade) == ("instruments", "warn")]
    assert notes == [
        "instruments[1].symbol: ETH-20201225-3000-C expired on 2020-12-25: left out",
        "instruments[2]: left out, no orders taken there now: ETH-20261225-3000-P",
    ]


async def test_what_an_exchange_says_shows_no_secret() -> None:
    ((_, grade, found),) = [each for each in told((await look_at(config_with()))["derive"]) if each[0] == "login"]
    assert grade == "fail"
    assert f"session key {SIGNER} does not belong to wallet {OWNER}" in found
    assert "your secret is [secret]" in found


async def test_what_does_not_fit_is_told_with_its_place() -> None:
    reports = await look_at(config_with("strikes: [3000]", "strikes: [3100]"))
    fails = [each for each in reports["derive"].findings if each.grade.value == "fail" and each.check == "instruments"]
    assert len(fails) == 1
    assert fails[0].found.startswith("mmd.yaml:19:")
    assert "no strike 3100 is listed; the nearest: 3000" in fails[0].found


async def test_a_key_that_cannot_be_read_leaves_the_public_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_KEY")
    monkeypatch.delenv("DERIBIT_ID")
    reports = await look_at(config_with())
    first = reports["derive"].findings[0]
    assert (first.check, first.grade.value) == ("login", "fail")
    assert first.found == "exchanges.derive.session_key: the environment variable SESSION_KEY is not set"
    assert any(each.check == "instruments" for each in reports["derive"].findings)
    assert "DERIBIT_ID is not set" in reports["deribit"].findings[0].found


async def test_an_exchange_that_never_ends_does_not_hold_the_others(autojump_clock: trio.abc.Clock) -> None:
    asked = 0

    async def slow(request: httpx.Request) -> httpx.Response:
        """Each answer just in time, and there are more pages without end."""
        nonlocal asked
        asked += 1
        await trio.sleep(9.0)
        if request.url.path.endswith("get_all_instruments"):
            return httpx.Response(
                200, json={"result": {"instruments": [], "pagination": {"count": 0, "num_pages": asked + 5}}}
            )
        return answer(request)

    begun = trio.current_time()
    reports = await look(config_with(), lambda: NOW_NS, lambda: httpx.MockTransport(slow))
    assert trio.current_time() - begun == LOOK_SECONDS
    found: tuple[Finding, ...] = reports[-1].findings
    assert [(each.check, each.grade.value, each.found) for each in found] == [("reach", "fail", "not done after 60 s")]


async def test_what_has_expired_is_judged_at_the_time_that_was_passed_in() -> None:
    early = 1_606_780_800 * 10**9  # 2020-12-01
    reports = await look(config_with(), lambda: early, lambda: httpx.MockTransport(answer))
    texts = [each.found for each in reports[-1].findings if each.grade.value == "fail"]
    assert any("lists no ETH-20201225-3000-C" in text for text in texts)
