"""What a start finds out from the end of the journal, whatever the last process died of."""

import gc
from pathlib import Path

import pytest
from replay_kit import SMALL, House, changed, raw

from mmd.domain import events as ev
from mmd.journal import records as rec
from mmd.journal.keeping import tidy
from mmd.journal.statefile import JournalFailed
from mmd.replay import form, memory
from mmd.replay import recover as recovering
from mmd.replay.recover import Recovered, recover

PERP = "deribit/BTC-PERPETUAL"


def recovered(house: House) -> Recovered:
    house.journal.commit()
    return recover(house.directory)


def states(found: Recovered) -> dict[str, bytes]:
    assert found.portfolio is not None
    return {key: memory.save(machine) for key, machine in found.machines.items()} | {"": memory.save(found.portfolio)}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "journal")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lives", [1, 3])
def test_machines_come_back_as_they_were(house: House, seed: int, lives: int) -> None:
    for life in range(lives):
        house.run(60, seed + 10 * life)
        house.rotate(between=2)
        house.run(40, seed + 10 * life + 5)
        if life + 1 < lives:
            house.restart()
    found = recovered(house)
    assert states(found) == house.states()
    assert not found.differences and not found.broken and not found.stopped
    assert (found.seq, found.head) == (house.journal.seq, house.journal.head)
    assert found.version == "1.2.3"


def test_only_the_newest_file_with_every_state_is_read(house: House) -> None:
    house.run(200)
    everything = recovered(house).records
    house.rotate()
    house.run(10, 2)
    found = recovered(house)
    assert found.records < everything / 2
    assert states(found) == house.states()


def test_a_file_that_lacks_a_state_is_read_with_the_one_before(house: House) -> None:
    house.run(60)
    house.rotate()
    house.run(30, 2)
    house.journal.rotate(house.now_ns)
    first = house.rigs()[0]
    house.journal.put(rec.Snapshot, house.now_ns, key=first.key, state=raw(first.machine))
    house.run(30, 3)
    found = recovered(house)
    assert states(found) == house.states() and not found.broken
    assert found.records > 60


def test_compressed_files_are_read_too(tmp_path: Path) -> None:
    house = House(tmp_path / "journal", settings=changed(SMALL, compress=True))
    house.run(60)
    house.journal.rotate(house.now_ns)
    house.run(30, 2)
    tidy(house.directory, house.journal.segment, changed(SMALL, compress=True), house.now_ns)
    assert list(house.directory.glob("*.gz"))
    assert states(recovered(house)) == house.states()


def test_whom_the_dying_process_did_not_reach_is_taken_from_the_one_before(house: House) -> None:
    house.run(60)
    before = house.states()
    house.journal.put(rec.Started, house.now_ns, version="2", pid=3, host="h")
    first = house.rigs()[0]
    first.now_ns = house.now_ns
    first.join(inherits=True)
    found = recovered(house)
    assert set(found.machines) == set(house.scenes)
    assert {key: memory.save(machine) for key, machine in found.machines.items() if key != first.key} == {
        key: state for key, state in before.items() if key not in (first.key, "")
    }
    assert found.machines[first.key].heir
    assert found.portfolio is not None and memory.save(found.portfolio) == before[""]


def test_the_end_says_whether_it_was_in_order(house: House) -> None:
    house.run(20)
    assert not recovered(house).stopped
    house.journal.put(rec.Stopped, house.now_ns + 5, left={"deribit": 0})
    found = recovered(house)
    assert found.stopped and found.at == house.now_ns + 5
    house.restart()
    assert not recovered(house).stopped


def test_the_last_configuration_and_time_are_known(house: House) -> None:
    for number, sha in enumerate(("aa", "bb"), 1):
        house.journal.put(
            rec.Configured, house.now_ns + number, generation=number, sha256=sha, old_sha256="", effective={"at": 1}
        )
    found = recovered(house)
    assert found.sha256 == "bb" and found.at == house.now_ns + 2


