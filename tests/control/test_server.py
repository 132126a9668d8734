"""The server on a real socket: answers, errors, order, bounds, streams, and that it lives on."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
from control_room import Room
from trio.testing import wait_all_tasks_blocked

from mmd.control import server
from mmd.control.protocol import METHODS
from mmd.control.server import describe


class Line:
    """A client that speaks raw lines."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.held = b""

    async def send(self, *requests: object) -> None:
        for request in requests:
            raw = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
            await self.stream.send_all(raw)

    async def receive(self) -> dict:
        while b"\n" not in self.held:
            chunk = await self.stream.receive_some(65536)
            assert chunk, f"closed, left {self.held!r}"
            self.held += chunk
        line, self.held = self.held.split(b"\n", 1)
        return json.loads(line)

    async def ask(self, method: str, **params: object) -> dict:
        await self.send(request(method, **params))
        return await self.receive()


def request(method: str, id: object = 1, **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


async def until(condition: Callable[[], object]) -> None:
    """Let everybody work until it is true."""
    with trio.fail_after(5):
        while not condition():
            await trio.lowlevel.checkpoint()


async def is_let_in(room: Room) -> bool:
    line = await connect(room)
    try:
        return "result" in await line.ask("version")
    except trio.BrokenResourceError:
        return False


async def connect(room: Room) -> Line:
    return Line(await room.connect())


async def test_status_answers_with_the_id_and_exact_numbers(room):
    line = await connect(room)
    await line.send({"jsonrpc": "2.0", "id": "a", "method": "status"})
    answer = await line.receive()
    assert answer["id"] == "a"
    assert [row["symbol"] for row in answer["result"]["symbols"]] == list(room.desk.symbols)
    assert answer["result"]["symbols"][0]["bid"]["price"] == 64010.5


@pytest.mark.parametrize(
    ("method", "params", "key"),
    [
        ("version", {}, "version"),
        ("status", {"symbols": ["BTC-*"]}, "symbols"),
        ("show", {"what": "config"}, "config"),
        ("show", {"symbols": ["deribit/ETH-PERPETUAL"]}, "symbols"),
        ("explain", {"symbols": ["BTC-PERPETUAL"]}, "symbols"),
        ("orders", {}, "orders"),
        ("positions", {}, "positions"),
        ("plan", {}, "lines"),
        ("events", {"since": 0}, "events"),
        ("pause", {"symbols": ["all"], "reason": "lunch"}, "outcome"),
        ("resume", {"symbols": ["all"]}, "outcome"),
        ("halt", {"symbols": ["all"]}, "outcome"),
        ("reset", {"symbols": ["all"], "reason": "looked"}, "outcome"),
        ("shadow", {"symbols": ["all"], "on": True}, "outcome"),
        ("reload", {"confirm_seconds": 30}, "plan"),
        ("confirm", {}, "plan"),
        ("log_level", {"level": "debug"}, "detail"),
    ],
)
async def test_every_method_answers(room, method, params, key):
    line = await connect(room)
    answer = await line.ask(method, **params)
    assert key in answer["result"]


@pytest.mark.parametrize(
    ("raw", "code", "says", "answer_id"),
    [
        (b"hello\n", -32700, "not JSON", None),
        (b"\xff\xfe\n", -32700, "not JSON", None),
        (b"[" * 5000 + b"\n", -32700, "not JSON", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"symbols":["\xed\xa0\x80"]}}\n', -32700, "not JSON", 1),
        (b"[]\n", -32600, "Expected `object`", None),
        (b"{}\n", -32600, "missing required field `jsonrpc`", None),
        (b'{"jsonrpc":"1.0","id":7,"method":"status"}\n', -32600, "jsonrpc", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"status","parms":{}}\n', -32600, "parms", 7),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"status"}\n', -32600, "id", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"stauts"}\n', -32601, "did you mean status", 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","params":[1]}\n', -32602, "Expected `object`", 1),
    ],
)
async def test_bad_lines_get_their_code_and_the_server_lives(room, raw, code, says, answer_id):
    line = await connect(room)
    await line.send(raw)
    answer = await line.receive()
    assert answer["error"]["code"] == code
    assert says in answer["error"]["message"]
    assert answer["id"] == answer_id
    assert "result" in await line.ask("version")


