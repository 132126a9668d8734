"""The reaper's errand around the exchanges: where it looks, what it writes down, how it ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from mmd.cli.reap import status_of
from mmd.config.load import load
from mmd.exchanges.api import Reaping
from mmd.exchanges.deribit.reaping import DeribitReaper
from mmd.journal.chain import GENESIS, line_of, link
from mmd.journal.segments import deflate, gzip_header, plain_name
from mmd.shell.certificate import KEPT, Certificate, ConfigFound, JournalHead, journal_head, write
from mmd.shell.reap import Job, Places, Trouble, make_jobs, read_places, reap, run_jobs
from mmd.shell.whereabouts import forget, former_names, keep, recall, settle

CONFIG = """\
version: 1
service: {name: svc}
exchanges:
  one:
    type: deribit
    network: testnet
    credentials: {client_id: {env: REAP_ID}, client_secret: {env: REAP_SECRET}}
  two: {type: deribit, network: sandbox}
spreads: {wide: {fair: mid, style: around, spread_bps: 200, size: 10}}
instruments: [{exchange: one, symbol: BTC-PERPETUAL, spread: wide}]
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
"""


class Folder:
    """A configuration file and a state directory."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mmd.yaml"
        self.state = folder / "state"
        self.state.mkdir()
        self.write(CONFIG)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def run_with(self, text: str = CONFIG) -> None:
        """As if a daemon had been started with this."""
        self.write(text)
        keep(self.state, load(self.file))

    def read(self) -> Places:
        return read_places(self.file, lambda configured: Path(configured) if configured else self.state)

    def names(self) -> list[tuple[str, str, bool]]:
        return [(place.service, place.config.name, place.last_run) for place in self.read().found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("REAP_ID", "id")
    monkeypatch.setenv("REAP_SECRET", "not-a-real-secret")
    return Folder(tmp_path)


# --- where ---------------------------------------------------------------------------------------

FILE = [("svc", "one", False), ("svc", "two", False)]
BROKEN = [
    pytest.param(CONFIG + "limitz: {}\n", True, id="an unknown key"),
    pytest.param(CONFIG.replace("max_position: 1000", "max_position: many"), True, id="a wrong limit"),
    pytest.param(CONFIG.replace("spread: wide}]", "spread: wyde}]"), True, id="an unknown profile"),
    pytest.param(CONFIG[: CONFIG.index("spreads:")], True, id="cut off behind the exchanges"),
    pytest.param(CONFIG.replace("name: svc", "name: Svc"), False, id="a name that is none"),
    pytest.param(CONFIG.replace("network: sandbox", "network: sandbux"), False, id="one exchange is wrong"),
    pytest.param(CONFIG.replace("spreads: {", "spreads: {{"), False, id="no YAML"),
    pytest.param("", False, id="empty"),
]


def test_a_sound_file_says_it_all(folder: Folder) -> None:
    places = folder.read()
    assert folder.names() == FILE
    assert (places.service, places.incomplete, places.config.problems) == ("svc", False, ())
    assert places.config.sha256 == load(folder.file).sha256
    folder.run_with()
    assert folder.names() == FILE  # what the last run knew is the same
    assert folder.read().config.last_run_sha256 == folder.read().config.sha256


@pytest.mark.parametrize(("text", "enough"), BROKEN)
def test_a_broken_file_and_no_memory(folder: Folder, text: str, enough: bool) -> None:
    folder.write(text)
    places = folder.read()
    assert places.incomplete is not enough
    assert places.config.problems and places.config.sha256 == ""
    if enough:
        assert folder.names() == FILE


@pytest.mark.parametrize(("text", "_"), BROKEN)
def test_a_broken_file_and_the_last_run(folder: Folder, text: str, _: bool) -> None:
    folder.run_with()
    folder.write(text)
    places = folder.read()
    assert not places.incomplete and places.config.problems
    assert {(place.service, place.config.name) for place in places.found} == {("svc", "one"), ("svc", "two")}
    assert len(places.found) == 2


def test_an_exchange_that_could_be_used_is_kept_beside_one_that_could_not(folder: Folder) -> None:
    folder.write(CONFIG.replace("network: sandbox", "network: sandbux"))
    assert folder.names() == FILE[:1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("name: svc", "name: other", id="another service"),
        pytest.param("network: testnet", "network: mainnet", id="another network"),
        pytest.param("REAP_ID", "OTHER_ID", id="another key"),
        pytest.param("type: deribit\n", "type: deribit\n    grant: client_credentials\n", id="the same place"),
    ],
)
def test_where_the_last_run_was_counts_too(folder: Folder, old: str, new: str) -> None:
    folder.run_with()
    folder.write(CONFIG.replace(old, new))
    added = [place for place in folder.read().found if place.last_run]
    assert len(added) == {"name: svc": 2, "type: deribit\n": 0}.get(old, 1)
    seen = folder.read().content
    forget(folder.state, seen)
    assert [place for place in folder.read().found if place.last_run] == []
    forget(folder.state, seen)  # twice is no error


