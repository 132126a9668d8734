"""What Derive wants signed: the login, and the action that carries an order. Pure but for the key.

An action is hashed as EIP-712 hashes its struct, by hand: words of 32 bytes, big-endian. All that does
not change between two orders (domain, typehash, subaccount, owner, signer, asset) is packed once. The
type of `data` is `bytes`, so its hash stands in the struct; modules say what is in it, `trade` here, RFQs
in `rfq`. Flags, label and time in force are not signed. Source: docs.derive.xyz, Action signing; checked
against the official library (tests/exchanges/test_derive_signing.py).
"""

import msgspec

from mmd.domain.addresses import checksum, parse_address
from mmd.domain.keccak import keccak256
from mmd.domain.reasons import Side
from mmd.exchanges.derive.amounts import INT128_MAX, STEP, plain
from mmd.exchanges.derive.keys import SessionKey
from mmd.exchanges.derive.messages import LoginParams

MATCHING = "0xeB8d770ec18DB98Db922E9D83260A585b9F0DeAD"
TRADE_MODULE = "0xB8D20c2B7a1Ad2EE33Bc50eF10876eD3035b5e7b"
RFQ_MODULE = "0x9371352CCef6f5b36EfDFE90942fFE622Ab77F1D"
UINT64_MAX = 2**64 - 1
UINT128_MAX = 2**128 - 1

DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
ACTION_TYPE = (
    b"Action(uint256 subaccountId,uint256 nonce,address module,bytes data,uint256 expiry,address owner,address signer)"
)
ACTION_TYPEHASH = keccak256(ACTION_TYPE)

DIRECTIONS = {Side.BID: "buy", Side.ASK: "sell"}


def uint_word(value: int) -> bytes:
    """An unsigned word; OverflowError for what it does not hold."""
    return value.to_bytes(32)


def int_word(value: int) -> bytes:
    """A word in two's complement."""
    return value.to_bytes(32, signed=True)


def address_word(text: str) -> bytes:
    """An address in a word. ValueError for what is none."""
    return parse_address(text).rjust(32, b"\0")


# --- login ---------------------------------------------------------------------------------------


def personal_hash(message: bytes) -> bytes:
    """What is signed for a text, so that it can never be an action or a transaction. Source: EIP-191."""
    return keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(message), message))


def login_params(key: SessionKey, wallet: str, now_ms: int) -> LoginParams:
    """For public/login. A signature of a session key does not grow old there: it is as good as a password."""
    signature = key.sign(personal_hash(b"%d" % now_ms))
    return LoginParams(wallet=checksum(parse_address(wallet)), timestamp=now_ms, signature="0x" + signature.hex())


def login_headers(params: LoginParams) -> dict[str, str]:
    """The same over HTTP, with every private request."""
    return {
        "X-DeriveWallet": params.wallet,
        "X-DeriveTimestamp": str(params.timestamp),
        "X-DeriveSignature": params.signature,
    }


# --- domains -------------------------------------------------------------------------------------


class Domain(msgspec.Struct, frozen=True):
    """Where an action counts: chain, contract that matches, its modules. Each network has another separator."""

    chain_id: int
    contract: str = MATCHING
    name: str = "Matching"
    version: str = "1.0"
    trade_module: str = TRADE_MODULE
    rfq_module: str = RFQ_MODULE

    @property
    def separator(self) -> bytes:
        """32 bytes. Source: EIP-712."""
        parts = (keccak256(DOMAIN_TYPE), keccak256(self.name.encode()), keccak256(self.version.encode()))
        return keccak256(b"".join(parts) + uint_word(self.chain_id) + address_word(self.contract))


MAINNET = Domain(1)
TESTNET = Domain(11155111)


# --- actions -------------------------------------------------------------------------------------


