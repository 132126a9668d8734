"""A look at Derive over HTTP, against answers composed from the documented fields: what it asks, and what it says."""

import json
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
import trio
from eth_account import Account
from eth_account.messages import encode_defunct
from preflight_kit import PROFILE, Chooser, grades, of, wanted

from mmd.domain.settings import Protection
from mmd.exchanges.derive import preflight
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.lifetimes import KEY_NEEDS_SECONDS
from mmd.exchanges.derive.messages import MmpConfig
from mmd.exchanges.derive.pages import READINGS_MAX
from mmd.exchanges.derive.preflight import DerivePreflight, list_public
from mmd.exchanges.derive.protection import mmp_difference, mmp_params
from mmd.exchanges.derive.signing import MAINNET, TESTNET
from mmd.exchanges.http_rpc import open_rpc
from mmd.exchanges.preflight import Finding
from mmd.sandbox.derive import signing as verifying

OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
OWNERS_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SIGNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
SIGNERS_KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
BASE = "https://exchange.example/v3"
DAY = 86_400
ETH = "ETH-PERP"
CALL = "ETH-20991225-3000-C"
PROTECTION = Protection(underlying="ETH", interval_seconds=1.5, frozen_seconds=60, max_quantity=Decimal(20))
MMP: dict[str, Any] = {
    "subaccount_id": 30769,
    "currency": "ETH",
    "mmp_interval": 1500,
    "mmp_frozen_time": 60000,
    "mmp_amount_limit": "20",
    "mmp_delta_limit": "0",
    "is_frozen": False,
    "mmp_unfreeze_time": 0,
}


def perpetual(coin: str = "ETH") -> dict[str, Any]:
    return {
        "instrument_name": f"{coin}-PERP",
        "instrument_type": "perp",
        "is_active": True,
        "tick_size": "0.01",
        "minimum_amount": "1",
        "maximum_amount": "10000",
        "amount_step": "0.01",
        "maker_fee_rate": "0.0001",
        "taker_fee_rate": "0.0003",
        "base_fee": "0.01",
        "base_currency": coin,
        "quote_currency": "USDC",
        "option_details": None,
        "perp_details": {"index": f"{coin}-USD", "funding_rate": "0"},
        "base_asset_address": "0xAf65752C4643E25C02F693f9D4FE19cF23a095E3",
        "base_asset_sub_id": "0",
    }


