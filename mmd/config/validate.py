"""Plain values against the schema: every finding in one pass, in words an operator can act on."""

import difflib
import functools
import re
from decimal import Decimal
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

from mmd.config.nodes import Finding, Node, Place, Step, join, key_place, place_at
from mmd.config.schema import Schema, at, branches, definition, follow, schema, walk

# How much one written unit is in the key's own unit.
UNITS: dict[str, dict[str, Decimal]] = {
    "bps": {"%": Decimal(100), "percent": Decimal(100), "bps": Decimal(1), "bp": Decimal(1)},
    "seconds": {
        "ms": Decimal("0.001"),
        "s": Decimal(1),
        "sec": Decimal(1),
        "seconds": Decimal(1),
        "m": Decimal(60),
        "min": Decimal(60),
        "h": Decimal(3600),
    },
    "milliseconds": {"ms": Decimal(1), "s": Decimal(1000), "sec": Decimal(1000), "seconds": Decimal(1000)},
    "hours": {"h": Decimal(1), "hours": Decimal(1), "d": Decimal(24), "days": Decimal(24)},
    "days": {"d": Decimal(1), "days": Decimal(1), "w": Decimal(7)},
    "MiB": {"mib": Decimal(1), "gib": Decimal(1024)},
    "GiB": {"gib": Decimal(1), "tib": Decimal(1024)},
    "times": {"x": Decimal(1)},
}
UNIT_NAMES = {"bps": "basis points (100 = 1 %)", "amount": "the instrument's amount unit", "price": "the price unit"}
WITH_UNIT = re.compile(r"\s*(?P<number>-?[0-9]+(?:[_,][0-9]{3})*(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z%$€]+)\s*")
TYPE_NAMES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
SHOWN_MAX = 60
HIDDEN = "is not good, and not shown because it could be a secret"


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def validate(data: Any, root: Node) -> list[Finding]:
    """Everything in `data` that the schema does not allow, placed by `root`; the most telling one for each value."""
    findings: dict[tuple[Place, str], Finding] = {}
    errors = sorted(_validator().iter_errors(data), key=lambda error: error.validator != "type")
    for error in errors:
        for each in _findings(error, data, root):
            findings.setdefault((each.place, each.path), each)
    return list(findings.values())


def _findings(error: ValidationError, data: Any, root: Node) -> list[Finding]:
    path: list[Step] = list(error.absolute_path)
    rule = str(error.validator)
    node: Schema = follow(error.schema) if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    if rule == "oneOf":
        return _one_of(error, node, path, data, root)
    if rule == "additionalProperties":
        return [_unknown_key(key, node, path, root) for key in instance if key not in node["properties"]]
    if rule == "required":
        missing = [key for key in node["required"] if key not in instance]
        # jsonschema reports each missing key on its own: find out which one this is.
        return [_missing_key(key, node, path, root) for key in missing if error.message.startswith(repr(key))]
    if "propertyNames" in error.absolute_schema_path:
        place = key_place(root, path, str(error.instance))
        return [Finding(place, shown_path(path), f"{shown(error.instance)} is no name; allowed: {node['x-allowed']}")]
    whole = at(path, data)  # knows the key's unit, which a referenced definition does not
    if whole is not None and "type" in whole and not node.get("x-secret"):
        node = whole
    return [Finding(place_at(root, path), shown_path(path), _wrong_value(error, rule, node))]


def shown_path(path: list[Step]) -> str:
    text = ""
    for step in path:
        text = join(text, step)
    return text


