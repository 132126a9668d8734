"""Ethereum's addresses and private keys as text: what is one, and what is a typing error."""

from mmd.domain.keccak import keccak256

ADDRESS_BYTES = 20
SECRET_BYTES = 32
ADDRESS_WANTED = "0x and 40 hexadecimal digits"
SECRET_WANTED = "64 hexadecimal digits, with or without 0x, and not 0"
# The order of secp256k1's group: a private key is from 1 to one less.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def checksum(address: bytes) -> str:
    """The address as text, its case a checksum. Source: EIP-55."""
    digits = address.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(d.upper() if mark >= "8" else d for d, mark in zip(digits, marks, strict=False))


def parse_address(text: str) -> bytes:
    """20 bytes. ValueError for what is none, and for mixed case that is not its checksum: a typing error.

    Only what has the form of an address is quoted: anything else may be a key in the wrong place.
    """
    digits = text[2:]
    address = _unhex(digits)
    if not text.startswith("0x") or address is None or len(address) != ADDRESS_BYTES:
        raise ValueError(f"a text of {len(text)} characters is no address: wanted {ADDRESS_WANTED}")
    if digits not in (digits.lower(), digits.upper()) and text != checksum(address):
        raise ValueError(f"{text!r} is no address: upper and lower case do not fit its digits (EIP-55)")
    return address


def parse_secret(text: str) -> bytes | None:
    """A private key's 32 bytes; None for anything else. Never raises: its frame knows the secret."""
    found = _unhex(text.strip().removeprefix("0x"))
    if found is None or len(found) != SECRET_BYTES or not 0 < int.from_bytes(found) < ORDER:
        return None
    return found


def _unhex(digits: str) -> bytes | None:
    """None for what is not hexadecimal, and for spaces in between, which bytes.fromhex allows."""
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        return None
    return found if len(found) * 2 == len(digits) else None
