"""What an exchange lists now, for a dry run: no daemon, no orders, no account."""

import trio

from mmd.config.model import Chain, ExchangeConfig, Grant, NetworkKind, SandboxMarket, SandboxOptions
from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import Mail
from mmd.shell.clock import Clock
from mmd.shell.exchange_types import TYPES, Listing
from mmd.shell.wiring import wire

USD_INDEXES = ("_usd", "-USD")  # how the names of those end that are in USD


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
    if kind is NetworkKind.SANDBOX:
        return trio.run(_list_sandbox, exchange)
    return TYPES[exchange].list_public(exchange, kind)


async def _list_sandbox(name: str) -> Listing:
    clock = Clock()
    options = SandboxOptions(market=SandboxMarket.RECORDED, feed=None, seed=1, intensity=1.0)
    config = ExchangeConfig(
        name=name,
        type=name,
        network=NetworkKind.SANDBOX,
        url=None,
        credentials=None,
        grant=Grant.CLIENT_CREDENTIALS,
        sandbox=options,
        chain=Chain.TESTNET,
    )
    wired = wire(config, "init", clock.now_ns(), clock.now_ns)
    prices: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        assert wired.sandbox is not None, "made for the sandbox"
        await nursery.start(wired.sandbox.run)
        await nursery.start(wired.exchange.run, _Nobody())
        instruments = dict(wired.exchange.instruments)
        for base, index in sorted({(i.base, i.index) for i in instruments.values() if i.index.endswith(USD_INDEXES)}):
            try:
                prices[base] = await wired.exchange.index_price(index)
            except ExchangeRefused:
                continue  # listed, but its index is not: it can be named, not selected by money
        nursery.cancel_scope.cancel()
    return instruments, prices