def option(strike: int) -> dict[str, Any]:
    details = {"expiry": 4101926400, "index": "ETH-USD", "option_type": "C", "strike": str(strike)}
    return perpetual() | {
        "instrument_name": f"ETH-20991225-{strike}-C",
        "instrument_type": "option",
        "tick_size": "0.1",
        "amount_step": "0.1",
        "perp_details": None,
        "option_details": details,
        "base_asset_sub_id": "39614082803320395358570160768",
    }


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Venue:
    """Answers by method: a value, an exception, or a function of the params. Tests change what they are about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.signed: list[httpx.Headers] = []
        self.rows: dict[str, list[dict[str, Any]]] = {"perp": [perpetual()], "option": [option(3000), option(3200)]}
        self.page_size = 1000
        self.chain_id = TESTNET.chain_id
        self.changed_steps: dict[str, Any] = {}
        self.key: dict[str, Any] = {
            "public_session_key": SIGNER.lower(),
            "expiry_sec": int(time.time()) + 30 * DAY,
            "protocol_scopes": ["trade:all"],
            "offchain_scopes": ["account_info"],
            "ip_whitelist": [],
            "subaccount_ids": [30769, 30770],
            "label": "mmd",
        }
        self.account: dict[str, Any] = {
            "subaccount_ids": [30769, 30770],
            "cancel_on_disconnect": True,
            "websocket_matching_tps": 500,
            "websocket_non_matching_tps": 500,
            "websocket_perp_tps": 10,
            "websocket_option_tps": 10,
            "fee_info": {"option_maker_fee": None, "perp_maker_fee": None},
        }
        self.subaccount: dict[str, Any] = {
            "subaccount_id": 30769,
            "margin_type": "PM2",
            "subaccount_value": "2500",
            "initial_margin": "2000",
            "maintenance_margin": "2200",
            "open_orders_margin": "-100",
        }
        self.answers: dict[str, Any] = {
            "public/get_time": lambda params: round(time.time() * 1000),
            "public/get_live_incidents": {"incidents": []},
            "public/get_all_instruments": self.instruments,
            "public/get_ticker": {"t": 1, "I": "3100.5"},
            "private/get_subaccounts": {"wallet": OWNER, "subaccount_ids": [30770, 30769]},
            "private/session_keys": lambda params: {"public_session_keys": [self.key]},
            "private/get_account": lambda params: self.account,
            "private/get_subaccount": lambda params: self.subaccount,
            "private/get_mmp_config": [MMP],
            "private/order_debug": self.steps,
        }

    def instruments(self, params: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in self.rows[params["instrument_type"]] if row["base_currency"] == params["currency"]]
        if not rows:
            raise Refusal(12001, "instrument not found")
        size, page = self.page_size, params["page"]
        pages = -(-len(rows) // size)
        return {
            "instruments": rows[(page - 1) * size : page * size],
            "pagination": {"count": len(rows), "num_pages": pages},
        }

    def steps(self, params: dict[str, Any]) -> dict[str, Any]:
        """Of the hash, by Ethereum's own libraries."""
        symbol = params["instrument_name"]
        row = next(row for rows in self.rows.values() for row in rows if row["instrument_name"] == symbol)
        envelope = verifying.Envelope(
            subaccount=params["subaccount_id"],
            nonce=int(params["nonce"]),
            expiry=params["signature_expiry_sec"],
            owner=OWNER,
            signer=params["signer"],
        )
        trade = verifying.Trade(
            asset=row["base_asset_address"],
            sub_id=int(row["base_asset_sub_id"]),
            limit_price=Decimal(params["limit_price"]),
            amount=Decimal(params["amount"]),
            max_fee=Decimal(params["max_fee"]),
            is_bid=params["direction"] == "buy",
        )
        separator = verifying.domain_separator(self.chain_id)
        hashes = verifying.hash_trade(separator, envelope, trade)
        is_good = verifying.recover(hashes.typed_data_hash, params["signature"]) == params["signer"]
        assert is_good == (self.chain_id == TESTNET.chain_id)
        told = {
            "domain_separator": separator,
            "encoded_data_hashed": hashes.data_hash,
            "typed_data_hash": hashes.typed_data_hash,
        }
        return {name: f"0x{value.hex()}" for name, value in told.items()} | self.changed_steps

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method = request.url.path.removeprefix("/v3/")
        params = json.loads(request.content)
        self.asked.append((method, params))
        if method.startswith("private/"):
            self.signed.append(request.headers)
        answer = self.answers[method]
        try:
            if isinstance(answer, Exception):
                raise answer
            result = answer(params) if callable(answer) else answer
        except Refusal as error:
            told = {"code": error.code, "message": str(error), "data": None}
            return httpx.Response(400, json={"id": "x", "error": told})
        return httpx.Response(200, json={"id": "x", "result": result})

    async def look(
        self,
        chooser: Chooser | None = None,
        secret: str | None = SIGNERS_KEY,
        subaccount: int = 30769,
        wall_ns: Callable[[], int] = time.time_ns,
        **changes: Any,
    ) -> list[Finding]:
        room = DerivePreflight(
            name="derive",
            network="testnet",
            base=BASE,
            identity=None if secret is None else Identity(SessionKey(secret), OWNER.lower(), subaccount),
            domain=TESTNET,
            wall_ns=wall_ns,
            transport=httpx.MockTransport(self),
        )
        found = await room.look(wanted(chooser or Chooser([ETH, CALL]), **changes))
        assert SIGNERS_KEY not in repr(found)
        assert not any(headers["x-derivesignature"] in repr(found) for headers in self.signed)
        return found


@pytest.fixture
def venue() -> Venue:
    return Venue()


# --- what it asks --------------------------------------------------------------------------------


