"""What a start tells of the process before: torn ends, orders under another name, a journal that cannot be read."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from replay_kit import SMALL, VERSION, House

from mmd.cli.run import EXIT_INTERNAL, EXIT_OK, farewell
from mmd.domain.ids import label_prefix
from mmd.domain.reasons import Mode
from mmd.journal import records as rec
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal
from mmd.replay import memory
from mmd.shell.heritage import NO_PAST, Past, may_rest, read_back

ACCOUNTS = {"deribit": "desk"}
FIRST = "journal-00000001.jsonl"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Trading, with orders out; its newest file has every state."""
    house = House(tmp_path / "journal")
    house.rotate(accounts=ACCOUNTS)
    assert any(rig.machine.own.resting for rig in house.rigs())
    house.journal.close()
    return house


def opened(house: House, service: str) -> Journal:
    return Journal(house.directory, SMALL, service=service, version=VERSION, code=memory.CODE, now_ns=house.now_ns + 1)


def heir(house: House, service: str = "") -> Past:
    """Of a start under this name, by default the one that its orders have."""
    journal = opened(house, service or house.rigs()[0].given.service)
    try:
        return read_back(journal, None, ACCOUNTS)
    finally:
        journal.close()


def test_its_own_orders_raise_no_doubt(house: House) -> None:
    past = heir(house)
    assert past.doubts == {} and "torn" not in past.told


def test_orders_under_another_name_are_a_doubt_of_their_symbol(house: House) -> None:
    """No start under a new name sees them at the exchange, and none cancels them."""
    past = heir(house, "renamed")
    out = {rig.key: may_rest(rig.machine) for rig in house.rigs()}
    assert all(label.startswith(label_prefix(rig.given.service)) for rig in house.rigs() for label in out[rig.key])
    wanted = {key: f"orders under another service's name may rest: {', '.join(rest)}" for key, rest in out.items()}
    assert past.doubts == {key: text for key, text in wanted.items() if out[key]} and past.doubts


def test_imagined_orders_rest_nowhere(house: House) -> None:
    machine = next(rig.machine for rig in house.rigs() if rig.machine.own.resting)
    assert may_rest(machine)
    machine.mode = Mode.SHADOW
    assert may_rest(machine) == list(machine.own.strays)


def test_a_torn_end_that_was_cut_off_is_told(house: House) -> None:
    newest = house.directory / "journal-00000002.jsonl"
    size = newest.stat().st_size
    with newest.open("ab") as file:
        file.write(b"torn")
    assert heir(house).told.endswith(f"; 4 bytes at {size} of {newest.name} were torn and are cut off")


def test_a_torn_end_is_told_where_nobody_left_anything(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(b"torn")
    journal = Journal(tmp_path, SMALL, service="test", version=VERSION, code=memory.CODE, now_ns=1)
    assert read_back(journal, None, ACCOUNTS).told == f"4 bytes at 0 of {FIRST} were torn and are cut off"
    journal.close()


def test_a_file_that_a_start_needs_and_cannot_prove_is_refused_with_what_to_do(tmp_path: Path) -> None:
    house = House(tmp_path / "journal")
    house.journal.rotate(house.now_ns)
    house.journal.put(rec.Note, house.now_ns, number=1, name="test", detail="no state is in this file")
    house.journal.close()
    first = house.directory / FIRST
    first.write_bytes(first.read_bytes().replace(b'"Ticker"', b'"Tacker"', 1))
    with pytest.raises(JournalFailed) as refused:
        heir(house)
    where = house.directory
    assert str(refused.value).startswith(f"{where}: {FIRST} line ")
    assert str(refused.value).endswith(f"; look with `mmd verify {where}`, move {where} away to start")
    shutil.move(where, tmp_path / "broken")
    assert heir(house).machines == {}


def test_a_stop_before_an_exchange_answered_is_no_good_end_where_orders_were_left(house: House) -> None:
    past = heir(house)
    left = sum(len(may_rest(machine)) for machine in past.machines.values())
    assert left and farewell(SimpleNamespace(farewell=None, past=past)) == EXIT_INTERNAL
    assert farewell(SimpleNamespace(farewell=None, past=NO_PAST)) == EXIT_OK


def test_nothing_of_another_account_is_doubted(house: House) -> None:
    journal = opened(house, "renamed")
    assert read_back(journal, None, {"deribit": "another"}).doubts == {}
    journal.close()