def shown(value: Any) -> str:
    """A value as the operator wrote it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def _one_of(error: ValidationError, node: Schema, path: list[Step], data: Any, root: Node) -> list[Finding]:
    """Into the branch that is meant; a plain word of what is allowed where none is."""
    if "x-by" in node:
        return _by_key(error, node, path, data, root)
    for index, branch in enumerate(branches(node)):
        if "type" not in branch or not _validator().is_type(error.instance, branch["type"]):
            continue
        if branch["type"] == "string":
            break
        return _inside(error, index, data, root)
    text = HIDDEN if node.get("x-hide") else _is(error.instance)
    return [finding(root, path, f"{text}; allowed: {node['x-allowed']}")]


def _by_key(error: ValidationError, node: Schema, path: list[Step], data: Any, root: Node) -> list[Finding]:
    """Into the branch that one of the keys names."""
    key: str = node["x-by"]
    options = [branch["properties"][key] for branch in branches(node)]
    names = [option["const"] for option in options]
    instance: Any = error.instance
    if not isinstance(instance, dict):
        return [finding(root, path, f"is {shown(instance)}; allowed: {TYPE_NAMES['object']}")]
    if instance.get(key) in names:
        return _inside(error, names.index(instance[key]), data, root)
    title = options[0]["title"]
    text = f"is {shown(instance[key])}" if key in instance else f"is missing: {title[:1].lower() + title[1:]}"
    wrong = [finding(root, [*path, key], f"{text}; allowed: {', '.join(names)}")]
    meant = nearest(str(instance.get(key)), names)
    return wrong + _inside(error, names.index(meant), data, root) if meant else wrong


def _inside(error: ValidationError, index: int, data: Any, root: Node) -> list[Finding]:
    """What is wrong by the rules of one branch."""
    inner = [each for each in error.context or () if each.schema_path[0] == index]
    return [found for each in inner for found in _findings(each, data, root)]


def _is(value: Any) -> str:
    return "the keys do not fit together" if isinstance(value, dict) else f"is {shown(value)}"


def _unknown_key(key: str, node: Schema, path: list[Step], root: Node) -> Finding:
    allowed = list(node["properties"])
    place = key_place(root, path, key)
    hint = ""
    if other := _other_type(key, path):
        hint = f"; it is a key of type {other};"
    elif near := nearest(key, allowed):
        hint = f"; did you mean {near}?"
    elif homes := _homes().get(key):
        hint = f"; it belongs to {homes[0]};"
    listed = f"allowed: {', '.join(sorted(allowed))}" if allowed else "nothing is allowed here yet"
    return Finding(place, shown_path([*path, key]), f"unknown key{hint or ';'} {listed}")


def _other_type(key: str, path: list[Step]) -> str | None:
    """The type of exchange that has this key, for one that stands in an entry of another type."""
    if len(path) != 2 or path[0] != "exchanges":
        return None
    having = [branch for branch in branches(definition("exchange")) if key in branch["properties"]]
    return having[0]["properties"]["type"]["const"] if having else None


def nearest(word: str, words: list[str]) -> str | None:
    """The known word that was probably meant."""
    lowered = {each.lower(): each for each in words}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return lowered[close[0]]
    started = [each for each in words if each.startswith((f"{word}_", f"max_{word}"))]
    return started[0] if started else None


@functools.cache
def _homes() -> dict[str, list[str]]:
    """Where each key may stand, for keys that were put in the wrong mapping."""
    homes: dict[str, list[str]] = {}
    for path, _ in walk():
        parent, _, key = path.rpartition(".")
        if parent and key.islower():
            homes.setdefault(key, []).append(parent)
    return {key: sorted(paths, key=lambda path: path.startswith("instruments")) for key, paths in homes.items()}


def _missing_key(key: str, node: Schema, path: list[Step], root: Node) -> Finding:
    text = "a configuration without explicit limits is refused"
    if path or key != "limits":
        below = follow(node["properties"][key])
        title = below.get("title", "")
        text = f"{title[:1].lower() + title[1:]}; allowed: {_allowed(below)}"
    return Finding(place_at(root, path), shown_path([*path, key]), f"is missing: {text}")


def _unit_name(unit: str) -> str:
    return UNIT_NAMES.get(unit, unit)


def _wrong_value(error: ValidationError, rule: str, node: Schema) -> str:
    value: Any = error.instance
    if node.get("x-secret"):
        return _wrong_secret(value, node)
    if node.get("x-hide"):
        return f"{HIDDEN}; allowed: {node['x-allowed']}"
    if rule in ("type", "pattern") and isinstance(value, str) and (unit := _wrong_unit(value, node)):
        return unit
    allowed = _allowed(node)
    if isinstance(value, str) and _numeric(node) and value.lower().lstrip("+-.") in ("nan", "inf", "infinity"):
        return f"is {shown(value)}; must be finite; allowed: {allowed}"
    if rule == "minItems" or rule == "minProperties":
        return f"is empty; allowed: {node.get('x-allowed', 'at least one entry')}"
    if rule == "maxItems" or rule == "maxProperties":
        return f"has {len(value)} entries; allowed: at most {error.validator_value}"
    if rule == "uniqueItems":
        return "names something twice"
    if rule == "maximum" and "x-decimal" in node:
        return f"is {shown(value)}; allowed: {allowed} up to {node['maximum']}"
    if isinstance(value, str) and _numeric(node) and "date" not in allowed:
        return f"is the text {shown(value)}; allowed: {allowed}{_text_hint(value)}"
    return f"is {shown(value)}; allowed: {allowed}"


def _text_hint(value: str) -> str:
    try:
        number = Decimal(value)
    except ArithmeticError:
        return ""
    if value[:1] == "0" and value.isdigit():
        return f" (without leading zeros: {number})"
    return " (without quotes)" if number.is_finite() else ""


def _wrong_secret(value: Any, node: Schema) -> str:
    """Never shows the value: it may be the secret."""
    if isinstance(value, str):
        return f"a secret must not be written here; allowed: {node['x-allowed']}"
    return f"names no source of a secret; allowed: {node['x-allowed']}"


def _wrong_unit(value: str, node: Schema) -> str | None:
    """What to write instead of `1s`, `10%` or `5 USD`; None if that is not the trouble."""
    unit = node.get("x-unit")
    match = WITH_UNIT.fullmatch(value)
    if not _numeric(node) or match is None or unit == "date":
        return None
    if match["unit"].lower() in ("nan", "inf"):
        return None
    number = Decimal(match["number"].replace(",", "").replace("_", ""))
    factor = UNITS.get(unit or "", {}).get(match["unit"].lower())
    if unit is None:
        return f"is {shown(value)}; allowed: {_allowed(node)} without a unit"
    if factor is None:
        return f"is {shown(value)}; the unit is always {_unit_name(unit)}: write a plain number"
    plain = format((number * factor).normalize(), "f")
    return f"is {shown(value)}; the unit is always {_unit_name(unit)}: write {plain}"


def _types(node: Schema) -> list[str]:
    kinds = node.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _numeric(node: Schema) -> bool:
    return "number" in _types(node) or "integer" in _types(node)


def _allowed(node: Schema) -> str:
    """What may stand here, in words, from the schema's own rules."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return ", ".join(node["enum"])
    text: str | None = node.get("x-allowed")
    if text is None:
        kinds = [TYPE_NAMES[kind] for kind in _types(node)]
        text = " or ".join(kinds) or "something else"
        low, high = node.get("minimum"), node.get("maximum")
        if "exclusiveMinimum" in node:
            text += f" above {node['exclusiveMinimum']}"
        elif low is not None:
            text += f" from {low}"
        if high is not None:
            text += f" up to {high}"
    unit = node.get("x-unit")
    return text if unit in (None, "date", "times") or "null" in text else f"{text} in {_unit_name(unit)}"


def finding(root: Node, path: list[Step], text: str) -> Finding:
    """A finding of our own about the value at `path`."""
    return Finding(place_at(root, path), shown_path(path), text)


def outside(file: str, text: str) -> Finding:
    """A finding about a whole file."""
    return Finding(Place(file, 1, 1), "(file)", text)
