"""What a daemon writes down for the reaper: no place is forgotten before it is proven, nobody removes what is new."""

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from mmd.config.load import load
from mmd.config.model import Config
from mmd.shell import whereabouts
from mmd.shell.locks import lock_state, state_holder
from mmd.shell.whereabouts import FORMER_MAX, Whereabouts, forget, former_names, keep, recall, settle

CONFIG = """\
version: 1
service: {name: svc}
exchanges:
  one:
    type: deribit
    network: testnet
    credentials: {client_id: {env: REAP_ID}, client_secret: {env: REAP_SECRET}}
  two:
    type: deribit
    network: {url: "wss://two.example/ws"}
    credentials: {client_id: {env: REAP_ID}, client_secret: {env: REAP_SECRET}}
spreads: {wide: {fair: mid, style: around, spread_bps: 200, size: 10}}
instruments: [{exchange: one, symbol: BTC-PERPETUAL, spread: wide}]
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""
MAINNET = CONFIG.replace("testnet", "mainnet")
WITHOUT_TWO = CONFIG[: CONFIG.index("  two:")] + CONFIG[CONFIG.index("spreads:") :]
Row = tuple[str, str, str, str, bool]


class Home:
    """A state directory and its daemons' configurations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.file = self.state / "exchanges.json"

    def config(self, text: str) -> Config:
        path = self.folder / "mmd.yaml"
        path.write_text(text)
        return load(path)

    def start(self, text: str = CONFIG) -> None:
        keep(self.state, self.config(text))

    def places(self) -> list[Row]:
        return [
            (
                place.service,
                place.config.name,
                str(place.config.url or place.config.network),
                place.account,
                place.former,
            )
            for place in recall(self.state).places
        ]


ONE: Row = ("svc", "one", "testnet", "id", False)
TWO: Row = ("svc", "two", "wss://two.example/ws", "id", False)


