"""Deribit as the shell sees it."""

from collections.abc import Callable
from functools import partial
from random import Random
from time import time_ns

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import CashMoved
from mmd.domain.ids import LABEL_MAX
from mmd.domain.instruments import Instrument
from mmd.exchanges.api import Capabilities, Dial
from mmd.exchanges.cash import CashLog
from mmd.exchanges.connection import House
from mmd.exchanges.deribit import codec, expired
from mmd.exchanges.deribit.cash import LogRows
from mmd.exchanges.deribit.dialect import PRIVATE, Credentials, account_credits, make_dialect
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.market import DeribitMarket
from mmd.exchanges.deribit.messages import InstrumentParams
from mmd.exchanges.deribit.protection import DeribitProtection
from mmd.exchanges.deribit.questions import DeribitQuestions
from mmd.exchanges.deribit.trading import (
    MOST_CANCELS,
    RESERVE_SHARE,
    TIER_BURST,
    TIER_RATE,
    DeribitAccount,
    DeribitOrders,
)
from mmd.exchanges.feed import Feed
from mmd.exchanges.known import Known
from mmd.exchanges.session import RpcExchange, Server
from mmd.exchanges.trading import TradeCalls, Trading

PATH = "/ws/api/v2"
DATA_SCOPE = "connection account:read trade:read wallet:none"
TRADE_SCOPE = "connection account:read_write trade:read_write wallet:none"
# The shortest there is. Silence of twice that is a lost link, which is known before marks are too old to value a
# position: that would leave every exchange without room, and a lost link leaves the last mark.
HEARTBEAT_SECONDS = 10


class Deribit(RpcExchange):
    """Implements Exchange. One instance, one account."""

    capabilities = Capabilities(
        atomic_amend=True,
        mass_quote=False,
        cancel_on_disconnect=True,
        maker_protection=True,
        rfq=False,
        client_labels=True,
        label_max=LABEL_MAX,
    )

    def __init__(
        self,
        *,
        name: str,
        service: str,
        dial: Dial,
        host: str,
        path: str = PATH,
        client_id: str,
        client_secret: str,
        rng: Random,
        started_ns: int,
        grant: str = "client_signature",
        wall_clock_ns: Callable[[], int] = time_ns,
        order_valid_ms: int | None = None,
    ) -> None:
        """`host` and `path` name the server in the WebSocket handshake; `dial` decides where the bytes go.

        `order_valid_ms`: places and amends that reach the matching engine later than that are refused there.
        ValueError for an unknown grant.
        """
        house = House(
            name=name,
            service=service,
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=started_ns,
            budget=Budget(TIER_RATE, TIER_BURST, TIER_BURST * RESERVE_SHARE),
            order_valid_ms=order_valid_ms,
        )
        known = Known()
        self._credentials = Credentials(client_id, client_secret, grant)
        self._cash = CashLog(house, known, LogRows())
        feed = Feed(house, DeribitMarket(house))
        calls = TradeCalls(
            channels=PRIVATE,
            orders=DeribitOrders(house),
            questions=DeribitQuestions(house),
            protection=DeribitProtection(house.clock),
            account=DeribitAccount(house.budget),
            cash=self._cash,
            most_cancels=MOST_CANCELS,
        )
        speaks = partial(make_dialect, house, self._credentials, account_credits())
        super().__init__(
            house,
            Server(dial, host, path),
            feed,
            Trading(house, known, calls),
            data=speaks(link="data", scope=DATA_SCOPE, heartbeat_seconds=HEARTBEAT_SECONDS),
            trade=speaks(link="trade", scope=TRADE_SCOPE, heartbeat_seconds=HEARTBEAT_SECONDS),
        )

    async def expired_ns(self, symbol: str) -> int | None:
        """Raises LinkLost, ExchangeAmbiguous, ExchangeMalformed."""
        now_ns = self._house.clock.now_ms() * expired.NS_PER_MS
        named_ns = expired.expiry_ns(symbol)
        if named_ns is not None and named_ns <= now_ns:
            return named_ns
        connection = self._ready(self._feed)
        try:
            raw = await connection.call("public/get_instrument", InstrumentParams(symbol))
        except ExchangeRefused:
            return None  # there was never one of this name
        return expired.read_end(raw, now_ns)

    async def deliveries(self, instrument: Instrument) -> list[CashMoved]:
        """Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed."""
        return await self._cash.deliveries(self._ready(self._trading), instrument)

    async def index_price(self, index: str) -> float:
        """The index in USD or the quote currency."""
        raw = await self._ready(self._feed).call("public/get_index_price", {"index_name": index})
        return codec.read_index(raw)
