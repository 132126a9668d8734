"""Which limits a symbol gets: those of `limits:` for its kind, narrowed by its entry of `instruments:`.

Within `limits:` the later one wins, wider or not: the schema's default, `per_symbol`,
`per_kind.option`, `per_kind.call` or `per_kind.put`. An entry may only narrow: for each key the
tighter of the two counts. Works on plain values, also on those that the schema refused.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from mmd.config.loose import mapping, number
from mmd.config.schema import definition, follow
from mmd.core.rules import FILLED_POSITIONS
from mmd.domain.instruments import Kind
from mmd.domain.settings import SymbolLimits

PER_SYMBOL = "limits.per_symbol"
LAYERS: dict[Kind, tuple[str, ...]] = {
    Kind.PERPETUAL: ("perpetual",),
    Kind.FUTURE: ("future",),
    Kind.CALL: ("option", "call"),
    Kind.PUT: ("option", "put"),
}
"""Keys of `limits.per_kind` for each kind, the one that wins last."""


class Tighter(StrEnum):
    """Which of two values of a limit is the tighter one."""

    LOWER = "lower"
    HIGHER = "higher"


# A longer window holds more refusals, fills and prices, so what is counted in it is reached sooner.
# A shorter timeout asks, and pauses, sooner.
TIGHTER: dict[str, Tighter] = {
    key: Tighter.HIGHER if key.endswith("window_seconds") else Tighter.LOWER
    for key in definition("symbol_limits")["properties"]
}
PROPERTIES = {key: follow(node) for key, node in definition("symbol_limits")["properties"].items()}
NULLABLE = frozenset(key for key, node in PROPERTIES.items() if "null" in node["type"])
DATE = re.compile(r"[0-9]{1,2}[A-Z]{3}[0-9]{2}|[0-9]{8}")


class Given(msgspec.Struct, frozen=True):
    """The value of one limit and the path that it stands at; a default has the path it would be written at."""

    value: Any
    path: str


Limits = Mapping[str, Given]


def kinds_named(symbol: str) -> tuple[Kind, ...]:
    """The kinds that an instrument of this name can have: BTC-PERPETUAL, BTC-27DEC26, BTC-27DEC26-60000-C tell.

    So do ETH-PERP and ETH-20261225-3000-C, as Derive has them.
    """
    match symbol.upper().split("-"):
        case [_, "PERPETUAL" | "PERP"]:
            return (Kind.PERPETUAL,)
        case [_, day] if DATE.fullmatch(day):
            return (Kind.FUTURE,)
        case [_, day, _, "C"] if DATE.fullmatch(day):
            return (Kind.CALL,)
        case [_, day, _, "P"] if DATE.fullmatch(day):
            return (Kind.PUT,)
    return tuple(Kind)


def kinds_of(entry: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The kinds that the symbols of one entry of `instruments:` can have."""
    if "select" in entry:
        chosen = mapping(entry["select"]).get("kinds", definition("selection")["properties"]["kinds"]["default"])
        known = tuple(kind for kind in Kind if isinstance(chosen, list) and kind in chosen)
        return known or tuple(Kind)
    return kinds_named(str(entry.get("symbol")))


def given(limits: Mapping[str, Any], kind: Kind) -> dict[str, Given]:
    """What `limits:` gives to a symbol of this kind."""
    found = {
        key: Given(node["default"], f"{PER_SYMBOL}.{key}") for key, node in PROPERTIES.items() if "default" in node
    }
    per_kind = mapping(limits.get("per_kind"))
    layers = [(PER_SYMBOL, mapping(limits.get("per_symbol")))]
    layers += [(f"limits.per_kind.{name}", mapping(per_kind.get(name))) for name in LAYERS[kind]]
    for path, layer in layers:
        found |= {key: Given(value, f"{path}.{key}") for key, value in layer.items() if key in PROPERTIES}
    return found


def narrowed(
    limits: Mapping[str, Any], entry: Mapping[str, Any], path: str, kind: Kind
) -> tuple[dict[str, Given], list[str]]:
    """What one symbol of this kind of the entry at `path` gets, and the entry's keys that are too wide to count."""
    outer = given(limits, kind)
    found = dict(outer)
    too_wide = []
    for key, value in mapping(entry.get("limits")).items():
        if key not in TIGHTER:
            continue
        if is_wider(key, value, outer):
            too_wide.append(key)
        else:
            found[key] = Given(value, f"{path}.limits.{key}")
    return found, too_wide


def is_wider(key: str, value: Any, outer: Limits) -> bool:
    """Whether an entry's value allows more than `limits:` does. False where either is no value of this key."""
    reach = reach_of(key, outer)
    if value is None:
        return key in NULLABLE and outer[key].value is not None
    own = number(value)
    if own is None or reach is None:
        return False
    return own < reach if TIGHTER[key] is Tighter.HIGHER else own > reach


def reach_of(key: str, outer: Limits) -> Decimal | None:
    """How far a limit reaches; None where it does not exist, or is no number."""
    if key not in outer:
        return None
    if key == "max_filled" and outer[key].value is None:
        position = reach_of("max_position", outer)
        return None if position is None else FILLED_POSITIONS * position
    return number(outer[key].value)


def widest(key: str, of: list[Limits]) -> Limits:
    """The one of them that allows the most; all of them have a number for this key."""
    pick: Callable[..., Limits] = min if TIGHTER[key] is Tighter.HIGHER else max
    return pick(of, key=lambda outer: reach_of(key, outer) or Decimal(0))


def symbol_limits(found: Limits) -> SymbolLimits:
    """The typed value of what the schema let through."""
    return msgspec.convert({key: each.value for key, each in found.items()}, SymbolLimits)
