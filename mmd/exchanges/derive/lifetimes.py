"""How long a signature counts, and the number that makes it one of its kind. Pure: times are passed in.

All by the exchange's clock. Orders: at least 300 s, where its texts disagree about less; with maker
protection at most 15 minutes; never longer than the key. Source: docs.derive.xyz, Action signing.
"""

from mmd.domain.errors import MmdError

NS = 1_000_000_000
LEAST_SECONDS = 300
MMP_MOST_SECONDS = 900
MOST_SECONDS = 86_400  # ours: the exchange takes 120 days, which nothing that quotes should sign
KEY_MARGIN_SECONDS = 60
HOUR_SECONDS, DAY_SECONDS = 3600, 86_400

# A key that ends sooner signs no order any more, and what rests has to be pulled before it does.
KEY_NEEDS_SECONDS = LEAST_SECONDS + KEY_MARGIN_SECONDS + 60
KEY_SOON_SECONDS = 7 * DAY_SECONDS  # what ends sooner is told

MMP_ORDER_SECONDS = 600


def duration(seconds: float) -> str:
    """For people: 6.5 days, 3.0 hours, 7 minutes."""
    if seconds >= DAY_SECONDS:
        return f"{seconds / DAY_SECONDS:.1f} days"
    if seconds >= HOUR_SECONDS:
        return f"{seconds / HOUR_SECONDS:.1f} hours"
    return f"{int(seconds / 60)} minutes"


class KeyExpires(MmdError):
    """The session key ends too soon for anything that is signed with it to be taken."""


def expiry_sec(now_ns: int, life_seconds: int, key_expires_sec: int | None = None, *, mmp: bool = False) -> int:
    """When a signature made now ends, Unix seconds; `key_expires_sec` None = the wallet's own key, which never ends.

    Raises KeyExpires when less than 300 s would be left, ValueError for a life that the exchange does not take.
    """
    most = MMP_MOST_SECONDS if mmp else MOST_SECONDS
    if not LEAST_SECONDS <= life_seconds <= most:
        raise ValueError(f"a signature's life of {life_seconds} s is not from {LEAST_SECONDS} to {most} s")
    now_sec = now_ns // NS
    ends = now_sec + life_seconds
    if key_expires_sec is not None:
        ends = min(ends, key_expires_sec - KEY_MARGIN_SECONDS)
    if ends - now_sec < LEAST_SECONDS:
        left = max(0, (key_expires_sec or 0) - now_sec)
        raise KeyExpires(f"the session key ends in {left} s: too soon to sign with it; register another")
    return ends


class Nonces:
    """Unix nanoseconds, each once, also when the clock is set back or stands still.

    Unique in one process; another one of the same wallet at the same nanosecond is refused there (11017).
    """

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        """`last`: a nonce that was taken before, where one is known."""
        self.last = last

    def take(self, now_ns: int) -> int:
        """The next one."""
        self.last = max(now_ns, self.last + 1)
        return self.last
