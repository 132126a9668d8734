"""Second thoughts about a valid configuration: what looks unintended, and what nobody checked offline."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mmd.config.limits import kinds_named, kinds_of, narrowed, symbol_limits
from mmd.config.locate import state_directory
from mmd.config.model import (
    DERIVE,
    Config,
    Entry,
    ExchangeConfig,
    Named,
    NetworkKind,
    Selection,
)
from mmd.config.nodes import Finding, join
from mmd.config.oversubscription import oversubscribed
from mmd.config.secrets import ExposedSecret, Secret, Source
from mmd.config.select import is_allowed
from mmd.domain.addresses import SECRET_WANTED, parse_address, parse_secret
from mmd.domain.errors import CredentialError
from mmd.domain.instruments import Kind
from mmd.domain.reasons import Mode
from mmd.domain.settings import FsyncPolicy, ScopeLimits, Style

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Rounding to the grid may take a quote out of its band by less than one step, and a cheap option's
# step is a good part of its price: a collar needs some room beyond the band, but not more.
WIDE_COLLAR = 2
WIDE_FILLED = 100
MIB_IN_GIB = 1024
HOURS_IN_DAY = 24


class Advice(msgspec.Struct, frozen=True):
    """`exposed`: secrets whose rights are wrong, an error of its own; `unusable`: what cannot be what it should be.

    `warnings` count under --strict; notes never.
    """

    exposed: list[str]
    unusable: list[str]
    warnings: list[str]
    notes: list[str]
    not_checked: list[str]


def advise(config: Config, environ: Mapping[str, str] | None = None) -> Advice:
    """Looks at secrets' files and the state directory where they can be seen from here; never at an exchange."""
    environment = os.environ if environ is None else environ
    exposed: list[str] = []
    unusable: list[str] = []
    notes: list[str] = []
    warnings = [
        *_unused(config),
        *(finding for entry in config.entries for finding in _entry(config, entry)),
        *(finding for entry in config.entries for finding in _profile(config, entry)),
        *(finding for entry in config.entries for finding in _allowed(config, entry)),
        *_parts(config),
        *oversubscribed(config),
        *(finding for exchange in config.exchanges.values() for finding in _exchange(config, exchange)),
        *_receivers(config),
        *_journal(config),
        *_disk(config, state_directory(None, config.service.state_dir, environment)),
        *_secrets(config, environment, exposed, unusable, notes),
    ]
    live = config.service.mode is Mode.LIVE
    for exchange in config.exchanges.values():
        if live and exchange.network is NetworkKind.MAINNET:
            notes.append(
                f"{config.where('service.mode')}: service.mode: live on mainnet: {exchange.name} trades real money"
            )
        if live and exchange.order_valid_ms is None:
            path = f"exchanges.{exchange.name}.order_valid_ms"
            notes.append(f"{config.where(path)}: {path}: null: an order that the network holds up may rest unseen")
    if not live:
        notes.append("service.mode: shadow: everything is decided, nothing is sent")
    lines = [str(finding) for finding in sorted(set(warnings))]
    return Advice(exposed, unusable, lines, notes, _not_checked(config))


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


def _entry(config: Config, entry: Entry) -> set[Finding]:
    """What looks unintended for the kinds that the entry can have; where its name tells none, for all of them."""
    raw = config.effective["instruments"][entry.index]
    kinds = kinds_of(raw)
    found = [set(_of_kind(config, entry, raw, kind)) for kind in kinds]
    is_guess = isinstance(entry.target, Named) and len(kinds) > 1
    return set.intersection(*found) if is_guess else set.union(*found)


def _of_kind(config: Config, entry: Entry, raw: dict[str, Any], kind: Kind) -> list[Finding]:
    """The limits of one kind of the entry's symbols against each other, the profile and the totals."""
    profile = entry.settings.profile
    given, _ = narrowed(config.effective["limits"], raw, entry.path, kind)
    limits = symbol_limits(given)
    found = []

    def odd(key: str, text: str) -> None:
        found.append(_at(config, given[key].path, text))

    if limits.max_order_size > limits.max_position:
        text = f"max_order_size {limits.max_order_size} is above max_position {limits.max_position}"
        odd("max_order_size", f"{text} of {entry.path}")
    if profile.size > limits.max_position:
        text = f"size {profile.size} is above max_position {limits.max_position} of {entry.path}"
        found.append(_at(config, _path(config, entry, "size"), f"{text}; quotes will be smaller"))
    if limits.collar_bps < profile.band_bps:
        text = f"collar_bps {limits.collar_bps:g} is narrower than band_bps {profile.band_bps:g} of {entry.path}"
        odd("collar_bps", f"{text}: the gate will refuse quotes that the band lets through")
    if limits.collar_bps > WIDE_COLLAR * profile.band_bps:
        text = f"collar_bps {limits.collar_bps:g} is more than {WIDE_COLLAR} times band_bps {profile.band_bps:g}"
        odd("collar_bps", f"{text} of {entry.path}: no quote can be that far away, so it hardly protects")
    if limits.max_filled is not None and limits.max_filled > WIDE_FILLED * limits.max_position:
        text = f"max_filled {limits.max_filled} is more than {WIDE_FILLED} times max_position {limits.max_position}"
        odd("max_filled", f"{text} of {entry.path}: it can hardly be reached")
    portfolio = config.portfolio
    for key, whole in (
        ("max_order_value_usd", portfolio.max_notional_usd),
        ("max_drawdown_usd", portfolio.max_drawdown_usd),
        ("max_daily_loss_usd", portfolio.max_daily_loss_usd),
    ):
        own = getattr(limits, key)
        if own is not None and whole is not None and own > whole and given[key].path in config.origins:
            name = "max_notional_usd" if key == "max_order_value_usd" else key
            odd(key, f"{own} is above limits.portfolio.{name}, {whole}, which is reached first")
    return found


