"""From a configuration to exchanges of each type: who we are, where, whose lock, and which places are one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.domain.errors import CredentialError
from mmd.exchanges.deribit.session import Deribit
from mmd.exchanges.derive.session import Derive
from mmd.exchanges.derive.signing import MAINNET, TESTNET
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET, WALLET_SECRET
from mmd.sandbox.serve import Exchange
from mmd.shell import whereabouts
from mmd.shell.exchange_types import TYPES, domain_of
from mmd.shell.listing import list_instruments
from mmd.shell.locks import account_holder, account_name, lock_accounts
from mmd.shell.preflight import look
from mmd.shell.reap import Place, Trouble, make_jobs
from mmd.shell.whereabouts import account_of, former_names, keep, recall
from mmd.shell.wiring import wire, wire_reaper

OTHER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
NOW_NS = 1_798_700_000 * 10**9
ACCOUNT = "wallet: {env: WALLET}\n    session_key: {env: SESSION_KEY}\n    subaccount: 7"
KNOWN_ACCOUNT = f'wallet: "{WALLET}"\n    session_key: {{env: SESSION_KEY}}\n    subaccount: {SUBACCOUNT}'
TEXT = """\
version: 1
service: {{name: svc}}
exchanges:
  derive:
    type: derive
    network: {network}
    {account}
spreads: {{perp: {{spread_bps: 10, band_bps: 100, size: 1}}}}
instruments: [{{exchange: derive, symbol: ETH-PERP, spread: perp}}]
limits:
  per_symbol: {{max_position: 5, max_order_size: 5, collar_bps: 200}}
  portfolio: {{max_exposure: {{ETH: 40}}, max_notional_usd: 100000, max_drawdown_usd: 100}}
"""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET", OTHER.lower())
    monkeypatch.setenv("SESSION_KEY", WALLET_SECRET)


def now_ns() -> int:
    return NOW_NS


def text_of(network: str = "testnet", account: str = ACCOUNT) -> str:
    return TEXT.format(network=network, account=account)


def derive(network: str = "testnet", account: str = ACCOUNT) -> ExchangeConfig:
    return load_text(text_of(network, account)).exchanges["derive"]


# --- made by its type ----------------------------------------------------------------------------


async def test_a_sandbox_is_of_the_exchanges_type() -> None:
    wired = wire(derive("sandbox", ""), "svc", NOW_NS, now_ns)
    assert wired.sandbox is not None
    assert wired.sandbox.options.exchange is Exchange.DERIVE
    assert wired.sandbox.options.derive.chain_id == TESTNET.chain_id
    assert isinstance(wired.exchange, Derive)
    assert wired.exchange.room.identity.wallet == WALLET
    assert (wired.network, wired.account) == ("sandbox", wired.sandbox.name)


async def test_the_sandbox_of_this_process_has_its_own_wallet_whatever_is_configured() -> None:
    wired = wire(derive("sandbox"), "svc", NOW_NS, now_ns)
    assert isinstance(wired.exchange, Derive)
    assert (wired.exchange.room.identity.wallet, wired.exchange.room.subaccount) == (WALLET, SUBACCOUNT)


@pytest.mark.parametrize(
    ("network", "host", "domain"),
    [
        ("mainnet", "api.derive.xyz", MAINNET),
        ("testnet", "testnet.api.derive.xyz", TESTNET),
        ('{url: "wss://derive.example", chain: mainnet}', "derive.example", MAINNET),
        ('{url: "wss://derive.example/v3/ws/", chain: testnet}', "derive.example", TESTNET),
    ],
)
async def test_where_and_who(network: str, host: str, domain: object) -> None:
    config = derive(network)
    wired = wire(config, "svc", NOW_NS, now_ns)
    assert wired.sandbox is None
    assert wired.account == f"derive {host} {OTHER}/7"
    assert TYPES["derive"].url(config) == f"wss://{host}/v3/ws"
    assert domain_of(config) is domain


async def test_another_type_is_as_before() -> None:
    text = text_of("sandbox", "").replace("derive", "deribit")
    wired = wire(load_text(text).exchanges["deribit"], "svc", NOW_NS, now_ns)
    assert isinstance(wired.exchange, Deribit)
    assert wired.sandbox is not None and wired.sandbox.options.exchange is Exchange.DERIBIT


def test_a_key_that_is_missing_counts_where_an_account_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_KEY")
    with pytest.raises(CredentialError, match=r"exchanges\.derive\.session_key"):
        TYPES["derive"].account(derive())
    local = derive('{url: "ws://127.0.0.1:1/v3/ws", chain: testnet}')
    assert TYPES["derive"].account(local) == f"{WALLET}/{SUBACCOUNT}"


# --- one daemon for a wallet ---------------------------------------------------------------------


def test_a_lock_is_of_the_wallet_whatever_the_subaccount_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f'{{url: "wss://{os.getpid()}.example/v3/ws", chain: testnet}}'
    with lock_accounts([derive(url)]):
        monkeypatch.setenv("SESSION_KEY", SESSION_SECRET)
        sibling = derive(url, ACCOUNT.replace("7", "8"))
        assert account_holder(account_name(sibling, f"{OTHER}/8")) == os.getpid()
        with pytest.raises(OSError, match=f"account {OTHER} of exchange derive .* is in use"):
            lock_accounts([sibling])
        monkeypatch.setenv("WALLET", WALLET)
        with lock_accounts([derive(url)]):
            assert account_holder(account_name(derive(url), f"{WALLET}/7")) == os.getpid()


# --- the reaper ----------------------------------------------------------------------------------


def test_the_reapers_key_is_its_own_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = derive(account=f"{ACCOUNT}\n    reaper_session_key: {{env: REAPER_KEY}}")
    monkeypatch.setenv("REAPER_KEY", SESSION_SECRET)
    monkeypatch.delenv("SESSION_KEY")  # which the reaper then never needs
    assert wire_reaper(config, "svc", now_ns, settled=False).progress.errors == []
    monkeypatch.setenv("SESSION_KEY", WALLET_SECRET)
    monkeypatch.delenv("REAPER_KEY")
    reaper = wire_reaper(config, "svc", now_ns, settled=False)
    (note,) = reaper.progress.errors
    assert "the daemon's is used: exchanges.derive.reaper_session_key" in note
    assert reaper.progress.account == f"{OTHER}/7"


def test_a_key_that_cannot_be_read_spoils_its_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_KEY")
    good = text_of("sandbox", "")
    places = [Place("svc", derive()), Place("svc", load_text(good).exchanges["derive"])]
    jobs = make_jobs(places, now_ns, settled=False)
    assert [job.trouble for job in jobs] == [Trouble.SETUP, Trouble.NONE]


def test_an_account_that_has_become_another_is_not_reaped_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("svc", derive(), last_run=True, account=f"{OTHER}/7")
    monkeypatch.setenv("WALLET", WALLET)
    (job,) = make_jobs([place], now_ns, settled=False)
    assert (job.reaper, job.trouble) == (None, Trouble.SETUP)
    assert f"orders may rest on {OTHER}/7" in job.progress.errors[0]


Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda text: text, True, id="the same"),
        pytest.param(lambda text: text.replace("subaccount: 7", "subaccount: 8"), False, id="another subaccount"),
        pytest.param(
            lambda text: text.replace("{env: WALLET}", "{env: WALLET_2}"), False, id="a wallet from elsewhere"
        ),
        pytest.param(lambda text: text.replace("chain: testnet", "chain: mainnet"), False, id="another chain"),
    ],
)
def test_places_are_one_by_wallet_subaccount_and_chain(
    change: Change, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody can read the wallet just now, and for the daemon's own file."""
    monkeypatch.delenv("WALLET")
    text = text_of('{url: "wss://derive.example/v3/ws", chain: testnet}')
    first, second = (load_text(each) for each in (text, change(text)))
    configs = first.exchanges["derive"], second.exchanges["derive"]
    assert [account_of(config) for config in configs] == ["", ""]
    places = [Place("svc", config, account=account_of(config)) for config in configs]
    assert places[0].is_same(places[1]) is same
    keep(tmp_path, first)
    keep(tmp_path, second)
    assert [place.former for place in recall(tmp_path).places] == ([False] if same else [False, True])


