"""The schema as the one source of truth: it agrees with the structs, the page and the standard's own validator."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from config_samples import GOOD
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.config.load import load_text
from mmd.config.plan import Effect
from mmd.config.reference import reference
from mmd.config.render import to_json
from mmd.config.schema import definition, follow, schema, walk
from mmd.domain.errors import ConfigError
from mmd.domain.settings import (
    DataRules,
    PortfolioLimits,
    Profile,
    Protection,
    ScopeLimits,
    SymbolLimits,
    VolatilityWidth,
)

ROOT = Path(__file__).parents[2]
STRUCTS = [
    (Profile, definition("spread")),
    (VolatilityWidth, definition("spread")["properties"]["volatility"]),
    (DataRules, definition("market_data")),
    (SymbolLimits, definition("symbol_limits")),
    (PortfolioLimits, definition("portfolio_limits")),
    (ScopeLimits, definition("scope_limits")),
    (Protection, definition("protection")),
]
NOT_WRITTEN = {"name", "allowed"}  # the key of its mapping, and what resolution finds out


def test_it_is_a_valid_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert (ROOT / "mmd/config/mmd.schema.json").is_symlink()
    assert (ROOT / "mmd/config/mmd.schema.json").resolve() == ROOT / "schemas/mmd.schema.json"


@pytest.mark.parametrize(("struct", "node"), STRUCTS, ids=lambda each: getattr(each, "__name__", ""))
def test_defaults_are_those_of_the_struct(struct: type[msgspec.Struct], node: dict[str, object]) -> None:
    properties = follow(node)["properties"]
    for field in msgspec.structs.fields(struct):
        if field.name in NOT_WRITTEN:
            continue
        below = follow(properties[field.name])
        if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
            assert field.name in node["required"], field.name
            assert "default" not in below
        elif field.default is msgspec.NODEFAULT:
            assert below["default"] == field.default_factory(), field.name
        else:
            assert below["default"] == field.default, field.name
    assert set(properties) - {field.name for field in msgspec.structs.fields(struct)} <= {"market_data"}


@pytest.mark.parametrize(("path", "node"), list(walk()), ids=lambda each: each if isinstance(each, str) else "")
def test_every_key_explains_itself(path: str, node: dict[str, object]) -> None:
    if node.get("type") != "object" and "." in path and not path.endswith("COIN"):
        assert node.get("title"), path
        effect = node.get("x-reload")
        inside_a_value = any(word in path for word in ("credential", "file", "env", "url", "nearest", "within_days"))
        assert inside_a_value or Effect(str(effect)), path
    if path.endswith(("_bps", "_seconds", "_usd")):
        assert node.get("x-unit") == {"s": "bps", "d": "USD"}.get(path[-1], "seconds") or path.endswith("_seconds")
    for each in (*node.get("examples", []), *([node["default"]] if "default" in node else [])):
        jsonschema.Draft202012Validator({"$defs": schema()["$defs"], **node}).validate(each)


def test_the_page_is_in_step() -> None:
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == reference()


def test_the_page_is_printed_by_the_module() -> None:
    done = subprocess.run([sys.executable, "-m", "mmd.config.reference"], capture_output=True, text=True, check=True)
    assert done.stdout == reference()


def test_every_key_is_on_the_page() -> None:
    page = reference()
    missing = [
        path
        for path, _ in walk()
        if f"`{path}`" not in page
        and path.count(".") > 0
        and not path.endswith((".NAME", ".COIN", "[]"))
        and not path.startswith(("instruments[].limits.", "instruments[].market_data.", "instruments[].volatility."))
        and not path.startswith("limits.per_kind.")
        and "spreads.NAME.market_data." not in path
        and not any(part in path for part in (".client_id.", ".client_secret.", ".bearer.", "network."))
        and not any(part in path for part in (".wallet.", ".session_key.", ".reaper_session_key."))
        and not any(part in path for part in (".nearest", ".within_days"))
    ]
    assert missing == []


VALUES = st.one_of(
    st.integers(-5, 20_000),
    st.sampled_from([0.5, 2.5, True, False, None, "text", "0.5", "-1", [], {}, [1], {"nearest": 1}, "all", "live"]),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_loader_never_accepts_what_the_schema_refuses(data: st.DataObject) -> None:
    """One value of a good file replaced: what loads is valid for any other validator of JSON Schema too."""
    content = yaml.safe_load(GOOD)
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(VALUES)
        break
    try:
        config = load_text(yaml.safe_dump(content))
    except ConfigError:
        return
    jsonschema.validate(content, schema())
    jsonschema.validate(msgspec.json.decode(to_json(config)), schema())


def test_numbers_of_json_and_yaml_mean_the_same() -> None:
    config = load_text(GOOD.replace("size: 0.1}", 'size: "0.1"}'))
    assert config.profiles["options"].size == Decimal("0.1")
