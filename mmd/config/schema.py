"""The one schema: loaded once, its references followed, its defaults filled in, its keys walked."""

import functools
import importlib.resources
import json
from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

from mmd.config.nodes import Step

Schema = dict[str, Any]
DEFS = "#/$defs/"


@functools.cache
def schema() -> Schema:
    """schemas/mmd.schema.json as it is installed with the package; its numbers exact, as those of a file are."""
    text = importlib.resources.files("mmd.config").joinpath("mmd.schema.json").read_text(encoding="utf-8")
    loaded: Schema = json.loads(text, parse_float=Decimal)
    return loaded


def definition(name: str) -> Schema:
    found: Schema = schema()["$defs"][name]
    return found


def follow(node: Schema) -> Schema:
    """The node with its `$ref` resolved; what stands beside the reference wins."""
    reference = node.get("$ref")
    if reference is None:
        return node
    target = schema()
    for part in reference.removeprefix("#/").split("/"):
        target = target[part]
    return {**follow(target), **{key: value for key, value in node.items() if key != "$ref"}}


def branches(node: Schema) -> list[Schema]:
    """The alternatives of a node that has some."""
    return [follow(branch) for branch in node.get("oneOf", ())]


def chosen(node: Schema, value: Any) -> Schema:
    """Where one key says which keys there are (`x-by`), the alternative that `value` names; else the node itself."""
    node = follow(node)
    by = node.get("x-by")
    if by is None or not isinstance(value, dict):
        return node
    return next((branch for branch in branches(node) if branch["properties"][by]["const"] == value.get(by)), node)


def child(node: Schema, step: Step) -> Schema | None:
    """The schema of one key or item of what `node` describes; None where it describes none."""
    node = follow(node)
    if isinstance(step, int):
        items = node.get("items")
        return follow(items) if items is not None else _branch_child(node, step)
    if step in node.get("properties", {}):
        return follow(node["properties"][step])
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        return follow(extra)
    return _branch_child(node, step)


def _branch_child(node: Schema, step: Step) -> Schema | None:
    for branch in branches(node):
        if "type" in branch and (found := child(branch, step)) is not None:
            return found
    return None


def at(path: list[Step], data: Any = None) -> Schema | None:
    """The schema of the value at a path of the configuration, which is `data`: some keys depend on others."""
    node: Schema | None = schema()
    value: Any = data
    for step in path:
        if node is None:
            return None
        node = child(chosen(node, value), step)
        value = None if value is None else value[step]
    return node


def reload_effect(path: list[Step]) -> str:
    """How a change of this key takes effect: the `x-reload` of the key, or of the nearest key above it."""
    effect = "restart"
    node: Schema | None = schema()
    for step in path:
        node = child(node, step) if node is not None else None
        if node is None:
            break
        effect = node.get("x-reload", effect)
    return effect


def fill_defaults(value: Any, node: Schema) -> Any:
    """A copy of `value` with every absent key that has a default. Overrides are left as they are."""
    node = chosen(node, value)
    if isinstance(value, list):
        items = node.get("items")
        return [fill_defaults(each, items) for each in value] if items else list(value)
    if not isinstance(value, dict):
        return value
    if "x-override" in node:
        return dict(value)
    filled = {}
    properties = node.get("properties", {})
    for key, entry in value.items():
        below = child(node, key)
        skip = below is None or "x-override" in below
        filled[key] = entry if skip or below is None else fill_defaults(entry, below)
    for key, below in properties.items():
        below = follow(below)
        if key not in filled and "default" in below and "x-override" not in below:
            filled[key] = fill_defaults(deepcopy(below["default"]), below)
    return filled


def walk(node: Schema | None = None, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every key of the configuration with its resolved schema, in the schema's order."""
    node = follow(schema() if node is None else node)
    for key, below in node.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        below = follow(below)
        yield here, below
        yield from walk(below, here)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        here = f"{path}.{node.get('x-name', 'NAME')}"
        below = follow(extra)
        yield here, below
        yield from walk(below, here)
    items = node.get("items")
    if isinstance(items, dict) and follow(items).get("type") == "object":
        yield f"{path}[]", follow(items)
        yield from walk(items, f"{path}[]")
    for branch in branches(node):
        if branch.get("type") == "object":
            yield from walk(branch, path)
