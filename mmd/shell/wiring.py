"""From an exchange's part of the configuration to a live exchange: where it is, how to get there, who we are."""

import random
from collections.abc import Callable

import msgspec

from mmd.config.model import ExchangeConfig, NetworkKind
from mmd.exchanges.api import Exchange, Reaper, Reaping
from mmd.exchanges.link import tcp_dialer
from mmd.sandbox.serve import Sandbox
from mmd.shell.accounts import SANDBOX_KEY
from mmd.shell.exchange_types import TYPES, Way


class Wired(msgspec.Struct, frozen=True):
    """An exchange, and the sandbox that serves it if it is the one inside this process.

    `account`: whose orders and positions they are; a sandbox inside a process ends with it.
    """

    exchange: Exchange
    sandbox: Sandbox | None
    network: str
    account: str


def make_sandbox(config: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
    """The in-process sandbox with the market that the options ask for."""
    market, options = TYPES[config.type].sandbox(config, wall_ns() // 1_000_000)
    return Sandbox(market, options, wall_clock_ns=wall_ns)


def wire(config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
    """Build, not connect. Raises CredentialError."""
    kind = TYPES[config.type]
    url = kind.url(config)
    sandbox = make_sandbox(config, now_ns) if config.network is NetworkKind.SANDBOX else None
    way = Way(
        service=service,
        network=config.url or str(config.network),
        url=url,
        dial=tcp_dialer(url) if sandbox is None else sandbox.connect,
        rng=random.Random(f"{service}/{config.name}/{started_ns}"),
        now_ns=now_ns,
    )
    exchange = kind.make(config, way, started_ns)
    account = sandbox.name if sandbox is not None else f"{config.type} {way.host} {kind.account(config)}"
    return Wired(exchange, sandbox, way.network, account)


# --- reaping -------------------------------------------------------------------------------------


class Vanished:
    """Implements Reaper for the sandbox inside the daemon's own process: it is gone with the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.network = "sandbox, gone with its process"
        self.progress = Reaping(account=SANDBOX_KEY[0])

    async def reap(self, *, only_look: bool) -> None:
        self.progress.before = self.progress.after = 0
        self.progress.proven = not only_look


def wire_reaper(config: ExchangeConfig, service: str, now_ns: Callable[[], int], *, settled: bool) -> Reaper:
    """Build, not connect, with the reaper's own key where there is one. Raises CredentialError.

    `settled`: the daemon itself has seen to it that nothing of it is under way to the exchange.
    """
    kind = TYPES[config.type]
    if config.network is NetworkKind.SANDBOX:
        return Vanished(config.name)
    url = kind.url(config)
    way = Way(
        service=service,
        network=config.url or str(config.network),
        url=url,
        dial=tcp_dialer(url),
        rng=random.Random(f"{service}/{config.name}/reaper/{now_ns()}"),
        now_ns=now_ns,
    )
    return kind.make_reaper(config, way, settled=settled)
