"""Derive as the shell sees it."""

from collections.abc import Callable
from random import Random
from time import time_ns

from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import CashMoved
from mmd.domain.ids import LABEL_MAX
from mmd.domain.instruments import Instrument
from mmd.exchanges.api import Capabilities, Dial
from mmd.exchanges.connection import House
from mmd.exchanges.derive import expired
from mmd.exchanges.derive.account import DeriveAccount, first_budget
from mmd.exchanges.derive.cash import DeriveCash
from mmd.exchanges.derive.codec import read_spot
from mmd.exchanges.derive.dialect import PRIVATE, make_data_dialect, make_trade_dialect
from mmd.exchanges.derive.errors import ERRORS, NOT_THERE
from mmd.exchanges.derive.keys import Identity
from mmd.exchanges.derive.lifetimes import MMP_ORDER_SECONDS
from mmd.exchanges.derive.market import DeriveMarket
from mmd.exchanges.derive.protection import DeriveProtection
from mmd.exchanges.derive.questions import DeriveQuestions
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.signing import Domain
from mmd.exchanges.derive.trading import DeriveOrders
from mmd.exchanges.feed import Feed
from mmd.exchanges.known import Known
from mmd.exchanges.session import RpcExchange, Server
from mmd.exchanges.trading import TradeCalls, Trading

PATH = "/v3/ws"


class Derive(RpcExchange):
    """Implements Exchange. One instance, one subaccount."""

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
        identity: Identity,
        domain: Domain,
        rng: Random,
        started_ns: int,
        wall_clock_ns: Callable[[], int] = time_ns,
        order_valid_ms: int | None = None,
        order_life_seconds: int = MMP_ORDER_SECONDS,
    ) -> None:
        """`host` and `path` name the server in the WebSocket handshake; `dial` decides where the bytes go.

        `order_valid_ms`: places and amends that reach the matching engine later than that are refused there.
        `order_life_seconds`: how long an order rests at the most. ValueError for what cannot sign.
        """
        house = House(
            name=name,
            service=service,
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=rng,
            started_ns=started_ns,
            budget=first_budget(),
            order_valid_ms=order_valid_ms,
        )
        room = Room(house, identity, domain, order_life_seconds=order_life_seconds)
        known = Known()
        self.room = room
        self._cash = DeriveCash(room, known)
        calls = TradeCalls(
            channels=PRIVATE,
            orders=DeriveOrders(room),
            questions=DeriveQuestions(room),
            protection=DeriveProtection(room),
            account=DeriveAccount(room),
            cash=self._cash,
            most_cancels=float("inf"),
        )
        super().__init__(
            house,
            Server(dial, host, path),
            Feed(house, DeriveMarket(room)),
            Trading(house, known, calls),
            data=make_data_dialect(room),
            trade=make_trade_dialect(room),
        )

    async def expired_ns(self, symbol: str) -> int | None:
        """By its record; by its name where there is none any more.

        Raises LinkLost, ExchangeAmbiguous, ExchangeMalformed, and ExchangeRefused where it is not that it is unknown.
        """
        now_ns = self._house.clock.now_ms() * expired.MS
        try:
            raw = await self._ready(self._feed).call("public/get_instrument", {"instrument_name": symbol})
        except ExchangeRefused as error:
            if error.code not in NOT_THERE:
                raise
            return expired.ended_ns(symbol, now_ns)
        return expired.read_end(raw, now_ns)

    async def deliveries(self, instrument: Instrument) -> list[CashMoved]:
        """Raises LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed."""
        return await self._cash.deliveries(self._ready(self._trading), instrument)

    async def index_price(self, index: str) -> float:
        """The index in USD, by its name (ETH-USD). Raises as `deliveries`; ExchangeRefused for an unknown one."""
        params = {"currency": index.removesuffix("-USD")}
        return read_spot(await self._ready(self._feed).call("public/get_currency", params))