@pytest.mark.parametrize("content", ["{", '{"format": 99, "service": "svc", "sha256": "", "exchanges": {}}'])
def test_a_memory_that_cannot_be_read_is_named_and_a_place_may_be_missing(folder: Folder, content: str) -> None:
    (folder.state / "exchanges.json").write_text(content)
    places = folder.read()
    assert folder.names() == FILE and places.incomplete
    assert "exchanges.json" in places.config.problems[0]
    keep(folder.state, load(folder.file))  # a daemon starts; what it could not read is still not known
    places = folder.read()
    assert folder.names() == FILE and places.incomplete
    assert "exchanges.json.unreadable-1: was exchanges.json once" in places.config.problems[0]
    assert (folder.state / "exchanges.json.unreadable-1").read_text() == content
    (folder.state / "exchanges.json.unreadable-1").unlink()  # a person has looked
    assert not folder.read().incomplete
    folder.write("")
    assert not folder.read().incomplete
    folder.run_with()
    (folder.state / "exchanges.json").unlink()
    folder.write("")
    assert folder.read().incomplete


def test_one_exchange_of_the_memory_that_cannot_be_read_may_be_missing(folder: Folder) -> None:
    folder.run_with()
    file = folder.state / "exchanges.json"
    file.write_text(file.read_text().replace('"two"', '"newdex"').replace('"sandbox"', '"nowhere"'))
    places = folder.read()
    assert places.incomplete and folder.names() == FILE
    assert "exchange newdex" in places.config.problems[0]


def test_the_memory_holds_no_secret(folder: Folder) -> None:
    folder.run_with()
    content = (folder.state / "exchanges.json").read_text()
    assert "not-a-real-secret" not in content and "REAP_SECRET" in content
    recalled = recall(folder.state)
    assert recalled.sha256 == load(folder.file).sha256
    assert [exchange.name for exchange in recalled.saved.exchanges] == ["one", "two"]


def named(name: str) -> str:
    return CONFIG.replace("name: svc", f"name: {name}")


def test_former_names_of_the_directory_count_until_it_is_proven_that_nothing_is_left(folder: Folder) -> None:
    folder.run_with()
    folder.run_with(named("second"))
    now = load(folder.file)
    assert former_names(folder.state, now) == {"one": ("svc",), "two": ("svc",)}
    former = [(name, exchange, True) for name in ("svc",) for exchange in ("one", "two")]
    assert folder.names() == [("second", "one", False), ("second", "two", False), *former]
    keep(folder.state, now)  # as a reload does: nobody is forgotten by it
    assert former_names(folder.state, now) == {"one": ("svc",), "two": ("svc",)}
    folder.run_with(named("third"))
    assert former_names(folder.state, load(folder.file)) == dict.fromkeys(("one", "two"), ("second", "svc"))
    folder.run_with()  # an old name again is no former one
    assert former_names(folder.state, load(folder.file)) == dict.fromkeys(("one", "two"), ("third", "second"))
    assert [place.service for place in folder.read().found] == ["svc"] * 2 + ["third"] * 2 + ["second"] * 2
    settle(folder.state, load(folder.file))
    assert former_names(folder.state, load(folder.file)) == {} and folder.names() == FILE
    forget(folder.state, folder.read().content)
    folder.run_with(named("fourth"))
    assert former_names(folder.state, load(folder.file)) == {}


