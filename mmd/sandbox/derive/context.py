"""What every method of the dialect works with, and what a method is."""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from mmd.sandbox.accounts import Account
from mmd.sandbox.alarms import Alarms
from mmd.sandbox.derive.budgets import NON_MATCHING, Budgets
from mmd.sandbox.derive.link import Link
from mmd.sandbox.derive.naming import UuidNames
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.tickets import Tickets
from mmd.sandbox.derive.wallets import Caller, Wallets
from mmd.sandbox.engine import Engine
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.publisher import Publisher
from mmd.sandbox.rpc import RpcError


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator of the exchange has declared; the times in ms."""

    label: str
    message: str
    severity: str
    monitor_type: str
    creation_timestamp: int


class Trouble:
    """What levers have armed that only this dialect knows."""

    def __init__(self, options: DeriveOptions, seed: int) -> None:
        self.replaced_told = options.replaced_told
        self.mismatch_in_result = options.mismatch_in_result
        self.failing_replaces: list[tuple[int, str]] = []
        """Errors of the orders that the next replaces fail to make, after they have cancelled."""
        self.failing_fetches = 0
        """How many of the next private/get_subaccount say failed_to_fetch."""
        self.books_late_ms = 0
        """How much too old the times of books are."""
        self.refused_channels: frozenset[str] = frozenset()
        self.incidents: list[Incident] = []
        self.chance = random.Random(f"{seed}/derive")


class Context:
    """The sandbox as methods see it. `wall_us` is its clock (Unix µs); `want` brings an instrument to life."""

    def __init__(
        self,
        engine: Engine,
        options: DeriveOptions,
        publisher: Publisher[Link],
        wallets: Wallets,
        tickets: Tickets,
        alarms: Alarms,
        wall_us: Callable[[], int],
        want: Callable[[str], None],
        names: UuidNames,
        trouble: Trouble,
    ) -> None:
        self.engine = engine
        self.options = options
        self.wallets = wallets
        self.budgets = Budgets(options.rates)
        self.publisher = publisher
        self.tickets = tickets
        self.alarms = alarms
        self.trouble = trouble
        self.wall_us = wall_us
        self.want = want
        self.http_ids = names

    @property
    def floor(self) -> Floor:
        return self.engine.floor

    @property
    def now_ms(self) -> int:
        return self.wall_us() // 1000

    def listing(self, name: str, *, alive: bool = True) -> Listing:
        """The instrument of this name; `alive` also brings its book to life. 12001 for an unknown one."""
        found = self.floor.listings.get(name)
        if found is None:
            raise RpcError(12001, "Instrument not found")
        if alive:
            self.want(name)
        return found

    def index(self, currency: str) -> str:
        """The name of a currency's index. 12002 for an unknown one."""
        name = f"{currency.lower()}_usd"
        if currency != currency.upper() or name not in self.floor.indexes:
            raise RpcError(12002, "Currency not found")
        return name


class Call(msgspec.Struct, gc=False):
    """One call on its way: over which link, by whom (None: not logged in)."""

    link: Link
    caller: Caller | None

    @property
    def owner(self) -> Caller:
        """Private methods only: their caller is checked before they run."""
        assert self.caller is not None
        return self.caller

    def account(self, context: Context, subaccount_id: int) -> Account:
        """One of the caller's subaccounts. RpcError: 14001 where it is not the wallet's, 403 where not the key's."""
        if subaccount_id not in self.owner.wallet.subaccounts:
            raise RpcError(14001, "Subaccount not found")
        if subaccount_id not in self.owner.subaccounts:
            raise RpcError(403, "Forbidden", "the session key is not for this subaccount")
        return context.floor.account(str(subaccount_id), context.now_ms)

    def check_wallet(self, wallet: str) -> None:
        """RpcError (14020) where a wallet is named that is not the caller's."""
        if wallet.lower() != self.owner.wallet.address.lower():
            raise RpcError(14020, "Wallet does not match")


class Nothing(msgspec.Struct):
    """No parameters."""


class Method(msgspec.Struct, frozen=True):
    """`run` takes parameters of the type `params`. `budget`: a class of request, or how they say which.

    `scope`: what a session key must be allowed, "" for any. `websocket`: not over HTTP.
    """

    params: type[msgspec.Struct]
    run: Callable[[Context, Call, Any], object]
    budget: str | Callable[[Any], str] = NON_MATCHING
    private: bool = False
    scope: str = ""
    websocket: bool = False
