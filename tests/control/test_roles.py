"""Roles by the kernel's word: real connections of other users and groups."""

import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from control_desk import FakeDesk

from mmd.cli import mmdctl
from mmd.control import server
from mmd.control.peer import Peer, role_of, user_name
from mmd.control.protocol import Role
from mmd.control.server import serve_control

NOBODY = 65534
VIEWERS, ADMINS = "nogroup", "daemon"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")


@contextlib.contextmanager
def acting_as(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """What connects meanwhile is, for the kernel, of this user."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Unlike tmp_path, a directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="mmd-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def door(nursery, public_folder) -> AsyncIterator[tuple[Path, FakeDesk, list]]:
    """A server with both groups."""
    path, desk, audited = public_folder / "mmd.sock", FakeDesk(), []
    serve = partial(
        serve_control,
        path,
        desk,
        admin_group=ADMINS,
        view_group=VIEWERS,
        audit=lambda *entry: audited.append(entry),
    )
    await nursery.start(serve)
    yield path, desk, audited
    nursery.cancel_scope.cancel()


async def ask(path: Path, method: str, *, uid: int, gid: int, groups: list[int], **params: object) -> dict:
    with trio.socket.socket(trio.socket.AF_UNIX) as client:
        with acting_as(uid, gid, groups):
            client._sock.connect(str(path))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        await client.send(json.dumps(request).encode() + b"\n")
        return json.loads(await client.recv(65536))


CASES = [
    pytest.param(0, 0, [], Role.ADMIN, "root", id="root"),
    pytest.param(NOBODY, NOBODY, [], Role.VIEWER, "nobody", id="the view group"),
    pytest.param(NOBODY, NOBODY, [1], Role.ADMIN, "nobody", id="the admin group, supplementary"),
    pytest.param(54321, 1, [NOBODY], Role.ADMIN, "54321", id="the admin group, primary; nameless"),
]


@pytest.mark.parametrize(("uid", "gid", "groups", "role", "name"), CASES)
async def test_the_role_follows_from_the_peers_credentials(door, uid, gid, groups, role, name):
    answer = await ask(door[0], "version", uid=uid, gid=gid, groups=groups)
    assert (answer["result"]["role"], answer["result"]["user"]) == (role.value, name)


async def test_a_viewer_may_look_and_not_touch_and_the_attempt_is_audited(door):
    path, desk, audited = door
    viewer = {"uid": NOBODY, "gid": NOBODY, "groups": []}
    assert "result" in await ask(path, "status", **viewer)
    error = (await ask(path, "halt", symbols=["all"], reason="mine", **viewer))["error"]
    assert error["code"] == -32001
    assert "members of group daemon" in error["message"]
    assert error["data"] == {"role": "viewer", "allowed": "admin", "uid": NOBODY}
    assert desk.calls == []
    assert audited[0][0].uid == NOBODY
    assert audited[0][1:3] == ("halt", {"symbols": ["all"], "reason": "mine"})
    assert audited[0][3].startswith("not_permitted")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("flatten", {"symbol": "BTC-PERPETUAL", "size": 0.5, "limit_price": 64000}),
        ("protection_reset", {"exchange": "deribit", "underlying": "BTC", "reason": "x"}),
        ("accept", {"number": 7, "reason": "x"}),
    ],
)
async def test_a_viewer_may_see_the_cost_and_the_totals_but_close_nothing(door, method, params):
    path, desk, audited = door
    viewer = {"uid": NOBODY, "gid": NOBODY, "groups": []}
    for look in ("risk", "ledger", "switches", "alerts", "protection", "cases"):
        assert "result" in await ask(path, look, **viewer)
    assert "result" in await ask(path, "flatten_preview", symbol="BTC-PERPETUAL", **viewer)
    desk.calls.clear()
    assert (await ask(path, method, **params, **viewer))["error"]["code"] == -32001
    assert desk.calls == []
    assert [entry[1] for entry in audited] == [method]


async def test_who_is_in_no_group_cannot_open_the_socket(door):
    with pytest.raises(PermissionError):
        await ask(door[0], "version", uid=54321, gid=54321, groups=[])


async def test_viewers_leave_room_for_admins(door):
    with contextlib.ExitStack() as clients:
        for _ in range(server.VIEWERS_MAX):
            client = clients.enter_context(trio.socket.socket(trio.socket.AF_UNIX))
            with acting_as(NOBODY, NOBODY, []):
                client._sock.connect(str(door[0]))
            await client.send(b'{"jsonrpc":"2.0","id":1,"method":"version"}\n')
            assert b"viewer" in await client.recv(65536)
        late = await ask(door[0], "version", uid=NOBODY, gid=NOBODY, groups=[])
        assert late["error"]["code"] == -32003
        assert "result" in await ask(door[0], "halt", uid=0, gid=0, groups=[], symbols=["all"])


@pytest.mark.parametrize(
    ("gid", "command", "status", "says"),
    [
        (54321, ["status"], mmdctl.Exit.NOT_PERMITTED, "may not open"),
        (NOBODY, ["halt", "all"], mmdctl.Exit.NOT_PERMITTED, "needs the admin role"),
        (NOBODY, ["orders"], mmdctl.Exit.DONE, ""),
    ],
)
async def test_mmdctl_says_what_is_not_permitted(door, capsys, gid, command, status, says):
    with acting_as(NOBODY, gid, []):
        got = await trio.to_thread.run_sync(mmdctl.main, ["--socket", str(door[0]), *command])
    assert got == status
    assert says in capsys.readouterr().err


def test_the_daemons_own_user_is_an_admin():
    peer = Peer(uid=990, pid=1, groups=frozenset({990}))
    assert role_of(peer, daemon_uid=990, admin_group_id=None) is Role.ADMIN
    assert role_of(peer, daemon_uid=991, admin_group_id=None) is Role.VIEWER


def test_a_user_without_a_name_is_known_by_number():
    assert user_name(54321) == "54321"
