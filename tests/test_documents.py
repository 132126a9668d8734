"""The documents against the repository: features, links, paths, commands, and words that must not occur."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.cli.arguments import parser as mmdctl_parser
from mmd.cli.mmd import parser as mmd_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

IDS = [f"{letter}{n}" for letter, last in (("D", 42), ("A", 95), ("T", 118), ("W", 55)) for n in range(1, last + 1)]
CONTRADICTIONS = 14
STATES = ("yes", "partly", "not yet")

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
FORBIDDEN = re.compile(
    r"/(wor[k]|root|home)/|\bpyp[i]\b|index-url|python[h]osted|\bartifactory\b|\.invalid\b"
    r"|\bissue [0-9]+\b|\bTODO\b|\bTBD\b",
    re.IGNORECASE,
)


def cells(line: str) -> list[str]:
    """The cells of one row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def feature_rows(text: str) -> list[list[str]]:
    """id, feature, state, where, test of every row."""
    return [cells(line) for line in text.splitlines() if re.match(r"\| [DATW][0-9]+ \|", line)]


def paths(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def features() -> list[list[str]]:
    return feature_rows((ROOT / "docs/features.md").read_text())


def test_every_feature_stands_there_once_and_in_order(features: list[list[str]]) -> None:
    assert [row[0] for row in features] == IDS


def test_every_row_is_whole(features: list[list[str]]) -> None:
    for row in features:
        assert len(row) == 5, row
        name, feature, state, where, test = row
        assert feature and state in STATES, name
        assert bool(paths(where)) == bool(paths(test)) == (state != "not yet"), name
        assert ("(" in feature) >= (state == "partly"), f"{name}: partly, but which part?"


def test_every_path_exists(features: list[list[str]]) -> None:
    wrong = [f"{row[0]}: {path}" for row in features for path in paths(row[3]) if not (ROOT / path).is_file()]
    assert wrong == []


def test_every_named_test_exists(features: list[list[str]]) -> None:
    wrong = []
    for row in features:
        for test in paths(row[4]):
            file, _, name = test.partition("::")
            path = ROOT / file
            if not path.is_file() or not re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE):
                wrong.append(f"{row[0]}: {test}")
    assert wrong == []


def test_the_totals_add_up(features: list[list[str]]) -> None:
    text = (ROOT / "docs/features.md").read_text()
    for letter in "DATW":
        states = [row[2] for row in features if row[0].startswith(letter)]
        counted = [str(states.count(state)) for state in STATES]
        assert f"| {letter} | {' | '.join(counted)} | {len(states)} |" in text


def test_every_contradiction_is_resolved() -> None:
    part = (ROOT / "docs/features.md").read_text().partition("## Part 3")[2]
    rows = [cells(line) for line in part.splitlines() if re.match(r"\| [0-9]+ \|", line)]
    assert [row[0] for row in rows] == [str(n) for n in range(1, CONTRADICTIONS + 1)]
    assert all(len(row) == 3 and row[2] for row in rows)


def links(document: Path) -> Iterator[str]:
    yield from LINK.findall(FENCE.sub("", document.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_to_something(document: Path) -> None:
    for link in links(document):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        assert path.exists() and path.is_relative_to(ROOT), f"{document.name}: {link}"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{document.name}: {link}"


def test_every_document_is_linked_from_another() -> None:
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in links(document)
        if not re.match(r"https?://", link)
    }
    alone = [path.name for path in DOCUMENTS if path.parent == ROOT / "docs" and path not in linked]
    assert alone == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_code_marks_exist(document: Path) -> None:
    """`mmd/x.py` and the like: files of this repository that somebody may look for."""
    named = re.findall(
        r"`((?:mmd|tests|docs|etc|schemas|systemd|packaging|scripts|bench)/[\w./-]+)`", document.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_this_or_that_machine(document: Path) -> None:
    assert [found[0] for found in FORBIDDEN.finditer(document.read_text())] == []


def commands_of(parser: argparse.ArgumentParser) -> set[str]:
    """The subcommands of a program."""
    actions = parser._subparsers._group_actions if parser._subparsers else []
    return {name for action in actions for name in action.choices or ()}


@pytest.mark.parametrize("program", ["mmd", "mmdctl"])
def test_commands_in_the_documents_exist(program: str) -> None:
    known = commands_of(mmd_parser() if program == "mmd" else mmdctl_parser())
    wrong = []
    for document in DOCUMENTS:
        for line in document.read_text().splitlines():
            spans = [line] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
            for span in spans:
                found = re.search(rf"(?:^|\s){program} ([a-z][\w-]+)", span)
                if found and found[1] not in known:
                    wrong.append(f"{document.name}: {span}")
    assert wrong == []


def test_every_command_of_mmdctl_is_in_its_document() -> None:
    text = (ROOT / "docs/mmdctl.md").read_text()
    missing = [name for name in sorted(commands_of(mmdctl_parser())) if not re.search(rf"^\| `{name}\b", text, re.M)]
    assert missing == []


# --- the checks can fail -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["see /root/x", "pip --index-url y", "as issue 3 says", "TODO later"])
def test_a_forbidden_word_is_found(text: str) -> None:
    assert FORBIDDEN.search(text)


def test_rows_links_and_anchors_are_found() -> None:
    assert feature_rows("| D1 | x | yes | `a` | `b` |\n| id | y |") == [["D1", "x", "yes", "`a`", "`b`"]]
    assert LINK.findall("[a](b.md#c) ![d](e.png)") == ["b.md#c"]
    assert anchors("# Kill switches: all\n```\n# none\n```\n") == {"kill-switches-all"}
