"""What the shell has to know of each type of exchange: where it is, who we are there, and how its parts are made.

The one place that names rooms: everything else looks into `TYPES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import ClassVar
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from mmd.config.model import DERIVE, Chain, ExchangeConfig, NetworkKind, SandboxMarket
from mmd.domain.instruments import Instrument
from mmd.exchanges.api import Dial, Exchange
from mmd.exchanges.deribit.listing import list_public as list_deribit
from mmd.exchanges.deribit.preflight import DeribitPreflight
from mmd.exchanges.deribit.preflight import Key as DeribitKey
from mmd.exchanges.deribit.reaping import DeribitReaper
from mmd.exchanges.deribit.session import Deribit
from mmd.exchanges.derive.lifetimes import MMP_ORDER_SECONDS
from mmd.exchanges.derive.preflight import DerivePreflight
from mmd.exchanges.derive.preflight import list_public as list_derive
from mmd.exchanges.derive.reaping import DeriveReaper
from mmd.exchanges.derive.session import Derive
from mmd.exchanges.derive.signing import MAINNET, TESTNET, Domain
from mmd.exchanges.http_rpc import http_base
from mmd.exchanges.preflight import Preflight
from mmd.exchanges.reap import ReapLoop
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.generator import GeneratorSettings
from mmd.sandbox.markets import generated_market, recorded_market
from mmd.sandbox.model import Market
from mmd.sandbox.serve import Exchange as Spoken
from mmd.sandbox.serve import SandboxOptions
from mmd.shell.accounts import (
    account_text,
    credentials,
    derive_account,
    derive_identity,
    reaper_credentials,
    reaper_identity,
)

Listing = tuple[Mapping[str, Instrument], Mapping[str, float]]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How to get to an exchange, and on whose clock. `network`: for people."""

    service: str
    network: str
    url: str
    dial: Dial
    rng: Random
    now_ns: Callable[[], int]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


class ExchangeType(ABC):
    """One type. What reads keys raises CredentialError."""

    urls: ClassVar[Mapping[NetworkKind, str]]

    def url(self, config: ExchangeConfig) -> str:
        """Where its WebSocket is, path included; for a sandbox in this process a name for the handshake only."""
        path = urlsplit(self.urls[NetworkKind.MAINNET]).path
        if config.network is NetworkKind.SANDBOX:
            return f"ws://sandbox.invalid{path}"
        url = (config.url or self.urls[config.network]).rstrip("/")
        return url if urlsplit(url).path else url + path

    @abstractmethod
    def account(self, config: ExchangeConfig) -> str:
        """Whose orders and positions they are, as the daemon's key has it."""

    @abstractmethod
    def likely_account(self, config: ExchangeConfig) -> str:
        """The same, where that can be told without the secret."""

    @abstractmethod
    def locked(self, account: str) -> str:
        """The part of an account that one daemon has for itself."""

    @abstractmethod
    def make(self, config: ExchangeConfig, way: Way, started_ns: int) -> Exchange:
        """The exchange as the daemon sees it; connects nothing."""

    @abstractmethod
    def make_reaper(self, config: ExchangeConfig, way: Way, *, settled: bool) -> ReapLoop:
        """With the reaper's own key where there is one."""

    @abstractmethod
    def make_preflight(
        self,
        config: ExchangeConfig,
        network: str,
        wall_ns: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None,
        *,
        known: bool,
    ) -> Preflight:
        """`known`: as who we are, else only at what is public."""

    @abstractmethod
    def sandbox(self, config: ExchangeConfig, now_ms: int) -> tuple[Market, SandboxOptions]:
        """What a sandbox in this process is made of."""

    @abstractmethod
    def list_public(self, exchange: str, network: NetworkKind) -> Listing:
        """What it lists there. Raises MmdError."""


