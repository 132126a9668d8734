"""mmdctl flatten over the socket: preview, confirmation on a terminal, the order, what is left, exit statuses."""

import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import trio
from control_desk import LONG_OPTION, LONGEST
from control_room import Room

from mmd.cli import mmdctl
from mmd.shell.desk import Outcome

ROOT = Path(__file__).parents[2]
KEY = "deribit/BTC-PERPETUAL"
FOREGROUND = """\
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C on this terminal reaches us
runpy.run_module("mmd.cli.mmdctl", run_name="__main__")
"""
EXACT = Decimal("64335.123456789012345678")


async def run(room: Room, *words: str) -> int:
    """main() in a thread; standard input is no terminal here."""
    try:
        return await trio.to_thread.run_sync(mmdctl.main, ["--socket", str(room.path), "flatten", *words])
    except SystemExit as end:
        return int(end.code or 0)


def sent(room: Room) -> list[tuple[object, ...]]:
    return [call[1:5] for call in room.desk.calls if call[0] == "flatten"]


async def test_yes_sends_what_the_preview_said(room, capsys):
    assert await run(room, "BTC-PERPETUAL", "--size", "50", "--yes", "--reason", "tonight", "--slippage-bps", "20") == 0
    assert room.desk.calls[0] == ("flatten_preview", KEY, Decimal(50), 20.0)
    assert sent(room) == [(KEY, Decimal(50), Decimal("64335.5"), "tonight")]
    out = capsys.readouterr().out
    assert "  limit price    64335.5\n" in out
    assert "closed 50, -70 left" in out
    asked = {"symbol": KEY, "size": "50", "limit_price": "64335.5", "reason": "tonight"}
    assert [entry[1:] for entry in room.audited] == [("flatten", asked, "done: closed 50, -70 left")]


@pytest.mark.parametrize("size", ["0.1", "0.000000000000000001", "1e1", "33.300"])
async def test_sizes_and_prices_travel_exactly(room, size):
    room.desk.preview = {"limit_price": EXACT}
    await run(room, "BTC-PERPETUAL", "--size", size, "--yes")
    assert room.desk.calls[0][2] == Decimal(size)
    assert sent(room) == [(KEY, Decimal(size), EXACT, "")]


async def test_what_is_out_of_reach_is_left_and_exits_5(room, capsys):
    assert await run(room, "BTC-PERPETUAL", "--yes") == 5
    assert sent(room) == [(KEY, Decimal(90), Decimal("64335.5"), "")]
    assert "90 of 120 closed, the position is -30" in capsys.readouterr().err


async def test_what_the_market_took_away_meanwhile_is_left_and_exits_5(room, capsys):
    room.desk.closes = Decimal(7)
    assert await run(room, "BTC-PERPETUAL", "--size", "50", "--yes") == 5
    assert "7 of 50 closed, the position is -113" in capsys.readouterr().err


async def test_more_than_the_position_is_the_position(room):
    room.desk.preview = {"size": Decimal("12345.678"), "left": Decimal(0)}
    assert await run(room, LONGEST, "--size", "999999", "--yes") == 0
    assert room.desk.symbols[LONGEST].position == 0


async def test_a_preview_that_refuses_sends_nothing(room, capsys):
    room.desk.preview = {"refused": "is ACTIVE: pause it first"}
    assert await run(room, "BTC-PERPETUAL", "--yes") == 1
    assert sent(room) == []
    assert "mmdctl: refused: is ACTIVE: pause it first" in capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.REFUSED, 1), (Outcome.TIMED_OUT, 5)])
async def test_what_the_gate_says_of_the_order(room, capsys, outcome, status):
    room.desk.outcome = outcome
    assert await run(room, "BTC-PERPETUAL", "--yes") == status
    assert "refused by collar: 64335.5, limit 64300 (mmd.yaml:31" in " ".join(capsys.readouterr().out.split())
    assert room.audited[0][3].startswith(outcome.value)


@pytest.mark.parametrize("more", [{}, {"refused": "is flat"}])
async def test_a_flat_symbol_has_nothing_to_close(room, capsys, more):
    room.desk.preview = more
    assert await run(room, LONG_OPTION, "--yes") == 0
    assert sent(room) == []
    assert "there is no position to close" in capsys.readouterr().err


async def test_nothing_within_the_limit_price_is_refused(room, capsys):
    room.desk.preview = {"size": Decimal(0)}
    assert await run(room, "BTC-PERPETUAL", "--yes") == 1
    assert sent(room) == []
    assert "see --slippage-bps" in capsys.readouterr().err


async def test_a_dry_run_only_shows(room, capsys):
    assert await run(room, "BTC-PERPETUAL", "--dry-run") == 0
    assert "  out of reach   30 within" in capsys.readouterr().out
    assert sent(room) == []
    assert room.audited == []


