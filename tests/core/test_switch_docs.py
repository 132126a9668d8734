"""The page of the kill switches says what the code does."""

import re

import pytest
from switch_tables import ALSO, DOCUMENT, SWITCH_BLOCKS, with_block

from mmd.domain.reasons import Scope, Switch
from mmd.domain.switches import SWITCHES
from mmd.exchanges.audit import AUDIT_SECONDS, SOON_SECONDS
from mmd.exchanges.deribit.codec import OPEN_STATES
from mmd.exchanges.guards import CHECK_SECONDS
from mmd.shell.books import SCOPES
from mmd.shell.lookout import LOOK_SECONDS
from mmd.shell.register import PROBE_SECONDS
from mmd.shell.sentinel import PATIENCE_SECONDS
from mmd.shell.totals import VALUE_SECONDS


@pytest.mark.parametrize("name", list(SWITCH_BLOCKS))
def test_generated_blocks_are_in_step(name: str) -> None:
    text = DOCUMENT.read_text()
    assert with_block(text, name, SWITCH_BLOCKS[name]()) == text, "run python tests/core/switch_tables.py"


def test_every_switch_says_what_it_does_when_it_cannot_compute() -> None:
    part = DOCUMENT.read_text().partition("## When it cannot be computed")[2]
    rows = re.findall(r"^\| (`.*?`) \|", part, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named == list(Switch)


def test_the_times_that_are_promised_are_those_of_the_code() -> None:
    part = DOCUMENT.read_text().partition("## How fast")[2].partition("\n## ")[0]
    for what, seconds in (
        ("clocks, lost links, the event bus | every", LOOK_SECONDS),
        ("totals, losses, valuation | every", VALUE_SECONDS),
        ("the state directory | every", PROBE_SECONDS),
        ("a machine that does not come back | called off after", PATIENCE_SECONDS),
        ("orders under our name and positions at the exchange |", SOON_SECONDS),
        ("order of unknown origin, else every", AUDIT_SECONDS),
        ("read back every", CHECK_SECONDS),
    ):
        assert f"{what} {seconds:g} s" in part
    assert {"open", "started"} == OPEN_STATES


def test_narrower_scopes_are_those_that_trip() -> None:
    assert {switch: (scope, Scope.PORTFOLIO) for switch, scope in ALSO.items()} == SCOPES
    assert all(SWITCHES[switch].scope is Scope.PORTFOLIO for switch in ALSO)
