"""What signing one Derive order costs: from integers to the fields of the JSON, and its parts.

python -m bench.signing [--orders N]

p50 and p99 of single calls, in µs; the clock's own cost is taken off. Beside ours: eth-account's typed data
and its Keccak; it takes the curve from coincurve too, where that is installed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from decimal import Decimal

import msgspec
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak as eth_keccak

from mmd.domain.keccak import keccak256
from mmd.domain.reasons import Side
from mmd.exchanges.derive import amounts, lifetimes, signing
from mmd.exchanges.derive.keys import SessionKey
from mmd.exchanges.derive.signing import Asset, SignedOrder, Signer

# A development key of local Ethereum nodes, known to everybody.
SECRET = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
ASSET = "0x4BB4C3CDc7562f08e9910A0C7D8bB7e108861eB4"
SUB_ID = 39614082803320395358570160768
NOW_NS = 1_795_305_600_000_000_000
EXPIRES = 1_795_306_200
TICK, LOT, FEE = amounts.scaled(Decimal("0.1")), amounts.scaled(Decimal("0.01")), amounts.scaled(Decimal("7.4"))
ORDERS = 5_000
WARM_UP = 200

ACTION_FIELDS = [
    {"name": "subaccountId", "type": "uint256"},
    {"name": "nonce", "type": "uint256"},
    {"name": "module", "type": "address"},
    {"name": "data", "type": "bytes"},
    {"name": "expiry", "type": "uint256"},
    {"name": "owner", "type": "address"},
    {"name": "signer", "type": "address"},
]


class Spread(msgspec.Struct):
    """µs of one call."""

    p50: float
    p99: float


def spread(step: Callable[[int], object], calls: int) -> Spread:
    """Each call timed alone."""
    clock = time.perf_counter_ns
    for number in range(min(calls, WARM_UP)):
        step(number)
    idle = statistics.median(-clock() + clock() for _ in range(1000))
    taken = []
    for number in range(calls):
        started = clock()
        step(number)
        taken.append(clock() - started - idle)
    taken.sort()
    return Spread(taken[len(taken) // 2] / 1000, taken[len(taken) * 99 // 100] / 1000)


class Stage:
    """One subaccount, one option, a quote that moves by ticks."""

    def __init__(self) -> None:
        self.key = SessionKey(SECRET)
        self.signer = Signer(self.key, signing.MAINNET, OWNER, 30769)
        self.asset = Asset(ASSET, SUB_ID)
        self.nonces = lifetimes.Nonces()
        self.signed = self.signer.trade(self.asset, Side.BID, TICK * 1453, LOT * 1000, FEE, NOW_NS, EXPIRES)

    def order(self, number: int) -> SignedOrder:
        """Ticks and lots to what goes into the JSON."""
        nonce = self.nonces.take(NOW_NS + number)
        return self.signer.order(self.asset, Side.BID, TICK * (1400 + number % 100), LOT * 1000, FEE, nonce, EXPIRES)

    def request(self, number: int) -> bytes:
        """The same as bytes."""
        return msgspec.json.encode(self.order(number))

    def words(self, number: int) -> bytes:
        return signing.trade_data(self.asset, TICK * (1400 + number % 100), LOT * 1000, FEE, b"\0" * 64)

    def three_hashes(self, number: int) -> bytes:
        keccak256(self.signed.data)
        keccak256(b"\0" * 256)
        return keccak256(b"\0" * 66)

    def eth_account(self, number: int) -> object:
        """The same order by eth-account's typed data."""
        price = TICK * (1400 + number % 100)
        data = abi_encode(
            ["address", "uint256", "int256", "int256", "uint256", "uint256", "bool"],
            [ASSET, SUB_ID, price, LOT * 1000, FEE, 30769, True],
        )
        message = {
            "subaccountId": 30769,
            "nonce": NOW_NS + number,
            "module": signing.TRADE_MODULE,
            "data": data,
            "expiry": EXPIRES,
            "owner": OWNER,
            "signer": self.key.name,
        }
        head = {"name": "Matching", "version": "1.0", "chainId": 1, "verifyingContract": signing.MATCHING}
        return Account.sign_message(encode_typed_data(head, {"Action": ACTION_FIELDS}, message), SECRET)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.signing", description=__doc__)
    parser.add_argument("--orders", metavar="N", type=int, default=ORDERS, help="how many of each are timed")
    calls = parser.parse_args().orders
    stage = Stage()
    digest, data = stage.signed.typed_hash, stage.signed.data
    steps: tuple[tuple[str, Callable[[int], object], int], ...] = (
        ("one order, ticks to the JSON's fields", stage.order, calls),
        ("the same, as JSON", stage.request, calls),
        ("  seven words", stage.words, calls),
        ("  three Keccaks", stage.three_hashes, calls),
        ("  one Keccak of 224 bytes", lambda _: keccak256(data), calls),
        ("  ECDSA, recoverable", lambda _: stage.key.sign(digest), calls),
        (
            "  three decimals as text",
            lambda _: [amounts.plain(TICK * 1453), amounts.plain(LOT), amounts.plain(FEE)],
            calls,
        ),
        ("eth-account, typed data, the same order", stage.eth_account, max(1, calls // 10)),
        ("eth-hash, one Keccak of 224 bytes", lambda _: eth_keccak(data), calls),
    )
    print(f"{'':42} {'p50':>8} {'p99':>8} us")
    for name, step, count in steps:
        found = spread(step, count)
        print(f"{name:42} {found.p50:8.2f} {found.p99:8.2f}")


if __name__ == "__main__":
    main()
