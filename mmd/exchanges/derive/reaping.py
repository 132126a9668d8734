"""Reaping on Derive, over HTTP alone: a socket that is logged in would cancel the whole wallet when it closes.

Looked at are the orders that rest. Trigger and algo orders are in lists of their own; mmd sends none, so none has a
label of ours. Source: docs.derive.xyz, private/get_open_orders, "Cancel on disconnect", "Rate limits".
"""

from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import httpx
import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.domain.reasons import Fault
from mmd.exchanges.api import settle_seconds
from mmd.exchanges.connection import LoginRefused
from mmd.exchanges.derive.codec import read_time
from mmd.exchanges.derive.errors import ERRORS
from mmd.exchanges.derive.keys import Identity
from mmd.exchanges.derive.messages import AccountData
from mmd.exchanges.derive.private import PrivateRpc, encode_params
from mmd.exchanges.derive.requests import CancelParams, SubaccountParams
from mmd.exchanges.derive.windows import MATCHING_RATE, WINDOW_SECONDS
from mmd.exchanges.http_rpc import open_rpc
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.preflight import NS_IN_MS, ask_time
from mmd.exchanges.reap import ReapLoop, RestingOrder

ANSWER_SECONDS = 4.0
PARALLEL = 8
MARGIN_SECONDS = 0.1  # windows are the exchange's, and requests do not all take the same time to get there
SHARE = 0.8  # of the wallet's budget: its owner may be cancelling by hand
TOO_MANY = ERRORS.throttled | {429}
# Statuses of pages that stand before the exchange, which may be gone the next moment; keys are refused in words.
PAGES = range(400, 600)

T = TypeVar("T")


class OpenOrderRow(msgspec.Struct):
    """What has to be known of an order to cancel it: no other field can keep one from being read."""

    order_id: str
    label: str = ""
    instrument_name: str = ""
    direction: str = ""


class OpenOrderRows(msgspec.Struct):
    """Result of private/get_open_orders, which lists all instruments of a subaccount and does not page."""

    orders: list[OpenOrderRow]


_decode_rows: Decoder[OpenOrderRows] = Decoder(OpenOrderRows)
_decode_account: Decoder[AccountData] = Decoder(AccountData)


class SlidingPace:
    """At most so many in any `WINDOW_SECONDS`, wherever the exchange's own windows begin: bursts with pauses.

    A bucket of tokens would let half as many pass.
    """

    def __init__(self, rate_per_second: float) -> None:
        self._sent: deque[float] = deque(maxlen=max(1, int(rate_per_second * WINDOW_SECONDS * SHARE)))

    def take(self, now: float) -> float:
        """Count one, and return the seconds to wait before sending it."""
        full = len(self._sent) == self._sent.maxlen
        at = max(now, self._sent[0] + WINDOW_SECONDS + MARGIN_SECONDS) if full else now
        self._sent.append(at)
        return at - now


class DeriveVisit:
    """Implements ReapCalls."""

    errors = ERRORS
    parallel = PARALLEL

    def __init__(
        self,
        base: str,
        identity: Identity,
        wall_clock_ns: Callable[[], int],
        note: Callable[[str], None],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._base = base
        self._identity = identity
        self._wall_clock_ns = wall_clock_ns
        self._note = note
        self._transport = transport
        self._rpc: PrivateRpc | None = None
        self._throttled = False
        self._pace = SlidingPace(MATCHING_RATE)
        self._pace_known = False

    @property
    def throttled(self) -> bool:
        return self._throttled

    async def visit(self, work: Callable[[], Awaitable[None]]) -> None:
        """The first private call is the login."""
        self._throttled = False
        async with open_rpc(self._base, encode_params, transport=self._transport, answer_seconds=ANSWER_SECONDS) as rpc:
            moment = await self._heeding(ask_time(rpc, read_time, self._wall_clock_ns))

            def now_ms() -> int:
                return round(self._wall_clock_ns() / NS_IN_MS + moment.ahead_ms)

            self._rpc = PrivateRpc(rpc, self._identity, now_ms)
            await work()

    def slow_down(self) -> None:
        self._pace = SlidingPace(MATCHING_RATE)

    async def look(self) -> list[RestingOrder]:
        """Of every instrument."""
        try:
            raw = await self._ask("private/get_open_orders", SubaccountParams(self._identity.subaccount))
        except ExchangeRefused as error:
            told = ERRORS.meaning(error.code)
            if told.fault in (Fault.AUTH, Fault.CONFIG) and error.code not in PAGES:
                raise LoginRefused(error.code, f"{told.name}: {error.message}") from error
            raise
        rows = _decode_rows(raw).orders
        return [RestingOrder(row.order_id, row.label, row.instrument_name, row.direction) for row in rows]

    async def ready_for(self, cancels: int) -> None:
        """The wallet's own budget; without it, the lowest that there is."""
        if self._pace_known or cancels <= MATCHING_RATE * WINDOW_SECONDS * SHARE:
            return
        try:
            account = _decode_account(await self._ask("private/get_account", {"wallet": self._identity.wallet}))
            self._pace = SlidingPace(account.websocket_matching_tps)
        except (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as error:
            self._note(f"the wallet's request budget is unknown: {error}")
        self._pace_known = True

    async def cancel(self, order: RestingOrder) -> None:
        """By its id; by its label, which is no other order's, where its row did not say of what instrument it is."""
        delay = self._pace.take(trio.current_time())
        if delay > 0:
            await trio.sleep(delay)
        number = self._identity.subaccount
        if order.symbol:
            await self._ask("private/cancel", CancelParams(number, order.symbol, order.order_id))
        else:
            await self._ask("private/cancel_by_label", {"subaccount_id": number, "label": order.label})

    async def _ask(self, method: str, params: object) -> msgspec.Raw:
        """The answer to one request. Raises ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed, LinkLost."""
        assert self._rpc is not None, "not on a visit"
        return await self._heeding(self._rpc.call(method, params))

    async def _heeding(self, question: Awaitable[T]) -> T:
        """The answer; that too much is asked is remembered."""
        try:
            return await question
        except ExchangeRefused as error:
            self._throttled = self._throttled or error.code in TOO_MANY
            raise


class DeriveReaper(ReapLoop):
    """Implements Reaper. Good for one `reap`."""

    def __init__(
        self,
        *,
        name: str,
        network: str,
        service: str,
        base: str,
        identity: Identity,
        account: str,
        wall_clock_ns: Callable[[], int],
        rng: Random,
        order_valid_ms: int | None,
        settled: bool,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base`: as in https://api.derive.xyz/v3; `account`: its name, for people. `transport` replaces sockets.

        `settled`: nothing can be under way any more, because the daemon has seen to that itself.
        """
        super().__init__(
            DeriveVisit(base, identity, wall_clock_ns, self.note, transport),
            name=name,
            network=network,
            account=account,
            service=service,
            rng=rng,
            settle_seconds=0.0 if settled else settle_seconds(order_valid_ms),
        )
