"""Derive's request budgets: windows of 5 s for each class of request, a bucket of tokens for each instrument.

Nothing waits: what is too much is refused with -32000 and not carried out. Assumed: a window begins with
the first request in it, and cancels take an instrument's token as orders do. Source: docs.derive.xyz, Rate limits.
"""

import msgspec

from mmd.sandbox.derive.options import Rates
from mmd.sandbox.limits import Bucket, Budget
from mmd.sandbox.rpc import RpcError

WINDOW_MS = 5_000
MATCHING, NON_MATCHING = "matching", "non_matching"
CANCEL_ALL, LABELS = "cancel_all", "labels"
FREE = ""
ENDPOINTS = {CANCEL_ALL: "private/cancel_all", LABELS: "private/cancel_by_label"}
"""Classes of one method only."""


class Window(msgspec.Struct):
    """What was spent since `began_ms`."""

    began_ms: int
    spent: int = 0


class Budgets:
    """Everybody's windows and buckets; an owner is a wallet, or "" for all who are not logged in."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self._windows: dict[tuple[str, str], Window] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def most(self, owner: str, kind: str) -> int:
        """How many requests a window holds."""
        rate: int = self.rates.address if not owner and kind == NON_MATCHING else getattr(self.rates, kind)
        return rate * WINDOW_MS // 1000

    def _window(self, owner: str, kind: str, now_ms: int) -> Window:
        window = self._windows.get((owner, kind))
        if window is None or not 0 <= now_ms - window.began_ms < WINDOW_MS:
            window = self._windows[owner, kind] = Window(now_ms)
        return window

    def charge(self, owner: str, kind: str, now_ms: int) -> None:
        """Count one request. RpcError (-32000) where the window is full."""
        if not self.rates.enforced or kind == FREE:
            return
        window = self._window(owner, kind, now_ms)
        if window.spent >= self.most(owner, kind):
            raise _exceeded(window.began_ms + WINDOW_MS - now_ms)
        window.spent += 1

    def charge_instrument(self, owner: str, instrument: str, per_second: int, now_ms: int) -> None:
        """Take one token of an instrument. RpcError (-32000) where there is none."""
        if not self.rates.enforced:
            return
        bucket = self._buckets.get((owner, instrument))
        if bucket is None:
            bucket = Bucket(Budget(per_second, per_second * self.rates.burst))
            self._buckets[owner, instrument] = bucket
        if not bucket.take(now_ms / 1000):
            raise _exceeded(1000 // per_second)

    def exhaust(self, owner: str, kind: str, now_ms: int) -> None:
        """Let the window be full now."""
        self._window(owner, kind, now_ms).spent = self.most(owner, kind)

    def remaining(self, owner: str, kind: str, now_ms: int) -> dict[str, object]:
        """As public/getRateLimits tells it."""
        window = self._window(owner, kind, now_ms)
        return {
            "remainingPoints": max(0, self.most(owner, kind) - window.spent),
            "consumedPoints": window.spent,
            "msBeforeNext": window.began_ms + WINDOW_MS - now_ms,
            "isFirstInDuration": window.spent <= 1,
        }


def _exceeded(wait_ms: int) -> RpcError:
    return RpcError(-32000, "Rate limit exceeded", f"Retry after {wait_ms} ms")
