"""Lines and requests: any chunking gives the same lines, anything that is no request is refused, never raised."""

import json
from decimal import Decimal

import pytest
import trio
from control_room import Room
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from mmd.control.parse import LineBuffer, Overlong, find_method, parse_params, parse_request, request_id
from mmd.control.protocol import METHODS, Code, Refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    *("symbols", "symbol", "reason", "timeout_seconds", "on", "since", "lines", "level", "what"),
    *("size", "limit_price", "slippage_bps", "exchange", "underlying"),
]
NEAR_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]) | JSON,
        "id": JSON,
        "method": st.sampled_from(sorted(METHODS)) | JSON,
        "params": st.dictionaries(st.sampled_from(KEYS), JSON) | JSON,
    },
)
LINES = st.one_of(
    st.binary(max_size=300),
    NEAR_REQUESTS.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    NEAR_REQUESTS.flatmap(lambda v: st.integers(0, 40).map(lambda n: json.dumps(v).encode()[:-n])),
)


@given(st.lists(st.binary(max_size=40).filter(lambda part: b"\n" not in part)), st.data())
def test_lines_do_not_depend_on_the_chunks(lines, data):
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    buffer = LineBuffer(max_bytes=40)
    got = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += buffer.feed(stream[:size])
        stream = stream[size:]
    assert got == lines
    assert buffer.rest() == b"rest"


def test_an_overlong_line_is_reported_once_and_the_next_is_read():
    buffer = LineBuffer(max_bytes=4)
    assert buffer.feed(b"12345") == [Overlong.LINE]
    assert buffer.feed(b"6" * 100) == []
    assert buffer.feed(b"7\nabcd\n") == [b"abcd"]
    assert buffer.feed(b"abcde\nx\n") == [Overlong.LINE, b"x"]
    assert buffer.rest() == b""


@given(LINES)
def test_any_line_is_a_request_or_refused(line):
    request_id(line)
    try:
        request = parse_request(line)
        parse_params(find_method(request.method), request.params)
    except Refusal as refusal:
        assert refusal.code in (Code.GARBAGE, Code.BAD_REQUEST, Code.NO_METHOD, Code.BAD_PARAMS)
        assert "allowed" in refusal.data


@pytest.mark.parametrize("depth", [10, 500, 5000])
def test_depth_is_no_way_in(depth):
    nested = b'{"jsonrpc":"2.0","method":"status","params":' + b'{"symbols":' * depth + b"1" + b"}" * depth + b"}"
    with pytest.raises(Refusal):
        request = parse_request(nested)
        parse_params(find_method(request.method), request.params)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=10), st.booleans())
def test_no_bytes_kill_the_server(tmp_path_factory, lines, half_close):
    async def attack() -> None:
        room = Room(tmp_path_factory.mktemp("fuzz") / "s")
        with trio.fail_after(10):
            await survive(room)

    async def survive(room: Room) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(room.serve)
            stream = await trio.open_unix_socket(str(room.path))
            async with stream:
                await stream.send_all(b"\n".join(lines) + b"\n")
                if half_close:
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
            stream = await trio.open_unix_socket(str(room.path))
            async with stream:
                await stream.send_all(b'{"jsonrpc":"2.0","id":1,"method":"version"}\n')
                assert b'"result"' in await stream.receive_some()
            nursery.cancel_scope.cancel()

    trio.run(attack)


PRICED = '{"symbol":"A","limit_price":%s}'


@pytest.mark.parametrize("number", ["0.1", "64335.123456789012345678", '"64335.5"', "12", "1e-18", "1e17"])
def test_amounts_are_exact(number):
    params = parse_params(METHODS["flatten"], Raw(f'{{"symbol":"A","size":{number},"limit_price":{number}}}'.encode()))
    assert params.size == params.limit_price == Decimal(number.strip('"'))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("0", "limit_price: 0 is not a number above 0"),
        ("-1", "limit_price: -1 is not a number above 0"),
        ('"NaN"', "limit_price: NaN is not a number above 0"),
        ('"Infinity"', "limit_price: Infinity is not a number above 0"),
        ("1e18", "limit_price: more than 18 digits on one side of the point"),
        ("1e999999", "limit_price: more than 18 digits on one side of the point"),
        ("1e-19", "limit_price: more than 18 digits on one side of the point"),
        ("true", "limit_price: Expected `decimal`, got `bool`"),
        ('"x"', "limit_price: Invalid decimal string"),
        ("null", "limit_price: Expected `decimal`, got `null`"),
    ],
)
def test_a_price_that_is_none_names_the_key_and_what_is_allowed(number, says):
    with pytest.raises(Refusal) as refused:
        parse_params(METHODS["flatten"], Raw((PRICED % number).encode()))
    assert refused.value.message.startswith(f"bad params of flatten: {says}")
    assert refused.value.data["key"] == "limit_price"
    assert "at most 18 digits" in refused.value.data["allowed"]


@pytest.mark.parametrize(
    ("method", "raw", "key"),
    [
        ("flatten", '{"symbol":"A"}', "limit_price"),
        ("flatten", '{"symbol":["A"],"limit_price":1}', "symbol"),
        ("flatten", '{"symbol":"A","limit_price":1,"size":0}', "size"),
        ("flatten_preview", '{"symbol":"A","slippage_bps":-1}', "slippage_bps"),
        ("flatten_preview", '{"symbol":"A","limit_price":1}', "limit_price"),
        ("protection_reset", '{"exchange":"deribit","underlying":"BTC"}', "reason"),
        ("protection_reset", '{"exchange":"deribit","underlying":"BTC","reason":"  "}', "reason"),
        ("risk", '{"symbols":["all"]}', "symbols"),
        ("cases", '{"all":true}', "all"),
        ("cases", '{"closed":1}', "closed"),
        ("accept", '{"reason":"x"}', "number"),
        ("accept", '{"number":0,"reason":"x"}', "number"),
        ("accept", '{"number":1}', "reason"),
        ("accept", '{"number":1,"reason":" "}', "reason"),
    ],
)
def test_wrong_params_name_their_key(method, raw, key):
    with pytest.raises(Refusal) as refused:
        parse_params(METHODS[method], Raw(raw.encode()))
    assert refused.value.code is Code.BAD_PARAMS
    assert refused.value.data["key"] == key
