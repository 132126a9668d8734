"""docs/configuration.md, written from the schema: `python -m mmd.config.reference > docs/configuration.md`."""

import sys
from collections.abc import Iterator
from typing import Any

from mmd.config.render import scalar
from mmd.config.schema import Schema, branches, follow, schema

HEADER = """# Configuration

Generated from `schemas/mmd.schema.json` by `python -m mmd.config.reference`; change it there.

"""
EFFECTS = """
## How files are read

- The file is `/etc/mmd/mmd.yaml` unless `--config` names another. Files `mmd.d/*.yaml` beside it are merged over it in
  order of their names: maps merge, lists replace.
- A number is taken exactly as it is written. Switches are `true` and `false`. Anchors, aliases and `<<` work, tags do
  not.
- Every error of all files is reported at once as `file:line:column: path: what is wrong; what is allowed`, and the exit
  status is 78. A secret file that others can read gives 77.
- Secrets are never written into a file, only where they are: `{credential: NAME}`, `{file: /PATH}` or `{env: NAME}`.

## What a reload does

| effect | meaning |
| --- | --- |
| live | takes effect at once; orders stay as they are |
| requote | orders are moved, resized or pulled where the new figures want it |
| drain | the orders of the symbols concerned are pulled first |
| restart | needs a new process: a reload that changes such a key is refused as a whole |

Symbols that a reload does not change keep their orders and their place in the queue.
"""
OVERRIDDEN = {
    "spread": "in place of the key of `spreads.NAME`",
    "symbol_limits": "in place of the keys of `limits.per_symbol`",
    "narrowed_limits": "where they are tighter than those of `limits`; they cannot widen them",
    "market_data": "in place of the keys of `market_data`",
}
UNITS = {"bps": "basis points", "amount": "the instrument's amount unit", "price": "the instrument's price unit"}


def reference() -> str:
    """The whole page."""
    root = schema()
    lines = [HEADER + str(root["description"]), EFFECTS, "## Keys", ""]
    for key in root["properties"]:
        lines += _section(root, key)
    return "\n".join(lines).rstrip() + "\n"


def _section(root: Schema, key: str) -> list[str]:
    node = follow(root["properties"][key])
    lines = [f"### `{key}`", "", f"{node['title']}. {node.get('description', '')}".rstrip(), ""]
    rows = list(_rows(node, key))
    if not rows:
        rows = [_row(key, node, required=key in root["required"])]
    return [*lines, "| key | what it is | values | default | reload |", "| --- | --- | --- | --- | --- |", *rows, ""]


def _rows(node: Schema, path: str) -> Iterator[str]:
    """One row for each key under `path`."""
    node = follow(node)
    if "x-by" in node:
        yield from _rows_by(node, path)
        return
    required = node.get("required", [])
    for key, below in node.get("properties", {}).items():
        below = follow(below)
        here = f"{path}.{key}"
        yield _row(here, below, required=key in required)
        if not below.get("x-secret") and "x-override" not in below:
            yield from _rows(below, here)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        here = f"{path}.{node['x-name']}"
        if follow(extra).get("type") == "object" or "x-by" in follow(extra):
            yield from _rows(extra, here)
        else:
            yield _row(here, {"title": node["title"], **follow(extra)}, required=False)
    items = node.get("items")
    if isinstance(items, dict) and follow(items).get("type") == "object":
        yield from _rows(items, f"{path}[]")


def _rows_by(node: Schema, path: str) -> Iterator[str]:
    """What one key decides: a key that is the same whatever that key says stands here once, any other with its name."""
    by = node["x-by"]
    options = {branch["properties"][by]["const"]: branch for branch in branches(node)}
    told: set[str] = set()
    for name, branch in options.items():
        for key, below in branch["properties"].items():
            if key == by:
                below = {**below, "enum": list(options)}
                del below["const"]
            having = [other["properties"].get(key) for other in options.values()]
            is_common = key == by or all(other == having[0] for other in having)
            single = {**branch, "properties": {key: below}}
            for row in _rows(single, path):
                text = row if is_common else row.replace(" | ", f" | {name}: ", 1)
                if text not in told:
                    told.add(text)
                    yield text


def _row(path: str, node: Schema, *, required: bool) -> str:
    title = node.get("title", "")
    what = f"{title}. {node.get('description', '')}".strip()
    if "x-override" in node:
        what = f"{title}, {OVERRIDDEN[node['x-override']]}."
    default = "required" if required else f"`{scalar(node['default'])}`" if _has_default(node) else ""
    effect = node.get("x-reload", "")
    return " | ".join(["| " + f"`{path}`", _cell(what), _cell(_values(node)), _cell(default), f"{effect} |"])


def _has_default(node: Schema) -> bool:
    return "default" in node and node["default"] != {} and "x-override" not in node


def _values(node: Schema) -> str:
    """What may stand there, in words, with the unit and an example."""
    if node.get("x-secret"):
        text = "`{credential: NAME}`, `{file: /PATH}` or `{env: NAME}`"
        return f"{text}, or `null` for none" if "null" in node["type"] else text
    if "const" in node:
        text = f"`{node['const']}`"
    elif "enum" in node:
        text = ", ".join(f"`{each}`" for each in node["enum"])
    elif "x-allowed" in node:
        text = str(node["x-allowed"])
    else:
        text = _type_text(node)
    unit = node.get("x-unit")
    if unit and unit not in ("date", "times"):
        text += f"; {UNITS.get(unit, unit)}"
    examples: list[Any] = node.get("examples", [])
    if examples:
        text += "; as in " + ", ".join(f"`{scalar(each)}`" for each in examples)
    return text


def _type_text(node: Schema) -> str:
    kinds = node.get("type", "")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    names = {
        "boolean": "`true`, `false`",
        "array": "list",
        "object": "mapping",
        "string": "text",
        "integer": "whole number",
    }
    text = names.get(kind, kind)
    items = follow(node["items"]) if kind == "array" else {}
    if "enum" in items:
        text = "list of " + ", ".join(f"`{each}`" for each in items["enum"])
    low = f"above {node['exclusiveMinimum']}" if "exclusiveMinimum" in node else ""
    low = f"from {node['minimum']}" if "minimum" in node else low
    high = f"up to {node['maximum']}" if "maximum" in node else ""
    return " ".join(part for part in (text, low, high) if part)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(reference())
