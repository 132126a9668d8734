"""Validated plain values to the typed Config. Nothing here can fail on what the schema lets through."""

import hashlib
import json
from decimal import Context, Decimal
from typing import Any

import msgspec

from mmd.config.guards import default_webhook_name
from mmd.config.limits import kinds_of, narrowed, symbol_limits
from mmd.config.loose import parse_date
from mmd.config.meaning import OPTION_KINDS, SPREAD_KEYS
from mmd.config.model import (
    DERIVE,
    AlertSettings,
    AllExpiries,
    AllStrikes,
    Chain,
    Config,
    Control,
    Credentials,
    Entry,
    ExchangeConfig,
    Expiries,
    Grant,
    Heartbeat,
    LogFormat,
    Named,
    NearestExpiries,
    NearestToMoney,
    NetworkKind,
    SandboxOptions,
    Selection,
    Service,
    Strikes,
    Wallet,
    Webhook,
    WebhookFormat,
    WithinDays,
)
from mmd.config.nodes import ListNode, MapNode, Node, Place, join
from mmd.config.schema import Schema, child, chosen, definition, fill_defaults, schema
from mmd.config.secrets import Secret, Source
from mmd.domain.instruments import Contract, Kind
from mmd.domain.reasons import Mode, Response, Severity, Switch
from mmd.domain.settings import (
    DataRules,
    JournalSettings,
    KillSwitches,
    PortfolioLimits,
    Profile,
    Protection,
    Reconciliation,
    Reset,
    SymbolLimits,
    SymbolSettings,
)

Data = dict[str, Any]
EXACT = Context(prec=100)  # more digits than any number that was let in
MS_IN_SECOND = 1000


def build(data: Data, root: Node, files: tuple[str, ...]) -> Config:
    """The Config of validated content; `root` gives the places."""
    effective: Data = fill_defaults(normal(data, schema()), schema())
    _name_webhooks(effective["alerts"]["webhooks"])
    service = _service(effective["service"])
    switches = _switches(effective["kill_switches"])
    reconciliation = msgspec.convert(effective["reconciliation"], Reconciliation)
    limits = effective["limits"]
    profiles = {name: _profile(name, spread, {}) for name, spread in effective["spreads"].items()}
    return Config(
        version=effective["version"],
        service=service,
        exchanges={name: _exchange(name, raw) for name, raw in effective["exchanges"].items()},
        profiles=profiles,
        entries=tuple(
            _entry(index, raw, effective, service, switches, reconciliation)
            for index, raw in enumerate(effective["instruments"])
        ),
        symbol_limits=msgspec.convert(limits["per_symbol"], SymbolLimits),
        allowed=None if limits["allowed"] is None else tuple(limits["allowed"]),
        portfolio=msgspec.convert(limits["portfolio"], PortfolioLimits),
        market_data=msgspec.convert(effective["market_data"], DataRules),
        switches=switches,
        alerts=_alerts(effective["alerts"]),
        journal=msgspec.convert(effective["journal"], JournalSettings),
        reconciliation=reconciliation,
        effective=effective,
        origins=_origins(root),
        files=files,
        sha256=fingerprint(effective),
    )


def normal(value: Any, node: Schema) -> Any:
    """One form for each meaning: 10, 10.0 and "10" of a decimal key are the same, as are two spellings of a day."""
    node = chosen(node, value)
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
    shared = ExchangeConfig(
        name=name,
        type=raw["type"],
        network=NetworkKind.URL if url is not None else NetworkKind(network),
        url=url,
        credentials=None,
        grant=Grant.CLIENT_SIGNATURE,
        sandbox=msgspec.convert(raw["sandbox"], SandboxOptions),
        order_valid_ms=raw["order_valid_ms"],
    )
    return msgspec.structs.replace(shared, **(_derive(raw) if raw["type"] == DERIVE else _deribit(raw)))


def _deribit(raw: Data) -> Data:
    """What an entry of this type adds, also below."""
    return {
        "credentials": _credentials(raw.get("credentials")),
        "grant": Grant(raw["grant"]),
        "protections": msgspec.convert(raw["maker_protection"], tuple[Protection, ...]),
        "reaper": _credentials(raw["reaper_credentials"]),
    }


def _derive(raw: Data) -> Data:
    network = raw["network"]
    written = network["chain"] if isinstance(network, dict) else network
    return {
        "chain": Chain.MAINNET if written == Chain.MAINNET else Chain.TESTNET,
        "wallet": _wallet(raw) if "wallet" in raw else None,
        "protections": tuple(_currency_protection(each) for each in raw["maker_protection"]),
        "order_life_seconds": raw["order_life_seconds"],
    }


