"""Second thoughts about a valid configuration: what looks unintended, and what nobody checked offline."""

import os
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from mmd.config.model import (
    Config,
    Entry,
    ExchangeConfig,
    Named,
    NearestExpiries,
    NearestToMoney,
    NetworkKind,
    Selection,
)
from mmd.config.nodes import Finding
from mmd.config.secrets import ExposedSecret, Secret, Source
from mmd.domain.errors import CredentialError
from mmd.domain.instruments import Kind
from mmd.domain.reasons import Mode
from mmd.domain.settings import Style

OPTION_KINDS = (Kind.CALL, Kind.PUT)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
WIDE_COLLAR = 20  # times the band: past that a collar hardly protects


class Advice(msgspec.Struct, frozen=True):
    """`exposed`: secrets whose rights are wrong, an error of its own; `warnings` count under --strict; notes never."""

    exposed: list[str]
    warnings: list[str]
    notes: list[str]
    not_checked: list[str]


def advise(config: Config, environ: Mapping[str, str] | None = None) -> Advice:
    """Looks at secrets' files where they can be seen from here; never at an exchange."""
    environment = os.environ if environ is None else environ
    exposed: list[str] = []
    notes: list[str] = []
    warnings = [
        *_unused(config),
        *(finding for entry in config.entries for finding in _entry(config, entry)),
        *_oversubscribed(config),
        *(finding for exchange in config.exchanges.values() for finding in _exchange(config, exchange)),
    ]
    for exchange in config.exchanges.values():
        warnings += _secrets(config, exchange, environment, exposed, notes)
    live = config.service.mode is Mode.LIVE
    for exchange in config.exchanges.values():
        if live and exchange.network is NetworkKind.MAINNET:
            notes.append(
                f"{config.where('service.mode')}: service.mode: live on mainnet: {exchange.name} trades real money"
            )
    if not live:
        notes.append("service.mode: shadow: everything is decided, nothing is sent")
    lines = [str(finding) for finding in sorted(set(warnings))]
    return Advice(exposed, lines, notes, _not_checked(config))


def _at(config: Config, path: str, text: str) -> Finding:
    return Finding(config.where(path), path, text)


def _unused(config: Config) -> list[Finding]:
    """Profiles and exchanges that nothing refers to are mostly leftovers or slips of the pen."""
    spreads = {entry.spread for entry in config.entries}
    exchanges = {entry.target.exchange for entry in config.entries}
    found = [_at(config, f"spreads.{name}", "no instrument uses it") for name in config.profiles if name not in spreads]
    found += [
        _at(config, f"exchanges.{name}", "no instrument uses it") for name in config.exchanges if name not in exchanges
    ]
    if not config.entries:
        found.append(_at(config, "instruments", "is empty: nothing will be quoted"))
    return found


def _entry(config: Config, entry: Entry) -> list[Finding]:
    profile, limits = entry.settings.profile, entry.settings.limits
    collar = _path(config, entry, "limits", "collar_bps")
    found = []
    if limits.max_order_size > limits.max_position:
        text = f"max_order_size {limits.max_order_size} is above max_position {limits.max_position}"
        found.append(_at(config, _path(config, entry, "limits", "max_order_size"), f"{text} of {entry.path}"))
    if profile.size > limits.max_position:
        text = (
            f"size {profile.size} is above max_position {limits.max_position} of {entry.path}; quotes will be smaller"
        )
        found.append(_at(config, _path(config, entry, "spreads", "size"), text))
    if limits.collar_bps < profile.band_bps:
        text = f"collar_bps {limits.collar_bps:g} is narrower than band_bps {profile.band_bps:g} of {entry.path}"
        found.append(_at(config, collar, f"{text}: the gate will refuse quotes that the band lets through"))
    if limits.collar_bps > WIDE_COLLAR * profile.band_bps:
        text = f"collar_bps {limits.collar_bps:g} is more than {WIDE_COLLAR} times band_bps {profile.band_bps:g}"
        found.append(_at(config, collar, f"{text} of {entry.path}: it hardly protects"))
    width = profile.min_spread_bps
    key = "min_spread_bps"
    if profile.style is Style.AROUND and profile.spread_bps > width:
        width, key = profile.spread_bps, "spread_bps"
    if profile.band_bps < width / 2:
        text = f"band_bps {profile.band_bps:g} is narrower than half of {key} {width:g} of {entry.path}"
        found.append(_at(config, _path(config, entry, "spreads", "band_bps"), f"{text}: nothing would be quoted"))
    return found


