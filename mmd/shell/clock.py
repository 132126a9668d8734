"""The one clock of the daemon: Unix nanoseconds that never run backwards, on trio's time."""

import time
from collections.abc import Callable

import trio


class Clock:
    """Wall time at the start plus trio's monotonic time since: steps of the wall clock do not reach us.

    Under a mock clock it is mock time. Must be made and used inside trio.
    """

    __slots__ = ("_origin", "_seconds", "_start_ns")

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._seconds = trio.lowlevel.current_clock().current_time
        self._start_ns = wall_ns()
        self._origin = self._seconds()

    def now_ns(self) -> int:
        return self._start_ns + int((self._seconds() - self._origin) * 1e9)

    def seconds_until(self, at_ns: int) -> float:
        """How long until then; at least 0."""
        return max(0.0, (at_ns - self.now_ns()) * 1e-9)
