"""Reaping: cancel what carries our label, and look until nothing is left. Knows no connection.

It changes nothing else of the account. An order that was under way when the daemon died may arrive after the
first look; so the last look comes after the longest time that it can take.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.ids import label_prefix
from mmd.exchanges.api import Reaped, ReapedOrder, Reaping
from mmd.exchanges.connection import FAILURES, LoginRefused
from mmd.exchanges.faults import ErrorTable
from mmd.exchanges.reconnect import leaf

ARRIVE_SECONDS = 5.0  # to be there and logged in; then it is tried again
AGAIN_FIRST_SECONDS, AGAIN_MAX_SECONDS = 0.25, 4.0
THROTTLED_SECONDS = 2.0
ERRORS_MAX = 20


class RestingOrder(msgspec.Struct, frozen=True):
    """What has to be known of an order to cancel it. `side` is the exchange's word."""

    order_id: str
    label: str
    symbol: str
    side: str


class ReapCalls(Protocol):
    """How a reaper gets to an exchange, and what it does there.

    `parallel`: cancels without an answer at a time. `throttled`: the exchange said on this visit that too much is
    asked.
    """

    errors: ErrorTable
    parallel: int

    @property
    def throttled(self) -> bool: ...

    async def visit(self, work: Callable[[], Awaitable[None]]) -> None:
        """Get there, log in where that is done, and work; the other methods are called from within that only.

        Raises LoginRefused, LinkLost and what the others raise, alone or in groups. What it raises after `work` has
        returned means nothing.
        """

    def slow_down(self) -> None:
        """Ask less from now on."""

    async def look(self) -> list[RestingOrder]:
        """All open orders, of every kind, with a label of ours or not. Raises as `cancel`."""

    async def ready_for(self, cancels: int) -> None:
        """So many are to come: learn how fast they may leave. Raises LinkLost only."""

    async def cancel(self, order: RestingOrder) -> None:
        """Returns once it is cancelled, and not before it may be asked.

        Raises ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed, LinkLost.
        """


class ReapLoop:
    """Implements Reaper. Good for one `reap`."""

    def __init__(
        self,
        calls: ReapCalls,
        *,
        name: str,
        network: str,
        account: str,
        service: str,
        rng: Random,
        settle_seconds: float,
    ) -> None:
        """`settle_seconds`: so long after its process's death an order may still arrive, at the most."""
        self.name = name
        self.network = network
        self.progress = Reaping(account=account)
        self.settle_seconds = settle_seconds
        self._calls = calls
        self._rng = rng
        self._prefix = label_prefix(service)
        self._known: dict[str, ReapedOrder] = {}
        self._confirmed: set[str] = set()  # cancelled by us, the exchange says
        self._only_look = False
        self._done = False
        self._settled_at = 0.0
        self._arriving: trio.CancelScope
        self._failures = 0

    async def reap(self, *, only_look: bool) -> None:
        """As the protocol says. Link losses, refusals and timeouts are written down and tried again."""
        self._only_look = only_look
        self._settled_at = trio.current_time() + self.settle_seconds
        while True:
            with trio.move_on_after(ARRIVE_SECONDS) as self._arriving:
                await self._attempt()
            if self._done or self.progress.refused:
                return
            if self._arriving.cancelled_caught:
                self.note(f"not logged in within {ARRIVE_SECONDS:g} s")
            await self._pause()

    async def _attempt(self) -> None:
        """One visit."""
        try:
            await self._calls.visit(self._work)
        except* LoginRefused as group:
            self.progress.refused = True
            self.note(f"login refused: {leaf(group)}")
        except* (LinkLost, *FAILURES) as group:
            if not self._done:
                self.note(str(leaf(group)))
        if self._calls.throttled:
            self._calls.slow_down()
            await trio.sleep(THROTTLED_SECONDS)

    async def _pause(self) -> None:
        self._failures += 1
        longest = min(AGAIN_MAX_SECONDS, AGAIN_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 10))
        await trio.sleep(longest * self._rng.uniform(0.5, 1.0))

    def note(self, text: str) -> None:
        """Something that went wrong, once."""
        errors = self.progress.errors
        if text not in errors and len(errors) < ERRORS_MAX:
            errors.append(text)

    async def _work(self) -> None:
        """Look, cancel, look again, until nothing of ours can be there any more."""
        self._arriving.deadline = float("inf")
        while True:
            asked_at = trio.current_time()
            ours = await self._look()
            if self._only_look:
                break
            if ours:
                await self._cancel_all(ours)
            elif asked_at >= self._settled_at:
                self.progress.proven = True
                break
            else:
                await trio.sleep_until(self._settled_at)
        self._done = True

    async def _look(self) -> list[RestingOrder]:
        """All open orders of ours."""
        ours = {order.order_id: order for order in await self._calls.look() if order.label.startswith(self._prefix)}
        progress = self.progress
        for order in ours.values():
            if order.order_id not in self._known:
                self._known[order.order_id] = ReapedOrder(
                    order_id=order.order_id, label=order.label, symbol=order.symbol, side=order.side
                )
                progress.orders.append(self._known[order.order_id])
                progress.later += progress.before is not None
        for number, known in self._known.items():
            if number in ours:
                known.outcome = Reaped.LEFT
            elif known.outcome is Reaped.LEFT:
                known.outcome = Reaped.GONE
        if progress.before is None:
            progress.before = len(ours)
        progress.after = len(ours)
        return list(ours.values())

    async def _cancel_all(self, ours: list[RestingOrder]) -> None:
        """One try for each. What is refused, or has no answer, shows at the next look."""
        await self._calls.ready_for(len(ours))
        self.progress.after = None
        waiting = list(reversed(ours))
        before = self._settled()

        async def work_off() -> None:
            while waiting:
                await self._cancel(waiting.pop())

        async with trio.open_nursery() as nursery:
            for _ in range(self._calls.parallel):
                nursery.start_soon(work_off)
        if self._settled() > before:
            self._failures = 0
        else:
            await self._pause()

    def _settled(self) -> int:
        """Orders that do not rest any more."""
        return sum(known.outcome is not Reaped.LEFT for known in self._known.values())

    async def _cancel(self, order: RestingOrder) -> None:
        """Raises LinkLost only. That an order is not there any more is an answer, not an error."""
        known = self._known[order.order_id]
        try:
            await self._calls.cancel(order)
            known.outcome = Reaped.CANCELLED
            self._confirmed.add(order.order_id)
        except ExchangeRefused as error:
            if self._calls.errors.meaning(error.code).gone:
                known.outcome = Reaped.CANCELLED if order.order_id in self._confirmed else Reaped.GONE
                return
            self.note(f"{known.label}: {error}")
            if self._calls.throttled:
                raise LinkLost("too many requests: later") from error
        except (ExchangeAmbiguous, ExchangeMalformed) as error:
            self.note(f"{known.label}: {error}")
