"""No secret in any output: log, events, status, state directory."""

import logging
from pathlib import Path

from sim_judge import Oracle
from sim_world_type import World

from mmd.shell import logs


class Secrets(Oracle):
    promise = "no secret in any output"

    def __init__(self) -> None:
        self.listener = Listener()

    def calm(self, world: World) -> None:
        daemon = world.daemon
        if daemon is None:
            return
        texts = [
            str(daemon.events_since(0, 10_000)),
            str(daemon.status(["all"])),
            daemon.config(),
            str(daemon.alerts()),
        ]
        for text in (*texts, *self.listener.lines):
            self._search(world, text.encode(), "what operators are shown")
        self.listener.lines.clear()

    def stopped(self, world: World) -> None:
        self._files(world, world.state_directory)

    def over(self, world: World) -> None:
        self._files(world, world.state_directory)
        for line in self.listener.lines:
            self._search(world, line.encode(), "the log")

    def _files(self, world: World, directory: Path) -> None:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self._search(world, path.read_bytes(), path.name)

    def _search(self, world: World, content: bytes, where: str) -> None:
        if world.plan.ground.secret.encode() in content:
            raise self.broken(f"the secret is in {where}")
        for token in sorted(world.wire.tokens):
            if token in content:
                raise self.broken(f"an access token is in {where}")


class Listener(logging.Handler):
    """Keeps the log as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logs.json_line(logs.entry_of(record)))
