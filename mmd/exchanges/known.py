"""From when on the fills and the cash of each symbol count, and up to when all of its fills were told.

A symbol that starts anew begins with its first position report: what was traded before is in that report
(the baseline) and is no fill. A recovered symbol began in an earlier process: whatever was traded since
is a fill, and what nobody has told yet is asked for. Times are the exchange's.
"""

from collections.abc import Iterable, Mapping

import msgspec

OVERLAP_MS = 60_000  # fills are asked again from this long before the last one could be missing
BASELINE_REACH_US = 7 * 86_400_000_000  # trades older than that before the baseline are not compared with it
# A row of the transaction log is read at the latest so long after its time: its own delay, and the pause between looks.
CASH_REACH_MS = 660_000


class Life(msgspec.Struct):
    """One symbol's, from when it came to be watched until it is not.

    `from_us`: what was traded before is no fill; 0 = whatever is listed is one. `inherited_ms`: up to when
    an earlier process knew all fills; 0 = there was none.
    """

    from_us: int
    known_ms: int
    inherited_ms: int = 0


class Known:
    """One per exchange; survives connections."""

    def __init__(self) -> None:
        self._lives: dict[str, Life] = {}
        self._named: dict[str, Life] = {}  # recovered symbols that are not watched yet

    def recover(self, known_ms: Mapping[str, int], from_ms: Mapping[str, int]) -> None:
        """Up to when all fills of these symbols are known; `from_ms`: when their count began, as far as told.

        ValueError for a time that is not positive.
        """
        for symbol, until_ms in known_ms.items():
            if until_ms <= 0:
                raise ValueError(f"{symbol}: fills known until {until_ms} ms, allowed: above 0")
            self._named[symbol] = Life(from_ms.get(symbol, 0) * 1000, until_ms, until_ms)

    def align(self, watched: Iterable[str]) -> None:
        """These are watched now. One that left starts anew if it comes back, unless it was named again."""
        now = set(watched)
        for symbol in self._lives.keys() - now:
            del self._lives[symbol]
        for symbol in self._named.keys() & now:
            self._lives[symbol] = self._named.pop(symbol)

    def begin(self, symbol: str, at_us: int) -> None:
        """Its position was reported as it was then; for a symbol that has begun already that is no news."""
        if symbol not in self._lives:
            self._lives[symbol] = Life(at_us, at_us // 1000)

    def is_recovered(self, symbol: str) -> bool:
        life = self._lives.get(symbol)
        return life is not None and life.inherited_ms > 0

    def inherited_ms(self, symbol: str) -> int:
        """Up to when an earlier process knew its fills; 0 for a symbol that started anew."""
        life = self._lives.get(symbol)
        return 0 if life is None else life.inherited_ms

    # --- fills ---

    def is_in_baseline(self, symbol: str, at_ms: int) -> bool:
        """Whether the position that the symbol began with has a trade of that time in it."""
        life = self._lives.get(symbol)
        if life is None or not life.from_us:
            return False
        return life.from_us - BASELINE_REACH_US < at_ms * 1000 < life.from_us // 1000 * 1000

    def missing_since_ms(self, symbol: str, now_ms: int) -> int | None:
        """From when trades may have been missed; None before the first position report: none can have been."""
        life = self._lives.get(symbol)
        if life is None:
            return None
        # A clock may have been set since: what is known is never known of the future.
        return max(life.from_us // 1000, min(life.known_ms, now_ms) - OVERLAP_MS)

    def told(self, symbol: str, until_ms: int) -> None:
        """All trades up to then were asked for and posted."""
        life = self._lives.get(symbol)
        if life is not None:
            life.known_ms = until_ms

    def stale(self, symbols: Iterable[str], before_ms: int) -> list[str]:
        """Those of the symbols whose fills were not asked for since, the longest first."""
        found = [symbol for symbol in symbols if symbol in self._lives and self._lives[symbol].known_ms < before_ms]
        return sorted(found, key=lambda symbol: self._lives[symbol].known_ms)

    # --- cash ---

    def cash_from_ms(self, symbol: str) -> int | None:
        """From when rows of the transaction log are of this position; None before its first report."""
        life = self._lives.get(symbol)
        if life is None:
            return None
        return max(life.from_us // 1000, life.inherited_ms - CASH_REACH_MS)