def test_whose_machines_they_are_is_known_without_the_file_of_the_start(house: House) -> None:
    house.journal.put(rec.Started, house.now_ns, version="1.2.3", pid=1, host="h", accounts={"deribit": "first"})
    house.run(20)
    house.rotate(accounts={"deribit": "first"})
    house.run(10, 2)
    found = recovered(house)
    assert set(found.owners.values()) == {"first"} and set(found.owners) == set(house.scenes)
    assert found.accounts == {"deribit": "first"}


def begin_and_stop(house: House, account: str, *, carried: bool = True) -> None:
    """A process that is stopped before it has connected."""
    accounts = {"deribit": account}
    house.journal.put(rec.Started, house.now_ns, version="1.2.3", pid=2, host="h", accounts=accounts)
    if carried:
        given, switches = house.portfolio.limits, house.portfolio.switches
        house.journal.put(rec.Began, house.now_ns, limits=given, switches=switches, carried=None)
    house.journal.put(rec.Stopped, house.now_ns, left={})


def test_a_start_that_came_to_nothing_leaves_all_as_it_was(house: House) -> None:
    """Whose the machines are, and what the portfolio counted."""
    house.run(60)
    house.rotate(accounts={"deribit": "first"})
    before = house.states()
    for account in ("second", "third"):
        begin_and_stop(house, account)
        found = recovered(house)
        assert states(found) == before
        assert set(found.owners.values()) == {"first"} and found.accounts == {"deribit": "first"}


def test_who_joined_runs_under_the_account_of_its_process(house: House) -> None:
    house.run(60)
    house.rotate(accounts={"deribit": "first"})
    house.journal.put(rec.Started, house.now_ns, version="1.2.3", pid=2, host="h", accounts={"deribit": "second"})
    rig = house.scenes[PERP].rig
    rig.now_ns = house.now_ns
    rig.join(inherits=False)
    begin_and_stop(house, "third")
    owners = recovered(house).owners
    assert owners.pop(PERP) == "second"
    assert owners and set(owners.values()) == {"first"}


# --- notes ---------------------------------------------------------------------------------------------


def test_notes_go_on_where_they_ended(house: House) -> None:
    for number in range(25):
        house.note(f"note {number}")
    found = recovered(house)
    assert [note.detail for note in found.notes] == [f"note {number}" for number in range(25)]
    assert found.number == 25


def test_notes_of_older_files_are_found_as_well(house: House) -> None:
    house.note("old")
    house.rotate()
    house.note("new")
    found = recovered(house)
    assert [note.detail for note in found.notes] == ["old", "new"]


def test_at_most_so_many_notes_are_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "NOTES_KEPT", 10)
    for _ in range(8):
        house.note("a")
    house.rotate()
    for _ in range(7):
        house.note("b")
    found = recovered(house)
    assert [note.number for note in found.notes] == list(range(6, 16))
    assert found.number == 15


