"""What a control test needs: the desk of straw, the socket's path, and what was audited."""

from pathlib import Path
from typing import Any

import trio
from control_desk import FakeDesk

from mmd.control.server import serve_control
from mmd.shell.desk import Caller


class Room:
    """What a test needs: the desk, the socket's path, and what was audited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.desk = FakeDesk()
        self.audited: list[tuple[Caller, str, dict[str, Any], str]] = []
        self.clients: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        """A client's end; the fixture closes it."""
        stream = await trio.open_unix_socket(str(self.path))
        self.clients.append(stream)
        return stream

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await serve_control(
            self.path,
            self.desk,
            admin_group=None,
            view_group=None,
            audit=lambda *entry: self.audited.append(entry),
            task_status=task_status,
        )
