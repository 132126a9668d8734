"""Who signed: logins and actions, verified as the exchange would, with Ethereum's own libraries.

Written from the description alone, and apart from what the daemon signs with, so that a mistake there
does not pass here. An action is EIP-712 typed data; its `data` is the ABI encoding of a trade.
Source: docs.derive.xyz, Action signing; EIP-191; EIP-712.
"""

from decimal import Decimal

import msgspec
from eth_abi.abi import encode
from eth_abi.exceptions import EncodingError
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

MATCHING = "0xeB8d770ec18DB98Db922E9D83260A585b9F0DeAD"
TRADE_MODULE = "0xB8D20c2B7a1Ad2EE33Bc50eF10876eD3035b5e7b"
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
ACTION_TYPE = (
    "Action(uint256 subaccountId,uint256 nonce,address module,bytes data,uint256 expiry,address owner,address signer)"
)
DECIMALS = 12  # that a signed number may have; the words have 18
SCALE = 10**12
UNITS = 10**6  # what is left of 18 decimals
LARGEST = 1 << 127
SIGNATURE_BYTES = 65


class Unsigned(Exception):
    """What cannot be encoded, so that nobody can have signed it."""


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """What an order signs, besides the envelope."""

    asset: str
    sub_id: int
    limit_price: Decimal
    amount: Decimal
    max_fee: Decimal
    is_bid: bool


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """`expiry` in seconds."""

    subaccount: int
    nonce: int
    expiry: int
    owner: str
    signer: str


class ActionHashes(msgspec.Struct, frozen=True):
    """Every step of an action's hash, as private/order_debug shows them."""

    data: bytes
    data_hash: bytes
    action_hash: bytes
    typed_data_hash: bytes


def address(text: str) -> str:
    """With its checksum; ValueError for what is no address."""
    if not is_address(text):
        raise ValueError(f"{text[:50]!r} is no address")
    return str(to_checksum_address(text))


def domain_separator(chain_id: int) -> bytes:
    words = [
        keccak(text=DOMAIN_TYPE), keccak(text="Matching"), keccak(text="1.0"), chain_id, MATCHING,
    ]  # fmt: skip
    return keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], words))


def word(value: Decimal) -> int:
    """A decimal in units of 1e-18. Unsigned for more than 12 decimals, or 127 bits."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(value.adjusted()) > 60:
        raise Unsigned(f"{value} is no number that can be signed")
    numerator, denominator = value.as_integer_ratio()
    count, rest = divmod(numerator * SCALE, denominator)
    if rest:
        raise Unsigned(f"{value} has more than {DECIMALS} decimals")
    if abs(count) * UNITS >= LARGEST:
        raise Unsigned(f"{value} is too large")
    return count * UNITS


def hash_trade(separator: bytes, envelope: Envelope, trade: Trade) -> ActionHashes:
    """Raises Unsigned for numbers that no word holds."""
    values = (
        trade.asset, trade.sub_id, word(trade.limit_price), word(trade.amount), word(trade.max_fee),
        envelope.subaccount, trade.is_bid,
    )  # fmt: skip
    types = ["address", "uint256", "int256", "int256", "uint256", "uint256", "bool"]
    fields = ["bytes32", "uint256", "uint256", "address", "bytes32", "uint256", "address", "address"]
    try:
        data = encode(types, values)
        data_hash = keccak(data)
        struct = (
            keccak(text=ACTION_TYPE), envelope.subaccount, envelope.nonce, TRADE_MODULE, data_hash, envelope.expiry,
            envelope.owner, envelope.signer,
        )  # fmt: skip
        action_hash = keccak(encode(fields, struct))
    except EncodingError as error:
        raise Unsigned(str(error)) from None
    return ActionHashes(data, data_hash, action_hash, keccak(b"\x19\x01" + separator + action_hash))


def login_hash(timestamp: str) -> bytes:
    """What a login signs: the digits of its time in ms, as EIP-191's personal message."""
    text = timestamp.encode()
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(text)).encode() + text)


def recover(digest: bytes, signature: str) -> str | None:
    """The address whose key made this signature (hex, with or without 0x); None for what is no signature."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        if len(raw) != SIGNATURE_BYTES or raw[64] not in (27, 28):
            return None
        found = Signature(raw[:64] + bytes((raw[64] - 27,)))
        return str(found.recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (ValueError, BadSignature, ValidationError):
        return None
