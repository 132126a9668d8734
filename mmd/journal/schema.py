"""schemas/event.schema.json, made from the records: `python -m mmd.journal.schema > schemas/event.schema.json`.

The schema is of one line of a journal: any record of `mmd.journal.records` with its hash before it.
"""

import inspect
import json
import sys
from typing import Any, get_args

import msgspec

from mmd.journal.chain import HASH_SIZE
from mmd.journal.records import FORMAT, AnyRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RULES = """\
One line of mmd's journal: a JSON object, UTF-8, ended by a newline, at most one record. Format {format}.

Units: `at` and everything that ends in _ns is Unix time in nanoseconds, UTC. Prices in _ticks are base ticks of the \
instrument's grid and sizes in _lots are lots: the instrument is in the `joined` record of its key. Decimals are \
strings and exact; other numbers that have a point are model values, never money. What a record leaves out has the \
default that stands here.

The hash of a line is SHA-256 over the hash of the line before (as hex, nothing before the very first) and the \
record's JSON, which is the line without `"hash":"...",`. `mmd verify` checks it.

What may change within a format: kinds, events, actions, fields and words of an enumeration may be added, so readers \
pass over what they do not know. Nothing is renamed, removed or given another meaning without another `format` in the \
`segment` record that begins every file. The `state` of a snapshot is the exception: it is the daemon's own, and \
readable only where `code` of its segment is the same."""

HASH = {
    "description": "SHA-256 that chains this line to the one before, as hex.",
    "type": "string",
    "pattern": f"^[0-9a-f]{{{HASH_SIZE}}}$",
}
NAMED = {
    "seq": "Number of the record: 1 for the first of a journal, one more with each, across files and restarts.",
    "at": "When it was written, by the daemon's clock: Unix nanoseconds, UTC.",
    "key": "A symbol, as exchange/symbol.",
    "label": "Our label of the order: mmd-SERVICE-SYMBOL-SIDE-EPOCH-N; n and epoch in base 36.",
    "order_id": "The exchange's number of the order; of an imagined one it begins with shadow-.",
    "trade_id": "The exchange's number of the execution; with the side unique in its instrument.",
    "exchange_ns": "Unix nanoseconds by the exchange's clock; 0 where it does not say.",
    "received_ns": "Unix nanoseconds by our clock when it was received.",
    "fee": "Positive paid, negative rebate, in fee_currency.",
    "uid": "Unix user of who asked, by the kernel.",
    "pid": "Process of who asked, or of the daemon.",
    "sha256": "Of the configuration's text; of a torn piece, of what was cut off.",
    "service": "Name of the service in the configuration; part of every label.",
    "version": "Of mmd; of bounds, their number.",
    "digest": "First 16 hex digits of SHA-256 over the JSON of the actions, as it would be with none left out.",
    "mark": "Mark price, price units of the instrument; 0.0 where unknown.",
    "index": "Index price, USD; 0.0 where unknown.",
}
SUFFIXES = {
    "_ns": "Unix nanoseconds, UTC.",
    "_ticks": "Base ticks of the instrument's grid.",
    "_lots": "Lots of the instrument.",
    "_bps": "Hundredths of a percent.",
    "_usd": "US dollars.",
    "_seconds": "Seconds.",
    "_ms": "Milliseconds.",
}


def event_schema() -> dict[str, Any]:
    """The whole schema: every line of a journal validates against it."""
    _, defs = msgspec.json.schema_components([AnyRecord], ref_template="#/$defs/{name}")
    kinds = [kind.__name__ for kind in get_args(AnyRecord)]
    for name in kinds:
        record = defs[name]
        record["title"] = record["properties"]["kind"]["enum"][0]
        record["properties"] = {"hash": HASH, **record["properties"]}
        record["required"] = ["hash", *record["required"]]
    return {
        "$schema": DIALECT,
        "$id": f"urn:mmd:journal:event:{FORMAT}",
        "title": "A line of the journal of mmd",
        "description": RULES.format(format=FORMAT),
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
        "$defs": {name: _polished(defs[name]) for name in [*kinds, *sorted(defs.keys() - set(kinds))]},
    }


def _polished(node: Any) -> Any:
    """Docstrings without indentation, fields with their units, and only words of JSON Schema."""
    if isinstance(node, list):
        return [_polished(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in node.items() if key != "discriminator"}  # a word of OpenAPI
    if isinstance(node.get("description"), str):
        node["description"] = inspect.cleandoc(node["description"])
    if isinstance(node.get("properties"), dict):
        node["properties"] = {name: _described(name, _polished(field)) for name, field in node["properties"].items()}
        return node
    return {key: _polished(value) for key, value in node.items()}


def _described(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field with what its name promises; what it says itself comes first."""
    text = NAMED.get(name) or next((words for end, words in SUFFIXES.items() if name.endswith(end)), "")
    return {"description": text, **field} if text else field


def render() -> str:
    """The file's text."""
    return json.dumps(event_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
