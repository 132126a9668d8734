"""`mmd reap` as a program: the daemon killed, the exchange in another process, and what is left, certified."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import house
import pytest
from house import (
    CLIENT_ID,
    CLIENT_SECRET,
    MMD,
    PATIENCE_SECONDS,
    Daemon,
    Exchange,
    Program,
    environment,
    until,
    write_config,
)

from mmd.exchanges.api import MARGIN_SECONDS

PERP = "BTC-PERPETUAL"
VALID_MS = 500
SETTLE_SECONDS = VALID_MS / 1000 + MARGIN_SECONDS
LABEL = f"mmd-e2e-{PERP}-b-abc123-"


class Reaped(NamedTuple):
    """What one run said."""

    status: int
    out: str
    err: str

    @property
    def certificate(self) -> Any:
        return json.loads(self.out)


class Scene:
    """An exchange, a configuration, daemons and reapers."""

    def __init__(self, folder: Path, programs: list[Program], exchange: Exchange) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "mmd.yaml"
        self.programs = programs
        self.exchange = exchange
        exchange.account = folder.name
        self.env = {"E2E_ID": folder.name, "E2E_SECRET": CLIENT_SECRET}
        self.write()

    def write(self, **changes: Any) -> None:
        network = f'{{url: "{self.exchange.url}"}}'
        write_config(self.config, **({"network": network, "mode": "live"} | changes))
        text = self.config.read_text()
        self.config.write_text(text.replace("    credentials:", f"    order_valid_ms: {VALID_MS}\n    credentials:"))

    def daemon(self, **changes: Any) -> Daemon:
        daemon = Daemon(self.folder, self.config, env=self.env, **changes)
        self.programs.append(daemon)
        return daemon

    def words(self, *words: str) -> list[str]:
        return [*MMD, "reap", "-c", str(self.config), "--state-dir", str(self.state), *words]

    def reap(self, *words: str, env: dict[str, str] | None = None) -> Reaped:
        ran = subprocess.run(
            self.words(*words),
            capture_output=True,
            text=True,
            check=False,
            env=environment(self.env | (env or {})),
            timeout=2 * PATIENCE_SECONDS,
        )
        return Reaped(ran.returncode, ran.stdout, ran.stderr)

    def place(self, label: str, below: int = 0, account: str | None = None) -> str:
        """An order that no connection's end cancels: it was placed over HTTP. Its id."""
        mark = self.exchange.call("public/ticker", instrument_name=PERP)["mark_price"]
        placed = self.exchange.call(
            "private/buy",
            instrument_name=PERP,
            amount=10,
            type="limit",
            price=round(mark * 0.98) - below,
            label=label,
            post_only="true",
        )
        return str(placed["order"]["order_id"])

    def certificates(self) -> list[Any]:
        return [json.loads(path.read_text()) for path in sorted((self.state / "certificates").glob("*"))]


@pytest.fixture
def scene(tmp_path: Path, programs: list[Program], shared_exchange: Exchange) -> Scene:
    return Scene(tmp_path, programs, shared_exchange)


