"""How `mmd reap` ends: what it says, its status, where its certificate goes, and whether `exchanges.json` stays."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mmd.cli import reap as program
from mmd.config.load import load
from mmd.config.model import ExchangeConfig
from mmd.exchanges.api import Reaping
from mmd.shell.locks import lock_accounts, lock_state
from mmd.shell.whereabouts import keep
from mmd.shell.wiring import wire_reaper

CONFIG = """\
version: 1
service: {name: svc}
exchanges:
  one:
    type: deribit
    network: {url: "wss://one.invalid/ws"}
    credentials: {client_id: {env: ENDS_ID}, client_secret: {env: ENDS_SECRET}}
  two:
    type: deribit
    network: {url: "wss://two.invalid/ws"}
    credentials: {client_id: {env: ENDS_ID}, client_secret: {env: ENDS_SECRET}}
spreads: {wide: {fair: mid, style: around, spread_bps: 200, size: 10}}
instruments: [{exchange: one, symbol: BTC-PERPETUAL, spread: wide}]
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""


class Empty:
    """A Reaper that finds nothing, at once."""

    def __init__(self, name: str, account: str) -> None:
        self.name, self.network = name, "nowhere"
        self.progress = Reaping(account=account)

    async def reap(self, *, only_look: bool) -> None:
        self.progress.before = self.progress.after = 0
        self.progress.proven = True


