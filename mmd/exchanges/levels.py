"""Prices and amounts of a book as the exchange writes them, to whole units. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Generic, TypeVar

from mmd.domain.units import whole

KNOWN_TEXTS = 512
T = TypeVar("T")


class Numbers(Generic[T]):
    """The same few texts come again and again: each is read once."""

    __slots__ = ("_parse", "_unit", "known")

    def __init__(self, unit: Decimal, parse: Callable[[T], Decimal]) -> None:
        self._unit = unit
        self._parse = parse
        self.known: dict[T, int] = {}

    def read(self, text: T) -> int:
        """One that is not known yet. Raises as `parse` does, and OffGrid for no whole number of units."""
        count = whole(self._parse(text), self._unit)
        if len(self.known) >= KNOWN_TEXTS:
            self.known.clear()
        self.known[text] = count
        return count
