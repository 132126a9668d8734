"""Whether anything happened to a symbol between a question and its answer. Pure."""

from collections.abc import Iterable


class News:
    """A number for each symbol, another one after each piece of news; a number that was seen never comes back."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._drawn = 0
        self._of_others = 0

    def __getitem__(self, symbol: str) -> int:
        return self._numbers.get(symbol, self._of_others)

    def count(self, symbol: str) -> None:
        """Something happened to it."""
        self._drawn += 1
        self._numbers[symbol] = self._drawn

    def keep(self, symbols: Iterable[str]) -> None:
        """Forget all but these. To whoever asked before about another one, it looks as if something had happened."""
        gone = self._numbers.keys() - set(symbols)
        if gone:
            self._drawn += 1
            self._of_others = self._drawn
            for symbol in gone:
                del self._numbers[symbol]
