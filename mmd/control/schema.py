"""schemas/control.schema.json, made from the Structs: `python -m mmd.control.schema > schemas/control.schema.json`.

`#/$defs/result.NAME` is the shape of the result of one method, and of `mmdctl --json NAME`.
"""

import inspect
import json
import sys
from typing import Any

import msgspec

from mmd.control.protocol import METHODS, PROTOCOL, EventNotice, Failure, Id, Method

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def control_schema() -> dict[str, Any]:
    """The whole schema: any line of either direction validates against it."""
    methods = list(METHODS.values())
    types: list[Any] = [EventNotice, Failure]
    for method in methods:
        types += [method.params, method.result]
    (event, failure, *rest), defs = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    (request_id,), _ = msgspec.json.schema_components([Id])
    defs["id"] = request_id
    for method, params, result in zip(methods, rest[::2], rest[1::2], strict=True):
        defs[f"request.{method.name}"] = _request(method, params)
        defs[f"result.{method.name}"] = {"description": f"Answer to {method.name}.", **result}
        defs[f"answer.{method.name}"] = _answer(method)
    return {
        "$schema": DIALECT,
        "title": "The control socket of mmd",
        "description": (
            f"JSON-RPC 2.0 over a Unix stream socket, one object a line, UTF-8, at most 1 MiB. Protocol {PROTOCOL}. "
            "Times are Unix seconds, prices and sizes exact decimals in the exchange's units. "
            "#/$defs/result.NAME is also what `mmdctl --json NAME` prints."
        ),
        "anyOf": [
            *({"$ref": f"#/$defs/request.{method.name}"} for method in methods),
            *({"$ref": f"#/$defs/answer.{method.name}"} for method in methods),
            event,
            failure,
        ],
        "$defs": {name: _plain(defs[name]) for name in sorted(defs)},
    }


def _request(method: Method, params: dict[str, Any]) -> dict[str, Any]:
    required = ["jsonrpc", "method"]
    if any(field.required for field in msgspec.structs.fields(method.params)):
        required.append("params")
    return {
        "description": f"{method.summary} Needs the role {method.role.value}.",
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"$ref": "#/$defs/id"},
            "method": {"const": method.name},
            "params": params,
        },
        "required": required,
        "additionalProperties": False,
    }


def _answer(method: Method) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"$ref": "#/$defs/id"},
            "result": {"$ref": f"#/$defs/result.{method.name}"},
        },
        "required": ["jsonrpc", "id", "result"],
    }


def _plain(node: Any) -> Any:
    """Decimals travel as JSON numbers here, docstrings without their indentation; msgspec has neither everywhere."""
    if isinstance(node, dict):
        if isinstance(node.get("description"), str):
            node = node | {"description": inspect.cleandoc(node["description"])}
        if node.get("type") == "string" and node.get("format") == "decimal":
            node = {key: value for key, value in node.items() if key != "format"} | {"type": "number"}
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def render() -> str:
    """The file's text."""
    return json.dumps(control_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