FORGETFUL = """\
import sys
from mmd.cli.mmd import main
from mmd.sandbox.engine import Engine
Engine.cancel_link = lambda *_: None
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def forgetful_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    """Its cancel-on-disconnect is armed and read back as ever, and does nothing."""
    with monkeypatch.context() as patched:
        patched.setattr(house, "MMD", (sys.executable, "-c", FORGETFUL))
        exchange = Exchange(tmp_path)
    yield exchange
    exchange.clear()


def test_a_daemon_is_killed_and_what_it_left_is_gone_and_certified(
    forgetful_exchange: Exchange, tmp_path: Path, programs: list[Program]
) -> None:
    scene = Scene(tmp_path, programs, forgetful_exchange)
    daemon = scene.daemon().ready()
    foreign = {scene.place("by-hand"), scene.place(f"mmd-other-{PERP}-b-abc123-1", 1)}
    daemon.start_quoting()
    refused = scene.reap()
    assert refused.status == 1
    assert f"pid {daemon.process.pid} holds {scene.state}" in refused.err and "mmdctl halt all" in refused.err
    daemon.kill()
    ours = set(scene.exchange.open_orders()) - foreign
    assert len(ours) in (3, 4)
    reaped = scene.reap("--json")
    assert reaped.status == 0, reaped.err
    assert set(scene.exchange.open_orders()) == foreign
    (certificate,) = scene.certificates()
    assert certificate == reaped.certificate
    (line,) = certificate["exchanges"]
    assert (certificate["service"], certificate["proven"], certificate["ended"]) == ("e2e", True, "")
    assert (line["before"], line["cancelled"], line["gone"], line["after"]) == (len(ours), len(ours), 0, 0)
    assert (line["proven"], line["account"], line["errors"]) == (True, scene.folder.name, [])
    assert {order["order_id"] for order in line["orders"]} == ours
    assert certificate["config"]["sha256"] == certificate["config"]["last_run_sha256"] != ""
    assert not (scene.state / "exchanges.json").exists()  # nothing rests anywhere
    again = scene.daemon().ready()
    assert again.stop() == 0
    assert set(scene.exchange.open_orders()) == foreign


def test_the_certificate_names_the_journals_head(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.start_quoting()
    daemon.kill()
    head = scene.reap("--json").certificate["journal"]
    last = (scene.state / "journal" / head["file"]).read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
    record = json.loads(last)
    assert (record["seq"], record["hash"]) == (head["seq"], head["hash"])
    assert head["problem"] == ""


def test_a_clean_stop_is_proven_again_at_once(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.start_quoting()
    assert daemon.stop() == 0
    quick = scene.reap("--json", "--after", "success-exited-0").certificate
    slow = scene.reap("--json", "--after", "exit-code-exited-70").certificate
    assert quick["cause"] == "the daemon's end: success-exited-0"
    assert slow["cause"] == "the daemon's end: exit-code-exited-70"
    assert (quick["proven"], slow["proven"]) == (True, True)
    assert seconds(quick) < SETTLE_SECONDS <= seconds(slow)


def seconds(certificate: Any) -> float:
    """Both are of one minute, or of two."""
    began, ended = (float(certificate[key][17:-1]) for key in ("started", "finished"))
    return (ended - began) % 60


def test_a_dry_run_changes_nothing_even_beside_a_daemon(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.start_quoting()
    looked = scene.reap("--dry-run", "--json")
    assert looked.status == 1  # something of ours is there
    assert looked.certificate["exchanges"][0]["before"] in (3, 4)  # it may just have been at one
    daemon.until(lambda: len(scene.exchange.open_orders()) == 4, "all four orders")
    assert {state for state, _ in daemon.states().values()} == {"ACTIVE"}  # nobody cancelled its orders
    assert daemon.events("order.vanished") == daemon.events("order.foreign") == []
    assert daemon.stop() == 0
    assert scene.reap("--dry-run").status == 0
    assert not (scene.state / "certificates").exists()
    assert (scene.state / "exchanges.json").exists()


def test_a_half_edited_file_does_not_stop_it(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.kill()
    ours = scene.place(f"{LABEL}1")
    good = scene.config.read_text()
    for broken in (good + "limitz: {}\n", good.replace("exchanges:", "exchanges: [", 1), ""):
        scene.config.write_text(broken)
        assert ours in scene.exchange.open_orders()
        reaped = scene.reap("--json")
        assert (reaped.status, scene.exchange.open_orders()) == (0, {}), reaped.err
        assert str(scene.config) in reaped.err  # said, and overcome
        assert reaped.certificate["config"]["problems"]
        ours = scene.place(f"{LABEL}1")
        (scene.state / "exchanges.json").write_text(REMEMBERED.replace("URL", scene.exchange.url))


REMEMBERED = """\
{"format": 1, "service": "e2e", "sha256": "", "exchanges": {"deribit": {"type": "deribit", "network": {"url": "URL"},
 "credentials": {"client_id": {"env": "E2E_ID"}, "client_secret": {"env": "E2E_SECRET"}}, "order_valid_ms": 500}}}
