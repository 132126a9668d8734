"""The program mmdctl against a real socket: commands, JSON, exit statuses, streams, terminals."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import trio
from control_desk import FAILING, NOW, symbol_status
from control_room import Room
from msgspec.structs import replace

from mmd.cli import mmdctl
from mmd.cli.client import default_socket
from mmd.control import schema
from mmd.control.server import CLIENTS_MAX
from mmd.domain.errors import MmdError
from mmd.shell.desk import EventQuery, Outcome

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "mmd.cli.mmdctl"]


async def run(room: Room, *words: str) -> int:
    """main() in a thread: it blocks, and the server must answer meanwhile."""
    try:
        return await trio.to_thread.run_sync(mmdctl.main, ["--socket", str(room.path), *words])
    except SystemExit as end:
        return int(end.code or 0)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "MMD_SOCKET")}
    return {**kept, **more}


async def program(room: Room, *words: str, **more: str) -> subprocess.CompletedProcess:
    return await trio.run_process(
        [*PROGRAM, *words],
        cwd=ROOT,
        env=environment(MMD_SOCKET=str(room.path), **more),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


@contextlib.contextmanager
def answering(path: Path, reply: bytes | None) -> Iterator[None]:
    """Something that is no daemon: takes one request, answers so (None: not at all) and closes."""

    def serve() -> None:
        peer, _ = odd.accept()
        with peer:
            peer.recv(65536)
            if reply is None:
                peer.recv(1)  # until the client gives up
            else:
                peer.sendall(reply)

    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(path))
        odd.listen()
        server = threading.Thread(target=serve)
        server.start()
        yield
        server.join()


# --- exit statuses ---------------------------------------------------------------------------------

STATUSES = [
    ("status", 0, ""),
    ("status BTC-PERPETUAL deribit/ETH-*", 0, ""),
    ("status --check", 5, "degraded: deribit/ETH-PERPETUAL is HALTING (1 order): drawdown"),
    ("status --check BTC-PERPETUAL", 0, ""),
    ("status DOGE", 1, "no symbol matches 'DOGE'"),
    ("show", 0, ""),
    ("show config", 0, ""),
    ("show config BTC-PERPETUAL", 2, "either `config` or symbols"),
    ("explain BTC-PERPETUAL", 0, ""),
    ("explain", 2, "required: SYMBOL"),
    ("orders BTC-*", 0, ""),
    ("positions", 0, ""),
    ("plan", 0, ""),
    ("events", 0, ""),
    ("events --since -1", 2, "number of an event"),
    ("events --lines 10001", 2, "0 to 10000"),
    ("events --since yesterday", 2, "a UTC time as 2026-01-31T12:03:00Z, or an age"),
    ("events --since 2026-02-30", 2, "is not the number of an event"),
    ("events --until 5x", 2, "is not the number of an event"),
    ("events --follow --until 5", 2, "--until has no meaning with --follow"),
    ("events --since 2h --until 1h --name order.* --symbol BTC-*", 0, ""),
    ("version", 0, ""),
    ("risk", 0, ""),
    ("risk all", 2, "unrecognized arguments"),
    ("ledger", 0, ""),
    ("ledger BTC-* ETH-PERPETUAL", 0, ""),
    ("ledger DOGE", 1, "no symbol matches 'DOGE'"),
    ("switches", 0, ""),
    ("alerts", 0, ""),
    ("cases", 0, ""),
    ("cases --all BTC-* ETH-PERPETUAL", 0, ""),
    ("cases DOGE", 1, "no symbol matches 'DOGE'"),
    ("accept 7 --reason looked", 0, ""),
    ("accept #7 --reason looked", 0, ""),
    ("accept 7", 2, "--reason"),
    ("accept --reason x", 2, "required: NUMBER"),
    ("accept 0 --reason x", 2, "'0' is not the number of a case"),
    ("accept -1 --reason x", 2, "'-1' is not the number of a case"),
    ("accept 9999999999999999999 --reason x", 2, "is not the number of a case"),
    ("accept 99 --reason x", 1, "there is no case 99"),
    ("protection", 0, ""),
    ("protection --reason x", 2, "--reason goes with --reset"),
    ("protection --reset deribit/BTC", 2, "--reset needs --reason"),
    ("protection --reset deribit --reason x", 2, "is not EXCHANGE/UNDERLYING"),
    ("protection --reset deribit/BTC/x --reason x", 2, "is not EXCHANGE/UNDERLYING"),
    ("protection --reset deribit/BTC --reason looked", 0, ""),
    ("protection --reset deribit/SOL --reason looked", 1, "deribit has no maker protection for SOL"),
    ("pause all", 0, ""),
    ("pause", 2, "required: SYMBOL"),
    ("resume all --reason x", 0, ""),
    ("halt all", 0, ""),
    ("halt", 2, "required: SYMBOL"),
    ("halt NOPE*", 1, "NOTHING WAS HALTED\nmmdctl: no symbol matches 'NOPE*'"),
    ("reset all --reason looked", 0, ""),
    ("reset all", 2, "--reason"),
    ("shadow all --off", 0, ""),
    ("reload --wait", 0, ""),
    ("reload --confirm 60", 0, ""),
    ("reload --confirm 0", 2, "from 1 to 86400"),
    ("confirm", 0, ""),
    ("log-level DEBUG", 0, ""),
    ("log-level loud", 2, "invalid choice"),
    ("--timeout 0 status", 2, "from 0.1 to 600"),
    ("--timeout nan status", 2, "from 0.1 to 600"),
    ("", 2, "required: COMMAND"),
    ("stauts", 2, "invalid choice"),
]


@pytest.mark.parametrize(("words", "status", "says"), STATUSES)
async def test_exit_statuses(room, capsys, words, status, says):
    assert await run(room, *words.split()) == status
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["", "   ", "two\nlines", "x" * 501])
async def test_a_reason_is_one_line(room, capsys, reason):
    assert await run(room, "reset", "all", "--reason", reason) == 2
    assert "one printable line" in capsys.readouterr().err
    assert room.desk.calls == []


@pytest.mark.parametrize("command", ["pause", "resume", "halt", "shadow"])
async def test_a_refused_change_prints_each_reason_and_exits_1(room, capsys, command):
    room.desk.outcome = Outcome.REFUSED
    assert await run(room, command, "BTC-PERPETUAL") == 1
    assert f"book fresh: found {FAILING.found}, wanted {FAILING.wanted}" in " ".join(capsys.readouterr().out.split())


async def test_a_change_that_is_not_true_in_time_exits_5(room, capsys):
    room.desk.outcome = Outcome.TIMED_OUT
    assert await run(room, "pause", "all") == 5
    assert "4 symbols: 4 timed out" in capsys.readouterr().out


async def test_a_halt_that_is_not_proven_is_said_loudly_with_labels(room, capsys):
    room.desk.outcome = Outcome.TIMED_OUT
    room.desk.row_detail = "HALTING: 2 orders, the exchange does not say that none rests"
    room.desk.detail = "the book cannot be proven empty"
    assert await run(room, "--json", "halt", "BTC-PERPETUAL") == 5
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcome"] == "timed_out"
    first, *lines = printed.err.splitlines()
    assert first == f"mmdctl: {mmdctl.UNPROVEN}: the book cannot be proven empty"
    assert lines[0] == f"mmdctl:   BTC-PERPETUAL: {room.desk.row_detail}"
    assert lines[1].endswith("bid 50 at 64010.5, LIVE, label mmd-mmd-BTC-PERPETUAL-b-t4k2-1z, id ETH-584849853")
    assert lines[2].startswith("mmdctl:   deribit/BTC-PERPETUAL: ask 50 at 64031.0")
    assert "goes on cancelling and asking" in lines[-1]


async def test_a_proven_halt_says_nothing_on_stderr(room, capsys):
    assert await run(room, "halt", "all") == 0
    assert capsys.readouterr().err == ""


def test_a_halt_that_a_stuck_daemon_does_not_answer_says_what_protects(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mmdctl, "GRACE_SECONDS", 0.1)
    path = tmp_path / "stuck.sock"
    with answering(path, None):
        assert mmdctl.main(["--socket", str(path), "--timeout", "0.1", "halt", "all"]) == 5
    assert capsys.readouterr().err.splitlines() == [
        f"mmdctl: the daemon at {path} did not answer halt within 0.2 s; it may still take effect",
        f"mmdctl: {mmdctl.UNPROVEN}",
        f"mmdctl: {mmdctl.PROTECTS}",
        f"mmdctl: {mmdctl.DO_NOW}",
    ]


def test_a_halt_without_a_daemon_exits_3_and_says_what_protects(tmp_path, capsys):
    assert mmdctl.main(["--socket", str(tmp_path / "none.sock"), "halt", "all"]) == 3
    text = capsys.readouterr().err
    assert "no daemon answers" in text and mmdctl.UNPROVEN in text and "cancel on disconnect" in text


async def test_a_halt_from_which_nobody_reads_keeps_its_status(room):
    room.desk.outcome = Outcome.TIMED_OUT
    command = f"{' '.join(PROGRAM)} halt all; echo $? >&2"
    piped = await trio.run_process(
        ["sh", "-c", f"({command}) | true"],
        cwd=ROOT,
        env=environment(MMD_SOCKET=str(room.path)),
        capture_stdout=True,
        capture_stderr=True,
    )
    assert piped.stderr.decode().splitlines()[-1] == "5"
    assert "Traceback" not in piped.stderr.decode()


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("the portfolio's high-water mark starts again", True),
        ("4 symbols", False),
        ("1 of 4 symbols: timed out", False),
        ("", False),
    ],
)
async def test_a_reset_says_what_it_did_and_did_not(room, capsys, detail, shown):
    room.desk.detail = detail
    assert await run(room, "reset", "all", "--reason", "looked") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 symbols: 4 done"
    assert (lines[-2] == detail) is shown


async def test_a_detail_that_its_only_row_has_is_said_once(room, capsys):
    room.desk.detail = room.desk.row_detail
    room.desk.outcome = Outcome.REFUSED
    assert await run(room, "reset", "BTC-PERPETUAL", "--reason", "looked") == 1
    assert capsys.readouterr().out.count("1 check failed") == 1


async def test_a_freeze_that_lasts_exits_5(room, capsys):
    room.desk.frozen_until = 0.0
    assert await run(room, "protection", "--reset", "deribit/BTC", "--reason", "looked") == 5
    assert "deribit/BTC is still frozen" in capsys.readouterr().err
    assert room.audited[0][1:] == (
        "protection_reset",
        {"exchange": "deribit", "underlying": "BTC", "reason": "looked"},
        "done: quantity 5 in 1 s, frozen for 10 s",
    )


async def test_explain_leads_with_the_rule_and_what_ends_it(room, capsys):
    assert await run(room, "explain", "ETH-PERPETUAL", "BTC-PERPETUAL") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "withheld by state: HALTING (1 order) (drawdown): lost 5123.40 USD since 09:00, the limit is 5000" in text
    assert "what ends it: `mmdctl reset deribit/ETH-PERPETUAL --reason TEXT`" in text
    assert "ask withheld by gate: refused: position: worst case -1050, at most -1000" in text


@pytest.mark.parametrize("command", ["plan", "reload"])
async def test_a_refused_file_prints_every_error_and_exits_1(room, capsys, command):
    room.desk.plan_errors = ["mmd.yaml:3:5: spreads.perp: bad", "mmd.yaml:9:1: limits: missing"]
    assert await run(room, command) == 1
    assert capsys.readouterr().err.splitlines() == [
        "mmdctl: mmd.yaml:3:5: spreads.perp: bad",
        "mmdctl: mmd.yaml:9:1: limits: missing",
    ]


@pytest.mark.parametrize(("words", "status"), [(["status"], 3), (["halt", "all"], 3), (["version"], 3)])
def test_no_daemon_exits_3_and_names_the_path(tmp_path, capsys, words, status):
    path = tmp_path / "none.sock"
    assert mmdctl.main(["--socket", str(path), *words]) == status
    assert f"no daemon answers at {path}: No such file or directory" in capsys.readouterr().err


def test_a_dead_socket_exits_3(tmp_path, capsys):
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert mmdctl.main(["--socket", str(path), "status"]) == 3
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (None, "did not answer status within 0.2 s; it may still take effect"),
        (b"", "closed the connection before it answered status"),
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak mmd's protocol"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"service":1}}\n', "answers status in another shape"),
        (b'{"jsonrpc":"2.0","id":1,"result":\n', "does not speak mmd's protocol"),
    ],
)
def test_an_answer_that_is_late_or_none_exits_5(tmp_path, capsys, reply, says):
    path = tmp_path / "odd.sock"
    with answering(path, reply):
        assert mmdctl.main(["--socket", str(path), "--timeout", "0.2" if reply is None else "5", "status"]) == 5
    assert says in capsys.readouterr().err


async def test_a_full_house_exits_5(room, capsys):
    for _ in range(CLIENTS_MAX):
        stream = await room.connect()
        await stream.send_all(b'{"jsonrpc":"2.0","id":1,"method":"version"}\n')
        await stream.receive_some()
    assert await run(room, "status") == 5
    assert "too many clients" in capsys.readouterr().err


# --- what reaches the desk -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("halt all", ("halt", ["all"], "")),
        ("pause BTC-* deribit/ETH-PERPETUAL --reason lunch", ("pause", ["BTC-*", "deribit/ETH-PERPETUAL"], "lunch")),
        ("shadow all", ("shadow True", ["all"], "")),
        ("shadow all --off", ("shadow False", ["all"], "")),
        ("reload", ("reload", None)),
        ("reload --confirm 60", ("reload", 60.0)),
        ("log-level warning", ("log_level", "warning")),
        ("cases", ("cases", ["all"])),
        ("cases --all BTC-*", ("cases", ["BTC-*"])),
        ("accept 7 --reason looked", ("accept", 7, "looked")),
        ("protection --reset deribit/BTC --reason looked", ("protection_reset", "deribit", "BTC", "looked")),
    ],
)
async def test_words_reach_the_desk(room, words, call):
    assert await run(room, *words.split()) == 0
    assert room.desk.calls[0][:-1] == call


async def test_common_options_stand_before_or_after_the_command(room, capsys):
    assert await run(room, "--json", "orders") == 0
    before = capsys.readouterr().out
    assert await run(room, "orders", "--json") == 0
    assert capsys.readouterr().out == before
    words = ["status", "--socket", str(room.path), "--timeout", "3", "BTC-PERPETUAL"]
    assert await trio.to_thread.run_sync(mmdctl.main, words) == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("status", "status"),
        ("show", "show"),
        ("show config", "show"),
        ("explain all", "explain"),
        ("orders", "orders"),
        ("positions", "positions"),
        ("risk", "risk"),
        ("ledger", "ledger"),
        ("switches", "switches"),
        ("alerts", "alerts"),
        ("protection", "protection"),
        ("protection --reset deribit/BTC --reason x", "protection_reset"),
        ("flatten BTC-PERPETUAL --dry-run", "flatten_preview"),
        ("flatten BTC-PERPETUAL --size 0.1 --yes", "flatten"),
        ("plan", "plan"),
        ("cases --all", "cases"),
        ("accept 7 --reason x", "accept"),
        ("halt all", "halt"),
        ("reload", "reload"),
        ("log-level info", "log_level"),
        ("version", "version"),
    ],
)
async def test_json_is_one_object_as_the_schema_says(room, capsys, words, name):
    assert await run(room, *words.split(), "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    control = schema.control_schema()
    rooted = {"$schema": control["$schema"], "$ref": f"#/$defs/result.{name}", "$defs": control["$defs"]}
    jsonschema.Draft202012Validator(rooted).validate(json.loads(line, parse_float=Decimal))


async def test_decimals_are_exact_in_json(room, capsys):
    await run(room, "--json", "status", "XRP*")
    assert '"position":12345.678,' in capsys.readouterr().out


async def test_a_check_counts_open_cases_and_says_where_they_are(room, capsys):
    quiet = symbol_status("BTC-PERPETUAL", state="PAUSED", reason="reconciliation", open_cases=2)
    room.desk.symbols["BTC-PERPETUAL"] = quiet
    assert await run(room, "status", "--check", "BTC-PERPETUAL") == 5
    assert capsys.readouterr().err == "mmdctl: degraded: 2 open cases: see `mmdctl cases`\n"
    room.desk.symbols["BTC-PERPETUAL"] = replace(quiet, open_cases=0)
    assert await run(room, "status", "--check", "BTC-PERPETUAL") == 0


async def test_a_daemon_that_stops_says_so(room, capsys):
    room.desk.fault = MmdError("the daemon is stopping: it cancels every order; still there: 0 symbols")
    assert await run(room, "resume", "all") == 1
    out, err = capsys.readouterr()
    assert (out, "resume: the daemon is stopping: it cancels every order; still there: 0 symbols" in err) == ("", True)


async def test_changes_of_many_symbols_print_the_refused_ones(room, capsys):
    assert await run(room, "halt", "all") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 symbols: 4 done"


async def test_a_reload_to_be_confirmed_says_how(room, capsys):
    assert await run(room, "reload", "--confirm", "30") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "undone in 30 s unless you say: mmdctl confirm"


# --- events ----------------------------------------------------------------------------------------


async def test_events_print_the_last_lines(room, capsys):
    for n in range(30):
        room.desk.happen("order.filled", symbol="BTC-PERPETUAL", exchange="deribit", detail=f"n {n}", by="root")
    assert await run(room, "events", "-n", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["29", "30"]
    assert lines[-1].endswith("order.filled deribit/BTC-PERPETUAL  n 29  by root")
    assert await run(room, "events", "--since", "28", "--json") == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [29, 30]
    assert await run(room, "events") == 0
    assert len(capsys.readouterr().out.splitlines()) == 20


async def test_a_number_that_is_not_there_yet_is_noticed(room, capsys):
    room.desk.happen("x")
    assert await run(room, "events", "--since", "500") == 0
    assert "the newest event is number 1: 500 is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("--since 28", {"above": 28}),
        ("--until 9", {"below": 10}),
        ("--since 2026-01-01T00:00:30Z --until 2026-01-01T01:00:31+01:00", {"since": NOW + 30, "until": NOW + 31}),
        ("--since 2026-01-01", {"since": NOW}),
        ("--since 2026-01-01T00:00:00.250000000", {"since": NOW + 0.25}),
        ("--name order.* --symbol deribit/BTC-* -n 7", {"name": "order.*", "symbol": "deribit/BTC-*", "lines": 7}),
        ("", {"lines": 20}),
    ],
)
async def test_events_are_asked_for_by_number_time_name_and_symbol(room, words, asked):
    assert await run(room, "events", *words.split()) == 0
    default = 10_000 if "--since" in words or "--until" in words else 20
    assert room.desk.calls == [("find_events", EventQuery(**{"lines": default, **asked}))]


@pytest.mark.parametrize(("age", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)])
async def test_events_since_an_age(room, age, seconds):
    before = time.time()
    assert await run(room, "events", "--since", age) == 0
    asked = room.desk.calls[0][1].since + seconds
    assert before - 0.01 <= asked <= time.time() + 0.01


async def test_only_what_was_asked_for_is_printed(room, capsys):
    for n, symbol in enumerate(["BTC-PERPETUAL", "ETH-PERPETUAL", None] * 2):
        room.desk.happen("order.filled" if n % 2 else "order.refused", symbol=symbol, exchange="deribit")
    assert await run(room, "events", "--symbol", "*-PERP*", "--name", "*.filled", "--json") == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [2, 4]


@pytest.mark.parametrize(("words", "said"), [("--since 0", True), ("--until 9", True), ("", False)])
async def test_what_was_left_out_is_said_where_a_range_was_asked_for(room, capsys, words, said):
    room.desk.happen("x")
    room.desk.cut = "stopped after 5 s"
    assert await run(room, "events", *words.split()) == 0
    assert ("mmdctl: not all are shown: stopped after 5 s" in capsys.readouterr().err) is said


async def test_follow_begins_with_what_was_and_prints_only_what_was_asked_for(room):
    for n in range(12):
        room.desk.happen("a.b" if n % 2 else "a.c", detail=f"before {n}")
    process = await follow(room, subprocess.PIPE, "--json", "--since", "2026-01-01", "--name", "*.b", "--lines", "2")
    text = await read_until(process.stdout, b"before 11")
    for name in ("a.c", "a.b", "b.a"):
        room.desk.happen(name, detail="during")
    text += await read_until(process.stdout, b"during")
    room.desk.happen("end.b")
    text += await read_until(process.stdout, b"end.b")
    process.send_signal(signal.SIGINT)
    with trio.fail_after(10):
        assert await process.wait() == 0
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [10, 12, 14, 16]
    assert await process.stderr.receive_some() == b""
    await process.stdout.aclose()
    await process.stderr.aclose()


async def follow(room: Room, stdout: int, *words: str) -> trio.Process:
    command = [*PROGRAM, "--socket", str(room.path), "events", "--follow", *words]
    return await trio.lowlevel.open_process(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, env=environment())


async def read_until(stream, mark: bytes) -> bytes:
    text = b""
    with trio.fail_after(10):
        while mark not in text:
            chunk = await stream.receive_some()
            assert chunk, text
            text += chunk
    return text


async def test_follow_streams_and_ends_well_on_ctrl_c(room):
    room.desk.happen("before")
    process = await follow(room, subprocess.PIPE, "--json")
    assert json.loads(await read_until(process.stdout, b"\n"))["name"] == "before"
    room.desk.happen("during")
    assert json.loads(await read_until(process.stdout, b"\n"))["name"] == "during"
    process.send_signal(signal.SIGINT)
    with trio.fail_after(10):
        assert await process.wait() == 0
    assert await process.stderr.receive_some() == b""
    await process.stdout.aclose()
    await process.stderr.aclose()


async def test_follow_is_quiet_when_its_reader_leaves(room):
    process = await follow(room, subprocess.PIPE)
    room.desk.happen("one")
    await read_until(process.stdout, b"one")
    await process.stdout.aclose()
    room.desk.happen("two")
    with trio.fail_after(10):
        assert await process.wait() == 0
    assert await process.stderr.receive_some() == b""
    await process.stderr.aclose()


async def test_follow_says_that_the_daemon_has_gone(room, tmp_path):
    other = Room(tmp_path / "second.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(other.serve)
        other.desk.happen("one")
        process = await follow(other, subprocess.PIPE)
        await read_until(process.stdout, b"one")
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        assert await process.wait() == 3
    assert b"did it stop?" in await process.stderr.receive_some()
    await process.stdout.aclose()
    await process.stderr.aclose()


# --- terminals -------------------------------------------------------------------------------------


async def on_terminal(room: Room, columns: int, **more: str) -> str:
    """What `mmdctl status` writes to a real terminal of this width."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, columns))
        env = environment(MMD_SOCKET=str(room.path), **more)
        run_it = partial(subprocess.run, [*PROGRAM, "status"], cwd=ROOT, env=env, stdout=theirs, check=True)
        await trio.to_thread.run_sync(run_it)
        return os.read(ours, 65536).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("more", "colours"),
    [({"TERM": "xterm-256color"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
async def test_colours_only_where_wanted(room, more, colours):
    text = await on_terminal(room, 100, **more)
    assert ("\x1b[31;1mHALTING (1 order)\x1b[0m" in text) is colours
    assert ("\x1b" in text) is colours


async def test_a_narrow_terminal_gets_narrow_lines(room):
    text = await on_terminal(room, 60, TERM="xterm")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 60
    assert "XRP_USDC-30JUN27-0d625-C  PAUSED" in plain


async def test_a_pipe_gets_no_colours_and_a_closed_pipe_no_traceback(room):
    done = await program(room, "status", TERM="xterm")
    assert b"\x1b" not in done.stdout
    assert done.returncode == 0
    command = f"{' '.join(PROGRAM)} status | true"
    piped = await trio.run_process(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment(MMD_SOCKET=str(room.path)),
        capture_stdout=True,
        capture_stderr=True,
    )
    assert piped.stderr == b""


async def test_an_ascii_terminal_is_no_reason_to_fail(room):
    room.desk.symbols["ETH-PERPETUAL"] = room.desk.symbols["BTC-PERPETUAL"]
    room.desk.config_error = "größe"
    done = await program(room, "status", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"gr??e" in done.stdout


async def test_the_program_loads_nothing_heavy():
    heavy = ["trio", "jsonschema", "httpx", "rich", "yaml", "numpy", "websockets", "prometheus_client"]
    code = f"import sys, mmd.cli.mmdctl; print([name for name in {heavy} if name in sys.modules])"
    done = await trio.run_process([sys.executable, "-c", code], cwd=ROOT, capture_stdout=True)
    assert done.stdout.decode().strip() == "[]"


@pytest.mark.parametrize(
    "words",
    ["--help", "halt --help", "reset --help", "flatten --help", "cases --help", "accept --help", "--version"],
)
def test_help_needs_no_daemon_and_shows_examples(capsys, words):
    with pytest.raises(SystemExit) as end:
        mmdctl.main(words.split())
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text or words == "--version"


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"MMD_SOCKET": "/a/b.sock", "RUNTIME_DIRECTORY": "/run/x"}, "/a/b.sock"),
        ({"RUNTIME_DIRECTORY": "/run/x:/run/y"}, "/run/x/mmd.sock"),
        ({"MMD_SOCKET": "", "RUNTIME_DIRECTORY": ""}, "/run/mmd/mmd.sock"),
    ],
)
def test_where_the_socket_is(variables, path):
    assert default_socket(variables) == Path(path)
