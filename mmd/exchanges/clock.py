"""An exchange's clock, as well as it is known from the times that its answers tell."""

from collections.abc import Callable

import trio

DRIFT = 200e-6  # of two undisciplined clocks against each other, at most
SLACK_NS = 1_000_000  # times are told in µs, and the servers of one exchange differ a little


class ClockSkew:
    """The exchange's clock minus one of ours, from request and answer times: always a finite number.

    An answer proves that the difference lies between two bounds (it cannot have left before it was
    asked for, nor come before it left), as far apart as its way was long. Bounds are intersected, and
    widen with time by what clocks drift; `skew_ms` is their middle. An answer that contradicts them
    shows that a clock was set: then it alone counts. 0.0 before the first answer, which comes before
    any link is up.
    """

    def __init__(self) -> None:
        self.skew_ms = 0.0
        self.known = False
        self._low_ns = self._high_ns = 0.0
        self._at_ns = 0

    def add(self, sent_ns: int, received_ns: int, us_in: int, us_out: int) -> None:
        """One answer: our send and receive time, the server's receive and send time."""
        low_ns: float = us_out * 1000 - received_ns
        high_ns: float = us_in * 1000 - sent_ns
        if low_ns > high_ns:
            return  # a clock was set while it was on its way
        if self.known:
            slack_ns = abs(received_ns - self._at_ns) * DRIFT + SLACK_NS
            least_ns, most_ns = self._low_ns - slack_ns, self._high_ns + slack_ns
            if low_ns <= most_ns and high_ns >= least_ns:
                low_ns, high_ns = max(low_ns, least_ns), min(high_ns, most_ns)
        self._low_ns, self._high_ns, self._at_ns, self.known = low_ns, high_ns, received_ns, True
        self.skew_ms = (low_ns + high_ns) / 2e6


class ExchangeClock:
    """One exchange's, against our wall clock and against a clock that nobody can set."""

    def __init__(self, wall_clock_ns: Callable[[], int]) -> None:
        self._wall_clock_ns = wall_clock_ns
        self._wall = ClockSkew()
        self._steady = ClockSkew()

    @property
    def skew_ms(self) -> float:
        """The exchange's clock minus our wall clock; 0.0 while it is not known."""
        return self._wall.skew_ms

    @property
    def known(self) -> bool:
        return self._wall.known

    def now_ms(self) -> int:
        """What it shows now: that our wall clock is set does not change it."""
        if self._steady.known:
            return round(trio.current_time() * 1000 + self._steady.skew_ms)
        return round(self._wall_clock_ns() / 1_000_000 + self._wall.skew_ms)

    def heard(self, sent_at: float, received_at: float, received_ns: int, us_in: int, us_out: int) -> None:
        """An answer told it: trio's times of the request and of the answer, our wall clock then."""
        self._wall.add(received_ns - int((received_at - sent_at) * 1e9), received_ns, us_in, us_out)
        self._steady.add(int(sent_at * 1e9), int(received_at * 1e9), us_in, us_out)