"""


@pytest.mark.slow
def test_without_a_memory_what_is_sound_in_the_file_counts(scene: Scene) -> None:
    scene.place(f"{LABEL}1")
    scene.config.write_text(scene.config.read_text() + "limitz: {}\n")
    assert scene.reap().status == 0
    assert scene.exchange.open_orders() == {}
    scene.config.write_text(scene.config.read_text().replace("type: deribit", "type: derby"))
    unknown = scene.reap()
    assert (unknown.status, "derby" in unknown.err) == (78, True)
    scene.config.unlink()
    assert scene.reap().status == 78


@pytest.mark.slow
def test_an_exchange_that_left_the_file_is_reaped_all_the_same(scene: Scene) -> None:
    """The operator renamed the service and did not restart: what rests has the old name."""
    daemon = scene.daemon().ready()
    daemon.kill()
    ours = scene.place(f"{LABEL}1")
    scene.write(service="renamed")
    mine = scene.place(f"mmd-renamed-{PERP}-b-abc123-1", 1)
    foreign = scene.place(f"mmd-third-{PERP}-b-abc123-1", 2)
    assert {ours, mine, foreign} <= set(scene.exchange.open_orders())
    reaped = scene.reap("--json")
    assert reaped.status == 0, reaped.err
    assert set(scene.exchange.open_orders()) == {foreign}
    assert [line["service"] for line in reaped.certificate["exchanges"]] == ["renamed", "e2e"]


@pytest.fixture
def closed_exchange(tmp_path: Path) -> Iterator[Exchange]:
    """One that knows its clients: the daemon's key, and a reaper's that belongs to another account."""
    accounts = tmp_path / "accounts.json"
    rows = [
        {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
        {"client_id": "undertaker", "client_secret": "another-secret"},
    ]
    accounts.write_text(json.dumps(rows))
    exchange = Exchange(tmp_path, "--accounts", str(accounts))
    yield exchange
    exchange.clear()


OWN_KEY = "reaper_credentials: {client_id: {env: REAPER_ID}, client_secret: {env: REAPER_SECRET}}\n    credentials:"


def test_the_reapers_own_key_is_used(closed_exchange: Exchange, tmp_path: Path, programs: list[Program]) -> None:
    scene = Scene(tmp_path, programs, closed_exchange)
    scene.config.write_text(scene.config.read_text().replace("credentials:", OWN_KEY, 1))
    own = {"E2E_ID": CLIENT_ID, "E2E_SECRET": "wrong", "REAPER_ID": "undertaker", "REAPER_SECRET": "another-secret"}
    reaped = scene.reap("--json", env=own)
    assert reaped.status == 0, reaped.err
    assert reaped.certificate["exchanges"][0]["account"] == "undertaker"
    wrong = scene.reap("--json", env=own | {"REAPER_SECRET": "wrong-as-well"})
    assert wrong.status == 77
    assert "login refused" in wrong.certificate["exchanges"][0]["errors"][0]
    for run in (reaped, wrong):
        assert "another-secret" not in run.out + run.err and "wrong-as-well" not in run.out + run.err


def test_a_key_that_is_not_there_is_the_daemons_or_an_error(
    closed_exchange: Exchange, tmp_path: Path, programs: list[Program]
) -> None:
    scene = Scene(tmp_path, programs, closed_exchange)
    scene.config.write_text(scene.config.read_text().replace("credentials:", OWN_KEY, 1))
    fallen_back = scene.reap("--json", env={"E2E_ID": CLIENT_ID})
    assert fallen_back.status == 0, fallen_back.err
    (line,) = fallen_back.certificate["exchanges"]
    assert line["account"] == CLIENT_ID
    assert "REAPER_ID is not set" in line["errors"][0]


def test_out_of_time_is_written_down(scene: Scene) -> None:
    scene.place(f"{LABEL}1")
    scene.state.mkdir()
    gone = scene.reap("--timeout", "0.3", "--json")
    assert gone.status == 1
    (certificate,) = scene.certificates()
    assert certificate == gone.certificate
    assert (certificate["proven"], certificate["ended"]) == (False, "out of time after 0.3 s")


def test_nobody_answers(scene: Scene) -> None:
    scene.state.mkdir()
    scene.write(network='{url: "ws://127.0.0.1:9/ws/api/v2"}')
    gone = scene.reap("--timeout", "2")
    assert gone.status == 1
    assert "NOT PROVEN" in gone.out and "connect failed" in gone.out
    (certificate,) = scene.certificates()
    assert certificate["exchanges"][0]["before"] is None


def test_a_signal_ends_it_with_a_certificate(scene: Scene) -> None:
    scene.state.mkdir()
    scene.write(network='{url: "ws://127.0.0.1:9/ws/api/v2"}')
    program = Program(scene.words("--timeout", "60"), scene.folder, "reap", env=scene.env)
    scene.programs.append(program)
    until(lambda: signal.SIGTERM in caught(program.process.pid), "its handler")
    assert program.stop() == 1
    (certificate,) = scene.certificates()
    assert (certificate["ended"], certificate["proven"]) == ("SIGTERM received", False)


def caught(pid: int) -> set[int]:
    """The signals that a process handles."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mask = int(fields["SigCgt"], 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


