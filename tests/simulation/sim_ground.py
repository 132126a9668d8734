"""What differs between the exchanges that the simulation plays on: names, configuration, errors, how to get there.

Everything else of the simulation is the same for all, and asks the ground of its plan.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

from pytest import MonkeyPatch
from sim_http import WireTransport
from sim_market import DERIBIT_KINDS, DERIVE_KINDS, KINDS, Kind

from mmd.config.schema import definition
from mmd.exchanges.api import Dial
from mmd.exchanges.derive import lifetimes, market
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET
from mmd.sandbox.derive.options import DeriveOptions, Rates
from mmd.sandbox.faults import Methods
from mmd.sandbox.levers import CANCELS, ORDERS, ORDERS_AND_EDITS
from mmd.sandbox.serve import Exchange, SandboxOptions
from mmd.shell import exchange_types, wiring

ID_VARIABLE, SECRET_VARIABLE = "MMD_SIM_ID", "MMD_SIM_SECRET"
Dialler = Callable[[str], Dial]
"""A way to the exchange, for what is said."""


class Ground(ABC):
    """One exchange. `account`: ours, as the sandbox calls it. `prefix` of every seed's chance.

    `methods` and `refusals` (code, message) are what goes wrong with requests; `missed`: the code of a cancel that
    came too late. `protected_share` of the seeds have maker protection; after `reaped_share` of the crashes the reaper
    looks before the next life begins.
    """

    name: ClassVar[str]
    account: ClassVar[str]
    id: ClassVar[str]
    secret: ClassVar[str]
    prefix: ClassVar[str]
    kinds: ClassVar[Mapping[str, Kind]]
    perpetuals: ClassVar[tuple[str, ...]]
    option: ClassVar[str]
    protected_share: ClassVar[float]
    reaped_share: ClassVar[float]
    methods: ClassVar[tuple[Methods, ...]]
    refusals: ClassVar[tuple[tuple[int, str], ...]]
    missed: ClassVar[int]
    weights: ClassVar[Mapping[str, int]] = {}
    moods: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    @property
    def environment(self) -> dict[str, str]:
        return {ID_VARIABLE: self.id, SECRET_VARIABLE: self.secret}

    @abstractmethod
    def entry(self, chance: Random, symbols: list[str], *, protected: bool) -> dict[str, Any]:
        """The exchange's part of a configuration, as plain values."""

    @abstractmethod
    def sandbox(self, seed: int) -> SandboxOptions: ...

    @contextmanager
    def adapted(self) -> Iterator[None]:
        """Within, the daemon takes what makes more happen in a minute than the exchange would let it."""
        yield

    def plug(self, patch: MonkeyPatch, dialler: Dialler) -> None:
        """Let every connection go over the wire."""
        patch.setattr(wiring, "tcp_dialer", lambda url: dialler("socket"))


class DeribitGround(Ground):
    name = "deribit"
    account = id = "simulated-client"
    secret = "sim-secret-4f1c9a7be2d05836"
    prefix = ""
    kinds = DERIBIT_KINDS
    perpetuals = ("BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL")
    option = "BTC-25DEC26-90000-C"
    protected_share = 0.25
    reaped_share = 0.5
    methods = (
        ORDERS,
        ORDERS,
        ORDERS,
        ORDERS_AND_EDITS,
        ORDERS_AND_EDITS,
        "private/edit",
        CANCELS,
        "private/",
        "private/get_open_orders",
        "private/get_order_state",
        "private/get_user_trades",
        "private/get_positions",
        "public/subscribe",
        "public/auth",
    )
    refusals = (
        (11030, "other_reject"),
        (10009, "not_enough_funds"),
        (11051, "system_maintenance"),
        (13888, "timed_out"),
    )
    missed = 10004

    def entry(self, chance: Random, symbols: list[str], *, protected: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "deribit",
            "network": {"url": "ws://127.0.0.1:1/ws/api/v2"},
            "credentials": {"client_id": {"env": ID_VARIABLE}, "client_secret": {"env": SECRET_VARIABLE}},
            "grant": chance.choice(("client_signature", "client_credentials")),
        }
        coins = sorted({KINDS[name].base for name in symbols if not KINDS[name].linear})
        if protected and coins:
            found["maker_protection"] = [
                {"underlying": base, "interval_seconds": 5, "frozen_seconds": 4, "max_quantity": 500} for base in coins
            ]
        return found

    def sandbox(self, seed: int) -> SandboxOptions:
        return SandboxOptions(seed=seed % 1000)


LEAST_LIFE_SECONDS = 4  # of a signature here, so that orders end within a minute
LIST_AGAIN_MS = 30_000  # until an instrument that was closed is looked for again
SLOW = Rates(matching=4, non_matching=10, perp=4, option=4)  # requests a second, of a small maker