async def test_without_a_terminal_it_needs_yes(room, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert await run(room, "BTC-PERPETUAL") == 2
    assert "without a terminal to ask, flatten needs --yes" in capsys.readouterr().err
    assert sent(room) == []


@pytest.mark.parametrize("pattern", ["*-PERPETUAL", "all", "deribit/*"])
async def test_several_symbols_are_refused(room, capsys, pattern):
    assert await run(room, pattern, "--yes") == 1
    assert "symbols, wanted is exactly one: deribit/BTC-PERPETUAL, " in capsys.readouterr().err
    assert room.desk.calls == []


async def test_a_glob_that_means_one_symbol_is_one(room):
    assert await run(room, "BTC-PERP*", "--size", "1", "--yes") == 0
    assert sent(room)[0][0] == KEY


async def test_no_symbol_is_refused(room, capsys):
    assert await run(room, "DOGE", "--yes") == 1
    assert "no symbol matches 'DOGE'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "required: SYMBOL"),
        ("A B", "unrecognized arguments: B"),
        ("A --size 0", "is not an amount above 0"),
        ("A --size -1", "is not an amount above 0"),
        ("A --size nan", "is not an amount above 0"),
        ("A --size 1e30", "is not an amount above 0"),
        ("A --slippage-bps nan", "basis points from 0 to 10000"),
        ("A --slippage-bps 10001", "basis points from 0 to 10000"),
    ],
)
async def test_usage(room, capsys, words, says):
    assert await run(room, *words.split()) == 2
    assert says in capsys.readouterr().err


async def test_a_symbol_that_goes_meanwhile_is_said(room, capsys, monkeypatch):
    flatten = room.desk.flatten

    async def and_gone(*asked):
        result = await flatten(*asked)
        del room.desk.symbols["BTC-PERPETUAL"]
        return result

    monkeypatch.setattr(room.desk, "flatten", and_gone)
    assert await run(room, "BTC-PERPETUAL", "--yes") == 5
    assert "the symbol has gone meanwhile" in capsys.readouterr().err


# --- JSON ------------------------------------------------------------------------------------------


async def test_json_is_the_answer_and_the_rest_goes_to_stderr(room, capsys):
    assert await run(room, "BTC-PERPETUAL", "--size", "50", "--yes", "--json") == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out, parse_float=Decimal)
    assert (answer["outcome"], answer["closed"], answer["position"]) == ("done", 50, -70)
    assert "  limit price    64335.5" in printed.err


@pytest.mark.parametrize(
    ("more", "words", "status"),
    [({"refused": "no"}, ["--dry-run"], 1), ({}, ["--dry-run"], 0), ({}, [], 2)],
    ids=["refused", "dry run", "nobody to ask"],
)
async def test_json_is_the_preview_where_it_ends_with_that(room, capsys, more, words, status):
    room.desk.preview = more
    assert await run(room, "BTC-PERPETUAL", *words, "--json") == status
    answer = json.loads(capsys.readouterr().out, parse_float=Decimal)
    assert (answer["size"], answer["refused"]) == (90, more.get("refused"))
    assert answer["average_price"] == Decimal("64016.123456789012345")


# --- the confirmation ------------------------------------------------------------------------------


async def on_terminal(room: Room, answer: str, *words: str) -> tuple[int, str]:
    """Exit status and what a terminal shows, when somebody types this at the question."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "MMD_SOCKET": str(room.path), "TERM": "dumb"}
    command = [sys.executable, "-c", FOREGROUND, "flatten", *words]
    try:
        process = await trio.lowlevel.open_process(
            command,
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        shown = ""
        with trio.fail_after(20):
            while "to send it:" not in shown:
                shown += (await trio.to_thread.run_sync(os.read, ours, 65536)).decode()
            os.write(ours, answer.encode())
            status = await process.wait()
        return status, shown + os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("answer", ["BTC-PERPETUAL\n", f"  {KEY}  \n"])
async def test_the_name_confirms(room, answer):
    status, shown = await on_terminal(room, answer, "BTC-PERPETUAL", "--size", "50")
    assert status == 0
    assert "limit price    64335.5" in shown
    assert sent(room) == [(KEY, Decimal(50), Decimal("64335.5"), "")]


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ("y\n", 1, "'y' is not BTC-PERPETUAL: nothing was sent"),
        ("\n", 1, "nothing was sent"),
        ("\x04", 1, "nothing was sent"),
        ("ETH-PERPETUAL\n", 1, "nothing was sent"),
        ("\x03", 130, "interrupted: nothing was sent"),
    ],
    ids=["yes is no name", "enter", "end of file", "another name", "ctrl-c"],
)
async def test_anything_else_sends_nothing(room, answer, status, says):
    got, shown = await on_terminal(room, answer, "BTC-PERPETUAL")
    assert (got, sent(room)) == (status, [])
    assert says in shown


async def test_json_can_be_piped_while_a_terminal_is_asked(room):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "MMD_SOCKET": str(room.path), "TERM": "dumb"}
    command = [sys.executable, "-m", "mmd.cli.mmdctl", "--json", "flatten", "BTC-PERPETUAL", "--size", "1"]
    try:
        os.write(ours, b"BTC-PERPETUAL\n")
        done = await trio.run_process(
            command, cwd=ROOT, env=environment, stdin=theirs, capture_stdout=True, stderr=subprocess.DEVNULL
        )
        assert json.loads(done.stdout)["closed"] == 1
    finally:
        os.close(ours)
        os.close(theirs)
