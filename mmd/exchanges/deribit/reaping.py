"""Reaping on Deribit: cancel what carries our label over a connection of its own, and look until nothing is left.

It changes nothing of the account: no subscription, no cancel-on-disconnect, no maker protection, no
cancel that could mean somebody else's order. An order that was under way when the daemon died may
arrive after the first look; so the last look comes after the longest time that it can take.
"""

from collections.abc import Callable
from random import Random

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.events import Mail
from mmd.domain.ids import label_prefix
from mmd.exchanges.api import Dial, LinkStats, Reaped, ReapedOrder, Reaping, settle_seconds
from mmd.exchanges.connection import Connection, House, LoginRefused
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.dialect import Credentials, account_credits, make_dialect
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.messages import CancelParams
from mmd.exchanges.deribit.trading import MOST_CANCELS, TIER_BURST, TIER_RATE, read_limits
from mmd.exchanges.jsonrpc import Decoder, Head, Sent, Waiter
from mmd.exchanges.link import open_link
from mmd.exchanges.paces import Pace
from mmd.exchanges.reconnect import leaf

SCOPE = "connection account:read trade:read_write wallet:none"
HEARTBEAT_SECONDS = 10
ARRIVE_SECONDS = 5.0  # for a connection to be there and logged in; then another one is tried
ANSWER_SECONDS = 4.0
AGAIN_FIRST_SECONDS, AGAIN_MAX_SECONDS = 0.25, 4.0
THROTTLED_SECONDS = 2.0
SHARE = 0.8  # of the account's message rate: its owner may be cancelling by hand
ERRORS_MAX = 20
_FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)


class OpenOrdersParams(msgspec.Struct):
    """For private/get_open_orders, which lists all currencies and does not page."""

    type: str


class OpenOrderRow(msgspec.Struct):
    """What has to be known of an order to cancel it: no other field can keep one from being read."""

    order_id: str
    label: str = ""
    instrument_name: str = ""
    direction: str = ""


_decode_rows: Decoder[list[OpenOrderRow]] = Decoder(list[OpenOrderRow])


