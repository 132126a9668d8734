"""What has to happen at a time of the exchange's clock: kept in order, run by the sandbox."""

import heapq
import itertools
from collections.abc import Callable


class Alarms:
    """`changed` is called when `next_ms` may have become earlier."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._numbers = itertools.count()

    def at(self, due_ms: int, action: Callable[[int], None]) -> None:
        """Call `action` with the time once the clock reads `due_ms`; those of one time in the order they were set."""
        heapq.heappush(self._heap, (due_ms, next(self._numbers), action))
        if self._heap[0][0] == due_ms:
            self.changed()

    @property
    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def ring(self, now_ms: int) -> int:
        """Run what is due; how many."""
        count = 0
        while self._heap and self._heap[0][0] <= now_ms:
            heapq.heappop(self._heap)[2](now_ms)
            count += 1
        return count