@pytest.mark.parametrize(
    ("method", "params", "data", "says"),
    [
        ("halt", {}, {"key": "symbols"}, "at least one symbol"),
        ("halt", {"symbols": []}, {"key": "symbols"}, "at least one symbol"),
        ("halt", {"symbols": "all"}, {"key": "symbols"}, "at least one symbol"),
        ("halt", {"symbols": ["all"], "raeson": "x"}, {"key": "raeson", "suggestion": "reason"}, "mean reason"),
        ("pause", {"symbols": ["all"], "reason": "a\nb"}, {"key": "reason"}, "one line"),
        ("pause", {"symbols": ["all"], "reason": "a\n"}, {"key": "reason"}, "one line"),
        ("reset", {"symbols": ["all"]}, {"key": "reason"}, "not blank"),
        ("reset", {"symbols": ["all"], "reason": "  "}, {"key": "reason"}, "not blank"),
        ("pause", {"symbols": ["all"], "timeout_seconds": -1}, {"key": "timeout_seconds"}, "0 to 600"),
        ("reload", {"confirm_seconds": 0}, {"key": "confirm_seconds"}, "above 0"),
        ("log_level", {"level": "loud"}, {"key": "level"}, "debug, info, warning, error"),
        ("show", {"what": "secrets"}, {"key": "what"}, "config"),
        ("version", {"x": 1}, {"key": "x", "allowed": []}, "allowed: none"),
        ("events", {"since": 2**70}, {"key": "since"}, "number of an event"),
    ],
)
async def test_bad_params_name_the_key_and_what_is_allowed(room, method, params, data, says):
    line = await connect(room)
    error = (await line.ask(method, **params))["error"]
    assert error["code"] == -32602
    assert says in error["message"]
    assert data.items() <= error["data"].items()
    assert room.desk.calls == []


async def test_an_unmatched_pattern_is_refused_by_name(room):
    line = await connect(room)
    error = (await line.ask("halt", symbols=["BTC-PERPETUAL", "DOGE*"]))["error"]
    assert error == {"code": -32002, "message": "no symbol matches 'DOGE*'", "data": {"pattern": "DOGE*"}}


async def test_a_fault_behind_one_request_is_answered_and_the_server_lives(room, caplog):
    line = await connect(room)
    room.desk.fault = AssertionError("book of nobody")
    error = (await line.ask("status"))["error"]
    assert error["code"] == -32603
    assert "book of nobody" in error["message"]
    room.desk.fault = None
    assert "result" in await line.ask("status")


async def test_pipelined_requests_are_answered_in_order_of_completion(room):
    room.desk.gate = trio.Event()
    line = await connect(room)
    await line.send(request("pause", 1, symbols=["all"]), request("status", 2), request("version", 3))
    assert {(await line.receive())["id"] for _ in range(2)} == {2, 3}
    room.desk.gate.set()
    assert (await line.receive())["id"] == 1


async def test_a_thousand_pipelined_requests_are_all_answered(room):
    line = await connect(room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.send, b"".join(json.dumps(request("version", n)).encode() + b"\n" for n in range(1000)))
        answers = [await line.receive() for _ in range(1000)]
    assert sorted(answer["id"] for answer in answers) == list(range(1000))
    assert all("result" in answer for answer in answers)


async def test_halt_is_served_while_everything_else_waits(room):
    room.desk.gate = trio.Event()
    line = await connect(room)
    for n in range(server.WORKING_MAX + 10):
        await line.send(request("resume", n, symbols=["all"]))
    await line.send(request("halt", "now", symbols=["all"]))
    answer = await line.receive()
    assert answer["id"] == "now"
    assert answer["result"]["outcome"] == "done"
    assert sum(call[0] == "resume" for call in room.desk.calls) == server.WORKING_MAX


async def test_a_notification_is_carried_out_and_not_answered(room):
    line = await connect(room)
    await line.send({"jsonrpc": "2.0", "method": "pause", "params": {"symbols": ["all"]}})
    await line.send({"jsonrpc": "2.0", "method": "nonsense"})
    assert (await line.ask("version"))["result"]["protocol"] == 1
    await until(lambda: room.desk.calls)
    assert [call[0] for call in room.desk.calls] == ["pause"]


async def test_a_half_closed_client_is_answered_and_then_closed(room):
    room.desk.gate = trio.Event()
    line = await connect(room)
    await line.send(json.dumps(request("pause", symbols=["all"])).encode())  # and no newline
    await line.stream.send_eof()
    await until(lambda: room.desk.calls)
    room.desk.gate.set()
    assert (await line.receive())["result"]["outcome"] == "done"
    assert await line.stream.receive_some() == b""


async def test_a_change_ends_though_its_client_has_gone(room):
    room.desk.gate = trio.Event()
    line = await connect(room)
    await line.send(request("pause", symbols=["BTC-PERPETUAL"]))
    await until(lambda: room.desk.calls)
    await line.stream.aclose()
    await wait_all_tasks_blocked()
    room.desk.gate.set()
    await until(lambda: room.audited)
    assert room.desk.symbols["BTC-PERPETUAL"].state == "PAUSED"
    assert [entry[1] for entry in room.audited] == ["pause"]


