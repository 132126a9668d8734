"""Logs: what a line looks like in each format, that no secret and no flood gets through."""

import io
import json
import logging
import os
import socket
import struct
import warnings
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from mmd.shell import logs
from mmd.shell.logs import Format, JournalSink, Outlet, Secrets, StreamSink


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def quiet_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process's logging and secrets as they were."""
    monkeypatch.setattr(logs, "SECRETS", Secrets())
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def listen(stream: io.StringIO, form: Format = Format.JSON, level: str = "info") -> Outlet:
    return logs.setup(level, form, stream)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_text_line_has_time_level_event_and_fields(stream: io.StringIO) -> None:
    listen(stream, Format.TEXT)
    logs.get("pump").info("order.placed", symbol="BTC-PERPETUAL", price=Decimal("0.0005"), shadow=True, note="a b")
    time, line = stream.getvalue().split(" ", 1)
    assert line == 'info     order.placed symbol=BTC-PERPETUAL price=0.0005 shadow=true note="a b"\n'
    assert time.endswith("Z") and len(time) == len("2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("a\nb", '"a\\nb"', id="a newline begins no new record"),
        pytest.param("", '""', id="empty shows"),
        pytest.param('a"b', '"a\\"b"', id="quote"),
        pytest.param("x=1", '"x=1"', id="looks like a field"),
        pytest.param("\x1b[31m", '"\\u001b[31m"', id="no terminal escapes"),
        pytest.param("\x9b31m", '"\\u009b31m"', id="nor their eight-bit form"),
        pytest.param(None, "null", id="none"),
        pytest.param(1.5, "1.5", id="float"),
    ],
)
def test_a_value_is_one_harmless_word(value: object, text: str, stream: io.StringIO) -> None:
    listen(stream, Format.TEXT)
    logs.get("t").info("a.b", value=value)
    assert stream.getvalue().endswith(f" value={text}\n")
    assert stream.getvalue().count("\n") == 1


def test_json_lines_keep_types_and_reserved_names_apart(stream: io.StringIO) -> None:
    listen(stream)
    logs.get("pump").warning("quote.withheld", symbol="X", count=3, level="deep", price=Decimal("1.10"), on=False)
    (line,) = lines(stream)
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "logger": "pump",
        "event": "quote.withheld",
        "symbol": "X",
        "count": 3,
        "level_": "deep",
        "price": "1.10",
        "on": False,
    }


def test_level_changes_at_run_time(stream: io.StringIO) -> None:
    listen(stream)
    log = logs.get("t")
    log.debug("a.one")
    assert logs.set_level("debug") == "info"
    log.debug("a.two")
    assert logs.set_level("error") == "debug"
    log.warning("a.three")
    assert [line["event"] for line in lines(stream)] == ["a.two"]
    with pytest.raises(ValueError, match="'loud' is unknown; allowed: debug, info, warning, error, critical"):
        logs.set_level("loud")


def test_libraries_are_heard_from_warning_upwards(stream: io.StringIO) -> None:
    listen(stream, level="debug")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("slow %s", "host")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit("old call", DeprecationWarning, "some.py", 1)
    first, second = lines(stream)
    assert "old call" in str(second["text"])
    assert (first["event"], first["library"], first["text"]) == ("library.logged", "httpx", "slow host")
    assert all("chatter" not in str(line) for line in lines(stream))


# --- secrets -------------------------------------------------------------------------------------

SECRET = 'pa55"w/örd\\x'


@pytest.mark.parametrize("form", [Format.TEXT, Format.JSON])
def test_no_spelling_of_a_secret_gets_out(form: Format, stream: io.StringIO) -> None:
    listen(stream, form)
    logs.register_secret(SECRET)
    log = logs.get("t")

    def use_secret(key: str) -> None:
        raise ValueError(f"cannot use {key!r} or {key}")

    try:
        use_secret(SECRET)
    except ValueError as error:
        log.error("login.failed", error=error, url=f"https://x/?secret={logs.quote(SECRET, safe='')}", raw=SECRET)
        log.error("message.sent", body=json.dumps({"client_secret": SECRET}), values=[SECRET])
        logging.getLogger("lib").error("with %s", SECRET, exc_info=True)
    log.info(f"event.{SECRET}")
    text = stream.getvalue()
    assert "Traceback" in text
    assert text.count(logs.MASK) >= 9
    for spelling in (SECRET, "pa55", "w/örd", "w%2F", "\\u00f6rd"):
        assert spelling not in text


def test_a_secret_inside_a_secret_leaves_no_rest() -> None:
    secrets = Secrets()
    secrets.register("abcd")
    secrets.register("abcdefgh")
    assert secrets.mask("x abcdefgh abcd") == "x [secret] [secret]"


def test_short_values_do_not_blank_the_log() -> None:
    secrets = Secrets()
    secrets.register("a")
    secrets.register("")
    assert secrets.mask("a banana") == "a banana"


# --- repeats -------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted(stream: io.StringIO, clock: Clock) -> Outlet:
    outlet = Outlet(StreamSink(stream, logs.json_line), clock)
    logging.getLogger().handlers[:] = [outlet]
    logs.set_level("info")
    return outlet