@pytest.mark.parametrize("told", [True, False], ids=["number written down", "not written down"])
def test_numbers_of_notes_go_on_though_none_is_near(house: House, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    monkeypatch.setattr(recovering, "SLICES_MAX", 0)
    for _ in range(8):
        house.note()
    house.rotate(note=8 if told else 0)
    house.run(20)
    found = recovered(house)
    assert not found.notes
    assert found.number == 8 if told else found.number >= 8
    house.notes = found.number
    house.note()
    assert recovered(house).number == found.number + 1


# --- what is doubtful ----------------------------------------------------------------------------------


def test_a_difference_stops_nobody_and_is_told(house: House) -> None:
    house.run(60)
    rig = house.scenes[PERP].rig
    event = ev.PauseRequested(77, "root", "test", rig.now_ns)
    rig.machine.handle([event], rig.now_ns)
    house.journal.batch(PERP, rig.now_ns, [event], [])  # as if it had decided nothing
    house.run(20, 2)
    found = recovered(house)
    assert [difference.key for difference in found.differences] == [PERP]
    assert "differs from the record" in found.broken[PERP]
    assert states(found) == house.states(), "it went on with what it computed"


def test_a_machine_that_was_called_off_is_in_doubt(house: House) -> None:
    house.run(30)
    rig = house.scenes[PERP].rig
    house.journal.batch(PERP, rig.now_ns, [ev.TimerFired(rig.now_ns)], [], error="Overdue: x", called_off=True)
    found = recovered(house)
    assert not found.differences
    assert "stopped from outside" in found.broken[PERP]


@pytest.mark.parametrize("what", ["called off", "lost", "differs"])
def test_doubts_outlive_starts_that_came_to_nothing_until_somebody_inherited(house: House, what: str) -> None:
    house.run(30)
    rig = house.scenes[PERP].rig
    event = ev.PauseRequested(77, "root", "test", rig.now_ns)
    if what == "called off":
        house.journal.batch(PERP, rig.now_ns, [ev.TimerFired(rig.now_ns)], [], error="Overdue: x", called_off=True)
    elif what == "lost":
        house.journal.put(rec.Lost, rig.now_ns, records=7)
    else:
        rig.machine.handle([event], rig.now_ns)
        house.journal.batch(PERP, rig.now_ns, [event], [])
    first = recovered(house).broken
    assert PERP in first
    for account in ("a", "b"):
        begin_and_stop(house, account)
        found = recovered(house)
        assert {key: found.broken[key] for key in first} == first and PERP in found.machines
    house.restart()
    assert recovered(house).broken == {}


def test_a_doubt_stays_until_the_heir_was_told(house: House) -> None:
    """A loss of power may tear off the batch in which it is."""
    house.run(30)
    rig = house.scenes[PERP].rig
    house.journal.put(rec.Lost, rig.now_ns, records=7)
    house.journal.put(rec.Started, rig.now_ns, version="1.2.3", pid=2, host="h")
    rig.join(inherits=True)
    assert "could not be written" in recovered(house).broken[PERP]
    house.journal.batch(PERP, rig.now_ns, [ev.JournalDoubted("x", rig.now_ns)], [])
    assert "could not be written" not in recovered(house).broken.get(PERP, "")


def test_a_doubt_about_losses_stays_until_they_were_counted_anew(house: House) -> None:
    house.run(30)
    house.journal.put(rec.Lost, house.now_ns, records=7)
    begin_and_stop(house, "a")
    assert "" in recovered(house).broken
    house.restart()
    assert "" not in recovered(house).broken


def test_a_state_that_no_file_has_any_more_is_in_doubt(house: House) -> None:
    house.run(60)
    house.journal.rotate(house.now_ns)
    house.run(120, 2)
    house.journal.commit()
    (house.directory / "journal-00000001.jsonl").unlink()
    found = recover(house.directory)
    assert not found.machines
    assert set(found.broken) == {*house.scenes, ""} and "not in the journal any more" in found.broken[PERP]


def test_another_versions_states_are_salvaged_and_what_is_lost_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run(60)
    house.rotate()
    house.run(30, 2)
    house.journal.commit()
    for module in (memory, form):
        monkeypatch.setattr(module, "CODE", "another program")
    found = recover(house.directory)
    assert {key: machine.position.lots for key, machine in found.machines.items()} == {
        rig.key: rig.machine.position.lots for rig in house.rigs()
    }
    assert not found.differences
    assert set(found.broken) == {""}, "all that matters of the symbols could be read"


@pytest.mark.parametrize("spoil", [b"0", b"\n"])
def test_a_broken_chain_is_refused(house: House, spoil: bytes) -> None:
    house.run(60)
    house.journal.close()
    (path,) = house.directory.glob("*.jsonl")
    content = path.read_bytes()
    middle = content.index(b"\n", len(content) // 2) + 200
    path.write_bytes(content[:middle] + spoil + content[middle + 1 :])
    with pytest.raises(JournalFailed, match=path.name):
        recover(house.directory)


def test_an_unfinished_line_at_the_end_is_no_hindrance(house: House) -> None:
    house.run(30)
    expected = house.states()
    house.journal.close()
    (path,) = house.directory.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"hash":"0123')
    assert states(recover(house.directory)) == expected


def test_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed):
        recover(tmp_path)


def test_python_looks_for_cycles_again_afterwards(house: House) -> None:
    assert gc.isenabled()
    recovered(house)
    assert gc.isenabled()
