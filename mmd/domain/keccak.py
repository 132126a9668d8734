"""Keccak-256 as Ethereum uses it: not SHA3-256 of hashlib, which pads otherwise.

Which library, and why: docs/adr/0019-derive-signing.md.
"""

from sha3 import keccak_256  # type: ignore[import-untyped]  # a C extension without stubs

EMPTY = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def keccak256(message: bytes) -> bytes:
    """32 bytes."""
    digest: bytes = keccak_256(message).digest()
    return digest


# Other packages are also imported as `sha3`, and some hash as NIST does: nothing may be signed with those.
assert keccak256(b"").hex() == EMPTY, "the module sha3 that is installed is not Ethereum's Keccak"