async def test_all_is_well(venue: Venue) -> None:
    chooser = Chooser([ETH, CALL])
    found = await venue.look(chooser, protections=(PROTECTION,))
    assert grades(found) == {
        "reach": ["ok"],
        "clock": ["ok"],
        "instruments": ["ok"],
        "tick": ["ok", "ok"],
        "fees": ["ok", "ok"],
        "login": ["ok"],
        "subaccount": ["ok"],
        "rights": ["ok"],
        "key_expiry": ["ok"],
        "budget": ["ok", "ok", "ok"],
        "cancel_on_disconnect": ["ok"],
        "account": ["ok"],
        "maker_protection": ["ok"],
        "signature": ["ok"],
    }
    assert of(found, "login") == [("ok", f"session key {SIGNER} of wallet {OWNER}")]
    assert of(found, "subaccount") == [("ok", "30769 of 30769, 30770")]
    assert of(found, "account") == [("ok", "subaccount 30769 (PM2): worth 2500 USD, 1900 free")]
    assert chooser.prices == {"ETH": 3100.5}


async def test_it_only_asks_and_logs_in_nowhere(venue: Venue) -> None:
    await venue.look(protections=(PROTECTION,))
    methods = {method for method, _ in venue.asked}
    methods.remove("private/order_debug")  # which carries nothing out
    assert all(method.partition("/")[2].startswith(("get_", "session_keys")) for method in methods)


async def test_every_private_call_is_signed_anew_with_the_exchanges_time(venue: Venue) -> None:
    venue.answers["public/get_time"] = lambda params: round(time.time() * 1000) + 3_600_000
    await venue.look(max_skew_ms=1e9)
    assert len(venue.signed) == 5
    for headers in venue.signed:
        digits = headers["x-derivetimestamp"]
        assert headers["x-derivewallet"] == OWNER
        assert abs(int(digits) - (time.time() * 1000 + 3_600_000)) < 60_000
        signed = encode_defunct(text=digits)
        assert Account.recover_message(signed, signature=headers["x-derivesignature"]) == SIGNER


async def test_params_are_the_body_and_numbers_are_numbers(venue: Venue) -> None:
    await venue.look(protections=(PROTECTION,))
    asked = dict(venue.asked)
    assert asked["public/get_time"] == {}
    assert asked["private/get_subaccounts"] == {"wallet": OWNER}
    assert asked["private/get_subaccount"] == asked["private/get_mmp_config"] == {"subaccount_id": 30769}


# --- instruments ---------------------------------------------------------------------------------


async def test_a_listing_comes_in_pages(venue: Venue) -> None:
    venue.page_size = 1
    chooser = Chooser([ETH, CALL])
    await venue.look(chooser)
    assert sorted(chooser.listed) == [CALL, "ETH-20991225-3200-C", ETH]


async def test_a_listing_that_moves_is_read_anew(venue: Venue) -> None:
    venue.page_size, plain, moved = 1, venue.instruments, False

    def move(params: dict[str, Any]) -> dict[str, Any]:
        nonlocal moved
        if params["instrument_type"] == "option" and params["page"] == 2 and not moved:
            moved = True
            venue.rows["option"].insert(0, option(2800))
        return plain(params)

    venue.answers["public/get_all_instruments"] = move
    chooser = Chooser([ETH, CALL])
    await venue.look(chooser)
    assert sorted(chooser.listed) == ["ETH-20991225-2800-C", CALL, "ETH-20991225-3200-C", ETH]


async def test_everything_is_listed_without_naming_a_coin(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "open_rpc", partial(open_rpc, transport=httpx.MockTransport(venue)))
    venue.answers["public/get_all_instruments"] = lambda params: venue.instruments(params | {"currency": "ETH"})
    assert sorted(await list_public("derive", BASE)) == [CALL, "ETH-20991225-3200-C", ETH]
    assert not any("currency" in params for _, params in venue.asked)


