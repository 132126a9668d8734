"""Derive's signatures: every step of the vectors, eth-account on random orders, bounds, nonces and expiries."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_keys import KeyAPI
from eth_keys.backends import NativeECCBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.domain.addresses import ORDER, checksum
from mmd.domain.keccak import keccak256
from mmd.domain.reasons import Side
from mmd.exchanges.derive import amounts, keys, lifetimes, rfq, signing
from mmd.exchanges.derive.signing import Asset, Domain, Signer

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data/derive_signing.json").read_bytes())["vectors"]
KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
ETH_PERP = Asset("0xAf65752C4643E25C02F693f9D4FE19cF23a095E3", 0)
DOMAINS = {
    "v3-mainnet": signing.MAINNET,
    "v3-testnet": signing.TESTNET,
    "v2-mainnet": Domain(957),
    "v2-testnet": Domain(901, "0x3cc154e220c2197c5337b7Bd13363DD127Bc0C6E"),
}
# As the exchange publishes them.
SEPARATORS = {
    "v3-mainnet": "da616dfabb88681b08e1592820a41d55ddc62d68de110e327ae99d734506fe19",
    "v3-testnet": "24d674cd5f2b9d564691c51e9d88f649b99246a2244dd74ce27b96578d773e85",
    "v2-mainnet": "d96e5f90797da7ec8dc4e276260c7f3f87fedf68775fbe1ef116e996fc60441b",
    "v2-testnet": "9bcf4dc06df5d8bf23af818d5716491b995020f377d3b7b64c29ed14e3dd1105",
}
MOST = amounts.INT128_MAX // amounts.STEP * amounts.STEP
SIDES = {"buy": Side.BID, "sell": Side.ASK}


def vectors(kind: str) -> Any:
    found = [pytest.param(vector, id=vector["name"]) for vector in VECTORS if vector["kind"] == kind]
    assert found
    return found


def e18(text: str) -> int:
    return amounts.scaled(Decimal(text))


def signer_of(vector: dict[str, Any]) -> Signer:
    given = vector["inputs"]
    key = keys.SessionKey(given["signer_private_key"])
    assert key.name == given["signer"]
    return Signer(key, DOMAINS[vector["network"]], given["owner"], given["subaccount_id"])


def check_steps(vector: dict[str, Any], signed: signing.Signed) -> None:
    """Every intermediate value of the vector."""
    expected = vector["expected"]
    words = [signed.data[at : at + 32].hex() for at in range(0, len(signed.data), 32)]
    assert words == expected["module_data_words"]
    assert "0x" + signed.data.hex() == expected["module_data"]
    assert "0x" + signed.data_hash.hex() == expected["module_data_hash"]
    assert "0x" + keccak256(bytes.fromhex(expected["action_struct_preimage"][2:])).hex() == expected["action_hash"]
    assert "0x" + signed.action_hash.hex() == expected["action_hash"]
    assert "0x" + signed.typed_hash.hex() == expected["typed_data_hash"]
    assert signed.hex == expected["signature"]


# --- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("trade"))
def test_trade_vectors(vector: dict[str, Any]) -> None:
    given, trade = vector["inputs"], vector["inputs"]["trade"]
    signer = signer_of(vector)
    arguments = (
        Asset(trade["asset_address"], int(trade["sub_id"])),
        SIDES[trade["direction"]],
        e18(trade["limit_price"]),
        e18(trade["amount"]),
        e18(trade["max_fee"]),
        int(given["nonce"]),
        given["signature_expiry_sec"],
    )
    check_steps(vector, signer.trade(*arguments))
    order = signer.order(*arguments)
    assert order.signature == vector["expected"]["signature"]
    assert (order.limit_price, order.amount, order.max_fee) == (
        trade["limit_price"],
        trade["amount"],
        trade["max_fee"],
    )
    assert (order.nonce, order.signature_expiry_sec) == (given["nonce"], given["signature_expiry_sec"])
    assert (order.signer, order.subaccount_id, order.direction) == (
        given["signer"],
        given["subaccount_id"],
        trade["direction"],
    )


def legs_of(vector: dict[str, Any]) -> list[rfq.Leg]:
    return [
        rfq.Leg(
            leg["instrument_name"],
            SIDES[leg["direction"]],
            Asset(leg["asset_address"], int(leg["sub_id"])),
            e18(leg["price"]),
            e18(leg["amount"]),
        )
        for leg in vector["inputs"]["rfq"]["legs_as_given"]
    ]


@pytest.mark.parametrize("vector", vectors("rfq_quote"))
def test_quote_vectors(vector: dict[str, Any]) -> None:
    given, quote, legs = vector["inputs"], vector["inputs"]["rfq"], legs_of(vector)
    assert [leg.instrument_name for leg in rfq.sorted_legs(legs)] == quote["legs_signed_order"]
    data = rfq.quote_data(legs, SIDES[quote["direction"]], e18(quote["max_fee"]))
    check_steps(vector, signer_of(vector).rfq(data, int(given["nonce"]), given["signature_expiry_sec"]))


@pytest.mark.parametrize("vector", vectors("rfq_execute"))
def test_execute_vectors(vector: dict[str, Any]) -> None:
    given, execute, legs = vector["inputs"], vector["inputs"]["rfq"], legs_of(vector)
    side = SIDES[execute["direction"]]
    encoded = rfq.legs_data(legs, side)
    assert "0x" + encoded.hex() == vector["expected"]["encoded_legs"]
    assert "0x" + keccak256(encoded).hex() == vector["expected"]["legs_order_hash"]
    data = rfq.execute_data(legs, side, e18(execute["max_fee"]))
    check_steps(vector, signer_of(vector).rfq(data, int(given["nonce"]), given["signature_expiry_sec"]))


@pytest.mark.parametrize("vector", vectors("login"))
def test_login_vectors(vector: dict[str, Any]) -> None:
    given, expected = vector["inputs"], vector["expected"]
    key = keys.SessionKey(given["signer_private_key"])
    message = given["timestamp_ms"].encode()
    assert "0x" + signing.personal_hash(message).hex() == expected["eip191_hash"]
    params = signing.login_params(key, given["wallet"], int(given["timestamp_ms"]))
    assert {name: getattr(params, name) for name in params.__struct_fields__} == expected["ws_login_params"]
    assert signing.login_headers(params) == expected["http_headers"]


def test_a_network_may_have_modules_of_its_own() -> None:
    """As v2's testnet had; these are its addresses."""
    domain = Domain(
        901,
        "0x3cc154e220c2197c5337b7Bd13363DD127Bc0C6E",
        trade_module="0x87F2863866D85E3192a35A73b388BD625D83f2be",
        rfq_module="0x4E4DD8Be1e461913D9A5DBC4B830e67a8694ebCa",
    )
    signer = Signer(keys.SessionKey(KEY), domain, OWNER, 7)
    signed = signer.trade(ETH_PERP, Side.BID, e18("1"), e18("1"), 0, 1, 1)
    theirs = foreign(bytes.fromhex(KEY[2:]), domain, domain.trade_module, signer, signed, signed.data)
    assert signed.signature == bytes(theirs.signature)
    data = rfq.quote_data([rfq.Leg("ETH-PERP", Side.BID, ETH_PERP, e18("1"), e18("1"))], Side.BID, 0)
    quoted = signer.rfq(data, 1, 1)
    theirs = foreign(bytes.fromhex(KEY[2:]), domain, domain.rfq_module, signer, quoted, data)
    assert quoted.signature == bytes(theirs.signature)