def _wallet(raw: Data) -> Wallet:
    address = raw["wallet"]
    return Wallet(
        address=_secret(address) if isinstance(address, dict) else address,
        session_key=_secret(raw["session_key"]),
        subaccount=raw["subaccount"],
        reaper_key=_secret_or_none(raw["reaper_session_key"]),
    )


def _currency_protection(raw: Data) -> Protection:
    return Protection(
        underlying=raw["currency"],
        interval_seconds=raw["interval_ms"] / MS_IN_SECOND,
        frozen_seconds=raw["frozen_ms"] / MS_IN_SECOND,
        max_quantity=None if raw["max_amount"] is None else Decimal(raw["max_amount"]),
        max_delta=None if raw["max_delta"] is None else Decimal(raw["max_delta"]),
        reset=Reset(raw["reset"]),
    )


def _credentials(raw: Data | None) -> Credentials | None:
    if raw is None:
        return None
    return Credentials(client_id=_secret(raw["client_id"]), client_secret=_secret(raw["client_secret"]))


def _secret(raw: Data) -> Secret:
    ((source, name),) = raw.items()
    return Secret(Source(source), name)


def _switches(raw: Data) -> KillSwitches:
    return KillSwitches(
        responses={switch: Response(raw[switch]["response"]) for switch in Switch},
        max_ack_timeouts=raw["ack_timeout"]["max_timeouts"],
        ack_timeout_window_seconds=float(raw["ack_timeout"]["window_seconds"]),
        max_cancel_tries=raw["orders_left"]["max_cancel_tries"],
        max_skew_ms=float(raw["clock_skew"]["max_ms"]),
        max_disconnects=raw["disconnect_storm"]["max_disconnects"],
        disconnect_window_seconds=float(raw["disconnect_storm"]["window_seconds"]),
        max_event_lag_seconds=float(raw["event_lag"]["max_seconds"]),
        max_unvalued_seconds=float(raw["valuation"]["max_seconds"]),
    )


def _name_webhooks(raw: list[Data]) -> None:
    """A default that the schema cannot say: it depends on the place in the list."""
    for index, webhook in enumerate(raw):
        webhook.setdefault("name", default_webhook_name(index))


def _alerts(raw: Data) -> AlertSettings:
    heartbeat = raw["heartbeat"]
    return AlertSettings(
        webhooks=tuple(
            Webhook(
                name=each["name"],
                url=each["url"],
                format=WebhookFormat(each["format"]),
                min_severity=Severity(each["min_severity"]),
                bearer=_secret_or_none(each["bearer"]),
            )
            for each in raw["webhooks"]
        ),
        heartbeat=Heartbeat(
            url=heartbeat["url"],
            seconds=float(heartbeat["seconds"]),
            format=WebhookFormat(heartbeat["format"]),
            bearer=_secret_or_none(heartbeat["bearer"]),
        )
        if heartbeat is not None
        else None,
        repeat_seconds=float(raw["repeat_seconds"]),
        labels=raw["labels"],
    )


def _secret_or_none(raw: Data | None) -> Secret | None:
    return None if raw is None else _secret(raw)


def _profile(name: str, spread: Data, over: Data) -> Profile:
    keys = merged({key: value for key, value in spread.items() if key != "market_data"}, over)
    filled = fill_defaults(keys, definition("spread"))
    return msgspec.convert({"name": name, **filled}, Profile)


def _entry(
    index: int, raw: Data, effective: Data, service: Service, switches: KillSwitches, reconciliation: Reconciliation
) -> Entry:
    spread = effective["spreads"][raw["spread"]]
    over = {key: raw[key] for key in SPREAD_KEYS if key in raw and key != "market_data"}
    path = f"instruments[{index}]"
    limits, _ = narrowed(effective["limits"], raw, path, kinds_of(raw)[0])
    data = effective["market_data"] | spread.get("market_data", {}) | raw.get("market_data", {})
    return Entry(
        path=path,
        target=_selection(raw["select"]) if "select" in raw else Named(raw["exchange"], raw["symbol"]),
        spread=raw["spread"],
        settings=SymbolSettings(
            service=service.name,
            mode=service.mode,
            profile=_profile(raw["spread"], spread, over),
            limits=symbol_limits(limits),
            data=msgspec.convert(data, DataRules),
            switches=switches,
            average_tolerance_bps=reconciliation.average_tolerance_bps,
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
