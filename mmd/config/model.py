"""The typed, frozen configuration: everything resolved except what only an exchange can tell."""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from mmd.config.nodes import Place
from mmd.config.secrets import Secret
from mmd.domain.instruments import Contract, Kind
from mmd.domain.reasons import Mode
from mmd.domain.settings import DataRules, PortfolioLimits, Profile, SymbolLimits, SymbolSettings

FORMAT_VERSION = 1


class NetworkKind(StrEnum):
    MAINNET = "mainnet"
    TESTNET = "testnet"
    SANDBOX = "sandbox"
    URL = "url"


class Grant(StrEnum):
    CLIENT_CREDENTIALS = "client_credentials"
    CLIENT_SIGNATURE = "client_signature"


class SandboxMarket(StrEnum):
    RECORDED = "recorded"
    GENERATED = "generated"


class LogFormat(StrEnum):
    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """`socket` None: in the runtime directory. A group of None gives nobody that right by group."""

    socket: str | None
    admin_group: str | None
    view_group: str | None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics_listen` (host, port) or None for no endpoint; `state_dir` None: the system's default."""

    name: str
    mode: Mode
    metrics_listen: tuple[str, int] | None
    control: Control
    log_level: str
    log_format: LogFormat
    statistics_seconds: float
    state_dir: str | None


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Where the key is; nothing is read before `reveal()`."""

    client_id: Secret
    client_secret: Secret


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The market of `network: sandbox`; `feed` None: the one that comes with mmd."""

    market: SandboxMarket
    feed: str | None
    seed: int
    intensity: float


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. `url` is set for NetworkKind.URL only; credentials may be absent in the sandbox only."""

    name: str
    type: str
    network: NetworkKind
    url: str | None
    credentials: Credentials | None
    grant: Grant
    sandbox: SandboxOptions


class Named(msgspec.Struct, frozen=True):
    """An instrument by its name."""

    exchange: str
    symbol: str


class NearestExpiries(msgspec.Struct, frozen=True):
    count: int


class WithinDays(msgspec.Struct, frozen=True):
    days: Decimal


class AllExpiries(msgspec.Struct, frozen=True):
    pass


class NearestToMoney(msgspec.Struct, frozen=True):
    count: int


class AllStrikes(msgspec.Struct, frozen=True):
    pass


Expiries = tuple[date, ...] | NearestExpiries | WithinDays | AllExpiries
Strikes = tuple[Decimal, ...] | NearestToMoney | AllStrikes


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Instruments by what they are. Expiry days are UTC; empty tuples where the kinds need none."""

    exchange: str
    underlying: str
    contract: Contract
    expiries: Expiries
    strikes: Strikes
    kinds: tuple[Kind, ...]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One element of `instruments:` with everything its symbols will share; `path` as in `instruments[1]`."""

    path: str
    target: Named | Selection
    spread: str
    settings: SymbolSettings


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration.

    `effective` is the merged content with every default filled in, as plain values; `origins`
    says for each of its paths where it was written (absent: a default). `sha256` is over the
    effective content: equal configurations have equal hashes, however they are written.
    """

    version: int
    service: Service
    exchanges: dict[str, ExchangeConfig]
    profiles: dict[str, Profile]
    entries: tuple[Entry, ...]
    symbol_limits: SymbolLimits
    portfolio: PortfolioLimits
    market_data: DataRules
    effective: dict[str, Any]
    origins: dict[str, Place]
    files: tuple[str, ...]
    sha256: str

    def where(self, path: str) -> Place:
        """Where the value at `path` was written, or the nearest one above it."""
        while path:
            if path in self.origins:
                return self.origins[path]
            cut = max(path.rfind("."), path.rfind("["))
            path = path[: max(cut, 0)]
        return self.origins[""]