def test_a_former_name_is_looked_for_only_where_it_was_used(folder: Folder) -> None:
    """Somebody else's daemon may have that name on another account."""
    folder.run_with()
    folder.run_with(named("second").replace("testnet", "mainnet"))
    now = load(folder.file)
    assert former_names(folder.state, now) == {"two": ("svc",)}
    networks = {(place.service, place.config.name): str(place.config.network) for place in folder.read().found}
    assert (networks["svc", "one"], networks["second", "one"]) == ("testnet", "mainnet")
    settle(folder.state, now)  # the daemon can prove nothing of an account that it does not trade on
    assert ("svc", "one", True) in folder.names()


def test_so_many_names_are_remembered(folder: Folder) -> None:
    for number in range(9):
        folder.run_with(named(f"name{number}"))
    assert not folder.read().incomplete
    folder.run_with(named("name9"))
    found = former_names(folder.state, load(folder.file))
    assert found["one"] == tuple(f"name{number}" for number in range(8, 0, -1))
    folder.run_with(named("name9"))  # and what was forgotten is not denied
    assert folder.read().incomplete
    assert "2 former places were too many" in folder.read().config.problems[0]


@pytest.mark.parametrize("name", ["", "svc-one", "Svc", "x" * 17, "svc\\n"])
def test_a_name_that_can_be_none_becomes_no_label(folder: Folder, name: str) -> None:
    folder.run_with()
    file = folder.state / "exchanges.json"
    text = file.read_text().replace('"svc"', f'"{name}"')
    file.write_text(text)
    folder.write(named("second"))
    assert former_names(folder.state, load(folder.file)) == {}
    keep(folder.state, load(folder.file))
    assert {place.service for place in folder.read().found} == {"second"}


# --- keys ----------------------------------------------------------------------------------------


def jobs_of(folder: Folder) -> list[Job]:
    return make_jobs(folder.read().found, lambda: 1, settled=False)


