"""The chain: every line carries a hash over its own record and the hash of the line before. Pure.

A line is `{"hash":"<64 hex digits>",` and then the record's JSON without its first brace. The hash
is SHA-256 of the previous line's hash (as hex, "" before the very first line) and the record's JSON.
A segment's first record repeats the previous hash, so that a file can be checked by itself. Whoever
can write the file can write a whole new chain: what cannot be forged is a head hash that was kept elsewhere.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from mmd.domain.actions import Decision

GENESIS = ""
OPENING = b'{"hash":"'
HASH_SIZE = 64
BODY_AT = len(OPENING) + HASH_SIZE + 2
DIGEST_SIZE = 16
_encode = msgspec.json.Encoder().encode


def link(previous: str, body: bytes) -> str:
    """The hash of a record (its JSON) that follows the line with this hash."""
    return hashlib.sha256(previous.encode() + body).hexdigest()


def line_of(hash_: str, body: bytes) -> bytes:
    """The line, newline included."""
    return OPENING + hash_.encode() + b'",' + body[1:] + b"\n"


def parts(line: bytes) -> tuple[str, bytes] | None:
    """Hash and record of a line (its newline included or not); None if it is none."""
    line = line.removesuffix(b"\n")
    if not line.startswith(OPENING) or line[BODY_AT - 2 : BODY_AT] != b'",':
        return None
    hash_ = line[len(OPENING) : BODY_AT - 2]
    if not hash_.isalnum() or not hash_.isascii():
        return None
    return hash_.decode(), b"{" + line[BODY_AT:]


def follow(head: str, lines: Sequence[bytes]) -> tuple[str, int]:
    """How many of these lines (without their newlines) go on from this hash, and the hash of the last that does."""
    previous = head.encode()
    for whole, line in enumerate(lines):
        start = OPENING + hashlib.sha256(previous + b"{" + line[BODY_AT:]).hexdigest().encode() + b'",'
        if not line.startswith(start):
            return previous.decode(), whole
        previous = start[len(OPENING) : -2]
    return previous.decode(), len(lines)


def digest(actions: bytes) -> str:
    """Short hash of the JSON of a list of actions."""
    return hashlib.sha256(actions).hexdigest()[:DIGEST_SIZE]


def digest_of(actions: list[Decision]) -> str:
    """The same of the actions themselves."""
    return digest(_encode(actions))
