"""A control server on a real socket, with a desk of straw behind it."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from control_room import Room


@pytest.fixture
async def room(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Room]:
    room = Room(tmp_path / "mmd.sock")
    await nursery.start(partial(room.serve))
    yield room
    for stream in room.clients:
        await stream.aclose()
    nursery.cancel_scope.cancel()
