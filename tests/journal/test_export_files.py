"""`mmd journal export`, `list` and `show` on files: formats, whole or nothing, ranges over many segments, damage."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from export_story import (
    BID,
    CALL,
    KEY,
    OPTION,
    PERPETUAL,
    SHA1,
    START_NS,
    Story,
    begin,
    book,
    end,
    flatten,
    imagine,
    quote,
    settings,
    tell,
    trouble,
)

from mmd.cli import mmd as program
from mmd.cli.journal import Place, next_to_go
from mmd.core.imagined import maker_fee
from mmd.core.machine import SymbolMachine
from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.reasons import Mode, Side, State
from mmd.domain.settings import JournalSettings
from mmd.journal import records as rec
from mmd.journal.beginning import beginning
from mmd.journal.disk import OsDisk
from mmd.journal.export import Selection, export
from mmd.journal.keeping import tidy
from mmd.journal.listing import listing
from mmd.journal.reader import lines
from mmd.journal.rows import columns
from mmd.journal.segments import segment_files
from mmd.replay.memory import save
from mmd.replay.peek import instrument_of, peek

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`mmd journal ...` on the state directory of this test: exit status, stdout, stderr."""
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "none"))

    def go(*words: object, state: Path | None = tmp_path) -> tuple[int, str, str]:
        place = [] if state is None else ["--state-dir", str(state)]
        try:
            status = program.main(["journal", str(words[0]), *place, *map(str, words[1:])])
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return go


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- formats ---------------------------------------------------------------------------------------


def test_csv_is_rfc_4180_and_says_the_same_as_json_lines(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    for what in ("orders", "fills", "states", "commands", "alerts", "notes", "all"):
        status, text, _ = run("export", "--what", what)
        assert status == 0
        assert text.endswith("\r\n") and text.split("\r\n")[0] == ",".join(columns(what))
        rows = table(text)
        objects = [json.loads(line) for line in run("export", "--what", what, "--format", "jsonl")[1].splitlines()]
        assert len(rows) == len(objects) > 0
        for row, line in zip(rows, objects, strict=True):
            if what != "all":
                del line["what"]
            assert {name: value for name, value in row.items() if value} == {n: str(v) for n, v in line.items()}


def test_a_cell_with_commas_quotes_and_newlines_survives(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    (row,) = table(run("export", "--what", "commands")[1])
    assert json.loads(row["params"])["reason"] == 'say "when", then\ngo'


def test_it_says_what_is_proven(run: Run, tmp_path: Path) -> None:
    story = tell(tmp_path / "journal")
    err = run("export")[2]
    assert err == f"mmd: 24 rows; every line from record 1 to 38 is proven, head {story.journal.head}\n"


@pytest.mark.parametrize(("name", "as_csv"), [("a.csv", True), ("a.jsonl", False), ("a.ndjson", False), ("a", True)])
def test_a_file_is_private_and_its_name_says_the_format(run: Run, tmp_path: Path, name: str, as_csv: bool) -> None:
    tell(tmp_path / "journal")
    out = tmp_path / name
    out.write_text("old")
    assert run("export", "-o", out)[0] == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_bytes().startswith(b"time,seq" if as_csv else b'{"what":"order"')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["journal", name])


@pytest.mark.parametrize("deep", [False, True])
def test_a_link_is_followed_and_stays(run: Run, tmp_path: Path, deep: bool) -> None:
    tell(tmp_path / "journal")
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "out.csv", tmp_path / "link.csv"
    if deep:
        target.write_text("old")
    link.symlink_to("there/out.csv")
    assert run("export", "-o", link)[0] == 0
    assert link.is_symlink() and target.read_bytes().startswith(b"time,seq")
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]


