"""Where orders may rest, read from a configuration that cannot be used as a whole, or from what was kept of one.

For the reaper alone: a typing error in a limit must not keep it from cancelling. Only what says where
an exchange is and who we are there is looked at, exchange by exchange; it is validated as ever.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from mmd.config.files import NotReadable, read_regular
from mmd.config.load import DROP_INS, FILE_BYTES_MAX, load_text
from mmd.config.model import Config, ExchangeConfig
from mmd.config.nodes import MapNode, Node, overlay, parse, value_of
from mmd.domain.errors import ConfigError

EXCHANGE_KEYS = (
    *("type", "network", "order_valid_ms"),
    *("credentials", "reaper_credentials", "grant"),
    *("wallet", "session_key", "subaccount", "reaper_session_key"),
)
# The smallest configuration that is one; what is salvaged takes its place in it.
FRAME: dict[str, Any] = {
    "version": 1,
    "spreads": {"none": {"fair": "mid", "style": "around", "spread_bps": 100, "size": 1}},
    "instruments": [],
    "limits": {
        "per_symbol": {"max_position": 1, "max_order_size": 1, "collar_bps": 1},
        "portfolio": {"max_exposure": {"BTC": 1}, "max_notional_usd": 1, "max_drawdown_usd": 1},
    },
}


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """What could be used; `problems`: one line for each thing that could not. `service` "": its name is unknown."""

    service: str = ""
    state_dir: str | None = None
    exchanges: tuple[ExchangeConfig, ...] = ()
    problems: tuple[str, ...] = ()


def essentials(config: Config) -> dict[str, dict[str, Any]]:
    """Of each exchange, what `revive` needs; plain values, no secret among them."""
    return {
        name: {key: raw[key] for key in EXCHANGE_KEYS if key in raw}
        for name, raw in config.effective["exchanges"].items()
    }


def revive(service: object, exchanges: object, source: str) -> Salvaged:
    """Exchanges from plain values that nobody has validated; `source` is named in problems."""
    named = {} if service is None else {"name": service}
    try:
        name = _framed(named, {}, source).service.name
    except ConfigError as error:
        return Salvaged(problems=(f"{source}: service: {error.lines[0]}",))
    if not isinstance(exchanges, dict) or not exchanges:
        return Salvaged(service=name, problems=(f"{source}: names no exchange",))
    found: list[ExchangeConfig] = []
    problems: list[str] = []
    for key, raw in exchanges.items():
        kept = {part: raw[part] for part in EXCHANGE_KEYS if part in raw} if isinstance(raw, dict) else raw
        try:
            found.append(_framed(named, {key: kept}, source).exchanges[key])
        except ConfigError as error:
            problems += [f"{source}: exchange {key}: {line}" for line in error.lines]
    return Salvaged(service=name, exchanges=tuple(found), problems=tuple(problems))


def salvage(path: Path) -> Salvaged:
    """Exchanges from a file with errors, its drop-ins included. Raises nothing: what cannot be read is a problem."""
    problems: list[str] = []
    root: Node | None = None
    try:
        drop_ins = sorted(file for file in (path.parent / DROP_INS).glob("*.yaml") if not file.name.startswith("."))
    except OSError as error:
        drop_ins, problems = [], [f"{path.parent / DROP_INS}: {error.strerror}"]
    for file in [path, *drop_ins]:
        try:
            node, findings = parse(read_regular(file, FILE_BYTES_MAX)[0].decode("utf-8"), str(file))
        except (NotReadable, PermissionError, UnicodeDecodeError) as error:
            problems.append(f"{file}: {error}")
            continue
        problems += [str(finding) for finding in findings]
        if isinstance(node, MapNode):
            root = node if root is None else overlay(root, node)
    data = value_of(root) if root is not None else {}
    service = data.get("service")
    described = service if isinstance(service, dict) else {}
    state_dir = described.get("state_dir")
    found = revive(described.get("name"), data.get("exchanges"), str(path))
    return msgspec.structs.replace(
        found,
        state_dir=state_dir if isinstance(state_dir, str) and state_dir.startswith("/") else None,
        problems=(*problems, *found.problems),
    )


def _framed(service: dict[str, Any], exchanges: dict[str, Any], source: str) -> Config:
    """Raises ConfigError, its lines without places: they would be places in the frame."""
    stub = {"none": {"type": "deribit", "network": "sandbox"}}
    data = {**FRAME, "service": service, "exchanges": exchanges or stub}
    data["instruments"] = [{"exchange": next(iter(data["exchanges"])), "symbol": "NONE", "spread": "none"}]
    text = json.dumps(data, default=_plain)
    try:
        return load_text(text, source)
    except ConfigError as error:
        raise ConfigError([line.partition(": ")[2] for line in error.lines]) from None


def _plain(value: object) -> object:
    """An exact number that JSON has no type for."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    raise TypeError(f"{type(value).__name__} is no plain value")