async def test_a_listing_that_never_rests_is_given_up(venue: Venue) -> None:
    venue.page_size, plain = 1, venue.instruments

    def move(params: dict[str, Any]) -> dict[str, Any]:
        if params["instrument_type"] == "option":
            venue.rows["option"].append(option(2800 - len(venue.rows["option"])))
        return plain(params)

    venue.answers["public/get_all_instruments"] = move
    found = await venue.look()
    ((grade, text),) = of(found, "instruments")
    assert (grade, "changes with every page" in text) == ("fail", True)
    pages = [params for method, params in venue.asked if method == "public/get_all_instruments"]
    assert sum(params["instrument_type"] == "option" and params["page"] == 1 for params in pages) == READINGS_MAX


async def test_what_is_not_listed_fails_and_what_has_expired_does_not(venue: Venue) -> None:
    chooser = Chooser([ETH, "ETH-20201225-3000-C", "ETH-20991225-9-C", "ETH-20201399-3000-P"])
    found = await venue.look(chooser)
    assert [text for grade, text in of(found, "instruments") if grade == "fail"] == [
        "lists no ETH-20991225-9-C",
        "lists no ETH-20201399-3000-P",
    ]
    assert chooser.ends == {"ETH-20201225-3000-C": 1608883200 * 10**9}


async def test_a_coin_that_is_not_there(venue: Venue) -> None:
    found = await venue.look(Chooser(["DOGE-PERP"]))
    assert of(found, "instruments") == [("fail", "lists no DOGE-PERP")]


async def test_a_row_that_cannot_be_read_is_told_to_who_wants_it(venue: Venue) -> None:
    venue.rows["option"][0]["amount_step"] = "0"
    found = await venue.look(Chooser([ETH, CALL]))
    assert of(found, "instruments")[0][0] == "fail"
    assert f"{CALL} cannot be quoted: amount_step 0 is out of range" in of(found, "instruments")[0][1]
    assert grades(await venue.look(Chooser([ETH])))["instruments"] == ["ok"]


async def test_a_spread_that_does_not_earn_its_fees(venue: Venue) -> None:
    narrow = msgspec.structs.replace(PROFILE, spread_bps=1.5)
    found = await venue.look(Chooser([ETH], narrow))
    assert of(found, "fees") == [("warn", "maker 1 bps, taker 3 bps of the notional (ETH-PERP)")]


async def test_an_incident_is_a_warning(venue: Venue) -> None:
    venue.answers["public/get_live_incidents"] = {
        "incidents": [{"label": "feeds", "message": "late", "severity": "high"}]
    }
    assert of(await venue.look(), "status") == [("warn", "high incident: feeds late")]


# --- login ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [14020, 14023, 14026])
async def test_a_key_of_another_wallet_is_named_as_that(venue: Venue, code: int) -> None:
    venue.answers["private/get_subaccounts"] = Refusal(code, "signer is not good")
    found = await venue.look()
    ((grade, text),) = of(found, "login")
    assert grade == "fail"
    assert text.startswith(f"session key {SIGNER} does not belong to wallet {OWNER}: ")
    assert found[-1].check == "login"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Refusal(14000, "account not found"), f"wallet {OWNER} has no account here: "),
        (Refusal(14030, "key expired"), f"session key {SIGNER}: private/get_subaccounts: key expired"),
        (Refusal(14029, "address not allowed"), f"session key {SIGNER}: private/get_subaccounts: address not allowed"),
        (httpx.ReadError("broken"), f"session key {SIGNER}: private/get_subaccounts: broken"),
    ],
)
async def test_other_reasons_are_told_apart(venue: Venue, error: Exception, text: str) -> None:
    venue.answers["private/get_subaccounts"] = error
    ((grade, told),) = of(await venue.look(), "login")
    assert grade == "fail"
    assert told.startswith(text)


async def test_a_signature_that_comes_back_is_not_shown(venue: Venue) -> None:
    """It does not grow old: who has it is let in."""

    def echo(params: object) -> object:
        raise Refusal(14014, f"wrong signature {venue.signed[-1]['x-derivesignature']}")

    venue.answers["private/get_subaccounts"] = venue.answers["private/session_keys"] = echo
    ((grade, text),) = of(await venue.look(), "login")
    assert (grade, "wrong signature [secret]" in text) == ("fail", True)