def test_every_vector_is_tested() -> None:
    assert {vector["kind"] for vector in VECTORS} == {"trade", "rfq_quote", "rfq_execute", "login"}
    assert len(VECTORS) == 12


@pytest.mark.parametrize("network", SEPARATORS)
def test_separators_follow_from_their_parts(network: str) -> None:
    assert DOMAINS[network].separator.hex() == SEPARATORS[network]


def test_typehashes() -> None:
    assert signing.ACTION_TYPEHASH.hex() == "4d7a9f27c403ff9c0f19bce61d76d82f9aa29f8d6d4b0c5474607d9770d1af17"
    assert keccak256(signing.DOMAIN_TYPE).hex() == "8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f"


# --- against eth-account -------------------------------------------------------------------------

secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32))
addresses = st.binary(min_size=20, max_size=20).map(checksum)
values = st.integers(0, amounts.INT128_MAX // amounts.STEP).map(lambda number: number * amounts.STEP)
sizes = values.filter(bool)
domains = st.builds(Domain, st.integers(0, 2**64), addresses, st.text(max_size=20), st.text(max_size=5))
assets = st.builds(Asset, addresses, st.integers(0, signing.UINT128_MAX))
uint64 = st.integers(1, signing.UINT64_MAX)
sides = st.sampled_from(Side)

NATIVE = KeyAPI(NativeECCBackend)
ACTION_FIELDS = [
    {"name": "subaccountId", "type": "uint256"},
    {"name": "nonce", "type": "uint256"},
    {"name": "module", "type": "address"},
    {"name": "data", "type": "bytes"},
    {"name": "expiry", "type": "uint256"},
    {"name": "owner", "type": "address"},
    {"name": "signer", "type": "address"},
]


def foreign(secret: bytes, domain: Domain, module: str, signer: Signer, signed: signing.Signed, data: bytes) -> Any:
    """eth-account's signature of the same action, by its own hashing of typed data."""
    message = {
        "subaccountId": signer.subaccount_id,
        "nonce": signed.nonce,
        "module": module,
        "data": data,
        "expiry": signed.expires_sec,
        "owner": signer.owner,
        "signer": signer.name,
    }
    head = {
        "name": domain.name,
        "version": domain.version,
        "chainId": domain.chain_id,
        "verifyingContract": domain.contract,
    }
    return Account.sign_message(encode_typed_data(head, {"Action": ACTION_FIELDS}, message), secret)


@settings(max_examples=60, deadline=None)
@given(secrets, domains, addresses, uint64, assets, sides, values, sizes, values, uint64, uint64)
def test_orders_are_signed_as_eth_account_signs_them(
    secret: bytes,
    domain: Domain,
    owner: str,
    subaccount_id: int,
    asset: Asset,
    side: Side,
    price: int,
    amount: int,
    max_fee: int,
    nonce: int,
    expires_sec: int,
) -> None:
    key = keys.SessionKey(secret.hex())
    assert key.name == Account.from_key(secret).address
    signer = Signer(key, domain, owner, subaccount_id)
    signed = signer.trade(asset, side, price, amount, max_fee, nonce, expires_sec)
    data = abi_encode(
        ["address", "uint256", "int256", "int256", "uint256", "uint256", "bool"],
        [asset.address, asset.sub_id, price, amount, max_fee, subaccount_id, side is Side.BID],
    )
    theirs = foreign(secret, domain, signing.TRADE_MODULE, signer, signed, data)
    assert signed.data == data
    assert signed.typed_hash == bytes(theirs.message_hash)
    assert signed.signature == bytes(theirs.signature)
    assert signed.signature == bytes(Account.unsafe_sign_hash(signed.typed_hash, secret).signature)
    assert Account._recover_hash(signed.typed_hash, signature=signed.signature) == key.name
    order = signer.order(asset, side, price, amount, max_fee, nonce, expires_sec)
    assert order.signature == signed.hex
    assert [e18(text) for text in (order.limit_price, order.amount, order.max_fee)] == [price, amount, max_fee]


legs = st.lists(
    st.builds(rfq.Leg, st.text(min_size=1, max_size=8), sides, assets, values, sizes),
    min_size=1,
    max_size=4,
    unique_by=lambda leg: leg.instrument_name,
)


@settings(max_examples=40, deadline=None)
@given(secrets, domains, addresses, legs, sides, values, uint64)
def test_quotes_are_signed_as_eth_account_signs_them(
    secret: bytes, domain: Domain, owner: str, package: list[rfq.Leg], side: Side, max_fee: int, nonce: int
) -> None:
    signer = Signer(keys.SessionKey(secret.hex()), domain, owner, 5)
    package.sort(key=lambda leg: leg.instrument_name)
    rows = [
        (leg.asset.address, leg.asset.sub_id, leg.price, leg.amount if leg.side is side else -leg.amount)
        for leg in package
    ]
    # A leg that is to be sold, in a package that the maker sells, is bought: the same side twice is plus.
    quote = abi_encode(["(uint256,(address,uint256,uint256,int256)[])"], [(max_fee, rows)])
    signed = signer.rfq(rfq.quote_data(package, side, max_fee), nonce, 9)
    theirs = foreign(secret, domain, signing.RFQ_MODULE, signer, signed, quote)
    assert signed.data == quote
    assert signed.signature == bytes(theirs.signature)
    other = Side.ASK if side is Side.BID else Side.BID
    execution = abi_encode(
        ["bytes32", "uint256"],
        [keccak256(abi_encode(["(address,uint256,uint256,int256)[]"], [rows])), max_fee],
    )
    assert rfq.execute_data(package, other, max_fee) == execution


@settings(max_examples=30, deadline=None)
@given(secrets, addresses, st.integers(0, 2**53))
def test_logins_are_signed_as_eth_account_signs_them(secret: bytes, wallet: str, now_ms: int) -> None:
    params = signing.login_params(keys.SessionKey(secret.hex()), wallet.lower(), now_ms)
    theirs = Account.sign_message(encode_defunct(text=str(now_ms)), secret)
    assert params.signature == "0x" + bytes(theirs.signature).hex()
    assert (params.wallet, params.timestamp) == (wallet, now_ms)


@settings(max_examples=10, deadline=None)
@given(secrets, st.binary(min_size=32, max_size=32))
def test_another_implementation_of_the_curve_agrees(secret: bytes, digest: bytes) -> None:
    """eth-account uses coincurve too where it is installed; this backend is written in Python."""
    signature = keys.SessionKey(secret.hex()).sign(digest)
    theirs = NATIVE.PrivateKey(secret).sign_msg_hash(digest).to_bytes()
    assert signature == theirs[:64] + bytes([theirs[64] + 27])
    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64]) <= ORDER // 2


