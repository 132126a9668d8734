"""One command of mmdctl on its way: what was asked, the daemon's answer, how it is printed, the exit status."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from mmd.cli.client import Client, Forbidden, NoAnswer, NoDaemon, Refused, default_socket
from mmd.cli.tables import Page, clean
from mmd.control.protocol import DEFAULT_TIMEOUT_SECONDS
from mmd.domain.errors import MmdError
from mmd.shell.desk import Outcome

GRACE_SECONDS = 2.0  # a change has its time, then its answer must still come
T = TypeVar("T")


class Exit(IntEnum):
    """What scripts rely on."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_PERMITTED = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


OUTCOMES = {Outcome.DONE: Exit.DONE, Outcome.REFUSED: Exit.REFUSED, Outcome.TIMED_OUT: Exit.TIMED_OUT}
ERRORS: dict[type[MmdError], Exit] = {
    Refused: Exit.REFUSED,
    NoDaemon: Exit.NO_DAEMON,
    Forbidden: Exit.NOT_PERMITTED,
    NoAnswer: Exit.TIMED_OUT,
}


def say(lines: Iterable[str]) -> None:
    """To stdout, at once. Where nobody reads any more the command goes on: its exit status still counts."""
    text = "".join(f"{line}\n" for line in lines)
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        mute()


def mute() -> None:
    """Say nothing more on stdout, not even when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    print(f"mmdctl: {clean(text)}", file=sys.stderr)


class Call:
    """What was asked, the daemon, and how the answer is to look."""

    def __init__(self, asked: argparse.Namespace, page: Page) -> None:
        self.asked = asked
        self.page = page
        self.socket: Path = asked.socket or default_socket(os.environ)
        self.as_json: bool = asked.json

    @property
    def symbols(self) -> list[str]:
        return list(self.asked.symbols) or ["all"]

    @property
    def reason(self) -> str:
        return self.asked.reason or ""

    def seconds(self, default: float = DEFAULT_TIMEOUT_SECONDS) -> float:
        return float(self.asked.timeout or default)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        client = Client(self.socket, self.seconds())
        try:
            yield client
        finally:
            client.close()

    def ask(
        self, method: str, result: type[T], params: dict[str, object], view: Callable[[T], list[str]], wait: float = 0
    ) -> T:
        """Ask, print the answer for people or as JSON, hand it on. Raises what the client raises."""
        raw, answer = self.fetch(method, result, params, wait)
        self.show(raw, answer, view)
        return answer

    def fetch(self, method: str, result: type[T], params: dict[str, object], wait: float = 0) -> tuple[msgspec.Raw, T]:
        """The answer as it came, and decoded; nothing is printed."""
        with self.connect() as client:
            raw = client.call(method, params, wait or self.seconds())
        return raw, self.decode(raw, result, method)

    def show(self, raw: msgspec.Raw, answer: T, view: Callable[[T], list[str]]) -> None:
        say([bytes(raw).decode()] if self.as_json else view(answer))

    def decode(self, raw: msgspec.Raw, result: type[T], method: str) -> T:
        try:
            return msgspec.json.decode(raw, type=result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswer(f"the daemon at {self.socket} answers {method} in another shape: {error}") from error