@pytest.mark.parametrize(("ids", "has"), [([30770, 5], "5, 30770"), ([], "none")])
async def test_a_subaccount_of_somebody_else(venue: Venue, ids: list[int], has: str) -> None:
    venue.answers["private/get_subaccounts"] = {"wallet": OWNER, "subaccount_ids": ids}
    found = await venue.look()
    assert of(found, "subaccount") == [("fail", f"30769 is none of this wallet's: it has {has}")]
    assert "account" not in grades(found)


async def test_without_a_key_the_public_half_is_looked_at(venue: Venue) -> None:
    found = await venue.look(secret=None)
    assert set(grades(found)) == {"reach", "clock", "instruments", "tick", "fees"}
    assert not venue.signed


# --- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "grade"),
    [
        (["trade:all"], "ok"),
        (["trade:all", "trade:rfq:all"], "ok"),
        (["admin"], "warn"),
        (["trade:all", "transfer:all"], "warn"),
        (["trade:orderbook:all"], "warn"),
        (["trade:orderbook:perp", "trade:orderbook:option"], "warn"),
        (["trade:orderbook:option"], "fail"),
        (["trade:rfq:all"], "fail"),
        (["transfer:all"], "fail"),
        ([], "fail"),
    ],
)
async def test_scopes(venue: Venue, scopes: list[str], grade: str) -> None:
    venue.key["protocol_scopes"] = scopes
    assert grades(await venue.look())["rights"] == [grade]


async def test_what_a_key_may_not_quote_is_named(venue: Venue) -> None:
    venue.key["protocol_scopes"] = ["trade:orderbook:perp"]
    found = f"granted: trade:orderbook:perp, account_info; not enough for {CALL}"
    assert of(await venue.look(), "rights") == [("fail", found)]


@pytest.mark.parametrize(
    ("seconds", "grade", "text"),
    [
        (30 * DAY, "ok", "ends in 30.0 days"),
        (6 * DAY, "warn", "ends in 6.0 days"),
        (7200, "warn", "ends in 2.0 hours"),
        (KEY_NEEDS_SECONDS + 30, "warn", "ends in 7 minutes"),
        (KEY_NEEDS_SECONDS - 30, "fail", "ends in 6 minutes"),
        (-2 * DAY, "fail", "ended 2.0 days ago"),
    ],
)
async def test_the_key_must_last(venue: Venue, seconds: int, grade: str, text: str) -> None:
    """As long as mmd wants of it at a login."""
    venue.key["expiry_sec"] = int(time.time()) + seconds + 5
    assert of(await venue.look(), "key_expiry") == [(grade, text)]


async def test_a_key_of_other_subaccounts(venue: Venue) -> None:
    venue.key["subaccount_ids"] = [30770]
    assert of(await venue.look(), "rights")[1] == ("fail", "the key is for 30770 only")


async def test_a_key_that_is_not_listed(venue: Venue) -> None:
    venue.key["public_session_key"] = OWNER
    assert of(await venue.look(), "rights") == [("warn", f"{SIGNER} is not listed among the wallet's keys")]


async def test_the_wallets_own_key_is_too_much(venue: Venue) -> None:
    found = await venue.look(secret=OWNERS_KEY)
    assert of(found, "rights") == [("warn", "this is the wallet's own key, which may do everything")]
    assert "private/session_keys" not in dict(venue.asked)


# --- the wallet ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("armed", "scopes", "needed", "grade"),
    [
        (True, ["trade:orderbook:all"], True, "ok"),
        (False, ["trade:all"], True, "ok"),
        (False, ["trade:orderbook:all"], True, "fail"),
        (False, ["trade:orderbook:all"], False, "warn"),
    ],
)
async def test_cancel_on_disconnect(venue: Venue, armed: bool, scopes: list[str], needed: bool, grade: str) -> None:
    venue.account["cancel_on_disconnect"] = armed
    venue.key["protocol_scopes"] = scopes
    assert grades(await venue.look(needs_cancel_on_disconnect=needed))["cancel_on_disconnect"] == [grade]