# --- amounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "back"),
    [
        pytest.param("0", 0, "0", id="zero"),
        pytest.param("-0.0", 0, "0", id="minus zero"),
        pytest.param("1", 10**18, "1", id="one"),
        pytest.param("0.000000000001", 10**6, "0.000000000001", id="the finest"),
        pytest.param("1.50000000000000000000000", 15 * 10**17, "1.5", id="zeros are no decimals"),
        pytest.param("1E+3", 1000 * 10**18, "1000", id="exponent in"),
        pytest.param("1E-12", 10**6, "0.000000000001", id="negative exponent in"),
        pytest.param("-2.5", -25 * 10**17, "-2.5", id="negative"),
        pytest.param("0E-999999", 0, "0", id="absurd zero"),
        pytest.param(
            "123456789012345678.123456789012",
            123456789012345678123456789012 * 10**6,
            "123456789012345678.123456789012",
            id="more digits than a Decimal context has",
        ),
    ],
)
def test_amounts_are_exact(text: str, count: int, back: str) -> None:
    assert amounts.scaled(Decimal(text)) == count
    assert amounts.plain(count) == back


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("0.0000000000001", "more than 12 decimals", id="13 decimals"),
        pytest.param("1.0000000000001", "more than 12 decimals", id="13 decimals and a whole part"),
        pytest.param("1E-999999", "more than 12 decimals", id="absurdly small"),
        pytest.param("1E+999999", "too large", id="absurdly large"),
        pytest.param("170141183460469231732", "too large", id="beyond int128"),
        pytest.param("NaN", "no finite number", id="not a number"),
        pytest.param("-Infinity", "no finite number", id="infinite"),
    ],
)
def test_what_cannot_be_signed_is_refused_and_not_rounded(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        amounts.scaled(Decimal(text))


@given(st.integers(-MOST // amounts.STEP, MOST // amounts.STEP))
def test_text_and_integer_are_the_same_number(steps: int) -> None:
    count = steps * amounts.STEP
    text = amounts.plain(count)
    assert amounts.scaled(Decimal(text)) == count
    assert set(text) <= set("-0123456789.")
    assert "." not in text or text[-1] != "0"


# --- bounds --------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "asset": ETH_PERP,
    "side": Side.BID,
    "price": 10**18,
    "amount": 10**18,
    "max_fee": 0,
    "nonce": 1_795_305_600_000_000_001,
    "expires_sec": 1_795_306_500,
}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param({"amount": 0}, "amount 0 cannot be signed", id="no amount"),
        pytest.param({"amount": -amounts.ONE}, "amount -1 cannot be signed", id="negative amount"),
        pytest.param({"amount": 1}, "more than 12 decimals", id="too fine an amount"),
        pytest.param({"amount": MOST + amounts.STEP}, "cannot be signed", id="amount beyond int128"),
        pytest.param({"price": -amounts.ONE}, "limit price -1", id="negative price"),
        pytest.param({"price": amounts.STEP + 1}, "more than 12 decimals", id="too fine a price"),
        pytest.param({"max_fee": -amounts.ONE}, "max fee -1", id="negative fee"),
        pytest.param({"max_fee": 1}, "max fee 0.000000000000000001 has more", id="too fine a fee"),
        pytest.param({"nonce": 0}, "nonce 0 is not from 1", id="no nonce"),
        pytest.param({"nonce": 2**64}, "nonce", id="nonce beyond 64 bits"),
        pytest.param({"expires_sec": 0}, "expiry 0 is not from 1", id="no expiry"),
        pytest.param({"expires_sec": 2**64}, "expiry", id="expiry beyond 64 bits"),
    ],
)
def test_what_does_not_fit_is_not_signed(change: dict[str, Any], wanted: str) -> None:
    signer = Signer(keys.SessionKey(KEY), signing.MAINNET, OWNER, 30769)
    assert signer.order(**GOOD).amount == "1"
    assert signer.order(**GOOD | {"amount": MOST, "price": MOST}).amount == amounts.plain(MOST)
    with pytest.raises(ValueError, match=wanted):
        signer.order(**GOOD | change)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_subaccount_is_an_uint64(number: int) -> None:
    with pytest.raises(ValueError, match="subaccount"):
        Signer(keys.SessionKey(KEY), signing.MAINNET, OWNER, number)


