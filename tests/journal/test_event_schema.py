"""schemas/event.schema.json is what the records say, and every line of a real journal validates against it."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from export_story import tell

from mmd.journal import schema
from mmd.journal.disk import OsDisk
from mmd.journal.records import FORMAT, AnyRecord, SnapshotsDone
from mmd.journal.segments import segment_files

FILE = Path(__file__).parents[2] / "schemas" / "event.schema.json"


@pytest.fixture(scope="module")
def event() -> dict[str, Any]:
    return json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("schema") / "journal"
    tell(directory)
    text = "".join(file.path.read_text() for file in segment_files(OsDisk(), directory))
    return [json.loads(line) for line in text.splitlines()]


def test_the_file_is_in_step() -> None:
    again = "python -m mmd.journal.schema > schemas/event.schema.json"
    assert FILE.read_text() == schema.render(), f"out of step: {again}"


def test_it_is_a_schema_of_this_format(event: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(event)
    assert event["$id"] == f"urn:mmd:journal:event:{FORMAT}"
    assert "Nothing is renamed" in event["description"]
    assert "discriminator" not in FILE.read_text()


def test_every_kind_of_record_is_in_it_with_its_hash(event: dict[str, Any]) -> None:
    kinds = [kind.__name__ for kind in get_args(AnyRecord)]
    assert [ref["$ref"] for ref in event["anyOf"]] == [f"#/$defs/{name}" for name in kinds]
    for name in kinds:
        assert event["$defs"][name]["required"][:4] == ["hash", "kind", "seq", "at"]
        assert event["$defs"][name]["description"]


def test_units_and_promises_are_told(event: dict[str, Any]) -> None:
    fill = event["$defs"]["OrderFilled"]["properties"]
    assert fill["size_lots"]["description"] == "Lots of the instrument."
    assert "exchange's clock" in fill["exchange_ns"]["description"]
    for name, definition in event["$defs"].items():
        for field, body in definition.get("properties", {}).items():
            if field.endswith(tuple(schema.SUFFIXES)):
                assert body.get("description"), f"{name}.{field}"


def test_the_lines_of_a_journal_validate(event: dict[str, Any], told: list[dict[str, Any]]) -> None:
    validator = jsonschema.Draft202012Validator(event)
    assert len(told) == 38
    assert len({line["kind"] for line in told}) >= 11
    for line in told:
        validator.validate(line)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.pop("hash"),
        lambda line: line.update(hash="A" * 64),
        lambda line: line.update(kind="rumour"),
        lambda line: line.update(seq="7"),
        lambda line: line["events"][0].update(type="Rumour"),
        lambda line: line["events"][0].pop("received_ns"),
        lambda line: line["actions"][1].update(side="both"),
    ],
)
def test_what_is_no_line_does_not_validate(event: dict[str, Any], told: list[dict[str, Any]], spoil: Any) -> None:
    line = json.loads(json.dumps(next(line for line in told if line["seq"] == 8)))
    jsonschema.validate(line, event)
    spoil(line)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line, event)


def test_a_field_that_a_later_version_adds_is_passed_over(event: dict[str, Any]) -> None:
    body = msgspec.json.decode(msgspec.json.encode(SnapshotsDone(seq=1, at=2)))
    jsonschema.validate({"hash": "0" * 64, **body, "added": 1}, event)
