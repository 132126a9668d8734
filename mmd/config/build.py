"""Validated plain values to the typed Config. Nothing here can fail on what the schema lets through."""

import hashlib
import json
from decimal import Context, Decimal
from typing import Any

import msgspec

from mmd.config.meaning import OPTION_KINDS, SPREAD_KEYS, parse_date
from mmd.config.model import (
    AllExpiries,
    AllStrikes,
    Config,
    Control,
    Credentials,
    Entry,
    ExchangeConfig,
    Expiries,
    Grant,
    LogFormat,
    Named,
    NearestExpiries,
    NearestToMoney,
    NetworkKind,
    SandboxOptions,
    Selection,
    Service,
    Strikes,
    WithinDays,
)
from mmd.config.nodes import ListNode, MapNode, Node, Place, join
from mmd.config.schema import Schema, child, definition, fill_defaults, follow, schema
from mmd.config.secrets import Secret, Source
from mmd.domain.instruments import Contract, Kind
from mmd.domain.reasons import Mode
from mmd.domain.settings import DataRules, PortfolioLimits, Profile, SymbolLimits, SymbolSettings

Data = dict[str, Any]
EXACT = Context(prec=100)  # more digits than any number that was let in


def build(data: Data, root: Node, files: tuple[str, ...]) -> Config:
    """The Config of validated content; `root` gives the places."""
    effective: Data = fill_defaults(normal(data, schema()), schema())
    service = _service(effective["service"])
    limits = effective["limits"]
    profiles = {name: _profile(name, spread, {}) for name, spread in effective["spreads"].items()}
    return Config(
        version=effective["version"],
        service=service,
        exchanges={name: _exchange(name, raw) for name, raw in effective["exchanges"].items()},
        profiles=profiles,
        entries=tuple(_entry(index, raw, effective, service) for index, raw in enumerate(effective["instruments"])),
        symbol_limits=msgspec.convert(limits["per_symbol"], SymbolLimits),
        portfolio=msgspec.convert(limits["portfolio"], PortfolioLimits),
        market_data=msgspec.convert(effective["market_data"], DataRules),
        effective=effective,
        origins=_origins(root),
        files=files,
        sha256=fingerprint(effective),
    )


def normal(value: Any, node: Schema) -> Any:
    """One form for each meaning: 10, 10.0 and "10" of a decimal key are the same, as are two spellings of a day."""
    node = follow(node)
    if isinstance(value, dict):
        return {key: normal(each, child(node, key) or {}) for key, each in value.items()}
    if isinstance(value, list):
        return [normal(each, child(node, index) or {}) for index, each in enumerate(value)]
    if node.get("x-unit") == "date":
        day = parse_date(value)
        return day.isoformat() if day is not None else value
    if isinstance(value, str) and node.get("x-decimal"):
        value = Decimal(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else EXACT.normalize(value)
    return value


def fingerprint(effective: Data) -> str:
    """SHA-256 of the content, whatever its order of keys."""
    text = json.dumps(effective, sort_keys=True, default=str, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def merged(base: Data, over: Data) -> Data:
    """Key by key, `over` wins; mappings inside merge too."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _service(raw: Data) -> Service:
    listen = raw["metrics"]["listen"]
    host, _, port = (listen or "").rpartition(":")
    return Service(
        name=raw["name"],
        mode=Mode(raw["mode"]),
        metrics_listen=(host.strip("[]"), int(port)) if listen else None,
        control=msgspec.convert(raw["control"], Control),
        log_level=raw["log"]["level"],
        log_format=LogFormat(raw["log"]["format"]),
        statistics_seconds=float(raw["statistics_seconds"]),
        state_dir=raw["state_dir"],
    )


def _exchange(name: str, raw: Data) -> ExchangeConfig:
    network = raw["network"]
    url = network["url"] if isinstance(network, dict) else None
    credentials = raw.get("credentials")
    return ExchangeConfig(
        name=name,
        type=raw["type"],
        network=NetworkKind.URL if url is not None else NetworkKind(network),
        url=url,
        credentials=Credentials(
            client_id=_secret(credentials["client_id"]), client_secret=_secret(credentials["client_secret"])
        )
        if credentials is not None
        else None,
        grant=Grant(raw["grant"]),
        sandbox=msgspec.convert(raw["sandbox"], SandboxOptions),
    )


def _secret(raw: Data) -> Secret:
    ((source, name),) = raw.items()
    return Secret(Source(source), name)


def _profile(name: str, spread: Data, over: Data) -> Profile:
    keys = merged({key: value for key, value in spread.items() if key != "market_data"}, over)
    filled = fill_defaults(keys, definition("spread"))
    return msgspec.convert({"name": name, **filled}, Profile)


def _entry(index: int, raw: Data, effective: Data, service: Service) -> Entry:
    spread = effective["spreads"][raw["spread"]]
    over = {key: raw[key] for key in SPREAD_KEYS if key in raw and key != "market_data"}
    limits = effective["limits"]["per_symbol"] | raw.get("limits", {})
    data = effective["market_data"] | spread.get("market_data", {}) | raw.get("market_data", {})
    return Entry(
        path=f"instruments[{index}]",
        target=_selection(raw["select"]) if "select" in raw else Named(raw["exchange"], raw["symbol"]),
        spread=raw["spread"],
        settings=SymbolSettings(
            service=service.name,
            mode=service.mode,
            profile=_profile(raw["spread"], spread, over),
            limits=msgspec.convert(limits, SymbolLimits),
            data=msgspec.convert(data, DataRules),
        ),
    )


def _selection(raw: Data) -> Selection:
    kinds = tuple(Kind(kind) for kind in raw["kinds"])
    has_options = any(kind in OPTION_KINDS for kind in kinds)
    return Selection(
        exchange=raw["exchange"],
        underlying=raw["underlying"],
        contract=Contract(raw["contract"]),
        expiries=_expiries(raw.get("expiries", [raw["expiry"]] if "expiry" in raw else [])),
        strikes=_strikes(raw["strikes"]) if has_options else (),
        kinds=kinds,
    )


def _expiries(raw: Any) -> Expiries:
    match raw:
        case "all":
            return AllExpiries()
        case {"nearest": count}:
            return NearestExpiries(count)
        case {"within_days": days}:
            return WithinDays(Decimal(days))
    return tuple(sorted(day for each in raw if (day := parse_date(each)) is not None))


def _strikes(raw: Any) -> Strikes:
    match raw:
        case "all":
            return AllStrikes()
        case {"nearest_to_money": count}:
            return NearestToMoney(count)
    return tuple(sorted({Decimal(each) for each in raw}))


def _origins(root: Node) -> dict[str, Place]:
    """The place of every value that was written, by path; "" is the whole."""
    places: dict[str, Place] = {}
    waiting: list[tuple[str, Node]] = [("", root)]
    while waiting:
        path, node = waiting.pop()
        places[path] = node.place
        if isinstance(node, MapNode):
            waiting += [(join(path, key), each) for key, each in node.entries.items()]
        elif isinstance(node, ListNode):
            waiting += [(join(path, index), each) for index, each in enumerate(node.items)]
    return places