def formerly(row: Row) -> Row:
    return (*row[:4], True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("REAP_ID", "id")
    monkeypatch.setenv("REAP_SECRET", "not-a-real-secret")
    return Home(tmp_path)


# --- places that another configuration leaves --------------------------------------------------------


def test_a_place_is_an_account_at_a_server(home: Home) -> None:
    home.start()
    assert home.places() == [ONE, TWO]
    assert "not-a-real-secret" not in home.file.read_text()


@pytest.mark.parametrize(
    ("now", "left"),
    [
        pytest.param(MAINNET, [ONE], id="another network"),
        pytest.param(CONFIG.replace("two.example", "three.example"), [TWO], id="another server"),
        pytest.param(WITHOUT_TWO, [TWO], id="one exchange fewer"),
        pytest.param(CONFIG.replace("env: REAP_ID", "env: OTHER_ID"), [ONE, TWO], id="another key"),
        pytest.param(CONFIG.replace("env: REAP_SECRET", "env: OTHER_SECRET"), [], id="its secret is elsewhere"),
        pytest.param(CONFIG.replace("env: REAP_ID", "env: SAME_ID"), [], id="the same key elsewhere"),
        pytest.param(CONFIG.replace("type: deribit\n", "type: deribit\n    order_valid_ms: 500\n"), [], id="else"),
    ],
)
def test_what_the_last_configuration_had_and_this_one_has_not_is_kept(
    home: Home, monkeypatch: pytest.MonkeyPatch, now: str, left: list[Row]
) -> None:
    monkeypatch.setenv("OTHER_ID", "other")
    monkeypatch.setenv("SAME_ID", "id")
    monkeypatch.setenv("OTHER_SECRET", "not-a-real-one-either")
    home.start()
    for _ in range(3):  # a crash, another start, a reload: nothing is proven by any of them
        home.start(now)
        assert [row for row in home.places() if row[4]] == [formerly(row) for row in left]
    assert former_names(home.state, home.config(now)) == {}  # the name is the same
    settle(home.state, home.config(now))  # what a daemon proves is of its own accounts
    assert [row for row in home.places() if row[4]] == [formerly(row) for row in left]
    home.start()  # back again: they are its own
    assert [row for row in home.places() if not row[4]] == [ONE, TWO]
    assert not {formerly(ONE), formerly(TWO)} & set(home.places())


def test_the_same_key_that_is_another_accounts_now_is_another_place(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.start()
    monkeypatch.setenv("REAP_ID", "other")
    home.start()
    assert [row[3] for row in home.places()] == ["other", "other", "id", "id"]


def test_a_key_that_cannot_be_read_at_a_reload_is_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.start()
    monkeypatch.delenv("REAP_ID")
    home.start()
    assert home.places() == [ONE, TWO]


def test_a_file_of_a_version_that_wrote_no_accounts(home: Home) -> None:
    home.start()
    content: Any = json.loads(home.file.read_text())
    for raw in content["exchanges"].values():
        del raw["account"]
    home.file.write_text(json.dumps(content))
    home.start(MAINNET)
    assert [(row[2], row[3]) for row in home.places() if row[4]] == [("testnet", "")]


def test_a_sandbox_that_went_with_its_process_is_no_former_place(home: Home) -> None:
    home.start(CONFIG.replace("testnet", "sandbox"))
    home.start()
    assert home.places() == [ONE, TWO]


def test_so_many_are_remembered_and_more_are_counted(home: Home) -> None:
    for number in range(FORMER_MAX + 1):
        home.start(CONFIG.replace("two.example", f"{number}.example"))
    assert len(home.places()) == 2 + FORMER_MAX and recall(home.state).problems == ()
    for _ in range(2):
        home.start()
        (problem,) = recall(home.state).problems
        assert problem.endswith("exchanges.json: 1 former places were too many to be remembered")


# --- a file that cannot be read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoiled",
    ["{", "", "\0" * 100, '{"format": 2, "service": "svc", "sha256": "", "exchanges": {}}', "a directory"],
)
def test_what_cannot_be_read_is_moved_aside_and_said(
    home: Home, spoiled: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mmd")  # whatever another test left it at
    if spoiled == "a directory":
        home.file.mkdir()
    else:
        home.file.write_text(spoiled)
    home.start()
    assert home.places() == [ONE, TWO]
    aside = home.state / "exchanges.json.unreadable-1"
    assert aside.is_dir() if spoiled == "a directory" else aside.read_text() == spoiled
    (said,) = [record for record in caplog.records if record.name == "mmd.whereabouts"]
    assert said.levelname == "ERROR" and "whereabouts.unreadable" in said.getMessage()
    (problem,) = recall(home.state).problems
    assert problem.startswith(f"{aside}: ") and problem.endswith("where else orders may rest is not known")


def test_one_unreadable_file_is_kept(home: Home) -> None:
    for spoiled in ("{", "["):
        home.file.write_text(spoiled)
        home.start()
    assert sorted(path.name for path in home.state.iterdir()) == ["exchanges.json", "exchanges.json.unreadable-1"]
    assert (home.state / "exchanges.json.unreadable-1").read_text() == "["


# --- removing it -------------------------------------------------------------------------------------


def seen(home: Home) -> Whereabouts | None:
    return recall(home.state).content


def test_what_was_proven_is_removed(home: Home) -> None:
    home.start()
    forget(home.state, seen(home))
    assert not home.file.exists()


def test_a_daemon_that_started_meanwhile_keeps_its_file(home: Home) -> None:
    home.start()
    known = seen(home)
    with lock_state(home.state):
        home.start()
        forget(home.state, known)
        assert home.file.exists()
    forget(home.state, known)
    assert not home.file.exists()


def test_a_daemon_that_started_and_died_meanwhile_leaves_places_that_nobody_has_proven(home: Home) -> None:
    home.start()
    known = seen(home)
    home.start(MAINNET)
    forget(home.state, known)
    assert {row[2] for row in home.places()} == {"testnet", "mainnet", "wss://two.example/ws"}


def test_a_daemon_that_starts_just_before_it_is_removed_writes_it_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the directory is asked, and free; then the daemon takes it and writes."""
    home.start()
    waits: list[bool] = []

    def then_a_daemon_starts(state: Path) -> int | None:
        holder = state_holder(state)
        waits.append(is_held(state))
        return holder

    monkeypatch.setattr("mmd.shell.whereabouts.state_holder", then_a_daemon_starts)
    forget(home.state, seen(home))
    assert waits == [True]  # a daemon that got so far would have waited before it wrote
    assert not is_held(home.state)
    home.start()
    assert home.places() == [ONE, TWO]


def is_held(state: Path) -> bool:
    """Whether somebody has the file for himself now."""
    handle = os.open(state, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_daemon_writes_it_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    write = whereabouts._write

    def written(state: Path, *rest: Any) -> None:
        held.append(is_held(state))
        write(state, *rest)

    monkeypatch.setattr(whereabouts, "_write", written)
    home.start()
    assert held == [True]