@pytest.mark.parametrize("number", [-1, 2**128])
def test_a_sub_id_is_an_uint128(number: int) -> None:
    with pytest.raises(ValueError, match="128 bits"):
        Asset(ETH_PERP.address, number)


def test_packages_have_legs_and_none_twice() -> None:
    leg = rfq.Leg("ETH-PERP", Side.BID, ETH_PERP, 10**18, 10**18)
    for package in ([], [leg, leg]):
        with pytest.raises(ValueError, match="at least one leg"):
            rfq.quote_data(package, Side.BID, 0)
    with pytest.raises(ValueError, match="amount of ETH-PERP 0"):
        rfq.execute_data([rfq.Leg("ETH-PERP", Side.BID, ETH_PERP, 10**18, 0)], Side.BID, 0)


def test_a_signature_counts_for_one_network_owner_and_subaccount() -> None:
    key = keys.SessionKey(KEY)
    signers = [
        Signer(key, signing.MAINNET, OWNER, 1),
        Signer(key, signing.TESTNET, OWNER, 1),
        Signer(key, signing.MAINNET, key.name, 1),
        Signer(key, signing.MAINNET, OWNER, 2),
    ]
    assert len({signer.order(**GOOD).signature for signer in signers}) == 4
    sides = {signers[0].order(**GOOD | {"side": side}).signature for side in Side}
    assert len(sides) == 2