async def test_budgets_are_held_against_what_will_be_wanted(venue: Venue) -> None:
    venue.account |= {"websocket_matching_tps": 1, "websocket_perp_tps": 1, "websocket_option_tps": 5}
    assert of(await venue.look(), "budget") == [
        ("warn", "0.5 requests a second, 2.5 at once"),  # what mmd keeps to, so that no window has more than five
        ("warn", "1 a second for each perpetual"),
        ("ok", "5 a second for each option"),
    ]


async def test_an_account_that_may_ask_nothing(venue: Venue) -> None:
    venue.account["websocket_matching_tps"] = 0
    assert of(await venue.look(), "budget")[0] == ("fail", "0 requests a second are no budget")


async def test_fees_of_the_account_are_told(venue: Venue) -> None:
    venue.account["fee_info"] = {"perp_maker_fee": "0.00005", "option_maker_fee": None}
    assert of(await venue.look(), "fees")[-1] == ("ok", "of this account: perp_maker_fee 0.00005")


@pytest.mark.parametrize(
    ("change", "grade", "text"),
    [
        ({"initial_margin": "50"}, "warn", "-50 free"),
        ({"is_under_liquidation": True}, "fail", "it is being liquidated"),
        ({"failed_to_fetch": True}, "warn", "could not be fetched whole"),
        ({"initial_margin": "NaN"}, "warn", "could not be fetched whole"),
        ({"initial_margin": "Infinity", "open_orders_margin": "-Infinity"}, "warn", "could not be fetched whole"),
        ({"initial_margin": None}, "fail", "no Subaccount"),
    ],
)
async def test_what_is_left_to_quote_with(venue: Venue, change: dict[str, Any], grade: str, text: str) -> None:
    venue.subaccount |= change
    ((found, told),) = of(await venue.look(), "account")
    assert (found, text in told) == (grade, True)


# --- signatures ----------------------------------------------------------------------------------


async def test_an_order_is_shown_that_could_do_nothing(venue: Venue) -> None:
    """An option whose sub id fills many bytes; what it signs is recovered to the session key."""
    seen: list[dict[str, Any]] = []
    steps = venue.steps
    venue.answers["private/order_debug"] = lambda params: seen.append(params) or steps(params)
    found = await venue.look(Chooser([CALL]))
    assert of(found, "signature") == [
        ("ok", "orders are verified there as they are signed, for testnet (chain id 11155111)")
    ]
    (params,) = seen
    assert params["instrument_name"] == CALL
    assert (params["direction"], params["limit_price"], params["amount"]) == ("buy", "0.1", "1")
    assert (params["time_in_force"], params["reduce_only"], params["mmp"]) == ("ioc", True, False)
    assert abs(int(params["nonce"]) / 1e9 - time.time()) < 60
    assert not any(params["signature"].removeprefix("0x") in repr(each) for each in found)


@pytest.mark.parametrize(
    ("chain_id", "named", "wanted_text"),
    [
        (MAINNET.chain_id, "mainnet", "chain: mainnet, beside the url"),
        (957, "another network", "chain: mainnet or testnet"),
    ],
)
async def test_another_chain_is_found_out(venue: Venue, chain_id: int, named: str, wanted_text: str) -> None:
    venue.chain_id = chain_id
    (finding,) = [each for each in await venue.look(Chooser([CALL])) if each.check == "signature"]
    assert finding.grade.value == "fail"
    signed = "orders are signed for testnet (chain id 11155111)"
    assert finding.found == f"{signed}, and verified there for {named}: each would be refused"
    assert finding.wanted == wanted_text


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ({"typed_data_hash": "0x" + "11" * 32}, "all but the terms of an order are hashed otherwise"),
        (
            {"typed_data_hash": "0x" + "11" * 32, "encoded_data_hashed": "0x" + "22" * 32},
            "the terms of an order are hashed otherwise",
        ),
    ],
)
async def test_another_hash_is_found_out(venue: Venue, steps: dict[str, str], text: str) -> None:
    venue.changed_steps = steps
    ((grade, found),) = of(await venue.look(Chooser([CALL])), "signature")
    assert (grade, text in found) == ("fail", True)


