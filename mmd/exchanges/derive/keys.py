"""The one object that holds the private key.

A `SessionKey` signs and tells its address. It does not print, pickle, copy, log or format what it
holds, and neither does any error of its making: no frame that raises has the secret in a local. The
key itself is bytes inside coincurve's object, out of reach of repr, not of whoever owns the process.
"""

from typing import NoReturn

import msgspec
from coincurve import PrivateKey

from mmd.domain.addresses import ADDRESS_BYTES, SECRET_WANTED, checksum, parse_secret
from mmd.domain.errors import CredentialError
from mmd.domain.keccak import keccak256

_V = (b"\x1b", b"\x1c", b"\x1d", b"\x1e")  # 27 and what follows, by recovery id


class SessionKey:
    """Signs 32-byte hashes. `address`: 20 bytes, `name`: the same as checksummed text; both are public."""

    __slots__ = ("__key", "address", "name")

    def __init__(self, secret: str) -> None:
        """`secret`: 64 hexadecimal digits, with or without 0x. CredentialError, which does not quote it."""
        self.address, self.name = b"", "of nobody"  # a traceback may ask for the repr of one that is not made yet
        scalar = parse_secret(secret)
        del secret  # or a traceback that shows locals would show it
        if scalar is None:
            raise CredentialError(f"a private key is {SECRET_WANTED}")
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


class Identity(msgspec.Struct, frozen=True):
    """Who we are at the exchange. `wallet`: the owner's address, whose session key `key` is."""

    key: SessionKey
    wallet: str
    subaccount: int
