"""What an exchange lists now, for a dry run: no daemon, no orders, no account."""

from collections.abc import Mapping

import trio

from mmd.config.model import DERIVE, ExchangeConfig, Grant, NetworkKind, SandboxMarket, SandboxOptions
from mmd.domain.errors import ExchangeRefused, LinkLost
from mmd.domain.events import Mail
from mmd.domain.instruments import Instrument
from mmd.exchanges.deribit.listing import list_public
from mmd.exchanges.derive.preflight import list_public as list_derive
from mmd.exchanges.http_rpc import http_base
from mmd.shell.accounts import DERIVE_URLS
from mmd.shell.clock import Clock
from mmd.shell.wiring import DERIBIT_URLS, wire

Listing = tuple[Mapping[str, Instrument], Mapping[str, float]]


class _Nobody:
    """A sink without symbols: it only lets the session run."""

    def post(self, symbol: str, event: Mail) -> None:
        """Nobody quotes."""

    def post_all(self, event: Mail) -> None:
        """Nobody quotes."""

    async def deliver(self) -> None:
        """Nobody decides."""

    def round_trip(self, seconds: float) -> None:
        """Nobody measures."""

    def report(self, name: str, detail: str) -> None:
        """Nobody reads."""


def list_instruments(exchange: str, network: str) -> Listing:
    """Instruments by symbol and index prices in USD by coin. Raises MmdError or OSError."""
    kind = NetworkKind(network)
    if exchange == DERIVE:
        if kind is NetworkKind.SANDBOX:
            raise LinkLost("the sandbox of derive lists nothing before a daemon runs it")
        return trio.run(list_derive, exchange, http_base(DERIVE_URLS[kind])), {}
    if kind is NetworkKind.SANDBOX:
        return trio.run(_list_sandbox, exchange)
    return list_public(exchange, DERIBIT_URLS[kind])


async def _list_sandbox(name: str) -> Listing:
    clock = Clock()
    options = SandboxOptions(market=SandboxMarket.RECORDED, feed=None, seed=1, intensity=1.0)
    config = ExchangeConfig(
        name=name,
        type="deribit",
        network=NetworkKind.SANDBOX,
        url=None,
        credentials=None,
        grant=Grant.CLIENT_CREDENTIALS,
        sandbox=options,
    )
    wired = wire(config, "init", clock.now_ns(), clock.now_ns)
    prices: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        assert wired.sandbox is not None, "made for the sandbox"
        await nursery.start(wired.sandbox.run)
        await nursery.start(wired.exchange.run, _Nobody())
        instruments = dict(wired.exchange.instruments)
        for base, index in sorted({(i.base, i.index) for i in instruments.values() if i.index.endswith("_usd")}):
            try:
                prices[base] = await wired.exchange.index_price(index)
            except ExchangeRefused:
                continue  # listed, but its index is not: it can be named, not selected by money
        nursery.cancel_scope.cancel()
    return instruments, prices
