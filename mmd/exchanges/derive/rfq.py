"""What an RFQ's quote and its execution are signed as: the legs of a package, sorted by name. Pure.

A leg's direction is that of whoever buys the package. So a maker who sells it signs every leg with the
sign turned, and a taker's direction is the opposite of the maker's: both sign the same legs.
"""

from collections.abc import Sequence

import msgspec

from mmd.domain.keccak import keccak256
from mmd.domain.reasons import Side
from mmd.exchanges.derive.signing import Asset, check_amount, int_word, uint_word


class Leg(msgspec.Struct, frozen=True):
    """One leg; price and amount in units of 1e-18, both positive."""

    instrument_name: str
    side: Side
    asset: Asset
    price: int
    amount: int


def sorted_legs(legs: Sequence[Leg]) -> list[Leg]:
    """As they must stand in the JSON and in what is signed. ValueError for none, and for the same one twice."""
    if not legs or len({leg.instrument_name for leg in legs}) < len(legs):
        raise ValueError("a package has at least one leg, and no instrument twice")
    return sorted(legs, key=lambda leg: leg.instrument_name)


def quote_data(legs: Sequence[Leg], side: Side, max_fee: int) -> bytes:
    """The maker's module data. `side`: whether the maker buys the package; `max_fee` in 1e-18 USD for all of it."""
    check_amount("max fee", max_fee, 0)
    return uint_word(32) + uint_word(max_fee) + uint_word(64) + _array(legs, maker_buys=side is Side.BID)


def execute_data(legs: Sequence[Leg], side: Side, max_fee: int) -> bytes:
    """The taker's. `side`: whether the taker buys the package."""
    check_amount("max fee", max_fee, 0)
    return keccak256(legs_data(legs, side)) + uint_word(max_fee)


def legs_data(legs: Sequence[Leg], side: Side) -> bytes:
    """The legs that a taker's hash is of: those of the maker on the other side."""
    return uint_word(32) + _array(legs, maker_buys=side is Side.ASK)


def _array(legs: Sequence[Leg], *, maker_buys: bool) -> bytes:
    """Their count, and four words each: asset, sub id, price, amount with the maker's sign."""
    ordered = sorted_legs(legs)
    words = [uint_word(len(ordered))]
    for leg in ordered:
        check_amount(f"price of {leg.instrument_name}", leg.price, 0)
        check_amount(f"amount of {leg.instrument_name}", leg.amount, 1)
        buys = (leg.side is Side.BID) is maker_buys
        words += [leg.asset.words, uint_word(leg.price), int_word(leg.amount if buys else -leg.amount)]
    return b"".join(words)
