"""What happened, in lines that people can follow; the end of it goes with every failure."""

from collections import deque

KEPT = 20_000
SHOWN = 40


class Violation(AssertionError):
    """A promise was broken. `about`: the symbol that it is about, or empty."""

    def __init__(self, promise: str, detail: str, about: str = "") -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.about = about


class Story:
    """Lines with the simulated time, oldest first."""

    def __init__(self) -> None:
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=KEPT)
        self.counts: dict[str, int] = {}

    def tell(self, at: float, text: str, symbol: str = "") -> None:
        self.lines.append((at, symbol, text))

    def count(self, what: str, by: int = 1) -> None:
        """For the totals, so that one sees that the weather is real."""
        self.counts[what] = self.counts.get(what, 0) + by

    def ending(self, about: str = "", shown: int = SHOWN) -> list[str]:
        """The last lines that may have to do with a symbol (empty: with anything)."""
        relevant = [line for line in self.lines if not about or line[1] in ("", about)]
        return [f"{at:9.3f}  {f'{symbol}: ' if symbol else ''}{text}" for at, symbol, text in relevant[-shown:]]
