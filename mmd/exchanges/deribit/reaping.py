"""Reaping on Deribit, over a connection of its own: no subscription, no cancel-on-disconnect, no maker protection."""

import math
from collections.abc import Awaitable, Callable
from random import Random

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import Mail
from mmd.exchanges.api import Dial, LinkStats, settle_seconds
from mmd.exchanges.connection import FAILURES, Connection, House
from mmd.exchanges.deribit import orders
from mmd.exchanges.deribit.dialect import Credentials, account_credits, make_dialect
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.messages import CancelParams
from mmd.exchanges.deribit.trading import MOST_CANCELS, TIER_BURST, TIER_RATE, read_limits
from mmd.exchanges.jsonrpc import Decoder, Head, Sent, Waiter
from mmd.exchanges.link import open_link
from mmd.exchanges.paces import Pace
from mmd.exchanges.reap import ReapLoop, RestingOrder

SCOPE = "connection account:read trade:read_write wallet:none"
HEARTBEAT_SECONDS = 10
ANSWER_SECONDS = 4.0
SHARE = 0.8  # of the account's message rate: its owner may be cancelling by hand


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


class Errand:
    """Implements Duty and Sink for one connection: everything asked is awaited, and nobody trades."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], note: Callable[[str], None]) -> None:
        self.name = name
        self.stats = LinkStats()
        self.deaf_after = math.inf  # the reaper has its own clock
        self._work = work
        self._note = note

    async def work(self, connection: Connection) -> None:
        await self._work()
        connection.drop("done")

    def notified(self, channel: str, data: msgspec.Raw, received_ns: int) -> None:
        """Nothing is subscribed."""

    def answered(self, sent: Sent, head: Head, received_ns: int) -> None:
        """Every answer is awaited."""

    def lost(self, sent: Sent, why: str) -> None:
        """Every answer is awaited."""

    def garbled(self, channel: str) -> None:
        """What it was an answer to will be missed there."""

    def post(self, symbol: str, event: Mail) -> None:
        """There are no symbols."""

    def post_all(self, event: Mail) -> None:
        """There are no symbols."""

    async def deliver(self) -> None:
        """There is nothing to decide."""

    def round_trip(self, seconds: float) -> None:
        """Nobody measures."""

    def report(self, name: str, detail: str) -> None:
        self._note(f"{name}: {detail}")


class DeribitVisit:
    """Implements ReapCalls."""

    errors = ERRORS
    parallel = MOST_CANCELS

    def __init__(
        self, house: House, credentials: Credentials, dial: Dial, host: str, path: str, note: Callable[[str], None]
    ) -> None:
        self._house = house
        self._dialect = make_dialect(
            house, credentials, account_credits(), link=house.name, scope=SCOPE, heartbeat_seconds=HEARTBEAT_SECONDS
        )
        self._dial, self._host, self._path = dial, host, path
        self._note = note
        self._connection: Connection | None = None
        self._pace = Pace(TIER_RATE * SHARE, TIER_BURST * SHARE)
        self._pace_known = False

    @property
    def throttled(self) -> bool:
        return self._connection is not None and self._connection.throttled

    async def visit(self, work: Callable[[], Awaitable[None]]) -> None:
        self._connection = None
        stream, link = await open_link(self._dial, self._host, self._path)
        errand = Errand(self._house.name, work, self._note)
        self._house.sink = errand
        self._connection = Connection(link, self._house, errand, self._dialect)
        try:
            await self._connection.run()
        finally:
            await trio.aclose_forcefully(stream)

    def slow_down(self) -> None:
        self._pace = Pace(TIER_RATE * SHARE, 1.0)

    async def look(self) -> list[RestingOrder]:
        """Of every currency."""
        listed = _decode_rows(await self._ask("private/get_open_orders", OpenOrdersParams("all")))
        try:
            # In the list above as well, says the documentation; asking costs less than believing it.
            listed += _decode_rows(await self._ask("private/get_open_orders", OpenOrdersParams("trigger_all")))
        except ExchangeRefused as error:
            self._note(f"trigger orders were not listed on their own: {error}")
        return [RestingOrder(row.order_id, row.label, row.instrument_name, row.direction) for row in listed]

    async def ready_for(self, cancels: int) -> None:
        """The account's own message rate; without it, the lowest that there is."""
        if self._pace_known or cancels <= TIER_BURST * SHARE:
            return
        try:
            raw = await self._ask("private/get_account_summaries", {"extended": True})
            if found := read_limits(orders.decode_summaries(raw)):
                self._pace = Pace(found[0] * SHARE, max(1.0, found[1] * SHARE))
        except FAILURES as error:
            self._note(f"the account's message rate is unknown: {error}")
        self._pace_known = True

    async def cancel(self, order: RestingOrder) -> None:
        delay = self._pace.take(trio.current_time())
        if delay > 0:
            await trio.sleep(delay)
        await self._ask("private/cancel", CancelParams(order.order_id))

    async def _ask(self, method: str, params: object) -> msgspec.Raw:
        """The answer to one request. Raises ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed, LinkLost."""
        assert self._connection is not None, "not on a visit"
        waiter = Waiter(method, None)
        self._connection.request(method, params, waiter, ANSWER_SECONDS)
        await self._connection.flush()
        return await waiter.wait()


class DeribitReaper(ReapLoop):
    """Implements Reaper. Good for one `reap`."""

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
        house = House(
            name=name,
            service=service,
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=wall_clock_ns(),
            budget=Budget(TIER_RATE, TIER_BURST, 0.0),
            order_valid_ms=order_valid_ms,
        )
        credentials = Credentials(client_id, client_secret, grant)
        super().__init__(
            DeribitVisit(house, credentials, dial, host, path, self.note),
            name=name,
            network=network,
            account=client_id,
            service=service,
            rng=rng,
            settle_seconds=0.0 if settled else settle_seconds(order_valid_ms),
        )
