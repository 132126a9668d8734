"""What is wrong with a journal, in words: a line that does not go on from the one before it, and why not. Pure."""

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from mmd.journal.chain import BODY_AT, OPENING, follow, link, parts
from mmd.journal.statefile import JournalFailed

SEQ = re.compile(rb'"kind":"[a-z]+","seq":(\d{1,18}),"at":(-?\d{1,19})[,}]')
LOOKED_AT = 200
"""How far into a line its first fields are looked for."""


class What(StrEnum):
    """Kinds of faults."""

    CHANGED = "changed"
    MISSING = "missing"
    REORDERED = "reordered"
    UNFINISHED = "unfinished"
    MISSING_FILE = "missing file"
    RENAMED = "renamed"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"


class Fault(msgspec.Struct, frozen=True):
    """The first thing that is wrong. `line` counts from 1, 0: the whole file. `seq`: of the record expected there."""

    file: str
    line: int
    seq: int
    what: What
    detail: str

    def __str__(self) -> str:
        where = f"{self.file} line {self.line}" if self.line else self.file
        return f"{where} (record {self.seq}): {self.what}: {self.detail}"


class Broken(JournalFailed):
    """The chain ends here."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def seq_of(line: bytes) -> int | None:
    """The sequence number that a line states; None if there is none where it should be."""
    found = SEQ.match(line, BODY_AT, LOOKED_AT)
    return int(found[1]) if found else None


def at_of(line: bytes) -> int:
    """The time that a whole line states, Unix ns."""
    found = SEQ.match(line, BODY_AT, LOOKED_AT)
    return int(found[2]) if found else 0


def diagnose(head: str, seq: int, line: bytes, behind: Sequence[bytes]) -> tuple[What, str]:
    """Why this line does not follow record `seq` with the hash `head`. `behind`: the lines after it; no newlines."""
    expected, stated = seq + 1, seq_of(line)
    following = seq_of(behind[0]) if behind else None
    second = line.find(OPENING, 1)
    if second > 0 and any(follow(head, [line[:end]])[1] for end in (second, second - 1)):
        return What.CHANGED, "the newline behind the record"
    only_its_number = following == expected + 1 or follow(head, [as_record(line, expected)])[1]
    if stated is not None and stated != expected and not only_its_number:
        if any(seq_of(later) == expected for later in behind):
            return What.REORDERED, f"record {stated} stands here, record {expected} comes later"
        if stated > expected:
            return What.MISSING, missing(expected, stated - 1)
        return What.REORDERED, f"record {stated} stands here, which is out of order"
    return What.CHANGED, changed(head, line, behind)


def as_record(line: bytes, seq: int) -> bytes:
    """The same line, stating another number."""
    found = SEQ.match(line, BODY_AT, LOOKED_AT)
    return line if found is None else line[: found.start(1)] + b"%d" % seq + line[found.end(1) :]


def missing(first: int, last: int) -> str:
    return f"record {first} is missing" if first == last else f"records {first} to {last} are missing"


def changed(head: str, line: bytes, behind: Sequence[bytes]) -> str:
    """Which part of the line, as far as the next one tells."""
    if b"\0" in line:
        return "zeros, as a loss of power leaves them"
    found = parts(line)
    if found is None:
        return "it does not begin as a line does"
    stated, body = found
    if behind and follow(link(head, body), behind[:1])[1]:
        return "its hash is not that of the record, the next line's is"
    if behind and follow(stated, behind[:1])[1]:
        return "the record is not what its hash and the next line say"
    return "the record does not fit its hash"
