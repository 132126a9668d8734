"""What a start tells of the process before: torn ends, orders under another name, a journal that cannot be read."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from replay_kit import SMALL, VERSION, House

from mmd.cli.run import EXIT_INTERNAL, EXIT_OK, farewell
from mmd.config.load import load_text
from mmd.config.render import for_the_record
from mmd.domain.ids import label_prefix
from mmd.domain.reasons import Mode
from mmd.journal import records as rec
from mmd.journal.reader import records
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal
from mmd.replay import memory
from mmd.replay.recover import RECORDS_A_BEAT, recover
from mmd.shell.heritage import NO_PAST, Past, begin, may_rest, other_names, read_back

ACCOUNTS = {"deribit": "desk"}
FIRST = "journal-00000001.jsonl"
CONFIG = """
version: 1
service: {name: test}
exchanges: {one: {type: deribit, network: sandbox}}
spreads: {wide: {fair: mid, style: around, spread_bps: 200, size: 10}}
instruments: [{exchange: one, symbol: BTC-PERPETUAL, spread: wide}]
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""


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


def test_orders_under_another_name_are_looked_for_and_no_doubt(house: House) -> None:
    name = house.rigs()[0].given.service
    out = [label for rig in house.rigs() for label in may_rest(rig.machine)]
    assert out and all(label.startswith(label_prefix(name)) for label in out)
    past = heir(house, "renamed")
    assert (past.former, past.doubts) == ({"deribit": (name,)}, {})
    assert heir(house).former == {}
    for rig in house.rigs():  # as if all of it had ended before
        rig.machine.own = type(rig.machine.own)(1)
    assert other_names([rig.machine for rig in house.rigs()], "renamed") == {}


def test_who_waits_is_told_all_the_while_that_it_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL, service="test", version=VERSION, code=memory.CODE, now_ns=1)
    for number in range(1, 10 * RECORDS_A_BEAT):
        journal.put(rec.Note, 1, number=number, name="test", detail="")
    journal.commit()
    beats: list[None] = []
    recover(tmp_path, alive=lambda: beats.append(None))
    assert len(beats) >= 10
    journal.close()


def test_imagined_orders_rest_nowhere(house: House) -> None:
    machine = next(rig.machine for rig in house.rigs() if rig.machine.own.resting)
    assert may_rest(machine)
    machine.mode = Mode.SHADOW
    assert may_rest(machine) == list(machine.own.strays)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://hc.example.com:8443/ping/6f1e-secret?rid=secret", "https://hc.example.com:8443/***"),
        ("https://hc.example.com?secret", "https://hc.example.com/***"),
        ("https://hc.example.com/", "https://hc.example.com/"),
        ("http://[::1]:9093", "http://[::1]:9093/"),
    ],
)
def test_of_who_is_alerted_only_the_host_is_on_record(tmp_path: Path, url: str, told: str) -> None:
    text = f"alerts: {{webhooks: [{{url: '{url}'}}], heartbeat: {{url: '{url}'}}}}"
    config = load_text(CONFIG + text)
    journal = Journal(tmp_path, SMALL, service="test", version=VERSION, code=memory.CODE, now_ns=1)
    begin(journal, config, NO_PAST, ACCOUNTS, 1)
    journal.close()
    assert b"secret" not in (tmp_path / FIRST).read_bytes()
    (record,) = [record for record in records(tmp_path) if isinstance(record, rec.Configured)]
    alerts = record.effective["alerts"]
    assert (alerts["webhooks"][0]["url"], alerts["heartbeat"]["url"]) == (told, told)
    assert record.sha256 == config.sha256 != load_text(CONFIG).sha256
    assert config.alerts.webhooks[0].url == url


def test_without_receivers_the_record_is_the_configuration() -> None:
    config = load_text(CONFIG)
    assert for_the_record(config) == config.effective


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


@pytest.mark.parametrize("service", ["", "renamed"])
def test_a_start_with_another_account_that_came_to_nothing_takes_and_spoils_nothing(house: House, service: str) -> None:
    """Neither do its heirs get what is not theirs, nor loses the owner what is."""
    journal = opened(house, service or house.rigs()[0].given.service)
    accounts = {"deribit": "another"}
    journal.put(rec.Started, house.now_ns, version=VERSION, pid=2, host="h", accounts=accounts)
    journal.put(rec.Stopped, house.now_ns, left={})
    journal.commit()
    theirs, ours = read_back(journal, None, accounts), read_back(journal, None, ACCOUNTS)
    journal.close()
    assert not theirs.machines and "symbols of another account left out" in theirs.told
    assert set(ours.machines) == set(house.scenes) and "another account" not in ours.told


def test_nothing_of_another_account_is_doubted(house: House) -> None:
    journal = opened(house, "renamed")
    assert read_back(journal, None, {"deribit": "another"}).doubts == {}
    journal.close()