def test_a_missing_key_spoils_its_own_exchange_only(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REAP_SECRET")
    one, two = jobs_of(folder)
    assert (one.reaper, one.trouble, two.trouble) == (None, Trouble.SETUP, Trouble.NONE)
    assert "REAP_SECRET is not set" in one.progress.errors[0]
    assert two.reaper is not None


def test_a_key_that_others_can_read_is_a_matter_of_permission(folder: Folder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not-a-real-secret")
    secret.chmod(0o644)
    folder.write(CONFIG.replace("{env: REAP_SECRET}", f"{{file: {secret}}}"))
    assert jobs_of(folder)[0].trouble is Trouble.PERMISSION


def test_a_key_of_the_last_run_that_is_gone_is_covered_by_the_files_if_both_are_of_one_account(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = CONFIG.replace("REAP_SECRET", "OLD_SECRET").replace("REAP_ID", "OLD_ID")
    monkeypatch.setenv("OLD_SECRET", "not-a-real-secret-either")
    well = [("one", Trouble.NONE), ("two", Trouble.NONE)]
    for account, covered in (("id", True), ("another", False)):
        monkeypatch.setenv("OLD_ID", account)
        folder.run_with(old)
        folder.write(CONFIG)
        assert [job.reaper is not None for job in jobs_of(folder)] == [True, True, True]
        monkeypatch.delenv("OLD_ID")
        jobs = jobs_of(folder)
        assert [(job.place.config.name, job.trouble) for job in jobs[:2]] == well
        assert [job.trouble for job in jobs[2:]] == ([] if covered else [Trouble.SETUP])
        assert covered or jobs[2].progress.errors == [
            "not looked at: no credentials: the environment variable OLD_ID is not set"
        ]
        assert covered or jobs[2].progress.account == "another"
        forget(folder.state, folder.read().content)
    folder.write(CONFIG.replace("testnet", "mainnet"))
    folder.run_with(old.replace("OLD_ID", "REAP_ID"))
    monkeypatch.delenv("OLD_SECRET")
    folder.write(CONFIG.replace("testnet", "mainnet"))
    assert [job.trouble for job in jobs_of(folder)] == [Trouble.NONE, Trouble.NONE, Trouble.SETUP]


def test_a_client_id_that_was_never_written_down_and_cannot_be_read_covers_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.run_with(CONFIG.replace("REAP_ID", "OLD_ID"))  # an exchanges.json without accounts, as far as this goes
    folder.write(CONFIG)
    assert [job.trouble for job in jobs_of(folder)] == [Trouble.NONE, Trouble.NONE, Trouble.SETUP]


def test_a_key_that_has_become_another_accounts_is_not_the_last_runs(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.run_with()
    monkeypatch.setenv("REAP_ID", "another")
    one, two, old = jobs_of(folder)
    assert (one.progress.account, one.trouble, two.trouble) == ("another", Trouble.NONE, Trouble.NONE)
    assert (old.place.config.name, old.progress.account, old.trouble) == ("one", "id", Trouble.SETUP)
    assert "they are of another now, and orders may rest on id" in old.progress.errors[0]
    keep(folder.state, load(folder.file))  # the daemon starts with it: the old account is not forgotten
    assert [job.trouble for job in jobs_of(folder)] == [Trouble.NONE, Trouble.NONE, Trouble.SETUP]


def test_the_reapers_own_key_may_have_another_client_id(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "    reaper_credentials: {client_id: {env: OWN_ID}, client_secret: {env: REAP_SECRET}}\n    credentials:"
    monkeypatch.setenv("OWN_ID", "undertaker")
    folder.run_with(CONFIG.replace("    credentials:", own))
    folder.write(CONFIG.replace("testnet", "mainnet"))
    assert [(job.progress.account, job.trouble) for job in jobs_of(folder)][2] == ("undertaker", Trouble.NONE)


# --- how long ------------------------------------------------------------------------------------


def valid(milliseconds: str, text: str = CONFIG) -> str:
    return text.replace("type: deribit\n", f"type: deribit\n    order_valid_ms: {milliseconds}\n", 1)


@pytest.mark.parametrize(
    ("last", "now", "seconds"),
    [
        pytest.param("null", "500", 10.0, id="no limit was longer"),
        pytest.param("500", "null", 10.0, id="no limit is longer"),
        pytest.param("4000", "500", 4.5, id="the last run's is longer"),
        pytest.param("500", "3000", 3.5, id="the file's is longer"),
    ],
)
def test_the_longest_that_anybody_knows_is_waited_for(folder: Folder, last: str, now: str, seconds: float) -> None:
    folder.run_with(valid(last))
    folder.write(valid(now))
    reaper = jobs_of(folder)[0].reaper
    assert isinstance(reaper, DeribitReaper) and reaper.settle_seconds == seconds
    folder.write(valid(now, CONFIG.replace("REAP_SECRET", "OTHER_SECRET")))  # whatever the key
    assert [place.config.order_valid_ms for place in folder.read().found if place.config.name == "one"] == [
        None if seconds == 10.0 else (seconds - 0.5) * 1000
    ] * 2


def test_what_the_last_daemon_saw_to_is_not_waited_for_and_former_places_are(folder: Folder) -> None:
    folder.run_with(CONFIG.replace("testnet", "mainnet"))
    folder.run_with()
    jobs = make_jobs(folder.read().found, lambda: 1, settled=True)
    waits = {str(job.place.config.network): getattr(job.reaper, "settle_seconds", None) for job in jobs}
    assert waits == {"testnet": 0.0, "sandbox": None, "mainnet": 2.5}


# --- ends ----------------------------------------------------------------------------------------


class Puppet:
    """A Reaper that does as it is told."""

    name, network = "one", "nowhere"

    def __init__(self, seconds: float, *, proven: bool = True, refused: bool = False) -> None:
        self.progress = Reaping(account="id")
        self._seconds, self._proven, self._refused = seconds, proven, refused

    async def reap(self, *, only_look: bool) -> None:
        self.progress.before = 0
        await trio.sleep(self._seconds)
        self.progress.proven, self.progress.refused = self._proven, self._refused
        self.progress.after = 0


def job(folder: Folder, puppet: Puppet) -> Job:
    return Job(folder.read().found[0], puppet, puppet.progress)


async def test_all_at_once_and_no_longer_than_needed(folder: Folder, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    jobs = [job(folder, Puppet(seconds)) for seconds in (3, 1, 2)]
    assert await run_jobs(jobs, seconds=20, only_look=False, taken_over=str) == ""
    assert trio.current_time() - began == pytest.approx(3)
    assert all(each.progress.proven for each in jobs)


async def test_out_of_time(folder: Folder, autojump_clock: trio.testing.MockClock) -> None:
    jobs = [job(folder, Puppet(1)), job(folder, Puppet(100))]
    assert await run_jobs(jobs, seconds=5, only_look=False, taken_over=str) == "out of time after 5 s"
    assert [each.progress.proven for each in jobs] == [True, False]


async def test_a_daemon_takes_over(folder: Folder, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()

    def taken_over() -> str:
        return "a daemon lives" if trio.current_time() - began > 2 else ""

    jobs = [job(folder, Puppet(100))]
    assert await run_jobs(jobs, seconds=50, only_look=False, taken_over=taken_over) == "a daemon lives"
    assert trio.current_time() - began < 3


async def test_the_sandbox_inside_the_daemon_went_with_it(folder: Folder, tmp_path: Path) -> None:
    folder.write(CONFIG.replace("network: testnet", "network: sandbox"))
    certificate, jobs = await reap(
        folder.read(), state=folder.state, seconds=5, only_look=False, after="", taken_over=str
    )
    assert certificate.proven and certificate.cause == "by hand"
    assert {line.network for line in certificate.exchanges} == {"sandbox, gone with its process"}
    assert status_of(jobs, dry_run=False, incomplete=False) == 0


@pytest.mark.parametrize(
    ("troubles", "incomplete", "status"),
    [
        pytest.param([None, None], False, 0, id="all proven"),
        pytest.param([None, Trouble.NONE], False, 1, id="one not"),
        pytest.param([Trouble.NONE, Trouble.PERMISSION], False, 1, id="trying again helps one of them"),
        pytest.param([None, Trouble.PERMISSION], False, 77, id="refused"),
        pytest.param([Trouble.SETUP, Trouble.PERMISSION], False, 77, id="refused, and no key"),
        pytest.param([None, Trouble.SETUP], False, 78, id="no key"),
        pytest.param([None, None], True, 78, id="an exchange may be missing"),
    ],
)
def test_the_status(folder: Folder, troubles: list[Trouble | None], incomplete: bool, status: int) -> None:
    jobs = []
    for trouble in troubles:
        progress = Reaping(account="id", before=0, after=0 if trouble is None else None, proven=trouble is None)
        jobs.append(Job(folder.read().found[0], None, progress, trouble or Trouble.NONE))
    for dry_run in (False, True):
        assert status_of(jobs, dry_run=dry_run, incomplete=incomplete) == status


# --- certificates --------------------------------------------------------------------------------


def certificate(number: int = 0) -> Certificate:
    return Certificate(
        service="svc",
        host="host",
        version="1",
        cause="by hand",
        started=f"2026-01-31T12:00:{number // 10:02}.{number % 10}00000Z",
        finished="",
        dry_run=False,
        proven=True,
        ended="",
        config=ConfigFound("", "", ""),
        journal=JournalHead(),
        exchanges=(),
    )


def test_the_newest_hundred_are_kept(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    (directory / "reap-notes.json").write_text("mine")
    paths = [write(certificate(number), tmp_path) for number in range(KEPT + 5)]
    assert sorted(directory.iterdir()) == sorted([*paths[5:], directory / "reap-notes.json"])
    assert re.fullmatch(r"reap-20260131T120000\.000000Z\.json", paths[0].name)
    assert msgspec.json.decode(paths[-1].read_bytes(), type=Certificate) == certificate(KEPT + 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_in_the_way_is_not_given_away(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir()
    os.chown(state, 12345, 12345)
    (state / "certificates").symlink_to(elsewhere)
    write(certificate(), state)
    assert elsewhere.stat().st_uid == 0


# --- the journal's head --------------------------------------------------------------------------


def chained(count: int, first: int = 1, size: int = 10) -> tuple[bytes, str]:
    """Lines of records that far from real ones, and the last hash."""
    text, head = b"", GENESIS
    for seq in range(first, first + count):
        body = json.dumps({"kind": "note", "seq": seq, "at": 1, "detail": "x" * size}).encode()
        head = link(head, body)
        text += line_of(head, body)
    return text, head


@pytest.mark.parametrize(
    ("tail", "size"),
    [
        pytest.param(b"", 10, id="whole"),
        pytest.param(b'{"hash":"abc', 10, id="torn"),
        pytest.param(b"\0" * 5000, 10, id="never written"),
        pytest.param(b"\0" * 50 + b"\n", 10, id="never written, with an end"),
        pytest.param(b"", 300_000, id="long lines"),
    ],
)
def test_the_head_is_the_last_whole_line(tmp_path: Path, tail: bytes, size: int) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    text, head = chained(5, size=size)
    (journal / plain_name(1)).write_bytes(chained(9)[0])
    (journal / plain_name(2)).write_bytes(text + tail)
    assert journal_head(tmp_path) == JournalHead(5, head, plain_name(2))
    (journal / plain_name(3)).write_bytes(b"")  # begun, and no more
    assert journal_head(tmp_path) == JournalHead(5, head, plain_name(2))


def test_no_head(tmp_path: Path) -> None:
    assert journal_head(tmp_path) == JournalHead(problem="there is no journal")
    journal = tmp_path / "journal"
    journal.mkdir()
    (journal / plain_name(1)).write_bytes(b"nothing\n")
    assert "no whole record" in journal_head(tmp_path).problem
    (journal / plain_name(1)).write_bytes(line_of("a" * 64, b"{nothing}"))
    assert "malformed" in journal_head(tmp_path).problem


def test_a_compressed_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    packed = b"".join(deflate(iter([chained(3)[0]]), 6))
    (journal / f"{plain_name(1)}.gz").write_bytes(gzip_header("0" * 64) + packed)
    found = journal_head(tmp_path)
    assert (found.hash, "SHA-256" in found.problem) == ("", True)


# --- what it is made of --------------------------------------------------------------------------


def test_no_strategy_is_loaded() -> None:
    """Run alone, it does not even import what quotes; so an error there cannot keep it from cancelling."""
    code = "import sys, mmd.cli.reap; print(*[name for name in sys.modules if name.startswith('mmd.')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "mmd.shell.reap" in loaded
    strategy = re.compile(
        r"mmd\.(core\.(machine|portfolio|gate|quoter|quoting|plan|symbol|own|tracker)|replay|control"
        r"|shell\.(pump|daemon|outbox|worker|roster))\b"
    )
    assert [name for name in loaded if strategy.match(name)] == []
