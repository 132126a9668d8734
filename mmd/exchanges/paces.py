"""How fast an exchange may be asked: token buckets that make the caller wait instead of refusing. Pure."""

from collections.abc import Mapping


class Pace:
    """One token bucket. `now` in seconds."""

    def __init__(self, rate_per_second: float, burst: float) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def set_limits(self, rate_per_second: float, burst: float) -> None:
        """From now on. The bucket stays as full, in proportion, as it was; what is owed stays owed."""
        if self._tokens > 0:
            self._tokens *= burst / self._burst
        self._rate, self._burst = rate_per_second, burst

    def take(self, now: float, cost: float = 1.0) -> float:
        """Charge `cost` and return the seconds to wait before sending."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._rate)


class Paces:
    """The bucket of each method; those that are not named share one."""

    def __init__(self, general: Pace, special: Mapping[str, Pace]) -> None:
        self._general = general
        self._special = dict(special)

    def charge(self, method: str, now: float) -> float:
        """Take a call's credits; returns the seconds to wait before sending it."""
        return self._special.get(method, self._general).take(now)
