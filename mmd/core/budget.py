"""A token bucket for messages to one exchange, with a share that only cancels may use.

Pure: the time is passed in. Cancels always pass and may leave the bucket empty; new risk needs
one token above the reserve. Source: Deribit's credit system, docs of 2026 (rate, burst).

Where tokens are short, who has asked in vain comes first (`Turns`): else a symbol that moves its quotes at
every tick takes each token as it comes, and the others never quote again.
"""

PATIENCE_NS = 1_000_000_000  # who has not asked again for so long wants it no more; machines ask five times as often


class Budget:
    """`rate_per_second` tokens flow in, at most `burst` are kept, `reserve` of them are for cancels."""

    __slots__ = ("_at_ns", "_tokens", "burst", "rate_per_second", "reserve")

    def __init__(self, rate_per_second: float, burst: float, reserve: float) -> None:
        self.reserve = reserve
        self.burst = self._tokens = burst
        self._at_ns = 0
        self.set_limits(rate_per_second, burst, reserve)

    def set_limits(self, rate_per_second: float, burst: float, reserve: float | None = None) -> None:
        """New limits from now on; the bucket stays as full, in proportion, as it was.

        ValueError unless 0 <= reserve < burst and the rate is positive.
        """
        kept = self.reserve if reserve is None else reserve
        if not (rate_per_second > 0 and 0 <= kept < burst):
            raise ValueError(f"no budget of {rate_per_second}/s, burst {burst}, reserve {kept}")
        self.rate_per_second = rate_per_second
        self._tokens *= burst / self.burst
        self.burst = burst
        self.reserve = kept

    def left(self, now_ns: int) -> float:
        """Tokens there now."""
        if now_ns > self._at_ns:
            refill = (now_ns - self._at_ns) * 1e-9 * self.rate_per_second
            self._tokens = min(self.burst, self._tokens + refill) if self._at_ns else self._tokens
            self._at_ns = now_ns
        return self._tokens

    def allows(self, now_ns: int, ahead: int = 0) -> bool:
        """Whether one more place or amend leaves alone the cancels' reserve, and a token for each who is `ahead`."""
        return self.left(now_ns) - 1.0 - ahead >= self.reserve

    def spend(self, now_ns: int) -> None:
        """Charge one message that leaves."""
        left = self.left(now_ns) - 1.0
        self._tokens = left if left > 0.0 else 0.0

    def empty_until(self, now_ns: int) -> None:
        """The exchange says that the credits are used up: start again from nothing."""
        self.left(now_ns)
        self._tokens = 0.0

    def wait_ns(self, now_ns: int) -> int:
        """How long until `allows` can be true."""
        short = self.reserve + 1.0 - self.left(now_ns)
        return 0 if short <= 0 else int(short / self.rate_per_second * 1e9) + 1


class Turns:
    """Who asked for a token in vain, in the order of asking. A turn ends with one token, or one second of silence."""

    __slots__ = ("_asked_ns",)

    def __init__(self) -> None:
        self._asked_ns: dict[str, int] = {}  # when each asked last, by who has waited longest

    def refused(self, key: str, now_ns: int) -> None:
        """It waits; where it waited before, it keeps its place."""
        self._asked_ns[key] = now_ns

    def served(self, key: str) -> None:
        """It has had its turn."""
        self._asked_ns.pop(key, None)

    def ahead(self, key: str, now_ns: int) -> int:
        """How many have waited longer than this one, and still do."""
        if not self._asked_ns:
            return 0
        gone = [each for each, asked_ns in self._asked_ns.items() if now_ns - asked_ns > PATIENCE_NS]
        for each in gone:
            del self._asked_ns[each]
        return next((place for place, each in enumerate(self._asked_ns) if each == key), len(self._asked_ns))