def _path(config: Config, entry: Entry, home: str, key: str) -> str:
    """Where the entry's value of this key stands: its own override or the common one."""
    own = f"{entry.path}.limits.{key}" if home == "limits" else f"{entry.path}.{key}"
    if own in config.origins:
        return own
    return f"limits.per_symbol.{key}" if home == "limits" else f"spreads.{entry.spread}.{key}"


def _oversubscribed(config: Config) -> list[Finding]:
    """Where all symbols at their limits would be beyond max_exposure: legal, the totals are shared out.

    Offline only what counts coins can be added up: options, and everything linear.
    """
    sums: dict[str, Decimal] = {}
    for entry in config.entries:
        coin, count = _coins_counted(entry)
        if coin:
            sums[coin] = sums.get(coin, Decimal(0)) + count * entry.settings.limits.max_position
    found = []
    for coin, total in sorted(sums.items()):
        limit = config.portfolio.max_exposure.get(coin)
        if limit is not None and total > limit:
            path = f"limits.portfolio.max_exposure.{coin}"
            text = f"the symbols' max_position add up to at least {total} {coin}, {total / limit:.1f} times this limit"
            found.append(_at(config, path, f"{text}; whoever fills first gets the room"))
    return found


def _coins_counted(entry: Entry) -> tuple[str, int]:
    """(coin, how many symbols at least) of an entry whose amounts are coins and whose number is known offline."""
    match entry.target:
        case Named(symbol=symbol):
            parts = symbol.split("-")
            is_option = len(parts) == 4 and parts[-1] in ("C", "P")
            is_linear = "_" in parts[0]
            return (parts[0].split("_")[0], 1) if is_option or is_linear else ("", 0)
        case Selection(expiries=expiries, strikes=strikes, kinds=kinds) as selection:
            options = sum(kind in OPTION_KINDS for kind in kinds)
            count = options * _at_least(expiries) * _at_least(strikes)
            return (selection.underlying, count) if count else ("", 0)


def _at_least(wanted: object) -> int:
    match wanted:
        case tuple():
            return len(wanted)
        case NearestExpiries(count=count) | NearestToMoney(count=count):
            return count
    return 1


def _exchange(config: Config, exchange: ExchangeConfig) -> list[Finding]:
    path = f"exchanges.{exchange.name}"
    found = []
    if exchange.network is not NetworkKind.SANDBOX and f"{path}.sandbox" in config.origins:
        found.append(_at(config, f"{path}.sandbox", f"has no effect with network {exchange.network}"))
    url = exchange.url or ""
    if url.startswith("ws://") and not url.removeprefix("ws://").startswith(LOOPBACK):
        found.append(_at(config, f"{path}.network.url", "is not encrypted and leaves this machine; use wss://"))
    return found


def _secrets(
    config: Config, exchange: ExchangeConfig, environ: Mapping[str, str], exposed: list[str], notes: list[str]
) -> list[Finding]:
    """Tries to read each secret and forgets it at once."""
    found = []
    credentials = exchange.credentials
    pairs: list[tuple[str, Secret]] = []
    if credentials is not None:
        pairs = [("client_id", credentials.client_id), ("client_secret", credentials.client_secret)]
    for key, secret in pairs:
        path = f"exchanges.{exchange.name}.credentials.{key}"
        try:
            secret.reveal(environ)
        except ExposedSecret as error:
            exposed.append(str(_at(config, path, str(error))))
        except CredentialError as error:
            if exchange.network is NetworkKind.SANDBOX:
                notes.append(f"{path}: {error}; the sandbox takes any")
            elif secret.source is Source.FILE:
                found.append(_at(config, path, str(error)))
            else:
                notes.append(f"{path}: not checked here: {error}")
    return found


def _not_checked(config: Config) -> list[str]:
    """What only an exchange can tell."""
    lines = ["whether the exchanges list these instruments, and whether sizes fit their lots and minimums"]
    if any(isinstance(entry.target, Selection) for entry in config.entries):
        lines.append("which instruments the selections find: see mmdctl show, or mmdctl plan before a reload")
    if any(exchange.network is not NetworkKind.SANDBOX for exchange in config.exchanges.values()):
        lines.append("whether the exchanges accept the credentials, and the account's balance")
    lines.append("exposure of inverse perpetuals and futures in coins, which needs a price")
    return lines