@pytest.mark.slow
def test_no_state_directory_and_a_full_one_do_not_keep_it_from_cancelling(scene: Scene) -> None:
    scene.place(f"{LABEL}1")
    missing = scene.reap()
    assert (missing.status, scene.exchange.open_orders()) == (0, {})
    assert "certificate could not be written" in missing.err
    scene.state.mkdir()
    (scene.state / "certificates").write_text("in the way")
    scene.place(f"{LABEL}1")
    blocked = scene.reap()
    assert (blocked.status, scene.exchange.open_orders()) == (0, {})
    assert "certificate could not be written" in blocked.err


def test_a_certificate_elsewhere(scene: Scene) -> None:
    scene.state.mkdir()
    path = scene.folder / "proof.json"
    assert scene.reap("--certificate", str(path)).status == 0
    assert json.loads(path.read_text())["proven"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (scene.state / "certificates").exists()


def test_only_the_exchange_that_was_named(scene: Scene) -> None:
    assert scene.reap("--exchange", "nowhere").status == 64
    assert scene.reap("--exchange", "deribit").status == 0


# --- while a daemon lives ------------------------------------------------------------------------


def test_a_living_daemon_may_be_reaped_by_force_or_be_left_alone(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.start_quoting()
    left = scene.reap("--unless-running")
    assert (left.status, f"pid {daemon.process.pid}" in left.out) == (0, True)
    elsewhere = scene.reap("--state-dir", str(scene.folder / "elsewhere"))  # the account tells
    assert elsewhere.status == 1
    assert f"pid {daemon.process.pid} trades on account {scene.folder.name}" in elsewhere.err
    daemon.until(lambda: len(scene.exchange.open_orders()) == 4, "orders that nobody touched")
    assert {state for state, _ in daemon.states().values()} == {"ACTIVE"}
    forced = scene.reap("--even-if-running", "--json", "--timeout", "5")
    assert forced.certificate["exchanges"][0]["cancelled"] >= 3
    assert (scene.state / "exchanges.json").exists()  # it is still needed
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_daemon_that_starts_meanwhile_takes_over(scene: Scene) -> None:
    scene.write(network='{url: "ws://127.0.0.1:9/ws/api/v2"}')
    scene.state.mkdir()
    for words, status in ((["--unless-running"], 0), ([], 1)):
        program = Program(scene.words("--timeout", "60", *words), scene.folder, "reap", env=scene.env)
        scene.programs.append(program)
        until(lambda pid=program.process.pid: signal.SIGTERM in caught(pid), "its handler")
        daemon = scene.daemon()  # it will not get far: nobody answers
        assert program.ended() == status, program.err
        daemon.kill()
    assert {certificate["ended"].partition(":")[0] for certificate in scene.certificates()} == {"a daemon lives"}


def test_two_daemons_on_one_account_are_one_too_many(scene: Scene) -> None:
    first = scene.daemon().ready()
    first.start_quoting()
    folder = scene.folder / "second"
    folder.mkdir()
    config = folder / "mmd.yaml"
    config.write_text(scene.config.read_text().replace("name: e2e", "name: second").replace("  deribit:", "  other:"))
    config.write_text(config.read_text().replace("exchange: deribit", "exchange: other"))
    second = Daemon(folder, config, env=scene.env)
    scene.programs.append(second)
    assert second.ended() == 70
    assert f"account {scene.folder.name} of exchange other" in second.err
    assert f"(pid {first.process.pid})" in second.err
    first.until(lambda: len(scene.exchange.open_orders()) == 4, "the first one's orders")
    first.kill()
    third = Daemon(folder, config, env=scene.env)
    scene.programs.append(third)
    assert third.ready().stop() == 0


@pytest.mark.slow
def test_a_state_directory_that_is_replaced_halts_the_daemon(scene: Scene) -> None:
    daemon = scene.daemon().ready()
    daemon.start_quoting()
    scene.state.rename(scene.folder / "aside")
    scene.state.mkdir(mode=0o700)
    daemon.until(
        lambda: set(daemon.states().values()) == {("HALTED", "journal_failure")}, "everything halted for its journal"
    )
    daemon.until(lambda: not scene.exchange.open_orders(), "no order")
    daemon.until(lambda: (scene.state / "mmd.lock").exists(), "the new directory's lock")
    assert scene.reap().status == 1  # it is seen there
    daemon.kill()
    shutil.rmtree(scene.folder / "aside")
    assert scene.reap().status == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_directorys_owner(scene: Scene) -> None:
    scene.state.mkdir()
    os.chown(scene.state, 12345, 12345)
    assert scene.reap().status == 0
    (path,) = (scene.state / "certificates").iterdir()
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (12345, 12345)
