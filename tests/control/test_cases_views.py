"""Cases for people: the table, the line of the status, and what accepting one prints."""

import json

import pytest
from control_desk import NOW, FakeDesk, case_line, symbol_status
from control_room import Room
from msgspec.structs import replace
from test_mmdctl import run

from mmd.cli import status_views
from mmd.cli.case_views import case_lines
from mmd.cli.tables import Page
from mmd.shell.desk import CaseState, Outcome

WIDE = Page(width=140, colour=False)
LABEL = "mmd-mmd-BTC-PERPETUAL-b-t4k2-1z"


def test_open_cases_with_both_numbers_and_how_they_end() -> None:
    lines = [
        case_line(7),
        case_line(
            12, "quantities", subject=LABEL, ours="50 at 64010.5, 0 lots filled", theirs="50 at 64010.5, 2 lots filled"
        ),
    ]
    assert case_lines(WIDE, lines, NOW) == [
        "CASE  SYMBOL         KIND        AGE  STATE  OURS, THE EXCHANGE'S",
        "   7  BTC-PERPETUAL  position     5m  open   ours -120, the exchange's -100",
        f"  12  BTC-PERPETUAL  quantities   5m  open   order {LABEL}; ours 50 at 64010.5, 0 lots filled, the "
        "exchange's 50 at",
        "                                             64010.5, 2 lots filled",
        "2 open cases: each ends when the numbers agree, or with: mmdctl accept NUMBER --reason TEXT",
    ]


def test_closed_cases_say_who_ended_them_and_why() -> None:
    accepted = case_line(
        8, state=CaseState.ACCEPTED, closed=NOW - 60, by="ann (uid 1000)", reason="traded by hand", exchange="other"
    )
    assert case_lines(WIDE, [*FakeDesk().books[:1], accepted], NOW) == [
        "CASE  SYMBOL         EXCHANGE  KIND      AGE  STATE      OURS, THE EXCHANGE'S",
        "   6  ETH-PERPETUAL  deribit   average    2h  explained  ours average 3012.5, the exchange's average 3011; "
        "explained 1h ago by mmd: the",
        "                                                         numbers agree",
        "   8  BTC-PERPETUAL  other     position   5m  accepted   ours -120, the exchange's -100; accepted 1m ago by "
        "ann (uid 1000): traded by hand",
    ]
    assert case_lines(WIDE, [], NOW) == ["no open cases"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_narrow_page_keeps_number_symbol_and_both_figures(width: int) -> None:
    text = " ".join(case_lines(Page(width, False), [case_line(7)], NOW))
    for word in ("7", "BTC-PERPETUAL", "-120", "-100", "mmdctl accept"):
        assert word in text


def test_the_status_shouts_about_open_cases_and_names_the_symbols() -> None:
    desk = FakeDesk()
    desk.symbols = {
        "A": symbol_status("A", state="PAUSED", reason="reconciliation", open_cases=2, resting=0),
        "B": symbol_status("B", open_cases=1),
        "C": symbol_status("C"),
    }
    lines = status_views.status_lines(WIDE, desk.status(["all"]), NOW)
    assert "3 open cases of 2 symbols, none of which is resumed before: `mmdctl cases`" in lines
    rows = {line.split()[0]: line for line in lines if line[:2] in ("A ", "B ", "C ")}
    assert rows["A"].endswith("  reconciliation; 2 open cases")
    assert rows["B"].endswith("  1 open case")
    assert "case" not in rows["C"]
    shown = status_views.symbol_lines(WIDE, [desk.symbols["A"], desk.symbols["C"]], NOW)
    assert "  cases        2 open: `mmdctl cases deribit/A`" in shown
    assert sum("cases" in line for line in shown) == 1
    calm = replace(desk.status(["all"]), symbols=[desk.symbols["C"]])
    assert not any("open case" in line for line in status_views.status_lines(WIDE, calm, NOW))


async def test_accepting_prints_what_was_done_and_what_was_not(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(room, "accept", "7", "--reason", "traded by hand") == 0
    said = capsys.readouterr().out
    assert "the exchange's position -100 is adopted; nothing is resumed" in " ".join(said.split())
    assert [line.number for line in room.desk.cases(["all"], False)] == []
    assert await run(room, "cases") == 0
    assert capsys.readouterr().out == "no open cases\n"
    (entry,) = room.audited
    assert entry[1:3] == ("accept", {"number": 7, "reason": "traded by hand"})
    assert entry[3].startswith("done")


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.REFUSED, 1), (Outcome.TIMED_OUT, 5)])
async def test_what_is_not_accepted_is_an_exit_status(
    room: Room, capsys: pytest.CaptureFixture[str], outcome: Outcome, status: int
) -> None:
    room.desk.outcome = outcome
    assert await run(room, "accept", "7", "--reason", "traded by hand") == status
    assert "is ACTIVE: pause it first" in capsys.readouterr().out
    assert len(room.desk.cases(["all"], False)) == 1


async def test_all_and_json(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(room, "cases", "--json") == 0
    assert [case["number"] for case in json.loads(capsys.readouterr().out)["cases"]] == [7]
    assert await run(room, "cases", "--all", "--json") == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [(case["number"], case["state"], case["closed"] is None) for case in cases] == [
        (6, "explained", False),
        (7, "open", True),
    ]