@pytest.mark.parametrize(
    ("answer", "grade", "text"),
    [
        (Refusal(14014, "Signature invalid"), "fail", "Signature invalid"),
        (Refusal(-32601, "Method not found"), "warn", "not told what is verified there: "),
        ({"domain_separator": 1}, "warn", "no Steps"),
    ],
)
async def test_what_is_not_told_is_said(venue: Venue, answer: object, grade: str, text: str) -> None:
    venue.answers["private/order_debug"] = answer
    ((found_grade, found),) = of(await venue.look(Chooser([CALL])), "signature")
    assert (found_grade, text in found) == (grade, True)


async def test_a_signature_that_is_repeated_is_not_shown(venue: Venue) -> None:
    def repeat(params: dict[str, Any]) -> None:
        raise Refusal(14014, f"signature {params['signature']} is not good")

    venue.answers["private/order_debug"] = repeat
    assert "signature 0x[secret] is not good" in of(await venue.look(Chooser([CALL])), "signature")[0][1]


async def test_where_nothing_is_quoted_nothing_is_signed(venue: Venue) -> None:
    await venue.look(Chooser([]), coins=("ETH",))
    assert "private/order_debug" not in dict(venue.asked)


# --- maker protection ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([MMP], [("ok", "ETH: as it is wanted")]),
        ([], [("ok", "ETH: nothing is set there")]),
        ([MMP | {"currency": "BTC"}], [("ok", "ETH: nothing is set there")]),
        ([MMP | {"mmp_interval": 0}], [("ok", "ETH: nothing is set there")]),
        (
            [MMP | {"is_frozen": True, "mmp_delta_limit": "3"}],
            [("warn", "ETH: frozen now"), ("ok", "ETH: mmp_delta_limit is 3, wanted 0")],
        ),
    ],
)
async def test_maker_protection(venue: Venue, rows: list[dict[str, Any]], expected: Iterable[tuple[str, str]]) -> None:
    venue.answers["private/get_mmp_config"] = rows
    assert of(await venue.look(protections=(PROTECTION,)), "maker_protection") == expected


def test_milliseconds_survive_seconds() -> None:
    """0.029 s are 28.999… ms as a product of floats."""
    for milliseconds in range(1, 3000):
        wanted_ms = Protection(underlying="ETH", interval_seconds=milliseconds / 1000, frozen_seconds=0)
        found = MmpConfig(subaccount_id=1, currency="ETH", mmp_interval=milliseconds, mmp_frozen_time=0)
        assert mmp_difference(found, mmp_params(1, wanted_ms)) == ""


# --- reach and clock -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (httpx.ConnectError("Name or service not known"), "https://exchange.example/v3: Name or service not known"),
        (Refusal(-32603, "Internal error"), "Internal error"),
        ("soon", "no int"),
        (10**40, "no time of this age"),
        (-1, "no time of this age"),
    ],
)
async def test_nobody_there(venue: Venue, answer: object, text: str) -> None:
    venue.answers["public/get_time"] = answer
    (only,) = await venue.look()
    assert (only.check, only.grade.value) == ("reach", "fail")
    assert text in only.found


async def test_the_clock_is_told_with_its_doubt(venue: Venue, autojump_clock: trio.abc.Clock) -> None:
    """An answer that takes two seconds says nothing about one."""
    wall_ns = lambda: round(trio.current_time() * 1e9)  # noqa: E731 - the mock clock's time

    async def slow(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("get_time"):
            await trio.sleep(1.0)
            told = round(trio.current_time() * 1000) + 500
            await trio.sleep(1.0)
            return httpx.Response(200, json={"result": told})
        return venue(request)

    venue.key["expiry_sec"] = 30 * DAY
    room = DerivePreflight(
        name="derive",
        network="x",
        base=BASE,
        identity=None,
        domain=TESTNET,
        wall_ns=wall_ns,
        transport=httpx.MockTransport(slow),
    )
    found = await room.look(wanted(Chooser([ETH])))
    assert of(found, "clock") == [("warn", "ours is 500 ms behind the exchange's, give or take 1000 ms")]