class DeribitReaper:
    """Implements Reaper, and Duty for its connection. Good for one `reap`."""

    def __init__(
        self,
        *,
        name: str,
        network: str,
        service: str,
        dial: Dial,
        host: str,
        path: str,
        client_id: str,
        client_secret: str,
        grant: str,
        wall_clock_ns: Callable[[], int],
        rng: Random,
        order_valid_ms: int | None,
        settled: bool,
    ) -> None:
        """`settled`: nothing can be under way any more, because the daemon has seen to that itself."""
        self.name = name
        self.network = network
        self.progress = Reaping(account=client_id)
        self.stats = LinkStats()
        self.settle_seconds = 0.0 if settled else settle_seconds(order_valid_ms)
        self._dial, self._host, self._path = dial, host, path
        self._prefix = label_prefix(service)
        self._house = House(
            name=name,
            service=service,
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=wall_clock_ns(),
            budget=Budget(TIER_RATE, TIER_BURST, 0.0),
            order_valid_ms=order_valid_ms,
        )
        self._house.sink = self
        self._dialect = make_dialect(
            self._house,
            Credentials(client_id, client_secret, grant),
            account_credits(),
            link=name,
            scope=SCOPE,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        self._known: dict[str, ReapedOrder] = {}
        self._confirmed: set[str] = set()  # cancelled by us, the exchange says
        self._pace = Pace(TIER_RATE * SHARE, TIER_BURST * SHARE)
        self._pace_known = False
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
        """One connection from dial to end."""
        stream: trio.abc.Stream | None = None
        connection: Connection | None = None
        try:
            stream, link = await open_link(self._dial, self._host, self._path)
            connection = Connection(link, self._house, self, self._dialect)
            await connection.run()
        except* LoginRefused as group:
            self.progress.refused = True
            self.note(f"login refused: {leaf(group)}")
        except* (LinkLost, *_FAILURES) as group:
            if not self._done:
                self.note(str(leaf(group)))
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
        if connection is not None and connection.throttled:
            self._pace = Pace(TIER_RATE * SHARE, 1.0)
            await trio.sleep(THROTTLED_SECONDS)

    async def _pause(self) -> None:
        self._failures += 1
        longest = min(AGAIN_MAX_SECONDS, AGAIN_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 10))
        await trio.sleep(longest * self._house.rng.uniform(0.5, 1.0))

    def note(self, text: str) -> None:
        """Something that went wrong, once."""
        errors = self.progress.errors
        if text not in errors and len(errors) < ERRORS_MAX:
            errors.append(text)

    # --- the work ---

    async def work(self, connection: Connection) -> None:
        """Look, cancel, look again, until nothing of ours can be there any more."""
        self._arriving.deadline = float("inf")
        while True:
            asked_at = trio.current_time()
            ours = await self._look(connection)
            if self._only_look:
                break
            if ours:
                await self._cancel_all(connection, ours)
            elif asked_at >= self._settled_at:
                self.progress.proven = True
                break
            else:
                await trio.sleep(self._settled_at - trio.current_time())
        self._done = True
        connection.drop("done")

    async def _look(self, connection: Connection) -> list[OpenOrderRow]:
        """All open orders of ours, of every currency. Raises as `_ask` does."""
        listed = _decode_rows(await self._ask(connection, "private/get_open_orders", OpenOrdersParams("all")))
        try:
            # In the list above as well, says the documentation; asking costs less than believing it.
            raw = await self._ask(connection, "private/get_open_orders", OpenOrdersParams("trigger_all"))
            listed += _decode_rows(raw)
        except ExchangeRefused as error:
            self.note(f"trigger orders were not listed on their own: {error}")
        ours = {order.order_id: order for order in listed if order.label.startswith(self._prefix)}
        progress = self.progress
        for order in ours.values():
            if order.order_id not in self._known:
                self._known[order.order_id] = ReapedOrder(
                    order_id=order.order_id, label=order.label, symbol=order.instrument_name, side=order.direction
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

    async def _cancel_all(self, connection: Connection, ours: list[OpenOrderRow]) -> None:
        """One try for each. What is refused, or has no answer, shows at the next look."""
        if len(ours) > TIER_BURST * SHARE and not self._pace_known:
            await self._learn_pace(connection)
        self.progress.after = None
        waiting = [order.order_id for order in reversed(ours)]
        before = sum(known.outcome is not Reaped.LEFT for known in self._known.values())

        async def work_off() -> None:
            while waiting:
                await self._cancel(connection, waiting.pop())

        async with trio.open_nursery() as nursery:
            for _ in range(MOST_CANCELS):
                nursery.start_soon(work_off)
        if sum(known.outcome is not Reaped.LEFT for known in self._known.values()) > before:
            self._failures = 0
        else:
            await self._pause()

    async def _cancel(self, connection: Connection, order_id: str) -> None:
        """Raises LinkLost only. That an order is not there any more is an answer, not an error."""
        delay = self._pace.take(trio.current_time())
        if delay > 0:
            await trio.sleep(delay)
        known = self._known[order_id]
        try:
            await self._ask(connection, "private/cancel", CancelParams(order_id))
            known.outcome = Reaped.CANCELLED
            self._confirmed.add(order_id)
        except ExchangeRefused as error:
            if ERRORS.meaning(error.code).gone:
                known.outcome = Reaped.CANCELLED if order_id in self._confirmed else Reaped.GONE
                return
            self.note(f"{known.label}: {error}")
            if connection.throttled:
                raise LinkLost("too many requests: later") from error
        except (ExchangeAmbiguous, ExchangeMalformed) as error:
            self.note(f"{known.label}: {error}")

    async def _learn_pace(self, connection: Connection) -> None:
        """The account's own message rate; without it, the lowest that there is."""
        try:
            raw = await self._ask(connection, "private/get_account_summaries", {"extended": True})
            if found := read_limits(orders.decode_summaries(raw)):
                self._pace = Pace(found[0] * SHARE, max(1.0, found[1] * SHARE))
        except _FAILURES as error:
            self.note(f"the account's message rate is unknown: {error}")
        self._pace_known = True

    async def _ask(self, connection: Connection, method: str, params: object) -> msgspec.Raw:
        """The answer to one request. Raises ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed, LinkLost."""
        waiter = Waiter(method, None)
        connection.request(method, params, waiter, ANSWER_SECONDS)
        await connection.flush()
        return await waiter.wait()

    # --- Duty: nothing comes unasked, and everything asked is awaited ---

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        """Nothing is subscribed."""

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        """Every answer is awaited."""

    def lost(self, sent: Sent, why: str) -> None:
        """Every answer is awaited."""

    def garbled(self, channel: str) -> None:
        """What it was an answer to will be missed there."""

    # --- Sink: nobody trades ---

    def post(self, symbol: str, event: Mail) -> None:
        """There are no symbols."""

    def post_all(self, event: Mail) -> None:
        """There are no symbols."""

    async def deliver(self) -> None:
        """There is nothing to decide."""

    def round_trip(self, seconds: float) -> None:
        """Nobody measures."""

    def report(self, name: str, detail: str) -> None:
        self.note(f"{name}: {detail}")