def test_what_is_written_down_knows_wallet_and_subaccount_and_no_key(tmp_path: Path) -> None:
    keep(tmp_path, load_text(text_of()))
    written = (tmp_path / whereabouts.FILE).read_text()
    assert f"{OTHER}/7" in written
    assert WALLET_SECRET.removeprefix("0x") not in written
    (place,) = recall(tmp_path).places
    assert (place.account, place.config.chain) == (f"{OTHER}/7", derive().chain)


def test_a_former_name_of_the_wallet_is_known_by_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, load_text(text_of().replace("name: svc", "name: before")))
    monkeypatch.setenv("ELSEWHERE", OTHER)
    moved = load_text(text_of().replace("{env: WALLET}", "{env: ELSEWHERE}"))
    assert former_names(tmp_path, moved) == {"derive": ("before",)}
    monkeypatch.setenv("ELSEWHERE", WALLET)
    assert former_names(tmp_path, moved) == {}


# --- listing -------------------------------------------------------------------------------------


def test_the_sandbox_lists_what_its_type_lists() -> None:
    instruments, prices = list_instruments("derive", "sandbox")
    assert {"ETH-PERP", "BTC-PERP"} <= set(instruments)
    assert set(prices) == {"ETH", "BTC"} and all(price > 0 for price in prices.values())


async def test_a_reaper_asks_over_http_beside_the_websocket(nursery: trio.Nursery) -> None:
    """As it is wired, against a server in another connection: nothing is left, and that is proven."""
    sandbox = wire(derive("sandbox", ""), "svc", NOW_NS, now_ns).sandbox
    assert sandbox is not None
    await nursery.start(sandbox.run)
    port = await nursery.start(sandbox.serve_tcp, "127.0.0.1", 0)
    config = derive(f'{{url: "ws://127.0.0.1:{port}/v3/ws", chain: testnet}}', KNOWN_ACCOUNT)
    reaper = wire_reaper(config, "svc", now_ns, settled=True)
    await reaper.reap(only_look=False)
    assert (reaper.progress.proven, reaper.progress.account) == (True, f"{WALLET}/{SUBACCOUNT}")
    nursery.cancel_scope.cancel()


async def test_a_look_finds_out_for_which_chain_a_server_verifies(nursery: trio.Nursery) -> None:
    sandbox = wire(derive("sandbox", ""), "svc", NOW_NS, now_ns).sandbox
    assert sandbox is not None
    await nursery.start(sandbox.run)
    port = await nursery.start(sandbox.serve_tcp, "127.0.0.1", 0)
    found = {}
    for chain in ("mainnet", "testnet"):
        config = load_text(text_of(f'{{url: "ws://127.0.0.1:{port}/v3/ws", chain: {chain}}}', KNOWN_ACCOUNT))
        (report,) = await look(config, now_ns)
        assert [each.grade.value for each in report.findings if each.check == "login"] == ["ok"]
        found[chain] = [(each.grade.value, each.wanted) for each in report.findings if each.check == "signature"]
    assert found == {"mainnet": [("fail", "chain: testnet, beside the url")], "testnet": [("ok", "")]}
    nursery.cancel_scope.cancel()
