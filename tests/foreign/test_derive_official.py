"""Derive's official signing library, which this project did not write, on random orders, quotes and logins.

Runs only where derive-py is installed (`make foreign`): it brings 50 packages and 280 MB, and one that
wants an older `websockets` than mmd's, so it never stands in the same environment. MMD_PYTHON names an
interpreter that can import mmd, where it is another one than that of the tests.
"""

import json
import os
import random
import subprocess
import sys
from decimal import Decimal

import pytest

pytest.importorskip("derive_py", reason="the official library is not in this environment: make foreign")

from derive_py._web3.action_signing import signed_action
from derive_py._web3.action_signing.module_data import rfq, trade
from eth_account import Account
from eth_account.messages import encode_defunct

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SEED = 20261121
CASES = 300
TYPEHASH = "0x4d7a9f27c403ff9c0f19bce61d76d82f9aa29f8d6d4b0c5474607d9770d1af17"
SEPARATORS = {
    "MAINNET": "0xda616dfabb88681b08e1592820a41d55ddc62d68de110e327ae99d734506fe19",
    "TESTNET": "0x24d674cd5f2b9d564691c51e9d88f649b99246a2244dd74ce27b96578d773e85",
}
TRADE_MODULE = "0xB8D20c2B7a1Ad2EE33Bc50eF10876eD3035b5e7b"
RFQ_MODULE = "0x9371352CCef6f5b36EfDFE90942fFE622Ab77F1D"

# Reads cases, one JSON object a line, and answers the signature of each.
PROGRAM = """
import json, sys
from decimal import Decimal
from mmd.domain.reasons import Side
from mmd.exchanges.derive import amounts, keys, rfq, signing

def e18(text):
    return amounts.scaled(Decimal(text))

def asset(row):
    return signing.Asset(row["asset_address"], row["sub_id"])

def side(row):
    return Side.BID if row["direction"] == "buy" else Side.ASK

for line in sys.stdin:
    case = json.loads(line)
    key = keys.SessionKey(case["secret"])
    if case["kind"] == "login":
        print(signing.login_params(key, case["owner"], case["now_ms"]).signature)
        continue
    signer = signing.Signer(key, getattr(signing, case["network"]), case["owner"], case["subaccount_id"])
    if case["kind"] == "trade":
        price, amount, fee = e18(case["limit_price"]), e18(case["amount"]), e18(case["max_fee"])
        print(signer.order(asset(case), side(case), price, amount, fee, case["nonce"], case["expires"]).signature)
        continue
    legs = [rfq.Leg(l["instrument_name"], side(l), asset(l), e18(l["price"]), e18(l["amount"])) for l in case["legs"]]
    data = (rfq.quote_data if case["kind"] == "quote" else rfq.execute_data)(legs, side(case), e18(case["max_fee"]))
    print(signer.rfq(data, case["nonce"], case["expires"]).hex)
"""


def number(rng, whole):
    """A positive decimal with up to 12 decimals, as text; at most 28 digits, or their library rounds it."""
    places = rng.randint(0, 12)
    return f"{Decimal(rng.randint(1, 10 ** (whole + places))).scaleb(-places):f}"


def address(rng):
    return Account.from_key(rng.randbytes(32)).address


def leg(rng, name):
    return {
        "instrument_name": name,
        "direction": rng.choice(("buy", "sell")),
        "asset_address": address(rng),
        "sub_id": rng.getrandbits(rng.randint(0, 128)),
        "price": number(rng, 6),
        "amount": number(rng, 4),
    }


def case(rng):
    kind = rng.choice(("trade", "trade", "trade", "quote", "execute", "login"))
    found = {
        "kind": kind,
        "secret": rng.randbytes(32).hex(),
        "owner": address(rng),
        "network": rng.choice(tuple(SEPARATORS)),
        "subaccount_id": rng.getrandbits(rng.randint(1, 64)),
        "nonce": 1_795_305_600_000_000_000 + rng.getrandbits(50),
        "expires": 1_795_305_600 + rng.randint(300, 86_400),
        "direction": rng.choice(("buy", "sell")),
        "max_fee": number(rng, 3),
        "now_ms": 1_795_305_600_000 + rng.getrandbits(30),
    }
    if kind == "trade":
        found |= leg(rng, "ETH-PERP") | {"limit_price": number(rng, 6)}
    else:
        names = rng.sample(("BTC-PERP", "ETH-20261225-2800-P", "ETH-20261225-3600-C", "ETH-PERP"), rng.randint(1, 4))
        found["legs"] = [leg(rng, name) for name in names]
    return found


def module_data(row):
    if row["kind"] == "trade":
        return trade.TradeModuleData(
            asset_address=row["asset_address"],
            sub_id=row["sub_id"],
            limit_price=Decimal(row["limit_price"]),
            amount=Decimal(row["amount"]),
            max_fee=Decimal(row["max_fee"]),
            recipient_id=row["subaccount_id"],
            is_bid=row["direction"] == "buy",
        )
    kind = rfq.RFQQuoteModuleData if row["kind"] == "quote" else rfq.RFQExecuteModuleData
    legs = [
        rfq.RFQQuoteDetails(**(entry | {"price": Decimal(entry["price"]), "amount": Decimal(entry["amount"])}))
        for entry in sorted(row["legs"], key=lambda entry: entry["instrument_name"])
    ]
    return kind(global_direction=row["direction"], max_fee=Decimal(row["max_fee"]), legs=legs)


def official(row):
    """The official library's signature."""
    if row["kind"] == "login":
        return Account.sign_message(encode_defunct(text=str(row["now_ms"])), row["secret"]).signature.hex()
    action = signed_action.SignedAction(
        subaccount_id=row["subaccount_id"],
        owner=row["owner"],
        signer=Account.from_key(row["secret"]).address,
        signature_expiry_sec=row["expires"],
        nonce=row["nonce"],
        module_address=TRADE_MODULE if row["kind"] == "trade" else RFQ_MODULE,
        module_data=module_data(row),
        DOMAIN_SEPARATOR=SEPARATORS[row["network"]],
        ACTION_TYPEHASH=TYPEHASH,
    )
    return action.sign(row["secret"])


def test_the_official_library_signs_the_same():
    rng = random.Random(SEED)
    cases = [case(rng) for _ in range(CASES)]
    python = os.environ.get("MMD_PYTHON", sys.executable)
    lines = "".join(json.dumps(row) + "\n" for row in cases)
    done = subprocess.run([python, "-c", PROGRAM], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    ours = done.stdout.split()
    assert len(ours) == CASES
    for row, signature in zip(cases, ours, strict=True):
        assert signature.removeprefix("0x") == official(row).removeprefix("0x"), row