def test_a_pipe_is_written_into(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("export", "--what", "commands", "-o", pipe)[0] == 0
        assert os.read(reader, 65536).startswith(b"time,seq")
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_device_stays_one(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    link = tmp_path / "terminal"
    master, slave = os.openpty()  # a device that nothing can take the place of, whatever the program does
    try:
        link.symlink_to(os.ttyname(slave))
        assert run("export", "--what", "commands", "-o", link)[0] == 0
        assert link.is_char_device() and link.is_symlink()
        assert os.read(master, 1000).startswith(b"time,seq")
    finally:
        os.close(master)
        os.close(slave)


def test_our_own_output_is_written_behind_what_it_has(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it is a file, as after `>`: it must not be replaced, nor written over."""
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "none"))
    tell(tmp_path / "journal")
    os.write(1, b"before\n")
    assert program.main(["journal", "export", "--state-dir", str(tmp_path), "-o", "/proc/self/fd/1"]) == 0
    os.write(1, b"after\n")
    first, *rows, last = capfd.readouterr().out.splitlines()
    assert (first, last, rows[0][:8]) == ("before", "after", "time,seq")


@pytest.mark.parametrize("text", ["=1+1", "+1 more", "-a", "@SUM(1)", "\tx", "\rx", "'quoted'", "'=1"])
def test_no_text_is_a_formula_in_csv_and_each_can_be_had_back(run: Run, tmp_path: Path, text: str) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    story.journal.put(rec.Note, START_NS, number=1, name="x", detail=text)
    story.close()
    (row,) = table(run("export", "--what", "notes")[1])
    assert row["detail"] == f"'{text}"
    (line,) = run("export", "--what", "notes", "--format", "jsonl")[1].splitlines()
    assert json.loads(line)["detail"] == text


@pytest.mark.parametrize("text", ["-1.5", "-20", "plain", "a=b", "1'"])
def test_numbers_and_other_texts_stay_as_they_are(run: Run, tmp_path: Path, text: str) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    story.journal.put(rec.Note, START_NS, number=1, name="x", detail=text)
    story.close()
    (row,) = table(run("export", "--what", "notes")[1])
    assert row["detail"] == text


def test_what_is_passed_over_tells_nothing(run: Run, tmp_path: Path) -> None:
    """The program leaves batches of market data alone: the rows are those of a reader that decodes everything."""
    directory = tmp_path / "journal"
    story = Story(directory)
    begin(story)
    story.batch([book(story)], [do.SetTimer(1)], error="ValueError()")
    story.batch([ev.TimerFired(1)], [], called_off=True)
    for chapter in (quote, trouble, flatten, imagine, end):
        chapter(story)
    story.close()
    everything = [(line.hash, rec.DECODER.decode(line.body)) for line in lines(directory)]
    rows = [json.loads(msgspec.json.encode(row)) for row in export(everything, Selection(), peek=peek, fee=maker_fee)]
    found = [json.loads(line) for line in run("export", "--what", "all", "--format", "jsonl")[1].splitlines()]
    assert found == rows and len(rows) > 40
    assert [row["event"] for row in rows if row["what"] == "state"].count("fault") == 2


# --- whole or nothing ------------------------------------------------------------------------------


def spoil(directory: Path, seq: int) -> None:
    """Change one byte of a record."""
    file = directory / "journal-00000001.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[seq - 1] = lines[seq - 1][:-1] + b" "
    file.write_bytes(b"\n".join(lines))


def test_a_broken_journal_is_told_and_leaves_no_file(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    spoil(tmp_path / "journal", 15)
    status, _, err = run("export", "-o", tmp_path / "out.csv")
    assert status == 1
    assert "journal-00000001.jsonl line 15 (record 15)" in err
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_a_place_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    status, _, err = run("export", "-o", tmp_path / "none" / "out.csv")
    assert (status, "No such file" in err) == (74, True)


@pytest.mark.parametrize("words", [["export"], ["list"], ["show", "1"]])
def test_no_journal_is_said(run: Run, tmp_path: Path, words: list[str]) -> None:
    status, _, err = run(*words)
    assert status == 66 and str(tmp_path / "journal") in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "--since", "yesterday"], "is not the number of a record, a UTC time"),
        (["export", "--since", "2026-13-01"], "is not the number of a record"),
        (["export", "--what", "rumours"], "invalid choice"),
        (["export", "--format", "xml"], "invalid choice"),
        (["show", "1", "--context", "1001"], "0 to 1000"),
        (["show"], "required"),
    ],
)
def test_wrong_usage(run: Run, words: list[str], says: str) -> None:
    status, _, err = run(*words)
    assert (status, says in err) == (64, True)


def test_the_journal_itself_may_be_named_and_the_configuration_too(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    assert run("export", state=tmp_path / "journal")[1] == run("export")[1]
    status, _, err = run("export", "-c", tmp_path / "none.yaml", state=None)
    assert (status, "none.yaml" in err) == (78, True)


# --- many segments ---------------------------------------------------------------------------------


def long_story(directory: Path) -> Story:
    """Five segments, each with the state of both symbols, as the daemon writes them; a fill in each."""
    story = Story(directory)
    begin(story)
    machines = {
        KEY: SymbolMachine(PERPETUAL, settings(Mode.LIVE), "e1", 0),
        OPTION: SymbolMachine(CALL, settings(Mode.SHADOW), "e1", 0),
    }

    def told(*events: ev.Mail, key: str = KEY) -> None:
        machines[key].handle(events, story.now_ns)
        story.batch(list(events), [], key)

    told(ev.PositionReported(3, PERPETUAL.lot, story.now_ns))
    story.batch([], [do.StateChanged(State.PAUSED, State.ACTIVE, ev.Why.RESUMED, "ann", "")])
    for number in range(5):
        if number:
            story.rotate()
        at = story.now_ns
        fill = ev.OrderFilled(
            BID, "7", f"T{number}", Side.BID, PERPETUAL.lot, 1, PERPETUAL.lot, "BTC", True, 0.0, at, at
        )
        told(fill)
        machines[KEY].state, machines[KEY].by = State.ACTIVE, "ann"
        for key, machine in machines.items():
            story.put(rec.Snapshot, key=key, state=msgspec.Raw(save(machine)))
        story.put(rec.SnapshotsDone)
        told(fill)  # told again
        if number == 4:
            story.batch([msgspec.structs.replace(fill, trade_id="T0")], [])  # as after a reconnection
        story.batch([book(story)], [do.PlaceOrder(f"{BID}{number}", Side.BID, 127000 + number, 2)])
        told(ev.ShadowFilled("s", ev.Bound.OPTIMISTIC, Side.BID, CALL.grid.tick, 1, number, at), key=OPTION)
    story.close()
    return story


@pytest.mark.parametrize("what", ["orders", "fills", "states"])
def test_a_late_range_reads_little_and_says_the_same(run: Run, tmp_path: Path, what: str) -> None:
    """Positions, prices, who resumed, the configuration: all from before what is read."""
    story = long_story(tmp_path / "journal")
    whole = [row for row in table(run("export", "--what", what)[1]) if int(row["seq"]) > story.seq - 6]
    status, text, err = run("export", "--what", what, "--since", story.seq - 5)
    assert (status, table(text)) == (0, whole)
    first = int(err.partition("from record ")[2].split()[0])
    assert 1 < first < story.seq - 5
    if what == "fills":
        assert "real" not in {row["ledger"] for row in whole}  # what is told in it was told before
        assert {row["config_sha256"] for row in whole} == {SHA1}
    if what == "orders":
        assert {row["authorised_by"] for row in whole if row["event"] == "place"} == {"ann"}


def test_a_range_by_time_is_the_range_by_number(run: Run, tmp_path: Path) -> None:
    story = long_story(tmp_path / "journal")
    seq = story.seq - 7
    seconds = seq - 1
    when = f"2026-11-18T11:{6 + (40 + seconds) // 60:02}:{(40 + seconds) % 60:02}Z"
    by_number = run("export", "--what", "fills", "--since", seq)[1]
    assert run("export", "--what", "fills", "--since", when)[1] == by_number
    assert len(table(by_number)) == 2


def test_when_the_oldest_files_are_gone_the_snapshots_are_enough(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    long_story(directory)
    whole = table(run("export", "--what", "fills")[1])
    tidy(directory, 5, JournalSettings(), START_NS)  # compressed
    assert [file.compressed for file in segment_files(OsDisk(), directory)] == [True] * 4 + [False]
    assert table(run("export", "--what", "fills")[1]) == whole
    for file in segment_files(OsDisk(), directory)[:2]:
        file.path.unlink()
    kept = table(run("export", "--what", "fills")[1])
    assert kept[0]["trade_id"] == "T2" and kept[0]["price"] == "10"
    assert kept[0]["position_after"] == ""  # told before its file says what the position was
    real = [row for row in kept if row["ledger"] == "real"]
    assert [row["position_after"] for row in real[1:]] == ["70", "80"]
    assert {row["config_sha256"] for row in kept} == {""}  # which is told only where it changes


def test_the_beginning_knows_what_was_in_force(tmp_path: Path) -> None:
    story = long_story(tmp_path / "journal")
    found = beginning(tmp_path / "journal", story.seq, 0, instrument_of)
    assert (found.before.version, found.before.config_sha256) == ("1.1", SHA1)
    assert found.before.instruments == {KEY: PERPETUAL, OPTION: CALL}
    assert beginning(tmp_path / "journal", 0, 0, instrument_of).seq == 1


def test_a_snapshot_tells_orders_positions_and_executions() -> None:
    machine = SymbolMachine(PERPETUAL, settings(Mode.LIVE), "e1", 0)
    order = ev.OpenOrder("mmd-t-BTC-PERPETUAL-b-e0-1", "9", Side.BID, 100, 4, 5)
    fill = ev.OrderFilled("", "1", "T", Side.ASK, PERPETUAL.lot, 2, PERPETUAL.lot, "BTC", True, 0.0, 1, 1)
    machine.handle([ev.PositionReported(5, PERPETUAL.lot, 1), ev.OrdersReported((order,), 1), fill], 1)
    found = peek(save(machine))
    assert found is not None
    assert (found.instrument, found.lots, found.told, found.resumed_by) == (PERPETUAL, 3, (("T", Side.ASK),), "")
    (known,) = found.orders.values()
    assert (known.side, known.price_ticks, known.total_lots, known.filled_lots) == (Side.BID, 100, 5, 1)
    assert peek(b'{"format":1}') is None and peek(b"junk") is None


# --- list ------------------------------------------------------------------------------------------


def test_the_files_are_listed(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    story = long_story(directory)
    tidy(directory, 5, JournalSettings(), START_NS)
    status, text, _ = run("list", "--json")
    files = json.loads(text)
    assert status == 0
    assert [row["number"] for row in files] == [1, 2, 3, 4, 5]
    assert sum(row["records"] for row in files) == story.seq == files[-1]["last_seq"]
    assert [row["first_seq"] for row in files[1:]] == [row["last_seq"] + 1 for row in files[:-1]]
    assert [row["compressed"] for row in files] == [True] * 4 + [False]
    assert all(row["snapshots"] for row in files)
    assert [row["size"] for row in files] == [file.path.stat().st_size for file in segment_files(OsDisk(), directory)]
    assert files[0]["deleted_ns"] == files[1]["first_at"] + 30 * 86_400 * 10**9
    assert files[-1]["deleted_ns"] is None
    lines = run("list")[1].splitlines()
    assert lines[1].split()[:4] == [
        "journal-00000001.jsonl.gz",
        str(files[0]["records"]),
        "1",
        str(files[0]["last_seq"]),
    ]
    assert lines[-1].startswith("journal-00000001.jsonl.gz is deleted next, after 2026-12-18T11:0")
    assert "the defaults: no configuration was read" in lines[-1]


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("half", [False, True])
def test_a_damaged_file_is_listed_as_far_as_it_can_be_read_and_the_others_as_ever(
    run: Run, tmp_path: Path, number: int, half: bool
) -> None:
    directory = tmp_path / "journal"
    long_story(directory)
    tidy(directory, 5, JournalSettings(), START_NS)
    before = json.loads(run("list", "--json")[1])
    path = directory / f"journal-{number:08}.jsonl.gz"
    content = bytearray(path.read_bytes())
    if half:
        del content[-12:]
    else:
        content[0] ^= 1
    path.write_bytes(content)
    status, text, _ = run("list", "--json")
    files = json.loads(text)
    assert status == 1
    assert [row["number"] for row in files] == [1, 2, 3, 4, 5]
    assert [row["damaged"] != "" for row in files] == [row["number"] == number for row in files]
    for was, now in zip(before, files, strict=True):
        if now["damaged"]:
            assert now["damaged"].startswith(f"{path}: it") and now["last_seq"] <= was["last_seq"]
        else:
            assert now | {"deleted_ns": None} == was | {"deleted_ns": None}
    status, text, errors = run("list")
    assert status == 1 and len(text.splitlines()) == 7
    assert f"can be read: {path}: it" in errors and errors.count("\n") == 1


def test_what_is_too_much_goes_at_once(tmp_path: Path) -> None:
    long_story(tmp_path / "journal")
    rules = JournalSettings(keep_gib=0.00001)
    found = listing(tmp_path / "journal", rules)
    assert found[0].deleted_ns == 0 and found[-1].deleted_ns is None
    text = next_to_go(found, Place(tmp_path / "journal", rules, configured=True))
    assert text.endswith("as soon as the daemon looks: it is too much (keep_days 30, keep_gib 1e-05)")
    tidy(tmp_path / "journal", 5, rules, START_NS)
    kept = segment_files(OsDisk(), tmp_path / "journal")
    assert [file.number for file in kept] == [row.number for row in found if row.deleted_ns != 0]


def test_a_single_file_is_not_deleted(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    lines = run("list")[1].splitlines()
    assert lines[1].split()[-1] == "no"
    assert lines[-1].startswith("nothing is deleted next")


# --- show ------------------------------------------------------------------------------------------


def test_one_record_is_shown_with_its_neighbours(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    status, text, _ = run("show", 29, "--context", 1)
    lines = text.splitlines()
    assert status == 0
    assert lines[0].split() == ["28", "2026-11-18T11:07:07.000000000Z", "batch", "BookTop", "->", "PlaceOrder"]
    assert lines[1] == f"record 29  2026-11-18T11:07:08.000000000Z  batch  {OPTION}"
    assert lines[2].startswith("hash ")
    assert json.loads("\n".join(lines[3:-1]))["events"][0]["type"] == "OrderAcked"
    assert lines[-1].split()[0] == "30"


def test_neighbours_are_of_the_same_symbol(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    lines = run("show", 32)[1].splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["24", "25", "26"]
    assert [line.split()[0] for line in lines[-2:]] == ["34", "35"]  # an alert and a note of it


def test_a_time_shows_what_was_then(run: Run, tmp_path: Path) -> None:
    tell(tmp_path / "journal")
    text = run("show", "2026-11-18T11:07:06Z", "--symbol", OPTION, "--context", 0)[1]
    assert text.startswith("record 28 ")
    assert run("show", "2026-11-18T11:06:51.5Z", "--context", "0")[1].startswith("record 13 ")


@pytest.mark.parametrize("record", ["39", "2030-01-01"])
def test_no_such_record(run: Run, tmp_path: Path, record: str) -> None:
    tell(tmp_path / "journal")
    status, _, err = run("show", record)
    assert (status, "no such record" in err) == (66, True)


def test_what_others_wrote_does_not_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    story.put(rec.Note, number=1, name="x", detail="\x1b[31mred\x07")
    story.close()
    text = run("show", story.seq)[1]
    assert "\x1b" not in text and "\x07" not in text


def test_an_export_of_a_journal_that_is_being_written(run: Run, tmp_path: Path) -> None:
    """The daemon is in the middle of a line."""
    story = Story(tmp_path / "journal")
    begin(story)
    quote(story)
    story.journal.commit()
    with story.journal.path.open("ab") as file:
        file.write(b'{"hash":"0123')
    status, text, _ = run("export", "--what", "fills")
    assert (status, len(table(text))) == (0, 1)
    flatten(story)
    story.close()
    assert len(table(run("export", "--what", "fills")[1])) == 2
