"""From an exchange's part of the configuration to a live exchange: where it is, how to get there, who we are."""

import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mmd.config.model import ExchangeConfig, NetworkKind, SandboxMarket
from mmd.config.secrets import ExposedSecret
from mmd.domain.errors import CredentialError
from mmd.exchanges.api import Dial, Exchange, Reaper, Reaping
from mmd.exchanges.deribit.reaping import DeribitReaper
from mmd.exchanges.deribit.session import Deribit
from mmd.exchanges.link import tcp_dialer
from mmd.sandbox.markets import GeneratorSettings, generated_market, recorded_market
from mmd.sandbox.serve import Sandbox, SandboxOptions
from mmd.shell import logs

DERIBIT_URLS = {
    NetworkKind.MAINNET: "wss://www.deribit.com/ws/api/v2",
    NetworkKind.TESTNET: "wss://test.deribit.com/ws/api/v2",
}
SANDBOX_URL = "ws://sandbox.invalid/ws/api/v2"  # over memory: the name goes into the handshake only
# In the sandbox every client id is an account of its own; with no key configured, this one.
SANDBOX_KEY = ("mmd-sandbox", "mmd-sandbox")


class Wired(msgspec.Struct, frozen=True):
    """An exchange, and the sandbox that serves it if it is the one inside this process.

    `account`: whose orders and positions they are; a sandbox inside a process ends with it.
    """

    exchange: Exchange
    sandbox: Sandbox | None
    network: str
    account: str


def is_local(config: ExchangeConfig) -> bool:
    """A sandbox, in this process or in another one on this machine: no account of anybody's is there."""
    if config.network is NetworkKind.URL and config.url:
        return urlsplit(config.url).hostname in ("127.0.0.1", "::1", "localhost")
    return config.network is NetworkKind.SANDBOX


def credentials(config: ExchangeConfig) -> tuple[str, str]:
    """Client id and secret, read now; CredentialError says what is missing or exposed.

    Where no account can be (`is_local`), a missing key is replaced by a name of our own.
    """
    if config.credentials is None:
        if is_local(config):
            return SANDBOX_KEY
        raise CredentialError(f"exchanges.{config.name}.credentials: needed for network {config.network}")
    found: list[str] = []
    missing: list[CredentialError] = []
    for secret in (config.credentials.client_id, config.credentials.client_secret):
        try:
            found.append(secret.reveal())
        except ExposedSecret:
            raise
        except CredentialError as error:
            missing.append(error)
    if missing:
        if is_local(config):
            return SANDBOX_KEY
        raise missing[0]
    client_id, client_secret = found
    logs.register_secret(client_secret)
    return client_id, client_secret


def make_sandbox(config: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
    """The in-process sandbox with the market that the options ask for."""
    options = config.sandbox
    settings = GeneratorSettings(intensity=options.intensity)
    now_ms = wall_ns() // 1_000_000
    if options.market is SandboxMarket.RECORDED:
        feed = Path(options.feed) if options.feed else None
        market = recorded_market(feed, None, options.seed, False, settings=settings, now_ms=now_ms)
    else:
        market = generated_market(options.seed, settings=settings, now_ms=now_ms)
    return Sandbox(market, SandboxOptions(seed=options.seed), wall_clock_ns=wall_ns)


def wire(config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
    """Build, not connect. Raises CredentialError."""
    client_id, client_secret = credentials(config)
    sandbox = None
    dial: Dial
    if config.network is NetworkKind.SANDBOX:
        sandbox = make_sandbox(config, now_ns)
        url, dial, network = SANDBOX_URL, sandbox.connect, "sandbox"
    else:
        url = config.url or DERIBIT_URLS[config.network]
        dial, network = tcp_dialer(url), config.url or str(config.network)
    server = urlsplit(url)
    exchange = Deribit(
        name=config.name,
        service=service,
        dial=dial,
        host=server.netloc,
        path=server.path.rstrip("/") or urlsplit(SANDBOX_URL).path,
        client_id=client_id,
        client_secret=client_secret,
        grant=str(config.grant),
        wall_clock_ns=now_ns,
        rng=random.Random(f"{service}/{config.name}/{started_ns}"),
        started_ns=started_ns,
        order_valid_ms=config.order_valid_ms,
    )
    account = sandbox.name if sandbox is not None else f"{config.type} {server.netloc} {client_id}"
    return Wired(exchange, sandbox, network, account)


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
    if config.network is NetworkKind.SANDBOX:
        return Vanished(config.name)
    url = config.url or DERIBIT_URLS[config.network]
    client_id, client_secret, notes = _reapers_key(config)
    server = urlsplit(url)
    reaper = DeribitReaper(
        name=config.name,
        network=config.url or str(config.network),
        service=service,
        dial=tcp_dialer(url),
        host=server.netloc,
        path=server.path.rstrip("/") or urlsplit(SANDBOX_URL).path,
        client_id=client_id,
        client_secret=client_secret,
        grant=str(config.grant),
        wall_clock_ns=now_ns,
        rng=random.Random(f"{service}/{config.name}/reaper/{now_ns()}"),
        order_valid_ms=config.order_valid_ms,
        settled=settled,
    )
    reaper.progress.errors += notes
    return reaper


def _reapers_key(config: ExchangeConfig) -> tuple[str, str, list[str]]:
    """Its own, else the daemon's, and what there is to say about that. Raises CredentialError."""
    notes: list[str] = []
    if config.reaper is not None:
        try:
            client_id, client_secret = config.reaper.client_id.reveal(), config.reaper.client_secret.reveal()
        except CredentialError as error:
            notes.append(f"the reaper's own key cannot be read, so the daemon's is used: {error}")
        else:
            logs.register_secret(client_secret)
            return client_id, client_secret, notes
    return *credentials(config), notes
