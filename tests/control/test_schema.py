"""schemas/control.schema.json is what the code says, and real answers and requests validate against it."""

import json
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
import trio
from control_room import Room

from mmd.control import schema
from mmd.control.protocol import METHODS

FILE = Path(__file__).parents[2] / "schemas" / "control.schema.json"
PARAMS = {
    "pause": {"symbols": ["all"]},
    "resume": {"symbols": ["all"]},
    "halt": {"symbols": ["all"], "reason": "x"},
    "reset": {"symbols": ["all"], "reason": "x"},
    "shadow": {"symbols": ["all"], "on": True},
    "flatten_preview": {"symbol": "BTC-PERPETUAL", "size": 0.5},
    "flatten": {"symbol": "BTC-PERPETUAL", "size": 10, "limit_price": 64335.5},
    "cases": {"closed": True},
    "accept": {"number": 7, "reason": "x"},
    "protection_reset": {"exchange": "deribit", "underlying": "BTC", "reason": "x"},
    "log_level": {"level": "info"},
}


@pytest.fixture(scope="module")
def control() -> dict:
    return json.loads(FILE.read_text())


def valid(control: dict, name: str, value: object) -> None:
    rooted = {"$schema": control["$schema"], "$ref": f"#/$defs/{name}", "$defs": control["$defs"]}
    jsonschema.Draft202012Validator(rooted).validate(value)


def test_the_file_is_in_step():
    again = "python -m mmd.control.schema > schemas/control.schema.json"
    assert FILE.read_text() == schema.render(), f"out of step: {again}"


def test_the_installed_copy_is_the_same_file():
    assert (Path(schema.__file__).parent / "control.schema.json").read_text() == FILE.read_text()


def test_it_is_a_schema(control):
    jsonschema.Draft202012Validator.check_schema(control)


@pytest.mark.parametrize("name", METHODS)
async def test_real_answers_validate(room: Room, control, name):
    room.desk.happen("order.filled", symbol="BTC-PERPETUAL")
    request = {"jsonrpc": "2.0", "id": 1, "method": name, "params": PARAMS.get(name, {})}
    valid(control, f"request.{name}", request)
    stream = await room.connect()
    await stream.send_all(json.dumps(request).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some()
    answer = json.loads(line, parse_float=Decimal)
    valid(control, f"answer.{name}", answer)
    jsonschema.Draft202012Validator(control).validate(answer)
    if name == "status":
        assert answer["result"]["symbols"][0]["bid"]["price"] == Decimal("64010.5")


async def test_notices_and_failures_validate(room: Room, control):
    room.desk.happen("order.filled", symbol="BTC-PERPETUAL")
    stream = await room.connect()
    await stream.send_all(b'{"jsonrpc":"2.0","id":1,"method":"events_follow","params":{"since":0}}\nnonsense\n')
    text = b""
    with trio.fail_after(5):
        while text.count(b"\n") < 3:
            text += await stream.receive_some()
    for line in text.splitlines():
        value = json.loads(line)
        kind = "EventNotice" if "method" in value else "Failure" if "error" in value else "answer.events_follow"
        valid(control, kind, value)


def test_a_request_that_the_parser_refuses_does_not_validate(control):
    for params in ({}, {"symbols": []}, {"symbols": ["all"], "raeson": "x"}, {"symbols": ["all"], "reason": "a\nb"}):
        with pytest.raises(jsonschema.ValidationError):
            valid(control, "request.halt", {"jsonrpc": "2.0", "id": 1, "method": "halt", "params": params})
