"""Plain values that may be anything, read without believing them: for checks that run beside the schema's."""

from datetime import date
from decimal import Decimal
from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def number(value: Any) -> Decimal | None:
    """A decimal key's value, quoted or not; None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    try:
        found = Decimal(value)
    except ArithmeticError:
        return None
    return found if found.is_finite() else None


def parse_date(value: Any) -> date | None:
    """2026-12-25 or 20261225, quoted or not; None where that is no day."""
    text = str(value).replace("-", "")
    if isinstance(value, bool) or not isinstance(value, int | str) or len(text) != 8 or not text.isascii():
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