class DeribitType(ExchangeType):
    urls = {  # noqa: RUF012 - declared so above
        NetworkKind.MAINNET: "wss://www.deribit.com/ws/api/v2",
        NetworkKind.TESTNET: "wss://test.deribit.com/ws/api/v2",
    }

    def account(self, config: ExchangeConfig) -> str:
        return credentials(config)[0]

    def likely_account(self, config: ExchangeConfig) -> str:
        return config.credentials.client_id.reveal() if config.credentials is not None else ""

    def locked(self, account: str) -> str:
        return account

    def make(self, config: ExchangeConfig, way: Way, started_ns: int) -> Exchange:
        client_id, client_secret = credentials(config)
        return Deribit(
            name=config.name,
            service=way.service,
            dial=way.dial,
            host=way.host,
            path=way.path,
            client_id=client_id,
            client_secret=client_secret,
            grant=str(config.grant),
            wall_clock_ns=way.now_ns,
            rng=way.rng,
            started_ns=started_ns,
            order_valid_ms=config.order_valid_ms,
        )

    def make_reaper(self, config: ExchangeConfig, way: Way, *, settled: bool) -> ReapLoop:
        notes: list[str] = []
        client_id, client_secret = reaper_credentials(config, notes)
        reaper = DeribitReaper(
            name=config.name,
            network=way.network,
            service=way.service,
            dial=way.dial,
            host=way.host,
            path=way.path,
            client_id=client_id,
            client_secret=client_secret,
            grant=str(config.grant),
            wall_clock_ns=way.now_ns,
            rng=way.rng,
            order_valid_ms=config.order_valid_ms,
            settled=settled,
        )
        reaper.progress.errors += notes
        return reaper

    def make_preflight(
        self,
        config: ExchangeConfig,
        network: str,
        wall_ns: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None,
        *,
        known: bool,
    ) -> Preflight:
        return DeribitPreflight(
            name=config.name,
            network=network,
            base=http_base(self.url(config)),
            key=DeribitKey(*credentials(config), str(config.grant), Random(wall_ns())) if known else None,
            wall_ns=wall_ns,
            transport=transport,
        )

    def sandbox(self, config: ExchangeConfig, now_ms: int) -> tuple[Market, SandboxOptions]:
        options = config.sandbox
        settings = GeneratorSettings(intensity=options.intensity)
        chosen = SandboxOptions(seed=options.seed)
        if options.market is SandboxMarket.GENERATED:
            return generated_market(options.seed, settings=settings, now_ms=now_ms), chosen
        feed = Path(options.feed) if options.feed else None
        return recorded_market(feed, None, options.seed, False, settings=settings, now_ms=now_ms), chosen

    def list_public(self, exchange: str, network: NetworkKind) -> Listing:
        return list_deribit(exchange, self.urls[network])


class DeriveType(ExchangeType):
    urls = {  # noqa: RUF012 - declared so above
        NetworkKind.MAINNET: "wss://api.derive.xyz/v3/ws",
        NetworkKind.TESTNET: "wss://testnet.api.derive.xyz/v3/ws",
    }

    def account(self, config: ExchangeConfig) -> str:
        identity = derive_identity(config)
        return account_text(identity.wallet, identity.subaccount)

    def likely_account(self, config: ExchangeConfig) -> str:
        return derive_account(config)

    def locked(self, account: str) -> str:
        """The wallet: a connection that ends cancels the orders of all its subaccounts, and they share its budget."""
        return account.partition("/")[0]

    def make(self, config: ExchangeConfig, way: Way, started_ns: int) -> Exchange:
        return Derive(
            name=config.name,
            service=way.service,
            dial=way.dial,
            host=way.host,
            path=way.path,
            identity=derive_identity(config),
            domain=domain_of(config),
            wall_clock_ns=way.now_ns,
            rng=way.rng,
            started_ns=started_ns,
            order_valid_ms=config.order_valid_ms,
            order_life_seconds=config.order_life_seconds or MMP_ORDER_SECONDS,
        )

    def make_reaper(self, config: ExchangeConfig, way: Way, *, settled: bool) -> ReapLoop:
        notes: list[str] = []
        identity = reaper_identity(config, notes)
        reaper = DeriveReaper(
            name=config.name,
            network=way.network,
            service=way.service,
            base=http_base(way.url),
            identity=identity,
            account=account_text(identity.wallet, identity.subaccount),
            wall_clock_ns=way.now_ns,
            rng=way.rng,
            order_valid_ms=config.order_valid_ms,
            settled=settled,
        )
        reaper.progress.errors += notes
        return reaper

    def make_preflight(
        self,
        config: ExchangeConfig,
        network: str,
        wall_ns: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None,
        *,
        known: bool,
    ) -> Preflight:
        return DerivePreflight(
            name=config.name,
            network=network,
            base=http_base(self.url(config)),
            identity=derive_identity(config) if known else None,
            domain=domain_of(config),
            wall_ns=wall_ns,
            transport=transport,
        )

    def sandbox(self, config: ExchangeConfig, now_ms: int) -> tuple[Market, SandboxOptions]:
        """There is no recorded market."""
        options = config.sandbox
        market = derive_market(options.seed, settings=GeneratorSettings(intensity=options.intensity), now_ms=now_ms)
        derive = DeriveOptions(chain_id=domain_of(config).chain_id)
        return market, SandboxOptions(exchange=Spoken.DERIVE, seed=options.seed, derive=derive)

    def list_public(self, exchange: str, network: NetworkKind) -> Listing:
        return trio.run(list_derive, exchange, http_base(self.urls[network])), {}


def domain_of(config: ExchangeConfig) -> Domain:
    """For which network orders are signed."""
    return MAINNET if config.chain is Chain.MAINNET else TESTNET


TYPES: Mapping[str, ExchangeType] = {"deribit": DeribitType(), DERIVE: DeriveType()}
