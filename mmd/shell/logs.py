"""Structured logs: `noun.verb` and fields; to the journal, a terminal or JSON lines; never a secret, never a flood.

    log = get("shell")
    log.info("order.placed", symbol="BTC-PERPETUAL", price=price)

Under journald (JOURNAL_STREAM names our stderr) records go to the journal's own socket, where every
field is searchable as MMD_<NAME>; if that socket is missing, `<priority>` prefixes on stderr do.
Identical records within ten seconds are counted and written once more with `repeated`.
Not for the hot path: a record costs microseconds.
"""

import base64
import json
import logging
import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TextIO
from urllib.parse import quote

import msgspec

ROOT = "mmd"
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
REPEAT_WINDOW_SECONDS = 10.0
REPEATS_REMEMBERED = 1000
TEXT_MAX = 32_768
MASK = "[secret]"
# Shorter strings occur in ordinary words; masking them would hide the log, not the secret.
SECRET_MIN = 4

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
RESERVED = frozenset({"time", "level", "logger", "event", "traceback"})


class Format(StrEnum):
    """AUTO: the journal where it listens to our stderr, else text."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


# --- secrets -------------------------------------------------------------------------------------


class Secrets:
    """Strings that must not be printed, in every spelling they may take on their way into a line."""

    def __init__(self) -> None:
        self._spellings: list[str] = []

    def register(self, value: str) -> None:
        """Mask this value from now on; values below four characters are left alone."""
        if len(value) < SECRET_MIN:
            return
        spellings = {value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}
        spellings.add(base64.b64encode(value.encode()).decode().rstrip("="))
        # Longest first: a secret inside another one must not leave the other's rest behind.
        self._spellings = sorted({*self._spellings, *spellings}, key=lambda s: (-len(s), s))

    def mask(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        return text


SECRETS = Secrets()


def register_secret(value: str) -> None:
    """Replace `value` by [secret] in everything logged from now on, tracebacks included."""
    SECRETS.register(value)


def redact(text: str) -> str:
    """`text` without any registered secret."""
    return SECRETS.mask(text)


# --- what a room calls ---------------------------------------------------------------------------


class Log:
    """A room's voice. Event names are `noun.verb` and an interface; fields are keyword arguments.

    An exception as a field value brings its traceback along.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    @property
    def debugs(self) -> bool:
        """Whether `debug` writes anything; asked first where even naming the fields costs too much."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: object) -> None:
        self.log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self.log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self.log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self.log(logging.ERROR, event, fields)

    def critical(self, event: str, /, **fields: object) -> None:
        self.log(logging.CRITICAL, event, fields)

    def log(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        """Hand one record to the outlets; `level` is one of logging's numbers."""
        logger = self._logger
        if logger.isEnabledFor(level):
            record = logger.makeRecord(logger.name, level, "", 0, event, (), None, extra={"fields": dict(fields)})
            logger.handle(record)


def get(name: str) -> Log:
    """The log of one part, for instance `get("pump")` or, the same, `get("mmd.pump")`."""
    return Log(logging.getLogger(f"{ROOT}.{name.removeprefix(f'{ROOT}.')}"))


def set_level(level: str) -> str:
    """Change the level at run time; returns the one before. Raises ValueError for an unknown name."""
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is unknown; allowed: {', '.join(LEVELS)}")
    logger = logging.getLogger(ROOT)
    before = logging.getLevelName(logger.getEffectiveLevel()).lower()
    logger.setLevel(LEVELS[level])
    return str(before)


# --- from record to line -------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """One record, masked and flat: ready to be compared and written. `created` is Unix seconds."""

    created: float
    level: int
    logger: str
    event: str
    fields: tuple[tuple[str, str | int | float | bool | None], ...]
    traceback: str

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for records that say the same."""
        return (self.level, self.logger, self.event, self.fields, self.traceback)


def entry_of(record: logging.LogRecord) -> Entry:
    """Mask and flatten a record of ours, or of a library through plain logging."""
    given: Mapping[str, object] | None = getattr(record, "fields", None)
    if given is None:
        event, given = "library.logged", {"library": record.name, "text": record.getMessage()}
    else:
        event = record.msg
    trace = ""
    fields: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in given.items():
        if isinstance(value, BaseException):
            trace += "".join(traceback.format_exception(value))
            value = f"{type(value).__name__}: {value}"
        if not isinstance(value, str | int | float | bool | None):
            value = str(value)
        if isinstance(value, str):
            value = redact(str(value))[:TEXT_MAX]
        fields.append((f"{name}_" if name in RESERVED else name, value))
    if record.exc_info and record.exc_info[1] is not None:
        trace += "".join(traceback.format_exception(record.exc_info[1]))
    return Entry(
        created=record.created,
        level=record.levelno,
        logger=record.name.removeprefix(f"{ROOT}."),
        event=redact(event),
        fields=tuple(fields),
        traceback=redact(trace)[-TEXT_MAX:],
    )


def timestamp(created: float) -> str:
    """UTC with milliseconds, sortable."""
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_of(value: str | int | float | bool | None) -> str:
    """A field's value as one word; quoted where it has blanks, quotes or characters that would not print."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if text and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def sentence(entry: Entry) -> str:
    """`order.placed symbol=BTC-PERPETUAL price=1`, always one line."""
    event = entry.event if entry.event.isprintable() else json.dumps(entry.event)
    return " ".join([event, *(f"{name}={text_of(value)}" for name, value in entry.fields)])


def trace_lines(entry: Entry) -> list[str]:
    """The traceback, indented so that no line of it can pass for a record."""
    return ["    " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in x) for x in entry.traceback.splitlines()]