class Asset:
    """What is traded, as the instrument's record names it; its two words are packed once."""

    __slots__ = ("address", "sub_id", "words")

    def __init__(self, address: str, sub_id: int) -> None:
        """ValueError for what is no address, or no uint128."""
        if not 0 <= sub_id <= UINT128_MAX:
            raise ValueError(f"sub id {sub_id} does not fit 128 bits")
        self.address = checksum(parse_address(address))
        self.sub_id = sub_id
        self.words = address_word(address) + uint_word(sub_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asset) and other.words == self.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Asset({self.address!r}, {self.sub_id})"


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A signed action with every step, to compare one by one with what private/order_debug answers."""

    nonce: int
    expires_sec: int
    data: bytes
    data_hash: bytes
    action_hash: bytes
    typed_hash: bytes
    signature: bytes

    @property
    def hex(self) -> str:
        """The signature for the JSON."""
        return "0x" + self.signature.hex()


class SignedOrder(msgspec.Struct, frozen=True, gc=False):
    """The fields of private/order and private/replace that are signed, as they stand in the JSON."""

    subaccount_id: int
    direction: str
    limit_price: str
    amount: str
    max_fee: str
    nonce: str
    signature_expiry_sec: int
    signer: str
    signature: str


class Signer:
    """Signs actions of one subaccount on one network; one for each life of a session."""

    __slots__ = ("_ask", "_bid", "_head", "_key", "_prefix", "_rfq", "_tail", "_trade", "owner", "subaccount_id")

    def __init__(self, key: SessionKey, domain: Domain, owner: str, subaccount_id: int) -> None:
        """`owner`: the wallet's address; its own key may sign as well. ValueError for what does not fit."""
        check("subaccount", subaccount_id, 0, UINT64_MAX)
        self._key = key
        self.owner = checksum(parse_address(owner))
        self.subaccount_id = subaccount_id
        self._prefix = b"\x19\x01" + domain.separator
        self._head = ACTION_TYPEHASH + uint_word(subaccount_id)
        self._tail = address_word(owner) + key.address.rjust(32, b"\0")
        self._trade = address_word(domain.trade_module)
        self._rfq = address_word(domain.rfq_module)
        recipient = uint_word(subaccount_id)  # what is bought goes to the subaccount that buys
        self._bid, self._ask = recipient + uint_word(1), recipient + uint_word(0)

    @property
    def name(self) -> str:
        """The signer's address."""
        return self._key.name

    def trade(
        self, asset: Asset, side: Side, price: int, amount: int, max_fee: int, nonce: int, expires_sec: int
    ) -> Signed:
        """An order. Price, amount and fee per unit in units of 1e-18 (`amounts`). ValueError for what does not fit."""
        data = trade_data(asset, price, amount, max_fee, self._bid if side is Side.BID else self._ask)
        return self._sign(self._trade, data, nonce, expires_sec)

    def order(
        self, asset: Asset, side: Side, price: int, amount: int, max_fee: int, nonce: int, expires_sec: int
    ) -> SignedOrder:
        """The same as it stands in a request: the texts are made of the integers that were signed."""
        signed = self.trade(asset, side, price, amount, max_fee, nonce, expires_sec)
        return SignedOrder(
            subaccount_id=self.subaccount_id,
            direction=DIRECTIONS[side],
            limit_price=plain(price),
            amount=plain(amount),
            max_fee=plain(max_fee),
            nonce=str(nonce),
            signature_expiry_sec=expires_sec,
            signer=self._key.name,
            signature=signed.hex,
        )

    def rfq(self, data: bytes, nonce: int, expires_sec: int) -> Signed:
        """A quote for an RFQ, or the execution of one; `data` by `rfq.quote_data` or `rfq.execute_data`."""
        return self._sign(self._rfq, data, nonce, expires_sec)

    def _sign(self, module: bytes, data: bytes, nonce: int, expires_sec: int) -> Signed:
        check("nonce", nonce, 1, UINT64_MAX)
        check("expiry", expires_sec, 1, UINT64_MAX)
        data_hash = keccak256(data)
        words = (self._head, nonce.to_bytes(32), module, data_hash, expires_sec.to_bytes(32), self._tail)
        action_hash = keccak256(b"".join(words))
        typed_hash = keccak256(self._prefix + action_hash)
        return Signed(nonce, expires_sec, data, data_hash, action_hash, typed_hash, self._key.sign(typed_hash))


def trade_data(asset: Asset, price: int, amount: int, max_fee: int, ending: bytes) -> bytes:
    """Seven words: asset, sub id, limit price, amount, fee, and `ending`: recipient and whether it buys."""
    check_amount("limit price", price, 0)
    check_amount("amount", amount, 1)
    check_amount("max fee", max_fee, 0)
    return asset.words + price.to_bytes(32) + amount.to_bytes(32) + max_fee.to_bytes(32) + ending


def check(name: str, value: int, least: int, most: int) -> None:
    """ValueError outside the bounds."""
    if not least <= value <= most:
        raise ValueError(f"{name} {value} is not from {least} to {most}")


def check_amount(name: str, value: int, least: int) -> None:
    """ValueError for what int128 does not hold, and for more than 12 decimals."""
    if not least <= value <= INT128_MAX:
        raise ValueError(f"{name} {plain(value)} cannot be signed: it is negative, zero or too large")
    if value % STEP:
        raise ValueError(f"{name} {plain(value)} has more than 12 decimals, which cannot be signed")