def _profile(config: Config, entry: Entry) -> list[Finding]:
    profile = entry.settings.profile
    width, key = profile.min_spread_bps, "min_spread_bps"
    if profile.style is Style.AROUND and profile.spread_bps > width:
        width, key = profile.spread_bps, "spread_bps"
    if profile.band_bps >= width / 2:
        return []
    text = f"band_bps {profile.band_bps:g} is narrower than half of {key} {width:g} of {entry.path}"
    return [_at(config, _path(config, entry, "band_bps"), f"{text}: nothing would be quoted")]


def _path(config: Config, entry: Entry, key: str) -> str:
    """Where the entry's value of this key of its profile stands: its own override or the common one."""
    own = f"{entry.path}.{key}"
    return own if own in config.origins else f"spreads.{entry.spread}.{key}"


def _allowed(config: Config, entry: Entry) -> list[Finding]:
    target = entry.target
    if not isinstance(target, Named) or is_allowed(config.allowed, target.exchange, target.symbol):
        return []
    text = f"{target.symbol} is not in limits.allowed ({config.where('limits.allowed')}): no order will be sent"
    return [_at(config, f"{entry.path}.symbol", text)]


def _parts(config: Config) -> list[Finding]:
    """Totals of a part that the total of everything makes meaningless."""
    portfolio = config.portfolio
    found = []
    for key, parts in (("per_exchange", portfolio.per_exchange), ("per_underlying", portfolio.per_underlying)):
        for name, limits in parts.items():
            for limit in msgspec.structs.fields(ScopeLimits):
                own, whole = getattr(limits, limit.name), getattr(portfolio, limit.name)
                if own is not None and whole is not None and own > whole:
                    path = f"{join(f'limits.portfolio.{key}', name)}.{limit.name}"
                    text = f"{own} is above limits.portfolio.{limit.name}, {whole}, which is reached first"
                    found.append(_at(config, path, text))
    return found


def _exchange(config: Config, exchange: ExchangeConfig) -> list[Finding]:
    path = f"exchanges.{exchange.name}"
    found = []
    if exchange.network is not NetworkKind.SANDBOX and f"{path}.sandbox" in config.origins:
        found.append(_at(config, f"{path}.sandbox", f"has no effect with network {exchange.network}"))
    if exchange.url is not None and _is_open(exchange.url):
        found.append(_at(config, f"{path}.network.url", "is not encrypted and leaves this machine; use wss://"))
    for index, protection in enumerate(exchange.protections):
        targets = [entry.target for entry in config.entries if entry.target.exchange == exchange.name]
        if not any(_may_be_of(target, protection.underlying) for target in targets):
            text = f"no instrument of {protection.underlying} is quoted on {exchange.name}"
            key = "currency" if exchange.type == DERIVE else "underlying"
            found.append(_at(config, f"{path}.maker_protection[{index}].{key}", text))
    return found + _validity(config, exchange)


def _validity(config: Config, exchange: ExchangeConfig) -> list[Finding]:
    """An order of unknown fate is given up ack_timeout_seconds after it was lost; it must not be taken later."""
    waits = [
        (entry.settings.limits.ack_timeout_seconds, entry.path)
        for entry in config.entries
        if entry.target.exchange == exchange.name
    ]
    if exchange.order_valid_ms is None or not waits:
        return []
    seconds, path = min(waits)
    if exchange.order_valid_ms <= seconds * 1000:
        return []
    text = f"is {exchange.order_valid_ms} and longer than ack_timeout_seconds {seconds:g} of {path}"
    more = "an order may be taken after its fate was settled"
    return [_at(config, f"exchanges.{exchange.name}.order_valid_ms", f"{text}: {more}")]


def _may_be_of(target: Named | Selection, coin: str) -> bool:
    if isinstance(target, Selection):
        return target.underlying == coin
    return len(kinds_named(target.symbol)) > 1 or target.symbol.upper().split("-")[0].split("_")[0] == coin


def _is_open(url: str) -> bool:
    """Whether what is sent there can be read on its way."""
    parts = urlsplit(url)
    return parts.scheme in ("ws", "http") and parts.hostname not in LOOPBACK


