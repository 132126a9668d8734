"""Cancels in bursts: no more than the exchange's queue takes, the others wait here, first in, first out.

At most eight requests of an account wait for its matching engine; one more is refused (10047). A halt of a hundred
symbols is two hundred cancels at once: sent at once, all but eight would be refused, a second later all but eight of
the rest, until their tries run out. So a cancel beyond MOST order requests without an answer waits for the next
answer. It does not wait for answers that do not come: after PATIENCE_SECONDS without one the next MOST leave all the
same. Nothing but cancels ever waits. Source: docs.deribit.com, "Order Management", September 2026.
"""

from collections import deque

import trio

from mmd.domain.actions import CancelOrder

MOST = 6  # of the eight: somebody else of the account may wait there as well
PATIENCE_SECONDS = 0.25


class Cancels:
    """Those of one connection that wait, and how many order requests have no answer."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, CancelOrder]] = deque()
        self._labels: set[str] = set()
        self._unanswered = 0
        self._answers = 0
        self._some = trio.Event()

    def sent(self) -> None:
        """An order request left."""
        self._unanswered += 1

    def landed(self) -> None:
        """An order request was answered, or given up."""
        self._unanswered = max(0, self._unanswered - 1)
        self._answers += 1

    def must_wait(self) -> bool:
        """Whether one more cancel has to."""
        return bool(self._waiting) or self._unanswered >= MOST

    def add(self, symbol: str, order: CancelOrder) -> None:
        """It waits; one that waits already is answered once."""
        if order.label not in self._labels:
            self._labels.add(order.label)
            self._waiting.append((symbol, order))
            self._some.set()

    def take(self) -> tuple[str, CancelOrder] | None:
        """The next that may leave now."""
        if not self._waiting or self._unanswered >= MOST:
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
        """Until some wait and no answer came for too long; then the next may leave."""
        while True:
            if not self._waiting:
                self._some = trio.Event()
                await self._some.wait()
            answers = self._answers
            await trio.sleep(PATIENCE_SECONDS)
            if self._waiting and self._answers == answers:
                self._unanswered = 0
                return