class End(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def certificate(self) -> Any:
        """From standard output, where a table may stand above it."""
        return json.loads(self.out[self.out.index("{") :])


class Errand:
    """A configuration, a state directory, exchanges that are empty."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "mmd.yaml"
        self.file.write_text(CONFIG)
        self.state = folder / "state"
        self.state.mkdir()
        self.memory = self.state / "exchanges.json"
        self.looked: list[str] = []
        self._capfd = capfd

    def wire(self, config: ExchangeConfig, service: str, now_ns: Callable[[], int], *, settled: bool) -> Empty:
        real = wire_reaper(config, service, now_ns, settled=settled)  # keys are read
        self.looked.append(config.name)
        return Empty(config.name, real.progress.account)

    def ran(self) -> None:
        """A daemon was started with this."""
        keep(self.state, load(self.file))

    def reap(self, *words: str) -> End:
        self.looked.clear()
        status = program.main(["reap", "-c", str(self.file), "--state-dir", str(self.state), *words])
        return End(status, *self._capfd.readouterr())


@pytest.fixture
def errand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Errand:
    monkeypatch.setenv("ENDS_ID", f"ends-{os.getpid()}")
    monkeypatch.setenv("ENDS_SECRET", "not-a-real-secret")
    errand = Errand(tmp_path, capfd)
    monkeypatch.setattr("mmd.shell.reap.wire_reaper", errand.wire)
    return errand


def test_all_of_it_is_proven(errand: Errand) -> None:
    errand.ran()
    end = errand.reap("--json")
    assert (end.status, end.err, errand.looked) == (0, "", ["one", "two"])
    assert (end.certificate["proven"], end.certificate["left_out"]) == (True, [])
    assert not errand.memory.exists()


# --- what was not looked at -----------------------------------------------------------------------


def test_one_exchange_is_not_the_whole(errand: Errand) -> None:
    errand.ran()
    end = errand.reap("--exchange", "two")
    assert (end.status, errand.looked) == (0, ["two"])
    assert end.out.splitlines()[-1] == "PROVEN of two only: NOT LOOKED AT: one"
    certificate = errand.reap("--exchange", "two", "--json").certificate
    assert (certificate["proven"], certificate["left_out"]) == (False, ["one"])
    assert [line["proven"] for line in certificate["exchanges"]] == [True]
    assert errand.memory.exists()
    assert errand.reap("--exchange", "two", "--exchange", "one", "--json").certificate["proven"]
    assert not errand.memory.exists()


def test_one_exchange_that_is_not_proven_names_what_was_left_out(
    errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENDS_SECRET")
    end = errand.reap("--exchange", "two")
    assert end.status == 78
    assert end.out.splitlines()[-1] == "NOT PROVEN: orders of ours may still rest; not looked at: one"


@pytest.mark.parametrize("memory", ["{", "another version"])
def test_what_the_last_daemon_left_cannot_be_read(errand: Errand, memory: str) -> None:
    errand.ran()
    errand.memory.write_text("{" if memory == "{" else errand.memory.read_text().replace('"format": 1', '"format": 2'))
    end = errand.reap()
    assert (end.status, errand.looked) == (78, ["one", "two"])  # what is known is reaped
    assert str(errand.memory) in end.err and end.out.splitlines()[-1].startswith("NOT PROVEN")
    assert errand.memory.exists()
    assert not errand.reap("--json").certificate["proven"]


def test_the_last_runs_key_is_gone(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_ID", "old")
    errand.file.write_text(CONFIG.replace("ENDS_ID", "OLD_ID", 1))
    errand.ran()
    errand.file.write_text(CONFIG)
    monkeypatch.delenv("OLD_ID")
    for _ in range(2):
        end = errand.reap("--json")
        assert (end.status, end.certificate["proven"], errand.memory.exists()) == (78, False, True)
        (line,) = [line for line in end.certificate["exchanges"] if not line["proven"]]
        assert (line["exchange"], line["account"], line["before"]) == ("one", "old", None)
        assert "not looked at: no credentials: the environment variable OLD_ID is not set" in line["errors"]
        errand.ran()  # the next daemon does not make it forgotten


# --- daemons that live ----------------------------------------------------------------------------


def test_the_daemon_of_this_directory_looks_after_its_orders(errand: Errand) -> None:
    errand.ran()
    with lock_state(errand.state):
        well, not_well = errand.reap("--unless-running"), errand.reap()
    assert (well.status, not_well.status, errand.looked) == (0, 1, [])
    assert "it looks after its orders itself" in well.out and "mmdctl halt all" in not_well.err
    assert errand.memory.exists()


@pytest.mark.parametrize("words", [(), ("--unless-running",)])
def test_a_daemon_of_another_directory_looks_after_nobody_elses(errand: Errand, words: tuple[str, ...]) -> None:
    """It may have the same name, so its account is not touched; the other exchange is."""
    errand.ran()
    one = load(errand.file).exchanges["one"]
    with lock_accounts([one]):
        end = errand.reap(*words)
        assert (end.status, errand.looked) == (1, ["two"])
        said = f"pid {os.getpid()} trades on account {os.environ['ENDS_ID']} of exchange one (one.invalid)"
        assert said in end.err and f"does not hold {errand.state}" in end.err
        assert end.out.splitlines()[-1].startswith("NOT PROVEN")
        assert errand.memory.exists()
        certificate = errand.reap("--json", *words).certificate
        assert [(line["exchange"], line["proven"]) for line in certificate["exchanges"]] == [
            ("one", False),
            ("two", True),
        ]
        assert any(said in error for error in certificate["exchanges"][0]["errors"])
        assert errand.reap("--even-if-running").status == 0  # a person knows whose it is
        assert errand.looked == ["one", "two"]
    errand.ran()
    assert errand.reap(*words).status == 0


def test_a_daemon_that_starts_between_the_last_look_and_the_end_keeps_its_file(
    errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    errand.ran()
    forget = program._forget
    with ExitStack() as daemons:

        def late(state: Path, content: Any) -> None:
            daemons.enter_context(lock_state(state))
            errand.ran()
            forget(state, content)

        monkeypatch.setattr(program, "_forget", late)
        assert errand.reap().status == 0
        assert errand.memory.exists()


# --- certificates that cannot be written ----------------------------------------------------------


def test_a_certificate_that_can_be_no_file_is_printed(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(errand.state)
    for wanted in (".", "/", "..", "no/such/directory/proof.json", "nul\0byte.json"):
        errand.ran()
        end = errand.reap("--certificate", wanted)
        assert (end.status, errand.looked) == (0, ["one", "two"]), wanted
        assert "the certificate could not be written" in end.err
        assert end.certificate["proven"] and "PROVEN: nothing of ours rests" in end.out
        assert not errand.memory.exists()
        assert json.loads(errand.reap("--json", "--certificate", wanted).out)["proven"]  # once


def test_a_name_that_is_no_text_is_shown_as_it_is(errand: Errand) -> None:
    strange = Path(os.fsdecode(os.fsencode(errand.file.parent) + b"/st\xffte"))
    strange.mkdir()
    errand.file = Path(os.fsdecode(os.fsencode(errand.file.parent) + b"/mm\xff.yaml"))
    errand.file.write_text(CONFIG)
    errand.state, errand.memory = strange, strange / "exchanges.json"
    errand.ran()
    end = errand.reap()
    assert (end.status, errand.looked) == (0, ["one", "two"])
    assert "st\\udcffte/certificates/reap-" in end.out
    (path,) = (strange / "certificates").iterdir()
    assert json.loads(path.read_text())["config"]["file"].endswith("mm\\udcff.yaml")
    assert not errand.memory.exists()
    errand.ran()
    with lock_state(strange):
        assert "st\\udcffte" in errand.reap("--unless-running").out