def _receivers(config: Config) -> list[Finding]:
    alerts = config.alerts
    urls = [(f"alerts.webhooks[{index}].url", each.url) for index, each in enumerate(alerts.webhooks)]
    if alerts.heartbeat is not None:
        urls.append(("alerts.heartbeat.url", alerts.heartbeat.url))
    return [
        _at(config, path, "is not encrypted and leaves this machine; use https://")
        for path, url in urls
        if _is_open(url)
    ]


def _journal(config: Config) -> list[Finding]:
    journal = config.journal
    found = []
    if journal.fsync is not FsyncPolicy.INTERVAL and "journal.fsync_seconds" in config.origins:
        found.append(_at(config, "journal.fsync_seconds", f"has no effect with fsync {journal.fsync}"))
    if journal.keep_days * HOURS_IN_DAY < journal.segment_hours:
        text = f"is {journal.keep_days:g} and shorter than a segment may last, {journal.segment_hours:g} hours"
        found.append(_at(config, "journal.keep_days", f"{text}: nothing closed would be kept"))
    return found


def _disk(config: Config, directory: Path) -> list[Finding]:
    """Whether the state directory's file system has room for all that is to be kept; silent where it cannot be seen."""
    wanted = config.journal.keep_gib + config.journal.reserve_mib / MIB_IN_GIB
    try:
        has = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        room = (shutil.disk_usage(directory).free + has) / 2**30
    except OSError:
        return []
    if room >= wanted:
        return []
    text = f"is {config.effective['journal']['keep_gib']}, and the file system of {directory} has room for {room:.1f}"
    return [_at(config, "journal.keep_gib", f"{text}: it would be full before anything is deleted, and that halts all")]


class _Place(NamedTuple):
    """A secret, whether it can be done without, and what its value must be."""

    path: str
    secret: Secret
    is_spare: bool = False
    fault: Callable[[str], str] = lambda value: ""


def _places(config: Config) -> Iterator[_Place]:
    for exchange in config.exchanges.values():
        path, spare = f"exchanges.{exchange.name}", exchange.network is NetworkKind.SANDBOX
        for key, credentials in (("credentials", exchange.credentials), ("reaper_credentials", exchange.reaper)):
            if credentials is not None:
                yield _Place(f"{path}.{key}.client_id", credentials.client_id, spare)
                yield _Place(f"{path}.{key}.client_secret", credentials.client_secret, spare)
        if (wallet := exchange.wallet) is not None:
            if isinstance(wallet.address, Secret):
                yield _Place(f"{path}.wallet", wallet.address, spare, _no_address)
            yield _Place(f"{path}.session_key", wallet.session_key, spare, _no_private_key)
            if wallet.reaper_key is not None:
                yield _Place(f"{path}.reaper_session_key", wallet.reaper_key, spare, _no_private_key)
    for index, webhook in enumerate(config.alerts.webhooks):
        if webhook.bearer is not None:
            yield _Place(f"alerts.webhooks[{index}].bearer", webhook.bearer)
    heartbeat = config.alerts.heartbeat
    if heartbeat is not None and heartbeat.bearer is not None:
        yield _Place("alerts.heartbeat.bearer", heartbeat.bearer)


def _no_address(value: str) -> str:
    try:
        parse_address(value)
    except ValueError as error:
        return str(error)
    return ""


def _no_private_key(value: str) -> str:
    return "" if parse_secret(value) is not None else f"holds no private key: wanted {SECRET_WANTED}"


def _secrets(
    config: Config, environ: Mapping[str, str], exposed: list[str], unusable: list[str], notes: list[str]
) -> list[Finding]:
    """Tries to read each secret and forgets it at once."""
    found = []
    for path, secret, is_spare, fault in _places(config):
        try:
            wrong = fault(secret.reveal(environ))
        except ExposedSecret as error:
            exposed.append(str(_at(config, path, str(error))))
        except CredentialError as error:
            if is_spare:
                notes.append(f"{path}: {error}; the sandbox takes any")
            elif secret.source is Source.FILE:
                found.append(_at(config, path, str(error)))
            else:
                notes.append(f"{path}: not checked here: {error}")
        else:
            if wrong:
                unusable.append(str(_at(config, path, f"{secret}: {wrong}")))
    return found


def _not_checked(config: Config) -> list[str]:
    """What only an exchange can tell."""
    lines = ["whether the exchanges list these instruments, and whether sizes fit their lots and minimums"]
    if any(isinstance(entry.target, Selection) for entry in config.entries):
        lines.append("which instruments the selections find: see mmdctl show, or mmdctl plan before a reload")
    if any(exchange.network is not NetworkKind.SANDBOX for exchange in config.exchanges.values()):
        lines.append("whether the exchanges accept the credentials, and the account's balance: mmd check --online asks")
    lines.append("exposure of inverse perpetuals and futures in coins, which needs a price")
    return lines
