"""What every method of the dialect works with, and what a method is."""

import re
from collections.abc import Callable

import msgspec

from mmd.sandbox.deribit.auth import Grant, Registry
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.deribit.rpc import Params, invalid_param
from mmd.sandbox.engine import Engine
from mmd.sandbox.floor import Floor
from mmd.sandbox.limits import Budgets, Limiter
from mmd.sandbox.listing import Listing
from mmd.sandbox.publisher import Publisher
from mmd.sandbox.rpc import RpcError

NAME = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)?(-[A-Za-z0-9_]+)*")


class Context:
    """The sandbox as methods see it. `wall_us` is its clock (Unix µs); `want` brings an instrument to life."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        budgets: Budgets,
        publisher: Publisher[Link],
        wall_us: Callable[[], int],
        want: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self.registry = registry
        self.budgets = budgets
        self.limiter = Limiter(budgets)
        self.publisher = publisher
        self.wall_us = wall_us
        self.want = want
        self.ready_json: dict[str, tuple[str, msgspec.Raw]] = {}

    @property
    def floor(self) -> Floor:
        return self.engine.floor

    @property
    def now_ms(self) -> int:
        return self.wall_us() // 1000

    def listing(self, params: Params, name: str = "instrument_name", *, alive: bool = True) -> Listing:
        """The instrument a call names; `alive` also brings its book to life. 13020 for an unknown one."""
        wanted = params.text(name)
        listing = self.floor.listings.get(wanted)
        if listing is None and NAME.fullmatch(wanted) is None:
            raise invalid_param(name, "wrong format")
        if listing is None:
            raise RpcError(13020, "not_found")
        if alive:
            self.want(wanted)
        return listing


class Call(msgspec.Struct, gc=False):
    """One call on its way: who, over which link, with which parameters."""

    link: Link
    params: Params
    grant: Grant | None

    @property
    def account(self) -> str:
        """Private methods only: their grant is checked before they run."""
        assert self.grant is not None
        return self.grant.account


class Method(msgspec.Struct, frozen=True):
    """`scope` is (group, level) for private methods; `budget` a field of Budgets; `websocket`: not over HTTP."""

    run: Callable[[Context, Call], object]
    scope: tuple[str, str] | None = None
    budget: str = "default"
    websocket: bool = False


def websocket_only() -> RpcError:
    return RpcError(10030, "must_be_websocket_request")