class DeriveGround(Ground):
    name = "derive"
    account = str(SUBACCOUNT)
    id = WALLET
    secret = SESSION_SECRET.removeprefix("0x")
    prefix = "derive/"
    kinds = DERIVE_KINDS
    perpetuals = ("ETH-PERP", "BTC-PERP")
    option = "ETH-20261225-3200-C"
    protected_share = 0.6
    reaped_share = 0.5
    methods = (
        ORDERS,
        ORDERS,
        ORDERS,
        ORDERS_AND_EDITS,
        "private/replace",
        "private/replace",
        "private/replace",
        CANCELS,
        "private/",
        "private/get_subaccount",
        "private/get_order",
        "private/get_trade_history",
        "private/cancel_by_label",
        "private/get_mmp_config",
        "private/set_",
        "subscribe",
        "public/login",
        "public/get_time",
    )
    refusals = (
        (11002, "Rejected from queue"),
        (11000, "Insufficient funds"),
        (11022, "Reject timestamp passed"),
        (11008, "Post only reject"),
        (11015, "Market maker protection frozen"),
        (11017, "Nonce already used"),
        (9000, "Order confirmation timeout"),
        (-32603, "Internal error"),
        (-32000, "Rate limit exceeded"),
    )
    missed = 11004
    weights = {  # noqa: RUF012 - declared so above
        "half_replace": 8,
        "fill_before_edits": 8,
        "show_mismatch": 2,
        "told_replaces": 1,
        "expire_order": 8,
        "unconfirmed": 6,
        "unanswered": 8,
        "cancel_wallet": 1,
        "disconnect_elsewhere": 4,
        "disarm_wallet": 1,
        "exhaust": 2,
        "throttle": 2,
        "fail_fetches": 2,
        "late_trades": 3,
        "late_orders": 3,
        "split_fills": 2,
        "repeat_answers": 1,
        "incident": 1,
        "protection": 4,
    }
    moods = {  # noqa: RUF012 - declared so above
        "replaces": {"half_replace": 20, "fill_before_edits": 20, "unconfirmed": 8, "told_replaces": 5},
        "wallet": {"cancel_wallet": 8, "disconnect_elsewhere": 10, "exhaust": 10, "throttle": 10, "disarm_wallet": 6},
        "ends": {"expire_order": 20, "protection": 12, "unanswered": 15, "late_orders": 8},
    }

    def entry(self, chance: Random, symbols: list[str], *, protected: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "derive",
            "network": {"url": "ws://127.0.0.1:1/v3/ws", "chain": "mainnet"},
            "wallet": {"env": ID_VARIABLE},
            "session_key": {"env": SECRET_VARIABLE},
            "subaccount": SUBACCOUNT,
            "order_life_seconds": chance.choice((20, 30, 60, 600)),
            "order_valid_ms": chance.choice((1000, 2000, 4000)),
        }
        reset, frozen_ms = chance.choice((("manual", 0), ("manual", 4000), ("automatic", 4000)))
        if protected:
            found["maker_protection"] = [
                {
                    "currency": base,
                    "interval_ms": 5000,
                    "frozen_ms": frozen_ms,
                    "max_amount": chance.choice((5, 500)),
                    "reset": reset,
                }
                for base in sorted({KINDS[name].base for name in symbols})
            ]
        return found

    def sandbox(self, seed: int) -> SandboxOptions:
        chance = Random(f"{self.prefix}{seed}/sandbox")
        rates = {"rates": SLOW} if chance.random() < 0.2 else {}
        derive = DeriveOptions(least_life_seconds=LEAST_LIFE_SECONDS, **rates)
        return SandboxOptions(exchange=Exchange.DERIVE, seed=seed % 1000, derive=derive)

    @contextmanager
    def adapted(self) -> Iterator[None]:
        with MonkeyPatch.context() as patch:
            patch.setattr(lifetimes, "LEAST_SECONDS", LEAST_LIFE_SECONDS)
            patch.setattr(market, "CLOSED_MS", LIST_AGAIN_MS, raising=False)
            patch.setitem(definition("derive")["properties"]["order_life_seconds"], "minimum", LEAST_LIFE_SECONDS)
            yield

    def plug(self, patch: MonkeyPatch, dialler: Dialler) -> None:
        super().plug(patch, dialler)
        real = exchange_types.DeriveReaper

        def made(**values: Any) -> exchange_types.DeriveReaper:
            return real(**values, transport=WireTransport(dialler("HTTP")))

        patch.setattr(exchange_types, "DeriveReaper", made)


DERIBIT, DERIVE = DeribitGround(), DeriveGround()
GROUNDS: Mapping[str, Ground] = {ground.name: ground for ground in (DERIBIT, DERIVE)}
