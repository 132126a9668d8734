"""Ethereum addresses, and the one object that holds the private key.

A `SessionKey` signs and tells its address. It does not print, pickle, copy, log or format what it
holds, and neither does any error of its making: no frame that raises has the secret in a local. The
key itself is bytes inside coincurve's object, out of reach of repr, not of whoever owns the process.
"""

from typing import NoReturn

from coincurve import PrivateKey

from mmd.domain.errors import CredentialError
from mmd.exchanges.derive.keccak import keccak256

ADDRESS_BYTES = 20
SECRET_BYTES = 32
# The order of secp256k1's group: a private key is from 1 to one less.
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_V = (b"\x1b", b"\x1c", b"\x1d", b"\x1e")  # 27 and what follows, by recovery id


# --- addresses -----------------------------------------------------------------------------------


def checksum(address: bytes) -> str:
    """The address as text, its case a checksum. Source: EIP-55."""
    digits = address.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(d.upper() if mark >= "8" else d for d, mark in zip(digits, marks, strict=False))


def parse_address(text: str) -> bytes:
    """20 bytes. ValueError for what is none, and for mixed case that is not its checksum: a typing error."""
    digits = text[2:]
    address = _unhex(digits)
    if not text.startswith("0x") or address is None or len(address) != ADDRESS_BYTES:
        raise ValueError(f"{text!r} is no address: wanted 0x and 40 hexadecimal digits")
    if digits not in (digits.lower(), digits.upper()) and text != checksum(address):
        raise ValueError(f"{text!r} is no address: upper and lower case do not fit its digits (EIP-55)")
    return address


def _unhex(digits: str) -> bytes | None:
    """None for what is not hexadecimal, and for spaces in between, which bytes.fromhex allows."""
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        return None
    return found if len(found) * 2 == len(digits) else None


# --- the key -------------------------------------------------------------------------------------


class SessionKey:
    """Signs 32-byte hashes. `address`: 20 bytes, `name`: the same as checksummed text; both are public."""

    __slots__ = ("__key", "address", "name")

    def __init__(self, secret: str) -> None:
        """`secret`: 64 hexadecimal digits, with or without 0x. CredentialError, which does not quote it."""
        self.address, self.name = b"", "of nobody"  # a traceback may ask for the repr of one that is not made yet
        scalar = _scalar(secret)
        del secret  # or a traceback that shows locals would show it
        if scalar is None:
            raise CredentialError("a private key is 64 hexadecimal digits, with or without 0x, and not 0")
        self.__key = PrivateKey(scalar)
        self.address = keccak256(self.__key.public_key.format(compressed=False)[1:])[-ADDRESS_BYTES:]
        self.name = checksum(self.address)

    def sign(self, digest: bytes) -> bytes:
        """65 bytes r, s, v with low s and v 27 or 28; the nonce is RFC 6979's, so the same hash gives the same bytes.

        ValueError unless `digest` is 32 bytes.
        """
        signature: bytes = self.__key.sign_recoverable(digest, hasher=None)
        return signature[:64] + _V[signature[64]]

    # --- what it does not do ---

    def __repr__(self) -> str:
        return f"SessionKey({self.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SessionKey is neither pickled nor copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a SessionKey does not tell its state")

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a SessionKey is not subclassed")


def _scalar(secret: str) -> bytes | None:
    """The key's 32 bytes; None for anything else. Never raises: its frame knows the secret."""
    digits = secret.strip().removeprefix("0x")
    found = _unhex(digits)
    if found is None or len(found) != SECRET_BYTES or not 0 < int.from_bytes(found) < _ORDER:
        return None
    return found
