"""Cancels in bursts: no more than the exchange's queue takes, the others wait here, first in, first out.

An exchange may refuse a request where too many of an account wait for its matching engine. A halt of a hundred
symbols is two hundred cancels at once: sent at once, nearly all would be refused, a second later nearly all of
the rest, until their tries run out. So a cancel beyond `most` cancels without an answer waits for the next answer to
one. On a long way those are not in the queue, they are under way: after WAVE_SECONDS without an answer `most` more
leave, after PATIENCE_SECONDS where the queue was full a moment ago. Nothing else waits, and no cancel waits for
anything but cancels.
"""

from collections import deque

import trio

from mmd.domain.actions import CancelOrder

WAVE_SECONDS, PATIENCE_SECONDS = 0.025, 0.25
FULL_SECONDS = 1.0  # so long the queue counts as full after it was


class Cancels:
    """Those of one connection that wait, and how many that were sent have no answer. `most`: inf where none waits."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._waiting: deque[tuple[str, CancelOrder]] = deque()
        self._labels: set[str] = set()
        self._unanswered = 0
        self._answers = 0
        self._full_at = float("-inf")
        self._some = trio.Event()

    def sent(self) -> None:
        """A cancel left."""
        self._unanswered += 1

    def landed(self) -> None:
        """A cancel was answered, or given up."""
        self._unanswered = max(0, self._unanswered - 1)
        self._answers += 1

    def refused(self) -> None:
        """The queue was full."""
        self._full_at = trio.current_time()

    def must_wait(self) -> bool:
        """Whether one more cancel has to."""
        return bool(self._waiting) or self._unanswered >= self._most

    def add(self, symbol: str, order: CancelOrder) -> None:
        """It waits; one that waits already is answered once."""
        if order.label not in self._labels:
            self._labels.add(order.label)
            self._waiting.append((symbol, order))
            self._some.set()

    def take(self) -> tuple[str, CancelOrder] | None:
        """The next that may leave now."""
        if not self._waiting or self._unanswered >= self._most:
            return None
        symbol, order = self._waiting.popleft()
        self._labels.discard(order.label)
        return symbol, order

    def give_up(self) -> list[tuple[str, CancelOrder]]:
        """The connection is gone: those that never left."""
        never_left = list(self._waiting)
        self._waiting.clear()
        self._labels.clear()
        self._unanswered = 0
        return never_left

    async def wait_overdue(self) -> None:
        """Until some wait and no answer to a cancel came for too long; then the next may leave."""
        while True:
            if not self._waiting:
                self._some = trio.Event()
                await self._some.wait()
            answers = self._answers
            full = trio.current_time() - self._full_at < FULL_SECONDS
            await trio.sleep(PATIENCE_SECONDS if full else WAVE_SECONDS)
            if self._waiting and self._answers == answers:
                self._unanswered = 0
                return