def test_assets_are_what_they_name() -> None:
    same = Asset(ETH_PERP.address.lower(), 0)
    assert same == ETH_PERP
    assert hash(same) == hash(ETH_PERP)
    assert Asset(ETH_PERP.address, 1) != ETH_PERP
    assert repr(same) == "Asset('0xAf65752C4643E25C02F693f9D4FE19cF23a095E3', 0)"


# --- nonces and expiries -------------------------------------------------------------------------


def test_nonces_are_the_clock_and_never_repeat() -> None:
    nonces = lifetimes.Nonces()
    now_ns = 1_795_305_600_000_000_000
    assert nonces.take(now_ns) == now_ns
    assert nonces.take(now_ns) == now_ns + 1
    assert nonces.take(now_ns - 3600 * lifetimes.NS) == now_ns + 2  # the clock was set back
    assert nonces.take(now_ns + 10) == now_ns + 10
    assert lifetimes.Nonces(now_ns).take(now_ns) == now_ns + 1  # another process took it


@given(st.lists(st.integers(1, 2**62), min_size=1))
def test_nonces_only_grow(clock: list[int]) -> None:
    nonces = lifetimes.Nonces()
    taken = [nonces.take(now_ns) for now_ns in clock]
    assert taken == sorted(set(taken))
    assert all(nonce >= now_ns for nonce, now_ns in zip(taken, clock, strict=True))