def text_line(entry: Entry) -> str:
    """For people: time, level, sentence, traceback below."""
    level = logging.getLevelName(entry.level).lower()
    return "\n".join([f"{timestamp(entry.created)} {level:<8} {sentence(entry)}", *trace_lines(entry)]) + "\n"


def json_line(entry: Entry) -> str:
    """For programs: one object a line."""
    head: dict[str, object] = {
        "time": timestamp(entry.created),
        "level": logging.getLevelName(entry.level).lower(),
        "logger": entry.logger,
        "event": entry.event,
        **dict(entry.fields),
    }
    if entry.traceback:
        head["traceback"] = entry.traceback
    return msgspec.json.encode(head).decode() + "\n"


def prefixed_line(entry: Entry) -> str:
    """For a journal that only reads our stderr: sd-daemon(3) priorities, no time."""
    mark = f"<{PRIORITIES.get(entry.level, 5)}>"
    return "\n".join(mark + line for line in [sentence(entry), *trace_lines(entry)]) + "\n"


def journal_datagram(entry: Entry) -> bytes:
    """The journal's native protocol: MESSAGE, PRIORITY and each field as MMD_<NAME>."""
    fields = {
        "MESSAGE": "\n".join([sentence(entry), *trace_lines(entry)]),
        "PRIORITY": str(PRIORITIES.get(entry.level, 5)),
        "SYSLOG_IDENTIFIER": ROOT,
        "MMD_LOGGER": entry.logger,
        "MMD_EVENT": entry.event,
        **{f"MMD_{name.upper()}": "" if value is None else str(value) for name, value in entry.fields},
    }
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")
        # The length form takes any bytes; the short form would let a newline begin a field of its own.
        parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
    return b"".join(parts)


# --- where lines go ------------------------------------------------------------------------------


class Sink(Protocol):
    """Where entries go; `write` raises OSError when one is lost."""

    def write(self, entry: Entry) -> None: ...

    def close(self) -> None: ...


class StreamSink:
    """Lines to a stream that somebody else owns."""

    def __init__(self, stream: TextIO, line: Callable[[Entry], str]) -> None:
        self.stream = stream
        self.line = line

    def write(self, entry: Entry) -> None:
        self.stream.write(self.line(entry))
        self.stream.flush()

    def close(self) -> None:
        """Leave the stream to its owner."""


class JournalSink:
    """Datagrams to journald. Never waits: a journal that does not read loses records, it does not stop the loop."""

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        """Raises OSError where no journal listens."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def write(self, entry: Entry) -> None:
        self.socket.send(journal_datagram(entry))

    def close(self) -> None:
        self.socket.close()


class Outlet(logging.Handler):
    """The one handler: masks, counts repeats, writes. `lost` counts what could not be written."""

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds, for the window of repeats."""
        super().__init__()
        self.sink = sink
        self.clock = clock
        self.lost = 0
        self._unsaid = 0
        self._seen: dict[tuple[object, ...], tuple[float, Entry, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        entry, now = entry_of(record), self.clock()
        self.write_repeats(now - REPEAT_WINDOW_SECONDS)
        seen = self._seen.get(entry.key)
        if seen is not None:
            self._seen[entry.key] = (seen[0], entry, seen[2] + 1)
            return
        self._seen[entry.key] = (now, entry, 0)
        self.write(entry)

    def reshape(self, form: Format) -> None:
        """Write in another format from now on."""
        self.sink.close()
        self.sink = choose_sink(form, sys.stderr, os.environ)

    def write_repeats(self, before: float) -> None:
        """Write the count of every repeated entry that was first seen up to `before`, and forget it."""
        while self._seen:
            key, (first, entry, count) = next(iter(self._seen.items()))
            if first > before and len(self._seen) <= REPEATS_REMEMBERED:
                return
            del self._seen[key]
            if count:
                self.write(msgspec.structs.replace(entry, fields=(*entry.fields, ("repeated", count))))

    def write(self, entry: Entry) -> None:
        try:
            if self._unsaid:
                fields = (("count", self._unsaid),)
                self.sink.write(Entry(entry.created, logging.WARNING, "logs", "log.lost", fields, ""))
                self._unsaid = 0
            self.sink.write(entry)
        except (OSError, ValueError):  # ValueError: the stream was closed under us
            self.lost += 1
            self._unsaid += 1

    def close(self) -> None:
        """Write pending counts and let go of the sink."""
        self.acquire()
        try:
            self.write_repeats(float("inf"))
            self.sink.close()
        finally:
            self.release()
        super().close()


def journal_listens(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the one that journald gave us: JOURNAL_STREAM is its device:inode."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def choose_sink(form: Format, stream: TextIO, environ: Mapping[str, str], path: Path = JOURNAL_SOCKET) -> Sink:
    """The sink for a format; see the head of this file."""
    if form is Format.JSON:
        return StreamSink(stream, json_line)
    if not journal_listens(stream, environ):
        return StreamSink(stream, text_line)
    if form is Format.TEXT:
        return StreamSink(stream, prefixed_line)
    try:
        return JournalSink(path)
    except OSError:
        return StreamSink(stream, prefixed_line)


def setup(level: str = "info", form: Format = Format.AUTO, stream: TextIO | None = None) -> Outlet:
    """Send all logging of this process through one Outlet; libraries are heard from `warning` upwards.

    Raises ValueError for an unknown level. Close the returned outlet last.
    """
    set_level(level)
    outlet = Outlet(choose_sink(form, stream or sys.stderr, os.environ))
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(outlet)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    return outlet
