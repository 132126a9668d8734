"""A configuration as YAML or JSON text: everything effective, exact numbers, secrets only as their source."""

import re
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mmd.config.model import Config
from mmd.config.nodes import join

PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
NOT_PLAIN = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
LINE_MAX = 100
ORIGIN_COLUMN = 48
INDENT = "  "
MASK = "***"


def to_yaml(config: Config, *, origin: bool = False) -> str:
    """The effective configuration; loading it gives the same. `origin`: each value's file:line as a comment."""
    lines: list[str] = []
    _block(config.effective, "", "", lines, config if origin else None)
    return "\n".join(lines) + "\n"


def to_yaml_masked(config: Config) -> str:
    """The same for whoever may look at a running daemon: `for_the_record`."""
    return to_yaml(msgspec.structs.replace(config, effective=for_the_record(config)))


def to_json(config: Config, *, origin: bool = False) -> bytes:
    """The same as one JSON object; with `origin` as {config, origin: {path: "file:line" or "default"}}."""
    encoder = msgspec.json.Encoder(decimal_format="number")
    if not origin:
        return encoder.encode(config.effective)
    places = {path: _origin(config, path) for path in _leaf_paths(config.effective, "")}
    return encoder.encode({"config": config.effective, "origin": places})


def for_the_record(config: Config) -> dict[str, Any]:
    """The effective configuration without what may not lie about: who has the address of a receiver may post there."""
    alerts = config.effective["alerts"]
    heartbeat = alerts["heartbeat"]
    told = {
        "webhooks": [_without_path(each) for each in alerts["webhooks"]],
        "heartbeat": None if heartbeat is None else _without_path(heartbeat),
    }
    return config.effective | {"alerts": alerts | told}


def _without_path(receiver: dict[str, Any]) -> dict[str, Any]:
    """The scheme and the host are left of its address."""
    parts = urlsplit(receiver["url"])
    rest = parts.path.removeprefix("/") or parts.query or parts.fragment
    return receiver | {"url": f"{parts.scheme}://{parts.netloc}/{MASK if rest else ''}"}


def scalar(value: Any) -> str:
    """One value in flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(str(key))}: {scalar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(scalar(each) for each in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    return _text(str(value))


def _text(text: str) -> str:
    """Without quotes only where no reader of YAML, old or new, could take it for something else."""
    if DATE.fullmatch(text):
        return text
    if PLAIN.fullmatch(text) and text.lower() not in NOT_PLAIN:
        return text
    return msgspec.json.encode(text).decode()


def _block(value: Any, path: str, indent: str, lines: list[str], config: Config | None) -> None:
    """Mappings and lists over several lines, innermost ones on one."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            here = join(path, index)
            if _is_flat(each) or not isinstance(each, dict):
                lines.append(_line(f"{indent}- {scalar(each)}", here, config))
                continue
            start = len(lines)
            _block(each, here, indent + INDENT, lines, config)
            lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"
        return
    for key, each in value.items():
        here = join(path, key)
        head = f"{indent}{_text(key)}:"
        flow = f"{head} {scalar(each)}"
        if not isinstance(each, dict | list) or not each:
            lines.append(_line(flow, here, config))
        elif _is_flat(each) and len(flow) <= LINE_MAX and config is None:
            lines.append(flow)
        elif isinstance(each, list) and all(not isinstance(item, dict | list) for item in each):
            lines.append(_line(flow, here, config))
        else:
            lines.append(head)
            _block(each, here, indent + INDENT, lines, config)


def _is_flat(value: Any) -> bool:
    """A small mapping of plain values, as a secret's source or {nearest: 2}."""
    return (
        isinstance(value, dict)
        and len(value) <= 2
        and not any(isinstance(each, dict | list) for each in value.values())
    )


def _line(text: str, path: str, config: Config | None) -> str:
    return text if config is None else f"{text:<{ORIGIN_COLUMN}}  # {_origin(config, path)}"


def _origin(config: Config, path: str) -> str:
    """file:line of a written value; `default` where nobody wrote it."""
    place = config.origins.get(path)
    return "default" if place is None else f"{place.file}:{place.line}"


def _leaf_paths(value: Any, path: str) -> list[str]:
    if isinstance(value, dict) and value:
        return [leaf for key, each in value.items() for leaf in _leaf_paths(each, join(path, key))]
    if isinstance(value, list) and value:
        return [leaf for index, each in enumerate(value) for leaf in _leaf_paths(each, join(path, index))]
    return [path]
