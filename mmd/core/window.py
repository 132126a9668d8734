"""What happened within the last while: counts with an amount, and how far a price has moved."""

from collections import deque


class Window:
    """Events of the last `length_ns`, each with an amount. Pure: times are passed in and do not run backwards."""

    __slots__ = ("_events", "amount", "length_ns")

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.amount = 0
        self._events: deque[tuple[int, int]] = deque()

    def add(self, now_ns: int, amount: int = 1) -> None:
        self._events.append((now_ns, amount))
        self.amount += amount
        self._forget(now_ns)

    def count(self, now_ns: int) -> int:
        self._forget(now_ns)
        return len(self._events)

    def clear(self) -> None:
        self._events.clear()
        self.amount = 0

    def _forget(self, now_ns: int) -> None:
        events = self._events
        while events and now_ns - events[0][0] > self.length_ns:
            self.amount -= events.popleft()[1]


# A window of prices is kept in this many parts: it forgets in steps of one part.
PARTS = 8


class PriceRange:
    """Lowest and highest price of the last `length_ns`, to one part in eight; (0.0, 0.0) before the first."""

    __slots__ = ("_parts", "high", "length_ns", "low")

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.low = self.high = 0.0
        self._parts: deque[tuple[int, float, float]] = deque()  # (number of the part, low, high)

    def add(self, price: float, now_ns: int) -> None:
        """Take one price, which must be positive."""
        number = now_ns // (self.length_ns // PARTS or 1)
        parts = self._parts
        if parts and parts[-1][0] == number:
            _, low, high = parts[-1]
            if low <= price <= high:
                return
            parts[-1] = (number, min(low, price), max(high, price))
            self.low, self.high = min(self.low, price), max(self.high, price)
            return
        parts.append((number, price, price))
        while parts[0][0] < number - PARTS:
            parts.popleft()
        self.low = min(low for _, low, _ in parts)
        self.high = max(high for _, _, high in parts)

    def clear(self) -> None:
        self._parts.clear()
        self.low = self.high = 0.0