def test_identical_records_are_counted_not_repeated(stream: io.StringIO, clock: Clock, counted: Outlet) -> None:
    log = logs.get("t")
    for _ in range(1000):
        log.warning("order.refused", symbol="X", rule="collar")
    log.warning("order.refused", symbol="Y", rule="collar")
    assert [line["symbol"] for line in lines(stream)] == ["X", "Y"]
    clock.now = 10.5
    log.info("statistics.line", uptime=30)
    seen = [(line["event"], line.get("symbol"), line.get("repeated")) for line in lines(stream)]
    assert seen[2:] == [("order.refused", "X", 999), ("statistics.line", None, None)]


def test_after_the_window_a_record_is_news_again(stream: io.StringIO, clock: Clock, counted: Outlet) -> None:
    for clock.now in (0.0, 5.0, 11.0, 12.0):
        logs.get("t").info("a.b")
    assert [line.get("repeated") for line in lines(stream)] == [None, 1, None]


def test_pending_counts_are_written_at_the_end(stream: io.StringIO, counted: Outlet) -> None:
    for _ in range(3):
        logs.get("t").info("a.b")
    counted.close()
    assert [line.get("repeated") for line in lines(stream)] == [None, 2]


def test_memory_of_repeats_is_bounded(stream: io.StringIO, counted: Outlet) -> None:
    for n in range(logs.REPEATS_REMEMBERED * 2):
        logs.get("t").info("a.b", n=n)
    assert len(counted._seen) <= logs.REPEATS_REMEMBERED + 1
    assert len(lines(stream)) == logs.REPEATS_REMEMBERED * 2


def test_what_could_not_be_written_is_said_later(stream: io.StringIO) -> None:
    class Broken(StreamSink):
        broken = True

        def write(self, entry: logs.Entry) -> None:
            if self.broken:
                raise BlockingIOError
            super().write(entry)

    sink = Broken(stream, logs.json_line)
    outlet = Outlet(sink)
    logging.getLogger().handlers[:] = [outlet]
    logs.set_level("info")
    logs.get("t").info("a.one")
    logs.get("t").info("a.two")
    assert (outlet.lost, stream.getvalue()) == (2, "")
    sink.broken = False
    logs.get("t").info("a.three")
    assert [(line["event"], line.get("count")) for line in lines(stream)] == [("log.lost", 2), ("a.three", None)]


# --- the journal ---------------------------------------------------------------------------------


def fields_of(datagram: bytes) -> dict[str, str]:
    """Parse the native protocol's length form."""
    found = {}
    while datagram:
        name, rest = datagram.split(b"\n", 1)
        (size,) = struct.unpack_from("<Q", rest)
        found[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        datagram = rest[9 + size :]
    return found


def test_the_journal_gets_searchable_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journal"))
        journald.settimeout(5)
        outlet = Outlet(JournalSink(tmp_path / "journal"))
        logging.getLogger().handlers[:] = [outlet]
        logs.set_level("info")
        logs.get("pump").warning("symbol.paused", symbol="X", exchange="deribit", reason="stale_book", note="a\nFAKE=1")
        fields = fields_of(journald.recv(65536))
        outlet.close()
    assert fields == {
        "MESSAGE": 'symbol.paused symbol=X exchange=deribit reason=stale_book note="a\\nFAKE=1"',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "mmd",
        "MMD_LOGGER": "pump",
        "MMD_EVENT": "symbol.paused",
        "MMD_SYMBOL": "X",
        "MMD_EXCHANGE": "deribit",
        "MMD_REASON": "stale_book",
        "MMD_NOTE": "a\nFAKE=1",
    }


def test_a_journal_that_does_not_read_never_blocks_us(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journal"))
        outlet = Outlet(JournalSink(tmp_path / "journal"))
        logging.getLogger().handlers[:] = [outlet]
        logs.set_level("info")
        for n in range(100_000):
            logs.get("t").info("a.b", n=n)
            if outlet.lost:
                break
        outlet.close()
    assert outlet.lost


def test_the_sink_follows_where_stderr_goes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with (tmp_path / "err").open("w+") as stderr, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        stat = os.fstat(stderr.fileno())
        ours = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        sink = logs.choose_sink(Format.AUTO, stderr, ours, path)
        assert isinstance(sink, StreamSink) and sink.line is logs.prefixed_line  # no journal socket: prefixes
        journald.bind(str(path))
        sink = logs.choose_sink(Format.AUTO, stderr, ours, path)
        assert isinstance(sink, JournalSink)
        sink.close()
        for environ in ({}, {"JOURNAL_STREAM": "1:2"}):  # redirected since: the variable is another's
            sink = logs.choose_sink(Format.AUTO, stderr, environ, path)
            assert isinstance(sink, StreamSink) and sink.line is logs.text_line


def test_every_line_of_a_traceback_carries_the_prefix(stream: io.StringIO) -> None:
    logging.getLogger().handlers[:] = [Outlet(StreamSink(stream, logs.prefixed_line))]
    logs.set_level("info")
    try:
        raise ValueError("first\nsecond \x1b[31m")
    except ValueError as error:
        logs.get("t").error("worker.failed", error=error)
    written = stream.getvalue().splitlines()
    assert written[0] == '<3>worker.failed error="ValueError: first\\nsecond \\u001b[31m"'
    assert len(written) > 3
    assert all(line.startswith("<3>    ") for line in written[1:])
    assert "\x1b" not in stream.getvalue()


def test_entries_are_values() -> None:
    entry = logs.Entry(1.0, logging.INFO, "t", "a.b", (("x", 1),), "")
    assert entry.key == msgspec.structs.replace(entry, created=2.0).key