async def test_an_overlong_line_is_refused_and_skipped(room):
    line = await connect(room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.send, b"x" * (2 * 1024 * 1024) + b"\n", request("version"))
        error = (await line.receive())["error"]
        assert error["code"] == -32700
        assert "1 MiB" in error["message"]
        assert (await line.receive())["result"]["protocol"] == 1


async def test_a_client_that_does_not_read_is_dropped(room, autojump_clock):
    line = await connect(room)
    for _ in range(400):
        room.desk.happen("order.filled", detail="x" * 10_000)
    await line.send(request("events_follow", since=0))
    other = await connect(room)
    assert "result" in await other.ask("version")
    await trio.sleep(server.SEND_SECONDS + 1)
    received = 0
    while chunk := await line.stream.receive_some(65536):
        received += len(chunk)
    assert received < 4_000_000


async def test_more_clients_than_allowed_are_turned_away(room):
    lines = [await connect(room) for _ in range(server.CLIENTS_MAX)]
    for line in lines:
        assert "result" in await line.ask("version")
    late = await connect(room)
    assert (await late.receive())["error"]["code"] == -32003
    await lines[0].stream.aclose()
    await late.stream.aclose()
    with trio.fail_after(5):
        while not await is_let_in(room):
            await trio.lowlevel.checkpoint()


async def test_every_change_is_audited_with_caller_reason_and_outcome(room):
    line = await connect(room)
    await line.ask("pause", symbols=["BTC-*", "ETH-PERPETUAL"], reason="lunch")
    await line.ask("halt", symbols=["NONE"])
    await line.ask("reload", confirm_seconds=5)
    await line.ask("status")
    assert [entry[0].uid for entry in room.audited] == [0, 0, 0]
    assert [entry[1:] for entry in room.audited] == [
        ("pause", {"symbols": ["BTC-*", "ETH-PERPETUAL"], "reason": "lunch"}, "done: 3 symbols"),
        ("halt", {"symbols": ["NONE"]}, "refused: no symbol matches 'NONE'"),
        ("reload", {"confirm_seconds": 5.0}, "done: generation 5 is in force"),
    ]


def test_what_was_asked_for_reads_well_and_holds_no_secret():
    asked = {"symbols": ["BTC-*", "all"], "reason": "it's late", "size": "0.5", "on": False}
    assert describe(asked) == "symbols=BTC-*,all reason=\"it's late\" size='0.5' on=False"
    assert describe({}) == ""
    names = {field.name for method in METHODS.values() for field in msgspec.structs.fields(method.params)}
    assert [name for name in names if re.search("secret|key|token|password|credential", name)] == []


async def test_a_desk_that_is_stuck_times_out(room, autojump_clock):
    room.desk.gate = trio.Event()
    line = await connect(room)
    error = (await line.ask("pause", symbols=["all"], timeout_seconds=3))["error"]
    assert error["code"] == -32004
    assert "may still take effect" in error["message"]
    assert room.audited[0][3].startswith("timed_out")


async def test_events_are_followed_until_the_client_closes(room):
    for n in range(5):
        room.desk.happen("order.filled", detail=str(n))
    line = await connect(room)
    await line.send(request("events_follow", lines=2))
    assert (await line.receive())["result"] == {"since": 3, "newest": 5}
    assert [(await line.receive())["params"]["seq"] for _ in range(2)] == [4, 5]
    assert (await line.ask("version"))["id"] == 1  # other requests go on beside it
    room.desk.happen("symbol.paused", symbol="BTC-PERPETUAL")
    notice = await line.receive()
    assert notice["method"] == "event"
    assert notice["params"]["name"] == "symbol.paused"
    assert (await line.ask("events_follow"))["error"]["code"] == -32003


async def test_a_half_closed_follower_gets_events_until_it_hangs_up(room, autojump_clock):
    line = await connect(room)
    await line.send(request("events_follow"))
    await line.stream.send_eof()
    assert "result" in await line.receive()
    room.desk.happen("one")
    assert (await line.receive())["params"]["name"] == "one"
    await line.stream.aclose()
    await trio.sleep(server.HANGUP_SECONDS * 2)
    lines = [await connect(room) for _ in range(server.CLIENTS_MAX)]
    for other in lines:
        assert "result" in await other.ask("version")


async def test_a_batch_of_events_ends_with_the_newest(room):
    for _ in range(5):
        room.desk.happen("x")
    line = await connect(room)
    result = (await line.ask("events", since=1, lines=2))["result"]
    assert ([event["seq"] for event in result["events"]], result["newest"]) == ([4, 5], 5)
    assert (await line.ask("events", since=99))["result"] == {"newest": 5, "events": [], "cut": ""}


async def test_the_socket_is_gone_after_the_server(tmp_path: Path):
    room = Room(tmp_path / "mmd.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(room.serve)
        assert room.path.is_socket()
        nursery.cancel_scope.cancel()
    assert not room.path.exists()