NOW_NS = 1_795_305_600_999_999_999
NOW = 1_795_305_600


@pytest.mark.parametrize(
    ("life", "key_expires", "mmp", "expected"),
    [
        pytest.param(lifetimes.MMP_ORDER_SECONDS, None, True, NOW + 600, id="protected order"),
        pytest.param(3600, None, False, NOW + 3600, id="order"),
        pytest.param(2400, NOW + 10**6, False, NOW + 2400, id="key lasts"),
        pytest.param(3600, NOW + 1000, False, NOW + 940, id="key ends before"),
        pytest.param(3600, NOW + 360, False, NOW + 300, id="key lasts just long enough"),
        pytest.param(900, None, True, NOW + 900, id="the most with protection"),
    ],
)
def test_expiries(life: int, key_expires: int | None, mmp: bool, expected: int) -> None:
    assert lifetimes.expiry_sec(NOW_NS, life, key_expires, mmp=mmp) == expected


@pytest.mark.parametrize(
    ("life", "mmp"),
    [
        pytest.param(299, False, id="too short"),
        pytest.param(901, True, id="too long with protection"),
        pytest.param(2**31 - 1, False, id="as good as for ever"),
    ],
)
def test_lives_have_bounds(life: int, mmp: bool) -> None:
    with pytest.raises(ValueError, match="is not from 300 to"):
        lifetimes.expiry_sec(NOW_NS, life, mmp=mmp)


@pytest.mark.parametrize(("key_expires", "left"), [(NOW + 359, 359), (NOW - 5, 0), (0, 0)])
def test_a_key_that_ends_signs_no_more(key_expires: int, left: int) -> None:
    with pytest.raises(lifetimes.KeyExpires, match=f"ends in {left} s"):
        lifetimes.expiry_sec(NOW_NS, 600, key_expires)
