"""The typed, frozen configuration: everything resolved except what only an exchange can tell."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePath
from typing import Any

import msgspec

from mmd.config.nodes import Place
from mmd.config.secrets import Secret
from mmd.domain.addresses import checksum, parse_address
from mmd.domain.errors import CredentialError
from mmd.domain.instruments import Contract, Kind
from mmd.domain.reasons import Mode, Severity
from mmd.domain.settings import (
    DataRules,
    JournalSettings,
    KillSwitches,
    PortfolioLimits,
    Profile,
    Protection,
    Reconciliation,
    SymbolLimits,
    SymbolSettings,
)

FORMAT_VERSION = 1
DERIVE = "derive"


class NetworkKind(StrEnum):
    MAINNET = "mainnet"
    TESTNET = "testnet"
    SANDBOX = "sandbox"
    URL = "url"


class Grant(StrEnum):
    CLIENT_CREDENTIALS = "client_credentials"
    CLIENT_SIGNATURE = "client_signature"


class Chain(StrEnum):
    """Whose signatures a server of Derive takes; a sandbox takes the test network's."""

    MAINNET = "mainnet"
    TESTNET = "testnet"


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


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Derive: the owner's address or where it is, where the key is that signs, the number of the part.

    `reaper_key`: the key of `mmd reap`, else the daemon's own.
    """

    address: str | Secret
    session_key: Secret
    subaccount: int
    reaper_key: Secret | None = None

    def owner(self, environ: Mapping[str, str] | None = None) -> str:
        """The address with its checksum, read now. CredentialError for what is missing, or no address: not quoted."""
        written = self.address if isinstance(self.address, str) else self.address.reveal(environ)
        try:
            return checksum(parse_address(written))
        except ValueError as error:
            raise CredentialError(str(error)) from None


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The market of `network: sandbox`; `feed` None: the one that comes with mmd."""

    market: SandboxMarket
    feed: str | None
    seed: int
    intensity: float


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. `url` is set for NetworkKind.URL only, `credentials` and `wallet` are absent in the sandbox only.

    `credentials`, `grant` and `reaper` (the key of `mmd reap`, else the daemon's own) are of Deribit, `wallet`,
    `chain` and `order_life_seconds` (how long an order may rest) of Derive. `order_valid_ms`: how long after it
    was sent an order may still be taken by the exchange; None: for ever.
    """

    name: str
    type: str
    network: NetworkKind
    url: str | None
    credentials: Credentials | None
    grant: Grant
    sandbox: SandboxOptions
    protections: tuple[Protection, ...] = ()
    reaper: Credentials | None = None
    order_valid_ms: int | None = 2000
    wallet: Wallet | None = None
    chain: Chain | None = None
    order_life_seconds: int | None = None


class WebhookFormat(StrEnum):
    """ALERTMANAGER: a list of alerts, as its API takes them; WEBHOOK: one group, as it sends them."""

    ALERTMANAGER = "alertmanager"
    WEBHOOK = "webhook"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts of at least `min_severity` are posted; `bearer`: a token for the Authorization header."""

    name: str
    url: str
    format: WebhookFormat
    min_severity: Severity
    bearer: Secret | None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A post every `seconds` while the daemon is well: its absence is the alarm."""

    url: str
    seconds: float
    format: WebhookFormat
    bearer: Secret | None


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`labels` go with every alert; an alert that lasts is sent again after `repeat_seconds`."""

    webhooks: tuple[Webhook, ...] = ()
    heartbeat: Heartbeat | None = None
    repeat_seconds: float = 3600.0
    labels: dict[str, str] = {}


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
    """One element of `instruments:` with everything its symbols will share; `path` as in `instruments[1]`.

    Limits depend on the kind of the instrument: `settings` has those of the first kind that the
    entry can have, and `resolve` gives each symbol its own.
    """

    path: str
    target: Named | Selection
    spread: str
    settings: SymbolSettings

    @property
    def index(self) -> int:
        """Its place in the list."""
        return int(self.path.removeprefix("instruments[").removesuffix("]"))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration.

    `effective` is the merged content with every default filled in, as plain values; `origins`
    says for each of its paths where it was written (absent: a default). `sha256` is over the
    effective content: equal configurations have equal hashes, however they are written.
    `symbol_limits` is `limits.per_symbol` alone; `allowed` None: every instrument.
    """

    version: int
    service: Service
    exchanges: dict[str, ExchangeConfig]
    profiles: dict[str, Profile]
    entries: tuple[Entry, ...]
    symbol_limits: SymbolLimits
    allowed: tuple[str, ...] | None
    portfolio: PortfolioLimits
    market_data: DataRules
    switches: KillSwitches
    alerts: AlertSettings
    journal: JournalSettings = JournalSettings()
    reconciliation: Reconciliation = Reconciliation()
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

    def source(self, path: str) -> str:
        """`path (file:line)` of a value that was written, else `path (default)`; the file by its last name."""
        place = self.origins.get(path)
        return f"{path} ({'default' if place is None else f'{PurePath(place.file).name}:{place.line}'})"
