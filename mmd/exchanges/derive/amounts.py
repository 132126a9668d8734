"""Prices, amounts and fees as Derive signs them: whole numbers of 1e-18, and their text from the same numbers.

The exchange rebuilds what was signed from the decimals in the JSON. So both come from one integer, never
through a rounding Decimal context, and never with an exponent. It refuses more than 12 decimals.
"""

from decimal import Decimal

ONE = 10**18
STEP = 10**6  # what 12 decimals are whole numbers of
SIGNED_PLACES = 12
INT128_MAX = 2**127 - 1
# Beyond int128, and so that an absurd exponent is refused before anything is multiplied by it.
_ADJUSTED_MAX = 38


def scaled(value: Decimal) -> int:
    """`value` in units of 1e-18, exact. ValueError for more than 12 decimals, and for what int128 does not hold."""
    if not value.is_finite():
        raise ValueError(f"{value} is no finite number")
    if not value:
        return 0
    if value.adjusted() > _ADJUSTED_MAX:
        raise ValueError(f"{value} is too large to be signed")
    if value.adjusted() < -SIGNED_PLACES:
        raise ValueError(f"{value} has more than {SIGNED_PLACES} decimals, which cannot be signed")
    numerator, denominator = value.as_integer_ratio()
    count, rest = divmod(numerator * (ONE // STEP), denominator)
    if rest:
        raise ValueError(f"{value} has more than {SIGNED_PLACES} decimals, which cannot be signed")
    count *= STEP
    if not -INT128_MAX - 1 <= count <= INT128_MAX:
        raise ValueError(f"{value} is too large to be signed")
    return count


def plain(count: int) -> str:
    """Units of 1e-18 as a decimal: no exponent, no trailing zeros."""
    sign = "-" if count < 0 else ""
    whole, rest = divmod(abs(count), ONE)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:018d}".rstrip("0")
