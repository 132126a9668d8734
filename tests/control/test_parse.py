"""Lines and requests: any chunking gives the same lines, anything that is no request is refused, never raised."""

import json

import pytest
import trio
from control_room import Room
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.control.parse import LineBuffer, Overlong, find_method, parse_params, parse_request, request_id
from mmd.control.protocol import METHODS, Code, Refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEAR_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]) | JSON,
        "id": JSON,
        "method": st.sampled_from(sorted(METHODS)) | JSON,
        "params": st.dictionaries(
            st.sampled_from(["symbols", "reason", "timeout_seconds", "on", "since", "lines", "level", "what"]), JSON
        )
        | JSON,
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
